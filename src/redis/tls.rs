//! TLS to Redis. Certificates and keys are read again for each connection, so that those that were renewed are taken up
//! without a restart.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, Error, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::redis::verifier::Verifier;
use crate::sys::files::{self, FileError};

/// The share of the time until the deadline that a handshake may take.
const HANDSHAKE_SHARE: f64 = 0.8;

/// The error where it takes longer.
const NO_HANDSHAKE: &str =
    "TLS handshake timed out: the server may not speak TLS at this port; use its TLS port, or a redis:// URL";

/// The files that TLS takes, all of them PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that may vouch for the server; without it, those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with those between it and its CA, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What a problem is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPart {
    /// The file of CA certificates.
    Ca,
    /// What the system trusts, in place of that file.
    System,
    /// Our certificate.
    Certificate,
    /// Our key.
    Key,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct ClientTlsError {
    /// What it is with.
    pub part: TlsPart,
    /// What is expected instead.
    pub why: TlsPartError,
}

/// What is expected of a file, or of the system in its place.
#[derive(Debug, thiserror::Error)]
pub enum TlsPartError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is PEM, and holds no certificate.
    #[error("expected a PEM file with {0} in it; this one holds none")]
    NoCertificate(&'static str),
    /// It is no PEM.
    #[error("expected a PEM file with {0} in it ({1})")]
    Pem(&'static str, rustls::pki_types::pem::Error),
    /// It holds no private key.
    #[error("expected a PEM file with a private key in it, not encrypted")]
    NoKey,
    /// It is the key of another certificate.
    #[error("expected the key of the certificate; this is that of another")]
    OtherKey,
    /// It is a key that cannot be used.
    #[error("expected a key that can be used ({0})")]
    Key(Error),
    /// It is a certificate that cannot be used.
    #[error("expected a certificate that can be read ({0})")]
    Certificate(Error),
    /// They are certificates of CAs that cannot be used.
    #[error("expected CA certificates that can be read ({0})")]
    Ca(Error),
    /// There are no certificates of CAs.
    #[error("this system trusts no certificates")]
    NoTrust,
    /// There is no protocol to be had.
    #[error(transparent)]
    Protocol(#[from] Error),
    /// There is nothing to verify certificates with.
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
}

/// TLS to one server.
#[derive(Clone)]
pub struct ClientTls {
    files: TlsFiles,
    server_name: ServerName<'static>,
    /// Whether that name is for every server, with any host.
    pinned: bool,
    /// As it was read last.
    config: Arc<ClientConfig>,
    /// Whether the log has said that the files cannot be read.
    said: bool,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, server_name, pinned: _, config: _, said: _ } = self;
        f.debug_struct("Tls").field("files", files).field("server_name", server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    pub(crate) fn same_target(&self, other: &Self) -> bool {
        self.files == other.files && self.server_name == other.server_name && self.pinned == other.pinned
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn new(files: TlsFiles, server_name: ServerName<'static>) -> Result<Self, ClientTlsError> {
        let config = Arc::new(read(&files)?);
        Ok(Self { files, server_name, pinned: false, config, said: false })
    }

    /// The same, with one name for every server: the certificate of each must be for it.
    #[must_use]
    pub fn pinned(self) -> Self {
        Self { pinned: true, ..self }
    }

    /// The files that it takes.
    #[must_use]
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Whether every server must have a certificate for one name, whatever its host.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// TLS to another server that the same certificates vouch for: its own certificate must be for its host, where nothing
    /// else was asked for.
    pub(crate) fn for_host(&self, host: &str) -> Self {
        let name = ServerName::try_from(host.to_owned()).ok().filter(|_| !self.pinned);
        Self { server_name: name.unwrap_or_else(|| self.server_name.clone()), ..self.clone() }
    }

    /// Encrypts a stream, and verifies its peer.
    ///
    /// A server that does not speak TLS may wait for more, and say nothing: the handshake may take [`HANDSHAKE_SHARE`] of the time that is
    /// left, so that the error can say what it waited for.
    pub(crate) async fn wrap(&mut self, stream: TcpStream, deadline: Instant) -> std::io::Result<TlsStream<TcpStream>> {
        self.renew();
        let now = Instant::now();
        let end = now + deadline.saturating_duration_since(now).mul_f64(HANDSHAKE_SHARE);
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(self.server_name.clone(), stream);
        timeout_at(end, handshake).await.unwrap_or_else(|_| Err(std::io::Error::new(ErrorKind::TimedOut, NO_HANDSHAKE)))
    }

    /// Whether we have a certificate to show.
    pub(super) fn has_identity(&self) -> bool {
        self.files.identity.is_some()
    }

    /// Reads the files again. Where that fails, what was read last stands: it may be good still, and a certificate whose key
    /// is still to be written is no reason to stop.
    fn renew(&mut self) {
        match read(&self.files) {
            Ok(config) => {
                self.config = Arc::new(config);
                if std::mem::take(&mut self.said) {
                    tracing::info!("Redis TLS files loaded again");
                }
            }
            Err(problem) if !self.said => {
                self.said = true;
                let file = self.files.of(problem.part).display();
                tracing::warn!(%file, error = %problem, "cannot load a Redis TLS file; using the last good ones");
            }
            Err(_) => {}
        }
    }
}

impl TlsFiles {
    fn of(&self, part: TlsPart) -> &Path {
        let identity = self.identity.as_ref();
        let file = match part {
            TlsPart::Ca | TlsPart::System => self.ca.as_deref(),
            TlsPart::Certificate => identity.map(|(certificate, _)| certificate.as_path()),
            TlsPart::Key => identity.map(|(_, key)| key.as_path()),
        };
        file.unwrap_or(Path::new(""))
    }
}

fn read(files: &TlsFiles) -> Result<ClientConfig, ClientTlsError> {
    let system = |why| ClientTlsError { part: TlsPart::System, why };
    let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| system(error.into()))?;
    let (roots, trusted) = roots(files.ca.as_deref())?;
    let provider = Arc::new(ring::default_provider());
    let by_ca = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let by_ca = by_ca.map_err(|error| system(error.into()))?;
    let builder = versions.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { by_ca, trusted }));
    let Some((certificate, key)) = &files.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let of_certificate = |why| ClientTlsError { part: TlsPart::Certificate, why };
    let of_key = |why| ClientTlsError { part: TlsPart::Key, why };
    let chain = certificates(certificate, "its certificate").map_err(of_certificate)?;
    let pem = files::read(key).map_err(|error| of_key(error.into()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| of_key(TlsPartError::NoKey))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => of_key(TlsPartError::OtherKey),
        Error::InvalidCertificate(_) => of_certificate(TlsPartError::Certificate(error)),
        other => of_key(TlsPartError::Key(other)),
    })
}

