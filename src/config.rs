//! Arguments, environment and file to one validated [`Config`]. A flag wins over the environment, which wins over the
//! file, which wins over the default.

mod command;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod redis_target;
mod settings;
mod values;
pub mod web;

use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

pub use command::{Request, parse};
pub use redis_target::dial;
pub use settings::{SETTINGS, Setting};
pub use values::{Given, Problem};
pub use web::WebConfig;

use crate::lag::{Thresholds, Windows};
use crate::log::Format;
use crate::model::{GroupSelection, StreamKey, glob};
use crate::render::api::Transport;
use crate::route::Route;
use crate::server::tokens::{DEFAULT_NAME, Token, Tokens};
use crate::server::{ApiAuth, Rate};
use crate::small_file;
use crate::source::Topology;

/// The environment variable of the API token. It has no flag: that would show in `ps`.
pub const API_TOKEN_VARIABLE: &str = "STREAMLAG_API_TOKEN";

/// A poll takes a round trip; more often than this, Redis would do little else.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Anything shorter fails on a healthy network.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);

/// Beyond a day, a poll is not monitoring.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// What Redis serves at its default `maxclients`.
const MAX_CONNECTIONS: u64 = 10_000;

/// A verdict over less than this would follow every hiccup.
const MIN_WINDOW: Duration = Duration::from_millis(100);

/// At the shortest interval, a thousand samples are most of a minute.
const MAX_WINDOW_SAMPLES: u64 = 1000;

/// A limit above this is none.
const MAX_RATE: u64 = 1_000_000;

/// Some half a second of Redis's time per second: more is no monitoring.
const MAX_COUNT_BUDGET: u64 = 1_000_000;

/// Every setting, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Redis to sample.
    pub redis: Topology,
    /// The deadline of a whole poll.
    pub redis_timeout: Duration,
    /// The streams to sample, in order, each once.
    pub streams: Vec<StreamKey>,
    /// The groups to monitor.
    pub groups: GroupSelection,
    /// The time between polls.
    pub poll_interval: Duration,
    /// What a lag is called.
    pub thresholds: Thresholds,
    /// What verdicts on groups take.
    pub windows: Windows,
    /// Entries that may be read per second to count lags that nothing else tells.
    pub count_budget: u64,
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
    /// How often each token may be used; `None` where there is no limit.
    pub token_rate: Option<Rate>,
    /// The event transport's settings, as far as they are reported.
    pub transport: Transport,
    /// The length to which the event transport trims its streams, where it is given. The default is the transport's own,
    /// and streams that it does not trim would look as if they were about to lose everything.
    pub stream_max_len: Option<u64>,
    /// What is logged.
    pub log_level: LevelFilter,
    /// How log lines look.
    pub log_format: Format,
}

/// Where values come from: a setting's value as it was given last, by rank.
pub trait Sources {
    /// The value of the setting with this key, if it was given or has a default.
    fn get(&self, key: &str) -> Option<Given>;

    /// Whether a switch was given.
    fn is_on(&self, key: &str) -> bool;

    /// The API token, where one is set.
    fn api_token(&self) -> Option<String>;
}

