//! Random walks on real servers, of every version there is, against counting: no exact answer is wrong, all bounds hold
//! the truth, no loss is invented, and on small streams almost every answer is exact.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was found is worth reading")]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::sampled::{COUNT_BUDGET, Sampled, ids, present};
use common::{Redis, servers};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::{Connection, Value};
use streamlag::model::EntryId;
use streamlag::model::snapshot::StreamSnapshot;

const GROUPS: [&str; 3] = ["from-0", "from-$", "from-mid"];

/// Walks per server. More can be asked for with `PROPTEST_CASES`.
const WALKS: u32 = 24;

#[derive(Clone, Debug)]
enum Step {
    Add(u8),
    Read { group: usize, count: u8, ack: bool },
    Ack { group: usize, count: u8 },
    Trim(u8),
    Delete(u8),
    SetId { group: usize, place: Place, lie: Option<u8> },
    ClaimLastId { group: usize, place: u8 },
    Recreate { group: usize, place: Place, lie: Option<u8> },
    Remake(u8),
    Flush(u8),
    RaiseId(u8),
    Poll,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Start,
    End,
    Entry(u8),
    Ahead,
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Start), Just(Place::End), any::<u8>().prop_map(Place::Entry), Just(Place::Ahead)]
}

fn step() -> impl Strategy<Value = Step> {
    let group = || 0..GROUPS.len();
    let lie = || prop::option::weighted(0.3, any::<u8>());
    prop_oneof![
        6 => (1u8..30).prop_map(Step::Add),
        6 => (group(), 1u8..20, any::<bool>()).prop_map(|(group, count, ack)| Step::Read { group, count, ack }),
        2 => (group(), 1u8..20).prop_map(|(group, count)| Step::Ack { group, count }),
        2 => (0u8..60).prop_map(Step::Trim),
        2 => any::<u8>().prop_map(Step::Delete),
        1 => (group(), place(), lie()).prop_map(|(group, place, lie)| Step::SetId { group, place, lie }),
        1 => (group(), any::<u8>()).prop_map(|(group, place)| Step::ClaimLastId { group, place }),
        1 => (group(), place(), lie()).prop_map(|(group, place, lie)| Step::Recreate { group, place, lie }),
        1 => (0u8..30).prop_map(Step::Remake),
        1 => (0u8..30).prop_map(Step::Flush),
        1 => (1u8..50).prop_map(Step::RaiseId),
        12 => Just(Step::Poll),
    ]
}

/// A stream, what a walk did to it, and what streamlag says of it.
struct Walk {
    connection: Connection,
    old_server: bool,
    sampled: Sampled,
    next_id: u64,
    entries: Vec<EntryId>,
    /// What each group was given, and what was gone before that.
    delivered: BTreeMap<usize, BTreeSet<EntryId>>,
    lost: BTreeMap<usize, BTreeSet<EntryId>>,
    polls: u64,
}

const STREAM: &str = "walk";

impl Walk {
    fn new(redis: &Redis, count_budget: u64) -> Self {
        let mut connection = redis.connection();
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
        let mut walk = Self {
            connection,
            old_server: redis.is_before_7(),
            sampled: Sampled::new(redis, &[STREAM], count_budget),
            next_id: 1000,
            entries: Vec::new(),
            delivered: BTreeMap::new(),
            lost: BTreeMap::new(),
            polls: 0,
        };
        walk.make(10);
        walk
    }

