//! What servers executed, as `MONITOR` tells, held against what is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::DEAD_AFTER;
use super::consumer::Reads;
use super::place::Place;
use crate::common::eventually;
use crate::common::monitor::{Executed, Monitor};

/// Said at the end of a day.
const OVER: &str = "the-day-is-over";

/// How often it is tried to listen to a server that is down.
const LOOK: Duration = Duration::from_millis(10);

/// What was seen of one day on all servers.
#[derive(Default)]
pub struct Seen {
    /// Consumers that acts deleted.
    deleted: BTreeMap<String, u64>,
    /// Entries handed over by acts, by who got them.
    claimed: BTreeMap<String, u64>,
    /// Entries copied by acts.
    copied: BTreeMap<String, u64>,
    /// Entries acknowledged by acts.
    acknowledged: u64,
    /// Entries that acts gave to another consumer. The test claims them only for those who hold them, and replicas tell of deliveries as claims.
    pub moved: BTreeSet<String>,
    /// When each consumer last asked a server for entries, in seconds of the servers' clocks.
    asked: BTreeMap<(String, u16), f64>,
    /// Whose entries the script that runs has looked at.
    looked_at: String,
    acted: Vec<Acted>,
}

/// An act on a consumer.
struct Acted {
    what: &'static str,
    consumer: String,
    port: u16,
    at: f64,
    /// When the consumer had last asked each server.
    asked: Vec<(u16, f64)>,
}

/// Those who listen on all servers, until the day is over. Sentinels cut all connections of a server that they make a master or a replica, and
/// a node that died comes back: both are listened to anew.
pub struct Listeners {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Every server is listened to when this returns.
    pub fn start(ports: &[u16], seen: &Arc<Mutex<Seen>>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let listen = |port: &u16| {
            let (port, seen, is_over) = (*port, Arc::clone(seen), Arc::clone(&is_over));
            let mut monitor = Some(eventually("a server answers MONITOR", || Monitor::at(port)));
            std::thread::spawn(move || {
                loop {
                    match monitor.as_mut().and_then(Monitor::next_of_mortal) {
                        Some(executed) if executed.words.contains(OVER) => return,
                        Some(executed) => seen.lock().unwrap().take(port, &executed),
                        None if is_over.load(Ordering::Relaxed) => return,
                        None => {
                            monitor = Monitor::at(port);
                            if monitor.is_none() {
                                std::thread::sleep(LOOK);
                            } else if is_over.load(Ordering::Relaxed) {
                                // What is said at the end may have been said before.
                                return;
                            }
                        }
                    }
                }
            })
        };
        let threads = ports.iter().map(listen).collect();
        Self { is_over, threads }
    }

