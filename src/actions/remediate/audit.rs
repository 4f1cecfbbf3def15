//! What was done, by whom and why: JSON lines that are only added to. Each has the SHA-256 of the one before, so that a line that is
//! changed, taken out or put in shows.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::act::Outcome;
use crate::analysis::remediation::Plan;
use crate::model::text::{hex, rfc3339};
use crate::store::remediation::AUTO;

/// Bytes of the end of the file that are read at the start: acts of an hour, and those that were cut short.
const TAIL: u64 = 4 << 20;

/// The longest line that can be one of ours: names are shown in a few hundred bytes.
const MAX_LINE: u64 = 1 << 20;

/// What stands for the digest of a line before the first.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    seq: u64,
    /// For people.
    at: String,
    /// Seconds since the Unix epoch.
    unix: u64,
    /// `intent` before an act, `outcome` after it, `decision` where a person rejects a plan, `recovered` after a line that was cut short.
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    plan: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    redis_target: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    consumer_group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    what: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    by: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    detail: String,
    /// SHA-256 of the line before, without its line end.
    prev: String,
}

/// The file, open for what is next.
#[derive(Debug)]
pub(super) struct Audit {
    file: File,
    /// The digest of its last line.
    last: String,
    seq: u64,
    /// When something was done without a person, by target, stream and group.
    acts: Vec<(u64, [String; 3])>,
}

impl Audit {
    /// Opens a file, or makes one. Acts of which it does not tell how they ended get an outcome: unknown.
    ///
    /// # Errors
    /// Why nothing can be recorded.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot write the audit file ({error})");
        let options = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = options.map_err(failed)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => "another streamlag writes the audit file".to_owned(),
            TryLockError::Error(error) => failed(error),
        })?;
        // A file that is not in its folder yet is none.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        let length = file.metadata().map_err(failed)?.len();
        let from = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut tail = Vec::new();
        (&mut file).take(TAIL).read_to_end(&mut tail).map_err(failed)?;
        let is_cut = tail.last().is_some_and(|byte| *byte != b'\n');
        let mut lines: Vec<&[u8]> = tail.split(|byte| *byte == b'\n').collect();
        if !is_cut {
            lines.pop();
        }
        // The first may have begun before the tail.
        let whole = if from > 0 { lines.get(1..).unwrap_or_default() } else { &lines };
        let mut audit = Self { file, last: NO_DIGEST.to_owned(), seq: 0, acts: Vec::new() };
        let mut open: BTreeMap<String, Record> = BTreeMap::new();
        for line in whole {
            audit.last = digest(line);
            let Ok(record) = serde_json::from_slice::<Record>(line) else { continue };
            audit.seq = record.seq;
            match record.kind.as_str() {
                "intent" => {
                    if record.by == [AUTO] {
                        let of = [&record.redis_target, &record.stream, &record.consumer_group].map(String::clone);
                        audit.acts.push((record.unix, of));
                    }
                    open.insert(record.plan.clone(), record);
                }
                "outcome" => drop(open.remove(&record.plan)),
                _ => {}
            }
        }
        if is_cut {
            audit.file.write_all(b"\n").map_err(failed)?;
            let detail = "the line before was cut short".to_owned();
            audit.append(Record { kind: "recovered".to_owned(), detail, ..Record::default() }, SystemTime::now())?;
        }
        for (_, intent) in open {
            let detail = "the program ended before it knew".to_owned();
            let record =
                Record { kind: "outcome".to_owned(), outcome: "unknown".to_owned(), detail, by: Vec::new(), ..intent };
            audit.append(record, SystemTime::now())?;
        }
        Ok(audit)
    }

    /// Records what is about to be done. Where this fails, it must not be done.
    pub(super) fn intent(&mut self, plan: &Plan, by: &[String], now: SystemTime) -> Result<(), String> {
        self.append(Record { by: by.to_vec(), why: plan.why(), ..record("intent", plan) }, now)?;
        if by == [AUTO] {
            self.acts.push((unix(now), place(plan)));
        }
        Ok(())
    }

    /// Records what it came to.
    pub(super) fn outcome(&mut self, plan: &Plan, outcome: &Outcome, now: SystemTime) -> Result<(), String> {
        let (changed, detail) = (Some(outcome.changed), outcome.detail.clone());
        let outcome = outcome.ending.as_str().to_owned();
        self.append(Record { outcome, changed, detail, ..record("outcome", plan) }, now)
    }

    /// Records that a person does not want it.
    pub(super) fn rejected(&mut self, plan: &Plan, by: &str, now: SystemTime) -> Result<(), String> {
        self.append(Record { by: vec![by.to_owned()], outcome: "rejected".to_owned(), ..record("decision", plan) }, now)
    }

    /// How many acts nobody approved there were in this plan's group in the hour before `now`.
    pub(super) fn acts_within_an_hour(&mut self, plan: &Plan, now: SystemTime) -> u64 {
        let since = unix(now).saturating_sub(3600);
        self.acts.retain(|(at, _)| *at > since);
        let place = place(plan);
        self.acts.iter().filter(|(_, of)| *of == place).count() as u64
    }

    fn append(&mut self, record: Record, now: SystemTime) -> Result<(), String> {
        let record = Record { seq: self.seq + 1, at: rfc3339(now), unix: unix(now), prev: self.last.clone(), ..record };
        let line = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
        let before = self.file.metadata().map(|file| file.len());
        let text = [line.as_slice(), b"\n"].concat();
        if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_data()) {
            // Half a line is taken back; where that fails too, the next start goes on behind it.
            if let Ok(before) = before {
                let _ = self.file.set_len(before);
            }
            return Err(format!("cannot write the audit file ({error})"));
        }
        (self.last, self.seq) = (digest(&line), record.seq);
        Ok(())
    }
}

