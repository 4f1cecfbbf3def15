//! The connection to Redis: TLS, Unix sockets, users, passwords that change, and replies that are too large.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use crate::common::grants::{PASSWORD, USER};
use crate::common::tls::{self, Authority};
use crate::common::{Redis, Streamlag, TOKEN, command, eventually, free_port};
use crate::common::{streamlag, streamlag_with_env};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

/// The name that the server's certificate is for. It is not where the server is.
const SERVER_NAME: &str = "redis.test";

/// A Redis with TLS that asks for a client certificate, and its URL.
fn redis_with_tls(authority: &Authority, auth_clients: &str) -> (Redis, String) {
    redis_with_certificate(&authority.issue(SERVER_NAME), &authority.ca(), auth_clients)
}

/// The same with this certificate and key, and this CA for its clients.
fn redis_with_certificate(identity: &[String; 2], ca: &str, auth_clients: &str) -> (Redis, String) {
    let (redis, url) = tls::redis_with_certificate(identity, ca, &["--tls-auth-clients", auth_clients]);
    redis.add("events:chat", 20);
    (redis, url)
}

fn watch(url: &str, arguments: &[&str]) -> Streamlag {
    streamlag(&[&["--redis.url", url, "--streams", "events:chat"], arguments].concat()).ready()
}

fn up(streamlag: &Streamlag) {
    let length = || streamlag.metric("event_stream_length{stream=\"events:chat\"}").filter(|length| *length == 20.0);
    eventually("the stream is shown", length);
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(1.0));
}

/// It says so once, with these words, and goes on.
fn down(streamlag: &mut Streamlag, reason: &str, words: &[&str]) {
    let failures = format!("streamlag_poll_failures_total{{reason=\"{reason}\"}}");
    let before = streamlag.metric(&failures).unwrap();
    eventually(reason, || streamlag.metric(&failures).filter(|failures| *failures >= before + 3.0));
    assert_eq!(streamlag.metric("streamlag_redis_up"), Some(0.0));
    let lines = streamlag.log_lines("msg=\"poll failed\"");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(&format!(" reason={reason} ")), "{lines:?}");
    assert!(words.iter().any(|words| lines[0].contains(words)), "{lines:?} lacks {words:?}");
    assert!(streamlag.is_running() && streamlag.log_lines("panicked").is_empty());
}

/// Closes what streamlag has open.
fn disconnect(redis: &Redis) {
    redis.run("CLIENT KILL TYPE normal SKIPME yes");
}

#[test]
fn tls_with_our_own_ca_a_client_certificate_and_a_server_name() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (_redis, url) = redis_with_tls(&ours, "yes");
    let [ca, their_ca] = [&ours, &theirs].map(Authority::ca);
    let [certificate, key] = ours.issue("client.test");
    let [their_certificate, their_key] = theirs.issue("client.test");
    let (ca, name) = (["--redis.tls-ca-file", &ca], ["--redis.tls-server-name", SERVER_NAME]);
    let identity = ["--redis.tls-cert-file", &certificate, "--redis.tls-key-file", &key];
    up(&watch(&url, &[&ca[..], &name, &identity].concat()));

    // A server that refuses may close before its reason is read.
    let required =
        ["requires a client certificate, set --redis.tls-cert-file", "requires a client certificate: set --redis.tls"];
    down(&mut watch(&url, &[&ca[..], &name].concat()), "connect", &required);
    let theirs = ["--redis.tls-cert-file", &their_certificate, "--redis.tls-key-file", &their_key];
    let closed = [
        "UnknownCA; the server refused the client certificate",
        "DecryptError; the server refused the",
        "reset",
        "roken",
    ];
    down(&mut watch(&url, &[&ca[..], &name, &theirs].concat()), "connect", &closed);
    let their_ca = ["--redis.tls-ca-file", &their_ca];
    down(&mut watch(&url, &[&their_ca[..], &name, &identity].concat()), "connect", &[UNKNOWN_ISSUER]);
    down(&mut watch(&url, &[&ca[..], &identity].concat()), "connect", &["or set --redis.tls-server-name to one"]);
    let other_name = ["--redis.tls-server-name", "other.test"];
    down(&mut watch(&url, &[&ca[..], &other_name, &identity].concat()), "connect", &["certificate not valid for name"]);
    let says_tls = "if this port expects TLS, use a rediss:// URL";
    down(&mut watch(&url.replace("rediss", "redis"), &[]), "connect", &[says_tls]);
}

