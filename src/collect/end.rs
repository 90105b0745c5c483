//! How an execution ended, and what that means for tests without a result of their own.

use std::time::Duration;

use super::Reading;
use crate::event::Execution;
use crate::framework::Meaning;
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
        self.failed && is_finished && self.reading.meaning.is_explained_by_failures()
    }

    /// How the runner ended.
    pub(super) fn how(&self) -> String {
        match self.execution.exit {
            Exit::TimedOut => timed_out_after(self.execution.elapsed),
            Exit::Cancelled => "the run was stopped while it was running".into(),
            exit @ (Exit::Code(_) | Exit::Signal(_)) => {
                let means = self.reading.meaning.text().filter(|_| exit != Exit::Code(0));
                let means = means.map(|text| format!(" ({text})")).unwrap_or_default();
                format!("the runner ended with {exit}{means}")
            }
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
        if let Some(blocked) = &self.reading.blocked {
            return blocked.clone();
        }
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

/// Deals with tests that the runner ended because it had to end: they timed out. One that had run for less than half of
/// the time may just have been the last one, and what a cancel ended has no result.
pub(super) fn settle_ended(batch: &Batch, execution: &Execution, reading: &mut Reading) {
    let Reading { found, ended, .. } = reading;
    let is_over = execution.exit == Exit::TimedOut;
    if !is_over && execution.exit != Exit::Cancelled {
        return;
    }
    found.retain_mut(|(index, result)| {
        if !ended.contains(index) || !result.outcome.is_bad() {
            return true;
        }
        let is_short = result.duration * 2 < execution.elapsed && batch.tests.len() > 1;
        if is_short || !is_over {
            return false;
        }
        let details = result.details.get_or_insert_default();
        let how = details.message.replace(timed_out_after(execution.elapsed));
        details.text = details.text.take().or(how);
        details.kind = None;
        result.outcome = Outcome::TimedOut;
        true
    });
}

fn timed_out_after(elapsed: Duration) -> String {
    format!("timed out after {:.1} s", elapsed.as_secs_f64())
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
    Reading { found, meaning: Meaning::TestsFailed, ..Reading::default() }
}
