//! What happened to a stream and its groups over the last samples: rates, losses, and how long things have stood still.
//! Pure: the time is an argument, counted from any fixed moment by a clock that never steps.

use std::collections::VecDeque;
use std::time::Duration;

use crate::analysis::consumers::ghost_pending;
use crate::analysis::group_state::{Evidence, StateMachine, Verdict};
use crate::analysis::lag::tracker::StreamCounters;
use crate::analysis::window::{Streak, Windows};
use crate::model::lag::Continuity;
use crate::model::lag::Lag;
use crate::model::sample::{ConsumerSample, GroupSample, StreamSample};
use crate::model::{ConsumerName, EntryId};

/// Points kept of each rate's window, which is as finely as its edge moves.
const RATE_POINTS: u32 = 8;

/// How often every consumer of a group must have had its turn before one that had none counts as dead.
const ROTATIONS: u64 = 2;

/// How far the distance of two samples may be off, as it is taken on this side and not where they were taken.
const SERVED_MARGIN: Duration = Duration::from_secs(1);

/// Totals over time, to take rates from.
#[derive(Debug)]
struct Rates<const N: usize>(VecDeque<(Duration, [u64; N])>);

impl<const N: usize> Default for Rates<N> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<const N: usize> Rates<N> {
    /// Takes the totals of a sample and answers with each one's increase per second over the window.
    fn take(&mut self, at: Duration, totals: [u64; N], windows: &Windows) -> Option<[f64; N]> {
        while self.0.get(1).is_some_and(|(next, _)| at.saturating_sub(*next) >= windows.window) {
            self.0.pop_front();
        }
        let rates = self.0.front().filter(|(then, _)| *then < at).map(|(then, before)| {
            let seconds = (at - *then).as_secs_f64();
            std::array::from_fn(|place| totals[place].saturating_sub(before[place]) as f64 / seconds)
        });
        if self.0.capacity() == 0 {
            // Left to itself it would be half as large again.
            self.0.reserve_exact(RATE_POINTS as usize + 2);
        }
        if self.0.back().is_none_or(|(last, _)| at.saturating_sub(*last) >= windows.window / RATE_POINTS) {
            self.0.push_back((at, totals));
        }
        rates
    }
}

/// One stream over time.
#[derive(Debug, Default)]
pub struct StreamHistory {
    rates: Rates<2>,
    max_deleted: Option<EntryId>,
    /// When entries were last deleted, rather than trimmed.
    deleted_at: Option<Duration>,
}

/// How fast a stream changes, in entries per second over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StreamRates {
    /// Entries added.
    pub added: Option<f64>,
    /// Entries trimmed or deleted.
    pub removed: Option<f64>,
    /// Entries trimmed; `None` where some were deleted as well, as their number is unknown.
    pub trimmed: Option<f64>,
}

impl StreamHistory {
    /// Takes a sample.
    pub fn take(&mut self, stream: &StreamSample, at: Duration, windows: &Windows) -> StreamRates {
        if matches!(stream.continuity, Continuity::Broken | Continuity::Unknown) {
            *self = Self::default();
        }
        if self.max_deleted.is_some() && self.max_deleted != stream.max_deleted {
            self.deleted_at = Some(at);
        }
        self.max_deleted = stream.max_deleted;
        let Some(added) = stream.entries_added else { return StreamRates::default() };
        let removed = added.saturating_sub(stream.length);
        let rates = self.rates.take(at, [added, removed], windows);
        let (added, removed) = rates.map(|[added, removed]| (added, removed)).unzip();
        let deleting = self.deleted_at.is_some_and(|when| at.saturating_sub(when) < windows.window);
        StreamRates { added, removed, trimmed: removed.filter(|_| !deleting) }
    }
}

/// One group over time.
#[derive(Debug)]
pub struct GroupHistory {
    /// The newest sample, and when it was taken.
    last: GroupObservation,
    at: Duration,
    high_water: HighWatermark,
    lost: u64,
    lost_at: Option<(Duration, u64)>,
    rewound_at: Option<(Duration, EntryId)>,
    /// Since when the lag has not fallen, and what it was then.
    not_fallen: Streak,
    not_fallen_from: Lag,
    /// Since when there is lag.
    behind: Streak,
    /// Since when the cursor stands still.
    still: Streak,
    /// Since when the oldest pending entry is the same.
    oldest_pending_still: Streak,
    flow: Flow,
    holders: Holders,
    rotation: Rotation,
    watch: StateMachine,
}

