//! Logical streams: what several streams are together, as partitions of one.

use std::sync::Arc;

use crate::analysis::group_state::GroupState;
use crate::model::lag::{Lag, Quality};
use crate::model::thresholds::Status;
use crate::model::{GroupName, StreamKey};

/// One logical stream at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LogicalSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// Its monitored groups, by name.
    pub groups: Vec<LogicalGroup>,
}

/// One monitored group over all partitions of a logical stream.
///
/// A partition counts as unknown where it could not be read or does not have the group. What the others have is
/// then a lower bound, and a 0 is not said at all: it might be a false one.
#[derive(Clone, Debug, PartialEq)]
pub struct LogicalGroup {
    /// Its name.
    pub name: GroupName,
    /// Partitions that are sampled here.
    pub partitions: u64,
    /// Those among them that are unknown.
    pub unknown: u64,
    /// The lags of the known partitions together; `None` where none is known, or where it would be a 0 that is not sure.
    pub lag: Option<Lag>,
    /// The partition with the most lag; there where `lag` is.
    pub worst: Option<WorstPartition>,
    /// How many times the average lag the worst one is: 1 where all are even; `None` where there is no lag to compare.
    pub skew: Option<f64>,
    /// Age of the oldest undelivered entry of any partition; `None` where it is not known of each.
    pub lag_seconds: Option<f64>,
    /// Entries given to consumers and not acknowledged, over the known partitions; `None` where none is known.
    pub pending: Option<u64>,
    /// What the sum of the lags is called.
    pub status: Status,
    /// The worst state of any partition; `None` where none is known.
    pub state: Option<GroupState>,
}

/// The partition with the most lag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstPartition {
    /// The partition's key.
    pub stream: StreamKey,
    /// Its lag.
    pub lag: u64,
}

impl LogicalGroup {
    /// How sure the lag is; `None` where it is only known to be at least so much, as partitions are unknown.
    #[must_use]
    pub fn quality(&self) -> Option<Quality> {
        self.lag.filter(|_| self.unknown == 0).map(|lag| lag.quality())
    }
}
