//! The line through the lags of the last hour: what `predict_linear` of Prometheus forecasts. Where a backlog grows steadily it is hard to beat, as it
//! does not have the errors of arrivals and capacity. How much of it is in a forecast is told by the replay.

use super::ramp::Sums;
use super::series::StepSeries;

/// The seconds of history through which the line is laid.
const WINDOW: f64 = 3_600.0;
/// The fewest steps of it.
const MIN_STEPS: usize = 8;

/// A line.
#[derive(Clone, Copy, Debug)]
pub(super) struct LagLine {
    /// Where it is now, in entries.
    now: f64,
    /// By how much it grows per step.
    slope: f64,
}

impl LagLine {
    /// The line of least squares before step `end`; one that stays at the newest lag where too little is known.
    pub(super) fn fit(series: &StepSeries, end: usize) -> Self {
        let window = ((WINDOW / series.step) as usize).max(MIN_STEPS);
        let steps = end.saturating_sub(window)..end;
        let known = steps.map(|at| (at as f64 + 1.0 - end as f64, series.lag[at])).filter(|(_, lag)| !lag.is_nan());
        let sums = known.fold(Sums::default(), |sums, (x, lag)| sums.with(x, lag));
        if sums.n < (window / 2) as f64 {
            return Self { now: series.lag_before(end), slope: 0.0 };
        }
        let (slope, (x, y)) = sums.line();
        Self { now: y - slope * x, slope }
    }

    /// The lag `ahead` steps after the next one.
    pub(super) fn at(self, ahead: usize) -> f64 {
        (self.now + self.slope * (ahead + 1) as f64).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(lag: Vec<f64>) -> StepSeries {
        let all = |value: f64| vec![value; lag.len()];
        StepSeries {
            step: 300.0,
            arrivals: all(100.0),
            delivered: all(90.0),
            lowest: all(0.0),
            doubt: all(0.0),
            length: all(5000.0),
            lag,
        }
    }

    #[test]
    fn a_line_goes_on_from_where_it_is_and_ends_at_zero() {
        let rising = series((0..30).map(|at| if at < 18 { 5.0 } else { 100.0 + 10.0 * (at - 18) as f64 }).collect());
        let line = LagLine::fit(&rising, 30);
        assert!((line.at(0) - 220.0).abs() < 1e-6 && (line.at(9) - 310.0).abs() < 1e-6, "{line:?}");
        let falling = series((0..30).map(|at| 300.0 - 10.0 * at as f64).collect());
        let line = LagLine::fit(&falling, 30);
        assert!(line.at(0) < 1e-6 && line.at(70) == 0.0, "{line:?}");
    }

    #[test]
    fn a_line_through_gaps_is_the_same_and_through_few_lags_it_stays_at_the_newest() {
        let lag = |at: usize, known: bool| if known { 100.0 + 10.0 * at as f64 } else { f64::NAN };
        let gaps = series((0..30).map(|at| lag(at, at % 2 == 1)).collect());
        let line = LagLine::fit(&gaps, 30);
        assert!((line.at(0) - 400.0).abs() < 1e-6, "{line:?}");
        let few = series((0..30).map(|at| lag(at, at % 4 == 1)).collect());
        let line = LagLine::fit(&few, 30);
        assert!(line.at(0) == 390.0 && line.at(20) == 390.0, "{line:?}");
    }
}
