//! Short commands whose output is of interest to us.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Finished, Output, run_into};
use crate::cancel::Cancel;
use crate::command::CommandLine;

/// How commands run whose output is captured.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// The shell.
    pub shell: &'a str,
    /// An existing private directory for the output.
    pub scratch: &'a Path,
    /// A file for standard output instead.
    pub stdout: Option<&'a Path>,
    /// How long the command may take.
    pub deadline: Duration,
    /// Ends it early.
    pub cancel: &'a Cancel,
}

/// A command that has ended, and what it printed.
#[derive(Debug)]
pub struct Captured {
    /// How it ended.
    pub finished: Finished,
    stdout: File,
    stderr: File,
}

impl Capture<'_> {
    /// Runs `command` and captures what it prints. Nothing is masked.
    ///
    /// # Errors
    /// When it cannot be started. A command that starts and fails is not an error.
    pub fn run(&self, command: &CommandLine) -> io::Result<Captured> {
        let file = || {
            let in_scratch = |error| super::about(&error, "create a file in", self.scratch);
            unnamed(self.scratch).map_err(in_scratch)
        };
        let open = |path: &Path| {
            let mut options = File::options();
            let opened = options.read(true).write(true).create(true).truncate(true).open(path);
            opened.map_err(|error| super::about(&error, "create", path))
        };
        let (stdout, stderr) = (self.stdout.map_or_else(file, open)?, file()?);
        let output =
            Output { stdout: stdout.try_clone()?, stderr: stderr.try_clone()?, mask: Arc::default() };
        let finished = run_into(command, self.shell, output, self.deadline, self.cancel)?;
        Ok(Captured { finished, stdout, stderr })
    }
}

/// A file without a name. In memory if the system can do that: file systems pay for files that come and go, and
/// with 200 sandboxes that was a fifth of all processor time.
fn unnamed(directory: &Path) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    if let Ok(file) = rustix::fs::memfd_create(c"offload", rustix::fs::MemfdFlags::CLOEXEC) {
        // Else processes that write at the same time would overwrite each other: unlike in file systems, nothing
        // guards the offset that they share.
        rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::APPEND)?;
        return Ok(file.into());
    }
    tempfile::tempfile_in(directory)
}

impl Captured {
    /// All of its standard output.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub fn stdout(&self) -> io::Result<Vec<u8>> {
        read(&self.stdout, u64::MAX)
    }

    /// The last `most` bytes of its standard output; what cannot be read is left out.
    pub fn stdout_tail(&self, most: u64) -> String {
        tail(&self.stdout, most)
    }

    /// The last `most` bytes of its standard error; what cannot be read is left out.
    pub fn stderr_tail(&self, most: u64) -> String {
        tail(&self.stderr, most)
    }

    /// The last line of its standard output that is not empty, without spaces around it.
    pub fn last_line(&self) -> Option<String> {
        let text = self.stdout_tail(64 * 1024);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }
}

/// Reads without moving the offset, which a process that was left behind may still write at.
fn read(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn tail(file: &File, most: u64) -> String {
    String::from_utf8_lossy(&read(file, most).unwrap_or_default()).into_owned()
}
