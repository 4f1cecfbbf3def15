//! Forecast of a group's lag, from its history.
//!
//! Lag is a queue. What is forecast is not the lag but what goes into the queue and out of it: the arrivals and the capacity of the consumers. Both
//! are simulated through the queue's recursion, many times, with errors drawn from those that the same forecasts made in the past. The same is then
//! replayed at past moments of the history: that measures the skill against the naive forecast ("the lag stays what it is") and corrects the widths,
//! so that they cover what they say. Where the replay shows no skill there is no forecast, and a reason.
//!
//! Pure: the points come in, the forecast goes out; the random numbers come from a seed. All counts are in entries, all times in seconds.

mod arrivals;
mod breakdowns;
mod calibration;
mod capacity;
mod line;
mod ramp;
mod random;
mod score;
mod series;
mod simulation;

use std::fmt;

pub use score::{Scorer, Skill};

use arrivals::Arrivals;
use calibration::Replay;
use capacity::Capacity;
use line::LagLine;
use random::Random;
use series::StepSeries;
use simulation::{Paths, Simulation};

use crate::analysis::stats::sorted_quantile;

/// The most points that are read; of more, the newest. Four weeks by the minute.
pub const MAX_POINTS: usize = 41_000;
/// The longest horizon in seconds.
pub const MAX_HORIZON: f64 = 86_400.0;
/// The shortest step of the simulation in seconds.
const MIN_STEP: f64 = 60.0;
/// How many steps a horizon has at most.
const MAX_STEPS: usize = 72;
/// How many steps of history a forecast needs before the horizon's own length.
const MIN_HISTORY_STEPS: usize = 20;
/// How many futures are simulated.
const PATHS: usize = 400;
/// The age in seconds beyond which the newest point says nothing about now.
const MAX_AGE: f64 = 300.0;
/// The share of the naive error that a forecast may have and still be called better.
const MAX_MASE: f64 = 0.95;
/// Horizons in the history below which a replay gets no benefit of the doubt.
const FEW_HORIZONS: f64 = 12.0;
/// The share of outcomes that its 80% intervals must have held then. Where they held less, later ones held two of three.
const MIN_COVERAGE_OF_FEW: f64 = 0.7;
/// The share of outcomes that the 80% interval holds at least where it is as sure as it may be.
const MIN_COVERAGE: f64 = 0.75;
/// How many standard deviations below that the share must be: fewer may be chance.
const COVERAGE_DOUBT: f64 = 1.64;
/// The share of a horizon for which a backlog without a precedent must have lasted to be forecast over it.
const BACKLOG_SHARE: f64 = 1.0 / 3.0;
/// Outcomes without which forecasts that were made tell nothing of how good they are.
pub const MIN_OUTCOMES: u64 = 20;

/// One point of a group's history.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LagPoint {
    /// When it was sampled, in seconds since any fixed moment.
    pub time: f64,
    /// The lower bound of the lag; `None` where it was not known.
    pub lag_min: Option<f64>,
    /// The upper bound of the lag; equal to the lower one where the lag is exact.
    pub lag_max: Option<f64>,
    /// The lowest lag since the previous point, where the point stands for more than one sample.
    pub lag_lowest: Option<f64>,
    /// Entries added per second since the previous point.
    pub added_per_second: Option<f64>,
    /// Entries delivered to the group per second since the previous point.
    pub delivered_per_second: Option<f64>,
    /// Entries in the stream.
    pub length: Option<f64>,
}

/// What is asked of a forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForecastRequest {
    /// When it is made, on the clock of the points.
    pub now: f64,
    /// How far it looks ahead, in seconds.
    pub horizon: f64,
    /// The length at which the stream is trimmed. `None`: inferred from a length that stands still while entries arrive.
    pub max_length: Option<f64>,
    /// The lag from which the group counts as degraded.
    pub degraded: Option<f64>,
    /// The lag from which the group counts as unhealthy.
    pub unhealthy: Option<f64>,
    /// The seed of the random numbers: the same points, request and seed give the same forecast.
    pub seed: u64,
}

