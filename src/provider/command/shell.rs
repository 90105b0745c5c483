//! Runs the commands that a provider is made of, and tells its failures apart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::line::Inside;
use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::files;
use crate::mask::Mask;
use crate::model::Exit;
use crate::process::{self, Streams};
use crate::provider::ProviderError;
use crate::provider::patience::patiently;

/// The shell of all these commands.
pub(super) const SHELL: &str = "/bin/sh";
/// So many bytes of what a command printed are kept for messages.
const TAIL: u64 = 2000;
/// The exit status of a command that is to be tried later (`EX_TEMPFAIL` of sysexits.h).
const TEMPFAIL: i32 = 75;
/// What services say that want to be asked more slowly.
const SLOW_DOWN: [&str; 5] =
    ["too many requests", "rate limit", "rate-limit", "resource_exhausted", "slow down"];
/// However long a command may take, a run does not wait longer for its sandboxes to be destroyed.
const DESTRUCTION: Duration = Duration::from_secs(120);
/// So often the destruction of a sandbox is tried.
const TRIES: u32 = 3;
/// So many sandboxes are destroyed at once.
const DESTROYED_AT_ONCE: usize = 32;

/// The commands of a provider; `@name.ext` in them is resolved.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    /// Makes the image.
    pub prepare: Option<String>,
    /// Makes an image from another one and a difference.
    pub patch: Option<String>,
    /// Makes a sandbox.
    pub create: String,
    /// Runs a command in a sandbox.
    pub exec: String,
    /// Destroys a sandbox.
    pub destroy: String,
    /// Copies files out of a sandbox.
    pub download: Option<String>,
}

/// What a provider of shell commands is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The commands.
    pub commands: Commands,
    /// The command that makes the image as it is configured: the same on every machine.
    pub recipe: String,
    /// Where they run.
    pub directory: PathBuf,
    /// How long each may take.
    pub timeout: Duration,
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Cores of one sandbox.
    pub cpu_cores: f64,
    /// The repository in a sandbox.
    pub repo_root: Option<String>,
    /// The folder in a sandbox in which tests run.
    pub project_root: Option<String>,
    /// Variables of test processes.
    pub env: Vec<(String, String)>,
    /// Whether files are looked for after batches.
    pub has_globs: bool,
    /// A name that no other run has.
    pub run: String,
    /// A private folder of this machine.
    pub scratch: PathBuf,
    /// What no message may show.
    pub mask: Arc<Mask>,
}

/// What a command said.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) exit: Exit,
    /// The last line of its standard output that is not empty.
    pub(super) last: Option<String>,
    /// The end of its standard error.
    pub(super) stderr: String,
}

impl Said {
    /// The failure, if it is one, as a refusal or a wish for patience.
    pub(super) fn check(&self, key: &str) -> Result<(), ProviderError> {
        if self.exit == Exit::Code(0) {
            return Ok(());
        }
        let message = complaint(key, self.exit, &self.stderr);
        Err(if is_throttled(self.exit, &self.stderr) {
            ProviderError::Throttled(message)
        } else {
            ProviderError::Refused(message)
        })
    }
}

/// What went wrong with a command.
pub(super) fn complaint(key: &str, exit: Exit, stderr: &str) -> String {
    let how = match exit {
        Exit::TimedOut => "did not end in time (`timeout_secs`)".to_owned(),
        Exit::Cancelled => "was ended before it was done".to_owned(),
        exit => format!("ended with {exit}"),
    };
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    // What made an image fail may be long ago.
    let most = if key == "prepare_command" || key == "patch_command" { 20 } else { 3 };
    let said = lines[lines.len().saturating_sub(most)..].join(if most > 3 { "\n    " } else { "; " });
    if said.is_empty() { format!("`{key}` {how}") } else { format!("`{key}` {how}: {said}") }
}

/// Whether `text` is certainly one program with its arguments, so that its shell need not stay: with
/// hundreds of sandboxes that is hundreds of processes less.
pub(super) fn is_one_program(text: &str) -> bool {
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

/// Whether a failure asks for patience.
pub(super) fn is_throttled(exit: Exit, stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    exit == Exit::Code(TEMPFAIL) || SLOW_DOWN.iter().any(|word| text.contains(word))
}

/// Fills the places of `template` in one pass, so that nothing is looked for in what was filled in.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        let (before, place) = rest.split_at(start);
        text.push_str(before);
        let known = values.iter().find(|(name, _)| place.starts_with(name));
        let length = match known {
            Some((name, value)) => {
                text.push_str(value);
                name.len()
            }
            None => {
                text.push('{');
                1
            }
        };
        rest = &place[length..];
    }
    text + rest
}

/// Runs commands for a provider and all of its sandboxes.
pub(super) struct Shell {
    pub(super) settings: Settings,
    /// What the paths of our own folders in a sandbox begin with. None has a folder in common with another,
    /// since the file system may be that of other sandboxes, too.
    pub(super) remote: PathBuf,
    /// What sandboxes know.
    pub(super) inside: Inside,
    calls: AtomicUsize,
    /// Permissions to destroy: as many as may be in use at once.
    destroying: (Sender<()>, Receiver<()>),
}

