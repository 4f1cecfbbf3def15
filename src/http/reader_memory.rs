//! Memory that is held for readers, bounded for the whole process (`--limit.memory-for-readers`).
//!
//! The newest metrics page is held anyway, so reading it costs nothing here. What costs is a response of an older poll that a client
//! still reads, and whatever else is [reserved](ReaderMemory::reserve): JSON answers, and queues of clients. An answer is counted once,
//! however many read it. Beyond the limit, the connections of the slowest readers are closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::exposition::encoding::Pieces;
use crate::http::admission::{ConnectionState, OpenRequest};
use crate::sys::own_metrics::Closed;

/// Bytes per second that a client must read, on average over [`RATE_WINDOW`]. A modem is faster.
const LEAST_RATE: u64 = 64 * 1024;

/// Clock ticks over which [`LEAST_RATE`] is measured. Scrapers give up after ten seconds. Ticks are counted and not time, so that a program
/// that was stopped for a while closes nobody for that.
const RATE_WINDOW: u32 = 10;

/// How often readers are looked at while some read answers that are not small.
const CLOCK: Duration = Duration::from_secs(1);

/// Readers are not closed in favour of new answers before they had this long: most take milliseconds.
const YOUNG: Duration = Duration::from_secs(1);

/// Answers of older polls may take as much as so many of the largest answer, and [`SMALL_ANSWERS`] beside, and never more than the limit.
/// A process takes three times the size of its page or more, so it stays within twice what it takes without slow readers.
const LARGEST_ANSWERS: u64 = 2;

/// See [`LARGEST_ANSWERS`], in bytes: less than the smallest process takes.
const SMALL_ANSWERS: u64 = 8 * 1024 * 1024;

/// What is reserved takes at most this part of the limit: the rest is for those who read pages.
const RESERVED_PART: u64 = 2;

/// Bytes per second from which a reader is not closed in favour of what is to be reserved.
const QUICK: u64 = 1024 * 1024;

/// An answer of fewer bytes starts no clock: the kernel takes it all at once.
const SMALL_ANSWER: u64 = 64 * 1024;

/// The memory that is held for readers. Clones are the same.
#[derive(Clone, Debug)]
pub struct ReaderMemory(Arc<ReaderMemoryState>);

#[derive(Debug)]
struct ReaderMemoryState {
    limit: AtomicU64,
    held: Mutex<Held>,
    /// What is held, in bytes, as of the last time that it was counted.
    gauge: Gauge,
    /// Told when the clock has to run.
    in_use: Notify,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes that were reserved.
    reserved: u64,
    /// Answers that are being read, by where they are.
    answers: HashMap<usize, HeldAnswer>,
    /// Bytes of all of them, the newest included.
    read: u64,
    next: u64,
    is_clock_running: bool,
}

/// A response that clients read.
#[derive(Debug)]
struct HeldAnswer {
    bytes: u64,
    pieces: Weak<[Bytes]>,
    readers: Vec<AnswerReader>,
}

#[derive(Debug)]
struct AnswerReader {
    number: u64,
    began: Instant,
    sent: Arc<AtomicU64>,
    /// How many ticks of the clock its window has lasted, and what had been sent when that began.
    ticks: u32,
    sent_before: u64,
    connection: Arc<ConnectionState>,
    is_closed: bool,
}

/// How fast a client reads; the slowest is the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Speed {
    is_young: bool,
    /// Bytes.
    per_second: u64,
    began: Instant,
}

/// There is no memory left for readers, and none of them reads slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory for readers is used up (--limit.memory-for-readers)")]
pub struct NoMemory;

impl ReaderMemory {
    /// So many bytes at most, which are shown there.
    #[must_use]
    pub fn new(limit: u64, gauge: Gauge) -> Self {
        let held = Mutex::default();
        Self(Arc::new(ReaderMemoryState { limit: AtomicU64::new(limit), held, gauge, in_use: Notify::new() }))
    }

    /// So many bytes at most from now on.
    pub fn set_limit(&self, bytes: u64) {
        self.0.limit.store(bytes, Ordering::Relaxed);
        self.enforce(&mut self.held(), Instant::now());
    }

    /// Reserves memory that is not shared with the newest page, until what is returned is dropped. The slowest reader's connection is closed where
    /// that makes room.
    ///
    /// # Errors
    /// Where there is no room, which those who read quickly need not make.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, NoMemory> {
        let mut reservation = self.nothing();
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// A reservation of nothing, to be grown.
    #[must_use]
    pub fn nothing(&self) -> Reservation {
        Reservation { memory: self.clone(), bytes: 0 }
    }

    /// A client begins to read a response.
    pub(super) fn reading(&self, pieces: Pieces, open: OpenRequest) -> AnswerReading {
        let now = Instant::now();
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let at = pieces.as_ptr() as usize;
        let sent = Arc::new(AtomicU64::new(0));
        let mut held = self.held();
        held.next += 1;
        let number = held.next;
        let reader = AnswerReader {
            number,
            began: now,
            sent: Arc::clone(&sent),
            ticks: 0,
            sent_before: 0,
            connection: open.connection(),
            is_closed: false,
        };
        let answer = held.answers.entry(at);
        let mut is_new = false;
        let answer = answer.or_insert_with(|| {
            is_new = true;
            HeldAnswer { bytes, pieces: Arc::downgrade(&pieces), readers: Vec::new() }
        });
        answer.readers.push(reader);
        if is_new {
            held.read += bytes;
            self.enforce(&mut held, now);
        }
        if bytes >= SMALL_ANSWER {
            self.run_clock(&mut held);
        }
        drop(held);
        AnswerReading { memory: self.clone(), at, number, sent, pieces, _open: open }
    }

