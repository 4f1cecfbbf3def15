//! Real outages, real refusals and real signals: the process stays up, serves, says so once, and recovers by itself.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::common::{PATIENCE, Redis, SMALL_AGE, Streamlag, eventually, shows_streams, streamlag, value_of};

const GROUP: &str = "signalr-consumers";

fn example() -> Redis {
    let redis = Redis::start();
    fill(&redis);
    redis
}

fn fill(redis: &Redis) {
    redis.run(&format!("XGROUP CREATE events:chat {GROUP} 0 MKSTREAM"));
    redis.add("events:chat", 20);
    redis.read("events:chat", GROUP, "instance-1", 5);
}

fn watch(redis: &Redis, arguments: &[&str]) -> Streamlag {
    let url = redis.url();
    let mut all = vec!["--redis.url", url.as_str(), "--streams", "events:chat"];
    all.extend(arguments);
    streamlag(&all)
}

fn up(streamlag: &Streamlag) -> Option<()> {
    (streamlag.metric("streamlag_redis_up") == Some(1.0)).then_some(())
}

fn down(streamlag: &Streamlag) -> Option<()> {
    (streamlag.metric("streamlag_redis_up") == Some(0.0)).then_some(())
}

/// While Redis does not answer, and once the last sample is too old: everything is served and nothing is claimed.
fn serves_without_redis(streamlag: &Streamlag, error: &str) {
    eventually("the last sample is no longer shown", || (!shows_streams(&streamlag.metrics())).then_some(()));
    assert_eq!(streamlag.get("/-/healthy").status, 200);
    assert_eq!(streamlag.get("/-/ready").status, 200);
    let health = streamlag.get("/api/v1/events/health");
    assert_eq!(health.status, 503);
    assert!(health.header("retry-after").is_some());
    let health = health.json();
    assert_eq!((&health["status"], &health["redis_connected"]), (&"unhealthy".into(), &false.into()));
    assert_eq!(health["streams"]["unknown"], 1);
    let lag = streamlag.get("/api/v1/events/consumer-lag");
    assert_eq!(lag.status, 200);
    let lag = lag.json();
    let stream = &lag["streams"]["events:chat"];
    assert_eq!((&stream["lag"], &stream["status"], &lag["total_lag"]), (&(-1).into(), &"unknown".into(), &0.into()));
    eventually(error, || {
        let lag = streamlag.json("consumer-lag");
        lag["streams"]["events:chat"]["error"].as_str().unwrap().contains(error).then_some(())
    });
}

fn shows_the_example(streamlag: &Streamlag) {
    eventually("the stream is shown", || {
        streamlag.metric("event_stream_length{stream=\"events:chat\"}").filter(|length| *length == 20.0)
    });
    assert_eq!(streamlag.get("/api/v1/events/health").status, 200);
    // A poll may have come between the adding and the reading.
    eventually("what was read is shown", || {
        (streamlag.json("consumer-lag")["streams"]["events:chat"]["pending"] == 5).then_some(())
    });
}

/// Each change is said once, however many polls it lasted.
fn said_once(streamlag: &Streamlag, reason: &str) {
    let down = streamlag.log_lines("msg=\"poll failed\"");
    assert_eq!(down.len(), 1, "{:?}", streamlag.log());
    assert!(down[0].contains(&format!("reason={reason}")), "{down:?}");
    assert_eq!(streamlag.log_lines("msg=\"poll succeeded again\"").len(), 1, "{:?}", streamlag.log());
    assert!(streamlag.metric(&format!("streamlag_poll_failures_total{{reason=\"{reason}\"}}")).unwrap() >= 1.0);
}

#[test]
fn redis_absent_at_the_start() {
    let mut redis = Redis::start();
    redis.stop();
    let streamlag = watch(&redis, &[]).ready();
    serves_without_redis(&streamlag, "refused");
    assert_eq!(streamlag.metric("streamlag_last_successful_poll_timestamp_seconds"), Some(0.0));
    assert_eq!(streamlag.json("consumer-lag")["sampled_at"], serde_json::Value::Null);
    redis.launch(&[]);
    redis.wait();
    fill(&redis);
    eventually("Redis is up", || up(&streamlag));
    shows_the_example(&streamlag);
    said_once(&streamlag, "connect");
}

