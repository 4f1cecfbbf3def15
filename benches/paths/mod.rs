//! The core paths of a poll, as the benchmarks take them: replies are decoded, lags resolved, the page encoded. No socket, no clock.

#![allow(clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(dead_code, unreachable_pub, reason = "who includes this uses a part of it")]

mod replies;

use std::time::Duration;

use bytes::Bytes;
use streamlag::analysis::assess::{Assessor, Bounds};
use streamlag::analysis::lag::tracker::LagTracker;
use streamlag::analysis::snapshot::StreamSnapshot;
use streamlag::analysis::window::Windows;
use streamlag::exposition::encoding::{EncodedPage, GzipEncoder};
use streamlag::exposition::series::{STREAMS_PER_BLOCK, SeriesWriter};
use streamlag::model::reply::{GroupReply, StreamReply};
use streamlag::model::sample::{GroupSample, StreamSample};
use streamlag::model::{ConsumerName, GroupName, GroupSelection, StreamKey};
use streamlag::redis::replies as decode;
use streamlag::redis::resp::{DecodeBudget, Items, ReplyReader};

pub use replies::{Batch, SIZES, Size};

/// The time between samples.
const INTERVAL: Duration = Duration::from_secs(5);

/// The server's clock at the first sample: a while after the entries.
const FIRST_SAMPLE_MS: u64 = 1_700_000_060_000;

/// Everything that is kept from sample to sample.
pub struct Core {
    size: Size,
    trackers: Vec<LagTracker>,
    assessor: Assessor,
    samples: u64,
    pub decoder: Decoder,
}

/// What is kept of replies.
pub struct Decoder {
    replies: ReplyReader,
    /// Of each stream, the names of its groups, and those of their consumers.
    names: Vec<(Vec<GroupName>, Vec<ConsumerName>)>,
}

impl Core {
    /// One that has seen some samples already, as it is most of its time.
    pub fn warmed_up(size: Size) -> Self {
        let keys: Vec<StreamKey> = size.names().map(|name| StreamKey::from(name.as_str())).collect();
        let selection = GroupSelection::new(vec!["*".to_owned()]);
        let mut core = Self {
            size,
            trackers: keys.iter().map(|_| LagTracker::default()).collect(),
            assessor: Assessor::new(keys, selection, windows(), Bounds::default()),
            samples: 0,
            decoder: Decoder { replies: ReplyReader::default(), names: Vec::new() },
        };
        for _ in 0..3 {
            let replies = core.next_replies();
            let sample = decode(&mut core.decoder, &replies);
            let names = |(_, groups): &StreamRead| {
                let members = groups.iter().flat_map(|group| &group.members).next();
                let members = members.iter().flat_map(|members| members.iter()).map(|member| member.name.clone());
                (groups.iter().map(|group| group.name.clone()).collect(), members.collect())
            };
            core.decoder.names = sample.iter().map(names).collect();
            // Nothing is quicker than what is left out.
            let snapshot = resolve(&mut core, sample);
            assert_eq!(snapshot.len() as u64, size.streams);
            for group in snapshot.iter().flat_map(|stream| &stream.groups) {
                let members = group.present().and_then(|group| group.members.as_ref());
                assert_eq!(members.map(Vec::len), Some(size.consumers as usize));
            }
            assert!(snapshot.iter().all(|stream| stream.groups.len() as u64 == size.groups));
        }
        core
    }

    /// What Redis answers to the next sample.
    pub fn next_replies(&mut self) -> Vec<Batch> {
        self.samples += 1;
        self.size.replies(self.samples)
    }
}

/// What the server said of a stream.
pub type StreamRead = (StreamReply, Vec<GroupReply>);

/// Bytes to replies.
#[inline(never)]
pub fn decode(decoder: &mut Decoder, batches: &[Batch]) -> Vec<StreamRead> {
    let Decoder { replies, names } = decoder;
    let (mut allowance, mut names) = (DecodeBudget::default(), names.iter());
    let mut streams = Vec::new();
    for batch in batches {
        replies.buffer().extend_from_slice(&batch.bytes);
        assert_eq!(replies.read(batch.replies, &mut allowance), Ok(true));
        // Only the answers to EXEC are lists.
        for answers in replies.iter().filter_map(|reply| reply.list()) {
            streams.push(stream(answers, names.next()));
        }
        replies.next();
    }
    streams
}

fn stream(mut answers: Items<'_>, known: Option<&(Vec<GroupName>, Vec<ConsumerName>)>) -> StreamRead {
    let (known_groups, known_members) = known.map_or((&[][..], &[][..]), |(groups, members)| (groups, members));
    let mut answer = || answers.next().expect("an answer to each command");
    let stream = decode::stream(answer()).expect("a stream");
    let mut groups = decode::groups(answer(), known_groups).expect("groups");
    for group in &mut groups {
        group.members = Some(decode::consumers(answer(), known_members).expect("consumers"));
        group.oldest_pending = Some(decode::oldest_pending(answer()).expect("a pending entry"));
    }
    (stream, groups)
}

/// Replies to what they mean.
#[inline(never)]
pub fn resolve(core: &mut Core, samples: Vec<StreamRead>) -> Vec<StreamSnapshot> {
    let at = INTERVAL * u32::try_from(core.samples).expect("a few samples");
    let now_ms = FIRST_SAMPLE_MS + u64::try_from(at.as_millis()).expect("a few samples");
    let resolved = samples.into_iter().enumerate().map(|(place, (stream, groups))| {
        let tracker = &mut core.trackers[place];
        let continuity = tracker.open(&stream, &groups, groups.iter(), false);
        let resolved = |group| {
            let resolved = tracker.resolve(&stream, &group);
            GroupSample::new(group, resolved)
        };
        let groups = groups.into_iter().map(resolved).collect();
        let stream = StreamSample { reply: stream, continuity, now_ms, groups, ..StreamSample::default() };
        core.assessor.stream(place, Ok(stream), at)
    });
    resolved.collect()
}

/// What is kept of pages.
#[derive(Default)]
pub struct PageBuilder {
    lines: SeriesWriter,
    packer: GzipEncoder,
}

/// The streams of a snapshot to everything that is served of them.
#[inline(never)]
pub fn encode(press: &mut PageBuilder, streams: &[StreamSnapshot]) -> EncodedPage {
    press.lines.begin();
    for block in streams.chunks(STREAMS_PER_BLOCK) {
        press.lines.block(block);
    }
    press.lines.commit();
    let rest = Bytes::from_static(b"# EOF\n");
    press.packer.page(press.lines.families(), &rest).expect("memory takes what is written")
}

/// As they are by default.
fn windows() -> Windows {
    let [window, dead_after, drain_target] = [60, 600, 300].map(Duration::from_secs);
    Windows { window, samples: 5, dead_after, drain_target }
}
