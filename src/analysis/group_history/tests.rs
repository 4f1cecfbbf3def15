//! Verdicts, losses and rates over samples that are made up, five seconds apart. On real servers: `tests/it/lag_accuracy.rs`,
//! `tests/it/group_state.rs`.

use super::*;
use crate::analysis::group_state::GroupState;
use crate::model::lag::Resolved;
use crate::model::reply::{ConsumerReply, StreamReply};

const WINDOWS: Windows = Windows { samples: 6, ..crate::analysis::snapshot::tests::WINDOWS };

const INTERVAL: Duration = Duration::from_secs(5);

/// A stream of dense ids and a group, as the next sample will show them.
struct Story {
    at: Duration,
    interval: Duration,
    first: u64,
    last: u64,
    cursor: u64,
    pending: u64,
    oldest_pending: Option<u64>,
    alive: u64,
    entries_read: Option<u64>,
    /// Whether the server tells how many entries were added.
    counts: bool,
    /// The highest entry that was deleted, 0 for none, and how many are missing between the cursor and the end.
    deleted: u64,
    missing: u64,
    /// By how much the lag may be less.
    uncertainty: u64,
    consumers: Vec<ConsumerReply>,
    continuity: Continuity,
    history: Option<GroupHistory>,
}

fn id(ms: u64) -> EntryId {
    EntryId { ms, seq: 0 }
}

impl Story {
    /// A hundred entries, read to the end.
    fn new() -> Self {
        Self {
            at: Duration::ZERO,
            interval: INTERVAL,
            first: 1,
            last: 100,
            cursor: 100,
            pending: 0,
            oldest_pending: None,
            alive: 1,
            entries_read: Some(100),
            counts: true,
            deleted: 0,
            missing: 0,
            uncertainty: 0,
            consumers: Vec::new(),
            continuity: Continuity::Continuous,
            history: None,
        }
    }

    fn sample(&mut self) -> GroupTrend {
        self.at += self.interval;
        let stream = StreamSample {
            reply: StreamReply {
                length: (self.last + 1).saturating_sub(self.first) - self.missing,
                first: (self.first <= self.last).then_some(id(self.first)),
                last: (self.first <= self.last).then_some(id(self.last)),
                last_generated: id(self.last),
                entries_added: self.counts.then_some(self.last),
                max_deleted: self.counts.then_some(id(self.deleted)),
                ..StreamReply::default()
            },
            continuity: std::mem::replace(&mut self.continuity, Continuity::Continuous),
            ..StreamSample::default()
        };
        let lag = self.last.saturating_sub(self.cursor.max(self.first - 1)) - self.missing;
        let after = self.last.saturating_sub(self.cursor);
        let resolved = Resolved {
            lag: Lag { min: lag.saturating_sub(self.uncertainty), max: lag, point: lag },
            added_after: self.counts.then_some((after, after)),
            ..Resolved::default()
        };
        let group = GroupSample {
            name: "g".into(),
            consumers: 1,
            pending: self.pending,
            last_delivered: id(self.cursor),
            entries_read: self.entries_read,
            oldest_pending: self.oldest_pending.map(id),
            resolved: Some(resolved),
            members: Some(self.consumers.clone()),
            ..GroupSample::default()
        };
        let history = self.history.get_or_insert_with(|| GroupHistory::new(&stream, &group, self.at));
        history.take(&stream, &group, self.at, Some(self.alive), &WINDOWS)
    }

    /// This many samples, with a change before each; the state after each.
    fn states(&mut self, samples: usize, change: impl Fn(&mut Self)) -> Vec<GroupState> {
        let mut next = || {
            change(self);
            self.sample().verdict.state
        };
        (0..samples).map(|_| next()).collect()
    }

    /// The state after this many samples, which it must have come to without passing through others than `ok`.
    fn becomes(&mut self, expected: GroupState, change: impl Fn(&mut Self)) -> String {
        let states = self.states(12, change);
        assert!(states.iter().all(|state| [GroupState::Ok, expected].contains(state)), "{states:?}");
        assert_eq!(states.last(), Some(&expected), "{states:?}");
        self.sample().verdict.to_string()
    }

