//! What one poll found: what the server said, resolved against the polls before.

use std::time::{Duration, SystemTime};

use super::lag::{Continuity, Resolved};
pub use super::read_error::ReadError;
use super::reply::{ConsumerReply, GroupReply, StreamReply, UnknownFields};

use crate::model::{ConsumerName, EntryId, FailureReason, GroupName, StreamKey};

/// What one poll tells of a target apart from its streams.
#[derive(Clone, Debug)]
pub struct TargetMeta {
    /// The local clock just before the sample's first command was sent.
    pub sampled_at: SystemTime,
    /// The server's own clock, milliseconds since the Unix epoch; the local one where the server would not tell.
    pub server_now_ms: u64,
    /// Who answered.
    pub server: ServerInfo,
    /// How long the sample's first command took to be answered.
    pub round_trip: Duration,
    /// Commands that Redis would not let this user run; what they tell is left out.
    pub refused: Vec<RefusedCommand>,
    /// Streams that are not sampled because there are too many.
    pub streams_left_out: u64,
    /// How the search for streams stands; `None` where none are searched for.
    pub search: Option<Search>,
    /// The masters of a cluster, by address; the one that the sentinels named; empty for a server by itself.
    pub nodes: Vec<NodeStatus>,
}

impl TargetMeta {
    /// Nothing told yet by a sample of this time.
    #[must_use]
    pub fn at(sampled_at: SystemTime) -> Self {
        Self {
            sampled_at,
            server_now_ms: 0,
            server: ServerInfo::default(),
            round_trip: Duration::ZERO,
            refused: Vec::new(),
            streams_left_out: 0,
            search: None,
            nodes: Vec::new(),
        }
    }
}

/// What one poll read from one Redis.
#[derive(Clone, Debug)]
pub struct TargetSample {
    /// What it tells apart from the streams.
    pub meta: TargetMeta,
    /// One entry per stream, in the order in which [`Sink::begin`] is told of them; none where they were handed to a sink.
    pub streams: Vec<(StreamKey, Result<StreamSample, ReadError>)>,
    /// Redis's time that the sample took, as seen from here: how long it was waited for, less the way there and back.
    pub redis_time: Duration,
}

/// How one of several servers answered a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where it is, as its cluster or its sentinels say.
    pub address: String,
    /// The sampled streams that it has.
    pub streams: u64,
    /// Why it could not be sampled.
    pub error: Option<String>,
}

impl NodeStatus {
    /// The error of its streams where it could not be sampled.
    #[must_use]
    pub fn why(&self) -> Option<ReadError> {
        self.error.as_ref().map(|error| ReadError::Node { address: self.address.clone(), error: error.clone() })
    }
}

/// How the search for the streams that patterns mean stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Streams that it found and that are sampled.
    pub found: u64,
    /// When the newest complete pass ended and how long it had taken; `None` before the first.
    pub completed: Option<(SystemTime, Duration)>,
}

/// Takes the streams of a sample as they are read, in any order.
pub trait Sink: Send {
    /// A sample begins, of these streams. Where one breaks off and begins again, what came of it so far does not count.
    fn begin(&mut self, streams: &[StreamKey]);

    /// The stream at this place was read, or cannot be.
    fn stream(&mut self, at: usize, read: Result<StreamSample, ReadError>);

    /// The stream at this place was found by a pattern, and is not there any more.
    fn gone(&mut self, at: usize);
}

/// Who answered, as `HELLO` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// `redis`, `valkey`, …; empty where the server does not know `HELLO` (before 6.0).
    pub name: String,
    /// The version as the server writes it.
    pub version: String,
}

/// The first Redis that can remove entries without a trace, by `XTRIM … ACKED`.
const TRIMS_ACKNOWLEDGED: (u64, u64) = (8, 2);

/// The newest Valkey that is known to have no such command.
const VALKEY_WITHOUT: (u64, u64) = (9, 1);

impl ServerInfo {
    /// The name of a server that says it is `redis`, and tells a version of its own as well.
    pub const DRAGONFLY: &str = "dragonfly";

