//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::http::Service;
use crate::http::admission::{ConnectionPermit, ConnectionState, TrackedIo};
use crate::http::live::PendingUpgrade;
use crate::http::response_body::StaticBody;
use crate::http::server_config::Peer;
use crate::sys::own_metrics::Closed;
use crate::sys::shutdown::{self, Shutdown};

/// The longest request head, in bytes; a longer one is answered 431. Room for a big bearer token and a proxy's headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Requests that one HTTP/2 connection may have open at a time. A scraper has one, a browser some.
const MAX_STREAMS: u32 = 32;

/// Bytes of an answer that HTTP/2 holds ready to be sent, for each request.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// A connection that has its place.
pub(super) struct HttpConnection {
    pub(super) service: Arc<Service>,
    pub(super) place: ConnectionPermit,
    pub(super) shutdown: Shutdown,
    /// Whether the end has begun already: then it is for one request only.
    pub(super) last: bool,
}

/// What the requests of one connection have in common.
struct ConnectionService {
    service: Arc<Service>,
    activity: Arc<ConnectionState>,
    peer: Peer,
    /// What the connection becomes once its last answer is out.
    upgrade: Arc<Mutex<Option<PendingUpgrade>>>,
}

impl HttpConnection {
    /// Serves until the client is done, takes too long, or the end begins.
    pub(super) async fn serve(self, stream: TcpStream, peer: IpAddr) {
        // Without it a kept connection waits out the peer's delayed acknowledgement: 44 ms a scrape.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let activity = Arc::clone(&self.place.activity);
        let metrics = self.service.metrics.clone();
        let closed = tokio::select! {
            // The connection first: what has arrived is read before its time is up.
            biased;
            closed = self.converse(stream, peer) => closed,
            closed = activity.has_to_end() => Some(closed),
        };
        if let Some(closed) = closed {
            tracing::debug!(%peer, reason = closed.as_str(), "a connection was closed early");
            metrics.connection_closed(closed);
        }
    }

    async fn converse(mut self, stream: TcpStream, address: IpAddr) -> Option<Closed> {
        let Some(tls) = self.service.policy().tls.clone() else {
            self.over_http1(stream, Peer::new(address, false)).await;
            return None;
        };
        let accepted = tokio::select! {
            accepted = TlsAcceptor::from(tls.config).accept(stream) => accepted,
            () = self.has_to_finish(), if !self.last => return None,
        };
        match accepted {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let certified = session.peer_certificates().is_some();
                let http2 = session.alpn_protocol() == Some(b"h2");
                let peer = Peer::new(address, certified);
                if http2 {
                    self.over_http2(stream, peer).await
                } else {
                    self.over_http1(stream, peer).await
                }
                None
            }
            Err(error) => {
                tracing::debug!(peer = %address, %error, "TLS handshake failed");
                Some(Closed::Handshake)
            }
        }
    }

    async fn over_http1(mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Peer) {
        let upgrade = Arc::new(Mutex::new(None));
        let connection = http1::Builder::new()
            // Its clock is for heads and idleness alike; the place's clocks tell them apart.
            .header_read_timeout(None)
            .timer(TokioTimer::new())
            .max_header_size(MAX_HEAD_BYTES)
            .keep_alive(!self.last)
            .serve_connection(self.watched(stream), self.answers(peer, Arc::clone(&upgrade)))
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            // The connection first: a request that has arrived is read before its connection is told to end.
            biased;
            ended = connection.as_mut() => ended,
            () = self.has_to_finish(), if !self.last => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        log_end(ended);
        let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((session, upgrading)) = upgrade.and_then(|upgrade| upgrade.take()) {
            self.place.activity.is_upgraded();
            match upgrading.await {
                Ok(upgraded) => session.run(upgraded).await,
                Err(error) => log_end(Err(error)),
            }
        }
    }

    async fn over_http2(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
        self.place.activity.is_http2();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .serve_connection(self.watched(stream), self.answers(peer, Arc::default()));
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = self.has_to_finish() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        log_end(ended);
    }

    /// Waits until the end begins and the first request, which may be on its way, has come.
    async fn has_to_finish(&mut self) {
        shutdown::triggered(&mut self.shutdown).await;
        self.place.activity.first_request().await;
    }

    fn watched<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> TokioIo<TrackedIo<S>> {
        TokioIo::new(TrackedIo { stream, activity: Arc::clone(&self.place.activity) })
    }

    fn answers(&self, peer: Peer, upgrade: Arc<Mutex<Option<PendingUpgrade>>>) -> impl HyperService + use<> {
        // One thing of the connection's own: what all connections share is counted by all processors in contention.
        let client = Arc::new(ConnectionService {
            service: Arc::clone(&self.service),
            activity: Arc::clone(&self.place.activity),
            peer,
            upgrade,
        });
        service_fn(move |request: Request<Incoming>| {
            let client = Arc::clone(&client);
            let open = client.activity.request();
            async move {
                // No place wants a body. Where one comes, nothing behind it is taken for a request.
                let has_body = !request.body().is_end_stream();
                let (head, _) = request.into_parts();
                let mut answer = client.service.answer(&head, &client.peer).await;
                client.activity.set_known(client.peer.is_known());
                if let Some(upgrade) = answer.extensions_mut().remove::<PendingUpgrade>() {
                    *client.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
                }
                let mut answer = answer.map(|body| body.until_sent(open, &client.service.memory));
                // Over HTTP/1 hyper leaves the body out by itself.
                if head.method == Method::HEAD && head.version == Version::HTTP_2 {
                    let length = answer.body().size_hint().lower();
                    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
                    answer = answer.map(|_| StaticBody::from(Bytes::new()));
                }
                if has_body && head.version < Version::HTTP_2 {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        })
    }
}

/// What hyper asks for answers.
trait HyperService:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response<StaticBody>,
        Error = Infallible,
        Future: Future<Output = Result<Response<StaticBody>, Infallible>> + Send + 'static,
    > + Send
{
}

impl<S> HyperService for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<StaticBody>,
            Error = Infallible,
            Future: Future<Output = Result<Response<StaticBody>, Infallible>> + Send + 'static,
        > + Send
{
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        // The client's doing: it hung up, or did not speak HTTP.
        tracing::debug!(%error, "a connection ended early");
    }
}
