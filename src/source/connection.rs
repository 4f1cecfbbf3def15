//! One connection: made, greeted, asked, and what its failures are called.

use std::time::Duration;

use redis::{ErrorKind, RedisError, Value};
use tokio::time::Instant;

use super::answers::{is_command_refused, protocol, server_wide};
use super::batch::Batch;
use super::dial::{Dial, Dialled};
use super::script::Script;
use super::sentinel::role;
use crate::model::FailureReason;
use crate::model::sample::{SampleError, ServerInfo};
use crate::self_metrics::RedisCommands;
use crate::xinfo;

/// A connection, and who is at its other end.
pub(super) struct Connected {
    dialled: Dialled,
    pub(super) server: ServerInfo,
    /// How to run scripts, where this user may.
    pub(super) script: Option<Script>,
}

/// What `TIME` told, and how long it took.
pub(super) struct Clock {
    /// The server's clock, milliseconds since the Unix epoch; `None` where it may not be asked.
    pub(super) server_now_ms: Option<u64>,
    pub(super) round_trip: Duration,
}

impl Connected {
    /// Connects and finds out who answers. The deadline is that of the whole sample; whoever calls must keep it.
    pub(super) async fn new(dial: &mut Dial, deadline: Instant, commands: &RedisCommands) -> Result<Self, SampleError> {
        let dialled = dial.connect(deadline).await?;
        commands.add("hello", 1);
        let server = match redis::cmd("HELLO").arg(2).query_async::<Value>(&mut dialled.connection.clone()).await {
            Ok(reply) => xinfo::hello(&reply).map_err(|error| protocol(&error.to_string()))?,
            // Redis 5 has streams and no HELLO. (The 2 asks for RESP2; 6.0 insists on being asked.)
            Err(error) if error.to_string().contains("unknown command") => ServerInfo::default(),
            // Redis 6.0 wants a grant for it, which newer ones do not.
            Err(error) if error.code() == Some("NOPERM") => ServerInfo::default(),
            Err(error) => return Err(dialled.broken(&error, FailureReason::Connect)),
        };
        let script = Script::on(&server);
        let may_run_scripts = may_run(script, &dialled, commands).await?;
        Ok(Self { dialled, server, script: may_run_scripts.then_some(script) })
    }

    /// A sample begins, and may read as much as any.
    pub(super) fn begin_sample(&self) {
        self.dialled.meter.renew();
    }

    /// Makes sure that it is not a replica, where that may be asked.
    pub(super) async fn must_be_master(&self, commands: &RedisCommands) -> Result<(), SampleError> {
        commands.add("role", 1);
        match role(&self.dialled.ask(&redis::cmd("ROLE"), FailureReason::Connect).await?) {
            Some(role) if role != "master" => {
                let detail = format!("it is no master any more but a {role}");
                Err(SampleError { reason: FailureReason::Server, detail })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A connection to whoever is at the other end of it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn to(dialled: Dialled, server: ServerInfo, script: Option<Script>) -> Self {
        Self { dialled, server, script }
    }

    /// Asks for the server's clock, ahead of what else is asked, so that the answer also measures the round trip.
    pub(super) async fn time(&self, commands: &RedisCommands) -> Result<Clock, SampleError> {
        commands.add("time", 1);
        let asked = Instant::now();
        let reply = self.dialled.ask(&redis::cmd("TIME"), FailureReason::Io).await;
        let round_trip = asked.elapsed();
        let server_now_ms = match reply? {
            Value::ServerError(error) => match server_wide(&error) {
                Some(error) => return Err(error),
                None if is_command_refused(&Value::ServerError(error.clone())) => None,
                None => return Err(protocol(&format!("TIME was answered {}", error.code()))),
            },
            reply => Some(xinfo::time(&reply).map_err(|error| protocol(&error.to_string()))?),
        };
        Ok(Clock { server_now_ms, round_trip })
    }

    /// Sends a batch and waits for its replies. Several may be on their way at a time.
    pub(super) async fn send(&self, batch: &Batch, commands: &RedisCommands) -> Result<Vec<Value>, SampleError> {
        let mut connection = self.dialled.connection.clone();
        for (command, count) in batch.sent() {
            commands.add(command, *count);
        }
        let count = batch.pipeline().len();
        let sending = connection.send_packed_commands(batch.pipeline(), 0, count);
        sending.await.map_err(|error| self.dialled.broken(&error, FailureReason::Io))
    }
}

/// Asks by a script that does nothing. Whatever Redis has against it, the program goes on without.
async fn may_run(script: Script, dialled: &Dialled, commands: &RedisCommands) -> Result<bool, SampleError> {
    commands.add(script.name(), 1);
    let command = redis::cmd(script.word()).arg("return 1").arg(0).take();
    match dialled.ask(&command, FailureReason::Connect).await? {
        Value::ServerError(error) => server_wide(&error).map_or(Ok(false), Err),
        _ => Ok(true),
    }
}

/// What the client's parser says of a reply whose rest never came, and of nothing else.
const ENDED_IN_A_REPLY: &str = "Unexpected end of input";

/// A failure of the connection, or of the server as a whole, in words that hold no secret.
pub(super) fn failure(error: &RedisError, otherwise: FailureReason) -> SampleError {
    if error.kind() == ErrorKind::Parse && error.to_string().contains(ENDED_IN_A_REPLY) {
        return SampleError { reason: FailureReason::Io, detail: "the connection ended within a reply".to_owned() };
    }
    let reason = match (error.kind(), error.code()) {
        (_, Some("NOAUTH" | "WRONGPASS")) => FailureReason::Auth,
        (_, Some("LOADING")) => FailureReason::Loading,
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => FailureReason::Server,
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => FailureReason::Protocol,
        _ => otherwise,
    };
    SampleError { reason, detail: error.to_string() }
}
