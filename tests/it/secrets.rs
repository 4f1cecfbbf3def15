//! No secret is ever printed, logged or served: everything that the program can be made to say is searched for them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::liar::Liar;
use crate::common::{Redis, command, eventually, streamlag, streamlag_with_env, value_of};

/// What each secret has in it.
const MARK: &str = "hunter2";

/// Base64 of `prometheus:hunter2-basic`, as a header carries it.
const BASIC: &str = "cHJvbWV0aGV1czpodW50ZXIyLWJhc2lj";

/// Searches a text for every secret.
fn is_clean(what: &str, text: &str) {
    for secret in [MARK, BASIC, "$2b$04", "MARKED-KEY", "slt_"] {
        assert!(!text.contains(secret), "{what} has {secret:?} in it: {text}");
    }
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn nothing_that_it_says_at_trace_level_has_a_secret_in_it() {
    let redis = Redis::start();
    redis.run("ACL SETUSER watcher on >hunter2-redis ~* &* +@all");
    let hash = bcrypt::hash("hunter2-basic", 4).unwrap();
    for (format, first_password) in [("logfmt", "hunter2-redis"), ("json", "hunter2-wrong")] {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        let password = files.write("password", first_password);
        let tokens = files.write("tokens", &token_line());
        let web = files.write("web.yml", &format!("basic_auth_users:\n  prometheus: {hash}\n"));
        let url = format!("redis://watcher@127.0.0.1:{}/0", redis.port);
        let arguments = [
            ["--redis.url", &url],
            ["--redis.password-file", &password],
            ["--api.tokens-file", &tokens],
            ["--web.config.file", &web],
            ["--log.level", "trace"],
            ["--log.format", format],
            ["--web.listen-address", "127.0.0.1:0"],
        ];
        let env = [("STREAMLAG_API_TOKEN", "hunter2-token")];
        let streamlag = streamlag_with_env(&[&arguments.concat()[..], &["--web.enable-lifecycle"]].concat(), &env);
        eventually("a first poll", || (streamlag.request("GET", "/-/ready", &[]).status == 200).then_some(()));
        let mut said = Vec::new();
        let credentials =
            ["Bearer hunter2-token", "Bearer hunter2-guess", "Basic hunter2", &format!("Basic {BASIC}"), "hunter2"];
        for path in ["/", "/metrics", "/-/healthy", "/api/v1/events/consumer-lag", "/api/v1/events/health", "/nothing"]
        {
            for credentials in credentials {
                let reply = streamlag.request("GET", path, &[("Authorization", credentials)]);
                said.push(format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body)));
            }
        }
        // Passwords that Redis refuses, files that are broken in every way, and a reload over HTTP of each.
        let breakages: [(&Path, &str); 5] = [
            (Path::new("password"), ""),
            (Path::new("password"), "hunter2-wrong"),
            (Path::new("tokens"), "ops hunter2-secret\nslt_hunter2 sha256:hunter2"),
            (Path::new("web.yml"), "basic_auth_users:\n  prometheus: hunter2-no-hash\n"),
            (
                Path::new("web.yml"),
                "tls_server_config:\n  cert: x\n  key: |\n    MARKED-KEY hunter2\n  keyy: hunter2\n",
            ),
        ];
        for (name, text) in breakages {
            let before = std::fs::read_to_string(files.dir.path().join(name)).unwrap();
            files.write(name.to_str().unwrap(), text);
            let reply = streamlag.request("POST", "/-/reload", &[("Authorization", "Bearer hunter2-token")]);
            assert!([200, 429, 500].contains(&reply.status), "{reply:?}");
            said.push(format!("{:?} {}", reply.headers, reply.text()));
            // Connections are made anew, which takes the password that is there now.
            redis.run("CLIENT KILL USER watcher");
            let polls = || {
                let page = streamlag.request("GET", "/metrics", &[("Authorization", &format!("Basic {BASIC}"))]).text();
                let ended = ["success", "partial", "failure"].map(|outcome| {
                    value_of(&page, &format!("streamlag_polls_total{{outcome=\"{outcome}\"}}")).unwrap_or_default()
                });
                ended.iter().sum::<f64>()
            };
            let before_this = polls();
            eventually("polls go on", || (polls() >= before_this + 2.0).then_some(()));
            files.write(name.to_str().unwrap(), &before);
        }
        streamlag.signal("-HUP");
        eventually("a good reload", || {
            streamlag.log().iter().any(|line| line.contains("configuration reloaded")).then_some(())
        });
        said.push(std::fs::read_to_string(format!("/proc/{}/cmdline", streamlag.pid())).unwrap());
        for said in said {
            is_clean("an answer", &said);
        }
        let log = streamlag.log();
        assert!(log.len() > 10, "{log:?}");
        for line in log {
            is_clean("the log", &line);
        }
    }
}

/// A line of the tokens file whose secret nobody needs.
fn token_line() -> String {
    format!("ops sha256:{}\n", "ab".repeat(32))
}

