//! From a request's head to what it asks for. Pure.

use std::borrow::Cow;

/// The prefix of the API.
const API: &str = "/api/v1/events/";

/// A place that answers: [`Route::Reload`] `POST` and `PUT`, the others `GET` and `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The landing page.
    Landing,
    /// The metrics page, wherever it is configured to be.
    Metrics,
    /// Whether the process is alive.
    Healthy,
    /// Whether it has something to say, and is not shutting down.
    Ready,
    /// Where a `POST` has the configuration reloaded.
    Reload,
    /// A place that wants a token.
    Api(ApiRoute),
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
            _ => Self::Api(match path.strip_prefix(API)? {
                "consumer-lag" => ApiRoute::ConsumerLag,
                "streams" => ApiRoute::Streams,
                "health" => ApiRoute::Health,
                "groups" => ApiRoute::Groups,
                "consumers" => ApiRoute::Consumers,
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
            Self::Api(ApiRoute::ConsumerLag) => "/api/v1/events/consumer-lag",
            Self::Api(ApiRoute::Streams) => "/api/v1/events/streams",
            Self::Api(ApiRoute::Health) => "/api/v1/events/health",
            Self::Api(ApiRoute::Groups) => "/api/v1/events/groups",
            Self::Api(ApiRoute::Consumers) => "/api/v1/events/consumers",
        }
    }

    /// Whether the program itself answers at this path, so that the metrics page cannot be put there.
    #[must_use]
    pub fn is_taken(path: &str) -> bool {
        // A telemetry path that is no path cannot hide anything.
        Self::find(path, "").is_some()
    }
}

/// The value of a query parameter, decoded; the first where there are several.
#[must_use]
pub fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The form of the metrics page that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// OpenMetrics 1.0.0 rather than the classic text.
    pub openmetrics: bool,
    /// Compressed.
    pub gzip: bool,
}

impl Wanted {
    /// What the `Accept` and `Accept-Encoding` headers ask for. A client that asks for neither format gets the classic
    /// one, as from every exporter: an answer of 406 would help nobody.
    #[must_use]
    pub fn from_headers(accept: Option<&str>, accept_encoding: Option<&str>) -> Self {
        let openmetrics = accept.map_or(0, |accept| {
            quality(accept, |media, parameters| {
                media == "application/openmetrics-text"
                    && parameters.iter().all(|&(name, value)| name != "version" || value == "1.0.0")
            })
        });
        let classic = accept.map_or(0, |accept| {
            quality(accept, |media, parameters| {
                media == "text/plain" && parameters.iter().all(|&(name, value)| name != "version" || value == "0.0.4")
            })
        });
        let gzip =
            accept_encoding.map_or(0, |accept| quality(accept, |coding, _| coding == "gzip" || coding == "x-gzip"));
        Self { openmetrics: openmetrics > 0 && openmetrics >= classic, gzip: gzip > 0 }
    }
}

/// The greatest `q` (in thousandths, 1000 where none is given) among a header's elements that match; 0 for none.
fn quality(header: &str, matches: impl Fn(&str, &[(&str, &str)]) -> bool) -> u32 {
    let mut best = 0;
    for element in header.split(',') {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = parts
            .filter_map(|parameter| parameter.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        if matches(&name, &parameters) {
            let q = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case("q"));
            let q = q.map_or(1.0, |(_, value)| value.parse::<f64>().unwrap_or(0.0));
            best = best.max((q.clamp(0.0, 1.0) * 1000.0) as u32);
        }
    }
    best
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
    fn every_label_finds_its_route() {
        use ApiRoute::{ConsumerLag, Consumers, Groups, Health, Streams};
        let api = [ConsumerLag, Consumers, Groups, Health, Streams].map(Route::Api);
        for route in
            api.into_iter().chain([Route::Landing, Route::Metrics, Route::Healthy, Route::Ready, Route::Reload])
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
    }

    #[test]
    fn negotiation() {
        let check = |accept: &str, encoding: &str, openmetrics, gzip| {
            let wanted = Wanted::from_headers(Some(accept), Some(encoding));
            assert_eq!(wanted, Wanted { openmetrics, gzip }, "{accept:?} {encoding:?}");
        };
        // Prometheus 2.42 and 3, curl, a browser.
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
        check("*/*", "identity", false, false);
        check("text/html,application/xhtml+xml,*/*;q=0.8", "gzip, deflate, br", false, true);
        check("text/plain;version=0.0.4", "", false, false);
        check("application/openmetrics-text; version=0.0.1", "", false, false);
        check("application/openmetrics-text", "", true, false);
        check("application/openmetrics-text;q=0", "gzip;q=0", false, false);
        check("application/openmetrics-text;q=0.1,text/plain;q=0.9", "gzip;q=0.001", false, true);
        check("application/json", "GZIP", false, true);
        check(";;;=,,q=", "gzip;q=x", false, false);
        assert_eq!(Wanted::from_headers(None, None), Wanted { openmetrics: false, gzip: false });
    }
}
