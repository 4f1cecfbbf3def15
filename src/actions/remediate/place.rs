//! The way to Redis for acts: a connection per act, by the `redis` crate. Acts are rare, and nothing is kept that could be stale.

use std::path::PathBuf;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, TlsMode,
};

use super::login::Login;
use crate::sys::files;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a script may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a node of a cluster may say that a stream is elsewhere. A script that was run finds nothing to do when it is run again.
const REDIRECTIONS: u32 = 3;

/// How a Redis is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceMode {
    /// One server.
    Standalone,
    /// Redis Cluster.
    Cluster,
    /// A master that sentinels name.
    Sentinel(Sentinels),
}

/// Who names the master.
#[derive(Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// The name of the master.
    pub master: String,
    /// The login at the sentinels.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentinels").field("master", &self.master).finish_non_exhaustive()
    }
}

/// The files of TLS, PEM, which are read again for each act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPaths {
    /// The certificates that may vouch for the server; those of the system where there are none.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How it is set up.
    pub mode: PlaceMode,
    /// Servers, nodes or sentinels: host and port.
    pub hosts: Vec<(String, u16)>,
    /// A socket in place of a host.
    pub socket: Option<PathBuf>,
    /// The database.
    pub db: i64,
    /// TLS; `None` for plain text.
    pub tls: Option<TlsPaths>,
}

/// Who may act, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doer {
    place: Place,
    login: Login,
}

/// A connection for one act.
pub(super) enum Connected {
    One(Box<Connection>),
    Cluster(Box<ClusterConnection>),
}

impl Connected {
    pub(super) fn as_like(&mut self) -> &mut dyn ConnectionLike {
        match self {
            Self::One(connection) => connection.as_mut(),
            Self::Cluster(connection) => connection.as_mut(),
        }
    }
}

impl Doer {
    /// This user at this place.
    ///
    /// # Errors
    /// What is expected of the file of the password.
    pub fn new(place: Place, user: String, password_file: PathBuf) -> Result<Self, String> {
        Ok(Self { place, login: Login::new(user, password_file)? })
    }

    /// Connects and logs in.
    pub(super) fn connect(&self) -> Result<Connected, String> {
        self.open(&self.login.password()?).map_err(|error| match error {
            Failure::Redis(error) => described(&error),
            Failure::File(why) => why,
        })
    }

    fn open(&self, password: &str) -> Result<Connected, Failure> {
        let Self { place, login } = self;
        let certificates = place.tls.as_ref().map(TlsPaths::read).transpose()?;
        let settings = RedisConnectionInfo::default()
            .set_username(&login.user)
            .set_password(password)
            .set_db(place.db)
            .set_skip_set_lib_name();
        match &place.mode {
            PlaceMode::Standalone => {
                let info = place.infos(&settings)?.into_iter().next();
                let info = info.ok_or_else(|| Failure::File("there is no address".to_owned()))?;
                let client = match certificates {
                    Some(certificates) => Client::build_with_tls(info, certificates)?,
                    None => Client::open(info)?,
                };
                limited(client.get_connection_with_timeout(CONNECT_TIMEOUT)?)
            }
            PlaceMode::Cluster => {
                let mut builder = ClusterClient::builder(place.infos(&settings)?)
                    .username(&login.user)
                    .password(password)
                    .retries(REDIRECTIONS)
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(ANSWER_TIMEOUT);
                if let Some(certificates) = certificates {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Ok(Connected::Cluster(Box::new(builder.build()?.get_connection()?)))
            }
            PlaceMode::Sentinel(sentinels) => {
                let mut builder =
                    SentinelClientBuilder::new(place.addresses(), &sentinels.master, SentinelServerType::Master)?
                        .set_client_to_redis_username(&login.user)
                        .set_client_to_redis_password(password)
                        .set_client_to_redis_db(place.db);
                if let Some(user) = &sentinels.user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
                if let Some(password) = &sentinels.password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                        .set_client_to_sentinel_certificates(certificates);
                }
                let client = builder.build()?.get_client()?;
                limited(client.get_connection_with_timeout(CONNECT_TIMEOUT)?)
            }
        }
    }
}

/// Why there is no connection.
enum Failure {
    Redis(RedisError),
    File(String),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Redis(error)
    }
}

fn limited(connection: Connection) -> Result<Connected, Failure> {
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(Connected::One(Box::new(connection)))
}

impl Place {
    fn addresses(&self) -> Vec<ConnectionAddr> {
        if let Some(socket) = &self.socket {
            return vec![ConnectionAddr::Unix(socket.clone())];
        }
        let address = |(host, port): &(String, u16)| match self.tls {
            Some(_) => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host.clone(), *port),
        };
        self.hosts.iter().map(address).collect()
    }

    fn infos(&self, settings: &RedisConnectionInfo) -> Result<Vec<ConnectionInfo>, RedisError> {
        let info = |address: ConnectionAddr| Ok(address.into_connection_info()?.set_redis_settings(settings.clone()));
        self.addresses().into_iter().map(info).collect()
    }
}

impl TlsPaths {
    fn read(&self) -> Result<TlsCertificates, Failure> {
        let read =
            |path: &PathBuf| files::read(path).map_err(|why| Failure::File(format!("{}: {why}", path.display())));
        let identity = |(certificate, key): &(PathBuf, PathBuf)| {
            Ok::<_, Failure>(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        };
        Ok(TlsCertificates {
            client_tls: self.identity.as_ref().map(identity).transpose()?,
            root_cert: self.ca.as_ref().map(read).transpose()?,
        })
    }
}

/// Bytes of what Redis says that are repeated.
const MAX_SHOWN: usize = 200;

/// What Redis or the network has against it, in one bounded line.
pub(super) fn described(error: &RedisError) -> String {
    let line: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    crate::model::names::text(line.as_bytes(), MAX_SHOWN)
}
