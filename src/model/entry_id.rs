//! Entry ids: `milliseconds-sequence`, ordered, and usually a clock.

use std::fmt;

/// The id of a stream entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, where the producer lets Redis choose the id; otherwise the producer's choice.
    pub ms: u64,
    /// Distinguishes the entries of one millisecond.
    pub seq: u64,
}

/// 2017-01-01: Streams were not born before (they were announced in May 2017), so an earlier "time" is not a clock's.
const EARLIEST_CLOCK_MS: u64 = 1_483_228_800_000;

/// How far ahead of the server's clock an id may be and still be taken for a clock reading: a producer's clock may be
/// off, or the server's may have stepped back. A day is more than either does by accident.
const CLOCK_SKEW_MS: u64 = 24 * 60 * 60 * 1000;

/// How far ahead of the server's clock an id may be and still count as new, with an age of 0. Clocks that are kept in step are
/// closer than that. The age of an id farther ahead is unknown: 0 would say that nothing waits.
const CLOCK_TOLERANCE_MS: u64 = 5_000;

impl EntryId {
    /// Reads `ms-seq`; a missing `-seq` means sequence 0, as in Redis's own commands.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
        Some(Self { ms: digits(ms)?, seq: digits(seq)? })
    }

    /// The smallest id after this one; `None` after the largest there is.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The largest id before this one; `None` before the smallest there is.
    #[must_use]
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Seconds since the Unix epoch, where the id is a clock reading as seen from the server's clock `now_ms`.
    /// `None` for ids like `1-0`, which count something else.
    #[must_use]
    pub fn timestamp_seconds(self, now_ms: u64) -> Option<f64> {
        let plausible = (EARLIEST_CLOCK_MS..=now_ms.saturating_add(CLOCK_SKEW_MS)).contains(&self.ms);
        plausible.then_some(self.ms as f64 / 1000.0)
    }

    /// Seconds between this id and the server's clock `now_ms`, never negative; `None` where the id is not a clock, or one that is
    /// ahead.
    #[must_use]
    pub fn age_seconds(self, now_ms: u64) -> Option<f64> {
        self.timestamp_seconds(now_ms)?;
        if self.ms > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
            return None;
        }
        Some(now_ms.saturating_sub(self.ms) as f64 / 1000.0)
    }
}

/// Digits only: `u64::from_str` would take a leading `+` as well.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId { ms, seq }
    }

    #[test]
    fn parse() {
        let check = |text: &str, expected| assert_eq!(EntryId::parse(text.as_bytes()), expected, "{text}");
        check("0-0", Some(id(0, 0)));
        check("1526919030474-55", Some(id(1_526_919_030_474, 55)));
        check("18446744073709551615-18446744073709551615", Some(id(u64::MAX, u64::MAX)));
        check("12", Some(id(12, 0)));
        for bad in ["", "-", "1-", "-1", "+1-0", "1-+0", "a-1", "1-0-0", "18446744073709551616-0", " 1-0"] {
            check(bad, None);
        }
    }

    #[test]
    fn next_carries_a_full_sequence_into_the_milliseconds() {
        assert_eq!(id(5, 7).next(), Some(id(5, 8)));
        assert_eq!(id(5, u64::MAX).next(), Some(id(6, 0)));
        assert_eq!(id(u64::MAX, u64::MAX).next(), None);
        assert_eq!(id(5, 8).previous(), Some(id(5, 7)));
        assert_eq!(id(6, 0).previous(), Some(id(5, u64::MAX)));
        assert_eq!(id(0, 0).previous(), None);
    }

    #[test]
    fn ages_are_never_negative_and_absent_where_ids_are_not_clocks_or_ahead() {
        assert_eq!(id(NOW - 1500, 0).age_seconds(NOW), Some(1.5));
        assert_eq!(id(NOW + CLOCK_TOLERANCE_MS, 0).age_seconds(NOW), Some(0.0));
        for ahead in [CLOCK_TOLERANCE_MS + 1, 60 * 60 * 1000, CLOCK_SKEW_MS] {
            assert_eq!(id(NOW + ahead, 0).age_seconds(NOW), None, "{ahead}");
            assert!(id(NOW + ahead, 0).timestamp_seconds(NOW).is_some(), "{ahead}");
        }
        assert_eq!(id(1, 0).age_seconds(NOW), None);
        assert_eq!(id(NOW + CLOCK_SKEW_MS + 1, 0).age_seconds(NOW), None);
        assert_eq!(id(u64::MAX, 0).age_seconds(u64::MAX), Some(0.0));
    }

    #[test]
    fn an_id_that_is_a_clock_is_a_time_in_seconds() {
        assert_eq!(id(1_526_919_030_474, 55).timestamp_seconds(NOW), Some(1_526_919_030.474));
        for other in [id(1, 0), id(NOW + CLOCK_SKEW_MS + 1, 0)] {
            assert_eq!(other.timestamp_seconds(NOW), None, "{other}");
        }
    }
}
