//! Logical streams: partitions that are one stream to those who use them, such as `orders:0` to `orders:63`, and what their
//! lags are together.

mod braces;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::analysis::group_state::GroupState;
use crate::analysis::logical_snapshot::{LogicalGroup, LogicalSnapshot, WorstPartition};
use crate::analysis::snapshot::{PresentGroup, StreamSnapshot};
use crate::model::glob::{any_matches, is_pattern};
use crate::model::lag::Lag;
use crate::model::thresholds::{Status, Thresholds};
use crate::model::{GroupName, StreamKey};

pub use braces::{MAX_EXPANDED_BYTES, MAX_NESTING, MAX_PARTITIONS};

/// Patterns with which one logical stream may look for its partitions. Every sampled stream is held against each of them
/// whenever streams come or go; names cost nothing like it.
pub const MAX_PATTERNS: usize = 100;

/// Why something is not the definition of a logical stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogicalProblem {
    /// There is no name, or nothing after it.
    #[error("expected NAME=PATTERN, such as orders=orders:{{0..63}} or orders=orders:*")]
    Form,
    /// A brace opens and does not close.
    #[error("a brace is not closed in {0}; write \\{{ for a brace that is meant")]
    Unclosed(String),
    /// A range that is none.
    #[error(
        "{0} is no range: expected whole numbers, the lower one first, such as {{0..63}}; write \\{{ for a brace that is meant"
    )]
    Range(String),
    /// Too many partitions.
    #[error("{0} stands for more than {MAX_PARTITIONS} partitions, or for more than 4 MiB of names")]
    Partitions(String),
    /// Too many patterns.
    #[error("{0} has more than {MAX_PATTERNS} patterns")]
    Patterns(String),
    /// Braces in braces in braces.
    #[error("braces are nested more than {MAX_NESTING} deep in {0}")]
    Nesting(String),
}

/// What a logical stream consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LogicalDefinition {
    name: Arc<str>,
    names: Vec<StreamKey>,
    patterns: Vec<String>,
}

/// Every logical stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogicalStreams {
    definitions: Vec<LogicalDefinition>,
    /// The logical streams of each partition that is named.
    named: BTreeMap<StreamKey, Vec<Arc<str>>>,
}

impl LogicalStreams {
    /// Reads definitions, `NAME=PATTERN` each. One name given several times is one logical stream of all it was given.
    ///
    /// # Errors
    /// Where one of them is none.
    pub fn parse(definitions: &[String]) -> Result<Self, LogicalProblem> {
        let pair = |text: &String| text.split_once('=').map(|(name, pattern)| (name.to_owned(), pattern.to_owned()));
        let pairs: Option<Vec<_>> = definitions.iter().map(pair).collect();
        Self::new(&pairs.ok_or(LogicalProblem::Form)?)
    }

    /// The same from names and their patterns.
    ///
    /// # Errors
    /// Where one of them is none.
    pub fn new(definitions: &[(String, String)]) -> Result<Self, LogicalProblem> {
        let mut streams = Self::default();
        for (name, pattern) in definitions {
            let (name, pattern) = (name.trim(), pattern.trim());
            if name.is_empty() || pattern.is_empty() {
                return Err(LogicalProblem::Form);
            }
            streams.define(name, braces::expand(pattern)?)?;
        }
        Ok(streams)
    }

    fn define(&mut self, name: &str, partitions: Vec<String>) -> Result<(), LogicalProblem> {
        let known = self.definitions.iter().position(|definition| &*definition.name == name);
        let place = known.unwrap_or_else(|| {
            self.definitions.push(LogicalDefinition { name: name.into(), names: Vec::new(), patterns: Vec::new() });
            self.definitions.len() - 1
        });
        let definition = &mut self.definitions[place];
        for partition in partitions {
            match literal(&partition) {
                Some(partition) => {
                    let of = self.named.entry(partition.clone()).or_default();
                    if !of.contains(&definition.name) {
                        of.push(Arc::clone(&definition.name));
                        definition.names.push(partition);
                    }
                }
                None if definition.patterns.contains(&partition) => {}
                None => definition.patterns.push(partition),
            }
        }
        if definition.names.len() > MAX_PARTITIONS {
            return Err(LogicalProblem::Partitions(name.to_owned()));
        }
        if definition.patterns.len() > MAX_PATTERNS {
            return Err(LogicalProblem::Patterns(name.to_owned()));
        }
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.definitions.is_empty()
    }

    /// The partitions that are named, which are to be sampled whether or not they exist.
    pub fn names(&self) -> impl Iterator<Item = &StreamKey> {
        self.definitions.iter().flat_map(|definition| &definition.names)
    }

    /// The patterns of the others, which are to be looked for.
    pub fn patterns(&self) -> impl Iterator<Item = &String> {
        self.definitions.iter().flat_map(|definition| &definition.patterns)
    }

    /// The names and the patterns of one of them.
    #[must_use]
    pub fn partitions(&self, name: &str) -> Option<(&[StreamKey], &[String])> {
        let found = self.definitions.iter().find(|definition| &*definition.name == name)?;
        Some((&found.names, &found.patterns))
    }

    /// The names of the logical streams that a stream is a partition of. It is held against all patterns: to be kept, and not asked for
    /// in every poll.
    #[must_use]
    pub fn of(&self, stream: &StreamKey) -> Arc<[Arc<str>]> {
        let mut names = self.named.get(stream).cloned().unwrap_or_default();
        let matches = |definition: &&LogicalDefinition| any_matches(&definition.patterns, stream.as_bytes());
        for LogicalDefinition { name, .. } in self.definitions.iter().filter(matches) {
            if !names.contains(name) {
                names.push(Arc::clone(name));
            }
        }
        names.into()
    }

