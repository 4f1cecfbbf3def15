//! Every metric's name, kind, labels and meaning: the one place where a metric is named.
//!
//! `docs/metrics.md` is checked against this table and against a page of the running program.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry};

/// One metric family.
#[derive(Debug)]
pub struct Name {
    /// The family's name, without the `_total` and `_info` that the format adds to counters and infos.
    pub family: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, with a full stop.
    pub help: &'static str,
}

/// The kinds of metric in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up, and starts again at 0 or where the server starts again.
    Counter,
    /// Counts observations in buckets.
    Histogram,
    /// Always 1; the labels are the message.
    Info,
}

impl Kind {
    /// The word that both formats use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// As prometheus-client has it.
    #[must_use]
    pub fn metric_type(self) -> MetricType {
        match self {
            Self::Gauge => MetricType::Gauge,
            Self::Counter => MetricType::Counter,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

impl Name {
    /// The name of its series: the family's, with the suffix of its kind.
    #[must_use]
    pub fn series(&self) -> String {
        match self.kind {
            Kind::Gauge | Kind::Histogram => self.family.to_owned(),
            Kind::Counter => format!("{}_total", self.family),
            Kind::Info => format!("{}_info", self.family),
        }
    }

    /// Registers a metric under this name. The registry puts the full stop behind the help itself.
    pub fn register(&self, registry: &mut Registry, metric: impl Metric) {
        registry.register(self.family, self.help.trim_end_matches('.'), metric);
    }
}

const STREAM: &[&str] = &["stream"];
const GROUP: &[&str] = &["stream", "consumer_group"];
const LOGICAL: &[&str] = &["logical_stream", "consumer_group"];
const CONSUMER: &[&str] = &["stream", "consumer_group", "consumer"];

/// What is of the process and not of a target. The version is said of both: it is what dashboards know a streamlag by.
pub const OF_PROCESS: &[&Name] = &[
    &HTTP_REQUESTS,
    &HTTP_REQUEST_DURATION,
    &HTTP_CONNECTIONS,
    &HTTP_CONNECTIONS_CLOSED,
    &TASKS,
    &PANICS,
    &RELOAD_SUCCESSFUL,
    &RELOAD_TIME,
    &PROCESS_CPU,
    &PROCESS_RESIDENT,
    &PROCESS_VIRTUAL,
    &PROCESS_OPEN_FDS,
    &PROCESS_MAX_FDS,
    &PROCESS_THREADS,
    &PROCESS_START,
];

/// Declares the names and the list of all of them.
macro_rules! names {
    ($($id:ident = $family:literal, $kind:ident, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Name = Name { family: $family, kind: Kind::$kind, labels: $labels, help: $help };
        )*
        /// Every metric there is, in the order of the page's description.
        pub const ALL: &[&Name] = &[$(&$id),*];
    };
}

names! {
    LAG = "event_consumer_lag", Gauge, GROUP,
        "Entries in the stream that the group has not been given yet.";
    LAG_UNCERTAINTY = "event_consumer_lag_uncertainty", Gauge, GROUP,
        "How far apart the proven bounds of the lag are, in entries; 0 where the lag is exact.";
    LAG_SECONDS = "event_consumer_lag_seconds", Gauge, GROUP,
        "Age of the oldest entry that the group has not been given yet; 0 where there is none.";
    GROUP_ENTRIES_READ = "event_consumer_group_entries_read", Counter, GROUP,
        "Entries given to the group, where the server knows it (Redis 7.0 and later).";
    GROUP_PENDING = "event_consumer_group_pending", Gauge, GROUP,
        "Entries given to the group's consumers and not acknowledged.";
    GROUP_OLDEST_PENDING = "event_consumer_group_oldest_pending_seconds", Gauge, GROUP,
        "Age of the oldest pending entry of the group; absent where nothing is pending.";
    GROUP_CONSUMERS = "event_consumer_group_consumers", Gauge, GROUP,
        "Consumers of the group, alive or not.";
    GROUP_STATE = "event_consumer_group_state", Gauge, &["stream", "consumer_group", "state"],
        "Always 1; the label state is the state that the group is in, and there is no series of the others.";
    GROUP_LOST = "event_consumer_group_lost_entries", Counter, GROUP,
        "Entries that were gone before the group was given them, since streamlag first saw the group; a proven lower bound.";
    GROUP_HEADROOM = "event_consumer_group_trim_headroom_entries", Gauge, GROUP,
        "Entries that the stream can still drop before the group loses one; a lower bound.";
    GROUP_HEADROOM_SECONDS = "event_consumer_group_trim_headroom_seconds", Gauge, GROUP,
        "Time until the group loses an entry, at the present speed of trimming; absent where nothing is trimmed.";
    GROUP_GHOSTS = "event_consumer_group_ghost_pending", Gauge, GROUP,
        "Pending entries of the group whose payload is gone from the stream; a lower bound.";
    GROUP_DELIVERED_RATE = "event_consumer_group_delivered_per_second", Gauge, GROUP,
        "Entries given to the group per second, over the window; absent until it is known.";
    GROUP_ACKNOWLEDGED_RATE = "event_consumer_group_acknowledged_estimate_per_second", Gauge, GROUP,
        "Entries acknowledged per second, over the window: an estimate from deliveries and pending entries.";
    GROUP_DRAIN = "event_consumer_group_drain_seconds", Gauge, GROUP,
        "Time until the group has caught up, at the present rates; absent where it is not catching up.";
    GROUP_DEAD_HOLDING = "event_consumer_group_dead_consumers_with_pending", Gauge, GROUP,
        "Consumers that are dead and hold pending entries, which somebody else has to claim.";
    GROUP_DEAD_EMPTY = "event_consumer_group_dead_consumers_without_pending", Gauge, GROUP,
        "Consumers that are dead and hold nothing: safe to delete.";
    GROUP_RECOMMENDED = "event_consumer_group_recommended_consumers", Gauge, GROUP,
        "Consumers it takes to keep up and to drain the lag in the time asked for, at what one now manages; absent where that is not known.";
    GROUP_OVERFLOW = "event_consumer_group_overflow_consumers", Gauge, GROUP,
        "Consumers of the group that have no series of their own, because there are more than --limit.consumers; absent where there are none.";
    GROUP_OVERFLOW_PENDING = "event_consumer_group_overflow_pending", Gauge, GROUP,
        "Entries given to those consumers and not acknowledged.";
    INSTANCE_PENDING = "event_consumer_instance_pending", Gauge, CONSUMER,
        "Entries given to the consumer and not acknowledged.";
    INSTANCE_IDLE = "event_consumer_instance_idle_seconds", Gauge, CONSUMER,
        "Time since the consumer last tried to read (Redis 7.2 and later) or last read something (before).";
    INSTANCE_INACTIVE = "event_consumer_instance_inactive_seconds", Gauge, CONSUMER,
        "Time since the consumer was last given an entry (Redis 7.2 and later); absent where it never was.";
    INSTANCE_HEALTH = "event_consumer_instance_health_score", Gauge, CONSUMER,
        "Health of the consumer, 0 (dead) to 100; the formula is in docs/lag.md.";
    STREAM_UP = "event_stream_up", Gauge, STREAM,
        "1 where the stream could be read, 0 where not; then it has no other series.";
    STREAM_LENGTH = "event_stream_length", Gauge, STREAM,
        "Entries in the stream.";
    STREAM_GROUPS = "event_stream_groups", Gauge, STREAM,
        "Consumer groups of the stream, monitored or not.";
    STREAM_FIRST_ENTRY = "event_stream_first_entry_timestamp_seconds", Gauge, STREAM,
        "Time in the id of the stream's first entry; absent where it is empty or ids are not clocks.";
    STREAM_LAST_ENTRY = "event_stream_last_entry_timestamp_seconds", Gauge, STREAM,
        "Time in the id of the stream's last entry; absent where it is empty or ids are not clocks.";
    STREAM_ENTRIES_ADDED = "event_stream_entries_added", Counter, STREAM,
        "Entries ever added to the stream (Redis 7.0 and later).";
    STREAM_ADDED_RATE = "event_stream_added_per_second", Gauge, STREAM,
        "Entries added to the stream per second, over the window (Redis 7.0 and later); absent until it is known.";
    STREAM_RECLAIMABLE = "event_stream_reclaimable_entries", Gauge, STREAM,
        "Entries that every group of the stream was given and has acknowledged, up to the first that one was not: a trim may take them. A lower bound; absent unless all groups are monitored.";
    STREAM_REMOVED_RATE = "event_stream_removed_per_second", Gauge, STREAM,
        "Entries trimmed or deleted from the stream per second, over the window (Redis 7.0 and later); absent until it is known.";
    STREAM_LAG_THRESHOLD = "event_stream_lag_threshold", Gauge, &["stream", "level"],
        "The lag from which a stream is called degraded, and above which it is called unhealthy, where --lag.thresholds has them for the stream; else streamlag_lag_threshold holds.";
    LOGICAL_LAG = "event_logical_stream_lag", Gauge, LOGICAL,
        "Entries in all partitions of a logical stream that the group has not been given yet; at least so many where partitions are unknown, and absent where that would be 0.";
    LOGICAL_LAG_UNCERTAINTY = "event_logical_stream_lag_uncertainty", Gauge, LOGICAL,
        "How far apart the proven bounds of the logical stream's lag are, in entries; absent where partitions are unknown.";
    LOGICAL_LAG_WORST = "event_logical_stream_lag_worst", Gauge, LOGICAL,
        "Lag of the partition that has most of it, in entries.";
    LOGICAL_LAG_SECONDS = "event_logical_stream_lag_seconds", Gauge, LOGICAL,
        "Age of the oldest entry of any partition that the group has not been given yet; at least so old where partitions are unknown, and absent where that of one that was read is not known.";
    LOGICAL_LAG_SKEW = "event_logical_stream_lag_skew_ratio", Gauge, LOGICAL,
        "Lag of the worst partition over the average of all: 1 where they are even; absent where there is no lag.";
    LOGICAL_PARTITIONS = "event_logical_stream_partitions", Gauge, LOGICAL,
        "Partitions of the logical stream that are sampled.";
    LOGICAL_PARTITIONS_UNKNOWN = "event_logical_stream_partitions_unknown", Gauge, LOGICAL,
        "Partitions that could not be read or do not have the group.";
    STREAMS = "streamlag_streams", Gauge, &[],
        "Streams that are sampled, named and found.";
    SHARD = "streamlag_shard", Info, &["shard"],
        "Which share of the streams is sampled, such as 1/3; absent where all are.";
    DISCOVERY_STREAMS = "streamlag_discovery_streams", Gauge, &[],
        "Streams that patterns found; absent where there are no patterns.";
    DISCOVERY_INTERVAL = "streamlag_discovery_interval_seconds", Gauge, &[],
        "The time within which a new stream is to show; absent where there are no patterns.";
    DISCOVERY_SCAN = "streamlag_discovery_scan_seconds", Gauge, &[],
        "How long the newest complete search for streams took; absent before the first.";
    DISCOVERY_LAST_SCAN = "streamlag_discovery_last_scan_timestamp_seconds", Gauge, &[],
        "When the newest complete search for streams ended; 0 before the first, absent where there are no patterns.";
    REDIS_UP = "streamlag_redis_up", Gauge, &[],
        "1 where Redis answered the newest poll, 0 where not, before the first, and where the one under way takes so long that the last sample is too old to be shown.";
    REDIS_SERVER = "streamlag_redis_server", Info, &["server", "version"],
        "The server that answers.";
    REDIS_ROUND_TRIP = "streamlag_redis_round_trip_seconds", Gauge, &[],
        "How long the newest poll's first command took to be answered.";
    REDIS_ROUND_TRIP_LIMIT = "streamlag_redis_round_trip_limit_seconds", Gauge, &[],
        "What a round trip is held against: the publish timeout of the event transport.";
    REDIS_COMMANDS = "streamlag_redis_commands", Counter, &["command"],
        "Commands sent to Redis.";
    REDIS_NODE_UP = "streamlag_redis_node_up", Gauge, &["node"],
        "1 where a master of the cluster answered the newest poll, 0 where not; with sentinels, the master that they name.";
    REDIS_NODE_STREAMS = "streamlag_redis_node_streams", Gauge, &["node"],
        "Sampled streams that the node has.";
    REDIS_REDIRECTS = "streamlag_redis_redirects", Counter, &["kind"],
        "Streams that a node of the cluster said are elsewhere: moved, or ask (on their way).";
    REDIS_MASTER_CHANGES = "streamlag_redis_master_changes", Counter, &[],
        "How often the sentinels named another master.";
    COUNTED_ENTRIES = "streamlag_counted_entries", Counter, &[],
        "Entries read from Redis to count what its counters do not tell.";
    LAST_SUCCESSFUL_POLL = "streamlag_last_successful_poll_timestamp_seconds", Gauge, &[],
        "When the newest poll that Redis answered began; 0 before the first.";
    POLL_INTERVAL = "streamlag_poll_interval_seconds", Gauge, &[],
        "The configured time between polls.";
    POLL_EFFECTIVE_INTERVAL = "streamlag_poll_effective_interval_seconds", Gauge, &[],
        "The time between polls that is in force: the configured one, or longer where polls would take more of Redis's time than --poll.max-redis-share.";
    REDIS_TIME = "streamlag_redis_time_seconds", Counter, &[],
        "Redis's time that samples took, as seen from here: how long answers were waited for, less the way there and back. It may be less, as others are served meanwhile.";
    REDIS_TIME_LIMIT = "streamlag_redis_time_ratio_limit", Gauge, &[],
        "The most of one core of Redis's time that polls may take: --poll.max-redis-share.";
    OVER_LIMIT = "streamlag_over_limit", Gauge, &["limit"],
        "How many there are more than the limit allows: streams and groups that are left out, consumers that are only summed.";
    POLL_DURATION = "streamlag_poll_duration_seconds", Histogram, &[],
        "How long polls took, failed ones included.";
    POLLS = "streamlag_polls", Counter, &["outcome"],
        "Number of polls, by outcome: success, partial (something could not be read), failure (nothing could be read).";
    POLL_FAILURES = "streamlag_poll_failures", Counter, &["reason"],
        "Number of failed polls, by reason: connect, timeout, auth, loading, protocol, io, server.";
    LAG_THRESHOLD = "streamlag_lag_threshold", Gauge, &["level"],
        "The lag from which a stream is called degraded, and above which it is called unhealthy.";
    HTTP_REQUESTS = "streamlag_http_requests", Counter, &["path", "code"],
        "HTTP requests answered, by route and status.";
    HTTP_REQUEST_DURATION = "streamlag_http_request_duration_seconds", Histogram, &["path"],
        "How long answering HTTP requests took, without sending the answer.";
    HTTP_CONNECTIONS = "streamlag_http_connections", Gauge, &[],
        "Open connections of HTTP clients.";
    HTTP_CONNECTIONS_CLOSED = "streamlag_http_connections_closed", Counter, &["reason"],
        "Connections of HTTP clients that streamlag closed early, by reason: they took too long, or others needed the place.";
    TASKS = "streamlag_tasks", Gauge, &[],
        "Tasks of streamlag that are running or waiting: a handful, and one for each connection of a client.";
    PANICS = "streamlag_panics", Counter, &[],
        "Defects of streamlag that ended a task: each is one to report.";
    LOG_LINES_DROPPED = "streamlag_log_lines_dropped", Counter, &[],
        "Log lines that were not written: nobody read the log, or there was no room for it.";
    RELOAD_SUCCESSFUL = "streamlag_config_last_reload_successful", Gauge, &[],
        "1 where the newest reload of the configuration succeeded, or there was none; 0 where it changed nothing.";
    RELOAD_TIME = "streamlag_config_last_reload_success_timestamp_seconds", Gauge, &[],
        "When the configuration that holds was read.";
    BUILD = "streamlag_build", Info, &["version"],
        "The version of streamlag.";
    PROCESS_CPU = "process_cpu_seconds", Counter, &[],
        "Total user and system CPU time spent in seconds.";
    PROCESS_RESIDENT = "process_resident_memory_bytes", Gauge, &[],
        "Resident memory size in bytes.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes", Gauge, &[],
        "Virtual memory size in bytes.";
    PROCESS_OPEN_FDS = "process_open_fds", Gauge, &[],
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds", Gauge, &[],
        "Maximum number of open file descriptors.";
    PROCESS_THREADS = "process_threads", Gauge, &[],
        "Number of operating system threads of the process.";
    PROCESS_START = "process_start_time_seconds", Gauge, &[],
        "Start time of the process since the Unix epoch in seconds.";
}
