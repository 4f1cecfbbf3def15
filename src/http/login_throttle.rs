//! Failed logins, counted by address in constant memory.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::rate_limit::{Gcra, RateLimit, client_key};

/// Failed logins that an address has at once: enough for a person who mistypes.
const FAILURES_AT_ONCE: u32 = 10;

/// The time in which an address earns another failed login. A million guesses take ten weeks.
const FAILURE_INTERVAL: Duration = Duration::from_secs(6);

/// Places for failed logins. An address has the place that its hash picks, so that a flood of addresses takes no memory;
/// where two share one, they share what it allows.
const FAILURE_PLACES: usize = 4096;

/// Addresses that have logged in and have a place of their own, so that no flood of addresses fills it. The one that logged in longest
/// ago goes first.
const KNOWN_ADDRESSES: usize = 256;

/// What failed logins are held to.
const FAILURES: RateLimit = RateLimit { interval: FAILURE_INTERVAL, burst: FAILURES_AT_ONCE };

/// Failed logins by address. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct LoginThrottle(Arc<ThrottleState>);

#[derive(Debug)]
struct ThrottleState {
    places: Mutex<Places>,
    /// Keyed by a random key per process, so that no client can choose addresses that collide with another's.
    hasher: RandomState,
    began: Instant,
}

#[derive(Debug)]
struct Places {
    hashed: Box<[Gcra]>,
    /// Of addresses that have logged in, the latest last.
    known: Vec<(IpAddr, Gcra)>,
}

/// Whose turn it is among logins: the least is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    /// Whether nobody has logged in from there before.
    pub(super) is_unknown: bool,
    /// Failed logins of the address that count still, and those that are being tried.
    pub(super) failures: u32,
}

/// A login that is tried. It counts as failed from its beginning, so that tries at the same time count too; dropped, it was not tried.
#[derive(Debug)]
pub(super) struct LoginAttempt {
    throttle: LoginThrottle,
    address: IpAddr,
    standing: Standing,
    is_counted: bool,
}

impl Default for LoginThrottle {
    fn default() -> Self {
        let places = Places { hashed: vec![Gcra::default(); FAILURE_PLACES].into(), known: Vec::new() };
        Self(Arc::new(ThrottleState { places: Mutex::new(places), hasher: RandomState::new(), began: Instant::now() }))
    }
}

impl LoginThrottle {
    /// Begins a login.
    ///
    /// # Errors
    /// The time to wait, where the address has failed too often.
    pub(super) fn begin(&self, address: IpAddr) -> Result<LoginAttempt, Duration> {
        let now = self.0.began.elapsed();
        let (taken, is_known) = self.with(address, |place| place.take(FAILURES, now));
        taken.passes?;
        let failures = FAILURES_AT_ONCE.saturating_sub(taken.remaining + 1);
        let standing = Standing { is_unknown: !is_known, failures };
        Ok(LoginAttempt { throttle: self.clone(), address, standing, is_counted: true })
    }

    /// A login that does not count: the same connection has logged in by the same credentials.
    pub(super) fn begin_known(&self, address: IpAddr) -> LoginAttempt {
        let standing = Standing { is_unknown: false, failures: 0 };
        LoginAttempt { throttle: self.clone(), address, standing, is_counted: false }
    }

    /// Does something with the place of an address; what that gives, and whether a login from there has succeeded.
    fn with<T>(&self, address: IpAddr, what: impl FnOnce(&mut Gcra) -> T) -> (T, bool) {
        let key = client_key(address);
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = places.known.iter_mut().find(|(known, _)| *known == key) {
            return (what(place), true);
        }
        let place = self.hashed(key);
        (what(&mut places.hashed[place]), false)
    }

    /// The place that the hash of an address picks.
    fn hashed(&self, key: IpAddr) -> usize {
        (self.0.hasher.hash_one(key) % FAILURE_PLACES as u64) as usize
    }

