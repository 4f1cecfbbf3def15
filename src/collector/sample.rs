//! What a sample asks, in rounds.
//!
//! The groups seen last time are asked about together with their stream. What only this sample could tell (groups that
//! are new, the entry after a cursor that moved to mid stream, lags that have to be counted, a stream to be read without
//! a command that Redis refuses) is asked for in a second round trip. Only counts that are longer than a page take more,
//! as many as the budget of a poll allows.
//!
//! A stream of which nothing is missing any more is handed on at once, while Redis works at the next ones.

mod finalize;
mod follow_up;
mod pipeline;

use std::collections::{BTreeSet, VecDeque};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::collector::count_budget::{CountBudget, CountRequest};
use crate::collector::query::{GroupQuery, Observation, ReadOutcome};
use crate::collector::request::Batch;
use crate::collector::sample::finalize::resolve;
use crate::collector::sample_state::SampleState;
use crate::collector::stream_state::StreamState;
use crate::model::sample::{ReadError, RefusedCommand, SampleError, Sink, TargetMeta, TargetSample};
use crate::model::text::unix_millis;
use crate::redis::connection::Connection;

/// Streams whose questions go out as one message, and whose answers are read as one; fewer where the sample is spread.
const STREAMS_PER_BATCH: usize = 32;

/// Bytes of first and last entries that a poll reads, where they are large: 100 ms of Redis's time with entries of 1 MiB,
/// up to four times that with larger ones. Streams beyond it are read at one of the next polls, in turn.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024 * 1024;

/// The same while their size is not known yet: once.
const MAX_FIRST_PAYLOAD_BYTES: u64 = 4 * MAX_PAYLOAD_BYTES;

/// Streams that are read at once then.
const STREAMS_PER_LARGE_BATCH: usize = 16;

/// Polls in a row in which a stream with large entries is only asked whether it changed; then it is read all the same. A
/// stream that was created again can look the same, though hardly with the same groups.
const MAX_CHECKS: u32 = 12;

/// How often a stream is read again in a poll that Redis refused a command for, or that changed while it was read, where Redis runs
/// no transactions. One is usual; each further one is for a command that only then turned out to be refused.
const MAX_READINGS: usize = 3;

/// One sample on its way.
pub(super) struct SampleRun<'a> {
    server: &'a mut SampleState,
    connected: &'a mut Connection,
    sink: &'a mut dyn Sink,
    /// What is to be asked in the second round.
    rest: Vec<Batch>,
    wanted: Vec<CountRequest>,
    /// Streams of whose groups only the second round tells the oldest pending entry.
    detailed: Vec<usize>,
    /// Batches that were sent and not yet answered, each with its time.
    in_flight: VecDeque<(Batch, Instant)>,
    /// When the newest answer to one came.
    answered: Option<Instant>,
    /// What it tells apart from the streams; the clock is the local one until the server's has answered, and where it will not.
    meta: TargetMeta,
    /// When the clock was asked for, until it has answered.
    clock_asked: Option<Instant>,
    /// When it had.
    clock_read: Instant,
}

