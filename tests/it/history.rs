//! The history, as git merges it and as it is shown.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::runner::project;
use crate::support::{Outcome, Project, Running};

const IDS: [&str; 4] = ["plain", "quote \" and \\", "\nown ☃", "a > b [ü]"];

/// A line of a history: each sample is a run, a time and seconds.
fn line(id: &str, passed: &[(&str, u64, f64)], failed: &[(&str, u64, f64)]) -> String {
    let samples = passed.len() + failed.len();
    let last = passed.iter().chain(failed).max_by_key(|(_, at, _)| *at).unwrap().0;
    let known = json!({"n": samples, "f": failed.len(), "last_run": last, "ok": passed, "fail": failed});
    format!("{}\n", json!({"k": ["offload.toml", id], "v": known}))
}

/// All tests of [`IDS`] with a pass for each run; the number of a run is its time.
fn runs(runs: &[(&str, u64)]) -> String {
    let passed: Vec<(&str, u64, f64)> = runs.iter().map(|(run, at)| (*run, *at, 0.5)).collect();
    IDS.iter().map(|id| line(id, &passed, &[])).collect()
}

/// A repository with `offload` on PATH. A configuration is written for another `path` of the history.
fn repository(path: Option<&str>) -> Project {
    let more = path.map(|path| format!("[history]\npath = {path:?}")).unwrap_or_default();
    let project = project(&["pass 1"], &more)
        .tool(Path::new(env!("CARGO_BIN_EXE_offload")).parent().unwrap())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    git(&project, &["init", "-q", "-b", "main"]);
    git(&project, &["config", "user.name", "A"]);
    git(&project, &["config", "user.email", "a@example.com"]);
    project
}

fn try_git(project: &Project, words: &[&str]) -> Outcome {
    let mut command = project.command("git");
    command.args(words);
    Running::start(command).wait(Duration::from_secs(60))
}

fn git(project: &Project, words: &[&str]) -> Outcome {
    try_git(project, words).expect_code(0)
}

fn write(project: &Project, path: &str, text: &str) {
    let path = project.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn commit(project: &Project, path: &str, text: &str) {
    write(project, path, text);
    git(project, &["add", "-A"]);
    git(project, &["commit", "-q", "-m", "x"]);
}

fn attributes(project: &Project) -> String {
    fs::read_to_string(project.path().join(".gitattributes")).unwrap()
}

/// The runs that each line has samples of, and its attempts.
fn told(text: &str) -> Vec<(String, Vec<String>, u64)> {
    let tell = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let runs =
            line["v"]["ok"].as_array().unwrap().iter().map(|sample| sample[0].as_str().unwrap().into());
        (line["k"][1].as_str().unwrap().into(), runs.collect(), line["v"]["n"].as_u64().unwrap())
    };
    text.lines().map(tell).collect()
}

/// Two branches that both recorded runs are merged, then the same commit comes again.
fn merges(project: &Project, path: &str) {
    project.offload(&["history", "setup-merge-driver"]).expect_code(0);
    commit(project, path, &runs(&[("base", 1)]));
    git(project, &["checkout", "-q", "-b", "other"]);
    let extra = line("new", &[("other", 3, 1.0)], &[]);
    commit(project, path, &(runs(&[("base", 1), ("other", 3)]) + &extra));
    git(project, &["checkout", "-q", "main"]);
    commit(project, path, &runs(&[("base", 1), ("main", 2)]));
    git(project, &["merge", "-q", "--no-edit", "other"]);
    let merged = fs::read_to_string(project.path().join(path)).unwrap();
    let mut expected: Vec<(String, Vec<String>, u64)> = IDS
        .map(|id| (id.to_owned(), ["base", "main", "other"].map(String::from).into(), 3))
        .into_iter()
        .chain([("new".to_owned(), vec!["other".to_owned()], 1)])
        .collect();
    expected.sort();
    assert_eq!(told(&merged), expected);
    assert_eq!(git(project, &["status", "--porcelain"]).stdout, "", "nothing is left over");

    // The commit of the other branch again, on top of what has it already.
    let again = try_git(project, &["cherry-pick", "--allow-empty", "--keep-redundant-commits", "other"]);
    again.expect_code(0);
    assert_eq!(fs::read_to_string(project.path().join(path)).unwrap(), merged);
    git(project, &["checkout", "-q", "-b", "third", "main~2"]);
    commit(project, path, &runs(&[("base", 1), ("main", 2), ("third", 9)]));
    git(project, &["rebase", "-q", "main"]);
    let rebased = told(&fs::read_to_string(project.path().join(path)).unwrap());
    assert_eq!(rebased.len(), 5);
    for (id, _, attempts) in rebased {
        assert_eq!(attempts, if id == "new" { 1 } else { 4 }, "{id}");
    }
}

#[test]
fn git_merges_two_branches_with_runs_of_their_own() {
    merges(&repository(None), "offload-history.jsonl");
}

