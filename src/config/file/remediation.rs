//! `remediation:` of the file, as it is written: its structure is checked here, its values in [`crate::config::remediation`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::node::{Entries, Given, Misfit, Mismatch, YamlNode, section};
use super::notify::WebhookItem;
use super::{ConfigFileError, Located, named, take};
use crate::config::nearest::nearest;

/// The key of the section.
pub(in crate::config) const REMEDIATION: &str = "remediation";

/// What is behind the keys that take more than one value.
const EXPECTED: [(&str, &str); 5] = [
    ("rules", "a list of mappings, each with a stream, a group and a mode"),
    ("rules.actions", "a list of actions"),
    ("rules.budget", "a mapping such as {acts_per_hour: 10, entries_per_act: 100}"),
    ("rules.dead_letter", "a mapping such as {stream: NAME, deliveries: 5}"),
    ("rules.hook", "a mapping such as {url: URL, secret_file: FILE}"),
];

/// `remediation:`, its values not checked yet.
#[derive(Clone, Debug, Default, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RemediationSection {
    pub(in crate::config) user: Option<Given>,
    pub(in crate::config) password_file: Option<Given>,
    pub(in crate::config) audit_file: Option<Given>,
    pub(in crate::config) kill_switch_file: Option<Given>,
    pub(in crate::config) ca_file: Option<Given>,
    pub(in crate::config) two_person: Option<Given>,
    pub(in crate::config) rules: Vec<RuleItem>,
}

/// A rule.
#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleItem {
    pub(in crate::config) target: Option<Given>,
    pub(in crate::config) stream: Given,
    pub(in crate::config) group: Given,
    pub(in crate::config) mode: Given,
    #[serde(default)]
    pub(in crate::config) actions: Vec<Given>,
    pub(in crate::config) budget: Option<BudgetItem>,
    pub(in crate::config) dead_letter: Option<DeadLetterItem>,
    pub(in crate::config) hook: Option<WebhookItem>,
}

/// How much may be done.
#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetItem {
    pub(in crate::config) acts_per_hour: Given,
    pub(in crate::config) entries_per_act: Given,
}

/// When and where an entry is moved.
#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetterItem {
    pub(in crate::config) stream: Given,
    pub(in crate::config) deliveries: Given,
    pub(in crate::config) idle: Option<Given>,
}

impl Located<RemediationSection> {
    /// The files that it names and a reload reads.
    pub(in crate::config) fn files(&self) -> Vec<PathBuf> {
        let section = &self.section;
        let hooks = section.rules.iter().filter_map(|rule| rule.hook.as_ref()).map(|hook| &hook.secret_file);
        let files = hooks.chain([&section.password_file, &section.ca_file]).flatten();
        files.map(|given| self.path(given)).collect()
    }
}

/// Takes it out of the top level.
pub(super) fn remediation(
    file: &Arc<Path>,
    entries: &mut Entries,
) -> Result<Option<Located<RemediationSection>>, ConfigFileError> {
    let (line, entries) = match take(entries, REMEDIATION) {
        None | Some((_, YamlNode::Empty)) => return Ok(None),
        Some((line, YamlNode::Map(entries))) => (line, entries),
        Some((line, _)) => return Err(ConfigFileError::at(line, "remediation: expected a mapping")),
    };
    let section = section(entries, line).map_err(problem)?;
    Ok(Some(Located { file: Arc::clone(file), line, section }))
}

fn problem(Misfit { path, line, what }: Misfit) -> ConfigFileError {
    let (key, parents) = path.split_last().map_or(("", &path[..]), |(key, parents)| (key.as_str(), parents));
    let of = [&[REMEDIATION.to_owned()], parents].concat().join(".");
    let why = match what {
        Mismatch::Unknown(known) => {
            let near = nearest(key, known.iter().copied()).map(|near| format!(": did you mean {of}.{near}?"));
            let near = near.unwrap_or_else(|| format!(": expected one of {}", known.join(", ")));
            format!("unknown key {} of {of}{near}", named(key))
        }
        Mismatch::Twice => format!("{of}.{key} is given twice"),
        Mismatch::Missing => format!("{of}.{key} is missing"),
        Mismatch::Shape(_) => {
            let path = path.join(".");
            let expected = EXPECTED.iter().find(|(known, _)| *known == path);
            format!("{of}.{key}: expected {}", expected.map_or("one value", |(_, expected)| expected))
        }
    };
    ConfigFileError::at(line, &why)
}
