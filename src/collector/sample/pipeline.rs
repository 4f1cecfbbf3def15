//! Batches on their way: how many at a time, when each may be sent, and what they take of Redis's time.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::collector::query::Observation;
use crate::collector::request::Batch;
use crate::collector::sample::SampleRun;
use crate::collector::sample_state::SampleState;
use crate::model::sample::SampleError;

/// Messages sent and not yet answered, so that the replies held in memory are bounded. With some 200 to 300 commands
/// each, Redis never runs dry: from 512 commands in flight on, a sample is as quick as with all of them.
const BATCHES_IN_FLIGHT: usize = 4;

/// What a batch of the later rounds costs at most, as a guess in microseconds, where the pace does not limit it: half as much
/// again as one of the first round does.
const MAX_REST_COST: u64 = 1500;

impl SampleRun<'_> {
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < if self.server.pacer.is_spread() { 1 } else { BATCHES_IN_FLIGHT }
    }

    pub(super) async fn send(&mut self, mut batch: Batch) -> Result<(), SampleError> {
        let due = self.server.pacer.next(batch.cost, Instant::now());
        if self.server.pacer.is_spread() {
            sleep_until(due).await;
        }
        let sent = Instant::now();
        self.connected.send(batch.requests(), batch.sent(), &self.server.commands).await?;
        batch.was_sent();
        self.in_flight.push_back((batch, sent));
        Ok(())
    }

    /// Waits for the answers to the oldest batch, and reads them.
    pub(super) async fn receive(&mut self) -> Result<(Batch, Vec<Observation>), SampleError> {
        self.read_clock().await?;
        let Some((batch, sent)) = self.in_flight.pop_front() else {
            return Ok((Batch::without(&BTreeSet::new()), Vec::new()));
        };
        let Self { server, connected, .. } = self;
        server.awaited.clear();
        server.awaited.extend(batch.ends());
        let replies = connected.receive(batch.commands()).await?;
        let now = Instant::now();
        // Redis began with it when it was done with the one before.
        let since = self.answered.map_or(sent, |answered| answered.max(sent));
        let waited = now - since;
        self.answered = Some(now);
        // The way there and back shows in the first of those that are on their way together only.
        let round_trip = if since == sent { Duration::ZERO } else { server.pacer.round_trip() };
        server.pacer.answered(batch.cost, waited + round_trip);
        let mut observations = Vec::new();
        let SampleState { streams, memory, refused, .. } = &mut **server;
        let read = batch.read(replies, streams, memory, &mut observations, refused);
        server.leave_out_what_takes_too_much();
        read?;
        if connected.release() {
            server.awaited.clear();
        }
        Ok((batch, observations))
    }
}

/// A batch with room for more.
pub(super) fn room<'b>(batches: &'b mut Vec<Batch>, server: &SampleState) -> &'b mut Batch {
    let most = server.pacer.batch_cost().min(MAX_REST_COST);
    if batches.last().is_none_or(|batch| batch.cost >= most) {
        batches.push(server.empty_batch());
    }
    let last = batches.len() - 1;
    &mut batches[last]
}