const UNKNOWN_ISSUER: &str = "unknown issuer: set --redis.tls-ca-file";

#[test]
fn a_port_without_tls_is_told_from_one_with_it() {
    let redis = Redis::start();
    let url = redis.url().replace("redis://", "rediss://");
    let arguments = ["--redis.tls-server-name", SERVER_NAME, "--redis.timeout", "300ms"];
    let authority = Authority::new();
    let ca = authority.ca();
    let arguments = [&arguments[..], &["--redis.tls-ca-file", &ca]].concat();
    let words = ["server may not speak TLS at this port", "server does not speak TLS at this port"];
    down(&mut watch(&url, &arguments), "connect", &words);
}

/// A certificate that is its own CA, as `openssl req -x509` makes them, for a name or for none, until this year.
fn self_signed(dir: &Path, name: &str, until: i32) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(until, 1, 1));
    let files = ["crt", "key"].map(|kind| dir.join(format!("{name}.{kind}")).to_str().unwrap().to_owned());
    std::fs::write(&files[0], params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files[1], key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_self_signed_certificate_that_is_given_as_the_ca_file_is_trusted_within_its_dates() {
    let dir = tempfile::tempdir().unwrap();
    let [good, other, expired] =
        [("good", 4000), ("other", 4000), ("expired", 2021)].map(|(name, until)| self_signed(dir.path(), name, until));
    let (_redis, url) = redis_with_certificate(&good, &good[0], "no");
    up(&watch(&url, &["--redis.tls-ca-file", &good[0]]));
    down(&mut watch(&url, &["--redis.tls-ca-file", &other[0]]), "connect", &[UNKNOWN_ISSUER]);
    let env = [("STREAMLAG_API_TOKEN", TOKEN), ("SSL_CERT_FILE", other[0].as_str())];
    down(&mut streamlag_with_env(&["--redis.url", &url], &env), "connect", &[UNKNOWN_ISSUER]);
    let (_redis, url) = redis_with_certificate(&expired, &good[0], "no");
    let renew = "Expired; the server's certificate has expired: renew it";
    down(&mut watch(&url, &["--redis.tls-ca-file", &expired[0]]), "connect", &[renew]);
}

#[test]
fn in_a_cluster_each_node_shows_a_certificate_for_its_own_host_or_for_the_one_name() {
    let authority = Authority::new();
    let ca = authority.ca();
    // The URL has a name, the cluster an address.
    let check = |names: &[&str], more: &[&str], expected: Result<(), &str>| {
        let [certificate, key] = authority.issue_for(names);
        let [port, tls_port] = [(); 2].map(|()| free_port());
        let shown = tls_port.to_string();
        let tls = ["--tls-port", &shown, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let tls = [&tls[..], &["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--tls-cluster", "yes"]].concat();
        let cluster = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
        let redis = Redis::start_at(port, Path::new("redis-server"), &[&tls[..], &cluster].concat());
        redis.wait();
        redis.run("CLUSTER ADDSLOTSRANGE 0 16383");
        eventually("it has all slots", || {
            let state: String = redis::cmd("CLUSTER").arg("INFO").query(&mut redis.connection()).unwrap();
            state.contains("cluster_state:ok").then_some(())
        });
        redis.add("events:chat", 20);
        let url = format!("rediss://localhost:{tls_port}/0");
        let base = ["--redis.mode", "cluster", "--redis.tls-ca-file", &ca];
        let mut streamlag = watch(&url, &[&base[..], more].concat());
        match expected {
            Ok(()) => up(&streamlag),
            Err(words) => down(&mut streamlag, "connect", &[words]),
        }
    };
    check(&["localhost", "127.0.0.1"], &[], Ok(()));
    check(&["localhost"], &[], Err("certificate not valid for name"));
    check(&["localhost"], &["--redis.tls-server-name", "localhost"], Ok(()));
}

#[test]
fn without_a_ca_file_what_the_system_trusts_vouches_for_the_server() {
    let authority = Authority::new();
    let (_redis, url) = redis_with_tls(&authority, "no");
    let ca = authority.ca();
    let arguments = ["--redis.url", &url, "--streams", "events:chat", "--redis.tls-server-name", SERVER_NAME];
    let env = |file| [("STREAMLAG_API_TOKEN", TOKEN), ("SSL_CERT_FILE", file)];
    up(&streamlag_with_env(&arguments, &env(ca.as_str())));
    let other = Authority::new();
    down(&mut streamlag_with_env(&arguments, &env(&other.ca())), "connect", &[UNKNOWN_ISSUER]);
}

#[test]
fn certificates_that_were_renewed_are_taken_up_and_the_last_good_ones_stand() {
    let (old, new) = (Authority::new(), Authority::new());
    let (redis, url) = redis_with_tls(&old, "yes");
    let [certificate, key] = old.issue("client.test");
    let ca = old.ca();
    let mut streamlag = watch(
        &url,
        &[
            ["--redis.tls-ca-file", &ca],
            ["--redis.tls-server-name", SERVER_NAME],
            ["--redis.tls-cert-file", &certificate],
            ["--redis.tls-key-file", &key],
        ]
        .concat(),
    );
    up(&streamlag);
    // The server no longer takes the old certificate.
    redis.run(&format!("CONFIG SET tls-ca-cert-file {}", new.ca()));
    disconnect(&redis);
    down(&mut streamlag, "connect", &["UnknownCA", "DecryptError", "Connection reset", "roken pipe"]);
    let [new_certificate, new_key] = new.issue("client.test");
    std::fs::copy(new_certificate, &certificate).unwrap();
    std::fs::copy(&new_key, &key).unwrap();
    up(&streamlag);
    assert_eq!(streamlag.log_lines("msg=\"poll succeeded again\"").len(), 1);

    std::fs::write(&key, "no key").unwrap();
    let connections = "streamlag_redis_commands_total{command=\"hello\"}";
    let reconnect = || {
        let before = streamlag.metric(connections).unwrap();
        disconnect(&redis);
        eventually("a new connection", || streamlag.metric(connections).filter(|hellos| *hellos > before));
        up(&streamlag);
    };
    reconnect();
    reconnect();
    let lines = streamlag.log_lines("cannot load a Redis TLS file");
    assert!(lines.len() == 1 && lines[0].contains(&key) && lines[0].contains("with a private key in it"), "{lines:?}");
    std::fs::copy(&new_key, &key).unwrap();
    reconnect();
    assert_eq!(streamlag.log_lines("Redis TLS files loaded again").len(), 1);
}

#[test]
fn tls_files_that_cannot_be_used_are_named_at_the_start() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ca, [certificate, key], [_, their_key]) = (ours.ca(), ours.issue("c"), theirs.issue("c"));
    let empty = ours.file("empty");
    std::fs::write(&empty, "").unwrap();
    let broken = ours.file("broken");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let nothing = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], expected: &str| {
        let all = [&["--config.check", "--redis.url", "rediss://localhost"], arguments].concat();
        let env = [("SSL_CERT_FILE", empty.as_str()), ("SSL_CERT_DIR", nothing.path().to_str().unwrap())];
        let output = command(&all, &env).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let code = if expected.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(expected) && error.lines().count() == usize::from(code == 2), "{error:?}: {expected:?}");
    };
    let with_ca = |ca: &str, certificate: &str, key: &str, expected: &str| {
        let identity = ["--redis.tls-cert-file", certificate, "--redis.tls-key-file", key];
        check(&[&["--redis.tls-ca-file", ca], &identity[..]].concat(), expected);
    };
    with_ca(&ca, &certificate, &key, "");
    check(&[], "this system trusts no certificates; give --redis.tls-ca-file");
    let named = |flag: &str, file: &str, takes: &str| {
        format!("invalid value {file:?} for --redis.tls-{flag}: expected {takes}")
    };
    with_ca(&empty, &certificate, &key, &named("ca-file", &empty, "a PEM file with a CA certificate in it; this one"));
    with_ca(&key, &certificate, &key, &named("ca-file", &key, "a PEM file with a CA certificate in it; this one"));
    with_ca(&broken, &certificate, &key, &named("ca-file", &broken, "CA certificates that can be read"));
    with_ca("/dev/zero", &certificate, &key, &named("ca-file", "/dev/zero", "a regular file"));
    with_ca(&ca, &key, &key, &named("cert-file", &key, "a PEM file with its certificate in it; this one"));
    with_ca(&ca, &broken, &key, &named("cert-file", &broken, "a certificate that can be read"));
    with_ca(&ca, &certificate, &certificate, &named("key-file", &certificate, "a PEM file with a private key in it"));
    with_ca(&ca, &certificate, &their_key, &named("key-file", &their_key, "the key of the certificate"));
    with_ca(&ca, &certificate, "/nonexistent", &named("key-file", "/nonexistent", "a file that can be read"));
}

