//! `offload run`: the one place that knows the order of the stages.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::collect::{self, Format, NoTests};
use super::estimates::Estimates;
use super::hints;
use super::limits;
use super::planning::Planning;
use super::recording;
use super::sandboxes::{self, SandboxSource, Timed};
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::collect::observer::{Ended, Observer};
use crate::collect::{Policy, SpeculationRule};
use crate::config::{Config, FrameworkKind, RecordHistory};
use crate::discover::Discovery;
use crate::error::{Problem, Status};
use crate::event::{Event, Reaction};
use crate::execute::executor::{BatchExecutor, Rules};
use crate::execute::{self, Pool, Usage};
use crate::files::{self, OutputDir};
use crate::framework::Commands;
use crate::framework::RunSite;
use crate::framework::custom::ALL_TESTS;
use crate::image::Found;
use crate::model::{Attempt, Suite};
use crate::plan::Plan;
use crate::progress::{Progress, Screen};
use crate::provider::{Provider, RunEnd};
use crate::report::{Circumstances, Forecast, Report};
use crate::trace::{Trace, Track};

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
    /// Directories to copy into the image beside those of the configuration, as `local:remote`.
    pub copy_dirs: Vec<String>,
    /// Make the image anew.
    pub no_cache: bool,
    /// Use this image, whatever the configuration says of one.
    pub image: Option<String>,
    /// Tell what the sandboxes may have cost.
    pub show_cost: bool,
    /// Add the results to the history, where the configuration has one.
    pub record_history: bool,
    /// The first test that fails ends the run.
    pub fail_fast: bool,
    /// What no tests mean.
    pub no_tests: NoTests,
    /// Where the run is recorded.
    pub trace: Trace,
    /// Standard error.
    pub screen: Screen,
}

