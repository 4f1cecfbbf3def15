//! `GET /api/v1/remediation`, and what decisions are answered.

use std::borrow::Cow;

use serde::Serialize;

use crate::analysis::remediation::{Plan, PlanSubject};
use crate::http::tokens::Token;
use crate::model::text::rfc3339;
use crate::store::remediation::{Board, Ending, OpenPlan, PastPlan};

#[derive(Serialize)]
struct BoardView<'a> {
    enabled: bool,
    stopped: Option<&'a str>,
    token: Option<&'a str>,
    may_decide: bool,
    plans: Vec<OpenRow<'a>>,
    history: Vec<PastRow<'a>>,
}

#[derive(Serialize)]
struct OpenRow<'a> {
    #[serde(flatten)]
    plan: PlanRow<'a>,
    mode: &'static str,
    changes: &'static str,
    keeps: &'static str,
    evidence: EvidenceRow<'a>,
    expires_at: String,
    approved_by: &'a [String],
    waits_for: Option<&'a str>,
}

#[derive(Serialize)]
struct PastRow<'a> {
    #[serde(flatten)]
    plan: PlanRow<'a>,
    outcome: &'static str,
    ended_at: &'a str,
    by: &'a [String],
    changed: u64,
    detail: &'a str,
}

#[derive(Serialize)]
struct PlanRow<'a> {
    id: &'a str,
    action: &'static str,
    redis_target: &'a str,
    stream: Cow<'a, str>,
    consumer_group: Cow<'a, str>,
    what: Cow<'a, str>,
    why: Cow<'a, str>,
    made_at: Cow<'a, str>,
}

#[derive(Serialize)]
struct EvidenceRow<'a> {
    state: &'static str,
    lag: u64,
    pending: Option<u64>,
    consumers: Option<u64>,
    alive_consumers: Option<u64>,
    first_seen_at: String,
    consumer: Option<Cow<'a, str>>,
    consumer_pending: Option<u64>,
    consumer_idle_seconds: Option<f64>,
    taken_over_by: Option<Cow<'a, str>>,
    ghosts: Option<u64>,
    entry: Option<String>,
    deliveries: Option<u64>,
}

#[derive(Serialize)]
struct DecidedView<'a> {
    id: &'a str,
    outcome: &'static str,
    changed: u64,
    detail: &'a str,
}

/// All plans, how past ones ended, and whether who asks may decide on them: one with this token, or with none.
#[must_use]
pub fn board<'a>(board: &'a Board, token: Option<&'a Token>) -> impl Serialize + use<'a> {
    BoardView {
        enabled: board.is_on,
        stopped: board.stopped.as_deref(),
        token: token.map(|token| token.name.as_str()),
        may_decide: token.is_some_and(|token| token.may_remediate),
        plans: board.plans.iter().map(open).collect(),
        history: board.past.iter().map(past).collect(),
    }
}

/// What became of a plan.
#[must_use]
pub fn decided<'a>(id: &'a str, ending: Ending, changed: u64, detail: &'a str) -> impl Serialize + use<'a> {
    DecidedView { id, outcome: ending.as_str(), changed, detail }
}

/// The answer to the first of two approvals.
#[must_use]
pub fn one_more(id: &str) -> impl Serialize + use<'_> {
    DecidedView {
        id,
        outcome: "approved_once",
        changed: 0,
        detail: "another token with scope:remediate must approve it too",
    }
}

fn open(open: &OpenPlan) -> OpenRow<'_> {
    OpenRow {
        plan: row(&open.plan),
        mode: open.plan.mode.as_str(),
        changes: open.plan.changes(),
        keeps: open.plan.keeps(),
        evidence: evidence(&open.plan),
        expires_at: rfc3339(open.plan.expires),
        approved_by: &open.approved_by,
        waits_for: open.waits_for.as_deref(),
    }
}

fn past(past: &PastPlan) -> PastRow<'_> {
    let [redis_target, stream, consumer_group] = past.place.each_ref().map(String::as_str);
    let plan = PlanRow {
        id: &past.id,
        action: past.action.as_str(),
        redis_target,
        stream: stream.into(),
        consumer_group: consumer_group.into(),
        what: past.what.as_str().into(),
        why: past.why.as_str().into(),
        made_at: past.made_at.as_str().into(),
    };
    PastRow {
        plan,
        outcome: past.ending.as_str(),
        ended_at: &past.at,
        by: &past.by,
        changed: past.changed,
        detail: &past.detail,
    }
}

fn row(plan: &Plan) -> PlanRow<'_> {
    PlanRow {
        id: &plan.id,
        action: plan.action.as_str(),
        redis_target: plan.target.as_str(),
        stream: plan.stream.display_name(),
        consumer_group: plan.group.display_name(),
        what: plan.what().into(),
        why: plan.why().into(),
        made_at: rfc3339(plan.made_at).into(),
    }
}

fn evidence(plan: &Plan) -> EvidenceRow<'_> {
    let evidence = &plan.evidence;
    let (consumers, alive) = evidence.consumers.unzip();
    let mut row = EvidenceRow {
        state: evidence.state.as_str(),
        lag: evidence.lag,
        pending: evidence.pending,
        consumers,
        alive_consumers: alive,
        first_seen_at: rfc3339(evidence.first_seen),
        consumer: None,
        consumer_pending: None,
        consumer_idle_seconds: None,
        taken_over_by: None,
        ghosts: None,
        entry: None,
        deliveries: None,
    };
    match &plan.subject {
        PlanSubject::Consumer { name, pending, idle_ms, to } => {
            row.consumer = Some(name.display_name());
            row.consumer_pending = Some(*pending);
            row.consumer_idle_seconds = Some(*idle_ms as f64 / 1000.0);
            row.taken_over_by = to.as_ref().map(|to| to.display_name());
        }
        PlanSubject::Ghosts { count } => row.ghosts = Some(*count),
        PlanSubject::Entry { id, owner, deliveries } => {
            row.consumer = Some(owner.display_name());
            (row.entry, row.deliveries) = (Some(id.to_string()), Some(*deliveries));
        }
        PlanSubject::Group { .. } => {}
    }
    row
}
