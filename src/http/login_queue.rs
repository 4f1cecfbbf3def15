//! Passwords that wait to be checked.
//!
//! bcrypt is slow on purpose, so one password is checked at a time, and clients may send more than can be checked. The queue is bounded in
//! number and in time: a login that cannot be checked in time is refused at once. First come addresses and connections that have logged
//! in before, then the addresses with the fewest failures, then the newest: a client that sends many guesses waits behind those that
//! send one.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::http::basic_auth::{BasicCredentials, BasicUsers};
use crate::http::login_throttle::{LoginAttempt, Standing};

/// How long a login may take from its arrival to the end of its check: half of the time after which Prometheus gives a scrape up.
const DEADLINE: Duration = Duration::from_secs(5);

/// Logins that may wait. Their passwords are at most as long as a request's head.
const MAX_WAITING: usize = 64;

/// How long a check is expected to take before one has been measured: bcrypt at cost 10.
const EXPECTED_CHECK: Duration = Duration::from_millis(100);

/// Logins that wait for one check at a time. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct LoginQueue(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    queue: LoginTurns<QueuedLogin>,
    is_checking: bool,
}

/// A login that waits.
#[derive(Debug)]
struct QueuedLogin {
    users: BasicUsers,
    credentials: BasicCredentials,
    attempt: LoginAttempt,
    answer: oneshot::Sender<LoginOutcome>,
}

/// How a login ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginOutcome {
    /// The password is right.
    Right,
    /// It is wrong.
    Wrong,
    /// It cannot be checked in time. It is worth another try after this time.
    Busy(Duration),
}

impl LoginQueue {
    /// Checks a password when it is its turn. The attempt counts as failed only if the password was checked and is wrong.
    pub(super) async fn check(
        &self,
        users: BasicUsers,
        credentials: BasicCredentials,
        attempt: LoginAttempt,
    ) -> LoginOutcome {
        let (answer, answered) = oneshot::channel();
        let standing = attempt.standing();
        let begins = {
            let mut state = self.state();
            let login = QueuedLogin { users, credentials, attempt, answer };
            state.queue.push(standing, Instant::now(), login).refuse();
            !std::mem::replace(&mut state.is_checking, true)
        };
        if begins {
            tokio::spawn(self.clone().check_all());
        }
        // An error means that the check panicked, which is logged.
        answered.await.unwrap_or(LoginOutcome::Wrong)
    }

    async fn check_all(self) {
        while let Some(login) = self.next() {
            let QueuedLogin { users, credentials, attempt, answer } = login;
            // A client that hangs up does not make room for the next: the work is done to its end.
            let began = Instant::now();
            let check = move || {
                let outcome = if users.verify(&credentials) { LoginOutcome::Right } else { LoginOutcome::Wrong };
                match outcome {
                    LoginOutcome::Right => attempt.succeeded(),
                    _ => attempt.failed(),
                }
                outcome
            };
            let Ok(outcome) = tokio::task::spawn_blocking(check).await else { continue };
            let _ = answer.send(outcome);
            let mut state = self.state();
            state.queue.checked_in(began.elapsed());
            if outcome == LoginOutcome::Right {
                state.let_in_remembered();
            }
        }
    }

