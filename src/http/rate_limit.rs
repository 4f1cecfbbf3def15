//! Rate limits of requests (the generic cell rate algorithm). Pure: the time is an argument.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// A burst of requests, and then one in each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The time in which one more request is earned.
    pub interval: Duration,
    /// Requests that may come at once.
    pub burst: u32,
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
        // After a pause the burst is available again, and no more.
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
    fn an_ipv6_host_is_its_network() {
        let of = |address: &str| client_key(address.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
