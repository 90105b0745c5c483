//! Where a batch becomes a command, and a command an execution.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::event::Execution;
use crate::files::OutputDir;
use crate::framework::{Facts, Framework, RunCommand, RunContext, Surroundings};
use crate::junit;
use crate::mask::Mask;
use crate::model::{Batch, Exit, GroupIndex, Suite, TestIndex};
use crate::pool::Bench;
use crate::process::{Finished, Streams};
use crate::provider::{Order, ProviderError, Sandbox};
use crate::trace::{Trace, Track};

/// Turns tests into commands.
#[derive(Clone, Copy)]
pub struct Commands<'a> {
    /// Builds them.
    pub framework: &'a dyn Framework,
    /// All tests.
    pub suite: &'a Suite,
    /// What discovery found out.
    pub facts: &'a Facts,
    /// The folder of files that batches share, where sandboxes see it.
    pub shared: Option<&'a Path>,
    /// The project's root in a sandbox.
    pub root: &'a str,
    /// Variables and search path.
    pub surroundings: &'a Surroundings,
    /// Stop a runner at its first failure.
    pub fail_fast: bool,
}

impl Commands<'_> {
    /// The context in which a command for `scratch` is built.
    pub fn context<'b>(&'b self, scratch: &'b Path) -> RunContext<'b> {
        RunContext {
            suite: self.suite,
            facts: self.facts,
            shared: self.shared,
            root: self.root,
            scratch,
            fail_fast: self.fail_fast,
        }
    }

    /// The command of these tests, in its surroundings.
    pub fn command(&self, tests: &[TestIndex], group: GroupIndex, scratch: &Path) -> RunCommand {
        let mut run = self.framework.run_command(tests, group, &self.context(scratch));
        self.surroundings.apply(&mut run.command, self.root);
        run
    }
}

/// What all batches of a run have in common.
pub struct Workbench<'a> {
    /// Builds the commands.
    pub commands: Commands<'a>,
    /// A private local folder.
    pub scratch: PathBuf,
    /// What the folders of batches in a sandbox begin with, where it has files of its own.
    pub inside: Option<PathBuf>,
    /// Where logs and downloads go.
    pub output: &'a OutputDir,
    /// What no log may show.
    pub mask: Arc<Mask>,
    /// The settings that say how batches run.
    pub rules: Rules,
    /// The timeline.
    pub trace: &'a Trace,
    /// Raised, after `fatal` is set, when the run cannot go on.
    pub stop: &'a Cancel,
    /// Why the run cannot go on.
    pub fatal: Mutex<Option<anyhow::Error>>,
}

/// How batches run.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The deadline of a batch.
    pub timeout: Duration,
    /// Files to take from sandboxes.
    pub globs: Vec<String>,
    /// Take them only after a failure or an error.
    pub globs_on_failure_only: bool,
}

impl Workbench<'_> {
    /// Where a batch has its own files on this machine.
    pub fn scratch(&self, batch: u32) -> PathBuf {
        self.scratch.join(format!("batch-{batch}"))
    }

    /// Where a batch has its own files in its sandbox.
    pub fn inside(&self, batch: u32) -> PathBuf {
        self.inside.as_ref().map_or_else(
            || self.scratch(batch),
            |prefix| PathBuf::from(format!("{}-batch-{batch}", prefix.display())),
        )
    }

    fn streams(&self, batch: u32) -> Result<Streams> {
        let log = |kind: &str| self.output.place(Path::new(&format!("logs/batch-{batch}.{kind}")));
        Ok(Streams { stdout: log("stdout")?, stderr: log("stderr")?, mask: Arc::clone(&self.mask) })
    }

    /// The run cannot go on: everything is stopped, the first reason is kept.
    fn give_up(&self, error: anyhow::Error) -> ProviderError {
        let message = format!("{error:#}");
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.raise_gracefully();
        ProviderError::Refused(message)
    }

    /// Where on this machine the report of `run` will be.
    fn local_report(&self, run: &RunCommand, scratch: &Path) -> Option<PathBuf> {
        let report = run.report.as_ref()?;
        let same = self.commands.shared.is_some() && report.is_absolute();
        Some(if same { report.clone() } else { scratch.join("fetched.xml") })
    }

    fn download(&self, batch: u32, sandbox: &mut dyn Sandbox) {
        let folder = PathBuf::from(format!("downloads/batch-{batch}"));
        let place = |relative: &Path| self.output.place_within(&folder.join(relative));
        match sandbox.download(&self.rules.globs, &place) {
            Ok(0) => {}
            Ok(count) => {
                log::info!("batch {batch}: {count} files in `{}`", self.output.path().join(&folder).display())
            }
            Err(error) => {
                let error = self.mask.hide(&format!("{error:#}"));
                log::warn!("batch {batch}: cannot download files: {error}");
            }
        }
    }

    fn wants_downloads(&self, exit: Exit, report: Option<&Path>) -> bool {
        let all = !self.rules.globs_on_failure_only || exit != Exit::Code(0);
        !self.rules.globs.is_empty() && (all || report.is_some_and(shows_failure))
    }
}

/// Whether a report shows a failure or cannot be read.
fn shows_failure(report: &Path) -> bool {
    let Ok(file) = std::fs::File::open(report) else {
        return true;
    };
    let mut bad = false;
    let end = junit::read::read(file, &mut |case| bad |= case.result.outcome.is_bad());
    bad || end.error.is_some()
}

impl Bench for Workbench<'_> {
    fn execute(
        &self,
        slot: usize,
        batch: &Batch,
        sandbox: &mut dyn Sandbox,
        cancel: &Cancel,
    ) -> Result<Execution, ProviderError> {
        let scratch = self.scratch(batch.index);
        std::fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make `{}`", scratch.display()))
            .map_err(|error| self.give_up(error))?;
        let streams = self.streams(batch.index).map_err(|error| self.give_up(error))?;
        let started = Instant::now();
        let run = self.commands.command(&batch.tests, batch.group, &self.inside(batch.index));
        log::debug!("batch {}: {}", batch.index, self.mask.hide(&run.command.to_shell()));
        let mut span = self.trace.span(Track::Sandbox(slot), || format!("batch {}", batch.index));
        span.note("tests", batch.tests.len());
        let order = Order {
            command: &run.command,
            report: run.report.as_deref(),
            streams: &streams,
            deadline: self.rules.timeout,
        };
        let finished = sandbox.exec(&order, cancel)?;
        span.note("exit", finished.exit.to_string());
        drop(span);
        let ended = self.trace.is_on().then(Instant::now);
        let Finished { exit, elapsed, leaked } = finished;
        if cancel.is_raised() && !self.stop.is_raised() {
            // Abandoned: what it gave is not wanted, and fetching it would only take time.
            return Ok(Execution { exit, elapsed, leaked, report: None, ended, whole: started.elapsed() });
        }
        let report = self.local_report(&run, &scratch);
        if let (Some(remote), Some(local)) = (&run.report, &report) {
            let _span = self.trace.span(Track::Sandbox(slot), || "fetch the report".into());
            sandbox.fetch(remote, local)?;
        }
        if self.wants_downloads(exit, report.as_deref()) {
            let _span = self.trace.span(Track::Sandbox(slot), || "download files".into());
            self.download(batch.index, sandbox);
        }
        if leaked {
            log::warn!("batch {}: its command left processes behind; they were ended", batch.index);
        }
        Ok(Execution { exit, elapsed, leaked, report, ended, whole: started.elapsed() })
    }
}
