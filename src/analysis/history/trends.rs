//! The trend of a lag: direction, slope, peak, mean, and how fast entries come and go.

use crate::analysis::history::Point;
use crate::analysis::stats::{slope, sorted_quantile};

/// Points that the slope is made from, at most: it looks at every pair, of every group.
const MAX_SLOPE_POINTS: usize = 60;

/// Points without which there is no direction.
const MIN_POINTS: usize = 3;

/// Standard deviations that the count of rises and falls must be off the one of chance (Mann-Kendall).
const SIGNIFICANT: f64 = 1.96;

/// Share of the mean lag that a change over the window must reach to be one.
const MIN_CHANGE: f64 = 0.05;

/// Where a lag is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It rises.
    Growing,
    /// Neither.
    Steady,
    /// It falls.
    Shrinking,
}

impl Direction {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Steady => "steady",
            Self::Shrinking => "shrinking",
        }
    }
}

/// Quantiles of a rate, per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateQuantiles {
    /// A tenth of the values are below.
    pub q10: f64,
    /// Half of them.
    pub q50: f64,
    /// Nine tenths.
    pub q90: f64,
}

/// What points of a window say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Where the lag is going; `None` where there are too few points.
    pub direction: Option<Direction>,
    /// Entries per second: the median slope of all pairs of points (Theil-Sen). `None` where there are too few.
    pub slope: Option<f64>,
    /// The largest lag of any sample.
    pub peak: u64,
    /// When its bucket began, seconds since the Unix epoch.
    pub peak_at: i64,
    /// Mean lag of all samples.
    pub mean: f64,
    /// Entries added per second; `None` where the server does not tell.
    pub arrivals: Option<RateQuantiles>,
    /// Entries delivered per second while there was lag; `None` where there was none, or the server does not tell.
    pub capacity: Option<RateQuantiles>,
}

fn quantiles(mut values: Vec<f64>) -> Option<RateQuantiles> {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share| sorted_quantile(&values, share);
    (!values.is_empty()).then(|| RateQuantiles { q10: at(0.1), q50: at(0.5), q90: at(0.9) })
}

