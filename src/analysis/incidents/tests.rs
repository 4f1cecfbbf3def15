use super::*;
use crate::analysis::assess::{Assessor, Bounds};
use crate::analysis::snapshot::StreamSnapshot;
use crate::analysis::snapshot::tests::WINDOWS;
use crate::model::lag::{Lag, Resolved};
use crate::model::sample::{
    GroupSample, NodeStatus, ReadError, SampleError, Search, StreamSample, TargetMeta, TargetSample,
};
use crate::model::{EntryId, FailureReason, GroupSelection};

/// What is seen of streams with one group and this lag; `None` where the stream cannot be read.
pub(crate) fn view(streams: &[(&str, Option<u64>)]) -> View {
    let stream = |(name, lag): &(&str, Option<u64>)| {
        let read = lag.map(|lag| {
            let group = GroupSample {
                name: "g".into(),
                resolved: Some(Resolved { lag: Lag { min: lag, point: lag, max: lag }, ..Resolved::default() }),
                last_delivered: EntryId { ms: 1, seq: 0 },
                ..GroupSample::default()
            };
            StreamSample { groups: vec![group], ..StreamSample::default() }
        });
        ((*name).into(), read.ok_or_else(|| ReadError::Server("WRONGTYPE".to_owned())))
    };
    let meta = TargetMeta::at(SystemTime::UNIX_EPOCH);
    let sample = TargetSample { meta, streams: streams.iter().map(stream).collect(), redis_time: Duration::ZERO };
    let keys = streams.iter().map(|(name, _)| (*name).into()).collect();
    let selection = GroupSelection::new(vec!["g".to_owned()]);
    View::from(Assessor::new(keys, selection, WINDOWS, Bounds::default()).assess(sample, Duration::ZERO))
}

/// The same while Redis does not answer.
pub(crate) fn down(mut view: View) -> View {
    view.failed(SampleError { reason: FailureReason::Timeout, detail: "late".to_owned() });
    view.fresh = None;
    view
}

fn now(seconds: u64) -> Now {
    let at = Duration::from_secs(seconds);
    Now { at, clock: SystemTime::UNIX_EPOCH + at }
}

/// Rule, status and subject of each.
fn told(incidents: &Incidents) -> Vec<(&str, &str, String)> {
    let subject = |incident: &Incident| match &incident.subject {
        IncidentSubject::Target => String::new(),
        IncidentSubject::Node(address) => address.to_string(),
        IncidentSubject::Stream(stream) => stream.to_string(),
        IncidentSubject::Group(stream, group) => format!("{stream} {group}"),
    };
    let tell =
        |incident: &'static Arc<Incident>| (incident.rule.name.as_str(), incident.status.as_str(), subject(incident));
    // For the tests alone: the texts live as long as they do.
    let all: &'static [Arc<Incident>] = Box::leak(incidents.all.to_vec().into_boxed_slice());
    all.iter().map(tell).collect()
}

fn high(status: &'static str) -> (&'static str, &'static str, String) {
    ("HighEventConsumerLag", status, "s g".to_owned())
}

#[test]
fn an_incident_is_pending_fires_after_the_rules_for_and_is_resolved() {
    let mut tracker = IncidentTracker::default();
    let mut at = |seconds, lag| tracker.update(now(seconds), &view(&[("s", Some(lag))]));
    assert_eq!(told(&at(0, 1000)), []);
    assert_eq!(told(&at(5, 1001)), [high("pending")]);
    assert_eq!(told(&at(304, 1002)), [high("pending")]);
    let fired = at(305, 2345);
    assert_eq!(told(&fired), [high("firing")]);
    let incident = &fired.all[0];
    assert_eq!(incident.active_since, now(5).clock);
    assert_eq!(incident.fired_at, Some(now(305).clock));
    let annotations = incident.annotations(&incident.labels());
    assert_eq!(annotations["description"], "2345 unprocessed entries");
    assert_eq!((annotations["lag"].as_str(), annotations["state"].as_str()), ("2345", "ok"));
    // It began with the first firing, and ends at once: the rule has no keep_firing_for.
    assert_eq!(at(310, 3000).all[0].fired_at, Some(now(305).clock));
    let ended = at(315, 1000);
    assert_eq!((told(&ended), ended.all[0].resolved_at), (vec![high("resolved")], Some(now(315).clock)));
    assert_eq!(told(&at(315 + 899, 0)), [high("resolved")]);
    assert_eq!(told(&at(315 + 900, 0)), []);
}

