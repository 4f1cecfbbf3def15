//! Which of several exporters a stream belongs to, agreed on without communication.
//!
//! Rendezvous hashing (Thaler and Ravishankar 1998, "highest random weight"): every shard has a weight for every name, and
//! the one with the highest has the stream. With one shard more, a name moves only where the new shard's weight is the
//! highest: 1 in n + 1, and only to the new one.
//!
//! **The weights are an interface.** Exporters of different versions share a fleet while they are being replaced, so the
//! functions below never change; the tests hold known values.

use std::fmt;

use crate::model::StreamKey;

/// The most shards: a fleet beyond it would have fewer streams per shard than one process samples without noticing.
pub const MAX_SHARDS: u32 = 10_000;

/// One of several exporters that share the streams of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Shard `index` of `count`, counted from 0; `None` where there is no such shard, or too many.
    #[must_use]
    pub fn new(index: u32, count: u32) -> Option<Self> {
        (index < count && count <= MAX_SHARDS).then_some(Self { index, count })
    }

    /// Reads `i/n`, such as `0/3`, `1/3` and `2/3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let (index, count) = text.split_once('/')?;
        Self::new(number(index)?, number(count)?)
    }

    /// Whether the stream belongs to this shard.
    #[must_use]
    pub fn owns(self, key: &StreamKey) -> bool {
        self.owns_name(key.as_bytes())
    }

    /// The same for a name that is no [`StreamKey`] yet.
    ///
    /// The owner has to be compared with every shard, others only until one beats them, which on average is soon: a name
    /// costs some ln n comparisons of a few nanoseconds.
    #[must_use]
    pub fn owns_name(self, name: &[u8]) -> bool {
        let name = fnv1a(name);
        let own = weight(name, self.index);
        // Equal weights are next to impossible, but two owners must be quite: the lower index has it.
        (0..self.index).all(|other| weight(name, other) < own)
            && (self.index + 1..self.count).all(|other| weight(name, other) <= own)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// A shard's weight for a name of this hash.
fn weight(name: u64, shard: u32) -> u64 {
    splitmix64(name ^ splitmix64(u64::from(shard) + 1))
}

/// FNV-1a in 64 bits (Fowler, Noll, Vo; RFC 9923): simple to write again in any language. It mixes its last bytes badly, which
/// [`splitmix64`] makes up for.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What is added to the state of SplitMix64 with each number.
pub(crate) const SPLITMIX64_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The step and finalizer of SplitMix64 (Steele, Lea and Flood: "Fast splittable pseudorandom number generators", 2014): every bit of the
/// input moves every bit of the output.
pub(crate) fn splitmix64(seed: u64) -> u64 {
    let z = seed.wrapping_add(SPLITMIX64_STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(name: &[u8], count: u32) -> u32 {
        let mut owners = (0..count).filter(|index| Shard::new(*index, count).unwrap().owns_name(name));
        let owner = owners.next().unwrap();
        assert_eq!(owners.next(), None, "{name:?} has one owner");
        owner
    }

    #[test]
    fn one_of_several_and_nothing_else_is_a_shard() {
        let check = |text: &str, expected: Option<(u32, u32)>| {
            assert_eq!(Shard::parse(text), expected.map(|(index, count)| Shard { index, count }), "{text:?}");
        };
        check("0/1", Some((0, 1)));
        check("2/3", Some((2, 3)));
        check("9999/10000", Some((9999, 10_000)));
        for text in
            ["", "/", "1", "1/", "/1", "1/1", "3/3", "0/0", "0/10001", "-1/3", "+1/3", " 1/3", "1/3/5", "99999999999/3"]
        {
            check(text, None);
        }
        assert_eq!(Shard::parse("2/3").unwrap().to_string(), "2/3");
    }

    #[test]
    fn the_functions_are_the_published_ones() {
        // Vectors of the FNV reference and of Vigna's splitmix64.c (the first outputs for the seeds 0 and 1234567).
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
    }

    #[test]
    fn who_has_what_never_changes() {
        // Should this fail, a fleet would sample streams twice or not at all while it is being updated.
        let check = |name: &str, expected: [u32; 4]| {
            let owners = [2, 3, 10, 1000].map(|count| owner(name.as_bytes(), count));
            assert_eq!(owners, expected, "{name:?}");
        };
        check("events:chat", [0, 0, 7, 438]);
        check("events:ticket", [0, 0, 9, 653]);
        check("events:remote", [1, 2, 8, 322]);
        check("orders:{0}", [1, 1, 8, 88]);
        check("orders:{1}", [0, 0, 0, 585]);
        check("", [1, 1, 3, 149]);
        check("événements:€", [0, 2, 2, 570]);
    }

    #[test]
    fn a_stream_is_owned_by_the_shard_that_owns_its_name() {
        for name in ["events:chat", "events:ticket", "événements:€", ""] {
            let owns = [0, 1, 2].map(|index| Shard::new(index, 3).unwrap().owns(&name.into()));
            let expected = [0, 1, 2].map(|index| index == owner(name.as_bytes(), 3));
            assert_eq!(owns, expected, "{name:?}");
        }
    }

    #[test]
    fn shards_are_even_within_a_few_percent() {
        const NAMES: u32 = 100_000;
        for count in [2, 3, 7, 10] {
            let mut held = vec![0_u32; count as usize];
            for number in 0..NAMES {
                held[owner(format!("events:{number}").as_bytes(), count) as usize] += 1;
            }
            let even = f64::from(NAMES) / f64::from(count);
            for (index, held) in held.iter().enumerate() {
                let off = (f64::from(*held) / even - 1.0).abs();
                assert!(off < 0.04, "shard {index}/{count} has {held} of {NAMES}");
            }
        }
    }

    #[test]
    fn one_shard_more_takes_its_share_and_moves_nothing_else() {
        const NAMES: u32 = 20_000;
        for count in [1, 2, 3, 9, 30] {
            let mut moved = 0_u32;
            for number in 0..NAMES {
                let name = format!("orders:{{{number}}}:eu");
                let (before, after) = (owner(name.as_bytes(), count), owner(name.as_bytes(), count + 1));
                if before != after {
                    assert_eq!(after, count, "{name} moves to the new shard only");
                    moved += 1;
                }
            }
            let share = f64::from(moved) * f64::from(count + 1) / f64::from(NAMES);
            assert!((0.85..1.15).contains(&share), "{moved} of {NAMES} moved from {count} shards to one more");
        }
    }

    proptest! {
        #[test]
        fn any_name_has_one_owner(name in prop::collection::vec(any::<u8>(), 0..40), count in 1_u32..50) {
            owner(&name, count);
        }
    }
}
