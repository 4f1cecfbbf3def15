//! Processes under the memory limits of `deploy/`.

use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: u64 = 1 << 20;

/// A memory limit that processes are put under: a cgroup where one can be made, else `RLIMIT_DATA`.
pub struct MemoryLimit {
    bytes: u64,
    cgroup: Option<PathBuf>,
}

impl MemoryLimit {
    pub fn of(bytes: u64) -> Self {
        Self { bytes, cgroup: cgroup(bytes) }
    }

    /// The limit of the Kubernetes deployment and of the compose file.
    pub fn of_deployment() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/streamlag/values.yaml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        let memory = manifest.split_once("limits: {memory: ").unwrap().1.split_once("Mi}").unwrap().0;
        Self::of(memory.parse::<u64>().unwrap() * MIB)
    }

    /// Puts a process under it. What it has taken by now counts only where there is no cgroup.
    pub fn hold(&self, pid: u32) {
        if let Some(cgroup) = &self.cgroup {
            std::fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
            return;
        }
        let limit = format!("--data={}", self.bytes);
        let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            // It can be removed once its last process is gone.
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

/// A cgroup of this limit below the own one: of version 1, or of version 2 where its memory controller is on.
fn cgroup(bytes: u64) -> Option<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = |line: &str| line.splitn(3, ':').nth(2).map(|path| path.trim_start_matches('/').to_owned());
    let of_memory = own.lines().find(|line| line.split(':').nth(1) == Some("memory"));
    let (parent, file) = match of_memory {
        Some(line) => (Path::new("/sys/fs/cgroup/memory").join(path(line)?), "memory.limit_in_bytes"),
        None => {
            (Path::new("/sys/fs/cgroup").join(path(own.lines().find(|line| line.starts_with("0::"))?)?), "memory.max")
        }
    };
    let cgroup = parent.join(format!("streamlag-test-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir(&cgroup).ok()?;
    if std::fs::write(cgroup.join(file), bytes.to_string()).is_err() {
        let _ = std::fs::remove_dir(&cgroup);
        return None;
    }
    Some(cgroup)
}
