use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::*;
use crate::collector::{Address, RedisMode};
use crate::config::file::File;
use crate::config::values::ValueOrigin;
use crate::exposition::collectors::{Collector, Collectors};
use crate::model::thresholds::Thresholds;
use crate::model::{GroupName, StreamKey};

/// Settings as if all of them came from the environment, over the defaults.
#[derive(Default)]
struct Fake {
    values: BTreeMap<&'static str, &'static str>,
    token: Option<&'static str>,
    open: bool,
}

impl SettingSources for Fake {
    fn get(&self, key: &str) -> Option<RawValue> {
        let setting = Setting::find(key)?;
        let (origin, value) = match self.values.get(key) {
            Some(value) => (ValueOrigin::Environment(setting.env.unwrap_or_default()), *value),
            None => (ValueOrigin::Default, setting.default?),
        };
        Some(RawValue::new(setting, origin, vec![OsString::from(value)]))
    }

    fn switch(&self, key: &str) -> bool {
        key == "api.insecure-no-auth" && self.open
    }

    fn api_token(&self) -> Option<String> {
        self.token.map(str::to_owned)
    }
}

/// The only target of a configuration.
fn target(values: &[(&'static str, &'static str)]) -> Result<TargetConfig, ConfigError> {
    config(values).map(|mut config| config.targets.remove(0))
}

fn config(values: &[(&'static str, &'static str)]) -> Result<Config, ConfigError> {
    Config::from_sources(&Fake { values: values.iter().copied().collect(), ..Fake::default() })
}

#[test]
fn what_a_reload_changed_is_said_by_name() {
    let changed = |one: &[(&'static str, &'static str)], other: &[(&'static str, &'static str)]| {
        let [one, other] = [one, other].map(|values| config(values).unwrap().digests);
        assert!(!format!("{other:?}").contains("hunter2"), "{other:?}");
        one.changed(&other)
    };
    assert_eq!(changed(&[], &[]), "nothing");
    assert_eq!(changed(&[], &[("streams", "a"), ("redis.url", "redis://:hunter2@h")]), "redis.url, streams");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path: &'static str = file.path().to_str().unwrap().to_owned().leak();
    let with_file = |token: &str| {
        std::fs::write(path, format!("ops sha256:{}\n", token.repeat(32))).unwrap();
        config(&[("api.tokens-file", path)]).unwrap().digests
    };
    assert_eq!(with_file("ab").changed(&with_file("cd")), "api.tokens-file", "its name is the same");
    let many: BTreeMap<String, u64> = (0..23).map(|n| (format!("k{n:02}"), n)).collect();
    assert!(SettingDigests::default().changed(&SettingDigests::of(many)).ends_with(", k18, k19 and 3 more"));
}

/// A setting of history that is added is looked at here, too.
#[test]
fn any_other_setting_of_history_requires_a_restart_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| -> &'static str {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned().leak()
    };
    let certificate = || rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap().cert.pem();
    let [one_ca, other_ca] = ["one.pem", "other.pem"].map(|name| file(name, &certificate()));
    let [one_token, other_token] = ["one", "other"].map(|name| file(name, "s3cret"));
    let url = ("history.prometheus-url", "http://h");
    for setting in SETTINGS.iter().filter(|setting| setting.key.starts_with("history.")) {
        let (beside, one, other) = match setting.key {
            "history.path" => (None, "history.db", "other.db"),
            "history.memory" => (None, "2MiB", "3MiB"),
            "history.retention" | "history.coarse-retention" => (None, "1d", "2d"),
            "history.max-size" => (None, "16MiB", "17MiB"),
            "history.prometheus-url" => (None, "http://h/one", "http://h/other"),
            "history.prometheus-token-file" => (Some(url), one_token, other_token),
            "history.prometheus-ca-file" => (Some(url), one_ca, other_ca),
            "history.prometheus-labels" => (Some(url), "cluster=eu", "cluster=us"),
            key => panic!("{key} is not looked at"),
        };
        let beside: Vec<_> = beside.into_iter().collect();
        let with = |value| config(&[&beside[..], &[(setting.key, value)]].concat()).unwrap();
        let may_become = |new: &Config| with(one).may_become(new).map_err(|problem| problem.to_string());
        assert_eq!(may_become(&with(one)), Ok(()), "{}", setting.key);
        let refused = Err(format!("{} has changed, which requires a restart", setting.key));
        for new in [with(other), config(&beside).unwrap()] {
            assert_eq!(may_become(&new), refused);
        }
    }
    // The file has the same name and another content.
    let of_ca = || config(&[url, ("history.prometheus-ca-file", one_ca)]).unwrap();
    let before = of_ca();
    std::fs::write(one_ca, certificate()).unwrap();
    assert!(before.may_become(&of_ca()).unwrap_err().to_string().starts_with("history.prometheus-ca-file has changed"));
}

