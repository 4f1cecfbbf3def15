//! What was, for readers: the last hours in memory, and more in a file where one is configured.
//!
//! Pollers hand their snapshots over through a bounded queue and never wait. One thread keeps memory, another the file, so that a disk
//! that hangs delays neither samples nor answers from memory.

pub mod file;
pub mod memory;
mod schema;
mod writer;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::select_all;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::analysis::history::query::{Range, unix_seconds};
use crate::analysis::history::{MINUTE, Point, resample};
use crate::analysis::snapshot::StreamSnapshot;
use crate::analysis::view::View;
use crate::store::history::file::{Fault, Limits};
use crate::store::history::memory::{Memory, SeriesKey};
use crate::store::history::writer::{Minutes, Writer};
use crate::sys::own_metrics::HistoryMetrics;

/// Time that memory keeps, seconds.
pub const MEMORY_RETENTION: i64 = 2 * 60 * 60;

/// Snapshots that wait for the thread that keeps memory. Each is shared with readers and takes little of its own. More than all targets of
/// most configurations, which may be polled at once.
const QUEUE: usize = 64;

/// Groups added to memory at a time, between which readers have their turn.
const GROUPS_AT_ONCE: usize = 512;

/// How often what is too old is dropped from memory, at most.
const TRIMMED: Duration = Duration::from_secs(10);

/// How long after its end a minute is waited for before it is written without another sample.
const LATE: Duration = Duration::from_secs(15);

/// Queries that are answered at a time: each may take a connection to the file and a core.
const QUERIES_AT_ONCE: usize = 1;

/// How history is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// The file; memory alone where there is none.
    pub path: Option<PathBuf>,
    /// Bytes that memory may take.
    pub memory: usize,
    /// How long minutes are kept in the file.
    pub retention: Duration,
    /// How long hours are.
    pub coarse_retention: Duration,
    /// Bytes that the file may take.
    pub max_size: u64,
}

impl HistoryConfig {
    fn limits(&self) -> Limits {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Limits { minutes: seconds(self.retention), hours: seconds(self.coarse_retention), max_bytes: self.max_size }
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistorySource {
    /// Memory alone.
    Memory,
    /// The file and memory.
    Sqlite,
}

impl HistorySource {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
        }
    }
}

/// Points of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Where they are from.
    pub source: HistorySource,
    /// The points, by time.
    pub points: Vec<Point>,
}

/// What readers and threads share.
#[derive(Debug)]
struct Shared {
    memory: Mutex<Memory>,
    file: Option<SharedFile>,
    metrics: HistoryMetrics,
}

/// The file as readers know it.
#[derive(Debug)]
struct SharedFile {
    path: PathBuf,
    reader: Mutex<FileReader>,
    /// The newest minute of each target that this process has written.
    written: Mutex<HashMap<Arc<str>, i64>>,
    /// A reader found the file damaged.
    suspect: AtomicBool,
}

#[derive(Debug, Default)]
struct FileReader {
    /// Whether the file at the path is the one that this process has opened.
    is_ours: bool,
    connection: Option<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedFile {
    /// From now on readers may open the file, or must not.
    fn set_ours(&self, is_ours: bool) {
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

/// A snapshot on its way.
struct Recorded {
    target: Arc<str>,
    sampled_at: SystemTime,
    streams: Arc<[StreamSnapshot]>,
}

enum Message {
    Sample(Recorded),
    /// Write what there is, and end.
    End,
}

/// Where targets get their recorders.
#[derive(Clone, Debug)]
pub struct Recorders {
    queue: SyncSender<Message>,
    metrics: HistoryMetrics,
}

impl Recorders {
    /// Where this target's snapshots are handed over.
    #[must_use]
    pub fn of(&self, target: &str) -> Recorder {
        Recorder { target: target.into(), queue: self.queue.clone(), metrics: self.metrics.clone() }
    }
}

/// Where one target's snapshots are handed over.
#[derive(Clone, Debug)]
pub struct Recorder {
    target: Arc<str>,
    queue: SyncSender<Message>,
    metrics: HistoryMetrics,
}

impl Recorder {
    /// Hands a good sample over, without waiting: one that finds no place in the queue is left out, and counted.
    pub(super) fn record(&self, view: &View) {
        let Some(sampled_at) = view.last_success else { return };
        let recorded = Recorded { target: Arc::clone(&self.target), sampled_at, streams: Arc::clone(&view.streams) };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Sample(recorded)) {
            self.metrics.samples_dropped.inc();
        }
    }
}

/// History for readers. Clones share it.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
    queries: Arc<tokio::sync::Semaphore>,
}

/// The threads that keep history, and where they get it.
#[derive(Debug)]
pub struct Keeper {
    queue: SyncSender<Message>,
    metrics: HistoryMetrics,
    threads: Vec<Thread>,
}

/// A thread, and what ends with it.
#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Thread {
    fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (running, ended) = oneshot::channel::<()>();
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _running = running;
            work();
        })?;
        Ok(Self { handle, ended })
    }
}

