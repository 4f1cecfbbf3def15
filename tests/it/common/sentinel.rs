//! A real master with two replicas, and three sentinels that watch it.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::Value;

use super::{Redis, eventually, free_port, grants};

/// The name of the master.
pub const MASTER: &str = "events";

/// The documented user of the sentinels.
pub const USER: &str = "streamlag-sentinel";

/// What that user may do.
const GRANTS: &str = "+sentinel|get-master-addr-by-name";

pub struct Trio {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    /// Whether sentinels know users: from 6.2 on.
    pub has_users: bool,
    options: Vec<String>,
}

pub struct Sentinel {
    pub port: u16,
    _dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Trio {
    /// A master and two replicas of it, and three sentinels who act after a second of silence.
    pub fn start(server: &Path, user_words: &[&str]) -> Self {
        let user =
            [["--user", "streamlag-ha", "on", ">pw"].map(str::to_owned).to_vec(), grants::on(server, "*")].concat();
        let mut options: Vec<&str> = user.iter().map(String::as_str).collect();
        options.extend(user_words);
        options.extend(["--repl-diskless-sync-delay", "0"]);
        let master = Redis::start_with(server, &options);
        let port = master.port.to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            let replica_of = [&options[..], &["--replicaof", "127.0.0.1", &port]].concat();
            servers.push(Redis::start_with(server, &replica_of));
        }
        for replica in &servers[1..] {
            eventually("every replica is in step", || {
                replica.info("replication").contains("master_link_status:up").then_some(())
            });
        }
        let has_users = grants::version(server) >= (6, 2);
        let sentinels = (0..3).map(|_| Sentinel::start(server, &port, has_users)).collect();
        let options = options.into_iter().map(str::to_owned).collect();
        let trio = Self { servers, sentinels, has_users, options };
        for sentinel in &trio.sentinels {
            eventually("every sentinel knows the others and the replicas", || {
                let state = format!("{:?}", sentinel.try_run(&["SENTINEL", "MASTER", MASTER]).ok()?);
                let field = |name: &str, value: &str| {
                    state.contains(&format!("bulk-string('\"{name}\"'), bulk-string('\"{value}\"')"))
                };
                (field("num-other-sentinels", "2") && field("num-slaves", "2")).then_some(())
            });
        }
        trio
    }

    /// Starts a server again that was stopped, as a replica of the one at this port.
    pub fn start_again(&mut self, at: usize, master: u16) {
        let port = master.to_string();
        let replica_of = ["--replicaof", "127.0.0.1", &port];
        let options: Vec<&str> = self.options.iter().map(String::as_str).chain(replica_of).collect();
        self.servers[at].launch(&options);
        self.servers[at].wait();
    }

    /// The server at a port.
    pub fn at(&self, port: u16) -> usize {
        self.servers.iter().position(|server| server.port == port).unwrap()
    }

    /// The master that a sentinel names.
    pub fn named(&self, sentinel: usize) -> Option<usize> {
        let reply = self.sentinels[sentinel].try_run(&["SENTINEL", "get-master-addr-by-name", MASTER]).ok()?;
        let (_, port): (String, u16) = redis::from_redis_value(reply).ok()?;
        Some(self.at(port))
    }

    /// Where streamlag finds the first sentinel; the login is that of Redis.
    pub fn url(&self) -> String {
        format!("redis://streamlag-ha:{}@127.0.0.1:{}/0", grants::PASSWORD, self.sentinels[0].port)
    }

    /// The others, as `--redis.nodes` has them.
    pub fn others(&self) -> String {
        let others: Vec<String> = self.sentinels[1..].iter().map(|other| format!("127.0.0.1:{}", other.port)).collect();
        others.join(",")
    }
}

impl Sentinel {
    fn start(server: &Path, master: &str, has_users: bool) -> Self {
        let port = free_port();
        let user = format!("user {USER} on >sentinel-pw -@all {GRANTS}\n");
        let config = format!(
            "port {port}\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 4000\nsentinel parallel-syncs {MASTER} 2\n{}",
            if has_users { &user } else { "" },
        );
        let sentinel = Self::launched(server, port, &config);
        eventually("the sentinel answers", || sentinel.try_run(&["PING"]).ok());
        sentinel
    }

    /// One that speaks TLS only, as does its master.
    pub fn start_with_tls(server: &Path, master: u16, [certificate, key]: &[String; 2], ca: &str) -> Self {
        let port = free_port();
        let config = format!(
            "port 0\ntls-port {port}\ntls-replication yes\ntls-auth-clients no\ntls-cert-file {certificate}\n\
             tls-key-file {key}\ntls-ca-cert-file {ca}\nsentinel monitor {MASTER} 127.0.0.1 {master} 1\n"
        );
        let sentinel = Self::launched(server, port, &config);
        eventually("the sentinel listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        sentinel
    }

    fn launched(server: &Path, port: u16, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("sentinel.conf");
        std::fs::write(&path, format!("bind 127.0.0.1\ndir {}\n{config}", dir.path().display())).unwrap();
        let child = Command::new(server)
            .arg(&path)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { port, _dir: dir, child: Some(child) }
    }

    pub fn try_run(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query(&mut client.get_connection()?)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.stop();
    }
}
