//! Lag values: how many entries a group has not been given yet, how sure that is, and what it was worked out of.

use super::EntryId;

/// Entries not yet delivered to a group: between `min` and `max`, and most likely `point`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// It is not less than this.
    pub min: u64,
    /// It is not more than this.
    pub max: u64,
    /// The best single number, within the bounds.
    pub point: u64,
}

/// How sure a lag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// The number is the lag at the moment of the sample.
    Exact,
    /// The lag lies within bounds; the number is an estimate within them.
    Bounded,
}

impl Quality {
    /// The word the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
        }
    }
}

impl Lag {
    pub(crate) fn exact(lag: u64) -> Self {
        Self { min: lag, max: lag, point: lag }
    }

    /// Bounds and an estimate, which is moved into the bounds where it lies outside.
    pub(crate) fn bounded(min: u64, max: u64, estimate: u64) -> Self {
        Self { min, max, point: estimate.clamp(min, max) }
    }

    /// What can be said where only the stream's length is known.
    #[must_use]
    pub fn within_length(length: u64) -> Self {
        Self::bounded(0, length, length / 2)
    }

    /// Both together.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
            point: self.point.saturating_add(other.point),
        }
    }

    /// Exact where the bounds meet.
    #[must_use]
    pub fn quality(&self) -> Quality {
        if self.min == self.max { Quality::Exact } else { Quality::Bounded }
    }

    /// How far the bounds are apart; 0 where the lag is exact.
    #[must_use]
    pub fn uncertainty(&self) -> u64 {
        self.max - self.min
    }
}

/// What follows for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Entries not yet delivered.
    pub lag: Lag,
    /// How many entries were ever added after the cursor, gone ones included: at least, at most. `None` before 7.0.
    pub added_after: Option<(u64, u64)>,
    /// The first entry after the cursor, where it is known.
    pub oldest_undelivered: Option<EntryId>,
    /// The highest entry that may ever have been removed without a trace.
    pub untraced: EntryId,
}

/// How a stream goes on from one sample to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Continuity {
    /// Unknown: nothing is remembered of it, as it is new here or the connection is; or nothing of it is left.
    #[default]
    Unknown,
    /// It is the same stream, longer and trimmed.
    Continuous,
    /// Nothing of it is left by which to tell. What was remembered of it is of no use in any case.
    FullyReplaced,
    /// It is another stream, or its counters were set by hand.
    Discontinuous,
}

/// A page of a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// Entries in the range.
    pub entries: u64,
    /// Entries that came after its end.
    pub beyond: u64,
    /// The first id.
    pub first: Option<EntryId>,
    /// The last id within the range.
    pub last: Option<EntryId>,
    /// Whether Redis had no more to give.
    pub ended: bool,
    /// All ids, where they were asked for, those beyond the range included.
    pub ids: Vec<EntryId>,
    /// Bytes in the fields of all its entries.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_length_alone_the_lag_is_anything_up_to_it_and_taken_for_half_of_it() {
        for (length, point) in [(0, 0), (1, 0), (9, 4), (1000, 500)] {
            assert_eq!(Lag::within_length(length), Lag { min: 0, max: length, point });
        }
    }
}
