//! Runs on the collector's thread: reads reports, has results judged, names logs.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::recorded::Attached;
use super::{BatchOutcome, Collector, Policy, Reading, Results, Speculation, Step, reading, recorded};
use crate::event::{Event, Execution, Reaction, ReportFile, ReportFormat};
use crate::framework::RunSite;
use crate::model::{Batch, GroupIndex, Reason};
use crate::summary::{BatchTiming, Summary};
use crate::trace::Track;

/// The outcome of each batch that was executed, by its number.
pub type Outcomes = HashMap<u32, BatchOutcome>;

/// Hears all events of a run.
pub struct Observer<'a> {
    site: &'a RunSite<'a>,
    collector: Collector<'a>,
    speculation: Option<Speculation<'a>>,
    started: Instant,
    outcomes: Outcomes,
    retired: Vec<String>,
    /// Whether any batch was started.
    any_started: bool,
    seen: Vec<BatchTiming>,
    /// The groups and names of files that came with results.
    gathered: Vec<(GroupIndex, String)>,
}

/// The end of a run.
pub struct Ended {
    /// The verdicts.
    pub summary: Summary,
    /// The outcome of each batch.
    pub outcomes: Outcomes,
    /// Timings of batches that went well.
    pub seen: Vec<BatchTiming>,
    /// The groups and names of files that came with results.
    pub gathered: Vec<(GroupIndex, String)>,
    /// Why sandboxes were given up, if that is why no test has a result.
    pub nothing: Option<String>,
}

