//! Days of trouble in a short time, at 50 ms polls: streams that change, names that come and go, faults, clients of every kind, slow
//! readers, wrong passwords, reloads, a log that nobody reads for a while. What streamlag takes of the machine has to stay flat after the
//! first tenth. Run by `make soak`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::proxy::{Fault, Proxy};
use crate::common::{Redis, Streamlag, TOKEN, eventually, streamlag_logging_to, value_of};

const STREAMS: usize = 12;
const GROUPS: [&str; 3] = ["one", "two", "three"];

/// How much the resident memory may grow from the first third to the last: what the allocator keeps varies by some.
const GROWTH: f64 = 1.10;
const GROWTH_BYTES: f64 = 4e6;

/// Growth of the resident memory per hour after the first tenth, in MB, from which a run of an hour fails. A shorter run says less: its
/// slope is printed only.
const SLOPE_MB_PER_HOUR: f64 = 1.0;
const SLOPE_NEEDS: Duration = Duration::from_secs(3600);

/// Streams that are there for a moment: each with a group and a consumer of names that are never used again.
const PASSING: u64 = 50;

/// How often those are replaced: 500 streams a second are 1.8 million an hour.
const PASSING_EVERY: Duration = Duration::from_millis(100);

/// How long nobody reads the log at a time. Its pipe holds less than what is logged meanwhile.
const LOG_UNREAD: Duration = Duration::from_secs(30);

/// What the history may take, as configured below: so little that it is full before the memory is first measured, since the names that come
/// and go stay in it until they are two hours old. By default that takes up to 64 MiB, within the two hours.
const HISTORY_BYTES: f64 = 2.0 * 1024.0 * 1024.0;

/// What a client sends that may read the page: base64 of `soak:soak`.
const BASIC: &str = "Basic c29hazpzb2Fr";

/// By how much the medians of descriptors, threads and tasks may differ: clients come and go.
const DIFFERENCE: f64 = 4.0;

/// A source of numbers that looks random and is the same every time (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What goes on beside: each in a thread, again and again until the end.
struct Troupe {
    ended: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Troupe {
    fn play(&mut self, pause: Duration, mut act: impl FnMut() + Send + 'static) {
        let ended = Arc::clone(&self.ended);
        self.threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                act();
                let until = Instant::now() + pause;
                while !ended.load(Ordering::Relaxed) && Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(50).min(pause));
                }
            }
        }));
    }
}

impl Drop for Troupe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One change of the data, of whatever kind.
fn change(connection: &mut redis::Connection, dice: &mut Dice) {
    let stream = format!("stream-{}", dice.roll(STREAMS as u64));
    let group = GROUPS[dice.roll(3) as usize];
    let consumer = format!("consumer-{}", dice.roll(5));
    let words: Vec<String> = match dice.roll(100) {
        0..50 => format!("XADD {stream} MAXLEN ~ 1000 * field {}", "x".repeat(dice.roll(200) as usize + 1)),
        50..75 => format!("XREADGROUP GROUP {group} {consumer} COUNT 7 STREAMS {stream} >"),
        75..85 => format!("XREADGROUP GROUP {group} {consumer} COUNT 7 NOACK STREAMS {stream} >"),
        85..89 => format!("XTRIM {stream} MAXLEN {}", dice.roll(300)),
        89..92 => format!("XGROUP SETID {stream} {group} {}", ["0", "$"][dice.roll(2) as usize]),
        92..95 => format!("XGROUP DELCONSUMER {stream} {group} {consumer}"),
        95..97 => format!("XGROUP DESTROY {stream} {group}"),
        97..99 => format!("XGROUP CREATE {stream} {group} 0 MKSTREAM"),
        _ => format!("DEL {stream}"),
    }
    .split(' ')
    .map(str::to_owned)
    .collect();
    // Groups and streams are missing now and then.
    let _ = redis::cmd(&words[0]).arg(&words[1..]).query::<redis::Value>(connection);
}

/// Deletes the streams that came last, and makes new ones.
fn pass(connection: &mut redis::Connection, made: &mut u64) {
    let mut pipe = redis::pipe();
    for n in made.saturating_sub(PASSING)..*made {
        pipe.cmd("DEL").arg(format!("passing-{n}")).ignore();
    }
    for n in *made..*made + PASSING {
        let (stream, group) = (format!("passing-{n}"), format!("group-{n}"));
        pipe.cmd("XADD").arg(&stream).arg("*").arg("n").arg(n).ignore();
        pipe.cmd("XGROUP").arg("CREATE").arg(&stream).arg(&group).arg(0).ignore();
        pipe.cmd("XREADGROUP").arg("GROUP").arg(&group).arg(format!("consumer-{n}"));
        pipe.arg("STREAMS").arg(&stream).arg(">").ignore();
    }
    *made += PASSING;
    pipe.query::<()>(connection).unwrap();
}

