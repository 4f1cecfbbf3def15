//! Which settings are others than before. It keeps digests: values may be secrets, and only names are ever shown.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::PathBuf;

use super::SettingSources;
use super::settings::{Flag, SETTINGS};
use crate::sys::files;

/// Names of settings that one line about a reload has at most.
const MAX_SHOWN: usize = 20;

/// A digest of each setting's value by the setting's name, and of the content of files that a reload reads.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SettingDigests(BTreeMap<String, u64>);

impl fmt::Debug for SettingDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl SettingDigests {
    /// Of everything that was given; `web_files` are the files of `web.config.file`.
    pub(super) fn new(sources: &impl SettingSources, web_files: &[PathBuf]) -> Self {
        let mut digests = BTreeMap::new();
        for setting in SETTINGS {
            let digest = if setting.flag == Flag::Switch {
                digest(&sources.switch(setting.key))
            } else {
                let content = match (setting.key, sources.get(setting.key)) {
                    ("api.tokens-file", Some(given)) => contents(&[given.path()]),
                    ("web.config.file", Some(_)) => contents(web_files),
                    _ => Vec::new(),
                };
                digest(&(sources.get(setting.key).map(|given| given.values().to_vec()), content))
            };
            digests.insert(setting.key.to_owned(), digest);
        }
        let names: Vec<&str> = sources.targets().iter().map(|(name, _)| name.as_str()).collect();
        digests.insert("targets".to_owned(), digest(&names));
        for scaler in sources.scalers() {
            digests.insert(format!("scaler {}", scaler.section.name.value), digest(&scaler));
        }
        if let Some(notify) = sources.notify() {
            digests.insert("notify".to_owned(), digest(&(notify, contents(&notify.files()))));
        }
        if let Some(remediation) = sources.remediation() {
            digests.insert("remediation".to_owned(), digest(&(remediation, contents(&remediation.files()))));
        }
        for (target, section) in sources.targets() {
            for (key, entry) in section {
                digests.insert(format!("{key} of target {target}"), digest(&entry.values));
            }
        }
        Self(digests)
    }

    #[cfg(test)]
    pub(super) fn of(digests: BTreeMap<String, u64>) -> Self {
        Self(digests)
    }

    /// The names of the settings that `new` has otherwise, separated by commas: as many as a line takes, and how many more.
    #[must_use]
    pub fn changed(&self, new: &Self) -> String {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(new.0.keys()).collect();
        let changed: Vec<&str> =
            names.into_iter().filter(|name| self.0.get(*name) != new.0.get(*name)).map(String::as_str).collect();
        match changed.len() {
            0 => "nothing".to_owned(),
            many if many > MAX_SHOWN => format!("{} and {} more", changed[..MAX_SHOWN].join(", "), many - MAX_SHOWN),
            _ => changed.join(", "),
        }
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What is in these files; a file that cannot be read has been reported where it was needed.
fn contents(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|file| files::read(file).ok()).collect()
}
