//! The nouns of a run: tests, groups, batches, attempts, outcomes, verdicts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The name by which discovery, history, reports and users know a test. Opaque: any text.
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

/// The place of a test in its [`Suite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TestIndex(pub u32);

/// The place of a group in its [`Suite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u16);

/// Tests that are listed with the same filters and share a retry policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The filter text as configured.
    pub filters: String,
    /// 1 + retries.
    pub max_attempts: u32,
    /// Each test has a batch of its own.
    pub solo: bool,
}

/// One discovered test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCase {
    /// Its canonical name.
    pub id: TestId,
    /// The group whose filters select it when it runs.
    pub group: GroupIndex,
    /// The file that holds it, relative to the working directory, where the framework has files.
    pub file: Option<Arc<str>>,
    /// How often it may run, at least 1; the larger one of its groups.
    pub max_attempts: u32,
    /// It shares no batch with another test.
    pub solo: bool,
    /// How long it is expected to run.
    pub expected: Duration,
    /// Whether `expected` comes from earlier runs of this very test, not from those of others.
    pub measured: bool,
}

/// How long a test is expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The expected duration.
    pub duration: Duration,
    /// Whether it comes from earlier runs of the same test, not from other tests or a default.
    pub measured: bool,
}

impl TestCase {
    /// The id without its parameters: what stands before the first `[`.
    pub fn family(&self) -> &str {
        self.id.as_str().split('[').next().unwrap_or_default()
    }
}

/// All tests of a run, in discovery order, and their groups, in file order.
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

    /// Adds a test that `group` lists, in `file`. A test that another group listed before stays with
    /// that group and takes the larger number of attempts of both; then the answer is `false`.
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

    /// The places of all tests, in discovery order.
    pub fn indices(&self) -> impl Iterator<Item = TestIndex> + use<> {
        (0..u32::try_from(self.tests.len()).unwrap_or(u32::MAX)).map(TestIndex)
    }

    /// The place of the test called `id`.
    pub fn find(&self, id: &str) -> Option<TestIndex> {
        self.by_id.get(id).copied()
    }

    /// The tests of a file that `group` lists, with those that run with another group.
    pub fn listed_in<'a>(&'a self, group: GroupIndex, file: &'a str) -> impl Iterator<Item = &'a TestCase> {
        let inside = self.by_file.get(file).into_iter().flatten().map(|index| self.test(*index));
        let elsewhere = self.runs_elsewhere(group).filter(move |test| test.file.as_deref() == Some(file));
        inside.filter(move |test| test.group == group).chain(elsewhere)
    }

    /// Tests that `group` lists but that run with another group, which listed them first.
    pub fn runs_elsewhere(&self, group: GroupIndex) -> impl Iterator<Item = &TestCase> {
        self.shared.iter().filter(move |(lister, _)| *lister == group).map(|(_, index)| self.test(*index))
    }
}

/// Why a batch exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is part of the plan.
    Planned,
    /// Its tests failed before and run again.
    Retry,
    /// Its tests got no result in a batch that broke.
    Isolated,
    /// Another batch with the same tests is late, or was: it never gets a duplicate of its own.
    Speculative,
}

/// Tests that run together in one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its number in logs, from 0.
    pub index: u32,
    /// The group whose filters all its tests share.
    pub group: GroupIndex,
    /// Its tests, in the order of their discovery.
    pub tests: Vec<TestIndex>,
    /// How long it is expected to run.
    pub load: Duration,
    /// Why it exists.
    pub origin: Origin,
}

/// What one attempt at a test gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The runner left it out on purpose.
    Skipped,
    /// It failed as its author said it would (pytest's xfail).
    ExpectedFailure,
    /// It passed.
    Passed,
    /// The batch's deadline ended it.
    TimedOut,
    /// Something around it went wrong: a fixture, the runner, its process.
    Errored,
    /// It failed.
    Failed,
}

impl Outcome {
    /// Whether a test may run again after this.
    pub fn is_bad(self) -> bool {
        matches!(self, Outcome::TimedOut | Outcome::Errored | Outcome::Failed)
    }
}

/// The texts that came with a result; most results have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// The `type` of the failure, e.g. `pytest.skip` or `AssertionError`.
    pub kind: Option<String>,
    /// One line: what was wrong.
    pub message: Option<String>,
    /// The long text, e.g. a backtrace.
    pub text: Option<String>,
    /// What the test wrote to standard output, as far as kept.
    pub stdout: Option<String>,
    /// What the test wrote to standard error, as far as kept.
    pub stderr: Option<String>,
}

impl Details {
    /// How many bytes of text these are.
    pub fn size(&self) -> usize {
        let texts = [&self.kind, &self.message, &self.text, &self.stdout, &self.stderr];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// What it gave.
    pub outcome: Outcome,
    /// How long it took; never negative.
    pub duration: Duration,
    /// Whether the runner itself saw it fail first and pass on a try of its own.
    pub flaky_in_runner: bool,
    /// The texts that came with it.
    pub details: Option<Box<Details>>,
}

impl CaseResult {
    /// A result without texts.
    pub fn new(outcome: Outcome, duration: Duration) -> CaseResult {
        CaseResult { outcome, duration, flaky_in_runner: false, details: None }
    }

    /// A result that we state ourselves, with a message.
    pub fn stated(outcome: Outcome, duration: Duration, message: impl Into<String>) -> CaseResult {
        let details = Details { message: Some(message.into()), ..Details::default() };
        CaseResult { details: Some(Box::new(details)), ..CaseResult::new(outcome, duration) }
    }

    /// The one-line message, where there is one.
    pub fn message(&self) -> Option<&str> {
        self.details.as_ref()?.message.as_deref()
    }

    /// What to show first of a failure: the message, with what follows where it only begins the text;
    /// else the text or the kind.
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

/// One try at a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// The number of the batch in which it ran.
    pub batch: u32,
    /// What it gave.
    pub result: CaseResult,
}

/// What is said of a test at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Passed at the first attempt.
    Passed,
    /// Passed, but only after it had failed.
    Flaky,
    /// No attempt passed.
    Failed,
    /// Left out by the runner, or failed as expected.
    Skipped,
    /// No attempt has a result; the reason why.
    NotRun(String),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal, not sent by us.
    Signal(i32),
    /// By us, at its deadline.
    TimedOut,
    /// By us, because the run is to stop.
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
        // What a group lists twice is still its own.
        assert_eq!(suite.runs_elsewhere(GroupIndex(0)).count(), 0);
    }

    #[test]
    fn the_headline_is_the_message_or_what_goes_on_from_it() {
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
