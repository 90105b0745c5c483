//! Turns elements into cases, for the dialects of pytest, nextest, vitest, gtest, mocha, jest and surefire.

use std::ops::ControlFlow;
use std::time::Duration;

use xml::attribute::OwnedAttribute;

use super::cut::{Cut, shorten};
use super::{BATCHES_PROPERTY, Case, ID_PROPERTY, RUN_ERROR_PROPERTY, XFAIL_TYPE, escape};
use crate::model::{CaseResult, Details, Outcome, Place};

/// A case, with the properties that only merged reports have.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) case: Case,
    /// The exact id, if XML cannot express it as the name.
    pub(super) id: Option<String>,
    /// The batch numbers of its attempts.
    pub(super) batches: Vec<u32>,
    /// Whether it is an error of the run rather than a test.
    pub(super) is_run_error: bool,
}

/// What an element says about its case, in ascending rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    /// A failure before one of the runner's own retries; does not fail the test by itself.
    Retried,
    Skipped,
    Errored,
    Failed,
}

/// Where the text of an element goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Nothing,
    Mark,
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Suite,
    Case,
    /// A failure outside any case, which becomes a case itself.
    SuiteFailure,
    Mark,
    Other,
}

/// A case whose element is open.
struct Open {
    classname: String,
    name: String,
    file: Option<String>,
    line: Option<u32>,
    duration: Duration,
    id: Option<String>,
    batches: Vec<u32>,
    is_run_error: bool,
    /// From the attributes of the case.
    status: Option<Mark>,
    /// Whether the only word on its status is that it was not run.
    is_not_run: bool,
    /// From the elements within it.
    mark: Option<Mark>,
    expected: bool,
    retried: bool,
    kind: Option<String>,
    message: Option<String>,
    text: Cut,
    /// The message of a further failure, and the length of the text before it.
    only_message: Option<(u64, String)>,
    stdout: Cut,
    stderr: Cut,
}

/// Builds cases from the elements of a report.
pub(super) struct Builder {
    /// The maximum length of each text, in bytes.
    cap: usize,
    stack: Vec<(Element, Target)>,
    suites: Vec<String>,
    open: Vec<Open>,
    touched: bool,
    saw_suite: bool,
}

