//! The lines of the metrics page about streams, groups and consumers.
//!
//! They are hundreds of thousands where there are many streams, so they are written straight into bytes: the labels of a thing
//! once, and then its line in each family. prometheus-client, which writes the rest of the page, escapes each label of each line
//! anew: some eight times the work (docs/performance.md).
//!
//! Lines are written afresh from the facts each time, so that what vanished from Redis vanishes from the page.

use super::exposition::Number;
use super::names::{self, Name};
use super::page::{Block, Family};
use crate::lag::GroupState;
use crate::model::EntryId;
use crate::model::snapshot::{ConsumerSnapshot, GroupSnapshot, PresentGroup, StreamFacts, StreamSnapshot};

/// Streams whose lines in a family are one block: few enough that a change leaves most blocks what they were, many enough that
/// there are not too many of them.
pub const STREAMS_PER_BLOCK: usize = 128;

/// What a family's lines say of a thing; `None` where the thing has no line in it.
type Of<T> = fn(&T) -> Option<Number>;

/// What a family has a line for.
#[derive(Clone, Copy)]
enum Each {
    Group(Of<PresentGroup>),
    State,
    Consumer(Of<ConsumerSnapshot>),
    Up,
    Stream(Of<StreamFacts>),
}

/// Every family about streams, in the order of the page.
const FAMILIES: [(&Name, Each); 32] = [
    (&names::LAG, Each::Group(|group| Some(group.lag.point.into()))),
    (&names::LAG_UNCERTAINTY, Each::Group(|group| Some(group.lag.uncertainty().into()))),
    (&names::LAG_SECONDS, Each::Group(|group| group.lag_seconds.map(Number::from))),
    (&names::GROUP_ENTRIES_READ, Each::Group(|group| group.entries_read.map(Number::from))),
    (&names::GROUP_PENDING, Each::Group(|group| Some(group.pending.into()))),
    (&names::GROUP_OLDEST_PENDING, Each::Group(|group| group.oldest_pending_seconds.map(Number::from))),
    (&names::GROUP_CONSUMERS, Each::Group(|group| Some(group.consumers.into()))),
    (&names::GROUP_LOST, Each::Group(|group| Some(group.course.lost.into()))),
    (&names::GROUP_HEADROOM, Each::Group(|group| Some(group.trim_headroom_entries.into()))),
    (&names::GROUP_HEADROOM_SECONDS, Each::Group(|group| group.trim_headroom_seconds.map(Number::from))),
    (&names::GROUP_GHOSTS, Each::Group(|group| group.ghost_pending.map(Number::from))),
    (&names::GROUP_DELIVERED_RATE, Each::Group(|group| group.course.delivered_rate.map(Number::from))),
    (&names::GROUP_ACKNOWLEDGED_RATE, Each::Group(|group| group.course.acknowledged_rate.map(Number::from))),
    (&names::GROUP_DRAIN, Each::Group(|group| group.drain_seconds.map(Number::from))),
    (&names::GROUP_DEAD_HOLDING, Each::Group(|group| group.dead.map(|(holding, _)| holding.into()))),
    (&names::GROUP_DEAD_EMPTY, Each::Group(|group| group.dead.map(|(_, empty)| empty.into()))),
    (&names::GROUP_RECOMMENDED, Each::Group(|group| group.recommendation.count().map(Number::from))),
    (&names::GROUP_OVERFLOW, Each::Group(|group| group.overflow.map(|overflow| overflow.consumers.into()))),
    (&names::GROUP_OVERFLOW_PENDING, Each::Group(|group| group.overflow.map(|overflow| overflow.pending.into()))),
    (&names::GROUP_STATE, Each::State),
    (&names::INSTANCE_PENDING, Each::Consumer(|consumer| Some(consumer.sample.pending.into()))),
    (&names::INSTANCE_IDLE, Each::Consumer(|consumer| Some(seconds(consumer.sample.idle_ms)))),
    (&names::INSTANCE_INACTIVE, Each::Consumer(|consumer| consumer.sample.inactive_ms.map(seconds))),
    (&names::INSTANCE_HEALTH, Each::Consumer(|consumer| Some(u64::from(consumer.health).into()))),
    (&names::STREAM_UP, Each::Up),
    (&names::STREAM_LENGTH, Each::Stream(|stream| Some(stream.length.into()))),
    (&names::STREAM_GROUPS, Each::Stream(|stream| Some(stream.groups.into()))),
    (&names::STREAM_FIRST_ENTRY, Each::Stream(|stream| timestamp(stream.first, stream))),
    (&names::STREAM_LAST_ENTRY, Each::Stream(|stream| timestamp(stream.last, stream))),
    (&names::STREAM_ENTRIES_ADDED, Each::Stream(|stream| stream.entries_added.map(Number::from))),
    (&names::STREAM_ADDED_RATE, Each::Stream(|stream| stream.rates.added.map(Number::from))),
    (&names::STREAM_REMOVED_RATE, Each::Stream(|stream| stream.rates.removed.map(Number::from))),
];

