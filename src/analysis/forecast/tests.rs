pub(super) mod numbers;

use super::*;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3_600.0;

/// A group by the minute: what arrives and what can be taken per second at each minute.
struct ForecastGroup {
    lag: f64,
    length: f64,
    max_length: f64,
    /// Entries that are trimmed at once.
    node: f64,
    points: Vec<LagPoint>,
    random: Random,
}

impl ForecastGroup {
    fn new() -> Self {
        let (points, random) = (Vec::new(), Random::new(1));
        Self { lag: 0.0, length: 0.0, max_length: f64::INFINITY, node: 1.0, points, random }
    }

    fn minute(&mut self, added: f64, able: f64) {
        let added = (added * MINUTE * (0.97 + 0.06 * self.random.uniform())).round();
        let able = (able * MINUTE * (0.97 + 0.06 * self.random.uniform())).round();
        let taken = able.min(self.lag + added);
        let before = self.lag;
        self.length += added;
        self.length -= ((self.length - self.max_length).max(0.0) / self.node).floor() * self.node;
        self.lag = (self.lag + added - taken).min(self.length);
        self.points.push(LagPoint {
            time: (self.points.len() + 1) as f64 * MINUTE,
            lag_min: Some(self.lag),
            lag_max: Some(self.lag),
            lag_lowest: Some(before.min(self.lag)),
            added_per_second: Some(added / MINUTE),
            delivered_per_second: Some(taken / MINUTE),
            length: Some(self.length),
        });
    }

    fn minutes(mut self, count: usize, rates: impl Fn(usize) -> (f64, f64)) -> Self {
        for minute in 0..count {
            let (added, able) = rates(minute);
            self.minute(added, able);
        }
        self
    }

    fn now(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.time)
    }

    fn ask(&self, horizon: f64) -> ForecastRequest {
        ForecastRequest { now: self.now(), horizon, max_length: None, degraded: None, unhealthy: None, seed: 7 }
    }

    fn end(&self, horizon: f64) -> LagQuantiles {
        let made = forecast(&self.points, &self.ask(horizon));
        *made.points.as_ref().map(|points| points.last().unwrap()).unwrap_or_else(|reason| panic!("{reason}"))
    }
}

/// 100/s come and 150/s can be taken; from minute 300 on only 50/s.
fn overload() -> ForecastGroup {
    ForecastGroup::new().minutes(360, |minute| (100.0, if minute < 300 { 150.0 } else { 50.0 }))
}

fn near(actual: f64, expected: f64, share: f64) {
    assert!((actual - expected).abs() <= share * expected, "{actual} is not within {share} of {expected}");
}

#[test]
fn a_backlog_grows_by_what_arrives_less_what_is_taken() {
    let group = overload();
    near(group.end(HOUR).q50, group.lag + 50.0 * HOUR, 0.1);
}

#[test]
fn a_load_that_has_ramped_up_for_hours_is_expected_to_go_on() {
    // 100/s with slow waves in it, for two days; then a tenth more each hour, of which 130/s can be taken.
    let rates = |minute: usize| {
        let waves = 8.0 * ((minute as f64 / 11.0).sin() + (minute as f64 / 29.0).sin());
        (100.0 + waves + minute.saturating_sub(2_880) as f64 / 6.0, 130.0)
    };
    for hours in [8, 10, 12] {
        let until = 2_880 + hours * 60;
        let group = ForecastGroup::new().minutes(until, rates);
        let then = ForecastGroup::new().minutes(until + 360, rates);
        near(group.end(6.0 * HOUR).q50, then.lag, 0.05);
    }
}

#[test]
fn a_backlog_drains_at_the_capacity_and_stops_at_what_is_normal() {
    let group =
        ForecastGroup::new().minutes(410, |minute| (if (380..400).contains(&minute) { 400.0 } else { 100.0 }, 150.0));
    let lag = group.lag;
    assert!(lag > 200_000.0, "{lag}");
    let made = forecast(&group.points, &group.ask(2.0 * HOUR));
    let drained = made.time_to.drained.unwrap_or_else(|| panic!("{made:?}"));
    near(drained.q50.unwrap(), lag / 50.0, 0.15);
    assert!(drained.q10 <= drained.q50.unwrap() && drained.q50 <= drained.q90, "{drained:?}");
    let points = made.points.unwrap();
    assert!(points.last().unwrap().q50 < 0.02 * lag, "{:?}", points.last());
}

