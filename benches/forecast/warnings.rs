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
/// How many evaluations in a row must say so before a warning is one: the `for` of a rule.
const FOR: usize = 2;
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

#[derive(Default)]
struct Count {
    events: f64,
    warned: f64,
    warnings: f64,
    right: f64,
}

impl Count {
    /// `events`, all moments at which it `holds` and evaluations, each of which says yes or no. An event is only what comes after half an hour
    /// without; a warning is right if what it warns of comes, also where that is soon after the last time.
    fn add(&mut self, events: &[f64], holds: &[f64], said: &[(f64, bool)], from: f64, until: f64) {
        let mut standing: Vec<(f64, f64)> = Vec::new();
        let mut row = 0;
        for (time, yes) in said {
            row = if *yes { row + 1 } else { 0 };
            if row == FOR {
                standing.push((*time, *time));
            } else if row > FOR
                && let Some(last) = standing.last_mut()
            {
                last.1 = *time;
            }
        }
        for event in events.iter().filter(|event| **event > from + FOR as f64 * EVERY + LEAD) {
            self.events += 1.0;
            let in_time = |(since, last): &&(f64, f64)| *since <= event - LEAD && *last >= event - 2.0 * LEAD;
            self.warned += f64::from(standing.iter().any(|warning| in_time(&warning)));
        }
        for (since, last) in standing.iter().filter(|(since, _)| *since + HORIZON <= until) {
            self.warnings += 1.0;
            let right = |event: &&f64| **event >= *since && **event <= last + 1.5 * HORIZON;
            self.right += f64::from(holds.iter().any(|event| right(&event)));
        }
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
        let (mut ours, mut oracle, mut linear) = (Count::default(), Count::default(), Count::default());
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
            ours.add(&events, &holds, &by_us, from, until);
            oracle.add(&events, &holds, &by_oracle, from, until);
            linear.add(&events, &holds, &by_linear, from, until);
        }
        let what = if loss { "loss" } else { "over threshold" };
        println!(
            "{family:15} {what:14} events {:>4}  ours: {}  oracle: {}  predict_linear: {}",
            ours.events,
            ours.shown(),
            oracle.shown(),
            linear.shown()
        );
        if let Some(file) = &mut out {
            let side = |count: &Count| format!("[{:.3},{:.3},{}]", count.precision(), count.recall(), count.warnings);
            writeln!(
                file,
                "{{\"family\":\"{family}\",\"what\":\"{what}\",\"events\":{},\"ours\":{},\"oracle\":{},\"linear\":{}}}",
                ours.events,
                side(&ours),
                side(&oracle),
                side(&linear)
            )
            .unwrap();
        }
    }
}
