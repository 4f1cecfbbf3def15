//! What is asked, and what is believed, in samples that are made up.

use super::*;
use crate::model::reply::UnknownFields;

/// A stream with ids from `first` to `last`, to which so many entries were added, and a group that was given all up to `cursor`.
#[derive(Clone, Copy, Debug)]
struct SimpleStream {
    first: u64,
    last: u64,
    length: u64,
    added: u64,
    cursor: u64,
    entries_read: Option<u64>,
    server: Server,
}

/// Ids 1 to 1000, one of them missing, so that no counter tells the lag.
const SIMPLE: SimpleStream = SimpleStream {
    first: 1,
    last: 1000,
    length: 999,
    added: 1000,
    cursor: 500,
    entries_read: Some(500),
    server: Server::Counting,
};

/// The same, to which ten more were added.
const GROWN: SimpleStream = SimpleStream { last: 1010, length: 1009, added: 1010, ..SIMPLE };

impl SimpleStream {
    fn sample(self) -> TrackedSample {
        let reply = StreamReply {
            length: self.length,
            first: Some(id(self.first)),
            last: Some(id(self.last)),
            last_generated: id(self.last),
            entries_added: Some(self.added),
            max_deleted: Some(EntryId::default()),
            ..StreamReply::default()
        };
        let group = GroupReply {
            name: "a".into(),
            consumers: 1,
            last_delivered: id(self.cursor),
            entries_read: self.entries_read,
            ..GroupReply::default()
        };
        let trims_acknowledged = self.server == Server::TrimsAcknowledged;
        TrackedSample { reply, groups: vec![group], trims_acknowledged, needed: None }
    }

    fn open(self, tracker: &mut LagTracker) -> (Continuity, Queries) {
        let TrackedSample { reply, groups, trims_acknowledged, .. } = self.sample();
        let continuity = tracker.open(&reply, &groups, groups.iter(), trims_acknowledged);
        (continuity, tracker.ask(&reply, &groups[0], 10))
    }

    fn resolved(self, tracker: &mut LagTracker) -> Resolved {
        let TrackedSample { reply, groups, .. } = self.sample();
        tracker.resolve(&reply, &groups[0]).unwrap()
    }
}

/// A page of all that the group was not given.
fn undelivered() -> EntryPage {
    EntryPage { entries: 500, first: Some(id(501)), last: Some(id(1000)), ended: true, ..EntryPage::default() }
}

/// A tracker that has counted the lag of [`SIMPLE`]: 500.
fn counted() -> LagTracker {
    let mut tracker = LagTracker::with_small_lag(SMALL);
    let (_, ask) = SIMPLE.open(&mut tracker);
    assert!(ask.count.is_some() && ask.comes_along, "{ask:?}");
    SIMPLE.sample().counted(&mut tracker, Some(&"a".into()), &undelivered());
    let resolved = SIMPLE.resolved(&mut tracker);
    assert_eq!((resolved.lag, resolved.oldest_undelivered), (Lag { min: 500, max: 500, point: 500 }, Some(id(501))));
    tracker
}

#[test]
fn what_has_not_changed_is_not_asked_again() {
    let mut tracker = counted();
    assert_eq!(SIMPLE.open(&mut tracker), (Continuity::Continuous, Queries::default()));
    assert_eq!(tracker.anchors(), []);
    assert_eq!(tracker.rest(Some(&"a".into())), None);
}

#[test]
fn a_lag_that_hangs_on_an_earlier_sample_is_believed_while_the_entries_of_then_are_there() {
    let mut tracker = counted();
    assert_eq!(GROWN.open(&mut tracker), (Continuity::Continuous, Queries::default()));
    // The first that is undelivered, and the last of the sample before.
    assert_eq!(tracker.anchors(), [id(501), id(1000)]);
    assert_eq!(GROWN.resolved(&mut tracker).lag, Lag { min: 510, max: 510, point: 510 });
    // One of them is not there: it is another stream.
    tracker.anchor_is_gone();
    assert!(GROWN.resolved(&mut tracker).lag.uncertainty() > 0);
    let sample = GROWN.sample();
    assert!(tracker.ask(&sample.reply, &sample.groups[0], 10).count.is_some());
}

#[test]
fn over_a_new_connection_nothing_is_remembered() {
    let mut tracker = counted();
    tracker.forget();
    let (continuity, ask) = SIMPLE.open(&mut tracker);
    assert_eq!(continuity, Continuity::Unknown);
    assert!(ask.count.is_some() && ask.first.is_some());
    tracker.found_first(&"a".into(), Some(id(501)));
    assert_eq!(SIMPLE.resolved(&mut tracker).oldest_undelivered, Some(id(501)));
    assert_eq!(tracker.groups().cloned().collect::<Vec<_>>(), ["a".into()]);
}

