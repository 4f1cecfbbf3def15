//! The forecasts that would have been made at past moments of the history: how good they would have been, and by how much their widths must be
//! corrected so that they cover what they say. Conformal prediction whose scores are replayed from the history, so that no state is kept between
//! forecasts and a restart loses nothing; newer scores weigh more, which makes it adapt.

use std::collections::BTreeSet;

use super::MIN_HISTORY_STEPS;
use super::arrivals::MIN_PERIODS;
use super::line::LagLine;
use super::random::Random;
use super::score::Skill;
use super::simulation::{Paths, Simulation};
use crate::analysis::stats::sorted_quantile;

/// At how many past moments the forecast is replayed, at most.
const MOMENTS: usize = 64;
/// How many futures are simulated at each.
const PATHS: usize = 80;
/// The fewest moments from which a correction or a skill is taken.
const MIN_MOMENTS: usize = 8;
/// How many scores the assumption "the widths are right" is worth.
const PRIOR: f64 = 6.0;
/// What a score counts that was made at another phase of the pattern than now's, at least.
const OTHER_PHASE: f64 = 0.1;
/// How far apart phases may be, as a share of the period, to be much the same.
const SAME_PHASE: f64 = 0.04;
/// Bounds of a correction.
const FACTOR: (f64, f64) = (0.1, 6.0);
/// What a quantile beyond all scores is taken to be, in units of the largest of them.
const BEYOND: f64 = 2.0;
/// Shares of the model's median in the middle of a forecast; the rest is the naive forecast.
const BESIDE_NAIVE: [f64; 4] = [0.75, 0.5, 0.25, 0.0];
/// The same; the rest is the line. With the line alone, intervals hold less than they say.
const BESIDE_LINE: [f64; 2] = [0.75, 0.5];
/// How small, beside the error of the model's median, one must be that has a part of the naive forecast.
const ADVANTAGE_OF_NAIVE: f64 = 0.97;
/// The same with a part of the line, which a few moments favour by chance more often.
const ADVANTAGE_OF_LINE: f64 = 0.85;
/// The share of the naive error below which a forecast pretends to be no surer upwards: a lag can rise as far as it ever did.
const MIN_WIDTH_ABOVE: f64 = 0.02;
/// The same downwards, of how far outcomes were below the forecast on average. A lag that keeps up falls no lower for having been high: with the naive
/// error, 80% intervals of a calm group that has bursts began at 0 and held 90% of what came.
const MIN_WIDTH_BELOW: f64 = 0.4;
/// Scores of forecasts whose width differs by this (a logarithm) count for a half.
const KERNEL: f64 = 1.1;
/// What a score counts that was made with a backlog where there is none now, or the other way round.
const OTHER_STATE: f64 = 0.08;
/// Horizons, in seconds, beyond which one more score of a pattern counts as much as the scores that there are, on average, and not 1. With 1, 80%
/// intervals of daily workloads held 90 to 93% of what came. At an hour, weekly ones would hold 75% instead of 80% without it (on the half of the
/// backtest that is tuned on).
const LONG_HORIZON: f64 = 3_600.0;
/// Over how many moments back a score's weight falls to a half.
const HALF_WEIGHT: f64 = 40.0;

/// Pairs of quantiles that are corrected: the ends of the 80%, 90% and 95% interval.
const PAIRS: usize = 3;

/// One forecast of the past beside what came.
#[derive(Clone, Copy, Debug)]
struct ReplayOutcome {
    actual: f64,
    naive: f64,
    /// Where the line of the last hour was then.
    line: f64,
    low: [f64; PAIRS],
    median: f64,
    high: [f64; PAIRS],
    /// Whether the group had a backlog when the forecast was made.
    busy: bool,
    weight: f64,
}

/// The outcomes per anchor: steps ahead at which forecasts are compared.
#[derive(Debug)]
pub(super) struct Replay {
    anchors: Vec<(usize, Vec<ReplayOutcome>)>,
    /// How many horizons the replayed moments cover: outcomes of moments that are closer than a horizon are not independent.
    pub(super) horizons: f64,
    /// Whether there is a pattern, and the horizon is longer than [`LONG_HORIZON`].
    long_in_pattern: bool,
}

