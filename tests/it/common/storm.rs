//! A Redis, a streamlag, a proxy between them, and somebody who looks at every page while something goes wrong.

use std::time::{Duration, Instant};

use super::observer::{Look, Observer, Truth};
use super::proxy::{Fault, Proxy};
use super::{Redis, Streamlag, TOKEN, eventually, shows_streams, streamlag_with_env, value_of};

pub const GROUP: &str = "signalr-consumers";

/// Short enough for many faults a minute, long enough for a loaded machine to poll within it.
pub const TIMEOUT: &str = "500ms";

/// How much more memory the process may ever have than before the fault. A poll of this data takes kilobytes; this is for
/// what allocators keep, and far below anything that was announced and should not be believed.
pub const MEMORY_GROWTH: u64 = 64 << 20;

/// Fills a Redis with two streams and three groups, one of them in the middle of its stream.
pub fn fill(redis: &Redis, entries: usize, read: usize) {
    for (stream, group) in [("events:chat", GROUP), ("events:ticket", GROUP), ("events:ticket", "drained")] {
        redis.run(&format!("XGROUP CREATE {stream} {group} 0 MKSTREAM"));
    }
    redis.add("events:chat", entries);
    redis.read("events:chat", GROUP, "instance-1", read);
    redis.add("events:ticket", 7);
    redis.read("events:ticket", "drained", "instance-1", 7);
}

/// The lags that [`fill`] makes.
pub fn truth(entries: usize, read: usize) -> Truth {
    let series = |stream, group| format!("{{stream=\"{stream}\",consumer_group=\"{group}\"}}");
    let lags = [
        (series("events:chat", GROUP), (entries - read) as f64),
        (series("events:ticket", GROUP), 7.0),
        (series("events:ticket", "drained"), 0.0),
    ];
    lags.into()
}

/// Everything that takes part.
pub struct Storm {
    pub redis: Redis,
    pub proxy: Proxy,
    pub observer: Observer,
    pub streamlag: Streamlag,
}

impl Storm {
    /// In good weather: everything is up, and its lags are shown.
    pub fn new(arguments: &[&str]) -> Self {
        Self::over(Redis::start(), arguments)
    }

    /// With this Redis.
    pub fn over(redis: Redis, arguments: &[&str]) -> Self {
        let proxy = Proxy::start(redis.port);
        let url = proxy.url();
        Self::with(redis, proxy, &url, arguments, &[])
    }

    /// Without the proxy in between.
    pub fn direct(arguments: &[&str]) -> Self {
        let redis = Redis::start();
        let (proxy, url) = (Proxy::start(redis.port), redis.url());
        Self::with(redis, proxy, &url, arguments, &[])
    }

    pub fn with(redis: Redis, proxy: Proxy, url: &str, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        fill(&redis, 20, 5);
        let mut all = vec!["--redis.url", url, "--streams", "events:chat,events:ticket", "--groups", "*"];
        if !arguments.contains(&"--redis.timeout") {
            all.extend(["--redis.timeout", TIMEOUT]);
        }
        all.extend(arguments);
        let env = [env, &[("STREAMLAG_API_TOKEN", TOKEN)]].concat();
        let streamlag = streamlag_with_env(&all, &env).ready();
        let observer = Observer::start(streamlag.address, truth(20, 5));
        let storm = Self { redis, proxy, observer, streamlag };
        storm.is_well();
        storm
    }

    /// Waits until the page shows every lag as it is.
    pub fn is_well(&self) {
        eventually("every lag is shown", || Some(self.observer.newest()).filter(|look| look.up && look.exact));
    }

