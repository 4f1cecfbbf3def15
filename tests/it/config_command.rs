//! `streamlag config`, `completions` and `man`: what is printed of the settings, from the same table as the flags.

use serde_json::{Value, json};
use streamlag::config::SETTINGS;

use crate::common::{command, pipe_through};

/// Exit code, standard output, standard error.
fn run(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = command(arguments, env).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn print(arguments: &[&str], env: &[(&str, &str)]) -> String {
    let (code, out, err) = run(arguments, env);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
    out
}

const FILE: &str = "\
poll:
  interval: 1s
streams: ['a', 'b,c']
redis.timeout: 3s
api.tokens-file: tokens
web.enable-lifecycle: true
targets:
- name: eu
  redis:
    url: redis://me:hunter2@eu:6379/1
- name: us
  redis.mode: cluster
";

#[test]
fn each_setting_with_its_value_and_where_that_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    std::fs::write(&path, FILE).unwrap();
    std::fs::write(dir.path().join("tokens"), "").unwrap();
    let (path, tokens) = (path.to_str().unwrap(), dir.path().join("tokens"));
    let arguments = ["--config.file", path, "--redis.timeout", "4s", "--no-collector.loss", "--lag.degraded=5"];
    let env = [
        ("STREAMLAG_POLL_INTERVAL", ""),
        ("STREAMLAG_REDIS_TIMEOUT", "5s"),
        ("STREAMLAG_GROUP_WINDOW", "7s"),
        ("STREAMLAG_REDIS_URL", "rediss://:hunter2@h"),
        ("REDIS_URL", "redis://:hunter2@other"),
        ("STREAMLAG_API_TOKEN", "hunter2"),
        ("EVENT_TRANSPORT_STREAM_MAX_LEN", "99"),
        ("STREAMLAG_HISTORY_PROMETHEUS_URL", "https://h/hunter2"),
    ];
    let json = print(&[&["config", "-o", "json"], &arguments[..]].concat(), &env);
    let table = print(&[&["config"], &arguments[..]].concat(), &env);
    assert!(!json.contains("hunter2") && !table.contains("hunter2"), "{table}");
    let document: Value = serde_json::from_str(&json).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let check = |key: &str, value: Value, from: Value, text: &str| {
        let found = settings.iter().find(|setting| setting["setting"] == key).unwrap_or_else(|| panic!("{key}"));
        assert_eq!((&found["value"], &found["from"]), (&value, &from), "{key}");
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        let line: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(line[1..].join(" "), text);
    };
    let variable = |name: &str| json!({"kind": "environment", "variable": name});
    let file = |line: u64| json!({"kind": "file", "file": path, "line": line});
    let (flag, default) = (json!({"kind": "flag"}), json!({"kind": "default"}));
    check("redis.timeout", json!("4s"), flag.clone(), "4s flag");
    check("lag.degraded", json!("5"), flag.clone(), "5 flag");
    check("collector.loss", json!("false"), flag, "false flag");
    check("group.window", json!("7s"), variable("STREAMLAG_GROUP_WINDOW"), "7s environment STREAMLAG_GROUP_WINDOW");
    check("poll.interval", json!("1s"), file(2), &format!("1s {path}:2"));
    check("streams", json!(["a", "b,c"]), file(3), &format!("a,b,c {path}:3"));
    check("web.enable-lifecycle", json!("true"), file(6), &format!("true {path}:6"));
    check("web.systemd-socket", json!("false"), default.clone(), "false default");
    check("lag.unhealthy", json!("1000"), default.clone(), "1000 default");
    check("groups", json!(["signalr-consumers"]), default, "signalr-consumers default");
    check("redis.password-file", Value::Null, Value::Null, "(not set)");
    // Where the program looks for it.
    check("api.tokens-file", json!(tokens), file(5), &format!("{} {path}:5", tokens.display()));
    let url = "rediss://***@h:6379/0";
    check("redis.url", json!(url), variable("STREAMLAG_REDIS_URL"), &format!("{url} environment STREAMLAG_REDIS_URL"));
    let (past, url) = ("STREAMLAG_HISTORY_PROMETHEUS_URL", "https://h:443/***");
    check("history.prometheus-url", json!(url), variable(past), &format!("{url} environment {past}"));
    let length = "EVENT_TRANSPORT_STREAM_MAX_LEN";
    check("event-transport.stream-max-len", json!("99"), variable(length), &format!("99 environment {length}"));
    let token = "STREAMLAG_API_TOKEN";
    check(token, json!("(not shown)"), variable(token), &format!("(not shown) environment {token}"));
    // Every setting, each once.
    let keys: Vec<&str> = settings.iter().filter_map(|setting| setting["setting"].as_str()).collect();
    let is_action = |key: &&str| ["config.check", "healthcheck"].contains(key);
    let expected = SETTINGS.iter().map(|setting| setting.key).filter(|key| !is_action(key)).chain([token]);
    assert!(keys.into_iter().eq(expected));
    let targets = json!([
        {"name": "eu", "settings": [{"setting": "redis.url", "value": "redis://***@eu:6379/1", "from": file(10)}]},
        {"name": "us", "settings": [{"setting": "redis.mode", "value": "cluster", "from": file(12)}]},
    ]);
    assert_eq!(document["targets"], targets);
    assert!(table.contains("\nTarget eu: the settings above, and\nSETTING"), "{table}");
}

