use std::ops::Range;
use std::sync::Arc;

use super::*;
use crate::analysis::snapshot::tests::{present_group, stream_facts};
use crate::analysis::snapshot::{ConsumerSnapshot, GroupSnapshot, Presence, PresentGroup, StreamFacts, StreamSnapshot};
use crate::model::lag::Lag;
use crate::model::reply::ConsumerReply;
use crate::model::sample::ReadError;

fn rule(mode: RemediationMode, actions: &[Action]) -> RemediationRule {
    let dead_letter = DeadLetter { stream: "{s}:dead".into(), deliveries: 3, idle: Duration::from_secs(1) };
    RemediationRule {
        target: "*".to_owned(),
        stream: "s*".to_owned(),
        group: "*".to_owned(),
        mode,
        actions: actions.to_vec(),
        budget: Some(Budget { acts_per_hour: 5, entries_per_act: 10 }),
        dead_letter: Some(dead_letter),
        hook: None,
    }
}

fn planner(rule: RemediationRule) -> Planner {
    Planner::new(TargetName::new("default").unwrap(), Arc::new([rule]))
}

fn member(name: &str, pending: u64, idle_ms: u64, active: Option<bool>) -> ConsumerSnapshot {
    let sample = ConsumerReply { name: name.into(), pending: Some(pending), idle_ms: Some(idle_ms), inactive_ms: None };
    ConsumerSnapshot { sample, active, oldest_pending_seconds: None, health: 0 }
}

fn group(members: Vec<ConsumerSnapshot>) -> PresentGroup {
    PresentGroup {
        consumers: Some(members.len() as u64),
        pending: members.iter().map(|member| member.sample.pending).sum(),
        last_delivered: Some(EntryId { ms: 9, seq: 0 }),
        members: Some(members),
        ..present_group(Lag { min: 5, max: 5, point: 5 })
    }
}

fn poisoned(deliveries: u64, owner: &str) -> PresentGroup {
    let oldest = Some((EntryId { ms: 5, seq: 0 }, Some(owner.into())));
    PresentGroup { oldest_pending: oldest, oldest_pending_deliveries: Some(deliveries), ..group(Vec::new()) }
}

fn stream(now_ms: u64, group: PresentGroup) -> Vec<StreamSnapshot> {
    let facts = StreamFacts {
        length: 9,
        groups: 1,
        first: Some(EntryId { ms: 1, seq: 0 }),
        last: Some(EntryId { ms: 20, seq: 0 }),
        now_ms,
        ..stream_facts()
    };
    let groups = vec![GroupSnapshot { name: "g".into(), presence: Presence::Present(Box::new(group)) }];
    vec![StreamSnapshot { key: "s".into(), read: Ok(facts), groups, groups_left_out: 0 }]
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Shows samples, a second apart; the actions that are planned after each, and how many plans ended.
fn plans(planner: &mut Planner, samples: Vec<PresentGroup>) -> Vec<(Vec<Action>, usize)> {
    let show = |(second, group)| {
        let ended = planner.look(&stream(second * 1000, group), at(second));
        (planner.plans().map(|plan| plan.action).collect(), ended.len())
    };
    (100..).zip(samples).map(show).collect()
}

fn dead(idle_ms: u64, pending: u64) -> PresentGroup {
    group(vec![member("gone", pending, idle_ms, Some(false)), member("here", 1, 10, Some(true))])
}

#[test]
fn death_takes_two_sightings_and_never_time_alone() {
    let may = [Action::DeleteIdleConsumers, Action::Release];
    let mut planner = planner(rule(RemediationMode::Plan, &may));
    let quiet = |idle| group(vec![member("gone", 0, idle, None), member("here", 1, 10, Some(true))]);
    let seen = plans(
        &mut planner,
        vec![
            quiet(10_000_000),
            quiet(10_001_000),
            dead(10_002_000, 0),
            // Not looked at again.
            dead(10_002_000, 0),
            dead(10_004_000, 0),
            dead(10_005_000, 0),
            // It read something.
            dead(70_000, 0),
            dead(71_000, 0),
        ],
    );
    let none = || (vec![], 0);
    let there = || (vec![Action::DeleteIdleConsumers], 0);
    assert_eq!(seen, [none(), none(), none(), none(), there(), there(), (vec![], 1), there()]);
}

/// After a failover, or where Redis was restarted, it may have read a moment ago.
#[test]
fn idle_times_of_a_server_that_was_not_watched_for_as_long_are_no_death() {
    let mut planner =
        planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers, Action::Release, Action::Hook]));
    let mut look = |second: u64, pending, holds| {
        let mut streams = stream(second * 1000, dead(60_000 + second * 1000, pending));
        streams[0].read.as_mut().unwrap().idle_times_hold = holds;
        let ended = planner.look(&streams, at(second)).len();
        (planner.plans().count(), ended)
    };
    let seen = [look(100, 0, false), look(101, 0, false), look(102, 0, true), look(103, 0, true), look(104, 0, false)];
    assert_eq!(seen, [(0, 0), (0, 0), (0, 0), (1, 0), (0, 1)]);
    let seen = [look(105, 2, false), look(106, 2, false), look(107, 2, true), look(108, 2, true), look(109, 2, false)];
    assert_eq!(seen, [(0, 0), (0, 0), (0, 0), (2, 0), (0, 2)]);
}

