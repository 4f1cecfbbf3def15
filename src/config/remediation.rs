//! `remediation:` of the configuration file: its structure by serde, its values here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::actions::notify::Webhook;
use crate::actions::remediate::{Doer, Place, PlaceMode, RemediationConfig, Sentinels, TlsPaths};
use crate::analysis::remediation::{Action, Budget, DeadLetter, Mode, Rule};
use crate::collector::{self, Address, Topology};
use crate::config::MAX_DURATION;
use crate::config::file::ListedRemediation;
use crate::config::file::remediation::{
    ActionWord, ListedBudget, ListedDeadLetter, ListedHook, ListedRule, ModeWord, Placed, REMEDIATION,
};
use crate::config::notify::secret;
use crate::config::target::TargetConfig;
use crate::config::values::ConfigError;
use crate::model::glob;
use crate::sys::files as sys_files;
use crate::sys::http_client::{Client, Endpoint};

/// Rules of a file: each group of each stream is held against all of them.
const MAX_RULES: usize = 100;

/// Acts per group and hour: more is no remediation.
const MAX_ACTS: u64 = 1000;

/// Entries of one act, which is one script that nobody else at Redis gets past.
const MAX_ENTRIES: u64 = 1000;

/// The fewest deliveries after which an entry may be moved: one may have been cut off by a restart.
const MIN_DELIVERIES: u64 = 2;

/// How long the last delivery must be ago where nothing else is said.
const DEAD_LETTER_IDLE: Duration = Duration::from_secs(60);

/// The files of secrets: of the password and of what webhooks sign with, and the configuration file if a webhook's URL in it may be one.
pub(super) fn secret_files(listed: &ListedRemediation) -> Vec<PathBuf> {
    let hooks = || listed.section.rules.iter().filter_map(|rule| rule.value.hook.as_ref());
    let has_path = |hook: &ListedHook| Endpoint::parse(&hook.url).is_ok_and(|to| to.has_path());
    let password = listed.section.password_file.as_ref().map(|given| listed.path(&given.value));
    let secrets = hooks().map(|hook| listed.path(&hook.secret_file));
    let own = hooks().any(has_path).then(|| listed.file.to_path_buf());
    password.into_iter().chain(secrets).chain(own).collect()
}

/// The files that a reload reads.
pub(super) fn files(listed: &ListedRemediation) -> Vec<PathBuf> {
    let ca = listed.section.ca_file.as_ref().map(|given| listed.path(&given.value));
    secret_files(listed).into_iter().filter(|file| **file != *listed.file).chain(ca).collect()
}

/// What may be done about these targets; nothing where nothing is listed.
pub(super) fn checked(
    listed: Option<&ListedRemediation>,
    targets: &[TargetConfig],
) -> Result<RemediationConfig, ConfigError> {
    let Some(listed) = listed else { return Ok(RemediationConfig::default()) };
    let section = &listed.section;
    if section.rules.len() > MAX_RULES {
        return Err(ConfigError::new(format!("{REMEDIATION}: expected at most {MAX_RULES} rules")));
    }
    let (mut rules, mut hooks) = (Vec::new(), Vec::new());
    for rule in &section.rules {
        let location = listed.location(rule.referenced.line());
        let problem = |why: String| ConfigError::new(format!("{REMEDIATION}.rules in {location}: {why}"));
        rules.push(self::rule(listed, &rule.value, targets, &mut hooks).map_err(problem)?);
    }
    let doers = if rules.iter().any(acts_in_redis) { doers(listed, &rules, targets)? } else { BTreeMap::new() };
    let audit_file = match &section.audit_file {
        None if rules.iter().any(is_carried_out) => {
            return Err(ConfigError::new(format!(
                "{REMEDIATION}.audit_file is missing: expected a file, as mode approve and auto record every act"
            )));
        }
        None => None,
        Some(given) => {
            let file = listed.path(&given.value);
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() || file.is_dir() {
                return Err(of(listed, "audit_file", given, "expected a file in a folder that is there"));
            }
            Some(file)
        }
    };
    Ok(RemediationConfig {
        rules: rules.into(),
        doers,
        hooks,
        ca: ca(listed)?,
        audit_file,
        kill_switch_file: section.kill_switch_file.as_ref().map(|given| listed.path(&given.value)),
        two_person: section.two_person,
    })
}

fn of(listed: &ListedRemediation, key: &str, given: &Placed<String>, why: &str) -> ConfigError {
    let location = listed.location(given.referenced.line());
    ConfigError::new(format!("{REMEDIATION}.{key} in {location}: {why}"))
}

fn acts_in_redis(rule: &Rule) -> bool {
    is_carried_out(rule) && rule.actions.iter().any(|action| *action != Action::Hook)
}

fn is_carried_out(rule: &Rule) -> bool {
    matches!(rule.mode, Mode::Approve | Mode::Auto)
}