#[test]
fn git_merges_a_history_whose_path_has_spaces_and_special_characters() {
    let path = "some directory/#my [1] \"history\".jsonl";
    let project = repository(Some(path));
    merges(&project, path);
    assert_eq!(attributes(&project).lines().count(), 1);
}

#[test]
fn without_the_driver_the_same_merge_conflicts_and_the_conflict_is_read() {
    let project = repository(Some("h"));
    commit(&project, "h", &runs(&[("base", 1)]));
    git(&project, &["checkout", "-q", "-b", "other"]);
    commit(&project, "h", &runs(&[("base", 1), ("other", 3)]));
    git(&project, &["checkout", "-q", "main"]);
    commit(&project, "h", &runs(&[("base", 1), ("main", 2)]));
    try_git(&project, &["merge", "-q", "--no-edit", "other"]).expect_code(1);
    assert!(fs::read_to_string(project.path().join("h")).unwrap().contains("<<<<<<<"));
    let shown = project.offload(&["history", "show"]).expect_code(0);
    assert!(shown.stdout.starts_with("history `h` for `offload.toml`: 3 tests, 9 samples, 3 runs\n"));
    assert_eq!(shown.stderr, "offload: warn: history `h`: skipped 3 unreadable lines, the first in line 1\n");
}

#[test]
fn the_driver_is_set_up_once_and_adds_a_line_of_its_own() {
    let project = repository(Some("sub/h.jsonl")).file(".gitattributes", "*.txt text");
    let first = project.offload(&["history", "setup-merge-driver"]).expect_code(0);
    let top = project.path().canonicalize().unwrap();
    assert_eq!(
        first.stdout,
        format!(
            "set `merge.offload-history.name` to `merges histories of test runs` in the configuration of the repository\n\
             set `merge.offload-history.driver` to `offload history merge %O %A %B` in the configuration of the repository\n\
             added `sub/h.jsonl merge=offload-history` to `{}/.gitattributes`; commit this file\n",
            top.display()
        )
    );
    assert_eq!(first.stderr, "");
    assert_eq!(attributes(&project), "*.txt text\nsub/h.jsonl merge=offload-history\n");
    let config = fs::read(project.path().join(".git/config")).unwrap();
    let second = project.offload(&["history", "setup-merge-driver"]).expect_code(0);
    assert_eq!(second.stdout, "git already merges `sub/h.jsonl` with `offload`\n");
    assert_eq!(attributes(&project), "*.txt text\nsub/h.jsonl merge=offload-history\n");
    assert_eq!(fs::read(project.path().join(".git/config")).unwrap(), config);
}

#[test]
fn the_driver_is_set_up_from_a_folder_below_and_in_a_worktree() {
    let project = repository(None);
    commit(&project, "sub/keep", "");
    git(&project, &["worktree", "add", "-q", "tree"]);
    for (directory, file, pattern) in [
        ("sub", ".gitattributes", "sub/offload-history.jsonl"),
        ("tree", "tree/.gitattributes", "offload-history.jsonl"),
    ] {
        let mut command = project.command(env!("CARGO_BIN_EXE_offload"));
        command.args(["history", "setup-merge-driver"]).current_dir(project.path().join(directory));
        Running::start(command).wait(Duration::from_secs(60)).expect_code(0);
        let text = fs::read_to_string(project.path().join(file)).unwrap();
        assert_eq!(text, format!("{pattern} merge=offload-history\n"));
    }
}

#[test]
fn a_set_up_that_cannot_work_says_why() {
    let outside = project(&["pass 1"], "").offload(&["history", "setup-merge-driver"]).expect_code(3);
    assert!(outside.stderr.contains("is not in a git working tree: fatal: not a git repository"));
    assert!(outside.stderr.contains("\n  hint: run this in the repository that contains the history\n"));

    let empty = project(&["pass 1"], "").file("bin/keep", "");
    let mut command = empty.command(env!("CARGO_BIN_EXE_offload"));
    command.args(["history", "setup-merge-driver"]).env("PATH", empty.path().join("bin"));
    let missing = Running::start(command).wait(Duration::from_secs(60)).expect_code(4);
    assert!(missing.stderr.contains("cannot run git: "), "{}", missing.stderr);
    assert!(missing.stderr.contains("\n  hint: install git, or add it to PATH\n"), "{}", missing.stderr);

    let overridden = repository(Some("sub/h")).file("sub/.gitattributes", "* merge=union\n");
    let warned = overridden.offload(&["history", "setup-merge-driver"]).expect_code(0);
    assert!(warned.stderr.contains("another attribute overrides it"), "{}", warned.stderr);
}

