//! What runs add to the history, and that the next run plans from it.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::runner::{configured, project};
use crate::support::{Project, survivors, wait_until};
use std::time::Duration;

const ALWAYS: &str = "[history]\nrecord_history = \"always\"\n";
const FLAG: &str = "[history]\npath = \"kept/times.jsonl\"\n";

/// The records of a history file by test id, those about batches included.
fn records(project: &Project, path: &str) -> BTreeMap<String, Value> {
    let text = fs::read_to_string(project.path().join(path)).unwrap_or_default();
    let record = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["k"][0], "offload.toml");
        (line["k"][1].as_str().unwrap().to_owned(), line["v"].take())
    };
    text.lines().map(record).collect()
}

fn counts(records: &BTreeMap<String, Value>, id: &str) -> (u64, u64, usize, usize) {
    let of = |key: &str| records[id][key].as_array().unwrap().len();
    (records[id]["n"].as_u64().unwrap(), records[id]["f"].as_u64().unwrap(), of("ok"), of("fail"))
}

#[test]
fn each_attempt_is_recorded_with_its_outcome() {
    let tests = ["pass", "fail", "flaky", "skip"];
    let project = configured(&tests, "[groups.all]\nretry_count = 1", ALWAYS);
    project.offload(&["run"]).expect_code(1);
    let seen = records(&project, "offload-history.jsonl");
    assert_eq!(counts(&seen, "pass"), (1, 0, 1, 0));
    assert_eq!(counts(&seen, "fail"), (2, 2, 0, 2));
    assert_eq!(counts(&seen, "flaky"), (2, 1, 1, 1));
    assert_eq!(counts(&seen, "skip"), (1, 0, 1, 0), "a skipped test is no unknown one");
    project.offload(&["run"]).expect_code(1);
    let seen = records(&project, "offload-history.jsonl");
    assert_eq!(
        (counts(&seen, "pass").0, counts(&seen, "fail"), counts(&seen, "skip").0),
        (2, (4, 4, 0, 4), 1)
    );
    let ours: Vec<&String> = seen.keys().filter(|id| id.starts_with('\n')).collect();
    assert_eq!(ours.len(), 3, "what batches cost is kept beside the tests: {ours:?}");
}

#[test]
fn the_flag_decides_and_a_partial_run_takes_nothing_away() {
    let project = configured(&["a", "b", "c"], "[groups.all]", FLAG);
    project.offload(&["run"]).expect_code(0);
    assert!(!project.path().join("kept").exists(), "recording was not asked for");
    project.offload(&["run", "--record-history"]).expect_code(0);
    let project = project.file("list", "b\n");
    project.offload(&["run", "--record-history"]).expect_code(0);
    let seen = records(&project, "kept/times.jsonl");
    assert_eq!((counts(&seen, "a").0, counts(&seen, "b").0, counts(&seen, "c").0), (1, 2, 1));
    let shown = project.offload(&["history", "show"]).expect_code(0).stdout;
    assert!(shown.contains("Slowest") && !shown.contains("seconds per"), "{shown}");
}

#[test]
fn an_interrupted_run_records_what_it_saw() {
    let unique = format!("offload-test-recording-{}", std::process::id());
    let groups = "[groups.all]\nschedule_individual = true";
    let project = configured(&["pass", "hang"], groups, ALWAYS).env("UNIQUE", &unique);
    let running = project.spawn(&["run", "--parallel", "2"]);
    wait_until("the passing test is judged", Duration::from_secs(60), || {
        project.path().join("test-results/logs/batch-1.stdout.success").exists()
            || project.path().join("test-results/logs/batch-0.stdout.success").exists()
    });
    running.signal(Signal::SIGINT);
    running.wait(Duration::from_secs(30)).expect_code(130);
    let seen = records(&project, "offload-history.jsonl");
    assert_eq!(counts(&seen, "pass"), (1, 0, 1, 0));
    assert!(!seen.contains_key("hang"), "it has no result");
    assert_eq!(survivors(&unique), 0);
}

#[test]
fn a_run_says_what_it_predicts_and_how_that_compared() {
    let project = project(&["a", "b", "c", "d"], ALWAYS);
    let first = project.offload(&["run"]).expect_code(0);
    assert!(!first.stderr.contains("predicted"), "{}", first.stderr);
    assert!(!first.stdout.contains("predicted"), "{}", first.stdout);
    fs::remove_dir_all(project.path().join("test-results")).unwrap();
    let second = project.offload(&["run"]).expect_code(0);
    assert!(second.stderr.contains("predicted to take"), "{}", second.stderr);
    assert!(second.stdout.contains("predicted ") && second.stdout.contains(" took "), "{}", second.stdout);
}

#[test]
fn a_history_that_cannot_be_read_or_written_costs_no_verdict() {
    let project = project(&["a", "fail"], "[history]\nrecord_history = \"always\"\npath = \"directory\"\n");
    fs::create_dir(project.path().join("directory")).unwrap();
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stderr.contains("planning without the history"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("cannot update the history"), "{}", outcome.stderr);
    let broken =
        configured(&["a"], "[groups.all]", ALWAYS).file("offload-history.jsonl", "<<<<<<< ours\n{\n");
    let outcome = broken.offload(&["run"]).expect_code(0);
    assert!(outcome.stderr.contains("offload-history.jsonl"), "{}", outcome.stderr);
    assert_eq!(counts(&records(&broken, "offload-history.jsonl"), "a"), (1, 0, 1, 0));
}
