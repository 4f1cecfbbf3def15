use std::time::{Duration, SystemTime};

use prometheus_client::metrics::gauge::Gauge;
use serde_json::Value;

use super::*;
use crate::analysis::assess::{Assessor, Bounds};
use crate::analysis::snapshot::tests::WINDOWS;
use crate::http::live::request::LiveQuery;
use crate::model::lag::{Lag, Resolved};
use crate::model::sample::{GroupSample, StreamSample, TargetMeta, TargetSample};
use crate::model::thresholds::Thresholds;
use crate::model::{EntryId, GroupSelection};

fn target() -> TargetName {
    TargetName::new("t").unwrap()
}

/// The version after `before`, of streams that each have a group `g` with this lag.
fn version(before: Option<&Version>, streams: &[(&str, u64)]) -> Version {
    let stream = |(name, lag): &(&str, u64)| {
        let group = GroupSample {
            name: "g".into(),
            resolved: Some(Resolved { lag: Lag { min: *lag, point: *lag, max: *lag }, ..Resolved::default() }),
            last_delivered: EntryId { ms: 1, seq: 0 },
            ..GroupSample::default()
        };
        ((*name).into(), Ok(StreamSample { groups: vec![group], ..StreamSample::default() }))
    };
    let meta = TargetMeta::at(SystemTime::UNIX_EPOCH);
    let sample = TargetSample { meta, streams: streams.iter().map(stream).collect(), redis_time: Duration::ZERO };
    let selection = GroupSelection::new(vec!["*".to_owned()]);
    let keys = streams.iter().map(|(name, _)| (*name).into()).collect();
    let view = View::from(Assessor::new(keys, selection, WINDOWS, Bounds::default()).assess(sample, Duration::ZERO));
    let rules = ThresholdRules { otherwise: Thresholds { degraded: 100, unhealthy: 1000 }, by_pattern: Vec::new() };
    Version::next(before, (&view, Some(Instant::now())), &target(), &rules, "[]", &Deliveries::default()).unwrap()
}

fn channel(query: &str) -> Channel {
    Channel::new(target(), LiveQuery::parse(Some(query)).unwrap().filter, ReaderMemory::new(1 << 24, Gauge::default()))
}

