use super::*;
use crate::analysis::forecast::TimesTo;
use crate::analysis::group_state::GroupState;
use crate::analysis::history::tests::point;
use crate::store::history::memory::tests::key;

/// Seconds since the Unix epoch at which the history begins.
const START: i64 = 1_800_000_000;

/// A sample of a group that 100/s arrive for, and that is delivered 60/s.
fn growing(time: i64) -> Point {
    let lag = ((time - START) * 40) as u64;
    Point {
        lag_ms: None,
        pending: Some(0),
        length: Some(lag),
        added_milli: Some(100_000),
        delivered_milli: Some(60_000),
        consumers: Some(1),
        state: Some(GroupState::Lagging),
        ..point(time, lag)
    }
}

/// The samples of two hours, every ten seconds.
fn two_hours(sample: impl Fn(i64) -> Point) -> Forecasts {
    let forecasts = Forecasts::nowhere();
    forecasts.shared.history.remember(&key("a"), (START..START + 7_200).step_by(10).map(sample));
    forecasts
}

async fn made(forecasts: &Forecasts, now: i64) -> Made {
    forecasts.at(&key("a"), &[900], now).await.unwrap_or_else(|error| panic!("{error:?}")).remove(0)
}

#[tokio::test]
async fn what_was_made_is_scored_once_its_time_has_come() {
    let forecasts = two_hours(growing);
    let first = made(&forecasts, START + 3_600).await;
    assert_eq!(first.skill, Skill::default());
    let end = *first.forecast.points.as_ref().unwrap().last().unwrap();
    assert!((end.q50 - 4_500.0 * 40.0).abs() < 4_000.0, "{end:?}");
    forecasts.shared.score(START + 4_499);
    assert_eq!(made(&forecasts, START + 3_610).await.skill.forecasts, 0, "its time has not come");
    forecasts.shared.score(START + 4_500);
    let skill = made(&forecasts, START + 3_620).await.skill;
    assert!(skill.forecasts == 1 && skill.mase.unwrap() < 0.2, "{skill:?}");
    // The metrics tell of forecasts once there are enough.
    let told = |forecasts: &Forecasts| lock(&forecasts.shared.kept).overall();
    assert_eq!(told(&forecasts), (None, None));
    for minute in 61..90 {
        made(&forecasts, START + minute * 60).await;
        forecasts.shared.score(START + minute * 60);
    }
    forecasts.shared.score(START + 7_190);
    let (Some(mase), Some(coverage)) = told(&forecasts) else { panic!("{:?}", told(&forecasts)) };
    assert!(mase < 0.2 && (0.0..=1.0).contains(&coverage), "{mase} {coverage}");
}

#[tokio::test]
async fn a_gap_is_not_scored() {
    let forecasts = two_hours(growing);
    // At the end of what there is: its time comes when nothing is sampled.
    made(&forecasts, START + 7_000).await;
    forecasts.shared.score(START + 8_500);
    let kept = lock(&forecasts.shared.kept);
    let entry = &kept.entries[&(key("a"), 900)];
    assert_eq!((entry.scorer.due(), entry.scorer.skill().forecasts), (None, 0));
}

#[tokio::test]
async fn forecasts_that_turn_out_worse_than_naive_are_withheld_until_they_are_better() {
    // It grows for an hour, and from then on jumps up and down by what nobody can know: what is kept is one forecast that always was wrong.
    let forecasts = two_hours(growing);
    for minute in 60..100 {
        made(&forecasts, START + minute * 60).await;
    }
    {
        let mut kept = lock(&forecasts.shared.kept);
        let entry = kept.entry(&key("a"), 900);
        // As if the lag had stayed what it was at each of those moments.
        for minute in 75..115 {
            let lag = ((minute - 15) * 60 * 40) as f64;
            entry.scorer.observe((START + minute * 60) as f64, lag, lag);
        }
    }
    let withheld = made(&forecasts, START + 100 * 60).await;
    assert!(withheld.skill.forecasts >= MIN_OUTCOMES, "{:?}", withheld.skill);
    assert!(withheld.forecast.points.is_err() && withheld.forecast.time_to.loss.is_none());
    // It was kept all the same: those that come right bring it back.
    let kept = lock(&forecasts.shared.kept);
    assert_eq!(kept.entries[&(key("a"), 900)].scorer.due(), Some((START + 115 * 60) as f64));
}

