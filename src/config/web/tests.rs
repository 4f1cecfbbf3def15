use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

/// A directory with the files that the exporter-toolkit's examples name, created again.
struct Examples {
    dir: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Examples {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let self_signed = |is_ca| {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.is_ca = is_ca;
            let key = KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let (certificate, key) = self_signed(IsCa::NoCa);
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("server.crt", &certificate);
        write("server.key", &key);
        for ca in ["tls-ca-chain.pem", "client_selfsigned.pem", "client2_selfsigned.pem"] {
            write(ca, &self_signed(IsCa::Ca(BasicConstraints::Unconstrained)).0);
        }
        write("tls-ca-chain-invalid.pem", "no certificate\n");
        Self { dir, certificate, key }
    }

    fn parse(&self, text: &str) -> Result<WebConfig, WebConfigError> {
        WebConfig::parse(text, self.dir.path())
    }

    /// The section with a certificate, a key and more.
    fn with_tls(&self, more: &str) -> Result<WebConfig, WebConfigError> {
        self.parse(&tls(more))
    }

    /// Whether a text is refused with one line that begins like this and repeats no secret.
    fn refuses(&self, text: &str, expected: &str) {
        let problem = self.parse(text).unwrap_err().to_string();
        assert!(problem.starts_with(expected), "{text}\n{problem:?} lacks {expected:?}");
        assert!(!problem.contains('\n'), "{problem:?}");
        let secret = self.key.lines().nth(1).unwrap();
        assert!(!problem.contains(&secret[..16]) && !problem.contains(SECRET), "{problem:?}");
    }
}

/// Part of everything in these tests that must not be repeated.
const SECRET: &str = "hunter2";

fn tls(more: &str) -> String {
    let more: String = more.lines().map(|line| format!("  {line}\n")).collect();
    format!("tls_server_config:\n  cert_file: \"server.crt\"\n  key_file: \"server.key\"\n{more}")
}

fn indented(pem: &str) -> String {
    pem.lines().map(|line| format!("    {line}\n")).collect()
}

fn hash(cost: u32) -> String {
    format!("$2y${cost:02}${}", ".".repeat(53))
}

/// Every case of the toolkit's web/testdata, by its name there: `Ok`, or how the error begins.
#[test]
fn the_toolkits_own_examples() {
    let examples = Examples::new();
    let check = |name: &str, text: &str, expected: Result<(), &str>| match (examples.parse(text), expected) {
        (Ok(config), Ok(())) => assert_eq!(config.tls.is_some(), text.contains("tls_server_config"), "{name}"),
        (Err(problem), Ok(())) => panic!("{name}: {problem}"),
        (_, Err(expected)) => examples.refuses(text, expected),
    };
    let certificate = "tls_server_config: expected one of cert and cert_file";
    let key = "tls_server_config: expected one of key and key_file";
    let if_given = "client_auth_type: \"VerifyClientCertIfGiven\"\n";

    check("web_config_empty", "", Ok(()));
    check("web_config_junk", "hello", Err("line 1: expected a mapping"));
    let junk_key = "line 2: there is no key \"cert_filse\" here; there are cert, cert_file, key, key_file";
    check("web_config_junk_key", "tls_server_config:\n  cert_filse: \"server.crt\"\n", Err(junk_key));
    let section = |body: &str| format!("tls_server_config:\n{body}");
    check("noAuth_certPath_empty.bad", &section("  cert_file: \"\"\n  key_file: \"server.key\"\n"), Err(certificate));
    check("noAuth_cert_empty.bad", &section("  cert: \"\"\n  key_file: \"server.key\"\n"), Err(certificate));
    check("noAuth_keyPath_empty.bad", &section("  cert_file: \"server.crt\"\n  key_file: \"\"\n"), Err(key));
    check("noAuth_key_empty.bad", &section("  cert_file: \"server.crt\"\n  key: \"\"\n"), Err(key));
    // Both are wrong; the other one is named first.
    let all_wrong = section("  cert_file: \"\"\n  key_file: \"\"\n  client_auth_type: \"x\"\n");
    check(
        "noAuth_certPath_keyPath_empty.bad",
        &all_wrong,
        Err("tls_server_config: client_auth_type \"x\": expected one"),
    );
    let missing = "tls_server_config: cert_file \"somefile\": expected a file that can be read (No such file";
    check("noAuth_certPath_invalid.bad", &section("  cert_file: somefile\n  key_file: server.key\n"), Err(missing));
    check(
        "noAuth_certPath_keyPath_invalid.bad",
        &section("  cert_file: somefile\n  key_file: somefile\n"),
        Err(missing),
    );
    let missing = "tls_server_config: key_file \"somefile\": expected a file that can be read (No such file";
    check("noAuth_keyPath_invalid.bad", &section("  cert_file: server.crt\n  key_file: somefile\n"), Err(missing));
    let no_policy = Err("tls_server_config: client_ca: expected a client_auth_type");
    check("noAuth.bad", &tls("client_ca_file: \"/dev/null\""), no_policy);
    // The file is missing as well; the first error is that it would be of no use.
    check("auth_clientCAs_invalid.bad", &tls("client_ca_file: \"somefile\""), no_policy);
    let verify = "client_auth_type: \"RequireAndVerifyClientCert\"\n";
    let no_certificates = Err("tls_server_config: client_ca: expected one or more certificates in PEM");
    let nocerts = format!("{verify}client_ca: \"this is not a PEM encoded certificate\"");
    check("auth_clientCAsText_nocerts.bad", &tls(&nocerts), no_certificates);
    check(
        "auth_clientCAs_nocerts.bad",
        &tls(&format!("{verify}client_ca_file: tls-ca-chain-invalid.pem")),
        no_certificates,
    );
    let users = |name: &str, hash: &str| format!("basic_auth_users:\n  {name}: {hash}\n");
    let no_hash = Err("basic_auth_users: user \"john\": expected a bcrypt hash, which");
    check("auth_user_list_invalid.bad", &(tls("") + &users("john", "doe")), no_hash);

    check("noAuth.good", &tls(if_given), Ok(()));
    let inline =
        format!("  cert: |\n{}  key: |\n{}  {if_given}", indented(&examples.certificate), indented(&examples.key));
    check("noAuth_tlsInline.good", &section(&inline), Ok(()));
    // Go trusts every public CA here. A client with a certificate of any of them would be let in.
    check(
        "noAuth.good.blocking",
        &tls(verify),
        Err("tls_server_config: client_ca: RequireAndVerifyClientCert takes a"),
    );
    let ciphers =
        |names: &[&str]| format!("cipher_suites:\n{}", names.iter().map(|n| format!("- {n}\n")).collect::<String>());
    let unavailable =
        |name: &str| format!("tls_server_config: cipher_suites {name:?}: expected those that are available: TLS_AES_");
    // Its list begins with all that there are here; CBC and RSA key exchange are not.
    let all: Vec<String> = cipher_suites().into_iter().map(|(name, _)| name).collect();
    let mut all: Vec<&str> = all.iter().map(String::as_str).collect();
    check("noAuth_allCiphers.good, without the weak ones", &tls(&(if_given.to_owned() + &ciphers(&all))), Ok(()));
    all.push("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA");
    let weak = unavailable("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA");
    check("noAuth_allCiphers.good", &tls(&(if_given.to_owned() + &ciphers(&all))), Err(&weak));
    let invented = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048";
    check(
        "noAuth_inventedCiphers.bad",
        &tls(&(if_given.to_owned() + &ciphers(&[invented]))),
        Err(&unavailable(invented)),
    );
    let (rsa_128, rsa_256) = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384");
    let some = format!("{if_given}{}min_version: TLS12\nmax_version: TLS12", ciphers(&[rsa_128, rsa_256]));
    check("noAuth_someCiphers.good", &tls(&some), Ok(()));
    check("noAuth_someCiphers_noOrder.good", &tls(&(some + "\nprefer_server_cipher_suites: false")), Ok(()));
    let no_http2 = tls(&format!("{if_given}{}max_version: TLS12", ciphers(&[rsa_256])));
    check("noAuth_noHTTP2.good", &(no_http2.clone() + "http_server_config:\n  http2: false\n"), Ok(()));
    // The toolkit's has a suite that is not available here, which is the first error.
    check(
        "noAuth_noHTTP2Cipher.bad",
        &no_http2,
        Err("tls_server_config: cipher_suites: HTTP/2 takes one of TLS_ECDHE_RSA_"),
    );
    let rsa = "TLS_RSA_WITH_AES_128_CBC_SHA";
    check("noAuth_noHTTP2Cipher.bad", &tls(&ciphers(&[rsa])), Err(&unavailable(rsa)));
    let curves = |names: &str| tls(&format!("{if_given}curve_preferences: [{names}]"));
    let unavailable = |name: &str| {
        format!(
            "tls_server_config: curve_preferences {name:?}: expected those that are available: X25519, CurveP256, CurveP384"
        )
    };
    check("noAuth_allCurves.good, those that there are", &curves("CurveP256, CurveP384, X25519"), Ok(()));
    check("noAuth_allCurves.good", &curves("CurveP256, CurveP384, CurveP521, X25519"), Err(&unavailable("CurveP521")));
    check("noAuth_allCurves.good, newer", &curves("X25519MLKEM768"), Err(&unavailable("X25519MLKEM768")));
    check("noAuth_someCurves.good", &curves("CurveP521"), Err(&unavailable("CurveP521")));
    check("noAuth_inventedCurves.bad", &curves("CurveP257"), Err(&unavailable("CurveP257")));
    let version = Err("tls_server_config: min_version \"TLS111\": expected TLS12 or TLS13");
    check("noAuth_wrongTLSVersion.bad", &tls(&format!("{if_given}min_version: TLS111")), version);

    let any = "client_auth_type: \"RequireAnyClientCert\"\nclient_ca_file: \"tls-ca-chain.pem\"";
    check("requireanyclientcert.good", &tls(any), Ok(()));
    check("requireandverifyclientcert.good", &tls(&format!("{verify}client_ca_file: client_selfsigned.pem")), Ok(()));
    let sans = "client_ca_file: client2_selfsigned.pem\nclient_allowed_sans:\n  - \"one\"\n  - \"test3\"\n";
    // The bad one differs in the names only; what a client then gets is tested with the handshakes.
    check("auth_client_san.good", &tls(&(verify.to_owned() + sans)), Ok(()));
    let may_leave_out =
        Err("tls_server_config: client_allowed_sans: expected client_auth_type RequireAnyClientCert or");
    check("auth_client_san_no_client_auth.bad", &tls("client_allowed_sans:\n  - \"one\""), may_leave_out);
    check("auth_client_san_optional_cert.bad", &tls(&(if_given.to_owned() + sans)), may_leave_out);

    let headers = |lines: &str| format!("http_server_config:\n  headers:\n{lines}");
    let good = "    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
                X-Content-Type-Options: nosniff\n    X-XSS-Protection: 1\n    \
                Content-Security-Policy: \"default-src 'self' *.test.example.net\"\n";
    check("headers.good", &headers(good), Ok(()));
    let set: Vec<_> = examples
        .parse(&headers(good))
        .unwrap()
        .headers
        .into_iter()
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    assert_eq!(
        set,
        [
            "content-security-policy: \"default-src 'self' *.test.example.net\"",
            "strict-transport-security: \"max-age=31536000; includeSubDomains\"",
            "x-content-type-options: \"nosniff\"",
            "x-frame-options: \"deny\"",
            "x-xss-protection: \"1\"",
        ]
    );
    let takes = "http_server_config.headers: \"X-Content-Type-Options\": expected one of nosniff, not \"sniff\"";
    check("headers_content_type_options.bad", &headers("    X-Content-Type-Options: sniff\n"), Err(takes));
    let takes = "http_server_config.headers: \"X-Frame-Options\": expected one of deny, sameorigin, not \"maybe\"";
    check("headers_frame_options.bad", &headers("    X-Frame-Options: maybe\n"), Err(takes));
    let takes = "http_server_config.headers: \"Server\": those that can be set are Content-Security-Policy, Strict-";
    check("headers_extra_header.bad", &headers("    Server: me\n"), Err(takes));

    let four = |bob| format!("basic_auth_users:\n  alice: {}\n  bob: {}\n  dave: {}\n", hash(12), hash(bob), hash(10));
    check("users_noTLS.good", &four(14), Ok(()));
    check("users.good, but for bob", &(tls("") + &four(14)), Ok(()));
    // A wrong password for this user, or for none, would keep a processor busy for a quarter of a minute.
    let dear = "basic_auth_users: user \"bob\": expected a bcrypt hash of cost 4 to 14, not 18";
    check("users.good", &(tls("") + &four(18)), Err(dear));

    check("rate_limiter_nonblocking", "rate_limit:\n  interval: 0\n  burst: 0\n", Ok(()));
    // The toolkit accepts it, and then answers nothing.
    check(
        "rate_limiter_one_second",
        "rate_limit:\n  interval: \"1s\"\n  burst: 0\n",
        Err("rate_limit.burst: expected 1"),
    );
    check("rate_limiter_headers", &("rate_limit:\n  interval: 1h\n  burst: 1\n".to_owned() + &headers(good)), Ok(()));

    // Proposed for the toolkit, and not in it. Health paths are open here anyway.
    let excluded =
        "line 1: there is no key \"auth_excluded_paths\" here; there are tls_server_config, http_server_config";
    check("auth_excluded_paths.good", "auth_excluded_paths:\n  - /metrics\n", Err(excluded));
}

#[test]
fn files_that_say_nothing_and_what_is_then_so() {
    let examples = Examples::new();
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}",
        "tls_server_config:\n",
        "tls_server_config: {}\n",
        "basic_auth_users:\n",
    ] {
        let config = examples.parse(text).unwrap_or_else(|problem| panic!("{text:?}: {problem}"));
        assert!(config.tls.is_none() && config.users.is_empty(), "{text:?}");
        assert!(config.headers.is_empty() && config.rate_limit.is_none() && config.files.is_empty(), "{text:?}");
    }
    let config = examples.with_tls("").unwrap();
    let protocols = |config: WebConfig| config.tls.unwrap().config.alpn_protocols.clone();
    assert!(config.tls.as_ref().is_some_and(|tls| !tls.needs_client_certificate));
    assert_eq!(protocols(config), [&b"h2"[..], b"http/1.1"]);
    let without = examples.parse(&(tls("") + "http_server_config: {http2: no}\n")).unwrap();
    assert_eq!(protocols(without), [b"http/1.1"]);
    // Something is wanted of TLS, so TLS is wanted: this must not become plain HTTP.
    for wanted in ["min_version: TLS13", "cert_file: ''", "client_auth_type: NoClientCert", "cipher_suites: []"] {
        examples.refuses(&format!("tls_server_config:\n  {wanted}\n"), "tls_server_config: expected one of cert and");
    }
}

