//! What readers see: the newest view of each target, and what was.

pub mod history;
pub mod latest;
