//! Batches and the replies to them, as bytes. What real servers answer is in tests/it.

use super::*;
use crate::model::{EntryId, GroupName, OfStream, StreamKey};
use crate::redis::reply_memory::ReplyMemory;
use crate::redis::resp::tests::whole;

const XINFO_STREAM_REPLY: &str = "*4\r\n$6\r\nlength\r\n:0\r\n$17\r\nlast-generated-id\r\n$3\r\n5-1\r\n";
const NO_GROUPS: &str = "*0\r\n";

fn key() -> StreamKey {
    "s".into()
}

/// The words of the commands that a batch sends, one command a line.
fn commands(batch: &Batch) -> Vec<String> {
    let text = String::from_utf8(batch.requests().to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let mut commands = Vec::new();
    while let Some(count) = lines.next().and_then(|line| line.strip_prefix('*')) {
        let words = (0..count.parse::<usize>().unwrap()).map(|_| {
            lines.next().unwrap();
            lines.next().unwrap()
        });
        commands.push(words.collect::<Vec<_>>().join(" "));
    }
    commands
}

type Read = Result<StreamReading, ReadOutcome>;

/// What became of one stream, and of the refused commands.
fn read(batch: &Batch, replies: &str, refused: &mut BTreeSet<RefusedCommand>) -> Result<Option<Read>, SampleError> {
    read_within(&mut DecodeMemory::of(memory(usize::MAX)), batch, replies, refused)
}

/// A budget of so many bytes for decoded groups and consumers of one server.
fn memory(bytes: usize) -> &'static ReplyMemory {
    Box::leak(Box::new(ReplyMemory::new(bytes.saturating_mul(9) / 2)))
}

fn read_within(
    memory: &mut DecodeMemory,
    batch: &Batch,
    replies: &str,
    refused: &mut BTreeSet<RefusedCommand>,
) -> Result<Option<Read>, SampleError> {
    let (mut streams, mut observations) = ([StreamState::new(key())], Vec::new());
    batch.read(&whole(replies.as_bytes()), &mut streams, memory, &mut observations, refused)?;
    assert!(observations.is_empty(), "{observations:?}");
    let [stream] = streams;
    Ok(stream.read)
}

fn stream_batch(refused: &[RefusedCommand]) -> Batch {
    let mut batch = Batch::without(&refused.iter().copied().collect());
    batch.stream(0, &key(), Vec::new(), None);
    batch
}

#[test]
fn a_stream_is_asked_for_in_one_transaction_or_between_two_alike() {
    assert_eq!(commands(&stream_batch(&[])), ["MULTI", "XINFO STREAM s", "XINFO GROUPS s", "EXEC"]);
    let without = ["XINFO STREAM s", "XINFO GROUPS s", "XINFO STREAM s"];
    assert_eq!(commands(&stream_batch(&[RefusedCommand::Multi])), without);
    assert_eq!(commands(&stream_batch(&[RefusedCommand::Exec])), without);
    let mut asking = Batch::without(&BTreeSet::new()).asking(true);
    asking.stream(0, &key(), Vec::new(), None);
    assert_eq!(commands(&asking)[..2], ["ASKING", "MULTI"]);
}

#[test]
fn groups_are_asked_for_what_the_user_may_run() {
    let of = |consumers, pending| {
        let mut batch = Batch::without(&BTreeSet::new());
        batch.stream(0, &key(), vec![GroupQuery::of(&GroupName::from("g"), consumers, pending)], None);
        commands(&batch)[3..batch.commands() - 1].to_vec()
    };
    assert_eq!(of(true, true), ["XINFO CONSUMERS s g", "XPENDING s g - + 1"]);
    assert_eq!(of(false, true), ["XPENDING s g - + 1"]);
    assert_eq!(of(false, false), [""; 0]);
}

#[test]
fn single_queries_are_left_out_where_they_are_refused() {
    let id = EntryId { ms: 5, seq: 1 };
    let all = |refused: &[RefusedCommand]| {
        let mut batch = Batch::without(&refused.iter().copied().collect());
        batch.first(0, &key(), 0, id, None);
        batch.anchor(0, &key(), id, None);
        batch.ghosts(0, &key(), (0, &"g".into()), id);
        commands(&batch)
    };
    let expected = ["XRANGE s 5-2 + COUNT 1", "XRANGE s 5-1 5-1 COUNT 1", "XPENDING s g - 5-0 200"];
    assert_eq!(all(&[]), expected);
    assert_eq!(all(&[RefusedCommand::Xrange]), expected[2..]);
    assert_eq!(all(&[RefusedCommand::Xpending]), expected[..2]);
}

