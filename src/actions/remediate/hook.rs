//! The webhook of a plan: what streamlag may not do itself, such as restarting a consumer.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::act::ActOutcome;
use crate::actions::notify::Webhook;
use crate::actions::notify::signature::headers;
use crate::analysis::remediation::{Plan, PlanSubject};
use crate::model::text::rfc3339;
use crate::store::remediation::Ending;
use crate::sys::http_client::{HttpClient, MAX_LOOKUPS};

/// Calls the webhook once; its id is the plan's, so that a receiver can tell a repetition.
pub(super) async fn call(hook: &Webhook, ca: Option<Arc<[u8]>>, plan: &Plan, now: SystemTime) -> ActOutcome {
    // What the system trusts is read from files.
    let client = match spawn_blocking(move || HttpClient::new(ca.as_deref())).await {
        Ok(Ok(client)) => client,
        Ok(Err(why)) => return ActOutcome::of(Ending::Failed, why.to_string()),
        Err(ended) => return ActOutcome::of(Ending::Failed, ended.to_string()),
    };
    let body: Bytes = body(plan).into();
    let headers = headers(hook.secret.as_deref(), &plan.id, now, &body);
    let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
    match client.to(hook.endpoint.clone(), &lookups).post(&headers, body).await {
        Ok(()) => ActOutcome { ending: Ending::Done, changed: 1, ghosts: 0, detail: String::new() },
        // Whether the receiver took it is not known where it did not answer.
        Err(error) if error.is_temporary => ActOutcome::of(Ending::Unknown, error.why),
        Err(error) => ActOutcome::of(Ending::Failed, error.why),
    }
}

fn body(plan: &Plan) -> String {
    let (state, dead) = match &plan.subject {
        PlanSubject::Group { state, dead } => (state.as_str(), *dead),
        _ => (plan.evidence.state.as_str(), 0),
    };
    json!({
        "type": "streamlag.remediation",
        "id": plan.id,
        "redis_target": plan.target.as_str(),
        "stream": plan.stream.display_name(),
        "consumer_group": plan.group.display_name(),
        "state": state,
        "lag": plan.evidence.lag,
        "pending": plan.evidence.pending,
        "dead_consumers_with_pending": dead,
        "why": plan.why(),
        "made_at": rfc3339(plan.made_at),
    })
    .to_string()
}
