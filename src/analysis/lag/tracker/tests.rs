//! The tracker against a stream that is only simulated, so that thousands of walks take seconds. `tests/it/lag_random_walks.rs` does the
//! same on real servers.

mod rules;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::analysis::lag::safe_to_trim::lowest_needed;

/// Lags up to this are counted afresh: next to nothing, so that short streams have lags of both kinds.
const SMALL: u64 = 2;

/// What a server tells, and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Before 7.0: no counters.
    Old,
    /// From 7.0 on.
    Counting,
    /// From 8.2 on: it may remove acknowledged entries from anywhere, without a trace.
    TrimsAcknowledged,
}

fn any_server() -> impl Strategy<Value = Server> {
    prop_oneof![Just(Server::Old), Just(Server::Counting), Just(Server::TrimsAcknowledged)]
}

/// What a poll reads: all groups are monitored.
#[derive(Clone, Debug)]
struct TrackedSample {
    reply: StreamReply,
    groups: Vec<GroupReply>,
    trims_acknowledged: bool,
    /// The lowest entry that some group still needs.
    needed: Option<EntryId>,
}

impl TrackedSample {
    /// Gives the tracker a page of the same moment: of a group, or of what is held.
    fn counted(&self, tracker: &mut LagTracker, whose: Option<&GroupName>, page: &EntryPage) -> Counted {
        let groups = self.trims_acknowledged.then_some(&*self.groups);
        tracker.counted(whose, page, &self.reply, groups)
    }

    fn open(&self, tracker: &mut LagTracker) {
        tracker.open(&self.reply, &self.groups, self.groups.iter(), self.trims_acknowledged);
    }
}

/// What a stream does, as far as the tracker can see it.
#[derive(Clone, Debug)]
struct Simulated {
    server: Server,
    entries: BTreeSet<u64>,
    /// Every entry that was ever added.
    ever: BTreeSet<u64>,
    next: u64,
    last_generated: u64,
    added: u64,
    max_deleted: u64,
    groups: [Option<SimulatedGroup>; 3],
}

