//! Batches that wait: what came up during the run goes before what was planned, and no group has more of its batches
//! running than it may.

use std::collections::{BTreeMap, VecDeque};

use super::Ended;
use crate::model::{Batch, GroupIndex, GroupLimit, Origin};

/// A batch that waits.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    /// The worker in whose sandbox its tests have failed, or that lost it: it runs elsewhere if it can.
    pub(super) avoid: Option<usize>,
    /// It follows from a batch whose sandbox was lost: its tests may be why.
    pub(super) is_suspect: bool,
}

/// Tests of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tests {
    pub(super) group: GroupIndex,
    pub(super) count: usize,
}

/// How many batches of a group there may be at once, and are.
#[derive(Clone, Copy, Debug)]
struct Share {
    running: usize,
    most: usize,
}

/// The queue of a run.
#[derive(Debug)]
pub(super) struct Queue {
    urgent: VecDeque<Job>,
    /// The plan, a queue for each group; the order of the plan is that of the numbers of batches.
    planned: BTreeMap<GroupIndex, VecDeque<Job>>,
    /// The shares of groups with a limit.
    shares: BTreeMap<GroupIndex, Share>,
}

impl Queue {
    /// The plan in its order; `limits` says which groups have a maximum of batches at once.
    pub(super) fn new(batches: Vec<Batch>, limits: &[GroupLimit]) -> Queue {
        let mut planned: BTreeMap<GroupIndex, VecDeque<Job>> = BTreeMap::new();
        for batch in batches {
            let job = Job { batch, avoid: None, is_suspect: false };
            planned.entry(job.batch.group).or_default().push_back(job);
        }
        let share = |limit: &GroupLimit| (limit.group, Share { running: 0, most: limit.most.max(1) });
        Queue { urgent: VecDeque::new(), planned, shares: limits.iter().map(share).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.planned.values().all(VecDeque::is_empty)
    }

    /// Whether any group has a limit.
    pub(super) fn has_limits(&self) -> bool {
        !self.shares.is_empty()
    }

    /// How many of the batches could run now, if there were sandboxes for all.
    pub(super) fn startable(&self) -> usize {
        let mut waiting: BTreeMap<GroupIndex, usize> = BTreeMap::new();
        waiting.extend(self.planned.iter().map(|(group, jobs)| (*group, jobs.len())));
        self.urgent.iter().for_each(|job| *waiting.entry(job.batch.group).or_default() += 1);
        waiting.into_iter().map(|(group, count)| count.min(self.room(group))).sum()
    }

    /// How many sandboxes beside those at work batches that wait could use, now or later: at most one for each test,
    /// since each of these may come back alone. `more` has tests that may come back besides.
    pub(super) fn demand(&self, more: impl Iterator<Item = Tests>) -> usize {
        let mut tests: BTreeMap<GroupIndex, usize> = BTreeMap::new();
        let jobs = self.urgent.iter().chain(self.planned.values().flatten());
        let waiting = jobs.map(|job| Tests { group: job.batch.group, count: job.batch.tests.len() });
        waiting.chain(more).for_each(|more| *tests.entry(more.group).or_default() += more.count);
        tests.into_iter().map(|(group, count)| count.min(self.room(group))).sum()
    }

    /// Adds a batch before the plan; `ended` is the end of the one that it follows from.
    pub(super) fn add(&mut self, batch: Batch, ended: Option<Ended>) {
        let is_suspect = ended.is_some_and(|ended| ended.is_lost);
        let avoid = ended.filter(|_| is_suspect || batch.origin == Origin::Retry).map(|ended| ended.slot);
        self.urgent.push_back(Job { batch, avoid, is_suspect });
    }

    /// Whether the next batch is to run elsewhere than in `slot`, if it can.
    pub(super) fn avoids(&self, slot: usize) -> bool {
        // What was planned avoids nobody.
        let next = self.urgent.iter().find(|job| self.room(job.batch.group) > 0);
        next.is_some_and(|job| job.avoid == Some(slot))
    }

    /// Takes the next batch that may run now.
    pub(super) fn next(&mut self) -> Option<Job> {
        self.next_that(|_| true)
    }

    /// Takes the next batch that may run now, in `slot`.
    pub(super) fn next_for(&mut self, slot: usize) -> Option<Job> {
        self.next_that(|job| job.avoid != Some(slot))
    }

    fn next_that(&mut self, takes: impl Fn(&Job) -> bool) -> Option<Job> {
        let urgent = self.urgent.iter().position(|job| takes(job) && self.room(job.batch.group) > 0);
        let job = match urgent {
            Some(place) => self.urgent.remove(place),
            None => self.next_planned(),
        }?;
        if let Some(share) = self.shares.get_mut(&job.batch.group) {
            share.running += 1;
        }
        Some(job)
    }

    fn next_planned(&mut self) -> Option<Job> {
        let first = |group: &GroupIndex| Some((self.planned.get(group)?.front()?.batch.index, *group));
        let free = self.planned.keys().filter(|group| self.room(**group) > 0);
        let (_, group) = free.filter_map(first).min()?;
        self.planned.get_mut(&group)?.pop_front()
    }

    /// A batch of this group has ended.
    pub(super) fn ended(&mut self, group: GroupIndex) {
        if let Some(share) = self.shares.get_mut(&group) {
            share.running = share.running.saturating_sub(1);
        }
    }

    /// Takes a batch that will not run, in any order.
    pub(super) fn drop_one(&mut self) -> Option<Job> {
        self.urgent.pop_front().or_else(|| self.planned.values_mut().find_map(VecDeque::pop_front))
    }

    /// Takes the batch of this number, which will not run.
    pub(super) fn take(&mut self, index: u32) -> Option<Job> {
        let is_it = |job: &Job| job.batch.index == index;
        std::iter::once(&mut self.urgent).chain(self.planned.values_mut()).find_map(|jobs| {
            let place = jobs.iter().position(is_it)?;
            jobs.remove(place)
        })
    }

    /// How many more batches of a group may run.
    fn room(&self, group: GroupIndex) -> usize {
        self.shares.get(&group).map_or(usize::MAX, |share| share.most.saturating_sub(share.running))
    }
}
