//! Origins of pages: which may open a live stream from a browser. Pure.
//!
//! Browsers let any page open a WebSocket to any server, and send the page's origin along. Programs that are no browsers
//! send none.

/// The longest origin that is looked at, in bytes: a scheme, the longest name that DNS has, a port.
const MAX_ORIGIN_BYTES: usize = 300;

/// A scheme, a host and a port, as RFC 6454 compares them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// An origin as browsers write it: `https://host` or `https://host:port`, nothing behind it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_ORIGIN_BYTES {
            return None;
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = host_and_port(authority, port)?;
        Some(Self { scheme, host, port })
    }

    /// Whether it is an origin of the server that a client asked for as `authority` (`host` or `host:port`). The scheme
    /// is the origin's own: a proxy may have taken the TLS off.
    #[must_use]
    pub fn is_of(&self, authority: &str) -> bool {
        let default = if self.scheme == "https" { 443 } else { 80 };
        host_and_port(authority, default).is_some_and(|(host, port)| host == self.host && port == self.port)
    }
}

fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    if !crate::http::route::is_host(authority) {
        return None;
    }
    // An IPv6 address has colons of its own, and its brackets end before the port.
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[end..].find(':') {
        Some(colon) => (&authority[..end + colon], authority[end + colon + 1..].parse().ok()?),
        None => (authority, default),
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, host, port) in [
            ("http://lag.example", "lag.example", 80),
            ("HTTPS://Lag.Example", "lag.example", 443),
            ("https://lag.example:8443", "lag.example", 8443),
            ("http://[::1]:8000", "[::1]", 8000),
            ("http://[::1]", "[::1]", 80),
        ] {
            let origin = Origin::parse(text).unwrap();
            assert_eq!((origin.host.as_str(), origin.port), (host, port), "{text}");
        }
        let long = format!("http://{}", "a".repeat(300));
        for other in [
            "",
            "null",
            "lag.example",
            "ftp://lag.example",
            "http://",
            "http://lag.example/",
            "http://u@lag.example",
            "http://lag.example:x",
            "http://lag.example:8000:1",
            "http://lag.example https://other",
            "file://",
            &long,
        ] {
            assert_eq!(Origin::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_origin_is_of_the_host_that_was_asked_for() {
        let check = |origin: &str, asked: &str, expected| {
            assert_eq!(Origin::parse(origin).unwrap().is_of(asked), expected, "{origin} {asked}");
        };
        check("http://lag.example:8000", "lag.example:8000", true);
        check("http://LAG.example:8000", "lag.EXAMPLE:8000", true);
        check("https://lag.example", "lag.example", true);
        check("https://lag.example", "lag.example:443", true);
        check("http://lag.example", "lag.example:80", true);
        check("http://[::1]:8000", "[::1]:8000", true);
        check("http://lag.example", "lag.example:8000", false);
        check("https://lag.example", "lag.example:80", false);
        check("http://evil.example", "lag.example", false);
        check("http://lag.example.evil.example", "lag.example", false);
        check("http://evil.example", "", false);
    }
}
