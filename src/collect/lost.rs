//! Batches whose sandbox was lost. It may have died by itself, a test may have killed it (no memory left, the
//! machine goes down), or the provider may be broken.

use std::time::Duration;

use super::{BatchOutcome, Collector, PATIENCE, Step};
use crate::model::{Batch, CaseResult, Origin, Outcome, Reason};

/// A batch is divided at its second loss.
const TWICE: u32 = 2;
/// A test is the culprit at its third loss: the first may have been chance, or another test's fault.
const THRICE: u32 = 3;

impl Collector<'_> {
    /// The sandbox of a batch was lost. Unless its speculative run is still going, the batch runs again: first
    /// whole, then in parts. A test that loses its sandbox alone again and again gets an error, but only if
    /// anything has ever worked in a sandbox; otherwise the provider is to blame.
    pub fn lost(&mut self, batch: Batch, error: &str) -> Step {
        if let Some(step) = self.aside(batch.index) {
            return step;
        }
        for index in &batch.tests {
            self.states[index.0 as usize].reason = Some(Reason::of_batch(batch.index, error));
        }
        let losses = self.losses.remove(&batch.index).unwrap_or(0) + 1;
        let root = self.root(batch.index);
        let mut step = Step::end(BatchOutcome::Error);
        if self.trees.entry(root).or_default().is_hopeless_after(PATIENCE) {
            return step;
        }
        match batch.tests[..] {
            [index] if losses >= THRICE && self.works => {
                let message = format!("its sandbox was lost each time it ran: {error}");
                let result = CaseResult::stated(Outcome::Errored, Duration::ZERO, message);
                self.attempt(index, batch.index, result);
                self.retry(&batch, vec![index], &mut step);
                self.settle(&batch, &mut step);
            }
            [_, _, ..] if losses >= TWICE => {
                step.batches = self.divide(batch.group, &batch.tests, self.policy.machines, root);
            }
            _ => {
                step.batches = vec![self.again(batch, root)];
                self.losses.insert(step.batches[0].index, losses);
                return step;
            }
        }
        // They are suspects from the start.
        self.losses.extend(step.batches.iter().map(|batch| (batch.index, TWICE - 1)));
        step
    }

    /// The same batch under a new number.
    fn again(&mut self, batch: Batch, root: u32) -> Batch {
        let origin = if self.speculative.is_last(batch.index) { Origin::Speculative } else { batch.origin };
        Batch { index: self.number(root), origin, ..batch }
    }
}
