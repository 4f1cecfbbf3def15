//! Where Redis is, and who we are there.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

/// A Redis server and the credentials for it. Shown without the credentials.
#[derive(Clone)]
pub struct RedisTarget {
    info: ConnectionInfo,
}

impl RedisTarget {
    /// From a URL: `redis://`, `rediss://` or `unix://`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !["redis", "rediss", "unix"].contains(&scheme) {
            return Err("its scheme is none of these".to_owned());
        }
        let info = url.into_connection_info().map_err(|error| what_is_wrong(&error.to_string()))?;
        let settings = info.redis_settings().clone();
        // CLIENT SETINFO is not among the grants of the documented ACL user: each would leave a line in ACL LOG.
        let info = info
            .set_redis_settings(settings.set_skip_set_lib_name())
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { info })
    }

    /// Whether the URL holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    /// The same server with this password.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        let settings = self.info.redis_settings().clone().set_password(password);
        Self { info: self.info.set_redis_settings(settings) }
    }

    /// A client for it. Does not connect.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn client(&self) -> Result<redis::Client, redis::RedisError> {
        redis::Client::open(self.info.clone())
    }
}

/// The same server, as the same user, with the same password.
impl PartialEq for RedisTarget {
    fn eq(&self, other: &Self) -> bool {
        let who = |target: &Self| {
            let settings = target.info.redis_settings();
            let text = |value: Option<&str>| value.map(str::to_owned);
            (settings.db(), text(settings.username()), text(settings.password()), settings.protocol())
        };
        self.info.addr() == other.info.addr() && who(self) == who(other)
    }
}

/// What the crate says of a URL, without the piece of the URL that may follow.
fn what_is_wrong(message: &str) -> String {
    message.split('-').next().unwrap_or_default().trim().to_lowercase()
}

/// The address and the database.
impl fmt::Display for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let db = self.info.redis_settings().db();
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => write!(f, "redis://{host}:{port}/{db}"),
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{host}:{port}/{db}"),
            // Escaped, it is one line whatever is in the path.
            ConnectionAddr::Unix(path) => {
                write!(f, "unix://{}?db={db}", path.to_string_lossy().escape_debug())
            }
            _ => f.write_str("redis"),
        }
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisTarget({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_credentials() {
        let check = |url, shown: &str| {
            let target = RedisTarget::parse(url).unwrap().with_password("hunter3");
            assert_eq!(target.to_string(), shown);
            assert!(!format!("{target:?}").contains("hunter"));
        };
        check("redis://localhost:6380/0", "redis://localhost:6380/0");
        check("redis://user:hunter2@example.com/3", "redis://example.com:6379/3");
        check("rediss://:hunter2@example.com:7000", "rediss://example.com:7000/0");
        check("unix:///run/redis.sock?db=2&pass=hunter2", "unix:///run/redis.sock?db=2");
        check("unix:///run/a%0Ab.sock", "unix:///run/a\\nb.sock?db=0");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for bad in ["", "localhost:6379", "http://:hunter2@x/", "redis://:hunter2@x/db", "redis://:hunter2@x:99999/"] {
            let error = RedisTarget::parse(bad).unwrap_err();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
        }
    }
}
