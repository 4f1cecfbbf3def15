//! The memory that replies may take: one budget for the process, over all targets and all masters of clusters.
//!
//! A server can announce or send anything. Without a common bound, every further connection would add its own. The budget has three
//! parts:
//!
//! - *shared*: the buffers of all connections. By the dynamic threshold of Choudhury and Hahne (1998), each connection may hold up to
//!   `THRESHOLD` times what is left, so that connections that take all they can leave a part to the others.
//! - *large*: one connection at a time, in the order of asking, may hold more than that. Only one: several large replies that are each half
//!   read would wait for each other.
//! - *decoded*: the groups and consumers of samples, and the names that are remembered for the next one, by the same threshold for each
//!   server.
//!
//! Every connection and every stream has some memory that is not counted ([`FREE_PER_CONNECTION`], [`FREE_PER_STREAM`]): the numbers of both
//! are bounded by settings, and what is usual never waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The whole budget, in bytes, where nothing else is set: 100,000 consumers of one group take half of it while they are read, and it fits
/// the memory limits of `deploy/`.
pub const DEFAULT_BYTES: usize = 96 * 1024 * 1024;

/// What a connection may buffer without being counted, in bytes: a batch of 32 streams with 3 groups of 5 consumers takes 200 kB.
pub const FREE_PER_CONNECTION: usize = 1024 * 1024;

/// What the groups and consumers of a stream may take without being counted, in bytes: those of 3 groups of 5 consumers take 3 kB.
pub const FREE_PER_STREAM: usize = 4 * 1024;

/// How many times what is left one holder may have.
const THRESHOLD: usize = 2;

/// The parts of the budget, in sixths.
const SIXTHS: usize = 6;
const LARGE_SIXTHS: usize = 3;
const SHARED_SIXTHS: usize = 1;
const DECODED_SIXTHS: usize = 2;

/// The budget.
#[derive(Debug)]
pub struct ReplyMemory {
    /// All of it, in bytes.
    limit: AtomicUsize,
    /// Bytes that are held of the shared part.
    shared: AtomicUsize,
    /// Bytes that are held of the decoded part.
    decoded: AtomicUsize,
    /// Who may hold a large reply.
    large: Semaphore,
}

/// The budget of this process.
pub static PROCESS: ReplyMemory = ReplyMemory::new(DEFAULT_BYTES);

/// Whether a buffer may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It may.
    Granted,
    /// Not before another connection has read its large reply.
    Wait,
    /// Never: one reply would take more than so many bytes.
    Refused(usize),
}

impl ReplyMemory {
    /// A budget of so many bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            shared: AtomicUsize::new(0),
            decoded: AtomicUsize::new(0),
            large: Semaphore::const_new(1),
        }
    }

    /// Has so many bytes from now on. What is held beyond them stays until it is released.
    pub fn set_limit(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are held of the shared and the decoded part.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.load(Ordering::Relaxed) + self.decoded.load(Ordering::Relaxed)
    }

    fn sixths(&self, sixths: usize) -> usize {
        self.limit.load(Ordering::Relaxed) / SIXTHS * sixths
    }
}

/// What one of many holders may have of `limit` bytes, of which the others hold so many.
fn share(limit: usize, others: usize) -> usize {
    limit.saturating_sub(others) / (THRESHOLD + 1) * THRESHOLD
}

/// Changes one holder's part of `pool` from `before` to `after` bytes; whether that is within its share. Less always is.
fn change(pool: &AtomicUsize, limit: usize, before: usize, after: usize) -> bool {
    let changed = pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        let others = held.saturating_sub(before);
        (after <= before || after <= share(limit, others)).then_some(others + after)
    });
    changed.is_ok()
}

/// What the buffers of one connection hold. Dropped, it is released.
#[derive(Debug, Default)]
pub struct BufferCharge {
    /// Without a budget nothing is counted.
    memory: Option<&'static ReplyMemory>,
    /// Bytes of the shared part.
    shared: usize,
    /// The right to hold a large reply.
    large: Option<SemaphorePermit<'static>>,
}

impl BufferCharge {
    /// Nothing yet, of this budget.
    #[must_use]
    pub fn of(memory: &'static ReplyMemory) -> Self {
        Self { memory: Some(memory), shared: 0, large: None }
    }

