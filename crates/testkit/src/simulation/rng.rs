//! A generator of numbers that is the same on every machine and in every release: a seed that failed once fails again.

use std::time::Duration;

/// `SplitMix64`: 64 bits of state, good enough to roll dice, and ten lines.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub(super) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed ^ 0x5851_F42D_4C95_7F2D);
        rng.next();
        rng
    }

    /// A generator of its own for one part of the world, so that one part's questions do not change another's answers.
    pub(super) fn of(seed: u64, part: &str, number: u64) -> Rng {
        let mut rng = Rng::new(seed);
        for byte in part.bytes().chain(number.to_le_bytes()) {
            rng.0 = rng.next() ^ u64::from(byte);
        }
        rng
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Below `n`; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// From `low` to `high`, both included.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// Small numbers as often as great ones: from `low` to `high`, even in its logarithm.
    pub(super) fn scale(&mut self, low: u64, high: u64) -> u64 {
        let ceiling = (high / low.max(1)).max(1);
        let bits = 64 - ceiling.leading_zeros();
        let top = low.max(1) << self.below(u64::from(bits) + 1).min(40);
        self.range(low, top.min(high).max(low))
    }

    /// True so many times of a thousand.
    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Milliseconds from `low` to `high`.
    pub(super) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.range(low, high))
    }
}

/// A number that looks random and depends on nothing but `n`.
pub(super) fn mix(n: u64) -> u64 {
    let mut z = n;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
