//! `offload collect`: lists the tests without running them.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::OutputFormat;
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::Config;
use crate::discover::Discovery;
use crate::error::{Problem, Status};
use crate::model::Suite;
use crate::trace::Trace;

/// What to do when no tests are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NoTests {
    Pass,
    Warn,
    Fail,
}

/// How tests are listed.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// How the list is written.
    pub format: OutputFormat,
    /// What to do when it is empty.
    pub no_tests: NoTests,
    /// More variables for the processes of tests.
    pub env: &'a [(String, String)],
}

impl NoTests {
    /// The status of a command that found no tests.
    pub fn status(self) -> Status {
        match self {
            NoTests::Pass => Status::Passed,
            NoTests::Warn => {
                log::warn!("no tests were found");
                Status::Passed
            }
            NoTests::Fail => {
                log::error!("no tests were found (use `--no-tests=pass` to allow this)");
                Status::Failed
            }
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    name: &'a str,
    file: Option<&'a str>,
    group: &'a str,
    retry_count: u32,
    schedule_individual: bool,
}

/// Lists the tests of `config`: groups in file order, tests in discovery order.
///
/// # Errors
/// When discovery fails, or `output` cannot be written.
pub fn run(
    config: &Config,
    options: &Options<'_>,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, options.env)?;
    let discovery = setup.discover(cancel, &Trace::off())?;
    write(&discovery.suite, options.format, output).context("cannot write the list")?;
    let empty = || discovery.suite.tests().is_empty().then(|| options.no_tests.status());
    Ok(show_errors(&discovery).or_else(empty).unwrap_or(Status::Passed))
}

/// Shows which files did not load. Returns the status of that, if there are any.
pub fn show_errors(discovery: &Discovery) -> Option<Status> {
    for error in &discovery.errors {
        log::error!("{}: {}", error.file, error.message);
    }
    (!discovery.errors.is_empty()).then_some(Status::Failed)
}

fn write(suite: &Suite, format: OutputFormat, output: &mut dyn Write) -> std::io::Result<()> {
    match format {
        OutputFormat::Text => {
            for test in suite.tests() {
                writeln!(output, "{}", test.id)?;
            }
        }
        OutputFormat::Json => {
            let rows: Vec<Row<'_>> = suite.tests().iter().map(|test| row(suite, test)).collect();
            serde_json::to_writer_pretty(&mut *output, &rows)?;
            writeln!(output)?;
        }
    }
    output.flush()
}

fn row<'a>(suite: &'a Suite, test: &'a crate::model::TestCase) -> Row<'a> {
    let id = test.id.as_str();
    // The name follows the last separator; parameters may contain separators, so look only before them.
    let start = test.family().rfind("::").map_or(0, |place| place + 2);
    Row {
        id,
        name: &id[start..],
        file: test.file.as_deref(),
        group: &suite.group(test.group).name,
        retry_count: test.max_attempts - 1,
        schedule_individual: test.solo,
    }
}
