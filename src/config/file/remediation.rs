//! `remediation:` of the file, as it is written: its structure is checked here by serde, its values in [`crate::config::remediation`].

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::{Error, Spanned};

use super::named;
use crate::config::values::{Location, shown};

/// The key of the section.
pub(in crate::config) const REMEDIATION: &str = "remediation";

/// The section as it is written.
#[derive(Clone, Debug)]
pub(crate) struct ListedRemediation {
    pub(in crate::config) section: Section,
    pub(in crate::config) file: Arc<Path>,
}

/// The part of the file that is read here.
#[derive(Deserialize)]
struct Document {
    remediation: Option<Section>,
}

/// A piece and where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct Placed<T>(Spanned<T>);

impl<T> Deref for Placed<T> {
    type Target = Spanned<T>;

    fn deref(&self) -> &Spanned<T> {
        &self.0
    }
}

/// Its place does not count: what has only moved is not another configuration.
impl<T: Hash> Hash for Placed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Section {
    pub(in crate::config) user: Option<Placed<String>>,
    #[serde(alias = "password-file")]
    pub(in crate::config) password_file: Option<Placed<String>>,
    #[serde(alias = "audit-file")]
    pub(in crate::config) audit_file: Option<Placed<String>>,
    #[serde(alias = "kill-switch-file")]
    pub(in crate::config) kill_switch_file: Option<Placed<String>>,
    #[serde(alias = "ca-file")]
    pub(in crate::config) ca_file: Option<Placed<String>>,
    #[serde(alias = "two-person", default)]
    pub(in crate::config) two_person: bool,
    #[serde(default)]
    pub(in crate::config) rules: Vec<Placed<ListedRule>>,
}

#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListedRule {
    pub(in crate::config) target: Option<String>,
    pub(in crate::config) stream: String,
    pub(in crate::config) group: String,
    pub(in crate::config) mode: ModeWord,
    #[serde(default)]
    pub(in crate::config) actions: Vec<ActionWord>,
    pub(in crate::config) budget: Option<ListedBudget>,
    #[serde(alias = "dead-letter")]
    pub(in crate::config) dead_letter: Option<ListedDeadLetter>,
    pub(in crate::config) hook: Option<ListedHook>,
}

#[derive(Clone, Copy, Debug, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ModeWord {
    Off,
    Plan,
    Approve,
    Auto,
}

#[derive(Clone, Copy, Debug, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ActionWord {
    DeleteIdleConsumers,
    DropGhosts,
    Release,
    DeadLetter,
    Hook,
}

#[derive(Clone, Copy, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListedBudget {
    #[serde(alias = "acts-per-hour")]
    pub(in crate::config) acts_per_hour: u64,
    #[serde(alias = "entries-per-act")]
    pub(in crate::config) entries_per_act: u64,
}

#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListedDeadLetter {
    pub(in crate::config) stream: String,
    pub(in crate::config) deliveries: u64,
    pub(in crate::config) idle: Option<String>,
}

#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ListedHook {
    pub(in crate::config) url: String,
    #[serde(alias = "secret-file")]
    pub(in crate::config) secret_file: String,
    #[serde(alias = "allow-plain", default)]
    pub(in crate::config) allow_plain: bool,
}

impl ListedRemediation {
    /// Reads the section out of a file's text.
    ///
    /// # Errors
    /// What is expected of it, and where.
    pub(in crate::config) fn parse(text: &str, file: &Arc<Path>) -> Result<Option<Self>, String> {
        let document: Document = serde_saphyr::from_str(text).map_err(|error| described(&error))?;
        Ok(document.remediation.map(|section| Self { section, file: Arc::clone(file) }))
    }

    pub(in crate::config) fn location(&self, line: u64) -> Location {
        Location { file: Arc::clone(&self.file), line }
    }

    pub(in crate::config) fn path(&self, given: &str) -> PathBuf {
        self.location(0).beside(Path::new(given))
    }
}

/// What the parser has against the section. It may be against anything else in the file, which is read elsewhere.
fn described(error: &Error) -> String {
    let error = error.without_snippet();
    let wrong = match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key {} of {REMEDIATION}: expected one of {}", named(field), expected.join(", "))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("invalid value {:?} in {REMEDIATION}: expected one of {}", shown(variant), expected.join(", "))
        }
        Error::SerdeMissingField { field, .. } => format!("{REMEDIATION}: {field} is missing"),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("{REMEDIATION}: expected {expected}")
        }
        _ => format!("{REMEDIATION}: expected a mapping with user, password_file, audit_file and a list of rules"),
    };
    match error.location() {
        Some(place) if place.line() > 0 => format!("line {}: {wrong}", place.line()),
        _ => wrong,
    }
}
