//! What the consumers can do: what was delivered while there was lag. A capacity that changed in a step counts from the step on;
//! one that falls slowly goes on falling.

use super::breakdowns::{Breakdowns, Hazard};
use super::random::Random;
use super::series::StepSeries;
use crate::analysis::stats::{self, median, quantile};

/// Busy steps per chunk: chunks are compared to find where the capacity changed.
const CHUNK: usize = 4;
/// The most busy steps from which the capacity of now is taken.
const MAX_BUSY: usize = 96;
/// The quantile of the capacities that counts as the usual one: the consumers can do it, or could.
const USUAL: f64 = 0.9;
/// Below this share of the usual capacity the consumers count as broken down.
const DOWN: f64 = 0.75;
/// From this share on they count as recovered: the distance keeps noise from looking like recoveries.
const RECOVERED: f64 = 0.88;
/// The most steps without a backlog within one that lasts: a single sample is noise.
const MAX_PAUSE: usize = 2;
/// The significance of a drift, in standard deviations.
const SIGNIFICANT: f64 = 3.0;
/// Points without which there is no drift.
const MIN_POINTS: usize = 8;
/// The doubt of a drift as a share of it: one standard deviation.
const DRIFT_DOUBT: f64 = 0.4;
/// What share of the drift is left after one horizon.
const DRIFT_LEFT: f64 = 0.8;

/// Whether the consumers do what they usually do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Up,
    Down,
    Unknown,
}

/// What history tells of capacity.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Delivered per step while there was lag; NaN elsewhere.
    busy: Vec<f64>,
    condition: Vec<Condition>,
    delivered: Vec<f64>,
}

/// The capacity at one moment, and what may become of it.
#[derive(Debug)]
pub(super) struct Outlook {
    /// Entries per step; infinite where there never was lag.
    level: f64,
    /// Entries per step and step.
    drift: f64,
    /// The doubt of the level: one standard deviation.
    level_doubt: f64,
    /// Deviations of busy steps from the level.
    errors: Vec<f64>,
    down_now: bool,
    /// The level when up, and what levels it had when down.
    up_level: f64,
    down_levels: Vec<f64>,
    /// How often the consumers broke down, and for how long.
    fails: Hazard,
    breakdowns: Breakdowns,
}

impl Capacity {
    pub(super) fn observe(series: &StepSeries) -> Self {
        let len = series.len();
        let busy_at = |at: usize| {
            let (arrived, delivered) = (series.arrivals[at], series.delivered[at]);
            let flow = arrived.max(delivered);
            let lowest = series.lowest[at].min(series.lag[at - 1]);
            // With some lag all through the step the consumers took what they could.
            if lowest >= (0.05 * flow).max(1.0) && series.lag[at] >= 0.1 * flow { delivered } else { f64::NAN }
        };
        let busy: Vec<f64> = (0..len).map(|at| if at == 0 { f64::NAN } else { busy_at(at) }).collect();
        let mut known: Vec<f64> = busy.iter().copied().filter(|value| !value.is_nan()).collect();
        let usual = quantile(&mut known, USUAL);
        let mut condition = vec![Condition::Unknown; len];
        for at in 0..len {
            let was_down = at > 0 && condition[at - 1] == Condition::Down;
            let least = if was_down { RECOVERED } else { DOWN };
            condition[at] = if busy[at] < least * usual {
                Condition::Down
            } else if !busy[at].is_nan() || series.arrivals[at] > 0.0 {
                Condition::Up
            } else {
                Condition::Unknown
            };
        }
        // A single step between two others is noise.
        for at in 1..len.saturating_sub(1) {
            if condition[at - 1] == condition[at + 1] {
                condition[at] = condition[at - 1];
            }
        }
        Self { busy, condition, delivered: series.delivered.clone() }
    }

    /// Whether the consumers had lag all through the newest steps.
    pub(super) fn is_busy(&self, at: usize) -> bool {
        !self.busy[at].is_nan()
    }

    /// For how many steps before `end` there has been a backlog; a gap of a step or two does not end one.
    pub(super) fn busy_steps(&self, end: usize) -> usize {
        let busy = (0..end).rev().filter(|&at| self.is_busy(at));
        let mut first = end;
        for at in busy {
            if first - at > MAX_PAUSE + 1 {
                break;
            }
            first = at;
        }
        end - first
    }