    fn read(&mut self, entries: u64) {
        self.cursor = self.last.min(self.cursor + entries);
        self.entries_read = self.entries_read.map(|read| read + entries);
    }
}

#[test]
fn one_sample_proves_nothing_and_a_window_does() {
    let mut story = Story::new();
    story.last = 150;
    assert_eq!(story.sample().verdict.to_string(), "lag 50; no rule has held for a whole window");
    let mut story = Story::new();
    story.last = 150;
    let states = story.states(8, |_| {});
    // Samples 5 s apart: the seventh is 30 s after the first.
    assert_eq!(states[..6], [GroupState::Ok; 6]);
    assert_eq!(states[6..], [GroupState::Stalled; 2]);
    // Minutes apart, as many samples are needed all the same.
    let mut story = Story { interval: Duration::from_secs(60), ..Story::new() };
    story.last = 150;
    let states = story.states(7, |_| {});
    assert_eq!(states[..5], [GroupState::Ok; 5]);
    assert_eq!(states[5..], [GroupState::Stalled; 2]);
}

#[test]
fn each_state_has_its_rule() {
    let check = |prepare: fn(&mut Story), change: fn(&mut Story), expected, reason: &str| {
        let mut story = Story::new();
        prepare(&mut story);
        story.sample();
        let said = story.becomes(expected, change);
        assert!(said.contains(reason), "{expected:?}: {said:?} lacks {reason:?}");
    };
    check(|_| {}, |_| {}, GroupState::Ok, "nothing undelivered");
    // Keeps up, with a lag now and then.
    let busy = |story: &mut Story| {
        story.last += 50;
        story.read(if story.last.is_multiple_of(100) { 80 } else { 20 });
    };
    check(|_| {}, busy, GroupState::Ok, "");
    let behind = |story: &mut Story| story.last = 150;
    check(behind, |_| {}, GroupState::Stalled, "lag 50, cursor still at 100-0 for");
    check(behind, |story| story.alive = 0, GroupState::Stopped, "nobody reads: 0 of 1 consumers alive");
    // Entries come, and some are read, but fewer.
    let slow = |story: &mut Story| {
        story.last += 50;
        story.read(30);
    };
    check(behind, slow, GroupState::Lagging, "the lag has not fallen");
    let unacknowledged = |story: &mut Story| {
        story.last += 50;
        story.read(50);
        (story.pending, story.oldest_pending) = (story.pending + 1, Some(90));
    };
    check(|_| {}, unacknowledged, GroupState::AckStalled, "the oldest of them the same for");
    check(behind, |story| story.first += 20, GroupState::Losing, "entries gone undelivered");
    check(|_| {}, |story| story.cursor -= 1, GroupState::Rewound, "the cursor moved back from");
}

/// Samples and reads both go by the clock: each sample sees the same part of a batch that has just been added.
#[test]
fn a_group_that_reads_in_batches_does_not_lag() {
    let mut story = Story::new();
    let states = story.states(20, |story| {
        story.cursor = story.last;
        story.last += 50;
    });
    assert_eq!(states, [GroupState::Ok; 20]);
}

#[test]
fn a_blocked_healthy_consumer_is_no_stall() {
    let mut story = Story::new();
    (story.alive, story.pending) = (0, 0);
    assert_eq!(story.states(20, |_| {}), [GroupState::Ok; 20]);
}

#[test]
fn pending_entries_that_are_acknowledged_one_after_the_other_are_no_stall() {
    let mut story = Story::new();
    (story.pending, story.oldest_pending) = (10, Some(1));
    assert_eq!(
        story.states(20, |story| story.oldest_pending = story.oldest_pending.map(|id| id + 1)),
        [GroupState::Ok; 20]
    );
}

