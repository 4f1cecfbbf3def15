//! What the counters of a stream say from one sample to the next, and whether both can be of the same stream.

use crate::model::EntryId;
use crate::model::lag::Continuity;
use crate::model::reply::StreamReply;

impl StreamReply {
    /// Entries ever removed: every one lowers the length and leaves entries-added as it is.
    pub(in crate::analysis) fn removed(&self) -> Option<u64> {
        self.entries_added?.checked_sub(self.length)
    }

    /// Whether nothing was removed from `earlier` until now, and nothing else happened than that entries were added.
    ///
    /// Since 7.0 the difference of entries-added and length tells. Before, only a stream to which nothing was added
    /// either does: its length can only fall.
    pub(in crate::analysis) fn nothing_removed_since(&self, earlier: &Self) -> bool {
        match (self.removed(), earlier.removed()) {
            (Some(now), Some(then)) => now == then,
            _ => self.last_generated == earlier.last_generated && self.length == earlier.length,
        }
    }

    /// Whether no removal that leaves a trace took an entry above `id`: trimming takes from the front, and the first entry
    /// lies at or below `id`; `XDEL`, `XDELEX` and `XACKDEL` record the highest id that they ever removed.
    ///
    /// Trims with `ACKED` leave no trace: see [`cursors`](super::cursors).
    pub(in crate::analysis) fn no_trace_of_removal_above(&self, id: EntryId) -> bool {
        self.first.is_some_and(|first| first <= id) && self.max_deleted.is_some_and(|deleted| deleted <= id)
    }

    /// Entries added since `earlier`. Before 7.0 only known where there were none.
    pub(in crate::analysis) fn added_since(&self, earlier: &Self) -> Option<u64> {
        match (self.entries_added, earlier.entries_added) {
            (Some(now), Some(then)) => now.checked_sub(then),
            _ => (self.last_generated == earlier.last_generated).then_some(0),
        }
    }

    /// How this stream goes on from `earlier`, when entries up to `untraced` may have been removed without a trace meanwhile.
    pub(in crate::analysis) fn since(&self, earlier: &Self, untraced: EntryId) -> Continuity {
        let ids_rise = self.last_generated >= earlier.last_generated
            && self.max_deleted >= earlier.max_deleted
            && self.first.zip(earlier.first).is_none_or(|(first, before)| first >= before);
        if !ids_rise || self.entries_added.is_some() != earlier.entries_added.is_some() {
            return Continuity::Discontinuous;
        }
        let nothing_is_left = self.first.is_none_or(|first| first > earlier.last_generated);
        let counters_agree = match self.added_since(earlier) {
            Some(added) => self.counters_agree(earlier, added, nothing_is_left, untraced),
            // Before 7.0 the number of entries added is not told, so nothing more can be checked; nor has a counter that
            // fell a difference.
            None => self.entries_added.is_none(),
        };
        match (counters_agree, nothing_is_left) {
            (false, _) => Continuity::Discontinuous,
            // Before 7.0 nothing then tells whether it was trimmed or deleted and filled again.
            (true, true) if self.added_since(earlier).is_none() => Continuity::Unknown,
            (true, true) => Continuity::FullyReplaced,
            (true, false) => Continuity::Continuous,
        }
    }

