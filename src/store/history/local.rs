//! Memory and the file, as readers and the threads that keep them share them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use rusqlite::Connection;

use crate::analysis::history::query::Range;
use crate::analysis::history::{MINUTE, Point, resample};
use crate::store::history::backend::{Answer, AnswerSink, HistoryBackend, HistorySource, HistoryUnavailable, Job};
use crate::store::history::file::{self, Fault, FoundPoints};
use crate::store::history::memory::{Memory, SeriesKey};
use crate::store::lock;
use crate::sys::own_metrics::HistoryMetrics;

/// Groups that are read from the file at a time. Its batches are of all groups, and each is unpacked once for these.
const KEYS_AT_ONCE: usize = 512;

/// What readers and threads share.
#[derive(Debug)]
pub(super) struct SharedHistory {
    pub(super) memory: Mutex<Memory>,
    pub(super) file: Option<SharedFile>,
    pub(super) metrics: HistoryMetrics,
}

/// The file as readers know it.
#[derive(Debug)]
pub(super) struct SharedFile {
    pub(super) path: PathBuf,
    reader: Mutex<FileReader>,
    /// The newest minute of each target that this process has written.
    pub(super) written: Mutex<HashMap<Arc<str>, i64>>,
    /// A reader found the file damaged.
    pub(super) suspect: AtomicBool,
}

#[derive(Debug, Default)]
struct FileReader {
    /// Whether the file at the path is the one that this process has opened.
    is_ours: bool,
    connection: Option<Connection>,
}

impl SharedFile {
    /// From now on readers may open the file, or must not.
    pub(super) fn set_ours(&self, is_ours: bool) {
        *lock(&self.reader) = FileReader { is_ours, connection: None };
    }

    /// Reads with the connection of readers, opened where there is none. `None` where the file cannot be read now.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Option<T> {
        let mut reader = lock(&self.reader);
        if !reader.is_ours {
            return None;
        }
        let opened = match reader.connection.take() {
            Some(connection) => Ok(connection),
            None => file::open_to_read(&self.path),
        };
        let result = opened.and_then(|connection| {
            let result = read(&connection)?;
            reader.connection = Some(connection);
            Ok(result)
        });
        match result {
            Ok(result) => Some(result),
            Err(fault) => {
                tracing::debug!(%fault, "cannot read the history file");
                if let Fault::Corrupt(_) = fault {
                    self.suspect.store(true, Ordering::Relaxed);
                }
                None
            }
        }
    }
}

impl SharedHistory {
    pub(super) fn new(memory: Memory, path: Option<PathBuf>, metrics: HistoryMetrics) -> Self {
        let file = |path| SharedFile {
            path,
            reader: Mutex::default(),
            written: Mutex::default(),
            suspect: AtomicBool::new(false),
        };
        Self { memory: Mutex::new(memory), file: path.map(file), metrics }
    }
}

/// The last hours in memory.
#[derive(Debug)]
pub(super) struct InMemory(pub(super) Arc<SharedHistory>);

impl HistoryBackend for InMemory {
    fn read(&self, job: Job) -> BoxFuture<'_, Result<(), HistoryUnavailable>> {
        let shared = Arc::clone(&self.0);
        Box::pin(job.block(move |asked, take| {
            for key in &asked.keys {
                let memory = lock(&shared.memory);
                let found = memory.first(key).map(|_| memory.points(key, asked.range.from, asked.range.to));
                drop(memory);
                if let Some(points) = found {
                    let points = resample(points, asked.range.step);
                    take(key.clone(), Answer { source: HistorySource::Memory, points, hours_until: None });
                }
            }
        }))
    }
}

/// The file, and memory for the last hours: alone while the file cannot be read.
#[derive(Debug)]
pub(super) struct InFile(pub(super) Arc<SharedHistory>);

/// What memory has of a group whose range began before it.
struct RecentPoints<'a> {
    key: &'a SeriesKey,
    is_known: bool,
    points: Vec<Point>,
}

impl HistoryBackend for InFile {
    fn read(&self, job: Job) -> BoxFuture<'_, Result<(), HistoryUnavailable>> {
        let shared = Arc::clone(&self.0);
        Box::pin(job.block(move |asked, take| {
            asked.keys.chunks(KEYS_AT_ONCE).for_each(|keys| shared.read_some(keys, asked.range, take));
        }))
    }
}

impl SharedHistory {
    /// Gives away the points of some groups.
    pub(super) fn read_some(&self, keys: &[SeriesKey], range: Range, take: &mut AnswerSink) {
        // By the minute from which on memory has everything: the same for most.
        let mut older: BTreeMap<i64, Vec<RecentPoints<'_>>> = BTreeMap::new();
        for key in keys {
            let memory = lock(&self.memory);
            let (first, mut points) = (memory.first(key), memory.points(key, range.from, range.to));
            drop(memory);
            // Of its first second it may have a part only: another process may have ended in it.
            if first.is_some_and(|first| first < range.from) {
                let points = resample(points, range.step);
                take(key.clone(), Answer { source: HistorySource::Sqlite, points, hours_until: None });
                continue;
            }
            let whole =
                first.map_or(range.to, |first| Point::bucket(first + MINUTE, MINUTE).clamp(range.from, range.to));
            let in_whole = points.iter().position(|point| point.time >= whole).unwrap_or(points.len());
            let later = resample(points.split_off(in_whole), range.step);
            points.extend(later);
            older.entry(whole).or_default().push(RecentPoints { key, is_known: first.is_some(), points });
        }
        for (whole, recent) in older {
            self.read_older(whole, recent, range, take);
        }
    }

    /// Groups of which memory has all from this time on, and the file what was before.
    fn read_older(&self, whole: i64, recent: Vec<RecentPoints<'_>>, range: Range, take: &mut AnswerSink) {
        let Some(file) = &self.file else { return };
        let keys: Vec<&SeriesKey> = recent.iter().map(|recent| recent.key).collect();
        // Before the file is read: it may be written meanwhile.
        let written = keys.first().and_then(|key| lock(&file.written).get(&key.target).copied());
        let read = file.read(|connection| file::points(connection, &keys, range.from, whole, range.step));
        let source = if read.is_some() { HistorySource::Sqlite } else { HistorySource::Memory };
        let older = read.unwrap_or_else(|| FoundPoints { series: vec![None; keys.len()], hours_until: None });
        let hours_until = older.hours_until;
        for (recent, older) in recent.into_iter().zip(older.series) {
            if !recent.is_known && older.is_none() {
                continue;
            }
            let mut points = older.unwrap_or_default();
            // The minute in which memory begins may be in the file, with what another process has written of it.
            let is_written =
                |time: i64| time < whole && written.is_some_and(|last| Point::bucket(time, MINUTE) <= last);
            let is_new = |point: &Point| source == HistorySource::Memory || !is_written(point.time);
            points.extend(recent.points.into_iter().filter(is_new));
            take(recent.key.clone(), Answer { source, points: resample(points, range.step), hours_until });
        }
    }
}