#[derive(Clone, Debug, Default)]
struct SimulatedGroup {
    cursor: u64,
    pending: BTreeSet<u64>,
    entries_read: Option<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Add(u64),
    /// Reads this many entries, and acknowledges all but that many of them.
    Read(usize, u64, u64),
    Acknowledge(usize, u64),
    Trim(u64),
    /// `XTRIM … MAXLEN n ACKED`
    TrimAcknowledged(u64),
    Delete(u64),
    SetId(usize, u64),
    Destroy(usize),
    Create(usize, u64),
    Jump(u64, u64),
    Recreate(u64),
    /// A poll that may count this many entries, with steps between its rounds.
    Poll(u64, Vec<Step>),
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

impl Simulated {
    fn new(server: Server) -> Self {
        let group = || Some(SimulatedGroup { entries_read: Some(3), ..SimulatedGroup::default() });
        Self {
            server,
            entries: BTreeSet::new(),
            ever: BTreeSet::new(),
            next: 0,
            last_generated: 0,
            added: 0,
            max_deleted: 0,
            groups: [group(), group(), None],
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(entries) => {
                for _ in 0..*entries {
                    self.next += 1;
                    self.last_generated = self.next;
                    self.entries.insert(self.next);
                    self.ever.insert(self.next);
                    self.added += 1;
                }
            }
            Step::Read(group, entries, keep) => {
                let Some(group) = &mut self.groups[*group] else { return };
                let read: Vec<u64> = self.entries.range(group.cursor + 1..).take(*entries as usize).copied().collect();
                group.cursor = read.last().copied().unwrap_or(group.cursor);
                group.pending.extend(read.iter().rev().take(*keep as usize));
            }
            Step::Acknowledge(group, entries) => {
                let Some(group) = &mut self.groups[*group] else { return };
                for _ in 0..*entries {
                    group.pending.pop_first();
                }
            }
            Step::Trim(keep) => {
                while self.entries.len() as u64 > *keep {
                    self.entries.pop_first();
                }
            }
            Step::TrimAcknowledged(keep) => {
                if self.server != Server::TrimsAcknowledged {
                    return;
                }
                let groups = || self.groups.iter().flatten();
                let lowest = groups().map(|group| group.cursor).min().unwrap_or(u64::MAX);
                let free = |entry: &&u64| **entry <= lowest && !groups().any(|group| group.pending.contains(*entry));
                let too_many = (self.entries.len() as u64).saturating_sub(*keep) as usize;
                let gone: Vec<u64> = self.entries.iter().filter(free).take(too_many).copied().collect();
                self.entries.retain(|entry| !gone.contains(entry));
            }
            Step::Delete(nth) => {
                let nth = self.entries.iter().nth(*nth as usize % self.entries.len().max(1)).copied();
                if let Some(entry) = nth {
                    self.entries.remove(&entry);
                    self.max_deleted = self.max_deleted.max(entry);
                }
            }
            Step::SetId(group, place) => {
                let place = place % (self.last_generated + 3);
                if let Some(group) = &mut self.groups[*group] {
                    // The server does not know then how many it has read.
                    (group.cursor, group.entries_read) = (place, None);
                }
            }
            Step::Destroy(group) => self.groups[*group] = None,
            Step::Create(group, place) => {
                let cursor = place % (self.last_generated + 3);
                self.groups[*group].get_or_insert(SimulatedGroup { cursor, ..SimulatedGroup::default() });
            }
            Step::Jump(ahead, added) => {
                self.last_generated += ahead;
                // Never back to ids of a stream before: what then happens to fit cannot be told (docs/lag.md).
                self.next = self.next.max(self.last_generated);
                self.added += added;
            }
            Step::Recreate(entries) => {
                *self = Self { next: self.next, ..Self::new(self.server) };
                self.step(&Step::Add(*entries));
            }
            Step::Poll(..) => {}
        }
    }

    fn sample(&self) -> TrackedSample {
        let counts = self.server != Server::Old;
        let group = |(name, group): (&str, &Option<SimulatedGroup>)| {
            let group = group.as_ref()?;
            Some(GroupReply {
                name: name.into(),
                consumers: 1,
                pending: group.pending.len() as u64,
                last_delivered: id(group.cursor),
                // A server that lies.
                server_lag: Some(self.added.wrapping_mul(7) % 50),
                entries_read: group.entries_read.filter(|_| counts),
                ..GroupReply::default()
            })
        };
        let reply = StreamReply {
            length: self.entries.len() as u64,
            first: self.entries.first().copied().map(id),
            last: self.entries.last().copied().map(id),
            last_generated: id(self.last_generated),
            entries_added: counts.then_some(self.added),
            max_deleted: counts.then_some(id(self.max_deleted)),
            ..StreamReply::default()
        };
        let groups: Vec<GroupReply> = ["a", "b", "c"].into_iter().zip(&self.groups).filter_map(group).collect();
        let oldest_pending = self.groups.iter().flatten().map(|group| group.pending.first().copied().map(id));
        let needed = lowest_needed(groups.iter().zip(oldest_pending)).map(|(id, _)| id);
        TrackedSample { reply, trims_acknowledged: self.server == Server::TrimsAcknowledged, groups, needed }
    }

    /// The entries there are that a group was not given.
    fn undelivered(&self, group: &GroupReply) -> impl Iterator<Item = u64> {
        self.entries.range(group.last_delivered.ms + 1..).copied()
    }

    fn lag(&self, group: &GroupReply) -> u64 {
        self.undelivered(group).count() as u64
    }

    /// The entries that were ever added after a group's cursor.
    fn added_after(&self, group: &GroupReply) -> u64 {
        self.ever.range(group.last_delivered.ms + 1..).count() as u64
    }

    /// The entries there are below one.
    fn below(&self, id: EntryId) -> u64 {
        self.entries.range(..id.ms + u64::from(id.seq > 0)).count() as u64
    }

