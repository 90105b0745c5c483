//! Asks a batch again whose exit status only flaky failures explain: something outside tests may have gone wrong beside
//! them, and only the status of a batch without failures tells.

use super::end::End;
use super::{Collector, Step};
use crate::framework::Meaning;
use crate::model::{Batch, Exit, GroupIndex, Origin, TestIndex};

/// A batch that ended with an exit status for which its failures are the only explanation.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    group: GroupIndex,
    /// All its tests, in order.
    tests: Vec<TestIndex>,
    failed: Vec<TestIndex>,
}

/// What the failures of a batch have become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// One of them stays: it explains the status.
    Stays,
    /// One of them runs again.
    Open,
    /// All have passed since.
    Gone,
}

impl Collector<'_> {
    /// Notes whether the exit status of a batch needs its failures, those of the tests `bad`, as an explanation.
    pub(super) fn doubt_status(&mut self, end: &End<'_>, bad: &[TestIndex], missing: &[TestIndex]) {
        let Exit::Code(code) = end.execution.exit else { return };
        if code == 0 && end.reading.error.is_none() {
            let runs = |test: &TestIndex| end.batch.tests.binary_search(test).is_ok();
            self.doubts.retain(|doubt| !doubt.tests.iter().all(runs));
            return;
        }
        let is_said = end.reading.session.is_some() || end.reading.meaning != Meaning::Unknown;
        let is_red = end.reading.extras.iter().any(|extra| extra.outcome.is_bad());
        let is_first = end.batch.origin != Origin::Retry && !self.asked.contains(&self.root(end.batch.index));
        if is_first && !is_said && !is_red && !bad.is_empty() && missing.is_empty() {
            let (tests, failed) = (end.batch.tests.clone(), bad.to_vec());
            self.doubts.push(Doubt { group: end.batch.group, tests, failed });
        }
    }

    /// Queues batches again whose failures have all passed since, as a whole and once.
    pub(super) fn ask_again(&mut self, step: &mut Step) {
        for doubt in std::mem::take(&mut self.doubts) {
            match self.fate(&doubt) {
                Fate::Stays => {}
                Fate::Open => self.doubts.push(doubt),
                Fate::Gone => {
                    for test in &doubt.tests {
                        let state = &mut self.states[test.0 as usize];
                        state.before = state.attempts.len();
                    }
                    let again = self.batch(doubt.group, doubt.tests, Origin::Retry, None);
                    self.asked.push(again.index);
                    step.batches.push(again);
                }
            }
        }
    }

    /// A batch will not be executed: if it was to be asked again, its first exit status stays unexplained.
    pub(super) fn note_unasked(&mut self, batch: &Batch, reason: &str) {
        if self.asked.contains(&self.root(batch.index)) {
            let text = format!(
                "only flaky tests explain that a runner failed, and it could not run again: {reason}"
            );
            self.errors.push(text.into());
        }
    }

    fn fate(&self, doubt: &Doubt) -> Fate {
        let bad: Vec<TestIndex> = doubt.failed.iter().copied().filter(|test| self.is_bad(*test)).collect();
        if bad.is_empty() {
            Fate::Gone
        } else if bad.iter().all(|test| self.may_run_again(*test)) {
            Fate::Open
        } else {
            Fate::Stays
        }
    }
}
