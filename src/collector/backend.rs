//! The ways in which a Redis is sampled: one per topology.

use std::time::Duration;

use super::cluster::Cluster;
use super::sample_state::SamplingConfig;
use super::sentinel::Sentinel;
use super::standalone::Standalone;
use super::topology::{RedisMode, Topology};

use crate::model::sample::{SampleError, Sink, TargetSample};
use crate::sys::own_metrics::RedisCommands;

/// Samples a Redis, however it is set up.
pub struct Source {
    backend: Backend,
    commands: RedisCommands,
}

enum Backend {
    Standalone(Box<Standalone>),
    Cluster(Box<Cluster>),
    Sentinel(Box<Sentinel>),
}

impl Source {
    /// A source for these streams. It connects at the first sample.
    #[must_use]
    pub fn new(topology: Topology, sampling: SamplingConfig, commands: RedisCommands) -> Self {
        let counted = commands.clone();
        let backend = match topology.mode {
            RedisMode::Standalone => {
                Backend::Standalone(Box::new(Standalone::new(topology.endpoint, sampling, counted)))
            }
            RedisMode::Cluster => Backend::Cluster(Box::new(Cluster::new(topology, sampling, counted))),
            RedisMode::Sentinel => Backend::Sentinel(Box::new(Sentinel::new(topology, sampling, counted))),
        };
        Self { backend, commands }
    }

    /// Samples this from now on, of another Redis where there is one. What is known of the streams that stay is kept.
    pub fn reconfigure(&mut self, sampling: SamplingConfig, another: Option<Topology>) {
        match (&mut self.backend, another) {
            (_, Some(topology)) => *self = Self::new(topology, sampling, self.commands.clone()),
            (Backend::Standalone(source), None) => source.reconfigure(sampling, None),
            (Backend::Cluster(source), None) => source.reconfigure(sampling),
            (Backend::Sentinel(source), None) => source.reconfigure(sampling),
        }
    }

    /// Takes one sample, all of it within `timeout`. Its streams are handed to the sink and are not in it.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read, and then nothing counts that the sink was told; the trouble of a single stream, or of a node, is inside the sample.
    pub async fn sample_into(&mut self, timeout: Duration, sink: &mut dyn Sink) -> Result<TargetSample, SampleError> {
        match &mut self.backend {
            Backend::Standalone(source) => source.sample_into(timeout, sink).await,
            Backend::Cluster(source) => source.sample_into(timeout, sink).await,
            Backend::Sentinel(source) => source.sample_into(timeout, sink).await,
        }
    }

    /// What the newest sample took of Redis's time until it ended, well or not: of the busiest, where there are several.
    #[must_use]
    pub fn redis_time(&self) -> Duration {
        match &self.backend {
            Backend::Standalone(source) => source.redis_time(),
            Backend::Cluster(source) => source.redis_time(),
            Backend::Sentinel(source) => source.redis_time(),
        }
    }
}
