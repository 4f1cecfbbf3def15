//! What scalers are told of the simulated stream: streamlag's own code, and KEDA's redis-streams rule.

use std::time::{Duration, SystemTime};

use streamlag::analysis::assess::{Assessor, Bounds};
use streamlag::analysis::scaling::{CONSUMERS_TARGET, DEFAULT_LOOK_AHEAD, ScaledStreams, Scaler, Signal};
use streamlag::analysis::view::View;
use streamlag::analysis::window::Windows;
use streamlag::model::lag::{Continuity, Lag, Resolved};
use streamlag::model::reply::{ConsumerReply, StreamReply};
use streamlag::model::sample::{GroupSample, StreamSample, TargetMeta, TargetSample};
use streamlag::model::{EntryId, GroupName, GroupSelection, StreamKey};

use super::autoscaler::Answer;
use super::world::World;

/// Seconds between polls: the default of `--poll.interval`.
const POLL_SECONDS: u64 = 5;

/// The simulation begins at a time of which ids can be.
const BEGINS_MS: u64 = 1_800_000_000_000;

const STREAM: &str = "s";
const GROUP: &str = "g";

/// By what is scaled.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Rule {
    /// streamlag's recommended consumers.
    Consumers,
    /// One of streamlag's signals that count entries.
    Entries(Signal, Target),
    /// KEDA's redis-streams scaler with `lagCount`: the server's lag, and where it has none −1, which KEDA takes for 0.
    Keda(Target),
}

/// How many entries one replica should have before it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// A quarter of what it does within the drain target.
    Low,
    /// All of that.
    High,
}

pub(crate) const RULES: [Rule; 7] = [
    Rule::Consumers,
    Rule::Entries(Signal::Work, Target::Low),
    Rule::Entries(Signal::Work, Target::High),
    Rule::Entries(Signal::Lag, Target::Low),
    Rule::Entries(Signal::Lag, Target::High),
    Rule::Keda(Target::Low),
    Rule::Keda(Target::High),
];

impl Rule {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Consumers => "`consumers`",
            Self::Entries(Signal::Work, Target::Low) => "`work`, low target",
            Self::Entries(Signal::Work, Target::High) => "`work`, high",
            Self::Entries(_, Target::Low) => "`lag`, low",
            Self::Entries(_, Target::High) => "`lag`, high",
            Self::Keda(Target::Low) => "KEDA's rule, low",
            Self::Keda(Target::High) => "KEDA's rule, high",
        }
    }

    fn signal(self) -> Option<Signal> {
        match self {
            Self::Consumers => Some(Signal::Consumers),
            Self::Entries(signal, _) => Some(signal),
            Self::Keda(_) => None,
        }
    }
}

/// A scaler of one rule.
pub(crate) struct Teller {
    rule: Rule,
    assessor: Assessor,
    windows: Windows,
    view: Option<View>,
    pub(crate) target: f64,
}

impl Teller {
    pub(crate) fn new(rule: Rule, world: &World) -> Self {
        let selection = GroupSelection::new(vec![GROUP.to_owned()]);
        // The defaults of `--group.window`, `--group.window-samples` and `--consumer.dead-after`.
        let windows = Windows {
            window: Duration::from_secs(30),
            samples: 6,
            dead_after: Duration::from_secs(60),
            drain_target: Duration::from_secs(world.workload.drain_target),
        };
        Self {
            rule,
            assessor: Assessor::new(vec![StreamKey::from(STREAM)], selection, windows, Bounds::default()),
            windows,
            view: None,
            target: match rule {
                Rule::Consumers => CONSUMERS_TARGET,
                Rule::Entries(_, Target::Low) | Rule::Keda(Target::Low) => world.workload.low_target(),
                Rule::Entries(_, Target::High) | Rule::Keda(Target::High) => world.workload.high_target(),
            },
        }
    }

    /// streamlag polls.
    pub(crate) fn poll(&mut self, world: &World) {
        if self.rule.signal().is_some() && world.now.is_multiple_of(POLL_SECONDS) {
            let at = Duration::from_secs(world.now);
            self.view = Some(View::from(self.assessor.assess(sample(world), at)));
        }
    }

    /// What the scaler answers now.
    pub(crate) fn ask(&self, world: &World) -> Answer {
        let Some(signal) = self.rule.signal() else { return Some(world.server_lag().map_or(0.0, |lag| lag as f64)) };
        let scaler = Scaler {
            streams: ScaledStreams::named(StreamKey::from(STREAM)),
            group: GroupName::from(GROUP),
            signal,
            target: self.target,
            look_ahead: DEFAULT_LOOK_AHEAD,
        };
        let demand = scaler.demand(self.view.as_ref()?, self.windows.drain_target);
        demand.ok().map(|demand| demand.value as f64)
    }
}

/// What a poll reads, with the lag as streamlag finds it on a real server: exactly.
fn sample(world: &World) -> TargetSample {
    let now_ms = BEGINS_MS + world.now * 1000;
    let id = |entry: u64| {
        let added = world.added_at(entry)?;
        Some(EntryId { ms: BEGINS_MS + added * 1000, seq: entry })
    };
    let newest = world.added().checked_sub(1).and_then(id);
    let is_empty = world.first == world.added();
    let members = world.consumers.iter().filter(|consumer| consumer.starts_in == 0).map(|consumer| ConsumerReply {
        name: format!("c-{:06}", consumer.name).as_str().into(),
        pending: Some(consumer.held.len() as u64),
        idle_ms: Some((world.now - consumer.read_at) * 1000),
        inactive_ms: None,
    });
    let members: Vec<ConsumerReply> = members.collect();
    let oldest = world.consumers.iter().filter_map(|consumer| consumer.held.front().copied()).min();
    let lag = world.lag();
    let group = GroupSample {
        name: GROUP.into(),
        consumers: members.len() as u64,
        pending: world.pending(),
        last_delivered: world.cursor.checked_sub(1).and_then(id).unwrap_or_default(),
        entries_read: Some(world.cursor),
        oldest_pending: oldest.and_then(id),
        resolved: Some(Resolved {
            lag: Lag { min: lag, max: lag, point: lag },
            oldest_undelivered: id(world.cursor.max(world.first)),
            ..Resolved::default()
        }),
        members: Some(members),
        ..GroupSample::default()
    };
    let stream = StreamSample {
        reply: StreamReply {
            length: world.added() - world.first,
            first: if is_empty { None } else { id(world.first) },
            last: if is_empty { None } else { newest },
            last_generated: newest.unwrap_or_default(),
            entries_added: Some(world.added()),
            max_deleted: Some(EntryId::default()),
            ..StreamReply::default()
        },
        continuity: if world.now <= POLL_SECONDS { Continuity::Unknown } else { Continuity::Continuous },
        now_ms,
        groups: vec![group],
        ..StreamSample::default()
    };
    let meta = TargetMeta::at(SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms));
    TargetSample { meta, streams: vec![(STREAM.into(), Ok(stream))], redis_time: Duration::ZERO }
}
