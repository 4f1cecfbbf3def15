//! `remediation:` of the configuration file, checked against the targets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::actions::notify::Webhook;
use crate::actions::remediate::{Doer, Place, PlaceMode, RemediationConfig, Sentinels, TlsPaths};
use crate::analysis::remediation::{Action, Budget, DeadLetter, RemediationMode, RemediationRule};
use crate::collector::{self, Address, Topology};
use crate::config::file::remediation::{BudgetItem, DeadLetterItem, REMEDIATION, RuleItem};
use crate::config::file::{Given, Located, RemediationSection};
use crate::config::target::TargetConfig;
use crate::config::values::ConfigError;
use crate::model::{TargetName, glob, names};

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

/// What a rule is for where it names no target.
const EVERY_TARGET: &str = "*";

type Listed = Located<RemediationSection>;

/// The files of secrets: of the password and of what webhooks sign with, and the configuration file if a webhook's URL in it may be one.
pub(super) fn secret_files(listed: &Listed) -> Vec<PathBuf> {
    let password = listed.section.password_file.as_ref().map(|given| listed.path(given));
    let hooks = listed.section.rules.iter().filter_map(|rule| rule.hook.as_ref());
    password.into_iter().chain(listed.webhook_secrets(hooks)).collect()
}

/// What may be done about these targets; nothing where nothing is listed.
pub(super) fn checked(listed: Option<&Listed>, targets: &[TargetConfig]) -> Result<RemediationConfig, ConfigError> {
    let Some(listed) = listed else { return Ok(RemediationConfig::default()) };
    let section = &listed.section;
    if section.rules.len() > MAX_RULES {
        let (place, found) = (listed.begins(), section.rules.len());
        return Err(ConfigError::new(format!(
            "{REMEDIATION}.rules in {place}: expected at most {MAX_RULES} rules, found {found}"
        )));
    }
    let mut hooks = Vec::new();
    let rules = section.rules.iter().map(|item| rule(listed, item, targets, &mut hooks));
    let rules: Vec<RemediationRule> = rules.collect::<Result<_, _>>()?;
    let doers = if rules.iter().any(acts_in_redis) { doers(listed, &rules, targets)? } else { BTreeMap::new() };
    if section.audit_file.is_none() && rules.iter().any(is_carried_out) {
        return Err(missing(listed, "audit_file", "expected a file, as mode approve and auto record every act"));
    }
    Ok(RemediationConfig {
        rules: rules.into(),
        doers,
        hooks,
        ca: listed.certificates(&of("ca_file"), section.ca_file.as_ref())?,
        audit_file: section.audit_file.as_ref().map(|given| audit_file(listed, given)).transpose()?,
        kill_switch_file: section.kill_switch_file.as_ref().map(|given| listed.path(given)),
        two_person: listed.switch(&of("two_person"), section.two_person.as_ref())?,
    })
}

fn of(key: &str) -> String {
    format!("{REMEDIATION}.{key}")
}

fn of_rule(key: &str) -> String {
    format!("{REMEDIATION}.rules.{key}")
}

fn missing(listed: &Listed, key: &str, why: &str) -> ConfigError {
    ConfigError::new(format!("{REMEDIATION} in {}: {key} is missing: {why}", listed.begins()))
}

fn audit_file(listed: &Listed, given: &Given) -> Result<PathBuf, ConfigError> {
    let file = listed.path(given);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() && !file.is_dir() {
        return Ok(file);
    }
    Err(listed.wrong_value(&of("audit_file"), given, "expected a file in a folder that is there"))
}

fn acts_in_redis(rule: &RemediationRule) -> bool {
    is_carried_out(rule) && rule.actions.iter().any(|action| *action != Action::Hook)
}

fn is_carried_out(rule: &RemediationRule) -> bool {
    matches!(rule.mode, RemediationMode::Approve | RemediationMode::Auto)
}

