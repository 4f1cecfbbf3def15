//! `docs/openapi.yaml` and the running program, both ways: every documented answer is given, and every answer is documented, key by key.
//! What was answered goes to `scripts/check-openapi` as well, which holds it against the reference implementation of JSON Schema.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::receiver::Receiver;
use crate::common::schema::Document;
use crate::common::{PATIENCE, Redis, Reply, Streamlag, TOKEN, eventually, free_port, streamlag};

/// Paths that are documented and that the router may not have yet.
const AWAITED: [&str; 2] = ["/api/v1/scale", "/api/v1/scale/{name}"];

/// Answers that other tests look at: a connection that is a WebSocket from then on, and decisions on plans, which take a sick group.
const ELSEWHERE: [(&str, u16); 8] = [
    ("/api/v1/events/live", 101),
    ("/api/v1/remediation/{id}/approve", 200),
    ("/api/v1/remediation/{id}/approve", 202),
    ("/api/v1/remediation/{id}/approve", 409),
    ("/api/v1/remediation/{id}/approve", 503),
    ("/api/v1/remediation/{id}/reject", 200),
    ("/api/v1/remediation/{id}/reject", 409),
    ("/api/v1/remediation/{id}/reject", 503),
];

const GROUP: &str = "signalr-consumers";

/// A scaler, whose name is that in [`asked`].
const SCALERS: &str = "scalers:\n- {name: chat, stream: 'events:chat', group: signalr-consumers}\n";

/// The paths of the router, from its source: those that it counts requests by.
fn routes() -> BTreeSet<String> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/route.rs")).unwrap();
    let (_, label) = source.split_once("fn label(self)").unwrap();
    let (label, _) = label.split_once("\n    }\n").unwrap();
    let paths = label.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    paths.map(|path| path.replace("NAME", "{name}").replace("ID", "{id}")).collect()
}

/// A documented operation, and what answers to it were seen.
struct Checked {
    document: Document,
    answered: BTreeSet<(String, String, u16)>,
    /// Each body with its schema, for the reference implementation.
    bodies: Vec<Value>,
}

impl Checked {
    fn new() -> Self {
        Self { document: Document::read(), answered: BTreeSet::new(), bodies: Vec::new() }
    }

    /// Operations that the router has: path and method, and the documented statuses.
    fn operations(&self) -> Vec<(String, String, BTreeSet<u16>)> {
        let routes = routes();
        let operations = self.document.operations().into_iter().filter(|(path, ..)| routes.contains(path));
        let statuses = |operation: &Value| {
            operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect()
        };
        operations.map(|(path, method, operation)| (path, method, statuses(&operation))).collect()
    }

    /// Holds an answer against what is documented.
    fn hold(&mut self, path: &str, method: &str, reply: &Reply) {
        let operations = self.document.operations();
        let found = operations.into_iter().find(|(known, by, _)| known == path && by == method);
        let (.., operation) = found.unwrap_or_else(|| panic!("{method} {path} is not documented"));
        let at = format!("{method} {path} {}", reply.status);
        let response = operation["responses"].get(reply.status.to_string());
        let response = response.unwrap_or_else(|| panic!("{at} is not documented: {}", reply.text()));
        let response = self.document.resolve(response, &at).0.clone();
        for (name, header) in response.get("headers").and_then(Value::as_object).into_iter().flatten() {
            assert_eq!(self.document.resolve(header, &at).0["required"], true, "{at}: {name}");
            assert!(reply.header(&name.to_ascii_lowercase()).is_some(), "{at}: no {name}");
        }
        match response.get("content") {
            None => assert_eq!(reply.text(), "", "{at}"),
            Some(content) => {
                let content_type = reply.header("content-type").unwrap_or_default();
                let form = content.get(content_type);
                let form = form.unwrap_or_else(|| panic!("{at}: the content type {content_type} is not documented"));
                let body = if content_type.contains("json") { reply.json() } else { json!(reply.text()) };
                self.check(&form["schema"], &body, &at);
            }
        }
        self.answered.insert((path.to_owned(), method.to_owned(), reply.status));
    }

