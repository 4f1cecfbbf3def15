//! Answers one request: checks it, routes it, and responds from memory.

mod live;
mod remediation;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::exposition::collectors::{Collector, Collectors};
use crate::exposition::encoding;
use crate::exposition::encoding::{Encoded, EncodedPage, Page};
use crate::exposition::part::PagePart;
use crate::http::api::Api;
use crate::http::api::targets::{TargetView, discovery};
use crate::http::auth::{Admission, ApiAuth, AuthError, presented};
use crate::http::basic_auth::credentials;
use crate::http::json_cache::{AnswerKey, Json, JsonCache, JsonError};
use crate::http::live::LiveHub;
use crate::http::live::request::{check_origin, protocol_token};
use crate::http::login_queue::{LoginOutcome, LoginQueue};
use crate::http::login_throttle::{LoginAttempt, LoginThrottle};
use crate::http::problem::{HttpProblem, nothing_there, too_many, unavailable, whole_seconds};
use crate::http::rate_limit::{Gcra, RateDecision, RateLimit};
use crate::http::reader_memory::ReaderMemory;
use crate::http::response_body::{HttpResponse, StaticBody};
use crate::http::route::{
    ApiRoute, HistoryRoute, PageFormat, Route, is_host, joined, parameters, query_parameter, query_parameters, scaler,
};
use crate::http::server_config::{Peer, ServerConfig};
use crate::http::targets::ServedTarget;
use crate::http::{api, history, landing, scale, ui};
use crate::model::TargetName;
use crate::store::latest::Published;
use crate::sys::own_metrics::SelfMetrics;
use crate::sys::reload::ReloadHandle;

/// When a client may come back for whose answer there is no memory: those who read slowly are closed within seconds.
const NO_MEMORY_RETRY: Duration = Duration::from_secs(5);

/// Characters of a collector's name that is none that are repeated: more than any has.
const MAX_NAMED: usize = 80;

/// What answers requests.
#[derive(Debug)]
pub struct Service {
    policy: ArcSwap<ServerConfig>,
    /// The address it listens on.
    address: String,
    pub(super) metrics: SelfMetrics,
    reloads: ReloadHandle,
    /// Whether the server is about to end.
    draining: AtomicBool,
    /// Whether every target has been polled once. Those that a reload adds do not change it: there is something to say.
    polled: AtomicBool,
    began: Instant,
    throttle: LoginThrottle,
    /// What is left of the rate that holds for all together.
    bucket: std::sync::Mutex<Gcra>,
    logins: LoginQueue,
    /// Held while a part of a page is made: one at a time, as a long one takes some milliseconds of a core.
    parting: Mutex<()>,
    live: LiveHub,
    /// What is held for readers.
    pub(super) memory: ReaderMemory,
    json: JsonCache,
}

impl Service {
    /// A service at this address that counts there.
    #[must_use]
    pub fn new(policy: ServerConfig, address: String, metrics: SelfMetrics, reloads: ReloadHandle) -> Self {
        let memory = ReaderMemory::new(policy.memory_for_readers, metrics.http_reader_bytes.clone());
        let policy = Arc::new(policy);
        Self {
            live: LiveHub::new(Arc::clone(&policy), metrics.clone(), memory.clone()),
            policy: ArcSwap::new(policy),
            address,
            metrics,
            reloads,
            draining: AtomicBool::new(false),
            polled: AtomicBool::new(false),
            began: Instant::now(),
            throttle: LoginThrottle::default(),
            bucket: std::sync::Mutex::default(),
            logins: LoginQueue::default(),
            parting: Mutex::default(),
            memory,
            json: JsonCache::default(),
        }
    }

    /// Looks after what is held for readers, for as long as it is awaited.
    pub(super) async fn watch_readers(&self) {
        self.memory.watch(|| self.json.forget_old()).await;
    }

