//! Connects to Redis: looks up the name, opens the socket, negotiates TLS, logs in.
//!
//! Nothing is kept from one connection to the next but what was configured: names are looked up, and the password and the
//! TLS files are read again for each.

use std::fmt;
use std::path::PathBuf;

#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Instant;

pub use crate::redis::credentials::Credentials;
pub(crate) use crate::redis::tls::described;
pub use crate::redis::tls::{ClientTls, ClientTlsError, TlsFiles, TlsPart};
pub use crate::sys::dial::Resolver;

use crate::model::FailureReason;
use crate::model::sample::SampleError;
use crate::redis::refusals::{named, server_wide};
use crate::redis::resp::Refusal;
use crate::redis::resp_stream::{RespStream, Socket, while_connecting};
use crate::sys::dial::connect_tcp;

/// Where a Redis is, and who we are there. Shown without the credentials.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// How it is made sure who it is; `None` is plain text.
    pub tls: Option<ClientTls>,
    /// Who we are there.
    pub credentials: Credentials,
    /// The database, by its number.
    pub db: i64,
    /// How the host's name becomes addresses.
    pub resolver: Resolver,
}

/// Where a Redis listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// At a port of a host, by name or by address.
    Tcp(String, u16),
    /// At a socket in the file system.
    Unix(PathBuf),
}

/// The longest name of a host: no name in DNS is longer.
const MAX_HOST_BYTES: usize = 253;

impl Address {
    /// What Redis, or a sentinel, says of where a server is; `None` where that can be no host. It becomes a label, and a part of log lines.
    #[must_use]
    pub(crate) fn told(host: &str, port: u16) -> Option<Self> {
        let is_host = (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic());
        is_host.then(|| Self::Tcp(host.to_owned(), port))
    }
}

impl Endpoint {
    /// Whether it is the same server and the same login, so that connections of the one do for the other. What is in files
    /// does not count: it is read again for each connection anyway.
    #[must_use]
    pub fn same_target(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(tls), Some(other)) => tls.same_target(other),
            (tls, other) => tls.is_none() && other.is_none(),
        };
        self.address == other.address
            && self.db == other.db
            && same_tls
            && self.credentials.same_target(&other.credentials)
    }

    /// Connects and logs in. The deadline is what addresses that do not answer share; the caller must keep it.
    pub(crate) async fn connect(&mut self, deadline: Instant) -> Result<RespStream, SampleError> {
        self.credentials.renew();
        let socket = self.socket(deadline).await.map_err(unreachable)?;
        let mut wire = RespStream::over(socket);
        match self.log_in(&mut wire).await {
            Ok(()) => Ok(wire),
            Err(error) => Err(self.with_hint(error)),
        }
    }

    /// The same error, of the first words on a connection, with what to try where the server may expect TLS, or not have liked it.
    pub(super) fn with_hint(&self, error: SampleError) -> SampleError {
        let hint = match (&self.tls, error.reason) {
            (None, FailureReason::Connect | FailureReason::Protocol) if matches!(self.address, Address::Tcp(..)) => {
                "if this port expects TLS, use a rediss:// URL"
            }
            (Some(tls), FailureReason::Connect) if !tls.has_identity() && !error.detail.contains("--redis.tls") => {
                "if the server requires a client certificate, set --redis.tls-cert-file and --redis.tls-key-file"
            }
            _ => return error,
        };
        SampleError { detail: format!("{}; {hint}", error.detail), ..error }
    }

    async fn log_in(&self, wire: &mut RespStream) -> Result<(), SampleError> {
        if let (user, Some(password)) = self.credentials.credentials() {
            let words: Vec<&[u8]> =
                [Some("AUTH"), user, Some(password)].into_iter().flatten().map(str::as_bytes).collect();
            let mut refusal = ask(wire, &words).await?;
            if refusal.as_ref().is_some_and(|refusal| refusal.text().contains("wrong number of arguments")) {
                // Redis 5 has one user, who has no name.
                refusal = ask(wire, &[b"AUTH", password.as_bytes()]).await?;
            }
            if let Some(refusal) = refusal {
                return Err(refused(&refusal, FailureReason::Auth));
            }
        }
        if self.db == 0 {
            return Ok(());
        }
        match ask(wire, &[b"SELECT", self.db.to_string().as_bytes()]).await? {
            Some(refusal) => {
                let error = refused(&refusal, FailureReason::Server);
                let detail = format!("database {} cannot be selected: {}", self.db, error.detail);
                Err(SampleError { detail, ..error })
            }
            None => Ok(()),
        }
    }

    async fn socket(&mut self, deadline: Instant) -> std::io::Result<Box<dyn Socket>> {
        let stream = match &self.address {
            #[cfg(unix)]
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(std::io::ErrorKind::Unsupported.into()),
            Address::Tcp(host, port) => {
                let addresses = self.resolver.look_up(host, *port).await?;
                connect_tcp(&addresses, deadline).await?
            }
        };
        // Commands go out in few large writes; each is to leave at once.
        stream.set_nodelay(true)?;
        match &mut self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => Ok(Box::new(tls.wrap(stream, deadline).await?)),
        }
    }
}

/// Sends one command; what Redis has against it.
async fn ask(wire: &mut RespStream, words: &[&[u8]]) -> Result<Option<Refusal>, SampleError> {
    let reply = wire.ask(words).await.map_err(while_connecting)?;
    Ok(reply.error())
}

/// Why Redis refuses a login: never in its own words.
pub(crate) fn refused(refusal: &Refusal, otherwise: FailureReason) -> SampleError {
    let reason = reason_of(refusal.text(), otherwise);
    let reason = server_wide(refusal).map_or(reason, |error| error.reason);
    SampleError { reason, detail: named(refusal).to_owned() }
}

/// What is said to every client tells nothing of who asked, nor what.
fn reason_of(refusal: &str, otherwise: FailureReason) -> FailureReason {
    let to_everybody = refusal.starts_with("DENIED") || refusal.contains("max number of clients");
    if to_everybody { FailureReason::Server } else { otherwise }
}

fn unreachable(error: std::io::Error) -> SampleError {
    SampleError { reason: FailureReason::Connect, detail: described(&error) }
}

/// The address and the database.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let db = self.db;
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "{scheme}://[{host}]:{port}/{db}"),
            Address::Tcp(host, port) => write!(f, "{scheme}://{host}:{port}/{db}"),
            // Escaped, any path is one line.
            Address::Unix(path) => write!(f, "unix://{}?db={db}", path.to_string_lossy().escape_debug()),
        }
    }
}
