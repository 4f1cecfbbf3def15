//! Where a bad day happens: one server, a cluster, or a master with replicas and sentinels.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::Value as Reply;

use super::{DEAD, STREAM};
use crate::common::cluster::Cluster;
use crate::common::monitor::Monitor;
use crate::common::remedy::{documented, grant};
use crate::common::sentinel::{self, Trio};
use crate::common::{Redis, eventually, grants};

/// How long a connection of the test waits: longer than any pause, shorter than a day.
const ANSWER: Duration = Duration::from_secs(3);

pub enum Kind {
    Alone,
    Cluster,
    Sentinels,
}

pub enum Place {
    Alone(Redis),
    Cluster(Cluster),
    Sentinels(Trio),
}

/// The ports of all servers, one of which has the stream.
#[derive(Clone)]
pub struct Ports(Arc<Vec<u16>>);

impl Ports {
    /// A connection to the master that has the stream, if there is one.
    pub fn master(&self) -> Option<redis::Connection> {
        self.0.iter().find_map(|port| {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
            let mut connection = client.get_connection_with_timeout(ANSWER).ok()?;
            connection.set_read_timeout(Some(ANSWER)).ok()?;
            connection.set_write_timeout(Some(ANSWER)).ok()?;
            let role: Vec<Reply> = redis::cmd("ROLE").query(&mut connection).ok()?;
            let is_master = matches!(role.first(), Some(Reply::BulkString(role)) if role == b"master");
            let has_it = is_master && redis::cmd("XLEN").arg(STREAM).query::<u64>(&mut connection).is_ok();
            has_it.then_some(connection)
        })
    }
}

impl Place {
    pub fn start(kind: &Kind, server: &Path) -> Self {
        match kind {
            Kind::Alone => Self::Alone(Redis::start_with(server, &[])),
            Kind::Cluster => Self::Cluster(Cluster::start(server, &[])),
            Kind::Sentinels => Self::Sentinels(Trio::start(server, &[])),
        }
    }

    fn servers(&self) -> &[Redis] {
        match self {
            Self::Alone(redis) => std::slice::from_ref(redis),
            Self::Cluster(cluster) => &cluster.nodes,
            Self::Sentinels(trio) => &trio.servers,
        }
    }

    pub fn ports(&self) -> Ports {
        Ports(Arc::new(self.servers().iter().map(|server| server.port).collect()))
    }

    /// The user that acts, on every server.
    pub fn grant(&self) {
        self.servers().iter().filter(|server| server.is_answering()).for_each(grant_on);
    }

    pub fn monitors(&self) -> Vec<Monitor> {
        self.servers().iter().map(Monitor::start).collect()
    }

    /// Says something on every server that monitors hear.
    pub fn say(&self, word: &str) {
        for server in self.servers().iter().filter(|server| server.is_answering()) {
            server.run(&format!("ECHO {word}"));
        }
    }

    /// Nothing of the day before.
    pub fn clear(&self) {
        let mut connection = eventually("a master", || self.ports().master());
        redis::cmd("DEL").arg(STREAM).arg(DEAD).exec(&mut connection).unwrap();
    }

    /// Copies of an entry beside the master's own, as far as an entry needs them to survive its death.
    pub fn replicas(&self) -> usize {
        match self {
            Self::Alone(_) => 0,
            Self::Cluster(_) => 1,
            Self::Sentinels(trio) => trio.servers.iter().filter(|server| server.is_answering()).count() - 1,
        }
    }

    /// Kills the master; another one takes over. Whether it could.
    pub fn fail_over(&mut self) -> bool {
        let ports = self.ports();
        match self {
            Self::Alone(_) => false,
            Self::Cluster(cluster) => {
                let node = cluster.node_of(STREAM);
                let in_step = |server: &Redis| server.info("replication").contains("master_link_status:up");
                // Its replica must be there, and in step.
                if cluster.nodes.iter().filter(|server| server.is_answering() && in_step(server)).count() < 3 {
                    return false;
                }
                cluster.nodes[node].stop();
                eventually("a replica takes over", || ports.master());
                cluster.start_again(node);
                grant_on(&cluster.nodes[node]);
                true
            }
            Self::Sentinels(trio) => {
                let alive: Vec<usize> = (0..3).filter(|at| trio.servers[*at].is_answering()).collect();
                let role = |at: &usize| trio.servers[*at].info("replication");
                let master = alive.iter().copied().find(|at| role(at).contains("role:master"));
                let in_step = alive.iter().filter(|at| role(at).contains("master_link_status:up")).count();
                // One that is started again would be another master without entries.
                let Some(master) = master.filter(|_| alive.len() == 3 && in_step == 2) else { return false };
                trio.servers[master].stop();
                eventually("a replica takes over", || ports.master());
                true
            }
        }
    }

    /// Where streamlag finds it, and with which flags; through this port where there is one server.
    pub fn settings(&self, gate: Option<u16>, file: &Path) -> (String, Vec<String>) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Alone(redis) => {
                let port = gate.unwrap_or(redis.port);
                (format!("redis://{}:{}@127.0.0.1:{port}/0", grants::USER, grants::PASSWORD), Vec::new())
            }
            Self::Cluster(cluster) => {
                (cluster.url(), words(&["--redis.mode", "cluster", "--redis.nodes", &cluster.others()]))
            }
            Self::Sentinels(trio) => {
                let mut flags = words(&["--redis.mode", "sentinel", "--redis.sentinel-master", sentinel::MASTER]);
                flags.extend(words(&["--redis.nodes", &trio.others()]));
                if trio.has_users {
                    std::fs::write(file, "sentinel-pw").unwrap();
                    let (user, file) = (sentinel::USER, file.to_str().unwrap());
                    flags.extend(words(&["--redis.sentinel-user", user, "--redis.sentinel-password-file", file]));
                }
                (trio.url(), flags)
            }
        }
    }
}

fn grant_on(server: &Redis) {
    let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
    let mut all: Vec<String> = actions.iter().flat_map(|action| documented(action)).collect();
    all.extend(["~events:*", "+cluster|slots", "+ping", "+role"].map(str::to_owned));
    all.sort();
    all.dedup();
    grant(server, &all);
}