    /// Asks to hold so many bytes in all.
    pub fn grow(&mut self, bytes: usize) -> Growth {
        let Some(memory) = self.memory else { return Growth::Granted };
        let (counted, most) = (bytes.saturating_sub(FREE_PER_CONNECTION), memory.sixths(LARGE_SIXTHS));
        if counted > most {
            return Growth::Refused(most);
        }
        if self.large.is_some() {
            return Growth::Granted;
        }
        if change(&memory.shared, memory.sixths(SHARED_SIXTHS), self.shared, counted) {
            self.shared = counted;
            return Growth::Granted;
        }
        match memory.large.try_acquire() {
            Ok(permit) => {
                self.become_large(memory, permit);
                Growth::Granted
            }
            Err(_) => Growth::Wait,
        }
    }

    /// Waits for the right to hold a large reply. Those who wait get it in the order of asking.
    pub async fn wait(&mut self) {
        if let Some(memory) = self.memory.filter(|_| self.large.is_none())
            && let Ok(permit) = memory.large.acquire().await
        {
            self.become_large(memory, permit);
        }
    }

    fn become_large(&mut self, memory: &ReplyMemory, permit: SemaphorePermit<'static>) {
        change(&memory.shared, 0, std::mem::take(&mut self.shared), 0);
        self.large = Some(permit);
    }

    /// Whether anything is counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.shared > 0 || self.large.is_some()
    }

    /// Holds only so many bytes from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let Some(memory) = self.memory else { return };
        let counted = bytes.saturating_sub(FREE_PER_CONNECTION);
        // Without the right to a large reply, if the rest is within the share of the others.
        if change(&memory.shared, memory.sixths(SHARED_SIXTHS), self.shared, counted) {
            self.shared = counted;
            self.large = None;
        }
    }
}

impl Drop for BufferCharge {
    fn drop(&mut self) {
        if let Some(memory) = self.memory {
            change(&memory.shared, 0, self.shared, 0);
        }
    }
}

/// What the decoded streams of one server hold. Dropped, it is released.
#[derive(Debug, Default)]
pub struct DecodedCharge {
    /// Without a budget nothing is counted.
    memory: Option<&'static ReplyMemory>,
    /// Bytes of the decoded part.
    held: usize,
}

/// Groups and consumers of a stream would take more memory than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// What they would take, in bytes.
    pub bytes: usize,
    /// Whether that is too much even if no other server holds anything.
    pub alone: bool,
}

impl DecodedCharge {
    /// Nothing yet, of this budget.
    #[must_use]
    pub fn of(memory: &'static ReplyMemory) -> Self {
        Self { memory: Some(memory), held: 0 }
    }

    /// One stream's part changes from `before` to `after` bytes.
    ///
    /// # Errors
    /// It would be too much; then nothing changes. Less never is.
    pub fn change(&mut self, before: usize, after: usize) -> Result<(), Full> {
        let [before, after] = [before, after].map(|bytes| bytes.saturating_sub(FREE_PER_STREAM));
        self.set(self.held.saturating_sub(before).saturating_add(after)).map_err(|alone| Full { bytes: after, alone })
    }

    /// All streams together hold what they do; each of these numbers is one stream's, in bytes. Never more than before.
    pub fn recount(&mut self, streams: impl Iterator<Item = usize>) {
        let held: usize = streams.map(|bytes| bytes.saturating_sub(FREE_PER_STREAM)).sum();
        let _ = self.set(held.min(self.held));
    }

    /// In an error: whether it is too much even if no other server holds anything.
    fn set(&mut self, held: usize) -> Result<(), bool> {
        let Some(memory) = self.memory else { return Ok(()) };
        let limit = memory.sixths(DECODED_SIXTHS);
        if !change(&memory.decoded, limit, self.held, held) {
            return Err(held > share(limit, 0));
        }
        self.held = held;
        Ok(())
    }
}