#[test]
fn redis_stopped_and_started_again() {
    let mut redis = example();
    // An interval long enough to look at what is shown while the last sample is still fresh.
    let streamlag = watch(&redis, &["--poll.interval", "1s"]).ready();
    shows_the_example(&streamlag);
    redis.stop();
    eventually("Redis is down", || down(&streamlag));
    let page = streamlag.metrics();
    if shows_streams(&page) {
        assert_eq!(value_of(&page, "event_stream_length{stream=\"events:chat\"}"), Some(20.0));
    }
    assert_eq!(streamlag.get("/api/v1/events/health").status, 503);
    serves_without_redis(&streamlag, "");
    assert!(streamlag.json("consumer-lag")["age_seconds"].as_f64().unwrap() >= 3.0);
    redis.launch(&[]);
    redis.wait();
    fill(&redis);
    shows_the_example(&streamlag);
    assert_eq!(streamlag.log_lines("msg=\"poll succeeded again\"").len(), 1, "{:?}", streamlag.log());
}

#[test]
fn a_kept_connection_that_broke_is_no_outage() {
    let redis = example();
    let streamlag = watch(&redis, &["--poll.interval", "500ms"]).ready();
    for _ in 0..5 {
        redis.run("CLIENT KILL TYPE normal SKIPME yes");
        streamlag.next_sample();
    }
    shows_the_example(&streamlag);
    // A kill in the middle of a connection being made is a failure, and none was hit: they come between polls.
    assert!(streamlag.metric("streamlag_redis_commands_total{command=\"hello\"}").unwrap() >= 6.0);
    assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{:?}", streamlag.log());
}

#[test]
fn redis_slow_past_the_deadline() {
    let redis = example();
    let streamlag = watch(&redis, &["--redis.timeout", "2s"]).ready();
    shows_the_example(&streamlag);
    // It pauses CLIENT UNPAUSE as well, so it has to end by itself.
    redis.run("CLIENT PAUSE 10000 ALL");
    eventually("Redis is down", || down(&streamlag));
    serves_without_redis(&streamlag, "within 2s");
    shows_the_example(&streamlag);
    said_once(&streamlag, "timeout");
}

#[test]
fn redis_frozen_in_the_middle_of_a_poll_whose_deadline_is_far() {
    let redis = example();
    let streamlag = watch(&redis, &["--redis.timeout", "1h"]).ready();
    shows_the_example(&streamlag);
    redis.signal("-STOP");
    // No poll ends, and still the old numbers go. Not one page says that Redis is up and shows no lag.
    let look = || {
        let page = streamlag.metrics();
        let (shown, up) = (page.contains("\nevent_consumer_lag{"), value_of(&page, "streamlag_redis_up"));
        assert!(shown || up == Some(0.0), "{page}");
        shown
    };
    eventually("the last sample is no longer shown", || (!look()).then_some(()));
    assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "a poll has ended");
    let lag = streamlag.json("consumer-lag");
    assert_eq!(lag["streams"]["events:chat"]["lag"], -1);
    let health = streamlag.get("/api/v1/events/health");
    assert_eq!((health.status, &health.json()["redis_connected"]), (503, &false.into()));
    assert!(health.json()["error"].as_str().unwrap().contains("not answered for too long"), "{health:?}");
    assert_eq!(streamlag.get("/api/v1/targets").json()["targets"][0]["up"], false);
    redis.signal("-CONT");
    eventually("the lag is shown", || look().then_some(()));
    shows_the_example(&streamlag);
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
}

