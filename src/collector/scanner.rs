//! Which streams there are: passes of SCAN over the keys, a few calls per poll. Without I/O: it says what to ask and is
//! told the answers.
//!
//! SCAN promises that a pass returns every key that is there from its beginning to its end, some of them twice, and of the
//! others what it happens to meet. So a stream shows as soon as it is met, and leaves when a complete pass has not met it,
//! or at once when Redis says that it is not there.
//!
//! Where there is more than the limit, the first ones by name are sampled. No more names than that are remembered, however
//! many keys there are.

mod rate;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::collector::scanner::rate::ScanRate;
use crate::model::names::MAX_SHOWN_BYTES;
use crate::model::{StreamKey, StreamSelection};

/// Keys that one call of SCAN looks at. Measured on Redis 7.0 with a million keys, far beyond the processor's caches: 0.5 to
/// 0.75 µs a key, so some 0.35 ms a call. Redis serves no other client meanwhile, and a millisecond is the most to ask of it.
pub const SCAN_COUNT: u32 = 500;

/// Factor by which fewer keys are looked at where the answer was too large to be read.
const FEWER: u32 = 8;

/// One call of SCAN: `SCAN cursor [MATCH pattern] COUNT count TYPE stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// Where to go on; 0 at the beginning of a pass.
    pub cursor: u64,
    /// The pattern, where there is exactly one: it keeps other streams off the wire.
    pub pattern: Option<String>,
    /// How many keys to look at.
    pub count: u32,
}

/// How the search for streams stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanStats {
    /// Streams that patterns found, those over the limit not included.
    pub found: usize,
    /// Streams that the limit leaves out, named or found. A key that SCAN returns twice counts twice.
    pub left_out: u64,
    /// When the newest complete pass ended, by the clock that is handed in; `None` before the first.
    pub completed_at: Option<Duration>,
    /// How long that pass took.
    pub took: Option<Duration>,
}

/// Streams with names of more than [`MAX_SHOWN_BYTES`] that are found at most: a server can make up any number, of 4 kB each.
const MAX_LONG_NAMES: usize = 1000;

/// Finds the streams that patterns mean, and keeps them in mind between polls.
#[derive(Debug)]
pub struct Scanner {
    selection: StreamSelection,
    limit: usize,
    rate: ScanRate,
    /// Keys that one call looks at.
    count: u32,
    /// The names among the selection, for looking one up.
    literals: BTreeSet<StreamKey>,
    /// What patterns found and what is still there as far as is known, never more than there is room for.
    found: BTreeSet<StreamKey>,
    pass: Option<ScanPass>,
    /// What the newest complete pass left out.
    left_out: u64,
    streams: Vec<StreamKey>,
    stats: ScanStats,
}

/// A pass of SCAN that is under way.
#[derive(Debug)]
struct ScanPass {
    began: Duration,
    cursor: u64,
    /// What it has met so far, never more than there is room for.
    met: BTreeSet<StreamKey>,
    left_out: u64,
}

impl Scanner {
    /// Nothing is found yet. A new stream is to show within `interval`; `limit` is the most streams that are sampled, the
    /// named ones first.
    #[must_use]
    pub fn new(selection: StreamSelection, interval: Duration, limit: usize) -> Self {
        let mut scanner = Self {
            literals: selection.literals().iter().cloned().collect(),
            selection,
            limit,
            rate: ScanRate::new(interval),
            count: SCAN_COUNT,
            found: BTreeSet::new(),
            pass: None,
            left_out: 0,
            streams: Vec::new(),
            stats: ScanStats::default(),
        };
        scanner.changed();
        scanner
    }

    /// Goes by other settings from now on. What was found and is still meant stays; a pass begins at once.
    pub fn reconfigure(&mut self, selection: StreamSelection, interval: Duration, limit: usize) {
        self.literals = selection.literals().iter().cloned().collect();
        if selection.patterns() != self.selection.patterns() {
            // No pass has looked for these yet.
            (self.stats.completed_at, self.stats.took) = (None, None);
        }
        (self.selection, self.limit) = (selection, limit);
        self.found.retain(|key| self.selection.matches(key.as_bytes()) && !self.literals.contains(key));
        let room = self.room();
        while self.found.len() > room {
            self.found.pop_last();
        }
        self.rate.reconfigure(interval);
        self.count = SCAN_COUNT;
        self.interrupted();
    }