    /// Gives an address a place of its own, and makes it the latest.
    fn remember(&self, address: IpAddr) {
        let key = client_key(address);
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        // To log in is no way out of what failed before.
        let before = places.hashed[self.hashed(key)];
        let known = &mut places.known;
        if known.last().is_some_and(|(known, _)| *known == key) {
            return;
        }
        let place = known.iter().position(|(known, _)| *known == key);
        let entry = place.map_or((key, before), |place| known.remove(place));
        if known.len() >= KNOWN_ADDRESSES {
            known.remove(0);
        }
        known.push(entry);
    }
}

impl LoginAttempt {
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// It failed, and goes on counting.
    pub(super) fn failed(mut self) {
        self.is_counted = false;
    }

    /// It did not fail.
    pub(super) fn succeeded(mut self) {
        self.give_back();
        self.throttle.remember(self.address);
    }

    fn give_back(&mut self) {
        if std::mem::take(&mut self.is_counted) {
            self.throttle.with(self.address, |place| place.give_back(FAILURES));
        }
    }
}

impl Drop for LoginAttempt {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_by_address_and_take_no_memory() {
        let throttle = LoginThrottle::default();
        let fails = |address| throttle.begin(address).map(LoginAttempt::failed);
        let passed = (0..100).filter(|_| fails(address(1)).is_ok()).count();
        assert_eq!(passed, 10);
        assert_eq!(fails(address(1)), Err(Duration::from_secs(6)));
        // The same host, as a socket of both families sees it.
        assert!(fails("::ffff:192.0.2.1".parse().unwrap()).is_err());
        // By chance, one in some four thousand shares the guesser's place.
        let others = (0..64u8).filter(|last| fails([198, 51, 100, *last].into()).is_ok()).count();
        assert!(others >= 62, "{others}");
        assert_eq!(throttle.0.places.lock().unwrap().hashed.len(), FAILURE_PLACES);
        advance(Duration::from_secs(6)).await;
        assert!(fails(address(1)).is_ok() && fails(address(1)).is_err());
    }

    #[test]
    fn what_was_not_tried_or_did_not_fail_does_not_count() {
        let throttle = LoginThrottle::default();
        for _ in 0..50 {
            drop(throttle.begin(address(1)).unwrap());
            throttle.begin(address(2)).unwrap().succeeded();
            throttle.begin_known(address(3)).failed();
        }
        let all: Vec<_> = (0..10).map(|_| throttle.begin(address(1)).unwrap()).collect();
        let standings: Vec<_> = all.iter().map(|attempt| attempt.standing().failures).collect();
        assert_eq!(standings, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(throttle.begin(address(1)).is_err());
    }

    #[test]
    fn who_has_logged_in_has_a_place_of_its_own() {
        let throttle = LoginThrottle::default();
        assert!(throttle.begin(address(1)).unwrap().standing().is_unknown);
        throttle.begin(address(1)).unwrap().succeeded();
        // So many addresses fail that every other place is full.
        for n in 0..=u16::MAX {
            let other = [10, 0, (n >> 8) as u8, n as u8].into();
            while let Ok(attempt) = throttle.begin(other) {
                attempt.failed();
            }
        }
        assert!(throttle.begin(address(2)).is_err());
        let known = throttle.begin(address(1)).unwrap();
        assert_eq!(known.standing(), Standing { is_unknown: false, failures: 0 });
        // As many as there is room for.
        let throttle = LoginThrottle::default();
        let is_known = |last| !throttle.begin(address(last)).unwrap().standing().is_unknown;
        throttle.begin(address(1)).unwrap().succeeded();
        for n in 0..u16::try_from(KNOWN_ADDRESSES).unwrap() {
            throttle.begin(address(2)).unwrap().succeeded();
            assert!(is_known(1) || n + 2 >= u16::try_from(KNOWN_ADDRESSES).unwrap());
            throttle.begin([10, 1, (n >> 8) as u8, n as u8].into()).unwrap().succeeded();
        }
        assert!(!is_known(1) && is_known(2));
        assert_eq!(throttle.0.places.lock().unwrap().known.len(), KNOWN_ADDRESSES);
    }
}
