//! Random walks on real servers, of every version there is, against counting: no exact answer is wrong, all bounds hold
//! the truth, no loss is invented, and on small streams almost every answer is exact.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::common::sampled::{COUNT_BUDGET, Sampled, ids, present};
use crate::common::{Redis, servers};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use redis::{Connection, Value};
use streamlag::analysis::snapshot::StreamSnapshot;
use streamlag::model::EntryId;

pub const GROUPS: [&str; 4] = ["from-0", "from-$", "from-mid", "late"];

/// The first of them are made with the stream.
const MADE_AT_ONCE: usize = 3;

const CONSUMERS: [&str; 2] = ["consumer", "other"];

/// Walks per server. More can be asked for with `PROPTEST_CASES`.
const WALKS: u32 = 24;

#[derive(Clone, Debug)]
pub enum Step {
    Add(u8),
    AddTrimming(u8, Trim),
    /// Adds with an idempotent id, one that was used before where the flag says so.
    AddIdempotent(bool),
    Read {
        group: usize,
        consumer: usize,
        count: u8,
        ack: bool,
    },
    Ack {
        group: usize,
        count: u8,
    },
    /// Acknowledges and deletes.
    AckDelete {
        group: usize,
        count: u8,
        policy: RemovalPolicy,
    },
    Claim {
        group: usize,
    },
    DeleteConsumer {
        group: usize,
        consumer: usize,
    },
    Trim(Trim),
    Delete(u8),
    DeleteWith(u8, RemovalPolicy),
    SetId {
        group: usize,
        place: Place,
        lie: Option<u8>,
    },
    ClaimLastId {
        group: usize,
        place: u8,
    },
    Recreate {
        group: usize,
        place: Place,
        lie: Option<u8>,
    },
    Destroy {
        group: usize,
    },
    Create {
        group: usize,
        place: Place,
    },
    Remake(u8, Away),
    Copy,
    /// An older copy takes the stream's place.
    GoBack,
    DumpAndRestore,
    Flush(u8),
    RaiseId(u8),
    Configure,
    Poll,
}

/// A trim, with its options.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    to: TrimTo,
    /// Whole nodes only, and at most so many entries.
    about: Option<u8>,
    policy: RemovalPolicy,
}

#[derive(Clone, Copy, Debug)]
pub enum TrimTo {
    Length(u8),
    Id(u8),
}

/// What becomes of references to entries that go; from Redis 8.2 on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RemovalPolicy {
    Unsaid,
    Keep,
    Delete,
    Acknowledged,
}

/// A way in which a whole stream goes.
#[derive(Clone, Copy, Debug)]
pub enum Away {
    Deleted,
    Expired,
    Renamed,
}