/// What the middle of a forecast is made of: these shares of the model's median and of the line; the rest is the naive forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Blend {
    model: f64,
    line: f64,
}

impl Blend {
    const MODEL: Self = Self { model: 1.0, line: 0.0 };

    fn of(self, median: f64, line: f64, naive: f64) -> f64 {
        self.model * median + self.line * line + (1.0 - self.model - self.line) * naive
    }
}

/// The correction at one anchor.
#[derive(Clone, Copy, Debug)]
struct Factors {
    /// Steps ahead.
    ahead: usize,
    blend: Blend,
    /// Of the widths below and above the median, from the inner to the outer pair.
    low: [f64; PAIRS],
    high: [f64; PAIRS],
    /// The least width below and above the median.
    least: (f64, f64),
}

/// Corrections over the horizon.
#[derive(Debug)]
pub(super) struct Correction {
    factors: Vec<Factors>,
    steps: usize,
}

/// By how much wider, over the number of independent outcomes, an interval is that rests on few: Student's quantiles beside the normal ones, (z² + 1) / 4.
const STUDENT: [f64; PAIRS] = [0.66, 0.93, 1.21];

/// Quantiles that are corrected, from the inner to the outer pair.
const SHARES: [f64; PAIRS] = [0.1, 0.05, 0.025];

impl Replay {
    pub(super) fn run(simulation: &Simulation<'_>, steps: usize, random: &mut Random) -> Self {
        let len = simulation.series.len();
        let mut anchors: Vec<(usize, Vec<ReplayOutcome>)> =
            anchors(steps).into_iter().map(|ahead| (ahead, Vec::new())).collect();
        let pattern = simulation.arrivals.period().map_or(0, |period| MIN_PERIODS * period);
        // What was forecast before the pattern was known says little of how good it is now, if enough has come since.
        let first = MIN_HISTORY_STEPS.max(if len >= 2 * pattern { pattern } else { 0 }).max(len / 8);
        let room = len.saturating_sub(steps + first);
        let count = MOMENTS.min(room);
        let phase = CyclePhase { now: len, period: simulation.arrivals.period() };
        for end in moments(len - steps, room, count, phase) {
            let naive = simulation.start(end);
            if naive.is_nan() {
                continue;
            }
            let busy = simulation.capacity.is_busy(end - 1);
            let lag_line = LagLine::fit(simulation.series, end);
            let paths = simulation.run(end, steps, PATHS, random);
            let age = (len - steps - end) as f64 / room as f64 * count as f64;
            let weight = phase.weight(end) * 0.5_f64.powf(age / HALF_WEIGHT);
            for (ahead, outcomes) in &mut anchors {
                let actual = simulation.series.lag[end + *ahead];
                if actual.is_nan() {
                    continue;
                }
                let sorted = paths.sorted_at(*ahead);
                let of = |share| sorted_quantile(&sorted, share);
                let low = SHARES.map(of);
                let high = SHARES.map(|share| of(1.0 - share));
                let (line, median) = (lag_line.at(*ahead), of(0.5));
                outcomes.push(ReplayOutcome { actual, naive, line, low, median, high, busy, weight });
            }
        }
        let long_in_pattern = phase.period.is_some() && simulation.series.step * steps as f64 > LONG_HORIZON;
        Self { anchors, horizons: (room as f64 / steps as f64).max(1.0), long_in_pattern }
    }

