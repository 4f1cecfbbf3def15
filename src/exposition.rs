//! From a snapshot to the metrics page. Pure.

pub mod collectors;
pub mod encoding;
pub mod logical;
pub mod part;
pub mod registry;
pub mod series;