#[test]
fn a_condition_that_comes_and_goes_does_not_fire_and_one_that_fires_does_not_flap() {
    let mut tracker = IncidentTracker::default();
    for n in 0..60 {
        let lag = if n % 2 == 0 { 1001 } else { 0 };
        tracker.update(now(n * 60), &view(&[("s", Some(lag))]));
    }
    assert_eq!(told(&tracker.newest), []);

    // EventConsumerGroupMissing: for 3m, keep_firing_for 5m.
    let missing = |groups: &[&str]| {
        let mut view = view(&[("s", Some(0))]);
        let mut streams = view.streams.to_vec();
        streams[0].groups.retain_mut(|group| {
            if groups.is_empty() {
                group.presence = Presence::Missing;
            }
            true
        });
        view.streams = streams.into();
        view
    };
    let mut tracker = IncidentTracker::default();
    let firing = [("EventConsumerGroupMissing", "firing", "s g".to_owned())];
    tracker.update(now(0), &missing(&[]));
    assert_eq!(told(&tracker.update(now(180), &missing(&[]))), firing);
    assert_eq!(told(&tracker.update(now(200), &missing(&["g"]))), firing);
    assert_eq!(told(&tracker.update(now(499), &missing(&["g"]))), firing);
    // It is missing again, and the time begins anew.
    assert_eq!(told(&tracker.update(now(499), &missing(&[]))), firing);
    assert_eq!(told(&tracker.update(now(500), &missing(&["g"]))), firing);
    assert_eq!(told(&tracker.update(now(799), &missing(&["g"]))), firing);
    assert_eq!(told(&tracker.update(now(800), &missing(&["g"])))[0].1, "resolved");
}

#[test]
fn a_stream_that_a_search_has_not_found_yet_resolves_nothing() {
    let settings = IncidentSettings { hold: Some(Duration::ZERO), ..IncidentSettings::default() };
    let mut tracker = IncidentTracker::default();
    tracker.reconfigure(settings);
    let firing = [("HighEventConsumerLag", "firing", "s g".to_owned())];
    assert_eq!(told(&tracker.update(now(0), &view(&[("s", Some(1500))]))), firing);
    let searching = |streams: &[(&str, Option<u64>)], completed: Option<u64>| {
        let mut view = view(streams);
        let completed = completed.map(|at| (SystemTime::UNIX_EPOCH + Duration::from_secs(at), Duration::ZERO));
        view.fresh.as_mut().unwrap().meta.search = Some(Search { found: 0, completed });
        view
    };
    assert_eq!(told(&tracker.update(now(10), &searching(&[], None))), firing);
    assert_eq!(told(&tracker.update(now(20), &searching(&[("s", Some(1500))], None))), firing);
    // It was looked for everywhere, or is there and well.
    let mut other = IncidentTracker::default();
    other.reconfigure(IncidentSettings { hold: Some(Duration::ZERO), ..IncidentSettings::default() });
    other.update(now(0), &view(&[("s", Some(1500))]));
    assert_eq!(told(&other.update(now(30), &searching(&[("s", Some(0))], None)))[0].1, "resolved");
    assert_eq!(told(&tracker.update(now(30), &searching(&[], Some(25))))[0].1, "resolved");
}

#[test]
fn what_is_not_known_resolves_nothing() {
    let settings = IncidentSettings { hold: Some(Duration::ZERO), ..IncidentSettings::default() };
    let mut tracker = IncidentTracker::default();
    tracker.reconfigure(settings);
    let late = view(&[("s", Some(1500))]);
    assert_eq!(told(&tracker.update(now(0), &late)), [high("firing")]);
    let redis_down = ("StreamlagRedisDown", "firing", String::new());
    assert_eq!(told(&tracker.update(now(5), &down(late.clone()))), [redis_down.clone(), high("firing")]);
    assert_eq!(told(&tracker.update(now(5000), &down(late.clone()))), [redis_down.clone(), high("firing")]);
    // The stream cannot be read: that is an incident of its own, and the lag is unknown.
    let unreadable = view(&[("s", None)]);
    let stream = ("EventStreamUnreadable", "firing", "s".to_owned());
    assert_eq!(told(&tracker.update(now(5005), &unreadable)), [redis_down, stream.clone(), high("firing")]);
    // The stream is gone from the configuration: nobody asks for it any more.
    let mut gone = tracker.update(now(5010), &view(&[]));
    gone.all = gone.all.iter().filter(|incident| incident.rule.name == "HighEventConsumerLag").cloned().collect();
    assert_eq!(told(&gone), [high("resolved")]);
}

