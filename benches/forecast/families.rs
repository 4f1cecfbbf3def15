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
/// Entries that Redis trims at once: those of a node (`stream-node-max-entries`).
const NODE: f64 = 100.0;

/// Which half of each parameter's range is drawn from: what is tuned on never sees the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Tuning,
    HeldOut,
}

#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1);
        // The first numbers of seeds that are alike are alike.
        for _ in 0..10 {
            random.uniform();
        }
        random
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
#[derive(Default)]
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
    /// What it was at the first origin and every [`STATES_EVERY`] seconds from there.
    states: Vec<Simulation>,
}

impl Workload {
    /// What it was at a moment from the first origin on.
    pub fn state_at(&self, time: f64) -> &Simulation {
        &self.states[((time - self.first_origin) / STATES_EVERY) as usize]
    }
}

/// How often the state of a workload is kept, in seconds: each moment at which forecasts are made or warnings evaluated.
const STATES_EVERY: f64 = 300.0;

/// Hours after the first origin at which forecasts are made.
pub const ORIGINS: [f64; 4] = [0.0, 4.0, 8.0, 12.0];

/// Hours for which a workload goes on after its first origin.
pub const TEST_HOURS: f64 = 18.0;

/// An AR(1) factor around 1.
#[derive(Clone)]
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

/// How long something lasts, in seconds.
#[derive(Clone, Copy)]
enum Law {
    Exponential(f64),
    Uniform(f64, f64),
}

/// What ends at a random time.
#[derive(Clone, Copy)]
struct Span {
    since: f64,
    law: Law,
    until: f64,
}

impl Span {
    fn new(since: f64, law: Law, random: &mut Random) -> Self {
        let lasts = match law {
            Law::Exponential(mean) => random.exponential(mean),
            Law::Uniform(low, high) => between(random.uniform(), low, high),
        };
        Self { since, law, until: since + lasts }
    }

    /// Another end, of those that are possible as it goes on at `now`.
    fn redraw(&mut self, now: f64, random: &mut Random) {
        // Where it is over, nothing depends on it.
        if self.until <= now {
            return;
        }
        // A wait of this kind does not remember how long it has lasted; one that is still to begin does so later.
        if matches!(self.law, Law::Exponential(_)) {
            self.since = self.since.max(now);
        }
        loop {
            *self = Self::new(self.since, self.law, random);
            if self.until > now {
                return;
            }
        }
    }
}

fn between(share: f64, low: f64, high: f64) -> f64 {
    low + (high - low) * share
}

/// A group, its parameters, and what chance has brought so far.
#[derive(Clone)]
pub struct Simulation {
    family: &'static str,
    random: Random,
    tick: usize,
    rate: f64,
    fast_noise: f64,
    headroom: f64,
    /// Parameters whose meaning is the family's own.
    shares: (f64, f64, f64, f64),
    consumers: f64,
    max_length: Option<f64>,
    /// When what happens once begins.
    starts: f64,
    slow: Wave,
    capacity_wave: Wave,
    level_of_day: f64,
    /// How long capacity stays what it is, and what share of the usual that is.
    switch: Span,
    switched_to: f64,
    is_down: bool,
    calm: Span,
    burst: Span,
    burst_rate: f64,
    leak: Span,
    gap: Span,
    until_gap: Span,
    lag: f64,
    length: f64,
}

/// What is known at the end of a tick.
pub struct Seen {
    arrived: f64,
    taken: f64,
    pub lag: f64,
    pub is_losing: bool,
    is_sampled: bool,
}

impl Simulation {
    /// It, and a lag that would be an alert.
    fn new(family: &'static str, half: Half, seed: u64, history: f64) -> (Self, f64) {
        let mut random =
            Random::new(seed * 1_000 + FAMILIES.iter().position(|name| *name == family).unwrap_or(0) as u64 + 1);
        let mut parameters = Parameters { random: &mut random, half };
        let p = &mut parameters;
        let rate = p.log_between(2.0, 500.0);
        let slow_noise = p.between(0.02, 0.12);
        let fast_noise = p.between(0.05, 0.3);
        let capacity_noise = p.between(0.02, 0.1);
        let headroom = p.between(1.3, 2.5);
        let (one, two, three, four) = (p.share(), p.share(), p.share(), p.share());
        let threshold = rate * between(p.share(), 300.0, 1_200.0);
        let max_length = (family == "trim").then(|| (rate * between(four, 1.0, 6.0) * HOUR).round());
        let switch = Span::new(0.0, Law::Exponential(6.0 * HOUR), &mut random);
        let calm = Span::new(0.0, Law::Exponential(between(two, 1.0, 6.0) * HOUR), &mut random);
        // What happens once has begun when the first forecast is made: nothing tells of it before.
        let begun = if family == "trim" {
            between(random.uniform(), -3.0, -0.25)
        } else {
            between(random.uniform(), -10.0, -0.5)
        };
        let until_gap = Span::new(0.0, Law::Exponential(8.0 * HOUR), &mut random);
        let over = Span { since: 0.0, law: Law::Uniform(0.0, 0.0), until: 0.0 };
        let lag = if family == "idle" && one < 0.5 { (two * 10_000.0).round() } else { 0.0 };
        let simulation = Self {
            family,
            random,
            tick: 0,
            rate,
            fast_noise,
            headroom,
            shares: (one, two, three, four),
            consumers: 1.0 + (one * 6.0).floor(),
            max_length,
            starts: history + begun * HOUR,
            slow: Wave::new(900.0, slow_noise),
            capacity_wave: Wave::new(300.0, capacity_noise),
            level_of_day: 1.0,
            switch,
            switched_to: 1.0,
            is_down: false,
            calm,
            burst: over,
            burst_rate: 0.0,
            leak: over,
            gap: over,
            until_gap,
            lag,
            length: lag,
        };
        (simulation, threshold)
    }