impl Trend {
    /// Of these points, which are in order of time; `None` where there are none.
    #[must_use]
    pub fn of(points: &[Point]) -> Option<Self> {
        let peak =
            points.iter().max_by(|one, other| one.highest.cmp(&other.highest).then(other.time.cmp(&one.time)))?;
        let samples: f64 = points.iter().map(|point| f64::from(point.samples)).sum();
        let mean = points.iter().map(|point| point.mean * f64::from(point.samples)).sum::<f64>() / samples;
        let every = points.len().div_ceil(MAX_SLOPE_POINTS).max(1);
        let chosen: Vec<(f64, f64)> = points
            .chunks(every)
            .map(|few| (few[0].time as f64, few.iter().map(|point| point.mean).sum::<f64>() / few.len() as f64))
            .collect();
        let found = (chosen.len() >= MIN_POINTS).then(|| slope(&chosen));
        let direction = found.map(|found| {
            let change = found.median * (chosen[chosen.len() - 1].0 - chosen[0].0);
            // With very few points even a strict rise is not significant: it counts as one.
            let is_chance = found.significance.abs() < SIGNIFICANT && !found.strict;
            match change {
                change if is_chance || change.abs() < f64::max(1.0, mean * MIN_CHANGE) => Direction::Steady,
                change if change > 0.0 => Direction::Growing,
                _ => Direction::Shrinking,
            }
        });
        let per_second = |milli: u64| milli as f64 / 1000.0;
        let behind = points.iter().filter(|point| point.lag > 0 && point.bound_min > 0);
        Some(Self {
            direction,
            slope: found.map(|found| found.median),
            peak: peak.highest,
            peak_at: peak.time,
            mean,
            arrivals: quantiles(points.iter().filter_map(|point| point.added_milli.map(per_second)).collect()),
            capacity: quantiles(behind.filter_map(|point| point.delivered_milli.map(per_second)).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::history::tests::point;

    fn of(lag: impl Fn(i64) -> u64) -> Trend {
        Trend::of(&(0..60).map(|n| point(n * 60, lag(n))).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_ramp_grows_a_drain_shrinks_and_noise_is_steady() {
        let ramp = of(|n| 100 + n as u64 * 30);
        assert_eq!(ramp.direction, Some(Direction::Growing));
        assert!((ramp.slope.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(of(|n| 6000 - n as u64 * 90).direction, Some(Direction::Shrinking));
        let noise = of(|n| 1000 + (n as u64 * 7919) % 50);
        assert_eq!(noise.direction, Some(Direction::Steady));
        assert_eq!(of(|_| 0).direction, Some(Direction::Steady));
    }

    #[test]
    fn one_spike_moves_the_peak_and_not_the_slope() {
        let spike = of(|n| if n == 50 { 1_000_000 } else { 100 + n as u64 * 30 });
        assert_eq!((spike.peak, spike.peak_at), (1_000_000, 3000));
        assert!((spike.slope.unwrap() - 0.5).abs() < 0.05);
        assert_eq!(spike.direction, Some(Direction::Growing));
    }

    #[test]
    fn a_change_counts_where_it_is_sure_and_large_beside_the_lag() {
        const NOW: i64 = 1_800_000_000;
        let lags = |lags: &[f64]| -> Vec<Point> {
            let points = lags.iter().zip(0..);
            points.map(|(lag, n)| Point { mean: *lag, ..point(NOW + n * 64, *lag as u64) }).collect()
        };
        let ramp = |first: f64, last: f64| -> Vec<f64> {
            (0..60).map(|n| first + (last - first) * f64::from(n) / 59.0).collect()
        };
        for (values, expected) in [
            (ramp(1000.0, 1300.0), Direction::Growing),
            (ramp(1000.0, 1030.0), Direction::Steady),
            (ramp(1300.0, 1000.0), Direction::Shrinking),
            (ramp(1030.0, 1000.0), Direction::Steady),
            // One entry more, of few.
            (vec![10.0, 10.5, 11.0], Direction::Growing),
            (vec![0.0, 0.25, 0.5], Direction::Steady),
            // It came and went.
            (vec![0.0, 1000.0, 500.0], Direction::Steady),
        ] {
            assert_eq!(Trend::of(&lags(&values)).unwrap().direction, Some(expected), "{values:?}");
        }
    }

    #[test]
    fn directions_have_the_words_of_the_api() {
        let words = [Direction::Growing, Direction::Steady, Direction::Shrinking].map(Direction::as_str);
        assert_eq!(words, ["growing", "steady", "shrinking"]);
    }

    #[test]
    fn a_mean_is_one_of_samples_and_not_of_buckets() {
        let busy = Point { samples: 3, ..point(60, 40) };
        assert_eq!(Trend::of(&[point(0, 10), busy]).unwrap().mean, 32.5);
    }

    #[test]
    fn a_long_ramp_is_as_steep_as_a_short_one() {
        for count in [60, 120, 1000] {
            let ramp: Vec<Point> = (0..count).map(|n| point(n * 60, 100 + n as u64 * 30)).collect();
            let slope = Trend::of(&ramp).unwrap().slope.unwrap();
            assert!((slope - 0.5).abs() < 1e-9, "{slope} of {count}");
        }
    }

    #[test]
    fn what_is_not_known_is_none() {
        assert_eq!(Trend::of(&[]), None);
        let few = Trend::of(&[point(0, 1), point(60, 2)]).unwrap();
        assert_eq!((few.direction, few.slope, few.capacity), (None, None, None));
        assert_eq!(few.arrivals, Some(RateQuantiles { q10: 5.0, q50: 5.0, q90: 5.0 }));
        let rising = Trend::of(&[point(0, 1), point(60, 20), point(120, 40)]).unwrap();
        assert_eq!(rising.direction, Some(Direction::Growing));
    }

    #[test]
    fn capacity_is_what_was_delivered_while_there_certainly_was_lag() {
        let perhaps = Point { bound_min: 0, ..point(180, 10) };
        let mut points = vec![point(0, 0), point(60, 10), point(120, 10), perhaps];
        for (point, rate) in points.iter_mut().zip([9000, 2000, 4000, 9000]) {
            point.delivered_milli = Some(rate);
        }
        assert_eq!(Trend::of(&points).unwrap().capacity.unwrap().q50, 3.0);
    }
}
