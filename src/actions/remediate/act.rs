//! One act in Redis: one script.

use std::sync::LazyLock;

use redis::{ErrorKind, RedisResult, Script};

use super::connection::{Doer, bounded, described};
use crate::analysis::remediation::{Plan, PlanSubject};
use crate::store::remediation::Ending;

/// What a script has in common with the others stands before it.
macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $file))))
        })
    };
}

static DELETE_IDLE_CONSUMERS: LazyLock<Script> = script!("delete_idle_consumers.lua");
static RELEASE: LazyLock<Script> = script!("release.lua");
static DROP_GHOSTS: LazyLock<Script> = script!("drop_ghosts.lua");
static DEAD_LETTER: LazyLock<Script> = script!("dead_letter.lua");

/// What an act came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActOutcome {
    pub(super) ending: Ending,
    /// Entries or consumers that were changed.
    pub(super) changed: u64,
    /// Pending entries without payload that the script saw and left.
    pub(super) ghosts: u64,
    pub(super) detail: String,
}

impl ActOutcome {
    pub(super) fn of(ending: Ending, detail: String) -> Self {
        Self { ending, changed: 0, ghosts: 0, detail }
    }

    /// Whether Redis may not be as it was.
    pub(super) fn may_have_changed(&self) -> bool {
        matches!(self.ending, Ending::Done | Ending::Unknown) || self.changed > 0
    }
}

/// Carries out a plan in Redis. Waits for Redis, within the limits of [`Doer::connect`].
pub(super) fn act(doer: &Doer, plan: &Plan) -> ActOutcome {
    let mut connection = match doer.connect() {
        Ok(connection) => connection,
        Err(error) => return ActOutcome::of(Ending::Failed, error.to_string()),
    };
    let script = match &plan.subject {
        PlanSubject::Consumer { to: None, .. } => &DELETE_IDLE_CONSUMERS,
        PlanSubject::Consumer { .. } => &RELEASE,
        PlanSubject::Ghosts { .. } => &DROP_GHOSTS,
        PlanSubject::Entry { .. } => &DEAD_LETTER,
        PlanSubject::Group { .. } => {
            return ActOutcome::of(Ending::Failed, "there is nothing to do in Redis".to_owned());
        }
    };
    let (stream, group) = (plan.stream.as_bytes(), plan.group.as_bytes());
    let mut call = script.key(stream);
    call.arg(group).arg(plan.evidence.last_delivered.to_string());
    match &plan.subject {
        PlanSubject::Consumer { name, idle_ms, to: None, .. } => {
            call.arg(name.as_bytes()).arg(*idle_ms);
        }
        PlanSubject::Consumer { name, idle_ms, pending, to: Some(to) } => {
            call.arg(name.as_bytes()).arg(*idle_ms).arg(*pending).arg(to.as_bytes()).arg(plan.entries);
        }
        PlanSubject::Ghosts { count } => {
            call.arg(plan.entries.min(*count));
        }
        PlanSubject::Entry { id, owner, deliveries } => {
            let Some(to) = &plan.dead_letter else {
                return ActOutcome::of(Ending::Failed, "there is no dead-letter stream".to_owned());
            };
            let idle = u64::try_from(to.idle.as_millis()).unwrap_or(u64::MAX);
            call.key(to.stream.as_bytes());
            call.arg(id.to_string()).arg(owner.as_bytes()).arg(*deliveries).arg(idle);
            call.arg(format!("delivered {deliveries} times and not acknowledged"));
        }
        PlanSubject::Group { .. } => {}
    }
    outcome_of(call.invoke(connection.as_like()))
}

/// What the answer of a script says.
fn outcome_of(answer: RedisResult<(String, String, u64, u64)>) -> ActOutcome {
    let error = match answer {
        Ok((word, detail, changed, ghosts)) => {
            let ending = match word.as_str() {
                "done" => Ending::Done,
                "refused" => Ending::Refused,
                // A write after the first one: what was changed before it stays so.
                "failed" => Ending::Failed,
                _ => return ActOutcome::of(Ending::Unknown, "the answer of the script is not understood".to_owned()),
            };
            return ActOutcome { ending, changed, ghosts, detail: bounded(&detail) };
        }
        Err(error) => error,
    };
    match error.kind() {
        // What the server has against it comes before anything is changed, or else scripts tell of it.
        ErrorKind::Server(_) | ErrorKind::Extension => ActOutcome::of(Ending::Failed, described(&error)),
        // It may have been carried out, and the answer lost or not understood.
        _ => ActOutcome::of(Ending::Unknown, described(&error)),
    }
}
