//! Counting: entries in a range of ids, page by page, over several samples where it is long.

use crate::analysis::lag::timeline::Timeline;
use crate::model::EntryId;
use crate::model::lag::{Continuity, EntryPage, Lag};
use crate::model::reply::StreamReply;

/// A range of ids to be counted; both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRange {
    /// The next id to be counted.
    pub from: EntryId,
    /// The last id to be counted.
    pub to: EntryId,
    pub(in crate::analysis) side: CountSide,
}

impl CountRange {
    /// Whether it ends at the end of the stream.
    #[must_use]
    pub fn is_to_the_end(&self) -> bool {
        matches!(self.side, CountSide::Above { rank: None })
    }

    /// Whether it begins at the front of the stream.
    #[must_use]
    pub fn is_from_the_front(&self) -> bool {
        self.side == CountSide::Below
    }

    /// The lag of a group at `cursor`, in the very moment of a page from the beginning of this range on: by its ids, and what is known
    /// of the rest of the stream. `None` where the page does not reach as far as it must.
    pub(in crate::analysis) fn lag_at_once(
        &self,
        page: &EntryPage,
        cursor: EntryId,
        now: &StreamReply,
        marks: &Timeline,
    ) -> Option<u64> {
        let up_to = |id: EntryId| page.ids.partition_point(|found| *found <= id) as u64;
        let reaches = |id: EntryId| page.ended || page.ids.last().is_some_and(|last| *last >= id);
        match self.side {
            CountSide::Below if now.first.is_none_or(|first| first >= self.from) && reaches(cursor) => {
                now.length.checked_sub(up_to(cursor))
            }
            CountSide::Above { rank } if Some(self.from) <= cursor.next() && self.to >= cursor && reaches(self.to) => {
                let within = up_to(self.to) - up_to(cursor);
                match rank {
                    // Every entry beyond the mark that was added is there.
                    Some(rank) => within
                        .checked_add(now.entries_added?.checked_sub(rank)?)
                        .filter(|_| marks.all_there_above(self.to, now)),
                    None => page.ended.then_some(page.ids.len() as u64 - up_to(cursor)),
                }
            }
            _ => None,
        }
    }

    /// Whether its first entry is the first one after the cursor.
    pub(in crate::analysis) fn begins_after(&self, cursor: EntryId) -> bool {
        matches!(self.side, CountSide::Above { .. }) && Some(self.from) == cursor.next()
    }
}

/// Which side of the cursor is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analysis) enum CountSide {
    /// The entries above the cursor up to `to`; this many were ever added up to that id, where the server tells.
    Above { rank: Option<u64> },
    /// The entries up to the cursor.
    Below,
    /// The entries from a lower id up to the cursor; this many lay above that id when the count began.
    Between { above: u64 },
}

/// Which sides may be counted.
#[derive(Clone, Copy, Debug)]
pub(in crate::analysis) enum Sides {
    /// Only what is to be delivered.
    Above,
    /// Whichever is the shortest.
    Any {
        /// An id at or below the cursor above which this many entries lie.
        floor: Option<(EntryId, u64)>,
        /// How many entries may be counted from the front of the stream: a longer count would not hold where entries are being
        /// removed.
        below: u64,
    },
}

/// A count in progress: entries in a range of ids, page by page, over several samples where it is long.
#[derive(Clone, Debug)]
pub(in crate::analysis) struct Count {
    pub(in crate::analysis) range: CountRange,
    pub(in crate::analysis) counted: u64,
    /// The sample in which it began.
    pub(in crate::analysis) begun: StreamReply,
    /// It holds while nothing is removed above this id, or nothing at all.
    floor: EntryId,
    /// Entries up to this id may have been removed without a trace since it began.
    untraced: EntryId,
    /// Whether it is of use only where one page tells all.
    at_once: bool,
    /// The ends of pages, and how many entries were counted up to them.
    ends: Vec<(EntryId, u64)>,
    /// Whether the group has moved on since, so that only what lies ahead of it is of use.
    ahead: bool,
}

/// Ends of pages that are kept of a count; with more, every second one goes.
const MAX_ENDS: usize = 64;

impl Count {
    /// A count that will tell the lag; `None` where there is no id to begin at.
    pub(in crate::analysis) fn begin(
        now: &StreamReply,
        cursor: EntryId,
        to: Option<(EntryId, u64)>,
        lag: Lag,
        sides: Sides,
    ) -> Option<Self> {
        let (to, rank) = to.map_or((now.last_generated, now.entries_added), |(id, rank)| (id, Some(rank)));
        // What lies between the end of the range and the end of the stream is known from the marks.
        let beyond = rank.zip(now.entries_added).map_or(0, |(rank, added)| added.saturating_sub(rank));
        let mut best = CountRange { from: cursor.next()?, to, side: CountSide::Above { rank } };
        let (mut length, mut floor) = (lag.point.saturating_sub(beyond), cursor);
        if let Sides::Any { floor: Some((id, above)), .. } = sides
            && above.saturating_sub(lag.point) < length
        {
            best = CountRange { from: id.next()?, to: cursor, side: CountSide::Between { above } };
            (length, floor) = (above.saturating_sub(lag.point), id);
        }
        // Half as long is worth it: from here nothing at all may be removed meanwhile.
        let mut at_once = false;
        if let Sides::Any { below: most, .. } = sides
            && let below = now.length.saturating_sub(lag.point)
            && below <= most
            && below.saturating_mul(2) < length
        {
            best = CountRange { from: now.first?, to: cursor, side: CountSide::Below };
            at_once = most < u64::MAX;
        }
        Some(Self {
            range: best,
            counted: 0,
            begun: *now,
            floor,
            untraced: EntryId::default(),
            at_once,
            ends: Vec::new(),
            ahead: false,
        })
    }

