//! Whole runs with a runner whose exit status alone says what went wrong outside tests.

use crate::runner::{configured, ran};

const RETRIES: &str = "[groups.all]\nretry_count = 1";

#[test]
fn an_error_that_a_flaky_test_hides_is_found() {
    let tests = ["flaky 1", "pass 1", "three 1"];
    for (parallel, runs) in
        [("1", ["flaky 1:3", "pass 1:2", "three 1:2"]), ("3", ["flaky 1:2", "pass 1:1", "three 1:1"])]
    {
        let project = configured(&tests, RETRIES, "");
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        for part in
            ["the runner ended with exit code 3, but reported no failure", "3 tests: 2 passed, 1 flaky in"]
        {
            assert!(outcome.stdout.contains(part), "`{part}` is not in:\n{}", outcome.stdout);
        }
        assert_eq!(ran(&project), runs, "--parallel {parallel}");
    }
}

#[test]
fn a_flaky_test_alone_costs_its_batch_once_more_and_is_flaky() {
    let project = configured(&["flaky 1", "pass 1", "pass 2"], RETRIES, "");
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(2);
    assert!(outcome.stdout.contains("3 tests: 2 passed, 1 flaky in"), "{}", outcome.stdout);
    assert_eq!(ran(&project), ["flaky 1:3", "pass 1:2", "pass 2:2"]);
    // Where the test has its batch for itself, its retry was the whole batch.
    let project = configured(&["flaky 1", "pass 1"], &format!("{RETRIES}\nschedule_individual = true"), "");
    project.offload(&["run", "--parallel", "1"]).expect_code(2);
    assert_eq!(ran(&project), ["flaky 1:2", "pass 1:1"]);
    // A failure that stays explains the status.
    let project = configured(&["flaky 1", "fail 1", "pass 1"], RETRIES, "");
    project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert_eq!(ran(&project), ["fail 1:2", "flaky 1:2", "pass 1:1"]);
}
