//! What workers tell the collector, and what it answers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{Batch, Exit};

/// One batch, executed to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// How its command ended.
    pub exit: Exit,
    /// How long the command ran.
    pub elapsed: Duration,
    /// How long all of it took, with what was done around the command.
    pub whole: Duration,
    /// Whether the command left processes behind.
    pub leaked: bool,
    /// The report on this machine; `None` where the command writes none. It may not exist.
    pub report: Option<PathBuf>,
    /// When the command ended; known only where a timeline is wanted.
    pub ended: Option<Instant>,
}

/// Something that happened in a run. `slot` is the number of the worker, from 0.
#[derive(Debug)]
pub enum Event {
    /// A sandbox is there.
    Ready {
        /// The worker.
        slot: usize,
    },
    /// A batch has been started.
    Started {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
    },
    /// A batch has been executed, whatever it gave.
    Finished {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// What it gave.
        execution: Execution,
    },
    /// A batch could not be executed because its sandbox failed; it is to run elsewhere.
    Lost {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// What went wrong.
        error: String,
    },
    /// No sandbox can start the command of this batch: it is too long, or no command at all.
    Refused {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// What is wrong with it.
        error: String,
    },
    /// A batch will not be executed: the run stops, no sandbox is left, or it was abandoned.
    Dropped {
        /// The batch.
        batch: Batch,
        /// Why not.
        reason: String,
    },
    /// A worker has given up: its sandbox cannot be made, or fails again and again.
    Retired {
        /// The worker.
        slot: usize,
        /// What went wrong.
        error: String,
    },
    /// A worker has left with its sandbox: nothing can come for it any more.
    Released {
        /// The worker.
        slot: usize,
    },
    /// Nothing is left to execute: the results are final. Sandboxes may still be there.
    Settled,
    /// Nothing happened for a while.
    Tick,
}

/// What follows from an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// Batches to execute, before all that waits.
    pub batches: Vec<Batch>,
    /// The number of a batch that waits or runs and is not wanted any more: it is not started, or ended
    /// at once. Its end is still told, as that of any other.
    pub abandon: Option<u32>,
}
