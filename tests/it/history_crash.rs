//! A process that writes the history file is killed at any moment: what it said it had written is there, and nothing else is.
//!
//! `HISTORY_KILLS` says how often: `make history-kills` does it a thousand times.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::eventually;
use streamlag::analysis::group_state::GroupState;
use streamlag::analysis::history::{MINUTE, Point};
use streamlag::store::history::file::{self, Fault, HistoryFile, Limits};
use streamlag::store::history::memory::SeriesKey;

/// Where the writer finds the file, and the minute to go on with.
const PATH: &str = "HISTORY_CRASH_PATH";
const NEXT: &str = "HISTORY_CRASH_NEXT";

const START: i64 = 20_000 * 86_400;
const GROUPS: u64 = 40;
const LIMITS: Limits = Limits { minutes: 86_400 * 14, hours: 86_400 * 400, max_bytes: 1 << 30 };

fn key(group: u64) -> SeriesKey {
    SeriesKey { target: "default".into(), stream: "events:chat".into(), group: format!("group-{group}").into() }
}

fn point(minute: u64, group: u64) -> Point {
    let lag = minute * 31 % 1009 + group;
    Point {
        time: START + minute as i64 * MINUTE,
        samples: 12,
        lag,
        mean: lag as f64,
        lowest: lag,
        highest: lag + 5,
        bound_min: lag,
        bound_max: lag + 5,
        lag_ms: None,
        pending: Some(group),
        length: Some(minute),
        added_milli: None,
        delivered_milli: None,
        consumers: Some(1),
        lost: Some(0),
        state: Some(GroupState::Ok),
    }
}

/// Opens the file. A process that another test starts has the lock, too, between fork and exec.
fn open(path: &Path) -> HistoryFile {
    eventually("the lock", || match HistoryFile::open(path, START) {
        Err(Fault::InUse) => None,
        opened => Some(opened.unwrap()),
    })
}

/// What is killed: writes minute after minute as the daemon does, and says which it has written.
#[test]
#[ignore = "the writer of the test below"]
fn writer() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let next: u64 = std::env::var(NEXT).unwrap().parse().unwrap();
    let mut file = open(Path::new(&path));
    for minute in next.. {
        let points: Vec<_> = (0..GROUPS).map(|group| (key(group), point(minute, group))).collect();
        file.write(&points).unwrap();
        println!("wrote {minute}");
        std::io::stdout().flush().unwrap();
        let now = START + minute as i64 * MINUTE;
        file.compact(now).unwrap();
        if minute % 50 == 0 {
            file.expire(now, LIMITS, true).unwrap();
        }
    }
}

/// Runs the writer for a while; the last minute that it said it had written.
fn run(path: &Path, next: u64, time: Duration) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "history_crash::writer", "--ignored", "--nocapture"])
        .envs([(PATH, path.to_str().unwrap()), (NEXT, &next.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(out).lines().map_while(Result::ok);
        lines.filter_map(|line| line.split_once("wrote ")?.1.parse().ok()).last()
    });
    std::thread::sleep(time);
    assert!(child.try_wait().unwrap().is_none(), "the writer ended: {:?}", child.wait_with_output());
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn what_was_written_survives_kill_9_at_any_moment() {
    let kills: u64 = std::env::var("HISTORY_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let (mut written, mut slowest) = (0, Duration::ZERO);
    let mut random = std::process::id().into();
    for kill in 0..kills {
        random = u64::wrapping_mul(random, 6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // From before the file is there to some hours of minutes.
        let said = run(&path, written, Duration::from_micros((random >> 33) % 150_000 + 10));
        written = said.map_or(written, |last| last + 1);
        let began = Instant::now();
        let mut file = open(&path);
        slowest = slowest.max(began.elapsed());
        let connection = file::open_to_read(&path).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "kill {kill}");
        let end = START + (written as i64 + 10) * MINUTE;
        for group in [0, kill % GROUPS] {
            let found = file::points(&connection, &[&key(group)], START, end, MINUTE)
                .unwrap()
                .series
                .remove(0)
                .unwrap_or_default();
            // One minute may have been written and not said.
            let there = found.len() as u64;
            assert!((written..=written + 1).contains(&there), "kill {kill}: {there} minutes of {written}");
            for (minute, found) in found.iter().enumerate() {
                assert_eq!(*found, point(minute as u64, group), "kill {kill}");
            }
        }
        if file::points(&connection, &[&key(0)], START, end, MINUTE)
            .unwrap()
            .series
            .remove(0)
            .map_or(0, |found| found.len() as u64)
            > written
        {
            written += 1;
        }
        file.compact(START).unwrap();
    }
    assert!(written > kills, "the writer wrote: {written}");
    println!("{kills} kills, {written} minutes of {GROUPS} groups, opened in {slowest:?} at most");
}
