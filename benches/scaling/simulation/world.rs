//! One stream, one group and its consumers, in steps of a second.

use std::collections::{BTreeMap, VecDeque};

use super::workload::Workload;

/// Seconds from the order for a replica until it reads: image, start, connection.
const START_SECONDS: u64 = 20;

/// Seconds after which a crashed replica is back.
const RESTART_SECONDS: u64 = 60;

/// Seconds after which entries of a consumer that is gone are claimed by another (`XAUTOCLAIM` with this minimum of idle time).
const CLAIM_SECONDS: u64 = 60;

/// Replicas at most.
pub(crate) const MAX_REPLICAS: u64 = 20;

/// SplitMix64: the same walk on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of arrivals with this mean: Poisson's, and its normal approximation where that is as good.
    fn arrivals(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            let normal = (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
            return (mean + mean.sqrt() * normal).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0);
        while product > limit {
            product *= self.uniform();
            count += 1;
        }
        count
    }
}

/// A replica that reads.
pub(crate) struct Consumer {
    pub(crate) name: u64,
    /// Seconds until it reads, and Redis knows it.
    pub(crate) starts_in: u64,
    /// Entries that it was given and has not acknowledged, by their place in the stream.
    pub(crate) held: VecDeque<u64>,
    /// Seconds of work done on the first of them.
    worked: f64,
    /// When it last asked.
    pub(crate) read_at: u64,
    alive: bool,
    gone_at: u64,
}

/// What a run is measured by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Seconds in which the oldest entry that is not acknowledged is older than the drain target.
    pub(crate) late_seconds: u64,
    /// Seconds of replicas, starting ones included.
    pub(crate) replica_seconds: u64,
    /// Changes of direction of the number of replicas.
    pub(crate) reversals: u64,
    /// Entries that were being worked on when their replica was scaled away.
    pub(crate) orphaned: u64,
    /// Entries trimmed before they were delivered.
    pub(crate) lost: u64,
    /// Seconds with entries to deliver and no replica.
    pub(crate) abandoned_seconds: u64,
}

pub(crate) struct World {
    pub(crate) workload: Workload,
    pub(crate) now: u64,
    random: Random,
    /// When each entry was added.
    added_at: Vec<u32>,
    pub(crate) first: u64,
    pub(crate) cursor: u64,
    /// What the server says of entries read; `None` where it does not know.
    entries_read: Option<u64>,
    pub(crate) consumers: Vec<Consumer>,
    next_name: u64,
    /// Replicas that have crashed and come back, by when.
    restarts: BTreeMap<u64, u64>,
    pub(crate) totals: Totals,
    last_change: i64,
}

impl World {
    pub(crate) fn new(workload: Workload, seed: u64) -> Self {
        let mut world = Self {
            workload,
            now: 0,
            random: Random::new(seed),
            added_at: vec![0; workload.old_entries as usize],
            first: 0,
            cursor: workload.old_entries,
            // A group made with `$` in a stream that has entries: the server does not know how many were read.
            entries_read: (workload.old_entries == 0).then_some(0),
            consumers: Vec::new(),
            next_name: 0,
            restarts: BTreeMap::new(),
            totals: Totals::default(),
            last_change: 0,
        };
        world.trim();
        world
    }

    pub(crate) fn added(&self) -> u64 {
        self.added_at.len() as u64
    }

    pub(crate) fn added_at(&self, entry: u64) -> Option<u64> {
        self.added_at.get(entry as usize).map(|at| u64::from(*at))
    }

    pub(crate) fn lag(&self) -> u64 {
        self.added() - self.cursor.max(self.first)
    }

    pub(crate) fn pending(&self) -> u64 {
        self.consumers.iter().map(|consumer| consumer.held.len() as u64).sum()
    }

    /// The server's own lag, as Redis 7.0 to 7.2.6 and Valkey up to 8.0.2 tell it.
    pub(crate) fn server_lag(&self) -> Option<u64> {
        self.entries_read.map(|read| self.added() - read)
    }

    /// Replicas that there are or will be.
    pub(crate) fn replicas(&self) -> u64 {
        self.alive() + self.restarts.values().sum::<u64>()
    }

    fn alive(&self) -> u64 {
        self.consumers.iter().filter(|consumer| consumer.alive).count() as u64
    }

    /// Changes the number of replicas.
    pub(crate) fn scale_to(&mut self, wanted: u64) {
        let now = self.replicas();
        let change = wanted as i64 - now as i64;
        if change != 0 {
            self.totals.reversals += u64::from(change.signum() == -self.last_change);
            self.last_change = change.signum();
        }
        for _ in now..wanted {
            self.start();
        }
        for _ in wanted..now {
            // Those that are not there yet go first, then the youngest.
            if let Some(mut restart) = self.restarts.last_entry() {
                *restart.get_mut() -= 1;
                if *restart.get() == 0 {
                    restart.remove();
                }
                continue;
            }
            if let Some(youngest) = self.consumers.iter_mut().rfind(|consumer| consumer.alive) {
                (youngest.alive, youngest.gone_at) = (false, self.now);
                self.totals.orphaned += youngest.held.len() as u64;
            }
        }
        self.clean();
    }

