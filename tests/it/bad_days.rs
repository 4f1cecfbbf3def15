//! Bad days: consumers are killed, paused, resumed, renamed and scaled, entries are deleted and trimmed under them, masters die, two
//! streamlags act at once, one of them by another clock, and are killed at every step of an act. No entry may be lost, no living consumer
//! deleted, and nothing written that is not on record.
//!
//! `make bad-days` takes hours of it: `STREAMLAG_BAD_DAYS` is how many seconds each place gets.

mod consumer;
mod place;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::Value as Reply;
use serde_json::json;

use crate::common::clock::Clock;
use crate::common::gate::{DELAYS_ACT, DROPS_ACT, Gate, HOLDS_ANSWER, OPEN, caught_within};
use crate::common::remedy::{Office, board};
use crate::common::{Streamlag, eventually, servers};
use crate::faults::host::STEPS;
use consumer::{Consumer, KILLED, PAUSED, RENAMED, RETIRES, RUNS, Work};
use place::{Kind, Place, Ports};
use record::{OVER, Seen};

/// What is watched, and where dead letters go: in one slot of a cluster.
const STREAM: &str = "events:{orders}";
const DEAD: &str = "events:{orders}:dead";

/// When a consumer counts as dead, as [`crate::common::remedy::SOON`] has it.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Seconds of a day: of the one that each place has in the short form, and of each in the long form.
const SHORT_DAY: Duration = Duration::from_secs(6);
const LONG_DAY: Duration = Duration::from_secs(20);

/// Days at a time in the short form: two cores have enough of it.
const AT_A_TIME: usize = 4;

/// How long an act is waited for that is to be caught.
const CATCH: Duration = Duration::from_millis(800);

/// Small, and the same for a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % end as u64).unwrap()
    }
}

fn number(id: &str) -> Option<(u64, u64)> {
    let (ms, seq) = id.split_once('-')?;
    Some((ms.parse().ok()?, seq.parse().ok()?))
}

/// Ids of the entries in an answer that have their payload.
fn entries(reply: &Reply) -> Vec<String> {
    let Reply::Array(items) = reply else { return Vec::new() };
    if let [Reply::BulkString(id), Reply::Array(_)] = &items[..]
        && let Ok(id) = std::str::from_utf8(id)
        && number(id).is_some()
    {
        return vec![id.to_owned()];
    }
    items.iter().flat_map(entries).collect()
}

/// Everything in an answer that looks like an id.
fn ids(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Array(items) => items.iter().flat_map(ids).collect(),
        Reply::BulkString(text) => {
            let text = String::from_utf8_lossy(text).into_owned();
            if number(&text).is_some() { vec![text] } else { Vec::new() }
        }
        _ => Vec::new(),
    }
}

/// What happened, for people.
#[derive(Clone, Debug, Default)]
struct Tally {
    days: u64,
    steps: u64,
    entries: u64,
    /// How often each thing was done to them.
    blows: BTreeMap<&'static str, u64>,
    /// Acts by action, outcome and why.
    acts: BTreeMap<(String, String, String), u64>,
    /// Entries that were processed more than once.
    twice: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.days += other.days;
        self.steps += other.steps;
        self.entries += other.entries;
        self.twice += other.twice;
        other.blows.into_iter().for_each(|(blow, count)| *self.blows.entry(blow).or_default() += count);
        other.acts.into_iter().for_each(|(act, count)| *self.acts.entry(act).or_default() += count);
    }
}

/// A streamlag that may act, and what can be done to it.
struct Exporter {
    office: Office,
    gate: Option<Gate>,
    /// Of one that goes by another clock.
    clock: Option<Clock>,
    /// Whether plans are approved by hand.
    asks: bool,
    running: Option<Streamlag>,
}