#[test]
fn a_state_is_left_after_half_a_window_unless_the_lag_is_gone() {
    let lagging = || {
        let mut story = Story::new();
        story.last = 150;
        story.sample();
        story.becomes(GroupState::Lagging, |story| {
            story.last += 50;
            story.read(30);
        });
        story
    };
    // One fall of the lag, and it goes on as before: the state stays.
    let mut story = lagging();
    story.read(10);
    let still = story.sample().verdict;
    assert_eq!(still.state, GroupState::Lagging);
    let text = still.to_string();
    assert!(text.contains("the lag has not fallen for"), "{text}");
    assert!(text.contains("no longer so for 0 s; told until that has lasted 15 s"), "{text}");
    // It falls on: 15 s later that is believed.
    let states = story.states(4, |story| story.read(1));
    assert_eq!(states, [GroupState::Lagging, GroupState::Lagging, GroupState::Ok, GroupState::Ok]);
    // It is gone: at once.
    let mut story = lagging();
    story.cursor = story.last;
    assert_eq!(story.sample().verdict.state, GroupState::Ok);
}

#[test]
fn a_loss_is_told_for_a_window_and_half_a_window_more_though_nothing_lags() {
    let mut story = Story::new();
    story.last = 150;
    story.sample();
    story.first = 120;
    assert_eq!(story.sample().verdict.state, GroupState::Losing);
    story.cursor = story.last;
    let states = story.states(12, |_| {});
    // The loss was found five seconds before the first of these.
    assert_eq!(states[..8], [GroupState::Losing; 8], "{states:?}");
    assert_eq!(states[8..], [GroupState::Ok; 4], "{states:?}");
}

#[test]
fn a_lag_that_fell_once_and_grows_again_lags() {
    let mut story = Story::new();
    (story.last, story.cursor) = (1000, 100);
    story.sample();
    story.read(500);
    story.sample();
    let verdict = story.becomes(GroupState::Lagging, |story| {
        story.last += 20;
        story.read(10);
    });
    assert!(verdict.contains("it was 400, now 520"), "{verdict}");
}

#[test]
fn a_lag_that_may_have_fallen_step_by_step_does_not_lag() {
    let mut story = Story { uncertainty: 50, ..Story::new() };
    (story.last, story.cursor) = (1000, 100);
    story.sample();
    // Each step is within what is uncertain, all of them together are not.
    let states = story.states(12, |story| story.read(10));
    assert_eq!(states, [GroupState::Ok; 12]);
}

#[test]
fn a_group_is_behind_from_the_first_sample_with_a_lag_to_the_last() {
    let mut story = Story::new();
    let mut behind_for = |cursor| {
        story.cursor = cursor;
        story.sample().behind_for.map(|behind| behind.as_secs())
    };
    let found = [100, 100, 90, 90, 100, 90, 90].map(&mut behind_for);
    assert_eq!(found, [None, None, Some(0), Some(5), None, Some(0), Some(5)]);
}

#[test]
fn a_stream_made_anew_starts_again_and_keeps_what_was_lost() {
    let mut story = Story::new();
    story.last = 150;
    story.sample();
    story.first = 120;
    assert_eq!(story.sample().lost, 19);
    (story.first, story.last, story.cursor, story.continuity) = (1, 20, 5, Continuity::Discontinuous);
    let trend = story.sample();
    assert_eq!((trend.lost, trend.verdict.state), (19, GroupState::Ok));
    assert_eq!(trend.delivered_rate, None);
}

