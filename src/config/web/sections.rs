//! The web configuration file as it is written: its keys, and what the parser has to say in words that repeat no secret.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Error;

/// The longest unknown key that an error shows. A line of a private key, which may end up as one, is longer.
const MAX_SHOWN_KEY: usize = 40;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub(super) struct Sections {
    pub(super) tls_server_config: Option<TlsSection>,
    pub(super) http_server_config: Option<HttpSection>,
    pub(super) basic_auth_users: Option<BTreeMap<String, Option<String>>>,
    pub(super) rate_limit: Option<RateSection>,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub(super) struct TlsSection {
    pub(super) cert: Option<String>,
    pub(super) cert_file: Option<String>,
    pub(super) key: Option<String>,
    pub(super) key_file: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) client_ca_file: Option<String>,
    pub(super) client_auth_type: Option<String>,
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) min_version: Option<String>,
    pub(super) max_version: Option<String>,
    pub(super) cipher_suites: Option<Vec<String>>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub(super) struct HttpSection {
    pub(super) http2: Option<bool>,
    pub(super) headers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a mapping")]
pub(super) struct RateSection {
    pub(super) interval: Option<String>,
    pub(super) burst: Option<u32>,
}

/// What the parser found, without what it found there: that could be a password's hash or a line of a private key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SyntaxError(String);

impl Sections {
    pub(super) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let sections: Option<Self> = serde_saphyr::from_str(text).map_err(|error| SyntaxError(describe(&error)))?;
        Ok(sections.unwrap_or_default())
    }
}

fn describe(error: &Error) -> String {
    let wrong = match error.without_snippet() {
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("there is no key {} here; there are {}", shown(field), expected.join(", "))
        }
        Error::DuplicateMappingKey { key, .. } => {
            format!("{} is given twice", key.as_deref().map_or_else(|| "a key".to_owned(), shown))
        }
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            format!("expected {expected} here")
        }
        Error::Unexpected { expected: "mapping start", .. } => "expected a mapping here".to_owned(),
        Error::Unexpected { expected: "sequence start", .. } => "expected a list here".to_owned(),
        Error::Unexpected { .. } => "expected one value here".to_owned(),
        Error::InvalidScalar { ty: "boolean", .. } => "expected true or false here".to_owned(),
        Error::InvalidScalar { .. } => "expected a whole number here".to_owned(),
        _ => "expected YAML as the exporter-toolkit documents it".to_owned(),
    };
    match error.location() {
        Some(place) if place.line() > 0 => format!("line {}: {wrong}", place.line()),
        _ => wrong,
    }
}

fn shown(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if key.len() <= MAX_SHOWN_KEY && key.bytes().all(plain) { format!("{key:?}") } else { "of that name".to_owned() }
}