#[test]
fn a_lag_never_exceeds_the_maximum_length_and_loss_is_told_when_it_gets_there() {
    let mut group = overload();
    let limit = group.lag + 50.0 * 30.0 * MINUTE;
    let mut ask = group.ask(HOUR);
    assert_eq!(forecast(&group.points, &ask).time_to.loss, None, "no maximum length is known");
    ask.max_length = Some(limit);
    let made = forecast(&group.points, &ask);
    near(made.time_to.loss.unwrap().q50.unwrap(), 30.0 * MINUTE, 0.15);
    let points = made.points.unwrap();
    assert!(points.iter().all(|point| point.q95 <= limit.round()), "{:?}", points.last());
    // A length that stands still while entries arrive is the maximum.
    group.max_length = group.lag + 50.0 * 1.5 * HOUR;
    group.length = group.max_length;
    let group = group.minutes(45, |_| (100.0, 50.0));
    let made = forecast(&group.points, &group.ask(2.0 * HOUR));
    let limit = group.max_length;
    assert!(made.time_to.loss.is_some());
    assert!(made.points.unwrap().iter().all(|point| point.q95 <= limit.round()));
}

#[test]
fn the_lag_of_a_group_that_loses_entries_varies_by_what_is_trimmed_at_once() {
    // 40/s come, 30/s are taken; the stream is full of what was not read after 17 minutes.
    let group = ForecastGroup { max_length: 10_000.0, node: 100.0, ..ForecastGroup::new() };
    let group = group.minutes(600, |_| (40.0, 30.0));
    let lags = group.points[100..].iter().map(|point| point.lag_max.unwrap());
    for max_length in [None, Some(10_000.0)] {
        let made = forecast(&group.points, &ForecastRequest { max_length, ..group.ask(HOUR) });
        let points = made.points.unwrap_or_else(|reason| panic!("{max_length:?}: {reason}"));
        let end = points.last().unwrap();
        let held = lags.clone().filter(|lag| (end.q10..=end.q90).contains(lag)).count() as f64 / lags.len() as f64;
        assert!((0.75..=0.9).contains(&held), "{max_length:?}: {held} within {end:?}");
        near(made.time_to.loss.unwrap().q10, MINUTE, 0.0);
    }
}

#[test]
fn where_a_full_stream_is_new_to_a_group_its_lag_stays_between_the_trimmed_lengths() {
    // The stream is full from minute 17 on, the group keeps up until minute 300 and loses entries from minute 317 on.
    let group = ForecastGroup { max_length: 10_000.0, node: 100.0, ..ForecastGroup::new() };
    let group = group.minutes(312, |minute| (40.0, if minute < 300 { 50.0 } else { 30.0 }));
    assert!(group.lag < 10_000.0);
    let made = forecast(&group.points, &group.ask(0.5 * HOUR));
    let end = *made.points.unwrap().last().unwrap();
    // A quarter of 100 entries, until the next 100 are trimmed.
    assert!(end.q10 >= 10_000.0 && end.q90 <= 10_025.0 && end.q10 < end.q90, "{end:?}");
}

#[test]
fn time_to_a_threshold_is_when_the_lag_gets_there() {
    let group = overload();
    let ask = ForecastRequest {
        degraded: Some(group.lag + 50.0 * 20.0 * MINUTE),
        unhealthy: Some(group.lag * 100.0),
        ..group.ask(HOUR)
    };
    let made = forecast(&group.points, &ask);
    near(made.time_to.degraded.unwrap().q50.unwrap(), 20.0 * MINUTE, 0.15);
    assert_eq!(made.time_to.unhealthy, None, "it is not reached within the horizon");
    assert_eq!(made.time_to.drained, None);
    let reached = forecast(&group.points, &ForecastRequest { degraded: Some(group.lag), ..ask });
    assert_eq!(reached.time_to.degraded, Some(TimeTo { q10: 0.0, q50: Some(0.0), q90: Some(0.0) }));
}

