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
    #[error("{0}")]
    Syntax(String),
    /// Of `tls_server_config`.
    #[error("tls_server_config: {0}")]
    Tls(#[from] TlsSectionError),
    /// Of `basic_auth_users`.
    #[error("basic_auth_users: {0}")]
    Users(#[from] BasicUsersError),
    /// Of another key.
    #[error("{0}")]
    Key(String),
}

/// What is wrong with `tls_server_config`.
#[derive(Debug, thiserror::Error)]
pub enum TlsSectionError {
    /// One of its keys.
    #[error("{0}")]
    Key(String),
    /// A file that it names.
    #[error("{key}_file {name:?}: {error}")]
    File {
        /// The key, without `_file`.
        key: String,
        /// The file.
        name: String,
        /// Why it cannot be used.
        error: FileError,
    },
    /// What is in them.
    #[error(transparent)]
    Content(#[from] ServerTlsError),
}

impl From<String> for TlsSectionError {
    fn from(why: String) -> Self {
        Self::Key(why)
    }
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
        let sections = Sections::parse(text).map_err(WebConfigError::Syntax)?;
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
            headers: headers(http).map_err(WebConfigError::Key)?,
            users: BasicUsers::new(users)?,
            rate_limit: rate_limit(sections.rate_limit.unwrap_or_default()).map_err(WebConfigError::Key)?,
            files: files.read,
            secret_files: files.keys,
        })
    }
}

fn tls(section: TlsSection, http2: bool, files: &mut Files<'_>) -> Result<ServerTls, TlsSectionError> {
    let client_auth = client_auth(section.client_auth_type.as_deref().unwrap_or_default())?;
    if client_auth == ClientAuth::None && (section.client_ca.is_some() || section.client_ca_file.is_some()) {
        return Err("client_ca: expected a client_auth_type that asks clients for certificates".to_owned().into());
    }
    if section.client_allowed_sans.is_some() && !client_auth.is_required() {
        return Err(
            "client_allowed_sans: expected client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert; \
                    with others a client could leave its certificate out"
                .to_owned()
                .into(),
        );
    }
    if section.client_allowed_sans.as_ref().is_some_and(Vec::is_empty) {
        return Err("client_allowed_sans: expected one or more names; without, no client would be let in"
            .to_owned()
            .into());
    }
    let versions = versions(section.min_version.as_deref(), section.max_version.as_deref())?;
    let cipher_suites = suites(section.cipher_suites.unwrap_or_default(), &versions, http2)?;
    let certificates = files.content("cert", section.cert, section.cert_file)?;
    let key = files.content("key", section.key, section.key_file)?;
    let client_ca = files.content("client_ca", section.client_ca, section.client_ca_file)?;
    if client_ca.is_none() && client_auth == ClientAuth::RequireAndVerify {
        return Err("client_ca: RequireAndVerifyClientCert takes a client_ca or client_ca_file; without, whoever any \
                    public CA gave a certificate would be let in"
            .to_owned()
            .into());
    }
    let need = |content: Option<Vec<u8>>, key: &str| content.ok_or(format!("expected one of {key} and {key}_file"));
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

fn client_auth(name: &str) -> Result<ClientAuth, String> {
    Ok(match name {
        "" | "NoClientCert" => ClientAuth::None,
        "RequestClientCert" => ClientAuth::Request,
        // The second name is an old one.
        "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAny,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
        other => {
            return Err(format!(
                "client_auth_type {other:?}: expected one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven, RequireAndVerifyClientCert"
            ));
        }
    })
}

/// The versions from `min` to `max`.
fn versions(min: Option<&str>, max: Option<&str>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let version = |key: &str, name: &str| match name {
        "TLS12" => Ok(12),
        "TLS13" => Ok(13),
        "TLS10" | "TLS11" => {
            Err(format!("{key} {name:?}: expected TLS12 or TLS13; versions before them are broken and not available"))
        }
        other => Err(format!("{key} {other:?}: expected TLS12 or TLS13")),
    };
    let (min, max) = (min.unwrap_or("TLS12"), max.unwrap_or("TLS13"));
    let wanted = version("min_version", min)?..=version("max_version", max)?;
    let versions = [(12, &TLS12), (13, &TLS13)].into_iter().filter(|(number, _)| wanted.contains(number));
    let versions: Vec<_> = versions.map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err(format!("min_version {min:?}: contradicts max_version {max:?}"));
    }
    Ok(versions)
}