#[test]
fn defaults_are_the_contracts() {
    let config = config(&[]).unwrap();
    let [target] = &config.targets[..] else { panic!("{:?}", config.targets) };
    assert_eq!(target.name, TargetName::default());
    assert_eq!(target.redis.to_string(), "redis://localhost:6380/0");
    assert_eq!(
        (target.redis.mode, target.redis.nodes.len(), target.redis.max_connections),
        (RedisMode::Standalone, 0, 30)
    );
    assert_eq!(target.timeout, Duration::from_secs(2));
    assert_eq!(target.streams, ["events:chat", "events:ticket", "events:remote"]);
    assert_eq!(target.groups.literals(), ["signalr-consumers".into()]);
    assert_eq!((target.streams_exclude.len(), target.logical.is_empty(), target.consumers), (0, true, true));
    assert_eq!((target.interval, target.discovery_interval), (Duration::from_secs(5), Duration::from_secs(60)));
    assert_eq!(target.thresholds, Thresholds { degraded: 100, unhealthy: 1000 }.into());
    assert_eq!(target.limits, TargetLimits { streams: 10_000, groups: 100, consumers: 100 });
    assert_eq!((target.max_redis_share, target.spread), (0.05, 0.5));
    assert_eq!((target.stream_max_len, config.shard), (None, None));
    assert_eq!(target.collectors, Collectors::default());
    assert_eq!(config.listen, ["0.0.0.0:8000"]);
    assert_eq!(config.telemetry_path, "/metrics");
    assert_eq!(config.transport.mode, "redis_streams");
    assert_eq!(config.transport.publish_timeout, Duration::from_millis(100));
    assert!(matches!(config.auth, ApiAuth::Closed));
}

#[test]
fn good_values() {
    let check = |key, value| drop(config(&[(key, value)]).unwrap_or_else(|problem| panic!("{problem}")));
    check("redis.url", "rediss://user:pw@example.com:7000/3");
    check("redis.url", "unix:///run/redis.sock");
    check("poll.interval", "50ms");
    check("poll.interval", "1m 30s");
    check("groups", "*");
    check("web.listen-address", ":8000");
    check("web.listen-address", "[::1]:0,localhost:9000");
    check("web.telemetry-path", "/streamlag/metrics");
    check("log.level", "DEBUG");
    check("log.format", "json");
    let addresses = config(&[("web.listen-address", ":8000, [::]:80")]).unwrap().listen;
    assert_eq!(addresses, ["0.0.0.0:8000", "[::]:80"]);
    let of = |key, value| target(&[(key, value)]).unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(of("streams", "a, b,a").streams, ["a", "b"]);
    let streams = target(&[("streams", "a,b,events:*"), ("streams.exclude", "b*")]).unwrap();
    assert_eq!(
        (streams.streams.len(), streams.stream_selection(None).literals().to_vec()),
        (3, vec![StreamKey::from("a")])
    );
    let groups = target(&[("groups", "a,b,c*"), ("groups.exclude", "b,cc")]).unwrap().groups;
    assert!(groups.literals() == [GroupName::from("a")] && groups.contains(&"c".into()));
    assert!(!groups.contains(&"b".into()) && !groups.contains(&"cc".into()));
    for (text, on) in [("on", true), ("OFF", false), ("false", false)] {
        assert_eq!(of("consumers", text).consumers, on, "{text}");
    }
    assert_eq!(of("collector.rates", "yes").collectors, Collectors::default().with(Collector::Rates));
    let none = target(&[
        ("collector.consumers", "false"),
        ("collector.loss", "false"),
        ("collector.states", "false"),
        ("collector.streams", "false"),
    ]);
    assert_eq!(none.unwrap().collectors, Collectors::NONE.with(Collector::Groups));
    assert_eq!(of("poll.max-redis-share", "0.5 %").max_redis_share, 0.005);
    assert_eq!(of("poll.spread", "0%").spread, 0.0);
    assert_eq!(config(&[("shard", "2/3")]).unwrap().shard, Shard::new(2, 3));
    let logical = of("logical-streams", "orders=orders:{0..63},mail=mail:{a,b}:*").logical;
    assert_eq!((logical.names().count(), logical.patterns().count()), (64, 2));
    let rules = of("lag.thresholds", "orders:*=5/50, a=b=1/1").thresholds;
    assert_eq!(rules.of(&"orders:1".into()), Thresholds { degraded: 5, unhealthy: 50 });
    assert_eq!(rules.of(&"a=b".into()), Thresholds { degraded: 1, unhealthy: 1 });
    assert_eq!(rules.of(&"mail".into()), Thresholds { degraded: 100, unhealthy: 1000 });
    let cluster = target(&[("redis.mode", "cluster"), ("redis.nodes", "b:1,[::1]:2")]).unwrap();
    assert_eq!(cluster.redis.nodes, [Address::Tcp("b".to_owned(), 1), Address::Tcp("::1".to_owned(), 2)]);
    let sentinel = target(&[("redis.mode", "sentinel"), ("redis.sentinel-user", "me")]).unwrap();
    let redis = &sentinel.redis;
    assert!(
        redis.sentinel_master == "mymaster"
            && redis.sentinel_login.has_user()
            && !redis.endpoint.credentials.has_user()
    );
}