    /// A fault that keeps Redis from being sampled, for one of these reasons: noticed by the first poll that began in it,
    /// and over with the first that began after it.
    pub fn outage(
        &mut self,
        fault: &str,
        reasons: &[&str],
        begin: impl FnOnce(&mut Self),
        end: impl FnOnce(&mut Self),
    ) {
        let mut figures = self.peace(fault);
        let began = Instant::now();
        begin(self);
        let from = self.observer.next_poll();
        eventually("old lags are no longer shown", || (!shows_streams(&self.streamlag.metrics())).then_some(()));
        let during = self.observer.since(began);
        let shown = during.iter().find(|look| look.polls() >= from && look.up);
        assert!(shown.is_none(), "{fault}: Redis is said to be up: {shown:?}");
        figures.noticed = during.iter().find(|look| !look.up).map(|look| look.at - began);
        end(self);
        let ending = Instant::now();
        let from = self.observer.next_poll();
        self.is_well();
        let after = self.observer.since(ending);
        let down = after.iter().find(|look| look.polls() >= from && !look.up);
        assert!(down.is_none(), "{fault}: Redis is said to be down: {down:?}");
        figures.recovered = after.iter().find(|look| look.up).map(|look| look.at - ending);
        figures.during = page_times(&during);
        self.survived(figures);
        self.said_once(fault, reasons);
    }

    /// A fault that changes nothing on the page and nothing in the log, for some polls.
    pub fn harmless(&mut self, fault: &str, begin: impl FnOnce(&mut Self), end: impl FnOnce(&mut Self)) {
        let mut figures = self.peace(fault);
        let began = Instant::now();
        begin(self);
        for _ in 0..3 {
            self.observer.next_poll();
        }
        figures.during = page_times(&self.observer.since(began));
        end(self);
        self.observer.next_poll();
        let not_well = self.observer.since(began).into_iter().find(|look| !look.up || !look.exact);
        assert!(not_well.is_none(), "{fault}: {not_well:?}");
        self.survived(figures);
        assert!(self.log().is_empty(), "{fault}: {:?}", self.log());
    }

    /// A fault in which Redis answers and both streams cannot be read, which is said once for each.
    pub fn unreadable(&mut self, fault: &str, begin: impl FnOnce(&mut Self), end: impl FnOnce(&mut Self)) {
        let mut figures = self.peace(fault);
        let began = Instant::now();
        begin(self);
        let from = self.observer.next_poll();
        for _ in 0..2 {
            self.observer.next_poll();
            let page = self.streamlag.metrics();
            assert!(!page.contains("\nevent_consumer_lag"), "{fault}: {page}");
            assert_eq!(value_of(&page, "streamlag_redis_up"), Some(1.0), "{fault}");
            assert_eq!(value_of(&page, "event_stream_up{stream=\"events:chat\"}"), Some(0.0), "{fault}");
        }
        let during = self.observer.since(began);
        figures.noticed = during.iter().find(|look| !look.exact).map(|look| look.at - began);
        figures.during = page_times(&during);
        let shown = during.iter().find(|look| look.polls() >= from && look.exact);
        assert!(shown.is_none(), "{fault}: {shown:?}");
        end(self);
        let ending = Instant::now();
        let from = self.observer.next_poll();
        let after = self.observer.since(ending);
        let hidden = after.iter().find(|look| look.polls() >= from && !look.exact);
        assert!(hidden.is_none(), "{fault}: {hidden:?}");
        figures.recovered = after.iter().find(|look| look.exact).map(|look| look.at - ending);
        self.survived(figures);
        for (stream, said) in [("chat", "failed"), ("ticket", "failed")]
            .into_iter()
            .chain([("chat", "succeeded again"), ("ticket", "succeeded again")])
        {
            let line = format!("msg=\"stream read {said}\" stream=events:{stream}");
            eventually(&line, || self.streamlag.log_lines(&line).pop());
        }
        assert_eq!(self.log().len(), 4, "{fault}: {:?}", self.log());
    }

    /// What was logged of the fault: not that groups which nobody reads have stopped, or lost entries.
    pub fn log(&self) -> Vec<String> {
        self.streamlag.log().into_iter().filter(|line| !line.contains(" state=")).collect()
    }

    /// The page in peace, and an empty log.
    fn peace(&self, fault: &str) -> Figures {
        let mark = Instant::now();
        eventually("looks in peace", || (self.observer.since(mark).len() >= 20).then_some(()));
        self.streamlag.log_clear();
        Figures {
            fault: fault.to_owned(),
            peace: page_times(&self.observer.since(mark)),
            memory: memory(self.streamlag.pid(), "VmRSS"),
            noticed: None,
            recovered: None,
            during: Duration::ZERO,
        }
    }