    /// Whether the answers of a transaction are of one moment. `XINFO` locks no key in Dragonfly, so others may write between two of
    /// them (dragonflydb/dragonfly, src/server/stream_family.cc).
    #[must_use]
    pub fn isolates_transactions(&self) -> bool {
        self.name != Self::DRAGONFLY
    }

    /// Whether the server may remove entries without a trace: neither a higher `max-deleted-entry-id` nor a later first entry. So does
    /// any that is not known not to.
    #[must_use]
    pub fn trims_acknowledged(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u64>().ok());
        let version = parts.next().flatten().zip(parts.next().flatten());
        match (self.name.as_str(), version) {
            ("redis", Some(version)) => version >= TRIMS_ACKNOWLEDGED,
            ("valkey", Some(version)) => version > VALKEY_WITHOUT,
            _ => true,
        }
    }
}

/// One stream at one moment, and what follows for its groups from this moment and those before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSample {
    /// What the server said of it.
    pub reply: StreamReply,
    /// Whether only the length and the groups are of this sample, and the rest of an earlier one: the stream's entries are
    /// too large to be read every time.
    pub carried: bool,
    /// Whether the next samples may be this one again, for that reason.
    pub may_be_carried: bool,
    /// How it goes on from the sample before.
    pub continuity: Continuity,
    /// The clock of the server that holds it when it was read, milliseconds since the Unix epoch; the local one where the server
    /// would not tell.
    pub now_ms: u64,
    /// Up to where it may be trimmed; `None` unless all its groups are read.
    pub safe_to_trim: Option<Box<SafeToTrim>>,
    /// Groups that are to be monitored and are not, because there are too many.
    pub groups_left_out: u64,
    /// Every group of the stream, monitored or not.
    pub groups: Vec<GroupSample>,
}

/// Up to where a stream may be trimmed without taking anything from any group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafeToTrim {
    /// The smallest id that some group has not been given, or has not acknowledged: all entries below it may go.
    pub id: EntryId,
    /// That group.
    pub held_by: GroupName,
    /// Entries below the id: a lower bound.
    pub reclaimable: u64,
}

/// One group of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSample {
    /// Its name.
    pub name: GroupName,
    /// How many consumers it has.
    pub consumers: u64,
    /// Entries delivered and not acknowledged.
    pub pending: u64,
    /// The group's cursor: the last id it was given.
    pub last_delivered: EntryId,
    /// Entries ever delivered, where the server knows it (7.0 and later, and not after every `SETID`).
    pub entries_read: Option<u64>,
    /// What the server told that cannot be.
    pub unknown: UnknownFields,
    /// The smallest id among the pending entries: of this sample, or of an earlier one where nothing has changed since.
    pub oldest_pending: Option<EntryId>,
    /// The consumer that holds it; `None` also where none does (Redis 8.8: `XNACK`).
    pub oldest_pending_consumer: Option<ConsumerName>,
    /// How often it was delivered, where the server tells.
    pub oldest_pending_deliveries: Option<u64>,
    /// Pending entries that are gone from the stream, where they were counted: a lower bound.
    pub ghost_pending: Option<u64>,
    /// Pending entries that no consumer holds, where that is known.
    pub unowned_pending: Option<u64>,
    /// The group's consumers, where they were asked for and told.
    pub members: Option<Vec<ConsumerReply>>,
    /// What follows from this sample and those before it; `None` where the group is not monitored.
    pub resolved: Option<Resolved>,
}

impl GroupSample {
    /// What follows for a group of which the server said this.
    #[must_use]
    pub fn new(reply: GroupReply, resolved: Option<Resolved>) -> Self {
        let oldest = reply.oldest_pending.flatten();
        let (id, rest) = oldest.map(|oldest| (oldest.id, (oldest.consumer, oldest.deliveries))).unzip();
        let (oldest_pending_consumer, oldest_pending_deliveries) = rest.unwrap_or_default();
        Self {
            name: reply.name,
            consumers: reply.consumers,
            pending: reply.pending,
            last_delivered: reply.last_delivered,
            entries_read: reply.entries_read,
            unknown: reply.unknown,
            oldest_pending: id,
            oldest_pending_consumer,
            oldest_pending_deliveries,
            ghost_pending: reply.ghost_pending,
            unowned_pending: reply.unowned_pending,
            members: reply.members,
            resolved,
        }
    }

