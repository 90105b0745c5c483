//! The summary in all its forms, and what shows results again.

use crate::case::{Case, check};

const ALL: &str = "[groups.all]";
const RETRY: &str = "[groups.all]\nretry_count = 1";
const SOLO: &str = "[groups.all]\nschedule_individual = true";

/// A run of these tests in one sandbox.
fn run(tests: &[&str], groups: &str) -> String {
    Case::tests(tests, groups, "").run(&["run", "--parallel", "1"])
}

#[test]
fn tests_with_a_result() {
    check("summary/one-passed", &run(&["pass 1"], ALL));
    check("summary/passed", &run(&["pass 1", "pass 2", "pass 3"], ALL));
    check("summary/skipped", &run(&["pass 1", "skip 1", "xfail 1"], ALL));
    check("summary/failed", &run(&["pass 1", "fail 1", "fail 2"], ALL));
    check("summary/failed-again", &run(&["fail 1"], RETRY));
    check("summary/flaky", &run(&["pass 1", "flaky 1"], RETRY));
    check("summary/errors-alike", &run(&["pass 1", "error 1", "error 2"], ALL));
}

#[test]
fn more_failures_than_are_shown() {
    let tests: Vec<String> = (0..33).map(|number| format!("fail {number:02}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    check("summary/many-failed", &run(&tests, ALL));
}

#[test]
fn tests_without_a_result_of_their_own_show_why_with_the_last_lines_of_the_log() {
    check("summary/crashed", &run(&["pass 1", "crash 1"], ALL));
    check("summary/not-run", &run(&["pass 1", "rename 1", "rename 2"], SOLO));
    check("summary/nameless", &run(&["nameless 1"], ALL));
    let stopped: Vec<String> = (1..10).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = ["fail 0"].into_iter().chain(stopped.iter().map(String::as_str)).collect();
    let case = Case::tests(&tests, ALL, "").file("runner", "echo '<testsuite><testcase name=\"fail 0\"><failure message=\"no\"/></testcase></testsuite>' > $1; exit 1");
    check("summary/fail-fast", &case.run(&["run", "--parallel", "1", "--fail-fast"]));
    let case = Case::tests(&["hang 1"], ALL, "[offload]\ntest_timeout_secs = 1");
    check("summary/timed-out", &case.run(&["run"]));
}

#[test]
fn one_cause_that_breaks_every_batch_is_one_block() {
    let tests: Vec<String> = (0..12).map(|number| format!("pass {number:02}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let usage =
        "echo 'usage: runner [options] TEST...' >&2; echo \"error: unknown option '--fats'\" >&2; exit 4";
    let case = Case::tests(&tests, ALL, "").file("runner", usage);
    check("summary/wrong-option", &case.run(&["run", "--parallel", "2"]));
    let tests: Vec<String> = (0..100).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let many = Case::tests(&tests, ALL, "").file("runner", usage).run(&["run", "--parallel", "2"]);
    assert_eq!(many.matches("it left no report").count(), 1, "{many}");
    assert_eq!(many.matches("unknown option").count(), 1, "{many}");
    let case = Case::tests(&["pass 1", "pass 2"], ALL, "").replaced("sh runner", "no-such-runner");
    check("summary/missing-runner", &case.run(&["run", "--parallel", "1"]));
}

#[test]
fn errors_outside_tests_are_in_the_summary_the_report_and_the_logs() {
    let case = Case::tests(&["pass 1", "threshold 1"], ALL, "");
    check("summary/run-error", &case.run(&["run", "--parallel", "1"]));
    check("summary/run-error-logs", &case.run(&["logs", "--errors"]));
    check("summary/run-error-not-picked", &case.run(&["logs", "--test-regex", "runner"]));
    let report = std::fs::read_to_string(case.path().join("test-results/junit.xml")).unwrap();
    check("summary/run-error-junit", &case.settled(&without_times(&report)));
    check("summary/run-errors-alike", &run(&["threshold 1", "threshold 2", "threshold 3"], SOLO));
    check("summary/unknown-failure", &run(&["extra 1"], ALL));
}

fn without_times(report: &str) -> String {
    regex_lite::Regex::new("time=\"[0-9.]+\"").unwrap().replace_all(report, "time=\"[TIME]\"").into_owned()
}

#[test]
fn a_runner_that_breaks_once_makes_a_green_run_flaky() {
    check("summary/broken", &run(&["break 1", "pass 1", "pass 2"], ALL));
}

#[test]
fn a_runner_without_reports_is_one_test() {
    let config = |code: u32| {
        let run =
            format!("run_command = \"echo 12 checks; echo '3 checks failed' >&2; exit {code} # {{tests}}\"");
        let case = Case::tests(&["a", "b"], ALL, "");
        let case = case.replaced("run_command = \"sh runner {result_file} {tests}\"", &run);
        case.replaced("result_file = \"junit.xml\"\n", "")
    };
    check("summary/exit-status-passed", &config(0).run(&["run"]));
    check("summary/exit-status-failed", &config(5).run(&["run"]));
}

#[test]
fn everything_at_once_and_the_logs_of_it() {
    let tests = ["pass 1", "fail 1", "error 1", "skip 1", "xfail 1", "flaky 1", "rename 1", "crash 1"];
    let case = Case::tests(&tests, "[groups.all]\nretry_count = 1\nschedule_individual = true", "");
    check("summary/everything", &case.run(&["run", "--parallel", "1"]));
    check("summary/everything-logs", &case.run(&["logs"]));
    check("summary/everything-failures", &case.run(&["logs", "--failures"]));
    check("summary/everything-errors", &case.run(&["logs", "--errors"]));
}

#[test]
fn a_run_that_was_predicted() {
    let case = Case::tests(&["pass 1", "pass 2"], ALL, "[history]\nrecord_history = \"always\"");
    case.run(&["run", "--parallel", "1"]);
    check("summary/predicted", &case.run(&["run", "--parallel", "1"]));
}

#[test]
fn no_report_no_report_line() {
    let case = Case::tests(&["pass 1"], ALL, "[report]\njunit = false");
    check("summary/without-report", &case.run(&["run"]));
}

#[test]
fn lists_and_plans() {
    let case = Case::tests(&["pass 1", "pass 2"], RETRY, "");
    check("summary/collect", &case.run(&["collect"]));
    check("summary/collect-json", &case.run(&["collect", "--format", "json"]));
    check("summary/collect-only", &case.run(&["run", "--collect-only"]));
    check("summary/plan", &case.run(&["plan", "--parallel", "2"]));
}

#[test]
fn colors_are_forced_refused_and_left_out_of_ci_logs() {
    let tests = ["pass 1", "fail 1", "flaky 1"];
    let case = |name: &str, value: &str| Case::tests(&tests, RETRY, "").env(name, value);
    let colored = case("CLICOLOR_FORCE", "1").run(&["run", "--parallel", "1"]);
    check("summary/colors", &colored.replace('\u{1b}', "<ESC>"));
    for (name, flag) in [("NO_COLOR", "--parallel"), ("TERM", "--parallel")] {
        let plain = case(name, "1").run(&["run", flag, "1"]);
        assert!(!plain.contains('\u{1b}'), "{name}: {plain}");
    }
    let plain = case("CLICOLOR_FORCE", "1").run(&["run", "--ci"]);
    assert!(!plain.contains('\u{1b}'), "{plain}");
}
