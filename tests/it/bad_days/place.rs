//! Where a bad day happens: one server, a cluster, or a master with replicas and sentinels.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value as Reply;

use super::{DEAD, STREAM};
use crate::common::cluster::{self, Cluster, TAKES_OVER};
use crate::common::gate::Gate;
use crate::common::remedy::{documented, grant};
use crate::common::sentinel::{self, Trio};
use crate::common::{PATIENCE, Redis, eventually, grants};

/// How long a connection of the test waits: longer than any pause, shorter than a day.
const ANSWER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub enum Kind {
    Alone,
    Cluster,
    Sentinels,
}

pub enum Place {
    Alone(Redis),
    /// And what stands before each node: where it says that it is.
    Cluster(Cluster, Arc<[Gate]>),
    Sentinels(Trio),
}

/// The ports of all servers, one of which has the stream.
#[derive(Clone)]
pub struct Ports(pub Arc<Vec<u16>>);

impl Ports {
    /// A connection to the master that has the stream, if there is one.
    pub fn master(&self) -> Option<redis::Connection> {
        Some(self.find()?.1)
    }

    /// The same, and its port.
    pub fn find(&self) -> Option<(u16, redis::Connection)> {
        self.masters().next()
    }

    /// All that say so: more than one where a master was taken for dead that is not.
    pub fn masters(&self) -> impl Iterator<Item = (u16, redis::Connection)> {
        self.0.iter().filter_map(|port| {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
            let mut connection = client.get_connection_with_timeout(ANSWER).ok()?;
            connection.set_read_timeout(Some(ANSWER)).ok()?;
            connection.set_write_timeout(Some(ANSWER)).ok()?;
            let role: Vec<Reply> = redis::cmd("ROLE").query(&mut connection).ok()?;
            let is_master = matches!(role.first(), Some(Reply::BulkString(role)) if role == b"master");
            let has_it = is_master && redis::cmd("XLEN").arg(STREAM).query::<u64>(&mut connection).is_ok();
            has_it.then_some((*port, connection))
        })
    }
}

impl Place {
    pub fn start(kind: &Kind, server: &Path) -> Self {
        match kind {
            Kind::Alone => Self::Alone(Redis::start_with(server, &[])),
            Kind::Cluster => {
                let cluster = Cluster::start(server, &TAKES_OVER);
                let gates: Arc<[Gate]> = cluster.nodes.iter().map(|node| Gate::start(node.port)).collect();
                cluster.nodes.iter().zip(gates.iter()).for_each(|(node, gate)| announce(node, gate));
                Self::Cluster(cluster, gates)
            }
            Kind::Sentinels => Self::Sentinels(Trio::start(server, &[])),
        }
    }