/// A tracker whose rules fire at once.
fn at_once() -> IncidentTracker {
    let mut tracker = IncidentTracker::default();
    tracker.reconfigure(IncidentSettings { hold: Some(Duration::ZERO), ..IncidentSettings::default() });
    tracker
}

#[test]
fn a_group_that_is_not_known_resolves_nothing() {
    let group_unknown = |stream: &mut StreamSnapshot| stream.groups[0].presence = Presence::Unknown;
    // Groups that only a pattern means are not listed where their stream cannot be read.
    let stream_unreadable = |stream: &mut StreamSnapshot| {
        stream.read = Err(ReadError::Server("WRONGTYPE".to_owned()));
        stream.groups.clear();
    };
    for change in [group_unknown, stream_unreadable] {
        let mut tracker = at_once();
        assert_eq!(told(&tracker.update(now(0), &view(&[("s", Some(1500))]))), [high("firing")]);
        let mut unknown = view(&[("s", Some(0))]);
        let mut streams = unknown.streams.to_vec();
        change(&mut streams[0]);
        unknown.streams = streams.into();
        assert!(told(&tracker.update(now(5000), &unknown)).contains(&high("firing")));
        assert!(told(&tracker.update(now(5005), &view(&[("s", Some(0))]))).contains(&high("resolved")));
    }
}

#[test]
fn a_node_that_is_down_stays_down_while_no_server_answers() {
    let nodes = |error: Option<&str>| {
        let error = error.map(ToOwned::to_owned);
        View { nodes: vec![NodeStatus { address: "a:1".to_owned(), streams: 0, error }].into(), ..view(&[]) }
    };
    let mut tracker = at_once();
    let mut at = |seconds, view: &View| {
        let incidents = tracker.update(now(seconds), view);
        let of_node = incidents.all.iter().find(|incident| incident.rule.name == "StreamlagRedisNodeDown").unwrap();
        (of_node.status, of_node.resolved_at)
    };
    let firing = (IncidentStatus::Firing, None);
    assert_eq!(at(0, &nodes(Some("refused"))), firing);
    assert_eq!(at(10, &down(nodes(Some("refused")))), firing);
    assert_eq!(at(5000, &down(nodes(Some("refused")))), firing);
    // Its rule has 5m of keep_firing_for.
    assert_eq!(at(6000, &nodes(None)), firing);
    assert_eq!(at(6300, &nodes(None)), (IncidentStatus::Resolved, Some(now(6300).clock)));
}

#[test]
fn what_is_over_comes_after_what_is_not() {
    let mut tracker = at_once();
    tracker.update(now(0), &view(&[("s", Some(1500)), ("t", Some(1500))]));
    let of = |status, stream: &str| ("HighEventConsumerLag", status, format!("{stream} g"));
    let after = tracker.update(now(5), &view(&[("s", Some(0)), ("t", Some(1500))]));
    assert_eq!(told(&after), [of("firing", "t"), of("resolved", "s")]);
}

/// Receivers look at a list again only where it is another.
#[test]
fn a_poll_that_changes_nothing_leaves_the_list_as_it_is() {
    let mut tracker = at_once();
    let mut at = |seconds, lag| tracker.update(now(seconds), &view(&[("s", Some(lag))])).all;
    let first = at(0, 1500);
    assert!(Arc::ptr_eq(&first, &at(5, 1500)));
    let changed = at(10, 1501);
    assert!(!Arc::ptr_eq(&first, &changed) && changed[0].evidence.value == 1501.0);
    assert!(Arc::ptr_eq(&changed, &at(15, 1501)));
}