fn ca(listed: &ListedRemediation) -> Result<Option<Arc<[u8]>>, ConfigError> {
    let Some(given) = &listed.section.ca_file else { return Ok(None) };
    let pem = sys_files::read(&listed.path(&given.value)).map_err(|why| why.to_string());
    let pem = pem.and_then(|pem| Client::new(Some(&pem)).map(|_| pem).map_err(|why| why.to_string()));
    pem.map(|pem| Some(pem.into())).map_err(|why| of(listed, "ca_file", given, &why))
}

fn rule(
    listed: &ListedRemediation,
    rule: &ListedRule,
    targets: &[TargetConfig],
    hooks: &mut Vec<Webhook>,
) -> Result<Rule, String> {
    let mode = match rule.mode {
        ModeWord::Off => Mode::Off,
        ModeWord::Plan => Mode::Plan,
        ModeWord::Approve => Mode::Approve,
        ModeWord::Auto => Mode::Auto,
    };
    let actions: BTreeSet<Action> = rule.actions.iter().map(|word| action(*word)).collect();
    if actions.is_empty() && mode != Mode::Off {
        let all = Action::ALL.map(Action::as_str).join(", ");
        return Err(format!("actions: expected one or more of {all}"));
    }
    if mode == Mode::Auto && rule.budget.is_none() {
        return Err(
            "budget is missing: mode auto requires a budget, such as {acts_per_hour: 10, entries_per_act: 100}"
                .to_owned(),
        );
    }
    let target = rule.target.clone().unwrap_or_else(|| "*".to_owned());
    let of_rule = |known: &&TargetConfig| glob::matches(target.as_bytes(), known.name.as_str().as_bytes());
    if !targets.iter().any(|known| of_rule(&known)) {
        return Err(format!("target: no target matches {target:?}"));
    }
    let dead_letter = match &rule.dead_letter {
        None if actions.contains(&Action::DeadLetter) => {
            return Err("dead_letter is missing: expected {stream: NAME, deliveries: N}".to_owned());
        }
        None => None,
        Some(to) => Some(dead_letter(to, &rule.stream, targets.iter().filter(of_rule))?),
    };
    let hook = match &rule.hook {
        None if actions.contains(&Action::Hook) => {
            return Err("hook is missing: expected {url: URL, secret_file: FILE}".to_owned());
        }
        None => None,
        Some(given) => {
            let webhook = hook(listed, given).map_err(|why| format!("hook: {why}"))?;
            hooks.push(webhook);
            Some(hooks.len() - 1)
        }
    };
    Ok(Rule {
        target,
        stream: rule.stream.clone(),
        group: rule.group.clone(),
        mode,
        actions: actions.into_iter().collect(),
        budget: rule.budget.map(budget).transpose()?,
        dead_letter,
        hook,
    })
}

fn action(word: ActionWord) -> Action {
    match word {
        ActionWord::DeleteIdleConsumers => Action::DeleteIdleConsumers,
        ActionWord::DropGhosts => Action::DropGhosts,
        ActionWord::Release => Action::Release,
        ActionWord::DeadLetter => Action::DeadLetter,
        ActionWord::Hook => Action::Hook,
    }
}

fn budget(given: ListedBudget) -> Result<Budget, String> {
    let ListedBudget { acts_per_hour, entries_per_act } = given;
    let check = |key: &str, value: u64, most: u64| {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(format!("budget: invalid value {value} for {key}: expected a number from 1 to {most}"))
    };
    check("acts_per_hour", acts_per_hour, MAX_ACTS)?;
    check("entries_per_act", entries_per_act, MAX_ENTRIES)?;
    Ok(Budget { acts_per_hour, entries_per_act })
}

fn dead_letter<'a>(
    given: &ListedDeadLetter,
    streams: &str,
    targets: impl IntoIterator<Item = &'a TargetConfig>,
) -> Result<DeadLetter, String> {
    let to = given.stream.as_str();
    if to.is_empty() || to == streams {
        return Err("dead_letter.stream: expected another stream than that of the rule".to_owned());
    }
    if given.deliveries < MIN_DELIVERIES {
        return Err(format!(
            "dead_letter: invalid value {} for deliveries: expected {MIN_DELIVERIES} or more",
            given.deliveries
        ));
    }
    let in_cluster = targets.into_iter().any(|target| target.redis.mode == collector::Mode::Cluster);
    if in_cluster && !shares_slot(streams, to) {
        return Err(format!(
            "dead_letter: invalid value {to:?} for stream: expected the same slot of the cluster as {streams:?}, by the same hash \
             tag in both, such as {{orders}}:* and {{orders}}:dead"
        ));
    }
    let idle = match &given.idle {
        None => DEAD_LETTER_IDLE,
        Some(text) => humantime::parse_duration(text).ok().filter(|idle| *idle <= MAX_DURATION).ok_or_else(|| {
            format!("dead_letter: invalid value {text:?} for idle: expected a duration up to 1d, such as 30s")
        })?,
    };
    Ok(DeadLetter { stream: to.into(), deliveries: given.deliveries, idle })
}

