//! Queries to Redis, and what their replies yield.

use crate::analysis::lag::tracker::CountRange;
use crate::collector::reading::{KeptStream, StreamReading};
use crate::model::lag::EntryPage;
use crate::model::reply::{GroupReply, StreamReply};
use crate::model::sample::{ReadError, RefusedCommand};
use crate::model::{EntryId, GroupName};

/// Why nothing is known of a stream.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Redis refused a command that can be done without: ask again without it. Or it changed while it was read, where Redis runs no
    /// transactions.
    Refused(ReadError),
    /// It may not be what it was, and only its length and groups were asked for: they are in a partial reading.
    Changed(Option<Box<StreamReading>>),
    /// It cannot be read now.
    Error(ReadError),
}

impl ReadOutcome {
    pub(super) fn into_error(self) -> ReadError {
        match self {
            Self::Refused(error) | Self::Error(error) => error,
            Self::Changed(_) => ReadError::Deferred,
        }
    }
}

/// One question; `at` is the stream's place in the configuration.
#[derive(Debug)]
pub(super) enum Query {
    /// Is a command that was refused allowed by now?
    Recheck(RefusedCommand),
    /// Everything about a stream, and about those of its groups that are known already.
    Stream { at: usize, groups: Vec<GroupQuery> },
    /// Whether a stream is still what it was, where it `probes`, and everything about its groups.
    Unchanged { at: usize, groups: Vec<GroupQuery>, kept: Box<KeptStream>, probes: bool },
    /// Consumers and oldest pending entry of groups that were not known before, or have changed.
    Details { at: usize, groups: Vec<GroupQuery> },
    /// The first entry after a group's cursor; `group` is its place in the stream's sample.
    First { at: usize, group: usize },
    /// Whether an entry that was the last one is still there.
    Anchor { at: usize },
    /// Pages of counts for groups of one stream, and the stream in the same moment: either read again, or asked whether it is
    /// `unchanged` since it was like this. Its groups as well, where `with_groups`.
    Counts { at: usize, pages: Vec<PageQuery>, unchanged: Option<Box<StreamReply>>, with_groups: bool },
    /// How many of a group's pending entries lie before the first entry.
    Ghosts { at: usize, group: usize },
}

impl Query {
    /// The stream that it is about.
    pub(super) fn at(&self) -> Option<usize> {
        match self {
            Self::Recheck(_) => None,
            Self::Stream { at, .. }
            | Self::Unchanged { at, .. }
            | Self::Details { at, .. }
            | Self::First { at, .. }
            | Self::Anchor { at }
            | Self::Counts { at, .. }
            | Self::Ghosts { at, .. } => Some(*at),
        }
    }
}

/// What is asked about a group in addition to the list of groups.
#[derive(Clone, Debug)]
pub(super) struct GroupQuery {
    pub(super) name: GroupName,
    /// `XINFO CONSUMERS`
    pub(super) consumers: bool,
    /// `XPENDING key group - + 1`: not the summary form, which walks every consumer.
    pub(super) pending: bool,
}

impl GroupQuery {
    /// What may be asked of it: nothing where all of its name is not at hand.
    pub(super) fn of(name: &GroupName, consumers: bool, pending: bool) -> Self {
        let may = name.is_whole();
        Self { name: name.clone(), consumers: consumers && may, pending: pending && may }
    }

    /// Its commands, in their order.
    pub(super) fn commands(&self) -> impl Iterator<Item = RefusedCommand> + use<> {
        let consumers = self.consumers.then_some(RefusedCommand::XinfoConsumers);
        consumers.into_iter().chain(self.pending.then_some(RefusedCommand::Xpending))
    }
}

/// How many commands some groups take.
pub(super) fn commands_of(groups: &[GroupQuery]) -> usize {
    groups.iter().map(|group| usize::from(group.consumers) + usize::from(group.pending)).sum()
}

/// A page of a count to be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageQuery {
    /// The group's place in the stream's sample; none for what holds the stream back.
    pub(super) group: Option<usize>,
    /// What is left to be counted.
    pub(super) range: CountRange,
    /// The most entries to be read.
    pub(super) limit: u64,
    /// What the budget was charged for each.
    pub(super) most_bytes: u64,
}

/// An answer that is not part of a sample: it goes to the stream's tracker.
#[derive(Debug)]
pub(super) enum Observation {
    /// The first entry after a group's cursor.
    First { at: usize, group: usize, id: Option<EntryId> },
    /// An entry that was the last one is not there.
    AnchorGone { at: usize },
    /// Pages of counts.
    Pages(Box<PagesReply>),
}

/// Pages of counts that were read in one moment.
#[derive(Debug)]
pub(super) struct PagesReply {
    /// The stream's place in the configuration.
    pub(super) at: usize,
    pub(super) pages: Vec<(PageQuery, EntryPage)>,
    /// The stream in the same moment, and all its groups where they were asked for.
    pub(super) stream: StreamReply,
    pub(super) groups: Option<Vec<GroupReply>>,
}
