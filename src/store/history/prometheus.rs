//! History from a server that speaks PromQL: Prometheus, Thanos, Mimir or VictoriaMetrics, by `query_range`.

mod answer;
pub(super) mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod promql;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::analysis::history::query::Range;
use crate::analysis::history::{Point, resample};
use crate::store::history::backend::{
    Answer, AnswerSink, HistoryBackend, HistoryQuery, HistorySource, HistoryUnavailable, Job,
};
use crate::store::history::memory::SeriesKey;
use crate::store::lock;
use crate::sys::files;
use crate::sys::http_client::{AnswerLimits, ClientError, HttpAnswer, HttpClient, HttpEndpoint, MAX_LOOKUPS};
use crate::sys::own_metrics::HistoryMetrics;
use answer::{Found, MAX_RATE_SPREAD};
pub use error::{OtherServer, QueryError, TokenFileError};

/// How long Prometheus may take for one query, from the connection to the end of the answer.
const QUERY_TIME: Duration = Duration::from_secs(10);

/// How long the file of the token may take to be read.
const TOKEN_TIME: Duration = Duration::from_secs(2);

/// Reads of that file at a time. One of a disk that hangs cannot be ended.
const TOKEN_READS: usize = 1;

/// How long all queries of one answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Bytes of the answer to one query: some eight times the longest one of one group. The series in it are bounded by them.
const QUERY_BYTES: usize = 32 << 20;

/// Requests that ask Prometheus at a time, each of which has one query at a time.
pub(super) const QUERIES_AT_ONCE: usize = 4;

/// Groups that are in one query.
const KEYS_AT_ONCE: usize = 100;

/// Steps of one query: Prometheus allows 11,000, and those that come before the first bucket are among them.
const STEPS_AT_ONCE: i64 = 10_000;

/// How often it is looked whether Prometheus answers.
const WATCHED: Duration = Duration::from_secs(30);

/// How long the start waits for the first answer.
const START_TIME: Duration = Duration::from_secs(3);

/// Where series are asked for, and where anything is to see whether it answers.
const QUERY_RANGE: &str = "/api/v1/query_range";
const QUERY: &str = "/api/v1/query";

const FORM: &str = "application/x-www-form-urlencoded";

/// Where Prometheus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Its URL.
    pub endpoint: HttpEndpoint,
    /// A file with a bearer token, read for each query.
    pub token_file: Option<PathBuf>,
    /// CA certificates in PEM; the system's where there are none.
    pub ca: Option<Vec<u8>>,
    /// Labels that the series must have beside their own.
    pub labels: Vec<(String, String)>,
}

/// A bearer token as a header has it.
///
/// # Errors
/// What is expected of the file.
pub fn token(file: &std::path::Path) -> Result<HeaderValue, TokenFileError> {
    let text = files::read_text(file)?;
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = is_token.then(|| HeaderValue::try_from(format!("Bearer {token}")).ok()).flatten();
    let mut header = header.ok_or(TokenFileError::NoToken)?;
    header.set_sensitive(true);
    Ok(header)
}

