//! Bad days: consumers are killed, paused, resumed, renamed and scaled, entries are deleted and trimmed under them, masters die, two
//! streamlags act at once, one of them by another clock, and are killed at every step of an act. No entry may be lost, no living consumer
//! deleted, and nothing written that is not on record.
//!
//! `make bad-days` has ten thousand of them: see [`calendar`].

mod calendar;
mod consumer;
mod exporter;
mod place;
mod record;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::Value as Reply;

use crate::common::eventually;
use crate::common::gate::{DELAYS_ACT, DROPS_ACT, HOLDS_ANSWER, OPEN, caught_within};
use crate::faults::host::STEPS;
use calendar::{Calendar, Tally};
use consumer::{Consumer, KILLED, PAUSED, RENAMED, RETIRES, RUNS, Work};
use exporter::Exporter;
use place::{Place, Ports};
use record::{Listeners, Seen};

/// What is watched, and where dead letters go: in one slot of a cluster.
const STREAM: &str = "events:{orders}";
const DEAD: &str = "events:{orders}:dead";

/// When a consumer counts as dead, as [`crate::common::remedy::SOON`] has it.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// Steps of a day, some five seconds: what is wrong at its beginning is acted on before half of it is over. On a machine that is busy a day is
/// longer, so that it is not less of one.
const STEPS_OF_DAY: u64 = 40;

/// Between two of them.
const STEP: Duration = Duration::from_millis(40);

/// How long an act is waited for that is to be caught: plans are looked at twice a second.
const CATCH: Duration = Duration::from_millis(550);

/// How long before its death a master may have done something that its replicas do not know. What it executes, it sends with the answers,
/// but it may have been stopped in between by a machine that is busy.
const UNREPLICATED: Duration = Duration::from_millis(200);

/// After a last failover, so that acts follow it.
const EVENING: Duration = Duration::from_millis(2000);

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

/// A day, as far as it has come.
struct Day {
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
    /// Replicas that an entry has to be on to survive the master.
    replicas: usize,
    /// The master that there should be.
    master: u16,
    /// When masters died: from before they were killed until they were gone.
    deaths: Vec<(Instant, Instant)>,
    /// Plans that were carried out just then.
    cut: BTreeSet<String>,
    /// Whether a master was taken for dead that was not: when it lost what it was told then is not known.
    has_lost_master: bool,
}

impl Day {
    /// Kills the master; another one takes over. Whether it could.
    fn fail_over(&mut self, place: &mut Place, exporters: &[Exporter; 2]) -> bool {
        let before = exporters.each_ref().map(Exporter::on_file);
        if self.ports.masters().count() > 1 {
            self.loses_master();
        }
        let from = Instant::now();
        let Some(at) = place.kill_master() else { return false };
        self.deaths.push((from, Instant::now()));
        for (exporter, before) in exporters.iter().zip(before) {
            self.cut.extend(exporter.on_file().intents.difference(&before.outcomes).cloned());
        }
        place.take_over(at);
        (self.connection, self.replicas) = (None, place.replicas());
        self.master = eventually("a master", || self.ports.find()).0;
        self.blow("master killed");
        true
    }

    /// A master was taken for dead that is not: what it is told now, the other one does not know.
    fn loses_master(&mut self) {
        self.has_lost_master = true;
        self.blow("master taken for dead");
    }

    /// When an entry was delivered and acknowledged, in milliseconds before each death of a master.
    fn before_deaths(&self, id: &str) -> Vec<Vec<i128>> {
        let moments = self.work.moments.lock().unwrap();
        let before = |(from, _): &(Instant, Instant), at: &Instant| {
            from.saturating_duration_since(*at).as_millis() as i128
                - at.saturating_duration_since(*from).as_millis() as i128
        };
        let of_death = |death| moments.get(id).into_iter().flatten().map(|(_, at)| before(death, at)).collect();
        self.deaths.iter().map(of_death).collect()
    }

