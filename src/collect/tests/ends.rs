//! Claims about what one execution comes to, and what follows from its end.

use super::*;
use crate::model::Details;

fn finish(collector: &mut Collector<'_>, batch: &Batch, exit: Exit, reading: Reading) -> Step {
    collector.finished(batch, &execution(exit), Results::Report(reading))
}

#[test]
fn a_runner_is_given_up_after_32_executions_and_128_that_timed_out() {
    for (exit, most) in [(Exit::Code(2), 32), (Exit::TimedOut, 128)] {
        let suite = suite(100, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let mut ends = || finish(&mut collector, &all(&suite), exit, broken(&[])).batches.is_empty();
        assert_eq!((1..1000).find(|_| ends()), Some(most));
    }
}

#[test]
fn of_tests_that_a_batch_was_not_asked_for_only_failures_count() {
    let suite = suite(3, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let batch = Batch { tests: vec![TestIndex(0)], ..all(&suite) };
    let found = [(0, Outcome::Passed), (1, Outcome::Failed), (2, Outcome::Passed)];
    finish(&mut collector, &batch, Exit::Code(1), reading(&found));
    let summary = collector.finish();
    assert_eq!(summary.verdicts[..2], [Verdict::Passed, Verdict::Failed]);
    assert!(matches!(summary.verdicts[2], Verdict::NotRun(_)));
}

#[test]
fn texts_of_results_are_kept_while_they_are_few() {
    let suite = suite(1, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let text = || Some("said".to_owned());
    let details = Details { text: text(), stdout: text(), stderr: text(), ..Details::default() };
    let mut found = reading(&[(0, Outcome::Failed)]);
    found.found[0].1.details = Some(Box::new(details.clone()));
    finish(&mut collector, &all(&suite), Exit::Code(1), found);
    assert_eq!(collector.finish().attempts[0][0].result.details.as_deref(), Some(&details));
}

#[test]
fn a_failure_with_results_missing_is_an_error_unless_the_runner_was_to_stop() {
    for (fail_fast, outcome) in [(false, BatchOutcome::Error), (true, BatchOutcome::Failure)] {
        let suite = suite(3, 1);
        let mut collector = Collector::new(&suite, policy(fail_fast), 1);
        let step = finish(&mut collector, &all(&suite), Exit::Code(1), reading(&[(0, Outcome::Failed)]));
        assert_eq!(step.outcome, Some(outcome));
    }
}

#[test]
fn the_rest_runs_undivided_only_where_a_whole_report_shows_progress_and_a_failure() {
    let extra = Extra { name: "other".into(), outcome: Outcome::Failed, message: None };
    let without_progress = Reading { extras: vec![extra], ..Reading::default() };
    for (found, batches) in [
        (reading(&[(0, Outcome::Failed)]), 1),
        (broken(&[(0, Outcome::Failed)]), 2),
        (reading(&[(0, Outcome::Passed)]), 2),
        (without_progress, 2),
    ] {
        let suite = suite(5, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let step = finish(&mut collector, &all(&suite), Exit::Code(1), found.clone());
        assert_eq!(step.batches.len(), batches, "{found:?}");
    }
}

#[test]
fn a_stop_is_the_only_reason_of_what_it_dropped_and_any_other_is_added() {
    for (fail_fast, expected) in [(true, STOPPED), (false, "no sandbox; before that: lost")] {
        let suite = suite(2, 1);
        let mut collector = Collector::new(&suite, policy(fail_fast), 2);
        let [failing, other] =
            [0, 1].map(|test| Batch { index: test, tests: vec![TestIndex(test)], ..all(&suite) });
        let again = collector.lost(other, "lost").batches;
        finish(&mut collector, &failing, Exit::Code(1), reading(&[(0, Outcome::Failed)]));
        collector.dropped(&again[0], "no sandbox");
        assert_eq!(collector.finish().verdicts[1], Verdict::NotRun(expected.into()));
    }
}

#[test]
fn a_test_that_its_runner_calls_flaky_once_is_flaky() {
    let suite = suite(1, 1);
    for flaky in [0, 1] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        let mut twice = reading(&[(0, Outcome::Passed), (0, Outcome::Passed)]);
        twice.found[flaky].1.flaky_in_runner = true;
        finish(&mut collector, &all(&suite), Exit::Code(0), twice);
        assert!(collector.finish().attempts[0][0].result.flaky_in_runner);
    }
}

#[test]
fn without_a_report_failures_errors_and_timeouts_are_told_apart() {
    let suite = suite(1, 1);
    for (exit, outcome) in [
        (Exit::Code(1), Outcome::Failed),
        (Exit::Signal(9), Outcome::Errored),
        (Exit::TimedOut, Outcome::TimedOut),
    ] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        collector.finished(&all(&suite), &execution(exit), Results::ExitStatus);
        assert_eq!(collector.finish().attempts[0][0].result.outcome, outcome);
    }
}
