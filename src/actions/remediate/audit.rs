//! What was done, by whom and why: JSON lines that are only added to. Each has the SHA-256 of the one before, so that a line that is
//! changed, taken out or put in shows.

mod past;

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom, Take, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::act::ActOutcome;
use crate::analysis::remediation::Plan;
use crate::model::text::{hex, rfc3339};
use crate::store::remediation::{AUTO, Ending};

pub(super) use past::past;

/// Bytes of the end of the file that are read at the start at least: acts that were cut short, and nearly always all those of an hour.
const TAIL: u64 = 4 << 20;

/// Bytes of the end of the file that are read at most. Where the acts of the last hour take more, the budget counts as used up.
const MAX_TAIL: u64 = 64 << 20;

/// Over what time acts count for a budget, in seconds.
const HOUR: u64 = 3600;

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
    /// When the plan was made, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    made_at: String,
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

/// What was done without a person in the last hour. It outlives a file that is moved away, and another configuration.
#[derive(Debug, Default)]
pub(super) struct AutoActs {
    /// When, in seconds since the Unix epoch, and for which target, stream and group, by plan.
    by_plan: BTreeMap<String, (u64, [String; 3])>,
    /// What there was before is not known.
    unknown_before: u64,
}

impl AutoActs {
    /// How many there were in this plan's group in the hour before `now`; `None` where that is not known.
    pub(super) fn within_an_hour(&mut self, plan: &Plan, now: SystemTime) -> Option<u64> {
        let since = unix(now).saturating_sub(HOUR);
        self.by_plan.retain(|_, (at, _)| *at > since);
        let place = plan.place();
        let count = self.by_plan.values().filter(|(_, of)| *of == place).count();
        (since >= self.unknown_before).then_some(count as u64)
    }
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    #[error("another streamlag writes the audit file")]
    Taken,
    #[error("the audit file was moved or removed")]
    Gone,
    #[error("the audit file was replaced by another one")]
    Replaced,
    #[error("somebody else changed the audit file: expected {expected} bytes, found {found}")]
    Changed { expected: u64, found: u64 },
    #[error("cannot write the audit file ({0})")]
    Io(#[from] std::io::Error),
    #[error("cannot write a record ({0})")]
    Encoding(#[from] serde_json::Error),
}

/// The file, open for what is next.
#[derive(Debug)]
pub(super) struct Audit {
    path: PathBuf,
    file: File,
    /// Its device and its inode.
    identity: (u64, u64),
    /// Bytes that it has, where only we write to it.
    length: u64,
    /// Whether half a line of ours may be behind them.
    is_torn: bool,
    /// The digest of its last line.
    last: String,
    seq: u64,
}

/// Which file it is.
#[cfg(unix)]
fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;

    (file.dev(), file.ino())
}

/// The same where files have no numbers: when it was made, in seconds and nanoseconds since the Unix epoch.
#[cfg(not(unix))]
fn identity(file: &Metadata) -> (u64, u64) {
    let made = file.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    (made.as_secs(), made.subsec_nanos().into())
}

impl Audit {
    /// Opens a file, or makes one, and adds what was done without a person by what it says. Acts of which it does not tell how they ended
    /// get an outcome: unknown.
    ///
    /// # Errors
    /// Why nothing can be recorded.
    pub(super) fn open(path: &Path, acts: &mut AutoActs, now: SystemTime) -> Result<Self, AuditError> {
        Self::open_reading(path, MAX_TAIL, acts, now)
    }

    fn open_reading(path: &Path, most: u64, acts: &mut AutoActs, now: SystemTime) -> Result<Self, AuditError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => AuditError::Taken,
            TryLockError::Error(error) => error.into(),
        })?;
        // A file that is not in its folder yet is none.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder).and_then(|folder| folder.sync_all())?;
        }
        let found = file.metadata()?;
        let since = unix(now).saturating_sub(HOUR);
        let (from, unknown_before) = begin(&file, found.len(), most, unix(now))?;
        acts.unknown_before = acts.unknown_before.max(unknown_before);
        let mut audit = Self {
            path: path.to_owned(),
            file,
            identity: identity(&found),
            length: found.len(),
            is_torn: false,
            last: NO_DIGEST.to_owned(),
            seq: 0,
        };
        let mut open: BTreeMap<String, Record> = BTreeMap::new();
        let mut is_cut = false;
        let mut lines = Lines::of(&audit.file, from..found.len())?;
        while let Some((line, is_whole)) = lines.next()? {
            is_cut = !is_whole;
            audit.last = digest(&line);
            let Ok(record) = serde_json::from_slice::<Record>(&line) else { continue };
            audit.seq = record.seq;
            match record.kind.as_str() {
                "intent" => {
                    if record.by == [AUTO] && record.unix > since {
                        let of = [&record.redis_target, &record.stream, &record.consumer_group].map(String::clone);
                        acts.by_plan.insert(record.plan.clone(), (record.unix, of));
                    }
                    open.insert(record.plan.clone(), record);
                }
                "outcome" => drop(open.remove(&record.plan)),
                _ => {}
            }
        }
        if is_cut {
            audit.file.write_all(b"\n")?;
            audit.length += 1;
            let detail = "the line before was cut short".to_owned();
            audit.append(Record { kind: "recovered".to_owned(), detail, ..Record::default() }, now)?;
        }
        for (_, intent) in open {
            audit.append(cut_short(intent), now)?;
        }
        Ok(audit)
    }

    /// Records what is about to be done. Where this fails, it must not be done.
    pub(super) fn intent(
        &mut self,
        plan: &Plan,
        by: &[String],
        acts: &mut AutoActs,
        now: SystemTime,
    ) -> Result<(), AuditError> {
        self.append(Record { by: by.to_vec(), ..decided("intent", plan) }, now)?;
        if by == [AUTO] {
            acts.by_plan.insert(plan.id.clone(), (unix(now), plan.place()));
        }
        Ok(())
    }

    /// Records what it came to.
    pub(super) fn outcome(&mut self, plan: &Plan, outcome: &ActOutcome, now: SystemTime) -> Result<(), AuditError> {
        let (changed, detail) = (Some(outcome.changed), outcome.detail.clone());
        let outcome = outcome.ending.as_str().to_owned();
        self.append(Record { outcome, changed, detail, ..record("outcome", plan) }, now)
    }

    /// Records that a person does not want it.
    pub(super) fn rejected(&mut self, plan: &Plan, by: &str, now: SystemTime) -> Result<(), AuditError> {
        let outcome = Ending::Rejected.as_str().to_owned();
        self.append(Record { by: vec![by.to_owned()], outcome, ..decided("decision", plan) }, now)
    }

    fn append(&mut self, record: Record, now: SystemTime) -> Result<(), AuditError> {
        self.check()?;
        let record = Record { seq: self.seq + 1, at: rfc3339(now), unix: unix(now), prev: self.last.clone(), ..record };
        let line = serde_json::to_vec(&record)?;
        let text = [line.as_slice(), b"\n"].concat();
        if let Err(error) = self.file.write_all(&text).and_then(|()| self.file.sync_data()) {
            // Half a line is taken back: now, or before the next one.
            self.is_torn = self.file.set_len(self.length).is_err();
            return Err(error.into());
        }
        self.length += text.len() as u64;
        (self.last, self.seq) = (digest(&line), record.seq);
        Ok(())
    }

    /// Whether the file is still at its path, and as long as we left it: what is written to a file that is gone is no record, and behind
    /// lines of others the digests do not hold.
    fn check(&mut self) -> Result<(), AuditError> {
        let found = std::fs::metadata(&self.path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => AuditError::Gone,
            _ => error.into(),
        })?;
        if identity(&found) != self.identity {
            return Err(AuditError::Replaced);
        }
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        } else if found.len() != self.length {
            let (expected, found) = (self.length, found.len());
            return Err(AuditError::Changed { expected, found });
        }
        Ok(())
    }
}