#[test]
fn what_comes_every_hour_is_expected_the_next_time() {
    // 40 minutes into each hour a batch, which takes half an hour to drain.
    let batch = |minute: usize| if minute % 60 == 40 { (3_000.0, 100.0) } else { (0.5, 100.0) };
    let group = ForecastGroup::new().minutes(10 * 60 + 35, batch);
    assert!(group.lag < 100.0, "{}", group.lag);
    // 15 minutes on, 9 after the batch.
    let end = group.end(15.0 * MINUTE);
    near(end.q50, 3_000.0 * MINUTE - 100.0 * 10.0 * MINUTE, 0.15);
}

#[test]
fn consumers_that_recovered_before_are_expected_to_recover() {
    // Every 100 minutes the consumers are down for 20.
    let rates = |minute: usize| (100.0, if minute % 100 < 20 { 0.0 } else { 300.0 });
    let again = ForecastGroup::new().minutes(1_405, rates);
    let never = ForecastGroup::new().minutes(1_405, |minute| (100.0, if minute < 1_380 { 300.0 } else { 0.0 }));
    let growth = |group: &ForecastGroup| group.end(HOUR).q50 - group.lag;
    assert!(growth(&again) < 0.7 * growth(&never), "{} {}", growth(&again), growth(&never));
}

#[test]
fn repairs_that_always_take_as_long_end_when_they_are_due() {
    // Every 200 minutes the consumers are down for 40; now for 35. After 5 more they take ten minutes to drain what is left.
    let rates = |minute: usize| (100.0, if minute % 200 < 40 { 0.0 } else { 600.0 });
    let group = ForecastGroup::new().minutes(14 * 200 + 35, rates);
    let end = group.end(15.0 * MINUTE);
    assert!(end.q10 == 0.0 && end.q50 < 0.5 * group.lag, "{end:?} from {}", group.lag);
}

#[test]
fn growth_without_a_precedent_is_forecast_once_it_has_lasted() {
    let down = |minutes: usize| {
        ForecastGroup::new().minutes(600 + minutes, |minute| (100.0, if minute < 600 { 300.0 } else { 0.0 }))
    };
    let young = down(19);
    let made = forecast(&young.points, &young.ask(HOUR));
    let Err(NoForecast::NewBacklog { lasted, need }) = made.points else { panic!("{made:?}") };
    assert_eq!((lasted, need), (18.0 * MINUTE, 20.0 * MINUTE), "the first minute began without");
    assert_eq!(made.time_to, TimesTo::default());
    // The same is old enough for a shorter horizon.
    near(young.end(15.0 * MINUTE).q50, young.lag + 100.0 * 15.0 * MINUTE, 0.1);
    // A sample without a backlog does not make it young again.
    let mut old = down(21);
    old.points[612].lag_lowest = Some(0.0);
    near(old.end(HOUR).q50, old.lag + 100.0 * HOUR, 0.1);
}

#[test]
fn a_calm_group_is_not_less_sure_for_having_crashed_once() {
    let calm = |crashed: bool| {
        let up = move |minute: usize| !crashed || !(600..630).contains(&minute);
        let group = ForecastGroup::new().minutes(1_500, |minute| (100.0, if up(minute) { 300.0 } else { 0.0 }));
        let mut noise = Random::new(3);
        let mut points = group.points;
        for point in points.iter_mut().filter(|point| point.lag_max == Some(0.0)) {
            let on_the_way = (20.0 + 10.0 * noise.uniform()).round();
            (point.lag_min, point.lag_max, point.lag_lowest) = (Some(on_the_way), Some(on_the_way), Some(0.0));
        }
        ForecastGroup { points, ..ForecastGroup::new() }.end(5.0 * MINUTE)
    };
    let (never, once) = (calm(false), calm(true));
    let width = |end: LagQuantiles| end.q90 - end.q10;
    assert!(width(once) <= 1.5 * width(never), "{once:?} {never:?}");
}

