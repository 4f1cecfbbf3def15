//! What servers executed, as `MONITOR` tells, held against what is on record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use super::DEAD_AFTER;
use crate::common::monitor::{Executed, Monitor};

/// Said at the end of a day.
pub const OVER: &str = "the-day-is-over";

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
    /// Entries that anybody claimed.
    pub moved: BTreeSet<String>,
    /// When each consumer last asked for entries, in seconds of the servers' clocks.
    asked: BTreeMap<String, f64>,
    /// Acts on the living.
    wrong: Vec<String>,
}

/// Listens on all servers until the day is over or the server is dead.
pub fn listen(monitors: Vec<Monitor>, seen: &Arc<Mutex<Seen>>) -> Vec<JoinHandle<()>> {
    let listen = |mut monitor: Monitor| {
        let seen = Arc::clone(seen);
        std::thread::spawn(move || {
            while let Some(next) = monitor.next_of_mortal() {
                if next.words.contains(OVER) {
                    return;
                }
                seen.lock().unwrap().take(&next);
            }
        })
    };
    monitors.into_iter().map(listen).collect()
}

impl Seen {
    fn take(&mut self, executed: &Executed) {
        let words: Vec<&str> = executed.words.trim_matches('"').split("\" \"").collect();
        let is_act = executed.client == "lua";
        match words[0].to_ascii_uppercase().as_str() {
            "XREADGROUP" => drop(self.asked.insert(words[3].to_owned(), executed.at)),
            "XCLAIM" => {
                self.moved.insert(words[5].to_owned());
                if is_act {
                    *self.claimed.entry(words[3].to_owned()).or_default() += 1;
                }
            }
            "XGROUP" if is_act => {
                let name = words[4];
                *self.deleted.entry(name.to_owned()).or_default() += 1;
                let silent = self.asked.get(name).map_or(f64::MAX, |asked| executed.at - asked);
                if silent < DEAD_AFTER.as_secs_f64() {
                    self.wrong.push(format!("{name} was deleted {silent} s after it had asked for entries"));
                }
            }
            "XADD" if is_act => {
                let at = words.iter().position(|word| *word == "streamlag.id").unwrap_or_default();
                *self.copied.entry(words[at + 1].to_owned()).or_default() += 1;
            }
            "XACK" if is_act => self.acknowledged += words[3..].iter().filter(|id| **id != "0-0").count() as u64,
            _ => {}
        }
    }

    /// Holds it against the records: what was written is on record, and what is on record as done was written. Acts of which it is not
    /// known how they ended may be either. Where a server died, it may have said less than it did.
    pub fn check(&self, audits: &[Vec<Value>], has_failed_over: bool) -> Acts {
        assert!(self.wrong.is_empty(), "{:?}", self.wrong);
        let acts = Acts::of(audits);
        let hold = |what: &str, written: &BTreeMap<String, u64>, on_record: &BTreeMap<String, (u64, u64)>| {
            let names: BTreeSet<&String> = written.keys().chain(on_record.keys()).collect();
            for name in names {
                let (done, unknown) = on_record.get(name).copied().unwrap_or_default();
                let written = written.get(name).copied().unwrap_or_default();
                assert!(written <= done + unknown, "{what} {name}: {written} written, {done}+{unknown} on record");
                assert!(written >= done || has_failed_over, "{what} {name}: {written} written, {done} on record");
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
    fn of(audits: &[Vec<Value>]) -> Self {
        let mut acts = Self::default();
        for audit in audits {
            let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let of_kind = |kind: &'static str| audit.iter().filter(move |record| record["kind"] == kind);
            let outcomes: BTreeMap<String, &Value> =
                of_kind("outcome").map(|record| (text(record, "plan"), record)).collect();
            let open = of_kind("intent").filter(|intent| !outcomes.contains_key(&text(intent, "plan"))).count();
            // Of one that was killed and not started again.
            assert!(open <= 1, "{open} acts without an outcome");
            for intent in of_kind("intent") {
                let outcome = outcomes.get(&text(intent, "plan"));
                let ending = outcome.map_or("unknown".to_owned(), |outcome| text(outcome, "outcome"));
                let changed = outcome.and_then(|outcome| outcome["changed"].as_u64()).unwrap_or_default();
                let detail = outcome.map_or(String::new(), |outcome| text(outcome, "detail"));
                acts.take(&text(intent, "action"), &text(intent, "what"), &ending, changed);
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
