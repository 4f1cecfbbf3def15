//! How Redis is set up: one server, one that sentinels watch, or a cluster.

use std::fmt;

use super::dial::{Address, Dial, Login, Resolver};

/// What there is to be sampled, and by whom one is led to it.
#[derive(Clone, Debug)]
pub struct Topology {
    /// One server, sentinels or a cluster.
    pub mode: Mode,
    /// Where the first of them is, and who we are at Redis. In a cluster, login and TLS are the same for every node.
    pub dial: Dial,
    /// Where else to ask: more nodes of the cluster, or more sentinels. Those at `dial` need not be repeated.
    pub nodes: Vec<Address>,
    /// The name under which the sentinels watch the master.
    pub sentinel_master: String,
    /// Who we are at the sentinels.
    pub sentinel_login: Login,
    /// The most connections to open.
    pub max_connections: u64,
}

/// How Redis is set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One server.
    #[default]
    Standalone,
    /// Redis Cluster.
    Cluster,
    /// Sentinels that say which server is the master.
    Sentinel,
}

impl Topology {
    /// One server.
    #[must_use]
    pub fn standalone(dial: Dial) -> Self {
        Self {
            mode: Mode::Standalone,
            dial,
            nodes: Vec::new(),
            sentinel_master: String::new(),
            sentinel_login: Login::default(),
            max_connections: 1,
        }
    }

    /// Whether it leads to the same servers with the same login, so that what is known of the one holds for the other.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.dial.is_like(&other.dial)
            && self.nodes == other.nodes
            && self.sentinel_master == other.sentinel_master
            && self.sentinel_login.is_like(&other.sentinel_login)
            && self.max_connections == other.max_connections
    }

    /// The way to one of the servers behind it: the same login, and TLS for that host.
    pub(super) fn way_to(&self, address: Address) -> Dial {
        let host = match &address {
            Address::Tcp(host, _) => Some(host.as_str()),
            Address::Unix(_) => None,
        };
        let tls = self.dial.tls.as_ref().map(|tls| host.map_or_else(|| tls.clone(), |host| tls.for_host(host)));
        Dial { address, tls, resolver: Resolver::default(), ..self.dial.clone() }
    }

    /// Where to ask first, each place once.
    pub(super) fn seeds(&self) -> Vec<Address> {
        let mut seeds = vec![self.dial.address.clone()];
        for node in &self.nodes {
            if !seeds.contains(node) {
                seeds.push(node.clone());
            }
        }
        seeds
    }
}

/// `host:port`, or the path of a socket.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            // Escaped, it is one line whatever is in the path.
            Self::Unix(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
        }
    }
}

/// Where the first one is.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dial.fmt(f)
    }
}
