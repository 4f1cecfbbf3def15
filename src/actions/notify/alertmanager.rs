//! Pushes alerts to Alertmanagers, by the same rules as Prometheus: what changes is sent at once, everything every minute, to each of
//! them; what ended for a quarter of an hour more. Pure: time is an argument.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

use crate::actions::notify::alert::{Alert, Alerts};

/// How often an alert is sent again.
pub(super) const RESEND: Duration = Duration::from_secs(60);

/// An alert that nobody says anything more of ends after so many intervals.
const LIVES: u32 = 4;

/// Alerts of one request: as many as Prometheus sends at once.
pub(super) const MAX_BATCH: usize = 256;

/// Where the API is.
pub(super) const PATH: &str = "/api/v2/alerts";

/// What one Alertmanager was told.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    told: BTreeMap<String, PushedAlert>,
}

#[derive(Debug)]
struct PushedAlert {
    at: Duration,
    starts_at: SystemTime,
    ends_at: Option<SystemTime>,
}

impl Pushed {
    /// The alerts that are to be sent now, at most [`MAX_BATCH`]; those that are not listed any more are forgotten.
    pub(super) fn due<'a>(&mut self, now: Duration, alerts: &'a Alerts) -> Vec<&'a Alert> {
        let listed: HashSet<&String> = alerts.values().flat_map(BTreeMap::keys).collect();
        self.told.retain(|id, _| listed.contains(id));
        let is_due = |alert: &&Alert| {
            self.told.get(&alert.id).is_none_or(|told| {
                (told.starts_at, told.ends_at) != (alert.starts_at, alert.ends_at)
                    || now.saturating_sub(told.at) >= RESEND
            })
        };
        let mut due: Vec<&Alert> = alerts.values().flat_map(BTreeMap::values).filter(is_due).collect();
        due.sort_by_key(|alert| alert.rank());
        due.truncate(MAX_BATCH);
        due
    }

    /// These were sent.
    pub(super) fn sent(&mut self, now: Duration, alerts: &[&Alert]) {
        for alert in alerts {
            let told = PushedAlert { at: now, starts_at: alert.starts_at, ends_at: alert.ends_at };
            self.told.insert(alert.id.clone(), told);
        }
    }
}

/// The body of a request; `interval` is the time between polls.
pub(super) fn body(alerts: &[&Alert], now: SystemTime, interval: Duration) -> Vec<u8> {
    let lives = interval.max(RESEND).saturating_mul(LIVES);
    let posted: Vec<_> = alerts.iter().map(|alert| alert.posted(now, lives)).collect();
    // Texts and times: there is nothing that JSON cannot hold.
    serde_json::to_vec(&posted).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(id: &str, ends_at: Option<u64>) -> (String, Alert) {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let labels = BTreeMap::from([("alertname".to_owned(), id.to_owned())]);
        let (annotations, ends_at) = (BTreeMap::new(), ends_at.map(at));
        (id.to_owned(), Alert { id: id.to_owned(), labels, annotations, starts_at: at(1), ends_at })
    }

    #[test]
    fn changes_are_sent_at_once_and_everything_every_minute() {
        let mut pushed = Pushed::default();
        let mut at = |seconds, alerts: &BTreeMap<String, Alert>, taken: bool| -> Vec<String> {
            let now = Duration::from_secs(seconds);
            let alerts = Alerts::from([("default".to_owned(), alerts.clone())]);
            let due = pushed.due(now, &alerts);
            if taken {
                pushed.sent(now, &due);
            }
            due.iter().map(|alert| alert.id.clone()).collect()
        };
        let one = BTreeMap::from([alert("a", None)]);
        // Not taken, so it is due again.
        assert_eq!(at(0, &one, false), ["a"]);
        assert_eq!(at(1, &one, true), ["a"]);
        assert!(at(60, &one, true).is_empty());
        assert_eq!(at(61, &one, true), ["a"]);
        let two = BTreeMap::from([alert("a", None), alert("b", None)]);
        assert_eq!(at(62, &two, true), ["b"]);
        let ended = BTreeMap::from([alert("a", Some(63)), alert("b", None)]);
        assert_eq!(at(63, &ended, true), ["a"]);
        assert_eq!(at(123, &ended, true), ["b", "a"]);
        // Gone, and back: it is new.
        assert!(at(124, &BTreeMap::new(), true).is_empty());
        assert_eq!(at(125, &one, true), ["a"]);
    }

    #[test]
    fn an_alert_ends_by_itself_after_four_intervals() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let ends = |alert: Alert, interval| {
            let body: serde_json::Value = serde_json::from_slice(&body(&[&alert], now, interval)).unwrap();
            body[0]["endsAt"].as_str().unwrap().to_owned()
        };
        assert_eq!(ends(alert("a", None).1, Duration::from_secs(5)), "1970-01-01T00:20:40.000Z");
        assert_eq!(ends(alert("a", None).1, Duration::from_secs(120)), "1970-01-01T00:24:40.000Z");
        assert_eq!(ends(alert("a", Some(7)).1, Duration::from_secs(5)), "1970-01-01T00:00:07.000Z");
    }
}
