//! From a request's head to the stream that it asks for. Pure.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{
    ACCEPT, CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};

use crate::analysis::incident::IncidentSubject;
use crate::http::origin::Origin;
use crate::http::problem::HttpProblem;
use crate::http::route::{accepts_event_stream, decoded_pairs, joined};
use crate::model::glob;
use crate::model::{GroupName, StreamKey};

/// The WebSocket subprotocol: JSON texts, as the events of a stream.
pub(in crate::http) const PROTOCOL: &str = "streamlag.v1";

/// What a browser puts before its token, which it can send in no other way: base64url without padding, as Kubernetes has
/// it.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.streamlag.";

/// The one version of WebSocket that there is (RFC 6455).
const WEBSOCKET_VERSION: &str = "13";

/// The longest glob, in bytes: four times as long as a name that is shown in full.
const MAX_GLOB_BYTES: usize = 1024;

/// How a viewer wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum LiveTransport {
    /// Server-Sent Events.
    EventStream,
    /// A WebSocket: the client's key, and whether it names the subprotocol.
    WebSocket {
        /// What the answer proves to have read.
        key: String,
        /// Whether the client offered [`PROTOCOL`].
        named: bool,
    },
}

/// Which groups a viewer wants to see. Two viewers with the same filter share every message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::http) struct RowFilter {
    stream: Option<String>,
    group: Option<String>,
}

impl RowFilter {
    /// Whether a group of a stream is wanted: by the names as Redis has them, or as they are shown.
    pub(super) fn matches(&self, stream: &StreamKey, group: &GroupName) -> bool {
        matches(&self.stream, stream.as_bytes(), stream.display_name())
            && matches(&self.group, group.as_bytes(), group.display_name())
    }

    /// Whether an incident of this is wanted. What is about all groups concerns every viewer.
    pub(super) fn matches_subject(&self, subject: &IncidentSubject) -> bool {
        match subject {
            IncidentSubject::Target | IncidentSubject::Node(_) => true,
            IncidentSubject::Stream(stream) => matches(&self.stream, stream.as_bytes(), stream.display_name()),
            IncidentSubject::Group(stream, group) => self.matches(stream, group),
        }
    }
}

fn matches(glob: &Option<String>, name: &[u8], shown: Cow<'_, str>) -> bool {
    glob.as_ref().is_none_or(|glob| {
        let is_plain = shown.as_bytes() == name;
        glob::matches(glob.as_bytes(), name) || !is_plain && glob::matches(glob.as_bytes(), shown.as_bytes())
    })
}

/// The query of a live stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct LiveQuery {
    /// Which groups.
    pub(in crate::http) filter: RowFilter,
    /// Of which target; the first where none is named.
    pub(in crate::http) target: Option<String>,
}

impl LiveQuery {
    /// Reads a query. What is unknown is refused: a filter with a typing error would show everything.
    pub(in crate::http) fn parse(query: Option<&str>) -> Result<Self, HttpProblem> {
        let mut parsed = Self::default();
        for (key, value) in decoded_pairs(query) {
            let place = match &*key {
                "stream" => &mut parsed.filter.stream,
                "group" => &mut parsed.filter.group,
                "target" => &mut parsed.target,
                // Its value is not repeated, and it stands in logs of proxies by now.
                "token" | "access_token" | "api_key" => {
                    return Err(bad("a token is not taken from the query; send it as 'Authorization: Bearer <token>'"));
                }
                other => {
                    let name: String = other.chars().take(MAX_SHOWN).collect();
                    return Err(bad(&format!("unknown parameter {name:?}: expected stream, group or target")));
                }
            };
            if place.is_some() {
                return Err(bad(&format!("the parameter {key} is given twice")));
            }
            if value.is_empty() || value.len() > MAX_GLOB_BYTES {
                let takes = if key == "target" { "a name" } else { "a Redis glob" };
                let detail = format!("invalid value for {key}: expected {takes} of 1 to {MAX_GLOB_BYTES} bytes");
                return Err(bad(&detail));
            }
            *place = Some(value.into_owned());
        }
        Ok(parsed)
    }
}

/// Characters of an unknown parameter's name that are repeated.
const MAX_SHOWN: usize = 80;

/// What stands in `Vary`: both forms have one address.
pub(in crate::http) const VARY_BY: &str = "Accept, Upgrade";

fn bad(detail: &str) -> HttpProblem {
    HttpProblem::new(StatusCode::BAD_REQUEST, detail.to_owned())
}

