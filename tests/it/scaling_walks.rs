//! What an autoscaler is told on random walks over real servers, held against the truth: never a zero over work that is there, never a
//! number where nobody knows. Beside it the rules of KEDA's redis-streams scaler, which asks Redis itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use redis::Value;
use streamlag::analysis::scaling::{DEFAULT_LOOK_AHEAD, Demand, DemandUnknown, ScaledStreams, Scaler, Signal};
use streamlag::analysis::snapshot::{StreamSnapshot, TargetSnapshot};
use streamlag::analysis::view::View;
use streamlag::model::sample::TargetMeta;

use crate::common::sampled::COUNT_BUDGET;
use crate::common::{Redis, servers};
use crate::lag_random_walks::{GROUPS, STREAM, Step, Walk, step, walks};

const DRAIN_TARGET: Duration = Duration::from_secs(60);

/// A key of another kind than a stream, put in its place.
const ASIDE: &str = "aside";

/// Every so many polls something is in the way.
const EVERY: u64 = 5;

/// How often an answer would have scaled to zero, and how often it would have kept replicas for nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Answers while entries were not delivered.
    backlogs: u64,
    /// Zeros among them.
    false_zeros: u64,
    /// Answers while none were.
    drained: u64,
    /// Numbers above 0 among them.
    false_work: u64,
}

impl Told {
    fn take(&mut self, answer: Option<i64>, undelivered: u64) {
        let Some(value) = answer else { return };
        let (all, wrong, is_wrong) = if undelivered > 0 {
            (&mut self.backlogs, &mut self.false_zeros, value <= 0)
        } else {
            (&mut self.drained, &mut self.false_work, value > 0)
        };
        *all += 1;
        *wrong += u64::from(is_wrong);
    }

    /// Zeros over a backlog, as the table of docs/scaling.md has them.
    fn zeros(&self) -> String {
        percentage(self.false_zeros, self.backlogs)
    }

    /// Work where there is none.
    fn work(&self) -> String {
        percentage(self.false_work, self.drained)
    }
}

fn percentage(part: u64, all: u64) -> String {
    if all == 0 {
        return "error".to_owned();
    }
    format!("{:.1}%", 100.0 * part as f64 / all as f64)
}

#[derive(Debug, Default)]
struct Tallies {
    streamlag: Told,
    by_lag: Told,
    by_pending: Told,
    single: u64,
    unknown: u64,
    exact: u64,
}

fn view(stream: StreamSnapshot) -> View {
    View::from(TargetSnapshot { meta: TargetMeta::at(SystemTime::now()), streams: vec![stream] })
}

fn demand(view: &View, group: &str, signal: Signal) -> Result<Demand, DemandUnknown> {
    let streams = ScaledStreams::named(STREAM.into());
    let scaler = Scaler { streams, group: group.into(), signal, target: 100.0, look_ahead: DEFAULT_LOOK_AHEAD };
    scaler.demand(view, DRAIN_TARGET)
}

/// Entries of a group that are pending.
fn pending(walk: &mut Walk, group: &str) -> u64 {
    let Value::Array(summary) = walk.run(&["XPENDING", STREAM, group]).unwrap() else { panic!("no summary") };
    redis::from_redis_value_ref(&summary[0]).unwrap()
}

/// The lag that the server tells of a group; `None` where it does not have the group.
fn server_lag(walk: &mut Walk, group: &str) -> Option<Option<i64>> {
    let groups: Vec<Vec<Value>> = redis::from_redis_value(walk.run(&["XINFO", "GROUPS", STREAM]).unwrap()).unwrap();
    let text = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap_or_default();
    let found = groups.iter().find(|fields| text(&fields[1]) == group)?;
    let lag = found.chunks(2).find(|pair| text(&pair[0]) == "lag").map(|pair| &pair[1]);
    Some(lag.and_then(|lag| redis::from_redis_value_ref(lag).ok()))
}

/// KEDA's redis-streams scaler with `lagCount` (pkg/scalers/redis_streams_scaler.go): the server's lag, and −1 where that is nil, as
/// go-redis has it; before Redis 7 an error. (Where the group is missing, it is the length: that is right.)
fn keda_by_lag(walk: &mut Walk, group: &str) -> Option<i64> {
    if walk.old_server {
        return None;
    }
    server_lag(walk, group).map(|lag| lag.unwrap_or(-1))
}

/// The same with `pendingEntriesCount`: `NOGROUP` is an error.
fn keda_by_pending(walk: &mut Walk, group: &str) -> Option<i64> {
    server_lag(walk, group).map(|_| pending(walk, group) as i64)
}

