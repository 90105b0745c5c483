//! `offload plan`: what a run would do, and the effect of other numbers of sandboxes, without running tests.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::OutputFormat;
use super::collect::NoTests;
use super::estimates::Estimates;
use super::planning::Planning;
use super::sandboxes::SandboxSource;
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::color::Palette;
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
use crate::words::count;

/// The largest number of sandboxes that is considered.
const MOST: usize = 1024;
/// How many batches the text shows; JSON has all of them.
const SHOWN: usize = 30;

/// The output of `plan`, in seconds and US dollars.
#[derive(Serialize)]
struct Overview<'a> {
    tests: usize,
    measured_tests: usize,
    sandboxes: usize,
    predicted_seconds: f64,
    bound_seconds: f64,
    /// The test that takes as long as the bound; `null` if the total work sets the bound.
    bound_set_by: Option<&'a str>,
    ratio: f64,
    overhead_seconds_per_batch: f64,
    overhead_seconds_per_file: f64,
    seconds_per_second_of_tests: f64,
    /// How much durations vary: the standard deviation of their logarithm.
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

/// The effect of a number of sandboxes.
#[derive(Serialize)]
struct CountRow {
    sandboxes: usize,
    batches: usize,
    predicted_seconds: f64,
    /// The total time of all sandboxes.
    sandbox_seconds: f64,
    estimated_cost_usd: f64,
    is_knee: bool,
}

/// Plans the tests of `config`, a file called `name`, and shows the plan.
///
/// # Errors
/// When discovery fails, or `output` cannot be written.
pub fn run(
    config: &Config,
    name: &str,
    format: OutputFormat,
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
            limits: &config.group_limits(),
            scratch: &setup.scratch.path().join("batch"),
        };
        let overview = overview(config, &planning);
        match format {
            OutputFormat::Text => write_text(&overview, output),
            OutputFormat::Json => serde_json::to_writer_pretty(&mut *output, &overview)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(output)),
        }
    })?;
    shown.context("cannot write the plan")?;
    Ok(Status::Passed)
}

/// Calls `action` with the provider's commands, and a check whether a command is short enough for it.
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
        sandboxes: config.offload.max_parallel,
    };
    let screen = Screen::new(Style::Lines, Palette::default());
    let source = SandboxSource::new(config, setup, &[], &screen, &Cancel::new())?;
    let provider = source.provider(Found::default(), None);
    let shared = provider.shares_files().then_some(discovery.shared.as_path());
    let commands = Commands { shared, root: provider.root(), ..commands };
    Ok(action(commands, &|command| provider.takes(command)))
}

fn overview<'a>(config: &Config, planning: &Planning<'a>) -> Overview<'a> {
    let suite = planning.commands.suite;
    let wanted = config.offload.max_parallel;
    let plan = planning.plan(wanted);
    let conditions = planning.estimates.conditions(wanted, planning.commands.framework.grain());
    let (predicted, bound) = (plan.predicted.as_secs_f64(), plan.bound.duration.as_secs_f64());
    let price = config.usd_per_sandbox_second();
    Overview {
        tests: suite.tests().len(),
        measured_tests: suite.tests().iter().filter(|test| test.measured).count(),
        sandboxes: wanted.min(plan.width(planning.limits)),
        predicted_seconds: predicted,
        bound_seconds: bound,
        bound_set_by: plan.bound.set_by.map(|test| suite.test(test).id.as_str()),
        ratio: predicted / bound.max(f64::MIN_POSITIVE),
        overhead_seconds_per_batch: conditions.overhead.per_batch.as_secs_f64(),
        overhead_seconds_per_file: conditions.overhead.per_file.as_secs_f64(),
        seconds_per_second_of_tests: conditions.overhead.pace,
        noise: conditions.noise,
        sandbox_counts: counts(planning, &plan, wanted, price),
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

/// A row for 1, 2, 4, … sandboxes, as long as more of them help, and one for the `wanted` number, whose plan
/// is `plan`.
fn counts(planning: &Planning<'_>, plan: &Plan, wanted: usize, price: f64) -> Vec<CountRow> {
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

/// Marks the number of sandboxes with the best ratio of efficiency to time (D. L. Eager, J. Zahorjan,
/// E. D. Lazowska, "Speedup versus efficiency in parallel systems", IEEE Trans. Comput. 38, 1989):
/// efficiency is T(1) / (n T(n)), so it is the one with the least n T(n)².
fn mark_knee(rows: &mut [CountRow]) {
    let product = |row: &CountRow| row.sandboxes as f64 * row.predicted_seconds.powi(2);
    let knee = rows.iter_mut().min_by(|one, other| product(one).total_cmp(&product(other)));
    if let Some(knee) = knee {
        knee.is_knee = true;
    }
}

fn write_text(overview: &Overview<'_>, output: &mut dyn Write) -> io::Result<()> {
    let Overview { tests, measured_tests, sandboxes, predicted_seconds, bound_seconds, ratio, .. } = overview;
    let batches = overview.batches.len();
    let (tests, sandboxes) = (count(*tests, "test"), count(*sandboxes, "sandbox"));
    let in_batches = count(batches, "batch");
    writeln!(output, "{tests} ({measured_tests} measured) in {in_batches} on {sandboxes}")?;
    let set_by = overview
        .bound_set_by
        .map_or_else(|| "total work, spread evenly".to_owned(), |id| format!("`{}`", id.escape_debug()));
    writeln!(
        output,
        "predicted {predicted_seconds:.1} s; lower bound {bound_seconds:.1} s ({set_by}); ratio {ratio:.2}"
    )?;
    let spread = overview.noise.map_or_else(
        || "variation of tests unknown".to_owned(),
        |noise| format!("durations vary by {:.0}%", noise * 100.0),
    );
    writeln!(
        output,
        "overhead {:.2} s per batch, {:.3} s per file; {spread}\n",
        overview.overhead_seconds_per_batch, overview.overhead_seconds_per_file
    )?;
    writeln!(output, "batch  tests  predicted  first test")?;
    for row in overview.batches.iter().take(SHOWN) {
        let first = row.tests.first().copied().unwrap_or_default().escape_debug();
        let (batch, count, seconds) = (row.batch, row.tests.len(), row.predicted_seconds);
        writeln!(output, "{batch:5}  {count:5}  {seconds:7.1} s  {}: {first}", row.group)?;
    }
    if batches > SHOWN {
        writeln!(output, "and {} more (shown by `--format json`)", batches - SHOWN)?;
    }
    writeln!(output, "\nsandboxes  batches  predicted  sandbox time       cost")?;
    for row in &overview.sandbox_counts {
        let CountRow { sandboxes, batches, predicted_seconds, sandbox_seconds, estimated_cost_usd, is_knee } =
            row;
        let cost = format!("${estimated_cost_usd:.4}");
        let knee = if *is_knee { "  <- knee" } else { "" };
        writeln!(
            output,
            "{sandboxes:9}  {batches:7}  {predicted_seconds:7.1} s  {sandbox_seconds:10.1} s  {cost:>9}{knee}"
        )?;
    }
    output.flush()
}
