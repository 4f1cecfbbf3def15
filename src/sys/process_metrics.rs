//! The process as the operating system sees it, for the `process_*` metrics.

/// The process as the operating system sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessStats {
    /// User and system CPU time in seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most file descriptors it may have open; `None` where there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// When it started, seconds since the Unix epoch.
    pub start_seconds: f64,
}

/// What the operating system tells of this process; `None` where it does not.
#[cfg(target_os = "linux")]
#[must_use]
pub fn process_stats() -> Option<ProcessStats> {
    use std::sync::OnceLock;

    use procfs::process::Process;
    use procfs::{CurrentSI as _, WithCurrentSystemInfo as _};

    /// Seconds since the Unix epoch at which the machine was started. Reading that takes longer than all the rest.
    static BOOTED: OnceLock<Option<f64>> = OnceLock::new();

    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let booted = (*BOOTED.get_or_init(|| Some(procfs::KernelStats::current().ok()?.btime as f64)))?;
    let max_fds = rlimit::Resource::NOFILE.get_soft().ok()?;
    Some(ProcessStats {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count().ok()? as u64,
        max_fds: (max_fds != rlimit::INFINITY).then_some(max_fds),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        start_seconds: booted + stat.starttime as f64 / ticks_per_second,
    })
}

/// What the operating system tells of this process: nothing, on systems without `/proc`.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn process_stats() -> Option<ProcessStats> {
    None
}
