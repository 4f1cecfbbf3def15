//! Discovery against a key space that is simulated.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::Shard;

const INTERVAL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(5);

/// A key space as SCAN sees it: every key has its place, and a call looks at the places from the cursor on.
#[derive(Default)]
struct Keys {
    names: BTreeSet<String>,
    /// Returns each key twice, as SCAN may while a table grows or shrinks.
    twice: bool,
}

/// Places of the key space: two calls' worth.
const PLACES: u64 = 2 * SCAN_COUNT as u64;

fn place(name: &str) -> u64 {
    // Any function does that scatters names.
    name.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte))) % PLACES
}

impl Keys {
    fn of(names: &[&str]) -> Self {
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), twice: false }
    }

    fn scan(&self, ask: &ScanRequest) -> (u64, Vec<StreamKey>) {
        let end = ask.cursor + u64::from(ask.count);
        let there = |name: &&String| (ask.cursor..end).contains(&place(name));
        let mut keys: Vec<String> = self.names.iter().filter(there).cloned().collect();
        if self.twice {
            keys.extend(keys.clone());
        }
        let keys = keys.iter().map(|key| key.as_str().into()).collect();
        (if end >= PLACES { 0 } else { end }, keys)
    }
}

fn selection(entries: &[&str]) -> StreamSelection {
    StreamSelection::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
}

/// One poll; how many calls it made.
fn poll(discovery: &mut Scanner, keys: &Keys, now: Duration) -> usize {
    let mut calls = 0;
    while let Some(ask) = discovery.next(now) {
        let (cursor, names) = keys.scan(&ask);
        discovery.answer(cursor, names, now);
        calls += 1;
    }
    discovery.changed();
    calls
}

fn names(discovery: &Scanner) -> Vec<String> {
    discovery.streams().iter().map(ToString::to_string).collect()
}

#[test]
fn named_streams_come_first_and_found_ones_by_name() {
    let keys = Keys::of(&["b:2", "b:1", "a", "other", "b:named"]);
    let mut discovery = Scanner::new(selection(&["z", "b:named", "b:*", "a*"]), INTERVAL, 100);
    assert_eq!(names(&discovery), ["z", "b:named"]);
    poll(&mut discovery, &keys, Duration::ZERO);
    assert_eq!(names(&discovery), ["z", "b:named", "a", "b:1", "b:2"]);
    let stats = discovery.stats();
    assert_eq!((stats.found, stats.left_out, stats.completed_at), (3, 0, Some(Duration::ZERO)));
    assert!(!discovery.changed());
}

#[test]
fn nothing_is_asked_where_there_is_no_pattern_and_the_pattern_where_there_is_one() {
    let mut named = Scanner::new(selection(&["a", "b"]), INTERVAL, 100);
    assert_eq!(named.next(Duration::ZERO), None);
    let ask = |entries: &[&str]| Scanner::new(selection(entries), INTERVAL, 100).next(Duration::ZERO).unwrap();
    assert_eq!(ask(&["a", "b:*"]), ScanRequest { cursor: 0, pattern: Some("b:*".to_owned()), count: SCAN_COUNT });
    assert_eq!(ask(&["a:*", "b:*"]).pattern, None);
}

#[test]
fn a_new_stream_shows_within_the_interval_and_a_deleted_one_leaves() {
    let mut keys = Keys::of(&["s:1", "s:2"]);
    let mut discovery = Scanner::new(selection(&["s:*"]), INTERVAL, 100);
    poll(&mut discovery, &keys, Duration::ZERO);
    keys.names.insert("s:3".to_owned());
    keys.names.remove("s:1");
    let mut now = Duration::ZERO;
    while names(&discovery) != ["s:2", "s:3"] {
        now += POLL;
        assert!(now <= INTERVAL, "{:?}", names(&discovery));
        poll(&mut discovery, &keys, now);
    }
}

#[test]
fn a_stream_that_redis_does_not_have_leaves_at_once_and_a_named_one_stays() {
    let keys = Keys::of(&["s:1", "s:2"]);
    let mut discovery = Scanner::new(selection(&["named", "s:*"]), INTERVAL, 100);
    poll(&mut discovery, &keys, Duration::ZERO);
    discovery.is_gone(&"s:1".into());
    discovery.is_gone(&"named".into());
    assert!(discovery.changed());
    assert_eq!(names(&discovery), ["named", "s:2"]);
}

