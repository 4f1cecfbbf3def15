//! Targets of a file, over settings that hold for all.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::*;
use crate::config::Config;
use crate::config::file::{File, Located, MAX_TARGETS, ScalerItem};

/// A file, and settings of the environment that win over it.
struct FileAndEnvironment {
    file: File,
    environment: BTreeMap<&'static str, &'static str>,
}

impl SettingSources for FileAndEnvironment {
    fn get(&self, key: &str) -> Option<RawValue> {
        let setting = Setting::find(key)?;
        let (origin, values) = match (self.environment.get(key), self.file.get(key)) {
            (Some(value), _) => {
                (ValueOrigin::Environment(setting.env.unwrap_or_default()), vec![OsString::from(value)])
            }
            (None, Some(entry)) => return Some(entry.given(setting, ValueOrigin::File)),
            (None, None) => (ValueOrigin::Default, vec![OsString::from(setting.default?)]),
        };
        Some(RawValue::new(setting, origin, values))
    }

    fn switch(&self, _: &str) -> bool {
        false
    }

    fn targets(&self) -> &[(TargetName, Section)] {
        self.file.targets()
    }

    fn scalers(&self) -> &[Located<ScalerItem>] {
        self.file.scalers()
    }
}

fn targets(file: &str, environment: &[(&'static str, &'static str)]) -> Result<Vec<TargetConfig>, String> {
    let file = File::parse(file, std::path::Path::new("f.yml")).map_err(|problem| problem.to_string())?;
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
    check("\ntargets: a\n", "line 2: targets: expected a list of mappings, each with a name");
    check("targets: {name: a}\n", "line 1: targets: expected a list of mappings");
    check("targets: []\n", "line 1: targets: expected a list of mappings, each with a name; the list is empty");
    check("targets:\n- a\n", "line 1: targets: expected a list of mappings");
    check("targets:\n- streams: [a]\n", "line 2: expected a name in each target");
    check("targets:\n- streams: [a]\n  name: a b\n", "line 3: name: expected 1 to 64 letters");
    check("targets:\n- name: redis://:hunter2@h\n", "line 2: name: expected");
    check("targets:\n- name: [a]\n", "line 2: name: expected");
    check("targets:\n- name: a\n- name: b\n- name: a\n", "line 4: there are two targets of the name a");
    check(
        "targets:\n- name: a\n  redis:\n    urls: x\n",
        "line 4: target a: unknown setting \"redis.urls\" for a target: did you mean redis.url?",
    );
    check("targets:\n- name: a\n  ://:hunter2@h: x\n", "line 3: target a: unknown setting of this name");
    check("targets:\n- name: a\n  log.level: info\n", "line 3: target a: log.level is for the whole program");
    check("targets:\n- name: a\n  shard: 0/1\n", "line 3: target a: shard is for the whole program");
    check("targets:\n- name: a\n  redis: {url: [a, b]}\n", "line 3: target a: redis.url: expected one value, not 2");
    check("targets:\n- name: a\n  streams: [[a]]\n", "line 3: target a: \"streams\": expected a list of plain values");
    check("targets:\n- name: a\n  redis.url: a\n  redis: {url: b}\n", "line 4: target a: redis.url is given twice");
    check("targets:\n- name: a\n  targets: []\n", "line 3: target a: unknown setting \"targets\" for a target");
    check("targets:\n- {name: a}\ntargets:\n- {name: b}\n", "line 3 column 1: targets is given twice");
    let many: String = (0..=MAX_TARGETS).map(|n| format!("- name: t{n}\n")).collect();
    check(&format!("targets:\n{many}"), "line 1: targets: expected at most 1000 targets, not 1001");
    // Values are the setting's business, and the target is named there too.
    check(
        "targets:\n- name: a\n  poll.interval: 1ms\n",
        "invalid value \"1ms\" for poll.interval of target a in f.yml, line 3: expected a duration between",
    );
    check(
        "targets:\n- name: a\n  redis.url: 'http://:hunter2@h'\n",
        "invalid value (not shown) for redis.url of target a in f.yml, line 3: expected redis://",
    );
    check(
        "targets:\n- name: a\n  lag.degraded: 5000\n",
        "invalid value \"5000\" for lag.degraded of target a in f.yml, line 3: contradicts",
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
    assert!(one(all, "redis.url: redis://h").unwrap().redis.endpoint.credentials.has_password());
    // Its own file is, where the URL is of all.
    assert!(one("redis.url: redis://you:pw@h", "redis: {user: me, password-file: FILE}").is_ok());
    // Both at the same place contradict each other.
    let both = one("redis.url: redis://you:pw@h\nredis.password-file: FILE", "streams: [a]").unwrap_err();
    assert!(both.contains("contradicts the password"), "{both}");
    let both = one("", "redis: {url: 'redis://you@h', user: me}").unwrap_err();
    assert!(both.contains("redis.user of target a") && both.contains("contradicts the user"), "{both}");
    // One may go without TLS, and another be no cluster.
    let tls = "redis: {url: 'rediss://h', tls-server-name: h}";
    assert!(one(tls, "redis.url: redis://h").unwrap().redis.endpoint.tls.is_none());
    let none = one("", "redis: {url: 'redis://h', tls-server-name: h}").unwrap_err();
    assert!(none.contains("requires a rediss:// URL"), "{none}");
    let cluster = "redis: {mode: cluster, nodes: ['b:1']}";
    assert_eq!(one(cluster, "redis.mode: standalone").unwrap().redis.nodes, []);
    assert_eq!(one(cluster, "streams: [a]").unwrap().redis.nodes, [Address::Tcp("b".to_owned(), 1)]);
    assert!(one("", "redis.nodes: ['b:1']").unwrap_err().contains("requires --redis.mode cluster or sentinel"));
}

#[test]
fn other_servers_or_another_login_are_not_the_same() {
    let of = |own: &str| good(&format!("targets:\n- name: a\n  redis: {{{own}}}\n"), &[]).remove(0).redis;
    let cluster = of("url: 'redis://h', mode: cluster, nodes: ['b:1']");
    assert!(cluster.same_target(&of("url: 'redis://h', mode: cluster, nodes: ['b:1'], timeout: 9s")));
    for other in
        ["url: 'redis://h'", "url: 'redis://h', mode: cluster", "url: 'redis://i', mode: cluster, nodes: ['b:1']"]
    {
        assert!(!cluster.same_target(&of(other)), "{other}");
    }
    let sentinel = of("url: 'redis://h', mode: sentinel");
    assert!(!sentinel.same_target(&of("url: 'redis://h', mode: sentinel, sentinel-user: me")));
    assert!(!sentinel.same_target(&of("url: 'redis://h', mode: sentinel, sentinel-master: other")));
}
