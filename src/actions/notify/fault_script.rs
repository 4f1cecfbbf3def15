//! Simulates notifications under faults, in virtual time: groups that flap, a Redis that is down, a receiver that is down, busy, broken or
//! takes a message without a response, a clock that jumps, and kill -9 at any step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Timing;
use super::alert::{Alert, Alerts};
use super::journal::{Area, INCIDENTS, IncidentPrint, print};
use super::webhook::tests::Chance;
use super::webhook::{Clocks, Outbox, Print};
use crate::analysis::incident::{Incident, IncidentStatus, Incidents};
use crate::analysis::incidents::{self, IncidentTracker, Now};
use crate::analysis::view::View;
use crate::store::history::state::{StateChange, StateEntry, StateFile};
use crate::sys::http_client::SendError;

const TIMING: Timing = Timing {
    group_wait: Duration::from_secs(30),
    group_interval: Duration::from_secs(300),
    repeat_interval: Duration::from_secs(4 * 3600),
};

/// Seconds between polls.
const STEP: u64 = 30;

/// Seconds in which things go wrong, and those in which nothing does any more.
const FAULTS: u64 = 2 * 3600;
const CALM: u64 = 3 * 3600;

const STREAMS: usize = 5;

/// The time that a process's own clock begins at: what was kept may be older than the process.
const BEFORE: u64 = 30 * 24 * 3600;

/// What is seen of streams with one group and this lag; `None` where the stream cannot be read.
fn view(lags: &[Option<u64>]) -> View {
    let names: Vec<String> = (0..lags.len()).map(|n| format!("s{n}")).collect();
    let streams: Vec<(&str, Option<u64>)> = names.iter().map(String::as_str).zip(lags.iter().copied()).collect();
    incidents::tests::view(&streams)
}

/// What survives `kill -9`.
#[derive(Default)]
struct Disk(BTreeMap<(String, String), String>);

impl Disk {
    fn apply(&mut self, changes: Vec<StateChange>) {
        for change in changes {
            match change {
                StateChange::Clear(area) => self.0.retain(|(of, _), _| *of != area),
                StateChange::Only(..) => {}
                StateChange::Set(area, key, Some(value)) => drop(self.0.insert((area, key), value)),
                StateChange::Set(area, key, None) => drop(self.0.remove(&(area, key))),
            }
        }
    }

    fn entries(&self, area: &str) -> Vec<StateEntry> {
        let of_area = self.0.iter().filter(|((of, _), _)| of == area);
        of_area
            .map(|((area, key), value)| StateEntry { area: area.clone(), key: key.clone(), value: value.clone() })
            .collect()
    }
}

/// A process that watches and tells.
struct Process {
    began: u64,
    tracker: IncidentTracker,
    outbox: Outbox,
    incidents: Area<IncidentPrint>,
    told: Area<Print>,
}

const WEBHOOK: &str = "webhook h:1";

impl Process {
    fn start(disk: &Disk, world: &World) -> Self {
        let kept: Vec<Incident> =
            disk.entries(INCIDENTS).iter().filter_map(|entry| Incident::from_text(&entry.value)).collect();
        let saved = kept.iter().map(|incident| (incident.id(), print(incident))).collect();
        let clocks = Clocks { now: Duration::from_secs(BEFORE), clock: world.clock() };
        let outbox = Outbox::restored(disk.entries(WEBHOOK).iter(), clocks);
        let mut tracker = IncidentTracker::default();
        tracker.restore(Now { at: Duration::ZERO, clock: world.clock() }, kept);
        let generation = u64::from(!disk.0.is_empty());
        let told = Area::new(WEBHOOK, StateFile::default(), generation, outbox.prints());
        let incidents = Area::new(INCIDENTS, StateFile::default(), generation, saved);
        Self { began: world.now, tracker, outbox, incidents, told }
    }

    fn now(&self, world: &World) -> Duration {
        Duration::from_secs(BEFORE + world.now - self.began)
    }

