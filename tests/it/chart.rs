//! The Helm chart's schema and its README come from the table of settings. `STREAMLAG_BLESS=1` writes them anew.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use streamlag::config::{Flag, SETTINGS, Setting};

use crate::docs::check;

const SCHEMA: &str = "deploy/helm/streamlag/values.schema.json";

/// Settings that the chart sets from other values, and these. A value of `config` would be without effect.
const SET_BY_CHART: [(&str, &str); 8] = [
    ("shard", "shards"),
    ("history.path", "history.enabled"),
    ("web.listen-address", "listenHost"),
    ("web.telemetry-path", "metricsPath"),
    ("web.config.file", "secrets.webConfig"),
    ("web.systemd-socket", "listenHost"),
    ("api.tokens-file", "secrets.apiTokens"),
    ("config.file", "config"),
];

/// Settings that say what to do, and not how.
const ACTIONS: [&str; 2] = ["config.check", "healthcheck"];

/// Values of settings that are words.
const WORDS: [(&str, &[&str]); 3] = [
    ("redis.mode", &["standalone", "cluster", "sentinel"]),
    ("log.level", &["error", "warn", "info", "debug", "trace"]),
    ("log.format", &["logfmt", "json"]),
];

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn of_chart(setting: &&Setting) -> bool {
    !ACTIONS.contains(&setting.key) && SET_BY_CHART.iter().all(|(key, _)| *key != setting.key)
}

/// What a value of this setting looks like.
fn schema_of(setting: &Setting) -> Value {
    let number = json!({"type": ["integer", "string"], "pattern": "^[0-9]+$", "minimum": 0});
    let words = WORDS.iter().find(|(key, _)| *key == setting.key);
    let boolean = setting.flag == Flag::Switch || ["true", "false"].contains(&setting.default.unwrap_or_default());
    let mut schema = match (setting.flag, setting.value_name) {
        _ if words.is_some() => json!({"enum": words.unwrap().1}),
        _ if boolean => json!({"type": "boolean"}),
        (Flag::List, _) => json!({"type": ["array", "string"], "items": {"type": ["string", "number"]}}),
        // YAML 1.1 reads on and off as true and false: the chart turns them back.
        (_, "on|off") => json!({"enum": ["on", "off", true, false]}),
        (_, "N" | "ENTRIES") => number,
        (Flag::None, _) => number,
        (_, "DURATION") => json!({"type": "string", "pattern": "^ *([0-9]+ *[a-zA-Z]+ *)+$"}),
        (_, "PERCENT") => json!({"type": ["string", "number"], "pattern": "^[0-9.]+ *%?$"}),
        (_, "SIZE" | "BYTES") => json!({"type": ["string", "integer"], "pattern": "^[0-9.]+ *[a-zA-Z]*$"}),
        _ => json!({"type": ["string", "number"]}),
    };
    schema["description"] = setting.help.into();
    schema
}

/// The settings as nested objects. A setting whose name is also a section's stays whole, with its dots: `streams.exclude`.
fn nested<'a>(settings: impl Iterator<Item = &'a Setting>) -> Map<String, Value> {
    let mut all = Map::new();
    for setting in settings {
        let schema = schema_of(setting);
        let mut at = &mut all;
        let mut rest = setting.key;
        while let Some((section, more)) = rest.split_once('.') {
            if Setting::find(section).is_some() {
                break;
            }
            let object = at
                .entry(section)
                .or_insert_with(|| json!({"type": "object", "additionalProperties": false, "properties": {}}));
            at = object["properties"].as_object_mut().unwrap();
            rest = more;
        }
        // The file takes both.
        for name in [rest.to_owned(), rest.replace('-', "_")] {
            at.insert(name, schema.clone());
        }
    }
    all
}

/// The keys that a section of the file takes, from the error about another one in it.
fn keys_of(text: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("streamlag.yml");
    std::fs::write(&file, text).unwrap();
    let arguments = ["streamlag", "--config.check", "--config.file", file.to_str().unwrap()];
    let error = streamlag::config::parse(arguments.map(Into::into)).unwrap_err().to_string();
    let (_, keys) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error} lists no keys"));
    keys.split(", ").map(str::to_owned).collect()
}

/// Each key in both of its spellings.
fn section(keys: Vec<String>, of: impl Fn(&str) -> Value) -> Value {
    let keys = keys.into_iter().map(|key| key.replace('-', "_"));
    let names = keys.flat_map(|key| [key.clone(), key.replace('_', "-")].map(|name| (name, of(&key))));
    json!({"type": "object", "additionalProperties": false, "properties": names.collect::<Map<_, _>>()})
}

