//! One incident: a rule of `alerts/streamlag.rules.yml`, and what it holds for.

mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::analysis::group_state::GroupState;
use crate::model::lag::Lag;
use crate::model::text::hex;
use crate::model::{GroupName, StreamKey, TargetName};

/// Bytes of an incident's identity that are shown, in hexadecimal digits twice as many.
const ID_BYTES: usize = 16;

/// How bad it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Events are lost or about to be, are not processed, or nobody can tell.
    Critical,
    /// To be looked at in working hours, if it is alone.
    Warning,
    /// Housekeeping.
    Info,
}

impl Severity {
    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }

    pub(in crate::analysis) fn parse(text: &str) -> Option<Self> {
        [Self::Critical, Self::Warning, Self::Info].into_iter().find(|severity| severity.as_str() == text)
    }
}

/// One rule.
#[derive(Debug, PartialEq)]
pub struct AlertRule {
    /// The alert's name.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// How long its condition must hold before it fires (`for`).
    pub hold: Duration,
    /// How long it goes on firing after its condition has ceased to hold (`keep_firing_for`).
    pub keep_firing: Duration,
    /// The state that the alert has as a label; `None` where it has none.
    pub state: Option<GroupState>,
    /// Its annotations: templates, by name.
    pub annotations: BTreeMap<String, String>,
}

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IncidentSubject {
    /// The whole target.
    Target,
    /// One of its servers, by address.
    Node(Arc<str>),
    /// A stream.
    Stream(StreamKey),
    /// A group of a stream.
    Group(StreamKey, GroupName),
}

/// How far an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentStatus {
    /// Its condition holds, not yet for long enough.
    Pending,
    /// Its condition has held for long enough.
    Firing,
    /// It fired, and ended.
    Resolved,
}

impl IncidentStatus {
    /// The word that the API and the metric use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What an incident rests on, as of the newest poll in which its condition held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncidentEvidence {
    /// The rule's value: a lag, an age in seconds, a count.
    pub value: f64,
    /// The group's state.
    pub state: Option<GroupState>,
    /// The reason of that state, or why a stream, a node or Redis does not answer.
    pub reason: Option<String>,
    /// The group's lag.
    pub lag: Option<Lag>,
}

/// One rule, and what it holds for.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// The rule.
    pub rule: &'static AlertRule,
    /// The target's name.
    pub target: TargetName,
    /// Whether it is one of several targets, so that the name says something.
    pub several_targets: bool,
    /// What it is about.
    pub subject: IncidentSubject,
    /// How far it is.
    pub status: IncidentStatus,
    /// Since when its condition holds.
    pub active_since: SystemTime,
    /// Since when it fires; `None` while it is pending.
    pub fired_at: Option<SystemTime>,
    /// When it ended; `None` while it has not.
    pub resolved_at: Option<SystemTime>,
    /// What it rests on.
    pub evidence: IncidentEvidence,
}

impl Incident {
    /// Its identity: the same in every replica, and for every time that it fires.
    #[must_use]
    pub fn id(&self) -> String {
        let (kind, name, group): (&[u8], &[u8], &[u8]) = match &self.subject {
            IncidentSubject::Target => (b"target", b"", b""),
            IncidentSubject::Node(address) => (b"node", address.as_bytes(), b""),
            IncidentSubject::Stream(stream) => (b"stream", stream.as_bytes(), b""),
            IncidentSubject::Group(stream, group) => (b"group", stream.as_bytes(), group.as_bytes()),
        };
        let mut digest = Sha256::new();
        for part in [self.target.as_str().as_bytes(), kind, name, group, self.rule.name.as_bytes()] {
            // With the length in front, no two lists of parts are the same bytes.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        hex(&digest.finalize()[..ID_BYTES])
    }

    /// The labels that the rule's alert has in Prometheus, as far as they come from streamlag.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.to_owned());
        label("alertname", &self.rule.name);
        label("severity", self.rule.severity.as_str());
        match &self.subject {
            IncidentSubject::Target => {}
            IncidentSubject::Node(address) => drop(label("node", address)),
            IncidentSubject::Stream(stream) => drop(label("stream", &stream.display_name())),
            IncidentSubject::Group(stream, group) => {
                label("stream", &stream.display_name());
                label("consumer_group", &group.display_name());
            }
        }
        if let Some(state) = self.rule.state {
            label("state", state.as_str());
        }
        if self.several_targets {
            label("redis_target", self.target.as_str());
        }
        labels
    }

    /// The rule's annotations, with what streamlag knows beside: the lag, the state and its reason. `labels` are those that the alert has.
    #[must_use]
    pub fn annotations(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let expand =
            |(name, template): (&String, &String)| (name.clone(), text::expand(template, labels, self.evidence.value));
        let mut annotations: BTreeMap<String, String> = self.rule.annotations.iter().map(expand).collect();
        let mut annotate = |name: &str, value: String| annotations.insert(name.to_owned(), value);
        if let Some(state) = self.evidence.state {
            annotate("state", state.as_str().to_owned());
        }
        if let Some(reason) = &self.evidence.reason {
            annotate("state_reason", reason.clone());
        }
        match self.evidence.lag {
            Some(lag) if lag.min == lag.max => drop(annotate("lag", lag.point.to_string())),
            Some(lag) => drop(annotate("lag", format!("{} ({} to {})", lag.point, lag.min, lag.max))),
            None => {}
        }
        annotations
    }
}

/// Incidents as the newest poll leaves them.
#[derive(Clone, Debug, Default)]
pub struct Incidents {
    /// Those that are pending, fire, or ended lately, the worst first.
    pub all: Arc<[Arc<Incident>]>,
    /// How many were left out in the newest poll because there are too many.
    pub left_out: u64,
}
