//! The backtest of the forecast: twelve families of workloads, beside naive and `predict_linear`; `report.py` adds the others and writes the table.
//!
//! `cargo bench --bench forecast -- --seeds 100 --out target/forecast`; `--tuning` draws from the half of the parameters that the model was tuned on.
//! `--first N` begins with a later seed. `--oracle FUTURES` adds what the best of all forecasts would say: of so many other futures.
//! `--replay FOLDER` forecasts what `day.py` has recorded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints"
)]
#![allow(missing_docs, unreachable_pub, reason = "a program")]

mod day;
mod families;
mod warnings;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::time::Instant;

use families::{FAMILIES, GROWTH, Half, ORIGINS, Workload, simulate};
use streamlag::analysis::forecast::{Forecast, ForecastRequest, LagPoint, forecast};
use streamlag::analysis::stats::sorted_quantile;

/// Seconds ahead.
const HORIZONS: [f64; 5] = [300.0, 900.0, 3_600.0, 10_800.0, 21_600.0];
/// Those that forecasts have.
const QUANTILES: [f64; 7] = [0.025, 0.05, 0.1, 0.5, 0.9, 0.95, 0.975];

#[derive(Default)]
struct Tally {
    asked: f64,
    answered: f64,
    ours: f64,
    naive: f64,
    linear: f64,
    covered_80: f64,
    covered_90: f64,
    above: f64,
    below: f64,
}

pub fn known(points: &[LagPoint], now: f64) -> &[LagPoint] {
    &points[..points.partition_point(|point| point.time <= now)]
}

/// What the program has of that: minutes of the last 14 days, and hours before.
fn as_kept(points: &[LagPoint], now: f64) -> Vec<LagPoint> {
    let border = ((now - 14.0 * 86_400.0) / 3_600.0).floor() * 3_600.0;
    let (old, new) = points.split_at(points.partition_point(|point| point.time <= border));
    let hour = |points: &[LagPoint]| {
        let known: Vec<LagPoint> = points.iter().filter(|point| point.lag_max.is_some()).copied().collect();
        let last = *known.last()?;
        let mean = |of: fn(&LagPoint) -> Option<f64>| {
            let rates: Vec<f64> = known.iter().filter_map(of).collect();
            (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
        };
        Some(LagPoint {
            time: (last.time / 3_600.0).ceil() * 3_600.0,
            lag_lowest: known.iter().filter_map(|point| point.lag_lowest).reduce(f64::min),
            added_per_second: mean(|point| point.added_per_second),
            delivered_per_second: mean(|point| point.delivered_per_second),
            ..last
        })
    };
    let hours = old.chunk_by(|one, other| (one.time / 3_600.0).ceil() == (other.time / 3_600.0).ceil());
    hours.filter_map(hour).chain(new.iter().copied()).collect()
}

pub fn lag_at(points: &[LagPoint], time: f64) -> Option<f64> {
    let at = points.partition_point(|point| point.time < time);
    points.get(at).filter(|point| point.time - time < 60.0).and_then(|point| point.lag_max)
}

pub fn request(workload: &Workload, now: f64, horizon: f64) -> ForecastRequest {
    ForecastRequest {
        now,
        horizon,
        max_length: None,
        degraded: Some(workload.threshold),
        unhealthy: Some(10.0 * workload.threshold),
        seed: now as u64,
    }
}

/// Prometheus's `predict_linear(lag[1h], horizon)`, not below 0.
pub fn predict_linear(points: &[LagPoint], now: f64, horizon: f64) -> Option<f64> {
    let window = points.iter().rev().take_while(|point| now - point.time <= 3_600.0);
    let pairs: Vec<(f64, f64)> = window.filter_map(|point| Some((point.time - now, point.lag_max?))).collect();
    let count = pairs.len() as f64;
    if count < 2.0 {
        return None;
    }
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
    let (time, lag) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
    let covariance = mean(&|pair| (pair.0 - time) * (pair.1 - lag));
    let variance = mean(&|pair| (pair.0 - time).powi(2));
    Some((lag + covariance / variance * (horizon - time)).max(0.0))
}

/// The mean error of the naive forecast over this horizon in the whole series; at least one entry.
fn scale(points: &[LagPoint], horizon: f64) -> f64 {
    let ahead = (horizon / 60.0) as usize;
    let pairs = points.iter().zip(points.iter().skip(ahead));
    let errors: Vec<f64> = pairs.filter_map(|(one, two)| Some((two.lag_max? - one.lag_max?).abs())).collect();
    (errors.iter().sum::<f64>() / errors.len().max(1) as f64).max(1.0)
}

fn argument(name: &str) -> Option<String> {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|argument| argument == name)?;
    Some(arguments.get(at + 1).cloned().unwrap_or_default())
}