    /// Whether an entry may be delivered again because a master died with what it knew of its delivery or its acknowledgment.
    fn may_be_forgotten(&self, id: &str) -> bool {
        let moments = self.work.moments.lock().unwrap();
        let is_then = |(sent, answered): &(Instant, Instant)| {
            self.deaths.iter().any(|(from, gone)| *answered + UNREPLICATED >= *from && sent <= gone)
        };
        self.has_lost_master || moments.get(id).is_some_and(|moments| moments.iter().any(is_then))
    }

    fn blow(&mut self, blow: &'static str) {
        *self.tally.blows.entry(blow).or_default() += 1;
    }

    /// Asks the master; nothing where it does not answer.
    fn ask<T>(&mut self, query: impl Fn(&mut redis::Connection) -> redis::RedisResult<T>) -> Option<T> {
        if self.connection.is_none() {
            let (port, connection) = self.ports.find()?;
            if port != self.master {
                self.loses_master();
                self.master = port;
            }
            self.connection = Some(connection);
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
    fn add(&mut self) {
        let replicas = self.replicas;
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
        assert!(lost.is_empty(), "lost: {lost:?}, cursor {cursor:?}");
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
                // Whoever holds it may process it yet.
                self.work.unsure.lock().unwrap().insert(id.to_owned());
                let _ = self.run(&format!("XACK {STREAM} g {id}"));
                return;
            }
            _ => return,
        };
        // Before 7.2 a read that finds nothing new shows nowhere.
        let _ = self.ask(|connection| {
            let mut pipe = redis::pipe();
            pipe.atomic().cmd("XADD").arg(STREAM).arg("*").arg("n").arg(1).ignore();
            pipe.cmd("XREADGROUP")
                .arg("GROUP")
                .arg("g")
                .arg(name)
                .arg("COUNT")
                .arg(1)
                .arg("STREAMS")
                .arg(STREAM)
                .arg(">");
            pipe.query::<Reply>(connection)
        });
        self.work.note_read(name, self.master);
        self.blow("the dead came back before an act");
    }

    /// Kills a streamlag at a step of its next act, if there is one before long.
    fn kill_at_step(&mut self, random: &mut Random, exporters: &mut [Exporter; 2], at: usize, place: &Place) {
        let (mode, blow) = [
            (DROPS_ACT, "streamlag killed before its act"),
            (DELAYS_ACT, "streamlag killed before its act, which came later"),
            (HOLDS_ANSWER, "streamlag killed after its act"),
            (HOLDS_ANSWER, "streamlag killed after its act"),
        ][random.below(4)];
        let gates = Arc::clone(&exporters[at].gates);
        if gates.is_empty() {
            return;
        }
        gates.iter().for_each(|gate| gate.set(mode));
        let asked = exporters[at].decide(random, "approve");
        let mut killed = Vec::new();
        if caught_within(&gates, CATCH) {
            // Those of a cluster stand before both.
            killed = (0..2).filter(|at| exporters[*at].open_intents() > 0).collect();
            assert!(!killed.is_empty(), "off the record: an act without an intent");
            for at in &killed {
                exporters[*at].kill();
                self.blow(blow);
                if mode == DELAYS_ACT {
                    self.come_back(&exporters[*at].newest_intent());
                }
            }
        }
        gates.iter().for_each(|gate| gate.set(OPEN));
        killed.into_iter().for_each(|at| exporters[at].start(place));
        asked.into_iter().for_each(|asked| asked.join().unwrap());
    }

