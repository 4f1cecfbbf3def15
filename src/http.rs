//! The HTTP server: bind, accept, answer, drain.
//!
//! A request never touches Redis: it reads the newest snapshot.

mod admission;
pub mod api;
mod auth;
pub mod basic_auth;
mod connection;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod history;
mod json_cache;
pub mod landing;
mod live;
mod login_queue;
mod login_throttle;
mod origin;
mod problem;
mod rate_limit;
pub mod reader_memory;
mod response_body;
pub mod route;
mod scale;
mod scalers;
mod server_config;
mod service;
mod targets;
pub mod tls;
pub mod tokens;
mod ui;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use crate::http::rate_limit::RateLimit;
pub use crate::http::service::Service;
pub use auth::ApiAuth;
pub use basic_auth::{BasicUsers, BasicUsersError};
pub use origin::Origin;
pub use scalers::{DeclaredScaler, Scalers};
pub use server_config::{Peer, ServerConfig};
pub use targets::{ServedTarget, ServedTargets};
pub use tls::ServerTls;

use crate::http::admission::{ConnectionLimiter, MAX_CONNECTIONS};
use crate::sys::shutdown::{self, Shutdown};
use connection::HttpConnection;

/// How long requests in flight may take to finish once the program is to end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait after `accept` failed: it fails again at once when file descriptors have run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// After so long without it, a failure to accept is news again: a flood fails now and then.
const QUIET: Duration = Duration::from_secs(60);

/// Connections that may wait to be accepted, as far as the kernel allows (net.core.somaxconn, 4096). Where they are more than
/// that, the next client waits a second for TCP to try again.
const BACKLOG: u32 = 4096;

/// Bytes of an answer that the kernel holds for a client. Left to itself it takes up to 4 MB for each, and a thousand clients
/// who do not read bring TCP on the whole machine into trouble.
const SEND_BUFFER: usize = 256 * 1024;

/// The same for all clients together. Where so many are connected that it is used up, each new one gets its share.
const SEND_BUFFERS: usize = 16 * 1024 * 1024;

/// The share of a client, at least: a few segments of TCP.
const LEAST_SEND_BUFFER: usize = 16 * 1024;

/// File descriptors that are left for all but clients: listeners, Redis, logs, the runtime, files being reloaded.
const OTHER_DESCRIPTORS: u64 = 64;

/// A server that has its ports and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it, or this user may not.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The service manager gave none that can be used.
    #[error("--web.systemd-socket takes listening TCP sockets from systemd's socket activation: {0}")]
    Activation(String),
}

