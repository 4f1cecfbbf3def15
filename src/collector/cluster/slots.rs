//! Which slot a key is in, and which node has the slot. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::collector::Address;
use crate::model::StreamKey;
use crate::model::names::hash_tag;
use crate::redis::resp::Reply;

/// Slots of a cluster, by its specification.
pub(super) use crate::model::read_error::SLOTS;

/// The polynomial of CRC-16/XMODEM, which the specification names.
const POLYNOMIAL: u16 = 0x1021;

/// CRC-16/XMODEM: one table, made when the program is compiled.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC[usize::from((crc >> 8) ^ u16::from(*byte))])
}

/// The slot of a key: of its hash tag, where it has one, else of all of it.
pub(super) fn slot_of(key: &StreamKey) -> u16 {
    let key = key.as_bytes();
    crc16(hash_tag(key).unwrap_or(key)) % SLOTS
}

/// Replicas that are remembered, to be asked for the slots if no master answers: more than any cluster has.
const MAX_REPLICAS: usize = 1000;

/// How a reply to `CLUSTER SLOTS` is not what the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSlots {
    #[error("CLUSTER SLOTS was answered no list")]
    NoList,
    #[error("CLUSTER SLOTS was answered more ranges than there are slots")]
    TooManyRanges,
    #[error("CLUSTER SLOTS was answered a range without its ends")]
    NoEnds,
    #[error("CLUSTER SLOTS was answered a range whose ends are no slots")]
    EndsAreNoSlots,
}

