//! How many entries were ever added up to certain ids: the stream's timeline.

use crate::model::EntryId;
use crate::model::reply::StreamReply;

/// Marks kept per stream. With more, those are dropped whose neighbours are closest, so that the whole timeline stays
/// covered, only more coarsely.
const MAX_MARKS: usize = 32;

/// An id and a number of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    id: EntryId,
    rank: u64,
    /// Whether the number is what was added less what was counted above the id.
    counted: bool,
}

/// Pairs of an id and the number of entries ever added up to and including it, both rising.
///
/// Each is one sample's last-generated-id and entries-added: by definition, this many entries had been added when that was
/// the highest id given out, and later ones are higher. Removals do not change that.
///
/// Between them are marks that were counted. Entries above such an id that were gone already are taken to lie below it: so the number is
/// not less than was added up to it, and as long as nothing is removed above it, what was added beyond the number is what is there.
#[derive(Debug, Default)]
pub(in crate::analysis) struct Timeline {
    marks: Vec<Mark>,
    /// No entry above this id was removed without a trace since the oldest mark.
    untraced: EntryId,
    /// Nor ever, above this one.
    ever_untraced: EntryId,
}

impl Timeline {
    /// Forgets all marks. What may ever have been removed stays.
    pub(in crate::analysis) fn clear(&mut self) {
        self.marks.clear();
        self.untraced = EntryId::default();
    }

    /// Begins again with a stream of which nothing is known but this sample. Entries up to `untraced` may have been removed
    /// without a trace before it.
    pub(in crate::analysis) fn begin(&mut self, untraced: EntryId) {
        self.clear();
        self.ever_untraced = untraced;
    }

    /// Entries up to this id may have been removed without a trace since the newest mark.
    pub(in crate::analysis) fn removed_up_to(&mut self, id: EntryId) {
        self.untraced = self.untraced.max(id);
        self.ever_untraced = self.ever_untraced.max(id);
    }

    /// The highest entry that may ever have been removed without a trace.
    pub(in crate::analysis) fn ever_untraced(&self) -> EntryId {
        self.ever_untraced
    }

    /// The highest entry that may have been removed since the oldest mark without one.
    pub(in crate::analysis) fn untraced(&self) -> EntryId {
        self.untraced
    }

    /// Whether every entry above `id`, which is a mark or above one, that was added is there.
    pub(in crate::analysis) fn all_there_above(&self, id: EntryId, now: &StreamReply) -> bool {
        now.no_trace_of_removal_above(id) && self.untraced <= id
    }

    /// Whether every entry above `id` that was ever added is there.
    pub(in crate::analysis) fn all_ever_there_above(&self, id: EntryId, now: &StreamReply) -> bool {
        now.no_trace_of_removal_above(id) && self.ever_untraced <= id
    }

    /// Adds a sample's mark. What lies below the one next to `lowest`, the lowest cursor, is not needed any more.
    pub(in crate::analysis) fn add(&mut self, id: EntryId, rank: u64, lowest: Option<EntryId>) {
        if self.marks.last().is_none_or(|last| last.id < id) {
            self.marks.push(Mark { id, rank, counted: false });
        }
        let needed = lowest.map_or(self.marks.len(), |lowest| self.marks.partition_point(|mark| mark.id <= lowest));
        self.marks.drain(..needed.saturating_sub(1));
        self.thin_out();
    }

    /// Adds a mark of which it was counted how many entries lie between it and a higher one.
    pub(in crate::analysis) fn add_counted(&mut self, id: EntryId, rank: u64) {
        let place = self.marks.partition_point(|mark| mark.id < id);
        if self.marks.get(place).is_none_or(|mark| mark.id > id) {
            self.marks.insert(place, Mark { id, rank, counted: true });
        }
        self.thin_out();
    }

    fn thin_out(&mut self) {
        if self.marks.len() > MAX_MARKS {
            // The first and the last stay.
            let gap = |place: &usize| self.marks[place + 1].rank.saturating_sub(self.marks[place - 1].rank);
            if let Some(closest) = (1..self.marks.len() - 1).min_by_key(gap) {
                self.marks.remove(closest);
            }
        }
    }

    /// The highest mark at or below an id. No more is there above it than was added beyond its number.
    pub(in crate::analysis) fn at_or_below(&self, id: EntryId) -> Option<(EntryId, u64)> {
        let mark = self.marks[..self.marks.partition_point(|mark| mark.id <= id)].last()?;
        Some((mark.id, mark.rank))
    }

    /// The number of entries ever added up to the highest id at or below this one of which that is known.
    pub(in crate::analysis) fn added_at_or_below(&self, id: EntryId) -> Option<u64> {
        let below = &self.marks[..self.marks.partition_point(|mark| mark.id <= id)];
        below.iter().rfind(|mark| !mark.counted).map(|mark| mark.rank)
    }

