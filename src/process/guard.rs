//! Ends local processes whose run is gone: `kill -9`, a crash, no memory left.
//!
//! The guard is this program again, in a process group of its own, which reads from a pipe that the run
//! holds. A run that ends says so; where the pipe ends without that word, the guard kills everything that
//! carries the run's marker.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wait_timeout::ChildExt;

use super::marked;
use crate::command::CommandLine;

/// The subcommand that a guard runs as.
pub const SUBCOMMAND: &str = "guard-processes";
/// What a run says at its end.
const DONE: &[u8] = b"done";
/// How long a guard is waited for that was told so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Marks the commands of a run, and guards their processes.
#[derive(Debug)]
pub struct Guard {
    /// Begins the markers of all commands of this run.
    token: String,
    commands: AtomicU64,
    /// The program to start as the guard; `None`: nobody guards.
    program: Option<PathBuf>,
    child: Mutex<Option<Child>>,
}

impl Guard {
    /// A guard that is started by `program`, this program itself, with the first command it has to guard.
    pub fn new(program: Option<PathBuf>) -> Guard {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let token = format!("{}-{now:x}", std::process::id());
        Guard { token, commands: AtomicU64::new(0), program, child: Mutex::new(None) }
    }

    /// Gives `command` a marker of its own, so that all of its processes end with it, and with the run.
    pub fn mark(&self, command: &mut CommandLine) {
        let number = self.commands.fetch_add(1, Ordering::SeqCst);
        if let (0, Some(program)) = (number, &self.program) {
            match start(program, &self.token) {
                Ok(child) => *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child),
                Err(error) => log::warn!(
                    "cannot start the guard of local processes, which may survive a `kill -9` of this run: {error}"
                ),
            }
        }
        command.marker = Some(format!("{}.{number}.", self.token).into());
    }
}

fn start(program: &PathBuf, token: &str) -> io::Result<Child> {
    Command::new(program)
        .args([SUBCOMMAND, token])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut child) = self.child.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        if let Some(mut stdin) = child.stdin.take() {
            // One that has ended needs no word.
            let _ = stdin.write_all(DONE);
        }
        if let Err(error) = child.wait_timeout(FAREWELL) {
            log::debug!("cannot wait for the guard: {error}");
        }
    }
}

/// The work of a guard: waits for the end of `pipe`, then kills what the run of `token` left.
pub fn watch(token: &str, mut pipe: impl Read) {
    let mut said = Vec::new();
    let read = pipe.read_to_end(&mut said);
    if read.is_err() || said != DONE {
        marked::kill_all(&format!("{token}."));
    }
}
