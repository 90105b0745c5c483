//! Claims about verdicts: events are built by hand, nothing is started.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::error::Status;
use crate::framework::Meaning;
use crate::model::{Group, Listed};

mod again;
mod ends;
mod keys;
mod lost;
mod pairs;
mod records;

const SECOND: Duration = Duration::from_secs(1);

fn suite(tests: u32, max_attempts: u32) -> Suite {
    let group = Group { name: "g".into(), filters: String::new(), max_attempts, solo: false };
    let mut suite = Suite::new(vec![group]);
    for number in 0..tests {
        suite.add(Listed::new(GroupIndex(0), format!("t{number}"), None));
    }
    suite
}

fn all(suite: &Suite) -> Batch {
    let tests = suite.indices().collect();
    Batch {
        index: 0,
        group: GroupIndex(0),
        tests,
        companions: Vec::new(),
        load: SECOND,
        origin: Origin::Planned,
    }
}

fn execution(exit: Exit) -> Execution {
    Execution { exit, elapsed: SECOND, whole: Duration::ZERO, leaked: false, report: None, ended: None }
}

fn reading(found: &[(u32, Outcome)]) -> Reading {
    let found = found.iter().map(|(test, outcome)| (TestIndex(*test), CaseResult::new(*outcome, SECOND)));
    Reading { found: found.collect(), ..Reading::default() }
}

fn broken(found: &[(u32, Outcome)]) -> Reading {
    Reading { error: Some("it left no report".into()), ..reading(found) }
}

fn policy(fail_fast: bool) -> Policy {
    Policy { machines: 2, fail_fast, speculation: None }
}

/// Runs all batches with `runner` until nothing is left; gives how many were executed.
fn drive(
    collector: &mut Collector<'_>,
    first: Batch,
    runner: &mut dyn FnMut(&Batch) -> (Exit, Reading),
) -> usize {
    let mut queue = VecDeque::from([first]);
    let mut executed = 0;
    while let Some(batch) = queue.pop_front() {
        let (exit, reading) = runner(&batch);
        executed += 1;
        assert!(executed < 5000, "the run does not end");
        let step = collector.finished(&batch, &execution(exit), Results::Report(reading));
        if step.stop {
            for batch in queue.drain(..) {
                collector.dropped(&batch, "stopped");
            }
        }
        queue.extend(step.batches);
    }
    executed
}

/// Why a test was not run.
fn reason_of(summary: &Summary, test: usize) -> &str {
    match &summary.verdicts[test] {
        Verdict::NotRun(reason) => &reason.text,
        verdict => panic!("{verdict:?}"),
    }
}

fn verdict_of(summary: &Summary, test: usize) -> &Verdict {
    &summary.verdicts[test]
}

#[test]
fn a_passing_suite_runs_each_test_once() {
    let suite = suite(10, 4);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let pass = |batch: &Batch| {
        let found: Vec<_> = batch.tests.iter().map(|test| (test.0, Outcome::Passed)).collect();
        (Exit::Code(0), reading(&found))
    };
    assert_eq!(drive(&mut collector, all(&suite), &mut { pass }), 1);
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.status()), (10, Status::Passed));
    assert!(summary.attempts.iter().all(|attempts| attempts.len() == 1));
}

#[test]
fn a_pass_after_a_failure_is_flaky_only_where_the_test_may_be_retried() {
    for (max_attempts, verdict, status) in
        [(3, Verdict::Flaky, Status::Flaky), (1, Verdict::Failed, Status::Failed)]
    {
        let suite = suite(2, max_attempts);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let mut first = true;
        drive(&mut collector, all(&suite), &mut |batch| {
            let bad = std::mem::take(&mut first);
            let outcome = if bad { Outcome::Failed } else { Outcome::Passed };
            let found: Vec<_> = batch
                .tests
                .iter()
                .map(|test| (test.0, if test.0 == 0 { outcome } else { Outcome::Passed }))
                .collect();
            (Exit::Code(i32::from(bad)), reading(&found))
        });
        // A late duplicate that passes changes nothing where there is one attempt only.
        collector.finished(
            &all(&suite),
            &execution(Exit::Code(0)),
            Results::Report(reading(&[(0, Outcome::Passed)])),
        );
        let summary = collector.finish();
        assert_eq!((verdict_of(&summary, 0), summary.status()), (&verdict, status));
        assert_eq!(verdict_of(&summary, 1), &Verdict::Passed);
    }
}