impl Config {
    /// What keeps this configuration from becoming `new` while the program runs.
    ///
    /// # Errors
    /// A setting that only a restart changes.
    pub fn may_become(&self, new: &Self) -> Result<(), Problem> {
        let same = [
            ("web.listen-address", self.listen == new.listen),
            ("web.systemd-socket", self.systemd_socket == new.systemd_socket),
            ("log.format", self.log_format == new.log_format),
        ];
        match same.iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(Problem::new(format!("{key} has changed, which takes a restart"))),
            None => Ok(()),
        }
    }

    /// Checks everything that was given. Reads the files that are named.
    ///
    /// # Errors
    /// The first setting that is wrong: its name, its value and what it takes.
    pub fn from_sources(sources: &impl Sources) -> Result<Self, Problem> {
        let need = |key: &str| sources.get(key).ok_or_else(|| Problem::missing(key));
        Ok(Self {
            redis: redis_target::from_sources(sources)?,
            redis_timeout: need("redis.timeout")?.duration(MIN_TIMEOUT, MAX_DURATION)?,
            streams: streams(&need("streams")?)?,
            groups: GroupSelection::new(need("groups")?.names()?),
            poll_interval: need("poll.interval")?.duration(MIN_POLL_INTERVAL, MAX_DURATION)?,
            thresholds: thresholds(&need("lag.degraded")?, &need("lag.unhealthy")?)?,
            windows: windows(sources)?,
            count_budget: need("lag.count-budget")?.whole_number(0, MAX_COUNT_BUDGET)?,
            listen: need("web.listen-address")?.listen_addresses()?,
            systemd_socket: sources.is_on("web.systemd-socket"),
            web: web(sources)?,
            lifecycle: sources.is_on("web.enable-lifecycle"),
            telemetry_path: telemetry_path(&need("web.telemetry-path")?)?,
            auth: auth(sources)?,
            token_rate: token_rate(&need("api.rate-limit")?, &need("api.rate-burst")?)?,
            transport: transport(sources)?,
            stream_max_len: stream_max_len(&need("event-transport.stream-max-len")?)?,
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

fn streams(given: &Given) -> Result<Vec<StreamKey>, Problem> {
    let mut streams: Vec<StreamKey> = Vec::new();
    for name in given.names()? {
        if glob::is_pattern(&name) {
            let why = format!("it takes names; {name:?} is a pattern, which this version does not know here");
            return Err(given.problem(&why));
        }
        let key = StreamKey::from(name.as_str());
        if !streams.contains(&key) {
            streams.push(key);
        }
    }
    Ok(streams)
}

fn thresholds(degraded: &Given, unhealthy: &Given) -> Result<Thresholds, Problem> {
    let thresholds =
        Thresholds { degraded: degraded.whole_number(1, u64::MAX)?, unhealthy: unhealthy.whole_number(1, u64::MAX)? };
    if thresholds.degraded > thresholds.unhealthy {
        let why = format!("it contradicts {}: a lag is degraded before it is unhealthy", unhealthy.shown());
        return Err(degraded.problem(&why));
    }
    Ok(thresholds)
}

fn windows(sources: &impl Sources) -> Result<Windows, Problem> {
    let need = |key: &str| sources.get(key).ok_or_else(|| Problem::missing(key));
    let duration = |key: &str| need(key)?.duration(MIN_WINDOW, MAX_DURATION);
    Ok(Windows {
        window: duration("group.window")?,
        samples: u32::try_from(need("group.window-samples")?.whole_number(2, MAX_WINDOW_SAMPLES)?).unwrap_or(u32::MAX),
        dead_after: duration("consumer.dead-after")?,
        drain_target: duration("group.drain-target")?,
    })
}

fn stream_max_len(given: &Given) -> Result<Option<u64>, Problem> {
    let length = given.whole_number(1, u64::MAX)?;
    Ok((!given.is_default()).then_some(length))
}

fn telemetry_path(given: &Given) -> Result<String, Problem> {
    let path = given.text()?;
    let is_path =
        path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if !is_path {
        return Err(given.problem("it takes a path that begins with a slash, such as /metrics"));
    }
    if Route::is_taken(&path) {
        return Err(given.problem("it takes a path that is free; streamlag itself answers at this one"));
    }
    Ok(path)
}

fn web(sources: &impl Sources) -> Result<WebConfig, Problem> {
    let Some(file) = sources.get("web.config.file") else { return Ok(WebConfig::default()) };
    WebConfig::read(&file.path()).map_err(|why| file.problem(&why))
}

fn auth(sources: &impl Sources) -> Result<ApiAuth, Problem> {
    let file = sources.get("api.tokens-file");
    let mut tokens = match &file {
        Some(file) => {
            let tokens = small_file::read_text(&file.path()).and_then(|text| Tokens::parse(&text));
            tokens.map_err(|why| file.problem(&why))?
        }
        None => Tokens::default(),
    };
    if let Some(secret) = sources.api_token() {
        let token = Token::new(DEFAULT_NAME, &secret).ok_or_else(|| {
            Problem::new(format!(
                "{API_TOKEN_VARIABLE} (not shown): it takes visible ASCII characters without spaces, as a header can carry"
            ))
        })?;
        tokens.add(token).map_err(|why| Problem::new(format!("{API_TOKEN_VARIABLE} (not shown): {why}")))?;
    }
    if !sources.is_on("api.insecure-no-auth") {
        return Ok(if tokens.is_empty() { ApiAuth::Closed } else { ApiAuth::Tokens(Arc::new(tokens)) });
    }
    let contradicts =
        |what: &str| Problem::new(format!("--api.insecure-no-auth contradicts {what}: give one of the two"));
    match file {
        _ if sources.is_on("web.enable-lifecycle") => {
            Err(contradicts("--web.enable-lifecycle, which asks for a token"))
        }
        Some(_) => Err(contradicts("--api.tokens-file")),
        None if !tokens.is_empty() => Err(contradicts(API_TOKEN_VARIABLE)),
        None => Ok(ApiAuth::InsecureOpen),
    }
}

fn token_rate(per_second: &Given, burst: &Given) -> Result<Option<Rate>, Problem> {
    let per_second = per_second.whole_number(0, MAX_RATE)?;
    let burst = u32::try_from(burst.whole_number(1, MAX_RATE)?).unwrap_or(u32::MAX);
    let interval = Duration::from_secs(1).checked_div(u32::try_from(per_second).unwrap_or(u32::MAX));
    Ok(interval.map(|interval| Rate { interval, burst }))
}

fn transport(sources: &impl Sources) -> Result<Transport, Problem> {
    let need = |key: &str| sources.get(key).ok_or_else(|| Problem::missing(key));
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
