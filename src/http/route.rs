//! From a request's head to what it asks for. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName};

/// The longest name that DNS has.
const MAX_HOST_BYTES: usize = 253;

/// The prefix of the API.
const API: &str = "/api/v1/events/";

/// What the path of a declared scaler begins with.
const SCALE: &str = "/api/v1/scale/";

/// What the path of a plan begins with.
const PLAN: &str = "/api/v1/remediation/";

/// A place that answers: [`Route::Reload`] and decisions `POST` and `PUT`, the others `GET` and `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The landing page.
    Landing,
    /// The metrics page, wherever it is configured to be.
    Metrics,
    /// The metrics page of one target.
    Probe,
    /// What Prometheus finds the targets by.
    Discovery,
    /// Whether the process is alive.
    Healthy,
    /// Whether it has something to say, and is not shutting down.
    Ready,
    /// Where a `POST` has the configuration reloaded.
    Reload,
    /// A place that wants a token: what there is to know of the targets.
    Targets,
    /// A place that wants a token: what is wrong, in all targets or one.
    Incidents,
    /// A place that wants a token: what could be done about sick groups.
    Remediation,
    /// Where a `POST` has a plan carried out, whose id is in the path.
    Approve,
    /// Where a `POST` ends a plan.
    Reject,
    /// A place that wants a token: the value of a scaler that the request describes.
    Scale,
    /// A place that wants a token: the value of a declared scaler, whose name the path ends with.
    DeclaredScale,
    /// A place that wants a token: what there is to know of one target.
    Api(ApiRoute),
    /// A place that wants a token: what there was.
    History(HistoryRoute),
    /// A place that wants a token: what changes in one target, as it does.
    Live,
    /// A file of the live page.
    Ui(UiFile),
}

/// The files of the live page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UiFile {
    /// The page without its slash, against which its files could not be found.
    Bare,
    /// The page.
    Page,
    /// Its stylesheet.
    Style,
    /// Its script.
    Script,
}

/// The API's paths of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryRoute {
    /// Points of a group.
    History,
    /// Where the lag of groups is going.
    Trends,
    /// `/api/v1/events/forecast`.
    Forecast,
}

/// The API's places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRoute {
    /// Lag per stream.
    ConsumerLag,
    /// Streams.
    Streams,
    /// Health of the whole.
    Health,
    /// Consumer groups.
    Groups,
    /// Consumers.
    Consumers,
    /// Logical streams.
    LogicalStreams,
}

impl Route {
    /// The place at `path`; `telemetry_path` is where the metrics page is. Paths are taken to the letter: no
    /// normalizing, no trailing slash.
    #[must_use]
    pub fn find(path: &str, telemetry_path: &str) -> Option<Self> {
        if path == telemetry_path {
            return Some(Self::Metrics);
        }
        Some(match path {
            "/" => Self::Landing,
            "/-/healthy" => Self::Healthy,
            "/-/ready" => Self::Ready,
            "/-/reload" => Self::Reload,
            "/probe" => Self::Probe,
            "/api/v1/sd" => Self::Discovery,
            "/api/v1/targets" => Self::Targets,
            "/api/v1/incidents" => Self::Incidents,
            "/api/v1/remediation" => Self::Remediation,
            "/api/v1/scale" => Self::Scale,
            "/api/v1/events/live" => Self::Live,
            "/ui" => Self::Ui(UiFile::Bare),
            "/ui/" => Self::Ui(UiFile::Page),
            "/ui/style.css" => Self::Ui(UiFile::Style),
            "/ui/app.js" => Self::Ui(UiFile::Script),
            "/api/v1/events/history" => Self::History(HistoryRoute::History),
            "/api/v1/events/trends" => Self::History(HistoryRoute::Trends),
            "/api/v1/events/forecast" => Self::History(HistoryRoute::Forecast),
            _ if scaler(path).is_some() => Self::DeclaredScale,
            _ if plan(path, "/approve").is_some() => Self::Approve,
            _ if plan(path, "/reject").is_some() => Self::Reject,
            _ => Self::Api(match path.strip_prefix(API)? {
                "consumer-lag" => ApiRoute::ConsumerLag,
                "streams" => ApiRoute::Streams,
                "health" => ApiRoute::Health,
                "groups" => ApiRoute::Groups,
                "consumers" => ApiRoute::Consumers,
                "logical-streams" => ApiRoute::LogicalStreams,
                _ => return None,
            }),
        })
    }

