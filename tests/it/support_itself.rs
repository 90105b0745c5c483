//! The support holds what it promises, so that a failing test means the program.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Outcome, Project, Running, nextest, python, python_old, survivors, vitest, wait_until};

#[path = "../zz_skipped/closing.rs"]
mod closing;

/// A project with a script that sleeps beside a sleeping child; `unique` is in both command lines.
fn sleeper(unique: &str) -> (Project, Running) {
    let script = "#!/bin/sh\necho started >&2\nsh -c 'sleep 40; : $0' \"$1\"\n";
    let project = Project::new().executable("sleeper", script);
    let mut command = project.command(project.path().join("sleeper"));
    command.arg(unique);
    let running = Running::start(command);
    wait_until("the sleeper starts", Duration::from_secs(20), || running.stderr() == "started\n");
    wait_until("its child starts", Duration::from_secs(20), || survivors(unique) == 2);
    (project, running)
}

fn run(project: &Project, program: &Path, arguments: &[&str]) -> Outcome {
    let mut command = project.command(program);
    command.args(arguments);
    Running::start(command).wait(Duration::from_secs(120))
}

#[test]
fn a_child_past_its_deadline_is_ended_with_its_children_and_its_streams_are_shown() {
    let unique = format!("deadline-{}", std::process::id());
    let (_project, running) = sleeper(&unique);
    let failure = catch_unwind(AssertUnwindSafe(|| running.wait(Duration::from_millis(50)))).unwrap_err();
    let message = failure.downcast_ref::<String>().unwrap();
    assert!(message.contains("still running") && message.contains("started"), "{message}");
    wait_until("all of them end", Duration::from_secs(10), || survivors(&unique) == 0);
}

#[test]
fn a_signal_reaches_the_child_alone() {
    let unique = format!("signal-{}", std::process::id());
    let (_project, running) = sleeper(&unique);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait(Duration::from_secs(20)).code, None);
    assert_eq!(survivors(&unique), 1);
}

#[test]
fn the_program_runs_in_the_project_with_a_clean_environment() {
    let project = Project::new().config("").env("GREETING", "hello");
    project.offload(&["--version"]).expect_code(0);
    let printed =
        run(&project, Path::new("sh"), &["-c", "pwd; ls; echo $GREETING ${CI-unset} ${CARGO-unset}"]);
    let directory = project.path().canonicalize().unwrap();
    let wanted = format!("{}\noffload.toml\nhello unset unset\n", directory.display());
    assert_eq!(printed.expect_code(0).stdout, wanted);
}

#[test]
fn both_pytests_run() {
    let (Some(recent), Some(old)) = (python(), python_old()) else {
        return;
    };
    for (program, version) in [(recent, "pytest 9."), (old, "pytest 7.")] {
        let outcome = run(&Project::new(), program, &["-m", "pytest", "--version"]).expect_code(0);
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains(version), "{outcome:?}");
    }
}

#[test]
fn vitest_runs_in_a_project_that_links_it() {
    let Some(modules) = vitest() else { return };
    let test = "import { expect, test } from 'vitest'\ntest('adds', () => expect(1 + 1).toBe(2))\n";
    let project = Project::new().link("node_modules", modules).file("sum.test.js", test);
    let outcome = run(&project, Path::new("npx"), &["vitest", "run"]).expect_code(0);
    assert!(outcome.stdout.contains("1 passed"), "{outcome:?}");
}

#[test]
fn nextest_runs_from_its_folder() {
    let Some(directory) = nextest() else { return };
    let project = Project::new().tool(directory);
    run(&project, Path::new("cargo"), &["nextest", "--version"]).expect_code(0);
}

#[test]
fn skipped_tests_are_counted_with_their_reasons_and_fail_only_in_ci() {
    let none = closing::of("", true);
    assert_eq!((none.text.as_str(), none.fails), ("skipped: 0 (libtest counts them as passed)", false));
    let marks = "one\tvitest\tno npm\none\tvitest\tno npm\ntwo\tvitest\tno npm\ntwo\tnextest\tno network\n";
    let lines = "skipped: 2 (libtest counts them as passed)\n  without `nextest`: no network\n    two\n  \
                 without `vitest`: no npm\n    one\n    two";
    let closing = closing::of(marks, false);
    assert_eq!((closing.text.as_str(), closing.fails), (lines, false));
    assert!(closing::of(marks, true).fails);
    assert!(!closing::of("one\tpytest-old\tno wheel\n", true).fails);
}

#[test]
fn the_count_of_skipped_tests_comes_last() {
    let entries = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap();
    let last = entries.map(|entry| entry.unwrap().file_name()).max().unwrap();
    assert_eq!(last, "zz_skipped");
}
