//! Which streams are sampled: names, patterns, exclusions, and the share of this process.

use std::collections::BTreeSet;

use crate::model::glob::{any_matches, is_pattern};
use crate::model::{Shard, StreamKey};

/// The streams to sample: names, which are reported even where they do not exist, and patterns; less those excluded, and
/// only those of this process's shard where there are several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSelection {
    literals: Vec<StreamKey>,
    patterns: Vec<String>,
    exclude: Vec<String>,
    shard: Option<Shard>,
}

impl StreamSelection {
    /// A selection from names and patterns in the order of the configuration.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        let (patterns, names): (Vec<&String>, Vec<&String>) = entries.iter().partition(|entry| is_pattern(entry));
        let keys = names.into_iter().map(|name| StreamKey::from(name.as_str()));
        Self::default().and(keys, patterns.into_iter().cloned())
    }

    /// The same with more names and patterns at the end: what logical streams consist of.
    #[must_use]
    pub fn and(
        mut self,
        names: impl IntoIterator<Item = StreamKey>,
        patterns: impl IntoIterator<Item = String>,
    ) -> Self {
        self.literals.extend(names);
        let mut met = BTreeSet::new();
        self.literals.retain(|key| met.insert(key.clone()));
        for pattern in patterns {
            if !self.patterns.contains(&pattern) {
                self.patterns.push(pattern);
            }
        }
        self.narrowed()
    }

    /// The same without the streams that these names and patterns mean, whether they were named or matched.
    #[must_use]
    pub fn without(mut self, exclude: Vec<String>) -> Self {
        self.exclude.extend(exclude);
        self.narrowed()
    }

    /// The same with these names in place of its own: those that one of several servers has.
    #[must_use]
    pub fn naming(&self, names: Vec<StreamKey>) -> Self {
        let (patterns, exclude) = (self.patterns.clone(), self.exclude.clone());
        Self { literals: names, patterns, exclude, shard: self.shard }
    }

    /// The same for the share of one of several exporters.
    #[must_use]
    pub fn of_shard(mut self, shard: Option<Shard>) -> Self {
        self.shard = shard;
        self.narrowed()
    }

    fn narrowed(mut self) -> Self {
        let mut literals = std::mem::take(&mut self.literals);
        literals.retain(|key| !self.is_excluded(key.as_bytes()));
        self.literals = literals;
        self
    }

    /// The names that are sampled whether or not they exist, in the order of the configuration.
    #[must_use]
    pub fn literals(&self) -> &[StreamKey] {
        &self.literals
    }

    /// The patterns, in the order of the configuration. Where there are none, there is nothing to discover.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The pattern that Redis can be given to look for, as it accepts only one.
    #[must_use]
    pub fn single_pattern(&self) -> Option<&str> {
        match self.patterns.as_slice() {
            [pattern] => Some(pattern),
            _ => None,
        }
    }

    /// Whether a stream of this name is sampled because a pattern says so.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        any_matches(&self.patterns, name) && !self.is_excluded(name)
    }

    /// Whether a stream of this name is sampled.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.literals.iter().any(|key| key.as_bytes() == name) || self.matches(name)
    }

    /// Whether a stream of this name is never sampled here: it is excluded, or another shard's.
    #[must_use]
    pub fn is_excluded(&self, name: &[u8]) -> bool {
        any_matches(&self.exclude, name) || self.shard.is_some_and(|shard| !shard.owns_name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn literals(selection: &StreamSelection) -> Vec<String> {
        selection.literals().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_keep_their_order_and_patterns_are_apart() {
        let selection = StreamSelection::new(&texts(&["z", "events:*", "a", "z", "events:*", r"odd\*name"]));
        assert_eq!(literals(&selection), ["z", "a"]);
        assert_eq!(selection.patterns(), ["events:*", r"odd\*name"]);
        assert_eq!(selection.single_pattern(), None);
        let check = |name: &str, expected| assert_eq!(selection.contains(name.as_bytes()), expected, "{name:?}");
        check("z", true);
        check("zz", false);
        check("events:", true);
        check("events:7", true);
        check("event", false);
        check("odd*name", true);
        check("odd-name", false);
        assert!(!selection.matches(b"z"));
        assert_eq!(StreamSelection::new(&texts(&["a", "b:*"])).single_pattern(), Some("b:*"));
        assert_eq!(StreamSelection::new(&texts(&["a"])).single_pattern(), None);
    }

    #[test]
    fn what_is_excluded_is_sampled_neither_by_name_nor_by_pattern() {
        let selection = StreamSelection::new(&texts(&["events:debug", "events:chat", "events:*"]))
            .without(texts(&["events:debug", "*:tmp:*"]));
        assert_eq!(literals(&selection), ["events:chat"]);
        let check = |name: &str, expected: bool| {
            assert_eq!(selection.contains(name.as_bytes()), expected, "{name:?}");
            assert_eq!(selection.is_excluded(name.as_bytes()), !expected, "{name:?}");
        };
        check("events:chat", true);
        check("events:new", true);
        check("events:debug", false);
        check("events:tmp:1", false);
        let part = selection.naming(vec!["elsewhere".into()]);
        assert_eq!((literals(&part), part.patterns()), (vec!["elsewhere".to_owned()], selection.patterns()));
        assert!(part.contains(b"events:new") && !part.contains(b"events:tmp:1"));
        let later = selection.and([StreamKey::from("events:debug"), "orders:1".into()], ["orders:*".to_owned()]);
        assert_eq!(literals(&later), ["events:chat", "orders:1"]);
        assert!(later.contains(b"orders:2"));
    }

    #[test]
    fn shards_share_names_and_matches_and_leave_nothing_out() {
        let entries: Vec<String> = (0..50).map(|number| format!("named:{number}")).chain(texts(&["found:*"])).collect();
        let shards: Vec<StreamSelection> =
            (0..3).map(|index| StreamSelection::new(&entries).of_shard(Shard::new(index, 3))).collect();
        assert_eq!(shards.iter().map(|shard| shard.literals().len()).sum::<usize>(), 50);
        for number in 0..50 {
            for name in [format!("named:{number}"), format!("found:{number}")] {
                let owners = shards.iter().filter(|shard| shard.contains(name.as_bytes())).count();
                assert_eq!(owners, 1, "{name}");
            }
        }
    }
}
