//! Forecasts of the running program: on the page, in the API and for autoscalers, from a file with three hours of history.

use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Redis, Streamlag, eventually, eventually_right, streamlag};
use streamlag::analysis::group_state::GroupState;
use streamlag::analysis::history::{MINUTE, Point};
use streamlag::store::history::file::HistoryFile;
use streamlag::store::history::memory::SeriesKey;

pub const STREAM: &str = "orders";
const GROUP: &str = "workers";

/// Entries that were added each minute, and not delivered.
const PER_MINUTE: u64 = 6;

/// Minutes of history.
const MINUTES: i64 = 180;

/// Writes a file in which the lag has grown for three hours to what it is now.
pub fn grown(folder: &TempDir) -> String {
    let path = folder.path().join("history.db");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let start = Point::bucket(now, MINUTE) - MINUTES * MINUTE;
    let minute = |number: i64| {
        let lag = (number as u64 + 1) * PER_MINUTE;
        Point {
            time: start + number * MINUTE,
            samples: 12,
            lag,
            mean: lag as f64,
            lowest: lag - PER_MINUTE,
            highest: lag,
            bound_min: lag - PER_MINUTE,
            bound_max: lag,
            lag_ms: Some(1),
            pending: Some(0),
            length: Some(lag),
            added_milli: Some(PER_MINUTE * 1000 / 60),
            delivered_milli: Some(0),
            consumers: Some(1),
            lost: Some(0),
            state: Some(GroupState::Lagging),
        }
    };
    let key = SeriesKey { target: "default".into(), stream: STREAM.into(), group: GROUP.into() };
    let mut file = HistoryFile::open(&path, now).unwrap();
    for number in 0..MINUTES {
        file.write(&[(key.clone(), minute(number))]).unwrap();
    }
    path.to_str().unwrap().to_owned()
}

/// The lag at the end of that history.
const LAG: u64 = MINUTES as u64 * PER_MINUTE;

/// A Redis whose group has that lag.
pub fn redis() -> Redis {
    let redis = Redis::start();
    redis.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
    redis.add(STREAM, LAG as usize);
    redis
}

/// streamlag with that history.
pub fn start(redis: &Redis, path: &str, more: &[&str]) -> Streamlag {
    let url = redis.url_of_everybody();
    let own = ["--redis.url", &url, "--streams", STREAM, "--groups", GROUP, "--history.path", path];
    streamlag(&[&own[..], more].concat()).ready()
}

fn api(streamlag: &Streamlag) -> Value {
    streamlag.json(&format!("forecast?stream={STREAM}&group={GROUP}&horizon=15m"))
}

/// Whether a lag after a quarter of an hour is what has to be expected.
fn is_grown(lag: f64) -> bool {
    let expected = (LAG + 15 * PER_MINUTE) as f64;
    (lag - expected).abs() < 60.0
}

