//! A real cluster: three masters, a replica each, and streams whose lags are known in slots of all of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::Value;

use super::{Redis, eventually, free_port, grants};

/// The user of the documents for a cluster.
pub const USER: &str = "streamlag-cluster";

/// What is added to the documented line for a cluster.
const GRANTS: &str = "+cluster|slots +asking";

/// The same where streams are given by pattern.
const SCAN: &str = "+scan";

/// Masters, which come first among the nodes.
pub const MASTERS: usize = 3;

pub const GROUP: &str = "signalr-consumers";

/// A slot of each of many streams, in turn, so that every master has some.
pub const STREAMS: usize = 60;

/// Replicas take over after a second without their master. Elsewhere they wait for as long as Redis does by default, so that a busy machine
/// is no failover.
pub const TAKES_OVER: [&str; 2] = ["--cluster-node-timeout", "1000"];

/// Besides, the other masters go on where one is gone.
pub const GOES_ON: [&str; 4] = ["--cluster-require-full-coverage", "no", TAKES_OVER[0], TAKES_OVER[1]];

pub struct Cluster {
    pub nodes: Vec<Redis>,
    options: Vec<String>,
}

/// The words of the documented line that a cluster's user has besides.
pub fn documented_grants() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md");
    let text = std::fs::read_to_string(path).unwrap();
    let words = GRANTS.split(' ').map(str::to_owned).collect();
    for grants in [GRANTS, SCAN] {
        assert!(text.contains(grants), "docs/fleet.md does not name {grants}");
    }
    words
}

/// Two masters without replicas, with half of the slots each: enough where nothing moves and nobody dies.
pub fn two_masters(server: &Path, options: &[&str]) -> [Redis; 2] {
    let options = [&["--cluster-enabled", "yes"], options].concat();
    let nodes = [0, 1].map(|_| Redis::start_at(free_port(), server, &options));
    for (node, slots) in nodes.iter().zip([0..8192, 8192..16384_u16]) {
        node.wait();
        let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
        node.run(&format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
    }
    // Two that begin alike would not become one.
    nodes[1].run("CLUSTER SET-CONFIG-EPOCH 2");
    nodes[0].run(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[1].port));
    for node in &nodes {
        eventually("every node knows that the cluster is whole", || {
            let info = info(node);
            (info.contains("cluster_state:ok") && info.contains("cluster_size:2")).then_some(())
        });
    }
    nodes
}

impl Cluster {
    /// Three masters with a replica each.
    pub fn start(server: &Path, options: &[&str]) -> Self {
        let words = [grants::on(server, "events:*"), documented_grants()].concat();
        let user = [["--user", USER, "on", ">pw"].map(str::to_owned).to_vec(), words].concat();
        let base = ["--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0"];
        let mut all: Vec<String> = base.iter().chain(options).map(|word| (*word).to_owned()).collect();
        all.extend(user);
        let words: Vec<&str> = all.iter().map(String::as_str).collect();
        let nodes = (0..2 * MASTERS).map(|_| Redis::start_at(free_port(), server, &words)).collect();
        let cluster = Self { nodes, options: all };
        cluster.nodes.iter().for_each(Redis::wait);
        let addresses: Vec<String> = cluster.nodes.iter().map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        cli(&[&["--cluster", "create"], &addresses[..], &["--cluster-replicas", "1", "--cluster-yes"]].concat());
        for node in &cluster.nodes {
            eventually("every node knows that the cluster is whole", || {
                info(node).contains("cluster_state:ok").then_some(())
            });
        }
        eventually("every replica is in step", || {
            let in_step = |node: &Redis| node.info("replication").contains("master_link_status:up");
            (cluster.nodes.iter().filter(|node| in_step(node)).count() == MASTERS).then_some(())
        });
        cluster
    }

    /// Gives the documented user what patterns take besides.
    pub fn grant_scan(&self) {
        for node in &self.nodes {
            node.run(&format!("ACL SETUSER {USER} {SCAN}"));
        }
    }

    /// Where streamlag finds it, as the documented user.
    pub fn url(&self) -> String {
        self.nodes[0].url_as(USER)
    }

    /// All nodes but the first, as `--redis.nodes` has them.
    pub fn others(&self) -> String {
        self.nodes[1..].iter().map(address).collect::<Vec<_>>().join(",")
    }

    /// Starts a node again that was stopped.
    pub fn start_again(&mut self, node: usize) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.nodes[node].launch(&options);
        self.nodes[node].wait();
    }

    /// The node that has a stream, as the cluster says.
    pub fn node_of(&self, stream: &str) -> usize {
        eventually("a master has the stream", || {
            self.nodes.iter().position(|node| node.is_answering() && owns(node, stream))
        })
    }

    /// Makes streams with groups that have read some of their entries, and waits until the replicas have them; the lag of each.
    pub fn fill(&self) -> BTreeMap<String, u64> {
        let mut lags = BTreeMap::new();
        for n in 0..STREAMS {
            let stream = format!("events:{n}");
            let (entries, read) = (20 + n, n % 17);
            let node = &self.nodes[self.node_of(&stream)];
            node.add(&stream, entries);
            node.run(&format!("XGROUP CREATE {stream} {GROUP} 0"));
            if read > 0 {
                node.read(&stream, GROUP, "instance-1", read);
            }
            lags.insert(stream, (entries - read) as u64);
        }
        for master in self.nodes.iter().filter(|node| is_master(node)) {
            eventually("the replica has acknowledged everything", || has_copies(master).then_some(()));
        }
        lags
    }
}

