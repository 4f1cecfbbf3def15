use std::time::SystemTime;

use super::*;
use crate::analysis::group_history::StreamRates;
use crate::analysis::snapshot::tests::{present_group, stream_facts};
use crate::analysis::snapshot::{ConsumerSnapshot, GroupSnapshot, Overflow, StreamFacts};
use crate::analysis::view::OverLimits;
use crate::model::FailureReason;
use crate::model::reply::ConsumerReply;
use crate::model::sample::{NodeStatus, ReadError, SampleError, Search, TargetMeta};

const DRAIN: Duration = Duration::from_secs(60);

fn scaler(signal: Signal) -> Scaler {
    let streams = ScaledStreams::named("s".into());
    Scaler { streams, group: "g".into(), signal, target: 100.0, look_ahead: DEFAULT_LOOK_AHEAD }
}

fn over(pattern: &str) -> Scaler {
    let streams = ScaledStreams { names: BTreeSet::new(), patterns: vec![pattern.to_owned()] };
    Scaler { streams, ..scaler(Signal::Work) }
}

fn view(streams: Vec<StreamSnapshot>) -> View {
    let search = Some(Search { found: 0, completed: Some((SystemTime::UNIX_EPOCH, Duration::ZERO)) });
    let meta = TargetMeta { search, ..TargetMeta::at(SystemTime::UNIX_EPOCH) };
    let fresh = Fresh { meta, over: OverLimits::default(), is_share: false };
    View {
        newest_poll: Some(Ok(())),
        fresh: Some(fresh),
        streams: streams.into(),
        ..View::unread(Duration::from_secs(5))
    }
}

fn facts(length: u64, added: Option<f64>) -> StreamFacts {
    StreamFacts { length, groups: 1, rates: StreamRates { added, ..StreamRates::default() }, ..stream_facts() }
}

fn stream(name: &str, length: u64, presence: Presence) -> StreamSnapshot {
    let groups = vec![GroupSnapshot { name: "g".into(), presence }];
    StreamSnapshot { key: name.into(), read: Ok(facts(length, None)), groups, groups_left_out: 0 }
}

fn unreadable(name: &str, error: &str) -> StreamSnapshot {
    let groups = vec![GroupSnapshot { name: "g".into(), presence: Presence::Unknown }];
    StreamSnapshot { key: name.into(), read: Err(ReadError::of_server(error)), groups, groups_left_out: 0 }
}

fn group((min, max): (u64, u64), pending: Option<u64>) -> PresentGroup {
    let lag = Lag { min, max, point: min };
    PresentGroup { consumers: Some(0), pending, members: Some(Vec::new()), ..present_group(lag) }
}

fn present(group: PresentGroup) -> Presence {
    Presence::Present(Box::new(group))
}

fn member(name: &str, pending: Option<u64>, active: Option<bool>) -> ConsumerSnapshot {
    let sample = ConsumerReply { name: name.into(), pending, idle_ms: Some(0), inactive_ms: None };
    ConsumerSnapshot { sample, active, oldest_pending_seconds: None, health: 100 }
}

