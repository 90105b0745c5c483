//! Batches that wait: what came up during the run goes before what was planned.

use std::collections::VecDeque;

use super::Ended;
use crate::model::{Batch, Origin};

/// A batch that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    /// The worker in whose sandbox its tests have failed, or that lost it: it runs elsewhere if it can.
    pub(super) avoid: Option<usize>,
    /// It follows from a batch whose sandbox was lost: its tests may be why.
    pub(super) is_suspect: bool,
}

/// The queue of a run.
#[derive(Debug, Default)]
pub(super) struct Queue {
    urgent: VecDeque<Job>,
    planned: VecDeque<Job>,
}

impl Queue {
    /// The plan, in its order.
    pub(super) fn new(batches: Vec<Batch>) -> Queue {
        let jobs = batches.into_iter().map(|batch| Job { batch, avoid: None, is_suspect: false });
        Queue { urgent: VecDeque::new(), planned: jobs.collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.planned.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a batch before the plan; `ended` is the end of the one that it follows from.
    pub(super) fn add(&mut self, batch: Batch, ended: Option<Ended>) {
        let is_suspect = ended.is_some_and(|ended| ended.is_lost);
        let avoid = ended.filter(|_| is_suspect || batch.origin == Origin::Retry).map(|ended| ended.slot);
        self.urgent.push_back(Job { batch, avoid, is_suspect });
    }

    /// Whether the next batch is to run elsewhere than in `slot`, if it can.
    pub(super) fn avoids(&self, slot: usize) -> bool {
        self.iter().next().is_some_and(|job| job.avoid == Some(slot))
    }

    /// Takes the next batch.
    pub(super) fn next(&mut self) -> Option<Job> {
        self.urgent.pop_front().or_else(|| self.planned.pop_front())
    }

    /// Takes the next batch that may run in `slot`.
    pub(super) fn next_for(&mut self, slot: usize) -> Option<Job> {
        let takes = |job: &Job| job.avoid != Some(slot);
        if let Some(place) = self.urgent.iter().position(takes) {
            return self.urgent.remove(place);
        }
        // What was planned avoids nobody.
        self.planned.pop_front()
    }

    /// Takes the batch of this number.
    pub(super) fn take(&mut self, index: u32) -> Option<Job> {
        let is_it = |job: &Job| job.batch.index == index;
        if let Some(place) = self.urgent.iter().position(is_it) {
            return self.urgent.remove(place);
        }
        let place = self.planned.iter().position(is_it)?;
        self.planned.remove(place)
    }

    fn iter(&self) -> impl Iterator<Item = &Job> {
        self.urgent.iter().chain(&self.planned)
    }
}
