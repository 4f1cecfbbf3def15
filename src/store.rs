//! What readers see: the newest view of each target, what was, what will be, and what was told of it.

pub mod deliveries;
pub mod forecasts;
pub mod history;
pub mod latest;
pub mod remediation;
