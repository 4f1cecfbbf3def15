//! What readers see: the newest view of each target.

pub mod latest;