impl RemovalPolicy {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Unsaid => None,
            Self::Keep => Some("KEEPREF"),
            Self::Delete => Some("DELREF"),
            Self::Acknowledged => Some("ACKED"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Place {
    Start,
    End,
    Entry(u8),
    Ahead,
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![Just(Place::Start), Just(Place::End), any::<u8>().prop_map(Place::Entry), Just(Place::Ahead)]
}

fn policy() -> impl Strategy<Value = RemovalPolicy> {
    prop_oneof![
        2 => Just(RemovalPolicy::Unsaid),
        1 => Just(RemovalPolicy::Keep),
        1 => Just(RemovalPolicy::Delete),
        4 => Just(RemovalPolicy::Acknowledged),
    ]
}

fn trim() -> impl Strategy<Value = Trim> {
    let to = prop_oneof![3 => (0u8..60).prop_map(TrimTo::Length), 1 => any::<u8>().prop_map(TrimTo::Id)];
    (to, prop::option::weighted(0.2, 0u8..200), policy()).prop_map(|(to, about, policy)| Trim { to, about, policy })
}

/// What happens to a stream day by day, but deletions: entries are added, read, acknowledged and trimmed.
fn trimming_step() -> impl Strategy<Value = Step> {
    let group = || 0..MADE_AT_ONCE;
    let read = (group(), 0..CONSUMERS.len(), 1u8..20, any::<bool>());
    prop_oneof![
        6 => (1u8..30).prop_map(Step::Add),
        2 => (1u8..30, trim()).prop_map(|(entries, trim)| Step::AddTrimming(entries, trim)),
        1 => any::<bool>().prop_map(Step::AddIdempotent),
        6 => read.prop_map(|(group, consumer, count, ack)| Step::Read { group, consumer, count, ack }),
        3 => (group(), 1u8..20).prop_map(|(group, count)| Step::Ack { group, count }),
        1 => group().prop_map(|group| Step::Claim { group }),
        1 => (group(), 0..CONSUMERS.len()).prop_map(|(group, consumer)| Step::DeleteConsumer { group, consumer }),
        3 => trim().prop_map(Step::Trim),
        1 => Just(Step::Configure),
    ]
}

/// The same with deletions.
fn ordinary_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => trimming_step(),
        1 => (0..MADE_AT_ONCE, 1u8..5, policy())
            .prop_map(|(group, count, policy)| Step::AckDelete { group, count, policy }),
        1 => any::<u8>().prop_map(Step::Delete),
        1 => (any::<u8>(), policy()).prop_map(|(place, policy)| Step::DeleteWith(place, policy)),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let group = || 0..GROUPS.len();
    let lie = || prop::option::weighted(0.3, any::<u8>());
    let away = || prop_oneof![Just(Away::Deleted), Just(Away::Expired), Just(Away::Renamed)];
    prop_oneof![
        30 => ordinary_step(),
        1 => (group(), place(), lie()).prop_map(|(group, place, lie)| Step::SetId { group, place, lie }),
        1 => (group(), any::<u8>()).prop_map(|(group, place)| Step::ClaimLastId { group, place }),
        1 => (group(), place(), lie()).prop_map(|(group, place, lie)| Step::Recreate { group, place, lie }),
        1 => group().prop_map(|group| Step::Destroy { group }),
        2 => (group(), place()).prop_map(|(group, place)| Step::Create { group, place }),
        1 => (0u8..30, away()).prop_map(|(entries, away)| Step::Remake(entries, away)),
        1 => Just(Step::Copy),
        1 => Just(Step::GoBack),
        1 => Just(Step::DumpAndRestore),
        1 => (0u8..30).prop_map(Step::Flush),
        1 => (1u8..50).prop_map(Step::RaiseId),
        14 => Just(Step::Poll),
    ]
}

/// A stream, what a walk did to it, and what streamlag says of it.
pub struct Walk {
    connection: Connection,
    pub old_server: bool,
    knows: Knows,
    pub sampled: Sampled,
    next_id: u64,
    pub entries: Vec<EntryId>,
    /// What each group was given, and what was gone before that.
    delivered: BTreeMap<usize, BTreeSet<EntryId>>,
    lost: BTreeMap<usize, BTreeSet<EntryId>>,
    /// How many of these lay above the cursor when they went.
    passed_over: BTreeMap<usize, u64>,
    polls: u64,
}

/// What a server can do.
#[derive(Clone, Copy, Debug)]
struct Knows {
    /// `ACKED`, `KEEPREF`, `DELREF`, `XDELEX`, `XACKDEL`
    policies: bool,
    copy: bool,
    idempotent: bool,
    /// `MINID` and `LIMIT`
    min_id: bool,
}

impl Knows {
    fn of(connection: &mut Connection) -> Self {
        let mut takes = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            redis::cmd(words[0]).arg(&words[1..]).exec(connection).is_ok()
        };
        assert!(takes("XADD probe 1-1 n 1"));
        Self {
            policies: takes("XTRIM probe MAXLEN 5 ACKED"),
            copy: takes("COPY probe probe2 REPLACE"),
            idempotent: takes("XADD probe IDMP p 1 * n 1"),
            min_id: takes("XTRIM probe MINID 0"),
        }
    }
}

pub const STREAM: &str = "walk";
const COPY: &str = "copy";

