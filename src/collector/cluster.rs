//! Redis Cluster: one [`Standalone`] per master, each with the named streams of its slots and with every pattern, all sampled at a
//! time.
//!
//! What is kept of a stream from sample to sample belongs to its master's connection. A stream whose slot moves to
//! another master starts again there, as after a change of the server.

mod merge;
mod redirect;
mod slot_refresh;
mod slots;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::collector::cluster::merge::ClusterSample;
use crate::collector::sample_state::SamplingConfig;
use crate::collector::standalone::Standalone;
use crate::collector::topology::Topology;
use crate::model::sample::{SampleError, Sink, TargetSample};
use crate::model::{FailureReason, RedirectKind, StreamKey, text};
use crate::redis::connector::Address;
use crate::sys::own_metrics::RedisCommands;
use redirect::Redirect;
use slots::{SlotMap, slot_of};

/// How often a stream is asked for elsewhere in one sample. One is usual; a second is for a slot that moved on meanwhile.
const MAX_REDIRECTIONS: usize = 3;

/// What part of the time the nodes have for their own streams; the rest is for streams that have moved.
const NODE_SHARE: f64 = 0.8;

/// A node may take this multiple of what its last sample took, and an interval in any case. One that falls silent would else hold
/// up the streams of the others until they are too old to be shown.
const SLOWER_THAN_USUAL: u32 = 4;

/// By so much a node that was too slow may be slower the next time, up to all the time there is.
const SLOWER_EACH_TIME: f64 = 1.5;

/// Samples a cluster.
pub(super) struct Cluster {
    topology: Topology,
    sampling: SamplingConfig,
    commands: RedisCommands,
    /// The named streams that are sampled, in the order of the configuration, and the slot of each.
    named: Vec<(StreamKey, u16)>,
    /// The streams of the newest sample.
    streams: Vec<StreamKey>,
    /// When a search at all masters had ended last. One that a new master has not ended yet does not undo it.
    searched: Option<(SystemTime, Duration)>,
    map: Option<SlotMap>,
    /// When the cluster was asked for it, answered or not.
    refreshed: Option<Instant>,
    /// Whether something calls for asking again.
    is_stale: bool,
    /// Whether streams may have other nodes than they had.
    is_new: bool,
    /// Whose turn it is to be asked for the slots.
    turn: usize,
    nodes: BTreeMap<Address, NodeState>,
}

/// A stream that is to be asked for at another node.
struct RedirectRequest {
    key: StreamKey,
    node: Address,
    /// Whether it is only on its way there.
    asking: bool,
}

/// One master.
struct NodeState {
    source: Standalone,
    /// The named streams of its slots.
    named: Vec<StreamKey>,
    /// Whether what is to be sampled has changed since it was told.
    is_outdated: bool,
    /// Whether it answered the newest sample.
    is_up: bool,
    /// How long its next sample may take; `None` where that is not known.
    patience: Option<Duration>,
    /// Whether it was asked for streams that are on their way to it.
    has_redirected: bool,
}

impl Cluster {
    /// Connects at the first sample.
    pub(super) fn new(topology: Topology, sampling: SamplingConfig, commands: RedisCommands) -> Self {
        Self {
            topology,
            commands,
            named: named(&sampling),
            sampling,
            streams: Vec::new(),
            searched: None,
            map: None,
            refreshed: None,
            is_stale: false,
            is_new: true,
            turn: 0,
            nodes: BTreeMap::new(),
        }
    }

    /// Samples this from now on. What is known of the streams that stay is kept.
    pub(super) fn reconfigure(&mut self, sampling: SamplingConfig) {
        self.named = named(&sampling);
        if sampling.streams.patterns() != self.sampling.streams.patterns() {
            self.searched = None;
        }
        if sampling.stream_limit < self.sampling.stream_limit {
            // Those that are left out now are not to be looked for.
            self.streams.clear();
        }
        for node in self.nodes.values_mut() {
            node.is_outdated = true;
        }
        (self.sampling, self.is_new) = (sampling, true);
    }

