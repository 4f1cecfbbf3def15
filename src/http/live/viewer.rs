//! One viewer: the next message to it, and when its stream ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::http::admission::ANSWER_TIMEOUT;
use crate::http::auth::{Admission, AdmissionStanding};
use crate::http::live::Feed;
use crate::http::live::feed::{Channel, MAX_PIECE_BYTES, MessageBody, MessageKind, Version};
use crate::http::reader_memory::NoMemory;
use crate::http::server_config::ServerConfig;
use crate::sys::own_metrics::StreamEnd;
use crate::sys::shutdown::{self, Shutdown};

/// How often a viewer hears from the server, whether or not there is news: proxies close what is silent for a minute.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a token that expires is looked at: its end is noticed within this time, even if the clock jumps.
const TOKEN_CHECK: Duration = Duration::from_millis(250);

/// How long a viewer may take to read one message. A slower one would keep an old message in memory.
pub(super) const MESSAGE_TIMEOUT: Duration = ANSWER_TIMEOUT;

/// Within this time viewers come back after a shutdown, each at its own moment.
const RETURN_WITHIN: Duration = Duration::from_secs(5);

impl StreamEnd {
    /// What a viewer is told, for people.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::ShuttingDown => "streamlag is shutting down",
            Self::TokenExpired => "the API token has expired",
            Self::TokenRemoved => "the API token is no longer valid",
            Self::CertificateRequired => "this server now asks its clients for a certificate",
            Self::TargetRemoved => "the target is no longer declared",
            Self::TooSlow => "a message was not read in time",
            Self::Unresponsive => "no answer to pings",
            Self::TooManyFrames => "too many frames",
            Self::UnexpectedMessage => "this stream takes no messages",
            Self::MessageTooLarge => "a message is too large",
            Self::ProtocolError => "not WebSocket as in RFC 6455",
            Self::NoMemory => "memory for readers is used up (--limit.memory-for-readers)",
            Self::InternalError => "the update could not be made",
        }
    }

    /// The status code of RFC 6455, section 7.4.1.
    pub(super) fn close_code(self) -> u16 {
        match self {
            Self::ShuttingDown | Self::TargetRemoved => 1001,
            Self::ProtocolError => 1002,
            Self::UnexpectedMessage => 1003,
            Self::MessageTooLarge => 1009,
            Self::InternalError => 1011,
            // "Try again later", of the registry that the RFC set up.
            Self::NoMemory => 1013,
            Self::TokenExpired
            | Self::TokenRemoved
            | Self::CertificateRequired
            | Self::TooSlow
            | Self::Unresponsive
            | Self::TooManyFrames => 1008,
        }
    }
}

/// What a viewer is told.
#[derive(Debug)]
pub(super) enum ViewerEvent {
    Message(ViewerMessage),
    Heartbeat,
    /// The last one.
    End(StreamEnd),
}

/// A message: what is this viewer's own, and what it shares.
#[derive(Debug)]
pub(super) struct ViewerMessage {
    pub(super) head: String,
    pub(super) body: Arc<MessageBody>,
}

impl ViewerMessage {
    pub(super) fn kind(&self) -> MessageKind {
        self.body.kind
    }

    /// All of it, in pieces of at most [`MAX_PIECE_BYTES`], between `before` and `after`.
    pub(super) fn pieces(&self, before: &str, after: &str) -> UnsentPieces {
        let json = &self.body.json;
        let mut first = Vec::with_capacity(before.len() + self.head.len() + json.len().min(MAX_PIECE_BYTES));
        first.extend_from_slice(before.as_bytes());
        first.extend_from_slice(self.head.as_bytes());
        // A short message is one piece: to copy it costs less than to send two.
        if first.len() + json.len() + after.len() <= MAX_PIECE_BYTES {
            first.extend_from_slice(json);
            first.extend_from_slice(after.as_bytes());
            return UnsentPieces { first: Some(first.into()), rest: Bytes::new(), last: None };
        }
        let last = Some(after).filter(|after| !after.is_empty()).map(|after| Bytes::copy_from_slice(after.as_bytes()));
        UnsentPieces { first: Some(first.into()), rest: json.clone(), last }
    }
}

/// What is left of a message.
#[derive(Debug, Default)]
pub(super) struct UnsentPieces {
    first: Option<Bytes>,
    rest: Bytes,
    last: Option<Bytes>,
}

impl UnsentPieces {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.rest.is_empty() && self.last.is_none()
    }
}

impl From<Bytes> for UnsentPieces {
    fn from(bytes: Bytes) -> Self {
        Self { first: Some(bytes), ..Self::default() }
    }
}

impl Iterator for UnsentPieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if !self.rest.is_empty() {
            return Some(self.rest.split_to(self.rest.len().min(MAX_PIECE_BYTES)));
        }
        self.last.take()
    }
}

/// How a stream that ends says so, in JSON.
#[derive(Serialize)]
struct End<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    reason: &'a str,
    detail: &'a str,
    /// Milliseconds to wait before coming back.
    retry: u64,
}