    /// The next whose client is there. Where there is none, checking ends.
    fn next(&self) -> Option<QueuedLogin> {
        let mut state = self.state();
        loop {
            let (next, late) = state.queue.pop(Instant::now());
            late.refuse();
            let Some(login) = next else {
                state.is_checking = false;
                return None;
            };
            // What was remembered since it came takes no check.
            if let Some(login) = login.check_remembered().filter(|login| !login.answer.is_closed()) {
                return Some(login);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets in all whose password has been remembered since they came.
    fn let_in_remembered(&mut self) {
        let waiting = std::mem::take(&mut self.queue.waiting);
        let still =
            |waiting: WaitingTurn<QueuedLogin>| Some(WaitingTurn { item: waiting.item.check_remembered()?, ..waiting });
        self.queue.waiting = waiting.into_iter().filter_map(still).collect();
    }
}

impl QueuedLogin {
    /// Lets it in where its password is remembered; else returns it.
    fn check_remembered(self) -> Option<Self> {
        if !self.users.recall(&self.credentials) {
            return Some(self);
        }
        self.attempt.succeeded();
        let _ = self.answer.send(LoginOutcome::Right);
        None
    }
}

/// What waits, and in which order it is taken. Pure: the time is an argument.
#[derive(Debug)]
struct LoginTurns<T> {
    /// The first is the next.
    waiting: Vec<WaitingTurn<T>>,
    /// How long a check takes, on average over the last.
    check: Duration,
    /// When the check that goes on began.
    began: Option<Instant>,
    arrived: u64,
}

#[derive(Debug)]
struct WaitingTurn<T> {
    rank: (Standing, Reverse<u64>),
    came: Instant,
    item: T,
}

/// What cannot be checked in time, and when there is room again.
#[derive(Debug)]
struct Late<T> {
    items: Vec<T>,
    wait: Duration,
}

impl Late<QueuedLogin> {
    fn refuse(self) {
        for login in self.items {
            let _ = login.answer.send(LoginOutcome::Busy(self.wait));
        }
    }
}

impl<T> Default for LoginTurns<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), check: EXPECTED_CHECK, began: None, arrived: 0 }
    }
}

impl<T> LoginTurns<T> {
    /// Puts something in its place; returns what has no time left because of it.
    fn push(&mut self, standing: Standing, now: Instant, item: T) -> Late<T> {
        self.arrived += 1;
        let rank = (standing, Reverse(self.arrived));
        let place = self.waiting.partition_point(|waiting| waiting.rank < rank);
        self.waiting.insert(place, WaitingTurn { rank, came: now, item });
        self.take_late(now)
    }

    /// What comes next, and what has no time left.
    fn pop(&mut self, now: Instant) -> (Option<T>, Late<T>) {
        self.began = None;
        let late = self.take_late(now);
        let next = (!self.waiting.is_empty()).then(|| self.waiting.remove(0).item);
        self.began = next.is_some().then_some(now);
        (next, late)
    }

    /// A check took so long.
    fn checked_in(&mut self, took: Duration) {
        self.check = (self.check * 3 + took) / 4;
    }

