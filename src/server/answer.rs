//! One request, one answer, from memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::auth::{ApiAuth, Denied};
use super::body::Ready;
use crate::lag::Thresholds;
use crate::model::GroupSelection;
use crate::render::api::{Api, Problem, Transport};
use crate::render::{landing, page};
use crate::route::{ApiRoute, Route, Wanted, query_parameter};
use crate::self_metrics::SelfMetrics;
use crate::snapshot::{Published, Reader};

/// What answers requests.
#[derive(Debug)]
pub struct Service {
    /// Where the metrics page is.
    pub telemetry_path: String,
    /// Who may use the API.
    pub auth: ApiAuth,
    /// What a lag is called.
    pub thresholds: Thresholds,
    /// Which groups are monitored.
    pub selection: GroupSelection,
    /// The event transport's settings.
    pub transport: Transport,
    /// How long a client should wait before it asks again, where there is nothing to say yet.
    pub retry_after: Duration,
    /// Where to read.
    pub reader: Reader,
    /// Where requests are counted.
    pub metrics: SelfMetrics,
    /// Whether the server is about to end.
    pub draining: AtomicBool,
}

type Answer = Response<Ready>;

/// An answer that is no success: a status, a sentence, and headers that go with the status.
struct Trouble {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Service {
    /// From now on the server is not ready.
    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers a request. The body is not read: no place wants one.
    pub fn answer<B>(&self, request: &Request<B>) -> Answer {
        let began = Instant::now();
        let route = Route::find(request.uri().path(), &self.telemetry_path);
        let answer = self.dispatch(route, request).unwrap_or_else(Trouble::into_answer);
        let label = route.map_or("other", Route::label);
        self.metrics.request_answered(label, answer.status().as_u16(), began.elapsed());
        answer
    }

    fn dispatch<B>(&self, route: Option<Route>, request: &Request<B>) -> Result<Answer, Trouble> {
        let Some(route) = route else {
            let detail = format!("there is nothing at {}", request.uri().path());
            return Err(Trouble::new(StatusCode::NOT_FOUND, detail));
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let detail = format!("{} is not answered here; GET and HEAD are", request.method());
            let allow = (ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Err(Trouble::new(StatusCode::METHOD_NOT_ALLOWED, detail).with(allow));
        }
        match route {
            Route::Landing => Ok(self.landing()),
            Route::Healthy => Ok(text("streamlag is healthy\n")),
            Route::Ready => self.ready(),
            Route::Metrics => Ok(self.metrics_page(request.headers())),
            Route::Api(place) => {
                self.auth.check(request.headers()).map_err(Trouble::from)?;
                self.api(place, request.uri().query())
            }
        }
    }

    fn landing(&self) -> Answer {
        let mut answer = text(landing::page(&self.telemetry_path));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        );
        answer
    }

    fn ready(&self) -> Result<Answer, Trouble> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(self.unavailable("streamlag is shutting down"));
        }
        self.polled()?;
        Ok(text("streamlag is ready\n"))
    }

    fn metrics_page(&self, headers: &HeaderMap) -> Answer {
        let header = |name: HeaderName| {
            let all: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            (!all.is_empty()).then(|| all.join(","))
        };
        let wanted = Wanted::from_headers(header(ACCEPT).as_deref(), header(ACCEPT_ENCODING).as_deref());
        let published = self.reader.newest();
        let (form, content_type) = if wanted.openmetrics {
            (&published.page.openmetrics, page::OPENMETRICS)
        } else {
            (&published.page.classic, page::CLASSIC)
        };
        let body = if wanted.gzip { form.gzip.clone().into() } else { form.plain.clone().into() };
        let mut answer = Answer::new(body);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if wanted.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }

    fn api(&self, place: ApiRoute, query: Option<&str>) -> Result<Answer, Trouble> {
        let published = self.polled()?;
        let api = Api {
            view: &published.view,
            age: published.sampled.map(|sampled| sampled.elapsed()),
            thresholds: self.thresholds,
            selection: &self.selection,
            transport: self.transport,
        };
        let asked = query_parameter(query, "group");
        let Some(group) = api.group(asked.as_deref()) else {
            let detail = format!("the group {:?} is not monitored", asked.unwrap_or_default());
            return Err(Trouble::new(StatusCode::NOT_FOUND, detail));
        };
        let only = asked.as_ref().map(|_| &group);
        match place {
            ApiRoute::ConsumerLag => json(StatusCode::OK, &api.consumer_lag(&group)),
            ApiRoute::Streams => json(StatusCode::OK, &api.streams(&group)),
            ApiRoute::Groups => json(StatusCode::OK, &api.groups(only)),
            ApiRoute::Consumers => json(StatusCode::OK, &api.consumers(only)),
            ApiRoute::Health if published.view.redis_up() => json(StatusCode::OK, &api.health(&group)),
            ApiRoute::Health => {
                let mut answer = json(StatusCode::SERVICE_UNAVAILABLE, &api.health(&group))?;
                answer.headers_mut().insert(RETRY_AFTER, self.retry_after());
                Ok(answer)
            }
        }
    }

    /// What was published, once a first poll has ended.
    fn polled(&self) -> Result<std::sync::Arc<Published>, Trouble> {
        let published = self.reader.newest();
        if published.view.newest_poll.is_none() {
            return Err(self.unavailable("the first poll of Redis has not ended yet"));
        }
        Ok(published)
    }

    fn unavailable(&self, detail: &str) -> Trouble {
        Trouble::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()).with((RETRY_AFTER, self.retry_after()))
    }

    fn retry_after(&self) -> HeaderValue {
        // Whole seconds, and not none: a client would come back at once.
        HeaderValue::from(self.retry_after.as_secs_f64().ceil().max(1.0) as u64)
    }
}

impl Trouble {
    fn new(status: StatusCode, detail: String) -> Self {
        Self { status, detail, header: None }
    }

    fn with(self, header: (HeaderName, HeaderValue)) -> Self {
        Self { header: Some(header), ..self }
    }

    /// The one place where an error becomes what a client sees (RFC 9457).
    fn into_answer(self) -> Answer {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let problem = Problem { kind: "about:blank", title, status: self.status.as_u16(), detail: &self.detail };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut answer = Answer::new(Bytes::from(body).into());
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        answer
    }
}

impl From<Denied> for Trouble {
    fn from(denied: Denied) -> Self {
        let challenge = HeaderValue::from_static(denied.challenge());
        Self::new(StatusCode::UNAUTHORIZED, denied.detail().to_owned()).with((WWW_AUTHENTICATE, challenge))
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Answer, Trouble> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written".to_owned())
    })?;
    let mut answer = Answer::new(Bytes::from(body).into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Behind a token, and old in a moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(answer)
}

fn text(body: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(body.into().into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
