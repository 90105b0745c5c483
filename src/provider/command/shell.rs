//! Runs the commands that a provider is made of, and tells its failures apart.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::cancel::Cancel;
use crate::command::{self, CommandLine};
use crate::files;
use crate::mask::Mask;
use crate::model::Exit;
use crate::process::{self, Finished, Streams};
use crate::provider::ProviderError;
use crate::provider::patience::patiently;
use crate::provider::remote::{RunContext, Shared, Text, Transport, is_one_program, is_throttled};

/// The shell of all these commands.
pub(super) const SHELL: &str = "/bin/sh";
/// The key of the command that must work whatever happens.
const DESTROY: &str = "destroy_command";
/// So many bytes of what a command printed are kept for messages.
const TAIL: u64 = 2000;
/// However long a command may take, a run does not wait longer for its sandboxes to be destroyed.
const DESTRUCTION: Duration = Duration::from_secs(120);
/// A provider that does not want to destroy yet is asked for so long.
const PATIENCE: Duration = Duration::from_secs(30);
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
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Cores of one sandbox.
    pub cpu_cores: f64,
    /// What is the same for all providers.
    pub terms: RunContext,
}

/// What a command said.
#[derive(Clone, Debug)]
pub(super) struct CommandOutput {
    pub(super) exit: Exit,
    /// The last line of its standard output that is not empty.
    pub(super) last: Option<String>,
    /// The end of its standard error.
    pub(super) stderr: String,
}

