//! Why one stream could not be read while others could.

use crate::model::RedirectKind;
use crate::model::names::MAX_NAME_BYTES;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Why one stream could not be read while others could. A server's error becomes one of these where it is decoded, and its text is
/// not parsed again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No sample has asked for it yet.
    #[error("not read yet")]
    NotRead,
    /// Its entries are large: it is read by one of the next samples.
    #[error("not read yet: its entries are large, and its turn comes")]
    Deferred,
    /// Its name has this many bytes, which is too long to ask about it.
    #[error("its name has {0} bytes, and Redis is not asked about names of more than {MAX_NAME_BYTES}")]
    NameTooLong(u64),
    /// The reply about it exceeded what a sample may read.
    #[error("what Redis says of it is more than a sample may read: it is asked again later")]
    TooLarge,
    /// There is no memory for its groups.
    #[error("its groups take more memory than there is for replies (see --limit.memory-for-replies)")]
    NoMemory,
    /// It does not exist.
    #[error("no such key")]
    Missing,
    /// It is not there any more, or is no stream: the server's words.
    #[error("{0}")]
    Gone(String),
    /// Another node of the cluster has it.
    #[error("{text}")]
    Redirected {
        /// For good, or for this query.
        kind: RedirectKind,
        /// Its slot.
        slot: u16,
        /// The host as the server says it: empty for its own.
        host: String,
        /// The port.
        port: u16,
        /// The server's words.
        text: String,
    },
    /// The cluster does not serve it: the server's words.
    #[error("{0}")]
    ClusterDown(String),
    /// The server is a node of a cluster, and is sampled as one that stands alone: the server's words.
    #[error("{0}: this Redis is a node of a cluster; see redis.mode")]
    NeedsClusterMode(String),
    /// The server refuses this command, without which nothing can be known of a stream.
    #[error("{command} is needed, and Redis refuses it: {text}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The server's words.
        text: String,
    },
    /// Any other error of the server: its words.
    #[error("{0}")]
    Server(String),
    /// The reply is not what the command answers.
    #[error("{0}")]
    Malformed(String),
    /// It changed while it was read, where Redis runs no transactions.
    #[error("it changed while it was read, and Redis runs no transactions")]
    Changing,
    /// Its node could not be sampled.
    #[error("node {address}: {error}")]
    Node {
        /// The node.
        address: String,
        /// Why.
        error: String,
    },
    /// No node can be asked for it.
    #[error("{0}")]
    NoNode(String),
    /// Redis as a whole could not be sampled.
    #[error("{0}")]
    Target(String),
}

impl ReadError {
    /// From what a server says of a stream.
    #[must_use]
    pub fn of_server(text: &str) -> Self {
        let own = || text.to_owned();
        match text.split(' ').next().unwrap_or_default() {
            "WRONGTYPE" => Self::Gone(own()),
            _ if text == "no such key" => Self::Missing,
            _ if text.starts_with("no such key") => Self::Gone(own()),
            "MOVED" => redirected(RedirectKind::Moved, text).unwrap_or_else(|| Self::ClusterDown(own())),
            "ASK" => redirected(RedirectKind::Ask, text).unwrap_or_else(|| Self::ClusterDown(own())),
            "CLUSTERDOWN" => Self::ClusterDown(own()),
            _ => Self::Server(own()),
        }
    }

    /// Whether the stream is not there any more, or is something else by now.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Missing | Self::Gone(_))
    }

    /// The same, of a server that is not sampled as a cluster: what its nodes say of the streams of others says how to.
    #[must_use]
    pub fn outside_a_cluster(self) -> Self {
        match self {
            Self::Redirected { text, .. } | Self::ClusterDown(text) => Self::NeedsClusterMode(text),
            other => other,
        }
    }
}

/// `MOVED 3999 127.0.0.1:6381`
fn redirected(kind: RedirectKind, text: &str) -> Option<ReadError> {
    let mut words = text.split(' ').skip(1);
    let slot = words.next()?.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    let (host, port) = (host.to_owned(), port.parse().ok()?);
    Some(ReadError::Redirected { kind, slot, host, port, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_classified_once() {
        let kind = |text| match ReadError::of_server(text) {
            ReadError::Missing => "missing",
            ReadError::Gone(_) => "gone",
            ReadError::Redirected { .. } => "redirected",
            ReadError::ClusterDown(_) => "cluster",
            ReadError::Server(_) => "server",
            other => panic!("{other:?}"),
        };
        for (text, expected) in [
            ("no such key", "missing"),
            ("no such key: 5", "gone"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "gone"),
            ("MOVED 3999 127.0.0.1:6381", "redirected"),
            ("ASK 0 :6381", "redirected"),
            ("MOVED 16384 127.0.0.1:6381", "cluster"),
            ("MOVED 3999 127.0.0.1:70000", "cluster"),
            ("MOVED 3999", "cluster"),
            ("MOVED", "cluster"),
            ("CLUSTERDOWN Hash slot not served", "cluster"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "server"),
            ("NOPERM no permission", "server"),
            ("", "server"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
            assert_eq!(ReadError::of_server(text).to_string(), text, "its words stay");
        }
    }

    #[test]
    fn a_node_of_a_cluster_that_is_sampled_alone_says_what_to_set() {
        let hinted = |text| ReadError::of_server(text).outside_a_cluster().to_string();
        assert!(hinted("MOVED 1 a:1").ends_with("see redis.mode"));
        assert!(hinted("CLUSTERDOWN x").ends_with("see redis.mode"));
        assert_eq!(hinted("no such key"), "no such key");
    }
}