#[tokio::test]
async fn what_was_made_lately_is_used_again() {
    let forecasts = two_hours(growing);
    let first = made(&forecasts, START + 3_600).await.forecast;
    assert_eq!(made(&forecasts, START + 3_629).await.forecast.made_at, first.made_at);
    assert_ne!(made(&forecasts, START + 3_630).await.forecast.made_at, first.made_at);
    // A clock that steps back brings nothing from the future.
    assert_eq!(made(&forecasts, START + 3_600).await.forecast.made_at, first.made_at);
    // Another horizon is another forecast.
    let both = forecasts.at(&key("a"), &[900, 600], START + 3_601).await.unwrap();
    let [same, other] = [&both[0].forecast, &both[1].forecast];
    assert_eq!((same.horizon, same.made_at), (900.0, (START + 3_600) as f64));
    assert_eq!((other.horizon, other.made_at), (600.0, (START + 3_601) as f64));
}

#[tokio::test]
async fn a_name_that_was_never_sampled_takes_no_room_and_room_is_bounded() {
    let forecasts = two_hours(growing);
    for number in 0..10 {
        assert!(forecasts.at(&key(&format!("no-{number}")), &[900], START + 3_600).await.is_err());
    }
    let mut kept = lock(&forecasts.shared.kept);
    assert_eq!(kept.entries.len(), 0);
    for number in 0..MAX_KEPT + 10 {
        kept.entry(&key(&number.to_string()), 900);
        kept.entry(&key("0"), 900);
    }
    assert_eq!(kept.entries.len(), MAX_KEPT);
    assert!(kept.entries.contains_key(&(key("0"), 900)), "what is asked for stays");
    assert!(!kept.entries.contains_key(&(key("1"), 900)), "what was asked for longest ago goes");
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_ages() {
    let shown = ShownForecasts::default();
    let end = *made(&two_hours(growing), START + 3_600).await.forecast.points.unwrap().last().unwrap();
    let row =
        GroupForecast { stream: "s".into(), group: "g".into(), horizon: "15m", lag: end, time_to: TimesTo::default() };
    shown.set(vec![row.clone()]);
    assert_eq!(*shown.newest(), [row]);
    tokio::time::advance(SHOWN).await;
    assert!(shown.newest().is_empty());
}

#[test]
fn an_hour_is_known_at_its_end_and_so_is_a_minute() {
    let hours = START - START % HOUR;
    let mut bounded = point(hours + 2 * HOUR + 60, 50);
    (bounded.bound_min, bounded.bound_max) = (40, 60);
    let points = vec![point(hours, 5), point(hours + HOUR, 6), point(hours + 2 * HOUR, 7), bounded];
    let times = |hours_until: Option<i64>, now: i64| -> Vec<i64> {
        let answer =
            Answer { source: crate::store::history::HistorySource::Sqlite, points: points.clone(), hours_until };
        forecast_points(&answer, now).iter().map(|point| point.time as i64 - hours).collect()
    };
    let end = 2 * HOUR;
    assert_eq!(times(Some(hours + end), i64::MAX), [HOUR, end, end + 60, end + 120]);
    assert_eq!(times(None, i64::MAX), [60, HOUR + 60, end + 60, end + 120]);
    assert_eq!(times(Some(hours + end), hours + end + 90), [HOUR, end, end + 60, end + 90]);
    let bounds = |point: &Point| {
        (forecast_point(point, MINUTE, i64::MAX).lag_min, forecast_point(point, MINUTE, i64::MAX).lag_max)
    };
    assert_eq!((bounds(&points[2]), bounds(&bounded)), ((Some(7.0), Some(7.0)), (Some(40.0), Some(60.0))));
}
