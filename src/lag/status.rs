//! What a lag is called.

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
    /// What a lag of so many entries is called.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requirements_criteria() {
        let thresholds = Thresholds { degraded: 100, unhealthy: 1000 };
        let check = |lag, expected| assert_eq!(thresholds.status(lag), expected, "{lag}");
        check(0, Status::Healthy);
        check(99, Status::Healthy);
        check(100, Status::Degraded);
        check(1000, Status::Degraded);
        check(1001, Status::Unhealthy);
    }
}
