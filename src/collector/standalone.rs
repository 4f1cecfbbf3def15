//! One Redis server over one connection, asked in one pipelined round per sample where nothing more is missing.
//!
//! What a sample asks, and in which rounds, is in [`sample`](crate::collector::sample); here is when a connection is made, kept and given up, and what is
//! remembered between samples.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout_at};

use crate::collector::count_budget::CountBudget;
use crate::collector::pacer::Pacer;
use crate::collector::sample::SampleRun;
use crate::collector::sample_state::{SampleState, SamplingConfig};
use crate::collector::scanner::Scanner;
use crate::collector::stream_state::{DecodeMemory, StreamState};
use crate::model::sample::{ReadError, RefusedCommand, SampleError, Search, Sink, StreamSample, TargetSample};
use crate::model::{FailureReason, StreamKey, StreamSelection, text};
use crate::redis::connection::Connection;
use crate::redis::connector::Endpoint;
use crate::redis::refusals::server_wide;
use crate::redis::replies;
use crate::sys::own_metrics::RedisCommands;

/// The share of a poll's deadline after which no more streams are looked for: where each call takes long to come back, the search
/// takes more polls, and not the sample's time.
const DISCOVERY_SHARE: u32 = 4;

/// An answer about one stream, or to one SCAN, that is so large when a sample breaks off is the reason: reading it takes longer than
/// all the rest.
const LARGE_ANSWER_BYTES: u64 = 16 * 1024 * 1024;

/// The same where the answer took more memory than there is, or than a sample may read.
const EXCESSIVE_ANSWER_BYTES: u64 = 1024 * 1024;

/// What is said where a sample ended while it waited for memory.
const NO_MEMORY: &str = "no memory for a large reply while other servers send theirs (see --limit.memory-for-replies)";

/// Samples one standalone Redis.
pub struct Standalone {
    endpoint: Endpoint,
    /// `None` before the first sample and after any failure: a connection that failed once is not used again, because
    /// answers to questions that were given up may still come on it.
    connection: Option<Connection>,
    pub(super) state: SampleState,
    /// Whether a replica is the wrong one to ask.
    masters_only: bool,
    scanner: Scanner,
    /// Whether the answer to SCAN is waited for.
    is_scanning: bool,
    /// From when the time counts that discovery is told.
    started: Instant,
    /// When the newest complete pass of it ended, by the clock of then.
    searched_at: SystemTime,
    /// The memory that streams of others take until the next sample.
    redirected_memory: Vec<DecodeMemory>,
}

impl Standalone {
    /// A source for these streams. It connects at the first sample.
    #[must_use]
    pub fn new(endpoint: Endpoint, sampling: SamplingConfig, commands: RedisCommands) -> Self {
        let scanner = Scanner::new(sampling.streams.clone(), sampling.discovery_interval, sampling.stream_limit);
        Self {
            endpoint,
            connection: None,
            state: SampleState::new(scanner.streams(), sampling, commands),
            masters_only: false,
            scanner,
            is_scanning: false,
            started: Instant::now(),
            searched_at: SystemTime::UNIX_EPOCH,
            redirected_memory: Vec::new(),
        }
    }

    /// The same, where a server that has become a replica is to be refused.
    pub(super) fn masters_only(self) -> Self {
        Self { masters_only: true, ..self }
    }

    /// The same, as one node of a cluster: what it says of streams that others have is no news.
    pub(super) fn of_cluster(mut self) -> Self {
        self.state.of_cluster = true;
        self
    }

    /// Samples this from now on, of another server where there is one. What is known of the streams that stay is kept.
    pub fn reconfigure(&mut self, sampling: SamplingConfig, another: Option<Endpoint>) {
        self.scanner.reconfigure(sampling.streams.clone(), sampling.discovery_interval, sampling.stream_limit);
        if self.scanner.changed() {
            self.state.sample_these(self.scanner.streams());
        }
        if sampling.streams.patterns().is_empty() {
            // Nothing asks for it any more, so nothing would take it back.
            self.state.refused.remove(&RefusedCommand::Scan);
        }
        self.state.sampling = sampling;
        if let Some(endpoint) = another {
            (self.endpoint, self.connection, self.state.pacer) = (endpoint, None, Pacer::default());
            self.state.refused.clear();
        }
    }

    /// Takes one sample, connecting first where there is no connection or the kept one broke, all of it within `timeout`.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read; a single stream's trouble is inside the sample.
    pub async fn sample(&mut self, timeout: Duration) -> Result<TargetSample, SampleError> {
        let mut collected = Collected::default();
        let sample = self.sample_into(timeout, &mut collected).await?;
        Ok(TargetSample { streams: collected.streams(), ..sample })
    }

