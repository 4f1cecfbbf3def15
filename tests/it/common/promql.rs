//! Real servers that speak PromQL as child processes: Prometheus and VictoriaMetrics.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::prometheus::{prometheuses, victoria_metrics};
use super::{eventually, free_port};

/// The servers to test with: every [Prometheus](prometheuses) and every [VictoriaMetrics](victoria_metrics).
pub fn promql_servers() -> Vec<PathBuf> {
    [prometheuses(), victoria_metrics()].concat()
}

/// A running server, in a directory of its own.
pub struct PromqlServer {
    pub address: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl PromqlServer {
    /// Scrapes these addresses every 500 ms, each with labels.
    pub fn start(binary: &Path, targets: &[(&str, Value)]) -> Self {
        Self::start_at(&format!("127.0.0.1:{}", free_port()), binary, targets, None)
    }

    /// At this address, and with TLS where there are files of a certificate and its key.
    pub fn start_at(address: &str, binary: &Path, targets: &[(&str, Value)], tls: Option<&[String; 2]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scraped = targets.iter().map(|(target, labels)| json!({"targets": [target], "labels": labels}));
        let config = json!({
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [{"job_name": "streamlag", "static_configs": scraped.collect::<Vec<_>>()}],
        });
        // JSON is YAML.
        fs::write(dir.path().join("scrape.yml"), config.to_string()).unwrap();
        let mut command = Command::new(binary);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(dir.path().join("log")).unwrap());
        if binary.to_string_lossy().contains("victoria") {
            command.args(["-promscrape.config=scrape.yml", "-storageDataPath=data", "-memory.allowedBytes=100MB"]);
            command.arg(format!("-httpListenAddr={address}"));
        } else {
            command.args(["--config.file=scrape.yml", "--storage.tsdb.path=data"]);
            command.arg(format!("--web.listen-address={address}"));
            if let Some([certificate, key]) = tls {
                let web = json!({"tls_server_config": {"cert_file": certificate, "key_file": key}});
                fs::write(dir.path().join("web.yml"), web.to_string()).unwrap();
                command.arg("--web.config.file=web.yml");
            }
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{} cannot be started ({error}): run 'make test', which installs it", binary.display())
        });
        let mut server = Self { address: address.to_owned(), dir, child };
        eventually("it listens", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{} ended ({status}):\n{}", binary.display(), server.log());
            }
            std::net::TcpStream::connect(address).ok()
        });
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PromqlServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server at {}:\n{}", self.address, self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
