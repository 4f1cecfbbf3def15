//! The program's own metrics: of its work, not of Redis. Those of polls belong to a target, the others to the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::model::{FailureReason, RedirectKind};
use crate::sys::metric_catalog;

/// What is counted of one target's polls. Clones share the counters.
#[derive(Clone, Debug)]
pub struct PollMetrics {
    /// Commands sent to Redis.
    pub redis_commands: RedisCommands,
    duration: Histogram,
    polls: Family<OutcomeLabel, Counter>,
    failures: Family<ReasonLabel, Counter>,
    redis_time: Counter<f64, AtomicU64>,
}

/// Everything else that the program counts about itself. Clones share the counters.
#[derive(Clone, Debug)]
pub struct SelfMetrics {
    http_requests: Family<RequestLabels, Counter>,
    http_duration: Family<PathLabel, Histogram>,
    /// Open connections of clients.
    pub http_connections: Gauge,
    /// Memory that is held for readers, in bytes.
    pub http_reader_bytes: Gauge,
    http_connections_closed: Family<ReasonLabel, Counter>,
    /// Open live streams.
    pub live_viewers: Gauge,
    live_ended: Family<ReasonLabel, Counter>,
    panics: Counter,
    reload_successful: Gauge,
    reload_time: Gauge<f64, AtomicU64>,
    notifications: Family<NotificationLabels, Counter>,
    acts: Family<ActLabels, Counter>,
}

/// What is counted of history. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct HistoryMetrics {
    /// Whether history is kept where it is configured to be.
    pub up: Gauge,
    /// Points kept.
    pub points: Counter,
    /// Samples of groups that were left out.
    pub samples_dropped: Counter,
    bytes: Gauge,
}

impl HistoryMetrics {
    /// All counters at zero, registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metric_catalog::HISTORY_UP.register(registry, metrics.up.clone());
        metric_catalog::HISTORY_BYTES.register(registry, metrics.bytes.clone());
        metric_catalog::HISTORY_POINTS.register(registry, metrics.points.clone());
        metric_catalog::HISTORY_DROPPED.register(registry, metrics.samples_dropped.clone());
        metrics
    }

    /// So many bytes are taken.
    pub fn set_bytes(&self, bytes: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// How good forecasts have been. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ForecastMetrics {
    mase: MaybeGauge,
    coverage: MaybeGauge,
    left_out: Gauge,
}

impl ForecastMetrics {
    /// Nothing known yet, registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metric_catalog::FORECAST_MASE.register(registry, metrics.mase.clone());
        metric_catalog::FORECAST_COVERAGE.register(registry, metrics.coverage.clone());
        metric_catalog::FORECAST_LEFT_OUT.register(registry, metrics.left_out.clone());
        metrics
    }

    /// The error beside the naive forecast's, and the share within the 80% interval, as far as they are known.
    pub fn set(&self, mase: Option<f64>, coverage: Option<f64>) {
        self.mase.set(mase);
        self.coverage.set(coverage);
    }

    /// So many groups were not forecast.
    pub fn set_left_out(&self, groups: u64) {
        self.left_out.set(i64::try_from(groups).unwrap_or(i64::MAX));
    }
}

/// A gauge that has no sample while its value is not known.
#[derive(Clone, Debug)]
struct MaybeGauge(Arc<AtomicU64>);

impl Default for MaybeGauge {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(f64::NAN.to_bits())))
    }
}

impl MaybeGauge {
    fn set(&self, value: Option<f64>) {
        self.0.store(value.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
    }
}

impl EncodeMetric for MaybeGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let value = f64::from_bits(self.0.load(Ordering::Relaxed));
        if value.is_nan() { Ok(()) } else { encoder.encode_gauge(&value) }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollOutcome {
    /// Everything that is configured was read.
    Success,
    /// Redis answered, but some stream could not be read or some command was refused.
    Partial,
    /// Redis did not answer.
    Failure,
}

impl PollOutcome {
    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failure => "failure",
        };
        OutcomeLabel { outcome }
    }
}

/// Why a connection is closed before its client wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Others needed the place.
    Evicted,
    /// No whole request came in time.
    HeadTimeout,
    /// Nothing came for long.
    IdleTimeout,
    /// The answer was not read in time.
    AnswerTimeout,
    /// The answer was read below the least rate.
    SlowReader,
    /// Others needed the memory that its answer took.
    ReaderMemory,
    /// TLS handshake failed.
    Handshake,
}

impl Closed {
    const ALL: [Self; 7] = [
        Self::Evicted,
        Self::HeadTimeout,
        Self::IdleTimeout,
        Self::AnswerTimeout,
        Self::SlowReader,
        Self::ReaderMemory,
        Self::Handshake,
    ];

    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::AnswerTimeout => "answer_timeout",
            Self::SlowReader => "slow_reader",
            Self::ReaderMemory => "reader_memory",
            Self::Handshake => "tls_handshake",
        }
    }
}

