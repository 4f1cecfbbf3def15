//! What happened to a stream and its groups over the last samples: rates, losses, and how long things have stood still.
//! Pure: the time is an argument, counted from any fixed moment by a clock that never steps.

mod loss;
mod rates;

use std::time::Duration;

use crate::analysis::group_history::loss::{GroupObservation, HighWatermark};
use crate::analysis::group_history::rates::{CapacityRate, Flow, Holders, Rates};
use crate::analysis::group_state::{StateEvidence, StateMachine, Verdict};
use crate::analysis::window::{Streak, Windows};
use crate::model::EntryId;
use crate::model::lag::{Continuity, Lag};
use crate::model::sample::{GroupSample, StreamSample};

/// How often every consumer of a group must have had its turn before one that had none counts as dead.
const ROTATIONS: u64 = 2;

/// One stream over time.
#[derive(Debug, Default)]
pub struct StreamHistory {
    /// Since when it is the same stream on the same connection.
    begun: Option<Duration>,
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
        if matches!(stream.continuity, Continuity::Discontinuous | Continuity::Unknown) {
            *self = Self::default();
        }
        self.begun.get_or_insert(at);
        if self.max_deleted.is_some() && self.max_deleted != stream.reply.max_deleted {
            self.deleted_at = Some(at);
        }
        self.max_deleted = stream.reply.max_deleted;
        let Some(added) = stream.reply.entries_added else { return StreamRates::default() };
        let removed = added.saturating_sub(stream.reply.length);
        let rates = self.rates.take(at, [added, removed], windows);
        let (added, removed) = rates.map(|[added, removed]| (added, removed)).unzip();
        let deleting = self.deleted_at.is_some_and(|when| at.saturating_sub(when) < windows.window);
        StreamRates { added, removed, trimmed: removed.filter(|_| !deleting) }
    }

    /// Whether it was watched without a break for as long as it takes a consumer to be dead.
    pub fn idle_times_hold(&self, at: Duration, windows: &Windows) -> bool {
        self.begun.is_some_and(|begun| at.saturating_sub(begun) >= windows.dead_after)
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
    capacity: CapacityRate,
    rotation: Rotation,
    watch: StateMachine,
}

/// Whether every consumer must have had its turn.
#[derive(Debug)]
struct Rotation {
    since: Duration,
    moves: u64,
    /// From then until now, every live consumer has had a turn.
    all_since: Option<Duration>,
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
    /// Entries that one active consumer takes per second while there is lag, as last measured; `None` before that.
    pub capacity: Option<f64>,
    /// The state it is in.
    pub verdict: Verdict,
    /// How long there has been lag; `None` where there is none.
    pub behind_for: Option<Duration>,
    /// Every consumer that is alive was given something or asked for it within this time; `None` where that is unknown.
    pub all_had_a_turn_within: Option<Duration>,
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
            capacity: CapacityRate::default(),
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
        if stream.continuity == Continuity::Discontinuous {
            let rewound = now.cursor < self.high_water.id;
            *self = Self { lost: self.lost, ..Self::new(stream, group, at) };
            if rewound {
                // Where it is the stream of before after all, what is there now may have been delivered already.
                self.high_water.raise_to(now.stream.last_generated, now.stream.entries_added);
            }
        } else if at > self.at {
            let known = stream.continuity != Continuity::Unknown;
            self.advance(now, at, group.consumers, known);
        }
        self.flow.dropped = self.flow.dropped.saturating_add(self.holders.take(stream, group));
        let rates = self.flow.take(&now, self.lost, at, windows);
        let behind_for = (now.lag.min > 0).then(|| at.saturating_sub(self.behind.since));
        let present = alive.unwrap_or(group.consumers);
        let (delivered, moved) = (rates.map(|[delivered, _]| delivered), self.still.since == at);
        let capacity =
            self.capacity.take(at.saturating_sub(self.at), present, (delivered, moved), behind_for, at, windows);
        let evidence = StateEvidence {
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
            delivered_rate: delivered,
            capacity,
            acknowledged_rate: rates.map(|[_, acknowledged]| acknowledged),
            verdict: self.watch.judge(evidence, windows, stream.now_ms),
            behind_for,
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
            self.high_water.raise_to(now.stream.last_generated, now.stream.entries_added);
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
        self.high_water.raise_to(now.cursor, None);
        if lost > 0 {
            self.lost = self.lost.saturating_add(lost);
            self.lost_at = Some((at, lost));
        }
        let moved = now.cursor != before.cursor;
        // All that was there last time has been delivered: what is there now is younger, however much it is. Else a group that
        // reads in batches, seen at the same moment of each, would look as if it never caught up.
        let caught_up = now.cursor >= before.stream.last_generated;
        // Of lags that are not exact, the points are guesses; their bounds are not.
        let fell = caught_up || now.lag.max < before.lag.min;
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
