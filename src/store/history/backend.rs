//! What history is read from: memory, the file, or a server that speaks PromQL.

use std::fmt::Debug;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use crate::analysis::history::Point;
use crate::analysis::history::query::Range;
use crate::store::history::memory::SeriesKey;
use crate::store::history::prometheus::error::QueryError;

/// What history is read from.
pub(super) trait HistoryBackend: Debug + Send + Sync {
    /// Gives away the points of each group that is asked for and that there has been, as far as is known, in buckets of the range's step.
    fn read(&self, job: Job) -> BoxFuture<'_, Result<(), HistoryUnavailable>>;
}

/// Takes the points of one group after another.
pub(super) type AnswerSink = Box<dyn FnMut(SeriesKey, Answer) + Send>;

/// One read of history.
pub(super) struct Job {
    /// What is asked.
    pub(super) asked: HistoryQuery,
    /// Where the answers go.
    pub(super) take: AnswerSink,
    /// Held until the work ends, also where nobody waits for it any more.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Job {
    /// Does work that takes a core or waits for a disk.
    pub(super) async fn block(
        mut self,
        work: impl FnOnce(&HistoryQuery, &mut AnswerSink) + Send + 'static,
    ) -> Result<(), HistoryUnavailable> {
        let work = move || {
            work(&self.asked, &mut self.take);
            drop(self.permit);
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| HistoryUnavailable::Interrupted)
    }
}

/// A query for points.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Groups of one target.
    pub keys: Vec<SeriesKey>,
    /// The time, and the buckets.
    pub range: Range,
    /// Whether it is the first target, whose series Prometheus may have without the target's name.
    pub of_first_target: bool,
}

/// Why nothing can be read now.
#[derive(Debug, thiserror::Error)]
pub enum HistoryUnavailable {
    /// Other queries took longer than this.
    #[error("other queries took more than {} s", .0.as_secs())]
    Busy(Duration),
    /// The program ends.
    #[error("the query was interrupted")]
    Interrupted,
    /// Prometheus has no answer.
    #[error("Prometheus at {authority} does not answer: {error}")]
    Prometheus {
        /// Where it is.
        authority: String,
        /// Why.
        error: QueryError,
    },
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistorySource {
    /// Memory alone.
    Memory,
    /// The file and memory.
    Sqlite,
    /// A server that speaks PromQL.
    Prometheus,
}

impl HistorySource {
    /// The word that the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Prometheus => "prometheus",
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
    /// Points that begin before this time are of an hour each, though the step is less: their minutes are gone. Seconds since the Unix epoch.
    pub hours_until: Option<i64>,
}