    /// One thing that happens to a streamlag.
    fn blow_to(&mut self, random: &mut Random, exporter: &mut Exporter, place: &Place, kind: usize) {
        match kind {
            0 => {
                exporter.kill();
                exporter.start(place);
                self.blow("streamlag killed at any time");
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
fn day(place: &mut Place, seed: u64) -> Tally {
    let mut random = Random(seed);
    place.clear();
    place.grant();
    let ports = place.ports();
    let (master, connection) = eventually("a master", || ports.find());
    let mut day = Day {
        connection: Some(connection),
        ports,
        work: Arc::default(),
        consumers: Vec::new(),
        gone: Vec::new(),
        safe: BTreeSet::new(),
        deleted: BTreeSet::new(),
        tally: Tally { days: 1, ..Tally::default() },
        replicas: place.replicas(),
        master,
        deaths: Vec::new(),
        cut: BTreeSet::new(),
        has_lost_master: false,
    };
    eventually("a group", || day.run(&format!("XGROUP CREATE {STREAM} g 0 MKSTREAM")));
    (0..7).for_each(|_| day.add());
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let listeners = Listeners::start(&day.ports.0, &seen);
    day.inherit();
    (0..5).for_each(|_| day.hire());
    let mut exporters = [false, true].map(|asks| Exporter::new(place.gates(), asks));
    exporters.iter_mut().for_each(|exporter| exporter.start(place));
    for step in 0..STEPS_OF_DAY {
        day.tally.steps += 1;
        day.add();
        match random.below(28) {
            kind @ 0..=9 => day.misfortune(&mut random, kind),
            kind @ 10..=17 => {
                let at = random.below(2);
                match kind - 10 {
                    1..=4 => day.kill_at_step(&mut random, &mut exporters, at, place),
                    other => day.blow_to(&mut random, &mut exporters[at], place, other),
                }
            }
            18..=20 => day.blow_to(&mut random, &mut exporters[1], place, 7),
            // Not before acts may be under way.
            21 if step > STEPS_OF_DAY / 3 => drop(day.fail_over(place, &exporters)),
            _ => {}
        }
        std::thread::sleep(STEP);
    }
    // A day of a place with replicas has at least one.
    if day.deaths.is_empty() && day.fail_over(place, &exporters) {
        std::thread::sleep(EVENING);
    }
    exporters.iter_mut().for_each(Exporter::kill);
    let consumers = std::mem::take(&mut day.consumers);
    consumers.iter().for_each(|consumer| consumer.tell(KILLED));
    consumers.into_iter().chain(std::mem::take(&mut day.gone)).for_each(Consumer::join);
    listeners.end(place);
    if day.ports.masters().any(|(port, _)| port != day.master) {
        day.loses_master();
    }
    eventually("the end of the day is accounted for", || day.account(None).then_some(()));

    let audits: Vec<_> = exporters.iter().map(|exporter| exporter.office.audit()).collect();
    let seen = seen.lock().unwrap();
    if day.has_lost_master {
        let intents = exporters.iter().flat_map(|exporter| exporter.on_file().intents);
        day.cut.extend(intents);
    }
    let shown = day.work.reads.lock().unwrap();
    let shown = (!place.shows_every_read()).then_some(&*shown);
    let acts = seen.check(&audits, &day.cut, shown, day.has_lost_master);
    let unsure = day.work.unsure.lock().unwrap();
    let processed = day.work.processed.lock().unwrap();
    let twice: Vec<&String> = processed.iter().filter(|(_, by)| by.len() > 1).map(|(id, _)| id).collect();
    let is_allowed = |id: &String| seen.moved.contains(id) || unsure.contains(id) || day.may_be_forgotten(id);
    let wrong: Vec<_> =
        twice.iter().filter(|id| !is_allowed(id)).map(|id| (id, &processed[*id], day.before_deaths(id))).collect();
    assert!(wrong.is_empty(), "twice: processed twice, and nobody had claimed it: {wrong:?}");
    Tally { twice: twice.len() as u64, acts: acts.outcomes, ..std::mem::take(&mut day.tally) }
}

#[test]
fn no_entry_is_lost_and_nothing_is_done_off_the_record() {
    Calendar::of_environment().run();
}
