//! The collector's answer: the outcome of a batch, and what follows from it.

use crate::model::Batch;

/// The outcome of a batch, as in the names of its logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Every test has a result and none failed.
    Success,
    /// A test failed.
    Failure,
    /// The runner or the sandbox broke.
    Error,
    /// The run stopped before it ended, or its speculative run finished first.
    Cancelled,
}

impl BatchOutcome {
    /// The extension of its log files.
    pub fn word(self) -> &'static str {
        match self {
            BatchOutcome::Success => "success",
            BatchOutcome::Failure => "failure",
            BatchOutcome::Error => "error",
            BatchOutcome::Cancelled => "cancelled",
        }
    }
}

/// What follows from an event.
#[derive(Debug, Default)]
pub struct Step {
    /// Batches to execute before everything that is queued.
    pub batches: Vec<Batch>,
    /// The outcome of the batch; `None` if no batch ended.
    pub outcome: Option<BatchOutcome>,
    /// Stop the run: a test failed with no attempts left, and the policy is to stop then.
    pub stop: bool,
    /// The other batch of a speculative pair, which is not needed any more.
    pub abandon: Option<u32>,
}

impl Step {
    /// A batch ended and nothing follows.
    pub(super) fn end(outcome: BatchOutcome) -> Step {
        Step { outcome: Some(outcome), ..Step::default() }
    }
}
