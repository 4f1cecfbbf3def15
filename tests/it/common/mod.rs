//! Real servers for the tests: `redis-server` and `streamlag` as child processes on free loopback ports, and a plain
//! HTTP client. Whatever a test starts is stopped when it ends, by its pid.

pub mod alertmanager;
pub mod browser;
pub mod clock;
pub mod cluster;
pub mod compatible;
pub mod disk;
pub mod events;
pub mod gate;
pub mod grants;
pub mod liar;
pub mod memory_limit;
pub mod monitor;
pub mod observer;
pub mod prometheus;
pub mod promql;
pub mod proxy;
pub mod receiver;
pub mod remedy;
pub mod sampled;
pub mod schema;
pub mod sentinel;
pub mod storm;
pub mod tls;
pub mod viewer;

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a condition may take to come true. Generous: a loaded machine must not fail a test that would pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Seconds that the ages of what a test has just added stay below. What is older was reckoned by another clock.
pub const SMALL_AGE: f64 = 30.0;

pub const TOKEN: &str = "test-token-3f9a";

/// Polls until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    eventually_right(|| check().ok_or_else(|| what.to_owned()))
}

/// Polls until `check` finds nothing wrong.
pub fn eventually_right<T>(mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(found) => return found,
            Err(wrong) => assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {wrong}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ports that tests listen on: below those that the system gives to connections, with as many above them for the nodes of clusters.
const PORTS: std::ops::Range<u16> = 10_000..21_000;

/// Starts of a server that may fail because another program took its port in the meantime.
const STARTS: usize = 3;

/// A port that is free, as is the one 10,000 above it, and that this process has not given out before. Processes begin at different
/// places.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let count = u32::from(PORTS.end - PORTS.start);
    eventually("a free port", || {
        let n = std::process::id().wrapping_mul(97).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        Some(PORTS.start + u16::try_from(n).unwrap()).filter(|port| is_free(*port) && is_free(port + 10_000))
    })
}

/// The server binaries to test against: `STREAMLAG_TEST_SERVERS`, separated by colons, else the installed redis-server.
pub fn servers() -> Vec<PathBuf> {
    let listed = std::env::var("STREAMLAG_TEST_SERVERS").unwrap_or_default();
    let listed: Vec<PathBuf> = listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if listed.is_empty() { vec![PathBuf::from("redis-server")] } else { listed }
}

pub struct Redis {
    pub port: u16,
    pub dir: tempfile::TempDir,
    binary: PathBuf,
    /// Whether it has the users of the documents. Without, everybody may do everything.
    has_users: bool,
    child: Option<Child>,
}

impl Redis {
    /// The installed redis-server.
    pub fn start() -> Self {
        Self::start_with(Path::new("redis-server"), &[])
    }

    pub fn start_with(binary: &Path, options: &[&str]) -> Self {
        Self::started(binary, true, options)
    }

    /// One that does not know these commands. Nor does it know users that may run them.
    pub fn start_without(binary: &Path, commands: &[&str]) -> Self {
        let options: Vec<&str> = commands.iter().flat_map(|command| ["--rename-command", command, ""]).collect();
        Self::started(binary, false, &options)
    }

    /// On another port where the first was taken in the meantime.
    fn started(binary: &Path, has_users: bool, options: &[&str]) -> Self {
        for _ in 1..STARTS {
            let mut redis = Self::launched(free_port(), binary, has_users, options);
            let is_up = eventually("redis-server answers or ends", || {
                let ended = redis.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
                if ended { Some(false) } else { redis.try_connect().map(|_| true) }
            });
            if is_up {
                return redis;
            }
        }
        let redis = Self::launched(free_port(), binary, has_users, options);
        redis.wait();
        redis
    }

    /// At this port, without waiting for it.
    pub fn start_at(port: u16, binary: &Path, options: &[&str]) -> Self {
        Self::launched(port, binary, true, options)
    }

    fn launched(port: u16, binary: &Path, has_users: bool, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut redis = Self { port, dir, binary: binary.to_owned(), has_users, child: None };
        redis.launch(options);
        redis
    }

