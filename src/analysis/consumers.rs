//! Consumers: whether they are alive, how healthy they are, and how many are needed.

use std::time::Duration;

use crate::analysis::window::Windows;
use crate::model::reply::ConsumerReply;
use crate::model::sample::{GroupSample, StreamSample};

/// What a full score loses at most: for being idle, for an old pending entry, for holding more than its share.
const PENALTIES: [f64; 3] = [50.0, 30.0, 20.0];

/// An oldest pending entry of this multiple of the time after which a consumer counts as dead costs the whole penalty.
const OLD_PENDING: f64 = 10.0;

/// Whether a consumer tried to read lately.
#[must_use]
pub fn is_awake(consumer: &ConsumerReply, windows: &Windows) -> bool {
    consumer.idle_ms.is_some_and(|idle| Duration::from_millis(idle) < windows.dead_after)
}

/// What a group's consumers are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Age of the oldest undelivered entry in seconds, or how long there has been lag; `None` where there is none.
    pub waiting_seconds: Option<f64>,
    /// Every live consumer had a turn within this many seconds.
    pub turn_seconds: Option<f64>,
    /// Entries pending in the whole group.
    pub pending: u64,
    /// Consumers in the group.
    pub consumers: u64,
}

impl Work {
    /// Whether a consumer is alive; `None` where that is unknown: it is idle, and there was nothing for it to do.
    ///
    /// Blocked on a quiet stream, a healthy consumer looks idle. So being idle counts only together with something that
    /// was left undone: entries to read for as long, entries of its own to acknowledge, or a turn that it did not take.
    #[must_use]
    pub fn is_active(&self, consumer: &ConsumerReply, windows: &Windows) -> Option<bool> {
        if is_awake(consumer, windows) {
            return Some(true);
        }
        let (idle, patience) = (consumer.idle_ms? as f64 / 1000.0, windows.dead_after.as_secs_f64());
        let left_undone = consumer.pending > Some(0)
            || self.waiting_seconds.is_some_and(|waiting| waiting >= patience)
            || self.turn_seconds.is_some_and(|turn| idle > turn);
        left_undone.then_some(false)
    }

    /// 0 for a dead consumer, else 100 less up to 50 for being idle while there is work, up to 30 for the age of its oldest
    /// pending entry (where it is known), and up to 20 for holding more than its share of the pending entries.
    #[must_use]
    pub fn health(&self, consumer: &ConsumerReply, oldest_pending_seconds: Option<f64>, windows: &Windows) -> u8 {
        if self.is_active(consumer, windows) == Some(false) {
            return 0;
        }
        let patience = windows.dead_after.as_secs_f64();
        let has_work = consumer.pending > Some(0) || self.waiting_seconds.is_some();
        let idle_ms = consumer.idle_ms.filter(|_| has_work);
        let idle = idle_ms.map_or(0.0, |idle| (idle as f64 / 1000.0 / patience).min(1.0));
        let old = oldest_pending_seconds.map_or(0.0, |age| (age / (patience * OLD_PENDING)).min(1.0));
        let score = 100.0 - PENALTIES[0] * idle - PENALTIES[1] * old - PENALTIES[2] * self.excess(consumer);
        score.round().clamp(0.0, 100.0) as u8
    }

    /// How much more than an even share of the pending entries it holds: 0 for an even share, 1 for all of them.
    fn excess(&self, consumer: &ConsumerReply) -> f64 {
        if self.consumers < 2 || self.pending == 0 {
            return 0.0;
        }
        let even = 1.0 / self.consumers as f64;
        let share = consumer.pending.unwrap_or(0) as f64 / self.pending as f64;
        ((share - even) / (1.0 - even)).clamp(0.0, 1.0)
    }
}

/// How many consumers a group should have, or why that is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recommendation {
    /// This many.
    Consumers {
        /// The number.
        count: u64,
        /// What it is computed from, entries per second.
        added: f64,
        /// What one active consumer takes, entries per second.
        each: f64,
        /// The lag to drain.
        lag: u64,
        /// In what time.
        target: Duration,
    },
    /// Not known: rates are not known yet, or not on this server.
    NoRates,
    /// Not known: nothing was delivered over the window.
    NothingDelivered,
    /// Not known: no consumer is active, so there is no telling what one manages.
    NobodyActive,
}

impl Recommendation {
    /// Consumers needed to keep up with what is added and to drain the lag in the time asked for: (added + lag ÷ target) ÷ what one active
    /// consumer takes, rounded up. That is `capacity`, what one was measured to take with enough to do, or what one takes now where
    /// that is more or nothing was measured.
    #[must_use]
    pub fn of(
        added: Option<f64>,
        delivered: Option<f64>,
        capacity: Option<f64>,
        lag: u64,
        active: u64,
        target: Duration,
    ) -> Self {
        let (Some(added), Some(delivered)) = (added, delivered) else { return Self::NoRates };
        if active == 0 && capacity.is_none() {
            return Self::NobodyActive;
        }
        let is_stuck = active > 0 && delivered <= 0.0 && lag > 0;
        let now = if active > 0 { delivered / active as f64 } else { 0.0 };
        let each = capacity.unwrap_or(0.0).max(now);
        if is_stuck || each <= 0.0 {
            return Self::NothingDelivered;
        }
        let needed = (added + lag as f64 / target.as_secs_f64()) / each;
        // A hair above a whole number is that number: the rates are measured.
        Self::Consumers { count: ((needed - 0.01).ceil() as u64).max(1), added, each, lag, target }
    }

