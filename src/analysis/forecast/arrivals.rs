//! What will arrive: a level, with a drift or without, around a pattern of the hour, day or week where the history has three periods of it.
//!
//! Every candidate is judged by the errors that it made at every past step, over the horizon that is asked for; the best one forecasts. The errors of
//! the future are drawn from its past ones, a whole horizon at a time, so that bursts, drifts and slow waves keep their shape.

use std::collections::VecDeque;

use super::ramp::{Ramp, ramps};
use super::random::Random;
use super::series::StepSeries;
use crate::analysis::stats::sorted_quantile;

/// Half-lives of the level, in steps.
const HALF_LIVES: [f64; 4] = [4.0, 15.0, 60.0, 240.0];
/// Shares of the drift that are left after one horizon.
const DRIFTS_LEFT: [f64; 2] = [0.5, 1.0];
/// How many times as large as usual a drift must be to count, where only an unusual one does; at twice that it counts in full.
const UNUSUAL: f64 = 1.5;
/// Over how many half-lives of the level the usual size of a drift is taken.
const USUAL_HALF_LIVES: f64 = 20.0;
/// The doubt of a drift as a share of it: one standard deviation. That of a ramp may be smaller.
const DRIFT_DOUBT: f64 = 0.4;
/// Over how many horizons back the weight of an error falls to a half.
const HALF_WEIGHT: f64 = 4.0;
/// The shortest horizon in seconds over which ramps go on: over shorter ones waves of minutes decide.
const MIN_RAMP_HORIZON: f64 = 900.0;
/// What share of a deviation from the pattern is left after one hour.
const DEVIATION_LEFT: f64 = 0.5;
/// Periods that are tried, in seconds: those at which schedules run, the day and the week.
const PERIODS: [f64; 12] =
    [600.0, 900.0, 1_200.0, 1_800.0, 3_600.0, 7_200.0, 10_800.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0, 604_800.0];
/// How many patterns are tried thoroughly: those that explain most.
const MAX_PATTERNS: usize = 2;
/// How many periods a pattern needs.
pub(super) const MIN_PERIODS: usize = 3;
/// How much less than a part of it a longer period must leave unexplained.
const LONGER: f64 = 0.8;
/// How much smaller the error must be for a pattern, or a drift, to be believed.
const ADVANTAGE: f64 = 0.93;
/// How many past moments at the same phase of a pattern it takes to draw half of the errors from those.
const FEW_ALIKE: f64 = 4.0;
/// For how many horizons of history errors are weighed and drawn, at least the day.
const MEMORY_HORIZONS: usize = 24;

/// One way to forecast arrivals.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    half_life: f64,
    /// Whether the level is a median of as many steps as two half-lives: a burst that is over leaves no trace in it.
    robust: bool,
    /// What share of the drift is left after one horizon; 0: there is none.
    drift_left: f64,
    /// Whether deviations die out, back to the pattern.
    fades: bool,
    /// Whether the drift counts only where it is larger than it usually is: a load that is steady for days and then ramps up.
    unusual: bool,
}

/// The arrivals of a series, and how they are forecast.
#[derive(Debug)]
pub(super) struct Arrivals {
    actual: Vec<f64>,
    /// The pattern at each step of the history, without the step itself; zero where there is none.
    pattern: Vec<f64>,
    /// The pattern by phase, for the future; empty where there is none.
    phases: Vec<f64>,
    /// After each step: the level of the deviations, and their drift per step.
    level: Vec<f64>,
    drift: Vec<f64>,
    /// After each step: the doubt of the drift as a share of it.
    drift_doubt: Vec<f64>,
    /// What of level and drift is left in each step of the horizon.
    level_weight: Vec<f64>,
    drift_weight: Vec<f64>,
    /// Below this, errors no longer grow with what is expected.
    floor: f64,
    /// How far back errors are drawn, in steps.
    memory: usize,
}

