//! The thread that keeps the file, and the minutes that it is given.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::analysis::history::query::unix_seconds;
use crate::analysis::history::{MINUTE, Point};
use crate::store::history::file::{self, Fault, HistoryFile, Limits};
use crate::store::history::local::{SharedFile, SharedHistory};
use crate::store::history::memory::SeriesKey;
use crate::store::history::state::{Generation, Order, PointBatch, SavedState, StateChange, StateFile};
use crate::store::lock;

/// Minutes that wait for the thread, of all targets.
const QUEUE: usize = 64;

/// Points that wait for a file that cannot be written, at most: the oldest go. Some 30 MB.
const MAX_BACKLOG: usize = 200_000;

/// Bytes that are read of what the process before has kept: some hundred thousand incidents.
const MAX_KEPT_BYTES: usize = 256 << 20;

/// How long a file that cannot be used is left alone.
const RETRY: Duration = Duration::from_secs(30);

/// How often what is too old is removed.
const EXPIRED: Duration = Duration::from_secs(10 * 60);

/// How far the clock may go ahead of the time that has passed before ages are not believed.
const MAX_DRIFT: i64 = 10 * 60;

/// The minute that each target is in.
pub(super) struct Minutes {
    open: HashMap<Arc<str>, Minute>,
    queue: SyncSender<Order>,
    shared: Arc<SharedHistory>,
}

struct Minute {
    time: i64,
    began: Instant,
    points: HashMap<SeriesKey, Point>,
}

impl Minutes {
    /// Adds the points of one sample, which are all of one time.
    pub(super) fn add(&mut self, target: &Arc<str>, points: PointBatch) {
        let Some((_, first)) = points.first() else { return };
        let time = Point::bucket(first.time, MINUTE);
        self.send_if(|of, minute| of == &**target && minute.time != time);
        let minute = self.open.entry(Arc::clone(target)).or_insert_with(|| Minute {
            time,
            began: Instant::now(),
            points: HashMap::new(),
        });
        for (key, point) in points {
            let point = point.in_bucket(MINUTE);
            minute.points.entry(key).and_modify(|before| before.merge(&point)).or_insert(point);
        }
    }

    /// Gives away minutes that are over though no later sample came.
    pub(super) fn end_late(&mut self, late: Duration) {
        let over = Duration::from_secs(MINUTE.unsigned_abs()) + late;
        self.send_if(|_, minute| minute.began.elapsed() >= over);
    }

    fn send_if(&mut self, is_over: impl Fn(&str, &Minute) -> bool) {
        for (_, minute) in self.open.extract_if(|target, minute| is_over(target, minute)) {
            let count = minute.points.len() as u64;
            if self.queue.try_send(Order::Points(minute.points.into_iter().collect())).is_err() {
                self.shared.metrics.samples_dropped.inc_by(count);
            }
        }
    }
}

/// Gives everything away. There may be others who give orders, so that the end is one.
impl Drop for Minutes {
    fn drop(&mut self) {
        self.send_if(|_, _| true);
        // Fails only where the thread has ended.
        let _ = self.queue.send(Order::End);
    }
}

/// Keeps the file.
pub(super) struct Writer {
    shared: Arc<SharedHistory>,
    limits: Limits,
    orders: Receiver<Order>,
    /// Who waits for what the process before has kept.
    kept: Option<oneshot::Sender<SavedState>>,
    backlog: VecDeque<(SeriesKey, Point)>,
    file: Option<HistoryFile>,
    /// How often it was opened.
    generation: Generation,
    /// What was said of the file last.
    said: Option<String>,
    tried: Option<Instant>,
    /// When what is too old was removed; at once where it never was.
    expired: Option<Instant>,
    /// The clock and the time that never steps, when the thread began.
    began: (i64, Instant),
}

impl Writer {
    /// A writer of the shared file, what gives it minutes and what else is kept, and what the process before has kept.
    pub(super) fn new(
        shared: Arc<SharedHistory>,
        limits: Limits,
    ) -> (Self, Minutes, StateFile, oneshot::Receiver<SavedState>) {
        let (queue, orders) = sync_channel(QUEUE);
        let (kept, answer) = oneshot::channel();
        let state = StateFile::new(queue.clone());
        let minutes = Minutes { open: HashMap::new(), queue, shared: Arc::clone(&shared) };
        let writer = Self {
            shared,
            limits,
            orders,
            kept: Some(kept),
            backlog: VecDeque::new(),
            file: None,
            generation: 0,
            said: None,
            tried: None,
            expired: Some(Instant::now()),
            began: (unix_seconds(SystemTime::now()), Instant::now()),
        };
        (writer, minutes, state, answer)
    }