    /// What the partitions are together, in a sample; `of` says what [`of`](Self::of) says of a stream.
    #[must_use]
    pub fn summarize(
        &self,
        sampled: &[StreamSnapshot],
        of: impl Fn(&StreamKey) -> Arc<[Arc<str>]>,
        thresholds: impl Fn(&str) -> Thresholds,
    ) -> Vec<LogicalSnapshot> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut partitions: HashMap<Arc<str>, Vec<&StreamSnapshot>> = HashMap::new();
        for stream in sampled {
            for name in &*of(&stream.key) {
                partitions.entry(Arc::clone(name)).or_default().push(stream);
            }
        }
        let snapshot = |LogicalDefinition { name, .. }: &LogicalDefinition| {
            let partitions = partitions.get(name).map_or(&[][..], Vec::as_slice);
            LogicalSnapshot { name: Arc::clone(name), groups: groups(partitions, thresholds(name)) }
        };
        self.definitions.iter().map(snapshot).collect()
    }
}

/// Splits a list of definitions at its commas, those in braces left alone.
#[must_use]
pub fn split_list(text: &str) -> Vec<&str> {
    let mut entries = Vec::new();
    let mut from = 0;
    for end in braces::commas_outside(text).chain([text.len()]) {
        entries.push(&text[from..end]);
        from = end + 1;
    }
    entries
}

/// The name that a pattern without wildcards means; `None` where it has some.
fn literal(pattern: &str) -> Option<StreamKey> {
    let mut name = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => name.push(characters.next().unwrap_or('\\')),
            _ if is_pattern(c.encode_utf8(&mut [0; 4])) => return None,
            _ => name.push(c),
        }
    }
    Some(name.as_str().into())
}

/// The groups of these partitions, each over all of them.
fn groups(partitions: &[&StreamSnapshot], thresholds: Thresholds) -> Vec<LogicalGroup> {
    let mut sums: BTreeMap<&GroupName, PartitionSum<'_>> = BTreeMap::new();
    for stream in partitions {
        for group in &stream.groups {
            let sum = sums.entry(&group.name).or_default();
            sum.state = sum.state.into_iter().chain(group.state()).max_by_key(|state| severity(*state));
            if let Some(present) = group.present().filter(|_| stream.read.is_ok()) {
                sum.add(&stream.key, present);
            }
        }
    }
    let count = partitions.len() as u64;
    sums.into_iter().map(|(name, sum)| sum.group(name.clone(), count, thresholds)).collect()
}

/// What the known partitions add up to so far.
#[derive(Default)]
struct PartitionSum<'a> {
    known: u64,
    lag: Lag,
    worst: Option<(u64, &'a StreamKey)>,
    lag_seconds: f64,
    /// Whether a partition's is missing.
    lag_seconds_unknown: bool,
    pending: u64,
    /// Whether a partition's is missing.
    pending_unknown: bool,
    state: Option<GroupState>,
}

impl<'a> PartitionSum<'a> {
    fn add(&mut self, key: &'a StreamKey, group: &PresentGroup) {
        let point = group.lag.point;
        self.known += 1;
        self.lag = self.lag.saturating_add(group.lag);
        // The first of several equals, so that the name does not jump about.
        if self.worst.is_none_or(|(worst, _)| point > worst) {
            self.worst = Some((point, key));
        }
        match group.lag_seconds {
            Some(seconds) => self.lag_seconds = self.lag_seconds.max(seconds),
            None => self.lag_seconds_unknown = true,
        }
        match group.pending {
            Some(pending) => self.pending = self.pending.saturating_add(pending),
            None => self.pending_unknown = true,
        }
    }

    fn group(self, name: GroupName, partitions: u64, thresholds: Thresholds) -> LogicalGroup {
        let unknown = partitions - self.known;
        // With partitions unknown the sum is a lower bound, and a lower bound of 0 says nothing.
        let says_something = self.known > 0 && (unknown == 0 || self.lag.point > 0);
        let worst = self.worst.filter(|_| says_something);
        let mean = self.lag.point as f64 / self.known as f64;
        let at_least = thresholds.status(self.lag.min);
        LogicalGroup {
            name,
            partitions,
            unknown,
            lag: says_something.then_some(self.lag),
            worst: worst.map(|(lag, key)| WorstPartition { stream: key.clone(), lag }),
            skew: worst.filter(|(lag, _)| *lag > 0).map(|(lag, _)| lag as f64 / mean),
            lag_seconds: (says_something && !self.lag_seconds_unknown).then_some(self.lag_seconds),
            pending: (self.known > 0 && !self.pending_unknown).then_some(self.pending),
            status: match at_least {
                _ if unknown == 0 && self.known > 0 => thresholds.status(self.lag.point),
                Status::Unhealthy => at_least,
                _ => Status::Unknown,
            },
            state: self.state,
        }
    }
}

/// How bad a state is compared with others, in the order in which `lag::state` decides between them.
fn severity(state: GroupState) -> u8 {
    match state {
        GroupState::Ok => 0,
        GroupState::AckStalled => 1,
        GroupState::Lagging => 2,
        GroupState::Stalled => 3,
        GroupState::Stopped => 4,
        GroupState::Rewound => 5,
        // Nothing can be read through it, and what it misses is unknown.
        GroupState::NoGroup => 6,
        GroupState::Losing => 7,
    }
}