impl Arrivals {
    pub(super) fn fit(series: &StepSeries, steps: usize) -> Self {
        let actual = &series.arrivals;
        let day = (86_400.0 / series.step) as usize;
        let memory = (MEMORY_HORIZONS * steps).max(day);
        let known: Vec<f64> = actual.iter().copied().filter(|value| !value.is_nan()).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;

        let (mut best, mut best_error) =
            Self::best_candidate(series, &vec![0.0; actual.len()], Vec::new(), steps, memory, false);
        let plain_error = best_error;
        let mut patterns: Vec<(f64, Vec<f64>, Vec<f64>)> = Vec::new();
        for period in PERIODS {
            let period = period / series.step;
            let whole = period.round() as usize;
            if period.fract() != 0.0 || whole < 3 || whole * MIN_PERIODS > actual.len() {
                continue;
            }
            let Some((pattern, phases)) = pattern_of(actual, whole) else { continue };
            let left = unexplained(actual, &pattern, mean);
            // What comes each hour comes also each sixth hour: the longer period has fewer of everything, and must tell more.
            let mut shorter = patterns.iter().filter(|(_, _, phases)| whole.is_multiple_of(phases.len()));
            if left < 0.9 && !shorter.any(|(other, ..)| left > LONGER * other) {
                patterns.push((left, pattern, phases));
            }
        }
        patterns.sort_unstable_by(|one, two| one.0.total_cmp(&two.0));
        for (_, pattern, phases) in patterns.into_iter().take(MAX_PATTERNS) {
            let (fitted, error) = Self::best_candidate(series, &pattern, phases, steps, memory, true);
            if error < ADVANTAGE * plain_error && error < 0.98 * best_error {
                (best, best_error) = (fitted, error);
            }
        }
        best.floor = (0.05 * mean).max(0.1);
        best
    }

    /// The candidate with the smallest error around a pattern.
    fn best_candidate(
        series: &StepSeries,
        pattern: &[f64],
        phases: Vec<f64>,
        steps: usize,
        memory: usize,
        fades: bool,
    ) -> (Self, f64) {
        // On the flank of a wave that a pattern does not quite explain, every day would be a ramp.
        let may_ramp = phases.is_empty() && steps as f64 * series.step >= MIN_RAMP_HORIZON;
        let ramps = if may_ramp { ramps(&series.arrivals, series.step) } else { vec![Ramp::default(); pattern.len()] };
        let mut best: Option<(Self, f64)> = None;
        let mut consider = |candidate: Candidate, handicap: f64| {
            let fitted = Self::with(series, pattern, &phases, &ramps, steps, memory, candidate);
            let error = fitted.error(steps) * handicap;
            if best.as_ref().is_none_or(|(_, least)| error < *least) {
                best = Some((fitted, error));
            }
        };
        for half_life in HALF_LIVES {
            consider(Candidate { half_life, robust: false, drift_left: 0.0, fades: false, unusual: false }, 1.0);
            consider(Candidate { half_life, robust: true, drift_left: 0.0, fades: false, unusual: false }, 1.0);
            for drift_left in DRIFTS_LEFT {
                consider(
                    Candidate { half_life, robust: false, drift_left, fades: false, unusual: false },
                    1.0 / ADVANTAGE,
                );
            }
            consider(Candidate { half_life, robust: false, drift_left: 1.0, fades: false, unusual: true }, 1.0);
            if fades {
                consider(Candidate { half_life, robust: false, drift_left: 0.0, fades: true, unusual: false }, 1.0);
            }
        }
        // There is always one: the list of half-lives is not empty.
        best.unwrap_or_else(|| {
            let candidate = Candidate { half_life: 60.0, robust: false, drift_left: 0.0, fades: false, unusual: false };
            (Self::with(series, pattern, &phases, &ramps, steps, memory, candidate), f64::INFINITY)
        })
    }

