//! Compares each poll with what was told before. Pure: the caller tells the time and takes the events.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::analysis::changes::group_states::{GroupStates, keys};
use crate::analysis::changes::{Change, Limit};
use crate::analysis::logical_snapshot::LogicalSnapshot;
use crate::analysis::snapshot::{Presence, TargetSnapshot};
use crate::analysis::view::OverLimits;
use crate::model::sample::{ReadError, RefusedCommand, SampleError, ServerInfo};
use crate::model::{FailureReason, GroupName, StreamKey, StreamSelection};

/// Hysteresis of slow round trips: normal again below this share of the limit.
const NORMAL_SHARE: f64 = 0.5;

/// An interval counts as stretched from this multiple of the configured one on.
const STRETCHED: f64 = 1.5;

/// Reasons of one node that are told apart. More only come where each says something else, such as a time.
const REASONS_PER_NODE: usize = 8;

/// What was told, and so is not told again. Its memory is bounded by the newest snapshot.
#[derive(Debug, Default)]
pub struct ChangeDetector {
    outage: Option<Outage>,
    server: Option<ServerInfo>,
    unreadable: BTreeMap<StreamKey, ReadError>,
    /// Nodes that could not be sampled, and the first [`REASONS_PER_NODE`] reasons for it.
    nodes: BTreeMap<String, BTreeSet<String>>,
    missing: BTreeSet<(StreamKey, GroupName)>,
    states: GroupStates,
    refused: BTreeSet<RefusedCommand>,
    slow: bool,
    stretched: bool,
    exceeded: [bool; 3],
    /// The streams at the end of the newest complete search, and when it ended.
    discovered: HashSet<StreamKey>,
    searched: Option<SystemTime>,
    long_names: bool,
    /// Logical streams without a partition that has a monitored group.
    empty: BTreeSet<Arc<str>>,
}

/// When polls began to fail, on the caller's clock, and every reason for it so far.
#[derive(Debug)]
struct Outage {
    since: Duration,
    reasons: BTreeSet<FailureReason>,
}

impl ChangeDetector {
    /// Nothing told yet, of these streams.
    #[must_use]
    pub fn of(streams: &StreamSelection) -> Self {
        Self { discovered: streams.literals().iter().cloned().collect(), ..Self::default() }
    }

    /// Another Redis is sampled from now on: nothing comes or goes by that.
    pub fn retarget(&mut self, streams: &StreamSelection) {
        (self.discovered, self.searched) = (streams.literals().iter().cloned().collect(), None);
        self.states.clear();
    }

