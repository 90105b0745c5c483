//! What works.

use std::fs;

use super::{DOWNLOAD, calls, nothing_left, remote};
use crate::runner::ran;
use crate::support::survivors;

const TESTS: [&str; 6] = ["pass 1", "pass \"$x\"", "skip", "pass `id`", "fail @x.y {sandbox_id}", "-pass"];

#[test]
fn results_come_back_with_and_without_a_download_command() {
    for download in ["", DOWNLOAD] {
        let project = remote(&TESTS, "[groups.all]", download, "");
        let outcome = project.offload(&["run"]).expect_code(1);
        assert!(outcome.stdout.contains("6 tests: 4 passed, 1 failed, 1 skipped"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("FAILED fail @x.y {sandbox_id}\n    as told"), "{}", outcome.stdout);
        assert_eq!(calls(&project, "create").len(), 4);
        // One for each batch, however many are planned.
        let execs = calls(&project, "exec").len();
        assert!((4..=6).contains(&execs), "{execs}");
        assert_eq!(calls(&project, "download").len(), if download.is_empty() { 0 } else { execs });
        assert!(ran(&project).iter().all(|line| line.ends_with(":1")), "{:?}", ran(&project));
        nothing_left(&project);
        let logs = fs::read_dir(project.path().join("test-results/logs")).unwrap().flatten();
        for log in logs.filter(|log| log.file_name().to_string_lossy().contains("stdout")) {
            let text = fs::read_to_string(log.path()).unwrap();
            assert!(text.starts_with("running ") && !text.contains("offload-"), "{text}");
        }
    }
}

#[test]
fn a_failed_test_is_retried_and_flaky_tests_are_told_apart() {
    let project = remote(&["flaky", "fail", "pass 1"], "[groups.all]\nretry_count = 2", "", "");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("3 tests: 1 passed, 1 failed, 1 flaky"), "{}", outcome.stdout);
    assert_eq!(ran(&project), ["fail:3", "flaky:2", "pass 1:1"]);
    nothing_left(&project);
}

#[test]
fn a_failed_test_runs_again_in_another_sandbox() {
    let tests: Vec<String> = (0..20).map(|number| format!("pass {number}")).chain(["fail".into()]).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let groups = "[groups.all]\nretry_count = 1\nschedule_individual = true";
    let project = remote(&tests, groups, "", "").file("on-exec", "echo \"$1 $2\" >> execs; sleep 0.05");
    project.offload(&["run", "--parallel", "3"]).expect_code(1);
    let text = fs::read_to_string(project.path().join("execs")).unwrap();
    let of_it: Vec<&str> = text.lines().filter(|line| line.contains("xml fail")).collect();
    assert_eq!(of_it.len(), 2, "{text}");
    let sandbox = |line: &str| line.split(' ').next().map(str::to_owned);
    assert_ne!(sandbox(of_it[0]), sandbox(of_it[1]));
    nothing_left(&project);
}

#[test]
fn a_batch_that_hangs_is_overtaken_by_its_duplicate_and_its_sandbox_is_not_replaced() {
    let unique = format!("offload-remote-speculation-{}", std::process::id());
    let runner = "out=$1; shift; for id; do case $id in slow) [ -e armed ] && mkdir seen 2>/dev/null && \
                  sh -c 'sleep 600; : $0' \"$UNIQUE\" ;; esac; done; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\" time=\"0.01\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    let project =
        remote(&["pass", "slow"], "[groups.all]", "", "").file("runner", runner).env("UNIQUE", &unique);
    project.offload(&["run"]).expect_code(0);
    let project = project.file("armed", "");
    let outcome = project.offload(&["-v", "run"]).expect_code(0);
    assert!(outcome.stderr.contains("run a second time as batch 2"), "{}", outcome.stderr);
    assert_eq!(survivors(&unique), 0);
    assert_eq!(calls(&project, "create").len(), 4);
    nothing_left(&project);
}

#[test]
fn one_test_makes_one_sandbox() {
    let project = remote(&["pass 1"], "[groups.all]", "", "");
    project.offload(&["run", "--parallel", "10"]).expect_code(0);
    assert_eq!(calls(&project, "create").len(), 1);
    nothing_left(&project);
}

