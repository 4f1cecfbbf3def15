//! A sample of a cluster while its parts come in. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use crate::collector::Address;
use crate::collector::cluster::redirect::Redirect;
use crate::model::sample::{
    NodeStatus, ReadError, RefusedCommand, SampleError, Search, ServerInfo, StreamSample, TargetMeta, TargetSample,
};
use crate::model::{FailureReason, StreamKey};

/// How many nodes are named where all of them failed: mostly they do so for the same reason.
const NAMED: usize = 3;

/// What the nodes have said so far.
#[derive(Debug)]
pub(super) struct ClusterSample {
    sampled_at: SystemTime,
    /// What is known of each stream, whether it was named or found.
    streams: BTreeMap<StreamKey, StreamResult>,
    nodes: Vec<NodeSample>,
    /// The oldest server that answered, so that it does not depend on which answers first.
    server: Option<ServerInfo>,
    server_now_ms: Option<u64>,
    round_trip: Duration,
    refused: BTreeSet<RefusedCommand>,
    failure: Option<SampleError>,
    streams_left_out: u64,
    search: Option<Search>,
    /// Streams that were found and that the node that has their slot says are not there.
    gone: BTreeSet<StreamKey>,
    /// Streams that are to be asked for elsewhere, each with the node that said so.
    redirected: Vec<(StreamKey, Address, Redirect)>,
}

/// What is known of a stream.
#[derive(Debug)]
struct StreamResult {
    /// Whether it was named, and not found by a pattern.
    is_named: bool,
    /// The place of the node that told it.
    node: Option<usize>,
    read: Result<StreamSample, ReadError>,
}

/// One node.
#[derive(Debug)]
struct NodeSample {
    address: Address,
    status: NodeStatus,
    /// How much of its time the sample took.
    redis_time: Duration,
    /// Whether it turned out to be a master no more.
    is_dropped: bool,
}

