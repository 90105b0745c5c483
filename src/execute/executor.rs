//! Executes one batch in a sandbox: the command, its logs, its report, its downloads.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Executor;
use crate::cancel::Cancel;
use crate::event::{Execution, ReportFile, ReportFormat};
use crate::files;
use crate::framework::{Place, RunCommand, RunSite};
use crate::junit;
use crate::model::{Batch, Exit};
use crate::process::{Finished, Streams};
use crate::provider::{Order, ProviderError, Sandbox};
use crate::record;
use crate::trace::Track;
use crate::words;

/// Executes batches: the [`Executor`] of a run.
pub struct BatchExecutor<'a> {
    /// What all batches have in common.
    pub site: RunSite<'a>,
    /// The settings that say how batches run.
    pub rules: Rules,
    /// Why the run cannot go on; set before [`RunSite::stop`] is raised.
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

impl BatchExecutor<'_> {
    fn streams(&self, batch: u32) -> Result<Streams> {
        let name = |kind: &str| PathBuf::from(format!("logs/batch-{batch}.{kind}"));
        let stdout = self.site.output.place(&name("stdout"))?;
        // In the same directory.
        let stderr = self.site.output.list(&name("stderr"))?;
        Ok(Streams { stdout, stderr, mask: Arc::clone(&self.site.mask) })
    }

    /// The run cannot go on: everything is stopped, the first reason is kept.
    fn give_up(&self, error: anyhow::Error) -> ProviderError {
        let message = format!("{error:#}");
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.site.stop.raise_gracefully();
        ProviderError::Refused(message)
    }

    /// Where on this machine the report of `run` will be.
    fn local_report(&self, run: &RunCommand, batch: u32) -> Option<ReportFile> {
        let report = run.report.as_ref()?;
        let same = self.site.commands.shared.is_some() && report.path.is_absolute();
        let path = if same { report.path.clone() } else { self.site.fetched(batch) };
        Some(ReportFile { path, ..*report })
    }

    fn download(&self, batch: u32, sandbox: &mut dyn Sandbox) {
        let directory = PathBuf::from(format!("downloads/batch-{batch}"));
        let place = |relative: &Path| self.site.output.place_within(&directory.join(relative));
        match sandbox.download(&self.rules.globs, &place) {
            Ok(0) => {}
            Ok(count) => {
                let place = self.site.output.path().join(&directory);
                log::info!("batch {batch}: {} in `{}`", words::count(count, "file"), place.display());
            }
            Err(error) => {
                let error = self.site.mask.hide(&format!("{error:#}"));
                log::warn!("batch {batch}: cannot download files: {error}");
            }
        }
    }

    fn wants_downloads(&self, exit: Exit, report: Option<&ReportFile>) -> bool {
        let all = !self.rules.globs_on_failure_only || exit != Exit::Code(0);
        !self.rules.globs.is_empty() && (all || report.is_some_and(shows_failure))
    }
}

/// Whether a report shows a failure or cannot be read.
fn shows_failure(report: &ReportFile) -> bool {
    let Ok(file) = files::open(&report.path) else {
        return true;
    };
    let mut bad = false;
    let error = match report.format {
        ReportFormat::JUnit => junit::read::read(file, &mut |case| bad |= case.result.outcome.is_bad()).error,
        ReportFormat::Record => record::read(BufReader::new(file), &mut |event| bad |= event.is_bad()),
    };
    bad || error.is_some()
}

impl Executor for BatchExecutor<'_> {
    fn execute(
        &self,
        slot: usize,
        batch: &Batch,
        sandbox: &mut dyn Sandbox,
        cancel: &Cancel,
    ) -> Result<Execution, ProviderError> {
        if self.site.inside.is_none() {
            let scratch = self.site.scratch(batch.index);
            std::fs::create_dir_all(&scratch)
                .with_context(|| format!("cannot make `{}`", scratch.display()))
                .map_err(|error| self.give_up(error))?;
        }
        let streams = self.streams(batch.index).map_err(|error| self.give_up(error))?;
        let started = Instant::now();
        let place = Place { slot, scratch: &self.site.inside(batch.index) };
        let run = self.site.commands.command(&batch.all(), batch.group, place);
        log::debug!("batch {}: {}", batch.index, self.site.mask.hide(&run.command.to_shell()));
        let mut span = self.site.trace.span(Track::Sandbox(slot), || format!("batch {}", batch.index));
        span.note("tests", batch.tests.len());
        let order = Order {
            command: &run.command,
            report: run.report.as_ref().map(|report| report.path.as_path()),
            streams: &streams,
            deadline: self.rules.timeout,
        };
        let finished = sandbox.exec(&order, cancel)?;
        span.note("exit", finished.exit.to_string());
        drop(span);
        let ended = self.site.trace.is_on().then(Instant::now);
        let Finished { exit, elapsed, leaked } = finished;
        if cancel.is_raised() && !self.site.stop.is_raised() {
            // Abandoned: what it gave is not wanted, and fetching it would only take time.
            return Ok(Execution { exit, elapsed, leaked, report: None, ended, whole: started.elapsed() });
        }
        let report = self.local_report(&run, batch.index);
        if let (Some(remote), Some(local)) = (&run.report, &report) {
            let _span = self.site.trace.span(Track::Sandbox(slot), || "fetch the report".into());
            sandbox.fetch(&remote.path, &local.path)?;
        }
        if self.wants_downloads(exit, report.as_ref()) {
            let _span = self.site.trace.span(Track::Sandbox(slot), || "download files".into());
            self.download(batch.index, sandbox);
        }
        if leaked {
            log::warn!("batch {}: its command left processes behind; they were ended", batch.index);
        }
        Ok(Execution { exit, elapsed, leaked, report, ended, whole: started.elapsed() })
    }
}