    /// From now on the server is not ready.
    pub(super) fn begin_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.live.end();
    }

    /// What it goes by now.
    #[must_use]
    pub fn policy(&self) -> Guard<Arc<ServerConfig>> {
        self.policy.load()
    }

    /// Goes by this from the next request on.
    pub fn set_policy(&self, policy: ServerConfig) {
        policy.inherit(&self.policy());
        self.memory.set_limit(policy.memory_for_readers);
        let policy = Arc::new(policy);
        self.policy.store(Arc::clone(&policy));
        self.live.reconfigure(policy);
    }

    /// Answers a request.
    pub async fn answer(&self, head: &Parts, peer: &Peer) -> HttpResponse {
        let began = Instant::now();
        let policy = self.policy();
        let route = Route::find(head.uri.path(), &policy.telemetry_path);
        let mut answer = self.dispatch(&policy, route, head, peer).await.unwrap_or_else(HttpProblem::into_answer);
        for (name, value) in &policy.headers {
            answer.headers_mut().insert(name, value.clone());
        }
        let label = route.map_or("other", Route::label);
        self.metrics.request_answered(label, answer.status().as_u16(), began.elapsed());
        answer
    }

    async fn dispatch(
        &self,
        policy: &Arc<ServerConfig>,
        route: Option<Route>,
        head: &Parts,
        peer: &Peer,
    ) -> Result<HttpResponse, HttpProblem> {
        let health = matches!(route, Some(Route::Healthy | Route::Ready));
        if !health {
            self.admit(policy, peer)?;
        }
        let Some(route) = route else {
            let detail = format!("there is nothing at {}", head.uri.path());
            return Err(HttpProblem::new(StatusCode::NOT_FOUND, detail));
        };
        let methods = route.methods();
        if !methods.contains(&head.method) {
            let [one, other] = methods;
            let detail = format!("{} is not answered here; {one} and {other} are", head.method);
            let allow = HeaderValue::try_from(format!("{one}, {other}"));
            let allow = allow.unwrap_or(HeaderValue::from_static(""));
            return Err(HttpProblem::new(StatusCode::METHOD_NOT_ALLOWED, detail).with(ALLOW, allow));
        }
        match route {
            Route::Landing => Ok(self.landing(policy)),
            Route::Healthy => Ok(text("streamlag is healthy\n")),
            Route::Ready => self.ready(policy),
            Route::Metrics => {
                self.check_password(policy, head, peer).await?;
                self.metrics(policy, target(policy, None)?, true, head).await
            }
            Route::Probe => {
                self.check_password(policy, head, peer).await?;
                let asked = query_parameter(head.uri.query(), "target").filter(|asked| !asked.is_empty());
                let asked = asked.ok_or_else(|| {
                    HttpProblem::new(StatusCode::BAD_REQUEST, "name a target, as in /probe?target=NAME".to_owned())
                })?;
                self.metrics(policy, target(policy, Some(&asked))?, false, head).await
            }
            Route::Discovery => {
                self.check_password(policy, head, peer).await?;
                check_query(route, head.uri.query())?;
                let names = policy.targets.all().map(|target| &target.name).collect();
                json(StatusCode::OK, &discovery(self.address_for(head), names))
            }
            Route::Approve | Route::Reject => {
                let (limits, admission) = self.check_presented(policy, presented(&head.headers), head, peer)?;
                let answer = remediation::decide(policy, route == Route::Approve, head, &admission).await;
                Ok(with_headers(answer.unwrap_or_else(HttpProblem::into_answer), limits))
            }
            Route::Remediation => {
                let (limits, admission) = self.check_presented(policy, presented(&head.headers), head, peer)?;
                let answer = remediation::board(policy, head, &admission);
                Ok(with_headers(answer.unwrap_or_else(HttpProblem::into_answer), limits))
            }
            Route::Targets
            | Route::History(_)
            | Route::Incidents
            | Route::Scale
            | Route::DeclaredScale
            | Route::Api(_) => {
                let limits = self.check_token(policy, head, peer)?;
                let answer = self.behind_token(policy, route, head).await;
                Ok(with_headers(answer.unwrap_or_else(HttpProblem::into_answer), limits))
            }
            Route::Live => {
                check_origin(head, asked_host(head), &policy.allowed_origins)?;
                let presented = presented(&head.headers).map(<[u8]>::to_vec);
                let presented = presented.or_else(|| protocol_token(&head.headers));
                let (limits, admission) = self.check_presented(policy, presented.as_deref(), head, peer)?;
                let answer = self.live_stream(policy, head, peer, admission);
                Ok(with_headers(answer.unwrap_or_else(HttpProblem::into_answer), limits))
            }
            Route::Ui(file) => Ok(ui::answer(file, &head.headers)),
            Route::Reload => {
                if !policy.lifecycle {
                    let detail =
                        "reloading over HTTP is off; --web.enable-lifecycle turns it on, and SIGHUP reloads too";
                    return Err(HttpProblem::new(StatusCode::FORBIDDEN, detail.to_owned()));
                }
                let limits = self.check_token(policy, head, peer)?;
                let reloaded = self.reloads.reload().await;
                reloaded.map_err(|why| HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()))?;
                Ok(with_headers(text("reloaded\n"), limits))
            }
        }
    }

    /// What every request needs except health checks.
    fn admit(&self, policy: &ServerConfig, peer: &Peer) -> Result<(), HttpProblem> {
        // By what holds now: a connection may be older than the rule.
        if policy.needs_client_certificate() && !peer.certified {
            let detail = "this server asks its clients for a certificate; only health paths do without";
            return Err(HttpProblem::new(StatusCode::FORBIDDEN, detail.to_owned()));
        }
        let Some(rate) = policy.rate else { return Ok(()) };
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = bucket.take(rate, self.began.elapsed());
        allowance.passes.map_err(|wait| too_many("more requests than rate_limit allows", wait))
    }

    /// Whether a request may use the API; the headers of what is left of its rate.
    fn check_token(&self, policy: &ServerConfig, head: &Parts, peer: &Peer) -> Result<Headers, HttpProblem> {
        let (limits, _) = self.check_presented(policy, presented(&head.headers), head, peer)?;
        Ok(limits)
    }

    /// Whether a client that presents this may use the API; the headers of what is left of its rate, and what let it in.
    fn check_presented(
        &self,
        policy: &ServerConfig,
        presented: Option<&[u8]>,
        head: &Parts,
        peer: &Peer,
    ) -> Result<(Headers, Admission), HttpProblem> {
        let attempt = presented.filter(|_| policy.auth.is_guess(presented));
        let attempt = attempt.map(|secret| self.begin_login(peer, secret)).transpose()?;
        let now = SystemTime::now();
        let token = match policy.auth.check(presented, now) {
            Ok(token) => token,
            Err(denied) => {
                if let Some(attempt) = attempt {
                    attempt.failed();
                }
                login_failed(peer, head.uri.path(), "token", presented.unwrap_or_default(), &denied);
                return Err(denied.into());
            }
        };
        let admission = ApiAuth::admission(token);
        let (Some(token), Some(attempt)) = (token, attempt) else { return Ok((Headers::new(), admission)) };
        attempt.succeeded();
        peer.set_known_by(presented.unwrap_or_default());
        let unused_seconds =
            token.used_at(now).and_then(|last| now.duration_since(last).ok()).map(|time| time.as_secs());
        tracing::debug!(token = token.name, peer = %peer.address, path = head.uri.path(), unused_seconds, "API request");
        let Some(rate) = token.rate.or(policy.token_rate) else { return Ok((Headers::new(), admission)) };
        let allowance = token.take(rate, self.began.elapsed());
        let limits = rate_headers(rate, allowance);
        match allowance.passes {
            Ok(()) => Ok((limits, admission)),
            Err(wait) => {
                let mut problem = too_many("more requests than this token is allowed", wait);
                problem.headers.extend(limits);
                Err(problem)
            }
        }
    }

    /// Whether a request may read the metrics page.
    async fn check_password(&self, policy: &ServerConfig, head: &Parts, peer: &Peer) -> Result<(), HttpProblem> {
        if policy.users.is_empty() {
            return Ok(());
        }
        let challenge = || {
            let realm = HeaderValue::from_static("Basic realm=\"streamlag\", charset=\"UTF-8\"");
            HttpProblem::new(StatusCode::UNAUTHORIZED, "a user and a password are needed here".to_owned())
                .with(WWW_AUTHENTICATE, realm)
        };
        let presented = head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let credentials = credentials(presented).ok_or_else(challenge)?;
        let attempt = self.begin_login(peer, presented)?;
        let outcome = if policy.users.recall(&credentials) {
            attempt.succeeded();
            LoginOutcome::Right
        } else {
            self.logins.check(policy.users.clone(), credentials, attempt).await
        };
        match outcome {
            LoginOutcome::Right => {
                peer.set_known_by(presented);
                Ok(())
            }
            LoginOutcome::Wrong => {
                login_failed(peer, head.uri.path(), "password", presented, &AuthError::Wrong);
                Err(challenge())
            }
            LoginOutcome::Busy(wait) => Err(too_many("too many logins wait for their password to be checked", wait)),
        }
    }

    /// Whether a client may try to log in by these credentials.
    fn begin_login(&self, peer: &Peer, credentials: &[u8]) -> Result<LoginAttempt, HttpProblem> {
        self.throttle.begin(peer.address).or_else(|wait| {
            if peer.is_known_by(credentials) {
                return Ok(self.throttle.begin_known(peer.address));
            }
            Err(too_many("too many failed logins from this address", wait))
        })
    }

    fn landing(&self, policy: &ServerConfig) -> HttpResponse {
        let mut answer = text(landing::page(&policy.telemetry_path));
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        );
        answer
    }

    fn ready(&self, policy: &ServerConfig) -> Result<HttpResponse, HttpProblem> {
        let unavailable =
            |detail| policy.targets.find(None).map_or_else(nothing_there, |first| unavailable(first, detail));
        if self.draining.load(Ordering::Relaxed) {
            return Err(unavailable("streamlag is shutting down"));
        }
        if !self.polled.load(Ordering::Relaxed) {
            if !policy.targets.all().all(|target| target.reader.newest().view.newest_poll.is_some()) {
                return Err(unavailable(NOT_POLLED));
            }
            self.polled.store(true, Ordering::Relaxed);
        }
        Ok(text("streamlag is ready\n"))
    }

    /// A target's metrics page: with what is of the process or without, and all of it or what some collectors show.
    async fn metrics(
        &self,
        policy: &ServerConfig,
        target: &ServedTarget,
        process: bool,
        head: &Parts,
    ) -> Result<HttpResponse, HttpProblem> {
        let collectors = collectors(target, head.uri.query())?;
        let wanted = wanted(&head.headers);
        let newest = target.reader.newest();
        // Only the first target's page has what is of the process.
        if collectors.is_none() && (process || !policy.targets.is_first(target)) {
            return Ok(metrics_page(newest.page.forms(), wanted));
        }
        let page = newest.page.clone();
        drop(newest);
        Ok(metrics_page(&*self.part(page, PagePart { collectors, process }, wanted).await?, wanted))
    }

    /// A part of a page, in the form that is wanted. It is made at the first request, once per poll.
    async fn part(&self, page: Page, part: PagePart, wanted: PageFormat) -> Result<Arc<EncodedPage>, HttpProblem> {
        // Made before any waiting: its counters are never to be later than those of the page after it.
        let _ = page.forms();
        let _one = self.parting.lock().await;
        let making = tokio::task::spawn_blocking(move || {
            let forms = page.part(part);
            if wanted.gzip {
                let _ = form(&forms, wanted).gzip();
            }
            forms
        });
        making.await.map_err(|error| {
            tracing::error!(%error, "cannot build a part of the metrics page");
            HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made".to_owned())
        })
    }

    /// The answer of a path of the API, to a request with a good token.
    async fn behind_token(
        &self,
        policy: &Arc<ServerConfig>,
        route: Route,
        head: &Parts,
    ) -> Result<HttpResponse, HttpProblem> {
        let query = head.uri.query();
        check_query(route, query)?;
        match route {
            Route::Targets => targets(policy),
            Route::History(place) => past(policy, place, query).await,
            Route::Incidents => incidents(policy, query),
            Route::Scale => json(StatusCode::OK, &scale::undeclared(policy, query).await?),
            Route::DeclaredScale => {
                let name = scaler(head.uri.path()).unwrap_or_default();
                json(StatusCode::OK, &scale::declared(policy, name, query).await?)
            }
            Route::Api(place) => self.api(policy, place, query),
            // The others are answered without one.
            _ => Err(nothing_there()),
        }
    }

    /// An answer of the API. It is made once for each poll; only its age is told to each reader.
    fn api(
        &self,
        policy: &Arc<ServerConfig>,
        place: ApiRoute,
        query: Option<&str>,
    ) -> Result<HttpResponse, HttpProblem> {
        let target = target(policy, query_parameter(query, "target").as_deref())?;
        let published = target.reader.newest();
        if published.view.newest_poll.is_none() {
            return Err(unavailable(target, NOT_POLLED));
        }
        let asked = query_parameter(query, "group");
        let group = asked.as_deref().map(str::to_owned);
        let key = AnswerKey { target: target.name.clone(), route: place, group };
        let encode = Encode { memory: &self.memory, cache: &self.json };
        let make = || api_json(policy, target, &published, place, asked.as_deref(), &encode);
        let pieces = self.json.get(key, &published, policy, make)?;
        let age = published.sampled.map(|sampled| api::seconds(sampled.elapsed()));
        let end = serde_json::to_string(&age).unwrap_or_default() + "}";
        let is_healthy = place != ApiRoute::Health || published.view.redis_up();
        let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut answer = json_answer(status, StaticBody::new(pieces, end.into()));
        if !is_healthy {
            answer.headers_mut().insert(RETRY_AFTER, whole_seconds(target.interval));
        }
        Ok(answer)
    }

    /// Where the client found this server, as it says itself, and otherwise where the server listens.
    fn address_for<'a>(&'a self, head: &'a Parts) -> &'a str {
        asked_host(head).filter(|host| is_host(host)).unwrap_or(&self.address)
    }
}

