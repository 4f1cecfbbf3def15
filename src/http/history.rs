//! Requests for history and trends: parameters in, an answer of the store out.

use std::time::SystemTime;

use hyper::StatusCode;

use crate::analysis::forecast;
use crate::analysis::history::query::{InvalidQuery, MAX_POINTS, Range, duration, unix_seconds};
use crate::analysis::history::trends::Trend;
use crate::http::api::Api;
use crate::http::api::forecast::ForecastBody;
use crate::http::api::history::{HistoryBody, TrendsBody};
use crate::http::problem::{HttpProblem, unavailable};
use crate::http::response_body::HttpResponse;
use crate::http::route::query_parameter;
use crate::http::server_config::ServerConfig;
use crate::http::targets::ServedTarget;
use crate::store::forecasts::NotMade;
use crate::store::history::memory::SeriesKey;
use crate::store::history::{Answer, History, HistoryQuery, MEMORY_RETENTION};

/// Names that an answer to an unknown one lists, at most.
const MAX_LISTED: usize = 10;

/// The longest horizon of a forecast, seconds.
const MAX_FORECAST: i64 = forecast::MAX_HORIZON as i64;

/// Points that a trend is made of, about.
const TREND_POINTS: i64 = 120;

/// Groups whose trends are in one answer, at most.
const MAX_TRENDS: usize = 10_000;

/// The longest window of a trend, seconds.
const MAX_WINDOW: i64 = 400 * 86_400;

impl From<InvalidQuery> for HttpProblem {
    fn from(invalid: InvalidQuery) -> Self {
        Self::new(StatusCode::BAD_REQUEST, invalid.to_string())
    }
}

struct Parameters<'a> {
    query: Option<&'a str>,
    target: &'a ServedTarget,
    history: &'a History,
    is_first: bool,
}

impl<'a> Parameters<'a> {
    fn new(query: Option<&'a str>, target: &'a ServedTarget, policy: &'a ServerConfig) -> Self {
        Self { query, target, history: &policy.history, is_first: policy.targets.is_first(target) }
    }

    fn of(&self, keys: Vec<SeriesKey>, range: Range) -> HistoryQuery {
        HistoryQuery { keys, range, of_first_target: self.is_first }
    }

    /// The points of one group.
    async fn points(&self, key: &SeriesKey, range: Range) -> Result<Answer, HttpProblem> {
        let answer = self.history.points(self.of(vec![key.clone()], range)).await;
        let answer = answer.map_err(|error| unavailable(self.target, &error.to_string()))?;
        answer.ok_or_else(|| self.missing(key))
    }

    fn get(&self, name: &str) -> Option<String> {
        query_parameter(self.query, name).filter(|value| !value.is_empty()).map(|value| value.into_owned())
    }

    fn key(&self, stream: &str, group: &str) -> SeriesKey {
        SeriesKey { target: self.target.name.as_str().into(), stream: stream.into(), group: group.into() }
    }

    /// The stream and group that are asked for.
    fn series(&self, policy: &ServerConfig) -> Result<SeriesKey, HttpProblem> {
        let stream = self.get("stream").ok_or_else(|| self.unknown("stream", "", |key| key.stream.to_string()))?;
        let group = self.get("group").or_else(|| self.first_group(policy));
        let group = group.ok_or_else(|| self.unknown("group", "", |key| key.group.to_string()))?;
        Ok(self.key(&stream, &group))
    }

    /// Which of the two there has never been.
    fn missing(&self, key: &SeriesKey) -> HttpProblem {
        if self.history.keys(&key.target).into_iter().any(|known| known.stream == key.stream) {
            self.unknown("group", &key.group, |key| key.group.to_string())
        } else {
            self.unknown("stream", &key.stream, |key| key.stream.to_string())
        }
    }

    /// The default group, where none is asked for.
    fn first_group(&self, policy: &ServerConfig) -> Option<String> {
        let published = self.target.reader.newest();
        let api = Api {
            view: &published.view,
            age: None,
            thresholds: &self.target.thresholds,
            selection: &self.target.selection,
            transport: policy.transport,
        };
        api.first_group().map(|group| group.display_name().into_owned())
    }

