//! Lag: entries in the stream that a group has not been given yet, how sure that is, and what it is called.
//!
//! Pure: facts in, answers out.

pub mod consumers;
pub mod history;
pub mod ledger;
mod marks;
mod needed;
mod resolve;
mod state;
mod status;
pub mod trimming;

pub use history::Windows;
pub use ledger::Ledger;
pub use needed::lowest_needed;
pub use resolve::{Lag, Quality};
pub use state::{GroupState, Verdict};
pub use status::{Status, ThresholdRules, Thresholds};
