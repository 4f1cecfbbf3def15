//! How often somebody may ask, and how often guess. Pure: the time is an argument.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

/// So many requests at once, and then one in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time in which one more request is earned.
    pub interval: Duration,
    /// Requests that may come at once.
    pub burst: u32,
}

/// Failed logins that an address has at once: enough for somebody who mistypes.
const FAILURES_AT_ONCE: u32 = 10;

/// The time in which an address earns another failed login. A million guesses take ten weeks.
const FAILURE_INTERVAL: Duration = Duration::from_secs(6);

/// Places for failed logins. An address has the place that its hash picks, so that a flood of addresses takes no memory;
/// where two share one, they share what it allows.
const FAILURE_PLACES: usize = 4096;

impl RateLimit {
    /// What failed logins are held to.
    pub(super) const FAILURES: Self = Self { interval: FAILURE_INTERVAL, burst: FAILURES_AT_ONCE };
}

/// A token bucket, as the generic cell rate algorithm keeps it (ITU-T I.371): the time at which it will be full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gcra {
    full_at: Duration,
}

/// What a bucket says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateDecision {
    /// Whether it may pass, or else when to come again.
    pub(super) passes: Result<(), Duration>,
    /// Requests that may still come at once.
    pub(super) remaining: u32,
    /// The time until one more may.
    pub(super) next: Duration,
}

impl Gcra {
    /// Takes a request out of the bucket, where there is one left. `now` is counted from any fixed moment.
    pub(super) fn take(&mut self, rate: RateLimit, now: Duration) -> RateDecision {
        let capacity = rate.interval.saturating_mul(rate.burst);
        let full_at = self.full_at.max(now).saturating_add(rate.interval);
        let over = full_at.saturating_sub(now).checked_sub(capacity).filter(|over| !over.is_zero());
        if over.is_none() {
            self.full_at = full_at;
        }
        let (missing, interval) = (self.full_at.saturating_sub(now).as_nanos(), rate.interval.as_nanos().max(1));
        let whole = missing.div_ceil(interval);
        RateDecision {
            passes: over.map_or(Ok(()), Err),
            remaining: rate.burst.saturating_sub(u32::try_from(whole).unwrap_or(u32::MAX)),
            next: Duration::from_nanos_u128(missing - whole.saturating_sub(1) * interval),
        }
    }

    /// Puts a request back that turned out not to count.
    pub(super) fn give_back(&mut self, rate: RateLimit) {
        self.full_at = self.full_at.saturating_sub(rate.interval);
    }
}

/// Failed logins by address.
#[derive(Debug)]
pub(super) struct LoginThrottle {
    places: Mutex<Box<[Gcra]>>,
    /// Keyed anew by every process, so that nobody can choose addresses that share a place with somebody else's.
    hasher: RandomState,
}

impl Default for LoginThrottle {
    fn default() -> Self {
        Self { places: Mutex::new(vec![Gcra::default(); FAILURE_PLACES].into()), hasher: RandomState::new() }
    }
}

impl LoginThrottle {
    /// Counts a login as failed before it is tried, so that tries at the same time count too.
    ///
    /// # Errors
    /// The time to wait, where the address has failed too often.
    pub(super) fn begin(&self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        self.with(address, |bucket| bucket.take(RateLimit::FAILURES, now).passes)
    }

    /// The login did not fail.
    pub(super) fn succeeded(&self, address: IpAddr) {
        self.with(address, |bucket| bucket.give_back(RateLimit::FAILURES));
    }

    fn with<T>(&self, address: IpAddr, what: impl FnOnce(&mut Gcra) -> T) -> T {
        let place = self.hasher.hash_one(client_key(address)) % FAILURE_PLACES as u64;
        let mut places = self.places.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        what(&mut places[place as usize])
    }
}

/// Whose address it is: that of an IPv4 host, or the /64 that an IPv6 host has to itself.
#[must_use]
pub(super) fn client_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: RateLimit = RateLimit { interval: Duration::from_millis(100), burst: 20 };

    fn at(ms: u64) -> Duration {
        Duration::from_secs(1000) + Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let mut bucket = Gcra::default();
        for taken in 1..=20 {
            let allowance = bucket.take(RATE, at(0));
            assert_eq!((allowance.passes, allowance.remaining), (Ok(()), 20 - taken));
        }
        assert_eq!(bucket.take(RATE, at(0)).passes, Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(RATE, at(60)).passes, Err(Duration::from_millis(40)));
        assert_eq!(bucket.take(RATE, at(100)).passes, Ok(()));
        assert_eq!(bucket.take(RATE, at(100)).passes, Err(Duration::from_millis(100)));
        // Whoever stays away has the burst again, and not more.
        let passed = (0..100).filter(|_| bucket.take(RATE, at(60_000)).passes.is_ok()).count();
        assert_eq!(passed, 20);
    }

    #[test]
    fn over_any_time_no_more_than_the_rate_and_the_burst_pass() {
        let mut bucket = Gcra::default();
        let passed = (0..30_000).filter(|ms| bucket.take(RATE, at(*ms)).passes.is_ok()).count();
        assert!((319..=320).contains(&passed), "{passed}");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let mut bucket = Gcra::default();
        for _ in 0..100 {
            assert_eq!(bucket.take(RATE, at(0)).passes, Ok(()));
            bucket.give_back(RATE);
        }
    }

    #[test]
    fn failures_count_by_address_and_take_no_memory() {
        let failures = LoginThrottle::default();
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let passed = (0..100).filter(|_| failures.begin(guesser, at(0)).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(failures.begin(guesser, at(0)), Err(Duration::from_secs(6)));
        // The same host, as a socket of both families sees it.
        assert!(failures.begin("::ffff:192.0.2.1".parse().unwrap(), at(0)).is_err());
        // By chance, one in some four thousand shares the guesser's place.
        let others = (0..64u8).filter(|last| failures.begin([198, 51, 100, *last].into(), at(0)).is_ok()).count();
        assert!(others >= 62, "{others}");
        assert_eq!(failures.places.lock().unwrap().len(), FAILURE_PLACES);
        for _ in 0..50 {
            assert_eq!(failures.begin("203.0.113.7".parse().unwrap(), at(0)), Ok(()));
            failures.succeeded("203.0.113.7".parse().unwrap());
        }
    }

    #[test]
    fn an_ipv6_host_is_its_network() {
        let of = |address: &str| client_key(address.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
