//! How Redis is set up: one server, one that sentinels watch, or a cluster.

use std::fmt;

use crate::redis::connector::{Address, Credentials, Endpoint, Resolver};

/// What there is to be sampled, and by whom one is led to it.
#[derive(Clone, Debug)]
pub struct Topology {
    /// One server, sentinels or a cluster.
    pub mode: RedisMode,
    /// Where the first of them is, and who we are at Redis. In a cluster, login and TLS are the same for every node.
    pub endpoint: Endpoint,
    /// Where else to ask: more nodes of the cluster, or more sentinels. Those at `endpoint` need not be repeated.
    pub nodes: Vec<Address>,
    /// The name under which the sentinels watch the master.
    pub sentinel_master: String,
    /// Who we are at the sentinels.
    pub sentinel_login: Credentials,
    /// The most connections to open.
    pub max_connections: u64,
}

/// How Redis is set up, and what its URL leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisMode {
    /// One server: the one to sample.
    #[default]
    Standalone,
    /// Redis Cluster: one of its nodes.
    Cluster,
    /// Sentinels that say which server is the master: one of them.
    Sentinel,
}

impl RedisMode {
    /// The word of the configuration and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
        }
    }
}

impl Topology {
    /// One server.
    #[must_use]
    pub fn standalone(endpoint: Endpoint) -> Self {
        Self {
            mode: RedisMode::Standalone,
            endpoint,
            nodes: Vec::new(),
            sentinel_master: String::new(),
            sentinel_login: Credentials::default(),
            max_connections: 1,
        }
    }

    /// Whether it leads to the same servers with the same login, so that what is known of the one holds for the other.
    #[must_use]
    pub fn same_target(&self, other: &Self) -> bool {
        self.mode == other.mode
            && self.endpoint.same_target(&other.endpoint)
            && self.nodes == other.nodes
            && self.sentinel_master == other.sentinel_master
            && self.sentinel_login.same_target(&other.sentinel_login)
            && (self.mode != RedisMode::Cluster || self.max_connections == other.max_connections)
    }

    /// The way to one of the servers behind it: the same login, and TLS for that host.
    pub(super) fn endpoint_for(&self, address: Address) -> Endpoint {
        let host = match &address {
            Address::Tcp(host, _) => Some(host.as_str()),
            Address::Unix(_) => None,
        };
        let tls = self.endpoint.tls.as_ref().map(|tls| host.map_or_else(|| tls.clone(), |host| tls.for_host(host)));
        Endpoint { address, tls, resolver: Resolver::default(), ..self.endpoint.clone() }
    }

    /// Where to ask first, each place once.
    pub(super) fn seeds(&self) -> Vec<Address> {
        let mut seeds = vec![self.endpoint.address.clone()];
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
            // Escaped, any path is one line.
            Self::Unix(path) => write!(f, "{}", path.to_string_lossy().escape_debug()),
        }
    }
}

/// Where the first one is.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(url: &str) -> Topology {
        Topology::standalone(crate::config::endpoint(url).unwrap())
    }

    fn at(host: &str, port: u16) -> Address {
        Address::Tcp(host.to_owned(), port)
    }

    #[test]
    fn whom_to_ask_first_and_each_once() {
        let nodes = vec![at("b", 1), at("a", 6379), at("b", 1), at("c", 1)];
        let topology = Topology { nodes, ..topology("redis://a") };
        assert_eq!(topology.seeds(), [at("a", 6379), at("b", 1), at("c", 1)]);
    }

    #[test]
    fn the_way_to_another_server_has_the_same_login() {
        let way = topology("redis://user:hunter2@a:1/3").endpoint_for(at("::1", 7));
        assert_eq!(way.to_string(), "redis://[::1]:7/3");
        assert!(way.credentials.has_user() && way.credentials.has_password());
    }

    #[test]
    fn what_makes_it_another() {
        let one = || Topology { nodes: vec![at("b", 1)], ..topology("redis://a") };
        assert!(one().same_target(&one()));
        let others = [
            topology("redis://a"),
            Topology { mode: RedisMode::Cluster, ..one() },
            Topology { sentinel_master: "x".to_owned(), ..one() },
            Topology { sentinel_login: Credentials::default().with_user("u".to_owned()), ..one() },
            Topology { nodes: vec![at("b", 1)], ..topology("redis://c") },
        ];
        for other in others {
            assert!(!one().same_target(&other), "{other:?}");
        }
        // Where there is one server, there is one connection.
        let connections = |mode, max_connections| Topology { mode, max_connections, ..one() };
        assert!(connections(RedisMode::Sentinel, 1).same_target(&connections(RedisMode::Sentinel, 2)));
        assert!(!connections(RedisMode::Cluster, 1).same_target(&connections(RedisMode::Cluster, 2)));
    }

    #[test]
    fn addresses_as_people_write_them() {
        assert_eq!(at("10.0.0.1", 6379).to_string(), "10.0.0.1:6379");
        assert_eq!(at("::1", 6379).to_string(), "[::1]:6379");
        assert_eq!(Address::Unix("/run/a\nb".into()).to_string(), "/run/a\\nb");
    }
}
