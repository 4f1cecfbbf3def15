//! One Redis server, one multiplexed connection, one pipelined round trip per sample.
//!
//! The groups seen last time are asked about together with their stream. What only this sample could tell (groups that
//! are new, the entry after a cursor that moved to mid stream, lags that have to be counted, a stream to be read without
//! a command that Redis refuses) is asked for in a second round trip. Only counts that are longer than a page take more,
//! as many as the budget of a poll allows.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, timeout_at};

use super::batch::{Batch, Finding, ITS_TURN_COMES, PageAsked, Read, Unread};
use super::connection::{Clock, Connected};
use super::counting::{Budget, Wanted};
use super::dial::Dial;
use super::lane::Lane;
use crate::lag::Lag;
use crate::lag::ledger::{CountRange, Resolved};
use crate::model::sample::{GroupSample, ReadError, RefusedCommand, SampleError, StreamSample, TargetSample};
use crate::model::{FailureReason, GroupName, GroupSelection, StreamKey, rearranged};
use crate::self_metrics::RedisCommands;

/// Streams whose questions go out as one message, and whose answers are read as one.
const STREAMS_PER_BATCH: usize = 64;

/// Messages sent and not yet answered, so that the replies held in memory are bounded. With some 600 commands each,
/// Redis never runs dry: from 512 commands in flight on, a sample is as quick as with all of them.
const BATCHES_IN_FLIGHT: usize = 4;

/// Bytes of first and last entries that a poll reads, where they are large: 100 ms of Redis's time with entries of 1 MiB,
/// up to four times that with larger ones. Streams beyond it are read at one of the next polls, in turn.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024 * 1024;

/// The same while nobody knows yet how large they are: once.
const MAX_FIRST_PAYLOAD_BYTES: u64 = 4 * MAX_PAYLOAD_BYTES;

/// Streams that are read at once then.
const STREAMS_PER_LOOK: usize = 16;

/// Polls in a row in which a stream with large entries is only asked whether it changed; then it is read all the same. A
/// stream that was made anew can look the same, though hardly with the same groups.
const MAX_GLANCES: u32 = 12;

/// What to sample, and what it may cost.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// The streams, in order.
    pub streams: Vec<StreamKey>,
    /// The monitored groups.
    pub selection: GroupSelection,
    /// The time between samples.
    pub interval: Duration,
    /// Entries that may be read per second of the interval, to count lags that nothing else tells.
    pub count_budget: u64,
}

/// Samples one standalone Redis.
pub struct Standalone {
    dial: Dial,
    sampling: Sampling,
    commands: RedisCommands,
    /// `None` before the first sample and after any failure: a connection that failed once is not used again, because
    /// answers to questions that were given up may still come on it.
    connection: Option<Connected>,
    /// What is kept of each stream, in the order of the configuration.
    lanes: Vec<Lane>,
    /// The stream whose turn it is to be read first, where not all can be read at once.
    turn: usize,
    refused: BTreeSet<RefusedCommand>,
    /// Whether a replica is the wrong one to ask.
    masters_only: bool,
    /// Whether the streams are on their way to this node of a cluster.
    asking: bool,
}

impl Standalone {
    /// A source for these streams. It connects at the first sample.
    #[must_use]
    pub fn new(dial: Dial, sampling: Sampling, commands: RedisCommands) -> Self {
        let lanes = sampling.streams.iter().map(|_| Lane::default()).collect();
        let (connection, refused) = (None, BTreeSet::new());
        Self { dial, sampling, commands, connection, lanes, turn: 0, refused, masters_only: false, asking: false }
    }

    /// The same, where a server that has become a replica is to be refused.
    pub(super) fn masters_only(self) -> Self {
        Self { masters_only: true, ..self }
    }

