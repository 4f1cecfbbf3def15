//! How many calls of SCAN a poll may make, so that a pass ends in time, at a bounded cost to Redis.

use std::time::Duration;

/// A pass begins so often in a discovery interval, and takes about as long: 4/3. SCAN goes through the keys in the same order
/// each time, so a key that appears just behind the cursor is met one period later. The quarter that is left is for the
/// ends of polls, in which the period is not to be had exactly.
const PASSES_PER_INTERVAL: (u32, u32) = (4, 3);

/// Calls per second at most, at some 0.35 ms each 2% of one core: a million keys within 34 s. Where there are that many
/// keys that this does not do for the interval, passes take longer, and the gauges of discovery say how long.
const MAX_CALLS_PER_SECOND: f64 = 60.0;

/// Calls in one poll at most, however long ago the last one was: some 0.2 s of Redis's time in slices of 0.35 ms, and with
/// half a millisecond of network each within the default deadline of a poll.
const MAX_CALLS_PER_POLL: u32 = 600;

/// Calls in the very first poll: small key spaces, up to 200,000 keys, are known when it ends.
const FIRST_CALLS: u32 = 400;

/// A pass that takes this multiple of the calls of the last one has met a key space that grew, and goes on as fast as may be.
const GREW: f64 = 1.25;

/// The calls that a poll may make.
#[derive(Debug)]
pub(super) struct ScanRate {
    period: Duration,
    /// When the newest pass began; `None` where one is to begin at once.
    began: Option<Duration>,
    /// Calls of the pass that is under way, or of the newest.
    calls: u32,
    /// Calls that the newest complete pass took.
    expected: Option<u32>,
    /// When the newest poll first asked.
    polled: Option<Duration>,
    /// What is left in this poll; `None` between polls.
    allowance: Option<u32>,
}

impl ScanRate {
    pub(super) fn new(interval: Duration) -> Self {
        Self { period: period(interval), began: None, calls: 0, expected: None, polled: None, allowance: None }
    }

    pub(super) fn reconfigure(&mut self, interval: Duration) {
        self.period = period(interval);
    }

    /// Whether one more call may be made, which counts as made then.
    pub(super) fn may_ask(&mut self, under_way: bool, now: Duration) -> bool {
        let due = under_way || self.began.is_none_or(|began| now >= began + self.period);
        if !due {
            self.allowance = None;
            self.polled = Some(now);
            return false;
        }
        if !under_way {
            (self.began, self.calls) = (Some(now), 0);
        }
        let left = self.allowance.unwrap_or_else(|| self.begin_poll(now));
        self.allowance = left.checked_sub(1);
        self.calls += u32::from(left > 0);
        left > 0
    }

    /// What the poll that asks for the first time may have.
    fn begin_poll(&mut self, now: Duration) -> u32 {
        let Some(polled) = self.polled.replace(now) else { return FIRST_CALLS };
        let rate = match self.expected {
            Some(expected) if f64::from(self.calls) < f64::from(expected) * GREW => {
                (f64::from(expected) / self.period.as_secs_f64()).min(MAX_CALLS_PER_SECOND)
            }
            Some(_) | None => MAX_CALLS_PER_SECOND,
        };
        let calls = (rate * now.saturating_sub(polled).as_secs_f64()).ceil();
        // At least one, or a pass would not end where polls come thick and fast. The cast saturates.
        (calls as u32).clamp(1, MAX_CALLS_PER_POLL)
    }

    pub(super) fn completed(&mut self) {
        self.expected = Some(self.calls);
    }

    /// A pass is to begin at once.
    pub(super) fn interrupted(&mut self) {
        self.began = None;
    }
}

fn period(interval: Duration) -> Duration {
    let (passes, intervals) = PASSES_PER_INTERVAL;
    interval * intervals / passes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls every `poll` seconds for a while, over a key space that takes `takes` calls; what each poll made.
    fn polls(pace: &mut ScanRate, from: u64, poll: u64, count: u64, takes: u32) -> Vec<u32> {
        let mut left = 0;
        let mut made = Vec::new();
        for number in 0..count {
            let now = Duration::from_secs(from + number * poll);
            let mut calls = 0;
            while pace.may_ask(left > 0, now) {
                left = if left == 0 { takes } else { left } - 1;
                calls += 1;
                if left == 0 {
                    pace.completed();
                }
            }
            made.push(calls);
        }
        made
    }

    #[test]
    fn small_key_spaces_are_known_at_the_first_poll_and_looked_through_in_three_quarters_of_the_interval() {
        let mut pace = ScanRate::new(Duration::from_secs(60));
        assert_eq!(polls(&mut pace, 0, 5, 13, 20), [20, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3]);
    }

    #[test]
    fn a_million_keys_are_spread_over_the_polls() {
        let mut pace = ScanRate::new(Duration::from_secs(60));
        // 400, then 300 a poll, as the number needed is not known yet; then 2,000 over nine polls.
        assert_eq!(polls(&mut pace, 0, 5, 12, 2000), [400, 300, 300, 300, 300, 300, 100, 0, 0, 223, 223, 223]);
    }

    #[test]
    fn calls_are_bounded_whatever_the_keys_and_the_polls() {
        let mut pace = ScanRate::new(Duration::from_secs(1));
        assert_eq!(polls(&mut pace, 0, 5, 5, 1_000_000), [400, 300, 300, 300, 300]);
        assert_eq!(polls(&mut pace, 3600, 3600, 3, 1_000_000), [600, 600, 600]);
    }

    #[test]
    fn a_key_space_that_grew_is_gone_through_as_fast_as_may_be() {
        let mut pace = ScanRate::new(Duration::from_secs(60));
        assert_eq!(polls(&mut pace, 0, 5, 1, 1), [1]);
        let later = polls(&mut pace, 5, 5, 20, 1000);
        assert_eq!(later[8..14], [1, 1, 300, 300, 300, 98]);
    }
}
