//! Batches whose sandbox is lost. It may have died by itself, a test may have taken it with it (no memory
//! is left, the machine goes down), or the provider may be broken.

use std::time::Duration;

use super::{BatchOutcome, Collector, PATIENCE, Step};
use crate::model::{Batch, CaseResult, Origin, Outcome, Reason};

/// At its second loss a batch is divided.
const TWICE: u32 = 2;
/// At its third loss a test is the culprit: the first may have been chance, or another test's.
const THRICE: u32 = 3;

impl Collector<'_> {
    /// Takes in a batch whose sandbox was lost. Unless its twin still runs, it runs again: at first as it
    /// is, then in parts. A test that is lost alone again and again gets an error, but only where anything
    /// ever worked in a sandbox: else it is the provider.
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
        // They are under suspicion from the start.
        self.losses.extend(step.batches.iter().map(|batch| (batch.index, TWICE - 1)));
        step
    }

    /// The same batch under another number.
    fn again(&mut self, batch: Batch, root: u32) -> Batch {
        let origin = if self.speculative.is_last(batch.index) { Origin::Speculative } else { batch.origin };
        Batch { index: self.number(root), origin, ..batch }
    }
}