#[test]
fn a_stream_that_came_from_elsewhere_is_here_until_a_pass_that_began_later_has_not_met_it() {
    let keys = Keys::of(&["s:1"]);
    let mut discovery = Scanner::new(selection(&["named", "s:*"]), INTERVAL, 3);
    // It comes while a pass is under way, which may be past its place.
    let ask = discovery.next(Duration::ZERO).unwrap();
    let (cursor, found) = keys.scan(&ask);
    assert_ne!(cursor, 0, "there is more to come");
    discovery.answer(cursor, found, Duration::ZERO);
    for key in ["s:2", "named", "other", "s:3"] {
        discovery.add_found(key.into());
    }
    poll(&mut discovery, &keys, Duration::ZERO);
    assert!(discovery.stats().completed_at.is_some());
    assert_eq!(names(&discovery), ["named", "s:1", "s:2"], "what is meant, and no more than the limit");
    poll(&mut discovery, &keys, INTERVAL);
    assert_eq!(names(&discovery), ["named", "s:1"]);
}

#[test]
fn the_limit_keeps_named_streams_and_the_first_by_name_and_says_what_it_leaves_out() {
    let mut keys = Keys::of(&["s:1", "s:2", "s:3", "s:4", "s:5"]);
    let mut discovery = Scanner::new(selection(&["z", "s:*"]), INTERVAL, 3);
    poll(&mut discovery, &keys, Duration::ZERO);
    assert_eq!(names(&discovery), ["z", "s:1", "s:2"]);
    assert_eq!((discovery.stats().found, discovery.stats().left_out), (2, 3));
    // Where one goes, the next one has its place after the next pass.
    keys.names.remove("s:1");
    discovery.is_gone(&"s:1".into());
    poll(&mut discovery, &keys, INTERVAL);
    assert_eq!(names(&discovery), ["z", "s:2", "s:3"]);
    assert_eq!(discovery.stats().left_out, 2);
    let too_many = Scanner::new(selection(&["a", "b", "c"]), INTERVAL, 2);
    assert_eq!((names(&too_many), too_many.stats().left_out), (vec!["a".to_owned(), "b".to_owned()], 1));
}

#[test]
fn another_connection_begins_the_pass_anew_and_keeps_what_was_found() {
    let keys = Keys::of(&["s:1", "s:2"]);
    let mut discovery = Scanner::new(selection(&["s:*"]), INTERVAL, 100);
    poll(&mut discovery, &keys, Duration::ZERO);
    // In the middle of the next pass.
    let ask = discovery.next(INTERVAL).unwrap();
    let (cursor, found) = keys.scan(&ask);
    discovery.answer(cursor, found, INTERVAL);
    discovery.interrupted();
    assert_eq!(names(&discovery), ["s:1", "s:2"]);
    assert_eq!(discovery.next(INTERVAL + POLL).unwrap().cursor, 0);
    // An answer that comes after all is of no pass.
    discovery.interrupted();
    discovery.answer(0, ["s:3"], INTERVAL);
    assert!(!discovery.changed());
}

#[test]
fn other_settings_keep_what_is_still_meant_and_are_followed_at_once() {
    let keys = Keys::of(&["s:1", "s:2", "t:1"]);
    let mut discovery = Scanner::new(selection(&["s:*"]), INTERVAL, 100);
    poll(&mut discovery, &keys, Duration::ZERO);
    let next = selection(&["s:2", "s:*", "t:*"]).without(vec!["s:1".to_owned()]);
    discovery.reconfigure(next, INTERVAL, 100);
    assert!(discovery.changed());
    assert_eq!(names(&discovery), ["s:2"]);
    for number in 1..4 {
        poll(&mut discovery, &keys, POLL * number);
    }
    assert_eq!(names(&discovery), ["s:2", "t:1"]);
}

