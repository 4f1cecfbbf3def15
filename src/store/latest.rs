//! The newest snapshot of a target, shared by all readers and swapped whole.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::analysis::view::View;
use crate::exposition::encoding::Page;
use crate::store::history::Recorder;

/// What the poller made of its newest poll, ready for readers.
#[derive(Debug)]
pub struct Published {
    /// What there is to see.
    pub view: View,
    /// When the newest good sample was taken, by the clock that never steps; `None` before the first.
    pub sampled: Option<Instant>,
    /// Until when that sample is fresh, by the same clock; `None` before the first.
    pub fresh_until: Option<Instant>,
    /// When the next is due, if the poller is well.
    pub next_by: Instant,
    /// The metrics page of this view.
    pub page: Page,
}

/// Where the poller publishes.
#[derive(Debug)]
pub struct Publisher {
    newest: Arc<ArcSwap<Published>>,
    changes: watch::Sender<()>,
    /// Where good samples are remembered; nowhere for a program that polls once.
    history: Option<Recorder>,
    recorded: Option<Instant>,
}

/// Where to look for each of the targets, which a reload may change.
pub type Readers = watch::Receiver<Vec<Reader>>;

/// Where readers look. To look writes nothing that other readers need, as it is done for each request.
#[derive(Clone, Debug)]
pub struct Reader {
    newest: Arc<ArcSwap<Published>>,
    changes: watch::Receiver<()>,
}

/// A publisher and its readers, who see `first` until something is published. Good samples go to `history` as well.
#[must_use]
pub fn channel(first: Published, history: Option<Recorder>) -> (Publisher, Reader) {
    let newest = Arc::new(ArcSwap::from_pointee(first));
    let (sender, receiver) = watch::channel(());
    let publisher = Publisher { newest: Arc::clone(&newest), changes: sender, history, recorded: None };
    (publisher, Reader { newest, changes: receiver })
}

impl Publisher {
    /// Replaces what readers see.
    pub fn publish(&mut self, published: Published) {
        if published.sampled != self.recorded && published.view.redis_up() {
            self.recorded = published.sampled;
            if let Some(history) = &self.history {
                history.record(&published.view);
            }
        }
        self.newest.store(Arc::new(published));
        self.changes.send_replace(());
    }
}

impl Reader {
    /// Waits until the first poll has ended.
    pub async fn polled(&mut self) {
        while self.newest().view.newest_poll.is_none() {
            self.changed().await;
        }
    }

    /// Waits until there is a newer one.
    pub async fn changed(&mut self) {
        // An error means that there will be none.
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What there is now is not waited for any more.
    pub fn mark_seen(&mut self) {
        self.changes.mark_unchanged();
    }

    /// The newest there is.
    #[must_use]
    pub fn newest(&self) -> Guard<Arc<Published>> {
        self.newest.load()
    }
}