#[test]
fn too_many_are_counted_and_the_worst_are_kept() {
    let mut tracker = IncidentTracker::default();
    let names: Vec<String> = (0..8000).map(|n| format!("s{n}")).collect();
    let streams: Vec<(&str, Option<u64>)> = names.iter().map(|name| (name.as_str(), Some(9000))).collect();
    let mut storm = view(&streams);
    let mut all = storm.streams.to_vec();
    for stream in &mut all {
        let Presence::Present(group) = &mut stream.groups[0].presence else { panic!("the group is there") };
        group.lag_seconds = Some(1e6);
    }
    storm.streams = all.into();
    // Two critical and two warnings each.
    let incidents = tracker.update(now(0), &storm);
    assert_eq!((incidents.all.len(), incidents.left_out), (MAX_INCIDENTS, 4 * 8000 - MAX_INCIDENTS as u64));
    let of = |name: &str| incidents.all.iter().filter(|incident| incident.rule.name == name).count();
    assert_eq!((of("CriticalEventConsumerLag"), of("CriticalEventConsumerLagSeconds")), (8000, 8000));
    assert_eq!((of("HighEventConsumerLag"), of("HighEventConsumerLagSeconds")), (4000, 0));
    assert_eq!(tracker.update(now(5), &storm).left_out, incidents.left_out);
}

#[test]
fn a_worse_incident_that_begins_later_takes_the_place_of_the_least_severe() {
    let mut tracker = IncidentTracker::default();
    // They fire at once, and so they stay while nothing is known.
    tracker.reconfigure(IncidentSettings { hold: Some(Duration::ZERO), ..IncidentSettings::default() });
    let names: Vec<String> = (0..MAX_INCIDENTS + 10).map(|n| format!("s{n}")).collect();
    let streams: Vec<(&str, Option<u64>)> = names.iter().map(|name| (name.as_str(), Some(1500))).collect();
    let mut storm = view(&streams);
    let of = |incidents: &Incidents, name: &str| incidents.all.iter().filter(|it| it.rule.name == name).count();
    let full = tracker.update(now(0), &storm);
    assert_eq!((of(&full, "HighEventConsumerLag"), full.left_out), (MAX_INCIDENTS, 10));
    assert_eq!(tracker.update(now(2), &view(&streams[..MAX_INCIDENTS + 5])).left_out, 5);
    let error = SampleError { reason: FailureReason::Connect, detail: "refused".to_owned() };
    storm.failed(error);
    storm.fresh = None;
    let down = tracker.update(now(5), &storm);
    assert_eq!((of(&down, "StreamlagRedisDown"), down.all.len()), (1, MAX_INCIDENTS));
    // While all goes on as it is, nothing takes turns.
    assert_eq!(of(&tracker.update(now(10), &storm), "StreamlagRedisDown"), 1);
}

#[test]
fn an_identity_is_derived_and_tells_everything_apart() {
    let incident = |target: &str, subject: IncidentSubject, rule: usize| Incident {
        rule: &rules()[rule],
        target: TargetName::new(target).unwrap(),
        several_targets: false,
        subject,
        status: IncidentStatus::Firing,
        active_since: SystemTime::UNIX_EPOCH,
        fired_at: None,
        resolved_at: None,
        evidence: IncidentEvidence::default(),
    };
    let group = |stream: &str, group: &str| IncidentSubject::Group(stream.into(), group.into());
    let ids: BTreeSet<String> = [
        incident("a", IncidentSubject::Target, 0),
        incident("b", IncidentSubject::Target, 0),
        incident("a", IncidentSubject::Target, 1),
        incident("a", IncidentSubject::Node("s".into()), 0),
        incident("a", IncidentSubject::Stream("s".into()), 0),
        incident("a", IncidentSubject::Stream("sg".into()), 0),
        incident("a", group("s", "g"), 0),
        incident("a", group("sg", ""), 0),
    ]
    .iter()
    .map(Incident::id)
    .collect();
    assert_eq!(ids.len(), 8);
    // It stays what it is from version to version: receivers remember it.
    assert_eq!(incident("a", group("s", "g"), 6).id(), "dfcf423acfb924e9463a18c46da051ac");
}

