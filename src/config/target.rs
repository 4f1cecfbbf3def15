//! The settings of one target, checked: what the file says of it, over what holds for all.

use std::time::Duration;

use crate::analysis::logical::LogicalStreams;
use crate::analysis::scaling::ScaledStreams;
use crate::analysis::window::Windows;
use crate::collector::{Address, RedisMode, Topology};
use crate::config::file::Section;
use crate::config::settings::COLLECTORS;
use crate::config::values::{ConfigError, RawValue, ValueOrigin};
use crate::config::{MAX_DURATION, Setting, SettingSources, redis_target};
use crate::exposition::collectors::{Collector, Collectors};
use crate::model::thresholds::{ThresholdRules, Thresholds};
use crate::model::{GroupSelection, Shard, StreamSelection, TargetName};

/// A poll takes a round trip; more often than this, Redis would do little else.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Anything shorter fails on a healthy network.
const MIN_TIMEOUT: Duration = Duration::from_millis(10);

/// What Redis serves at its default `maxclients`.
const MAX_CONNECTIONS: u64 = 10_000;

/// A verdict over less than this would follow every hiccup.
const MIN_WINDOW: Duration = Duration::from_millis(100);

/// At the shortest interval, a thousand samples are most of a minute.
const MAX_WINDOW_SAMPLES: u64 = 1000;

/// Some half a second of Redis's time per second: more is no monitoring.
const MAX_COUNT_BUDGET: u64 = 1_000_000;

/// Looking for streams is a walk over all keys; more often than this, it would never end.
const MIN_DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// Streams of a target, at some kilobytes of memory each.
const MAX_STREAMS: u64 = 1_000_000;

/// Groups of a stream, and consumers of a group: a longer list is not read by people.
const MAX_GROUPS: u64 = 10_000;

/// The least share of Redis's time, in percent: with less, most polls of a mere three streams would be put off.
const MIN_REDIS_PERCENT: f64 = 0.01;

/// The most of the interval over which a poll is spread, in percent: what is left is for polls that take longer.
const MAX_SPREAD_PERCENT: f64 = 90.0;

/// The most more nodes or sentinels to ask: they are for the case that others are down.
const MAX_NODES: usize = 1000;

/// How many of each are sampled or shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetLimits {
    /// Streams of the target.
    pub streams: usize,
    /// Monitored groups of a stream.
    pub groups: usize,
    /// Consumers of a group that are shown one by one.
    pub consumers: usize,
}

/// Every setting of one target, checked.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// What the operator calls it.
    pub name: TargetName,
    /// The Redis to sample.
    pub redis: Topology,
    /// The deadline of a whole poll.
    pub timeout: Duration,
    /// The streams to sample, by name or glob, in order, each once.
    pub streams: Vec<String>,
    /// Names and globs of streams that are not sampled, even if `streams` names them.
    pub streams_exclude: Vec<String>,
    /// The groups to monitor.
    pub groups: GroupSelection,
    /// Whether consumers are asked for one by one.
    pub consumers: bool,
    /// What the metrics page shows of streams, groups and consumers.
    pub collectors: Collectors,
    /// The time between polls.
    pub interval: Duration,
    /// The time within which a new stream shows.
    pub discovery_interval: Duration,
    /// How many of each.
    pub limits: TargetLimits,
    /// The most of one core of Redis's time that polls may take, 1 being all of it.
    pub max_redis_share: f64,
    /// The share of the interval, or of the timeout where that is shorter, over which a poll is spread: 0 for none, up to 0.9.
    pub spread: f64,
    /// What a lag is called, by stream.
    pub thresholds: ThresholdRules,
    /// What verdicts on groups take.
    pub windows: Windows,
    /// Entries that may be read per second to count lags that nothing else tells.
    pub count_budget: u64,
    /// The length to which the event transport trims its streams, where it is given. The default is the transport's own,
    /// and streams that it does not trim would look as if they were about to lose everything.
    pub stream_max_len: Option<u64>,
    /// Streams that are one to those who use them.
    pub logical: LogicalStreams,
    /// Streams of scalers, which are sampled as well.
    pub scaled: ScaledStreams,
}

/// The sources as they are for one target of the file.
struct TargetSources<'a, S> {
    all: &'a S,
    name: &'a TargetName,
    own: &'a Section,
}

impl<S: SettingSources> SettingSources for TargetSources<'_, S> {
    fn get(&self, key: &str) -> Option<RawValue> {
        let own = || Some((Setting::find(key)?, self.own.get(key)?));
        match own() {
            Some((setting, entry)) => Some(entry.given(setting, |place| ValueOrigin::Target(self.name.clone(), place))),
            None => self.all.get(key).map(RawValue::inherited),
        }
    }

    fn switch(&self, key: &str) -> bool {
        self.all.switch(key)
    }

    fn api_token(&self) -> Option<String> {
        self.all.api_token()
    }
}