#[test]
fn variables_and_roots_reach_the_tests() {
    let runner = "echo \"$A|$B|$OFFLOAD_ROOT|$PWD\" > seen; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
    let project = remote(&["a"], "[groups.all]", "env = { A = \"it's $A\" }", "").file("runner", runner);
    project.offload(&["run", "--env", "B=b \"c\""]).expect_code(0);
    let root = project.path().display();
    let seen = fs::read_to_string(project.path().join("seen")).unwrap();
    assert_eq!(seen, format!("it's $A|b \"c\"|{root}|{root}\n"));
}

#[test]
fn ids_of_sandboxes_are_no_shell_text() {
    let project =
        remote(&["pass 1"], "[groups.all]", DOWNLOAD, "").file("on-create", "id=\"x'; touch pwned; '\"");
    project.offload(&["run"]).expect_code(0);
    assert!(!project.path().join("pwned").exists());
    nothing_left(&project);
}

#[test]
fn files_that_match_come_back_each_once_under_their_batch() {
    let runner = "out=$1; shift; mkdir -p 'shots/a b'; for id; do printf '\\000%s' \"$id\" > \"shots/a b/$id.png\"; done; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    for download in ["", DOWNLOAD] {
        let project = remote(&["a", "b", "c"], "[groups.all]\nschedule_individual = true", download, "")
            .file("runner", runner)
            .file("shots/old.png", "x");
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let project =
            project.config(&config.replace("[report]", "[report]\ndownload_globs = [\"shots/**/*.png\"]"));
        project.offload(&["run", "--parallel", "1"]).expect_code(0);
        let directory = project.path().join("test-results/downloads");
        let mut found = Vec::new();
        for batch in fs::read_dir(directory).unwrap().flatten() {
            for file in fs::read_dir(batch.path().join("shots/a b")).unwrap().flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                let content = fs::read(file.path()).unwrap();
                assert_eq!(content, format!("\0{}", name.trim_end_matches(".png")).as_bytes());
                found.push(name);
            }
        }
        found.sort();
        assert_eq!(found, ["a.png", "b.png", "c.png"]);
        nothing_left(&project);
    }
}

#[test]
fn costs_are_told_with_lost_sandboxes_in_them() {
    let more = "cpu_cores = 2.0";
    let project = remote(&["pass 1", "pass 2"], "[groups.all]", more, "")
        .file("on-exec", "if [ $n = 1 ]; then sleep 0.5; exit 9; fi");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&format!("{config}\n[cost]\nusd_per_core_second = 1.0\n"));
    let outcome = project.offload(&["run", "--parallel", "1", "--show-estimated-cost"]).expect_code(0);
    let line = outcome.stdout.lines().find(|line| line.starts_with("estimated cost: ")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let (cost, seconds): (f64, f64) = (words[2][1..].parse().unwrap(), words[5].parse().unwrap());
    assert!(line.contains(" (2 sandboxes, ") && seconds >= 0.5, "{line}");
    assert!((cost - 2.0 * seconds).abs() < 0.2, "{line}");
}

#[test]
fn a_plan_for_remote_sandboxes_makes_none() {
    let project = remote(&TESTS, "[groups.all]", super::PREPARE, "");
    project.offload(&["plan"]).expect_code(0);
    project.offload(&["collect"]).expect_code(0);
    project.offload(&["run", "--collect-only"]).expect_code(0);
    assert!(!project.path().join("calls").exists());
}

#[test]
fn pytest_runs_in_sandboxes_that_have_nothing_of_ours() {
    let Some(python) = crate::support::python() else { return };
    let project = remote(&[], "[groups.all]\nretry_count = 1", "", "")
        .file("tests/test_a.py", "import pytest\n\n@pytest.mark.parametrize('x', range(30))\ndef test_x(x):\n    assert x != 7\n\ndef test_y():\n    pass\n")
        .file("tests/test_b.py", "def test_z():\n    pass\n");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let start = config.find("[framework]").unwrap();
    let end = config.find("[groups").unwrap();
    let command = format!("{} -m pytest", python.display());
    let framework = format!("[framework]\ntype = \"pytest\"\ncommand = \"{command}\"\n");
    let project = project.config(&format!("{}{framework}{}", &config[..start], &config[end..]));
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("32 tests: 31 passed, 1 failed"), "{}", outcome.stdout);
    nothing_left(&project);
}
