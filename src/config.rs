//! Arguments, environment and file to one validated [`Config`]. A flag wins over the environment, which wins over the
//! file, which wins over the default.

mod changes;
mod command;
mod effective;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod history;
mod nearest;
mod notify;
mod redis_target;
mod remediation;
mod scalers;
mod sections;
mod settings;
mod subcommands;
mod target;
mod values;
pub mod web;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use changes::SettingDigests;
pub use command::{Invocation, parse, unknown_variables};
pub use file::MAX_TARGETS;
pub use redis_target::endpoint;
pub use settings::{Flag, SETTINGS, Setting};
pub use subcommands::{HistoryAction, HistoryRequest, LagRequest, Output};
pub use target::{TargetConfig, TargetLimits};
pub use values::{ConfigError, RawValue};
pub use web::WebConfig;

use crate::actions::notify::NotifyConfig;
use crate::actions::remediate::RemediationConfig;
use crate::http::api::Transport;
use crate::http::route::Route;
use crate::http::tokens::{DEFAULT_NAME, Token, Tokens};
use crate::http::{ApiAuth, Origin, RateLimit, Scalers};
use crate::model::Shard;
use crate::model::TargetName;
use crate::model::shard::MAX_SHARDS;
use crate::store::history::HistoryConfig;
use crate::sys::files;
use crate::sys::log::Format;
use file::{Located, NotifySection, RemediationSection, ScalerItem, Section};

/// The environment variable of the API token. It has no flag: that would show in `ps`.
pub const API_TOKEN_VARIABLE: &str = "STREAMLAG_API_TOKEN";

/// With less memory for replies, groups of some thousand consumers could not be read.
const MIN_REPLY_MEMORY: u64 = 8 << 20;

/// More memory for replies than a process has.
const MAX_REPLY_MEMORY: u64 = 1 << 40;

/// The settings that name a file of secrets.
const SECRET_FILES: [&str; 6] = [
    "redis.password-file",
    "redis.sentinel-password-file",
    "redis.tls-key-file",
    "api.tokens-file",
    "web.config.file",
    "history.prometheus-token-file",
];

/// The settings whose value may have a password in it.
const URLS: [&str; 1] = ["redis.url"];

/// Beyond a day, a poll is not monitoring.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// A limit above this is none.
const MAX_RATE: u64 = 1_000_000;

/// The most live streams that can be asked for. Each keeps a connection, and a hundred bytes beside it.
const MAX_VIEWERS: u64 = 100_000;

/// With less memory for readers, answers that are not large would be refused.
const MIN_MEMORY: u64 = 1 << 20;

/// More memory than a process has.
const MAX_MEMORY: u64 = 1 << 40;

/// Every setting, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to sample: at least one target. The first is what `/metrics` shows.
    pub targets: Vec<TargetConfig>,
    /// What autoscalers may ask for by name.
    pub scalers: Scalers,
    /// Whom to tell of incidents.
    pub notify: NotifyConfig,
    /// What may be done about sick groups.
    pub remediation: RemediationConfig,
    /// Which of how many shards is sampled; all of it where it is `None`.
    pub shard: Option<Shard>,
    /// The addresses to listen on, `host:port`.
    pub listen: Vec<String>,
    /// Whether to listen on systemd's sockets instead.
    pub systemd_socket: bool,
    /// TLS, basic auth, headers and a rate limit.
    pub web: WebConfig,
    /// Whether a client with a token may have the configuration reloaded.
    pub lifecycle: bool,
    /// Where the metrics page is.
    pub telemetry_path: String,
    /// Who may use the API.
    pub auth: ApiAuth,
    /// Pages of which other origins may open a live stream.
    pub allowed_origins: Vec<Origin>,
    /// How many live streams may be open.
    pub max_viewers: u64,
    /// How often each token may be used; `None` where there is no limit.
    pub token_rate: Option<RateLimit>,
    /// Memory that may be held for clients that read, in bytes.
    pub memory_for_readers: u64,
    /// Memory for what all Redis servers send, in bytes.
    pub memory_for_replies: usize,
    /// The event transport's settings, as far as they are reported.
    pub transport: Transport,
    /// How history is kept.
    pub history: HistoryConfig,
    /// What is logged.
    pub log_level: LevelFilter,
    /// How log lines look.
    pub log_format: Format,
    /// The files that hold secrets: passwords, keys, digests of tokens, hashes.
    pub secret_files: Vec<PathBuf>,
    /// What was given, to say what another configuration has otherwise.
    pub digests: SettingDigests,
}

/// Where values come from: a setting's value as it was given last, by rank.
pub(crate) trait SettingSources {
    /// The value of the setting with this key, if it was given or has a default.
    fn get(&self, key: &str) -> Option<RawValue>;

    /// Whether a switch was given.
    fn switch(&self, key: &str) -> bool;