pub fn address(node: &Redis) -> String {
    format!("127.0.0.1:{}", node.port)
}

/// What a node says of the cluster.
pub fn info(node: &Redis) -> String {
    redis::cmd("CLUSTER").arg("INFO").query(&mut node.connection()).unwrap()
}

/// A node's own id.
pub fn id(node: &Redis) -> String {
    redis::cmd("CLUSTER").arg("MYID").query(&mut node.connection()).unwrap()
}

pub fn slot(node: &Redis, stream: &str) -> u16 {
    redis::cmd("CLUSTER").arg("KEYSLOT").arg(stream).query(&mut node.connection()).unwrap()
}

/// Whether a node serves a stream: neither a redirection nor any other error.
pub fn owns(node: &Redis, stream: &str) -> bool {
    let Ok(mut connection) = node.client().get_connection() else { return false };
    redis::cmd("XLEN").arg(stream).query::<u64>(&mut connection).is_ok()
}

/// Whether a node is a master with slots.
pub fn is_master(node: &Redis) -> bool {
    let role: Result<Value, _> = redis::cmd("ROLE").query(&mut node.connection());
    matches!(role, Ok(Value::Array(parts)) if parts[0] == Value::BulkString(b"master".to_vec()))
}

/// Whether a master has replicas, and each has acknowledged all that was written. One whose link is up may still wait for the first command.
fn has_copies(master: &Redis) -> bool {
    let replication = master.info("replication");
    let offset_in = |text: &str, name: &str| {
        text.split([',', '\r', '\n']).find_map(|field| field.strip_prefix(name)?.parse::<u64>().ok())
    };
    let written = offset_in(&replication, "master_repl_offset:").unwrap();
    let mut replicas = replication.lines().filter(|line| line.contains(",state=online,")).peekable();
    replicas.peek().is_some() && replicas.all(|replica| offset_in(replica, "offset=").is_some_and(|has| has >= written))
}

/// `redis-cli` with these arguments; what it printed.
pub fn cli(arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "redis-cli {arguments:?}: {text}");
    text
}

/// Adds an entry to a stream and reads one, in one: everything moves on but the lag. What was read long ago is trimmed.
const TURN_OVER: &str = "
    redis.call('XADD', KEYS[1], 'MAXLEN', 100, '*', 'n', '1')
    redis.call('XREADGROUP', 'GROUP', ARGV[1], 'instance-1', 'COUNT', 1, 'STREAMS', KEYS[1], '>')";

/// Somebody who turns over one stream after the other, wherever they are.
pub struct Traffic {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Traffic {
    pub fn start(cluster: &Cluster, streams: Vec<String>) -> Self {
        let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut connections = BTreeMap::new();
            let mut known: BTreeMap<&str, u16> = BTreeMap::new();
            let mut turns = 0;
            while !until.load(Ordering::Relaxed) {
                for (n, stream) in streams.iter().enumerate() {
                    let port = known.get(stream.as_str()).copied().unwrap_or(ports[n % ports.len()]);
                    // One that is on its way, or of a node that is down, is looked for from anywhere the next time.
                    match turn_over(&mut connections, stream, port) {
                        Some(port) => {
                            known.insert(stream, port);
                            turns += 1;
                        }
                        None => drop(known.remove(stream.as_str())),
                    }
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            turns
        });
        Self { ended, thread: Some(thread) }
    }

    /// Stops; how many entries were added and read.
    pub fn stop(mut self) -> u64 {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Turns a stream over, and says where it was.
fn turn_over(connections: &mut BTreeMap<u16, redis::Connection>, stream: &str, mut port: u16) -> Option<u16> {
    let mut asking = false;
    for _ in 0..3 {
        let timeout = Duration::from_millis(200);
        if let Entry::Vacant(place) = connections.entry(port) {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
            let connection = client.get_connection_with_timeout(timeout).ok()?;
            connection.set_read_timeout(Some(timeout)).unwrap();
            place.insert(connection);
        }
        let connection = connections.get_mut(&port).unwrap();
        if asking {
            redis::cmd("ASKING").exec(connection).ok()?;
        }
        let script = redis::cmd("EVAL").arg(TURN_OVER).arg(1).arg(stream).arg(GROUP).exec(connection);
        let Err(error) = script else { return Some(port) };
        let Some((address, _)) = error.redirect_node() else {
            connections.remove(&port);
            return None;
        };
        asking = error.code() == Some("ASK");
        port = address.rsplit_once(':')?.1.parse().ok()?;
    }
    None
}
