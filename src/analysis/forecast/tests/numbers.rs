//! The numbers of every stage of a forecast, for histories of each kind: they change only on purpose. Whether they are good is what
//! the tests beside this one and the backtest (`benches/forecast`) hold.

use std::fmt::Debug;

use super::*;

/// A number that changes with each of the numbers of a value.
pub(in crate::analysis::forecast) fn digest(value: &impl Debug) -> f64 {
    let text = format!("{value:?}");
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    let numbers = words.filter_map(|word| word.parse::<f64>().ok());
    let term = |(place, number): (usize, f64)| (place % 13 + 1) as f64 * if number.is_finite() { number } else { 0.5 };
    numbers.enumerate().map(term).sum()
}

/// What each stage comes to.
fn stages(points: &[LagPoint], request: &ForecastRequest) -> Vec<(&'static str, f64)> {
    let step = step_of(request.horizon);
    let steps = (request.horizon / step).ceil() as usize;
    let series = StepSeries::new(points, request.now, step);
    let arrivals = Arrivals::fit(&series, steps);
    let capacity = Capacity::observe(&series);
    let max_length = request.max_length;
    let simulation = Simulation { series: &series, arrivals: &arrivals, capacity: &capacity, max_length };
    let mut random = Random::new(request.seed);
    let replay = Replay::run(&simulation, steps, &mut random);
    let (now, busy) = (series.len(), capacity.is_busy(series.len() - 1));
    let mut paths = simulation.run(now, steps, PATHS, &mut random);
    let drawn = digest(&paths);
    let correction = replay.correction(&paths, busy, steps);
    correction.apply(&mut paths, simulation.start(now), LagLine::fit(&series, now), simulation.highest_lag(now));
    let quantiles: Vec<LagQuantiles> = (0..steps).map(|at| paths.quantiles_at(at, at as f64)).collect();
    vec![
        ("series", digest(&series)),
        ("arrivals", digest(&arrivals)),
        ("expected arrivals", digest(&arrivals.baseline(now, steps))),
        ("capacity", digest(&capacity)),
        ("outlook", digest(&capacity.outlook(now))),
        ("replay", digest(&replay)),
        ("skill", digest(&replay.skill(busy))),
        ("limits", digest(&(simulation.limit(now), simulation.start(now), simulation.normal_lag(now)))),
        ("drawn paths", drawn),
        ("correction", digest(&correction)),
        ("corrected paths", digest(&paths)),
        ("quantiles", digest(&quantiles)),
        ("times", digest(&times_to(&paths, &simulation, request))),
    ]
}

/// Holds what was found against what is expected.
pub(in crate::analysis::forecast) fn same(name: &str, found: &[(&str, f64)], expected: &[f64]) {
    let numbers: Vec<String> = found.iter().map(|(_, number)| format!("{number:.12e}")).collect();
    assert_eq!(found.len(), expected.len(), "{name}: [{}]", numbers.join(", "));
    for ((stage, number), expected) in found.iter().zip(expected) {
        let is_same = (number - expected).abs() <= 1e-9 * expected.abs().max(1.0);
        assert!(is_same, "{name}, {stage}: {number:.12e} is not {expected:.12e}; all: [{}]", numbers.join(", "));
    }
}

fn check(name: &str, group: &ForecastGroup, request: &ForecastRequest, expected: &[f64]) {
    same(name, &stages(&group.points, request), expected);
}

#[test]
fn a_steady_group() {
    let group = ForecastGroup::new().minutes(100, |_| (100.0, 150.0));
    let request = ForecastRequest { degraded: Some(50.0), ..group.ask(15.0 * MINUTE) };
    check(
        "steady",
        &group,
        &request,
        &[
            2.201718610000e8,
            8.235968564879e6,
            5.621910846885e5,
            4.188807500000e6,
            6.361000000000e2,
            2.220991580005e3,
            2.910666666667e2,
            5.000000000000e-1,
            1.500000000000e1,
            4.775800679924e2,
            1.500000000000e1,
            7.240000000000e2,
            -0.000000000000e0,
        ],
    );
}