impl Shell {
    pub(super) fn new(mut settings: Settings) -> Shell {
        let commands = &mut settings.commands;
        for command in [&mut commands.create, &mut commands.exec, &mut commands.destroy] {
            if is_one_program(command) {
                *command = format!("exec {command}");
            }
        }
        let remote = Path::new("/tmp").join(&settings.run);
        let inside = Inside {
            repo_root: settings.repo_root.clone(),
            project_root: settings.project_root.clone(),
            env: settings.env.clone(),
        };
        Shell { remote, inside, settings, calls: AtomicUsize::new(0), destroying: bounded(DESTROYED_AT_ONCE) }
    }

    /// A number that no other call has.
    pub(super) fn number(&self) -> usize {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn cores(&self) -> String {
        self.settings.cpu_cores.to_string()
    }

    /// Runs `text`, the command of `key`; its standard output goes to `stdout`, if that is given.
    ///
    /// # Errors
    /// `Refused` where it cannot be started. What started and failed is told by [`Said::check`].
    pub(super) fn run(
        &self,
        key: &str,
        text: String,
        stdout: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<Said, ProviderError> {
        self.run_within(key, text, (stdout, self.settings.timeout), cancel)
    }

    fn run_within(
        &self,
        key: &str,
        text: String,
        (stdout, deadline): (Option<&Path>, Duration),
        cancel: &Cancel,
    ) -> Result<Said, ProviderError> {
        let number = self.number();
        let file = |kind: &str| self.settings.scratch.join(format!("command-{number}.{kind}"));
        let (own, stderr) = (file("stdout"), file("stderr"));
        // Nobody reads these files but us; what is shown of them is masked.
        let streams =
            Streams { stdout: stdout.unwrap_or(&own).to_owned(), stderr, mask: Arc::new(Mask::default()) };
        log::debug!("{key}: {}", self.settings.mask.hide(&text));
        let command = self.command(text);
        let finished = process::run(&command, SHELL, &streams, deadline.min(self.settings.timeout), cancel)
            .map_err(|error| ProviderError::Refused(format!("`{key}`: {error}")))?;
        let last = last_line(&streams.stdout);
        let stderr = self.settings.mask.hide(&files::tail(&streams.stderr, TAIL));
        for path in [&own, &streams.stderr] {
            // The folder goes with the run at the latest.
            let _ = std::fs::remove_file(path);
        }
        Ok(Said { exit: finished.exit, last, stderr })
    }

    /// `text` as a command in the provider's folder.
    pub(super) fn command(&self, text: String) -> CommandLine {
        let mut command = CommandLine::shell(text).with_env("OFFLOAD_RUN_ID", &self.settings.run);
        command.directory = Some(self.settings.directory.clone());
        command
    }

    /// Destroys a sandbox; tries three times, or once if it hangs. A wish to stop does not end it.
    pub(super) fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        // Both ends live as long as we do: neither call can fail.
        let _ = self.destroying.0.send(());
        let quoted = shell_words::quote(id);
        let values = [("{sandbox_id}", &*quoted), ("{cpu_cores}", &*self.cores())];
        let text = fill(&self.settings.commands.destroy, &values);
        let never = Cancel::new();
        let mut result = Ok(());
        for _ in 0..TRIES {
            let mut is_hung = false;
            result = patiently(&never, || {
                let said = self.run_within("destroy_command", text.clone(), (None, DESTRUCTION), &never)?;
                is_hung = said.exit == Exit::TimedOut;
                said.check("destroy_command")
            });
            if result.is_ok() || is_hung {
                break;
            }
        }
        let _ = self.destroying.1.recv();
        result
    }
}

/// The last line of a file that is not empty, without spaces around it.
pub(super) fn last_line(path: &Path) -> Option<String> {
    let text = files::tail(path, 64 * 1024);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once_and_only_known_ones() {
        let values = [("{a}", "{b}"), ("{b}", "2")];
        assert_eq!(fill("x {a} ${HOME} {b}{c} {a", &values), "x {b} ${HOME} 2{c} {a");
    }

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

    #[test]
    fn failures_are_told_apart() {
        let said =
            |exit, stderr: &str| Said { exit, last: None, stderr: stderr.into() }.check("create_command");
        assert_eq!(said(Exit::Code(0), "Rate limit"), Ok(()));
        assert!(matches!(said(Exit::Code(75), ""), Err(ProviderError::Throttled(_))));
        assert!(matches!(said(Exit::Code(1), "429 Too Many Requests"), Err(ProviderError::Throttled(_))));
        let Err(ProviderError::Refused(message)) = said(Exit::Code(1), "a\n\nb\nc\nno quota\n") else {
            panic!()
        };
        assert_eq!(message, "`create_command` ended with exit code 1: b; c; no quota");
    }
}
