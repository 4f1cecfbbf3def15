//! `GET /api/v1/scale/NAME` and `/api/v1/scale`: one value for an autoscaler.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::analysis::scaling::{CONSUMERS_TARGET, DEFAULT_LOOK_AHEAD, Demand, Scaler, Signal};
use crate::http::api::seconds;
use crate::http::route::{ParameterError, parameters};
use crate::model::text::rfc3339;

/// Characters that are repeated of what a query has wrong.
const MAX_REPEATED: usize = 80;

/// The keys of an undeclared scaler's query.
const KEYS: [&str; 6] = ["stream", "group", "signal", "target", "look_ahead", "redis_target"];

/// The shortest time that a forecast may look ahead.
pub const MIN_LOOK_AHEAD: Duration = Duration::from_secs(1);

/// The longest.
pub const MAX_LOOK_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// A value for an autoscaler.
#[derive(Serialize)]
struct Scale<'a> {
    name: Option<&'a str>,
    value: u64,
    target: f64,
    active: bool,
    signal: &'static str,
    quality: &'static str,
    lag: u64,
    lag_max: u64,
    pending: Option<u64>,
    in_flight: Option<u64>,
    recommended_consumers: Option<u64>,
    reason: String,
    sampled_at: Option<String>,
    age_seconds: f64,
}

/// What a scaler is told; `name` is `None` where it is not declared.
#[must_use]
pub fn scale<'a>(
    name: Option<&'a str>,
    scaler: &Scaler,
    demand: Demand,
    sampled_at: Option<SystemTime>,
    age: Duration,
) -> impl Serialize + use<'a> {
    Scale {
        name,
        value: demand.value,
        target: scaler.target,
        active: demand.value > 0,
        signal: scaler.signal.as_str(),
        quality: demand.lag.quality().as_str(),
        lag: demand.lag.point,
        lag_max: demand.lag.max,
        pending: demand.pending,
        in_flight: demand.in_flight,
        recommended_consumers: demand.recommended,
        reason: demand.reason,
        sampled_at: sampled_at.map(rfc3339),
        age_seconds: seconds(age),
    }
}

/// Why a value of a scaler cannot be used: what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScalerValueError {
    /// No signal.
    #[error("expected one of {}", Signal::ALL.map(Signal::as_str).join(", "))]
    Signal,
    /// No target.
    #[error("expected a number above 0, such as 100")]
    Target,
    /// Another target than a number of replicas can have.
    #[error("expected 1, as the signal consumers is a number of replicas")]
    TargetOfConsumers,
    /// A time where none is looked ahead.
    #[error("expected only with the signal forecast")]
    NotForecast,
    /// No duration, or none within bounds.
    #[error("expected a duration between 1s and 1d, such as 5m")]
    LookAhead,
}

/// Why the query of an undeclared scaler cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleQueryError {
    /// A parameter that there is not, or twice.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// One without a value.
    #[error("the query parameter {0} is empty: expected a value")]
    Empty(&'static str),
    /// It says of no stream.
    #[error("expected a stream, as in ?stream=NAME&group=GROUP")]
    NoStream,
    /// A value that cannot be used.
    #[error("invalid value {value:?} for {key}: {error}")]
    Value {
        /// The parameter.
        key: &'static str,
        /// The beginning of its value.
        value: String,
        /// What was expected.
        error: ScalerValueError,
    },
}

/// What the query of an undeclared scaler asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleQuery {
    /// The stream by its name.
    pub stream: String,
    /// The group by its name, where one is given.
    pub group: Option<String>,
    /// By what to scale.
    pub signal: Signal,
    /// The value that one replica should have, where it is given.
    pub target: Option<f64>,
    /// How far ahead a forecast looks.
    pub look_ahead: Duration,
    /// The target whose stream it is, where one is given.
    pub redis_target: Option<String>,
}

/// Reads the query of an undeclared scaler.
///
/// # Errors
/// What is wrong with it.
pub fn asked(query: Option<&str>) -> Result<ScaleQuery, ScaleQueryError> {
    let mut given = parameters(query, &KEYS)?;
    if let Some((key, _)) = given.iter().find(|(_, value)| value.is_empty()) {
        return Err(ScaleQueryError::Empty(key));
    }
    let stream = given.remove("stream").ok_or(ScaleQueryError::NoStream)?;
    let signal = match given.remove("signal") {
        Some(word) => signal(&word).map_err(|why| invalid("signal", &word, why))?,
        None => Signal::default(),
    };
    let target = match given.remove("target") {
        Some(text) => Some(target(&text, signal).map_err(|why| invalid("target", &text, why))?),
        None => None,
    };
    let look_ahead = match given.remove("look_ahead") {
        Some(text) => look_ahead(&text, signal).map_err(|why| invalid("look_ahead", &text, why))?,
        None => DEFAULT_LOOK_AHEAD,
    };
    Ok(ScaleQuery {
        stream,
        group: given.remove("group"),
        signal,
        target,
        look_ahead,
        redis_target: given.remove("redis_target"),
    })
}

