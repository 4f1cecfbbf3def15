//! Lag: entries in the stream that a group has not been given yet, and how sure that is.

pub mod bounds;
mod needed;
mod timeline;
pub mod tracker;

pub use bounds::{Lag, Quality};
pub use needed::lowest_needed;
pub use tracker::Ledger;

pub use crate::analysis::group_history::Windows;
pub use crate::analysis::group_state::{GroupState, Verdict};
pub use crate::model::thresholds::{Status, ThresholdRules, Thresholds};
