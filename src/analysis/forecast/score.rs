//! Forecasts that were made, kept until their time has come, and how good they were.

use std::collections::VecDeque;

use super::{Forecast, Quantiles};

/// Forecasts of one group that wait for their time, at most; the oldest goes.
const MAX_WAITING: usize = 128;
/// Outcomes of one group that are remembered, at most; the oldest goes.
const MAX_OUTCOMES: usize = 256;
/// For how long after its time an outcome may come, in seconds.
const MAX_LATE: f64 = 120.0;

/// How good forecasts were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Skill {
    /// The mean absolute error of the medians, scaled by that of the naive forecasts ("the lag stays what it is") of the same moments: below 1 is
    /// better than naive. `None` without outcomes, and where the naive forecasts made no error.
    pub mase: Option<f64>,
    /// The share of outcomes within the interval from q10 to q90. `None` without outcomes.
    pub coverage_80: Option<f64>,
    /// How many forecasts this rests on.
    pub forecasts: u64,
}

/// A forecast of one moment that waits for it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    quantiles: Quantiles,
    naive: f64,
}

/// What came of one.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    error: f64,
    naive_error: f64,
    covered: bool,
}

/// Keeps forecasts of one group and horizon and scores each once its time has come. Bounded: some 10 KiB at most.
#[derive(Clone, Debug, Default)]
pub struct Scorer {
    waiting: VecDeque<Waiting>,
    outcomes: VecDeque<Outcome>,
}

impl Scorer {
    /// Keeps the end of the horizon of a forecast that was made when the lag was `lag`. One without points is not kept.
    pub fn keep(&mut self, forecast: &Forecast, lag: f64) {
        let Ok(points) = &forecast.points else { return };
        let Some(last) = points.last() else { return };
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { quantiles: *last, naive: lag });
    }

    /// Scores what is due at `time`, when the lag is known to lie from `lag_min` to `lag_max`. A moment that was not sampled in time is not scored.
    pub fn observe(&mut self, time: f64, lag_min: f64, lag_max: f64) {
        while let Some(due) = self.waiting.front().copied().filter(|due| due.quantiles.time <= time) {
            self.waiting.pop_front();
            if time - due.quantiles.time > MAX_LATE {
                continue;
            }
            let error = |forecast: f64| (forecast - forecast.clamp(lag_min, lag_max)).abs();
            let outcome = Outcome {
                error: error(due.quantiles.q50),
                naive_error: error(due.naive),
                covered: lag_max >= due.quantiles.q10 && lag_min <= due.quantiles.q90,
            };
            if self.outcomes.len() == MAX_OUTCOMES {
                self.outcomes.pop_front();
            }
            self.outcomes.push_back(outcome);
        }
    }

    /// How good the remembered forecasts were.
    #[must_use]
    pub fn skill(&self) -> Skill {
        let count = self.outcomes.len();
        if count == 0 {
            return Skill::default();
        }
        let sum = |of: fn(&Outcome) -> f64| self.outcomes.iter().map(of).sum::<f64>();
        let naive = sum(|outcome| outcome.naive_error);
        let covered = self.outcomes.iter().filter(|outcome| outcome.covered).count();
        Skill {
            mase: (naive > 0.0).then(|| sum(|outcome| outcome.error) / naive),
            coverage_80: Some(covered as f64 / count as f64),
            forecasts: count as u64,
        }
    }
}
