//! The lines of the metrics page about streams, groups and consumers.
//!
//! They are hundreds of thousands where there are many streams, so they are written straight into bytes: the labels of a thing
//! once, and then its line in each family. prometheus-client, which writes the rest of the page, escapes each label of each line
//! again: some eight times the work (docs/performance.md).
//!
//! All lines are written afresh from the facts each time, so that what vanished from Redis vanishes from the page. A block that says
//! what it said last time keeps its bytes, and their compressed form.

use std::ops::Range;

use crate::analysis::group_state::GroupState;
use crate::analysis::snapshot::{ConsumerSnapshot, GroupSnapshot, PresentGroup, StreamFacts, StreamSnapshot};
use crate::exposition::collectors::Collectors;
use crate::exposition::encoding::{Chunk, Family};
use crate::exposition::number::Number;
use crate::model::EntryId;
use crate::sys::metric_catalog::{self, MetricName};

/// Streams whose lines in a family are one block: few enough that a change leaves most blocks what they were, many enough that
/// there are not too many of them.
pub const STREAMS_PER_BLOCK: usize = 128;

/// What a family's lines say of a thing; `None` where the thing has no line in it.
type ValueOf<T> = fn(&T) -> Option<Number>;

/// What a family has a line for.
#[derive(Clone, Copy, Debug)]
enum SeriesKind {
    Group(ValueOf<PresentGroup>),
    State,
    Consumer(ValueOf<ConsumerSnapshot>),
    Up,
    Stream(ValueOf<StreamFacts>),
}

