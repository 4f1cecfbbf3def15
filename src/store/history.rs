//! History: the last hours in memory, and more in a file where one is configured.
//!
//! Pollers hand their snapshots over through a bounded queue and never wait. One thread keeps memory, another the file, so that a disk
//! that hangs delays neither samples nor answers from memory.

mod backend;
pub mod file;
mod local;
pub mod memory;
pub mod prometheus;
mod schema;
pub mod state;
mod writer;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::select_all;
use tokio::sync::oneshot;

use crate::analysis::history::Point;
use crate::analysis::history::query::unix_seconds;
use crate::analysis::snapshot::StreamSnapshot;
use crate::analysis::view::View;
use crate::store::history::backend::{HistoryBackend, Job};
use crate::store::history::file::Limits;
use crate::store::history::local::{InFile, InMemory, SharedHistory};
use crate::store::history::memory::{Memory, SeriesKey};
use crate::store::history::prometheus::{OtherServer, Prometheus, PrometheusConfig};
use crate::store::history::state::{SavedState, StateFile};
use crate::store::history::writer::{Minutes, Writer};
use crate::store::lock;
use crate::sys::own_metrics::HistoryMetrics;

pub use backend::{Answer, HistoryQuery, HistorySource, HistoryUnavailable};

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

/// How long a start waits for what was kept.
const KEPT_TIME: Duration = Duration::from_secs(5);

/// Queries of memory and the file that are answered at a time: each may take a connection to the file and a core.
const QUERIES_AT_ONCE: usize = 1;

/// How long a query waits for its turn.
const TURN: Duration = Duration::from_secs(30);

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
    /// Who answers in place of memory and a file.
    pub prometheus: Option<PrometheusConfig>,
}

impl HistoryConfig {
    fn shared(&self, metrics: HistoryMetrics) -> Arc<SharedHistory> {
        Arc::new(SharedHistory::new(Memory::new(MEMORY_RETENTION, self.memory), self.path.clone(), metrics))
    }

    fn limits(&self) -> Limits {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Limits { minutes: seconds(self.retention), hours: seconds(self.coarse_retention), max_bytes: self.max_size }
    }
}

/// A snapshot on its way.
struct Recorded {
    target: Arc<str>,
    sampled_at: SystemTime,
    streams: Arc<[StreamSnapshot]>,
}

enum RecorderMessage {
    Sample(Recorded),
    /// Write what there is, and end.
    End,
}

/// Where targets get their recorders.
#[derive(Clone, Debug)]
pub struct Recorders {
    queue: SyncSender<RecorderMessage>,
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
    queue: SyncSender<RecorderMessage>,
    metrics: HistoryMetrics,
}

impl Recorder {
    /// Hands a good sample over, without waiting: one that finds no place in the queue is left out, and counted.
    pub(super) fn record(&self, view: &View) {
        let Some(sampled_at) = view.last_success else { return };
        let recorded = Recorded { target: Arc::clone(&self.target), sampled_at, streams: Arc::clone(&view.streams) };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(RecorderMessage::Sample(recorded)) {
            self.metrics.samples_dropped.inc();
        }
    }
}

/// History for readers. Clones share it.
#[derive(Clone, Debug)]
pub struct History {
    /// Knows the groups that there have been lately, wherever their points are read.
    shared: Arc<SharedHistory>,
    backend: Arc<dyn HistoryBackend>,
    prometheus: Option<Arc<Prometheus>>,
    queries: Arc<tokio::sync::Semaphore>,
}

/// The threads that keep history, and where they get it.
#[derive(Debug)]
pub struct Keeper {
    queue: SyncSender<RecorderMessage>,
    metrics: HistoryMetrics,
    threads: Vec<Thread>,
    state: StateFile,
    kept: Option<oneshot::Receiver<SavedState>>,
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
/// Where there is no thread to be had, or the certificates of Prometheus's CA cannot be read.
pub fn start(config: &HistoryConfig, metrics: HistoryMetrics) -> std::io::Result<(History, Keeper)> {
    let shared = config.shared(metrics.clone());
    let prometheus = config.prometheus.clone().map(|config| Prometheus::new(config, metrics.clone())).transpose();
    let prometheus = prometheus.map_err(std::io::Error::other)?;
    metrics.up.set(i64::from(shared.file.is_none() && prometheus.is_none()));
    let (mut threads, mut state, mut kept) = (Vec::new(), StateFile::default(), None);
    let minutes = match &shared.file {
        None => None,
        Some(_) => {
            let (writer, minutes, file, answer) = Writer::new(Arc::clone(&shared), config.limits());
            (state, kept) = (file, Some(answer));
            threads.push(Thread::spawn("history-file", move || writer.run())?);
            Some(minutes)
        }
    };
    let (queue, recorded) = sync_channel(QUEUE);
    let recording = Recording { shared: Arc::clone(&shared), recorded, minutes, trimmed: Instant::now() };
    threads.push(Thread::spawn("history", move || recording.run())?);
    Ok((History::of(shared, prometheus), Keeper { queue, metrics, threads, state, kept }))
}

impl Keeper {
    /// Where targets get their recorders.
    #[must_use]
    pub fn recorders(&self) -> Recorders {
        Recorders { queue: self.queue.clone(), metrics: self.metrics.clone() }
    }

    /// Where to keep something over a restart.
    #[must_use]
    pub fn state(&self) -> StateFile {
        self.state.clone()
    }

