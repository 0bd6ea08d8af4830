//! A fast hash for the router's tables.
//!
//! Not keyed, because only the operator puts keys into these tables. A client chooses what is
//! looked up, but cannot make a chain longer than the operator's keys have made it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table of segments or host names.
pub(super) type Table<V> = HashMap<Box<str>, V, BuildHasherDefault<Fold>>;

/// Multiplies word by word and folds the 128-bit product onto itself, so that every bit of the
/// input reaches both the index and the tag that the table takes from the hash.
pub(super) struct Fold(u64);

/// The golden ratio's fraction in 64 bits: odd, and without a pattern in its bits.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl Default for Fold {
    fn default() -> Self {
        // The first digits of pi's fraction. Not zero, because a leading zero word would leave zero
        // unchanged.
        Fold(0x243F_6A88_85A3_08D3)
    }
}

impl Fold {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, remainder) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let rest = remainder.iter().fold(0, |rest, byte| (rest << 8) | u64::from(*byte));
        // The length goes above the at most seven bytes, so that `a` and `\0a` differ.
        self.mix(rest | ((bytes.len() as u64) << 56));
    }

    /// Called at the end of a string; its length is in the hash already.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn names_that_count_up_spread_over_index_and_tag() {
        let hasher = BuildHasherDefault::<Fold>::default();
        let hashes: Vec<u64> =
            (0..4096).map(|n| hasher.hash_one(format!("service-{n}").as_str())).collect();
        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xFFFF).collect();
        let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        // 4096 keys in 65536 places: a random function would take about 3970 of them.
        assert!(low.len() > 3800, "{}", low.len());
        assert_eq!(tags.len(), 128);
    }
}