#[test]
fn scalers_and_notify_are_shown_with_their_defaults_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("streamlag.yml");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = "\
groups: [mail]
scalers:
- name: a
  stream: orders
  target: 7
- {name: b, streams: 'orders:*', signal: forecast, look-ahead: 90s, group: mail}
notify:
  alertmanagers: ['http://am:9093/hunter2']
  webhooks:
  - url: https://hooks.example/services/hunter2?key=hunter2
    secret-file: secret
  - {url: 'http://h', allow-plain: true}
  labels: {cluster: eu}
  group-wait: 90s
";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let json = print(&["config", "-o", "json", "--config.file", path], &[]);
    let table = print(&["config", "--config.file", path], &[]);
    for text in [&json, &table] {
        assert!(!text.contains("hunter2") && !text.contains("MfKQ"), "{text}");
    }
    let document: Value = serde_json::from_str(&json).unwrap();
    let line = |setting: &str, value: Value, line: u64| {
        let from = match line {
            0 if value.is_null() => Value::Null,
            0 => json!({"kind": "default"}),
            line => json!({"kind": "file", "file": path, "line": line}),
        };
        json!({"setting": setting, "value": value, "from": from})
    };
    let scalers = json!([
        {"name": "a", "settings": [
            line("stream", json!("orders"), 4),
            line("group", json!("mail"), 0),
            line("signal", json!("work"), 0),
            line("target", json!("7"), 5),
            line("look_ahead", Value::Null, 0),
            line("redis_target", json!("default"), 0),
        ]},
        {"name": "b", "settings": [
            line("streams", json!("orders:*"), 6),
            line("group", json!("mail"), 6),
            line("signal", json!("forecast"), 6),
            line("target", json!("100"), 0),
            line("look_ahead", json!("1m 30s"), 6),
            line("redis_target", json!("default"), 0),
        ]},
    ]);
    assert_eq!(document["scalers"], scalers);
    let notify = json!([
        line("alertmanagers.1", json!("http://am:9093/***"), 8),
        line("webhooks.1.url", json!("https://hooks.example:443/***"), 10),
        line("webhooks.1.secret_file", json!(secret), 11),
        line("webhooks.2.url", json!("http://h:80"), 12),
        line("webhooks.2.allow_plain", json!("true"), 12),
        line("labels.cluster", json!("eu"), 13),
        line("labels.job", json!("streamlag"), 0),
        line("for", Value::Null, 0),
        line("group_wait", json!("1m 30s"), 14),
        line("group_interval", json!("5m"), 0),
        line("repeat_interval", json!("4h"), 0),
        line("ca_file", Value::Null, 0),
    ]);
    assert_eq!(document["notify"], notify);
    for heading in ["\nScaler a\nSETTING", "\nScaler b\nSETTING", "\nNotifications\nSETTING"] {
        assert!(table.contains(heading), "{table}");
    }
    let without: Value = serde_json::from_str(&print(&["config", "-o", "json"], &[])).unwrap();
    assert_eq!((&without["scalers"], &without["notify"]), (&json!([]), &json!([])));
}