    fn take_late(&mut self, now: Instant) -> Late<T> {
        // The one that is being checked is as good as done where it takes longer than expected.
        let mut free =
            now + self.began.map_or(Duration::ZERO, |began| (began + self.check).saturating_duration_since(now));
        let (mut kept, mut items) = (Vec::new(), Vec::new());
        for waiting in self.waiting.drain(..) {
            // Where nothing else is checked, the first is, however long it takes.
            let is_next = self.began.is_none() && kept.is_empty();
            let deadline = waiting.came + DEADLINE;
            if kept.len() < MAX_WAITING && now < deadline && (is_next || free + self.check <= deadline) {
                free += self.check;
                kept.push(waiting);
            } else {
                items.push(waiting.item);
            }
        }
        self.waiting = kept;
        Late { items, wait: free.saturating_duration_since(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::basic_auth::credentials;
    use crate::http::login_throttle::LoginThrottle;

    const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Waits until nothing is being checked.
    async fn rests(queue: &LoginQueue) {
        let rests = async {
            while queue.state().is_checking {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), rests).await.is_ok(), "the checks end");
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_makes_no_room_and_counts_only_once_it_is_tried() {
        let (queue, throttle) = (LoginQueue::default(), LoginThrottle::default());
        let users = BasicUsers::new([("u".to_owned(), bcrypt::hash("p", 6).unwrap())]).unwrap();
        let check = |header: &[u8]| {
            let attempt = throttle.begin(ADDRESS).unwrap();
            queue.check(users.clone(), credentials(header).unwrap(), attempt)
        };
        // Wrong, and given up at once: the first is tried to its end, the second never.
        let _ = tokio::time::timeout(Duration::ZERO, check(b"Basic dTp4")).await;
        let first = queue.state().queue.waiting.len();
        assert!(first <= 1 && queue.state().is_checking);
        tokio::task::yield_now().await;
        rests(&queue).await;
        let failures = || throttle.begin(ADDRESS).unwrap().standing().failures;
        let before = failures();
        // The right password lets everybody in who waits with it.
        let (wrong, right, same) = tokio::join!(check(b"Basic dTp4"), check(b"Basic dTpw"), check(b"Basic dTpw"));
        assert_eq!((wrong, right, same), (LoginOutcome::Wrong, LoginOutcome::Right, LoginOutcome::Right));
        assert_eq!(failures(), before + 1);
    }

    fn standing(is_known: bool, failures: u32) -> Standing {
        Standing { is_unknown: !is_known, failures }
    }

    /// A queue that is at work.
    fn queue(now: Instant) -> LoginTurns<&'static str> {
        let mut queue = LoginTurns::default();
        assert!(queue.push(standing(false, 9), now, "at work").items.is_empty());
        assert_eq!(queue.pop(now).0, Some("at work"));
        queue
    }

    #[test]
    fn who_is_known_comes_first_then_who_failed_least_then_who_came_last() {
        let now = Instant::now();
        let mut queue = queue(now);
        for (login, is_known, failures) in [
            ("failed twice", false, 2),
            ("old", false, 0),
            ("known, failed", true, 3),
            ("failed once", false, 1),
            ("new", false, 0),
            ("known", true, 0),
        ] {
            assert!(queue.push(standing(is_known, failures), now, login).items.is_empty());
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(now).0).collect();
        assert_eq!(order, ["known", "known, failed", "new", "old", "failed once", "failed twice"]);
    }

    #[test]
    fn who_cannot_be_checked_in_time_is_told_at_once() {
        let now = Instant::now();
        let mut queue = queue(now);
        queue.check = Duration::from_secs(1);
        // One second for the one at work, and four for these.
        for login in ["1", "2", "3", "4"] {
            assert!(queue.push(standing(false, 1), now, login).items.is_empty());
        }
        let late = queue.push(standing(false, 2), now, "guess");
        assert_eq!((late.items, late.wait), (vec!["guess"], Duration::from_secs(5)));
        // A login of higher priority takes the place of the oldest.
        assert_eq!(queue.push(standing(false, 0), now, "first try").items, ["1"]);
        assert_eq!(queue.pop(now + Duration::from_secs(1)).0, Some("first try"));
        // The checks take longer than it seemed.
        let (next, late) = queue.pop(now + Duration::from_secs(4));
        assert_eq!((next, late.items), (Some("4"), vec!["3", "2"]));
        assert_eq!(queue.pop(now + Duration::from_secs(5)).0, None);
    }

    #[test]
    fn a_check_that_takes_longer_than_the_deadline_is_made_where_nothing_else_is() {
        let now = Instant::now();
        let mut queue = LoginTurns { check: 2 * DEADLINE, ..LoginTurns::default() };
        assert!(queue.push(standing(false, 0), now, "only").items.is_empty());
        assert_eq!(queue.pop(now).0, Some("only"));
        assert_eq!(queue.push(standing(true, 0), now, "other").items, ["other"]);
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let now = Instant::now();
        let mut queue = queue(now);
        queue.check = Duration::ZERO;
        for _ in 0..MAX_WAITING {
            assert!(queue.push(standing(false, 1), now, "guess").items.is_empty());
        }
        assert_eq!(queue.push(standing(false, 0), now, "first try").items, ["guess"]);
        assert_eq!(queue.push(standing(false, 2), now, "worse").items, ["worse"]);
    }
}