    /// Samples this from now on, of another server where there is one. What is known of the streams that stay is kept.
    pub fn follow(&mut self, sampling: Sampling, another: Option<Dial>) {
        self.lanes = rearranged(&self.sampling.streams, std::mem::take(&mut self.lanes), &sampling.streams);
        (self.sampling, self.turn) = (sampling, 0);
        if let Some(dial) = another {
            (self.dial, self.connection) = (dial, None);
            self.refused.clear();
        }
    }

    /// Takes one sample, connecting first where there is no connection or the kept one broke, all of it within `timeout`.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read; a single stream's trouble is inside the sample.
    pub async fn sample(&mut self, timeout: Duration) -> Result<TargetSample, SampleError> {
        let began = Instant::now();
        let deadline = began + timeout;
        let Sampling { count_budget, interval, .. } = self.sampling;
        let budget = Budget::new(count_budget, interval, began, timeout);
        // Taken out for the time of the sample: a failure, or being dropped half way, leaves none behind.
        if let Some(kept) = self.connection.take() {
            let sampled = timeout_at(deadline, self.sample_over(&kept, budget)).await;
            match sampled.map_err(|_| late("no answer", timeout))? {
                Ok(sample) => {
                    self.connection = Some(kept);
                    return Ok(sample);
                }
                // A restart closes kept connections; whether Redis answers, a new one tells.
                Err(error) if error.reason == FailureReason::Io => {}
                Err(error) => return Err(error),
            }
        }
        let new = self.connect(deadline, timeout).await?;
        let sampled = timeout_at(deadline, self.sample_over(&new, budget)).await;
        let sample = sampled.map_err(|_| late("no answer", timeout))??;
        self.connection = Some(new);
        Ok(sample)
    }

    async fn connect(&mut self, deadline: Instant, timeout: Duration) -> Result<Connected, SampleError> {
        // Nothing that is remembered need be true of who answers next: a replica, or the same server from an old file.
        self.lanes.iter_mut().for_each(Lane::forget);
        let connecting = async {
            let new = Connected::new(&mut self.dial, deadline, &self.commands).await?;
            if self.masters_only {
                new.must_be_master(&self.commands).await?;
            }
            Ok(new)
        };
        timeout_at(deadline, connecting).await.map_err(|_| late("no connection", timeout))?
    }

    async fn sample_over(&mut self, connected: &Connected, budget: Budget) -> Result<TargetSample, SampleError> {
        let sampled_at = SystemTime::now();
        connected.begin_sample();
        let mut streams = Vec::new();
        streams.resize_with(self.lanes.len(), || Err(Unread::Error(ReadError("not asked".to_owned()))));
        let clock = self.first_round(connected, &mut streams).await?;
        self.later_rounds(connected, &mut streams, budget).await?;
        let now_ms = clock.server_now_ms.unwrap_or_else(|| milliseconds(sampled_at));
        for (lane, stream) in self.lanes.iter_mut().zip(&mut streams) {
            settle(lane, stream, now_ms);
        }
        let streams = streams.into_iter().map(|stream| stream.map_err(Unread::into_error));
        Ok(TargetSample {
            sampled_at,
            server_now_ms: now_ms,
            server: connected.server.clone(),
            round_trip: clock.round_trip,
            streams: self.sampling.streams.iter().cloned().zip(streams).collect(),
            refused: self.refused.iter().copied().collect(),
            nodes: Vec::new(),
        })
    }

    /// Asks for streams that are not its own: of a cluster whose slots have moved, or are `asking` to. Nothing is remembered of
    /// them, and nothing forgotten of its own.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read.
    pub(super) async fn sample_guests(
        &mut self,
        streams: Vec<StreamKey>,
        asking: bool,
        timeout: Duration,
    ) -> Result<TargetSample, SampleError> {
        let began = Instant::now();
        let deadline = began + timeout;
        let Sampling { count_budget, interval, .. } = self.sampling;
        let sampling = Sampling { streams, ..self.sampling.clone() };
        let mut guests = Self::new(self.dial.clone(), sampling, self.commands.clone());
        guests.refused.clone_from(&self.refused);
        guests.asking = asking;
        let connected = match self.connection.take() {
            Some(kept) => kept,
            None => self.connect(deadline, timeout).await?,
        };
        let budget = Budget::new(count_budget, interval, began, timeout);
        let sampled = timeout_at(deadline, guests.sample_over(&connected, budget)).await;
        let sample = sampled.map_err(|_| late("no answer", timeout))??;
        self.connection = Some(connected);
        Ok(sample)
    }

