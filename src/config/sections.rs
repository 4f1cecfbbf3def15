//! What sections of the configuration file have in common: durations, switches, CA certificates, and webhooks with their secrets. No error
//! repeats a URL: that of many webhooks is a secret.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::actions::notify::Webhook;
use crate::config::MAX_DURATION;
use crate::config::file::{Given, Located, WebhookItem};
use crate::config::values::{self, ConfigError, shown, truth};
use crate::sys::files;
use crate::sys::http_client::{HttpClient, HttpEndpoint};

/// What Standard Webhooks puts before a secret in base64.
const SECRET_PREFIX: &str = "whsec_";

/// Bytes that a secret has, as Standard Webhooks has it; of more, some are wasted.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

impl<T> Located<T> {
    /// What is wrong with the value of a key, which is named with its section.
    pub(super) fn wrong(&self, key: &str, given: &Given, why: impl fmt::Display) -> ConfigError {
        ConfigError::new(format!("{key} in {}: {why}", self.location(given)))
    }

    /// The same, with the value.
    pub(super) fn wrong_value(&self, key: &str, given: &Given, why: impl fmt::Display) -> ConfigError {
        self.wrong(key, given, format!("invalid value {:?}: {why}", shown(&given.value)))
    }

    /// A duration of `least` or longer.
    pub(super) fn duration(
        &self,
        key: &str,
        given: Option<&Given>,
        least: Duration,
    ) -> Result<Option<Duration>, ConfigError> {
        let parsed = |given: &Given| {
            values::duration(&given.value, least, MAX_DURATION, "30s").map_err(|why| self.wrong_value(key, given, why))
        };
        given.map(parsed).transpose()
    }

    /// A truth value; false where there is none.
    pub(super) fn switch(&self, key: &str, given: Option<&Given>) -> Result<bool, ConfigError> {
        let parsed =
            |given: &Given| truth(&given.value).ok_or_else(|| self.wrong(key, given, "expected true or false"));
        given.map_or(Ok(false), parsed)
    }

    /// CA certificates in PEM.
    pub(super) fn certificates(&self, key: &str, given: Option<&Given>) -> Result<Option<Arc<[u8]>>, ConfigError> {
        let read = |given: &Given| {
            let pem = files::read(&self.path(given)).map_err(|why| self.wrong(key, given, why))?;
            HttpClient::new(Some(&pem)).map_err(|why| self.wrong(key, given, why))?;
            Ok(pem.into())
        };
        given.map(read).transpose()
    }

    /// A webhook.
    pub(super) fn webhook(&self, key: &str, item: &WebhookItem) -> Result<Webhook, ConfigError> {
        let of = |own: &str| format!("{key}.{own}");
        let endpoint = HttpEndpoint::parse(&item.url.value).map_err(|why| self.wrong(&of("url"), &item.url, why))?;
        if !self.switch(&of("allow_plain"), item.allow_plain.as_ref())? && endpoint.is_plain_elsewhere() {
            let why = "expected https:// for another host; allow_plain: true sends without TLS";
            return Err(self.wrong(&of("url"), &item.url, why));
        }
        let read = |given: &Given| secret(&self.path(given)).map_err(|why| self.wrong(&of("secret_file"), given, why));
        Ok(Webhook { endpoint, secret: item.secret_file.as_ref().map(read).transpose()? })
    }

    /// The files of secrets of webhooks: those that they sign with, and the configuration file if a URL in it may be one.
    pub(super) fn webhook_secrets<'a>(&self, webhooks: impl Iterator<Item = &'a WebhookItem>) -> Vec<PathBuf> {
        let of = |webhook: &WebhookItem| {
            let is_secret = HttpEndpoint::parse(&webhook.url.value).is_ok_and(|to| to.has_path());
            let file = is_secret.then(|| self.begins().file.to_path_buf());
            [file, webhook.secret_file.as_ref().map(|given| self.path(given))]
        };
        webhooks.flat_map(of).flatten().collect()
    }
}

/// Why a file is not the secret that messages are signed with.
#[derive(Debug, thiserror::Error)]
enum SecretError {
    #[error(transparent)]
    Unreadable(#[from] files::FileError),
    #[error("expected base64 behind {SECRET_PREFIX}")]
    NotBase64,
    #[error("expected a secret of {least} to {most} bytes, found {0}", least = SECRET_BYTES.start(), most = SECRET_BYTES.end())]
    Length(usize),
}

fn secret(path: &Path) -> Result<Arc<[u8]>, SecretError> {
    let text = files::read_private_text(path)?;
    let text = text.trim();
    let secret = match text.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| SecretError::NotBase64)?,
        None => text.as_bytes().to_vec(),
    };
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err(SecretError::Length(secret.len()));
    }
    Ok(secret.into())
}
