//! Paces a sample: how much of it is asked at once, and when, so that Redis serves other clients meanwhile.
//! No I/O.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that Redis is to be kept from serving others by what is asked at once, in microseconds. Half of it is used, as
/// what something takes is a guess.
const MAX_TURN_US: u64 = 1000;

/// Measured times weigh so much against those of before.
const NEWEST_SHARE: f64 = 0.3;

/// Bounds of how much slower a server is than the one on which the guesses were made.
const SLOWNESS: (f64, f64) = (0.25, 50.0);

/// How much longer than the last one the quickest round trip may become: a way that got longer is noticed in some samples.
const FORGET_ROUND_TRIP: f64 = 1.1;

/// The share of Redis's time that may be asked for at a time beyond what was foreseen, until the time over which the sample is
/// spread has passed. What one poll may ask so is bounded elsewhere; this keeps it from being asked all at once.
const BEYOND_SHARE: f64 = 0.2;

/// The pace of one server's samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pacer {
    /// What a microsecond of the guess takes on this server.
    cost_scale: f64,
    /// The quickest round trip of late: what is not Redis's time.
    round_trip: Option<Duration>,
    /// The time over which this sample is spread; `None` for as quick as can be.
    spread: Option<Duration>,
    /// When it began, what all of it will cost as a guess, and what was asked by now.
    began: Instant,
    all: u64,
    asked: u64,
    /// From when what was not foreseen may be asked; `None` while what was is.
    beyond: Option<Instant>,
    /// Redis's time that this sample took so far.
    taken: Duration,
    /// Whether any of its questions was answered.
    has_answers: bool,
}

impl Default for Pacer {
    fn default() -> Self {
        Self {
            cost_scale: 1.0,
            round_trip: None,
            spread: None,
            began: Instant::now(),
            all: 0,
            asked: 0,
            beyond: None,
            taken: Duration::ZERO,
            has_answers: false,
        }
    }
}

impl Pacer {
    /// A sample begins.
    pub(super) fn begin(&mut self) {
        (self.taken, self.has_answers) = (Duration::ZERO, false);
    }

    /// What is asked from now on costs this many microseconds by estimate, and is to be spread over this time.
    pub(super) fn spread(&mut self, spread: Duration, all: u64) {
        self.spread = (!spread.is_zero()).then_some(spread);
        (self.began, self.all, self.asked, self.beyond) = (Instant::now(), all.max(1), 0, None);
    }

    /// What is asked from now on was not foreseen: it need not wait for the end of the time over which the rest was spread.
    pub(super) fn begin_unplanned(&mut self, now: Instant) {
        self.beyond = Some(now);
    }

    /// The round trip of the smallest question.
    pub(super) fn measured_round_trip(&mut self, now: Duration) {
        let longest = self.round_trip.map_or(now, |before| before.mul_f64(FORGET_ROUND_TRIP));
        self.round_trip = Some(now.min(longest));
    }

    /// Whether the sample is spread, so that one batch is answered before the next is asked.
    pub(super) fn is_spread(&self) -> bool {
        self.spread.is_some()
    }

    /// The most that a batch may cost as a guess; where nothing is spread, nothing limits it.
    pub(super) fn batch_cost(&self) -> u64 {
        match self.spread {
            Some(_) => ((MAX_TURN_US / 2) as f64 / self.cost_scale) as u64,
            None => u64::MAX,
        }
    }

    /// When a batch of this cost may be asked.
    pub(super) fn next(&mut self, cost: u64, now: Instant) -> Instant {
        let spread = self.spread.unwrap_or_default();
        if let Some(free) = self.beyond {
            let due = free.min(self.began + spread);
            self.beyond = Some(due.max(now) + self.takes(cost).div_f64(BEYOND_SHARE));
            return due;
        }
        let at = spread.mul_f64((self.asked as f64 / self.all as f64).min(1.0));
        self.asked += cost;
        self.began + at
    }

    /// What something of this cost takes of this server's time.
    fn takes(&self, cost: u64) -> Duration {
        Duration::from_secs_f64(cost as f64 * self.cost_scale / 1e6)
    }