    /// The API token, where one is set.
    fn api_token(&self) -> Option<String> {
        None
    }

    /// The targets that the file lists, with what is theirs alone.
    fn targets(&self) -> &[(TargetName, Section)] {
        &[]
    }

    /// The scalers that the file lists.
    fn scalers(&self) -> &[Located<ScalerItem>] {
        &[]
    }

    /// Whom the file has told of incidents.
    fn notify(&self) -> Option<&Located<NotifySection>> {
        None
    }

    /// What the file says may be done about sick groups.
    fn remediation(&self) -> Option<&Located<RemediationSection>> {
        None
    }
}

impl Config {
    /// What keeps this configuration from becoming `new` while the program runs.
    ///
    /// # Errors
    /// A setting that only a restart changes.
    pub fn may_become(&self, new: &Self) -> Result<(), ConfigError> {
        let same = [
            ("web.listen-address", self.listen == new.listen),
            ("web.systemd-socket", self.systemd_socket == new.systemd_socket),
            ("log.format", self.log_format == new.log_format),
        ];
        let changed = same.iter().find(|(_, same)| !same).map(|(key, _)| *key);
        match changed.or_else(|| history::changed(&self.history, &new.history)) {
            Some(key) => Err(ConfigError::new(format!("{key} has changed, which requires a restart"))),
            None => Ok(()),
        }
    }

    /// The files of secrets that other users can read or write and need not, with their permission bits.
    pub fn exposed_files(&self) -> impl Iterator<Item = (&PathBuf, u32)> {
        self.secret_files.iter().filter_map(|file| Some((file, files::exposed_mode(file)?)))
    }

    /// Checks everything that was given. Reads the files that are named.
    ///
    /// # Errors
    /// The first setting that is wrong: its name, its value and what is expected.
    pub(crate) fn from_sources(sources: &impl SettingSources) -> Result<Self, ConfigError> {
        let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
        let web = web(sources)?;
        let mut targets = target::all(sources)?;
        let scalers = scalers::all(sources.scalers(), &mut targets)?;
        Ok(Self {
            digests: SettingDigests::new(sources, &web.files),
            secret_files: secret_files(sources, &web),
            remediation: remediation::checked(sources.remediation(), &targets)?,
            targets,
            scalers,
            notify: notify::checked(sources.notify())?,
            shard: sources.get("shard").map(|given| shard(&given)).transpose()?,
            listen: need("web.listen-address")?.listen_addresses()?,
            systemd_socket: sources.switch("web.systemd-socket"),
            web,
            allowed_origins: sources.get("web.allowed-origins").map_or(Ok(Vec::new()), |given| origins(&given))?,
            max_viewers: need("limit.viewers")?.whole_number(0, MAX_VIEWERS)?,
            lifecycle: sources.switch("web.enable-lifecycle"),
            telemetry_path: telemetry_path(&need("web.telemetry-path")?)?,
            auth: auth(sources)?,
            token_rate: token_rate(&need("api.rate-limit")?, &need("api.rate-burst")?)?,
            memory_for_readers: need("limit.memory-for-readers")?.bytes(MIN_MEMORY, MAX_MEMORY)?,
            memory_for_replies: memory_for_replies(&need("limit.memory-for-replies")?)?,
            transport: transport(sources)?,
            history: history::history(sources)?,
            log_level: need("log.level")?.one_of(&[
                ("error", LevelFilter::ERROR),
                ("warn", LevelFilter::WARN),
                ("info", LevelFilter::INFO),
                ("debug", LevelFilter::DEBUG),
                ("trace", LevelFilter::TRACE),
            ])?,
            log_format: need("log.format")?.one_of(&[("logfmt", Format::Logfmt), ("json", Format::Json)])?,
        })
    }
}

/// The files that hold secrets, each once.
fn secret_files(sources: &impl SettingSources, web: &WebConfig) -> Vec<PathBuf> {
    let of_all = |key: &str| sources.get(key);
    let of_targets = |key: &str| {
        let own = |(name, section): &(TargetName, Section)| {
            Some(section.get(key)?.given(Setting::find(key)?, |place| values::ValueOrigin::Target(name.clone(), place)))
        };
        sources.targets().iter().filter_map(own).collect::<Vec<_>>()
    };
    let given = |key: &&'static str| of_all(key).into_iter().chain(of_targets(key));
    let named = SECRET_FILES.iter().flat_map(given).map(|given| given.path());
    // The configuration file itself, if it has a password in a URL.
    let urls = URLS.iter().flat_map(given).filter(redis_target::may_have_password);
    let urls = urls.filter_map(|given| given.file());
    let notify = sources.notify().map(notify::secret_files).unwrap_or_default();
    let remediation = sources.remediation().map(remediation::secret_files).unwrap_or_default();
    let mut files: Vec<PathBuf> =
        named.chain(urls).chain(notify).chain(remediation).chain(web.secret_files.iter().cloned()).collect();
    files.sort();
    files.dedup();
    files
}

