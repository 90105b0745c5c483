//! The one place where processes are started, and ended: own process group, stdin from nowhere,
//! output streamed to files, a deadline, TERM – grace – KILL for the whole group.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, bounded};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::cancel::{Cancel, Urgency};
use crate::command::{CommandLine, Executable};
use crate::mask::{Mask, Masked};
use crate::model::Exit;

pub mod dialogue;
mod end;

use end::End;

/// How long a group may take to end after TERM.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long output or processes left by an ended child are waited for.
const LEAK_TIMEOUT: Duration = Duration::from_millis(200);
/// Stands where a long command was cut in a message.
pub const CUT: char = '…';
/// How often a waiting thread looks at the cancel flag.
const SLICE: Duration = Duration::from_millis(100);

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
    for path in &command.stale {
        remove_if_present(path)?;
    }
    for file in &command.files {
        let directory = file.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|error| about(&error, "make", directory))?;
        std::fs::write(&file.path, &file.content).map_err(|error| about(&error, "write", &file.path))?;
    }
    let mut process = to_process(command, shell);
    let outputs = [&streams.stdout, &streams.stderr];
    let mut files = Vec::with_capacity(2);
    for path in outputs {
        files.push(File::create(path).map_err(|error| about(&error, "create", path))?);
    }
    let masked = !streams.mask.is_empty();
    if masked {
        process.stdout(Stdio::piped()).stderr(Stdio::piped());
    } else {
        process.stdout(files[0].try_clone()?).stderr(files[1].try_clone()?);
    }
    let started = Instant::now();
    let mut child = process.spawn().map_err(|error| cannot_start(&error, command, shell))?;
    // The pipes' other ends, and with `process` our copies of the log files, are closed here.
    drop(process);
    let group = Pid::from_raw(child.id().cast_signed());
    let drained = if masked { drain(&mut child, files, &streams.mask) } else { Ok(Vec::new()) };
    let attended = drained.and_then(|drains| Ok((wait(&mut child, group, deadline, cancel)?, drains)));
    // Whatever goes wrong here, no process stays behind.
    let (exit, drains) = attended.inspect_err(|_| signal(group, Signal::SIGKILL))?;
    let elapsed = started.elapsed();
    let leaked = sweep(group, exit) | !finish(&drains);
    Ok(Finished { exit, elapsed, leaked })
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

/// Waits for the child itself; ends its group at the deadline or when the run is to stop.
fn wait(child: &mut Child, group: Pid, deadline: Duration, cancel: &Cancel) -> io::Result<Exit> {
    let started = Instant::now();
    let end = End::of(child);
    loop {
        let left = deadline.saturating_sub(started.elapsed());
        if let Some(status) = end.wait(child, left.min(SLICE))? {
            return Ok(to_exit(status));
        }
        let verdict = if cancel.is_raised() {
            Exit::Cancelled
        } else if started.elapsed() >= deadline {
            Exit::TimedOut
        } else {
            continue;
        };
        terminate((child, &end), group, cancel)?;
        return Ok(verdict);
    }
}

fn to_exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

/// TERM to the group, a grace, KILL to the group. The child is reaped.
fn terminate((child, end): (&mut Child, &End), group: Pid, cancel: &Cancel) -> io::Result<()> {
    signal(group, Signal::SIGTERM);
    let asked = Instant::now();
    while asked.elapsed() < GRACE && cancel.urgency() != Urgency::Forced {
        if end.wait(child, SLICE)?.is_some() && look(group) != Left::Running {
            break;
        }
        if child.try_wait()?.is_some() {
            // The child has gone, others of its group may still be busy ending.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    signal(group, Signal::SIGKILL);
    child.wait().map(drop)
}

/// Ends what an ended child left in its group; tells whether there was anything.
fn sweep(group: Pid, exit: Exit) -> bool {
    let ended = Instant::now();
    loop {
        match look(group) {
            Left::Nothing => return false,
            Left::Ended => {
                // One that was born while we looked goes with them.
                signal(group, Signal::SIGKILL);
                return false;
            }
            Left::Running if ended.elapsed() >= LEAK_TIMEOUT => {
                signal(group, Signal::SIGTERM);
                std::thread::sleep(Duration::from_millis(50));
                signal(group, Signal::SIGKILL);
                return matches!(exit, Exit::Code(_) | Exit::Signal(_));
            }
            Left::Running => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn signal(group: Pid, signal: Signal) {
    // The only possible failure is that the group has ended meanwhile.
    let _ = killpg(group, signal);
}

/// What is left of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    /// Processes that have ended, but nobody has asked how: in a container the first process, which
    /// inherits them, may do so late or never.
    Ended,
    Running,
}

fn look(group: Pid) -> Left {
    if killpg(group, None).is_err() {
        Left::Nothing
    } else if has_running(group).unwrap_or(true) {
        Left::Running
    } else {
        Left::Ended
    }
}

/// Whether a process of the group has not ended; `None` where /proc is missing or shows others' numbers.
fn has_running(group: Pid) -> Option<bool> {
    let own = std::fs::read_link("/proc/self").ok()?;
    if own != Path::new(&std::process::id().to_string()) {
        return None;
    }
    let group = group.to_string();
    let is_running = |stat: &[u8]| {
        // The name before the last parenthesis may hold anything; then: state, parent, group.
        let text = String::from_utf8_lossy(stat);
        let mut fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next();
        fields.nth(1) == Some(group.as_str()) && !matches!(state, Some("Z" | "X"))
    };
    let mut stats = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| std::fs::read(entry.path().join("stat")).ok()).flatten()
    });
    Some(stats.any(|stat| is_running(&stat)))
}

/// Copies the child's pipes through the mask into `files`; each receiver tells when a copy is done.
fn drain(child: &mut Child, files: Vec<File>, mask: &Arc<Mask>) -> io::Result<Vec<Receiver<()>>> {
    let stdout = child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let stderr = child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>);
    let mut drains = Vec::new();
    for (pipe, file) in [stdout, stderr].into_iter().flatten().zip(files) {
        let (done, receiver) = bounded(1);
        let mask = Arc::clone(mask);
        std::thread::Builder::new().name("drain".into()).spawn(move || {
            if let Err(error) = copy_masked(pipe, file, &mask) {
                log::warn!("cannot write a log file: {error}");
            }
            // Nobody may be waiting any more.
            let _ = done.send(());
        })?;
        drains.push(receiver);
    }
    Ok(drains)
}

fn copy_masked(mut pipe: Box<dyn Read + Send>, file: File, mask: &Mask) -> io::Result<()> {
    let mut masked = Masked::new(mask, file);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return masked.finish(),
            Ok(count) => masked.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether all copies end within the leak timeout.
fn finish(drains: &[Receiver<()>]) -> bool {
    let until = Instant::now() + LEAK_TIMEOUT;
    drains.iter().all(|done| done.recv_deadline(until).is_ok())
}