impl Options {
    /// The name of the configuration file, by which the history knows its tests.
    fn name(&self) -> String {
        self.config.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Runs the tests of `config` and writes results to `output`.
///
/// # Errors
/// When the run could not be done at all, or its reports cannot be written.
pub fn run(
    config: &Config,
    options: &Options,
    cancel: &Cancel,
    output: &mut (dyn Write + Send),
) -> Result<Status, Problem> {
    limits::check(1)?;
    let setup = Setup::new(config, &options.env)?;
    if options.collect_only {
        return collect::run(config, (Format::Text, options.no_tests), &options.env, cancel, output);
    }
    OutputDir::check(&config.report.output_dir, &setup.site.root).map_err(|error| {
        Problem::new(Status::Usage, error)
            .hint("give the reports a directory of their own with `output_dir` in [report]")
    })?;
    let directory = OutputDir::claim(&config.report.output_dir)?;
    let preparing = cancel.child();
    let source = SandboxSource::new((config, &setup), &options.copy_dirs, &options.screen, &preparing)?;
    let junit = Path::new(&config.report.junit_file);
    directory.clear(junit)?;
    options.screen.announce("listing the tests");
    let start = start(config, options, (&setup, &source), (cancel, &preparing));
    if !matches!(&start, Ok(start) if !start.discovery.suite.tests().is_empty()) {
        // The report of an earlier run must not be taken for that of this one.
        directory.forget(junit);
        write_trace(&directory, &options.trace)?;
    }
    let Start { mut discovery, estimates, image } = start?;
    if discovery.suite.tests().is_empty() {
        return Ok(options.no_tests.status());
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

/// What is there before there is a plan.
struct Start {
    discovery: Discovery,
    estimates: Estimates,
    image: Found,
}

/// Lists the tests, makes the image and reads what earlier runs tell, side by side. What fails first
/// ends the others.
fn start(
    config: &Config,
    options: &Options,
    (setup, source): (&Setup, &SandboxSource),
    (cancel, preparing): (&Cancel, &Cancel),
) -> Result<Start, Problem> {
    let listing = cancel.child();
    let (discovery, image, estimates) = std::thread::scope(|scope| {
        let estimates = scope.spawn(|| Estimates::gather(config, &options.name()));
        let image = scope.spawn(|| {
            let _span = options.trace.span(Track::Image, || "image".into());
            let image = sandboxes::image(source, (options.image.as_deref(), options.no_cache), preparing);
            if image.is_err() && !preparing.is_raised() {
                listing.raise_gracefully();
            }
            image
        });
        let span = options.trace.span(Track::Phases, || "discovery".into());
        let discovery = setup.discover(&listing, &options.trace);
        drop(span);
        if !matches!(&discovery, Ok(discovery) if !discovery.suite.tests().is_empty()) && !listing.is_raised()
        {
            // Nobody needs an image.
            preparing.raise_gracefully();
        }
        (discovery, image.join(), estimates.join())
    });
    let broken = |what: &str| anyhow::anyhow!("{what} broke down; this is a fault of offload");
    let estimates = estimates.map_err(|_| broken("the reading of what earlier runs took"))?;
    let image = image.map_err(|_| broken("the making of the image"))?;
    match (discovery, image) {
        (Ok(discovery), Ok(image)) => Ok(Start { discovery, estimates, image }),
        (Ok(discovery), Err(_)) if discovery.suite.tests().is_empty() => {
            Ok(Start { discovery, estimates, image: Found::default() })
        }
        (Err(problem), Err(_)) if !listing.is_raised() || cancel.is_raised() => Err(problem),
        (_, Err(problem)) | (Err(problem), Ok(_)) => Err(problem),
    }
}

fn write_trace(directory: &OutputDir, trace: &Trace) -> Result<()> {
    if trace.is_on() {
        let path = directory.place(Path::new("trace.json"))?;
        files::write_whole(&path, |writer| trace.write(writer))?;
    }
    Ok(())
}

/// Takes in one event and shows where the run stands.
fn hear(observer: &mut Observer<'_>, progress: &mut Progress, event: Event) -> Reaction {
    progress.hear(&event);
    let reaction = observer.hear(event);
    if progress.is_due() {
        let (judged, bad) = observer.counts();
        progress.show(judged, bad);
    }
    reaction
}

/// What a run is made of once its tests are known.
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
        let bench = self.bench(discovery, &stop);
        let plan = self.plan(&bench);
        let machines = self.config.offload.max_parallel.min(plan.batches.len());
        limits::check(machines)?;
        let predicted = self.foretell(&plan, &discovery.suite, machines);
        let policy = Policy { machines, fail_fast: self.options.fail_fast, speculation: self.speculation() };
        let next = u32::try_from(plan.batches.len()).unwrap_or(u32::MAX);
        let mut progress = Progress::new(self.options.screen.clone(), discovery.suite.tests().len());
        let mut observer = Some(Observer::new(&bench.site, policy, next));
        let spare = usize::from(policy.speculation.is_some());
        let pool = Pool { provider: self.provider, machines, spare, executor: &bench, cancel: &stop };
        let mut span = Some(self.options.trace.span(Track::Phases, || "run".into()));
        let begun = Instant::now();
        let mut told = None;
        let usage = execute::run(&pool, plan.batches, |event| match (&mut observer, event) {
            (observer, Event::Settled) => {
                progress.finish();
                span = None;
                if let Some(end) = observer.take().map(Observer::finish) {
                    let took = begun.elapsed();
                    let forecast = predicted.filter(|_| !stop.is_raised());
                    let forecast = forecast.map(|predicted| Forecast { predicted, took });
                    let status = self.report(&bench, &end, (machines, started.elapsed(), forecast), output);
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
        self.provider.finish(if stop.is_raised() { RunEnd::Interrupted } else { RunEnd::Complete });
        drop(span);
        let fatal = bench.fatal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (status, nothing) =
            told.ok_or_else(|| anyhow::anyhow!("the run broke down; this is a fault of offload"))?;
        let status = status?;
        write_trace(self.directory, &self.options.trace)?;
        if self.options.show_cost {
            self.tell_cost(&usage, output).context("cannot write the cost")?;
        }
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

    /// What the sandboxes may have cost, from their time and size alone.
    fn tell_cost(&self, usage: &Usage, output: &mut dyn Write) -> std::io::Result<()> {
        let seconds = usage.sandbox_time.as_secs_f64();
        let cost = seconds * self.config.usd_per_sandbox_second();
        let count = usage.sandboxes;
        let plural = if count == 1 { "" } else { "es" };
        writeln!(output, "estimated cost: {cost:.4} $ for {count} sandbox{plural}, {seconds:.1} s together")?;
        output.flush()
    }

    /// Says what is about to happen, and how long it may take; that only where most tests were measured.
    fn foretell(&self, plan: &Plan, suite: &Suite, machines: usize) -> Option<Duration> {
        let tests = suite.tests().len();
        let measured = suite.tests().iter().filter(|test| test.measured).count();
        let predicted = (2 * measured >= tests).then_some(plan.predicted);
        let time = predicted.map_or_else(
            || "how long they take is not known yet".into(),
            |predicted| format!("predicted to take {:.1} s", predicted.as_secs_f64()),
        );
        let count = |count: usize, one: &str, more: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {more}"),
        };
        let tests = count(tests, "test", "tests");
        let batches = count(plan.batches.len(), "batch", "batches");
        let sandboxes = count(machines, "sandbox", "sandboxes");
        // A closed stderr must not end the run.
        let _ = writeln!(self.options.screen.clone(), "offload: {tests} in {batches} on {sandboxes}, {time}");
        predicted
    }

    /// Writes all that is to be read afterwards.
    fn report(
        &self,
        bench: &BatchExecutor<'_>,
        end: &Ended,
        (machines, elapsed, forecast): (usize, Duration, Option<Forecast>),
        output: &mut dyn Write,
    ) -> Result<Status, Problem> {
        let suite = bench.site.commands.suite;
        let again = hints::again(&bench.site.commands, &end.summary, &self.setup.site.root);
        let as_one = matches!(self.config.framework.kind, FrameworkKind::Custom { result_file: None, .. });
        let one = as_one.then(|| end.summary.as_one());
        let summary = one.as_ref().unwrap_or(&end.summary);
        let log = |attempt: &Attempt| {
            let outcome = end.outcomes.get(&attempt.batch)?;
            Some(self.directory.path().join(format!(
                "logs/batch-{}.stdout.{}",
                attempt.batch,
                outcome.word()
            )))
        };
        let report = Report { suite, summary, only: as_one.then_some(ALL_TESTS), log: &log };
        let settings = &self.config.report;
        let junit =
            settings.junit.then(|| self.directory.place(Path::new(&settings.junit_file))).transpose()?;
        if junit.is_none() {
            self.directory.forget(Path::new(&settings.junit_file));
        }
        hints::warn_of_extras(summary, suite);
        let written = junit.as_ref().map_or(Ok(()), |path| {
            let _span = self.options.trace.span(Track::Phases, || "write the report".into());
            report.write_junit(path, elapsed)
        });
        // A full disk must not hide what people wait for.
        let junit = junit.filter(|_| written.is_ok());
        let circumstances = Circumstances { elapsed, machines, forecast, junit, again };
        let shown = report.write_summary(&circumstances, output);
        written?;
        shown.context("cannot write the summary")?;
        Ok(summary.status())
    }

    /// Adds what was seen to the history, where that is wanted. The verdict does not depend on it.
    fn record(&self, suite: &Suite, end: &Ended) {
        let Some(settings) = &self.config.history else { return };
        if settings.record != RecordHistory::Always && !self.options.record_history {
            return;
        }
        let _span = self.options.trace.span(Track::Phases, || "write the history".into());
        let target = (settings, &*self.options.name());
        if let Err(error) = recording::record(target, suite, &end.summary, &end.seen) {
            log::error!("the history was not written: {error:#}");
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
                },
                scratch: self.setup.scratch.path().to_owned(),
                inside: self.provider.scratch().map(Path::to_owned),
                output: self.directory,
                mask: Arc::clone(&self.setup.site.mask),
                trace: &self.options.trace,
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

    /// Whether and when late batches run a second time.
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
            scratch: &bench.site.inside(u32::MAX),
        };
        planning.plan(self.config.offload.max_parallel)
    }
}
