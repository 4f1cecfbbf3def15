//! `scalers:` of the configuration file, checked against the targets.

use std::collections::BTreeSet;

use crate::analysis::scaling::{CONSUMERS_TARGET, DEFAULT_LOOK_AHEAD, ScaledStreams, Scaler, Signal};
use crate::config::file::{Given, Located, ScalerItem};
use crate::config::target::TargetConfig;
use crate::config::values::{ConfigError, shown};
use crate::http::api::scale;
use crate::http::{DeclaredScaler, Scalers};
use crate::model::glob::{any_matches, is_pattern};
use crate::model::names::MAX_NAME_BYTES;
use crate::model::{GroupName, StreamKey};

/// All scalers. Their streams are sampled by the targets from now on.
pub(super) fn all(listed: &[Located<ScalerItem>], targets: &mut [TargetConfig]) -> Result<Scalers, ConfigError> {
    let mut met = BTreeSet::new();
    let mut scalers = Vec::with_capacity(listed.len());
    for scaler in listed {
        let name = &scaler.section.name.value;
        if !met.insert(name) {
            return Err(scaler.problem("there is another scaler of this name"));
        }
        scalers.push((name.clone(), declared(scaler, targets)?));
    }
    Ok(scalers.into_iter().collect())
}

impl Located<ScalerItem> {
    /// What is wrong with the whole scaler.
    fn problem(&self, why: &str) -> ConfigError {
        ConfigError::new(format!("scaler {} in {}: {why}", self.section.name.value, self.begins()))
    }

    /// What is wrong with the value of this key.
    fn invalid(&self, key: &str, given: &Given, why: &str) -> ConfigError {
        let of = format!("of scaler {} in {}", self.section.name.value, self.location(given));
        ConfigError::new(format!("invalid value {:?} for {key} {of}: {why}", shown(&given.value)))
    }

    /// A name or a pattern that is not empty and not too long.
    fn name_or_pattern(&self, key: &str, given: &Given) -> Result<(), ConfigError> {
        if given.value.is_empty() || given.value.len() > MAX_NAME_BYTES {
            return Err(self.invalid(key, given, &format!("expected 1 to {MAX_NAME_BYTES} bytes")));
        }
        Ok(())
    }

    /// A name, and no pattern; `otherwise` says what to do with one.
    fn plain_name(&self, key: &str, given: &Given, otherwise: &str) -> Result<(), ConfigError> {
        self.name_or_pattern(key, given)?;
        if is_pattern(&given.value) {
            return Err(self.invalid(key, given, &format!("expected a name, not a pattern{otherwise}")));
        }
        Ok(())
    }
}

fn declared(scaler: &Located<ScalerItem>, targets: &mut [TargetConfig]) -> Result<DeclaredScaler, ConfigError> {
    let given = &scaler.section;
    let target = match &given.redis_target {
        None => targets.first_mut().ok_or_else(|| scaler.problem("expected a target"))?,
        Some(name) => targets
            .iter_mut()
            .find(|target| target.name.as_str() == name.value)
            .ok_or_else(|| scaler.invalid("redis_target", name, "expected the name of a target"))?,
    };
    let signal = match &given.signal {
        Some(word) => scale::signal(&word.value).map_err(|why| scaler.invalid("signal", word, &why.to_string()))?,
        None => Signal::default(),
    };
    let streams = streams(scaler, target)?;
    let checked = Scaler {
        group: group(scaler, target)?,
        signal,
        target: match (&given.target, signal, streams.names.first()) {
            (Some(number), ..) => scale::target(&number.value, signal)
                .map_err(|why| scaler.invalid("target", number, &why.to_string()))?,
            (None, Signal::Consumers, _) => CONSUMERS_TARGET,
            (None, _, Some(key)) => target.thresholds.of(key).degraded as f64,
            (None, _, None) => target.thresholds.otherwise.degraded as f64,
        },
        look_ahead: match &given.look_ahead {
            Some(time) => scale::look_ahead(&time.value, signal)
                .map_err(|why| scaler.invalid("look_ahead", time, &why.to_string()))?,
            None => DEFAULT_LOOK_AHEAD,
        },
        streams,
    };
    target.scaled.add(&checked.streams);
    Ok(DeclaredScaler { redis_target: target.name.clone(), scaler: checked })
}

fn streams(scaler: &Located<ScalerItem>, target: &TargetConfig) -> Result<ScaledStreams, ConfigError> {
    let ScalerItem { stream, streams, logical_stream, .. } = &scaler.section;
    let is_excluded = |key: &StreamKey| any_matches(&target.streams_exclude, key.as_bytes());
    match (stream, streams, logical_stream) {
        (Some(name), None, None) => {
            scaler.plain_name("stream", name, "; streams takes a pattern")?;
            let key = StreamKey::from(name.value.as_str());
            if is_excluded(&key) {
                return Err(scaler.invalid("stream", name, "expected a stream that streams.exclude leaves in"));
            }
            Ok(ScaledStreams::named(key))
        }
        (None, Some(pattern), None) => {
            scaler.name_or_pattern("streams", pattern)?;
            if !is_pattern(&pattern.value) {
                let why = "expected a pattern, such as orders:*; stream takes a name";
                return Err(scaler.invalid("streams", pattern, why));
            }
            Ok(ScaledStreams { names: BTreeSet::new(), patterns: vec![pattern.value.clone()] })
        }
        (None, None, Some(name)) => {
            scaler.name_or_pattern("logical_stream", name)?;
            let unknown = || scaler.invalid("logical_stream", name, "expected the name of one of logical-streams");
            let (names, patterns) = target.logical.partitions(&name.value).ok_or_else(unknown)?;
            let names = names.iter().filter(|key| !is_excluded(key)).cloned().collect();
            Ok(ScaledStreams { names, patterns: patterns.to_vec() })
        }
        _ => {
            let all = [("stream", stream), ("streams", streams), ("logical_stream", logical_stream)];
            let given: Vec<&str> = all.iter().filter(|(_, given)| given.is_some()).map(|(key, _)| *key).collect();
            let found = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            Err(scaler.problem(&format!("expected one of stream, streams, logical_stream, found {found}")))
        }
    }
}

fn group(scaler: &Located<ScalerItem>, target: &TargetConfig) -> Result<GroupName, ConfigError> {
    let Some(name) = &scaler.section.group else {
        let first = target.groups.literals().first().cloned();
        return first.ok_or_else(|| scaler.problem("expected a group, as groups has only patterns"));
    };
    scaler.plain_name("group", name, "")?;
    let group = GroupName::from(name.value.as_str());
    if target.groups.contains(&group) {
        return Ok(group);
    }
    Err(scaler.invalid("group", name, "expected a monitored group; add it to groups"))
}