    /// What is known before step `end`.
    pub(super) fn outlook(&self, end: usize) -> Outlook {
        let down_now = self.condition[end - 1] == Condition::Down;
        let segment = self.segment(end);
        let (times, values): (Vec<f64>, Vec<f64>) =
            segment.iter().map(|&at| (at as f64 + 1.0 - end as f64, self.busy[at])).unzip();
        let drift = slope(&times, &values);
        let mut levels: Vec<f64> = times.iter().zip(&values).map(|(time, value)| value - drift * time).collect();
        let errors = levels.clone();
        let mut level = median(&mut levels);
        let errors: Vec<f64> = errors.iter().map(|value| value - level).collect();
        let spread = if errors.is_empty() {
            0.0
        } else {
            (errors.iter().map(|error| error * error).sum::<f64>() / errors.len() as f64).sqrt()
        };
        let mut level_doubt = 1.25 * spread / (errors.len().max(1) as f64).sqrt();
        let not_busy = !self.is_busy(end - 1);
        if level.is_nan() {
            level = f64::INFINITY;
            level_doubt = 0.0;
        } else if not_busy && !down_now {
            // They kept up with more than they were known to be able to.
            let since = segment.last().map_or(0, |at| at + 1);
            let kept_up =
                self.delivered[since.max(end.saturating_sub(60))..end].iter().copied().filter(|value| !value.is_nan());
            level = level.max(kept_up.fold(0.0, f64::max));
        }
        let (fails, breakdowns) = self.breakdowns(end);
        let window = &self.condition[..end];
        let of = |wanted: Condition| -> Vec<f64> {
            let found =
                window.iter().enumerate().rev().filter(|&(at, condition)| *condition == wanted && self.is_busy(at));
            found.take(MAX_BUSY).map(|(at, _)| self.busy[at]).collect()
        };
        let down_levels = of(Condition::Down);
        let up_level = if down_now { median(&mut of(Condition::Up)) } else { level };
        let up_level = if up_level.is_nan() { f64::INFINITY } else { up_level };
        Outlook { level, drift, level_doubt, errors, down_now, up_level, down_levels, fails, breakdowns }
    }

    /// The busy steps before `end` that have the capacity of now, in order of time.
    fn segment(&self, end: usize) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::with_capacity(MAX_BUSY);
        let mut newer: Option<(f64, f64)> = None;
        let mut chunk: Vec<usize> = Vec::with_capacity(CHUNK);
        for at in (0..end).rev().filter(|&at| self.is_busy(at)) {
            chunk.push(at);
            if chunk.len() < CHUNK {
                continue;
            }
            let mut values: Vec<f64> = chunk.iter().map(|&at| self.busy[at]).collect();
            let middle = median(&mut values);
            let spread = (values[CHUNK - 1] - values[0]) / 2.0;
            if let Some((last, last_spread)) = newer {
                let noise = (spread + last_spread).max(0.12 * last.max(middle)).max(1.0);
                if (middle - last).abs() > 1.3 * noise {
                    // The chunk may be half of the one and half of the other: its newest steps that fit the newer level belong to it.
                    found.extend(chunk.iter().take_while(|&&at| (self.busy[at] - last).abs() <= noise));
                    chunk.clear();
                    break;
                }
            }
            newer = Some((middle, spread));
            found.append(&mut chunk);
            if found.len() >= MAX_BUSY {
                break;
            }
        }
        if newer.is_none() {
            found.append(&mut chunk);
        }
        // A break in the newest steps: fewer than a chunk are all there is of the new capacity.
        if let Some((last, spread)) = newer {
            let newest: Vec<usize> = found.iter().copied().take(2).collect();
            let mut values: Vec<f64> = newest.iter().map(|&at| self.busy[at]).collect();
            let fresh = median(&mut values);
            let rest: Vec<usize> = found.iter().copied().skip(2).collect();
            let mut others: Vec<f64> = rest.iter().map(|&at| self.busy[at]).collect();
            let middle = median(&mut others);
            let both = values.iter().all(|value| (value - middle).abs() > (0.3 * middle).max(2.0));
            if !rest.is_empty() && both && (fresh - middle).abs() > (spread.min(0.3 * last)).max(0.3 * middle) {
                found = newest;
            }
        }
        found.reverse();
        found
    }

    /// How often the consumers broke down before `end`, and for how long.
    fn breakdowns(&self, end: usize) -> (Hazard, Breakdowns) {
        let (mut fails, mut lasted, mut elapsed) = (Hazard::default(), Vec::new(), 0.0);
        let mut before = Condition::Unknown;
        for condition in &self.condition[..end] {
            match condition {
                Condition::Up => {
                    fails.steps += 1.0;
                    if before == Condition::Down {
                        lasted.push(std::mem::take(&mut elapsed));
                    }
                }
                Condition::Down => {
                    elapsed += 1.0;
                    fails.times += f64::from(before == Condition::Up);
                }
                Condition::Unknown => continue,
            }
            before = *condition;
        }
        (fails, Breakdowns::new(&lasted, elapsed))
    }
}

