//! The nouns of a run: tests, groups, batches, attempts, outcomes, verdicts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod suite;

pub use suite::{Estimate, Listed, Suite, TestCase};

/// Identifies a test in discovery, history and reports, and to the user. An opaque text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestId(Arc<str>);

impl TestId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for TestId {
    fn from(text: T) -> TestId {
        TestId(text.into())
    }
}

impl std::borrow::Borrow<str> for TestId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The index of a test in its [`Suite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestIndex(pub u32);

/// The index of a group in its [`Suite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u16);

/// Tests that share filters and a retry policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The filters, as configured.
    pub filters: String,
    /// The number of retries, plus 1.
    pub max_attempts: u32,
    /// Whether each test gets its own batch.
    pub solo: bool,
}

/// Which tests of a group run in one batch, in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepTogether {
    /// Only those of which the project itself says so.
    #[default]
    Test,
    /// Those of a class too, or what is a class to the framework; of a file, where they are in none.
    Class,
    /// Those of a file too.
    File,
}

/// A group that has a maximum number of batches at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimit {
    /// The group.
    pub group: GroupIndex,
    /// The maximum, at least 1.
    pub most: usize,
}

/// Why a batch exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As part of the plan.
    Planned,
    /// To retry failed tests.
    Retry,
    /// To run tests again that got no result in a broken batch.
    Isolated,
    /// As a speculative run of a late batch, or to replace the late one; gets no speculative run itself.
    Speculative,
}

/// Tests that run in one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number, from 0.
    pub index: u32,
    /// The group of all its tests.
    pub group: GroupIndex,
    /// The tests, in discovery order.
    pub tests: Vec<TestIndex>,
    /// Other tests that run with them, since they come before some of them and stay together with these. Their results
    /// do not count. In discovery order.
    pub companions: Vec<TestIndex>,
    /// The expected duration.
    pub load: Duration,
    /// Why it exists.
    pub origin: Origin,
}

impl Batch {
    /// All tests that run, in discovery order.
    pub fn all(&self) -> Vec<TestIndex> {
        let mut all = [&self.tests[..], &self.companions].concat();
        all.sort_unstable();
        all
    }
}

/// The outcome of an attempt, in ascending rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The runner skipped it.
    Skipped,
    /// It failed as expected (pytest's xfail).
    ExpectedFailure,
    /// It passed.
    Passed,
    /// Its batch timed out.
    TimedOut,
    /// Something other than the test failed: a fixture, the runner, its process.
    Errored,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Whether the test may be retried.
    pub fn is_bad(self) -> bool {
        matches!(self, Outcome::TimedOut | Outcome::Errored | Outcome::Failed)
    }
}

/// Where a runner says that a test is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file, as the runner names it.
    pub file: String,
    /// The line in it, from 1.
    pub line: Option<u32>,
}

/// The texts of a result; most results have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The `type` of the failure, e.g. `pytest.skip` or `AssertionError`.
    pub kind: Option<String>,
    /// The reason, in one line.
    pub message: Option<String>,
    /// A longer text, e.g. a backtrace.
    pub text: Option<String>,
    /// The stdout of the test, possibly shortened.
    pub stdout: Option<String>,
    /// The stderr of the test, possibly shortened.
    pub stderr: Option<String>,
    /// Its file and line, if its runner reports them.
    pub place: Option<Place>,
    /// What the test recorded: names and values.
    pub properties: Vec<(String, String)>,
    /// Whether this comes from `offload`, because the runner did not report the test.
    pub is_stated: bool,
}

impl Details {
    /// The total size of the texts in bytes.
    pub fn size(&self) -> usize {
        let texts = [&self.kind, &self.message, &self.text, &self.stdout, &self.stderr];
        let properties = self.properties.iter().map(|(name, value)| name.len() + value.len());
        texts.into_iter().flatten().map(String::len).chain(properties).sum()
    }
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The outcome.
    pub outcome: Outcome,
    /// The duration.
    pub duration: Duration,
    /// Whether it passed only in one of the runner's own retries.
    pub flaky_in_runner: bool,
    /// The texts, if any.
    pub details: Option<Box<Details>>,
}