/// Why a live stream ends that its viewer did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The program ends.
    ShuttingDown,
    /// Its token has expired.
    TokenExpired,
    /// Its token was taken away.
    TokenRemoved,
    /// Clients have to show a certificate now, and it has shown none.
    CertificateRequired,
    /// Its target was taken away.
    TargetRemoved,
    /// It took too long to read a message.
    TooSlow,
    /// It answers no pings.
    Unresponsive,
    /// It sent too many frames.
    TooManyFrames,
    /// It sent a message, where none is taken.
    UnexpectedMessage,
    /// It sent a frame or a message that is too large.
    MessageTooLarge,
    /// It does not speak WebSocket.
    ProtocolError,
    /// The memory for readers is used up.
    NoMemory,
    /// An update could not be made.
    InternalError,
}

impl StreamEnd {
    const ALL: [Self; 13] = [
        Self::ShuttingDown,
        Self::TokenExpired,
        Self::TokenRemoved,
        Self::CertificateRequired,
        Self::TargetRemoved,
        Self::TooSlow,
        Self::Unresponsive,
        Self::TooManyFrames,
        Self::UnexpectedMessage,
        Self::MessageTooLarge,
        Self::ProtocolError,
        Self::NoMemory,
        Self::InternalError,
    ];

    /// As a label, and as viewers are told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::TokenExpired => "token_expired",
            Self::TokenRemoved => "token_removed",
            Self::CertificateRequired => "certificate_required",
            Self::TargetRemoved => "target_removed",
            Self::TooSlow => "too_slow",
            Self::Unresponsive => "unresponsive",
            Self::TooManyFrames => "too_many_frames",
            Self::UnexpectedMessage => "unexpected_message",
            Self::MessageTooLarge => "message_too_large",
            Self::ProtocolError => "protocol_error",
            Self::NoMemory => "no_memory",
            Self::InternalError => "internal_error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabel {
    command: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PathLabel {
    path: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    path: &'static str,
    code: u16,
}

/// What became of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationOutcome {
    /// The receiver took it.
    Delivered,
    /// It did not for now: the same is sent again.
    Failed,
    /// It refused it for good.
    Refused,
    /// It was not delivered in time, and given up.
    Expired,
}

impl NotificationOutcome {
    const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Refused, Self::Expired];

    /// The word that the metric and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActLabels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NotificationLabels {
    receiver: String,
    outcome: &'static str,
}

impl NotificationLabels {
    fn of(receiver: &str, outcome: NotificationOutcome) -> Self {
        Self { receiver: receiver.to_owned(), outcome: outcome.as_str() }
    }
}

/// Counts what Redis is asked for: commands, by command, and entries read to count them.
#[derive(Clone, Debug, Default)]
pub struct RedisCommands {
    sent: Family<CommandLabel, Counter>,
    counted: Counter,
    redirects: Family<KindLabel, Counter>,
    master_changes: Counter,
}

impl RedisCommands {
    /// Counts commands sent.
    pub fn add(&self, command: &'static str, count: u64) {
        self.sent.get_or_create(&CommandLabel { command }).inc_by(count);
    }

    /// Counts entries read by counts.
    pub fn counted(&self, entries: u64) {
        self.counted.inc_by(entries);
    }

    /// A node of a cluster said that a stream is elsewhere.
    pub fn redirected(&self, kind: RedirectKind) {
        self.redirects.get_or_create(&KindLabel { kind: kind.as_str() }).inc();
    }

    /// The sentinels named another master.
    pub fn master_changed(&self) {
        self.master_changes.inc();
    }
}

/// From half a millisecond (which a few streams do not take) to ten seconds (more than any sane deadline).
const POLL_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Pages are served from memory: most take microseconds, the first scrape of a short page some hundred, and what takes a second is in
/// trouble.
const HTTP_BUCKETS: [f64; 8] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0];

fn http_histogram() -> Histogram {
    Histogram::new(HTTP_BUCKETS)
}

/// Tasks that there are when the page is encoded.
#[derive(Debug)]
struct Tasks(Option<Handle>);

impl EncodeMetric for Tasks {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let count = self.0.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        encoder.encode_gauge(&u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl PollMetrics {
    /// All counters at zero, registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            redis_commands: RedisCommands::default(),
            duration: Histogram::new(POLL_BUCKETS),
            polls: Family::default(),
            failures: Family::default(),
            redis_time: Counter::default(),
        };
        // A counter that is not there until it counts hides its first increase from rate().
        for outcome in [PollOutcome::Success, PollOutcome::Partial, PollOutcome::Failure] {
            drop(metrics.polls.get_or_create(&outcome.label()));
        }
        for reason in FailureReason::ALL {
            drop(metrics.failures.get_or_create(&ReasonLabel { reason: reason.as_str() }));
        }
        for kind in RedirectKind::ALL {
            drop(metrics.redis_commands.redirects.get_or_create(&KindLabel { kind: kind.as_str() }));
        }
        metric_catalog::POLL_DURATION.register(registry, metrics.duration.clone());
        metric_catalog::POLLS.register(registry, metrics.polls.clone());
        metric_catalog::POLL_FAILURES.register(registry, metrics.failures.clone());
        metric_catalog::REDIS_COMMANDS.register(registry, metrics.redis_commands.sent.clone());
        metric_catalog::COUNTED_ENTRIES.register(registry, metrics.redis_commands.counted.clone());
        metric_catalog::REDIS_REDIRECTS.register(registry, metrics.redis_commands.redirects.clone());
        metric_catalog::REDIS_MASTER_CHANGES.register(registry, metrics.redis_commands.master_changes.clone());
        metric_catalog::REDIS_TIME.register(registry, metrics.redis_time.clone());
        metrics
    }