#[test]
fn redis_loading_its_data() {
    let mut redis = example();
    redis.run("CONFIG SET rdbcompression no");
    for key in 0..300 {
        redis.run(&format!("SET key:{key} {}", "v".repeat(2000)));
    }
    let streamlag = watch(&redis, &[]).ready();
    shows_the_example(&streamlag);
    redis.run("SAVE");
    redis.stop();
    // A tenth of a second a key, and a look at its clients after each: as slow as a big data set.
    redis.launch(&["--key-load-delay", "100000", "--loading-process-events-interval-bytes", "1024"]);
    let loading = "streamlag_poll_failures_total{reason=\"loading\"}";
    eventually("Redis is loading", || streamlag.metric(loading).filter(|failures| *failures >= 1.0));
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(0.0));
    serves_without_redis(&streamlag, "LOADING");
    redis.stop();
    redis.launch(&[]);
    shows_the_example(&streamlag);
}

#[test]
fn a_wrong_password_and_none_at_all() {
    let redis = example();
    redis.run("CONFIG SET requirepass right");
    let wrong = format!("redis://:wr0ng@127.0.0.1:{}", redis.port);
    let none = redis.url_of_everybody();
    let streamlags = [none, wrong].map(|url| streamlag(&["--redis.url", &url, "--streams", "events:chat"]));
    for streamlag in &streamlags {
        let auth = "streamlag_poll_failures_total{reason=\"auth\"}";
        eventually("Redis refuses", || streamlag.metric(auth).filter(|failures| *failures >= 1.0));
        serves_without_redis(streamlag, "");
    }
    let mut connection =
        redis::Client::open(format!("redis://:right@127.0.0.1:{}", redis.port)).unwrap().get_connection().unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("wr0ng").exec(&mut connection).unwrap();
    shows_the_example(&streamlags[1]);
    said_once(&streamlags[1], "auth");
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("").exec(&mut connection).unwrap();
    shows_the_example(&streamlags[0]);
    said_once(&streamlags[0], "auth");
    assert!(streamlags[1].log_lines("wr0ng").is_empty());
}

#[test]
fn one_refused_command_costs_only_what_it_tells() {
    let redis = example();
    let streamlag = watch(&redis, &[]).ready();
    let series = [
        ("XPENDING", "xpending", "event_consumer_group_oldest_pending_seconds{"),
        ("XINFO CONSUMERS", "xinfo|consumers", "event_consumer_instance_pending{"),
        ("XRANGE", "xrange", "event_consumer_lag_seconds{"),
    ];
    for (command, grant, series) in series {
        eventually(series, || streamlag.metrics().contains(series).then_some(()));
        redis.run(&format!("ACL SETUSER streamlag -{grant}"));
        // A cursor that moves, so that XRANGE is asked again.
        redis.read("events:chat", GROUP, "instance-1", 1);
        eventually("the series goes", || (!streamlag.metrics().contains(series)).then_some(()));
        let page = streamlag.metrics();
        assert_eq!(value_of(&page, "streamlag_redis_up"), Some(1.0));
        assert_eq!(value_of(&page, "event_stream_up{stream=\"events:chat\"}"), Some(1.0));
        assert!(page.contains("event_consumer_lag{") && page.contains("event_consumer_group_pending{"));
        assert_eq!(streamlag.log_lines("command refused").len(), 1, "{:?}", streamlag.log());
        redis.run(&format!("ACL SETUSER streamlag +{grant}"));
        redis.read("events:chat", GROUP, "instance-1", 1);
        eventually("the series comes back", || streamlag.metrics().contains(series).then_some(()));
        let again = format!("msg=\"Redis command allowed again\" command={command}");
        let again_quoted = format!("msg=\"Redis command allowed again\" command=\"{command}\"");
        let lines = || streamlag.log().into_iter().filter(|l| l.contains(&again) || l.contains(&again_quoted)).count();
        eventually("it is said", || (lines() == 1).then_some(()));
        streamlag.log_clear();
    }
    redis.run("ACL SETUSER streamlag -time");
    eventually("the refusal is said", || (streamlag.log_lines("command=TIME").len() == 1).then_some(()));
    shows_ages_by_the_local_clock(&streamlag);
}

fn shows_ages_by_the_local_clock(streamlag: &Streamlag) {
    let oldest = streamlag.json("consumer-lag")["streams"]["events:chat"]["oldest_pending_seconds"].as_f64().unwrap();
    assert!((0.0..SMALL_AGE).contains(&oldest), "{oldest}");
}