#[test]
fn a_gap_is_no_lag_of_zero() {
    let whole = overload();
    let mut gappy = overload();
    for point in &mut gappy.points[320..340] {
        *point = LagPoint { time: point.time, ..LagPoint::default() };
    }
    gappy.points.drain(100..130);
    near(gappy.end(HOUR).q50, whole.end(HOUR).q50, 0.1);
}

#[test]
fn rates_that_are_missing_follow_from_the_lag() {
    let whole = overload();
    for blank in
        [|point: &mut LagPoint| point.added_per_second = None, |point: &mut LagPoint| point.delivered_per_second = None]
    {
        let mut group = overload();
        group.points.iter_mut().for_each(blank);
        near(group.end(HOUR).q50, whole.end(HOUR).q50, 0.1);
    }
}

#[test]
fn what_cannot_be_told_has_a_reason() {
    let group = overload();
    let refused = |points: &[LagPoint], request: &ForecastRequest| {
        let made = forecast(points, request);
        assert_eq!(made.time_to, TimesTo::default());
        made.points.unwrap_err()
    };
    for horizon in [0.0, -1.0, f64::NAN, f64::INFINITY, MAX_HORIZON + 1.0] {
        assert_eq!(refused(&group.points, &group.ask(horizon)), NoForecast::Horizon);
    }
    let short = refused(&group.points[300..], &group.ask(HOUR));
    assert_eq!(short, NoForecast::TooShort { have: 3_540.0, need: 6_600.0 });
    assert_eq!(short.to_string(), "history is too short for this horizon: 3540 seconds of 6600 that are needed");
    let late = |age| ForecastRequest { now: group.now() + age, ..group.ask(HOUR) };
    assert_eq!(refused(&group.points, &late(400.0)), NoForecast::Stale { age: 400.0 });
    let in_time = forecast(&group.points, &late(MAX_AGE)).points;
    assert!(!matches!(in_time, Err(NoForecast::Stale { .. })), "{in_time:?}");
    assert_eq!(refused(&[], &group.ask(HOUR)), NoForecast::Stale { age: f64::INFINITY });
    assert!(NoForecast::Stale { age: 400.0 }.to_string().starts_with("the newest known lag is 400 seconds old"));
    let never = NoForecast::Stale { age: f64::INFINITY }.to_string();
    assert_eq!(never, "no point of the history has a known lag");
    let mut blank = group.points.clone();
    for point in &mut blank {
        (point.added_per_second, point.delivered_per_second) = (None, None);
    }
    assert_eq!(refused(&blank, &group.ask(HOUR)), NoForecast::NoRates);
}

#[test]
fn a_history_that_is_just_long_enough_is() {
    let group = ForecastGroup::new().minutes(51, |_| (100.0, 150.0));
    let horizon = 20.0 * MINUTE;
    assert_eq!(group.now() - group.points[0].time, history_needed(horizon));
    let is_too_short =
        |points: &[LagPoint]| matches!(forecast(points, &group.ask(horizon)).points, Err(NoForecast::TooShort { .. }));
    assert!(!is_too_short(&group.points) && is_too_short(&group.points[1..]));
}

#[test]
fn without_skill_there_is_no_forecast() {
    // The capacity jumps each minute, without any memory: the lag is a random walk.
    let mut random = Random::new(3);
    let mut group = ForecastGroup::new();
    group.lag = 1e7;
    group.length = 1e7;
    for _ in 0..600 {
        group.minute(100.0, 200.0 * random.uniform());
    }
    let made = forecast(&group.points, &group.ask(HOUR));
    let Err(NoForecast::NoSkill { mase }) = made.points else { panic!("{made:?}") };
    assert!(mase > MAX_MASE, "{mase}");
    assert_eq!(made.replay.unwrap().mase, Some(mase));
}

