//! Why something could not be read, in the few words that may become a label or an error text.

use std::fmt;

/// Why Redis as a whole could not be sampled. The only error that becomes a metric label, hence few and fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    /// No connection could be made.
    Connect,
    /// The poll's deadline passed.
    Timeout,
    /// Redis refused the credentials, or wants some.
    Auth,
    /// Redis is loading its data set.
    Loading,
    /// Redis answered something that cannot be understood.
    Protocol,
    /// The connection broke.
    Io,
    /// Redis answered every question with an error.
    Server,
}

impl FailureReason {
    /// Every reason, in the order the metric lists them.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Timeout, Self::Auth, Self::Loading, Self::Protocol, Self::Io, Self::Server];

    /// The label's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Auth => "auth",
            Self::Loading => "loading",
            Self::Protocol => "protocol",
            Self::Io => "io",
            Self::Server => "server",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node of a cluster sends one elsewhere for a key. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RedirectKind {
    /// The slot belongs to the other node.
    Moved,
    /// The slot is on its way there, and this key has gone already.
    Ask,
}

impl RedirectKind {
    /// Both, in the order of the metric.
    pub const ALL: [Self; 2] = [Self::Moved, Self::Ask];

    /// As a label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Ask => "ask",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_the_labels_that_the_documentation_lists() {
        let labels = FailureReason::ALL.map(FailureReason::as_str);
        assert_eq!(labels, ["connect", "timeout", "auth", "loading", "protocol", "io", "server"]);
        assert_eq!(FailureReason::ALL.map(|reason| reason.to_string()), labels);
        assert_eq!(RedirectKind::ALL.map(RedirectKind::as_str), ["moved", "ask"]);
    }
}