    /// Takes one sample, all of it within `timeout`, and hands the streams to the sink when all nodes have answered.
    ///
    /// # Errors
    /// Where no master could be sampled. One that could not costs its own streams.
    pub(super) async fn sample_into(
        &mut self,
        timeout: Duration,
        sink: &mut dyn Sink,
    ) -> Result<TargetSample, SampleError> {
        let mut sample = self.sample(timeout).await?;
        let streams = std::mem::take(&mut sample.streams);
        if !streams.iter().map(|(key, _)| key).eq(self.streams.iter()) {
            self.streams = streams.iter().map(|(key, _)| key.clone()).collect();
        }
        sink.begin(&self.streams);
        for (at, (_, read)) in streams.into_iter().enumerate() {
            sink.stream(at, read);
        }
        Ok(sample)
    }

    /// What the newest sample took of the time of the busiest master, as far as its own streams go.
    pub(super) fn redis_time(&self) -> Duration {
        self.nodes.values().map(|node| node.source.redis_time()).max().unwrap_or_default()
    }

    async fn sample(&mut self, timeout: Duration) -> Result<TargetSample, SampleError> {
        let sampled_at = SystemTime::now();
        let deadline = Instant::now() + timeout;
        self.nodes.values_mut().for_each(|node| node.source.begin_sample());
        self.refresh_slots_if_due(deadline).await?;
        self.distribute()?;
        let mut gathered = ClusterSample::new(sampled_at, self.named.iter().map(|(key, _)| key));
        for (key, slot) in &self.named {
            if self.master_of(*slot).is_none() {
                gathered.unread(key, format!("no node of the cluster has its slot, {slot}"));
                self.is_stale = true;
            }
        }
        let (time, interval) = (left(deadline).mul_f64(NODE_SHARE), self.sampling.interval);
        let spread = interval.min(time).mul_f64(self.sampling.spread);
        let asked = self.nodes.iter_mut().map(|(address, node)| async move {
            let sample = node.sample(time, interval, spread).await;
            (address, node, sample)
        });
        for (address, node, sample) in join_all(asked).await {
            gathered.take(address, node.source.streams(), sample);
            gathered.searched(node.source.search());
        }
        self.go_on_elsewhere(&mut gathered, deadline).await;
        let named_over = self.sampling.streams.literals().len() - self.named.len();
        let mut sample = gathered.sample(self.named.iter().map(|(key, _)| key), self.sampling.stream_limit)?;
        sample.meta.streams_left_out += named_over as u64;
        // Nodes that have failed have taken of their time as well.
        sample.redis_time = sample.redis_time.max(self.redis_time());
        if let Some(search) = &mut sample.meta.search {
            self.searched = search.completed.or(self.searched);
            search.completed = self.searched;
        }
        Ok(sample)
    }

    fn master_of(&self, slot: u16) -> Option<&Address> {
        self.map.as_ref()?.master_of(slot)
    }

    /// Asks other nodes for the streams that have moved, or are on their way, and for those of nodes that were replaced.
    async fn go_on_elsewhere(&mut self, gathered: &mut ClusterSample, deadline: Instant) {
        let mut ask = self.replaced(gathered, deadline).await;
        // A search may meet them no more where they were, and not yet where they go.
        let patterns = &self.sampling.streams;
        for key in self.streams.iter().filter(|key| !gathered.has(key) && patterns.matches(key.as_bytes())) {
            if let Some(master) = self.master_of(slot_of(key)) {
                ask.push(RedirectRequest { node: master.clone(), key: key.clone(), asking: false });
            }
        }
        for _ in 0..MAX_REDIRECTIONS {
            for (key, from, redirect) in gathered.redirected() {
                self.commands.redirected(redirect.kind);
                if redirect.kind == RedirectKind::Moved {
                    self.moved(&redirect);
                    if let Some(node) = self.nodes.get_mut(&from) {
                        node.source.remove_found(&key);
                    }
                }
                ask.push(RedirectRequest { key, node: redirect.node, asking: redirect.kind == RedirectKind::Ask });
            }
            if ask.is_empty() {
                return;
            }
            self.ask_redirected(std::mem::take(&mut ask), gathered, deadline).await;
        }
    }