    /// The number, where it is known.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match self {
            Self::Consumers { count, .. } => Some(*count),
            Self::NoRates | Self::NothingDelivered | Self::NobodyActive => None,
        }
    }

    /// The reasoning, in a sentence.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Consumers { count, added, each, lag, target } => format!(
                "{added:.1} entries/s are added, a lag of {lag} is to be drained in {} s, one active consumer takes \
                 {each:.1} entries/s: {count}",
                target.as_secs_f64()
            ),
            Self::NoRates => "the rates are not known yet, or not on this server (Redis 7.0 and later)".to_owned(),
            Self::NothingDelivered => {
                "nothing was delivered over the window, so what a consumer manages is not known".to_owned()
            }
            Self::NobodyActive => "no consumer is active, so what one manages is not known".to_owned(),
        }
    }
}

/// Time until a lag is drained at these rates, in seconds; `None` where it does not shrink.
#[must_use]
pub fn drain_seconds(lag: u64, added: Option<f64>, delivered: Option<f64>) -> Option<f64> {
    let net = delivered? - added?;
    (lag > 0 && net > 0.0).then(|| lag as f64 / net)
}

/// Pending entries whose payload is gone: a lower bound; `None` where that was not asked.
///
/// Pending entries are not trimmed with the stream, so those before its first entry are gone; all of them where it is
/// empty. (Those deleted further up would have to be looked for one by one.)
#[must_use]
pub fn ghost_pending(stream: &StreamSample, group: &GroupSample) -> Option<u64> {
    if group.unknown.pending {
        return None;
    }
    match (stream.reply.first, group.oldest_pending) {
        (None, _) => (stream.reply.length == 0).then_some(group.pending),
        (Some(_), None) => (group.pending == 0).then_some(0),
        (Some(first), Some(oldest)) if oldest >= first => Some(0),
        (Some(_), Some(_)) => group.ghost_pending.map(|counted| counted.min(group.pending)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EntryId;
    use crate::model::reply::{StreamReply, UnknownFields};

    const WINDOWS: Windows = Windows { samples: 6, ..crate::analysis::snapshot::tests::WINDOWS };

    const QUIET: Work = Work { waiting_seconds: None, turn_seconds: None, pending: 0, consumers: 2 };

    fn consumer(pending: u64, idle_seconds: u64) -> ConsumerReply {
        ConsumerReply {
            name: "c".into(),
            pending: Some(pending),
            idle_ms: Some(idle_seconds * 1000),
            inactive_ms: None,
        }
    }

    #[test]
    fn idle_alone_does_not_make_a_consumer_dead() {
        let check = |work: Work, pending, idle, expected| {
            assert_eq!(work.is_active(&consumer(pending, idle), &WINDOWS), expected, "{work:?} {pending} {idle}");
        };
        check(QUIET, 0, 59, Some(true));
        check(QUIET, 5, 59, Some(true));
        // Blocked on a quiet stream, or dead: unknown.
        check(QUIET, 0, 3600, None);
        // It holds entries and does not come back.
        check(QUIET, 5, 60, Some(false));
        // There has been something to read for as long.
        check(Work { waiting_seconds: Some(59.0), ..QUIET }, 0, 3600, None);
        check(Work { waiting_seconds: Some(60.0), ..QUIET }, 0, 3600, Some(false));
        // Every other consumer had a turn since.
        check(Work { turn_seconds: Some(100.0), ..QUIET }, 0, 90, None);
        check(Work { turn_seconds: Some(100.0), ..QUIET }, 0, 100, None);
        check(Work { turn_seconds: Some(100.0), ..QUIET }, 0, 110, Some(false));
    }

    #[test]
    fn the_health_score() {
        let check = |work: Work, sample: ConsumerReply, oldest, expected| {
            assert_eq!(work.health(&sample, oldest, &WINDOWS), expected, "{work:?} {sample:?}");
        };
        let busy = Work { waiting_seconds: Some(5.0), pending: 10, ..QUIET };
        check(QUIET, consumer(0, 50), None, 100);
        check(busy, consumer(5, 0), None, 100);
        check(busy, consumer(5, 30), None, 75);
        // Either is work: entries of its own, or entries that wait.
        check(Work { pending: 10, ..QUIET }, consumer(5, 30), None, 75);
        check(busy, consumer(0, 30), None, 75);
        check(busy, consumer(5, 0), Some(300.0), 85);
        check(busy, consumer(5, 0), Some(6000.0), 70);
        check(busy, consumer(10, 0), None, 80);
        check(busy, consumer(10, 59), Some(6000.0), 1);
        check(busy, consumer(10, 60), None, 0);
        check(Work { consumers: 1, ..busy }, consumer(10, 0), None, 100);
    }

    #[test]
    fn drain_time_only_where_it_drains() {
        assert_eq!(drain_seconds(100, Some(10.0), Some(30.0)), Some(5.0));
        for (lag, added, delivered) in
            [(0, Some(10.0), Some(30.0)), (100, Some(30.0), Some(30.0)), (100, None, Some(1.0)), (100, Some(1.0), None)]
        {
            assert_eq!(drain_seconds(lag, added, delivered), None);
        }
    }

    #[test]
    fn consumers_it_takes() {
        let check = |added, delivered, lag, active, expected: Option<u64>, reason: &str| {
            let found = Recommendation::of(added, delivered, None, lag, active, Duration::from_secs(60));
            assert_eq!(found.count(), expected, "{found:?}");
            assert!(found.reason().contains(reason), "{}", found.reason());
        };
        // Two take 100 a second; 200 are added, and 6000 are to be drained in a minute.
        check(Some(200.0), Some(100.0), 6000, 2, Some(6), "one active consumer takes 50.0 entries/s: 6");
        check(Some(100.0), Some(100.0), 0, 2, Some(2), "");
        check(Some(0.0), Some(100.0), 0, 2, Some(1), "");
        check(None, Some(100.0), 0, 2, None, "not known yet");
        check(Some(1.0), Some(0.0), 10, 2, None, "nothing was delivered");
        check(Some(1.0), Some(1.0), 10, 0, None, "no consumer is active");
    }

    #[test]
    fn what_a_consumer_takes_with_enough_to_do_is_remembered() {
        let check = |delivered, capacity, lag, active, expected: Option<u64>| {
            let target = Duration::from_secs(60);
            let found = Recommendation::of(Some(90.0), Some(delivered), capacity, lag, active, target);
            assert_eq!(found.count(), expected, "{found:?}");
        };
        // Twenty that keep up take 4.5/s each, and could take 20.
        check(90.0, None, 0, 20, Some(20));
        check(90.0, Some(20.0), 0, 20, Some(5));
        // They were made faster.
        check(90.0, Some(20.0), 0, 3, Some(3));
        // Nobody is there, and there is something to do.
        check(0.0, Some(20.0), 600, 0, Some(5));
        check(0.0, Some(20.0), 6000, 0, Some(10));
        // Nobody is active any more: what was delivered within the window says nothing of what one takes.
        check(90.0, Some(20.0), 0, 0, Some(5));
        // Nothing waits, so nobody is stuck.
        check(0.0, Some(20.0), 0, 3, Some(5));
        // They are there and stuck: more of them may be stuck as well.
        check(0.0, Some(20.0), 600, 3, None);
        check(0.0, None, 0, 3, None);
    }

    #[test]
    fn ghosts() {
        let id = |ms| Some(EntryId { ms, seq: 0 });
        let check = |pending, oldest_pending, ghost_pending, first: Option<EntryId>, expected| {
            let group = GroupSample { pending, oldest_pending, ghost_pending, ..GroupSample::default() };
            let length = if first.is_some() { 9 } else { 0 };
            let stream = StreamSample {
                reply: StreamReply { first, length, ..StreamReply::default() },
                ..StreamSample::default()
            };
            assert_eq!(super::ghost_pending(&stream, &group), expected, "{group:?}");
        };
        check(3, id(5), None, id(5), Some(0));
        check(3, id(4), Some(2), id(5), Some(2));
        check(3, id(4), Some(9), id(5), Some(3));
        check(3, id(4), None, id(5), None);
        check(3, id(4), None, None, Some(3));
        check(0, None, None, id(5), Some(0));
        check(3, None, None, id(5), None);
        // Where the stream begins is not known, or how many are pending.
        let group = GroupSample { pending: 3, oldest_pending: id(4), ..GroupSample::default() };
        let no_ends =
            StreamSample { reply: StreamReply { length: 9, ..StreamReply::default() }, ..StreamSample::default() };
        assert_eq!(ghost_pending(&no_ends, &group), None);
        let unknown = UnknownFields { pending: true, ..UnknownFields::default() };
        assert_eq!(ghost_pending(&StreamSample::default(), &GroupSample { unknown, ..group }), None);
    }

    #[test]
    fn of_a_consumer_that_is_half_known_nothing_is_made_up() {
        let idle_unknown = ConsumerReply { idle_ms: None, ..consumer(5, 0) };
        assert_eq!(QUIET.is_active(&idle_unknown, &WINDOWS), None);
        assert!(!is_awake(&idle_unknown, &WINDOWS));
        let pending_unknown = ConsumerReply { pending: None, ..consumer(0, 3600) };
        assert_eq!(QUIET.is_active(&pending_unknown, &WINDOWS), None);
    }
}