/// Begins to keep history.
///
/// # Errors
/// Where there is no thread to be had.
pub fn start(config: &HistoryConfig, metrics: HistoryMetrics) -> std::io::Result<(History, Keeper)> {
    let shared = Arc::new(Shared::new(config, metrics.clone()));
    metrics.up.set(i64::from(shared.file.is_none()));
    let mut threads = Vec::new();
    let minutes = match &shared.file {
        None => None,
        Some(_) => {
            let (writer, minutes) = Writer::new(Arc::clone(&shared), config.limits());
            threads.push(Thread::spawn("history-file", move || writer.run())?);
            Some(minutes)
        }
    };
    let (queue, recorded) = sync_channel(QUEUE);
    let recording = Recording { shared: Arc::clone(&shared), recorded, minutes, trimmed: Instant::now() };
    threads.push(Thread::spawn("history", move || recording.run())?);
    Ok((History::of(shared), Keeper { queue, metrics, threads }))
}

impl Keeper {
    /// Where targets get their recorders.
    #[must_use]
    pub fn recorders(&self) -> Recorders {
        Recorders { queue: self.queue.clone(), metrics: self.metrics.clone() }
    }

    /// Waits until the threads have ended, which only a defect makes them do.
    ///
    /// # Panics
    /// As soon as one of them did.
    pub async fn watch(&mut self) {
        // The thread of the file ends quietly where the other one panics.
        while !self.threads.is_empty() {
            // Nothing is ever sent: each ends with its thread.
            let (_, number, _) = select_all(self.threads.iter_mut().map(|thread| &mut thread.ended)).await;
            if let Err(panic) = self.threads.swap_remove(number).handle.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }

    /// Writes what there is and ends. May wait for the disk.
    pub fn end(self) {
        // Fails only where the thread has ended.
        let _ = self.queue.send(Message::End);
        for thread in self.threads {
            let _ = thread.handle.join();
        }
    }
}

/// The thread that keeps memory, and gives minutes to the one that keeps the file.
struct Recording {
    shared: Arc<Shared>,
    recorded: Receiver<Message>,
    minutes: Option<Minutes>,
    trimmed: Instant,
}

impl Recording {
    fn run(mut self) {
        loop {
            let message = self.recorded.recv_timeout(LATE);
            match message {
                Ok(Message::Sample(recorded)) => self.record(&recorded),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.trimmed.elapsed() >= TRIMMED {
                self.trimmed = Instant::now();
                let mut memory = lock(&self.shared.memory);
                memory.trim(unix_seconds(SystemTime::now()));
                if self.minutes.is_none() {
                    self.shared.metrics.set_bytes(memory.bytes() as u64);
                }
                let refused = memory.take_refused();
                drop(memory);
                self.shared.metrics.samples_dropped.inc_by(refused);
            }
            if let Some(minutes) = &mut self.minutes {
                minutes.end_late(LATE);
            }
        }
        if let Some(minutes) = self.minutes {
            minutes.end();
        }
    }

    fn record(&mut self, recorded: &Recorded) {
        let time = unix_seconds(recorded.sampled_at);
        let mut points = Vec::new();
        for stream in recorded.streams.iter() {
            let Ok(facts) = &stream.read else { continue };
            let name: Arc<str> = stream.key.display_name().into();
            for group in &stream.groups {
                let Some(present) = group.present() else { continue };
                let group = group.name.display_name().into();
                let key = SeriesKey { target: Arc::clone(&recorded.target), stream: Arc::clone(&name), group };
                points.push((key, Point::sampled(time, facts, present)));
            }
        }
        for few in points.chunks(GROUPS_AT_ONCE) {
            let mut memory = lock(&self.shared.memory);
            few.iter().for_each(|(key, point)| memory.push(key, *point));
        }
        match &mut self.minutes {
            None => {
                self.shared.metrics.points.inc_by(points.len() as u64);
            }
            Some(minutes) => minutes.add(&recorded.target, points),
        }
    }
}

impl History {
    fn of(shared: Arc<Shared>) -> Self {
        Self { shared, queries: Arc::new(tokio::sync::Semaphore::new(QUERIES_AT_ONCE)) }
    }