/// What the file may have, without what the chart sets.
fn config() -> Value {
    let scalar = json!({"type": ["string", "number", "boolean"]});
    let object = |properties: Map<String, Value>| json!({"type": "object", "additionalProperties": false, "properties": properties});
    let mut settings = nested(SETTINGS.iter().filter(of_chart));

    let mut target = nested(SETTINGS.iter().filter(of_chart).filter(|setting| setting.per_target));
    target.insert("name".to_owned(), json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}));
    let mut target = object(target);
    target["required"] = json!(["name"]);
    settings.insert(
        "targets".to_owned(),
        json!({"type": "array", "items": target, "description": "Several Redis servers"}),
    );

    let mut scaler = section(keys_of("scalers: [{name: a, qqqqqqqqqq: 1}]"), |_| scalar.clone());
    scaler["required"] = json!(["name"]);
    let scalers = json!({"type": "array", "items": scaler, "description": "What autoscalers may ask for"});
    settings.insert("scalers".to_owned(), scalers);

    let webhook = section(keys_of("notify: {webhooks: [{qqqqqqqqqq: 1}]}"), |_| scalar.clone());
    let mut notify = section(keys_of("notify: {qqqqqqqqqq: 1}"), |key| match key {
        "alertmanagers" => json!({"type": "array", "items": {"type": "string"}}),
        "webhooks" => json!({"type": "array", "items": webhook}),
        "labels" => json!({"type": "object", "additionalProperties": scalar}),
        _ => scalar.clone(),
    });
    notify["description"] = "Whom to tell of incidents".into();
    settings.insert("notify".to_owned(), notify);
    settings.insert("remediation".to_owned(), remediation());

    let mut config = object(settings);
    config["description"] = "The configuration file, nested".into();
    config
}

/// What may be done, without the file of its record, which is on a volume of the chart.
fn remediation() -> Value {
    let (text, boolean) = (json!({"type": "string"}), json!({"type": "boolean"}));
    let count = json!({"type": "integer", "minimum": 1});
    let keys = |of: &str| keys_of(&format!("remediation: {of}"));
    let required = |mut section: Value, keys: &[&str]| {
        section["required"] = json!(keys);
        section
    };
    let budget = section(keys("{rules: [{budget: {qqqqqqqqqq: 1}}]}"), |_| count.clone());
    let hook = section(keys("{rules: [{hook: {qqqqqqqqqq: 1}}]}"), |key| match key {
        "allow_plain" => boolean.clone(),
        _ => text.clone(),
    });
    let dead_letter = section(keys("{rules: [{dead_letter: {qqqqqqqqqq: 1}}]}"), |key| match key {
        "deliveries" => count.clone(),
        _ => text.clone(),
    });
    // YAML 1.1 reads off as false: the chart turns it back.
    let modes =
        keys("{rules: [{stream: a, group: b, mode: qqqqqqqqqq}]}").into_iter().map(Value::from).chain([json!(false)]);
    let modes = json!({"enum": modes.collect::<Vec<_>>()});
    let actions = json!({"type": "array", "items": {"enum": keys("{rules: [{stream: a, group: b, mode: plan, actions: [qqqqqqqqqq]}]}")}});
    let rule = section(keys("{rules: [{qqqqqqqqqq: 1}]}"), |key| match key {
        "mode" => modes.clone(),
        "actions" => actions.clone(),
        "budget" => budget.clone(),
        "dead_letter" => dead_letter.clone(),
        "hook" => hook.clone(),
        _ => text.clone(),
    });
    let rule = required(rule, &["stream", "group", "mode"]);
    let of_chart = keys("{qqqqqqqqqq: 1}").into_iter().filter(|key| key.replace('-', "_") != "audit_file");
    let mut section = section(of_chart.collect(), |key| match key {
        "two_person" => boolean.clone(),
        "rules" => json!({"type": "array", "items": rule}),
        _ => text.clone(),
    });
    section["description"] = "What may be done about sick groups; acts need audit.enabled".into();
    section
}

/// What the file takes besides settings is in the schema too.
#[test]
fn the_schema_has_every_section() {
    let config = config();
    let sources = ["file.rs", "file/notify.rs", "file/scaler.rs", "file/remediation.rs"]
        .map(|file| std::fs::read_to_string(path(&format!("src/config/{file}"))).unwrap())
        .concat();
    let mut sections = 0;
    for argument in sources.split("take(").skip(1).filter_map(|rest| rest.split_once(", ")?.1.split(')').next()) {
        // A text, or a constant that is one.
        let named = |text: &str| -> Option<String> { text.split('"').nth(1).map(str::to_owned) };
        let constant = || sources.split_once(&format!("const {argument}: &str = "))?.1.lines().next().and_then(named);
        let Some(name) = named(argument).or_else(constant) else { continue };
        if name != "name" {
            assert!(config["properties"].get(&name).is_some(), "the schema has no {name}, which the file takes");
            sections += 1;
        }
    }
    assert_eq!(sections, 4, "what does src/config/file take?");
}

