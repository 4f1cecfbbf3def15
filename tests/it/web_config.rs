//! The web configuration file with the real program: TLS, client certificates, basic auth, headers and reloads, seen by
//! curl and by a real Prometheus.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::common::prometheus::{Prometheus, prometheuses};
use crate::common::{PATIENCE, Redis, Streamlag, TOKEN, command, eventually, eventually_right, streamlag, value_of};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

const USER: &str = "prometheus:scrape-me-8c1d";

/// A directory with certificates and the web configuration file.
struct Web {
    dir: tempfile::TempDir,
}

impl Web {
    /// Two authorities, `ca` and `other`, with a server's and a client's certificate of each.
    fn new() -> Self {
        let web = Self { dir: tempfile::tempdir().unwrap() };
        for authority in ["ca", "other"] {
            let mut params = named(authority);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            web.write(&format!("{authority}.pem"), &params.self_signed(&key).unwrap().pem());
            let issuer = Issuer::new(params, key);
            for (name, san) in [("server", "localhost"), ("client", "prometheus.example")] {
                let params = named(san);
                let key = KeyPair::generate().unwrap();
                web.write(&format!("{authority}-{name}.crt"), &params.signed_by(&key, &issuer).unwrap().pem());
                web.write(&format!("{authority}-{name}.key"), &key.serialize_pem());
            }
        }
        web.install("ca");
        web
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Makes the certificate that this authority gave the server the one that the configuration names.
    fn install(&self, authority: &str) {
        for kind in ["crt", "key"] {
            fs::copy(self.path(&format!("{authority}-server.{kind}")), self.path(&format!("server.{kind}"))).unwrap();
        }
    }

    /// Writes the configuration: the certificate, what else is wanted of TLS, and other sections.
    fn configure(&self, tls: &str, rest: &str) {
        let section = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
        self.write("web.yml", &format!("{section}{tls}{rest}"));
    }

    fn start(&self, redis: &Redis) -> Streamlag {
        let streamlag = streamlag(&["--redis.url", &redis.url(), "--web.config.file", &self.path("web.yml")]);
        eventually_right(|| match self.curl(&streamlag, "/-/ready", &[]) {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("ready: {other:?}; {:?}", streamlag.log())),
        });
        streamlag
    }