impl Walk {
    pub fn new(redis: &Redis, count_budget: u64) -> Self {
        let mut connection = redis.connection();
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
        let knows = Knows::of(&mut connection);
        let mut walk = Self {
            connection,
            knows,
            old_server: redis.is_before_7(),
            sampled: Sampled::new(redis, &[STREAM], count_budget),
            next_id: 1000,
            entries: Vec::new(),
            delivered: BTreeMap::new(),
            lost: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            polls: 0,
        };
        walk.make(10);
        walk
    }

    pub fn run(&mut self, words: &[&str]) -> redis::RedisResult<Value> {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection)
    }

    /// A stream with entries and all groups.
    fn make(&mut self, entries: u8) {
        for (number, group) in GROUPS.iter().enumerate().take(MADE_AT_ONCE) {
            self.run(&["XGROUP", "CREATE", STREAM, group, "0", "MKSTREAM"]).unwrap();
            self.delivered.insert(number, BTreeSet::new());
        }
        self.add(entries);
        self.run(&["XGROUP", "SETID", STREAM, GROUPS[1], "$"]).unwrap();
        let middle = self.id(Place::Entry(128));
        self.run(&["XGROUP", "SETID", STREAM, GROUPS[2], &middle]).unwrap();
    }

    fn add(&mut self, entries: u8) {
        self.add_with(entries, &[]);
    }

    fn add_with(&mut self, entries: u8, options: &[String]) {
        for _ in 0..entries {
            self.next_id += 1 + self.next_id % 3;
            let id = format!("{}-{}", self.next_id, self.next_id % 2);
            let options = options.iter().map(String::as_str);
            let words: Vec<&str> = ["XADD", STREAM].into_iter().chain(options).chain([id.as_str(), "n", "1"]).collect();
            self.run(&words).unwrap();
            // It may be trimmed at once.
            self.entries.push(EntryId { ms: self.next_id, seq: self.next_id % 2 });
        }
    }

    /// The words of a trim, as far as the server knows them.
    fn trim_words(&mut self, trim: Trim) -> Vec<String> {
        let about = trim.about.filter(|_| self.knows.min_id);
        let mut words: Vec<String> = match trim.to {
            TrimTo::Length(length) => vec!["MAXLEN".to_owned(), length.to_string()],
            TrimTo::Id(nth) if self.knows.min_id => vec!["MINID".to_owned(), self.id(Place::Entry(nth))],
            TrimTo::Id(_) => vec!["MAXLEN".to_owned(), "20".to_owned()],
        };
        if let Some(limit) = about {
            words.insert(1, "~".to_owned());
            words.extend(["LIMIT".to_owned(), limit.to_string()]);
        }
        words.extend(self.policy(trim.policy).map(str::to_owned));
        words
    }

    fn policy(&self, policy: RemovalPolicy) -> Option<&'static str> {
        policy.word().filter(|_| self.knows.policies)
    }

    fn groups(&mut self) -> BTreeSet<String> {
        self.cursors().into_keys().collect()
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

    pub fn step(&mut self, step: &Step) {
        // A group that is not there is nobody's business.
        let there = self.groups();
        let there = |group: &usize| there.contains(GROUPS[*group]);
        match step {
            Step::Add(entries) => self.add(*entries),
            Step::AddTrimming(entries, trim) => {
                let mut words = self.trim_words(*trim);
                // Here the policy stands before the trim.
                if self.policy(trim.policy).is_some() {
                    words.rotate_right(1);
                }
                words.insert(0, "NOMKSTREAM".to_owned());
                words.retain(|word| self.knows.min_id || word != "NOMKSTREAM");
                self.add_with(*entries, &words);
            }
            Step::AddIdempotent(again) if self.knows.idempotent => {
                let number = if *again { "1".to_owned() } else { self.next_id.to_string() };
                let reply = self.run(&["XADD", STREAM, "IDMP", "p", &number, "*", "n", "1"]).unwrap();
                let id: String = redis::from_redis_value(reply).unwrap();
                self.next_id = self.next_id.max(EntryId::parse(id.as_bytes()).unwrap().ms);
            }
            Step::Configure if self.knows.idempotent => {
                self.run(&["XCFGSET", STREAM, "IDMP-DURATION", "50", "IDMP-MAXSIZE", "50"]).unwrap();
            }
            Step::AddIdempotent(_) | Step::Configure => {}
            Step::Read { group, consumer, count, ack } if there(group) => {
                let mut words = vec!["XREADGROUP", "GROUP", GROUPS[*group], CONSUMERS[*consumer], "COUNT"];
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
            Step::Ack { group, count } if there(group) => {
                for id in self.pending(*group, *count) {
                    self.run(&["XACK", STREAM, GROUPS[*group], &id]).unwrap();
                }
            }
            Step::AckDelete { group, count, policy } if there(group) && self.knows.policies => {
                for id in self.pending(*group, *count) {
                    let mut words = vec!["XACKDEL", STREAM, GROUPS[*group]];
                    words.extend(policy.word());
                    words.extend(["IDS", "1", &id]);
                    self.run(&words).unwrap();
                }
            }
            Step::Claim { group } if there(group) && self.knows.min_id => {
                self.run(&["XAUTOCLAIM", STREAM, GROUPS[*group], CONSUMERS[0], "0", "0"]).unwrap();
            }
            Step::DeleteConsumer { group, consumer } if there(group) => {
                self.run(&["XGROUP", "DELCONSUMER", STREAM, GROUPS[*group], CONSUMERS[*consumer]]).unwrap();
            }
            Step::Trim(trim) => {
                let words = self.trim_words(*trim);
                let words: Vec<&str> = ["XTRIM", STREAM].into_iter().chain(words.iter().map(String::as_str)).collect();
                self.run(&words).unwrap();
            }
            Step::Delete(nth) => {
                let id = self.id(Place::Entry(*nth));
                self.run(&["XDEL", STREAM, &id]).unwrap();
            }
            Step::DeleteWith(nth, policy) if self.knows.policies => {
                let id = self.id(Place::Entry(*nth));
                let mut words = vec!["XDELEX", STREAM];
                words.extend(policy.word());
                words.extend(["IDS", "1", &id]);
                self.run(&words).unwrap();
            }
            Step::SetId { group, place, lie } if there(group) => {
                let (id, lie) = (self.id(*place), self.lie(*lie));
                let mut words = vec!["XGROUP", "SETID", STREAM, GROUPS[*group], &id];
                words.extend(lie.iter().flat_map(|lie| ["ENTRIESREAD", lie.as_str()]));
                self.run(&words).unwrap();
            }
            Step::ClaimLastId { group, place } if there(group) => {
                let id = self.id(Place::Entry(*place));
                let group = GROUPS[*group];
                self.run(&["XCLAIM", STREAM, group, "consumer", "0", "0-1", "LASTID", &id]).unwrap();
            }
            Step::Recreate { group, place, lie } if there(group) => {
                let (id, lie) = (self.id(*place), self.lie(*lie));
                self.run(&["XGROUP", "DESTROY", STREAM, GROUPS[*group]]).unwrap();
                self.create(*group, &id, lie);
            }
            Step::Destroy { group } if there(group) => {
                self.run(&["XGROUP", "DESTROY", STREAM, GROUPS[*group]]).unwrap();
            }
            Step::Create { group, place } if !there(group) => {
                let id = self.id(*place);
                self.create(*group, &id, None);
            }
            Step::Remake(entries, away) => {
                let words: &[&str] = match away {
                    Away::Deleted => &["DEL", STREAM],
                    Away::Expired => &["PEXPIRE", STREAM, "0"],
                    Away::Renamed => &["RENAME", STREAM, "elsewhere"],
                };
                self.run(words).unwrap();
                self.make(*entries);
            }
            Step::Copy if self.knows.copy => {
                self.run(&["COPY", STREAM, COPY, "REPLACE"]).unwrap();
            }
            Step::GoBack if self.knows.copy => {
                // There may be none.
                let _ = self.run(&["RENAME", COPY, STREAM]);
            }
            Step::DumpAndRestore => {
                let Value::BulkString(dump) = self.run(&["DUMP", STREAM]).unwrap() else { panic!("no dump") };
                redis::cmd("RESTORE").arg(STREAM).arg(0).arg(dump).arg("REPLACE").exec(&mut self.connection).unwrap();
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
            _ => {}
        }
        self.notice_losses();
    }

    /// Makes a group that was not there, or not any more.
    fn create(&mut self, group: usize, id: &str, lie: Option<String>) {
        // Nothing was ever given to the new group, nor will what is gone already.
        let delivered = self.delivered.insert(group, BTreeSet::new()).unwrap_or_default();
        let entries = self.read_entries();
        let gone = delivered.into_iter().filter(|id| entries.binary_search(id).is_err());
        self.lost.entry(group).or_default().extend(gone);
        let mut words = vec!["XGROUP", "CREATE", STREAM, GROUPS[group], id];
        words.extend(lie.iter().flat_map(|lie| ["ENTRIESREAD", lie.as_str()]));
        self.run(&words).unwrap();
    }

    /// The oldest pending entries of a group.
    fn pending(&mut self, group: usize, count: u8) -> Vec<String> {
        let reply = self.run(&["XPENDING", STREAM, GROUPS[group], "-", "+", &count.to_string()]).unwrap();
        let pending: Vec<(String, String, u64, u64)> = redis::from_redis_value(reply).unwrap();
        pending.into_iter().map(|(id, ..)| id).collect()
    }

    /// A number of read entries that is not true.
    fn lie(&self, lie: Option<u8>) -> Option<String> {
        lie.filter(|_| !self.old_server).map(|lie| lie.to_string())
    }

    /// What vanished and was never given to a group is lost to it.
    fn notice_losses(&mut self) {
        let (now, cursors) = (self.read_entries(), self.cursors());
        for id in std::mem::replace(&mut self.entries, now.clone()) {
            if now.binary_search(&id).is_err() {
                for (group, name) in GROUPS.iter().enumerate() {
                    if self.delivered.get(&group).is_none_or(|delivered| !delivered.contains(&id)) {
                        self.lost.entry(group).or_default().insert(id);
                        let above = cursors.get(*name).is_some_and(|cursor| id > *cursor);
                        *self.passed_over.entry(group).or_default() += u64::from(above);
                    }
                }
            }
        }
    }

    pub fn poll(&mut self) -> StreamSnapshot {
        let snapshot = self.sampled.one();
        self.polls += 1;
        if self.polls == 1 {
            // What a group was given before streamlag first saw it, and then moved back over, nobody can tell.
            let cursors = self.cursors();
            for (group, delivered) in &mut self.delivered {
                delivered.retain(|id| cursors.get(GROUPS[*group]).is_some_and(|cursor| id <= cursor));
            }
            self.lost.clear();
            self.passed_over.clear();
        }
        snapshot
    }

    /// Holds what streamlag says against the truth. Returns whether it is exact, per group.
    fn check(&mut self, snapshot: &StreamSnapshot) -> Vec<bool> {
        let cursors = self.cursors();
        let mut exact = Vec::new();
        for (number, name) in GROUPS.iter().enumerate().filter(|(_, name)| cursors.contains_key(**name)) {
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
                group.trend.lost <= lost,
                "{name}: {} said to be lost, but only {lost} were, in poll {}",
                group.trend.lost,
                self.polls
            );
            exact.push(lag.min == lag.max);
        }
        exact
    }

    pub fn cursors(&mut self) -> BTreeMap<String, EntryId> {
        // Name and value by turns, of which the second and the eighth are the name and the cursor.
        let reply = self.run(&["XINFO", "GROUPS", STREAM]).unwrap();
        let groups: Vec<Vec<Value>> = redis::from_redis_value(reply).unwrap();
        let text = |value: &Value| redis::from_redis_value_ref::<String>(value).unwrap();
        let cursor = |group: &Vec<Value>| EntryId::parse(text(&group[7]).as_bytes()).unwrap();
        groups.iter().map(|group| (text(&group[1]), cursor(group))).collect()
    }
}

/// How many answers there were to some question, and how many of them were as they should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub right: u64,
    pub all: u64,
}

