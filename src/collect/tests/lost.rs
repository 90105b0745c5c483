//! Claims about batches whose sandbox is lost: by chance, by one of their tests, or always.

use super::*;

const GONE: &str = "sandbox `sb` did not tell how the command ended";

/// Runs all batches until nothing is left; those that `takes` says take their sandbox with them. Gives
/// how many sandboxes were lost.
fn lose(collector: &mut Collector<'_>, first: Vec<Batch>, takes: &dyn Fn(&Batch) -> bool) -> usize {
    let mut queue = VecDeque::from(first);
    let mut lost = 0;
    while let Some(batch) = queue.pop_front() {
        let step = if takes(&batch) {
            lost += 1;
            assert!(lost < 5000, "the run does not end");
            collector.lost(batch, GONE)
        } else {
            let found: Vec<_> = batch.tests.iter().map(|test| (test.0, Outcome::Passed)).collect();
            collector.finished(&batch, &execution(Exit::Code(0)), Results::Report(reading(&found)))
        };
        if step.stop {
            for batch in queue.drain(..) {
                collector.dropped(&batch, "stopped");
            }
        }
        queue.extend(step.batches);
    }
    lost
}

fn holds(test: u32) -> impl Fn(&Batch) -> bool {
    move |batch| batch.tests.contains(&TestIndex(test))
}

#[test]
fn a_batch_whose_sandbox_is_lost_once_runs_again_whole() {
    let suite = suite(8, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let step = collector.lost(all(&suite), GONE);
    let [again] = &step.batches[..] else { panic!("{:?}", step.batches) };
    assert_eq!((again.index, again.tests.len(), again.origin), (1, 8, Origin::Planned));
    assert_eq!(lose(&mut collector, step.batches, &|_| false), 0);
    assert_eq!(collector.finish().status(), Status::Passed);
}

#[test]
fn a_test_that_takes_its_sandbox_with_it_is_found_wherever_it_stands() {
    for machines in [1, 3, 8] {
        for culprit in 0..20 {
            let suite = suite(20, 1);
            let mut collector = Collector::new(&suite, Policy { machines, ..policy(false) }, 1);
            let lost = lose(&mut collector, vec![all(&suite)], &holds(culprit));
            let summary = collector.finish();
            assert_eq!((summary.counts.passed, summary.counts.failed), (19, 1));
            let attempt = &summary.attempts[culprit as usize][0];
            assert_eq!(attempt.result.outcome, Outcome::Errored);
            let message = attempt.result.message().unwrap();
            assert!(message.contains("its sandbox was lost each time it ran"), "{message}");
            assert!(message.contains(GONE), "{message}");
            assert!(lost <= 8, "{lost} sandboxes of {machines}");
        }
    }
}

#[test]
fn the_retries_of_a_test_that_takes_its_sandbox_with_it_decide_the_rest() {
    let suite = suite(4, 3);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let lost = lose(&mut collector, vec![all(&suite)], &holds(2));
    let summary = collector.finish();
    assert_eq!((summary.attempts[2].len(), verdict_of(&summary, 2)), (3, &Verdict::Failed));
    assert_eq!((summary.counts.passed, lost), (3, 2 + 1 + 3 * 2));

    let mut collector = Collector::new(&suite, policy(false), 1);
    let times = std::cell::Cell::new(0);
    let takes = |batch: &Batch| holds(2)(batch) && times.replace(times.get() + 1) < 5;
    lose(&mut collector, vec![all(&suite)], &takes);
    assert_eq!(collector.finish().status(), Status::Flaky);
}

#[test]
fn a_test_that_is_alone_from_the_start_is_spared_two_losses() {
    let suite = suite(2, 1);
    let alone = |number: u32| Batch { index: number, tests: vec![TestIndex(number)], ..all(&suite) };
    for (losses, status) in [(2, Status::Passed), (3, Status::Failed)] {
        let mut collector = Collector::new(&suite, policy(false), 2);
        let times = std::cell::Cell::new(0);
        let takes = |batch: &Batch| holds(1)(batch) && times.replace(times.get() + 1) < losses;
        lose(&mut collector, vec![alone(0), alone(1)], &takes);
        assert_eq!(collector.finish().status(), status, "{losses}");
    }
}

#[test]
fn no_test_is_blamed_as_long_as_nothing_works_in_any_sandbox() {
    let suite = suite(2, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut waiting = vec![all(&suite)];
    for _ in 0..9 {
        let step = collector.lost(waiting.remove(0), GONE);
        waiting.extend(step.batches);
    }
    for batch in waiting {
        collector.dropped(&batch, "no sandbox is left");
    }
    let summary = collector.finish();
    assert_eq!(summary.counts.not_run, 2);
    let reason = format!("no sandbox is left; before that: {GONE}");
    assert_eq!(reason_of(&summary, 0), reason);
}

#[test]
fn a_batch_that_is_always_lost_is_given_up_after_a_bounded_number_of_sandboxes() {
    let suite = suite(3001, 3);
    let mut collector = Collector::new(&suite, Policy { machines: 8, ..policy(false) }, 2);
    let works = Batch { tests: vec![TestIndex(0)], ..all(&suite) };
    let never = Batch { index: 1, tests: suite.indices().skip(1).collect(), ..all(&suite) };
    let lost = lose(&mut collector, vec![works, never], &|batch| batch.tests[0].0 > 0);
    assert!(lost <= 300, "{lost}");
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.not_run), (1, 3000));
    assert_eq!(reason_of(&summary, 7), GONE);
}

#[test]
fn fail_fast_stops_at_a_test_that_takes_its_sandbox_with_it() {
    let suite = suite(8, 1);
    let mut collector = Collector::new(&suite, policy(true), 1);
    lose(&mut collector, vec![all(&suite)], &holds(0));
    let summary = collector.finish();
    assert_eq!((verdict_of(&summary, 0), summary.counts.failed), (&Verdict::Failed, 1));
    let stopped =
        |verdict: &&Verdict| matches!(verdict, Verdict::NotRun(why) if why.text.contains("--fail-fast"));
    assert_eq!(summary.counts.passed + summary.verdicts.iter().filter(stopped).count(), 7);
}

#[test]
fn a_batch_that_is_left_of_a_pair_and_is_lost_again_is_divided() {
    let suite = suite(4, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let first = all(&suite);
    let second = collector.duplicate(&first);
    // As long as the other one lives, a loss is no matter.
    assert!(collector.lost(second, GONE).batches.is_empty());
    let mut step = collector.lost(first, GONE);
    assert_eq!(step.batches.len(), 1);
    step = collector.lost(step.batches.remove(0), GONE);
    let parts: Vec<_> = step.batches.iter().map(|part| (part.origin, part.tests.len())).collect();
    assert_eq!(parts, [(Origin::Isolated, 2), (Origin::Isolated, 2)]);
}

#[test]
fn a_cancelled_execution_is_no_sign_that_sandboxes_work() {
    let suite = suite(1, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    collector.finished(&all(&suite), &execution(Exit::Cancelled), Results::Report(broken(&[])));
    lose(&mut collector, vec![all(&suite)], &holds(0));
    let summary = collector.finish();
    assert!(summary.attempts[0].is_empty(), "no test is to blame: {:?}", summary.attempts[0]);
}
