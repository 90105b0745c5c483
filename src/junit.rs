//! JUnit XML: the one user of the XML library.

pub mod read;
pub mod write;

use crate::model::CaseResult;

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
