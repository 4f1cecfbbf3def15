//! The history file of the running program on a disk that fails, under a clock that steps, and over `kill -9`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::common::clock::Clock;
use crate::common::disk::Disk;
use crate::common::{Redis, Streamlag, TOKEN, command, eventually, streamlag_with_env};

const STREAM: &str = "events:chat";
const GROUP: &str = "signalr-consumers";

const DAY: i64 = 86_400;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn redis() -> Redis {
    let redis = Redis::start();
    redis.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
    redis.add(STREAM, 40);
    redis
}

fn start(redis: &Redis, path: &Path, env: &[(&'static str, String)]) -> Streamlag {
    let url = redis.url_of_everybody();
    let arguments = ["--redis.url", &url, "--streams", STREAM, "--history.path", path.to_str().unwrap()];
    let mut all: Vec<(&str, &str)> = vec![("STREAMLAG_API_TOKEN", TOKEN)];
    all.extend(env.iter().map(|(name, value)| (*name, value.as_str())));
    streamlag_with_env(&arguments, &all).ready()
}

fn up(streamlag: &Streamlag, expected: f64) {
    eventually("streamlag_history_up", || (streamlag.metric("streamlag_history_up") == Some(expected)).then_some(()));
}

/// Waits until a lag is sampled.
fn sampled(streamlag: &Streamlag, lag: u64) {
    eventually("the lag", || (streamlag.json("consumer-lag")["total_lag"] == lag).then_some(()));
    streamlag.next_sample();
}

/// Points written, acknowledged by the metric.
fn written(streamlag: &Streamlag, at_least: f64) {
    eventually("a minute is written", || {
        (streamlag.metric("streamlag_history_points_total") >= Some(at_least)).then_some(())
    });
}

fn history(streamlag: &Streamlag, query: &str) -> Value {
    streamlag.json(&format!("history?stream={STREAM}&group={GROUP}&{query}"))
}

/// Smallest and largest lags of its points.
fn lags(answer: &Value) -> Vec<u64> {
    let points = answer["points"].as_array().unwrap().iter();
    points.flat_map(|point| [&point["lag_lowest"], &point["lag_highest"]].map(|lag| lag.as_u64().unwrap())).collect()
}

fn kill(mut streamlag: Streamlag) {
    streamlag.signal("-KILL");
    assert_eq!(streamlag.wait(), None);
}

fn is_whole(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_str().unwrap().contains("damaged")), "set aside");
}

#[test]
fn a_disk_that_fails_costs_no_point_and_is_said_once() {
    let (redis, disk, clock) = (redis(), Disk::new(), Clock::new());
    let mut entries = 40;
    for (errno, reads, said) in [
        (EIO, false, "disk I/O error"),
        (EIO, true, "disk I/O error"),
        (ENOSPC, false, "database or disk is full"),
        (EROFS, false, "disk I/O error"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.db");
        let [(_, library), rest @ ..] = clock.env();
        let env = [&disk.env("/history.db", &library)[..], &rest].concat();
        let at_first = entries;
        clock.step(0);
        let mut streamlag = start(&redis, &path, &env);
        up(&streamlag, 1.0);
        sampled(&streamlag, at_first);
        clock.step(120);
        written(&streamlag, 1.0);

        disk.fails(errno, reads);
        redis.add(STREAM, 30);
        entries += 30;
        sampled(&streamlag, entries);
        clock.step(240);
        up(&streamlag, 0.0);
        // It goes on, with memory.
        sampled(&streamlag, entries);
        let seen = eventually("the newest lag", || {
            Some(history(&streamlag, "step=1s")).filter(|answer| lags(answer).last() == Some(&entries))
        });
        assert_eq!(seen["source"], "memory", "{errno}: SQLite writes what readers share");
        let lines = streamlag.log_lines("history file");
        assert!(lines.len() == 1 && lines[0].contains(said), "{errno}: {lines:?}");

        disk.works();
        streamlag.signal("-TERM");
        assert_eq!(streamlag.wait(), Some(0));
        is_whole(&path);
        let streamlag = start(&redis, &path, &env);
        up(&streamlag, 1.0);
        let of_both = history(&streamlag, "from=-1h&step=1m");
        let of_both = lags(&of_both);
        assert!(of_both.contains(&at_first) && of_both.contains(&entries), "{errno}: {of_both:?}");
        assert!(of_both.iter().all(|lag| [at_first, entries].contains(lag)), "{errno}: {of_both:?}");
    }
}

#[test]
fn what_was_written_is_there_after_kill_9_and_a_clock_that_steps() {
    let (redis, clock, folder) = (redis(), Clock::new(), tempfile::tempdir().unwrap());
    let path = folder.path().join("history.db");
    let streamlag = start(&redis, &path, &clock.env());
    up(&streamlag, 1.0);
    sampled(&streamlag, 40);
    clock.step(120);
    written(&streamlag, 1.0);
    kill(streamlag);
    is_whole(&path);

    let streamlag = start(&redis, &path, &clock.env());
    up(&streamlag, 1.0);
    // Weeks ahead: older than any minute is kept for.
    clock.step(20 * DAY);
    redis.add(STREAM, 30);
    sampled(&streamlag, 70);
    let before = streamlag.metric("streamlag_history_points_total").unwrap();
    clock.step(20 * DAY + 120);
    written(&streamlag, before + 1.0);
    // And back, to before it began.
    clock.step(-240);
    redis.add(STREAM, 30);
    sampled(&streamlag, 100);
    let before = streamlag.metric("streamlag_history_points_total").unwrap();
    clock.step(-120);
    written(&streamlag, before + 1.0);
    up(&streamlag, 1.0);
    assert!(streamlag.log_lines("history file").is_empty(), "{:?}", streamlag.log());
    kill(streamlag);
    is_whole(&path);

    clock.step(300);
    let streamlag = start(&redis, &path, &clock.env());
    up(&streamlag, 1.0);
    let of_now = lags(&history(&streamlag, "from=-1h&step=1m"));
    assert!(of_now.contains(&40) && of_now.contains(&100) && !of_now.contains(&0), "{of_now:?}");
    // The time that the clock ran ahead to is in the file as well, though it has not come.
    let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 30 * DAY.unsigned_abs();
    let arguments =
        ["history", "export", "--history.path", path.to_str().unwrap(), "--from", "-1h", "--to", &later.to_string()];
    let csv = String::from_utf8(command(&arguments, &[]).output().unwrap().stdout).unwrap();
    assert!(csv.lines().any(|line| line.split(',').nth(5) == Some("70")), "{csv}");
}
