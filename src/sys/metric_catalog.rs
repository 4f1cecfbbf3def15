//! Every metric's name, kind, labels and meaning: the one place where a metric is named.
//!
//! `docs/metrics.md` is checked against this table and against a page of the running program.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Metric, Registry};

/// One metric family.
#[derive(Debug)]
pub struct MetricName {
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

impl MetricName {
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
const FORECAST: &[&str] = &["stream", "consumer_group", "horizon", "quantile"];
const LEVEL_FORECAST: &[&str] = &["stream", "consumer_group", "level", "horizon", "quantile"];
const CONSUMER: &[&str] = &["stream", "consumer_group", "consumer"];

/// Metrics of the process, not of a target. The version is in both: dashboards identify a streamlag by it.
pub const OF_PROCESS: &[&MetricName] = &[
    &HTTP_REQUESTS,
    &HTTP_REQUEST_DURATION,
    &HTTP_CONNECTIONS,
    &HTTP_READER_BYTES,
    &HTTP_CONNECTIONS_CLOSED,
    &LIVE_VIEWERS,
    &LIVE_ENDED,
    &TASKS,
    &PANICS,
    &RELOAD_SUCCESSFUL,
    &RELOAD_TIME,
    &HISTORY_UP,
    &HISTORY_BYTES,
    &HISTORY_POINTS,
    &HISTORY_DROPPED,
    &FORECAST_MASE,
    &FORECAST_COVERAGE,
    &FORECAST_LEFT_OUT,
    &NOTIFICATIONS,
    &REMEDIATION_ACTS,
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
            pub const $id: MetricName = MetricName { family: $family, kind: Kind::$kind, labels: $labels, help: $help };
        )*
        /// Every metric there is, in the order of the page's description.
        pub const ALL: &[&MetricName] = &[$(&$id),*];
    };
}

