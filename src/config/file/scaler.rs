//! `scalers:` of the file, as they are written: their structure is checked here, their values in [`crate::config::scalers`].

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::node::{Entries, Given, Misfit, Mismatch, YamlNode, item};
use super::{ConfigFileError, Located, take};
use crate::config::nearest::nearest;
use crate::config::values::{ConfigError, Location, shown};
use crate::model::TargetName;

/// Scalers of a file: each is asked for about six times a minute.
const MAX_SCALERS: usize = 10_000;

/// What the list takes.
const TAKES: &str = "scalers: expected a list of mappings, each with a name";

/// A scaler, its values not checked yet.
#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScalerItem {
    /// It can be what the name of a target can.
    pub(in crate::config) name: Given,
    pub(in crate::config) stream: Option<Given>,
    pub(in crate::config) streams: Option<Given>,
    pub(in crate::config) logical_stream: Option<Given>,
    pub(in crate::config) group: Option<Given>,
    pub(in crate::config) signal: Option<Given>,
    pub(in crate::config) target: Option<Given>,
    pub(in crate::config) look_ahead: Option<Given>,
    pub(in crate::config) redis_target: Option<Given>,
}

/// Takes them out of the top level.
pub(super) fn scalers(file: &Arc<Path>, entries: &mut Entries) -> Result<Vec<Located<ScalerItem>>, ConfigFileError> {
    let (line, listed) = match take(entries, "scalers") {
        None | Some((_, YamlNode::Empty)) => return Ok(Vec::new()),
        Some((line, YamlNode::List(listed))) => (line, listed),
        Some((line, _)) => return Err(ConfigFileError::at(line, TAKES)),
    };
    if listed.len() > MAX_SCALERS {
        let why = format!("scalers: expected at most {MAX_SCALERS} scalers, not {}", listed.len());
        return Err(ConfigFileError::at(line, &why));
    }
    let scaler = |node| match node {
        YamlNode::Map(entries) => scaler(file, line, entries).map_err(ConfigFileError::Scaler),
        _ => Err(ConfigFileError::at(line, TAKES)),
    };
    listed.into_iter().map(scaler).collect()
}

fn scaler(file: &Arc<Path>, line: u64, entries: Entries) -> Result<Located<ScalerItem>, ConfigError> {
    const EXPECTED: &str = "expected 1 to 64 letters, digits, '.', '_' and '-'";
    let location = |line| Location { file: Arc::clone(file), line };
    let begins = entries.first().map_or(line, |(key, _)| key.referenced.line());
    // Errors of its other keys say which scaler it is.
    let Some((key, node)) = entries.iter().find(|(key, _)| key.value == "name") else {
        let place = location(begins);
        return Err(ConfigError::new(format!("a scaler in {place}: expected a name: {EXPECTED}")));
    };
    let name = node.values().unwrap_or_default().join(",");
    if TargetName::new(&name).is_none() {
        let (place, value) = (location(key.referenced.line()), shown(&name));
        return Err(ConfigError::new(format!("invalid value {value:?} for name of a scaler in {place}: {EXPECTED}")));
    }
    let problem = |Misfit { path, line, what }| {
        let (key, of) = (shown(&path.concat()), format!("of scaler {name} in {}", location(line)));
        ConfigError::new(match what {
            Mismatch::Unknown(known) => {
                let near = nearest(&key, known.iter().copied()).map(|near| format!("did you mean {near}?"));
                let expected = near.unwrap_or_else(|| format!("expected one of {}", known.join(", ")));
                format!("unknown key {key:?} {of}: {expected}")
            }
            Mismatch::Twice => format!("{key} {of} is given twice"),
            Mismatch::Shape(Some(values)) if !values.is_empty() => {
                format!("{key} {of}: expected one value, found {:?}", shown(&values))
            }
            Mismatch::Shape(_) | Mismatch::Missing => format!("{key} {of}: expected one value"),
        })
    };
    let section = item(entries, line).map_err(problem)?;
    Ok(Located { file: Arc::clone(file), line: begins, section })
}
