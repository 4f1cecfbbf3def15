//! Who may use the API.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

/// The token that opens the API. It cannot be printed.
#[derive(Clone)]
pub struct ApiToken(Box<[u8]>);

impl ApiToken {
    /// A token, where the text can be sent as one: visible ASCII and not empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let sendable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Self(text.as_bytes().into()))
    }

    fn is(&self, presented: &[u8]) -> bool {
        // Takes the same time wherever the two differ. That it tells their lengths apart tells nobody the token.
        self.0.ct_eq(presented).into()
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken([redacted])")
    }
}

/// How the API is guarded.
#[derive(Clone, Debug)]
pub enum ApiAuth {
    /// No token is configured: nobody gets in.
    Closed,
    /// Whoever presents the token gets in.
    Token(ApiToken),
    /// Everybody gets in, because the operator said so.
    InsecureOpen,
}

/// Why somebody does not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No token is configured.
    Closed,
    /// No token was presented.
    Missing,
    /// A wrong token was presented.
    Wrong,
}

impl Denied {
    /// What the client is told.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Closed => "no API token is configured; set STREAMLAG_API_TOKEN and restart streamlag",
            Self::Missing => "send the API token as 'Authorization: Bearer <token>'",
            Self::Wrong => "the API token is not valid",
        }
    }

    /// The challenge of RFC 6750.
    pub(super) fn challenge(self) -> &'static str {
        match self {
            Self::Closed | Self::Missing => "Bearer realm=\"streamlag\"",
            Self::Wrong => "Bearer realm=\"streamlag\", error=\"invalid_token\"",
        }
    }
}

impl ApiAuth {
    /// Whether a request with these headers gets in.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let token = match self {
            Self::InsecureOpen => return Ok(()),
            Self::Closed => return Err(Denied::Closed),
            Self::Token(token) => token,
        };
        let presented = headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        match presented {
            Some(presented) if token.is(presented) => Ok(()),
            Some(_) => Err(Denied::Wrong),
            None => Err(Denied::Missing),
        }
    }
}

/// The credentials of the `Bearer` scheme, whose name has no case (RFC 9110).
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| credentials.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let check = |auth: &ApiAuth, authorization: Option<&str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(auth.check(&headers), expected, "{auth:?} {authorization:?}");
        };
        let guarded = ApiAuth::Token(ApiToken::new("secret").unwrap());
        check(&guarded, Some("Bearer secret"), Ok(()));
        check(&guarded, Some("bearer   secret "), Ok(()));
        check(&guarded, None, Err(Denied::Missing));
        check(&guarded, Some("Basic c2VjcmV0"), Err(Denied::Missing));
        check(&guarded, Some("Bearer"), Err(Denied::Missing));
        for wrong in ["Bearer ", "Bearer secre", "Bearer secrets", "Bearer SECRET", "Bearer secret,secret"] {
            check(&guarded, Some(wrong), Err(Denied::Wrong));
        }
        check(&ApiAuth::Closed, Some("Bearer secret"), Err(Denied::Closed));
        check(&ApiAuth::Closed, Some("Bearer "), Err(Denied::Closed));
        check(&ApiAuth::InsecureOpen, None, Ok(()));
    }

    #[test]
    fn a_token_cannot_be_printed_and_must_be_sendable() {
        let token = ApiToken::new("hunter2").unwrap();
        assert!(!format!("{token:?} {:?}", ApiAuth::Token(token.clone())).contains("hunter2"));
        for unsendable in ["", " ", "a b", "a\n", "é"] {
            assert!(ApiToken::new(unsendable).is_none(), "{unsendable:?}");
        }
    }
}