    /// A request over TLS by curl, which trusts one authority: `ca`, or what the options say. What curl says is wrong, where
    /// there is no answer.
    fn curl(&self, streamlag: &Streamlag, path: &str, options: &[&str]) -> Result<Answer, String> {
        let port = streamlag.address.port();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--include", "--max-time", "30", "--noproxy", "*"])
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
        if !options.contains(&"--cacert") {
            curl.args(["--cacert", &self.path("ca.pem")]);
        }
        let output = curl.args(options).arg(format!("https://localhost:{port}{path}")).output();
        let output = output.unwrap_or_else(|error| panic!("curl ({error}): run 'make test', which installs it"));
        if output.status.success() {
            Ok(Answer::parse(&String::from_utf8(output.stdout).unwrap()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn status(&self, streamlag: &Streamlag, path: &str, options: &[&str]) -> u16 {
        self.curl(streamlag, path, options).unwrap().status
    }

    /// The options with which curl presents the client certificate of an authority.
    fn presenting(&self, authority: &str) -> [String; 4] {
        let path = |kind| self.path(&format!("{authority}-client.{kind}"));
        ["--cert".to_owned(), path("crt"), "--key".to_owned(), path("key")]
    }

    /// A connection that is kept, trusting `ca`.
    fn connect(&self, streamlag: &Streamlag) -> Kept {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(streamlag.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Kept(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket))
    }
}

/// A certificate's content. OpenSSL takes one whose subject is its issuer's for self-signed, so the subject is set too.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

struct Kept(StreamOwned<ClientConnection, TcpStream>);

impl Kept {
    /// Asks for the landing page; the status.
    fn status(&mut self) -> u16 {
        self.0.write_all(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let read = self.0.read(&mut piece).unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&head));
            head.extend_from_slice(&piece[..read]);
        }
        String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Asks for the health page; panics where the connection has gone.
    fn ask(&mut self) {
        self.0.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"streamlag is healthy\n") {
            let mut piece = [0; 1024];
            let read = self.0.read(&mut piece).unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

#[derive(Debug)]
struct Answer {
    version: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let (version, status) = lines.next().unwrap().split_once(' ').unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        Self {
            version: version.to_owned(),
            status: status[..3].parse().unwrap(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

fn users() -> String {
    let (name, password) = USER.split_once(':').unwrap();
    format!("basic_auth_users:\n  {name}: {}\n", bcrypt::hash(password, 5).unwrap())
}

const API: &str = "/api/v1/events/streams";

fn bearer() -> String {
    format!("Authorization: Bearer {TOKEN}")
}

#[test]
fn basic_auth_guards_metrics_and_nothing_else() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", &users());
    let streamlag = web.start(&redis);
    let check = |path: &str, options: &[&str], expected: u16| {
        assert_eq!(web.status(&streamlag, path, options), expected, "{path} {options:?}");
    };
    let refused = web.curl(&streamlag, "/metrics", &[]).unwrap();
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"), "{refused:?}");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(!refused.body.contains("streamlag_"), "{refused:?}");
    check("/metrics", &["-u", USER], 200);
    check("/metrics", &["-u", USER], 200);
    for wrong in ["prometheus:wrong", "prometheus:", "nobody:scrape-me-8c1d", ":"] {
        check("/metrics", &["-u", wrong], 401);
    }
    check("/metrics", &["-H", &bearer()], 401);
    check("/metrics", &["-u", USER], 200);
    for open in ["/-/healthy", "/-/ready", "/"] {
        check(open, &[], 200);
        check(open, &["-u", "prometheus:wrong"], 200);
    }
    check(API, &["-H", &bearer()], 200);
    check(API, &[], 401);
    let refused = web.curl(&streamlag, API, &["-u", USER]).unwrap();
    assert_eq!((refused.status, refused.header("www-authenticate").unwrap().split(' ').next()), (401, Some("Bearer")));
    check("/nowhere", &[], 404);

    web.configure("", &users().replace("prometheus:", "grafana:"));
    streamlag.signal("-HUP");
    let renamed = USER.replace("prometheus", "grafana");
    eventually("the other user gets in", || {
        (web.status(&streamlag, "/metrics", &["-u", &renamed]) == 200).then_some(())
    });
    check("/metrics", &["-u", USER], 401);
    assert!(!streamlag.log_lines("msg=\"login failed\" peer=127.0.0.1 path=/metrics kind=password").is_empty());
    let log = streamlag.log().join("\n");
    assert!(!log.contains("scrape-me") && !log.contains("$2b$") && !log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn http2_is_spoken_over_tls_unless_it_is_turned_off() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", "");
    let streamlag = web.start(&redis);
    let version = |streamlag: &Streamlag, option: &str| web.curl(streamlag, "/metrics", &[option]).unwrap().version;
    assert_eq!(version(&streamlag, "--http2"), "HTTP/2");
    assert_eq!(version(&streamlag, "--http1.1"), "HTTP/1.1");
    for version in ["1.2", "1.3"] {
        let answer = web.curl(&streamlag, "/-/healthy", &["--tls-max", version]).unwrap();
        assert_eq!((answer.status, answer.version.as_str()), (200, "HTTP/2"), "TLS {version}");
    }
    // Whoever speaks plain HTTP is not answered.
    let plain = Command::new("curl").args(["-s", &format!("http://{}/metrics", streamlag.address)]).output().unwrap();
    assert!(!plain.status.success() && !String::from_utf8_lossy(&plain.stdout).contains("streamlag_"));

    web.configure("  min_version: TLS13\n", "http_server_config:\n  http2: false\n");
    let streamlag = web.start(&redis);
    assert_eq!(version(&streamlag, "--http2"), "HTTP/1.1");
    assert!(web.curl(&streamlag, "/-/healthy", &["--tls-max", "1.2"]).is_err());
}

#[test]
fn headers_are_on_every_answer() {
    let (redis, web) = (Redis::start(), Web::new());
    let headers = "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=60\n    X-Frame-Options: deny\n    \
                   X-Content-Type-Options: nosniff\n    Content-Security-Policy: \"default-src 'none'; sandbox\"\n";
    web.configure("", &(headers.to_owned() + &users()));
    let streamlag = web.start(&redis);
    for (path, status) in [("/-/healthy", 200), ("/", 200), ("/metrics", 401), (API, 401), ("/nowhere", 404)] {
        let answer = web.curl(&streamlag, path, &[]).unwrap();
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in [
            ("strict-transport-security", "max-age=60"),
            ("x-frame-options", "deny"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
        ] {
            let values = answer.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
            assert_eq!(values.collect::<Vec<_>>(), [value], "{path} {name}");
        }
    }
}

#[test]
fn a_rate_limit_is_kept_and_leaves_health_alone() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", "rate_limit: {interval: 1h, burst: 3}\n");
    let streamlag = web.start(&redis);
    for _ in 0..3 {
        assert_eq!(web.status(&streamlag, "/metrics", &[]), 200);
    }
    let refused = web.curl(&streamlag, "/metrics", &[]).unwrap();
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert_eq!(web.status(&streamlag, "/-/healthy", &[]), 200);
}

#[test]
fn a_client_certificate_where_it_is_required() {
    let (redis, web) = (Redis::start(), Web::new());
    let require = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n";
    web.configure(require, "");
    let streamlag = web.start(&redis);
    let with = |authority: &str, more: &[&str], path: &str| {
        let certificate = web.presenting(authority);
        let options: Vec<&str> = certificate.iter().map(String::as_str).chain(more.iter().copied()).collect();
        web.curl(&streamlag, path, &options)
    };
    for version in ["1.2", "1.3"] {
        for open in ["/-/healthy", "/-/ready"] {
            assert_eq!(web.status(&streamlag, open, &["--tls-max", version]), 200);
        }
        for closed in ["/", "/metrics", API, "/nowhere"] {
            let refused = web.curl(&streamlag, closed, &["--tls-max", version, "-H", &bearer()]).unwrap();
            assert_eq!(refused.status, 403, "{closed}");
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        }
        for (path, status) in [("/", 200), ("/metrics", 200), (API, 401), ("/nowhere", 404)] {
            assert_eq!(with("ca", &["--tls-max", version], path).unwrap().status, status, "{path}");
        }
        assert_eq!(with("ca", &["--tls-max", version, "-H", &bearer()], API).unwrap().status, 200);
        assert!(with("other", &["--tls-max", version], "/-/healthy").is_err(), "one that is not trusted fails");
    }

    let sans = "  client_allowed_sans: [grafana.example]\n";
    web.configure(&(require.to_owned() + sans), "");
    streamlag.signal("-HUP");
    eventually("the certificate has no allowed name", || with("ca", &[], "/metrics").is_err().then_some(()));
    web.configure(&(require.to_owned() + &sans.replace("grafana", "prometheus")), "");
    streamlag.signal("-HUP");
    eventually("it has one", || (with("ca", &[], "/metrics").ok()?.status == 200).then_some(()));
    // The image's health check has no certificate, and does not know whose the server's is.
    let address = streamlag.address.to_string();
    let file = web.path("web.yml");
    let arguments = ["--healthcheck", "--web.listen-address", &address, "--web.config.file", &file];
    let healthcheck = crate::common::command(&arguments, &[]).output().unwrap();
    assert!(healthcheck.status.success(), "{healthcheck:?}");
}

#[test]
fn head_is_answered_over_http2_as_it_is_over_http1() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", "");
    let streamlag = web.start(&redis);
    for version in ["--http2", "--http1.1"] {
        let head = web.curl(&streamlag, "/metrics", &[version, "--head"]).unwrap();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{version}");
        assert!(head.header("content-length").unwrap().parse::<u64>().unwrap() > 1000, "{version}");
    }
}

#[test]
fn who_came_before_certificates_were_required_needs_one_too() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", "");
    let streamlag = web.start(&redis);
    let mut kept = web.connect(&streamlag);
    assert_eq!(kept.status(), 200);
    web.configure("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n", "");
    streamlag.signal("-HUP");
    eventually("the new rule holds", || (kept.status() == 403).then_some(()));
}

#[test]
fn certificates_are_replaced_while_connections_stay() {
    let (redis, web) = (Redis::start(), Web::new());
    web.configure("", "");
    let mut streamlag = web.start(&redis);
    let mut kept = web.connect(&streamlag);
    kept.ask();
    let trusting = |streamlag: &Streamlag, authority: &str| {
        web.curl(streamlag, "/-/healthy", &["--cacert", &web.path(&format!("{authority}.pem"))]).is_ok()
    };
    assert!(trusting(&streamlag, "ca") && !trusting(&streamlag, "other"));
    let successful = |streamlag: &Streamlag, authority: &str| {
        let page = web.curl(streamlag, "/metrics", &["--cacert", &web.path(&format!("{authority}.pem"))]).ok()?.body;
        value_of(&page, "streamlag_config_last_reload_successful")
    };

    web.install("other");
    assert!(trusting(&streamlag, "ca"), "nothing changes without a signal");
    streamlag.signal("-HUP");
    eventually("new connections see the new certificate", || trusting(&streamlag, "other").then_some(()));
    assert!(!trusting(&streamlag, "ca"));
    kept.ask();
    eventually("the reload is seen", || (successful(&streamlag, "other")? == 1.0).then_some(()));

    for broken in
        ["tls_server_config: [\n", "tls_server_config:\n  cert_file: gone\n  key_file: server.key\n", "hello: 1\n"]
    {
        web.write("web.yml", broken);
        streamlag.signal("-HUP");
        eventually("the failure is seen", || (successful(&streamlag, "other")? == 0.0).then_some(()));
        assert!(trusting(&streamlag, "other") && streamlag.is_running(), "the old one goes on");
        kept.ask();
        web.configure("", "");
        streamlag.signal("-HUP");
        eventually("it is mended", || (successful(&streamlag, "other")? == 1.0).then_some(()));
    }
    // A certificate without its key is as broken.
    fs::copy(web.path("ca-server.crt"), web.path("server.crt")).unwrap();
    streamlag.signal("-HUP");
    eventually("the failure is seen", || (successful(&streamlag, "other")? == 0.0).then_some(()));
    kept.ask();
}

#[test]
fn prometheus_scrapes_with_a_client_certificate_and_a_password() {
    let (redis, web) = (Redis::start(), Web::new());
    let tls = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  \
               client_allowed_sans: [prometheus.example]\n";
    web.configure(tls, &users());
    let streamlag = web.start(&redis);
    let (name, password) = USER.split_once(':').unwrap();
    let job = |name: &str, certificate: bool, user: serde_json::Value| {
        let mut tls = json!({"ca_file": web.path("ca.pem"), "server_name": "localhost"});
        if certificate {
            tls["cert_file"] = web.path("ca-client.crt").into();
            tls["key_file"] = web.path("ca-client.key").into();
        }
        let targets = json!([{"targets": [streamlag.address.to_string()]}]);
        let mut job = json!({"job_name": name, "scheme": "https", "tls_config": tls, "static_configs": targets});
        if !user.is_null() {
            job["basic_auth"] = user;
        }
        job
    };
    let user = json!({"username": name, "password": password});
    let jobs = json!([
        job("both", true, user.clone()),
        job("no_certificate", false, user),
        job("no_password", true, serde_json::Value::Null),
    ]);
    for binary in prometheuses() {
        let prometheus = Prometheus::scraping(&binary, &[], jobs.clone());
        for (job, expected) in [("both", "1"), ("no_certificate", "0"), ("no_password", "0")] {
            eventually(&format!("up of {job} is {expected} in {}", binary.display()), || {
                let answer = prometheus.api("query", &[("query", &format!("up{{job=\"{job}\"}}"))]).ok()?;
                (answer["result"][0]["value"][1] == expected).then_some(())
            });
        }
    }
}

#[test]
fn a_bad_file_ends_the_start_with_2_and_one_line() {
    let web = Web::new();
    let key = fs::read_to_string(web.path("server.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for (text, expected) in [
        ("tls_server_config:\n  cert_flie: server.crt\n".to_owned(), "line 2: there is no key \"cert_flie\" here"),
        ("basic_auth_users:\n  alice: hunter2\n".to_owned(), "user \"alice\": expected a bcrypt hash"),
        (
            format!("tls_server_config:\n  cert_file: server.crt\n  key: {secret}\n"),
            "key: expected a private key in PEM",
        ),
    ] {
        web.write("web.yml", &text);
        let path: PathBuf = web.dir.path().join("web.yml");
        let output = command(&["--web.config.file", path.to_str().unwrap()], &[]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--web.config.file") && said.contains(expected), "{said:?} lacks {expected:?}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said:?}");
        assert!(!said.contains("hunter2") && !said.contains(secret), "{said:?}");
    }
}
