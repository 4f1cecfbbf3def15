//! `scalers:` of the configuration file, checked against the targets.

use std::collections::BTreeSet;

use crate::analysis::scaling::{CONSUMERS_TARGET, DEFAULT_LOOK_AHEAD, ScaledStreams, Scaler, Signal};
use crate::config::scaler_entry::{ListedScaler, ScalerFields};
use crate::config::target::TargetConfig;
use crate::config::values::ConfigError;
use crate::http::api::scale;
use crate::http::{DeclaredScaler, Scalers};
use crate::model::glob::{any_matches, is_pattern};
use crate::model::{GroupName, StreamKey};

/// The keys that say which streams a scaler is about: one of them is given.
const STREAMS: [&str; 3] = ["stream", "streams", "logical_stream"];

/// All scalers. Their streams are sampled by the targets from now on.
pub(super) fn all(listed: &[ListedScaler], targets: &mut [TargetConfig]) -> Result<Scalers, ConfigError> {
    let mut met = BTreeSet::new();
    let mut scalers = Vec::with_capacity(listed.len());
    for scaler in listed {
        let fields = scaler.fields()?;
        if !met.insert(fields.name) {
            return Err(fields.problem("there is another scaler of this name"));
        }
        scalers.push((fields.name.to_owned(), declared(&fields, targets)?));
    }
    Ok(scalers.into_iter().collect())
}

fn declared(fields: &ScalerFields<'_>, targets: &mut [TargetConfig]) -> Result<DeclaredScaler, ConfigError> {
    let asked = fields.get("redis_target");
    let found = targets.iter_mut().find(|target| asked.is_none_or(|name| target.name.as_str() == name));
    let target = found.ok_or_else(|| fields.invalid("redis_target", "expected the name of a target"))?;
    let signal = match fields.get("signal") {
        Some(word) => scale::signal(word).map_err(|why| fields.invalid("signal", &why))?,
        None => Signal::default(),
    };
    let streams = streams(fields, target)?;
    let scaler = Scaler {
        group: group(fields, target)?,
        signal,
        target: match (fields.get("target"), signal, streams.names.first()) {
            (Some(value), ..) => scale::target(value, signal).map_err(|why| fields.invalid("target", &why))?,
            (None, Signal::Consumers, _) => CONSUMERS_TARGET,
            (None, _, Some(key)) => target.thresholds.of(key).degraded as f64,
            (None, _, None) => target.thresholds.otherwise.degraded as f64,
        },
        look_ahead: match fields.get("look_ahead") {
            Some(value) => scale::look_ahead(value, signal).map_err(|why| fields.invalid("look_ahead", &why))?,
            None => DEFAULT_LOOK_AHEAD,
        },
        streams,
    };
    target.scaled.add(&scaler.streams);
    Ok(DeclaredScaler { redis_target: target.name.clone(), scaler })
}

fn streams(fields: &ScalerFields<'_>, target: &TargetConfig) -> Result<ScaledStreams, ConfigError> {
    let given: Vec<&str> = STREAMS.into_iter().filter(|key| fields.get(key).is_some()).collect();
    if given.len() != 1 {
        let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        return Err(fields.problem(&format!("expected one of {}, found {found}", STREAMS.join(", "))));
    }
    let is_excluded = |key: &StreamKey| any_matches(&target.streams_exclude, key.as_bytes());
    if let Some(name) = fields.plain_name("stream", "; streams takes a pattern")? {
        let key = StreamKey::from(name);
        if is_excluded(&key) {
            return Err(fields.invalid("stream", "expected a stream that streams.exclude leaves in"));
        }
        return Ok(ScaledStreams::named(key));
    }
    if let Some(pattern) = fields.name_or_pattern("streams")? {
        if !is_pattern(pattern) {
            return Err(fields.invalid("streams", "expected a pattern, such as orders:*; stream takes a name"));
        }
        return Ok(ScaledStreams { names: BTreeSet::new(), patterns: vec![pattern.to_owned()] });
    }
    let name = fields.name_or_pattern("logical_stream")?.unwrap_or_default();
    let (names, patterns) = target
        .logical
        .partitions(name)
        .ok_or_else(|| fields.invalid("logical_stream", "expected the name of one of logical-streams"))?;
    let names = names.iter().filter(|key| !is_excluded(key)).cloned().collect();
    Ok(ScaledStreams { names, patterns: patterns.to_vec() })
}

fn group(fields: &ScalerFields<'_>, target: &TargetConfig) -> Result<GroupName, ConfigError> {
    let Some(name) = fields.plain_name("group", "")? else {
        let first = target.groups.literals().first().cloned();
        return first.ok_or_else(|| fields.problem("expected a group, as groups has only patterns"));
    };
    let group = GroupName::from(name);
    if target.groups.contains(&group) {
        return Ok(group);
    }
    Err(fields.invalid("group", "expected a monitored group; add it to groups"))
}