impl Builder {
    pub(super) fn new(cap: usize) -> Builder {
        Builder {
            cap,
            stack: Vec::new(),
            suites: Vec::new(),
            open: Vec::new(),
            touched: false,
            saw_suite: false,
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.stack.len()
    }

    /// Whether there was any element of a JUnit report.
    pub(super) fn saw_suite(&self) -> bool {
        self.saw_suite
    }

    /// Whether there was no element at all.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// An element starts.
    pub(super) fn open(&mut self, name: &str, attributes: Vec<OwnedAttribute>) {
        self.touched = true;
        let outer = self.stack.last().map_or(Target::Nothing, |(_, target)| *target);
        let entry = match name {
            "testsuites" => {
                self.saw_suite = true;
                (Element::Other, Target::Nothing)
            }
            "testsuite" => {
                self.saw_suite = true;
                self.suites.push(take(attributes, "name").unwrap_or_default());
                (Element::Suite, Target::Nothing)
            }
            "testcase" => {
                self.saw_suite = true;
                self.open.push(Open::new(attributes, self.cap));
                (Element::Case, Target::Nothing)
            }
            "failure" => self.mark(Mark::Failed, attributes),
            "error" => self.mark(Mark::Errored, attributes),
            "skipped" | "skip" => self.mark(Mark::Skipped, attributes),
            "flakyFailure" | "flakyError" | "rerunFailure" | "rerunError" => {
                self.mark(Mark::Retried, attributes)
            }
            // Output within a mark belongs to another attempt.
            "system-out" | "system-err" if self.is_in_mark() => (Element::Other, Target::Nothing),
            "system-out" => (Element::Other, Target::Stdout),
            "system-err" => (Element::Other, Target::Stderr),
            "property" => {
                if let Some(open) = self.open.last_mut() {
                    open.property(attributes);
                }
                (Element::Other, Target::Nothing)
            }
            _ => {
                if let (Target::Mark, Some(open)) = (outer, self.open.last_mut()) {
                    open.forget_indentation();
                }
                (Element::Other, outer)
            }
        };
        self.stack.push(entry);
    }

    fn is_in_mark(&self) -> bool {
        let inside = self.stack.iter().rev().take_while(|(element, _)| *element != Element::Case);
        inside.map(|(element, _)| *element).any(|element| element == Element::Mark)
    }

    fn mark(&mut self, mark: Mark, attributes: Vec<OwnedAttribute>) -> (Element, Target) {
        if let Some(open) = self.open.last_mut() {
            return (Element::Mark, open.mark(mark, attributes, self.cap));
        }
        if mark < Mark::Errored || self.suites.is_empty() {
            return (Element::Other, Target::Nothing);
        }
        let mut open = Open::new(Vec::new(), self.cap);
        open.name = self.suites.iter().rev().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        let target = open.mark(Mark::Errored, attributes, self.cap);
        self.open.push(open);
        (Element::SuiteFailure, target)
    }

    /// Text in the innermost open element.
    pub(super) fn text(&mut self, text: &str) {
        let Some((_, target)) = self.stack.last() else {
            return;
        };
        let Some(open) = self.open.last_mut() else { return };
        match target {
            Target::Nothing => {}
            Target::Mark => open.text.push(text.as_bytes()),
            Target::Stdout => open.stdout.push(text.as_bytes()),
            Target::Stderr => open.stderr.push(text.as_bytes()),
        }
    }

    /// The innermost element ends. Returns the case, if the element was one.
    pub(super) fn close(&mut self) -> Option<Record> {
        let (element, target) = self.stack.pop()?;
        match element {
            Element::Suite => {
                self.suites.pop();
            }
            Element::Case | Element::SuiteFailure => return self.open.pop().map(Open::finish),
            Element::Mark if target == Target::Mark => {
                if let Some(open) = self.open.last_mut() {
                    open.end_mark();
                }
            }
            Element::Mark | Element::Other => {}
        }
        None
    }

    /// The report ends early. An open case counts only if it is known to have failed.
    pub(super) fn abandon(&mut self, each: &mut dyn FnMut(Record) -> ControlFlow<()>) {
        for open in self.open.drain(..).filter(|open| open.bottom_line() >= Some(Mark::Errored)) {
            if each(open.finish()).is_break() {
                return;
            }
        }
    }
}

impl Open {
    fn new(attributes: Vec<OwnedAttribute>, cap: usize) -> Open {
        let mut open = Open {
            classname: String::new(),
            name: String::new(),
            file: None,
            line: None,
            duration: Duration::ZERO,
            id: None,
            batches: Vec::new(),
            is_run_error: false,
            status: None,
            is_not_run: false,
            mark: None,
            expected: false,
            retried: false,
            kind: None,
            message: None,
            text: Cut::new(cap),
            only_message: None,
            stdout: Cut::new(cap),
            stderr: Cut::new(cap),
        };
        let has_result = attributes.iter().any(|attribute| attribute.name.local_name == "result");
        for attribute in attributes {
            match attribute.name.local_name.as_str() {
                "classname" => open.classname = attribute.value,
                "name" => open.name = attribute.value,
                "file" => open.file = Some(attribute.value),
                "line" => open.line = attribute.value.trim().parse().ok(),
                "time" => open.duration = seconds(&attribute.value),
                "status" | "result" => {
                    open.is_not_run = !has_result && attribute.value.eq_ignore_ascii_case(NOT_RUN);
                    open.status = open.status.max(mark_of_status(&attribute.value));
                }
                _ => {}
            }
        }
        open
    }

    /// Applies an element. The one with the highest rank determines the kind and message. The texts of all failures
    /// and errors are kept, except those before the runner's own retries.
    fn mark(&mut self, mark: Mark, attributes: Vec<OwnedAttribute>, cap: usize) -> Target {
        self.retried |= mark == Mark::Retried;
        if self.mark >= Some(mark) {
            if mark < Mark::Errored {
                return Target::Nothing;
            }
            self.only_message = take(attributes, "message").map(|message| (self.text.total(), message));
            return Target::Mark;
        }
        if self.mark != Some(Mark::Errored) {
            self.text.clear();
        }
        self.mark = Some(mark);
        (self.kind, self.message) = (None, None);
        for attribute in attributes {
            match attribute.name.local_name.as_str() {
                "type" => self.kind = Some(shorten(&attribute.value, cap).into_owned()),
                "message" => self.message = Some(shorten(&attribute.value, cap).into_owned()),
                _ => {}
            }
        }
        self.expected = mark == Mark::Skipped && self.kind.as_deref() == Some(XFAIL_TYPE);
        Target::Mark
    }

    /// An element within a mark starts; blank text before it is indentation.
    fn forget_indentation(&mut self) {
        if self.text.written().is_none() {
            self.text.clear();
        }
    }

    /// A mark ends. If it was a further failure without text, its message is kept as text.
    fn end_mark(&mut self) {
        if let Some((before, message)) = self.only_message.take()
            && before == self.text.total()
        {
            self.text.push(message.as_bytes());
        }
        self.text.push(b"\n");
    }

