//! The way to Redis for acts: a connection per act, by the `redis` crate. Acts are rare, and nothing is kept that could be stale.

use std::path::PathBuf;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, TlsMode, Value, cmd,
};

use super::login::Login;
use crate::sys::files::{self, FileError};
use crate::sys::password::{Password, PasswordFileError};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a script may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinels {
    /// The name of the master.
    pub master: String,
    /// The login at the sentinels.
    pub user: Option<String>,
    /// The file of its password, which is read again for each act.
    pub password_file: Option<PathBuf>,
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
    pub fn new(place: Place, user: String, password_file: PathBuf) -> Result<Self, PasswordFileError> {
        Ok(Self { place, login: Login::new(user, password_file)? })
    }

    /// Connects and logs in.
    pub(super) fn connect(&self) -> Result<Connected, ConnectError> {
        let Self { place, login } = self;
        let password = login.password().map_err(ConnectError::Password)?;
        let password = password.as_str();
        let certificates = place.tls.as_ref().map(TlsPaths::read).transpose()?;
        let settings = RedisConnectionInfo::default()
            .set_username(&login.user)
            .set_password(password)
            .set_db(place.db)
            .set_skip_set_lib_name();
        match &place.mode {
            PlaceMode::Standalone => {
                let info = place.infos(&settings)?.into_iter().next();
                Ok(Connected::One(Box::new(limited(info.ok_or(ConnectError::NoAddress)?, certificates)?)))
            }
            PlaceMode::Cluster => {
                let mut builder = ClusterClient::builder(place.infos(&settings)?)
                    .username(&login.user)
                    .password(password)
                    // A retry may be of a script whose answer was lost, and would be another act. Where a slot has just moved, the act fails.
                    .retries(0)
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(ANSWER_TIMEOUT);
                if let Some(certificates) = certificates {
                    builder = builder.tls(TlsMode::Secure).certs(certificates);
                }
                Ok(Connected::Cluster(Box::new(builder.build()?.get_connection()?)))
            }
            PlaceMode::Sentinel(sentinels) => {
                let master = place.address(&sentinels.master_of(place, certificates.as_ref())?);
                let info = master.into_connection_info()?.set_redis_settings(settings);
                let mut connection = limited(info, certificates)?;
                // Sentinels may not have noticed yet that it is none any more.
                let role: Vec<Value> = cmd("ROLE").query(&mut connection)?;
                match role.first() {
                    Some(Value::BulkString(role)) if role == b"master" => Ok(Connected::One(Box::new(connection))),
                    _ => Err(ConnectError::NoMaster),
                }
            }
        }
    }
}

impl Sentinels {
    /// Where the master is, by the first sentinel that says so. The crate's own client for sentinels connects without a limit of time.
    fn master_of(&self, place: &Place, certificates: Option<&TlsCertificates>) -> Result<(String, u16), ConnectError> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        match &self.password_file {
            Some(file) => {
                let wrong = |error| ConnectError::SentinelPassword { file: file.clone(), error };
                let password = Password::read(file).map_err(wrong)?;
                settings = settings.set_password(password.as_str());
            }
            // Without one, a user would not be told. To one who needs none, any will do.
            None if self.user.is_some() => settings = settings.set_password(""),
            None => {}
        }
        let mut trouble = ConnectError::NoSentinel;
        for info in place.infos(&settings)? {
            let ask = |mut sentinel: Connection| {
                cmd("SENTINEL").arg("get-master-addr-by-name").arg(&self.master).query(&mut sentinel)
            };
            match limited(info, certificates.cloned()).and_then(|sentinel| Ok(ask(sentinel)?)) {
                Ok(Some(master)) => return Ok(master),
                Ok(None) => trouble = ConnectError::UnknownMaster(self.master.clone()),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("remediation.password_file: {0}")]
    Password(PasswordFileError),
    #[error("{}: {error}", file.display())]
    SentinelPassword { file: PathBuf, error: PasswordFileError },
    /// A certificate or a key.
    #[error("{}: {error}", file.display())]
    Tls { file: PathBuf, error: FileError },
    #[error("there is no address")]
    NoAddress,
    #[error("there is no sentinel")]
    NoSentinel,
    #[error("the sentinels know no master {0:?}")]
    UnknownMaster(String),
    #[error("the sentinels name a server that is no master now")]
    NoMaster,
    #[error("{}", described(.0))]
    Redis(#[from] RedisError),
}

/// A connection on which neither connecting nor an answer takes for ever.
fn limited(info: ConnectionInfo, certificates: Option<TlsCertificates>) -> Result<Connection, ConnectError> {
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates)?,
        None => Client::open(info)?,
    };
    let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
    connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(connection)
}

impl Place {
    fn addresses(&self) -> Vec<ConnectionAddr> {
        if let Some(socket) = &self.socket {
            return vec![ConnectionAddr::Unix(socket.clone())];
        }
        self.hosts.iter().map(|host| self.address(host)).collect()
    }

    fn address(&self, (host, port): &(String, u16)) -> ConnectionAddr {
        match self.tls {
            Some(_) => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
            None => ConnectionAddr::Tcp(host.clone(), *port),
        }
    }

    fn infos(&self, settings: &RedisConnectionInfo) -> Result<Vec<ConnectionInfo>, RedisError> {
        let info = |address: ConnectionAddr| Ok(address.into_connection_info()?.set_redis_settings(settings.clone()));
        self.addresses().into_iter().map(info).collect()
    }
}

impl TlsPaths {
    fn read(&self) -> Result<TlsCertificates, ConnectError> {
        let read = |file: &PathBuf| files::read(file).map_err(|error| ConnectError::Tls { file: file.clone(), error });
        let identity = |(certificate, key): &(PathBuf, PathBuf)| {
            Ok::<_, ConnectError>(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
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
    bounded(&error.to_string())
}

/// What Redis says, in one bounded line.
pub(super) fn bounded(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    crate::model::names::text(line.as_bytes(), MAX_SHOWN)
}