impl CommandOutput {
    /// The failure, if it is one, as a refusal or a wish for patience.
    pub(super) fn check(&self, key: &str) -> Result<(), ProviderError> {
        if self.exit == Exit::Code(0) {
            return Ok(());
        }
        let message = complaint(key, self.exit, &self.stderr);
        let status = if let Exit::Code(status) = self.exit { Some(status) } else { None };
        Err(if is_throttled(status, &self.stderr) {
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

/// A configured command with its places filled.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Whether it is one program with its arguments. More quoted words may be appended.
    is_plain: bool,
}

/// Fills the places of `template`.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> Filled {
    Filled { text: command::fill(template, values), is_plain: is_one_program(template) }
}

/// Runs commands for a provider and all of its sandboxes.
pub(super) struct Shell {
    pub(super) settings: Settings,
    pub(super) common: Arc<Shared>,
    /// Permissions to destroy: as many as may be in use at once.
    destroying: (Sender<()>, Receiver<()>),
}

impl Shell {
    pub(super) fn new(settings: Settings) -> Shell {
        let taken = settings.commands.exec.len() + 500;
        let common = Shared::new(&settings.terms, settings.terms.env.clone(), taken);
        Shell { common: Arc::new(common), settings, destroying: bounded(DESTROYED_AT_ONCE) }
    }

    pub(super) fn cores(&self) -> String {
        self.settings.cpu_cores.to_string()
    }

    /// Runs `filled`, the command of `key`; its standard output goes to `stdout`, if that is given.
    ///
    /// # Errors
    /// `Refused` where it cannot be started. What started and failed is told by [`CommandOutput::check`].
    pub(super) fn run(
        &self,
        key: &str,
        filled: &Filled,
        stdout: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<CommandOutput, ProviderError> {
        self.run_within(key, filled, (stdout, self.common.timeout), cancel)
    }

    fn run_within(
        &self,
        key: &str,
        filled: &Filled,
        (stdout, deadline): (Option<&Path>, Duration),
        cancel: &Cancel,
    ) -> Result<CommandOutput, ProviderError> {
        let number = self.common.number();
        let file = |kind: &str| self.common.scratch.join(format!("command-{number}.{kind}"));
        let (own, stderr) = (file("stdout"), file("stderr"));
        // Nobody reads these files but us; what is shown of them is masked.
        let streams =
            Streams { stdout: stdout.unwrap_or(&own).to_owned(), stderr, mask: Arc::new(Mask::default()) };
        log::debug!("{key}: {}", self.common.mask.hide(&filled.text));
        let command = self.command(filled);
        let deadline = deadline.min(self.common.timeout);
        let mut finished = process::run(&command, SHELL, &streams, deadline, cancel);
        if finished.is_err() && key == DESTROY {
            // A full disk has no room for what it prints, and that is no reason to keep a sandbox.
            let nowhere = || PathBuf::from("/dev/null");
            let unheard = Streams { stdout: nowhere(), stderr: nowhere(), mask: Arc::default() };
            finished = process::run(&command, SHELL, &unheard, deadline, cancel);
        }
        let finished = finished
            .map_err(|error| self.common.mask.hide_before(process::CUT, &format!("`{key}`: {error}")))
            .map_err(ProviderError::Refused)?;
        if finished.leaked {
            log::warn!(
                "`{key}` left processes behind, which were ended; what is to stay must leave its process \
                 group (`setsid`)"
            );
        }
        let last = last_line(&streams.stdout);
        let stderr = self.common.mask.hide_tail(&files::tail(&streams.stderr, TAIL), TAIL);
        self.common.forget(&[&own, &streams.stderr]);
        Ok(CommandOutput { exit: finished.exit, last, stderr })
    }

    /// `filled` as a command in the provider's directory: without a shell where it needs none, since with
    /// hundreds of sandboxes each start of a process counts.
    fn command(&self, filled: &Filled) -> CommandLine {
        let directory = &self.settings.directory;
        let words = filled.is_plain.then(|| shell_words::split(&filled.text).ok()).flatten();
        let command = match words {
            Some(mut words) if !words.is_empty() => {
                if words[0].contains('/') {
                    // Whose directory a relative program counts from is not certain otherwise.
                    words[0] = directory.join(&words[0]).to_string_lossy().into_owned();
                }
                CommandLine::direct(words)
            }
            _ => CommandLine::shell(&filled.text),
        };
        let mut command = command.with_env("OFFLOAD_RUN_ID", &self.settings.terms.run);
        if let Some(root) = &self.settings.terms.repo_root {
            command = command.with_env("OFFLOAD_REPO_ROOT", root);
        }
        command.directory = Some(directory.clone());
        command
    }
}

impl Transport for Shell {
    fn exec(&self, id: &str, text: &Text<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        let (id, line) = (shell_words::quote(id), shell_words::quote(text.line));
        let values = [("{sandbox_id}", &*id), ("{command}", &*line), ("{cpu_cores}", &*self.cores())];
        let command = self.command(&fill(&self.settings.commands.exec, &values));
        let deadline = text.deadline.min(self.common.timeout);
        process::run(&command, SHELL, text.streams, deadline, cancel).map_err(|error| match error.kind() {
            ErrorKind::ArgumentListTooLong | ErrorKind::InvalidInput => {
                ProviderError::Refused(self.common.mask.hide_before(process::CUT, &error.to_string()))
            }
            _ => ProviderError::Lost(self.common.mask.hide_before(process::CUT, &error.to_string())),
        })
    }

    fn carries_env(&self) -> bool {
        // The environment rides inside `{command}`.
        false
    }

    fn brings_reports(&self) -> bool {
        self.settings.commands.download.is_none()
    }

    fn copy(
        &self,
        id: &str,
        pairs: &[(PathBuf, PathBuf)],
        cancel: &Cancel,
    ) -> Option<Result<(), ProviderError>> {
        let template = self.settings.commands.download.as_ref()?;
        let words = pairs.iter().map(|(remote, local)| {
            shell_words::quote(&format!("{}:{}", remote.display(), local.display())).into_owned()
        });
        let paths: Vec<String> = words.collect();
        let quoted = shell_words::quote(id);
        let values =
            [("{sandbox_id}", &*quoted), ("{paths}", &*paths.join(" ")), ("{cpu_cores}", &*self.cores())];
        let text = fill(template, &values);
        let copied = patiently(cancel, || {
            self.run("download_command", &text, None, cancel)?.check("download_command")
        });
        Some(copied.map_err(|error| ProviderError::Lost(format!("sandbox `{id}`: {error}"))))
    }

    /// Tries three times, or once if it hangs.
    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        // Both ends live as long as we do: neither call can fail.
        let _ = self.destroying.0.send(());
        let quoted = shell_words::quote(id);
        let values = [("{sandbox_id}", &*quoted), ("{cpu_cores}", &*self.cores())];
        let text = fill(&self.settings.commands.destroy, &values);
        let never = Cancel::new();
        let began = Instant::now();
        let mut result = Ok(());
        for _ in 0..TRIES {
            let mut is_hung = false;
            result = patiently(&never, || {
                let said = self.run_within(DESTROY, &text, (None, DESTRUCTION), &never)?;
                is_hung = said.exit == Exit::TimedOut;
                match said.check(DESTROY) {
                    Err(ProviderError::Throttled(message)) if began.elapsed() >= PATIENCE => {
                        is_hung = true;
                        Err(ProviderError::Refused(message))
                    }
                    result => result,
                }
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
        assert_eq!(fill("x {a} ${HOME} {b}{c} {a", &values).text, "x {b} ${HOME} 2{c} {a");
    }

    #[test]
    fn failures_are_told_apart() {
        let said = |exit, stderr: &str| {
            CommandOutput { exit, last: None, stderr: stderr.into() }.check("create_command")
        };
        assert_eq!(said(Exit::Code(0), "Rate limit"), Ok(()));
        assert!(matches!(said(Exit::Code(75), ""), Err(ProviderError::Throttled(_))));
        assert!(matches!(said(Exit::Code(1), "429 Too Many Requests"), Err(ProviderError::Throttled(_))));
        let Err(ProviderError::Refused(message)) = said(Exit::Code(1), "a\n\nb\nc\nno quota\n") else {
            panic!()
        };
        assert_eq!(message, "`create_command` ended with exit code 1: b; c; no quota");
    }
}