/// A client that asks for the page and hardly reads it.
fn read_slowly(address: SocketAddr) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = socket2::SockRef::from(&stream).set_recv_buffer_size(4096);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
    let _ = write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\n\r\n");
    for _ in 0..30 {
        let _ = stream.read(&mut [0; 64]);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A wrong password or token, from one of many addresses: not from that of those who have the right one, which would be locked out.
fn guess(address: SocketAddr, dice: &mut Dice) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from = SocketAddr::from(([127, 0, 1 + dice.roll(4) as u8, 2 + dice.roll(250) as u8], 0));
    if socket.bind(&from.into()).and_then(|()| socket.connect(&address.into())).is_err() {
        return;
    }
    let mut stream = TcpStream::from(socket);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let guessed = dice.roll(10_000);
    let (path, wrong) = match dice.roll(2) {
        0 => ("/metrics", format!("Basic Z3Vlc3M6{guessed:04}")),
        _ => ("/api/v1/events/health", format!("Bearer guess-{guessed}")),
    };
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {wrong}\r\nConnection: close\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
}

/// One request of a client; how many bytes came back.
fn visit(address: SocketAddr, dice: &mut Dice) -> usize {
    let Ok(mut stream) = TcpStream::connect(address) else { return 0 };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let page = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\n");
    let api = |line: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n")
    };
    let request = match dice.roll(12) {
        0..5 => format!("{page}Connection: close\r\n\r\n"),
        5 => {
            format!("{page}Accept: application/openmetrics-text\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n")
        }
        6 => api("GET /api/v1/events/groups"),
        7 => api("POST /-/reload"),
        8 => api("GET /api/v1/events/health"),
        9 => "nonsense\r\n\r\n".to_owned(),
        // Gone in the middle of its head, or before the answer.
        10 => "GET /metrics HTT".to_owned(),
        _ => format!("{page}\r\n"),
    };
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    if request.contains("close") || request.starts_with("nonsense") {
        let _ = stream.read_to_end(&mut answer);
    }
    answer.len()
}

fn page(streamlag: &Streamlag) -> String {
    streamlag.request("GET", "/metrics", &[("Authorization", BASIC)]).text()
}

/// How steeply values rise with time: by least squares.
fn slope(values: &[(f64, f64)]) -> f64 {
    let count = values.len() as f64;
    let (at, of) = values.iter().fold((0.0, 0.0), |(at, of), (time, value)| (at + time / count, of + value / count));
    let (up, wide) = values.iter().fold((0.0, 0.0), |(up, wide), (time, value)| {
        (up + (time - at) * (value - of), wide + (time - at) * (time - at))
    });
    up / wide
}

/// What streamlag takes of the machine: resident bytes, descriptors, threads, tasks.
fn takes(streamlag: &Streamlag) -> Option<[f64; 4]> {
    let page = page(streamlag);
    let names = ["process_resident_memory_bytes", "process_open_fds", "process_threads", "streamlag_tasks"];
    let values: Option<Vec<f64>> = names.iter().map(|name| value_of(&page, name)).collect();
    values?.try_into().ok()
}