#[test]
fn versions_and_client_auth_types() {
    let examples = Examples::new();
    for good in
        ["min_version: TLS13", "max_version: TLS12", "min_version: TLS12\nmax_version: TLS13", "client_auth_type: ''"]
    {
        assert!(examples.with_tls(good).is_ok(), "{good}");
    }
    for old in ["TLS10", "TLS11"] {
        examples.refuses(
            &tls(&format!("min_version: {old}")),
            &format!("tls_server_config: min_version \"{old}\": expected TLS12 or"),
        );
        examples.refuses(
            &tls(&format!("max_version: {old}")),
            &format!("tls_server_config: max_version \"{old}\": expected TLS12 or"),
        );
    }
    let contradict = "tls_server_config: min_version \"TLS13\": contradicts max_version \"TLS12\"";
    examples.refuses(&tls("min_version: TLS13\nmax_version: TLS12"), contradict);
    for (name, needed) in [
        ("NoClientCert", false),
        ("RequestClientCert", false),
        ("RequireAnyClientCert", true),
        ("RequireClientCert", true),
        ("VerifyClientCertIfGiven", false),
        ("RequireAndVerifyClientCert", true),
    ] {
        let ca = if name == "NoClientCert" { "" } else { "\nclient_ca_file: tls-ca-chain.pem" };
        let tls = examples.with_tls(&format!("client_auth_type: {name}{ca}")).unwrap().tls.unwrap();
        assert_eq!(tls.needs_client_certificate, needed, "{name}");
    }
    let empty = "client_auth_type: RequireAnyClientCert\nclient_allowed_sans: []";
    examples.refuses(&tls(empty), "tls_server_config: client_allowed_sans: expected one or more names");
}

