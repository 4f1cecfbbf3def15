use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::model::shard::{SPLITMIX64_STEP, splitmix64};

const TIMING: Timing = Timing {
    group_wait: Duration::from_secs(30),
    group_interval: Duration::from_secs(300),
    repeat_interval: Duration::from_secs(4 * 3600),
};

fn clock(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn alert(id: &str, severity: &str, starts_at: u64, ends_at: Option<u64>) -> Alert {
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Alert {
        id: id.to_owned(),
        labels: BTreeMap::from([text("alertname", id), text("severity", severity), text("job", "streamlag")]),
        annotations: BTreeMap::from([text("summary", id)]),
        starts_at: clock(starts_at),
        ends_at: ends_at.map(clock),
    }
}

fn alerts(alerts: &[Alert]) -> Alerts {
    Alerts::from([("default".to_owned(), alerts.iter().map(|alert| (alert.id.clone(), alert.clone())).collect())])
}

fn temporary() -> SendError {
    SendError { why: "503".to_owned(), is_temporary: true, retry_after: None }
}

/// An outbox and its time.
struct ToldAlert {
    outbox: Outbox,
    now: u64,
}

impl ToldAlert {
    fn new() -> Self {
        Self { outbox: Outbox::default(), now: 0 }
    }

    fn at(&mut self, now: u64, all: &Alerts) -> Option<WebhookMessage> {
        self.now = now;
        self.outbox.update(Duration::from_secs(now), clock(now), all);
        self.outbox.due(Duration::from_secs(now), &TIMING)
    }

    fn taken(&mut self, message: &WebhookMessage) -> Value {
        self.outbox.done(Duration::from_secs(self.now), message);
        serde_json::from_slice(&message.body).unwrap()
    }
}

/// Name and status of each alert.
fn said(body: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let alerts = body["alerts"].as_array().unwrap().iter();
    alerts.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["status"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect()
}

#[test]
fn a_message_waits_for_more_and_the_next_for_the_interval() {
    let mut told = ToldAlert::new();
    let first = alerts(&[alert("a", "warning", 0, None)]);
    assert_eq!(told.at(0, &first), None);
    let both = alerts(&[alert("a", "warning", 0, None), alert("b", "critical", 10, None)]);
    assert_eq!(told.at(29, &both), None);
    let message = told.at(30, &both).unwrap();
    let body = told.taken(&message);
    assert_eq!(said(&body), pairs(&[("b", "firing"), ("a", "firing")]));
    let about = |body: &Value, key: &str| body[key].clone();
    assert_eq!(about(&body, "status"), "firing");
    assert_eq!(about(&body, "version"), "4");
    assert_eq!(about(&body, "commonLabels"), json!({"job": "streamlag"}));
    assert_eq!(about(&body, "truncatedAlerts"), 0);
    assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");

    let ended = alerts(&[alert("a", "warning", 0, None), alert("b", "critical", 10, Some(40))]);
    assert_eq!(told.at(40, &ended), None);
    assert_eq!(told.at(329, &ended), None);
    let message = told.at(330, &ended).unwrap();
    assert_eq!(said(&told.taken(&message)), pairs(&[("a", "firing"), ("b", "resolved")]));
    // Told once; what fires is repeated.
    assert_eq!(told.at(330 + 4 * 3600 - 1, &ended), None);
    let again = told.at(330 + 4 * 3600, &ended).unwrap();
    assert_ne!(again.id, message.id);
    assert_eq!(said(&told.taken(&again)), pairs(&[("a", "firing")]));
    // The last one ends because its target is gone.
    let last = told.at(330 + 5 * 3600, &Alerts::new()).unwrap();
    let body = told.taken(&last);
    assert_eq!((said(&body), about(&body, "status")), (pairs(&[("a", "resolved")]), json!("resolved")));
    assert_eq!(told.at(330 + 50 * 3600, &Alerts::new()), None);
    assert!(told.outbox.targets.is_empty());
}

#[test]
fn a_message_that_fails_is_sent_again_as_it_was_and_given_up_after_an_hour() {
    let mut told = ToldAlert::new();
    let one = alerts(&[alert("a", "critical", 0, None)]);
    told.at(0, &one);
    let message = told.at(30, &one).unwrap();
    assert!(!told.outbox.failed(Duration::from_secs(30), &message, &temporary(), 1.0));
    assert_eq!(told.at(30, &one), None);
    let again = told.at(31, &one).unwrap();
    assert_eq!((&again.id, &again.body), (&message.id, &message.body));
    let asked = SendError { retry_after: Some(Duration::from_secs(100)), ..temporary() };
    assert!(!told.outbox.failed(Duration::from_secs(31), &again, &asked, 0.0));
    assert_eq!(told.at(130, &one), None);
    // It ended meanwhile, which is said in the next message and not in this one.
    let ended = alerts(&[alert("a", "critical", 0, Some(100))]);
    let again = told.at(131, &ended).unwrap();
    assert_eq!((&again.id, &again.body), (&message.id, &message.body));
    assert!(told.outbox.failed(Duration::from_secs(30 + 3600), &again, &temporary(), 0.0));
    let anew = told.at(30 + 3600, &ended).unwrap();
    assert_ne!(anew.id, message.id);
    assert_eq!(said(&told.taken(&anew)), pairs(&[("a", "resolved")]));
}

#[test]
fn a_clock_that_jumps_a_day_makes_nobody_forget_an_end() {
    let mut told = ToldAlert::new();
    let one = alerts(&[alert("a", "critical", 0, None)]);
    told.at(0, &one);
    let message = told.at(30, &one).unwrap();
    told.taken(&message);
    // It is over, and nobody speaks of it any more.
    let at = Duration::from_secs;
    assert_eq!(told.outbox.update(at(60), clock(60), &Alerts::new()), 0);
    assert_eq!(told.outbox.update(at(90), clock(90 + 25 * 3600), &Alerts::new()), 0);
    let message = told.outbox.due(at(330), &TIMING).unwrap();
    assert_eq!(said(&told.taken(&message)), pairs(&[("a", "resolved")]));
}

#[test]
fn the_wait_between_attempts_doubles_to_five_minutes() {
    let mut told = ToldAlert::new();
    let one = alerts(&[alert("a", "critical", 0, None)]);
    told.at(0, &one);
    let mut waits = Vec::new();
    let mut now = Duration::from_secs(30);
    told.at(30, &one).unwrap();
    for _ in 0..12 {
        let message = told.outbox.targets["default"].message.clone().unwrap();
        assert!(!told.outbox.failed(now, &message, &temporary(), 1.0));
        let due = told.outbox.targets["default"].message.clone().unwrap().due;
        waits.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
}

#[test]
fn in_a_storm_the_worst_are_told_first_and_all_are_told() {
    let mut told = ToldAlert::new();
    let name = |n: usize| format!("a{n:04}");
    let severity = |n: usize| if n.is_multiple_of(5) { "critical" } else { "warning" };
    let storm: Vec<Alert> = (0..5000).map(|n| alert(&name(n), severity(n), 0, None)).collect();
    let storm = alerts(&storm);
    told.at(0, &storm);
    let mut seen = BTreeSet::new();
    for n in 0..5 {
        let at = 30 + n * 300;
        let message = told.at(at, &storm).unwrap();
        let body = told.taken(&message);
        assert_eq!((said(&body).len(), &body["truncatedAlerts"]), (MAX_ALERTS, &json!(4000)));
        if n == 0 {
            assert!(body["alerts"].as_array().unwrap().iter().all(|alert| alert["labels"]["severity"] == "critical"));
        }
        seen.extend(said(&body));
        assert_eq!(told.at(at + 299, &storm), None);
    }
    assert_eq!(seen.len(), 5000);
    assert_eq!(told.at(30 + 5 * 300, &storm), None);
}

/// Numbers by chance, the same in every run.
pub(in crate::actions::notify) struct Chance(pub(in crate::actions::notify) u64);

impl Chance {
    /// From 0 to below the limit.
    pub(in crate::actions::notify) fn below(&mut self, limit: u64) -> u64 {
        let number = splitmix64(self.0);
        self.0 = self.0.wrapping_add(SPLITMIX64_STEP);
        number % limit
    }
}

/// A thousand runs of some hours: alerts that come, go and flap, a receiver that is away for up to an hour, refuses, or takes a message
/// and says nothing. At the end it is told all that is so, what ended included, never two messages within an interval, and what it is
/// told twice has the same id.
#[test]
fn nothing_is_lost_whatever_the_receiver_does() {
    for seed in 0..1000 {
        let mut chance = Chance(seed);
        let mut told = ToldAlert::new();
        let mut true_now: BTreeMap<String, Alert> = BTreeMap::new();
        // What the receiver believes, by the messages that it took, each id once.
        let mut believed: BTreeMap<String, (SystemTime, bool)> = BTreeMap::new();
        let mut ever: BTreeSet<(String, SystemTime)> = BTreeSet::new();
        let mut bodies: BTreeMap<String, Bytes> = BTreeMap::new();
        let mut away_until = 0;
        let mut last_done: Option<u64> = None;
        let quiet_from = 2 * 3600;
        for now in (0..4 * 3600 + 1800).step_by(30) {
            if now < quiet_from && chance.below(10) == 0 {
                let id = format!("a{}", chance.below(6));
                match true_now.get_mut(&id).filter(|alert| alert.ends_at.is_none()) {
                    Some(alert) => alert.ends_at = Some(clock(now)),
                    None => {
                        ever.insert((id.clone(), clock(now)));
                        drop(true_now.insert(id.clone(), alert(&id, "critical", now, None)));
                    }
                }
            }
            true_now.retain(|_, alert| alert.ends_at.is_none_or(|end| clock(now) < end + Duration::from_secs(900)));
            if now < quiet_from && now >= away_until && chance.below(40) == 0 {
                away_until = now + 1 + chance.below(3600);
            }
            let all = Alerts::from([("default".to_owned(), true_now.clone())]);
            let Some(message) = told.at(now, &all) else { continue };
            assert_eq!(*bodies.entry(message.id.clone()).or_insert(message.body.clone()), message.body);
            let is_first = message.failures == 0;
            if let Some(last) = last_done.filter(|_| is_first) {
                // Given up and made anew is one of the same interval.
                assert!(now >= last + 300, "seed {seed}: {now} after {last}");
            }
            let is_away = now < away_until;
            let takes = !is_away || chance.below(10) == 0;
            if takes {
                let body: Value = serde_json::from_slice(&message.body).unwrap();
                for alert in body["alerts"].as_array().unwrap() {
                    let starts_at = humantime::parse_rfc3339(alert["startsAt"].as_str().unwrap()).unwrap();
                    let id = alert["labels"]["alertname"].as_str().unwrap().to_owned();
                    believed.insert(id, (starts_at, alert["status"] == "firing"));
                }
            }
            if is_away {
                told.outbox.failed(
                    Duration::from_secs(now),
                    &message,
                    &temporary(),
                    chance.below(1000) as f64 / 1000.0,
                );
            } else {
                told.taken(&message);
                last_done = Some(now);
            }
        }
        // The newest firing of each alert was told, and its end where it ended.
        let newest: BTreeMap<String, SystemTime> = ever.into_iter().collect();
        assert_eq!(believed.len(), newest.len(), "seed {seed}");
        for (id, starts_at) in newest {
            let fires = true_now.get(&id).is_some_and(|alert| alert.ends_at.is_none());
            assert_eq!(believed[&id], (starts_at, fires), "seed {seed}: {id}");
        }
    }
}
