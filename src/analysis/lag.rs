//! Lag: entries in the stream that a group has not been given yet, and how sure that is.

pub mod bounds;
mod needed;
mod timeline;
pub mod tracker;

pub use needed::lowest_needed;
pub use tracker::LagTracker;
