//! Which certificates clients may present.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::oid::db::rfc5280::{ANY_EXTENDED_KEY_USAGE, ID_KP_CLIENT_AUTH};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};

use crate::http::tls::{ClientAuth, ServerTlsError, TlsSettings, certificates};

/// The check of clients' certificates.
///
/// In every case the client proves in the handshake that it has the certificate's key.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    issuer: Issuer,
    allowed_sans: Option<Vec<String>>,
    /// The issuers that a client with several certificates may choose by.
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Who must have issued a certificate.
#[derive(Debug)]
enum Issuer {
    Anybody,
    /// No issuer is trusted: the settings name none, and the system has none.
    Nobody,
    Trusted {
        verifier: Arc<dyn ClientCertVerifier>,
        /// The trusted certificates themselves. webpki does not take one that is marked as a CA for a client's, yet
        /// that is what `openssl req -x509` makes; Go takes it.
        trusted: Vec<CertificateDer<'static>>,
    },
}

impl Issuer {
    fn one_of(trusted: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, ServerTlsError> {
        if trusted.is_empty() {
            return Ok(Self::Nobody);
        }
        let roots = Arc::new(roots(&trusted)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
        Ok(Self::Trusted { verifier: verifier.map_err(ServerTlsError::Verifier)?, trusted })
    }
}

impl ClientVerifier {
    /// The check that the settings want, if any.
    pub(super) fn new(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Option<Self>, ServerTlsError> {
        if settings.client_auth == ClientAuth::None {
            return Ok(None);
        }
        let trusted = settings.client_ca.as_ref().map(|pem| certificates("client_ca", pem)).transpose()?;
        let hints = trusted.as_deref().map(roots).transpose()?.map(|roots| roots.subjects()).unwrap_or_default();
        let issuer = match settings.client_auth {
            ClientAuth::None | ClientAuth::Request | ClientAuth::RequireAny => Issuer::Anybody,
            ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify => {
                Issuer::one_of(trusted.unwrap_or_else(system), provider)?
            }
        };
        let algorithms = provider.signature_verification_algorithms;
        Ok(Some(Self { issuer, allowed_sans: settings.client_allowed_sans.clone(), hints, algorithms }))
    }
}

fn roots(trusted: &[CertificateDer<'static>]) -> Result<RootCertStore, ServerTlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).map_err(ServerTlsError::ClientCa)?;
    }
    Ok(roots)
}

/// The certificates that the system trusts, as Go takes them where none are named. Those it cannot read are left out.
fn system() -> Vec<CertificateDer<'static>> {
    let mut certificates = rustls_native_certs::load_native_certs().certs;
    certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    certificates
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        // The request decides, by the path: see `ServerTls::needs_client_certificate`.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.issuer {
            Issuer::Anybody => {}
            Issuer::Nobody => return Err(CertificateError::UnknownIssuer.into()),
            Issuer::Trusted { trusted, .. } if trusted.contains(end_entity) => {
                usable_by_client(&parsed(end_entity)?, now)?;
            }
            Issuer::Trusted { verifier, .. } => {
                verifier.verify_client_cert(end_entity, intermediates, now)?;
            }
        }
        if let Some(allowed) = &self.allowed_sans
            && !names(&parsed(end_entity)?).iter().any(|name| allowed.contains(name))
        {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parsed(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// What remains to be checked of a certificate that is trusted itself: when, and what for.
fn usable_by_client(certificate: &Certificate, now: UnixTime) -> Result<(), CertificateError> {
    let certificate = certificate.tbs_certificate();
    let validity = certificate.validity();
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet);
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired);
    }
    match certificate.get_extension::<ExtendedKeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, usage)))
            if usage.0.iter().any(|&oid| oid == ID_KP_CLIENT_AUTH || oid == ANY_EXTENDED_KEY_USAGE) =>
        {
            Ok(())
        }
        Ok(Some(_)) => Err(CertificateError::InvalidPurpose),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

/// The alternative names of a certificate, of the four kinds that the exporter-toolkit knows, written as it does.
fn names(certificate: &Certificate) -> Vec<String> {
    let Ok(Some((_, names))) = certificate.tbs_certificate().get_extension::<SubjectAltName>() else {
        return Vec::new();
    };
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => {
            Some(name.to_string())
        }
        GeneralName::IpAddress(octets) => address(octets.as_bytes()).map(|address| address.to_string()),
        _ => None,
    };
    names.0.iter().filter_map(text).collect()
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).to_canonical());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::default_provider;

    use super::*;

    #[test]
    fn where_nobody_is_trusted_no_certificate_is_accepted() {
        let provider = Arc::new(default_provider());
        let issuer = Issuer::one_of(Vec::new(), &provider).unwrap();
        let algorithms = provider.signature_verification_algorithms;
        let clients = ClientVerifier { issuer, allowed_sans: None, hints: Vec::new(), algorithms };
        let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap().cert.der().clone();
        let refused = clients.verify_client_cert(&certificate, &[], UnixTime::now()).unwrap_err();
        assert_eq!(refused, CertificateError::UnknownIssuer.into());
    }
}
