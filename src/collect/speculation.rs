//! When a late batch runs a second time beside itself, so that a slow or stuck sandbox does not hold up
//! the end of the run. A pure rule: it hears what happens and at what time, and reads no clock.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::event::Event;
use crate::model::{Batch, Origin, Suite};

/// One in so many planned batches may get a duplicate, rounded up.
const ONE_IN: usize = 20;
/// No batch is late before it has run so much longer than expected: processes start with jitter, and
/// less than that is not worth a second run.
const LEAST: Duration = Duration::from_secs(1);

/// What the rule depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeculationRule {
    /// What a batch takes besides its tests.
    pub overhead: Duration,
}

/// A batch that runs and may get a duplicate.
#[derive(Clone, Debug)]
struct Running {
    batch: Batch,
    since: Duration,
}

/// A batch that is to run a second time now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The batch.
    pub batch: Batch,
    /// How long it has been running.
    pub elapsed: Duration,
}

/// Keeps the state of the run as far as the rule needs it. All times are since the run's start.
#[derive(Clone, Debug)]
pub struct Speculation<'a> {
    suite: &'a Suite,
    overhead: Duration,
    /// How many more duplicates there may be.
    left: usize,
    /// Batches that are queued and not started.
    waiting: usize,
    /// Workers whose sandbox is ready and does nothing.
    idle: HashSet<usize>,
    candidates: BTreeMap<u32, Running>,
    stopped: bool,
}

impl<'a> Speculation<'a> {
    /// The rule for a run of `suite` that starts with `planned` batches in its queue.
    pub fn new(rule: SpeculationRule, suite: &'a Suite, planned: usize) -> Speculation<'a> {
        Speculation {
            suite,
            overhead: rule.overhead,
            left: planned.div_ceil(ONE_IN),
            waiting: planned,
            idle: HashSet::new(),
            candidates: BTreeMap::new(),
            stopped: false,
        }
    }

    /// Takes in what happened at `now`.
    pub fn hear(&mut self, event: &Event, now: Duration) {
        match event {
            Event::Ready { slot } => {
                self.idle.insert(*slot);
            }
            Event::Started { slot, batch } => {
                self.waiting = self.waiting.saturating_sub(1);
                self.idle.remove(slot);
                if batch.origin != Origin::Speculative && is_measured(self.suite, batch) {
                    self.candidates.insert(batch.index, Running { batch: batch.clone(), since: now });
                }
            }
            Event::Finished { slot, batch, .. } | Event::Refused { slot, batch, .. } => {
                self.idle.insert(*slot);
                self.candidates.remove(&batch.index);
            }
            // Its sandbox is gone: the worker is ready again when it says so.
            Event::Lost { batch, .. } => {
                self.candidates.remove(&batch.index);
            }
            Event::Dropped { .. } => self.waiting = self.waiting.saturating_sub(1),
            Event::Retired { slot, .. } | Event::Released { slot } => {
                self.idle.remove(slot);
            }
            Event::Settled | Event::Tick => {}
        }
    }

    /// So many more batches have been queued.
    pub fn queued(&mut self, batches: usize) {
        self.waiting += batches;
    }

    /// The run is stopping: nothing runs a second time any more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The batch to queue a duplicate of at `now`, if any: only where nothing waits, a worker is idle
    /// and the limit is not reached; of several late ones the one furthest beyond its estimate. The
    /// duplicate counts as queued, and the batch is not named again.
    pub fn late(&mut self, now: Duration) -> Option<Late> {
        if self.stopped || self.left == 0 || self.waiting > 0 || self.idle.is_empty() {
            return None;
        }
        let elapsed = |running: &Running| now.saturating_sub(running.since);
        let late = self.candidates.values().filter(|one| elapsed(one) > self.patience(one.batch.load));
        let latest = late.max_by_key(|one| elapsed(one).saturating_sub(one.batch.load))?.batch.index;
        let running = self.candidates.remove(&latest)?;
        self.left -= 1;
        self.waiting += 1;
        Some(Late { elapsed: elapsed(&running), batch: running.batch })
    }

    /// How long a batch may run: half as long again as expected, or three overheads more, or a second.
    fn patience(&self, estimate: Duration) -> Duration {
        let more = (estimate / 2).max(self.overhead.saturating_mul(3)).max(LEAST);
        estimate.saturating_add(more)
    }
}

/// Whether the estimate of a batch is more than a guess.
fn is_measured(suite: &Suite, batch: &Batch) -> bool {
    batch.tests.iter().all(|index| suite.test(*index).measured)
}

#[cfg(test)]
mod tests;
