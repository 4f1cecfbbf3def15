//! Targets of a file, over settings that hold for all.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::*;
use crate::config::Config;
use crate::config::file::{File, MAX_TARGETS};

/// A file, and settings of the environment that win over it.
struct FileAndEnvironment {
    file: File,
    environment: BTreeMap<&'static str, &'static str>,
}

impl Sources for FileAndEnvironment {
    fn get(&self, key: &str) -> Option<Given> {
        let setting = Setting::find(key)?;
        let (origin, values) = match (self.environment.get(key), self.file.get(key)) {
            (Some(value), _) => (Origin::Environment, vec![OsString::from(value)]),
            (None, Some(values)) => (Origin::File, values.iter().map(OsString::from).collect()),
            (None, None) => (Origin::Default, vec![OsString::from(setting.default?)]),
        };
        Some(Given::new(setting, origin, values))
    }

    fn is_on(&self, _: &str) -> bool {
        false
    }

    fn api_token(&self) -> Option<String> {
        None
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.file.targets()
    }
}

fn targets(file: &str, environment: &[(&'static str, &'static str)]) -> Result<Vec<TargetConfig>, String> {
    let file = File::parse(file)?;
    let given = FileAndEnvironment { file, environment: environment.iter().copied().collect() };
    Config::from_sources(&given).map(|config| config.targets).map_err(|problem| problem.to_string())
}

fn good(file: &str, environment: &[(&'static str, &'static str)]) -> Vec<TargetConfig> {
    targets(file, environment).unwrap_or_else(|problem| panic!("{problem}"))
}

const TWO: &str = "
redis.timeout: 3s
groups: [everywhere]
lag: {degraded: 7, unhealthy: 70}
targets:
  - name: eu-1
    redis: {url: 'redis://eu:1/2', mode: standalone}
    streams: [a, 'b:*']
    streams.exclude: ['b:x']
    poll.interval: 250ms
    lag.thresholds: ['b:*=1/2']
    lag: {unhealthy: 700}
    consumers: off
  - redis.url: redis://us:2
    name: us_1
    groups: [here]
";

#[test]
fn a_target_has_its_own_settings_and_inherits_the_others() {
    let two = good(TWO, &[("poll.interval", "1s"), ("redis.timeout", "4s"), ("redis.url", "redis://other:3")]);
    let [eu, us] = &two[..] else { panic!("{two:?}") };
    assert_eq!([&eu.name, &us.name].map(TargetName::as_str), ["eu-1", "us_1"]);
    assert_eq!([&eu.redis, &us.redis].map(ToString::to_string), ["redis://eu:1/2", "redis://us:2/0"]);
    // What is a target's own wins over everything; what holds for all goes by the usual rank.
    assert_eq!([eu.interval, us.interval], [Duration::from_millis(250), Duration::from_secs(1)]);
    assert_eq!([eu.timeout, us.timeout], [Duration::from_secs(4); 2]);
    assert_eq!([&eu.groups, &us.groups].map(GroupSelection::literals), [["everywhere".into()], ["here".into()]]);
    assert_eq!((eu.streams.len(), us.streams.len()), (2, 3));
    assert_eq!([eu.consumers, us.consumers], [false, true]);
    let of = |target: &TargetConfig, stream: &str| target.thresholds.of(&stream.into());
    assert_eq!(of(eu, "a"), Thresholds { degraded: 7, unhealthy: 700 });
    assert_eq!(of(eu, "b:1"), Thresholds { degraded: 1, unhealthy: 2 });
    assert_eq!(of(us, "b:1"), Thresholds { degraded: 7, unhealthy: 70 });
    assert_eq!(good("targets:\nstreams: [x]\n", &[])[0].name, TargetName::default());
}