impl Exporter {
    fn start(&mut self, place: &Place) {
        let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
        let to = json!({"stream": DEAD, "deliveries": 3, "idle": "500ms"});
        let budget = json!({"acts_per_hour": 1000, "entries_per_act": 50});
        let mode = if self.asks { "approve" } else { "auto" };
        let rules = json!([{"stream": STREAM, "group": "*", "mode": mode, "actions": actions, "budget": budget, "dead_letter": to}]);
        let file = self.office.path("sentinel-password");
        let (url, flags) = place.settings(self.gate.as_ref().map(|gate| gate.port), &file);
        let flags: Vec<&str> =
            ["--poll.interval", "200ms"].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let env = self.clock.as_ref().map(Clock::env).into_iter().flatten().collect::<Vec<_>>();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.running = Some(self.office.start_in(&url, &rules, &json!({}), &flags, &env));
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.signal("-KILL");
            running.wait();
            self.clock.iter().for_each(|clock| clock.clean_up(running.pid()));
        }
    }

    /// Approves what there is, or rejects it; whoever asks may not live to hear the answer.
    fn decide(&self, random: &mut Random, word: &str) -> Option<std::thread::JoinHandle<()>> {
        let streamlag = self.running.as_ref().filter(|_| self.asks)?;
        let plans = board(streamlag)["plans"].as_array().cloned().unwrap_or_default();
        let id = plans.get(random.below(plans.len().max(1)))?["id"].as_str()?.to_owned();
        let (address, token, word) = (streamlag.address, self.office.alice.clone(), word.to_owned());
        Some(std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let head = format!(
                "POST /api/v1/remediation/{id}/{word} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
                 Authorization: Bearer {token}\r\n\r\n"
            );
            let Ok(mut connection) = std::net::TcpStream::connect(address) else { return };
            let _ = connection.write_all(head.as_bytes());
            let _ = connection.read_to_end(&mut Vec::new());
        }))
    }

    /// What was to be done last, by the record.
    fn newest_intent(&self) -> String {
        let text = std::fs::read_to_string(self.office.path("audit.jsonl")).unwrap_or_default();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or("{}")).unwrap();
        last["what"].as_str().unwrap_or_default().to_owned()
    }

    /// Intents on disk that have no outcome yet.
    fn open_intents(&self) -> usize {
        let text = std::fs::read_to_string(self.office.path("audit.jsonl")).unwrap_or_default();
        let count = |kind: &str| text.matches(&format!("\"kind\":\"{kind}\"")).count();
        count("intent") - count("outcome")
    }
}

/// A day, as far as it has come.
struct Day {
    seed: u64,
    ports: Ports,
    connection: Option<redis::Connection>,
    work: Arc<Work>,
    consumers: Vec<Consumer>,
    gone: Vec<Consumer>,
    /// Entries that are on as many servers as it takes, so that none may be lost.
    safe: BTreeSet<String>,
    /// Entries that the test deleted, and those that it trimmed after it had seen where they were.
    deleted: BTreeSet<String>,
    tally: Tally,
    failed_over: u64,
}

impl Day {
    fn blow(&mut self, blow: &'static str) {
        *self.tally.blows.entry(blow).or_default() += 1;
    }

    /// Asks the master; nothing where it does not answer.
    fn ask<T>(&mut self, query: impl Fn(&mut redis::Connection) -> redis::RedisResult<T>) -> Option<T> {
        if self.connection.is_none() {
            self.connection = self.ports.master();
        }
        let answer = query(self.connection.as_mut()?);
        if answer.is_err() {
            self.connection = None;
        }
        answer.ok()
    }

    fn run(&mut self, words: &str) -> Option<Reply> {
        self.ask(|connection| {
            let mut command = redis::Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            command.query(connection)
        })
    }

    /// Adds entries. Those that arrived on all replicas survive the master.
    fn add(&mut self, replicas: usize) {
        let added: Option<(Vec<String>, usize)> = self.ask(|connection| {
            let mut pipe = redis::pipe();
            for _ in 0..9 {
                pipe.cmd("XADD").arg(STREAM).arg("*").arg("n").arg(1);
            }
            let added: Vec<String> = pipe.query(connection)?;
            let copies = match replicas {
                0 => 0,
                _ => redis::cmd("WAIT").arg(replicas).arg(200).query(connection)?,
            };
            Ok((added, copies))
        });
        if let Some((added, copies)) = added {
            self.tally.entries += added.len() as u64;
            if copies >= replicas {
                self.safe.extend(added);
            }
        }
    }

    fn hire(&mut self) {
        self.consumers.push(Consumer::start(&self.ports, &self.work));
    }

    /// Sends one away for good, in one way or the other.
    fn dismiss(&mut self, at: usize, how: u8) {
        let gone = self.consumers.swap_remove(at);
        gone.tell(how);
        self.gone.push(gone);
    }

    /// Held entries: id, owner, idle, deliveries.
    fn held(&mut self, most: usize) -> Vec<(String, String, u64, u64)> {
        let held = self.run(&format!("XPENDING {STREAM} g - + {most}"));
        held.and_then(|held| redis::from_redis_value(held).ok()).unwrap_or_default()
    }