#[test]
fn every_text_is_expanded_whole() {
    for rule in rules() {
        let incident = Incident {
            rule,
            target: TargetName::default(),
            several_targets: true,
            subject: IncidentSubject::Group("orders".into(), "mail".into()),
            status: IncidentStatus::Firing,
            active_since: SystemTime::UNIX_EPOCH,
            fired_at: None,
            resolved_at: None,
            evidence: IncidentEvidence { value: 90.0, ..IncidentEvidence::default() },
        };
        let labels = incident.labels();
        assert_eq!(labels["redis_target"], "default");
        for (name, text) in incident.annotations(&labels) {
            assert!(!text.contains("{{") && !text.contains("}}"), "{} {name}: {text}", rule.name);
        }
    }
}

#[test]
fn losses_are_counted_over_five_minutes() {
    let mut tracker = IncidentTracker::default();
    let lost = |lost: u64| {
        let mut view = view(&[("s", Some(0))]);
        let mut streams = view.streams.to_vec();
        let Presence::Present(group) = &mut streams[0].groups[0].presence else { panic!("the group is there") };
        group.trend.lost = lost;
        view.streams = streams.into();
        view
    };
    let mut at = |seconds, entries| {
        let incidents = tracker.update(now(seconds), &lost(entries));
        incidents.all.first().map(|incident| (incident.evidence.value, incident.status.as_str()))
    };
    assert_eq!(at(0, 0), None);
    assert_eq!(at(10, 40), Some((40.0, "firing")));
    assert_eq!(at(15, 45), Some((45.0, "firing")));
    assert_eq!(at(200, 60), Some((60.0, "firing")));
    // Those of 10 and 15 s are past; what was lost since the loss at 200 s is not.
    assert_eq!(at(311, 60), Some((15.0, "firing")));
    // keep_firing_for.
    assert_eq!(at(500, 60), Some((15.0, "firing")));
    assert_eq!(at(799, 60), Some((15.0, "firing")));
    assert_eq!(at(800, 60), Some((15.0, "resolved")));
    assert_eq!(at(900, 61), Some((1.0, "firing")));
}

#[test]
fn a_restored_tracker_goes_on_as_the_one_before() {
    // By the clock, it is the second 10,000 when the new process begins.
    let later = |seconds| Now { at: Duration::from_secs(seconds), clock: now(10_000 + seconds).clock };
    let mut before = IncidentTracker::default();
    let late = view(&[("s", Some(1500)), ("t", Some(0))]);
    before.update(now(9000), &late);
    assert_eq!(told(&before.update(now(9300), &late)), [high("firing")]);
    let kept = before.update(now(9900), &view(&[("s", Some(1500)), ("t", Some(1500))]));
    let kept: Vec<Incident> = kept.all.iter().map(|incident| Incident::clone(incident)).collect();
    let of = |status, stream: &str| ("HighEventConsumerLag", status, format!("{stream} g"));

    let restored = || {
        let mut after = IncidentTracker::default();
        after.restore(later(0), kept.clone());
        after
    };
    // Nothing is known yet: what fired goes on, what was pending does not.
    let mut after = restored();
    assert_eq!(told(&after.update(later(1), &down(late.clone())))[1..], [of("firing", "s")]);
    assert_eq!(told(&after.update(later(2), &view(&[("s", Some(0)), ("t", Some(0))]))), [of("resolved", "s")]);
    // The time for which a pending one held counts.
    let mut after = restored();
    let both = view(&[("s", Some(1500)), ("t", Some(1500))]);
    assert_eq!(told(&after.update(later(1), &both)), [of("firing", "s"), of("pending", "t")]);
    let fired = after.update(later(200), &both);
    assert_eq!(told(&fired), [of("firing", "s"), of("firing", "t")]);
    let times: Vec<_> = fired.all.iter().map(|incident| (incident.active_since, incident.fired_at)).collect();
    let at = |seconds| now(seconds).clock;
    assert_eq!(times, [(at(9000), Some(at(9300))), (at(9900), Some(at(10_200)))]);
    // What is as it was is shown, too, and what is over is for as long as it would have been.
    let mut after = restored();
    let none = view(&[("s", Some(0)), ("t", Some(0))]);
    let over: Vec<Incident> =
        after.update(later(0), &none).all.iter().map(|incident| Incident::clone(incident)).collect();
    let mut after = IncidentTracker::default();
    after.restore(later(600), over.clone());
    assert_eq!(told(&after.update(later(600), &none)), [of("resolved", "s")]);
    assert_eq!(told(&after.update(later(900), &none)), []);
    // Those of another target are not taken over.
    let mut other = IncidentTracker::default();
    other.reconfigure(IncidentSettings { target: TargetName::new("b").unwrap(), ..IncidentSettings::default() });
    other.restore(later(0), over);
    assert_eq!(told(&other.update(later(0), &none)), []);
}