    /// A poll failed at `at`. Told once per reason and outage: reasons may alternate, as where connections are now refused and now
    /// reset.
    pub fn failure(&mut self, at: Duration, error: &SampleError, emit: &mut dyn FnMut(Change<'_>)) {
        let begin = || Outage { since: at, reasons: BTreeSet::new() };
        if self.outage.get_or_insert_with(begin).reasons.insert(error.reason) {
            emit(Change::PollFailed(error));
        }
    }

    /// A poll succeeded at `at`, with this snapshot.
    pub fn sample(
        &mut self,
        at: Duration,
        snapshot: &TargetSnapshot,
        round_trip_limit: Duration,
        emit: &mut dyn FnMut(Change<'_>),
    ) {
        if let Some(outage) = self.outage.take() {
            emit(Change::PollRecovered { down: at.saturating_sub(outage.since) });
        }
        let server = &snapshot.meta.server;
        if self.server.as_ref() != Some(server) {
            emit(Change::Server(server));
            self.server = Some(server.clone());
        }
        self.nodes(snapshot, emit);
        self.streams(snapshot, emit);
        self.groups(snapshot, emit);
        self.states.sample(snapshot, emit);
        self.commands(snapshot, emit);
        self.round_trip(snapshot.meta.round_trip, round_trip_limit, emit);
    }

    /// How many are left out because there are too many.
    pub fn over_limits(&mut self, over: OverLimits, emit: &mut dyn FnMut(Change<'_>)) {
        let limits = [(Limit::Streams, over.streams), (Limit::Groups, over.groups), (Limit::Consumers, over.consumers)];
        for ((limit, left_out), exceeded) in limits.into_iter().zip(&mut self.exceeded) {
            match (left_out > 0, *exceeded) {
                (true, false) => emit(Change::LimitExceeded { limit, left_out }),
                (false, true) => emit(Change::LimitKept(limit)),
                _ => {}
            }
            *exceeded = left_out > 0;
        }
    }

    /// Which streams are sampled where patterns look for them; `searched` is when the newest complete search ended. Told once per
    /// search, however quickly streams come and go.
    pub fn discovered<'a>(
        &mut self,
        streams: impl Iterator<Item = &'a StreamKey>,
        searched: SystemTime,
        emit: &mut dyn FnMut(Change<'_>),
    ) {
        if self.searched.replace(searched) == Some(searched) {
            return;
        }
        let (before, now) = (&self.discovered, streams.cloned().collect::<HashSet<_>>());
        let (new, gone) = (now.difference(before).count(), before.difference(&now).count());
        if new + gone > 0 {
            emit(Change::StreamsDiscovered { new, gone, streams: now.len() });
        }
        self.discovered = now;
    }

    /// What the logical streams came to.
    pub fn logical(&mut self, logical: &[LogicalSnapshot], emit: &mut dyn FnMut(Change<'_>)) {
        let is_empty = |stream: &&LogicalSnapshot| stream.groups.is_empty();
        let empty: BTreeSet<Arc<str>> =
            logical.iter().filter(is_empty).map(|stream| Arc::clone(&stream.name)).collect();
        for name in empty.difference(&self.empty) {
            emit(Change::LogicalStreamEmpty(name));
        }
        for name in self.empty.difference(&empty) {
            // Or it is not configured any more.
            if logical.iter().any(|stream| stream.name == *name) {
                emit(Change::LogicalStreamFilled(name));
            }
        }
        self.empty = empty;
    }

    /// The configured time between polls, and the one in force.
    pub fn interval(&mut self, configured: Duration, in_force: Duration, emit: &mut dyn FnMut(Change<'_>)) {
        if !self.stretched && in_force > configured.mul_f64(STRETCHED) {
            emit(Change::IntervalStretched { in_force, configured });
            self.stretched = true;
        } else if self.stretched && in_force == configured {
            emit(Change::IntervalRestored { in_force });
            self.stretched = false;
        }
    }

    fn nodes(&mut self, snapshot: &TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) {
        self.nodes.retain(|address, _| {
            match snapshot.meta.nodes.iter().find(|node| node.address == *address) {
                Some(node) if node.error.is_none() => emit(Change::NodeRecovered { address }),
                Some(_) => return true,
                None => emit(Change::NodeGone { address }),
            }
            false
        });
        for node in &snapshot.meta.nodes {
            let Some(error) = &node.error else { continue };
            let told = self.nodes.entry(node.address.clone()).or_default();
            if told.len() < REASONS_PER_NODE && told.insert(error.clone()) {
                emit(Change::NodeFailed { address: &node.address, error, streams: node.streams });
            }
        }
    }

    fn streams(&mut self, snapshot: &TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) {
        // A node's trouble is told of the node.
        let of_nodes: Vec<ReadError> = snapshot.meta.nodes.iter().filter_map(|node| node.why()).collect();
        for stream in &snapshot.streams {
            let told = self.unreadable.get(&stream.key);
            match &stream.read {
                Err(error) if of_nodes.contains(error) => {}
                Err(error) if told != Some(error) => {
                    emit(Change::StreamUnreadable { stream: &stream.key, error });
                    self.unreadable.insert(stream.key.clone(), error.clone());
                }
                Ok(_) if told.is_some() => {
                    emit(Change::StreamReadable { stream: &stream.key });
                    self.unreadable.remove(&stream.key);
                }
                Ok(_) | Err(_) => {}
            }
        }
        if !self.unreadable.is_empty() {
            let there = keys(snapshot);
            self.unreadable.retain(|key, _| there.contains(key));
        }
    }

    fn groups(&mut self, snapshot: &TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) {
        let mut long_names = 0;
        for stream in &snapshot.streams {
            for group in &stream.groups {
                long_names += usize::from(!group.name.is_whole());
                let place = || (stream.key.clone(), group.name.clone());
                match group.presence {
                    Presence::Missing => {
                        if self.missing.insert(place()) {
                            emit(Change::GroupMissing { stream: &stream.key, group: &group.name });
                        }
                    }
                    Presence::Present(_) => {
                        if !self.missing.is_empty() && self.missing.remove(&place()) {
                            emit(Change::GroupFound { stream: &stream.key, group: &group.name });
                        }
                    }
                    Presence::Unknown => {}
                }
            }
        }
        if long_names > 0 && !self.long_names {
            emit(Change::LongGroupNames { groups: long_names });
        }
        self.long_names = long_names > 0;
        if !self.missing.is_empty() {
            let there = keys(snapshot);
            self.missing.retain(|(key, _)| there.contains(key));
        }
    }

    fn commands(&mut self, snapshot: &TargetSnapshot, emit: &mut dyn FnMut(Change<'_>)) {
        let refused: BTreeSet<RefusedCommand> = snapshot.meta.refused.iter().copied().collect();
        refused.difference(&self.refused).for_each(|command| emit(Change::CommandRefused(*command)));
        self.refused.difference(&refused).for_each(|command| emit(Change::CommandAllowed(*command)));
        self.refused = refused;
    }

    fn round_trip(&mut self, round_trip: Duration, limit: Duration, emit: &mut dyn FnMut(Change<'_>)) {
        if !self.slow && round_trip > limit {
            emit(Change::RoundTripSlow { round_trip, limit });
            self.slow = true;
        } else if self.slow && round_trip.as_secs_f64() < limit.as_secs_f64() * NORMAL_SHARE {
            emit(Change::RoundTripNormal { round_trip });
            self.slow = false;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::analysis::group_state::GroupState;
    use crate::analysis::logical_snapshot::LogicalGroup;
    use crate::analysis::snapshot::tests::{present_group, stream_facts};
    use crate::analysis::snapshot::{GroupSnapshot, StreamSnapshot};
    use crate::model::lag::Lag;
    use crate::model::sample::{NodeStatus, TargetMeta};
    use crate::model::thresholds::Status;

    const NOW: Duration = Duration::ZERO;
    const MS: Duration = Duration::from_millis(1);

    pub(in crate::analysis::changes) fn snapshot(streams: std::ops::Range<usize>) -> TargetSnapshot {
        let unreadable = |n: usize| StreamSnapshot {
            key: format!("s:{n}").as_str().into(),
            read: Err(ReadError::Server("WRONGTYPE".to_owned())),
            groups: vec![GroupSnapshot { name: "g".into(), presence: Presence::Missing }],
            groups_left_out: 0,
        };
        TargetSnapshot { meta: TargetMeta::at(SystemTime::UNIX_EPOCH), streams: streams.map(unreadable).collect() }
    }

    fn told(detector: &mut ChangeDetector, snapshot: &TargetSnapshot) -> Vec<String> {
        let mut told = Vec::new();
        detector.sample(NOW, snapshot, MS, &mut |change| told.push(format!("{change:?}")));
        told
    }

    fn kinds(told: &[String]) -> Vec<&str> {
        told.iter().map(|change| change.split([' ', '(']).next().unwrap()).collect()
    }

    #[test]
    fn streams_that_are_gone_are_forgotten() {
        let mut detector = ChangeDetector::default();
        for from in [0, 500, 1000] {
            told(&mut detector, &snapshot(from..from + 1000));
            assert_eq!((detector.unreadable.len(), detector.missing.len()), (1000, 1000));
        }
        assert!(detector.unreadable.keys().all(|key| key.to_string() != "s:999"));
    }

    #[test]
    fn long_names_of_groups_are_told_once_until_there_are_none() {
        let mut detector = ChangeDetector::default();
        let of = |length: usize| {
            let mut snapshot = snapshot(0..1);
            snapshot.streams[0].groups[0].name = vec![b'g'; length].as_slice().into();
            snapshot
        };
        // Longer than what Redis is asked about.
        let long = of(5000);
        let is_told = |snapshot: &TargetSnapshot| kinds(&told(&mut detector, snapshot)).contains(&"LongGroupNames");
        let seen = [&long, &long, &long, &of(1), &long, &long].map(is_told);
        assert_eq!(seen, [true, false, false, false, true, false]);
    }

    #[test]
    fn each_change_is_told_once() {
        let mut detector = ChangeDetector::default();
        let before = snapshot(0..1);
        assert_eq!(kinds(&told(&mut detector, &before)), ["Server", "StreamUnreadable", "GroupMissing"]);
        assert!(told(&mut detector, &before).is_empty());
        let mut other = before.clone();
        other.streams[0].read = Err(ReadError::Server("NOPERM".to_owned()));
        assert_eq!(kinds(&told(&mut detector, &other)), ["StreamUnreadable"], "another reason is news");
        other.meta.refused = vec![RefusedCommand::Time];
        (other.meta.round_trip, other.meta.server.version) = (2 * MS, "8.0".to_owned());
        assert_eq!(kinds(&told(&mut detector, &other)), ["Server", "CommandRefused", "RoundTripSlow"]);
        other.meta.round_trip = MS;
        assert!(told(&mut detector, &other).is_empty(), "within the limit, and not clearly");
        other.meta.round_trip = MS / 4;
        other.meta.refused.clear();
        assert_eq!(kinds(&told(&mut detector, &other)), ["CommandAllowed", "RoundTripNormal"]);
    }

    #[test]
    fn an_outage_tells_each_reason_once_and_how_long_it_was() {
        let mut detector = ChangeDetector::default();
        let mut told = Vec::new();
        let fail = |reason| SampleError { reason, detail: String::new() };
        let reasons = [FailureReason::Connect, FailureReason::Io, FailureReason::Connect, FailureReason::Io];
        for (n, reason) in (5..).zip(reasons) {
            detector.failure(n * MS, &fail(reason), &mut |change| told.push(format!("{change:?}")));
        }
        assert_eq!(kinds(&told), ["PollFailed", "PollFailed"]);
        let mut down = None;
        detector.sample(25 * MS, &snapshot(0..0), MS, &mut |change| {
            if let Change::PollRecovered { down: time } = change {
                down = Some(time);
            }
        });
        assert_eq!(down, Some(20 * MS));
        detector.failure(NOW, &fail(FailureReason::Io), &mut |change| told.push(format!("{change:?}")));
        assert_eq!(told.len(), 3, "another outage");
    }

    #[test]
    fn a_node_s_trouble_is_told_of_the_node_and_not_of_its_streams() {
        let mut detector = ChangeDetector::default();
        let node = |error: Option<&str>| NodeStatus {
            address: "a:1".to_owned(),
            streams: 1,
            error: error.map(ToOwned::to_owned),
        };
        let mut failing = snapshot(0..1);
        failing.meta.nodes = vec![node(Some("refused"))];
        failing.streams[0].read = Err(failing.meta.nodes[0].why().unwrap());
        failing.streams[0].groups.clear();
        assert_eq!(kinds(&told(&mut detector, &failing)), ["Server", "NodeFailed"]);
        for n in 0..2 * REASONS_PER_NODE {
            failing.meta.nodes = vec![node(Some(&format!("refused {n}")))];
            failing.streams.clear();
            assert_eq!(told(&mut detector, &failing).len(), usize::from(n + 1 < REASONS_PER_NODE), "{n}");
        }
        failing.meta.nodes = vec![node(None)];
        assert_eq!(kinds(&told(&mut detector, &failing)), ["NodeRecovered"]);
        failing.meta.nodes = vec![node(Some("refused"))];
        told(&mut detector, &failing);
        failing.meta.nodes.clear();
        assert_eq!(kinds(&told(&mut detector, &failing)), ["NodeGone"]);
    }

    #[test]
    fn limits_and_intervals_are_told_where_they_begin_and_where_they_end() {
        let mut detector = ChangeDetector::default();
        let mut told = Vec::new();
        let mut emit = |change: Change<'_>| told.push(format!("{change:?}"));
        let over = |groups| OverLimits { groups, ..OverLimits::default() };
        for groups in [0, 3, 4, 0, 0] {
            detector.over_limits(over(groups), &mut emit);
        }
        for in_force in [10, 15, 16, 11, 10, 10] {
            detector.interval(10 * MS, in_force * MS, &mut emit);
        }
        let expected = [
            "LimitExceeded { limit: Groups, left_out: 3 }",
            "LimitKept(Groups)",
            "IntervalStretched { in_force: 16ms, configured: 10ms }",
            "IntervalRestored { in_force: 10ms }",
        ];
        assert_eq!(told, expected);
    }

    pub(in crate::analysis::changes) fn in_state(state: GroupState) -> Presence {
        let mut group = present_group(Lag::exact(7));
        group.trend.verdict.state = state;
        Presence::Present(Box::new(group))
    }

    #[test]
    fn a_stream_that_can_be_read_again_is_told_once() {
        let mut detector = ChangeDetector::default();
        let unreadable = snapshot(0..1);
        let mut readable = unreadable.clone();
        readable.streams[0].read = Ok(stream_facts());
        assert_eq!(kinds(&told(&mut detector, &readable)), ["Server", "GroupMissing"]);
        assert_eq!(kinds(&told(&mut detector, &unreadable)), ["StreamUnreadable"]);
        assert_eq!(kinds(&told(&mut detector, &readable)), ["StreamReadable"]);
        assert_eq!(told(&mut detector, &readable), [""; 0]);
    }

    #[test]
    fn a_group_that_is_there_again_is_told_once() {
        let mut detector = ChangeDetector::default();
        let missing = snapshot(0..2);
        told(&mut detector, &missing);
        let mut found = missing.clone();
        found.streams[1].groups[0].presence = in_state(GroupState::Ok);
        assert_eq!(told(&mut detector, &found), [r#"GroupFound { stream: "s:1", group: "g" }"#]);
        assert_eq!(told(&mut detector, &found), [""; 0], "the other is missing still");
        assert_eq!(told(&mut detector, &missing), [r#"GroupMissing { stream: "s:1", group: "g" }"#]);
    }

    #[test]
    fn a_round_trip_is_slow_over_the_limit_and_normal_below_half_of_it() {
        let mut detector = ChangeDetector::default();
        let mut told = Vec::new();
        for round_trip in [10, 11, 12, 5, 4, 4] {
            let mut emit = |change: Change<'_>| told.push(format!("{change:?}"));
            detector.round_trip(round_trip * MS, 10 * MS, &mut emit);
        }
        let expected = ["RoundTripSlow { round_trip: 11ms, limit: 10ms }", "RoundTripNormal { round_trip: 4ms }"];
        assert_eq!(told, expected);
    }

    /// What a search that ended at this second is told to have found.
    fn search(detector: &mut ChangeDetector, second: u64, streams: &[&str]) -> Vec<(usize, usize, usize)> {
        let streams: Vec<StreamKey> = streams.iter().map(|name| (*name).into()).collect();
        let mut told = Vec::new();
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        detector.discovered(streams.iter(), ended, &mut |change| {
            let Change::StreamsDiscovered { new, gone, streams } = change else { panic!("{change:?}") };
            told.push((new, gone, streams));
        });
        told
    }

    fn selection(streams: &[&str]) -> StreamSelection {
        StreamSelection::new(&streams.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn streams_that_come_and_go_are_told_once_per_search() {
        let mut detector = ChangeDetector::of(&selection(&["named", "s:*"]));
        assert_eq!(search(&mut detector, 1, &["named", "s:1", "s:2"]), [(2, 0, 3)], "a named one is not new");
        assert_eq!(search(&mut detector, 1, &["named"]), [], "the search is the same");
        assert_eq!(search(&mut detector, 2, &["named", "s:1", "s:2"]), []);
        assert_eq!(search(&mut detector, 3, &["named", "s:3"]), [(1, 2, 2)]);
        assert_eq!(search(&mut detector, 4, &["named"]), [(0, 1, 1)]);
    }

    #[test]
    fn by_another_redis_no_stream_comes_or_goes_and_states_are_news() {
        let mut detector = ChangeDetector::of(&selection(&["named", "s:*"]));
        let mut stopped = snapshot(0..1);
        stopped.streams[0].groups[0].presence = in_state(GroupState::Stopped);
        assert_eq!(kinds(&told(&mut detector, &stopped)), ["Server", "StreamUnreadable", "GroupState"]);
        search(&mut detector, 1, &["named", "s:1", "s:2"]);
        detector.retarget(&selection(&["other", "s:*"]));
        assert_eq!(search(&mut detector, 1, &["other", "s:1"]), [(1, 0, 2)]);
        assert_eq!(kinds(&told(&mut detector, &stopped)), ["GroupState"]);
    }

    #[test]
    fn a_logical_stream_is_told_where_it_becomes_empty_and_where_it_is_filled() {
        let logical = |name: &str, groups: usize| {
            let group = LogicalGroup {
                name: "g".into(),
                partitions: 1,
                unknown: 1,
                lag: None,
                worst: None,
                skew: None,
                lag_seconds: None,
                pending: None,
                status: Status::Unknown,
                state: None,
            };
            LogicalSnapshot { name: name.into(), groups: vec![group; groups] }
        };
        let mut detector = ChangeDetector::default();
        let mut tell = |streams: &[LogicalSnapshot]| {
            let mut told = Vec::new();
            detector.logical(streams, &mut |change| told.push(format!("{change:?}")));
            told
        };
        let (empty, filled) = ([r#"LogicalStreamEmpty("a")"#], [r#"LogicalStreamFilled("a")"#]);
        assert_eq!(tell(&[logical("a", 0), logical("b", 1)]), empty);
        assert_eq!(tell(&[logical("a", 0), logical("b", 1)]), [""; 0]);
        assert_eq!(tell(&[logical("a", 2), logical("b", 1)]), filled);
        assert_eq!(tell(&[logical("a", 1), logical("b", 2)]), [""; 0]);
        assert_eq!(tell(&[logical("a", 0), logical("b", 1)]), empty);
        assert_eq!(tell(&[logical("b", 1)]), [""; 0], "it is not configured any more");
    }
}