#[test]
fn where_past_intervals_held_too_little_there_is_no_forecast() {
    // The capacity jumps at random moments to what it never was: often no width of the past holds what comes.
    let refused = (1..40).find_map(|seed| {
        let mut random = Random::new(seed);
        let mut group = ForecastGroup::new();
        (group.lag, group.length) = (1e7, 1e7);
        let (mut able, mut left) = (100.0, 0);
        for _ in 0..600 {
            if left == 0 {
                left = 10 + random.below(200);
                able = 40.0 + 130.0 * random.uniform();
            }
            left -= 1;
            group.minute(100.0, able);
        }
        let made = forecast(&group.points, &group.ask(HOUR));
        matches!(made.points, Err(NoForecast::NotCalibrated { .. })).then_some(made)
    });
    let made = refused.expect("one of them");
    let Err(NoForecast::NotCalibrated { coverage, least }) = made.points else { panic!("{made:?}") };
    assert!(coverage < least && least == MIN_COVERAGE_OF_FEW, "{coverage} {least}");
    assert_eq!(made.replay.unwrap().coverage_80, Some(coverage));
    assert_eq!(made.time_to, TimesTo::default());
}

#[test]
fn an_idle_group_stays_as_it_is() {
    for lag in [0.0, 500.0] {
        let mut group = ForecastGroup::new();
        (group.lag, group.length) = (lag, lag);
        let group = group.minutes(300, |_| (0.0, 0.0));
        let end = group.end(HOUR);
        assert_eq!((end.q05, end.q50, end.q95), (lag, lag, lag));
    }
}

