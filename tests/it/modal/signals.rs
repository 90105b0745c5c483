//! Signals: whatever happens to the program, no sandbox goes on costing.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{modal, nothing_left};
use crate::support::{Project, survivors, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SOLO: &str = "[groups.all]\nschedule_individual = true";

/// Signals the drivers of this project's runs: the processes that know its server.
pub fn signal_drivers(project: &Project, signal: Signal) {
    let state = project.path().join("state").display().to_string();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let text = |name: &str| {
            fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (Ok(line), Ok(env)) = (text("cmdline"), text("environ")) else { continue };
        let is_python = line.contains("modal_sandbox.py\0driver") && !line.starts_with("uv");
        if is_python && env.contains(&format!("OFFLOAD_STATE_DIR={state}")) {
            let id: i32 = entry.file_name().to_string_lossy().parse().unwrap();
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }
}

#[test]
fn a_signal_ends_sandboxes_and_what_runs_in_them() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let unique = format!("offload-modal-signal-{signal}-{}", std::process::id());
        let more = format!("env = {{ UNIQUE = \"{unique}\" }}");
        let Some((emulator, project)) = modal(&["hang 1", "hang 2", "pass 1"], SOLO, &more, "") else {
            return;
        };
        let running = project.spawn(&["run"]);
        wait_until("tests hang", LONG, || survivors(&unique) >= 2);
        running.signal(signal);
        let outcome = running.wait(Duration::from_secs(20)).expect_code(130);
        assert!(outcome.stdout.contains("3 tests"), "{}", outcome.stdout);
        assert_eq!(survivors(&unique), 0);
        nothing_left(&emulator, &project);
    }
}

#[test]
fn a_signal_during_creates_leaves_no_sandbox() {
    let Some((emulator, project)) = modal(&["pass 1", "pass 2", "pass 3"], SOLO, "", "") else { return };
    emulator.faults(&serde_json::json!([{ "rpc": "SandboxCreateV2", "delay": 5.0 }]));
    let running = project.spawn(&["run"]);
    wait_until("creates", LONG, || {
        fs::read_dir(project.path().join("state/runs")).is_ok_and(|mut runs| {
            runs.next()
                .is_some_and(|run| fs::read_dir(run.unwrap().path()).is_ok_and(|files| files.count() > 3))
        })
    });
    running.signal(Signal::SIGINT);
    running.wait(LONG).expect_code(130);
    // What is not there in time is destroyed by the driver alone, as soon as it is.
    wait_until("creates have ended", LONG, || emulator.calls(&["SandboxCreate"]).len() >= 3);
    wait_until("all are destroyed", LONG, || emulator.live() == 0);
    project.offload(&["gc"]).expect_code(0);
    nothing_left(&emulator, &project);
}

#[test]
fn what_a_killed_run_left_is_swept_by_gc() {
    for with_driver in [false, true] {
        let unique = format!("offload-modal-killed-{with_driver}-{}", std::process::id());
        let more = format!("env = {{ UNIQUE = \"{unique}\" }}");
        let Some((emulator, project)) = modal(&["hang 1", "hang 2", "hang 3"], SOLO, &more, "") else {
            return;
        };
        let running = project.spawn(&["run"]);
        wait_until("tests hang", LONG, || survivors(&unique) >= 3);
        if with_driver {
            // A stopped driver cannot clean up between the two kills.
            signal_drivers(&project, Signal::SIGSTOP);
        }
        running.signal(Signal::SIGKILL);
        if with_driver {
            signal_drivers(&project, Signal::SIGKILL);
            assert_eq!(emulator.live(), 3);
        }
        drop(running);
        if !with_driver {
            // The driver sees that nobody is there any more.
            wait_until("the driver has destroyed all", LONG, || emulator.live() == 0);
        }
        let outcome = project.offload(&["gc"]).expect_code(0);
        assert!(outcome.stdout.contains(" 0 left"), "{}", outcome.stdout);
        assert_eq!((emulator.live(), survivors(&unique)), (0, 0));
        assert_eq!(fs::read_dir(project.path().join("state/runs")).unwrap().count(), 0);
    }
}

#[test]
fn gc_leaves_the_sandboxes_of_a_living_run() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project.file("runner", &format!("sleep 4\n{runner}"));
    let running = project.spawn(&["run"]);
    wait_until("a test runs", LONG, || !emulator.calls(&["TaskExecStart"]).is_empty());
    let outcome = project.offload(&["gc"]).expect_code(0);
    assert!(outcome.stdout.contains("0 destroyed, 0 left"), "{}", outcome.stdout);
    running.wait(LONG).expect_code(0);
    nothing_left(&emulator, &project);
}
