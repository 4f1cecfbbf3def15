//! Asking the streamlag that runs on this machine whether it is healthy: for container runtimes.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, Stream};

use crate::config::Config;

/// How long a health check waits for an answer: less than the three seconds that container runtimes give it.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// What a listener with TLS is told from whose answer in plain text begins with an alert.
const TLS_ALERT: u8 = 21;

/// What to do where the listener has TLS and the health check does not.
const EXPECTS_TLS: &str = "the server expects TLS: give the health check the same --web.config.file as the server";

/// Why the health check failed.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// No address is configured.
    #[error("no such address")]
    NoAddress,
    /// There is no connection, or it breaks.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The connection ends without an answer: so does one with TLS, where none is spoken.
    #[error("no HTTP response ({0}); {EXPECTS_TLS}")]
    NoResponse(std::io::Error),
    /// The listener has TLS, and the health check does not.
    #[error("{EXPECTS_TLS}")]
    ExpectsTls,
    /// The opposite.
    #[error("the server does not speak TLS: give the health check the same --web.config.file as the server")]
    NoTls,
    /// There is no TLS to be had.
    #[error(transparent)]
    Tls(#[from] Error),
    /// It is not healthy, or something else answers.
    #[error("unexpected response {0:?}")]
    Unexpected(String),
    /// What of it is wrong at which address.
    #[error("{address}: {error}")]
    At {
        /// The address.
        address: String,
        /// What is wrong.
        error: Box<HealthcheckError>,
    },
}

/// Asks the streamlag that listens on the first configured address.
///
/// # Errors
/// What is wrong, in one line.
pub fn healthcheck(config: &Config) -> Result<(), HealthcheckError> {
    let address = config.listen.first().map_or("", String::as_str);
    // Listening on every address includes the loopback one.
    let address = address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:");
    ask(&address, config.web.tls.is_some()).map_err(|error| HealthcheckError::At { address, error: Box::new(error) })
}

fn ask(address: &str, tls: bool) -> Result<(), HealthcheckError> {
    let resolved = address.to_socket_addrs()?.next().ok_or(HealthcheckError::NoAddress)?;
    let mut connection = TcpStream::connect_timeout(&resolved, HEALTHCHECK_TIMEOUT)?;
    connection.set_read_timeout(Some(HEALTHCHECK_TIMEOUT))?;
    if !tls {
        return ask_over(connection, address).map_err(|error| match error {
            HealthcheckError::Io(error)
                if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&error.kind()) =>
            {
                HealthcheckError::NoResponse(error)
            }
            other => other,
        });
    }
    let mut session = session(ServerName::from(resolved.ip()))?;
    ask_over(Stream::new(&mut session, &mut connection), address).map_err(|error| {
        let inner = match &error {
            HealthcheckError::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()),
            _ => None,
        };
        if matches!(inner, Some(Error::InvalidMessage(_))) { HealthcheckError::NoTls } else { error }
    })
}

fn ask_over(mut stream: impl Read + Write, address: &str) -> Result<(), HealthcheckError> {
    let request = format!("GET /-/healthy HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; "HTTP/1.1 200 ".len()];
    stream.read_exact(&mut status)?;
    match &status {
        b"HTTP/1.1 200 " => Ok(()),
        [TLS_ALERT, ..] => Err(HealthcheckError::ExpectsTls),
        other => Err(HealthcheckError::Unexpected(String::from_utf8_lossy(other).into_owned())),
    }
}

fn session(name: ServerName<'static>) -> Result<ClientConnection, Error> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), name)
}

/// Takes any certificate. The question is whether this machine's streamlag is alive, its certificate is hardly for the
/// loopback address, and nothing is told to it that is worth anything.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