#[test]
fn transport_mode_is_what_the_switch_and_the_share_say() {
    let check = |used, share, expected| {
        let settings =
            [("event-transport.use-redis-streams", used), ("event-transport.redis-streams-percentage", share)];
        assert_eq!(config(&settings).unwrap().transport.mode, expected, "{used} {share}");
    };
    check("true", "100", "redis_streams");
    check("TRUE", "99", "hybrid");
    check("1", "1", "hybrid");
    check("yes", "0", "http");
    check("false", "100", "http");
    check("off", "50", "http");
}

#[test]
fn sizes_have_units() {
    let memory = |value: Option<&'static str>| {
        let given: Vec<_> = value.map(|value| ("limit.memory-for-replies", value)).into_iter().collect();
        config(&given).unwrap().memory_for_replies
    };
    assert_eq!(memory(None), crate::redis::reply_memory::DEFAULT_BYTES);
    for (value, expected) in [("8MiB", 8 << 20), ("10485760", 10_485_760), ("10 MB", 10_000_000), ("1GiB", 1 << 30)] {
        assert_eq!(memory(Some(value)), expected, "{value}");
    }
}

/// Every bad value ends in one line that names the setting as it was given, the value, and what is expected.
#[test]
fn bad_values_are_named_in_one_line() {
    let check = |key: &'static str, value: &'static str, takes: &str| {
        let setting = Setting::find(key).unwrap();
        let problem = config(&[(key, value)]).unwrap_err().to_string();
        assert!(!problem.contains('\n'), "{problem:?}");
        assert!(problem.contains(&format!(" for {}: ", setting.env.unwrap())), "{problem:?} does not name {key}");
        assert!(problem.contains(takes), "{problem:?} lacks {takes:?}");
        assert!(setting.secret || problem.contains(&format!("{value:?}")), "{problem:?} lacks the value");
    };
    check("redis.url", "http://localhost", "expected redis://, rediss:// or unix://");
    check("redis.url", "redis://localhost/x", "expected redis://, rediss:// or unix://");
    check("redis.url", "rediss://localhost/#insecure", "the server's certificate is always checked");
    check("redis.url", "redis://:a#b@localhost", "a '#', which in a password is written %23");
    check("redis.url", "rediss://a$b", "no certificate can be for its host");
    check("redis.user", "", "expected the name of a user");
    check("redis.password-file", "/nonexistent", "expected a file that can be read");
    check("redis.password-file", "/dev/zero", "expected a regular file");
    for key in ["redis.tls-ca-file", "redis.tls-cert-file", "redis.tls-key-file", "redis.tls-server-name"] {
        check(key, "x", "requires a rediss:// URL");
    }
    for value in ["0", "10001", "-1", "+1", "many", "1.5", " 1", ""] {
        check("redis.max-connections", value, "expected a whole number between 1 and 10000");
    }
    for value in ["0s", "9ms", "2", "forever", "2 days", "-1s", ""] {
        check("redis.timeout", value, "expected a duration between 10ms and 1d");
    }
    for value in ["49ms", "0", "25h"] {
        check("poll.interval", value, "expected a duration between 50ms and 1d");
    }
    for value in ["", ",", "a,,b", "a, "] {
        check("streams", value, "one or more names");
    }
    for key in ["streams.exclude", "groups.exclude"] {
        check(key, "a,,b", "one or more names");
    }
    check("redis.mode", "fleet", "expected one of standalone, cluster, sentinel");
    check("redis.nodes", "a:1", "requires --redis.mode cluster or sentinel");
    check("redis.sentinel-master", "m", "requires --redis.mode sentinel");
    check("redis.sentinel-user", "u", "requires --redis.mode sentinel");
    check("redis.sentinel-password-file", "f", "requires --redis.mode sentinel");
    check("consumers", "maybe", "expected on or off");
    check("discovery.interval", "999ms", "expected a duration between 1s and 1d");
    check("limit.streams", "0", "expected a whole number between 1 and 1000000");
    check("limit.groups", "0", "expected a whole number between 1 and 10000");
    check("limit.consumers", "10001", "expected a whole number between 0 and 10000");
    for value in ["", "many", "-1MiB", "1.5MiB", "7MiB", "64 mib", "2000GiB", "99999999999GiB"] {
        check("limit.memory-for-replies", value, "expected a size between 8MiB and 1024GiB, such as 64MiB");
    }
    for value in ["5", "0%", "101%", "-1%", "+1%", "NaN%", "1e1%", "%", ""] {
        check("poll.max-redis-share", value, "expected a percentage between 0.01% and 100%");
    }
    check("poll.spread", "91%", "expected a percentage between 0% and 90%");
    for value in ["3/3", "0/0", "1", "-1/2", "+1/2", "0/10001", "a/b", "/", ""] {
        check("shard", value, "expected i/n, where i is 0 to n-1");
    }
    for value in ["a", "a=", "=b", "a=b,c"] {
        check("logical-streams", value, "expected NAME=PATTERN");
    }
    check("logical-streams", "a=b{0..3", "a brace is not closed");
    for value in ["a", "a=1", "a=1/", "=1/2", "a=0/1", "a=2/1", "a=+1/2", "a=1/2/3"] {
        check("lag.thresholds", value, "expected PATTERN=DEGRADED/UNHEALTHY");
    }
    check("groups", " ", "one or more names");
    check("lag.degraded", "none", "expected a whole number of at least 1");
    check("lag.degraded", "1001", "contradicts --lag.unhealthy \"1000\"");
    check("lag.unhealthy", "18446744073709551616", "expected a whole number of at least 1");
    for value in ["8000", "localhost", "0.0.0.0:65536", "::1:80", "http://x:80", "a b:1", ":"] {
        check("web.listen-address", value, "expected host:port");
    }
    for value in ["metrics", "/a b", "/a?b", "/\n"] {
        check("web.telemetry-path", value, "expected a path that begins with a slash");
    }
    for value in ["/", "/-/healthy", "/api/v1/events/health"] {
        check("web.telemetry-path", value, "expected a path that is free");
    }
    check("web.config.file", "/nonexistent", "expected a file that can be read");
    check("api.tokens-file", "/nonexistent", "expected a file that can be read");
    check("api.rate-limit", "-1", "expected a whole number between 0 and 1000000");
    check("api.rate-burst", "0", "expected a whole number between 1 and 1000000");
    check("log.level", "loud", "expected one of error, warn, info, debug, trace");
    check("log.format", "xml", "expected one of logfmt, json");
    check("event-transport.use-redis-streams", "maybe", "expected true or false");
    check("event-transport.redis-streams-percentage", "101", "expected a whole number between 0 and 100");
    check("event-transport.stream-max-len", "0", "expected a whole number of at least 1");
    check("event-transport.publish-timeout-ms", "0", "expected a whole number between 1 and");
}