/// Every family about streams, in the order of the page.
const FAMILIES: [(&MetricName, SeriesKind); 35] = [
    (&metric_catalog::LAG, SeriesKind::Group(|group| Some(group.lag.point.into()))),
    (&metric_catalog::LAG_UNCERTAINTY, SeriesKind::Group(|group| Some(group.lag.uncertainty().into()))),
    (&metric_catalog::LAG_SECONDS, SeriesKind::Group(|group| group.lag_seconds.map(Number::from))),
    (&metric_catalog::GROUP_ENTRIES_READ, SeriesKind::Group(|group| group.entries_read.map(Number::from))),
    (&metric_catalog::GROUP_PENDING, SeriesKind::Group(|group| group.pending.map(Number::from))),
    (&metric_catalog::GROUP_OLDEST_PENDING, SeriesKind::Group(|group| group.oldest_pending_seconds.map(Number::from))),
    (
        &metric_catalog::GROUP_OLDEST_DELIVERIES,
        SeriesKind::Group(|group| group.oldest_pending_deliveries.map(Number::from)),
    ),
    (
        &metric_catalog::GROUP_UNOWNED,
        SeriesKind::Group(|group| group.unowned_pending.filter(|entries| *entries > 0).map(Number::from)),
    ),
    (&metric_catalog::GROUP_CONSUMERS, SeriesKind::Group(|group| group.consumers.map(Number::from))),
    (&metric_catalog::GROUP_LOST, SeriesKind::Group(|group| Some(group.trend.lost.into()))),
    (&metric_catalog::GROUP_HEADROOM, SeriesKind::Group(|group| group.trim_headroom_entries.map(Number::from))),
    (&metric_catalog::GROUP_HEADROOM_SECONDS, SeriesKind::Group(|group| group.trim_headroom_seconds.map(Number::from))),
    (&metric_catalog::GROUP_GHOSTS, SeriesKind::Group(|group| group.ghost_pending.map(Number::from))),
    (&metric_catalog::GROUP_DELIVERED_RATE, SeriesKind::Group(|group| group.trend.delivered_rate.map(Number::from))),
    (
        &metric_catalog::GROUP_ACKNOWLEDGED_RATE,
        SeriesKind::Group(|group| group.trend.acknowledged_rate.map(Number::from)),
    ),
    (&metric_catalog::GROUP_DRAIN, SeriesKind::Group(|group| group.drain_seconds.map(Number::from))),
    (&metric_catalog::GROUP_DEAD_HOLDING, SeriesKind::Group(|group| group.dead.map(|(holding, _)| holding.into()))),
    (&metric_catalog::GROUP_DEAD_EMPTY, SeriesKind::Group(|group| group.dead.map(|(_, empty)| empty.into()))),
    (&metric_catalog::GROUP_RECOMMENDED, SeriesKind::Group(|group| group.recommendation.count().map(Number::from))),
    (
        &metric_catalog::GROUP_OVERFLOW,
        SeriesKind::Group(|group| group.overflow.map(|overflow| overflow.consumers.into())),
    ),
    (
        &metric_catalog::GROUP_OVERFLOW_PENDING,
        SeriesKind::Group(|group| group.overflow.map(|overflow| overflow.pending.into())),
    ),
    (&metric_catalog::GROUP_STATE, SeriesKind::State),
    (&metric_catalog::INSTANCE_PENDING, SeriesKind::Consumer(|consumer| consumer.sample.pending.map(Number::from))),
    (&metric_catalog::INSTANCE_IDLE, SeriesKind::Consumer(|consumer| consumer.sample.idle_ms.map(seconds))),
    (&metric_catalog::INSTANCE_INACTIVE, SeriesKind::Consumer(|consumer| consumer.sample.inactive_ms.map(seconds))),
    (&metric_catalog::INSTANCE_HEALTH, SeriesKind::Consumer(|consumer| Some(u64::from(consumer.health).into()))),
    (&metric_catalog::STREAM_UP, SeriesKind::Up),
    (&metric_catalog::STREAM_LENGTH, SeriesKind::Stream(|stream| Some(stream.length.into()))),
    (&metric_catalog::STREAM_GROUPS, SeriesKind::Stream(|stream| Some(stream.groups.into()))),
    (&metric_catalog::STREAM_FIRST_ENTRY, SeriesKind::Stream(|stream| timestamp(stream.first, stream))),
    (&metric_catalog::STREAM_LAST_ENTRY, SeriesKind::Stream(|stream| timestamp(stream.last, stream))),
    (&metric_catalog::STREAM_ENTRIES_ADDED, SeriesKind::Stream(|stream| stream.entries_added.map(Number::from))),
    (&metric_catalog::STREAM_ADDED_RATE, SeriesKind::Stream(|stream| stream.rates.added.map(Number::from))),
    (
        &metric_catalog::STREAM_RECLAIMABLE,
        SeriesKind::Stream(|stream| stream.safe_to_trim.as_ref().map(|safe| safe.reclaimable.into())),
    ),
    (&metric_catalog::STREAM_REMOVED_RATE, SeriesKind::Stream(|stream| stream.rates.removed.map(Number::from))),
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
pub struct SeriesWriter {
    /// What each family that is shown has a line for.
    each: Vec<SeriesKind>,
    /// The places of those about consumers, of whom there are most.
    of_consumers: Range<usize>,
    /// The names of the series of each family.
    series: Vec<String>,
    /// The lines of the block that is being written, by family.
    written: Vec<Vec<u8>>,
    /// The labels of the thing at hand.
    labels: Vec<u8>,
    /// The families with the lines that hold.
    families: Vec<Family>,
    /// Blocks that will take their place, by family.
    new: Vec<Vec<Chunk>>,
}

impl Default for SeriesWriter {
    fn default() -> Self {
        Self::shown_by(Collectors::default())
    }
}

impl SeriesWriter {
    /// No lines yet, of the families that these collectors show.
    #[must_use]
    pub fn shown_by(collectors: Collectors) -> Self {
        let shown_families = || FAMILIES.iter().filter(|(name, _)| collectors.show(name.family));
        let each: Vec<SeriesKind> = shown_families().map(|(_, each)| *each).collect();
        let is_of_consumers = |each: &&SeriesKind| matches!(each, SeriesKind::Consumer(_));
        let before = each.iter().take_while(|each| !is_of_consumers(each)).count();
        let count = each.len();
        Self {
            of_consumers: before..before + each[before..].iter().take_while(is_of_consumers).count(),
            each,
            series: shown_families().map(|(name, _)| name.series()).collect(),
            written: vec![Vec::new(); count],
            labels: Vec::new(),
            families: shown_families().map(|(name, _)| Family::new(name)).collect(),
            new: vec![Vec::new(); count],
        }
    }

    /// The lines about all of these streams, in the families that these collectors show.
    #[must_use]
    pub fn of(streams: &[StreamSnapshot], collectors: Collectors) -> Self {
        let mut lines = Self::shown_by(collectors);
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
            new.push(Chunk::of(written, family.blocks.get(new.len())));
            written.clear();
        }
    }

    /// What was added holds from now on, and nothing else does.
    pub fn commit(&mut self) {
        for (family, new) in self.families.iter_mut().zip(&mut self.new) {
            family.blocks.clear();
            std::mem::swap(&mut family.blocks, new);
        }
        self.begin();
    }

    /// The families with the lines that hold.
    pub fn families(&mut self) -> &mut [Family] {
        &mut self.families
    }

    fn stream(&mut self, stream: &StreamSnapshot) {
        self.labels.clear();
        self.labels.extend_from_slice(b"{");
        label(&mut self.labels, "stream", &stream.key.display_name());
        let up = u64::from(stream.read.is_ok());
        for place in 0..self.each.len() {
            let number = match (self.each[place], &stream.read) {
                (SeriesKind::Up, _) => Some(up.into()),
                (SeriesKind::Stream(number), Ok(facts)) => number(facts),
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
        label(&mut self.labels, "consumer_group", &group.name.display_name());
        let present = group.present();
        for place in 0..self.each.len() {
            match self.each[place] {
                SeriesKind::Group(number) => {
                    if let Some(number) = present.and_then(number) {
                        self.line(place, number);
                    }
                }
                SeriesKind::State => self.state(place, state),
                SeriesKind::Consumer(_) | SeriesKind::Up | SeriesKind::Stream(_) => {}
            }
        }
        let of_group = self.labels.len();
        for consumer in present.and_then(|group| group.members.as_deref()).unwrap_or_default() {
            self.labels.push(b',');
            label(&mut self.labels, "consumer", &consumer.sample.name.display_name());
            for place in self.of_consumers.clone() {
                if let SeriesKind::Consumer(number) = self.each[place]
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
        // One series, of the state that holds. OpenMetrics has a type for state sets, but demands that the label be named like the
        // metric, and a series for each state.
        self.labels.push(b',');
        label(&mut self.labels, "state", state.as_str());
        self.line(place, 1u64.into());
        self.labels.truncate(of_group);
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
            Number::Float(number) => float(line, number),
        }
        line.push(b'\n');
    }
}

/// Appends a label. In both formats a value escapes the backslash, the quote and the line feed, and nothing else.
fn label(labels: &mut Vec<u8>, name: &str, value: &str) {
    labels.extend_from_slice(name.as_bytes());
    labels.extend_from_slice(b"=\"");
    let mut rest = value.as_bytes();
    while let Some(place) = memchr::memchr3(b'\\', b'"', b'\n', rest) {
        labels.extend_from_slice(&rest[..place]);
        labels.extend_from_slice(match rest[place] {
            b'\\' => b"\\\\",
            b'"' => b"\\\"",
            _ => b"\\n",
        });
        rest = &rest[place + 1..];
    }
    labels.extend_from_slice(rest);
    labels.push(b'"');
}

/// Milliseconds up to here, as seconds in a double, say no other than themselves: they have fewer than 16 digits.
const MAX_EXACT_MS: f64 = 1e15;

/// Appends a number as prometheus-client writes it, which is as dtoa does. Nearly all are whole milliseconds, and as those they are
/// written in a third of the time.
fn float(line: &mut Vec<u8>, number: f64) {
    let ms = (number * 1000.0).round();
    let exact = number.is_sign_positive() && ms < MAX_EXACT_MS && ms / 1000.0 == number;
    if !exact {
        line.extend_from_slice(dtoa::Buffer::new().format(number).as_bytes());
        return;
    }
    let (seconds, rest) = (ms as u64 / 1000, ms as u64 % 1000);
    line.extend_from_slice(itoa::Buffer::new().format(seconds).as_bytes());
    line.push(b'.');
    let digits = [rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8);
    let shown = if rest % 10 > 0 {
        3
    } else if rest % 100 > 0 {
        2
    } else {
        1
    };
    line.extend_from_slice(&digits[..shown]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::snapshot::Presence;
    use crate::analysis::snapshot::tests::stream_facts;
    use crate::model::sample::ReadError;

    fn unreadable(name: &str) -> StreamSnapshot {
        StreamSnapshot {
            key: name.into(),
            read: Err(ReadError::Server(String::new())),
            groups: Vec::new(),
            groups_left_out: 0,
        }
    }

    fn text(lines: &mut SeriesWriter) -> String {
        let blocks = lines.families().iter().flat_map(|family| &family.blocks);
        String::from_utf8(blocks.flat_map(|block| block.text().to_vec()).collect()).unwrap()
    }

    fn of(streams: &[StreamSnapshot]) -> SeriesWriter {
        SeriesWriter::of(streams, Collectors::ALL)
    }

    #[test]
    fn the_families_about_consumers_are_where_they_are_looked_for() {
        for (collectors, count) in [(Collectors::ALL, 4), (Collectors::default(), 2), (Collectors::NONE, 0)] {
            let lines = SeriesWriter::shown_by(collectors);
            let places: Vec<usize> =
                (0..lines.each.len()).filter(|at| matches!(lines.each[*at], SeriesKind::Consumer(_))).collect();
            assert_eq!((places.len(), places), (count, lines.of_consumers.collect::<Vec<_>>()));
        }
    }

    /// After any changes, the page equals one that is written from scratch.
    #[test]
    fn a_block_is_written_again_when_anything_in_it_changes() {
        let facts = |length| StreamFacts { length, entries_added: Some(0), ..stream_facts() };
        let readable = |name: &str, length| StreamSnapshot { read: Ok(facts(length)), ..unreadable(name) };
        let missing = |name: &str, group: &str| StreamSnapshot {
            groups: vec![GroupSnapshot { name: group.into(), presence: Presence::Missing }],
            ..readable(name, 1)
        };
        let mut lines = SeriesWriter::shown_by(Collectors::ALL);
        let pages = [
            vec![readable("a", 1), readable("b", 2)],
            vec![readable("a", 1), readable("b", 2)],
            vec![readable("a", 2), readable("b", 1)],
            vec![readable("b", 2), readable("a", 1)],
            vec![readable("ab", 2), readable("", 1)],
            vec![readable("a", 1), unreadable("b")],
            vec![missing("a", "g"), readable("b", 2)],
            vec![missing("a", "h"), readable("b", 2)],
            vec![readable("a", 1), missing("b", "h")],
        ];
        for page in pages {
            lines.block(&page);
            lines.commit();
            assert_eq!(text(&mut lines), text(&mut of(&page)), "{page:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_dtoa_does() {
        let check = |number: f64| {
            let mut line = Vec::new();
            float(&mut line, number);
            assert_eq!(String::from_utf8(line).unwrap(), dtoa::Buffer::new().format(number), "{number:e}");
        };
        let finite =
            [0.0, -0.0, -1.5, 0.1 + 0.2, 1e-3, 1e-4, 1e-9, 1e11, 1e12, 1e15, 1e21, f64::MAX, f64::MIN_POSITIVE];
        for number in finite.into_iter().chain([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]) {
            check(number);
        }
        proptest!(|(ms: u64, shift in 0..64, bits: u64)| {
            check((ms >> shift) as f64 / 1000.0);
            check(f64::from_bits(bits));
        });
    }

    #[test]
    fn labels_are_escaped() {
        let mut lines = of(&[unreadable("a\"b\\c\nd\re€")]);
        assert_eq!(text(&mut lines), "event_stream_up{stream=\"a\\\"b\\\\c\\nd\re€\"} 0\n");
    }

    #[test]
    fn a_page_has_the_lines_of_its_own_streams_only() {
        let mut lines = of(&[unreadable("a"), unreadable("b")]);
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