/// The server as the client names it.
fn asked_host(head: &Parts) -> Option<&str> {
    let authority = head.uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok()))
}

const NOT_POLLED: &str = "the first poll of Redis has not ended yet";

/// The target that is asked for, or is meant where none is named.
fn target<'a>(policy: &'a ServerConfig, asked: Option<&str>) -> Result<&'a ServedTarget, HttpProblem> {
    policy.targets.find(asked).ok_or_else(|| {
        // What is no name may be a URL with a password in it.
        let name = asked.and_then(TargetName::new);
        let detail =
            name.map_or("there is no such target".to_owned(), |name| format!("the target {name} is not declared"));
        HttpProblem::new(StatusCode::NOT_FOUND, detail)
    })
}

/// Whether a query has nothing but the parameters of its path, each at most once.
fn check_query(route: Route, query: Option<&str>) -> Result<(), HttpProblem> {
    let Some(keys) = route.parameters() else { return Ok(()) };
    parameters(query, keys).map(drop).map_err(|why| HttpProblem::new(StatusCode::BAD_REQUEST, why.to_string()))
}

/// The collectors that a scrape asks for; `None` where it asks for none, and gets all that are on.
fn collectors(target: &ServedTarget, query: Option<&str>) -> Result<Option<Collectors>, HttpProblem> {
    let mut asked = Collectors::NONE;
    for name in query_parameters(query, "collect[]") {
        let collector = Collector::find(&name).filter(|collector| target.collectors.contains(*collector));
        let collector = collector.ok_or_else(|| {
            let (why, on) = match Collector::find(&name) {
                Some(_) => ("a collector that is on; --collector.NAME turns one on", target.collectors),
                None => ("a collector", Collectors::ALL),
            };
            let name: String = name.chars().take(MAX_NAMED).collect();
            let detail = format!("invalid value {name:?} for collect[]: expected {why}: {}", on.names());
            HttpProblem::new(StatusCode::BAD_REQUEST, detail)
        })?;
        asked = asked.with(collector);
    }
    Ok(Some(asked).filter(|asked| !asked.is_empty()))
}