    /// The lowest mark at or above an id. No fewer were added above it than beyond its number.
    pub(in crate::analysis) fn at_or_above(&self, id: EntryId) -> Option<(EntryId, u64)> {
        let mark = self.marks[self.marks.partition_point(|mark| mark.id < id)..].first()?;
        Some((mark.id, mark.rank))
    }

    /// Whether a lag that was counted at a cursor agrees with the marks; `whole` where nothing above it was removed.
    pub(in crate::analysis) fn allow(&self, cursor: EntryId, added: Option<u64>, lag: u64, whole: bool) -> bool {
        let Some(added) = added else { return true };
        let most = self.at_or_below(cursor).and_then(|(_, rank)| added.checked_sub(rank));
        let least = self.at_or_above(cursor).and_then(|(_, rank)| added.checked_sub(rank));
        most.is_none_or(|most| lag <= most) && (!whole || least.is_none_or(|least| least <= lag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    #[test]
    fn neighbours_are_found_and_the_rest_thins_out() {
        let mut marks = Timeline::default();
        assert_eq!((marks.at_or_below(id(5)), marks.at_or_above(id(5))), (None, None));
        for n in 1..=1000 {
            marks.add(id(10 * n), n, Some(id(25)));
            marks.add(id(10 * n), n, Some(id(25)));
            assert!(marks.marks.is_sorted_by(|one, next| one.id < next.id), "the same sample adds nothing");
        }
        assert_eq!(marks.marks.len(), MAX_MARKS);
        assert!(marks.marks.is_sorted_by_key(|mark| (mark.id, mark.rank)));
        assert_eq!(marks.at_or_below(id(25)), Some((id(20), 2)));
        assert_eq!(marks.at_or_below(id(19)), None);
        assert_eq!(marks.at_or_above(id(10_000)), Some((id(10_000), 1000)));
        assert_eq!(marks.at_or_above(id(10_001)), None);
        let widest = marks.marks.windows(2).map(|pair| pair[1].rank - pair[0].rank).max();
        assert!(widest <= Some(1000 / 8), "{widest:?}");
        // Cursors that move on leave old marks behind.
        marks.add(id(10_010), 1001, Some(id(10_010)));
        assert_eq!(marks.marks, [Mark { id: id(10_010), rank: 1001, counted: false }]);
        // What was counted says how much is there, and not how much was ever added.
        marks.add_counted(id(10_050), 1060);
        marks.add_counted(id(10_050), 1061);
        assert_eq!(marks.marks.len(), 2, "it is known already");
        assert_eq!(marks.at_or_below(id(10_060)), Some((id(10_050), 1060)));
        assert_eq!(marks.added_at_or_below(id(10_060)), Some(1001));
    }

    #[test]
    fn what_went_without_a_trace_is_remembered_for_as_long_as_the_marks_and_for_ever() {
        let stream = |first, max_deleted| StreamReply {
            length: 5,
            first: Some(id(first)),
            max_deleted: Some(id(max_deleted)),
            ..StreamReply::default()
        };
        let mut marks = Timeline::default();
        let check = |marks: &Timeline, stream: &StreamReply, above, expected: (bool, bool)| {
            let there = (marks.all_there_above(id(above), stream), marks.all_ever_there_above(id(above), stream));
            assert_eq!(there, expected, "{marks:?} {above}");
        };
        check(&marks, &stream(10, 0), 10, (true, true));
        check(&marks, &stream(11, 0), 10, (false, false));
        check(&marks, &stream(10, 11), 10, (false, false));
        marks.removed_up_to(id(15));
        marks.removed_up_to(id(12));
        assert_eq!((marks.untraced(), marks.ever_untraced()), (id(15), id(15)));
        check(&marks, &stream(10, 0), 14, (false, false));
        check(&marks, &stream(10, 0), 15, (true, true));
        marks.clear();
        assert_eq!((marks.untraced(), marks.ever_untraced()), (EntryId::default(), id(15)));
        check(&marks, &stream(10, 0), 14, (true, false));
        marks.begin(id(3));
        assert_eq!((marks.untraced(), marks.ever_untraced()), (EntryId::default(), id(3)));
    }

    #[test]
    fn a_count_that_contradicts_is_noticed() {
        let mut marks = Timeline::default();
        marks.add(id(10), 100, Some(id(0)));
        marks.add(id(20), 200, Some(id(0)));
        let check = |cursor, lag, whole, expected| assert_eq!(marks.allow(id(cursor), Some(200), lag, whole), expected);
        check(15, 100, true, true);
        check(15, 101, true, false);
        check(20, 0, true, true);
        check(20, 1, true, false);
        check(10, 99, true, false);
        check(10, 99, false, true);
        assert!(marks.allow(id(15), None, 5000, true));
    }
}
