//! How an execution ended, and what that means for tests without a result of their own.

use super::Reading;
use crate::event::Execution;
use crate::model::{Batch, CaseResult, Exit, Outcome};

/// The end of an execution, with what is needed to judge it.
pub(super) struct End<'a> {
    pub(super) batch: &'a Batch,
    pub(super) execution: &'a Execution,
    pub(super) reading: &'a Reading,
    /// Whether the report has any failure, whichever test it is for.
    pub(super) failed: bool,
    /// Number of cases in the report.
    pub(super) cases: usize,
}

impl End<'_> {
    /// Whether what was reported explains why the runner did not end with status 0. A record tells that its runner came
    /// to the end; a wrapper may have changed the status since.
    pub(super) fn is_explained(&self) -> bool {
        let is_finished = self.reading.session.as_ref().is_none_or(|session| {
            matches!(self.execution.exit, Exit::Code(_)) && session.exit.is_some_and(|exit| exit != 0)
        });
        self.failed && is_finished
    }

    /// How the runner ended.
    pub(super) fn how(&self) -> String {
        match self.execution.exit {
            Exit::TimedOut => format!("timed out after {:.1} s", self.execution.elapsed.as_secs_f64()),
            Exit::Cancelled => "the run was stopped while it was running".into(),
            exit @ (Exit::Code(_) | Exit::Signal(_)) => format!("the runner ended with {exit}"),
        }
    }

    /// How the runner ended, said of a test that was running then.
    pub(super) fn how_running(&self) -> String {
        match self.execution.exit {
            Exit::TimedOut | Exit::Cancelled => self.how(),
            Exit::Code(_) | Exit::Signal(_) => format!("{} while this test was running", self.how()),
        }
    }

    /// Why a test of this batch has no result.
    pub(super) fn complaint(&self) -> String {
        let how = self.how();
        let what = match (&self.reading.error, self.reading.nearest.as_slice()) {
            _ if matches!(self.execution.exit, Exit::TimedOut | Exit::Cancelled) => String::new(),
            (Some(error), _) => format!("; {error}"),
            (None, []) => " without a result for this test".into(),
            (None, names) => {
                format!(" without a result for this test, but with one for {}", names.join(", "))
            }
        };
        format!("{how}{what}")
    }
}

/// Merges two cases of one report that are about the same test (a failure and a teardown error, subtests): the
/// worse outcome wins, and durations add up.
pub(super) fn merge(result: &mut CaseResult, other: &CaseResult) {
    let duration = result.duration.saturating_add(other.duration);
    let flaky = result.flaky_in_runner | other.flaky_in_runner;
    if other.outcome > result.outcome {
        *result = other.clone();
    }
    result.duration = duration;
    result.flaky_in_runner = flaky;
}

/// Gives every test of the batch the result that the exit status stands for.
pub(super) fn by_exit_status(batch: &Batch, execution: &Execution) -> Reading {
    let share = execution.elapsed / u32::try_from(batch.tests.len().max(1)).unwrap_or(u32::MAX);
    let result = match execution.exit {
        Exit::Code(0) => CaseResult::new(Outcome::Passed, share),
        Exit::Cancelled => return Reading::default(),
        exit => {
            let outcome = match exit {
                Exit::TimedOut => Outcome::TimedOut,
                Exit::Signal(_) => Outcome::Errored,
                Exit::Code(_) | Exit::Cancelled => Outcome::Failed,
            };
            CaseResult::stated(outcome, share, format!("the command ended with {exit}"))
        }
    };
    let found = batch.tests.iter().map(|index| (*index, result.clone())).collect();
    Reading { found, ..Reading::default() }
}