impl<'a> Observer<'a> {
    /// An observer of a run that numbers new batches from `next_batch`.
    pub fn new(site: &'a RunSite<'a>, policy: Policy, next_batch: u32) -> Observer<'a> {
        Observer {
            site,
            collector: Collector::new(site.commands.suite, policy, next_batch),
            speculation: policy
                .speculation
                .map(|rule| Speculation::new(rule, site.commands.suite, next_batch as usize)),
            started: Instant::now(),
            outcomes: Outcomes::new(),
            retired: Vec::new(),
            any_started: false,
            seen: Vec::new(),
            gathered: Vec::new(),
        }
    }

    /// Makes the run fail for reasons that no batch has given.
    #[must_use]
    pub fn with_errors(mut self, reasons: impl Iterator<Item = Reason>) -> Observer<'a> {
        reasons.for_each(|reason| self.collector.note_error(reason));
        self
    }

    /// Handles one event and returns what follows from it.
    pub fn hear(&mut self, event: Event) -> Reaction {
        let now = self.started.elapsed();
        if let Some(speculation) = &mut self.speculation {
            speculation.hear(&event, now);
        }
        let mut step = self.judge(event);
        if step.stop {
            self.site.stop.raise_gracefully();
        }
        let duplicate = self.duplicate(now, step.batches.len());
        step.batches.extend(duplicate);
        Reaction { batches: step.batches, abandon: step.abandon }
    }

    /// The speculative run of a batch that is late at `now`, after `queued` batches were queued.
    fn duplicate(&mut self, now: Duration, queued: usize) -> Option<Batch> {
        let speculation = self.speculation.as_mut()?;
        speculation.queued(queued);
        if self.site.stop.is_raised() {
            speculation.stop();
        }
        let late = speculation.late(now)?;
        let duplicate = self.collector.duplicate(&late.batch);
        log::info!(
            "batch {} is late: {:.1} s instead of {:.1} s; its tests run a second time as batch {}",
            late.batch.index,
            late.elapsed.as_secs_f64(),
            late.batch.load.as_secs_f64(),
            duplicate.index
        );
        Some(duplicate)
    }

    fn judge(&mut self, event: Event) -> Step {
        match event {
            Event::Ready { slot } => {
                log::debug!("sandbox {slot} is ready");
                Step::default()
            }
            Event::Started { .. } => {
                self.any_started = true;
                Step::default()
            }
            Event::Finished { slot, batch, execution } => self.finished(slot, &batch, &execution),
            Event::Lost { batch, error, .. } => {
                let number = batch.index;
                let step = self.collector.lost(batch, &error);
                let again = if step.batches.is_empty() { "" } else { " and runs again" };
                log::warn!("batch {number} could not be executed{again}: {error}");
                self.close(number, step.outcome);
                step
            }
            Event::Refused { batch, error, .. } => {
                let step = self.collector.refused(&batch, &error);
                self.close(batch.index, step.outcome);
                step
            }
            Event::Dropped { batch, reason } => self.collector.dropped(&batch, &reason),
            Event::Retired { slot, error } => {
                log::warn!("sandbox {slot} was given up: {error}");
                self.retired.push(error);
                Step::default()
            }
            Event::Released { slot } => {
                log::debug!("sandbox {slot} is not needed any more");
                Step::default()
            }
            Event::Emptied { .. } | Event::Settled | Event::Tick => Step::default(),
        }
    }

    fn finished(&mut self, slot: usize, batch: &Batch, execution: &Execution) -> Step {
        let results = match &execution.report {
            Some(report) if !self.collector.ignores(batch.index) => {
                let _span =
                    self.site.trace.span(Track::Results(slot), || format!("read batch {}", batch.index));
                let meaning = self.site.commands.framework.meaning(execution.exit);
                Results::Report(Reading { meaning, ..self.read(report, batch) })
            }
            _ => Results::ExitStatus,
        };
        if let Results::Report(reading) = &results {
            self.draw(slot, execution, reading);
            for file in reading.session.iter().flat_map(|session| &session.files) {
                self.gather(batch, file);
            }
        }
        let tests = match &results {
            Results::Report(reading) => Some(reading.found.iter().map(|(_, result)| result.duration).sum()),
            Results::ExitStatus => None,
        };
        let step = self.collector.finished(batch, execution, results);
        if let (Some(tests), Some(BatchOutcome::Success)) = (tests, step.outcome) {
            self.seen.push(BatchTiming { elapsed: execution.whole, tests, files: self.files(batch) });
        }
        if let Some(other) = step.abandon {
            log::info!("batch {} finished before batch {other}, which has the same tests", batch.index);
        }
        self.close(batch.index, step.outcome);
        self.site.forget(batch.index);
        step
    }

    /// Keeps a part of a file that came with the results.
    fn gather(&mut self, batch: &Batch, file: &Attached) {
        let known = (batch.group, file.name.clone());
        let directory = self.site.gathered(batch.group, &file.name);
        match file.append_to(&directory.join(format!("batch-{}", batch.index))) {
            Ok(()) if !self.gathered.contains(&known) => self.gathered.push(known),
            Ok(()) => {}
            Err(error) => {
                let error = format!("cannot keep `{}` of a batch: {error:#}", file.name);
                self.collector.note_error(Reason::of_batch(batch.index, error));
            }
        }
    }

    fn read(&self, report: &ReportFile, batch: &Batch) -> Reading {
        let (commands, mask) = (&self.site.commands, &self.site.mask);
        match report.format {
            ReportFormat::JUnit => {
                let scratch = self.site.inside(batch.index);
                let context = commands.context(batch.group, &scratch);
                reading::read(&report.path, &*commands.framework.matcher(&batch.all(), &context), mask)
            }
            ReportFormat::Record => recorded::read(&report.path, commands.suite, batch, mask),
        }
    }

    fn files(&self, batch: &Batch) -> u32 {
        let tests = batch.all().into_iter().map(|index| self.site.commands.suite.test(index));
        let files: HashSet<&str> = tests.filter_map(|test| test.file.as_deref()).collect();
        u32::try_from(files.len()).unwrap_or(u32::MAX)
    }

    /// Puts the tests of a batch into its slice of the timeline, the last one at its end: reports
    /// tell how long tests took, not when they started.
    fn draw(&self, slot: usize, execution: &Execution, reading: &Reading) {
        let Some(ended) = execution.ended else { return };
        let total: Duration = reading.found.iter().map(|(_, result)| result.duration).sum();
        if total > execution.elapsed {
            return;
        }
        let mut before_now = ended.elapsed();
        for (index, result) in reading.found.iter().rev() {
            let name = self.site.commands.suite.test(*index).id.to_string();
            self.site.trace.add(Track::Sandbox(slot), name, before_now, result.duration);
            before_now += result.duration;
        }
    }

    /// Renames the logs of a batch after its outcome.
    fn close(&mut self, batch: u32, outcome: Option<BatchOutcome>) {
        let Some(outcome) = outcome else { return };
        self.outcomes.insert(batch, outcome);
        for kind in ["stdout", "stderr"] {
            let from = self.site.output.path().join(format!("logs/batch-{batch}.{kind}"));
            let name = PathBuf::from(format!("logs/batch-{batch}.{kind}.{}", outcome.word()));
            let renamed = self.site.output.list(&name).map(|to| std::fs::rename(&from, to));
            match renamed {
                Ok(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!("cannot rename `{}`: {error}", from.display());
                }
                Err(error) => log::warn!("cannot rename `{}`: {error:#}", from.display()),
                Ok(_) => {}
            }
        }
    }

    /// How many tests are judged so far, and how many of them badly.
    pub fn counts(&self) -> (usize, usize) {
        self.collector.counts()
    }

    /// The end of the run.
    pub fn finish(mut self) -> Ended {
        let nothing = if self.any_started { None } else { self.retired.pop() };
        let summary = self.collector.finish();
        Ended { summary, outcomes: self.outcomes, seen: self.seen, gathered: self.gathered, nothing }
    }
}