/// The highest id that may have been delivered, even if the cursor is lower: it moved back, or may have.
#[derive(Debug, Default)]
struct HighWatermark {
    id: EntryId,
    /// Entries ever added up to it, where it is known.
    rank: Option<u64>,
    /// Entries above it that were counted as lost.
    counted: u64,
}

impl HighWatermark {
    fn raise_to(&mut self, id: EntryId, rank: Option<u64>) {
        if id > self.id {
            *self = Self { id, rank, counted: 0 };
        }
    }

    /// Entries above it that are newly lost, where the stream now begins above it: as many as were added there and are not
    /// there any more.
    fn lost_above(&mut self, now: &GroupObservation) -> u64 {
        let begins_above = now.stream.first.is_none_or(|first| first > self.id);
        let added = now.stream.added.zip(self.rank).and_then(|(added, rank)| added.checked_sub(rank));
        let Some(added) = added.filter(|_| begins_above) else { return 0 };
        let gone = added.saturating_sub(now.stream.length);
        let lost = gone.saturating_sub(self.counted);
        self.counted = self.counted.max(gone);
        lost
    }
}

/// Whether every consumer must have had its turn.
#[derive(Debug)]
struct Rotation {
    since: Duration,
    moves: u64,
    /// From then until now, every live consumer has had a turn.
    all_since: Option<Duration>,
}

/// What a sample says of a group.
#[derive(Clone, Copy, Debug)]
struct GroupObservation {
    cursor: EntryId,
    lag: Lag,
    added_after: Option<(u64, u64)>,
    /// The highest entry that may ever have been removed without a trace.
    untraced: EntryId,
    entries_read: Option<u64>,
    pending: u64,
    oldest_pending: Option<EntryId>,
    stream: StreamCounters,
    /// How long ago any of the consumers may have been given something; `None` where Redis does not tell.
    served_ago: Option<Duration>,
}

/// What the history of a group says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTrend {
    /// Entries that were gone before they were delivered, since the group was first seen: a lower bound.
    pub lost: u64,
    /// Entries delivered per second over the window.
    pub delivered_rate: Option<f64>,
    /// Entries acknowledged per second over the window, estimated.
    pub acknowledged_rate: Option<f64>,
    /// The state it is in.
    pub verdict: Verdict,
    /// How long there has been lag; `None` where there is none.
    pub behind_for: Option<Duration>,
    /// Every consumer that is alive was given something or asked for it within this time; `None` where that is unknown.
    pub all_had_a_turn_within: Option<Duration>,
}

/// How long ago any of the consumers was last given something. `idle` may be younger than that, never older.
fn served_ago(members: &[ConsumerSample]) -> Duration {
    let served = |consumer: &ConsumerSample| consumer.inactive_ms.or(consumer.idle_ms).unwrap_or(0);
    members.iter().map(served).min().map_or(Duration::MAX, Duration::from_millis)
}

impl GroupObservation {
    fn of(stream: &StreamSample, group: &GroupSample) -> Self {
        let resolved = group.resolved.unwrap_or_default();
        Self {
            cursor: group.last_delivered,
            lag: resolved.lag,
            added_after: resolved.added_after,
            untraced: resolved.untraced,
            entries_read: group.entries_read,
            pending: group.pending,
            oldest_pending: group.oldest_pending,
            stream: StreamCounters::from(stream),
            served_ago: group.members.as_deref().map(served_ago),
        }
    }

    /// Entries added since `before`, where the server tells.
    fn added_since(&self, before: &Self) -> Option<u64> {
        self.stream.added_since(&before.stream)
    }