#[test]
fn a_word_says_which_action_or_mode_it_is() {
    let actions = Action::ALL.map(Action::as_str);
    assert_eq!(actions, ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter", "hook"]);
    assert_eq!(actions.map(Action::parse), Action::ALL.map(Some));
    let modes = RemediationMode::ALL.map(RemediationMode::as_str);
    assert_eq!(
        (modes, modes.map(RemediationMode::parse)),
        (["off", "plan", "approve", "auto"], RemediationMode::ALL.map(Some))
    );
    assert_eq!((Action::parse("Release"), RemediationMode::parse("")), (None, None));
}

#[test]
fn two_sightings_of_two_deaths_are_one_of_each() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    let look = |planner: &mut Planner, second: u64, idle_ms: u64| {
        let ended = planner.look(&stream(second * 1000, dead(idle_ms, 0)), at(second)).len();
        (planner.plans().count(), ended)
    };
    assert_eq!(look(&mut planner, 100, 60_000), (0, 0));
    // Nothing was seen for 80 s, in which it came back for a moment.
    assert_eq!(look(&mut planner, 180, 70_000), (0, 0));
    assert_eq!(look(&mut planner, 181, 71_000), (1, 0));
    // The same under a plan.
    assert_eq!(look(&mut planner, 300, 72_000), (0, 1));
    assert_eq!(look(&mut planner, 301, 73_000), (1, 0));
    // Clocks may be read late.
    assert_eq!(look(&mut planner, 330, 75_000), (1, 0));
}

#[test]
fn a_change_of_the_rules_forgets_neither_rejections_nor_the_cooldown() {
    let may = [Action::DeleteIdleConsumers];
    let mut planner = planner(rule(RemediationMode::Auto, &may));
    let many = |idle| group((0..12).map(|n| member(&format!("c{n:02}"), 0, idle, Some(false))).collect());
    plans(&mut planner, vec![many(60_000), many(61_000)]);
    let rejected = planner.plans().next().unwrap().clone();
    planner.reject(&rejected, at(102));
    let stays: Vec<String> = planner.plans().map(|plan| plan.id.clone()).collect();
    assert_eq!(stays.len(), 11);
    // Another rule before it, for another group.
    let other = RemediationRule { group: "other".to_owned(), ..rule(RemediationMode::Off, &may) };
    let same = RemediationRule { hook: Some(7), ..rule(RemediationMode::Auto, &may) };
    assert_eq!(planner.reconfigure(Arc::new([other, same]), |_| true), []);
    assert_eq!(planner.plans().map(|plan| (plan.id.clone(), plan.hook)).collect::<Vec<_>>(), {
        stays.iter().map(|id| (id.clone(), Some(7))).collect::<Vec<_>>()
    });
    // Its own rule: the plans end, and are made again at once as what they rest on is known. What was rejected stays so.
    let ended = planner.reconfigure(Arc::new([rule(RemediationMode::Approve, &may)]), |_| true);
    assert_eq!((ended.len(), planner.plans().count()), (11, 0));
    assert_eq!(planner.storm_until(at(103)), Some(at(701)));
    planner.look(&stream(103_000, many(63_000)), at(103));
    assert_eq!(planner.plans().count(), 11);
    assert!(planner.plans().all(|plan| plan.mode == RemediationMode::Approve && plan.subject != rejected.subject));
    // Where it is another Redis, everything is to be seen anew.
    let ended = planner.reconfigure(Arc::new([rule(RemediationMode::Approve, &may)]), |_| false);
    planner.forget_groups();
    planner.look(&stream(104_000, many(64_000)), at(104));
    assert_eq!((ended.len(), planner.plans().count()), (11, 0));
}

