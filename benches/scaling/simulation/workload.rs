//! What comes, how long it takes, and what goes wrong.

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A workload.
#[derive(Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) seconds: u64,
    kind: Kind,
    /// Seconds that an entry takes.
    pub(crate) service_seconds: f64,
    /// Entries that a consumer reads at once.
    pub(crate) batch: u64,
    /// The length to which the stream is trimmed.
    pub(crate) max_length: Option<u64>,
    /// Entries in the stream before its group is made with `$`.
    pub(crate) old_entries: u64,
    /// Seconds within which an entry should be done.
    pub(crate) drain_target: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Steady,
    Ramp,
    Daily,
    Burst,
    Batch,
    Crash,
    SlowHandler,
    Trim,
}

/// Entries of 50 ms each, so that a replica does 20 per second.
const USUAL: Workload = Workload {
    name: "",
    seconds: 6 * HOUR,
    kind: Kind::Steady,
    service_seconds: 0.05,
    batch: 20,
    max_length: None,
    old_entries: 0,
    drain_target: 60,
};

pub(crate) const WORKLOADS: [Workload; 9] = [
    Workload { name: "steady", kind: Kind::Steady, ..USUAL },
    Workload { name: "ramp", kind: Kind::Ramp, ..USUAL },
    Workload { name: "daily", kind: Kind::Daily, seconds: 24 * HOUR, ..USUAL },
    Workload { name: "burst", kind: Kind::Burst, ..USUAL },
    Workload { name: "batch", kind: Kind::Batch, ..USUAL },
    Workload { name: "batch, group made with `$`", kind: Kind::Batch, old_entries: 1000, ..USUAL },
    Workload { name: "crash of consumers", kind: Kind::Crash, ..USUAL },
    Workload { name: "slow handler", kind: Kind::SlowHandler, service_seconds: 30.0, batch: 1, ..USUAL },
    Workload { name: "trim", kind: Kind::Trim, max_length: Some(10_000), ..USUAL },
];

impl Workload {
    /// Entries that come in this second.
    pub(crate) fn arrivals_at(&self, second: u64, mut around: impl FnMut(f64) -> u64) -> u64 {
        let rate = match self.kind {
            Kind::Steady | Kind::Crash => 90.0,
            Kind::Ramp => {
                let share = second as f64 / self.seconds as f64;
                200.0 * if share < 0.5 { 2.0 * share } else { 2.0 - 2.0 * share }
            }
            Kind::Daily => {
                let turn = std::f64::consts::TAU * second as f64 / (24 * HOUR) as f64;
                100.0 - 90.0 * turn.cos()
            }
            Kind::Burst if second % (30 * MINUTE) < MINUTE => 400.0,
            Kind::Burst => 10.0,
            // Nothing, and then all at once.
            Kind::Batch => return if second % HOUR == 10 * MINUTE { 20_000 } else { 0 },
            Kind::SlowHandler => 0.2,
            Kind::Trim if second % HOUR < 5 * MINUTE => 200.0,
            Kind::Trim => 20.0,
        };
        around(rate)
    }

    /// What a replica does within the drain target.
    pub(crate) fn high_target(&self) -> f64 {
        (self.drain_target as f64 / self.service_seconds).round()
    }

    /// A quarter of that.
    pub(crate) fn low_target(&self) -> f64 {
        (self.high_target() / 4.0).ceil()
    }

    /// How many of the consumers crash in this second.
    pub(crate) fn crashing_at(&self, second: u64, alive: u64) -> Option<u64> {
        let crashes = self.kind == Kind::Crash && second.is_multiple_of(HOUR);
        Some(alive / 2).filter(|crashing| crashes && *crashing > 0)
    }
}
