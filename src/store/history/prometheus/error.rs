//! Why Prometheus gives no history.

use std::time::Duration;

use hyper::StatusCode;

use crate::sys::files::FileError;
use crate::sys::http_client::NoAnswer;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The file of the token gives none.
    #[error("the token: {0}")]
    Token(#[from] TokenFileError),
    /// The file of the token took longer than this to be read.
    #[error("the token: its file takes more than {} s", .0.as_secs())]
    TokenLate(Duration),
    /// No answer began within this time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    /// No answer ended within this time.
    #[error("no whole answer within {} s", .0.as_secs())]
    Incomplete(Duration),
    /// There is no answer.
    #[error(transparent)]
    NoAnswer(NoAnswer),
    /// A server or a proxy that cannot serve now, or refuses access.
    #[error("{0}")]
    Status(StatusCode),
    /// Prometheus answers an error that is not about the query.
    #[error("{status}: {error}")]
    Failed {
        /// The status.
        status: StatusCode,
        /// Prometheus's words, cut.
        error: String,
    },
    /// Prometheus refuses this query.
    #[error("{status}: {error}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Prometheus's words, cut.
        error: String,
    },
    /// Something else answers.
    #[error(transparent)]
    NoPrometheus(#[from] OtherServer),
    /// The program ends.
    #[error("the query was interrupted")]
    Interrupted,
}

/// What answers that is no Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherServer {
    /// It does not speak HTTP, or not this one.
    #[error(transparent)]
    Protocol(NoAnswer),
    /// Prometheus has no such answer with that status.
    #[error("{0} with a good answer")]
    Status(StatusCode),
    /// It leads elsewhere.
    #[error("{0}: redirects are not followed")]
    Redirect(StatusCode),
    /// Its answer is not that of Prometheus.
    #[error("{0} without the JSON of Prometheus's API")]
    Answer(StatusCode),
    /// The same, and from where on it is no such JSON. What is there is not repeated.
    #[error("{status} without the JSON of Prometheus's API (line {line}, column {column})")]
    Json {
        /// The status.
        status: StatusCode,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
}

/// Why a file gives no bearer token: what is expected of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// What is in it is no token.
    #[error("expected a file with one token of visible ASCII characters")]
    NoToken,
}
