//! Incidents as the viewers of one target get them: each encoded once, and again only where it has changed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::{KEPT_VERSIONS, join};
use crate::analysis::incident::{Incident, IncidentSubject, Incidents};
use crate::http::api::incidents::{deliveries_of, row_json};
use crate::http::live::request::RowFilter;
use crate::store::deliveries::{Deliveries, Delivery};

/// Incidents that viewers are told of, the worst first: about a megabyte. Of others they are told how many there are.
const MAX_TOLD: usize = 1000;

#[derive(Debug)]
struct LiveIncident {
    incident: Arc<Incident>,
    id: String,
    delivery: Vec<Delivery>,
    /// A row of `/api/v1/incidents`.
    json: Bytes,
    /// The version in which it last changed.
    changed: u64,
}

/// An incident that is not listed any more.
#[derive(Clone, Debug)]
struct GoneIncident {
    id: String,
    subject: IncidentSubject,
    /// The version from which on it is not.
    version: u64,
}

/// The incidents of one version.
#[derive(Debug, Default)]
pub(super) struct IncidentRows {
    rows: Vec<LiveIncident>,
    /// Those that went since [`KEPT_VERSIONS`] ago, oldest first.
    gone: VecDeque<GoneIncident>,
    left_out: u64,
    /// The version in which that last changed.
    left_out_changed: u64,
}

impl IncidentRows {
    /// Those of the version `number`, after those before it.
    pub(super) fn next(
        before: Option<&Self>,
        incidents: &Incidents,
        deliveries: &Deliveries,
        number: u64,
    ) -> serde_json::Result<Self> {
        let mut old: HashMap<&str, &LiveIncident> =
            before.into_iter().flat_map(|before| &before.rows).map(|row| (row.id.as_str(), row)).collect();
        let mut rows = Vec::with_capacity(incidents.all.len().min(MAX_TOLD));
        for incident in incidents.all.iter().take(MAX_TOLD) {
            let (id, delivery) = (incident.id(), deliveries_of(incident, deliveries));
            let known = old.remove(id.as_str());
            let is_same = |row: &&LiveIncident| {
                let (one, other) = (&row.delivery, &delivery);
                Arc::ptr_eq(&row.incident, incident)
                    && one.len() == other.len()
                    && one.iter().zip(other).all(|(one, other)| one.says_the_same(other))
            };
            let (json, changed) = match known.filter(is_same) {
                Some(row) => (row.json.clone(), row.changed),
                None => (row_json(incident, delivery.clone())?.into(), number),
            };
            rows.push(LiveIncident { incident: Arc::clone(incident), id, delivery, json, changed });
        }
        let known = before.into_iter().flat_map(|before| &before.gone);
        let mut gone: VecDeque<GoneIncident> =
            known.filter(|gone| number - gone.version < KEPT_VERSIONS).cloned().collect();
        if !gone.is_empty() {
            let listed: HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
            gone.retain(|gone| !listed.contains(gone.id.as_str()));
        }
        gone.extend(old.into_values().map(|row| GoneIncident {
            id: row.id.clone(),
            subject: row.incident.subject.clone(),
            version: number,
        }));
        let left_out = incidents.left_out + incidents.all.len().saturating_sub(MAX_TOLD) as u64;
        let same = before.filter(|before| before.left_out == left_out);
        Ok(Self { rows, gone, left_out, left_out_changed: same.map_or(number, |before| before.left_out_changed) })
    }