/// The certificates of CAs, and those that are trusted as they are.
fn roots(file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), ClientTlsError> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        // Some that cannot be read are usual; none at all is a system without them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let none = || ClientTlsError { part: TlsPart::System, why: TlsPartError::NoTrust };
        return if roots.is_empty() { Err(none()) } else { Ok((roots, Vec::new())) };
    };
    let problem = |why| ClientTlsError { part: TlsPart::Ca, why };
    let trusted = certificates(file, "a CA certificate").map_err(problem)?;
    for certificate in &trusted {
        let added = roots.add(certificate.clone());
        added.map_err(|error| problem(TlsPartError::Ca(error)))?;
    }
    Ok((roots, trusted))
}

/// What broke a connection; where that was TLS, what to do about it.
pub(crate) fn described(error: &std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    tls.and_then(advice).map_or_else(|| error.to_string(), |advice| format!("TLS handshake failed: {error}; {advice}"))
}

fn advice(error: &Error) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError as Bad;
    Some(match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "the server's certificate has expired: renew it on the server",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: check the clock of this machine, and the certificate"
            }
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "connect by a name in the server's certificate, or set --redis.tls-server-name to one"
            }
            Bad::Revoked => "the server's certificate is revoked: replace it on the server",
            Bad::BadEncoding => "the server's certificate cannot be read",
            // Others name what is wrong with the first CA that was tried, and mean that none signed it.
            _ => {
                "unknown issuer: set --redis.tls-ca-file to the certificate of the CA that signed the server's, or to the server's own \
                 where it is self-signed"
            }
        },
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the server requires a client certificate: set --redis.tls-cert-file and --redis.tls-key-file"
        }
        Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::DecryptError
            | Alert::AccessDenied,
        ) => {
            "the server refused the client certificate: check --redis.tls-cert-file against the CA that the server trusts"
        }
        Error::AlertReceived(Alert::HandshakeFailure | Alert::ProtocolVersion) => {
            "the server and streamlag have no TLS version or cipher in common (TLS 1.2 and 1.3), or the server requires a client \
             certificate: see --redis.tls-cert-file"
        }
        Error::InvalidMessage(_) => "the server does not speak TLS at this port: use its TLS port, or a redis:// URL",
        _ => return None,
    })
}

fn certificates(file: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsPartError> {
    let pem = files::read(file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(TlsPartError::NoCertificate(what)),
        Err(error) => Err(TlsPartError::Pem(what, error)),
    }
}
