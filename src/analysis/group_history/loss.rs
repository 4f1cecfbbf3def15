//! Losses: entries that were gone before the group was given them.

use std::time::Duration;

use crate::model::EntryId;
use crate::model::lag::Lag;
use crate::model::reply::{ConsumerReply, StreamReply};
use crate::model::sample::{GroupSample, StreamSample};

/// How far the distance of two samples may be off, as it is taken on this side and not where they were taken.
const SERVED_MARGIN: Duration = Duration::from_secs(1);

/// The highest id that may have been delivered, even if the cursor is lower: it moved back, or may have.
#[derive(Debug, Default)]
pub(super) struct HighWatermark {
    pub(super) id: EntryId,
    /// Entries ever added up to it, where it is known.
    pub(super) rank: Option<u64>,
    /// Entries above it that were counted as lost.
    pub(super) counted: u64,
}

impl HighWatermark {
    pub(super) fn raise_to(&mut self, id: EntryId, rank: Option<u64>) {
        if id > self.id {
            *self = Self { id, rank, counted: 0 };
        }
    }

    /// Entries above it that are newly lost, where the stream now begins above it: as many as were added there and are not
    /// there any more.
    pub(super) fn lost_above(&mut self, now: &GroupObservation) -> u64 {
        let begins_above = now.stream.first.is_none_or(|first| first > self.id);
        let added = now.stream.entries_added.zip(self.rank).and_then(|(added, rank)| added.checked_sub(rank));
        let Some(added) = added.filter(|_| begins_above) else { return 0 };
        let gone = added.saturating_sub(now.stream.length);
        let lost = gone.saturating_sub(self.counted);
        self.counted = self.counted.max(gone);
        lost
    }
}

/// What a sample says of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupObservation {
    pub(super) cursor: EntryId,
    pub(super) lag: Lag,
    pub(super) added_after: Option<(u64, u64)>,
    /// The highest entry that may ever have been removed without a trace.
    pub(super) untraced: EntryId,
    pub(super) entries_read: Option<u64>,
    pub(super) pending: u64,
    pub(super) oldest_pending: Option<EntryId>,
    pub(super) stream: StreamReply,
    /// How long ago any of the consumers may have been given something; `None` where Redis does not tell.
    pub(super) served_ago: Option<Duration>,
}

/// How long ago any of the consumers was last given something. `idle` may be younger than that, never older.
fn served_ago(members: &[ConsumerReply]) -> Duration {
    let served = |consumer: &ConsumerReply| consumer.inactive_ms.or(consumer.idle_ms).unwrap_or(0);
    members.iter().map(served).min().map_or(Duration::MAX, Duration::from_millis)
}

impl GroupObservation {
    pub(super) fn of(stream: &StreamSample, group: &GroupSample) -> Self {
        let resolved = group.resolved.unwrap_or_default();
        Self {
            cursor: group.last_delivered,
            lag: resolved.lag,
            added_after: resolved.added_after,
            untraced: resolved.untraced,
            entries_read: group.entries_read,
            pending: group.pending,
            oldest_pending: group.oldest_pending,
            stream: stream.reply,
            served_ago: group.members.as_deref().map(served_ago),
        }
    }

    /// Entries added since `before`, where the server tells.
    pub(super) fn added_since(&self, before: &Self) -> Option<u64> {
        self.stream.added_since(&before.stream)
    }

    /// Entries that are gone and that the group was not given, since `before`: a lower bound.
    ///
    /// The cursor only rose, so what lies above it was never delivered. With the cursor where it was: what was above it
    /// then, and what was added, is above it now or gone. With the cursor moved: of all entries ever added after it, so
    /// many are not there any more; those that were missing then already are not counted again.
    pub(super) fn lost_since(&self, before: &Self) -> u64 {
        let there = self.lag.max;
        let from_the_same_cursor = if self.cursor == before.cursor && self.cursor <= before.stream.last_generated {
            // Where it is not told how many were added, at least as many as the stream has grown by.
            let grown = || self.stream.length.saturating_sub(before.stream.length);
            before.lag.min.saturating_add(self.added_since(before).unwrap_or_else(grown)).saturating_sub(there)
        } else {
            0
        };
        let missing = |seen: &Self| {
            let (least, most) = seen.added_after?;
            Some((least.saturating_sub(seen.lag.max), most.saturating_sub(seen.lag.min)))
        };
        // Where the cursor has passed all that was missing then, none of it is among what is missing now.
        let passed = before.stream.first.is_some_and(|first| first <= self.cursor)
            && before.stream.max_deleted.is_some_and(|deleted| deleted <= self.cursor)
            && before.untraced <= self.cursor;
        let by_the_counter = match (missing(self), missing(before)) {
            (Some((least, _)), Some(_)) if passed => least,
            (Some((least, _)), Some((_, most_before))) => least.saturating_sub(most_before),
            _ => 0,
        };
        from_the_same_cursor.max(by_the_counter)
    }

    /// Whether entries above the cursor may have been delivered since `before`, `elapsed` ago: read, and then the cursor
    /// moved back, by `SETID`, between two samples.
    ///
    /// `SETID` makes entries-read unknown, unless told otherwise. Where it was unknown all the time, as always before 7.0,
    /// only a cursor that stood still and consumers that were not served show that nothing was delivered.
    pub(super) fn may_hide_a_rewind(&self, before: &Self, elapsed: Duration) -> bool {
        let stood_still = self.cursor == before.cursor;
        match (before.entries_read, self.entries_read) {
            (Some(then), Some(now)) => now < then || (stood_still && (now > then || self.pending > before.pending)),
            (Some(_), None) => true,
            (None, _) => {
                let served = self.served_ago.is_none_or(|ago| ago <= elapsed.saturating_add(SERVED_MARGIN));
                !stood_still || self.pending > before.pending || served
            }
        }
    }
}