#[test]
fn what_is_in_entries_is_neither_shown_nor_logged() {
    let redis = Redis::start();
    redis.run("XADD events 1-0 hunter2-field hunter2-value");
    redis.run("XADD events 2-0 hunter2-field hunter2-value");
    redis.run("XGROUP CREATE events g 0");
    redis.read("events", "g", "c", 1);
    let arguments = ["--redis.url", &redis.url(), "--streams", "events", "--groups", "g", "--log.level", "trace"];
    let streamlag = streamlag(&arguments).ready();
    streamlag.next_sample();
    let page = streamlag.metrics();
    assert_eq!(value_of(&page, "event_consumer_lag{stream=\"events\",consumer_group=\"g\"}"), Some(1.0), "{page}");
    is_clean("the page", &page);
    for path in ["consumer-lag", "streams", "health", "groups", "consumers"] {
        is_clean(path, &streamlag.json(path).to_string());
    }
    is_clean("the log", &streamlag.log().join("\n"));
}

#[test]
fn no_complaint_about_the_configuration_repeats_a_secret() {
    let files = Files { dir: tempfile::tempdir().unwrap() };
    let file = |text: &str| files.write("file", text);
    let path = file("");
    for (text, arguments, env) in [
        ("", &["--redis.url", "redis://:hunter2@localhost:port/"][..], &[][..]),
        ("", &["--redis.url", "http://hunter2@localhost/"], &[]),
        ("", &["--redis.url", "hunter2"], &[]),
        ("", &[], &[("REDIS_URL", "redis://u:hunter2@h:99999999")]),
        ("hunter2", &["--redis.url", "redis://:hunter2@h", "--redis.password-file", &path], &[]),
        ("", &[], &[("STREAMLAG_API_TOKEN", "hunter2 with blanks")]),
        ("", &["--api.insecure-no-auth"], &[("STREAMLAG_API_TOKEN", "hunter2")]),
        ("redis: {url: 'hunter2://'}", &["--config.file", &path], &[]),
        ("redis: {url: ['redis://:hunter2@h', 'x']}", &["--config.file", &path], &[]),
        ("redis.url: {hunter2: hunter2}", &["--config.file", &path], &[]),
        ("redis.url: &hunter2 [", &["--config.file", &path], &[]),
        ("default hunter2", &["--api.tokens-file", &path], &[]),
        ("slt_hunter2", &["--api.tokens-file", &path], &[]),
        ("basic_auth_users: {u: hunter2}", &["--web.config.file", &path], &[]),
        ("basic_auth_users: [hunter2]", &["--web.config.file", &path], &[]),
        ("basic_auth_users: {u: [hunter2]}", &["--web.config.file", &path], &[]),
        ("basic_auth_users: hunter2", &["--web.config.file", &path], &[]),
        ("tls_server_config: {cert: hunter2, key: hunter2}", &["--web.config.file", &path], &[]),
    ] {
        file(text);
        let output = command(arguments, env).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text} {arguments:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        is_clean("a complaint", &said);
        is_clean("a complaint", &String::from_utf8_lossy(&output.stdout));
    }
    let env = [("STREAMLAG_API_TOKEN", "hunter2"), ("REDIS_URL", "redis://:hunter2@h")];
    let help = command(&["--help"], &env).output().unwrap();
    is_clean("the help", &String::from_utf8_lossy(&help.stdout));
}

/// A password in the forms in which a server might repeat it, each a text to be searched for as well.
const PASSWORD: &str = "correct-hunter2-battery";
const REPEATED: [&str; 6] = [
    PASSWORD,
    "CORRECT-HUNTER2-BATTERY",
    "yrettab-2retnuh-tcerroc",
    "Y29ycmVjdC1odW50ZXIyLWJhdHRlcnk=",
    "636f72726563742d68756e746572322d62617474657279",
    "correct-hun ter2-battery",
];

/// What is left of it wherever it is cut in two.
const HALVES: [&str; 4] = ["correct-hun", "ter2-battery", "CORRECT-H", "R2-BATTERY"];

/// Codes that a server may put before it.
const CODES: [&str; 8] = ["", "ERR ", "WRONGPASS ", "NOAUTH ", "NOPERM ", "LOADING ", "BUSY ", "CLUSTERDOWN "];

#[test]
fn a_server_that_repeats_the_password_in_any_form_does_not_get_it_shown() {
    let errors: Vec<String> =
        CODES.iter().flat_map(|code| REPEATED.map(|repeated| format!("-{code}{repeated}\r\n"))).collect();
    std::thread::scope(|scope| {
        for (mode, command) in [
            ("standalone", "AUTH"),
            ("standalone", "HELLO"),
            ("standalone", "SELECT"),
            ("standalone", "EVAL_RO"),
            ("standalone", "TIME"),
            ("cluster", "CLUSTER"),
            ("sentinel", "AUTH"),
            ("sentinel", "SENTINEL"),
        ] {
            let errors = errors.clone();
            scope.spawn(move || repeats_in(mode, command, errors));
        }
    });
}

