//! The collector: owns attempts, verdicts and counts, and decides what runs again.
//!
//! It reads no clock, opens no file and starts nothing: it is told what happened and answers with more batches.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::Execution;
use crate::model::{
    Attempt, Batch, CaseResult, Exit, GroupIndex, Origin, Outcome, Reason, Suite, TestIndex, Verdict,
};
use crate::record::Property;
use crate::summary::{self, Extra, Summary};

mod again;
mod end;
mod follow;
mod keys;
mod lost;
pub mod observer;
mod pairs;
pub mod reading;
pub mod recorded;
pub mod speculation;
mod step;

use again::Doubt;
use end::{End, by_exit_status, merge, settle_ended};
use keys::Keys;
use pairs::SpeculativePairs;
pub use reading::Reading;
pub use speculation::{Speculation, SpeculationRule};
pub use step::{BatchOutcome, Step};

/// Executions without any result after which a batch and its parts are given up: the runner does not work at all.
const FRUITLESS: u32 = 32;
/// Maximum number of parts that a broken batch is divided into.
const PARTS: usize = 8;
/// One fruitless execution counts as much as this many timeouts: a batch that timed out may just be too long.
const PATIENCE: u32 = 4;

/// Bytes of text kept with results. Beyond that, output and backtraces are only in the logs.
const KEPT: usize = 64 * 1024 * 1024;

/// The rules of a run.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Number of batches that can run at once, at least 1.
    pub machines: usize,
    /// Stop the run at the first test that failed and has no attempts left.
    pub fail_fast: bool,
    /// When a late batch gets a speculative run; `None`: never.
    pub speculation: Option<SpeculationRule>,
}

/// The results of one execution.
#[derive(Clone, Debug)]
pub enum Results {
    /// There is no report: the exit status is the result of every test in the batch.
    ExitStatus,
    /// What the report says.
    Report(Reading),
}

/// What is known of a test.
#[derive(Clone, Debug, Default)]
struct State {
    attempts: Vec<Attempt>,
    /// How many of the attempts were made before its batch was asked again.
    before: usize,
    /// Why it has no result yet.
    reason: Option<Reason>,
}

/// A batch with all that it was divided into.
#[derive(Clone, Copy, Debug, Default)]
struct Tree {
    /// Executions without any result, in units of `1 / PATIENCE`.
    fruitless: u32,
    fruitful: bool,
}

impl Tree {
    /// Counts a fruitless execution of this weight. Returns whether the runner does not work at all.
    fn is_hopeless_after(&mut self, weight: u32) -> bool {
        self.fruitless += weight;
        !self.fruitful && self.fruitless >= FRUITLESS * PATIENCE
    }
}

/// The collector of a run.
pub struct Collector<'a> {
    suite: &'a Suite,
    policy: Policy,
    keys: Keys<'a>,
    states: Vec<State>,
    /// The original of each batch that is a part or a repetition of another.
    roots: HashMap<u32, u32>,
    trees: HashMap<u32, Tree>,
    /// For batches that are to run: how often they, or what they are a part of, lost a sandbox.
    losses: HashMap<u32, u32>,
    /// Whether anything has ever run in a sandbox.
    works: bool,
    next_batch: u32,
    speculative: SpeculativePairs,
    stopped: bool,
    extras: Vec<Extra>,
    errors: Vec<Reason>,
    /// What the suite recorded: names and values.
    properties: Vec<Property>,
    /// Batches whose exit status only failures explain that may turn out flaky.
    doubts: Vec<Doubt>,
    /// The batches that ask them again.
    asked: Vec<u32>,
    /// Batches whose runner broke and whose tests ran again.
    broken: Vec<Reason>,
    /// Bytes of text in results so far.
    kept: usize,
}

