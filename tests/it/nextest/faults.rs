//! What nextest says when something else than an assertion goes wrong: timeouts, setup scripts, exit codes, retries.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{config, has_all, ran, single};
use crate::support::{Project, nextest, survivors, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

const HANGING: &str = r##"
#[cfg(test)]
mod tests {
    #[test]
    fn passes() {}
    #[test]
    fn hangs() { println!("about to hang"); std::thread::sleep(std::time::Duration::from_secs(600)) }
    #[test]
    fn fails() { panic!("as told") }
}
"##;

const SCRIPTS: &str = "experimental = [\"setup-scripts\"]\n\
    [scripts.setup.database]\ncommand = \"sh ./database.sh\"\ncapture-stderr = true\n\
    [[profile.default.scripts]]\nfilter = \"test(with_)\"\nsetup = \"database\"\n";

const WITH_DATABASE: &str = r##"
#[cfg(test)]
mod tests {
    #[test]
    fn with_database() { assert_eq!(std::env::var("PLACE").unwrap(), "here") }
    #[test]
    fn with_database_too() { with_database() }
    #[test]
    fn alone() {}
}
"##;

#[test]
fn a_test_that_is_ended_with_its_batch_timed_out_and_the_others_keep_their_results() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, HANGING);
    let settings = config("", "[groups.all]").replace("[offload]", "[offload]\ntest_timeout_secs = 3");
    let project = project.config(&settings);
    for parallel in ["1", "3"] {
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        has_all(
            &outcome.stdout,
            &[
                "3 tests: 1 passed, 2 failed in",
                "TIMED OUT solo tests::hangs\n    timed out after 3",
                "as told",
            ],
        );
        assert!(!outcome.stdout.contains("FAILED solo tests::hangs"), "{}", outcome.stdout);
        let logs = project.offload(&["logs", "--test", "solo tests::hangs"]).expect_code(0).stdout;
        has_all(&logs, &["about to hang", "timed out after 3"]);
    }
}

fn with_script(script: &str, groups: &str) -> Option<Project> {
    let project = single(nextest()?, WITH_DATABASE);
    let project = project.file(".config/nextest.toml", SCRIPTS).file("database.sh", script);
    Some(project.config(&config("", groups)))
}

#[test]
fn a_setup_script_that_fails_is_why_its_tests_did_not_run_and_runs_once_a_batch() {
    let script = "echo script >> \"$RAN\"\necho 'no room for a database' >&2\nexit 3\n";
    let groups = "[groups.all]\nretry_count = 2";
    let Some(project) = with_script(script, groups) else { return };
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    has_all(
        &outcome.stdout,
        &[
            "NOT RUN 3 tests\n    setup script `database` failed: script failure with exit code 3\n",
            "    no room for a database\n",
            "3 tests: 0 passed, 3 not run in",
        ],
    );
    assert_eq!(ran(&project), ["script:1"]);
    let report = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
    assert_eq!(report.matches("type=\"not-run\" message=\"setup script `database` failed").count(), 3);
    // Batches without its tests do not need it.
    let groups =
        "[groups.with]\nfilters = \"-E 'test(with_)'\"\n[groups.alone]\nfilters = \"-E 'test(alone)'\"";
    let project = project.config(&config("", groups));
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 1 passed, 2 not run in", "NOT RUN 2 tests"]);
    assert!(!outcome.stdout.contains("BROKEN"), "{}", outcome.stdout);
}

#[test]
fn a_setup_script_that_works_is_no_test() {
    let script = "echo script >> \"$RAN\"\necho PLACE=here >> \"$NEXTEST_ENV\"\n";
    let Some(project) = with_script(script, "[groups.all]") else { return };
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(0);
    has_all(&outcome.stdout, &["3 tests: 3 passed in"]);
    assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
    assert_eq!(ran(&project), ["script:1"]);
}

#[test]
fn a_retry_of_nextest_is_flaky_with_the_message_of_the_failure() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, super::FLAKY).file(".config/nextest.toml", "[profile.default]\nretries = 1\n");
    let project = project.config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(2);
    has_all(
        &outcome.stdout,
        &["4 tests: 3 passed, 1 flaky in", "FLAKY solo tests::flaky\n", "the first time"],
    );
    assert_eq!(ran(&project), ["another:1", "flaky:2", "fourth:1", "good:1"]);
    let report = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
    let flaky = report.split("<flakyFailure").nth(1).unwrap();
    assert!(flaky.split("</flakyFailure>").next().unwrap().contains("the first time"), "{report}");
}

#[test]
fn a_failing_test_explains_no_other_status_than_its_own() {
    let Some(tool) = nextest() else { return };
    // What stands before nextest gives its own status, after nextest has reported a flaky test.
    let wrapper = "#!/bin/sh\n\"$REAL\" \"$@\"\nstatus=$?\n\
                   case \"$*\" in *nextest\\ run*) [ $status = 0 ] || exit 110 ;; esac\nexit $status\n";
    let real = String::from_utf8(std::process::Command::new("which").arg("cargo").output().unwrap().stdout);
    let project = single(tool, super::FLAKY)
        .executable("bin/cargo", wrapper)
        .env("REAL", real.unwrap().trim())
        .config(&config("", "[groups.all]\nretry_count = 1"));
    let bin = project.path().join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let project = project.env("PATH", &format!("{}:{}:{path}", bin.display(), tool.display()));
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    has_all(
        &outcome.stdout,
        &[
            "ERROR batch 0: the runner ended with exit code 110 (it could not write its output) after its tests\n",
            "4 tests: 3 passed, 1 flaky in",
        ],
    );
}

const STUBBORN: &str = r##"
#[cfg(test)]
mod tests {
    #[test]
    fn passes() {}
    #[test]
    fn takes_no_signal() {
        let me = std::process::id().to_string();
        let script = "trap '' TERM INT; echo $$ > \"$RAN\"; while :; do sleep 600 & wait; done";
        // Its own group already, as all tests of nextest; its child has another one.
        use std::os::unix::process::CommandExt;
        let mut child = std::process::Command::new("sh");
        child.args(["-c", script, &me]).process_group(0).status().unwrap();
    }
}
"##;

#[test]
fn a_test_that_takes_no_signal_is_gone_with_its_group_after_a_timeout_and_after_an_interrupt() {
    let Some(tool) = nextest() else { return };
    let settings = config("", "[groups.all]");
    let project =
        single(tool, STUBBORN).config(&settings.replace("[offload]", "[offload]\ntest_timeout_secs = 2"));
    let unique = project.path().file_name().unwrap().to_string_lossy().into_owned();
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["2 tests: 1 passed, 1 failed in", "TIMED OUT solo tests::takes_no_signal\n"]);
    assert_eq!(survivors(&unique), 0);

    fs::remove_file(project.path().join("ran")).unwrap();
    let project = project.config(&settings);
    let running = project.spawn(&["run", "--parallel", "1"]);
    wait_until("the test runs", DEADLINE, || project.path().join("ran").exists());
    running.signal(Signal::SIGINT);
    let outcome = running.wait(DEADLINE).expect_code(130);
    // What was ended by us did not fail.
    has_all(&outcome.stdout, &["NOT RUN", "the run was stopped while it was running"]);
    assert!(!outcome.stdout.contains("FAILED"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0);
}
