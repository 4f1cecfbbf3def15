//! Remediation: what could be done about a group that is sick, and why. A plan changes nothing; [`crate::actions`] acts on it.

mod planner;
mod text;

use std::time::{Duration, SystemTime};

use crate::analysis::group_state::GroupState;
use crate::model::{ConsumerName, EntryId, GroupName, StreamKey, TargetName, glob};

pub use planner::{Ended, Planner};

/// How long a plan may be approved: what was true is then too old.
pub const PLAN_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Entries that one act touches where no budget says otherwise.
pub const DEFAULT_ENTRIES: u64 = 100;

/// The share of a group's consumers that must be healthy before anything is done without a person, in percent: where most look sick, the
/// watcher may be wrong.
pub const MIN_HEALTHY_PERCENT: u64 = 51;

/// A kind of act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Delete a consumer that is dead and holds nothing.
    DeleteIdleConsumers,
    /// Acknowledge pending entries whose payload is gone.
    DropGhosts,
    /// Hand the pending entries of a dead consumer to a living one, with their idle time, so that the application can claim them.
    Release,
    /// Move an entry that was delivered too often to another stream.
    DeadLetter,
    /// Call a webhook.
    Hook,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] =
        [Self::DeleteIdleConsumers, Self::DropGhosts, Self::Release, Self::DeadLetter, Self::Hook];

    /// The word of the configuration, the API, the metric and the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeleteIdleConsumers => "delete_idle_consumers",
            Self::DropGhosts => "drop_ghosts",
            Self::Release => "release",
            Self::DeadLetter => "dead_letter",
            Self::Hook => "hook",
        }
    }

    /// The action of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    /// Whether it changes who holds entries.
    #[must_use]
    pub fn moves_entries(self) -> bool {
        matches!(self, Self::DropGhosts | Self::Release | Self::DeadLetter)
    }
}

/// Who decides that a plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemediationMode {
    /// No plans are made.
    Off,
    /// Plans are shown, and never carried out.
    Plan,
    /// A person does.
    Approve,
    /// Nobody needs to, within the budget.
    Auto,
}

impl RemediationMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Off, Self::Plan, Self::Approve, Self::Auto];

    /// The mode of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    /// The word of the configuration and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Plan => "plan",
            Self::Approve => "approve",
            Self::Auto => "auto",
        }
    }
}

/// How much may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Acts per group and hour that nobody approved.
    pub acts_per_hour: u64,
    /// Entries that one act may touch.
    pub entries_per_act: u64,
}

/// When and where an entry is moved that cannot be processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stream that takes them.
    pub stream: StreamKey,
    /// Deliveries that an entry must have had.
    pub deliveries: u64,
    /// How long its last delivery must be ago.
    pub idle: Duration,
}

/// What may be done for which groups. Of several rules that match, the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemediationRule {
    /// A glob over targets.
    pub target: String,
    /// A glob over streams.
    pub stream: String,
    /// A glob over groups.
    pub group: String,
    /// Who decides.
    pub mode: RemediationMode,
    /// What may be planned.
    pub actions: Vec<Action>,
    /// How much may be done; `None` where nothing is done without a person.
    pub budget: Option<Budget>,
    /// For [`Action::DeadLetter`].
    pub dead_letter: Option<DeadLetter>,
    /// The place of its webhook among those of the configuration, for [`Action::Hook`].
    pub hook: Option<usize>,
}

impl RemediationRule {
    fn matches(&self, target: &TargetName, stream: &StreamKey, group: &GroupName) -> bool {
        glob::matches(self.target.as_bytes(), target.as_str().as_bytes())
            && glob::matches(self.stream.as_bytes(), stream.as_bytes())
            && glob::matches(self.group.as_bytes(), group.as_bytes())
    }

    /// Entries that one act may touch.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.budget.map_or(DEFAULT_ENTRIES, |budget| budget.entries_per_act)
    }
}

/// What a plan is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanSubject {
    /// A dead consumer.
    Consumer {
        /// Its name.
        name: ConsumerName,
        /// Entries that it holds.
        pending: u64,
        /// Milliseconds for which it did nothing.
        idle_ms: u64,
        /// Who takes over what it holds; `None` where it holds nothing.
        to: Option<ConsumerName>,
    },
    /// Pending entries whose payload is gone.
    Ghosts {
        /// How many there are at least.
        count: u64,
    },
    /// A pending entry.
    Entry {
        /// Its id.
        id: EntryId,
        /// Who holds it.
        owner: ConsumerName,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// The whole group.
    Group {
        /// Its state.
        state: GroupState,
        /// Dead consumers that hold entries.
        dead: u64,
    },
}

impl PlanSubject {
    /// Whether what was seen later is the same, so that a plan for it holds.
    fn still(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::Consumer { pending, idle_ms, .. }, Self::Consumer { pending: now, idle_ms: idle_now, .. }) => {
                pending == now && idle_now >= idle_ms
            }
            (Self::Ghosts { count }, Self::Ghosts { count: now }) => now >= count,
            (Self::Group { state, .. }, Self::Group { state: now, .. }) => state == now,
            (one, other) => one == other,
        }
    }

    /// What tells it from other subjects of the same group and action.
    fn key(&self) -> String {
        match self {
            Self::Consumer { name, .. } => name.to_string(),
            Self::Entry { id, .. } => id.to_string(),
            Self::Ghosts { .. } | Self::Group { .. } => String::new(),
        }
    }
}

/// What a plan rests on beside its subject.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanEvidence {
    /// The group's state.
    pub state: GroupState,
    /// Its lag.
    pub lag: u64,
    /// Its pending entries, where they are known.
    pub pending: Option<u64>,
    /// Its cursor.
    pub last_delivered: EntryId,
    /// Its consumers, and how many of them are alive for certain; `None` where they are not all known.
    pub consumers: Option<(u64, u64)>,
    /// When the subject was first seen like this. It was seen again before there was a plan.
    pub first_seen: SystemTime,
}

/// What could be done, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it is approved by: hexadecimal digits.
    pub id: String,
    /// The Redis.
    pub target: TargetName,
    /// The stream.
    pub stream: StreamKey,
    /// The group.
    pub group: GroupName,
    /// What would be done.
    pub action: Action,
    /// What it would be done to.
    pub subject: PlanSubject,
    /// What it rests on.
    pub evidence: PlanEvidence,
    /// Who decides.
    pub mode: RemediationMode,
    /// Entries that the act may touch.
    pub entries: u64,
    /// How much may be done without a person.
    pub budget: Option<Budget>,
    /// For [`Action::DeadLetter`].
    pub dead_letter: Option<DeadLetter>,
    /// For [`Action::Hook`].
    pub hook: Option<usize>,
    /// When it was made.
    pub made_at: SystemTime,
    /// When it ends.
    pub expires: SystemTime,
}

impl Plan {
    /// The names of its target, stream and group.
    #[must_use]
    pub fn place(&self) -> [String; 3] {
        [self.target.to_string(), self.stream.to_string(), self.group.to_string()]
    }

    /// Whether enough of the group is healthy for something to be done without a person.
    #[must_use]
    pub fn is_group_healthy(&self) -> bool {
        self.evidence
            .consumers
            .is_some_and(|(all, healthy)| all > 0 && healthy.saturating_mul(100) >= all * MIN_HEALTHY_PERCENT)
    }
}

#[cfg(test)]
mod tests;
