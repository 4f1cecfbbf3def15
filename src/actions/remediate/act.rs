//! One act in Redis: one script.

use std::sync::LazyLock;

use redis::{ErrorKind, Script};

use super::connection::{Doer, described};
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
    pub(super) detail: String,
}

impl ActOutcome {
    pub(super) fn of(ending: Ending, detail: String) -> Self {
        Self { ending, changed: 0, detail }
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
    match call.invoke::<(String, String, u64)>(connection.as_like()) {
        Ok((word, _, changed)) if word == "done" => ActOutcome { ending: Ending::Done, changed, detail: String::new() },
        Ok((_, why, _)) => ActOutcome::of(Ending::Refused, why),
        // It may have been carried out, and the answer lost or not understood.
        Err(error)
            if error.is_io_error()
                || error.is_timeout()
                || error.is_connection_dropped()
                || matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) =>
        {
            ActOutcome::of(Ending::Unknown, described(&error))
        }
        Err(error) => ActOutcome::of(Ending::Failed, described(&error)),
    }
}
