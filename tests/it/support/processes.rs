//! Children of a test: started in a group of their own, with a deadline, and never left behind.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How a finished child ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Fails with both streams unless the child ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Outcome {
        let Outcome { code: own, stdout, stderr } = &self;
        assert_eq!(*own, Some(code), "\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }
}

/// A child that may still run. Dropping it ends its whole group.
pub struct Running {
    child: Child,
    streams: TempDir,
    name: String,
}

impl Running {
    /// Starts `command` with no input, in a group of its own, its streams in files.
    pub fn start(mut command: Command) -> Running {
        let streams = TempDir::new().unwrap();
        let stream = |name: &str| Stdio::from(File::create(streams.path().join(name)).unwrap());
        command.stdin(Stdio::null()).stdout(stream("stdout")).stderr(stream("stderr")).process_group(0);
        let name = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Running { child, streams, name }
    }

    /// Signals the child alone, as `kill` does.
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.group(), signal).unwrap();
    }

    /// What the child has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.text("stderr")
    }

    /// Waits for the end, and gives the most memory that the child had beside, in KiB.
    #[track_caller]
    pub fn wait_and_weigh(mut self, deadline: Duration) -> (Outcome, u64) {
        let status = format!("/proc/{}/status", self.child.id());
        let end = Instant::now() + deadline;
        let mut most = 0;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < end {
            // A process that has ended has no such line.
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
            most = line.map_or(most, |number| number.trim().parse().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        (self.wait(Duration::from_secs(1)), most)
    }

    /// Waits for the end. Past the deadline, ends the group and fails with both streams.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Outcome {
        let Some(status) = self.ended_within(deadline) else {
            self.end();
            let (stdout, stderr) = (self.text("stdout"), self.text("stderr"));
            panic!(
                "still running after {deadline:?}: {}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
                self.name
            );
        };
        Outcome { code: status.code(), stdout: self.text("stdout"), stderr: self.text("stderr") }
    }

    fn ended_within(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            match self.child.try_wait().unwrap() {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
                status => return status,
            }
        }
    }

    /// TERM first, so that a program under test can end what it started in other groups.
    fn end(&mut self) {
        for (signal, grace) in [(Signal::SIGTERM, 8), (Signal::SIGKILL, 8)] {
            if self.child.try_wait().unwrap().is_none() {
                // The group may have ended in between.
                let _ = killpg(self.group(), signal);
                self.ended_within(Duration::from_secs(grace));
            }
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    fn text(&self, stream: &str) -> String {
        let bytes = fs::read(self.streams.path().join(stream)).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// How many live processes have `unique` in their command line. Give the processes of a test an
/// argument that no other has.
pub fn survivors(unique: &str) -> usize {
    let mentions = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(unique);
    if let Ok(entries) = fs::read_dir("/proc") {
        let lines = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        return lines.filter(|line| mentions(line)).count();
    }
    let listed = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap().stdout;
    listed.split(|byte| *byte == b'\n').filter(|line| mentions(line)).count()
}

/// Polls until `condition` holds, and fails naming `what` when it does not in time.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