    /// Whether it is monitored.
    #[must_use]
    pub fn is_monitored(&self) -> bool {
        self.resolved.is_some()
    }
}

/// A command that adds to a sample and that Redis refused: by ACL, or as it does not know it (renamed away, a proxy, a server that
/// is compatible with Redis in part). The sample goes on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusedCommand {
    /// `TIME`: ages are then taken against the local clock.
    Time,
    /// `XINFO CONSUMERS`: no consumers are shown.
    XinfoConsumers,
    /// `XPENDING`: no oldest pending entry is shown.
    Xpending,
    /// `XLEN`: streams with large entries are read each time, as nothing else tells whether they changed.
    Xlen,
    /// `XRANGE`: no lag is counted, and no oldest undelivered entry shown where the stream's first one does not tell.
    Xrange,
    /// `SCAN`: streams that only a pattern means are not found.
    Scan,
    /// `MULTI`, also of a server that is out of memory and may not evict: it queues no command then, not even one that reads. A
    /// stream is asked about twice instead, and what lies between counts where both answers agree.
    Multi,
    /// `EXEC`: the same. `MULTI` must not be sent then, as nothing ends the transaction that it begins.
    Exec,
}

impl RefusedCommand {
    /// The command and what is lost without it.
    #[must_use]
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Time => ("TIME", "ages are taken against the local clock"),
            Self::XinfoConsumers => ("XINFO CONSUMERS", "no consumers are shown"),
            Self::Xpending => ("XPENDING", "no oldest pending entry is shown"),
            Self::Xlen => ("XLEN", "streams with large entries are read whole each time"),
            Self::Xrange => {
                ("XRANGE", "no lag is counted, and lag in seconds is left out where the first entry does not tell")
            }
            Self::Scan => ("SCAN", "streams that match a pattern are not found"),
            Self::Multi => ("MULTI", "streams that change while they are read are not shown"),
            Self::Exec => ("EXEC", "streams that change while they are read are not shown"),
        }
    }
}

/// Why Redis as a whole could not be sampled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SampleError {
    /// The kind of failure, for the metric.
    pub reason: FailureReason,
    /// What was said, for the log and the API. Holds no secret.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::RefusedCommand::{Exec, Multi, Scan, Time, XinfoConsumers, Xlen, Xpending, Xrange};
    use super::ServerInfo;

    fn server(name: &str, version: &str) -> ServerInfo {
        ServerInfo { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_server_may_remove_entries_without_a_trace_unless_it_is_known_not_to() {
        let check = |name: &str, version: &str, expected| {
            assert_eq!(server(name, version).trims_acknowledged(), expected, "{name} {version}");
        };
        for version in ["6.0.20", "7.4.1", "8.0.3", "8.1.240"] {
            check("redis", version, false);
        }
        for version in ["8.2.0", "8.2", "8.6.1", "8.10.0", "9.0.0", "10.1.0", "8", "", "unstable"] {
            check("redis", version, true);
        }
        for version in ["7.2.5", "8.1.3", "9.0.0", "9.1.0"] {
            check("valkey", version, false);
        }
        for version in ["9.2.0", "9.10.0", "10.0.0", "9", ""] {
            check("valkey", version, true);
        }
        for name in ["keydb", "dragonfly", ""] {
            check(name, "6.2.0", true);
        }
    }

    #[test]
    fn transactions_are_of_one_moment_but_in_dragonfly() {
        let names = ["redis", "valkey", "", "dragonfly"];
        let isolates = names.map(|name| server(name, "7.4.0").isolates_transactions());
        assert_eq!(isolates, [true, true, true, false]);
    }

    #[test]
    fn a_refused_command_is_told_by_its_name_and_by_what_is_lost() {
        let all = [Time, XinfoConsumers, Xpending, Xlen, Xrange, Scan, Multi, Exec];
        let names = all.map(|command| command.describe().0);
        assert_eq!(names, ["TIME", "XINFO CONSUMERS", "XPENDING", "XLEN", "XRANGE", "SCAN", "MULTI", "EXEC"]);
        assert!(all.iter().all(|command| command.describe().1.contains(' ')));
    }
}