#[test]
fn a_user_and_a_password_file_over_a_unix_socket_and_a_password_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (socket, file) = (path("redis.sock"), path("password"));
    let redis = Redis::start_with(Path::new("redis-server"), &["--unixsocket", &socket]);
    redis.add("events:chat", 20);
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let mut streamlag = watch(&format!("unix://{socket}"), &["--redis.user", USER, "--redis.password-file", &file]);
    up(&streamlag);
    let mut password = PASSWORD.to_owned();
    for n in 0..3 {
        password = format!("hunter{n}-{password}");
        redis.run(&format!("ACL SETUSER {USER} resetpass >{password}"));
        disconnect(&redis);
        down(&mut streamlag, "auth", &["WRONGPASS"]);
        // What is no password is not used, and not said at every poll.
        std::fs::write(&file, "\n").unwrap();
        let said = || streamlag.log_lines("cannot read the Redis password file").len();
        eventually("it is said", || (said() == 1).then_some(()));
        streamlag.next_sample();
        streamlag.next_sample();
        assert_eq!(said(), 1);
        std::fs::write(&file, &password).unwrap();
        up(&streamlag);
        assert_eq!(streamlag.log_lines("msg=\"poll succeeded again\"").len(), 1);
        assert_eq!(streamlag.log_lines("Redis password file readable again").len(), 1);
        assert!(streamlag.log_lines("hunter").is_empty());
        streamlag.log_clear();
    }
    // Without its file it goes on with the last one.
    std::fs::remove_file(&file).unwrap();
    disconnect(&redis);
    eventually("it is said", || (streamlag.log_lines("cannot read the Redis password file").len() == 1).then_some(()));
    up(&streamlag);
    assert!(streamlag.log_lines("poll failed").is_empty(), "{:?}", streamlag.log());
}