#[test]
fn secrets_are_not_repeated() {
    let problem = config(&[("redis.url", "http://:hunter2@localhost")]).unwrap_err().to_string();
    assert!(!problem.contains("hunter2"), "{problem}");
    let bad_token = Fake { token: Some("hunter2 with blanks"), ..Fake::default() };
    let problem = Config::from_sources(&bad_token).unwrap_err().to_string();
    assert!(problem.contains(API_TOKEN_VARIABLE) && !problem.contains("hunter2"), "{problem}");
    let good = Config::from_sources(&Fake { token: Some("hunter2"), ..Fake::default() }).unwrap();
    assert!(!format!("{good:?}").contains("hunter2"));
}

/// The configuration of a file.
fn of_file(path: &Path, text: &str) -> Config {
    std::fs::write(path, text).unwrap();
    let arguments = [OsString::from("streamlag"), "--config.file".into(), path.into()];
    let Ok(Invocation::Run(config)) = parse(arguments) else { panic!("{text}") };
    *config
}

#[test]
fn files_of_secrets_are_also_those_that_hold_a_secret_url() {
    let dir = tempfile::tempdir().unwrap();
    let (path, secret) = (dir.path().join("f.yml"), dir.path().join("secret"));
    std::fs::write(&secret, "x".repeat(32)).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let check = |text: &str, expected: &[&Path]| assert_eq!(of_file(&path, text).secret_files, expected, "{text}");
    check("redis.url: redis://h", &[]);
    check("redis.url: redis://me@h", &[]);
    check("redis.url: redis://:hunter2@h", &[&path]);
    check("redis.url: redis://me:hunter2@h", &[&path]);
    check("redis.url: 'unix:///s?pass=hunter2'", &[&path]);
    check("redis.url: 'unix:///s?db=1&user=a:b@c'", &[]);
    check("targets: [{name: a, redis.url: 'unix:///s?pass=hunter2'}]", &[&path]);
    // Nobody reads this one, so nobody has said that it is none.
    check("redis.url: redis://:hunter2@h:port\ntargets: [{name: a, redis.url: 'redis://h'}]", &[&path]);
    check("notify: {alertmanagers: ['http://h/am']}", &[]);
    check("notify: {webhooks: [{url: 'https://h'}]}", &[]);
    check("notify: {webhooks: [{url: 'https://h/hunter2'}]}", &[&path]);
    check("notify: {webhooks: [{url: 'https://h/', secret-file: secret}]}", &[&secret]);
}

