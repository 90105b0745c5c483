//! Interrupts and sudden ends: no sandbox stays.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{calls, nothing_left, remote};
use crate::support::{Project, Running, survivors, wait_until};

const SOLO: &str = "[groups.all]\nschedule_individual = true";

fn unique(name: &str) -> String {
    format!("offload-remote-{name}-{}", std::process::id())
}

#[test]
fn a_signal_during_creates_leaves_no_sandbox() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let tests: Vec<String> = (0..20).map(|number| format!("pass {number}")).collect();
        let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
        // Each is there as soon as its creation begins, and tells its id only at the end.
        let project = remote(&tests, SOLO, "", "").file(
            "on-create",
            "echo \"create $id\" >> calls; echo begun >> begun; sleep 2; echo $id; exit 0",
        );
        let running = project.spawn(&["run", "--parallel", "20"]);
        let begun = || fs::read_to_string(project.path().join("begun")).unwrap_or_default().lines().count();
        wait_until("creates have begun", Duration::from_secs(20), || begun() == 20);
        let asked = Instant::now();
        running.signal(signal);
        let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
        assert!(asked.elapsed() < Duration::from_secs(7), "{signal}: {:?}", asked.elapsed());
        assert!(outcome.stdout.contains("20 tests: 0 passed, 20 not run"), "{}", outcome.stdout);
        assert_eq!(calls(&project, "create").len(), 20);
        nothing_left(&project);
    }
}

#[test]
fn a_signal_ends_fifty_sandboxes_and_writes_what_is_known() {
    let unique = unique("fifty");
    let tests: Vec<String> =
        (0..50).map(|number| format!("hang {number}")).chain(["a pass".into()]).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = remote(&tests, SOLO, "", "").file("on-destroy", "sleep 0.3").env("UNIQUE", &unique);
    let running = project.spawn(&["run", "--parallel", "51"]);
    wait_until("the tests hang", Duration::from_secs(60), || {
        survivors(&unique) >= 50
            && fs::exists(project.path().join("ran")).unwrap()
            && fs::read_to_string(project.path().join("ran")).unwrap().contains("a pass")
    });
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    running.signal(Signal::SIGINT);
    let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    assert!(outcome.stdout.contains("51 tests: 1 passed, 50 not run"), "{}", outcome.stdout);
    assert!(project.path().join("test-results/junit.xml").exists());
    assert_eq!(survivors(&unique), 0);
    nothing_left(&project);
}

#[test]
fn a_signal_ends_a_download_that_hangs() {
    let unique = unique("download");
    let project = remote(&["pass 1"], SOLO, super::DOWNLOAD, "")
        .file("on-download", "sh -c 'sleep 600; : $0' \"$UNIQUE\"")
        .env("UNIQUE", &unique);
    let running = project.spawn(&["run"]);
    wait_until("the download hangs", Duration::from_secs(20), || survivors(&unique) > 0);
    let asked = Instant::now();
    running.signal(Signal::SIGINT);
    running.wait(Duration::from_secs(30)).expect_code(130);
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    assert_eq!(survivors(&unique), 0);
    nothing_left(&project);
}