#[test]
fn a_user_is_that_user_with_a_password_or_without() {
    let redis = Redis::start();
    redis.add("events:chat", 20);
    let url = redis.url_of_everybody();
    // The default user could read everything, and is not taken in its place.
    down(&mut watch(&url, &["--redis.user", USER]), "auth", &["WRONGPASS"]);
    down(&mut watch(&url.replace("//", "//nobody@"), &[]), "auth", &["WRONGPASS"]);
    redis.run(&format!("ACL SETUSER {USER} nopass"));
    up(&watch(&url, &["--redis.user", USER]));
}

#[test]
fn a_server_that_repeats_the_password_is_not_quoted() {
    let redis = Redis::start_with(Path::new("redis-server"), &["--rename-command", "AUTH", ""]);
    let url = format!("redis://hunter1:hunter2@127.0.0.1:{}", redis.port);
    let mut streamlag = watch(&url, &["--log.level", "trace"]);
    down(&mut streamlag, "auth", &["unknown command"]);
    assert!(streamlag.log_lines("hunter").is_empty(), "{:?}", streamlag.log());
    assert!(!streamlag.get("/api/v1/events/consumer-lag").text().contains("hunter"));
}

#[test]
fn replies_that_would_fill_the_memory_are_no_replies() {
    // No real server can be made to answer like this.
    let answers: [(&[u8], &str); 4] = [
        (b"$2147483648\r\n", "announced 2147483648 bytes"),
        (b"*2147483647\r\n", "announced 2147483647 values"),
        (&b"*1\r\n".repeat(10_000), "nested more than 8 deep"),
        (&b"-ERR x".repeat(1000), "a line of more than 4096 bytes"),
    ];
    for (answer, words) in answers {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", server.local_addr().unwrap());
        let answer = answer.to_vec();
        std::thread::spawn(move || {
            for connection in server.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 1024]);
                let _ = connection.write_all(&answer);
                // What follows is not what ends it.
                while connection.write_all(&[b'x'; 16 * 1024]).is_ok() {}
            }
        });
        let mut streamlag = watch(&url, &[]);
        down(&mut streamlag, "protocol", &[words]);
        let resident = streamlag.metric("process_resident_memory_bytes").unwrap();
        assert!(resident < 100.0 * 1024.0 * 1024.0, "{words}: {resident} bytes");
    }
}

