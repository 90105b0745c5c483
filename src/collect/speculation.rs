//! When a late batch gets a speculative run in a second sandbox, so that one slow or stuck sandbox does not hold
//! up the end of the run. A pure rule: it is told what happens and when, and reads no clock.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::event::Event;
use crate::model::{Batch, Origin, Suite};

/// One planned batch in this many may get a speculative run, rounded up.
const ONE_IN: usize = 20;
/// How much longer than expected a batch must run, at least, before it is late: processes start with jitter, and
/// less is not worth a second run.
const LEAST: Duration = Duration::from_secs(1);

/// What the rule depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeculationRule {
    /// How long a batch takes besides its tests.
    pub overhead: Duration,
}

/// A batch that runs and may get a speculative run.
#[derive(Clone, Debug)]
struct Running {
    batch: Batch,
    since: Duration,
}

/// A batch whose speculative run is to start now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The batch.
    pub batch: Batch,
    /// How long it has been running.
    pub elapsed: Duration,
}

/// The state of the run as far as the rule needs it. All times count from the start of the run.
#[derive(Clone, Debug)]
pub struct Speculation<'a> {
    suite: &'a Suite,
    overhead: Duration,
    /// How many more speculative runs are allowed.
    left: usize,
    /// Number of queued batches.
    waiting: usize,
    /// Workers with an idle sandbox.
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

    /// Records what happened at `now`.
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
            // Its sandbox is gone; the worker reports when it has another.
            Event::Lost { batch, .. } => {
                self.candidates.remove(&batch.index);
            }
            Event::Dropped { .. } => self.waiting = self.waiting.saturating_sub(1),
            Event::Retired { slot, .. } | Event::Released { slot } | Event::Emptied { slot } => {
                self.idle.remove(slot);
            }
            Event::Settled | Event::Tick => {}
        }
    }

    /// More batches were queued.
    pub fn queued(&mut self, batches: usize) {
        self.waiting += batches;
    }

    /// The run is stopping: no more speculative runs.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// The batch that is to get a speculative run at `now`, if any: only if the queue is empty, a worker is idle
    /// and the limit is not reached. Of several late batches it is the one furthest beyond its estimate. The
    /// speculative run counts as queued, and the batch is not returned again.
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

    /// How long a batch may run: 1.5 times its estimate, or three overheads more, or a second more, whichever is
    /// longest.
    fn patience(&self, estimate: Duration) -> Duration {
        let more = (estimate / 2).max(self.overhead.saturating_mul(3)).max(LEAST);
        estimate.saturating_add(more)
    }
}

/// Whether every test of the batch has been measured before.
fn is_measured(suite: &Suite, batch: &Batch) -> bool {
    batch.tests.iter().all(|index| suite.test(*index).measured)
}

#[cfg(test)]
mod tests;
