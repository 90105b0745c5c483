//! Reads our own merged report back.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;
use std::time::Duration;

use super::case::Record;
use super::read::{Caps, ReadEnd, read_records};
use super::{NOT_RUN_TYPE, TIMEOUT_TYPE};
use crate::model::{CaseResult, Outcome};

/// The word for a test in lists and banners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// Passed at the first attempt.
    Passed,
    /// Failed.
    Failed,
    /// Something around it went wrong.
    Errored,
    /// Passed after it had failed.
    Flaky,
    /// Left out by the runner.
    Skipped,
    /// Failed as expected.
    ExpectedFailure,
    /// Ended by the deadline of its batch.
    TimedOut,
    /// Has no result.
    NotRun,
    /// No test: an error of the run.
    RunError,
}

impl Word {
    /// The word for a case of a merged report.
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

/// What the merged report says of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The id, exactly as it was discovered.
    pub id: String,
    /// How it ended.
    pub word: Word,
    /// The result with its texts; of a flaky test those of its first failure.
    pub result: CaseResult,
    /// The batches of its attempts, in order; empty in reports that are not ours.
    pub batches: Vec<u32>,
}

impl From<Record> for Recorded {
    fn from(record: Record) -> Recorded {
        let Record { case, id, batches, is_run_error } = record;
        let word = if is_run_error { Word::RunError } else { Word::of(&case.result) };
        Recorded { id: id.unwrap_or(case.name), word, result: case.result, batches }
    }
}

/// Reads a merged report and hands out each test, in order, until `each` breaks off.
pub fn read_merged(
    input: impl Read,
    caps: Caps,
    each: &mut dyn FnMut(Recorded) -> ControlFlow<()>,
) -> ReadEnd {
    let mut input = input;
    read_records(&mut input, caps, &mut |record| each(record.into()))
}

/// How long the tests of a merged report took that passed, flaky ones included; of a broken report as
/// many as can be read.
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
