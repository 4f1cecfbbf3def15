//! How many entries a group has not been given yet.
//!
//! An answer that says exact and is not is the worst defect this program can have: every rule, here and in
//! [`tracker`](crate::analysis::lag::tracker), comes with its argument.

use crate::model::EntryId;
use crate::model::lag::Lag;
use crate::model::reply::StreamReply;

/// The lag where it follows from the sample alone, on every server and version; `None` in mid-stream.
#[must_use]
pub(in crate::analysis) fn ends(stream: &StreamReply, cursor: EntryId) -> Option<Lag> {
    let (Some(first), Some(last)) = (stream.first, stream.last) else {
        // An empty stream has nothing to deliver.
        return Some(Lag::exact(0));
    };
    if cursor >= last {
        // Delivery goes by id, upwards from the cursor, and nothing lies above it.
        return Some(Lag::exact(0));
    }
    // Everything that is there lies above the cursor.
    (cursor < first).then(|| Lag::exact(stream.length))
}

/// The best guess within bounds, in mid-stream: what the server says where that can be, else what was told before, moved on, else
/// entries are taken to be spread evenly over the time between the first and the last id.
pub(in crate::analysis) fn estimate(
    length: u64,
    (first, cursor, last): (Option<EntryId>, EntryId, Option<EntryId>),
    (server_lag, moved): (Option<u64>, Option<u64>),
    (min, max): (u64, u64),
) -> u64 {
    if let Some(lag) = server_lag.filter(|lag| (min..=max).contains(lag)) {
        return lag;
    }
    if let Some(lag) = moved {
        return lag.clamp(min, max);
    }
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let span = last.ms.saturating_sub(first.ms);
    if span == 0 {
        return min.midpoint(max);
    }
    // u128: length times milliseconds may pass 64 bits.
    let ahead = u128::from(last.ms.saturating_sub(cursor.ms)) * u128::from(length) / u128::from(span);
    u64::try_from(ahead).unwrap_or(u64::MAX).clamp(min, max)
}

/// The lag that was told at some sample, from which the next estimate moves on.
#[derive(Clone, Copy, Debug)]
pub(in crate::analysis) struct LastTold {
    lag: u64,
    cursor: EntryId,
    length: u64,
    last: EntryId,
    added: Option<u64>,
}

impl LastTold {
    /// A lag told of a cursor at a sample with this length, last entry and number of entries added.
    pub(in crate::analysis) fn new(lag: u64, cursor: EntryId, length: u64, last: EntryId, added: Option<u64>) -> Self {
        Self { lag, cursor, length, last, added }
    }

    /// What the lag has become by what was added and read since; `None` where that is no better than to estimate afresh. It is a
    /// guess, to be kept within bounds: what was removed is taken to have been delivered.
    pub(in crate::analysis) fn moved(&self, cursor: EntryId, length: u64, added: Option<u64>) -> Option<u64> {
        // Before 7.0 nothing counts what was added; the stream is at least so much longer.
        let longer = length.saturating_sub(self.length);
        let added = added.zip(self.added).map_or(Some(longer), |(now, then)| now.checked_sub(then))?;
        let left = if cursor == self.cursor {
            self.lag
        } else {
            // Entries that were undelivered then are taken to be spread evenly over their time; what was added since does not count.
            let span = self.last.ms.checked_sub(self.cursor.ms).filter(|span| *span > 0)?;
            let ahead = self.last.ms.checked_sub(cursor.ms).filter(|ahead| *ahead <= span)?;
            u64::try_from(u128::from(self.lag) * u128::from(ahead) / u128::from(span)).unwrap_or(u64::MAX)
        };
        Some(left.saturating_add(added))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_moves_by_what_was_added_and_read() {
        // 300 entries 1-0 to 300-0, of which 150 are taken to be undelivered.
        let told = LastTold::new(150, id(150), 300, id(300), Some(300));
        let check = |cursor, length, added, expected| {
            assert_eq!(told.moved(id(cursor), length, added), expected, "{cursor} {length} {added:?}");
        };
        check(150, 300, Some(300), Some(150));
        check(150, 301, Some(301), Some(151));
        check(150, 301, None, Some(151));
        // Trimmed meanwhile.
        check(150, 280, Some(301), Some(151));
        check(225, 310, Some(310), Some(85));
        // Read beyond all that was there, set back, or another counter: nothing to go by.
        for (cursor, added) in [(301, Some(400)), (149, Some(300)), (150, Some(299))] {
            check(cursor, 300, added, None);
        }
        // All that was undelivered is of one millisecond: the ids tell nothing.
        let told = LastTold::new(150, id(300), 300, EntryId { ms: 300, seq: 150 }, Some(300));
        assert_eq!(told.moved(EntryId { ms: 300, seq: 75 }, 300, Some(300)), None);
    }

    fn id(ms: u64) -> EntryId {
        EntryId { ms, seq: 0 }
    }

    /// Entries 10-0 to 109-0.
    fn stream() -> StreamReply {
        StreamReply { length: 100, first: Some(id(10)), last: Some(id(109)), ..StreamReply::default() }
    }

    #[test]
    fn the_ends_are_exact() {
        let empty = StreamReply { length: 0, first: None, last: None, ..stream() };
        assert_eq!(ends(&empty, id(0)), Some(Lag::exact(0)));
        assert_eq!(ends(&stream(), id(109)), Some(Lag::exact(0)));
        assert_eq!(ends(&stream(), id(500)), Some(Lag::exact(0)));
        assert_eq!(ends(&stream(), id(9)), Some(Lag::exact(100)));
        assert_eq!(ends(&stream(), id(10)), None);
        assert_eq!(ends(&stream(), id(108)), None);
    }

    #[test]
    fn the_servers_word_is_an_estimate_and_time_is_one_where_it_cannot_be() {
        let check = |cursor, server_lag, expected| {
            let ids = (Some(id(10)), id(cursor), Some(id(109)));
            assert_eq!(estimate(100, ids, (server_lag, None), (1, 99)), expected, "{cursor} {server_lag:?}");
        };
        check(49, Some(60), 60);
        check(59, Some(0), 50);
        check(59, Some(100), 50);
        check(10, None, 99);
        check(108, None, 1);
        // Ids of one millisecond tell nothing.
        assert_eq!(estimate(100, (Some(id(1)), id(1), Some(id(1))), (None, None), (1, 99)), 50);
        assert_eq!(estimate(100, (Some(id(10)), id(49), Some(id(109))), (None, Some(200)), (1, 99)), 99);
    }
}
