//! Responses about remediation plans, and decisions on them.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use hyper::http::request::Parts;

use super::{HttpResponse, check_query, json};
use crate::http::api;
use crate::http::auth::Admission;
use crate::http::problem::{HttpProblem, nothing_there, whole_seconds};
use crate::http::route::{Route, plan};
use crate::http::server_config::ServerConfig;
use crate::store::remediation::{Decided, Ending, Undecided};

/// When a client may come back where decisions wait.
const BUSY_RETRY: Duration = Duration::from_secs(5);

/// All plans, and how past ones ended.
pub(super) fn board(policy: &ServerConfig, head: &Parts, admission: &Admission) -> Result<HttpResponse, HttpProblem> {
    check_query(Route::Remediation, head.uri.query())?;
    let token = policy.auth.token(admission, SystemTime::now());
    json(StatusCode::OK, &api::remediation::board(&policy.remediation.board(), token))
}

/// Approves or rejects a plan.
pub(super) async fn decide(
    policy: &ServerConfig,
    approve: bool,
    head: &Parts,
    admission: &Admission,
) -> Result<HttpResponse, HttpProblem> {
    let path = head.uri.path();
    let id = plan(path, if approve { "/approve" } else { "/reject" }).ok_or_else(nothing_there)?;
    let problem = |status, detail: &str| Err(HttpProblem::new(status, detail.to_owned()));
    // Without tokens one client cannot be told from another.
    let Some(token) = policy.auth.token(admission, SystemTime::now()).filter(|token| token.may_remediate) else {
        return problem(
            StatusCode::FORBIDDEN,
            "this takes a token with scope:remediate; see 'streamlag token --scope remediate'",
        );
    };
    match policy.remediation.decide(id, approve, &token.name).await {
        Ok(Decided::Ended { ending, changed, detail }) => {
            // It was not as planned any more.
            let status = if ending == Ending::Refused { StatusCode::CONFLICT } else { StatusCode::OK };
            if status == StatusCode::CONFLICT {
                return problem(status, &format!("nothing was done: {detail}"));
            }
            json(status, &api::remediation::decided(id, ending, changed, &detail))
        }
        Ok(Decided::OneMore) => json(StatusCode::ACCEPTED, &api::remediation::one_more(id)),
        Err(Undecided::Gone) => problem(
            StatusCode::CONFLICT,
            "there is no such plan any more: it has ended, or what it rested on has changed",
        ),
        Err(Undecided::NotApprovable) => problem(StatusCode::CONFLICT, "mode plan: this plan is only shown"),
        Err(Undecided::SameToken) => {
            problem(StatusCode::CONFLICT, "this token has approved it already; two_person takes another one")
        }
        Err(Undecided::Stopped(why)) => {
            Err(HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, format!("nothing was done: {why}"))
                .with(RETRY_AFTER, whole_seconds(BUSY_RETRY)))
        }
        Err(Undecided::Busy) => {
            Err(HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "too many decisions wait".to_owned())
                .with(RETRY_AFTER, whole_seconds(BUSY_RETRY)))
        }
    }
}
