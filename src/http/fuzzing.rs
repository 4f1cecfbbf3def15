//! What must hold of any tokens file and any `Authorization` header: see [`crate::fuzzing`].

use std::sync::Arc;
use std::time::SystemTime;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use crate::fuzzing::{OTHER_SECRET, SECRET, assert_one_line};
use crate::http::api::scale;
use crate::http::auth::{ApiAuth, presented};
use crate::http::basic_auth;
use crate::http::live::request::LiveQuery;
use crate::http::route::parameters;
use crate::http::tokens::{Token, Tokens};

/// A token and a header's value, one per line. A client is let in by the token, and by nothing else.
pub fn authorization(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (secret, value) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let is_basic = value.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Basic "));
    assert!(basic_auth::credentials(value).is_none() || is_basic);
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.clone());
    assert!(!gets_in(&ApiAuth::Closed, &headers));
    assert!(gets_in(&ApiAuth::InsecureOpen, &headers));
    let Some(token) = std::str::from_utf8(secret).ok().and_then(|secret| Token::new("it", secret)) else { return };
    let mut tokens = Tokens::default();
    assert!(Token::new("other", SECRET).is_some_and(|other| tokens.add(other).is_ok()));
    // There is one already where the secrets are the same.
    let _ = tokens.add(token);
    let auth = ApiAuth::Tokens(Arc::new(tokens));
    let presents = |secret| presents(value.as_bytes(), secret);
    assert!(!gets_in(&auth, &headers) || presents(secret) || presents(SECRET.as_bytes()));
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(&[b"bEARER ", secret].concat()).unwrap_or(value.clone()));
    assert!(gets_in(&auth, &headers));
    headers.remove(AUTHORIZATION);
    assert!(!gets_in(&auth, &headers));
}

fn gets_in(auth: &ApiAuth, headers: &HeaderMap) -> bool {
    auth.check(presented(headers), SystemTime::UNIX_EPOCH).is_ok()
}

/// The scheme, and the token after it, with any blanks.
fn presents(value: &[u8], secret: &[u8]) -> bool {
    let mut words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let is_bearer = words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer"));
    is_bearer && words.next() == Some(secret) && words.next().is_none()
}

/// Any text as the query of each path that takes parameters. What is wrong with it is one line, and it repeats no token.
pub fn api_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let wrong = |query: &str| {
        let scale = scale::asked(Some(query)).err().map(|error| error.to_string());
        let live = LiveQuery::parse(Some(query)).err().map(|problem| problem.detail);
        let other = parameters(Some(query), &["stream", "group"]).err().map(|error| error.to_string());
        [scale, live, other]
    };
    wrong(text).iter().flatten().for_each(|error| assert_one_line(error));
    let with = |secret| wrong(&format!("token={secret}&{text}"));
    assert_eq!(with(SECRET), with(OTHER_SECRET));
}

/// As many hexadecimal digits as a digest has.
const DIGEST_DIGITS: usize = 64;

/// Any text as a tokens file. The error is one line, shows no digest, and does not depend on what was written where
/// a digest belongs.
pub fn tokens_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let said = said_of_tokens(text);
    // Names are shown, and may look like anything.
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if names.iter().all(|name| name.len() < DIGEST_DIGITS) {
        let digits = said.split(|character: char| !character.is_ascii_hexdigit()).map(str::len).max();
        assert!(digits < Some(DIGEST_DIGITS), "a digest is shown: {said:?}");
    }
    if !names.iter().any(|name| name.contains(SECRET)) {
        assert_eq!(said, said_of_tokens(&text.replace(SECRET, OTHER_SECRET)));
    }
}

fn said_of_tokens(text: &str) -> String {
    match Tokens::parse(text) {
        Ok(tokens) => format!("{tokens:?}"),
        Err(error) => {
            assert_one_line(&error.to_string());
            error.to_string()
        }
    }
}
