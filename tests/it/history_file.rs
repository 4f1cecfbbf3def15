//! The history file of the running program: it outlives the program, and its faults harm nothing else.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Redis, Streamlag, TOKEN, command, eventually, streamlag};

const STREAM: &str = "events:chat";
const GROUP: &str = "signalr-consumers";

fn redis() -> Redis {
    let redis = Redis::start();
    redis.run(&format!("XGROUP CREATE {STREAM} {GROUP} 0 MKSTREAM"));
    redis.add(STREAM, 40);
    redis
}

fn start(redis: &Redis, path: &Path, more: &[&str]) -> Streamlag {
    let url = redis.url_of_everybody();
    let own = ["--redis.url", &url, "--streams", STREAM, "--history.path", path.to_str().unwrap()];
    streamlag(&[&own[..], more].concat()).ready()
}

fn history(streamlag: &Streamlag, step: &str) -> Value {
    streamlag.json(&format!("history?stream={STREAM}&group={GROUP}&from=-1h&step={step}"))
}

fn lags(answer: &Value, key: &str) -> Vec<u64> {
    answer["points"].as_array().unwrap().iter().map(|point| point[key].as_u64().unwrap()).collect()
}

fn up(streamlag: &Streamlag, expected: f64) {
    eventually("streamlag_history_up", || (streamlag.metric("streamlag_history_up") == Some(expected)).then_some(()));
}

/// Whatever the file does: samples, metrics, and history from memory.
fn goes_on(streamlag: &Streamlag) {
    streamlag.next_sample();
    let answer = eventually("a point of memory", || {
        let answer = history(streamlag, "1s");
        (!lags(&answer, "lag").is_empty()).then_some(answer)
    });
    assert_eq!(answer["source"], "memory");
    assert_eq!(streamlag.json("consumer-lag")["total_lag"], 40);
}

fn said_once(streamlag: &Streamlag, text: &str) {
    let lines = eventually("a line about the file", || {
        Some(streamlag.log_lines("history file")).filter(|lines| !lines.is_empty())
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(text), "{lines:?}");
}

fn of_file(path: &Path, action: &[&str]) -> Output {
    let arguments = [&["history"], action, &["--history.path", path.to_str().unwrap()]].concat();
    command(&arguments, &[]).output().unwrap()
}

fn end(mut streamlag: Streamlag) {
    streamlag.signal("-TERM");
    assert_eq!(streamlag.wait(), Some(0));
}

/// A file with a minute of lag 40.
fn filled(redis: &Redis, folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("history.db");
    let streamlag = start(redis, &path, &[]);
    up(&streamlag, 1.0);
    streamlag.next_sample();
    end(streamlag);
    path
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = filled(&redis, &folder);
    redis.add(STREAM, 30);
    let streamlag = start(&redis, &path, &[]);
    up(&streamlag, 1.0);
    let answer = eventually("points of both", || {
        let answer = history(&streamlag, "1m");
        (lags(&answer, "lag_highest").contains(&70)).then_some(answer)
    });
    assert!(lags(&answer, "lag_lowest").contains(&40), "{answer}");
    assert_eq!(answer["source"], "sqlite");
    assert!(streamlag.metric("streamlag_history_bytes") > Some(4096.0));
    let hours = history(&streamlag, "1h");
    assert!(lags(&hours, "lag_lowest").contains(&40), "{hours}");
    // Beside the daemon.
    let info = of_file(&path, &["info", "--output", "json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info["groups"], &info["schema_version"]), (&1.into(), &3.into()));
    assert!(info["resolutions"][0]["points"].as_u64() >= Some(1), "{info}");
    let csv = String::from_utf8(of_file(&path, &["export", "--output", "csv"]).stdout).unwrap();
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("time,target,stream,consumer_group,samples,lag,"), "{csv}");
    let row: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!((row[1], row[2], row[3], row[5], row[6], row[7]), ("default", STREAM, GROUP, "40", "40", "40"), "{csv}");
    let table = String::from_utf8(of_file(&path, &["info"]).stdout).unwrap();
    assert!(table.contains("minutes") && table.contains("schema version  3"), "{table}");
    // And by the tool that everybody has.
    let sqlite =
        Command::new("sqlite3").arg(&path).arg("PRAGMA integrity_check; SELECT consumer_group FROM series").output();
    assert_eq!(String::from_utf8(sqlite.unwrap().stdout).unwrap(), format!("ok\n{GROUP}\n"));
}

#[test]
fn a_file_of_another_program_is_left_as_it_is() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = folder.path().join("diary.txt");
    std::fs::write(&path, "my diary").unwrap();
    let streamlag = start(&redis, &path, &[]);
    said_once(&streamlag, "file of another program");
    up(&streamlag, 0.0);
    goes_on(&streamlag);
    end(streamlag);
    assert_eq!(std::fs::read(&path).unwrap(), b"my diary");
    let output = of_file(&path, &["info"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("file of another program"));
}

#[test]
fn a_damaged_file_is_set_aside() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = filled(&redis, &folder);
    let mut bytes = std::fs::read(&path).unwrap();
    // The page of the table of tables, behind the header.
    bytes[100..4096].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    let streamlag = start(&redis, &path, &[]);
    said_once(&streamlag, "set aside");
    up(&streamlag, 0.0);
    goes_on(&streamlag);
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|name| name.to_str().unwrap().contains("damaged")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(&aside[0]).unwrap(), bytes);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = folder.path().join("history.db");
    let first = start(&redis, &path, &[]);
    up(&first, 1.0);
    let second = start(&redis, &path, &[]);
    said_once(&second, "another process uses it");
    up(&second, 0.0);
    goes_on(&second);
    assert_eq!(first.metric("streamlag_history_up"), Some(1.0));
}

