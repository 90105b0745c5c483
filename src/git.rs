//! The user's git repository, asked through the program `git`. Nothing of it is changed but what each
//! function says; hooks do not run, nobody is prompted, the configuration stays as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::model::Exit;
use crate::process::Capture;

pub mod changes;
pub mod export;
pub mod notes;
pub mod patch;

/// How long a command may take that stays on this machine.
const LOCAL: Duration = Duration::from_secs(300);
/// What leads git to another repository, index or object store than those of its working directory, as
/// `git rev-parse --local-env-vars` lists it: hooks find them set. Settings given by the environment
/// (`GIT_CONFIG_COUNT`, `GIT_CONFIG_PARAMETERS`) stay, such as the trust and the access that a CI needs.
const LOCAL_VARIABLES: [&str; 14] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
    "GIT_INTERNAL_SUPER_PREFIX",
];
/// So many bytes of an error message are kept.
const TAIL: u64 = 2000;

/// A repository with a working tree.
#[derive(Debug)]
pub struct Repository {
    root: PathBuf,
    scratch: PathBuf,
    calls: AtomicUsize,
    cancel: Cancel,
}

/// A question to git.
#[derive(Clone, Debug, Default)]
pub struct Call {
    words: Vec<OsString>,
    /// Variables beside the usual ones.
    pub env: Vec<(String, String)>,
    /// A file to be read as standard input.
    pub input: Option<PathBuf>,
    /// A file for standard output, which is not read then: it may be larger than memory.
    pub output: Option<PathBuf>,
    /// The deadline, if not the usual one.
    pub deadline: Option<Duration>,
}

/// How git answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The exit status; -1 after a signal.
    pub code: i32,
    /// All of its standard output, unless it went to a file.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
}

impl Call {
    /// `git` with these arguments.
    pub fn new<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Call {
        Call { words: words.into_iter().map(|word| word.as_ref().to_owned()).collect(), ..Call::default() }
    }
}

impl Repository {
    /// The repository that `directory` is in; `None` without git or outside of a working tree. `scratch` is
    /// an existing private directory; `cancel` ends every question.
    pub fn find(directory: &Path, scratch: &Path, cancel: &Cancel) -> Option<Repository> {
        let scratch = tempfile::Builder::new().prefix("git-").tempdir_in(scratch).ok()?.keep();
        let mut repository = Repository {
            root: directory.to_owned(),
            scratch,
            calls: AtomicUsize::new(0),
            cancel: cancel.clone(),
        };
        let told = |error: &anyhow::Error| {
            let is_unsafe = error.to_string().contains("dubious ownership");
            let level = if is_unsafe { log::Level::Warn } else { log::Level::Debug };
            log::log!(level, "no git repository is used: {error:#}");
        };
        let top = repository.ask(&Call::new(["rev-parse", "--show-toplevel"])).inspect_err(told).ok()?;
        let top = top.strip_suffix(b"\n")?;
        repository.root = PathBuf::from(OsString::from_vec(top.to_vec()));
        Some(repository)
    }

    /// The root of the working tree, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Asks git and gives its standard output.
    ///
    /// # Errors
    /// When git cannot be run, fails, or does not end in time.
    pub fn ask(&self, call: &Call) -> Result<Vec<u8>> {
        let answer = self.try_ask(call)?;
        if answer.code != 0 {
            bail!("`{}` ended with exit code {}: {}", show(call), answer.code, answer.stderr.trim());
        }
        Ok(answer.stdout)
    }

