//! The queue's recursion (Lindley): what is there and what arrives, less what can be taken, never below 0 and never above what the stream keeps.

use super::arrivals::Arrivals;
use super::capacity::Capacity;
use super::random::Random;
use super::series::StepSeries;
use super::{LagQuantiles, TimeTo};
use crate::analysis::stats::{median, quantile, sorted_quantile};

/// Steps from which the normal lag of a group that keeps up is taken, at most.
const MAX_NORMAL: usize = 500;
/// Steps that a length must have stood still to be the stream's maximum.
const STILL_STEPS: usize = 10;
/// By how much it may vary: Redis trims whole nodes of up to 100 entries.
const STILL: f64 = 0.02;
/// A third of the share of the stream that must have arrived meanwhile.
const MIN_PASSED: f64 = 0.003;
/// The share of what arrives and is not delivered that a group with a full stream loses, at least.
const LOST: f64 = 0.5;
/// The smallest share of the probability for which a time is told.
const TOLD: f64 = 0.1;

/// All that a simulation takes.
#[derive(Debug)]
pub(super) struct Simulation<'a> {
    pub(super) series: &'a StepSeries,
    pub(super) arrivals: &'a Arrivals,
    pub(super) capacity: &'a Capacity,
    pub(super) max_length: Option<f64>,
}

/// Simulated futures.
#[derive(Debug)]
pub(super) struct Paths {
    steps: usize,
    /// The lag of each path at each step, path by path.
    pub(super) lags: Vec<f64>,
    /// The step in which each path first loses entries.
    losses: Vec<Option<usize>>,
}

impl Simulation<'_> {
    /// The lag from which paths start, if `end` is the first step of the future.
    pub(super) fn start(&self, end: usize) -> f64 {
        self.series.lag_before(end)
    }

    /// The length at which the stream is trimmed; infinite where that is unknown.
    pub(super) fn limit(&self, end: usize) -> f64 {
        if let Some(length) = self.max_length {
            return length;
        }
        let from = end.saturating_sub(STILL_STEPS);
        let arrived: f64 = self.series.arrivals[from..end].iter().filter(|value| !value.is_nan()).sum();
        let lengths = self.series.length[from..end].iter().copied();
        let (low, high) =
            lengths.fold((f64::INFINITY, 0.0_f64), |(low, high), length| (low.min(length), high.max(length)));
        let still = high - low <= varies(high);
        let passed = arrived > 3.0 * (high - low).max(MIN_PASSED * high);
        if end >= STILL_STEPS && still && passed && high > 0.0 { high } else { f64::INFINITY }
    }

    /// Lags of a group that loses entries because the stream is trimmed at `limit`. Redis trims whole nodes, so these vary, and are below the length: those
    /// of steps before `end` in which that was so, or else what follows from the lengths of the newest steps.
    fn full_lags(&self, end: usize, limit: f64) -> Vec<f64> {
        if limit.is_infinite() || end < STILL_STEPS {
            return Vec::new();
        }
        let series = self.series;
        let near = limit - varies(limit)..=limit + varies(limit);
        let rates = |at: usize| {
            let sum = |values: &[f64]| values[at + 1 - STILL_STEPS..=at].iter().sum::<f64>();
            (sum(&series.arrivals), sum(&series.delivered))
        };
        let loses = |at: usize| {
            let (arrived, delivered) = rates(at);
            let kept = series.lag[at] - series.lag[at - STILL_STEPS];
            arrived > delivered && kept <= (1.0 - LOST) * (arrived - delivered)
        };
        let full = (STILL_STEPS..end).rev().filter(|&at| near.contains(&series.lag[at]) && loses(at));
        let lags: Vec<f64> = full.take(MAX_NORMAL).map(|at| series.lag[at]).collect();
        if !lags.is_empty() {
            return lags;
        }
        // Until the next node is trimmed, the lag grows by what arrives and is not delivered.
        let (arrived, delivered) = rates(end - 1);
        let share = ((arrived - delivered) / arrived).clamp(0.0, 1.0);
        let lengths = series.length[end - STILL_STEPS..end].iter().copied().filter(|length| near.contains(length));
        let lowest = lengths.clone().fold(limit, f64::min);
        if share.is_nan() { Vec::new() } else { lengths.map(|length| lowest + share * (length - lowest)).collect() }
    }

    /// The highest lag that the group can have; infinite where that is unknown.
    pub(super) fn highest_lag(&self, end: usize) -> f64 {
        let limit = self.limit(end);
        self.full_lags(end, limit).into_iter().fold(limit, f64::max)
    }

    /// Lags of steps before `end` in which the group kept up, in order of time.
    fn normal_lags(&self, end: usize) -> Vec<f64> {
        let known = (1..end).rev().filter(|&at| !self.capacity.is_busy(at) && !self.series.lag[at].is_nan());
        let mut lags: Vec<f64> = known.take(MAX_NORMAL).map(|at| self.series.lag[at]).collect();
        lags.reverse();
        lags
    }

    /// The lag up to which the group counts as drained.
    pub(super) fn normal_lag(&self, end: usize) -> f64 {
        let highest = quantile(&mut self.normal_lags(end), 0.9);
        if highest.is_nan() { 0.0 } else { highest }
    }

    /// Simulates `count` futures after step `end`.
    pub(super) fn run(&self, end: usize, steps: usize, count: usize, random: &mut Random) -> Paths {
        let outlook = self.capacity.outlook(end);
        let baseline = self.arrivals.baseline(end, steps);
        let normal = self.normal_lags(end);
        let limit = self.limit(end);
        let full = self.full_lags(end, limit);
        let limit = if full.is_empty() { limit } else { median(&mut full.clone()) };
        let start = self.start(end);
        let doubt = self.series.last_known(&self.series.doubt, end, 6);
        let keeps_up = !self.capacity.is_busy(end - 1);
        let (mut arrivals, mut capacity) = (vec![0.0; steps], vec![0.0; steps]);
        let mut lags = Vec::with_capacity(count * steps);
        let mut losses = Vec::with_capacity(count);
        for _ in 0..count {
            self.arrivals.draw(end, &baseline, &mut arrivals, random);
            outlook.draw(&mut capacity, random);
            // The lag of a group that keeps up is what is on its way, and no backlog.
            let mut lag = if keeps_up && start <= 2.0 * baseline[0] {
                0.0
            } else {
                start + (2.0 * random.uniform() - 1.0) * doubt
            };
            let mut noise = random.below(normal.len());
            let mut loss = None;
            for ahead in 0..steps {
                let waiting = lag + arrivals[ahead];
                lag = (waiting - capacity[ahead]).max(0.0);
                let mut when_full = None;
                if lag > limit {
                    loss = loss.or(Some(ahead));
                    lag = limit;
                    when_full = (!full.is_empty()).then(|| full[random.below(full.len())]);
                }
                let on_the_way = normal.get(noise).copied().unwrap_or(0.0).min(limit);
                noise = (noise + 1) % normal.len().max(1);
                lags.push(when_full.unwrap_or(lag.max(on_the_way)));
            }
            losses.push(loss);
        }
        Paths { steps, lags, losses }
    }
}

