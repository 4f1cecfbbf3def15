//! The live page and its files, which are part of the program.

use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest as _, Sha256};

use crate::http::response_body::HttpResponse;
use crate::http::route::{UiFile, accepts_gzip, joined};
use crate::model::text::hex;

/// What the page may do: run and show its own files, and talk to its own server. Nothing inline, nothing from elsewhere,
/// no frame around it, and no text that becomes HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file as it is served.
struct Asset {
    content_type: &'static str,
    plain: Bytes,
    gzip: Bytes,
    /// One for each form, as they are different bytes.
    etags: [HeaderValue; 2],
}

static PAGE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/html; charset=utf-8", include_bytes!("ui/index.html")));
static STYLE: LazyLock<Asset> = LazyLock::new(|| Asset::new("text/css; charset=utf-8", include_bytes!("ui/style.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/javascript; charset=utf-8", include_bytes!("ui/app.js")));

impl Asset {
    /// Compressed once, when it is first asked for: some milliseconds.
    fn new(content_type: &'static str, plain: &'static [u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Nothing can fail that is written to memory. Without a compressed form there is the plain one.
        let gzip = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
        let digest = hex(&Sha256::digest(plain)[..16]);
        let etags = ["", "-gzip"].map(|form| HeaderValue::try_from(format!("\"{digest}{form}\"")));
        let etags = etags.map(|etag| etag.unwrap_or(HeaderValue::from_static("")));
        Self { content_type, plain: Bytes::from_static(plain), gzip: gzip.into(), etags }
    }

    fn answer(&self, headers: &HeaderMap) -> HttpResponse {
        let gzip = !self.gzip.is_empty() && joined(headers, ACCEPT_ENCODING).as_deref().is_some_and(accepts_gzip);
        let [etag_plain, etag_gzip] = &self.etags;
        let etag = if gzip { etag_gzip } else { etag_plain };
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        let unchanged = known.any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes());
        let body = match (unchanged, gzip) {
            (true, _) => Bytes::new(),
            (false, true) => self.gzip.clone(),
            (false, false) => self.plain.clone(),
        };
        let mut answer = HttpResponse::new(body.into());
        if unchanged {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let answer_headers = answer.headers_mut();
        answer_headers.insert(ETAG, etag.clone());
        // Kept, but asked for each time: the next version of the program has others.
        answer_headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer_headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if !unchanged {
            answer_headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            if gzip {
                answer_headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        answer
    }
}

/// A file of the page.
pub(super) fn answer(file: UiFile, headers: &HeaderMap) -> HttpResponse {
    let mut answer = match file {
        UiFile::Page => PAGE.answer(headers),
        UiFile::Style => STYLE.answer(headers),
        UiFile::Script => SCRIPT.answer(headers),
        UiFile::Bare => {
            let mut answer = HttpResponse::new(Bytes::new().into());
            *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
            // Relative, as a proxy may have put it under another path.
            answer.headers_mut().insert(LOCATION, HeaderValue::from_static("ui/"));
            answer
        }
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page may weigh in all, compressed.
    const MAX_GZIP_BYTES: usize = 60 * 1024;

    #[test]
    fn the_page_is_small_and_has_nothing_inline_and_nothing_from_elsewhere() {
        let bytes: usize = [&PAGE, &STYLE, &SCRIPT].iter().map(|asset| asset.gzip.len()).sum();
        assert!(bytes <= MAX_GZIP_BYTES, "{bytes}");
        let page = std::str::from_utf8(&PAGE.plain).unwrap();
        for inline in
            ["<style", " style=", " onclick=", " onload=", "javascript:", "src=\"http", "href=\"http", "<script>"]
        {
            assert!(!page.contains(inline), "{inline}");
        }
        let script = std::str::from_utf8(&SCRIPT.plain).unwrap();
        for sink in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "import("]
        {
            assert!(!script.contains(sink), "{sink}");
        }
        let style = std::str::from_utf8(&STYLE.plain).unwrap();
        assert!(!style.contains("url(") && !style.contains("@import"));
    }

    #[test]
    fn what_a_browser_has_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"));
        let first = answer(UiFile::Script, &headers);
        assert_eq!((first.status(), first.headers()[CONTENT_ENCODING].as_bytes()), (StatusCode::OK, &b"gzip"[..]));
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let second = answer(UiFile::Script, &headers);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert!(second.headers().get(CONTENT_SECURITY_POLICY).is_some());
        // The plain form is another one.
        headers.remove(ACCEPT_ENCODING);
        assert_eq!(answer(UiFile::Script, &headers).status(), StatusCode::OK);
    }
}