#[test]
fn values_by_signal() {
    let check = |signal, presence: Presence, expected: Option<u64>, reason: &str| {
        let demand = scaler(signal).demand(&view(vec![stream("s", 9, presence)]), DRAIN);
        let text = demand.as_ref().map_or_else(ToString::to_string, |demand| demand.reason.clone());
        assert_eq!(demand.ok().map(|demand| demand.value), expected, "{text}");
        assert!(text.contains(reason), "{text}");
    };
    let known = || present(group((3, 3), Some(4)));
    check(Signal::Lag, known(), Some(3), "3 entries are not delivered");
    check(Signal::Work, known(), Some(7), "3 entries are not delivered; 4 are pending");
    let one = present(group((1, 1), Some(1)));
    check(Signal::Work, one, Some(2), "1 entry is not delivered; 1 is pending");
    check(
        Signal::Forecast,
        known(),
        Some(7),
        "there is no forecast for 5m ahead, so the value is the work now: 3 entries",
    );
    check(
        Signal::Consumers,
        known(),
        Some(1),
        "there is work, and 0 consumers are active; the rates are not known yet",
    );
    let read = |members: Option<Vec<ConsumerSnapshot>>, consumers| {
        present(PresentGroup { members, consumers, ..group((3, 3), Some(4)) })
    };
    let one = Some(vec![member("a", Some(4), Some(true))]);
    check(Signal::Consumers, read(one, Some(1)), Some(1), "and 1 consumer is active; ");
    // Consumers that are not read are counted, and nothing is said of them that is not known.
    check(Signal::Consumers, read(None, Some(1)), Some(1), "and whether 1 consumer is active is not known; ");
    check(Signal::Consumers, read(None, Some(2)), Some(2), "and whether 2 consumers are active is not known; ");
    // Where it is bounded, the upper bound.
    let bounded = || present(group((0, 8), Some(0)));
    check(Signal::Lag, bounded(), Some(8), "between 0 and 8 entries are not delivered, and the upper bound counts");
    check(Signal::Work, bounded(), Some(8), "");
    check(Signal::Consumers, bounded(), Some(1), "");
    let idle = || present(group((0, 0), Some(0)));
    for signal in Signal::ALL {
        check(signal, idle(), Some(0), "");
    }
    // One entry is enough, undelivered or pending.
    check(Signal::Work, present(group((0, 0), Some(1))), Some(1), "");
    check(Signal::Consumers, present(group((0, 0), Some(1))), Some(1), "");
    // How many are pending is not known.
    let half_known = |lag| present(group((lag, lag), None));
    check(Signal::Lag, half_known(3), Some(3), "");
    check(Signal::Work, half_known(3), None, "pending is not known");
    check(Signal::Forecast, half_known(3), None, "pending is not known");
    check(Signal::Consumers, half_known(3), Some(1), "");
    check(Signal::Consumers, half_known(0), None, "pending is not known");
    // Somebody has to make the group.
    for signal in [Signal::Lag, Signal::Work] {
        check(signal, Presence::Missing, Some(9), "the group does not exist, so every entry counts, of s");
    }
    check(Signal::Consumers, Presence::Missing, Some(1), "");
    check(Signal::Work, Presence::Unknown, None, "could not be read");
}

#[test]
fn a_missing_stream_is_empty_and_an_unreadable_one_unknown() {
    let demand = |error| scaler(Signal::Work).demand(&view(vec![unreadable("s", error)]), DRAIN);
    let missing = demand("no such key").unwrap();
    assert_eq!((missing.value, missing.lag, missing.recommended), (0, Lag::default(), None));
    assert!(missing.reason.ends_with("there is no stream s"), "{}", missing.reason);
    for error in
        ["WRONGTYPE no such key", "NOPERM", "node 10.0.0.1:6379: no such key", "not read yet", "No such key", ""]
    {
        assert!(demand(error).unwrap_err().to_string().contains("could not be read"), "{error}");
    }
    // One that is not in the sample at all.
    let error = scaler(Signal::Work).demand(&view(vec![stream("other", 0, Presence::Missing)]), DRAIN).unwrap_err();
    assert!(error.to_string().contains("the stream s is not in the newest sample"), "{error}");
}

#[test]
fn without_a_fresh_sample_there_is_no_value() {
    let empty = || stream("s", 0, present(group((0, 0), Some(0))));
    let check = |change: fn(&mut View), reason: &str| {
        let mut view = view(vec![empty()]);
        assert_eq!(scaler(Signal::Lag).demand(&view, DRAIN).unwrap().value, 0);
        change(&mut view);
        let error = scaler(Signal::Lag).demand(&view, DRAIN).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    };
    check(|view| view.newest_poll = None, "the first poll of Redis has not ended yet");
    check(|view| view.fresh = None, "the newest sample is too old");
    let failed = |view: &mut View| {
        view.newest_poll = Some(Err(SampleError { reason: FailureReason::Timeout, detail: "no answer".to_owned() }));
    };
    check(failed, "the newest poll of Redis failed: no answer");
}

