//! Redis's protocol and connections: RESP, connector, TLS, credentials, reply decoders.

pub(crate) mod connection;
pub mod connector;
pub(crate) mod credentials;
pub(crate) mod refusals;
pub mod replies;
pub mod reply_memory;
pub mod resp;
pub(crate) mod resp_stream;
pub(crate) mod script;
pub(crate) mod tls;
pub(crate) mod verifier;