fn rule(
    listed: &Listed,
    item: &RuleItem,
    targets: &[TargetConfig],
    hooks: &mut Vec<Webhook>,
) -> Result<RemediationRule, ConfigError> {
    let mode = RemediationMode::parse(&item.mode.value).ok_or_else(|| {
        listed.wrong_value(&of_rule("mode"), &item.mode, one_of(RemediationMode::ALL.map(RemediationMode::as_str)))
    })?;
    let action = |given: &Given| {
        let unknown = || listed.wrong_value(&of_rule("actions"), given, one_of(Action::ALL.map(Action::as_str)));
        Action::parse(&given.value).ok_or_else(unknown)
    };
    let actions: BTreeSet<Action> = item.actions.iter().map(action).collect::<Result<_, _>>()?;
    // What is missing has no place of its own.
    let missing = |why: &str| listed.wrong(&format!("{REMEDIATION}.rules"), &item.mode, why);
    if actions.is_empty() && mode != RemediationMode::Off {
        let all = Action::ALL.map(Action::as_str).join(", ");
        return Err(missing(&format!("actions is missing: expected one or more of {all}")));
    }
    if mode == RemediationMode::Auto && item.budget.is_none() {
        return Err(missing(
            "budget is missing: mode auto requires a budget, such as {acts_per_hour: 10, entries_per_act: 100}",
        ));
    }
    let target = item.target.as_ref().map_or(EVERY_TARGET, |given| &given.value);
    let is_meant = |known: &&TargetConfig| glob::matches(target.as_bytes(), known.name.as_str().as_bytes());
    if let Some(given) = item.target.as_ref().filter(|_| !targets.iter().any(|known| is_meant(&known))) {
        return Err(listed.wrong_value(&of_rule("target"), given, "expected a pattern that matches a target"));
    }
    if actions.contains(&Action::DeadLetter) && item.dead_letter.is_none() {
        return Err(missing("dead_letter is missing: expected {stream: NAME, deliveries: N}"));
    }
    if actions.contains(&Action::Hook) && item.hook.is_none() {
        return Err(missing("hook is missing: expected {url: URL, secret_file: FILE}"));
    }
    if let Some(hook) = item.hook.as_ref().filter(|hook| hook.secret_file.is_none()) {
        let why = "secret_file is missing: expected a file of what the call is signed with";
        return Err(listed.wrong(&of_rule("hook"), &hook.url, why));
    }
    let dead_letter = |to| dead_letter(listed, to, &item.stream, targets.iter().filter(is_meant));
    let hook = item.hook.as_ref().map(|given| listed.webhook(&of_rule("hook"), given)).transpose()?;
    Ok(RemediationRule {
        target: target.to_owned(),
        stream: item.stream.value.clone(),
        group: item.group.value.clone(),
        mode,
        actions: actions.into_iter().collect(),
        budget: item.budget.as_ref().map(|given| budget(listed, given)).transpose()?,
        dead_letter: item.dead_letter.as_ref().map(dead_letter).transpose()?,
        hook: hook.map(|webhook| {
            hooks.push(webhook);
            hooks.len() - 1
        }),
    })
}

fn one_of<const N: usize>(words: [&str; N]) -> String {
    format!("expected one of {}", words.join(", "))
}

/// A whole number within bounds, both included.
fn whole_number(listed: &Listed, key: &str, given: &Given, min: u64, max: u64) -> Result<u64, ConfigError> {
    let number = given.value.parse().ok().filter(|number| (min..=max).contains(number));
    let takes = || if max == u64::MAX { format!("of at least {min}") } else { format!("between {min} and {max}") };
    number.ok_or_else(|| listed.wrong_value(&of_rule(key), given, format!("expected a whole number {}", takes())))
}

fn budget(listed: &Listed, given: &BudgetItem) -> Result<Budget, ConfigError> {
    Ok(Budget {
        acts_per_hour: whole_number(listed, "budget.acts_per_hour", &given.acts_per_hour, 1, MAX_ACTS)?,
        entries_per_act: whole_number(listed, "budget.entries_per_act", &given.entries_per_act, 1, MAX_ENTRIES)?,
    })
}