/// The form of the metrics page that a client wants.
fn wanted(headers: &HeaderMap) -> PageFormat {
    PageFormat::from_headers(joined(headers, ACCEPT).as_deref(), joined(headers, ACCEPT_ENCODING).as_deref())
}

fn form(forms: &EncodedPage, wanted: PageFormat) -> &Encoded {
    if wanted.openmetrics { &forms.openmetrics } else { &forms.classic }
}

fn metrics_page(forms: &EncodedPage, wanted: PageFormat) -> HttpResponse {
    let form = form(forms, wanted);
    let content_type = if wanted.openmetrics { encoding::OPENMETRICS } else { encoding::CLASSIC };
    let body = if wanted.gzip { form.gzip().into() } else { form.plain().into() };
    let mut answer = HttpResponse::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if wanted.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

fn targets(policy: &ServerConfig) -> Result<HttpResponse, HttpProblem> {
    let published: Vec<_> = policy.targets.all().map(|target| (target, target.reader.newest())).collect();
    let watched = published.iter().map(|(target, published)| TargetView {
        name: &target.name,
        redis: &target.redis,
        mode: target.mode,
        interval: target.interval,
        view: &published.view,
        age: published.sampled.map(|sampled| sampled.elapsed()),
        thresholds: &target.thresholds,
    });
    json(StatusCode::OK, &api::targets::targets(watched.collect()))
}

/// Incidents of all targets, or of one.
fn incidents(policy: &ServerConfig, query: Option<&str>) -> Result<HttpResponse, HttpProblem> {
    let asked = query_parameter(query, "target").map(|asked| target(policy, Some(&asked))).transpose()?;
    let status = query_parameter(query, "status").map(|word| {
        api::incidents::status(&word).map_err(|why| HttpProblem::new(StatusCode::BAD_REQUEST, why.to_string()))
    });
    let status = status.transpose()?;
    let targets = policy.targets.all().filter(|target| asked.is_none_or(|asked| asked.name == target.name));
    let newest: Vec<_> = targets.map(|target| (target, target.reader.newest())).collect();
    if let Some((target, _)) = newest.iter().find(|(_, published)| published.view.newest_poll.is_none()) {
        return Err(unavailable(target, NOT_POLLED));
    }
    let all: Vec<_> = newest.iter().map(|(_, published)| &published.view.incidents).collect();
    json(StatusCode::OK, &api::incidents::incidents(&all, status, &policy.deliveries))
}

async fn past(policy: &ServerConfig, place: HistoryRoute, query: Option<&str>) -> Result<HttpResponse, HttpProblem> {
    let target = target(policy, query_parameter(query, "target").as_deref())?;
    if target.reader.newest().view.newest_poll.is_none() {
        return Err(unavailable(target, NOT_POLLED));
    }
    if place == HistoryRoute::Trends {
        return history::trends(policy, target, query, |body| json(StatusCode::OK, body)).await;
    }
    if place == HistoryRoute::Forecast {
        return history::forecast(policy, target, query, |body| json(StatusCode::OK, body)).await;
    }
    history::history(policy, target, query, |body| json(StatusCode::OK, body)).await
}

/// What an answer ends with whose age is told to each reader.
const NO_AGE: &str = "null}";

/// What the API says of a snapshot, without the age at its end.
fn api_json(
    policy: &ServerConfig,
    target: &ServedTarget,
    published: &Published,
    place: ApiRoute,
    asked: Option<&str>,
    encode: &Encode<'_>,
) -> Result<Json, HttpProblem> {
    let api = Api {
        view: &published.view,
        age: None,
        thresholds: &target.thresholds,
        selection: &target.selection,
        transport: policy.transport,
    };
    let only =
        match asked {
            None => None,
            Some(asked) => Some(api.asked(asked).ok_or_else(|| {
                HttpProblem::new(StatusCode::NOT_FOUND, format!("the group {asked:?} is not monitored"))
            })?),
        };
    let only = only.as_ref();
    // Two answers speak of one group, whether or not one is asked for.
    let first = api.first_group();
    let group = only.or(first.as_ref());
    let json = match place {
        ApiRoute::ConsumerLag => encode.json(&api.consumer_lag(group)),
        ApiRoute::Streams => encode.json(&api.streams(group)),
        ApiRoute::Groups => encode.json(&api.groups(only)),
        ApiRoute::Consumers => encode.json(&api.consumers(only)),
        ApiRoute::LogicalStreams => encode.json(&api.logical_streams(only)),
        ApiRoute::Health => encode.json(&api.health(only)),
    };
    json.map_err(|error| match error {
        JsonError::NoMemory(error) => HttpProblem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            .with(RETRY_AFTER, whole_seconds(NO_MEMORY_RETRY)),
        error => {
            tracing::error!(%error, "cannot encode a response as JSON");
            HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written".to_owned())
        }
    })
}

/// What JSON is encoded with.
struct Encode<'a> {
    memory: &'a ReaderMemory,
    cache: &'a JsonCache,
}