fn median(samples: &[[f64; 4]], what: usize) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(|sample| sample[what]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "takes as long as SOAK_SECONDS says; run by make soak"]
fn what_it_takes_stays_flat() {
    let seconds: u64 =
        std::env::var("SOAK_SECONDS").map_or(120, |seconds| seconds.parse().expect("SOAK_SECONDS: a number"));
    let redis = Redis::start();
    let proxy = Arc::new(Proxy::start(redis.port));
    let names: Vec<String> = (0..STREAMS).map(|n| format!("stream-{n}")).collect();
    let streams = format!("{},passing-*", names.join(","));
    let dir = tempfile::tempdir().unwrap();
    let web = dir.path().join("web.yml");
    std::fs::write(&web, format!("basic_auth_users:\n  soak: {}\n", bcrypt::hash("soak", 4).unwrap())).unwrap();
    let url = proxy.url();
    let arguments = [
        ["--redis.url", &url],
        ["--streams", &streams],
        ["--groups", "*"],
        ["--poll.interval", "50ms"],
        ["--redis.timeout", "200ms"],
        ["--api.rate-limit", "0"],
        ["--log.level", "info"],
        ["--poll.max-redis-share", "100%"],
        ["--discovery.interval", "1s"],
        ["--history.memory", "2MiB"],
        ["--web.config.file", web.to_str().unwrap()],
    ];
    let arguments = [&arguments.concat()[..], &["--web.enable-lifecycle"]].concat();
    let (mut log, stderr) = std::io::pipe().unwrap();
    let mut streamlag = streamlag_logging_to(stderr, &arguments).ready();
    let mut troupe = Troupe { ended: Arc::new(AtomicBool::new(false)), threads: Vec::new() };
    for seed in 1..=2 {
        let (mut connection, mut dice) = (redis.connection(), Dice(seed));
        troupe.play(Duration::from_millis(1), move || change(&mut connection, &mut dice));
    }
    let (address, bytes) = (streamlag.address, Arc::new(AtomicU64::new(0)));
    for seed in 11..=12 {
        let (mut dice, bytes) = (Dice(seed), Arc::clone(&bytes));
        troupe.play(Duration::from_millis(10), move || {
            bytes.fetch_add(visit(address, &mut dice) as u64, Ordering::Relaxed);
        });
    }
    let (mut connection, mut made) = (redis.connection(), 0);
    let passed = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&passed);
    troupe.play(PASSING_EVERY, move || {
        pass(&mut connection, &mut made);
        count.store(made, Ordering::Relaxed);
    });
    for _ in 0..3 {
        troupe.play(Duration::from_millis(100), move || read_slowly(address));
    }
    let mut dice = Dice(31);
    troupe.play(Duration::from_millis(50), move || guess(address, &mut dice));
    let pid = streamlag.pid().to_string();
    troupe.play(Duration::from_secs(5), move || {
        let _ = Command::new("kill").args(["-HUP", &pid]).status();
    });
    let logged = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&logged);
    troupe.play(LOG_UNREAD, move || {
        let read = log.read(&mut [0; 64 * 1024]).unwrap_or_default();
        count.fetch_add(read as u64, Ordering::Relaxed);
    });
    let (weather, mut dice) = (Arc::clone(&proxy), Dice(21));
    troupe.play(Duration::from_millis(700), move || {
        let fault = match dice.roll(8) {
            0 => Fault::Latency(Duration::from_millis(150)),
            1 => Fault::Drip(100),
            2 => Fault::CutMidReply,
            3 => Fault::BlackHole,
            4 => Fault::Reset,
            5 => Fault::HalfOpen,
            6 => Fault::Refuse,
            _ => Fault::None,
        };
        weather.set(fault);
        std::thread::sleep(Duration::from_millis(300));
        weather.set(Fault::None);
    });

    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < Duration::from_secs(seconds) {
        samples.extend(takes(&streamlag).map(|takes| (began.elapsed().as_secs_f64(), takes)));
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(troupe);
    let flat = &samples[samples.len() / 10..];
    let resident: Vec<(f64, f64)> = flat.iter().map(|(at, takes)| (*at, takes[0])).collect();
    let megabytes_per_hour = slope(&resident) * 3600.0 / 1e6;
    let flat: Vec<[f64; 4]> = flat.iter().map(|(_, takes)| *takes).collect();
    let (first, last) = (&flat[..flat.len() / 3], &flat[flat.len() * 2 / 3..]);
    let names = ["resident bytes", "descriptors", "threads", "tasks"];
    let (before, after): (Vec<f64>, Vec<f64>) = (0..4).map(|what| (median(first, what), median(last, what))).unzip();
    let polls = ["success", "partial", "failure"].map(|outcome| {
        value_of(&page(&streamlag), &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
    });
    let counted = |name: &str| value_of(&page(&streamlag), name).unwrap_or_default();
    println!(
        "soaked for {seconds} s: polls {polls:?} (success, partial, failure), {} MB served, {} streams came and went, {} kB of the log read, \
         {} lines dropped",
        bytes.load(Ordering::Relaxed) / 1_000_000,
        passed.load(Ordering::Relaxed),
        logged.load(Ordering::Relaxed) / 1000,
        counted("streamlag_log_lines_dropped_total"),
    );
    println!("  slope of the resident memory after the first tenth: {megabytes_per_hour:.2} MB/h");
    for (what, name) in names.iter().enumerate() {
        println!("  {name}: {} then {}", before[what], after[what]);
    }
    if began.elapsed() >= SLOPE_NEEDS {
        assert!(megabytes_per_hour <= SLOPE_MB_PER_HOUR, "memory grows by {megabytes_per_hour:.2} MB/h");
    }
    assert!(after[0] <= before[0] * GROWTH + GROWTH_BYTES, "memory grows");
    for what in 1..4 {
        assert!(after[what] <= before[what] + DIFFERENCE, "{} grow", names[what]);
    }
    assert!(polls[1] + polls[0] > 0.0 && polls[2] > 0.0, "there was no weather: {polls:?}");
    assert_eq!(counted("streamlag_panics_total"), 0.0);
    let history = counted("streamlag_history_bytes");
    assert!(
        (HISTORY_BYTES / 2.0..=HISTORY_BYTES).contains(&history),
        "{history} bytes of history: to be full and within its bound"
    );
    eventually("it is well after all", || (counted("streamlag_redis_up") == 1.0).then_some(()));
    assert!(streamlag.is_running());
}

#[test]
fn a_slope_is_that_of_a_line_through_the_values() {
    let values: Vec<(f64, f64)> =
        (0..100).map(|n| (f64::from(n), 7.0 + 3.0 * f64::from(n) + f64::from(n % 2))).collect();
    assert!((slope(&values) - 3.0).abs() < 0.01, "{}", slope(&values));
    assert!(slope(&[(0.0, 5.0), (1.0, 5.0), (2.0, 5.0)]).abs() < 1e-9);
}