/// Quantiles of the lag at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LagQuantiles {
    /// The moment, on the clock of the points.
    pub time: f64,
    /// The lag is below this with a probability of 2.5%.
    pub q025: f64,
    /// 5%.
    pub q05: f64,
    /// 10%.
    pub q10: f64,
    /// 50%.
    pub q50: f64,
    /// 90%.
    pub q90: f64,
    /// 95%.
    pub q95: f64,
    /// 97.5%.
    pub q975: f64,
}

/// In how many seconds something happens, as quantiles. `None`: not within the horizon with that probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeTo {
    /// With a probability of 10% it happens before this.
    pub q10: f64,
    /// 50%.
    pub q50: Option<f64>,
    /// 90%.
    pub q90: Option<f64>,
}

/// When something happens; `None` where its probability within the horizon is below 10%, or where it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimesTo {
    /// The lag reaches the threshold of degraded.
    pub degraded: Option<TimeTo>,
    /// The lag reaches the threshold of unhealthy.
    pub unhealthy: Option<TimeTo>,
    /// The lag is down to what is normal for the group. `None` also where it is so now.
    pub drained: Option<TimeTo>,
    /// The stream's trimming removes entries that the group has not read. `None` also where no trimming is known.
    pub loss: Option<TimeTo>,
}

/// A forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// When it was made, on the clock of the points.
    pub made_at: f64,
    /// How far it looks ahead, in seconds.
    pub horizon: f64,
    /// The quantiles of the lag, in order of time, or why there are none.
    pub points: Result<Vec<LagQuantiles>, NoForecast>,
    /// When the lag gets somewhere. All `None` where there are no points.
    pub time_to: TimesTo,
    /// How good the same forecast would have been in the past of this history. `None` where the history was too short to tell.
    pub replay: Option<Skill>,
}

/// Why there is no forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoForecast {
    /// The horizon is no finite number above 0 and at most [`MAX_HORIZON`].
    Horizon,
    /// History covers less than what the horizon needs.
    TooShort {
        /// Seconds of history.
        have: f64,
        /// Seconds that are needed.
        need: f64,
    },
    /// The newest point with a known lag is too old.
    Stale {
        /// Its age in seconds; infinite where there is none.
        age: f64,
    },
    /// Too little of the history tells what arrived or was delivered.
    NoRates,
    /// The backlog grows, is young, and too few moments of the history had one.
    NewBacklog {
        /// For how many seconds there has been a backlog.
        lasted: f64,
        /// For how many it must have lasted to be forecast over this horizon.
        need: f64,
    },
    /// Past forecasts of this history were no better than the naive one.
    NoSkill {
        /// Their error, as a share of the naive forecast's.
        mase: f64,
    },
    /// Past forecasts of this history were too sure, and corrections of their widths did not help.
    NotCalibrated {
        /// The share of outcomes within the 80% interval.
        coverage: f64,
        /// What that should have been at least.
        least: f64,
    },
    /// Forecasts that were made for this group and horizon were too sure.
    TooSure {
        /// The share of outcomes within the 80% interval.
        coverage: f64,
        /// What that should have been at least.
        least: f64,
        /// How many they are.
        forecasts: u64,
    },
    /// Forecasts that were made for this group and horizon were no better than the naive one.
    Refuted {
        /// Their error, as a share of the naive forecast's.
        mase: f64,
        /// How many they are.
        forecasts: u64,
    },
}