    /// Whether it is of use only where one page tells all.
    pub(in crate::analysis) fn is_at_once(&self) -> bool {
        self.at_once
    }

    /// Whether it tells only of what lies ahead of the group, which has moved on since it began.
    pub(in crate::analysis) fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// The same count for a group that has moved on to `cursor`, where there is anything in it for that.
    pub(in crate::analysis) fn go_on_from(mut self, cursor: EntryId) -> Option<Self> {
        let goes_on = matches!(self.range.side, CountSide::Above { rank: Some(_) }) && cursor < self.range.from;
        if !goes_on || self.at_once {
            return None;
        }
        // What was counted below the new cursor may be removed from now on.
        self.ends.retain(|(id, _)| *id >= cursor);
        (self.floor, self.ahead) = (cursor, true);
        Some(self)
    }

    /// The ends of the pages of a complete count, with the number of entries as a mark has it.
    pub(in crate::analysis) fn boundaries(&self) -> impl Iterator<Item = (EntryId, u64)> {
        let rank = match self.range.side {
            CountSide::Above { rank } => rank,
            CountSide::Below | CountSide::Between { .. } => None,
        };
        let to_the_end = |up_to: u64| self.counted.saturating_sub(up_to);
        self.ends.iter().filter_map(move |(id, up_to)| Some((*id, rank?.checked_sub(to_the_end(*up_to))?)))
    }

    /// Entries up to this id may have been removed without a trace since the last page.
    pub(in crate::analysis) fn removed_up_to(&mut self, id: EntryId) {
        self.untraced = self.untraced.max(id);
    }

    /// Whether what was counted so far still stands at the sample `now`.
    pub(in crate::analysis) fn still_good(&self, now: &StreamReply) -> bool {
        if now.nothing_removed_since(&self.begun) {
            return true;
        }
        // From here on only what was counted from below depends on anything at or below the floor.
        self.range.side != CountSide::Below && now.no_trace_of_removal_above(self.floor) && self.untraced <= self.floor
    }

    /// Whether a complete count tells the lag at the sample `now`, when at the last page the stream was as in `after`.
    pub(in crate::analysis) fn holds(
        &self,
        now: &StreamReply,
        after: &StreamReply,
        page: &EntryPage,
        untraced: EntryId,
    ) -> bool {
        if after.since(now, untraced) != Continuity::Continuous {
            return false;
        }
        if self.still_good(after) {
            return true;
        }
        // Before 7.0: what was added meanwhile was counted beyond the end of the range, and the length has grown by just
        // that, so nothing was removed.
        now.entries_added.is_none()
            && self.range.is_to_the_end()
            && page.ended
            && after.length.checked_sub(self.begun.length) == Some(page.beyond)
            && self.still_good(now)
    }

    /// Takes a page; answers whether it was the last one.
    pub(in crate::analysis) fn take(&mut self, page: &EntryPage) -> bool {
        self.counted = self.counted.saturating_add(page.entries);
        if let Some(last) = page.last {
            self.ends.push((last, self.counted));
            if self.ends.len() > MAX_ENDS {
                let mut place = 0;
                self.ends.retain(|_| (place += 1, place % 2 == 0).1);
            }
        }
        match page.last.map(EntryId::next) {
            Some(Some(next)) => self.range.from = next,
            // There is no id after the largest one.
            Some(None) => return true,
            None => {}
        }
        page.ended || page.beyond > 0 || self.range.from > self.range.to
    }

    /// The lag at the sample `now`, where the count is complete.
    pub(in crate::analysis) fn lag(&self, now: &StreamReply) -> Option<u64> {
        match self.range.side {
            CountSide::Above { rank: Some(rank) } => self.counted.checked_add(now.entries_added?.checked_sub(rank)?),
            CountSide::Above { rank: None } => Some(self.counted),
            CountSide::Below => now.length.checked_sub(self.counted),
            CountSide::Between { above } => self.grown(above, now)?.checked_sub(self.counted),
        }
    }

    /// How many of that kind there are at the sample `now`, when there were `above` as it began.
    fn grown(&self, above: u64, now: &StreamReply) -> Option<u64> {
        above.checked_add(now.added_since(&self.begun)?)
    }

    /// Whether it counts all that is to be delivered, from the first page of this sample on.
    pub(in crate::analysis) fn is_self_contained(&self) -> bool {
        matches!(self.range.side, CountSide::Above { .. })
            && self.counted == 0
            && self.range.to >= self.begun.last_generated
    }

