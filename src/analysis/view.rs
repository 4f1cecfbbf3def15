//! What readers see after the newest poll, whether it succeeded or not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::analysis::group_forecast::GroupForecast;
use crate::analysis::incident::Incidents;
use crate::analysis::logical_snapshot::LogicalSnapshot;
use crate::analysis::snapshot::{StreamSnapshot, TargetSnapshot};
use crate::model::StreamKey;
use crate::model::sample::{NodeStatus, RefusedCommand, SampleError, TargetMeta};
use crate::model::thresholds::Thresholds;

/// What readers see: the newest good sample while it is fresh, and how the newest poll ended.
#[derive(Clone, Debug)]
pub struct View {
    /// How the newest poll ended; `None` before the first one has. A poll under way counts as failed once the last sample is too old
    /// to be shown.
    pub newest_poll: Option<Result<(), SampleError>>,
    /// The newest good sample; `None` before the first one, and once it is too old to be shown.
    pub fresh: Option<Fresh>,
    /// The local clock at the newest good sample, however old.
    pub last_success: Option<SystemTime>,
    /// Every stream, the named ones first, then those that patterns found, by name; unreadable where there is no fresh sample.
    pub streams: Arc<[StreamSnapshot]>,
    /// Every logical stream, in the order of the configuration; none where `fresh` is `None`.
    pub logical: Arc<[LogicalSnapshot]>,
    /// The thresholds of streams that can be read and have their own; none where `fresh` is `None`.
    pub thresholds: Arc<[(StreamKey, Thresholds)]>,
    /// The time between polls that is in force: longer than the configured one where that would take too much of Redis's time.
    pub interval: Duration,
    /// How each of several servers answered the newest poll.
    pub nodes: Arc<[NodeStatus]>,
    /// What is wrong, by the rules of `alerts/`.
    pub incidents: Incidents,
    /// What is forecast of groups, where that is configured; none where `fresh` is `None`.
    pub forecasts: Arc<[GroupForecast]>,
}

/// What a good sample told apart from its streams.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// What it told, but for its `nodes`: [`View::nodes`] has them.
    pub meta: TargetMeta,
    /// How many are left out because there are too many.
    pub over: OverLimits,
    /// Whether this is one shard's share of the streams.
    pub is_share: bool,
}

/// How many are left out because there are too many: streams and groups that are not sampled or shown, and consumers that are
/// only summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OverLimits {
    /// Streams.
    pub streams: u64,
    /// Groups.
    pub groups: u64,
    /// Consumers.
    pub consumers: u64,
}

impl OverLimits {
    /// Of these streams; `streams` is how many others there are.
    fn of(streams: u64, sampled: &[StreamSnapshot]) -> Self {
        let overflow = |stream: &StreamSnapshot| -> u64 {
            let groups = stream.groups.iter().filter_map(|group| group.present()?.overflow);
            groups.map(|overflow| overflow.consumers).sum()
        };
        Self {
            streams,
            groups: sampled.iter().map(|stream| stream.groups_left_out).sum(),
            consumers: sampled.iter().map(overflow).sum(),
        }
    }
}

/// What readers see after a poll that Redis answered.
impl From<TargetSnapshot> for View {
    fn from(snapshot: TargetSnapshot) -> Self {
        let TargetSnapshot { mut meta, streams } = snapshot;
        let over = OverLimits::of(meta.streams_left_out, &streams);
        Self {
            newest_poll: Some(Ok(())),
            last_success: Some(meta.sampled_at),
            nodes: std::mem::take(&mut meta.nodes).into(),
            fresh: Some(Fresh { meta, over, is_share: false }),
            streams: streams.into(),
            ..Self::unread(Duration::ZERO)
        }
    }
}

impl View {
    /// Before the first poll has ended: no streams, no samples.
    #[must_use]
    pub fn unread(interval: Duration) -> Self {
        Self {
            newest_poll: None,
            fresh: None,
            last_success: None,
            streams: Vec::new().into(),
            logical: Vec::new().into(),
            thresholds: Arc::default(),
            interval,
            nodes: Arc::default(),
            incidents: Incidents::default(),
            forecasts: Arc::default(),
        }
    }

    /// Whether Redis answered the newest poll, and has not been silent for too long in the one under way.
    #[must_use]
    pub fn redis_up(&self) -> bool {
        matches!(self.newest_poll, Some(Ok(())))
    }

