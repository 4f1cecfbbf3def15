//! What is known of one group, from sample to sample, and the lag that follows from it.

use crate::analysis::lag::bounds::{LastTold, estimate};
use crate::analysis::lag::timeline::Timeline;
use crate::analysis::lag::tracker::count::Count;
use crate::model::lag::Lag;
use crate::model::reply::StreamReply;
use crate::model::{EntryId, GroupName};

/// What is known of one group.
#[derive(Debug)]
pub(super) struct GroupTracker {
    pub(super) name: GroupName,
    /// What the server says of entries read: no proof of anything, but a sign of change.
    pub(super) entries_read: Option<u64>,
    /// What is known of the cursor.
    pub(super) here: CursorKnowledge,
    /// What was known of the last one that the group has moved on from.
    pub(super) before: Option<Box<CursorKnowledge>>,
    /// The first entry after the cursor, and the sample for which it was found.
    pub(super) oldest_undelivered: Option<(EntryId, StreamReply)>,
    /// Entries up to this id may have been removed without a trace since then.
    pub(super) oldest_untraced: EntryId,
    /// Whether the lag at this sample depends on earlier samples.
    pub(super) depends_on_earlier: bool,
    /// Seldom there, and large.
    pub(super) count: Option<Box<Count>>,
    /// The most that the lag was at some sample, with this cursor or a lower one.
    pub(super) most: Option<(u64, StreamReply)>,
    /// More entries lie at or below the cursor than one page reads.
    pub(super) many_below: bool,
    /// The lag that was told at the last sample.
    pub(super) told: Option<LastTold>,
}

/// What is known of one cursor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CursorKnowledge {
    pub(super) cursor: EntryId,
    /// The lag at some sample, exact then.
    pub(super) exact: Option<(u64, StreamReply)>,
    /// Entries up to this id may have been removed without a trace since then.
    pub(super) untraced: EntryId,
    /// Entries ever added up to and including the cursor.
    pub(super) rank: Option<u64>,
}

impl CursorKnowledge {
    /// The lag, where the counters prove it.
    ///
    /// It was exact at an earlier sample, and what was added since was added above the cursor. Since then nothing was removed at
    /// all, or nothing above the cursor: no such removal left a trace, and those that leave none took lower entries only.
    pub(super) fn exact_by_counters(&self, now: &StreamReply) -> Option<u64> {
        let (lag, then) = self.exact.filter(|(_, then)| self.cursor <= then.last_generated)?;
        let none_above = || now.no_trace_of_removal_above(self.cursor) && self.untraced <= self.cursor;
        let intact = now.nothing_removed_since(&then) || none_above();
        lag.checked_add(now.added_since(&then).filter(|_| intact)?)
    }
}

impl GroupTracker {
    pub(super) fn new(name: GroupName) -> Self {
        Self {
            name,
            entries_read: None,
            here: CursorKnowledge::default(),
            before: None,
            oldest_undelivered: None,
            depends_on_earlier: false,
            oldest_untraced: EntryId::default(),
            count: None,
            most: None,
            many_below: false,
            told: None,
        }
    }

    /// Entries up to this id may have been removed without a trace since the newest sample.
    pub(super) fn removed_up_to(&mut self, id: EntryId) {
        self.here.untraced = self.here.untraced.max(id);
        self.oldest_untraced = self.oldest_untraced.max(id);
        if let Some(before) = &mut self.before {
            before.untraced = before.untraced.max(id);
        }
        if let Some(count) = &mut self.count {
            count.removed_up_to(id);
        }
    }

    pub(super) fn forget(&mut self) {
        let here = CursorKnowledge { cursor: self.here.cursor, ..CursorKnowledge::default() };
        *self = Self { here, entries_read: self.entries_read, ..Self::new(self.name.clone()) };
    }

    /// Moves to a cursor. After reading on, what was known of the last one still tells something.
    pub(super) fn at(&mut self, cursor: EntryId) {
        if cursor < self.here.cursor {
            self.forget();
        } else if cursor > self.here.cursor {
            if self.here.exact.is_some() {
                self.before = Some(Box::new(self.here));
            }
            self.here = CursorKnowledge::default();
            self.oldest_undelivered = None;
            // What was counted ahead of the new cursor is still of use.
            self.count = self.count.take().and_then(|count| count.go_on_from(cursor)).map(Box::new);
        }
        self.here.cursor = cursor;
    }

    /// The highest id at or below the cursor above which the number of entries is known, and that number.
    pub(super) fn floor(&self, now: &StreamReply, marks: &Timeline) -> Option<(EntryId, u64)> {
        let before = self.before.as_ref().and_then(|before| Some((before.cursor, before.exact_by_counters(now)?)));
        let mark = marks.at_or_below(self.here.cursor).filter(|(id, _)| marks.all_there_above(*id, now));
        let mark = mark.and_then(|(id, rank)| Some((id, now.entries_added?.checked_sub(rank)?)));
        before.max(mark)
    }