fn main() {
    if let Some(folder) = argument("--replay") {
        return day::replay(&folder);
    }
    let seeds: u64 = argument("--seeds").map_or(10, |seeds| seeds.parse().expect("--seeds: expected a number"));
    let first: u64 = argument("--first").map_or(0, |seed| seed.parse().expect("--first: expected a number"));
    let half = if std::env::args().any(|argument| argument == "--tuning") { Half::Tuning } else { Half::HeldOut };
    let only = argument("--family");
    let futures: u64 =
        argument("--oracle").map_or(0, |futures| futures.parse().expect("--oracle: expected a number of futures"));
    let mut out = argument("--out").map(|folder| {
        std::fs::create_dir_all(&folder).expect("--out: expected a folder that can be made");
        let file = |name: &str| {
            BufWriter::new(std::fs::File::create(format!("{folder}/{name}")).expect("a file that can be written"))
        };
        (file("forecasts.jsonl"), file("series.jsonl"), file("warnings.jsonl"))
    });
    let mut slowest: f64 = 0.0;
    let mut spent = (0.0, 0.0);
    let is_asked = |family: &str| only.as_ref().is_none_or(|only| only.split(',').any(|name| name == family));
    for family in FAMILIES.iter().filter(|family| is_asked(family)) {
        let mut tallies: BTreeMap<u64, Tally> = BTreeMap::new();
        for seed in first..seeds {
            let workload = simulate(family, half, seed);
            let scales: BTreeMap<u64, f64> =
                HORIZONS.iter().map(|horizon| (*horizon as u64, scale(&workload.points, *horizon))).collect();
            for hours in ORIGINS {
                let now = workload.first_origin + hours * 3_600.0;
                let history = &as_kept(known(&workload.points, now), now)[..];
                let outcomes = workload.state_at(now).outcomes(&HORIZONS, futures);
                for (horizon, outcomes) in HORIZONS.into_iter().zip(&outcomes) {
                    let started = Instant::now();
                    let made: Forecast = forecast(history, &request(&workload, now, horizon));
                    let took = started.elapsed().as_secs_f64();
                    slowest = slowest.max(took);
                    spent = (spent.0 + took, spent.1 + 1.0);
                    let Some(naive) = lag_at(history, now) else { continue };
                    let Some(actual) = lag_at(&workload.points, now + horizon) else { continue };
                    let linear = predict_linear(history, now, horizon).unwrap_or(naive);
                    let scale = scales[&(horizon as u64)];
                    let tally = tallies.entry(horizon as u64).or_default();
                    tally.asked += 1.0;
                    let end = made.points.as_ref().ok().and_then(|points| points.last()).copied();
                    if let Some((file, ..)) = &mut out {
                        let quantiles = end.map_or("null".to_owned(), |end| {
                            format!(
                                "[{},{},{},{},{},{},{}]",
                                end.q025, end.q05, end.q10, end.q50, end.q90, end.q95, end.q975
                            )
                        });
                        let replay = made.replay.map_or("null".to_owned(), |skill| {
                            format!(
                                "[{},{},{}]",
                                skill.mase.map_or("null".to_owned(), |mase| format!("{mase:.3}")),
                                skill.coverage_80.map_or("null".to_owned(), |share| format!("{share:.3}")),
                                skill.forecasts
                            )
                        });
                        let oracle = match &outcomes[..] {
                            [] => "null".to_owned(),
                            lags => format!("{:?}", QUANTILES.map(|share| sorted_quantile(lags, share).round())),
                        };
                        writeln!(file, "{{\"family\":\"{family}\",\"seed\":{seed},\"origin\":{hours},\"horizon\":{horizon},\"actual\":{actual},\"naive\":{naive},\"linear\":{linear:.1},\"scale\":{scale:.3},\"ours\":{quantiles},\"replay\":{replay},\"oracle\":{oracle}}}").unwrap();
                    }
                    let Some(end) = end else {
                        if std::env::var("WHY").is_ok() {
                            println!("{family} {seed} {hours} {horizon}: {}", made.points.unwrap_err());
                        }
                        continue;
                    };
                    tally.answered += 1.0;
                    tally.ours += (end.q50 - actual).abs() / scale;
                    tally.naive += (naive - actual).abs() / scale;
                    tally.linear += (linear - actual).abs() / scale;
                    tally.covered_80 += f64::from(end.q10 <= actual && actual <= end.q90);
                    tally.covered_90 += f64::from(end.q05 <= actual && actual <= end.q95);
                    tally.above += f64::from(actual > end.q90);
                    tally.below += f64::from(actual < end.q10);
                }
            }
            if let Some((_, file, _)) = &mut out {
                dump(file, family, seed, &workload);
            }
        }
        for (horizon, tally) in &tallies {
            let n = tally.answered.max(1.0);
            println!(
                "{family:15} {:>4} min  answered {:>4.0}%  MASE ours {:>7.3} naive {:>7.3} linear {:>7.3}  in 80%: {:>5.1}% (below {:.1} above {:.1})  in 90%: {:>5.1}%",
                horizon / 60,
                100.0 * tally.answered / tally.asked.max(1.0),
                tally.ours / n,
                tally.naive / n,
                tally.linear / n,
                100.0 * tally.covered_80 / n,
                100.0 * tally.below / n,
                100.0 * tally.above / n,
                100.0 * tally.covered_90 / n,
            );
        }
    }
    println!("{:.1} ms a forecast, {:.1} ms the slowest", 1e3 * spent.0 / spent.1, 1e3 * slowest);
    if argument("--warnings").is_some() {
        warnings::measure(
            half,
            argument("--warnings").and_then(|seeds| seeds.parse().ok()).unwrap_or(10),
            is_asked,
            out.as_mut().map(|out| &mut out.2),
        );
    }
    assert!(GROWTH.iter().all(|family| FAMILIES.contains(family)));
}

/// The lag every five minutes, for the others to forecast.
fn dump(file: &mut impl Write, family: &str, seed: u64, workload: &Workload) {
    let lags: Vec<String> = workload
        .points
        .iter()
        .skip(4)
        .step_by(5)
        .map(|point| point.lag_max.map_or("null".to_owned(), |lag| lag.to_string()))
        .collect();
    writeln!(
        file,
        "{{\"family\":\"{family}\",\"seed\":{seed},\"first_origin\":{},\"lags\":[{}]}}",
        workload.first_origin,
        lags.join(",")
    )
    .unwrap();
}