/// Which master has which slots, as one node of the cluster says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotMap {
    /// The last slot of each range, and the master that has it, by the range's first slot. Ranges do not overlap.
    ranges: BTreeMap<u16, (u16, Address)>,
    /// Every master that has slots.
    masters: BTreeSet<Address>,
    /// Nodes that have none of their own: replicas.
    replicas: BTreeSet<Address>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS` of the node at `asked`, which stands where a node knows no address of its own.
    ///
    /// # Errors
    /// What is no such answer.
    pub(super) fn read(reply: Reply<'_>, asked: &Address) -> Result<Self, InvalidSlots> {
        let mut map = Self::default();
        let ranges = reply.list().ok_or(InvalidSlots::NoList)?;
        if ranges.len() > usize::from(SLOTS) {
            return Err(InvalidSlots::TooManyRanges);
        }
        for range in ranges {
            let mut parts = range.list().into_iter().flatten();
            let (Some(first), Some(last)) = (parts.next(), parts.next()) else {
                return Err(InvalidSlots::NoEnds);
            };
            let (Some(first), Some(last)) = (slot(first), slot(last)) else {
                return Err(InvalidSlots::EndsAreNoSlots);
            };
            let mut nodes = parts.map(|node| address(node, asked));
            // A master without an address has its slots all the same; they cannot be asked for.
            if let Some(Some(master)) = nodes.next() {
                map.masters.insert(master.clone());
                map.ranges.insert(first, (last.max(first), master));
            }
            map.replicas.extend(nodes.flatten().take(MAX_REPLICAS.saturating_sub(map.replicas.len())));
        }
        map.replicas.retain(|replica| !map.masters.contains(replica));
        Ok(map)
    }

    /// The master that has a slot; `None` where it is not covered.
    pub(super) fn master_of(&self, slot: u16) -> Option<&Address> {
        let (_, (last, master)) = self.ranges.range(..=slot).next_back()?;
        (slot <= *last).then_some(master)
    }

    /// One slot has moved.
    pub(super) fn moved(&mut self, slot: u16, master: &Address) {
        if let Some((&first, (last, old))) = self.ranges.range(..=slot).next_back()
            && slot <= *last
        {
            let (last, old) = (*last, old.clone());
            if slot > first {
                self.ranges.insert(first, (slot - 1, old.clone()));
            }
            if slot < last {
                self.ranges.insert(slot + 1, (last, old));
            }
        }
        self.ranges.insert(slot, (slot, master.clone()));
        self.masters.insert(master.clone());
        self.replicas.remove(master);
    }

    /// Every master, in order.
    pub(super) fn masters(&self) -> &BTreeSet<Address> {
        &self.masters
    }

    /// The nodes that are no masters, in order.
    pub(super) fn replicas(&self) -> &BTreeSet<Address> {
        &self.replicas
    }
}

fn slot(reply: Reply<'_>) -> Option<u16> {
    u16::try_from(reply.int()?).ok().filter(|slot| *slot < SLOTS)
}

/// Where a node is: at the endpoint that the cluster's operator prefers; where that is unknown, at what else is known
/// of it.
fn address(node: Reply<'_>, asked: &Address) -> Option<Address> {
    let mut parts = node.list()?;
    let (endpoint, port) = (parts.next()?, u16::try_from(parts.next()?.int()?).ok()?);
    // The host that was asked, under the address that was used.
    if endpoint.is_nil() || endpoint.bytes() == Some(b"") {
        return at_host_of(asked, port);
    }
    let host = match text(endpoint)? {
        // After the node's id.
        "?" => known_name(parts.nth(1)?)?,
        host => host,
    };
    Address::told(host, port)
}

/// Another name of a node, its address first (Redis 7.0 and later), from names and values in turn.
fn known_name(metadata: Reply<'_>) -> Option<&str> {
    let words: Vec<&str> = metadata.list()?.filter_map(text).collect();
    let value = |name| words.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    ["ip", "hostname"].into_iter().filter_map(value).find(|name| !name.is_empty() && *name != "?")
}

fn text(reply: Reply<'_>) -> Option<&str> {
    std::str::from_utf8(reply.bytes()?).ok()
}

/// Another port of the same host.
pub(super) fn at_host_of(asked: &Address, port: u16) -> Option<Address> {
    match asked {
        Address::Tcp(host, _) => Some(Address::Tcp(host.clone(), port)),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::resp::tests::{NIL, int, list, text, whole};

    fn at(port: u16) -> Address {
        Address::Tcp("10.0.0.1".to_owned(), port)
    }

    #[test]
    fn keys_are_in_the_slots_that_redis_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        let check = |key: &str, slot| assert_eq!(slot_of(&key.into()), slot, "{key}");
        // As CLUSTER KEYSLOT answers.
        check("123456789", 12739);
        check("", 0);
        check("foo", 12182);
        check("events:chat", 9608);
        check("{user1000}.following", 3443);
        check("{user1000}.followers", 3443);
        check("user1000", 3443);
        check("foo{}{bar}", 8363);
        check("foo{{bar}}zap", 4015);
        check("{bar", 4015);
        check("foo{bar}{zap}", 5061);
        check("bar", 5061);
        check("}{bar}", 5061);
        check("a}b{c}d", 7365);
        check("x{", 3596);
    }

    fn read(reply: &str) -> Result<SlotMap, InvalidSlots> {
        let replies = whole(reply.as_bytes());
        SlotMap::read(replies.iter().next().unwrap(), &at(1))
    }

    fn node(host: String, port: i64, metadata: &[&str]) -> String {
        let metadata: Vec<String> = metadata.iter().map(|word| text(word)).collect();
        list(&[host, int(port), text("the-id"), list(&metadata)])
    }

    fn range(first: i64, last: i64, nodes: &[String]) -> String {
        list(&[&[int(first), int(last)], nodes].concat())
    }

    #[test]
    fn nodes_are_where_the_answer_says_or_where_was_asked() {
        let check = |master: String, expected: Option<Address>| {
            let map = read(&list(&[range(0, 16383, &[master])])).unwrap();
            assert_eq!(map.master_of(7), expected.as_ref());
            assert_eq!(map.masters().first(), expected.as_ref());
        };
        let host = |host: &str, port| Some(Address::Tcp(host.to_owned(), port));
        check(node(text("10.0.0.9"), 7000, &[]), host("10.0.0.9", 7000));
        check(node(text("redis-1.example"), 7000, &["ip", "10.0.0.9"]), host("redis-1.example", 7000));
        check(node(NIL.to_owned(), 7000, &[]), Some(at(7000)));
        check(node(text(""), 7000, &[]), Some(at(7000)));
        check(node(text("?"), 7000, &["hostname", "h", "ip", "10.0.0.9"]), host("10.0.0.9", 7000));
        check(node(text("?"), 7000, &["hostname", "h"]), host("h", 7000));
        check(node(text("?"), 7000, &["hostname", ""]), None);
        check(node(text("?"), 7000, &[]), None);
        // Before 4.0 there was no id, and before 7.0 no metadata.
        check(list(&[text("10.0.0.9"), int(7000)]), host("10.0.0.9", 7000));
    }

    #[test]
    fn ranges_and_replicas() {
        let replica = node(text("10.0.0.1"), 3, &[]);
        let reply = list(&[
            range(0, 99, &[node(text("10.0.0.1"), 1, &[]), replica]),
            range(200, 16383, &[node(text("10.0.0.1"), 2, &[])]),
        ]);
        let mut map = read(&reply).unwrap();
        let check = |map: &SlotMap, slot, port: Option<u16>| assert_eq!(map.master_of(slot), port.map(at).as_ref());
        for (slot, port) in [(0, Some(1)), (99, Some(1)), (100, None), (199, None), (200, Some(2)), (16383, Some(2))] {
            check(&map, slot, port);
        }
        assert_eq!(map.replicas().iter().collect::<Vec<_>>(), [&at(3)]);

        for (moved, port) in [(50, 2), (150, 2), (0, 3), (16383, 1), (51, 1), (50, 1)] {
            map.moved(moved, &at(port));
            check(&map, moved, Some(port));
        }
        for (slot, port) in [(1, 1), (49, 1), (50, 1), (51, 1), (52, 1), (99, 1), (16382, 2), (200, 2)] {
            check(&map, slot, Some(port));
        }
        for slot in [100, 149, 151] {
            check(&map, slot, None);
        }
        assert!(map.replicas().is_empty() && map.masters().contains(&at(3)));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let bad = [
            NIL.to_owned(),
            int(1),
            list(&[int(1)]),
            list(&[list(&[int(0)])]),
            list(&[range(-1, 5, &[])]),
            list(&[range(0, 16384, &[])]),
        ];
        for bad in bad {
            assert!(read(&bad).is_err(), "{bad:?}");
        }
        // A range without a reachable node, and ends the wrong way round, do no harm.
        let odd = list(&[
            range(0, 5, &[int(3)]),
            range(6, 9, &[]),
            range(20, 10, &[node(text("10.0.0.1"), 2, &[])]),
            range(30, 40, &[node(text("10.0.0.1"), 70_000, &[])]),
        ]);
        let map = read(&odd).unwrap();
        assert_eq!((map.master_of(0), map.master_of(8), map.master_of(35)), (None, None, None));
        assert_eq!((map.master_of(20), map.master_of(15)), (Some(&at(2)), None));
    }
}
