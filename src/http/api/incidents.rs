//! `GET /api/v1/incidents`.

use std::borrow::Cow;

use serde::Serialize;

use crate::analysis::incident::{Incident, IncidentStatus, IncidentSubject, Incidents};
use crate::model::text::rfc3339;
use crate::store::deliveries::{Deliveries, Delivery};

/// Characters of a status that is none that are repeated.
const MAX_SHOWN: usize = 80;

#[derive(Serialize)]
struct IncidentList<'a> {
    incidents: Vec<IncidentRow<'a>>,
    left_out: u64,
}

#[derive(Serialize)]
struct IncidentRow<'a> {
    id: String,
    rule: &'a str,
    severity: &'static str,
    status: &'static str,
    redis_target: &'a str,
    node: Option<&'a str>,
    stream: Option<Cow<'a, str>>,
    consumer_group: Option<Cow<'a, str>>,
    active_since: String,
    fired_at: Option<String>,
    resolved_at: Option<String>,
    summary: String,
    description: String,
    runbook_url: String,
    evidence: IncidentEvidenceRow<'a>,
    delivery: Vec<DeliveryRow>,
}

#[derive(Serialize)]
struct IncidentEvidenceRow<'a> {
    value: f64,
    state: Option<&'static str>,
    state_reason: Option<&'a str>,
    lag: Option<u64>,
    lag_min: Option<u64>,
    lag_max: Option<u64>,
}

#[derive(Serialize)]
struct DeliveryRow {
    receiver: String,
    outcome: &'static str,
    told: Option<&'static str>,
    attempts: u64,
    last_attempt_at: Option<String>,
    error: Option<String>,
}

/// The outcome before the first attempt.
const WAITING: &str = "waiting";

/// A word that is no status, as far as it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value {0:?} for status: expected pending, firing or resolved")]
pub struct StatusError(String);

/// The status of this word.
///
/// # Errors
/// What is expected.
pub fn status(word: &str) -> Result<IncidentStatus, StatusError> {
    let all = [IncidentStatus::Pending, IncidentStatus::Firing, IncidentStatus::Resolved];
    let found = all.into_iter().find(|status| status.as_str() == word);
    found.ok_or_else(|| StatusError(word.chars().take(MAX_SHOWN).collect()))
}

/// Incidents of several targets, of one status or of all.
#[must_use]
pub fn incidents<'a>(
    targets: &[&'a Incidents],
    status: Option<IncidentStatus>,
    deliveries: &Deliveries,
) -> impl Serialize + use<'a> {
    let all = targets.iter().flat_map(|incidents| incidents.all.iter());
    let wanted = all.filter(|incident| status.is_none_or(|status| incident.status == status));
    IncidentList {
        incidents: wanted.map(|incident| row(incident, deliveries_of(incident, deliveries))).collect(),
        left_out: targets.iter().map(|incidents| incidents.left_out).sum(),
    }
}

/// What became of telling receivers of an incident: of none of a pending one, as there is nothing to be told.
pub(in crate::http) fn deliveries_of(incident: &Incident, deliveries: &Deliveries) -> Vec<Delivery> {
    incident.fired_at.map(|fired_at| deliveries.of(&incident.id(), fired_at)).unwrap_or_default()
}

/// An incident as the API has it, in JSON.
pub(in crate::http) fn row_json(incident: &Incident, delivery: Vec<Delivery>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&row(incident, delivery))
}

fn row(incident: &Incident, delivery: Vec<Delivery>) -> IncidentRow<'_> {
    let (node, stream, group) = match &incident.subject {
        IncidentSubject::Target => (None, None, None),
        IncidentSubject::Node(address) => (Some(&**address), None, None),
        IncidentSubject::Stream(stream) => (None, Some(stream.display_name()), None),
        IncidentSubject::Group(stream, group) => (None, Some(stream.display_name()), Some(group.display_name())),
    };
    let mut annotations = incident.annotations(&incident.labels());
    let mut annotation = |name: &str| annotations.remove(name).unwrap_or_default();
    let evidence = &incident.evidence;
    IncidentRow {
        id: incident.id(),
        rule: &incident.rule.name,
        severity: incident.rule.severity.as_str(),
        status: incident.status.as_str(),
        redis_target: incident.target.as_str(),
        node,
        stream,
        consumer_group: group,
        active_since: rfc3339(incident.active_since),
        fired_at: incident.fired_at.map(rfc3339),
        resolved_at: incident.resolved_at.map(rfc3339),
        summary: annotation("summary"),
        description: annotation("description"),
        runbook_url: annotation("runbook_url"),
        evidence: IncidentEvidenceRow {
            value: evidence.value,
            state: evidence.state.map(|state| state.as_str()),
            state_reason: evidence.reason.as_deref(),
            lag: evidence.lag.map(|lag| lag.point),
            lag_min: evidence.lag.map(|lag| lag.min),
            lag_max: evidence.lag.map(|lag| lag.max),
        },
        delivery: delivery.into_iter().map(DeliveryRow::from).collect(),
    }
}

impl From<Delivery> for DeliveryRow {
    fn from(Delivery { receiver, outcome, told, attempts, last_attempt, error }: Delivery) -> Self {
        Self {
            receiver: receiver.to_string(),
            outcome: outcome.map_or(WAITING, |outcome| outcome.as_str()),
            told: told.map(|told| told.as_str()),
            attempts,
            last_attempt_at: last_attempt.map(rfc3339),
            error: error.map(|error| error.to_string()),
        }
    }
}