fn repeats_in(mode: &str, command: &'static str, errors: Vec<String>) {
    let (said, all) = (Arc::new(AtomicUsize::new(0)), errors.len());
    let next = Arc::clone(&said);
    let liar = Liar::start(Arc::new(move |words, writer| {
        if !words[0].eq_ignore_ascii_case(command) {
            return Ok(false);
        }
        let error = &errors[next.fetch_add(1, Ordering::Relaxed) % all];
        writer.write_all(error.as_bytes())?;
        // It hangs up, so that it is asked again.
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), PASSWORD).unwrap();
    let password = file.path().to_str().unwrap();
    let database = if mode == "standalone" { 1 } else { 0 };
    let url = format!("redis://127.0.0.1:{}/{database}", liar.port);
    let mut arguments = vec!["--redis.url", &url, "--redis.mode", mode, "--redis.password-file", password];
    if mode == "sentinel" {
        arguments.extend(["--redis.sentinel-master", "mymaster", "--redis.sentinel-password-file", password]);
    }
    arguments.extend(["--log.level", "trace", "--poll.interval", "50ms"]);
    let streamlag = streamlag(&arguments);
    let mut shown = Vec::new();
    eventually("every error was told", || {
        let page = streamlag.metrics();
        shown.extend([page, streamlag.json("health").to_string(), streamlag.get("/api/v1/targets").text()]);
        (said.load(Ordering::Relaxed) > all).then_some(())
    });
    shown.extend(streamlag.log());
    for text in shown {
        for secret in REPEATED.iter().chain(&HALVES) {
            assert!(!text.contains(secret), "{mode}, {command}: {secret:?} in {text}");
        }
    }
    let failed = streamlag.log_lines("poll failed");
    assert!(command == "TIME" || command == "EVAL_RO" || !failed.is_empty(), "{mode}, {command}: nothing failed");
}

#[test]
fn a_file_of_secrets_that_others_can_read_or_write_is_a_warning() {
    let files = Files { dir: tempfile::tempdir().unwrap() };
    let redis = Redis::start();
    let (password, tokens) = (files.write("password", "x"), files.write("tokens", &token_line()));
    let hash = bcrypt::hash("x", 4).unwrap();
    let web = files.write("web.yml", &format!("basic_auth_users:\n  u: {hash}\n"));
    let config = files.write("streamlag.yml", &format!("redis.url: redis://:hunter2@127.0.0.1:{}/0\n", redis.port));
    let mode = |path: &str, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let url = format!("redis://127.0.0.1:{}/0", redis.port);
    let of_files = ["--redis.url", &url, "--redis.password-file", &password];
    let arguments = [&of_files[..], &["--api.tokens-file", &tokens, "--web.config.file", &web]].concat();
    let warnings = |arguments: &[&str]| {
        let lines = streamlag(arguments).ready().log_lines("can read or write this file");
        let shown = |line: &String| {
            let field = |name: &str| line.split(name).nth(1).unwrap().split(' ').next().unwrap().to_owned();
            assert!(line.contains("level=warn"), "{line}");
            (field("file="), field("mode="))
        };
        lines.iter().map(shown).collect::<Vec<_>>()
    };
    for path in [&password, &tokens, &web, &config] {
        mode(path, 0o600);
    }
    assert_eq!(warnings(&arguments), []);
    mode(&password, 0o644);
    mode(&tokens, 0o660);
    mode(&web, 0o602);
    let expected =
        [(&password, "0644"), (&tokens, "0660"), (&web, "0602")].map(|(file, mode)| (file.clone(), mode.to_owned()));
    assert_eq!(warnings(&arguments), expected);
    // The configuration file is one where it has a password in it.
    assert_eq!(warnings(&["--config.file", &config]), []);
    mode(&config, 0o644);
    assert_eq!(warnings(&["--config.file", &config]), [(config.clone(), "0644".to_owned())]);
    // So is one with the path of a webhook, and what a webhook signs with.
    let secret = files.write("secret", &"x".repeat(32));
    let webhook = "notify: {webhooks: [{url: 'http://127.0.0.1:1/hunter2', secret_file: secret}]}";
    let told = files.write("told.yml", &format!("redis.url: {url}\n{webhook}\n"));
    mode(&told, 0o600);
    mode(&secret, 0o600);
    assert_eq!(warnings(&["--config.file", &told]), []);
    mode(&told, 0o644);
    mode(&secret, 0o640);
    let expected = [(&secret, "0640"), (&told, "0644")].map(|(file, mode)| (file.clone(), mode.to_owned()));
    assert_eq!(warnings(&["--config.file", &told]), expected);
    let plain = files.write("plain.yml", &format!("redis.url: redis://127.0.0.1:{}/0\n", redis.port));
    mode(&plain, 0o644);
    assert_eq!(warnings(&["--config.file", &plain]), []);
}
