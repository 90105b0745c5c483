//! Decides which samples to keep when there are too many: weighted sampling without replacement that favors recent
//! ones (P. S. Efraimidis and P. G. Spirakis, "Weighted random sampling with a reservoir", Information Processing
//! Letters 97, 2006).
//!
//! Each sample draws u in (0, 1), and those with the largest u^(1/w) stay. The weight w is e^(-r/10) for the r-th
//! newest sample. The draw is a hash of the sample itself, so that everyone with the same samples keeps the same
//! ones, and of the newest sample, so that an old one that was lucky once has to be lucky again each time.

use super::Sample;
use crate::random;

/// By how much the logarithm of the weight decreases from each sample to the next older one.
const AGEING: f64 = 0.1;

/// The random source of one test.
#[derive(Clone, Copy)]
pub struct Draw(u64);

impl Draw {
    /// The draws of the test `id` of `config`.
    pub fn new(config: &str, id: &str) -> Draw {
        // 0xff does not occur in UTF-8, so it separates the parts.
        Draw([config.as_bytes(), &[0xff], id.as_bytes(), &[0xff]].into_iter().fold(OFFSET, fnv))
    }

    fn with(self, sample: &Sample) -> Draw {
        let seconds = sample.seconds.to_bits().to_le_bytes();
        let parts = [sample.run.as_bytes(), &[0xff], &sample.at.to_le_bytes(), &seconds];
        Draw(parts.into_iter().fold(self.0, fnv))
    }

    /// Lower for samples that stay: ln(-ln(u^(1/w))), which cannot overflow.
    fn score(self, rank: usize) -> f64 {
        // With FNV alone, texts that differ only at the end have similar upper bits.
        let u = random::fraction(random::mix(self.0));
        (-u.ln()).ln() + AGEING * rank as f64
    }
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Reduces `samples` to at most `capacity`; they are sorted before and after.
pub fn reduce(samples: &mut Vec<Sample>, capacity: usize, draw: Draw) {
    let count = samples.len();
    let Some(newest) = samples.last().filter(|_| count > capacity) else {
        return;
    };
    let draw = draw.with(newest);
    let score = |(place, sample): (usize, &Sample)| (draw.with(sample).score(count - 1 - place), place);
    let mut scores: Vec<(f64, usize)> = samples.iter().enumerate().map(score).collect();
    scores.sort_unstable_by(|(one, older), (other, newer)| one.total_cmp(other).then(newer.cmp(older)));
    let mut stays = vec![false; count];
    for (_, place) in scores.into_iter().take(capacity) {
        stays[place] = true;
    }
    let mut stays = stays.into_iter();
    samples.retain(|_| stays.next().unwrap_or(false));
}
