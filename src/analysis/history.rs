//! Points of history: what samples said of a group within a bucket of time, and how buckets become wider ones.

pub mod codec;
pub mod query;
pub mod trends;

use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{PresentGroup, StreamFacts};

/// Seconds of a minute bucket.
pub const MINUTE: i64 = 60;

/// Seconds of an hour bucket.
pub const HOUR: i64 = 3_600;

/// What is known of a group in one bucket of time. A bucket without a sample has no point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Start of the bucket, seconds since the Unix epoch.
    pub time: i64,
    /// Samples in it, at least one.
    pub samples: u32,
    /// The last sample's lag, in entries.
    pub lag: u64,
    /// Mean lag of the samples, in entries.
    pub mean: f64,
    /// The smallest lag of any sample.
    pub lowest: u64,
    /// The largest lag of any sample.
    pub highest: u64,
    /// The smallest proven lower bound of any sample: the lag was never below it.
    pub bound_min: u64,
    /// The largest proven upper bound of any sample: the lag was never above it.
    pub bound_max: u64,
    /// Age of the oldest undelivered entry at the last sample, milliseconds.
    pub lag_ms: Option<u64>,
    /// Pending entries at the last sample.
    pub pending: Option<u64>,
    /// Entries in the stream at the last sample.
    pub length: Option<u64>,
    /// Mean rate of added entries, thousandths per second.
    pub added_milli: Option<u64>,
    /// Mean rate of delivered entries, thousandths per second.
    pub delivered_milli: Option<u64>,
    /// Consumers at the last sample.
    pub consumers: Option<u64>,
    /// Lost entries as counted at the last sample; starts again at 0 with the program.
    pub lost: Option<u64>,
    /// The group's state at the last sample.
    pub state: Option<GroupState>,
}

impl Point {
    /// One sample of a group, taken at `time` (seconds since the Unix epoch).
    #[must_use]
    pub fn sampled(time: i64, stream: &StreamFacts, group: &PresentGroup) -> Self {
        let milli = |rate: f64| (rate * 1000.0).round() as u64;
        Self {
            time,
            samples: 1,
            lag: group.lag.point,
            mean: group.lag.point as f64,
            lowest: group.lag.point,
            highest: group.lag.point,
            bound_min: group.lag.min,
            bound_max: group.lag.max,
            // Rounded up: an age that is not 0 stays so.
            lag_ms: group.lag_seconds.map(|seconds| (seconds * 1000.0).ceil() as u64),
            pending: group.pending,
            length: Some(stream.length),
            added_milli: stream.rates.added.map(milli),
            delivered_milli: group.trend.delivered_rate.map(milli),
            consumers: group.consumers,
            lost: Some(group.trend.lost),
            state: Some(group.trend.verdict.state),
        }
    }

    /// Start of the bucket of this many seconds that `time` is in.
    #[must_use]
    pub fn bucket(time: i64, seconds: i64) -> i64 {
        time.div_euclid(seconds.max(1)).saturating_mul(seconds.max(1))
    }

    /// The same point in the bucket of this many seconds that it is in.
    #[must_use]
    pub fn in_bucket(self, seconds: i64) -> Self {
        Self { time: Self::bucket(self.time, seconds), ..self }
    }

    /// Whether every sample's lag was exact: bounds that are no wider than the lags themselves.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.bound_min == self.lowest && self.bound_max == self.highest
    }

    /// Widens lags and bounds to those of another point of the same bucket. Where one of the two is not exact, or `both_hold` says that
    /// they contradict each other, the result is not exact either: lags of one may be as far apart as the bounds of the other, and then an
    /// upper bound that is one larger says so.
    pub fn widen(&mut self, other: &Self, both_hold: bool) {
        let is_exact = both_hold && self.is_exact() && other.is_exact();
        self.lowest = self.lowest.min(other.lowest);
        self.highest = self.highest.max(other.highest);
        self.bound_min = self.bound_min.min(other.bound_min);
        self.bound_max = self.bound_max.max(other.bound_max);
        if !is_exact && self.is_exact() {
            self.bound_max = self.bound_max.saturating_add(1);
        }
    }

    /// Adds a later point of the same bucket.
    pub fn merge(&mut self, later: &Self) {
        let (before, after) = (f64::from(self.samples), f64::from(later.samples));
        let weighted = |one: f64, other: f64| (one * before + other * after) / (before + after);
        let rate = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(weighted(one as f64, other as f64).round() as u64),
            (one, other) => one.or(other),
        };
        self.widen(later, true);
        *self = Self {
            time: self.time,
            samples: self.samples.saturating_add(later.samples),
            mean: weighted(self.mean, later.mean),
            lowest: self.lowest,
            highest: self.highest,
            bound_min: self.bound_min,
            bound_max: self.bound_max,
            added_milli: rate(self.added_milli, later.added_milli),
            delivered_milli: rate(self.delivered_milli, later.delivered_milli),
            ..*later
        };
    }
}