    /// The error beside the naive one over all anchors, and the coverage at the end of the horizon, where each outcome is judged by corrections that
    /// do not know it.
    /// Only those count that were made in the state of now, with a backlog or without: that all was calm before says nothing of a backlog's forecast.
    /// With that how many independent outcomes the coverage rests on.
    pub(super) fn skill(&self, busy: bool) -> Option<(Skill, f64)> {
        let (mut ratios, mut kept, mut told, mut squares) = (Vec::new(), 0.0, 0.0, 0.0);
        let mut forecasts = 0;
        for (place, (_, outcomes)) in self.anchors.iter().enumerate() {
            let alike: Vec<(usize, &ReplayOutcome)> =
                outcomes.iter().enumerate().filter(|(_, outcome)| outcome.busy == busy).collect();
            if alike.len() < MIN_MOMENTS {
                continue;
            }
            forecasts = forecasts.max(alike.len() as u64);
            let blends = [self.blend(place, false), self.blend(place, true)];
            let (mut error, mut naive) = (0.0, 0.0);
            for (_, outcome) in &alike {
                error += (outcome.actual - outcome.blended(blends[usize::from(outcome.busy)])).abs() * outcome.weight;
                naive += (outcome.actual - outcome.naive).abs() * outcome.weight;
            }
            let floor = 0.5 * alike.iter().map(|(_, outcome)| outcome.weight).sum::<f64>();
            ratios.push(if error <= floor && naive <= floor { f64::NAN } else { error / naive.max(1e-9) });
            // Of the end of the horizon only: each takes corrections of its own.
            let judged = if place + 1 == self.anchors.len() { alike } else { Vec::new() };
            for (index, outcome) in judged {
                let factors = self.factors(place, blends, outcome.busy, outcome.widths(), Some(index));
                let (low, high) = factors.interval(outcome);
                kept += if outcome.actual >= low && outcome.actual <= high { outcome.weight } else { 0.0 };
                told += outcome.weight;
                squares += outcome.weight * outcome.weight;
            }
        }
        if forecasts == 0 {
            return None;
        }
        let known: Vec<f64> = ratios.iter().copied().filter(|ratio| !ratio.is_nan()).collect();
        // Where neither was wrong, neither is better.
        let mase = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        let independent = if squares > 0.0 { (told * told / squares).min(self.horizons) } else { 0.0 };
        Some((Skill { mase, coverage_80: (told > 0.0).then_some(kept / told), forecasts }, independent))
    }

    /// The correction of the paths that were simulated for now.
    pub(super) fn correction(&self, paths: &Paths, busy: bool, steps: usize) -> Correction {
        let at = |place: usize| {
            let sorted = paths.sorted_at(self.anchors[place].0);
            let of = |share| sorted_quantile(&sorted, share);
            let widths = (of(0.5) - of(SHARES[0]), of(1.0 - SHARES[0]) - of(0.5));
            self.factors(place, [self.blend(place, false), self.blend(place, true)], busy, widths, None)
        };
        Correction { factors: (0..self.anchors.len()).map(at).collect(), steps }
    }

    /// What made the smallest error at an anchor.
    fn blend(&self, place: usize, busy: bool) -> Blend {
        let own: Vec<&ReplayOutcome> = self.anchors[place].1.iter().filter(|outcome| outcome.busy == busy).collect();
        if own.len() < MIN_MOMENTS {
            return Blend::MODEL;
        }
        let error = |blend: Blend| {
            own.iter().map(|outcome| (outcome.actual - outcome.blended(blend)).abs() * outcome.weight).sum::<f64>()
        };
        let of_model = error(Blend::MODEL);
        let with_naive = BESIDE_NAIVE.map(|model| (Blend { model, line: 0.0 }, ADVANTAGE_OF_NAIVE));
        let with_line = BESIDE_LINE.map(|model| (Blend { model, line: 1.0 - model }, ADVANTAGE_OF_LINE));
        let (mut best, mut least) = (Blend::MODEL, f64::INFINITY);
        for (blend, advantage) in with_naive.into_iter().chain(with_line) {
            let error = error(blend);
            if error < least && error < advantage * of_model {
                (best, least) = (blend, error);
            }
        }
        best
    }