#[test]
fn what_a_dead_consumer_holds_goes_to_the_living_one_that_holds_least() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers, Action::Release]));
    let with = |idle| {
        let members = vec![
            member("a", 7, 10, Some(true)),
            member("b", 2, 10, Some(true)),
            member("gone", 4, idle, Some(false)),
            member("quiet", 0, 10, None),
        ];
        group(members)
    };
    let seen = plans(&mut planner, vec![with(60_000), with(61_000)]);
    assert_eq!(seen[1].0, [Action::Release]);
    let plan = planner.plans().next().unwrap().clone();
    let to = Some("b".into());
    assert_eq!(plan.subject, PlanSubject::Consumer { name: "gone".into(), pending: 4, idle_ms: 61_000, to });
    assert_eq!((plan.evidence.consumers, plan.is_group_healthy()), (Some((4, 2)), false));
    assert_eq!(plan.expires, plan.made_at + PLAN_LIFETIME);
    assert_eq!(planner.look(&stream(1, with(62_000)), plan.expires), [Ended { plan, expired: true }]);
}

#[test]
fn a_group_whose_applications_claim_is_left_to_them() {
    let release = || planner(rule(RemediationMode::Plan, &[Action::Release]));
    // A dead consumer that holds less.
    let seen = plans(&mut release(), vec![dead(60_000, 5), dead(61_000, 4), dead(62_000, 4), dead(63_000, 4)]);
    assert!(seen.iter().all(|(plans, _)| plans.is_empty()), "{seen:?}");
    let oldest = |idle, owner: &str, deliveries| PresentGroup {
        oldest_pending: Some((EntryId { ms: 5, seq: 0 }, Some(owner.into()))),
        oldest_pending_deliveries: Some(deliveries),
        ..dead(idle, 5)
    };
    for (owner, deliveries) in [("here", 1), ("gone", 2)] {
        let samples = vec![
            oldest(60_000, "gone", 1),
            oldest(61_000, owner, deliveries),
            oldest(62_000, owner, deliveries),
            oldest(63_000, owner, deliveries),
        ];
        let seen = plans(&mut release(), samples);
        assert!(seen.iter().all(|(plans, _)| plans.is_empty()), "{seen:?}");
    }
    // Its idle time did not grow: whether it did something itself is not known.
    let seen = plans(&mut release(), vec![dead(60_000, 5), dead(60_000, 4), dead(61_000, 4), dead(62_000, 4)]);
    assert_eq!(seen[3].0, [Action::Release]);
    let seen = plans(&mut release(), vec![oldest(60_000, "gone", 1), oldest(61_000, "gone", 1)]);
    assert_eq!(seen[1].0, [Action::Release]);
}

