//! From a request of an autoscaler to its answer: a number, or an error that says why there is none.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;
use tokio::time::Instant;

use crate::analysis::scaling::{CONSUMERS_TARGET, DemandUnknown, LagForecasts, ScaledStreams, Scaler, Signal};
use crate::http::api::scale::{MAX_LOOK_AHEAD, ScaleQuery, asked, nothing_asked, scale};
use crate::http::problem::{HttpProblem, unavailable};
use crate::http::server_config::ServerConfig;
use crate::http::targets::ServedTarget;
use crate::model::{GroupName, StreamKey};
use crate::store::forecasts::{Forecasts, NotMade};
use crate::store::history::memory::SeriesKey;

/// Streams of a scaler that are forecast, at most: of more, those with most lag. Each takes milliseconds.
const MAX_FORECAST: usize = 32;

/// The shortest horizon of a forecast, seconds: history has a point a minute.
const MIN_HORIZON: u64 = 60;

/// `GET /api/v1/scale/NAME`.
pub(super) async fn declared<'a>(
    policy: &ServerConfig,
    name: &'a str,
    query: Option<&str>,
) -> Result<impl Serialize + use<'a>, HttpProblem> {
    let declared =
        policy.scalers.find(name).ok_or_else(|| not_found(format!("the scaler {name:?} is not declared")))?;
    nothing_asked(query).map_err(bad_request)?;
    let target = policy.targets.find(Some(declared.redis_target.as_str()));
    let target = target.ok_or_else(|| not_found(format!("the target {} is not declared", declared.redis_target)))?;
    let forecasts = ahead(&policy.forecasts, &declared.scaler, target).await;
    answer(Some(name), &declared.scaler, target, &forecasts)
}

/// `GET /api/v1/scale?stream=S&group=G`.
pub(super) async fn undeclared(
    policy: &ServerConfig,
    query: Option<&str>,
) -> Result<impl Serialize + use<>, HttpProblem> {
    let asked = asked(query).map_err(bad_request)?;
    let found = policy.targets.find(asked.redis_target.as_deref());
    let target = found.ok_or_else(|| not_found("there is no such redis_target".to_owned()))?;
    let scaler = scaler(asked, target)?;
    let forecasts = ahead(&policy.forecasts, &scaler, target).await;
    answer(None, &scaler, target, &forecasts)
}

/// What is forecast of the streams of a scaler that goes by it.
async fn ahead(forecasts: &Forecasts, scaler: &Scaler, target: &ServedTarget) -> LagForecasts {
    let mut found = LagForecasts::new();
    if scaler.signal != Signal::Forecast {
        return found;
    }
    let keys: Vec<StreamKey> = {
        let view = &target.reader.newest().view;
        scaler.present(view).into_iter().take(MAX_FORECAST).cloned().collect()
    };
    let horizon = scaler.look_ahead.as_secs().clamp(MIN_HORIZON, MAX_LOOK_AHEAD.as_secs());
    for key in keys {
        let series = SeriesKey {
            target: target.name.as_str().into(),
            stream: key.display_name().into(),
            group: scaler.group.display_name().into(),
        };
        let made = match forecasts.of(&series, horizon.cast_signed()).await {
            Ok(made) => made,
            Err(NotMade::Unknown) => continue,
            // The next would wait as long.
            Err(NotMade::Unavailable(_) | NotMade::Interrupted) => break,
        };
        let lag = made.forecast.points.ok().and_then(|points| points.last().map(|last| last.q90));
        found.extend(lag.map(|lag| (key, lag)));
    }
    found
}

fn answer<'a>(
    name: Option<&'a str>,
    scaler: &Scaler,
    target: &ServedTarget,
    forecasts: &LagForecasts,
) -> Result<impl Serialize + use<'a>, HttpProblem> {
    let published = target.reader.newest();
    let age = published.sampled.map_or(Duration::ZERO, |sampled| sampled.elapsed());
    let demand = scaler.demand_with(&published.view, target.drain_target, forecasts);
    let unknown = match demand {
        Ok(_) if published.fresh_until.is_none_or(|until| until <= Instant::now()) => DemandUnknown::Aged(age),
        Ok(demand) => return Ok(scale(name, scaler, demand, published.view.last_success, age)),
        Err(unknown) => unknown,
    };
    Err(unavailable(target, &unknown.to_string()))
}

