//! A clock that can be stepped.

use std::process::Command;
use std::sync::LazyLock;

use crate::common::eventually;

/// Where the library is that gives programs another clock, as `faketime` says. It fails where a process that had its number before was
/// killed and left its shared memory behind.
static LIBRARY: LazyLock<String> = LazyLock::new(|| {
    eventually("faketime names its library", || {
        let found = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let found = found.unwrap_or_else(|error| panic!("faketime ({error}): run 'make test', which installs it"));
        let library = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        library.contains("libfaketime").then_some(library)
    })
});

/// The environment that gives it to a program, and the file that steps it.
pub struct Clock {
    dir: tempfile::TempDir,
    library: String,
}

impl Clock {
    pub fn new() -> Self {
        let clock = Self { dir: tempfile::tempdir().unwrap(), library: LIBRARY.clone() };
        clock.step(0);
        clock
    }

    fn file(&self) -> String {
        self.dir.path().join("clock").to_str().unwrap().to_owned()
    }

    /// Removes what a program that was killed could not: the next one with its number would not start.
    pub fn clean_up(&self, pid: u32) {
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
        }
    }

    /// From now on it is so many seconds ahead.
    pub fn step(&self, seconds: i64) {
        // Moved there whole: it may be read at any time.
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    pub fn env(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}