/// Whether every stream of a glob is in the slot of another stream.
fn shares_slot(streams: &str, other: &str) -> bool {
    let special = streams.find(['*', '?', '[', '\\']);
    match (hash_tag(&streams[..special.unwrap_or(streams.len())]), hash_tag(other)) {
        (Some(tag), Some(other)) => tag == other,
        // Without a wildcard, the whole name stands for a tag.
        (None, Some(other)) => special.is_none() && streams == other,
        (Some(tag), None) => tag == other,
        (None, None) => false,
    }
}

/// What decides on the slot in place of the whole key: what stands between the first `{` and the next `}`, unless that is nothing.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    rest.split_once('}').map(|(tag, _)| tag).filter(|tag| !tag.is_empty())
}

fn hook(listed: &ListedRemediation, given: &ListedHook) -> Result<Webhook, String> {
    let endpoint = Endpoint::parse(&given.url).map_err(|why| format!("url: {why}"))?;
    if endpoint.is_plain_elsewhere() && !given.allow_plain {
        return Err("url: expected https:// for another host; allow_plain: true sends without TLS".to_owned());
    }
    let secret = secret(&listed.path(&given.secret_file)).map_err(|why| format!("secret_file: {why}"))?;
    Ok(Webhook { endpoint, secret: Some(secret) })
}

/// Who acts at each target for which something may be carried out.
fn doers(
    listed: &ListedRemediation,
    rules: &[Rule],
    targets: &[TargetConfig],
) -> Result<BTreeMap<crate::model::TargetName, Doer>, ConfigError> {
    let missing = |key: &str| {
        ConfigError::new(format!(
            "{REMEDIATION}.{key} is missing: mode approve and auto act as a Redis user of its own"
        ))
    };
    let user = listed.section.user.as_ref().ok_or_else(|| missing("user"))?;
    let file = listed.section.password_file.as_ref().ok_or_else(|| missing("password_file"))?;
    let mut doers = BTreeMap::new();
    for target in targets {
        let is_meant = |rule: &&Rule| {
            acts_in_redis(rule) && glob::matches(rule.target.as_bytes(), target.name.as_str().as_bytes())
        };
        if !rules.iter().any(|rule| is_meant(&rule)) {
            continue;
        }
        let watcher = target.redis.endpoint.credentials.user_name();
        if user.value == watcher {
            let why = format!("expected another user than {watcher:?}, who watches target {}", target.name);
            return Err(of(listed, "user", user, &why));
        }
        let place = place(&target.redis).map_err(|why| of(listed, "user", user, &why))?;
        let doer = Doer::new(place, user.value.clone(), listed.path(&file.value));
        doers.insert(target.name.clone(), doer.map_err(|why| of(listed, "password_file", file, &why))?);
    }
    Ok(doers)
}

fn place(redis: &Topology) -> Result<Place, String> {
    let mode = match redis.mode {
        collector::Mode::Standalone => PlaceMode::Standalone,
        collector::Mode::Cluster => PlaceMode::Cluster,
        collector::Mode::Sentinel => {
            let (user, password) = redis.sentinel_login.credentials();
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let (user, password) = (owned(user), owned(password));
            PlaceMode::Sentinel(Sentinels { master: redis.sentinel_master.clone(), user, password })
        }
    };
    let tls = match &redis.endpoint.tls {
        Some(tls) if tls.is_pinned() => {
            return Err(
                "acting does not go with --redis.tls-server-name: expected a certificate for the host".to_owned()
            );
        }
        Some(tls) => Some(TlsPaths { ca: tls.files().ca.clone(), identity: tls.files().identity.clone() }),
        None => None,
    };
    let all = || std::iter::once(&redis.endpoint.address).chain(&redis.nodes);
    let host = |address: &Address| match address {
        Address::Tcp(host, port) => Some((host.clone(), *port)),
        Address::Unix(_) => None,
    };
    let socket = all().find_map(|address| match address {
        Address::Unix(path) => Some(path.clone()),
        Address::Tcp(..) => None,
    });
    Ok(Place { mode, hosts: all().filter_map(host).collect(), socket, db: redis.endpoint.db, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_stream_must_be_in_the_same_slot_for_certain() {
        let check = |streams, to, expected| assert_eq!(shares_slot(streams, to), expected, "{streams} {to}");
        check("{orders}:*", "{orders}:dead", true);
        check("a{orders}*", "dead{orders}x", true);
        check("{orders}:1", "dead{orders}", true);
        check("orders", "{orders}:dead", true);
        check("{orders}:*", "orders", true);
        check("{orders}:*", "{other}:dead", false);
        check("{ord*}:x", "{ord*}:dead", false);
        check("orders*", "{orders}:dead", false);
        check("orders", "orders:dead", false);
        check("{}orders", "{}orders:dead", false);
        check("*{orders}", "{orders}", false);
    }
}