    fn run(&mut self, words: &[&str]) -> redis::RedisResult<Value> {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection)
    }

    /// A stream with entries and all groups.
    fn make(&mut self, entries: u8) {
        for (number, group) in GROUPS.iter().enumerate() {
            self.run(&["XGROUP", "CREATE", STREAM, group, "0", "MKSTREAM"]).unwrap();
            self.delivered.insert(number, BTreeSet::new());
        }
        self.add(entries);
        self.run(&["XGROUP", "SETID", STREAM, GROUPS[1], "$"]).unwrap();
        let middle = self.id(Place::Entry(128));
        self.run(&["XGROUP", "SETID", STREAM, GROUPS[2], &middle]).unwrap();
    }

    fn add(&mut self, entries: u8) {
        for _ in 0..entries {
            self.next_id += 1 + self.next_id % 3;
            self.run(&["XADD", STREAM, &format!("{}-{}", self.next_id, self.next_id % 2), "n", "1"]).unwrap();
        }
    }

    fn id(&mut self, place: Place) -> String {
        let entries = self.read_entries();
        match place {
            Place::Start => "0".to_owned(),
            Place::End => "$".to_owned(),
            Place::Entry(_) if entries.is_empty() => "0".to_owned(),
            Place::Entry(nth) => entries[usize::from(nth) * entries.len() / 256].to_string(),
            Place::Ahead => format!("{}-0", self.next_id + 20),
        }
    }

    fn read_entries(&mut self) -> Vec<EntryId> {
        let reply = self.run(&["XRANGE", STREAM, "-", "+"]).unwrap();
        ids(&reply)
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(entries) => self.add(*entries),
            Step::Read { group, count, ack } => {
                let mut words = vec!["XREADGROUP", "GROUP", GROUPS[*group], "consumer", "COUNT"];
                let count = count.to_string();
                words.push(&count);
                if !ack {
                    words.push("NOACK");
                }
                words.extend(["STREAMS", STREAM, ">"]);
                let reply = self.run(&words).unwrap();
                if let Value::Array(streams) = reply
                    && let Some(Value::Array(stream)) = streams.first()
                {
                    self.delivered.entry(*group).or_default().extend(ids(&stream[1]));
                }
            }
            Step::Ack { group, count } => {
                let delivered: Vec<String> =
                    self.delivered[group].iter().take((*count).into()).map(ToString::to_string).collect();
                for id in delivered {
                    self.run(&["XACK", STREAM, GROUPS[*group], &id]).unwrap();
                }
            }
            Step::Trim(keep) => {
                self.run(&["XTRIM", STREAM, "MAXLEN", &keep.to_string()]).unwrap();
            }
            Step::Delete(nth) => {
                let id = self.id(Place::Entry(*nth));
                self.run(&["XDEL", STREAM, &id]).unwrap();
            }
            Step::SetId { group, place, lie } => {
                let (id, lie) = (self.id(*place), self.lie(*lie));
                let mut words = vec!["XGROUP", "SETID", STREAM, GROUPS[*group], &id];
                words.extend(lie.iter().flat_map(|lie| ["ENTRIESREAD", lie.as_str()]));
                self.run(&words).unwrap();
            }
            Step::ClaimLastId { group, place } => {
                let id = self.id(Place::Entry(*place));
                let group = GROUPS[*group];
                self.run(&["XCLAIM", STREAM, group, "consumer", "0", "0-1", "LASTID", &id]).unwrap();
            }
            Step::Recreate { group, place, lie } => {
                let (id, lie) = (self.id(*place), self.lie(*lie));
                self.run(&["XGROUP", "DESTROY", STREAM, GROUPS[*group]]).unwrap();
                // Nothing was ever given to the new group, nor will what is gone already.
                let delivered = self.delivered.insert(*group, BTreeSet::new()).unwrap_or_default();
                let entries = self.read_entries();
                let gone = delivered.into_iter().filter(|id| entries.binary_search(id).is_err());
                self.lost.entry(*group).or_default().extend(gone);
                let mut words = vec!["XGROUP", "CREATE", STREAM, GROUPS[*group], &id];
                words.extend(lie.iter().flat_map(|lie| ["ENTRIESREAD", lie.as_str()]));
                self.run(&words).unwrap();
            }
            Step::Remake(entries) => {
                self.run(&["DEL", STREAM]).unwrap();
                self.make(*entries);
            }
            Step::Flush(entries) => {
                self.run(&["FLUSHALL"]).unwrap();
                self.make(*entries);
            }
            Step::RaiseId(ahead) => {
                self.next_id += u64::from(*ahead);
                let id = format!("{}-9", self.next_id);
                self.next_id += 1;
                self.run(&["XSETID", STREAM, &id]).unwrap();
            }
            Step::Poll => {}
        }
        self.notice_losses();
    }

    /// A number of read entries that is not true.
    fn lie(&self, lie: Option<u8>) -> Option<String> {
        lie.filter(|_| !self.old_server).map(|lie| lie.to_string())
    }

    /// What vanished and was never given to a group is lost to it.
    fn notice_losses(&mut self) {
        let now = self.read_entries();
        for id in std::mem::replace(&mut self.entries, now.clone()) {
            if now.binary_search(&id).is_err() {
                for group in 0..GROUPS.len() {
                    if !self.delivered[&group].contains(&id) {
                        self.lost.entry(group).or_default().insert(id);
                    }
                }
            }
        }
    }

    fn poll(&mut self) -> StreamSnapshot {
        let snapshot = self.sampled.one();
        self.polls += 1;
        if self.polls == 1 {
            // What a group was given before streamlag first saw it, and then moved back over, nobody can tell.
            let cursors = self.cursors();
            for (group, delivered) in &mut self.delivered {
                delivered.retain(|id| *id <= cursors[GROUPS[*group]]);
            }
            self.lost.clear();
        }
        snapshot
    }

    /// Holds what streamlag says against the truth. Returns whether it is exact, per group.
    fn check(&mut self, snapshot: &StreamSnapshot) -> Vec<bool> {
        let cursors = self.cursors();
        let mut exact = Vec::new();
        for (number, name) in GROUPS.iter().enumerate() {
            let group = present(snapshot, name);
            let truth = self.entries.iter().filter(|id| **id > cursors[*name]).count() as u64;
            let lag = group.lag;
            assert!(
                lag.min <= truth && truth <= lag.max && lag.min <= lag.point && lag.point <= lag.max,
                "{name}: {lag:?} but {truth} in poll {}; {:?}, cursors {cursors:?}",
                self.polls,
                self.entries
            );
            let lost = self.lost.get(&number).map_or(0, BTreeSet::len) as u64;
            assert!(
                group.course.lost <= lost,
                "{name}: {} said to be lost, but only {lost} were, in poll {}",
                group.course.lost,
                self.polls
            );
            exact.push(lag.min == lag.max);
        }
        exact
    }

    fn cursors(&mut self) -> BTreeMap<String, EntryId> {
        // Name and value by turns, of which the second and the eighth are the name and the cursor.
        let reply = self.run(&["XINFO", "GROUPS", STREAM]).unwrap();
        let groups: Vec<Vec<Value>> = redis::from_redis_value(reply).unwrap();
        let text = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap();
        let cursor = |group: &Vec<Value>| EntryId::parse(text(&group[7]).as_bytes()).unwrap();
        groups.iter().map(|group| (text(&group[1]), cursor(group))).collect()
    }
}