#[test]
fn losses_are_a_lower_bound_and_never_a_delivered_entry() {
    let lost = |prepare: fn(&mut Story), change: fn(&mut Story)| {
        let mut story = Story::new();
        (story.last, story.cursor) = (200, 100);
        prepare(&mut story);
        story.sample();
        change(&mut story);
        story.sample().lost
    };
    let nothing = |_: &mut Story| {};
    assert_eq!(lost(nothing, |story| story.first = 101), 0);
    assert_eq!(lost(nothing, |story| story.first = 121), 20);
    assert_eq!(lost(nothing, |story| (story.first, story.last) = (251, 300)), 150);
    // It read on before they went, so far as the counters tell.
    assert_eq!(lost(nothing, |story| (story.first, story.cursor, story.entries_read) = (121, 130, Some(130))), 0);
    assert_eq!(lost(nothing, |story| (story.first, story.cursor, story.entries_read) = (151, 130, Some(130))), 20);
    // Nor is what was missing before counted again, or left out, once it is passed.
    let trimmed = |story: &mut Story| story.first = 121;
    assert_eq!(lost(trimmed, |story| (story.first, story.cursor, story.entries_read) = (151, 130, Some(130))), 20);
    // Over a new connection, what is missing may be with another server.
    let over_a_new_connection = |story: &mut Story| (story.first, story.continuity) = (121, Continuity::Unknown);
    assert_eq!(lost(nothing, over_a_new_connection), 0);
    // It may have read on, and been moved back.
    assert_eq!(lost(nothing, |story| (story.first, story.entries_read) = (121, None)), 0);
    assert_eq!(lost(nothing, |story| (story.first, story.entries_read) = (121, Some(50))), 0);
    assert_eq!(lost(nothing, |story| (story.first, story.cursor) = (121, 50)), 0);
    let unknown = |story: &mut Story| story.entries_read = None;
    assert_eq!(lost(unknown, |story| story.first = 121), 20);
    assert_eq!(lost(unknown, |story| (story.first, story.cursor) = (151, 130)), 0);
    // A cursor ahead of every id: what is added below it was skipped, not lost.
    let ahead = |story: &mut Story| (story.cursor, story.last) = (300, 200);
    assert_eq!(lost(ahead, |story| story.last = 400), 0);
    // What was added was there: of fifty more that are gone at once, none was delivered.
    assert_eq!(lost(nothing, |story| (story.first, story.last) = (301, 300)), 200);
    // It was set back and read on to where it was, or read and was set back, so far as the counters tell.
    assert_eq!(lost(nothing, |story| (story.first, story.entries_read) = (121, Some(110))), 0);
    assert_eq!(lost(nothing, |story| (story.first, story.pending) = (121, 5)), 0);
    // Read on, and nothing is pending any more.
    let pending = |story: &mut Story| story.pending = 5;
    assert_eq!(lost(pending, |story| (story.first, story.pending) = (121, 0)), 20);
    // Before 7.0: no consumer to read it, or one that may have.
    let old = |story: &mut Story| (story.counts, story.entries_read) = (false, None);
    assert_eq!(lost(old, |story| story.first = 121), 20);
    assert_eq!(lost(old, |story| (story.first, story.cursor) = (151, 130)), 0);
    assert_eq!(lost(old, |story| (story.first, story.consumers) = (121, vec![consumer(1000)])), 0);
    assert_eq!(lost(old, |story| (story.first, story.consumers) = (121, vec![consumer(60_000)])), 20);
}

fn consumer(idle_ms: u64) -> ConsumerReply {
    ConsumerReply { name: "c".into(), pending: Some(0), idle_ms: Some(idle_ms), inactive_ms: None }
}

#[test]
fn what_lies_below_a_cursor_that_moved_back_is_not_lost_until_it_is_passed_again() {
    let mut story = Story::new();
    (story.last, story.cursor) = (200, 150);
    story.sample();
    story.cursor = 50;
    story.sample();
    // 51 to 100 were delivered once.
    story.first = 101;
    assert_eq!(story.sample().lost, 0);
    story.cursor = 150;
    story.sample();
    story.first = 161;
    assert_eq!(story.sample().lost, 10);
}

