//! What the log has said, so that it says each change once and not every poll.

mod states;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::analysis::logical_snapshot::LogicalSnapshot;
use crate::analysis::snapshot::{Presence, TargetSnapshot};
use crate::analysis::view::OverLimits;
use crate::model::names::MAX_NAME_BYTES;
use crate::model::sample::{RefusedCommand, SampleError, ServerInfo};
use crate::model::{FailureReason, GroupName, StreamKey, StreamSelection};
use states::States;

/// A round trip counts as quick again below this share of its limit, so that one that hovers there is not news.
const QUICK_AGAIN: f64 = 0.5;

/// An interval counts as stretched from so many times the configured one on: a little is no news.
const STRETCHED: f64 = 1.5;

/// Lines about single streams, and about single groups, that one poll logs at most.
const LINES_PER_POLL: usize = 50;

/// Reasons why one node does not answer that are told apart: more only where each says something else, such as a time.
const REASONS_PER_NODE: usize = 8;

/// What the log has said.
#[derive(Debug, Default)]
pub(super) struct ChangeLogger {
    outage: Option<Outage>,
    server: Option<ServerInfo>,
    unreadable: BTreeMap<StreamKey, String>,
    /// Nodes that do not answer, and the first [`REASONS_PER_NODE`] reasons for it.
    nodes: BTreeMap<String, BTreeSet<String>>,
    missing: BTreeSet<(StreamKey, GroupName)>,
    states: States,
    refused: BTreeSet<RefusedCommand>,
    slow: bool,
    stretched: bool,
    /// Whether each of the limits bites: streams, groups, consumers.
    over: [bool; 3],
    /// The streams that were watched when the newest complete search ended, and when it did.
    watched: Arc<[StreamKey]>,
    searched: Option<SystemTime>,
    /// Whether some groups have names that are too long to ask about them.
    long_names: bool,
    /// Logical streams that nothing is known of.
    empty: BTreeSet<Arc<str>>,
}

/// Since when polls fail, and every reason for it so far.
#[derive(Debug)]
struct Outage {
    since: Instant,
    reasons: BTreeSet<FailureReason>,
}

/// Lines about single streams or groups, of which one poll says no more than a person reads.
#[derive(Default)]
struct LineLimit {
    lines: usize,
}

impl LineLimit {
    fn has_room(&mut self) -> bool {
        self.lines += 1;
        self.lines <= LINES_PER_POLL
    }

    /// How many more there were.
    fn rest(&self) -> Option<usize> {
        self.lines.checked_sub(LINES_PER_POLL).filter(|more| *more > 0)
    }
}

fn keys(snapshot: &TargetSnapshot) -> HashSet<&StreamKey> {
    snapshot.streams.iter().map(|stream| &stream.key).collect()
}

impl ChangeLogger {
    /// Nothing said yet, of these streams.
    pub(super) fn of(streams: &StreamSelection) -> Self {
        Self { watched: streams.literals().into(), ..Self::default() }
    }

    /// Another Redis is sampled: nothing has come or gone by that.
    pub(super) fn another(&mut self, streams: &StreamSelection) {
        (self.watched, self.searched) = (streams.literals().into(), None);
        self.states.clear();
    }

    /// A poll failed. Logged once per reason and outage: reasons may alternate, as where connections are now refused
    /// and now reset. The reason says what it is: a wrong password is an answer of Redis, too.
    pub(super) fn failure(&mut self, error: &SampleError) {
        let begins = || Outage { since: Instant::now(), reasons: BTreeSet::new() };
        if self.outage.get_or_insert_with(begins).reasons.insert(error.reason) {
            tracing::error!(reason = error.reason.as_str(), error = %error, "poll failed");
        }
    }

    /// A poll succeeded; logs what is different from the last time that one did.
    pub(super) fn sample(&mut self, snapshot: &TargetSnapshot, round_trip_limit: Duration) {
        let server = &snapshot.server;
        if let Some(outage) = self.outage.take() {
            tracing::info!(down_seconds = outage.since.elapsed().as_secs_f64(), "poll succeeded again");
        }
        if self.server.as_ref() != Some(server) {
            let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
            tracing::info!(server = known(&server.name), version = known(&server.version), "sampling");
            self.server = Some(server.clone());
        }
        self.nodes(snapshot);
        self.streams(snapshot);
        self.groups(snapshot);
        self.states.sample(snapshot);
        self.commands(snapshot);
        self.round_trip(snapshot.round_trip, round_trip_limit);
    }

