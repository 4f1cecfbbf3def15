use std::cell::Cell;

use super::*;

thread_local! {
    /// The rounds of bcrypt that this test has spent.
    static ROUNDS: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn count(cost: u32) {
    ROUNDS.set(ROUNDS.get() + (1 << cost));
}

/// What a call gives, and what it costs in rounds of bcrypt.
fn spent<T>(call: impl FnOnce() -> T) -> (T, u64) {
    ROUNDS.set(0);
    (call(), ROUNDS.get())
}

fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).unwrap()
}

fn users(users: &[(&str, &str)]) -> BasicUsers {
    BasicUsers::new(users.iter().map(|&(name, hash)| (name.to_owned(), hash.to_owned()))).unwrap()
}

fn sent(name: &str, password: &str) -> BasicCredentials {
    credentials(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))).as_bytes()).unwrap()
}

#[test]
fn only_the_password_opens_and_it_is_remembered() {
    let users = users(&[("alice", &hash("wonderland", 4)), ("bob", &hash("builder", 4)), ("nobody", &hash("", 4))]);
    assert!(!users.is_empty() && BasicUsers::default().is_empty());
    for (name, password) in
        [("alice", "builder"), ("alice", "wonderlan"), ("alice", ""), ("Alice", "wonderland"), ("", ""), ("carol", "x")]
    {
        assert!(!users.verify(&sent(name, password)), "{name} {password}");
        assert!(!users.recall(&sent(name, password)), "{name} {password}");
    }
    assert!(!users.recall(&sent("alice", "wonderland")), "nothing was verified yet");
    for (name, password) in [("alice", "wonderland"), ("bob", "builder"), ("nobody", "")] {
        assert_eq!(spent(|| users.verify(&sent(name, password))), (true, 16), "{name}");
        assert_eq!(spent(|| users.clone().recall(&sent(name, password))), (true, 0), "{name}");
    }
    assert!(!users.recall(&sent("alice", "builder")) && !users.recall(&sent("bob", "wonderland")));
    assert!(!users.verify(&sent("alice", "wrong")));
    assert!(users.recall(&sent("alice", "wonderland")), "a wrong attempt makes nobody forget the right one");
    assert!(!BasicUsers::default().verify(&sent("alice", "wonderland")));
}

#[test]
fn every_refusal_costs_the_same() {
    let users = users(&[("cheap", &hash("a", 4)), ("middle", &hash("b", 5)), ("dear", &hash("c", 7))]);
    for name in ["cheap", "middle", "dear", "unknown", ""] {
        assert_eq!(spent(|| users.verify(&sent(name, "wrong"))), (false, 1 << 7), "{name}");
    }
    assert_eq!(spent(|| users.recall(&sent("cheap", "wrong"))), (false, 0));
}

#[test]
fn long_passwords_are_checked_by_what_bcrypt_reads() {
    let long = "x".repeat(72);
    let users = users(&[("alice", &hash(&long, 4))]);
    assert!(users.verify(&sent("alice", &long)) && users.verify(&sent("alice", &format!("{long}and more"))));
    assert!(!users.recall(&sent("alice", &long)), "only the last that was right is remembered, to the letter");
    assert!(!users.verify(&sent("alice", &"x".repeat(71))));
    assert!(!users.verify(&sent("unknown", &"x".repeat(10_000))));
}

#[test]
fn the_header_is_read_as_rfc_7617_says() {
    let read = |header: &str| credentials(header.as_bytes()).map(|c| (c.name().to_vec(), c.password().to_vec()));
    let pair = |name: &str, password: &str| Some((name.into(), password.into()));
    assert_eq!(read("Basic YTpi"), pair("a", "b"));
    assert_eq!(read("bAsIc   YTpi "), pair("a", "b"));
    assert_eq!(read(&format!("Basic {}", STANDARD.encode("a:b:c"))), pair("a", "b:c"));
    assert_eq!(read("Basic Og=="), pair("", ""));
    for none in ["", "Basic", "Basic ", "Basic YWI=", "Basic YTpi=", "Basic YTpi YTpi", "Basic !", "Bearer YTpi"] {
        assert_eq!(read(none), None, "{none:?}");
    }
    assert!(credentials(&[0xff; 5000]).is_none());
}

#[test]
fn what_is_no_hash_is_refused_and_not_repeated() {
    let check = |name: &str, hash: &str, expected: &str| {
        let problem = BasicUsers::new([(name.to_owned(), hash.to_owned())]).unwrap_err().to_string();
        assert!(problem.contains(expected) && !problem.contains('\n'), "{problem:?} lacks {expected:?}");
        assert!(hash.is_empty() || !problem.contains(hash), "{problem:?} repeats the hash");
        problem
    };
    let made_up = |version: &str, cost: &str| format!("${version}${cost}${}", ".".repeat(53));
    for no_hash in ["", "hunter2", "$2y$10$short", "$1$abc", "ééééééééééééééééééééééééééééééé", &made_up("3y", "10")]
    {
        check("john", no_hash, "user \"john\": expected a bcrypt hash, which begins with $2a$");
    }
    for cost in ["03", "15", "18", "31", "99"] {
        check("john", &made_up("2y", cost), "user \"john\": expected a bcrypt hash of cost 4 to 14, not ");
    }
    check("jo:hn", &made_up("2y", "10"), "a name without a colon");
    let mixed_up = check(&made_up("2y", "10"), "alice", "a user: expected a bcrypt hash");
    assert!(!mixed_up.contains("$10$"), "{mixed_up}");
    for version in ["2a", "2b", "2x", "2y"] {
        assert!(BasicUsers::new([("john".to_owned(), made_up(version, "14"))]).is_ok(), "{version}");
    }
}

#[test]
fn nothing_of_it_can_be_printed() {
    let hash = hash("hunter2", 4);
    let users = users(&[("alice", &hash)]);
    assert!(users.verify(&sent("alice", "hunter2")));
    let printed = format!("{users:?} {:?}", sent("alice", "hunter2"));
    assert_eq!(printed, "BasicUsers(1 [redacted]) Credentials([redacted])");
}
