//! `offload collect`: lists the tests and runs none.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::Config;
use crate::error::{Problem, Status};
use crate::model::Suite;
use crate::trace::Trace;

/// How the list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An id a line.
    Text,
    /// An array of objects.
    Json,
}

/// What discovering nothing means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTests {
    /// All is well.
    Pass,
    /// All is well, with a warning.
    Warn,
    /// The command fails.
    Fail,
}

impl NoTests {
    /// The status of a command that found no test.
    pub fn status(self) -> Status {
        match self {
            NoTests::Pass => Status::Passed,
            NoTests::Warn => {
                log::warn!("no tests were found");
                Status::Passed
            }
            NoTests::Fail => {
                log::error!("no tests were found (`--no-tests=pass` allows that)");
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

/// Lists the tests of `config`, groups in file order, tests in discovery order.
///
/// # Errors
/// When discovery fails, or `output` cannot be written.
pub fn run(
    config: &Config,
    (format, no_tests): (Format, NoTests),
    env: &[(String, String)],
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, env)?;
    let discovery = setup.discover(cancel, &Trace::off())?;
    write(&discovery.suite, format, output).context("cannot write the list")?;
    Ok(if discovery.suite.tests().is_empty() { no_tests.status() } else { Status::Passed })
}

/// Writes the tests of `suite`.
///
/// # Errors
/// Those of the writer.
pub fn write(suite: &Suite, format: Format, output: &mut dyn Write) -> std::io::Result<()> {
    match format {
        Format::Text => {
            for test in suite.tests() {
                writeln!(output, "{}", test.id)?;
            }
        }
        Format::Json => {
            let rows: Vec<Row<'_>> = suite.tests().iter().map(|test| row(suite, test)).collect();
            serde_json::to_writer_pretty(&mut *output, &rows)?;
            writeln!(output)?;
        }
    }
    output.flush()
}

fn row<'a>(suite: &'a Suite, test: &'a crate::model::TestCase) -> Row<'a> {
    let id = test.id.as_str();
    // What follows the file: parameters may hold any separator, so only the part before them counts.
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
