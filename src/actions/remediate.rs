//! Carries out plans: as a Redis user of its own, by scripts that check every precondition again, and on record.

mod act;
mod audit;
mod connection;
mod hook;
mod login;
mod remediator;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::actions::notify::Webhook;
use crate::analysis::remediation::{RemediationMode, RemediationRule};
use crate::model::TargetName;

pub use audit::{Verified, VerifyError, verify};
pub use connection::{Doer, Place, PlaceMode, Sentinels, TlsPaths};
pub use remediator::{Remediator, Watched};

/// What may be done, by whom, and where that is recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RemediationConfig {
    /// What may be done for which groups; none where remediation is off.
    pub rules: Arc<[RemediationRule]>,
    /// Who acts at each target; nobody where plans are only shown.
    pub doers: BTreeMap<TargetName, Doer>,
    /// Webhooks of the rules.
    pub hooks: Vec<Webhook>,
    /// CA certificates in PEM, for webhooks with TLS; the system's where there are none.
    pub ca: Option<Arc<[u8]>>,
    /// Where acts are recorded.
    pub audit_file: Option<PathBuf>,
    /// While this file exists, nothing is carried out.
    pub kill_switch_file: Option<PathBuf>,
    /// Whether a plan needs two approvals, by different tokens.
    pub two_person: bool,
}

impl RemediationConfig {
    /// Whether plans are made.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rules.iter().any(|rule| rule.mode != RemediationMode::Off)
    }
}
