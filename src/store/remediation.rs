//! Remediation plans, between the task that makes them and the API that shows them and takes decisions.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, oneshot};

use crate::analysis::remediation::{Action, Plan};

/// Decisions that wait while an act is under way; more are told to come again.
const MAX_WAITING: usize = 16;

/// Plans that are remembered after they ended.
pub const MAX_PAST: usize = 100;

/// Who decides where nobody does. No token has this name.
pub const AUTO: &str = "auto";

/// What there is to see.
#[derive(Debug, Default)]
pub struct Board {
    /// Whether remediation is configured.
    pub is_on: bool,
    /// Why nothing is carried out at present.
    pub stopped: Option<String>,
    /// Plans, by target, stream and group.
    pub plans: Vec<OpenPlan>,
    /// How plans ended, the newest first.
    pub past: Vec<PastPlan>,
}

/// A plan that may be carried out.
#[derive(Clone, Debug)]
pub struct OpenPlan {
    /// The plan.
    pub plan: Plan,
    /// The tokens that have approved it; another one is needed.
    pub approved_by: Vec<String>,
    /// Why it is not carried out by itself; `None` where it is about to be.
    pub waits_for: Option<String>,
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was carried out.
    Done,
    /// A precondition did not hold any more: nothing was changed.
    Refused,
    /// It could not be carried out, or not to its end: nothing was changed but for what is told.
    Failed,
    /// Redis did not answer: it may have been carried out or not.
    Unknown,
    /// A person did not want it.
    Rejected,
    /// Its time was over.
    Expired,
    /// What it rested on has changed.
    Void,
}

impl Ending {
    /// Every ending.
    const ALL: [Self; 7] =
        [Self::Done, Self::Refused, Self::Failed, Self::Unknown, Self::Rejected, Self::Expired, Self::Void];

    /// What an act may come to.
    pub const OF_ACTS: [Self; 4] = [Self::Done, Self::Refused, Self::Failed, Self::Unknown];

    /// The word of the API, the metric and the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Void => "void",
        }
    }

    /// The ending of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.as_str() == word)
    }
}

/// A plan that ended, in words: it may be one of before a restart, of which only the record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastPlan {
    /// Its id.
    pub id: String,
    /// What was to be done.
    pub action: Action,
    /// The Redis, the stream and the group.
    pub place: [String; 3],
    /// What it would have done.
    pub what: String,
    /// Why.
    pub why: String,
    /// When it was made, as RFC 3339 has it.
    pub made_at: String,
    /// How it ended.
    pub ending: Ending,
    /// When, as RFC 3339 has it.
    pub at: String,
    /// Who decided: names of tokens, or [`AUTO`]; nobody where it ended by itself.
    pub by: Vec<String>,
    /// Entries or consumers that were changed.
    pub changed: u64,
    /// Why it ended like this.
    pub detail: String,
}

/// What a person decided.
#[derive(Debug)]
pub struct Decision {
    /// The plan's id.
    pub id: String,
    /// Whether it is to be carried out.
    pub approve: bool,
    /// The name of the token.
    pub by: String,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Decided, Undecided>>,
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The plan has ended.
    Ended {
        /// How.
        ending: Ending,
        /// Entries or consumers that were changed.
        changed: u64,
        /// Why.
        detail: String,
    },
    /// Another token has to approve it too.
    OneMore,
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// There is no such plan any more.
    Gone,
    /// Plans of this mode are not carried out.
    NotApprovable,
    /// The same token has approved it before.
    SameToken,
    /// Nothing is carried out at present, and why.
    Stopped(String),
    /// Too many decisions wait.
    Busy,
}

/// Where plans are looked at and decided on.
#[derive(Clone, Debug)]
pub struct Desk {
    board: Arc<ArcSwap<Board>>,
    decisions: mpsc::Sender<Decision>,
}

/// The other side of the desk.
#[derive(Debug)]
pub struct Clerk {
    board: Arc<ArcSwap<Board>>,
    decisions: mpsc::Receiver<Decision>,
}

/// A desk without plans, and its other side.
#[must_use]
pub fn desk() -> (Desk, Clerk) {
    let board = Arc::new(ArcSwap::from_pointee(Board::default()));
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (Desk { board: Arc::clone(&board), decisions: sender }, Clerk { board, decisions: receiver })
}

impl Desk {
    /// What there is to see.
    #[must_use]
    pub fn board(&self) -> Guard<Arc<Board>> {
        self.board.load()
    }

    /// Decides on a plan, and waits until it has been carried out if that is what was decided.
    ///
    /// # Errors
    /// Why nothing was decided.
    pub async fn decide(&self, id: &str, approve: bool, by: &str) -> Result<Decided, Undecided> {
        let (answer, answered) = oneshot::channel();
        let decision = Decision { id: id.to_owned(), approve, by: by.to_owned(), answer };
        self.decisions.try_send(decision).map_err(|_| Undecided::Busy)?;
        answered.await.map_err(|_| Undecided::Busy)?
    }
}

impl Clerk {
    /// The next decision; waits for one.
    pub async fn next(&mut self) -> Decision {
        match self.decisions.recv().await {
            Some(decision) => decision,
            // Nobody is at the desk any more.
            None => std::future::pending().await,
        }
    }

    /// Shows this from now on.
    pub fn show(&self, board: Board) {
        self.board.store(Arc::new(board));
    }
}