impl<'a> SampleRun<'a> {
    pub(super) fn new(server: &'a mut SampleState, connected: &'a mut Connection, sink: &'a mut dyn Sink) -> Self {
        if server.of_cluster {
            // Until all masters had answered, whole streams were held.
            server.streams.iter_mut().for_each(|state| server.memory.keep(state));
        }
        server.memory.recount(&server.streams);
        server.streams.iter_mut().for_each(StreamState::begin_sample);
        let sampled_at = SystemTime::now();
        Self {
            server,
            connected,
            sink,
            rest: Vec::new(),
            wanted: Vec::new(),
            detailed: Vec::new(),
            in_flight: VecDeque::new(),
            answered: None,
            meta: TargetMeta { server_now_ms: unix_millis(sampled_at), ..TargetMeta::at(sampled_at) },
            clock_asked: None,
            clock_read: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, mut budget: CountBudget) -> Result<TargetSample, SampleError> {
        self.clock_asked = Some(self.connected.ask_time(&self.server.commands).await?);
        if self.server.pacer.is_spread() || self.server.streams.is_empty() {
            self.read_clock().await?;
        }
        self.first_round().await?;
        let now = Instant::now();
        self.server.pacer.begin_unplanned(now);
        budget.begin(now);
        self.read_again().await?;
        self.later_rounds(budget).await?;
        for at in 0..self.server.streams.len() {
            self.hand_on(at);
        }
        let meta = TargetMeta {
            server: self.connected.server.clone(),
            refused: self.server.refused.iter().copied().collect(),
            ..self.meta.clone()
        };
        Ok(TargetSample { meta, streams: Vec::new(), redis_time: self.server.pacer.taken() })
    }

    /// Takes the answer of the clock, which comes before all others. Where there is no hurry it is waited for at once; else it
    /// would cost a round trip.
    async fn read_clock(&mut self) -> Result<(), SampleError> {
        let Some(asked) = self.clock_asked.take() else { return Ok(()) };
        let (server_now_ms, round_trip) = self.connected.time(asked).await?;
        self.clock_read = Instant::now();
        self.meta.round_trip = round_trip;
        self.server.pacer.measured_round_trip(round_trip);
        match server_now_ms {
            Some(now_ms) => {
                self.meta.server_now_ms = now_ms;
                self.server.refused.remove(&RefusedCommand::Time);
            }
            None => {
                self.server.refused.insert(RefusedCommand::Time);
            }
        }
        Ok(())
    }

    /// Everything that can be asked without knowing more than the last sample told.
    async fn first_round(&mut self) -> Result<(), SampleError> {
        let unprobed = self.not_to_be_probed();
        let may_check = self.may_check_unchanged();
        let (known, unknown): (Vec<usize>, Vec<usize>) = (0..self.server.streams.len())
            .filter(|&at| self.server.streams[at].may_be_asked())
            .partition(|&at| self.server.streams[at].may_be_asked_with_others(may_check));
        let most = self.server.pacer.batch_cost();
        let mut batches = VecDeque::new();
        let mut rest = known.as_slice();
        while !rest.is_empty() {
            let mut cost = 0;
            let fits = |at: &&usize| {
                cost += self.server.streams[**at].cost();
                cost <= most
            };
            let streams = rest.iter().take(STREAMS_PER_BATCH).take_while(fits).count().max(1);
            batches.push_back(&rest[..streams]);
            rest = &rest[streams..];
        }
        let mut recheck_refused = true;
        while !batches.is_empty() || !self.in_flight.is_empty() {
            if let Some(places) = batches.front().filter(|_| self.has_room()) {
                let mut batch = self.batch(places, &unprobed);
                if std::mem::take(&mut recheck_refused) {
                    batch.recheck_refused(&self.server.streams[places[0]].key);
                }
                self.send(batch).await?;
                batches.pop_front();
                continue;
            }
            let (batch, _) = self.receive().await?;
            for at in batch.streams() {
                self.was_read(at);
            }
        }
        self.read_large(&unknown).await
    }

    /// Streams of which only the groups are asked for: they changed last time, and where no script may be run, to see that they
    /// did so again would put an entry of theirs on the wire. And those that have not been read for long.
    fn not_to_be_probed(&self) -> BTreeSet<usize> {
        let mut unprobed = BTreeSet::new();
        let mut bytes: u64 = 0;
        for at in self.in_turn() {
            let state = &self.server.streams[at];
            let Some(kept) = &state.kept else { continue };
            if state.changed && self.connected.script.is_none() {
                bytes = bytes.saturating_add(kept.reply.payload_bytes);
                if bytes > MAX_PAYLOAD_BYTES && bytes > kept.reply.payload_bytes {
                    unprobed.insert(at);
                }
            }
            if state.checks >= MAX_CHECKS {
                unprobed.insert(at);
            }
        }
        unprobed
    }

    fn may(&self, command: RefusedCommand) -> bool {
        !self.server.refused.contains(&command)
    }

    fn transacts(&self) -> bool {
        self.server.isolated && self.may(RefusedCommand::Multi) && self.may(RefusedCommand::Exec)
    }

    fn may_check_unchanged(&self) -> bool {
        self.may(RefusedCommand::Xlen) && self.transacts()
    }

    /// All streams, the one that has waited longest first.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        (self.server.turn..self.server.streams.len()).chain(0..self.server.turn)
    }

    /// What is asked about a stream's groups.
    fn groups_asked(&self, state: &StreamState) -> Vec<GroupQuery> {
        let consumers = self.server.sampling.consumers && self.may(RefusedCommand::XinfoConsumers);
        state.groups_asked(consumers, self.may(RefusedCommand::Xpending))
    }

    /// The questions of some streams, each in the way that its entries call for.
    fn batch(&self, places: &[usize], unprobed: &BTreeSet<usize>) -> Batch {
        let mut batch = self.server.empty_batch().with_room_for(places.len());
        for &at in places {
            let state = &self.server.streams[at];
            let (key, groups) = (&state.key, self.groups_asked(state));
            let script = state.script(self.connected.script);
            match state.kept.as_ref().filter(|_| self.may_check_unchanged()) {
                Some(kept) => {
                    let probes = !unprobed.contains(&at) && self.may(RefusedCommand::Xrange);
                    batch.check_unchanged(at, key, groups, kept, probes, script);
                }
                None => batch.stream(at, key, groups, script),
            }
        }
        batch
    }

    /// Reads streams whose entries are large or of unknown size: a few at a time, and no more once they were large. The
    /// others wait for the next poll.
    async fn read_large(&mut self, places: &[usize]) -> Result<(), SampleError> {
        let mut bytes = 0;
        for places in places.chunks(STREAMS_PER_LARGE_BATCH) {
            if bytes > MAX_FIRST_PAYLOAD_BYTES {
                for &at in places {
                    self.server.streams[at].read = Some(Err(ReadOutcome::Error(ReadError::Deferred)));
                }
                continue;
            }
            let batch = self.batch(places, &BTreeSet::new());
            self.ask(vec![batch]).await?;
            let read = places.iter().filter_map(|&at| Some(self.server.streams[at].reading()?.reply.payload_bytes));
            bytes = read.fold(bytes, u64::saturating_add);
            for &at in places {
                self.was_read(at);
            }
        }
        Ok(())
    }

