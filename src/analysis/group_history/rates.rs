//! Rates: what was added, delivered and acknowledged per second, over a window.

use std::collections::VecDeque;
use std::time::Duration;

use crate::analysis::consumers::ghost_pending;
use crate::analysis::group_history::loss::GroupObservation;
use crate::analysis::window::Windows;
use crate::model::lag::Lag;
use crate::model::sample::{GroupSample, StreamSample};
use crate::model::{ConsumerName, EntryId};

/// Points kept of each rate's window, which is as finely as its edge moves.
const RATE_POINTS: u32 = 8;

/// Totals over time, to take rates from.
#[derive(Debug)]
pub(super) struct Rates<const N: usize>(VecDeque<(Duration, [u64; N])>);

impl<const N: usize> Default for Rates<N> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<const N: usize> Rates<N> {
    /// Takes the totals of a sample and answers with each one's increase per second over the window.
    pub(super) fn take(&mut self, at: Duration, totals: [u64; N], windows: &Windows) -> Option<[f64; N]> {
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

/// What is kept of a sample to tell what was delivered since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub(super) cursor: EntryId,
    pub(super) lag: Lag,
    pub(super) added: Option<u64>,
    pub(super) last_generated: EntryId,
    pub(super) entries_read: Option<u64>,
    pub(super) pending: u64,
    /// Entries that were lost by then.
    pub(super) lost: u64,
}

impl Anchor {
    pub(super) fn of(seen: &GroupObservation, lost: u64) -> Self {
        Self {
            cursor: seen.cursor,
            lag: seen.lag,
            added: seen.stream.entries_added,
            last_generated: seen.stream.last_generated,
            entries_read: seen.entries_read,
            pending: seen.pending,
            lost,
        }
    }

    /// Entries added until `now`, where the server tells.
    pub(super) fn added_until(&self, now: &GroupObservation) -> Option<u64> {
        match (now.stream.entries_added, self.added) {
            (Some(now), Some(then)) => now.checked_sub(then),
            _ => (now.stream.last_generated == self.last_generated).then_some(0),
        }
    }
}

/// Who holds pending entries: what tells that some went without being acknowledged.
#[derive(Debug, Default)]
pub(super) struct Holders {
    /// Consumers that hold some, and how many.
    pub(super) consumers: Vec<(ConsumerName, u64)>,
    /// Pending entries without payload, where they are counted: a lower bound.
    pub(super) ghosts: u64,
}

impl Holders {
    /// Takes a sample. Returns how many pending entries went since the one before and were not acknowledged: those of consumers that
    /// were deleted, and those without payload that were cleared (`XAUTOCLAIM`).
    pub(super) fn take(&mut self, stream: &StreamSample, group: &GroupSample) -> u64 {
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
pub(super) struct Flow {
    /// Pending entries that went since the anchor without being acknowledged.
    pub(super) dropped: u64,
    /// The newest sample from which what was delivered since can be told.
    pub(super) anchor: Option<Anchor>,
    /// Delivered and acknowledged by then.
    pub(super) totals: [u64; 2],
    pub(super) rates: Rates<2>,
}

impl Flow {
    /// Takes a sample, by which this many entries were lost, and answers with the rates; `None` until they are known.
    pub(super) fn take(
        &mut self,
        now: &GroupObservation,
        lost: u64,
        at: Duration,
        windows: &Windows,
    ) -> Option<[f64; 2]> {
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

/// What one active consumer takes while there is lag: with less to do, it would look as if it could do no more.
#[derive(Debug, Default)]
pub(super) struct CapacityRate {
    /// Milliseconds of active consumers.
    consumer_ms: u64,
    rates: Rates<1>,
    measured: Option<f64>,
}

impl CapacityRate {
    /// Takes a sample, `elapsed` after the one before. Consumers that were behind for a whole window took what they could. Others may
    /// have had less to do, so that of them the most counts.
    pub(super) fn take(
        &mut self,
        elapsed: Duration,
        active: u64,
        (delivered, moved): (Option<f64>, bool),
        behind_for: Option<Duration>,
        at: Duration,
        windows: &Windows,
    ) -> Option<f64> {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.consumer_ms = self.consumer_ms.saturating_add(active.saturating_mul(elapsed_ms));
        let consumers = self.rates.take(at, [self.consumer_ms], windows).map(|[ms_per_second]| ms_per_second / 1000.0);
        // Consumers that are stuck tell nothing of what they could do.
        let Some(delivered) = delivered.filter(|delivered| *delivered > 0.0 && moved) else { return self.measured };
        let is_busy = behind_for.is_some_and(|behind| behind >= windows.window);
        if let Some(consumers) = consumers.filter(|consumers| *consumers > 0.0) {
            let now = delivered / consumers;
            self.measured = Some(if is_busy { now } else { self.measured.map_or(now, |before| before.max(now)) });
        }
        self.measured
    }
}
