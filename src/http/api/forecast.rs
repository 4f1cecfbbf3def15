//! The JSON of a forecast.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::analysis::forecast::{Skill, TimeTo};
use crate::model::text::rfc3339;
use crate::store::forecasts::Made;
use crate::store::history::memory::SeriesKey;

/// How forecasts are made.
const METHOD: &str = "queue simulation of arrivals and capacity, conformal widths";

/// `GET /api/v1/events/forecast`.
#[derive(Serialize)]
pub(crate) struct ForecastBody<'a> {
    stream: &'a str,
    consumer_group: &'a str,
    horizon_seconds: f64,
    made_at: String,
    method: &'static str,
    points: Option<Vec<LagQuantilesRow>>,
    time_to: TimesRow,
    skill: SkillRow,
    replay: Option<SkillRow>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct LagQuantilesRow {
    time: String,
    q025: f64,
    q05: f64,
    q10: f64,
    q50: f64,
    q90: f64,
    q95: f64,
    q975: f64,
}

#[derive(Serialize)]
struct TimesRow {
    degraded: Option<TimeRow>,
    unhealthy: Option<TimeRow>,
    drained: Option<TimeRow>,
    loss: Option<TimeRow>,
}

#[derive(Serialize)]
struct TimeRow {
    q10: f64,
    q50: Option<f64>,
    q90: Option<f64>,
}

#[derive(Serialize)]
struct SkillRow {
    mase: Option<f64>,
    coverage_80: Option<f64>,
    forecasts: u64,
}

impl From<TimeTo> for TimeRow {
    fn from(time: TimeTo) -> Self {
        Self { q10: time.q10, q50: time.q50, q90: time.q90 }
    }
}

impl From<Skill> for SkillRow {
    fn from(skill: Skill) -> Self {
        Self { mase: skill.mase, coverage_80: skill.coverage_80, forecasts: skill.forecasts }
    }
}

/// Seconds since the Unix epoch as the API writes times; none before it.
fn time(seconds: f64) -> String {
    rfc3339(UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

impl<'a> ForecastBody<'a> {
    pub(crate) fn new(key: &'a SeriesKey, made: &Made) -> Self {
        let Made { forecast, skill } = made;
        let row = |time_to: Option<TimeTo>| time_to.map(TimeRow::from);
        let points = forecast.points.as_ref().ok().map(|points| {
            let row = |at: &crate::analysis::forecast::LagQuantiles| LagQuantilesRow {
                time: time(at.time),
                q025: at.q025,
                q05: at.q05,
                q10: at.q10,
                q50: at.q50,
                q90: at.q90,
                q95: at.q95,
                q975: at.q975,
            };
            points.iter().map(row).collect()
        });
        Self {
            stream: &key.stream,
            consumer_group: &key.group,
            horizon_seconds: forecast.horizon,
            made_at: time(forecast.made_at),
            method: METHOD,
            points,
            time_to: TimesRow {
                degraded: row(forecast.time_to.degraded),
                unhealthy: row(forecast.time_to.unhealthy),
                drained: row(forecast.time_to.drained),
                loss: row(forecast.time_to.loss),
            },
            skill: (*skill).into(),
            replay: forecast.replay.map(SkillRow::from),
            reason: forecast.points.as_ref().err().map(ToString::to_string),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analysis::forecast::{Forecast, LagQuantiles, TimesTo};

    #[test]
    fn a_forecast_has_its_quantiles_and_times() {
        let key = SeriesKey { target: "default".into(), stream: "orders".into(), group: "billing".into() };
        let point = LagQuantiles { time: 60.0, q025: 0.5, q05: 1.0, q10: 2.0, q50: 3.0, q90: 4.0, q95: 5.0, q975: 6.0 };
        let time_to = TimesTo { loss: Some(TimeTo { q10: 60.0, q50: None, q90: None }), ..TimesTo::default() };
        let replay = Some(Skill { mase: Some(0.5), coverage_80: Some(0.8), forecasts: 40 });
        let forecast = Forecast { made_at: 0.0, horizon: 60.0, points: Ok(vec![point]), time_to, replay };
        let skill = Skill { mase: Some(0.7), coverage_80: Some(0.9), forecasts: 21 };
        let expected = json!({
            "stream": "orders",
            "consumer_group": "billing",
            "horizon_seconds": 60.0,
            "made_at": "1970-01-01T00:00:00.000Z",
            "method": METHOD,
            "points": [{
                "time": "1970-01-01T00:01:00.000Z",
                "q025": 0.5, "q05": 1.0, "q10": 2.0, "q50": 3.0, "q90": 4.0, "q95": 5.0, "q975": 6.0,
            }],
            "time_to": {"degraded": null, "unhealthy": null, "drained": null, "loss": {"q10": 60.0, "q50": null, "q90": null}},
            "skill": {"mase": 0.7, "coverage_80": 0.9, "forecasts": 21},
            "replay": {"mase": 0.5, "coverage_80": 0.8, "forecasts": 40},
            "reason": null,
        });
        let body = |forecast: &Forecast, skill| {
            let made = Made { forecast: forecast.clone().judged_by(&skill), skill };
            serde_json::to_value(ForecastBody::new(&key, &made)).unwrap()
        };
        assert_eq!(body(&forecast, skill), expected);
        let withheld = body(&forecast, Skill { mase: Some(1.2), ..skill });
        let nothing = json!({"degraded": null, "unhealthy": null, "drained": null, "loss": null});
        assert_eq!((&withheld["points"], &withheld["time_to"]), (&json!(null), &nothing));
        assert!(
            withheld["reason"].as_str().unwrap().starts_with("the last 21 forecasts were not better"),
            "{withheld}"
        );
    }
}
