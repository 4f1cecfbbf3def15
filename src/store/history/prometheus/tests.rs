use hyper::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::analysis::group_state::GroupState;
use promql::Part;

const STEP: i64 = 60;

fn key() -> SeriesKey {
    SeriesKey { target: "default".into(), stream: "s".into(), group: "g".into() }
}

/// A part of an answer: times are the ends of buckets.
fn part(part: Part, labels: &Value, values: &[(i64, &str)]) -> Value {
    let mut metric = json!({"streamlag_part": (part as usize).to_string(), "stream": "s", "job": "streamlag"});
    if ![Part::Length, Part::Added].contains(&part) {
        metric["consumer_group"] = json!("g");
    }
    metric.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    json!({"metric": metric, "values": values})
}

fn found(parts: Vec<Value>) -> Found {
    let answer = json!({"status": "success", "data": {"resultType": "matrix", "result": parts}});
    Found::read(StatusCode::OK, answer.to_string().as_bytes(), STEP).unwrap()
}

fn points(parts: Vec<Value>) -> Vec<Point> {
    found(parts).points(&key(), 0, STEP)
}

/// What a replica tells of an exact lag.
fn replica(name: &str, lags: &[(i64, &str)]) -> Vec<Value> {
    let labels = json!({"replica": name});
    let same: Vec<(i64, &str)> = lags.iter().map(|(time, _)| (*time, "0")).collect();
    vec![part(Part::Lag, &labels, lags), part(Part::Uncertainty, &labels, &same)]
}

#[test]
fn replicas_are_one_and_fill_each_others_gaps() {
    let one = replica("a", &[(60, "7"), (180, "9")]);
    let other = replica("b", &[(60, "7"), (120, "8"), (180, "9")]);
    let points = points([one, other].concat());
    let seen: Vec<_> = points.iter().map(|point| (point.time, point.lag, point.bound_min, point.bound_max)).collect();
    assert_eq!(seen, [(0, 7, 7, 7), (60, 8, 8, 8), (120, 9, 9, 9)]);
}

#[test]
fn replicas_that_do_not_agree_make_no_exact_lag() {
    let points = points([replica("a", &[(60, "7")]), replica("b", &[(60, "1000")])].concat());
    assert_eq!((points.len(), points[0].bound_min, points[0].lowest, points[0].highest), (1, 7, 7, 1000));
    // One more than any replica says: nothing tells which of the two is right.
    assert!(!points[0].is_exact() && points[0].bound_max == 1001, "{points:?}");
    // Of the same lags in another order, the last ones differ.
    let around = |name: &str| {
        let labels = json!({"replica": name});
        vec![part(Part::Lowest, &labels, &[(60, "1")]), part(Part::Highest, &labels, &[(60, "9")])]
    };
    let [one, other] = [("a", "1"), ("b", "9")].map(|(name, lag)| [replica(name, &[(60, lag)]), around(name)].concat());
    let points = super::tests::points([one, other].concat());
    assert!(!points[0].is_exact(), "{points:?}");
}

#[test]
fn a_bounded_lag_stays_bounded_and_what_is_not_told_is_not_known() {
    let none = json!({});
    let lag = part(Part::Lag, &none, &[(60, "50"), (120, "60")]);
    let points = points(vec![lag, part(Part::Uncertainty, &none, &[(60, "20")])]);
    assert_eq!((points[0].bound_min, points[0].bound_max), (30, 70));
    assert_eq!((points[1].bound_min, points[1].bound_max), (0, u64::MAX), "any lag may be");
    let Point { samples, lag_ms, pending, length, added_milli, delivered_milli, consumers, lost, state, .. } =
        points[0];
    assert_eq!((samples, lag_ms, pending, length), (1, None, None, None));
    assert_eq!((added_milli, delivered_milli, consumers, lost, state), (None, None, None, None, None));
}

/// The parts of a bucket come by selectors of their own, of which one may be answered in part.
#[test]
fn a_smallest_lag_above_the_last_is_no_panic() {
    let none = json!({});
    let lag = part(Part::Lag, &none, &[(60, "50")]);
    let points = points(vec![lag, part(Part::Lowest, &none, &[(60, "70")]), part(Part::Mean, &none, &[(60, "60")])]);
    assert_eq!((points[0].lowest, points[0].mean, points[0].highest), (50, 50.0, 50));
}