#[test]
fn what_contradicts_is_refused() {
    let both = Fake { token: Some("t"), open: true, ..Fake::default() };
    assert!(Config::from_sources(&both).unwrap_err().to_string().contains("contradicts"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let path: &'static str = Box::leak(file.path().to_str().unwrap().to_owned().into_boxed_str());
    let problem = |url| config(&[("redis.url", url), ("redis.password-file", path)]).unwrap_err().to_string();
    assert!(problem("redis://:pw@localhost").contains("contradicts the password"));
    assert!(problem("redis://localhost").contains("this one is empty"));
    let user = |url| config(&[("redis.url", url), ("redis.user", "me")]);
    assert!(user("redis://you@localhost").unwrap_err().to_string().contains("contradicts the user"));
    assert!(user("redis://:pw@localhost").unwrap().targets[0].redis.endpoint.credentials.has_user());
    let tls = |key, value| config(&[("redis.url", "rediss://localhost"), (key, value)]).unwrap_err().to_string();
    assert!(tls("redis.tls-cert-file", "x").contains("requires --redis.tls-key-file"));
    assert!(tls("redis.tls-key-file", "x").contains("requires --redis.tls-cert-file"));
    assert!(tls("redis.tls-server-name", "a$b").contains("expected a host's name or address"));
    assert!(tls("redis.tls-ca-file", "/nonexistent").contains("expected a file that can be read"));
    std::fs::write(path, " secret \n").unwrap();
    assert!(
        config(&[("redis.url", "redis://localhost"), ("redis.password-file", path)]).unwrap().targets[0]
            .redis
            .endpoint
            .credentials
            .has_password()
    );
}

#[test]
fn more_than_one_server_takes_a_url_that_fits() {
    let check = |values: &[(&'static str, &'static str)], takes: &str| {
        let problem = config(values).unwrap_err().to_string();
        assert!(problem.contains(takes), "{problem:?} lacks {takes:?}");
    };
    for mode in ["cluster", "sentinel"] {
        let unix = [("redis.mode", mode), ("redis.url", "unix:///run/redis.sock")];
        check(&unix, "requires a redis:// or rediss:// URL");
        for nodes in ["a", "a:0", "a:65536", ":1", "::1:1", "u@h:1", "redis://h:1", "a b:1"] {
            check(&[("redis.mode", mode), ("redis.nodes", nodes)], "expected host:port, such as redis-2:6379");
        }
    }
    check(&[("redis.mode", "cluster"), ("redis.sentinel-user", "u")], "requires --redis.mode sentinel");
}

#[test]
fn a_file_says_the_same_nested_or_dotted() {
    let nested = "redis:\n  url: redis://h:1\n  max_connections: 5\nstreams: [a, 'b,c']\npoll.interval: 1s\n";
    let file = File::parse(nested, Path::new("f.yml")).unwrap();
    assert_eq!(file.get("redis.url").unwrap().values, ["redis://h:1"]);
    assert_eq!(file.get("redis.max-connections").unwrap().values, ["5"]);
    assert_eq!(file.get("streams").unwrap().values, ["a", "b,c"]);
    assert_eq!(file.get("poll.interval").unwrap().values, ["1s"]);
    for empty in ["", "\n", "# nothing\n", "---\n", "redis:\n"] {
        assert!(File::parse(empty, Path::new("f.yml")).unwrap().get("redis.url").is_none(), "{empty:?}");
    }
}

#[test]
fn bad_files_are_named_with_key_and_line() {
    let check = |text: &str, expected: &str| {
        let problem = File::parse(text, Path::new("f.yml")).map(|_| ()).unwrap_err().to_string();
        assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
        assert!(!problem.contains('\n') && !problem.contains("hunter2"), "{problem:?}");
    };
    check("streams: [a]\nredis:\n  urls: x\n", "line 3: unknown setting \"redis.urls\"");
    check("streems: [a]\n", "line 1: unknown setting \"streems\": did you mean streams?");
    check("streems:\n", "line 1: unknown setting \"streems\": did you mean streams?");
    check("remediations:\n", "line 1: unknown setting \"remediations\": did you mean remediation?");
    check("scaler: []\n", "line 1: unknown setting \"scaler\": did you mean scalers?");
    check("redis:\n  urls:\n", "line 2: unknown setting \"redis.urls\"");
    check("streams: [a]\nredis.url=redis://:hunter2@h: 0\n", "line 2: unknown setting of this name");
    check("streams: {include: [a]}\n", "line 1: unknown setting \"streams.include\"");
    check("redis: [a, {b: c}]\n", "line 1: \"redis\": expected a list of plain values");
    check("config.file: x\n", "line 1: unknown setting \"config.file\"");
    check("redis:\n  url: [a, b]\n", "line 2: redis.url: expected one value, not 2");
    check("redis.url: {a: b}\n", "line 1: redis.url: expected a value");
    check("redis.url: a\nredis:\n  url: b\n", "line 3: redis.url is given twice");
    check("api.insecure-no-auth: maybe\n", "line 1: api.insecure-no-auth: expected true or false");
    check("- a\n", "expected a mapping");
    check("streams: [[a]]\n", "expected a list of plain values");
    check("a: [\n", "line 1 column 4: expected YAML");
    check("a: 1\na: 2\n", "line 2 column 1: a is given twice");
    check("://:hunter2@h: 1\n://:hunter2@h: 2\n", "line 2 column 1: a key is given twice");
    check("redis.url: 'redis://:hunter2@h\n", "line");
    check("streams: *hunter2\n", "line 1");
    check("a\n---\nb\n", "expected one document");
    check("notify:\n  for: 5s\n  for: 6s\n", "line 3 column 3: for is given twice");
    check("notify:\n  ca-file: a\n  ca_file: b\n", "line 3: notify.ca_file is given twice");
    check("notify:\n  ca_files:\n", "line 2: unknown key \"ca_files\" of notify: did you mean notify.ca_file?");
    check("notify:\n  for: {a: b}\n", "line 2: notify.for: expected one value");
    check(
        "notify:\n  alertmanagers:\n  - http://h\n  - {http://h: 1}\n",
        "line 2: notify.alertmanagers: expected a list",
    );
    check("notify:\n  alertmanagers: {a: b}\n", "line 2: notify.alertmanagers: expected a list of URLs");
    check("notify:\n  labels: [a]\n", "line 2: notify.labels: expected a mapping of names to values");
    check("notify:\n  labels:\n    a: [b, c]\n", "line 3: notify.labels: expected a mapping of names to values");
    check("notify:\n  webhooks: [7]\n", "line 2: notify.webhooks: expected a list of mappings, each with a url");
    check("notify:\n  webhooks:\n  - allow_plain: true\n", "line 3: notify.webhooks: expected a url");
    let webhook = |more: &str| format!("notify:\n  webhooks:\n  - url: http://h\n    {more}\n");
    check(&webhook("secret-file: a\n    secret_file: b"), "line 5: secret_file of a webhook is given twice");
    check(&webhook("secret_file:"), "line 4: secret_file of a webhook: expected one value");
    check(&webhook("hunter2://: x"), "line 4: unknown key of this name of a webhook: expected one of url, secret_file");
    check("remediation: [a]\n", "line 1: remediation: expected a mapping");
    check("remediation:\n  usr: x\n", "line 2: unknown key \"usr\" of remediation: did you mean remediation.user?");
    check("remediation:\n  user: [a, b]\n", "line 2: remediation.user: expected one value");
    check("remediation:\n  ca-file: a\n  ca_file: b\n", "line 3: remediation.ca_file is given twice");
    check(
        "remediation:\n  rules: {a: b}\n",
        "line 2: remediation.rules: expected a list of mappings, each with a stream",
    );
    check("remediation:\n  rules: [7]\n", "line 2: remediation.rules: expected a list of mappings, each with a stream");
    check("remediation:\n  rules:\n  - stream: s\n    mode: off\n", "line 3: remediation.rules.group is missing");
    let rule = |more: &str| {
        format!(
            "remediation:\n  rules:\n  - {{stream: s, group: g, mode: off}}\n  - {{stream: s,\n    group: g,\n    {more}}}\n"
        )
    };
    check(&rule("mod: off"), "line 6: unknown key \"mod\" of remediation.rules: did you mean remediation.rules.mode?");
    check(
        &rule("hunter2://: x"),
        "line 6: unknown key of this name of remediation.rules: expected one of target, stream",
    );
    check(&rule("actions: {a: b}"), "line 6: remediation.rules.actions: expected a list of actions");
    check(&rule("budget: 7"), "line 6: remediation.rules.budget: expected a mapping such as {acts_per_hour");
    check(&rule("budget: {acts-per-hour: 7}"), "line 6: remediation.rules.budget.entries_per_act is missing");
    check(&rule("dead_letter: {streams: x}"), "unknown key \"streams\" of remediation.rules.dead_letter: did you mean");
    check(&rule("dead_letter: {stream: [a, b]}"), "line 6: remediation.rules.dead_letter.stream: expected one value");
    check(&rule("hook: {secret_file: a}"), "line 6: remediation.rules.hook.url is missing");
    check(
        "scalers:\n- name: a\n  look-ahead: 5m\n  look_ahead: 6m\n",
        "look_ahead of scaler a in f.yml, line 4 is given twice",
    );
    check("scalers:\n- name: a\n  stream: [s, {t: u}]\n", "stream of scaler a in f.yml, line 3: expected one value");
    check("scalers:\n- name: a\n  stream: [[s]]\n", "stream of scaler a in f.yml, line 3: expected one value");
    check("scalers:\n- name: a\n  stream: [s, t]\n", "line 3: expected one value, found \"s,t\"");
}

#[test]
fn sections_are_what_they_say_however_it_is_written() {
    let parse = |text: &str| File::parse(text, Path::new("f.yml")).unwrap();
    let text = "notify: {ca-file: c, for:, labels: {a-b: 1}, webhooks: [{url: u, secret-file: s}], alertmanagers:}\n";
    let file = parse(&format!("{text}scalers: [{{name: a, look-ahead: [5m], target: 7}}]\n"));
    let notify = &file.notify().unwrap().section;
    let value = |given: &Option<crate::config::file::Given>| given.as_ref().map(|given| given.value.clone());
    assert_eq!((value(&notify.ca_file).as_deref(), value(&notify.r#for)), (Some("c"), None));
    assert_eq!((notify.labels["a-b"].value.as_str(), notify.alertmanagers.len()), ("1", 0));
    assert_eq!(value(&notify.webhooks[0].secret_file).as_deref(), Some("s"));
    let [scaler] = file.scalers() else { panic!("{file:?}") };
    let scaler = &scaler.section;
    assert_eq!([&scaler.look_ahead, &scaler.target].map(value), [Some("5m".to_owned()), Some("7".to_owned())]);
    // The same further down is the same.
    let digest = |text: &str| {
        let file = parse(text);
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&(file.notify(), file.scalers(), file.remediation()), &mut hasher);
        std::hash::Hasher::finish(&hasher)
    };
    assert_eq!(digest(text), digest(&format!("# moved\n\n{text}")));
    assert_ne!(digest(text), digest(&text.replace("for:", "for: 1s")));
    let text = "remediation: {two-person: true, rules: [{stream: s, group: g, mode: off, actions: release}]}\n";
    assert!(File::parse(text, Path::new("f.yml")).is_err(), "one value is no list");
    let text = text.replace("release", "[release], hook: {url: u, secret-file: f}").replace("{two", "{ca-file:, two");
    let file = parse(&text);
    let rules = &file.remediation().unwrap().section.rules;
    assert_eq!(rules[0].actions[0].value, "release");
    assert_eq!(digest(&text), digest(&format!("# moved\n\n{text}")));
    assert_ne!(digest(&text), digest(&text.replace("off", "plan")));
}

/// YAML takes them for numbers and truth values: another name than what is written would be another group.
#[test]
fn values_are_as_they_are_written() {
    let read = |text: &str| {
        let file = File::parse(text, Path::new("f.yml")).unwrap();
        file.get("groups").unwrap().values.clone()
    };
    let plain = [
        "007",
        "7",
        "+7",
        "-7",
        "-0",
        "0x10",
        "0o17",
        "0b1",
        "1_000",
        "1e3",
        "1.0",
        "1.50",
        ".5",
        "12345678901234567890123",
        "on",
        "On",
        "off",
        "yes",
        "no",
        "y",
        "N",
        "true",
        "TRUE",
        "false",
        "2026-11-29",
        "12:30:45",
        "0.1.0",
        "a",
        "7 8",
    ];
    for name in plain {
        let around = [
            format!("groups: {name}\n"),
            format!("groups: {name} # a comment\n"),
            format!("groups: {name}"),
            format!("groups: [ä, {name}, {name} ]\n"),
            format!("groups:\n- 'ä'\n- {name}\n- {name}   \n"),
            format!("groups:\r\n  - ä\r\n  - {name}\r\n  - {name}\r\n"),
            format!("\u{feff}# ä\ngroups: {name}\n"),
            format!("---\ngroups: [&it {name}, *it]\n"),
            format!("streams: &it {name}\n\ngroups: *it\n"),
        ];
        for text in around {
            let values = read(&text);
            let names: Vec<&str> = values.iter().map(String::as_str).filter(|value| *value != "ä").collect();
            assert!(!names.is_empty() && names.iter().all(|read| *read == name), "{text:?}: {values:?}");
        }
        for text in [
            format!("groups: '{name}'"),
            format!("groups: \"{name}\""),
            format!("groups: !!str {name}"),
            format!("groups: |-\n  {name}\n"),
        ] {
            assert_eq!(read(&text), [name], "{text:?}");
        }
    }
    // A tag asks for what the tag makes of it.
    assert_eq!(read("groups: !!int 7"), ["7"]);
    let file = File::parse(
        "remediation: {two-person: yes, rules: [{stream: 007, group: 1e3, mode: off}]}\n\
         scalers: [{name: 0x10, stream: 1_000, group: on}]\n\
         targets: [{name: 010, redis.url: 'redis://h', groups: [0o17]}]\n\
         notify: {labels: {a: 1.0}}\n\
         api.insecure-no-auth: on\n",
        Path::new("f.yml"),
    )
    .unwrap();
    let rule = &file.remediation().unwrap().section.rules[0];
    assert_eq!([&rule.stream.value, &rule.group.value, &rule.mode.value], ["007", "1e3", "off"]);
    let scaler = &file.scalers()[0].section;
    let value = |given: &Option<crate::config::file::Given>| given.as_ref().unwrap().value.clone();
    assert_eq!([&scaler.name.value, &value(&scaler.stream), &value(&scaler.group)], ["0x10", "1_000", "on"]);
    let (name, section) = &file.targets()[0];
    assert_eq!((name.as_str(), &section["groups"].values[..]), ("010", &["0o17".to_owned()][..]));
    assert_eq!(file.notify().unwrap().section.labels["a"].value, "1.0");
    assert!(file.get("api.insecure-no-auth").unwrap().switch());
}

#[test]
fn errors_repeat_the_beginning_of_long_texts() {
    let long = "x".repeat(100_000);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.yml");
    let web = format!("tls_server_config: {{client_auth_type: {long}}}\n");
    std::fs::write(dir.path().join("web.yml"), web).unwrap();
    for text in [
        format!("notify: {{for: {long}}}"),
        format!("notify: {{labels: {{'-{long}': x}}}}"),
        format!("notify: {{{long}: x}}"),
        format!("notify: {{webhooks: [{{url: 'http://h', {long}: x}}]}}"),
        format!("notify: {{webhooks: [{{url: 'http://h', secret-file: {long}}}]}}"),
        format!("remediation: {{{long}: x}}"),
        format!("remediation: {{rules: [{{stream: s, group: g, mode: {long}}}]}}"),
        format!("remediation: {{rules: [{{stream: s, group: g, mode: plan, actions: [{long}]}}]}}"),
        format!("remediation: {{audit_file: /nowhere/{long}}}"),
        format!("scalers: [{{name: {long}}}]"),
        format!("scalers: [{{name: a, {long}: x}}]"),
        format!("scalers: [{{name: a, stream: s, signal: {long}}}]"),
        format!("scalers: [{{name: a, stream: [{long}, {long}]}}]"),
        format!("targets: [{{name: {long}}}]"),
        format!("{long}: x"),
        format!("poll.interval: {long}"),
        format!("poll.interval: [{long}, {long}]"),
        format!("logical-streams: 'a={long}{{'"),
        format!("collector.{long}: true"),
        format!("web.config.file: {long}"),
        "web.config.file: web.yml".to_owned(),
    ] {
        std::fs::write(&path, &text).unwrap();
        let arguments = [OsString::from("streamlag"), "--config.file".into(), path.clone().into()];
        let problem = parse(arguments).unwrap_err().to_string();
        assert!(problem.len() < 4000, "{} bytes: {problem:.300}", problem.len());
    }
}