/// The scaler that a query asks for. What is not monitored is not to be had.
fn scaler(asked: ScaleQuery, target: &ServedTarget) -> Result<Scaler, HttpProblem> {
    let ScaleQuery { stream, group, signal, target: value, look_ahead, .. } = asked;
    let view = &target.reader.newest().view;
    // A name that is not UTF-8 can only be asked for as it is shown.
    let shown = view.streams.iter().map(|known| &known.key).find(|key| key.display_name() == stream).cloned();
    // A name is sampled also where it does not exist. What only a pattern would find may be there by now.
    let unknown =
        || format!("the stream {stream:?} is not monitored, or patterns have not found it: name it in streams");
    let key = shown.ok_or_else(|| not_found(unknown()))?;
    let group = match group {
        Some(name) => {
            let mut all = view.streams.iter().flat_map(|stream| &stream.groups).map(|group| &group.name);
            let by_name = || Some(GroupName::from(name.as_str())).filter(|group| target.selection.contains(group));
            let group = all.find(|group| group.display_name() == name).cloned().or_else(by_name);
            group.ok_or_else(|| not_found(format!("the group {name:?} is not monitored")))?
        }
        None => target.selection.literals().first().cloned().ok_or_else(|| {
            bad_request("expected a group, as in ?stream=NAME&group=GROUP: only patterns are monitored")
        })?,
    };
    let value = value.unwrap_or_else(|| match signal {
        Signal::Consumers => CONSUMERS_TARGET,
        Signal::Lag | Signal::Work | Signal::Forecast => target.thresholds.of(&key).degraded as f64,
    });
    Ok(Scaler { streams: ScaledStreams::named(key), group, signal, target: value, look_ahead })
}

fn not_found(detail: String) -> HttpProblem {
    HttpProblem::new(StatusCode::NOT_FOUND, detail)
}

fn bad_request(why: impl std::fmt::Display) -> HttpProblem {
    HttpProblem::new(StatusCode::BAD_REQUEST, why.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;
    use crate::analysis::snapshot::{StreamSnapshot, TargetSnapshot};
    use crate::analysis::view::View;
    use crate::exposition::collectors::Collectors;
    use crate::exposition::encoding::{EncodedPage, Page};
    use crate::model::sample::{ReadError, TargetMeta};
    use crate::model::thresholds::Thresholds;
    use crate::model::{GroupSelection, TargetName};
    use crate::store::latest::{self, Published};

    /// A stream that does not exist, sampled now and fresh for so long.
    fn published(fresh_for: Option<Duration>) -> Published {
        let stream = StreamSnapshot {
            key: "orders".into(),
            read: Err(ReadError::Missing),
            groups: Vec::new(),
            groups_left_out: 0,
        };
        let snapshot = TargetSnapshot { meta: TargetMeta::at(SystemTime::UNIX_EPOCH), streams: vec![stream] };
        let now = Instant::now();
        let page = Page::lazy(|| EncodedPage::short(&[], &bytes::Bytes::new()));
        let fresh_until = fresh_for.map(|time| now + time);
        Published { view: View::from(snapshot), sampled: Some(now), fresh_until, next_by: now, page }
    }

    fn answered(target: &ServedTarget) -> Result<Value, HttpProblem> {
        let asked = asked(Some("stream=orders&group=g")).unwrap();
        let answer = answer(None, &scaler(asked, target)?, target, &LagForecasts::new())?;
        Ok(serde_json::to_value(answer).unwrap())
    }

    /// The poller withdraws what is too old with its next poll. A reader does not wait for that.
    #[tokio::test(start_paused = true)]
    async fn a_sample_that_nobody_withdrew_ends_all_the_same() {
        let (mut publisher, reader) = latest::channel(published(Some(Duration::from_secs(15))), None);
        let target = ServedTarget {
            name: TargetName::default(),
            redis: String::new(),
            mode: "standalone",
            thresholds: Thresholds { degraded: 100, unhealthy: 1000 }.into(),
            selection: GroupSelection::new(vec!["g".to_owned()]),
            drain_target: Duration::from_secs(60),
            interval: Duration::from_secs(5),
            collectors: Collectors::ALL,
            reader,
        };
        let fresh = answered(&target).unwrap_or_else(|problem| panic!("{}", problem.detail));
        assert_eq!((&fresh["value"], &fresh["target"]), (&Value::from(0), &Value::from(100.0)));
        tokio::time::advance(Duration::from_secs(15)).await;
        let Err(problem) = answered(&target) else { panic!("a number of a sample that is too old") };
        assert_eq!(
            (problem.status, problem.detail.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "the newest sample is 15.0 s old")
        );
        publisher.publish(published(None));
        assert!(answered(&target).is_err());
    }
}
