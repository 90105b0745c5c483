//! Claims about children: how they are waited for, ended, and what becomes of what they leave.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::guard::Guard;
use super::*;
use crate::command::StopSignal;

const LONG: Duration = Duration::from_secs(60);

/// A directory for the streams and signs of one test.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn streams(&self, secret: Option<&str>) -> Streams {
        let mask = Arc::new(Mask::new(secret.map(str::to_owned)));
        Streams { stdout: self.path("stdout"), stderr: self.path("stderr"), mask }
    }

    /// A command in this directory.
    fn command(&self, text: &str) -> CommandLine {
        CommandLine { directory: Some(self.0.path().to_owned()), ..CommandLine::shell(text) }
    }

    fn run(&self, command: &CommandLine, deadline: Duration, cancel: &Cancel) -> Finished {
        run(command, "/bin/sh", &self.streams(None), deadline, cancel).unwrap()
    }

    fn wait_for(&self, name: &str) {
        wait_until(|| self.path(name).exists());
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < until, "not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn signals_come_in_the_order_that_the_command_wants() {
    let place = Place::new();
    let text = "trap 'echo int >> heard' INT; trap 'echo term >> heard; exit 3' TERM; : > ready; \
                while :; do sleep 0.01; done";
    let stop: &[StopSignal] = &[StopSignal::Interrupt, StopSignal::Terminate];
    // These tests may have been started by a shell in the background, and ignore SIGINT.
    let words = ["env", "--default-signal=INT", "sh", "-c", text];
    let directory = Some(place.0.path().to_owned());
    let command = CommandLine { stop, directory, ..CommandLine::program(words) };
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            place.wait_for("ready");
            cancel.raise();
        });
        let finished = place.run(&command, LONG, &cancel);
        assert_eq!(finished.exit, Exit::Cancelled);
    });
    assert_eq!(place.read("heard"), "int\nterm\n");
}

#[test]
fn all_graces_after_a_cancel_are_two_seconds_together() {
    let place = Place::new();
    let stop: &[StopSignal] = &[StopSignal::Interrupt, StopSignal::Terminate];
    let command = CommandLine { stop, ..place.command("trap '' INT TERM; : > ready; sleep 600") };
    let cancel = Cancel::new();
    let took = std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            place.wait_for("ready");
            let raised = Instant::now();
            cancel.raise();
            raised
        });
        place.run(&command, LONG, &cancel);
        ended.join().unwrap().elapsed()
    });
    assert!(took >= Duration::from_millis(1900) && took < Duration::from_millis(4500), "{took:?}");
}

#[test]
fn a_second_signal_kills_at_once() {
    let place = Place::new();
    let command = place.command("trap '' INT TERM; : > ready; sleep 600");
    let cancel = Cancel::new();
    let took = std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            place.wait_for("ready");
            cancel.raise();
            cancel.raise();
            Instant::now()
        });
        place.run(&command, LONG, &cancel);
        ended.join().unwrap().elapsed()
    });
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn a_marked_command_leaves_nothing_behind_even_outside_its_group() {
    let place = Place::new();
    let text = "setsid sh -c 'trap \"\" INT TERM HUP; echo $$ > escaped; while :; do sleep 1; done' & \
                while ! [ -s escaped ]; do sleep 0.01; done; : > ready; sleep 600";
    let mut command = place.command(text);
    Guard::new(None).mark(&mut command);
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            place.wait_for("ready");
            cancel.raise();
        });
        place.run(&command, LONG, &cancel);
    });
    let escaped = place.read("escaped");
    wait_until(|| !is_alive(&escaped));
}

#[test]
fn a_command_without_a_marker_may_leave_what_has_left_its_group() {
    let place = Place::new();
    let text = "setsid sh -c 'echo $$ > stays; sleep 600' >/dev/null 2>&1 & while ! [ -s stays ]; do sleep 0.01; done";
    let finished = place.run(&place.command(text), LONG, &Cancel::new());
    assert!(!finished.leaked);
    let stays = place.read("stays");
    assert!(is_alive(&stays));
    let pid = stays.trim().parse().unwrap();
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_masked_output_is_whole_however_slowly_it_is_written() {
    let place = Place::new();
    // The reader of the log, a slow disk as it were, takes it in small parts.
    let made = std::process::Command::new("mkfifo").arg(place.path("stdout")).status().unwrap();
    assert!(made.success());
    let command = place.command("i=0; while [ $i -lt 3000 ]; do echo \"line $i s3cret\"; i=$((i+1)); done");
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            use std::io::Read;
            let mut log = File::open(place.path("stdout")).unwrap();
            let (mut all, mut part) = (Vec::new(), vec![0; 2000]);
            loop {
                std::thread::sleep(Duration::from_millis(30));
                match log.read(&mut part).unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&part[..count]),
                }
            }
        });
        let streams = place.streams(Some("s3cret"));
        let finished = run(&command, "/bin/sh", &streams, LONG, &Cancel::new()).unwrap();
        assert!(!finished.leaked, "nobody holds the pipe");
        reader.join().unwrap()
    });
    let text = String::from_utf8(read).unwrap();
    assert_eq!((text.lines().count(), text.contains("s3cret")), (3000, false));
}