#[test]
fn another_database_takes_another_grant() {
    let redis = Redis::start();
    let [everybody, user] = [redis.url_of_everybody(), redis.url()].map(|url| url.replace("/0", "/3"));
    let mut connection = redis::Client::open(everybody).unwrap().get_connection().unwrap();
    for _ in 0..20 {
        redis::cmd("XADD").arg("events:chat").arg("*").arg("n").arg(1).exec(&mut connection).unwrap();
    }
    let mut streamlag = watch(&user, &[]);
    down(&mut streamlag, "server", &["NOPERM"]);
    redis.run(&format!("ACL SETUSER {USER} +select"));
    up(&streamlag);
}

#[test]
fn a_redis_that_has_enough_clients_says_so() {
    let redis = Redis::start();
    redis.add("events:chat", 20);
    let admin = redis.connection();
    redis.run("CONFIG SET maxclients 1");
    for url in [redis.url(), redis.url_of_everybody()] {
        down(&mut watch(&url, &[]), "server", &["max number of clients reached"]);
    }
    drop(admin);
}

#[test]
fn connections_that_are_given_up_are_closed() {
    // It takes connections and never says a word.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", server.local_addr().unwrap());
    std::thread::spawn(move || server.incoming().collect::<Vec<_>>());
    let mut streamlag = watch(&url, &["--redis.timeout", "50ms", "--poll.interval", "50ms"]);
    down(&mut streamlag, "timeout", &["no connection within 50ms"]);
    let descriptors = || streamlag.metric("process_open_fds").unwrap();
    let before = descriptors();
    let failures = "streamlag_poll_failures_total{reason=\"timeout\"}";
    eventually("30 polls", || streamlag.metric(failures).filter(|failures| *failures >= 30.0));
    assert!(descriptors() < before + 5.0, "{before} {}", descriptors());
}
