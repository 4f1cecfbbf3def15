//! Every setting there is: one table for the flags, the environment, the file and the help.

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its key: the flag without the dashes, and the place in the file.
    pub key: &'static str,
    /// Whether it has a flag.
    pub flag: Flag,
    /// Its environment variable.
    pub env: Option<&'static str>,
    /// Another name of the variable, which wins.
    pub env_alias: Option<&'static str>,
    /// What holds where it is not given.
    pub default: Option<&'static str>,
    /// What stands for its value in the help.
    pub value_name: &'static str,
    /// Where it stands in the help.
    pub heading: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether its value may hold a password, and is not to be repeated.
    pub secret: bool,
    /// Whether each target of the file may have its own.
    pub per_target: bool,
}

/// How a setting is given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// With one value.
    Value,
    /// With values separated by commas, and as often as wanted.
    List,
    /// Without a value.
    Switch,
    /// Without a value, and as this flag for the opposite; the last one counts.
    Toggle(&'static str),
    /// Not at all.
    None,
}

impl Setting {
    /// The setting with this key.
    #[must_use]
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// What the settings that turn collectors on and off begin with.
pub(super) const COLLECTORS: &str = "collector.";

/// The collectors that can be turned on and off, for the error about another name.
pub(super) fn collectors() -> String {
    let names = SETTINGS.iter().filter_map(|setting| setting.key.strip_prefix(COLLECTORS));
    names.collect::<Vec<_>>().join(", ")
}

const BASE: Setting = Setting {
    key: "",
    flag: Flag::Value,
    env: None,
    env_alias: None,
    default: None,
    value_name: "VALUE",
    heading: "Redis",
    help: "",
    secret: false,
    per_target: false,
};

/// Whether the metrics page shows what a collector has.
const COLLECTOR: Setting =
    Setting { default: Some("false"), value_name: "true|false", heading: "What to show", ..OF_A_TARGET };

/// What each target may have its own of.
const OF_A_TARGET: Setting = Setting { per_target: true, ..BASE };

/// Every setting, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "redis.url",
        env: Some("REDIS_URL"),
        env_alias: Some("STREAMLAG_REDIS_URL"),
        default: Some("redis://localhost:6380/0"),
        value_name: "URL",
        help: "Redis to sample: redis://[user[:password]@]host[:port][/db], rediss:// (TLS) or unix:///path?db=0; STREAMLAG_REDIS_URL wins over REDIS_URL",
        secret: true,
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.mode",
        env: Some("STREAMLAG_REDIS_MODE"),
        default: Some("standalone"),
        value_name: "MODE",
        help: "What the URL leads to: standalone, cluster (any node of it) or sentinel (a sentinel, which names the master)",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.nodes",
        flag: Flag::List,
        env: Some("STREAMLAG_REDIS_NODES"),
        value_name: "HOST:PORT,...",
        help: "More nodes of the cluster, or more sentinels, used if the one in the URL is unreachable",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.sentinel-master",
        env: Some("STREAMLAG_REDIS_SENTINEL_MASTER"),
        default: Some("mymaster"),
        value_name: "NAME",
        help: "Name of the master that the sentinels watch",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.sentinel-user",
        env: Some("STREAMLAG_REDIS_SENTINEL_USER"),
        value_name: "NAME",
        help: "User for the sentinels; the login in the URL is for Redis itself",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.sentinel-password-file",
        env: Some("STREAMLAG_REDIS_SENTINEL_PASSWORD_FILE"),
        value_name: "FILE",
        help: "File with the password for the sentinels",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.user",
        env: Some("STREAMLAG_REDIS_USER"),
        value_name: "NAME",
        help: "Redis (ACL) user, if it is not in the URL",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.password-file",
        env: Some("STREAMLAG_REDIS_PASSWORD_FILE"),
        value_name: "FILE",
        help: "File with the Redis password; surrounding whitespace is ignored, and it is read again for each connection",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.tls-ca-file",
        env: Some("STREAMLAG_REDIS_TLS_CA_FILE"),
        value_name: "FILE",
        help: "PEM file with the CA certificates for a rediss:// server, or with its own certificate; default: the system's",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.tls-cert-file",
        env: Some("STREAMLAG_REDIS_TLS_CERT_FILE"),
        value_name: "FILE",
        help: "PEM file with the client certificate for a rediss:// server",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.tls-key-file",
        env: Some("STREAMLAG_REDIS_TLS_KEY_FILE"),
        value_name: "FILE",
        help: "PEM file with the key of the client certificate; also read again for each connection",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.tls-server-name",
        env: Some("STREAMLAG_REDIS_TLS_SERVER_NAME"),
        value_name: "NAME",
        help: "Name or address expected in the certificate of a rediss:// server; default: the URL's host",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.max-connections",
        env: Some("REDIS_MAX_CONNECTIONS"),
        default: Some("30"),
        value_name: "N",
        help: "Maximum number of connections to Redis; standalone uses one, Sentinel one more, a cluster one per master and one more",
        ..OF_A_TARGET
    },
    Setting {
        key: "redis.timeout",
        env: Some("STREAMLAG_REDIS_TIMEOUT"),
        default: Some("2s"),
        value_name: "DURATION",
        help: "Timeout of a whole poll, connecting included",
        ..OF_A_TARGET
    },
    Setting {
        key: "streams",
        flag: Flag::List,
        env: Some("STREAMLAG_STREAMS"),
        default: Some("events:chat,events:ticket,events:remote"),
        value_name: "NAME,...",
        heading: "What to sample",
        help: "Streams to sample, by name or Redis glob; one given by name is reported even if it does not exist",
        ..OF_A_TARGET
    },
    Setting {
        key: "streams.exclude",
        flag: Flag::List,
        env: Some("STREAMLAG_STREAMS_EXCLUDE"),
        value_name: "NAME,...",
        heading: "What to sample",
        help: "Streams that are never sampled, by name or Redis glob",
        ..OF_A_TARGET
    },
    Setting {
        key: "logical-streams",
        flag: Flag::List,
        env: Some("STREAMLAG_LOGICAL_STREAMS"),
        value_name: "NAME=PATTERN,...",
        heading: "What to sample",
        help: "Partitioned streams: a name for the whole, and its partitions by Redis glob or as orders:{0..63}",
        ..OF_A_TARGET
    },
    Setting {
        key: "groups",
        flag: Flag::List,
        env: Some("EVENT_TRANSPORT_CONSUMER_GROUP"),
        default: Some("signalr-consumers"),
        value_name: "NAME,...",
        heading: "What to sample",
        help: "Consumer groups to monitor, by name or Redis glob; * means all",
        ..OF_A_TARGET
    },
    Setting {
        key: "groups.exclude",
        flag: Flag::List,
        env: Some("STREAMLAG_GROUPS_EXCLUDE"),
        value_name: "NAME,...",
        heading: "What to sample",
        help: "Consumer groups that are never monitored, by name or Redis glob",
        ..OF_A_TARGET
    },
    Setting {
        key: "consumers",
        env: Some("STREAMLAG_CONSUMERS"),
        default: Some("on"),
        value_name: "on|off",
        heading: "What to sample",
        help: "Whether to query each consumer: on or off",
        ..OF_A_TARGET
    },
    Setting {
        key: "collector.consumers",
        flag: Flag::Toggle("no-collector.consumers"),
        env: Some("STREAMLAG_COLLECTOR_CONSUMERS"),
        default: Some("true"),
        help: "Per-consumer series: pending entries and idle time; nothing with --consumers=off",
        ..COLLECTOR
    },
    Setting {
        key: "collector.consumer-health",
        flag: Flag::Toggle("no-collector.consumer-health"),
        env: Some("STREAMLAG_COLLECTOR_CONSUMER_HEALTH"),
        help: "Health score and inactive time of consumers, and sums for those over --limit.consumers",
        ..COLLECTOR
    },
    Setting {
        key: "collector.rates",
        flag: Flag::Toggle("no-collector.rates"),
        env: Some("STREAMLAG_COLLECTOR_RATES"),
        help: "Rates over --group.window, time to drain, recommended consumers, and the time of streams' first entries",
        ..COLLECTOR
    },
    Setting {
        key: "collector.loss",
        flag: Flag::Toggle("no-collector.loss"),
        env: Some("STREAMLAG_COLLECTOR_LOSS"),
        default: Some("true"),
        help: "Lost entries, trim headroom, and pending entries without payload",
        ..COLLECTOR
    },
    Setting {
        key: "collector.states",
        flag: Flag::Toggle("no-collector.states"),
        env: Some("STREAMLAG_COLLECTOR_STATES"),
        default: Some("true"),
        help: "The state of each group",
        ..COLLECTOR
    },
    Setting {
        key: "collector.streams",
        flag: Flag::Toggle("no-collector.streams"),
        env: Some("STREAMLAG_COLLECTOR_STREAMS"),
        default: Some("true"),
        help: "Streams: length, groups, last entry, entries added, and entries that can be trimmed safely",
        ..COLLECTOR
    },
    Setting {
        key: "collector.forecast",
        flag: Flag::Toggle("no-collector.forecast"),
        env: Some("STREAMLAG_COLLECTOR_FORECAST"),
        help: "Forecasts of lag and losses by the minute, of at most 200 groups; without it they are made when asked for",
        ..COLLECTOR
    },
    Setting {
        key: "discovery.interval",
        env: Some("STREAMLAG_DISCOVERY_INTERVAL"),
        default: Some("60s"),
        value_name: "DURATION",
        heading: "What to sample",
        help: "Time within which a new stream that matches a glob is discovered, at least 1s",
        ..OF_A_TARGET
    },
    Setting {
        key: "limit.streams",
        env: Some("STREAMLAG_LIMIT_STREAMS"),
        default: Some("10000"),
        value_name: "N",
        heading: "What to sample",
        help: "Maximum number of sampled streams; named ones come first, then discovered ones, by name",
        ..OF_A_TARGET
    },
    Setting {
        key: "limit.groups",
        env: Some("STREAMLAG_LIMIT_GROUPS"),
        default: Some("100"),
        value_name: "N",
        heading: "What to sample",
        help: "Maximum number of monitored groups per stream; named ones come first, then by name",
        ..OF_A_TARGET
    },
    Setting {
        key: "limit.consumers",
        env: Some("STREAMLAG_LIMIT_CONSUMERS"),
        default: Some("100"),
        value_name: "N",
        heading: "What to sample",
        help: "Maximum number of consumers with their own series per group, those with most pending entries; the others are summed",
        ..OF_A_TARGET
    },
    Setting {
        key: "limit.memory-for-replies",
        env: Some("STREAMLAG_LIMIT_MEMORY_FOR_REPLIES"),
        default: Some("96MiB"),
        value_name: "SIZE",
        heading: "What to sample",
        help: "Maximum memory for what all Redis servers send; half of it is for one large reply at a time",
        ..BASE
    },
    Setting {
        key: "shard",
        env: Some("STREAMLAG_SHARD"),
        value_name: "I/N",
        heading: "What to sample",
        help: "Sample only the streams of this shard: 0/3, 1/3 and 2/3 are three instances that share the streams",
        ..BASE
    },
    Setting {
        key: "poll.interval",
        env: Some("STREAMLAG_POLL_INTERVAL"),
        default: Some("5s"),
        value_name: "DURATION",
        heading: "What to sample",
        help: "Time between polls, at least 50ms",
        ..OF_A_TARGET
    },
    Setting {
        key: "poll.max-redis-share",
        env: Some("STREAMLAG_POLL_MAX_REDIS_SHARE"),
        default: Some("5%"),
        value_name: "PERCENT",
        heading: "What to sample",
        help: "Maximum share of one Redis core that polls may use; to stay within it, the interval is stretched",
        ..OF_A_TARGET
    },
    Setting {
        key: "poll.spread",
        env: Some("STREAMLAG_POLL_SPREAD"),
        default: Some("50%"),
        value_name: "PERCENT",
        heading: "What to sample",
        help: "Share of the interval over which the requests of a poll are spread; 0% polls at full speed",
        ..OF_A_TARGET
    },
    Setting {
        key: "lag.degraded",
        env: Some("STREAMLAG_LAG_DEGRADED"),
        default: Some("100"),
        value_name: "N",
        heading: "What to sample",
        help: "Lag from which a stream is degraded",
        ..OF_A_TARGET
    },
    Setting {
        key: "lag.unhealthy",
        env: Some("STREAMLAG_LAG_UNHEALTHY"),
        default: Some("1000"),
        value_name: "N",
        heading: "What to sample",
        help: "Lag above which a stream is unhealthy",
        ..OF_A_TARGET
    },
    Setting {
        key: "lag.thresholds",
        flag: Flag::List,
        env: Some("STREAMLAG_LAG_THRESHOLDS"),
        value_name: "PATTERN=DEGRADED/UNHEALTHY,...",
        heading: "What to sample",
        help: "Thresholds for streams that match a name or Redis glob; the first match wins",
        ..OF_A_TARGET
    },
    Setting {
        key: "lag.count-budget",
        env: Some("STREAMLAG_LAG_COUNT_BUDGET"),
        default: Some("20000"),
        value_name: "ENTRIES",
        heading: "What to sample",
        help: "Entries that may be read per second to count lags that counters do not give; 0 turns counting off",
        ..OF_A_TARGET
    },
    Setting {
        key: "group.window",
        env: Some("STREAMLAG_GROUP_WINDOW"),
        default: Some("30s"),
        value_name: "DURATION",
        heading: "Verdicts",
        help: "Window for rates, and time for which a condition must hold before a group's state changes",
        ..OF_A_TARGET
    },
    Setting {
        key: "group.window-samples",
        env: Some("STREAMLAG_GROUP_WINDOW_SAMPLES"),
        default: Some("6"),
        value_name: "N",
        heading: "Verdicts",
        help: "Minimum number of samples for which the condition must hold",
        ..OF_A_TARGET
    },
    Setting {
        key: "group.drain-target",
        env: Some("STREAMLAG_GROUP_DRAIN_TARGET"),
        default: Some("60s"),
        value_name: "DURATION",
        heading: "Verdicts",
        help: "Time in which a group should drain its lag, for the recommended number of consumers",
        ..OF_A_TARGET
    },
    Setting {
        key: "consumer.dead-after",
        env: Some("STREAMLAG_CONSUMER_DEAD_AFTER"),
        default: Some("1m"),
        value_name: "DURATION",
        heading: "Verdicts",
        help: "Time after which a consumer that is idle, though there is something to do, counts as dead",
        ..OF_A_TARGET
    },
    Setting {
        key: "history.path",
        env: Some("STREAMLAG_HISTORY_PATH"),
        value_name: "FILE",
        heading: "History",
        help: "SQLite file for history; without it, the last two hours are kept in memory",
        ..BASE
    },
    Setting {
        key: "history.memory",
        env: Some("STREAMLAG_HISTORY_MEMORY"),
        default: Some("64MiB"),
        value_name: "BYTES",
        heading: "History",
        help: "Maximum memory for the history of the last two hours",
        ..BASE
    },
    Setting {
        key: "history.retention",
        env: Some("STREAMLAG_HISTORY_RETENTION"),
        default: Some("14d"),
        value_name: "DURATION",
        heading: "History",
        help: "Time for which the history file keeps a point per minute",
        ..BASE
    },
    Setting {
        key: "history.coarse-retention",
        env: Some("STREAMLAG_HISTORY_COARSE_RETENTION"),
        default: Some("400d"),
        value_name: "DURATION",
        heading: "History",
        help: "Time for which the history file keeps a point per hour",
        ..BASE
    },
    Setting {
        key: "history.max-size",
        env: Some("STREAMLAG_HISTORY_MAX_SIZE"),
        default: Some("1GiB"),
        value_name: "BYTES",
        heading: "History",
        help: "Maximum size of the history file; the oldest points go first",
        ..BASE
    },
    Setting {
        key: "history.prometheus-url",
        env: Some("STREAMLAG_HISTORY_PROMETHEUS_URL"),
        value_name: "URL",
        heading: "History",
        help: "Prometheus, Thanos, Mimir or VictoriaMetrics that answers for history, trends and forecasts; contradicts history.path",
        secret: true,
        ..BASE
    },
    Setting {
        key: "history.prometheus-token-file",
        env: Some("STREAMLAG_HISTORY_PROMETHEUS_TOKEN_FILE"),
        value_name: "FILE",
        heading: "History",
        help: "File with the bearer token for history.prometheus-url, read for each query",
        ..BASE
    },
    Setting {
        key: "history.prometheus-ca-file",
        env: Some("STREAMLAG_HISTORY_PROMETHEUS_CA_FILE"),
        value_name: "FILE",
        heading: "History",
        help: "File with the CA certificates (PEM) for history.prometheus-url; default: those of the system",
        ..BASE
    },
    Setting {
        key: "history.prometheus-labels",
        flag: Flag::List,
        env: Some("STREAMLAG_HISTORY_PROMETHEUS_LABELS"),
        value_name: "NAME=VALUE,...",
        heading: "History",
        help: "Labels that distinguish the series of this Redis from those of others in the same Prometheus, such as cluster=eu",
        ..BASE
    },
    Setting {
        key: "web.listen-address",
        flag: Flag::List,
        env: Some("STREAMLAG_WEB_LISTEN_ADDRESS"),
        default: Some("0.0.0.0:8000"),
        value_name: "HOST:PORT",
        heading: "HTTP",
        help: "Address to listen on; may be given several times",
        ..BASE
    },
    Setting {
        key: "web.telemetry-path",
        env: Some("STREAMLAG_WEB_TELEMETRY_PATH"),
        default: Some("/metrics"),
        value_name: "PATH",
        heading: "HTTP",
        help: "Path of the metrics page",
        ..BASE
    },
    Setting {
        key: "web.config.file",
        env: Some("STREAMLAG_WEB_CONFIG_FILE"),
        value_name: "FILE",
        heading: "HTTP",
        help: "File with TLS, basic auth, headers and a rate limit, in the format of Prometheus's exporter-toolkit",
        ..BASE
    },
    Setting {
        key: "web.systemd-socket",
        flag: Flag::Switch,
        heading: "HTTP",
        help: "Listen on the sockets that systemd opened (socket activation) instead of --web.listen-address",
        ..BASE
    },
    Setting {
        key: "web.allowed-origins",
        flag: Flag::List,
        env: Some("STREAMLAG_WEB_ALLOWED_ORIGINS"),
        value_name: "ORIGIN,...",
        heading: "HTTP",
        help: "Origins besides streamlag's own whose pages may open a live stream, such as https://grafana.example.org",
        ..BASE
    },
    Setting {
        key: "limit.viewers",
        env: Some("STREAMLAG_LIMIT_VIEWERS"),
        default: Some("100"),
        value_name: "N",
        heading: "HTTP",
        help: "Maximum number of open live streams; 0 for none",
        ..BASE
    },
    Setting {
        key: "web.enable-lifecycle",
        flag: Flag::Switch,
        heading: "HTTP",
        help: "Reload the configuration on POST /-/reload with an API token, as on SIGHUP",
        ..BASE
    },
    Setting {
        key: "limit.memory-for-readers",
        env: Some("STREAMLAG_LIMIT_MEMORY_FOR_READERS"),
        default: Some("64MiB"),
        value_name: "SIZE",
        heading: "HTTP",
        help: "Maximum memory held for clients that read: answers of older polls and JSON; beyond it, the slowest are closed",
        ..BASE
    },
    Setting {
        key: "api.tokens-file",
        env: Some("STREAMLAG_API_TOKENS_FILE"),
        value_name: "FILE",
        heading: "HTTP",
        help: "File with the API tokens, one per line; 'streamlag token NAME' makes one",
        ..BASE
    },
    Setting {
        key: "api.rate-limit",
        env: Some("STREAMLAG_API_RATE_LIMIT"),
        default: Some("10"),
        value_name: "N",
        heading: "HTTP",
        help: "Maximum requests per second for each API token; 0 for no limit",
        ..BASE
    },
    Setting {
        key: "api.rate-burst",
        env: Some("STREAMLAG_API_RATE_BURST"),
        default: Some("20"),
        value_name: "N",
        heading: "HTTP",
        help: "Burst size of the rate limit for each API token",
        ..BASE
    },
    Setting {
        key: "api.insecure-no-auth",
        flag: Flag::Switch,
        heading: "HTTP",
        help: "Serve the API without authentication",
        ..BASE
    },
    Setting {
        key: "log.level",
        env: Some("STREAMLAG_LOG_LEVEL"),
        default: Some("info"),
        value_name: "LEVEL",
        heading: "Program",
        help: "error, warn, info, debug or trace",
        ..BASE
    },
    Setting {
        key: "log.format",
        env: Some("STREAMLAG_LOG_FORMAT"),
        default: Some("logfmt"),
        value_name: "FORMAT",
        heading: "Program",
        help: "logfmt or json",
        ..BASE
    },
    Setting {
        key: "config.file",
        env: Some("STREAMLAG_CONFIG_FILE"),
        value_name: "FILE",
        heading: "Program",
        help: "YAML file with settings by the names of their flags, such as redis: {url: ...}; paths in it are relative to the file",
        ..BASE
    },
    Setting {
        key: "config.check",
        flag: Flag::Switch,
        heading: "Program",
        help: "Check the configuration and exit: 0 if it is valid, 2 if not",
        ..BASE
    },
    Setting {
        key: "healthcheck",
        flag: Flag::Switch,
        heading: "Program",
        help: "Query the health of the streamlag that listens on the configured address, and exit: 0 if healthy, 1 if not",
        ..BASE
    },
    Setting {
        key: "event-transport.use-redis-streams",
        flag: Flag::None,
        env: Some("EVENT_TRANSPORT_USE_REDIS_STREAMS"),
        default: Some("true"),
        help: "Whether the event transport uses Redis Streams; part of transport_mode",
        ..BASE
    },
    Setting {
        key: "event-transport.redis-streams-percentage",
        flag: Flag::None,
        env: Some("EVENT_TRANSPORT_REDIS_STREAMS_PERCENTAGE"),
        default: Some("100"),
        help: "Share of events that go through Redis Streams, 0 to 100; part of transport_mode",
        ..BASE
    },
    Setting {
        key: "event-transport.fallback-to-http",
        flag: Flag::None,
        env: Some("EVENT_TRANSPORT_FALLBACK_TO_HTTP"),
        default: Some("true"),
        help: "Whether the event transport falls back to HTTP; reported beside transport_mode",
        ..BASE
    },
    Setting {
        key: "event-transport.stream-max-len",
        flag: Flag::None,
        env: Some("EVENT_TRANSPORT_STREAM_MAX_LEN"),
        default: Some("10000"),
        help: "Length to which the event transport trims its streams; where it is given, it bounds the trim headroom",
        ..OF_A_TARGET
    },
    Setting {
        key: "event-transport.publish-timeout-ms",
        flag: Flag::None,
        env: Some("EVENT_TRANSPORT_PUBLISH_TIMEOUT_MS"),
        default: Some("100"),
        help: "Milliseconds that publishers wait for Redis; a slower round trip is reported",
        ..BASE
    },
];