#[test]
fn a_backlog_with_limits() {
    let group = overload();
    let request = ForecastRequest {
        max_length: Some(group.lag + 90_000.0),
        degraded: Some(group.lag + 30_000.0),
        unhealthy: Some(group.lag + 60_000.0),
        ..group.ask(HOUR)
    };
    check(
        "overload",
        &group,
        &request,
        &[
            2.830447885000e9,
            3.008539480811e7,
            2.399067378233e6,
            1.501233700000e7,
            3.084267168224e4,
            2.468701609925e7,
            -0.000000000000e0,
            6.308460000000e5,
            4.175355609063e10,
            2.720057189027e3,
            4.175651989218e10,
            7.317515550000e8,
            6.588000000000e4,
        ],
    );
}

#[test]
fn a_backlog_that_drains() {
    let rates = |minute: usize| (if (300..320).contains(&minute) { 400.0 } else { 100.0 }, 150.0);
    let group = ForecastGroup::new().minutes(330, rates);
    check(
        "drain",
        &group,
        &group.ask(HOUR),
        &[
            2.476278831000e9,
            3.215935069485e7,
            3.635036619906e6,
            1.615234100000e7,
            6.508050993551e4,
            2.305437819208e7,
            -0.000000000000e0,
            5.372025000000e5,
            4.678722752605e10,
            2.684674111297e3,
            4.705236004389e10,
            8.779537940000e8,
            -0.000000000000e0,
        ],
    );
}

#[test]
fn batches_every_hour() {
    let batch = |minute: usize| if minute % 60 == 40 { (3_000.0, 100.0) } else { (0.5, 100.0) };
    let group = ForecastGroup::new().minutes(10 * 60 + 35, batch);
    check(
        "batches",
        &group,
        &group.ask(15.0 * MINUTE),
        &[
            4.490619217000e9,
            2.907207730003e7,
            1.082574333333e6,
            2.480670600000e7,
            6.368460235376e4,
            1.549018539487e9,
            3.753484988536e2,
            5.000000000000e-1,
            4.214364792309e9,
            4.825700457707e4,
            4.273451600053e9,
            7.548259700000e7,
            -0.000000000000e0,
        ],
    );
}

#[test]
fn consumers_that_break_down() {
    let rates = |minute: usize| (100.0, if minute % 100 < 20 { 5.0 } else { 300.0 });
    let group = ForecastGroup::new().minutes(910, rates);
    check(
        "breakdowns",
        &group,
        &group.ask(HOUR),
        &[
            1.765400493300e10,
            7.629923846014e7,
            2.397389851652e6,
            4.842158650000e7,
            4.364510255077e5,
            1.355218765466e9,
            3.005097924198e2,
            1.146005000000e5,
            6.604610396885e9,
            3.498596905244e5,
            6.350293004025e9,
            2.074344180000e8,
            1.098000000000e4,
        ],
    );
}

#[test]
fn a_load_that_ramps_up_while_the_capacity_falls() {
    let rates = |minute: usize| (50.0 + minute.saturating_sub(200) as f64 * 0.5, 140.0 - minute as f64 * 0.1);
    let group = ForecastGroup::new().minutes(420, rates);
    check(
        "ramp",
        &group,
        &group.ask(30.0 * MINUTE),
        &[
            2.337666159000e9,
            2.764392224796e7,
            1.935694234751e6,
            1.669887750000e7,
            7.421288592672e4,
            4.048131040116e8,
            2.710044705412e2,
            3.874465000000e5,
            2.178877484694e10,
            3.138977692893e4,
            2.187087766343e10,
            3.864330220000e8,
            -0.000000000000e0,
        ],
    );
}

