//! The process as the operating system sees it, for the `process_*` metrics.

use crate::render::exposition::ProcessStats;

/// What the operating system tells of this process; `None` where it does not.
#[cfg(target_os = "linux")]
#[must_use]
pub fn process_stats() -> Option<ProcessStats> {
    use procfs::process::Process;
    use procfs::{CurrentSI as _, WithCurrentSystemInfo as _};

    let process = Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let booted = procfs::KernelStats::current().ok()?.btime as f64;
    let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(limit) => Some(limit),
        procfs::process::LimitValue::Unlimited => None,
    };
    Some(ProcessStats {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count().ok()? as u64,
        max_fds,
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
