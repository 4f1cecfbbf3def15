//! Refreshes the map of slots to nodes.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::collector::cluster::slots::SlotMap;
use crate::collector::cluster::{Cluster, left};
use crate::collector::topology::Topology;
use crate::model::FailureReason;
use crate::model::sample::SampleError;
use crate::redis::connector::Address;
use crate::redis::refusals::{named, protocol};
use crate::sys::own_metrics::RedisCommands;

/// Interval of slot map refreshes while nothing calls for one. What does (a redirection, a node that does
/// not answer, a slot that no node has) has it asked with the next sample.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is asked at most: not twice in one sample, but where samples are closest, in each of them.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(50);

/// How many nodes are asked at a time for the slots, one after the other, until one answers. The next time others are.
const NODES_PER_REFRESH: usize = 8;

/// How many of those are masters that answered the last sample: the others might know of each other only.
const KNOWN_PER_REFRESH: usize = 2;

/// What part of the time that is left asking for the slots may take.
const REFRESH_SHARE: u32 = 2;

impl Cluster {
    /// Refreshes the slot map, where that is due.
    ///
    /// # Errors
    /// Where no node answers and none ever did.
    pub(super) async fn refresh_slots_if_due(&mut self, deadline: Instant) -> Result<(), SampleError> {
        let now = Instant::now();
        let is_due = match (self.refreshed, &self.map) {
            (None, _) | (_, None) => true,
            (Some(refreshed), _) => {
                now - refreshed >= if self.is_stale { MIN_REFRESH_INTERVAL } else { REFRESH_INTERVAL }
            }
        };
        if !is_due {
            return Ok(());
        }
        self.refreshed = Some(now);
        match self.refresh_slots(now + left(deadline) / REFRESH_SHARE).await {
            Ok(map) => {
                self.is_stale = false;
                self.is_new |= self.map.as_ref() != Some(&map);
                self.map = Some(map);
                Ok(())
            }
            Err(error) if self.map.is_none() => Err(error),
            Err(_) => Ok(()),
        }
    }

    /// Asks one node after the other until one answers. None takes more than its share of the time.
    async fn refresh_slots(&mut self, deadline: Instant) -> Result<SlotMap, SampleError> {
        let candidates = self.candidates();
        self.turn = self.turn.wrapping_add(1);
        let mut trouble = None;
        for (tried, address) in candidates.iter().enumerate() {
            let others = u32::try_from(candidates.len() - tried).unwrap_or(u32::MAX);
            let share = Instant::now() + left(deadline) / others;
            let late = || SampleError { reason: FailureReason::Timeout, detail: "no answer in time".to_owned() };
            let asking = ask_for_slots(&self.topology, &self.commands, address, share);
            match timeout_at(share, asking).await.map_err(|_| late()).flatten() {
                Ok(map) => return Ok(map),
                Err(error) => trouble = trouble.or(Some((address, error))),
            }
        }
        Err(match trouble {
            Some((address, error)) => SampleError {
                detail: format!("no node tells who has which slots; {address}: {}", error.detail),
                ..error
            },
            None => protocol("nobody to ask for the slots"),
        })
    }

    /// Nodes to ask for the slot map: first masters that answered, then all others that are known or configured. Those
    /// who come first take turns: a node that is cut off from the others would tell what once was.
    fn candidates(&self) -> Vec<Address> {
        let turned = |mut addresses: Vec<Address>| {
            let turn = self.turn.checked_rem(addresses.len()).unwrap_or(0);
            addresses.rotate_left(turn);
            addresses
        };
        let up = self.nodes.iter().filter(|(_, node)| node.is_up).map(|(address, _)| address.clone()).collect();
        let mut others = self.topology.seeds();
        if let Some(map) = &self.map {
            others.extend(map.masters().iter().chain(map.replicas()).cloned());
        }
        let mut candidates: Vec<Address> = turned(up).into_iter().take(KNOWN_PER_REFRESH).collect();
        for address in turned(others) {
            if !candidates.contains(&address) {
                candidates.push(address);
            }
        }
        candidates.truncate(NODES_PER_REFRESH);
        candidates
    }
}

async fn ask_for_slots(
    topology: &Topology,
    commands: &RedisCommands,
    address: &Address,
    deadline: Instant,
) -> Result<SlotMap, SampleError> {
    let mut wire = topology.endpoint_for(address.clone()).connect(deadline).await?;
    commands.add("cluster_slots", 1);
    let reply = wire.ask(&[b"CLUSTER", b"SLOTS"]).await?;
    if let Some(refusal) = reply.error() {
        let detail = format!("CLUSTER SLOTS was answered {}", named(&refusal));
        return Err(SampleError { reason: FailureReason::Server, detail });
    }
    let map = SlotMap::read(reply, address).map_err(|error| protocol(&error.to_string()))?;
    let is_empty = || SampleError { reason: FailureReason::Server, detail: "no slots are given out".to_owned() };
    if map.masters().is_empty() { Err(is_empty()) } else { Ok(map) }
}