/// The last message, and the milliseconds that it asks to wait.
pub(super) fn end_message(reason: StreamEnd) -> (String, u64) {
    let most = u64::try_from(RETURN_WITHIN.as_millis()).unwrap_or(u64::MAX);
    let retry = 500 + getrandom::u64().unwrap_or(0) % most;
    let end = End { kind: "end", reason: reason.as_str(), detail: reason.detail(), retry };
    (serde_json::to_string(&end).unwrap_or_default(), retry)
}

/// A place among the viewers; dropping it makes room.
#[derive(Debug)]
pub(super) struct ViewerPermit {
    open: Arc<AtomicU64>,
    gauge: Gauge,
}

impl ViewerPermit {
    /// A place, where fewer than `most` are taken.
    pub(super) fn take(open: &Arc<AtomicU64>, most: u64, gauge: &Gauge) -> Option<Self> {
        open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < most).then_some(open + 1)).ok()?;
        gauge.inc();
        Some(Self { open: Arc::clone(open), gauge: gauge.clone() })
    }
}

impl Drop for ViewerPermit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.gauge.dec();
    }
}

/// The versions of a target's feed; none before the first is made.
pub(super) type Versions = watch::Receiver<Option<Arc<Version>>>;

/// One open stream.
#[derive(Debug)]
pub(in crate::http) struct Viewer {
    pub(super) channel: Arc<Channel>,
    pub(super) versions: Versions,
    pub(super) configs: watch::Receiver<Arc<ServerConfig>>,
    pub(super) shutdown: Shutdown,
    /// By what it came in.
    pub(super) admission: Admission,
    /// Whether that may end without a change of the configuration.
    pub(super) expires: bool,
    /// Whether it has shown a certificate.
    pub(super) certified: bool,
    /// The version it was told last.
    pub(super) seen: Option<u64>,
    /// The version of which it was told the incidents.
    pub(super) incidents_seen: Option<u64>,
    pub(super) heartbeat: Instant,
    /// Kept for as long as there is a viewer.
    pub(super) _feed: Arc<Feed>,
    pub(super) _permit: ViewerPermit,
}

impl Viewer {
    /// Waits for what there is to tell next. Nothing is lost where this is not waited for to the end.
    pub(super) async fn next(&mut self) -> ViewerEvent {
        loop {
            if let Some(reason) = self.has_to_end() {
                return ViewerEvent::End(reason);
            }
            match self.news() {
                Ok(Some(message)) => return ViewerEvent::Message(message),
                Ok(None) => {}
                Err(NoMemory) => return ViewerEvent::End(StreamEnd::NoMemory),
            }
            let now = Instant::now();
            if now >= self.heartbeat {
                self.heartbeat = now + HEARTBEAT;
                return ViewerEvent::Heartbeat;
            }
            let wake = if self.expires { self.heartbeat.min(now + TOKEN_CHECK) } else { self.heartbeat };
            tokio::select! {
                changed = self.versions.changed() => if changed.is_err() {
                    return ViewerEvent::End(self.why_no_more());
                },
                // Without a sender there is no more to be configured.
                changed = self.configs.changed() => if changed.is_err() {
                    return ViewerEvent::End(StreamEnd::ShuttingDown);
                },
                () = shutdown::triggered(&mut self.shutdown) => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    fn news(&mut self) -> Result<Option<ViewerMessage>, NoMemory> {
        let Some(version) = self.versions.borrow_and_update().clone() else { return Ok(None) };
        if self.seen != Some(version.number) {
            let body = self.channel.message(&version, self.seen)?;
            self.seen = Some(version.number);
            return Ok(Some(ViewerMessage { head: version.head(body.kind), body }));
        }
        if self.incidents_seen == Some(version.number) {
            return Ok(None);
        }
        let body = self.channel.incidents(&version, self.incidents_seen)?;
        self.incidents_seen = Some(version.number);
        Ok(body.map(|body| ViewerMessage { head: version.head(body.kind), body }))
    }

    fn has_to_end(&mut self) -> Option<StreamEnd> {
        if *self.shutdown.borrow() {
            return Some(StreamEnd::ShuttingDown);
        }
        let config = self.configs.borrow_and_update();
        if config.needs_client_certificate() && !self.certified {
            return Some(StreamEnd::CertificateRequired);
        }
        match config.auth.standing(&self.admission, SystemTime::now()) {
            AdmissionStanding::Valid { expires } => {
                self.expires = expires;
                None
            }
            AdmissionStanding::Expired => Some(StreamEnd::TokenExpired),
            AdmissionStanding::Removed => Some(StreamEnd::TokenRemoved),
        }
    }

    /// Why its feed has ended.
    fn why_no_more(&self) -> StreamEnd {
        let config = self.configs.borrow();
        match config.targets.all().any(|target| self.channel.target == target.name) {
            true => StreamEnd::InternalError,
            false => StreamEnd::TargetRemoved,
        }
    }
}
