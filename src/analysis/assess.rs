//! From samples to a snapshot: what the numbers mean. Pure, but for what it remembers of the samples before.

use std::cmp::Reverse;
use std::time::Duration;

use crate::analysis::consumers::{Recommendation, Work, drain_seconds, ghost_pending, is_awake};
use crate::analysis::group_history::{GroupHistory, GroupTrend, StreamHistory, StreamRates};
use crate::analysis::snapshot::{
    ConsumerSnapshot, GroupSnapshot, Overflow, Presence, PresentGroup, StreamFacts, StreamSnapshot, TargetSnapshot,
};
use crate::analysis::trimming::Trimming;
use crate::analysis::window::Windows;
use crate::model::lag::Lag;
use crate::model::reply::ConsumerReply;
use crate::model::sample::{GroupSample, ReadError, StreamSample, TargetSample};
use crate::model::{GroupName, GroupSelection, OfStream, StreamKey, carry_over};

/// Makes snapshots of samples.
#[derive(Debug)]
pub struct Assessor {
    selection: GroupSelection,
    windows: Windows,
    bounds: Bounds,
    /// The streams and what was seen of each, in the order in which they are sampled.
    streams: Vec<StreamAnalysis>,
}

/// What the operator says of streams and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The length to which streams are trimmed, where it is known.
    pub max_length: Option<u64>,
    /// Consumers of a group that are shown one by one at most.
    pub consumers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_length: None, consumers: usize::MAX }
    }
}

/// What was seen of a stream so far.
#[derive(Debug)]
struct StreamAnalysis {
    key: StreamKey,
    stream: StreamHistory,
    trimming: Trimming,
    /// In order of their names.
    groups: Vec<(GroupName, GroupHistory)>,
    /// The newest snapshot, where the stream is not sampled every time.
    carried: Option<StreamSnapshot>,
}

impl OfStream for StreamAnalysis {
    fn new(key: StreamKey) -> Self {
        Self { key, stream: StreamHistory::default(), trimming: Trimming::default(), groups: Vec::new(), carried: None }
    }

    fn key(&self) -> &StreamKey {
        &self.key
    }
}

impl Assessor {
    /// An assessor that has seen nothing yet.
    #[must_use]
    pub fn new(keys: Vec<StreamKey>, selection: GroupSelection, windows: Windows, bounds: Bounds) -> Self {
        let streams = keys.into_iter().map(StreamAnalysis::new).collect();
        Self { selection, windows, bounds, streams }
    }

    /// Goes by other settings from now on, and keeps what was seen of the streams.
    pub fn reconfigure(&mut self, selection: GroupSelection, windows: Windows, bounds: Bounds) {
        (self.selection, self.windows, self.bounds) = (selection, windows, bounds);
    }

    /// The streams, in the order in which they are sampled.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &StreamKey> {
        self.streams.iter().map(|stream| &stream.key)
    }

    /// Sees these streams from now on, and keeps what was seen of those that stay.
    pub fn follow_streams(&mut self, keys: &[StreamKey]) {
        carry_over(&mut self.streams, keys);
    }

    /// Says what the sample of one stream means, by its place, that was taken at `at`, counted from any fixed moment by a clock
    /// that never steps.
    #[must_use]
    pub fn stream(&mut self, place: usize, read: Result<StreamSample, ReadError>, at: Duration) -> StreamSnapshot {
        let Self { selection, windows, bounds, streams } = self;
        let now_ms = read.as_ref().map_or(0, |stream| stream.now_ms);
        let context = SampleContext { now_ms, at, selection, windows, bounds: *bounds };
        context.stream(read, &mut streams[place])
    }

    /// Says what a whole sample means.
    #[must_use]
    pub fn assess(&mut self, sample: TargetSample, at: Duration) -> TargetSnapshot {
        let streams = sample.streams.into_iter().enumerate();
        let streams = streams.map(|(place, (_, read))| self.stream(place, read, at)).collect();
        TargetSnapshot { meta: sample.meta, streams }
    }
}

/// A snapshot's streams when none of them can be read, for `error`'s reason.
#[must_use]
pub fn all_unreadable(keys: &[StreamKey], selection: &GroupSelection, error: &ReadError) -> Vec<StreamSnapshot> {
    keys.iter().map(|key| unreadable(key.clone(), selection, error.clone())).collect()
}

