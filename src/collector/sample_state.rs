//! What a sample works with, and what is kept of the server and its streams from sample to sample.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::collector::pacer::Pacer;
use crate::collector::request::Batch;
use crate::collector::stream_state::{DecodeMemory, Omitted, StreamState};
use crate::model::sample::RefusedCommand;
use crate::model::{GroupSelection, OfStream, StreamKey, StreamSelection, carry_over};
use crate::redis::reply_memory;
use crate::sys::own_metrics::RedisCommands;

/// What to sample, and what it may cost.
#[derive(Clone, Debug)]
pub struct SamplingConfig {
    /// Which streams: by name, and by pattern.
    pub streams: StreamSelection,
    /// Streams that are sampled at most.
    pub stream_limit: usize,
    /// The time within which a new stream that a pattern means is to show.
    pub discovery_interval: Duration,
    /// The monitored groups.
    pub selection: GroupSelection,
    /// Groups of a stream that are monitored at most.
    pub group_limit: usize,
    /// Whether to ask for consumers.
    pub consumers: bool,
    /// The time between samples.
    pub interval: Duration,
    /// Entries that may be read per second of the interval, to count lags that nothing else tells.
    pub count_budget: u64,
    /// The share of the interval, or of the timeout where that is shorter, over which a sample is spread: a fraction, 0 for as quick as
    /// can be.
    pub spread: f64,
}

impl SamplingConfig {
    /// All of these streams at once, with everything that may be asked.
    #[must_use]
    pub fn of(streams: Vec<StreamKey>, selection: GroupSelection, interval: Duration, count_budget: u64) -> Self {
        Self {
            streams: StreamSelection::default().and(streams, []),
            stream_limit: usize::MAX,
            discovery_interval: interval,
            selection,
            group_limit: usize::MAX,
            consumers: true,
            interval,
            count_budget,
            spread: 0.0,
        }
    }
}

/// State of one server.
pub(super) struct SampleState {
    pub(super) sampling: SamplingConfig,
    /// The streams with all that is kept of each. A stream's place in it is its `at` everywhere else.
    pub(super) streams: Vec<StreamState>,
    pub(super) commands: RedisCommands,
    /// The stream that is read first, where not all can be read in one sample.
    pub(super) turn: usize,
    /// Streams that this sample found to be gone.
    pub(super) gone: Vec<StreamKey>,
    pub(super) refused: BTreeSet<RefusedCommand>,
    /// Whether it is one node of a cluster that is sampled as a whole.
    pub(super) of_cluster: bool,
    /// Whether the streams are on their way to this node of a cluster.
    pub(super) asking: bool,
    /// Whether the answers of a transaction are of one moment.
    pub(super) isolated: bool,
    pub(super) pacer: Pacer,
    /// Of the batch whose answers are waited for: how many replies there are up to the end of each query, and the stream that it is
    /// about.
    pub(super) awaited: Vec<(usize, Option<usize>)>,
    /// What the decoded streams take of the memory for replies.
    pub(super) memory: DecodeMemory,
}

impl SampleState {
    pub(super) fn new(streams: &[StreamKey], sampling: SamplingConfig, commands: RedisCommands) -> Self {
        Self {
            streams: streams.iter().cloned().map(StreamState::new).collect(),
            sampling,
            commands,
            turn: 0,
            gone: Vec::new(),
            of_cluster: false,
            refused: BTreeSet::new(),
            asking: false,
            isolated: true,
            pacer: Pacer::default(),
            awaited: Vec::new(),
            memory: DecodeMemory::of(&reply_memory::PROCESS),
        }
    }

    /// Samples these streams from now on. Keeps the state of those that stay.
    pub(super) fn sample_these(&mut self, streams: &[StreamKey]) {
        carry_over(&mut self.streams, streams);
        self.turn = 0;
    }

    /// The streams, as those who take samples know them.
    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &StreamKey> {
        self.streams.iter().map(OfStream::key)
    }

    /// More of a stream is left out of the next samples, as an answer about it took so many bytes. Whether there is such a stream.
    pub(super) fn leave_out(&mut self, at: usize, bytes: u64) -> bool {
        let Some(state) = self.streams.get_mut(at) else { return false };
        state.tells_too_much();
        let what = if state.left_out() == Omitted::All { "it is not read" } else { "its consumers are not read" };
        tracing::warn!(stream = %state.key, bytes, "reply about a stream exceeds the read limit: {what}");
        true
    }

    /// Streams whose groups and consumers take more memory than they may, even alone, tell less from the next sample on.
    pub(super) fn leave_out_what_takes_too_much(&mut self) {
        for (at, full) in self.memory.take_refused() {
            if full.alone {
                self.leave_out(at, full.bytes as u64);
            }
        }
    }

    /// Nothing asked yet, but for what Redis refuses.
    pub(super) fn empty_batch(&self) -> Batch {
        Batch::without(&self.refused).asking(self.asking).isolated(self.isolated)
    }

    /// Whether the stream at this place is sampled because it was found, and not because it was named.
    pub(super) fn was_found(&self, at: usize) -> bool {
        at >= self.sampling.streams.literals().len()
    }
}