/// What a viewer is told that has seen the version `from`: the kind, the rows with their lags, what is gone.
fn told(channel: &Channel, version: &Version, from: Option<u64>) -> (&'static str, Vec<String>, Vec<String>) {
    let body = channel.message(version, from).unwrap();
    let json = [version.head(body.kind).as_bytes(), &body.json].concat();
    let message: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(message["type"], body.kind.as_str());
    let rows = message["groups"].as_array().unwrap().iter();
    let rows = rows.map(|row| format!("{}:{}", row["stream"].as_str().unwrap(), row["lag"])).collect();
    let gone = message["gone"].as_array().into_iter().flatten();
    (body.kind.as_str(), rows, gone.map(|row| row["stream"].as_str().unwrap().to_owned()).collect())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_message_is_encoded_once_for_all_who_are_told_the_same() {
    let first = version(None, &[("a", 1), ("b", 2)]);
    let second = version(Some(&first), &[("a", 1), ("b", 3)]);
    let all = channel("");
    let one = all.message(&second, Some(1)).unwrap();
    assert!(Arc::ptr_eq(&one, &all.message(&second, Some(1)).unwrap()));
    assert!(!Arc::ptr_eq(&one, &all.message(&second, None).unwrap()));
    assert!(Arc::ptr_eq(&all.message(&second, None).unwrap(), &all.message(&second, None).unwrap()));
    // A row that is as it was shares its bytes with the version before.
    assert_eq!(first.rows[0].json.as_ptr(), second.rows[0].json.as_ptr());
    assert_ne!(first.rows[1].json.as_ptr(), second.rows[1].json.as_ptr());
}

#[test]
fn a_long_message_is_made_within_the_memory_for_readers_and_a_short_one_always() {
    let names: Vec<String> = (0..100).map(|n| format!("stream-{n}")).collect();
    let streams: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let newest = version(None, &streams);
    // Half of it is for what is reserved, and a message takes more than half of that.
    let memory = ReaderMemory::new(4 * 80 * 1024 - 1, Gauge::default());
    let channel = |query| Channel::new(target(), LiveQuery::parse(Some(query)).unwrap().filter, memory.clone());
    let (one, another) = (channel("stream=s*"), channel("stream=*m*"));
    let held = one.message(&newest, None).unwrap();
    assert!((80 * 1024 / 2..160 * 1024).contains(&held.json.len()), "{}", held.json.len());
    let capacity = held.json.len();
    assert!(memory.reserve(4 * 80 * 1024 / 2 - capacity as u64).is_err(), "it is reserved");
    assert_eq!(another.message(&newest, None).unwrap_err(), NoMemory);
    assert!(channel("stream=stream-7").message(&newest, None).is_ok());
    drop((held, one));
    assert!(another.message(&newest, None).is_ok());
}

#[test]
fn a_viewer_that_is_behind_skips_to_the_newest() {
    let all = channel("");
    let mut newest = version(None, &[("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(told(&all, &newest, None), ("snapshot", names(&["a:1", "b:2", "c:3"]), vec![]));
    newest = version(Some(&newest), &[("a", 10), ("b", 2), ("c", 3)]);
    newest = version(Some(&newest), &[("a", 11), ("b", 2)]);
    newest = version(Some(&newest), &[("a", 12), ("b", 2)]);
    // Three versions in one message, and each row once.
    assert_eq!(told(&all, &newest, Some(1)), ("update", names(&["a:12"]), names(&["c"])));
    assert_eq!(told(&all, &newest, Some(3)), ("update", names(&["a:12"]), vec![]));
    assert_eq!(told(&all, &newest, Some(4)), ("update", vec![], vec![]));
    // What is back is not gone.
    newest = version(Some(&newest), &[("a", 12), ("b", 2), ("c", 5)]);
    assert_eq!(told(&all, &newest, Some(1)), ("update", names(&["a:12", "c:5"]), vec![]));
    // Too far behind for differences.
    for _ in 0..KEPT_VERSIONS {
        newest = version(Some(&newest), &[("a", 12), ("b", 2), ("c", 5)]);
    }
    assert_eq!(told(&all, &newest, Some(1)).0, "snapshot");
    for from in 0..newest.number {
        told(&all, &newest, Some(from));
    }
    let kept = all.encoded.lock().unwrap().bodies.len() as u64;
    assert!(kept <= KEPT_VERSIONS + 2, "{kept}");
}

#[test]
fn what_is_gone_is_told_for_as_long_as_somebody_may_have_seen_it() {
    let all = channel("");
    let mut newest = version(None, &[("a", 1), ("b", 2)]);
    for n in 2..=1 + KEPT_VERSIONS {
        newest = version(Some(&newest), &[("a", n)]);
    }
    assert_eq!(told(&all, &newest, Some(1)), ("update", names(&[&format!("a:{}", 1 + KEPT_VERSIONS)]), names(&["b"])));
    newest = version(Some(&newest), &[("a", 0)]);
    assert_eq!(told(&all, &newest, Some(1)).0, "snapshot");
    assert!(newest.gone.is_empty());
}

#[test]
fn a_filter_sees_its_rows_wherever_they_are() {
    let (some, all) = (channel("stream=b*"), channel(""));
    let first = version(None, &[("a", 1), ("b1", 2), ("b2", 3)]);
    assert_eq!(told(&some, &first, None).1, names(&["b1:2", "b2:3"]));
    // The rows have moved, and one that is not seen is gone.
    let second = version(Some(&first), &[("b2", 3), ("b1", 4)]);
    assert_eq!(told(&some, &second, Some(1)), ("update", names(&["b1:4"]), vec![]));
    assert_eq!(told(&all, &second, Some(1)).2, names(&["a"]));
    assert_eq!(told(&some, &second, None).1, names(&["b2:3", "b1:4"]));
    // A viewer that still looks at the version before is told of that one.
    assert_eq!(told(&some, &first, None).1, names(&["b1:2", "b2:3"]));
    assert_eq!(told(&some, &second, None).1, names(&["b2:3", "b1:4"]));
}