fn unreadable(key: StreamKey, selection: &GroupSelection, error: ReadError) -> StreamSnapshot {
    let unknown = |name: &GroupName| GroupSnapshot { name: name.clone(), presence: Presence::Unknown };
    StreamSnapshot {
        key,
        read: Err(error),
        groups: selection.literals().iter().map(unknown).collect(),
        groups_left_out: 0,
    }
}

/// What every stream of a sample shares.
struct SampleContext<'a> {
    now_ms: u64,
    at: Duration,
    selection: &'a GroupSelection,
    windows: &'a Windows,
    bounds: Bounds,
}

impl SampleContext<'_> {
    fn stream(&self, read: Result<StreamSample, ReadError>, seen: &mut StreamAnalysis) -> StreamSnapshot {
        let mut stream = match read {
            Ok(stream) => stream,
            Err(error) => {
                *seen = StreamAnalysis::new(seen.key.clone());
                return unreadable(seen.key.clone(), self.selection, error);
            }
        };
        if let Some(carried) = seen.carried.clone().filter(|_| stream.carried) {
            return self.carry_on(carried, &stream);
        }
        let rates = seen.stream.take(&stream, self.at, self.windows);
        let all = {
            let mut groups = std::mem::take(&mut stream.groups);
            // Redis lists them in this order.
            if !groups.is_sorted_by(|one, next| one.name <= next.name) {
                groups.sort_by(|one, other| one.name.cmp(&other.name));
            }
            for group in groups.iter_mut().filter(|group| group.unknown.consumers) {
                // Whether there are none is unknown, so nothing follows from it.
                group.consumers = group.members.as_ref().map_or(1, |members| members.len() as u64);
            }
            groups
        };
        let group_count = all.len() as u64;
        let is_there = |name: &GroupName| all.binary_search_by(|group| group.name.cmp(name)).is_ok();
        let missing: Vec<GroupName> =
            self.selection.literals().iter().filter(|name| !is_there(name)).cloned().collect();
        let monitored = || all.iter().filter(|group| group.is_monitored());
        if !monitored().map(|group| &group.name).eq(seen.groups.iter().map(|(name, _)| name)) {
            let mut before = std::mem::take(&mut seen.groups).into_iter().peekable();
            seen.groups.reserve_exact(monitored().count());
            for group in monitored() {
                while before.next_if(|(name, _)| *name < group.name).is_some() {}
                let known = before.next_if(|(name, _)| *name == group.name).map(|(_, history)| history);
                let history = known.unwrap_or_else(|| GroupHistory::new(&stream, group, self.at));
                seen.groups.push((group.name.clone(), history));
            }
        }
        let mut groups = Vec::with_capacity(missing.len() + seen.groups.len());
        for (group, (_, history)) in all.iter().filter(|group| group.is_monitored()).zip(&mut seen.groups) {
            if group.unknown.last_delivered {
                // What it was before cannot be compared with it: it would look as if it had been set back.
                *history = GroupHistory::new(&stream, group, self.at);
            }
        }
        let lost_before: u64 = seen.groups.iter().map(|(_, history)| history.lost()).fold(0, u64::saturating_add);
        let mut present = Vec::with_capacity(seen.groups.len());
        for (group, (_, history)) in all.iter().filter(|group| group.is_monitored()).zip(&mut seen.groups) {
            let awake = awake(group, self.windows);
            let mut trend = history.take(&stream, group, self.at, awake, self.windows);
            if group.unknown.pending {
                trend.acknowledged_rate = None;
            }
            present.push((awake, trend));
        }
        let lost = seen.groups.iter().map(|(_, history)| history.lost()).fold(0, u64::saturating_add) > lost_before;
        let spares = seen.trimming.take(&stream, &all, lost, self.at, self.windows);
        let monitored = all.into_iter().filter(GroupSample::is_monitored);
        for (group, (awake, trend)) in monitored.zip(present) {
            let name = group.name.clone();
            let presence = Presence::Present(Box::new(self.group(&stream, (rates, spares), group, awake, trend)));
            groups.push(GroupSnapshot { name, presence });
        }
        if !missing.is_empty() {
            groups.extend(missing.into_iter().map(|name| GroupSnapshot { name, presence: Presence::Missing }));
            groups.sort_by(|one, other| one.name.cmp(&other.name));
        }
        let snapshot = StreamSnapshot {
            key: seen.key.clone(),
            read: Ok(StreamFacts {
                length: stream.reply.length,
                groups: group_count,
                first: stream.reply.first,
                last: stream.reply.last,
                now_ms: self.now_ms,
                idle_times_hold: seen.stream.idle_times_hold(self.at, self.windows),
                entries_added: stream.reply.entries_added,
                rates,
                safe_to_trim: stream.safe_to_trim.take(),
            }),
            groups,
            groups_left_out: stream.groups_left_out,
        };
        seen.carried = stream.may_be_carried.then(|| snapshot.clone());
        snapshot
    }

    /// A stream of which this sample tells the length and the groups only: the rest is as it was.
    fn carry_on(&self, mut snapshot: StreamSnapshot, stream: &StreamSample) -> StreamSnapshot {
        if let Ok(facts) = &mut snapshot.read {
            facts.length = stream.reply.length;
            facts.groups = stream.groups.len() as u64;
            facts.safe_to_trim = None;
        }
        let is_there = |name: &GroupName| stream.groups.iter().any(|group| group.name == *name);
        snapshot.groups.retain(|group| is_there(&group.name) || self.selection.literals().contains(&group.name));
        for group in &mut snapshot.groups {
            let now = stream.groups.iter().find(|now| now.name == group.name);
            group.presence = match (std::mem::replace(&mut group.presence, Presence::Missing), now) {
                (Presence::Present(known), Some(now)) => Presence::Present(Box::new(PresentGroup {
                    lag: Lag::within_length(stream.reply.length),
                    lag_seconds: None,
                    oldest_pending_seconds: now.oldest_pending.and_then(|id| id.age_seconds(self.now_ms)),
                    oldest_pending: now.oldest_pending.map(|id| (id, now.oldest_pending_consumer.clone())),
                    oldest_pending_deliveries: now.oldest_pending_deliveries,
                    unowned_pending: now.unowned_pending,
                    consumers: (!now.unknown.consumers).then_some(now.consumers),
                    pending: (!now.unknown.pending).then_some(now.pending),
                    last_delivered: (!now.unknown.last_delivered).then_some(now.last_delivered),
                    entries_read: now.entries_read,
                    trim_headroom_entries: Some(0),
                    trim_headroom_seconds: None,
                    ghost_pending: None,
                    drain_seconds: None,
                    ..*known
                })),
                (_, Some(_)) => Presence::Unknown,
                (_, None) => Presence::Missing,
            };
        }
        snapshot
    }

    fn group(
        &self,
        stream: &StreamSample,
        (rates, spares): (StreamRates, bool),
        mut group: GroupSample,
        awake: Option<u64>,
        trend: GroupTrend,
    ) -> PresentGroup {
        let lag = group.resolved.unwrap_or_default().lag;
        let lag_seconds = self.lag_seconds(stream, &group);
        let tells_attempts = group.members.iter().flatten().any(|consumer| consumer.inactive_ms.is_some());
        let members = group.members.take();
        let work = Work {
            // The age of the oldest undelivered entry is proof; lag at every sample is not, but the best where ids are no clocks.
            waiting_seconds: trend.behind_for.map(|behind| lag_seconds.unwrap_or(behind.as_secs_f64())),
            // Before 7.2 a consumer that tries and gets nothing looks idle.
            turn_seconds: trend.all_had_a_turn_within.filter(|_| tells_attempts).map(|within| within.as_secs_f64()),
            pending: group.pending,
            consumers: group.consumers,
        };
        // What is above the length to which the stream is trimmed may go at any moment.
        let kept = self.bounds.max_length.map_or(stream.reply.length, |max| max.min(stream.reply.length));
        let headroom = kept.saturating_sub(lag.max);
        let trimmed = rates.trimmed.filter(|rate| *rate > 0.0 && !spares);
        let mut members = members.map(|members| self.members(members, &group, &work));
        let dead = members.as_deref().map(dead_consumers);
        let overflow = members.as_mut().and_then(|members| overflow(members, self.bounds.consumers));
        PresentGroup {
            lag,
            lag_seconds,
            oldest_pending_seconds: group.oldest_pending.and_then(|id| id.age_seconds(self.now_ms)),
            oldest_pending: group.oldest_pending.map(|id| (id, group.oldest_pending_consumer.take())),
            oldest_pending_deliveries: group.oldest_pending_deliveries,
            unowned_pending: group.unowned_pending,
            consumers: (!group.unknown.consumers).then_some(group.consumers),
            pending: (!group.unknown.pending).then_some(group.pending),
            last_delivered: (!group.unknown.last_delivered).then_some(group.last_delivered),
            entries_read: group.entries_read,
            trim_headroom_entries: (!spares).then_some(headroom),
            trim_headroom_seconds: trimmed.map(|rate| headroom as f64 / rate),
            ghost_pending: ghost_pending(stream, &group),
            drain_seconds: drain_seconds(lag.point, rates.added, trend.delivered_rate),
            recommendation: Recommendation::of(
                rates.added,
                trend.delivered_rate,
                trend.capacity,
                lag.point,
                awake.unwrap_or(group.consumers),
                self.windows.drain_target,
            ),
            members,
            overflow,
            dead,
            trend,
        }
    }

    fn members(&self, members: Vec<ConsumerReply>, group: &GroupSample, work: &Work) -> Vec<ConsumerSnapshot> {
        let consumer = |sample: ConsumerReply| {
            let holds_oldest = group.oldest_pending_consumer.as_ref() == Some(&sample.name);
            let oldest = group.oldest_pending.filter(|_| holds_oldest).and_then(|id| id.age_seconds(self.now_ms));
            ConsumerSnapshot {
                active: work.is_active(&sample, self.windows),
                oldest_pending_seconds: oldest,
                health: work.health(&sample, oldest, self.windows),
                sample,
            }
        };
        members.into_iter().map(consumer).collect()
    }

    /// Age of the oldest undelivered entry: the stream's first one where the cursor lies before it, else the one that
    /// was asked for.
    fn lag_seconds(&self, stream: &StreamSample, group: &GroupSample) -> Option<f64> {
        let resolved = group.resolved.unwrap_or_default();
        if resolved.lag.max == 0 {
            return Some(0.0);
        }
        let oldest = match stream.reply.first {
            Some(first) if group.last_delivered < first && !group.unknown.last_delivered => first,
            _ => resolved.oldest_undelivered?,
        };
        oldest.age_seconds(self.now_ms)
    }
}

