//! `offload history show`: the slowest tests, the flakiest, and those that have become slow.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::commands::{OutputFormat, recording};
use crate::config::Config;
use crate::error::{Problem, Status, one_line};
use crate::history::{History, Record, median};
use crate::words::count;

/// With fewer attempts a failure rate means little; such tests are listed last.
const ENOUGH: u64 = 5;
/// This many recent passes are compared with at least as many earlier ones.
const LAST: usize = 3;
/// A test is newly slow if its duration grew by this factor,
const FACTOR: f64 = 1.5;
/// and by this many seconds.
const ADDED: f64 = 0.1;

/// Shows the first `limit` tests of each list. `name` is the name of the configuration file.
///
/// # Errors
/// Without [history], with an unreadable history, or when `output` cannot be written.
pub fn show(
    config: &Config,
    name: &str,
    format: OutputFormat,
    limit: usize,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let Some(section) = &config.history else {
        return Err(Problem::usage("the configuration has no [history] section")
            .hint("add `[history]` to it, then record results with `offload run --record-history`"));
    };
    let history = History::load(&section.path)?;
    let tests: Vec<(&str, &Record)> = history.of(name).filter(|(id, _)| !recording::is_own(id)).collect();
    let overview = Overview::new(&tests, limit);
    let text = match format {
        OutputFormat::Json => {
            serde_json::to_string_pretty(&overview).context("cannot format the overview")?
        }
        OutputFormat::Text => overview.to_text(name, &section.path),
    };
    writeln!(output, "{}", text.trim_end()).context("cannot write to standard output")?;
    Ok(Status::Passed)
}

#[derive(Serialize)]
struct Overview<'a> {
    tests: usize,
    samples: usize,
    runs: usize,
    slowest: Vec<Slow<'a>>,
    flakiest: Vec<Flaky<'a>>,
    newly_slow: Vec<NewlySlow<'a>>,
}

#[derive(Serialize)]
struct Slow<'a> {
    id: &'a str,
    seconds: f64,
    samples: usize,
}

#[derive(Serialize)]
struct Flaky<'a> {
    id: &'a str,
    failures: u64,
    attempts: u64,
}

#[derive(Serialize)]
struct NewlySlow<'a> {
    id: &'a str,
    seconds_before: f64,
    seconds: f64,
}

impl<'a> Overview<'a> {
    fn new(tests: &[(&'a str, &'a Record)], limit: usize) -> Overview<'a> {
        let samples = || tests.iter().flat_map(|(_, record)| record.passed.iter().chain(&record.failed));
        let mut slowest: Vec<Slow<'a>> = tests.iter().filter_map(|(id, record)| slow(id, record)).collect();
        slowest.sort_by(|one, other| other.seconds.total_cmp(&one.seconds).then(one.id.cmp(other.id)));
        let mut flakiest: Vec<Flaky<'a>> =
            tests.iter().filter_map(|(id, record)| flaky(id, record)).collect();
        flakiest.sort_by(|one, other| {
            let by_rate = other.rate().total_cmp(&one.rate());
            (one.attempts < ENOUGH).cmp(&(other.attempts < ENOUGH)).then(by_rate).then(one.id.cmp(other.id))
        });
        let mut newly_slow: Vec<NewlySlow<'a>> =
            tests.iter().filter_map(|(id, record)| has_become_slow(id, record)).collect();
        newly_slow.sort_by(|one, other| other.added().total_cmp(&one.added()).then(one.id.cmp(other.id)));
        slowest.truncate(limit);
        flakiest.truncate(limit);
        newly_slow.truncate(limit);
        Overview {
            tests: tests.len(),
            samples: samples().count(),
            runs: samples().map(|sample| &sample.run).collect::<HashSet<_>>().len(),
            slowest,
            flakiest,
            newly_slow,
        }
    }

    fn to_text(&self, name: &str, path: &Path) -> String {
        let path = path.display();
        if self.tests == 0 {
            return format!("history `{path}` has no tests of `{name}` yet");
        }
        let Overview { tests, samples, runs, slowest, flakiest, newly_slow } = self;
        let counts = [count(*tests, "test"), count(*samples, "sample"), count(*runs, "run")].join(", ");
        let mut text = format!("history `{path}` for `{name}`: {counts}\n");
        let rows = slowest.iter().map(|test| ([seconds(test.seconds), test.samples.to_string()], test.id));
        table(&mut text, "Slowest", ["seconds", "samples"], rows);
        let rows = flakiest.iter().map(|test| {
            let rate = format!("{:.1}%", test.rate() * 100.0);
            ([test.failures.to_string(), test.attempts.to_string(), rate], test.id)
        });
        table(&mut text, "Flakiest", ["failures", "attempts", "rate"], rows);
        let rows = newly_slow.iter().map(|test| {
            let factor = test.seconds / test.seconds_before;
            let factor = if factor < 1000.0 { format!("× {factor:.1}") } else { "-".into() };
            ([seconds(test.seconds_before), seconds(test.seconds), factor], test.id)
        });
        table(&mut text, "Newly slow", ["before", "seconds", "factor"], rows);
        text
    }
}

fn slow<'a>(id: &'a str, record: &Record) -> Option<Slow<'a>> {
    let seconds = record.typical()?.as_secs_f64();
    Some(Slow { id, seconds, samples: record.passed.len() + record.failed.len() })
}

fn flaky<'a>(id: &'a str, record: &Record) -> Option<Flaky<'a>> {
    let Record { attempts, failures, .. } = *record;
    (failures > 0 && failures < attempts).then_some(Flaky { id, failures, attempts })
}

fn has_become_slow<'a>(id: &'a str, record: &Record) -> Option<NewlySlow<'a>> {
    let passes: Vec<f64> = record.passed.iter().map(|sample| sample.seconds).collect();
    let last = LAST.min(passes.len().checked_sub(LAST)?);
    let (before, last) = passes.split_at(passes.len() - last);
    let test = NewlySlow { id, seconds_before: median(before.to_vec())?, seconds: median(last.to_vec())? };
    (test.seconds >= test.seconds_before * FACTOR && test.added() >= ADDED).then_some(test)
}

impl Flaky<'_> {
    fn rate(&self) -> f64 {
        self.failures as f64 / self.attempts as f64
    }
}

impl NewlySlow<'_> {
    fn added(&self) -> f64 {
        self.seconds - self.seconds_before
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

/// Adds a table with right-aligned numbers and the ID in the last column, unless it has no rows.
fn table<'a, const N: usize>(
    text: &mut String,
    title: &str,
    heads: [&str; N],
    rows: impl Iterator<Item = ([String; N], &'a str)>,
) {
    let rows: Vec<([String; N], &str)> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|(cells, _)| cells[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{title}");
    let mut line = |cells: [&str; N], id: &str| {
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, "  {cell:>width$}");
        }
        let _ = writeln!(text, "  {id}");
    };
    line(heads, "test");
    for (cells, id) in &rows {
        line(std::array::from_fn(|column| cells[column].as_str()), &one_line(id));
    }
}