    /// The corrections of an anchor, from its outcomes and its neighbours', without those of one moment.
    /// Scores of forecasts that were about as wide as this one count more.
    fn factors(
        &self,
        place: usize,
        blends: [Blend; 2],
        busy: bool,
        widths: (f64, f64),
        without: Option<usize>,
    ) -> Factors {
        let ahead = self.anchors[place].0;
        let blend = blends[usize::from(busy)];
        let near = &self.anchors[place.saturating_sub(1)..(place + 2).min(self.anchors.len())];
        let own = &self.anchors[place].1;
        if own.len() < MIN_MOMENTS {
            return Factors { ahead, blend, low: [1.0; PAIRS], high: [1.0; PAIRS], least: (0.0, 0.0) };
        }
        // Of the state of now only: after a crash the naive forecast is off by more in a minute than a calm group's lag ever is.
        let (mut naive, mut above, mut total) = (0.0, 0.0, 0.0);
        for outcome in own.iter().filter(|outcome| outcome.busy == busy) {
            naive += (outcome.actual - outcome.naive).abs() * outcome.weight;
            above += (outcome.blended(blend) - outcome.actual).max(0.0) * outcome.weight;
            total += outcome.weight;
        }
        let least =
            if total > 0.0 { (MIN_WIDTH_BELOW * above / total, MIN_WIDTH_ABOVE * naive / total) } else { (0.0, 0.0) };
        let factor = |pair: usize, upper: bool| {
            let scores = near
                .iter()
                .flat_map(|(_, outcomes)| outcomes.iter().enumerate())
                .filter(|(index, _)| Some(*index) != without);
            let (width, least) = if upper { (widths.1, least.1) } else { (widths.0, least.0) };
            let scores = scores.map(|(_, outcome)| {
                let other = if upper { outcome.widths().1 } else { outcome.widths().0 };
                let apart = (width.max(least) + 1.0).ln() - (other.max(least) + 1.0).ln();
                let alike = if outcome.busy == busy { 1.0 } else { OTHER_STATE };
                let blend = blends[usize::from(outcome.busy)];
                (outcome.score(pair, upper, blend, least), alike * outcome.weight / (1.0 + (apart / KERNEL).powi(2)))
            });
            let scores = scores.collect();
            conformal(scores, 1.0 - SHARES[pair], self.long_in_pattern) * (1.0 + STUDENT[pair] / self.horizons)
        };
        Factors {
            ahead,
            blend,
            low: std::array::from_fn(|pair| factor(pair, false)),
            high: std::array::from_fn(|pair| factor(pair, true)),
            least,
        }
    }
}

impl ReplayOutcome {
    /// Of the simulated 80% interval, below and above its median.
    fn widths(&self) -> (f64, f64) {
        (self.median - self.low[0], self.high[0] - self.median)
    }

    fn blended(&self, blend: Blend) -> f64 {
        blend.of(self.median, self.line, self.naive)
    }

    /// How far above (or below) the median it came, in widths of the forecast.
    fn score(&self, pair: usize, upper: bool, blend: Blend, least: f64) -> f64 {
        let distance = self.actual - self.blended(blend);
        let (distance, width) =
            if upper { (distance, self.high[pair] - self.median) } else { (-distance, self.median - self.low[pair]) };
        let width = width.max(least);
        if width > 0.0 {
            distance / width
        } else if distance > 0.0 {
            f64::INFINITY
        } else {
            0.0
        }
    }
}

impl Factors {
    /// The corrected 80% interval of an outcome.
    fn interval(&self, outcome: &ReplayOutcome) -> (f64, f64) {
        let median = outcome.blended(self.blend);
        let low = median - self.low[0] * (outcome.median - outcome.low[0]).max(self.least.0);
        let high = median + self.high[0] * (outcome.high[0] - outcome.median).max(self.least.1);
        (low.max(0.0).round(), high.round())
    }
}

/// The weighted quantile of the scores at `level`, drawn towards 1 while they are few. How many there are is the sum of their weights, or, where
/// `average`, that over their average weight (itself weighted): Kish's effective sample size.
fn conformal(mut scores: Vec<(f64, f64)>, level: f64, average: bool) -> f64 {
    scores.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let total: f64 = scores.iter().map(|(_, weight)| weight).sum();
    let squares: f64 = scores.iter().map(|(_, weight)| weight * weight).sum();
    let one = if average && total > 0.0 { squares / total } else { 1.0 };
    // One more score than there are, and that the highest: the finite-sample correction.
    let wanted = level * (total + one);
    let mut sum = 0.0;
    let reached = scores.iter().find(|(_, weight)| {
        sum += weight;
        sum >= wanted
    });
    let beyond = || scores.last().map_or(1.0, |(largest, _)| (BEYOND * largest).max(1.0));
    let found = reached.map_or_else(beyond, |(score, _)| *score).clamp(FACTOR.0, FACTOR.1);
    // Anchors next to each other see the same futures: their scores count for a third.
    let count = total / one / 3.0;
    ((found.ln() * count) / (count + PRIOR)).exp()
}

