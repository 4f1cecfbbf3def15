//! What readers see: the newest view of each target.

pub mod latest;
pub mod view;