/// Points by time, those of one bucket of `seconds` merged. The points need not be in order.
#[must_use]
pub fn resample(mut points: Vec<Point>, seconds: i64) -> Vec<Point> {
    points.sort_by_key(|point| point.time);
    let mut buckets: Vec<Point> = Vec::new();
    for point in points {
        let point = point.in_bucket(seconds);
        match buckets.last_mut() {
            Some(last) if last.time == point.time => last.merge(&point),
            _ => buckets.push(point),
        }
    }
    buckets
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::analysis::group_history::StreamRates;
    use crate::analysis::snapshot::tests::{present_group, stream_facts};
    use crate::model::lag::Lag;

    /// A sample of an exact lag.
    pub(crate) fn point(time: i64, lag: u64) -> Point {
        Point {
            time,
            samples: 1,
            lag,
            mean: lag as f64,
            lowest: lag,
            highest: lag,
            bound_min: lag,
            bound_max: lag,
            lag_ms: Some(lag * 10),
            pending: Some(3),
            length: Some(1000),
            added_milli: Some(5000),
            delivered_milli: None,
            consumers: Some(2),
            lost: Some(0),
            state: Some(GroupState::Ok),
        }
    }

    #[test]
    fn a_sample_is_kept_in_thousandths_and_its_age_rounded_up() {
        let mut group = present_group(Lag { min: 1, max: 9, point: 4 });
        (group.lag_seconds, group.trend.delivered_rate, group.trend.lost) = (Some(1.2341), Some(2.0004), 3);
        (group.pending, group.consumers) = (Some(5), Some(6));
        let rates = StreamRates { added: Some(1.2346), ..StreamRates::default() };
        let facts = StreamFacts { length: 10, groups: 1, rates, ..stream_facts() };
        let expected = Point {
            bound_min: 1,
            bound_max: 9,
            lag_ms: Some(1235),
            pending: Some(5),
            length: Some(10),
            added_milli: Some(1235),
            delivered_milli: Some(2000),
            consumers: Some(6),
            lost: Some(3),
            ..point(77, 4)
        };
        assert_eq!(Point::sampled(77, &facts, &group), expected);
        group.lag_seconds = Some(0.0001);
        assert_eq!(Point::sampled(77, &facts, &group).lag_ms, Some(1), "an age that is not 0 stays so");
    }

    #[test]
    fn a_spike_inside_a_bucket_stays_and_bounds_stay_bounds() {
        let mut bounded = point(65, 900);
        (bounded.bound_min, bounded.bound_max, bounded.delivered_milli) = (5, 1000, Some(7));
        bounded.added_milli = Some(8000);
        let merged = resample(vec![point(61, 10), bounded, point(119, 20), point(120, 1)], MINUTE);
        assert_eq!(merged.len(), 2, "a gap is a gap, and a bucket ends before the next begins");
        let Point { time, samples, lag, lowest, highest, bound_min, bound_max, .. } = merged[0];
        assert_eq!((time, samples, lag), (60, 3, 20));
        assert_eq!((lowest, highest, bound_min, bound_max), (10, 900, 5, 1000));
        assert!((merged[0].mean - 310.0).abs() < 1e-9, "{}", merged[0].mean);
        assert_eq!((merged[0].added_milli, merged[0].delivered_milli), (Some(6000), Some(7)));
    }

    #[test]
    fn what_is_exact_in_part_is_not_exact() {
        let mut bounded = point(65, 50);
        (bounded.bound_min, bounded.bound_max) = (40, 60);
        // Exact lags around the bounds of the other.
        let merged = resample(vec![point(60, 5), point(61, 100), bounded], MINUTE)[0];
        assert!(!merged.is_exact() && merged.bound_min == 5 && merged.bound_max == 101, "{merged:?}");
        assert_eq!((merged.lowest, merged.highest), (5, 100));
        let hour = resample(vec![merged, point(120, 500)], HOUR)[0];
        assert!(!hour.is_exact(), "{hour:?}");
        assert!(resample(vec![point(60, 5), point(61, 100)], MINUTE)[0].is_exact());
    }

    #[test]
    fn merging_in_steps_is_merging_at_once() {
        let points: Vec<Point> = (0..7200).map(|n| point(n * 5, (n as u64 * 7919) % 1000)).collect();
        let at_once = resample(points.clone(), HOUR);
        let in_steps = resample(resample(points, MINUTE), HOUR);
        for (one, other) in at_once.iter().zip(&in_steps) {
            assert!((one.mean - other.mean).abs() < 1e-6);
            assert_eq!(Point { mean: 0.0, ..*one }, Point { mean: 0.0, ..*other });
        }
        assert_eq!(at_once.len(), in_steps.len());
    }

    #[test]
    fn buckets_before_the_epoch_start_below() {
        assert_eq!((Point::bucket(-1, 60), Point::bucket(59, 60), Point::bucket(60, 60)), (-60, 0, 60));
    }
}