#[test]
fn a_pending_incident_that_is_restored_is_as_old_as_it_was() {
    const DAYS: u64 = 2 * 24 * 60 * 60;
    let hold = Some(Duration::from_secs(DAYS));
    let tracker = || {
        let mut tracker = IncidentTracker::default();
        tracker.reconfigure(IncidentSettings { hold, ..IncidentSettings::default() });
        tracker
    };
    let lagging = view(&[("s", Some(1500))]);
    let mut before = tracker();
    let kept = before.update(now(1000), &lagging);
    assert_eq!(told(&kept), [high("pending")]);
    let mut after = tracker();
    let later = |seconds| Now { at: Duration::from_secs(seconds), clock: now(1000 + DAYS - 1 + seconds).clock };
    after.restore(later(0), kept.all.iter().map(|incident| Incident::clone(incident)).collect());
    assert_eq!(told(&after.update(later(0), &lagging)), [high("pending")]);
    assert_eq!(told(&after.update(later(1), &lagging)), [high("firing")]);
}

#[test]
fn another_redis_of_a_target_begins_without_incidents_and_with_the_settings() {
    let target = TargetName::new("b").unwrap();
    let settings = IncidentSettings { target: target.clone(), several_targets: true, hold: Some(Duration::ZERO) };
    let mut tracker = IncidentTracker::default();
    tracker.reconfigure(settings);
    let lagging = view(&[("s", Some(1500))]);
    assert_eq!(told(&tracker.update(now(0), &lagging)), [high("firing")]);
    tracker.retarget();
    assert_eq!(told(&tracker.update(now(5), &view(&[("s", Some(0))]))), []);
    let found = tracker.update(now(10), &lagging);
    assert_eq!(told(&found), [high("firing")]);
    assert_eq!((&found.all[0].target, found.all[0].several_targets), (&target, true));
}

#[test]
fn other_settings_of_the_same_target_begin_nothing_anew() {
    let hold = |seconds| IncidentSettings { hold: Some(Duration::from_secs(seconds)), ..IncidentSettings::default() };
    let lagging = view(&[("s", Some(1500))]);
    let mut tracker = IncidentTracker::default();
    tracker.reconfigure(hold(100));
    assert_eq!(told(&tracker.update(now(0), &lagging)), [high("pending")]);
    tracker.reconfigure(hold(50));
    assert_eq!(told(&tracker.update(now(50), &lagging)), [high("firing")], "it has held since then");
}

#[test]
fn another_target_begins_without_incidents() {
    for (target, several_targets) in [("default", true), ("b", false), ("b", true)] {
        let mut tracker = at_once();
        assert_eq!(told(&tracker.update(now(0), &view(&[("s", Some(1500))]))), [high("firing")]);
        let target = TargetName::new(target).unwrap();
        tracker.reconfigure(IncidentSettings { target, several_targets, hold: Some(Duration::ZERO) });
        assert_eq!(told(&tracker.update(now(5), &view(&[("s", Some(0))]))), []);
    }
}

#[test]
fn a_lag_is_told_with_its_bounds_where_it_is_not_exact() {
    let mut incident = Incident::clone(&at_once().update(now(0), &view(&[("s", Some(1500))])).all[0]);
    for ((min, max), expected) in [((1500, 1500), "1500"), ((1200, 1900), "1500 (1200 to 1900)")] {
        incident.evidence.lag = Some(Lag { min, max, point: 1500 });
        assert_eq!(incident.annotations(&incident.labels())["lag"], expected);
    }
}