    fn moved(&mut self, Redirect { slot, node, .. }: &Redirect) {
        if let Some(map) = &mut self.map {
            map.moved(*slot, node);
        }
        (self.is_stale, self.is_new) = (true, true);
    }

    /// Where nodes failed, asks which node has their slots: a replica may have taken over since. Answers with the streams to be asked
    /// for there.
    async fn replaced(&mut self, gathered: &mut ClusterSample, deadline: Instant) -> Vec<RedirectRequest> {
        let failed: BTreeSet<Address> = gathered.failed().cloned().collect();
        if failed.is_empty() {
            return Vec::new();
        }
        self.is_stale = true;
        // Without an answer everything stays as it is.
        if self.refresh_slots_if_due(deadline).await.is_err() {
            return Vec::new();
        }
        let mut ask = Vec::new();
        for address in &failed {
            let Some(node) = self.nodes.get(address) else { continue };
            for key in node.source.streams() {
                if let Some(master) = self.master_of(slot_of(key)).filter(|master| *master != address) {
                    ask.push(RedirectRequest { key: key.clone(), node: master.clone(), asking: false });
                }
            }
            if self.map.as_ref().is_some_and(|map| !map.masters().contains(address)) {
                gathered.drop_node(address);
            }
        }
        ask
    }

    /// Asks nodes for streams that are not theirs yet, as far as there may be a connection to them. What a pattern found elsewhere
    /// and has moved there for good is theirs from now on.
    async fn ask_redirected(&mut self, ask: Vec<RedirectRequest>, gathered: &mut ClusterSample, deadline: Instant) {
        let mut redirected: BTreeMap<Address, [Vec<StreamKey>; 2]> = BTreeMap::new();
        for RedirectRequest { key, node: address, asking } in ask {
            if !self.nodes.contains_key(&address) {
                if self.nodes.len() >= self.most_nodes() {
                    gathered.unread(&key, self.too_many(self.nodes.len() + 1));
                    continue;
                }
                self.nodes.insert(address.clone(), self.node(&address));
            }
            if let Some(node) = self.nodes.get_mut(&address).filter(|_| !asking && !gathered.is_named(&key)) {
                node.source.add_found(key.clone());
            }
            redirected.entry(address).or_default()[usize::from(asking)].push(key);
        }
        let asked = self.nodes.iter_mut().filter_map(|(address, node)| {
            let streams = redirected.remove(address)?;
            Some(async move {
                node.has_redirected = true;
                let mut answers = Vec::new();
                for (streams, asking) in streams.into_iter().zip([false, true]) {
                    if !streams.is_empty() {
                        let sample = node.source.sample_redirected(streams.clone(), asking, left(deadline)).await;
                        node.is_up = sample.is_ok();
                        answers.push((streams, sample));
                    }
                }
                (address, answers)
            })
        });
        let mut gone = Vec::new();
        for (address, answers) in join_all(asked).await {
            for (streams, sample) in answers {
                gathered.take(address, &streams, sample);
                gone.extend(streams.into_iter().filter(|key| gathered.is_gone(key)).map(|key| (address.clone(), key)));
            }
        }
        for (address, key) in gone {
            if let Some(node) = self.nodes.get_mut(&address) {
                node.source.remove_found(&key);
            }
        }
    }

