//! An incident as text, to be kept over a restart.

use serde::{Deserialize, Serialize};

use crate::analysis::group_state::GroupState;
use crate::analysis::incident::{Incident, IncidentEvidence, IncidentStatus, IncidentSubject};
use crate::analysis::incidents::rules;
use crate::model::TargetName;
use crate::model::lag::Lag;
use crate::model::text::{of_unix_millis, unix_millis};

/// A name of Redis, which holds any bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum SavedName {
    Text(String),
    Bytes(Vec<u8>),
}

impl SavedName {
    fn of(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Bytes(bytes.to_vec()), |text| Self::Text(text.to_owned()))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Times are milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
struct Saved {
    rule: String,
    target: String,
    node: Option<String>,
    stream: Option<SavedName>,
    group: Option<SavedName>,
    status: String,
    active_since: u64,
    fired_at: Option<u64>,
    resolved_at: Option<u64>,
    value: f64,
    state: Option<String>,
    reason: Option<String>,
    lag: Option<(u64, u64, u64)>,
}

impl Incident {
    /// The incident as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (node, stream, group) = match &self.subject {
            IncidentSubject::Target => (None, None, None),
            IncidentSubject::Node(address) => (Some(address.to_string()), None, None),
            IncidentSubject::Stream(stream) => (None, Some(SavedName::of(stream.as_bytes())), None),
            IncidentSubject::Group(stream, group) => {
                (None, Some(SavedName::of(stream.as_bytes())), Some(SavedName::of(group.as_bytes())))
            }
        };
        let saved = Saved {
            rule: self.rule.name.clone(),
            target: self.target.to_string(),
            node,
            stream,
            group,
            status: self.status.as_str().to_owned(),
            active_since: unix_millis(self.active_since),
            fired_at: self.fired_at.map(unix_millis),
            resolved_at: self.resolved_at.map(unix_millis),
            value: self.evidence.value,
            state: self.evidence.state.map(|state| state.as_str().to_owned()),
            reason: self.evidence.reason.clone(),
            lag: self.evidence.lag.map(|lag| (lag.min, lag.point, lag.max)),
        };
        // Texts and numbers: there is nothing that JSON cannot hold.
        serde_json::to_string(&saved).unwrap_or_default()
    }

    /// The incident of a text; `None` where the text is none, or its rule is no longer evaluated.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let saved: Saved = serde_json::from_str(text).ok()?;
        let all = [IncidentStatus::Pending, IncidentStatus::Firing, IncidentStatus::Resolved];
        let status = all.into_iter().find(|status| status.as_str() == saved.status)?;
        let subject = match (saved.node, saved.stream, saved.group) {
            (None, None, None) => IncidentSubject::Target,
            (Some(address), None, None) => IncidentSubject::Node(address.into()),
            (None, Some(stream), None) => IncidentSubject::Stream(stream.bytes().into()),
            (None, Some(stream), Some(group)) => IncidentSubject::Group(stream.bytes().into(), group.bytes().into()),
            _ => return None,
        };
        let (fired_at, resolved_at) =
            (saved.fired_at.and_then(of_unix_millis), saved.resolved_at.and_then(of_unix_millis));
        // A status is known by its times.
        let is_whole = fired_at.is_some() == (status != IncidentStatus::Pending)
            && resolved_at.is_some() == (status == IncidentStatus::Resolved);
        is_whole.then_some(Self {
            rule: rules().iter().find(|rule| rule.name == saved.rule)?,
            target: TargetName::new(&saved.target)?,
            several_targets: false,
            subject,
            status,
            active_since: of_unix_millis(saved.active_since)?,
            fired_at,
            resolved_at,
            evidence: IncidentEvidence {
                value: saved.value,
                state: saved.state.and_then(|word| GroupState::ALL.into_iter().find(|state| state.as_str() == word)),
                reason: saved.reason,
                lag: saved.lag.map(|(min, point, max)| Lag { min, point, max }),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_incident_is_what_it_was() {
        let subjects = [
            IncidentSubject::Target,
            IncidentSubject::Node("10.0.0.1:6379".into()),
            IncidentSubject::Stream("orders".into()),
            IncidentSubject::Group(b"\xff\x00".as_slice().into(), "mail".into()),
        ];
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for subject in subjects {
            let incident = Incident {
                rule: &rules()[6],
                target: TargetName::new("a").unwrap(),
                several_targets: false,
                subject,
                status: IncidentStatus::Resolved,
                active_since: at(1),
                fired_at: Some(at(2)),
                resolved_at: Some(at(3)),
                evidence: IncidentEvidence {
                    value: 0.5,
                    state: Some(GroupState::Stopped),
                    reason: Some("\"why\"".to_owned()),
                    lag: Some(Lag { min: 1, point: 2, max: u64::MAX }),
                },
            };
            assert_eq!(Incident::from_text(&incident.to_text()).as_ref(), Some(&incident));
            for (status, fired_at, resolved_at, is_whole) in [
                (IncidentStatus::Pending, None, None, true),
                (IncidentStatus::Pending, Some(at(2)), None, false),
                (IncidentStatus::Pending, None, Some(at(3)), false),
                (IncidentStatus::Firing, Some(at(2)), None, true),
                (IncidentStatus::Firing, None, None, false),
                (IncidentStatus::Firing, Some(at(2)), Some(at(3)), false),
                (IncidentStatus::Resolved, None, Some(at(3)), false),
                (IncidentStatus::Resolved, Some(at(2)), None, false),
            ] {
                let kept = Incident { status, fired_at, resolved_at, ..incident.clone() };
                let read = Incident::from_text(&kept.to_text());
                assert_eq!(read, is_whole.then_some(kept), "{status:?} {fired_at:?} {resolved_at:?}");
            }
            let other = incident.to_text().replace(&incident.rule.name, "AnotherRule");
            assert_eq!(Incident::from_text(&other), None);
        }
        assert_eq!(Incident::from_text("{"), None);
    }
}
