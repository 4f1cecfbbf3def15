//! Notifies receivers of incidents: Alertmanagers, by the same rules as Prometheus, and webhooks.
//!
//! What is told is a state, not a list of messages: a receiver that was away is told what is so now, and what ended meanwhile. Each
//! receiver has a task of its own, so that none waits for another.

pub mod alert;
mod alertmanager;
#[cfg(test)]
mod fault_script;
mod journal;
mod receivers;
pub(in crate::actions) mod signature;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use journal::{SavedIncidents, take_incidents};
pub use receivers::{Notifier, test};

use crate::sys::http_client::HttpEndpoint;

/// Receivers of a configuration, of both kinds together: each has a task and a label.
pub const MAX_RECEIVERS: usize = 16;

/// Where incidents are told, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NotifyConfig {
    /// Alertmanagers: all of them are told everything, as they tell each other apart what they have sent.
    pub alertmanagers: Vec<HttpEndpoint>,
    /// Webhooks.
    pub webhooks: Vec<Webhook>,
    /// Labels that each alert has beside its own, such as those that Prometheus gives a scrape.
    pub labels: BTreeMap<String, String>,
    /// In place of each rule's `for`.
    pub hold: Option<Duration>,
    /// CA certificates in PEM, for receivers with TLS; the system's where there are none.
    pub ca: Option<Arc<[u8]>>,
    /// How long messages wait for more.
    pub timing: Timing,
}

/// A webhook.
#[derive(Clone, PartialEq)]
pub struct Webhook {
    /// Where it is.
    pub endpoint: HttpEndpoint,
    /// What its messages are signed with; not signed where there is none.
    pub secret: Option<Arc<[u8]>>,
}

/// Without the secret.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Alertmanager's words and defaults, for messages to webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the first incident of a target to its first message, so that it has those that come at the same time.
    pub group_wait: Duration,
    /// From one message about a target to the next, at least.
    pub group_interval: Duration,
    /// After so long, what still fires is told again.
    pub repeat_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            group_wait: Duration::from_secs(30),
            group_interval: Duration::from_secs(5 * 60),
            repeat_interval: Duration::from_secs(4 * 60 * 60),
        }
    }
}

impl NotifyConfig {
    /// Every receiver's name, as its label has it.
    pub fn receivers(&self) -> impl Iterator<Item = String> {
        let alertmanagers = self.alertmanagers.iter().map(alertmanager_name);
        alertmanagers.chain(self.webhooks.iter().map(|webhook| webhook_name(&webhook.endpoint)))
    }

    /// Every receiver's key and name.
    fn keys(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let alertmanagers = self.alertmanagers.iter().map(|endpoint| (alertmanager_name(endpoint), endpoint));
        let webhooks = self.webhooks.iter().map(|webhook| (webhook_name(&webhook.endpoint), &webhook.endpoint));
        alertmanagers.chain(webhooks).map(|(name, endpoint)| (key(&name, endpoint), name.into()))
    }
}

/// What tells a receiver from one of the same name: with a digest of its URL, which may be a secret.
fn key(name: &str, endpoint: &HttpEndpoint) -> Arc<str> {
    format!("{name} {}", endpoint.digest()).into()
}

fn alertmanager_name(endpoint: &HttpEndpoint) -> String {
    format!("alertmanager {}", endpoint.authority())
}

/// Without the path: that of many webhooks is a secret.
fn webhook_name(endpoint: &HttpEndpoint) -> String {
    format!("webhook {}", endpoint.authority())
}