    /// Asks git something that it may well answer with a failure.
    ///
    /// # Errors
    /// When git cannot be run or does not end in time.
    pub fn try_ask(&self, call: &Call) -> Result<Answer> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let command = self.command(call)?;
        let deadline = call.deadline.unwrap_or(LOCAL);
        let capture = Capture {
            shell: "/bin/sh",
            scratch: &self.scratch,
            stdout: call.output.as_deref(),
            deadline,
            cancel: &self.cancel,
        };
        let captured = capture.run(&command).with_context(|| format!("cannot run `{}`", show(call)))?;
        let stderr = captured.stderr_tail(TAIL);
        let stdout = match call.output {
            Some(_) => Vec::new(),
            None => {
                captured.stdout().with_context(|| format!("cannot read what `{}` printed", show(call)))?
            }
        };
        match captured.finished.exit {
            Exit::Code(code) => Ok(Answer { code, stdout, stderr }),
            Exit::Signal(_) => Ok(Answer { code: -1, stdout, stderr }),
            Exit::TimedOut => bail!("`{}` did not end within {} s", show(call), deadline.as_secs()),
            Exit::Cancelled => bail!("`{}` was cancelled", show(call)),
        }
    }

    fn command(&self, call: &Call) -> Result<CommandLine> {
        let fixed = ["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false"];
        let is_own = |name: &str| call.env.iter().any(|(key, _)| key == name);
        let foreign: Vec<&str> = LOCAL_VARIABLES.into_iter().filter(|name| !is_own(name)).collect();
        let mut line = format!("unset {}; exec git", foreign.join(" "));
        for word in fixed.iter().map(OsStr::new).chain(call.words.iter().map(OsString::as_os_str)) {
            let word = word.to_str().with_context(|| format!("`{}` is not UTF-8", word.display()))?;
            line.push(' ');
            line.push_str(&shell_words::quote(word));
        }
        if let Some(input) = &call.input {
            line.push_str(" < ");
            line.push_str(&shell_words::quote(&input.to_string_lossy()));
        }
        let mut command = CommandLine::shell(line);
        let fixed = [
            ("GIT_TERMINAL_PROMPT", "0"),
            // Instead of a window or a terminal: an answer that is empty.
            ("SSH_ASKPASS", "true"),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("LC_ALL", "C"),
            // What is recorded here is not the user's work.
            ("GIT_AUTHOR_NAME", "offload"),
            ("GIT_AUTHOR_EMAIL", "offload@localhost"),
            ("GIT_COMMITTER_NAME", "offload"),
            ("GIT_COMMITTER_EMAIL", "offload@localhost"),
        ];
        command.env = fixed.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        command.env.extend(call.env.iter().cloned());
        command.directory = Some(self.root.clone());
        Ok(command)
    }
}

fn show(call: &Call) -> String {
    let words: Vec<_> = call.words.iter().map(|word| word.to_string_lossy()).collect();
    format!("git {}", words.join(" "))
}

/// The fields of a list that git separates by NUL.
pub fn fields(bytes: &[u8]) -> impl Iterator<Item = &OsStr> {
    bytes.split(|byte| *byte == 0).filter(|field| !field.is_empty()).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_found_from_below_and_a_failure_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("repo/a b");
        std::fs::create_dir_all(&below).unwrap();
        let cancel = Cancel::new();
        assert!(Repository::find(&below, directory.path(), &cancel).is_none());
        let init = Repository {
            root: directory.path().join("repo"),
            scratch: directory.path().to_owned(),
            calls: AtomicUsize::new(0),
            cancel: cancel.clone(),
        };
        init.ask(&Call::new(["init", "-q"])).unwrap();
        let found = Repository::find(&below, directory.path(), &cancel).unwrap();
        assert_eq!(found.root(), directory.path().join("repo").canonicalize().unwrap());
        let error = found.ask(&Call::new(["rev-parse", "--verify", "HEAD"])).unwrap_err().to_string();
        assert!(error.contains("git rev-parse --verify HEAD") && error.contains("128"), "{error}");
    }

    #[test]
    fn variables_of_a_hook_lead_to_no_other_repository() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository {
            root: directory.path().to_owned(),
            scratch: directory.path().to_owned(),
            calls: AtomicUsize::new(0),
            cancel: Cancel::new(),
        };
        let call = Call {
            env: vec![("GIT_INDEX_FILE".into(), "own".into())],
            ..Call::new(["rev-parse", "--git-path", "index"])
        };
        let text = repository.command(&call).unwrap().to_shell();
        let (before, git) = text.split_once("exec git").unwrap();
        let shown = format!("{before}env; exit; exec git{git}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &shown]).envs(LOCAL_VARIABLES.map(|name| (name, "elsewhere")));
        let left = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let left: Vec<_> = left.lines().filter(|line| line.contains("elsewhere")).collect();
        assert_eq!(left, ["GIT_INDEX_FILE=elsewhere"], "that of the call");
    }

    #[test]
    fn nobody_is_asked_for_a_password() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository {
            root: directory.path().to_owned(),
            scratch: directory.path().to_owned(),
            calls: AtomicUsize::new(0),
            cancel: Cancel::new(),
        };
        let shown = repository.ask(&Call::new(["-c", "alias.shown=!env", "shown"])).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        for line in ["GIT_TERMINAL_PROMPT=0", "SSH_ASKPASS=true", "SSH_ASKPASS_REQUIRE=force"] {
            assert!(shown.lines().any(|one| one == line), "{line} is not in {shown}");
        }
    }

    #[test]
    fn lists_with_nul_are_split() {
        assert_eq!(fields(b"a\nb\0c\0").collect::<Vec<_>>(), ["a\nb", "c"]);
    }
}