impl Encode<'_> {
    fn json(&self, value: &impl Serialize) -> Result<Json, JsonError> {
        Json::without_end(value, NO_AGE, self.memory, self.cache)
    }
}

/// Logs a login with a wrong token or password (`kind`) for this path, which is that of a route.
fn login_failed(peer: &Peer, path: &str, kind: &str, presented: &[u8], denied: &AuthError) {
    match denied {
        AuthError::Closed | AuthError::Missing => return,
        // As often as the address may fail, and no more.
        AuthError::Wrong => tracing::warn!(peer = %peer.address, path, kind, "login failed"),
        AuthError::Expired(token) => {
            tracing::warn!(peer = %peer.address, path, kind, token, "login failed: the token has expired")
        }
    }
    peer.forget(presented);
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// What a token has and what is left of it (draft-ietf-httpapi-ratelimit-headers-10).
fn rate_headers(rate: RateLimit, allowance: RateDecision) -> Headers {
    let window = rate.interval.saturating_mul(rate.burst).as_secs_f64().ceil().max(1.0);
    let next = allowance.next.as_secs_f64().ceil();
    let policy = format!("\"token\";q={};w={window}", rate.burst);
    let left = format!("\"token\";r={};t={next}", allowance.remaining);
    let header = |name, value: String| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?));
    [header("ratelimit-policy", policy), header("ratelimit", left)].into_iter().flatten().collect()
}

