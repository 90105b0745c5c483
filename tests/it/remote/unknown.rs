//! Creates that end before they print an id: nobody knows whether they left a sandbox. The server of these sandboxes
//! keeps its own list, the directory `live`, and makes a sandbox before its client prints anything.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{SWEEP, calls, remote};
use crate::support::{Outcome, Project, wait_until};

const SOLO: &str = "[groups.all]\nschedule_individual = true";

/// A project whose sandboxes have the names that they are given; when one is there, its client does `then`.
fn served(tests: &[&str], more: &str, then: &str) -> Project {
    let project = remote(tests, SOLO, more, "")
        .file("on-create", &format!("id=$1; echo \"$*\" >> asked; mkdir -p live; : > \"live/$id\"\n{then}\n"))
        .file("on-destroy", "rm -f \"live/$1\"");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    project
        .config(&config.replace("provider create", "provider create {sandbox_name} {slot} {run_name}"))
        .file(".gitignore", "*\n")
}

fn lines(project: &Project, file: &str) -> Vec<String> {
    let text = fs::read_to_string(project.path().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn live(project: &Project) -> usize {
    fs::read_dir(project.path().join("live")).map_or(0, Iterator::count)
}

fn journal(project: &Project) -> usize {
    fs::read_dir(project.path().join("state/runs")).map_or(0, Iterator::count)
}

fn gc(project: &Project, code: i32) -> Outcome {
    project.offload(&["gc"]).expect_code(code)
}

/// The sandboxes are reported by each `gc` until the user settles them.
fn are_unknown_until_forgotten(project: &Project, count: usize) {
    let names: BTreeSet<String> =
        lines(project, "asked").iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    for _ in 0..2 {
        let outcome = gc(project, 4);
        assert!(
            outcome.stdout.ends_with(&format!("0 destroyed, {count} left ({count} unknown)\n")),
            "{}",
            outcome.stdout
        );
        for name in &names {
            assert!(outcome.stdout.contains(&format!("unknown {name} (slot ")), "{}", outcome.stdout);
        }
        assert!(outcome.stderr.contains("offload gc --forget"), "{}", outcome.stderr);
    }
    let outcome = project.offload(&["gc", "--forget"]).expect_code(0);
    assert_eq!(outcome.stdout.matches("forgot offload-").count(), count, "{}", outcome.stdout);
    assert!(gc(project, 0).stdout.ends_with("0 destroyed, 0 left\n"));
    assert_eq!(journal(project), 0);
}

#[test]
fn a_create_that_is_ended_before_it_prints_an_id_is_unknown_until_it_is_forgotten() {
    for (end, more) in [
        ("sleep 60", "timeout_secs = 1"),
        ("kill -9 $$", ""),
        ("echo making it; sleep 60", "timeout_secs = 1"),
        ("exit 0", ""),
        ("printf 'a\\377b\\n'; exit 0", ""),
    ] {
        let project = served(&["pass 1"], more, end);
        let outcome = project.offload(&["run"]).expect_code(4);
        let warnings: Vec<_> =
            outcome.stderr.lines().filter(|line| line.contains("gave no reliable id")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains("1 create gave"), "{}", outcome.stderr);
        assert!(warnings[0].contains("`offload gc"), "{}", outcome.stderr);
        assert!(calls(&project, "destroy").is_empty(), "{:?}", calls(&project, "destroy"));
        assert_eq!((live(&project), journal(&project)), (1, 1));
        are_unknown_until_forgotten(&project, 1);
    }
}

#[test]
fn a_word_of_progress_is_no_id() {
    for more in ["", SWEEP] {
        let more = format!("{more}\ntimeout_secs = 1");
        let project = served(&["pass 1"], &more, "echo Creating; sleep 60");
        project.offload(&["run"]).expect_code(4);
        assert_eq!(calls(&project, "destroy"), ["destroy Creating"]);
        if more.contains(SWEEP) {
            assert_eq!((live(&project), journal(&project)), (0, 0));
        } else {
            assert_eq!((live(&project), journal(&project)), (1, 1));
            are_unknown_until_forgotten(&project, 1);
        }
    }
}

#[test]
fn the_name_of_a_sandbox_is_an_id_for_certain() {
    let project = served(&["pass 1"], "timeout_secs = 1", "echo $id; sleep 60");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(!outcome.stderr.contains("no reliable id"), "{}", outcome.stderr);
    assert_eq!((live(&project), journal(&project)), (0, 0));
}

#[test]
fn what_a_later_sweep_may_settle_is_not_forgotten() {
    let project = served(&["pass 1"], SWEEP, "kill -9 $$").file("on-sweep", "echo 'no route' >&2; exit 1");
    project.offload(&["run"]).expect_code(4);
    let outcome = project.offload(&["gc", "--forget"]).expect_code(4);
    assert!(outcome.stdout.contains("its sweep failed") && !outcome.stdout.contains("forgot"), "{outcome:?}");
    // Another run, whose sweep a signal prevents.
    project.offload(&["run"]).expect_code(4);
    let project = project.file("on-sweep", ": > sweeping; until [ -e go ]; do sleep 0.05; done");
    let running = project.spawn(&["gc", "--forget"]);
    let sweeping = project.path().join("sweeping");
    wait_until("a sweep has begun", Duration::from_secs(20), || sweeping.exists());
    running.signal(Signal::SIGINT);
    wait_until("it has heard", Duration::from_secs(20), || running.stderr().contains("stopping"));
    let project = project.file("go", "");
    let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
    assert!(!outcome.stdout.contains("forgot"), "{outcome:?}");
    assert!(outcome.stderr.contains("`gc` was interrupted; 1 sandbox left"), "{outcome:?}");
    assert_eq!((live(&project), journal(&project)), (1, 1));
    assert!(gc(&project, 0).stdout.ends_with("1 destroyed, 0 left\n"));
    assert_eq!((live(&project), journal(&project)), (0, 0));
}

#[test]
fn a_sweep_at_the_end_of_a_run_destroys_what_ended_creates_left() {
    for (end, more) in [("sleep 60", "timeout_secs = 1"), ("kill -9 $$", "")] {
        let project = served(&["pass 1"], &format!("{SWEEP}\n{more}"), end);
        let outcome = project.offload(&["run"]).expect_code(4);
        assert!(!outcome.stderr.contains("no reliable id"), "{}", outcome.stderr);
        assert_eq!((live(&project), journal(&project)), (0, 0));
        assert_eq!(calls(&project, "sweep").len(), 1);
        assert!(gc(&project, 0).stdout.ends_with("0 destroyed, 0 left\n"));
    }
}

#[test]
fn a_sandbox_that_its_server_makes_after_the_first_sweep_is_found_by_the_second() {
    // The server is a process of its own.
    let late = "rm \"live/$id\"\n\
                env -i PATH=\"$PATH\" setsid sh -c ': > begun; sleep 0.5; : > \"live/$1\"' sh \"$id\" \
                > /dev/null 2>&1 < /dev/null &\n\
                until [ -f begun ]; do sleep 0.01; done; kill -9 $$";
    let project = served(&["pass 1"], SWEEP, late);
    project.offload(&["run"]).expect_code(4);
    assert_eq!((live(&project), journal(&project)), (0, 0), "{:?}", calls(&project, "sweep"));
}

#[test]
fn a_sweep_that_fails_leaves_its_sandboxes_to_gc() {
    let project = served(&["pass 1"], SWEEP, "kill -9 $$").file("on-sweep", "echo 'no route' >&2; exit 1");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(
        outcome.stderr.contains("`sweep_command` ended with exit code 1: no route"),
        "{}",
        outcome.stderr
    );
    assert!(gc(&project, 4).stdout.ends_with("(1 unknown)\n"));
    assert_eq!((live(&project), journal(&project)), (1, 1));
    fs::remove_file(project.path().join("on-sweep")).unwrap();
    assert!(gc(&project, 0).stdout.ends_with("1 destroyed, 0 left\n"));
    assert_eq!((live(&project), journal(&project)), (0, 0));
}

#[test]
fn a_signal_while_sandboxes_are_created_leaves_none_that_is_not_swept_or_reported() {
    for more in ["", SWEEP] {
        let project = served(&["pass 1", "pass 2", "pass 3"], more, "sleep 60");
        let running = project.spawn(&["run"]);
        wait_until("creates have begun", Duration::from_secs(20), || live(&project) == 3);
        running.signal(Signal::SIGINT);
        let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
        if more.is_empty() {
            assert!(outcome.stderr.contains("3 creates gave no reliable id; each may"), "{}", outcome.stderr);
            are_unknown_until_forgotten(&project, 3);
        } else {
            assert_eq!((live(&project), journal(&project)), (0, 0), "{}", outcome.stderr);
        }
    }
}

#[test]
fn creates_of_a_killed_run_that_die_with_it_are_swept_or_reported_by_gc() {
    for (more, progress) in [("", ""), (SWEEP, ""), ("", "echo Creating; "), (SWEEP, "echo Creating; ")] {
        let project = served(&["pass 1"], more, &format!("{progress}echo $$ > client; sleep 60"));
        let running = project.spawn(&["run"]);
        let client = || lines(&project, "client").first().and_then(|line| line.parse::<i32>().ok());
        wait_until("the create has begun", Duration::from_secs(20), || client().is_some());
        running.signal(Signal::SIGKILL);
        running.wait(Duration::from_secs(10));
        // It may be gone already.
        let _ = killpg(Pid::from_raw(client().unwrap()), Signal::SIGKILL);
        if more.is_empty() {
            are_unknown_until_forgotten(&project, 1);
        } else {
            assert!(gc(&project, 0).stdout.ends_with("1 destroyed, 0 left\n"));
            assert_eq!((live(&project), journal(&project)), (0, 0));
        }
    }
}

#[test]
fn an_interrupted_run_is_swept_even_where_every_create_printed_an_id() {
    let project = served(&["hang 1"], SWEEP, "").env("UNIQUE", "offload-remote-interrupted");
    let running = project.spawn(&["run"]);
    wait_until("the test runs", Duration::from_secs(20), || !lines(&project, "ran").is_empty());
    running.signal(Signal::SIGINT);
    running.wait(Duration::from_secs(30)).expect_code(130);
    assert_eq!((calls(&project, "destroy").len(), calls(&project, "sweep").len()), (1, 1));
    let log = lines(&project, "calls");
    assert!(log.last().unwrap().starts_with("sweep "), "{log:?}");
    assert_eq!((live(&project), journal(&project)), (0, 0));
}

#[test]
fn names_of_sandboxes_are_unique_plain_and_in_the_journal_before_the_create() {
    let project = served(
        &["pass 1", "pass 2", "pass 3"],
        SWEEP,
        "grep -q \"\\\"name\\\":\\\"$1\\\"\" state/runs/*/sandbox-*.json || exit 1",
    );
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project
        .config(&config.replace("provider destroy {sandbox_id}", "provider destroy {sandbox_id} {run_name}"));
    let project = project.file("on-destroy", "rm -f \"live/$1\"; echo \"$2\" >> destroyed");
    for _ in 0..2 {
        project.offload(&["run"]).expect_code(0);
    }
    let asked = lines(&project, "asked");
    let words: Vec<Vec<&str>> = asked.iter().map(|line| line.split(' ').collect()).collect();
    let names: BTreeSet<&str> = words.iter().map(|words| words[0]).collect();
    let runs: BTreeSet<&str> = words.iter().map(|words| words[2]).collect();
    let slots: BTreeSet<&str> = words.iter().map(|words| words[1]).collect();
    assert_eq!((names.len(), runs.len()), (6, 2), "{asked:?}");
    assert_eq!(slots, BTreeSet::from(["0", "1", "2"]));
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    for words in &words {
        assert!(words[0].starts_with(&format!("{}-", words[2])), "{words:?}");
        assert!(words[0].len() <= 50 && words[0].chars().all(is_plain), "{words:?}");
    }
    assert_eq!(lines(&project, "destroyed").iter().map(String::as_str).collect::<BTreeSet<_>>(), runs);
    assert!(calls(&project, "sweep").is_empty());
    assert_eq!((live(&project), journal(&project)), (0, 0));
}