    /// Seconds since the beginning.
    fn time(&self) -> f64 {
        self.tick as f64 * TICK
    }

    /// What may come instead of what does: from now on, chance is another.
    fn other_future(&self, seed: u64) -> Self {
        let mut other = Self { random: Random::new(seed), ..self.clone() };
        let now = other.time();
        for span in [
            &mut other.switch,
            &mut other.calm,
            &mut other.burst,
            &mut other.leak,
            &mut other.gap,
            &mut other.until_gap,
        ] {
            span.redraw(now, &mut other.random);
        }
        other
    }

    /// The lag after each of these times in `futures` other futures, sorted: what is known to who knows all but what chance will bring.
    pub fn outcomes(&self, horizons: &[f64], futures: u64) -> Vec<Vec<f64>> {
        let mut outcomes = vec![Vec::new(); horizons.len()];
        for seed in 1..=futures {
            let mut future = self.other_future(seed);
            let mut lag = 0.0;
            for (outcomes, horizon) in outcomes.iter_mut().zip(horizons) {
                while future.time() < self.time() + horizon {
                    lag = future.step().lag;
                }
                outcomes.push(lag);
            }
        }
        for lags in &mut outcomes {
            lags.sort_by(f64::total_cmp);
        }
        outcomes
    }

    /// In what share of so many other futures something comes within `horizon` seconds.
    pub fn share_of_futures(&self, horizon: f64, futures: u64, comes: impl Fn(&Seen) -> bool) -> f64 {
        let until = self.time() + horizon;
        let comes_in = |seed: &u64| {
            let mut future = self.other_future(*seed);
            while future.time() < until {
                if comes(&future.step()) {
                    return true;
                }
            }
            false
        };
        (1..=futures).filter(comes_in).count() as f64 / futures as f64
    }

