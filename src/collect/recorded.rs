//! Turns a record on this machine into results of known tests.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::reading::{self, Reading};
use crate::mask::Mask;
use crate::model::{Batch, CaseResult, Details, Outcome, Suite, TestIndex};
use crate::record::{self, Ended, Event, Failure};
use crate::summary::Extra;

/// What a record says besides results.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// Whether the reporter was loaded at all.
    pub began: bool,
    /// Tests that started and did not end.
    pub running: Vec<Running>,
    /// The file that was being loaded when the runner ended.
    pub loading: Option<String>,
    /// Tests that the runner was asked for and does not have.
    pub absent: Vec<TestIndex>,
    /// Errors outside tests.
    pub errors: Vec<String>,
    /// The exit status, if the runner ended by its own decision.
    pub exit: Option<i32>,
    /// What the suite recorded: names and values.
    pub properties: Vec<record::Property>,
    /// Files that came with the results.
    pub files: Vec<Attached>,
}

/// A test that started and did not end.
#[derive(Clone, Debug)]
pub struct Running {
    /// The test.
    pub test: TestIndex,
    /// When it started, after the start of the runner.
    pub started: Duration,
    /// What had failed in it already.
    pub failures: Option<Box<Details>>,
}

/// A part of a file in a record.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The name of the file; parts of the same name follow each other.
    pub name: String,
    /// The part, in base64.
    pub content: String,
}

impl Attached {
    /// Appends this part to the file at `path`, whose directory is made.
    ///
    /// # Errors
    /// When the name is not plain, the part cannot be decoded, or the file cannot be written.
    pub fn append_to(&self, path: &Path) -> Result<()> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        ensure!(!self.name.is_empty() && self.name.bytes().all(is_plain), "its name is not plain");
        let bytes = BASE64.decode(&self.content).map_err(|error| anyhow!("{error}"))?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make `{}`", directory.display()))?;
        }
        let write = || File::options().create(true).append(true).open(path)?.write_all(&bytes);
        write().with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// Reads the record of `batch` at `path`.
pub fn read(path: &Path, suite: &Suite, batch: &Batch, mask: &Mask) -> Reading {
    let mut reader = Reader {
        suite,
        batch,
        mask,
        reading: Reading::default(),
        session: Session::default(),
        failures: HashMap::new(),
    };
    match reading::open(path) {
        Err(error) => reader.reading.error = Some(error),
        Ok(file) => {
            let error = record::read(BufReader::new(file), &mut |event| reader.hear(event));
            reader.reading.error = error.map(|error| mask.hide(&format!("its record is broken: {error}")));
        }
    }
    reader.finish()
}

struct Reader<'a> {
    suite: &'a Suite,
    batch: &'a Batch,
    mask: &'a Mask,
    reading: Reading,
    session: Session,
    /// The failures so far of tests that have not ended.
    failures: HashMap<String, Vec<Failure>>,
}

