//! `offload run`: the one place that knows the order of the stages.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::bench::{Rules, Workbench};
use super::collect::{self, Format, NoTests};
use super::setup::{self, Setup};
use super::watch::{Outcomes, Watch};
use crate::cancel::Cancel;
use crate::collect::{Hedging, Policy};
use crate::config::{Config, FrameworkKind};
use crate::discover::Discovery;
use crate::error::{Problem, Status};
use crate::files::{self, OutputDir};
use crate::framework::custom::ALL_TESTS;
use crate::junit;
use crate::model::{Attempt, Suite, TestIndex, Verdict};
use crate::plan::{self, Limits, Plan};
use crate::pool::{self, Pool};
use crate::progress::{Progress, Screen};
use crate::provider::Provider;
use crate::report::{Circumstances, Report};
use crate::summary::Summary;
use crate::trace::{Trace, Track};

/// With more failed tests than this, no command to run them again is shown.
const SHOWN_AGAIN: usize = 20;

/// The flags of `run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// List the tests and stop.
    pub collect_only: bool,
    /// Variables for all tests.
    pub env: Vec<(String, String)>,
    /// The first test that fails ends the run.
    pub fail_fast: bool,
    /// What no tests mean.
    pub no_tests: NoTests,
    /// Where the run is recorded.
    pub trace: Trace,
    /// Standard error.
    pub screen: Screen,
}

/// Runs the tests of `config` and writes results to `output`.
///
/// # Errors
/// When the run could not be done at all, or its reports cannot be written.
pub fn run(
    config: &Config,
    options: &Options,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    let setup = Setup::new(config, &options.env)?;
    if options.collect_only {
        return collect::run(config, (Format::Text, options.no_tests), &options.env, cancel, output);
    }
    OutputDir::check(&config.report.output_dir, &setup.site.root).map_err(|error| {
        Problem::new(Status::Usage, error)
            .hint("give the reports a folder of their own with `output_dir` in [report]")
    })?;
    let folder = OutputDir::claim(&config.report.output_dir)?;
    let provider = setup::local_provider(config, &setup.env)?;
    let known = previous_durations(config);
    let junit = Path::new(&config.report.junit_file);
    folder.clear(junit)?;
    let span = options.trace.span(Track::Phases, || "discovery".into());
    options.screen.announce("listing the tests");
    let discovery = setup.discover(cancel, &options.trace);
    drop(span);
    if !matches!(&discovery, Ok(discovery) if !discovery.suite.tests().is_empty()) {
        // The report of an earlier run must not be taken for that of this one.
        folder.forget(junit);
        write_trace(&folder, &options.trace)?;
    }
    let mut discovery = discovery?;
    if discovery.suite.tests().is_empty() {
        return Ok(options.no_tests.status());
    }
    plan::estimate(&mut discovery.suite, &known, Duration::from_secs(1));
    let parts = Parts { config, options, setup: &setup, provider: &provider, folder: &folder };
    parts.execute(&discovery, cancel, output)
}

fn write_trace(folder: &OutputDir, trace: &Trace) -> Result<()> {
    if trace.is_on() {
        let path = folder.place(Path::new("trace.json"))?;
        files::write_whole(&path, |writer| trace.write(writer))?;
    }
    Ok(())
}

fn previous_durations(config: &Config) -> HashMap<String, Duration> {
    let path = config.report.output_dir.join(&config.report.junit_file);
    files::open(&path).map(junit::previous_durations).unwrap_or_default()
}

/// What a run is made of once its tests are known.
struct Parts<'a> {
    config: &'a Config,
    options: &'a Options,
    setup: &'a Setup,
    provider: &'a dyn Provider,
    folder: &'a OutputDir,
}

