//! JUnit XML, and the only user of the XML library: reads the dialects of many runners, writes the merged report and
//! reads it back. Callers open and replace the files.

mod case;
pub mod cut;
mod decode;
mod escape;
mod kept;
pub mod merged;
pub mod read;
#[cfg(test)]
mod tests;
mod tidy;
pub mod write;

use crate::model::CaseResult;

pub use merged::{Recorded, Word, previous_durations, read_merged};
pub use read::Caps;
pub use write::{Entry, RunError};

/// One `<testcase>` of a report, in any dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The attribute `classname`; empty if missing.
    pub classname: String,
    /// The attribute `name`.
    pub name: String,
    /// The outcome with its duration and texts.
    pub result: CaseResult,
}

/// The property for an id that XML cannot express, escaped by [`escape::reversible`].
const ID_PROPERTY: &str = "offload.id";
/// The property for the batch numbers of a test's attempts, in order, separated by spaces.
const BATCHES_PROPERTY: &str = "offload.batches";
/// The property that marks a case as an error of the run rather than a test.
const RUN_ERROR_PROPERTY: &str = "offload.run-error";
/// The `type` of an `<error>` for a test whose batch timed out.
const TIMEOUT_TYPE: &str = "timeout";
/// The `type` of an `<error>` for a test without a result.
const NOT_RUN_TYPE: &str = "not-run";
/// The `type` that pytest gives expected failures.
const XFAIL_TYPE: &str = "pytest.xfail";
