//! Where Redis is and who we are there: a URL, and settings beside it.

use redis::{ConnectionAddr, IntoConnectionInfo as _};
use rustls::pki_types::ServerName;

use super::values::{Given, Problem};
use super::{MAX_CONNECTIONS, Sources};
use crate::source::{Address, Dial, Login, Mode, Part, Resolver, Tls, TlsFiles, TlsProblem, Topology};

/// The settings that mean nothing without TLS.
const TLS: [&str; 4] = ["redis.tls-ca-file", "redis.tls-cert-file", "redis.tls-key-file", "redis.tls-server-name"];

/// The settings that mean nothing without sentinels.
const SENTINEL: [&str; 3] = ["redis.sentinel-master", "redis.sentinel-user", "redis.sentinel-password-file"];

/// What a URL says.
struct Url {
    address: Address,
    db: i64,
    login: Login,
    is_tls: bool,
}

pub(super) fn from_sources(sources: &impl Sources) -> Result<Topology, Problem> {
    let need = |key: &str| sources.get(key).ok_or_else(|| Problem::missing(key));
    let mode = need("redis.mode")?.one_of(&[
        ("standalone", Mode::Standalone),
        ("cluster", Mode::Cluster),
        ("sentinel", Mode::Sentinel),
    ])?;
    let given = |key: &&str| sources.get(key).filter(|given| !given.is_default());
    if let Some(nodes) = given(&"redis.nodes").filter(|_| mode == Mode::Standalone) {
        return Err(nodes.problem("it takes --redis.mode cluster or sentinel beside it"));
    }
    if let Some(setting) = SENTINEL.iter().find_map(given).filter(|_| mode != Mode::Sentinel) {
        return Err(setting.problem("it takes --redis.mode sentinel beside it"));
    }
    let nodes = sources.get("redis.nodes").map_or_else(|| Ok(Vec::new()), |given| given.addresses())?;
    Ok(Topology {
        mode,
        dial: first(sources)?,
        nodes: nodes.into_iter().map(|(host, port)| Address::Tcp(host, port)).collect(),
        sentinel_master: need("redis.sentinel-master")?.text()?,
        sentinel_login: sentinel_login(sources)?,
        max_connections: need("redis.max-connections")?.whole_number(1, MAX_CONNECTIONS)?,
    })
}

fn sentinel_login(sources: &impl Sources) -> Result<Login, Problem> {
    let mut login = Login::default();
    if let Some(user) = sources.get("redis.sentinel-user") {
        login = login.with_user(user.text()?);
    }
    match sources.get("redis.sentinel-password-file") {
        Some(file) => login.with_password_file(file.path()).map_err(|why| file.problem(&why)),
        None => Ok(login),
    }
}

fn first(sources: &impl Sources) -> Result<Dial, Problem> {
    let given = sources.get("redis.url").ok_or_else(|| Problem::missing("redis.url"))?;
    let url = parse(&given.text()?).map_err(|error| {
        given.problem(&format!("it takes redis://, rediss:// or unix:// with host, port and database ({error})"))
    })?;
    let tls = if url.is_tls { Some(tls(sources, &given, &url.address)?) } else { no_tls(sources)? };
    Ok(Dial { login: login(sources, url.login)?, address: url.address, tls, db: url.db, resolver: Resolver::default() })
}

/// What a URL alone says, with what the system trusts where it is `rediss://`.
///
/// # Errors
/// What is wrong with it, without repeating it: it may hold a password.
pub fn dial(url: &str) -> Result<Dial, String> {
    let Url { address, db, login, is_tls } = parse(url)?;
    let tls = match server_name(&address) {
        _ if !is_tls => None,
        Some(name) => Some(Tls::new(TlsFiles::default(), name).map_err(|problem| problem.to_string())?),
        None => return Err("no certificate can be for its host".to_owned()),
    };
    Ok(Dial { address, tls, login, db, resolver: Resolver::default() })
}

/// The same, without what the system trusts, which takes time to read.
#[cfg(any(test, fuzzing))]
pub(super) fn dial_in_plain_text(url: &str) -> Result<Dial, String> {
    let Url { address, db, login, is_tls: _ } = parse(url)?;
    Ok(Dial { address, tls: None, login, db, resolver: Resolver::default() })
}