    fn keep_incidents(&mut self, disk: &mut Disk, all: &Incidents) {
        let by_id: BTreeMap<String, &Incident> = all.all.iter().map(|incident| (incident.id(), &**incident)).collect();
        let prints: BTreeMap<_, _> = by_id.iter().map(|(id, incident)| (id.clone(), print(incident))).collect();
        disk.apply(self.incidents.changes(&prints, |id| by_id.get(id).map(|incident| incident.to_text())));
        self.incidents.written(prints);
    }

    fn keep_told(&mut self, disk: &mut Disk, world: &World) {
        let clocks = Clocks { now: self.now(world), clock: world.clock() };
        let prints = self.outbox.prints();
        disk.apply(self.told.changes(&prints, |key| self.outbox.text(key, clocks)));
        self.told.written(prints);
    }
}

/// The time, and how far the clock that people read is off.
struct World {
    now: u64,
    jump: i64,
}

impl World {
    fn clock(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((1_000_000_000 + self.now as i64 + self.jump) as u64)
    }
}

/// What a receiver knows by the messages that it took.
#[derive(Default)]
struct TestReceiver {
    /// By rule and stream: which firing, and whether it fires.
    believes: BTreeMap<(String, String), (String, bool)>,
    /// Every firing that it was told of: rule, stream and start.
    firings: BTreeSet<(String, String, String)>,
    bodies: BTreeMap<String, Vec<u8>>,
    /// Messages that it took and that streamlag knows to be taken.
    known: BTreeSet<String>,
    /// What those said: rule, stream, start and whether it fires.
    said: BTreeSet<(String, String, String, bool)>,
    duplicates: u64,
}

impl TestReceiver {
    fn take(&mut self, id: &str, body: &[u8]) {
        assert!(!self.known.contains(id), "a message that was taken is sent again");
        let before = self.bodies.insert(id.to_owned(), body.to_vec());
        self.duplicates += u64::from(before.is_some());
        assert!(before.is_none_or(|before| before == body), "two messages of one id");
        for (rule, stream, starts_at, fires) in Self::says(body) {
            self.firings.insert((rule.clone(), stream.clone(), starts_at.clone()));
            self.believes.insert((rule, stream), (starts_at, fires));
        }
    }

    /// What a message says: rule, stream, start and whether it fires.
    fn says(body: &[u8]) -> Vec<(String, String, String, bool)> {
        let body: Value = serde_json::from_slice(body).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let says = |alert: &Value| {
            let labels = &alert["labels"];
            let fires = alert["status"] == "firing";
            (text(&labels["alertname"]), text(&labels["stream"]), text(&alert["startsAt"]), fires)
        };
        body["alerts"].as_array().unwrap().iter().map(says).collect()
    }
}

/// What went wrong and what came of it, of one run.
#[derive(Default)]
struct FaultRun {
    kills: u64,
    kills_with_a_message: u64,
    unanswered: u64,
    duplicates: u64,
    firings: usize,
}

fn alerts(all: &Incidents) -> Alerts {
    let alerts = all.all.iter().filter_map(|incident| Alert::of(incident, &incident.id(), &BTreeMap::new()));
    Alerts::from([("default".to_owned(), alerts.map(|alert| (alert.id.clone(), alert)).collect())])
}

/// Rule and stream, the start, and whether it goes on, of every incident that fires or fired.
fn firings(all: &Incidents) -> Vec<((String, String), String, bool)> {
    let of = |incident: &Incident| {
        let labels = incident.labels();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let start = crate::model::text::rfc3339(incident.fired_at?);
        Some(((label("alertname"), label("stream")), start, incident.status == IncidentStatus::Firing))
    };
    all.all.iter().filter_map(|incident| of(incident)).collect()
}