    /// The path as a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Landing => "/",
            Self::Metrics => "/metrics",
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
            Self::Reload => "/-/reload",
            Self::Probe => "/probe",
            Self::Discovery => "/api/v1/sd",
            Self::Targets => "/api/v1/targets",
            Self::Incidents => "/api/v1/incidents",
            Self::Remediation => "/api/v1/remediation",
            Self::Approve => "/api/v1/remediation/ID/approve",
            Self::Reject => "/api/v1/remediation/ID/reject",
            Self::Scale => "/api/v1/scale",
            Self::DeclaredScale => "/api/v1/scale/NAME",
            Self::Live => "/api/v1/events/live",
            Self::Ui(UiFile::Bare) => "/ui",
            Self::Ui(UiFile::Page) => "/ui/",
            Self::Ui(UiFile::Style) => "/ui/style.css",
            Self::Ui(UiFile::Script) => "/ui/app.js",
            Self::Api(ApiRoute::ConsumerLag) => "/api/v1/events/consumer-lag",
            Self::Api(ApiRoute::Streams) => "/api/v1/events/streams",
            Self::Api(ApiRoute::Health) => "/api/v1/events/health",
            Self::Api(ApiRoute::Groups) => "/api/v1/events/groups",
            Self::Api(ApiRoute::Consumers) => "/api/v1/events/consumers",
            Self::Api(ApiRoute::LogicalStreams) => "/api/v1/events/logical-streams",
            Self::History(HistoryRoute::History) => "/api/v1/events/history",
            Self::History(HistoryRoute::Trends) => "/api/v1/events/trends",
            Self::History(HistoryRoute::Forecast) => "/api/v1/events/forecast",
        }
    }

    /// The parameters that it takes; `None` where it looks at its query itself.
    #[must_use]
    pub fn parameters(self) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::Targets | Self::Discovery | Self::Remediation => &[],
            Self::Incidents => &["target", "status"],
            Self::Api(_) => &["target", "group"],
            Self::History(HistoryRoute::History) => &["target", "stream", "group", "from", "to", "step"],
            Self::History(HistoryRoute::Trends) => &["target", "stream", "group", "window"],
            Self::History(HistoryRoute::Forecast) => &["target", "stream", "group", "horizon"],
            _ => return None,
        })
    }

    /// The methods that it answers.
    #[must_use]
    pub fn methods(self) -> [Method; 2] {
        match self {
            Self::Reload | Self::Approve | Self::Reject => [Method::POST, Method::PUT],
            _ => [Method::GET, Method::HEAD],
        }
    }

    /// Whether the program itself answers at this path, so that the metrics page cannot be put there.
    #[must_use]
    pub fn is_taken(path: &str) -> bool {
        // A telemetry path that is no path cannot hide anything.
        Self::find(path, "").is_some()
    }
}

/// The name of the scaler that a path is of. Names need no decoding.
#[must_use]
pub fn scaler(path: &str) -> Option<&str> {
    path.strip_prefix(SCALE).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The id of the plan that a path is of, which ends with `end`. Ids need no decoding.
#[must_use]
pub fn plan<'a>(path: &'a str, end: &str) -> Option<&'a str> {
    let id = path.strip_prefix(PLAN)?.strip_suffix(end)?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// The value of a query parameter, decoded; the first where there are several.
#[must_use]
pub fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    decoded_pairs(query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Characters of an unknown parameter that are repeated.
const MAX_REPEATED: usize = 80;

/// Why the parameters of a query cannot be used. No value is repeated: some send a token by mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// There is no such parameter.
    #[error("unknown query parameter {key:?}: expected {}", listed(.known))]
    Unknown {
        /// Its beginning.
        key: String,
        /// Those that there are.
        known: &'static [&'static str],
    },
    /// There are two of it.
    #[error("the query parameter {0} is given twice: expected it once")]
    Twice(&'static str),
}

/// The parameters of a query, decoded, each of these keys at most once: one with a typing error would be passed over, and of two it is not
/// known which is meant.
///
/// # Errors
/// Which parameter is wrong, and what was expected.
pub fn parameters(
    query: Option<&str>,
    known: &'static [&'static str],
) -> Result<BTreeMap<&'static str, String>, ParameterError> {
    let mut given = BTreeMap::new();
    for (key, value) in decoded_pairs(query) {
        let Some(name) = known.iter().find(|name| **name == key) else {
            return Err(ParameterError::Unknown { key: key.chars().take(MAX_REPEATED).collect(), known });
        };
        if given.insert(*name, value.into_owned()).is_some() {
            return Err(ParameterError::Twice(name));
        }
    }
    Ok(given)
}

