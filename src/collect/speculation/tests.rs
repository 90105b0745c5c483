//! Claims about when a late batch runs twice: events are built by hand, time is told.

use super::*;
use crate::event::Execution;
use crate::model::{Estimate, Exit, Group, GroupIndex, Listed, TestIndex};

const SECOND: Duration = Duration::from_secs(1);
const RULE: SpeculationRule = SpeculationRule { overhead: SECOND };

/// Tests of which each makes a batch; the one at `unmeasured` has no estimate.
fn suite(tests: u32, unmeasured: Option<u32>) -> Suite {
    let group = Group { name: "g".into(), filters: String::new(), max_attempts: 1, solo: true };
    let mut suite = Suite::new(vec![group]);
    for number in 0..tests {
        suite.add(Listed::new(GroupIndex(0), format!("{number}"), None));
    }
    let name = unmeasured.map(|number| number.to_string());
    suite.expect(|test| Estimate { duration: SECOND, measured: name.as_deref() != Some(test.id.as_str()) });
    suite
}

fn batch(index: u32, load: u32) -> Batch {
    let tests = vec![TestIndex(index)];
    Batch {
        index,
        group: GroupIndex(0),
        tests,
        companions: Vec::new(),
        load: SECOND * load,
        origin: Origin::Planned,
    }
}

fn start(speculation: &mut Speculation<'_>, slot: usize, batch: &Batch, now: Duration) {
    speculation.hear(&Event::Started { slot, batch: batch.clone() }, now);
}

fn finish(speculation: &mut Speculation<'_>, slot: usize, batch: &Batch) {
    let exit = Exit::Code(0);
    let execution =
        Execution { exit, elapsed: SECOND, whole: Duration::ZERO, leaked: false, report: None, ended: None };
    speculation.hear(&Event::Finished { slot, batch: batch.clone(), execution }, Duration::ZERO);
}

fn number(late: Option<Late>) -> Option<u32> {
    late.map(|late| late.batch.index)
}

/// All batches of the plan run since the start, on slots of their numbers; `idle` more slots wait.
fn running<'a>(suite: &'a Suite, batches: &[Batch], idle: usize) -> Speculation<'a> {
    let mut speculation = Speculation::new(RULE, suite, batches.len());
    for slot in 0..batches.len() + idle {
        speculation.hear(&Event::Ready { slot }, Duration::ZERO);
    }
    for batch in batches {
        start(&mut speculation, batch.index as usize, batch, Duration::ZERO);
    }
    speculation
}

#[test]
fn a_batch_is_late_when_it_is_past_half_its_estimate_more_and_three_overheads_more() {
    let suite = suite(1, None);
    for (load, patience) in [(1, 4), (6, 9), (10, 15)] {
        let mut speculation = running(&suite, &[batch(0, load)], 1);
        assert_eq!(speculation.late(SECOND * patience), None);
        let now = SECOND * patience + Duration::from_millis(1);
        let late = speculation.late(now).unwrap();
        assert_eq!((late.batch.index, late.elapsed), (0, now));
    }
}

#[test]
fn the_jitter_of_a_second_makes_no_batch_late() {
    let suite = suite(1, None);
    let mut speculation = running(&suite, &[batch(0, 0)], 1);
    speculation.overhead = Duration::ZERO;
    assert_eq!(speculation.late(SECOND), None);
    assert_eq!(number(speculation.late(SECOND * 11 / 10)), Some(0));
}

#[test]
fn time_counts_from_the_start_of_the_batch() {
    let suite = suite(1, None);
    let mut speculation = running(&suite, &[], 2);
    speculation.left = 1;
    speculation.queued(1);
    start(&mut speculation, 0, &batch(0, 1), SECOND * 100);
    assert_eq!(speculation.late(SECOND * 104), None);
    assert_eq!(number(speculation.late(SECOND * 105)), Some(0));
}

#[test]
fn nothing_runs_twice_while_a_batch_waits() {
    let suite = suite(2, None);
    let mut speculation = running(&suite, &[batch(0, 1)], 1);
    speculation.queued(2);
    assert_eq!(speculation.late(SECOND * 100), None);
    // One waiting batch is dropped, the other one is started and done.
    speculation.hear(&Event::Dropped { batch: batch(1, 1), reason: "no".into() }, SECOND);
    assert_eq!(speculation.late(SECOND * 100), None);
    start(&mut speculation, 1, &batch(1, 1), SECOND);
    assert_eq!(speculation.late(SECOND * 100), None, "no worker is idle");
    finish(&mut speculation, 1, &batch(1, 1));
    assert_eq!(number(speculation.late(SECOND * 100)), Some(0));
}

