//! A real Alertmanager as a child process, and a client of its API.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::prometheus::{prometheuses, repository};
use super::{PATIENCE, Reply, eventually, free_port};

/// The Alertmanagers to test with: `STREAMLAG_TEST_ALERTMANAGERS`, separated by colons, else the installed one.
pub fn alertmanagers() -> Vec<PathBuf> {
    let listed = std::env::var("STREAMLAG_TEST_ALERTMANAGERS").unwrap_or_default();
    let listed: Vec<PathBuf> = listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if listed.is_empty() { vec![PathBuf::from("prometheus-alertmanager")] } else { listed }
}

/// An Alertmanager and a Prometheus at a time, so that each of both has its turn.
pub fn with_prometheuses() -> Vec<(PathBuf, PathBuf)> {
    let (alertmanagers, prometheuses) = (alertmanagers(), prometheuses());
    let pair =
        |n: usize| (alertmanagers[n % alertmanagers.len()].clone(), prometheuses[n % prometheuses.len()].clone());
    (0..alertmanagers.len().max(prometheuses.len())).map(pair).collect()
}

/// A running Alertmanager, in a directory of its own.
pub struct Alertmanager {
    pub address: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl Alertmanager {
    /// With a configuration, and files beside it: name and content. `templates/` is that of the repository.
    pub fn start(binary: &Path, config: &str, files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(repository("deploy/alertmanager/templates"), dir.path().join("templates")).unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        fs::write(dir.path().join("alertmanager.yml"), config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(binary)
            .current_dir(dir.path())
            .args(["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="])
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} cannot be started ({error}): run 'make test', which installs it", binary.display())
            });
        let mut alertmanager = Self { address, dir, child };
        eventually("alertmanager is ready", || {
            if let Some(status) = alertmanager.child.try_wait().unwrap() {
                panic!("alertmanager ended ({status}):\n{}", alertmanager.log());
            }
            alertmanager.request("GET", "/-/ready", "").filter(|reply| reply.status == 200)
        });
        alertmanager
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Option<Reply> {
        let mut connection = TcpStream::connect(&self.address).ok()?;
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0, so that the answer is not chunked.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\n", self.address);
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        write!(connection, "{head}{length}\r\n{body}").ok()?;
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).ok()?;
        (!reply.is_empty()).then(|| Reply::parse(&reply))
    }

    pub fn post(&self, alerts: &Value) {
        let reply = self.request("POST", "/api/v2/alerts", &alerts.to_string()).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// The alerts that it holds, with whether they are inhibited.
    pub fn alerts(&self) -> Vec<Value> {
        let reply = self.request("GET", "/api/v2/alerts", "").unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json().as_array().unwrap().clone()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("alertmanager's log:\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