#[test]
fn ghosts_and_poison_and_a_group_that_is_stuck() {
    let ghosts = |count| PresentGroup { ghost_pending: Some(count), ..group(Vec::new()) };
    let mut drop = planner(rule(RemediationMode::Plan, &[Action::DropGhosts]));
    let seen = plans(&mut drop, vec![ghosts(0), ghosts(3), ghosts(3), ghosts(5), ghosts(2)]);
    let planned: Vec<usize> = seen.iter().map(|(plans, _)| plans.len()).collect();
    assert_eq!((planned, seen[4].1), (vec![0, 0, 1, 1, 0], 1));
    // What scripts have met counts as well, until it is dropped or turns out to be gone.
    let seen = |before: &[(Action, u64, u64)], pending| {
        let mut planner = planner(rule(RemediationMode::Plan, &[Action::DropGhosts]));
        let mut samples = vec![PresentGroup { pending: Some(pending), ..group(Vec::new()) }; 2];
        samples.iter_mut().for_each(|group| group.ghost_pending = Some(0));
        plans(&mut planner, vec![ghosts(1), ghosts(1)]);
        let plan = planner.plans().next().unwrap().clone();
        planner.acted(&plan, false, at(150));
        for (action, seen, changed) in before {
            planner.met_ghosts(&Plan { action: *action, ..plan.clone() }, *seen, *changed);
        }
        planner.look(&stream(200_000, samples.remove(0)), at(200));
        planner.look(&stream(201_000, samples.remove(0)), at(201));
        planner.plans().map(|plan| plan.subject.clone()).next()
    };
    let count = |count| Some(PlanSubject::Ghosts { count });
    assert_eq!(seen(&[], 9), None);
    assert_eq!(seen(&[(Action::DeadLetter, 1, 0)], 9), count(1));
    assert_eq!(seen(&[(Action::Release, 7, 2), (Action::DeadLetter, 1, 0)], 9), count(7));
    assert_eq!(seen(&[(Action::Release, 7, 2)], 5), count(5), "no more than are pending");
    assert_eq!(seen(&[(Action::Release, 7, 2), (Action::DropGhosts, 0, 3)], 9), count(4));
    assert_eq!(seen(&[(Action::Release, 7, 2), (Action::DropGhosts, 0, 0)], 9), None);
    let mut letters = planner(rule(RemediationMode::Plan, &[Action::DeadLetter]));
    let samples = vec![poisoned(2, "a"), poisoned(3, "a"), poisoned(3, "a"), poisoned(4, "a"), poisoned(4, "b")];
    let planned: Vec<usize> = plans(&mut letters, samples).iter().map(|(plans, _)| plans.len()).collect();
    assert_eq!(planned, [0, 0, 1, 0, 0]);
    let stuck = |state| {
        let mut group = group(Vec::new());
        group.trend.verdict.state = state;
        group
    };
    let mut hook = planner(rule(RemediationMode::Plan, &[Action::Hook]));
    let samples = vec![stuck(GroupState::Stopped), stuck(GroupState::Stopped), stuck(GroupState::Ok)];
    let planned: Vec<usize> = plans(&mut hook, samples).iter().map(|(plans, _)| plans.len()).collect();
    assert_eq!(planned, [0, 1, 0]);
}

#[test]
fn a_stream_that_cannot_be_read_ends_no_plan_and_one_that_is_gone_does() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    plans(&mut planner, vec![dead(60_000, 0), dead(61_000, 0)]);
    let unknown = vec![GroupSnapshot { name: "g".into(), presence: Presence::Unknown }];
    let read = Err(ReadError::of_server("LOADING"));
    let unreadable = vec![StreamSnapshot { key: "s".into(), read, groups: unknown, groups_left_out: 0 }];
    assert_eq!(planner.look(&unreadable, at(103)), []);
    assert_eq!(planner.plans().count(), 1);
    assert_eq!(planner.look(&[], at(104)).len(), 1);
}