impl ClusterSample {
    /// Nothing of these named streams yet.
    pub(super) fn new<'a>(sampled_at: SystemTime, named: impl IntoIterator<Item = &'a StreamKey>) -> Self {
        let unread = || StreamResult { is_named: true, node: None, read: Err(ReadError::NotRead) };
        Self {
            sampled_at,
            streams: named.into_iter().map(|key| (key.clone(), unread())).collect(),
            nodes: Vec::new(),
            server: None,
            server_now_ms: None,
            round_trip: Duration::ZERO,
            refused: BTreeSet::new(),
            failure: None,
            streams_left_out: 0,
            search: None,
            gone: BTreeSet::new(),
            redirected: Vec::new(),
        }
    }

    /// What a node says of the streams that it was asked for, its own or guests, and of those that it found.
    pub(super) fn take<'a>(
        &mut self,
        address: &Address,
        asked: impl IntoIterator<Item = &'a StreamKey>,
        sample: Result<TargetSample, SampleError>,
    ) {
        let at = self.place_of(address);
        if std::mem::take(&mut self.nodes[at].is_dropped) {
            self.nodes[at].status.error = None;
        }
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                let status = &mut self.nodes[at].status;
                // How long it was waited for is different each time, and would be news each time.
                let in_time = || "no answer in time".to_owned();
                status.error =
                    Some(if error.reason == FailureReason::Timeout { in_time() } else { error.detail.clone() });
                if let Some(why) = status.why() {
                    asked.into_iter().for_each(|key| self.tell(key.clone(), at, Err(why.clone())));
                }
                self.failure.get_or_insert(error);
                return;
            }
        };
        self.nodes[at].redis_time += sample.redis_time;
        self.round_trip = self.round_trip.max(sample.meta.round_trip);
        self.server_now_ms.get_or_insert(sample.meta.server_now_ms);
        let is_older = |known: &ServerInfo| {
            (&sample.meta.server.name, &sample.meta.server.version) < (&known.name, &known.version)
        };
        if self.server.as_ref().is_none_or(is_older) {
            self.server = Some(sample.meta.server);
        }
        self.refused.extend(sample.meta.refused);
        self.streams_left_out += sample.meta.streams_left_out;
        // Those that are not there are left out of a sample, whose order is theirs.
        let mut told = sample.streams.iter().map(|(key, _)| key).peekable();
        self.gone.extend(asked.into_iter().filter(|key| told.next_if_eq(key).is_none()).cloned());
        for (key, read) in sample.streams {
            if let Some(redirect) = read.as_ref().err().and_then(|error| Redirect::read(error, address)) {
                self.redirected.push((key.clone(), address.clone(), redirect));
            }
            self.tell(key, at, read);
        }
    }

    fn place_of(&mut self, address: &Address) -> usize {
        self.nodes.iter().position(|node| node.address == *address).unwrap_or_else(|| {
            let status = NodeStatus { address: address.to_string(), streams: 0, error: None };
            let (address, redis_time) = (address.clone(), Duration::ZERO);
            self.nodes.push(NodeSample { address, status, redis_time, is_dropped: false });
            self.nodes.len() - 1
        })
    }

    /// A node says this of a stream. Where slots move, two may do so, and the one that has it is right.
    fn tell(&mut self, key: StreamKey, node: usize, read: Result<StreamSample, ReadError>) {
        let known = self.streams.get(&key);
        if known.is_some_and(|told| told.read.is_ok()) {
            return;
        }
        let is_named = known.is_some_and(|told| told.is_named);
        // It was found, went elsewhere and is not there.
        if !is_named && read.as_ref().is_err_and(ReadError::is_gone) {
            self.streams.remove(&key);
            self.gone.insert(key);
            return;
        }
        self.streams.insert(key, StreamResult { is_named, node: Some(node), read });
    }

    /// How the search of a master stands. The whole is as old as the oldest of them.
    pub(super) fn searched(&mut self, search: Option<Search>) {
        let Some(one) = search else { return };
        self.search = Some(match self.search {
            None => one,
            Some(all) => Search {
                found: all.found + one.found,
                completed: all
                    .completed
                    .zip(one.completed)
                    .map(|((at, took), (one_at, one_took))| (at.min(one_at), took.max(one_took))),
            },
        });
    }

    /// A node turned out to be a master no more.
    pub(super) fn drop_node(&mut self, address: &Address) {
        let at = self.place_of(address);
        self.nodes[at].is_dropped = true;
    }

    /// No node can be asked for a stream.
    pub(super) fn unread(&mut self, key: &StreamKey, why: String) {
        if let Some(told) = self.streams.get_mut(key) {
            (told.node, told.read) = (None, Err(ReadError::NoNode(why)));
        }
    }

    /// Whether anything is known of a stream, or is to be.
    pub(super) fn has(&self, key: &StreamKey) -> bool {
        self.streams.contains_key(key) || self.gone.contains(key)
    }

    /// Whether a stream that was found turned out to be gone.
    pub(super) fn is_gone(&self, key: &StreamKey) -> bool {
        !self.streams.contains_key(key) && self.gone.contains(key)
    }

    /// Whether a stream was named, and not found by a pattern.
    pub(super) fn is_named(&self, key: &StreamKey) -> bool {
        self.streams.get(key).is_some_and(|told| told.is_named)
    }

    /// The streams that are to be asked for elsewhere, and the nodes that said so. Each is told once; one that another node turned
    /// out to have is not.
    pub(super) fn redirected(&mut self) -> Vec<(StreamKey, Address, Redirect)> {
        let mut redirected = std::mem::take(&mut self.redirected);
        redirected.retain(|(key, ..)| self.streams.get(key).is_some_and(|told| told.read.is_err()));
        redirected
    }

    /// The nodes that could not be sampled.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Address> {
        self.nodes.iter().filter(|node| node.status.error.is_some()).map(|node| &node.address)
    }

    /// All of it: the streams with these names, then those that were found, by name, up to this many streams in all.
    ///
    /// # Errors
    /// Where no node could be sampled.
    pub(super) fn sample<'a>(
        mut self,
        named: impl IntoIterator<Item = &'a StreamKey>,
        limit: usize,
    ) -> Result<TargetSample, SampleError> {
        let (Some(server), Some(server_now_ms)) = (self.server, self.server_now_ms) else {
            self.nodes.sort_by(|one, other| one.address.cmp(&other.address));
            let why: Vec<String> =
                self.nodes.iter().filter_map(|node| Some(node.status.why()?.to_string())).take(NAMED).collect();
            let reason = self.failure.map_or(FailureReason::Server, |error| error.reason);
            let detail = format!("no master of the cluster can be sampled: {}", why.join("; "));
            return Err(SampleError { reason, detail });
        };
        let told = named.into_iter().filter_map(|key| self.streams.remove_entry(key));
        let mut told: Vec<(StreamKey, StreamResult)> = told.collect();
        let (named, all) = (told.len(), told.len() + self.streams.len());
        told.extend(self.streams.into_iter().take(limit.saturating_sub(named)));
        for node in told.iter().filter_map(|(_, told)| told.node) {
            self.nodes[node].status.streams += 1;
        }
        let found = (told.len() - named) as u64;
        self.nodes.retain(|node| !node.is_dropped);
        self.nodes.sort_by(|one, other| one.address.cmp(&other.address));
        let redis_time = self.nodes.iter().map(|node| node.redis_time).max().unwrap_or_default();
        let meta = TargetMeta {
            sampled_at: self.sampled_at,
            server_now_ms,
            server,
            round_trip: self.round_trip,
            refused: self.refused.into_iter().collect(),
            streams_left_out: self.streams_left_out + (all - told.len()) as u64,
            search: self.search.map(|search| Search { found, ..search }),
            nodes: self.nodes.into_iter().map(|node| node.status).collect(),
        };
        Ok(TargetSample { meta, streams: told.into_iter().map(|(key, told)| (key, told.read)).collect(), redis_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RedirectKind;
    use crate::model::reply::StreamReply;

    fn at(port: u16) -> Address {
        Address::Tcp("h".to_owned(), port)
    }

    fn sample(
        version: &str,
        round_trip_ms: u64,
        streams: Vec<(&str, Result<StreamSample, ReadError>)>,
    ) -> TargetSample {
        let meta = TargetMeta {
            server_now_ms: 7,
            server: ServerInfo { name: "redis".to_owned(), version: version.to_owned() },
            round_trip: Duration::from_millis(round_trip_ms),
            streams_left_out: 2,
            ..TargetMeta::at(SystemTime::now())
        };
        let streams = streams.into_iter().map(|(key, stream)| (key.into(), stream)).collect();
        TargetSample { meta, streams, redis_time: Duration::from_millis(10 * round_trip_ms) }
    }

    fn stream(length: u64) -> Result<StreamSample, ReadError> {
        Ok(StreamSample { reply: StreamReply { length, ..StreamReply::default() }, ..StreamSample::default() })
    }

    fn error(text: &str) -> Result<StreamSample, ReadError> {
        Err(ReadError::of_server(text))
    }

    fn timeout(detail: &str) -> SampleError {
        SampleError { reason: FailureReason::Timeout, detail: detail.to_owned() }
    }

    fn keys<const N: usize>(names: [&str; N]) -> [StreamKey; N] {
        names.map(StreamKey::from)
    }

    /// What is told of the streams, in their order.
    fn told(sample: &TargetSample) -> Vec<(&str, Result<u64, &ReadError>)> {
        fn name(key: &StreamKey) -> &str {
            std::str::from_utf8(key.as_bytes()).unwrap()
        }
        sample.streams.iter().map(|(key, read)| (name(key), read.as_ref().map(|stream| stream.reply.length))).collect()
    }

    #[test]
    fn parts_become_one_sample_in_the_order_of_the_configuration() {
        let named = keys(["e", "d", "c", "b", "a"]);
        let mut gathered = ClusterSample::new(SystemTime::UNIX_EPOCH, &named);
        let moved = error("MOVED 5 h:3");
        gathered.take(&at(1), &[], Ok(sample("7.2.0", 1, vec![("b", stream(3)), ("e", moved), ("y", stream(7))])));
        gathered.take(&at(2), &[], Ok(sample("7.0.0", 9, vec![("d", stream(1)), ("x", stream(8))])));
        gathered.take(&at(4), &keys(["c", "z"]), Err(timeout("no answer within 799ms")));
        gathered.unread(&"a".into(), "nobody".to_owned());
        let redirect = Redirect { kind: RedirectKind::Moved, slot: 5, node: at(3) };
        assert_eq!(gathered.redirected(), [("e".into(), at(1), redirect)]);
        assert_eq!(gathered.redirected(), []);
        gathered.take(&at(3), &[], Ok(sample("8.0.0", 2, vec![("e", stream(10))])));
        assert_eq!(gathered.failed().collect::<Vec<_>>(), [&at(4)]);

        let whole = gathered.sample(&named, 100).unwrap();
        let late = ReadError::Node { address: "h:4".to_owned(), error: "no answer in time".to_owned() };
        let nobody = ReadError::NoNode("nobody".to_owned());
        let expected = [Ok(10), Ok(1), Err(&late), Ok(3), Err(&nobody), Ok(8), Ok(7), Err(&late)];
        let names = ["e", "d", "c", "b", "a", "x", "y", "z"];
        assert_eq!(told(&whole), names.into_iter().zip(expected).collect::<Vec<_>>());
        assert_eq!((whole.meta.server.version.as_str(), whole.meta.round_trip), ("7.0.0", Duration::from_millis(9)));
        assert_eq!((whole.redis_time, whole.meta.streams_left_out), (Duration::from_millis(90), 6));
        let nodes: Vec<_> =
            whole.meta.nodes.iter().map(|node| (&*node.address, node.streams, node.error.is_none())).collect();
        assert_eq!(nodes, [("h:1", 2, true), ("h:2", 2, true), ("h:3", 1, true), ("h:4", 2, false)]);
    }

    #[test]
    fn what_was_found_comes_by_name_up_to_the_limit_and_where_it_is_gone_not_at_all() {
        let named = keys(["z"]);
        let mut gathered = ClusterSample::new(SystemTime::UNIX_EPOCH, &named);
        let found = vec![("z", error("no such key")), ("d", stream(4)), ("b", stream(2)), ("g", error("ASK 5 h:2"))];
        gathered.take(&at(1), &[], Ok(sample("7", 1, found)));
        // Two nodes have met the same stream while its slot moves: the one that has it is right, whichever is heard first.
        let found = vec![("b", error("MOVED 6 h:1")), ("c", stream(3)), ("a", error("MOVED 7 h:3"))];
        gathered.take(&at(2), &[], Ok(sample("7", 1, found)));
        let elsewhere: Vec<String> = gathered.redirected().into_iter().map(|(key, ..)| key.to_string()).collect();
        assert_eq!(elsewhere, ["g", "a"]);
        gathered.take(&at(2), &[], Ok(sample("7", 1, vec![("g", error("no such key"))])));
        gathered.take(&at(3), &[], Ok(sample("7", 1, vec![("a", stream(1))])));
        let (old, new) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        let second = Duration::from_secs(1);
        for completed in [Some((new, second)), Some((old, 2 * second)), Some((new, second))] {
            gathered.searched(Some(Search { found: 2, completed }));
        }
        let whole = gathered.sample(&named, 4).unwrap();
        assert_eq!(told(&whole), [("z", Err(&ReadError::Missing)), ("a", Ok(1)), ("b", Ok(2)), ("c", Ok(3))]);
        assert_eq!(whole.meta.streams_left_out, 4 * 2 + 1);
        assert_eq!(whole.meta.search, Some(Search { found: 3, completed: Some((old, 2 * second)) }));
    }

    /// A deleted stream is told apart from one that no node has answered for: only that one is asked for again.
    #[test]
    fn what_its_node_does_not_have_is_gone_and_what_no_node_told_is_not() {
        let mut gathered = ClusterSample::new(SystemTime::UNIX_EPOCH, &[]);
        let asked = keys(["a", "deleted", "moved", "z"]);
        let found = vec![("a", stream(1)), ("moved", error("MOVED 5 h:2")), ("z", stream(2))];
        gathered.take(&at(1), &asked, Ok(sample("7", 1, found)));
        gathered.take(&at(2), &keys(["guest"]), Ok(sample("7", 1, vec![("guest", error("no such key"))])));
        gathered.take(&at(3), &keys(["silent"]), Err(timeout("")));
        let gone = ["a", "deleted", "moved", "guest", "silent", "elsewhere"].map(|key| gathered.is_gone(&key.into()));
        assert_eq!(gone, [false, true, false, true, false, false]);
        let known = ["a", "deleted", "moved", "guest", "silent", "elsewhere"].map(|key| gathered.has(&key.into()));
        assert_eq!(known, [true, true, true, true, true, false]);
    }

    #[test]
    fn a_search_that_one_node_has_not_ended_is_not_ended() {
        let mut gathered = ClusterSample::new(SystemTime::UNIX_EPOCH, &[]);
        let ended = Some((SystemTime::UNIX_EPOCH, Duration::ZERO));
        for completed in [ended, None, ended] {
            gathered.searched(Some(Search { found: 0, completed }));
        }
        gathered.take(&at(1), &[], Ok(sample("7", 1, vec![])));
        assert_eq!(gathered.sample(&[], 4).unwrap().meta.search, Some(Search { found: 0, completed: None }));
    }

    #[test]
    fn a_sample_of_no_node_is_none() {
        let named = keys(["a"]);
        let mut gathered = ClusterSample::new(SystemTime::UNIX_EPOCH, &named);
        gathered.take(&at(1), &named, Err(timeout("")));
        gathered.take(
            &at(2),
            &[],
            Err(SampleError { reason: FailureReason::Server, detail: "CLUSTERDOWN".to_owned() }),
        );
        let error = gathered.sample(&named, 1).unwrap_err();
        assert_eq!(error.reason, FailureReason::Timeout);
        let why = "no master of the cluster can be sampled: node h:1: no answer in time; node h:2: CLUSTERDOWN";
        assert_eq!(error.detail, why);
    }
}
