//! Speculative runs: two batches with the same tests. The first to finish counts, the other one is ignored.

use std::collections::{HashMap, HashSet};

use super::{BatchOutcome, Collector, Step};
use crate::model::{Batch, Origin};

/// Which batches form a pair, and which of them are ignored.
#[derive(Clone, Debug, Default)]
pub(super) struct SpeculativePairs {
    /// Both ways: two batches of which either may still count.
    pairs: HashMap<u32, u32>,
    /// Batches that are ignored because the other one finished first.
    losers: HashSet<u32>,
    /// Batches whose other one failed to run.
    last: HashSet<u32>,
}

impl SpeculativePairs {
    fn part(&mut self, batch: u32) -> Option<u32> {
        let other = self.pairs.remove(&batch)?;
        self.pairs.remove(&other);
        Some(other)
    }

    /// `batch` finished and counts. Returns the other one, which is ignored from now on.
    pub(super) fn win(&mut self, batch: u32) -> Option<u32> {
        let other = self.part(batch)?;
        self.losers.insert(other);
        Some(other)
    }

    /// `batch` will not finish. Returns whether the other one still may.
    fn leave(&mut self, batch: u32) -> bool {
        self.part(batch).is_some_and(|other| self.last.insert(other))
    }

    /// Whether `batch` is what is left of a pair.
    pub(super) fn is_last(&self, batch: u32) -> bool {
        self.last.contains(&batch)
    }
}

impl Collector<'_> {
    /// A second batch with the tests of `batch`, to run at the same time.
    pub fn duplicate(&mut self, batch: &Batch) -> Batch {
        let root = self.root(batch.index);
        let index = self.number(root);
        self.speculative.pairs.extend([(batch.index, index), (index, batch.index)]);
        Batch { index, origin: Origin::Speculative, ..batch.clone() }
    }

    /// Whether the results of this batch are ignored because the other one finished first.
    pub fn ignores(&self, batch: u32) -> bool {
        self.speculative.losers.contains(&batch)
    }

    /// What follows from the end of a batch that could not finish, if the other one of its pair finished or
    /// still may; `None` if there is no such pair.
    pub(super) fn aside(&mut self, batch: u32) -> Option<Step> {
        if self.ignores(batch) {
            Some(Step::end(BatchOutcome::Cancelled))
        } else {
            self.speculative.leave(batch).then(|| Step::end(BatchOutcome::Error))
        }
    }
}
