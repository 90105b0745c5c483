//! Numbers that look random but depend only on their input.

/// The last step of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014): spreads differences between inputs over all bits.
pub fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A number between 0 and 1, exclusive, from mixed bits.
pub fn fraction(bits: u64) -> f64 {
    // 52 bits and a half can be neither 0 nor 1.
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// A small seeded generator (xorshift64), so that failures of tests can be reproduced.
#[cfg(test)]
pub struct Random(pub u64);

#[cfg(test)]
impl Random {
    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// One of `all`.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}
