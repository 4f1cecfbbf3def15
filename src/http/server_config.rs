//! The configuration of the server, as far as a reload can change it: swapped as one.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::http::api::Transport;
use crate::http::auth::ApiAuth;
use crate::http::basic_auth::BasicUsers;
use crate::http::origin::Origin;
use crate::http::rate_limit::RateLimit;
use crate::http::scalers::Scalers;
use crate::http::targets::ServedTargets;
use crate::http::tls::ServerTls;
use crate::store::deliveries::Deliveries;
use crate::store::forecasts::Forecasts;
use crate::store::history::History;
use crate::store::remediation::Desk;

/// The configuration of the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where the metrics page is.
    pub telemetry_path: String,
    /// Who may use the API.
    pub auth: ApiAuth,
    /// How often each token may be used; `None` where there is no limit.
    pub token_rate: Option<RateLimit>,
    /// Whether a client with a token may have the configuration reloaded.
    pub lifecycle: bool,
    /// Who may read the metrics page; every client, where it is empty.
    pub users: BasicUsers,
    /// Rate limit of all requests but health checks; `None` where there is no limit.
    pub rate: Option<RateLimit>,
    /// Memory that may be held for readers, in bytes.
    pub memory_for_readers: u64,
    /// Headers that every answer carries.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Pages of which other origins may open a live stream.
    pub allowed_origins: Vec<Origin>,
    /// How many live streams may be open.
    pub max_viewers: u64,
    /// How connections are encrypted; `None` where they are not.
    pub tls: Option<ServerTls>,
    /// The declared scalers.
    pub scalers: Scalers,
    /// What is watched.
    pub targets: ServedTargets,
    /// What was.
    pub history: History,
    /// What became of telling receivers of incidents.
    pub deliveries: Deliveries,
    /// What will be.
    pub forecasts: Forecasts,
    /// What could be done about sick groups.
    pub remediation: Desk,
    /// The event transport's settings.
    pub transport: Transport,
}

impl ServerConfig {
    /// Whether clients have to show a certificate.
    pub(super) fn needs_client_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.needs_client_certificate)
    }

    /// Takes over what tokens have used up of their rate, and which passwords were right, from the policy that goes.
    pub(super) fn inherit(&self, before: &Self) {
        if let (ApiAuth::Tokens(tokens), ApiAuth::Tokens(before)) = (&self.auth, &before.auth) {
            tokens.inherit(before);
        }
        self.users.inherit(&before.users);
    }
}

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether it has shown a certificate.
    pub certified: bool,
    /// Digest of the credentials by which it has logged in over this connection. Guessers at the same address cannot shut these out, and
    /// nobody can guess others by them.
    known: Mutex<Option<[u8; 32]>>,
}

impl Peer {
    /// A client that has not logged in yet.
    #[must_use]
    pub fn new(address: IpAddr, certified: bool) -> Self {
        Self { address, certified, known: Mutex::default() }
    }

    /// Whether it has logged in over this connection.
    pub(super) fn is_known(&self) -> bool {
        self.known().is_some()
    }

    /// Whether it has logged in by these credentials.
    pub(super) fn is_known_by(&self, credentials: &[u8]) -> bool {
        self.known().is_some_and(|known| known.ct_eq(&digest(credentials)).into())
    }

    /// It has logged in by these.
    pub(super) fn set_known_by(&self, credentials: &[u8]) {
        self.known().get_or_insert_with(|| digest(credentials));
    }

    /// These were refused.
    pub(super) fn forget(&self, credentials: &[u8]) {
        if self.is_known_by(credentials) {
            *self.known() = None;
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<[u8; 32]>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(credentials: &[u8]) -> [u8; 32] {
    Sha256::digest(credentials).into()
}
