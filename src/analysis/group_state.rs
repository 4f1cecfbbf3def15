//! What state a group is in: Burrow's evaluator made for Redis. Verdicts come without thresholds on the lag, from how
//! things went over a window of samples, never from a single one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::analysis::window::{Streak, Windows};
use crate::model::EntryId;
use crate::model::lag::Lag;
use crate::model::text;

/// The share of the window for which a state's rule must have failed before the state is left, so that it does not flap.
const HYSTERESIS: u32 = 2;

/// The state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Nothing is wrong.
    Ok,
    /// The lag never fell over the window.
    Lagging,
    /// There is lag, the cursor stands still, and consumers are alive.
    Stalled,
    /// There is lag, the cursor stands still, and no consumer is alive.
    Stopped,
    /// Entries are delivered and the oldest pending one stays the same.
    AckStalled,
    /// Entries were lost in the window.
    Losing,
    /// The cursor moved back.
    Rewound,
    /// The group is monitored and does not exist.
    NoGroup,
}

impl GroupState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Lagging,
        Self::Stalled,
        Self::Stopped,
        Self::AckStalled,
        Self::Losing,
        Self::Rewound,
        Self::NoGroup,
    ];

    /// The word that the API and the metric use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
            Self::AckStalled => "ack_stalled",
            Self::Losing => "losing",
            Self::Rewound => "rewound",
            Self::NoGroup => "no_group",
        }
    }

    /// Whether having no lag ends it at once.
    fn ends_without_lag(self) -> bool {
        matches!(self, Self::Lagging | Self::Stalled | Self::Stopped)
    }
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::analysis) struct StateEvidence {
    pub(in crate::analysis) at: Duration,
    pub(in crate::analysis) lag: Lag,
    pub(in crate::analysis) cursor: EntryId,
    pub(in crate::analysis) consumers: u64,
    /// Consumers that are alive; `None` where Redis does not tell.
    pub(in crate::analysis) alive: Option<u64>,
    pub(in crate::analysis) pending: u64,
    pub(in crate::analysis) oldest_pending: Option<EntryId>,
    /// When entries were last lost, and how many.
    pub(in crate::analysis) lost: Option<(Duration, u64)>,
    /// When the cursor last moved back, and from where.
    pub(in crate::analysis) rewound: Option<(Duration, EntryId)>,
    pub(in crate::analysis) behind: Streak,
    pub(in crate::analysis) still: Streak,
    pub(in crate::analysis) not_fallen: Streak,
    /// The lag when it last fell.
    pub(in crate::analysis) not_fallen_from: Lag,
    pub(in crate::analysis) oldest_pending_still: Streak,
}

impl StateEvidence {
    /// The state whose rule holds now; the graver ones come first.
    fn state(&self, windows: &Windows) -> GroupState {
        let within = |when: Duration| self.at.saturating_sub(when) < windows.window;
        let fills = |streak: &Streak| streak.fills(self.at, windows);
        let stands = fills(&self.behind) && fills(&self.still);
        // Lags that are not exact prove it where even the least now is no less than the most then.
        let no_less = self.lag.min >= self.not_fallen_from.max;
        let lagging = no_less && fills(&self.not_fallen) && fills(&self.behind);
        if self.lost.is_some_and(|(when, _)| within(when)) {
            GroupState::Losing
        } else if self.rewound.is_some_and(|(when, _)| within(when)) {
            GroupState::Rewound
        } else if stands && self.alive.unwrap_or(self.consumers) == 0 {
            GroupState::Stopped
        } else if stands {
            GroupState::Stalled
        } else if lagging {
            // Before the next: one entry that no consumer can process, pending for ever, must not hide this.
            GroupState::Lagging
        } else if self.pending > 0 && fills(&self.oldest_pending_still) {
            GroupState::AckStalled
        } else {
            GroupState::Ok
        }
    }
}

/// The state that is told, which is left only when its rule has failed for a while.
#[derive(Debug)]
pub(in crate::analysis) struct StateMachine {
    state: GroupState,
    /// Since when it is told, by the server's clock, in milliseconds since the Unix epoch.
    since: Option<u64>,
    /// Since when its rule has failed.
    failing: Option<Duration>,
    /// What it rested on when it last held; of `ok`, which rests on nothing, not kept.
    held: Option<Arc<StateEvidence>>,
}

impl StateMachine {
    pub(in crate::analysis) fn new() -> Self {
        Self { state: GroupState::Ok, since: None, failing: None, held: None }
    }

