//! The last hours of every group in memory, a point per second at most, within a number of bytes.

use std::collections::{HashMap, VecDeque};
use std::mem::size_of;
use std::sync::Arc;

use crate::analysis::history::Point;
use crate::analysis::history::codec::{ClosedSeries, OpenSeries};

/// Bytes of a chunk from which a new one begins: old points go by the chunk.
const CHUNK_BYTES: usize = 1024;

/// Seconds of a chunk from which a new one begins.
const CHUNK_SECONDS: i64 = 600;

/// What a map and an allocator take beside the bytes, per series or chunk: an estimate.
const OVERHEAD: usize = 64;

/// Share of the time that the points span that goes at once where the bytes are not enough.
const EVICTED_SHARE: i64 = 16;

/// Whose points they are: names as they are shown, which no two share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The target's name.
    pub target: Arc<str>,
    /// The stream's name.
    pub stream: Arc<str>,
    /// The group's name.
    pub group: Arc<str>,
}

/// Points of every group.
#[derive(Debug)]
pub(super) struct Memory {
    series: HashMap<SeriesKey, Chunks>,
    /// Seconds that points are kept.
    retention: i64,
    max_bytes: usize,
    bytes: usize,
    /// Groups that found no room since the last call of `take_refused`.
    refused: u64,
}

#[derive(Debug, Default)]
struct Chunks {
    closed: VecDeque<ClosedSeries>,
    open: OpenSeries,
    /// The second that is not over.
    last: Option<Point>,
}

impl Chunks {
    fn bytes(&self) -> usize {
        self.closed.iter().map(|chunk| chunk.bytes() + size_of::<ClosedSeries>()).sum::<usize>() + self.open.bytes()
    }

    /// Appends a point; by how much the bytes have changed.
    fn push(&mut self, point: &Point) -> isize {
        let over = self.open.bytes() >= CHUNK_BYTES || point.time.saturating_sub(self.open.first()) >= CHUNK_SECONDS;
        let mut before = self.open.bytes();
        let mut change = 0;
        if self.open.points() > 0 && (over || point.time < self.open.last()) {
            let full = std::mem::take(&mut self.open).close();
            change += (full.bytes() + size_of::<ClosedSeries>()).cast_signed() - before.cast_signed();
            before = 0;
            self.closed.push_back(full);
        }
        self.open.push(point);
        change + self.open.bytes().cast_signed() - before.cast_signed()
    }

    /// Drops chunks that end before.
    fn drop_before(&mut self, time: i64) {
        self.closed.retain(|chunk| chunk.last() >= time);
        if self.open.points() > 0 && self.open.last() < time {
            self.open = OpenSeries::default();
        }
        if self.last.is_some_and(|point| point.time < time) {
            self.last = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.points() == 0 && self.last.is_none()
    }

    fn first(&self) -> Option<i64> {
        let open = (self.open.points() > 0).then(|| self.open.first());
        let last = self.last.map(|point| point.time);
        self.closed.iter().map(ClosedSeries::first).chain(open).chain(last).min()
    }
}

fn overhead(key: &SeriesKey) -> usize {
    key.stream.len() + key.group.len() + size_of::<(SeriesKey, Chunks)>() + 2 * OVERHEAD
}

impl Memory {
    /// Keeps points for `retention` seconds, in at most `max_bytes`.
    pub(super) fn new(retention: i64, max_bytes: usize) -> Self {
        Self { series: HashMap::new(), retention, max_bytes, bytes: 0, refused: 0 }
    }

    /// Adds a sample. One of the same second is merged. Where there is no room for another group, it is left out.
    pub(super) fn push(&mut self, key: &SeriesKey, point: Point) {
        if !self.series.contains_key(key) {
            if self.bytes + overhead(key) > self.max_bytes {
                self.refused += 1;
                return;
            }
            self.bytes += overhead(key);
            self.series.insert(key.clone(), Chunks::default());
        }
        let Some(chunks) = self.series.get_mut(key) else { return };
        match &mut chunks.last {
            Some(last) if last.time == point.time => last.merge(&point),
            last => {
                if let Some(over) = last.replace(point) {
                    self.bytes = self.bytes.saturating_add_signed(chunks.push(&over));
                }
            }
        }
    }

    /// Drops what is older than the retention, and the oldest beyond the bytes. `now` is in seconds since the Unix epoch.
    pub(super) fn trim(&mut self, now: i64) {
        let mut from = now.saturating_sub(self.retention);
        let last = now.saturating_add(self.retention);
        self.drop_before(from);
        // A clock that jumped ahead and came back leaves points that never age.
        self.series.retain(|_, chunks| {
            chunks.closed.retain(|chunk| chunk.last() <= last);
            if chunks.open.last() > last {
                chunks.open = OpenSeries::default();
            }
            chunks.last = chunks.last.filter(|point| point.time <= last);
            !chunks.is_empty()
        });
        self.measure();
        // A share of what there is, not of what may be kept: names that come and go may fill it within seconds.
        let oldest = self.series.values().filter_map(Chunks::first).min();
        from = from.max(oldest.unwrap_or(now));
        let step = (now.saturating_sub(from) / EVICTED_SHARE).max(1);
        while self.bytes > self.max_bytes && from < now {
            from += step;
            self.drop_before(from);
            self.measure();
        }
    }

    fn drop_before(&mut self, time: i64) {
        self.series.retain(|_, chunks| {
            chunks.drop_before(time);
            !chunks.is_empty()
        });
    }

