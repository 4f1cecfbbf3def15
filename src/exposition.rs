//! From a snapshot to the metrics page. Pure.

pub mod collectors;
pub mod encoding;
pub mod logical;
mod number;
pub mod part;
pub mod registry;
pub mod series;