#[test]
fn a_merge_that_cannot_read_a_side_leaves_ours_as_it_was() {
    let (base, ours) = (runs(&[("base", 1)]), runs(&[("base", 1), ("ours", 2)]));
    let project =
        Project::new().file("base", &base).file("ours", &ours).file("directory/x", "").file("empty", "");
    for theirs in ["missing", "directory"] {
        let outcome = project.offload(&["history", "merge", "base", "ours", theirs]).expect_code(4);
        assert!(
            outcome.stderr.contains(&format!("cannot read the history `{theirs}`")),
            "{}",
            outcome.stderr
        );
    }
    assert_eq!(fs::read_to_string(project.path().join("ours")).unwrap(), ours);
    project.offload(&["history", "merge", "empty", "ours", "base"]).expect_code(0);
    let merged = fs::read_to_string(project.path().join("ours")).unwrap();
    assert!(told(&merged).iter().all(|(_, runs, attempts)| runs == &["base", "ours"] && *attempts == 2));
}

#[test]
fn a_merge_keeps_as_many_samples_as_are_configured_or_present() {
    let many = |run: &str, from: u64, count: u64| {
        let samples: Vec<_> = (from..from + count).map(|at| (run, at, 0.5)).collect();
        line("a", &samples, &[])
    };
    let kept = |project: &Project, count: u64| {
        write(project, "ours", &many("ours", 100, count));
        write(project, "theirs", &many("theirs", 200, count));
        project.offload(&["history", "merge", "empty", "ours", "theirs"]).expect_code(0);
        told(&fs::read_to_string(project.path().join("ours")).unwrap())[0].1.len()
    };
    let plain = Project::new().file("empty", "");
    assert_eq!((kept(&plain, 8), kept(&plain, 15), kept(&plain, 30)), (16, 20, 30));
    let small = project(&["pass 1"], "[history]\nreservoir_size = 5").file("empty", "");
    assert_eq!((kept(&small, 2), kept(&small, 4), kept(&small, 8)), (4, 5, 8));
    let broken = small.config("no configuration");
    assert_eq!(kept(&broken, 15), 20);
}

/// A history with a bit of everything.
fn shown() -> Project {
    let passed = |seconds: &[f64]| -> Vec<(&'static str, u64, f64)> {
        ["r1", "r2", "r3", "r4", "r5", "r6"]
            .into_iter()
            .zip(1..)
            .zip(seconds)
            .map(|((run, at), s)| (run, at, *s))
            .collect()
    };
    let text = [
        line("steady", &passed(&[0.25, 0.25, 0.25]), &[]),
        line("slow \u{1b}[1m\n", &passed(&[12.0]), &[]),
        line("slower now", &passed(&[1.0, 1.0, 1.0, 2.0, 2.0, 2.5]), &[]),
        line("flaky", &passed(&[0.1, 0.1, 0.1]), &[("r4", 4, 0.1), ("r5", 5, 0.1)]),
        line("flaky, rarely run", &passed(&[0.1]), &[("r4", 4, 0.1)]),
        line("broken", &[], &[("r5", 5, 3.0)]),
        line("\noverhead", &passed(&[99.0]), &[("r1", 1, 99.0)]),
    ];
    project(&["pass 1"], "[history]\npath = \"h\"").file("h", &text.concat())
}

#[test]
fn the_overview_is_three_tables() {
    let outcome = shown().offload(&["history", "show"]).expect_code(0);
    assert_eq!(
        outcome.stdout,
        "history `h` for `offload.toml`: 6 tests, 18 samples, 6 runs

Slowest
  seconds  samples  test
   12.000        1  slow \\u{1b}[1m\\n
    3.000        1  broken
    1.500        6  slower now
    0.250        3  steady
    0.100        5  flaky
    0.100        2  flaky, rarely run

Flakiest
  failures  attempts   rate  test
         2         5  40.0%  flaky
         1         2  50.0%  flaky, rarely run

Newly slow
  before  seconds  factor  test
   1.000    2.000   × 2.0  slower now
"
    );
    assert_eq!(outcome.stderr, "");
}

#[test]
fn the_overview_as_json_is_one_object() {
    let outcome = shown().offload(&["history", "show", "--format", "json", "--limit", "1"]).expect_code(0);
    let overview: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        overview,
        json!({
            "tests": 6, "samples": 18, "runs": 6,
            "slowest": [{"id": "slow \u{1b}[1m\n", "seconds": 12.0, "samples": 1}],
            "flakiest": [{"id": "flaky", "failures": 2, "attempts": 5}],
            "newly_slow": [{"id": "slower now", "seconds_before": 1.0, "seconds": 2.0}],
        })
    );
}

#[test]
fn an_overview_of_nothing_says_so() {
    let without = project(&["pass 1"], "").offload(&["history", "show"]).expect_code(3);
    assert!(without.stderr.contains("the configuration has no [history] section\n\n  hint: add `[history]`"));
    let empty = project(&["pass 1"], "[history]");
    let outcome = empty.offload(&["history", "show"]).expect_code(0);
    assert_eq!(outcome.stdout, "history `offload-history.jsonl` has no tests of `offload.toml` yet\n");
    let json = empty.offload(&["history", "show", "-f", "json"]).expect_code(0);
    assert_eq!(serde_json::from_str::<Value>(&json.stdout).unwrap()["slowest"], json!([]));
}