/// The time in an entry's id, where ids are clocks.
fn timestamp(id: Option<EntryId>, stream: &StreamFacts) -> Option<Number> {
    id?.timestamp_seconds(stream.now_ms).map(Number::from)
}

fn seconds(ms: u64) -> Number {
    Number::Float(ms as f64 / 1000.0)
}

/// Writes lines, block by block.
#[derive(Debug)]
pub struct Lines {
    /// The names of the series of each family.
    series: Vec<String>,
    /// The lines of the block that is being written, by family.
    written: Vec<Vec<u8>>,
    /// The labels of the thing at hand.
    labels: Vec<u8>,
    /// The families with the lines that hold.
    families: Vec<Family>,
    /// Blocks that will take their place, by family.
    new: Vec<Vec<Block>>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            series: FAMILIES.iter().map(|(name, _)| name.series()).collect(),
            written: vec![Vec::new(); FAMILIES.len()],
            labels: Vec::new(),
            families: FAMILIES.iter().map(|(name, _)| Family::new(name)).collect(),
            new: vec![Vec::new(); FAMILIES.len()],
        }
    }
}

impl Lines {
    /// The lines about all of these streams.
    #[must_use]
    pub fn of(streams: &[StreamSnapshot]) -> Self {
        let mut lines = Self::default();
        for block in streams.chunks(STREAMS_PER_BLOCK) {
            lines.block(block);
        }
        lines.commit();
        lines
    }

    /// Forgets blocks that do not hold yet.
    pub fn begin(&mut self) {
        self.new.iter_mut().for_each(Vec::clear);
    }