    /// What is wrong from the beginning: those that died before it, with an entry that fails, one that is gone, some, and none.
    fn inherit(&mut self) {
        for (name, count) in [("d0", 1), ("d1", 1), ("d2", 3), ("d3", 1)] {
            let read = self.run(&format!("XREADGROUP GROUP g {name} COUNT {count} STREAMS {STREAM} >"));
            let Some(id) = read.as_ref().map(entries).unwrap_or_default().into_iter().next() else { continue };
            match name {
                "d0" => drop(self.run(&format!("XCLAIM {STREAM} g d0 0 {id} IDLE 5000 RETRYCOUNT 3 JUSTID"))),
                "d1" => {
                    self.deleted.insert(id.clone());
                    let _ = self.run(&format!("XDEL {STREAM} {id}"));
                }
                "d3" => {
                    self.work.processed.lock().unwrap().entry(id.clone()).or_default().push(name.to_owned());
                    let _ = self.run(&format!("XACK {STREAM} g {id}"));
                }
                _ => {}
            }
        }
    }

    /// Checks that every entry up to this one is somewhere; whether the master told. What was acknowledged before this was looked at had
    /// been processed before that.
    fn account(&mut self, up_to: Option<(u64, u64)>) -> bool {
        let found: Option<(Reply, Reply, Reply, Reply)> = self.ask(|connection| {
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("XPENDING").arg(STREAM).arg("g").arg("-").arg("+").arg(1_000_000);
            pipe.cmd("XRANGE").arg(DEAD).arg("-").arg("+").cmd("XRANGE").arg(STREAM).arg("-").arg("+");
            pipe.cmd("XINFO").arg("GROUPS").arg(STREAM).query(connection)
        });
        let Some((pending, letters, stream, groups)) = found else { return false };
        let set = |reply: &Reply| ids(reply).into_iter().collect::<BTreeSet<String>>();
        let (pending, letters) = (set(&pending), set(&letters));
        let cursor = ids(&groups).first().and_then(|id| number(id)).unwrap();
        let waiting: BTreeSet<String> =
            set(&stream).into_iter().filter(|id| number(id).is_some_and(|id| id > cursor)).collect();
        let processed = self.work.processed.lock().unwrap();
        let is_somewhere = |id: &&String| {
            [&pending, &letters, &waiting, &self.deleted].iter().any(|place| place.contains(*id))
                || processed.contains_key(*id)
        };
        let asked = |id: &&String| up_to.is_none_or(|end| number(id).is_some_and(|id| id < end));
        let lost: Vec<&String> = self.safe.iter().filter(asked).filter(|id| !is_somewhere(id)).collect();
        assert!(lost.is_empty(), "seed {}: lost {lost:?}, cursor {cursor:?}", self.seed);
        true
    }

    /// Trims what is older than a random entry, after it was seen where all of that is.
    fn trim(&mut self, random: &mut Random) {
        let Some(stream) = self.run(&format!("XRANGE {STREAM} - +")) else { return };
        let all = entries(&stream);
        let Some(end) = all.get(random.below(all.len().max(2) * 2 / 3)).cloned() else { return };
        let bound = number(&end);
        if bound.is_some() && self.account(bound) {
            // The rest of the day does not ask for them again.
            self.deleted.extend(all.iter().filter(|id| number(id) < bound).cloned());
            // There is no MINID before 6.2.
            let kept = all.iter().filter(|id| number(id) >= bound).count();
            let _ = self.run(&format!("XTRIM {STREAM} MAXLEN {kept}"));
            self.blow("trimmed");
        }
    }

    /// One thing that happens to consumers or entries.
    fn misfortune(&mut self, random: &mut Random, kind: usize) {
        let at = random.below(self.consumers.len());
        match kind {
            0 | 1 if self.gone.len() < 40 => {
                self.dismiss(at, KILLED);
                self.hire();
                self.blow("killed");
            }
            2 => {
                self.consumers[at].tell(PAUSED);
                self.blow("paused");
            }
            3 => {
                // It comes back from the dead, where it was paused for long enough.
                let paused: Vec<usize> =
                    (0..self.consumers.len()).filter(|at| self.consumers[*at].is(PAUSED)).collect();
                if let Some(at) = paused.get(random.below(paused.len().max(1))) {
                    self.consumers[*at].tell(RUNS);
                    self.blow("resumed");
                }
            }
            4 if self.consumers[at].is(RUNS) => {
                self.consumers[at].tell(RENAMED);
                self.blow("renamed");
            }
            5 if self.consumers.len() < 9 => {
                self.hire();
                self.blow("scaled up");
            }
            6 if self.consumers.len() > 3 => {
                self.dismiss(at, RETIRES);
                self.blow("scaled down");
            }
            7 => {
                // Deleted under whoever holds it: what is gone by this is not lost by an act.
                if let Some((id, ..)) = self.held(1).into_iter().next() {
                    self.deleted.insert(id.clone());
                    let _ = self.run(&format!("XDEL {STREAM} {id}"));
                    self.blow("deleted");
                }
            }
            8 => {
                // It has failed before, and its owner does nothing.
                if let Some((id, owner, idle, _)) = self.held(1).into_iter().next()
                    && idle > 1000
                {
                    let _ = self.run(&format!("XCLAIM {STREAM} g {owner} 0 {id} IDLE 5000 RETRYCOUNT 3 JUSTID"));
                    self.blow("poisoned");
                }
            }
            9 => self.trim(random),
            _ => {}
        }
    }

