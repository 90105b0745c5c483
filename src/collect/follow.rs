//! What happens to the tests of a batch that got no result.

use super::end::End;
use super::recorded::{Running, Session};
use super::{Collector, PARTS, PATIENCE, Step};
use crate::framework::Meaning;
use crate::model::{Batch, CaseResult, Exit, GroupIndex, Origin, Outcome, Reason, TestIndex};

impl Collector<'_> {
    /// Decides what happens to tests without a result, by a record: it tells which of them ran.
    pub(super) fn follow_record(
        &mut self,
        end: &End<'_>,
        session: &Session,
        missing: Vec<TestIndex>,
        step: &mut Step,
    ) {
        let complaint = self.complain(end, &missing);
        self.note_absent(&missing, session);
        if missing.is_empty() || end.execution.exit == Exit::Cancelled || self.stopped {
            return;
        }
        let has_progress = missing.len() < end.batch.tests.len();
        let left = |index: &TestIndex| missing.binary_search(index).is_ok();
        let culprits: Vec<&Running> = session.running.iter().filter(|running| left(&running.test)).collect();
        let culprits: Vec<&Running> =
            culprits.into_iter().filter(|running| is_culprit(end, running, has_progress)).collect();
        let is_rest = |index: &TestIndex| {
            !session.absent.contains(index) && culprits.iter().all(|culprit| culprit.test != *index)
        };
        let rest: Vec<TestIndex> = missing.iter().copied().filter(is_rest).collect();
        if !culprits.is_empty() {
            self.blame_running(end, &culprits, step);
        } else if !has_progress && self.follow_start(end, session, &missing, step) {
            return;
        }
        // What finished with status 0 believes that it is done.
        if rest.is_empty() || (session.exit == Some(0) && end.execution.exit == Exit::Code(0)) {
            return;
        }
        if has_progress || !culprits.is_empty() {
            // They had not started, or it was only the time of the batch that ran out.
            if culprits.is_empty() && !end.failed {
                self.broken.push(complaint);
            }
            let rest = self.batch(end.batch.group, rest, Origin::Isolated, None);
            step.batches.push(rest);
        }
    }

    /// Blames tests that were running when their runner ended. If there are several and it did not time out, each
    /// runs alone.
    fn blame_running(&mut self, end: &End<'_>, culprits: &[&Running], step: &mut Step) {
        let is_over = end.execution.exit == Exit::TimedOut;
        if culprits.len() > 1 && !is_over {
            self.broken.push(Reason::of_batch(end.batch.index, end.complaint()));
            for culprit in culprits {
                let alone = self.batch(end.batch.group, vec![culprit.test], Origin::Isolated, None);
                step.batches.push(alone);
            }
            return;
        }
        for culprit in culprits {
            let outcome = if is_over { Outcome::TimedOut } else { Outcome::Errored };
            let took = end.execution.elapsed.saturating_sub(culprit.started);
            let mut result = CaseResult::stated(outcome, took, end.how_running());
            if let (Some(details), Some(failures)) = (&mut result.details, &culprit.failures) {
                details.text = failures.text.clone().or_else(|| failures.message.clone());
            }
            self.attempt(culprit.test, end.batch.index, result);
            self.retry(end.batch, vec![culprit.test], step);
        }
    }

    /// A runner ended before any test had started. Returns whether that is dealt with.
    fn follow_start(
        &mut self,
        end: &End<'_>,
        session: &Session,
        missing: &[TestIndex],
        step: &mut Step,
    ) -> bool {
        let by_itself = matches!(end.execution.exit, Exit::Code(_));
        if let (Some(file), None) = (&session.loading, session.exit) {
            let in_file =
                |index: &&TestIndex| self.suite.test(**index).file.as_deref() == Some(file.as_str());
            let (inside, others): (Vec<_>, Vec<_>) = missing.iter().partition(in_file);
            if !inside.is_empty() && end.execution.exit != Exit::TimedOut {
                let message = format!("{} while it loaded `{file}`", end.how());
                for index in &inside {
                    let result =
                        CaseResult::stated(Outcome::Errored, end.execution.elapsed, message.as_str());
                    self.attempt(*index, end.batch.index, result);
                }
                self.retry(end.batch, inside, step);
                if !others.is_empty() {
                    let others = self.batch(end.batch.group, others, Origin::Isolated, None);
                    step.batches.push(others);
                }
                return true;
            }
        }
        // A runner that does not want to start will not start with fewer tests either.
        if !by_itself {
            self.follow_up(end, missing.to_vec(), step);
        }
        true
    }

    /// Says of tests that their runner does not have any more why.
    fn note_absent(&mut self, missing: &[TestIndex], session: &Session) {
        for index in session.absent.iter().filter(|index| missing.binary_search(index).is_ok()) {
            let place = match &self.suite.test(*index).file {
                Some(file) => format!(" of `{file}`"),
                None => String::new(),
            };
            let text = format!(
                "ids change{place} from one collection to the next: this one was listed, but is not there any more"
            );
            self.states[index.0 as usize].reason = Some(text.into());
        }
    }

    /// Notes why these tests have no result.
    fn complain(&mut self, end: &End<'_>, missing: &[TestIndex]) -> Reason {
        let complaint = Reason::of_batch(end.batch.index, end.complaint());
        for index in missing {
            self.states[index.0 as usize].reason = Some(complaint.clone());
        }
        complaint
    }

    /// Decides what happens to tests without a result, by a report that tells only of those that ended.
    pub(super) fn follow_up(&mut self, end: &End<'_>, missing: Vec<TestIndex>, step: &mut Step) {
        let root = self.root(end.batch.index);
        let tree = self.trees.entry(root).or_default();
        tree.fruitful |= missing.len() < end.batch.tests.len();
        let weight = if end.execution.exit == Exit::TimedOut { 1 } else { PATIENCE };
        let hopeless = tree.is_hopeless_after(weight);
        let complaint = self.complain(end, &missing);
        if missing.is_empty() || end.execution.exit == Exit::Cancelled || self.stopped {
            return;
        }
        // Two kinds of runner believe that they are done: one that exited with 0 and a complete report, and one
        // that reported as many cases as were requested, but under other names.
        let whole = end.reading.error.is_none();
        let is_done = end.cases >= end.batch.tests.len() && end.execution.exit != Exit::TimedOut;
        let progress = missing.len() < end.batch.tests.len();
        let cannot_begin =
            end.reading.blocked.is_some() || matches!(end.reading.meaning, Meaning::Refused(_));
        let is_refused = !progress && cannot_begin;
        if (whole && end.execution.exit == Exit::Code(0)) || is_done || is_refused || hopeless {
            return;
        }
        let stopped_early = progress && end.failed && whole && matches!(end.execution.exit, Exit::Code(_));
        if stopped_early {
            // It stops at the first failure, by its settings or ours. The other tests are not to blame.
            let rest = self.batch(end.batch.group, missing, Origin::Isolated, None);
            step.batches.push(rest);
            return;
        }
        if let ([index], 1) = (&missing[..], end.batch.tests.len()) {
            self.blame(end, *index, step);
            return;
        }
        self.broken.push(complaint);
        let machines = if end.execution.exit == Exit::TimedOut { PARTS } else { self.policy.machines };
        step.batches.extend(self.divide(end.batch.group, &missing, machines, root));
    }

    /// Divides tests among a few batches, to find the one that breaks its runner.
    pub(super) fn divide(
        &mut self,
        group: GroupIndex,
        tests: &[TestIndex],
        parts: usize,
        root: u32,
    ) -> Vec<Batch> {
        let parts = parts.clamp(2, PARTS);
        // Within a key, each part brings along what comes before it.
        let parts = match self.is_one_key(tests) {
            true => tests.chunks(tests.len().div_ceil(parts)).map(<[TestIndex]>::to_vec).collect(),
            false => self.split(tests, parts),
        };
        parts.into_iter().map(|part| self.batch(group, part, Origin::Isolated, Some(root))).collect()
    }

    /// The only test of a batch got no result: it is the culprit.
    fn blame(&mut self, end: &End<'_>, index: TestIndex, step: &mut Step) {
        let timed_out = end.execution.exit == Exit::TimedOut;
        let outcome = if timed_out { Outcome::TimedOut } else { Outcome::Errored };
        let result = CaseResult::stated(outcome, end.execution.elapsed, end.complaint());
        self.attempt(index, end.batch.index, result);
        self.retry(end.batch, vec![index], step);
    }
}

/// Whether a test that was running is why its runner ended. At a timeout, a test that had run for less than half of
/// the time may just have been the last one.
fn is_culprit(end: &End<'_>, running: &Running, has_progress: bool) -> bool {
    let took = end.execution.elapsed.saturating_sub(running.started);
    let is_short = took * 2 < end.execution.elapsed && (has_progress || end.batch.tests.len() > 1);
    end.execution.exit != Exit::TimedOut || !is_short
}