#[test]
fn quantiles_are_in_order_and_finite_whatever_the_points_say() {
    let mut random = Random::new(11);
    for seed in 0..20 {
        let mut group = ForecastGroup::new();
        for _ in 0..260 {
            group.minute(1e3 * random.uniform().powi(4), 200.0 * random.uniform());
            let point = group.points.last_mut().unwrap();
            match random.below(12) {
                0 => point.lag_max = None,
                1 => point.added_per_second = Some(f64::NAN),
                2 => point.delivered_per_second = Some(-5.0),
                3 => point.lag_max = point.lag_max.map(|lag| lag + 1e6 * random.uniform()),
                5 => point.length = None,
                6 => point.added_per_second = Some(1e300),
                7 => point.time -= 90.0,
                _ => {}
            }
        }
        let last = group.points.last_mut().unwrap();
        (last.lag_min, last.lag_max, last.time) = (Some(5.0), Some(9.0), 260.0 * MINUTE);
        let made = forecast(&group.points, &ForecastRequest { degraded: Some(1.0), seed, ..group.ask(HOUR) });
        for point in made.points.iter().flatten() {
            let ordered =
                [0.0, point.q025, point.q05, point.q10, point.q50, point.q90, point.q95, point.q975, f64::MAX];
            assert!(ordered.is_sorted(), "{point:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_forecast() {
    let group = overload();
    let made = forecast(&group.points, &group.ask(HOUR));
    assert_eq!(made, forecast(&group.points, &group.ask(HOUR)));
    let other = forecast(&group.points, &ForecastRequest { seed: 8, ..group.ask(HOUR) });
    assert_ne!(made.points, other.points);
}

#[test]
fn widths_cover_what_they_say() {
    // Bursts at random moments: the interval at 15 minutes must hold four of five.
    let mut random = Random::new(5);
    let mut group = ForecastGroup::new();
    let mut burst = 0;
    for _ in 0..2_000 {
        if burst == 0 && random.uniform() < 0.02 {
            burst = 8;
        }
        burst -= usize::from(burst > 0).min(burst);
        group.minute(if burst > 0 { 400.0 } else { 80.0 }, 120.0);
    }
    let (mut covered, mut within, mut all) = (0.0, 0.0, 0.0);
    for origin in (600..1_985).step_by(30) {
        let ask = ForecastRequest { now: origin as f64 * MINUTE, ..group.ask(15.0 * MINUTE) };
        let made = forecast(&group.points[..origin], &ask);
        let Ok(points) = made.points else { continue };
        let (end, actual) = (points.last().unwrap(), group.points[origin + 14].lag_max.unwrap());
        all += 1.0;
        covered += f64::from(end.q10 <= actual && actual <= end.q90);
        within += f64::from(end.q10 < actual && actual < end.q90);
    }
    assert!(all > 25.0, "{all}");
    // Between bursts the lag is 0, an end of the interval.
    assert!(covered / all >= 0.7 && within / all <= 0.9, "{covered} {within} of {all}");
}

#[test]
fn forecasts_are_scored_when_their_time_has_come() {
    let group = overload();
    let made = forecast(&group.points, &group.ask(HOUR));
    let end = *made.points.as_ref().unwrap().last().unwrap();
    let mut scorer = Scorer::default();
    assert_eq!(scorer.skill(), Skill::default());
    scorer.keep(&made, group.lag);
    scorer.observe(end.time - 1.0, 0.0, 0.0);
    assert_eq!(scorer.skill().forecasts, 0, "its time has not come");
    scorer.observe(end.time, end.q50, end.q50);
    assert_eq!(scorer.skill(), Skill { mase: Some(0.0), coverage_80: Some(1.0), forecasts: 1 });
    // Outside the interval, and as wrong as the naive forecast.
    scorer.keep(&made, end.q50);
    scorer.observe(end.time, 0.0, 0.0);
    let skill = scorer.skill();
    assert_eq!((skill.coverage_80, skill.forecasts), (Some(0.5), 2));
    let naive = (end.q50 - group.lag) + end.q50;
    near(skill.mase.unwrap(), end.q50 / naive, 1e-9);
    // What was sampled too late is not scored, and a bounded lag only as far as it is surely outside.
    scorer.keep(&made, group.lag);
    scorer.observe(end.time + MAX_LATE_TEST, 0.0, 0.0);
    assert_eq!(scorer.skill().forecasts, 2);
    scorer.keep(&made, group.lag);
    scorer.observe(end.time, 0.0, 2.0 * end.q95);
    assert_eq!(scorer.skill().forecasts, 3);
    near(scorer.skill().mase.unwrap(), end.q50 / naive, 1e-9);
}

/// Beyond what a score waits.
const MAX_LATE_TEST: f64 = 121.0;

#[test]
fn a_scorer_is_bounded_and_refusals_are_not_scored() {
    let group = overload();
    let made = forecast(&group.points, &group.ask(HOUR));
    let made_later = |seconds: f64| {
        let mut later = made.clone();
        let points = later.points.as_mut().unwrap();
        points.iter_mut().for_each(|point| point.time += seconds);
        later
    };
    let end = made.points.as_ref().unwrap().last().unwrap().time;
    // One a second: those are kept that are a minute apart, and an hour holds what there is room for.
    let mut scorer = Scorer::default();
    for second in 0..2 * HOUR as u32 {
        scorer.keep(&made_later(f64::from(second)), 0.0);
        scorer.observe(group.now() + f64::from(second), 0.0, 0.0);
    }
    assert_eq!(scorer.skill().forecasts, 60, "those of the first hour");
    assert_eq!(scorer.due(), Some(end + HOUR));
    for minute in 120..1_000 {
        scorer.keep(&made_later(f64::from(minute) * MINUTE), 0.0);
        scorer.observe(end + f64::from(minute) * MINUTE, 0.0, 0.0);
    }
    assert_eq!(scorer.skill().forecasts, 128);
    // What nothing was sampled for in time is dropped.
    scorer.keep(&made, 0.0);
    scorer.expire(end + 120.0);
    assert_eq!(scorer.due(), Some(end));
    scorer.expire(end + MAX_LATE_TEST);
    assert_eq!(scorer.due(), None);
    let mut none = Scorer::default();
    none.keep(&forecast(&[], &group.ask(HOUR)), 0.0);
    none.observe(f64::MAX, 0.0, 0.0);
    assert_eq!(none.skill(), Skill::default());
}

#[test]
fn a_forecast_whose_like_were_no_better_than_naive_has_no_points() {
    let group = overload();
    let made = forecast(&group.points, &group.ask(HOUR));
    let skill = Skill { mase: Some(1.0), coverage_80: Some(0.8), forecasts: MIN_OUTCOMES };
    let judged = made.clone().judged_by(&skill);
    assert_eq!(judged.points, Err(NoForecast::Refuted { mase: 1.0, forecasts: MIN_OUTCOMES }));
    assert_eq!(judged.time_to, TimesTo::default());
    for good in [
        Skill { forecasts: MIN_OUTCOMES - 1, ..skill },
        Skill { mase: Some(MAX_MASE), ..skill },
        // Neither forecast was wrong.
        Skill { mase: None, ..skill },
    ] {
        assert_eq!(made.clone().judged_by(&good), made);
    }
}

#[test]
fn a_forecast_whose_like_were_too_sure_has_no_points() {
    let group = overload();
    let made = forecast(&group.points, &group.ask(15.0 * MINUTE));
    assert!(made.points.is_ok(), "{made:?}");
    // 60 of them in an hour are four times a quarter of an hour: 0.75 - 1.64 * sqrt(0.75 * 0.25 / 4).
    let skill = Skill { mase: Some(0.5), coverage_80: Some(0.39), forecasts: 60 };
    let judged = made.clone().judged_by(&skill);
    let Err(NoForecast::TooSure { coverage, least, forecasts }) = judged.points else { panic!("{judged:?}") };
    assert_eq!((coverage, forecasts), (0.39, 60));
    near(least, 0.3949, 0.001);
    assert_eq!(judged.time_to, TimesTo::default());
    for good in [
        Skill { coverage_80: Some(0.4), ..skill },
        Skill { forecasts: MIN_OUTCOMES - 1, ..skill },
        // Too wide is cautious.
        Skill { coverage_80: Some(1.0), ..skill },
    ] {
        assert_eq!(made.clone().judged_by(&good), made);
    }
    // More independent outcomes tell more.
    let judged = made.judged_by(&Skill { coverage_80: Some(0.5), forecasts: 128, ..skill });
    assert!(matches!(judged.points, Err(NoForecast::TooSure { .. })), "{judged:?}");
}

#[test]
fn a_batch_at_the_hour_is_forecast_as_sure_as_batches_were() {
    // Each hour a batch, of a size that varies by a half; the forecast is made just before it, when most past moments say that nothing comes.
    let mut random = Random::new(9);
    let mut group = ForecastGroup::new();
    let mut size = 1.0;
    for minute in 0..40 * 60 {
        if minute % 60 == 0 {
            size = 1_000.0 * (0.75 + 0.5 * random.uniform());
        }
        group.minute(if minute % 60 < 2 { size } else { 1.0 }, 100.0);
    }
    let (mut covered, mut all) = (0.0, 0.0);
    for hour in 20..39 {
        let origin = hour * 60;
        let ask = ForecastRequest { now: origin as f64 * MINUTE, ..group.ask(5.0 * MINUTE) };
        let end = *forecast(&group.points[..origin], &ask).points.unwrap().last().unwrap();
        let actual = group.points[origin + 4].lag_max.unwrap();
        all += 1.0;
        covered += f64::from(end.q10 <= actual && actual <= end.q90);
    }
    let share = covered / all;
    assert!(share >= 0.65, "{share} of {all}");
}

#[test]
fn where_the_lag_stood_still_an_error_is_one_of_entries() {
    let group = overload();
    let mut made = forecast(&group.points, &group.ask(HOUR));
    let points = made.points.as_mut().unwrap();
    points.last_mut().unwrap().q50 = 4.0;
    let end = points.last().unwrap().time;
    let mut scorer = Scorer::default();
    scorer.keep(&made, 3.0);
    scorer.observe(end, 3.0, 3.0);
    assert_eq!(scorer.skill().mase, Some(2.0), "the naive one was right, and this one off by one");
}