impl<'a> Collector<'a> {
    /// A collector for `suite` that numbers new batches from `next_batch`.
    pub fn new(suite: &'a Suite, policy: Policy, next_batch: u32) -> Collector<'a> {
        Collector {
            suite,
            policy,
            keys: keys::keys(suite),
            states: vec![State::default(); suite.tests().len()],
            roots: HashMap::new(),
            trees: HashMap::new(),
            losses: HashMap::new(),
            works: false,
            next_batch,
            speculative: SpeculativePairs::default(),
            stopped: false,
            extras: Vec::new(),
            errors: Vec::new(),
            properties: Vec::new(),
            doubts: Vec::new(),
            asked: Vec::new(),
            broken: Vec::new(),
            kept: 0,
        }
    }

    /// A batch was executed.
    pub fn finished(&mut self, batch: &Batch, execution: &Execution, results: Results) -> Step {
        self.works |= execution.exit != Exit::Cancelled;
        let undone = execution.exit == Exit::Cancelled || self.ignores(batch.index);
        if undone && self.aside(batch.index).is_some() {
            return Step::end(BatchOutcome::Cancelled);
        }
        let mut reading = match results {
            Results::Report(reading) => reading,
            Results::ExitStatus => by_exit_status(batch, execution),
        };
        self.doubt(batch, execution, &mut reading);
        settle_ended(batch, execution, &mut reading);
        let before = self.bad_extras();
        let (reported, cases) = self.take(batch, &reading);
        let bad: Vec<TestIndex> = reported.iter().copied().filter(|index| self.is_bad(*index)).collect();
        let unasked = reading.found.iter().any(|(_, result)| result.outcome.is_bad());
        let errors = reading.session.as_ref().map_or(&[][..], |session| &session.errors);
        self.errors.extend(errors.iter().map(|error| Reason::of_batch(batch.index, error.as_str())));
        for property in reading.session.iter().flat_map(|session| &session.properties) {
            if !self.properties.contains(property) {
                self.properties.push(property.clone());
            }
        }
        let failed = unasked || !errors.is_empty() || self.bad_extras() > before;
        let missing: Vec<TestIndex> =
            batch.tests.iter().copied().filter(|index| reported.binary_search(index).is_err()).collect();
        let mut step = Step { abandon: self.speculative.win(batch.index), ..Step::default() };
        let end = End { batch, execution, reading: &reading, failed, cases };
        self.note_breakdown(&end, &missing);
        let broken =
            !missing.is_empty() || (execution.exit != Exit::Code(0) && !failed) || reading.error.is_some();
        step.outcome = Some(match execution.exit {
            Exit::Cancelled => BatchOutcome::Cancelled,
            _ if failed && (missing.is_empty() || self.policy.fail_fast) => BatchOutcome::Failure,
            _ if broken => BatchOutcome::Error,
            _ => BatchOutcome::Success,
        });
        self.doubt_status(&end, &bad, &missing);
        self.retry(batch, bad, &mut step);
        match &reading.session {
            Some(session) => self.follow_record(&end, session, missing, &mut step),
            None => self.follow_up(&end, missing, &mut step),
        }
        self.ask_again(&mut step);
        self.settle(batch, &mut step);
        step
    }

    /// Something went wrong outside tests.
    pub fn note_error(&mut self, reason: Reason) {
        self.errors.push(reason);
    }

    /// No sandbox can start the command of a batch. One with several tests may be too long and is divided; a
    /// single test gets an error.
    pub fn refused(&mut self, batch: &Batch, error: &str) -> Step {
        if let Some(step) = self.aside(batch.index) {
            return step;
        }
        let mut step = Step::end(BatchOutcome::Error);
        match batch.tests[..] {
            [index] => {
                self.attempt(index, batch.index, CaseResult::stated(Outcome::Errored, Duration::ZERO, error));
                self.settle(batch, &mut step);
            }
            _ if self.is_one_key(&batch.tests) => {
                let error = format!("{error}; tests that stay together are not divided");
                for index in &batch.tests {
                    let result = CaseResult::stated(Outcome::Errored, Duration::ZERO, error.as_str());
                    self.attempt(*index, batch.index, result);
                }
                self.settle(batch, &mut step);
            }
            _ => step.batches = self.divide(batch.group, &batch.tests, 2, self.root(batch.index)),
        }
        step
    }

    /// A batch will not be executed.
    pub fn dropped(&mut self, batch: &Batch, reason: &str) -> Step {
        if self.aside(batch.index).is_some() {
            return Step::default();
        }
        self.note_unasked(batch, reason);
        let reason: Reason = if self.stopped { STOPPED.into() } else { reason.into() };
        for index in &batch.tests {
            let state = &mut self.states[index.0 as usize];
            state.reason = Some(match &state.reason {
                Some(Reason { text, batch }) if !self.stopped => {
                    Reason { text: format!("{}; before that: {text}", reason.text).into(), batch: *batch }
                }
                _ => reason.clone(),
            });
        }
        Step::default()
    }

    /// Number of tests with a result so far, and how many of these are failures.
    pub fn counts(&self) -> (usize, usize) {
        let decided = |state: &&State| !state.attempts.is_empty();
        let judged = self.states.iter().filter(decided).count();
        let bad = self
            .states
            .iter()
            .filter(|state| state.attempts.last().is_some_and(|last| last.result.outcome.is_bad()));
        (judged, bad.count())
    }

    /// Gives every test its verdict.
    pub fn finish(self) -> Summary {
        let verdicts = self.states.iter().zip(self.suite.tests());
        let verdicts = verdicts
            .map(|(state, test)| summary::judge(&state.attempts, test.max_attempts, state.reason.as_ref()));
        let verdicts: Vec<Verdict> = verdicts.collect();
        let attempts = self.states.into_iter().map(|state| state.attempts).collect();
        let mut errors = self.errors;
        for extra in self.extras.iter().filter(|extra| extra.outcome.is_bad()) {
            let message = extra.message.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            let name = reading::quoted(&extra.name);
            errors.push(format!("{name} failed, but was not discovered{message}").into());
        }
        Summary {
            broken: self.broken,
            properties: self.properties,
            ..Summary::new(verdicts, attempts, self.extras, errors)
        }
    }

    /// Records the results of a report. Returns the tests of the batch that have one, in order, and how many
    /// cases the report has.
    fn take(&mut self, batch: &Batch, reading: &Reading) -> (Vec<TestIndex>, usize) {
        let mut merged: HashMap<TestIndex, CaseResult> = HashMap::with_capacity(reading.found.len());
        let counts = |index: &TestIndex| batch.companions.binary_search(index).is_err();
        for (index, result) in reading.found.iter().filter(|(index, _)| counts(index)) {
            match merged.entry(*index) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(result.clone());
                }
                std::collections::hash_map::Entry::Occupied(mut place) => merge(place.get_mut(), result),
            }
        }
        let mut reported = Vec::with_capacity(merged.len());
        for (index, result) in merged {
            let asked = batch.tests.binary_search(&index).is_ok();
            // An unrequested result counts only if it is a failure.
            if asked || result.outcome.is_bad() {
                self.attempt(index, batch.index, result);
            }
            if asked {
                reported.push(index);
            }
        }
        reported.sort_unstable();
        self.extras.extend(reading.extras.iter().cloned());
        let cases = reported.len() + reading.extras.len();
        (reported, cases)
    }

    fn attempt(&mut self, index: TestIndex, batch: u32, mut result: CaseResult) {
        if let Some(details) = &mut result.details {
            self.kept += details.size();
            if self.kept > KEPT {
                details.stdout = None;
                details.stderr = None;
                details.text = None;
            }
        }
        let attempts = &mut self.states[index.0 as usize].attempts;
        let number = u32::try_from(attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
        attempts.push(Attempt { number, batch, result });
    }

    fn is_bad(&self, index: TestIndex) -> bool {
        self.states[index.0 as usize].attempts.last().is_some_and(|last| last.result.outcome.is_bad())
    }

    fn bad_extras(&self) -> usize {
        self.extras.iter().filter(|extra| extra.outcome.is_bad()).count()
    }

    fn may_run_again(&self, index: TestIndex) -> bool {
        let State { attempts, before, .. } = &self.states[index.0 as usize];
        attempts.len() - before < self.suite.test(index).max_attempts as usize
    }

    /// An error of the batch itself fails the run even if every test passed.
    fn note_breakdown(&mut self, end: &End<'_>, missing: &[TestIndex]) {
        if end.execution.exit == Exit::Cancelled {
            return;
        }
        let has_begun = end.reading.session.as_ref().is_some_and(|session| session.began);
        if let (Some(error), true) = (&end.reading.error, has_begun) {
            // A line that cannot be read may tell of a failure, so no retry makes up for it.
            self.errors.push(Reason::of_batch(end.batch.index, error.as_str()));
            return;
        }
        if !missing.is_empty() {
            return;
        }
        let number = end.batch.index;
        if end.reading.error.is_some() {
            self.errors.push(Reason::of_batch(number, end.complaint()));
        } else if end.execution.exit != Exit::Code(0) && !end.is_explained() {
            let what = if end.failed { " after its tests" } else { ", but reported no failure" };
            self.errors.push(Reason::of_batch(number, format!("{}{what}", end.how())));
        }
    }

    /// Takes back the last pass in the report of a runner that timed out, if it may have hung in that test.
    fn doubt(&mut self, batch: &Batch, execution: &Execution, reading: &mut Reading) {
        let Some(last) = reading.unfinished.filter(|_| execution.exit == Exit::TimedOut) else { return };
        let is_reported = |test: &TestIndex| reading.found.iter().any(|(index, _)| index == test);
        let has_failure = reading.found.iter().any(|(_, result)| result.outcome.is_bad());
        if batch.tests.len() > 1 && !has_failure && batch.tests.iter().all(is_reported) {
            // Whatever the last test gives when it runs again, something took too long.
            let text = "the runner timed out, but reported no failure".to_owned();
            self.errors.push(Reason::of_batch(batch.index, text));
        }
        reading.found.retain(|(index, _)| *index != last);
    }

    /// Queues those of `tests` that have attempts left, spread over the sandboxes.
    fn retry(&mut self, batch: &Batch, mut tests: Vec<TestIndex>, step: &mut Step) {
        tests.retain(|index| self.may_run_again(*index));
        for part in self.split(&tests, self.policy.machines) {
            let new = self.batch(batch.group, part, Origin::Retry, None);
            step.batches.push(new);
        }
    }

    /// Stops the run if the policy says so and a test has failed with no attempts left.
    fn settle(&mut self, batch: &Batch, step: &mut Step) {
        let failed = |index: &&TestIndex| self.is_bad(**index) && !self.may_run_again(**index);
        if self.policy.fail_fast && !self.stopped && batch.tests.iter().any(|index| failed(&index)) {
            self.stopped = true;
            step.stop = true;
        }
        if self.stopped {
            for batch in std::mem::take(&mut step.batches) {
                self.dropped(&batch, STOPPED);
            }
            for index in &batch.tests {
                self.states[index.0 as usize].reason = Some(STOPPED.into());
            }
        }
    }

    fn root(&self, batch: u32) -> u32 {
        self.roots.get(&batch).copied().unwrap_or(batch)
    }

    fn number(&mut self, root: u32) -> u32 {
        let number = self.next_batch;
        self.next_batch += 1;
        self.roots.insert(number, root);
        number
    }

    fn batch(
        &mut self,
        group: GroupIndex,
        tests: Vec<TestIndex>,
        origin: Origin,
        root: Option<u32>,
    ) -> Batch {
        let index = self.number(root.unwrap_or(self.next_batch));
        let companions = self.companions(&tests);
        let all = tests.iter().chain(&companions);
        let load = all.map(|index| self.suite.test(*index).expected).sum();
        Batch { index, group, tests, companions, load, origin }
    }
}

const STOPPED: &str = "stopped after the first failure (`--fail-fast`)";

#[cfg(test)]
mod tests;
