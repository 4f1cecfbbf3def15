//! The rules of `alerts/streamlag.rules.yml`, read from that file at build time: their texts stand nowhere else.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde::Deserialize;

use crate::analysis::incident::{AlertRule, Severity};
use crate::analysis::incidents::conditions::{CONDITIONS, IncidentCondition};

/// The rules as Prometheus loads them.
const RULES_FILE: &str = include_str!("../../../alerts/streamlag.rules.yml");

#[derive(Deserialize)]
struct RulesFile {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize)]
struct RuleGroup {
    rules: Vec<RuleEntry>,
}

#[derive(Deserialize)]
struct RuleEntry {
    alert: String,
    expr: String,
    r#for: Option<String>,
    keep_firing_for: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// The rules that streamlag evaluates itself, in the order of the conditions; a test holds that none is missing.
#[must_use]
pub fn all() -> &'static [AlertRule] {
    static RULES: LazyLock<Vec<AlertRule>> = LazyLock::new(parse);
    &RULES
}

fn parse() -> Vec<AlertRule> {
    // A file that does not parse is found by the tests, which is before it is shipped.
    let Ok(file) = serde_saphyr::from_str::<RulesFile>(RULES_FILE) else { return Vec::new() };
    let entries: Vec<RuleEntry> = file.groups.into_iter().flat_map(|group| group.rules).collect();
    let time =
        |text: &Option<String>| text.as_ref().map_or(Some(Duration::ZERO), |text| humantime::parse_duration(text).ok());
    let rule = |condition: &IncidentCondition| {
        // With another expression the condition would be another rule under the same name.
        let says = |entry: &&RuleEntry| entry.expr.split_whitespace().eq(condition.expr.split_whitespace());
        let entry = entries.iter().find(|entry| entry.alert == condition.rule).filter(says)?;
        Some(AlertRule {
            name: entry.alert.clone(),
            severity: Severity::parse(entry.labels.get("severity")?)?,
            hold: time(&entry.r#for)?,
            keep_firing: time(&entry.keep_firing_for)?,
            state: condition.state,
            annotations: entry.annotations.clone(),
        })
    };
    CONDITIONS.iter().filter_map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_is_a_rule_of_the_file_with_its_expression() {
        let found: Vec<&str> = all().iter().map(|rule| rule.name.as_str()).collect();
        let expected: Vec<&str> = CONDITIONS.iter().map(|condition| condition.rule).collect();
        assert_eq!(
            found, expected,
            "a rule was renamed, or its expression changed: adapt the condition, then its expr"
        );
        assert!(all().is_sorted_by_key(|rule| rule.severity), "the worst come first");
        for rule in all() {
            for key in ["summary", "description", "runbook_url"] {
                assert!(rule.annotations.contains_key(key), "{} has no {key}", rule.name);
            }
        }
    }
}
