//! Claims about two batches with the same tests: one of them stands, the other one never was.

use super::*;

/// A collector that has seen a batch of all tests get a duplicate, and both.
fn paired(suite: &Suite, fail_fast: bool) -> (Collector<'_>, Batch, Batch) {
    let mut collector = Collector::new(suite, policy(fail_fast), 1);
    let first = all(suite);
    let second = collector.duplicate(&first);
    assert_eq!((second.index, second.origin, &second.tests), (1, Origin::Speculative, &first.tests));
    (collector, first, second)
}

fn passes(suite: &Suite) -> Results {
    let found: Vec<_> = suite.indices().map(|test| (test.0, Outcome::Passed)).collect();
    Results::Report(reading(&found))
}

/// A failure, a failure that nobody asked for, tests without a result, and a broken report.
fn ruin() -> Results {
    let extra = Extra { name: "surprise".into(), outcome: Outcome::Failed, message: None };
    Results::Report(Reading { extras: vec![extra], ..broken(&[(0, Outcome::Failed)]) })
}

#[test]
fn what_the_second_one_to_finish_reports_is_ignored_entirely() {
    for max_attempts in [1, 3] {
        for (place, exit) in [(0, Exit::Cancelled), (1, Exit::Code(1)), (0, Exit::Signal(9))] {
            let suite = suite(3, max_attempts);
            let (mut collector, first, second) = paired(&suite, true);
            let (winner, loser) = if place == 0 { (&first, &second) } else { (&second, &first) };
            let step = collector.finished(winner, &execution(Exit::Code(0)), passes(&suite));
            assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Success), Some(loser.index)));
            assert!(collector.ignores(loser.index) && !collector.ignores(winner.index));
            let step = collector.finished(loser, &execution(exit), ruin());
            assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Cancelled), None));
            assert!(step.batches.is_empty() && !step.stop);
            let summary = collector.finish();
            assert_eq!((summary.counts.passed, summary.status()), (3, Status::Passed));
            assert!(summary.extras.is_empty() && summary.errors.is_empty() && summary.broken.is_empty());
            let attempts: Vec<_> = summary.attempts.iter().flatten().collect();
            assert!(attempts.len() == 3 && attempts.iter().all(|attempt| attempt.batch == winner.index));
        }
    }
}

#[test]
fn a_failure_of_the_first_one_to_finish_stands_with_its_consequences() {
    let suite = suite(2, 1);
    let (mut collector, first, second) = paired(&suite, false);
    let failed = reading(&[(0, Outcome::Failed), (1, Outcome::Passed)]);
    let step = collector.finished(&second, &execution(Exit::Code(1)), Results::Report(failed.clone()));
    assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Failure), Some(first.index)));
    collector.finished(&first, &execution(Exit::Code(0)), passes(&suite));
    let summary = collector.finish();
    assert_eq!((summary.counts.failed, summary.counts.flaky, summary.status()), (1, 0, Status::Failed));

    // The same where the test may run again: by a retry, not by the other batch.
    let suite = self::suite(2, 2);
    let (mut collector, first, second) = paired(&suite, false);
    let step = collector.finished(&first, &execution(Exit::Code(1)), Results::Report(failed));
    collector.finished(&second, &execution(Exit::Code(0)), passes(&suite));
    let retries: Vec<_> = step.batches.iter().map(|batch| (batch.origin, batch.tests.len())).collect();
    assert_eq!(retries, [(Origin::Retry, 1)]);
    assert_eq!(collector.finish().counts.failed, 1);
}

#[test]
fn a_crash_of_the_first_one_to_finish_is_followed_up() {
    let suite = suite(4, 1);
    let (mut collector, first, second) = paired(&suite, false);
    let step = collector.finished(&first, &execution(Exit::Signal(9)), Results::Report(broken(&[])));
    assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Error), Some(second.index)));
    assert_eq!(step.batches.len(), 2);
}