impl Drop for DecodedCharge {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// 96 MiB: 48 for a large reply, 16 shared, 32 decoded.
    fn memory() -> &'static ReplyMemory {
        Box::leak(Box::new(ReplyMemory::new(96 * MIB)))
    }

    /// The most that a charge is granted beyond what is free, in steps of a hundredth of a mebibyte.
    fn fill(charge: &mut BufferCharge) -> usize {
        let step = MIB / 100;
        let granted = |bytes: &usize| charge.grow(FREE_PER_CONNECTION + bytes) == Growth::Granted;
        (1..).map(|steps| steps * step).take_while(granted).last().unwrap_or(0)
    }

    #[test]
    fn those_who_take_all_they_can_leave_a_part_to_the_others() {
        let memory = memory();
        let mut liars: Vec<BufferCharge> = (0..6).map(|_| BufferCharge::of(memory)).collect();
        let taken: usize = liars.iter_mut().map(fill).sum();
        // One of them has the large part, and the rest share.
        assert!(taken <= (48 + 16) * MIB, "{taken}");
        assert!(liars.iter().filter(|charge| charge.large.is_some()).count() == 1);
        let mut other = BufferCharge::of(memory);
        assert_eq!(other.grow(FREE_PER_CONNECTION), Growth::Granted);
        assert_eq!(other.grow(FREE_PER_CONNECTION + MIB / 100), Growth::Granted);
        assert_eq!(other.grow(FREE_PER_CONNECTION + 10 * MIB), Growth::Wait);
        assert_eq!(other.grow(FREE_PER_CONNECTION + 49 * MIB), Growth::Refused(48 * MIB));
        drop(liars);
        assert_eq!(other.grow(FREE_PER_CONNECTION + 10 * MIB), Growth::Granted);
        drop(other);
        assert_eq!(memory.held(), 0);
        assert_eq!(memory.large.available_permits(), 1);
    }

    #[tokio::test]
    async fn large_replies_take_turns() {
        let memory = memory();
        let (mut one, mut other) = (BufferCharge::of(memory), BufferCharge::of(memory));
        assert_eq!(one.grow(40 * MIB), Growth::Granted);
        assert_eq!(other.grow(40 * MIB), Growth::Wait);
        // Read, and all of it forgotten.
        one.shrink(FREE_PER_CONNECTION);
        assert!(!one.is_counted());
        other.wait().await;
        assert_eq!(other.grow(40 * MIB), Growth::Granted);
        assert_eq!(one.grow(40 * MIB), Growth::Wait);
        drop(other);
        one.wait().await;
        assert_eq!(one.grow(40 * MIB), Growth::Granted);
        one.shrink(FREE_PER_CONNECTION + MIB);
        assert_eq!((one.shared, one.large.is_some(), memory.held()), (MIB, false, MIB));
    }

    #[test]
    fn decoded_streams_of_one_server_leave_a_part_to_the_others() {
        let memory = memory();
        let (mut liar, mut honest) = (DecodedCharge::of(memory), DecodedCharge::of(memory));
        let taken = (0..).take_while(|_| liar.change(0, FREE_PER_STREAM + MIB).is_ok()).count();
        assert_eq!(taken, 21, "two thirds of 32");
        assert_eq!(liar.change(0, FREE_PER_STREAM + MIB), Err(Full { bytes: MIB, alone: true }));
        assert_eq!(honest.change(0, FREE_PER_STREAM + 7 * MIB), Ok(()));
        assert_eq!(
            honest.change(FREE_PER_STREAM + 7 * MIB, FREE_PER_STREAM + 9 * MIB),
            Err(Full { bytes: 9 * MIB, alone: false })
        );
        assert_eq!(memory.held(), 28 * MIB);
        // What is usual is never refused.
        let mut usual = DecodedCharge::of(memory);
        assert_eq!((0..100_000).map(|_| usual.change(0, FREE_PER_STREAM)).find(Result::is_err), None);
        liar.recount([FREE_PER_STREAM + MIB, 10, 0].into_iter());
        assert_eq!(memory.held(), 8 * MIB);
        drop((liar, honest));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn without_a_budget_nothing_is_counted() {
        let (mut buffer, mut decoded) = (BufferCharge::default(), DecodedCharge::default());
        assert_eq!(buffer.grow(usize::MAX), Growth::Granted);
        assert_eq!(decoded.change(0, usize::MAX / 2), Ok(()));
    }
}