    /// What of a message stands behind its head: everything, or what has changed for a viewer that has seen the version `from`. `None`
    /// where nothing has.
    pub(super) fn body(&self, filter: &RowFilter, from: Option<u64>) -> Option<Bytes> {
        let is_new = |changed: u64| from.is_none_or(|from| changed > from);
        let rows: Vec<&Bytes> = self
            .rows
            .iter()
            .filter(|row| is_new(row.changed) && filter.matches_subject(&row.incident.subject))
            .map(|row| &row.json)
            .collect();
        let gone: Vec<&GoneIncident> = from.map_or_else(Vec::new, |from| {
            self.gone.iter().filter(|gone| gone.version > from && filter.matches_subject(&gone.subject)).collect()
        });
        if from.is_some() && rows.is_empty() && gone.is_empty() && !is_new(self.left_out_changed) {
            return None;
        }
        let mut json = format!("\"all\":{},\"incidents\":[", from.is_none()).into_bytes();
        join(&mut json, rows.into_iter());
        json.extend_from_slice(b"],\"gone\":[");
        // Identities are hexadecimal digits.
        let ids: Vec<Bytes> = gone.iter().map(|gone| format!("\"{}\"", gone.id).into()).collect();
        join(&mut json, ids.iter());
        json.extend_from_slice(format!("],\"left_out\":{}}}", self.left_out).as_bytes());
        Some(json.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;
    use crate::analysis::incident::{IncidentEvidence, IncidentStatus};
    use crate::analysis::incidents::rules;
    use crate::http::live::request::LiveQuery;
    use crate::model::TargetName;
    use crate::store::deliveries::Firing;
    use crate::sys::own_metrics::NotificationOutcome;

    fn incident(stream: &str, lag: f64) -> Arc<Incident> {
        Arc::new(Incident {
            rule: &rules()[6],
            target: TargetName::default(),
            several_targets: false,
            subject: IncidentSubject::Group(stream.into(), "g".into()),
            status: IncidentStatus::Firing,
            active_since: SystemTime::UNIX_EPOCH,
            fired_at: Some(SystemTime::UNIX_EPOCH),
            resolved_at: None,
            evidence: IncidentEvidence { value: lag, ..IncidentEvidence::default() },
        })
    }

    fn rows(before: Option<&IncidentRows>, all: &[Arc<Incident>], left_out: u64, number: u64) -> IncidentRows {
        let incidents = Incidents { all: all.into(), left_out };
        IncidentRows::next(before, &incidents, &Deliveries::default(), number).unwrap()
    }

    /// Streams, how many are gone, and how many are left out.
    fn told(rows: &IncidentRows, query: &str, from: Option<u64>) -> Option<(Vec<String>, usize, u64)> {
        let filter = LiveQuery::parse(Some(query)).unwrap().filter;
        let body = [b"{", &*rows.body(&filter, from)?].concat();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["all"], from.is_none());
        let streams =
            body["incidents"].as_array().unwrap().iter().map(|row| row["stream"].as_str().unwrap().to_owned());
        Some((streams.collect(), body["gone"].as_array().unwrap().len(), body["left_out"].as_u64().unwrap()))
    }

    fn some(streams: &[&str], gone: usize, left_out: u64) -> Option<(Vec<String>, usize, u64)> {
        Some((streams.iter().map(|stream| (*stream).to_owned()).collect(), gone, left_out))
    }

    #[test]
    fn all_at_first_and_then_what_has_changed() {
        let (a, b) = (incident("a", 1.0), incident("b", 1.0));
        let first = rows(None, &[Arc::clone(&a), Arc::clone(&b)], 0, 1);
        assert_eq!(told(&first, "", None), some(&["a", "b"], 0, 0));
        let second = rows(Some(&first), &[Arc::clone(&a), incident("b", 2.0)], 0, 2);
        assert_eq!(told(&second, "", Some(1)), some(&["b"], 0, 0));
        assert_eq!(told(&second, "", Some(2)), None);
        // What is as it was is not encoded again.
        assert_eq!(first.rows[0].json.as_ptr(), second.rows[0].json.as_ptr());
        let third = rows(Some(&second), &[Arc::clone(&a)], 0, 3);
        assert_eq!(told(&third, "", Some(2)), some(&[], 1, 0));
        assert_eq!(told(&third, "", Some(1)), some(&[], 1, 0));
        assert_eq!(told(&third, "", None), some(&["a"], 0, 0));
        // It is back, and so not gone.
        let fourth = rows(Some(&third), &[Arc::clone(&a), b], 7, 4);
        assert_eq!(told(&fourth, "", Some(2)), some(&["b"], 0, 7));
        let fifth =
            rows(Some(&fourth), &fourth.rows.iter().map(|row| Arc::clone(&row.incident)).collect::<Vec<_>>(), 8, 5);
        assert_eq!(told(&fifth, "", Some(4)), some(&[], 0, 8));
        let mut newest = rows(Some(&fifth), &[], 0, 6);
        for number in 7..7 + KEPT_VERSIONS {
            newest = rows(Some(&newest), &[], 0, number);
        }
        assert!(newest.gone.is_empty());
    }

    #[test]
    fn a_filter_sees_its_streams_and_a_storm_is_bounded() {
        let first = rows(None, &[incident("a", 1.0), incident("b", 1.0)], 0, 1);
        assert_eq!(told(&first, "stream=b*", None), some(&["b"], 0, 0));
        assert_eq!(told(&first, "group=x", None), some(&[], 0, 0));
        let second = rows(Some(&first), &[incident("a", 2.0)], 0, 2);
        assert_eq!(told(&second, "stream=b*", Some(1)), some(&[], 1, 0));
        assert_eq!(told(&second, "stream=c*", Some(1)), None);
        let storm: Vec<_> = (0..MAX_TOLD + 5).map(|n| incident(&format!("s{n}"), 1.0)).collect();
        let storm = rows(None, &storm, 2, 1);
        assert_eq!(told(&storm, "", None).map(|(streams, _, left_out)| (streams.len(), left_out)), Some((MAX_TOLD, 7)));
    }

    #[test]
    fn what_became_of_telling_is_news_and_another_attempt_is_none() {
        let deliveries = Deliveries::default();
        deliveries.set_receivers(vec![("k".into(), "webhook h:1".into())]);
        let incidents = Incidents { all: [incident("a", 1.0)].into(), left_out: 0 };
        let next = |before: Option<&IncidentRows>, number| {
            IncidentRows::next(before, &incidents, &deliveries, number).unwrap()
        };
        let id = incidents.all[0].id();
        let attempt = || {
            let firing = Firing { id: &id, starts_at: SystemTime::UNIX_EPOCH, ends_at: None };
            deliveries.attempted("k", [firing].into_iter(), NotificationOutcome::Delivered, None, SystemTime::now());
        };
        let first = next(None, 1);
        attempt();
        let second = next(Some(&first), 2);
        assert_eq!(told(&second, "", Some(1)), some(&["a"], 0, 0));
        attempt();
        assert_eq!(told(&next(Some(&second), 3), "", Some(2)), None);
    }
}