    /// The next call to make in this poll; `None` where enough is done, and then the poll is not to ask again. `now` counts
    /// from any fixed moment by a clock that never steps.
    pub fn next(&mut self, now: Duration) -> Option<ScanRequest> {
        if self.selection.patterns().is_empty() || !self.rate.may_ask(self.pass.is_some(), now) {
            return None;
        }
        let pass =
            self.pass.get_or_insert_with(|| ScanPass { began: now, cursor: 0, met: BTreeSet::new(), left_out: 0 });
        let pattern = self.selection.single_pattern().map(str::to_owned);
        Some(ScanRequest { cursor: pass.cursor, pattern, count: self.count })
    }

    /// The answer to the newest call was too much to be read: the next ones look at fewer keys. Whether they can.
    pub fn told_too_much(&mut self) -> bool {
        let fewer = self.count > 1;
        self.count = (self.count / FEWER).max(1);
        fewer
    }

    /// What Redis answered to the newest call: where to go on, and keys.
    pub fn answer<K: Into<StreamKey>>(&mut self, cursor: u64, keys: impl IntoIterator<Item = K>, now: Duration) {
        let Some(mut pass) = self.pass.take() else { return };
        let room = self.room();
        let mut long_names = None;
        for key in keys {
            let key = key.into();
            if !self.selection.matches(key.as_bytes()) || self.literals.contains(&key) {
                continue;
            }
            if is_long(&key) && !self.found.contains(&key) {
                let known = || self.found.iter().chain(&pass.met).filter(|key| is_long(key)).count();
                let count = long_names.get_or_insert_with(known);
                if *count >= MAX_LONG_NAMES {
                    pass.left_out += 1;
                    continue;
                }
                *count += 1;
            }
            // One allocation a name, however many passes meet it.
            let key = self.found.get(&key).cloned().unwrap_or(key);
            if self.found.len() < room {
                self.found.insert(key.clone());
            }
            pass.meet(key, room);
        }
        pass.cursor = cursor;
        if cursor == 0 {
            self.stats.completed_at = Some(now);
            self.stats.took = Some(now.saturating_sub(pass.began));
            self.rate.completed();
            self.found = pass.met;
            self.left_out = pass.left_out;
        } else {
            self.pass = Some(pass);
        }
    }

    /// The connection is another one, perhaps to another server: the cursor means nothing to it, so a pass begins at once.
    /// What was found stays until a complete pass has not met it.
    pub fn interrupted(&mut self) {
        self.pass = None;
        self.rate.interrupted();
    }

    /// A stream that another server had is here now: where it is meant, it counts as found.
    pub fn add_found(&mut self, key: StreamKey) {
        let is_meant = self.selection.matches(key.as_bytes()) && !self.literals.contains(&key);
        if !is_meant || self.found.len() >= self.room() {
            return;
        }
        // A pass that is under way may be past it.
        if let Some(pass) = &mut self.pass {
            pass.met.insert(key.clone());
        }
        self.found.insert(key);
    }

    /// Redis said that this found stream is not there, or is no stream: it is not sampled any more. Named streams stay.
    pub fn is_gone(&mut self, key: &StreamKey) {
        self.found.remove(key);
        if let Some(pass) = &mut self.pass {
            pass.met.remove(key);
        }
    }

    /// Brings [`streams`](Self::streams) up to date; whether that changed it.
    pub fn changed(&mut self) -> bool {
        let named = self.selection.literals().iter().take(self.limit);
        let found = self.found.iter().take(self.room());
        if named.clone().chain(found.clone()).eq(&self.streams) {
            return false;
        }
        self.streams = named.chain(found).cloned().collect();
        true
    }

    /// What to sample: the named streams in the order of the configuration, then those found by name.
    #[must_use]
    pub fn streams(&self) -> &[StreamKey] {
        &self.streams
    }

    /// How the search stands.
    #[must_use]
    pub fn stats(&self) -> ScanStats {
        let named_over = self.selection.literals().len().saturating_sub(self.limit) as u64;
        // Before the first pass is complete, what it has left out so far is all that is known.
        let so_far = self.pass.as_ref().filter(|_| self.stats.completed_at.is_none()).map_or(0, |pass| pass.left_out);
        ScanStats { found: self.found.len(), left_out: named_over + self.left_out.max(so_far), ..self.stats }
    }

    /// How many found streams may be sampled in addition to the named ones.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.selection.literals().len())
    }
}

/// Whether a name takes far more memory than names that people choose.
fn is_long(key: &StreamKey) -> bool {
    key.length() > MAX_SHOWN_BYTES as u64
}

impl ScanPass {
    /// Takes a key in, and lets the last one by name go where that is one too many.
    fn meet(&mut self, key: StreamKey, room: usize) {
        if self.met.insert(key) && self.met.len() > room {
            self.met.pop_last();
            self.left_out += 1;
        }
    }
}
