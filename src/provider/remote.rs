//! Sandboxes that have files of their own and run one shell script at a time. A [`Transport`] brings the script
//! there; everything else is the same for all providers of that kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender};

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::files::Discarded;
use crate::journal::{Entry, Journal};
use crate::mask::Mask;
use crate::model::Exit;
use crate::process::{Finished, Streams};
use crate::provider::{ONE_ARGUMENT, ProviderError};

mod frame;
mod line;
mod patching;
mod sandbox;

pub use frame::cut;
use line::Frame;
pub use line::SandboxEnv;
pub use patching::patch;
pub use sandbox::Remote;

/// A token of the usual length.
const TOKEN: &str = "offload-0123456789abcdef";
/// The exit status that means "try again later" (`EX_TEMPFAIL` of sysexits.h).
const TEMPFAIL: i32 = 75;
/// What services print that throttle requests.
const SLOW_DOWN: [&str; 5] =
    ["too many requests", "rate limit", "rate-limit", "resource_exhausted", "slow down"];

/// A shell script for a sandbox, with all it needs.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// For `sh -c`.
    pub line: &'a str,
    /// Variables that are not in the line, for transports that bring them another way.
    pub env: &'a [(String, String)],
    /// Where its output goes, on this machine.
    pub streams: &'a Streams,
    /// How long it may run.
    pub deadline: Duration,
}

