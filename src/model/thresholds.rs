//! Thresholds of lag, and the status that follows: healthy, degraded or unhealthy.

use crate::model::{StreamKey, glob};

/// The lags at which a stream is called degraded and unhealthy, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// A lag of this or more is degraded.
    pub degraded: u64,
    /// A lag above this is unhealthy.
    pub unhealthy: u64,
}

/// What a stream is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Below the first threshold.
    Healthy,
    /// Between the thresholds, both included.
    Degraded,
    /// Above the second threshold.
    Unhealthy,
    /// Not known.
    Unknown,
}

impl Status {
    /// The word the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

impl Thresholds {
    /// The lowest lag that is unhealthy.
    #[must_use]
    pub fn unhealthy_from(&self) -> u64 {
        self.unhealthy.saturating_add(1)
    }

    /// Status of a lag of this many entries.
    #[must_use]
    pub fn status(&self, lag: u64) -> Status {
        if lag > self.unhealthy {
            Status::Unhealthy
        } else if lag >= self.degraded {
            Status::Degraded
        } else {
            Status::Healthy
        }
    }
}

/// Thresholds by stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThresholdRules {
    /// Those of streams that no pattern matches.
    pub otherwise: Thresholds,
    /// Those of streams that a name or Redis glob matches; the first that does counts.
    pub by_pattern: Vec<(String, Thresholds)>,
}

impl ThresholdRules {
    /// The thresholds of a stream.
    #[must_use]
    pub fn of(&self, stream: &StreamKey) -> Thresholds {
        self.own(stream).unwrap_or(self.otherwise)
    }

    /// The thresholds of a stream that has its own; `None` where no pattern matches it.
    #[must_use]
    pub fn own(&self, stream: &StreamKey) -> Option<Thresholds> {
        let matching = |(pattern, _): &&(String, Thresholds)| glob::matches(pattern.as_bytes(), stream.as_bytes());
        self.by_pattern.iter().find(matching).map(|(_, thresholds)| *thresholds)
    }
}

/// The same for all streams.
impl From<Thresholds> for ThresholdRules {
    fn from(otherwise: Thresholds) -> Self {
        Self { otherwise, by_pattern: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let thresholds = |degraded| Thresholds { degraded, unhealthy: 10 * degraded };
        let rules = ThresholdRules {
            otherwise: thresholds(1),
            by_pattern: vec![("orders:eu".to_owned(), thresholds(2)), ("orders:*".to_owned(), thresholds(3))],
        };
        let check = |stream: &str, expected| assert_eq!(rules.of(&stream.into()).degraded, expected, "{stream}");
        check("orders:eu", 2);
        check("orders:us", 3);
        check("mail", 1);
        assert_eq!((rules.own(&"orders:us".into()), rules.own(&"mail".into())), (Some(thresholds(3)), None));
        assert_eq!(ThresholdRules::from(thresholds(5)).of(&"orders:eu".into()), thresholds(5));
    }

    #[test]
    fn the_requirements_criteria() {
        let thresholds = Thresholds { degraded: 100, unhealthy: 1000 };
        let check = |lag, expected| assert_eq!(thresholds.status(lag), expected, "{lag}");
        check(0, Status::Healthy);
        check(99, Status::Healthy);
        check(100, Status::Degraded);
        check(1000, Status::Degraded);
        check(1001, Status::Unhealthy);
        assert_eq!(thresholds.unhealthy_from(), 1001);
    }
}
