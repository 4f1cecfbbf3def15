//! Sentinel: a [`Standalone`] at the master that the sentinels name before each sample.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::collector::sample_state::SamplingConfig;
use crate::collector::standalone::Standalone;
use crate::collector::topology::Topology;
use crate::model::FailureReason;
use crate::model::sample::{NodeStatus, SampleError, Sink, TargetSample};
use crate::redis::connector::{Address, Endpoint, Resolver};
use crate::redis::refusals::named;
use crate::redis::resp::Reply;
use crate::redis::resp_stream::RespStream;
use crate::sys::own_metrics::RedisCommands;

/// What part of the time that is left asking the sentinels may take.
const SENTINEL_SHARE: u32 = 2;

/// How often a sample is tried: once more where another master was named since the first.
const ATTEMPTS: usize = 2;

/// Samples a master that sentinels watch.
pub(super) struct Sentinel {
    topology: Topology,
    sampling: SamplingConfig,
    commands: RedisCommands,
    sentinels: Vec<Address>,
    /// The sentinel to be asked next.
    at: usize,
    /// A connection to it, where the last question was answered.
    kept: Option<RespStream>,
    /// The master that was named last.
    master: Option<(Address, Standalone)>,
    /// Whether the log has said that no sentinel reachable.
    said: bool,
}

impl Sentinel {
    /// Connects at the first sample.
    pub(super) fn new(topology: Topology, sampling: SamplingConfig, commands: RedisCommands) -> Self {
        let sentinels = topology.seeds();
        Self { topology, sampling, commands, sentinels, at: 0, kept: None, master: None, said: false }
    }

    /// Samples this from now on. What is known of the streams that stay is kept.
    pub(super) fn reconfigure(&mut self, sampling: SamplingConfig) {
        if let Some((_, source)) = &mut self.master {
            source.reconfigure(sampling.clone(), None);
        }
        self.sampling = sampling;
    }

    /// Takes one sample, all of it within `timeout`, and hands each stream to the sink as it is read.
    ///
    /// # Errors
    /// Where the master could not be read, or none is known.
    pub(super) async fn sample_into(
        &mut self,
        timeout: Duration,
        sink: &mut dyn Sink,
    ) -> Result<TargetSample, SampleError> {
        let deadline = Instant::now() + timeout;
        if let Some((_, source)) = &mut self.master {
            source.begin_sample();
        }
        let mut trouble = None;
        for _ in 0..ATTEMPTS {
            let is_another = self.find_master(deadline).await?;
            let Some((address, source)) = &mut self.master else { break };
            // The same one again would say the same again.
            if trouble.is_some() && !is_another {
                break;
            }
            match source.sample_into(deadline.saturating_duration_since(Instant::now()), sink).await {
                Ok(mut sample) => {
                    let streams = source.streams().len() as u64;
                    sample.meta.nodes = vec![NodeStatus { address: address.to_string(), streams, error: None }];
                    return Ok(sample);
                }
                Err(error) => trouble = Some(SampleError { detail: format!("{address}: {}", error.detail), ..error }),
            }
            // Another sentinel may know better.
            self.next_sentinel();
        }
        let unknown = || SampleError { reason: FailureReason::Connect, detail: "no master is known".to_owned() };
        Err(trouble.unwrap_or_else(unknown))
    }

    /// What the newest sample took of the master's time.
    pub(super) fn redis_time(&self) -> Duration {
        self.master.as_ref().map_or(Duration::ZERO, |(_, source)| source.redis_time())
    }

