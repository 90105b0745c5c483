//! Much output, long lines, many tests, long ids: resident memory stays flat, and nothing is lost.

use std::fs;
use std::time::{Duration, Instant};

use super::size;
use crate::remote::{nothing_left, remote};
use crate::runner::project;
use crate::support::{Outcome, Project};

/// What `offload` may have at most, whatever tests print: KiB.
const FLAT: u64 = 60_000;
const MIB: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(500);

/// Runs all tests; gives what was said and the most memory, in KiB.
#[track_caller]
fn weigh(project: &Project) -> (Outcome, u64) {
    let weighed = project.spawn(&["run"]).wait_and_weigh(DEADLINE);
    assert!(weighed.1 > 0, "no memory was seen");
    weighed
}

/// A runner that prints `output`, a shell text, and reports one test that passed.
fn printing(output: &str) -> String {
    format!(
        "out=$1; {output}; echo the end; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$out\""
    )
}

/// So many MiB of lines with the secret in each, or as one line.
fn lines(mebibytes: usize, end: &str) -> String {
    let text = "the-token-is-s3cr3t-value,".repeat(40);
    format!("yes '{text}' | head -c {} | tr '\\n' '{end}'", mebibytes * MIB)
}

fn log_of(project: &Project) -> fs::File {
    fs::File::open(project.path().join("test-results/logs/batch-0.stdout.success")).unwrap()
}

#[test]
fn a_gibibyte_of_output_leaves_memory_flat() {
    // A hole in the file stands for most of it: the test's output is the file itself.
    let hole = "dd if=/dev/null bs=1048576 seek=1024 count=0 2>/dev/null";
    for project in [project(&["a"], ""), remote(&["a"], "[groups.all]", "", "")] {
        let project = project.file("runner", &printing(hole));
        let (outcome, most) = weigh(&project);
        let outcome = outcome.expect_code(0);
        assert!(outcome.stdout.contains("1 test: 1 passed"), "{}", outcome.stdout);
        assert!(most < FLAT, "{most} KiB");
        assert_eq!(log_of(&project).metadata().unwrap().len(), 1024 * MIB as u64 + 8);
    }
}

const SECRET: &str = "secret_env = [\"TOKEN\"]\nenv = { TOKEN = \"s3cr3t-value\" }\n";

#[test]
fn much_output_that_is_masked_leaves_memory_flat() {
    let mebibytes = size(1024, 16);
    let remote = remote(&["a"], "[groups.all]", SECRET, "");
    for project in [project(&["a"], SECRET), remote] {
        let project = project.file("runner", &printing(&lines(mebibytes, "\\n")));
        let began = Instant::now();
        let (outcome, most) = weigh(&project);
        outcome.expect_code(0);
        println!("{mebibytes} MiB masked: {most} KiB, {:?}", began.elapsed());
        assert!(most < FLAT, "{most} KiB");
        let log = log_of(&project);
        // Each secret has nine letters more than its mask.
        let masked = log.metadata().unwrap().len();
        assert!((mebibytes * MIB / 2..mebibytes * MIB * 3 / 4).contains(&(masked as usize)), "{masked}");
    }
}

#[test]
fn a_line_without_an_end_leaves_memory_flat_behind_a_mask_and_a_sandbox() {
    let mebibytes = size(300, 12);
    let remote = remote(&["a"], "[groups.all]", SECRET, "");
    for project in [project(&["a"], SECRET), remote] {
        let project = project.file("runner", &printing(&lines(mebibytes, "_")));
        let (outcome, most) = weigh(&project);
        outcome.expect_code(0);
        assert!(most < FLAT, "{most} KiB");
    }
}

#[test]
fn a_sandbox_that_dies_behind_much_output_is_told_as_lost_and_leaves_memory_flat() {
    // No end is found, so that all of it is searched.
    let mebibytes = size(1024, 32);
    let runner = format!(
        "dd if=/dev/null bs=1048576 seek={mebibytes} count=0 2>/dev/null; echo; kill -9 $PPID; sleep 9"
    );
    let project = remote(&["a"], "[groups.all]", "", "").file("runner", &runner);
    let (outcome, most) = weigh(&project);
    println!("{mebibytes} MiB lost: {most} KiB");
    assert_ne!(outcome.code, Some(0));
    assert!(most < FLAT, "{most} KiB");
    nothing_left(&project);
}

#[test]
fn a_hundred_thousand_tests_run_within_a_minute() {
    let count = size(100_000, 25_000);
    let tests: Vec<String> = (0..count).map(|number| format!("test {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let runner = "out=$1; shift; { echo '<testsuite>'; printf '<testcase name=\"%s\" time=\"0.001\"/>\\n' \"$@\"; \
                  echo '</testsuite>'; } > \"$out\"";
    let project = project(&tests, "[history]\n").file("runner", runner);
    let began = Instant::now();
    let (outcome, most) = project.spawn(&["run", "--record-history"]).wait_and_weigh(DEADLINE);
    let outcome = outcome.expect_code(0);
    println!("{count} tests: {most} KiB, {:?}", began.elapsed());
    assert!(outcome.stdout.contains(&format!("{count} tests: {count} passed")), "{}", outcome.stdout);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    // For each test its id, its attempts and its line of the history.
    assert!(most < 60_000 + 2 * count as u64, "{most} KiB");
    let report = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
    assert_eq!(report.matches("<testcase ").count(), count);
}

#[test]
fn ids_of_two_thousand_odd_characters_come_back_as_they_were() {
    let odd =
        "é日😀e\u{301}\u{202e}\u{7f}\u{a0}\u{2028}\u{feff}'\"\\$(x)`y`&<>|;*?[!#~%{tests}{result_file}\t ";
    let id = |number: usize| {
        let text: String = odd.chars().cycle().skip(number).take(2000).collect();
        // A list has comments, which begin so.
        let first = if text.starts_with('#') { "x" } else { "" };
        format!("{first}{text}{number}")
    };
    let tests: Vec<String> = (0..80).map(id).collect();
    let list: Vec<&str> = tests.iter().map(String::as_str).collect();
    let runner = "out=$1; shift; tab=$(printf '\\t'); { echo '<testsuite>'; for id; do printf '%s\\n' \"$id\"; done | \
                  sed \"s/&/\\&amp;/g; s/</\\&lt;/g; s/\\\"/\\&quot;/g; s/$tab/\\&#9;/g; s/.*/<testcase name=\\\"&\\\"\\/>/\"; \
                  echo '</testsuite>'; } > \"$out\"";
    let local = project(&list, "[history]\n").file("runner", runner);
    let remote = remote(&list, "[groups.all]", "", "").file("runner", runner);
    for project in [local, remote] {
        let outcome = project.offload(&["run"]).expect_code(0);
        assert!(outcome.stdout.contains("80 tests: 80 passed"), "{}", outcome.stdout);
        let collected = project.offload(&["collect", "-f", "json"]).expect_code(0).stdout;
        let collected: serde_json::Value = serde_json::from_str(&collected).unwrap();
        for test in &tests {
            assert!(collected.as_array().unwrap().iter().any(|entry| entry["id"] == **test), "{test}");
        }
        let shown = project.offload(&["logs", "--test", &tests[7]]).expect_code(0).stdout;
        assert!(shown.contains("[PASSED]"), "{shown}");
    }
}
