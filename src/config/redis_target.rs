//! Address and credentials of Redis: a URL, and further settings.

use std::ffi::OsString;

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use rustls::pki_types::ServerName;

use crate::collector::{Address, ClientTls, ClientTlsError, Credentials, Endpoint, Resolver, TlsFiles, TlsPart};
use crate::config::SettingSources;
use crate::config::values::{ConfigError, RawValue};

/// The settings that mean nothing without TLS.
const TLS: [&str; 4] = ["redis.tls-ca-file", "redis.tls-cert-file", "redis.tls-key-file", "redis.tls-server-name"];

/// What is wrong with the URL of a Redis, without repeating it: it may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum RedisUrlError {
    /// Neither redis nor rediss nor unix.
    #[error("its scheme is none of these")]
    Scheme,
    /// A certificate that is not checked was asked for.
    #[error(
        "the server's certificate is always checked: in place of '#insecure', give --redis.tls-ca-file and, where the certificate is for another name, --redis.tls-server-name"
    )]
    Insecure,
    /// A password with a '#' in it.
    #[error("nothing may follow a '#', which in a password is written %23")]
    Fragment,
    /// As the crate puts it.
    #[error("{0}")]
    Form(String),
    /// TLS with a host that no certificate can be for.
    #[error("no certificate can be for its host")]
    Host,
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
}

/// What a URL says.
struct Url {
    address: Address,
    db: i64,
    credentials: Credentials,
    is_tls: bool,
}

pub(super) fn from_sources(sources: &impl SettingSources) -> Result<Endpoint, ConfigError> {
    let given = sources.get("redis.url").ok_or_else(|| ConfigError::missing("redis.url"))?;
    let url = parse(&given.text()?).map_err(|error| {
        given.problem(format!("expected redis://, rediss:// or unix:// with host, port and database ({error})"))
    })?;
    let tls = if url.is_tls { Some(tls(sources, &given, &url.address)?) } else { no_tls(sources, &given)? };
    let credentials = credentials(sources, &given, url.credentials)?;
    Ok(Endpoint { credentials, address: url.address, tls, db: url.db, resolver: Resolver::default() })
}

/// A URL as it may be shown: a login in it is `***`. `None` for text that is no URL.
pub(super) fn without_login(url: &str) -> Option<String> {
    let Url { address, db, credentials, is_tls } = parse(url).ok()?;
    let (has_login, is_path) =
        (credentials.has_user() || credentials.has_password(), matches!(address, Address::Unix(_)));
    let shown = Endpoint { address, tls: None, credentials: Credentials::default(), db, resolver: Resolver::default() };
    let mut shown = shown.to_string();
    if is_tls {
        shown = shown.replacen("redis://", "rediss://", 1);
    }
    Some(match (has_login, is_path) {
        (false, _) => shown,
        (true, false) => shown.replacen("://", "://***@", 1),
        (true, true) => shown + "&pass=***",
    })
}

/// Whether it is a URL with a password in it. Text that is no URL, which nobody may have looked at yet, may hold one.
pub(super) fn may_have_password(given: &RawValue) -> bool {
    let is_harmless =
        |url: &OsString| url.to_str().is_some_and(|url| parse(url).is_ok_and(|url| !url.credentials.has_password()));
    !given.values().iter().all(is_harmless)
}

/// What a URL alone says, with what the system trusts where it is `rediss://`.
///
/// # Errors
/// What is wrong with it, without repeating it: it may hold a password.
pub fn endpoint(url: &str) -> Result<Endpoint, RedisUrlError> {
    let Url { address, db, credentials, is_tls } = parse(url)?;
    let tls = match server_name(&address) {
        _ if !is_tls => None,
        Some(name) => Some(ClientTls::new(TlsFiles::default(), name)?),
        None => return Err(RedisUrlError::Host),
    };
    Ok(Endpoint { address, tls, credentials, db, resolver: Resolver::default() })
}

/// The same, without what the system trusts, which takes time to read.
#[cfg(any(test, fuzzing))]
pub(super) fn dial_in_plain_text(url: &str) -> Result<Endpoint, RedisUrlError> {
    let Url { address, db, credentials, is_tls: _ } = parse(url)?;
    Ok(Endpoint { address, tls: None, credentials, db, resolver: Resolver::default() })
}

fn parse(url: &str) -> Result<Url, RedisUrlError> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !["redis", "rediss", "unix"].contains(&scheme) {
        return Err(RedisUrlError::Scheme);
    }
    match rest.split_once('#') {
        Some((_, "insecure")) => return Err(RedisUrlError::Insecure),
        Some(_) => return Err(RedisUrlError::Fragment),
        None => {}
    }
    let is_tls = scheme == "rediss";
    // The crate is built without TLS, and would refuse the scheme; for the rest they are the same.
    let plain = if is_tls { format!("redis://{rest}") } else { url.to_owned() };
    let info = plain.into_connection_info().map_err(|error| RedisUrlError::Form(what_is_wrong(&error.to_string())))?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
        _ => return Err(RedisUrlError::Scheme),
    };
    let settings = info.redis_settings();
    let mut credentials = Credentials::default();
    if let Some(user) = settings.username() {
        credentials = credentials.with_user(user.to_owned());
    }
    if let Some(password) = settings.password() {
        credentials = credentials.with_password(password.to_owned());
    }
    Ok(Url { address, db: settings.db(), credentials, is_tls })
}