#[test]
fn replies_about_a_stream_become_a_sample_or_a_typed_error() {
    let queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n";
    let exec = |stream: &str| format!("{queued}*2\r\n{stream}{NO_GROUPS}");
    let cases = [
        (exec(XINFO_STREAM_REPLY), "sample"),
        (exec("-ERR no such key\r\n"), "missing"),
        (exec("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"), "gone"),
        (exec("-NOPERM this user has no permissions to access one of the keys\r\n"), "server"),
        (exec("+no\r\n"), "malformed"),
        (
            "+OK\r\n-MOVED 5 h:1\r\n-MOVED 5 h:1\r\n-EXECABORT Transaction discarded because of previous errors.\r\n"
                .to_owned(),
            "redirected",
        ),
        (
            "+OK\r\n-NOPERM no permissions to run the 'xinfo|stream' command\r\n+QUEUED\r\n-EXECABORT x\r\n".to_owned(),
            "refused",
        ),
        (
            "-NOPERM no permissions to run the 'multi' command\r\n+QUEUED\r\n+QUEUED\r\n-ERR EXEC without MULTI\r\n"
                .to_owned(),
            "again",
        ),
    ];
    for (replies, expected) in cases {
        let mut refused = BTreeSet::new();
        let found = match read(&stream_batch(&[]), &replies, &mut refused).unwrap().unwrap() {
            Ok(stream) => {
                assert_eq!(stream.reply.last_generated, EntryId { ms: 5, seq: 1 });
                "sample"
            }
            Err(ReadOutcome::Error(ReadError::Missing)) => "missing",
            Err(ReadOutcome::Error(ReadError::Gone(_))) => "gone",
            Err(ReadOutcome::Error(ReadError::Redirected { slot: 5, .. })) => "redirected",
            Err(ReadOutcome::Error(ReadError::Malformed(_))) => "malformed",
            Err(ReadOutcome::Error(ReadError::Refused { command: "XINFO STREAM", .. })) => "refused",
            Err(ReadOutcome::Error(ReadError::Server(_))) => "server",
            Err(ReadOutcome::Refused(_)) => "again",
            other => panic!("{replies:?}: {other:?}"),
        };
        assert_eq!(found, expected, "{replies:?}");
        let multi_is_refused = refused.contains(&RefusedCommand::Multi);
        assert_eq!(multi_is_refused, expected == "again", "{replies:?}: {refused:?}");
    }
}

#[test]
fn between_two_queries_a_stream_must_not_change() {
    let batch = stream_batch(&[RefusedCommand::Multi]);
    let mut refused = BTreeSet::from([RefusedCommand::Multi]);
    let same = format!("{XINFO_STREAM_REPLY}{NO_GROUPS}{XINFO_STREAM_REPLY}");
    assert!(matches!(read(&batch, &same, &mut refused), Ok(Some(Ok(_)))));
    let moved = format!("{XINFO_STREAM_REPLY}{NO_GROUPS}{}", XINFO_STREAM_REPLY.replace("5-1", "5-2"));
    let again = read(&batch, &moved, &mut refused);
    assert!(matches!(again, Ok(Some(Err(ReadOutcome::Refused(ReadError::Changing))))), "{again:?}");
}

#[test]
fn a_server_that_serves_nobody_fails_the_sample() {
    let mut refused = BTreeSet::new();
    let error = |replies: &str, refused: &mut _| read(&stream_batch(&[]), replies, refused).unwrap_err().reason;
    let loading = "-LOADING Redis is loading the dataset in memory\r\n".repeat(4);
    assert_eq!(error(&loading, &mut refused), crate::model::FailureReason::Loading);
    let short = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n:1\r\n";
    assert_eq!(error(short, &mut refused), crate::model::FailureReason::Protocol, "a reply for each command");
}

#[test]
fn a_command_that_is_rechecked_is_allowed_again_once_it_is_not_refused() {
    for (replies, allowed) in [
        ("-NOPERM no permissions to run the 'xpending' command\r\n", false),
        ("-ERR unknown command 'XPENDING'\r\n", false),
        ("*0\r\n", true),
        ("-NOGROUP No such key\r\n", true),
    ] {
        let mut refused = BTreeSet::from([RefusedCommand::Xpending]);
        let mut batch = Batch::without(&refused);
        batch.recheck_refused(&key());
        assert_eq!(batch.commands(), 1, "{:?}", commands(&batch));
        read(&batch, replies, &mut refused).unwrap();
        assert_eq!(refused.is_empty(), allowed, "{replies}");
    }
}

#[test]
fn a_stream_whose_groups_take_too_much_memory_is_not_read() {
    let group = |n: usize| format!("*2\r\n$4\r\nname\r\n$4\r\n{n:04}\r\n");
    let batch = stream_batch(&[]);
    let replies = |groups: usize| {
        let groups: String = (0..groups).map(group).chain([String::new()]).collect();
        format!(
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n{XINFO_STREAM_REPLY}*{}\r\n{groups}",
            groups.matches("name").count()
        )
    };
    let held = |groups: usize| groups * (GROUP_BYTES + 20);
    let mut memory = DecodeMemory::of(memory(held(100)));
    let mut check = |groups: usize| {
        let read = read_within(&mut memory, &batch, &replies(groups), &mut BTreeSet::new()).unwrap();
        match read.unwrap() {
            Ok(stream) => Some(stream.groups.len()),
            Err(ReadOutcome::Error(ReadError::NoMemory)) => None,
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(check(20), Some(20));
    // Not even once: it would be too much while it is decoded.
    assert_eq!(check(1000), None);
    // What was read before is still held.
    assert_eq!(check(110), None);
    let refused = memory.take_refused();
    assert!(refused.iter().all(|(at, full)| *at == 0 && full.alone) && refused.len() == 2, "{refused:?}");
}