    fn step(&mut self) -> Seen {
        let time = self.time();
        let random = &mut self.random;
        let (rate, consumers, (one, two, three, four)) = (self.rate, self.consumers, self.shares);
        if time % DAY < TICK {
            self.level_of_day = (0.06 * random.normal()).exp();
        }
        let mut wanted = rate;
        let mut able = rate * self.headroom;
        let mut alive = consumers;
        match self.family {
            "ramp" => {
                able = rate * between(one, 1.05, 1.4);
                let grown = (time - self.starts).max(0.0) / (between(two, 4.0, 12.0) * HOUR);
                wanted = rate * (1.0 + between(three, 0.4, 1.2) * grown);
            }
            "daily" | "weekly" => {
                let height = between(two, 0.5, 0.95);
                let peak = between(three, 8.0, 20.0);
                let wave = (((time % DAY) / HOUR - peak) / 24.0 * std::f64::consts::TAU).cos();
                wanted = rate * self.level_of_day * (1.0 + height * wave);
                if self.family == "weekly" && (time / DAY) as usize % 7 >= 5 {
                    wanted *= 0.35;
                }
                able = rate * (1.0 + between(four, 0.3, 0.8) * height);
            }
            "burst" => {
                if time >= self.calm.until {
                    self.burst = Span::new(time, Law::Uniform(60.0, 300.0), random);
                    self.burst_rate =
                        rate * between(random.uniform(), 200.0, 4_000.0) / (self.burst.until - self.burst.since);
                    self.calm = Span::new(self.burst.until, Law::Exponential(between(two, 1.0, 6.0) * HOUR), random);
                }
                if time < self.burst.until {
                    wanted += self.burst_rate;
                }
            }
            "batch" => {
                let period = [900.0, 1_800.0, 3_600.0, 7_200.0][(two * 4.0) as usize];
                wanted = 0.02 * rate;
                if time % period < 60.0 {
                    wanted += rate * period / 60.0;
                }
                able = rate * between(three, 1.3, 5.0);
            }
            "consumer_crash" | "capacity_step" | "restart_gap" => {
                if time >= self.switch.until {
                    self.is_down = !self.is_down;
                    if self.family == "consumer_crash" {
                        let repair = between(three, 10.0, 90.0) * 60.0;
                        let repair = Span::new(time, Law::Uniform(0.5 * repair, 1.5 * repair), random);
                        let lasts = Span::new(time, Law::Exponential(between(two, 4.0, 12.0) * HOUR), random);
                        self.switch = if self.is_down { repair } else { lasts };
                        let left = if random.uniform() < 0.5 { 0.0 } else { (consumers * 0.4).floor() };
                        self.switched_to = if self.is_down { left / consumers } else { 1.0 };
                    } else {
                        let mean = between(two, 3.0, 8.0) * HOUR * if self.is_down { 0.5 } else { 1.0 };
                        self.switch = Span::new(time, Law::Exponential(mean), random);
                        let slow = between(random.uniform(), 0.5, 0.95) / self.headroom;
                        self.switched_to = if self.is_down { slow } else { 1.0 };
                    }
                }
                able *= self.switched_to;
                if self.family == "consumer_crash" {
                    alive = (consumers * self.switched_to).round();
                }
            }
            "leak" => {
                if time >= self.leak.until {
                    self.leak = Span::new(time, Law::Uniform(18.0 * HOUR, 40.0 * HOUR), random);
                }
                let leaked = (time - self.leak.since) / (between(two, 30.0, 60.0) * HOUR);
                able = rate * (self.headroom * (1.0 - leaked)).max(0.1);
            }
            "trim" if time > self.starts => able = rate * between(one, 0.5, 0.95),
            "idle" => {
                wanted = 0.0;
                alive = 0.0;
                able = 0.0;
            }
            _ => {}
        }
        let mean = wanted * self.slow.next(random) * TICK;
        let arrived = (mean + (mean.sqrt() + self.fast_noise * mean) * random.normal()).max(0.0).round();
        let could = (able * self.capacity_wave.next(random) * TICK * (1.0 + 0.1 * random.normal())).max(0.0).round();
        // Entries of the last moment of the tick are on their way.
        let taken = could.min(self.lag + arrived);
        self.lag += arrived - taken;
        self.length += arrived;
        if let Some(excess) = self.max_length.map(|length| self.length - length).filter(|excess| *excess > 0.0) {
            self.length -= (excess / NODE).floor() * NODE;
        }
        let is_losing = self.lag > self.length;
        self.lag = self.lag.min(self.length);
        let on_the_way = if alive > 0.0 { (arrived / TICK * 0.3).round() } else { 0.0 };
        let is_sampled = self.family != "restart_gap" || time >= self.gap.until;
        if self.family == "restart_gap" && time >= self.until_gap.until {
            self.gap = Span::new(time, Law::Uniform(5.0 * 60.0, 60.0 * 60.0), random);
            self.until_gap = Span::new(self.gap.until, Law::Exponential(8.0 * HOUR), random);
        }
        self.tick += 1;
        Seen { arrived, taken, lag: self.lag.max(on_the_way.min(self.length)), is_losing, is_sampled }
    }
}

pub fn simulate(family: &'static str, half: Half, seed: u64) -> Workload {
    let history = match family {
        "daily" => 8.0 * DAY,
        "weekly" => 28.0 * DAY,
        _ => 2.0 * DAY,
    };
    let (mut simulation, threshold) = Simulation::new(family, half, seed, history);
    let mut workload =
        Workload { first_origin: history, max_length: simulation.max_length, threshold, ..Workload::default() };
    let (mut added_sum, mut delivered_sum, mut lowest) = (0.0, 0.0, f64::INFINITY);
    let mut last_loss = f64::NEG_INFINITY;
    while simulation.time() < history + TEST_HOURS * HOUR {
        let time = simulation.time();
        if time >= history && (time - history) % STATES_EVERY == 0.0 {
            workload.states.push(simulation.clone());
        }
        let seen = simulation.step();
        if seen.is_losing {
            if time - last_loss > 1_800.0 {
                workload.losses.push(time);
            }
            last_loss = time;
            workload.losing.push(time);
        }
        added_sum += seen.arrived;
        delivered_sum += seen.taken;
        lowest = lowest.min(seen.lag);
        if simulation.tick.is_multiple_of(TICKS) {
            let seconds = TICKS as f64 * TICK;
            let known = |value: f64| seen.is_sampled.then_some(value);
            workload.points.push(LagPoint {
                time: simulation.time(),
                lag_min: known(seen.lag),
                lag_max: known(seen.lag),
                lag_lowest: known(lowest),
                // A rate over a gap is not known: counters are compared from sample to sample of one run.
                added_per_second: known(added_sum / seconds),
                delivered_per_second: known(delivered_sum / seconds),
                length: known(simulation.length),
            });
            (added_sum, delivered_sum, lowest) = (0.0, 0.0, f64::INFINITY);
        }
    }
    workload
}
