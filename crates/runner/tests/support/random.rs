//! Numbers that a seed repeats.

use std::hash::{BuildHasher, Hasher};

/// Xorshift: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The seed in `SEED`, or a new one; printed, so that a failure can be repeated.
    pub fn seed() -> u64 {
        let given = std::env::var("SEED").ok().map(|text| text.parse().expect("SEED is a number"));
        let seed = given.unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish() % 1_000_000);
        println!("seed {seed} (SEED={seed} repeats it)");
        seed
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
