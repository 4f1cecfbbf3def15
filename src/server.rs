//! The HTTP server: bind, accept, answer, drain.
//!
//! A request never touches Redis: it reads the newest snapshot.

mod answer;
mod auth;
pub mod basic_auth;
mod body;
pub mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use answer::Service;
pub use auth::{ApiAuth, ApiToken};
pub use basic_auth::BasicUsers;
pub use tls::Tls;

use crate::shutdown::{self, Ending};

/// Connections served at a time. Prometheus keeps one, people and probes a handful; at some 20 kB each, this many cost
/// 10 MB. The next one waits in the listener's queue.
const MAX_CONNECTIONS: usize = 512;

/// The longest request head, in bytes; a longer one is answered 431. Room for a big bearer token and a proxy's headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long a client may take to send a request's head, and how long a kept connection may be idle: hyper has one clock
/// for both. Twice Prometheus's default interval, so that a scraper keeps its connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// How long requests in flight may take to finish once the program is to end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait after `accept` failed: it fails again at once when file descriptors have run out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A server that has its ports and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<TcpListener>,
}

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    address: String,
    source: std::io::Error,
}

impl Bound {
    /// Listens on every address.
    ///
    /// # Errors
    /// Where one of them cannot be had; then none is held.
    pub async fn bind(addresses: &[String]) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for address in addresses {
            let listener = TcpListener::bind(address).await;
            listeners.push(listener.map_err(|source| BindError { address: address.clone(), source })?);
        }
        Ok(Self { listeners })
    }

    /// The addresses it listens on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `ending`, then finishes what is in flight, for [`DRAIN_DEADLINE`] at most.
    ///
    /// New connections are still accepted while old ones finish, so that a probe is told that this server is not ready.
    pub async fn serve(self, service: Arc<Service>, mut ending: Ending) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // Nothing is ever sent: the channel closes when the last connection that holds an end of it is done.
        let (in_flight, mut all_done) = mpsc::channel(1);
        let mut accepting = Vec::new();
        for listener in self.listeners {
            let connections = Connections {
                service: Arc::clone(&service),
                slots: Arc::clone(&slots),
                in_flight: Some(in_flight.clone()),
                ending: ending.clone(),
            };
            accepting.push(tokio::spawn(connections.accept(listener)));
        }
        drop(in_flight);
        shutdown::begins(&mut ending).await;
        service.begin_draining();
        if tokio::time::timeout(DRAIN_DEADLINE, all_done.recv()).await.is_err() {
            tracing::warn!(seconds = DRAIN_DEADLINE.as_secs(), "requests in flight did not finish in time");
        }
        for task in accepting {
            task.abort();
        }
    }
}

/// The connections of one listener.
struct Connections {
    service: Arc<Service>,
    slots: Arc<Semaphore>,
    /// Held by every connection that is to be finished before the end; `None` once that has begun.
    in_flight: Option<mpsc::Sender<Infallible>>,
    ending: Ending,
}

impl Connections {
    async fn accept(mut self, listener: TcpListener) {
        let mut failing = false;
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown::begins(&mut self.ending), if self.in_flight.is_some() => {
                    self.in_flight = None;
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    self.serve(stream, slot);
                }
                Err(error) => {
                    if !failing {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        // Without it a kept connection waits out the peer's delayed acknowledgement: 44 ms a scrape.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (service, in_flight, mut ending) = (Arc::clone(&self.service), self.in_flight.clone(), self.ending.clone());
        let answer = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(&request)) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(MAX_HEAD_BYTES)
            .keep_alive(in_flight.is_some())
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            tokio::pin!(connection);
            let ended = tokio::select! {
                // The connection first: a request that has arrived is read before its connection is told to end.
                biased;
                ended = connection.as_mut() => ended,
                () = shutdown::begins(&mut ending), if in_flight.is_some() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                // The client's doing: it hung up, was too slow, or did not speak HTTP.
                tracing::debug!(%error, "a connection ended early");
            }
            drop((slot, in_flight));
        });
    }
}