#[test]
fn a_group_that_has_read_less_than_before_was_set_by_hand() {
    let mut tracker = counted();
    let (_, ask) = SimpleStream { entries_read: Some(499), ..SIMPLE }.open(&mut tracker);
    assert!(ask.count.is_some());
    // The new count hangs on nothing that was seen before.
    SimpleStream { entries_read: Some(499), ..GROWN }.open(&mut tracker);
    assert_eq!(tracker.anchors(), []);
    let mut tracker = counted();
    let (_, ask) = SimpleStream { entries_read: Some(501), ..SIMPLE }.open(&mut tracker);
    assert_eq!(ask, Queries::default());
}

#[test]
fn a_stream_that_has_lost_fewer_entries_than_it_must_have_is_another() {
    let check = |length, expected| {
        let mut tracker = counted();
        GROWN.open(&mut tracker);
        // All thousand of the first sample are gone.
        let now = SimpleStream { first: 1001, last: 1020, length, added: 1020, ..SIMPLE };
        assert_eq!(now.open(&mut tracker).0, expected, "{length}");
    };
    check(20, Continuity::Continuous);
    check(21, Continuity::Discontinuous);
}

#[test]
fn entries_may_have_gone_without_a_trace_where_the_server_can_do_that_and_some_are_gone() {
    let check = |server, length, expected| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        let seen = SimpleStream { server, length, ..SIMPLE };
        seen.open(&mut tracker);
        assert_eq!(seen.resolved(&mut tracker).untraced, id(expected), "{server:?} {length}");
        assert_eq!(tracker.counts_with_groups(), expected > 0, "{server:?} {length}");
        // Nothing is removed from here on.
        let grown = SimpleStream { last: 1001, length: length + 1, added: 1001, ..seen };
        grown.open(&mut tracker);
        assert_eq!(grown.resolved(&mut tracker).untraced, id(expected), "{server:?} {length}");
    };
    check(Server::Counting, 999, 0);
    check(Server::Counting, 1000, 0);
    check(Server::TrimsAcknowledged, 999, 1000);
    check(Server::TrimsAcknowledged, 1000, 0);
}

#[test]
fn a_stream_that_is_another_begins_with_what_may_have_gone_without_a_trace_from_it() {
    let check = |server, length, expected| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        SimpleStream { length: 1000, server, ..SIMPLE }.open(&mut tracker);
        let now = SimpleStream { length, server, ..GROWN };
        now.open(&mut tracker);
        tracker.anchor_is_gone();
        assert_eq!(now.resolved(&mut tracker).untraced, id(expected), "{server:?} {length}");
    };
    check(Server::Counting, 1005, 0);
    check(Server::TrimsAcknowledged, 1005, 1010);
    check(Server::TrimsAcknowledged, 1010, 0);
}

/// From the front, if that is less than half as much.
#[test]
fn what_is_shorter_is_counted() {
    let check = |server, trimmed: bool, cursor, page, expected: bool| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        let whole =
            SimpleStream { length: 5001, last: 5001, added: 5001, cursor, entries_read: None, server, ..SIMPLE };
        whole.open(&mut tracker);
        tracker.forget();
        whole.open(&mut tracker);
        let now = SimpleStream { length: 5001 - u64::from(trimmed), ..whole };
        let (_, ask) = now.open(&mut tracker);
        assert_eq!(ask.page, page, "{server:?} {trimmed} {cursor}");
        let range = tracker.rest(Some(&"a".into())).unwrap();
        assert_eq!((range.is_from_the_front(), range.is_to_the_end()), (expected, false), "{cursor}");
        (tracker, now)
    };
    for server in [Server::Counting, Server::TrimsAcknowledged] {
        check(server, false, 1500, None, true);
        check(server, false, 1800, None, false);
    }
    // From here on nothing may be removed until it is counted.
    check(Server::Counting, true, 500, None, false);
    check(Server::TrimsAcknowledged, true, 1500, None, false);
    // Or it is counted in one page, which comes with the groups.
    let (mut tracker, now) = check(Server::TrimsAcknowledged, true, 500, Some(AT_ONCE), true);
    let more = EntryPage { entries: 100, last: Some(id(101)), ..EntryPage::default() };
    assert_eq!(now.sample().counted(&mut tracker, Some(&"a".into()), &more), Counted::Taken);
    assert_eq!(tracker.rest(Some(&"a".into())), None, "a second page would tell nothing");
    // There were more than fit in a page, so it is not tried again while the stream is trimmed.
    let trimmed = SimpleStream { length: 4990, ..now };
    assert_eq!(trimmed.open(&mut tracker).1.page, None);
}