#[test]
fn with_the_collector_the_page_has_forecasts_of_the_groups_that_are_there() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    // Both thresholds are ahead: the first in ten minutes, the second in half an hour.
    let thresholds = [LAG + 10 * PER_MINUTE, LAG + 30 * PER_MINUTE].map(|lag| lag.to_string());
    let thresholds = ["--lag.degraded", &thresholds[0], "--lag.unhealthy", &thresholds[1]];
    let streamlag = start(&redis, &grown(&folder), &[&["--collector.forecast"], &thresholds[..]].concat());
    let of = |name: &str, horizon: &str, quantile: &str| {
        format!(
            "{name}{{stream=\"{STREAM}\",consumer_group=\"{GROUP}\",horizon=\"{horizon}\",quantile=\"{quantile}\"}}"
        )
    };
    let lag = |horizon, quantile| streamlag.metric(&of("event_consumer_lag_forecast", horizon, quantile));
    let median = eventually("a forecast on the page", || lag("15m", "0.5"));
    assert!(is_grown(median), "{median}");
    let (low, high) = (lag("15m", "0.1").unwrap(), lag("15m", "0.9").unwrap());
    assert!(low <= median && median <= high, "{low} {median} {high}");
    assert!(lag("1h", "0.5").unwrap() > median);
    let reached = |level: &str, horizon: &str| {
        streamlag.metric(&format!(
            "event_consumer_lag_threshold_forecast_seconds{{stream=\"{STREAM}\",consumer_group=\"{GROUP}\",level=\"{level}\",horizon=\"{horizon}\",quantile=\"0.5\"}}"
        ))
    };
    let (degraded, unhealthy) = (reached("degraded", "15m").unwrap(), reached("unhealthy", "1h").unwrap());
    assert!((300.0..=900.0).contains(&degraded), "{degraded} s");
    assert!((1_200.0..=2_400.0).contains(&unhealthy), "{unhealthy} s");
    assert_eq!(reached("unhealthy", "15m"), None);
    assert_eq!(streamlag.metric("streamlag_forecast_groups_left_out"), Some(0.0));
    // Nothing has been scored yet, and nothing is trimmed.
    let page = streamlag.metrics();
    for absent in ["\nstreamlag_forecast_mase", "\nstreamlag_forecast_coverage_ratio", "\nevent_consumer_loss_forecast"]
    {
        assert!(!page.contains(absent), "{page}");
    }
    let alone = streamlag.request("GET", "/metrics?collect[]=forecast", &[]).text();
    assert!(alone.contains("\nevent_consumer_lag_forecast{") && !alone.contains("\nevent_consumer_lag{"), "{alone}");
    // A group that is gone from Redis is gone from the next page.
    redis.run(&format!("XGROUP DESTROY {STREAM} {GROUP}"));
    eventually("the group is gone", || {
        let page = streamlag.metrics();
        (!page.contains("\nevent_consumer_lag{")).then_some(page)
    });
    assert!(!streamlag.metrics().contains("\nevent_consumer_lag_forecast{"));
}

#[test]
fn without_the_collector_a_forecast_is_made_when_asked_for() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = grown(&folder);
    let streamlag = start(&redis, &path, &["--lag.unhealthy", &LAG.to_string()]);
    let made = eventually("a forecast", || Some(api(&streamlag)).filter(|made| !made["points"].is_null()));
    let end = made["points"].as_array().unwrap().last().unwrap().clone();
    assert!(is_grown(end["q50"].as_f64().unwrap()), "{made}");
    assert_eq!((&made["reason"], &made["skill"]["forecasts"]), (&Value::Null, &Value::from(0)), "{made}");
    // A lag at the threshold is degraded, and not unhealthy yet.
    let time_to = |level: &str| made["time_to"][level]["q10"].as_f64().unwrap();
    assert!(time_to("degraded") == 0.0 && time_to("unhealthy") > 0.0, "{made}");
    // In the minute that has just begun nothing is known to be delivered: then there is no past moment of that kind to replay.
    assert!(made["replay"]["forecasts"].as_u64().is_none_or(|replayed| replayed > 8), "{made}");
    assert!(!streamlag.metrics().contains("event_consumer_lag_forecast"));
    // Asked again at once it is the same.
    assert_eq!(api(&streamlag)["made_at"], made["made_at"]);

    // The autoscaler is told what is forecast, and what comes of it for work.
    let scale = |signal: &str| {
        let path = format!("/api/v1/scale?stream={STREAM}&group={GROUP}&signal={signal}");
        // While the program forecasts on a busy machine, a sample may be late: then there is no value.
        eventually_right(|| {
            let reply = streamlag.get(&path);
            if reply.status == 200 { Ok(reply.json()) } else { Err(reply.text()) }
        })
    };
    let (work, ahead) = (scale("work"), scale("forecast&look_ahead=15m"));
    assert_eq!(work["value"], LAG);
    let value = ahead["value"].as_u64().unwrap();
    assert!(value > LAG && is_grown(value as f64), "{ahead}");
    assert!(ahead["reason"].as_str().unwrap().starts_with("in 15m at most "), "{ahead}");
    // A horizon that the history does not allow: the work now, and it says so.
    let beyond = scale("forecast&look_ahead=1day");
    assert_eq!(beyond["value"], LAG, "{beyond}");
    assert!(beyond["reason"].as_str().unwrap().starts_with("there is no forecast for 1d ahead"), "{beyond}");
}
