//! Merges the histories of two branches without losing anything that either has learned.

use std::collections::btree_map::Entry;

use super::reservoir::{Draw, reduce};
use super::{History, Record, Sample};

/// Merges `ours` and `theirs`, which both descend from `base`. Each test keeps at most `capacity` samples per
/// outcome. The merge is symmetric, and a side that learned nothing has no effect. A record that only one side
/// removed stays.
pub fn merge(base: &History, ours: &History, theirs: &History, capacity: usize) -> History {
    let mut merged = ours.clone();
    for (config, records) in &theirs.records {
        let target = merged.records.entry(config.clone()).or_default();
        for (id, theirs) in records {
            match target.entry(id.clone()) {
                Entry::Vacant(place) => {
                    place.insert(theirs.clone());
                }
                Entry::Occupied(mut place) => {
                    let limit = Limit { capacity, draw: Draw::new(config, id) };
                    let both = match base.get(config, id) {
                        Some(base) => with_base(base, place.get(), theirs, limit),
                        None => limit.apply(without_base(place.get(), theirs)),
                    };
                    place.insert(both);
                }
            }
        }
    }
    merged
}

#[derive(Clone, Copy)]
struct Limit {
    capacity: usize,
    draw: Draw,
}

impl Limit {
    fn apply(self, mut record: Record) -> Record {
        reduce(&mut record.passed, self.capacity, self.draw);
        reduce(&mut record.failed, self.capacity, self.draw);
        record
    }
}

fn with_base(base: &Record, ours: &Record, theirs: &Record, limit: Limit) -> Record {
    if ours == theirs {
        return ours.clone();
    }
    let news = |ours: &[Sample], theirs: &[Sample], base: &[Sample]| {
        let both = common(ours, theirs);
        both.len() - common(&both, base).len()
    };
    let counted_twice = news(&ours.failed, &theirs.failed, &base.failed);
    let failures = count(base.failures, ours.failures, theirs.failures, counted_twice);
    let counted_twice = counted_twice + news(&ours.passed, &theirs.passed, &base.passed);
    let attempts = count(base.attempts, ours.attempts, theirs.attempts, counted_twice);
    let last_run = if ours.last_run == base.last_run {
        &theirs.last_run
    } else if theirs.last_run == base.last_run {
        &ours.last_run
    } else {
        &later(ours, theirs).last_run
    };
    let samples = |base: &[Sample], ours: &[Sample], theirs: &[Sample]| {
        let mut all = union(ours, theirs);
        // A side may have dropped samples of the base to make room. If only that side learned, use its samples.
        let least = limit.capacity.min(all.len());
        if ours == base && theirs.len() >= least {
            return theirs.to_vec();
        }
        if theirs == base && ours.len() >= least {
            return ours.to_vec();
        }
        reduce(&mut all, limit.capacity, limit.draw);
        all
    };
    let passed = samples(&base.passed, &ours.passed, &theirs.passed);
    let failed = samples(&base.failed, &ours.failed, &theirs.failed);
    Record { attempts, failures, last_run: last_run.clone(), passed, failed }.settle()
}

/// The count of the base plus what each side has counted since, less what both counted.
fn count(base: u64, ours: u64, theirs: u64, counted_twice: usize) -> u64 {
    let since = ours.saturating_sub(base).saturating_add(theirs.saturating_sub(base));
    base.saturating_add(since).saturating_sub(counted_twice as u64).max(ours).max(theirs)
}

/// Merges two records without a known base. If they have samples in common, they share a past, and only the samples
/// that one of them lacks are added to its counts.
pub fn without_base(one: &Record, other: &Record) -> Record {
    if one == other {
        return one.clone();
    }
    let passed = union(&one.passed, &other.passed);
    let failed = union(&one.failed, &other.failed);
    let all = passed.len() + failed.len();
    let samples = |record: &Record| record.passed.len() + record.failed.len();
    let attempts = |record: &Record| record.attempts.saturating_add((all - samples(record)) as u64);
    let failures =
        |record: &Record| record.failures.saturating_add((failed.len() - record.failed.len()) as u64);
    let (attempts, failures) = if all == samples(one) + samples(other) {
        (one.attempts.saturating_add(other.attempts), one.failures.saturating_add(other.failures))
    } else {
        (attempts(one).max(attempts(other)), failures(one).max(failures(other)))
    };
    let last_run = later(one, other).last_run.clone();
    Record { attempts, failures, last_run, passed, failed }.settle()
}

/// The record with the newest sample.
fn later<'a>(one: &'a Record, other: &'a Record) -> &'a Record {
    let newest = |record: &'a Record| {
        let at = record.passed.last().max(record.failed.last()).map(|sample| sample.at);
        (at, &record.last_run)
    };
    if newest(one) > newest(other) { one } else { other }
}

/// The multiset union: a sample occurs as often as in the side that has it more often.
fn union(one: &[Sample], other: &[Sample]) -> Vec<Sample> {
    let mut all = Vec::with_capacity(one.len() + other.len());
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(left), Some(right)) = (one.peek(), other.peek()) {
        let order = left.cmp(right);
        all.extend(if order.is_le() { one.next() } else { other.next() }.cloned());
        if order.is_eq() {
            other.next();
        }
    }
    all.extend(one.chain(other).cloned());
    all.shrink_to_fit();
    all
}

/// The multiset intersection.
fn common(one: &[Sample], other: &[Sample]) -> Vec<Sample> {
    let mut other = other.iter().peekable();
    let is_there = |sample: &&Sample| {
        while other.next_if(|next| next < sample).is_some() {}
        other.next_if(|next| next == sample).is_some()
    };
    one.iter().filter(is_there).cloned().collect()
}