#[test]
fn a_signal_while_an_exec_is_throttled_is_no_error_of_its_tests() {
    let project = remote(&["pass 1"], SOLO, "", "").file("on-exec", "echo $n >> throttled; exit 75");
    let running = project.spawn(&["run"]);
    let throttled = project.path().join("throttled");
    wait_until("an exec is throttled", Duration::from_secs(20), || throttled.exists());
    running.signal(Signal::SIGINT);
    let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
    assert!(outcome.stdout.contains("NOT RUN pass 1"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("ERROR"), "{}", outcome.stdout);
    nothing_left(&project);
}

#[test]
fn what_a_killed_run_left_is_destroyed_by_gc_and_nothing_of_a_living_one() {
    let unique = unique("killed");
    let project = remote(&["hang 1", "hang 2"], SOLO, "", "").env("UNIQUE", &unique);
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.file("other.toml", &config.replace("[report]", "[report]\noutput_dir = \"other\""));
    let dead = project.spawn(&["run"]);
    wait_until("two tests hang", Duration::from_secs(20), || survivors(&unique) >= 2);
    let living = project.spawn(&["-c", "other.toml", "run"]);
    wait_until("four tests hang", Duration::from_secs(20), || survivors(&unique) >= 4);
    dead.signal(Signal::SIGKILL);
    assert_eq!(dead.wait(Duration::from_secs(10)).code, None);
    let outcome = project.offload(&["gc"]).expect_code(0);
    let mut destroyed = calls(&project, "destroy");
    destroyed.sort();
    assert_eq!(destroyed, ["destroy sb-1", "destroy sb-2"]);
    assert!(outcome.stdout.ends_with("2 destroyed, 0 left\n"), "{}", outcome.stdout);
    assert!(project.offload(&["gc"]).expect_code(0).stdout.starts_with("0 destroyed"));
    living.signal(Signal::SIGTERM);
    living.wait(Duration::from_secs(20)).expect_code(130);
    // Nobody was left to end the tests of the killed run.
    crate::safety::end_all(&unique);
    fs::remove_dir_all(project.path().join("tmp")).unwrap();
    fs::create_dir(project.path().join("tmp")).unwrap();
    nothing_left(&project);
}

#[test]
fn a_sandbox_that_was_in_the_making_when_its_run_was_killed_is_found() {
    let project = remote(&["pass 1"], SOLO, "", "").file("on-create", "echo begun > begun; sleep 2");
    let dead = project.spawn(&["run"]);
    wait_until("the create has begun", Duration::from_secs(20), || project.path().join("begun").exists());
    dead.signal(Signal::SIGKILL);
    assert_eq!(dead.wait(Duration::from_secs(10)).code, None);
    project.offload(&["gc"]).expect_code(0);
    assert_eq!(calls(&project, "destroy"), ["destroy sb-1"]);
}

#[test]
fn gc_says_what_it_could_not_destroy_and_keeps_it() {
    let unique = unique("stays");
    let project = remote(&["hang"], SOLO, "", "").env("UNIQUE", &unique).file("on-destroy", "exit 1");
    let dead = project.spawn(&["run"]);
    wait_until("the test hangs", Duration::from_secs(20), || survivors(&unique) >= 1);
    dead.signal(Signal::SIGKILL);
    dead.wait(Duration::from_secs(10));
    crate::safety::end_all(&unique);
    let outcome = project.offload(&["gc"]).expect_code(4);
    assert!(outcome.stderr.contains("the sandbox `sb-1` was not destroyed"), "{}", outcome.stderr);
    fs::remove_file(project.path().join("on-destroy")).unwrap();
    project.offload(&["gc"]).expect_code(0);
    assert_eq!(calls(&project, "destroy"), ["destroy sb-1"]);
}

/// A project whose run was killed with so many sandboxes.
fn killed(count: usize, unique: &str) -> Project {
    let tests: Vec<String> = (0..count).map(|number| format!("hang {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = remote(&tests, SOLO, "timeout_secs = 20", "").env("UNIQUE", unique);
    let dead = project.spawn(&["run", "--parallel", &count.to_string()]);
    wait_until("the tests hang", Duration::from_secs(60), || survivors(unique) >= count);
    dead.signal(Signal::SIGKILL);
    dead.wait(Duration::from_secs(10));
    crate::safety::end_all(unique);
    project
}

/// How many destroys have begun, for `on-destroy` scripts that write it down.
fn begun(project: &Project) -> usize {
    fs::read_to_string(project.path().join("begun")).unwrap_or_default().lines().count()
}

#[test]
fn gc_destroys_side_by_side() {
    // None ends before all have begun.
    let project = killed(6, &unique("beside"))
        .file("on-destroy", "echo $id >> begun; while [ $(grep -c '' begun) -lt 6 ]; do sleep 0.05; done");
    let outcome = project.offload(&["gc"]).expect_code(0);
    assert!(outcome.stdout.ends_with("6 destroyed, 0 left\n"), "{}", outcome.stdout);
    assert_eq!((begun(&project), calls(&project, "destroy").len()), (6, 6));
}

#[test]
fn a_signal_lets_gc_start_no_more_and_what_is_left_stays_in_the_journal() {
    let project = killed(18, &unique("enough"))
        .file("on-destroy", "echo $id >> begun; while [ ! -e go ]; do sleep 0.05; done");
    let running = project.spawn(&["gc"]);
    wait_until("destroys have begun", Duration::from_secs(20), || begun(&project) == 16);
    running.signal(Signal::SIGINT);
    wait_until("it has heard", Duration::from_secs(20), || running.stderr().contains("stopping"));
    fs::write(project.path().join("go"), "").unwrap();
    let outcome = running.wait(Duration::from_secs(30)).expect_code(130);
    assert!(outcome.stdout.ends_with("16 destroyed, 2 left\n"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("2 sandboxes left"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("run `offload gc` again"), "{}", outcome.stderr);
    let outcome = project.offload(&["gc"]).expect_code(0);
    assert!(outcome.stdout.ends_with("2 destroyed, 0 left\n"), "{}", outcome.stdout);
    assert_eq!(calls(&project, "destroy").len(), 18);
}

#[test]
fn a_relative_state_folder_is_the_same_for_gc_from_elsewhere() {
    let project = killed(1, &unique("relative"));
    fs::create_dir(project.path().join("sub")).unwrap();
    let mut command = project.command(env!("CARGO_BIN_EXE_offload"));
    command.arg("gc").current_dir(project.path().join("sub")).env("OFFLOAD_STATE_DIR", "../state");
    let outcome = Running::start(command).wait(Duration::from_secs(30)).expect_code(0);
    assert!(outcome.stdout.ends_with("1 destroyed, 0 left\n"), "{}", outcome.stdout);
    assert_eq!(fs::read_dir(project.path().join("state/runs")).unwrap().count(), 0);
}
