use std::path::PathBuf;

use super::*;
use crate::analysis::group_state::GroupState;
use crate::analysis::remediation::{Action, PLAN_LIFETIME, PlanEvidence, PlanSubject, RemediationMode};
use crate::model::{EntryId, TargetName};
use crate::store::remediation::{Ending, MAX_PAST, PastPlan};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn plan(id: &str) -> Plan {
    let (stream, group) = ("s".into(), "g".into());
    Plan {
        id: id.to_owned(),
        target: TargetName::new("default").unwrap(),
        stream,
        group,
        action: Action::DropGhosts,
        subject: PlanSubject::Ghosts { count: 3 },
        evidence: PlanEvidence {
            state: GroupState::Ok,
            lag: 0,
            pending: Some(3),
            last_delivered: EntryId::default(),
            consumers: None,
            first_seen: NOW,
        },
        mode: RemediationMode::Auto,
        entries: 10,
        budget: None,
        dead_letter: None,
        hook: None,
        made_at: NOW,
        expires: NOW + PLAN_LIFETIME,
    }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    (dir, path)
}

fn open(path: &Path) -> Result<Audit, String> {
    Audit::open(path, &mut AutoActs::default(), SystemTime::now()).map_err(|error| error.to_string())
}

fn intend(audit: &mut Audit, id: &str, by: &str) -> Result<(), String> {
    audit
        .intent(&plan(id), &[by.to_owned()], &mut AutoActs::default(), SystemTime::now())
        .map_err(|error| error.to_string())
}

fn act(audit: &mut Audit, id: &str) {
    intend(audit, id, AUTO).unwrap();
    audit.outcome(&plan(id), &ActOutcome::of(Ending::Done, String::new()), SystemTime::now()).unwrap();
}

#[test]
fn what_is_written_holds_together_and_any_change_shows() {
    let (_dir, path) = file();
    let mut audit = open(&path).unwrap();
    act(&mut audit, "a");
    audit.rejected(&plan("b"), "alice", NOW).unwrap();
    drop(audit);
    // Another start goes on where the last one ended.
    act(&mut open(&path).unwrap(), "c");
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.intents, verified.outcomes), (5, 2, 2));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains(NO_DIGEST) && text.ends_with('\n'));
    let spoiled = |lines: Vec<String>| {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        verify(&path).unwrap_err().to_string()
    };
    for place in 0..lines.len() {
        let mut without: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        without.remove(place);
        if place + 1 < lines.len() {
            assert!(spoiled(without).contains(&format!("line {}", place + 1)));
        }
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        changed[place] = changed[place].replace("\"g\"", "\"h\"");
        if place + 1 < lines.len() {
            assert!(spoiled(changed).contains(&format!("line {}", place + 2)));
        }
    }
    let outcome_alone = [lines[1].replace(lines[1].split("\"prev\":\"").nth(1).unwrap(), &format!("{NO_DIGEST}\"}}"))];
    let outcome_alone = vec![outcome_alone[0].replace("\"seq\":2", "\"seq\":1")];
    assert!(spoiled(outcome_alone).contains("without an intent"));
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    assert_eq!(verify(&path).unwrap_err().to_string(), "line 5: it is cut short");
}

