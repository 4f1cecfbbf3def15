//! Days of trouble in a short time: streams that change, faults, clients of every kind, reloads, at 50 ms polls. What streamlag
//! takes of the machine has to stay flat after the first tenth. Run by `make soak`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::proxy::{Fault, Proxy};
use crate::common::{Redis, Streamlag, TOKEN, eventually, streamlag_with_env, value_of};

const STREAMS: usize = 12;
const GROUPS: [&str; 3] = ["one", "two", "three"];

/// How much the resident memory may grow from the first third to the last: what the allocator keeps varies by some.
const GROWTH: f64 = 1.10;
const GROWTH_BYTES: f64 = 4e6;

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
                std::thread::sleep(pause);
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

/// One request of a client; how many bytes came back.
fn visit(address: SocketAddr, dice: &mut Dice) -> usize {
    let Ok(mut stream) = TcpStream::connect(address) else { return 0 };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let request = match dice.roll(12) {
        0..5 => "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
        5 => "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n".to_owned(),
        6 => format!("GET /api/v1/events/groups HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"),
        7 => format!("POST /-/reload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"),
        8 => "GET /api/v1/events/health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess\r\nConnection: close\r\n\r\n".to_owned(),
        9 => "nonsense\r\n\r\n".to_owned(),
        // Gone in the middle of its head, or before the answer.
        10 => "GET /metrics HTT".to_owned(),
        _ => "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    if request.contains("close") || request.starts_with("nonsense") {
        let _ = stream.read_to_end(&mut answer);
    }
    answer.len()
}

/// What streamlag takes of the machine: resident bytes, descriptors, threads, tasks.
fn takes(streamlag: &Streamlag) -> Option<[f64; 4]> {
    let page = streamlag.metrics();
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
    let streams = names.join(",");
    let url = proxy.url();
    let arguments = [
        ["--redis.url", &url],
        ["--streams", &streams],
        ["--groups", "*"],
        ["--poll.interval", "50ms"],
        ["--redis.timeout", "200ms"],
        ["--api.rate-limit", "0"],
        ["--log.level", "info"],
    ];
    let arguments = [&arguments.concat()[..], &["--web.enable-lifecycle"]].concat();
    let mut streamlag = streamlag_with_env(&arguments, &[("STREAMLAG_API_TOKEN", TOKEN)]).ready();
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
        samples.extend(takes(&streamlag));
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(troupe);
    let flat = &samples[samples.len() / 10..];
    let (first, last) = (&flat[..flat.len() / 3], &flat[flat.len() * 2 / 3..]);
    let names = ["resident bytes", "descriptors", "threads", "tasks"];
    let (before, after): (Vec<f64>, Vec<f64>) = (0..4).map(|what| (median(first, what), median(last, what))).unzip();
    let polls = ["success", "partial", "failure"].map(|outcome| {
        streamlag.metric(&format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
    });
    println!(
        "soaked for {seconds} s: polls {polls:?} (success, partial, failure), {} MB served",
        bytes.load(Ordering::Relaxed) / 1_000_000
    );
    for (what, name) in names.iter().enumerate() {
        println!("  {name}: {} then {}", before[what], after[what]);
    }
    assert!(after[0] <= before[0] * GROWTH + GROWTH_BYTES, "memory grows");
    for what in 1..4 {
        assert!(after[what] <= before[what] + DIFFERENCE, "{} grow", names[what]);
    }
    assert!(polls[1] + polls[0] > 0.0 && polls[2] > 0.0, "there was no weather: {polls:?}");
    assert_eq!(streamlag.metric("streamlag_panics_total"), Some(0.0));
    eventually("it is well after all", || (streamlag.metric("streamlag_redis_up") == Some(1.0)).then_some(()));
    assert!(streamlag.is_running());
}
