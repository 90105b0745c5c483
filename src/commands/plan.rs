//! `offload plan`: what a run would do, without running, and what other numbers of sandboxes would bring.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::collect::{Format, NoTests};
use super::estimates::Estimates;
use super::planning::Planning;
use super::sandboxes::SandboxSource;
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::config::Config;
use crate::discover::Discovery;
use crate::error::{Problem, Status};
use crate::framework::Commands;
use crate::image::Found;
use crate::model::Suite;
use crate::plan::Plan;
use crate::progress::{Screen, Style};
use crate::trace::Trace;

/// No more sandboxes than this are thought of.
const MOST: usize = 1024;
/// So many batches are shown; JSON has all.
const SHOWN: usize = 30;

/// What `plan` tells. Seconds and US dollars.
#[derive(Serialize)]
struct Told<'a> {
    tests: usize,
    measured_tests: usize,
    sandboxes: usize,
    predicted_seconds: f64,
    bound_seconds: f64,
    /// The test that alone takes as long as the bound; `null` where it is the amount of work.
    bound_set_by: Option<&'a str>,
    ratio: f64,
    overhead_seconds_per_batch: f64,
    overhead_seconds_per_file: f64,
    seconds_per_second_of_tests: f64,
    /// The spread of what tests take: the standard deviation of the logarithm.
    noise: Option<f64>,
    batches: Vec<BatchRow<'a>>,
    sandbox_counts: Vec<CountRow>,
}

#[derive(Serialize)]
struct BatchRow<'a> {
    batch: u32,
    group: &'a str,
    predicted_seconds: f64,
    tests: Vec<&'a str>,
}

/// What so many sandboxes would bring.
#[derive(Serialize)]
struct CountRow {
    sandboxes: usize,
    batches: usize,
    predicted_seconds: f64,
    /// The time of all sandboxes together.
    sandbox_seconds: f64,
    estimated_cost_usd: f64,
    is_knee: bool,
}

/// Plans the tests of `config`, a file called `name`, and tells of the plan.
///
/// # Errors
/// When discovery fails, or `output` cannot be written.
pub fn run(
    config: &Config,
    name: &str,
    format: Format,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, &[])?;
    let mut discovery = setup.discover(cancel, &Trace::off())?;
    if discovery.suite.tests().is_empty() {
        return Ok(NoTests::Fail.status());
    }
    let estimates = Estimates::gather(config, name);
    estimates.apply(&mut discovery.suite);
    let shown = with_commands(config, &setup, &discovery, |commands, takes| {
        let planning = Planning {
            commands,
            takes,
            estimates: &estimates,
            timeout: config.offload.test_timeout,
            scratch: &setup.scratch.path().join("batch"),
        };
        let told = tell(config, &planning);
        match format {
            Format::Text => write_text(&told, output),
            Format::Json => serde_json::to_writer_pretty(&mut *output, &told)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(output)),
        }
    })?;
    shown.context("cannot write the plan")?;
    Ok(Status::Passed)
}

/// Calls `action` with the commands of the provider and whether they are short enough for it.
fn with_commands<T>(
    config: &Config,
    setup: &Setup,
    discovery: &Discovery,
    action: impl FnOnce(Commands<'_>, &dyn Fn(&CommandLine) -> bool) -> T,
) -> Result<T, Problem> {
    let commands = Commands {
        framework: &*setup.framework,
        suite: &discovery.suite,
        facts: &discovery.facts,
        shared: None,
        root: "/",
        surroundings: &setup.site.surroundings,
        fail_fast: false,
    };
    let source = SandboxSource::new(config, setup, &[], &Screen::new(Style::Lines), &Cancel::new())?;
    let provider = source.provider(Found::default(), None);
    let shared = provider.shares_files().then_some(discovery.shared.as_path());
    let commands = Commands { shared, root: provider.root(), ..commands };
    Ok(action(commands, &|command| provider.takes(command)))
}

fn tell<'a>(config: &Config, planning: &Planning<'a>) -> Told<'a> {
    let suite = planning.commands.suite;
    let wanted = config.offload.max_parallel;
    let plan = planning.plan(wanted);
    let conditions = planning.estimates.conditions(wanted, planning.commands.framework.grain());
    let (predicted, bound) = (plan.predicted.as_secs_f64(), plan.bound.duration.as_secs_f64());
    let price = config.usd_per_sandbox_second();
    Told {
        tests: suite.tests().len(),
        measured_tests: suite.tests().iter().filter(|test| test.measured).count(),
        sandboxes: wanted.min(plan.batches.len()),
        predicted_seconds: predicted,
        bound_seconds: bound,
        bound_set_by: plan.bound.set_by.map(|test| suite.test(test).id.as_str()),
        ratio: predicted / bound.max(f64::MIN_POSITIVE),
        overhead_seconds_per_batch: conditions.overhead.per_batch.as_secs_f64(),
        overhead_seconds_per_file: conditions.overhead.per_file.as_secs_f64(),
        seconds_per_second_of_tests: conditions.overhead.pace,
        noise: conditions.noise,
        sandbox_counts: counts(planning, (wanted, &plan), price),
        batches: rows(suite, &plan),
    }
}