#[test]
fn a_line_that_was_cut_short_and_an_act_without_an_outcome_are_told() {
    let (_dir, path) = file();
    let mut audit = open(&path).unwrap();
    intend(&mut audit, "a", AUTO).unwrap();
    drop(audit);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"seq\":2,\"at");
    std::fs::write(&path, &text).unwrap();
    drop(open(&path).unwrap());
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.intents, verified.outcomes), (3, 1, 1));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"kind\":\"recovered\"") && text.contains("\"outcome\":\"unknown\""), "{text}");
    // Nothing is said twice.
    drop(open(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn acts_are_counted_over_a_restart() {
    let (_dir, path) = file();
    let mut audit = open(&path).unwrap();
    act(&mut audit, "a");
    intend(&mut audit, "b", "alice").unwrap();
    drop(audit);
    let (mut acts, now) = (AutoActs::default(), SystemTime::now());
    let mut audit = Audit::open(&path, &mut acts, now).unwrap();
    audit.intent(&plan("c"), &[AUTO.to_owned()], &mut acts, now).unwrap();
    drop(audit);
    assert_eq!(acts.within_an_hour(&plan("d"), now), Some(2));
    // Neither does opening it again count them twice, nor does another file forget them.
    drop(Audit::open(&path, &mut acts, now).unwrap());
    drop(Audit::open(&path.with_extension("other"), &mut acts, now).unwrap());
    assert_eq!(acts.within_an_hour(&plan("d"), now), Some(2));
    assert_eq!(acts.within_an_hour(&Plan { group: "other".into(), ..plan("d") }, now), Some(0));
    assert_eq!(acts.within_an_hour(&plan("d"), now + Duration::from_secs(3601)), Some(0));
}

/// Adds records of this time to a file, of so many bytes together.
fn fill(path: &Path, bytes: usize, unix: u64) {
    let record = Record { kind: "decision".to_owned(), unix, detail: "x".repeat(1000), ..Record::default() };
    let line = serde_json::to_string(&record).unwrap() + "\n";
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(line.repeat(bytes / line.len()).as_bytes()).unwrap();
}

#[test]
fn a_long_file_is_read_back_for_an_hour_and_where_that_is_too_much_the_budget_is_used_up() {
    let (_dir, path) = file();
    act(&mut open(&path).unwrap(), "a");
    let now = SystemTime::now();
    fill(&path, 6 << 20, unix(now));
    let acts_by = |most: u64, now: SystemTime| {
        let mut acts = AutoActs::default();
        drop(Audit::open_reading(&path, most, &mut acts, now).unwrap());
        [now, now + Duration::from_secs(HOUR)].map(|now| acts.within_an_hour(&plan("b"), now))
    };
    assert_eq!(acts_by(MAX_TAIL, now), [Some(1), Some(0)]);
    // What is before these 4 MiB may be anything, for an hour.
    assert_eq!(acts_by(TAIL, now), [None, Some(0)]);
    // An hour later, nothing before them counts.
    assert_eq!(acts_by(TAIL, now + Duration::from_secs(HOUR)), [Some(0), Some(0)]);
}

#[test]
fn a_file_that_others_move_or_write_to_is_no_record() {
    let (_dir, path) = file();
    let moved = path.with_extension("moved");
    let mut audit = open(&path).unwrap();
    act(&mut audit, "a");
    let length = std::fs::metadata(&path).unwrap().len();
    let mut refused = |expected: &str| {
        let why = intend(&mut audit, "b", AUTO).unwrap_err();
        assert!(why.contains(expected), "{why}");
    };
    std::fs::rename(&path, &moved).unwrap();
    refused("moved or removed");
    std::fs::write(&path, std::fs::read(&moved).unwrap()).unwrap();
    refused("replaced by another one");
    assert_eq!(std::fs::metadata(&moved).unwrap().len(), length);
    std::fs::rename(&moved, &path).unwrap();
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    (&file).write_all(b"x\n").unwrap();
    refused(&format!("somebody else changed the audit file: expected {length} bytes, found {}", length + 2));
    file.set_len(length - 1).unwrap();
    refused(&format!("expected {length} bytes, found {}", length - 1));
    (&file).write_all(b"\n").unwrap();
    act(&mut audit, "b");
    assert_eq!(verify(&path).unwrap().records, 4);
}

#[test]
fn a_full_disk_and_a_second_program_are_errors() {
    let (_dir, path) = file();
    let mut full = open(Path::new("/dev/full")).unwrap();
    for _ in 0..2 {
        assert!(intend(&mut full, "a", AUTO).unwrap_err().contains("cannot write the audit file"), "a full disk");
    }
    let _one = open(&path).unwrap();
    assert_eq!(open(&path).unwrap_err(), "another streamlag writes the audit file");
}

#[test]
fn the_newest_are_shown_after_a_restart_and_no_more_than_that() {
    let (_dir, path) = file();
    assert!(past(&path).unwrap().is_empty() && !path.exists());
    let mut audit = open(&path).unwrap();
    for number in 0..MAX_PAST + 50 {
        act(&mut audit, &format!("{number}"));
    }
    audit.rejected(&plan("no"), "alice", NOW + Duration::from_secs(7)).unwrap();
    intend(&mut audit, "open", "bob").unwrap();
    drop(audit);
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\": 1, half a li").unwrap();
    let shown = past(&path).unwrap();
    assert_eq!(shown.len(), MAX_PAST);
    let of = |past: &PastPlan| (past.id.clone(), past.ending, past.by.clone());
    let expected = |id: &str, ending, by: &str| (id.to_owned(), ending, vec![by.to_owned()]);
    assert_eq!(of(&shown[0]), expected("open", Ending::Unknown, "bob"));
    assert_eq!(of(&shown[1]), expected("no", Ending::Rejected, "alice"));
    assert_eq!(of(&shown[2]), expected("149", Ending::Done, AUTO));
    assert_eq!((&shown[1].made_at, &shown[1].at), (&rfc3339(NOW), &rfc3339(NOW + Duration::from_secs(7))));
    assert_eq!(
        (&shown[2].what, &shown[2].why, shown[2].action),
        (&plan("").what(), &plan("").why(), Action::DropGhosts)
    );
}
