//! Definitions, and what partitions are together.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::analysis::consumers::Recommendation;
use crate::analysis::group_history::GroupHistory;
use crate::analysis::snapshot::tests::{WINDOWS, stream_facts};
use crate::analysis::snapshot::{GroupSnapshot, Presence};
use crate::model::EntryId;
use crate::model::lag::Quality;
use crate::model::sample::{GroupSample, ReadError, StreamSample};

fn parse(definitions: &[&str]) -> Result<LogicalStreams, LogicalProblem> {
    LogicalStreams::parse(&definitions.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

#[test]
fn braces_are_expanded_as_shells_do_it() {
    let check = |text: &str, expected: &[&str]| assert_eq!(braces::expand(text).unwrap(), expected, "{text:?}");
    check("orders", &["orders"]);
    check("orders:{0..2}", &["orders:0", "orders:1", "orders:2"]);
    check("orders:{08..10}", &["orders:08", "orders:09", "orders:10"]);
    check("orders:{8..010}", &["orders:008", "orders:009", "orders:010"]);
    check("orders:{9..11}", &["orders:9", "orders:10", "orders:11"]);
    check("{0..10}", &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
    check("{eu,us}:orders:{0..1}", &["eu:orders:0", "eu:orders:1", "us:orders:0", "us:orders:1"]);
    check("a{,b}", &["a", "ab"]);
    check("{a,b{1,2}}", &["a", "b1", "b2"]);
    check("{5..5}", &["5"]);
    // Hash tags.
    check("orders:{7}", &["orders:{7}"]);
    check("orders:{{0..2}}", &["orders:{0}", "orders:{1}", "orders:{2}"]);
    check("{user}:{a,b}:{{x,y}:z}", &["{user}:a:{x:z}", "{user}:a:{y:z}", "{user}:b:{x:z}", "{user}:b:{y:z}"]);
    check("{}", &["{}"]);
    check("}a{0..1}", &["}a0", "}a1"]);
    check(r"a\{0..2\}", &[r"a\{0..2\}"]);
    check(r"{a\,b,c}", &[r"a\,b", "c"]);
    check("orders:*:{é,x}", &["orders:*:é", "orders:*:x"]);
}

#[test]
fn what_is_no_definition_is_said() {
    let check = |text: &str, expected: &str| assert_eq!(parse(&[text]).unwrap_err().to_string(), expected, "{text:?}");
    let form = "expected NAME=PATTERN, such as orders=orders:{0..63} or orders=orders:*";
    for text in ["", "orders", "=orders:*", "orders=", " = "] {
        check(text, form);
    }
    let meant = r"write \{ for a brace that is meant";
    check("o=orders:{0..63", &format!("a brace is not closed in orders:{{0..63; {meant}"));
    check("o=a{b{0..1}", &format!("a brace is not closed in a{{b{{0..1}}; {meant}"));
    for range in ["{63..0}", "{a..z}", "{-1..3}", "{..3}", "{0...3}", "{1..2..3}", "{0..99999999999999999999}"] {
        let expected =
            format!("{range} is no range: expected whole numbers, the lower one first, such as {{0..63}}; {meant}");
        check(&format!("o={range}"), &expected);
    }
    let too_many = |text: &str| {
        check(
            &format!("o={text}"),
            &format!("{text} stands for more than 10000 partitions, or for more than 4 MiB of names"),
        );
    };
    too_many("{0..10000}");
    too_many("{0..99}{0..100}");
    too_many(&format!("{}{{0..9999}}", "x".repeat(1000)));
    too_many(&"{a,b}".repeat(64));
    check(
        &format!("o={}{}", "{".repeat(9), "}".repeat(9)),
        &format!("braces are nested more than 8 deep in {}{}", "{".repeat(9), "}".repeat(9)),
    );
    let many: Vec<String> = (0..2).map(|n| format!("o={{{}..{}}}", n * 6000, n * 6000 + 5999)).collect();
    assert_eq!(LogicalStreams::parse(&many), Err(LogicalProblem::Partitions("o".to_owned())));
    check("o={0..100}:*", "o has more than 100 patterns");
    assert!(parse(&["o={0..9999}", "p={0..9999}", "q={0..99}:*"]).is_ok());
}

#[test]
fn a_definition_may_be_as_large_as_the_bounds_and_no_larger() {
    let count = |text: &str| braces::expand(text).map(|texts| texts.len());
    let nested = |depth: usize, open: &str| format!("{}{}", open.repeat(depth), "}".repeat(depth));
    for (open, expected) in [("{", 1), ("{a,", 9)] {
        assert_eq!(count(&nested(8, open)), Ok(expected));
        assert_eq!(count(&nested(9, open)), Err(LogicalProblem::Nesting(nested(9, open))));
    }
    let too_many = |text: &str| Err(LogicalProblem::Partitions(text.to_owned()));
    assert_eq!(count("{a,{1..9999}}"), Ok(braces::MAX_PARTITIONS));
    assert_eq!(count("{a,{0..9999}}"), too_many("{a,{0..9999}}"));
    let bytes = |bytes: usize| "x".repeat(bytes);
    assert_eq!(count(&bytes(braces::MAX_EXPANDED_BYTES)), Ok(1));
    let larger = bytes(braces::MAX_EXPANDED_BYTES + 1);
    assert!(count(&larger) == too_many(&larger));
}

#[test]
fn names_and_patterns_are_told_apart_and_one_name_may_be_given_twice() {
    let definitions = ["orders=orders:{0..1}", "mail=mail:*", r"odd=a\*\{b\}", "orders = orders:{1..2}", "mail=mail:*"];
    let streams = parse(&definitions).unwrap();
    let names: Vec<String> = streams.names().map(ToString::to_string).collect();
    assert_eq!(names, ["orders:0", "orders:1", "orders:2", "a*{b}"]);
    assert_eq!(streams.patterns().collect::<Vec<_>>(), ["mail:*"]);
    assert_eq!(streams.definitions.len(), 3);
    let orders = ["orders:0", "orders:1", "orders:2"].map(StreamKey::from);
    assert_eq!(streams.partitions("orders"), Some((&orders[..], &[][..])));
    assert_eq!(streams.partitions("mail"), Some((&[][..], &["mail:*".to_owned()][..])));
    assert_eq!(streams.partitions("mail:*"), None);
    assert!(!streams.is_empty() && parse(&[]).unwrap().is_empty());
}

#[test]
fn lists_are_split_outside_of_braces() {
    assert_eq!(split_list("a=x:{1,2},b=y:*"), ["a=x:{1,2}", "b=y:*"]);
    assert_eq!(split_list(r"a=x\{,b=y}"), [r"a=x\{", "b=y}"]);
    assert_eq!(split_list(""), [""]);
    assert_eq!(split_list("a,{é,{b,c}},d"), ["a", "{é,{b,c}}", "d"]);
}

const THRESHOLDS: Thresholds = Thresholds { degraded: 100, unhealthy: 1000 };

fn present(name: &str, (min, point, max): (u64, u64, u64), seconds: Option<f64>, state: GroupState) -> GroupSnapshot {
    let (sample, of) = (StreamSample::default(), GroupSample::default());
    let mut trend = GroupHistory::new(&sample, &of, Duration::ZERO).take(&sample, &of, Duration::ZERO, None, &WINDOWS);
    trend.verdict.state = state;
    let group = PresentGroup {
        overflow: None,
        dead: None,
        oldest_pending: None,
        oldest_pending_deliveries: None,
        unowned_pending: None,
        consumers: Some(1),
        pending: Some(2),
        last_delivered: Some(EntryId::default()),
        entries_read: None,
        lag: Lag { min, max, point },
        lag_seconds: seconds,
        oldest_pending_seconds: None,
        trend,
        trim_headroom_entries: Some(0),
        trim_headroom_seconds: None,
        ghost_pending: None,
        drain_seconds: None,
        recommendation: Recommendation::of(None, None, None, 0, 1, Duration::ZERO),
        members: None,
    };
    GroupSnapshot { name: name.into(), presence: Presence::Present(Box::new(group)) }
}

fn exact(lag: u64) -> GroupSnapshot {
    present("g", (lag, lag, lag), Some(lag as f64), if lag > 0 { GroupState::Lagging } else { GroupState::Ok })
}

fn missing() -> GroupSnapshot {
    GroupSnapshot { name: "g".into(), presence: Presence::Missing }
}

fn stream(key: &str, groups: Vec<GroupSnapshot>) -> StreamSnapshot {
    let facts = stream_facts();
    StreamSnapshot { key: key.into(), read: Ok(facts), groups, groups_left_out: 0 }
}

fn unreadable(key: &str) -> StreamSnapshot {
    let group = GroupSnapshot { name: "g".into(), presence: Presence::Unknown };
    StreamSnapshot {
        key: key.into(),
        read: Err(ReadError::Server("no such key".to_owned())),
        groups: vec![group],
        groups_left_out: 0,
    }
}

/// Partitions of one logical stream; its one group.
fn summary(partitions: Vec<StreamSnapshot>) -> LogicalGroup {
    let streams = parse(&["all=*"]).unwrap();
    let mut snapshot = streams.summarize(&partitions, |key| streams.of(key), |_| THRESHOLDS).remove(0);
    assert_eq!(snapshot.groups.len(), 1);
    snapshot.groups.remove(0)
}

#[test]
fn lags_are_summed_and_the_worst_partition_is_named() {
    let group = summary(vec![
        stream("p:0", vec![exact(10)]),
        stream("p:1", vec![present("g", (20, 30, 40), Some(45.0), GroupState::Stalled)]),
        stream("p:2", vec![exact(0)]),
        stream("p:3", vec![exact(80)]),
    ]);
    assert_eq!(group.lag, Some(Lag { min: 110, point: 120, max: 130 }));
    assert_eq!(group.quality(), Some(Quality::Bounded));
    assert_eq!(group.worst, Some(WorstPartition { stream: "p:3".into(), lag: 80 }));
    assert_eq!(group.skew, Some(80.0 / 30.0));
    assert_eq!((group.lag_seconds, group.pending), (Some(80.0), Some(8)));
    assert_eq!((group.partitions, group.unknown), (4, 0));
    assert_eq!((group.status, group.state), (Status::Degraded, Some(GroupState::Stalled)));
}

#[test]
fn even_partitions_have_no_skew_and_none_is_told_without_lag() {
    let even = summary((0..4).map(|n| stream(&format!("p:{n}"), vec![exact(7)])).collect());
    assert_eq!(even.skew, Some(1.0));
    let first = WorstPartition { stream: "p:0".into(), lag: 7 };
    assert_eq!(even.worst, Some(first), "the name does not jump about");
    let drained = summary((0..4).map(|n| stream(&format!("p:{n}"), vec![exact(0)])).collect());
    assert_eq!((drained.skew, drained.lag.map(|lag| lag.point), drained.status), (None, Some(0), Status::Healthy));
    assert_eq!(drained.quality(), Some(Quality::Exact));
}

#[test]
fn what_is_unknown_makes_no_false_zero() {
    for other in [unreadable("p:1"), stream("p:1", vec![missing()]), stream("p:1", Vec::new())] {
        let check = |known: u64, lag: Option<u64>, status: Status| {
            let group = summary(vec![stream("p:0", vec![exact(known)]), other.clone()]);
            assert_eq!((group.partitions, group.unknown), (2, 1));
            assert_eq!(group.lag.map(|lag| lag.point), lag);
            assert_eq!(group.worst.as_ref().map(|worst| worst.lag), lag);
            assert_eq!(group.lag_seconds, lag.map(|lag| lag as f64));
            assert_eq!((group.quality(), group.status), (None, status));
        };
        check(0, None, Status::Unknown);
        check(500, Some(500), Status::Unknown);
        // More cannot make it better.
        check(2000, Some(2000), Status::Unhealthy);
    }
    let nothing = summary(vec![unreadable("p:0"), unreadable("p:1")]);
    assert_eq!((nothing.partitions, nothing.unknown, nothing.lag, nothing.pending), (2, 2, None, None));
    assert_eq!((nothing.status, nothing.state), (Status::Unknown, None));
}

#[test]
fn an_age_is_told_where_it_is_known_of_each_partition() {
    let group = summary(vec![
        stream("p:0", vec![exact(10)]),
        stream("p:1", vec![present("g", (1, 1, 1), None, GroupState::Ok)]),
    ]);
    assert_eq!(group.lag_seconds, None);
    assert_eq!(group.lag.map(|lag| lag.point), Some(11));
}

#[test]
fn sums_do_not_wrap() {
    let huge = || present("g", (u64::MAX, u64::MAX, u64::MAX), Some(1.0), GroupState::Ok);
    let group = summary(vec![stream("p:0", vec![huge()]), stream("p:1", vec![huge()])]);
    assert_eq!(group.lag, Some(Lag { min: u64::MAX, point: u64::MAX, max: u64::MAX }));
}

#[test]
fn a_logical_stream_has_its_partitions_and_no_others() {
    let streams = parse(&["orders=orders:{0..1}", "eu=*:eu", "none=absent:*"]).unwrap();
    let sampled = ["orders:1", "mail:eu", "orders:0", "orders:2", "orders:eu"].map(StreamKey::from);
    let snapshots: Vec<StreamSnapshot> = sampled
        .iter()
        .map(|key| stream(&key.to_string(), vec![exact(1), present("h", (2, 2, 2), None, GroupState::Ok)]))
        .collect();
    let thresholds = |name: &str| Thresholds { degraded: if name == "eu" { 1 } else { 100 }, ..THRESHOLDS };
    let summaries = streams.summarize(&snapshots, |key| streams.of(key), thresholds);
    let told: Vec<(String, String, u64, Option<u64>, Status)> = summaries
        .iter()
        .flat_map(|logical| {
            logical.groups.iter().map(|group| {
                let lag = group.lag.map(|lag| lag.point);
                (logical.name.to_string(), group.name.to_string(), group.partitions, lag, group.status)
            })
        })
        .collect();
    let row = |name: &str, group: &str, lag, status| (name.to_owned(), group.to_owned(), 2, Some(lag), status);
    assert_eq!(
        told,
        [
            row("orders", "g", 2, Status::Healthy),
            row("orders", "h", 4, Status::Healthy),
            row("eu", "g", 2, Status::Degraded),
            row("eu", "h", 4, Status::Degraded),
        ]
    );
    assert_eq!(summaries[2].groups, []);
    let one = streams.summarize(&snapshots[..1], |key| streams.of(key), |_| THRESHOLDS);
    assert_eq!(one[0].groups[0].partitions, 1);
}

proptest! {
    #[test]
    fn any_definition_is_read_or_refused_within_bounds(text in r"[a{},\.0-9*\\=é]{0,60}") {
        if let Ok(streams) = parse(&[&text]) {
            prop_assert!(streams.names().count() + streams.patterns().count() >= 1);
        }
        let entries = split_list(&text);
        prop_assert_eq!(entries.join(","), text);
    }

    #[test]
    fn the_worst_is_at_least_the_mean_and_at_most_the_sum(lags in prop::collection::vec(0_u64..1_000_000, 1..40)) {
        let group = summary(lags.iter().enumerate().map(|(n, lag)| stream(&format!("p:{n}"), vec![exact(*lag)])).collect());
        let lag = group.lag.unwrap();
        prop_assert_eq!(lag.point, lags.iter().sum::<u64>());
        let worst = group.worst.unwrap().lag;
        prop_assert!(worst <= lag.point);
        if let Some(skew) = group.skew {
            prop_assert!((1.0..=lags.len() as f64 + 1e-9).contains(&skew), "{skew}");
        }
    }
}