    /// Why there may be more to watch than is watched: what is not watched is not called healthy.
    fn unwatched(&self) -> Vec<String> {
        let mut why: Vec<String> = self.nodes.iter().filter_map(|node| Some(node.why()?.to_string())).collect();
        let Some(fresh) = &self.fresh else { return why };
        // One share of few streams may be none.
        if self.streams.is_empty() && !fresh.is_share {
            why.push("no stream is watched: patterns have found none, or all are excluded".to_owned());
        }
        if fresh.meta.refused.contains(&RefusedCommand::Scan) {
            let (command, without) = RefusedCommand::Scan.describe();
            why.push(format!("Redis refuses {command}: {without}"));
        } else if fresh.meta.search.is_some_and(|search| search.completed.is_none()) {
            why.push("the first search for streams that match a pattern has not ended yet".to_owned());
        }
        let OverLimits { streams, groups, .. } = fresh.over;
        if streams > 0 {
            why.push(format!("streams over limit.streams, which nobody watches: {streams}"));
        }
        if groups > 0 {
            why.push(format!("groups over limit.groups, which nobody watches: {groups}"));
        }
        why
    }

    /// What is wrong: with the newest poll, or with what is watched. `None` where nothing is.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match &self.newest_poll {
            Some(Err(error)) => Some(error.to_string()),
            Some(Ok(())) | None => Some(self.unwatched().join("; ")).filter(|why| !why.is_empty()),
        }
    }

    /// The newest poll failed: none of several servers answered it.
    pub fn failed(&mut self, error: SampleError) {
        let down = |node: &NodeStatus| NodeStatus { error: Some(error.to_string()), ..node.clone() };
        self.nodes = self.nodes.iter().map(down).collect();
        self.newest_poll = Some(Err(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::snapshot::tests::stream_facts;
    use crate::model::FailureReason;

    #[test]
    fn what_nobody_watches_is_told_and_a_failed_poll_alone() {
        let check = |streams_left_out, groups_left_out, expected: &[&str]| {
            let meta = TargetMeta { streams_left_out, ..TargetMeta::at(SystemTime::UNIX_EPOCH) };
            let stream =
                StreamSnapshot { key: "s".into(), read: Ok(stream_facts()), groups: Vec::new(), groups_left_out };
            let mut view = View::from(TargetSnapshot { meta, streams: vec![stream] });
            assert_eq!(view.error(), (!expected.is_empty()).then(|| expected.join("; ")));
            view.failed(SampleError { reason: FailureReason::Connect, detail: "refused".to_owned() });
            assert_eq!(view.error().as_deref(), Some("refused"));
        };
        let streams = "streams over limit.streams, which nobody watches: 3";
        let groups = "groups over limit.groups, which nobody watches: 2";
        check(0, 0, &[]);
        check(3, 0, &[streams]);
        check(0, 2, &[groups]);
        check(3, 2, &[streams, groups]);
        assert_eq!(View::unread(Duration::ZERO).error(), None);
    }

    #[test]
    fn a_share_of_few_streams_may_be_none() {
        let meta = || TargetMeta::at(SystemTime::UNIX_EPOCH);
        let mut view = View::from(TargetSnapshot { meta: meta(), streams: Vec::new() });
        assert!(view.unwatched()[0].starts_with("no stream is watched"), "{:?}", view.unwatched());
        view.fresh.as_mut().unwrap().is_share = true;
        assert_eq!(view.unwatched(), [""; 0]);
    }

    #[test]
    fn a_good_sample_is_shown_with_its_time_and_its_nodes() {
        let sampled_at = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
        let node = NodeStatus { address: "h:1".to_owned(), streams: 3, error: None };
        let meta = TargetMeta { nodes: vec![node.clone()], streams_left_out: 2, ..TargetMeta::at(sampled_at) };
        let view = View::from(TargetSnapshot { meta, streams: Vec::new() });
        assert!(view.redis_up() && !View::unread(Duration::ZERO).redis_up());
        assert_eq!((view.last_success, &*view.nodes), (Some(sampled_at), &[node][..]));
        let fresh = view.fresh.unwrap();
        assert_eq!((fresh.over.streams, fresh.is_share, fresh.meta.nodes.len()), (2, false, 0));
    }
}