    fn with(
        series: &StepSeries,
        pattern: &[f64],
        phases: &[f64],
        ramps: &[Ramp],
        steps: usize,
        memory: usize,
        candidate: Candidate,
    ) -> Self {
        let actual = series.arrivals.clone();
        let alpha = 1.0 - 0.5_f64.powf(1.0 / candidate.half_life);
        let (mut level, mut drift) = (Vec::with_capacity(actual.len()), Vec::with_capacity(actual.len()));
        // Brown's double exponential smoothing; the single one is its first half. Started as a mean: the weight of the first values is their share.
        let (mut once, mut twice, mut seen) = (0.0, 0.0, 0.0);
        let (mut usual, slowly) = (0.0, 1.0 - 0.5_f64.powf(1.0 / (USUAL_HALF_LIVES * candidate.half_life)));
        let mut drift_doubt = Vec::with_capacity(actual.len());
        let mut recent = RecentArrivals::new(2 * candidate.half_life as usize);
        for (at, (value, expected)) in actual.iter().zip(pattern).enumerate() {
            let deviation = value - expected;
            if !deviation.is_nan() {
                seen += 1.0;
                let weight = alpha.max(1.0 / seen);
                once += weight * (deviation - once);
                twice += weight * (once - twice);
            }
            if candidate.robust {
                if !deviation.is_nan() {
                    recent.push(deviation);
                }
                level.push(recent.median());
                drift.push(0.0);
            } else if candidate.drift_left > 0.0 && seen > candidate.half_life {
                let apart: f64 = once - twice;
                let share =
                    if candidate.unusual { ((apart.abs() / usual - UNUSUAL) / UNUSUAL).clamp(0.0, 1.0) } else { 1.0 };
                // A drift that is unusual now is not usual soon.
                let size = if usual > 0.0 { apart.abs().min(UNUSUAL * usual) } else { apart.abs() };
                usual += slowly.max(1.0 / (seen - candidate.half_life)) * (size - usual);
                level.push(once + share * apart);
                drift.push(share * alpha / (1.0 - alpha) * apart);
            } else {
                level.push(once);
                drift.push(0.0);
            }
            // Whatever else is best, a ramp goes on.
            let ramp = ramps[at];
            level[at] += ramp.share * (ramp.level - level[at]);
            drift[at] += ramp.share * (ramp.slope - drift[at]);
            drift_doubt.push(DRIFT_DOUBT - ramp.share * (DRIFT_DOUBT - ramp.doubt.min(DRIFT_DOUBT)));
        }
        let fade = if candidate.fades { DEVIATION_LEFT.powf(series.step / 3_600.0) } else { 1.0 };
        // The drift of a ramp is left as a whole.
        let left = if candidate.drift_left > 0.0 { candidate.drift_left } else { 1.0 };
        let damping = left.powf(1.0 / steps as f64);
        let (mut level_left, mut drift_left, mut drifted) = (1.0, 1.0, 0.0);
        let (mut level_weight, mut drift_weight) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
        for _ in 0..steps {
            level_left *= fade;
            drift_left *= damping;
            drifted += drift_left;
            level_weight.push(level_left);
            drift_weight.push(drifted);
        }
        Self {
            actual,
            pattern: pattern.to_vec(),
            phases: phases.to_vec(),
            level,
            drift,
            drift_doubt,
            level_weight,
            drift_weight,
            floor: 0.0,
            memory,
        }
    }

