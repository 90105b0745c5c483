//! What goes wrong, and must not take the run with it.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{DOWNLOAD, PREPARE, calls, nothing_left, remote};
use crate::runner::ran;
use crate::support::{Running, survivors, wait_until};

const SOLO: &str = "[groups.all]\nschedule_individual = true";

fn tests(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("pass {number}")).collect()
}

fn words(tests: &[String]) -> Vec<&str> {
    tests.iter().map(String::as_str).collect()
}

fn unique(name: &str) -> String {
    format!("offload-remote-{name}-{}", std::process::id())
}

#[test]
fn the_run_goes_on_without_the_sandboxes_that_could_not_be_made() {
    let tests = tests(40);
    let project = remote(&words(&tests), SOLO, "", "")
        .file("on-create", "if [ $n -le 3 ]; then echo 'no room' >&2; exit 1; fi; sleep 0.3");
    let outcome = project.offload(&["run", "--parallel", "20"]).expect_code(0);
    assert_eq!(calls(&project, "create").len(), 17);
    assert_eq!(
        outcome.stderr.matches("was given up: `create_command` ended with exit code 1: no room").count(),
        3
    );
    nothing_left(&project);
    let project = project.file("on-create", "echo 'no quota' >&2; exit 1");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(
        outcome.stderr.contains("no tests could be run in any sandbox: `create_command`"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn one_sandbox_that_fails_every_exec_costs_no_test_its_result() {
    let tests = tests(12);
    let project = remote(&words(&tests), SOLO, "", "")
        .file("on-exec", "if [ \"$1\" = sb-2 ]; then exit 9; fi; sleep 0.05");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("12 tests: 12 passed"), "{}", outcome.stdout);
    assert!(ran(&project).iter().all(|line| line.ends_with(":1")), "{:?}", ran(&project));
    nothing_left(&project);
}

#[test]
fn execs_that_always_fail_end_the_run_with_one_reason_for_all_tests() {
    let project = remote(&["pass 1", "pass 2"], SOLO, "", "").file("on-exec", "echo 'no route' >&2; exit 1");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(
        outcome.stdout.starts_with("NOT RUN 2 tests\n") && outcome.stdout.contains("no route"),
        "{}",
        outcome.stdout
    );
    nothing_left(&project);
}

#[test]
fn commands_that_hang_end_at_their_timeout_with_their_group() {
    for (kind, code) in [("prepare", 4), ("create", 4), ("download", 1), ("destroy", 0)] {
        let unique = unique(kind);
        let project =
            remote(&["pass 1"], "[groups.all]", &format!("{DOWNLOAD}\n{PREPARE}\ntimeout_secs = 1"), "")
                .file(&format!("on-{kind}"), "sh -c 'sleep 600; : $0' \"$UNIQUE\"")
                .env("UNIQUE", &unique);
        let started = Instant::now();
        let outcome = project.offload(&["run"]).expect_code(code);
        assert!(started.elapsed() < Duration::from_secs(20), "{kind}: {:?}", started.elapsed());
        assert_eq!(survivors(&unique), 0, "{kind}");
        let told = format!("`{kind}_command` did not end in time");
        assert!(
            outcome.stderr.contains(&told) || outcome.stdout.contains(&told),
            "{kind}: {}{}",
            outcome.stdout,
            outcome.stderr
        );
    }
}

#[test]
fn a_hung_test_costs_only_itself_and_its_sandbox_is_not_used_again() {
    let unique = unique("hang");
    let project =
        remote(&["pass 1", "pass 2", "hang", "pass 3"], "[groups.all]", "", "test_timeout_secs = 2")
            .env("UNIQUE", &unique);
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(outcome.stdout.contains("4 tests: 3 passed, 1 failed"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("TIMED OUT hang"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0);
    let log = fs::read_to_string(project.path().join("calls")).unwrap();
    assert!(log.contains("exec sb-1\ndestroy sb-1\n"), "{log}");
    nothing_left(&project);
}

#[test]
fn a_test_that_kills_its_runner_is_named_and_the_others_have_results() {
    let project = remote(&["pass 1", "kill", "pass 2", "pass 3"], "[groups.all]", "", "");
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(outcome.stdout.contains("4 tests: 3 passed, 1 failed"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("ERROR kill\n") && outcome.stdout.contains("signal 9"),
        "{}",
        outcome.stdout
    );
    nothing_left(&project);
}

#[test]
fn a_provider_that_asks_for_patience_gets_it() {
    let project = remote(&["pass 1"], "[groups.all]", DOWNLOAD, "")
        .file("on-create", "if [ $n -le 2 ]; then exit 75; fi")
        .file("on-exec", "if [ $n = 1 ]; then echo '429 Too Many Requests' >&2; exit 1; fi")
        .file("on-destroy", "if [ $n = 1 ]; then exit 75; fi");
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "create").len(), 1);
    assert_eq!(ran(&project), ["pass 1:1"]);
    nothing_left(&project);
}

#[test]
fn a_slow_create_delays_neither_the_start_nor_the_end() {
    let tests = tests(12);
    let project = remote(&words(&tests), SOLO, super::SWEEP, "").file(
        "on-create",
        "if [ $n = 1 ]; then trap 'echo ended >> calls; exit 143' TERM; sleep 60 & wait; fi",
    );
    let started = Instant::now();
    project.offload(&["run"]).expect_code(0);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert_eq!((calls(&project, "create").len(), calls(&project, "ended").len()), (3, 1));
    nothing_left(&project);
}

#[test]
fn a_create_that_fails_by_itself_destroys_nothing() {
    // What it prints last is no id, and might be that of another sandbox.
    let project = remote(&["pass 1"], SOLO, "", "").file("on-create", "echo precious; exit 1");
    project.offload(&["run"]).expect_code(4);
    assert!(calls(&project, "destroy").is_empty(), "{:?}", calls(&project, "destroy"));
    nothing_left(&project);
}

#[test]
fn a_create_that_is_ended_after_it_told_its_id_leaves_no_sandbox() {
    let tests = tests(8);
    let project = remote(&words(&tests), SOLO, "", "")
        .file("on-create", "if [ $n = 1 ]; then echo \"create $id\" >> calls; echo $id; sleep 60; fi");
    project.offload(&["run"]).expect_code(0);
    nothing_left(&project);
}

#[test]
fn a_leaked_process_that_holds_the_output_open_delays_nothing() {
    let unique = unique("leak");
    let project = remote(&["leak 1", "pass 1"], "[groups.all]", "", "").env("UNIQUE", &unique);
    let started = Instant::now();
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(0);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(outcome.stderr.contains("left processes behind"), "{}", outcome.stderr);
    wait_until("they are gone", Duration::from_secs(5), || survivors(&unique) == 0);
    nothing_left(&project);
}

#[test]
fn a_broken_or_missing_report_is_never_a_pass() {
    for (test, code) in [("silent", 1), ("empty", 1), ("cut", 1), ("binary", 1), ("three", 1)] {
        for download in ["", DOWNLOAD] {
            let project = remote(&[test], "[groups.all]", download, "");
            project.offload(&["run"]).expect_code(code);
            nothing_left(&project);
        }
    }
}

#[test]
fn a_secret_is_written_nowhere_not_even_in_the_journal() {
    let secret = "s3cr3t-value-of-the-token";
    let more = format!("secret_env = [\"TOKEN\"]\nenv = {{ TOKEN = \"{secret}\" }}\n");
    // The journal is looked at while the sandbox is there.
    let project = remote(&["secret 1"], "[groups.all]", &more, "")
        .file("on-destroy", "cat state/runs/*/* > journal; echo \"$TOKEN\" >&2; exit $((n < 2))");
    let outcome = project.offload(&["-v", "run", "--trace"]).expect_code(1);
    assert!(!outcome.stdout.contains(secret) && !outcome.stderr.contains(secret), "{}", outcome.stderr);
    let journal = fs::read_to_string(project.path().join("journal")).unwrap();
    assert!(journal.contains("sb-1") && !journal.contains(secret), "{journal}");
    let search = project
        .command("grep")
        .args(["-rl", secret, "test-results", "state"])
        .stdout(Stdio::piped())
        .output();
    assert_eq!(String::from_utf8_lossy(&search.unwrap().stdout), "");
}

#[test]
fn a_secret_as_short_as_a_digit_does_not_garble_results() {
    let more = "secret_env = [\"DEBUG\"]\nenv = { DEBUG = \"1\" }\n";
    let project = remote(&["pass 1", "pass 2", "fail"], "[groups.all]", more, "");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("3 tests: 2 passed, 1 failed"), "{}", outcome.stdout);
    nothing_left(&project);
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_no_sandbox() {
    let tests = tests(2000);
    let project = remote(&words(&tests), "[groups.all]", "", "");
    fs::create_dir(project.path().join("test-results")).unwrap();
    // A small file system of its own, seen by this command only.
    let script = "mount -t tmpfs -o size=64k none test-results && exec \"$0\" run --parallel 3";
    let mut command = project.command("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_offload")]);
    let outcome = Running::start(command).wait(Duration::from_secs(60)).expect_code(4);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    nothing_left(&project);
}

#[test]
fn too_few_open_files_are_told_before_any_sandbox_is_made() {
    let tests = tests(200);
    let project = remote(&words(&tests), SOLO, "", "");
    let mut command = project.command("sh");
    command.args(["-c", "ulimit -n 200; exec \"$0\" run --parallel 200", env!("CARGO_BIN_EXE_offload")]);
    let outcome = Running::start(command).wait(Duration::from_secs(60)).expect_code(4);
    assert!(
        outcome.stderr.contains("open files") && outcome.stderr.contains("--parallel 11"),
        "{}",
        outcome.stderr
    );
    assert!(!project.path().join("calls").exists());
}

#[test]
fn a_create_or_prepare_that_prints_no_id_is_refused_and_no_test_is_blamed() {
    for (kind, tests) in [("create", "2 passed"), ("prepare", "")] {
        let project = remote(&["pass 1", "pass 2"], SOLO, PREPARE, "")
            .file(&format!("on-{kind}"), "if [ $n = 1 ]; then printf 'a\\377b\\000c\\n'; exit 0; fi");
        let outcome = project.offload(&["run"]).expect_code(if kind == "create" { 0 } else { 4 });
        assert!(outcome.stdout.contains(tests), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("which is no id"), "{}", outcome.stderr);
        let is_unknown = outcome.stderr.contains("1 create gave no reliable id");
        assert_eq!(is_unknown, kind == "create", "{}", outcome.stderr);
        project.offload(&["gc", "--forget"]).expect_code(0);
        nothing_left(&project);
    }
}