    pub(in crate::analysis) fn judge(&mut self, evidence: StateEvidence, windows: &Windows, now: u64) -> Verdict {
        let (at, found) = (evidence.at, evidence.state(windows));
        if found == self.state {
            self.failing = None;
        } else {
            let failing = *self.failing.get_or_insert(at);
            let over = self.state.ends_without_lag() && evidence.lag.max == 0;
            // Every rule but that of `ok` has a window behind it already, or an event that cannot be mistaken.
            let leaves = found != GroupState::Ok || over || at.saturating_sub(failing) >= windows.window / HYSTERESIS;
            if leaves {
                *self = Self { state: found, since: Some(now), failing: None, held: None };
            }
        }
        let lag = evidence.lag;
        self.held = match self.state {
            GroupState::Ok => None,
            _ => self.held.take().filter(|_| self.failing.is_some()).or_else(|| Some(Arc::new(evidence))),
        };
        let since = *self.since.get_or_insert(now);
        let failing = self.failing.map(|since| at.saturating_sub(since));
        let leaves_after = windows.window / HYSTERESIS;
        Verdict { state: self.state, since, lag, failing, leaves_after, evidence: self.held.clone() }
    }
}

/// A group's state and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: GroupState,
    /// Since when it is told, by the server's clock, in milliseconds since the Unix epoch.
    pub since: u64,
    lag: Lag,
    /// For how long its rule has failed.
    failing: Option<Duration>,
    leaves_after: Duration,
    /// What it rests on, as of when its rule last held; nothing where nothing is wrong.
    evidence: Option<Arc<StateEvidence>>,
}

/// The rule that decided, and the evidence, in a sentence.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.evidence {
            Some(evidence) => self.state.write(f, evidence)?,
            None if self.lag.max == 0 => write!(f, "nothing undelivered")?,
            None => write!(f, "{}; no rule has held for a whole window", lag_text(self.lag))?,
        }
        match self.failing {
            Some(failing) => write!(
                f,
                " (no longer so for {} s; told until that has lasted {} s)",
                failing.as_secs(),
                self.leaves_after.as_secs()
            ),
            None => Ok(()),
        }
    }
}

impl GroupState {
    /// What a state rests on, in a sentence.
    fn write(self, f: &mut fmt::Formatter<'_>, e: &StateEvidence) -> fmt::Result {
        let seconds = |since: Duration| e.at.saturating_sub(since).as_secs();
        let held = |streak: &Streak| format!("for {} s, {} samples", seconds(streak.since), streak.samples);
        let alive = match e.alive {
            Some(alive) => format!("{alive} of {} consumers alive", e.consumers),
            None => {
                text::count(e.consumers, "consumer, which Redis does not show", "consumers, which Redis does not show")
            }
        };
        match self {
            Self::Ok => Ok(()),
            Self::Lagging => write!(
                f,
                "the lag has not fallen {}: it was {}, now {}",
                held(&e.not_fallen),
                amount(e.not_fallen_from),
                amount(e.lag)
            ),
            Self::Stalled | Self::Stopped => {
                let so = if self == Self::Stopped { "and nobody reads" } else { "though there are readers" };
                write!(f, "{}, cursor still at {} {} {so}: {alive}", lag_text(e.lag), e.cursor, held(&e.still))
            }
            Self::AckStalled => {
                let oldest = e.oldest_pending.map_or_else(|| "acknowledged by now".to_owned(), |id| id.to_string());
                let held = held(&e.oldest_pending_still);
                write!(f, "{} pending, the oldest of them the same {held}: {oldest}; {alive}", e.pending)
            }
            Self::Losing => {
                let (when, lost) = e.lost.unwrap_or_default();
                write!(
                    f,
                    "at least {} gone undelivered, found {} s ago; {}",
                    text::count(lost, "entry", "entries"),
                    seconds(when),
                    lag_text(e.lag)
                )
            }
            Self::Rewound => {
                let (when, from) = e.rewound.unwrap_or_default();
                write!(f, "the cursor moved back from {from} {} s ago; it is at {}", seconds(when), e.cursor)
            }
            Self::NoGroup => write!(f, "the group does not exist"),
        }
    }
}

fn lag_text(lag: Lag) -> String {
    format!("lag {}", amount(lag))
}

fn amount(lag: Lag) -> String {
    if lag.uncertainty() == 0 { lag.point.to_string() } else { format!("{} to {}", lag.min, lag.max) }
}