    /// Whoever an act is about comes back before it arrives: it reads, or its entry is acknowledged at last.
    fn come_back(&mut self, intent: &str) {
        let words: Vec<&str> = intent.split(' ').collect();
        let name = match words[..] {
            ["delete", "consumer", name, ..] => name,
            ["hand", _, "of", name, ..] => name.trim_end_matches("'s"),
            ["copy", "entry", id, ..] => {
                self.work.processed.lock().unwrap().entry(id.to_owned()).or_default().push("late".to_owned());
                let _ = self.run(&format!("XACK {STREAM} g {id}"));
                return;
            }
            _ => return,
        };
        let _ = self.run(&format!("XREADGROUP GROUP g {name} COUNT 1 STREAMS {STREAM} >"));
        self.blow("the dead came back before an act");
    }

    /// One thing that happens to a streamlag.
    fn blow_to(&mut self, random: &mut Random, exporter: &mut Exporter, place: &Place, kind: usize) {
        match kind {
            0 => {
                exporter.kill();
                exporter.start(place);
                self.blow("streamlag killed at any time");
            }
            1..=4 => {
                let (mode, blow) = [
                    (DROPS_ACT, "streamlag killed before its act"),
                    (DELAYS_ACT, "streamlag killed before its act, which came later"),
                    (HOLDS_ANSWER, "streamlag killed after its act"),
                    (HOLDS_ANSWER, "streamlag killed after its act"),
                ][kind - 1];
                let Some(gate) = &exporter.gate else { return };
                gate.set(mode);
                let asked = exporter.decide(random, "approve");
                let is_caught = caught_within(std::slice::from_ref(gate), CATCH);
                if is_caught {
                    assert_eq!(exporter.open_intents(), 1, "seed {}: an act without an intent", self.seed);
                    exporter.kill();
                    self.blow(blow);
                    if mode == DELAYS_ACT {
                        self.come_back(&exporter.newest_intent());
                    }
                }
                if let Some(gate) = &exporter.gate {
                    gate.set(OPEN);
                }
                if is_caught {
                    exporter.start(place);
                }
                asked.into_iter().for_each(|asked| asked.join().unwrap());
            }
            5 => {
                // What it goes by is older than it thinks.
                if let Some(streamlag) = &exporter.running {
                    streamlag.signal("-STOP");
                    std::thread::sleep(Duration::from_millis(100 + random.below(900) as u64));
                    streamlag.signal("-CONT");
                    self.blow("streamlag stopped for a while");
                }
            }
            6 => {
                if let Some(clock) = &exporter.clock {
                    clock.step(STEPS[random.below(STEPS.len())]);
                    self.blow("clock stepped");
                }
            }
            7 => {
                let word = if random.below(6) == 0 { "reject" } else { "approve" };
                let asked = exporter.decide(random, word);
                if let Some(asked) = asked {
                    asked.join().unwrap();
                    self.blow("decided by hand");
                }
            }
            _ => {}
        }
    }
}