    /// Asks for the master and turns to it; whether it is another one than before. Where no sentinel reachable, it is the last one
    /// that was named.
    async fn find_master(&mut self, deadline: Instant) -> Result<bool, SampleError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let found = self.ask_sentinels(Instant::now() + left / SENTINEL_SHARE).await;
        match found {
            Ok(address) => {
                if std::mem::take(&mut self.said) {
                    tracing::info!("sentinel reachable again");
                }
                Ok(self.turn_to(address))
            }
            Err(error) => {
                let Some((master, _)) = &self.master else { return Err(error) };
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(%error, %master, "no sentinel reachable; sampling the last known master");
                }
                Ok(false)
            }
        }
    }

    fn turn_to(&mut self, address: Address) -> bool {
        match &mut self.master {
            Some((master, _)) if *master == address => return false,
            Some((master, source)) => {
                tracing::info!(before = %master, now = %address, "master changed");
                self.commands.master_changed();
                source.reconfigure(self.sampling.clone(), Some(self.topology.endpoint_for(address.clone())));
                *master = address;
            }
            None => {
                let endpoint = self.topology.endpoint_for(address.clone());
                let source = Standalone::new(endpoint, self.sampling.clone(), self.commands.clone()).masters_only();
                self.master = Some((address, source));
            }
        }
        true
    }

    fn next_sentinel(&mut self) {
        self.kept = None;
        self.at = (self.at + 1) % self.sentinels.len();
    }

    /// Asks one sentinel after the other until one answers. None takes more than its share of the time.
    async fn ask_sentinels(&mut self, deadline: Instant) -> Result<Address, SampleError> {
        let mut trouble = None;
        // One more than there are: a kept connection that broke says nothing of the sentinel.
        let mut others = u32::try_from(self.sentinels.len()).unwrap_or(u32::MAX).saturating_add(1);
        while others > 0 {
            let now = Instant::now();
            let share = now + deadline.saturating_duration_since(now) / others;
            let (address, was_kept) = (self.sentinels[self.at].clone(), self.kept.is_some());
            let late = || SampleError { reason: FailureReason::Timeout, detail: "no answer in time".to_owned() };
            match timeout_at(share, self.ask_one(&address, share)).await.map_err(|_| late()).flatten() {
                Ok(found) => return Ok(found),
                Err(error) if was_kept && error.reason == FailureReason::Io => {}
                Err(error) => {
                    let detail = format!("no sentinel names the master; {address}: {}", error.detail);
                    trouble = trouble.or(Some(SampleError { detail, ..error }));
                    self.next_sentinel();
                }
            }
            others -= 1;
        }
        let nobody = || SampleError { reason: FailureReason::Connect, detail: "no sentinel reachable".to_owned() };
        Err(trouble.unwrap_or_else(nobody))
    }

    async fn ask_one(&mut self, address: &Address, deadline: Instant) -> Result<Address, SampleError> {
        // Taken out for the time of the question, so that no late answer is taken for that to another.
        let mut wire = match self.kept.take() {
            Some(kept) => kept,
            None => self.endpoint_for(address).connect(deadline).await?,
        };
        wire.begin_sample();
        self.commands.add("sentinel_get_master_addr_by_name", 1);
        let name = &self.topology.sentinel_master;
        let reply = wire.ask(&[b"SENTINEL", b"get-master-addr-by-name", name.as_bytes()]).await?;
        let found = master_of(reply, name)?;
        self.kept = Some(wire);
        Ok(found)
    }

    /// The login at the sentinels is another than at Redis, and they have no databases.
    fn endpoint_for(&self, address: &Address) -> Endpoint {
        let credentials = self.topology.sentinel_login.clone();
        Endpoint { credentials, db: 0, resolver: Resolver::default(), ..self.topology.endpoint_for(address.clone()) }
    }
}

/// The master in the answer to `SENTINEL get-master-addr-by-name`.
fn master_of(reply: Reply<'_>, name: &str) -> Result<Address, SampleError> {
    let error = |detail| SampleError { reason: FailureReason::Server, detail };
    if reply.is_nil() {
        return Err(error(format!("no master is named {name:?}; see --redis.sentinel-master")));
    }
    if let Some(refusal) = reply.error() {
        return Err(error(named(&refusal).to_owned()));
    }
    let mut parts = reply.list().ok_or_else(|| error("it answers what is no answer".to_owned()))?;
    let mut text = || parts.next().and_then(Reply::bytes).and_then(|text| std::str::from_utf8(text).ok());
    let host = text();
    let address = host.zip(text().and_then(|port| port.parse().ok()));
    let without = || error("it names a master without an address".to_owned());
    address.and_then(|(host, port)| Address::told(host, port)).ok_or_else(without)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::replies::role;
    use crate::redis::resp::tests::{NIL, int, list, text, whole};

    #[test]
    fn the_master_that_a_sentinel_names() {
        let check = |reply: &str, expected: Result<(&str, u16), &str>| {
            let replies = whole(reply.as_bytes());
            match (master_of(replies.iter().next().unwrap(), "mymaster"), expected) {
                (Ok(found), Ok((host, port))) => assert_eq!(found, Address::Tcp(host.to_owned(), port)),
                (Err(error), Err(why)) => assert!(error.detail.contains(why), "{error}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
        check(&list(&[text("10.0.0.1"), text("6379")]), Ok(("10.0.0.1", 6379)));
        check(&list(&[text("host.example"), text("6379")]), Ok(("host.example", 6379)));
        check(&list(&[text("::1"), text("6379")]), Ok(("::1", 6379)));
        check(NIL, Err("no master is named \"mymaster\""));
        check(&list(&[text(""), text("6379")]), Err("without an address"));
        check(&list(&[text("10.0.0.1"), text("70000")]), Err("without an address"));
        check(&list(&[text("a b"), text("6379")]), Err("without an address"));
        check(&list(&[text(&"h".repeat(254)), text("6379")]), Err("without an address"));
        check(&list(&[text("10.0.0.1")]), Err("without an address"));
        check(&int(1), Err("no answer"));
    }

    #[test]
    fn the_role_that_a_server_says() {
        let check = |reply: &str, expected: Option<&str>| {
            assert_eq!(role(whole(reply.as_bytes()).iter().next().unwrap()), expected, "{reply}");
        };
        check(&list(&[text("master"), int(0)]), Some("master"));
        check(&list(&[text("slave")]), Some("slave"));
        check(&list(&[]), None);
        check(NIL, None);
    }
}
