//! What is held for clients that read is bounded: attacks by clients that do not, under the memory limit of `deploy/`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::memory_limit::{MIB, MemoryLimit};
use crate::common::storm::memory;
use crate::common::{PATIENCE, Redis, Streamlag, TOKEN, eventually, streamlag, value_of};

const STREAMS: usize = 250;
const GROUPS: usize = 10;
const CONSUMERS: usize = 20;

/// Polls during each attack.
const POLLS: usize = 12;

/// Streams whose page has 20 MB, all of which changes with each poll, as consumers grow older.
fn busy() -> Redis {
    let redis = Redis::start();
    let mut connection = redis.connection();
    for stream in 0..STREAMS {
        let key = format!("orders:eu-central-1:tenant-{stream:05}:events");
        let mut pipe = redis::pipe();
        pipe.cmd("XADD").arg(&key).arg("*").arg("n").arg(1).ignore();
        for group in 0..GROUPS {
            let group = format!("fulfilment-service-{group:02}");
            pipe.cmd("XGROUP").arg("CREATE").arg(&key).arg(&group).arg(0).ignore();
            for consumer in 0..CONSUMERS {
                let consumer = format!("fulfilment-7d9f8b6c54-x{consumer:03}");
                pipe.cmd("XGROUP").arg("CREATECONSUMER").arg(&key).arg(&group).arg(consumer).ignore();
            }
        }
        pipe.query::<()>(&mut connection).unwrap();
    }
    redis
}

/// A streamlag under the limit, that has taken what it takes without an attack; and how much that is.
fn at_rest(redis: &Redis, limit: &MemoryLimit) -> (Streamlag, u64) {
    let url = redis.url_of_everybody();
    let arguments = ["--redis.url", &url, "--streams", "orders:*", "--groups", "*", "--poll.interval", "1s"];
    let streamlag = streamlag(&[&arguments[..], &["--redis.timeout", "30s"]].concat());
    limit.hold(streamlag.pid());
    let streamlag = streamlag.ready();
    eventually("all streams are sampled", || {
        (streamlag.metrics().matches("\nevent_stream_length{").count() == STREAMS).then_some(())
    });
    for _ in 0..3 {
        next_poll(&streamlag);
        streamlag.metrics();
        assert_eq!(streamlag.get("/api/v1/events/consumers").status, 200);
    }
    let most = memory(streamlag.pid(), "VmHWM");
    (streamlag, most)
}

/// Waits for another poll, and asks for little meanwhile.
fn next_poll(streamlag: &Streamlag) {
    let sampled_at = || streamlag.get("/api/v1/events/health").json()["sampled_at"].to_string();
    let before = sampled_at();
    eventually("another poll", || (sampled_at() != before).then_some(()));
}

/// A client that asks and does not read.
fn ask(streamlag: &Streamlag, path: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    // Little of the answer is to be with the kernel.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&streamlag.address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").unwrap();
    stream
}

/// Reads an answer to its end at some 10 MB a second; whether all of it came.
fn read_slowly(mut stream: TcpStream) -> bool {
    let mut read = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let began = Instant::now();
    let mut length = None;
    loop {
        let Ok(bytes @ 1..) = stream.read(&mut buffer) else { return false };
        read.extend_from_slice(&buffer[..bytes]);
        let whole = *length.get_or_insert_with(|| {
            let head = String::from_utf8_lossy(&read);
            let length = head.split_once("content-length: ").unwrap().1.split_once("\r\n").unwrap().0;
            head.find("\r\n\r\n").unwrap() + 4 + length.parse::<usize>().unwrap()
        });
        if read.len() >= whole {
            return true;
        }
        let due = Duration::from_secs_f64(read.len() as f64 / 10e6);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
}

/// What is held at the end of an attack is within bounds, and given back.
fn withstood(what: &str, mut streamlag: Streamlag, before: u64, held: Vec<TcpStream>) {
    let after = memory(streamlag.pid(), "VmHWM");
    println!("{what}: {} MiB at most without the attack, {} MiB with it", before / MIB, after / MIB);
    assert!(streamlag.is_running());
    assert!(after < 2 * before, "{} MiB without the attack, {} MiB with it", before / MIB, after / MIB);
    // At the latest for the least rate.
    eventually("somebody who does not read is closed", || {
        let page = streamlag.metrics();
        let closed = ["reader_memory", "slow_reader"]
            .map(|reason| value_of(&page, &format!("streamlag_http_connections_closed_total{{reason=\"{reason}\"}}")));
        (closed.into_iter().flatten().sum::<f64>() >= 1.0).then_some(())
    });
    drop(held);
    eventually("what was held is given back", || {
        (streamlag.metric("streamlag_http_reader_bytes") == Some(0.0)).then_some(())
    });
}

#[test]
fn pages_of_old_polls_that_nobody_reads() {
    let redis = busy();
    let limit = MemoryLimit::of_deployment();
    let (streamlag, before) = at_rest(&redis, &limit);
    let page = streamlag.metrics().len() as u64;
    assert!(page > 15 * MIB, "{page}");
    let mut held = Vec::new();
    let mut readers = Vec::new();
    for poll in 0..POLLS {
        held.extend((0..3).map(|_| ask(&streamlag, "/metrics")));
        if poll % 5 == 4 {
            let reader = ask(&streamlag, "/metrics");
            readers.push(std::thread::spawn(move || read_slowly(reader)));
        }
        next_poll(&streamlag);
    }
    for reader in readers {
        assert!(reader.join().unwrap(), "somebody who reads was closed");
    }
    withstood("slow readers of pages", streamlag, before, held);
}

#[test]
fn json_that_nobody_reads() {
    let redis = busy();
    let limit = MemoryLimit::of_deployment();
    let (streamlag, before) = at_rest(&redis, &limit);
    let mut held = Vec::new();
    // About as often as a token may ask.
    for request in 0..60 {
        let path = ["consumers", "groups", "consumer-lag", "streams"][request % 4];
        let query =
            if request % 8 < 4 { String::new() } else { format!("?group=fulfilment-service-0{}", request % 10) };
        held.push(ask(&streamlag, &format!("/api/v1/events/{path}{query}")));
        std::thread::sleep(Duration::from_millis(100));
    }
    let health = streamlag.get("/api/v1/events/health");
    assert_eq!(health.status, 200, "{health:?}");
    withstood("slow readers of JSON", streamlag, before, held);
}

#[test]
fn json_is_made_once_for_each_poll_but_for_its_age() {
    let redis = Redis::start();
    redis.run("XGROUP CREATE events:chat signalr-consumers 0 MKSTREAM");
    let streamlag = streamlag(&["--redis.url", &redis.url(), "--poll.interval", "1h"]).ready();
    for path in ["consumer-lag", "streams", "health", "groups", "consumers", "logical-streams"] {
        let ask = || {
            let reply = streamlag.get(&format!("/api/v1/events/{path}"));
            let mut json = reply.json();
            let age = json.as_object_mut().unwrap().remove("age_seconds").unwrap().as_f64().unwrap();
            assert_eq!(reply.header("content-length").unwrap().parse::<usize>().unwrap(), reply.body.len());
            (age, json)
        };
        let (age, first) = ask();
        let (later, second) = ask();
        assert!(first == second && later > age, "{path}: {age} {later} {first}");
    }
}
