//! Which slot a key is in, and which node has the slot. Pure.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::model::StreamKey;
use crate::source::Address;

/// Slots of a cluster, by its specification.
pub(super) const SLOTS: u16 = 16384;

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

/// The slot of a key: of what stands between its first `{` and the next `}`, where anything does, else of all of it.
pub(super) fn slot_of(key: &StreamKey) -> u16 {
    let key = key.as_bytes();
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        let close = memchr::memchr(b'}', rest).filter(|close| *close > 0)?;
        Some(&rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
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
    pub(super) fn read(reply: &Value, asked: &Address) -> Result<Self, &'static str> {
        let mut map = Self::default();
        for range in array(reply).ok_or("CLUSTER SLOTS was answered no list")? {
            let Some([first, last, nodes @ ..]) = array(range) else {
                return Err("CLUSTER SLOTS was answered a range without its ends");
            };
            let (Some(first), Some(last)) = (slot(first), slot(last)) else {
                return Err("CLUSTER SLOTS was answered a range whose ends are no slots");
            };
            let mut nodes = nodes.iter().map(|node| address(node, asked));
            // A master that says nothing of where it is has its slots all the same; nobody can be asked for them.
            if let Some(Some(master)) = nodes.next() {
                map.masters.insert(master.clone());
                map.ranges.insert(first, (last.max(first), master));
            }
            map.replicas.extend(nodes.flatten());
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

fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn slot(value: &Value) -> Option<u16> {
    match value {
        Value::Int(slot) => u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

/// Where a node is: at the endpoint that the cluster's operator prefers; where that is unknown, at whatever else is known
/// of it.
fn address(node: &Value, asked: &Address) -> Option<Address> {
    let [endpoint, Value::Int(port), rest @ ..] = array(node)? else { return None };
    let port = u16::try_from(*port).ok()?;
    let host = match (text(endpoint), endpoint) {
        // The same host as was asked, whatever the way to it.
        (Some(""), _) | (None, Value::Nil) => return at_host_of(asked, port),
        (Some("?"), _) => known_names(rest).into_iter().find(|name| !name.is_empty() && *name != "?")?,
        (Some(host), _) => host,
        (None, _) => return None,
    };
    Some(Address::Tcp(host.to_owned(), port))
}

/// The other names of a node, address first (Redis 7.0 and later): names and values in turn, after the node's id.
fn known_names(rest: &[Value]) -> Vec<&str> {
    let pairs = rest.get(1).and_then(array).unwrap_or_default().chunks_exact(2);
    let named: Vec<(&str, &str)> = pairs.filter_map(|pair| text(&pair[0]).zip(text(&pair[1]))).collect();
    let value = |name: &str| named.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    ["ip", "hostname"].into_iter().filter_map(value).collect()
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
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

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64, metadata: &[&str]) -> Value {
        let metadata = Value::Array(metadata.iter().map(|word| text(word)).collect());
        Value::Array(vec![host, Value::Int(port), text("the-id"), metadata])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn nodes_are_where_the_answer_says_or_where_was_asked() {
        let check = |master: Value, expected: Option<Address>| {
            let map = SlotMap::read(&Value::Array(vec![range(0, 16383, vec![master])]), &at(1)).unwrap();
            assert_eq!(map.master_of(7), expected.as_ref());
            assert_eq!(map.masters().first(), expected.as_ref());
        };
        let host = |host: &str, port| Some(Address::Tcp(host.to_owned(), port));
        check(node(text("10.0.0.9"), 7000, &[]), host("10.0.0.9", 7000));
        check(node(text("redis-1.example"), 7000, &["ip", "10.0.0.9"]), host("redis-1.example", 7000));
        check(node(Value::Nil, 7000, &[]), Some(at(7000)));
        check(node(text(""), 7000, &[]), Some(at(7000)));
        check(node(text("?"), 7000, &["hostname", "h", "ip", "10.0.0.9"]), host("10.0.0.9", 7000));
        check(node(text("?"), 7000, &["hostname", "h"]), host("h", 7000));
        check(node(text("?"), 7000, &["hostname", ""]), None);
        check(node(text("?"), 7000, &[]), None);
        // Before 4.0 there was no id, and before 7.0 no metadata.
        check(Value::Array(vec![text("10.0.0.9"), Value::Int(7000)]), host("10.0.0.9", 7000));
    }

    #[test]
    fn ranges_and_replicas() {
        let replica = node(text("10.0.0.1"), 3, &[]);
        let reply = Value::Array(vec![
            range(0, 99, vec![node(text("10.0.0.1"), 1, &[]), replica]),
            range(200, 16383, vec![node(text("10.0.0.1"), 2, &[])]),
        ]);
        let mut map = SlotMap::read(&reply, &at(1)).unwrap();
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
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(0)])]),
            Value::Array(vec![range(-1, 5, vec![])]),
            Value::Array(vec![range(0, 16384, vec![])]),
        ];
        for bad in bad {
            assert!(SlotMap::read(&bad, &at(1)).is_err(), "{bad:?}");
        }
        // A range that nobody can be asked for, and ends the wrong way round, hurt nobody.
        let odd = Value::Array(vec![
            range(0, 5, vec![Value::Int(3)]),
            range(6, 9, vec![]),
            range(20, 10, vec![node(text("10.0.0.1"), 2, &[])]),
            range(30, 40, vec![node(text("10.0.0.1"), 70_000, &[])]),
        ]);
        let map = SlotMap::read(&odd, &at(1)).unwrap();
        assert_eq!((map.master_of(0), map.master_of(8), map.master_of(35)), (None, None, None));
        assert_eq!((map.master_of(20), map.master_of(15)), (Some(&at(2)), None));
    }
}
