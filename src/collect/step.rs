//! What the judge answers: what a batch came to, and what follows.

use crate::model::Batch;

/// What a batch came to, for the names of its logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Each of its tests has a result and none is bad.
    Success,
    /// A test failed.
    Failure,
    /// The runner or the sandbox broke.
    Error,
    /// The run stopped before it ended, or its twin was done first.
    Cancelled,
}

impl BatchOutcome {
    /// The ending of log files.
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
    /// Batches to execute, before all that waits.
    pub batches: Vec<Batch>,
    /// What the batch came to; `None` where no batch ended.
    pub outcome: Option<BatchOutcome>,
    /// The run is to stop: a test failed for good and the policy is to stop then.
    pub stop: bool,
    /// The twin of the batch, which is not wanted any more.
    pub abandon: Option<u32>,
}

impl Step {
    /// A batch ended, and nothing follows.
    pub(super) fn end(outcome: BatchOutcome) -> Step {
        Step { outcome: Some(outcome), ..Step::default() }
    }
}
