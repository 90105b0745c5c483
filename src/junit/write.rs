//! Writes the merged report as a stream. Opening and renaming the file, and the clock, are left to the
//! caller.
//!
//! There is one `<testcase>` per test, named exactly as its ID. If an ID has characters that XML cannot
//! hold, they are U+FFFD in the name, and the property `offload.id` has the whole ID: with backslashes
//! doubled, and forbidden characters written as `\u{1b}`. The property `offload.batches` has the batch
//! numbers of the attempts of each test that did not pass at once.
//! Attempts follow the convention of surefire and nextest: a flaky test has a `<flakyFailure>` or
//! `<flakyError>` for each failed attempt; a failed test has the `<failure>` or `<error>` of its first
//! attempt, and a `<rerunFailure>` or `<rerunError>` for each later one. The case has the duration and
//! the output of the attempt that decided its result; the output of other attempts is in their elements.
//! Errors of the run are cases of a second suite, which counts in no other total; the property
//! `offload.run-error` marks them.

use std::io::{self, Write};
use std::time::Duration;

use super::cut::shorten;
use super::escape::{Place, escape, reversible};
use super::{BATCHES_PROPERTY, ID_PROPERTY, NOT_RUN_TYPE, RUN_ERROR_PROPERTY, TIMEOUT_TYPE, XFAIL_TYPE};
use crate::model::{Attempt, CaseResult, Details, Outcome, Verdict};

/// The longest text that is not cut: a message, a failure text, the output of one stream.
const LONGEST_TEXT: usize = 64 * 1024;
/// The name of the suite of all tests.
const SUITE: &str = "offload";
/// The name of the suite of errors of the run, and the `type` of these errors.
const ERRORS_SUITE: &str = "run-errors";
const RUN_ERROR_TYPE: &str = "run-error";
/// How much is buffered before it is passed on.
const BLOCK: usize = 64 * 1024;

/// A test of the merged report.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its id, any text.
    pub id: &'a str,
    /// Its file, which also becomes the class name.
    pub file: Option<&'a str>,
    /// Its line in that file, from 1.
    pub line: Option<u32>,
    /// Its group, the class name of tests without a file.
    pub group: &'a str,
    /// Its final verdict.
    pub verdict: &'a Verdict,
    /// Its attempts in order.
    pub attempts: &'a [Attempt],
}

/// An error outside tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunError {
    /// What went wrong; the name of its case.
    pub reason: String,
    /// Where, and what the logs say.
    pub text: String,
}

/// What the head of a report says; tests are counted, not attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All tests.
    pub tests: usize,
    /// Those with a `<failure>`.
    pub failures: usize,
    /// Those with an `<error>`: errored, timed out, not run.
    pub errors: usize,
    /// Those with `<skipped>`.
    pub skipped: usize,
    /// How long the run took.
    pub time: Duration,
}

impl Totals {
    /// Counts `entries`; `time` is how long the run took.
    pub fn count<'a>(entries: impl IntoIterator<Item = Entry<'a>>, time: Duration) -> Totals {
        let mut totals = Totals { time, ..Totals::default() };
        for entry in entries {
            totals.tests += 1;
            match Shown::of(&entry) {
                Shown::Passed { .. } => {}
                Shown::Skipped(_) => totals.skipped += 1,
                Shown::Bad(attempt) if is_failure(attempt) => totals.failures += 1,
                Shown::Bad(_) | Shown::Stated { .. } => totals.errors += 1,
            }
        }
        totals
    }
}

/// A name and a value that a test or a suite recorded.
pub type Property = (String, String);

/// What a report says besides its tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// How long the run took.
    pub time: Duration,
    /// What the suite recorded.
    pub properties: &'a [Property],
    /// Errors outside tests.
    pub errors: &'a [RunError],
}

