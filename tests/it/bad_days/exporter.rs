//! A streamlag that may act, and what can be done to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::place::Place;
use super::{DEAD, Random, STREAM};
use crate::common::Streamlag;
use crate::common::clock::Clock;
use crate::common::gate::Gate;
use crate::common::remedy::{Office, board};

/// Plans are made twice a second: more polls than this show it nothing more.
const POLLS: &str = "200ms";

pub struct Exporter {
    pub office: Office,
    /// Between it and its Redis: one where it has a Redis of its own, one before each node of a cluster.
    pub gates: Arc<[Gate]>,
    /// Of one that goes by another clock.
    pub clock: Option<Clock>,
    /// Whether plans are approved by hand.
    asks: bool,
    pub running: Option<Streamlag>,
}

/// Acts on record, by plan.
pub struct OnFile {
    pub intents: BTreeSet<String>,
    pub outcomes: BTreeSet<String>,
}

impl Exporter {
    /// Not started yet.
    pub fn new(gates: Arc<[Gate]>, asks: bool) -> Self {
        let office = Office { stream: STREAM, ..Office::new() };
        Self { office, gates, clock: asks.then(Clock::new), asks, running: None }
    }

    pub fn start(&mut self, place: &Place) {
        let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
        let to = json!({"stream": DEAD, "deliveries": 3, "idle": "500ms"});
        let budget = json!({"acts_per_hour": 1000, "entries_per_act": 50});
        let mode = if self.asks { "approve" } else { "auto" };
        let rules = json!([{"stream": STREAM, "group": "*", "mode": mode, "actions": actions, "budget": budget, "dead_letter": to}]);
        let file = self.office.path("sentinel-password");
        let (url, flags) = place.settings(self.gates.first().map(|gate| gate.port), &file);
        let flags: Vec<&str> = ["--poll.interval", POLLS].into_iter().chain(flags.iter().map(String::as_str)).collect();
        let env = self.clock.as_ref().map(Clock::env).into_iter().flatten().collect::<Vec<_>>();
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.running = Some(self.office.start_in(&url, &rules, &json!({}), &flags, &env));
    }

    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            let pid = running.pid();
            // This kills it, and waits until it is gone.
            drop(running);
            self.clock.iter().for_each(|clock| clock.clean_up(pid));
        }
    }

    /// Approves what there is, or rejects it; whoever asks may not live to hear the answer.
    pub fn decide(&self, random: &mut Random, word: &str) -> Option<std::thread::JoinHandle<()>> {
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

    /// The record so far, but for a line that is being written.
    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.office.path("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What was to be done last, by the record.
    pub fn newest_intent(&self) -> String {
        let last = self.records().pop().unwrap_or_default();
        last["what"].as_str().unwrap_or_default().to_owned()
    }

    pub fn on_file(&self) -> OnFile {
        let records = self.records();
        let of = |kind: &str| {
            let plans = records.iter().filter(|record| record["kind"] == kind);
            plans.map(|record| record["plan"].as_str().unwrap_or_default().to_owned()).collect()
        };
        OnFile { intents: of("intent"), outcomes: of("outcome") }
    }

    /// Intents on disk that have no outcome yet.
    pub fn open_intents(&self) -> usize {
        let OnFile { intents, outcomes } = self.on_file();
        intents.difference(&outcomes).count()
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.kill();
    }
}