fn run(seed: u64) -> FaultRun {
    let mut chance = Chance(seed);
    let (mut world, mut disk, mut receiver) = (World { now: 0, jump: 0 }, Disk::default(), TestReceiver::default());
    let mut process = Process::start(&disk, &world);
    let mut outcome = FaultRun::default();
    let mut lags = [Some(0); STREAMS];
    let (mut receiver_away, mut redis_away) = (0, 0);
    let mut last_message: Option<u64> = None;
    let mut newest = Incidents::default();
    // The newest firing of each rule and stream that a process has kept.
    let mut fired: BTreeMap<(String, String), String> = BTreeMap::new();
    while world.now < FAULTS + CALM {
        world.now += STEP;
        let wild = world.now < FAULTS;
        if wild {
            for lag in &mut lags {
                // Some flap from poll to poll, some stay for a while.
                match chance.below(40) {
                    0..=2 => *lag = Some(6000),
                    3..=5 => *lag = Some(0),
                    6 => *lag = None,
                    _ => {}
                }
            }
            if chance.below(60) == 0 {
                receiver_away = world.now + 1 + chance.below(3600);
            }
            if chance.below(80) == 0 {
                redis_away = world.now + 1 + chance.below(1200);
            }
            if chance.below(120) == 0 {
                // A day and more, or an hour or so to either side.
                world.jump += match chance.below(4) {
                    0 => 25 * 3600,
                    _ => chance.below(7200) as i64 - 3600,
                };
                last_message = None;
            }
        }
        let killed = |chance: &mut Chance| wild && chance.below(150) == 0;
        let is_away = world.now < receiver_away;
        let mut step = |process: &mut Process, disk: &mut Disk, chance: &mut Chance| -> Result<Incidents, u64> {
            let seen = if world.now < redis_away { incidents::tests::down(view(&[])) } else { view(&lags) };
            let at = Duration::from_secs(world.now - process.began);
            let all = process.tracker.update(Now { at, clock: world.clock() }, &seen);
            if killed(chance) {
                return Err(0);
            }
            process.keep_incidents(disk, &all);
            fired.extend(firings(&all).into_iter().map(|((rule, stream), start, _)| ((rule, stream), start)));
            if killed(chance) {
                return Err(0);
            }
            let now = process.now(&world);
            process.outbox.update(now, world.clock(), &alerts(&all));
            let message = process.outbox.due(now, &TIMING);
            if killed(chance) {
                return Err(0);
            }
            process.keep_told(disk, &world);
            if killed(chance) {
                return Err(0);
            }
            let Some(message) = message else { return Ok(all) };
            if is_away {
                // 429 with a wait, 500, nobody there, and half an answer: then it was taken.
                let retry_after = (chance.below(4) == 0).then(|| Duration::from_secs(chance.below(600)));
                if chance.below(6) == 0 {
                    receiver.take(&message.id, &message.body);
                    outcome.unanswered += 1;
                }
                let error = SendError { why: "503".to_owned(), is_temporary: true, retry_after };
                process.outbox.failed(now, &message, &error, chance.below(1000) as f64 / 1000.0);
            } else {
                if !receiver.bodies.contains_key(&message.id) {
                    let news = TestReceiver::says(&message.body).iter().any(|said| !receiver.said.contains(said));
                    let is_repeated = last_message.is_none_or(|last| world.now >= last + 4 * 3600);
                    assert!(news || is_repeated, "seed {seed}: {}: a message without news", world.now);
                    if let Some(last) = last_message {
                        assert!(world.now >= last + 300, "seed {seed}: {} after {last}", world.now);
                    }
                    last_message = Some(world.now);
                }
                receiver.take(&message.id, &message.body);
                // Messages are few, and this is the worst of moments.
                if wild && chance.below(8) == 0 {
                    return Err(1);
                }
                process.outbox.done(now, &message);
                if wild && chance.below(8) == 0 {
                    return Err(1);
                }
            }
            process.keep_told(disk, &world);
            if !is_away {
                receiver.known.insert(message.id.clone());
                receiver.said.extend(TestReceiver::says(&message.body));
            }
            Ok(all)
        };
        match step(&mut process, &mut disk, &mut chance) {
            Ok(all) => newest = all,
            Err(with_a_message) => {
                outcome.kills += 1;
                outcome.kills_with_a_message += with_a_message;
                // Down for a while.
                world.now += chance.below(20) * STEP;
                process = Process::start(&disk, &world);
            }
        }
    }
    // At the end the receiver believes what is so, every firing that it was told of has ended or goes on, and each message came once,
    // but for one more of each kill, and for those that it took and did not answer.
    let truth: BTreeMap<(String, String), String> =
        firings(&newest).into_iter().filter(|(.., fires)| *fires).map(|(key, start, _)| (key, start)).collect();
    let fires: BTreeMap<_, _> = receiver.believes.iter().filter(|(_, (_, fires))| *fires).collect();
    let believed: BTreeMap<(String, String), String> =
        fires.into_iter().map(|(key, (starts_at, _))| (key.clone(), starts_at.clone())).collect();
    assert_eq!(believed, truth, "seed {seed}");
    for ((rule, stream), start) in fired {
        let firing = (rule, stream, start);
        assert!(receiver.firings.contains(&firing), "seed {seed}: nobody was told of {firing:?}");
    }
    outcome.firings = receiver.firings.len();
    outcome.duplicates = receiver.duplicates;
    outcome
}