    /// Adds the lines about the next streams, up to [`STREAMS_PER_BLOCK`] of them. They do not hold yet.
    pub fn block<'a>(&mut self, streams: impl IntoIterator<Item = &'a StreamSnapshot>) {
        for stream in streams {
            self.stream(stream);
        }
        for ((family, new), written) in self.families.iter().zip(&mut self.new).zip(&mut self.written) {
            new.push(Block::of(written, family.blocks.get(new.len())));
            written.clear();
        }
    }

    /// What was added holds from now on, and nothing else does.
    pub fn commit(&mut self) {
        for (family, new) in self.families.iter_mut().zip(&mut self.new) {
            family.blocks.clear();
            std::mem::swap(&mut family.blocks, new);
        }
    }

    /// The families with the lines that hold.
    pub fn families(&mut self) -> &mut [Family] {
        &mut self.families
    }

    fn stream(&mut self, stream: &StreamSnapshot) {
        self.labels.clear();
        self.labels.extend_from_slice(b"{");
        label(&mut self.labels, "stream", &stream.key.shown());
        let up = u64::from(stream.read.is_ok());
        for (place, (_, each)) in FAMILIES.iter().enumerate() {
            let number = match (each, &stream.read) {
                (Each::Up, _) => Some(up.into()),
                (Each::Stream(number), Ok(facts)) => number(facts),
                _ => None,
            };
            if let Some(number) = number {
                self.line(place, number);
            }
        }
        let of_stream = self.labels.len();
        for group in &stream.groups {
            self.group(group);
            self.labels.truncate(of_stream);
        }
    }

    fn group(&mut self, group: &GroupSnapshot) {
        let Some(state) = group.state() else { return };
        self.labels.push(b',');
        label(&mut self.labels, "consumer_group", &group.name.shown());
        let present = group.present();
        for (place, (_, each)) in FAMILIES.iter().enumerate() {
            match each {
                Each::Group(number) => {
                    if let Some(number) = present.and_then(number) {
                        self.line(place, number);
                    }
                }
                Each::State => self.state(place, state),
                Each::Consumer(_) | Each::Up | Each::Stream(_) => {}
            }
        }
        let of_group = self.labels.len();
        for consumer in present.and_then(|group| group.members.as_deref()).unwrap_or_default() {
            self.labels.push(b',');
            label(&mut self.labels, "consumer", &consumer.sample.name.shown());
            for (place, (_, each)) in FAMILIES.iter().enumerate() {
                if let Each::Consumer(number) = each
                    && let Some(number) = number(consumer)
                {
                    self.line(place, number);
                }
            }
            self.labels.truncate(of_group);
        }
    }

    fn state(&mut self, place: usize, state: GroupState) {
        let of_group = self.labels.len();
        // OpenMetrics has a type for such a set, but demands that the label be named like the metric.
        for each in GroupState::ALL {
            self.labels.push(b',');
            label(&mut self.labels, "state", each.as_str());
            self.line(place, u64::from(each == state).into());
            self.labels.truncate(of_group);
        }
    }

    /// The line in a family of the thing whose labels are at hand.
    fn line(&mut self, place: usize, number: Number) {
        let line = &mut self.written[place];
        line.extend_from_slice(self.series[place].as_bytes());
        line.extend_from_slice(&self.labels);
        line.extend_from_slice(b"} ");
        // As prometheus-client writes them.
        match number {
            Number::Whole(number) => line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            Number::Float(number) => line.extend_from_slice(dtoa::Buffer::new().format(number).as_bytes()),
        }
        line.push(b'\n');
    }
}

/// Appends a label. In both formats a value escapes the backslash, the quote and the line feed, and nothing else.
fn label(labels: &mut Vec<u8>, name: &str, value: &str) {
    labels.extend_from_slice(name.as_bytes());
    labels.extend_from_slice(b"=\"");
    for byte in value.bytes() {
        match byte {
            b'\\' => labels.extend_from_slice(b"\\\\"),
            b'"' => labels.extend_from_slice(b"\\\""),
            b'\n' => labels.extend_from_slice(b"\\n"),
            byte => labels.push(byte),
        }
    }
    labels.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::ReadError;

    fn unreadable(name: &str) -> StreamSnapshot {
        StreamSnapshot { key: name.into(), read: Err(ReadError(String::new())), groups: Vec::new(), groups_left_out: 0 }
    }

    fn text(lines: &mut Lines) -> String {
        let blocks = lines.families().iter().flat_map(|family| &family.blocks);
        String::from_utf8(blocks.flat_map(|block| block.text().to_vec()).collect()).unwrap()
    }

    #[test]
    fn labels_are_escaped() {
        let mut lines = Lines::of(&[unreadable("a\"b\\c\nd\re€")]);
        assert_eq!(text(&mut lines), "event_stream_up{stream=\"a\\\"b\\\\c\\nd\re€\"} 0\n");
    }

    #[test]
    fn a_page_has_the_lines_of_its_own_streams_only() {
        let mut lines = Lines::of(&[unreadable("a"), unreadable("b")]);
        let both = text(&mut lines);
        // A sample that broke off.
        lines.block(&[unreadable("c")]);
        assert_eq!(text(&mut lines), both);
        lines.begin();
        lines.block(&[unreadable("b")]);
        lines.commit();
        assert_eq!(text(&mut lines), "event_stream_up{stream=\"b\"} 0\n");
        lines.commit();
        assert_eq!(text(&mut lines), "");
    }
}
