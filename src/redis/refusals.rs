//! What a refusal means: of one command, of one key, or of the whole server.

use crate::model::FailureReason;
use crate::model::sample::SampleError;
use crate::redis::resp::Refusal;

/// An error that says that the server serves no client now, rather than that one key cannot be read.
pub(crate) fn server_wide(error: &Refusal) -> Option<SampleError> {
    let reason = match error.code() {
        "LOADING" => FailureReason::Loading,
        "NOAUTH" | "WRONGPASS" => FailureReason::Auth,
        // In a cluster that need not be whole, that is about one slot.
        "CLUSTERDOWN" if error.text().contains("slot not served") => return None,
        "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" => FailureReason::Server,
        _ => return None,
    };
    Some(SampleError { reason, detail: named(error).to_owned() })
}

/// What is said of a refusal while a connection is made: the first word, if it is one that Redis says, and what it means.
///
/// Nothing of it is the server's own text: a server that was sent a password can repeat it in any form.
pub(crate) fn named(error: &Refusal) -> &'static str {
    let says = |words: &str| error.text().contains(words);
    match error.code() {
        "WRONGPASS" => "WRONGPASS: wrong user name or password, or the user is disabled",
        "NOAUTH" => "NOAUTH: the server requires a password",
        "NOPERM" => "NOPERM: the user has no permission to run the command",
        "DENIED" => "DENIED: protected mode: the server has no password and accepts connections from its own host only",
        "LOADING" => "LOADING: Redis is loading its data set",
        "MASTERDOWN" => "MASTERDOWN: the replica has no connection to its master",
        "CLUSTERDOWN" => "CLUSTERDOWN: the cluster is down",
        "BUSY" => "BUSY: Redis is busy running a script",
        "NOPROTO" => "NOPROTO: unsupported protocol version",
        "NOREPLICAS" => "NOREPLICAS: not enough replicas",
        "MISCONF" => "MISCONF: Redis cannot save its data to disk",
        "READONLY" => "READONLY: the server is a read-only replica",
        "OOM" => "OOM: Redis is out of memory",
        _ if says("max number of clients") => "max number of clients reached",
        _ if says("without any password configured") || says("no password is set") => {
            "the default user has no password: remove the password from the configuration, or add the ACL user"
        }
        _ if says("invalid password") => "invalid password",
        _ if says("DB index") => "DB index is out of range",
        _ if says("SELECT is not allowed in cluster mode") => "SELECT is not allowed in cluster mode",
        _ if says("cluster support disabled") => "This instance has cluster support disabled",
        _ if says("wrong number of arguments") => "wrong number of arguments",
        _ if is_command_refused(error) => "unknown command, or one that is disabled",
        _ => "an error whose text is not shown, as it may repeat the password",
    }
}

pub(crate) fn protocol(what: &str) -> SampleError {
    SampleError { reason: FailureReason::Protocol, detail: what.to_owned() }
}

/// Whether Redis refuses the command, by ACL or as it does not know it; a refused key is no refused command.
///
/// Servers that are compatible with Redis say it in their own words, some of them without an `ERR` in front: docs/servers.md.
pub(crate) fn is_command_refused(error: &Refusal) -> bool {
    let code = error.code();
    if code == "NOPERM" {
        return error.text().contains("command");
    }
    // Any other code says something else: OOM, READONLY, NOGROUP, ...
    if code != "ERR" && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return false;
    }
    // What follows repeats what was sent.
    let text = error.text().split(", with args").next().unwrap_or_default().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    says(&["command"])
        && says(&[
            "unknown",
            "unsupported",
            "not supported",
            "not available",
            "not allowed",
            "not permitted",
            "disabled",
        ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::resp::tests::whole;

    #[test]
    fn a_refusal_is_named_and_never_repeated() {
        let check = |said: &str, expected: &str| {
            let replies = whole(format!("-{said}\r\n").as_bytes());
            let named = named(&replies.iter().next().unwrap().error().unwrap());
            assert!(named.starts_with(expected), "{said}: {named}");
            assert!(!named.to_ascii_lowercase().contains("hunter"), "{named}");
        };
        check("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS: wrong user name");
        check("WRONGPASS hunter2", "WRONGPASS: wrong user name");
        check("HUNTER2 is no password", "an error whose text is not shown");
        check("ERR hunter2", "an error whose text is not shown");
        check("ERR invalid password: hunter2", "invalid password");
        check(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure?",
            "the default user has no password",
        );
        check("ERR Client sent AUTH, but no password is set", "the default user has no password");
        check(
            "ERR unknown command `AUTH`, with args beginning with: `hunter2`, ",
            "unknown command, or one that is disabled",
        );
        check("ERR max number of clients reached", "max number of clients reached");
        check("ERR DB index is out of range", "DB index is out of range");
        check("ERR This instance has cluster support disabled", "This instance has cluster support disabled");
        check("", "an error whose text is not shown");
    }

    #[test]
    fn a_refused_command_is_known_by_its_words() {
        let check = |said: &str, expected: bool| {
            let replies = whole(format!("-{said}\r\n").as_bytes());
            let refusal = replies.iter().next().unwrap().error().unwrap();
            assert_eq!(is_command_refused(&refusal), expected, "{said}");
        };
        for refused in [
            "NOPERM this user has no permissions to run the 'xpending' command or its subcommand",
            // Redis 7.0 and later; before, with backticks.
            "ERR unknown command 'XPENDING', with args beginning with: 'a' 'b' ",
            "ERR unknown command `XPENDING`, with args beginning with: `a`, ",
            "ERR unknown subcommand 'CONSUMERS'. Try XINFO HELP.",
            "ERR Unknown XINFO subcommand or wrong number of arguments for 'CONSUMERS'. Try XINFO HELP.",
            // Dragonfly: src/server/main_service.cc, server_family.cc; Kvrocks: src/commands/error_constants.h.
            "ERR unknown command `XPENDING`",
            "ERR Unknown subcommand or wrong number of arguments for 'CONSUMERS'. Try XINFO HELP.",
            "ERR Unknown subcommand or wrong number of arguments",
            // Upstash, as in sidekiq/sidekiq#5641.
            "ERR Command is not available: 'TIME'. See https://docs.upstash.com/overall/rediscompatibility for details",
            // Envoy, as in envoyproxy/envoy#32928; others.
            "unsupported command 'xinfo'",
            "ERR command is not allowed",
            "ERR This command is not supported",
        ] {
            check(refused, true);
        }
        for other in [
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "NOGROUP No such key 'unknown command' or consumer group 'g'",
            "ERR no such key",
            "ERR syntax error",
            "ERR wrong number of arguments for 'xpending' command",
            "ERR no such thing, with args beginning with: 'unknown command'",
            "ERR EXEC without MULTI",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ] {
            check(other, false);
        }
    }
}
