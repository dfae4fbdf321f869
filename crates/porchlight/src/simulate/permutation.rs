//! A shuffle that needs no memory: a numbered permutation of `0..len`, the same for the same seed.
//!
//! Four rounds of a Feistel network over the next even number of bits, walked until the result is in range. It is
//! not meant to be secret.

/// One permutation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    len: u64,
    half_bits: u32,
    seed: u64,
}

const ROUNDS: u64 = 4;

impl Permutation {
    /// The permutation of `0..len` that belongs to `seed`.
    pub(crate) fn new(len: u64, seed: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            seed,
        }
    }

    /// Where `position` goes; `position` must be below `len`.
    pub(crate) fn at(&self, position: u64) -> u64 {
        let mut image = self.step(position);
        // The domain is at most four times as large as the range, so a walk is short.
        while image >= self.len {
            image = self.step(image);
        }
        image
    }

    fn step(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS {
            let mixed = mix(self.seed ^ (round << 56) ^ right) & mask;
            (left, right) = (right, left ^ mixed);
        }
        (left << self.half_bits) | right
    }
}

/// Spreads a number over all 64 bits (the finaliser of SplitMix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_position_is_taken_exactly_once() {
        for len in [1, 2, 3, 7, 64, 1_000, 4_097] {
            let permutation = Permutation::new(len, 9);
            let images: BTreeSet<u64> = (0..len).map(|position| permutation.at(position)).collect();
            assert_eq!(images.len() as u64, len);
            assert_eq!(images.last(), Some(&(len - 1)));
        }
    }

    #[test]
    fn a_seed_gives_one_order_and_another_seed_another() {
        let order = |seed| {
            (0..100)
                .map(|at| Permutation::new(100, seed).at(at))
                .collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_ne!(order(1), (0..100).collect::<Vec<_>>());
    }
}