    /// Entries that are gone and that the group was not given, since `before`: a lower bound.
    ///
    /// The cursor only rose, so what lies above it was never delivered. With the cursor where it was: what was above it
    /// then, and what was added, is above it now or gone. With the cursor moved: of all entries ever added after it, so
    /// many are not there any more; those that were missing then already are not counted again.
    fn lost_since(&self, before: &Self) -> u64 {
        let there = self.lag.max;
        let from_the_same_cursor = if self.cursor == before.cursor && self.cursor <= before.stream.last_generated {
            // Where it is not told how many were added, at least as many as the stream has grown by.
            let grown = || self.stream.length.saturating_sub(before.stream.length);
            before.lag.min.saturating_add(self.added_since(before).unwrap_or_else(grown)).saturating_sub(there)
        } else {
            0
        };
        let missing = |seen: &Self| {
            let (least, most) = seen.added_after?;
            Some((least.saturating_sub(seen.lag.max), most.saturating_sub(seen.lag.min)))
        };
        // Where the cursor has passed all that was missing then, none of it is among what is missing now.
        let passed = before.stream.first.is_some_and(|first| first <= self.cursor)
            && before.stream.max_deleted.is_some_and(|deleted| deleted <= self.cursor)
            && before.untraced <= self.cursor;
        let by_the_counter = match (missing(self), missing(before)) {
            (Some((least, _)), Some(_)) if passed => least,
            (Some((least, _)), Some((_, most_before))) => least.saturating_sub(most_before),
            _ => 0,
        };
        from_the_same_cursor.max(by_the_counter)
    }

    /// Whether entries above the cursor may have been delivered since `before`, `elapsed` ago: read, and then the cursor
    /// moved back, by `SETID`, between two samples.
    ///
    /// `SETID` makes entries-read unknown, unless told otherwise. Where it was unknown all the time, as always before 7.0,
    /// only a cursor that stood still and consumers that were not served show that nothing was delivered.
    fn may_hide_a_rewind(&self, before: &Self, elapsed: Duration) -> bool {
        let stood_still = self.cursor == before.cursor;
        match (before.entries_read, self.entries_read) {
            (Some(then), Some(now)) => now < then || (stood_still && (now > then || self.pending > before.pending)),
            (Some(_), None) => true,
            (None, _) => {
                let served = self.served_ago.is_none_or(|ago| ago <= elapsed.saturating_add(SERVED_MARGIN));
                !stood_still || self.pending > before.pending || served
            }
        }
    }
}

/// What is kept of a sample to tell what was delivered since.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    cursor: EntryId,
    lag: Lag,
    added: Option<u64>,
    last_generated: EntryId,
    entries_read: Option<u64>,
    pending: u64,
    /// Entries that were lost by then.
    lost: u64,
}

impl Anchor {
    fn of(seen: &GroupObservation, lost: u64) -> Self {
        Self {
            cursor: seen.cursor,
            lag: seen.lag,
            added: seen.stream.added,
            last_generated: seen.stream.last_generated,
            entries_read: seen.entries_read,
            pending: seen.pending,
            lost,
        }
    }

    /// Entries added until `now`, where the server tells.
    fn added_until(&self, now: &GroupObservation) -> Option<u64> {
        match (now.stream.added, self.added) {
            (Some(now), Some(then)) => now.checked_sub(then),
            _ => (now.stream.last_generated == self.last_generated).then_some(0),
        }
    }
}

/// Who holds pending entries: what tells that some went without being acknowledged.
#[derive(Debug, Default)]
struct Holders {
    /// Consumers that hold some, and how many.
    consumers: Vec<(ConsumerName, u64)>,
    /// Pending entries without payload, where they are counted: a lower bound.
    ghosts: u64,
}

impl Holders {
    /// Takes a sample. Returns how many pending entries went since the one before and were not acknowledged: those of consumers that
    /// were deleted, and those without payload that were cleared (`XAUTOCLAIM`).
    fn take(&mut self, stream: &StreamSample, group: &GroupSample) -> u64 {
        let before = std::mem::replace(&mut self.ghosts, ghost_pending(stream, group).unwrap_or(0));
        let cleared = before.saturating_sub(self.ghosts);
        let members = group.members.as_deref().unwrap_or_default();
        let holders = || members.iter().filter_map(|member| Some((member, member.pending.filter(|held| *held > 0)?)));
        // Mostly they are the same ones: their names are those of the last sample, not only alike.
        let is_same = |name: &ConsumerName, other: &ConsumerName| std::ptr::eq(name.as_bytes(), other.as_bytes());
        let mut known = self.consumers.iter();
        if holders().all(|(member, _)| known.next().is_some_and(|(name, _)| is_same(name, &member.name)))
            && known.next().is_none()
        {
            for ((_, held), (_, now)) in self.consumers.iter_mut().zip(holders()) {
                *held = now;
            }
            return cleared;
        }
        // Redis lists consumers in the order of their names.
        if !members.is_sorted_by(|one, next| one.name < next.name) {
            self.consumers.clear();
            return cleared;
        }
        let is_there = |name: &ConsumerName| members.binary_search_by(|member| member.name.cmp(name)).is_ok();
        let deleted = self.consumers.iter().filter(|(name, _)| group.members.is_some() && !is_there(name));
        let deleted = deleted.map(|(_, pending)| *pending).fold(0, u64::saturating_add);
        self.consumers.clear();
        self.consumers.extend(holders().map(|(member, held)| (member.name.clone(), held)));
        // Those of a deleted consumer may have been the ones without payload.
        deleted.max(cleared)
    }
}