/// Reaches the sandboxes of a provider by their ids.
pub trait Transport: Send + Sync {
    /// Runs a script to its end, its deadline, or until `cancel` is raised.
    ///
    /// # Errors
    /// When it could not be run at all; a script that ran and failed is not an error.
    fn exec(&self, id: &str, text: &Text<'_>, cancel: &Cancel) -> Result<Finished, ProviderError>;

    /// Whether variables of tests go beside the line, where no process shows them in its arguments.
    fn carries_env(&self) -> bool;

    /// Whether reports come with the output of their command, so that no other request is needed.
    fn brings_reports(&self) -> bool;

    /// Copies files out of a sandbox, pairs of remote and local, which need not exist; `None` where they come through
    /// the output of a script.
    fn copy(
        &self,
        id: &str,
        pairs: &[(PathBuf, PathBuf)],
        cancel: &Cancel,
    ) -> Option<Result<(), ProviderError>>;

    /// Waits until a sandbox may be destroyed: only so many are at the same time as this machine has processes for.
    fn turn(&self) -> Option<Turn> {
        None
    }

    /// Ends a sandbox and all that runs in it, also while the run is stopping. It is its turn.
    ///
    /// # Errors
    /// When it may still be there.
    fn destroy(&self, id: &str) -> Result<(), ProviderError>;
}

/// The turn of a sandbox to be destroyed: until it is dropped, others wait.
pub struct Turn(Receiver<()>);

impl Turn {
    /// Waits for one of the places of a bounded channel; the turn is over when that is free again.
    pub fn wait(places: &Sender<()>, taken: &Receiver<()>) -> Turn {
        // We hold both ends: neither call can fail.
        let _ = places.send(());
        Turn(taken.clone())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

/// What all sandboxes of a run share.
#[derive(Debug)]
pub struct Shared {
    /// The surroundings of commands in a sandbox.
    pub sandbox_env: SandboxEnv,
    /// What the paths of our own directories in a sandbox begin with. No two of them share a directory, since
    /// sandboxes may share a file system.
    pub prefix: PathBuf,
    /// A private directory of this machine.
    pub scratch: PathBuf,
    /// Whether files are looked for after batches.
    pub has_globs: bool,
    /// What no message may show.
    pub mask: Arc<Mask>,
    /// How long a script of ours may take.
    pub timeout: Duration,
    /// How many bytes of an argument are taken by others.
    pub taken: usize,
    run: String,
    calls: AtomicUsize,
    /// How many sandboxes have a name.
    named: AtomicUsize,
    discarded: Discarded,
}

/// What a run tells its provider; [`Shared`] is made from it.
#[derive(Clone, Debug)]
pub struct RunContext {
    /// The repository in a sandbox.
    pub repo_root: Option<String>,
    /// The directory in a sandbox in which tests run.
    pub project_root: Option<String>,
    /// Variables of test processes.
    pub env: Vec<(String, String)>,
    /// Whether files are looked for after batches.
    pub has_globs: bool,
    /// The name of the run, which no other run has.
    pub run: String,
    /// A private directory of this machine.
    pub scratch: PathBuf,
    /// What no message may show.
    pub mask: Arc<Mask>,
    /// How long each request to the provider may take.
    pub timeout: Duration,
}

impl Shared {
    /// For the run of `context`; lines hold `env`, and leave `taken` bytes of an argument free.
    pub fn new(context: &RunContext, env: Vec<(String, String)>, taken: usize) -> Shared {
        Shared {
            sandbox_env: SandboxEnv {
                repo_root: context.repo_root.clone(),
                project_root: context.project_root.clone(),
                env,
            },
            prefix: Path::new("/tmp").join(&context.run),
            scratch: context.scratch.clone(),
            has_globs: context.has_globs,
            mask: Arc::clone(&context.mask),
            timeout: context.timeout,
            taken,
            run: context.run.clone(),
            calls: AtomicUsize::new(0),
            named: AtomicUsize::new(0),
            discarded: Discarded::default(),
        }
    }

    /// The name of a sandbox that is about to be made: unique, begins with that of the run; lower case, digits and
    /// hyphens only, at most 50 characters.
    pub fn sandbox_name(&self) -> String {
        format!("{}-{}", self.run, self.named.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether any sandbox has a name: before that, none was asked for.
    pub fn has_named_sandboxes(&self) -> bool {
        self.named.load(Ordering::Relaxed) > 0
    }

    /// A file of the private directory that no other call uses.
    pub fn temporary(&self, kind: &str) -> PathBuf {
        self.scratch.join(format!("{}.{kind}", self.number()))
    }

    /// Removes files of the private directory that are no longer needed.
    pub fn forget(&self, files: &[&Path]) {
        files.iter().for_each(|file| self.discarded.add(file));
    }

    /// Whether this directory of a sandbox is ours alone.
    pub fn is_own(&self, directory: &Path) -> bool {
        directory.to_string_lossy().starts_with(&format!("{}-", self.prefix.display()))
    }

    /// A number that no other call has.
    pub fn number(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The root of the project in a sandbox. A relative one counts from where the sandbox's shell starts.
    pub fn root(&self) -> String {
        let root = self.sandbox_env.project_root.clone().filter(|root| root.starts_with('/'));
        root.unwrap_or_else(|| ".".into())
    }

    /// Whether `command` is short enough to reach a sandbox.
    pub fn takes(&self, command: &CommandLine) -> bool {
        let long = PathBuf::from(format!("{}-batch-4294967295/result.xml", self.prefix.display()));
        let frame = Frame {
            token: TOKEN,
            old: Some(&long),
            own: Some(&long),
            stamp: Some(&long),
            report: Some(&long),
            content: true,
        };
        // The word is quoted, and the line that holds it is one argument.
        let line = self.sandbox_env.line(command, &frame);
        shell_words::quote(&line).len() <= ONE_ARGUMENT.saturating_sub(self.taken)
    }
}

/// Enters the sandbox `name` of the worker `slot`, which is about to be made, in `journal`, where there is one.
///
/// # Errors
/// When that cannot be written; then it must not be made.
pub fn begin(
    journal: Option<&Arc<Journal>>,
    slot: usize,
    name: &str,
) -> Result<Option<Entry>, ProviderError> {
    let entry = journal.map(|journal| journal.begin(slot, name)).transpose();
    entry.map_err(|error| ProviderError::Refused(format!("cannot enter a sandbox in the journal: {error:#}")))
}

/// Writes the id of a sandbox that was made into its entry.
pub fn enter(entry: Option<&mut Entry>, id: &str) {
    if let Some(Err(error)) = entry.map(|entry| entry.created(id)) {
        log::warn!("the sandbox `{id}` is not in the journal: {error:#}");
    }
}

/// A shell's exit status: above 128 it stands for the signal that ended a process.
pub fn to_exit(status: i32) -> Exit {
    if (129..=128 + 64).contains(&status) { Exit::Signal(status - 128) } else { Exit::Code(status) }
}

/// Whether a failure with this exit status, or this text on stderr, means "try again later".
pub fn is_throttled(status: Option<i32>, stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    status == Some(TEMPFAIL) || SLOW_DOWN.iter().any(|word| text.contains(word))
}

/// Whether `text` is certainly one program with its arguments, so that no shell has to stay beside it: with hundreds
/// of sandboxes that saves hundreds of processes.
pub fn is_one_program(text: &str) -> bool {
    const PROGRAMS: [&str; 12] = [
        "bash", "cargo", "docker", "kubectl", "node", "npx", "podman", "python", "python3", "sh", "ssh", "uv",
    ];
    let first = text.split_whitespace().next().unwrap_or_default();
    let is_program = PROGRAMS.contains(&first) || first.starts_with('/') || first.starts_with("./");
    let mut is_quoted = false;
    let is_plain = |c: char| {
        is_quoted ^= c == '\'';
        is_quoted || !";&|<>()$`\n#\"\\*?[~!".contains(c)
    };
    is_program && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_one_program_takes_the_place_of_its_shell() {
        for text in [
            "sh provider exec {sandbox_id} {command}",
            "./run {command}",
            "docker exec {sandbox_id} sh -c {command}",
        ] {
            assert!(is_one_program(text), "{text}");
        }
        for text in [
            "cd x && sh y",
            "A=1 sh y",
            "sh x; true",
            "echo {command}",
            "sh x > y",
            "sh \"a b\"",
            "",
            "sh *.sh",
            "sh 'a' > 'b'",
        ] {
            assert!(!is_one_program(text), "{text}");
        }
    }
}