#[test]
fn a_history_with_gaps_and_bounds() {
    let mut group = ForecastGroup { max_length: 300_000.0, ..ForecastGroup::new() };
    group.length = 300_000.0;
    let day = |minute: usize| 100.0 + 80.0 * (minute as f64 / 1_440.0 * std::f64::consts::TAU).sin();
    let mut group = group.minutes(4 * 1_440 + 200, |minute| (day(minute), 120.0));
    for (place, point) in group.points.iter_mut().enumerate() {
        point.lag_min = point.lag_min.map(|lag| (lag - (place % 7) as f64 * 50.0).max(0.0));
        match place % 50 {
            10..15 => *point = LagPoint { time: point.time, ..LagPoint::default() },
            20 => point.added_per_second = None,
            25 => point.delivered_per_second = None,
            30 => point.lag_lowest = None,
            _ => {}
        }
    }
    // A point every five minutes, as a history of days has it.
    group.points = group.points.chunks(5).map(|few| few[few.len() - 1]).collect();
    check(
        "gaps",
        &group,
        &group.ask(6.0 * HOUR),
        &[
            4.509610567000e9,
            4.761367015599e8,
            3.241807846009e7,
            3.415861225000e8,
            3.614535712030e5,
            4.807419877028e9,
            3.304573818256e2,
            6.713620000000e5,
            5.564753582318e10,
            1.021516916367e6,
            5.352798198070e10,
            7.536628540000e8,
            5.490000000000e4,
        ],
    );
    // A step that no hour is a multiple of.
    check(
        "odd step",
        &group,
        &group.ask(8.0 * HOUR),
        &[
            3.449870628167e9,
            4.765925163687e8,
            4.450060208937e7,
            3.374351623333e8,
            4.474430667413e5,
            6.198798496122e9,
            3.078769259885e2,
            6.723805000000e5,
            5.447115707086e10,
            8.742276890903e5,
            5.249423804197e10,
            7.829492740000e8,
            4.788000000000e4,
        ],
    );
}

#[test]
fn a_pattern_that_was_seen_three_times() {
    let batch = |minute: usize| if minute % 60 == 40 { (3_000.0, 100.0) } else { (0.5, 100.0) };
    let period = |minutes| {
        let group = ForecastGroup::new().minutes(minutes, batch);
        Arrivals::fit(&StepSeries::new(&group.points, group.now(), MINUTE), 15).period()
    };
    // The first point ends no step. Of an hour that was not seen three times, its half is what is known.
    assert_eq!((period(180), period(181)), (Some(30), Some(60)));
    let group = ForecastGroup::new().minutes(181, batch);
    check(
        "three",
        &group,
        &group.ask(15.0 * MINUTE),
        &[
            4.168586820000e8,
            8.079599990000e6,
            2.820000000000e3,
            6.604054000000e6,
            2.488403737812e4,
            1.496200827417e9,
            3.306069941828e2,
            1.020505000000e5,
            7.510387591408e8,
            2.942376012196e4,
            9.622673267989e8,
            3.325403700000e7,
            1.620000000000e3,
        ],
    );
}

#[test]
fn a_day_that_was_seen_five_times() {
    // Over capacity for four hours a day, by a little more or less each day.
    let rates = |minute: usize| {
        let (day, hour) = (minute / 1_440, minute / 60 % 24);
        (if (9..13).contains(&hour) { 160.0 + 7.0 * (day * day % 5) as f64 } else { 60.0 }, 150.0)
    };
    let group = ForecastGroup::new().minutes(5 * 1_440 + 8 * 60, rates);
    check(
        "day",
        &group,
        &group.ask(3.0 * HOUR),
        &[
            3.271262781940e11,
            5.497754812260e8,
            1.009390742720e7,
            3.450193870000e8,
            2.700152725584e5,
            1.727819427322e9,
            4.724371707927e2,
            5.000000000000e-1,
            1.102660312060e10,
            6.609507072093e4,
            1.066393571220e10,
            2.183495600000e8,
            -0.000000000000e0,
        ],
    );
    // An hour is not long.
    check(
        "day, an hour",
        &group,
        &group.ask(HOUR),
        &[
            9.797931643600e11,
            5.495324964240e8,
            1.445663555243e6,
            3.461568490000e8,
            1.718177924510e5,
            1.614748525541e9,
            4.912602999102e2,
            5.000000000000e-1,
            6.000000000000e1,
            9.852522100028e3,
            1.746386344674e6,
            5.890100000000e4,
            -0.000000000000e0,
        ],
    );
}