/// Whether a page of this origin may open a stream. No origin is no browser.
pub(in crate::http) fn check_origin(head: &Parts, host: Option<&str>, allowed: &[Origin]) -> Result<(), HttpProblem> {
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let Some(first) = origins.next() else { return Ok(()) };
    let origin = first.to_str().ok().and_then(Origin::parse).filter(|_| origins.next().is_none());
    let same = |origin: &Origin| host.is_some_and(|host| origin.is_of(host)) || allowed.contains(origin);
    if origin.as_ref().is_some_and(same) {
        return Ok(());
    }
    let detail = "pages of this origin may not open a live stream; --web.allowed-origins names those that may";
    Err(HttpProblem::new(StatusCode::FORBIDDEN, detail.to_owned()))
}

/// The token of a WebSocket that a browser opens; `None` where it sends none in this way.
pub(in crate::http) fn protocol_token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let token = protocols(headers).find_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL))?;
    // One that cannot be decoded is a wrong one, not a missing one.
    Some(URL_SAFE_NO_PAD.decode(token).unwrap_or_default())
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    elements(headers, SEC_WEBSOCKET_PROTOCOL)
}

/// The elements of a header that is a list.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// Whether the request asks for a WebSocket, rightly or not.
pub(in crate::http) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    elements(headers, UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

impl LiveTransport {
    /// What a request asks for.
    pub(in crate::http) fn of(head: &Parts) -> Result<Self, HttpProblem> {
        if asks_for_websocket(&head.headers) {
            return Self::websocket(head);
        }
        if joined(&head.headers, ACCEPT).as_deref().is_some_and(accepts_event_stream) {
            return Ok(Self::EventStream);
        }
        let detail = "send 'Accept: text/event-stream' for Server-Sent Events, or ask for an upgrade to WebSocket";
        Err(HttpProblem::new(StatusCode::NOT_ACCEPTABLE, detail.to_owned()))
    }

    fn websocket(head: &Parts) -> Result<Self, HttpProblem> {
        let headers = &head.headers;
        if head.version != Version::HTTP_11 || head.method != Method::GET {
            return Err(bad("a WebSocket is opened by GET over HTTP/1.1"));
        }
        if !elements(headers, CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade")) {
            return Err(bad("the header 'Connection: Upgrade' is missing"));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(WEBSOCKET_VERSION.as_bytes()) {
            let detail = format!("expected Sec-WebSocket-Version: {WEBSOCKET_VERSION}");
            let problem = HttpProblem::new(StatusCode::UPGRADE_REQUIRED, detail);
            let problem = problem.with(UPGRADE, HeaderValue::from_static("websocket"));
            return Err(problem.with(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(WEBSOCKET_VERSION)));
        }
        let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
        let key = keys.next().and_then(|key| key.to_str().ok()).filter(|key| is_key(key) && keys.next().is_none());
        let key = key.ok_or_else(|| bad("expected one Sec-WebSocket-Key: 16 bytes in base64"))?;
        let (mut named, mut tokens, mut others) = (0, 0, 0);
        for protocol in protocols(headers) {
            match protocol {
                PROTOCOL => named += 1,
                token if token.starts_with(TOKEN_PROTOCOL) => tokens += 1,
                _ => others += 1,
            }
        }
        // A browser that offers some closes the connection where none of them is taken.
        if tokens > 1 || named > 1 || (named == 0 && tokens + others > 0) {
            return Err(bad(&format!("expected the subprotocol {PROTOCOL}, and at most one with a token")));
        }
        Ok(Self::WebSocket { key: key.to_owned(), named: named == 1 })
    }
}

/// Whether it is 16 bytes in base64.
fn is_key(key: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&'static str, &str)]) -> Parts {
        let mut request = hyper::Request::get("/api/v1/events/live");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn upgrade(others: &[(&'static str, &str)]) -> Parts {
        let mut headers = vec![
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ];
        for (name, value) in others {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value));
        }
        head(&headers)
    }

    #[test]
    fn forms() {
        let status = |head: &Parts| LiveTransport::of(head).map_err(|problem| problem.status.as_u16());
        assert_eq!(status(&head(&[("accept", "text/event-stream")])), Ok(LiveTransport::EventStream));
        assert_eq!(
            status(&head(&[("accept", "application/json;q=0.5, Text/Event-Stream")])),
            Ok(LiveTransport::EventStream)
        );
        for accept in ["*/*", "text/*", "application/json", "text/event-stream;q=0", "", "text/event-streams"] {
            assert_eq!(status(&head(&[("accept", accept)])), Err(406), "{accept}");
        }
        assert_eq!(status(&head(&[])), Err(406));
        let websocket = |named| Ok(LiveTransport::WebSocket { key: KEY.to_owned(), named });
        assert_eq!(status(&upgrade(&[])), websocket(false));
        assert_eq!(status(&upgrade(&[("sec-websocket-protocol", "streamlag.v1")])), websocket(true));
        let both = "base64url.bearer.authorization.streamlag.c2VjcmV0, streamlag.v1";
        assert_eq!(status(&upgrade(&[("sec-websocket-protocol", both)])), websocket(true));
        assert_eq!(status(&upgrade(&[("sec-websocket-version", "8")])), Err(426));
        assert_eq!(status(&upgrade(&[("sec-websocket-version", "")])), Err(426));
        for (name, wrong) in [
            ("connection", "close"),
            ("sec-websocket-key", ""),
            ("sec-websocket-key", "c2hvcnQ="),
            ("sec-websocket-key", "not base64 at all !!!!!!"),
            ("sec-websocket-protocol", "graphql-ws"),
            ("sec-websocket-protocol", "streamlag.v2"),
            ("sec-websocket-protocol", "streamlag.v1, streamlag.v1"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.streamlag.c2VjcmV0"),
            (
                "sec-websocket-protocol",
                "streamlag.v1, base64url.bearer.authorization.streamlag.YQ, base64url.bearer.authorization.streamlag.Yg",
            ),
        ] {
            assert_eq!(status(&upgrade(&[(name, wrong)])), Err(400), "{name}: {wrong}");
        }
    }

    #[test]
    fn tokens_of_browsers() {
        let token = |value: &str| protocol_token(&upgrade(&[("sec-websocket-protocol", value)]).headers);
        assert_eq!(token("streamlag.v1, base64url.bearer.authorization.streamlag.c2VjcmV0"), Some(b"secret".to_vec()));
        assert_eq!(token("streamlag.v1"), None);
        assert_eq!(token("base64url.bearer.authorization.streamlag."), Some(Vec::new()));
        assert_eq!(token("base64url.bearer.authorization.streamlag.%%%"), Some(Vec::new()));
        assert_eq!(token("base64url.bearer.authorization.k8s.io.c2VjcmV0"), None);
    }

    #[test]
    fn queries() {
        let filter = |stream: Option<&str>, group: Option<&str>| RowFilter {
            stream: stream.map(str::to_owned),
            group: group.map(str::to_owned),
        };
        let check = |query: &str, expected: Result<(RowFilter, Option<&str>), u16>| {
            let parsed = LiveQuery::parse(Some(query)).map_err(|problem| problem.status.as_u16());
            let expected = expected.map(|(filter, target)| LiveQuery { filter, target: target.map(str::to_owned) });
            assert_eq!(parsed, expected, "{query}");
        };
        check("", Ok((RowFilter::default(), None)));
        check("stream=events%3A*&group=a+b&target=t", Ok((filter(Some("events:*"), Some("a b")), Some("t"))));
        let long = format!("stream={}", "a".repeat(1025));
        for wrong in ["streams=a", "stream=", "stream=a&stream=b", "token=slt_secret", "access_token=x", "x", &long] {
            check(wrong, Err(400));
        }
        let problem = LiveQuery::parse(Some("token=slt_secret")).unwrap_err();
        assert!(problem.detail.contains("Authorization") && !problem.detail.contains("slt_"), "{}", problem.detail);
    }

    #[test]
    fn filters() {
        let matches = |query: &str, stream: &str, group: &str| {
            LiveQuery::parse(Some(query)).unwrap().filter.matches(&stream.into(), &group.into())
        };
        assert!(matches("", "a", "b"));
        assert!(matches("stream=ev*", "events", "b") && !matches("stream=ev*", "orders", "b"));
        assert!(matches("stream=ev*&group=b", "events", "b") && !matches("stream=ev*&group=b", "events", "c"));
    }

    #[test]
    fn pages_of_other_origins() {
        let allowed = [Origin::parse("https://grafana.example").unwrap()];
        let status = |origins: &[&str]| {
            let headers: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
            check_origin(&head(&headers), Some("lag.example:8000"), &allowed).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(status(&[]), Ok(()));
        assert_eq!(status(&["http://lag.example:8000"]), Ok(()));
        assert_eq!(status(&["https://grafana.example"]), Ok(()));
        for other in ["null", "", "http://evil.example", "http://grafana.example", "http://lag.example"] {
            assert_eq!(status(&[other]), Err(403), "{other}");
        }
        assert_eq!(status(&["http://lag.example:8000", "http://evil.example"]), Err(403));
    }
}