#[test]
#[expect(clippy::print_stdout, reason = "what `make fault-runs` is to show")]
fn no_incident_is_lost_and_none_told_twice_whatever_goes_wrong() {
    let runs: u64 = std::env::var("FAULT_RUNS").map_or(12, |runs| runs.parse().unwrap());
    let mut sum = FaultRun::default();
    for seed in 0..runs {
        let outcome = run(seed);
        let allowed = outcome.kills_with_a_message + outcome.unanswered;
        assert!(outcome.duplicates <= allowed, "seed {seed}: {} duplicates, {allowed} allowed", outcome.duplicates);
        sum.kills += outcome.kills;
        sum.kills_with_a_message += outcome.kills_with_a_message;
        sum.unanswered += outcome.unanswered;
        sum.duplicates += outcome.duplicates;
        sum.firings += outcome.firings;
    }
    // Everything has happened.
    assert!(sum.kills > runs && sum.kills_with_a_message > 0 && sum.unanswered > 0 && sum.firings > runs as usize);
    println!(
        "{runs} runs: {} firings told, {} kills, {} of them with a message under way, {} messages taken without an answer, {} duplicates",
        sum.firings, sum.kills, sum.kills_with_a_message, sum.unanswered, sum.duplicates
    );
}

#[test]
fn five_thousand_groups_at_once_are_a_message_per_interval_with_the_worst_first() {
    let mut tracker = IncidentTracker::default();
    let lags = vec![Some(6000); 5000];
    let storm = view(&lags);
    let at = |seconds| Now { at: Duration::from_secs(seconds), clock: UNIX_EPOCH + Duration::from_secs(seconds) };
    tracker.update(at(0), &storm);
    let all = alerts(&tracker.update(at(600), &storm));
    let count = all["default"].len();
    assert_eq!(count, 2 * 5000, "two rules each");
    let mut outbox = Outbox::default();
    let (mut told, mut messages, mut worst_is_over) = (BTreeSet::new(), Vec::new(), false);
    for now in (600..600 + 2 * 3600).step_by(10) {
        let clocks = (Duration::from_secs(now), at(now).clock);
        if messages.is_empty() || now % 1800 == 0 {
            outbox.update(clocks.0, clocks.1, &all);
        }
        let Some(message) = outbox.due(clocks.0, &TIMING) else { continue };
        outbox.done(clocks.0, &message);
        messages.push(now);
        let body: Value = serde_json::from_slice(&message.body).unwrap();
        let of_message = body["alerts"].as_array().unwrap();
        for alert in of_message {
            let is_new = told.insert(alert["fingerprint"].as_str().unwrap().to_owned());
            let is_critical = alert["labels"]["severity"] == "critical";
            assert!(!(is_new && is_critical && worst_is_over), "what is critical comes first");
            worst_is_over |= is_new && !is_critical;
        }
        assert_eq!(body["truncatedAlerts"], count - of_message.len());
    }
    assert_eq!(told.len(), count);
    assert!(messages.windows(2).all(|pair| pair[1] - pair[0] >= 300), "{messages:?}");
    assert_eq!(messages.len(), count / 1000, "and nothing is repeated before it is time: {messages:?}");
}
