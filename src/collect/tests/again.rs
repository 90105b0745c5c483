//! Claims about batches whose exit status only flaky failures explain.

use super::*;

/// How a run of some tests ends: the status, and those that failed.
type Script<'a> = &'a mut dyn FnMut(&[u32]) -> (i32, Vec<u32>);

/// Runs four tests with `retry_count = 1`. Gives the tests of each execution, and the summary.
fn play(meaning: Meaning, script: Script<'_>) -> (Vec<Vec<u32>>, Summary) {
    let suite = suite(4, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut executed = Vec::new();
    drive(&mut collector, all(&suite), &mut |batch| {
        let tests: Vec<u32> = batch.tests.iter().map(|test| test.0).collect();
        let (code, failed) = script(&tests);
        let outcome = |test: &u32| if failed.contains(test) { Outcome::Failed } else { Outcome::Passed };
        let found: Vec<(u32, Outcome)> = tests.iter().map(|test| (*test, outcome(test))).collect();
        executed.push(tests);
        (Exit::Code(code), Reading { meaning, ..reading(&found) })
    });
    (executed, collector.finish())
}

/// The first time that a test of the list runs it fails.
fn flaky(list: &'static [u32]) -> impl FnMut(&[u32]) -> Vec<u32> {
    let mut left = list.to_vec();
    move |tests| {
        let failed: Vec<u32> = tests.iter().copied().filter(|test| left.contains(test)).collect();
        left.retain(|test| !failed.contains(test));
        failed
    }
}

#[test]
fn what_a_flaky_failure_hid_is_found() {
    // Beside test 3 something goes wrong whenever test 0 runs, too.
    let mut failed = flaky(&[1]);
    let (executed, summary) = play(Meaning::Unknown, &mut |tests| {
        let failed = failed(tests);
        (i32::from(!failed.is_empty() || (tests.contains(&0) && tests.contains(&3))), failed)
    });
    assert_eq!(executed, [vec![0, 1, 2, 3], vec![1], vec![0, 1, 2, 3]]);
    assert_eq!(summary.status(), Status::Failed);
    let texts: Vec<&str> = summary.errors.iter().map(|error| &*error.text).collect();
    assert_eq!(texts, ["the runner ended with exit code 1, but reported no failure"]);
    assert_eq!((summary.counts.flaky, summary.attempts[1].len()), (1, 3));
}

#[test]
fn a_batch_that_is_well_when_it_is_asked_again_is_flaky_and_is_not_asked_a_third_time() {
    for list in [&[1][..], &[0, 1], &[1, 1]] {
        let mut failed = flaky(list);
        let (executed, summary) = play(Meaning::Unknown, &mut |tests| {
            let failed = failed(tests);
            (i32::from(!failed.is_empty()), failed)
        });
        assert_eq!(executed.iter().filter(|tests| tests.len() == 4).count(), 2);
        assert_eq!((summary.status(), summary.errors.len()), (Status::Flaky, 0));
    }
}

#[test]
fn a_failure_when_it_is_asked_again_has_retries_of_its_own_and_explains_that_status() {
    // Test 1 fails at its first, third and, if it is a stubborn one, fourth attempt.
    for (fails, status, attempts) in [(&[1, 3][..], Status::Flaky, 4), (&[1, 3, 4], Status::Failed, 4)] {
        let mut runs = 0;
        let (executed, summary) = play(Meaning::Unknown, &mut |tests| {
            runs += i32::from(tests.contains(&1));
            let is_bad = tests.contains(&1) && fails.contains(&runs);
            (i32::from(is_bad), if is_bad { vec![1] } else { Vec::new() })
        });
        assert_eq!(executed.len(), 4);
        assert_eq!((summary.status(), summary.attempts[1].len()), (status, attempts));
        assert_eq!(summary.errors.len(), 0);
    }
}

#[test]
fn nothing_is_asked_again_that_is_known() {
    let count = |meaning, list: &'static [u32], stays: bool| {
        let mut failed = flaky(list);
        let (executed, _) = play(meaning, &mut |tests| {
            let mut failed = failed(tests);
            failed.extend(tests.iter().filter(|test| stays && **test == 3));
            (i32::from(!failed.is_empty()), failed)
        });
        executed.iter().filter(|tests| tests.len() == 4).count()
    };
    // A failure that stays explains the status; so does a runner whose codes say that tests failed.
    assert_eq!(count(Meaning::Unknown, &[1], true), 1);
    assert_eq!(count(Meaning::TestsFailed, &[1], false), 1);
    assert_eq!(count(Meaning::Unknown, &[], false), 1);
    // When all tests failed and one sandbox ran all of them again, that was the whole batch.
    let suite = suite(2, 2);
    let mut collector = Collector::new(&suite, Policy { machines: 1, ..policy(false) }, 1);
    let mut first = true;
    let executed = drive(&mut collector, all(&suite), &mut |_| {
        let (code, outcome) =
            if std::mem::take(&mut first) { (1, Outcome::Failed) } else { (0, Outcome::Passed) };
        (Exit::Code(code), reading(&[(0, outcome), (1, outcome)]))
    });
    assert_eq!((executed, collector.finish().status()), (2, Status::Flaky));
}

#[test]
fn a_batch_that_cannot_be_asked_again_leaves_an_error() {
    let suite = suite(2, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let failing = reading(&[(0, Outcome::Failed), (1, Outcome::Passed)]);
    let step = collector.finished(&all(&suite), &execution(Exit::Code(1)), Results::Report(failing));
    let passing = reading(&[(0, Outcome::Passed)]);
    let retry = &step.batches[0];
    let step = collector.finished(retry, &execution(Exit::Code(0)), Results::Report(passing));
    assert_eq!(step.batches[0].tests.len(), 2);
    collector.dropped(&step.batches[0], "no sandbox is left");
    let summary = collector.finish();
    assert_eq!((summary.status(), summary.errors.len()), (Status::Failed, 1));
}