fn listed(known: &[&str]) -> String {
    if known.is_empty() { "none here".to_owned() } else { known.join(", ") }
}

/// All parameters of a query, decoded.
pub fn decoded_pairs(query: Option<&str>) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
}

/// All values of a query parameter, decoded.
pub fn query_parameters<'a>(query: Option<&'a str>, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    decoded_pairs(query).filter(move |(key, _)| key == name).map(|(_, value)| value)
}

/// Whether this is `host` or `host:port`, as a client names the server that it speaks to, and nothing else.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (is_name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').unwrap_or_default();
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            (plain && (1..=MAX_HOST_BYTES).contains(&name.len()), port)
        }
    };
    let is_port = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    is_name && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// The form of the metrics page that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFormat {
    /// OpenMetrics 1.0.0 rather than the classic text.
    pub openmetrics: bool,
    /// Compressed.
    pub gzip: bool,
}

impl PageFormat {
    /// What the `Accept` and `Accept-Encoding` headers ask for. A client that asks for neither format gets the classic
    /// one, as from every exporter: an answer of 406 would not help.
    #[must_use]
    pub fn from_headers(accept: Option<&str>, accept_encoding: Option<&str>) -> Self {
        let openmetrics = accept.map_or(0, |accept| {
            quality(accept, |media| media.is("application/openmetrics-text") && media.has_version("1.0.0"))
        });
        let classic =
            accept.map_or(0, |accept| quality(accept, |media| media.is("text/plain") && media.has_version("0.0.4")));
        let gzip = accept_encoding.is_some_and(accepts_gzip);
        Self { openmetrics: openmetrics > 0 && openmetrics >= classic, gzip }
    }
}

/// A header that may be repeated, as the list that it means; `None` where it is not there.
pub(super) fn joined(headers: &HeaderMap, name: HeaderName) -> Option<Cow<'_, str>> {
    let mut all = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let first = all.next().map(Cow::from)?;
    Some(all.fold(first, |before, value| format!("{before},{value}").into()))
}

/// Whether an `Accept-Encoding` header allows gzip.
#[must_use]
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    quality(accept_encoding, |coding| coding.is("gzip") || coding.is("x-gzip")) > 0
}

/// Whether an `Accept` header asks for Server-Sent Events. A client that accepts anything does not: it would wait for an
/// end that does not come.
#[must_use]
pub fn accepts_event_stream(accept: &str) -> bool {
    quality(accept, |media| media.is("text/event-stream")) > 0
}

/// The greatest `q` (in thousandths, 1000 where none is given) among a header's elements that match; 0 for none.
fn quality(header: &str, matches: impl Fn(Element<'_>) -> bool) -> u32 {
    let qualities = header.split(',').map(Element::from).filter(|element| matches(*element)).map(Element::quality);
    qualities.max().unwrap_or(0)
}

/// One of the things that a header accepts.
#[derive(Clone, Copy)]
struct Element<'a> {
    name: &'a str,
    parameters: &'a str,
}

impl<'a> From<&'a str> for Element<'a> {
    fn from(text: &'a str) -> Self {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        Self { name: name.trim(), parameters }
    }
}