impl fmt::Display for NoForecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Horizon => write!(f, "the horizon must be above 0 and at most {MAX_HORIZON} seconds"),
            Self::TooShort { have, need } => {
                write!(f, "history is too short for this horizon: {have:.0} seconds of {need:.0} that are needed")
            }
            Self::Stale { age } if age.is_finite() => {
                write!(f, "the newest known lag is {age:.0} seconds old: at most {MAX_AGE} are allowed")
            }
            Self::Stale { .. } => f.write_str("no point of the history has a known lag"),
            Self::NoRates => f.write_str("too little of the history tells what was added and delivered"),
            Self::NewBacklog { lasted, need } => write!(
                f,
                "the backlog is new to this history: it has lasted {lasted:.0} seconds of {need:.0} that a forecast of its growth over this horizon needs"
            ),
            Self::NoSkill { mase } => write!(
                f,
                "past forecasts were not better than the naive one: their error was {mase:.2} of its, expected at most {MAX_MASE}"
            ),
            Self::NotCalibrated { coverage, least } => write!(
                f,
                "past forecasts were too sure: {coverage:.2} of the outcomes were within the 80% interval, expected at least {least:.2}"
            ),
            Self::TooSure { coverage, least, forecasts } => write!(
                f,
                "the last {forecasts} forecasts were too sure: {coverage:.2} of the outcomes were within the 80% interval, expected at least {least:.2}"
            ),
            Self::Refuted { mase, forecasts } => write!(
                f,
                "the last {forecasts} forecasts were not better than the naive one: their error was {mase:.2} of its, expected at most {MAX_MASE}"
            ),
        }
    }
}

impl Forecast {
    /// The same, without points where forecasts like it have turned out no better than the naive one, or too sure.
    #[must_use]
    pub fn judged_by(mut self, skill: &Skill) -> Self {
        let forecasts = skill.forecasts;
        if self.points.is_err() || forecasts < MIN_OUTCOMES {
            return self;
        }
        let refuted = skill.mase.filter(|mase| *mase > MAX_MASE).map(|mase| NoForecast::Refuted { mase, forecasts });
        // Those that were made within one horizon have seen the same.
        let independent = forecasts as f64 * score::apart(self.horizon) / self.horizon;
        let too_sure =
            too_narrow(skill, independent).map(|(coverage, least)| NoForecast::TooSure { coverage, least, forecasts });
        if let Some(reason) = refuted.or(too_sure) {
            self.points = Err(reason);
            self.time_to = TimesTo::default();
        }
        self
    }
}

/// The share of outcomes within the 80% interval and what it should have been at least, where so many independent ones tell that it is too narrow.
/// One that is too wide is cautious, and stays: where the lag is a few entries, whole numbers make it so.
fn too_narrow(skill: &Skill, independent: f64) -> Option<(f64, f64)> {
    let independent = independent.clamp(1.0, (skill.forecasts as f64).max(1.0));
    let least = MIN_COVERAGE - COVERAGE_DOUBT * (MIN_COVERAGE * (1.0 - MIN_COVERAGE) / independent).sqrt();
    skill.coverage_80.filter(|coverage| *coverage < least).map(|coverage| (coverage, least))
}

/// Seconds of history that a forecast over `horizon` seconds needs.
#[must_use]
pub fn history_needed(horizon: f64) -> f64 {
    let step = step_of(horizon);
    1.5 * horizon + MIN_HISTORY_STEPS as f64 * step
}

/// Forecasts the lag from `points`, which are in order of time and none of which is later than `request.now`.
#[must_use]
pub fn forecast(points: &[LagPoint], request: &ForecastRequest) -> Forecast {
    match attempt(points, request) {
        Ok(forecast) => forecast,
        Err((reason, replay)) => Forecast {
            made_at: request.now,
            horizon: request.horizon,
            points: Err(reason),
            time_to: TimesTo::default(),
            replay,
        },
    }
}

/// The step of a horizon: whole minutes, so that the horizon has at most [`MAX_STEPS`].
fn step_of(horizon: f64) -> f64 {
    (horizon / MAX_STEPS as f64 / MIN_STEP).ceil().max(1.0) * MIN_STEP
}