#[test]
fn a_test_that_kills_its_runner_is_found_and_the_others_get_their_results() {
    let suite = suite(10, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let executed = drive(&mut collector, all(&suite), &mut |batch| {
        if batch.tests.contains(&TestIndex(3)) {
            return (Exit::Signal(9), broken(&[]));
        }
        let found: Vec<_> = batch.tests.iter().map(|test| (test.0, Outcome::Passed)).collect();
        (Exit::Code(0), reading(&found))
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed), (9, 1));
    let message = summary.attempts[3][0].result.message().unwrap();
    assert!(message.contains("signal 9"), "{message}");
    assert!(executed <= 12, "{executed}");
}

#[test]
fn a_hung_test_is_timed_out_and_the_others_get_their_results() {
    let suite = suite(4, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    drive(&mut collector, all(&suite), &mut |batch| {
        if batch.tests.contains(&TestIndex(2)) {
            return (Exit::TimedOut, broken(&[]));
        }
        let found: Vec<_> = batch.tests.iter().map(|test| (test.0, Outcome::Passed)).collect();
        (Exit::Code(0), reading(&found))
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed), (3, 1));
    assert_eq!(summary.attempts[2][0].result.outcome, Outcome::TimedOut);
}

#[test]
fn results_from_before_a_crash_count_and_do_not_hide_the_tests_after_it() {
    let suite = suite(10, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    // Dies after three, every time; the rest never gets a result.
    drive(&mut collector, all(&suite), &mut |batch| {
        let found: Vec<_> =
            batch.tests.iter().filter(|test| test.0 < 3).map(|test| (test.0, Outcome::Passed)).collect();
        (Exit::Signal(11), broken(&found))
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed, summary.status()), (3, 7, Status::Failed));
}

#[test]
fn an_exit_code_without_a_failure_makes_the_run_fail() {
    let suite = suite(1, 3);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let step = collector.finished(
        &all(&suite),
        &execution(Exit::Code(3)),
        Results::Report(reading(&[(0, Outcome::Passed)])),
    );
    assert_eq!(step.outcome, Some(BatchOutcome::Error));
    let summary = collector.finish();
    assert_eq!((verdict_of(&summary, 0), summary.status()), (&Verdict::Passed, Status::Failed));
    assert!(summary.errors[0].text.contains("exit code 3"), "{:?}", summary.errors);
}

#[test]
fn names_that_match_no_test_end_as_not_run_without_running_again() {
    let suite = suite(8, 3);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let extra = |batch: &Batch| {
        let extras: Vec<Extra> = batch
            .tests
            .iter()
            .map(|test| Extra { name: format!("other {}", test.0), outcome: Outcome::Passed, message: None })
            .collect();
        (Exit::Code(1), Reading { extras, nearest: vec!["`other 0`".into()], ..Reading::default() })
    };
    assert_eq!(drive(&mut collector, all(&suite), &mut { extra }), 1);
    let summary = collector.finish();
    assert_eq!((summary.counts.not_run, summary.status()), (8, Status::Failed));
    assert!(matches!(verdict_of(&summary, 0), Verdict::NotRun(reason) if reason.text.contains("`other 0`")));
}

#[test]
fn a_failure_that_nobody_asked_for_makes_the_run_fail() {
    let suite = suite(1, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let extra = Extra { name: "surprise".into(), outcome: Outcome::Errored, message: Some("boo".into()) };
    let reading = Reading { extras: vec![extra], ..reading(&[(0, Outcome::Passed)]) };
    collector.finished(&all(&suite), &execution(Exit::Code(1)), Results::Report(reading));
    let summary = collector.finish();
    assert_eq!(summary.status(), Status::Failed);
    assert!(summary.errors[0].text.contains("surprise") && summary.errors[0].text.contains("boo"));
}

#[test]
fn a_runner_that_never_works_is_given_up_after_a_bounded_number_of_tries() {
    let suite = suite(3000, 3);
    let mut collector = Collector::new(&suite, Policy { machines: 8, ..policy(false) }, 1);
    let executed = drive(&mut collector, all(&suite), &mut |_| (Exit::Code(2), broken(&[])));
    assert!(executed <= 300, "{executed}");
    let summary = collector.finish();
    assert_eq!(summary.counts.not_run + summary.counts.failed, 3000);
    assert!(
        summary
            .verdicts
            .iter()
            .all(|verdict| !matches!(verdict, Verdict::NotRun(reason) if reason.text.is_empty()))
    );
}

#[test]
fn fail_fast_waits_for_the_retries_and_then_stops_everything() {
    let suite = suite(6, 2);
    let mut collector = Collector::new(&suite, policy(true), 1);
    let executed = drive(&mut collector, all(&suite), &mut |batch| {
        // The runner stops at its first failure.
        let mut found = Vec::new();
        for test in &batch.tests {
            found.push((test.0, if test.0 == 1 { Outcome::Failed } else { Outcome::Passed }));
            if test.0 == 1 {
                return (Exit::Code(1), reading(&found));
            }
        }
        (Exit::Code(0), reading(&found))
    });
    let summary = collector.finish();
    assert_eq!(summary.attempts[1].len(), 2);
    assert_eq!(verdict_of(&summary, 1), &Verdict::Failed);
    assert!(executed <= 3, "{executed}");
    for verdict in &summary.verdicts[2..] {
        assert!(
            matches!(verdict, Verdict::Passed)
                || matches!(verdict, Verdict::NotRun(reason) if reason.text.contains("--fail-fast"))
        );
    }
}

#[test]
fn several_cases_of_one_test_make_one_attempt_with_the_worst_outcome() {
    let suite = suite(1, 1);
    for order in [[Outcome::Passed, Outcome::Errored], [Outcome::Errored, Outcome::Passed]] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        let reading = reading(&order.map(|outcome| (0, outcome)));
        collector.finished(&all(&suite), &execution(Exit::Code(1)), Results::Report(reading));
        let summary = collector.finish();
        assert_eq!(summary.attempts[0].len(), 1);
        assert_eq!(summary.attempts[0][0].result.outcome, Outcome::Errored);
    }
    let mut collector = Collector::new(&suite, policy(false), 1);
    let alike =
        ["first", "second"].map(|text| (TestIndex(0), CaseResult::stated(Outcome::Failed, SECOND, text)));
    let reading = Reading { found: alike.into(), ..Reading::default() };
    collector.finished(&all(&suite), &execution(Exit::Code(1)), Results::Report(reading));
    assert_eq!(collector.finish().attempts[0][0].result.message(), Some("first"));
}

#[test]
fn without_a_report_the_exit_status_speaks_for_all_tests_as_one() {
    let suite = suite(3, 1);
    for (exit, verdict) in [
        (Exit::Code(0), Verdict::Passed),
        (Exit::Code(1), Verdict::Failed),
        (Exit::TimedOut, Verdict::Failed),
    ] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        collector.finished(&all(&suite), &execution(exit), Results::ExitStatus);
        let summary = collector.finish().as_one();
        assert_eq!(summary.verdicts, [verdict]);
        assert!(SECOND - summary.attempts[0][0].result.duration < Duration::from_micros(1));
    }
}

/// A small generator (xorshift64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn outcome(&mut self) -> Option<Outcome> {
        match self.below(8) {
            0 => None,
            1 => Some(Outcome::Failed),
            2 => Some(Outcome::Errored),
            3 => Some(Outcome::Skipped),
            _ => Some(Outcome::Passed),
        }
    }

    fn exit(&mut self) -> Exit {
        match self.below(6) {
            0 => Exit::Code(0),
            1 => Exit::Signal(9),
            2 => Exit::TimedOut,
            3 => Exit::Cancelled,
            code => Exit::Code(i32::try_from(code).unwrap()),
        }
    }
}