fn record(kind: &str, plan: &Plan) -> Record {
    let [redis_target, stream, consumer_group] = place(plan);
    Record {
        kind: kind.to_owned(),
        plan: plan.id.clone(),
        action: plan.action.as_str().to_owned(),
        redis_target,
        stream,
        consumer_group,
        what: plan.what(),
        ..Record::default()
    }
}

fn place(plan: &Plan) -> [String; 3] {
    [plan.target.to_string(), plan.stream.to_string(), plan.group.to_string()]
}

fn digest(line: &[u8]) -> String {
    hex(&Sha256::digest(line))
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// What is in an audit file whose lines hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Lines.
    pub records: u64,
    /// Intents.
    pub intents: u64,
    /// Outcomes.
    pub outcomes: u64,
    /// The digest of the last line: kept elsewhere, it shows that the end was not taken away.
    pub last: String,
}

/// Checks that each line has the digest of the one before, that numbers follow each other, and that no act has no intent.
///
/// # Errors
/// The first line that is wrong, or that the file cannot be read.
pub fn verify(path: &Path) -> Result<Verified, String> {
    let file = File::open(path).map_err(|error| format!("cannot read {} ({error})", path.display()))?;
    let mut reader = BufReader::new(file);
    let mut found = Verified { last: NO_DIGEST.to_owned(), ..Verified::default() };
    let (mut number, mut seq, mut was_cut) = (0_u64, 0_u64, false);
    let mut open = std::collections::BTreeSet::new();
    loop {
        number += 1;
        let mut line = Vec::new();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| format!("cannot read {} ({error})", path.display()))? == 0 {
            break;
        }
        let wrong = |why: &str| Err(format!("line {number}: {why}"));
        if line.pop() != Some(b'\n') {
            return wrong("it is cut short");
        }
        let (before, now) =
            (std::mem::replace(&mut found.last, digest(&line)), serde_json::from_slice::<Record>(&line));
        let Ok(record) = now else {
            if was_cut {
                return wrong("expected a record");
            }
            was_cut = true;
            continue;
        };
        if record.prev != before {
            return wrong("the line before is not the one that was there when this one was written");
        }
        if std::mem::take(&mut was_cut) && record.kind != "recovered" {
            return wrong("the line before is no record");
        }
        if record.seq != seq + 1 {
            return wrong(&format!("expected number {}, found {}", seq + 1, record.seq));
        }
        seq = record.seq;
        found.records += 1;
        match record.kind.as_str() {
            "intent" => {
                found.intents += 1;
                open.insert(record.plan);
            }
            "outcome" => {
                found.outcomes += 1;
                if !open.remove(&record.plan) {
                    return wrong("an outcome without an intent");
                }
            }
            _ => {}
        }
    }
    if was_cut {
        return Err(format!("line {}: expected a record", number - 1));
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
