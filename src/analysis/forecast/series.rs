//! History as a regular series of steps.

use super::LagPoint;
use crate::analysis::stats::median;

/// The longest time in seconds over which a rate is spread: a point per hour is the coarsest that history keeps.
const MAX_SPREAD: f64 = 3_700.0;

/// Steps of equal length, the last of which ends now. What is not known is NaN, and stays a gap.
#[derive(Debug)]
pub(super) struct StepSeries {
    /// Seconds of a step.
    pub(super) step: f64,
    /// Entries that arrived in the step.
    pub(super) arrivals: Vec<f64>,
    /// Entries that were delivered in the step.
    pub(super) delivered: Vec<f64>,
    /// The lag at the end of the step: the middle of its bounds.
    pub(super) lag: Vec<f64>,
    /// The lowest lag in the step.
    pub(super) lowest: Vec<f64>,
    /// Half the distance of the bounds of the lag.
    pub(super) doubt: Vec<f64>,
    /// Entries in the stream at the end of the step.
    pub(super) length: Vec<f64>,
}

/// The median distance of two points in seconds.
pub(super) fn spacing(points: &[LagPoint]) -> f64 {
    let tail = &points[points.len().saturating_sub(100)..];
    let mut gaps: Vec<f64> = tail.windows(2).map(|pair| pair[1].time - pair[0].time).collect();
    median(&mut gaps)
}

/// Unlike `f64::max`, what is not known stays so.
fn not_below_0(value: f64) -> f64 {
    if value < 0.0 { 0.0 } else { value }
}

impl StepSeries {
    /// Steps of `step` seconds back from `now`.
    pub(super) fn new(points: &[LagPoint], now: f64, step: f64) -> Self {
        let start = points.first().map_or(now, |point| point.time);
        let len = ((now - start) / step).floor().max(0.0) as usize;
        let origin = now - len as f64 * step;
        let mut arrivals = Spread::new(len);
        let mut delivered = Spread::new(len);
        let unknown = || vec![f64::NAN; len];
        let (mut lag, mut lowest, mut doubt) = (unknown(), unknown(), unknown());
        let mut length = unknown();
        let mut before: Option<f64> = None;
        for point in points.iter().filter(|point| point.time <= now) {
            if let Some(before) = before.filter(|before| point.time - before <= MAX_SPREAD) {
                let (from, to) = ((before - origin) / step, (point.time - origin) / step);
                arrivals.add(from, to, point.added_per_second.map(|rate| rate * step));
                delivered.add(from, to, point.delivered_per_second.map(|rate| rate * step));
            }
            before = Some(point.time);
            // The step that the moment is the end of, or is within.
            let place = ((point.time - origin) / step).ceil() - 1.0;
            if place < 0.0 || place as usize >= len {
                continue;
            }
            let at = place as usize;
            if let (Some(low), Some(high)) = (point.lag_min, point.lag_max) {
                lag[at] = f64::midpoint(low, high);
                doubt[at] = (high - low) / 2.0;
                lowest[at] = lowest[at].min(point.lag_lowest.unwrap_or(low).min(high));
            }
            if let Some(count) = point.length {
                length[at] = count;
            }
        }
        let (mut arrivals, mut delivered) = (arrivals.finish(), delivered.finish());
        // Of arrivals, deliveries and the change of the lag, two tell the third.
        for at in 1..len {
            let change = lag[at] - lag[at - 1];
            if arrivals[at].is_nan() {
                arrivals[at] = not_below_0(delivered[at] + change);
            } else if delivered[at].is_nan() {
                delivered[at] = not_below_0(arrivals[at] - change);
            }
        }
        Self { step, arrivals, delivered, lag, lowest, doubt, length }
    }

    pub(super) fn len(&self) -> usize {
        self.lag.len()
    }

    /// In how many steps arrivals, deliveries and lag are known.
    pub(super) fn known_rates(&self) -> usize {
        (0..self.len()).filter(|&at| !(self.arrivals[at] + self.delivered[at] + self.lag[at]).is_nan()).count()
    }

    /// The lag at the end of the step before `end`, or of one a little earlier.
    pub(super) fn lag_before(&self, end: usize) -> f64 {
        self.last_known(&self.lag, end, 6)
    }

    /// The newest known value before `end`, at most `back` steps earlier.
    pub(super) fn last_known(&self, values: &[f64], end: usize, back: usize) -> f64 {
        values[end.saturating_sub(back)..end].iter().rev().copied().find(|value| !value.is_nan()).unwrap_or(f64::NAN)
    }
}

/// Amounts spread over steps, with how much of each step is known.
struct Spread {
    amount: Vec<f64>,
    known: Vec<f64>,
}

impl Spread {
    fn new(len: usize) -> Self {
        Self { amount: vec![0.0; len], known: vec![0.0; len] }
    }

    /// From one place to another, in steps.
    fn add(&mut self, from: f64, to: f64, per_step: Option<f64>) {
        let Some(per_step) = per_step.filter(|amount| amount.is_finite() && *amount >= 0.0) else { return };
        let (from, to) = (from.max(0.0), to.min(self.amount.len() as f64));
        let mut at = from as usize;
        while (at as f64) < to {
            let share = to.min((at + 1) as f64) - from.max(at as f64);
            self.amount[at] += per_step * share;
            self.known[at] += share;
            at += 1;
        }
    }

    /// A step of which less than half is known is a gap.
    fn finish(self) -> Vec<f64> {
        let scale = |(amount, known): (f64, f64)| if known < 0.5 { f64::NAN } else { amount / known };
        self.amount.into_iter().zip(self.known).map(scale).collect()
    }
}