fn dead_letter<'a>(
    listed: &Listed,
    given: &DeadLetterItem,
    streams: &Given,
    targets: impl IntoIterator<Item = &'a TargetConfig>,
) -> Result<DeadLetter, ConfigError> {
    let (streams, to) = (streams.value.as_str(), given.stream.value.as_str());
    let wrong = |why: &str| listed.wrong_value(&of_rule("dead_letter.stream"), &given.stream, why);
    if to.is_empty() || to == streams {
        return Err(wrong("expected another stream than that of the rule"));
    }
    let in_cluster = targets.into_iter().any(|target| target.redis.mode == collector::RedisMode::Cluster);
    if in_cluster && !shares_slot(streams.as_bytes(), to.as_bytes()) {
        return Err(wrong(&format!(
            "expected the same slot of the cluster as {streams:?}, by the same hash tag in both, such as {{orders}}:* and \
             {{orders}}:dead"
        )));
    }
    let deliveries = whole_number(listed, "dead_letter.deliveries", &given.deliveries, MIN_DELIVERIES, u64::MAX)?;
    let idle = listed.duration(&of_rule("dead_letter.idle"), given.idle.as_ref(), Duration::ZERO)?;
    Ok(DeadLetter { stream: to.into(), deliveries, idle: idle.unwrap_or(DEAD_LETTER_IDLE) })
}

/// Whether every stream of a glob is in the slot of another stream.
fn shares_slot(streams: &[u8], other: &[u8]) -> bool {
    let special = streams.iter().position(|byte| b"*?[\\".contains(byte));
    match (names::hash_tag(&streams[..special.unwrap_or(streams.len())]), names::hash_tag(other)) {
        (Some(tag), Some(other)) => tag == other,
        // Without a wildcard, the whole name stands for a tag.
        (None, Some(other)) => special.is_none() && streams == other,
        (Some(tag), None) => tag == other,
        (None, None) => false,
    }
}

/// Who acts at each target for which something may be carried out.
fn doers(
    listed: &Listed,
    rules: &[RemediationRule],
    targets: &[TargetConfig],
) -> Result<BTreeMap<TargetName, Doer>, ConfigError> {
    const OWN: &str = "mode approve and auto act as a Redis user of its own";
    let user = listed.section.user.as_ref().ok_or_else(|| missing(listed, "user", OWN))?;
    let file = listed.section.password_file.as_ref().ok_or_else(|| missing(listed, "password_file", OWN))?;
    let mut doers = BTreeMap::new();
    for target in targets {
        let is_meant = |rule: &&RemediationRule| {
            acts_in_redis(rule) && glob::matches(rule.target.as_bytes(), target.name.as_str().as_bytes())
        };
        if !rules.iter().any(|rule| is_meant(&rule)) {
            continue;
        }
        if user.value == target.redis.endpoint.credentials.user_name() {
            let why = format!("expected another user than the one who watches target {}", target.name);
            return Err(listed.wrong_value(&of("user"), user, why));
        }
        let place = place(&target.redis).map_err(|why| listed.wrong(&of("user"), user, why))?;
        let doer = Doer::new(place, user.value.clone(), listed.path(file));
        doers.insert(target.name.clone(), doer.map_err(|why| listed.wrong(&of("password_file"), file, why))?);
    }
    Ok(doers)
}

/// The `redis` crate cannot be told to expect another name than that of the host.
#[derive(Debug, thiserror::Error)]
#[error("acting does not go with --redis.tls-server-name: expected a certificate for the host")]
struct PinnedServerName;

fn place(redis: &Topology) -> Result<Place, PinnedServerName> {
    let mode = match redis.mode {
        collector::RedisMode::Standalone => PlaceMode::Standalone,
        collector::RedisMode::Cluster => PlaceMode::Cluster,
        collector::RedisMode::Sentinel => {
            let login = &redis.sentinel_login;
            PlaceMode::Sentinel(Sentinels {
                master: redis.sentinel_master.clone(),
                user: login.has_user().then(|| login.user_name().to_owned()),
                password_file: login.password_file().map(Path::to_owned),
            })
        }
    };
    let tls = match &redis.endpoint.tls {
        Some(tls) if tls.is_pinned() => return Err(PinnedServerName),
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
        let check = |streams: &str, to: &str, expected| {
            assert_eq!(shares_slot(streams.as_bytes(), to.as_bytes()), expected, "{streams} {to}")
        };
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
