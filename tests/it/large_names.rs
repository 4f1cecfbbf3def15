//! Names of any size: shown up to a bound, and not held beyond it.

use std::collections::BTreeSet;

use crate::common::{Redis, Streamlag, eventually, eventually_right};
use sha2::{Digest as _, Sha256};

const MB: usize = 1024 * 1024;

/// Half of what the shipped memory limit is.
const MAX_RESIDENT: u64 = 128 * 1024 * 1024;

/// As a long name is shown.
fn display_name(name: &[u8]) -> String {
    let digest: String = Sha256::digest(name)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}…#{digest}", String::from_utf8_lossy(&name[..256]))
}

fn start(redis: &Redis, arguments: &[&str]) -> Streamlag {
    let url = redis.url_of_everybody();
    // Redis composes an answer of 1.5 GB before it sends any of it, which takes seconds beside other tests.
    let basic = ["--redis.url", &url, "--poll.interval", "200ms", "--redis.timeout", "20s"];
    crate::common::streamlag(&[&basic, arguments].concat()).ready()
}

/// The most memory that the process ever had.
fn peak(streamlag: &Streamlag) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", streamlag.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn name(of: &str, length: usize) -> Vec<u8> {
    let mut name = of.as_bytes().to_vec();
    name.resize(length, b'x');
    name
}

fn read(redis: &Redis, key: &[u8], group: &[u8], consumer: &[u8]) {
    redis.run_bytes(&[b"XREADGROUP", b"GROUP", group, consumer, b"COUNT", b"1", b"STREAMS", key, b">"]);
}

/// Series of the page, each of which must be there once, and the length of the longest line.
fn series(page: &str) -> (BTreeSet<&str>, usize) {
    let mut all = BTreeSet::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        assert!(all.insert(series), "twice: {series}");
    }
    (all, page.lines().map(str::len).max().unwrap())
}

#[test]
fn a_huge_key_a_huge_group_and_a_huge_consumer() {
    for binary in crate::common::servers() {
        let redis = Redis::start_with(&binary, &[]);
        let (key, group, consumer) = (name("s:", 4 * MB), name("g", 6 * MB), name("c", 30 * MB));
        for stream in [&key[..], b"s:1"] {
            redis.run_bytes(&[b"XADD", stream, b"1-0", b"a", b"b"]);
            redis.run_bytes(&[b"XADD", stream, b"2-0", b"a", b"b"]);
            redis.run_bytes(&[b"XGROUP", b"CREATE", stream, b"small", b"0"]);
        }
        redis.run_bytes(&[b"XGROUP", b"CREATE", b"s:1", &group, b"1-0"]);
        // A name that is not held in full, and one that is.
        for long in [name("l", 4097), name("k", 4096)] {
            redis.run_bytes(&[b"XGROUP", b"CREATE", b"s:1", &long, b"0"]);
            read(&redis, b"s:1", &long, b"reader");
        }
        read(&redis, b"s:1", b"small", &consumer);
        let streamlag = start(&redis, &["--streams", "s:*", "--groups", "*"]);
        let page = eventually("both are found", || {
            let page = streamlag.metrics();
            page.contains("stream=\"s:1\"").then_some(page).filter(|page| page.contains("stream=\"s:xx"))
        });
        let (all, longest) = series(&page);
        assert!(longest < 1200 && page.len() < 200_000, "{longest} of {}", page.len());
        let lag = |group: &str| format!("event_consumer_lag{{stream=\"s:1\",consumer_group=\"{group}\"}}");
        let value = |series: &str| crate::common::value_of(&page, series);
        assert_eq!(value(&lag("small")), Some(1.0));
        assert_eq!(value(&lag(&display_name(&group))), Some(1.0));
        for name in [name("l", 4097), name("k", 4096)] {
            assert_eq!(value(&lag(&display_name(&name))), Some(1.0));
        }
        assert_eq!(value(&format!("event_stream_up{{stream=\"{}\"}}", display_name(&key))), Some(0.0));
        let pending = |group: &str, consumer: &str| {
            format!(
                "event_consumer_instance_pending{{stream=\"s:1\",consumer_group=\"{group}\",consumer=\"{consumer}\"}}"
            )
        };
        assert_eq!(value(&pending("small", &display_name(&consumer))), Some(1.0));
        assert_eq!(value(&pending(&display_name(&name("k", 4096)), "reader")), Some(1.0));
        assert!(!all.contains(pending(&display_name(&name("l", 4097)), "reader").as_str()));
        // JSON says the same, and why.
        let lag = streamlag.json("consumer-lag?group=small");
        let error = lag["streams"][display_name(&key)]["error"].as_str().unwrap().to_owned();
        assert_eq!(error, "its name has 4194304 bytes, and Redis is not asked about names of more than 4096");
        assert_eq!(lag["streams"]["s:1"]["lag"], 1);
        assert_eq!(lag["streams"]["s:1"]["consumers"][0], display_name(&consumer).as_str());
        let encoded: String = display_name(&group).bytes().map(|byte| format!("%{byte:02X}")).collect();
        let asked = streamlag.json(&format!("consumer-lag?group={encoded}"));
        assert_eq!(asked["streams"]["s:1"]["lag"], 1);
        let line = eventually("it is logged", || streamlag.log_lines("stream read failed").pop());
        assert!(line.contains(&display_name(&key)) && line.contains(&error) && line.len() < 1000, "{line}");
        eventually("so are the groups", || streamlag.log_lines("group names are too long").pop());
        for _ in 0..5 {
            streamlag.next_sample();
        }
        assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0));
        let peak = peak(&streamlag);
        assert!(peak < MAX_RESIDENT, "{peak} bytes");
    }
}