#[test]
fn a_refused_essential_command_or_key_makes_the_stream_unreadable() {
    let redis = example();
    let streamlag = watch(&redis, &[]).ready();
    for (refused, back) in
        [("-xinfo|stream", "+xinfo|stream"), ("-xinfo|groups", "+xinfo|groups"), ("resetkeys ~other:*", "~events:*")]
    {
        shows_the_example(&streamlag);
        redis.run(&format!("ACL SETUSER streamlag {refused}"));
        eventually("the stream cannot be read", || {
            streamlag.metric("event_stream_up{stream=\"events:chat\"}").filter(|up| *up == 0.0)
        });
        let lag = streamlag.json("consumer-lag");
        let stream = &lag["streams"]["events:chat"];
        assert_eq!(stream["lag"], -1, "{refused}: {stream}");
        assert!(stream["error"].as_str().unwrap().contains("NOPERM"), "{refused}: {stream}");
        assert_eq!(streamlag.json("health")["redis_connected"], true, "{refused}");
        redis.run(&format!("ACL SETUSER streamlag {back}"));
    }
    shows_the_example(&streamlag);
}

#[test]
fn answers_that_are_none() {
    // No real server can be made to talk nonsense.
    let junk = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", junk.local_addr().unwrap());
    let answers: [&'static [u8]; 4] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+OK\r\n", b"*1000000000\r\n", b"$-5\r\n"];
    std::thread::spawn(move || {
        for (connection, answer) in junk.incoming().zip(answers.into_iter().cycle()) {
            let mut connection = connection.unwrap();
            let _ = connection.write_all(answer);
        }
    });
    let mut streamlag = streamlag(&["--redis.url", &url, "--redis.timeout", "100ms"]).ready();
    let failures = "streamlag_polls_total{outcome=\"failure\"}";
    eventually("each answer was met", || streamlag.metric(failures).filter(|failures| *failures >= 12.0));
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(0.0));
    assert!(streamlag.is_running());
    assert!(streamlag.log_lines("panicked").is_empty(), "{:?}", streamlag.log());
}

#[test]
fn signals_finish_what_is_in_flight_and_end_with_0() {
    let redis = example();
    for name in ["-TERM", "-INT"] {
        let mut streamlag = watch(&redis, &[]).ready();
        let mut in_flight = half_a_request(&streamlag);
        let mut idle = TcpStream::connect(streamlag.address).unwrap();
        idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("the idle connection was answered", || (idle.read(&mut [0; 1024]).unwrap() > 0).then_some(()));
        streamlag.signal(name);
        eventually("it is not ready", || (streamlag.get("/-/ready").status == 503).then_some(()));
        assert_eq!(streamlag.get("/-/healthy").status, 200);
        // A kept connection that is idle does not hold it up.
        idle.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(idle.read(&mut [0; 1024]).unwrap(), 0);
        assert!(streamlag.is_running());
        in_flight.write_all(b"\r\n").unwrap();
        let mut answer = String::new();
        in_flight.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("streamlag is healthy\n"), "{answer}");
        assert_eq!(streamlag.wait(), Some(0));
        assert!(TcpStream::connect(streamlag.address).is_err());
        assert!(streamlag.log_lines("level=error").is_empty(), "{:?}", streamlag.log());
    }
}

#[test]
fn a_second_signal_ends_it_now() {
    let redis = example();
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut streamlag = watch(&redis, &[]).ready();
        let _in_flight = half_a_request(&streamlag);
        streamlag.signal("-TERM");
        eventually("it is ending", || (!streamlag.log_lines("msg=\"shutting down").is_empty()).then_some(()));
        streamlag.signal(name);
        assert_eq!(streamlag.wait(), Some(code));
    }
}

/// A connection whose request has begun and not ended.
fn half_a_request(streamlag: &Streamlag) -> TcpStream {
    let mut connection = TcpStream::connect(streamlag.address).unwrap();
    connection.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n").unwrap();
    // Connections are accepted in their order: once a later one is answered, this one is being read.
    assert_eq!(streamlag.get("/-/healthy").status, 200);
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection
}
