//! `notify:` of the file, as it is written: its structure is checked here, its values in [`crate::config::notify`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::{YamlNode, named};
use crate::config::nearest::nearest;
use crate::config::values::Location;

/// The key under which a file says whom to tell.
pub(super) const NOTIFY: &str = "notify";

/// Keys with one value.
const VALUES: [&str; 5] = ["for", "ca_file", "group_wait", "group_interval", "repeat_interval"];

/// The other keys.
const LISTS: [&str; 3] = ["alertmanagers", "webhooks", "labels"];

/// The keys of a webhook.
const WEBHOOK: [&str; 3] = ["url", "secret_file", "allow_plain"];

/// A key, where it stands, and its value.
pub(crate) type Given = (String, Location, String);

/// `notify:`, not checked yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListedNotify {
    /// Keys with one value.
    pub(in crate::config) values: Vec<Given>,
    /// Alertmanagers; the key is the list's.
    pub(in crate::config) alertmanagers: Vec<Given>,
    /// Labels.
    pub(in crate::config) labels: Vec<Given>,
    /// The keys of each webhook.
    pub(in crate::config) webhooks: Vec<Vec<Given>>,
}

impl ListedNotify {
    /// The files that it names.
    pub(in crate::config) fn files(&self) -> Vec<PathBuf> {
        let named = self.values.iter().chain(self.webhooks.iter().flatten()).filter(|(key, ..)| key.ends_with("_file"));
        named.map(|(_, location, path)| location.beside(path)).collect()
    }
}

/// Takes it out of the top level.
pub(super) fn take(
    path: &Arc<Path>,
    entries: &mut Vec<(Spanned<String>, YamlNode)>,
) -> Result<Option<ListedNotify>, String> {
    let Some(place) = entries.iter().position(|(key, _)| key.value == NOTIFY) else { return Ok(None) };
    let (key, node) = entries.remove(place);
    let mut listed = ListedNotify::default();
    let entries = match node {
        YamlNode::Empty => return Ok(None),
        YamlNode::Map(entries) => entries,
        YamlNode::Value(_) | YamlNode::List(_) => {
            return Err(format!("line {}: notify: expected a mapping", key.referenced.line()));
        }
    };
    let location = |line| Location { file: Arc::clone(path), line };
    for (key, node) in entries {
        let line = key.referenced.line();
        let name = key.value.replace('-', "_");
        let problem = |expected: &str| Err(format!("line {line}: notify.{name}: expected {expected}"));
        match (name.as_str(), node) {
            (known, YamlNode::Empty) if VALUES.contains(&known) || LISTS.contains(&known) => {}
            (known, YamlNode::Value(value)) if VALUES.contains(&known) => {
                listed.values.push((name, location(line), value));
            }
            (known, _) if VALUES.contains(&known) => return problem("one value"),
            ("alertmanagers", YamlNode::List(nodes)) => {
                for node in nodes {
                    let Some(url) = node.into_value() else { return problem("a list of URLs") };
                    listed.alertmanagers.push((name.clone(), location(line), url));
                }
            }
            ("alertmanagers", _) => return problem("a list of URLs"),
            ("labels", YamlNode::Map(labels)) => {
                for (label, node) in labels {
                    let Some(value) = node.into_value() else { return problem("a mapping of names to values") };
                    listed.labels.push((label.value, location(label.referenced.line()), value));
                }
            }
            ("labels", _) => return problem("a mapping of names to values"),
            ("webhooks", YamlNode::List(nodes)) => {
                for node in nodes {
                    let YamlNode::Map(entries) = node else { return problem("a list of mappings, each with a url") };
                    listed.webhooks.push(webhook(entries, location)?);
                }
            }
            ("webhooks", _) => return problem("a list of mappings, each with a url"),
            (unknown, _) => {
                let near = nearest(unknown, VALUES.into_iter().chain(LISTS));
                let near = near.map_or_else(String::new, |near| format!(": did you mean notify.{near}?"));
                return Err(format!("line {line}: unknown key {} of notify{near}", named(unknown)));
            }
        }
    }
    Ok(Some(listed))
}

fn webhook(
    entries: Vec<(Spanned<String>, YamlNode)>,
    location: impl Fn(u64) -> Location,
) -> Result<Vec<Given>, String> {
    let entry = |(key, node): (Spanned<String>, YamlNode)| {
        let (name, line) = (key.value.replace('-', "_"), key.referenced.line());
        if !WEBHOOK.contains(&name.as_str()) {
            let keys = WEBHOOK.join(", ");
            return Err(format!("line {line}: unknown key {} of a webhook: expected one of {keys}", named(&name)));
        }
        let value = node.into_value().ok_or_else(|| format!("line {line}: {name} of a webhook: expected one value"))?;
        Ok((name, location(line), value))
    };
    entries.into_iter().map(entry).collect()
}