/// Of a page that came without the groups nobody knows up to where entries may have gone without a trace.
#[test]
fn a_page_without_the_groups_tells_a_lag_if_nothing_was_removed() {
    let check = |with_groups, length, expected| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        let seen = SimpleStream { length: 1000, server: Server::TrimsAcknowledged, ..SIMPLE };
        seen.open(&mut tracker);
        let later = SimpleStream { length, ..seen }.sample();
        let groups = Some(&*later.groups).filter(|_| with_groups);
        assert_eq!(tracker.counted(Some(&"a".into()), &undelivered(), &later.reply, groups), Counted::Taken);
        assert_eq!(seen.resolved(&mut tracker).lag.uncertainty() == 0, expected, "{with_groups} {length}");
    };
    check(true, 1000, true);
    check(false, 1000, true);
    // Up to the cursor of the only group.
    check(true, 990, true);
    check(false, 990, false);
}

#[test]
fn the_oldest_undelivered_entry_is_the_one_of_before_while_nothing_can_have_taken_it() {
    let check = |now: SimpleStream, max_deleted, expected: Option<u64>| {
        let mut tracker = counted();
        let mut sample = now.sample();
        sample.reply.max_deleted = Some(id(max_deleted));
        sample.open(&mut tracker);
        let oldest = tracker.resolve(&sample.reply, &sample.groups[0]).unwrap().oldest_undelivered;
        assert_eq!(oldest, expected.map(id), "{now:?} {max_deleted}");
    };
    check(GROWN, 0, Some(501));
    check(SimpleStream { first: 201, length: 809, ..GROWN }, 0, Some(501));
    check(SimpleStream { length: 1008, ..GROWN }, 500, Some(501));
    check(SimpleStream { length: 1008, ..GROWN }, 501, None);
    check(SimpleStream { length: 1008, ..GROWN }, 502, None);
}

#[test]
fn up_to_the_lowest_cursor_that_only_rose_entries_may_have_gone_without_a_trace() {
    let group = |name: &str, at, read, consumers| GroupReply {
        name: name.into(),
        last_delivered: id(at),
        entries_read: read,
        consumers,
        ..GroupReply::default()
    };
    let before = [group("a", 10, Some(5), 2), group("b", 20, None, 1)];
    let check = |now: &[GroupReply], expected: Option<u64>| {
        assert_eq!(lowest_that_only_rose(&cursors_of(&before), now), expected.map(id), "{now:?}");
    };
    check(&before, Some(10));
    check(&[group("a", 30, Some(7), 3), group("b", 20, None, 1)], Some(20));
    check(&[group("b", 25, None, 1), group("a", 30, Some(7), 3)], Some(25));
    check(&[group("0", 1, None, 1), group("a", 10, Some(5), 2), group("b", 20, None, 1)], Some(10));
    // Set back or created again, as far as that shows.
    check(&[group("a", 9, Some(5), 2), group("b", 20, None, 1)], Some(20));
    check(&[group("a", 10, Some(4), 2), group("b", 20, None, 1)], Some(20));
    check(&[group("a", 10, None, 2), group("b", 20, None, 1)], Some(20));
    check(&[group("a", 10, Some(5), 1), group("b", 20, None, 1)], Some(20));
    check(&[group("c", 5, None, 1)], None);
    let unknown = |unknown| [GroupReply { unknown, ..group("a", 10, Some(5), 2) }];
    for field in [
        UnknownFields { last_delivered: true, ..UnknownFields::default() },
        UnknownFields { consumers: true, ..UnknownFields::default() },
    ] {
        check(&unknown(field), None);
        assert_eq!(lowest_that_only_rose(&cursors_of(&unknown(field)), &before), None);
    }
}

#[test]
fn pages_come_with_the_groups_from_the_sample_on_in_which_entries_may_have_gone_without_a_trace() {
    let mut tracker = LagTracker::with_small_lag(SMALL);
    let whole = SimpleStream { length: 1000, server: Server::TrimsAcknowledged, ..SIMPLE };
    whole.open(&mut tracker);
    assert!(!tracker.counts_with_groups());
    let trimmed = SimpleStream { length: 990, ..whole };
    trimmed.open(&mut tracker);
    assert!(tracker.counts_with_groups());
    // Up to the cursor of the only group.
    assert_eq!(trimmed.resolved(&mut tracker).untraced, id(500));
    trimmed.open(&mut tracker);
    assert!(tracker.counts_with_groups());
}

