//! What must hold for any answer of a server, from its bytes to the page: see [`crate::fuzzing`].

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::analysis::assess::{Assessor, Bounds};
use crate::analysis::view::View;
use crate::analysis::window::Windows;
use crate::collector::standalone::{Collected, Connection, CountBudget, SamplingConfig, Standalone};
use crate::exposition::collectors::Collectors;
use crate::exposition::registry::{self, PageSettings};
use crate::exposition::series::SeriesWriter;
use crate::http::api::{Api, Transport};
use crate::model::sample::{ServerInfo, TargetSample};
use crate::model::thresholds::{ThresholdRules, Thresholds};
use crate::model::{GroupSelection, StreamKey};
use crate::redis::connector::{Address, Credentials, Endpoint, Resolver};
use crate::redis::resp_stream::RespStream;
use crate::redis::script::Script;
use crate::sys::own_metrics::RedisCommands;

/// Ends the bytes that one question is answered with. Redis's own replies hold none, except in stored data.
const END_OF_ANSWER: u8 = 0x1e;

/// Enough for a window to fill, and for groups that come, go and come back.
const MAX_SAMPLES: u32 = 8;

const QUEUED: &[u8] = b"+QUEUED\r\n";

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

/// After this many turns of all tasks in which not a byte moved, none ever will.
const IDLE_TURNS: usize = 8;

/// A server that answers each question with the next of these bytes, up to [`END_OF_ANSWER`], and hangs up after the last.
/// The first byte says whether it runs scripts. `MULTI` and what is queued is answered as it should be, unless the next
/// bytes are an error.
pub fn sampling(data: &[u8]) {
    let [flags, answers @ ..] = data else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(take_samples(flags & 1 == 1, answers));
}

async fn take_samples(scripts: bool, answers: &[u8]) {
    let moved = Arc::new(AtomicUsize::new(0));
    let peer = FuzzPeer { answers: answers.to_vec(), moved: Arc::clone(&moved), ..FuzzPeer::default() };
    let mut connected =
        Connection::to(RespStream::over(Box::new(peer)), ServerInfo::default(), scripts.then_some(Script::EvalRo));

    let selection = GroupSelection::new(vec!["g".to_owned(), "*".to_owned()]);
    let streams: Vec<StreamKey> = vec!["a".into(), "b".into()];
    let sampling = SamplingConfig::of(streams.clone(), selection.clone(), INTERVAL, 1000);
    let address = Address::Tcp("nobody".to_owned(), 1);
    let nobody =
        Endpoint { address, tls: None, credentials: Credentials::default(), db: 0, resolver: Resolver::default() };
    let mut source = Standalone::new(nobody, sampling, RedisCommands::default());
    let windows =
        Windows { window: 2 * INTERVAL, samples: 2, dead_after: INTERVAL, drain_target: Duration::from_secs(60) };
    let mut assessor =
        Assessor::new(streams, selection.clone(), windows, Bounds { max_length: Some(1000), consumers: 2 });
    for n in 0..MAX_SAMPLES {
        let budget = CountBudget::new(1000, INTERVAL, Instant::now(), TIMEOUT);
        let mut collected = Collected::default();
        let sample = tokio::select! {
            biased;
            sample = source.sample_over(&mut connected, budget, TIMEOUT, &mut collected) => sample,
            () = nothing_moves(&moved) => return,
        };
        let Ok(sample) = sample else { return };
        let sample = TargetSample { streams: collected.streams(), ..sample };
        lags_lie_within_their_bounds(&sample);
        show(View::from(assessor.assess(sample, n * INTERVAL)), &selection);
    }
}

async fn nothing_moves(moved: &AtomicUsize) {
    let mut before = usize::MAX;
    while before != moved.load(Ordering::Relaxed) {
        before = moved.load(Ordering::Relaxed);
        for _ in 0..IDLE_TURNS {
            tokio::task::yield_now().await;
        }
    }
}

fn lags_lie_within_their_bounds(sample: &TargetSample) {
    for stream in sample.streams.iter().filter_map(|(_, stream)| stream.as_ref().ok()) {
        for group in &stream.groups {
            let Some(lag) = group.resolved.map(|resolved| resolved.lag) else { continue };
            assert!(
                lag.min <= lag.point && lag.point <= lag.max && lag.max <= stream.reply.length,
                "{lag:?} of {stream:?}"
            );
        }
    }
}

