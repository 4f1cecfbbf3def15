//! The window over which verdicts and rates are taken.

use std::time::Duration;

/// What a verdict takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How long something must have held, and over what time rates are taken.
    pub window: Duration,
    /// In how many samples it must have held.
    pub samples: u32,
    /// How long a consumer may be idle, though there is something to do, before it counts as dead.
    pub dead_after: Duration,
    /// In what time a group should drain its lag.
    pub drain_target: Duration,
}

/// Since when something has held, and in how many samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct Streak {
    pub(in crate::analysis) since: Duration,
    pub(in crate::analysis) samples: u32,
}

impl Streak {
    pub(in crate::analysis) fn begin(at: Duration) -> Self {
        Self { since: at, samples: 1 }
    }

    pub(in crate::analysis) fn next(&mut self, at: Duration, goes_on: bool) {
        if goes_on {
            self.samples = self.samples.saturating_add(1);
        } else {
            *self = Self::begin(at);
        }
    }

    /// Whether it has held for a whole window.
    pub(in crate::analysis) fn fills(&self, at: Duration, windows: &Windows) -> bool {
        self.samples >= windows.samples && at.saturating_sub(self.since) >= windows.window
    }
}
