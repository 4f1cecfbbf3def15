//! Authentication of API requests, by tokens.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use crate::http::tokens::{Token, TokenCheck, TokenIdentity, Tokens};

/// How the API is guarded.
#[derive(Clone, Debug)]
pub enum ApiAuth {
    /// No token is configured: every request is refused.
    Closed,
    /// A client that presents one of these is let in.
    Tokens(Arc<Tokens>),
    /// Every client is let in, as configured.
    InsecureOpen,
}

/// Why a client is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// No token is configured.
    Closed,
    /// No token was presented.
    Missing,
    /// A wrong token was presented.
    Wrong,
    /// A token was presented that has expired; its name.
    Expired(String),
}

impl AuthError {
    /// What the client is told.
    pub(super) fn detail(&self) -> &'static str {
        match self {
            Self::Closed => "no API token is configured; set STREAMLAG_API_TOKEN or --api.tokens-file",
            Self::Missing => "send the API token as 'Authorization: Bearer <token>'",
            Self::Wrong => "the API token is not valid",
            Self::Expired(_) => "the API token has expired",
        }
    }

    /// The challenge of RFC 6750.
    pub(super) fn challenge(&self) -> &'static str {
        match self {
            Self::Closed | Self::Missing => "Bearer realm=\"streamlag\"",
            Self::Wrong | Self::Expired(_) => "Bearer realm=\"streamlag\", error=\"invalid_token\"",
        }
    }
}

/// What let a client in, so that it can be checked later whether that still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admission(Option<TokenIdentity>);

/// Whether an admission still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdmissionStanding {
    /// It does.
    Valid {
        /// Whether it may end without a change of the configuration.
        expires: bool,
    },
    /// Its token has expired.
    Expired,
    /// Its token is gone, or one is needed now.
    Removed,
}

impl ApiAuth {
    /// What lets a client in that presents this token.
    pub(super) fn admission(token: Option<&Token>) -> Admission {
        Admission(token.map(Token::identity))
    }

    /// Whether a client that was let in would be now.
    pub(super) fn standing(&self, admission: &Admission, now: SystemTime) -> AdmissionStanding {
        let (tokens, identity) = match (self, &admission.0) {
            (Self::InsecureOpen, _) => return AdmissionStanding::Valid { expires: false },
            (Self::Tokens(tokens), Some(identity)) => (tokens, identity),
            (Self::Closed | Self::Tokens(_), _) => return AdmissionStanding::Removed,
        };
        match tokens.find_again(identity, now) {
            TokenCheck::Valid(token) => AdmissionStanding::Valid { expires: token.expires() },
            TokenCheck::Expired(_) => AdmissionStanding::Expired,
            TokenCheck::Unknown => AdmissionStanding::Removed,
        }
    }

    /// Whether a client that presents this token is let in, and with which one; `None` where none is needed.
    pub(super) fn check(&self, presented: Option<&[u8]>, now: SystemTime) -> Result<Option<&Token>, AuthError> {
        let tokens = match self {
            Self::InsecureOpen => return Ok(None),
            Self::Closed => return Err(AuthError::Closed),
            Self::Tokens(tokens) => tokens,
        };
        let presented = presented.ok_or(AuthError::Missing)?;
        match tokens.find(presented, now) {
            TokenCheck::Valid(token) => Ok(Some(token)),
            TokenCheck::Expired(token) => Err(AuthError::Expired(token.name.clone())),
            TokenCheck::Unknown => Err(AuthError::Wrong),
        }
    }

    /// The token that let a client in; `None` where none is needed, or it does not hold any more.
    pub(super) fn token(&self, admission: &Admission, now: SystemTime) -> Option<&Token> {
        let (Self::Tokens(tokens), Some(identity)) = (self, &admission.0) else { return None };
        match tokens.find_again(identity, now) {
            TokenCheck::Valid(token) => Some(token),
            TokenCheck::Expired(_) | TokenCheck::Unknown => None,
        }
    }

    /// Whether what is presented has to be checked.
    pub(super) fn is_guess(&self, presented: Option<&[u8]>) -> bool {
        matches!(self, Self::Tokens(_)) && presented.is_some()
    }
}

/// The credentials of the `Bearer` scheme, whose name has no case (RFC 9110).
pub(super) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| credentials.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tokens::DEFAULT_NAME;

    #[test]
    fn only_a_token_opens() {
        let check = |auth: &ApiAuth, authorization: Option<&str>, expected: Result<Option<&str>, AuthError>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            let checked = auth.check(presented(&headers), SystemTime::now());
            assert_eq!(checked.map(|token| token.map(|token| token.name.as_str())), expected, "{authorization:?}");
        };
        let mut tokens = Tokens::default();
        tokens.add(Token::new(DEFAULT_NAME, "secret").unwrap()).unwrap();
        tokens.add(Token::new("other", "other-secret").unwrap()).unwrap();
        let guarded = ApiAuth::Tokens(Arc::new(tokens));
        check(&guarded, Some("Bearer secret"), Ok(Some(DEFAULT_NAME)));
        check(&guarded, Some("bearer   secret "), Ok(Some(DEFAULT_NAME)));
        check(&guarded, Some("Bearer other-secret"), Ok(Some("other")));
        check(&guarded, None, Err(AuthError::Missing));
        check(&guarded, Some("Basic c2VjcmV0"), Err(AuthError::Missing));
        check(&guarded, Some("Bearer"), Err(AuthError::Missing));
        for wrong in ["Bearer ", "Bearer secre", "Bearer secrets", "Bearer SECRET", "Bearer secret,secret"] {
            check(&guarded, Some(wrong), Err(AuthError::Wrong));
        }
        check(&ApiAuth::Closed, Some("Bearer secret"), Err(AuthError::Closed));
        check(&ApiAuth::Closed, Some("Bearer "), Err(AuthError::Closed));
        check(&ApiAuth::InsecureOpen, None, Ok(None));
    }
}
