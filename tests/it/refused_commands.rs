//! Commands that the server does not know, or that were renamed away: as with `NOPERM` on them, what can be known without is shown.

use std::path::Path;

use crate::common::{Redis, Streamlag, eventually, servers, streamlag};

const GROUP: &str = "signalr-consumers";
const STREAMS: &str = "events:chat,events:large";

/// A group that has read 5 of 20 entries and acknowledged none, and one whose entries are large. Filled before anything is renamed
/// that filling takes: only what reads is.
fn fill(redis: &Redis) {
    for stream in STREAMS.split(',') {
        redis.run(&format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM"));
    }
    redis.add("events:chat", 20);
    for _ in 0..20 {
        redis.run_bytes(&[b"XADD", b"events:large", b"*", b"n", &vec![b'x'; 20 * 1024]]);
    }
    for stream in STREAMS.split(',') {
        redis.read(stream, GROUP, "instance-1", 5);
    }
}

/// A server that knows none of these commands, and who watches it as the default user: ACLs know renamed commands no more.
fn without(server: &Path, commands: &[&str], arguments: &[&str]) -> (Redis, Streamlag) {
    let redis = Redis::start_without(server, commands);
    fill(&redis);
    let url = redis.url_of_everybody();
    let streamlag = streamlag(&[&["--redis.url", &url, "--groups", GROUP], arguments].concat()).ready();
    (redis, streamlag)
}

/// What is known without the command: the lag, exact or within its bounds, and what is pending.
fn shows_what_it_can(streamlag: &Streamlag, without: &str, exact: bool) {
    for stream in STREAMS.split(',') {
        let group = eventually(&format!("{without}: the group of {stream} is shown"), || {
            let groups = streamlag.json("groups")["groups"].as_array().cloned().unwrap_or_default();
            let group = groups.into_iter().find(|group| group["stream"] == stream)?;
            (group["lag"] != -1 && (!exact || group["lag_quality"] == "exact")).then_some(group)
        });
        let (lag, min, max) = (&group["lag"], &group["lag_min"], &group["lag_max"]);
        assert!(min.as_u64() <= Some(15) && Some(15) <= max.as_u64(), "{without}: {group}");
        assert!(!exact || *lag == 15, "{without}: {group}");
        assert_eq!(group["pending"], 5, "{without}: {group}");
    }
    let page = streamlag.metrics();
    assert_eq!(
        crate::common::value_of(&page, "streamlag_polls_total{outcome=\"failure\"}"),
        Some(0.0),
        "{:?}",
        streamlag.log()
    );
    assert!(crate::common::value_of(&page, "streamlag_polls_total{outcome=\"partial\"}") > Some(0.0), "{without}");
}

fn said_once(streamlag: &Streamlag, command: &str) {
    let shown = if command.contains(' ') { format!("\"{command}\"") } else { command.to_owned() };
    let line = format!("Redis command refused\" command={shown} ");
    eventually(&line, || (!streamlag.log_lines(&line).is_empty()).then_some(()));
    for _ in 0..3 {
        streamlag.next_sample();
    }
    assert_eq!(streamlag.log_lines(&line).len(), 1, "{:?}", streamlag.log());
    // How slow the machine is, is another matter.
    for trouble in ["stream read failed", "poll failed", "level=error"] {
        assert!(streamlag.log_lines(trouble).is_empty(), "{command}: {:?}", streamlag.log());
    }
}

#[test]
fn each_command_that_can_be_done_without_costs_only_what_it_tells() {
    for server in servers() {
        for command in ["XPENDING", "TIME", "MULTI", "EXEC", "XRANGE", "XLEN"] {
            let (_redis, streamlag) = without(&server, &[command], &["--streams", STREAMS]);
            let what = format!("{} without {command}", server.display());
            // A lag in mid-stream that was never seen otherwise is counted.
            shows_what_it_can(&streamlag, &what, command != "XRANGE");
            said_once(&streamlag, command);
            let page = streamlag.metrics();
            let oldest = page.contains("event_consumer_group_oldest_pending_seconds{");
            assert_eq!(oldest, command != "XPENDING", "{what}");
            assert!(page.contains("event_consumer_instance_pending{"), "{what}");
        }
    }
}

#[test]
fn scan_costs_what_patterns_mean_and_nothing_that_is_named() {
    for server in servers() {
        let (_redis, streamlag) = without(&server, &["SCAN"], &["--streams", "events:chat,events:large,other:*"]);
        shows_what_it_can(&streamlag, "SCAN", true);
        said_once(&streamlag, "SCAN");
    }
}

#[test]
fn all_of_them_at_once() {
    for server in servers() {
        let mut known = vec!["XPENDING", "TIME", "MULTI", "EXEC", "XRANGE", "XLEN", "SCAN", "HELLO", "EVAL", "DISCARD"];
        known.extend((crate::common::grants::version(&server) >= (7, 0)).then_some("EVAL_RO"));
        let (redis, streamlag) = without(&server, &known, &["--streams", STREAMS]);
        shows_what_it_can(&streamlag, "all of them", false);
        for command in ["XPENDING", "TIME", "MULTI"] {
            said_once(&streamlag, command);
        }
        // It goes on following.
        redis.run("XADD events:chat * n 1");
        eventually("one more entry", || {
            streamlag.metric("event_stream_length{stream=\"events:chat\"}").filter(|length| *length == 21.0)
        });
    }
}

#[test]
fn what_nothing_can_be_said_without_is_named() {
    for server in servers() {
        let (_redis, streamlag) = without(&server, &["XINFO"], &["--streams", STREAMS]);
        let stream = eventually("the stream is unreadable", || {
            let lag = streamlag.json("consumer-lag");
            lag["streams"]["events:chat"]["error"].is_string().then(|| lag["streams"]["events:chat"].clone())
        });
        let error = stream["error"].as_str().unwrap();
        let named = error.starts_with("XINFO STREAM is needed") || error.starts_with("XINFO GROUPS is needed");
        assert!(named && error.contains("and Redis refuses it: unknown command"), "{error}");
        assert_eq!(streamlag.json("health")["redis_connected"], true);
    }
}

/// Streams that others write to all the time are read all the same: what changed while it was read is read again.
#[test]
fn without_transactions_streams_that_change_are_read() {
    for server in servers() {
        let (redis, streamlag) = without(&server, &["MULTI"], &["--streams", "events:chat", "--poll.interval", "50ms"]);
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let mut connection = redis.connection();
                        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                            redis::cmd("XADD")
                                .arg(&["events:chat", "MAXLEN", "1000", "*", "n", "1"])
                                .query::<redis::Value>(&mut connection)
                                .unwrap();
                        }
                    })
                })
                .collect();
            let length = |at_least: f64| {
                eventually("the stream is read while it is written to", || {
                    streamlag.metric("event_stream_length{stream=\"events:chat\"}").filter(|length| *length >= at_least)
                })
            };
            length(100.0);
            length(1000.0);
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        let groups = || streamlag.json("groups")["groups"][0].clone();
        let length: i64 = redis::from_redis_value(redis.run("XLEN events:chat")).unwrap();
        eventually("the lag in the end", || (groups()["lag"] == length).then_some(()));
    }
}