    /// Waits until all was heard.
    pub fn end(self, place: &Place) {
        self.is_over.store(true, Ordering::Relaxed);
        place.say(OVER);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl Seen {
    fn take(&mut self, port: u16, executed: &Executed) {
        let words: Vec<&str> = executed.words.trim_matches('"').split("\" \"").collect();
        let is_act = executed.client == "lua";
        match words[0].to_ascii_uppercase().as_str() {
            "XREADGROUP" => drop(self.asked.insert((words[3].to_owned(), port), executed.at)),
            "XPENDING" if is_act && words.len() > 6 => words[6].clone_into(&mut self.looked_at),
            "XCLAIM" if is_act => {
                self.must_be_dead(port, &self.looked_at.clone(), executed.at, "an act took entries of");
                self.moved.insert(words[5].to_owned());
                *self.claimed.entry(words[3].to_owned()).or_default() += 1;
            }
            "XGROUP" if is_act => {
                let name = words[4];
                *self.deleted.entry(name.to_owned()).or_default() += 1;
                self.must_be_dead(port, name, executed.at, "an act deleted");
            }
            "XADD" if is_act => {
                let at = words.iter().position(|word| *word == "streamlag.id").unwrap_or_default();
                *self.copied.entry(words[at + 1].to_owned()).or_default() += 1;
            }
            "XACK" if is_act => self.acknowledged += words[3..].iter().filter(|id| **id != "0-0").count() as u64,
            _ => {}
        }
    }

    fn must_be_dead(&mut self, port: u16, name: &str, at: f64, what: &'static str) {
        let of = self.asked.iter().filter(|((consumer, _), _)| consumer == name);
        let asked = of.map(|((_, port), at)| (*port, *at)).collect();
        self.acted.push(Acted { what, consumer: name.to_owned(), port, at, asked });
    }

    /// Holds it against the records: what was written is on record, and what is on record as done was written. Acts of which it is not
    /// known how they ended may be either, and so may those during which the master was killed: it may have said less than it did.
    ///
    /// `shown` has the reads that servers show, where these are not all (before 7.2). Where there were two masters, one does not know of
    /// reads from the other.
    pub fn check(
        &self,
        audits: &[Vec<Value>],
        cut: &BTreeSet<String>,
        shown: Option<&Reads>,
        had_two_masters: bool,
    ) -> Acts {
        let living = |act: &Acted| {
            let asked = match shown {
                Some(shown) => shown.get(&act.consumer).map_or(&[][..], Vec::as_slice),
                None => &act.asked,
            };
            let known = asked.iter().filter(|(port, at)| *at < act.at && !(had_two_masters && *port != act.port));
            let newest = known.max_by(|one, other| one.1.total_cmp(&other.1));
            let (asked_at, asked) = newest.copied().unwrap_or_default();
            // An answer comes a little after the read.
            let least = DEAD_AFTER.as_secs_f64() - if shown.is_some() { 0.1 } else { 0.0 };
            let (after, Acted { what, consumer, port, .. }) = (act.at - asked, act);
            (after < least)
                .then(|| format!("{what} {consumer} at {port} {after} s after it had asked {asked_at} for entries"))
        };
        let wrong: Vec<String> = self.acted.iter().filter_map(living).collect();
        assert!(wrong.is_empty(), "acts on the living: {wrong:?}");
        let acts = Acts::of(audits, cut);
        let hold = |what: &str, written: &BTreeMap<String, u64>, on_record: &BTreeMap<String, (u64, u64)>| {
            let names: BTreeSet<&String> = written.keys().chain(on_record.keys()).collect();
            for name in names {
                let (done, unknown) = on_record.get(name).copied().unwrap_or_default();
                let written = written.get(name).copied().unwrap_or_default();
                assert!(
                    written <= done + unknown,
                    "off the record: {what} {name}: {written} written, {done}+{unknown} on record"
                );
                assert!(written >= done, "off the record: {what} {name}: {written} written, {done} on record");
            }
        };
        hold("delete", &self.deleted, &acts.deleted);
        hold("release to", &self.claimed, &acts.claimed);
        hold("dead letter", &self.copied, &acts.copied);
        let acknowledged = BTreeMap::from([(String::new(), self.acknowledged)]);
        hold("acknowledge", &acknowledged, &BTreeMap::from([(String::new(), acts.acknowledged)]));
        acts
    }
}

/// What is on record: done, and not known, for each thing that it was done to.
#[derive(Default)]
pub struct Acts {
    deleted: BTreeMap<String, (u64, u64)>,
    claimed: BTreeMap<String, (u64, u64)>,
    copied: BTreeMap<String, (u64, u64)>,
    acknowledged: (u64, u64),
    /// How many there were, by action, outcome and why.
    pub outcomes: BTreeMap<(String, String, String), u64>,
}

impl Acts {
    fn of(audits: &[Vec<Value>], cut: &BTreeSet<String>) -> Self {
        let mut acts = Self::default();
        for audit in audits {
            let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let of_kind = |kind: &'static str| audit.iter().filter(move |record| record["kind"] == kind);
            let outcomes: BTreeMap<String, &Value> =
                of_kind("outcome").map(|record| (text(record, "plan"), record)).collect();
            let open = of_kind("intent").filter(|intent| !outcomes.contains_key(&text(intent, "plan"))).count();
            // Of one that was killed and not started again.
            assert!(open <= 1, "off the record: {open} acts without an outcome");
            for intent in of_kind("intent") {
                let outcome = outcomes.get(&text(intent, "plan"));
                let ending = outcome.map_or("unknown".to_owned(), |outcome| text(outcome, "outcome"));
                let changed = outcome.and_then(|outcome| outcome["changed"].as_u64()).unwrap_or_default();
                let detail = outcome.map_or(String::new(), |outcome| text(outcome, "detail"));
                let is_cut = cut.contains(&text(intent, "plan"));
                let known = if is_cut && ending == "done" { "unknown" } else { &ending };
                acts.take(&text(intent, "action"), &text(intent, "what"), known, changed);
                *acts.outcomes.entry((text(intent, "action"), ending, detail)).or_default() += 1;
            }
        }
        acts
    }

    fn take(&mut self, action: &str, what: &str, ending: &str, changed: u64) {
        let word = |at: usize| what.split(' ').nth(at).unwrap().to_owned();
        let number = || word(1).parse::<u64>().unwrap();
        let most = match action {
            "release" | "drop_ghosts" => number(),
            _ => 1,
        };
        let (done, unknown) = match ending {
            "done" => (changed, 0),
            "unknown" => (0, most),
            _ => (0, 0),
        };
        let add = |to: &mut (u64, u64)| *to = (to.0 + done, to.1 + unknown);
        match action {
            "delete_idle_consumers" => add(self.deleted.entry(word(2)).or_default()),
            "release" => {
                let (_, to) = what.rsplit_once(" to ").unwrap();
                add(self.claimed.entry(to.split(',').next().unwrap().to_owned()).or_default());
            }
            "dead_letter" => {
                add(self.copied.entry(word(2)).or_default());
                add(&mut self.acknowledged);
            }
            _ => add(&mut self.acknowledged),
        }
    }
}