    fn page(&self, range: &CountRange, limit: u64) -> EntryPage {
        let open = self.server == Server::Old && range.is_to_the_end()
            || self.server == Server::TrimsAcknowledged && range.is_from_the_front();
        let top = if open { u64::MAX } else { range.to.ms };
        let from = range.from.ms + u64::from(range.from.seq > 0);
        let found: Vec<u64> =
            if from > top { vec![] } else { self.entries.range(from..=top).take(limit as usize).copied().collect() };
        let within = |entry: &&u64| **entry <= range.to.ms;
        EntryPage {
            entries: found.iter().filter(within).count() as u64,
            beyond: found.iter().filter(|entry| !within(entry)).count() as u64,
            first: found.first().copied().map(id),
            last: found.iter().rfind(within).copied().map(id),
            ended: (found.len() as u64) < limit,
            ids: found.into_iter().map(id).collect(),
            bytes: 0,
        }
    }
}

/// Polls once and holds every answer against the truth. Returns how many answers there were, and how many exact.
fn poll(tracker: &mut LagTracker, stream: &mut Simulated, budget: u64, between: &[Step]) -> (u64, u64) {
    let mut truth = stream.clone();
    let mut sample = stream.sample();
    sample.open(tracker);
    let (mut budget, nothing_between) = (budget, between.is_empty());
    let mut between = between.iter();
    let ask_all = |tracker: &mut LagTracker, sample: &TrackedSample| {
        sample.groups.iter().for_each(|group| _ = tracker.ask(&sample.reply, group, 10));
    };
    ask_all(tracker, &sample);
    if tracker.anchors().iter().any(|anchor| !stream.entries.contains(&anchor.ms)) {
        tracker.anchor_is_gone();
        ask_all(tracker, &sample);
    }
    if let Some(needed) = sample.needed {
        tracker.hold(&sample.reply, needed, 10);
    }
    let names = sample.groups.iter().map(|group| Some(group.name.clone())).chain([None]);
    let names: Vec<Option<GroupName>> = names.collect();
    for group in &sample.groups {
        let ask = tracker.ask(&sample.reply, group, 10);
        if let Some(cursor) = ask.first {
            let first = stream.entries.range(cursor.ms + 1..).next().copied().map(id);
            tracker.found_first(&group.name, first);
        }
    }
    while budget > 0
        && let Some((name, range)) = names.iter().find_map(|name| Some((name.as_ref(), tracker.rest(name.as_ref())?)))
    {
        between.next().iter().for_each(|step| stream.step(step));
        let limit = budget.min(if range.is_from_the_front() { AT_ONCE } else { 7 });
        let (page, after) = (stream.page(&range, limit), stream.sample());
        budget -= (page.ids.len() as u64).clamp(1, limit);
        match after.counted(tracker, name, &page) {
            Counted::Taken => {}
            Counted::Nearer => ask_all(tracker, &sample),
            Counted::Outdated => {
                (truth, sample) = (stream.clone(), stream.sample());
                sample.open(tracker);
                tracker.counted_at_once(name.expect("a group's"), &range, &page);
                ask_all(tracker, &sample);
            }
        }
    }
    between.for_each(|step| stream.step(step));
    let mut exact = 0;
    for group in &sample.groups {
        let resolved = tracker.resolve(&sample.reply, group).unwrap();
        let (lag, true_lag) = (resolved.lag, truth.lag(group));
        assert!(
            lag.min <= true_lag && true_lag <= lag.max,
            "{}: {lag:?} but {true_lag}: {truth:?} {tracker:?}",
            group.name
        );
        assert!(lag.min <= lag.point && lag.point <= lag.max, "{lag:?}");
        exact += u64::from(lag.uncertainty() == 0);
        // Where something happens meanwhile, it may be the oldest of a later moment.
        if let Some(oldest) = resolved.oldest_undelivered.filter(|_| nothing_between) {
            assert_eq!(Some(oldest.ms), truth.undelivered(group).next(), "{}: {truth:?} {tracker:?}", group.name);
        }
        if let Some((least, most)) = resolved.added_after {
            let added = truth.added_after(group);
            assert!(least <= added && added <= most, "{least} to {most}, but {added}: {truth:?} {tracker:?}");
        }
    }
    if let Some(needed) = sample.needed {
        let below = tracker.below_held(&sample.reply, needed);
        assert!(below <= Some(truth.below(needed)), "{below:?} below {needed}: {truth:?} {tracker:?}");
    }
    (sample.groups.len() as u64, exact)
}

fn walk(steps: &[Step], server: Server) -> (u64, u64) {
    let (mut tracker, mut stream) = (LagTracker::with_small_lag(SMALL), Simulated::new(server));
    let (mut answers, mut exact) = (0, 0);
    for step in steps {
        if let Step::Poll(budget, between) = step {
            let (answered, exactly) = poll(&mut tracker, &mut stream, *budget, between);
            (answers, exact) = (answers + answered, exact + exactly);
        } else {
            stream.step(step);
        }
    }
    (answers, exact)
}

fn quiet_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..12).prop_map(Step::Add),
        4 => (0usize..3, 1u64..10, 0u64..3).prop_map(|(group, entries, keep)| Step::Read(group, entries, keep)),
        2 => (0usize..3, 1u64..10).prop_map(|(group, entries)| Step::Acknowledge(group, entries)),
        2 => (0u64..30).prop_map(Step::Trim),
        4 => (0u64..30).prop_map(Step::TrimAcknowledged),
        2 => any::<u64>().prop_map(Step::Delete),
        1 => (0usize..3, any::<u64>()).prop_map(|(group, place)| Step::SetId(group, place)),
        1 => (0usize..3).prop_map(Step::Destroy),
        2 => (0usize..3, any::<u64>()).prop_map(|(group, place)| Step::Create(group, place)),
    ]
}