/// Writes the report of a run, and flushes it. `entries` is called twice, for the totals
/// and for the tests, and must return the same both times.
///
/// # Errors
/// Those of `out`.
pub fn write<'a, Entries>(
    out: &mut dyn Write,
    frame: Frame<'_>,
    entries: impl Fn() -> Entries,
) -> io::Result<()>
where
    Entries: IntoIterator<Item = Entry<'a>>,
{
    let Frame { time, properties, errors } = frame;
    let totals = Totals::count(entries(), time);
    let mut page = Page { bytes: Vec::with_capacity(2 * BLOCK) };
    page.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    page.head("<testsuites", SUITE, &totals);
    page.head("  <testsuite", SUITE, &totals);
    if !properties.is_empty() {
        page.raw("    <properties>");
        page.recorded(properties);
        page.raw("</properties>\n");
    }
    for entry in entries() {
        page.entry(&entry);
        if page.bytes.len() >= BLOCK {
            out.write_all(&page.bytes)?;
            page.bytes.clear();
        }
    }
    page.raw("  </testsuite>\n");
    page.errors(errors);
    page.raw("</testsuites>\n");
    out.write_all(&page.bytes)?;
    out.flush()
}

/// What the case of a test shows.
enum Shown<'a> {
    /// The attempt that passed, where there is one.
    Passed { attempt: Option<&'a Attempt>, flaky: bool },
    /// The attempt that was skipped, where there is one.
    Skipped(Option<&'a Attempt>),
    /// The first attempt that went wrong.
    Bad(&'a Attempt),
    /// No attempt tells; kind and message do.
    Stated { kind: &'static str, message: &'a str },
}

impl<'a> Shown<'a> {
    fn of(entry: &Entry<'a>) -> Shown<'a> {
        let last = |wanted: fn(Outcome) -> bool| {
            entry.attempts.iter().rev().find(move |attempt| wanted(attempt.result.outcome))
        };
        match entry.verdict {
            Verdict::Passed | Verdict::Flaky => Shown::Passed {
                attempt: last(|outcome| outcome == Outcome::Passed),
                flaky: *entry.verdict == Verdict::Flaky,
            },
            Verdict::Skipped => {
                Shown::Skipped(last(|outcome| matches!(outcome, Outcome::Skipped | Outcome::ExpectedFailure)))
            }
            Verdict::Failed => match entry.attempts.iter().find(|attempt| attempt.result.outcome.is_bad()) {
                Some(attempt) => Shown::Bad(attempt),
                None => Shown::Stated { kind: "failed", message: "no attempt passed" },
            },
            Verdict::NotRun(reason) => Shown::Stated { kind: NOT_RUN_TYPE, message: &reason.text },
        }
    }

    fn attempt(&self) -> Option<&'a Attempt> {
        match self {
            Shown::Passed { attempt, .. } | Shown::Skipped(attempt) => *attempt,
            Shown::Bad(attempt) => Some(attempt),
            Shown::Stated { .. } => None,
        }
    }
}

/// XML that is being assembled in memory.
struct Page {
    bytes: Vec<u8>,
}

impl Page {
    fn raw(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn formatted(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory does not fail.
        let _ = self.bytes.write_fmt(text);
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.raw(" ");
        self.raw(name);
        self.raw("=\"");
        escape(value, Place::Value, &mut self.bytes);
        self.raw("\"");
    }

    /// Seconds with six decimals.
    fn time(&mut self, duration: Duration) {
        let micros = duration.saturating_add(Duration::from_nanos(500)).as_micros();
        self.formatted(format_args!(" time=\"{}.{:06}\"", micros / 1_000_000, micros % 1_000_000));
    }

    fn head(&mut self, start: &str, suite: &str, totals: &Totals) {
        let Totals { tests, failures, errors, skipped, time } = *totals;
        self.raw(start);
        self.attribute("name", suite);
        self.formatted(format_args!(
            " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\""
        ));
        self.time(time);
        self.raw(">\n");
    }

    fn errors(&mut self, errors: &[RunError]) {
        if errors.is_empty() {
            return;
        }
        let totals = Totals { tests: errors.len(), errors: errors.len(), ..Totals::default() };
        self.head("  <testsuite", ERRORS_SUITE, &totals);
        for RunError { reason, text } in errors {
            let reason = shorten(reason, LONGEST_TEXT);
            self.raw("    <testcase");
            self.attribute("name", &reason);
            self.attribute("classname", ERRORS_SUITE);
            self.raw(">\n      <properties><property");
            self.attribute("name", RUN_ERROR_PROPERTY);
            self.raw(" value=\"true\"/></properties>\n      <error");
            self.attribute("type", RUN_ERROR_TYPE);
            self.attribute("message", &reason);
            self.raw(">");
            escape(&shorten(text, LONGEST_TEXT), Place::Text, &mut self.bytes);
            self.raw("</error>\n    </testcase>\n");
        }
        self.raw("  </testsuite>\n");
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        let shown = Shown::of(entry);
        self.raw("    <testcase");
        self.attribute("name", entry.id);
        self.attribute("classname", entry.file.unwrap_or(entry.group));
        let (file, line) = place(entry);
        if let Some(file) = file {
            self.attribute("file", file);
        }
        if let Some(line) = line {
            self.formatted(format_args!(" line=\"{line}\""));
        }
        self.time(shown.attempt().map_or(Duration::ZERO, |attempt| attempt.result.duration));
        let start = self.bytes.len();
        self.raw(">\n");
        self.properties(entry);
        let empty = self.bytes.len();
        match &shown {
            Shown::Passed { attempt, flaky } => self.passed(entry, *attempt, *flaky),
            Shown::Skipped(attempt) => self.skipped(attempt.map(|attempt| &attempt.result)),
            Shown::Bad(attempt) => {
                self.bad(if is_failure(attempt) { "failure" } else { "error" }, attempt, None);
                for later in bad_attempts(entry).skip(1) {
                    let element = if is_failure(later) { "rerunFailure" } else { "rerunError" };
                    self.bad(element, later, Some(later.result.duration));
                }
            }
            Shown::Stated { kind, message } => {
                self.raw("      <error");
                self.attribute("type", kind);
                self.attribute("message", &shorten(message, LONGEST_TEXT));
                self.raw("/>\n");
            }
        }
        if let Some(details) = shown.attempt().and_then(|attempt| attempt.result.details.as_deref()) {
            self.output(details, "      ");
        }
        if self.bytes.len() == empty && empty == start + 2 {
            self.bytes.truncate(start);
            self.raw("/>\n");
        } else {
            self.raw("    </testcase>\n");
        }
    }

    fn properties(&mut self, entry: &Entry<'_>) {
        let exact = reversible(entry.id);
        // Most tests pass at once; a single tag for each of them keeps reports small.
        let plain = matches!(entry.verdict, Verdict::Passed) || entry.attempts.is_empty();
        let details = entry.attempts.last().and_then(|last| last.result.details.as_deref());
        let recorded = details.map_or(&[][..], |details| &details.properties);
        if exact.is_none() && plain && recorded.is_empty() {
            return;
        }
        self.raw("      <properties>");
        if let Some(exact) = exact {
            self.raw("<property");
            self.attribute("name", ID_PROPERTY);
            self.attribute("value", &exact);
            self.raw("/>");
        }
        if let [first, others @ ..] = entry.attempts
            && !plain
        {
            self.raw("<property");
            self.attribute("name", BATCHES_PROPERTY);
            self.formatted(format_args!(" value=\"{}", first.batch));
            for attempt in others {
                self.formatted(format_args!(" {}", attempt.batch));
            }
            self.raw("\"/>");
        }
        self.recorded(recorded);
        self.raw("</properties>\n");
    }

    /// What tests or the suite recorded.
    fn recorded(&mut self, properties: &[Property]) {
        for (name, value) in properties {
            self.raw("<property");
            self.attribute("name", name);
            self.attribute("value", &shorten(value, LONGEST_TEXT));
            self.raw("/>");
        }
    }

    fn passed(&mut self, entry: &Entry<'_>, passed: Option<&Attempt>, flaky: bool) {
        let mut said = false;
        if flaky {
            for attempt in bad_attempts(entry) {
                let element = if is_failure(attempt) { "flakyFailure" } else { "flakyError" };
                self.bad(element, attempt, Some(attempt.result.duration));
                said = true;
            }
        }
        match passed {
            Some(attempt) if attempt.result.flaky_in_runner && !said => {
                self.raw("      <flakyFailure");
                self.failure(&attempt.result);
                self.raw("</flakyFailure>\n");
            }
            _ if flaky && !said => self.raw("      <flakyFailure message=\"failed before it passed\"/>\n"),
            _ => {}
        }
    }

    fn skipped(&mut self, result: Option<&CaseResult>) {
        self.raw("      <skipped");
        let Some(result) = result else {
            self.raw("/>\n");
            return;
        };
        let details = result.details.as_deref();
        let kind = match result.outcome {
            Outcome::ExpectedFailure => Some(XFAIL_TYPE),
            // When the report is read again, the outcome counts, not what a tool called it.
            _ => details.and_then(|details| details.kind.as_deref()).filter(|kind| *kind != XFAIL_TYPE),
        };
        self.texts(kind, details);
        self.raw("</skipped>\n");
    }

    /// A bad attempt, as `element`. One that did not decide the result of the case has its own duration
    /// and output.
    fn bad(&mut self, element: &str, attempt: &Attempt, own_time: Option<Duration>) {
        self.raw("      <");
        self.raw(element);
        if let Some(duration) = own_time {
            self.time(duration);
        }
        self.failure(&attempt.result);
        if let (Some(_), Some(details)) = (own_time, &attempt.result.details)
            && (details.stdout.is_some() || details.stderr.is_some())
        {
            self.raw("\n");
            self.output(details, "        ");
            self.raw("      ");
        }
        self.raw("</");
        self.raw(element);
        self.raw(">\n");
    }

    fn failure(&mut self, result: &CaseResult) {
        let details = result.details.as_deref();
        let kind = match result.outcome {
            Outcome::TimedOut => Some(TIMEOUT_TYPE),
            _ => details.and_then(|details| details.kind.as_deref()),
        };
        self.texts(kind, details);
    }

    /// The rest of an opening tag and the text after it.
    fn texts(&mut self, kind: Option<&str>, details: Option<&Details>) {
        if let Some(kind) = kind {
            self.attribute("type", &shorten(kind, LONGEST_TEXT));
        }
        if let Some(message) = details.and_then(|details| details.message.as_deref()) {
            self.attribute("message", &shorten(message, LONGEST_TEXT));
        }
        self.raw(">");
        if let Some(text) = details.and_then(|details| details.text.as_deref()) {
            escape(&shorten(text, LONGEST_TEXT), Place::Text, &mut self.bytes);
        }
    }

    fn output(&mut self, details: &Details, indent: &str) {
        for (element, text) in [("system-out", &details.stdout), ("system-err", &details.stderr)] {
            if let Some(text) = text {
                self.formatted(format_args!("{indent}<{element}>"));
                escape(&shorten(text, LONGEST_TEXT), Place::Text, &mut self.bytes);
                self.formatted(format_args!("</{element}>\n"));
            }
        }
    }
}

/// The file and line of a test: as it was listed, or as its runner reports them.
fn place<'a>(entry: &Entry<'a>) -> (Option<&'a str>, Option<u32>) {
    let details = entry.attempts.last().and_then(|last| last.result.details.as_deref());
    match (entry.file, details.and_then(|details| details.place.as_ref())) {
        (None, Some(place)) => (Some(&place.file), place.line),
        (file, _) => (file, entry.line),
    }
}

fn bad_attempts<'a>(entry: &Entry<'a>) -> impl Iterator<Item = &'a Attempt> + use<'a> {
    entry.attempts.iter().filter(|attempt| attempt.result.outcome.is_bad())
}

fn is_failure(attempt: &Attempt) -> bool {
    attempt.result.outcome == Outcome::Failed
}