    /// The same, but each stream is handed to the sink as it is read, and is not in the sample.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read; then nothing counts that the sink was told.
    pub async fn sample_into(&mut self, timeout: Duration, sink: &mut dyn Sink) -> Result<TargetSample, SampleError> {
        let began = Instant::now();
        let deadline = began + timeout;
        let SamplingConfig { count_budget, interval, .. } = self.state.sampling;
        let budget = CountBudget::new(count_budget, interval, began, timeout);
        self.begin_sample();
        let mut knew_of_exec = self.state.refused.contains(&RefusedCommand::Exec);
        // Taken out for the time of the sample: a failure, or being dropped half way, leaves none behind.
        let mut kept = self.connection.take();
        loop {
            let (mut connected, was_kept) = match kept.take() {
                Some(kept) => (kept, true),
                None => (self.connect(deadline, timeout).await?, false),
            };
            let sampling = self.sample_over(&mut connected, budget, timeout, sink);
            let Ok(sampled) = timeout_at(deadline, sampling).await else {
                if connected.is_waiting_for_memory() {
                    return Err(late(NO_MEMORY, timeout));
                }
                self.leave_out_what_is_too_much(&connected, LARGE_ANSWER_BYTES);
                return Err(self.unfinished(timeout));
            };
            match sampled {
                Ok(sample) => {
                    connected.end_sample();
                    self.connection = Some(connected);
                    return Ok(sample);
                }
                // A restart closes kept connections; whether Redis answers, a new one tells.
                Err(error) if was_kept && error.reason == FailureReason::Io => {}
                // The connection is lost to a transaction that nothing ends. Another one will do without.
                Err(_) if !knew_of_exec && self.state.refused.contains(&RefusedCommand::Exec) => knew_of_exec = true,
                Err(error)
                    if error.reason == FailureReason::Protocol
                        && self.leave_out_what_is_too_much(&connected, EXCESSIVE_ANSWER_BYTES) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where one answer was large when a sample broke off, of so many bytes or more, that is left out of the next ones, so that one stream
    /// does not keep all others from being read. Whether there was one.
    fn leave_out_what_is_too_much(&mut self, connected: &Connection, large: u64) -> bool {
        let (whole, bytes) = connected.progress();
        if bytes < large {
            return false;
        }
        if std::mem::take(&mut self.is_scanning) {
            return self.scanner.told_too_much();
        }
        let Some(at) = self
            .state
            .awaited
            .get(self.state.awaited.partition_point(|(end, _)| *end <= whole))
            .and_then(|(_, at)| *at)
        else {
            return false;
        };
        self.state.leave_out(at, bytes)
    }

    /// Why a sample has no more time: a Redis that is asked for too much is another trouble than one that is silent.
    fn unfinished(&self, timeout: Duration) -> SampleError {
        let what = if self.state.pacer.has_answers() { "answers, but not to all questions," } else { "no answer" };
        late(what, timeout)
    }

    async fn connect(&mut self, deadline: Instant, timeout: Duration) -> Result<Connection, SampleError> {
        // Nothing that is remembered need be true of who answers next: a replica, or the same server from an old file.
        self.state.streams.iter_mut().for_each(StreamState::forget);
        self.scanner.interrupted();
        let connecting = async {
            let mut new = Connection::new(&mut self.endpoint, deadline, &self.state.commands).await?;
            if self.masters_only {
                new.must_be_master(&self.state.commands).await?;
            }
            Ok(new)
        };
        timeout_at(deadline, connecting).await.map_err(|_| late("no connection", timeout))?
    }

    /// Asks for streams that are not its own: of a cluster whose slots have moved, or are `asking` to. Nothing is remembered of
    /// them, and nothing forgotten of its own.
    ///
    /// # Errors
    /// Where Redis as a whole could not be read.
    pub(super) async fn sample_redirected(
        &mut self,
        streams: Vec<StreamKey>,
        asking: bool,
        timeout: Duration,
    ) -> Result<TargetSample, SampleError> {
        let began = Instant::now();
        let deadline = began + timeout;
        let SamplingConfig { count_budget, interval, .. } = self.state.sampling;
        let streams = StreamSelection::default().and(streams, []);
        // As quick as can be: what was asked for elsewhere has taken its time already.
        let sampling = SamplingConfig { streams, stream_limit: usize::MAX, spread: 0.0, ..self.state.sampling.clone() };
        let mut other = Self::new(self.endpoint.clone(), sampling, self.state.commands.clone()).of_cluster();
        other.state.refused.clone_from(&self.state.refused);
        other.state.asking = asking;
        let mut connected = match self.connection.take() {
            Some(kept) => kept,
            None => self.connect(deadline, timeout).await?,
        };
        let budget = CountBudget::new(count_budget, interval, began, timeout);
        let mut collected = Collected::default();
        let sampling = other.sample_over(&mut connected, budget, timeout, &mut collected);
        let sample = timeout_at(deadline, sampling).await.map_err(|_| other.unfinished(timeout))??;
        connected.end_sample();
        self.connection = Some(connected);
        self.redirected_memory.push(other.state.memory);
        Ok(TargetSample { streams: collected.streams(), ..sample })
    }

    /// A sample begins that may end before this server is asked.
    pub(super) fn begin_sample(&mut self) {
        self.state.pacer.begin();
        self.redirected_memory.clear();
    }

    /// What the newest sample took of Redis's time until it ended, well or not.
    pub(super) fn redis_time(&self) -> Duration {
        self.state.pacer.taken()
    }

    /// The streams of the newest sample: those that are named, then those that were found.
    pub(super) fn streams(&self) -> impl ExactSizeIterator<Item = &StreamKey> {
        self.state.keys()
    }

    /// A stream that another server had is to be found here.
    pub(super) fn add_found(&mut self, key: StreamKey) {
        self.scanner.add_found(key);
    }

    /// A stream that was found here has gone to another server.
    pub(super) fn remove_found(&mut self, key: &StreamKey) {
        self.scanner.is_gone(key);
    }

    async fn sample_over(
        &mut self,
        connected: &mut Connection,
        budget: CountBudget,
        timeout: Duration,
        sink: &mut dyn Sink,
    ) -> Result<TargetSample, SampleError> {
        connected.begin_sample();
        self.is_scanning = false;
        self.state.awaited.clear();
        self.state.isolated = connected.server.isolates_transactions();
        // Of a sample that was given up half way.
        self.forget_gone();
        self.discover(connected, timeout / DISCOVERY_SHARE).await?;
        sink.begin(&self.state.keys().cloned().collect::<Vec<_>>());
        let spread = self.state.sampling.interval.min(timeout).mul_f64(self.state.sampling.spread);
        self.state.pacer.spread(spread, self.state.streams.iter().map(StreamState::cost).sum());
        let sample = SampleRun::new(&mut self.state, connected, sink).run(budget).await;
        self.forget_gone();
        let mut sample = sample?;
        (sample.meta.streams_left_out, sample.meta.search) = (self.scanner.stats().left_out, self.search());
        Ok(sample)
    }

    /// Streams that a sample found to be gone are to be found again.
    fn forget_gone(&mut self) {
        self.state.gone.drain(..).for_each(|key| self.scanner.is_gone(&key));
    }

    /// Looks for streams that patterns mean, a little further than the last sample did.
    async fn discover(&mut self, connected: &mut Connection, most: Duration) -> Result<(), SampleError> {
        let until = Instant::now() + most;
        while Instant::now() < until
            && let Some(ask) = self.scanner.next(self.started.elapsed())
        {
            if self.state.pacer.round_trip().is_zero() {
                // Or all the ways there and back would count as Redis's time.
                let asked = connected.ask_time(&self.state.commands).await?;
                let (_, round_trip) = connected.time(asked).await?;
                self.state.pacer.measured_round_trip(round_trip);
            }
            self.state.commands.add("scan", 1);
            let asked = Instant::now();
            let (cursor, count) = (ask.cursor.to_string(), ask.count.to_string());
            let mut words: Vec<&[u8]> =
                vec![b"SCAN", cursor.as_bytes(), b"COUNT", count.as_bytes(), b"TYPE", b"stream"];
            if let Some(pattern) = &ask.pattern {
                words.extend([b"MATCH", pattern.as_bytes()]);
            }
            self.is_scanning = true;
            let reply = connected.ask(&words).await?;
            self.is_scanning = false;
            self.state.pacer.answered(0, asked.elapsed());
            if let Some(error) = reply.error().and_then(|refusal| server_wide(&refusal)) {
                return Err(error);
            }
            // Whatever the reply is (servers that are compatible in part have no TYPE, or cursors that are no numbers), the
            // streams that are named are none the worse for it.
            let Ok((cursor, keys)) = replies::scan(reply) else {
                self.state.refused.insert(RefusedCommand::Scan);
                self.scanner.interrupted();
                break;
            };
            self.state.refused.remove(&RefusedCommand::Scan);
            self.scanner.answer(cursor, keys, self.started.elapsed());
            if cursor == 0 {
                self.searched_at = SystemTime::now();
            }
        }
        if self.scanner.changed() {
            self.state.sample_these(self.scanner.streams());
        }
        Ok(())
    }

    /// How the search for streams stands; `None` where none are searched for.
    pub(super) fn search(&self) -> Option<Search> {
        if self.state.sampling.streams.patterns().is_empty() {
            return None;
        }
        let stats = self.scanner.stats();
        let completed = stats.took.map(|took| (self.searched_at, took));
        Some(Search { found: stats.found as u64, completed })
    }
}

fn late(what: &str, timeout: Duration) -> SampleError {
    let detail = format!("{what} within {}", text::duration(timeout));
    SampleError { reason: FailureReason::Timeout, detail }
}

/// The streams of a sample, in their order; `None` for one that is gone.
#[derive(Default)]
struct Collected(Vec<(StreamKey, Option<Result<StreamSample, ReadError>>)>);

impl Collected {
    /// Those that are not gone.
    fn streams(self) -> Vec<(StreamKey, Result<StreamSample, ReadError>)> {
        self.0.into_iter().filter_map(|(key, read)| Some((key, read?))).collect()
    }
}

impl Sink for Collected {
    fn begin(&mut self, streams: &[StreamKey]) {
        self.0 = streams.iter().map(|key| (key.clone(), Some(Err(ReadError::NotRead)))).collect();
    }

    fn stream(&mut self, at: usize, read: Result<StreamSample, ReadError>) {
        self.0[at].1 = Some(read);
    }

    fn gone(&mut self, at: usize) {
        self.0[at].1 = None;
    }
}