    fn start(&mut self) {
        self.next_name += 1;
        let (name, read_at) = (self.next_name, self.now);
        let held = VecDeque::new();
        let starts_in = START_SECONDS;
        self.consumers.push(Consumer { name, starts_in, held, worked: 0.0, read_at, alive: true, gone_at: 0 });
    }

    /// Who is gone and holds nothing is deleted, as a consumer that ends in order does itself.
    fn clean(&mut self) {
        self.consumers.retain(|consumer| consumer.alive || !consumer.held.is_empty());
    }

    /// A second goes by.
    pub(crate) fn step(&mut self) {
        self.now += 1;
        let arrivals = self.workload.arrivals_at(self.now, |mean| self.random.arrivals(mean));
        self.added_at.extend(std::iter::repeat_n(self.now as u32, arrivals as usize));
        self.trim();
        self.crash();
        self.claim();
        self.work();
        self.clean();
        self.measure();
    }

    fn trim(&mut self) {
        if let Some(max) = self.workload.max_length {
            let first = self.first.max(self.added().saturating_sub(max));
            let undelivered_from = self.cursor.max(self.first);
            self.totals.lost += first.saturating_sub(undelivered_from);
            self.first = first;
        }
    }

    fn crash(&mut self) {
        if let Some(crashing) = self.workload.crashing_at(self.now, self.alive()) {
            for consumer in self.consumers.iter_mut().filter(|consumer| consumer.alive).take(crashing as usize) {
                (consumer.alive, consumer.gone_at) = (false, self.now);
            }
            *self.restarts.entry(self.now + RESTART_SECONDS).or_default() += crashing;
        }
        for _ in 0..self.restarts.remove(&self.now).unwrap_or(0) {
            self.start();
            if let Some(back) = self.consumers.last_mut() {
                back.starts_in = 0;
            }
        }
    }

    /// What those hold who are gone is taken by the first that is there.
    fn claim(&mut self) {
        let due = |consumer: &Consumer, now| !consumer.alive && now >= consumer.gone_at + CLAIM_SECONDS;
        if !self.consumers.iter().any(|consumer| consumer.alive && consumer.starts_in == 0) {
            return;
        }
        let mut claimed: Vec<u64> = Vec::new();
        for consumer in self.consumers.iter_mut().filter(|consumer| due(consumer, self.now)) {
            claimed.extend(consumer.held.drain(..));
        }
        let ready: Vec<usize> = (0..self.consumers.len())
            .filter(|place| self.consumers[*place].alive && self.consumers[*place].starts_in == 0)
            .collect();
        for (turn, entry) in claimed.into_iter().enumerate() {
            self.consumers[ready[turn % ready.len()]].held.push_back(entry);
        }
    }

    fn work(&mut self) {
        let service = self.workload.service_seconds;
        for place in 0..self.consumers.len() {
            let consumer = &mut self.consumers[place];
            if !consumer.alive {
                continue;
            }
            if consumer.starts_in > 0 {
                consumer.starts_in -= 1;
                continue;
            }
            let mut left = 1.0;
            loop {
                if self.consumers[place].held.is_empty() && !self.read(place) {
                    // It waits for entries, and asks again and again.
                    self.consumers[place].read_at = self.now;
                    break;
                }
                let consumer = &mut self.consumers[place];
                let needed = service - consumer.worked;
                if needed > left {
                    consumer.worked += left;
                    break;
                }
                left -= needed;
                consumer.worked = 0.0;
                consumer.held.pop_front();
            }
        }
    }

    /// Gives a batch to a consumer.
    fn read(&mut self, place: usize) -> bool {
        let from = self.cursor.max(self.first);
        let until = self.added().min(from + self.workload.batch);
        if from == until {
            return false;
        }
        self.cursor = until;
        self.entries_read = match self.entries_read {
            Some(read) => Some(read + (until - from)),
            // The server finds out at the end of the stream.
            None => (until == self.added()).then_some(until),
        };
        let consumer = &mut self.consumers[place];
        consumer.held.extend(from..until);
        consumer.read_at = self.now;
        true
    }

    fn measure(&mut self) {
        let undelivered = self.added_at(self.cursor.max(self.first));
        let held = self.consumers.iter().filter_map(|consumer| self.added_at(*consumer.held.front()?)).min();
        let oldest = undelivered.into_iter().chain(held).min();
        let late = oldest.is_some_and(|at| self.now - at > self.workload.drain_target);
        self.totals.late_seconds += u64::from(late);
        self.totals.replica_seconds += self.replicas();
        self.totals.abandoned_seconds += u64::from(self.lag() > 0 && self.replicas() == 0);
    }
}
