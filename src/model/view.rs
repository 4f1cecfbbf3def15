//! What readers see after the newest poll, whether it succeeded or not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::sample::{NodeStatus, SampleError, ServerInfo};
use super::snapshot::{StreamSnapshot, TargetSnapshot};

/// What readers see: the newest good sample while it is fresh, and how the newest poll ended.
#[derive(Clone, Debug)]
pub struct View {
    /// How the newest poll ended; `None` before the first one has.
    pub newest_poll: Option<Result<(), SampleError>>,
    /// The newest good sample; `None` before the first one, and once it is too old to be shown.
    pub fresh: Option<Fresh>,
    /// The local clock at the newest good sample, however old.
    pub last_success: Option<SystemTime>,
    /// Every configured stream, in the order of the configuration: as in `fresh`, or unreadable where that is `None`.
    pub streams: Arc<[StreamSnapshot]>,
    /// How each of several servers answered the newest poll.
    pub nodes: Arc<[NodeStatus]>,
}

/// What a good sample told beside its streams.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Who answered.
    pub server: ServerInfo,
    /// The server's clock at the sample, milliseconds since the Unix epoch.
    pub server_now_ms: u64,
    /// How long the sample's first command took to be answered.
    pub round_trip: Duration,
}

/// What readers see after a poll that Redis answered.
impl From<TargetSnapshot> for View {
    fn from(snapshot: TargetSnapshot) -> Self {
        let TargetSnapshot { server, server_now_ms, round_trip, .. } = snapshot;
        Self {
            newest_poll: Some(Ok(())),
            fresh: Some(Fresh { server, server_now_ms, round_trip }),
            last_success: Some(snapshot.sampled_at),
            streams: snapshot.streams.into(),
            nodes: snapshot.nodes.into(),
        }
    }
}

impl View {
    /// Whether Redis answered the newest poll.
    #[must_use]
    pub fn redis_up(&self) -> bool {
        matches!(self.newest_poll, Some(Ok(())))
    }

    /// The newest poll failed: none of several servers answered it.
    pub fn failed(&mut self, error: SampleError) {
        let down = |node: &NodeStatus| NodeStatus { error: Some(error.to_string()), ..node.clone() };
        self.nodes = self.nodes.iter().map(down).collect();
        self.newest_poll = Some(Err(error));
    }
}