    /// How many are left out because there are too many.
    pub(super) fn over_limits(&mut self, over: OverLimits) {
        let limits = [
            ("limit.streams", "streams are not sampled", over.streams),
            ("limit.groups", "groups are not monitored", over.groups),
            ("limit.consumers", "consumers are shown as a sum only", over.consumers),
        ];
        for ((limit, what, left_out), said) in limits.into_iter().zip(&mut self.over) {
            match (left_out > 0, *said) {
                (true, false) => tracing::warn!(limit, left_out, "limit exceeded: {what}"),
                (false, true) => tracing::info!(limit, "limit no longer exceeded"),
                _ => {}
            }
            *said = left_out > 0;
        }
    }

    /// Which streams are watched, where patterns look for them; once for each search, however quickly streams come and go.
    pub(super) fn watched(&mut self, streams: &Arc<[StreamKey]>, searched: SystemTime) {
        if self.searched.replace(searched) == Some(searched) || Arc::ptr_eq(&self.watched, streams) {
            return;
        }
        let [before, now] = [&self.watched, streams].map(|streams| streams.iter().collect::<HashSet<_>>());
        let (new, gone) = (now.difference(&before).count(), before.difference(&now).count());
        if new + gone > 0 {
            tracing::info!(new, gone, streams = streams.len(), "discovered streams changed");
        }
        self.watched = Arc::clone(streams);
    }

    /// What logical streams came to.
    pub(super) fn logical(&mut self, logical: &[LogicalSnapshot]) {
        let is_empty = |stream: &&LogicalSnapshot| stream.groups.is_empty();
        let empty: BTreeSet<Arc<str>> =
            logical.iter().filter(is_empty).map(|stream| Arc::clone(&stream.name)).collect();
        for name in empty.difference(&self.empty) {
            tracing::warn!(logical_stream = %name, "logical stream has no partition with a monitored group");
        }
        for name in self.empty.difference(&empty) {
            // Or it is not configured any more.
            if logical.iter().any(|stream| stream.name == *name) {
                tracing::info!(logical_stream = %name, "logical stream has partitions again");
            }
        }
        self.empty = empty;
    }

    /// How far polls are apart, and how far they should be.
    pub(super) fn interval(&mut self, configured: Duration, in_force: Duration) {
        // To the millisecond: the rest is noise.
        let seconds = in_force.as_millis() as f64 / 1000.0;
        if !self.stretched && in_force > configured.mul_f64(STRETCHED) {
            let wanted_seconds = configured.as_secs_f64();
            tracing::warn!(
                interval_seconds = seconds,
                wanted_seconds,
                "poll interval stretched to stay within poll.max-redis-share"
            );
            self.stretched = true;
        } else if self.stretched && in_force == configured {
            tracing::info!(interval_seconds = seconds, "poll interval back to the configured value");
            self.stretched = false;
        }
    }

    fn nodes(&mut self, snapshot: &TargetSnapshot) {
        self.nodes.retain(|address, _| {
            let node = snapshot.nodes.iter().find(|node| node.address == *address);
            match node {
                Some(node) if node.error.is_none() => tracing::info!(node = address, "node poll succeeded again"),
                Some(_) => return true,
                None => tracing::info!(node = address, "failed node is no longer a master"),
            }
            false
        });
        for node in &snapshot.nodes {
            let Some(error) = &node.error else { continue };
            let said = self.nodes.entry(node.address.clone()).or_default();
            if said.len() < REASONS_PER_NODE && said.insert(error.clone()) {
                tracing::error!(node = node.address, error, streams = node.streams, "node poll failed");
            }
        }
    }

