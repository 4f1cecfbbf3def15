//! What the settings say of each stream: looked up once per stream and not in every poll.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::analysis::logical::LogicalStreams;
use crate::analysis::snapshot::StreamSnapshot;
use crate::model::StreamKey;
use crate::model::thresholds::{ThresholdRules, Thresholds};

/// What the settings say of the sampled streams, as far as they say anything of some streams only.
#[derive(Debug, Default)]
pub(super) struct StreamRules(HashMap<StreamKey, StreamRule>);

/// What they say of one.
#[derive(Debug)]
struct StreamRule {
    /// Its own thresholds.
    thresholds: Option<Thresholds>,
    /// The logical streams that it is a partition of.
    logical: Arc<[Arc<str>]>,
}

impl StreamRules {
    /// The settings have changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Looks up those of these streams that were not met yet, and forgets all others.
    pub(super) fn follow(&mut self, thresholds: &ThresholdRules, logical: &LogicalStreams, streams: &[StreamSnapshot]) {
        if thresholds.by_pattern.is_empty() && logical.is_empty() {
            return;
        }
        for StreamSnapshot { key, .. } in streams {
            if !self.0.contains_key(key) {
                self.0.insert(key.clone(), StreamRule { thresholds: thresholds.own(key), logical: logical.of(key) });
            }
        }
        if self.0.len() > streams.len() {
            let sampled: HashSet<&StreamKey> = streams.iter().map(|stream| &stream.key).collect();
            self.0.retain(|key, _| sampled.contains(key));
        }
    }

    /// The own thresholds of those of these streams that could be read.
    pub(super) fn thresholds(&self, streams: &[StreamSnapshot]) -> Arc<[(StreamKey, Thresholds)]> {
        let of = |stream: &StreamSnapshot| {
            let own = self.0.get(&stream.key)?.thresholds.filter(|_| stream.read.is_ok())?;
            Some((stream.key.clone(), own))
        };
        if self.0.is_empty() { Arc::default() } else { streams.iter().filter_map(of).collect() }
    }

    /// The logical streams that a stream is a partition of.
    pub(super) fn logical(&self, stream: &StreamKey) -> Arc<[Arc<str>]> {
        self.0.get(stream).map_or_else(Arc::default, |rule| Arc::clone(&rule.logical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::snapshot::tests::stream_facts;
    use crate::model::sample::ReadError;

    fn seen(name: &str, readable: bool) -> StreamSnapshot {
        let facts = stream_facts();
        let read = if readable { Ok(facts) } else { Err(ReadError::Server(String::new())) };
        StreamSnapshot { key: name.into(), read, groups: Vec::new(), groups_left_out: 0 }
    }

    #[test]
    fn streams_have_their_own_thresholds_and_logical_streams_whichever_come_and_go() {
        let thresholds = |degraded| Thresholds { degraded, unhealthy: 10 * degraded };
        let mut settings = ThresholdRules {
            otherwise: thresholds(100),
            by_pattern: vec![("a".to_owned(), thresholds(1)), ("?".to_owned(), thresholds(2))],
        };
        let mut logical = LogicalStreams::parse(&["l=b".to_owned(), "all=*".to_owned()]).unwrap();
        let mut rules = StreamRules::default();
        let mut check =
            |settings: &ThresholdRules, logical: &LogicalStreams, seen: &[StreamSnapshot], expected: &[_]| {
                rules.follow(settings, logical, seen);
                let of: Vec<(String, u64)> =
                    rules.thresholds(seen).iter().map(|(key, own)| (key.to_string(), own.degraded)).collect();
                let expected: Vec<(String, u64)> =
                    expected.iter().map(|(key, own): &(&str, u64)| ((*key).to_owned(), *own)).collect();
                assert_eq!(of, expected);
                for stream in seen {
                    assert_eq!(rules.logical(&stream.key), logical.of(&stream.key));
                }
                assert_eq!(rules.0.len(), seen.len(), "{rules:?}");
            };
        let all = [seen("a", true), seen("long", true), seen("b", true), seen("c", true)];
        check(&settings, &logical, &all, &[("a", 1), ("b", 2), ("c", 2)]);
        check(&settings, &logical, &[seen("a", false), seen("b", true)], &[("b", 2)]);
        check(&settings, &logical, &[seen("b", true), seen("a", true)], &[("b", 2), ("a", 1)]);
        check(&settings, &logical, &[seen("d", true)], &[("d", 2)]);
        (settings.by_pattern, logical) = (Vec::new(), LogicalStreams::default());
        rules.clear();
        rules.follow(&settings, &logical, &all);
        assert!(rules.0.is_empty());
    }
}