/// Walks on one server; returns how many answers there were and how many were exact.
fn walks(server: &Path, count_budget: u64) -> (u64, u64) {
    let redis = Redis::start_with(server, &[]);
    let asked_for = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked_for.unwrap_or(WALKS);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    // The same walks every time, or a change would be blamed for what it did not do; new ones where so many are asked for.
    let mut runner = match asked_for {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let (answers, exact) = (RefCell::new(0), RefCell::new(0));
    let outcome = runner.run(&prop::collection::vec(step(), 1..80), |steps| {
        let mut walk = Walk::new(&redis, count_budget);
        for step in &steps {
            walk.step(step);
            if let Step::Poll = step {
                let snapshot = walk.poll();
                let exactly = walk.check(&snapshot);
                *answers.borrow_mut() += exactly.len() as u64;
                *exact.borrow_mut() += exactly.iter().filter(|exact| **exact).count() as u64;
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{}: {error}", server.display());
    }
    (answers.into_inner(), exact.into_inner())
}

#[test]
fn no_exact_answer_is_wrong_and_almost_all_are_exact() {
    for server in servers() {
        let (answers, exact) = walks(&server, COUNT_BUDGET);
        println!("{}: {exact} of {answers} exact, none wrong", server.display());
        assert!(exact * 100 >= answers * 99, "{}: only {exact} of {answers} are exact", server.display());
    }
}

#[test]
fn without_a_budget_the_bounds_hold_the_truth() {
    for server in servers() {
        let (answers, exact) = walks(&server, 0);
        println!("{}: {exact} of {answers} exact without counting, none wrong", server.display());
        assert!(exact * 3 > answers, "{}: only {exact} of {answers} are exact", server.display());
    }
}