/// On a file system of a few kilobytes, and then on one that has room.
#[test]
fn a_full_disk_is_said_once_and_history_goes_on_in_memory() {
    let (redis, folder) = (redis(), tempfile::tempdir().unwrap());
    let path = folder.path().join("history.db");
    let url = redis.url_of_everybody();
    // No file may grow beyond a page; pipes and sockets are not meant.
    let script = format!(
        "ulimit -f 4; exec {} --redis.url {url} --streams {STREAM} --poll.interval 100ms --web.listen-address 127.0.0.1:0 \
         --api.rate-limit 0 --poll.max-redis-share 100% --history.path {}",
        env!("CARGO_BIN_EXE_streamlag"),
        path.display()
    );
    let streamlag = crate::common::streamlag_by_shell(&script, &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
    said_once(&streamlag, "disk I/O error");
    up(&streamlag, 0.0);
    goes_on(&streamlag);
    end(streamlag);
    let streamlag = start(&redis, &path, &[]);
    up(&streamlag, 1.0);
}

#[test]
fn a_folder_that_cannot_be_written_is_said_once() {
    let redis = redis();
    // Where not even root makes files.
    let streamlag = start(&redis, Path::new("/proc/history.db"), &[]);
    said_once(&streamlag, "/proc/history.db");
    up(&streamlag, 0.0);
    goes_on(&streamlag);
}

#[test]
fn bad_settings_are_named_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let missing = format!("{folder}/none/history.db");
    for (arguments, parts) in [
        (["--history.path", missing.as_str()], ["none/history.db\" for --history.path", "in a directory that exists"]),
        (["--history.path", folder], ["for --history.path", "this is a directory"]),
        (["--history.retention", "59s"], ["\"59s\" for --history.retention", "between 1m and 3650d"]),
        (["--history.coarse-retention", "x"], ["\"x\" for --history.coarse-retention", "such as 36h or 14d"]),
        (["--history.memory", "64"], ["\"64\" for --history.memory", "such as 64MiB"]),
        (["--history.memory", "lots"], ["\"lots\" for --history.memory", "between 1MiB"]),
        (["--history.max-size", "-1GiB"], ["\"-1GiB\" for --history.max-size", "between 16MiB"]),
    ] {
        let output = command(&[&arguments[..], &["--config.check"]].concat(), &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
    }
    for (arguments, part) in [
        (&["history", "info"][..], "--history.path is missing"),
        (&["history", "export", "--history.path", "x", "--from", "soon"], "\"soon\" for from: expected now"),
        (
            &["history", "export", "--history.path", "x", "--step", "1s"],
            "\"1s\" for step: expected whole seconds between 1m",
        ),
        (&["history"], "history"),
    ] {
        let output = command(arguments, &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let output = command(&["history", "info", "--history.path", &missing], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
