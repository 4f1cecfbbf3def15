//! What a sample means: the immutable result of one poll, which every reader shares.

use crate::analysis::consumers::Recommendation;
use crate::analysis::group_history::{GroupTrend, StreamRates};
use crate::analysis::group_state::GroupState;
use crate::model::lag::Lag;
use crate::model::reply::ConsumerReply;
use crate::model::sample::{ReadError, SafeToTrim, TargetMeta};
use crate::model::{ConsumerName, EntryId, GroupName, StreamKey};

/// One Redis at one moment, resolved.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// What the poll told apart from the streams.
    pub meta: TargetMeta,
    /// One per stream: the named ones in the order of the configuration, then those that patterns found, by name.
    pub streams: Vec<StreamSnapshot>,
}

/// One stream and its monitored groups.
#[derive(Clone, Debug)]
pub struct StreamSnapshot {
    /// Its key.
    pub key: StreamKey,
    /// What is known of it, or why nothing is.
    pub read: Result<StreamFacts, ReadError>,
    /// The monitored groups, by name. Groups named in the configuration are here even where they do not exist.
    pub groups: Vec<GroupSnapshot>,
    /// Groups that are not among them because there are too many.
    pub groups_left_out: u64,
}

/// What is known of a stream itself.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamFacts {
    /// Entries in the stream.
    pub length: u64,
    /// Groups of the stream, monitored or not.
    pub groups: u64,
    /// The first entry's id; `None` where the stream is empty.
    pub first: Option<EntryId>,
    /// The last entry's id; `None` where the stream is empty.
    pub last: Option<EntryId>,
    /// The server's clock when it was read, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Whether consumers' idle times can be acted on: the server was watched without a break for as long as it takes a consumer to be dead. One
    /// that was a replica before, or was restarted, does not know of reads that found nothing, and tells of longer times.
    pub idle_times_hold: bool,
    /// Entries ever added, where the server tells.
    pub entries_added: Option<u64>,
    /// How fast it changes.
    pub rates: StreamRates,
    /// Up to where it may be trimmed; `None` unless all its groups are read.
    pub safe_to_trim: Option<Box<SafeToTrim>>,
}

/// One monitored group of one stream.
#[derive(Clone, Debug)]
pub struct GroupSnapshot {
    /// Its name.
    pub name: GroupName,
    /// Whether it is there, and what is known of it.
    pub presence: Presence,
}

/// Whether a monitored group is there.
#[derive(Clone, Debug)]
pub enum Presence {
    /// The stream could not be read, so this is unknown.
    Unknown,
    /// The stream is there and the group is not.
    Missing,
    /// It is there.
    Present(Box<PresentGroup>),
}

/// What is known of a group that exists.
#[derive(Clone, Debug)]
pub struct PresentGroup {
    /// How many consumers it has; `None` where the server told something that cannot be, as for the next two.
    pub consumers: Option<u64>,
    /// Entries delivered and not acknowledged.
    pub pending: Option<u64>,
    /// The last id the group was given.
    pub last_delivered: Option<EntryId>,
    /// Entries ever delivered, where the server knows it.
    pub entries_read: Option<u64>,
    /// Entries not yet delivered, and how sure that is.
    pub lag: Lag,
    /// Age of the oldest undelivered entry, 0 where there is none; `None` where it is not known or ids are not clocks.
    pub lag_seconds: Option<f64>,
    /// Age of the oldest pending entry; `None` where nothing is pending, it is not known, or ids are not clocks.
    pub oldest_pending_seconds: Option<f64>,
    /// The oldest pending entry, and who holds it; `None` where nothing is pending or it is not known.
    pub oldest_pending: Option<(EntryId, Option<ConsumerName>)>,
    /// How often the oldest pending entry was delivered; `None` where nothing is pending or it is not known.
    pub oldest_pending_deliveries: Option<u64>,
    /// Pending entries that no consumer holds (Redis 8.8: `XNACK`), where that is known.
    pub unowned_pending: Option<u64>,
    /// What the samples over time say of it: losses, rates, state.
    pub trend: GroupTrend,
    /// Entries that the stream can still drop before the group loses one: a lower bound. `None` where trimming spares what is not
    /// delivered.
    pub trim_headroom_entries: Option<u64>,
    /// Seconds until then, at the present speed of trimming; `None` where nothing is trimmed, it spares what is not delivered, or
    /// that is unknown.
    pub trim_headroom_seconds: Option<f64>,
    /// Pending entries whose payload is gone: a lower bound, where it is known.
    pub ghost_pending: Option<u64>,
    /// Seconds until the group has caught up, at the present rates; `None` where it does not catch up.
    pub drain_seconds: Option<f64>,
    /// How many consumers it should have.
    pub recommendation: Recommendation,
    /// The consumers, by name; `None` where Redis would not tell. Where there are too many, those that hold most.
    pub members: Option<Vec<ConsumerSnapshot>>,
    /// The others; `None` where there are none.
    pub overflow: Option<Overflow>,
    /// Consumers that are dead: those that hold pending entries, and those that hold none. `None` where Redis does not show
    /// consumers.
    pub dead: Option<(u64, u64)>,
}

