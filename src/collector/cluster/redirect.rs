//! What a node says of a key that is not its own. Pure.

use crate::collector::Address;
use crate::collector::cluster::slots::at_host_of;
use crate::model::RedirectKind;
use crate::model::sample::ReadError;

/// Where a key is to be asked for instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    pub(super) kind: RedirectKind,
    pub(super) slot: u16,
    pub(super) node: Address,
}

impl Redirect {
    /// What the node at `asked` answers about a stream, where that is a redirection.
    pub(super) fn read(error: &ReadError, asked: &Address) -> Option<Self> {
        let ReadError::Redirected { kind, slot, host, port, .. } = error else { return None };
        let node = match host.as_str() {
            // The host that was asked, under the address that was used.
            "" => at_host_of(asked, *port)?,
            "?" => return None,
            host => Address::told(host, *port)?,
        };
        Some(Self { kind: *kind, slot: *slot, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_are_redirections() {
        let check = |error: &str, expected: Option<(RedirectKind, u16, &str, u16)>| {
            let asked = Address::Tcp("asked".to_owned(), 1);
            let expected = expected.map(|(kind, slot, host, port)| {
                let node = Address::Tcp(host.to_owned(), port);
                Redirect { kind, slot, node }
            });
            assert_eq!(Redirect::read(&ReadError::of_server(error), &asked), expected, "{error}");
        };
        check("MOVED 3999 127.0.0.1:6381", Some((RedirectKind::Moved, 3999, "127.0.0.1", 6381)));
        check("ASK 0 host.example:6381", Some((RedirectKind::Ask, 0, "host.example", 6381)));
        check("MOVED 3999 ::1:6381", Some((RedirectKind::Moved, 3999, "::1", 6381)));
        check("MOVED 3999 :6381", Some((RedirectKind::Moved, 3999, "asked", 6381)));
        check("MOVED 3999 ?:6381", None);
        check("MOVED 16384 127.0.0.1:6381", None);
        check("MOVED 3999 127.0.0.1:70000", None);
        check("MOVED 3999 a\u{202e}b:6381", None);
        check(&format!("MOVED 3999 {}:6381", "h".repeat(254)), None);
        check("MOVED 3999", None);
        check("MOVED", None);
        check("TRYAGAIN Multiple keys request during rehashing of slot", None);
        check("no such key", None);
        check("", None);
    }
}
