//! A real Prometheus or VictoriaMetrics as a child process, and a client of its API.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{PATIENCE, eventually, free_port};

/// Scrapes and rule evaluations.
const INTERVAL: &str = "500ms";

/// Put before the name of each rule in the copy that has no `for`.
pub const AT_ONCE: &str = "AtOnce";

/// The Prometheuses to test with: `STREAMLAG_TEST_PROMETHEUSES`, separated by colons, else the installed one.
pub fn prometheuses() -> Vec<PathBuf> {
    let listed = binaries("STREAMLAG_TEST_PROMETHEUSES");
    if listed.is_empty() { vec![PathBuf::from("prometheus")] } else { listed }
}

/// The first number of a Prometheus's version.
pub fn major_version(binary: &Path) -> u32 {
    let output = Command::new(binary).arg("--version").output().unwrap();
    // Older ones say it on standard error.
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let version = said.split_once("version ").and_then(|(_, rest)| rest.split('.').next());
    version.and_then(|major| major.parse().ok()).unwrap_or_else(|| panic!("{said} has no version"))
}

/// The VictoriaMetrics (single-node) to test with: `STREAMLAG_TEST_VICTORIAMETRICS`, separated by colons; no package installs one.
pub fn victoria_metrics() -> Vec<PathBuf> {
    binaries("STREAMLAG_TEST_VICTORIAMETRICS")
}

fn binaries(variable: &str) -> Vec<PathBuf> {
    let listed = std::env::var(variable).unwrap_or_default();
    listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
}

/// A running Prometheus, or what has its API, in a directory of its own.
pub struct Prometheus {
    address: String,
    started: SystemTime,
    ready: Instant,
    dir: tempfile::TempDir,
    child: Child,
}

/// A query as Grafana sends it.
pub struct Query {
    pub place: String,
    pub expr: String,
    pub kind: Asked,
}

pub enum Asked {
    Instant,
    Range,
    /// The values of this label on the series that match the expression.
    Label(String),
}

impl Prometheus {
    /// Scrapes these addresses, and loads the rules, also in a copy in which they fire at once.
    pub fn start(binary: &Path, targets: &[String]) -> Self {
        Self::scraping(binary, &[], jobs(targets))
    }

    /// The same with further arguments, and scrape jobs as its configuration has them.
    pub fn scraping(binary: &Path, arguments: &[&str], jobs: Value) -> Self {
        let shipped = repository("alerts/streamlag.rules.yml");
        let rules = fs::read_to_string(&shipped).unwrap();
        let config = json!({"rule_files": [shipped, "at_once.yml"], "scrape_configs": jobs});
        Self::configured(binary, arguments, config, &at_once(&rules, &["for:"], AT_ONCE))
    }

    /// Scrapes these addresses, and sends the alerts of a rules file to an Alertmanager, as soon as they are true and for as long.
    pub fn alerting(binary: &Path, targets: &[String], rules: &str, alertmanager: &str) -> Self {
        let rules = fs::read_to_string(repository(rules)).unwrap();
        let config = json!({
            "rule_files": ["at_once.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": "streamlag", "static_configs": [{"targets": targets}]}],
        });
        Self::configured(binary, &[], config, &at_once(&rules, &["for:", "keep_firing_for:"], ""))
    }

    /// A VictoriaMetrics that scrapes these addresses. It evaluates no rules.
    pub fn victoria_metrics(binary: &Path, targets: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({"global": {"scrape_interval": INTERVAL}, "scrape_configs": jobs(targets)});
        fs::write(dir.path().join("scrape.yml"), config.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command
            // What was scraped counts at once. Memory for the longest subquery of the documents.
            .args(["-promscrape.config=scrape.yml", "-storageDataPath=data", "-search.latencyOffset=0s"])
            .args(["-memory.allowedBytes=1GB", "-inmemoryDataFlushInterval=1s"])
            .arg(format!("-httpListenAddr={address}"));
        Self::run_child(command, address, dir)
    }

    /// With arguments, a configuration, and its `at_once.yml`.
    fn configured(binary: &Path, arguments: &[&str], mut config: Value, rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("at_once.yml"), rules).unwrap();
        config["global"] = json!({"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL});
        // JSON is YAML.
        fs::write(dir.path().join("prometheus.yml"), config.to_string()).unwrap();

        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(binary);
        command
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(arguments)
            .arg(format!("--web.listen-address={address}"));
        Self::run_child(command, address, dir)
    }

    fn run_child(mut command: Command, address: String, dir: tempfile::TempDir) -> Self {
        let program = command.get_program().to_os_string();
        let child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{} cannot be started ({error}): run 'make test', which installs it", program.display())
            });
        let (started, ready) = (SystemTime::now(), Instant::now());
        let mut prometheus = Self { address, started, ready, dir, child };
        eventually("prometheus is ready", || {
            if let Some(status) = prometheus.child.try_wait().unwrap() {
                panic!("prometheus ended ({status}):\n{}", prometheus.log());
            }
            prometheus.http("/-/ready").ok().filter(|(status, _)| status.as_str() == "200")
        });
        prometheus.ready = Instant::now();
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Status and body. HTTP/1.0, so that the answer is not chunked.
    fn http(&self, path: &str) -> io::Result<(String, String)> {
        let mut connection = TcpStream::connect(&self.address)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        write!(connection, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut reply = String::new();
        connection.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        let status = head.split(' ').nth(1).ok_or(io::ErrorKind::InvalidData)?;
        Ok((status.to_owned(), body.to_owned()))
    }

    /// The `data` of an answer of the API, or what it says is wrong.
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let (status, body) = self.http(&format!("/api/v1/{path}?{query}")).map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{status}, {error}: {body}"))?;
        // Warnings are of a Prometheus newer than 2.42.
        let well = answer["status"] == "success" && answer.get("warnings").is_none();
        if well { Ok(answer["data"].take()) } else { Err(format!("{status}: {body}")) }
    }

    /// What a check still finds when patience ends; nothing as soon as it finds nothing. All checks share one patience.
    pub fn settled(&self, mut check: impl FnMut() -> Vec<String>) -> Vec<String> {
        loop {
            let found = check();
            if found.is_empty() || self.ready.elapsed() > PATIENCE {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn run(&self, query: &Query) -> Result<Value, String> {
        let unix = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64().to_string();
        match &query.kind {
            Asked::Instant => self.api("query", &[("query", &query.expr), ("nocache", "1")]),
            Asked::Range => {
                let (start, end) = (unix(self.started), unix(SystemTime::now()));
                let parameters =
                    [("query", query.expr.as_str()), ("start", &start), ("end", &end), ("step", "1"), ("nocache", "1")];
                self.api("query_range", &parameters)
            }
            Asked::Label(label) => self.api(&format!("label/{label}/values"), &[("match[]", &query.expr)]),
        }
    }
}

fn jobs(targets: &[String]) -> Value {
    json!([{"job_name": "streamlag", "static_configs": [{"targets": targets}]}])
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rules without these keys, which are about time, and with something before their names: what is true now fires now.
fn at_once(rules: &str, without: &[&str], prefix: &str) -> String {
    let is_kept = |line: &&str| !without.iter().any(|key| line.trim_start().starts_with(key));
    let kept = rules.lines().filter(is_kept);
    kept.map(|line| line.replace("- alert: ", &format!("- alert: {prefix}")) + "\n").collect()
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