impl Parts<'_> {
    fn execute(
        &self,
        discovery: &Discovery,
        cancel: &Cancel,
        output: &mut dyn Write,
    ) -> Result<Status, Problem> {
        let started = Instant::now();
        let stop = cancel.child();
        let bench = self.bench(discovery, &stop);
        let machines = self.config.offload.max_parallel;
        let plan = self.plan(&bench, machines);
        let machines = machines.min(plan.batches.len());
        log::info!(
            "{} tests in {} batches on {machines} sandboxes, expected to take {:.1} s",
            discovery.suite.tests().len(),
            plan.batches.len(),
            plan.makespan(machines).as_secs_f64()
        );
        let policy = Policy { machines, fail_fast: self.options.fail_fast, hedge: self.hedging() };
        let next = u32::try_from(plan.batches.len()).unwrap_or(u32::MAX);
        let progress = Progress::new(self.options.screen.clone(), discovery.suite.tests().len());
        let mut watch = Watch::new(&bench, policy, next, progress);
        let pool = Pool { provider: self.provider, machines, bench: &bench, cancel: &stop };
        let span = self.options.trace.span(Track::Phases, || "run".into());
        pool::run(&pool, plan.batches, |event| watch.hear(event));
        drop(span);
        let (summary, outcomes, nothing) = watch.finish();
        let fatal = bench.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let status = self.report(&bench, summary, (&outcomes, machines, started.elapsed()), output)?;
        if let Some(error) = fatal {
            return Err(error.into());
        }
        if cancel.is_raised() {
            return Err(Problem::new(Status::Interrupted, anyhow::anyhow!("the run was interrupted")));
        }
        if let Some(error) = nothing {
            return Err(anyhow::anyhow!("no test could be run in any sandbox: {error}").into());
        }
        Ok(status)
    }

    /// Writes all that is to be read afterwards.
    fn report(
        &self,
        bench: &Workbench<'_>,
        summary: Summary,
        (outcomes, machines, elapsed): (&Outcomes, usize, Duration),
        output: &mut dyn Write,
    ) -> Result<Status, Problem> {
        let again = again(bench, &summary, &self.setup.site.root);
        let as_one = matches!(self.config.framework.kind, FrameworkKind::Custom { result_file: None, .. });
        let summary = if as_one { summary.as_one() } else { summary };
        let log = |attempt: &Attempt| {
            let outcome = outcomes.get(&attempt.batch)?;
            Some(self.folder.path().join(format!("logs/batch-{}.stdout.{}", attempt.batch, outcome.word())))
        };
        let report =
            Report { suite: bench.suite, summary: &summary, only: as_one.then_some(ALL_TESTS), log: &log };
        let settings = &self.config.report;
        let junit = settings.junit.then(|| self.folder.place(Path::new(&settings.junit_file))).transpose()?;
        if junit.is_none() {
            self.folder.forget(Path::new(&settings.junit_file));
        }
        warn_of_extras(&summary, bench.suite);
        let circumstances = Circumstances { elapsed, machines, junit, again };
        // What people wait for comes first: a full disk must not hide it.
        let shown = report.write_summary(&circumstances, output);
        if let Some(path) = &circumstances.junit {
            let _span = self.options.trace.span(Track::Phases, || "write the report".into());
            report.write_junit(path, elapsed)?;
        }
        write_trace(self.folder, &self.options.trace)?;
        shown.context("cannot write the summary")?;
        Ok(summary.status())
    }

    fn bench<'b>(&'b self, discovery: &'b Discovery, stop: &'b Cancel) -> Workbench<'b> {
        let report = &self.config.report;
        Workbench {
            framework: &*self.setup.framework,
            suite: &discovery.suite,
            facts: &discovery.facts,
            shared: self.provider.shares_files().then_some(discovery.shared.as_path()),
            root: self.provider.root(),
            scratch: self.setup.scratch.path().to_owned(),
            surroundings: &self.setup.site.surroundings,
            output: self.folder,
            mask: Arc::clone(&self.setup.site.mask),
            rules: Rules {
                timeout: self.config.offload.test_timeout,
                fail_fast: self.options.fail_fast,
                globs: report.download_globs.clone(),
                globs_on_failure_only: report.download_globs_failure_only,
            },
            trace: &self.options.trace,
            stop,
            fatal: Mutex::default(),
        }
    }

    /// Whether and when late batches run a second time.
    fn hedging(&self) -> Option<Hedging> {
        let overhead = Duration::from_millis(500);
        self.config.requeues_impatiently().then_some(Hedging { overhead })
    }

    fn plan(&self, bench: &Workbench<'_>, machines: usize) -> Plan {
        let _span = self.options.trace.span(Track::Phases, || "plan".into());
        let scratch = bench.scratch(u32::MAX);
        let fits =
            |tests: &[TestIndex], group| self.provider.takes(&bench.command(tests, group, &scratch).command);
        let limits = Limits { timeout: self.config.offload.test_timeout, fits: &fits };
        let overhead = plan::Overhead::new(Duration::from_millis(500), Duration::ZERO);
        let conditions = plan::Conditions { machines, grain: bench.framework.grain(), overhead, noise: None };
        Plan::new(bench.suite, &conditions, &limits)
    }
}

/// The commands that run again what failed, one for each group, where that is not too much for a line.
fn again(bench: &Workbench<'_>, summary: &Summary, root: &Path) -> Vec<String> {
    let is_failed = |verdict: &Verdict| matches!(verdict, Verdict::Failed | Verdict::NotRun(_));
    let verdicts = bench.suite.indices().zip(&summary.verdicts);
    let mut failed: Vec<TestIndex> =
        verdicts.filter(|(_, verdict)| is_failed(verdict)).map(|(index, _)| index).collect();
    if !(1..=SHOWN_AGAIN).contains(&failed.len()) {
        return Vec::new();
    }
    failed.sort_by_key(|index| (bench.suite.test(*index).group, *index));
    let here = std::env::current_dir().ok().and_then(|current| current.canonicalize().ok());
    let move_there = match root.canonicalize() {
        Ok(root) if here.is_some_and(|here| here != root) => {
            format!("cd {} && ", shell_words::quote(&root.to_string_lossy()))
        }
        _ => String::new(),
    };
    let groups = failed.chunk_by(|one, other| bench.suite.test(*one).group == bench.suite.test(*other).group);
    groups.map(|tests| format!("{move_there}{}", bench.framework.by_hand(tests, bench.suite))).collect()
}

/// Results for unknown tests are told once, with the known ids that come nearest.
fn warn_of_extras(summary: &Summary, suite: &Suite) {
    let Some(extra) = summary.extras.first() else {
        return;
    };
    let mut known: Vec<(usize, &str)> = suite
        .tests()
        .iter()
        .map(|test| (strsim::levenshtein(&extra.name, test.id.as_str()), test.id.as_str()))
        .collect();
    known.sort_unstable();
    let nearest: Vec<String> = known.iter().take(3).map(|(_, id)| format!("`{id}`")).collect();
    let count = summary.extras.len();
    log::warn!(
        "{count} results are for tests that were not discovered, the first for `{}`; the nearest known ids are {} \
         (`test_id_format` says how names become ids)",
        extra.name,
        nearest.join(", ")
    );
}
