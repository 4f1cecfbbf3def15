//! The web configuration file, in the format of Prometheus's exporter-toolkit: TLS, basic auth, headers, a rate limit.
//!
//! A file that serves other exporters serves this one. What cannot be honoured is an error; nothing is ignored. No error
//! repeats a value that could be a secret.

mod sections;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS, X_XSS_PROTECTION,
};
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use crate::http::tls::{CURVES, ClientAuth, ServerTlsError, TlsSettings, cipher_suites};
use crate::http::{BasicUsers, BasicUsersError, RateLimit, ServerTls};
use crate::sys::files::{self, FileError};
pub use sections::SyntaxError;
use sections::{HttpSection, RateSection, Sections, TlsSection};

/// The longest interval between requests: beyond a day it is no rate limit.
const MAX_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The headers that can be set, with the values that they take where those are known.
const HEADERS: [(&str, HeaderName, &[&str]); 5] = [
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY, &[]),
    ("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY, &[]),
    ("X-Content-Type-Options", X_CONTENT_TYPE_OPTIONS, &["nosniff"]),
    ("X-Frame-Options", X_FRAME_OPTIONS, &["deny", "sameorigin"]),
    ("X-XSS-Protection", X_XSS_PROTECTION, &[]),
];

/// The cipher suites of which HTTP/2 over TLS 1.2 needs one (RFC 7540), as Go's server insists.
const HTTP2_SUITES: [&str; 2] = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"];

/// What a web configuration file says, checked. The default: plain HTTP, open to every client.
#[derive(Clone, Debug, Default)]
pub struct WebConfig {
    /// TLS; plain HTTP where there is none.
    pub tls: Option<ServerTls>,
    /// Headers for every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may read what basic auth guards.
    pub users: BasicUsers,
    /// How many requests are answered.
    pub rate_limit: Option<RateLimit>,
    /// Every file that was read.
    pub files: Vec<PathBuf>,
    /// Those of them that hold secrets, but for the web configuration itself.
    pub secret_files: Vec<PathBuf>,
}

/// What is wrong with a web configuration file, in one line: where, and what is expected.
#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// It is no YAML, or has other keys or kinds of values.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Of `tls_server_config`.
    #[error("tls_server_config: {0}")]
    Tls(#[from] TlsSectionError),
    /// Of `basic_auth_users`.
    #[error("basic_auth_users: {0}")]
    Users(#[from] BasicUsersError),
    /// Of `http_server_config`.
    #[error("http_server_config.headers: {name:?}: {error}")]
    Header {
        /// The name of the header.
        name: String,
        /// What is expected.
        error: HeaderError,
    },
    /// Of `rate_limit`.
    #[error("rate_limit.{0}")]
    RateLimit(#[from] RateLimitError),
}

/// What is wrong with a header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be set.
    #[error("those that can be set are {}", list(HEADERS.map(|(name, ..)| name)))]
    Name,
    /// It has values of its own.
    #[error("expected one of {}, not {value:?}", list(.known.iter().copied()))]
    Value {
        /// The value.
        value: String,
        /// Those that there are.
        known: &'static [&'static str],
    },
    /// No header has such a value.
    #[error("expected text that a header can carry")]
    Text,
}

/// What is wrong with `rate_limit`.
#[derive(Debug, thiserror::Error)]
pub enum RateLimitError {
    /// The interval is missing.
    #[error("burst: expected an interval too")]
    NoInterval,
    /// The interval is none, or too long.
    #[error("interval {0:?}: expected a duration up to a day such as 100ms or 1s, or 0 for no limit")]
    Interval(String),
    /// Nothing is allowed.
    #[error("burst: expected 1 or more; with 0, no request would ever be answered")]
    NoBurst,
}