    fn measure(&mut self) {
        self.bytes = self.series.iter().map(|(key, chunks)| overhead(key) + chunks.bytes()).sum();
    }

    /// Groups that found no room since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Bytes that it holds, estimated.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Time of a group's oldest point.
    pub(super) fn first(&self, key: &SeriesKey) -> Option<i64> {
        self.series.get(key)?.first()
    }

    /// A group's points of a range, `to` not included, in the order in which they came.
    pub(super) fn points(&self, key: &SeriesKey, from: i64, to: i64) -> Vec<Point> {
        let Some(chunks) = self.series.get(key) else { return Vec::new() };
        let is_wanted = |first: i64, last: i64| first < to && last >= from;
        let closed = chunks.closed.iter().filter(|chunk| is_wanted(chunk.first(), chunk.last()));
        let open = Some(&chunks.open).filter(|open| open.points() > 0 && is_wanted(open.first(), open.last()));
        let decoded = closed.map(ClosedSeries::decode).chain(open.map(OpenSeries::decode)).flat_map(|points| {
            debug_assert!(points.is_ok(), "what was encoded is decoded");
            points.unwrap_or_default()
        });
        decoded.chain(chunks.last).filter(|point| (from..to).contains(&point.time)).collect()
    }

    /// All groups of a target.
    pub(super) fn keys<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a SeriesKey> {
        self.series.keys().filter(move |key| &*key.target == target)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::analysis::history::tests::point;

    pub(crate) fn key(group: &str) -> SeriesKey {
        SeriesKey { target: "default".into(), stream: "events:chat".into(), group: group.into() }
    }

    #[test]
    fn points_come_back_and_age() {
        let mut memory = Memory::new(7200, 1 << 20);
        for n in 0..2000_u64 {
            memory.push(&key("a"), point(1_000_000 + n as i64 * 5, n));
        }
        let now = 1_000_000 + 10_000;
        let all = memory.points(&key("a"), 0, i64::MAX);
        assert_eq!(all.iter().map(|point| point.lag).collect::<Vec<_>>(), (0..2000).collect::<Vec<_>>());
        memory.trim(now);
        let first = memory.first(&key("a")).unwrap();
        assert!((now - 7200 - CHUNK_SECONDS..=now - 7200).contains(&first), "{first}");
        assert_eq!(memory.points(&key("b"), 0, i64::MAX), []);
        memory.trim(now + 8000);
        assert_eq!((memory.bytes(), memory.keys("default").count()), (0, 0));
    }

    #[test]
    fn samples_of_one_second_are_one_point() {
        let mut memory = Memory::new(7200, 1 << 20);
        for lag in [1, 50, 2] {
            memory.push(&key("a"), point(100, lag));
        }
        let points = memory.points(&key("a"), 0, 200);
        assert_eq!((points.len(), points[0].samples, points[0].lag, points[0].highest), (1, 3, 2, 50));
    }

    #[test]
    fn what_push_counts_is_what_is_there() {
        let mut memory = Memory::new(7200, 1 << 20);
        for n in 0..5000_u64 {
            memory.push(&key(["a", "b", "c"][n as usize % 3]), point(n as i64, n * n % 1000));
        }
        let counted = memory.bytes();
        memory.measure();
        assert_eq!(memory.bytes(), counted);
    }

    #[test]
    fn bytes_are_bounded_with_many_names_and_with_many_points() {
        let mut memory = Memory::new(7200, 1 << 20);
        for n in 0..100_000 {
            memory.push(&key(&format!("group-{n}")), point(1000, n));
        }
        assert!(memory.bytes() <= 1 << 20);
        let refused = memory.take_refused();
        assert!(refused > 90_000 && refused < 100_000, "{refused}");
        let mut memory = Memory::new(7200, 1 << 20);
        for n in 0..7200 {
            for group in 0..100 {
                memory.push(&key(&format!("group-{group}")), point(n, (n * group * 7919) as u64 % 5000));
            }
            if n % 60 == 0 {
                memory.trim(n);
            }
        }
        memory.trim(7200);
        assert!(memory.bytes() <= 1 << 20 && memory.bytes() > 1 << 19, "{}", memory.bytes());
        // The newest stay.
        assert_eq!(memory.points(&key("group-7"), 7190, 7200).len(), 10);
    }

    #[test]
    fn names_that_come_and_go_within_seconds_do_not_take_all_that_there_is() {
        let mut memory = Memory::new(7200, 1 << 20);
        for n in 0..600 {
            for name in 0..50 {
                memory.push(&key(&format!("passing-{n}-{name}")), point(n, 1));
            }
            for point in (0..100).map(|_| point(n, n as u64)) {
                memory.push(&key("a"), point);
            }
            memory.trim(n);
            assert!(n < 100 || memory.bytes() > 1 << 19, "{} bytes at {n}", memory.bytes());
        }
        assert!(memory.bytes() <= 1 << 20);
        assert_eq!(memory.points(&key("a"), 590, 600).len(), 10);
    }

    #[test]
    fn a_clock_that_jumps_leaves_nothing_that_never_ages() {
        let mut memory = Memory::new(7200, 1 << 20);
        for (time, lag) in [(1000, 1), (900_000, 2), (1010, 3), (500, 4), (1020, 5)] {
            memory.push(&key("a"), point(time, lag));
        }
        memory.trim(1020);
        let lags: Vec<u64> = memory.points(&key("a"), 0, i64::MAX).iter().map(|point| point.lag).collect();
        assert_eq!(lags, [1, 3, 4, 5]);
    }
}