    fn check(&mut self, schema: &Value, body: &Value, at: &str) {
        self.document.check(schema, body, at);
        self.bodies.push(json!({"at": at, "schema": schema, "body": body}));
    }

    /// Asks, and expects this status.
    fn ask(&mut self, streamlag: &Streamlag, path: &str, query: &str, status: u16) {
        self.ask_with(streamlag, path, query, &[("Authorization", &format!("Bearer {TOKEN}"))], status);
    }

    fn ask_with(&mut self, streamlag: &Streamlag, path: &str, query: &str, headers: &[(&str, &str)], status: u16) {
        let reply = streamlag.request("GET", &(asked(path) + query), headers);
        assert_eq!(reply.status, status, "{path}{query}: {}", String::from_utf8_lossy(&reply.body));
        self.hold(path, "GET", &reply);
    }
}

/// A documented path as it is asked for.
fn asked(path: &str) -> String {
    path.replace("{name}", "chat").replace("{id}", "0123456789abcdef")
}

/// Headers that a path's success takes beside the token.
fn accept(path: &str) -> (&'static str, &'static str) {
    if path == "/api/v1/events/live" { ("Accept", "text/event-stream") } else { ("Accept", "*/*") }
}

/// What a path's success takes in the query.
fn query(path: &str) -> String {
    match path {
        "/probe" => "?target=good".to_owned(),
        "/api/v1/scale" => format!("?stream=events:chat&group={GROUP}"),
        "/api/v1/events/history" => format!("?stream=events:chat&group={GROUP}&step=1s"),
        "/api/v1/events/forecast" => format!("?stream=events:chat&group={GROUP}"),
        _ => String::new(),
    }
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A stream with a group and two consumers, one that cannot be read, and one whose group is missing.
fn fill(redis: &Redis) {
    redis.run(&format!("XGROUP CREATE events:chat {GROUP} 0 MKSTREAM"));
    redis.run("XGROUP CREATE events:chat temporary 0");
    redis.add("events:chat", 200);
    redis.read("events:chat", GROUP, "instance-1", 77);
    redis.run(&format!("XGROUP CREATECONSUMER events:chat {GROUP} instance-2"));
    redis.run("SET events:ticket x");
    redis.run("XADD events:remote * n 1");
}

#[test]
fn every_answer_is_documented_and_every_documented_answer_is_given() {
    let mut checked = Checked::new();
    let documented: BTreeSet<String> = checked.document.operations().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(checked.document.version(), env!("CARGO_PKG_VERSION"));
    let routes = routes();
    assert!(routes.len() >= 14, "{routes:?}");
    let undocumented: Vec<&String> = routes.difference(&documented).collect();
    assert!(undocumented.is_empty(), "the router has them, and docs/openapi.yaml does not: {undocumented:?}");
    let lacking: Vec<&String> =
        documented.difference(&routes).filter(|path| !AWAITED.contains(&path.as_str())).collect();
    assert!(lacking.is_empty(), "docs/openapi.yaml has them, and the router does not: {lacking:?}");

    let redis = Redis::start();
    fill(&redis);
    let dir = tempfile::tempdir().unwrap();
    let has_scale = routes.contains("/api/v1/scale");
    let receiver = Receiver::start();
    let text = format!(
        "{}logical-streams: ['all=events:*']\ngroups: [{GROUP}, 'temp*']\nweb.enable-lifecycle: true\n\
         notify: {{for: 0s, group_wait: 0s, webhooks: [{{url: '{}'}}]}}\ntargets:\n- {{name: good, redis.url: '{}'}}\n\
         - {{name: down, redis.url: 'redis://127.0.0.1:{}'}}\n",
        if has_scale { SCALERS } else { "" },
        receiver.url("/"),
        redis.url_of_everybody(),
        free_port()
    );
    let file = write(&dir, "streamlag.yml", &text);
    let program = streamlag(&["--config.file", &file]).ready();
    answers_in_general(&mut checked, &program);
    special_answers(&mut checked, &program);
    if has_scale {
        checked.ask(&program, "/api/v1/scale", "?stream=events:chat&signal=consumers", 200);
        checked.ask(&program, "/api/v1/scale", "?stream=absent", 404);
        checked.ask(&program, "/api/v1/scale", "", 400);
        checked.ask(&program, "/api/v1/scale/{name}", "?stream=x", 400);
        let reply = program.get("/api/v1/scale/nobody");
        checked.hold("/api/v1/scale/{name}", "GET", &reply);
    }
    std::fs::write(&file, "nonsense: 1\n").unwrap();
    let reply = program.request("POST", "/-/reload", &[("Authorization", &format!("Bearer {TOKEN}"))]);
    assert_eq!(reply.status, 500);
    checked.hold("/-/reload", "POST", &reply);
    if routes.contains("/api/v1/events/live") {
        live(&mut checked, &program, &redis);
    }
    drop(program);

    before_the_first_poll(&mut checked, &dir);
    too_many_requests(&mut checked, &dir, &redis);
    without_a_password(&mut checked, &dir, &redis);
    without_a_certificate(&mut checked, &dir, &redis);

    for (path, method, statuses) in checked.operations() {
        for status in statuses {
            let is_answered = checked.answered.contains(&(path.clone(), method.clone(), status));
            let is_elsewhere = ELSEWHERE.contains(&(path.as_str(), status));
            assert!(is_answered || is_elsewhere, "{method} {path} {status} is documented and was never answered");
        }
    }
    let is_awaited = |pointer: &str| {
        let of = |schema: &str| pointer.starts_with(&format!("/components/schemas/{schema}"));
        // A forecast takes history of 20 minutes: a unit test of its body has these.
        let takes_history =
            of("Forecast/properties/points/items") || of("TimeTo/properties") || of("MaybeForecastSkill/");
        // Plans take a sick group: tests/it/remediation.rs has these.
        takes_history
            || of("Remediation")
            || (of("Scale") && !has_scale)
            || (of("Live") && !routes.contains("/api/v1/events/live"))
    };
    let unseen: Vec<String> = checked.document.unseen().into_iter().filter(|pointer| !is_awaited(pointer)).collect();
    assert!(unseen.is_empty(), "documented and in no answer: {unseen:#?}");
    let bodies = serde_json::to_vec(&checked.bodies).unwrap();
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/openapi-answers.json"), bodies).unwrap();
}

/// What all paths have in common: success, a missing token, another method, a target that is not declared.
fn answers_in_general(checked: &mut Checked, program: &Streamlag) {
    let bearer = format!("Bearer {TOKEN}");
    // The groups' rows have all that they can have, and the unreadable stream is known to be so.
    eventually("everything is there", || {
        (program.json("logical-streams")["logical_streams"][0]["lag"] != Value::Null).then_some(())
    });
    eventually("history", || {
        let trends = program.json("trends?window=1m");
        trends["trends"].as_array()?.iter().any(|trend| trend["arrivals_per_second"].is_object()).then_some(())
    });
    eventually("an incident is told", || {
        let list = program.get("/api/v1/incidents").json();
        list["incidents"].as_array()?.iter().any(|row| row["delivery"][0]["told"] == "firing").then_some(())
    });
    for (path, method, statuses) in checked.operations() {
        if method == "GET" {
            if statuses.contains(&400) && path.starts_with("/api/") {
                checked.ask_with(program, &path, "?nothing=1", &[("Authorization", &bearer), accept(&path)], 400);
            }
            if statuses.contains(&200) && path != "/api/v1/events/live" {
                checked.ask(program, &path, &query(&path), 200);
            }
            if statuses.contains(&404) && path != "/api/v1/scale/{name}" {
                let parameter =
                    if path == "/api/v1/scale" { "?stream=events:chat&redis_target=nobody" } else { "?target=nobody" };
                checked.ask_with(program, &path, parameter, &[("Authorization", &bearer), accept(&path)], 404);
            }
            if statuses.contains(&401) && path.starts_with("/api/") && path != "/api/v1/sd" {
                checked.ask_with(program, &path, &query(&path), &[], 401);
            }
        }
        let other = if method == "GET" { "DELETE" } else { "GET" };
        let reply = program.request(other, &asked(&path), &[("Authorization", &bearer)]);
        assert_eq!(reply.status, 405, "{other} {path}");
        checked.hold(&path, &method, &reply);
    }
}

/// Answers of single paths.
fn special_answers(checked: &mut Checked, program: &Streamlag) {
    let group = format!("?group={GROUP}");
    for path in ["consumer-lag", "streams", "health", "groups", "consumers", "logical-streams"] {
        let path = format!("/api/v1/events/{path}");
        checked.ask(program, &path, &group, 200);
        checked.ask(program, &path, "?group=nobody", 404);
    }
    for path in ["consumer-lag", "streams", "groups"] {
        checked.ask(program, &format!("/api/v1/events/{path}"), "?target=down", 200);
    }
    checked.ask(program, "/api/v1/events/health", "?target=down", 503);
    checked.ask(program, "/api/v1/incidents", "?status=nothing", 400);
    checked.ask_with(program, "/api/v1/targets", "", &[("Authorization", "Bearer wrong")], 401);
    let openmetrics = ("Accept", "application/openmetrics-text;version=1.0.0");
    checked.ask_with(program, "/metrics", "", &[openmetrics], 200);
    checked.ask_with(program, "/probe", "?target=down", &[openmetrics], 200);
    checked.ask(program, "/metrics", "?collect[]=nothing", 400);
    checked.ask(program, "/probe", "", 400);
    checked.ask(program, "/api/v1/events/history", "", 400);
    checked.ask(program, "/api/v1/events/trends", "?window=0", 400);
    checked.ask(program, "/api/v1/events/forecast", "", 400);
    if routes().contains("/ui/") {
        checked.ask(program, "/ui", "", 308);
        for path in ["/ui/", "/ui/style.css", "/ui/app.js"] {
            checked.ask_with(program, path, "", &[("If-None-Match", "*")], 304);
        }
    }
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/api/v1/remediation/{id}/approve", "/api/v1/remediation/{id}/reject"] {
        for (headers, status) in [(vec![("Authorization", bearer.as_str())], 403), (Vec::new(), 401)] {
            let reply = program.request("POST", &asked(path), &headers);
            assert_eq!(reply.status, status);
            checked.hold(path, "POST", &reply);
        }
    }
    for (headers, status) in [(vec![("Authorization", bearer.as_str())], 200), (Vec::new(), 401)] {
        let reply = program.request("POST", "/-/reload", &headers);
        assert_eq!(reply.status, status);
        checked.hold("/-/reload", "POST", &reply);
    }
}

