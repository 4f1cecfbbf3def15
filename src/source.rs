//! Where samples come from: one room per Redis topology.

mod answers;
mod batch;
mod connection;
mod counting;
mod lane;
mod script;
mod standalone;

#[cfg(any(test, fuzzing))]
pub(crate) use standalone::fuzzing;
pub use standalone::{Sampling, Standalone};