#[test]
fn a_cursor_that_moves_back_is_another_group() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    let back = PresentGroup { last_delivered: Some(EntryId { ms: 8, seq: 0 }), ..dead(62_000, 0) };
    let seen = plans(&mut planner, vec![dead(60_000, 0), back, dead(63_000, 0)]);
    assert_eq!(seen.iter().map(|(plans, _)| plans.len()).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn off_plans_nothing_and_a_rejected_plan_is_not_made_again_for_an_hour() {
    let may = [Action::DeleteIdleConsumers];
    assert_eq!(plans(&mut planner(rule(RemediationMode::Off, &may)), vec![dead(60_000, 0), dead(61_000, 0)])[1].0, []);
    let mut planner = planner(rule(RemediationMode::Approve, &may));
    plans(&mut planner, vec![dead(60_000, 0), dead(61_000, 0)]);
    let plan = planner.plans().next().unwrap().clone();
    planner.reject(&plan, at(102));
    planner.look(&stream(103_000, dead(63_000, 0)), at(103));
    assert_eq!(planner.plans().count(), 0);
    planner.look(&stream(104_000, dead(64_000, 0)), at(103 + 3600));
    assert_eq!(planner.plans().count(), 1);
    assert_ne!(planner.plans().next().unwrap().id, plan.id);
}

#[test]
fn many_new_plans_at_once_are_a_storm() {
    let mut planner = planner(rule(RemediationMode::Auto, &[Action::DeleteIdleConsumers]));
    let many = |idle| group((0..11).map(|n| member(&format!("c{n}"), 0, idle, Some(false))).collect());
    plans(&mut planner, vec![many(60_000)]);
    assert_eq!(planner.storm_until(at(101)), None);
    planner.look(&stream(101_000, many(61_000)), at(101));
    assert_eq!(planner.plans().count(), 11);
    assert_eq!(planner.storm_until(at(102)), Some(at(701)));
    assert_eq!(planner.storm_until(at(701)), None);
}

#[test]
fn most_of_a_group_must_be_healthy() {
    for (healthy, expected) in [(0, false), (50, false), (51, true), (100, true)] {
        let members = (0..100).map(|n| member(&format!("c{n:02}"), 0, 60_000, Some(n < healthy)));
        let mut members: Vec<_> = members.collect();
        members.push(member("d", 0, 60_000, Some(false)));
        if healthy == 51 {
            members.truncate(100);
        }
        let mut planner = planner(rule(RemediationMode::Auto, &[Action::Hook]));
        let shown = || {
            let mut group = group(members.clone());
            group.trend.verdict.state = GroupState::Stalled;
            group
        };
        plans(&mut planner, vec![shown(), shown()]);
        let plan = planner.plans().next().unwrap();
        assert_eq!(plan.is_group_healthy(), expected, "{healthy}");
    }
}

#[test]
fn a_group_without_consumers_is_not_healthy() {
    let mut planner = planner(rule(RemediationMode::Auto, &[Action::Hook]));
    let shown = || {
        let mut group = group(Vec::new());
        group.trend.verdict.state = GroupState::Stopped;
        group
    };
    plans(&mut planner, vec![shown(), shown()]);
    let plan = planner.plans().next().unwrap();
    assert_eq!((plan.evidence.consumers, plan.is_group_healthy()), (Some((0, 0)), false));
}

#[test]
fn a_rule_is_for_its_target_its_streams_and_its_groups_alone() {
    let [target, stream, group] = ["eu-*", "orders:*", "mail"].map(ToOwned::to_owned);
    let rule = RemediationRule { target, stream, group, ..rule(RemediationMode::Plan, &[]) };
    for (target, stream, group, expected) in [
        ("eu-1", "orders:1", "mail", true),
        ("us-1", "orders:1", "mail", false),
        ("eu-1", "invoices", "mail", false),
        ("eu-1", "orders:1", "audit", false),
    ] {
        let matches = rule.matches(&TargetName::new(target).unwrap(), &stream.into(), &group.into());
        assert_eq!(matches, expected, "{target} {stream} {group}");
    }
}

#[test]
fn an_act_touches_no_more_entries_than_its_rule_allows() {
    let budget = |entries_per_act| Some(Budget { acts_per_hour: 5, entries_per_act });
    for (budget, expected) in [(budget(10), 10), (budget(5000), 5000), (None, DEFAULT_ENTRIES)] {
        let rule = RemediationRule { budget, ..rule(RemediationMode::Approve, &[Action::DeleteIdleConsumers]) };
        assert_eq!(rule.entries(), expected);
        let mut planner = planner(rule);
        plans(&mut planner, vec![dead(60_000, 0), dead(61_000, 0)]);
        assert_eq!(planner.plans().next().unwrap().entries, expected);
    }
}

/// Shows a dead consumer that holds three entries; what is planned.
fn look(planner: &mut Planner, second: u64) -> Option<Plan> {
    planner.look(&stream(second * 1000, dead(100_000 + second, 3)), at(second));
    planner.plans().next().cloned()
}

#[test]
fn a_webhook_that_was_called_is_not_called_again_until_it_can_have_helped() {
    let mut planner = planner(rule(RemediationMode::Auto, &[Action::Hook]));
    look(&mut planner, 100);
    let plan = look(&mut planner, 101).unwrap();
    planner.acted(&plan, true, at(102));
    assert!((103..1002).step_by(5).all(|second| look(&mut planner, second).is_none()));
    assert_eq!(look(&mut planner, 1002).unwrap().action, Action::Hook);
}

/// A dead consumer may hold nothing but entries without payload, which no sample tells of it.
#[test]
fn what_was_refused_is_not_asked_for_again_at_once() {
    let mut planner = planner(rule(RemediationMode::Auto, &[Action::Release]));
    look(&mut planner, 100);
    let plan = look(&mut planner, 101).unwrap();
    planner.acted(&plan, false, at(102));
    planner.refused(&plan, at(102));
    assert!((103..162).all(|second| look(&mut planner, second).is_none()));
    assert_eq!(look(&mut planner, 162).unwrap().action, Action::Release);
}

/// Such as a consumer that holds nothing but entries without payload: each refusal costs a record, a line and a place in the budget.
#[test]
fn what_is_refused_again_and_again_is_asked_for_ever_more_rarely() {
    let mut planner = planner(rule(RemediationMode::Auto, &[Action::Release]));
    let mut plans = Vec::new();
    for second in 100..18_500 {
        if let Some(plan) = look(&mut planner, second) {
            planner.acted(&plan, false, at(second));
            planner.refused(&plan, at(second));
            plans.push(second);
        }
    }
    let apart: Vec<u64> = plans.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(apart, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600], "{plans:?}");
    // Once it has been done, the next refusal is a first one.
    let plan = (18_500..30_000).find_map(|second| look(&mut planner, second)).unwrap();
    planner.acted(&plan, true, at(30_000));
    planner.refused(&plan, at(30_000));
    assert!((30_001..30_060).all(|second| look(&mut planner, second).is_none()));
    assert!((30_060..30_064).any(|second| look(&mut planner, second).is_some()));
}