#[test]
fn what_is_wrong_with_targets_is_named_with_target_key_and_line() {
    let check = |text: &str, expected: &str| {
        let problem = targets(text, &[]).map(|_| ()).unwrap_err();
        assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
        assert!(!problem.contains('\n') && !problem.contains("hunter2"), "{problem:?}");
    };
    check("\ntargets: a\n", "line 2: targets takes a list of mappings, each with a name");
    check("targets: {name: a}\n", "line 1: targets takes a list of mappings");
    check("targets: []\n", "line 1: targets takes a list of mappings, each with a name; there is none");
    check("targets:\n- a\n", "line 1: targets takes a list of mappings");
    check("targets:\n- streams: [a]\n", "line 2: a target takes a name");
    check("targets:\n- streams: [a]\n  name: a b\n", "line 3: the name of a target takes 1 to 64 letters");
    check("targets:\n- name: redis://:hunter2@h\n", "line 2: the name of a target takes");
    check("targets:\n- name: [a]\n", "line 2: the name of a target takes");
    check("targets:\n- name: a\n- name: b\n- name: a\n", "line 4: there are two targets of the name a");
    check("targets:\n- name: a\n  redis:\n    urls: x\n", "line 4: target a: there is no setting \"redis.urls\" for a");
    check("targets:\n- name: a\n  ://:hunter2@h: x\n", "line 3: target a: there is no setting of this name");
    check("targets:\n- name: a\n  log.level: info\n", "line 3: target a: log.level is for the whole program");
    check("targets:\n- name: a\n  shard: 0/1\n", "line 3: target a: shard is for the whole program");
    check("targets:\n- name: a\n  redis: {url: [a, b]}\n", "line 3: target a: redis.url takes one value, not 2");
    check("targets:\n- name: a\n  streams: [[a]]\n", "line 3: target a: a list takes plain values");
    check("targets:\n- name: a\n  redis.url: a\n  redis: {url: b}\n", "line 4: target a: redis.url is given twice");
    check("targets:\n- name: a\n  targets: []\n", "line 3: target a: there is no setting \"targets\" for a target");
    check("targets:\n- {name: a}\ntargets:\n- {name: b}\n", "line 3 column 1: targets is given twice");
    let many: String = (0..=MAX_TARGETS).map(|n| format!("- name: t{n}\n")).collect();
    check(&format!("targets:\n{many}"), "line 1: targets takes up to 1000 of them, not 1001");
    // Values are the setting's business, and the target is named there too.
    let of_a = "(in the configuration file)";
    check(
        "targets:\n- name: a\n  poll.interval: 1ms\n",
        &format!("poll.interval of target a {of_a} \"1ms\": it takes"),
    );
    check(
        "targets:\n- name: a\n  redis.url: 'http://:hunter2@h'\n",
        &format!("redis.url of target a {of_a} (value not"),
    );
    check(
        "targets:\n- name: a\n  lag.degraded: 5000\n",
        "of target a (in the configuration file) \"5000\": it contradicts",
    );
}

#[test]
fn what_all_targets_are_given_yields_to_what_is_a_targets_own() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "pw").unwrap();
    let path = file.path().to_str().unwrap();
    let one = |all: &str, own: &str| {
        let text = format!("{}\ntargets:\n- name: a\n  {own}\n", all.replace("FILE", path)).replace("FILE", path);
        targets(&text, &[]).map(|mut targets| targets.remove(0))
    };
    // A login in the target's own URL is its login.
    let all = "redis: {user: me, password-file: FILE}";
    assert!(one(all, "redis.url: redis://you:pw@h").is_ok());
    assert!(one(all, "redis.url: redis://h").unwrap().redis.dial.login.has_password());
    // Its own file is, where the URL is of all.
    assert!(one("redis.url: redis://you:pw@h", "redis: {user: me, password-file: FILE}").is_ok());
    // Both at the same place contradict each other.
    let both = one("redis.url: redis://you:pw@h\nredis.password-file: FILE", "streams: [a]").unwrap_err();
    assert!(both.contains("contradicts the password"), "{both}");
    let both = one("", "redis: {url: 'redis://you@h', user: me}").unwrap_err();
    assert!(both.contains("redis.user of target a") && both.contains("contradicts the user"), "{both}");
    // One may go without TLS, and another be no cluster.
    let tls = "redis: {url: 'rediss://h', tls-server-name: h}";
    assert!(one(tls, "redis.url: redis://h").unwrap().redis.dial.tls.is_none());
    let none = one("", "redis: {url: 'redis://h', tls-server-name: h}").unwrap_err();
    assert!(none.contains("it takes a rediss:// URL beside it"), "{none}");
    let cluster = "redis: {mode: cluster, nodes: ['b:1']}";
    assert_eq!(one(cluster, "redis.mode: standalone").unwrap().redis.nodes, []);
    assert_eq!(one(cluster, "streams: [a]").unwrap().redis.nodes, [Address::Tcp("b".to_owned(), 1)]);
    assert!(one("", "redis.nodes: ['b:1']").unwrap_err().contains("it takes --redis.mode cluster or sentinel"));
}

#[test]
fn other_servers_or_another_login_are_not_the_same() {
    let of = |own: &str| good(&format!("targets:\n- name: a\n  redis: {{{own}}}\n"), &[]).remove(0).redis;
    let cluster = of("url: 'redis://h', mode: cluster, nodes: ['b:1']");
    assert!(cluster.is_like(&of("url: 'redis://h', mode: cluster, nodes: ['b:1'], timeout: 9s")));
    for other in
        ["url: 'redis://h'", "url: 'redis://h', mode: cluster", "url: 'redis://i', mode: cluster, nodes: ['b:1']"]
    {
        assert!(!cluster.is_like(&of(other)), "{other}");
    }
    let sentinel = of("url: 'redis://h', mode: sentinel");
    assert!(!sentinel.is_like(&of("url: 'redis://h', mode: sentinel, sentinel-user: me")));
    assert!(!sentinel.is_like(&of("url: 'redis://h', mode: sentinel, sentinel-master: other")));
}