/// All targets, in the order of the file: at least one.
pub(super) fn all(sources: &impl SettingSources) -> Result<Vec<TargetConfig>, ConfigError> {
    if sources.targets().is_empty() {
        return Ok(vec![from_sources(TargetName::default(), sources)?]);
    }
    let of =
        |(name, own): &(TargetName, Section)| from_sources(name.clone(), &TargetSources { all: sources, name, own });
    sources.targets().iter().map(of).collect()
}

impl TargetConfig {
    /// Which streams are sampled: those of `streams`, of the logical streams and of scalers, less those excluded, as far as they are this
    /// shard's.
    #[must_use]
    pub fn stream_selection(&self, shard: Option<Shard>) -> StreamSelection {
        StreamSelection::new(&self.streams)
            .and(self.logical.names().cloned(), self.logical.patterns().cloned())
            .and(self.scaled.names.iter().cloned(), self.scaled.patterns.iter().cloned())
            .without(self.streams_exclude.clone())
            .of_shard(shard)
    }
}

fn from_sources(name: TargetName, sources: &impl SettingSources) -> Result<TargetConfig, ConfigError> {
    let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
    let names = |key: &str| sources.get(key).map_or(Ok(Vec::new()), |given| given.names());
    let count = |key: &str, min, max| {
        let number = need(key)?.whole_number(min, max)?;
        Ok::<_, ConfigError>(usize::try_from(number).unwrap_or(usize::MAX))
    };
    Ok(TargetConfig {
        name,
        redis: topology(sources)?,
        timeout: need("redis.timeout")?.duration(MIN_TIMEOUT, MAX_DURATION)?,
        streams: each_once(need("streams")?.names()?),
        streams_exclude: names("streams.exclude")?,
        groups: GroupSelection::new(need("groups")?.names()?).without(names("groups.exclude")?),
        consumers: on_or_off(&need("consumers")?)?,
        collectors: collectors(sources)?,
        interval: need("poll.interval")?.duration(MIN_POLL_INTERVAL, MAX_DURATION)?,
        discovery_interval: need("discovery.interval")?.duration(MIN_DISCOVERY_INTERVAL, MAX_DURATION)?,
        limits: TargetLimits {
            streams: count("limit.streams", 1, MAX_STREAMS)?,
            groups: count("limit.groups", 1, MAX_GROUPS)?,
            consumers: count("limit.consumers", 0, MAX_GROUPS)?,
        },
        max_redis_share: need("poll.max-redis-share")?.share(MIN_REDIS_PERCENT, 100.0)?,
        spread: need("poll.spread")?.share(0.0, MAX_SPREAD_PERCENT)?,
        thresholds: thresholds(sources)?,
        windows: windows(sources)?,
        count_budget: need("lag.count-budget")?.whole_number(0, MAX_COUNT_BUDGET)?,
        stream_max_len: stream_max_len(&need("event-transport.stream-max-len")?)?,
        logical: logical_streams(sources)?,
        scaled: ScaledStreams::default(),
    })
}