    /// Nothing asked yet, but for what Redis refuses.
    fn empty_batch(&self) -> Batch {
        Batch::without(&self.refused).asking(self.asking)
    }

    /// Everything that can be asked without knowing more than the last sample told.
    async fn first_round(&mut self, connected: &Connected, streams: &mut [Read]) -> Result<Clock, SampleError> {
        let unprobed = self.not_to_be_probed(connected);
        let (known, unknown): (Vec<usize>, Vec<usize>) =
            (0..self.lanes.len()).partition(|&at| self.lanes[at].may_be_asked_with_others(self.may_glance()));
        let mut batches: Vec<Batch> =
            known.chunks(STREAMS_PER_BATCH).map(|places| self.batch(connected, places, &unprobed)).collect();
        if let (Some(batch), Some(&at)) = (batches.first_mut(), known.first()) {
            batch.probe(&self.sampling.streams[at]);
        }
        let commands = self.commands.clone();
        let (clock, answered) = tokio::join!(connected.time(&commands), self.ask(connected, &batches, streams));
        // What is wrong with the first reply is the cause of what is wrong with those after it.
        let clock = clock?;
        answered?;
        match clock.server_now_ms {
            Some(_) => self.refused.remove(&RefusedCommand::Time),
            None => self.refused.insert(RefusedCommand::Time),
        };
        self.look(connected, &unknown, streams).await?;
        Ok(clock)
    }

    /// Streams of which only the groups are asked for: they changed last time, and where no script may be run, to see that they
    /// did so again would put an entry of theirs on the wire. And those that have not been read for long.
    fn not_to_be_probed(&self, connected: &Connected) -> BTreeSet<usize> {
        let mut unprobed = BTreeSet::new();
        let mut bytes: u64 = 0;
        for at in self.in_turn() {
            let lane = &self.lanes[at];
            let Some(kept) = &lane.kept else { continue };
            if lane.changed && connected.script.is_none() {
                bytes = bytes.saturating_add(kept.payload_bytes);
                if bytes > MAX_PAYLOAD_BYTES && bytes > kept.payload_bytes {
                    unprobed.insert(at);
                }
            }
            if lane.glances >= MAX_GLANCES {
                unprobed.insert(at);
            }
        }
        unprobed
    }

    fn may_glance(&self) -> bool {
        !self.refused.contains(&RefusedCommand::Xlen) && !self.refused.contains(&RefusedCommand::Multi)
    }