#[test]
fn shards_find_every_stream_once() {
    let all: Vec<String> = (0..200).map(|number| format!("s:{number}")).collect();
    let keys = Keys { names: all.iter().cloned().collect(), twice: false };
    let mut found = Vec::new();
    for index in 0..3 {
        let share = selection(&["s:*"]).of_shard(Shard::new(index, 3));
        let mut discovery = Scanner::new(share, INTERVAL, 1000);
        poll(&mut discovery, &keys, Duration::ZERO);
        found.extend(names(&discovery));
    }
    found.sort();
    assert_eq!(found, keys.names.into_iter().collect::<Vec<_>>());
}

/// What happens between two calls of SCAN.
#[derive(Clone, Debug)]
enum ScanEvent {
    Add(u8),
    Remove(u8),
    /// Redis says of a stream that is not there that it is not there.
    Miss(u8),
    Interrupt,
    Call,
}

fn event() -> impl Strategy<Value = ScanEvent> {
    prop_oneof![
        2 => any::<u8>().prop_map(ScanEvent::Add),
        2 => any::<u8>().prop_map(ScanEvent::Remove),
        1 => any::<u8>().prop_map(ScanEvent::Miss),
        1 => Just(ScanEvent::Interrupt),
        12 => Just(ScanEvent::Call),
    ]
}

proptest! {
    #[test]
    fn what_is_there_all_through_a_pass_is_found_and_what_was_gone_before_is_not(
        events in prop::collection::vec(event(), 1..300),
        limit in prop_oneof![Just(1000_usize), 1_usize..20],
        twice in any::<bool>(),
    ) {
        let mut keys = Keys { names: BTreeSet::new(), twice };
        let mut discovery = Scanner::new(selection(&["s:*"]), INTERVAL, limit);
        // What was there all the time since the pass began, and what was there at any time since.
        let (mut all_through, mut at_times) = (BTreeSet::new(), BTreeSet::new());
        let mut now = Duration::ZERO;
        for event in events {
            match event {
                ScanEvent::Add(number) => {
                    keys.names.insert(format!("s:{number}"));
                    at_times.insert(format!("s:{number}"));
                }
                ScanEvent::Remove(number) => {
                    keys.names.remove(&format!("s:{number}"));
                    all_through.remove(&format!("s:{number}"));
                }
                ScanEvent::Miss(number) if !keys.names.contains(&format!("s:{number}")) => {
                    let name = format!("s:{number}");
                    discovery.is_gone(&name.as_str().into());
                    discovery.changed();
                    prop_assert!(!names(&discovery).contains(&name));
                }
                ScanEvent::Miss(_) => {}
                ScanEvent::Interrupt => discovery.interrupted(),
                ScanEvent::Call => {
                    let Some(ask) = discovery.next(now) else {
                        now += POLL;
                        continue;
                    };
                    if ask.cursor == 0 {
                        all_through = keys.names.clone();
                        at_times = keys.names.clone();
                    }
                    let (cursor, found) = keys.scan(&ask);
                    discovery.answer(cursor, found, now);
                    discovery.changed();
                    prop_assert!(discovery.streams().len() <= limit);
                    if cursor == 0 {
                        let shown: BTreeSet<String> = names(&discovery).into_iter().collect();
                        prop_assert!(shown.is_subset(&at_times), "{shown:?} of {at_times:?}");
                        if limit == 1000 {
                            prop_assert!(all_through.is_subset(&shown), "{all_through:?} in {shown:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn long_names_are_found_up_to_a_number() {
    let long = |n: usize| format!("{n:0width$}", width = MAX_SHOWN_BYTES + 1);
    let mut discovery = Scanner::new(selection(&["*"]), INTERVAL, 10_000);
    for pass in 0..2 {
        discovery.next(POLL * 100 * pass).unwrap();
        let names = (0..2 * MAX_LONG_NAMES).map(|n| StreamKey::from(long(n).as_str()));
        discovery.answer(0, names.chain(["short".into()]), POLL * 100 * pass);
        discovery.changed();
        let stats = discovery.stats();
        assert_eq!((stats.found, stats.left_out), (MAX_LONG_NAMES + 1, MAX_LONG_NAMES as u64), "{pass}");
        assert!(discovery.streams().contains(&"short".into()));
    }
}