names! {
    LAG = "event_consumer_lag", Gauge, GROUP,
        "Number of undelivered entries in the stream for the group.";
    LAG_UNCERTAINTY = "event_consumer_lag_uncertainty", Gauge, GROUP,
        "Difference between the proven upper and lower bound of the lag, in entries; 0 if the lag is exact.";
    LAG_SECONDS = "event_consumer_lag_seconds", Gauge, GROUP,
        "Age of the oldest undelivered entry for the group in seconds; 0 if there is none.";
    GROUP_ENTRIES_READ = "event_consumer_group_entries_read", Counter, GROUP,
        "Total number of entries delivered to the group, if the server reports it (Redis 7.0 and later).";
    GROUP_PENDING = "event_consumer_group_pending", Gauge, GROUP,
        "Number of entries delivered to the group and not acknowledged.";
    GROUP_OLDEST_PENDING = "event_consumer_group_oldest_pending_seconds", Gauge, GROUP,
        "Age of the group's oldest pending entry in seconds; absent if nothing is pending.";
    GROUP_OLDEST_DELIVERIES = "event_consumer_group_oldest_pending_deliveries", Gauge, GROUP,
        "Number of deliveries of the group's oldest pending entry; absent if nothing is pending.";
    GROUP_UNOWNED = "event_consumer_group_unowned_pending", Gauge, GROUP,
        "Number of pending entries of the group that no consumer holds (Redis 8.8: XNACK); absent if there are none or it is unknown.";
    GROUP_CONSUMERS = "event_consumer_group_consumers", Gauge, GROUP,
        "Number of consumers in the group, dead ones included.";
    GROUP_STATE = "event_consumer_group_state", Gauge, &["stream", "consumer_group", "state"],
        "State of the group, as the label state; always 1. Other states have no series.";
    GROUP_LOST = "event_consumer_group_lost_entries", Counter, GROUP,
        "Total number of entries removed before they were delivered to the group, since streamlag first saw the group; a proven lower bound.";
    GROUP_HEADROOM = "event_consumer_group_trim_headroom_entries", Gauge, GROUP,
        "Number of entries that can be trimmed from the stream before the group loses one; a lower bound.";
    GROUP_HEADROOM_SECONDS = "event_consumer_group_trim_headroom_seconds", Gauge, GROUP,
        "Time until the group loses an entry at the current trim rate, in seconds; absent if nothing is trimmed.";
    GROUP_GHOSTS = "event_consumer_group_ghost_pending", Gauge, GROUP,
        "Number of the group's pending entries whose payload is no longer in the stream; a lower bound.";
    GROUP_DELIVERED_RATE = "event_consumer_group_delivered_per_second", Gauge, GROUP,
        "Entries delivered to the group per second, over the window; absent until known.";
    GROUP_ACKNOWLEDGED_RATE = "event_consumer_group_acknowledged_estimate_per_second", Gauge, GROUP,
        "Entries acknowledged per second, over the window; an estimate from deliveries and pending entries.";
    GROUP_DRAIN = "event_consumer_group_drain_seconds", Gauge, GROUP,
        "Time until the group has no lag at the current rates, in seconds; absent if the lag does not shrink.";
    GROUP_DEAD_HOLDING = "event_consumer_group_dead_consumers_with_pending", Gauge, GROUP,
        "Number of dead consumers with pending entries, which other consumers have to claim.";
    GROUP_DEAD_EMPTY = "event_consumer_group_dead_consumers_without_pending", Gauge, GROUP,
        "Number of dead consumers without pending entries; safe to delete.";
    GROUP_RECOMMENDED = "event_consumer_group_recommended_consumers", Gauge, GROUP,
        "Number of consumers needed to keep up and to drain the lag within --group.drain-target, at what one consumer takes with enough to do; absent if unknown.";
    GROUP_OVERFLOW = "event_consumer_group_overflow_consumers", Gauge, GROUP,
        "Number of the group's consumers beyond --limit.consumers, which have no series of their own; absent if there are none.";
    GROUP_OVERFLOW_PENDING = "event_consumer_group_overflow_pending", Gauge, GROUP,
        "Number of entries delivered to the consumers beyond --limit.consumers and not acknowledged.";
    INSTANCE_PENDING = "event_consumer_instance_pending", Gauge, CONSUMER,
        "Number of entries delivered to the consumer and not acknowledged.";
    INSTANCE_IDLE = "event_consumer_instance_idle_seconds", Gauge, CONSUMER,
        "Time since the consumer's last attempt to read (Redis 7.2 and later) or last successful read (earlier versions), in seconds.";
    INSTANCE_INACTIVE = "event_consumer_instance_inactive_seconds", Gauge, CONSUMER,
        "Time since an entry was last delivered to the consumer (Redis 7.2 and later), in seconds; absent if none ever was.";
    INSTANCE_HEALTH = "event_consumer_instance_health_score", Gauge, CONSUMER,
        "Health score of the consumer, from 0 (dead) to 100; docs/lag.md has the formula.";
    STREAM_UP = "event_stream_up", Gauge, STREAM,
        "1 if the stream was read, 0 if not; then it has no other series.";
    STREAM_LENGTH = "event_stream_length", Gauge, STREAM,
        "Number of entries in the stream.";
    STREAM_GROUPS = "event_stream_groups", Gauge, STREAM,
        "Number of consumer groups of the stream, monitored or not.";
    STREAM_FIRST_ENTRY = "event_stream_first_entry_timestamp_seconds", Gauge, STREAM,
        "Timestamp in the ID of the stream's first entry, in seconds since the Unix epoch; absent if the stream is empty or IDs are not timestamps.";
    STREAM_LAST_ENTRY = "event_stream_last_entry_timestamp_seconds", Gauge, STREAM,
        "Timestamp in the ID of the stream's last entry, in seconds since the Unix epoch; absent if the stream is empty or IDs are not timestamps.";
    STREAM_ENTRIES_ADDED = "event_stream_entries_added", Counter, STREAM,
        "Total number of entries added to the stream (Redis 7.0 and later).";
    STREAM_ADDED_RATE = "event_stream_added_per_second", Gauge, STREAM,
        "Entries added to the stream per second, over the window (Redis 7.0 and later); absent until known.";
    STREAM_RECLAIMABLE = "event_stream_reclaimable_entries", Gauge, STREAM,
        "Number of entries that can be trimmed safely: those before the first entry that is not delivered to and acknowledged by every group. A lower bound; absent unless all groups are monitored.";
    STREAM_REMOVED_RATE = "event_stream_removed_per_second", Gauge, STREAM,
        "Entries trimmed or deleted from the stream per second, over the window (Redis 7.0 and later); absent until known.";
    STREAM_LAG_THRESHOLD = "event_stream_lag_threshold", Gauge, &["stream", "level"],
        "Lag threshold of the stream, if --lag.thresholds sets one: degraded from this value on, unhealthy above it. Otherwise streamlag_lag_threshold applies.";
    LOGICAL_LAG = "event_logical_stream_lag", Gauge, LOGICAL,
        "Number of undelivered entries in all partitions of the logical stream for the group; a lower bound if partitions are unknown, and absent if that bound is 0.";
    LOGICAL_LAG_UNCERTAINTY = "event_logical_stream_lag_uncertainty", Gauge, LOGICAL,
        "Difference between the proven upper and lower bound of the logical stream's lag, in entries; absent if partitions are unknown.";
    LOGICAL_LAG_WORST = "event_logical_stream_lag_worst", Gauge, LOGICAL,
        "Lag of the partition with the highest lag, in entries.";
    LOGICAL_LAG_SECONDS = "event_logical_stream_lag_seconds", Gauge, LOGICAL,
        "Age of the oldest undelivered entry in any partition, in seconds; a lower bound if partitions are unknown, and absent if the age in a partition that was read is unknown.";
    LOGICAL_LAG_SKEW = "event_logical_stream_lag_skew_ratio", Gauge, LOGICAL,
        "Ratio of the highest lag of a partition to the average; 1 if lags are even, absent if there is no lag.";
    LOGICAL_PARTITIONS = "event_logical_stream_partitions", Gauge, LOGICAL,
        "Number of sampled partitions of the logical stream.";
    LOGICAL_PARTITIONS_UNKNOWN = "event_logical_stream_partitions_unknown", Gauge, LOGICAL,
        "Number of partitions that could not be read or do not have the group.";
    LAG_FORECAST = "event_consumer_lag_forecast", Gauge, FORECAST,
        "Quantile of the group's lag at the end of the horizon, in entries; absent without history, or if forecasts are no better than the current lag.";
    THRESHOLD_FORECAST = "event_consumer_lag_threshold_forecast_seconds", Gauge, LEVEL_FORECAST,
        "Quantile of the time until the group's lag reaches the threshold of the level, in seconds; 0 if it has, absent if that is not expected within the horizon.";
    LOSS_FORECAST = "event_consumer_loss_forecast_seconds", Gauge, FORECAST,
        "Quantile of the time until entries are trimmed before they are delivered to the group, in seconds; absent if that is not expected within the horizon.";
    INCIDENTS = "event_incidents", Gauge, &["rule", "severity", "status"],
        "Number of incidents by rule, as /api/v1/incidents lists them: pending (the condition holds, not yet for long enough) and firing.";
    INCIDENTS_LEFT_OUT = "streamlag_incidents_left_out", Gauge, &[],
        "Number of incidents that are not tracked because there are more than 20000.";
    STREAMS = "streamlag_streams", Gauge, &[],
        "Number of sampled streams, configured by name and discovered.";
    SHARD = "streamlag_shard", Info, &["shard"],
        "Shard of the streams that is sampled, such as 1/3; absent without --shard.";
    DISCOVERY_STREAMS = "streamlag_discovery_streams", Gauge, &[],
        "Number of streams discovered by patterns; absent without patterns.";
    DISCOVERY_INTERVAL = "streamlag_discovery_interval_seconds", Gauge, &[],
        "Configured time within which a new stream is discovered, in seconds; absent without patterns.";
    DISCOVERY_SCAN = "streamlag_discovery_scan_seconds", Gauge, &[],
        "Duration of the latest complete scan for streams in seconds; absent before the first.";
    DISCOVERY_LAST_SCAN = "streamlag_discovery_last_scan_timestamp_seconds", Gauge, &[],
        "Time when the latest complete scan for streams ended, in seconds since the Unix epoch; 0 before the first, absent without patterns.";
    REDIS_UP = "streamlag_redis_up", Gauge, &[],
        "1 if the latest poll succeeded; 0 if it failed, before the first, and while a poll takes so long that the last sample is stale.";
    REDIS_SERVER = "streamlag_redis_server", Info, &["server", "version"],
        "Name and version of the Redis server.";
    REDIS_ROUND_TRIP = "streamlag_redis_round_trip_seconds", Gauge, &[],
        "Round-trip time of the latest poll's first command in seconds.";
    REDIS_ROUND_TRIP_LIMIT = "streamlag_redis_round_trip_limit_seconds", Gauge, &[],
        "Limit for the round-trip time in seconds: the publish timeout of the event transport.";
    REDIS_COMMANDS = "streamlag_redis_commands", Counter, &["command"],
        "Total number of commands sent to Redis.";
    REDIS_NODE_UP = "streamlag_redis_node_up", Gauge, &["node"],
        "1 if the master node answered the latest poll, 0 if not; with Sentinel, the current master.";
    REDIS_NODE_STREAMS = "streamlag_redis_node_streams", Gauge, &["node"],
        "Number of sampled streams on the node.";
    REDIS_REDIRECTS = "streamlag_redis_redirects", Counter, &["kind"],
        "Total number of redirects by cluster nodes, by kind: moved, or ask (during slot migration).";
    REDIS_MASTER_CHANGES = "streamlag_redis_master_changes", Counter, &[],
        "Total number of master changes reported by Sentinel.";
    COUNTED_ENTRIES = "streamlag_counted_entries", Counter, &[],
        "Total number of entries read with XRANGE to count lags that counters do not give.";
    LAST_SUCCESSFUL_POLL = "streamlag_last_successful_poll_timestamp_seconds", Gauge, &[],
        "Start time of the latest successful poll, in seconds since the Unix epoch; 0 before the first.";
    POLL_INTERVAL = "streamlag_poll_interval_seconds", Gauge, &[],
        "Configured time between polls in seconds.";
    POLL_EFFECTIVE_INTERVAL = "streamlag_poll_effective_interval_seconds", Gauge, &[],
        "Effective time between polls in seconds: the configured interval, or longer to stay within --poll.max-redis-share.";
    REDIS_TIME = "streamlag_redis_time_seconds", Counter, &[],
        "Total time that Redis spent on samples in seconds, estimated as response time without the network round trip; an upper bound, because Redis also serves others meanwhile.";
    REDIS_TIME_LIMIT = "streamlag_redis_time_ratio_limit", Gauge, &[],
        "Maximum share of one Redis core that polls may use: --poll.max-redis-share.";
    OVER_LIMIT = "streamlag_over_limit", Gauge, &["limit"],
        "Number of items over the limit: streams and groups that are left out, consumers that are only summed.";
    POLL_DURATION = "streamlag_poll_duration_seconds", Histogram, &[],
        "Duration of polls in seconds, failed ones included.";
    POLLS = "streamlag_polls", Counter, &["outcome"],
        "Total number of polls, by outcome: success, partial (something could not be read), failure (nothing could be read).";
    POLL_FAILURES = "streamlag_poll_failures", Counter, &["reason"],
        "Total number of failed polls, by reason: connect, timeout, auth, loading, protocol, io, server.";
    LAG_THRESHOLD = "streamlag_lag_threshold", Gauge, &["level"],
        "Lag threshold by level: streams are degraded from this value on, unhealthy above it.";
    HTTP_REQUESTS = "streamlag_http_requests", Counter, &["path", "code"],
        "Total number of HTTP requests, by route and status code.";
    HTTP_REQUEST_DURATION = "streamlag_http_request_duration_seconds", Histogram, &["path"],
        "Duration of HTTP requests in seconds, without sending the response.";
    HTTP_CONNECTIONS = "streamlag_http_connections", Gauge, &[],
        "Number of open HTTP connections.";
    HTTP_READER_BYTES = "streamlag_http_reader_bytes", Gauge, &[],
        "Memory held for clients that read, in bytes: answers of older polls and JSON; at most --limit.memory-for-readers.";
    HTTP_CONNECTIONS_CLOSED = "streamlag_http_connections_closed", Counter, &["reason"],
        "Total number of HTTP connections that streamlag closed early, by reason: timeouts, slow readers, memory for readers, failed TLS handshakes, evictions.";
    LIVE_VIEWERS = "streamlag_live_viewers", Gauge, &[],
        "Number of open live streams.";
    LIVE_ENDED = "streamlag_live_streams_ended", Counter, &["reason"],
        "Total number of live streams that streamlag ended, by reason: shutdown, tokens, slow viewers, protocol errors.";
    TASKS = "streamlag_tasks", Gauge, &[],
        "Number of asynchronous tasks: a few, and one per HTTP connection.";
    PANICS = "streamlag_panics", Counter, &[],
        "Total number of panics in streamlag; please report each.";
    LOG_LINES_DROPPED = "streamlag_log_lines_dropped", Counter, &[],
        "Total number of log lines dropped because the log was not read or its disk was full.";
    RELOAD_SUCCESSFUL = "streamlag_config_last_reload_successful", Gauge, &[],
        "1 if the latest configuration reload succeeded or there was none, 0 if it failed.";
    RELOAD_TIME = "streamlag_config_last_reload_success_timestamp_seconds", Gauge, &[],
        "Time of the latest successful configuration load, in seconds since the Unix epoch.";
    HISTORY_UP = "streamlag_history_up", Gauge, &[],
        "1 if history is where it is configured to be, 0 if its file cannot be used and memory alone keeps it, or if Prometheus does not answer.";
    HISTORY_BYTES = "streamlag_history_bytes", Gauge, &[],
        "Bytes that history takes here: of the file with its write-ahead log, or of memory if there is no file.";
    HISTORY_POINTS = "streamlag_history_points", Counter, &[],
        "Total number of points kept: samples of groups in memory, or minutes of groups in the file.";
    HISTORY_DROPPED = "streamlag_history_points_dropped", Counter, &[],
        "Total number of points and snapshots left out of history because a queue or the memory was full.";
    FORECAST_MASE = "streamlag_forecast_mase", Gauge, &[],
        "Median over groups of the error of past forecasts, as a share of the error of assuming that the lag stays as it is; absent before 20 forecasts of a group have been scored.";
    FORECAST_COVERAGE = "streamlag_forecast_coverage_ratio", Gauge, &[],
        "Share of past forecasts whose 80% interval held the lag that came; absent before 20 forecasts of a group have been scored.";
    FORECAST_LEFT_OUT = "streamlag_forecast_groups_left_out", Gauge, &[],
        "Number of groups that the latest round did not forecast, because there are more than 200 or it took too long; 0 without --collector.forecast.";
    BUILD = "streamlag_build", Info, &["version"],
        "Version of streamlag.";
    NOTIFICATIONS = "streamlag_notifications", Counter, &["receiver", "outcome"],
        "Total number of notifications by receiver and outcome: delivered, failed (sent again), refused (4xx or a redirect), expired; absent without receivers.";
    REMEDIATION_ACTS = "streamlag_remediation_acts", Counter, &["action", "outcome"],
        "Total number of remediation acts by action and outcome: done, refused (a precondition did not hold any more), failed, unknown (Redis did not answer); absent unless acts are configured.";
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