/// Whatever a runner does, the run ends, each test has one verdict, and no test that never passed
/// is called passed.
#[test]
fn any_runner_ends_with_a_true_verdict_for_each_test() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..2000 {
        let max_attempts = u32::try_from(1 + random.below(3)).unwrap();
        let suite = suite(u32::try_from(1 + random.below(20)).unwrap(), max_attempts);
        let machines = 1 + usize::try_from(random.below(5)).unwrap();
        let policy = Policy { machines, ..policy(random.below(4) == 0) };
        let mut collector = Collector::new(&suite, policy, 1);
        let mut passed = vec![false; suite.tests().len()];
        let mut failed = vec![false; suite.tests().len()];
        drive(&mut collector, all(&suite), &mut |batch| {
            let mut found = Vec::new();
            for test in &batch.tests {
                let Some(outcome) = random.outcome() else { continue };
                passed[test.0 as usize] |= outcome == Outcome::Passed;
                failed[test.0 as usize] |= outcome.is_bad();
                found.push((test.0, outcome));
            }
            let error = (random.below(3) == 0).then(|| "cut off".to_owned());
            (random.exit(), Reading { error, ..reading(&found) })
        });
        let summary = collector.finish();
        for (place, verdict) in summary.verdicts.iter().enumerate() {
            let (passed, failed) = (passed[place], failed[place]);
            let good = matches!(verdict, Verdict::Passed | Verdict::Flaky);
            assert!(!good || passed, "round {round}: {verdict:?} without a pass");
            let lost =
                failed && (*verdict == Verdict::Passed || (max_attempts == 1 && *verdict != Verdict::Failed));
            assert!(!lost, "round {round}: a failure was lost");
            // Its batch may be asked again as a whole, once.
            assert!(summary.attempts[place].len() <= 2 * max_attempts as usize, "round {round}");
        }
    }
}
