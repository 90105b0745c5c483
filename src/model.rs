//! The nouns of a run: tests, groups, batches, attempts, outcomes, verdicts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

/// One discovered test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCase {
    /// The id.
    pub id: TestId,
    /// The group whose filters it runs with.
    pub group: GroupIndex,
    /// Its file, relative to the working directory; `None` if the framework has no files.
    pub file: Option<Arc<str>>,
    /// How often it may run, at least 1; the maximum over its groups.
    pub max_attempts: u32,
    /// Whether it gets its own batch.
    pub solo: bool,
    /// The expected duration.
    pub expected: Duration,
    /// Whether `expected` comes from earlier runs of this test, not from other tests or a default.
    pub measured: bool,
}

/// How long a test is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The expected duration.
    pub duration: Duration,
    /// Whether it comes from earlier runs of this test.
    pub measured: bool,
}

impl TestCase {
    /// The id without parameters: the part before the first `[`.
    pub fn family(&self) -> &str {
        self.id.as_str().split('[').next().unwrap_or_default()
    }
}

/// All tests of a run in discovery order, and their groups in file order.
#[derive(Clone, Debug, Default)]
pub struct Suite {
    tests: Vec<TestCase>,
    groups: Vec<Group>,
    by_id: HashMap<TestId, TestIndex>,
    by_file: HashMap<Arc<str>, Vec<TestIndex>>,
    shared: Vec<(GroupIndex, TestIndex)>,
}

impl Suite {
    /// A suite without tests.
    pub fn new(groups: Vec<Group>) -> Suite {
        Suite { groups, ..Suite::default() }
    }

    /// Adds a test that `group` lists, in `file`. Returns `false` if the test is known already: it stays in the
    /// group that listed it first, with the larger number of attempts.
    pub fn add(&mut self, group: GroupIndex, id: TestId, file: Option<Arc<str>>) -> bool {
        let Group { max_attempts, solo, .. } = self.groups[usize::from(group.0)];
        if let Some(&known) = self.by_id.get(&id) {
            let test = &mut self.tests[known.0 as usize];
            test.max_attempts = test.max_attempts.max(max_attempts);
            test.solo |= solo;
            if test.group != group {
                self.shared.push((group, known));
            }
            return false;
        }
        let index = TestIndex(u32::try_from(self.tests.len()).unwrap_or(u32::MAX));
        self.by_id.insert(id.clone(), index);
        if let Some(file) = &file {
            self.by_file.entry(Arc::clone(file)).or_default().push(index);
        }
        self.tests.push(TestCase {
            id,
            group,
            file,
            max_attempts,
            solo,
            expected: Duration::ZERO,
            measured: false,
        });
        true
    }

    /// Sets the estimate of each test.
    pub fn expect(&mut self, mut estimate: impl FnMut(&TestCase) -> Estimate) {
        for test in &mut self.tests {
            Estimate { duration: test.expected, measured: test.measured } = estimate(test);
        }
    }

    /// The test at `index`.
    pub fn test(&self, index: TestIndex) -> &TestCase {
        &self.tests[index.0 as usize]
    }

    /// The group at `index`.
    pub fn group(&self, index: GroupIndex) -> &Group {
        &self.groups[usize::from(index.0)]
    }

    /// The groups in file order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The tests in discovery order.
    pub fn tests(&self) -> &[TestCase] {
        &self.tests
    }

    /// The indices of all tests, in discovery order.
    pub fn indices(&self) -> impl Iterator<Item = TestIndex> + use<> {
        (0..u32::try_from(self.tests.len()).unwrap_or(u32::MAX)).map(TestIndex)
    }

    /// The index of the test `id`.
    pub fn find(&self, id: &str) -> Option<TestIndex> {
        self.by_id.get(id).copied()
    }

    /// The tests of a file that `group` lists, including those that run with another group.
    pub fn listed_in<'a>(&'a self, group: GroupIndex, file: &'a str) -> impl Iterator<Item = &'a TestCase> {
        let inside = self.by_file.get(file).into_iter().flatten().map(|index| self.test(*index));
        let elsewhere = self.runs_elsewhere(group).filter(move |test| test.file.as_deref() == Some(file));
        inside.filter(move |test| test.group == group).chain(elsewhere)
    }

    /// The tests that `group` lists but that run with another group, which listed them first.
    pub fn runs_elsewhere(&self, group: GroupIndex) -> impl Iterator<Item = &TestCase> {
        self.shared.iter().filter(move |(lister, _)| *lister == group).map(|(_, index)| self.test(*index))
    }
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
    /// The expected duration.
    pub load: Duration,
    /// Why it exists.
    pub origin: Origin,
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
    /// Whether this comes from `offload`, because the runner did not report the test.
    pub is_stated: bool,
}

impl Details {
    /// The total size of the texts in bytes.
    pub fn size(&self) -> usize {
        let texts = [&self.kind, &self.message, &self.text, &self.stdout, &self.stderr];
        texts.into_iter().flatten().map(String::len).sum()
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

    fn group(name: &str, max_attempts: u32, solo: bool) -> Group {
        Group { name: name.into(), filters: String::new(), max_attempts, solo }
    }

    #[test]
    fn a_test_of_two_groups_is_one_test_with_the_larger_number_of_attempts() {
        let mut suite = Suite::new(vec![group("a", 1, true), group("b", 3, false)]);
        assert!(suite.add(GroupIndex(0), "t::x[1]".into(), None));
        assert!(!suite.add(GroupIndex(1), "t::x[1]".into(), None));
        let test = suite.test(TestIndex(0));
        assert_eq!((suite.tests().len(), test.max_attempts, test.solo), (1, 3, true));
        assert_eq!(test.family(), "t::x");
        assert_eq!(suite.runs_elsewhere(GroupIndex(1)).count(), 1);
        assert_eq!(suite.runs_elsewhere(GroupIndex(0)).count(), 0);

        let mut suite = Suite::new(vec![group("a", 1, false), group("b", 1, true)]);
        for (listing, solo) in [(0, false), (0, false), (1, true)] {
            suite.add(GroupIndex(listing), "t".into(), None);
            assert_eq!((suite.tests().len(), suite.test(TestIndex(0)).solo), (1, solo));
        }
        // A test that a group lists twice still runs with that group.
        assert_eq!(suite.runs_elsewhere(GroupIndex(0)).count(), 0);
    }

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
