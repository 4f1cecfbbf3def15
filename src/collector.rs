//! One task per target: looks for streams, samples them at an interval, works out what the samples mean, publishes that and logs
//! what changed.

mod backend;
mod change_log;
mod cluster;
mod count_budget;
mod pacer;
mod page_builder;
pub mod poller;
mod query;
mod reading;
mod request;
mod response;
mod sample;
mod sample_sink;
mod sample_state;
mod scanner;
mod schedule;
mod sentinel;
mod standalone;
mod stream_rules;
mod stream_state;
mod topology;

pub use backend::Source;
pub use sample_state::SamplingConfig;
pub use scanner::{SCAN_COUNT, ScanRequest, ScanStats, Scanner};
pub use standalone::Standalone;
#[cfg(any(test, fuzzing))]
pub(crate) use standalone::fuzzing;
pub use topology::{RedisMode, Topology};

/// The memory for what all Redis servers send.
pub use crate::redis::reply_memory::PROCESS as REPLY_MEMORY;

pub use crate::redis::connector::{
    Address, ClientTls, ClientTlsError, Credentials, Endpoint, Resolver, TlsFiles, TlsPart,
};