impl Tally {
    pub fn add(&mut self, right: u64, all: u64) {
        (self.right, self.all) = (self.right + right, self.all + all);
    }

    pub fn percent(&self) -> f64 {
        100.0 * self.right as f64 / self.all.max(1) as f64
    }
}

/// Runs walks of such steps on one server.
pub fn walks<S: Strategy<Value = Step> + 'static>(server: &Path, steps: fn() -> S, walk: impl Fn(&Redis, &[Step])) {
    let redis = Redis::start_with(server, &[]);
    let asked_for = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked_for.unwrap_or(WALKS);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    // The same walks every time, or a change would be blamed for what it did not do; new ones where so many are asked for.
    let mut runner = match asked_for {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let outcome = runner.run(&prop::collection::vec(steps(), 1..80), |steps| {
        walk(&redis, &steps);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{}: {error}", server.display());
    }
}

/// Any walks on one server; returns how many answers were exact.
fn exact_answers(server: &Path, count_budget: u64) -> Tally {
    let exact = RefCell::new(Tally::default());
    walks(server, step, |redis, steps| {
        let mut walk = Walk::new(redis, count_budget);
        for step in steps {
            walk.step(step);
            if let Step::Poll = step {
                let snapshot = walk.poll();
                let exactly = walk.check(&snapshot);
                let right = exactly.iter().filter(|exact| **exact).count() as u64;
                exact.borrow_mut().add(right, exactly.len() as u64);
            }
        }
    });
    exact.into_inner()
}

#[test]
fn no_exact_answer_is_wrong_and_almost_all_are_exact() {
    for server in servers() {
        let exact = exact_answers(&server, COUNT_BUDGET);
        println!("{}: {} of {} exact, none wrong", server.display(), exact.right, exact.all);
        assert!(exact.percent() >= 99.0, "{}: only {exact:?} are exact", server.display());
    }
}

#[test]
fn without_a_budget_the_bounds_hold_the_truth() {
    for server in servers() {
        let exact = exact_answers(&server, 0);
        println!("{}: {} of {} exact without counting, none wrong", server.display(), exact.right, exact.all);
        assert!(exact.percent() > 33.0, "{}: only {exact:?} are exact", server.display());
    }
}

/// Polls after each step on one server; returns how much of what was lost is said.
fn losses_said<S: Strategy<Value = Step> + 'static>(server: &Path, steps: fn() -> S) -> Tally {
    let said = RefCell::new(Tally::default());
    walks(server, steps, |redis, steps| {
        let mut walk = Walk::new(redis, COUNT_BUDGET);
        walk.step(&Step::Add(5));
        for group in 0..MADE_AT_ONCE {
            // From here on the server knows how many entries each was given.
            walk.step(&Step::Read { group, consumer: 0, count: u8::MAX, ack: false });
        }
        let mut snapshot = walk.poll();
        for step in steps {
            walk.step(step);
            snapshot = walk.poll();
            walk.check(&snapshot);
        }
        for (number, name) in GROUPS.iter().enumerate().take(MADE_AT_ONCE) {
            let lost = walk.passed_over.get(&number).copied().unwrap_or_default();
            said.borrow_mut().add(present(&snapshot, name).trend.lost, lost);
        }
    });
    said.into_inner()
}

#[test]
fn almost_all_that_is_lost_is_said_where_polls_see_each_step() {
    for server in servers() {
        if Redis::start_with(&server, &[]).is_before_7() {
            continue;
        }
        let said = losses_said(&server, trimming_step);
        // An entry deleted ahead of a group makes the server forget how many the group has read. Then nothing proves that its cursor
        // was not moved back between two polls, and what may have been delivered before that is not called lost.
        let with_deletions = losses_said(&server, ordinary_step);
        println!("{}: of lost entries said, {said:?}; with deletions, {with_deletions:?}", server.display());
        assert!(said.all > 500 && said.percent() >= 95.0, "{}: {said:?} of what was lost", server.display());
        assert!(with_deletions.percent() >= 50.0, "{}: {with_deletions:?} of what was lost", server.display());
    }
}