    /// Whether a lag that was counted cannot be true if the counters are.
    pub(super) fn contradicts(&self, lag: u64, now: &StreamReply, marks: &Timeline) -> bool {
        let whole = marks.all_ever_there_above(self.here.cursor, now);
        let told = self.here.rank.filter(|_| whole).and_then(|rank| now.entries_added?.checked_sub(rank));
        told.is_some_and(|told| told != lag) || !marks.allow(self.here.cursor, now.entries_added, lag, whole)
    }

    /// Keeps a lag that is exact at the sample `now`.
    pub(super) fn remember(&mut self, lag: u64, now: &StreamReply, marks: &Timeline) {
        (self.here.exact, self.here.untraced) = (Some((lag, *now)), EntryId::default());
        // A cursor ahead of every id (`XGROUP SETID`) may still see entries added below it.
        if marks.all_ever_there_above(self.here.cursor, now) && self.here.cursor <= now.last_generated {
            self.here.rank = now.entries_added.and_then(|added| added.checked_sub(lag));
        }
    }

    /// The lag of a cursor in mid-stream.
    pub(super) fn lag(&self, now: &StreamReply, marks: &Timeline, server_lag: Option<u64>) -> Lag {
        // The first entry lies at or below the cursor, so at most length - 1 lie above it; the last entry lies above it,
        // so at least one does.
        let widest = (1, now.length.saturating_sub(1).max(1));
        let (mut min, mut max) = widest;
        let mut narrow = |low: u64, high: u64| (min, max) = (min.max(low), max.min(high));
        if let Some(lag) = self.here.exact_by_counters(now) {
            narrow(lag, lag);
        }
        if let Some((least, most)) = self.added_after(now, marks) {
            // What is there was added. What was added is there, unless it was removed.
            let all_there = match self.here.rank {
                Some(_) => marks.all_ever_there_above(self.here.cursor, now),
                None => marks.at_or_above(self.here.cursor).is_some_and(|(id, _)| marks.all_there_above(id, now)),
            };
            narrow(if all_there { least } else { 0 }, most);
        }
        if let Some((added, (_, rank))) = now.entries_added.zip(marks.at_or_below(self.here.cursor)) {
            narrow(0, added.saturating_sub(rank));
        }
        if let Some((then, facts)) = self.here.exact.filter(|(_, facts)| self.here.cursor <= facts.last_generated) {
            // What was there then, and what was added since, less what was removed, wherever that was.
            match (now.added_since(&facts), now.removed().zip(facts.removed())) {
                (Some(added), Some((removed, removed_then))) => {
                    let grown = then.saturating_add(added);
                    narrow(grown.saturating_sub(removed.saturating_sub(removed_then)), grown);
                }
                // Nothing is ever added at or below the cursor, so what is not above it can only have become less.
                _ => narrow(now.length.saturating_sub(facts.length.saturating_sub(then)), u64::MAX),
            }
        }
        if let Some((most, facts)) = self.most
            && let Some(added) = now.added_since(&facts)
        {
            // Removals and reads only lower it: at most what was there, plus what was added.
            narrow(0, most.saturating_add(added));
        }
        if let Some(count) = self.count.as_ref().filter(|count| count.still_good(now) && !count.is_ahead()) {
            let (least, most) = count.bounds(now);
            narrow(least, most);
        }
        if min > max {
            // Facts that contradict each other: what is remembered is not believed.
            (min, max) = widest;
        }
        let ids = (now.first, self.here.cursor, now.last);
        let moved = self.told.and_then(|told| told.moved(self.here.cursor, now.length, now.entries_added));
        Lag::bounded(min, max, estimate(now.length, ids, (server_lag, moved), (min, max)))
    }

    /// How many entries were ever added after the cursor. Sound by definition of entries-added: a mark says how many
    /// were added up to its id, and ids only rise.
    pub(super) fn added_after(&self, now: &StreamReply, marks: &Timeline) -> Option<(u64, u64)> {
        let added = now.entries_added?;
        if let Some(rank) = self.here.rank {
            let after = added.checked_sub(rank)?;
            return Some((after, after));
        }
        let below = marks.added_at_or_below(self.here.cursor).unwrap_or(0);
        let above = marks.at_or_above(self.here.cursor).map_or(added, |(_, rank)| rank);
        Some((added.checked_sub(above)?, added.checked_sub(below)?))
    }

    /// The first entry after the cursor, where it must be the one of last time: it is neither trimmed nor deleted.
    pub(super) fn oldest_undelivered(&self, now: &StreamReply) -> Option<EntryId> {
        let (oldest, found) = self.oldest_undelivered?;
        let not_trimmed = now.first.is_some_and(|first| first <= oldest);
        let not_deleted = now.max_deleted.is_some_and(|deleted| deleted < oldest) && self.oldest_untraced < oldest;
        let untouched = || now.nothing_removed_since(&found);
        ((not_trimmed && not_deleted) || untouched()).then_some(oldest)
    }
}