#[test]
fn what_came_after_all_that_may_have_been_delivered_is_lost_when_it_is_gone() {
    let mut story = Story::new();
    (story.last, story.cursor, story.entries_read) = (200, 100, None);
    story.sample();
    // It reads on, and may have read to the end and been moved back.
    story.cursor = 110;
    story.sample();
    (story.last, story.first) = (400, 150);
    assert_eq!(story.sample().lost, 0);
    story.first = 231;
    assert_eq!(story.sample().lost, 30);
    story.first = 251;
    assert_eq!(story.sample().lost, 50);
    story.cursor = 260;
    assert_eq!(story.sample().lost, 50);
}

#[test]
fn what_is_lost_is_counted_once_though_the_cursor_moves_back() {
    let mut story = Story::new();
    (story.cursor, story.entries_read) = (99, None);
    story.sample();
    (story.cursor, story.entries_read) = (100, Some(100));
    story.sample();
    (story.last, story.first) = (131, 132);
    assert_eq!(story.sample().lost, 31);
    // Where the number of read entries was set as well, nothing else says that the group may have read on before.
    story.cursor = 0;
    assert_eq!(story.sample().lost, 31);
}

#[test]
fn a_stream_that_looks_new_hides_no_cursor_that_moved_back() {
    let mut story = Story::new();
    (story.cursor, story.entries_read) = (50, None);
    story.sample();
    (story.cursor, story.continuity) = (0, Continuity::Discontinuous);
    story.sample();
    (story.last, story.first) = (120, 121);
    assert_eq!(story.sample().lost, 20);
    // Where it was, it has not moved back: all above it is lost.
    let mut story = Story::new();
    story.cursor = 50;
    story.sample();
    story.continuity = Continuity::Discontinuous;
    story.sample();
    (story.last, story.first) = (120, 121);
    assert_eq!(story.sample().lost, 70);
}

#[test]
fn what_was_missing_before_is_not_lost_again_where_it_was_not_passed() {
    let mut story = Story::new();
    (story.last, story.cursor, story.entries_read) = (200, 100, Some(100));
    // Ten were deleted before.
    story.deleted = 150;
    story.missing = 10;
    story.sample();
    (story.cursor, story.entries_read) = (110, Some(110));
    assert_eq!(story.sample().lost, 0);
    story.missing = 13;
    (story.cursor, story.entries_read) = (120, Some(120));
    assert_eq!(story.sample().lost, 3);
}

#[test]
fn rates_are_taken_over_the_window() {
    let mut story = Story::new();
    assert_eq!(story.sample().delivered_rate, None);
    story.last += 500;
    story.read(200);
    story.pending = 50;
    let trend = story.sample();
    assert_eq!((trend.delivered_rate, trend.acknowledged_rate), (Some(40.0), Some(30.0)));
    // Of a hundred that are gone from ahead of the cursor, thirty were delivered, says the server.
    let mut trimmed = Story::new();
    (trimmed.last, trimmed.cursor) = (200, 100);
    trimmed.sample();
    (trimmed.first, trimmed.cursor, trimmed.entries_read) = (201, 190, Some(130));
    assert_eq!(trimmed.sample().delivered_rate, Some(6.0));
    // Nothing more: what was is forgotten after a window.
    let mut rates = Vec::new();
    for _ in 0..8 {
        rates.push(story.sample().delivered_rate.unwrap());
    }
    assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
    assert_eq!(rates.last(), Some(&0.0));
    // Before 7.0 the number of entries delivered cannot be known once some are added.
    story.counts = false;
    story.sample();
    story.last += 10;
    story.read(5);
    story.entries_read = None;
    assert_eq!(story.sample().delivered_rate, None);
    // From there on it can be, as long as none are.
    story.read(20);
    story.sample();
    story.read(10);
    assert_eq!(story.sample().delivered_rate, Some(2.0));
}