fn parse(url: &str) -> Result<Url, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if !["redis", "rediss", "unix"].contains(&scheme) {
        return Err("its scheme is none of these".to_owned());
    }
    match rest.split_once('#') {
        Some((_, "insecure")) => {
            return Err(
                "the server's certificate is always checked: in place of '#insecure', give --redis.tls-ca-file \
                        and, where the certificate is for another name, --redis.tls-server-name"
                    .to_owned(),
            );
        }
        Some(_) => return Err("nothing may follow a '#', which in a password is written %23".to_owned()),
        None => {}
    }
    let is_tls = scheme == "rediss";
    // The crate is built without TLS, and would refuse the scheme; for the rest they are the same.
    let plain = if is_tls { format!("redis://{rest}") } else { url.to_owned() };
    let info = plain.into_connection_info().map_err(|error| what_is_wrong(&error.to_string()))?;
    let address = match info.addr() {
        ConnectionAddr::Tcp(host, port) => Address::Tcp(host.clone(), *port),
        ConnectionAddr::Unix(path) => Address::Unix(path.clone()),
        _ => return Err("its scheme is none of these".to_owned()),
    };
    let settings = info.redis_settings();
    let mut login = Login::default();
    if let Some(user) = settings.username() {
        login = login.with_user(user.to_owned());
    }
    if let Some(password) = settings.password() {
        login = login.with_password(password.to_owned());
    }
    Ok(Url { address, db: settings.db(), login, is_tls })
}

/// What the crate says of a URL, without the piece of the URL that may follow.
fn what_is_wrong(message: &str) -> String {
    message.split('-').next().unwrap_or_default().trim().to_lowercase()
}

fn login(sources: &impl Sources, mut login: Login) -> Result<Login, Problem> {
    if let Some(user) = sources.get("redis.user") {
        if login.has_user() {
            return Err(user.problem("it contradicts the user in the Redis URL; give one of the two"));
        }
        let name = user.text()?;
        if name.is_empty() {
            return Err(user.problem("it takes the name of a user"));
        }
        login = login.with_user(name);
    }
    let Some(file) = sources.get("redis.password-file") else {
        return Ok(login);
    };
    if login.has_password() {
        return Err(file.problem("it contradicts the password in the Redis URL; give one of the two"));
    }
    login.with_password_file(file.path()).map_err(|why| file.problem(&why))
}

fn no_tls(sources: &impl Sources) -> Result<Option<Tls>, Problem> {
    match TLS.iter().find_map(|key| sources.get(key)) {
        Some(given) => Err(given.problem("it takes a rediss:// URL beside it; this one is without TLS")),
        None => Ok(None),
    }
}

fn tls(sources: &impl Sources, url: &Given, address: &Address) -> Result<Tls, Problem> {
    let [ca, certificate, key, name] = TLS.map(|key| sources.get(key));
    let identity = match (&certificate, &key) {
        (Some(certificate), Some(key)) => Some((certificate.path(), key.path())),
        (None, None) => None,
        (Some(alone), None) => return Err(alone.problem("it takes --redis.tls-key-file beside it")),
        (None, Some(alone)) => return Err(alone.problem("it takes --redis.tls-cert-file beside it")),
    };
    let server_name = match &name {
        Some(given) => ServerName::try_from(given.text()?)
            .map_err(|_| given.problem("it takes a host's name or address, as a certificate can be for"))?,
        None => server_name(address)
            .ok_or_else(|| url.problem("no certificate can be for its host; give --redis.tls-server-name"))?,
    };
    let files = TlsFiles { ca: ca.as_ref().map(Given::path), identity };
    let tls = Tls::new(files, server_name).map(|tls| if name.is_some() { tls.pinned() } else { tls });
    tls.map_err(|TlsProblem { part, why }| {
        let given = match part {
            Part::Ca => &ca,
            Part::Certificate => &certificate,
            Part::Key => &key,
            Part::System => &None,
        };
        given
            .as_ref()
            .map_or_else(|| url.problem(&format!("{why}; give --redis.tls-ca-file")), |given| given.problem(&why))
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
            let dial = dial(url).unwrap();
            assert_eq!(dial.to_string(), shown);
            assert!(!format!("{dial:?}").contains("hunter"));
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
            let error = dial(bad).unwrap_err();
            assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
        }
    }
}