    /// What a count says before it is complete: at least what was counted lies on its side of the cursor.
    pub(in crate::analysis) fn bounds(&self, now: &StreamReply) -> (u64, u64) {
        match self.range.side {
            CountSide::Above { rank: Some(rank) } => {
                let beyond = now.entries_added.map_or(0, |added| added.saturating_sub(rank));
                (self.counted.saturating_add(beyond), u64::MAX)
            }
            CountSide::Above { rank: None } => (self.counted, u64::MAX),
            CountSide::Below => (0, now.length.saturating_sub(self.counted)),
            CountSide::Between { above } => {
                (0, self.grown(above, now).map_or(u64::MAX, |above| above.saturating_sub(self.counted)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    const NOW: StreamReply = StreamReply {
        length: 10_000,
        first: Some(EntryId { ms: 1, seq: 0 }),
        last: Some(EntryId { ms: 10_000, seq: 0 }),
        last_generated: EntryId { ms: 10_000, seq: 0 },
        entries_added: Some(10_000),
        max_deleted: Some(EntryId { ms: 0, seq: 0 }),
        ends_unknown: false,
        payload_bytes: 0,
    };

    /// Whichever is shorter, with nothing known in between.
    const EITHER: Sides = Sides::Any { floor: None, below: u64::MAX };

    /// A count for a group that was given 1000 of them.
    fn begin(to: Option<(EntryId, u64)>, sides: Sides) -> Count {
        Count::begin(&NOW, id(1000), to, Lag { min: 1, max: 10_000, point: 9000 }, sides).unwrap()
    }

    fn page(from: u64, entries: u64) -> EntryPage {
        let last = from + entries - 1;
        EntryPage {
            entries,
            first: Some(id(from)),
            last: Some(id(last)),
            ended: last >= 10_000,
            ..EntryPage::default()
        }
    }

    #[test]
    fn the_ends_of_many_pages_become_marks_that_are_as_sound_and_fewer() {
        let mut count = begin(None, Sides::Above);
        let pages: Vec<bool> = (0..90).map(|n| count.take(&page(1001 + 100 * n, 100))).collect();
        assert_eq!((pages.iter().filter(|complete| **complete).count(), pages[89]), (1, true));
        assert_eq!(count.lag(&NOW), Some(9000));
        let marks: Vec<(EntryId, u64)> = count.boundaries().collect();
        assert!((MAX_ENDS / 2..=MAX_ENDS).contains(&marks.len()), "{}", marks.len());
        // Nothing was removed: up to each id as many were added.
        assert!(marks.iter().all(|(id, rank)| id.ms == *rank), "{marks:?}");
    }

    #[test]
    fn a_count_is_complete_at_its_end_at_the_end_of_the_stream_or_with_what_lies_beyond() {
        let check = |to: Option<(EntryId, u64)>, page: EntryPage, expected: bool| {
            assert_eq!(begin(to, Sides::Above).take(&page), expected, "{page:?}");
        };
        check(None, page(1001, 100), false);
        check(None, EntryPage { ended: true, ..page(1001, 100) }, true);
        check(None, EntryPage { beyond: 1, ..page(1001, 100) }, true);
        check(None, EntryPage::default(), false);
        let mark = Some((id(1100), 1100));
        check(mark, page(1001, 99), false);
        check(mark, page(1001, 100), true);
    }

    #[test]
    fn what_was_counted_ahead_of_a_group_is_of_use_when_it_moves_on() {
        let mut begun = begin(None, Sides::Above);
        begun.take(&page(1001, 1000));
        let ahead = begun.clone().go_on_from(id(1500)).unwrap();
        assert!(ahead.is_ahead() && !begun.is_ahead());
        assert_eq!(ahead.range, begun.range);
        // Beyond all that was counted there is nothing in it.
        assert!(begun.clone().go_on_from(id(2500)).is_none());
        // Nor in one of the other side.
        let below = begin(None, EITHER);
        assert!(below.range.is_from_the_front() && below.go_on_from(id(1500)).is_none());
    }

    #[test]
    fn a_count_of_all_that_is_undelivered_hangs_on_nothing_until_it_has_begun() {
        assert!(begin(None, Sides::Above).is_self_contained());
        let mut begun = begin(None, Sides::Above);
        begun.take(&page(1001, 100));
        assert!(!begun.is_self_contained());
        assert!(!begin(Some((id(2000), 2000)), Sides::Above).is_self_contained(), "to a mark");
        assert!(!begin(None, EITHER).is_self_contained());
    }

    /// Nearest is a cursor of before, from which the lag is known.
    #[test]
    fn a_count_begins_at_the_nearest_id_of_which_something_is_known() {
        let range = |above, below| begin(None, Sides::Any { floor: Some((id(900), above)), below }).range;
        let nearest = range(9100, u64::MAX);
        assert_eq!((nearest.from, nearest.to), (EntryId { ms: 900, seq: 1 }, id(1000)));
        // The beginning is as near, and far better than the end.
        assert!(range(18_000, u64::MAX).is_from_the_front());
        assert_eq!(range(18_000, 999).from, EntryId { ms: 1000, seq: 1 });
    }
}
