//! A day in fast motion: the forecasts of a recorded load, for `day.py` to draw. Each second of the record is a minute here.

use std::io::Write;
use std::path::Path;

use streamlag::analysis::forecast::{ForecastRequest, LagPoint, forecast};

/// What is recorded, by name of the file.
const STREAMS: [&str; 3] = ["chat", "ticket", "remote"];
/// How far each forecast looks ahead, and when the next one is made, in seconds.
const HORIZON: f64 = 10_800.0;
/// When the first one is made, in seconds after the begin of the record.
const FIRST: f64 = 21_600.0;

/// The points of a record: minute, bounds of the lag, length, and what was added and delivered in the minute.
fn points(file: &Path) -> Vec<LagPoint> {
    let text = std::fs::read_to_string(file).expect("--replay: expected a folder that `day.py record` has written");
    let point = |line: &str| {
        let mut values = line.split(',').map(|value| value.parse::<f64>().ok());
        let mut next = || values.next().flatten();
        LagPoint {
            time: 60.0 * next().expect("a line begins with its minute"),
            lag_min: next(),
            lag_max: next(),
            lag_lowest: None,
            length: next(),
            added_per_second: next().map(|count| count / 60.0),
            delivered_per_second: next().map(|count| count / 60.0),
        }
    };
    text.lines().skip(1).map(point).collect()
}

pub fn replay(folder: &str) {
    let mut out = std::fs::File::create(format!("{folder}/forecasts.jsonl")).expect("a file that can be written");
    for name in STREAMS {
        let points = points(&Path::new(folder).join(format!("{name}.csv")));
        let end = points.last().expect("a record has points").time;
        let mut now = FIRST;
        while now + HORIZON <= end {
            let history = super::known(&points, now);
            let request = ForecastRequest {
                now,
                horizon: HORIZON,
                max_length: None,
                degraded: None,
                unhealthy: None,
                seed: now as u64,
            };
            let made = forecast(history, &request);
            let (quantiles, reason) = match &made.points {
                Ok(points) => {
                    let row = |at: &streamlag::analysis::forecast::LagQuantiles| {
                        format!("[{},{},{},{},{},{}]", at.time, at.q025, at.q10, at.q50, at.q90, at.q975)
                    };
                    (format!("[{}]", points.iter().map(row).collect::<Vec<_>>().join(",")), String::new())
                }
                Err(reason) => ("null".to_owned(), reason.to_string()),
            };
            println!("{name} at {:>2} h: {}", now / 3_600.0, if reason.is_empty() { "forecast" } else { &reason });
            writeln!(out, "{{\"stream\":\"{name}\",\"made_at\":{now},\"points\":{quantiles},\"reason\":\"{reason}\"}}")
                .unwrap();
            now += HORIZON;
        }
    }
}