/// A server that is asked for history.
pub(super) struct Prometheus {
    config: PrometheusConfig,
    client: HttpClient,
    lookups: Arc<Semaphore>,
    token_reads: Arc<Semaphore>,
    metrics: HistoryMetrics,
    /// Whether it was logged that it does not answer.
    is_down: Mutex<bool>,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Prometheus {
    pub(super) fn new(config: PrometheusConfig, metrics: HistoryMetrics) -> Result<Self, ClientError> {
        let client = HttpClient::new(config.ca.as_deref())?;
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        let token_reads = Arc::new(Semaphore::new(TOKEN_READS));
        Ok(Self { config, client, lookups, token_reads, metrics, is_down: Mutex::new(false) })
    }

    /// Whether it answers as Prometheus does. What does not answer now may later.
    ///
    /// # Errors
    /// What else answers.
    pub(super) async fn check(&self) -> Result<(), OtherServer> {
        let asked = timeout(START_TIME, self.ping()).await;
        let result = asked.unwrap_or(Err(QueryError::Late(START_TIME)));
        if let Err(QueryError::NoPrometheus(found)) = result {
            return Err(found);
        }
        self.report(result.as_ref().err());
        Ok(())
    }

    /// Looks for whether it answers, again and again. Never ends.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(WATCHED).await;
            self.report(self.ping().await.err().as_ref());
        }
    }

    async fn ping(&self) -> Result<(), QueryError> {
        let HttpAnswer { status, body, .. } = self.query(QUERY, &[("query", "1")]).await?;
        off_worker((), move || answer::data::<IgnoredAny>(status, &body).map(drop)).await?
    }

    /// Says in the metric, and once in the log, whether it answers.
    fn report(&self, failure: Option<&QueryError>) {
        let mut is_down = lock(&self.is_down);
        let url = self.config.endpoint.without_path();
        match failure {
            // It refuses one query and answers.
            None | Some(QueryError::Refused { .. }) => {
                self.metrics.up.set(1);
                if std::mem::replace(&mut is_down, false) {
                    tracing::info!(url, "Prometheus answers again");
                }
            }
            Some(error) => {
                let error = error.to_string();
                self.metrics.up.set(0);
                if !std::mem::replace(&mut is_down, true) {
                    tracing::error!(url, error, "Prometheus does not answer; there is no history until it does");
                }
            }
        }
    }

    /// The answer, whatever it is.
    async fn query(&self, path: &str, parameters: &[(&str, &str)]) -> Result<HttpAnswer, QueryError> {
        const LIMITS: AnswerLimits = AnswerLimits { time: QUERY_TIME, bytes: QUERY_BYTES };
        let headers: Vec<_> = self.token().await?.map(|token| (AUTHORIZATION, token)).into_iter().collect();
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let mut sender = self.client.to(self.config.endpoint.below(path), &self.lookups);
        sender.ask(&headers, FORM, body.into(), LIMITS).await.map_err(|error| {
            if error.is_other_protocol { OtherServer::Protocol(error).into() } else { QueryError::NoAnswer(error) }
        })
    }

    /// The token as it is now. A file that cannot be read at once keeps one thread, and not one of each query.
    async fn token(&self) -> Result<Option<HeaderValue>, QueryError> {
        let Some(file) = self.config.token_file.clone() else { return Ok(None) };
        let reading = async {
            let permit = Arc::clone(&self.token_reads).acquire_owned().await;
            off_worker(permit, move || token(&file)).await?.map_err(QueryError::Token)
        };
        timeout(TOKEN_TIME, reading).await.unwrap_or(Err(QueryError::TokenLate(TOKEN_TIME))).map(Some)
    }

    /// Everything about some groups within a time, as text.
    async fn ask(
        &self,
        asked: &HistoryQuery,
        keys: &[SeriesKey],
        from: i64,
        to: i64,
    ) -> Result<HttpAnswer, QueryError> {
        let step = asked.range.step;
        let expression = promql::expression(keys, asked.of_first_target, &self.config.labels, step);
        let lead = MAX_RATE_SPREAD.max(step).div_euclid(step).saturating_mul(step);
        // Each bucket is looked at from its end.
        let start = from.saturating_sub(lead).saturating_add(step).to_string();
        let (end, step) = (to.to_string(), step.to_string());
        let parameters = [
            ("query", expression.as_str()),
            ("start", &start),
            ("end", &end),
            ("step", &step),
            ("timeout", QUERY_TIMEOUT),
            // VictoriaMetrics would show the newest samples as copies of older ones.
            ("latency_offset", "1ms"),
        ];
        self.query(QUERY_RANGE, &parameters).await
    }

    async fn answer(
        &self,
        asked: &HistoryQuery,
        mut take: AnswerSink,
        permit: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(), QueryError> {
        let Range { from, to, step } = asked.range;
        let from = Point::bucket(from, step);
        let to = Point::bucket(to.saturating_sub(1), step).saturating_add(step);
        for keys in asked.keys.chunks(KEYS_AT_ONCE) {
            let mut points: HashMap<SeriesKey, Vec<Point>> = HashMap::new();
            let mut start = from;
            while start < to {
                let end = start.saturating_add(STEPS_AT_ONCE.saturating_mul(step)).min(to);
                let HttpAnswer { status, body, .. } = self.ask(asked, keys, start, end).await?;
                let target = keys.first().map(|key| Arc::clone(&key.target));
                let reading = move || {
                    let found = Found::read(status, &body, step)?;
                    for key in target.iter().flat_map(|target| found.keys(target)) {
                        let more = found.points(&key, start, step);
                        points.entry(key).or_default().extend(more);
                    }
                    Ok::<_, QueryError>(points)
                };
                points = off_worker(Arc::clone(permit), reading).await??;
                start = end;
            }
            let keys = keys.to_vec();
            let giving = move || {
                for key in keys {
                    if let Some(points) = points.remove(&key) {
                        let points = resample(points, step);
                        take(key, Answer { source: HistorySource::Prometheus, points, hours_until: None });
                    }
                }
                take
            };
            take = off_worker(Arc::clone(permit), giving).await?;
        }
        Ok(())
    }
}

/// Does what takes a core or waits for a disk. What is held is so until it ends, also where nobody waits for it any more.
async fn off_worker<T: Send + 'static>(
    held: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueryError> {
    let work = move || {
        let _held = held;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| QueryError::Interrupted)
}

/// What Prometheus itself is told of [`QUERY_TIME`].
const QUERY_TIMEOUT: &str = "10s";

impl HistoryBackend for Prometheus {
    fn read(&self, job: Job) -> BoxFuture<'_, Result<(), HistoryUnavailable>> {
        Box::pin(async move {
            let Job { asked, take, permit } = job;
            let permit = Arc::new(permit);
            let answered = timeout(ANSWER_TIME, self.answer(&asked, take, &permit)).await;
            let result = answered.unwrap_or(Err(QueryError::Incomplete(ANSWER_TIME)));
            self.report(result.as_ref().err());
            result
                .map_err(|error| HistoryUnavailable::Prometheus { authority: self.config.endpoint.authority(), error })
        })
    }
}
