//! Cases that must be right: every run ends, with a reason for each test, and no failure is a pass.

use std::time::{Duration, Instant};

use crate::runner::{configured, project, ran};
use crate::support::{Project, survivors, wait_until};

fn unique(name: &str) -> String {
    format!("offload-test-{name}-{}", std::process::id())
}

#[test]
fn a_passing_suite_with_retries_runs_each_test_once() {
    let tests: Vec<String> = (0..20).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = configured(&tests, "[groups.all]\nretry_count = 3", "");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("20 tests: 20 passed"), "{}", outcome.stdout);
    assert!(ran(&project).iter().all(|line| line.ends_with(":1")) && ran(&project).len() == 20);
}

#[test]
fn reports_that_are_missing_empty_cut_or_garbage_give_each_test_a_reason() {
    for culprit in ["kill", "empty", "cut", "binary"] {
        let project = project(&["pass 1", "pass 2", culprit, "pass 3", "pass 4"], "");
        let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
        assert!(outcome.stdout.contains("5 tests: 4 passed, 1 failed"), "{culprit}: {}", outcome.stdout);
        assert!(
            outcome.stdout.contains(&format!("ERROR {culprit}\n    the runner ended with")),
            "{}",
            outcome.stdout
        );
        let logs = project.offload(&["logs", "--errors"]).expect_code(0).stdout;
        assert!(logs.contains(&format!("=== {culprit} [ERROR] ===")) && !logs.contains("pass"), "{logs}");
    }
}

#[test]
fn a_runner_that_never_works_ends_with_a_reason_for_each_test() {
    let project = project(&["a", "b", "c", "d"], "").file("runner", "echo no such option >&2; exit 2");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("4 tests: 0 passed, 4 failed"), "{}", outcome.stdout);
    let block = "ERROR 4 tests\n    the runner ended with exit code 2; it left no report\n      a\n      b\n      c\n      d\n    \
                 | no such option\n    log: test-results/logs/batch-";
    assert!(outcome.stdout.starts_with(block), "{}", outcome.stdout);
    assert_eq!(outcome.stdout.matches("no such option").count(), 1, "{}", outcome.stdout);
}

#[test]
fn doubled_ids_run_once_and_results_nobody_asked_for_are_told_once() {
    let project = configured(
        &["pass 1", "pass 1", "pass 2"],
        "[groups.one]\n[groups.two]\nretry_count = 2\nschedule_individual = true",
        "",
    );
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr.matches("listed more than once").count(), 1, "{}", outcome.stderr);
    assert_eq!(ran(&project), ["pass 1:1", "pass 2:1"]);

    let project = project_with_extra();
    let outcome = project.offload(&["run"]).expect_code(0);
    assert_eq!(outcome.stderr.matches("were not discovered").count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`pass 1`"), "{}", outcome.stderr);
}

fn project_with_extra() -> Project {
    let runner =
        "printf '<testsuite><testcase name=\"pass 1\"/><testcase name=\"pass one\"/></testsuite>' > $1";
    project(&["pass 1"], "").file("runner", runner)
}