    /// All streams, the one that has waited longest first.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        (self.turn..self.lanes.len()).chain(0..self.turn)
    }

    /// The questions of some streams, each in the way that its entries call for.
    fn batch(&self, connected: &Connected, places: &[usize], unprobed: &BTreeSet<usize>) -> Batch {
        let mut batch = self.empty_batch();
        for &at in places {
            let (lane, key) = (&self.lanes[at], &self.sampling.streams[at]);
            let groups = lane.ledger.groups().cloned().collect();
            match lane.kept.as_ref().filter(|_| self.may_glance()) {
                Some(kept) => {
                    batch.glance(at, key, groups, kept, !unprobed.contains(&at), lane.script(connected.script));
                }
                None => batch.stream(at, key, groups, lane.script(connected.script)),
            }
        }
        batch
    }

    /// Reads streams whose entries are large or of unknown size: a few at a time, and no more once they were large. The
    /// others wait for the next poll.
    async fn look(&mut self, connected: &Connected, places: &[usize], streams: &mut [Read]) -> Result<(), SampleError> {
        let mut bytes = 0;
        for places in places.chunks(STREAMS_PER_LOOK) {
            if bytes > MAX_FIRST_PAYLOAD_BYTES {
                for &at in places {
                    streams[at] = Err(Unread::Error(ReadError(ITS_TURN_COMES.to_owned())));
                }
                continue;
            }
            let batch = self.batch(connected, places, &BTreeSet::new());
            self.ask(connected, &[batch], streams).await?;
            let read = places.iter().filter_map(|&at| Some(streams[at].as_ref().ok()?.payload_bytes));
            bytes = read.fold(bytes, u64::saturating_add);
        }
        Ok(())
    }

    /// Reads again what a command that was refused kept from being read, and streams with large entries that have changed:
    /// those that have waited longest, up to [`MAX_PAYLOAD_BYTES`]. Of the others only the length and the groups are told.
    async fn read_again(&mut self, connected: &Connected, streams: &mut [Read]) -> Result<(), SampleError> {
        let (mut bytes, mut first_left_out): (u64, _) = (0, None);
        let mut batch = self.empty_batch();
        for at in self.in_turn() {
            let lane = &mut self.lanes[at];
            lane.changed = matches!(streams[at], Err(Unread::Changed(_)));
            lane.glances += 1;
            match &mut streams[at] {
                Ok(_) | Err(Unread::Error(_)) => continue,
                Err(Unread::Refused(_)) => {}
                Err(Unread::Changed(glanced)) => {
                    let expected = lane.payload_bytes();
                    if bytes > 0 && bytes.saturating_add(expected) > MAX_PAYLOAD_BYTES {
                        first_left_out = first_left_out.or(Some(at));
                        if let Some(glanced) = glanced.take() {
                            streams[at] = Ok(*glanced);
                        }
                        continue;
                    }
                    bytes = bytes.saturating_add(expected);
                }
            }
            lane.glances = 0;
            let groups = lane.ledger.groups().cloned().collect();
            batch.stream(at, &self.sampling.streams[at], groups, lane.script(connected.script));
        }
        self.turn = first_left_out.unwrap_or(0);
        if !batch.is_empty() {
            self.ask(connected, &[batch], streams).await?;
        }
        Ok(())
    }

    /// What only the first round could tell. Nothing is sent where nothing is missing.
    async fn later_rounds(
        &mut self,
        connected: &Connected,
        streams: &mut [Read],
        mut budget: Budget,
    ) -> Result<(), SampleError> {
        self.read_again(connected, streams).await?;
        let mut wanted = Vec::new();
        let mut batches = Vec::new();
        for (number, streams) in streams.chunks_mut(STREAMS_PER_BATCH).enumerate() {
            let mut batch = self.empty_batch();
            for (at, stream) in (number * STREAMS_PER_BATCH..).zip(streams) {
                self.ask_for_the_rest(connected, &mut batch, at, stream, &mut wanted);
            }
            batches.push(batch);
        }
        loop {
            let pages = budget.round(&mut wanted, Instant::now());
            self.add_counts(connected, &mut batches, &pages, streams);
            // A count that must wait does not bring the first entry along.
            for wanted in wanted.iter_mut().filter(|wanted| wanted.asked == 0) {
                if let Some(cursor) = wanted.first.take() {
                    let (lane, key) = (&self.lanes[wanted.at], &self.sampling.streams[wanted.at]);
                    let batch = batch_for(&mut batches, wanted.at);
                    batch.first(wanted.at, key, wanted.group, cursor, lane.script(connected.script));
                }
            }
            batches.retain(|batch| !batch.is_empty());
            if batches.is_empty() {
                break;
            }
            let findings = self.ask(connected, &batches, streams).await?;
            let another = self.apply(findings, streams, &mut budget);
            wanted.retain(|wanted| self.rest(wanted, streams).is_some() && !another.contains(&wanted.at));
            let mut batch = self.empty_batch();
            for at in another {
                if let Ok(stream) = &streams[at] {
                    self.ask_for_lags(connected, &mut batch, at, stream, &mut wanted);
                }
            }
            batches = vec![batch];
        }
        Ok(())
    }

    fn ask_for_the_rest(
        &mut self,
        connected: &Connected,
        batch: &mut Batch,
        at: usize,
        read: &mut Read,
        wanted: &mut Vec<Wanted>,
    ) {
        let (lane, key) = (&mut self.lanes[at], &self.sampling.streams[at]);
        let stream = match read {
            Ok(stream) if stream.carried => return,
            Ok(stream) => stream,
            Err(_) => return,
        };
        lane.sampled(stream);
        let selection = &self.sampling.selection;
        let is_new = |name: &&GroupName| !lane.ledger.groups().any(|known| known == *name);
        let new = monitored(stream, selection).map(|(_, group)| &group.name).filter(is_new).cloned().collect();
        batch.details(at, key, new);
        let continuity = lane.ledger.open(stream, monitored(stream, selection).map(|(_, group)| group));
        let script = lane.script(connected.script);
        for (place, group) in monitored(stream, selection) {
            // Pending entries are not trimmed with the stream: those before its first entry are gone.
            if let (Some(oldest), Some(first)) = (group.oldest_pending, stream.first)
                && oldest < first
            {
                batch.ghosts(at, key, (place, &group.name), first);
            }
        }
        stream.continuity = continuity;
        self.ask_for_lags(connected, batch, at, stream, wanted);
        let (lane, key) = (&mut self.lanes[at], &self.sampling.streams[at]);
        for witness in lane.ledger.witnesses() {
            if !batch.witness(at, key, witness, script) {
                lane.ledger.witness_is_gone();
            }
        }
    }

    /// What is missing to know the lags of a stream's groups, in entries and in time.
    fn ask_for_lags(
        &mut self,
        connected: &Connected,
        batch: &mut Batch,
        at: usize,
        stream: &StreamSample,
        wanted: &mut Vec<Wanted>,
    ) {
        let (lane, key, selection) = (&mut self.lanes[at], &self.sampling.streams[at], &self.sampling.selection);
        let script = lane.script(connected.script);
        let (entry_bytes, most_bytes) = (lane.entry_bytes(), lane.most_bytes());
        for (place, group) in monitored(stream, selection) {
            let ask = lane.ledger.ask(stream, group, entry_bytes);
            let first = ask.first.filter(|_| ask.comes_along);
            if let Some(cursor) = ask.first.filter(|_| !ask.comes_along) {
                batch.first(at, key, place, cursor, script);
            }
            if let Some(uncertainty) = ask.count {
                wanted.push(Wanted { at, group: place, uncertainty, entry_bytes, most_bytes, first, asked: 0 });
            }
        }
    }

    /// Adds pages to the batches, those of one stream together.
    fn add_counts(&self, connected: &Connected, batches: &mut [Batch], pages: &[(Wanted, u64)], streams: &[Read]) {
        let mut by_stream: BTreeMap<usize, Vec<PageAsked>> = BTreeMap::new();
        for (wanted, limit) in pages {
            if let Some(range) = self.rest(wanted, streams) {
                let page = PageAsked { group: wanted.group, range, limit: *limit, most_bytes: wanted.most_bytes };
                by_stream.entry(wanted.at).or_default().push(page);
            }
        }
        for (at, pages) in by_stream {
            let lane = &self.lanes[at];
            if let Ok(stream) = &streams[at] {
                let key = &self.sampling.streams[at];
                batch_for(batches, at).counts(at, key, stream, pages, lane.is_large(), lane.script(connected.script));
            }
        }
    }

    /// What is left of a count.
    fn rest(&self, wanted: &Wanted, streams: &[Read]) -> Option<CountRange> {
        let stream = streams[wanted.at].as_ref().ok()?;
        self.lanes[wanted.at].ledger.rest(&stream.groups[wanted.group].name)
    }

    /// Takes what was found into the ledgers, and what it cost out of the budget. Answers with the streams that turned out
    /// to be others than they were.
    fn apply(&mut self, findings: Vec<Finding>, streams: &[Read], budget: &mut Budget) -> Vec<usize> {
        let mut another = Vec::new();
        for finding in findings {
            match finding {
                Finding::First { at, group, id } => {
                    if let Ok(stream) = &streams[at] {
                        self.lanes[at].ledger.found_first(&stream.groups[group].name, id);
                    }
                }
                Finding::WitnessGone { at } => {
                    if !another.contains(&at) {
                        self.lanes[at].ledger.witness_is_gone();
                        another.push(at);
                    }
                }
                Finding::Page(found) => {
                    let (lane, read) = (&mut self.lanes[found.at], found.page.entries + found.page.beyond);
                    budget.settle(found.asked.limit, read, found.asked.most_bytes, found.bytes);
                    self.commands.counted(read);
                    lane.read_page(read, found.bytes);
                    if let Ok(stream) = &streams[found.at] {
                        lane.ledger.counted(&stream.groups[found.asked.group].name, &found.page, &found.after);
                    }
                }
            }
        }
        another
    }

    /// Sends batch after batch without waiting for answers, up to [`BATCHES_IN_FLIGHT`], and reads the answers as they
    /// come, while Redis works at the later ones.
    async fn ask(
        &mut self,
        connected: &Connected,
        batches: &[Batch],
        streams: &mut [Read],
    ) -> Result<Vec<Finding>, SampleError> {
        let mut findings = Vec::new();
        let commands = self.commands.clone();
        let send = |batch| connected.send(batch, &commands);
        let mut unsent = batches.iter();
        let mut answers: FuturesOrdered<_> = unsent.by_ref().take(BATCHES_IN_FLIGHT).map(send).collect();
        for batch in batches {
            // There are as many answers as batches.
            let Some(replies) = answers.next().await else { break };
            answers.extend(unsent.next().map(send));
            batch.read(replies?, streams, &mut findings, &mut self.refused)?;
        }
        Ok(findings)
    }
}

