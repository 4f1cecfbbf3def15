//! One connection: handshake, requests, clock, and the errors of its failures.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::FailureReason;
use crate::model::sample::{SampleError, ServerInfo};
use crate::redis::connector::{Endpoint, refused};
use crate::redis::refusals::{is_command_refused, protocol, server_wide};
use crate::redis::replies;
use crate::redis::replies::role;
use crate::redis::resp::{Refusal, Reply, ReplyReader, command};
use crate::redis::resp_stream::{RespStream, while_connecting};
use crate::redis::script::Script;
use crate::sys::own_metrics::RedisCommands;

/// A connection, and who is at its other end.
pub(crate) struct Connection {
    wire: RespStream,
    pub(crate) server: ServerInfo,
    /// How to run scripts, where this user may.
    pub(crate) script: Option<Script>,
}

impl Connection {
    /// Connects and finds out who answers. The deadline is that of the whole sample; the caller must keep it.
    pub(crate) async fn new(
        endpoint: &mut Endpoint,
        deadline: Instant,
        commands: &RedisCommands,
    ) -> Result<Self, SampleError> {
        let mut wire = endpoint.connect(deadline).await?;
        commands.add("hello", 1);
        // The 2 asks for RESP2; 6.0 insists on being asked.
        let failed = |error| endpoint.with_hint(while_connecting(error));
        let reply = wire.ask(&[b"HELLO", b"2"]).await.map_err(failed)?;
        let server = match reply.error() {
            None if replies::is_sentinel(reply) => {
                let detail = "this is a sentinel, which has no streams; see redis.mode".to_owned();
                return Err(SampleError { reason: FailureReason::Server, detail });
            }
            None => replies::hello(reply).map_err(|error| protocol(&error.to_string()))?,
            // Redis 5 has streams and no HELLO. Redis 6.0 wants a grant for it, which newer ones do not. It only tells who answers.
            Some(refusal) if is_command_refused(&refusal) || ["NOPERM", "NOPROTO"].contains(&refusal.code()) => {
                ServerInfo::default()
            }
            Some(refusal) => return Err(refused(&refusal, FailureReason::Server)),
        };
        let script = Script::on(&server);
        let may_run_scripts = may_run(script, &mut wire, commands).await?;
        Ok(Self { wire, server, script: may_run_scripts.then_some(script) })
    }

    /// A sample begins, and may read as much as any.
    pub(crate) fn begin_sample(&mut self) {
        self.wire.begin_sample();
    }

    /// A sample ends, and with it the need for much memory.
    pub(crate) fn end_sample(&mut self) {
        self.wire.end_sample();
    }

    /// Gives back the memory of large replies that were read; whether there were any.
    pub(crate) fn release(&mut self) -> bool {
        self.wire.release()
    }

    /// Whether it waits for memory that other connections hold.
    pub(crate) fn is_waiting_for_memory(&self) -> bool {
        self.wire.is_waiting_for_memory()
    }

    /// Makes sure that it is not a replica, where that may be asked.
    pub(crate) async fn must_be_master(&mut self, commands: &RedisCommands) -> Result<(), SampleError> {
        commands.add("role", 1);
        let reply = self.wire.ask(&[b"ROLE"]).await.map_err(while_connecting)?;
        match role(reply) {
            Some(role) if role != "master" => {
                // What else it may say is nothing to repeat.
                let role = ["slave", "sentinel"].into_iter().find(|known| *known == role);
                let detail = format!("it is no master any more but a {}", role.unwrap_or("server of an unknown role"));
                Err(SampleError { reason: FailureReason::Server, detail })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A connection to any peer.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn to(wire: RespStream, server: ServerInfo, script: Option<Script>) -> Self {
        Self { wire, server, script }
    }

    /// Asks for the server's clock, ahead of what else is asked and by itself, so that the answer also measures the round trip.
    pub(crate) async fn ask_time(&mut self, commands: &RedisCommands) -> Result<Instant, SampleError> {
        commands.add("time", 1);
        let asked = Instant::now();
        let mut request = Vec::new();
        command(&mut request, [b"TIME".as_slice()]);
        self.wire.send(&request).await?;
        Ok(asked)
    }

    /// What the clock was, when it was asked for at this time and nothing was received since, and how long the answer took. The clock is
    /// in milliseconds since the Unix epoch; `None` where it may not be asked.
    pub(crate) async fn time(&mut self, asked: Instant) -> Result<(Option<u64>, Duration), SampleError> {
        let replies = self.wire.receive(1).await?;
        let round_trip = asked.elapsed();
        let reply = replies.iter().next().ok_or_else(|| protocol("no reply"))?;
        let server_now_ms = match reply.error() {
            Some(refusal) => match server_wide(&refusal) {
                Some(error) => return Err(error),
                // If Redis refuses it for any reason, there is another clock.
                None => None,
            },
            None => Some(replies::time(reply).map_err(|error| protocol(&error.to_string()))?),
        };
        Ok((server_now_ms, round_trip))
    }

    /// Sends requests, with the number of each command. Several messages may be on their way at a time; their replies come in the same order.
    pub(crate) async fn send(
        &mut self,
        requests: &[u8],
        sent: &[(&'static str, u64)],
        commands: &RedisCommands,
    ) -> Result<(), SampleError> {
        for (command, count) in sent {
            commands.add(command, *count);
        }
        self.wire.send(requests).await
    }

    /// Waits for this many replies: those to the oldest message that has none yet.
    pub(crate) async fn receive(&mut self, replies: usize) -> Result<&ReplyReader, SampleError> {
        self.wire.receive(replies).await
    }

    /// How many replies of those that are waited for are whole, and how many bytes came of the next one.
    pub(crate) fn progress(&self) -> (usize, u64) {
        self.wire.progress()
    }

    /// Sends one command; the answer, or what Redis has against it.
    pub(crate) async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply<'_>, SampleError> {
        self.wire.ask(words).await
    }
}

/// Asks by a script that does nothing. If Redis refuses it for any reason, the program goes on without.
async fn may_run(script: Script, wire: &mut RespStream, commands: &RedisCommands) -> Result<bool, SampleError> {
    commands.add(script.name(), 1);
    let words: [&[u8]; 3] = [script.word().as_bytes(), b"return 1", b"0"];
    let reply = wire.ask(&words).await.map_err(while_connecting)?;
    let refusal: Option<Refusal> = reply.error();
    refusal.map_or(Ok(true), |refusal| server_wide(&refusal).map_or(Ok(false), Err))
}
