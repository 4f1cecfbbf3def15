//! A sample of a cluster while its parts come in. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::redirect::Redirect;
use crate::model::sample::{
    NodeStatus, ReadError, RefusedCommand, SampleError, ServerInfo, StreamSample, TargetSample,
};
use crate::model::{FailureReason, StreamKey};
use crate::source::Address;

/// What every stream has that no node was asked for yet.
const NOT_ASKED: &str = "not asked";

/// How many nodes are named where all of them failed: mostly they do so for the same reason.
const NAMED: usize = 3;

/// What the nodes have said so far.
#[derive(Debug)]
pub(super) struct Gathered {
    sampled_at: SystemTime,
    streams: Vec<Result<StreamSample, ReadError>>,
    nodes: BTreeMap<Address, NodeStatus>,
    /// The oldest server that answered, so that it is the same one each time whoever answers first.
    server: Option<ServerInfo>,
    server_now_ms: Option<u64>,
    round_trip: Duration,
    refused: BTreeSet<RefusedCommand>,
    failure: Option<SampleError>,
    /// Streams that no place was given for: a node found them.
    found: BTreeMap<StreamKey, Result<StreamSample, ReadError>>,
    /// Streams that are to be asked for elsewhere, by their places in the configuration.
    redirected: Vec<(usize, Redirect)>,
}

impl Gathered {
    /// Nothing of so many streams yet.
    pub(super) fn new(sampled_at: SystemTime, streams: usize) -> Self {
        Self {
            sampled_at,
            streams: (0..streams).map(|_| Err(ReadError(NOT_ASKED.to_owned()))).collect(),
            nodes: BTreeMap::new(),
            server: None,
            server_now_ms: None,
            round_trip: Duration::ZERO,
            refused: BTreeSet::new(),
            failure: None,
            found: BTreeMap::new(),
            redirected: Vec::new(),
        }
    }

    /// What a node says of the streams at these places, its own or guests, and after them of any that it found itself.
    pub(super) fn take(&mut self, node: &Address, places: &[usize], sample: Result<TargetSample, SampleError>) {
        let status = self.nodes.entry(node.clone()).or_insert_with(|| NodeStatus {
            address: node.to_string(),
            streams: 0,
            error: None,
        });
        let sample = match sample {
            Ok(sample) => sample,
            Err(error) => {
                // How long it was waited for is different each time, and would be news each time.
                let in_time = || "no answer in time".to_owned();
                status.error =
                    Some(if error.reason == FailureReason::Timeout { in_time() } else { error.detail.clone() });
                status.streams += places.len() as u64;
                if let Some(why) = status.why() {
                    places.iter().for_each(|&place| self.streams[place] = Err(why.clone()));
                }
                self.failure.get_or_insert(error);
                return;
            }
        };
        self.round_trip = self.round_trip.max(sample.round_trip);
        self.server_now_ms.get_or_insert(sample.server_now_ms);
        let is_older =
            |known: &ServerInfo| (&sample.server.name, &sample.server.version) < (&known.name, &known.version);
        if self.server.as_ref().is_none_or(is_older) {
            self.server = Some(sample.server);
        }
        self.refused.extend(sample.refused);
        let mut streams = sample.streams.into_iter();
        for (&place, (_, stream)) in places.iter().zip(streams.by_ref()) {
            match stream.as_ref().err().and_then(|error| Redirect::read(error, node)) {
                Some(redirect) => self.redirected.push((place, redirect)),
                None => status.streams += 1,
            }
            self.streams[place] = stream;
        }
        for (key, stream) in streams {
            // One that has moved is found at its new master.
            if stream.as_ref().err().and_then(|error| Redirect::read(error, node)).is_none() {
                status.streams += 1;
                self.found.insert(key, stream);
            }
        }
    }

    /// A node turned out to be a master no more.
    pub(super) fn drop_node(&mut self, node: &Address) {
        self.nodes.remove(node);
    }

    /// Nobody can be asked for a stream.
    pub(super) fn unread(&mut self, place: usize, why: String) {
        self.streams[place] = Err(ReadError(why));
    }

    /// The streams that are to be asked for elsewhere. Each is told once.
    pub(super) fn redirected(&mut self) -> Vec<(usize, Redirect)> {
        std::mem::take(&mut self.redirected)
    }

