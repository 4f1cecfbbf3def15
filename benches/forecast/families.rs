//! Twelve families of workloads, simulated in ticks of five seconds: a queue with what comes, what can be taken, consumers and a maximum length.

use streamlag::analysis::forecast::LagPoint;

pub const FAMILIES: [&str; 12] = [
    "flat",
    "ramp",
    "daily",
    "weekly",
    "burst",
    "batch",
    "consumer_crash",
    "capacity_step",
    "leak",
    "trim",
    "restart_gap",
    "idle",
];
/// Families in which lag grows over hours.
pub const GROWTH: [&str; 6] = ["ramp", "daily", "weekly", "capacity_step", "leak", "trim"];

/// Seconds per tick.
const TICK: f64 = 5.0;
/// Ticks per point of history.
const TICKS: usize = 12;
const HOUR: f64 = 3_600.0;
const DAY: f64 = 86_400.0;

/// Which half of each parameter's range is drawn from: what is tuned on never sees the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Tuning,
    HeldOut,
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    pub fn uniform(&mut self) -> f64 {
        // xorshift64*: another generator than the forecast's own.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        let (one, two) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.uniform()).ln()
    }
}

/// Draws parameters from one half of their ranges: of four quarters, the first and third, or the second and fourth.
struct Parameters<'a> {
    random: &'a mut Random,
    half: Half,
}

impl Parameters<'_> {
    fn share(&mut self) -> f64 {
        let upper = if self.random.uniform() < 0.5 { 0.0 } else { 0.5 };
        let offset = if self.half == Half::Tuning { 0.0 } else { 0.25 };
        upper + offset + 0.25 * self.random.uniform()
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.share()
    }

    fn log_between(&mut self, low: f64, high: f64) -> f64 {
        (self.between(low.ln(), high.ln())).exp()
    }
}

/// A simulated group.
pub struct Workload {
    pub points: Vec<LagPoint>,
    /// The first moment from which forecasts are made.
    pub first_origin: f64,
    pub max_length: Option<f64>,
    /// A lag that would be an alert: some minutes of arrivals.
    pub threshold: f64,
    /// When entries were lost first, and again after half an hour without a loss.
    pub losses: Vec<f64>,
    /// Every tick in which entries were lost.
    pub losing: Vec<f64>,
}

/// Hours for which a workload goes on after its first origin.
pub const TEST_HOURS: f64 = 18.0;

/// An AR(1) factor around 1.
struct Wave {
    state: f64,
    keep: f64,
    size: f64,
}

impl Wave {
    fn new(memory: f64, size: f64) -> Self {
        Self { state: 0.0, keep: (-TICK / memory).exp(), size }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        self.state = self.keep * self.state + (1.0 - self.keep * self.keep).sqrt() * random.normal();
        (self.size * self.state).exp()
    }
}

/// A process that switches at random times.
struct Switch {
    until: f64,
    value: f64,
    down: bool,
}