/// The part about the file is written from the table of settings. The rest is edited in the schema itself.
#[test]
fn the_schema_has_every_setting() {
    let text = std::fs::read_to_string(path(SCHEMA)).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    schema["properties"]["config"] = config();
    let expected = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("STREAMLAG_BLESS").is_some() {
        std::fs::write(path(SCHEMA), expected).unwrap();
        return;
    }
    assert!(text == expected, "{SCHEMA}: run STREAMLAG_BLESS=1 cargo test --locked --test it chart::");
}

/// The words that the schema allows are those that the program takes.
#[test]
fn the_words_of_the_schema_are_the_programs() {
    for (key, words) in WORDS {
        for (word, good) in words.iter().map(|word| (*word, true)).chain([("other", false)]) {
            let arguments = ["streamlag", "--config.check", &format!("--{key}={word}")].map(Into::into);
            let parsed = streamlag::config::parse(arguments);
            assert_eq!(parsed.is_ok(), good, "--{key}={word}: {parsed:?}");
        }
    }
}

/// Every value, with its default: from the schema and values.yaml.
#[test]
fn the_tables_of_the_charts_readme() {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path(SCHEMA)).unwrap()).unwrap();
    let values = std::fs::read_to_string(path("deploy/helm/streamlag/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    let mut table = "| value | default | what |\n| --- | --- | --- |\n".to_owned();
    rows(&mut table, "", &schema, &values);
    check("deploy/helm/streamlag/README.md", "values", &table);

    let mut table = "| value | default | what |\n| --- | --- | --- |\n".to_owned();
    for setting in SETTINGS.iter().filter(of_chart) {
        let default = setting.default.map_or(String::new(), |default| format!("`{}`", default.replace('|', "\\|")));
        let help = setting.help.replace('|', "\\|").replace('*', "\\*");
        table.push_str(&format!("| `config.{}` | {default} | {help} |\n", setting.key));
    }
    check("deploy/helm/streamlag/README.md", "config", &table);

    let mut table = "| not in `config` | set by |\n| --- | --- |\n".to_owned();
    table.extend(SET_BY_CHART.iter().map(|(setting, value)| format!("| `{setting}` | `{value}` |\n")));
    check("deploy/helm/streamlag/README.md", "set", &table);
}

/// A row for each value that is no section. Panics where the schema and values.yaml do not have the same values.
fn rows(table: &mut String, prefix: &str, schema: &Value, values: &Value) {
    let properties = schema["properties"].as_object().unwrap();
    for key in values.as_object().unwrap().keys() {
        assert!(properties.contains_key(key), "values.yaml has {prefix}{key}, the schema does not");
    }
    for (key, schema) in properties.iter().filter(|(key, _)| !["config", "global"].contains(&key.as_str())) {
        let Some(value) = values.get(key) else { panic!("the schema has {prefix}{key}, values.yaml does not") };
        let name = format!("{prefix}{key}");
        if schema.get("properties").is_some() {
            rows(table, &format!("{name}."), schema, value);
            continue;
        }
        let what = schema["description"].as_str().filter(|what| !what.is_empty());
        let what = what.unwrap_or_else(|| panic!("{name} has no description"));
        table.push_str(&format!("| `{name}` | `{value}` | {what} |\n"));
        if let Some(items) = schema["items"]["properties"].as_object() {
            for (key, schema) in items {
                let what = schema["description"].as_str().unwrap_or_default();
                table.push_str(&format!("| `{name}[].{key}` |  | {what} |\n"));
            }
        }
    }
}

/// Every setting of the file is a value, but for those that the chart sets and those that say what to do.
#[test]
fn nothing_is_left_out() {
    for (setting, value) in SET_BY_CHART {
        assert!(Setting::find(setting).is_some(), "there is no setting {setting}");
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(path(SCHEMA)).unwrap()).unwrap();
        let mut at = &schema;
        for key in value.split('.') {
            at = at["properties"].get(key).unwrap_or_else(|| panic!("there is no value {value}"));
        }
    }
    // Files that are read can be a Secret of secrets.mounts. One that is written needs a volume.
    let files = SETTINGS.iter().filter(|setting| setting.value_name == "FILE").filter(of_chart);
    let written: Vec<&str> = files.map(|setting| setting.key).filter(|key| !key.ends_with("-file")).collect();
    assert!(written.is_empty(), "{written:?}: which volume are they on?");
}
