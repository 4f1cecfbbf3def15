//! Certificates as one makes them for Redis.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{Redis, free_port};

/// A CA, and a folder for what it signs.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two of one name would be tried for each other, and the complaint would be about a signature.
        params.distinguished_name.push(DnType::CommonName, format!("CA {}", dir.path().display()));
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn ca(&self) -> String {
        self.file("ca.pem")
    }

    /// Writes a certificate for a name, and its key; where they are.
    pub fn issue(&self, name: &str) -> [String; 2] {
        self.issue_for(&[name])
    }

    /// The same, for several.
    pub fn issue_for(&self, names: &[&str]) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let (certificate, name) = (params.signed_by(&key, &self.issuer).unwrap(), names.join("-"));
        let files = [self.file(&format!("{name}.crt")), self.file(&format!("{name}.key"))];
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }
}

/// A Redis with TLS at a port of its own, beside the plain one, and its URL.
pub fn redis_with_certificate([certificate, key]: &[String; 2], ca: &str, options: &[&str]) -> (Redis, String) {
    let port = free_port().to_string();
    let tls = ["--tls-port", &port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca];
    let redis = Redis::start_with(Path::new("redis-server"), &[&tls[..], options].concat());
    let url = redis.url().replace("redis://", "rediss://").replace(&redis.port.to_string(), &port);
    (redis, url)
}