fn shard(given: &RawValue) -> Result<Shard, ConfigError> {
    Shard::parse(&given.text()?).ok_or_else(|| {
        given.problem(format!("expected i/n, where i is 0 to n-1 and n up to {MAX_SHARDS}, such as 0/3"))
    })
}

fn telemetry_path(given: &RawValue) -> Result<String, ConfigError> {
    let path = given.text()?;
    let is_path =
        path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if !is_path {
        return Err(given.problem("expected a path that begins with a slash, such as /metrics"));
    }
    if Route::is_taken(&path) {
        return Err(given.problem("expected a path that is free; streamlag itself answers at this one"));
    }
    Ok(path)
}

/// Origins that browsers send: each a scheme and a host, and nothing behind.
fn origins(given: &RawValue) -> Result<Vec<Origin>, ConfigError> {
    let origins = given.names()?;
    let parsed: Option<Vec<_>> = origins.iter().map(|text| Origin::parse(text)).collect();
    parsed.ok_or_else(|| given.problem("expected http:// or https:// and a host, such as https://grafana.example.org"))
}

fn web(sources: &impl SettingSources) -> Result<WebConfig, ConfigError> {
    let Some(file) = sources.get("web.config.file") else { return Ok(WebConfig::default()) };
    WebConfig::read(&file.path()).map_err(|why| file.problem(why))
}

fn auth(sources: &impl SettingSources) -> Result<ApiAuth, ConfigError> {
    let file = sources.get("api.tokens-file");
    let mut tokens = match &file {
        Some(file) => {
            let text = files::read_settled_text(&file.path()).map_err(|why| file.problem(why))?;
            Tokens::parse(&text).map_err(|why| file.problem(why))?
        }
        None => Tokens::default(),
    };
    if let Some(secret) = sources.api_token() {
        let token = Token::new(DEFAULT_NAME, &secret).ok_or_else(|| {
            ConfigError::new(format!(
                "invalid value (not shown) for {API_TOKEN_VARIABLE}: expected visible ASCII characters without spaces, as a header can carry"
            ))
        })?;
        tokens
            .add(token)
            .map_err(|why| ConfigError::new(format!("invalid value (not shown) for {API_TOKEN_VARIABLE}: {why}")))?;
    }
    if !sources.switch("api.insecure-no-auth") {
        return Ok(if tokens.is_empty() { ApiAuth::Closed } else { ApiAuth::Tokens(Arc::new(tokens)) });
    }
    let contradicts =
        |what: &str| ConfigError::new(format!("--api.insecure-no-auth contradicts {what}: give one of the two"));
    match file {
        _ if sources.switch("web.enable-lifecycle") => {
            Err(contradicts("--web.enable-lifecycle, which asks for a token"))
        }
        Some(_) => Err(contradicts("--api.tokens-file")),
        None if !tokens.is_empty() => Err(contradicts(API_TOKEN_VARIABLE)),
        None => Ok(ApiAuth::InsecureOpen),
    }
}

fn token_rate(per_second: &RawValue, burst: &RawValue) -> Result<Option<RateLimit>, ConfigError> {
    let per_second = per_second.whole_number(0, MAX_RATE)?;
    let burst = u32::try_from(burst.whole_number(1, MAX_RATE)?).unwrap_or(u32::MAX);
    let interval = Duration::from_secs(1).checked_div(u32::try_from(per_second).unwrap_or(u32::MAX));
    Ok(interval.map(|interval| RateLimit { interval, burst }))
}

fn memory_for_replies(given: &RawValue) -> Result<usize, ConfigError> {
    Ok(usize::try_from(given.bytes(MIN_REPLY_MEMORY, MAX_REPLY_MEMORY)?).unwrap_or(usize::MAX))
}

fn transport(sources: &impl SettingSources) -> Result<Transport, ConfigError> {
    let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
    let used = need("event-transport.use-redis-streams")?.boolean()?;
    let percentage = need("event-transport.redis-streams-percentage")?.whole_number(0, 100)?;
    let most = u64::try_from(MAX_DURATION.as_millis()).unwrap_or(u64::MAX);
    let timeout = need("event-transport.publish-timeout-ms")?.whole_number(1, most)?;
    Ok(Transport {
        mode: match (used, percentage) {
            (false, _) | (_, 0) => "http",
            (true, 100) => "redis_streams",
            (true, _) => "hybrid",
        },
        fallback_to_http: need("event-transport.fallback-to-http")?.boolean()?,
        publish_timeout: Duration::from_millis(timeout),
    })
}

#[cfg(test)]
mod tests;