impl<'a> Element<'a> {
    fn is(self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether this version would do: it is the one that is named, or none is.
    fn has_version(self, version: &str) -> bool {
        self.parameters().all(|(name, value)| name != "version" || value == version)
    }

    fn quality(self) -> u32 {
        let q = self.parameters().find(|(name, _)| name.eq_ignore_ascii_case("q"));
        let q = q.map_or(1.0, |(_, value)| value.parse::<f64>().unwrap_or(0.0));
        (q.clamp(0.0, 1.0) * 1000.0) as u32
    }

    fn parameters(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let check = |path, expected| assert_eq!(Route::find(path, "/metrics"), expected, "{path}");
        check("/", Some(Route::Landing));
        check("/metrics", Some(Route::Metrics));
        check("/-/ready", Some(Route::Ready));
        check("/api/v1/scale", Some(Route::Scale));
        check("/api/v1/scale/orders-2", Some(Route::DeclaredScale));
        assert_eq!(
            (scaler("/api/v1/scale/a.b"), scaler("/api/v1/scale/"), scaler("/api/v1/scale/a/b")),
            (Some("a.b"), None, None)
        );
        check("/api/v1/scale/", None);
        check("/api/v1/events/consumer-lag", Some(Route::Api(ApiRoute::ConsumerLag)));
        for wrong in
            ["", "/metrics/", "//metrics", "/Metrics", "/api/v1/events", "/api/v1/events/", "/../metrics", "/%2e"]
        {
            check(wrong, None);
        }
        assert_eq!(Route::find("/metrics", "/m"), None);
        assert_eq!(Route::find("/m", "/m"), Some(Route::Metrics));
        assert!(Route::is_taken("/-/healthy") && !Route::is_taken("/m"));
    }

    #[test]
    fn hosts() {
        for host in ["h", "h:1", "exporter-1.example.org:8000", "10.0.0.1:8000", "[::1]", "[fe80::1]:65535", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        let long = "x".repeat(254);
        for other in
            ["", ":1", "h:", "h:x", "h:65536", "h:+1", "u@h", "h/x", "h x", "::1", "[::1", "[h]:1", "[::1]1", &long]
        {
            assert!(!is_host(other), "{other}");
        }
    }

    #[test]
    fn every_label_finds_its_route() {
        use ApiRoute::{ConsumerLag, Consumers, Groups, Health, LogicalStreams, Streams};
        let api = [ConsumerLag, Consumers, Groups, Health, LogicalStreams, Streams].map(Route::Api);
        for route in api
            .into_iter()
            .chain([Route::Landing, Route::Metrics, Route::Healthy, Route::Ready, Route::Reload])
            .chain([Route::Probe, Route::Discovery, Route::Targets, Route::Scale, Route::DeclaredScale, Route::Live])
            .chain([UiFile::Bare, UiFile::Page, UiFile::Style, UiFile::Script].map(Route::Ui))
        {
            assert_eq!(Route::find(route.label(), "/metrics"), Some(route));
        }
    }

    #[test]
    fn query() {
        let group = |query| query_parameter(Some(query), "group").map(Cow::into_owned);
        assert_eq!(group("group=a"), Some("a".to_owned()));
        assert_eq!(group("x=1&group=a%2Fb+c&group=d"), Some("a/b c".to_owned()));
        assert_eq!(group("groups=a"), None);
        assert_eq!(group("group"), Some(String::new()));
        assert_eq!(query_parameter(None, "group"), None);
        let collect = |query| query_parameters(query, "collect[]").map(Cow::into_owned).collect::<Vec<_>>();
        assert_eq!(collect(Some("collect[]=a&x=1&collect%5B%5D=b&collect=c&collect[]")), ["a", "b", ""]);
        assert!(collect(None).is_empty());
    }

    #[test]
    fn negotiation() {
        let check = |accept: &str, encoding: &str, openmetrics, gzip| {
            let wanted = PageFormat::from_headers(Some(accept), Some(encoding));
            assert_eq!(wanted, PageFormat { openmetrics, gzip }, "{accept:?} {encoding:?}");
        };
        // Prometheus 2.42, 3.0 and 3.5, one that wants text only, VictoriaMetrics, curl, a browser. No escaping of names changes anything:
        // none needs UTF-8.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "gzip",
            true,
            true,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "gzip",
            true,
            true,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "gzip",
            true,
            true,
        );
        check("application/openmetrics-text;version=1.0.0;escaping=underscores", "", true, false);
        check(
            "text/plain;version=1.0.0;escaping=values;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.4",
            "gzip",
            false,
            true,
        );
        check("text/plain;version=0.0.4;q=1,*/*;q=0.1", "gzip", false, true);
        check("*/*", "identity", false, false);
        check("text/html,application/xhtml+xml,*/*;q=0.8", "gzip, deflate, br", false, true);
        check("text/plain;version=0.0.4", "", false, false);
        check("application/openmetrics-text; version=0.0.1", "", false, false);
        check("application/openmetrics-text", "", true, false);
        check("application/openmetrics-text;q=0", "gzip;q=0", false, false);
        check("application/openmetrics-text;q=0.1,text/plain;q=0.9", "gzip;q=0.001", false, true);
        check("application/json", "GZIP", false, true);
        check(";;;=,,q=", "gzip;q=x", false, false);
        assert_eq!(PageFormat::from_headers(None, None), PageFormat { openmetrics: false, gzip: false });
    }
}
