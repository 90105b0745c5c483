//! The stage that tells: the JUnit file and the summary.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::error::{one_line, printable};
use crate::files::write_whole;
use crate::junit::write::{self, Entry};
use crate::model::{Attempt, Suite, TestIndex, Verdict};
use crate::summary::Summary;

/// So many tests are shown with their messages; the others are in the report.
const SHOWN: usize = 30;

/// So many tests that were not run for one and the same reason are shown one by one.
const ALIKE: usize = 3;

/// Counts a reason; tells whether it has been shown often enough.
fn is_known<'a>(reasons: &mut Vec<(&'a str, usize)>, reason: &'a str) -> bool {
    let place = reasons.iter().position(|(known, _)| *known == reason).unwrap_or_else(|| {
        reasons.push((reason, 0));
        reasons.len() - 1
    });
    reasons[place].1 += 1;
    reasons[place].1 > ALIKE
}

/// What the report says of each test.
pub struct Report<'a> {
    /// The tests.
    pub suite: &'a Suite,
    /// Their verdicts.
    pub summary: &'a Summary,
    /// The one name for all tests, where the runner tells no more than its exit status.
    pub only: Option<&'a str>,
    /// The log of an attempt.
    pub log: &'a dyn Fn(&Attempt) -> Option<PathBuf>,
}

/// What was said of the time before the run, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// How long the batches were to take.
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
    /// How well the time was foretold, where it was.
    pub forecast: Option<Forecast>,
    /// The JUnit file, where there is one.
    pub junit: Option<PathBuf>,
    /// The commands that run the failed tests again.
    pub again: Vec<String>,
}

impl Report<'_> {
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let rows = self.summary.verdicts.iter().zip(&self.summary.attempts).enumerate();
        rows.map(|(place, (verdict, attempts))| {
            let test = self.suite.test(TestIndex(u32::try_from(place).unwrap_or(u32::MAX)));
            Entry {
                id: self.only.unwrap_or(test.id.as_str()),
                file: test.file.as_deref().filter(|_| self.only.is_none()),
                group: &self.suite.group(test.group).name,
                verdict,
                attempts,
            }
        })
    }

    /// Writes the JUnit file; it appears whole.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write_junit(&self, path: &std::path::Path, elapsed: Duration) -> Result<()> {
        write_whole(path, |output| write::write(output, elapsed, || self.entries()))
    }

    /// Writes the summary for people.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_summary(&self, circumstances: &Circumstances, output: &mut dyn Write) -> io::Result<()> {
        let (mut shown, mut left) = (0, 0);
        let mut reasons: Vec<(&str, usize)> = Vec::new();
        for entry in self.entries() {
            let word = match entry.verdict {
                Verdict::Failed => "FAILED",
                Verdict::NotRun(_) => "NOT RUN",
                Verdict::Flaky => "FLAKY",
                Verdict::Passed | Verdict::Skipped => continue,
            };
            if let Verdict::NotRun(reason) = entry.verdict
                && is_known(&mut reasons, reason)
            {
                continue;
            }
            if shown == SHOWN {
                left += 1;
                continue;
            }
            shown += 1;
            self.write_entry(word, &entry, output)?;
        }
        for (reason, more) in reasons.into_iter().filter(|(_, count)| *count > ALIKE) {
            writeln!(output, "NOT RUN {} more tests\n    {}", more - ALIKE, printable(reason))?;
        }
        if left > 0 {
            writeln!(output, "and {left} more: `offload logs --failures`, `offload logs --errors`")?;
        }
        for broken in &self.summary.broken {
            writeln!(output, "BROKEN {}", printable(broken))?;
        }
        for error in &self.summary.errors {
            writeln!(output, "ERROR {}", printable(error))?;
        }
        writeln!(output, "{}", self.totals(circumstances))?;
        if let Some(Forecast { predicted, took }) = circumstances.forecast {
            let (predicted, took) = (predicted.as_secs_f64(), took.as_secs_f64());
            let more = (took / predicted.max(0.001) - 1.0) * 100.0;
            writeln!(output, "predicted {predicted:.1} s, took {took:.1} s ({more:+.0} %)")?;
        }
        if let Some(junit) = &circumstances.junit {
            writeln!(output, "report: {}", junit.display())?;
        }
        for again in &circumstances.again {
            writeln!(output, "run them again: {again}")?;
        }
        output.flush()
    }

    fn write_entry(&self, word: &str, entry: &Entry<'_>, output: &mut dyn Write) -> io::Result<()> {
        let bad = entry.attempts.iter().rev().find(|attempt| attempt.result.outcome.is_bad());
        let word = match bad.map(|attempt| attempt.result.outcome) {
            Some(crate::model::Outcome::TimedOut) if word == "FAILED" => "TIMED OUT",
            Some(crate::model::Outcome::Errored) if word == "FAILED" => "ERROR",
            _ => word,
        };
        writeln!(output, "{word} {}", one_line(entry.id))?;
        if entry.attempts.len() > 1 {
            let failures = entry.attempts.iter().filter(|attempt| attempt.result.outcome.is_bad()).count();
            writeln!(output, "    {failures} of {} attempts failed", entry.attempts.len())?;
        }
        let message = match entry.verdict {
            Verdict::NotRun(reason) => Some(reason.as_str()),
            _ => bad.and_then(|attempt| attempt.result.headline()),
        };
        let message = message.map(printable).unwrap_or_default();
        for line in message.lines().filter(|line| !line.trim().is_empty()).take(3) {
            writeln!(output, "    {line}")?;
        }
        if let Some(log) = bad.and_then(self.log) {
            writeln!(output, "    log: {}", log.display())?;
        }
        Ok(())
    }

    fn totals(&self, circumstances: &Circumstances) -> String {
        let counts = self.summary.counts;
        let parts = [
            (counts.failed, "failed"),
            (counts.not_run, "not run"),
            (counts.flaky, "flaky"),
            (counts.skipped, "skipped"),
            (counts.expected_failures, "failed as expected"),
        ];
        let mut text = format!("{} tests: {} passed", self.summary.verdicts.len(), counts.passed);
        for (count, word) in parts.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {word}");
        }
        let sandboxes = if circumstances.machines == 1 { "sandbox" } else { "sandboxes" };
        let seconds = circumstances.elapsed.as_secs_f64();
        text + &format!(" in {seconds:.1} s on {} {sandboxes}", circumstances.machines)
    }
}
