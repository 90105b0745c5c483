//! The result of a run: a verdict for each test, totals, the exit status.

use std::time::Duration;

use crate::error::Status;
use crate::model::{Attempt, Outcome, Reason, Verdict};

/// A result for a test that was not discovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The name in the report.
    pub name: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// What was wrong, if known.
    pub message: Option<String>,
}

/// How many tests have each verdict. Every test counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed at once.
    pub passed: usize,
    /// Passed after a failure.
    pub flaky: usize,
    /// Failed, errored or timed out.
    pub failed: usize,
    /// Skipped by the runner.
    pub skipped: usize,
    /// Failed as expected (they have the verdict skipped).
    pub expected_failures: usize,
    /// Without a result.
    pub not_run: usize,
}

/// How long a batch took that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchTiming {
    /// How long the whole batch took.
    pub elapsed: Duration,
    /// The sum of its tests' durations.
    pub tests: Duration,
    /// How many files its tests are in.
    pub files: u32,
}

/// The result of a run. `verdicts` and `attempts` are in the order of the suite's tests.
#[derive(Clone, Debug)]
pub struct Summary {
    /// A verdict for each test.
    pub verdicts: Vec<Verdict>,
    /// The attempts at each test.
    pub attempts: Vec<Vec<Attempt>>,
    /// Results for tests that were not discovered.
    pub extras: Vec<Extra>,
    /// Errors outside tests; with any of these the run has failed.
    pub errors: Vec<Reason>,
    /// What the suite recorded: names and values.
    pub properties: Vec<(String, String)>,
    /// Batches whose runner broke and whose tests ran again: if all pass, the run is still flaky.
    pub broken: Vec<Reason>,
    /// Totals.
    pub counts: Counts,
}

/// The verdict of a test.
///
/// A test is flaky if it passed after a failure and may be retried. With a single attempt
/// (`retry_count = 0`) a failure stays a failure.
pub fn judge(attempts: &[Attempt], max_attempts: u32, reason: Option<&Reason>) -> Verdict {
    let has = |wanted: fn(Outcome) -> bool| attempts.iter().any(|attempt| wanted(attempt.result.outcome));
    let passed = attempts.last().is_some_and(|last| last.result.outcome == Outcome::Passed);
    if attempts.is_empty() {
        Verdict::NotRun(reason.cloned().unwrap_or_else(|| "it was not started".into()))
    } else if has(Outcome::is_bad) {
        if passed && max_attempts > 1 { Verdict::Flaky } else { Verdict::Failed }
    } else if attempts.iter().any(|attempt| attempt.result.flaky_in_runner) {
        Verdict::Flaky
    } else if has(|outcome| outcome == Outcome::Passed) {
        Verdict::Passed
    } else {
        Verdict::Skipped
    }
}

impl Summary {
    /// Counts the verdicts.
    pub fn new(
        verdicts: Vec<Verdict>,
        attempts: Vec<Vec<Attempt>>,
        extras: Vec<Extra>,
        errors: Vec<Reason>,
    ) -> Summary {
        let mut counts = Counts::default();
        for (verdict, attempts) in verdicts.iter().zip(&attempts) {
            let expected = |attempt: &Attempt| attempt.result.outcome == Outcome::ExpectedFailure;
            let counter = match verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Flaky => &mut counts.flaky,
                Verdict::Failed => &mut counts.failed,
                Verdict::Skipped if attempts.iter().any(expected) => &mut counts.expected_failures,
                Verdict::Skipped => &mut counts.skipped,
                Verdict::NotRun(_) => &mut counts.not_run,
            };
            *counter += 1;
        }
        let (properties, broken) = (Vec::new(), Vec::new());
        Summary { verdicts, attempts, extras, errors, properties, broken, counts }
    }

    /// All tests as one, for runners that report only an exit status.
    #[must_use]
    pub fn as_one(&self) -> Summary {
        let worst = |verdict: &Verdict| match verdict {
            Verdict::Skipped => 0,
            Verdict::Passed => 1,
            Verdict::Flaky => 2,
            Verdict::NotRun(_) => 3,
            Verdict::Failed => 4,
        };
        let Some(place) = (0..self.verdicts.len()).max_by_key(|place| worst(&self.verdicts[*place])) else {
            return self.clone();
        };
        let mut attempts = self.attempts[place].clone();
        let total: Duration = self.attempts.iter().flatten().map(|attempt| attempt.result.duration).sum();
        if let Some(last) = attempts.last_mut() {
            last.result.duration = total;
        }
        let one = Summary::new(
            vec![self.verdicts[place].clone()],
            vec![attempts],
            self.extras.clone(),
            self.errors.clone(),
        );
        Summary { broken: self.broken.clone(), properties: self.properties.clone(), ..one }
    }

    /// The exit status of a run that was not interrupted.
    pub fn status(&self) -> Status {
        if !self.errors.is_empty() || self.counts.failed > 0 || self.counts.not_run > 0 {
            Status::Failed
        } else if self.counts.flaky > 0 || !self.broken.is_empty() {
            Status::Flaky
        } else {
            Status::Passed
        }
    }
}
