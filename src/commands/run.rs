//! `offload run`: the one place that knows the order of the stages.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::OutputFormat;
use super::collect::{self, NoTests};
use super::estimates::Estimates;
use super::hints;
use super::limits;
use super::planning::Planning;
use super::recording;
use super::sandboxes::{self, ImageChoice, SandboxSource, Timed};
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::collect::observer::{Ended, Observer};
use crate::collect::{Policy, SpeculationRule};
use crate::color::Palette;
use crate::config::{Config, FrameworkKind, RecordHistory};
use crate::discover::Discovery;
use crate::error::{Problem, Status};
use crate::event::{Event, Reaction};
use crate::execute::executor::{BatchExecutor, Rules};
use crate::execute::{self, Pool, Usage};
use crate::files::{self, Discarded, OutputDir};
use crate::framework::Commands;
use crate::framework::RunSite;
use crate::framework::custom::ALL_TESTS;
use crate::model::{Reason, Suite};
use crate::plan::Plan;
use crate::progress::{Progress, Screen};
use crate::provider::{Provider, RunEnd};
use crate::report::{Circumstances, Forecast, Logs, Report};
use crate::trace::{Trace, Track};
use crate::words::count;

mod conclude;
mod failures;
mod start;

use conclude::Conclusion;
use start::{Preparation, Start};

/// The flags of `run`.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// List the tests and stop.
    pub collect_only: bool,
    /// Variables for all tests.
    pub env: Vec<(String, String)>,
    /// Directories to copy into the image in addition to configured ones, as `local:remote`.
    pub copy_dirs: Vec<String>,
    /// Rebuild the image.
    pub no_cache: bool,
    /// Use this image, regardless of the configuration.
    pub image: Option<String>,
    /// Show the estimated cost of the sandboxes.
    pub show_cost: bool,
    /// Record the results in the history, if one is configured.
    pub record_history: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// What to do when no tests are found.
    pub no_tests: NoTests,
    /// Where the run is recorded.
    pub trace: Trace,
    /// Standard error.
    pub screen: Screen,
    /// The colors of standard output.
    pub palette: Palette,
}

impl Options {
    fn image_choice(&self) -> ImageChoice<'_> {
        match &self.image {
            Some(id) => ImageChoice::Given(id),
            None if self.no_cache => ImageChoice::Fresh,
            None => ImageChoice::Cached,
        }
    }

    /// The name of the configuration file, which is part of each key in the history.
    fn name(&self) -> String {
        self.config.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Runs the tests of `config` and writes results to `output`.
///
/// # Errors
/// When nothing could be run, or the reports cannot be written.
pub fn run(
    config: &Config,
    options: &Options,
    cancel: &Cancel,
    output: &mut (dyn Write + Send),
) -> Result<Status, Problem> {
    limits::check(1)?;
    let setup = Setup::new(config, &options.env)?;
    if options.collect_only {
        let listing =
            collect::Options { format: OutputFormat::Text, no_tests: options.no_tests, env: &options.env };
        return collect::run(config, &listing, cancel, output);
    }
    OutputDir::check(&config.report.output_dir, &setup.site.root).map_err(|error| {
        Problem::new(Status::Usage, error)
            .hint("set `output_dir` in [report] to a directory used only for reports")
    })?;
    let directory = OutputDir::claim(&config.report.output_dir)?;
    let preparing = cancel.child();
    let source = SandboxSource::new(config, &setup, &options.copy_dirs, &options.screen, &preparing)?;
    let junit = Path::new(&config.report.junit_file);
    directory.clear(junit)?;
    options.screen.announce("listing the tests");
    let preparation =
        Preparation { config, options, setup: &setup, source: &source, cancel, preparing: &preparing };
    let start = preparation.start();
    if !matches!(&start, Ok(start) if !start.discovery.suite.tests().is_empty()) {
        // An earlier report must not be mistaken for that of this run.
        directory.forget(junit);
        write_trace(&directory, &options.trace)?;
    }
    let Start { mut discovery, estimates, image } = start?;
    if discovery.suite.tests().is_empty() {
        options.screen.clear();
        let errors = collect::show_errors(&discovery);
        return Ok(errors.unwrap_or_else(|| options.no_tests.status()));
    }
    estimates.apply(&mut discovery.suite);
    let journal =
        if source.needs_journal() { sandboxes::journal(&options.config, config, &setup) } else { None };
    let provider = source.provider(image, journal);
    let parts = Parts {
        config,
        options,
        setup: &setup,
        provider: &Timed { provider: &*provider, trace: &options.trace },
        directory: &directory,
        estimates: &estimates,
    };
    parts.execute(&discovery, cancel, output)
}

fn write_trace(directory: &OutputDir, trace: &Trace) -> Result<()> {
    if trace.is_on() {
        let path = directory.place(Path::new("trace.json"))?;
        files::write_whole(&path, |writer| trace.write(writer))?;
    }
    Ok(())
}

/// The files that did not load, as errors of the run.
fn load_errors(discovery: &Discovery) -> impl Iterator<Item = Reason> {
    discovery.errors.iter().map(|error| format!("{}: {}", error.file, error.message).into())
}

/// Passes on one event and updates the progress.
fn hear(observer: &mut Observer<'_>, progress: &mut Progress, event: Event) -> Reaction {
    progress.hear(&event);
    let reaction = observer.hear(event);
    if progress.is_due() {
        let (judged, bad) = observer.counts();
        progress.show(judged, bad);
    }
    reaction
}

/// An error if a run was interrupted, or ran no tests because of `nothing`.
fn finished(cancel: &Cancel, nothing: Option<String>) -> Result<(), Problem> {
    if cancel.is_raised() {
        return Err(Problem::new(Status::Interrupted, anyhow::anyhow!("the run was interrupted")));
    }
    match nothing {
        Some(error) => Err(anyhow::anyhow!("no tests could be run in any sandbox: {error}").into()),
        None => Ok(()),
    }
}

/// Everything that a run consists of once its tests are known.
struct Parts<'a> {
    config: &'a Config,
    options: &'a Options,
    setup: &'a Setup,
    provider: &'a dyn Provider,
    directory: &'a OutputDir,
    estimates: &'a Estimates,
}

