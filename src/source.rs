//! Where samples come from: one room per Redis topology.

mod answers;
mod batch;
mod connection;
mod counting;
mod dial;
mod discovery;
mod lane;
mod pace;
mod script;
mod standalone;
mod wire;

pub use dial::{Address, Dial, Login, Part, Resolver, Tls, TlsFiles, TlsProblem};
pub use discovery::{Discovery, DiscoveryStats, SCAN_COUNT, ScanAsk};
#[cfg(any(test, fuzzing))]
pub(crate) use standalone::fuzzing;
pub use standalone::{Sampling, Standalone};