#[test]
fn ids_that_do_not_match_the_report_are_not_run_and_the_reason_names_the_nearest() {
    let project = project(&["pass 1", "rename"], "");
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(outcome.stdout.contains("NOT RUN rename"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("other rename"), "{}", outcome.stdout);
    assert_eq!(ran(&project), ["pass 1:1", "rename:1"]);
    let logs = project.offload(&["logs", "--errors"]).expect_code(0).stdout;
    assert!(logs.contains("=== rename [NOT RUN] ==="), "{logs}");
}

#[test]
fn a_hung_test_is_timed_out_and_leaves_no_process() {
    let unique = unique("hang");
    let project = project(&["pass 1", "pass 2", "hang", "pass 3"], "[offload]\ntest_timeout_secs = 2\n")
        .env("UNIQUE", &unique);
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    assert!(outcome.stdout.contains("4 tests: 3 passed, 1 failed"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("TIMED OUT hang\n    timed out after"), "{}", outcome.stdout);
    let logs = project.offload(&["logs", "--errors"]).expect_code(0).stdout;
    assert!(logs.contains("=== hang [TIMED OUT] ==="), "{logs}");
    assert_eq!(survivors(&unique), 0);
}

#[test]
fn a_test_that_kills_its_runner_among_ten_costs_only_itself() {
    let mut tests: Vec<String> = (0..9).map(|number| format!("pass {number}")).collect();
    tests.insert(4, "kill".into());
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = project(&tests, "");
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    assert!(outcome.stdout.contains("10 tests: 9 passed, 1 failed"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("ERROR kill"), "{}", outcome.stdout);
}

#[test]
fn a_hung_discovery_ends_at_its_timeout_with_its_whole_group() {
    let unique = unique("discovery");
    let project = project(&[], "[offload]\ndiscovery_timeout_secs = 1\n");
    let config = std::fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let hang = format!("sh -c 'sleep 600; : $0' {unique} # {{filters}}");
    let project = project.config(&config.replace("cat list # {filters}", &hang));
    let started = Instant::now();
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(
        outcome.stderr.contains("did not end within 1 s (`discovery_timeout_secs`)"),
        "{}",
        outcome.stderr
    );
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(survivors(&unique), 0);
}

#[test]
fn a_failing_discovery_is_never_a_smaller_suite() {
    let project = project(&["pass 1"], "");
    let config = std::fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("cat list #", "cat list; echo broken >&2; exit 7 #"));
    for command in [&["run"][..], &["collect"], &["run", "--collect-only"]] {
        let outcome = project.offload(command).expect_code(4);
        assert!(
            outcome.stderr.contains("exit code 7") && outcome.stderr.contains("broken"),
            "{}",
            outcome.stderr
        );
    }
    assert!(ran(&project).is_empty());
}

#[test]
fn a_grandchild_that_keeps_the_output_open_delays_nothing_and_is_ended() {
    let unique = unique("leak");
    let project = project(&["leak", "pass 1"], "").env("UNIQUE", &unique);
    let started = Instant::now();
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(0);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(outcome.stderr.contains("left processes behind"), "{}", outcome.stderr);
    wait_until("the grandchild is ended", Duration::from_secs(5), || survivors(&unique) == 0);
}

/// As in a container whose first process does not ask how its inherited children ended.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_has_ended_is_no_leak_though_nobody_waits_for_it() {
    let runner =
        "(true & exec setsid sleep 5) & printf '<testsuite><testcase name=\"pass\"/></testsuite>' > $1";
    let project = project(&["pass"], "").file("runner", runner);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(!outcome.stderr.contains("left processes behind"), "{}", outcome.stderr);
}

#[test]
fn long_ids_and_many_of_them_are_cut_into_batches_that_fit() {
    let tests: Vec<String> = (0..3000)
        .map(|number| format!("pass '{number}' $(x) `y` \"{}\" é", "long".repeat(number % 40)))
        .collect();
    let list: Vec<&str> = tests.iter().map(String::as_str).collect();
    // The ids stand in attributes: quotes must not end them.
    let runner = r#"out=$1; shift
        for id; do printf '%s\n' "$id"; done | sed 's/&/\&amp;/g; s/"/\&quot;/g; s/.*/<testcase name="&"\/>/' > body
        { echo '<testsuite>'; cat body; echo '</testsuite>'; } > "$out""#;
    let project = project(&list, "").file("runner", runner);
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(0);
    assert!(outcome.stdout.contains("3000 tests: 3000 passed"), "{}", outcome.stdout);
}

#[test]
fn memory_stays_flat_when_a_runner_writes_one_endless_line() {
    let runner = "head -c 400000000 /dev/zero | tr '\\0' x; printf '<testsuite><testcase name=\"a\"/></testsuite>' > $1";
    let project = project(&["a"], "").file("runner", runner);
    let usage = project.path().join("usage");
    let mut command = project.command("/bin/sh");
    let script = "\"$0\" run & pid=$!; most=0; while kill -0 $pid 2>/dev/null; do \
                  now=$(sed -n 's/VmHWM:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/$pid/status 2>/dev/null); \
                  [ -n \"$now\" ] && most=$now; sleep 0.02; done; echo $most > \"$1\"; wait $pid";
    command.args(["-c", script, env!("CARGO_BIN_EXE_offload")]).arg(&usage);
    crate::support::Running::start(command).wait(Duration::from_secs(120)).expect_code(0);
    let log = project.path().join("test-results/logs/batch-0.stdout.success");
    assert_eq!(std::fs::metadata(log).unwrap().len(), 400_000_000);
    let most: u64 = std::fs::read_to_string(usage).unwrap().trim().parse().unwrap();
    assert!((1..60_000).contains(&most), "{most} KiB");
}

#[test]
fn a_runner_that_fails_with_an_all_pass_report_makes_the_run_fail() {
    let outcome = project(&["three", "pass 1"], "").offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("ERROR batch 0: the runner ended with exit code 3"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_batch_that_dies_after_some_tests_leaves_none_unjudged() {
    // The report is there, then the runner dies; what it did not reach never passes.
    let runner = r#"out=$1; shift; n=0; printf '<testsuite>' > "$out"
        for id; do n=$((n+1)); case $id in kill*) kill -9 $$;; esac
        printf '<testcase name="%s"/>' "$id" >> "$out"; done; printf '</testsuite>' >> "$out""#;
    let tests = ["a", "b", "c", "kill 1", "kill 2", "d"];
    let project = configured(&tests, "[groups.all]\nretry_count = 1", "").file("runner", runner);
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(outcome.stdout.contains("6 tests: 4 passed, 2 failed"), "{}", outcome.stdout);
}

#[test]
fn a_result_file_of_an_earlier_batch_is_never_read() {
    let config = r#"
[offload]
max_parallel = 1
[framework]
type = "default"
discover_command = "printf 'a\nb\n' # {filters}"
run_command = "sh runner {tests}"
result_file = "result.xml"
test_id_format = "{name}"
[provider]
type = "local"
[groups.all]
schedule_individual = true
"#;
    // The first batch reports both tests as passed; the second one dies before it writes anything.
    let runner = "[ -e first ] && exit 9; : > first; \
                  printf '<testsuite><testcase name=\"a\"/><testcase name=\"b\"/></testsuite>' > result.xml";
    let project = Project::new().config(config).file("runner", runner);
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("2 tests: 1 passed, 1 failed"), "{}", outcome.stdout);
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(3);
    assert!(outcome.stderr.contains("overwrite each other's result file"), "{}", outcome.stderr);
}

#[test]
fn outcomes_are_told_apart_in_summary_report_logs_and_exit_code() {
    let tests = ["pass 1", "fail", "error", "skip", "negative", "flaky"];
    let project = configured(&tests, "[groups.all]\nretry_count = 1", "");
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    assert!(outcome.stdout.contains("6 tests: 2 passed, 2 failed, 1 flaky, 1 skipped"), "{}", outcome.stdout);
    let log = "log: test-results/logs/batch-";
    assert!(outcome.stdout.contains("FAILED fail") && outcome.stdout.contains(log), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("run again: sh runner junit.xml"), "{}", outcome.stdout);
    let logs = project.offload(&["logs"]).expect_code(0).stdout;
    for banner in ["pass 1 [PASSED]", "fail [FAILED]", "error [ERROR]", "skip [SKIPPED]", "flaky [FLAKY]"] {
        assert!(logs.contains(&format!("=== {banner} ===")), "{banner}: {logs}");
    }
    let names: Vec<String> = std::fs::read_dir(project.path().join("test-results/logs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().all(|name| name.ends_with(".success") || name.ends_with(".failure")), "{names:?}");
    let flaky = configured(&["flaky"], "[groups.all]\nretry_count = 1", "");
    flaky.offload(&["run"]).expect_code(2);
}

#[test]
fn without_a_result_file_the_exit_status_is_the_one_result() {
    let config = |code: i32| {
        format!(
            "[framework]\ntype = \"default\"\ndiscover_command = \"printf 'a\\nb\\n' # {{filters}}\"\n\
             run_command = \"echo {{tests}}; exit {code}\"\ntest_id_format = \"{{name}}\"\n\
             [provider]\ntype = \"local\"\n[groups.all]\n"
        )
    };
    let outcome = Project::new().config(&config(0)).offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("1 test: 1 passed"), "{}", outcome.stdout);
    let project = Project::new().config(&config(5));
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("FAILED all_tests"), "{}", outcome.stdout);
    assert!(project.offload(&["logs"]).stdout.contains("=== all_tests [FAILED] ==="));
}

#[test]
fn one_test_makes_one_sandbox_and_fail_fast_stops_the_others() {
    let project = project(&["pass 1"], "");
    let outcome = project.offload(&["run", "--parallel", "10"]).expect_code(0);
    assert!(outcome.stdout.contains("on 1 sandbox\n"), "{}", outcome.stdout);

    let mut tests = vec!["fail"];
    let others: Vec<String> = (0..30).map(|number| format!("pass {number}")).collect();
    tests.extend(others.iter().map(String::as_str));
    let project = configured(&tests, "[groups.all]\nschedule_individual = true", "");
    let outcome = project.offload(&["run", "--parallel", "1", "--fail-fast"]).expect_code(1);
    assert!(
        outcome.stdout.contains(" 1 failed, ") && outcome.stdout.contains("FAILED fail"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains(" tests\n    stopped after the first failure"), "{}", outcome.stdout);
    // The next batch may have been taken before the failure was known.
    assert!(ran(&project).len() <= 3, "{:?}", ran(&project));
}

#[test]
fn no_tests_are_an_error_unless_they_are_allowed() {
    let project = project(&[], "");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stderr.contains("no tests were found"), "{}", outcome.stderr);
    project.offload(&["run", "--no-tests=fail"]).expect_code(1);
    project.offload(&["run", "--no-tests=pass"]).expect_code(0);
    assert!(project.offload(&["run", "--no-tests=warn"]).expect_code(0).stderr.contains("warn"));
}

#[test]
fn a_runner_that_breaks_once_leaves_a_mark_on_the_run() {
    // Alone: the test itself is the culprit, and without retries that is final.
    let runner = "if mkdir first 2>/dev/null; then kill -9 $$; fi; out=$1; shift; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    let outcome = project(&["a"], "").file("runner", runner).offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("ERROR a\n    the runner ended with"), "{}", outcome.stdout);
    let retried = configured(&["a"], "[groups.all]\nretry_count = 1", "").file("runner", runner);
    assert!(retried.offload(&["run"]).expect_code(2).stdout.contains("FLAKY a"));
    // Among others nobody can tell who it was: all pass when they run again, and the run is no clean green.
    let outcome = project(&["a", "b", "c"], "").file("runner", runner).offload(&["run", "--parallel", "1"]);
    let outcome = outcome.expect_code(2);
    assert!(
        outcome.stdout.contains("BROKEN batch 0: the runner ended with")
            && outcome.stdout.contains("3 passed"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_report_that_is_no_file_is_a_broken_one() {
    let project = project(&["a"], "").file("runner", "mkfifo \"$1\"");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("not a regular file"), "{}", outcome.stdout);
}

#[test]
fn a_test_that_no_command_line_can_hold_costs_only_itself() {
    let long = format!("pass {}", "x".repeat(140_000));
    let mut tests: Vec<String> = (0..20).map(|number| format!("pass {number}")).collect();
    tests.push(long);
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    for groups in ["[groups.all]", "[groups.all]\nschedule_individual = true"] {
        let project = configured(&tests, groups, "");
        let outcome = project.offload(&["run", "--parallel", "4"]).expect_code(1);
        assert!(
            outcome.stdout.contains("21 tests: 20 passed, 1 failed"),
            "{}",
            &outcome.stdout[outcome.stdout.len() - 300..]
        );
        assert!(!outcome.stderr.contains("given up"), "{}", outcome.stderr);
    }
}

#[test]
fn a_suite_that_is_too_long_for_one_batch_is_divided_until_it_fits() {
    let tests: Vec<String> = (0..60).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let runner = "out=$1; shift; for id; do sleep 0.1; done; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    let project = project(&tests, "[offload]\ntest_timeout_secs = 3\n").file("runner", runner);
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(2);
    assert!(outcome.stdout.contains("60 tests: 60 passed"), "{}", outcome.stdout);
}

#[test]
fn the_summary_shows_thirty_failures_and_counts_the_others() {
    let tests: Vec<String> = (0..33).map(|number| format!("fail {number:02}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let outcome = project(&tests, "").offload(&["run", "--parallel", "1"]).expect_code(1);
    assert_eq!(outcome.stdout.matches("FAILED fail").count(), 30, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("\nand 3 more: "), "{}", outcome.stdout);
}