/// What the crate says of a URL, without the piece of the URL that may follow.
fn what_is_wrong(message: &str) -> String {
    message.split('-').next().unwrap_or_default().trim().to_lowercase()
}

/// Which of two settings counts that say the same: the one that a target gives itself.
///
/// # Errors
/// Where both come from the same source: both were given.
fn outranks(given: &RawValue, other: &RawValue, contradicts: &str) -> Result<bool, ConfigError> {
    if given.is_inherited() == other.is_inherited() {
        return Err(given.problem(format!("contradicts {contradicts}; give one of the two")));
    }
    Ok(other.is_inherited())
}

fn credentials(
    sources: &impl SettingSources,
    url: &RawValue,
    mut credentials: Credentials,
) -> Result<Credentials, ConfigError> {
    if let Some(user) = sources.get("redis.user")
        && (!credentials.has_user() || outranks(&user, url, "the user in the Redis URL")?)
    {
        credentials = credentials.with_user(user_name(&user)?);
    }
    if let Some(file) = sources.get("redis.password-file")
        && (!credentials.has_password() || outranks(&file, url, "the password in the Redis URL")?)
    {
        credentials = credentials.with_password_file(file.path()).map_err(|why| file.problem(why.to_string()))?;
    }
    Ok(credentials)
}

fn user_name(given: &RawValue) -> Result<String, ConfigError> {
    let name = given.text()?;
    if name.is_empty() { Err(given.problem("expected the name of a user")) } else { Ok(name) }
}

/// Who we are at the sentinels.
pub(super) fn sentinel_login(user: Option<&RawValue>, file: Option<&RawValue>) -> Result<Credentials, ConfigError> {
    let mut credentials = Credentials::default();
    if let Some(user) = user {
        credentials = credentials.with_user(user_name(user)?);
    }
    match file {
        Some(file) => credentials.with_password_file(file.path()).map_err(|why| file.problem(why.to_string())),
        None => Ok(credentials),
    }
}

fn no_tls(sources: &impl SettingSources, url: &RawValue) -> Result<Option<ClientTls>, ConfigError> {
    // What all targets are given does not keep one of them from going without.
    let meant = |given: &RawValue| !given.is_inherited() || url.is_inherited();
    match TLS.iter().filter_map(|key| sources.get(key)).find(meant) {
        Some(given) => Err(given.problem("requires a rediss:// URL; this one is without TLS")),
        None => Ok(None),
    }
}

fn tls(sources: &impl SettingSources, url: &RawValue, address: &Address) -> Result<ClientTls, ConfigError> {
    let [ca, certificate, key, name] = TLS.map(|key| sources.get(key));
    let identity = match (&certificate, &key) {
        (Some(certificate), Some(key)) => Some((certificate.path(), key.path())),
        (None, None) => None,
        (Some(alone), None) => return Err(alone.problem("requires --redis.tls-key-file")),
        (None, Some(alone)) => return Err(alone.problem("requires --redis.tls-cert-file")),
    };
    let server_name = match &name {
        Some(given) => ServerName::try_from(given.text()?)
            .map_err(|_| given.problem("expected a host's name or address, as a certificate can be for"))?,
        None => server_name(address)
            .ok_or_else(|| url.problem("no certificate can be for its host; give --redis.tls-server-name"))?,
    };
    let files = TlsFiles { ca: ca.as_ref().map(RawValue::path), identity };
    let tls = ClientTls::new(files, server_name).map(|tls| if name.is_some() { tls.pinned() } else { tls });
    tls.map_err(|ClientTlsError { part, why }| {
        let given = match part {
            TlsPart::Ca => &ca,
            TlsPart::Certificate => &certificate,
            TlsPart::Key => &key,
            TlsPart::System => &None,
        };
        given
            .as_ref()
            .map_or_else(|| url.problem(format!("{why}; give --redis.tls-ca-file")), |given| given.problem(&why))
    })
}

/// The host, where a certificate can be for it.
fn server_name(address: &Address) -> Option<ServerName<'static>> {
    match address {
        Address::Tcp(host, _) => ServerName::try_from(host.clone()).ok(),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_credentials() {
        let check = |url, shown: &str| {
            let endpoint = endpoint(url).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            assert!(!format!("{endpoint:?}").contains("hunter"));
        };
        check("redis://localhost:6380/0", "redis://localhost:6380/0");
        check("redis://user:hunter2@example.com/3", "redis://example.com:6379/3");
        check("redis://[::1]:7000", "redis://[::1]:7000/0");
        check("rediss://:hunter2@example.com:7000", "rediss://example.com:7000/0");
        check("unix:///run/redis.sock?db=2&pass=hunter2", "unix:///run/redis.sock?db=2");
        check("unix:///run/a%0Ab.sock", "unix:///run/a\\nb.sock?db=0");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        let bad = ["", "localhost:6379", "http://:hunter2@x/", "redis://:hunter2@x/db", "redis://:hunter2@x:99999/"];
        for bad in bad.iter().chain(&["redis://:hunter2#@x", "rediss://:hunter2@x/#insecure"]) {
            let error = endpoint(bad).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
        }
    }
}
