//! Bad days: consumers are killed, paused and renamed, entries are deleted under them, two streamlags act at once, and are killed at any
//! moment. No entry may be lost, no living consumer deleted, and nothing written without an intent.
//!
//! `make bad-days` takes hours of it: `STREAMLAG_BAD_DAYS` is how many seconds each server gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::Value as Reply;
use serde_json::json;

use crate::common::monitor::Monitor;
use crate::common::remedy::{Office, grant_all};
use crate::common::{Redis, Streamlag, servers};

/// Seconds of the short form, over all servers together.
const SHORT: u64 = 20;

const RUNS: u8 = 0;
const PAUSED: u8 = 1;
const KILLED: u8 = 2;

/// Small, and the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A consumer: reads, waits, acknowledges. Killed, it never comes back under its name.
struct Consumer {
    name: String,
    state: Arc<AtomicU8>,
    thread: JoinHandle<()>,
}

impl Consumer {
    fn start(redis: &Redis, name: String, processed: &Arc<Mutex<BTreeSet<String>>>) -> Self {
        let state = Arc::new(AtomicU8::new(RUNS));
        let (told, client, own, done) = (Arc::clone(&state), redis.client(), name.clone(), Arc::clone(processed));
        let thread = std::thread::spawn(move || {
            let mut connection = client.get_connection().unwrap();
            while told.load(Ordering::Relaxed) != KILLED {
                let mut read = redis::cmd("XREADGROUP");
                read.arg("GROUP").arg("g").arg(&own).arg("COUNT").arg(2).arg("STREAMS").arg("orders").arg(">");
                let ids = ids(&read.query::<Reply>(&mut connection).unwrap());
                std::thread::sleep(Duration::from_millis(120));
                // Between reading and acknowledging is the worst moment for either.
                while told.load(Ordering::Relaxed) == PAUSED {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if told.load(Ordering::Relaxed) == KILLED {
                    return;
                }
                for id in ids {
                    done.lock().unwrap().insert(id.clone());
                    redis::cmd("XACK").arg("orders").arg("g").arg(id).query::<i64>(&mut connection).unwrap();
                }
            }
        });
        Self { name, state, thread }
    }
}

/// Everything in an answer that looks like an id.
fn ids(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Array(items) => items.iter().flat_map(ids).collect(),
        Reply::BulkString(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            let is_id = text.split_once('-').is_some_and(|(ms, seq)| {
                !ms.is_empty()
                    && !seq.is_empty()
                    && [ms, seq].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
            });
            if is_id { vec![text] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

fn start(office: &Office, redis: &Redis) -> Streamlag {
    let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
    let to = json!({"stream": "orders:dead", "deliveries": 3, "idle": "500ms"});
    let budget = json!({"acts_per_hour": 1000, "entries_per_act": 50});
    let rules =
        json!([{"stream": "*", "group": "*", "mode": "auto", "actions": actions, "budget": budget, "dead_letter": to}]);
    office.start(&redis.url(), &rules, &json!({}))
}

fn day(redis: &Redis, length: Duration, seed: u64) {
    let mut random = Random(seed);
    redis.add_old("orders", 40);
    redis.run("XGROUP CREATE orders g 0");
    grant_all(redis);
    let processed = Arc::new(Mutex::new(BTreeSet::new()));
    let (ends, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let watching = {
        let (ends, written, mut monitor) = (Arc::clone(&ends), Arc::clone(&written), Monitor::start(redis));
        std::thread::spawn(move || {
            loop {
                let next = monitor.next();
                if next.client == "lua" {
                    written.lock().unwrap().push(next.words);
                } else if ends.load(Ordering::Relaxed) && next.words.contains("the-day-is-over") {
                    return;
                }
            }
        })
    };
    let mut names = 0;
    let mut hire = |redis: &Redis| {
        names += 1;
        Consumer::start(redis, format!("c{names}"), &processed)
    };
    let mut consumers: Vec<Consumer> = (0..5).map(|_| hire(redis)).collect();
    let (mut killed, mut threads, mut deleted) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    let offices = [Office::new(), Office::new()];
    let mut exporters: Vec<Streamlag> = offices.iter().map(|office| start(office, redis)).collect();
    let mut all: BTreeSet<String> = ids(&redis.run("XRANGE orders - +")).into_iter().collect();
    let begun = Instant::now();
    while begun.elapsed() < length {
        for _ in 0..6 {
            all.extend(ids(&redis.run("XADD orders * n 1")));
        }
        match random.below(20) {
            0 | 1 if killed.len() < 40 => {
                let at = random.below(consumers.len() as u64) as usize;
                let gone = std::mem::replace(&mut consumers[at], hire(redis));
                gone.state.store(KILLED, Ordering::Relaxed);
                killed.insert(gone.name);
                threads.push(gone.thread);
            }
            2 => consumers[0].state.store(PAUSED, Ordering::Relaxed),
            3 => consumers[0].state.store(RUNS, Ordering::Relaxed),
            4 => {
                // Deleted under whoever holds it: what is gone by this is not lost by an act.
                let held = ids(&redis.run("XPENDING orders g - + 2"));
                if let Some(id) = held.first() {
                    redis.run(&format!("XDEL orders {id}"));
                    deleted.insert(id.clone());
                }
            }
            5 => {
                let held = ids(&redis.run("XPENDING orders g - + 1"));
                let owner = held.first().map(|id| (id, redis.run(&format!("XPENDING orders g {id} {id} 1"))));
                if let Some((id, Reply::Array(entries))) = owner
                    && let Some(Reply::Array(entry)) = entries.first()
                    && let Ok(owner) = redis::from_redis_value::<String>(entry[1].clone())
                    && killed.contains(&owner)
                {
                    // It has failed before.
                    redis.run(&format!("XCLAIM orders g {owner} 0 {id} IDLE 5000 RETRYCOUNT 3 JUSTID"));
                }
            }
            6 => {
                let at = random.below(2) as usize;
                exporters[at].signal("-KILL");
                exporters[at].wait();
                exporters[at] = start(&offices[at], redis);
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(exporters);
    for consumer in consumers {
        consumer.state.store(KILLED, Ordering::Relaxed);
        threads.push(consumer.thread);
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    ends.store(true, Ordering::Relaxed);
    redis.run("ECHO the-day-is-over");
    watching.join().unwrap();

    let found = |command: &str| -> BTreeSet<String> { ids(&redis.run(command)).into_iter().collect() };
    let (pending, letters) = (found("XPENDING orders g - + 100000"), found("XRANGE orders:dead - +"));
    let undelivered = found("XREADGROUP GROUP g last COUNT 100000 STREAMS orders >");
    let processed = processed.lock().unwrap().clone();
    let accounted =
        |id: &&String| [&processed, &pending, &letters, &undelivered, &deleted].iter().any(|place| place.contains(*id));
    let lost: Vec<&String> = all.iter().filter(|id| !accounted(id)).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
    let written = written.lock().unwrap();
    let of = |word: &str| {
        written.iter().filter(|words| words.to_uppercase().starts_with(&format!("\"{word}\""))).collect::<Vec<_>>()
    };
    for words in of("XGROUP") {
        let name = words.rsplit('"').nth(1).unwrap();
        assert!(killed.contains(name), "seed {seed}: a living consumer was deleted: {words}");
    }
    let mut done: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for office in &offices {
        let audit = office.audit();
        for record in audit.iter().filter(|record| record["kind"] == "outcome") {
            let (changed, unknown) = done.entry(record["action"].as_str().unwrap().to_owned()).or_default();
            *changed += record["changed"].as_u64().unwrap_or(0);
            // The last intent of one that was killed has no outcome before its next start.
            *unknown += u64::from(record["outcome"] == "unknown");
        }
        let open = audit.iter().filter(|record| record["kind"] == "intent").count()
            - audit.iter().filter(|record| record["kind"] == "outcome").count();
        assert!(open <= 1, "seed {seed}: {open} acts without an outcome");
    }
    let of_record = |action: &str| done.get(action).copied().unwrap_or_default();
    for (action, word) in [("delete_idle_consumers", "XGROUP"), ("release", "XCLAIM"), ("dead_letter", "XADD")] {
        let (changed, unknown) = of_record(action);
        let (writes, most) = (of(word).len() as u64, changed + 50 * (unknown + 2));
        assert!(
            (changed..=most).contains(&writes),
            "seed {seed}: {writes} {word}, on record {changed} and {unknown} unknown"
        );
        println!("seed {seed}: {action}: {changed} on record, {unknown} unknown, {writes} written");
    }
}

#[test]
fn no_entry_is_lost_and_nothing_is_done_off_the_record() {
    let servers = servers();
    let seconds: Option<u64> = std::env::var("STREAMLAG_BAD_DAYS").ok().and_then(|text| text.parse().ok());
    let each = Duration::from_secs(seconds.unwrap_or(SHORT / servers.len() as u64).max(4));
    for (seed, server) in (1..).zip(&servers) {
        day(&Redis::start_with(server, &[]), each, seed);
    }
}
