//! Asking for a reload, and waiting for what came of it.

use tokio::sync::{mpsc, oneshot};

/// Reloads that may be asked for at a time. They are done one after the other.
const MAX_WAITING: usize = 8;

/// Why a reload has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// There is no room for one more to wait.
    #[error("too many reloads are waiting already")]
    Busy,
    /// The program ends.
    #[error("streamlag is ending")]
    Ending,
    /// What was read cannot be used: why, in one line.
    #[error("{0}")]
    Configuration(String),
}

/// What a reload came to: nothing, or why everything stayed as it was.
pub type ReloadOutcome = Result<(), ReloadError>;

/// Where reloads are asked for.
#[derive(Clone, Debug)]
pub struct ReloadHandle(mpsc::Sender<oneshot::Sender<ReloadOutcome>>);

/// Where those who ask are answered.
#[derive(Debug)]
pub struct ReloadRequests(mpsc::Receiver<oneshot::Sender<ReloadOutcome>>);

/// Where to ask, and where to answer.
#[must_use]
pub fn channel() -> (ReloadHandle, ReloadRequests) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (ReloadHandle(sender), ReloadRequests(receiver))
}

impl ReloadHandle {
    /// Has everything reloaded.
    ///
    /// # Errors
    /// Why nothing changed.
    pub async fn reload(&self) -> ReloadOutcome {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(answer).map_err(|_| ReloadError::Busy)?;
        answered.await.unwrap_or(Err(ReloadError::Ending))
    }
}

impl ReloadHandle {
    /// Has everything reloaded, and does not wait for it. What came of it is in the log.
    pub fn ask(&self) {
        let (answer, _) = oneshot::channel();
        if self.0.try_send(answer).is_err() {
            tracing::warn!("{}", ReloadError::Busy);
        }
    }
}

impl ReloadRequests {
    /// The next request; `None` where no handle is left.
    pub async fn next(&mut self) -> Option<oneshot::Sender<ReloadOutcome>> {
        self.0.recv().await
    }
}
