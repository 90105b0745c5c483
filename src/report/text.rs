//! The summary that people read.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Write};

use super::blocks::{Attempts, Block, blocks};
use super::{Circumstances, Forecast, Incident, Report, headlines, incidents};
use crate::color::Palette;
use crate::error::{one_line, printable};
use crate::junit::Word;
use crate::words::count;

/// How many blocks of tests are shown; the report has the others.
const SHOWN: usize = 30;

/// Writes a summary.
pub(super) struct Text<'a> {
    pub(super) report: &'a Report<'a>,
    pub(super) palette: Palette,
    pub(super) output: &'a mut dyn Write,
    /// Whether something was said about addresses.
    pub(super) is_advised: bool,
}

impl Text<'_> {
    pub(super) fn write(mut self, circumstances: &Circumstances) -> io::Result<()> {
        let report = self.report;
        let blocks = blocks(report.entries());
        let shown = &blocks[..blocks.len().min(SHOWN)];
        let mut quoted = HashSet::new();
        for block in shown {
            self.block(block, &mut quoted)?;
            if circumstances.machines > 1 {
                self.advise(block.reason, &block.batches, block.ids.first().copied())?;
            }
        }
        let more: usize = blocks[shown.len()..].iter().map(Block::tests).sum();
        if more > 0 {
            self.line(format!("and {more} more: `offload logs --failures`, `offload logs --errors`"))?;
        }
        // What broke a batch is not repeated where it stayed the reason of tests.
        let is_known = |incident: &Incident<'_>| shown.iter().any(|block| block.reason == incident.reason);
        for broken in incidents(&report.summary.broken).iter().filter(|broken| !is_known(broken)) {
            self.incident("BROKEN", broken)?;
            self.line("    its tests without a result were run again")?;
            self.quote(&broken.batches, &mut quoted)?;
        }
        for error in &incidents(&report.summary.errors) {
            self.incident("ERROR", error)?;
            self.quote(&error.batches, &mut quoted)?;
            if circumstances.machines > 1 {
                self.advise(error.reason, &error.batches, None)?;
            }
        }
        self.totals(circumstances)?;
        if let Some(Forecast { predicted, took }) = circumstances.forecast {
            let (predicted, took) = (predicted.as_secs_f64(), took.as_secs_f64());
            let more = (took / predicted.max(0.001) - 1.0) * 100.0;
            self.dim(format!("predicted {predicted:.1} s, took {took:.1} s ({more:+.0}%)"))?;
        }
        if let Some(junit) = &circumstances.junit {
            self.dim(format!("report: {}", junit.display()))?;
        }
        for again in &circumstances.again {
            self.dim(format!("run again: {again}"))?;
        }
        self.output.flush()
    }

    fn block(&mut self, block: &Block<'_>, quoted: &mut HashSet<u32>) -> io::Result<()> {
        let is_one = block.tests() == 1;
        let words = block.words.iter().map(|(word, tests)| {
            let painted = self.paint(word.to_string());
            if is_one { painted } else { format!("{painted} {}", count(*tests, "test")) }
        });
        let words = words.collect::<Vec<_>>().join(", ");
        if is_one {
            self.line(format!("{words} {}", one_line(block.ids[0])))?;
        } else {
            self.line(words)?;
        }
        if let Some(Attempts { failed, all }) = block.attempts {
            self.line(format!("    {failed} of {all} attempts failed"))?;
        }
        for line in headlines(block.reason) {
            self.line(format!("    {line}"))?;
        }
        if !is_one {
            for id in &block.ids {
                self.line(format!("      {}", one_line(id)))?;
            }
            let more = block.tests() - block.ids.len();
            if more > 0 {
                self.line(format!("      and {more} more"))?;
            }
        }
        if block.is_stated {
            return self.quote(&block.batches, quoted);
        }
        match self.report.first_logs(&block.batches).first() {
            Some(log) => self.dim(format!("    log: {}", log.path.display())),
            None => Ok(()),
        }
    }

    /// Says what to do where an address was taken, once in a summary.
    fn advise(&mut self, reason: &str, batches: &[u32], id: Option<&str>) -> io::Result<()> {
        if self.is_advised {
            return Ok(());
        }
        match self.report.advice(reason, batches, id) {
            Some(advice) => {
                self.is_advised = true;
                self.line(format!("    hint: {advice}"))
            }
            None => Ok(()),
        }
    }

    fn incident(&mut self, word: &str, incident: &Incident<'_>) -> io::Result<()> {
        let (word, place) = (self.paint(word), incident.place());
        let colon = if place.is_empty() { "" } else { ": " };
        let mut lines = headlines(incident.reason).into_iter();
        self.line(format!("{word} {place}{colon}{}", lines.next().unwrap_or_default()))?;
        for line in lines {
            self.line(format!("    {line}"))?;
        }
        Ok(())
    }

    /// Quotes the ends of the logs of the first of `batches` that has any, each batch once in a summary.
    fn quote(&mut self, batches: &[u32], quoted: &mut HashSet<u32>) -> io::Result<()> {
        let found = batches.iter().map(|batch| (*batch, self.report.logs.of(*batch)));
        let Some((batch, logs)) = found.into_iter().find(|(_, logs)| !logs.is_empty()) else {
            return Ok(());
        };
        let is_new = quoted.insert(batch);
        for log in logs {
            for line in log.tail().iter().filter(|_| is_new) {
                self.line(format!("    | {line}"))?;
            }
            self.dim(format!("    log: {}", log.path.display()))?;
        }
        Ok(())
    }

    fn totals(&mut self, circumstances: &Circumstances) -> io::Result<()> {
        let (summary, palette) = (self.report.summary, self.palette);
        let counts = summary.counts;
        let passed = format!("{} passed", counts.passed);
        let passed = if counts.passed > 0 { palette.green(passed).to_string() } else { passed };
        let mut text = format!("{}: {passed}", count(summary.verdicts.len(), "test"));
        let bad = [(counts.failed, "failed"), (counts.not_run, "not run")];
        for (number, word) in bad.into_iter().filter(|(number, _)| *number > 0) {
            text += &format!(", {}", palette.red(format!("{number} {word}")));
        }
        if counts.flaky > 0 {
            text += &format!(", {}", palette.yellow(format!("{} flaky", counts.flaky)));
        }
        let skipped = [(counts.skipped, "skipped"), (counts.expected_failures, "failed as expected")];
        for (number, word) in skipped.into_iter().filter(|(number, _)| *number > 0) {
            text += &format!(", {number} {word}");
        }
        let sandboxes = count(circumstances.machines, "sandbox");
        self.line(format!("{text} in {:.1} s on {sandboxes}", circumstances.elapsed.as_secs_f64()))
    }

    fn paint(&self, word: impl AsRef<str>) -> String {
        let word = word.as_ref();
        let is_flaky = word == Word::Flaky.to_string() || word == "BROKEN";
        if is_flaky { self.palette.yellow(word).to_string() } else { self.palette.red(word).to_string() }
    }

    fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.output, "{text}")
    }

    fn dim(&mut self, text: String) -> io::Result<()> {
        // Everything that is named here may come from elsewhere; a name must not move the cursor.
        let text = printable(&text);
        match text.strip_prefix("    ") {
            Some(rest) => self.line(format!("    {}", self.palette.dim(rest))),
            None => self.line(self.palette.dim(text)),
        }
    }
}