fn rows<'a>(suite: &'a Suite, plan: &Plan) -> Vec<BatchRow<'a>> {
    let row = |batch: &crate::model::Batch| BatchRow {
        batch: batch.index,
        group: &suite.group(batch.group).name,
        predicted_seconds: batch.load.as_secs_f64(),
        tests: batch.tests.iter().map(|test| suite.test(*test).id.as_str()).collect(),
    };
    plan.batches.iter().map(row).collect()
}

/// One row for 1, 2, 4, … sandboxes, as far as more of them bring anything, and one for the wanted number.
fn counts(planning: &Planning<'_>, (wanted, plan): (usize, &Plan), price: f64) -> Vec<CountRow> {
    let row = |sandboxes: usize, plan: &Plan| {
        let together: Duration = plan.batches.iter().map(|batch| batch.load).sum();
        CountRow {
            sandboxes,
            batches: plan.batches.len(),
            predicted_seconds: plan.predicted.as_secs_f64(),
            sandbox_seconds: together.as_secs_f64(),
            estimated_cost_usd: together.as_secs_f64() * price,
            is_knee: false,
        }
    };
    let mut rows = vec![row(wanted, plan)];
    let mut last = f64::INFINITY;
    let most = planning.commands.suite.tests().len().min(MOST);
    for sandboxes in (0..).map(|power| 1 << power).take_while(|sandboxes| *sandboxes <= most) {
        if sandboxes != wanted {
            rows.push(row(sandboxes, &planning.plan(sandboxes)));
        }
        let Some(now) = rows.iter().find(|row| row.sandboxes == sandboxes) else { break };
        if now.predicted_seconds > 0.99 * last && sandboxes > wanted {
            break;
        }
        last = now.predicted_seconds;
    }
    rows.sort_by_key(|row| row.sandboxes);
    mark_knee(&mut rows);
    rows
}

/// Marks the number of sandboxes with the most efficiency for its time (D. L. Eager, J. Zahorjan,
/// E. D. Lazowska, "Speedup versus efficiency in parallel systems", IEEE Trans. Comput. 38, 1989):
/// efficiency is T(1) / (n T(n)), so it is the one with the least n T(n)².
fn mark_knee(rows: &mut [CountRow]) {
    let product = |row: &CountRow| row.sandboxes as f64 * row.predicted_seconds.powi(2);
    let knee = rows.iter_mut().min_by(|one, other| product(one).total_cmp(&product(other)));
    if let Some(knee) = knee {
        knee.is_knee = true;
    }
}

fn write_text(told: &Told<'_>, output: &mut dyn Write) -> io::Result<()> {
    let Told { tests, measured_tests, sandboxes, predicted_seconds, bound_seconds, ratio, .. } = told;
    let batches = told.batches.len();
    writeln!(
        output,
        "{tests} tests ({measured_tests} measured) in {batches} batches on {sandboxes} sandboxes"
    )?;
    let set_by = told
        .bound_set_by
        .map_or_else(|| "all work, spread evenly".to_owned(), |id| format!("`{}`", id.escape_debug()));
    writeln!(
        output,
        "predicted {predicted_seconds:.1} s, at least {bound_seconds:.1} s ({set_by}), ratio {ratio:.2}"
    )?;
    let spread = told.noise.map_or_else(
        || "how much tests vary is not known".to_owned(),
        |noise| format!("tests vary by {:.0} %", noise * 100.0),
    );
    writeln!(
        output,
        "a batch costs {:.2} s, and {:.3} s for each file; {spread}\n",
        told.overhead_seconds_per_batch, told.overhead_seconds_per_file
    )?;
    writeln!(output, "batch  tests  predicted  from")?;
    for row in told.batches.iter().take(SHOWN) {
        let first = row.tests.first().copied().unwrap_or_default().escape_debug();
        let (batch, count, seconds) = (row.batch, row.tests.len(), row.predicted_seconds);
        writeln!(output, "{batch:5}  {count:5}  {seconds:7.1} s  {}: {first}", row.group)?;
    }
    if batches > SHOWN {
        writeln!(output, "and {} more (`--format json` has all)", batches - SHOWN)?;
    }
    writeln!(output, "\nsandboxes  batches  predicted  sandbox time       cost")?;
    for row in &told.sandbox_counts {
        let CountRow { sandboxes, batches, predicted_seconds, sandbox_seconds, estimated_cost_usd, is_knee } =
            row;
        let knee = if *is_knee { "  <- knee" } else { "" };
        writeln!(
            output,
            "{sandboxes:9}  {batches:7}  {predicted_seconds:7.1} s  {sandbox_seconds:10.1} s  {estimated_cost_usd:7.4} $\
             {knee}"
        )?;
    }
    output.flush()
}