#[test]
fn where_the_server_does_not_count_what_was_read_the_lags_tell_what_was_delivered() {
    let delivered = |change: fn(&mut Story)| {
        let mut story = Story::new();
        (story.last, story.cursor, story.entries_read) = (200, 100, None);
        story.sample();
        change(&mut story);
        story.sample().delivered_rate
    };
    assert_eq!(delivered(|story| (story.last, story.cursor) = (250, 150)), Some(10.0));
    // What was lost was not delivered, as far as that shows.
    assert_eq!(delivered(|story| (story.first, story.consumers) = (121, vec![consumer(60_000)])), Some(0.0));
    assert_eq!(
        delivered(|story| {
            (story.first, story.consumers) = (121, vec![consumer(60_000)]);
            story.sample();
            story.read(50);
        }),
        Some(3.0)
    );
    // A lag that is only bounded tells nothing.
    assert_eq!(delivered(|story| (story.last, story.cursor, story.uncertainty) = (250, 150, 5)), None);
}

#[test]
fn lags_that_are_not_exact_are_no_deliveries_and_no_proof() {
    let mut story = Story::new();
    (story.entries_read, story.last) = (None, 5000);
    story.sample();
    story.read(100);
    assert_eq!(story.sample().delivered_rate, Some(20.0));
    story.uncertainty = 4000;
    story.sample();
    // Read on, with a lag that is only bounded: nothing can be said, and nothing false is.
    let unknown = story.states(12, |story| story.read(100));
    assert_eq!(unknown, [GroupState::Ok; 12]);
    assert_eq!(story.sample().delivered_rate, None);
    // Exact again: the entries since the last exact one, in the time since then.
    story.uncertainty = 0;
    story.read(100);
    let trend = story.sample();
    assert_eq!(story.history.as_ref().unwrap().flow.totals[0], 1400);
    assert!(trend.delivered_rate.is_some_and(|rate| (17.0..22.0).contains(&rate)), "{trend:?}");
}

#[test]
fn everybody_had_a_turn_after_twice_as_many_deliveries_as_there_are_consumers() {
    let mut rotation = Rotation { since: Duration::ZERO, moves: 0, all_since: None };
    let mut at = Duration::ZERO;
    for moved in [true, false, true, true, false, true, true] {
        at += INTERVAL;
        rotation.next(moved, at, 3);
        assert_eq!(rotation.all_since, None);
    }
    rotation.next(true, at + INTERVAL, 3);
    assert_eq!(rotation.all_since, Some(Duration::ZERO));
    // From then on it begins again.
    assert_eq!((rotation.since, rotation.moves), (at + INTERVAL, 0));
}

#[test]
fn rates_of_a_stream() {
    let mut history = StreamHistory::default();
    let mut stream = StreamSample {
        continuity: Continuity::Continuous,
        reply: StreamReply {
            length: 100,
            entries_added: Some(100),
            max_deleted: Some(id(0)),
            ..StreamReply::default()
        },
        ..StreamSample::default()
    };
    let mut take = |at: u64, stream: &StreamSample| history.take(stream, Duration::from_secs(at), &WINDOWS);
    assert_eq!(take(0, &stream), StreamRates::default());
    (stream.reply.length, stream.reply.entries_added) = (110, Some(160));
    let expected = StreamRates { added: Some(6.0), removed: Some(5.0), trimmed: Some(5.0) };
    assert_eq!(take(10, &stream), expected);
    // Deleting is not trimming.
    stream.reply.max_deleted = Some(id(7));
    assert_eq!(take(20, &stream).trimmed, None);
    assert_eq!(take(49, &stream).trimmed, None);
    assert_eq!(take(50, &stream).trimmed, Some(0.0), "a window later");
}

