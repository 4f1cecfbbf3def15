use super::*;
use crate::analysis::incidents::tests::{down, view};
use crate::analysis::snapshot::Presence;
use crate::model::lag::Lag;

/// One group with this lag, and what is changed of it.
fn group(lag: u64, change: impl FnOnce(&mut PresentGroup)) -> View {
    let mut view = view(&[("s", Some(lag))]);
    let mut streams = view.streams.to_vec();
    let Presence::Present(group) = &mut streams[0].groups[0].presence else { panic!("the group is there") };
    change(group);
    view.streams = streams.into();
    view
}

fn in_state(state: GroupState) -> View {
    group(7, |group| group.trend.verdict.state = state)
}

fn losing(lost: u64) -> View {
    group(0, |group| group.trend.lost = lost)
}

/// A group that is far behind, and the seconds until it loses entries.
fn near(seconds: Option<f64>) -> View {
    group(500, |group| (group.trim_headroom_seconds, group.trim_headroom_entries) = (seconds, Some(10)))
}

/// The rules that hold, each with its value.
fn holding(recent: &mut RecentEvents, seconds: u64, view: &View) -> Vec<(&'static str, f64)> {
    let mut found = Vec::new();
    let at = Duration::from_secs(seconds);
    let mut note = |rule: usize, _, evidence: IncidentEvidence| found.push((CONDITIONS[rule].rule, evidence.value));
    Conditions { view, at, recent }.each(&mut note);
    found
}

fn at_once(view: &View) -> Vec<(&'static str, f64)> {
    holding(&mut RecentEvents::default(), 0, view)
}

#[test]
fn what_is_too_old_to_be_shown_holds_nothing_but_that_redis_is_down() {
    let streams = view(&[("s", Some(9000)), ("t", None)]);
    assert_eq!(at_once(&streams).len(), 3);
    assert_eq!(at_once(&down(streams)), [("StreamlagRedisDown", 0.0)]);
}

#[test]
fn each_state_holds_its_own_rule() {
    for (state, expected) in [
        (GroupState::Ok, None),
        (GroupState::Lagging, None),
        (GroupState::Stalled, Some(("EventConsumerGroupStalled", 7.0))),
        (GroupState::Stopped, Some(("EventConsumerGroupStopped", 7.0))),
        (GroupState::AckStalled, Some(("EventConsumerGroupAckStalled", 1.0))),
        (GroupState::Rewound, Some(("EventConsumerGroupRewound", 1.0))),
    ] {
        assert_eq!(at_once(&in_state(state)), Vec::from_iter(expected), "{state:?}");
    }
}

#[test]
fn a_pending_entry_is_old_where_it_is_five_minutes_older_than_undelivered_ones() {
    for (pending, undelivered, is_old) in [
        (None, None, false),
        (Some(300.0), None, false),
        (Some(300.5), None, true),
        (Some(301.0), Some(0.0), true),
        (Some(350.0), Some(50.0), false),
        (Some(351.0), Some(50.0), true),
        (Some(30.0), Some(50.0), false),
    ] {
        for state in [GroupState::Ok, GroupState::AckStalled] {
            let seen = group(7, |group| {
                group.trend.verdict.state = state;
                (group.oldest_pending_seconds, group.lag_seconds) = (pending, undelivered);
            });
            let expected = match pending {
                Some(pending) if is_old => vec![("EventConsumerPendingOld", pending)],
                _ if state == GroupState::AckStalled => vec![("EventConsumerGroupAckStalled", 1.0)],
                _ => vec![],
            };
            assert_eq!(at_once(&seen), expected, "{pending:?} {undelivered:?} {state:?}");
        }
    }
}

#[test]
fn loss_is_near_where_it_is_ten_minutes_off_and_trimming_certainly_reaches_what_is_undelivered() {
    let lag = |point, uncertainty| Lag { min: point, point, max: point + uncertainty };
    for (seconds, entries, lag, is_near) in [
        (Some(599.0), Some(10), lag(11, 0), true),
        (Some(600.0), Some(10), lag(11, 0), false),
        (None, Some(10), lag(11, 0), false),
        (Some(599.0), None, lag(11, 0), false),
        (Some(0.0), Some(10), lag(10, 0), false),
        (Some(0.0), Some(10), lag(5, 0), false),
        (Some(0.0), Some(10), lag(500, 0), true),
        (Some(0.0), Some(10), lag(500, 490), false),
        (Some(0.0), Some(10), lag(500, 489), true),
    ] {
        let seen = group(0, |group| {
            group.lag = lag;
            (group.trim_headroom_seconds, group.trim_headroom_entries) = (seconds, entries);
        });
        let expected = seconds.filter(|_| is_near).map(|seconds| ("EventConsumerLossNear", seconds));
        assert_eq!(at_once(&seen), Vec::from_iter(expected), "{seconds:?} {entries:?} {lag:?}");
    }
}

#[test]
fn loss_is_as_near_as_it_was_within_five_minutes() {
    let mut recent = RecentEvents::default();
    for (at, seconds, nearest) in [
        (0, Some(300.0), Some(300.0)),
        (10, Some(500.0), Some(300.0)),
        (20, Some(100.0), Some(100.0)),
        (30, None, Some(100.0)),
        (200, Some(100.0), Some(100.0)),
        (499, Some(599.0), Some(100.0)),
        (500, Some(599.0), Some(599.0)),
        (799, None, Some(599.0)),
        (800, Some(600.0), None),
        (1000, Some(100.0), Some(100.0)),
        (1100, Some(400.0), Some(100.0)),
        (1200, Some(300.0), Some(100.0)),
        (1299, None, Some(100.0)),
        (1300, None, Some(300.0)),
        (1499, None, Some(300.0)),
        (1500, None, None),
    ] {
        let expected = nearest.map(|nearest| ("EventConsumerLossNear", nearest));
        assert_eq!(holding(&mut recent, at, &near(seconds)), Vec::from_iter(expected), "{at}");
    }
}

#[test]
fn a_group_that_was_moved_back_is_told_for_five_minutes() {
    let mut recent = RecentEvents::default();
    let rewound = [("EventConsumerGroupRewound", 1.0)];
    assert_eq!(holding(&mut recent, 0, &in_state(GroupState::Ok)), []);
    assert_eq!(holding(&mut recent, 5, &in_state(GroupState::Rewound)), rewound);
    assert_eq!(holding(&mut recent, 10, &in_state(GroupState::Rewound)), rewound);
    assert_eq!(holding(&mut recent, 309, &in_state(GroupState::Ok)), rewound);
    assert_eq!(holding(&mut recent, 310, &in_state(GroupState::Ok)), []);
}

#[test]
fn losses_count_anew_where_the_count_does() {
    let losses = |lost| vec![("EventConsumerLosingEntries", lost)];
    let mut recent = RecentEvents::default();
    assert_eq!(holding(&mut recent, 0, &losing(40)), losses(40.0));
    assert_eq!(holding(&mut recent, 5, &view(&[])), []);
    assert_eq!(holding(&mut recent, 400, &losing(3)), losses(3.0), "the stream was away");
    assert_eq!(holding(&mut recent, 405, &losing(0)), losses(3.0), "the count began anew");
    assert_eq!(holding(&mut recent, 500, &losing(2)), losses(5.0));
    assert_eq!(holding(&mut recent, 510, &losing(1)), losses(6.0), "likewise");
    assert_eq!(holding(&mut recent, 699, &losing(0)), losses(6.0));
    assert_eq!(holding(&mut recent, 700, &losing(0)), losses(3.0));
    assert_eq!(holding(&mut recent, 810, &losing(0)), []);
}
