//! A disk that fails when it is told to.

use std::process::Command;

/// The environment that gives it to a program, and the file that says what fails.
pub struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// One that works, so far.
    pub fn new() -> Self {
        let disk = Self { dir: tempfile::tempdir().unwrap() };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/disk.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", &disk.path("disk.so"), source]).output();
        let built = built.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        disk.works();
        disk
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn say(&self, text: &str) {
        // Moved there whole: it may be read at any time.
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path("fault")).unwrap();
    }

    pub fn works(&self) {
        self.say("0 0");
    }

    /// Writes fail with this error number, and reads with it as well where it is said.
    pub fn fails(&self, errno: i32, reads: bool) {
        self.say(&format!("{errno} {}", u8::from(reads)));
    }

    /// For files whose path has this in it, beside another library that is preloaded.
    pub fn env(&self, part: &str, preload: &str) -> [(&'static str, String); 3] {
        [
            ("LD_PRELOAD", format!("{preload}:{}", self.path("disk.so"))),
            ("DISK_FAULT", self.path("fault")),
            ("DISK_FAULT_PATH", part.to_owned()),
        ]
    }
}
