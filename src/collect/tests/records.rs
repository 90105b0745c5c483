//! Claims about batches whose runner leaves a record.

use super::*;
use crate::collect::recorded;
use crate::mask::Mask;

/// What a record with these lines says of `batch`.
fn record(suite: &Suite, batch: &Batch, lines: &[String]) -> Reading {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let begin = r#"{"event":"begin","version":1}"#;
    let lines = std::iter::once(begin).chain(lines.iter().map(String::as_str));
    std::fs::write(&path, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    recorded::read(&path, suite, batch, &Mask::default())
}

fn start(test: u32, at: f64) -> String {
    format!(r#"{{"event":"start","id":"t{test}","at":{at}}}"#)
}

fn end(test: u32, outcome: &str) -> String {
    format!(r#"{{"event":"end","id":"t{test}","outcome":"{outcome}","seconds":0.1}}"#)
}

fn failure(test: u32, text: &str, retried: bool) -> String {
    format!(
        r#"{{"event":"failure","id":"t{test}","outcome":"failed","message":"{text}","text":"{text}","retried":{retried}}}"#
    )
}

fn finished(status: i32) -> String {
    format!(r#"{{"event":"finish","exit":{status}}}"#)
}

fn passed(tests: impl IntoIterator<Item = u32>) -> Vec<String> {
    tests.into_iter().flat_map(|test| [start(test, 0.0), end(test, "passed")]).collect()
}

/// A runner that is given tests, and ends with the lines of its record.
type Recording<'a> = dyn FnMut(&[u32]) -> (Exit, Vec<String>) + 'a;

/// Runs everything with a runner that gives the lines of a record; returns which tests each batch had.
fn drive_records(collector: &mut Collector<'_>, suite: &Suite, runner: &mut Recording<'_>) -> Vec<Vec<u32>> {
    let mut ran = Vec::new();
    drive(collector, all(suite), &mut |batch| {
        let tests: Vec<u32> = batch.tests.iter().map(|test| test.0).collect();
        let (exit, lines) = runner(&tests);
        ran.push(tests);
        (exit, record(suite, batch, &lines))
    });
    ran
}

#[test]
fn a_crash_runs_no_test_twice_that_has_a_result_and_blames_one_test() {
    let suite = suite(50, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let ran = drive_records(&mut collector, &suite, &mut |tests| {
        let before = tests.iter().copied().take_while(|test| *test != 20);
        let mut lines = passed(before);
        if tests.contains(&20) {
            lines.push(start(20, 0.1));
            return (Exit::Signal(11), lines);
        }
        lines.push(finished(0));
        (Exit::Code(0), lines)
    });
    assert_eq!(ran, [(0..50).collect::<Vec<u32>>(), (21..50).collect()]);
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed, summary.errors.len()), (49, 1, 0));
    let message = summary.attempts[20][0].result.message().unwrap();
    assert_eq!(message, "the runner ended with signal 11 while this test was running");
}

#[test]
fn a_culprit_runs_again_only_as_often_as_it_may() {
    let suite = suite(3, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut crashed = false;
    let ran = drive_records(&mut collector, &suite, &mut |tests| {
        if tests.contains(&0) && !std::mem::replace(&mut crashed, true) {
            return (Exit::Code(3), vec![start(0, 0.0)]);
        }
        (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
    });
    assert_eq!(ran, [vec![0, 1, 2], vec![0], vec![1, 2]]);
    assert_eq!(collector.finish().status(), Status::Flaky);
}

#[test]
fn a_hang_costs_its_time_once_and_a_short_test_at_the_end_of_the_time_is_not_blamed() {
    for (at, blamed) in [(0.4, true), (0.6, false)] {
        let suite = suite(4, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let ran = drive_records(&mut collector, &suite, &mut |tests| {
            if tests.len() == 4 {
                return (Exit::TimedOut, [passed([0, 1]), vec![start(2, at)]].concat());
            }
            (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
        });
        let rest = if blamed { vec![3] } else { vec![2, 3] };
        assert_eq!(ran, [vec![0, 1, 2, 3], rest]);
        let summary = collector.finish();
        assert_eq!(summary.counts.failed, usize::from(blamed));
        if blamed {
            assert_eq!(summary.attempts[2][0].result.outcome, Outcome::TimedOut);
        }
    }
}

#[test]
fn a_runner_that_ends_between_tests_for_no_reason_leaves_no_clean_run() {
    for exit in [Exit::Code(1), Exit::Code(0), Exit::Signal(9)] {
        let suite = suite(3, 1);
        let mut collector = Collector::new(&suite, policy(false), 1);
        let ran = drive_records(&mut collector, &suite, &mut |tests| {
            if tests.len() == 3 {
                return (exit, passed([0]));
            }
            (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
        });
        assert_eq!(ran, [vec![0, 1, 2], vec![1, 2]]);
        let summary = collector.finish();
        assert_eq!((summary.counts.passed, summary.status()), (3, Status::Flaky), "{exit}");
    }
}

#[test]
fn a_line_that_cannot_be_read_fails_the_run_whatever_passes_later() {
    let suite = suite(2, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    drive_records(&mut collector, &suite, &mut |tests| {
        if tests.len() == 2 {
            return (Exit::Code(1), [vec!["{\"event\":\"err".to_owned()], passed([0])].concat());
        }
        (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.status()), (2, Status::Failed));
}

#[test]
fn a_failure_before_a_timeout_is_not_forgotten() {
    let suite = suite(2, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut first = true;
    drive_records(&mut collector, &suite, &mut |tests| {
        if std::mem::take(&mut first) {
            let lines = vec![start(0, 0.0), failure(0, "no", false), end(0, "failed"), start(1, 0.1)];
            return (Exit::TimedOut, lines);
        }
        (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.flaky, summary.counts.passed), (2, 0));
}

#[test]
fn an_error_outside_tests_stays_whatever_is_retried() {
    let suite = suite(2, 2);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let mut first = true;
    drive_records(&mut collector, &suite, &mut |tests| {
        let mut lines = passed(tests.iter().copied());
        if std::mem::take(&mut first) {
            let error = r#"{"event":"error","what":"unhandled","message":"a rejection"}"#.to_owned();
            lines = vec![start(0, 0.0), failure(0, "no", false), end(0, "failed"), error, finished(1)];
            lines.splice(0..0, passed([1]));
            return (Exit::Code(1), lines);
        }
        (Exit::Code(0), [lines, vec![finished(0)]].concat())
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.flaky, summary.status()), (1, Status::Failed));
    assert_eq!(&*summary.errors[0].text, "a rejection");
}

#[test]
fn tests_that_an_error_covers_cannot_have_passed() {
    let suite = suite(2, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let hook = r#"{"event":"error","what":"hook","name":"beforeAll","message":"no","tests":["t1"]}"#;
    drive_records(&mut collector, &suite, &mut |_| {
        (Exit::Code(1), [passed([0, 1]), vec![hook.to_owned(), finished(1)]].concat())
    });
    let summary = collector.finish();
    assert_eq!(summary.verdicts, [Verdict::Passed, Verdict::Failed]);
    assert_eq!(summary.attempts[1].last().unwrap().result.message(), Some("beforeAll: no"));
}

#[test]
fn a_runner_that_does_not_start_or_has_no_such_test_is_not_asked_again() {
    let suite = suite(40, 3);
    for (lines, reason) in [
        (Vec::new(), "the runner ended with exit code 4 without a result for this test"),
        ((0..40).map(|test| format!(r#"{{"event":"missing","id":"t{test}"}}"#)).collect(), "ids change"),
    ] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        let ran = drive_records(&mut collector, &suite, &mut |_| (Exit::Code(4), lines.clone()));
        assert_eq!(ran.len(), 1);
        let summary = collector.finish();
        assert_eq!((summary.counts.not_run, summary.status()), (40, Status::Failed));
        assert!(reason_of(&summary, 7).starts_with(reason), "{}", reason_of(&summary, 7));
    }
}

#[test]
fn a_runner_that_dies_while_it_loads_a_file_blames_the_tests_of_that_file() {
    let group = Group { name: "g".into(), filters: String::new(), max_attempts: 1, solo: false };
    let mut suite = Suite::new(vec![group]);
    for (number, file) in (0..).zip(["a", "a", "b"]) {
        suite.add(Listed::new(GroupIndex(0), format!("t{number}"), Some(file.into())));
    }
    let mut collector = Collector::new(&suite, policy(false), 1);
    let ran = drive_records(&mut collector, &suite, &mut |tests| {
        if tests.contains(&0) {
            return (Exit::Signal(11), vec![r#"{"event":"loading","file":"a"}"#.to_owned()]);
        }
        (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat())
    });
    assert_eq!(ran, [vec![0, 1, 2], vec![2]]);
    let summary = collector.finish();
    assert_eq!(summary.verdicts, [Verdict::Failed, Verdict::Failed, Verdict::Passed]);
}

#[test]
fn a_retry_by_the_runner_itself_is_flaky_with_the_message_of_the_failure() {
    let suite = suite(1, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    drive_records(&mut collector, &suite, &mut |_| {
        let lines = [start(0, 0.0), failure(0, "at first", true), end(0, "passed"), finished(0)];
        (Exit::Code(0), lines.to_vec())
    });
    let summary = collector.finish();
    assert_eq!((summary.counts.flaky, summary.status()), (1, Status::Flaky));
    assert_eq!(summary.attempts[0][0].result.message(), Some("at first"));
}

#[test]
fn all_failures_of_a_test_keep_their_texts_and_a_status_after_them_is_an_error() {
    let suite = suite(1, 1);
    for (exit, errors) in [(Exit::Code(1), 0), (Exit::Signal(6), 1)] {
        let mut collector = Collector::new(&suite, policy(false), 1);
        drive_records(&mut collector, &suite, &mut |_| {
            let lines = [failure(0, "one", false), failure(0, "two", false), end(0, "failed"), finished(1)];
            (exit, lines.to_vec())
        });
        let summary = collector.finish();
        let details = summary.attempts[0][0].result.details.as_deref().unwrap();
        assert_eq!((details.message.as_deref(), details.text.as_deref()), (Some("one"), Some("one\n\ntwo")));
        assert_eq!(summary.errors.len(), errors);
    }
}

#[test]
fn several_tests_that_ran_when_their_runner_crashed_run_one_by_one() {
    let suite = suite(4, 1);
    let mut collector = Collector::new(&suite, policy(false), 1);
    let ran = drive_records(&mut collector, &suite, &mut |tests| match tests {
        [0, 1, 2, 3] => (Exit::Signal(9), vec![start(1, 0.0), start(2, 0.0)]),
        [2] => (Exit::Signal(9), vec![start(2, 0.0)]),
        _ => (Exit::Code(0), [passed(tests.iter().copied()), vec![finished(0)]].concat()),
    });
    assert_eq!(ran, [vec![0, 1, 2, 3], vec![1], vec![2], vec![0, 3]]);
    let summary = collector.finish();
    assert_eq!((summary.counts.passed, summary.counts.failed), (3, 1));
}

#[test]
fn what_a_record_says_is_masked() {
    let suite = suite(1, 1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.jsonl");
    let lines = [
        r#"{"event":"properties","properties":[["s3cret","a s3cret"]]}"#,
        r#"{"event":"failure","id":"t0","outcome":"failed","message":"s3cret","text":"s3cret"}"#,
        r#"{"event":"end","id":"t0","outcome":"failed","stdout":"s3cret","properties":[["s3cret","s3cret"]]}"#,
        r#"{"event":"end","id":"s3cret","outcome":"failed"}"#,
        r#"{"event":"error","what":"hook","name":"s3cret","text":"s3cret"}"#,
    ];
    std::fs::write(&path, lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let reading = recorded::read(&path, &suite, &all(&suite), &Mask::new(["s3cret".into()]));
    assert_eq!(reading.found.len(), 1);
    let told = format!("{reading:?}");
    assert!(!told.contains("s3cret") && told.contains("***"), "{told}");
}
