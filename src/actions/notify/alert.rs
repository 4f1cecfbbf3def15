//! An alert as Alertmanager and its webhooks know it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::analysis::incident::{Incident, IncidentStatus};
use crate::model::text::rfc3339;
use crate::store::deliveries::Firing;

/// What a webhook's payload has for an alert that has not ended.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

/// Digits of an incident's identity that a fingerprint has: as many as Alertmanager's.
const FINGERPRINT: usize = 16;

/// Alerts by target, and by identity.
pub(super) type Alerts = BTreeMap<String, BTreeMap<String, Alert>>;

/// An incident at one moment, to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The incident's identity.
    pub id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it fired.
    pub starts_at: SystemTime,
    /// When it ended; `None` while it fires.
    pub ends_at: Option<SystemTime>,
}

/// What `POST /api/v2/alerts` takes, and a webhook's payload has of each alert.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

/// What a webhook's payload has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WebhookAlert<'a> {
    status: &'static str,
    #[serde(flatten)]
    alert: Posted<'a>,
    fingerprint: &'a str,
}

impl Alert {
    /// Of an incident that fires, or fired; `None` of a pending one.
    #[must_use]
    pub fn of(incident: &Incident, id: &str, more: &BTreeMap<String, String>) -> Option<Self> {
        let starts_at = incident.fired_at.filter(|_| incident.status != IncidentStatus::Pending)?;
        let mut labels = incident.labels();
        // What an alert is called by its rule is not to be overwritten.
        for (name, value) in more {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let annotations = incident.annotations(&labels);
        Some(Self { id: id.to_owned(), labels, annotations, starts_at, ends_at: incident.resolved_at })
    }

    /// One that tells that telling works.
    #[must_use]
    pub fn test(more: &BTreeMap<String, String>, now: SystemTime) -> Self {
        let mut labels = more.clone();
        labels.insert("alertname".to_owned(), "StreamlagTest".to_owned());
        labels.insert("severity".to_owned(), "info".to_owned());
        let annotation = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let annotations = BTreeMap::from([
            annotation("summary", "Test of streamlag's notifications"),
            annotation("description", "Somebody ran 'streamlag notify test'. Nothing is wrong."),
        ]);
        Self { id: "0".repeat(2 * FINGERPRINT), labels, annotations, starts_at: now, ends_at: None }
    }

    /// For Alertmanager; one that fires ends by itself after `lives`, should nobody say anything more.
    pub(super) fn posted(&self, now: SystemTime, lives: Duration) -> impl Serialize + use<'_> {
        self.with_end(rfc3339(self.ends_at.unwrap_or(now + lives)))
    }

    fn with_end(&self, ends_at: String) -> Posted<'_> {
        Posted {
            labels: &self.labels,
            annotations: &self.annotations,
            starts_at: rfc3339(self.starts_at),
            ends_at,
            generator_url: self.annotations.get("runbook_url").map_or("", String::as_str),
        }
    }

    /// For a webhook.
    pub(super) fn told(&self) -> impl Serialize + use<'_> {
        WebhookAlert {
            status: self.status(),
            alert: self.with_end(self.ends_at.map_or(NOT_ENDED.to_owned(), rfc3339)),
            fingerprint: self.id.get(..FINGERPRINT).unwrap_or(&self.id),
        }
    }

    /// Which firing it tells of.
    pub(super) fn firing(&self) -> Firing<'_> {
        Firing { id: &self.id, starts_at: self.starts_at, ends_at: self.ends_at }
    }

    /// `firing` or `resolved`.
    pub(super) fn status(&self) -> &'static str {
        if self.ends_at.is_some() { "resolved" } else { "firing" }
    }

    /// The worst first: what fires, by severity.
    pub(super) fn rank(&self) -> (bool, u8) {
        let severity = match self.labels.get("severity").map(String::as_str) {
            Some("critical") => 0,
            Some("warning") => 1,
            _ => 2,
        };
        (self.ends_at.is_some(), severity)
    }
}
