//! Two batches with the same tests: the one that is done first stands, the other one never was.

use std::collections::{HashMap, HashSet};

use super::{BatchOutcome, Collector, Step};
use crate::model::{Batch, Origin};

/// Which batches have a twin, and which of them do not count.
#[derive(Clone, Debug, Default)]
pub(super) struct SpeculativePairs {
    /// Both ways: two batches of which either may still stand.
    pairs: HashMap<u32, u32>,
    /// Batches whose twin stands.
    losers: HashSet<u32>,
    /// Batches whose twin fell away without having been done.
    last: HashSet<u32>,
}

impl SpeculativePairs {
    fn part(&mut self, batch: u32) -> Option<u32> {
        let twin = self.pairs.remove(&batch)?;
        self.pairs.remove(&twin);
        Some(twin)
    }

    /// `batch` is done and stands; gives its twin, which has lost.
    pub(super) fn win(&mut self, batch: u32) -> Option<u32> {
        let twin = self.part(batch)?;
        self.losers.insert(twin);
        Some(twin)
    }

    /// `batch` will not be done; tells whether that is no matter, because its twin still may be.
    fn leave(&mut self, batch: u32) -> bool {
        self.part(batch).is_some_and(|twin| self.last.insert(twin))
    }

    /// Whether `batch` had a twin that fell away.
    pub(super) fn is_last(&self, batch: u32) -> bool {
        self.last.contains(&batch)
    }
}

impl Collector<'_> {
    /// A second batch with the tests of `batch`, to run beside it.
    pub fn duplicate(&mut self, batch: &Batch) -> Batch {
        let root = self.root(batch.index);
        let index = self.number(root);
        self.speculative.pairs.extend([(batch.index, index), (index, batch.index)]);
        Batch { index, origin: Origin::Speculative, ..batch.clone() }
    }

    /// Whether nothing counts that this batch reports, because its twin was done first.
    pub fn ignores(&self, batch: u32) -> bool {
        self.speculative.losers.contains(&batch)
    }

    /// The end of a batch that could not be done does not count where its twin was done or still may
    /// be; `None` where it counts.
    pub(super) fn aside(&mut self, batch: u32) -> Option<Step> {
        if self.ignores(batch) {
            Some(Step::end(BatchOutcome::Cancelled))
        } else {
            self.speculative.leave(batch).then(|| Step::end(BatchOutcome::Error))
        }
    }
}