    /// Gives each master the named streams of its slots.
    fn distribute(&mut self) -> Result<(), SampleError> {
        let Some(map) = &self.map else { return Ok(()) };
        let masters = map.masters();
        if masters.len() > self.most_nodes() {
            return Err(SampleError { reason: FailureReason::Connect, detail: self.too_many(masters.len()) });
        }
        let mut orphans = Vec::new();
        self.nodes.retain(|address, node| {
            let stays = std::mem::take(&mut node.has_redirected) || masters.contains(address);
            if !stays {
                orphans.extend(node.source.streams().cloned());
            }
            stays
        });
        if std::mem::take(&mut self.is_new) {
            self.distribute_anew();
        }
        // What patterns found at a master that is none any more is at another, which will be a while finding it again.
        for key in orphans {
            if let Some(master) = self.map.as_ref().and_then(|map| map.master_of(slot_of(&key)))
                && let Some(node) = self.nodes.get_mut(master)
            {
                node.source.add_found(key);
            }
        }
        Ok(())
    }

    fn distribute_anew(&mut self) {
        let Some(map) = &self.map else { return };
        let mut named: BTreeMap<&Address, Vec<StreamKey>> = BTreeMap::new();
        for (key, slot) in &self.named {
            if let Some(master) = map.master_of(*slot) {
                named.entry(master).or_default().push(key.clone());
            }
        }
        let missing: Vec<_> = map.masters().iter().filter(|master| !self.nodes.contains_key(master)).collect();
        let missing: Vec<_> = missing.into_iter().map(|master| (master.clone(), self.node(master))).collect();
        self.nodes.extend(missing);
        for (address, node) in &mut self.nodes {
            let named = named.remove(address).unwrap_or_default();
            // Where nothing has changed, the search for streams goes on where it is.
            if std::mem::take(&mut node.is_outdated) || named != node.named {
                node.named.clone_from(&named);
                let streams = self.sampling.streams.naming(named);
                node.source.reconfigure(SamplingConfig { streams, ..self.sampling.clone() }, None);
            }
        }
    }

    fn node(&self, address: &Address) -> NodeState {
        let sampling = SamplingConfig { streams: self.sampling.streams.naming(Vec::new()), ..self.sampling.clone() };
        let source =
            Standalone::new(self.topology.endpoint_for(address.clone()), sampling, self.commands.clone()).of_cluster();
        NodeState { source, named: Vec::new(), is_outdated: false, is_up: false, patience: None, has_redirected: false }
    }

    /// One connection is for asking which node has which slots.
    fn most_nodes(&self) -> usize {
        usize::try_from(self.topology.max_connections).unwrap_or(usize::MAX).saturating_sub(1)
    }

    fn too_many(&self, masters: usize) -> String {
        let most = self.topology.max_connections;
        let takes = text::count(masters as u64, "master takes", "masters take");
        format!("{takes} {} connections, and --redis.max-connections allows {most}", masters + 1)
    }
}

impl NodeState {
    /// Samples its own streams, for no longer than it may take.
    async fn sample(
        &mut self,
        most: Duration,
        interval: Duration,
        spread: Duration,
    ) -> Result<TargetSample, SampleError> {
        let time = self.patience.map_or(most, |patience| patience.min(most));
        let began = Instant::now();
        let sample = self.source.sample(time).await;
        self.is_up = sample.is_ok();
        match &sample {
            Ok(_) => {
                // The time over which it was spread is none that it was waited for.
                let waited = began.elapsed().saturating_sub(spread);
                self.patience = Some(interval.max(spread + waited * SLOWER_THAN_USUAL));
            }
            Err(error) if error.reason == FailureReason::Timeout => {
                self.patience = Some(time.mul_f64(SLOWER_EACH_TIME).min(most));
            }
            Err(_) => {}
        }
        sample
    }
}

/// The named streams that are sampled, with their slots.
fn named(sampling: &SamplingConfig) -> Vec<(StreamKey, u16)> {
    let named = sampling.streams.literals().iter().take(sampling.stream_limit);
    named.map(|key| (key.clone(), slot_of(key))).collect()
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
