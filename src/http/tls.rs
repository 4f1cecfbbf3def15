//! TLS: from checked settings to what connections are accepted with.

mod clients;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use clients::ClientVerifier;

/// How connections are secured.
#[derive(Clone)]
pub struct ServerTls {
    /// What a connection is accepted with. It holds everything that a handshake depends on, so connections that are open
    /// when another takes its place go on as they began.
    pub config: Arc<ServerConfig>,
    /// Whether a client must have presented a certificate to be answered.
    ///
    /// The handshake itself never insists, so that the health paths stay open to probes that have none; the handler
    /// must. A certificate that is presented and not acceptable fails the handshake.
    pub needs_client_certificate: bool,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("needs_client_certificate", &self.needs_client_certificate).finish_non_exhaustive()
    }
}

/// What TLS is to be like.
pub struct TlsSettings {
    /// The server's certificate and those between it and its root, PEM.
    pub certificates: Vec<u8>,
    /// The certificate's key, PEM.
    pub key: Vec<u8>,
    /// Whose certificates clients may present, PEM.
    pub client_ca: Option<Vec<u8>>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Names of which a client's certificate must hold one.
    pub client_allowed_sans: Option<Vec<String>>,
    /// The versions of TLS.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// The cipher suites, the best first.
    pub cipher_suites: Vec<SupportedCipherSuite>,
    /// The groups for the key exchange, the best first.
    pub curves: Vec<&'static dyn SupportedKxGroup>,
    /// Whether this order of cipher suites counts, rather than the client's.
    pub prefer_server_cipher_suites: bool,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
}

/// The key of the web configuration that is wrong, and what is expected. Nothing of a private key is repeated.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    /// No suite is of the versions.
    #[error("cipher_suites: they do not go with the versions of TLS ({0})")]
    CipherSuites(rustls::Error),
    /// The key is another certificate's.
    #[error("cert and key: they are not of use together ({0})")]
    CertificateAndKey(rustls::Error),
    /// What the parser says could hold a line of a private key that is there too.
    #[error("{0}: expected one or more certificates in PEM")]
    Certificates(&'static str),
    /// There is no key, or it is encrypted.
    #[error("key: expected a private key in PEM that is not encrypted")]
    Key,
    /// Clients cannot be verified.
    #[error("client_ca: expected certificates to verify with ({0})")]
    Verifier(VerifierBuilderError),
    /// What cannot be trusted.
    #[error("client_ca: expected X.509 certificates of version 3 ({0})")]
    ClientCa(rustls::Error),
}

/// What is asked of clients, as in Go's `crypto/tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// A certificate of any issuer, if they have one.
    Request,
    /// A certificate of any issuer.
    RequireAny,
    /// A certificate that can be verified, if they have one.
    VerifyIfGiven,
    /// A certificate that can be verified.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether a client must have a certificate.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, Self::RequireAny | Self::RequireAndVerify)
    }
}

/// Every cipher suite there is, the best first, by the name that Go has for it.
#[must_use]
pub fn cipher_suites() -> Vec<(String, SupportedCipherSuite)> {
    let name = |suite: &SupportedCipherSuite| {
        // Those of TLS 1.3 have no prefix of their own in Go.
        suite.suite().as_str().unwrap_or_default().replacen("TLS13_", "TLS_", 1)
    };
    ring::ALL_CIPHER_SUITES.iter().map(|suite| (name(suite), *suite)).collect()
}

/// Every group for the key exchange that there is, the best first, by the name that Go has for it.
pub const CURVES: [(&str, &'static dyn SupportedKxGroup); 3] = [
    ("X25519", ring::kx_group::X25519),
    ("CurveP256", ring::kx_group::SECP256R1),
    ("CurveP384", ring::kx_group::SECP384R1),
];

impl ServerTls {
    /// Puts the settings to use.
    ///
    /// # Errors
    /// The key of the web configuration that is wrong.
    pub fn new(settings: &TlsSettings) -> Result<Self, ServerTlsError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: settings.cipher_suites.clone(),
            kx_groups: settings.curves.clone(),
            ..ring::default_provider()
        });
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&settings.versions)
            .map_err(ServerTlsError::CipherSuites)?;
        let builder = match ClientVerifier::new(settings, &provider)? {
            Some(clients) => builder.with_client_cert_verifier(Arc::new(clients)),
            None => builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth()),
        };
        let mut config = builder
            .with_single_cert(certificates("cert", &settings.certificates)?, key(&settings.key)?)
            .map_err(ServerTlsError::CertificateAndKey)?;
        config.ignore_client_order = settings.prefer_server_cipher_suites;
        config.alpn_protocols =
            if settings.http2 { vec![b"h2".into(), b"http/1.1".into()] } else { vec![b"http/1.1".into()] };
        // No session is taken up again, so that every connection passes every check there is at that time: a certificate
        // that has expired, or a CA that is no longer trusted, cannot live on in a ticket. Scrapers keep their connection.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), needs_client_certificate: settings.client_auth.is_required() })
    }
}

/// The certificates of a PEM text, of which `name` is the key in the web configuration.
fn certificates(name: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ServerTlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ServerTlsError::Certificates(name)),
    }
}

fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, ServerTlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| ServerTlsError::Key)
}

#[cfg(test)]
mod tests;