#[test]
fn suites_of_each_version_are_as_named_or_all() {
    let suites = |wanted: &[&str]| {
        let wanted = wanted.iter().map(|&name| name.to_owned()).collect();
        let suites = suites(wanted, &[&TLS12, &TLS13], true).unwrap();
        suites.into_iter().map(|suite| suite.suite().as_str().unwrap()).collect::<Vec<_>>()
    };
    let http2 = HTTP2_SUITES[0];
    let all_13 = ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"];
    assert_eq!(suites(&[]).len(), 9);
    assert_eq!(suites(&[http2]), [&[http2], &all_13[..]].concat());
    assert_eq!(suites(&[http2, "TLS_AES_128_GCM_SHA256"]), [http2, all_13[1]]);
    // Without TLS 1.2 there is nothing that HTTP/2 misses.
    assert!(super::suites(vec!["TLS_AES_128_GCM_SHA256".to_owned()], &[&TLS13], true).is_ok());
    assert!(super::suites(vec!["TLS_AES_128_GCM_SHA256".to_owned()], &[&TLS12, &TLS13], true).is_err());
}

#[test]
fn rate_limits() {
    let examples = Examples::new();
    let limit = |text: &str| examples.parse(&format!("rate_limit: {{{text}}}\n")).unwrap().rate_limit;
    let some = |interval, burst| Some(RateLimit { interval: Duration::from_millis(interval), burst });
    assert_eq!(limit("interval: 1s, burst: 20"), some(1000, 20));
    assert_eq!(limit("interval: 1m30s, burst: 1"), some(90_000, 1));
    assert_eq!(limit("interval: \"100ms\", burst: 1"), some(100, 1));
    for none in ["", "interval: 0", "interval: 0s, burst: 5", "burst: 0"] {
        assert_eq!(limit(none), None, "{none}");
    }
    for bad in ["5", "-1s", "soon", "25h", "''", "1000000000"] {
        examples.refuses(&format!("rate_limit: {{interval: {bad}, burst: 1}}\n"), "rate_limit.interval \"");
    }
    examples.refuses("rate_limit: {burst: 1}\n", "rate_limit.burst: expected an interval too");
    for bad in ["-1", "1.5", "many", "4294967296", "[1]"] {
        let kind = if bad == "[1]" { "one value" } else { "a whole number" };
        examples.refuses(&format!("rate_limit:\n  burst: {bad}\n"), &format!("line 2: expected {kind} here"));
    }
}