    fn property(&mut self, attributes: Vec<OwnedAttribute>) {
        let (mut name, mut value) = (String::new(), String::new());
        for attribute in attributes {
            match attribute.name.local_name.as_str() {
                "name" => name = attribute.value,
                "value" => value = attribute.value,
                _ => {}
            }
        }
        match name.as_str() {
            ID_PROPERTY => self.id = Some(escape::reverse(&value)),
            BATCHES_PROPERTY => self.batches = value.split(' ').flat_map(str::parse).collect(),
            RUN_ERROR_PROPERTY => self.is_run_error = true,
            _ => {}
        }
    }

    fn bottom_line(&self) -> Option<Mark> {
        if self.could_not_run() { Some(Mark::Failed) } else { self.status.max(self.mark) }
    }

    /// Whether this is CTest's case for a test that it could not run and counts as a failure: its program or a
    /// required file is missing, or its fixture failed. CTest marks these like the tests that were skipped by a code
    /// or a text of theirs, but with another message.
    fn could_not_run(&self) -> bool {
        let message = self.message.as_deref().filter(|_| self.mark == Some(Mark::Skipped));
        let is_ctest = self.is_not_run && self.classname == self.name;
        is_ctest && message.is_some_and(|message| !message.starts_with("SKIP_"))
    }

    fn finish(self) -> Record {
        let outcome = match self.bottom_line() {
            Some(Mark::Failed) => Outcome::Failed,
            Some(Mark::Errored) => Outcome::Errored,
            Some(Mark::Skipped) if self.expected => Outcome::ExpectedFailure,
            Some(Mark::Skipped) => Outcome::Skipped,
            Some(Mark::Retried) | None => Outcome::Passed,
        };
        let details = Details {
            kind: self.kind,
            message: self.message,
            text: self.text.written().map(|text| trimmed(&text).to_owned()),
            stdout: self.stdout.written(),
            stderr: self.stderr.written(),
            place: self.file.map(|file| Place { file, line: self.line }),
            properties: Vec::new(),
            is_stated: false,
        };
        let result = CaseResult {
            outcome,
            duration: self.duration,
            flaky_in_runner: self.retried && outcome == Outcome::Passed,
            details: (details != Details::default()).then(|| Box::new(details)),
        };
        let case = Case { classname: self.classname, name: self.name, result };
        Record { case, id: self.id, batches: self.batches, is_run_error: self.is_run_error }
    }
}

/// The text without surrounding line ends and trailing indentation.
fn trimmed(text: &str) -> &str {
    text.trim_start_matches(['\r', '\n']).trim_end()
}

/// What gtest says of a disabled test, and CTest of one that it skipped or could not run.
const NOT_RUN: &str = "notrun";

/// The meaning of the attribute `status` or `result`; gtest has no other sign that a test did not run.
fn mark_of_status(status: &str) -> Option<Mark> {
    let is = |words: &[&str]| words.iter().any(|word| status.eq_ignore_ascii_case(word));
    if is(&["fail", "failed", "failure"]) {
        Some(Mark::Failed)
    } else if is(&["error", "errored"]) {
        Some(Mark::Errored)
    } else if is(&[NOT_RUN, "skipped", "suppressed", "disabled", "ignored", "pending"]) {
        Some(Mark::Skipped)
    } else {
        None
    }
}

fn take(attributes: Vec<OwnedAttribute>, name: &str) -> Option<String> {
    attributes
        .into_iter()
        .find(|attribute| attribute.name.local_name == name)
        .map(|attribute| attribute.value)
}

/// A time in seconds, possibly with thousands separators or a decimal comma; 0 if invalid.
fn seconds(text: &str) -> Duration {
    let text = text.trim();
    let number = match (text.rfind(','), text.rfind('.')) {
        (None, _) => text.parse::<f64>(),
        (Some(comma), Some(point)) if comma < point => text.replace(',', "").parse(),
        (Some(_), Some(_)) => text.replace('.', "").replace(',', ".").parse(),
        (Some(comma), None) => {
            let thousands = text.len() - comma == 4 && !text.starts_with('0');
            text.replace(',', if thousands { "" } else { "." }).parse()
        }
    };
    match number {
        Ok(seconds) if (0.0..1e9).contains(&seconds) => Duration::from_secs_f64(seconds),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_meant() {
        let cases = [
            ("0.25", 250),
            ("1,234.5", 1_234_500),
            ("1.234,5", 1_234_500),
            ("0,123", 123),
            ("12,5", 12_500),
            ("1,234", 1_234_000),
            ("-1", 0),
            ("NaN", 0),
            ("inf", 0),
            ("1e400", 0),
            ("", 0),
            ("soon", 0),
            ("1e-3", 1),
            (" 2 ", 2000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(seconds(text), Duration::from_millis(milliseconds), "{text}");
        }
    }
}
