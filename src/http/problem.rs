//! Error responses, as problem details (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};

use crate::http::api::ProblemBody;
use crate::http::auth::AuthError;
use crate::http::response_body::HttpResponse;
use crate::http::targets::ServedTarget;

/// An answer that is no success: a status, a sentence, and headers that go with the status.
#[derive(Debug)]
pub(super) struct HttpProblem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpProblem {
    pub(super) fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail, headers: Vec::new() }
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The one place where an error becomes what a client sees (RFC 9457).
    pub(super) fn into_answer(self) -> HttpResponse {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let problem = ProblemBody { kind: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut answer = HttpResponse::new(Bytes::from(body).into());
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.headers);
        answer
    }
}

impl From<AuthError> for HttpProblem {
    fn from(denied: AuthError) -> Self {
        let challenge = HeaderValue::from_static(denied.challenge());
        Self::new(StatusCode::UNAUTHORIZED, denied.detail().to_owned()).with(WWW_AUTHENTICATE, challenge)
    }
}

/// There is nothing to say of this target yet.
pub(super) fn unavailable(target: &ServedTarget, detail: &str) -> HttpProblem {
    let retry_after = whole_seconds(target.interval);
    HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()).with(RETRY_AFTER, retry_after)
}

/// Too many requests; the client may try again after this time.
pub(super) fn too_many(what: &str, wait: Duration) -> HttpProblem {
    HttpProblem::new(StatusCode::TOO_MANY_REQUESTS, what.to_owned()).with(RETRY_AFTER, whole_seconds(wait))
}

/// As `Retry-After` takes it: whole seconds, and not none, or a client would come back at once.
pub(super) fn whole_seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs_f64().ceil().max(1.0) as u64)
}

/// Nothing is watched.
pub(super) fn nothing_there() -> HttpProblem {
    HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, "there is no target".to_owned())
}