/// What may happen while a poll counts.
fn between_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => quiet_step(),
        1 => (0u64..30).prop_map(Step::Recreate),
        1 => (0u64..20).prop_map(|ahead| Step::Jump(ahead, 0)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => quiet_step(),
        6 => (prop_oneof![Just(0u64), 0u64..20, Just(1000)], prop::collection::vec(between_step(), 0..3))
            .prop_map(|(budget, between)| Step::Poll(budget, between)),
        1 => (0u64..30).prop_map(Step::Recreate),
        // Only ids ahead: entries-added set by hand is noticed in most cases, and has tests of its own.
        1 => (0u64..20).prop_map(|ahead| Step::Jump(ahead, 0)),
    ]
}

/// The largest id there is has none after it.
#[test]
fn a_count_ends_at_the_largest_id() {
    let last = EntryId { ms: u64::MAX, seq: u64::MAX };
    let mut tracker = LagTracker::with_small_lag(SMALL);
    let server_lag = Some(128);
    let group = GroupReply { name: "a".into(), last_delivered: id(200), server_lag, ..GroupReply::default() };
    let reply = StreamReply {
        length: 328,
        first: Some(id(1)),
        last: Some(last),
        last_generated: last,
        entries_added: Some(328),
        max_deleted: Some(id(0)),
        ..StreamReply::default()
    };
    let sample = TrackedSample { reply, groups: vec![group], trims_acknowledged: false, needed: None };
    sample.open(&mut tracker);
    assert!(tracker.ask(&sample.reply, &sample.groups[0], 10).count.is_some());
    // A full page, as many as were asked for.
    let page = EntryPage { entries: 128, beyond: 0, first: Some(id(201)), last: Some(last), ..EntryPage::default() };
    sample.counted(&mut tracker, Some(&"a".into()), &page);
    assert_eq!(tracker.rest(Some(&"a".into())), None);
    assert_eq!(tracker.resolve(&sample.reply, &sample.groups[0]).unwrap().lag, Lag { min: 128, max: 128, point: 128 });
}

