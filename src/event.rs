//! What the dispatcher tells the collector, and what the collector answers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{Batch, Exit};

/// What is in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// JUnit, in the dialect of the runner.
    JUnit,
    /// The record of a reporter of ours.
    Record,
}

/// A report of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFile {
    /// Its path.
    pub path: PathBuf,
    /// What is in it.
    pub format: ReportFormat,
}

impl ReportFile {
    /// A JUnit report at `path`.
    pub fn junit(path: impl Into<PathBuf>) -> ReportFile {
        ReportFile { path: path.into(), format: ReportFormat::JUnit }
    }

    /// A record at `path`.
    pub fn record(path: impl Into<PathBuf>) -> ReportFile {
        ReportFile { path: path.into(), format: ReportFormat::Record }
    }
}

/// One batch, executed to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// How its command ended.
    pub exit: Exit,
    /// How long the command ran.
    pub elapsed: Duration,
    /// How long everything took, including what was done before and after the command.
    pub whole: Duration,
    /// Whether the command left processes behind.
    pub leaked: bool,
    /// The report on this machine, which may not exist; `None` if the command writes no report.
    pub report: Option<ReportFile>,
    /// When the command ended; known only if a timeline is recorded.
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
    /// A batch was executed, whatever its results.
    Finished {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// How that went.
        execution: Execution,
    },
    /// A batch could not be executed because its sandbox failed.
    Lost {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// What went wrong.
        error: String,
    },
    /// No sandbox can start the command of this batch: it is too long, or not a command at all.
    Refused {
        /// The worker.
        slot: usize,
        /// The batch.
        batch: Batch,
        /// What is wrong with it.
        error: String,
    },
    /// A batch will not be executed: the run is stopping, no sandbox is left, or it was abandoned.
    Dropped {
        /// The batch.
        batch: Batch,
        /// Why not.
        reason: String,
    },
    /// A worker has no sandbox any more: it was of no more use, and is destroyed.
    Emptied {
        /// The worker.
        slot: usize,
    },
    /// A worker gave up: its sandbox cannot be made, or failed again and again.
    Retired {
        /// The worker.
        slot: usize,
        /// What went wrong.
        error: String,
    },
    /// A worker was told to leave, since no more work can reach it.
    Released {
        /// The worker.
        slot: usize,
    },
    /// Nothing is left to execute: the results are final. Sandboxes may still exist.
    Settled,
    /// Nothing happened for a while.
    Tick,
}

/// What follows from an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// Batches to execute before everything that is queued.
    pub batches: Vec<Batch>,
    /// The number of a batch that is not needed any more: it is removed from the queue, or ended at once. Its
    /// end is still reported.
    pub abandon: Option<u32>,
}