/// How many of a group's consumers are awake; `None` where Redis does not show them.
fn awake(group: &GroupSample, windows: &Windows) -> Option<u64> {
    let members = group.members.as_ref()?;
    Some(members.iter().filter(|member| is_awake(member, windows)).count() as u64)
}

/// Dead consumers that hold pending entries, and those that hold none.
fn dead_consumers(members: &[ConsumerSnapshot]) -> (u64, u64) {
    let dead = members.iter().filter(|consumer| consumer.active == Some(false));
    dead.fold((0, 0), |(holding, empty), consumer| match consumer.sample.pending {
        Some(0) => (holding, empty + 1),
        Some(_) => (holding + 1, empty),
        // Deleting it might delete what is pending.
        None => (holding, empty),
    })
}

/// Takes out the consumers that are too many: those that hold least.
fn overflow(members: &mut Vec<ConsumerSnapshot>, limit: usize) -> Option<Overflow> {
    if members.len() <= limit {
        return None;
    }
    // Of those that hold as much, the ones that come first stay.
    members.sort_by_key(|consumer| Reverse(consumer.sample.pending));
    let others = members.split_off(limit);
    members.sort_by(|one, other| one.sample.name.cmp(&other.sample.name));
    let pending = others.iter().filter_map(|consumer| consumer.sample.pending).fold(0, u64::saturating_add);
    Some(Overflow { consumers: others.len() as u64, pending })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::analysis::group_state::GroupState;
    use crate::analysis::snapshot::tests::WINDOWS;
    use crate::model::EntryId;
    use crate::model::lag::{Continuity, Resolved};
    use crate::model::reply::{StreamReply, UnknownFields};
    use crate::model::sample::TargetMeta;

    const NOW: u64 = 1_800_000_000_000;

    const TRIMMED_TO_2: Bounds = Bounds { max_length: Some(2), consumers: 2 };

    fn id(ms_ago: u64) -> EntryId {
        EntryId { ms: NOW - ms_ago, seq: 0 }
    }

    fn selection(groups: &[&str]) -> GroupSelection {
        GroupSelection::new(groups.iter().map(|group| (*group).to_owned()).collect())
    }

    /// Of one stream, and of the groups that are selected.
    fn assessor(groups: &[&str], bounds: Bounds) -> Assessor {
        Assessor::new(vec!["s".into()], selection(groups), WINDOWS, bounds)
    }

    fn assess_one(stream: Result<StreamSample, ReadError>, groups: &[&str]) -> StreamSnapshot {
        let meta = TargetMeta { server_now_ms: NOW, ..TargetMeta::at(SystemTime::UNIX_EPOCH) };
        let sample = TargetSample { meta, streams: vec![("s".into(), stream)], redis_time: Duration::ZERO };
        assessor(groups, TRIMMED_TO_2).assess(sample, Duration::ZERO).streams.remove(0)
    }

    fn stream(groups: Vec<GroupSample>) -> StreamSample {
        StreamSample {
            now_ms: NOW,
            reply: StreamReply { length: 3, first: Some(id(9000)), last: Some(id(1000)), ..StreamReply::default() },
            groups,
            ..StreamSample::default()
        }
    }

    fn group(name: &str, cursor: EntryId, lag: u64, oldest_undelivered: Option<EntryId>) -> GroupSample {
        let lag = Lag { min: lag, max: lag, point: lag };
        let resolved = Some(Resolved { lag, oldest_undelivered, ..Resolved::default() });
        GroupSample { name: name.into(), last_delivered: cursor, resolved, ..GroupSample::default() }
    }

    #[test]
    fn the_trim_headroom_is_what_the_stream_keeps_less_the_lag() {
        // The operator says that the stream is trimmed to 2.
        for (lag, expected) in [(0, 2), (1, 1), (2, 0), (3, 0)] {
            let snapshot = assess_one(Ok(stream(vec![group("g", id(5000), lag, None)])), &["g"]);
            let group = snapshot.groups[0].present().unwrap();
            assert_eq!(group.trim_headroom_entries, Some(expected));
            assert_eq!(group.trend.verdict.state, GroupState::Ok);
        }
    }

    #[test]
    fn lag_seconds_is_the_age_of_the_oldest_undelivered_entry() {
        let check = |cursor, lag, asked, expected| {
            let snapshot = assess_one(Ok(stream(vec![group("g", cursor, lag, asked)])), &["g"]);
            assert_eq!(snapshot.groups[0].present().unwrap().lag_seconds, expected);
        };
        check(EntryId::default(), 3, None, Some(9.0));
        check(id(9000), 2, Some(id(5000)), Some(5.0));
        check(id(9000), 2, None, None);
        check(id(1000), 0, None, Some(0.0));
    }

    #[test]
    fn named_groups_are_reported_where_they_are_missing_and_others_where_they_match() {
        let snapshot = assess_one(
            Ok(stream(vec![
                group("b2", id(0), 0, None),
                group("b1", id(0), 0, None),
                GroupSample { resolved: None, ..group("other", id(0), 0, None) },
            ])),
            &["missing", "b*"],
        );
        let names: Vec<String> = snapshot.groups.iter().map(|g| g.name.to_string()).collect();
        assert_eq!(names, ["b1", "b2", "missing"]);
        assert!(matches!(snapshot.groups[2].presence, Presence::Missing));
        assert_eq!(snapshot.read.unwrap().groups, 3);
    }

    /// A sample in which the cursor, or the stream's ends, cannot be: nothing follows from it, then or later.
    #[test]
    fn what_cannot_be_is_no_rewind_no_loss_and_no_state() {
        let within = Some(Resolved { lag: Lag::within_length(3), ..Resolved::default() });
        let known = || GroupSample { pending: 4, consumers: 2, ..group("g", id(5000), 1, None) };
        let good = || {
            let stream = stream(vec![known()]);
            let reply = StreamReply { entries_added: Some(9), ..stream.reply };
            StreamSample { reply, continuity: Continuity::Continuous, ..stream }
        };
        let no_cursor = || GroupSample {
            last_delivered: EntryId::default(),
            unknown: UnknownFields { last_delivered: true, pending: true, consumers: true },
            resolved: within,
            ..known()
        };
        let odd_group = StreamSample { groups: vec![no_cursor()], ..good() };
        let bounded = GroupSample { resolved: within, ..known() };
        // How an impossible sample goes on is unknown.
        let continuity = Continuity::Unknown;
        let reply = StreamReply { first: None, last: None, ..good().reply };
        let odd_ends = StreamSample { reply, continuity, groups: vec![bounded], ..good() };
        for odd in [odd_group, odd_ends] {
            let mut assessor = assessor(&["g"], Bounds::default());
            let samples = [good(), good(), odd.clone(), good(), odd.clone(), odd.clone(), good(), good()];
            for (n, sample) in samples.into_iter().enumerate() {
                let is_odd = sample == odd;
                let at = Duration::from_secs(n as u64);
                let snapshot = assessor.stream(0, Ok(sample), at);
                let group = snapshot.groups[0].present().unwrap();
                assert_eq!((group.trend.lost, group.trend.verdict.state), (0, GroupState::Ok), "{n}: {group:?}");
                assert_eq!(group.lag.uncertainty() > 0, is_odd);
                assert!(group.lag_seconds.is_none(), "{n}: {group:?}");
                if is_odd && odd.reply.first.is_some() {
                    assert_eq!((group.pending, group.consumers, group.last_delivered), (None, None, None));
                }
            }
        }
    }

    #[test]
    fn consumers_that_are_too_many_are_summed() {
        let member = |name: &str, pending| ConsumerReply {
            name: name.into(),
            pending: Some(pending),
            idle_ms: Some(0),
            inactive_ms: None,
        };
        let members = vec![member("a", 1), member("b", 5), member("c", 1), member("d", 3)];
        let crowded = GroupSample { members: Some(members), ..group("g", id(0), 0, None) };
        let snapshot = assess_one(Ok(stream(vec![crowded])), &["g"]);
        let group = snapshot.groups[0].present().unwrap();
        let shown: Vec<String> = group.members.iter().flatten().map(|member| member.sample.name.to_string()).collect();
        assert_eq!(shown, ["b", "d"]);
        assert_eq!(group.overflow, Some(Overflow { consumers: 2, pending: 2 }));
    }

    #[test]
    fn dead_consumers_hold_entries_or_none_and_count_nowhere_where_that_is_unknown() {
        let member = |active, pending| ConsumerSnapshot {
            sample: ConsumerReply { name: "c".into(), pending, idle_ms: Some(0), inactive_ms: None },
            active,
            oldest_pending_seconds: None,
            health: 0,
        };
        let (dead, alive) = (Some(false), Some(true));
        assert_eq!(dead_consumers(&[member(alive, Some(1)), member(alive, Some(0)), member(None, Some(2))]), (0, 0));
        assert_eq!(dead_consumers(&[member(dead, Some(2)), member(dead, Some(1))]), (2, 0));
        assert_eq!(dead_consumers(&[member(dead, Some(0)), member(alive, Some(7))]), (0, 1));
        assert_eq!(dead_consumers(&[member(dead, None), member(dead, Some(3))]), (1, 0));
    }

    #[test]
    fn a_stream_that_is_carried_on_keeps_the_groups_that_are_there_and_those_that_are_named() {
        let mut assessor = assessor(&["named", "b*"], Bounds::default());
        let groups = |names: &[&str]| names.iter().map(|name| group(name, id(5000), 1, None)).collect();
        let whole = StreamSample { may_be_carried: true, ..stream(groups(&["b1", "b2", "named"])) };
        let reply = StreamReply { length: 7, ..whole.reply };
        let carried = StreamSample { reply, carried: true, ..stream(groups(&["b1"])) };
        let _ = assessor.stream(0, Ok(whole), Duration::ZERO);
        let snapshot = assessor.stream(0, Ok(carried), Duration::from_secs(1));
        let names: Vec<String> = snapshot.groups.iter().map(|group| group.name.to_string()).collect();
        assert_eq!(names, ["b1", "named"]);
        assert_eq!(snapshot.groups[0].present().unwrap().lag, Lag::within_length(7));
        assert!(matches!(snapshot.groups[1].presence, Presence::Missing));
        assert_eq!(snapshot.read.unwrap().length, 7);
    }

    #[test]
    fn what_was_seen_of_a_stream_and_of_its_groups_stays_while_others_come_and_go() {
        let mut assessor = Assessor::new(vec!["s".into(), "t".into()], selection(&["*"]), WINDOWS, Bounds::default());
        let behind = |names: &[&str]| Ok(stream(names.iter().map(|name| group(name, id(5000), 1, None)).collect()));
        let mut check = |keys: [&str; 2], groups: &[&str], at: u64, expected: &[(&str, u64)]| {
            assessor.follow_streams(&keys.map(StreamKey::from));
            assert_eq!(assessor.keys().map(ToString::to_string).collect::<Vec<_>>(), keys);
            let place = keys.iter().position(|key| *key == "t").unwrap();
            let snapshot = assessor.stream(place, behind(groups), Duration::from_secs(at));
            let behind_for = |group: &GroupSnapshot| group.present().unwrap().trend.behind_for.unwrap().as_secs();
            let groups: Vec<_> =
                snapshot.groups.iter().map(|group| (group.name.to_string(), behind_for(group))).collect();
            let expected: Vec<_> = expected.iter().map(|(name, behind)| ((*name).to_owned(), *behind)).collect();
            assert_eq!((snapshot.key, groups), ("t".into(), expected));
        };
        check(["s", "t"], &["a", "c"], 0, &[("a", 0), ("c", 0)]);
        // In another order than Redis lists them.
        check(["t", "u"], &["c", "a"], 10, &[("a", 10), ("c", 10)]);
        check(["r", "t"], &["b", "c"], 20, &[("b", 0), ("c", 20)]);
        check(["r", "t"], &["a", "b", "c"], 25, &[("a", 0), ("b", 5), ("c", 25)]);
    }

    #[test]
    fn a_stream_that_is_carried_on_says_of_its_groups_what_the_new_sample_says() {
        let mut assessor = assessor(&["g"], Bounds::default());
        let with = |pending, change: fn(&mut GroupSample)| {
            let mut group = GroupSample {
                pending,
                consumers: 3,
                entries_read: Some(pending),
                oldest_pending: Some(id(1000 * pending)),
                oldest_pending_consumer: Some("c".into()),
                oldest_pending_deliveries: Some(pending),
                unowned_pending: Some(pending),
                ghost_pending: Some(1),
                ..group("g", id(1000 * pending), 1, Some(id(2000)))
            };
            change(&mut group);
            vec![group]
        };
        let mut check = |change: fn(&mut GroupSample), expected: [Option<u64>; 3]| {
            let whole = StreamSample { may_be_carried: true, ..stream(with(4, |_| {})) };
            let before = assessor.stream(0, Ok(whole), Duration::ZERO);
            let carried = StreamSample { carried: true, ..stream(with(2, change)) };
            let now = assessor.stream(0, Ok(carried), Duration::from_secs(1));
            let [before, now] = [&before, &now].map(|snapshot| snapshot.groups[0].present().unwrap());
            assert_eq!((before.pending, before.consumers, before.last_delivered), (Some(4), Some(3), Some(id(4000))));
            let cursor = expected[2].map(|seconds| id(1000 * seconds));
            assert_eq!((now.pending, now.consumers, now.last_delivered), (expected[0], expected[1], cursor));
            let oldest = (now.oldest_pending_seconds, now.oldest_pending.clone(), now.oldest_pending_deliveries);
            assert_eq!(oldest, (Some(2.0), Some((id(2000), Some("c".into()))), Some(2)));
            assert_eq!((now.unowned_pending, now.entries_read), (Some(2), Some(2)));
            // What the lag is now is not known, and what follows from it neither.
            assert!(before.lag_seconds.is_some() && before.ghost_pending.is_some());
            assert_eq!((now.lag_seconds, now.ghost_pending, now.drain_seconds), (None, None, None));
            assert_eq!((now.trim_headroom_entries, now.trim_headroom_seconds), (Some(0), None));
        };
        check(|_| {}, [Some(2), Some(3), Some(2)]);
        check(|group| group.unknown.pending = true, [None, Some(3), Some(2)]);
        check(|group| group.unknown.consumers = true, [Some(2), None, Some(2)]);
        check(|group| group.unknown.last_delivered = true, [Some(2), Some(3), None]);
    }

    #[test]
    fn a_stream_that_is_not_trimmed_has_no_time_until_a_group_loses() {
        let check = |lengths: [u64; 2], expected: Option<f64>| {
            let mut assessor = assessor(&["g"], Bounds::default());
            let mut last = None;
            for (n, length) in lengths.into_iter().enumerate() {
                let stream = stream(vec![group("g", id(1000), 0, None)]);
                let first = Some(id(100 * length));
                let reply = StreamReply { length, first, entries_added: Some(100), ..stream.reply };
                let sample = StreamSample { reply, continuity: Continuity::Continuous, ..stream };
                last = Some(assessor.stream(0, Ok(sample), Duration::from_secs(10 * n as u64)));
            }
            assert_eq!(last.unwrap().groups[0].present().unwrap().trim_headroom_seconds, expected, "{lengths:?}");
        };
        check([60, 60], None);
        // Two entries a second.
        check([60, 40], Some(20.0));
    }

    #[test]
    fn what_is_removed_behind_the_first_entry_spares_a_group_unless_it_loses() {
        let check = |lags: [u64; 2], expected: Option<f64>| {
            let mut assessor = assessor(&["g"], Bounds::default());
            let snapshots = [100, 80].into_iter().zip(lags).zip([0, 10]).map(|((length, lag), at)| {
                let behind = GroupSample { entries_read: Some(40), ..group("g", id(5000), lag, Some(id(1000))) };
                let stream = stream(vec![behind]);
                let reply = StreamReply {
                    length,
                    last_generated: id(1000),
                    entries_added: Some(100),
                    max_deleted: Some(EntryId::default()),
                    ..stream.reply
                };
                let sample = StreamSample { reply, continuity: Continuity::Continuous, ..stream };
                assessor.stream(0, Ok(sample), Duration::from_secs(at))
            });
            let group = snapshots.last().unwrap().groups.remove(0);
            assert_eq!(group.present().unwrap().trim_headroom_seconds, expected, "{lags:?}");
        };
        check([60, 60], None);
        // Two entries a second, of the thirty that it does not need.
        check([60, 50], Some(15.0));
    }

    #[test]
    fn the_oldest_pending_entry_is_the_consumers_that_holds_it() {
        let member =
            |name: &str| ConsumerReply { name: name.into(), pending: Some(1), idle_ms: Some(0), inactive_ms: None };
        let held = GroupSample {
            members: Some(vec![member("a"), member("b")]),
            pending: 2,
            oldest_pending: Some(id(7000)),
            oldest_pending_consumer: Some("b".into()),
            ..group("g", id(1000), 0, None)
        };
        let snapshot = assess_one(Ok(stream(vec![held])), &["g"]);
        let members = &snapshot.groups[0].present().unwrap().members;
        let ages: Vec<_> = members.iter().flatten().map(|member| member.oldest_pending_seconds).collect();
        assert_eq!(ages, [None, Some(7.0)]);
    }

    #[test]
    fn a_group_whose_consumers_are_all_dead_is_stopped_and_one_that_is_awake_makes_it_stalled() {
        let check = |idle_ms: u64, expected| {
            let mut assessor = assessor(&["g"], Bounds::default());
            let member = ConsumerReply {
                name: "c".into(),
                pending: Some(0),
                idle_ms: Some(idle_ms),
                inactive_ms: Some(idle_ms),
            };
            let behind = GroupSample { members: Some(vec![member]), consumers: 1, ..group("g", id(5000), 1, None) };
            let sample = StreamSample { continuity: Continuity::Continuous, ..stream(vec![behind]) };
            let states = (0..=WINDOWS.samples).map(|n| {
                let snapshot = assessor.stream(0, Ok(sample.clone()), WINDOWS.window * n);
                snapshot.groups[0].present().unwrap().trend.verdict.state
            });
            assert_eq!(states.last(), Some(expected));
        };
        check(0, GroupState::Stalled);
        check(u64::try_from(WINDOWS.dead_after.as_millis()).unwrap() + 1, GroupState::Stopped);
    }

    #[test]
    fn other_settings_hold_from_the_next_sample_on() {
        let mut assessor = assessor(&["a"], Bounds::default());
        let names =
            |snapshot: StreamSnapshot| snapshot.groups.iter().map(|group| group.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(assessor.stream(0, Ok(stream(Vec::new())), Duration::ZERO)), ["a"]);
        assessor.reconfigure(selection(&["b"]), WINDOWS, Bounds::default());
        assert_eq!(names(assessor.stream(0, Ok(stream(Vec::new())), Duration::ZERO)), ["b"]);
    }

    #[test]
    fn an_unreadable_stream_keeps_its_named_groups_as_unknown() {
        let snapshot = assess_one(Err(ReadError::Server("no such key".into())), &["g", "x*"]);
        assert_eq!(snapshot.groups.len(), 1);
        assert!(matches!(snapshot.groups[0].presence, Presence::Unknown));
    }
}