    /// The mean error of the sums over the horizon and over a quarter of it, at the steps that are remembered.
    fn error(&self, steps: usize) -> f64 {
        let deviations: Vec<f64> =
            self.actual.iter().zip(&self.pattern).map(|(actual, pattern)| actual - pattern).collect();
        let mut sums = Vec::with_capacity(deviations.len() + 1);
        let mut gaps = Vec::with_capacity(deviations.len() + 1);
        let (mut sum, mut gap) = (0.0, 0_usize);
        sums.push(0.0);
        gaps.push(0);
        for deviation in &deviations {
            if deviation.is_nan() {
                gap += 1
            } else {
                sum += deviation
            }
            sums.push(sum);
            gaps.push(gap);
        }
        let mut total = 0.0;
        for ahead in [steps, steps.div_ceil(4)] {
            let level: f64 = self.level_weight[..ahead].iter().sum();
            let drift: f64 = self.drift_weight[..ahead].iter().sum();
            let first = deviations.len().saturating_sub(self.memory).max(8);
            let (mut errors, mut count) = (0.0, 0.0);
            let fading = 0.5_f64.powf(1.0 / (HALF_WEIGHT * ahead as f64).max(60.0));
            for at in first..deviations.len().saturating_sub(ahead) {
                errors *= fading;
                count *= fading;
                if gaps[at + 1 + ahead] != gaps[at + 1] {
                    continue;
                }
                let forecast = level * self.level[at] + drift * self.drift[at];
                errors += (sums[at + 1 + ahead] - sums[at + 1] - forecast).abs().powf(1.5);
                count += 1.0;
            }
            total += errors / f64::max(count, 1.0) / (ahead as f64).powf(1.5);
        }
        total
    }

    /// The period of the pattern in steps; `None` where there is none.
    pub(super) fn period(&self) -> Option<usize> {
        (!self.phases.is_empty()).then_some(self.phases.len())
    }

    /// What is expected `ahead` steps after step `at` (0: the next one), seen from there.
    fn expected(&self, at: usize, ahead: usize) -> f64 {
        let next = at + 1 + ahead;
        let pattern = match self.pattern.get(next) {
            Some(pattern) => *pattern,
            None if self.phases.is_empty() => 0.0,
            None => self.phases[next % self.phases.len()],
        };
        (pattern + self.level_weight[ahead] * self.level[at] + self.drift_weight[ahead] * self.drift[at]).max(0.0)
    }

    /// What is expected in each step after `end`.
    pub(super) fn baseline(&self, end: usize, steps: usize) -> Vec<f64> {
        (0..steps).map(|ahead| self.expected(end - 1, ahead)).collect()
    }

    /// Writes one future after `end` into `path`: what is expected, and the errors that followed after some past step.
    pub(super) fn draw(&self, end: usize, baseline: &[f64], path: &mut [f64], random: &mut Random) {
        let steps = path.len();
        let doubt = self.drift_doubt[end - 1] * random.normal() * self.drift[end - 1];
        let first = end.saturating_sub(self.memory).max(4);
        let room = end.saturating_sub(steps + first);
        // Where history is short, the errors of a part of the horizon are drawn several times.
        let block = if room >= steps { steps } else { (end.saturating_sub(first) / 3).clamp(1, steps) };
        let room = end.saturating_sub(block + first);
        // Errors just before a batch are those of batches; the fewer were seen, the more are drawn from all.
        let alike = self.period().filter(|_| block == steps).and_then(|period| {
            let least = block.div_ceil(period);
            let count = ((end - first) / period + 1).saturating_sub(least);
            (count > 0).then_some((period, least, count))
        });
        let mut ahead = 0;
        while ahead < steps {
            let from = match alike {
                Some((period, least, count)) if random.uniform() < count as f64 / (count as f64 + FEW_ALIKE) => {
                    end - period * (least + random.below(count))
                }
                _ => first + random.below(room + 1),
            };
            for inside in 0..block.min(steps - ahead) {
                let now = (baseline[ahead + inside] + doubt * self.drift_weight[ahead + inside]).max(0.0);
                let then = self.expected(from - 1, inside);
                let error = self.actual.get(from + inside).copied().unwrap_or(f64::NAN) - then;
                // Loads vary by a share of what they are, more than by chance (a root of it).
                let scale = (now.max(self.floor) / then.max(self.floor)).clamp(0.3, 3.0);
                path[ahead + inside] = if error.is_nan() { now } else { (now + error * scale).max(0.0) };
            }
            ahead += block;
        }
    }
}

