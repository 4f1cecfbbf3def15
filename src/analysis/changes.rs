//! What changes from one poll to the next, as events: each change once, not on every poll. The log is one consumer of them.

mod detector;
mod group_states;

use std::time::Duration;

use crate::analysis::group_state::{GroupState, Verdict};
use crate::model::sample::{ReadError, RefusedCommand, SampleError, ServerInfo};
use crate::model::{GroupName, StreamKey};

pub use detector::ChangeDetector;

/// One change of one target. It borrows from the poll that brought it: what is to be kept is cloned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change<'a> {
    /// A poll failed, for a reason that this outage has not had before.
    PollFailed(&'a SampleError),
    /// The first poll that succeeds after an outage.
    PollRecovered {
        /// The time from the first failed poll to now.
        down: Duration,
    },
    /// The target is sampled for the first time, or is another server or version than before.
    Server(&'a ServerInfo),
    /// A node of a cluster, or the master that sentinels name, could not be sampled, for a reason that it has not had before.
    NodeFailed {
        /// Its address.
        address: &'a str,
        /// Why.
        error: &'a str,
        /// Sampled streams that it has.
        streams: u64,
    },
    /// The node was sampled again.
    NodeRecovered {
        /// Its address.
        address: &'a str,
    },
    /// A node that could not be sampled is no master any more.
    NodeGone {
        /// Its address.
        address: &'a str,
    },
    /// A stream cannot be read, or cannot for another reason than before. Not told where its node is the reason.
    StreamUnreadable {
        /// The stream.
        stream: &'a StreamKey,
        /// Why.
        error: &'a ReadError,
    },
    /// A stream can be read again.
    StreamReadable {
        /// The stream.
        stream: &'a StreamKey,
    },
    /// A monitored group does not exist.
    GroupMissing {
        /// Its stream.
        stream: &'a StreamKey,
        /// The group.
        group: &'a GroupName,
    },
    /// A group that was missing exists.
    GroupFound {
        /// Its stream.
        stream: &'a StreamKey,
        /// The group.
        group: &'a GroupName,
    },
    /// A group is in another state than at the poll before. A group that went, or cannot be read, begins again at `ok`.
    GroupState(GroupStateChange<'a>),
    /// Some groups have names too long to ask about their consumers.
    LongGroupNames {
        /// How many.
        groups: usize,
    },
    /// Redis refuses a command that a sample can do without.
    CommandRefused(RefusedCommand),
    /// Redis allows it again.
    CommandAllowed(RefusedCommand),
    /// A round trip took longer than the limit.
    RoundTripSlow {
        /// How long it took.
        round_trip: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Round trips are clearly within the limit again.
    RoundTripNormal {
        /// How long the newest took.
        round_trip: Duration,
    },
    /// More than a limit allows: some are left out.
    LimitExceeded {
        /// Which limit.
        limit: Limit,
        /// How many are left out.
        left_out: u64,
    },
    /// A limit leaves nothing out any more.
    LimitKept(Limit),
    /// A complete search found other streams than the one before.
    StreamsDiscovered {
        /// Streams that were not sampled before.
        new: usize,
        /// Streams that are not sampled any more.
        gone: usize,
        /// Streams that are sampled.
        streams: usize,
    },
    /// A logical stream has no partition with a monitored group.
    LogicalStreamEmpty(&'a str),
    /// It has one again.
    LogicalStreamFilled(&'a str),
    /// Polls are further apart than configured, to keep within `poll.max-redis-share`.
    IntervalStretched {
        /// The interval in force.
        in_force: Duration,
        /// The configured one.
        configured: Duration,
    },
    /// Polls are as far apart as configured again.
    IntervalRestored {
        /// The interval in force.
        in_force: Duration,
    },
}

/// A group's change of state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupStateChange<'a> {
    /// Its stream.
    pub stream: &'a StreamKey,
    /// The group.
    pub group: &'a GroupName,
    /// The state before.
    pub was: GroupState,
    /// The state from now on, with its reason.
    pub verdict: &'a Verdict,
    /// Entries not delivered: the point value.
    pub lag: u64,
    /// Entries lost so far.
    pub lost: u64,
}

/// A limit of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limit.streams`.
    Streams,
    /// `limit.groups`.
    Groups,
    /// `limit.consumers`.
    Consumers,
}

impl Limit {
    /// The setting, and what it does where it is exceeded.
    #[must_use]
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Streams => ("limit.streams", "streams are not sampled"),
            Self::Groups => ("limit.groups", "groups are not monitored"),
            Self::Consumers => ("limit.consumers", "consumers are shown as a sum only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_by_its_setting_and_by_what_it_leaves_out() {
        for (limit, what) in [(Limit::Streams, "streams"), (Limit::Groups, "groups"), (Limit::Consumers, "consumers")] {
            let (setting, effect) = limit.describe();
            assert_eq!(setting, format!("limit.{what}"));
            assert!(effect.starts_with(&format!("{what} are ")), "{effect}");
        }
    }
}