    /// Whether additions and removals alone can have led here from `earlier`: the counters were not set by hand (`XSETID`), or
    /// re-created the stream, or restored an older copy.
    fn counters_agree(&self, earlier: &Self, added: u64, nothing_is_left: bool, untraced: EntryId) -> bool {
        let Some(removed) = earlier.length.saturating_add(added).checked_sub(self.length) else { return false };
        let same_first = self.first == earlier.first;
        let same_deleted = self.max_deleted == earlier.max_deleted;
        // An entry is added where and only where a new id is given out.
        let ids_and_entries = (added == 0) == (self.last_generated == earlier.last_generated);
        // What was given out last is the last entry, unless just that was deleted or all is gone.
        let top_is_there = added == 0
            || self.entries_added.is_none()
            || self.last.is_none_or(|last| last == self.last_generated)
            || self.max_deleted >= Some(self.last_generated);
        // Nothing vanishes unless it is removed, and then the first entry or the highest deleted id moves, or a lower id
        // than that was deleted.
        let removal_shows = match removed {
            0 => same_first && same_deleted || earlier.first.is_none(),
            _ => {
                let without_a_trace = earlier.first.is_some_and(|first| first <= untraced);
                !same_first
                    || !same_deleted
                    || without_a_trace
                    || self.max_deleted.is_none()
                    || self.max_deleted > self.first
            }
        };
        // Of entries that were there, one at least is left; new ones are trimmed only after them, and deleting one shows.
        let new_ones_intact = self.max_deleted.is_some_and(|deleted| deleted <= earlier.last_generated)
            && untraced <= earlier.last_generated;
        let not_too_many =
            if nothing_is_left { removed >= earlier.length } else { !new_ones_intact || removed < earlier.length };
        ids_and_entries && top_is_there && removal_shows && not_too_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    /// Entries 11 to 100; ten were trimmed before, and 50 was deleted.
    fn facts() -> StreamReply {
        StreamReply {
            length: 89,
            first: Some(id(11)),
            last: Some(id(100)),
            last_generated: id(100),
            entries_added: Some(100),
            max_deleted: Some(id(50)),
            ..StreamReply::default()
        }
    }

    fn add(now: &mut StreamReply, entries: u64) {
        let top = id(now.last_generated.ms + entries);
        (now.length, now.entries_added) = (now.length + entries, now.entries_added.map(|added| added + entries));
        (now.last, now.last_generated) = (Some(top), top);
    }

    #[test]
    fn what_can_follow_and_what_cannot() {
        let check = |expected, change: fn(&mut StreamReply)| {
            let mut now = facts();
            change(&mut now);
            assert_eq!(now.since(&facts(), EntryId::default()), expected, "{now:?}");
        };
        let same = Continuity::Continuous;
        check(same, |_| {});
        check(same, |now| add(now, 10));
        check(same, |now| (now.length, now.first) = (80, Some(id(20))));
        check(same, |now| (now.length, now.max_deleted) = (88, Some(id(60))));
        check(same, |now| (now.length, now.first) = (1, Some(id(100))));
        // A lower one than the highest that was deleted.
        check(same, |now| now.length = 88);
        check(same, |now| {
            add(now, 10);
            (now.length, now.last, now.max_deleted) = (now.length - 1, Some(id(109)), Some(id(110)));
        });
        check(Continuity::FullyReplaced, |now| {
            add(now, 10);
            (now.length, now.first) = (5, Some(id(106)));
        });
        check(Continuity::FullyReplaced, |now| (now.length, now.first, now.last) = (0, None, None));
        // A new stream, an older copy, counters set by hand.
        let broken = Continuity::Discontinuous;
        check(broken, |now| now.last_generated = id(99));
        check(broken, |now| now.first = Some(id(10)));
        check(broken, |now| now.max_deleted = Some(id(49)));
        check(broken, |now| (now.entries_added, now.max_deleted) = (None, None));
        check(broken, |now| now.entries_added = Some(99));
        check(broken, |now| now.entries_added = Some(101));
        check(broken, |now| now.last_generated = id(101));
        check(broken, |now| now.max_deleted = Some(id(60)));
        check(broken, |now| now.first = Some(id(12)));
        check(broken, |now| now.length = 90);
        check(broken, |now| {
            add(now, 100);
            (now.length, now.first) = (70, Some(id(131)));
            now.entries_added = Some(150);
        });
        // Entries that were added and are not there, though none was deleted above and the first one stands.
        check(broken, |now| {
            add(now, 10);
            now.entries_added = Some(250);
        });
        // An id given out and no entry of it, nor a deleted one.
        check(broken, |now| {
            add(now, 10);
            now.last_generated = id(200);
        });
    }

    #[test]
    fn before_7_0_only_what_stands_still_tells() {
        let old = StreamReply { entries_added: None, max_deleted: None, ..facts() };
        let check = |expected, change: fn(&mut StreamReply)| {
            let mut now = old;
            change(&mut now);
            assert_eq!((now.since(&old, EntryId::default()), now.nothing_removed_since(&old)), expected, "{now:?}");
        };
        check((Continuity::Continuous, true), |_| {});
        check((Continuity::Continuous, false), |now| now.length = 88);
        check((Continuity::Continuous, false), |now| (now.last, now.last_generated) = (Some(id(101)), id(101)));
        check((Continuity::Discontinuous, false), |now| now.length = 90);
        check((Continuity::FullyReplaced, false), |now| (now.length, now.first, now.last) = (0, None, None));
        check((Continuity::Unknown, false), |now| {
            (now.first, now.last, now.last_generated) = (Some(id(101)), Some(id(189)), id(189));
        });
        check((Continuity::Discontinuous, true), |now| now.first = Some(id(12)));
    }
}