    /// How long something of this cost is expected to take until it is answered, with others before it: with its way, where each waits
    /// for the one before, and with pauses.
    pub(super) fn expected(&self, cost: u64) -> Duration {
        let takes = self.takes(cost);
        if self.is_spread() { self.round_trip() + takes.div_f64(BEYOND_SHARE) } else { takes }
    }

    /// What was asked and cost so much as a guess was answered after this time.
    pub(super) fn answered(&mut self, cost: u64, waited: Duration) {
        let took = waited.saturating_sub(self.round_trip.unwrap_or_default());
        self.taken += took;
        self.has_answers = true;
        if cost > 0 {
            let cost_scale = (took.as_secs_f64() * 1e6 / cost as f64).clamp(SLOWNESS.0, SLOWNESS.1);
            self.cost_scale += (cost_scale - self.cost_scale) * NEWEST_SHARE;
        }
    }

    /// The way to Redis and back.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or_default()
    }

    /// Whether any question of this sample was answered.
    pub(super) fn has_answers(&self) -> bool {
        self.has_answers
    }

    /// Redis's time that this sample took so far, as seen from here.
    pub(super) fn taken(&self) -> Duration {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_sample_is_spread_evenly_by_cost() {
        let mut pacer = Pacer::default();
        pacer.spread(100 * MS, 1000);
        let began = pacer.began;
        let starts: Vec<Duration> = [250, 250, 250, 250, 250].map(|cost| pacer.next(cost, began) - began).to_vec();
        assert_eq!(starts, [0, 25, 50, 75, 100].map(|ms| ms * MS));
        pacer.spread(Duration::ZERO, 1000);
        let began = pacer.began;
        assert!(!pacer.is_spread() && pacer.next(999, began) == began && pacer.next(1, began) == began);
        pacer.begin_unplanned(began);
        assert!(pacer.next(999, began) == began && pacer.next(1, began) == began);
    }

    #[test]
    fn what_was_not_foreseen_is_asked_with_pauses_and_does_not_wait_for_the_end() {
        let mut pacer = Pacer::default();
        pacer.spread(100 * MS, 1000);
        let began = pacer.began;
        assert_eq!(pacer.next(1000, began), began);
        pacer.begin_unplanned(began + 2 * MS);
        // A millisecond of Redis's time each, and four of its own.
        assert_eq!([1000, 1000].map(|cost| pacer.next(cost, began + 2 * MS) - began), [2, 7].map(|ms| ms * MS));
        // An answer that was long in coming.
        assert_eq!(pacer.next(1000, began + 50 * MS), began + 12 * MS);
        assert_eq!(pacer.next(10_000, began + 50 * MS), began + 55 * MS);
        // No later than by when all would have been asked.
        assert_eq!([1000, 1000].map(|cost| pacer.next(cost, began + 60 * MS) - began), [100, 100].map(|ms| ms * MS));
    }

    #[test]
    fn batches_shrink_on_a_slow_server_and_the_way_there_does_not_count() {
        let mut pace = Pacer::default();
        pace.spread(100 * MS, 1000);
        assert_eq!(pace.batch_cost(), MAX_TURN_US / 2);
        pace.measured_round_trip(10 * MS);
        for _ in 0..50 {
            pace.answered(500, 15 * MS);
        }
        // 5 ms for what was guessed to take half a millisecond.
        assert!((45..=55).contains(&pace.batch_cost()), "{}", pace.batch_cost());
        assert_eq!(pace.taken(), 250 * MS);
        for _ in 0..50 {
            pace.answered(500, 10 * MS);
        }
        assert!(pace.batch_cost() >= MAX_TURN_US, "{}", pace.batch_cost());
        // The quickest of late counts, and is forgotten slowly.
        pace.measured_round_trip(5 * MS);
        pace.measured_round_trip(100 * MS);
        assert_eq!(pace.round_trip, Some((5 * MS).mul_f64(FORGET_ROUND_TRIP)));
    }
}
