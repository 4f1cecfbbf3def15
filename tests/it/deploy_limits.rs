//! The memory limits in `deploy/` hold for the sizes that the documents promise for them. Measured is the most memory that the process ever
//! had (`VmHWM`), which is what the kernel's limit ends it for. Beside honest readers there are slow ones, and what the history has not
//! taken yet of its bound is added.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use crate::common::storm::memory;
use crate::common::{Redis, Streamlag, TOKEN, eventually_right, streamlag};

const MIB: u64 = 1 << 20;

/// Streams and consumers that are made with one round trip.
const PIPELINED: usize = 1000;

/// Clients that begin to read with each poll, and read no more than the kernel takes in for them.
const SLOW_READERS: usize = 10;

/// What the history takes at most, by default.
const HISTORY: u64 = 64 * MIB;

fn deployed(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)).unwrap()
}

/// The limit of the Kubernetes deployment, in bytes.
fn kubernetes() -> u64 {
    let manifest = deployed("helm/streamlag/values.yaml");
    let memory = manifest.split_once("limits: {memory: ").unwrap().1.split_once("Mi}").unwrap().0;
    memory.parse::<u64>().unwrap() * MIB
}

/// The limit of the systemd unit, in bytes.
fn systemd() -> u64 {
    let unit = deployed("systemd/streamlag.service");
    let memory = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")).unwrap();
    memory.strip_suffix('M').unwrap().parse::<u64>().unwrap() * MIB
}

/// Makes streams with an entry each, groups of each, and consumers of each group that hold it.
fn fill(redis: &Redis, streams: usize, groups: usize, consumers: usize) {
    let mut connection = redis.connection();
    let mut pipe = redis::pipe();
    let mut queued = 0;
    for stream in 0..streams {
        let key = format!("events:{stream:05}");
        pipe.cmd("XADD").arg(&key).arg("*").arg("n").arg(1).ignore();
        for group in 0..groups {
            let group = format!("group-{group:02}");
            pipe.cmd("XGROUP").arg("CREATE").arg(&key).arg(&group).arg(0).ignore();
            for consumer in 0..consumers {
                let consumer = format!("consumer-{consumer:06}");
                pipe.cmd("XGROUP").arg("CREATECONSUMER").arg(&key).arg(&group).arg(consumer).ignore();
                queued += 1;
                if queued % PIPELINED == 0 {
                    std::mem::replace(&mut pipe, redis::pipe()).query::<()>(&mut connection).unwrap();
                }
            }
        }
    }
    // Of what is left there may be nothing.
    pipe.cmd("PING").ignore();
    pipe.query::<()>(&mut connection).unwrap();
}

/// Half of them ask for the page and half for JSON.
fn slow_readers(address: SocketAddr) -> Vec<TcpStream> {
    let paths = ["/metrics", "/api/v1/events/consumers"].into_iter().cycle().take(SLOW_READERS);
    paths
        .map(|path| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect()
}

/// Runs until everything is sampled, then through some polls that all change, each read in every form. The most memory that it took.
fn most_memory(what: &str, redis: &Redis, streams: usize, arguments: &[&str]) -> u64 {
    let url = redis.url_of_everybody();
    let common = [
        ["--redis.url", &url],
        ["--streams", "events:*"],
        ["--groups", "*"],
        ["--poll.interval", "1s"],
        ["--redis.timeout", "30s"],
        ["--discovery.interval", "1s"],
    ];
    let streamlag = streamlag(&[&common.concat()[..], arguments].concat()).ready();
    let shown = |streamlag: &Streamlag| streamlag.metrics().matches("\nevent_stream_length{").count();
    eventually_right(|| {
        if shown(&streamlag) == streams {
            Ok(())
        } else {
            Err(format!("{} streams: {:?}", shown(&streamlag), streamlag.log()))
        }
    });
    let keys: Vec<String> = (0..streams).map(|stream| format!("events:{stream:05}")).collect();
    let mut unread = Vec::new();
    for _ in 0..5 {
        unread.extend(slow_readers(streamlag.address));
        let mut pipe = redis::pipe();
        for key in &keys {
            pipe.cmd("XADD").arg(key).arg("*").arg("n").arg(1).ignore();
        }
        pipe.query::<()>(&mut redis.connection()).unwrap();
        streamlag.next_sample();
        assert!(streamlag.metrics().contains("streamlag_redis_up 1"));
        let packed = streamlag.request("GET", "/metrics", &[("Accept-Encoding", "gzip")]);
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert_eq!(streamlag.get("/api/v1/events/consumer-lag").status, 200);
    }
    assert_eq!(streamlag.metric("streamlag_polls_total{outcome=\"failure\"}"), Some(0.0), "{:?}", streamlag.log());
    let history = streamlag.metric("streamlag_history_bytes").unwrap() as u64;
    let most = memory(streamlag.pid(), "VmHWM") + HISTORY.saturating_sub(history);
    println!("{what}: {} MiB at most, {} MiB of it history to come", most / MIB, (HISTORY - history) / MIB);
    most
}

#[test]
fn ten_thousand_streams_within_the_limit_of_the_systemd_unit() {
    let redis = Redis::start();
    fill(&redis, 10_000, 2, 3);
    let most = most_memory("10,000 streams", &redis, 10_000, &[]);
    assert!(most <= systemd(), "{} MiB", most / MIB);
}

#[test]
fn busy_streams_within_the_limit_of_the_deployment() {
    let redis = Redis::start();
    fill(&redis, 250, 10, 20);
    let most = most_memory("250 streams, 10 groups, 20 consumers", &redis, 250, &[]);
    assert!(most <= kubernetes(), "{} MiB", most / MIB);
}

#[test]
fn a_hundred_thousand_consumers_within_the_limit_of_the_deployment() {
    let redis = Redis::start();
    fill(&redis, 1, 1, 100_000);
    let most = most_memory("100,000 consumers", &redis, 1, &[]);
    assert!(most <= kubernetes(), "{} MiB", most / MIB);
}