impl Parts<'_> {
    fn execute(
        &self,
        discovery: &Discovery,
        cancel: &Cancel,
        output: &mut (dyn Write + Send),
    ) -> Result<Status, Problem> {
        let started = Instant::now();
        let stop = cancel.child();
        let mut bench = self.bench(discovery, &stop);
        let plan = self.plan(&bench);
        let machines = self.machines(&plan)?;
        bench.site.commands.sandboxes = machines;
        let predicted = self.foretell(&plan, &discovery.suite, machines);
        let policy = Policy { machines, fail_fast: self.options.fail_fast, speculation: self.speculation() };
        let next = u32::try_from(plan.batches.len()).unwrap_or(u32::MAX);
        let mut progress = Progress::new(self.options.screen.clone(), discovery.suite.tests().len());
        let mut observer = Some(Observer::new(&bench.site, policy, next).with_errors(load_errors(discovery)));
        let pool = Pool {
            provider: self.provider,
            machines,
            limits: &self.config.group_limits(),
            spare: usize::from(policy.speculation.is_some()),
            executor: &bench,
            cancel: &stop,
        };
        let mut span = Some(self.options.trace.span(Track::Phases, || "run".into()));
        let begun = Instant::now();
        let mut told = None;
        let usage = execute::run(&pool, plan.batches, |event| match (&mut observer, event) {
            (observer, Event::Settled) => {
                progress.finish();
                span = None;
                if let Some(mut end) = observer.take().map(Observer::finish) {
                    let took = begun.elapsed();
                    self.conclude(&bench, &mut end, output);
                    let forecast = predicted.filter(|_| !stop.is_raised());
                    let forecast = forecast.map(|predicted| Forecast { predicted, took });
                    let elapsed = started.elapsed();
                    let circumstances =
                        Circumstances { elapsed, machines, forecast, junit: None, again: Vec::new() };
                    let status = self.report(&bench, &end, circumstances, output);
                    self.record(&discovery.suite, &end);
                    told = Some((status, end.nothing));
                    // While the results are read, sandboxes are still being destroyed.
                    span = Some(self.options.trace.span(Track::Phases, || "destroy sandboxes".into()));
                }
                Reaction::default()
            }
            (Some(observer), event) => hear(observer, &mut progress, event),
            (None, _) => Reaction::default(),
        });
        self.provider.finish(if cancel.is_raised() { RunEnd::Interrupted } else { RunEnd::Complete });
        drop(span);
        let fatal = bench.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (status, nothing) =
            told.ok_or_else(|| anyhow::anyhow!("the run ended without results; this is a bug in offload"))?;
        let status = status?;
        write_trace(self.directory, &self.options.trace)?;
        if self.options.show_cost {
            self.write_cost(&usage, output).context("cannot write the cost")?;
        }
        match fatal {
            Some(error) => Err(error.into()),
            None => finished(cancel, nothing).map(|()| status),
        }
    }

    /// The maximum number of sandboxes for the batches of `plan`.
    fn machines(&self, plan: &Plan) -> Result<usize, Problem> {
        let machines = self.config.offload.max_parallel.min(plan.width(&self.config.group_limits()));
        limits::check(machines)?;
        Ok(machines)
    }

    /// The estimated cost of the sandboxes, based on their lifetime and size.
    fn write_cost(&self, usage: &Usage, output: &mut dyn Write) -> std::io::Result<()> {
        let seconds = usage.sandbox_time.as_secs_f64();
        let cost = seconds * self.config.usd_per_sandbox_second();
        let sandboxes = count(usage.sandboxes, "sandbox");
        writeln!(output, "estimated cost: ${cost:.4} ({sandboxes}, {seconds:.1} s in total)")?;
        output.flush()
    }

    /// Adds what the framework finds wrong with the whole, and tells its tool what failed.
    fn conclude(&self, bench: &BatchExecutor<'_>, end: &mut Ended, output: &mut dyn Write) {
        if self.provider.shares_files() {
            failures::note(&bench.site.commands, &end.summary);
        }
        let conclusion = Conclusion { run: &bench.site, site: &self.setup.site, cancel: bench.site.stop };
        if let Err(error) = conclusion.draw(end, output) {
            log::warn!("cannot show what was found out about the whole run: {error}");
        }
    }

    /// Announces the run, with a prediction if most tests have been measured before.
    fn foretell(&self, plan: &Plan, suite: &Suite, machines: usize) -> Option<Duration> {
        let tests = suite.tests().len();
        let measured = suite.tests().iter().filter(|test| test.measured).count();
        let predicted = (2 * measured >= tests).then_some(plan.predicted);
        let time = predicted
            .map(|predicted| format!(", predicted to take {:.1} s", predicted.as_secs_f64()))
            .unwrap_or_default();
        let (tests, sandboxes) = (count(tests, "test"), count(machines, "sandbox"));
        let batches = count(plan.batches.len(), "batch");
        self.options.screen.line(&format!("offload: {tests} in {batches} on {sandboxes}{time}"));
        predicted
    }

    /// Writes the JUnit file and the summary.
    fn report(
        &self,
        bench: &BatchExecutor<'_>,
        end: &Ended,
        circumstances: Circumstances,
        output: &mut dyn Write,
    ) -> Result<Status, Problem> {
        let suite = bench.site.commands.suite;
        let again = hints::again(&bench.site.commands, &end.summary, &self.setup.site.root);
        let as_one = matches!(self.config.framework.kind, FrameworkKind::Custom { result_file: None, .. });
        let one = as_one.then(|| end.summary.as_one());
        let summary = one.as_ref().unwrap_or(&end.summary);
        let ending = |batch| end.outcomes.get(&batch).map(|outcome| outcome.word());
        let logs = Logs { directory: self.directory.path(), ending: &ending };
        let report = Report { suite, summary, only: as_one.then_some(ALL_TESTS), logs };
        let settings = &self.config.report;
        let junit =
            settings.junit.then(|| self.directory.place(Path::new(&settings.junit_file))).transpose()?;
        if junit.is_none() {
            self.directory.forget(Path::new(&settings.junit_file));
        }
        hints::warn_of_extras(summary, suite);
        let written = junit.as_ref().map_or(Ok(()), |path| {
            let _span = self.options.trace.span(Track::Phases, || "write the report".into());
            report.write_junit(path, circumstances.elapsed)
        });
        // A full disk must not hide the summary.
        let junit = junit.filter(|_| written.is_ok());
        let circumstances = Circumstances { junit, again, ..circumstances };
        let shown = report.write_summary(&circumstances, self.options.palette, output);
        written?;
        shown.context("cannot write the summary")?;
        Ok(summary.status())
    }

    /// Adds the results to the history, if requested. The verdict does not depend on it.
    fn record(&self, suite: &Suite, end: &Ended) {
        let Some(settings) = &self.config.history else { return };
        if settings.record != RecordHistory::Always && !self.options.record_history {
            return;
        }
        let _span = self.options.trace.span(Track::Phases, || "write the history".into());
        let name = self.options.name();
        if let Err(error) = recording::record(settings, &name, suite, &end.summary, &end.seen) {
            log::error!("cannot update the history: {error:#}");
        }
    }

    fn bench<'b>(&'b self, discovery: &'b Discovery, stop: &'b Cancel) -> BatchExecutor<'b> {
        let report = &self.config.report;
        BatchExecutor {
            site: RunSite {
                commands: Commands {
                    framework: &*self.setup.framework,
                    suite: &discovery.suite,
                    facts: &discovery.facts,
                    shared: self.provider.shares_files().then_some(discovery.shared.as_path()),
                    root: self.provider.root(),
                    surroundings: &self.setup.site.surroundings,
                    fail_fast: self.options.fail_fast,
                    sandboxes: self.config.offload.max_parallel,
                },
                scratch: self.setup.scratch.path().to_owned(),
                inside: self.provider.scratch().map(Path::to_owned),
                output: self.directory,
                mask: Arc::clone(&self.setup.site.mask),
                trace: &self.options.trace,
                discarded: Discarded::default(),
                stop,
            },
            rules: Rules {
                timeout: self.config.offload.test_timeout,
                globs: report.download_globs.clone(),
                globs_on_failure_only: report.download_globs_failure_only,
            },
            fatal: Mutex::default(),
        }
    }

    /// When late batches run a second time.
    fn speculation(&self) -> Option<SpeculationRule> {
        let overhead = self.estimates.overhead().per_batch;
        self.config.requeues_impatiently().then_some(SpeculationRule { overhead })
    }

    fn plan(&self, bench: &BatchExecutor<'_>) -> Plan {
        let _span = self.options.trace.span(Track::Phases, || "plan".into());
        let planning = Planning {
            commands: bench.site.commands,
            takes: &|command| self.provider.takes(command),
            estimates: self.estimates,
            timeout: self.config.offload.test_timeout,
            limits: &self.config.group_limits(),
            scratch: &bench.site.inside(u32::MAX),
        };
        planning.plan(self.config.offload.max_parallel)
    }
}