    /// Starts the process, on the same port and directory as before, without waiting for it.
    pub fn launch(&mut self, options: &[&str]) {
        let port = self.port.to_string();
        let dir = self.dir.path().to_str().unwrap();
        let child = Command::new(&self.binary)
            .args(["--port", &port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no"])
            .args(if self.has_users { grants::options(&self.binary) } else { Vec::new() })
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("{} cannot be started ({error}): run 'make test', which installs it", self.binary.display())
        }));
    }

    /// Another binary from the next launch on.
    pub fn switch_to(&mut self, binary: &Path) {
        self.binary = binary.to_owned();
    }

    /// Waits until it answers.
    pub fn wait(&self) {
        eventually("redis-server answers", || self.try_connect());
    }

    /// Whether it answers.
    pub fn is_answering(&self) -> bool {
        self.child.is_some() && self.try_connect().is_some()
    }

    fn try_connect(&self) -> Option<redis::Connection> {
        let mut connection = self.client().get_connection().ok()?;
        redis::cmd("PING").query::<redis::Value>(&mut connection).ok()?;
        Some(connection)
    }

    pub fn client(&self) -> redis::Client {
        redis::Client::open(self.url_of_everybody()).unwrap()
    }

    /// Where streamlag finds it, as the user of the documents.
    pub fn url(&self) -> String {
        self.url_as(grants::USER)
    }

    /// The same as another user.
    pub fn url_as(&self, user: &str) -> String {
        format!("redis://{user}:{}@127.0.0.1:{}/0", grants::PASSWORD, self.port)
    }

    /// The same as the default user, who may do everything: the test itself.
    pub fn url_of_everybody(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn connection(&self) -> redis::Connection {
        self.client().get_connection().unwrap()
    }

    /// Runs a command given as words.
    pub fn run(&self, words: &str) -> redis::Value {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.run_bytes(&words)
    }

    pub fn run_bytes(&self, words: &[&[u8]]) -> redis::Value {
        let mut command = redis::Cmd::new();
        command.arg(words);
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
        command.query(&mut self.connection()).unwrap_or_else(|error| panic!("{shown:?}: {error}"))
    }

    /// A section of `INFO`.
    pub fn info(&self, section: &str) -> String {
        redis::cmd("INFO").arg(section).query(&mut self.connection()).unwrap()
    }

    /// Whether it knows `XTRIM … ACKED`.
    pub fn trims_acknowledged(&self) -> bool {
        // Some look at the arguments only where there is a stream.
        self.run("XADD probe 1-1 n 1");
        let mut connection = self.connection();
        let knows = redis::cmd("XTRIM").arg("probe").arg("MAXLEN").arg(1).arg("ACKED").exec(&mut connection).is_ok();
        self.run("DEL probe");
        knows
    }

    /// Whether it is older than 7.0, and does not count the entries of a stream.
    pub fn is_before_7(&self) -> bool {
        self.info("server").contains("redis_version:6.")
    }

    /// Adds entries to a stream, with ids that Redis chooses.
    pub fn add(&self, stream: &str, entries: usize) {
        let mut pipe = redis::pipe();
        for n in 0..entries {
            pipe.cmd("XADD").arg(stream).arg("*").arg("n").arg(n).ignore();
        }
        pipe.query::<()>(&mut self.connection()).unwrap();
    }

    /// Adds entries that are an hour old.
    pub fn add_old(&self, stream: &str, entries: usize) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let mut pipe = redis::pipe();
        for n in 0..entries {
            pipe.cmd("XADD").arg(stream).arg(format!("{}-{n}", now - 3_600_000)).arg("n").arg(n).ignore();
        }
        pipe.query::<()>(&mut self.connection()).unwrap();
    }

    /// Reads entries of a group as one of its consumers.
    pub fn read(&self, stream: &str, group: &str, consumer: &str, count: usize) {
        self.run(&format!("XREADGROUP GROUP {group} {consumer} COUNT {count} STREAMS {stream} >"));
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it, and waits until it is gone.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a metrics page has series of streams or groups. Incidents are counted while Redis is down, too.
pub fn shows_streams(page: &str) -> bool {
    page.lines().any(|line| line.starts_with("event_") && !line.starts_with("event_incidents{"))
}

/// A running streamlag.
pub struct Streamlag {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// The thread of this test that reads the log.
    reader: Arc<Mutex<Option<PathBuf>>>,
}

/// A streamlag to be started: on a free port, with a token that has no rate, polling every 100 ms.
pub fn streamlag(arguments: &[&str]) -> Streamlag {
    streamlag_with_env(arguments, &[("STREAMLAG_API_TOKEN", TOKEN)])
}

pub fn command(arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamlag"));
    // Nothing of the developer's own environment is to reach the program.
    for variable in streamlag::config::SETTINGS.iter().filter_map(|setting| setting.env) {
        command.env_remove(variable);
    }
    let ours = |name: &std::ffi::OsString| name.to_str().is_some_and(|name| name.starts_with("STREAMLAG_"));
    for variable in std::env::vars_os().map(|(name, _)| name).filter(ours) {
        command.env_remove(variable);
    }
    command.args(arguments).envs(env.iter().copied()).stdin(Stdio::null());
    command
}

pub fn streamlag_with_env(arguments: &[&str], env: &[(&str, &str)]) -> Streamlag {
    let defaults = ["--web.listen-address", "127.0.0.1:0"];
    let mut all: Vec<&str> = Vec::new();
    if !arguments.contains(&"--web.listen-address") {
        all.extend(defaults);
    }
    // Tests ask as quickly as they can.
    if !arguments.contains(&"--api.rate-limit") {
        all.extend(["--api.rate-limit", "0"]);
    }
    if !arguments.contains(&"--poll.interval") {
        all.extend(["--poll.interval", "100ms"]);
    }
    // How long Redis takes on a machine that runs tests is no reason to poll less often.
    if !arguments.contains(&"--poll.max-redis-share") {
        all.extend(["--poll.max-redis-share", "100%"]);
    }
    all.extend(arguments);
    watched(command(&all, env))
}

/// One that a line of shell becomes, such as one that sets limits first.
pub fn streamlag_by_shell(script: &str, env: &[(&str, &str)]) -> Streamlag {
    let mut shell = Command::new("bash");
    shell.args(["-c", script]).envs(env.iter().copied()).stdin(Stdio::null());
    watched(shell)
}

fn watched(mut command: Command) -> Streamlag {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("streamlag starts");
    let stderr = child.stderr.take().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    let reader = Arc::new(Mutex::new(None));
    let itself = Arc::clone(&reader);
    std::thread::spawn(move || {
        *itself.lock().unwrap() =
            std::fs::read_link("/proc/thread-self").ok().map(|thread| Path::new("/proc").join(thread));
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    let mut streamlag = Streamlag { address: ([127, 0, 0, 1], 0).into(), child, log, reader };
    streamlag.address = eventually("streamlag listens", || {
        // Not by way of its threads in `/proc`: what is known of a process there is taken down again when it ends, and that takes time.
        let line = streamlag.log.lock().unwrap().iter().find(|line| line.contains("listening")).cloned();
        assert!(line.is_some() || streamlag.is_running(), "streamlag ended: {:?}", streamlag.log());
        let line = line?.replace("\"address\":\"", " address=").replace('"', " ");
        line.split_whitespace().find_map(|field| field.strip_prefix("address="))?.parse().ok()
    });
    streamlag
}

/// One whose log nobody keeps: it goes to `stderr`.
pub fn streamlag_logging_to(stderr: impl Into<Stdio>, arguments: &[&str]) -> Streamlag {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let listen = address.to_string();
    let all = [arguments, &["--web.listen-address", &listen]].concat();
    let mut command = command(&all, &[("STREAMLAG_API_TOKEN", TOKEN)]);
    let child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("streamlag starts");
    let mut streamlag = Streamlag { address, child, log: Arc::default(), reader: Arc::default() };
    eventually("streamlag listens", || {
        assert!(streamlag.is_running(), "streamlag ended");
        TcpStream::connect(address).ok()
    });
    streamlag
}

impl Streamlag {
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything it logged by now.
    pub fn log(&self) -> Vec<String> {
        self.wait_for_log();
        self.log.lock().unwrap().clone()
    }

    /// Lines are written by a thread of the program and read by one here: waits until neither has anything to do. Whoever runs on at the
    /// trace level never gets there.
    fn wait_for_log(&self) {
        let deadline = Instant::now() + Duration::from_secs(1);
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        let is_log = |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "log\n");
        let writer = threads.map(|thread| thread.path()).find(is_log);
        let reader = self.reader.lock().unwrap().clone();
        for thread in [writer, reader].into_iter().flatten() {
            // A thread that was woken is runnable at once. One that is gone has nothing to do.
            let is_busy = || {
                let status = std::fs::read_to_string(thread.join("status")).unwrap_or_default();
                status.lines().any(|line| line.starts_with("State:") && line.contains("R (running)"))
            };
            while is_busy() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub fn log_lines(&self, containing: &str) -> Vec<String> {
        self.log().into_iter().filter(|line| line.contains(containing)).collect()
    }

    /// Forgets what was logged so far.
    pub fn log_clear(&self) {
        self.wait_for_log();
        self.log.lock().unwrap().clear();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("streamlag ends", || self.child.try_wait().unwrap()).code()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[("Authorization", &format!("Bearer {TOKEN}"))])
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{head}\r\n").as_bytes())
    }

    /// Sends bytes and reads until the server closes.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may close before it has read everything; what it said is what counts.
        let _ = connection.write_all(bytes);
        let (begun, mut reply) = (Instant::now(), Vec::new());
        let deadline = begun + PATIENCE;
        let mut bytes = [0; 64 * 1024];
        let last = loop {
            match connection.read(&mut bytes) {
                Ok(read @ 1..) => reply.extend_from_slice(&bytes[..read]),
                // Else each test that forgets to ask for the end would take this long.
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("not closed within {PATIENCE:?}"),
                last => break last,
            }
            // A stream of events, where none was expected.
            assert!(Instant::now() < deadline, "no end within {PATIENCE:?}");
        };
        if reply.is_empty() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
            let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or("gone").to_owned();
            let log = self.log.lock().unwrap();
            let end = &log[log.len().saturating_sub(5)..];
            panic!("no answer after {:?} ({last:?}), process {state}; the log ends {end:?}", begun.elapsed());
        }
        Reply::parse(&reply)
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        self.get(&format!("/api/v1/events/{path}")).json()
    }

    pub fn metrics(&self) -> String {
        self.get("/metrics").text()
    }

    /// The value of a series, to the letter.
    pub fn metric(&self, series: &str) -> Option<f64> {
        value_of(&self.metrics(), series)
    }

    /// Waits until the first poll has ended.
    pub fn ready(self) -> Self {
        eventually("streamlag is ready", || (self.get("/-/ready").status == 200).then_some(()));
        self
    }

    /// Waits for a poll that began after this call, so that it saw everything done before.
    pub fn next_sample(&self) {
        let polls = || {
            let page = self.metrics();
            let ended: f64 = ["success", "partial", "failure"]
                .iter()
                .filter_map(|outcome| value_of(&page, &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")))
                .sum();
            ended
        };
        let before = polls();
        // The next to end may have begun before.
        eventually("two more polls", || (polls() >= before + 2.0).then_some(()));
    }
}

impl Drop for Streamlag {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of the first series of this name and these labels on a page. Pages are long and looked at often.
pub fn value_of(page: &str, series: &str) -> Option<f64> {
    let mut places = memchr::memmem::find_iter(page.as_bytes(), series);
    places.find_map(|at| {
        let is_line = at == 0 || page.as_bytes()[at - 1] == b'\n';
        let value = page[at + series.len()..].strip_prefix(' ').filter(|_| is_line)?;
        value.split('\n').next()?.parse().ok()
    })
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no HTTP answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command with something on its standard input; what it printed, and whether it succeeded.
pub fn pipe_through(command: &str, arguments: &[&str], input: &[u8]) -> (bool, String) {
    let child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command} ({error}): run 'make test', which installs it"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}
