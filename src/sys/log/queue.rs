//! Lines on their way to standard error. Logging never waits for standard error to be read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

/// Lines that wait to be written; what comes on top is left out and counted. With lines of the greatest length, 4 MiB.
pub(super) const MAX_WAITING: usize = 1024;

/// Lines that wait to be written, and who writes them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    /// A line came, or something else is due.
    came: Condvar,
    /// Nothing waits any more.
    written: Condvar,
    /// Lines that were not written.
    pub(super) dropped: Counter,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<String>,
    is_writing: bool,
    /// When to report lines that were left out.
    due: Option<Instant>,
}

/// Standard error without its lock: a writer that waits for that would wait for the reader of the log.
#[cfg(unix)]
fn stderr() -> io::Result<File> {
    use std::os::fd::AsFd as _;

    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// The same on Windows.
#[cfg(windows)]
fn stderr() -> io::Result<File> {
    use std::os::windows::io::AsHandle as _;

    Ok(File::from(io::stderr().as_handle().try_clone_to_owned()?))
}

impl Queue {
    /// Writes what comes, on a thread of its own. `say` is called there when something is due: see [`Queue::wake_at`].
    ///
    /// # Errors
    /// Where there is no standard error or no thread.
    pub(super) fn write_apart(self: &Arc<Self>, say: impl Fn(Instant) + Send + 'static) -> io::Result<()> {
        let stderr = stderr()?;
        let queue = Arc::clone(self);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write(stderr, &say))?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, unless too many wait already.
    pub(super) fn push(&self, line: String) {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_WAITING {
            self.dropped.inc();
            return;
        }
        state.waiting.push_back(line);
        drop(state);
        self.came.notify_one();
    }

    /// Has something said at this time of lines that were left out.
    pub(super) fn wake_at(&self, due: Instant) {
        let mut state = self.lock();
        state.due = Some(state.due.map_or(due, |before| before.min(due)));
        drop(state);
        self.came.notify_one();
    }

    fn write(&self, mut stderr: File, say: &dyn Fn(Instant)) {
        loop {
            match self.next() {
                Some(line) => {
                    if stderr.write_all(line.as_bytes()).is_err() {
                        self.dropped.inc();
                    }
                }
                None => say(Instant::now()),
            }
        }
    }

    /// Waits for the next line; `None` where something is due instead.
    fn next(&self) -> Option<String> {
        let mut state = self.lock();
        state.is_writing = false;
        loop {
            let now = Instant::now();
            if state.due.is_some_and(|due| due <= now) {
                state.due = None;
                return None;
            }
            if let Some(line) = state.waiting.pop_front() {
                state.is_writing = true;
                return Some(line);
            }
            self.written.notify_all();
            state = match state.due {
                Some(due) => self.came.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.came.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Waits until all lines are written, or for so long.
    pub(super) fn drain(&self, most: Duration) {
        let is_busy = |state: &mut QueueState| state.is_writing || !state.waiting.is_empty();
        drop(self.written.wait_timeout_while(self.lock(), most, is_busy));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_on_top_is_counted() {
        let queue = Queue::default();
        for _ in 0..MAX_WAITING + 7 {
            queue.push("line\n".to_owned());
        }
        assert_eq!((queue.lock().waiting.len(), queue.dropped.get()), (MAX_WAITING, 7));
        queue.drain(Duration::from_millis(1));
    }
}