/// Consumers that are not shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// How many they are.
    pub consumers: u64,
    /// Entries that were given to them and not acknowledged.
    pub pending: u64,
}

/// One consumer of one group.
#[derive(Clone, Debug)]
pub struct ConsumerSnapshot {
    /// What was read of it.
    pub sample: ConsumerReply,
    /// Whether it is alive; `None` where that is unknown, as it has nothing to do.
    pub active: Option<bool>,
    /// Age of its oldest pending entry, where that comes along for free: it holds the group's oldest.
    pub oldest_pending_seconds: Option<f64>,
    /// Its health, from 0 (dead) to 100.
    pub health: u8,
}

impl GroupSnapshot {
    /// The group, where it exists.
    #[must_use]
    pub fn present(&self) -> Option<&PresentGroup> {
        match &self.presence {
            Presence::Present(group) => Some(group),
            Presence::Unknown | Presence::Missing => None,
        }
    }

    /// Its state; `None` where that is unknown.
    #[must_use]
    pub fn state(&self) -> Option<GroupState> {
        match &self.presence {
            Presence::Present(group) => Some(group.trend.verdict.state),
            Presence::Missing => Some(GroupState::NoGroup),
            Presence::Unknown => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::analysis::group_history::GroupHistory;
    use crate::analysis::window::Windows;
    use crate::model::sample::{GroupSample, StreamSample};

    pub(crate) const WINDOWS: Windows = Windows {
        window: Duration::from_secs(30),
        samples: 3,
        dead_after: Duration::from_secs(60),
        drain_target: Duration::from_secs(60),
    };

    /// A stream that was read, of which nothing is known.
    pub(crate) fn stream_facts() -> StreamFacts {
        StreamFacts {
            length: 0,
            groups: 0,
            first: None,
            last: None,
            now_ms: 0,
            idle_times_hold: true,
            entries_added: None,
            rates: StreamRates::default(),
            safe_to_trim: None,
        }
    }

    /// A group with this lag, sampled for the first time, of which nothing else is known.
    pub(crate) fn present_group(lag: Lag) -> PresentGroup {
        let (sample, of) = (StreamSample::default(), GroupSample::default());
        PresentGroup {
            consumers: None,
            pending: None,
            last_delivered: None,
            entries_read: None,
            lag,
            lag_seconds: None,
            oldest_pending_seconds: None,
            oldest_pending: None,
            oldest_pending_deliveries: None,
            unowned_pending: None,
            trend: GroupHistory::new(&sample, &of, Duration::ZERO).take(&sample, &of, Duration::ZERO, None, &WINDOWS),
            trim_headroom_entries: None,
            trim_headroom_seconds: None,
            ghost_pending: None,
            drain_seconds: None,
            recommendation: Recommendation::NoRates,
            members: None,
            overflow: None,
            dead: None,
        }
    }
}