    /// Makes it what it was before the day, with the servers that died. Whether that could be done: another place is needed where not.
    pub fn mend(&mut self) -> bool {
        let ports = self.ports();
        match self {
            Self::Alone(redis) => return redis.is_answering(),
            Self::Cluster(..) => {}
            Self::Sentinels(trio) => {
                let Some((master, _)) = ports.find() else { return false };
                for at in 0..trio.servers.len() {
                    if !trio.servers[at].is_answering() {
                        trio.start_again(at, master);
                    }
                }
            }
        }
        let replicas = self.servers().len() - self.masters();
        let deadline = Instant::now() + PATIENCE / 4;
        loop {
            if self.in_step() == replicas {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Servers that are no replicas, where all is well.
    fn masters(&self) -> usize {
        if let Self::Cluster(..) = self { cluster::MASTERS } else { 1 }
    }

    /// Replicas that have a master and are in step with it.
    fn in_step(&self) -> usize {
        let replication = |server: &Redis| {
            redis::cmd("INFO").arg("replication").query::<String>(&mut server.client().get_connection()?)
        };
        let is_in_step = |server: &&Redis| replication(server).is_ok_and(|text| text.contains("master_link_status:up"));
        self.servers().iter().filter(is_in_step).count()
    }

    fn servers(&self) -> &[Redis] {
        match self {
            Self::Alone(redis) => std::slice::from_ref(redis),
            Self::Cluster(cluster, _) => &cluster.nodes,
            Self::Sentinels(trio) => &trio.servers,
        }
    }

    /// Whether consumers' idle times are of every read, also of those that found nothing: from 7.2 on.
    pub fn shows_every_read(&self) -> bool {
        let server = self.servers().iter().find(|server| server.is_answering()).unwrap();
        let info = server.info("server");
        let version = info.lines().find_map(|line| line.trim().strip_prefix("redis_version:")).unwrap();
        let mut numbers = version.split('.').map(|number| number.parse::<u64>().unwrap());
        (numbers.next(), numbers.next()) >= (Some(7), Some(2))
    }

    pub fn ports(&self) -> Ports {
        Ports(Arc::new(self.servers().iter().map(|server| server.port).collect()))
    }

    /// The user that acts, on every server.
    pub fn grant(&self) {
        self.servers().iter().filter(|server| server.is_answering()).for_each(grant_on);
    }

    /// What stands between a streamlag and its Redis: of its own before a single server. Not where sentinels say where the master is.
    pub fn gates(&self) -> Arc<[Gate]> {
        match self {
            Self::Alone(redis) => Arc::new([Gate::start(redis.port)]),
            Self::Cluster(_, gates) => Arc::clone(gates),
            Self::Sentinels(_) => Arc::new([]),
        }
    }

    /// Says something on every server that monitors hear.
    pub fn say(&self, word: &str) {
        let say = |server: &Redis| redis::cmd("ECHO").arg(word).exec(&mut server.client().get_connection()?);
        for server in self.servers() {
            // Sentinels may cut the connection just then.
            eventually("it is said", || (say(server).is_ok() || !server.is_answering()).then_some(()));
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
            Self::Cluster(..) => 1,
            Self::Sentinels(trio) => trio.servers.iter().filter(|server| server.is_answering()).count() - 1,
        }
    }

    /// Kills the master, if another one can take over; which one it was.
    pub fn kill_master(&mut self) -> Option<usize> {
        if let Self::Alone(_) = self {
            return None;
        }
        // Sentinels have no other left for a second time on a day.
        if self.in_step() < self.servers().len() - self.masters() {
            return None;
        }
        let (port, _) = self.ports().find()?;
        let at = self.servers().iter().position(|server| server.port == port)?;
        match self {
            Self::Alone(_) => {}
            Self::Cluster(cluster, _) => cluster.nodes[at].stop(),
            Self::Sentinels(trio) => trio.servers[at].stop(),
        }
        Some(at)
    }

    /// Waits until another one has taken over from this one. A node of a cluster then comes back as its replica. One that is started again
    /// under sentinels would be another master without entries for a while.
    pub fn take_over(&mut self, at: usize) {
        let ports = self.ports();
        eventually("a replica takes over", || ports.master());
        if let Self::Cluster(cluster, gates) = self {
            cluster.start_again(at);
            announce(&cluster.nodes[at], &gates[at]);
            grant_on(&cluster.nodes[at]);
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
            Self::Cluster(cluster, _) => {
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

/// Clients that ask a cluster where a node is come to what stands before it.
fn announce(node: &Redis, gate: &Gate) {
    node.run(&format!("CONFIG SET cluster-announce-port {}", gate.port));
}

fn grant_on(server: &Redis) {
    let actions = ["delete_idle_consumers", "drop_ghosts", "release", "dead_letter"];
    let mut all: Vec<String> = actions.iter().flat_map(|action| documented(action)).collect();
    all.extend(["~events:*", "+cluster|slots", "+ping", "+role"].map(str::to_owned));
    all.sort();
    all.dedup();
    grant(server, &all);
}