/// Holds all signals of each group against the truth.
fn check(walk: &mut Walk, view: &View, tallies: &mut Tallies) {
    let cursors: BTreeMap<_, _> = walk.cursors();
    for group in GROUPS.iter().chain(&["nobody"]) {
        let cursor = cursors.get(*group);
        let undelivered = walk.entries.iter().filter(|id| cursor.is_none_or(|cursor| *id > cursor)).count() as u64;
        let work = undelivered + if cursor.is_some() { pending(walk, group) } else { 0 };
        let [by_lag, by_work, consumers, forecast] =
            Signal::ALL.map(|signal| demand(view, group, signal).unwrap_or_else(|why| panic!("{group}: {why}")));
        for (told, truth) in [(&by_lag, undelivered), (&by_work, work), (&forecast, work)] {
            assert!(told.value >= truth, "{group}: {told:?}, but {truth}");
            let exact = told.lag.min == told.lag.max;
            assert!(!exact || told.value == truth, "{group}: {told:?} is said to be exact, but {truth}");
            tallies.exact += u64::from(exact);
        }
        assert!(consumers.value > 0 || work == 0, "{group}: {consumers:?}, but {work}");
        assert!(
            by_lag.lag.min <= undelivered && undelivered <= by_lag.lag.max,
            "{group}: {by_lag:?}, but {undelivered}"
        );
        tallies.single += u64::from(work == 1);
        if cursor.is_some() {
            tallies.streamlag.take(Some(by_lag.value as i64), undelivered);
            tallies.by_lag.take(keda_by_lag(walk, group), undelivered);
            tallies.by_pending.take(keda_by_pending(walk, group), undelivered);
        }
    }
}

/// Something stands in the way of the truth, or the stream is gone: what is said then.
fn disturb(walk: &mut Walk, turn: u64, tallies: &mut Tallies) {
    let user = crate::common::grants::USER;
    let unknown = !turn.is_multiple_of(3);
    match turn % 3 {
        0 => drop(walk.run(&["RENAME", STREAM, ASIDE]).unwrap()),
        1 => {
            walk.run(&["RENAME", STREAM, ASIDE]).unwrap();
            walk.run(&["SET", STREAM, "no stream"]).unwrap();
        }
        _ => drop(walk.run(&["ACL", "SETUSER", user, "-xinfo"]).unwrap()),
    }
    let now = view(walk.sampled.one());
    for group in GROUPS {
        for signal in Signal::ALL {
            match demand(&now, group, signal) {
                Ok(told) => assert!(!unknown && told.value == 0, "{group}, turn {turn}: {told:?}"),
                Err(why) => assert!(unknown, "{group}, turn {turn}: {why}"),
            }
        }
        tallies.unknown += u64::from(unknown);
    }
    match turn % 3 {
        0 => drop(walk.run(&["RENAME", ASIDE, STREAM]).unwrap()),
        1 => drop(walk.run(&["RENAME", ASIDE, STREAM]).unwrap()),
        _ => drop(walk.run(&["ACL", "SETUSER", user, "+xinfo"]).unwrap()),
    }
}

fn tallies(server: &std::path::Path, count_budget: u64) -> Tallies {
    let tallies = RefCell::new(Tallies::default());
    walks(server, step, |redis: &Redis, steps: &[Step]| {
        let mut walk = Walk::new(redis, count_budget);
        let mut turn = 0_u64;
        for step in steps {
            walk.step(step);
            if let Step::Poll = step {
                let snapshot = walk.poll();
                check(&mut walk, &view(snapshot), &mut tallies.borrow_mut());
                turn += 1;
                if turn.is_multiple_of(EVERY) {
                    disturb(&mut walk, turn / EVERY, &mut tallies.borrow_mut());
                }
            }
        }
    });
    tallies.into_inner()
}

#[test]
fn there_is_no_false_zero_and_no_number_where_nobody_knows() {
    println!(
        "| server | backlogs | streamlag | `lagCount` | `pendingEntriesCount` | drained | streamlag | `lagCount` |"
    );
    for server in servers() {
        // With lags that are counted, and with bounds alone.
        for count_budget in [COUNT_BUDGET, 0] {
            let tallies = tallies(&server, count_budget);
            let Tallies { streamlag, by_lag, by_pending, .. } = &tallies;
            let name = server.file_name().unwrap().to_string_lossy();
            println!(
                "| {name}, {count_budget} | {} | {} | {} | {} | {} | {} | {} |",
                streamlag.backlogs,
                streamlag.zeros(),
                by_lag.zeros(),
                by_pending.zeros(),
                streamlag.drained,
                streamlag.work(),
                by_lag.work()
            );
            println!("{} with one entry, {} unknown, {} exact", tallies.single, tallies.unknown, tallies.exact);
            assert_eq!(streamlag.false_zeros, 0, "{name}: {tallies:?}");
            assert!(streamlag.backlogs > 100 && tallies.single > 0 && tallies.unknown > 0, "{name}: {tallies:?}");
        }
    }
}
