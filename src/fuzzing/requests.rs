//! Paths, queries and the headers that choose a form.

use std::borrow::Cow;

use crate::http::route::{PageFormat, Route, is_host, query_parameter};

const TELEMETRY_PATH: &str = "/metrics";

/// Lines: a path with its query, the name of a parameter, `Accept`, `Accept-Encoding`.
pub fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let mut line = || lines.next().unwrap_or_default();
    let (target, name, accept, encoding) = (line(), line(), line(), line());
    if let Ok(uri) = target.parse::<hyper::Uri>() {
        path(uri.path());
        query(uri.query().unwrap_or_default(), name);
    }
    host(target);
    let (before, after) = target.split_once('?').unwrap_or((target, ""));
    path(before);
    query(after, name);
    headers(accept, encoding);
}

/// Paths are taken to the letter, so no second spelling of one gets anywhere.
fn path(path: &str) {
    if let Some(route) = Route::find(path, TELEMETRY_PATH) {
        if route != Route::DeclaredScale {
            // Its label has NAME for the scaler's.
            assert_eq!(route.label(), path);
        }
        assert_eq!(Route::is_taken(path), route != Route::Metrics, "{path}");
    }
}

/// What is taken for the name of this server is a name and a port, and leads nowhere else.
fn host(text: &str) {
    if is_host(text) {
        let uri = format!("http://{text}/").parse::<hyper::Uri>();
        let authority = uri.ok().and_then(|uri| uri.authority().cloned());
        assert_eq!(authority.map(|authority| authority.to_string()), Some(text.to_owned()));
        assert!(!text.contains(['@', '/', '?', '#', '\\', '"', '<', ' ']) && text.is_ascii(), "{text}");
    }
}

/// Every query has a meaning, and it is the one of the plain decoder below.
fn query(query: &str, name: &str) {
    let expected = query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    });
    assert_eq!(query_parameter(Some(query), name).map(Cow::into_owned), expected);
    assert_eq!(query_parameter(None, name), None);
}

/// `application/x-www-form-urlencoded`, by its rules and nothing else: `+` is a blank, `%` and two hexadecimal digits are
/// a byte, what is no UTF-8 is U+FFFD.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let escaped = match tail {
            [high, low, ..] if *byte == b'%' => (*high as char).to_digit(16).zip((*low as char).to_digit(16)),
            _ => None,
        };
        match (escaped, byte) {
            (Some((high, low)), _) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (None, b'+') => bytes.push(b' '),
            (None, byte) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A form that was not named is not sent, and what else is named changes nothing.
fn headers(accept: &str, encoding: &str) {
    let wanted = PageFormat::from_headers(Some(accept), Some(encoding));
    assert!(!wanted.openmetrics || accept.to_ascii_lowercase().contains("application/openmetrics-text"), "{accept}");
    assert!(!wanted.gzip || encoding.to_ascii_lowercase().contains("gzip"), "{encoding}");
    let more = |header: &str| format!("x/y;q=0.3,{header},br");
    assert_eq!(PageFormat::from_headers(Some(&more(accept)), Some(&more(encoding))), wanted, "{accept} {encoding}");
    let alone = [PageFormat::from_headers(Some(accept), None), PageFormat::from_headers(None, Some(encoding))];
    assert_eq!(alone, [PageFormat { gzip: false, ..wanted }, PageFormat { openmetrics: false, ..wanted }]);
}