/// What flows through a group: entries delivered and acknowledged.
#[derive(Debug, Default)]
struct Flow {
    /// Pending entries that went since the anchor without being acknowledged.
    dropped: u64,
    /// The newest sample from which what was delivered since can be told.
    anchor: Option<Anchor>,
    /// Delivered and acknowledged by then.
    totals: [u64; 2],
    rates: Rates<2>,
}

impl Flow {
    /// Takes a sample, by which this many entries were lost, and answers with the rates; `None` until they are known.
    fn take(&mut self, now: &GroupObservation, lost: u64, at: Duration, windows: &Windows) -> Option<[f64; 2]> {
        let exact = now.lag.uncertainty() == 0;
        let Some(anchor) = self.anchor.filter(|anchor| anchor.cursor <= now.cursor) else {
            *self = Self { anchor: Some(Anchor::of(now, lost)), totals: self.totals, ..Self::default() };
            return self.rates.take(at, self.totals, windows);
        };
        let by_lags = || {
            let added = anchor.added_until(now).filter(|_| exact && anchor.lag.uncertainty() == 0)?;
            let gone = now.lag.point.saturating_add(lost - anchor.lost);
            Some(anchor.lag.point.saturating_add(added).saturating_sub(gone))
        };
        let by_reads = || now.entries_read.zip(anchor.entries_read).and_then(|(now, then)| now.checked_sub(then));
        // What the lags say includes what was lost unnoticed; what the server counts may be wrong, but only the one is
        // ever too high for that reason.
        let either = match (by_lags(), by_reads()) {
            (Some(by_lags), Some(by_reads)) => Some(by_lags.min(by_reads)),
            (by_lags, by_reads) => by_lags.or(by_reads),
        };
        let delivered = if now.cursor == anchor.cursor { Some(0) } else { either };
        let Some(delivered) = delivered else {
            // Not known yet. With an exact lag it can be from here on.
            if exact && (anchor.lag.uncertainty() > 0 || anchor.added_until(now).is_none()) {
                *self = Self { anchor: Some(Anchor::of(now, lost)), totals: self.totals, ..Self::default() };
            }
            return None;
        };
        let gone = anchor.pending.saturating_add(delivered).saturating_sub(now.pending);
        let acknowledged = gone.saturating_sub(std::mem::take(&mut self.dropped));
        self.totals = [self.totals[0].saturating_add(delivered), self.totals[1].saturating_add(acknowledged)];
        // With the cursor where it was, an exact lag is the better one to reckon from.
        let keep = now.cursor == anchor.cursor && !exact;
        self.anchor = Some(if keep { Anchor { pending: now.pending, ..anchor } } else { Anchor::of(now, lost) });
        self.rates.take(at, self.totals, windows)
    }
}

impl GroupHistory {
    /// A group that is seen for the first time.
    #[must_use]
    pub fn new(stream: &StreamSample, group: &GroupSample, at: Duration) -> Self {
        let last = GroupObservation::of(stream, group);
        let begin = Streak::begin(at);
        Self {
            last,
            at,
            high_water: HighWatermark { id: last.cursor, ..HighWatermark::default() },
            lost: 0,
            lost_at: None,
            rewound_at: None,
            not_fallen: begin,
            not_fallen_from: last.lag,
            behind: begin,
            still: begin,
            oldest_pending_still: begin,
            flow: Flow::default(),
            holders: Holders::default(),
            rotation: Rotation { since: at, moves: 0, all_since: None },
            watch: StateMachine::new(),
        }
    }

