//! What goes wrong at Modal or on the way there.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{modal, nothing_left};
use crate::support::{modal as tools, survivors, wait_until};

const SOLO: &str = "[groups.all]\nschedule_individual = true";

fn unique(name: &str) -> String {
    format!("offload-modal-{name}-{}", std::process::id())
}

#[test]
fn creates_that_are_throttled_are_asked_for_again() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2", "pass 3"], SOLO, "", "") else { return };
    emulator
        .faults(&json!([{ "rpc": "SandboxCreateV2", "calls": [1, 2, 4], "status": "RESOURCE_EXHAUSTED" }]));
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("3 passed"), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("given up"), "{}", outcome.stderr);
    nothing_left(&emulator, &project);
}

#[test]
fn a_sandbox_that_is_lost_during_a_batch_costs_no_result() {
    let tests: Vec<String> = (0..6).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let Some((emulator, project)) = modal(&tests, SOLO, "", "") else { return };
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project.file("runner", &format!("sleep 1\n{runner}"));
    emulator.faults(&json!([{ "kill_sandbox_at_exec": 2, "after": 0.3 }]));
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("6 tests: 6 passed"), "{}", outcome.stdout);
    assert_eq!(emulator.calls(&["SandboxCreate"]).len(), 4);
    nothing_left(&emulator, &project);
}

#[test]
fn an_image_that_the_server_lost_is_made_anew_once() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2"], SOLO, "", "") else { return };
    let project = super::committed(project);
    project.offload(&["run"]).expect_code(0);
    emulator.lose_images();
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stderr.contains("rebuilding it"), "{}", outcome.stderr);
    let before = emulator.calls(&["ImageGetOrCreate"]).len();
    project.offload(&["run"]).expect_code(0);
    assert_eq!(emulator.calls(&["ImageGetOrCreate"]).len(), before, "its note is replaced");
    // The same with a changed tree.
    emulator.lose_images();
    let project = project.file("value", "new");
    project.offload(&["run"]).expect_code(0);
    nothing_left(&emulator, &project);
}

#[test]
fn a_hung_test_is_ended_there_too() {
    let unique = unique("hang");
    let more = format!("env = {{ UNIQUE = \"{unique}\" }}");
    let rest = "test_timeout_secs = 3";
    let Some((emulator, project)) = modal(&["pass 1", "hang 1", "pass 2"], "[groups.all]", &more, rest)
    else {
        return;
    };
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    assert!(
        outcome.stdout.contains("2 passed") && outcome.stdout.contains("timed out"),
        "{}",
        outcome.stdout
    );
    assert_eq!(survivors(&unique), 0);
    nothing_left(&emulator, &project);
}

#[test]
fn an_image_that_cannot_be_built_is_told_with_its_log() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let project = project.file("Dockerfile", "FROM python:3.12\nRUN echo no such luck && exit 3\n");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("cannot build the image"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("no such luck"), "{}", outcome.stderr);
    nothing_left(&emulator, &project);
}

#[test]
fn what_is_missing_is_one_clear_message() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2", "pass 3"], SOLO, "", "") else { return };
    let project = project.env("MODAL_TOKEN_ID", "ak-wrong");
    // All three ask for a sandbox; one of them learns it for all.
    let outcome = project.offload(&["run", "--override-image-id", "im-x"]).expect_code(4);
    assert!(outcome.stderr.contains("rejects the token"), "{}", outcome.stderr);
    assert_eq!(emulator.calls(&["AppGetOrCreate"]).len(), 1);
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("rejects the token"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("modal token new"), "{}", outcome.stderr);
    let project = project.env("MODAL_TOKEN_ID", "").env("MODAL_TOKEN_SECRET", "");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("modal token new"), "{}", outcome.stderr);
    let project = project.env("MODAL_TOKEN_ID", "ak-test").env("MODAL_TOKEN_SECRET", "as-test");
    let project = project.env("MODAL_SERVER_URL", "http://127.0.0.1:9");
    let began = Instant::now();
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("cannot be reached"), "{}", outcome.stderr);
    assert!(began.elapsed() < Duration::from_secs(60));
    let path = project.path().join("bin");
    std::fs::create_dir(&path).unwrap();
    for program in ["sh", "cat", "env", "git"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|directory| directory.join(program))
            .find(|file| file.exists());
        std::os::unix::fs::symlink(found.unwrap(), path.join(program)).unwrap();
    }
    let path = path.display().to_string();
    let outcome = project.env("PATH", &path).offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("`uv`, which runs Modal's SDK, is not on PATH"), "{}", outcome.stderr);
}

/// uv makes the script's environment under a lock in the directory for temporary files; where runs have directories
/// of their own, one may find a half-made environment and end.
#[test]
fn a_driver_that_does_not_come_up_is_started_again() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2"], SOLO, "", "") else { return };
    let uv = tools().unwrap().join("bin/uv");
    let front = "#!/bin/sh\nif mkdir tried 2>/dev/null; then\n\
                 echo 'error: A virtual environment already exists' >&2; exit 2\nfi\n";
    let project = project.executable("front/uv", &format!("{front}exec {} \"$@\"\n", uv.display()));
    let path = format!("{}:{}", project.path().join("front").display(), std::env::var("PATH").unwrap());
    let project = project.env("PATH", &path);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert!(project.path().join("tried").exists());
    nothing_left(&emulator, &project);
}

#[test]
fn a_driver_that_breaks_down_leaves_no_sandbox() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2", "pass 3"], SOLO, "", "") else { return };
    let runner = std::fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project.file("runner", &format!("sleep 2\n{runner}"));
    let running = project.spawn(&["run"]);
    wait_until("all have sandboxes", Duration::from_secs(60), || {
        emulator.calls(&["TaskExecStart"]).len() >= 3
    });
    super::signals::signal_drivers(&project, Signal::SIGKILL);
    let outcome = running.wait(Duration::from_secs(60)).expect_code(0);
    assert!(outcome.stdout.contains("3 tests: 3 passed"), "{}", outcome.stdout);
    nothing_left(&emulator, &project);
}

#[test]
fn a_create_that_comes_too_late_delays_nothing_and_is_undone_by_the_driver_alone() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2", "pass 3"], SOLO, "", "") else { return };
    emulator.faults(&json!([{ "rpc": "SandboxCreateV2", "calls": [1], "delay": 30.0 }]));
    let began = Instant::now();
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(began.elapsed() < Duration::from_secs(28), "{:?}", began.elapsed());
    assert!(outcome.stdout.contains("3 tests: 3 passed"), "{}", outcome.stdout);
    wait_until("the create has ended", Duration::from_secs(60), || {
        emulator.calls(&["SandboxCreate"]).len() == 3
    });
    wait_until("its sandbox is destroyed", Duration::from_secs(60), || emulator.live() == 0);
    project.offload(&["gc"]).expect_code(0);
    nothing_left(&emulator, &project);
}