impl Outlook {
    /// Writes one future of the capacity into `path`.
    pub(super) fn draw(&self, path: &mut [f64], random: &mut Random) {
        let steps = path.len();
        let damping = DRIFT_LEFT.powf(1.0 / steps as f64);
        let doubt = random.normal() * self.level_doubt;
        // Where they never broke down nothing tells how far down it would be.
        let fails = if self.fails.times > 0.0 { self.fails.draw(random) } else { 0.0 };
        let (mut left, durations) = self.breakdowns.draw(random);
        let mut down = self.down_now;
        let mut other = None;
        let (mut drift, mut drifted) = (self.drift * (1.0 + DRIFT_DOUBT * random.normal()), 0.0);
        let mut error_at = random.below(self.errors.len());
        for (ahead, capacity) in path.iter_mut().enumerate() {
            if ahead % 10 == 0 {
                error_at = random.below(self.errors.len());
            }
            left -= 1.0;
            let turns = if down { left < 0.5 } else { fails > 0.0 && random.uniform() < fails };
            if turns {
                down = !down;
                if down {
                    left = durations.draw(random);
                }
                other = if down == self.down_now {
                    None
                } else if down {
                    Some(self.down_levels.get(random.below(self.down_levels.len())).copied().unwrap_or(0.0))
                } else {
                    Some(self.up_level)
                };
            }
            drifted += drift;
            drift *= damping;
            let error = self.errors.get(error_at).copied().unwrap_or(0.0);
            error_at = (error_at + 1) % self.errors.len().max(1);
            let level = match other {
                Some(level) if down => level,
                Some(level) => level + error,
                None => self.level + drifted + doubt + error,
            };
            *capacity = level.max(0.0);
        }
    }
}

/// The slope where it is significant, else 0.
fn slope(times: &[f64], values: &[f64]) -> f64 {
    // Means of at most 32 groups, so that the pairs are few.
    let size = times.len().div_ceil(32).max(1);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let means = times.chunks(size).map(mean).zip(values.chunks(size).map(mean));
    let points: Vec<(f64, f64)> = means.collect();
    if points.len() < MIN_POINTS {
        return 0.0;
    }
    let found = stats::slope(&points);
    if found.significance.abs() < SIGNIFICANT { 0.0 } else { found.median }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conditions of steps with a backlog in which so much was delivered.
    fn conditions(delivered: &[f64]) -> Vec<Condition> {
        let all = |value: f64| vec![value; delivered.len()];
        let series = StepSeries {
            step: 60.0,
            arrivals: all(100.0),
            delivered: delivered.to_vec(),
            lag: all(1000.0),
            lowest: all(1000.0),
            doubt: all(0.0),
            length: all(5000.0),
        };
        Capacity::observe(&series).condition
    }

    #[test]
    fn consumers_that_are_down_have_recovered_at_a_higher_level_than_that_at_which_they_go_down() {
        let between = 100.0 * (DOWN + RECOVERED) / 2.0;
        let (usual, low) = ([100.0; 30], [50.0; 4]);
        let story = [&usual[..], &[between; 4], &usual, &low, &[between; 4], &usual].concat();
        let found = conditions(&story);
        let is_down = |at: usize| found[at] == Condition::Down;
        let down: Vec<usize> = (1..story.len()).filter(|at| is_down(*at)).collect();
        assert_eq!(down, (64..72).collect::<Vec<_>>(), "the four low ones, and the four after them");
    }
}