fn with_headers(mut answer: HttpResponse, headers: Headers) -> HttpResponse {
    answer.headers_mut().extend(headers);
    answer
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<HttpResponse, HttpProblem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "cannot encode a response as JSON");
        HttpProblem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written".to_owned())
    })?;
    Ok(json_answer(status, Bytes::from(body).into()))
}

fn json_answer(status: StatusCode, body: StaticBody) -> HttpResponse {
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Behind a token, and old in a moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn text(body: impl Into<Bytes>) -> HttpResponse {
    let mut answer = HttpResponse::new(body.into().into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
pub(in crate::http) mod tests {
    use super::*;
    use crate::http::api::Transport;
    use crate::http::{ApiAuth, BasicUsers, ServedTargets};

    pub(in crate::http) fn config() -> ServerConfig {
        ServerConfig {
            telemetry_path: "/metrics".to_owned(),
            auth: ApiAuth::Closed,
            token_rate: None,
            lifecycle: false,
            users: BasicUsers::default(),
            rate: None,
            memory_for_readers: 1 << 26,
            headers: Vec::new(),
            allowed_origins: Vec::new(),
            max_viewers: 1,
            tls: None,
            scalers: crate::http::Scalers::default(),
            targets: ServedTargets::new(Vec::new()),
            history: crate::store::history::History::nowhere(),
            deliveries: crate::store::deliveries::Deliveries::default(),
            forecasts: crate::store::forecasts::Forecasts::nowhere(),
            remediation: crate::store::remediation::desk().0,
            transport: Transport { mode: "http", fallback_to_http: true, publish_timeout: Duration::ZERO },
        }
    }
}