    /// Has [`Self::watch`] look at readers each [`CLOCK`] until there is nothing to be seen.
    fn run_clock(&self, held: &mut Held) {
        if !std::mem::replace(&mut held.is_clock_running, true) {
            self.0.in_use.notify_one();
        }
    }

    /// Looks at readers while there are some.
    pub(super) async fn watch(&self, mut each: impl FnMut()) {
        loop {
            self.0.in_use.notified().await;
            loop {
                sleep(CLOCK).await;
                each();
                if !self.tick(Instant::now()) {
                    break;
                }
            }
        }
    }

    /// Closes who reads too slowly. Whether the clock has to go on.
    fn tick(&self, now: Instant) -> bool {
        let mut held = self.held();
        for reader in held.answers.values_mut().flat_map(|answer| &mut answer.readers) {
            reader.tick();
        }
        self.enforce(&mut held, now);
        self.0.gauge.set(i64::try_from(held.reserved + held.old()).unwrap_or(i64::MAX));
        let goes_on = held.reserved > 0 || held.answers.values().any(|answer| answer.bytes >= SMALL_ANSWER);
        held.is_clock_running = goes_on;
        goes_on
    }

    /// Closes those who read slowest until the others fit.
    fn enforce(&self, held: &mut Held, now: Instant) {
        let limit = self.0.limit.load(Ordering::Relaxed);
        // Nothing to be looked for, as nearly always.
        if held.read <= limit.saturating_sub(held.reserved).min(SMALL_ANSWERS) {
            return;
        }
        let largest = held.answers.values().map(|answer| answer.bytes).max().unwrap_or(0);
        let most = SMALL_ANSWERS.saturating_add(largest.saturating_mul(LARGEST_ANSWERS));
        held.close_down_to(limit.saturating_sub(held.reserved).min(most), now, |_| true);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Bytes of answers that are held for their readers alone.
    fn old(&self) -> u64 {
        self.answers.values().filter(|answer| answer.is_old()).map(|answer| answer.bytes).sum()
    }

    /// Closes those who read slowest until no more than this is held for readers alone. An answer is freed when the last of its readers is
    /// closed, so it is as slow as the fastest of them. Only those are closed of whom `may_close` says so.
    fn close_down_to(&mut self, most: u64, now: Instant, may_close: impl Fn(Speed) -> bool) {
        let mut old = self.old();
        if old <= most {
            return;
        }
        let mut slowest: Vec<&mut HeldAnswer> = self.answers.values_mut().filter(|answer| answer.is_old()).collect();
        slowest.sort_by_cached_key(|answer| answer.speed(now));
        for answer in slowest {
            if old <= most || answer.speed(now).is_some_and(|speed| !may_close(speed)) {
                return;
            }
            old -= answer.bytes;
            for reader in &mut answer.readers {
                reader.close(Closed::ReaderMemory);
            }
        }
    }
}

impl HeldAnswer {
    /// Whether nobody holds it but those who read it, and not all of them are about to be gone.
    fn is_old(&self) -> bool {
        self.pieces.strong_count() <= self.readers.len() && self.readers.iter().any(|reader| !reader.is_closed)
    }

    /// How the fastest of its readers reads.
    fn speed(&self, now: Instant) -> Option<Speed> {
        let readers = self.readers.iter().filter(|reader| !reader.is_closed);
        readers.map(|reader| reader.speed(now)).max()
    }
}

impl AnswerReader {
    fn speed(&self, now: Instant) -> Speed {
        let age = now.saturating_duration_since(self.began);
        let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = self.sent.load(Ordering::Relaxed).saturating_mul(1000) / millis;
        Speed { is_young: age < YOUNG, per_second, began: self.began }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks < RATE_WINDOW {
            return;
        }
        let sent = self.sent.load(Ordering::Relaxed);
        if sent.saturating_sub(self.sent_before) < LEAST_RATE * u64::from(RATE_WINDOW) {
            self.close(Closed::SlowReader);
        }
        (self.ticks, self.sent_before) = (0, sent);
    }

    fn close(&mut self, why: Closed) {
        if !std::mem::replace(&mut self.is_closed, true) {
            self.connection.close(why);
        }
    }
}

/// A client reads a response, until this is dropped.
#[derive(Debug)]
pub(super) struct AnswerReading {
    memory: ReaderMemory,
    at: usize,
    number: u64,
    sent: Arc<AtomicU64>,
    pieces: Pieces,
    _open: OpenRequest,
}

impl AnswerReading {
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// So many more bytes have been written.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for AnswerReading {
    fn drop(&mut self) {
        let mut held = self.memory.held();
        let Some(answer) = held.answers.get_mut(&self.at) else { return };
        answer.readers.retain(|reader| reader.number != self.number);
        if answer.readers.is_empty() {
            let bytes = answer.bytes;
            held.answers.remove(&self.at);
            held.read -= bytes;
        }
    }
}

/// Memory that is reserved, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: ReaderMemory,
    bytes: u64,
}

impl Reservation {
    /// Reserves more.
    ///
    /// # Errors
    /// Where there is no room; then it stays as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<(), NoMemory> {
        let mut held = self.memory.held();
        let limit = self.memory.0.limit.load(Ordering::Relaxed);
        if held.reserved + bytes > limit / RESERVED_PART {
            return Err(NoMemory);
        }
        let left = limit - held.reserved - bytes;
        if held.read > left {
            held.close_down_to(left, Instant::now(), |speed| !speed.is_young && speed.per_second < QUICK);
            if held.old() > left {
                return Err(NoMemory);
            }
        }
        held.reserved += bytes;
        self.bytes += bytes;
        self.memory.run_clock(&mut held);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.held().reserved -= self.bytes;
    }
}

#[cfg(test)]
mod tests;