#[test]
fn acts_that_move_no_entry_hide_no_claim() {
    let claims_after = |action: Action, may_have_changed: bool| {
        let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers, Action::Release]));
        let two = |pending: u64, second: u64| {
            let gone = member("gone", 0, 100_000 + second, Some(false));
            let held = member("held", pending, 100_000 + second, Some(false));
            group(vec![gone, held, member("here", 1, 10, Some(true))])
        };
        for second in 100..102 {
            planner.look(&stream(second * 1000, two(5, second)), at(second));
        }
        let plan = planner.plans().find(|plan| plan.action == action).unwrap().clone();
        planner.acted(&plan, may_have_changed, at(102));
        // Somebody takes one of those of the other consumer.
        for (second, pending) in [(103, 4), (104, 4), (105, 4), (106, 4)] {
            planner.look(&stream(second * 1000, two(pending, second)), at(second));
        }
        !planner.plans().any(|plan| plan.action == Action::Release)
    };
    assert!(claims_after(Action::DeleteIdleConsumers, true));
    assert!(claims_after(Action::Release, false), "it was refused");
    assert!(!claims_after(Action::Release, true), "it may have been our own act");
}

#[test]
fn a_plan_says_what_it_would_do_and_why_and_what_it_changes_and_leaves() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    plans(&mut planner, vec![dead(60_000, 0), dead(61_000, 0)]);
    let plan = planner.plans().next().unwrap().clone();
    let consumer = |pending, to| PlanSubject::Consumer { name: "gone".into(), pending, idle_ms: 61_999, to };
    let cases = [
        (
            consumer(0, None),
            [
                "delete consumer gone of group g of s",
                "gone did nothing for 61 s though there was something to do, holds 0 entries, and was seen so twice",
                "the list of consumers",
                "entries, cursor, pending entries; a consumer that comes back is made again by its next read",
            ],
        ),
        (
            consumer(4, Some("here".into())),
            [
                "hand 4 of gone's 4 pending entries in group g of s to here, with their idle time and deliveries",
                "gone did nothing for 61 s though there was something to do, holds 4 entries, and was seen so twice",
                "who holds the entries",
                "entries, cursor, idle times, numbers of deliveries",
            ],
        ),
        (
            PlanSubject::Ghosts { count: 3 },
            [
                "acknowledge 3 pending entries of group g of s whose payload is gone",
                "3 pending entries or more are not in the stream any more: nobody can process them",
                "the list of pending entries",
                "entries, cursor, pending entries with a payload",
            ],
        ),
        (
            PlanSubject::Entry { id: EntryId { ms: 5, seq: 1 }, owner: "here".into(), deliveries: 7 },
            [
                "copy entry 5-1 of s to {s}:dead and acknowledge it in group g",
                "5-1 was delivered 7 times, last to here, and not acknowledged",
                "the list of pending entries; the other stream gets one entry",
                "the entry in its own stream, the cursor, other groups",
            ],
        ),
        (
            PlanSubject::Group { state: GroupState::Stalled, dead: 2 },
            [
                "call the webhook for group g of s",
                "the group is stalled; dead consumers that hold entries: 2",
                "nothing in Redis",
                "everything in Redis",
            ],
        ),
    ];
    for (subject, expected) in cases {
        let plan = Plan { subject, ..plan.clone() };
        assert_eq!([&*plan.what(), &*plan.why(), plan.changes(), plan.keeps()], expected);
    }
    // No more than the budget allows.
    let what = |subject| Plan { subject, ..plan.clone() }.what();
    assert!(what(consumer(11, Some("here".into()))).starts_with("hand 10 of gone's 11 pending entries"));
    assert!(what(PlanSubject::Ghosts { count: 11 }).starts_with("acknowledge 10 pending entries"));
}