impl Paths {
    /// The lags of all paths at a step, sorted.
    pub(super) fn sorted_at(&self, at: usize) -> Vec<f64> {
        let mut lags: Vec<f64> = self.lags.iter().skip(at).step_by(self.steps).copied().collect();
        lags.sort_unstable_by(f64::total_cmp);
        lags
    }

    /// Replaces the lag of each path at a step. `map` takes the lag and its rank among the paths, from 0 to 1.
    pub(super) fn map_at(&mut self, at: usize, map: impl Fn(f64, f64) -> f64) {
        let mut order: Vec<(f64, usize)> =
            (at..self.lags.len()).step_by(self.steps).map(|place| (self.lags[place], place)).collect();
        order.sort_unstable_by(|one, two| one.0.total_cmp(&two.0).then(one.1.cmp(&two.1)));
        let count = order.len() as f64;
        for (rank, (lag, place)) in order.into_iter().enumerate() {
            self.lags[place] = map(lag, (rank as f64 + 0.5) / count);
        }
    }

    pub(super) fn quantiles_at(&self, at: usize, time: f64) -> LagQuantiles {
        let sorted = self.sorted_at(at);
        let of = |share| sorted_quantile(&sorted, share).round();
        LagQuantiles {
            time,
            q025: of(0.025),
            q05: of(0.05),
            q10: of(0.1),
            q50: of(0.5),
            q90: of(0.9),
            q95: of(0.95),
            q975: of(0.975),
        }
    }

    /// When the lag first is as asked.
    pub(super) fn time_to(&self, step: f64, reached: impl Fn(f64) -> bool) -> Option<TimeTo> {
        let first = self.lags.chunks(self.steps).map(|path| path.iter().position(|lag| reached(*lag)));
        times(first.collect(), step)
    }

    /// When entries are first lost.
    pub(super) fn time_to_loss(&self, step: f64) -> Option<TimeTo> {
        times(self.losses.clone(), step)
    }
}

/// By how much the length of a trimmed stream varies, at most.
fn varies(length: f64) -> f64 {
    (STILL * length).max(100.0).min(0.2 * length)
}

fn times(first: Vec<Option<usize>>, step: f64) -> Option<TimeTo> {
    let count = first.len();
    let mut reached: Vec<usize> = first.into_iter().flatten().collect();
    reached.sort_unstable();
    // The first of the sorted times before which that share of the paths got there.
    let of = |share: f64| {
        let place = ((share * count as f64).ceil() as usize).max(1) - 1;
        reached.get(place).map(|at| (at + 1) as f64 * step)
    };
    Some(TimeTo { q10: of(TOLD)?, q50: of(0.5), q90: of(0.9) })
}