#[test]
fn headers_are_of_the_known_kind() {
    let examples = Examples::new();
    let header = |line: &str| format!("http_server_config:\n  headers:\n    {line}\n");
    for blank in ["X-Frame-Options: ''", "X-XSS-Protection:", "Content-Security-Policy: ~"] {
        assert!(examples.parse(&header(blank)).unwrap().headers.is_empty(), "{blank}");
    }
    examples
        .refuses(&header("x-frame-options: deny"), "http_server_config.headers: \"x-frame-options\": those that can");
    let split = header("Content-Security-Policy: \"a\\r\\nSet-Cookie: b\"");
    examples.refuses(
        &split,
        "http_server_config.headers: \"Content-Security-Policy\": expected text that a header can carry",
    );
}

#[cfg(unix)]
#[test]
fn files_are_bounded_regular_and_listed() {
    let examples = Examples::new();
    let dir = examples.dir.path();
    let web = dir.join("web.yml");
    fs::write(&web, tls("client_auth_type: RequireAnyClientCert\nclient_ca_file: tls-ca-chain.pem")).unwrap();
    let files = ["web.yml", "server.crt", "server.key", "tls-ca-chain.pem"].map(|name| dir.join(name));
    assert_eq!(WebConfig::read(&web).unwrap().files, files);
    // As Kubernetes mounts a secret: the name is a link, and so is the directory that it leads to.
    fs::create_dir(dir.join("..data_1")).unwrap();
    fs::rename(dir.join("server.key"), dir.join("..data_1/key")).unwrap();
    std::os::unix::fs::symlink("..data_1", dir.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/key", dir.join("server.key")).unwrap();
    assert!(WebConfig::read(&web).is_ok());

    let problem = |name: &str| WebConfig::read(&dir.join(name)).unwrap_err().to_string();
    assert!(problem("nowhere").contains("expected a file that can be read (No such file"));
    assert!(std::process::Command::new("mkfifo").arg(dir.join("fifo")).status().unwrap().success());
    for odd in ["fifo", ".", "/dev/zero"] {
        assert!(problem(odd).contains("expected a regular file"), "{odd}");
        examples.refuses(
            &format!("tls_server_config: {{cert_file: {odd}, key_file: server.key}}\n"),
            &format!("tls_server_config: cert_file \"{odd}\": expected a regular file"),
        );
    }
    let most = usize::try_from(files::MAX_BYTES).unwrap();
    fs::write(dir.join("big"), "#".repeat(most)).unwrap();
    assert!(WebConfig::read(&dir.join("big")).is_ok());
    fs::write(dir.join("big"), "#".repeat(most + 1)).unwrap();
    assert!(problem("big").contains("expected a file of at most 1048576 bytes"));
    fs::write(dir.join("latin1"), [0xe9]).unwrap();
    assert!(problem("latin1").contains("expected a file of UTF-8 text"));
}

#[test]
fn one_of_each_pair() {
    let examples = Examples::new();
    examples.refuses(&tls("cert: x"), "tls_server_config: expected one of cert and cert_file, not both");
    examples.refuses(&tls("key: hunter2"), "tls_server_config: expected one of key and key_file, not both");
    let both = "client_auth_type: RequestClientCert\nclient_ca: x\nclient_ca_file: y";
    examples.refuses(&tls(both), "tls_server_config: expected one of client_ca and client_ca_file, not both");
}

/// Every error is one line that has the place and not the value.
#[test]
fn no_error_repeats_a_secret() {
    let examples = Examples::new();
    let key = &examples.key;
    let flat = key.replace('\n', " ");
    for (text, expected) in [
        ("basic_auth_users: hunter2\n".to_owned(), "line 1: expected "),
        ("basic_auth_users:\n  - hunter2\n".to_owned(), "line 2: expected "),
        ("basic_auth_users:\n  alice: [hunter2]\n".to_owned(), "line 2: expected "),
        ("basic_auth_users:\n  alice: {hunter2: hunter2}\n".to_owned(), "line 2: expected "),
        ("basic_auth_users:\n  alice: hunter2\n  alice: hunter2\n".to_owned(), "line 3: \"alice\" is given twice"),
        ("basic_auth_users:\n  $2y$10$hunter2: a\n  $2y$10$hunter2: a\n".to_owned(), "line 3: of that name"),
        (
            "basic_auth_users:\n  alice: hunter2\n".to_owned(),
            "basic_auth_users: user \"alice\": expected a bcrypt hash",
        ),
        ("basic_auth_users:\n  alice:\n".to_owned(), "basic_auth_users: user \"alice\": expected a bcrypt hash"),
        ("basic_auth_users:\n  alice: \"hunter2\n".to_owned(), "line "),
        ("basic_auth_users:\n  alice: *hunter2\n".to_owned(), "line "),
        ("basic_auth_users:\n  alice: !hunter2 a\n".to_owned(), "basic_auth_users: user \"alice\""),
        ("hunter2\n".to_owned(), "line 1: expected a mapping"),
        ("Hunter2 hunter2: 1\n".to_owned(), "line 1: there is no key of that name here"),
        ("- hunter2\n".to_owned(), "line 1: expected a mapping"),
        ("a: b\n---\nhunter2\n".to_owned(), "line 1: there is no key \"a\""),
        ("{}\n---\nhunter2\n".to_owned(), "line "),
        ("tls_server_config: hunter2\n".to_owned(), "line 1: expected a mapping"),
        ("tls_server_config:\n  key: [hunter2]\n".to_owned(), "line 2: expected "),
        ("tls_server_config:\n  prefer_server_cipher_suites: hunter2\n".to_owned(), "line 2: expected true or false"),
        (format!("tls_server_config:\n  key: |\n{key}"), "line "),
        (format!("tls_server_config:\n  key:\n  {}", key.replace('\n', "\n  ")), "line "),
        (format!("tls_server_config:\n  {flat}: x\n"), "line 2: there is no key of that name here"),
        (
            format!("tls_server_config:\n  cert_file: server.crt\n  key_file: |\n{}", indented(key)),
            "tls_server_config: key_file: expected the name",
        ),
        (
            format!("tls_server_config:\n  cert_file: server.crt\n  key_file: {flat}\n"),
            "tls_server_config: key_file: expected the name",
        ),
        (
            format!("tls_server_config:\n  cert: |\n{}  key_file: server.key\n", indented(key)),
            "tls_server_config: cert: expected one or more",
        ),
        (
            format!("tls_server_config:\n  cert_file: server.crt\n  key: {flat}\n"),
            "tls_server_config: key: expected a private key",
        ),
        (
            "tls_server_config:\n  cert_file: server.key\n  key_file: server.crt\n".to_owned(),
            "tls_server_config: cert: expected one or more",
        ),
    ] {
        examples.refuses(&text, expected);
    }
    let config = examples.parse(&format!("{}basic_auth_users:\n  hunter2: {}\n", tls(""), hash(4))).unwrap();
    let printed = format!("{config:?}");
    assert!(!printed.contains(SECRET) && !printed.contains("$2y$") && !printed.contains("PRIVATE"), "{printed}");
}