/// These consumers, all dead; each has been idle since the server's clock began.
fn all_dead(consumers: Range<u32>, second: u64) -> Vec<StreamSnapshot> {
    let members = consumers.map(|n| member(&format!("c{n:04}"), 0, second * 1000, Some(false)));
    stream(second * 1000, group(members.collect()))
}

fn planned(planner: &Planner) -> Vec<Plan> {
    planner.plans().cloned().collect()
}

#[test]
fn a_plan_is_found_by_its_id_alone() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    planner.look(&all_dead(0..2, 100), at(100));
    planner.look(&all_dead(0..2, 101), at(101));
    assert_eq!(planned(&planner).len(), 2);
    for plan in planned(&planner) {
        assert_eq!(planner.find(&plan.id), Some(&plan));
    }
    assert_eq!(planner.find(""), None);
}

#[test]
fn a_thousand_rejections_are_remembered_and_more_once_those_are_over() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    planner.look(&all_dead(0..1001, 100), at(100));
    planner.look(&all_dead(0..1001, 101), at(101));
    let rejected = planned(&planner);
    assert_eq!(rejected.len(), 1000);
    rejected.iter().for_each(|plan| planner.reject(plan, at(102)));
    planner.look(&all_dead(0..1001, 103), at(103));
    let [last] = &planned(&planner)[..] else { panic!("{}", planned(&planner).len()) };
    planner.reject(last, at(104));
    planner.look(&all_dead(0..1001, 105), at(105));
    assert_eq!(planned(&planner).iter().map(|plan| plan.subject.key()).collect::<Vec<_>>(), ["c1000"]);
    planner.reject(last, at(102 + 3600));
    planner.look(&all_dead(1000..1001, 3703), at(3703));
    assert_eq!(planned(&planner), []);
}

#[test]
fn refusals_are_remembered_for_an_hour_beyond_the_pause() {
    for (second, pause) in [(161, 120), (3759, 120), (3760, 60)] {
        let mut planner = planner(rule(RemediationMode::Auto, &[Action::Release]));
        look(&mut planner, 99);
        let plan = look(&mut planner, 100).unwrap();
        planner.acted(&plan, false, at(100));
        planner.refused(&plan, at(100));
        planner.reject(&Plan { group: "other".into(), ..plan.clone() }, at(second));
        planner.refused(&plan, at(second));
        let next = (second + 1..second + 200).find(|second| look(&mut planner, *second).is_some());
        assert_eq!(next, Some(second + pause), "{second}");
    }
}

#[test]
fn more_than_ten_new_plans_within_a_minute_are_a_storm() {
    for (then, now, seconds, expected) in [(6, 5, 60, true), (6, 5, 61, false), (6, 4, 60, false), (0, 10, 60, false)] {
        let mut planner = planner(rule(RemediationMode::Auto, &[Action::DeleteIdleConsumers]));
        let end = 101 + seconds;
        for (second, dead) in [(100, then), (101, then), (end - 1, then + now), (end, then + now)] {
            planner.look(&all_dead(0..dead, second), at(second));
        }
        assert_eq!(planner.plans().count(), then as usize + now as usize);
        assert_eq!(planner.storm_until(at(end)).is_some(), expected, "{then} {now} {seconds}");
    }
}

#[test]
fn nothing_is_planned_where_the_name_is_not_known_whole() {
    let long = "s".repeat(5000);
    for (stream, group, expected) in [("s", "g", 1), (&*long, "g", 0), ("s", &*long, 0)] {
        let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
        for second in 100..102 {
            let mut streams = all_dead(0..1, second);
            streams[0].key = stream.into();
            streams[0].groups[0].name = group.into();
            planner.look(&streams, at(second));
        }
        assert_eq!(planner.plans().count(), expected, "{} {}", stream.len(), group.len());
    }
}

#[test]
fn a_claim_is_remembered_for_an_hour() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::Release]));
    let seen = [(100, 5), (101, 4), (3699, 4), (3700, 4), (3701, 4), (3702, 4)].map(|(second, pending)| {
        planner.look(&stream(second * 1000, dead(second * 1000, pending)), at(second));
        planner.plans().count()
    });
    assert_eq!(seen, [0, 0, 0, 0, 0, 1]);
}

