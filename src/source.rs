//! Where samples come from: one room per Redis topology.

mod answers;
mod batch;
mod connection;
mod counting;
mod lane;
mod script;
mod standalone;

pub use standalone::{Sampling, Standalone};