    /// What the process before has kept: nothing, where there is no file, or the disk takes too long.
    pub async fn kept(&mut self) -> SavedState {
        let Some(kept) = self.kept.take() else { return SavedState::default() };
        match tokio::time::timeout(KEPT_TIME, kept).await {
            Ok(kept) => kept.unwrap_or_default(),
            Err(_late) => {
                tracing::warn!(seconds = KEPT_TIME.as_secs(), "history file not read in time; incidents begin anew");
                SavedState::default()
            }
        }
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
        let _ = self.queue.send(RecorderMessage::End);
        for thread in self.threads {
            let _ = thread.handle.join();
        }
    }
}

/// The thread that keeps memory, and gives minutes to the one that keeps the file.
struct Recording {
    shared: Arc<SharedHistory>,
    recorded: Receiver<RecorderMessage>,
    minutes: Option<Minutes>,
    trimmed: Instant,
}

impl Recording {
    fn run(mut self) {
        loop {
            let message = self.recorded.recv_timeout(LATE);
            match message {
                Ok(RecorderMessage::Sample(recorded)) => self.record(&recorded),
                Ok(RecorderMessage::End) | Err(RecvTimeoutError::Disconnected) => break,
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
    fn of(shared: Arc<SharedHistory>, prometheus: Option<Prometheus>) -> Self {
        let prometheus = prometheus.map(Arc::new);
        let (backend, at_once): (Arc<dyn HistoryBackend>, usize) = match &prometheus {
            Some(prometheus) => (Arc::clone(prometheus) as Arc<dyn HistoryBackend>, prometheus::QUERIES_AT_ONCE),
            None if shared.file.is_some() => (Arc::new(InFile(Arc::clone(&shared))), QUERIES_AT_ONCE),
            None => (Arc::new(InMemory(Arc::clone(&shared))), QUERIES_AT_ONCE),
        };
        Self { shared, backend, prometheus, queries: Arc::new(tokio::sync::Semaphore::new(at_once)) }
    }

    /// A history that nobody keeps, for tests.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        let day = Duration::from_secs(86_400);
        let config = HistoryConfig {
            path: None,
            memory: 1 << 20,
            retention: day,
            coarse_retention: day,
            max_size: 1 << 30,
            prometheus: None,
        };
        Self::of(config.shared(HistoryMetrics::default()), None)
    }

    /// Puts samples of a group into memory, for tests.
    #[cfg(test)]
    pub(super) fn remember(&self, key: &SeriesKey, samples: impl Iterator<Item = Point>) {
        let mut memory = lock(&self.shared.memory);
        samples.for_each(|sample| memory.push(key, sample));
    }

    /// Asks Prometheus for the first time, where it is the source.
    ///
    /// # Errors
    /// What answers that is no Prometheus. That nobody answers is no error.
    pub async fn check_source(&self) -> Result<(), OtherServer> {
        match &self.prometheus {
            Some(prometheus) => prometheus.check().await,
            None => Ok(()),
        }
    }

    /// Looks for whether Prometheus answers, where it is the source. Never ends.
    pub async fn watch_source(&self) {
        match &self.prometheus {
            Some(prometheus) => prometheus.watch().await,
            None => std::future::pending().await,
        }
    }

    /// The points of one group; `None` where there has never been one, as far as is known.
    ///
    /// # Errors
    /// Where nothing can be read now.
    pub async fn points(&self, asked: HistoryQuery) -> Result<Option<Answer>, HistoryUnavailable> {
        let key = asked.keys.first().cloned();
        let found = self.each(asked, |_, answer| answer).await?.pop();
        // Prometheus says nothing of a group without points in the range; memory knows whether there is one.
        let is_known = |key: &SeriesKey| lock(&self.shared.memory).first(key).is_some();
        let empty = || Answer { source: HistorySource::Prometheus, points: Vec::new(), hours_until: None };
        Ok(found.or_else(|| key.filter(is_known).filter(|_| self.prometheus.is_some()).map(|_| empty())))
    }

    /// Something of the points of each group that there has been. Never holds those of all.
    ///
    /// # Errors
    /// Where nothing can be read now.
    pub async fn each<T: Send + 'static>(
        &self,
        asked: HistoryQuery,
        make: impl Fn(&SeriesKey, Answer) -> T + Send + 'static,
    ) -> Result<Vec<T>, HistoryUnavailable> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.queries).acquire_owned()).await;
        let permit = turn.ok().and_then(Result::ok);
        let permit = permit.ok_or(HistoryUnavailable::Busy(TURN))?;
        let made = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&made);
        let take = Box::new(move |key: SeriesKey, answer| lock(&into).push(make(&key, answer)));
        self.backend.read(Job { asked, take, permit }).await?;
        Ok(std::mem::take(&mut *lock(&made)))
    }

    /// A group's samples that memory has, from one second on and before another.
    #[must_use]
    pub(super) fn samples(&self, key: &SeriesKey, from: i64, to: i64) -> Vec<Point> {
        lock(&self.shared.memory).points(key, from, to)
    }

    /// Groups of a target that there have been lately, by name.
    #[must_use]
    pub fn keys(&self, target: &str) -> Vec<SeriesKey> {
        let mut keys: Vec<SeriesKey> = lock(&self.shared.memory).keys(target).cloned().collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests;