/// Found by the walks below: what is known to have been added after a cursor was taken for what is there, although one of
/// it had been deleted.
#[test]
fn an_entry_deleted_after_a_count_does_not_count_as_there() {
    use Step::{Add, Delete, Poll, Read};
    let delete_the_tenth = Delete(6_765_947_527_890_752_678);
    walk(
        &[
            Add(8),
            Delete(0),
            Poll(0, vec![Read(0, 5, 0), Add(6)]),
            Poll(0, vec![Read(0, 3, 0)]),
            Poll(0, vec![Add(6)]),
            Poll(5, vec![Add(2), delete_the_tenth]),
            Poll(0, vec![]),
        ],
        Server::Counting,
    );
}

/// The page was counted on another stream than the sample: the key was deleted and filled again in between.
#[test]
fn a_page_of_another_stream_tells_nothing() {
    let mut stream = Simulated::new(Server::Counting);
    stream.step(&Step::Add(300));
    stream.step(&Step::Read(0, 100, 0));
    let sample = stream.sample();
    let mut tracker = LagTracker::with_small_lag(SMALL);
    sample.open(&mut tracker);
    assert!(tracker.ask(&sample.reply, &sample.groups[0], 10).count.is_some());
    let mut other = Simulated::new(Server::Counting);
    other.step(&Step::Add(150));
    let page =
        EntryPage { entries: 50, first: Some(id(101)), last: Some(id(150)), ended: true, ..EntryPage::default() };
    other.sample().counted(&mut tracker, Some(&"a".into()), &page);
    let lag = tracker.resolve(&sample.reply, &sample.groups[0]).unwrap().lag;
    assert!(lag.min <= 200 && 200 <= lag.max, "{lag:?}");
}

/// Three times within a poll, the group reads 100 more, acknowledges one of before and the
/// first 50 of those, and the stream is trimmed as far as that allows.
#[test]
fn a_trim_that_leaves_holes_behind_a_pending_entry() {
    use Step::{Add, Poll, Read, TrimAcknowledged};
    let again = [Read(0, 100, 50), TrimAcknowledged(10), Poll(1000, vec![])];
    let mut steps = vec![Add(1000), Step::Destroy(1), Read(0, 400, 100), Poll(1000, vec![])];
    steps.extend(again.into_iter().cycle().take(9));
    assert_eq!(walk(&steps, Server::TrimsAcknowledged), (4, 4));
}

/// A group in mid-stream that reads on, with more ahead of it than a poll may count, of a stream that is trimmed from the front.
#[test]
fn what_is_held_is_counted_where_its_neighbours_do_not_tell() {
    let group = GroupReply { name: GroupName::from("g"), last_delivered: id(10), ..GroupReply::default() };
    let reply = StreamReply {
        length: 10,
        first: Some(id(1)),
        last: Some(id(20)),
        last_generated: id(20),
        entries_added: Some(15),
        max_deleted: Some(id(12)),
        ..StreamReply::default()
    };
    let mut tracker = LagTracker::default();
    let mut held = |safe| {
        tracker.open(&reply, std::slice::from_ref(&group), std::iter::once(&group), false);
        tracker.hold(&reply, safe, 100)
    };
    // The uncertainty without a count.
    let ask = held(id(10));
    assert_eq!((ask.count, ask.first), (Some(8), None), "its age is not asked for");
    assert_eq!(held(EntryId::default()), Queries::default(), "nothing lies below");
}