#[test]
fn remediation_is_shown_with_its_defaults_and_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (name, text) in [("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), ("password", "hunter2")] {
        std::fs::write(path(name), text).unwrap();
        std::fs::set_permissions(path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let text = "\
remediation:
  user: streamlag-act
  password-file: password
  audit_file: audit.jsonl
  rules:
  - stream: 'orders:*'
    group: mail
    mode: auto
    actions: [release, dead_letter]
    budget: {acts_per_hour: 10, entries-per-act: 7}
    dead_letter: {stream: 'orders:dead', deliveries: 5}
  - {target: d*, stream: '*', group: '*', mode: approve, actions: [hook], hook: {url: 'https://h/hunter2', secret_file: secret}}
  - {stream: 's', group: '*', mode: off}
";
    let file = path("streamlag.yml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["--config.file", file, "--redis.url", "redis://watcher@h"];
    let json = print(&[&["config", "-o", "json"], &arguments[..]].concat(), &[]);
    let table = print(&[&["config"], &arguments[..]].concat(), &[]);
    for text in [&json, &table] {
        assert!(!text.contains("hunter2") && !text.contains("MfKQ"), "{text}");
    }
    let document: Value = serde_json::from_str(&json).unwrap();
    let line = |setting: &str, value: Value, line: u64| {
        let from = match line {
            0 if value.is_null() => Value::Null,
            0 => json!({"kind": "default"}),
            line => json!({"kind": "file", "file": file, "line": line}),
        };
        json!({"setting": setting, "value": value, "from": from})
    };
    let expected = json!([
        line("user", json!("streamlag-act"), 2),
        line("password_file", json!(path("password")), 3),
        line("audit_file", json!(path("audit.jsonl")), 4),
        line("kill_switch_file", Value::Null, 0),
        line("ca_file", Value::Null, 0),
        line("two_person", json!("false"), 0),
        line("rules.1.target", json!("*"), 0),
        line("rules.1.stream", json!("orders:*"), 6),
        line("rules.1.group", json!("mail"), 7),
        line("rules.1.mode", json!("auto"), 8),
        line("rules.1.actions", json!("release,dead_letter"), 9),
        line("rules.1.budget.acts_per_hour", json!("10"), 10),
        line("rules.1.budget.entries_per_act", json!("7"), 10),
        line("rules.1.dead_letter.stream", json!("orders:dead"), 11),
        line("rules.1.dead_letter.deliveries", json!("5"), 11),
        line("rules.1.dead_letter.idle", json!("1m"), 0),
        line("rules.2.target", json!("d*"), 12),
        line("rules.2.stream", json!("*"), 12),
        line("rules.2.group", json!("*"), 12),
        line("rules.2.mode", json!("approve"), 12),
        line("rules.2.actions", json!("hook"), 12),
        line("rules.2.budget.acts_per_hour", Value::Null, 0),
        line("rules.2.budget.entries_per_act", json!("100"), 0),
        line("rules.2.hook.url", json!("https://h:443/***"), 12),
        line("rules.2.hook.secret_file", json!(path("secret")), 12),
        line("rules.3.target", json!("*"), 0),
        line("rules.3.stream", json!("s"), 13),
        line("rules.3.group", json!("*"), 13),
        line("rules.3.mode", json!("off"), 13),
        line("rules.3.actions", Value::Null, 0),
        line("rules.3.budget.acts_per_hour", Value::Null, 0),
        line("rules.3.budget.entries_per_act", json!("100"), 0),
    ]);
    assert_eq!(document["remediation"], expected);
    assert!(table.contains("\nRemediation\nSETTING"), "{table}");
    let without: Value = serde_json::from_str(&print(&["config", "-o", "json"], &[])).unwrap();
    assert_eq!(without["remediation"], json!([]));
}

#[test]
fn urls_are_shown_without_what_may_be_secret() {
    let check = |url: &str, shown: &str| {
        let document: Value = serde_json::from_str(&print(&["config", "-o", "json", "--redis.url", url], &[])).unwrap();
        assert_eq!(document["settings"][0]["value"], shown);
    };
    check("redis://localhost", "redis://localhost:6379/0");
    check("redis://me@localhost:1/2", "redis://***@localhost:1/2");
    check("redis://me:hunter2@[::1]:1/2", "redis://***@[::1]:1/2");
    check("redis://:redis%3A%2F%2Fhunter2@h", "redis://***@h:6379/0");
    check("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2");
    check("unix:///run/redis.sock?db=2&pass=hunter2", "unix:///run/redis.sock?db=2&pass=***");
}

#[test]
fn what_is_wrong_is_an_error_and_not_printed() {
    let check = |arguments: &[&str], expected: &str| {
        let (code, out, err) = run(arguments, &[]);
        assert_eq!((code, out.as_str(), err), (Some(2), "", format!("streamlag: {expected}\n")), "{arguments:?}");
    };
    check(
        &["config", "--poll.spread", "x"],
        "invalid value \"x\" for --poll.spread: expected a percentage between 0% and 90%",
    );
    check(&["config", "-o", "csv"], "invalid value \"csv\" for --output: expected one of table, json");
    check(&["completions", "tcsh"], "invalid value \"tcsh\" for SHELL: expected one of bash, zsh, fish");
    check(
        &["man", "nothing"],
        "invalid value \"nothing\" for COMMAND: expected one of lag, config, history, token, audit, notify, completions, man",
    );
    check(&["confi"], "unexpected argument \"confi\": did you mean config? See streamlag --help");
    check(&["man", "history", "x"], "invalid value \"x\" for COMMAND: expected one of export, info");
    check(&["man", "lag", "x"], "invalid value \"x\" for COMMAND: lag has no subcommands");
    let (code, _, err) = run(&["completions"], &[]);
    assert!(code == Some(2) && err.contains("<SHELL>") && err.lines().count() == 1, "{err}");
    let (code, _, err) = run(&["config"], &[("STREAMLAG_STREAM", "x")]);
    assert_eq!(code, Some(0));
    assert_eq!(
        err,
        "streamlag: warning: unknown environment variable STREAMLAG_STREAM: did you mean STREAMLAG_STREAMS?\n"
    );
}

#[test]
fn completions_are_scripts_that_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let script = print(&["completions", shell], &[]);
        let (good, said) = pipe_through(shell, &["-n"], script.as_bytes());
        assert!(good && said.is_empty(), "{shell}: {said}");
        for setting in SETTINGS.iter().filter(|setting| !setting.key.starts_with("event-transport.")) {
            assert!(script.contains(setting.key), "{shell} does not complete --{}", setting.key);
        }
    }
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let at = words.len() - 1;
        let ask = format!(
            "\nCOMP_WORDS=({line}) COMP_CWORD={at}\n_streamlag streamlag '{}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            words[at],
            words[at - 1]
        );
        let script = print(&["completions", "bash"], &[]) + &ask;
        let (good, said) = pipe_through("bash", &[], script.as_bytes());
        assert!(good, "{said}");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete("streamlag --redis.ti"), ["--redis.timeout"]);
    assert_eq!(complete("streamlag comp"), ["completions"]);
    assert_eq!(complete("streamlag lag --out"), ["--output"]);
    assert_eq!(complete("streamlag lag --output j"), ["json"]);
    assert_eq!(complete("streamlag completions f"), ["fish"]);
    let in_fish = |line: &str| {
        let script = print(&["completions", "fish"], &[]) + &format!("\ncomplete -C '{line}'\n");
        let (good, said) = pipe_through("fish", &["--no-config"], script.as_bytes());
        assert!(good, "{said}");
        said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(in_fish("streamlag --redis.ti"), ["--redis.timeout"]);
    assert_eq!(in_fish("streamlag --redis.timeout 1s --poll.sp"), ["--poll.spread"]);
    assert_eq!(in_fish("streamlag comp"), ["completions"]);
    assert_eq!(in_fish("streamlag lag --redis.ti"), ["--redis.timeout"]);
    assert_eq!(in_fish("streamlag lag --output j"), ["json"]);
    assert_eq!(in_fish("streamlag history ex"), ["export"]);
    assert_eq!(in_fish("streamlag history export --st"), ["--step", "--stream"]);
    assert_eq!(in_fish("streamlag completions f"), ["fish"]);
}

#[test]
fn manual_pages_render_and_name_every_flag() {
    let render = |arguments: &[&str]| {
        let page = print(&[&["man"], arguments].concat(), &[("REDIS_URL", "redis://:hunter2@h")]);
        let (good, text) =
            pipe_through("groff", &["-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=200n"], page.as_bytes());
        assert!(good && !text.contains("warning") && !text.contains("error:"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let text = render(&[]);
    for setting in SETTINGS {
        if !setting.key.starts_with("event-transport.") {
            assert!(text.contains(&format!("--{}", setting.key)), "--{}", setting.key);
        }
        assert!(setting.env.is_none_or(|env| text.contains(env)), "{:?}", setting.env);
    }
    for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SUBCOMMANDS", "streamlag-lag(1)", "Exit codes: "] {
        assert!(text.contains(heading), "{heading}: {text}");
    }
    for subcommand in ["lag", "config", "history", "token", "completions", "man"] {
        let text = render(&[subcommand]);
        assert!(text.contains(&format!("streamlag {subcommand} [OPTIONS]")), "{text}");
    }
    for (command, of) in [("history", "export"), ("history", "info"), ("notify", "test")] {
        let parent = render(&[command]);
        assert!(parent.contains(&format!("streamlag {command} COMMAND ...")), "{parent}");
        assert!(parent.contains(&format!("streamlag-{command}-{of}(1)")), "{parent}");
        let text = render(&[command, of]);
        assert!(text.contains(&format!("streamlag {command} {of} [OPTIONS]")), "{text}");
        assert!(text.contains("--config.file"), "{text}");
    }
}