#[test]
fn only_a_worker_whose_sandbox_is_ready_is_idle() {
    let suite = suite(2, None);
    let batches = [batch(0, 1), batch(1, 1)];
    let now = SECOND * 100;
    let mut speculation = running(&suite, &batches, 0);
    assert_eq!(speculation.late(now), None);
    let lost = Event::Lost { slot: 1, batch: batches[1].clone(), error: "gone".into() };
    speculation.hear(&lost, now);
    assert_eq!(speculation.late(now), None);
    speculation.hear(&Event::Ready { slot: 1 }, now);
    speculation.hear(&Event::Retired { slot: 1, error: "gone".into() }, now);
    assert_eq!(speculation.late(now), None);
    speculation.hear(&Event::Ready { slot: 2 }, now);
    assert_eq!(number(speculation.late(now)), Some(0));
}

#[test]
fn one_in_twenty_planned_batches_rounded_up_and_none_twice() {
    for (planned, limit) in [(1, 1), (2, 1), (20, 1), (21, 2), (40, 2), (41, 3)] {
        let suite = suite(planned, None);
        let batches: Vec<Batch> = (0..planned).map(|index| batch(index, 1)).collect();
        let mut speculation = running(&suite, &batches, 9);
        let mut named = Vec::new();
        for round in 0..9_u32 {
            if let Some(late) = speculation.late(SECOND * 100) {
                named.push(late.batch.index);
                assert_eq!(speculation.late(SECOND * 100), None, "the duplicate waits");
                let index = planned + round;
                let duplicate = Batch { index, origin: Origin::Speculative, ..late.batch };
                start(&mut speculation, index as usize, &duplicate, SECOND * 100);
            }
        }
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), limit, "{planned}");
    }
}

#[test]
fn neither_a_duplicate_nor_its_original_runs_twice_again() {
    let suite = suite(1, None);
    let mut speculation = running(&suite, &[batch(0, 1)], 3);
    speculation.left = 9;
    let late = speculation.late(SECOND * 10).unwrap();
    let duplicate = Batch { index: 1, origin: Origin::Speculative, ..late.batch };
    start(&mut speculation, 1, &duplicate, SECOND * 10);
    assert_eq!(speculation.late(SECOND * 1000), None);
}

#[test]
fn the_batch_furthest_beyond_its_estimate_comes_first() {
    let suite = suite(3, None);
    let mut speculation = running(&suite, &[batch(0, 20), batch(1, 2), batch(2, 10)], 3);
    speculation.left = 9;
    let next = |speculation: &mut Speculation<'_>, index| {
        let late = speculation.late(SECOND * 40)?;
        let duplicate = Batch { index, origin: Origin::Speculative, ..late.batch.clone() };
        start(speculation, index as usize, &duplicate, SECOND * 40);
        Some(late.batch.index)
    };
    assert_eq!([3, 4, 5].map(|index| next(&mut speculation, index)), [Some(1), Some(2), Some(0)]);
}

#[test]
fn a_batch_with_a_test_that_was_never_measured_is_not_late() {
    let suite = suite(2, Some(0));
    let mut speculation = running(&suite, &[batch(0, 1), batch(1, 1)], 1);
    speculation.left = 9;
    assert_eq!(number(speculation.late(SECOND * 100)), Some(1));
    finish(&mut speculation, 1, &batch(1, 1));
    speculation.waiting = 0;
    assert_eq!(speculation.late(SECOND * 100), None);
}

#[test]
fn nothing_runs_twice_in_a_run_that_stops_nor_after_it_is_done() {
    let suite = suite(1, None);
    let mut speculation = running(&suite, &[batch(0, 1)], 1);
    finish(&mut speculation, 0, &batch(0, 1));
    assert_eq!(speculation.late(SECOND * 100), None);
    let mut speculation = running(&suite, &[batch(0, 1)], 1);
    speculation.stop();
    assert_eq!(speculation.late(SECOND * 100), None);
}
