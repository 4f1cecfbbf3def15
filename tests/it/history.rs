//! History and trends of the running program, from memory and from the file, and what becomes of it under faults.

use serde_json::{Value, json};

use crate::common::{Redis, Streamlag, eventually, streamlag};

const STREAM: &str = "events:chat";
const GROUP: &str = "signalr-consumers";

fn redis() -> Redis {
    let redis = Redis::start();
    redis.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
    redis.add(STREAM, 40);
    redis
}

fn start(redis: &Redis, arguments: &[&str]) -> Streamlag {
    let url = redis.url_of_everybody();
    streamlag(&[&["--redis.url", &url, "--streams", STREAM], arguments].concat()).ready()
}

fn history(streamlag: &Streamlag, query: &str) -> Value {
    streamlag.json(&format!("history?stream={STREAM}&group={GROUP}&{query}"))
}

fn points(answer: &Value) -> &[Value] {
    answer["points"].as_array().unwrap_or_else(|| panic!("no points: {answer}"))
}

fn with_lag(answer: &Value, lag: u64) -> bool {
    points(answer).iter().any(|point| point["lag"] == lag && point["lag_min"] == lag && point["lag_max"] == lag)
}

fn problem(streamlag: &Streamlag, path: &str) -> String {
    let reply = streamlag.get(&format!("/api/v1/events/{path}"));
    assert_eq!(reply.status, 400, "{path}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{path}");
    reply.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn lags_of_the_last_seconds_are_there_as_they_were() {
    let redis = redis();
    let streamlag = start(&redis, &[]);
    eventually("the first lag", || with_lag(&history(&streamlag, "step=1s"), 40).then_some(()));
    redis.add(STREAM, 60);
    redis.read(STREAM, GROUP, "instance-1", 30);
    let answer = eventually("the second lag", || {
        let answer = history(&streamlag, "from=-10m&step=1s");
        with_lag(&answer, 70).then_some(answer)
    });
    let was_40 = |point: &Value| point["lag_lowest"] == 40;
    assert!(points(&answer).iter().any(was_40), "{answer}");
    for (key, value) in [("stream", json!(STREAM)), ("consumer_group", json!(GROUP)), ("source", json!("memory"))] {
        assert_eq!(answer[key], value);
    }
    assert_eq!(answer["step_seconds"], 1);
    let last = points(&answer).last().unwrap();
    for (key, value) in [("pending", 30), ("length", 100), ("lag_highest", 70), ("lost_entries", 0)] {
        assert_eq!(last[key], value, "{key} of {last}");
    }
    assert!(last["lag_seconds"].as_f64().unwrap() > 0.0, "{last}");
    let times: Vec<&str> = points(&answer).iter().map(|point| point["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|one, other| one < other), "{times:?}");
    // A step is a bucket, and keeps what was between.
    let minutes = history(&streamlag, "from=-10m&step=10m");
    let highest = points(&minutes).iter().map(|point| point["lag_highest"].as_u64().unwrap()).max();
    let lowest = points(&minutes).iter().map(|point| point["lag_lowest"].as_u64().unwrap()).min();
    assert!(highest >= Some(70) && lowest == Some(40), "{minutes}");
    assert_eq!(streamlag.metric("streamlag_history_up"), Some(1.0));
    assert!(streamlag.metric("streamlag_history_points_total") >= Some(2.0));
}

#[test]
fn what_was_not_sampled_is_a_gap() {
    let mut redis = redis();
    let streamlag = start(&redis, &["--redis.timeout", "200ms"]);
    eventually("a point", || (!points(&history(&streamlag, "step=1s")).is_empty()).then_some(()));
    redis.stop();
    eventually("the outage", || (streamlag.metric("streamlag_redis_up") == Some(0.0)).then_some(()));
    // A poll may have been under way.
    let newest = || points(&history(&streamlag, "step=1s")).last().unwrap()["time"].as_str().unwrap().to_owned();
    let before = newest();
    let polls = || streamlag.metric("streamlag_polls_total{outcome=\"failure\"}").unwrap_or_default();
    let failed = polls();
    eventually("more failed polls", || (polls() > failed + 20.0).then_some(()));
    assert_eq!(newest(), before, "no point of a time at which nothing was read");
    assert!(points(&history(&streamlag, "step=1s")).iter().all(|point| point["lag"] != 0), "an outage is no lag of 0");
}

#[test]
fn a_group_that_vanished_stays_readable() {
    let redis = redis();
    let streamlag = start(&redis, &["--groups", "*"]);
    eventually("a point", || with_lag(&history(&streamlag, "step=1s"), 40).then_some(()));
    redis.run(&format!("DEL {STREAM}"));
    streamlag.next_sample();
    assert!(with_lag(&history(&streamlag, "step=1s"), 40));
}

#[test]
fn a_forecast_without_history_says_why_there_is_none() {
    let redis = redis();
    let streamlag = start(&redis, &[]);
    eventually("a point", || (!points(&history(&streamlag, "step=1s")).is_empty()).then_some(()));
    let made = streamlag.json(&format!("forecast?stream={STREAM}&group={GROUP}&horizon=30m"));
    assert_eq!((&made["points"], &made["horizon_seconds"]), (&Value::Null, &json!(1800.0)), "{made}");
    assert!(made["reason"].as_str().unwrap().starts_with("history is too short for this horizon"), "{made}");
    assert_eq!(made["skill"], json!({"mase": null, "coverage_80": null, "forecasts": 0}));
    for key in ["degraded", "unhealthy", "drained", "loss"] {
        assert_eq!(made["time_to"][key], Value::Null, "{key} of {made}");
    }
}

#[test]
fn trends_say_where_the_lag_is_going() {
    let redis = redis();
    let streamlag = start(&redis, &["--group.window", "1s"]);
    let of = |answer: &Value| answer["trends"][0].clone();
    let trend = eventually("a growing lag", || {
        redis.add(STREAM, 20);
        let trend = of(&streamlag.json("trends?window=1m"));
        (trend["direction"] == "growing").then_some(trend)
    });
    assert_eq!((&trend["stream"], &trend["consumer_group"]), (&json!(STREAM), &json!(GROUP)));
    assert!(trend["lag_slope_per_second"].as_f64() > Some(0.0), "{trend}");
    assert!(trend["peak_lag"].as_u64() >= Some(60), "{trend}");
    eventually("arrivals", || {
        redis.add(STREAM, 20);
        of(&streamlag.json("trends?window=1m"))["arrivals_per_second"]["q50"].as_f64().filter(|rate| *rate > 0.0)
    });
    let none = streamlag.json(&format!("trends?window=1m&stream={STREAM}&group={GROUP}"));
    assert_eq!(none["trends"].as_array().map(Vec::len), Some(1));
}

#[test]
fn before_the_first_poll_there_is_nothing_to_say_yet() {
    // It takes the connection and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let streamlag = streamlag(&["--redis.url", &url, "--streams", STREAM, "--redis.timeout", "1m"]);
    for path in ["history", "trends", "forecast"] {
        let reply = streamlag.get(&format!("/api/v1/events/{path}?stream={STREAM}&group={GROUP}"));
        assert_eq!(reply.status, 503, "{path}: {reply:?}");
        assert!(reply.header("retry-after").is_some() && reply.text().contains("first poll"), "{path}: {reply:?}");
    }
}

#[test]
fn bad_input_is_named_with_what_was_expected() {
    let redis = redis();
    let streamlag = start(&redis, &[]);
    eventually("a point", || (!points(&history(&streamlag, "step=1s")).is_empty()).then_some(()));
    let of = format!("history?stream={STREAM}&group={GROUP}");
    for (query, parts) in [
        (format!("{of}&from=now&to=-1h"), ["\"now\" for from", "a time before to"]),
        (format!("{of}&step=0s"), ["\"0s\" for step", "whole seconds between 1s"]),
        (format!("{of}&from=-14d&step=60s"), ["\"60s\" for step", "a step of at least 1m50s"]),
        (format!("{of}&from=soon"), ["\"soon\" for from", "now, a duration before now"]),
        (format!("history?stream={STREAM}&group=none"), ["\"none\" for group", GROUP]),
        ("history?stream=none".to_owned(), ["\"none\" for stream", STREAM]),
        ("history".to_owned(), ["\"\" for stream", STREAM]),
        (format!("forecast?stream={STREAM}&horizon=2d"), ["\"2d\" for horizon", " and 1d,"]),
        ("forecast?stream=none".to_owned(), ["\"none\" for stream", STREAM]),
        ("trends?window=0".to_owned(), ["\"0\" for window", "whole seconds"]),
        ("trends?window=5h".to_owned(), ["\"5h\" for window", "at most 2h"]),
        ("trends?group=none".to_owned(), ["\"none\" for group", GROUP]),
    ] {
        let detail = problem(&streamlag, &query);
        assert!(parts.iter().all(|part| detail.contains(part)), "{query}: {detail}");
    }
    assert_eq!(streamlag.get(&format!("/api/v1/events/{of}&target=none")).status, 404);
    for path in ["events/history", "events/trends", "events/forecast", "events/consumer-lag", "events/streams"]
        .into_iter()
        .chain([
            "events/health",
            "events/groups",
            "events/consumers",
            "events/logical-streams",
            "targets",
            "sd",
            "incidents",
        ])
    {
        let refused = |query: &str, part: &str| {
            let reply = streamlag.get(&format!("/api/v1/{path}?{query}"));
            assert!(reply.status == 400 && reply.text().contains(part), "{path}?{query}: {reply:?}");
        };
        refused("token=s3cret", "unknown query parameter \\\"token\\\": expected");
        match path {
            "targets" | "sd" => refused("group=a", "expected none here"),
            _ => refused("target=default&target=default", "target is given twice"),
        }
    }
    let twice = problem(&streamlag, &format!("{of}&group=other"));
    assert_eq!(twice, "the query parameter group is given twice: expected it once");
    for path in ["history", "trends"] {
        let reply = streamlag.request("GET", &format!("/api/v1/events/{path}"), &[]);
        assert_eq!(reply.status, 401, "{path}");
    }
}
