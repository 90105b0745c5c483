//! The one place that starts processes, and ends them: own process group, stdin from nowhere, output
//! streamed to files, a deadline, then the signals a command wants and KILL for the whole group.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cancel::{Cancel, Urgency};
use crate::command::{CommandLine, Executable};
use crate::mask::Mask;
use crate::model::Exit;

mod capture;
pub mod dialogue;
mod drain;
mod end;
mod group;
pub mod guard;
mod marked;
mod running;

pub use capture::{Capture, Captured};
use running::{Running, Stop};

/// Stands where a long command was cut in a message.
pub const CUT: char = '…';

/// Where the output of a child goes: two files, created or emptied at the start.
#[derive(Clone, Debug)]
pub struct Streams {
    /// The file of its standard output.
    pub stdout: PathBuf,
    /// The file of its standard error.
    pub stderr: PathBuf,
    /// What must not stand in these files.
    pub mask: Arc<Mask>,
}

/// A child that has ended, with its whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: Exit,
    /// How long it ran.
    pub elapsed: Duration,
    /// Whether it left processes behind, which were then ended.
    pub leaked: bool,
}

/// Runs `command` by `shell` on this machine and waits until it has ended.
///
/// # Errors
/// When it cannot be started: the shell or the directory is missing, the arguments are too long, a
/// stream or input file cannot be made. A command that starts and fails is not an error.
pub fn run(
    command: &CommandLine,
    shell: &str,
    streams: &Streams,
    deadline: Duration,
    cancel: &Cancel,
) -> io::Result<Finished> {
    let create = |path: &Path| File::create(path).map_err(|error| about(&error, "create", path));
    let output = Output {
        stdout: create(&streams.stdout)?,
        stderr: create(&streams.stderr)?,
        mask: Arc::clone(&streams.mask),
    };
    run_into(command, shell, output, deadline, cancel)
}

/// Open files for the output of a child.
struct Output {
    stdout: File,
    stderr: File,
    mask: Arc<Mask>,
}

fn run_into(
    command: &CommandLine,
    shell: &str,
    output: Output,
    deadline: Duration,
    cancel: &Cancel,
) -> io::Result<Finished> {
    prepare_files(command)?;
    let mut process = to_process(command, shell);
    let is_masked = !output.mask.is_empty();
    if is_masked {
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
    } else {
        process.stdout(output.stdout.try_clone()?).stderr(output.stderr.try_clone()?);
    }
    let stop = Stop { signals: command.stop, marker: command.marker.as_deref(), cancel };
    // Made first: a child that cannot be waited for is not started.
    let beyond = cancel.beyond(Urgency::None)?;
    let started = Instant::now();
    let mut child = process.spawn().map_err(|error| cannot_start(&error, command, shell))?;
    // The pipes' other ends, and with `process` our copies of the log files, are closed here.
    drop(process);
    let pipes = [child.stdout.take().map(Into::into), child.stderr.take().map(Into::into)];
    let mut running = Running::new(&mut child, stop);
    let copies = if is_masked { drain::start(pipes, output) } else { Ok(Vec::new()) };
    let attended = copies.and_then(|copies| Ok((running.wait(deadline, beyond.as_deref())?, copies)));
    // Whatever goes wrong here, no process stays behind.
    let (exit, copies) = attended.inspect_err(|_| running.kill())?;
    let elapsed = started.elapsed();
    let is_left = running.sweep(exit);
    let held = copies.iter().filter(|copy| !copy.finish()).count();
    let leaked = is_left || held > 0;
    Ok(Finished { exit, elapsed, leaked })
}

fn prepare_files(command: &CommandLine) -> io::Result<()> {
    for path in &command.stale {
        remove_if_present(path)?;
    }
    for file in &command.files {
        let directory = file.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| about(&error, "make", directory))?;
        std::fs::write(&file.path, &file.content).map_err(|error| about(&error, "write", &file.path))?;
    }
    Ok(())
}

fn to_process(command: &CommandLine, shell: &str) -> Command {
    let mut process = match &command.executable {
        Executable::Direct(words) => Command::new(&words[0]),
        _ => Command::new(shell),
    };
    match &command.executable {
        Executable::Direct(words) => process.args(&words[1..]),
        Executable::Program(words) => process.args(["-c", "exec \"$@\"", shell]).args(words),
        Executable::Shell(text) => process.args(["-c", text]),
    };
    process.envs(command.env.iter().map(|(key, value)| (key, value)));
    if let Some(marker) = &command.marker {
        process.env(marked::VARIABLE, marked::with_outer(marker));
    }
    if !command.prepend_path.is_empty() {
        let mut path = command.prepend_path.join(":");
        let set = command.env.iter().rev().find(|(key, _)| key == "PATH").map(|(_, value)| value.into());
        if let Some(rest) = set.or_else(|| std::env::var_os("PATH")) {
            path.push(':');
            path.push_str(&rest.to_string_lossy());
        }
        process.env("PATH", path);
    }
    if let Some(directory) = &command.directory {
        process.current_dir(directory);
    }
    // A root without /dev still has a stdin that is at its end: a pipe that nobody writes to.
    process.stdin(if Path::new("/dev/null").exists() { Stdio::null() } else { Stdio::piped() });
    process.process_group(0);
    process
}

fn cannot_start(error: &io::Error, command: &CommandLine, shell: &str) -> io::Error {
    let mut line = command.to_shell();
    if line.len() > 200 {
        let end = (0..=200).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
        line.push(CUT);
    }
    let place =
        command.directory.as_ref().map(|path| format!(" in `{}`", path.display())).unwrap_or_default();
    io::Error::new(error.kind(), format!("cannot start `{line}` with `{shell}`{place}: {error}"))
}

fn about(error: &io::Error, verb: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} `{}`: {error}", path.display()))
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about(&error, "remove", path)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