#[test]
fn a_small_lag_is_counted_though_the_counters_tell_it_unless_that_reads_too_much() {
    let check = |entry_bytes, expected| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        // Read up to two before the end, in steps that were watched; then the first entry is trimmed.
        for (last, cursor) in [(998, 998), (1000, 998)] {
            let seen = SimpleStream { last, length: last, added: last, cursor, entries_read: Some(cursor), ..SIMPLE };
            seen.open(&mut tracker);
            let lag = seen.resolved(&mut tracker).lag;
            assert_eq!((lag.min, lag.max), (last - cursor, last - cursor));
        }
        let changed = SimpleStream { first: 2, cursor: 998, entries_read: Some(998), ..SIMPLE }.sample();
        changed.open(&mut tracker);
        let ask = tracker.ask(&changed.reply, &changed.groups[0], entry_bytes);
        assert_eq!(ask.count, expected, "{entry_bytes}");
    };
    check(10, Some(1));
    check(SMALL_BYTES / 2, Some(1));
    check(SMALL_BYTES / 2 + 1, None);
}

#[test]
fn what_no_group_needs_is_counted_once_it_stands_still_and_seldom_while_it_moves() {
    let mut tracker = LagTracker::with_small_lag(SMALL);
    let mut asked = Vec::new();
    // Each is the lowest that a group needs: it moves for half a minute, and then stands.
    for needed in (100..115).chain([114; 3]) {
        let sample = SIMPLE.sample();
        sample.open(&mut tracker);
        let ask = tracker.hold(&sample.reply, id(needed), 10);
        assert_eq!(ask.first, None, "its age is not asked for");
        asked.push(ask.count.is_some());
        if let Some(range) = tracker.rest(None) {
            let entries = range.to.ms - range.from.ms + 1;
            let page = EntryPage { entries, last: Some(id(needed - 1)), ended: true, ..EntryPage::default() };
            assert_eq!(sample.counted(&mut tracker, None, &page), Counted::Taken);
            assert_eq!(tracker.below_held(&sample.reply, id(needed)), Some(needed - 1));
            assert_eq!(tracker.below_held(&sample.reply, id(needed - 1)), None, "what is held lies above");
        }
    }
    let expected = [&[true][..], &[false; 12], &[true, false, true, false, false]].concat();
    assert_eq!(asked, expected);
}

#[test]
fn a_group_that_stands_at_the_lowest_entry_that_is_needed_has_counted_for_it() {
    let mut tracker = counted();
    let sample = SIMPLE.sample();
    let after = EntryId { ms: 500, seq: 1 };
    tracker.hold(&sample.reply, after, 10);
    assert_eq!(tracker.below_held(&sample.reply, after), Some(499));
    // That was before more were added.
    let mut tracker = counted();
    let grown = GROWN.sample();
    tracker.hold(&grown.reply, after, 10);
    assert_ne!(tracker.below_held(&grown.reply, after), Some(509));
}

/// By the ids of a page that was read in the moment of the sample, the lag is known without any counter.
#[test]
fn a_page_of_the_moment_tells_the_lag_by_its_ids() {
    let page = |ids: std::ops::RangeInclusive<u64>, ended| EntryPage {
        entries: ids.clone().count() as u64,
        first: Some(id(*ids.start())),
        last: Some(id(*ids.end())),
        ids: ids.map(id).collect(),
        ended,
        ..EntryPage::default()
    };
    let check = |range: CountRange, page: &EntryPage, expected| {
        let mut tracker = LagTracker::with_small_lag(SMALL);
        SIMPLE.open(&mut tracker);
        tracker.counted_at_once(&"a".into(), &range, page);
        let resolved = SIMPLE.resolved(&mut tracker);
        let exact = (resolved.lag.uncertainty() == 0).then_some(resolved.lag.point);
        assert_eq!(exact, expected, "{range:?}");
        let next = page.ids.iter().find(|found| **found > id(500));
        assert_eq!(resolved.oldest_undelivered, next.copied().filter(|_| expected.is_some()), "{range:?}");
    };
    let below = |from| CountRange { from: id(from), to: id(500), side: count::CountSide::Below };
    check(below(1), &page(1..=510, false), Some(499));
    check(below(1), &page(1..=500, false), Some(499));
    check(below(1), &page(1..=499, false), None);
    check(below(3), &page(3..=510, false), None);
    let above = |from, to, rank| CountRange { from: id(from), to: id(to), side: count::CountSide::Above { rank } };
    let after = CountRange { from: EntryId { ms: 500, seq: 1 }, ..above(501, 1000, None) };
    check(after, &page(501..=1000, true), Some(500));
    check(after, &page(501..=999, false), None);
    check(above(490, 1000, None), &page(490..=1000, true), Some(500));
    check(above(510, 1000, None), &page(510..=1000, true), None);
    // Up to a mark, beyond which it is known how many were added.
    check(above(490, 600, Some(620)), &page(490..=600, false), Some(100 + 380));
    check(above(490, 600, Some(620)), &page(490..=599, false), None);
    check(above(490, 499, Some(620)), &page(490..=600, false), None);
}