impl Reader<'_> {
    fn find(&self, native: &str) -> Option<TestIndex> {
        self.suite.find_native(self.batch.group, native)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Begin { .. } => self.session.began = true,
            Event::Loading { file } => self.session.loading = Some(file),
            Event::Missing { id } => self.session.absent.extend(self.find(&id)),
            Event::Start { id, at } => {
                self.session.loading = None;
                if let Some(test) = self.find(&id) {
                    let started = seconds(at);
                    self.session.running.push(Running { test, started, failures: None });
                }
            }
            Event::Failure(failure) => {
                self.failures.entry(failure.id.clone()).or_default().push(failure);
            }
            Event::End(ended) => self.end(*ended),
            Event::Error(error) => self.error(&error),
            Event::Properties { properties } => {
                let hide = |(name, value): record::Property| (self.mask.hide(&name), self.mask.hide(&value));
                self.session.properties.extend(properties.into_iter().map(hide));
            }
            Event::Data { name, content } => self.session.files.push(Attached { name, content }),
            Event::Finish { exit } => {
                self.session.exit = Some(exit);
                self.session.loading = None;
            }
            Event::Unknown => {}
        }
    }

    fn end(&mut self, ended: Ended) {
        let failures = self.failures.remove(&ended.id).unwrap_or_default();
        let (id, mut result) = result(ended, failures);
        if !self.mask.is_empty() {
            reading::hide(&mut result, self.mask);
        }
        match self.find(&id) {
            Some(test) => {
                self.session.running.retain(|running| running.test != test);
                self.reading.found.push((test, result));
            }
            None => self.reading.extras.push(Extra {
                name: self.mask.hide(&id),
                outcome: result.outcome,
                message: result.message().map(str::to_owned),
            }),
        }
    }

    /// An error outside tests fails the tests of the batch that cannot have passed because of it.
    fn error(&mut self, error: &record::Error) {
        let text = self.mask.hide(&error.to_text());
        let named: Vec<TestIndex> = error.tests.iter().filter_map(|native| self.find(native)).collect();
        let is_blocked = |index: &&TestIndex| {
            let file = self.suite.test(**index).file.as_deref();
            named.contains(index) || file.is_some_and(|file| error.files.iter().any(|other| other == file))
        };
        for test in self.batch.tests.iter().filter(is_blocked) {
            let result = CaseResult::stated(Outcome::Errored, Duration::ZERO, text.as_str());
            self.session.running.retain(|running| running.test != *test);
            self.reading.found.push((*test, result));
        }
        self.session.errors.push(text);
    }

    fn finish(self) -> Reading {
        let Reader { suite, mask, mut reading, mut session, mut failures, .. } = self;
        for running in &mut session.running {
            if let Some(failures) = failures.remove(&*suite.test(running.test).native) {
                let mut result = CaseResult {
                    details: joined(&failures),
                    ..CaseResult::new(Outcome::Failed, Duration::ZERO)
                };
                reading::hide(&mut result, mask);
                running.failures = result.details;
            }
        }
        reading.session = Some(Box::new(session));
        reading
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// The native ID and the result of a test with these failures.
fn result(ended: Ended, failures: Vec<Failure>) -> (String, CaseResult) {
    let Ended { id, outcome, seconds: took, texts, stdout, stderr, properties } = ended;
    let outcome = match outcome {
        record::Outcome::Passed => Outcome::Passed,
        record::Outcome::Failed => Outcome::Failed,
        record::Outcome::Error => Outcome::Errored,
        record::Outcome::Skipped => Outcome::Skipped,
        record::Outcome::Xfailed => Outcome::ExpectedFailure,
    };
    let (retried, last): (Vec<Failure>, Vec<Failure>) =
        failures.into_iter().partition(|failure| failure.retried);
    let is_flaky = outcome == Outcome::Passed && !retried.is_empty();
    let told = if is_flaky { &retried[..1] } else { &last[..] };
    let mut details = joined(told).map(|details| *details).unwrap_or(Details {
        kind: texts.kind,
        message: texts.message,
        text: texts.text,
        ..Details::default()
    });
    details = Details { stdout, stderr, properties, ..details };
    let details = (details != Details::default()).then(|| Box::new(details));
    (id, CaseResult { outcome, duration: seconds(took), flaky_in_runner: is_flaky, details })
}

/// The texts of several failures of one test: the first of the worst outcome gives kind and message.
fn joined(failures: &[Failure]) -> Option<Box<Details>> {
    let is_failed = |failure: &&Failure| failure.outcome == record::Outcome::Failed;
    let worst = failures.iter().find(is_failed).or(failures.first())?;
    let texts: Vec<&str> = match failures {
        [one] => one.texts.text.as_deref().into_iter().collect(),
        several => several.iter().filter_map(longest_text).collect(),
    };
    let text = (!texts.is_empty()).then(|| texts.join("\n\n"));
    let record::Texts { kind, message, .. } = worst.texts.clone();
    Some(Box::new(Details { kind, message, text, ..Details::default() }))
}

/// What is to be read of one failure among several.
fn longest_text(failure: &Failure) -> Option<&str> {
    let texts = &failure.texts;
    let text = texts.text.as_deref().or(texts.message.as_deref())?.trim_end();
    (!text.is_empty()).then_some(text)
}