    /// A poll ended.
    pub fn poll_ended(&self, outcome: PollOutcome, took: Duration) {
        self.polls.get_or_create(&outcome.label()).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// A sample took so much of Redis's time.
    pub fn redis_time(&self, took: Duration) {
        self.redis_time.inc_by(took.as_secs_f64());
    }

    /// A poll failed for this reason.
    pub fn poll_failed(&self, reason: FailureReason) {
        self.failures.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }
}

impl SelfMetrics {
    /// All counters at zero, registered in `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            http_requests: Family::default(),
            http_duration: Family::new_with_constructor(http_histogram),
            http_connections: Gauge::default(),
            http_reader_bytes: Gauge::default(),
            http_connections_closed: Family::default(),
            live_viewers: Gauge::default(),
            live_ended: Family::default(),
            panics: Counter::default(),
            reload_successful: Gauge::default(),
            reload_time: Gauge::default(),
            notifications: Family::default(),
            acts: Family::default(),
        };
        for reason in Closed::ALL {
            drop(metrics.http_connections_closed.get_or_create(&ReasonLabel { reason: reason.as_str() }));
        }
        for reason in StreamEnd::ALL {
            drop(metrics.live_ended.get_or_create(&ReasonLabel { reason: reason.as_str() }));
        }
        metric_catalog::HTTP_REQUESTS.register(registry, metrics.http_requests.clone());
        metric_catalog::HTTP_REQUEST_DURATION.register(registry, metrics.http_duration.clone());
        metric_catalog::HTTP_CONNECTIONS.register(registry, metrics.http_connections.clone());
        metric_catalog::HTTP_READER_BYTES.register(registry, metrics.http_reader_bytes.clone());
        metric_catalog::HTTP_CONNECTIONS_CLOSED.register(registry, metrics.http_connections_closed.clone());
        metric_catalog::LIVE_VIEWERS.register(registry, metrics.live_viewers.clone());
        metric_catalog::LIVE_ENDED.register(registry, metrics.live_ended.clone());
        metric_catalog::TASKS.register(registry, Tasks(Handle::try_current().ok()));
        metric_catalog::PANICS.register(registry, metrics.panics.clone());
        metric_catalog::RELOAD_SUCCESSFUL.register(registry, metrics.reload_successful.clone());
        metric_catalog::RELOAD_TIME.register(registry, metrics.reload_time.clone());
        metric_catalog::NOTIFICATIONS.register(registry, metrics.notifications.clone());
        metric_catalog::REMEDIATION_ACTS.register(registry, metrics.acts.clone());
        metrics.reloaded(true);
        metrics
    }

    /// A connection was closed early.
    pub fn connection_closed(&self, reason: Closed) {
        self.http_connections_closed.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// The server ended a live stream.
    pub fn stream_ended(&self, reason: StreamEnd) {
        self.live_ended.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// There is a receiver of this name: all that is counted of it begins at zero.
    pub fn notifies(&self, receiver: &str) {
        for outcome in NotificationOutcome::ALL {
            drop(self.notifications.get_or_create(&NotificationLabels::of(receiver, outcome)));
        }
    }

    /// A notification was sent to a receiver, or was to be.
    pub fn notified(&self, receiver: &str, outcome: NotificationOutcome) {
        self.notifications.get_or_create(&NotificationLabels::of(receiver, outcome)).inc();
    }

    /// Plans of this action may be carried out: all that is counted of it begins at zero.
    pub fn remediates(&self, action: &'static str, outcomes: &[&'static str]) {
        for outcome in outcomes {
            drop(self.acts.get_or_create(&ActLabels { action, outcome }));
        }
    }

    /// A plan was carried out, or was to be.
    pub fn remediated(&self, action: &'static str, outcome: &'static str) {
        self.acts.get_or_create(&ActLabels { action, outcome }).inc();
    }

    /// A task panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The configuration was reloaded, or could not be.
    pub fn reloaded(&self, successfully: bool) {
        self.reload_successful.set(successfully.into());
        if successfully {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reload_time.set(now.as_secs_f64());
        }
    }

    /// A request was answered. `path` is a route's, so that their number is bounded.
    pub fn request_answered(&self, path: &'static str, code: u16, took: Duration) {
        self.http_requests.get_or_create_owned(&RequestLabels { path, code }).inc();
        self.http_duration.get_or_create_owned(&PathLabel { path }).observe(took.as_secs_f64());
    }
}
