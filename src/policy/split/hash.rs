//! The hash that keys are drawn by. It must never change: replicas of two versions would send one user
//! to two upstreams.
//!
//! Not keyed: a client that chooses its key can choose its upstream in any case.

/// A hash of `bytes`: FNV-1a in 64 bits, and mixed, because its upper bits alone are weak.
pub fn of(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
pub const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Uniform in (0, 1), both ends excluded.
pub fn uniform(word: u64) -> f64 {
    const STEPS: f64 = (1u64 << 52) as f64;
    ((word >> 12) as f64 + 0.5) / STEPS
}
