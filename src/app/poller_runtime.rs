//! The runtime of the pollers: one thread for all of them, apart from that of the HTTP server. Each waits for its own Redis only.
//!
//! The thread waits for its sockets itself. On the runtime that serves, each answer would wake another thread first, which at a few
//! streams takes longer than Redis does; and pages are served while a poller works.
//!
//! A poller that panics ends the program: see the module [`crate::sys::panic_hook`].

use std::pin::Pin;

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::config::MAX_TARGETS;

/// Further threads, for encoding pages and for looking names up, at most, and only as long as they are needed. A lookup
/// that hangs has its thread for as long: with more of them than targets, no target's name server keeps the others from being
/// polled.
const BLOCKING_THREADS: usize = 1_004;

const _: () = assert!(BLOCKING_THREADS > MAX_TARGETS);

type PollerJob = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where pollers are started.
#[derive(Debug)]
pub(super) struct Start(mpsc::Sender<PollerJob>);

/// Ends a poller, at the latest where it next waits for something, when it is dropped.
#[derive(Debug)]
pub(super) struct Running(AbortHandle);

/// The pollers that run.
pub(super) struct Pollers {
    new: mpsc::Receiver<PollerJob>,
    running: FuturesUnordered<PollerJob>,
}

/// Where to start pollers, and what they run in.
pub(super) fn channel() -> (Start, Pollers) {
    // Before anything runs, all targets of a configuration fit in.
    let (start, new) = mpsc::channel(MAX_TARGETS);
    (Start(start), Pollers { new, running: FuturesUnordered::new() })
}

impl Start {
    /// Has a poller run.
    pub(super) async fn start(&self, poller: impl Future<Output = ()> + Send + 'static) -> Running {
        let (poller, stop) = abortable(poller);
        // Fails only where the program ends.
        let _ = self.0.send(Box::pin(poller.map(|_| ()))).await;
        Running(stop)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pollers {
    /// Runs what is started, on a thread of its own. Waiting for that never ends.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    ///
    /// # Panics
    /// The waiting task panics where a poller did.
    pub(super) fn run_apart(self) -> std::io::Result<impl Future<Output = ()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()?;
        let (running, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("pollers".to_owned()).spawn(move || {
            let _running = running;
            runtime.block_on(self.run());
        })?;
        Ok(async move {
            // Nothing is ever sent: it ends with the thread.
            let _ = ended.await;
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        })
    }

    /// Runs what is started. Never ends.
    ///
    /// # Panics
    /// Where a poller does.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                Some(job) = self.new.recv() => self.running.push(job),
                Some(()) = self.running.next() => {}
                else => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Ends as a poller does that is dropped.
    async fn poll(_held: oneshot::Sender<()>) {
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_poller_runs_until_its_handle_is_dropped_and_the_others_go_on() {
        let (start, pollers) = channel();
        tokio::spawn(pollers.run_apart().unwrap());
        let ([one, other], [mut one_ended, mut other_ended]) = {
            let ((one, one_ended), (other, other_ended)) = (oneshot::channel(), oneshot::channel());
            ([start.start(poll(one)).await, start.start(poll(other)).await], [one_ended, other_ended])
        };
        drop(one);
        assert!(timeout(Duration::from_secs(30), &mut one_ended).await.unwrap().is_err(), "it ended");
        let (said, heard) = oneshot::channel();
        let _third = start.start(async move { said.send(()).unwrap() }).await;
        assert_eq!(heard.await, Ok(()));
        assert!(matches!(other_ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        drop(other);
        assert!(timeout(Duration::from_secs(30), &mut other_ended).await.unwrap().is_err(), "it ended");
    }

    #[tokio::test]
    async fn a_panic_of_a_poller_is_one_of_whoever_runs_it() {
        let (start, pollers) = channel();
        let _running = start.start(async { panic!("a defect") }).await;
        assert!(tokio::spawn(pollers.run_apart().unwrap()).await.unwrap_err().is_panic());
    }
}