/// A day at a place. Its end checks everything.
fn day(place: &mut Place, length: Duration, seed: u64) -> Tally {
    let mut random = Random(seed);
    place.clear();
    place.grant();
    let ports = place.ports();
    let mut day = Day {
        seed,
        connection: ports.master(),
        ports,
        work: Arc::default(),
        consumers: Vec::new(),
        gone: Vec::new(),
        safe: BTreeSet::new(),
        deleted: BTreeSet::new(),
        tally: Tally { days: 1, ..Tally::default() },
        failed_over: 0,
    };
    eventually("a group", || day.run(&format!("XGROUP CREATE {STREAM} g 0 MKSTREAM")));
    (0..7).for_each(|_| day.add(place.replicas()));
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let listening = record::listen(place.monitors(), &seen);
    day.inherit();
    (0..5).for_each(|_| day.hire());
    let gate = || match &*place {
        Place::Alone(redis) => Some(Gate::start(redis.port)),
        _ => None,
    };
    let mut exporters = [false, true].map(|asks| Exporter {
        office: Office { stream: STREAM, ..Office::new() },
        gate: gate(),
        clock: asks.then(Clock::new),
        asks,
        running: None,
    });
    exporters.iter_mut().for_each(|exporter| exporter.start(place));
    let begun = Instant::now();
    while begun.elapsed() < length {
        day.tally.steps += 1;
        day.add(place.replicas());
        match random.below(28) {
            kind @ 0..=9 => day.misfortune(&mut random, kind),
            kind @ 10..=17 => {
                let at = random.below(2);
                day.blow_to(&mut random, &mut exporters[at], place, kind - 10);
            }
            18..=20 => day.blow_to(&mut random, &mut exporters[1], place, 7),
            // Not before acts may be under way.
            21 if begun.elapsed() > length / 3 && place.fail_over() => {
                day.failed_over += 1;
                day.blow("master killed");
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // A day of a place with replicas has at least one.
    if day.failed_over == 0 && !matches!(place, Place::Alone(_)) && place.fail_over() {
        day.failed_over += 1;
        day.blow("master killed");
        std::thread::sleep(Duration::from_secs(1));
    }
    exporters.iter_mut().for_each(Exporter::kill);
    let consumers = std::mem::take(&mut day.consumers);
    consumers.iter().for_each(|consumer| consumer.tell(KILLED));
    consumers.into_iter().chain(std::mem::take(&mut day.gone)).for_each(|one| one.thread.join().unwrap());
    place.say(OVER);
    listening.into_iter().for_each(|listener| listener.join().unwrap());
    eventually("the end of the day is accounted for", || day.account(None).then_some(()));

    let audits: Vec<_> = exporters.iter().map(|exporter| exporter.office.audit()).collect();
    let seen = seen.lock().unwrap();
    let acts = seen.check(&audits, day.failed_over > 0);
    let unsure = day.work.unsure.lock().unwrap();
    let processed = day.work.processed.lock().unwrap();
    let twice: Vec<&String> = processed.iter().filter(|(_, by)| by.len() > 1).map(|(id, _)| id).collect();
    let is_allowed = |id: &&&String| seen.moved.contains(**id) || unsure.contains(**id) || day.failed_over > 0;
    let wrong: Vec<_> = twice.iter().filter(|id| !is_allowed(id)).map(|id| (id, &processed[*id])).collect();
    assert!(wrong.is_empty(), "seed {seed}: processed twice, and nobody had claimed it: {wrong:?}");
    Tally { twice: twice.len() as u64, acts: acts.outcomes, ..day.tally }
}

#[test]
fn no_entry_is_lost_and_nothing_is_done_off_the_record() {
    let seconds = std::env::var("STREAMLAG_BAD_DAYS").ok().and_then(|text| text.parse().ok());
    let whole: Option<Duration> = seconds.map(Duration::from_secs);
    let mut places: Vec<(Kind, PathBuf)> = servers().into_iter().map(|server| (Kind::Alone, server)).collect();
    // They take the longest.
    places.insert(0, (Kind::Sentinels, PathBuf::from("redis-server")));
    places.insert(0, (Kind::Cluster, PathBuf::from("redis-server")));
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Tally::default());
    let threads = if whole.is_some() { places.len() } else { AT_A_TIME };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, server)) = places.get(at) else { return };
                    let begun = Instant::now();
                    let mut seed = 1_000_000 * (at as u64 + 1);
                    let mut at_place = Tally::default();
                    loop {
                        // A master that was killed stays dead where sentinels watch: each day has servers of its own.
                        let mut place = Place::start(kind, server);
                        at_place.add(day(&mut place, if whole.is_some() { LONG_DAY } else { SHORT_DAY }, seed));
                        seed += 1;
                        if whole.is_none_or(|whole| begun.elapsed() >= whole) {
                            break;
                        }
                    }
                    println!("{}: {at_place:?}", server.display());
                    all.lock().unwrap().add(at_place);
                }
            });
        }
    });
    println!("in all: {:?}", all.into_inner().unwrap());
}
