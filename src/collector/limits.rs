//! Which streams have thresholds of their own, looked up once per stream and not in every poll.

use std::sync::Arc;

use crate::analysis::snapshot::StreamSnapshot;
use crate::model::StreamKey;
use crate::model::thresholds::{ThresholdRules, Thresholds};

/// The thresholds of streams that have their own.
#[derive(Debug, Default)]
pub(super) struct SampleLimits {
    /// What they were looked up in, and for which streams.
    by_pattern: Vec<(String, Thresholds)>,
    streams: Arc<[StreamKey]>,
    /// In the order of the streams.
    own: Vec<Option<Thresholds>>,
}

impl SampleLimits {
    /// Those of the streams that could be read; `seen` is what came of `streams`, in their order, those that are gone left out.
    pub(super) fn of(
        &mut self,
        rules: &ThresholdRules,
        streams: &Arc<[StreamKey]>,
        seen: &[StreamSnapshot],
    ) -> Arc<[(StreamKey, Thresholds)]> {
        if rules.by_pattern.is_empty() {
            *self = Self::default();
            return Arc::default();
        }
        if !Arc::ptr_eq(&self.streams, streams) || self.by_pattern != rules.by_pattern {
            self.own = streams.iter().map(|stream| rules.own(stream)).collect();
            self.by_pattern.clone_from(&rules.by_pattern);
            self.streams = Arc::clone(streams);
        }
        let mut seen = seen.iter().peekable();
        let of = |(key, own): (&StreamKey, &Option<Thresholds>)| {
            let stream = seen.next_if(|stream| stream.key == *key)?;
            let own = own.filter(|_| stream.read.is_ok())?;
            Some((key.clone(), own))
        };
        self.streams.iter().zip(&self.own).filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::group_history::StreamRates;
    use crate::analysis::snapshot::StreamFacts;
    use crate::model::sample::ReadError;

    fn seen(name: &str, readable: bool) -> StreamSnapshot {
        let facts = StreamFacts {
            safe_to_trim: None,
            length: 0,
            groups: 0,
            first: None,
            last: None,
            now_ms: 0,
            entries_added: None,
            rates: StreamRates::default(),
        };
        let read = if readable { Ok(facts) } else { Err(ReadError::Server(String::new())) };
        StreamSnapshot { key: name.into(), read, groups: Vec::new(), groups_left_out: 0 }
    }

    #[test]
    fn streams_that_can_be_read_have_their_own_thresholds_whichever_come_and_go() {
        let thresholds = |degraded| Thresholds { degraded, unhealthy: 10 * degraded };
        let mut rules = ThresholdRules {
            otherwise: thresholds(100),
            by_pattern: vec![("a".to_owned(), thresholds(1)), ("?".to_owned(), thresholds(2))],
        };
        let keys = |names: &[&str]| names.iter().map(|name| StreamKey::from(*name)).collect::<Arc<[_]>>();
        let mut limits = SampleLimits::default();
        let mut check =
            |rules: &ThresholdRules, streams: &Arc<[StreamKey]>, seen: &[StreamSnapshot], expected: &[_]| {
                let of = limits.of(rules, streams, seen);
                let of: Vec<(String, u64)> = of.iter().map(|(key, own)| (key.to_string(), own.degraded)).collect();
                let expected: Vec<(String, u64)> =
                    expected.iter().map(|(key, own): &(&str, u64)| ((*key).to_owned(), *own)).collect();
                assert_eq!(of, expected);
            };
        let all = keys(&["a", "long", "b", "c"]);
        check(
            &rules,
            &all,
            &[seen("a", true), seen("long", true), seen("b", true), seen("c", true)],
            &[("a", 1), ("b", 2), ("c", 2)],
        );
        check(&rules, &all, &[seen("a", false), seen("b", true)], &[("b", 2)]);
        check(&rules, &keys(&["b", "a"]), &[seen("b", true), seen("a", true)], &[("b", 2), ("a", 1)]);
        rules.by_pattern.remove(0);
        check(&rules, &all, &[seen("a", true)], &[("a", 2)]);
        rules.by_pattern.clear();
        check(&rules, &all, &[seen("a", true)], &[]);
    }
}