    /// Entries that were gone before they were delivered, since the group was first seen: a lower bound.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Takes a sample, the one that it was made of first. `alive` is how many of its consumers are.
    pub fn take(
        &mut self,
        stream: &StreamSample,
        group: &GroupSample,
        at: Duration,
        alive: Option<u64>,
        windows: &Windows,
    ) -> GroupTrend {
        let now = GroupObservation::of(stream, group);
        if stream.continuity == Continuity::Broken {
            let rewound = now.cursor < self.high_water.id;
            *self = Self { lost: self.lost, ..Self::new(stream, group, at) };
            if rewound {
                // Where it is the stream of before after all, what is there now may have been delivered already.
                self.high_water.raise_to(now.stream.last_generated, now.stream.added);
            }
        } else if at > self.at {
            let known = stream.continuity != Continuity::Unknown;
            self.advance(now, at, group.consumers, known);
        }
        self.flow.dropped = self.flow.dropped.saturating_add(self.holders.take(stream, group));
        let rates = self.flow.take(&now, self.lost, at, windows);
        let evidence = Evidence {
            at,
            lag: now.lag,
            cursor: now.cursor,
            consumers: group.consumers,
            alive,
            pending: now.pending,
            oldest_pending: now.oldest_pending,
            lost: self.lost_at,
            rewound: self.rewound_at,
            behind: self.behind,
            still: self.still,
            not_fallen: self.not_fallen,
            not_fallen_from: self.not_fallen_from,
            oldest_pending_still: self.oldest_pending_still,
        };
        (self.last, self.at) = (now, at);
        GroupTrend {
            lost: self.lost,
            delivered_rate: rates.map(|[delivered, _]| delivered),
            acknowledged_rate: rates.map(|[_, acknowledged]| acknowledged),
            verdict: self.watch.judge(evidence, windows),
            behind_for: (now.lag.min > 0).then(|| at.saturating_sub(self.behind.since)),
            all_had_a_turn_within: self.rotation.all_since.map(|since| at.saturating_sub(since)),
        }
    }

    /// `known` where the sample can be compared with the one before: over a new connection, the stream may be that of a
    /// replica that is behind, and what is missing there is not lost.
    fn advance(&mut self, now: GroupObservation, at: Duration, consumers: u64, known: bool) {
        let before = self.last;
        if now.cursor < before.cursor {
            self.rewound_at = Some((at, before.cursor));
        }
        if now.may_hide_a_rewind(&before, at.saturating_sub(self.at)) {
            self.high_water.raise_to(now.stream.last_generated, now.stream.added);
        }
        let lost = if !known {
            self.flow = Flow::default();
            (self.high_water.rank, self.high_water.counted) = (None, 0);
            0
        } else if now.cursor >= self.high_water.id {
            let lost = now.lost_since(&before);
            self.high_water.counted = self.high_water.counted.saturating_add(lost);
            lost
        } else {
            self.high_water.lost_above(&now)
        };
        if now.cursor > self.high_water.id {
            self.high_water.raise_to(now.cursor, None);
        }
        if lost > 0 {
            self.lost = self.lost.saturating_add(lost);
            self.lost_at = Some((at, lost));
        }
        let moved = now.cursor != before.cursor;
        // Of lags that are not exact, the points are guesses; the rule looks at their bounds.
        let exact = now.lag.uncertainty() == 0 && before.lag.uncertainty() == 0;
        // All that was there last time has been delivered: what is there now is younger, however much it is. Else a group that
        // reads in batches, seen at the same moment of each, would look as if it never caught up.
        let caught_up = now.cursor >= before.stream.last_generated;
        let fell = caught_up || (exact && now.lag.point < before.lag.point) || now.lag.max < before.lag.min;
        if fell || now.lag.max == 0 {
            self.not_fallen_from = now.lag;
        }
        self.not_fallen.next(at, !fell && now.lag.max > 0);
        self.behind.next(at, now.lag.min > 0 && before.lag.min > 0);
        self.still.next(at, !moved);
        let same = now.oldest_pending.is_some() && now.oldest_pending == before.oldest_pending;
        self.oldest_pending_still.next(at, same);
        self.rotation.next(moved, at, consumers);
    }
}

impl Rotation {
    /// Redis serves blocked consumers in the order in which they came. So after as many deliveries as there are consumers,
    /// each that waits was given something.
    fn next(&mut self, moved: bool, at: Duration, consumers: u64) {
        self.moves += u64::from(moved);
        if self.moves >= consumers.saturating_mul(ROTATIONS).max(1) {
            *self = Self { since: at, moves: 0, all_since: Some(self.since) };
        }
    }
}

#[cfg(test)]
mod tests;
