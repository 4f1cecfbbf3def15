//! "Over the threshold" and "entries will be lost": were they warned of in time, and were warnings right?

use std::io::Write;

use super::families::{Half, Seen, Workload, simulate};
use super::{known, lag_at, predict_linear, request};
use streamlag::analysis::forecast::{LagPoint, forecast};

/// How far warnings look ahead, in seconds.
const HORIZON: f64 = 3_600.0;
/// How often they are evaluated, in seconds.
const EVERY: f64 = 300.0;
/// How long before an event a warning must stand, in seconds.
const LEAD: f64 = 300.0;
/// For how many seconds the condition must have held before a warning fires: the `for` of the forecast alerts.
const FOR: f64 = 300.0;
/// For how many seconds a warning fires on once the condition holds no more: their `keep_firing_for`.
const KEEP_FIRING_FOR: f64 = 600.0;
/// Of how many other futures the oracle's warnings are. It warns where half of them reach the threshold.
const FUTURES: u64 = 40;
const CASES: [(&str, bool); 7] = [
    ("ramp", false),
    ("daily", false),
    ("leak", false),
    ("capacity_step", false),
    ("consumer_crash", false),
    ("trim", false),
    ("trim", true),
];

/// A warning: when it began to fire, when the condition held last, and when it fired last.
struct Warning {
    since: f64,
    held: f64,
    fired: f64,
}

/// The warnings of evaluations, each of which says whether the condition holds, as Prometheus would fire them.
fn warnings(said: &[(f64, bool)]) -> Vec<Warning> {
    let mut found: Vec<Warning> = Vec::new();
    let (mut active, mut is_firing) = (None, false);
    for (time, holds) in said {
        if *holds {
            let active = *active.get_or_insert(*time);
            if is_firing && let Some(warning) = found.last_mut() {
                (warning.held, warning.fired) = (*time, *time);
            } else if time - active >= FOR {
                found.push(Warning { since: *time, held: *time, fired: *time });
                is_firing = true;
            }
        } else {
            let kept = found.last_mut().filter(|warning| is_firing && time - warning.held <= KEEP_FIRING_FOR);
            if let Some(warning) = kept {
                warning.fired = *time;
            } else {
                (active, is_firing) = (None, false);
            }
        }
    }
    found
}

/// How many events there were, how many of them were warned of, how many warnings there were, and how many of them were right.
#[derive(Clone, Copy, Default)]
struct Count {
    events: f64,
    warned: f64,
    warnings: f64,
    right: f64,
}

impl Count {
    /// Of `events`, all moments at which it `holds`, and evaluations. An event is only what comes after half an hour without; a warning is
    /// right if what it warns of comes, also where that is soon after the last time.
    fn of(events: &[f64], holds: &[f64], said: &[(f64, bool)], from: f64, until: f64) -> Self {
        let mut count = Self::default();
        let warnings = warnings(said);
        for event in events.iter().filter(|event| **event > from + FOR + EVERY + LEAD) {
            count.events += 1.0;
            let in_time = |warning: &Warning| warning.since <= event - LEAD && warning.fired >= event - LEAD - EVERY;
            count.warned += f64::from(warnings.iter().any(in_time));
        }
        for warning in warnings.iter().filter(|warning| warning.since + HORIZON <= until) {
            count.warnings += 1.0;
            let right = |event: &f64| *event >= warning.since && *event <= warning.held + 1.5 * HORIZON;
            count.right += f64::from(holds.iter().any(right));
        }
        count
    }

    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.warned += other.warned;
        self.warnings += other.warnings;
        self.right += other.right;
    }

    fn precision(&self) -> f64 {
        self.right / self.warnings
    }

    fn recall(&self) -> f64 {
        self.warned / self.events
    }

    fn shown(&self) -> String {
        format!("precision {:.2} recall {:.2} ({} warnings)", self.precision(), self.recall(), self.warnings)
    }
}

/// When the lag rises over the threshold after half an hour below it.
fn crossings(workload: &Workload) -> Vec<f64> {
    let mut found = Vec::new();
    let mut below_since = None;
    for point in &workload.points {
        let Some(lag) = point.lag_max else { continue };
        if lag < workload.threshold {
            below_since = below_since.or(Some(point.time));
        } else if let Some(since) = below_since.take()
            && point.time - since >= 1_800.0
        {
            found.push(point.time);
        }
    }
    found
}

/// When the lag is over the threshold.
fn over(workload: &Workload) -> Vec<f64> {
    let over = |point: &&LagPoint| point.lag_max.is_some_and(|lag| lag >= workload.threshold);
    workload.points.iter().filter(over).map(|point| point.time).collect()
}

pub fn measure(half: Half, seeds: u64, only: impl Fn(&str) -> bool, mut out: Option<&mut impl Write>) {
    for (family, loss) in CASES.into_iter().filter(|(family, _)| only(family)) {
        let what = if loss { "loss" } else { "over threshold" };
        let mut totals = [Count::default(); 3];
        for seed in 0..seeds {
            let workload = simulate(family, half, seed);
            let (from, until) = (workload.first_origin, workload.points.last().unwrap().time);
            let events: Vec<f64> = if loss { workload.losses.clone() } else { crossings(&workload) };
            let events: Vec<f64> = events.into_iter().filter(|event| *event > from).collect();
            let holds: Vec<f64> = if loss { workload.losing.clone() } else { over(&workload) };
            let (mut by_us, mut by_oracle, mut by_linear) = (Vec::new(), Vec::new(), Vec::new());
            let mut now = from;
            while now < until {
                let history = known(&workload.points, now);
                let mut asked = request(&workload, now, HORIZON);
                let limit = if loss { workload.max_length.unwrap() } else { workload.threshold };
                asked.max_length = workload.max_length;
                let made = forecast(history, &asked);
                let reached = if loss { made.time_to.loss } else { made.time_to.degraded };
                let is_there = lag_at(history, now).is_some_and(|lag| lag >= if loss { limit - 1.0 } else { limit });
                by_us.push((now, !is_there && reached.is_some_and(|reached| reached.q50.is_some())));
                let comes = |seen: &Seen| if loss { seen.is_losing } else { seen.lag >= limit };
                let share =
                    if is_there { 0.0 } else { workload.state_at(now).share_of_futures(HORIZON, FUTURES, comes) };
                by_oracle.push((now, share >= 0.5));
                let line = predict_linear(history, now, HORIZON);
                by_linear.push((now, !is_there && line.is_some_and(|lag| lag >= limit)));
                now += EVERY;
            }
            let counts = [by_us, by_oracle, by_linear].map(|said| Count::of(&events, &holds, &said, from, until));
            totals.iter_mut().zip(counts).for_each(|(total, of_seed)| total.add(of_seed));
            if let Some(file) = &mut out {
                let [ours, oracle, linear] =
                    counts.map(|count| format!("[{},{},{}]", count.warned, count.warnings, count.right));
                writeln!(
                    file,
                    "{{\"family\":\"{family}\",\"what\":\"{what}\",\"seed\":{seed},\"events\":{},\"ours\":{ours},\"oracle\":{oracle},\"linear\":{linear}}}",
                    counts[0].events
                )
                .unwrap();
            }
        }
        let [ours, oracle, linear] = totals;
        println!(
            "{family:15} {what:14} events {:>4}  ours: {}  oracle: {}  predict_linear: {}",
            ours.events,
            ours.shown(),
            oracle.shown(),
            linear.shown()
        );
    }
}
