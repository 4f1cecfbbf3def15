//! Clients that mean no good: while each goes on, a scrape still succeeds, and what it took is given back afterwards.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::common::{PATIENCE, Redis, Streamlag, eventually, streamlag};

/// Places that streamlag has for clients: `MAX_CONNECTIONS` of `src/http/admission.rs`.
const PLACES: usize = 1024;

/// Scrapes during each attack.
pub const SCRAPES: usize = 40;

/// Memory that an attack may take, in kilobytes: places at some 100 kB, and what the allocator keeps.
pub const MEMORY_KB: u64 = 200 * 1024;

/// A Redis with enough streams, groups and consumers that the page has a megabyte.
pub fn big_page() -> (Redis, Streamlag) {
    let redis = Redis::start();
    let names: Vec<String> = (0..100).map(|n| format!("stream-{n}")).collect();
    let mut pipe = redis::pipe();
    for name in &names {
        for group in ["one", "two", "three"] {
            pipe.cmd("XGROUP").arg("CREATE").arg(name).arg(group).arg("0").arg("MKSTREAM").ignore();
            for consumer in 0..4 {
                pipe.cmd("XGROUP").arg("CREATECONSUMER").arg(name).arg(group).arg(consumer).ignore();
            }
        }
    }
    pipe.query::<()>(&mut redis.connection()).unwrap();
    let streams = names.join(",");
    let arguments = ["--redis.url", &redis.url(), "--streams", &streams, "--groups", "*", "--poll.interval", "1s"];
    let streamlag = streamlag(&arguments).ready();
    assert!(streamlag.metrics().len() > 500_000);
    (redis, streamlag)
}

/// An attack that goes on until it is dropped.
pub struct Attack {
    ending: Arc<AtomicBool>,
    /// How often it did what it does.
    blows: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// In so many threads, what `make` makes strikes again and again.
    pub fn new<A: FnMut() + Send + 'static>(threads: usize, make: impl Fn(usize) -> A + Send + Sync + 'static) -> Self {
        let (ending, blows, make) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(make));
        let strike = |thread| {
            let (ending, blows, make) = (Arc::clone(&ending), Arc::clone(&blows), Arc::clone(&make));
            std::thread::spawn(move || {
                let mut strike = make(thread);
                while !ending.load(Ordering::Relaxed) {
                    strike();
                    blows.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..threads).map(strike).collect();
        Self { ending, blows, threads }
    }

    pub fn has_struck(&self, blows: u64) {
        eventually("the attack is under way", || (self.blows.load(Ordering::Relaxed) >= blows).then_some(()));
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Scrapes as Prometheus does, and fails where one does not succeed. The times, sorted.
pub fn scrapes(streamlag: &Streamlag) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..SCRAPES)
        .map(|_| {
            let began = Instant::now();
            let reply = streamlag.request("GET", "/metrics", &[]);
            let took = began.elapsed();
            assert_eq!(reply.status, 200, "{:?}", reply.headers);
            let length = reply.header("content-length").unwrap().parse::<usize>().unwrap();
            if reply.body.len() != length {
                let closed = streamlag.metrics();
                let closed: Vec<&str> =
                    closed.lines().filter(|line| line.contains("connections_closed_total{")).collect();
                panic!("a page was cut off after {} of {length} bytes and {took:?}: {closed:#?}", reply.body.len());
            }
            assert!(reply.text().ends_with('\n'), "{:?}", reply.headers);
            took
        })
        .collect();
    times.sort_unstable();
    times
}

pub fn memory_kb(streamlag: &Streamlag) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", streamlag.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Scrapes while `attack` goes on, and after it.
fn withstands(what: &str, blows: u64, attack: impl FnOnce(SocketAddr) -> Attack) {
    let (_redis, mut streamlag) = big_page();
    let peace = scrapes(&streamlag);
    let memory = memory_kb(&streamlag);
    let attack = attack(streamlag.address);
    attack.has_struck(blows);
    let war = scrapes(&streamlag);
    let taken = memory_kb(&streamlag).saturating_sub(memory);
    println!(
        "{what}: scrapes took {:?} at most in peace, {:?} during it (median {:?} and {:?}); {taken} kB of memory, {} blows",
        peace[SCRAPES - 1],
        war[SCRAPES - 1],
        peace[SCRAPES / 2],
        war[SCRAPES / 2],
        attack.blows.load(Ordering::Relaxed),
    );
    assert!(taken < MEMORY_KB, "{what} took {taken} kB");
    drop(attack);
    eventually("its places are free again", || {
        streamlag.metric("streamlag_http_connections").filter(|open| *open <= 5.0)
    });
    assert!(streamlag.is_running() && streamlag.log_lines("panic").is_empty(), "{:?}", streamlag.log());
    assert_eq!(streamlag.log_lines("cannot accept").len(), 0, "{:?}", streamlag.log());
}

/// Connections that are held, and opened anew where streamlag has closed them.
pub struct Held {
    address: SocketAddr,
    streams: Vec<Option<TcpStream>>,
    next: usize,
}

impl Held {
    pub fn new(address: SocketAddr, count: usize) -> Self {
        Self { address, streams: (0..count).map(|_| None).collect(), next: 0 }
    }

    /// Goes to the next connection: `begin` is what a new one says; `go_on` is what an old one does, and whether it is open.
    pub fn strike(&mut self, begin: &[u8], go_on: impl FnOnce(&mut TcpStream) -> bool) {
        self.next = (self.next + 1) % self.streams.len();
        let held = &mut self.streams[self.next];
        if held.as_mut().is_some_and(go_on) {
            return;
        }
        *held = connect(self.address);
        if let Some(stream) = held {
            let _ = stream.write_all(begin);
        }
    }
}

/// Whether the other end has not closed it.
pub fn is_open(stream: &mut TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

#[test]
fn ten_thousand_connections_that_say_nothing() {
    let descriptors = rlimit::increase_nofile_limit(11_000).unwrap();
    let count = usize::try_from(descriptors).unwrap().saturating_sub(500).min(10_000);
    assert!(count > 2 * PLACES, "the limit of file descriptors is {descriptors}: too few to attack with");
    withstands("10,000 silent connections", count as u64, move |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, count);
            move || held.strike(b"", is_open)
        })
    });
}

