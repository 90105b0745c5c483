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
fn past_64_mib_the_texts_of_results_are_let_go() {
    let suite = suite(3, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut found = reading(&[(0, Outcome::Failed), (1, Outcome::Failed), (2, Outcome::Failed)]);
    // Both together are just what is kept.
    let texts = [KEPT / 2, KEPT / 2, 1].map(|size| Some("x".repeat(size)));
    for ((_, result), text) in found.found.iter_mut().zip(texts) {
        result.details = Some(Box::new(Details { text, ..Details::default() }));
    }
    // One report after the other, as those of one have no order.
    for result in found.found {
        let batch = Batch { tests: vec![result.0], ..all(&suite) };
        finish(&mut collector, &batch, Exit::Code(1), Reading { found: vec![result], ..Reading::default() });
    }
    let summary = collector.finish();
    let kept =
        summary.attempts.iter().map(|attempts| attempts[0].result.details.as_ref().unwrap().text.is_some());
    assert_eq!(kept.collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn what_broke_down_and_ran_again_well_is_flaky_and_no_error() {
    let suite = suite(4, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut broke = false;
    drive(&mut collector, all(&suite), &mut |batch| {
        let found: Vec<_> = batch.tests.iter().map(|test| (test.0, Outcome::Passed)).collect();
        if std::mem::replace(&mut broke, true) {
            (Exit::Code(0), reading(&found))
        } else {
            (Exit::Signal(9), broken(&found[..1]))
        }
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.status()), (4, Status::Flaky));
    assert_eq!((summary.errors, summary.broken.len()), (Vec::<Reason>::new(), 1));
}

#[test]
fn a_runner_that_goes_on_by_one_test_each_time_is_not_given_up() {
    let suite = suite(100, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    drive(&mut collector, all(&suite), &mut |batch| {
        (Exit::Signal(9), broken(&[(batch.tests[0].0, Outcome::Passed)]))
    });
    assert_eq!(collector.finish().counts.passed, 100);
}

#[test]
fn a_command_that_cannot_start_is_divided_until_one_test_has_the_error() {
    let suite = suite(2, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let halves = collector.refused(&all(&suite), "too long").batches;
    assert_eq!(halves.len(), 2);
    assert!(halves.iter().all(|half| collector.refused(half, "too long").batches.is_empty()));
    assert_eq!(collector.counts(), (2, 2));
    let summary = collector.finish();
    assert_eq!(summary.counts.failed, 2);
    assert_eq!(summary.attempts[1][0].result.message(), Some("too long"));
}

#[test]
fn counts_are_of_tests_with_a_result_and_of_those_whose_last_one_is_bad() {
    let suite = suite(5, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    assert_eq!(collector.counts(), (0, 0));
    let found = [(0, Outcome::Passed), (1, Outcome::Failed), (2, Outcome::Failed)];
    finish(&mut collector, &all(&suite), Exit::Code(1), reading(&found));
    assert_eq!(collector.counts(), (3, 2));
    let again = Batch { tests: vec![TestIndex(1)], ..all(&suite) };
    finish(&mut collector, &again, Exit::Code(0), reading(&[(1, Outcome::Passed)]));
    assert_eq!(collector.counts(), (3, 1));
}

#[test]
fn the_reason_of_a_test_without_a_result_says_how_its_batch_ended() {
    let named = Reading { nearest: vec!["`a`".into(), "`b`".into()], ..reading(&[]) };
    for (exit, reading, reason) in [
        (Exit::TimedOut, broken(&[]), "timed out after 1.0 s"),
        (Exit::Cancelled, broken(&[]), "the run was stopped while it was running"),
        (Exit::Code(3), broken(&[]), "the runner ended with exit code 3; it left no report"),
        (Exit::Code(0), reading(&[]), "the runner ended with exit code 0 without a result for this test"),
        (
            Exit::Code(0),
            named,
            "the runner ended with exit code 0 without a result for this test, but with one for `a`, `b`",
        ),
    ] {
        let suite = suite(2, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        finish(&mut collector, &all(&suite), exit, reading);
        assert_eq!(reason_of(&collector.finish(), 1), reason);
    }
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
        assert_eq!(reason_of(&collector.finish(), 1), expected);
    }
}

#[test]
fn a_test_that_its_runner_calls_flaky_once_is_flaky() {
    let suite = suite(1, 1);
    for flaky in [&[0][..], &[1], &[0, 1]] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        let mut twice = reading(&[(0, Outcome::Passed), (0, Outcome::Passed)]);
        flaky.iter().for_each(|place| twice.found[*place].1.flaky_in_runner = true);
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

/// A report of failures that the runner gave to tests when it had to end itself.
fn ended(found: &[(u32, u64)]) -> Reading {
    let failed = |(test, seconds): &(u32, u64)| {
        let result = CaseResult::stated(Outcome::Failed, Duration::from_secs(*seconds), "aborted by SIGTERM");
        (TestIndex(*test), result)
    };
    let ended = found.iter().map(|(test, _)| TestIndex(*test)).collect();
    Reading { found: found.iter().map(failed).collect(), ended, ..Reading::default() }
}

#[test]
fn a_test_that_its_runner_ended_timed_out_unless_it_was_only_the_last_one() {
    let suite = suite(3, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let slow = Execution { elapsed: Duration::from_secs(10), ..execution(Exit::TimedOut) };
    let mut report = ended(&[(0, 9), (1, 2)]);
    report.found.push((TestIndex(2), CaseResult::new(Outcome::Passed, SECOND)));
    let step = collector.finished(&all(&suite), &slow, Results::Report(report));
    assert_eq!(step.batches.iter().map(|batch| &batch.tests[..]).collect::<Vec<_>>(), [&[TestIndex(1)]]);
    // Alone, it is the one that takes too long.
    let step = collector.finished(&step.batches[0], &slow, Results::Report(ended(&[(1, 2)])));
    assert!(step.batches.is_empty());
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed, summary.errors.len()), (1, 2, 0));
    for test in 0..2 {
        let result = &summary.attempts[test][0].result;
        assert_eq!((result.outcome, result.message()), (Outcome::TimedOut, Some("timed out after 10.0 s")));
        assert_eq!(result.details.as_ref().unwrap().text.as_deref(), Some("aborted by SIGTERM"));
    }
}

#[test]
fn a_test_that_its_runner_ended_failed_if_nobody_asked_the_runner_to_end() {
    for (exit, failed, not_run) in [(Exit::Code(100), 1, 0), (Exit::Cancelled, 0, 1)] {
        let suite = suite(1, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        finish(&mut collector, &all(&suite), exit, ended(&[(0, 1)]));
        let counts = collector.finish().counts;
        assert_eq!((counts.failed, counts.not_run), (failed, not_run));
    }
}

#[test]
fn what_keeps_a_runner_from_running_tests_is_their_reason_and_is_not_divided() {
    let blocked = Reading { blocked: Some("setup failed".into()), ..Reading::default() };
    let refused = Reading { meaning: Meaning::Refused("it is too old"), ..broken(&[]) };
    let last = Reading { meaning: Meaning::Broken(Some("no list")), ..broken(&[]) };
    for (meaning, reading, batches, reason) in [
        (Meaning::Refused("a script failed"), blocked.clone(), 0, "setup failed"),
        (Meaning::Unknown, blocked, 0, "setup failed"),
        (refused.meaning, refused, 0, "the runner ended with exit code 9 (it is too old); it left no report"),
        (last.meaning, last, 2, "the runner ended with exit code 9 (no list); it left no report"),
    ] {
        let suite = suite(4, 3);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let step = finish(&mut collector, &all(&suite), Exit::Code(9), Reading { meaning, ..reading });
        assert_eq!(step.batches.len(), batches, "{reason}");
        assert_eq!(reason_of(&collector.finish(), 3), reason);
    }
}

#[test]
fn a_failure_explains_an_exit_code_unless_the_runner_means_something_else_by_it() {
    for (meaning, error) in [
        (Meaning::Unknown, None),
        (Meaning::TestsFailed, None),
        (Meaning::Broken(None), Some("the runner ended with exit code 9 after its tests")),
        (Meaning::Refused("no disk"), Some("the runner ended with exit code 9 (no disk) after its tests")),
    ] {
        let suite = suite(1, 2);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let failing = Reading { meaning, ..reading(&[(0, Outcome::Failed)]) };
        let step = finish(&mut collector, &all(&suite), Exit::Code(9), failing);
        finish(&mut collector, &step.batches[0], Exit::Code(0), reading(&[(0, Outcome::Passed)]));
        let errors = collector.finish().errors;
        assert_eq!(errors.first().map(|reason| &*reason.text), error);
    }
}