impl CaseResult {
    /// A result without texts.
    pub fn new(outcome: Outcome, duration: Duration) -> CaseResult {
        CaseResult { outcome, duration, flaky_in_runner: false, details: None }
    }

    /// A result that comes from `offload` rather than the runner, with a message.
    pub fn stated(outcome: Outcome, duration: Duration, message: impl Into<String>) -> CaseResult {
        let details = Details { message: Some(message.into()), is_stated: true, ..Details::default() };
        CaseResult { details: Some(Box::new(details)), ..CaseResult::new(outcome, duration) }
    }

    /// The one-line message.
    pub fn message(&self) -> Option<&str> {
        self.details.as_ref()?.message.as_deref()
    }

    /// What to show of a failure: the message, or the text if it starts with the message, or else the text or the
    /// kind.
    pub fn headline(&self) -> Option<&str> {
        let details = self.details.as_ref()?;
        let text = details.text.as_deref().map(str::trim_start).filter(|text| !text.is_empty());
        let message = details.message.as_deref().filter(|message| !message.trim().is_empty());
        match (message, text) {
            (Some(message), Some(text)) if text.starts_with(message.trim()) => Some(text),
            (Some(message), _) => Some(message),
            (None, text) => text.or(details.kind.as_deref()),
        }
    }
}

/// An attempt at a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number, from 1.
    pub number: u32,
    /// The number of its batch.
    pub batch: u32,
    /// The result.
    pub result: CaseResult,
}

/// The final result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed at the first attempt.
    Passed,
    /// Passed, but only after a failure.
    Flaky,
    /// No attempt passed.
    Failed,
    /// Skipped by the runner, or failed as expected.
    Skipped,
    /// No attempt has a result, for this reason.
    NotRun(Reason),
}

/// What went wrong, apart from the result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The cause; the same cause has the same text in all batches.
    pub text: Arc<str>,
    /// The batch whose logs have details.
    pub batch: Option<u32>,
}

impl Reason {
    /// A reason that the logs of `batch` explain.
    pub fn of_batch(batch: u32, text: impl Into<Arc<str>>) -> Reason {
        Reason { text: text.into(), batch: Some(batch) }
    }
}

impl<T: Into<Arc<str>>> From<T> for Reason {
    fn from(text: T) -> Reason {
        Reason { text: text.into(), batch: None }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal, which `offload` did not send.
    Signal(i32),
    /// Ended by `offload` because it timed out.
    TimedOut,
    /// Ended by `offload` because the run was stopped.
    Cancelled,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(formatter, "exit code {code}"),
            Exit::Signal(signal) => write!(formatter, "signal {signal}"),
            Exit::TimedOut => formatter.write_str("timed out"),
            Exit::Cancelled => formatter.write_str("cancelled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_is_the_message_or_the_text_that_continues_it() {
        let headline = |message: Option<&str>, text: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let details = Details {
                kind: own(Some("kind")),
                message: own(message),
                text: own(text),
                ..Details::default()
            };
            let result = CaseResult::new(Outcome::Failed, Duration::ZERO);
            let result = CaseResult { details: Some(Box::new(details)), ..result };
            result.headline().map(str::to_owned)
        };
        assert_eq!(headline(Some("at 1"), Some("\nat 1\nwanted 2")).as_deref(), Some("at 1\nwanted 2"));
        assert_eq!(headline(Some("wanted 2"), Some("at 1\nwanted 2")).as_deref(), Some("wanted 2"));
        assert_eq!(headline(Some(""), Some("at 1")).as_deref(), Some("at 1"));
        assert_eq!(headline(None, None).as_deref(), Some("kind"));
    }
}