/// The monitored groups of a stream, each with its place in the sample.
fn monitored<'a>(
    stream: &'a StreamSample,
    selection: &GroupSelection,
) -> impl Iterator<Item = (usize, &'a GroupSample)> {
    stream.groups.iter().enumerate().filter(|(_, group)| selection.contains(&group.name))
}

/// The batch for a stream: its own in the second round, the only one there is in those after it.
fn batch_for(batches: &mut [Batch], at: usize) -> &mut Batch {
    let last = batches.len() - 1;
    &mut batches[(at / STREAMS_PER_BATCH).min(last)]
}

/// Resolves the lags of a stream that was read, and keeps what the next sample needs.
fn settle(lane: &mut Lane, stream: &mut Read, now_ms: u64) {
    if let Ok(stream) = stream {
        stream.now_ms = now_ms;
    }
    match stream {
        Ok(stream) if stream.carried => {
            let lag = Lag::within_length(stream.length);
            for group in &mut stream.groups {
                group.resolved = Some(Resolved { lag, ..Resolved::default() });
            }
        }
        Ok(stream) => {
            let mut groups = std::mem::take(&mut stream.groups);
            for group in &mut groups {
                group.resolved = lane.ledger.resolve(stream, group);
            }
            stream.groups = groups;
            stream.may_be_carried = lane.is_large();
            lane.kept = lane.is_large().then(|| stream.clone());
        }
        Err(_) => lane.forget_all(),
    }
}

fn late(what: &str, timeout: Duration) -> SampleError {
    let detail = format!("{what} within {}", humantime::format_duration(timeout));
    SampleError { reason: FailureReason::Timeout, detail }
}

fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