    /// The process is there, within its memory, and no page was wrong.
    fn survived(&mut self, figures: Figures) {
        assert!(self.streamlag.is_running(), "{}: {:?}", figures.fault, self.streamlag.log());
        assert!(self.streamlag.log_lines("panicked").is_empty(), "{}: {:?}", figures.fault, self.streamlag.log());
        self.observer.nothing_was_wrong();
        let grown = memory(self.streamlag.pid(), "VmHWM").saturating_sub(figures.memory);
        figures.print(grown);
        assert!(grown < MEMORY_GROWTH, "{}: the process grew by {grown} bytes", figures.fault);
    }

    /// One line when it goes wrong, or one per reason, and one when it is well again.
    fn said_once(&self, fault: &str, reasons: &[&str]) {
        eventually("the recovery is logged", || self.streamlag.log_lines("\"poll succeeded again\"").pop());
        let log = self.log();
        let (last, down) = log.split_last().unwrap();
        assert!(last.contains("\"poll succeeded again\""), "{fault}: {log:?}");
        let reason_of = |line: &String| {
            reasons.iter().position(|reason| line.contains(&format!("\"poll failed\" reason={reason} ")))
        };
        let mut said: Vec<_> = down.iter().map(reason_of).collect();
        assert!(!said.is_empty() && !said.contains(&None), "{fault}: {log:?}");
        said.sort_unstable();
        said.dedup();
        assert_eq!(said.len(), down.len(), "{fault}: {log:?}");
    }

    /// A fault of the proxy that is an outage.
    pub fn outage_by(&mut self, fault: &str, reasons: &[&str], by: Fault) {
        self.outage(fault, reasons, |storm| storm.proxy.set(by), |storm| storm.proxy.set(Fault::None));
    }

    /// Goes through faults that each may or may not keep Redis from being sampled, for two polls each. Whatever they do, no
    /// page is wrong, each outage is said once, and all is well afterwards.
    pub fn sweep(&mut self, fault: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut figures = self.peace(fault);
        let began = Instant::now();
        for by in faults {
            self.streamlag.log_clear();
            let before = self.observer.newest().polls;
            self.proxy.set(by);
            self.observer.next_poll();
            let after = self.observer.newest().polls;
            assert!(self.streamlag.log_lines("panicked").is_empty(), "{fault}: {:?}", self.streamlag.log());
            // An outage ends with a good poll, so there can be one more than there are of those.
            let outages = after[0] + after[1] - before[0] - before[1] + 2.0;
            for said in ["poll failed", "stream read failed\" stream=events:chat"] {
                let said = self.streamlag.log_lines(said).len() as f64;
                assert!(said <= outages, "{fault}: {:?}", self.streamlag.log());
            }
        }
        figures.during = page_times(&self.observer.since(began));
        let ending = Instant::now();
        self.proxy.set(Fault::None);
        let from = self.observer.next_poll();
        self.is_well();
        let after = self.observer.since(ending);
        assert!(after.iter().all(|look| look.up || look.polls() < from), "{fault}: {after:?}");
        figures.recovered = after.iter().find(|look| look.up).map(|look| look.at - ending);
        self.survived(figures);
    }
}

struct Figures {
    fault: String,
    noticed: Option<Duration>,
    recovered: Option<Duration>,
    peace: Duration,
    during: Duration,
    memory: u64,
}

impl Figures {
    #[allow(clippy::print_stdout, reason = "seen with --nocapture")]
    fn print(&self, grown: u64) {
        let milliseconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| time.as_millis().to_string());
        println!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} |",
            self.fault,
            milliseconds(self.noticed),
            milliseconds(self.recovered),
            self.peace.as_secs_f64() * 1e3,
            self.during.as_secs_f64() * 1e3,
            grown as f64 / f64::from(1 << 20),
        );
    }
}

/// The 99th percentile of the time that pages took.
fn page_times(looks: &[Look]) -> Duration {
    let mut took: Vec<Duration> = looks.iter().map(|look| look.took).collect();
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().unwrap_or_default()
}

/// A line of `/proc/PID/status`, in bytes.
pub fn memory(pid: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}