    /// The nodes that could not be sampled.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Address> {
        self.nodes.iter().filter(|(_, status)| status.error.is_some()).map(|(node, _)| node)
    }

    /// All of it, for streams with these keys.
    ///
    /// # Errors
    /// Where no node could be sampled.
    pub(super) fn sample(self, keys: &[StreamKey]) -> Result<TargetSample, SampleError> {
        let (Some(server), Some(server_now_ms)) = (self.server, self.server_now_ms) else {
            let why: Vec<String> = self.nodes.values().filter_map(|node| Some(node.why()?.0)).take(NAMED).collect();
            let reason = self.failure.map_or(FailureReason::Server, |error| error.reason);
            let detail = format!("no master of the cluster can be sampled: {}", why.join("; "));
            return Err(SampleError { reason, detail });
        };
        Ok(TargetSample {
            sampled_at: self.sampled_at,
            server_now_ms,
            server,
            round_trip: self.round_trip,
            streams: keys.iter().cloned().zip(self.streams).chain(self.found).collect(),
            refused: self.refused.into_iter().collect(),
            nodes: self.nodes.into_values().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RedirectKind;

    fn at(port: u16) -> Address {
        Address::Tcp("h".to_owned(), port)
    }

    fn sample(version: &str, round_trip_ms: u64, streams: Vec<Result<StreamSample, ReadError>>) -> TargetSample {
        TargetSample {
            sampled_at: SystemTime::now(),
            server_now_ms: 7,
            server: ServerInfo { name: "redis".to_owned(), version: version.to_owned() },
            round_trip: Duration::from_millis(round_trip_ms),
            streams: streams.into_iter().map(|stream| ("".into(), stream)).collect(),
            refused: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn stream(length: u64) -> Result<StreamSample, ReadError> {
        Ok(StreamSample { length, ..StreamSample::default() })
    }

    fn error(text: &str) -> Result<StreamSample, ReadError> {
        Err(ReadError(text.to_owned()))
    }

    fn timeout(detail: &str) -> SampleError {
        SampleError { reason: FailureReason::Timeout, detail: detail.to_owned() }
    }

    #[test]
    fn parts_become_one_sample_in_the_order_of_the_configuration() {
        let mut gathered = Gathered::new(SystemTime::UNIX_EPOCH, 5);
        let mut first = sample("7.2.0", 1, vec![stream(3), error("MOVED 5 h:3")]);
        first.streams.extend([("found".into(), stream(7)), ("gone".into(), error("MOVED 6 h:3"))]);
        gathered.take(&at(1), &[3, 0], Ok(first));
        gathered.take(&at(2), &[1], Ok(sample("7.0.0", 9, vec![stream(1)])));
        gathered.take(&at(4), &[2], Err(timeout("no answer within 799ms")));
        gathered.unread(4, "nobody".to_owned());
        let redirect = Redirect { kind: RedirectKind::Moved, slot: 5, node: at(3) };
        assert_eq!(gathered.redirected(), [(0, redirect)]);
        assert_eq!(gathered.redirected(), []);
        gathered.take(&at(3), &[0], Ok(sample("8.0.0", 2, vec![stream(10)])));
        assert_eq!(gathered.failed().collect::<Vec<_>>(), [&at(4)]);

        let keys: Vec<StreamKey> = ["a", "b", "c", "d", "e"].map(StreamKey::from).to_vec();
        let whole = gathered.sample(&keys).unwrap();
        let read: Vec<_> =
            whole.streams.into_iter().map(|(key, read)| (key.to_string(), read.map(|s| s.length))).collect();
        let error = |text: &str| Err(ReadError(text.to_owned()));
        let expected = [Ok(10), Ok(1), error("node h:4: no answer in time"), Ok(3), error("nobody"), Ok(7)];
        assert_eq!(
            read,
            ["a", "b", "c", "d", "e", "found"].map(str::to_owned).into_iter().zip(expected).collect::<Vec<_>>()
        );
        assert_eq!((whole.server.version.as_str(), whole.round_trip), ("7.0.0", Duration::from_millis(9)));
        let nodes: Vec<_> =
            whole.nodes.iter().map(|node| (&*node.address, node.streams, node.error.is_none())).collect();
        assert_eq!(nodes, [("h:1", 2, true), ("h:2", 1, true), ("h:3", 1, true), ("h:4", 1, false)]);
    }

    #[test]
    fn a_sample_of_no_node_is_none() {
        let mut gathered = Gathered::new(SystemTime::UNIX_EPOCH, 1);
        gathered.take(&at(1), &[0], Err(timeout("")));
        gathered.take(
            &at(2),
            &[],
            Err(SampleError { reason: FailureReason::Server, detail: "CLUSTERDOWN".to_owned() }),
        );
        let error = gathered.sample(&["a".into()]).unwrap_err();
        assert_eq!(error.reason, FailureReason::Timeout);
        let why = "no master of the cluster can be sampled: node h:1: no answer in time; node h:2: CLUSTERDOWN";
        assert_eq!(error.detail, why);
    }
}
