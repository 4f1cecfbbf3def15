//! Forecasts that were made, kept until their time has come, and how good they were.

use std::collections::VecDeque;

use super::{Forecast, LagQuantiles};

/// Forecasts of one group that wait for their time, at most.
const MAX_WAITING: usize = 64;
/// Outcomes of one group that are remembered, at most; the oldest goes.
const MAX_OUTCOMES: usize = 128;
/// For how long after its time an outcome may come, in seconds.
const MAX_LATE: f64 = 120.0;
/// The shortest time between two forecasts that are kept, in seconds.
const MIN_APART: f64 = 60.0;
/// The mean error below which neither forecast is better, in entries: lags are whole numbers.
const MIN_ERROR: f64 = 0.5;

/// How good forecasts were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Skill {
    /// The mean absolute error of the medians, scaled by that of the naive forecasts ("the lag stays what it is") of the same moments, at least half
    /// an entry: below 1 is better than naive. `None` without outcomes, and where neither made a larger error than that.
    pub mase: Option<f64>,
    /// The share of outcomes within the interval from q10 to q90. `None` without outcomes.
    pub coverage_80: Option<f64>,
    /// How many forecasts this rests on.
    pub forecasts: u64,
}

/// A forecast of one moment that waits for it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    time: f64,
    q10: f64,
    q50: f64,
    q90: f64,
    naive: f64,
}

/// What came of one.
#[derive(Clone, Copy, Debug)]
struct ScoredForecast {
    error: f64,
    naive_error: f64,
    covered: bool,
}

/// The shortest time between two forecasts of a horizon that are kept, in seconds: as many wait as there is room for.
pub(super) fn apart(horizon: f64) -> f64 {
    MIN_APART.max(horizon / (MAX_WAITING - 2) as f64)
}

/// Keeps forecasts of one group and horizon and scores each once its time has come. Bounded: some 6 KiB at most.
#[derive(Clone, Debug, Default)]
pub struct Scorer {
    waiting: VecDeque<Waiting>,
    outcomes: VecDeque<ScoredForecast>,
}

impl Scorer {
    /// Keeps the end of the horizon of a forecast that was made when the lag was `lag`. One without points is not kept, nor one that was made soon
    /// after another: a horizon holds at most as many as there is room for.
    pub fn keep(&mut self, forecast: &Forecast, lag: f64) {
        let Ok(points) = &forecast.points else { return };
        let Some(LagQuantiles { time, q10, q50, q90, .. }) = points.last().copied() else { return };
        let apart = apart(forecast.horizon);
        if self.waiting.back().is_some_and(|newest| time - newest.time < apart) {
            return;
        }
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { time, q10, q50, q90, naive: lag });
    }

    /// When the next one is due, on the clock of the points.
    #[must_use]
    pub fn due(&self) -> Option<f64> {
        self.waiting.front().map(|next| next.time)
    }

    /// Scores what is due at `time`, when the lag is known to lie from `lag_min` to `lag_max`. A moment that was not sampled in time is not scored.
    pub fn observe(&mut self, time: f64, lag_min: f64, lag_max: f64) {
        while let Some(due) = self.waiting.front().copied().filter(|due| due.time <= time) {
            self.waiting.pop_front();
            if time - due.time > MAX_LATE {
                continue;
            }
            let error = |forecast: f64| (forecast - forecast.clamp(lag_min, lag_max)).abs();
            let outcome = ScoredForecast {
                error: error(due.q50),
                naive_error: error(due.naive),
                covered: lag_max >= due.q10 && lag_min <= due.q90,
            };
            if self.outcomes.len() == MAX_OUTCOMES {
                self.outcomes.pop_front();
            }
            self.outcomes.push_back(outcome);
        }
    }

    /// Drops what was due longer before `time` than an outcome may come late.
    pub fn expire(&mut self, time: f64) {
        while self.waiting.front().is_some_and(|due| time - due.time > MAX_LATE) {
            self.waiting.pop_front();
        }
    }

    /// How good the remembered forecasts were.
    #[must_use]
    pub fn skill(&self) -> Skill {
        let count = self.outcomes.len();
        if count == 0 {
            return Skill::default();
        }
        let sum = |of: fn(&ScoredForecast) -> f64| self.outcomes.iter().map(of).sum::<f64>();
        let (error, naive) = (sum(|outcome| outcome.error), sum(|outcome| outcome.naive_error));
        let least = MIN_ERROR * count as f64;
        let covered = self.outcomes.iter().filter(|outcome| outcome.covered).count();
        Skill {
            mase: (error.max(naive) > least).then(|| error / naive.max(least)),
            coverage_80: Some(covered as f64 / count as f64),
            forecasts: count as u64,
        }
    }
}