    /// A history that nobody keeps, for tests.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let day = Duration::from_secs(86_400);
        let config =
            HistoryConfig { path: None, memory: 1 << 20, retention: day, coarse_retention: day, max_size: 1 << 30 };
        Self::of(Arc::new(Shared::new(&config, HistoryMetrics::default())))
    }

    /// A group's points of a range, in buckets of its step; `None` where there has never been one, as far as is known.
    pub async fn points(&self, key: SeriesKey, range: Range) -> Option<Answer> {
        self.query(move |shared| shared.points(&key, range)).await.flatten()
    }

    /// The same of several groups.
    pub async fn points_of_all(&self, keys: Vec<SeriesKey>, range: Range) -> Vec<(SeriesKey, Answer)> {
        let all = move |shared: &Shared| {
            keys.into_iter().filter_map(|key| Some((key.clone(), shared.points(&key, range)?))).collect()
        };
        self.query(all).await.unwrap_or_default()
    }

    /// Groups of a target that there have been lately, by name.
    #[must_use]
    pub fn keys(&self, target: &str) -> Vec<SeriesKey> {
        let mut keys: Vec<SeriesKey> = lock(&self.shared.memory).keys(target).cloned().collect();
        keys.sort_unstable();
        keys
    }

    async fn query<T: Send + 'static>(&self, query: impl FnOnce(&Shared) -> T + Send + 'static) -> Option<T> {
        let permit = Arc::clone(&self.queries).acquire_owned().await.ok();
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let _permit = permit;
            query(&shared)
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

impl Shared {
    fn new(config: &HistoryConfig, metrics: HistoryMetrics) -> Self {
        let file = |path| SharedFile {
            path,
            reader: Mutex::default(),
            written: Mutex::default(),
            suspect: AtomicBool::new(false),
        };
        Self {
            memory: Mutex::new(Memory::new(MEMORY_RETENTION, config.memory)),
            file: config.path.clone().map(file),
            metrics,
        }
    }

    fn points(&self, key: &SeriesKey, range: Range) -> Option<Answer> {
        let (first, recent) = {
            let memory = lock(&self.memory);
            (memory.first(key), memory.points(key, range.from, range.to))
        };
        let source = if self.file.is_some() { HistorySource::Sqlite } else { HistorySource::Memory };
        let file = self.file.as_ref().filter(|_| first.is_none_or(|first| first > range.from));
        let Some(file) = file else {
            first?;
            return Some(Answer { source, points: resample(recent, range.step) });
        };
        // Memory has every minute from here on whole.
        let whole =
            first.map_or(range.to, |first| Point::bucket(first + MINUTE - 1, MINUTE).clamp(range.from, range.to));
        // Before the file is read: it may be written meanwhile.
        let written = lock(&file.written).get(&key.target).copied();
        let read = file.read(|connection| file::points(connection, key, range.from, whole, range.step));
        let (source, older) = match read {
            Some(older) => (HistorySource::Sqlite, older),
            None => (HistorySource::Memory, None),
        };
        if first.is_none() && older.is_none() {
            return None;
        }
        let mut points = older.unwrap_or_default();
        // The minute in which memory begins may be in the file, with what another process has written of it.
        let is_written = |time: i64| time < whole && written.is_some_and(|last| Point::bucket(time, MINUTE) <= last);
        points.extend(recent.into_iter().filter(|point| source == HistorySource::Memory || !is_written(point.time)));
        Some(Answer { source, points: resample(points, range.step) })
    }
}

#[cfg(test)]
mod tests;