fn attempt(points: &[LagPoint], request: &ForecastRequest) -> Result<Forecast, (NoForecast, Option<Skill>)> {
    if !(request.horizon > 0.0 && request.horizon <= MAX_HORIZON) {
        return Err((NoForecast::Horizon, None));
    }
    let points = &points[points.len().saturating_sub(MAX_POINTS)..];
    let newest = points.iter().rev().find(|point| point.lag_max.is_some());
    let age = newest.map_or(f64::INFINITY, |point| request.now - point.time);
    if age > MAX_AGE.max(3.0 * series::spacing(points)) {
        return Err((NoForecast::Stale { age }, None));
    }
    let step = step_of(request.horizon);
    let steps = (request.horizon / step).ceil() as usize;
    let have = points.first().map_or(0.0, |point| request.now - point.time);
    let need = history_needed(request.horizon);
    if have < need {
        return Err((NoForecast::TooShort { have, need }, None));
    }
    let series = StepSeries::new(points, request.now, step);
    if series.known_rates() < MIN_HISTORY_STEPS {
        return Err((NoForecast::NoRates, None));
    }
    let arrivals = Arrivals::fit(&series, steps);
    let capacity = Capacity::observe(&series);
    let simulation =
        Simulation { series: &series, arrivals: &arrivals, capacity: &capacity, max_length: request.max_length };
    let mut random = Random::new(request.seed);
    let replay = Replay::run(&simulation, steps, &mut random);
    let now = series.len();
    let busy = capacity.is_busy(now - 1);
    let judged = replay.skill(busy);
    let skill = judged.map(|(skill, _)| skill);
    if let Some(skill) = skill.filter(|skill| skill.mase.is_some_and(|mase| mase > MAX_MASE)) {
        return Err((NoForecast::NoSkill { mase: skill.mase.unwrap_or(f64::INFINITY) }, Some(skill)));
    }
    let narrow = judged.and_then(|(skill, independent)| {
        if replay.horizons < FEW_HORIZONS {
            let coverage = skill.coverage_80.filter(|coverage| *coverage < MIN_COVERAGE_OF_FEW)?;
            return Some((coverage, MIN_COVERAGE_OF_FEW));
        }
        too_narrow(&skill, independent)
    });
    if let Some((coverage, least)) = narrow {
        return Err((NoForecast::NotCalibrated { coverage, least }, skill));
    }
    let mut paths = simulation.run(now, steps, PATHS, &mut random);
    // One that drains ends at zero; one that grows without a precedent has no such bound.
    if busy && skill.is_none() && sorted_quantile(&paths.sorted_at(steps - 1), 0.5) > simulation.start(now) {
        let lasted = capacity.busy_steps(now) as f64 * step;
        let need = BACKLOG_SHARE * request.horizon;
        if lasted < need {
            return Err((NoForecast::NewBacklog { lasted, need }, None));
        }
    }
    let correction = replay.correction(&paths, busy, steps);
    let line = LagLine::fit(&series, now);
    correction.apply(&mut paths, simulation.start(now), line, simulation.highest_lag(now));
    let made_at = request.now;
    let points = (0..steps).map(|at| paths.quantiles_at(at, made_at + (at + 1) as f64 * step)).collect();
    Ok(Forecast {
        made_at,
        horizon: request.horizon,
        points: Ok(points),
        time_to: times_to(&paths, &simulation, request),
        replay: skill,
    })
}

fn times_to(paths: &Paths, simulation: &Simulation<'_>, request: &ForecastRequest) -> TimesTo {
    let now = simulation.series.len();
    let (start, step) = (simulation.start(now), simulation.series.step);
    let reach = |threshold: Option<f64>| {
        let threshold = threshold?;
        if start >= threshold {
            return Some(TimeTo { q10: 0.0, q50: Some(0.0), q90: Some(0.0) });
        }
        paths.time_to(step, |lag| lag >= threshold)
    };
    let normal = simulation.normal_lag(now);
    TimesTo {
        degraded: reach(request.degraded),
        unhealthy: reach(request.unhealthy),
        drained: if start <= normal { None } else { paths.time_to(step, |lag| lag <= normal) },
        loss: paths.time_to_loss(step),
    }
}

#[cfg(test)]
mod tests;
