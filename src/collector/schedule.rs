//! When the next poll is due, and for how long a sample is shown. Pure arithmetic.

use std::time::Duration;

/// Intervals without a good sample after which the last one is stale: old numbers look like news. Where polls take longer than the
/// interval, their own duration counts in its place, or pages would flap.
const FRESH_INTERVALS: u32 = 3;

/// Configured intervals by which failed polls put off the next one at most. Otherwise it would take long to see that Redis is well
/// again.
const FAILED_INTERVALS: u32 = 4;

/// Weight of the newest sample in the moving average of Redis's time, so that a busy moment does not put off the next poll for long.
const NEWEST_WEIGHT: f64 = 0.3;

/// What polls have taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Schedule {
    /// How long the newest poll took, publishing included.
    poll_time: Duration,
    /// Redis's time per sample: an exponentially weighted moving average. Zero before the first.
    redis_time: Duration,
    /// The most of Redis's time that one of the polls took that have failed since the last good one.
    failed_time: Duration,
}

/// How often to poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// The configured interval.
    pub(super) interval: Duration,
    /// The share of Redis's time that polls may take: a fraction.
    pub(super) max_redis_share: f64,
}

impl Schedule {
    /// The time from the start of one poll to the start of the next: the configured interval, or as much longer as keeps polls
    /// within their share of Redis's time.
    pub(super) fn interval(&self, rate: Rate) -> Duration {
        let failed = self.failed_time.div_f64(rate.max_redis_share).min(rate.interval * FAILED_INTERVALS);
        self.good_interval(rate).max(failed)
    }

    /// The same while polls succeed.
    fn good_interval(&self, rate: Rate) -> Duration {
        rate.interval.max(self.redis_time.div_f64(rate.max_redis_share))
    }

    /// The age at which a sample is not shown any more.
    pub(super) fn stale_after(&self, rate: Rate) -> Duration {
        self.good_interval(rate).max(self.poll_time) * FRESH_INTERVALS
    }

    /// A poll ended, well or not, and took this long.
    pub(super) fn polled(&mut self, took: Duration) {
        self.poll_time = took;
    }

    /// A sample succeeded, and took this much of Redis's time.
    pub(super) fn sampled(&mut self, redis_time: Duration) {
        self.failed_time = Duration::ZERO;
        self.redis_time = match self.redis_time {
            Duration::ZERO => redis_time,
            before => before.mul_f64(1.0 - NEWEST_WEIGHT) + redis_time.mul_f64(NEWEST_WEIGHT),
        };
    }

    /// A sample failed, and took this much of Redis's time all the same.
    pub(super) fn failed(&mut self, redis_time: Duration) {
        self.failed_time = self.failed_time.max(redis_time);
    }

    /// Another Redis is polled.
    pub(super) fn retarget(&mut self) {
        (self.redis_time, self.failed_time) = (Duration::ZERO, Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_secs(5), max_redis_share: 0.05 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_interval_stretches_with_what_samples_take_of_redis() {
        // Redis's time per sample, then the interval in ms: 5 % of 5 s are 250 ms.
        let cases: [(&[u64], u64); 6] = [
            (&[], 5000),
            (&[250], 5000),
            (&[300], 6000),
            (&[300, 300, 300], 6000),
            // One busy moment counts for 30 %.
            (&[100, 1100], 8000),
            (&[1000, 0], 14_000),
        ];
        for (samples, expected) in cases {
            let mut schedule = Schedule::default();
            samples.iter().for_each(|sample| schedule.sampled(ms(*sample)));
            assert_eq!(schedule.interval(RATE), ms(expected), "{samples:?}");
        }
    }

    #[test]
    fn failed_polls_put_off_the_next_by_four_intervals_at_most_and_until_one_succeeds() {
        let cases = [(0, 5000), (100, 5000), (500, 10_000), (900, 18_000), (60_000, 20_000)];
        for (failed, expected) in cases {
            let mut schedule = Schedule::default();
            schedule.failed(ms(failed));
            schedule.failed(ms(failed / 2));
            assert_eq!(schedule.interval(RATE), ms(expected), "the longest counts: {failed}");
            schedule.sampled(ms(1));
            assert_eq!(schedule.interval(RATE), RATE.interval, "{failed}");
        }
    }

    #[test]
    fn a_stretched_interval_is_not_cut_by_the_bound_of_failed_polls() {
        let mut schedule = Schedule::default();
        schedule.sampled(ms(2000));
        schedule.failed(ms(100));
        assert_eq!(schedule.interval(RATE), ms(40_000));
    }

    #[test]
    fn a_sample_is_stale_after_three_intervals_or_three_long_polls() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.stale_after(RATE), ms(15_000));
        schedule.polled(ms(7000));
        assert_eq!(schedule.stale_after(RATE), ms(21_000), "polls that take longer than the interval");
        schedule.sampled(ms(500));
        assert_eq!(schedule.stale_after(RATE), ms(30_000), "a stretched interval");
        schedule.failed(ms(60_000));
        assert_eq!(schedule.stale_after(RATE), ms(30_000), "failed polls do not keep an old sample fresh");
    }

    #[test]
    fn another_redis_begins_anew() {
        let mut schedule = Schedule::default();
        schedule.sampled(ms(5000));
        schedule.failed(ms(5000));
        schedule.retarget();
        assert_eq!(schedule.interval(RATE), RATE.interval);
    }
}