#[test]
fn heads_that_come_byte_by_byte() {
    withstands("slowloris on 1,500 connections", 3000, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 1500);
            move || {
                held.strike(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ", |stream| {
                    std::thread::sleep(Duration::from_micros(100));
                    stream.write_all(b"a").is_ok()
                });
            }
        })
    });
}

#[test]
fn half_open_connections() {
    withstands("half-open connections", 3000, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 1500);
            move || {
                held.strike(b"GET /metrics HTTP/1.1\r\nHost:", |stream| {
                    let _ = stream.shutdown(Shutdown::Write);
                    is_open(stream)
                });
            }
        })
    });
}

#[test]
fn pipelined_requests_whose_answers_nobody_reads() {
    withstands("pipelining", 200, |address| {
        let requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
        Attack::new(2, move |_| {
            let requests = requests.clone();
            let mut held = Held::new(address, 20);
            move || {
                held.strike(&requests, |stream| match stream.write(&requests) {
                    Ok(written) => written > 0,
                    Err(error) => {
                        std::thread::sleep(Duration::from_millis(1));
                        error.kind() == ErrorKind::WouldBlock
                    }
                });
            }
        })
    });
}

#[test]
fn heads_that_are_too_large() {
    withstands("oversized heads", 500, |address| {
        let head = [&b"GET /metrics HTTP/1.1\r\nX-Big: "[..], &b"a".repeat(64 * 1024)].concat();
        Attack::new(2, move |_| {
            let head = head.clone();
            move || {
                if let Ok(mut stream) = TcpStream::connect(address) {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.write_all(&head);
                    let _ = stream.read(&mut [0; 1024]);
                }
            }
        })
    });
}

#[test]
fn bodies_without_end() {
    withstands("endless bodies", 500, |address| {
        let head = b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = [&b"10000\r\n"[..], &[b'a'; 0x10000], b"\r\n"].concat();
        Attack::new(2, move |_| {
            let chunk = chunk.clone();
            let mut held = Held::new(address, 50);
            move || {
                held.strike(head, |stream| match stream.write(&chunk) {
                    Ok(written) => written > 0,
                    Err(error) => error.kind() == ErrorKind::WouldBlock,
                });
            }
        })
    });
}

#[test]
fn slow_readers_of_a_big_page() {
    withstands("1,200 slow readers", 2400, |address| {
        Attack::new(1, move |_| {
            let mut held = Held::new(address, 1200);
            move || {
                held.strike(
                    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                    |stream| {
                        std::thread::sleep(Duration::from_micros(200));
                        match stream.read(&mut [0; 512]) {
                            Ok(read) => read > 0,
                            Err(error) => error.kind() == ErrorKind::WouldBlock,
                        }
                    },
                );
            }
        })
    });
}

#[test]
fn guesses_without_end() {
    withstands("a flood of guesses", 500, |address| {
        Attack::new(4, move |_| {
            move || {
                if let Ok(mut stream) = TcpStream::connect(address) {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let guess = b"GET /api/v1/events/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\n\r\n";
                    let _ = stream.write_all(guess);
                    let _ = stream.read(&mut [0; 1024]);
                }
            }
        })
    });
}