#[test]
fn a_long_count_goes_on_though_the_group_moves() {
    let (mut tracker, mut stream) = (LagTracker::with_small_lag(SMALL), Simulated::new(Server::TrimsAcknowledged));
    stream.step(&Step::Destroy(1));
    stream.step(&Step::Add(4000));
    stream.step(&Step::Read(0, 1500, 0));
    let mut exact = Vec::new();
    for round in 0..20 {
        stream.step(&Step::Add(10));
        stream.step(&Step::Read(0, 15, 15));
        stream.step(&Step::Trim(3500 - 10 * round));
        exact.push(poll(&mut tracker, &mut stream, 400, &[]).1);
    }
    assert_eq!(exact[..4], [0; 4], "2500 entries, 400 a poll");
    assert_eq!(exact[8..], [1; 12]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Between polls and within them, in any order: the bounds hold the truth, so an exact answer is right.
    #[test]
    fn the_truth_lies_within_the_bounds(steps in prop::collection::vec(any_step(), 1..60), server in any_server()) {
        walk(&steps, server);
    }

    /// Where nothing happens while a poll counts, and it may count what there is, every answer is exact.
    #[test]
    fn with_budget_every_answer_is_exact(steps in prop::collection::vec(quiet_step(), 1..60), server in any_server()) {
        let polled: Vec<Step> = steps.into_iter().flat_map(|step| [step, Step::Poll(1000, vec![])]).collect();
        let (answers, exact) = walk(&polled, server);
        prop_assert_eq!(answers, exact);
    }

    /// Where nothing may be counted, the timeline alone answers for what it saw being added.
    #[test]
    fn without_budget_the_timeline_bounds(reads in prop::collection::vec(1u64..5, 1..30)) {
        let (mut tracker, mut stream) = (LagTracker::with_small_lag(SMALL), Simulated::new(Server::Counting));
        for reads in reads {
            stream.step(&Step::Add(reads + 1));
            poll(&mut tracker, &mut stream, 0, &[]);
            stream.step(&Step::Read(0, reads, 0));
            poll(&mut tracker, &mut stream, 0, &[]);
            let sample = stream.sample();
            // Added between two polls were at most five, and so uncertain is the lag.
            prop_assert!(tracker.resolve(&sample.reply, &sample.groups[0]).unwrap().lag.uncertainty() <= 5);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// A stream that is trimmed as far as acknowledgements allow while groups read on, also while a poll counts: exact.
    #[test]
    fn trims_of_what_is_acknowledged_leave_lags_exact(
        rounds in prop::collection::vec((1u64..40, 1u64..30, 0u64..5, 1u64..30, 0u64..5, 0u64..20), 1..30)
    ) {
        let mut steps = vec![Step::Add(400)];
        for (add, read, keep, read_other, keep_other, acknowledge) in rounds {
            let more = vec![Step::Read(0, read, keep), Step::TrimAcknowledged(5), Step::Read(1, read_other, 0)];
            steps.extend([
                Step::Add(add),
                Step::Read(0, read, keep),
                Step::Read(1, read_other, keep_other),
                Step::Acknowledge(0, acknowledge),
                Step::TrimAcknowledged(5),
                Step::Poll(10_000, more),
            ]);
        }
        let (answers, exact) = walk(&steps, Server::TrimsAcknowledged);
        prop_assert_eq!(answers, exact);
    }
}

/// A stream that was filled long ago, and one entry that comes now: the lag is one more, and not nearly all of the stream.
#[test]
fn one_entry_more_is_one_more_in_the_estimate() {
    let group = GroupReply { name: "g".into(), last_delivered: id(150_000), ..GroupReply::default() };
    let stream = |length: u64, last: u64| StreamReply {
        length,
        first: Some(id(1)),
        last: Some(id(last)),
        last_generated: id(last),
        entries_added: Some(length),
        max_deleted: Some(EntryId::default()),
        ..StreamReply::default()
    };
    let mut tracker = LagTracker::with_small_lag(SMALL);
    let mut resolved = |reply: StreamReply| {
        let sample = TrackedSample { reply, groups: vec![group.clone()], trims_acknowledged: false, needed: None };
        sample.open(&mut tracker);
        tracker.resolve(&sample.reply, &group).unwrap().lag
    };
    let before = resolved(stream(300_000, 300_000));
    let after = resolved(stream(300_001, 1_800_000_000_000));
    assert!(before.uncertainty() > 0 && after.uncertainty() > 0, "{before:?} {after:?}");
    assert_eq!((before.point, after.point), (150_000, 150_001));
}
