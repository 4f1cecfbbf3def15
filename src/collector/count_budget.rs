//! What a poll may spend on counting, and on what it is spent first. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::EntryId;

/// Entries in the first page of a count, which most lags need no more than.
pub(super) const FIRST_PAGE: u64 = 128;

/// Entries in a later page: some 150 µs of Redis's time, during which it serves nobody else.
const PAGE: u64 = 500;

/// The same as a guess in microseconds.
pub(super) const PAGE_COST: u64 = 150;

/// Bytes in a page: copying more than this would take Redis as long as reading a full page does.
const PAGE_BYTES: u64 = 256 * 1024;

/// Bytes that all pages of a poll may have.
const POLL_BYTES: u64 = 32 * 1024 * 1024;

/// Pages in one round trip, so that the answers in memory are bounded.
const PAGES_IN_FLIGHT: usize = 64;

/// The share of a poll's entries that one group may have: the rest is for others.
const GROUP_SHARE: f64 = 0.8;

/// The share of a poll's deadline after which no more is asked: there has to be time for the answers.
const TIME_SHARE: f64 = 0.5;

/// The same where a sample has taken much of it before counting begins, as it is spread or Redis is slow: it has what lies between the
/// two, up to this.
const LAST_TIME_SHARE: f64 = 0.75;

/// The share of the time that is left that one round of pages may take.
const ROUND_SHARE: f64 = 0.5;

/// The longest interval for which the budget grows. After a longer one, a poll may still read no more than this allows.
const MAX_INTERVAL: Duration = Duration::from_secs(10);

/// What a poll may spend on counting.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountBudget {
    entries: u64,
    bytes: u64,
    per_group: u64,
    /// After which no more is asked, and what that may become.
    until: Instant,
    at_last: Instant,
    /// By when all of it has to be answered.
    deadline: Instant,
}

/// A group whose lag is not known without a count.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountRequest {
    /// The stream's place in the configuration.
    pub(super) at: usize,
    /// The group's place in the stream's sample; none for what holds the stream back.
    pub(super) group: Option<usize>,
    /// By how many entries the lag is uncertain.
    pub(super) uncertainty: u64,
    /// What an entry is expected to take.
    pub(super) entry_bytes: u64,
    /// What it may take, for which the budget is charged until it is known.
    pub(super) most_bytes: u64,
    /// The cursor after which the first entry is wanted as well; it comes along with the first page.
    pub(super) first: Option<EntryId>,
    /// Entries that the first page may have.
    pub(super) page: u64,
    /// Entries asked for already.
    pub(super) asked: u64,
}

impl CountBudget {
    /// The budget of a poll that began at `began`, with this many entries per second of the interval.
    pub(super) fn new(entries_per_second: u64, interval: Duration, began: Instant, timeout: Duration) -> Self {
        let entries = entries_per_second as f64 * interval.min(MAX_INTERVAL).as_secs_f64();
        Self {
            entries: entries as u64,
            bytes: POLL_BYTES,
            per_group: (entries * GROUP_SHARE) as u64,
            until: began + timeout.mul_f64(TIME_SHARE),
            at_last: began + timeout.mul_f64(LAST_TIME_SHARE),
            deadline: began + timeout,
        }
    }

    /// Counting begins: everything else was asked by now.
    pub(super) fn begin(&mut self, now: Instant) {
        self.until = self.until.max((now + (self.at_last - self.until)).min(self.at_last));
    }

    /// The next round of pages, each with its limit of entries: the most uncertain groups first, every group once before
    /// any gets more. Nothing where the budget is spent. `page_time` is how long a page is expected to take until it is answered: a round
    /// may have half of the time that is left, so that it does not cost the whole sample.
    pub(super) fn round(
        &mut self,
        wanted: &mut [CountRequest],
        now: Instant,
        page_time: Duration,
    ) -> Vec<(CountRequest, u64)> {
        if now >= self.until {
            return Vec::new();
        }
        let left = self.deadline.saturating_duration_since(now).mul_f64(ROUND_SHARE);
        let most = (left.as_nanos() / page_time.as_nanos().max(1)).min(PAGES_IN_FLIGHT as u128) as usize;
        wanted.sort_by_key(|wanted| (wanted.asked > 0, std::cmp::Reverse(wanted.uncertainty)));
        let mut round = Vec::new();
        for wanted in wanted.iter_mut() {
            if round.len() >= most {
                break;
            }
            let page = if wanted.asked == 0 { wanted.page } else { PAGE };
            let limit = page
                .min((PAGE_BYTES / wanted.entry_bytes).max(1))
                .min(self.entries)
                .min(self.per_group.saturating_sub(wanted.asked))
                .min(self.bytes / wanted.most_bytes);
            if limit > 0 {
                wanted.asked += limit;
                self.entries -= limit;
                self.bytes -= limit * wanted.most_bytes;
                round.push((*wanted, limit));
            }
        }
        round
    }