    /// Does what it is asked to until the end, and then writes what is left.
    pub(super) fn run(mut self) {
        self.tell_what_was_kept();
        self.work();
        loop {
            match self.orders.recv_timeout(RETRY) {
                Ok(Order::Points(batch)) => self.keep(batch),
                Ok(Order::Save(changes, saved)) => {
                    // Nobody may wait any more.
                    let _ = saved.send(self.save(&changes));
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.work();
        }
        self.tried = None;
        self.work();
    }

    /// What the process before has kept: nothing, where the file cannot be used at once. The start waits for it, and not for compaction.
    fn tell_what_was_kept(&mut self) {
        let shared = Arc::clone(&self.shared);
        let read = shared.file.as_ref().map(|shared| {
            let file = self.open(shared, unix_seconds(SystemTime::now()))?;
            let (entries, is_whole) = file.kept(MAX_KEPT_BYTES)?;
            Ok((entries, is_whole))
        });
        let kept = match read {
            Some(Ok((entries, true))) => SavedState { entries, generation: self.generation },
            Some(Ok((entries, false))) => {
                tracing::warn!(max_bytes = MAX_KEPT_BYTES, "more incidents in the history file than are read");
                // As if they were in another file: those that are known are written, and all others go.
                SavedState { entries, generation: 0 }
            }
            Some(Err(fault)) => {
                self.fault(&fault);
                SavedState::default()
            }
            None => SavedState::default(),
        };
        if let Some(waiting) = self.kept.take() {
            // Nobody may wait any more.
            let _ = waiting.send(kept);
        }
    }

    /// The file, opened where it is not.
    fn open(&mut self, shared: &SharedFile, now: i64) -> Result<&mut HistoryFile, Fault> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => {
                let file = none.insert(HistoryFile::open(&shared.path, now)?);
                self.generation += 1;
                shared.set_ours(true);
                Ok(file)
            }
        }
    }

    fn save(&mut self, changes: &[StateChange]) -> Option<Generation> {
        if self.file.is_none() {
            self.work();
        }
        match self.file.as_mut()?.save(changes) {
            Ok(()) => Some(self.generation),
            Err(fault) => {
                self.fault(&fault);
                None
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        let shared = Arc::clone(&self.shared);
        let Some(shared_file) = &shared.file else { return };
        shared.metrics.up.set(0);
        self.tried = Some(Instant::now());
        self.failed(fault, shared_file);
    }

    fn keep(&mut self, batch: PointBatch) {
        self.backlog.extend(batch);
        let over = self.backlog.len().saturating_sub(MAX_BACKLOG);
        self.backlog.drain(..over);
        self.shared.metrics.samples_dropped.inc_by(over as u64);
    }

    /// Does what there is to do. Whatever the file does, the thread goes on.
    fn work(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(shared_file) = &shared.file else { return };
        if self.file.is_none() && self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        self.tried = Some(Instant::now());
        let has_points = !self.backlog.is_empty();
        let result = self.try_work(shared_file);
        shared.metrics.set_bytes(file::size(&shared_file.path));
        shared.metrics.up.set(i64::from(result.is_ok()));
        match result {
            Ok(()) => {
                // A file on a full disk may open, and refuse what comes next.
                if has_points && self.said.take().is_some() {
                    tracing::info!(path = %shared_file.path.display(), "history file in use again");
                }
            }
            Err(fault) => self.failed(&fault, shared_file),
        }
    }

    fn try_work(&mut self, shared: &SharedFile) -> Result<(), Fault> {
        if shared.suspect.swap(false, Ordering::Relaxed) && self.file.is_some() {
            return Err(Fault::Corrupt("a query found a page or a checksum wrong".to_owned()));
        }
        let now = unix_seconds(SystemTime::now());
        self.open(shared, now)?;
        // As a field, beside which others can be borrowed.
        let Some(file) = &mut self.file else { return Ok(()) };
        let points: &[(SeriesKey, Point)] = self.backlog.make_contiguous();
        file.write(points)?;
        self.shared.metrics.points.inc_by(points.len() as u64);
        let newest = self.backlog.iter().map(|(key, point)| (Arc::clone(&key.target), point.time));
        lock(&shared.written).extend(newest);
        self.backlog.clear();
        // The newest minute may still be added to: a minute later it is not.
        file.compact(now.saturating_sub(2 * MINUTE))?;
        if self.expired.is_none_or(|at| at.elapsed() >= EXPIRED) || file::size(&shared.path) > self.limits.max_bytes {
            self.expired = Some(Instant::now());
            let passed = i64::try_from(self.began.1.elapsed().as_secs()).unwrap_or(i64::MAX);
            let is_clock_sane = now.saturating_sub(self.began.0).saturating_sub(passed) <= MAX_DRIFT;
            file.expire(now, self.limits, is_clock_sane)?;
        }
        Ok(())
    }

    fn failed(&mut self, fault: &Fault, shared: &SharedFile) {
        let was_open = self.file.take().is_some();
        let text = fault.to_string();
        let path = shared.path.display();
        let is_new = self.said.as_ref() != Some(&text);
        match fault {
            Fault::Corrupt(_) => {
                shared.set_ours(false);
                match file::set_aside(&shared.path, SystemTime::now()) {
                    Ok(aside) => {
                        tracing::error!(%path, error = text, set_aside = %aside.display(), "history file set aside; history is kept in memory until a new one is made");
                    }
                    Err(error) if is_new => {
                        tracing::error!(%path, error = text, rename = %error, "history file cannot be used; history is kept in memory");
                    }
                    Err(_) => {}
                }
            }
            Fault::Foreign | Fault::Newer(_) | Fault::InUse | Fault::Io(_) => {
                // What can be read may be read, if it was ours.
                shared.set_ours(was_open && matches!(fault, Fault::Io(_)));
                if is_new {
                    tracing::error!(%path, error = text, "history file cannot be used; history is kept in memory");
                }
            }
        }
        self.said = Some(text);
    }
}

#[cfg(test)]
mod tests;