/// The first message, changes, and the end of a stream of events, with which the program ends.
fn live(checked: &mut Checked, program: &Streamlag, redis: &Redis) {
    let path = "/api/v1/events/live";
    let bearer = format!("Bearer {TOKEN}");
    let token = ("Authorization", bearer.as_str());
    checked.ask(program, path, "", 406);
    checked.ask_with(program, path, "?nothing=1", &[token, accept(path)], 400);
    checked.ask_with(program, path, "", &[token, accept(path), ("Origin", "http://elsewhere.example")], 403);
    let upgrade = [token, ("Connection", "Upgrade, close"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "8")];
    let head = upgrade.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    let host = program.address;
    let reply = program.raw(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n").as_bytes());
    assert_eq!(reply.status, 426);
    checked.hold(path, "GET", &reply);

    let mut connection = TcpStream::connect(program.address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\nAccept: text/event-stream\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(connection).lines().map(|line| line.unwrap());
    let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
    let head = Reply::parse((head.join("\r\n") + "\r\n\r\n").as_bytes());
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    checked.answered.insert((path.to_owned(), "GET".to_owned(), 200));
    let schema = json!({"$ref": "#/components/schemas/LiveMessage"});
    let mut next = |checked: &mut Checked, kind: &str, wanted: &dyn Fn(&Value) -> bool| {
        for line in lines.by_ref() {
            // Chunked, and one message is one line.
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let message: Value = serde_json::from_str(data).unwrap();
            checked.check(&schema, &message, path);
            if message["type"] == kind && wanted(&message) {
                return;
            }
        }
        panic!("no {kind}");
    };
    next(checked, "snapshot", &|_| true);
    next(checked, "incident", &|incidents| incidents["all"] == true);
    redis.add("events:chat", 5);
    next(checked, "update", &|update| update["groups"][0]["stream"] == "events:chat");
    // One that only a pattern matches.
    redis.run("XGROUP DESTROY events:chat temporary");
    next(checked, "update", &|update| update["gone"][0]["consumer_group"] == "temporary");
    program.signal("-TERM");
    next(checked, "end", &|_| true);
}

/// A Redis that does not answer.
fn before_the_first_poll(checked: &mut Checked, dir: &tempfile::TempDir) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let file = write(dir, "silent.yml", if routes().contains("/api/v1/scale") { SCALERS } else { "" });
    let program = streamlag(&["--redis.url", &url, "--redis.timeout", "1h", "--config.file", &file]);
    let bearer = format!("Bearer {TOKEN}");
    for (path, method, statuses) in checked.operations() {
        if statuses.contains(&503) && method == "GET" {
            checked.ask_with(&program, &path, &query(&path), &[("Authorization", &bearer), accept(&path)], 503);
        }
    }
    let reply = program.request("POST", "/-/reload", &[("Authorization", &bearer)]);
    assert_eq!(reply.status, 403);
    checked.hold("/-/reload", "POST", &reply);
}

fn too_many_requests(checked: &mut Checked, dir: &tempfile::TempDir, redis: &Redis) {
    let web = write(dir, "rate.yml", "rate_limit: {interval: 1h, burst: 1}\n");
    let program = streamlag(&["--redis.url", &redis.url(), "--web.config.file", &web]);
    assert_eq!(program.request("GET", "/", &[]).status, 200);
    for (path, method, statuses) in checked.operations() {
        if statuses.contains(&429) {
            let reply = program.request(&method, &(asked(&path) + &query(&path)), &[]);
            assert_eq!(reply.status, 429, "{path}");
            checked.hold(&path, &method, &reply);
        }
    }
    let program = streamlag(&["--redis.url", &redis.url(), "--api.rate-limit", "1", "--api.rate-burst", "1"]).ready();
    checked.ask(&program, "/api/v1/events/groups", "", 200);
    eventually("the token's rate is used up", || {
        let reply = program.get("/api/v1/events/groups");
        checked.hold("/api/v1/events/groups", "GET", &reply);
        (reply.status == 429).then_some(())
    });
}

fn without_a_password(checked: &mut Checked, dir: &tempfile::TempDir, redis: &Redis) {
    let hash = bcrypt::hash("p", 4).unwrap();
    let web = write(dir, "users.yml", &format!("basic_auth_users:\n  u: {hash}\n"));
    let program = streamlag(&["--redis.url", &redis.url(), "--web.config.file", &web]);
    for path in ["/metrics", "/probe", "/api/v1/sd"] {
        checked.ask_with(&program, path, &query(path), &[], 401);
    }
}

/// Over TLS, by curl.
fn without_a_certificate(checked: &mut Checked, dir: &tempfile::TempDir, redis: &Redis) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write(dir, "c.pem", &made.cert.pem());
    write(dir, "k.pem", &made.signing_key.serialize_pem());
    let web = "tls_server_config:\n  cert_file: c.pem\n  key_file: k.pem\n  client_ca_file: c.pem\n  \
               client_auth_type: RequireAndVerifyClientCert\n";
    let web = write(dir, "tls.yml", web);
    let program = streamlag(&["--redis.url", &redis.url(), "--web.config.file", &web]);
    for (path, method, statuses) in checked.operations() {
        if statuses.contains(&403) {
            let url = format!("https://{}{}{}", program.address, asked(&path), query(&path));
            let output = Command::new("curl").args(["-sik", "--http1.1", "-X", &method, &url]).output().unwrap();
            let reply = Reply::parse(&output.stdout);
            assert_eq!(reply.status, 403, "{path}");
            checked.hold(&path, &method, &reply);
        }
    }
}