/// Where a moment is in the pattern that repeats.
#[derive(Clone, Copy)]
struct CyclePhase {
    now: usize,
    period: Option<usize>,
}

impl CyclePhase {
    /// 1 at the phase of now; less elsewhere.
    fn weight(self, end: usize) -> f64 {
        let Some(period) = self.period else { return 1.0 };
        let behind = (self.now - end) % period;
        let apart = behind.min(period - behind) as f64 / period as f64;
        OTHER_PHASE + (1.0 - OTHER_PHASE) * (-(apart / SAME_PHASE).powi(2)).exp()
    }
}

/// Past moments, at most `count` and in order, the last of them at `last`: evenly spread over the `room` before it, or half of them so and the others at
/// the phase of now, where there is one. What happens each hour at the hour is not seen by moments that are 40 minutes apart.
fn moments(last: usize, room: usize, count: usize, phase: CyclePhase) -> Vec<usize> {
    let evenly = |count: usize| (0..count).map(move |moment| last - moment * room / count);
    let Some(period) = phase.period else { return evenly(count).rev().collect() };
    let first = (phase.now - last).div_ceil(period);
    let alike = (first..).map_while(|times| phase.now.checked_sub(times * period)).take_while(|end| *end + room > last);
    let mut found: BTreeSet<usize> = alike.take(count / 2).collect();
    found.extend(evenly(count - found.len()));
    found.into_iter().collect()
}

/// Steps ahead at which forecasts are compared: close together at first.
fn anchors(steps: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut ahead = 0;
    while ahead + 1 < steps {
        found.push(ahead);
        ahead = (ahead + 1).max((ahead as f64 * 1.6).ceil() as usize);
    }
    found.push(steps - 1);
    found
}

impl Correction {
    /// Corrects the lags of the paths: the median towards the naive forecast or the line, and the distances from it.
    pub(super) fn apply(&self, paths: &mut Paths, naive: f64, line: LagLine, limit: f64) {
        for ahead in 0..self.steps {
            let factors = self.at(ahead);
            let sorted = paths.sorted_at(ahead);
            let of = |share| sorted_quantile(&sorted, share);
            let median = of(0.5);
            let middle = factors.blend.of(median, line.at(ahead), naive);
            let low = Side::new(SHARES.map(|share| median - of(share)), factors.low, factors.least.0);
            let high = Side::new(SHARES.map(|share| of(1.0 - share) - median), factors.high, factors.least.1);
            paths.map_at(ahead, |lag, rank| {
                let moved = if rank < 0.5 {
                    middle - low.map(median - lag, (0.5 - rank) / (0.5 - SHARES[0]))
                } else {
                    middle + high.map(lag - median, (rank - 0.5) / (0.5 - SHARES[0]))
                };
                moved.clamp(0.0, limit)
            });
        }
    }

    /// The factors at a step, between the anchors beside it.
    fn at(&self, ahead: usize) -> Factors {
        let after = self.factors.partition_point(|factors| factors.ahead < ahead).min(self.factors.len() - 1);
        let (left, right) = (self.factors[after.saturating_sub(1)], self.factors[after]);
        let share = if right.ahead > left.ahead {
            (ahead as f64 - left.ahead as f64) / (right.ahead - left.ahead) as f64
        } else {
            1.0
        };
        let mix = |left: f64, right: f64| left + (right - left) * share.clamp(0.0, 1.0);
        Factors {
            ahead,
            blend: Blend {
                model: mix(left.blend.model, right.blend.model),
                line: mix(left.blend.line, right.blend.line),
            },
            low: std::array::from_fn(|pair| mix(left.low[pair], right.low[pair])),
            high: std::array::from_fn(|pair| mix(left.high[pair], right.high[pair])),
            least: (mix(left.least.0, right.least.0), mix(left.least.1, right.least.1)),
        }
    }
}

/// One side of a distribution: from the widths that were simulated to those that are corrected.
struct Side {
    /// Distances of the quantiles from the median, from the inner to the outer, simulated and corrected.
    from: [f64; PAIRS],
    to: [f64; PAIRS],
}

