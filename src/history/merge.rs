//! What two branches know, joined: nothing that one of them has learned is lost.

use std::collections::btree_map::Entry;

use super::reservoir::{Draw, reduce};
use super::{History, Record, Sample};

/// Joins `ours` and `theirs`, which both come from `base`. Of each outcome of a test at most `capacity`
/// samples stay. Who is ours and who is theirs does not matter, and a side that learned nothing changes
/// nothing. A record that one side has removed stays.
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
    let told_twice = news(&ours.failed, &theirs.failed, &base.failed);
    let failures = count(base.failures, ours.failures, theirs.failures, told_twice);
    let told_twice = told_twice + news(&ours.passed, &theirs.passed, &base.passed);
    let attempts = count(base.attempts, ours.attempts, theirs.attempts, told_twice);
    let last_run = if ours.last_run == base.last_run {
        &theirs.last_run
    } else if theirs.last_run == base.last_run {
        &ours.last_run
    } else {
        &later(ours, theirs).last_run
    };
    let samples = |base: &[Sample], ours: &[Sample], theirs: &[Sample]| {
        let mut all = union(ours, theirs);
        // A side may have dropped samples of the base to make room. If it alone has learned, it is right.
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

/// The base, and what each side has counted since; of samples that are new on both sides one side's.
fn count(base: u64, ours: u64, theirs: u64, told_twice: usize) -> u64 {
    let since = ours.saturating_sub(base).saturating_add(theirs.saturating_sub(base));
    base.saturating_add(since).saturating_sub(told_twice as u64).max(ours).max(theirs)
}

/// Joins two records of which nothing is known but themselves. Those with samples in common have a past
/// in common, so only the samples that one of them lacks are added to its counts.
pub fn without_base(one: &Record, other: &Record) -> Record {
    if one == other {
        return one.clone();
    }
    let passed = union(&one.passed, &other.passed);
    let failed = union(&one.failed, &other.failed);
    let samples = |record: &Record| record.passed.len() + record.failed.len();
    let are_apart = passed.len() + failed.len() == samples(one) + samples(other);
    let count = |one: (u64, usize), other: (u64, usize), all: usize| {
        let lacks = |(counted, samples): (u64, usize)| counted.saturating_add((all - samples) as u64);
        if are_apart { one.0.saturating_add(other.0) } else { lacks(one).max(lacks(other)) }
    };
    let attempts =
        count((one.attempts, samples(one)), (other.attempts, samples(other)), passed.len() + failed.len());
    let failures =
        count((one.failures, one.failed.len()), (other.failures, other.failed.len()), failed.len());
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

/// All samples of both; one that both have comes as often as in that side which has it more often.
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

/// The samples that both have.
fn common(one: &[Sample], other: &[Sample]) -> Vec<Sample> {
    let mut other = other.iter().peekable();
    let is_there = |sample: &&Sample| {
        while other.next_if(|next| next < sample).is_some() {}
        other.next_if(|next| next == sample).is_some()
    };
    one.iter().filter(is_there).cloned().collect()
}