    fn streams(&mut self, snapshot: &TargetSnapshot) {
        // What is the node's trouble was said of the node.
        let of_nodes: BTreeSet<String> = snapshot.nodes.iter().filter_map(|node| Some(node.why()?.0)).collect();
        let (mut worse, mut better) = (LineLimit::default(), LineLimit::default());
        for stream in &snapshot.streams {
            let said = self.unreadable.get(&stream.key);
            match &stream.read {
                Err(error) if of_nodes.contains(&error.0) => {}
                Err(error) if said != Some(&error.0) => {
                    if worse.has_room() {
                        tracing::warn!(stream = %stream.key, error = %error, "stream read failed");
                    }
                    self.unreadable.insert(stream.key.clone(), error.0.clone());
                }
                Ok(_) if said.is_some() => {
                    if better.has_room() {
                        tracing::info!(stream = %stream.key, "stream read succeeded again");
                    }
                    self.unreadable.remove(&stream.key);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(more) = worse.rest() {
            tracing::warn!(more, "more stream reads failed");
        }
        if let Some(more) = better.rest() {
            tracing::info!(more, "more stream reads succeeded again");
        }
        if !self.unreadable.is_empty() {
            let there = keys(snapshot);
            self.unreadable.retain(|key, _| there.contains(key));
        }
    }

    fn groups(&mut self, snapshot: &TargetSnapshot) {
        let (mut worse, mut better) = (LineLimit::default(), LineLimit::default());
        let mut long_names = 0;
        for stream in &snapshot.streams {
            for group in &stream.groups {
                long_names += usize::from(!group.name.is_whole());
                let place = || (stream.key.clone(), group.name.clone());
                match group.presence {
                    Presence::Missing => {
                        if self.missing.insert(place()) && worse.has_room() {
                            tracing::warn!(stream = %stream.key, consumer_group = %group.name, "consumer group not found");
                        }
                    }
                    Presence::Present(_) => {
                        if !self.missing.is_empty() && self.missing.remove(&place()) && better.has_room() {
                            tracing::info!(stream = %stream.key, consumer_group = %group.name, "consumer group found");
                        }
                    }
                    Presence::Unknown => {}
                }
            }
        }
        if long_names > 0 && !self.long_names {
            tracing::warn!(
                groups = long_names,
                longest = MAX_NAME_BYTES,
                "group names are too long; skipping their consumers and oldest pending entries"
            );
        }
        self.long_names = long_names > 0;
        if let Some(more) = worse.rest() {
            tracing::warn!(more, "more consumer groups not found");
        }
        if let Some(more) = better.rest() {
            tracing::info!(more, "more consumer groups found");
        }
        if !self.missing.is_empty() {
            let there = keys(snapshot);
            self.missing.retain(|(key, _)| there.contains(key));
        }
    }

    fn commands(&mut self, snapshot: &TargetSnapshot) {
        let refused: BTreeSet<RefusedCommand> = snapshot.refused.iter().copied().collect();
        for command in refused.difference(&self.refused) {
            let (command, without) = command.describe();
            tracing::warn!(command, without, "Redis command refused");
        }
        for command in self.refused.difference(&refused) {
            tracing::info!(command = command.describe().0, "Redis command allowed again");
        }
        self.refused = refused;
    }

    fn round_trip(&mut self, round_trip: Duration, limit: Duration) {
        let seconds = round_trip.as_secs_f64();
        if !self.slow && round_trip > limit {
            tracing::warn!(
                round_trip_seconds = seconds,
                limit_seconds = limit.as_secs_f64(),
                "Redis round trip exceeds the publish timeout"
            );
            self.slow = true;
        } else if self.slow && seconds < limit.as_secs_f64() * QUICK_AGAIN {
            tracing::info!(round_trip_seconds = seconds, "Redis round trip is within the publish timeout again");
            self.slow = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::analysis::snapshot::{GroupSnapshot, StreamSnapshot};
    use crate::model::sample::ReadError;

    pub(super) fn snapshot(streams: std::ops::Range<usize>) -> TargetSnapshot {
        let unreadable = |n: usize| StreamSnapshot {
            key: format!("s:{n}").as_str().into(),
            read: Err(ReadError("WRONGTYPE".to_owned())),
            groups: vec![GroupSnapshot { name: "g".into(), presence: Presence::Missing }],
            groups_left_out: 0,
        };
        TargetSnapshot {
            sampled_at: SystemTime::UNIX_EPOCH,
            server_now_ms: 0,
            server: ServerInfo::default(),
            round_trip: Duration::ZERO,
            streams: streams.map(unreadable).collect(),
            refused: Vec::new(),
            streams_left_out: 0,
            search: None,
            nodes: Vec::new(),
        }
    }

    #[test]
    fn streams_that_are_gone_are_forgotten() {
        let mut said = ChangeLogger::default();
        for from in [0, 500, 1000] {
            said.sample(&snapshot(from..from + 1000), Duration::MAX);
            assert_eq!((said.unreadable.len(), said.missing.len()), (1000, 1000));
        }
        assert!(said.unreadable.keys().all(|key| key.to_string() != "s:999"));
    }

    #[test]
    fn a_poll_logs_a_few_lines_about_single_streams_and_how_many_more_there_are() {
        let mut lines = LineLimit::default();
        assert_eq!((0..1000).filter(|_| lines.has_room()).count(), LINES_PER_POLL);
        assert_eq!(lines.rest(), Some(1000 - LINES_PER_POLL));
    }
}
