//! What is kept over a restart beside history: small texts by area and key, in the history file where there is one.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::analysis::history::Point;
use crate::store::history::memory::SeriesKey;

/// How long the file is waited for. After that, saving is given up: a disk that hangs must not hold notifications up.
const SAVE_TIME: Duration = Duration::from_secs(5);

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateChange {
    /// Everything of this area goes.
    Clear(String),
    /// Of all areas, only these stay.
    Only(Vec<String>),
    /// This value is kept under area and key; `None` removes it.
    Set(String, String, Option<String>),
}

/// A text that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// What it belongs to.
    pub area: String,
    /// Its name there.
    pub key: String,
    /// The text.
    pub value: String,
}

/// The number of times that a file was opened: what was saved before is in another file, perhaps.
pub type Generation = u64;

/// What was kept by the process before, and the file that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// All of it.
    pub entries: Vec<StateEntry>,
    /// The file; 0 where there is none, or more in it than these.
    pub generation: Generation,
}

/// Points of groups.
pub(super) type PointBatch = Vec<(SeriesKey, Point)>;

/// What the thread of the history file is asked to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Write points.
    Points(PointBatch),
    /// Keep something over a restart, and say in which file it is.
    Save(Vec<StateChange>, oneshot::Sender<Option<Generation>>),
    /// Write what there is, and end.
    End,
}

/// Where to keep something. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct StateFile {
    orders: Option<SyncSender<Order>>,
}

impl StateFile {
    pub(super) fn new(orders: SyncSender<Order>) -> Self {
        Self { orders: Some(orders) }
    }

    /// Whether there is a file to keep something in.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.orders.is_some()
    }

    /// Keeps these changes, all or none of them, and waits until they are in the file, for a few seconds at most. Gives the file that
    /// they are in; `None` where they may not be.
    pub async fn save(&self, changes: Vec<StateChange>) -> Option<Generation> {
        let (saved, answer) = oneshot::channel();
        self.orders.as_ref()?.try_send(Order::Save(changes, saved)).ok()?;
        timeout(SAVE_TIME, answer).await.ok()?.ok()?
    }
}
