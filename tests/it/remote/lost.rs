//! A test that takes its sandbox with it, as one does that uses up the memory: the exec ends without a
//! word of how the command did, and the sandbox answers no more.

use std::fs;

use super::{calls, nothing_left, remote};
use crate::support::Project;

const TAKES_ITS_SANDBOX: &str = r#"
if [ -f "gone-$1" ]; then echo 'no such sandbox' >&2; exit 70; fi
case $2 in *poison*) : > "gone-$1"; kill -9 $$ ;; esac
"#;

/// Twenty tests or fewer, of which the one at `place` takes its sandbox with it.
fn poisoned(count: usize, place: usize, groups: &str) -> Project {
    let name = |number| if number == place { "poison".to_owned() } else { format!("pass {number}") };
    let tests: Vec<String> = (0..count).map(name).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    remote(&tests, groups, "", "").file("on-exec", TAKES_ITS_SANDBOX)
}

#[test]
fn a_test_that_takes_its_sandbox_with_it_is_named_and_costs_no_other_its_result() {
    for (parallel, count, place) in [("3", 20, 9), ("3", 20, 0), ("1", 8, 0), ("1", 8, 5), ("1", 8, 7)] {
        let project = poisoned(count, place, "[groups.all]");
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        let told = format!("{count} tests: {} passed, 1 failed", count - 1);
        assert!(outcome.stdout.contains(&told), "{}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stdout.contains("ERROR poison\n"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("its sandbox was lost each time it ran"), "{}", outcome.stdout);
        let creates = calls(&project, "create").len();
        assert!(creates <= 12, "{creates} sandboxes for {count} tests");
        let junit = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
        assert!(junit.contains("its sandbox was lost"), "{junit}");
        assert!(!outcome.stderr.contains("was given up"), "{}", outcome.stderr);
        nothing_left(&project);
    }
}

#[test]
fn a_test_that_takes_its_sandbox_with_it_has_its_retries() {
    let project = poisoned(8, 3, "[groups.all]\nretry_count = 2");
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    assert!(outcome.stdout.contains("8 tests: 7 passed, 1 failed"), "{}", outcome.stdout);
    let creates = calls(&project, "create").len();
    assert!(creates <= 14, "{creates} sandboxes");
    nothing_left(&project);
    // The same where it does so no more the eighth time.
    let project = poisoned(8, 3, "[groups.all]\nretry_count = 3");
    let some = format!(
        "case $2 in *poison*) echo >> times ;; esac\nif [ $(grep -c '' times) -le 7 ]; then {TAKES_ITS_SANDBOX}\nfi"
    );
    let outcome = project.file("on-exec", &some).offload(&["run", "--parallel", "1"]).expect_code(2);
    assert!(outcome.stdout.contains("8 tests: 7 passed, 1 flaky"), "{}{}", outcome.stdout, outcome.stderr);
}

#[test]
fn each_test_by_itself_is_no_different() {
    let project = poisoned(12, 4, "[groups.all]\nschedule_individual = true");
    let outcome = project.offload(&["run", "--parallel", "3"]).expect_code(1);
    assert!(outcome.stdout.contains("12 tests: 11 passed, 1 failed"), "{}", outcome.stdout);
    assert!(calls(&project, "create").len() <= 7, "{:?}", calls(&project, "create"));
    nothing_left(&project);
}

#[test]
fn sandboxes_that_lose_every_exec_are_few_however_many_tests_there_are() {
    let tests: Vec<String> = (0..200).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = remote(&tests, "[groups.all]", "", "").file("on-exec", "echo 'no route' >&2; exit 1");
    let outcome = project.offload(&["run", "--parallel", "4"]).expect_code(1);
    assert!(outcome.stdout.contains("200 tests: 0 passed, 200 not run"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("no sandbox is left; before that: "), "{}", outcome.stdout);
    assert!(calls(&project, "create").len() <= 15, "{:?}", calls(&project, "create"));
    nothing_left(&project);
}