/// What is wrong with `tls_server_config`.
#[derive(Debug, thiserror::Error)]
pub enum TlsSectionError {
    /// No policy for certificates of clients.
    #[error(
        "client_auth_type {0:?}: expected one of NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven, \
         RequireAndVerifyClientCert"
    )]
    ClientAuth(String),
    /// CAs for certificates that nobody is asked for.
    #[error("client_ca: expected a client_auth_type that asks clients for certificates")]
    NotAsked,
    /// Names that a client could do without.
    #[error(
        "client_allowed_sans: expected client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert; with others a client \
         could leave its certificate out"
    )]
    NotRequired,
    /// No client has a name of none.
    #[error("client_allowed_sans: expected one or more names; without, no client would be let in")]
    NoNames,
    /// Certificates are verified by nothing.
    #[error(
        "client_ca: RequireAndVerifyClientCert takes a client_ca or client_ca_file; without, whoever any public CA gave a certificate \
         would be let in"
    )]
    NoClientCa,
    /// No version that there is.
    #[error("{key} {name:?}: expected TLS12 or TLS13")]
    Version {
        /// The key.
        key: &'static str,
        /// Its value.
        name: String,
    },
    /// One from before.
    #[error("{key} {name:?}: expected TLS12 or TLS13; versions before them are broken and not available")]
    BrokenVersion {
        /// The key.
        key: &'static str,
        /// Its value.
        name: String,
    },
    /// No version lies between them.
    #[error("min_version {min:?}: contradicts max_version {max:?}")]
    NoVersion {
        /// The lowest version.
        min: String,
        /// The highest.
        max: String,
    },
    /// No cipher suite that there is.
    #[error("cipher_suites {:?}: expected those that are available: {}", .0, available_suites())]
    CipherSuite(String),
    /// None of those that HTTP/2 takes.
    #[error("cipher_suites: HTTP/2 takes one of {}; add it, or set http2: false", list(HTTP2_SUITES))]
    Http2Suite,
    /// No curve that there is.
    #[error("curve_preferences {:?}: expected those that are available: {}", .0, available_curves())]
    Curve(String),
    /// Neither a value nor a file.
    #[error("expected one of {0} and {0}_file")]
    Missing(&'static str),
    /// A value and a file.
    #[error("expected one of {0} and {0}_file, not both")]
    Both(&'static str),
    /// What is in a file in place of its name. Not repeated: it is probably the key itself.
    #[error("{0}_file: expected the name of a file; what is in one goes into {0}")]
    NoFileName(&'static str),
    /// A file that it names.
    #[error("{key}_file {name:?}: {error}")]
    File {
        /// The key, without `_file`.
        key: &'static str,
        /// The file.
        name: String,
        /// Why it cannot be used.
        error: FileError,
    },
    /// What is in them.
    #[error(transparent)]
    Content(#[from] ServerTlsError),
}

impl WebConfig {
    /// Reads a file and the files that it names.
    ///
    /// # Errors
    /// What is wrong with it, in one line: where, and what is expected.
    pub fn read(path: &Path) -> Result<Self, WebConfigError> {
        let mut config = Self::parse(&files::read_settled_text(path)?, path.parent().unwrap_or(Path::new("")))?;
        config.files.insert(0, path.to_owned());
        Ok(config)
    }

    /// Reads a file's text, and the files that it names, whose names are relative to `dir`.
    ///
    /// # Errors
    /// What is wrong with it, in one line: where, and what is expected.
    pub fn parse(text: &str, dir: &Path) -> Result<Self, WebConfigError> {
        let sections = Sections::parse(text)?;
        let mut files = Files { dir, read: Vec::new(), keys: Vec::new() };
        let http = sections.http_server_config.unwrap_or_default();
        let http2 = http.http2.unwrap_or(true);
        // What is there must be right. Plain HTTP because a certificate was left out would be a nasty surprise.
        let tls = match sections.tls_server_config.unwrap_or_default() {
            nothing if nothing == TlsSection::default() => None,
            section => Some(tls(section, http2, &mut files)?),
        };
        let users = sections.basic_auth_users.unwrap_or_default();
        let users = users.into_iter().map(|(name, hash)| (name, hash.unwrap_or_default()));
        Ok(Self {
            tls,
            headers: headers(http)?,
            users: BasicUsers::new(users)?,
            rate_limit: rate_limit(sections.rate_limit.unwrap_or_default())?,
            files: files.read,
            secret_files: files.keys,
        })
    }
}

fn tls(section: TlsSection, http2: bool, files: &mut Files<'_>) -> Result<ServerTls, TlsSectionError> {
    let client_auth = client_auth(section.client_auth_type.as_deref().unwrap_or_default())?;
    if client_auth == ClientAuth::None && (section.client_ca.is_some() || section.client_ca_file.is_some()) {
        return Err(TlsSectionError::NotAsked);
    }
    if section.client_allowed_sans.is_some() && !client_auth.is_required() {
        return Err(TlsSectionError::NotRequired);
    }
    if section.client_allowed_sans.as_ref().is_some_and(Vec::is_empty) {
        return Err(TlsSectionError::NoNames);
    }
    let versions = versions(section.min_version.as_deref(), section.max_version.as_deref())?;
    let cipher_suites = suites(section.cipher_suites.unwrap_or_default(), &versions, http2)?;
    let certificates = files.content("cert", section.cert, section.cert_file)?;
    let key = files.content("key", section.key, section.key_file)?;
    let client_ca = files.content("client_ca", section.client_ca, section.client_ca_file)?;
    if client_ca.is_none() && client_auth == ClientAuth::RequireAndVerify {
        return Err(TlsSectionError::NoClientCa);
    }
    let need = |content: Option<Vec<u8>>, key| content.ok_or(TlsSectionError::Missing(key));
    let tls = ServerTls::new(&TlsSettings {
        certificates: need(certificates, "cert")?,
        key: need(key, "key")?,
        client_ca,
        client_auth,
        client_allowed_sans: section.client_allowed_sans,
        versions,
        cipher_suites,
        curves: curves(section.curve_preferences.unwrap_or_default())?,
        prefer_server_cipher_suites: section.prefer_server_cipher_suites.unwrap_or(true),
        http2,
    })?;
    Ok(tls)
}

fn client_auth(name: &str) -> Result<ClientAuth, TlsSectionError> {
    Ok(match name {
        "" | "NoClientCert" => ClientAuth::None,
        "RequestClientCert" => ClientAuth::Request,
        // The second name is an old one.
        "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAny,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
        other => return Err(TlsSectionError::ClientAuth(other.to_owned())),
    })
}

/// The versions from `min` to `max`.
fn versions(min: Option<&str>, max: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, TlsSectionError> {
    let version = |key, name: &str| match name {
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        "TLS10" | "TLS11" => Err(TlsSectionError::BrokenVersion { key, name: name.to_owned() }),
        other => Err(TlsSectionError::Version { key, name: other.to_owned() }),
    };
    let (min, max) = (min.unwrap_or("TLS12"), max.unwrap_or("TLS13"));
    let wanted = version("min_version", min)?..=version("max_version", max)?;
    let versions = [(12, &TLS12), (13, &TLS13)].into_iter().filter(|(number, _)| wanted.contains(number));
    let versions: Vec<_> = versions.map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err(TlsSectionError::NoVersion { min: min.to_owned(), max: max.to_owned() });
    }
    Ok(versions)
}

/// The cipher suites that are wanted, in their order. Where none of a version of TLS is named, it has all of its own: in Go,
/// the names are about TLS 1.2 and before.
fn suites(
    wanted: Vec<String>,
    versions: &[&'static SupportedProtocolVersion],
    http2: bool,
) -> Result<Vec<SupportedCipherSuite>, TlsSectionError> {
    let available = cipher_suites();
    if wanted.is_empty() {
        return Ok(available.into_iter().map(|(_, suite)| suite).collect());
    }
    let named = |name: &String| {
        let found = available.iter().find(|(available, _)| available == name).map(|&(_, suite)| suite);
        found.ok_or_else(|| TlsSectionError::CipherSuite(name.clone()))
    };
    let mut suites = wanted.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    if http2 && versions.contains(&&TLS12) && !wanted.iter().any(|name| HTTP2_SUITES.contains(&name.as_str())) {
        return Err(TlsSectionError::Http2Suite);
    }
    if !suites.iter().any(|suite| suite.version() == &TLS13) {
        suites.extend(available.iter().map(|&(_, suite)| suite).filter(|suite| suite.version() == &TLS13));
    }
    Ok(suites)
}

fn curves(wanted: Vec<String>) -> Result<Vec<&'static dyn rustls::crypto::SupportedKxGroup>, TlsSectionError> {
    if wanted.is_empty() {
        return Ok(CURVES.map(|(_, group)| group).to_vec());
    }
    let named = |name: &String| {
        let found = CURVES.iter().find(|(available, _)| available == name).map(|&(_, group)| group);
        found.ok_or_else(|| TlsSectionError::Curve(name.clone()))
    };
    wanted.iter().map(named).collect()
}

fn headers(section: HttpSection) -> Result<Vec<(HeaderName, HeaderValue)>, WebConfigError> {
    let mut headers = Vec::new();
    for (name, value) in section.headers.unwrap_or_default() {
        // Blank unsets it.
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let wrong = |error| WebConfigError::Header { name: name.clone(), error };
        let Some((_, header, values)) = HEADERS.iter().find(|(known, ..)| *known == name) else {
            return Err(wrong(HeaderError::Name));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(wrong(HeaderError::Value { value, known: values }));
        }
        let value = HeaderValue::from_str(&value).map_err(|_| wrong(HeaderError::Text))?;
        headers.push((header.clone(), value));
    }
    Ok(headers)
}

fn rate_limit(section: RateSection) -> Result<Option<RateLimit>, RateLimitError> {
    let burst = section.burst.unwrap_or_default();
    let Some(interval) = section.interval else {
        return if burst == 0 { Ok(None) } else { Err(RateLimitError::NoInterval) };
    };
    let duration = if interval == "0" { Some(Duration::ZERO) } else { humantime::parse_duration(&interval).ok() };
    let duration = duration.filter(|duration| *duration <= MAX_INTERVAL);
    let interval = duration.ok_or(RateLimitError::Interval(interval))?;
    if interval.is_zero() {
        return Ok(None);
    }
    if burst == 0 {
        return Err(RateLimitError::NoBurst);
    }
    Ok(Some(RateLimit { interval, burst }))
}

fn available_suites() -> String {
    list(cipher_suites().iter().map(|(name, _)| name.as_str()))
}

fn available_curves() -> String {
    list(CURVES.map(|(name, _)| name))
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// The files that a web configuration names.
struct Files<'a> {
    /// Where names are relative to.
    dir: &'a Path,
    read: Vec<PathBuf>,
    /// Those with private keys.
    keys: Vec<PathBuf>,
}

impl Files<'_> {
    /// What is given under `key`, or is in the file given under `key` with `_file`.
    fn content(
        &mut self,
        key: &'static str,
        text: Option<String>,
        file: Option<String>,
    ) -> Result<Option<Vec<u8>>, TlsSectionError> {
        let name = match (text, file) {
            (Some(_), Some(_)) => return Err(TlsSectionError::Both(key)),
            (Some(text), None) => return Ok((!text.trim().is_empty()).then(|| text.into_bytes())),
            (None, None) => return Ok(None),
            (None, Some(name)) if name.is_empty() => return Ok(None),
            (None, Some(name)) => name,
        };
        if name.contains(['\n', '\r']) || name.contains("-----") {
            return Err(TlsSectionError::NoFileName(key));
        }
        let path = self.dir.join(&name);
        let content = files::read_settled(&path).map_err(|error| TlsSectionError::File { key, name, error })?;
        if key == "key" {
            self.keys.push(path.clone());
        }
        self.read.push(path);
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests;