fn each_once(names: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

fn on_or_off(given: &RawValue) -> Result<bool, ConfigError> {
    // A YAML parser may take the words for truth values.
    given.boolean().map_err(|_| given.problem("expected on or off"))
}

fn collectors(sources: &impl SettingSources) -> Result<Collectors, ConfigError> {
    let mut collectors = Collectors::NONE;
    for collector in Collector::ALL {
        // What has no setting is always on.
        let given = sources.get(&format!("{COLLECTORS}{}", collector.as_str()));
        if given.map_or(Ok(true), |given| given.boolean())? {
            collectors = collectors.with(collector);
        }
    }
    Ok(collectors)
}

fn topology(sources: &impl SettingSources) -> Result<Topology, ConfigError> {
    let endpoint = redis_target::from_sources(sources)?;
    let given = sources.get("redis.mode").ok_or_else(|| ConfigError::missing("redis.mode"))?;
    let modes = [RedisMode::Standalone, RedisMode::Cluster, RedisMode::Sentinel].map(|mode| (mode.as_str(), mode));
    let mode = given.one_of(&modes)?;
    if mode != RedisMode::Standalone && matches!(endpoint.address, Address::Unix(_)) {
        return Err(given.problem("requires a redis:// or rediss:// URL, as nodes are known by host and port"));
    }
    // What all targets are given does not concern one that is of another kind.
    let only_in = |modes: &[RedisMode], key: &str| match sources.get(key) {
        Some(given) if modes.contains(&mode) => Ok(Some(given)),
        Some(given) if !given.is_inherited() && !given.is_default() => {
            let words: Vec<&str> = modes.iter().map(|mode| mode.as_str()).collect();
            Err(given.problem(format!("requires --redis.mode {}", words.join(" or "))))
        }
        Some(_) | None => Ok(None),
    };
    let nodes = match only_in(&[RedisMode::Cluster, RedisMode::Sentinel], "redis.nodes")? {
        Some(given) => {
            let nodes = given.endpoints()?;
            if nodes.len() > MAX_NODES {
                return Err(given.problem(format!("expected at most {MAX_NODES} nodes")));
            }
            nodes.into_iter().map(|(host, port)| Address::Tcp(host, port)).collect()
        }
        None => Vec::new(),
    };
    let master = only_in(&[RedisMode::Sentinel], "redis.sentinel-master")?;
    let sentinel_master = match master {
        Some(given) => {
            Some(given.text()?).filter(|name| !name.is_empty()).ok_or_else(|| given.problem("expected a name"))?
        }
        None => String::new(),
    };
    let user = only_in(&[RedisMode::Sentinel], "redis.sentinel-user")?;
    let file = only_in(&[RedisMode::Sentinel], "redis.sentinel-password-file")?;
    let sentinel_login = redis_target::sentinel_login(user.as_ref(), file.as_ref())?;
    let max_connections =
        sources.get("redis.max-connections").ok_or_else(|| ConfigError::missing("redis.max-connections"))?;
    Ok(Topology {
        mode,
        endpoint,
        nodes,
        sentinel_master,
        sentinel_login,
        max_connections: max_connections.whole_number(1, MAX_CONNECTIONS)?,
    })
}

fn thresholds(sources: &impl SettingSources) -> Result<ThresholdRules, ConfigError> {
    let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
    let (degraded, unhealthy) = (need("lag.degraded")?, need("lag.unhealthy")?);
    let otherwise =
        Thresholds { degraded: degraded.whole_number(1, u64::MAX)?, unhealthy: unhealthy.whole_number(1, u64::MAX)? };
    if otherwise.degraded > otherwise.unhealthy {
        let why = format!("contradicts {}: a lag is degraded before it is unhealthy", unhealthy.shown());
        return Err(degraded.problem(&why));
    }
    let Some(given) = sources.get("lag.thresholds") else { return Ok(otherwise.into()) };
    let rule = |text: String| {
        threshold_rule(&text).ok_or_else(|| {
            given.problem(
                "expected PATTERN=DEGRADED/UNHEALTHY, such as orders:*=500/5000, the first not above the second",
            )
        })
    };
    Ok(ThresholdRules { otherwise, by_pattern: given.names()?.into_iter().map(rule).collect::<Result<_, _>>()? })
}

fn threshold_rule(text: &str) -> Option<(String, Thresholds)> {
    let (pattern, lags) = text.rsplit_once('=')?;
    let (degraded, unhealthy) = lags.split_once('/')?;
    let lag = |text: &str| text.trim().parse().ok().filter(|lag: &u64| *lag > 0 && !text.contains('+'));
    let thresholds = Thresholds { degraded: lag(degraded)?, unhealthy: lag(unhealthy)? };
    let pattern = pattern.trim();
    (!pattern.is_empty() && thresholds.degraded <= thresholds.unhealthy).then(|| (pattern.to_owned(), thresholds))
}

fn windows(sources: &impl SettingSources) -> Result<Windows, ConfigError> {
    let need = |key: &str| sources.get(key).ok_or_else(|| ConfigError::missing(key));
    let duration = |key: &str| need(key)?.duration(MIN_WINDOW, MAX_DURATION);
    Ok(Windows {
        window: duration("group.window")?,
        samples: u32::try_from(need("group.window-samples")?.whole_number(2, MAX_WINDOW_SAMPLES)?).unwrap_or(u32::MAX),
        dead_after: duration("consumer.dead-after")?,
        drain_target: duration("group.drain-target")?,
    })
}

fn stream_max_len(given: &RawValue) -> Result<Option<u64>, ConfigError> {
    let length = given.whole_number(1, u64::MAX)?;
    Ok((!given.is_default()).then_some(length))
}

fn logical_streams(sources: &impl SettingSources) -> Result<LogicalStreams, ConfigError> {
    let Some(given) = sources.get("logical-streams") else { return Ok(LogicalStreams::default()) };
    LogicalStreams::parse(&given.names_with_braces()?).map_err(|problem| given.problem(problem.to_string()))
}

#[cfg(test)]
mod tests;
