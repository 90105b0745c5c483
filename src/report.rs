//! The stage that reports results: the JUnit file and the summary.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::color::Palette;
use crate::error::printable;
use crate::files::write_whole;
use crate::junit::write::{self, Frame};
use crate::junit::{Entry, RunError};
use crate::model::{Reason, Suite, TestIndex};
use crate::summary::Summary;
use crate::words::count;

mod blocks;
mod logs;
mod ports;
mod text;

pub use logs::Logs;

/// The results of a run, and where its logs are.
pub struct Report<'a> {
    /// The tests.
    pub suite: &'a Suite,
    /// Their verdicts.
    pub summary: &'a Summary,
    /// The one name for all tests, if the runner reports only its exit status.
    pub only: Option<&'a str>,
    /// The logs of batches.
    pub logs: Logs<'a>,
}

/// The predicted duration of a run, and the actual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// How long the batches were expected to take.
    pub predicted: Duration,
    /// How long they took.
    pub took: Duration,
}

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// How long it took.
    pub elapsed: Duration,
    /// On how many sandboxes.
    pub machines: usize,
    /// How good the prediction was, if there was one.
    pub forecast: Option<Forecast>,
    /// The JUnit file, if one was written.
    pub junit: Option<PathBuf>,
    /// The commands that run the failed tests again.
    pub again: Vec<String>,
}

/// Batches with the same error.
struct Incident<'a> {
    reason: &'a str,
    /// How often it happened.
    times: usize,
    batches: Vec<u32>,
}

/// `reasons`, each once, in order of appearance.
fn incidents(reasons: &[Reason]) -> Vec<Incident<'_>> {
    let mut incidents: Vec<Incident<'_>> = Vec::new();
    for Reason { text, batch } in reasons {
        match incidents.iter_mut().find(|incident| incident.reason == &**text) {
            Some(incident) => {
                incident.times += 1;
                incident.batches.extend(batch);
            }
            None => {
                incidents.push(Incident { reason: text, times: 1, batches: batch.iter().copied().collect() });
            }
        }
    }
    incidents
}

impl Incident<'_> {
    /// Where it happened; empty if it does not belong to a batch.
    fn place(&self) -> String {
        match (&self.batches[..], self.times) {
            ([batch], 1) => format!("batch {batch}"),
            ([], 1) => String::new(),
            ([], times) => count(times, "time"),
            (batches, _) => count(batches.len(), "batch"),
        }
    }
}

impl Report<'_> {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let rows = self.summary.verdicts.iter().zip(&self.summary.attempts).enumerate();
        rows.map(|(place, (verdict, attempts))| {
            let test = self.suite.test(TestIndex(u32::try_from(place).unwrap_or(u32::MAX)));
            Entry {
                id: self.only.unwrap_or(test.id.as_str()),
                file: test.file.as_deref().filter(|_| self.only.is_none()),
                line: test.line,
                group: &self.suite.group(test.group).name,
                verdict,
                attempts,
            }
        })
    }

    /// Writes the JUnit file, which is replaced as a whole.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write_junit(&self, path: &Path, elapsed: Duration) -> Result<()> {
        let errors: Vec<RunError> =
            incidents(&self.summary.errors).iter().map(|error| self.run_error(error)).collect();
        let frame = Frame { time: elapsed, properties: &self.summary.properties, errors: &errors };
        write_whole(path, |output| write::write(output, frame, || self.entries()))
    }

    fn run_error(&self, incident: &Incident<'_>) -> RunError {
        let mut lines = Vec::new();
        let headline = incident.reason.trim_start().lines().next().unwrap_or_default().trim_end();
        if headline.len() < incident.reason.trim().len() {
            lines.push(incident.reason.to_owned());
        }
        lines.extend(Some(incident.place()).filter(|place| !place.is_empty()));
        for log in self.first_logs(&incident.batches) {
            lines.extend(log.tail());
            lines.push(format!("log: {}", log.path.display()));
        }
        RunError { reason: headline.to_owned(), text: lines.join("\n") }
    }

    /// The logs of the first of `batches` that has any.
    fn first_logs(&self, batches: &[u32]) -> Vec<logs::Log> {
        batches.iter().map(|batch| self.logs.of(*batch)).find(|logs| !logs.is_empty()).unwrap_or_default()
    }

    /// Writes the summary for people.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_summary(
        &self,
        circumstances: &Circumstances,
        palette: Palette,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        text::Text { report: self, palette, output, is_advised: false }.write(circumstances)
    }
}

/// The first lines of a reason that say something.
fn headlines(reason: &str) -> Vec<String> {
    let text = printable(reason);
    text.lines().filter(|line| !line.trim().is_empty()).take(3).map(str::to_owned).collect()
}