impl Bound {
    /// Listens on every address.
    ///
    /// # Errors
    /// Where one of them cannot be had; then none is held.
    pub async fn bind(addresses: &[String]) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = listen(address).await;
            listeners.push(listener.map_err(|source| BindError::Address { address: address.clone(), source })?);
        }
        Ok(Self { listeners })
    }

    /// Takes the sockets that systemd has opened.
    ///
    /// # Errors
    /// Where there are none, or others than listening TCP sockets.
    pub fn from_systemd() -> Result<Self, BindError> {
        let mut sockets = listenfd::ListenFd::from_env();
        let mut listeners = Vec::with_capacity(sockets.len());
        for number in 0..sockets.len() {
            let socket = sockets.take_tcp_listener(number);
            let socket = socket.map_err(|error| BindError::Activation(format!("socket {number}: {error}")))?;
            let listener = socket.map(|socket| {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)
            });
            let listener = listener.transpose().map_err(|error| BindError::Activation(error.to_string()))?;
            listeners.extend(listener);
        }
        if listeners.is_empty() {
            return Err(BindError::Activation("there are none".to_owned()));
        }
        Ok(Self { listeners })
    }

    /// The addresses it listens on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then finishes what is in flight, for [`DRAIN_DEADLINE`] at most.
    ///
    /// New connections are still accepted while old ones finish, so that a probe is told that this server is not ready.
    ///
    /// # Panics
    /// Where one of its own tasks did: a server that no longer accepts is none.
    pub async fn serve(self, service: Arc<Service>, mut shutdown: Shutdown) {
        for listener in &self.listeners {
            // Connections have it from their listener.
            if let Err(error) = SockRef::from(listener).set_send_buffer_size(SEND_BUFFER) {
                tracing::debug!(%error, "cannot set SO_SNDBUF");
            }
        }
        let limiter = Arc::new(ConnectionLimiter::new(
            places(service.policy().max_viewers),
            service.metrics.http_connections.clone(),
        ));
        // Nothing is ever sent: the channel closes when the last connection that holds an end of it is done.
        let (in_flight, mut all_done) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            let acceptor = Acceptor {
                service: Arc::clone(&service),
                limiter: Arc::clone(&limiter),
                in_flight: Some(in_flight.clone()),
                shutdown: shutdown.clone(),
            };
            accepting.spawn(acceptor.accept(listener));
        }
        drop(in_flight);
        tokio::select! {
            () = shutdown::triggered(&mut shutdown) => {}
            () = service.watch_readers() => {}
            Some(Err(error)) = accepting.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
        service.begin_draining();
        if tokio::time::timeout(DRAIN_DEADLINE, all_done.recv()).await.is_err() {
            tracing::warn!(seconds = DRAIN_DEADLINE.as_secs(), "drain timeout; dropping requests in flight");
        }
    }
}

/// Listens on the first address of a host that can be had.
async fn listen(host: &str) -> std::io::Result<TcpListener> {
    let mut failed = std::io::Error::new(ErrorKind::AddrNotAvailable, "the host has no address");
    for address in tokio::net::lookup_host(host).await? {
        let listener = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A port whose last connections are still being closed can be had at once.
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        match listener() {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// How many clients there is room for beside viewers: as many as file descriptors allow, for which the soft limit is raised. (The hard one
/// is not touched, and nothing here uses select(2), which is why the soft one is low.)
fn places(viewers: u64) -> usize {
    let others = OTHER_DESCRIPTORS + viewers;
    let wanted = MAX_CONNECTIONS as u64 + others;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => MAX_CONNECTIONS,
        Ok(limit) => {
            let places = limit.saturating_sub(others).max(limit / 4).max(1);
            tracing::warn!(open_files = limit, limit = places, "open file limit is low; limiting HTTP connections");
            places as usize
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read the open file limit");
            MAX_CONNECTIONS
        }
    }
}

/// Where the connections of one listener come in.
struct Acceptor {
    service: Arc<Service>,
    limiter: Arc<ConnectionLimiter>,
    /// Held by every connection that is to be finished before the end; `None` once that has begun.
    in_flight: Option<mpsc::Sender<Infallible>>,
    shutdown: Shutdown,
}

impl Acceptor {
    async fn accept(mut self, listener: TcpListener) {
        let mut failed: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown::triggered(&mut self.shutdown), if self.in_flight.is_some() => {
                    self.in_flight = None;
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = self.limiter.admit(peer.ip()).await else { return };
                    let share = SEND_BUFFERS / self.limiter.open_connections().max(1);
                    if share < SEND_BUFFER {
                        // Where it cannot be set, the connection is gone already.
                        let _ = SockRef::from(&stream).set_send_buffer_size(share.max(LEAST_SEND_BUFFER));
                    }
                    let in_flight = self.in_flight.clone();
                    let connection = HttpConnection {
                        service: Arc::clone(&self.service),
                        place,
                        shutdown: self.shutdown.clone(),
                        last: in_flight.is_none(),
                    };
                    tokio::spawn(async move {
                        connection.serve(stream, peer.ip()).await;
                        drop(in_flight);
                    });
                }
                // The client was gone before it was here.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    if failed.is_none_or(|at| at.elapsed() > QUIET) {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    failed = Some(Instant::now());
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}