/// Where to begin to read a file so that all of the last hour is in what is read, and before which time acts are not known because that
/// would take more than `most` bytes.
fn begin(file: &File, length: u64, most: u64, now: u64) -> std::io::Result<(u64, u64)> {
    let mut back = TAIL.min(most);
    loop {
        let from = length.saturating_sub(back);
        if from == 0 {
            return Ok((0, 0));
        }
        let first = Lines::of(file, from..length)?.next()?;
        let first = first.and_then(|(line, _)| serde_json::from_slice::<Record>(&line).ok());
        let at = first.map_or(now, |record| record.unix.min(now));
        if at <= now.saturating_sub(HOUR) {
            return Ok((from, 0));
        }
        if back >= most {
            return Ok((from, at));
        }
        back = back.saturating_mul(2).min(most);
    }
}

/// The lines of a part of a file.
struct Lines<'a>(Take<BufReader<&'a File>>);

impl<'a> Lines<'a> {
    /// The first is the first that is whole: one may have begun before.
    fn of(mut file: &'a File, part: Range<u64>) -> std::io::Result<Self> {
        file.seek(SeekFrom::Start(part.start))?;
        let mut lines = Self(BufReader::new(file).take(part.end.saturating_sub(part.start)));
        if part.start > 0 {
            lines.next()?;
        }
        Ok(lines)
    }

    /// The next one without its line end, and whether it has one.
    fn next(&mut self) -> std::io::Result<Option<(Vec<u8>, bool)>> {
        let mut line = Vec::new();
        if (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let is_whole = line.pop_if(|byte| *byte == b'\n').is_some();
        Ok(Some((line, is_whole)))
    }
}

fn record(kind: &str, plan: &Plan) -> Record {
    let [redis_target, stream, consumer_group] = plan.place();
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

/// The outcome of an act of which only the intent is on record.
fn cut_short(intent: Record) -> Record {
    let (outcome, detail) = (Ending::Unknown.as_str().to_owned(), "the program ended before it knew".to_owned());
    Record { kind: "outcome".to_owned(), outcome, detail, by: Vec::new(), ..intent }
}

/// With what speaks for it.
fn decided(kind: &str, plan: &Plan) -> Record {
    Record { why: plan.why(), made_at: rfc3339(plan.made_at), ..record(kind, plan) }
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

/// Why an audit file is not one.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("cannot read {file} ({error})")]
    Unreadable {
        /// Its path.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// The first line that is wrong.
    #[error("line {number}: {why}")]
    Line {
        /// Counted from 1.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Checks that each line has the digest of the one before, that numbers follow each other, and that no act has no intent.
///
/// # Errors
/// The first line that is wrong, or that the file cannot be read.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let unreadable = |error| VerifyError::Unreadable { file: path.display().to_string(), error };
    let file = File::open(path).map_err(unreadable)?;
    let mut lines = Lines::of(&file, 0..u64::MAX).map_err(unreadable)?;
    let mut found = Verified { last: NO_DIGEST.to_owned(), ..Verified::default() };
    let (mut number, mut seq, mut was_cut) = (0_u64, 0_u64, false);
    let mut open = std::collections::BTreeSet::new();
    loop {
        number += 1;
        let Some((line, is_whole)) = lines.next().map_err(unreadable)? else { break };
        let wrong = |why: &str| Err(VerifyError::Line { number, why: why.to_owned() });
        if !is_whole {
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
        return Err(VerifyError::Line { number: number - 1, why: "expected a record".to_owned() });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
