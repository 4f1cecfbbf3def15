//! `notify:` of the file, as it is written: its structure is checked here, its values in [`crate::config::notify`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::node::{Entries, Given, Misfit, Mismatch, YamlNode, section};
use super::{ConfigFileError, Located, named, take};
use crate::config::nearest::nearest;

/// What is behind the keys that take more than one value.
const EXPECTED: [(&str, &str); 3] = [
    ("alertmanagers", "a list of URLs"),
    ("labels", "a mapping of names to values"),
    ("webhooks", "a list of mappings, each with a url"),
];

/// `notify:`, its values not checked yet.
#[derive(Clone, Debug, Default, Hash, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NotifySection {
    pub(in crate::config) alertmanagers: Vec<Given>,
    pub(in crate::config) webhooks: Vec<WebhookItem>,
    pub(in crate::config) labels: BTreeMap<String, Given>,
    pub(in crate::config) r#for: Option<Given>,
    pub(in crate::config) ca_file: Option<Given>,
    pub(in crate::config) group_wait: Option<Given>,
    pub(in crate::config) group_interval: Option<Given>,
    pub(in crate::config) repeat_interval: Option<Given>,
}

/// A webhook.
#[derive(Clone, Debug, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookItem {
    pub(in crate::config) url: Given,
    pub(in crate::config) secret_file: Option<Given>,
    pub(in crate::config) allow_plain: Option<Given>,
}

impl Located<NotifySection> {
    /// The files that it names.
    pub(in crate::config) fn files(&self) -> Vec<PathBuf> {
        let secrets = self.section.webhooks.iter().map(|webhook| &webhook.secret_file);
        secrets.chain([&self.section.ca_file]).flatten().map(|given| self.path(given)).collect()
    }
}

/// Takes it out of the top level.
pub(super) fn notify(
    file: &Arc<Path>,
    entries: &mut Entries,
) -> Result<Option<Located<NotifySection>>, ConfigFileError> {
    let (line, entries) = match take(entries, "notify") {
        None | Some((_, YamlNode::Empty)) => return Ok(None),
        Some((line, YamlNode::Map(entries))) => (line, entries),
        Some((line, _)) => return Err(ConfigFileError::at(line, "notify: expected a mapping")),
    };
    let section = section(entries, line).map_err(problem)?;
    Ok(Some(Located { file: Arc::clone(file), line, section }))
}

fn problem(Misfit { path, line, what }: Misfit) -> ConfigFileError {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let of_webhook = matches!(path[..], ["webhooks", _]);
    let key = path.last().copied().unwrap_or_default();
    let why = match what {
        Mismatch::Unknown(known) if of_webhook => {
            format!("unknown key {} of a webhook: expected one of {}", named(key), known.join(", "))
        }
        Mismatch::Unknown(known) => {
            let near = nearest(key, known.iter().copied()).map(|near| format!(": did you mean notify.{near}?"));
            let near = near.unwrap_or_else(|| format!(": expected one of {}", known.join(", ")));
            format!("unknown key {} of notify{near}", named(key))
        }
        Mismatch::Twice if of_webhook => format!("{key} of a webhook is given twice"),
        Mismatch::Twice => format!("notify.{key} is given twice"),
        Mismatch::Missing => format!("notify.webhooks: expected a {key}"),
        Mismatch::Shape(_) if of_webhook => format!("{key} of a webhook: expected one value"),
        Mismatch::Shape(_) => {
            let key = path.first().copied().unwrap_or_default();
            let expected =
                EXPECTED.iter().find(|(known, _)| *known == key).map_or("one value", |(_, expected)| expected);
            format!("notify.{key}: expected {expected}")
        }
    };
    ConfigFileError::at(line, &why)
}
