//! JUnit XML: the one user of the XML library. Reads the dialects of many runners, writes our merged
//! report and reads that back; opening and replacing files is left to the callers.

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

/// One `<testcase>` of a report, of whichever dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The attribute `classname`; empty where it is missing.
    pub classname: String,
    /// The attribute `name`.
    pub name: String,
    /// The attribute `file`, where there is one.
    pub file: Option<String>,
    /// What it gave.
    pub result: CaseResult,
}

/// The property of a case that holds an id which XML cannot express, escaped by [`escape::reversible`].
const ID_PROPERTY: &str = "offload.id";
/// The property of a case that holds the numbers of its attempts' batches, in order, with spaces between.
const BATCHES_PROPERTY: &str = "offload.batches";
/// The property of a case that is no test but an error of the run.
const RUN_ERROR_PROPERTY: &str = "offload.run-error";
/// The `type` of an `<error>` of a test that its batch's deadline ended.
const TIMEOUT_TYPE: &str = "timeout";
/// The `type` of an `<error>` of a test without a result.
const NOT_RUN_TYPE: &str = "not-run";
/// The `type` by which pytest marks an expected failure.
const XFAIL_TYPE: &str = "pytest.xfail";
