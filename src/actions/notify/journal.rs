//! What is kept over a restart: incidents, and what each receiver was sent. It is written before anything is sent, so that a process that
//! is killed resumes where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use crate::analysis::incident::Incident;
use crate::store::history::state::{Generation, SavedState, StateChange, StateEntry, StateFile};

/// Where incidents are kept, by identity. What was told to a webhook is in an area with the receiver's key as its name.
pub(super) const INCIDENTS: &str = "incident";

/// Takes the incidents out of a kept state, as far as they can be read. The other value is where they are kept from now on.
#[must_use]
pub fn take_incidents(kept: &mut SavedState) -> (Vec<Incident>, SavedIncidents) {
    let (entries, others) = std::mem::take(&mut kept.entries).into_iter().partition(|entry| entry.area == INCIDENTS);
    kept.entries = others;
    let entries: Vec<StateEntry> = entries;
    let incidents: Vec<Incident> = entries.iter().filter_map(|entry| Incident::from_text(&entry.value)).collect();
    let prints = incidents.iter().map(|incident| (incident.id(), print(incident))).collect();
    let saved = SavedIncidents { generation: generation(kept.generation, &entries, &prints), prints };
    (incidents, saved)
}

/// The incidents that are in the file.
#[derive(Debug)]
pub struct SavedIncidents {
    generation: Generation,
    prints: BTreeMap<String, IncidentPrint>,
}

impl SavedIncidents {
    /// The area in which they are.
    pub(super) fn area(self, file: StateFile) -> Area<IncidentPrint> {
        Area::new(INCIDENTS, file, self.generation, self.prints)
    }
}

/// The file that an area's entries are in; 0 where some of them could not be read, so that the area is written anew, without them.
pub(super) fn generation<'a, P>(
    read: Generation,
    entries: impl IntoIterator<Item = &'a StateEntry>,
    prints: &BTreeMap<String, P>,
) -> Generation {
    let keys: BTreeSet<&String> = entries.into_iter().map(|entry| &entry.key).collect();
    if keys.into_iter().eq(prints.keys()) { read } else { 0 }
}

/// What an incident is kept for: when its status changed. Its evidence is as of then.
pub(super) type IncidentPrint = (SystemTime, Option<SystemTime>, Option<SystemTime>);

/// The print of an incident.
pub(super) fn print(incident: &Incident) -> IncidentPrint {
    (incident.active_since, incident.fired_at, incident.resolved_at)
}

/// A part of what is kept, which one task keeps. `P` is what tells whether a text has to be written anew.
#[derive(Debug)]
pub(super) struct Area<P> {
    name: String,
    file: StateFile,
    /// The file that `saved` is in; 0 before anything is.
    generation: Generation,
    saved: BTreeMap<String, P>,
    failed: bool,
}

impl<P: PartialEq> Area<P> {
    /// An area in which the process before has kept these.
    pub(super) fn new(name: &str, file: StateFile, generation: Generation, saved: BTreeMap<String, P>) -> Self {
        // Of an area that is to be written anew, nothing is there.
        let saved = if generation == 0 { BTreeMap::new() } else { saved };
        Self { name: name.to_owned(), file, generation, saved, failed: false }
    }

    /// Whether there is a file.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_there()
    }

    /// Whether the last changes could not be kept.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// What has to be written so that these are kept, and nothing else.
    pub(super) fn changes(&self, now: &BTreeMap<String, P>, text: impl Fn(&str) -> Option<String>) -> Vec<StateChange> {
        let set = |key: &String, value| StateChange::Set(self.name.clone(), key.clone(), value);
        let mut changes = Vec::new();
        if self.generation == 0 {
            changes.push(StateChange::Clear(self.name.clone()));
        }
        let new = now.iter().filter(|(key, print)| self.saved.get(*key) != Some(*print));
        changes.extend(new.filter_map(|(key, _)| Some(set(key, Some(text(key)?)))));
        let gone = self.saved.keys().filter(|key| !now.contains_key(*key));
        changes.extend(gone.map(|key| set(key, None)));
        changes
    }

    /// As if these had been written, for tests.
    #[cfg(test)]
    pub(super) fn written(&mut self, now: BTreeMap<String, P>) {
        (self.generation, self.saved) = (1, now);
    }

    /// Writes changes. Whether they have to be made anew, as the file is another one.
    pub(super) async fn save(&mut self, changes: Vec<StateChange>, now: BTreeMap<String, P>) -> bool {
        if changes.is_empty() || !self.file.is_there() {
            self.failed = false;
            return false;
        }
        let saved = self.file.save(changes).await;
        self.failed = saved.is_none();
        let Some(generation) = saved else { return false };
        if self.generation != 0 && self.generation != generation {
            // What was saved before is in another file.
            (self.generation, self.saved) = (0, BTreeMap::new());
            return true;
        }
        (self.generation, self.saved) = (generation, now);
        false
    }
}
