//! One connection: made, greeted, asked, and what its failures are called.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, Value};
use tokio::time::Instant;

use super::answers::{is_command_refused, protocol, server_wide};
use super::batch::Batch;
use super::script::Script;
use crate::model::FailureReason;
use crate::model::sample::{SampleError, ServerInfo};
use crate::self_metrics::RedisCommands;
use crate::xinfo;

/// A connection, and who is at its other end.
pub(super) struct Connected {
    connection: MultiplexedConnection,
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
    /// Connects and finds out who answers. Without a deadline: that of the whole sample stands for it.
    pub(super) async fn new(client: &Client, commands: &RedisCommands) -> Result<Self, SampleError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| failure(&error, FailureReason::Connect))?;
        commands.add("hello", 1);
        let server = match redis::cmd("HELLO").arg(2).query_async::<Value>(&mut connection).await {
            Ok(reply) => xinfo::hello(&reply).map_err(|error| protocol(&error.to_string()))?,
            // Redis 5 has streams and no HELLO. (The 2 asks for RESP2; 6.0 insists on being asked.)
            Err(error) if error.to_string().contains("unknown command") => ServerInfo::default(),
            // Redis 6.0 wants a grant for it, which newer ones do not.
            Err(error) if error.code() == Some("NOPERM") => ServerInfo::default(),
            Err(error) => return Err(failure(&error, FailureReason::Io)),
        };
        let script = Script::on(&server);
        let may_run_scripts = may_run(script, &mut connection, commands).await?;
        Ok(Self { connection, server, script: may_run_scripts.then_some(script) })
    }

    /// A connection to whoever is at the other end of it.
    #[cfg(any(test, fuzzing))]
    pub(super) fn to(connection: MultiplexedConnection, server: ServerInfo, script: Option<Script>) -> Self {
        Self { connection, server, script }
    }

    /// Asks for the server's clock, ahead of what else is asked, so that the answer also measures the round trip.
    pub(super) async fn time(&self, commands: &RedisCommands) -> Result<Clock, SampleError> {
        let mut connection = self.connection.clone();
        commands.add("time", 1);
        let asked = Instant::now();
        let reply = connection.send_packed_command(&redis::cmd("TIME")).await;
        let round_trip = asked.elapsed();
        let server_now_ms = match reply.map_err(|error| failure(&error, FailureReason::Io))? {
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
        let mut connection = self.connection.clone();
        for (command, count) in batch.sent() {
            commands.add(command, *count);
        }
        let count = batch.pipeline().len();
        let sending = connection.send_packed_commands(batch.pipeline(), 0, count);
        sending.await.map_err(|error| failure(&error, FailureReason::Io))
    }
}

/// Asks by a script that does nothing. Whatever Redis has against it, the program goes on without.
async fn may_run(
    script: Script,
    connection: &mut MultiplexedConnection,
    commands: &RedisCommands,
) -> Result<bool, SampleError> {
    commands.add(script.name(), 1);
    let reply = connection.send_packed_command(redis::cmd(script.word()).arg("return 1").arg(0)).await;
    match reply.map_err(|error| failure(&error, FailureReason::Io))? {
        Value::ServerError(error) => server_wide(&error).map_or(Ok(false), Err),
        _ => Ok(true),
    }
}

/// What the client's parser says of a reply whose rest never came, and of nothing else.
const ENDED_IN_A_REPLY: &str = "Unexpected end of input";

/// A failure of the connection, or of the server as a whole, in words that hold no secret.
fn failure(error: &RedisError, otherwise: FailureReason) -> SampleError {
    if error.kind() == ErrorKind::Parse && error.to_string().contains(ENDED_IN_A_REPLY) {
        return SampleError { reason: FailureReason::Io, detail: "the connection ended within a reply".to_owned() };
    }
    let reason = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => FailureReason::Auth,
        (_, Some("LOADING")) => FailureReason::Loading,
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => FailureReason::Server,
        (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) => FailureReason::Protocol,
        _ if error.is_connection_refusal() => FailureReason::Connect,
        _ => otherwise,
    };
    SampleError { reason, detail: error.to_string() }
}
