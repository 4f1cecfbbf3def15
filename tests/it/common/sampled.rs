//! Sampling inside the test: as the poller does it, without waiting for it.

use std::time::Duration;

use redis::Value;
use streamlag::analysis::assess::{Assessor, Bounds};
use streamlag::analysis::snapshot::{PresentGroup, StreamSnapshot};
use streamlag::analysis::window::Windows;
use streamlag::collector::{SamplingConfig, Standalone};
use streamlag::model::{EntryId, GroupSelection};
use streamlag::sys::own_metrics::RedisCommands;
use tokio::runtime::Runtime;

use super::Redis;

/// The default of `--lag.count-budget`.
pub const COUNT_BUDGET: u64 = 20_000;

/// The default of `--poll.interval`.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Samples streams and says what the samples mean, each as if it were an interval after the one before.
pub struct Sampled {
    runtime: Runtime,
    source: Standalone,
    assessor: Assessor,
    at: Duration,
    ends: Option<(EntryId, EntryId)>,
}

impl Sampled {
    /// All groups of these streams of a server.
    pub fn new(redis: &Redis, streams: &[&str], count_budget: u64) -> Self {
        Self::of(&redis.url(), streams, count_budget)
    }

    pub fn of(url: &str, streams: &[&str], count_budget: u64) -> Self {
        let selection = GroupSelection::new(vec!["*".to_owned()]);
        let streams: Vec<_> = streams.iter().map(|stream| (*stream).into()).collect();
        let sampling = SamplingConfig::of(streams.clone(), selection.clone(), INTERVAL, count_budget);
        let windows = Windows {
            window: Duration::from_secs(30),
            samples: 6,
            dead_after: Duration::from_secs(60),
            drain_target: Duration::from_secs(60),
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            source: Standalone::new(streamlag::config::endpoint(url).unwrap(), sampling, RedisCommands::default()),
            assessor: Assessor::new(streams, selection, windows, Bounds::default()),
            at: Duration::ZERO,
            ends: None,
        }
    }

    /// The next sample.
    pub fn next(&mut self) -> Vec<StreamSnapshot> {
        // Whether a poll is quick is not what these tests are about.
        let sample = self.runtime.block_on(self.source.sample(Duration::from_secs(60))).unwrap();
        self.at += INTERVAL;
        self.ends = sample.streams[0].1.as_ref().ok().and_then(|stream| stream.reply.first.zip(stream.reply.last));
        self.assessor.assess(sample, self.at).streams
    }

    /// The first and the last entry of the first stream, in the newest sample.
    pub fn ends(&self) -> Option<(EntryId, EntryId)> {
        self.ends
    }

    /// The next sample, of which there is one stream.
    pub fn one(&mut self) -> StreamSnapshot {
        self.next().remove(0)
    }
}

pub fn present<'a>(snapshot: &'a StreamSnapshot, name: &str) -> &'a PresentGroup {
    let group = snapshot.groups.iter().find(|group| group.name.to_string() == name);
    group.and_then(|group| group.present()).unwrap_or_else(|| panic!("no group {name}: {snapshot:?}"))
}

/// The ids of the entries that `XRANGE` or `XREADGROUP` answered.
pub fn ids(entries: &Value) -> Vec<EntryId> {
    let Value::Array(entries) = entries else { panic!("{entries:?}") };
    let id = |entry: &Value| match entry {
        Value::Array(parts) => match &parts[0] {
            Value::BulkString(id) => EntryId::parse(id).unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.iter().map(id).collect()
}