    /// A stream's first answers are here: asks for what is missing, or hands it on.
    fn was_read(&mut self, at: usize) {
        let state = &mut self.server.streams[at];
        match &state.read {
            // Read again once all are known.
            Some(Err(ReadOutcome::Refused(_) | ReadOutcome::Changed(_))) => {}
            Some(Ok(_)) => {
                state.changed = false;
                state.checks += 1;
                if self.ask_for_the_rest(at) {
                    return;
                }
                self.hand_on(at);
            }
            Some(Err(ReadOutcome::Error(_))) => {
                state.changed = false;
                self.hand_on(at);
            }
            None => {}
        }
    }

    /// Reads again what a command that was refused kept from being read, and streams with large entries that have changed:
    /// those that have waited longest, up to [`MAX_PAYLOAD_BYTES`]. Of the others only the length and the groups are told.
    async fn read_again(&mut self) -> Result<(), SampleError> {
        let (mut bytes, mut first_left_out): (u64, _) = (0, None);
        let mut again = Vec::new();
        for at in self.in_turn() {
            let state = &mut self.server.streams[at];
            let expected = state.payload_bytes();
            match &mut state.read {
                None | Some(Ok(_) | Err(ReadOutcome::Error(_))) => continue,
                Some(Err(ReadOutcome::Refused(_))) => state.changed = false,
                Some(Err(ReadOutcome::Changed(checked))) => {
                    state.changed = true;
                    state.checks += 1;
                    if bytes > 0 && bytes.saturating_add(expected) > MAX_PAYLOAD_BYTES {
                        first_left_out = first_left_out.or(Some(at));
                        if let Some(checked) = checked.take() {
                            state.read = Some(Ok(*checked));
                        }
                        continue;
                    }
                    bytes = bytes.saturating_add(expected);
                }
            }
            state.checks = 0;
            again.push(at);
        }
        self.server.turn = first_left_out.unwrap_or(0);
        self.read_whole(&again).await?;
        for _ in 0..MAX_READINGS {
            let streams = self.server.streams.iter().enumerate();
            let moved = streams.filter(|(_, stream)| matches!(stream.read, Some(Err(ReadOutcome::Refused(_)))));
            let moved: Vec<usize> = moved.map(|(at, _)| at).collect();
            if moved.is_empty() {
                break;
            }
            self.read_whole(&moved).await?;
        }
        Ok(())
    }

    /// Reads some streams whole, and hands on those of which nothing is missing.
    async fn read_whole(&mut self, places: &[usize]) -> Result<(), SampleError> {
        for places in places.chunks(STREAMS_PER_LARGE_BATCH) {
            let mut batch = self.server.empty_batch();
            for &at in places {
                let state = &self.server.streams[at];
                let groups = self.groups_asked(state);
                batch.stream(at, &state.key, groups, state.script(self.connected.script));
            }
            self.ask(vec![batch]).await?;
            for &at in places {
                if let Some(Ok(_)) = self.server.streams[at].read
                    && !self.ask_for_the_rest(at)
                {
                    self.hand_on(at);
                }
            }
        }
        Ok(())
    }

    /// Asks batch after batch, and reads the answers as they come, while Redis works at the later ones.
    async fn ask(&mut self, batches: Vec<Batch>) -> Result<Vec<Observation>, SampleError> {
        let mut observations = Vec::new();
        let mut unsent = VecDeque::from(batches);
        while !unsent.is_empty() || !self.in_flight.is_empty() {
            if self.has_room()
                && let Some(batch) = unsent.pop_front()
            {
                self.send(batch).await?;
                continue;
            }
            observations.extend(self.receive().await?.1);
        }
        Ok(observations)
    }

    /// Hands a stream on, with what follows for its lags, and keeps what the next sample needs.
    fn hand_on(&mut self, at: usize) {
        let Some(read) = self.server.streams[at].read.take() else { return };
        let server = &mut *self.server;
        let state = &mut server.streams[at];
        let read = match read {
            Ok(reading) => {
                let elapsed = u64::try_from(self.clock_read.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok(resolve(state, at, reading, self.meta.server_now_ms.saturating_add(elapsed)))
            }
            Err(unread) => {
                state.forget_all();
                let error = unread.into_error();
                Err(if server.of_cluster { error } else { error.outside_a_cluster() })
            }
        };
        // Whole streams of a cluster are held until all masters have answered.
        if !server.of_cluster {
            server.memory.keep(state);
        }
        if let Err(error) = &read
            && self.server.was_found(at)
            && error.is_gone()
        {
            self.server.gone.push(self.server.streams[at].key.clone());
            self.sink.gone(at);
            return;
        }
        self.sink.stream(at, read);
    }
}

impl Drop for SampleRun<'_> {
    /// However a sample ends, nothing of what it read is left behind.
    fn drop(&mut self) {
        self.server.streams.iter_mut().for_each(|stream| stream.read = None);
    }
}