#[test]
fn rates_are_of_two_samples_of_one_counter() {
    let none = json!({});
    let times: Vec<(i64, &str)> = vec![(60, "55"), (120, "115"), (180, "175"), (900, "895")];
    let lags: Vec<(i64, &str)> = times.iter().map(|(time, _)| (*time, "1")).collect();
    let counter = [(60, "100"), (120, "220"), (180, "10"), (900, "10000")];
    let points = points(vec![
        part(Part::Lag, &none, &lags),
        part(Part::SampledAt, &none, &times),
        part(Part::Delivered, &none, &counter),
        part(Part::Added, &none, &counter),
    ]);
    let rates: Vec<_> = points.iter().map(|point| (point.added_milli, point.delivered_milli)).collect();
    let two = (Some(2000), Some(2000));
    assert_eq!(rates, [(None, None), two, (None, None), (None, None)], "a counter that fell, and a long gap");
}

#[test]
fn states_are_those_at_the_end_of_a_bucket_and_two_are_none() {
    let state = |state: &str, at: &[(i64, &str)]| part(Part::State, &json!({"state": state}), at);
    let points = points(vec![
        part(Part::Lag, &json!({}), &[(60, "1"), (120, "1"), (180, "1")]),
        state("ok", &[(60, "1"), (120, "1")]),
        state("stalled", &[(120, "1")]),
        state("unheard of", &[(180, "1")]),
    ]);
    let states: Vec<_> = points.iter().map(|point| point.state).collect();
    assert_eq!(states, [Some(GroupState::Ok), None, None]);
}

#[test]
fn numbers_that_are_none_make_no_point() {
    let lags = [(60, "NaN"), (120, "+Inf"), (180, "-1"), (240, "x"), (300, "5")];
    let points = points(vec![part(Part::Lag, &json!({}), &lags)]);
    assert_eq!(points.iter().map(|point| (point.time, point.lag)).collect::<Vec<_>>(), [(240, 5)]);
}

#[test]
fn what_comes_before_the_first_bucket_serves_rates_alone() {
    let none = json!({});
    let parts = vec![
        part(Part::Lag, &none, &[(60, "1"), (120, "2")]),
        part(Part::SampledAt, &none, &[(60, "60"), (120, "120")]),
        part(Part::Delivered, &none, &[(60, "0"), (120, "60")]),
    ];
    let points = found(parts).points(&key(), 60, STEP);
    assert_eq!(points.iter().map(|point| (point.time, point.delivered_milli)).collect::<Vec<_>>(), [(60, Some(1000))]);
}

#[test]
fn an_answer_is_prometheus_s_or_it_is_none() {
    let read = |status: u16, body: &str| {
        let failure = answer::data::<IgnoredAny>(StatusCode::from_u16(status).unwrap(), body.as_bytes()).map(drop);
        failure.map_err(|failure| match &failure {
            QueryError::NoPrometheus(found) => ("none", found.to_string()),
            QueryError::Refused { .. } => ("refused", failure.to_string()),
            _ => ("down", failure.to_string()),
        })
    };
    let good = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
    assert_eq!(read(200, good), Ok(()));
    let error = r#"{"status":"error","errorType":"bad_data","error":"too \"many\""}"#;
    let check = |status: u16, body: &str, kind: &str, why: &str| match read(status, body) {
        Err((found, text)) => assert!(found == kind && text.contains(why), "{status} {body}: {found} {text}"),
        Ok(()) => panic!("{status} {body}"),
    };
    check(422, error, "refused", "422 Unprocessable Entity: too \"many\"");
    check(503, error, "down", "too \"many\"");
    check(200, error, "down", "too \"many\"");
    check(404, good, "none", "404 Not Found with a good answer");
    for other in ["", "ok", "{}", r#"{"status":404}"#, r#"{"status":"ok"}"#, "<html>", r#"{"status":"success"}"#] {
        check(200, other, "none", "200 OK without the JSON of Prometheus's API");
    }
    for status in [401, 403, 407, 500, 502] {
        check(status, "<html>", "down", &status.to_string());
    }
    check(302, "", "none", "redirects are not followed");
    check(501, "<html>", "none", "501 Not Implemented without the JSON");
    check(404, "", "none", "404 Not Found without the JSON");
    for other in ["[]", r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#] {
        let found = Found::read(StatusCode::OK, other.as_bytes(), STEP);
        assert!(matches!(found, Err(QueryError::NoPrometheus(_))), "{other}");
    }
}