#[test]
fn a_pattern_is_known_only_where_nothing_can_be_missing() {
    let check = |change: fn(&mut View), reason: Option<&str>| {
        let mut view = view(vec![stream("s:1", 0, present(group((0, 0), Some(0))))]);
        change(&mut view);
        match (over("s:*").demand(&view, DRAIN), reason) {
            (Ok(demand), None) => assert_eq!(demand.value, 0),
            (Err(error), Some(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            other => panic!("{other:?}"),
        }
    };
    fn fresh(view: &mut View) -> &mut Fresh {
        view.fresh.as_mut().unwrap()
    }
    check(|_| {}, None);
    check(|view| fresh(view).meta.search = None, Some("first search"));
    check(|view| fresh(view).meta.search = Some(Search { found: 1, completed: None }), Some("first search"));
    check(|view| fresh(view).meta.refused = vec![RefusedCommand::Scan], Some("refuses SCAN"));
    check(|view| fresh(view).is_share = true, Some("one shard"));
    check(|view| fresh(view).over.streams = 1, Some("1 are over limit.streams"));
    let down = |view: &mut View| {
        let error = Some("connection refused".to_owned());
        view.nodes = vec![NodeStatus { address: "h:1".to_owned(), streams: 0, error }].into();
    };
    check(down, Some("node h:1: connection refused"));
    // Nothing of it matters to a name.
    let mut named = view(vec![stream("s", 2, Presence::Missing)]);
    (fresh(&mut named).meta.search, fresh(&mut named).over.streams) = (None, 5);
    assert_eq!(scaler(Signal::Lag).demand(&named, DRAIN).unwrap().value, 2);
    // A pattern that means nothing yet.
    let none = over("x:*").demand(&view(vec![stream("s:1", 5, Presence::Missing)]), DRAIN).unwrap();
    assert_eq!((none.value, none.reason.contains("no stream matches the pattern")), (0, true), "{none:?}");
}

#[test]
fn several_streams_are_one_and_one_unknown_makes_all_unknown() {
    let some = || vec![stream("p:1", 50, present(group((3, 5), Some(2)))), stream("p:2", 7, Presence::Missing)];
    let sum = over("p:*").demand(&view(some()), DRAIN).unwrap();
    assert_eq!((sum.value, sum.lag, sum.pending), (14, Lag { min: 10, max: 12, point: 10 }, Some(2)));
    let with = |stream| view(some().into_iter().chain([stream]).collect());
    assert_eq!(over("p:*").demand(&with(unreadable("p:3", "no such key")), DRAIN).unwrap().value, 14);
    assert_eq!(over("p:*").demand(&with(unreadable("x", "NOPERM")), DRAIN).unwrap().value, 14);
    assert!(over("p:*").demand(&with(unreadable("p:3", "NOPERM")), DRAIN).is_err());
    // A group that may be among those left out.
    let left_out = StreamSnapshot { groups: Vec::new(), groups_left_out: 1, ..stream("p:3", 1, Presence::Missing) };
    assert!(over("p:*").demand(&with(left_out.clone()), DRAIN).is_err());
    let no_such_group = StreamSnapshot { groups_left_out: 0, ..left_out };
    assert_eq!(over("p:*").demand(&with(no_such_group), DRAIN).unwrap().value, 15);
    // Nothing wraps.
    let full = || stream("p:3", 1, present(group((u64::MAX, u64::MAX), Some(u64::MAX))));
    assert_eq!(over("p:*").demand(&with(full()), DRAIN).unwrap().value, u64::MAX);
}

#[test]
fn recommended_consumers_count_each_consumer_once() {
    let busy = |name: &str, delivered, members: Vec<ConsumerSnapshot>| {
        let mut group = PresentGroup { members: Some(members), ..group((600, 600), Some(0)) };
        group.trend.delivered_rate = Some(delivered);
        let mut stream = stream(name, 600, present(group));
        stream.read = Ok(facts(600, Some(20.0)));
        stream
    };
    let active = |names: &[&str]| names.iter().map(|name| member(name, Some(1), Some(true))).collect::<Vec<_>>();
    let demand = |streams| Scaler { signal: Signal::Consumers, ..over("p:*") }.demand(&view(streams), DRAIN).unwrap();
    // 40/s come and 1200 wait for a minute: 60/s. Two consumers that read both streams take 20/s together.
    let shared = demand(vec![busy("p:1", 10.0, active(&["a", "b"])), busy("p:2", 10.0, active(&["a", "b"]))]);
    assert_eq!((shared.value, shared.recommended), (6, Some(6)), "{shared:?}");
    // Four, of which each reads one.
    let own = demand(vec![busy("p:1", 10.0, active(&["a", "b"])), busy("p:2", 10.0, active(&["c", "d"]))]);
    assert_eq!(own.value, 12, "{own:?}");
    // Dead ones take nothing.
    let dead = [active(&["a", "b"]), vec![member("z", Some(5), Some(false))]].concat();
    let dead = demand(vec![busy("p:1", 10.0, dead), busy("p:2", 10.0, active(&["a", "b"]))]);
    assert_eq!((dead.value, dead.in_flight), (6, Some(4)), "{dead:?}");
    // Without rates of each stream nothing is recommended, and nobody is sent away.
    let unknown = demand(vec![busy("p:1", 10.0, active(&["a", "b", "c"])), stream("p:2", 1, Presence::Missing)]);
    assert_eq!((unknown.value, unknown.recommended), (3, None), "{unknown:?}");
    // Caught up, but entries come: somebody has to be there.
    let mut flowing = stream("p:1", 9, present(group((0, 0), Some(0))));
    flowing.read = Ok(facts(9, Some(5.0)));
    assert_eq!(demand(vec![flowing.clone()]).value, 1);
    flowing.read = Ok(facts(9, Some(0.0)));
    assert_eq!(demand(vec![flowing]).value, 0);
}

#[test]
fn what_consumers_were_measured_to_take_counts_for_each_that_is_active() {
    let measured = |name: &str, capacity, delivered, consumers: &[&str]| {
        let members = consumers.iter().map(|name| member(name, Some(0), Some(true))).collect();
        let mut group = PresentGroup { members: Some(members), ..group((600, 600), Some(0)) };
        (group.trend.capacity, group.trend.delivered_rate) = (Some(capacity), Some(delivered));
        StreamSnapshot { read: Ok(facts(600, Some(10.0))), ..stream(name, 600, present(group)) }
    };
    let streams = vec![measured("p:1", 4.0, 1.0, &["a", "b"]), measured("p:2", 7.0, 2.0, &["c"])];
    let demand = Scaler { signal: Signal::Consumers, ..over("p:*") }.demand(&view(streams), DRAIN).unwrap();
    // 20/s come and 1200 wait for a minute: 40/s. The three can take 15/s, and take 3/s of what there is.
    assert_eq!((demand.value, demand.recommended), (8, Some(8)), "{demand:?}");
}

#[test]
fn streams_that_are_given_twice_are_taken_in_once() {
    let streams = |names: &[&str], patterns: &[&str]| ScaledStreams {
        names: names.iter().map(|name| (*name).into()).collect(),
        patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
    };
    let mut all = ScaledStreams::named("a".into());
    all.add(&streams(&[], &["p:*"]));
    all.add(&streams(&["b", "a"], &["q:*", "p:*"]));
    assert_eq!(all, streams(&["a", "b"], &["p:*", "q:*"]));
}

#[test]
fn in_flight_is_what_living_consumers_hold() {
    let demand = |change: fn(&mut PresentGroup)| {
        let members =
            vec![member("a", Some(3), Some(true)), member("b", Some(2), None), member("c", Some(7), Some(false))];
        let mut group = PresentGroup { members: Some(members), ..group((1, 1), Some(12)) };
        change(&mut group);
        let demand = scaler(Signal::Work).demand(&view(vec![stream("s", 20, present(group))]), DRAIN).unwrap();
        assert_eq!((demand.value, demand.pending), (13, Some(12)));
        demand.in_flight
    };
    assert_eq!(demand(|_| {}), Some(5));
    assert_eq!(demand(|group| group.overflow = Some(Overflow { consumers: 1, pending: 0 })), None);
    assert_eq!(demand(|group| group.members = None), None);
    assert_eq!(demand(|group| group.members.as_mut().unwrap()[0].sample.pending = None), None);
}

#[test]
fn reasons_name_a_few_streams() {
    for (count, named) in [
        (1, "of p:000"),
        (3, "of p:000, p:001, p:002"),
        (4, "of p:000, p:001, p:002, 1 more"),
        (100, "of p:000, p:001, p:002, 97 more"),
    ] {
        let streams = (0..count).map(|n| stream(&format!("p:{n:03}"), 1, Presence::Missing)).collect();
        let demand = over("p:*").demand(&view(streams), DRAIN).unwrap();
        assert_eq!(demand.value, count);
        assert!(demand.reason.ends_with(named), "{}", demand.reason);
    }
}

#[test]
fn a_forecast_counts_with_what_is_pending_and_is_no_zero_over_work() {
    let ahead = |streams: Vec<StreamSnapshot>, forecasts: &[(&str, f64)]| {
        let forecasts = forecasts.iter().map(|(stream, lag)| ((*stream).into(), *lag)).collect();
        let scaler = Scaler { signal: Signal::Forecast, ..over("p:*") };
        scaler.demand_with(&view(streams), DRAIN, &forecasts).map(|demand| (demand.value, demand.reason))
    };
    let group = |lag, pending| present(group((lag, lag), pending));
    let one = |lag, pending| vec![stream("p:1", 50, group(lag, pending))];
    let (value, reason) = ahead(one(3, Some(4)), &[("p:1", 20.2)]).unwrap();
    assert_eq!(value, 25, "{reason}");
    assert_eq!(
        reason,
        "in 5m at most 21 entries are not delivered, with a probability of 0.9; now 3 entries are not delivered; 4 are pending"
    );
    // Below the work now, and never 0 over any.
    assert_eq!(ahead(one(100, Some(0)), &[("p:1", 7.0)]).unwrap().0, 7);
    assert_eq!(ahead(one(100, Some(0)), &[("p:1", 0.0)]).unwrap().0, 1);
    assert_eq!(ahead(one(0, Some(1)), &[("p:1", 0.0)]).unwrap().0, 1);
    assert_eq!(ahead(one(0, Some(0)), &[("p:1", 0.0)]).unwrap().0, 0);
    // What comes is worth a replica before it is there.
    assert_eq!(ahead(one(0, Some(0)), &[("p:1", 30.0)]).unwrap().0, 30);
    // What is not known now is not told by any forecast.
    assert!(ahead(one(3, None), &[("p:1", 20.0)]).is_err());
    assert!(ahead(vec![unreadable("p:1", "NOPERM")], &[("p:1", 20.0)]).is_err());
    // Streams without a forecast, and without the group.
    let several = vec![
        stream("p:1", 50, group(3, Some(0))),
        stream("p:2", 50, group(5, Some(2))),
        stream("p:3", 50, Presence::Missing),
    ];
    let (value, reason) = ahead(several, &[("p:1", 20.0), ("other", 1e9)]).unwrap();
    assert_eq!(value, 20 + 5 + 50 + 2, "{reason}");
    assert!(reason.contains("there is no forecast of p:2, so the lag now counts"), "{reason}");
    assert_eq!(ahead(one(3, Some(4)), &[("p:1", f64::INFINITY)]).unwrap().0, u64::MAX);
    // The other signals do not look at it.
    let forecasts = LagForecasts::from([("p:1".into(), 20.0)]);
    let work = over("p:*").demand_with(&view(one(3, Some(4))), DRAIN, &forecasts).unwrap();
    assert_eq!(work.value, 7);
}

#[test]
fn streams_with_most_lag_are_forecast_first() {
    let lag = |name, lag| stream(name, 50, present(group((lag, lag), Some(0))));
    let streams = vec![lag("p:1", 3), lag("p:2", 9), stream("p:3", 50, Presence::Missing), lag("p:4", 0), lag("q", 99)];
    let view = view(streams);
    let names: Vec<String> = over("p:*").present(&view).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["p:2", "p:1", "p:4"]);
}

#[test]
fn what_one_consumer_takes_is_of_all_streams_or_of_the_only_one() {
    let sum = |potential, capacities: &[f64]| Sum { potential, capacities: capacities.to_vec(), ..Sum::default() };
    assert_eq!(sum(5.0, &[3.0]).capacity(2), Some(2.5));
    assert_eq!(sum(5.0, &[3.0]).capacity(0), Some(3.0), "nobody is active: what was measured");
    assert_eq!(sum(5.0, &[3.0, 4.0]).capacity(0), None, "of which stream, is not known");
    assert_eq!(sum(0.0, &[3.0]).capacity(2), None, "they take nothing");
}

#[test]
fn a_word_says_which_signal_it_is() {
    let words = Signal::ALL.map(Signal::as_str);
    assert_eq!((words, words.map(Signal::parse)), (["lag", "work", "consumers", "forecast"], Signal::ALL.map(Some)));
}