/// Nothing may be asked of a declared scaler.
///
/// # Errors
/// Which parameter was given.
pub fn nothing_asked(query: Option<&str>) -> Result<(), ParameterError> {
    parameters(query, &[]).map(drop)
}

fn invalid(key: &'static str, value: &str, error: ScalerValueError) -> ScaleQueryError {
    ScaleQueryError::Value { key, value: value.chars().take(MAX_REPEATED).collect(), error }
}

/// A signal by its word.
///
/// # Errors
/// What was expected.
pub fn signal(word: &str) -> Result<Signal, ScalerValueError> {
    Signal::parse(word).ok_or(ScalerValueError::Signal)
}

/// The target of a signal.
///
/// # Errors
/// What was expected.
pub fn target(text: &str, signal: Signal) -> Result<f64, ScalerValueError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: Option<f64> = if plain { text.parse().ok() } else { None };
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    match (number, signal) {
        (None, _) => Err(ScalerValueError::Target),
        (Some(number), Signal::Consumers) if number != CONSUMERS_TARGET => Err(ScalerValueError::TargetOfConsumers),
        (Some(number), _) => Ok(number),
    }
}

/// How far ahead a forecast looks.
///
/// # Errors
/// What was expected.
pub fn look_ahead(text: &str, signal: Signal) -> Result<Duration, ScalerValueError> {
    if signal != Signal::Forecast {
        return Err(ScalerValueError::NotForecast);
    }
    let duration = humantime::parse_duration(text).ok();
    let duration = duration.filter(|duration| (MIN_LOOK_AHEAD..=MAX_LOOK_AHEAD).contains(duration));
    duration.ok_or(ScalerValueError::LookAhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let found = asked(Some("stream=a%2Fb&group=g&signal=lag&target=2.5&redis_target=t")).unwrap();
        let expected = ScaleQuery {
            stream: "a/b".to_owned(),
            group: Some("g".to_owned()),
            signal: Signal::Lag,
            target: Some(2.5),
            look_ahead: DEFAULT_LOOK_AHEAD,
            redis_target: Some("t".to_owned()),
        };
        assert_eq!(found, expected);
        let bare = asked(Some("stream=s")).unwrap();
        assert_eq!((bare.signal, bare.target, bare.group), (Signal::Work, None, None));
        let ahead = asked(Some("stream=s&signal=forecast&look_ahead=10m")).unwrap();
        assert_eq!((ahead.signal, ahead.look_ahead), (Signal::Forecast, Duration::from_secs(600)));
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named() {
        let check = |query: Option<&str>, expected: &str| {
            let error = asked(query).unwrap_err().to_string();
            assert!(error.contains(expected), "{query:?}: {error}");
        };
        check(None, "expected a stream");
        check(Some("group=g"), "expected a stream");
        check(Some("stream="), "stream is empty");
        check(Some("stream=a&stream=b"), "stream is given twice");
        check(Some("stream=a&Group=g"), "unknown query parameter \"Group\": expected stream, group, signal");
        check(Some("stream=a&signal=lags"), "invalid value \"lags\" for signal: expected one of lag, work, consumers");
        for target in ["0", "-1", "nan", "inf", "1e3", "", "x", "0.0"] {
            assert!(asked(Some(&format!("stream=a&target={target}"))).is_err(), "{target}");
        }
        check(Some("stream=a&signal=consumers&target=5"), "invalid value \"5\" for target: expected 1");
        check(Some("stream=a&look_ahead=5m"), "only with the signal forecast");
        check(Some("stream=a&signal=forecast&look_ahead=0s"), "between 1s and 1d");
        let long = "x".repeat(5000);
        assert!(asked(Some(&format!("stream=a&{long}=1"))).unwrap_err().to_string().len() < 300);
        assert!(nothing_asked(None).is_ok() && nothing_asked(Some("")).is_ok());
        assert!(nothing_asked(Some("stream=a")).unwrap_err().to_string().contains("expected none here"));
    }
}
