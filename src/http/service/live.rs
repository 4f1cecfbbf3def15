//! The response that opens a live stream.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{NOT_POLLED, Service, target};
use crate::http::auth::Admission;
use crate::http::live::request::{LiveQuery, LiveTransport, PROTOCOL, VARY_BY};
use crate::http::live::{PendingUpgrade, Visit};
use crate::http::problem::{HttpProblem, unavailable, whole_seconds};
use crate::http::response_body::{EventBytes, HttpResponse};
use crate::http::server_config::{Peer, ServerConfig};

/// When a viewer may come back for whom there is no place.
const VIEWERS_RETRY: Duration = Duration::from_secs(10);

impl Service {
    /// A live stream, in the form that is asked for.
    pub(super) fn live_stream(
        &self,
        policy: &ServerConfig,
        head: &Parts,
        peer: &Peer,
        admission: Admission,
    ) -> Result<HttpResponse, HttpProblem> {
        let query = LiveQuery::parse(head.uri.query())?;
        let transport = LiveTransport::of(head)?;
        let target = target(policy, query.target.as_deref())?;
        if self.draining.load(Ordering::Relaxed) {
            return Err(unavailable(target, "streamlag is shutting down"));
        }
        if target.reader.newest().view.newest_poll.is_none() {
            return Err(unavailable(target, NOT_POLLED));
        }
        let mut answer = HttpResponse::new(Bytes::new().into());
        let headers = answer.headers_mut();
        // A proxy that collects or compresses would hold events back.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        headers.insert(VARY, HeaderValue::from_static(VARY_BY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let visit = Visit { target: target.name.clone(), filter: query.filter, admission, certified: peer.certified };
        let open = || {
            self.live.open(visit, policy.max_viewers).ok_or_else(|| {
                let detail = format!("all {} viewers are taken (--limit.viewers)", policy.max_viewers);
                let problem = HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                problem.with(RETRY_AFTER, whole_seconds(VIEWERS_RETRY))
            })
        };
        match transport {
            LiveTransport::EventStream => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
                if head.version < Version::HTTP_2 {
                    // It has no place among the connections that would be left for another request.
                    headers.insert(CONNECTION, HeaderValue::from_static("close"));
                }
                let events = match head.method {
                    Method::HEAD => Box::pin(futures_util::stream::empty()) as EventBytes,
                    _ => self.live.event_stream(open()?),
                };
                *answer.body_mut() = events.into();
            }
            LiveTransport::WebSocket { key, named } => {
                let Some(upgrading) = head.extensions.get::<OnUpgrade>().cloned() else {
                    let detail = "this connection cannot be upgraded";
                    return Err(HttpProblem::new(StatusCode::BAD_REQUEST, detail.to_owned()));
                };
                let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept.unwrap_or(HeaderValue::from_static("")));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                if named {
                    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
                }
                let session = self.live.session(open()?);
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                answer.extensions_mut().insert(PendingUpgrade::new(session, upgrading));
            }
        }
        Ok(answer)
    }
}