#[test]
fn only_a_pipe_that_is_still_held_is_a_leak() {
    let place = Place::new();
    let text =
        "setsid sh -c 'echo $$ > held; sleep 600' & while ! [ -s held ]; do sleep 0.01; done; echo out";
    let streams = place.streams(Some("s3cret"));
    let finished = run(&place.command(text), "/bin/sh", &streams, LONG, &Cancel::new()).unwrap();
    let held = place.read("held");
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(held.trim().parse().unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!((finished.exit, finished.leaked), (Exit::Code(0), true));
    assert!(finished.elapsed < LONG);
    wait_until(|| place.read("stdout") == "out\n");
}

#[test]
fn a_process_that_goes_on_writing_delays_nobody() {
    let place = Place::new();
    let text = "setsid sh -c 'echo $$ > held; while :; do echo more; sleep 0.03; done' & \
                while ! [ -s held ]; do sleep 0.01; done; echo out; exit 4";
    let streams = place.streams(Some("s3cret"));
    let began = Instant::now();
    let finished = run(&place.command(text), "/bin/sh", &streams, LONG, &Cancel::new()).unwrap();
    let took = began.elapsed();
    let held = nix::unistd::Pid::from_raw(place.read("held").trim().parse().unwrap());
    nix::sys::signal::killpg(held, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!((finished.exit, finished.leaked), (Exit::Code(4), true));
    assert!(took < Duration::from_secs(10), "{took:?}");
    wait_until(|| place.read("stdout").contains("out\n"));
}

#[test]
fn lines_of_processes_that_print_at_the_same_time_are_all_captured() {
    let place = Place::new();
    let cancel = Cancel::new();
    let scratch = place.0.path();
    let capture = Capture { shell: "/bin/sh", scratch, stdout: None, deadline: LONG, cancel: &cancel };
    let text = "for w in a b c; do for i in $(seq 3000); do echo $w $i; echo $w $i >&2; done & done; wait";
    let captured = capture.run(&place.command(text)).unwrap();
    let stdout = String::from_utf8(captured.stdout().unwrap()).unwrap();
    for text in [stdout, captured.stderr_tail(u64::MAX)] {
        let lines: std::collections::HashSet<&str> = text.lines().collect();
        assert_eq!((lines.len(), text.lines().count()), (9000, 9000));
    }
}

#[test]
fn what_a_process_writes_later_does_not_change_what_was_captured() {
    let place = Place::new();
    let cancel = Cancel::new();
    let scratch = place.0.path();
    let capture = Capture { shell: "/bin/sh", scratch, stdout: None, deadline: LONG, cancel: &cancel };
    let text = "setsid sh -c 'echo $$ > late; while :; do echo late; sleep 0.01; done' & \
                while ! [ -s late ]; do sleep 0.01; done; for i in $(seq 1000); do echo $i; done";
    let captured = capture.run(&place.command(text)).unwrap();
    let whole = |text: &str| (1..=1000).all(|number| text.lines().any(|line| line == number.to_string()));
    for _ in 0..20 {
        assert!(whole(&String::from_utf8(captured.stdout().unwrap()).unwrap()));
    }
    let late = nix::unistd::Pid::from_raw(place.read("late").trim().parse().unwrap());
    nix::sys::signal::killpg(late, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn waiting_threads_are_woken_by_one_cancel_and_by_nothing_else() {
    let cancel = Cancel::new();
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (cancel, place) = (&cancel, &place);
            let waits = std::thread::Builder::new().name(format!("{WAITS} {number}"));
            let wait = move || {
                let mask = Arc::default();
                let stream = |kind: &str| place.path(&format!("{kind}-{number}"));
                let streams = Streams { stdout: stream("out"), stderr: stream("err"), mask };
                let command = place.command(&format!(": > ready-{number}; exec sleep 600"));
                let finished = run(&command, "/bin/sh", &streams, LONG, cancel).unwrap();
                assert_eq!(finished.exit, Exit::Cancelled);
            };
            waits.spawn_scoped(scope, wait).unwrap();
        }
        for number in 0..20 {
            place.wait_for(&format!("ready-{number}"));
        }
        wait_until(|| polling().len() >= 20);
        let before = polling();
        std::thread::sleep(Duration::from_secs(1));
        let after = polling();
        cancel.raise();
        let waked = before.iter().filter_map(|(task, count)| Some(after.get(task)? - count)).sum::<u64>();
        // Looking at a flag ten times a second would be two hundred.
        assert!(waked < 60, "{waked} wake-ups in a second of waiting");
    });
}

/// What the names of threads begin with that wait for a child.
const WAITS: &str = "child";

/// The threads of that name that are in poll(2), and how often each has given up the processor by itself.
fn polling() -> HashMap<std::ffi::OsString, u64> {
    // On x86-64 and arm64.
    const POLL: [&str; 3] = ["7 ", "271 ", "73 "];
    let of = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let call =
            fs::read_to_string(task.path().join("syscall")).ok().filter(|_| name.starts_with(WAITS))?;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let is_polling = POLL.iter().any(|number| call.starts_with(number));
        is_polling.then(|| (task.file_name(), count.trim().parse().unwrap()))
    };
    fs::read_dir("/proc/self/task").unwrap().flatten().filter_map(of).collect()
}

#[test]
fn what_is_captured_is_read_back_whole_and_nothing_is_left_in_the_directory() {
    let place = Place::new();
    let scratch = place.path("scratch");
    fs::create_dir(&scratch).unwrap();
    let cancel = Cancel::new();
    let capture =
        Capture { shell: "/bin/sh", scratch: &scratch, stdout: None, deadline: LONG, cancel: &cancel };
    let captured =
        capture.run(&place.command("seq 100000; echo last; echo; echo wrong >&2; exit 3")).unwrap();
    assert_eq!(captured.finished.exit, Exit::Code(3));
    let stdout = String::from_utf8(captured.stdout().unwrap()).unwrap();
    assert_eq!((stdout.lines().count(), captured.last_line().as_deref()), (100_002, Some("last")));
    assert_eq!(
        (captured.stderr_tail(4), captured.stdout_tail(5)),
        ("ong\n".to_owned(), "ast\n\n".to_owned())
    );
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
}