#[test]
fn pending_entries_of_deleted_consumers_and_cleared_ones_are_not_acknowledged() {
    let member = |name: &str, pending| ConsumerReply {
        name: name.into(),
        pending: Some(pending),
        idle_ms: Some(0),
        inactive_ms: None,
    };
    let acknowledged = |change: fn(&mut Story)| {
        let mut story = Story::new();
        (story.pending, story.consumers) = (50, vec![member("a", 20), member("b", 30)]);
        story.oldest_pending = Some(90);
        story.sample();
        change(&mut story);
        story.sample().acknowledged_rate
    };
    // Twenty in five seconds.
    assert_eq!(acknowledged(|story| (story.pending, story.consumers[0].pending) = (30, Some(0))), Some(4.0));
    assert_eq!(acknowledged(|story| (story.pending, _) = (30, story.consumers.remove(0))), Some(0.0));
    // A consumer that holds nothing goes: those were acknowledged.
    assert_eq!(
        acknowledged(|story| {
            story.consumers[0].pending = Some(0);
            story.pending = 30;
            story.sample();
            (story.pending, _) = (25, story.consumers.remove(0));
        }),
        Some(2.5)
    );
    // Five more went, in addition to the twenty that it held.
    assert_eq!(acknowledged(|story| (story.pending, _) = (25, story.consumers.remove(0))), Some(1.0));
    // The whole stream is trimmed, so all that is pending has no payload; then it is cleared.
    let mut story = Story::new();
    (story.pending, story.oldest_pending, story.first) = (50, Some(51), 101);
    story.sample();
    (story.pending, story.oldest_pending) = (0, None);
    assert_eq!(story.sample().acknowledged_rate, Some(0.0));
}

#[test]
fn what_a_consumer_takes_with_enough_to_do_outlasts_quiet_times() {
    // So many entries are added and read in each of so many samples; the capacity after them.
    let phase = |story: &mut Story, samples, alive, added: u64, read: u64| {
        story.alive = alive;
        let mut capacity = None;
        for _ in 0..samples {
            story.last += added;
            story.read(read);
            capacity = story.sample().capacity;
        }
        capacity.map(|each| (each * 10.0).round() / 10.0)
    };
    let mut story = Story::new();
    assert_eq!(story.sample().capacity, None);
    // Two keep up with 10/s.
    assert_eq!(phase(&mut story, 8, 2, 50, 50), Some(5.0));
    // Two are behind, and take 40/s.
    assert_eq!(phase(&mut story, 12, 2, 300, 200), Some(20.0));
    // They catch up and have little to do; so have ten.
    assert_eq!(phase(&mut story, 6, 2, 0, 200), Some(20.0));
    assert_eq!(phase(&mut story, 20, 2, 50, 50), Some(20.0));
    assert_eq!(phase(&mut story, 20, 10, 50, 50), Some(20.0));
    // Nobody is there.
    assert_eq!(phase(&mut story, 20, 0, 0, 0), Some(20.0));
    // Each entry takes longer now: as long as they keep up nobody can tell, and then it is measured.
    assert_eq!(phase(&mut story, 12, 2, 300, 50), Some(5.0));
    // They are stuck: that says nothing of what they could do.
    assert_eq!(phase(&mut story, 12, 2, 300, 0), Some(5.0));
}

#[test]
fn idle_times_hold_once_the_server_was_watched_for_as_long_as_it_takes_to_be_dead() {
    let mut history = StreamHistory::default();
    let dead_after = WINDOWS.dead_after.as_secs();
    assert!(!history.idle_times_hold(Duration::from_secs(9 * dead_after), &WINDOWS), "nothing was watched yet");
    let mut take = |at: u64, continuity| {
        history.take(&StreamSample { continuity, ..StreamSample::default() }, Duration::from_secs(at), &WINDOWS);
        history.idle_times_hold(Duration::from_secs(at), &WINDOWS)
    };
    assert!(!take(100, Continuity::Unknown));
    assert!(!take(100 + dead_after - 1, Continuity::Continuous));
    assert!(take(100 + dead_after, Continuity::FullyReplaced));
    // Connected anew.
    let again = 200 + dead_after;
    assert!(!take(again, Continuity::Unknown));
    assert!(!take(again + dead_after - 1, Continuity::Continuous));
    assert!(take(again + dead_after, Continuity::Continuous));
    assert!(!take(again + 2 * dead_after, Continuity::Discontinuous));
}