/// The cipher suites that are wanted, in their order. Where none of a version of TLS is named, it has all of its own: in Go,
/// the names are about TLS 1.2 and before.
fn suites(
    wanted: Vec<String>,
    versions: &[&'static SupportedProtocolVersion],
    http2: bool,
) -> Result<Vec<SupportedCipherSuite>, String> {
    let available = cipher_suites();
    if wanted.is_empty() {
        return Ok(available.into_iter().map(|(_, suite)| suite).collect());
    }
    let named = |name: &String| {
        let found = available.iter().find(|(available, _)| available == name).map(|&(_, suite)| suite);
        found.ok_or_else(|| {
            format!(
                "cipher_suites {name:?}: expected those that are available: {}",
                list(available.iter().map(|(name, _)| name.as_str()))
            )
        })
    };
    let mut suites = wanted.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    if http2 && versions.contains(&&TLS12) && !wanted.iter().any(|name| HTTP2_SUITES.contains(&name.as_str())) {
        return Err(format!("cipher_suites: HTTP/2 takes one of {}; add it, or set http2: false", list(HTTP2_SUITES)));
    }
    if !suites.iter().any(|suite| suite.version() == &TLS13) {
        suites.extend(available.iter().map(|&(_, suite)| suite).filter(|suite| suite.version() == &TLS13));
    }
    Ok(suites)
}

fn curves(wanted: Vec<String>) -> Result<Vec<&'static dyn rustls::crypto::SupportedKxGroup>, String> {
    if wanted.is_empty() {
        return Ok(CURVES.map(|(_, group)| group).to_vec());
    }
    let named = |name: &String| {
        let found = CURVES.iter().find(|(available, _)| available == name).map(|&(_, group)| group);
        found.ok_or_else(|| {
            format!(
                "curve_preferences {name:?}: expected those that are available: {}",
                list(CURVES.map(|(name, _)| name))
            )
        })
    };
    wanted.iter().map(named).collect()
}

fn headers(section: HttpSection) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (name, value) in section.headers.unwrap_or_default() {
        // Blank unsets it.
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        let wrong = |takes: &str| format!("http_server_config.headers: {name:?}: {takes}");
        let Some((_, header, values)) = HEADERS.iter().find(|(known, ..)| *known == name) else {
            return Err(wrong(&format!("those that can be set are {}", list(HEADERS.map(|(name, ..)| name)))));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            return Err(wrong(&format!("expected one of {}, not {value:?}", list(values.iter().copied()))));
        }
        let value = HeaderValue::from_str(&value).map_err(|_| wrong("expected text that a header can carry"))?;
        headers.push((header.clone(), value));
    }
    Ok(headers)
}

fn rate_limit(section: RateSection) -> Result<Option<RateLimit>, String> {
    let burst = section.burst.unwrap_or_default();
    let Some(interval) = section.interval else {
        return if burst == 0 { Ok(None) } else { Err("rate_limit.burst: expected an interval too".to_owned()) };
    };
    let wrong = || {
        format!(
            "rate_limit.interval {interval:?}: expected a duration up to a day such as 100ms or 1s, or 0 for no limit"
        )
    };
    let interval =
        if interval == "0" { Duration::ZERO } else { humantime::parse_duration(&interval).map_err(|_| wrong())? };
    if interval > MAX_INTERVAL {
        return Err(wrong());
    }
    if interval.is_zero() {
        return Ok(None);
    }
    if burst == 0 {
        return Err("rate_limit.burst: expected 1 or more; with 0, no request would ever be answered".to_owned());
    }
    Ok(Some(RateLimit { interval, burst }))
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
        key: &str,
        text: Option<String>,
        file: Option<String>,
    ) -> Result<Option<Vec<u8>>, TlsSectionError> {
        let name = match (text, file) {
            (Some(_), Some(_)) => return Err(format!("expected one of {key} and {key}_file, not both").into()),
            (Some(text), None) => return Ok((!text.trim().is_empty()).then(|| text.into_bytes())),
            (None, None) => return Ok(None),
            (None, Some(name)) if name.is_empty() => return Ok(None),
            (None, Some(name)) => name,
        };
        if name.contains(['\n', '\r']) || name.contains("-----") {
            // Not repeated: it is probably the key itself.
            return Err(format!("{key}_file: expected the name of a file; what is in one goes into {key}").into());
        }
        let path = self.dir.join(&name);
        let content =
            files::read_settled(&path).map_err(|error| TlsSectionError::File { key: key.to_owned(), name, error })?;
        if key == "key" {
            self.keys.push(path.clone());
        }
        self.read.push(path);
        Ok(Some(content))
    }
}

#[cfg(test)]
mod tests;
