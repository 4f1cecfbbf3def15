//! The core paths of a poll, as the benchmarks take them: replies are decoded, lags resolved, the page encoded. No socket, no clock.

#![allow(clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "who includes this uses a part of it")]

mod replies;

use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use prometheus_client::registry::Registry;
use redis::{Parser, Value};
use streamlag::assess::Assessor;
use streamlag::lag::{Ledger, Thresholds, Windows};
use streamlag::model::sample::{ServerInfo, StreamSample, TargetSample};
use streamlag::model::snapshot::TargetSnapshot;
use streamlag::model::view::View;
use streamlag::model::{GroupSelection, StreamKey};
use streamlag::render::exposition::{self, Settings};
use streamlag::render::page::Page;
use streamlag::xinfo;

pub use replies::{SIZES, Size, StreamReplies};

/// The time between samples.
const INTERVAL: Duration = Duration::from_secs(5);

/// The server's clock at the first sample: a while after the entries.
const FIRST_SAMPLE_MS: u64 = 1_700_000_060_000;

/// Everything that is kept from sample to sample.
pub struct Core {
    size: Size,
    keys: Vec<StreamKey>,
    ledgers: Vec<Ledger>,
    assessor: Assessor,
    samples: u64,
}

impl Core {
    /// One that has seen some samples already, as it is most of its time.
    pub fn warmed_up(size: Size) -> Self {
        let keys: Vec<StreamKey> = size.names().map(|name| StreamKey::from(name.as_str())).collect();
        let selection = GroupSelection::new(vec!["*".to_owned()]);
        let mut core = Self {
            size,
            ledgers: keys.iter().map(|_| Ledger::default()).collect(),
            assessor: Assessor::new(keys.clone(), selection, windows(), None),
            keys,
            samples: 0,
        };
        for _ in 0..3 {
            let sample = decode(&core.next_replies());
            resolve(&mut core, sample);
        }
        core
    }

    /// What Redis answers to the next sample.
    pub fn next_replies(&mut self) -> Vec<StreamReplies> {
        self.samples += 1;
        self.size.replies(self.samples)
    }
}

/// Bytes to samples.
#[inline(never)]
pub fn decode(replies: &[StreamReplies]) -> Vec<StreamSample> {
    let parse = |mut bytes: &[u8]| -> Value { Parser::new().parse_value(&mut bytes).expect("a reply") };
    let stream = |replies: &StreamReplies| {
        let mut stream = xinfo::stream(&parse(&replies.stream)).expect("a stream");
        stream.groups = xinfo::groups(&parse(&replies.groups)).expect("groups");
        for (group, (consumers, oldest)) in stream.groups.iter_mut().zip(&replies.details) {
            group.members = Some(xinfo::consumers(&parse(consumers)).expect("consumers"));
            (group.oldest_pending, group.oldest_pending_consumer) =
                xinfo::oldest_pending(&parse(oldest)).expect("a pending entry").unzip();
        }
        stream
    };
    replies.iter().map(stream).collect()
}

/// Samples to what they mean.
#[inline(never)]
pub fn resolve(core: &mut Core, mut streams: Vec<StreamSample>) -> TargetSnapshot {
    for (ledger, stream) in core.ledgers.iter_mut().zip(&mut streams) {
        stream.continuity = ledger.open(stream, stream.groups.iter());
        let mut groups = std::mem::take(&mut stream.groups);
        for group in &mut groups {
            group.resolved = ledger.resolve(stream, group);
        }
        stream.groups = groups;
    }
    let at = INTERVAL * u32::try_from(core.samples).expect("a few samples");
    let sample = TargetSample {
        sampled_at: UNIX_EPOCH + Duration::from_millis(FIRST_SAMPLE_MS) + at,
        server_now_ms: FIRST_SAMPLE_MS + u64::try_from(at.as_millis()).expect("a few samples"),
        server: ServerInfo::default(),
        round_trip: Duration::from_micros(100),
        streams: core.keys.iter().cloned().zip(streams.into_iter().map(Ok)).collect(),
        refused: Vec::new(),
    };
    core.assessor.assess(sample, at)
}

/// A snapshot to everything that is served of it.
#[inline(never)]
pub fn encode(snapshot: TargetSnapshot, mut buffer: BytesMut) -> Page {
    let settings = Settings {
        poll_interval: INTERVAL,
        round_trip_limit: Duration::from_millis(500),
        thresholds: Thresholds { degraded: 100, unhealthy: 1000 },
    };
    exposition::encode(&mut buffer, View::from(snapshot), settings, None, &Registry::default()).expect("a page");
    Page::from_openmetrics(buffer.freeze()).expect("memory takes what is written")
}

/// As they are by default.
fn windows() -> Windows {
    let [window, dead_after, drain_target] = [60, 600, 300].map(Duration::from_secs);
    Windows { window, samples: 5, dead_after, drain_target }
}
