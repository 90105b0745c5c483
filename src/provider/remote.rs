//! Sandboxes that have files of their own and are reached by one shell text at a time. What brings the text
//! there is a [`Transport`]; all else is the same for every provider of that kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::journal::{Entry, Journal};
use crate::mask::Mask;
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

/// A token is as long as this; what it is does not matter here.
const TOKEN: &str = "offload-0123456789abcdef";
/// The exit status of a command that is to be tried later (`EX_TEMPFAIL` of sysexits.h).
const TEMPFAIL: i32 = 75;
/// What services say that want to be asked more slowly.
const SLOW_DOWN: [&str; 5] =
    ["too many requests", "rate limit", "rate-limit", "resource_exhausted", "slow down"];

/// So many files may stay that are no longer needed.
const KEPT: usize = 10_000;
/// They have so many bytes at most.
const SMALL: u64 = 4096;

/// A shell text for a sandbox, with all it needs.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// For `sh -c`.
    pub line: &'a str,
    /// Variables that are not in the line, for transports that bring them by another way.
    pub env: &'a [(String, String)],
    /// Where its output goes, on this machine.
    pub streams: &'a Streams,
    /// How long it may run.
    pub deadline: Duration,
}

/// Reaches the sandboxes of a provider by their ids.
pub trait Transport: Send + Sync {
    /// Runs a text to its end, its deadline, or until `cancel` is raised.
    ///
    /// # Errors
    /// When it could not be run at all; a text that ran and failed is not an error.
    fn exec(&self, id: &str, text: &Text<'_>, cancel: &Cancel) -> Result<Finished, ProviderError>;

    /// Whether variables of tests go beside the line, where no process shows them in its arguments.
    fn carries_env(&self) -> bool;

    /// Whether reports are to come with the output of their command, so that nothing more is asked for.
    fn brings_reports(&self) -> bool;

    /// Copies files out of a sandbox, pairs of remote and local, which need not exist; `None` where that
    /// is to be done through the output of a text.
    fn copy(
        &self,
        id: &str,
        pairs: &[(PathBuf, PathBuf)],
        cancel: &Cancel,
    ) -> Option<Result<(), ProviderError>>;

    /// Ends a sandbox and all that runs in it. No wish to stop ends this.
    ///
    /// # Errors
    /// When it may still be there.
    fn destroy(&self, id: &str) -> Result<(), ProviderError>;
}

/// What all sandboxes of a run have in common.
#[derive(Debug)]
pub struct Shared {
    /// What sandboxes know.
    pub inside: SandboxEnv,
    /// What the paths of our own directories in a sandbox begin with. None has a directory in common with another,
    /// since the file system may be that of other sandboxes, too.
    pub prefix: PathBuf,
    /// A private directory of this machine.
    pub scratch: PathBuf,
    /// Whether files are looked for after batches.
    pub has_globs: bool,
    /// What no message may show.
    pub mask: Arc<Mask>,
    /// How long a text of ours may take.
    pub timeout: Duration,
    /// So many bytes of an argument are not ours to use.
    pub taken: usize,
    calls: AtomicUsize,
    /// Files that are no longer needed and still there.
    kept: AtomicUsize,
}

/// The settings from which [`Shared`] is made.
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
    /// A name that no other run has.
    pub run: String,
    /// A private directory of this machine.
    pub scratch: PathBuf,
    /// What no message may show.
    pub mask: Arc<Mask>,
    /// How long each request to the provider may take.
    pub timeout: Duration,
}

impl Shared {
    /// What `terms` say, for lines that hold `env` and leave `taken` bytes of an argument free.
    pub fn new(terms: &RunContext, env: Vec<(String, String)>, taken: usize) -> Shared {
        Shared {
            inside: SandboxEnv {
                repo_root: terms.repo_root.clone(),
                project_root: terms.project_root.clone(),
                env,
            },
            prefix: Path::new("/tmp").join(&terms.run),
            scratch: terms.scratch.clone(),
            has_globs: terms.has_globs,
            mask: Arc::clone(&terms.mask),
            timeout: terms.timeout,
            taken,
            calls: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
        }
    }

    /// Is done with files of the private directory, which goes with the run. Most are small and stay until
    /// then: a file system that makes and removes many at once pays for it (ext4 looks for an inode that was
    /// not just removed, and with 200 sandboxes spends a tenth of all processor time on that).
    pub fn forget(&self, files: &[&Path]) {
        for file in files {
            let is_small = || file.metadata().is_ok_and(|data| data.len() <= SMALL);
            if self.kept.load(Ordering::Relaxed) < KEPT && is_small() {
                self.kept.fetch_add(1, Ordering::Relaxed);
            } else {
                // The directory goes with the run at the latest.
                let _ = std::fs::remove_file(file);
            }
        }
    }

    /// Whether nothing of the user's is in this directory of a sandbox.
    pub fn is_own(&self, directory: &Path) -> bool {
        directory.to_string_lossy().starts_with(&format!("{}-", self.prefix.display()))
    }

    /// A number that no other call has.
    pub fn number(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// The root of the project in a sandbox. What is relative counts from where the sandbox's shell starts,
    /// and tests run in it.
    pub fn root(&self) -> String {
        let root = self.inside.project_root.clone().filter(|root| root.starts_with('/'));
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
        let line = self.inside.line(command, &frame);
        shell_words::quote(&line).len() <= ONE_ARGUMENT.saturating_sub(self.taken)
    }
}

/// Enters a sandbox of the worker `slot` that is about to be made in `journal`, where there is one.
///
/// # Errors
/// When that cannot be written; then it must not be made.
pub fn begin(journal: Option<&Arc<Journal>>, slot: usize) -> Result<Option<Entry>, ProviderError> {
    let entry = journal.map(|journal| journal.begin(slot)).transpose();
    entry.map_err(|error| ProviderError::Refused(format!("cannot enter a sandbox in the journal: {error:#}")))
}

/// Writes the id of a sandbox that was made into its entry.
pub fn enter(entry: Option<&mut Entry>, id: &str) {
    if let Some(Err(error)) = entry.map(|entry| entry.created(id)) {
        log::warn!("the sandbox `{id}` is not in the journal: {error:#}");
    }
}

/// Whether a failure with this exit status, or this text, asks for patience.
pub fn is_throttled(status: Option<i32>, stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    status == Some(TEMPFAIL) || SLOW_DOWN.iter().any(|word| text.contains(word))
}

/// Whether `text` is certainly one program with its arguments, so that its shell need not stay: with
/// hundreds of sandboxes that is hundreds of processes less.
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
