//! Lag: entries in the stream that a group has not been given yet, and how sure that is.

pub mod bounds;
mod safe_to_trim;
mod timeline;
pub mod tracker;

pub use safe_to_trim::lowest_needed;
pub use tracker::LagTracker;