    /// Gives back what a page was allowed and did not take, and takes what it took more.
    pub(super) fn settle(&mut self, allowed: u64, read: u64, most_bytes: u64, bytes: u64) {
        self.entries += allowed.saturating_sub(read);
        self.bytes = self.bytes.saturating_add(allowed.saturating_mul(most_bytes)).saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_TIME: Duration = Duration::from_millis(1);

    fn wanted(at: usize, uncertainty: u64, entry_bytes: u64) -> CountRequest {
        CountRequest {
            at,
            group: Some(0),
            uncertainty,
            entry_bytes,
            most_bytes: entry_bytes,
            first: None,
            page: FIRST_PAGE,
            asked: 0,
        }
    }

    fn limits(round: &[(CountRequest, u64)]) -> Vec<(usize, u64)> {
        round.iter().map(|(wanted, limit)| (wanted.at, *limit)).collect()
    }

    #[test]
    fn the_most_uncertain_first_and_everybody_once() {
        let now = Instant::now();
        let mut budget = CountBudget::new(1000, Duration::from_secs(1), now, Duration::from_secs(2));
        let mut all = [wanted(1, 5, 100), wanted(2, 500, 100), wanted(3, 50, 100)];
        assert_eq!(
            limits(&budget.round(&mut all, now, PAGE_TIME)),
            [(2, FIRST_PAGE), (3, FIRST_PAGE), (1, FIRST_PAGE)]
        );
        budget.settle(FIRST_PAGE, 10, 100, 1000);
        // 1000 - 3 * 128 + 118 are left.
        assert_eq!(limits(&budget.round(&mut all, now, PAGE_TIME)), [(2, 500), (3, 234)]);
        assert_eq!(limits(&budget.round(&mut all, now, PAGE_TIME)), []);
    }

    #[test]
    fn nobody_gets_everything_and_large_entries_come_one_by_one() {
        let now = Instant::now();
        let mut budget = CountBudget::new(1000, Duration::from_secs(1), now, Duration::from_secs(2));
        let mut one = [wanted(1, 5000, 100)];
        let asked: u64 = (0..10).flat_map(|_| budget.round(&mut one, now, PAGE_TIME)).map(|(_, limit)| limit).sum();
        assert_eq!(asked, 800);
        let mut large = [wanted(1, 50, 10 * 1024 * 1024)];
        let mut budget = CountBudget::new(1000, Duration::from_secs(1), now, Duration::from_secs(2));
        let asked: Vec<u64> =
            (0..10).flat_map(|_| budget.round(&mut large, now, PAGE_TIME)).map(|(_, limit)| limit).collect();
        assert_eq!(asked, [1, 1, 1]);
    }

    #[test]
    fn a_round_leaves_time_for_its_answers() {
        let (began, millis) = (Instant::now(), Duration::from_millis);
        let pages = |now: Duration, page: Duration| {
            let mut budget = CountBudget::new(1_000_000, millis(1000), began, millis(2000));
            budget.begin(began + now);
            let mut all: Vec<CountRequest> = (0..800).map(|at| wanted(at, 5, 100)).collect();
            budget.round(&mut all, began + now, page).len()
        };
        assert_eq!(pages(millis(0), millis(1)), PAGES_IN_FLIGHT);
        assert_eq!(pages(millis(0), Duration::ZERO), PAGES_IN_FLIGHT);
        // Half a second is left, and half of that is for this round.
        assert_eq!(pages(millis(1499), millis(10)), 25);
        assert_eq!(pages(millis(1499), millis(300)), 0);
    }

    #[test]
    fn a_sample_that_is_spread_leaves_time_to_count() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let asks_at = |begins: Duration, now: Duration| {
            let mut budget = CountBudget::new(1000, second, began, 4 * second);
            budget.begin(began + begins);
            !budget.round(&mut [wanted(1, 5, 100)], began + now, PAGE_TIME).is_empty()
        };
        let millis = Duration::from_millis;
        assert!(asks_at(millis(0), millis(1999)) && !asks_at(millis(0), millis(2000)));
        assert!(asks_at(millis(1500), millis(2499)) && !asks_at(millis(1500), millis(2500)));
        assert!(asks_at(millis(2500), millis(2999)) && !asks_at(millis(2500), millis(3000)));
    }

    #[test]
    fn nothing_after_half_the_deadline_and_nothing_without_a_budget() {
        let now = Instant::now();
        let mut budget = CountBudget::new(1000, Duration::from_secs(1), now, Duration::from_secs(2));
        assert!(budget.round(&mut [wanted(1, 5, 100)], now + Duration::from_secs(1), PAGE_TIME).is_empty());
        let mut budget = CountBudget::new(0, Duration::from_secs(1), now, Duration::from_secs(2));
        assert!(budget.round(&mut [wanted(1, 5, 100)], now, PAGE_TIME).is_empty());
    }
}