#[test]
fn an_oldest_entry_that_is_another_one_is_no_claim() {
    let oldest = |ms, owner: &str, idle| PresentGroup {
        oldest_pending: Some((EntryId { ms, seq: 0 }, Some(owner.into()))),
        oldest_pending_deliveries: Some(1),
        ..dead(idle, 5)
    };
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::Release]));
    let seen = plans(&mut planner, vec![oldest(5, "gone", 60_000), oldest(6, "here", 61_000)]);
    assert_eq!(seen[1].0, [Action::Release]);
}

#[test]
fn an_act_of_our_own_hides_claims_in_the_next_three_samples_and_no_longer() {
    for (claimed, is_seen) in [(1, false), (3, false), (4, true)] {
        let mut planner = planner(rule(RemediationMode::Plan, &[Action::Release]));
        look(&mut planner, 101);
        let plan = look(&mut planner, 102).unwrap();
        planner.acted(&plan, true, at(102));
        for sample in 1..=7 {
            let (second, pending) = (102 + sample, if sample < claimed { 3 } else { 2 });
            planner.look(&stream(second * 1000, dead(100_000 + second, pending)), at(second));
        }
        assert_eq!(planner.plans().count() == 0, is_seen, "{claimed}");
    }
}

#[test]
fn an_entry_is_not_moved_to_the_stream_that_it_is_in() {
    let both: &[Action] = &[Action::Release, Action::DeadLetter];
    for (to, expected) in [("other", both), ("s", &[Action::Release])] {
        let dead_letter = DeadLetter { stream: to.into(), deliveries: 3, idle: Duration::from_secs(1) };
        let rule = RemediationRule { dead_letter: Some(dead_letter), ..rule(RemediationMode::Plan, both) };
        let shown = |idle| PresentGroup { members: dead(idle, 3).members, ..poisoned(3, "gone") };
        let seen = plans(&mut planner(rule), vec![shown(60_000), shown(61_000)]);
        assert_eq!(seen[1].0, expected, "{to}");
    }
}

#[test]
fn a_plan_ends_when_its_taker_is_gone_and_not_when_another_would_be_better() {
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::Release]));
    let alive = |name, pending| member(name, pending, 10, Some(true));
    let mut look = |second: u64, mut members: Vec<ConsumerSnapshot>| {
        members.push(member("gone", 4, second * 1000, Some(false)));
        let ended = planner.look(&stream(second * 1000, group(members)), at(second)).len();
        let to = planner.plans().find_map(|plan| match &plan.subject {
            PlanSubject::Consumer { to, .. } => to.as_ref().map(ToString::to_string),
            _ => None,
        });
        (to.unwrap_or_default(), ended)
    };
    look(100, vec![alive("a", 2)]);
    assert_eq!(look(101, vec![alive("a", 2)]), ("a".to_owned(), 0));
    assert_eq!(look(102, vec![alive("a", 2), alive("b", 1)]), ("a".to_owned(), 0));
    assert_eq!(look(103, vec![alive("b", 1)]), ("b".to_owned(), 1));
}

#[test]
fn an_idle_time_that_began_anew_differs_by_more_than_half_of_it() {
    for (idle_ms, expected) in [(69_999, 0), (70_000, 1)] {
        let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
        planner.look(&stream(100_000, dead(60_000, 0)), at(100));
        planner.look(&stream(140_000, dead(idle_ms, 0)), at(140));
        assert_eq!(planner.plans().count(), expected, "{idle_ms}");
    }
    // Not looked at again for longer than that.
    let mut planner = planner(rule(RemediationMode::Plan, &[Action::DeleteIdleConsumers]));
    for (second, idle_ms) in [(100, 60_000), (140, 60_000), (141, 101_000)] {
        planner.look(&stream(second * 1000, dead(idle_ms, 0)), at(second));
    }
    assert_eq!(planner.plans().next().unwrap().evidence.first_seen, at(100));
}

#[test]
fn what_a_dead_consumer_holds_decides_what_can_be_done() {
    for (action, if_nothing, if_something) in
        [(Action::DeleteIdleConsumers, true, false), (Action::Release, false, true), (Action::Hook, false, true)]
    {
        for (pending, expected) in [(0, if_nothing), (3, if_something)] {
            let mut planner = planner(rule(RemediationMode::Plan, &[action]));
            let seen = plans(&mut planner, vec![dead(60_000, pending), dead(61_000, pending)]);
            assert_eq!(seen[1].0 == [action], expected, "{action:?} {pending}");
        }
    }
}
