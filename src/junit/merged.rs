//! Reads the merged report back.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

use super::case::Record;
use super::read::{Caps, ReadEnd, read_records};
use super::{NOT_RUN_TYPE, TIMEOUT_TYPE};
use crate::model::{CaseResult, Outcome};

/// The word for a test's result in lists and banners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Passed at the first attempt.
    Passed,
    /// Failed.
    Failed,
    /// Failed outside the test itself, e.g. in a fixture.
    Errored,
    /// Passed after a failure.
    Flaky,
    /// Skipped by the runner.
    Skipped,
    /// Failed as expected.
    ExpectedFailure,
    /// Still running when its batch timed out.
    TimedOut,
    /// Without a result.
    NotRun,
    /// An error of the run rather than a test.
    RunError,
}

impl Word {
    /// The word for the result of a case in a merged report.
    pub fn of(result: &CaseResult) -> Word {
        let kind = result.details.as_ref().and_then(|details| details.kind.as_deref());
        match result.outcome {
            Outcome::Passed if result.flaky_in_runner => Word::Flaky,
            Outcome::Passed => Word::Passed,
            Outcome::Skipped => Word::Skipped,
            Outcome::ExpectedFailure => Word::ExpectedFailure,
            Outcome::Failed => Word::Failed,
            Outcome::TimedOut => Word::TimedOut,
            Outcome::Errored if kind == Some(TIMEOUT_TYPE) => Word::TimedOut,
            Outcome::Errored if kind == Some(NOT_RUN_TYPE) => Word::NotRun,
            Outcome::Errored => Word::Errored,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Word::Passed => "PASSED",
            Word::Failed => "FAILED",
            Word::Errored => "ERROR",
            Word::Flaky => "FLAKY",
            Word::Skipped => "SKIPPED",
            Word::ExpectedFailure => "XFAILED",
            Word::TimedOut => "TIMED OUT",
            Word::NotRun => "NOT RUN",
            Word::RunError => "RUN ERROR",
        })
    }
}

/// A test in the merged report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The id, exactly as discovered.
    pub id: String,
    /// How it ended.
    pub word: Word,
    /// The result with its texts; for a flaky test, those of its first failure.
    pub result: CaseResult,
    /// The batch numbers of its attempts, in order; empty in reports of other tools.
    pub batches: Vec<u32>,
}

impl From<Record> for Recorded {
    fn from(record: Record) -> Recorded {
        let Record { case, id, batches, is_run_error } = record;
        let word = if is_run_error { Word::RunError } else { Word::of(&case.result) };
        Recorded { id: id.unwrap_or(case.name), word, result: case.result, batches }
    }
}

/// Reads a merged report and hands out each test, in order, until `each` breaks.
pub fn read_merged(
    mut input: impl Read,
    caps: Caps,
    each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
) -> ReadEnd {
    read_records(&mut input, caps, &mut |record| each(record.into()))
}

/// The durations of the tests that passed, including flaky ones, in a merged report. A broken report gives as many as
/// can be read.
pub fn previous_durations(input: impl Read) -> HashMap<String, Duration> {
    let mut durations = HashMap::new();
    read_merged(input, Caps { text: 0 }, &mut |test| {
        if test.result.outcome == Outcome::Passed {
            durations.insert(test.id, test.result.duration);
        }
        ControlFlow::Continue(())
    });
    durations
}