impl Side {
    fn new(from: [f64; PAIRS], factors: [f64; PAIRS], least: f64) -> Self {
        let mut reached: f64 = 0.0;
        let to = std::array::from_fn(|pair| {
            reached = reached.max(factors[pair] * from[pair].max(least));
            reached
        });
        Self { from, to }
    }

    /// Piecewise linear, so that the order of the paths stays. `rank` is 0 at the median and 1 at the inner quantile. Paths that agree are as sure as
    /// the history allows and not surer: they are spread over the least width by their rank.
    fn map(&self, distance: f64, rank: f64) -> f64 {
        let (inner, to) = (self.from[0], self.to[0]);
        if distance <= inner || rank <= 1.0 {
            return if inner > 0.0 { distance / inner * to } else { rank * to };
        }
        for pair in 1..PAIRS {
            let (from, until) = (self.from[pair - 1], self.from[pair]);
            if until > from && distance <= until {
                return self.to[pair - 1] + (distance - from) / (until - from) * (self.to[pair] - self.to[pair - 1]);
            }
        }
        self.to[PAIRS - 1] + distance - self.from[PAIRS - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_bursts_is_not_expected_to_fall_lower_when_calm() {
        // Each fifth of these forecasts of a calm group was followed by a burst.
        let outcome = |moment: usize| ReplayOutcome {
            actual: if moment % 5 == 4 { 50_000.0 } else { 22.0 + (moment % 7) as f64 },
            naive: 25.0,
            line: 25.0,
            low: [21.0, 20.0, 20.0],
            median: 25.0,
            high: [30.0, 30.0, 60_000.0],
            busy: false,
            weight: 1.0,
        };
        let outcomes: Vec<ReplayOutcome> = (0..40).map(outcome).collect();
        let replay = Replay { anchors: vec![(0, outcomes.clone())], horizons: 40.0, long_in_pattern: false };
        let factors = replay.factors(0, [Blend::MODEL; 2], false, outcomes[0].widths(), None);
        let (low, high) = factors.interval(&outcomes[0]);
        assert!((18.0..=23.0).contains(&low) && high > 100.0, "{low} to {high}");
    }

    #[test]
    fn the_middle_is_drawn_to_the_line_or_to_the_naive_forecast_where_that_was_clearly_better() {
        let blend_of = |naive: f64, line: f64, busy: bool| {
            let outcome = |moment: usize| {
                let actual = 1_000.0 + moment as f64;
                let [naive, line, median] = [naive, line, 100.0].map(|off| actual + off);
                let (low, high) = ([median - 50.0; PAIRS], [median + 50.0; PAIRS]);
                ReplayOutcome { actual, naive, line, low, median, high, busy: true, weight: 1.0 }
            };
            let anchors = vec![(0, (0..10).map(outcome).collect())];
            Replay { anchors, horizons: 10.0, long_in_pattern: false }.blend(0, busy)
        };
        assert_eq!(blend_of(200.0, 0.0, true), Blend { model: 0.5, line: 0.5 });
        assert_eq!(blend_of(200.0, 75.0, true), Blend::MODEL, "an eighth less is chance");
        assert_eq!(blend_of(200.0, 0.0, false), Blend::MODEL, "nothing is known of that state");
        // It errs to the other side: with a quarter of it, a quarter of the error is left.
        assert_eq!(blend_of(-200.0, 75.0, true), Blend { model: 0.75, line: 0.0 });
    }

    #[test]
    fn scores_of_small_weight_are_few_or_as_many_as_there_are() {
        let scores = |weight: f64| (1..20).map(|score| (f64::from(score) / 10.0, weight)).collect();
        // 88% of 20 scores of 1/8, one more than there are, is the 18th; 88% of these and a score of 1 is beyond all.
        let expected = |found: f64, count: f64| (found.ln() * count / 3.0 / (count / 3.0 + PRIOR)).exp();
        let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found} is not {expected}");
        is(conformal(scores(0.125), 0.88, true), expected(1.8, 19.0));
        is(conformal(scores(0.125), 0.88, false), expected(2.0 * 1.9, 19.0 / 8.0));
        for average in [true, false] {
            is(conformal(scores(1.0), 0.88, average), expected(1.8, 19.0));
            is(conformal(scores(0.0), 0.88, average), 1.0);
        }
    }
}
