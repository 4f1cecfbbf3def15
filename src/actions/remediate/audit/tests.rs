use std::path::PathBuf;

use super::*;
use crate::analysis::group_state::GroupState;
use crate::analysis::remediation::{Action, Evidence, Mode, PLAN_LIFETIME, Subject};
use crate::model::{EntryId, TargetName};
use crate::store::remediation::Ending;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn plan(id: &str) -> Plan {
    let (stream, group) = ("s".into(), "g".into());
    Plan {
        id: id.to_owned(),
        target: TargetName::new("default").unwrap(),
        stream,
        group,
        action: Action::DropGhosts,
        subject: Subject::Ghosts { count: 3 },
        evidence: Evidence {
            state: GroupState::Ok,
            lag: 0,
            pending: Some(3),
            last_delivered: EntryId::default(),
            consumers: None,
            first_seen: NOW,
        },
        mode: Mode::Auto,
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

fn act(audit: &mut Audit, id: &str) {
    audit.intent(&plan(id), &[AUTO.to_owned()], SystemTime::now()).unwrap();
    audit.outcome(&plan(id), &Outcome::of(Ending::Done, String::new()), SystemTime::now()).unwrap();
}

#[test]
fn what_is_written_holds_together_and_any_change_shows() {
    let (_dir, path) = file();
    let mut audit = Audit::open(&path).unwrap();
    act(&mut audit, "a");
    audit.rejected(&plan("b"), "alice", NOW).unwrap();
    drop(audit);
    // Another start goes on where the last one ended.
    act(&mut Audit::open(&path).unwrap(), "c");
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.intents, verified.outcomes), (5, 2, 2));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains(NO_DIGEST) && text.ends_with('\n'));
    let spoiled = |lines: Vec<String>| {
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        verify(&path).unwrap_err()
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
    assert_eq!(verify(&path).unwrap_err(), "line 5: it is cut short");
}

#[test]
fn a_line_that_was_cut_short_and_an_act_without_an_outcome_are_told() {
    let (_dir, path) = file();
    let mut audit = Audit::open(&path).unwrap();
    audit.intent(&plan("a"), &[AUTO.to_owned()], SystemTime::now()).unwrap();
    drop(audit);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"seq\":2,\"at");
    std::fs::write(&path, &text).unwrap();
    drop(Audit::open(&path).unwrap());
    let verified = verify(&path).unwrap();
    assert_eq!((verified.records, verified.intents, verified.outcomes), (3, 1, 1));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"kind\":\"recovered\"") && text.contains("\"outcome\":\"unknown\""), "{text}");
    // Nothing is said twice.
    drop(Audit::open(&path).unwrap());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn acts_are_counted_over_a_restart() {
    let (_dir, path) = file();
    let mut audit = Audit::open(&path).unwrap();
    act(&mut audit, "a");
    audit.intent(&plan("b"), &["alice".to_owned()], SystemTime::now()).unwrap();
    drop(audit);
    let mut audit = Audit::open(&path).unwrap();
    act(&mut audit, "c");
    let now = SystemTime::now();
    assert_eq!(audit.acts_within_an_hour(&plan("d"), now), 2);
    assert_eq!(audit.acts_within_an_hour(&Plan { group: "other".into(), ..plan("d") }, now), 0);
    assert_eq!(audit.acts_within_an_hour(&plan("d"), now + Duration::from_secs(3601)), 0);
}

#[test]
fn a_full_disk_and_a_second_program_are_errors() {
    let (_dir, path) = file();
    let full = Audit::open(Path::new("/dev/full")).and_then(|mut audit| audit.intent(&plan("a"), &[], NOW));
    assert!(full.unwrap_err().contains("No space left"), "a full disk");
    let _one = Audit::open(&path).unwrap();
    assert_eq!(Audit::open(&path).unwrap_err(), "another streamlag writes the audit file");
}