#[test]
fn a_lost_batch_of_a_pair_runs_again_only_if_both_are_lost_and_then_once() {
    for place in [0, 1] {
        let suite = suite(2, 1);
        let (mut collector, first, second) = paired(&suite, false);
        let (gone, left) = if place == 0 { (first, second) } else { (second, first) };
        let step = collector.lost(gone, "no sandbox");
        assert!(step.batches.is_empty() && step.abandon.is_none());
        assert_eq!(step.outcome, Some(BatchOutcome::Error));
        let step = collector.lost(left, "no sandbox either");
        let [again] = &step.batches[..] else { panic!("{:?}", step.batches) };
        // It has had its duplicate.
        assert_eq!((again.index, again.origin, again.tests.len()), (2, Origin::Speculative, 2));
        let step = collector.finished(again, &execution(Exit::Code(0)), passes(&suite));
        assert_eq!(step.abandon, None);
        assert_eq!(collector.finish().status(), Status::Passed);
    }
}

#[test]
fn what_is_left_of_a_pair_counts_as_any_batch() {
    let suite = suite(2, 1);
    let (mut collector, first, second) = paired(&suite, false);
    collector.lost(first, "no sandbox");
    let failed = reading(&[(0, Outcome::Passed), (1, Outcome::Failed)]);
    let step = collector.finished(&second, &execution(Exit::Code(1)), Results::Report(failed));
    assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Failure), None));
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed), (1, 1));
}

#[test]
fn a_loser_that_is_lost_refused_or_dropped_changes_nothing() {
    let suite = suite(1, 1);
    let check = |end: &dyn Fn(&mut Collector<'_>, Batch) -> Step| {
        let (mut collector, first, second) = paired(&suite, false);
        collector.finished(&first, &execution(Exit::Code(0)), passes(&suite));
        let step = end(&mut collector, second);
        assert!(step.batches.is_empty());
        let summary = collector.finish();
        assert_eq!((summary.status(), summary.attempts[0].len()), (Status::Passed, 1));
    };
    check(&|collector, batch| collector.lost(batch, "gone"));
    check(&|collector, batch| collector.refused(&batch, "too long"));
    check(&|collector, batch| collector.dropped(&batch, "abandoned"));
}

#[test]
fn a_batch_of_a_pair_that_is_dropped_or_refused_leaves_the_verdict_to_the_other() {
    let suite = suite(2, 1);
    let (mut collector, first, second) = paired(&suite, false);
    collector.dropped(&second, "the run was stopped");
    collector.finished(&first, &execution(Exit::Code(0)), passes(&suite));
    assert_eq!(collector.finish().status(), Status::Passed);

    let (mut collector, first, second) = paired(&suite, false);
    assert!(collector.refused(&second, "too long").batches.is_empty());
    assert_eq!(collector.refused(&first, "too long").batches.len(), 2);
}

#[test]
fn tests_whose_pair_is_dropped_or_cancelled_are_not_run_for_a_reason() {
    let suite = suite(1, 1);
    let (mut collector, first, second) = paired(&suite, false);
    collector.lost(first, "gone");
    collector.dropped(&second, "no sandbox is left");
    assert_eq!(verdict_of(&collector.finish(), 0), &Verdict::NotRun("no sandbox is left".into()));

    let (mut collector, first, second) = paired(&suite, false);
    for (batch, abandon) in [(&first, None), (&second, None)] {
        let step = collector.finished(batch, &execution(Exit::Cancelled), Results::Report(broken(&[])));
        assert_eq!((step.outcome, step.abandon), (Some(BatchOutcome::Cancelled), abandon));
    }
    let summary = collector.finish();
    assert!(
        matches!(verdict_of(&summary, 0), Verdict::NotRun(reason) if reason.text.contains("was stopped"))
    );
}

#[test]
fn a_cancelled_batch_of_a_pair_does_not_count_while_the_other_may_finish() {
    let suite = suite(1, 1);
    let (mut collector, first, second) = paired(&suite, false);
    collector.finished(&first, &execution(Exit::Cancelled), Results::Report(broken(&[])));
    collector.finished(&second, &execution(Exit::Code(0)), passes(&suite));
    assert_eq!(collector.finish().status(), Status::Passed);
}