/// The newest values, and their median.
struct RecentArrivals {
    size: usize,
    values: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl RecentArrivals {
    fn new(size: usize) -> Self {
        Self { size, values: VecDeque::with_capacity(size + 1), sorted: Vec::with_capacity(size + 1) }
    }

    fn push(&mut self, value: f64) {
        self.values.push_back(value);
        let place = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
        self.sorted.insert(place, value);
        if self.values.len() > self.size
            && let Some(oldest) = self.values.pop_front()
        {
            let place = self.sorted.partition_point(|other| other.total_cmp(&oldest).is_lt());
            self.sorted.remove(place);
        }
    }

    fn median(&self) -> f64 {
        if self.sorted.is_empty() { 0.0 } else { sorted_quantile(&self.sorted, 0.5) }
    }
}

/// The mean of each phase, and for each step the mean of its phase without itself. `None` where a phase was seen less than twice.
fn pattern_of(actual: &[f64], period: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let (mut sums, mut counts) = (vec![0.0; period], vec![0.0; period]);
    for (at, value) in actual.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
        sums[at % period] += value;
        counts[at % period] += 1.0;
    }
    if counts.iter().any(|count| *count < 2.0) {
        return None;
    }
    let without = |(at, value): (usize, &f64)| {
        let (sum, count) = (sums[at % period], counts[at % period]);
        if value.is_nan() { sum / count } else { (sum - value) / (count - 1.0) }
    };
    let pattern = actual.iter().enumerate().map(without).collect();
    Some((pattern, sums.iter().zip(&counts).map(|(sum, count)| sum / count).collect()))
}

/// The share of the variance that a pattern leaves unexplained: a cheap test before the thorough one.
fn unexplained(actual: &[f64], pattern: &[f64], mean: f64) -> f64 {
    let (mut left, mut all) = (0.0, 0.0);
    for (value, pattern) in actual.iter().zip(pattern).filter(|(value, _)| !value.is_nan()) {
        left += (value - pattern).powi(2);
        all += (value - mean).powi(2);
    }
    if all > 0.0 { left / all } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forecast::tests::numbers::{digest, same};

    /// Half a day by the minute: a batch each hour, a slow wave, a step up, and a gap.
    fn series() -> StepSeries {
        let at = |minute: usize| {
            let wave = 30.0 * (minute as f64 / 97.0).sin();
            100.0 + wave + if minute % 60 == 40 { 600.0 } else { 0.0 } + if minute > 500 { 80.0 } else { 0.0 }
        };
        let arrivals = (0..720).map(|minute| if (300..310).contains(&minute) { f64::NAN } else { at(minute) });
        let none = || vec![f64::NAN; 720];
        StepSeries {
            step: 60.0,
            arrivals: arrivals.collect(),
            delivered: none(),
            lag: none(),
            lowest: none(),
            doubt: none(),
            length: none(),
        }
    }

    #[test]
    fn the_numbers_of_each_candidate() {
        let (series, steps) = (series(), 30);
        let (pattern, phases) = pattern_of(&series.arrivals, 60).unwrap();
        let none = vec![Ramp::default(); pattern.len()];
        let plain = Candidate { half_life: 30.0, robust: false, drift_left: 0.0, fades: false, unusual: false };
        let check = |name: &str, candidate: Candidate, expected: [f64; 2]| {
            let fitted = Arrivals::with(&series, &pattern, &phases, &none, steps, 24 * steps, candidate);
            same(name, &[("error", fitted.error(steps)), ("all", digest(&fitted))], &expected);
        };
        check("plain", plain, [2.407126992394e2, 1.405841357286e6]);
        check("robust", Candidate { robust: true, ..plain }, [1.816761053723e2, 1.411558516797e6]);
        check("drift", Candidate { drift_left: 0.5, ..plain }, [9.492850999260e1, 1.430650295284e6]);
        check("unusual", Candidate { drift_left: 1.0, unusual: true, ..plain }, [9.511584402384e1, 1.432336715042e6]);
        check("fades", Candidate { fades: true, ..plain }, [2.834597983200e2, 1.405806776139e6]);
    }
}