pub fn simulate(family: &str, half: Half, seed: u64) -> Workload {
    let mut random =
        Random::new(seed * 1_000 + FAMILIES.iter().position(|name| *name == family).unwrap_or(0) as u64 + 1);
    for _ in 0..10 {
        random.uniform();
    }
    let mut parameters = Parameters { random: &mut random, half };
    let p = &mut parameters;
    let history = match family {
        "daily" => 8.0 * DAY,
        "weekly" => 28.0 * DAY,
        _ => 2.0 * DAY,
    };
    let total = history + TEST_HOURS * HOUR;
    let rate = p.log_between(2.0, 500.0);
    let slow_noise = p.between(0.02, 0.12);
    let fast_noise = p.between(0.05, 0.3);
    let capacity_noise = p.between(0.02, 0.1);
    let headroom = p.between(1.3, 2.5);
    let (one, two, three, four) = (p.share(), p.share(), p.share(), p.share());
    let scale = |share: f64, low: f64, high: f64| low + (high - low) * share;
    let consumers = 1.0 + (one * 6.0).floor();
    let threshold = rate * scale(p.share(), 300.0, 1_200.0);
    let max_length = match family {
        "trim" => Some((rate * scale(four, 1.0, 6.0) * HOUR).round()),
        _ => None,
    };
    let mut slow = Wave::new(900.0, slow_noise);
    let mut capacity_wave = Wave::new(300.0, capacity_noise);
    let mut level_of_day = 1.0;
    let mut switch = Switch { until: random.exponential(6.0 * HOUR), value: 1.0, down: false };
    let mut burst = (random.exponential(scale(two, 1.0, 6.0) * HOUR), 0.0, 0.0);
    // What happens once has begun when the first forecast is made: nothing tells of it before.
    let begun =
        if family == "trim" { scale(random.uniform(), -3.0, -0.25) } else { scale(random.uniform(), -10.0, -0.5) };
    let starts = history + begun * HOUR;
    let batch_period = [900.0, 1_800.0, 3_600.0, 7_200.0][(two * 4.0) as usize];
    let mut leak_start = 0.0;
    let mut leak_until = 0.0;
    let mut gap_until = 0.0;
    let mut gap_next = random.exponential(8.0 * HOUR);

    let (mut lag, mut length) = (0.0_f64, 0.0_f64);
    if family == "idle" && one < 0.5 {
        lag = (two * 10_000.0).round();
        length = lag;
    }
    let mut points = Vec::new();
    let (mut added_sum, mut delivered_sum, mut lowest, mut ticks_seen) = (0.0, 0.0, f64::INFINITY, 0.0);
    let (mut losses, mut losing, mut last_loss) = (Vec::new(), Vec::new(), f64::NEG_INFINITY);
    let ticks = (total / TICK) as usize;
    for tick in 0..ticks {
        let time = tick as f64 * TICK;
        let hour_of_day = (time % DAY) / HOUR;
        if time % DAY < TICK {
            level_of_day = (0.06 * random.normal()).exp();
        }
        let mut wanted = rate;
        let mut able = rate * headroom;
        let mut alive = consumers;
        match family {
            "ramp" => {
                able = rate * scale(one, 1.05, 1.4);
                let grown = (time - starts).max(0.0) / (scale(two, 4.0, 12.0) * HOUR);
                wanted = rate * (1.0 + scale(three, 0.4, 1.2) * grown);
            }
            "daily" | "weekly" => {
                let height = scale(two, 0.5, 0.95);
                let peak = scale(three, 8.0, 20.0);
                let wave = ((hour_of_day - peak) / 24.0 * std::f64::consts::TAU).cos();
                wanted = rate * level_of_day * (1.0 + height * wave);
                if family == "weekly" && (time / DAY) as usize % 7 >= 5 {
                    wanted *= 0.35;
                }
                able = rate * (1.0 + scale(four, 0.3, 0.8) * height);
            }
            "burst" => {
                if time >= burst.0 {
                    let lasts = scale(random.uniform(), 60.0, 300.0);
                    burst.1 = time + lasts;
                    burst.2 = rate * scale(random.uniform(), 200.0, 4_000.0) / lasts;
                    burst.0 = burst.1 + random.exponential(scale(two, 1.0, 6.0) * HOUR);
                }
                if time < burst.1 {
                    wanted += burst.2;
                }
            }
            "batch" => {
                wanted = 0.02 * rate;
                if time % batch_period < 60.0 {
                    wanted += rate * batch_period / 60.0;
                }
                able = rate * scale(three, 1.3, 5.0);
            }
            "consumer_crash" | "capacity_step" | "restart_gap" => {
                if time >= switch.until {
                    switch.down = !switch.down;
                    if family == "consumer_crash" {
                        let repair = scale(three, 10.0, 90.0) * 60.0 * scale(random.uniform(), 0.5, 1.5);
                        let lasts = random.exponential(scale(two, 4.0, 12.0) * HOUR);
                        switch.until = time + if switch.down { repair } else { lasts };
                        let left = if random.uniform() < 0.5 { 0.0 } else { (consumers * 0.4).floor() };
                        switch.value = if switch.down { left / consumers } else { 1.0 };
                    } else {
                        let lasts = random.exponential(scale(two, 3.0, 8.0) * HOUR);
                        switch.until = time + if switch.down { lasts * 0.5 } else { lasts };
                        let slow = scale(random.uniform(), 0.5, 0.95) / headroom;
                        switch.value = if switch.down { slow } else { 1.0 };
                    }
                }
                able *= switch.value;
                if family == "consumer_crash" {
                    alive = (consumers * switch.value).round();
                }
            }
            "leak" => {
                if time >= leak_until {
                    leak_start = time;
                    leak_until = time + scale(random.uniform(), 18.0, 40.0) * HOUR;
                }
                able = rate * (headroom * (1.0 - (time - leak_start) / (scale(two, 30.0, 60.0) * HOUR))).max(0.1);
            }
            "trim" if time > starts => able = rate * scale(one, 0.5, 0.95),
            "idle" => {
                wanted = 0.0;
                alive = 0.0;
                able = 0.0;
            }
            _ => {}
        }
        let mean = wanted * slow.next(&mut random) * TICK;
        let arrived = (mean + (mean.sqrt() + fast_noise * mean) * random.normal()).max(0.0).round();
        let could = (able * capacity_wave.next(&mut random) * TICK * (1.0 + 0.1 * random.normal())).max(0.0).round();
        // Entries of the last moment of the tick are on their way.
        let taken = could.min(lag + arrived);
        lag += arrived - taken;
        length += arrived;
        length = length.min(max_length.unwrap_or(f64::INFINITY));
        if lag > length {
            lag = length;
            if time - last_loss > 1_800.0 {
                losses.push(time);
            }
            last_loss = time;
            losing.push(time);
        }
        let on_the_way = if alive > 0.0 { (arrived / TICK * 0.3).round() } else { 0.0 };
        let seen_lag = lag.max(on_the_way.min(length));
        let sampled = family != "restart_gap" || time >= gap_until;
        if family == "restart_gap" && time >= gap_next {
            gap_until = time + scale(random.uniform(), 5.0, 60.0) * 60.0;
            gap_next = gap_until + random.exponential(8.0 * HOUR);
        }
        added_sum += arrived;
        delivered_sum += taken;
        ticks_seen += 1.0;
        lowest = lowest.min(seen_lag);
        if tick % TICKS == TICKS - 1 {
            let seconds = ticks_seen * TICK;
            let known = |value: f64| sampled.then_some(value);
            let time = time + TICK;
            points.push(LagPoint {
                time,
                lag_min: known(seen_lag),
                lag_max: known(seen_lag),
                lag_lowest: known(lowest),
                // A rate over a gap is not known: counters are compared from sample to sample of one run.
                added_per_second: known(added_sum / seconds),
                delivered_per_second: known(delivered_sum / seconds),
                length: known(length),
            });
            (added_sum, delivered_sum, lowest, ticks_seen) = (0.0, 0.0, f64::INFINITY, 0.0);
        }
    }
    Workload { points, first_origin: history, max_length, threshold, losses, losing }
}