/// Every reader is shown something that it can read: a page without a series twice or a number that cannot be, and JSON.
fn show(view: View, selection: &GroupSelection) {
    let thresholds = Thresholds { degraded: 100, unhealthy: 1000 };
    let transport = Transport { mode: "hybrid", fallback_to_http: true, publish_timeout: TIMEOUT };
    let rules = ThresholdRules::from(thresholds);
    let api = Api { view: &view, age: Some(INTERVAL), thresholds: &rules, selection, transport };
    let group = api.first_group();
    let lags = json(&api.consumer_lag(group.as_ref()));
    for (_, stream) in lags["streams"].as_object().into_iter().flatten() {
        assert!(stream["lag"].as_i64().is_some_and(|lag| lag >= -1), "{lags}");
    }
    for only in [None, group.as_ref()] {
        json(&(api.streams(only), api.health(only), api.groups(only), api.consumers(only)));
    }
    let mut page = bytes::BytesMut::new();
    let settings = PageSettings {
        poll_interval: INTERVAL,
        max_redis_share: 1.0,
        discovery_interval: None,
        shard: None,
        round_trip_limit: TIMEOUT,
        thresholds,
        whole: true,
    };
    let mut lines = SeriesWriter::of(&view.streams, Collectors::ALL);
    for block in lines.families().iter().flat_map(|family| &family.blocks) {
        page.extend_from_slice(block.text());
    }
    assert!(registry::encode_rest(&mut page, view, settings, None, "", None).is_ok());
    let Ok(text) = std::str::from_utf8(&page) else { panic!("a page that is not UTF-8") };
    let mut seen = HashSet::new();
    // A line feed in a label is escaped, and another character that ends lines elsewhere does not end one here.
    for line in text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { panic!("no sample: {line:?}") };
        assert!(seen.insert(series), "twice: {line:?}");
        assert!(value.parse().is_ok_and(|value: f64| value.is_finite() && value >= 0.0), "no number: {line:?}");
    }
}

fn json(value: &impl Serialize) -> serde_json::Value {
    match serde_json::to_vec(value).and_then(|text| serde_json::from_slice(&text)) {
        Ok(value) => value,
        Err(error) => panic!("no JSON: {error}"),
    }
}

/// The server's end of a connection.
#[derive(Default)]
struct FuzzPeer {
    answers: Vec<u8>,
    /// How many bytes of the answers are spent.
    at: usize,
    asked: Vec<u8>,
    said: Vec<u8>,
    in_transaction: bool,
    not_queued: bool,
    reader: Option<Waker>,
    moved: Arc<AtomicUsize>,
}

impl FuzzPeer {
    fn answer(&mut self, command: &[u8]) {
        match command {
            b"MULTI" => {
                (self.in_transaction, self.not_queued) = (true, false);
                self.said.extend(b"+OK\r\n");
            }
            b"EXEC" if std::mem::take(&mut self.not_queued) => {
                self.in_transaction = false;
                self.said.extend(b"-EXECABORT Transaction discarded because of previous errors.\r\n");
            }
            b"EXEC" => {
                self.in_transaction = false;
                self.say_next();
            }
            _ if self.in_transaction => {
                let next = &self.answers[self.at..];
                self.not_queued |= next.starts_with(b"-");
                if next.starts_with(b"-") || next.starts_with(QUEUED) {
                    self.say_next();
                } else {
                    self.said.extend(QUEUED);
                }
            }
            _ => self.say_next(),
        }
    }

    fn say_next(&mut self) {
        let rest = &self.answers[self.at..];
        let end = memchr::memchr(END_OF_ANSWER, rest).unwrap_or(rest.len());
        self.said.extend(&rest[..end]);
        self.at = (self.at + end + 1).min(self.answers.len());
    }
}

impl AsyncRead for FuzzPeer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let has_more = self.at < self.answers.len();
        if self.said.is_empty() && has_more {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let said = self.said.len().min(buffer.remaining());
        buffer.put_slice(&self.said[..said]);
        self.said.drain(..said);
        self.moved.fetch_add(said, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FuzzPeer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked.extend(bytes);
        while let Some((command, length)) = first_word(&self.asked) {
            self.answer(&command);
            self.asked.drain(..length);
        }
        self.moved.fetch_add(bytes.len(), Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The first word of a command, and the command's length; `None` where it is not all there. The program's own bytes, so
/// they are well-formed.
fn first_word(asked: &[u8]) -> Option<(Vec<u8>, usize)> {
    let number = |from: usize| {
        let length = memchr::memchr(b'\r', asked.get(from..)?)?;
        let number: usize = std::str::from_utf8(&asked[from + 1..from + length]).ok()?.parse().ok()?;
        Some((number, from + length + 2))
    };
    let (words, mut at) = number(0)?;
    let mut first = None;
    for _ in 0..words {
        let (length, from) = number(at)?;
        let word = asked.get(from..from + length)?;
        first = first.or_else(|| Some(word.to_vec()));
        at = from + length + 2;
    }
    (at <= asked.len()).then_some((first?, at))
}
