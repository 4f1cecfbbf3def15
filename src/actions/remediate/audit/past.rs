//! How acts and decisions ended, by the end of the file: what is shown after a restart.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::{Lines, Record, TAIL, cut_short};
use crate::analysis::remediation::Action;
use crate::store::remediation::{Ending, MAX_PAST, PastPlan};

/// The newest plans on record, the newest first. An act without an outcome is one that the program did not live to see.
///
/// # Errors
/// Why the file cannot be read. One that there is not has none.
pub(in crate::actions::remediate) fn past(path: &Path) -> std::io::Result<VecDeque<PastPlan>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut lines = Lines::of(&file, length.saturating_sub(TAIL)..length)?;
    let mut open: BTreeMap<String, Record> = BTreeMap::new();
    let mut past = VecDeque::new();
    while let Some((line, _)) = lines.next()? {
        let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
        match record.kind.as_str() {
            "intent" => drop(open.insert(record.plan.clone(), record)),
            "outcome" => {
                let intent = open.remove(&record.plan).unwrap_or_default();
                past.extend(ended(intent, record));
            }
            "decision" => past.extend(ended(Record::default(), record)),
            _ => {}
        }
        if past.len() > MAX_PAST {
            past.pop_front();
        }
    }
    for (_, intent) in open {
        let by = intent.by.clone();
        past.extend(ended(Record { by, ..Record::default() }, cut_short(intent)));
    }
    let mut past: VecDeque<PastPlan> = past.into_iter().rev().collect();
    past.truncate(MAX_PAST);
    Ok(past)
}

/// What an intent and its outcome, or a decision by itself, tell; nothing where they are of a later version.
fn ended(intent: Record, record: Record) -> Option<PastPlan> {
    let first = |one: String, other: &String| if one.is_empty() { other.clone() } else { one };
    Some(PastPlan {
        action: Action::parse(&record.action)?,
        ending: Ending::parse(&record.outcome)?,
        // Records of earlier versions have no time of the plan: it was before the act.
        made_at: first(first(intent.made_at, &record.made_at), &record.at),
        why: first(intent.why, &record.why),
        by: if intent.by.is_empty() { record.by } else { intent.by },
        at: record.at,
        id: record.plan,
        place: [record.redis_target, record.stream, record.consumer_group],
        what: record.what,
        changed: record.changed.unwrap_or_default(),
        detail: record.detail,
    })
}