#[test]
fn more_consumers_names_than_a_sample_may_read() {
    let redis = Redis::start();
    redis.add("s:1", 60);
    redis.add("s:2", 3);
    for stream in ["s:1", "s:2"] {
        redis.run(&format!("XGROUP CREATE {stream} g 0"));
    }
    redis.read("s:2", "g", "reader", 1);
    for number in 0..50 {
        read(&redis, b"s:1", b"g", &name(&number.to_string(), 30 * MB));
    }
    let streamlag = start(&redis, &["--streams", "s:*", "--groups", "*"]);
    let lag =
        |stream: &str| streamlag.metric(&format!("event_consumer_lag{{stream=\"{stream}\",consumer_group=\"g\"}}"));
    eventually_right(|| {
        let lags = (lag("s:1"), lag("s:2"));
        if lags == (Some(10.0), Some(2.0)) { Ok(()) } else { Err(format!("{lags:?} {:?}", streamlag.log())) }
    });
    let failures = streamlag.metric("streamlag_polls_total{outcome=\"failure\"}");
    // The others' consumers are there; of the one stream they are not asked for any more.
    for _ in 0..5 {
        streamlag.next_sample();
        assert_eq!((lag("s:1"), lag("s:2")), (Some(10.0), Some(2.0)));
    }
    assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), failures, "{:?}", streamlag.log());
    let reader = "event_consumer_instance_pending{stream=\"s:2\",consumer_group=\"g\",consumer=\"reader\"}";
    assert_eq!(streamlag.metric(reader), Some(1.0));
    assert!(!streamlag.metrics().contains("stream=\"s:1\",consumer_group=\"g\",consumer="));
    let told = || streamlag.log_lines("exceeds the read limit: its consumers are not read").len();
    eventually("it is logged once", || (told() == 1).then_some(()));
    let peak = peak(&streamlag);
    assert!(peak < MAX_RESIDENT, "{peak} bytes");
}

#[test]
fn more_long_keys_than_one_answer_may_have() {
    let redis = Redis::start();
    for number in 0..40 {
        redis.run_bytes(&[b"XADD", &name(&format!("s:{number}:"), 4 * MB), b"1-0", b"a", b"b"]);
    }
    redis.run("XADD s:1 1-0 a b");
    redis.run("XGROUP CREATE s:1 g 0");
    let streamlag = start(&redis, &["--streams", "s:*", "--groups", "*", "--poll.max-redis-share", "100%"]);
    eventually_right(|| {
        let lag = streamlag.metric("event_consumer_lag{stream=\"s:1\",consumer_group=\"g\"}");
        let streams = streamlag.metric("streamlag_streams");
        if (lag, streams) == (Some(1.0), Some(41.0)) { Ok(()) } else { Err(format!("{lag:?} {streams:?}")) }
    });
    let peak = peak(&streamlag);
    assert!(peak < MAX_RESIDENT, "{peak} bytes");
}
