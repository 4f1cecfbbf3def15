//! What happens to the machine: no room for logs, no file descriptors, a clock that steps.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::clock::Clock;
use crate::common::proxy::{Fault, Proxy};
use crate::common::storm::Storm;
use crate::common::{PATIENCE, Redis, SMALL_AGE, Streamlag, eventually, streamlag_logging_to, value_of};

fn goes_up_and_down(mut streamlag: Streamlag, redis: &mut Redis) {
    let up_is = |value| eventually("up", || streamlag.metric("streamlag_redis_up").filter(|up| *up == value));
    up_is(1.0);
    // Each of these changes is a line that cannot be written.
    redis.stop();
    up_is(0.0);
    redis.launch(&[]);
    up_is(1.0);
    assert!(streamlag.is_running());
    streamlag.signal("-TERM");
    assert_eq!(streamlag.wait(), Some(0));
}

#[test]
fn no_room_for_logs() {
    let mut redis = Redis::start();
    for format in ["logfmt", "json"] {
        let full = File::create("/dev/full").unwrap();
        let url = redis.url();
        let streamlag =
            streamlag_logging_to(full, &["--redis.url", &url, "--poll.interval", "100ms", "--log.format", format]);
        goes_up_and_down(streamlag, &mut redis);
    }
}

#[test]
fn nobody_reads_logs_any_more() {
    let mut redis = Redis::start();
    for format in ["logfmt", "json"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let url = redis.url();
        let streamlag =
            streamlag_logging_to(writer, &["--redis.url", &url, "--poll.interval", "100ms", "--log.format", format]);
        goes_up_and_down(streamlag, &mut redis);
    }
}

/// Descriptors that the process is left with for what it opens.
const SPARE: usize = 8;

/// How long the process is watched while it has none.
const WATCHED: Duration = Duration::from_secs(2);

/// The share of a core that it may use meanwhile. A loop around a failing `accept` takes all of one.
const BUSY: f64 = 0.5;

#[test]
fn file_descriptors_used_up() {
    let redis = Redis::start();
    let url = redis.url();
    let mut streamlag = crate::common::streamlag(&["--redis.url", &url]).ready();
    let mut kept = TcpStream::connect(streamlag.address).unwrap();
    scrape_over(&mut kept);
    let pid = streamlag.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={0}:{0}", open + SPARE);
    let lowered = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    let lowered = lowered.unwrap_or_else(|error| panic!("prlimit ({error}): install Debian's package util-linux"));
    assert!(lowered.success());
    streamlag.log_clear();
    let flood: Vec<TcpStream> = (0..10 * SPARE).map(|_| TcpStream::connect(streamlag.address).unwrap()).collect();
    eventually("it is said", || streamlag.log_lines("cannot accept connections").pop());
    let before = cpu_seconds(pid);
    std::thread::sleep(WATCHED);
    let used = (cpu_seconds(pid) - before) / WATCHED.as_secs_f64();
    assert!(used < BUSY, "{used} of a core");
    assert_eq!(streamlag.log_lines("cannot accept connections").len(), 1, "{:?}", streamlag.log());
    // Who was there before is served, and Redis is polled over the connection there was.
    assert_eq!(value_of(&scrape_over(&mut kept), "streamlag_redis_up"), Some(1.0));
    drop(flood);
    eventually("new connections are served", || (streamlag.get("/-/healthy").status == 200).then_some(()));
    streamlag.next_sample();
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
    assert!(streamlag.is_running());
}

/// A page over a connection that is kept.
fn scrape_over(connection: &mut TcpStream) -> String {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    let mut bytes = [0; 64 * 1024];
    loop {
        let read = connection.read(&mut bytes).unwrap();
        assert!(read > 0, "the connection ended: {answer}");
        answer.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return body.to_owned();
            }
        }
    }
}

/// What the process has used, in user and system mode. The kernel counts a hundred ticks a second.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

/// Back and forth, by a few seconds and by more than a day.
pub const STEPS: [i64; 5] = [-3600, 7200, -5, -100_000, 100_000];

#[test]
fn the_clock_of_streamlag_steps() {
    let clock = Clock::new();
    let env = clock.env();
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let redis = Redis::start();
    let (proxy, url) = (Proxy::start(redis.port), redis.url());
    let mut storm = Storm::with(redis, proxy, &url, &["--poll.interval", "300ms"], &env);
    storm.harmless(
        "streamlag's clock steps",
        |storm| {
            for step in STEPS {
                clock.step(step);
                eventually("the clock has stepped", || {
                    let seconds = storm.streamlag.metric("streamlag_last_successful_poll_timestamp_seconds")?;
                    ((seconds - now() - step as f64).abs() < 4.0).then_some(())
                });
                ages_are_small(storm, SMALL_AGE);
            }
        },
        |_| clock.step(0),
    );
    assert_eq!(storm.streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0));
}

#[test]
fn the_clock_of_redis_steps() {
    let mut storm = Storm::new(&["--poll.interval", "300ms"]);
    storm.harmless(
        "Redis's clock steps",
        |storm| {
            for step in STEPS {
                // Of what Redis says only TIME tells its clock, and only it looks like this.
                storm.proxy.set(Fault::Replies(Arc::new(move |_, reply| {
                    let told =
                        reply.strip_prefix(b"*2\r\n$10\r\n").filter(|rest| rest[..10].iter().all(u8::is_ascii_digit));
                    told.map_or_else(
                        || reply.to_vec(),
                        |rest| {
                            let seconds: i64 = std::str::from_utf8(&rest[..10]).unwrap().parse().unwrap();
                            [&reply[..9], (seconds + step).to_string().as_bytes(), &rest[10..]].concat()
                        },
                    )
                })));
                storm.observer.next_poll();
                ages_are_small(storm, SMALL_AGE + step.max(0) as f64);
                let lag = storm.streamlag.json("consumer-lag");
                let oldest = lag["streams"]["events:chat"]["oldest_pending_seconds"].as_f64();
                assert!(oldest.is_none_or(|oldest| oldest >= step as f64), "the clock has not stepped: {lag}");
            }
        },
        |storm| storm.proxy.set(Fault::None),
    );
    assert_eq!(storm.streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0));
}

/// No age is negative, nor older than what there is.
fn ages_are_small(storm: &Storm, most: f64) {
    let lag = storm.streamlag.json("consumer-lag");
    let stream = &lag["streams"]["events:chat"];
    for age in [&lag["age_seconds"], &stream["lag_seconds"], &stream["oldest_pending_seconds"]] {
        // An age is left out where an id cannot be a clock reading.
        assert!(age.as_f64().is_none_or(|age| (0.0..=most).contains(&age)), "{lag}");
    }
    assert!(lag["age_seconds"].is_number(), "{lag}");
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
