use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection, SignatureScheme};

use super::*;

/// A certificate with its key, and the certificate's PEM.
struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
}

impl Identity {
    fn new(params: &CertificateParams, issuer: Option<&Issuer<'_, KeyPair>>) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { certificate: certificate.der().clone(), key, pem: certificate.pem() }
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

fn named(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = named(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let Identity { key, pem, .. } = Identity::new(&params, None);
    (Issuer::new(params, key), pem)
}

/// Settings as a file without further keys gives them.
fn settings(server: &Identity) -> TlsSettings {
    TlsSettings {
        certificates: server.pem.clone().into_bytes(),
        key: server.key.serialize_pem().into_bytes(),
        client_ca: None,
        client_auth: ClientAuth::None,
        client_allowed_sans: None,
        versions: vec![&TLS12, &TLS13],
        cipher_suites: cipher_suites().into_iter().map(|(_, suite)| suite).collect(),
        curves: CURVES.map(|(_, group)| group).to_vec(),
        prefer_server_cipher_suites: true,
        http2: true,
    }
}

fn server() -> Identity {
    Identity::new(&named(&["localhost"]), None)
}

/// What a client can do, and whom it trusts.
struct TestClient {
    provider: CryptoProvider,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    trusted: CertificateDer<'static>,
}

impl TestClient {
    fn of(server: &Identity) -> Self {
        Self {
            provider: ring::default_provider(),
            versions: vec![&TLS12, &TLS13],
            alpn: Vec::new(),
            trusted: server.certificate.clone(),
        }
    }

    fn config(&self, certificate: Option<Arc<dyn ResolvesClientCert>>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            Some(certificate) => builder.with_client_cert_resolver(certificate),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.clone();
        Arc::new(config)
    }
}

/// Sends one certificate, whether or not the server asks for it.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl Presents {
    /// The certificate of one and the key of another, which an honest client would have from the same.
    fn both(certificate: &Identity, key: &Identity) -> Option<Arc<dyn ResolvesClientCert>> {
        let key = ring::sign::any_supported_type(&key.key_der()).unwrap();
        Some(Arc::new(Self(Arc::new(CertifiedKey::new(vec![certificate.certificate.clone()], key)))))
    }
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Both ends of a connection whose handshake went well.
fn connect(tls: &ServerTls, client: Arc<ClientConfig>) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut server = ServerConnection::new(Arc::clone(&tls.config)).unwrap();
    let mut client = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        let mut unread = to_server.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        to_server.clear();
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        let mut unread = to_client.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
        to_client.clear();
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The connection stands, and the server has a certificate of the client.
    Certificate,
    /// The connection stands, and the server has none.
    Nothing,
    /// The handshake failed.
    Failed,
}

/// What a server sees of a client, over either version of TLS.
fn seen(settings: &TlsSettings, server: &Identity, certificate: Option<Arc<dyn ResolvesClientCert>>) -> Seen {
    let tls = ServerTls::new(settings).unwrap();
    let [a, b] = BOTH.map(|version| {
        let client = TestClient { versions: vec![version], ..TestClient::of(server) };
        match connect(&tls, client.config(certificate.clone())) {
            Ok((_, server)) if server.peer_certificates().is_some_and(|chain| !chain.is_empty()) => Seen::Certificate,
            Ok(_) => Seen::Nothing,
            Err(_) => Seen::Failed,
        }
    });
    assert_eq!(a, b, "TLS 1.2 and 1.3 differ");
    a
}

#[test]
fn every_client_auth_type_and_every_certificate() {
    use ClientAuth::{None as NotAsked, Request, RequireAndVerify, RequireAny, VerifyIfGiven};
    use Seen::{Certificate, Failed, Nothing};
    let server = server();
    let (issuer, ca) = authority();
    let (stranger, _) = authority();
    let trusted = Identity::new(&named(&["prometheus.example"]), Some(&issuer));
    let misnamed = Identity::new(&named(&["other.example"]), Some(&issuer));
    let untrusted = Identity::new(&named(&["prometheus.example"]), Some(&stranger));
    let mut params = named(&["prometheus.example"]);
    params.not_after = date_time_ymd(2020, 1, 1);
    let expired = Identity::new(&params, Some(&issuer));
    let mut params = named(&["prometheus.example"]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let for_servers = Identity::new(&params, Some(&issuer));

    let check = |client_auth: ClientAuth, sans: Option<&str>, expected: [Seen; 6]| {
        let settings = TlsSettings {
            client_auth,
            client_ca: Some(ca.clone().into_bytes()),
            client_allowed_sans: sans.map(|name| vec!["first.example".to_owned(), name.to_owned()]),
            ..settings(&server)
        };
        let certificates =
            [None, Some(&trusted), Some(&misnamed), Some(&untrusted), Some(&expired), Some(&for_servers)];
        let found = certificates.map(|identity| {
            let certificate = identity.and_then(|identity| Presents::both(identity, identity));
            seen(&settings, &server, certificate)
        });
        assert_eq!(found, expected, "{client_auth:?} {sans:?}");
        assert_eq!(
            ServerTls::new(&settings).unwrap().needs_client_certificate,
            [RequireAny, RequireAndVerify].contains(&client_auth)
        );
    };
    // None, trusted, with another name, untrusted, expired, not for clients.
    check(NotAsked, None, [Nothing; 6]);
    check(Request, None, [Nothing, Certificate, Certificate, Certificate, Certificate, Certificate]);
    check(RequireAny, None, [Nothing, Certificate, Certificate, Certificate, Certificate, Certificate]);
    check(VerifyIfGiven, None, [Nothing, Certificate, Certificate, Failed, Failed, Failed]);
    check(RequireAndVerify, None, [Nothing, Certificate, Certificate, Failed, Failed, Failed]);
    let name = Some("prometheus.example");
    let without_ca = TlsSettings { client_auth: VerifyIfGiven, ..settings(&server) };
    assert_eq!(seen(&without_ca, &server, None), Nothing);
    assert_eq!(
        seen(&without_ca, &server, Presents::both(&trusted, &trusted)),
        Failed,
        "the system does not know the CA"
    );
    check(RequireAny, name, [Nothing, Certificate, Failed, Certificate, Certificate, Certificate]);
    check(RequireAndVerify, name, [Nothing, Certificate, Failed, Failed, Failed, Failed]);
}

#[test]
fn a_certificate_without_its_key_is_of_no_use() {
    let server = server();
    let (issuer, ca) = authority();
    let trusted = Identity::new(&named(&["a"]), Some(&issuer));
    let thief = Identity::new(&named(&["a"]), None);
    for client_auth in
        [ClientAuth::Request, ClientAuth::RequireAny, ClientAuth::VerifyIfGiven, ClientAuth::RequireAndVerify]
    {
        let pem = trusted.pem.clone() + &ca;
        let settings = TlsSettings { client_auth, client_ca: Some(pem.into_bytes()), ..settings(&server) };
        assert_eq!(seen(&settings, &server, Presents::both(&trusted, &thief)), Seen::Failed, "{client_auth:?}");
        assert_eq!(seen(&settings, &server, Presents::both(&trusted, &trusted)), Seen::Certificate, "{client_auth:?}");
    }
}

#[test]
fn a_certificate_may_be_trusted_itself() {
    let server = server();
    let check = |change: &dyn Fn(&mut CertificateParams), expected| {
        let mut params = named(&["a"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut params);
        let identity = Identity::new(&params, None);
        let settings = TlsSettings {
            client_auth: ClientAuth::RequireAndVerify,
            client_ca: Some(identity.pem.clone().into_bytes()),
            client_allowed_sans: Some(vec!["a".to_owned()]),
            ..settings(&server)
        };
        assert_eq!(seen(&settings, &server, Presents::both(&identity, &identity)), expected);
    };
    check(&|_| {}, Seen::Certificate);
    check(&|params| params.is_ca = IsCa::NoCa, Seen::Certificate);
    check(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], Seen::Certificate);
    check(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], Seen::Failed);
    check(&|params| params.not_after = date_time_ymd(2020, 1, 1), Seen::Failed);
    check(&|params| params.not_before = date_time_ymd(2999, 1, 1), Seen::Failed);
    check(&|params| params.subject_alt_names = named(&["b"]).subject_alt_names, Seen::Failed);
}

#[test]
fn names_match_to_the_letter() {
    let server = server();
    let mut params = named(&["dns.example", "*.wild.example"]);
    params.subject_alt_names.extend([
        SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
        SanType::IpAddress([192, 0, 2, 7].into()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
        SanType::URI("spiffe://example/prometheus".try_into().unwrap()),
    ]);
    let client = Identity::new(&params, None);
    let check = |name: &str, expected| {
        let settings = TlsSettings {
            client_auth: ClientAuth::RequireAny,
            client_allowed_sans: Some(vec![name.to_owned()]),
            ..settings(&server)
        };
        assert_eq!(seen(&settings, &server, Presents::both(&client, &client)), expected, "{name}");
    };
    let names = "dns.example *.wild.example ops@example.com 192.0.2.7 2001:db8::7 spiffe://example/prometheus";
    for name in names.split(' ') {
        check(name, Seen::Certificate);
    }
    for name in ["", "DNS.example", "dns.example.", "a.wild.example", "example", "192.0.2.70", "spiffe://example/"] {
        check(name, Seen::Failed);
    }
}

#[test]
fn versions_suites_and_groups_are_kept_to() {
    let server = server();
    let suite = |name: &str| cipher_suites().into_iter().find(|(known, _)| known == name).unwrap().1;
    let small = suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    let large = suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
    let connect = |settings: &TlsSettings, client: &TestClient| {
        let (_, server) = connect(&ServerTls::new(settings).unwrap(), client.config(None)).ok()?;
        let group = server.negotiated_key_exchange_group()?.name();
        Some((server.protocol_version()?, server.negotiated_cipher_suite()?, group))
    };
    let default = connect(&settings(&server), &TestClient::of(&server)).unwrap();
    assert_eq!(default.0, TLS13.version);

    let only_13 = TlsSettings { versions: vec![&TLS13], ..settings(&server) };
    let only_12 = TlsSettings { versions: vec![&TLS12], ..settings(&server) };
    let old = TestClient { versions: vec![&TLS12], ..TestClient::of(&server) };
    assert_eq!(connect(&only_13, &old), None);
    assert_eq!(connect(&only_12, &TestClient::of(&server)).unwrap().0, TLS12.version);

    let with = |cipher_suites: &[SupportedCipherSuite]| CryptoProvider {
        cipher_suites: cipher_suites.to_vec(),
        ..ring::default_provider()
    };
    let client = |suites: &[SupportedCipherSuite]| TestClient {
        provider: with(suites),
        versions: vec![&TLS12],
        ..TestClient::of(&server)
    };
    let prefers = |suites: &[SupportedCipherSuite], prefer_server_cipher_suites| TlsSettings {
        cipher_suites: suites.to_vec(),
        versions: vec![&TLS12],
        prefer_server_cipher_suites,
        ..settings(&server)
    };
    assert_eq!(connect(&prefers(&[small], true), &client(&[large])), None);
    assert_eq!(connect(&prefers(&[small, large], true), &client(&[large, small])).unwrap().1, small);
    assert_eq!(connect(&prefers(&[small, large], false), &client(&[large, small])).unwrap().1, large);

    let [_, p256, p384] = CURVES.map(|(_, group)| group);
    let narrow = TlsSettings { curves: vec![p384], ..settings(&server) };
    assert_eq!(connect(&narrow, &TestClient::of(&server)).unwrap().2, p384.name());
    let provider = CryptoProvider { kx_groups: vec![p256], ..ring::default_provider() };
    assert_eq!(connect(&narrow, &TestClient { provider, ..TestClient::of(&server) }), None);
}

#[test]
fn http2_is_offered_where_it_is_wanted() {
    let server = server();
    let check = |http2: bool, offered: &[&str], expected: Option<&str>| {
        let tls = ServerTls::new(&TlsSettings { http2, ..settings(&server) }).unwrap();
        let alpn = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connected = connect(&tls, TestClient { alpn, ..TestClient::of(&server) }.config(None));
        let (_, server) = connected.unwrap();
        assert_eq!(server.alpn_protocol(), expected.map(str::as_bytes), "{http2} {offered:?}");
    };
    check(true, &["h2", "http/1.1"], Some("h2"));
    check(true, &["http/1.1"], Some("http/1.1"));
    check(false, &["h2", "http/1.1"], Some("http/1.1"));
    check(true, &[], None);
    check(false, &[], None);
}

#[test]
fn no_session_is_taken_up_again() {
    let server = server();
    let (issuer, ca) = authority();
    let client = Identity::new(&named(&["a"]), Some(&issuer));
    for client_auth in [ClientAuth::None, ClientAuth::RequireAndVerify] {
        let settings = TlsSettings { client_auth, client_ca: Some(ca.clone().into_bytes()), ..settings(&server) };
        let tls = ServerTls::new(&settings).unwrap();
        for version in BOTH {
            let config = TestClient { versions: vec![version], ..TestClient::of(&server) };
            // It would take up the session that it has from the first connection.
            let config = config.config(Presents::both(&client, &client));
            for _ in 0..2 {
                let (_, server) = connect(&tls, Arc::clone(&config)).unwrap();
                assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "{client_auth:?} {version:?}");
            }
        }
    }
}

#[test]
fn what_is_of_no_use_is_named_and_keys_are_not_repeated() {
    let server = server();
    let good = || settings(&server);
    let check = |settings: TlsSettings, expected: &str| {
        let problem = ServerTls::new(&settings).unwrap_err().to_string();
        assert!(problem.starts_with(expected) && !problem.contains('\n'), "{problem:?} lacks {expected:?}");
        let key = server.key.serialize_pem();
        let secret = key.lines().nth(1).unwrap();
        assert!(!problem.contains(&secret[..16]), "{problem:?} holds a piece of the key");
    };
    let key = || server.key.serialize_pem();
    let takes_certificates = "cert: expected one or more certificates in PEM";
    check(TlsSettings { certificates: Vec::new(), ..good() }, takes_certificates);
    check(TlsSettings { certificates: key().into_bytes(), ..good() }, takes_certificates);
    check(TlsSettings { certificates: server.pem[..100].into(), ..good() }, takes_certificates);
    let junk = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").into_bytes();
    check(TlsSettings { certificates: junk("CERTIFICATE"), ..good() }, "cert and key: they are not of use together");
    let takes_key = "key: expected a private key in PEM that is not encrypted";
    check(TlsSettings { key: server.pem.clone().into_bytes(), ..good() }, takes_key);
    check(TlsSettings { key: key().replace("PRIVATE", "ENCRYPTED PRIVATE").into_bytes(), ..good() }, takes_key);
    check(TlsSettings { key: key()[..80].into(), ..good() }, takes_key);
    check(TlsSettings { key: key().replace("-----BEGIN", "-----BEGIN-").into_bytes(), ..good() }, takes_key);
    check(TlsSettings { key: junk("PRIVATE KEY"), ..good() }, "cert and key: they are not of use together");
    let other = KeyPair::generate().unwrap().serialize_pem().into_bytes();
    check(TlsSettings { key: other, ..good() }, "cert and key: they are not of use together");
    let asks = |client_ca: Vec<u8>| TlsSettings {
        client_auth: ClientAuth::RequireAndVerify,
        client_ca: Some(client_ca),
        ..good()
    };
    check(asks(Vec::new()), "client_ca: expected one or more certificates in PEM");
    check(asks(junk("CERTIFICATE")), "client_ca: expected X.509 certificates of version 3");
    let no_suites = TlsSettings {
        versions: vec![&TLS12],
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..good()
    };
    check(no_suites, "cipher_suites: they do not go with the versions");
    assert_eq!(format!("{:?}", ServerTls::new(&good()).unwrap()), "Tls { needs_client_certificate: false, .. }");
}
