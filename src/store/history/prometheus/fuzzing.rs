//! What must hold of any bytes of the history file, and of any answer of Prometheus: see [`crate::fuzzing`].

use hyper::StatusCode;
use serde::de::IgnoredAny;

use super::answer::{self, Found};
use crate::analysis::history::codec::{decode, decode_first, encode};
use crate::analysis::history::{MINUTE, Point, resample};

/// Points that the bytes of one row may mean, here.
const MAX_POINTS: usize = 1000;

/// Any bytes as points of the history file. They are points, or an error; what they are is kept when it is written anew.
pub fn history_points(data: &[u8]) {
    for points in [decode(data, MAX_POINTS), decode_first(data)].into_iter().flatten() {
        let times =
            |points: &[(u64, Point)]| points.iter().map(|(series, point)| (*series, point.time)).collect::<Vec<_>>();
        let again = decode(&encode(&points), points.len()).unwrap_or_default();
        assert_eq!(times(&again), times(&points));
        let hours = resample(points.into_iter().map(|(_, point)| point).collect(), MAX_STEP);
        assert!(hours.windows(2).all(|pair| pair[0].time < pair[1].time));
    }
}

/// Characters that are said of an answer, at most: a status, and a part of what Prometheus says.
const MAX_TOLD: usize = 300;

/// The widest bucket that is asked for here, seconds.
const MAX_STEP: i64 = 3600;

/// Any bytes as the answer to a range query. Of every point that is made of it, the bounds hold the lag.
pub fn prometheus_answer(data: &[u8]) {
    for status in [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY] {
        if let Err(failure) = answer::data::<IgnoredAny>(status, data) {
            assert!(failure.to_string().chars().count() <= MAX_TOLD, "{failure:?}");
        }
    }
    let Ok(found) = Found::read(StatusCode::OK, data, MINUTE) else { return };
    let target = "default".into();
    for key in found.keys(&target) {
        for step in [1, MINUTE, MAX_STEP] {
            for point in found.points(&key, i64::MIN, step) {
                let rising = [point.bound_min, point.lowest, point.lag, point.highest, point.bound_max];
                assert!(rising.is_sorted(), "{point:?}");
                assert!(point.samples > 0 && point.mean.is_finite(), "{point:?}");
            }
        }
    }
}