    /// What is said of a stream or group that there has never been one of.
    fn unknown(&self, name: &str, value: &str, known: impl Fn(&SeriesKey) -> String) -> HttpProblem {
        let mut names: Vec<String> = self.history.keys(&self.target.name.to_string()).iter().map(known).collect();
        names.dedup();
        names.sort_unstable();
        names.dedup();
        let more = if names.len() > MAX_LISTED { ", …" } else { "" };
        let listed = names[..names.len().min(MAX_LISTED)].join(", ");
        let expected = if listed.is_empty() {
            "one that has been sampled, and none has been yet".to_owned()
        } else {
            format!("one that has been sampled: {listed}{more}")
        };
        InvalidQuery::new(value, name, &expected).into()
    }
}

/// `GET /api/v1/events/history`.
pub(super) async fn history(
    policy: &ServerConfig,
    target: &ServedTarget,
    query: Option<&str>,
    json: impl Fn(&HistoryBody<'_>) -> Result<HttpResponse, HttpProblem>,
) -> Result<HttpResponse, HttpProblem> {
    let asked = Parameters::new(query, target, policy);
    let or = |name: &str, default: &str| asked.get(name).unwrap_or_else(|| default.to_owned());
    let now = unix_seconds(SystemTime::now());
    let range = Range::parse(&or("from", "-1h"), &or("to", "now"), &or("step", "60s"), now)?;
    let key = asked.series(policy)?;
    let answer = asked.points(&key, range).await?;
    json(&HistoryBody::new(&key, range, &answer))
}

/// `GET /api/v1/events/forecast`.
pub(super) async fn forecast(
    policy: &ServerConfig,
    target: &ServedTarget,
    query: Option<&str>,
    json: impl Fn(&ForecastBody<'_>) -> Result<HttpResponse, HttpProblem>,
) -> Result<HttpResponse, HttpProblem> {
    let asked = Parameters::new(query, target, policy);
    let horizon = duration(&asked.get("horizon").unwrap_or_else(|| "1h".to_owned()), "horizon", 60, MAX_FORECAST)?;
    let key = asked.series(policy)?;
    match policy.forecasts.of(&key, horizon).await {
        Ok(made) => json(&ForecastBody::new(&key, &made)),
        Err(NotMade::Unknown) => Err(asked.missing(&key)),
        Err(NotMade::Unavailable(error)) => Err(unavailable(target, &error.to_string())),
        Err(NotMade::Interrupted) => Err(unavailable(target, "the forecast was interrupted")),
    }
}

/// `GET /api/v1/events/trends`: of every group, or of those of a stream or a name.
pub(super) async fn trends(
    policy: &ServerConfig,
    target: &ServedTarget,
    query: Option<&str>,
    json: impl Fn(&TrendsBody<'_>) -> Result<HttpResponse, HttpProblem>,
) -> Result<HttpResponse, HttpProblem> {
    let asked = Parameters::new(query, target, policy);
    let text = asked.get("window").unwrap_or_else(|| "1h".to_owned());
    let window = duration(&text, "window", 1, MAX_WINDOW)?;
    let (stream, group) = (asked.get("stream"), asked.get("group"));
    let mut keys = policy.history.keys(target.name.as_str());
    let is_wanted = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    keys.retain(|key| is_wanted(&stream, &key.stream) && is_wanted(&group, &key.group));
    if let (true, Some(stream), Some(group)) = (keys.is_empty(), &stream, &group) {
        // Memory may have forgotten it, and the file not.
        keys.push(asked.key(stream, group));
    }
    let is_narrow = stream.is_some() && group.is_some();
    if window > MEMORY_RETENTION && !is_narrow {
        let expected = "a window of at most 2h, or stream and group with a longer one";
        return Err(InvalidQuery::new(&text, "window", expected).into());
    }
    if keys.len() > MAX_TRENDS {
        let count = keys.len();
        let detail = format!("{count} groups are more than {MAX_TRENDS}: expected stream or group to choose some");
        return Err(HttpProblem::new(StatusCode::BAD_REQUEST, detail));
    }
    let step = (window / TREND_POINTS).clamp(1, MAX_POINTS);
    let range = Range::last(window, step, unix_seconds(SystemTime::now()));
    let made = |key: &SeriesKey, answer: Answer| (key.clone(), answer.source, Trend::of(&answer.points));
    let trends = policy.history.each(asked.of(keys, range), made).await;
    let mut trends = trends.map_err(|error| unavailable(target, &error.to_string()))?;
    trends.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
    if trends.is_empty() {
        if let Some(group) = &group {
            return Err(asked.unknown("group", group, |key| key.group.to_string()));
        }
        if let Some(stream) = &stream {
            return Err(asked.unknown("stream", stream, |key| key.stream.to_string()));
        }
    }
    json(&TrendsBody::new(range, &trends))
}
