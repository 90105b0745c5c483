//! Runs the commands that a provider is made of, and classifies their failures.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::cancel::Cancel;
use crate::command::{self, CommandLine};
use crate::config::CommandProvider;
use crate::files;
use crate::model::Exit;
use crate::process::{self, Capture, Finished, Streams};
use crate::provider::ProviderError;
use crate::provider::patience::{destroy_with_tries, patiently};
use crate::provider::remote::{
    RunContext, Shared, Text, Transport, Turn, is_one_program, is_throttled, to_exit,
};

/// The shell of all these commands.
pub(super) const SHELL: &str = "/bin/sh";
/// The key of the command that must work whatever happens.
const DESTROY: &str = "destroy_command";
/// How many bytes of what a command printed are kept for messages.
const TAIL: u64 = 2000;
/// How many bytes of ids are read of a sweep.
const LISTED: u64 = 1 << 20;
/// However long a command may take, a run does not wait longer for a sandbox to be destroyed, or for a sweep.
const DESTRUCTION: Duration = Duration::from_secs(120);
/// How many sandboxes are destroyed at the same time.
const DESTROYED_AT_ONCE: usize = 32;

/// What a provider of shell commands is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its table of the configuration; `@name.ext` in commands is resolved, all directories to copy are there.
    pub provider: CommandProvider,
    /// The command that makes the image as it is configured: the same on every machine.
    pub recipe: String,
    /// Where commands run.
    pub directory: PathBuf,
    /// What is the same for all providers.
    pub context: RunContext,
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub(super) struct CommandOutput {
    pub(super) exit: Exit,
    /// Whether it left processes behind.
    is_leaky: bool,
    /// The last line of its standard output that is not blank.
    pub(super) last: Option<String>,
    /// The end of its standard error.
    pub(super) stderr: String,
}

impl CommandOutput {
    /// Of a command whose output was thrown away.
    fn unheard(finished: Finished) -> CommandOutput {
        let Finished { exit, leaked, .. } = finished;
        CommandOutput { exit, is_leaky: leaked, last: None, stderr: String::new() }
    }

    /// The failure, if it is one: throttled or refused. A command that was ended did not ask for patience, whatever
    /// it printed.
    pub(super) fn check(&self, key: &str) -> Result<(), ProviderError> {
        if self.exit == Exit::Code(0) {
            return Ok(());
        }
        let message = complaint(key, self.exit, &self.stderr);
        match self.exit {
            Exit::Code(status) if is_throttled(Some(status), &self.stderr) => {
                Err(ProviderError::Throttled(message))
            }
            _ => Err(ProviderError::Refused(message)),
        }
    }

    /// Whether a signal ended it, so that what it asked for may go on without it. A shell reports a signal of its
    /// child as an exit status.
    pub(super) fn was_ended(&self) -> bool {
        match self.exit {
            Exit::Code(status) => matches!(to_exit(status), Exit::Signal(_)),
            Exit::Signal(_) | Exit::TimedOut | Exit::Cancelled => true,
        }
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
    // The reason why an image could not be made may stand far up.
    let most = if key == "prepare_command" || key == "patch_command" { 20 } else { 3 };
    let reason = lines[lines.len().saturating_sub(most)..].join(if most > 3 { "\n    " } else { "; " });
    if reason.is_empty() { format!("`{key}` {how}") } else { format!("`{key}` {how}: {reason}") }
}

/// A configured command with its placeholders filled.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    /// The key of the configuration.
    pub(super) key: &'static str,
    pub(super) text: String,
    /// Whether it is one program with its arguments. More quoted words may be appended.
    is_plain: bool,
}

/// Runs commands for a provider and all of its sandboxes.
pub(super) struct Shell {
    pub(super) settings: Settings,
    pub(super) shared: Arc<Shared>,
    /// Permissions to destroy: as many as may be in use at once.
    destroying: (Sender<()>, Receiver<()>),
}

impl Shell {
    pub(super) fn new(settings: Settings) -> Shell {
        let taken = settings.provider.exec_command.len() + 500;
        let shared = Shared::new(&settings.context, settings.context.env.clone(), taken);
        Shell { shared: Arc::new(shared), settings, destroying: bounded(DESTROYED_AT_ONCE) }
    }

    pub(super) fn cores(&self) -> String {
        self.settings.provider.cpu_cores.to_string()
    }

    /// Fills the placeholders of `template`, the command of `key`: those that all commands know, and `values`.
    pub(super) fn fill(&self, key: &'static str, template: &str, values: &[(&str, &str)]) -> Filled {
        let cores = self.cores();
        let mut all = vec![("{cpu_cores}", &*cores), ("{run_name}", &*self.settings.context.run)];
        all.extend(values);
        Filled { key, text: command::fill(template, &all), is_plain: is_one_program(template) }
    }

    /// Runs `filled`; its standard output goes to `stdout`, if that is given.
    ///
    /// # Errors
    /// `Refused` where it cannot be started. [`CommandOutput::check`] tells how a command that started failed.
    pub(super) fn run(
        &self,
        filled: &Filled,
        stdout: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<CommandOutput, ProviderError> {
        self.run_within(self.shared.timeout, filled, stdout, cancel)
    }

    fn run_within(
        &self,
        deadline: Duration,
        filled: &Filled,
        stdout: Option<&Path>,
        cancel: &Cancel,
    ) -> Result<CommandOutput, ProviderError> {
        let Filled { key, text, .. } = filled;
        log::debug!("{key}: {}", self.shared.mask.hide(text));
        let command = self.command(filled);
        // Nobody reads what it prints but us; what is shown of it is masked.
        let capture = Capture { shell: SHELL, scratch: &self.shared.scratch, stdout, deadline, cancel };
        let output = match capture.run(&command) {
            Ok(captured) => CommandOutput {
                exit: captured.finished.exit,
                is_leaky: captured.finished.leaked,
                last: captured.last_line(),
                stderr: self.shared.mask.hide_tail(&captured.stderr_tail(TAIL), TAIL),
            },
            // A full disk has no room for what it prints, and that is no reason to keep a sandbox.
            Err(_) if *key == DESTROY => {
                let nowhere = || PathBuf::from("/dev/null");
                let unheard = Streams { stdout: nowhere(), stderr: nowhere(), mask: Arc::default() };
                let finished = process::run(&command, SHELL, &unheard, deadline, cancel);
                finished.map(CommandOutput::unheard).map_err(|error| self.cannot_start(key, &error))?
            }
            Err(error) => return Err(self.cannot_start(key, &error)),
        };
        if output.is_leaky {
            log::warn!(
                "`{key}` left processes behind, which were ended; what is to stay must leave its process \
                 group (`setsid`)"
            );
        }
        Ok(output)
    }

    fn cannot_start(&self, key: &str, error: &std::io::Error) -> ProviderError {
        ProviderError::Refused(self.shared.mask.hide_before(process::CUT, &format!("`{key}`: {error}")))
    }

    /// Runs a command that destroys something, several times if need be.
    fn run_destroy(&self, filled: &Filled, stdout: Option<&Path>) -> Result<(), ProviderError> {
        let deadline = DESTRUCTION.min(self.shared.timeout);
        let never = Cancel::new();
        destroy_with_tries(deadline, || self.run_within(deadline, filled, stdout, &never)?.check(filled.key))
    }

    /// Whether it can destroy sandboxes whose ids are not known.
    pub(super) fn can_sweep(&self) -> bool {
        self.settings.provider.sweep_command.is_some()
    }

    /// Whether `line`, the last that a create printed before it was ended, is the id of the sandbox `name`. Where
    /// sandboxes can be found by a name, nothing else is trusted.
    pub(super) fn is_id(&self, line: &str, name: &str) -> bool {
        let is_named = self.settings.provider.create_command.contains("{sandbox_name}");
        line == name || !(is_named || self.can_sweep())
    }

    /// Destroys what carries the name of the run, and gives the ids; `None` where there is no command for that.
    pub(super) fn sweep(&self) -> Option<Result<Vec<String>, ProviderError>> {
        let template = self.settings.provider.sweep_command.as_ref()?;
        let output = self.shared.temporary("sweep.stdout");
        let swept = self.run_destroy(&self.fill("sweep_command", template, &[]), Some(&output));
        let text = files::tail(&output, LISTED);
        self.shared.forget(&[&output]);
        let ids = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Some(swept.map(|()| ids))
    }

    /// The variables of all commands that decide what they do: `prepare_command` gets them, and they are part of
    /// the recipe of its image. (The name of the run is another one each time.)
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        let root = self.settings.context.repo_root.iter();
        root.map(|root| ("OFFLOAD_REPO_ROOT".to_owned(), root.clone())).collect()
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
        let mut command = command.with_env("OFFLOAD_RUN_ID", &self.settings.context.run);
        command.env.extend(self.variables());
        command.directory = Some(directory.clone());
        command
    }
}

impl Transport for Shell {
    fn exec(&self, id: &str, text: &Text<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        let (id, line) = (shell_words::quote(id), shell_words::quote(text.line));
        let values = [("{sandbox_id}", &*id), ("{command}", &*line)];
        let command = self.command(&self.fill("exec_command", &self.settings.provider.exec_command, &values));
        let deadline = text.deadline.min(self.shared.timeout);
        process::run(&command, SHELL, text.streams, deadline, cancel).map_err(|error| match error.kind() {
            ErrorKind::ArgumentListTooLong | ErrorKind::InvalidInput => {
                ProviderError::Refused(self.shared.mask.hide_before(process::CUT, &error.to_string()))
            }
            _ => ProviderError::Lost(self.shared.mask.hide_before(process::CUT, &error.to_string())),
        })
    }

    fn carries_env(&self) -> bool {
        // The environment rides inside `{command}`.
        false
    }

    fn brings_reports(&self) -> bool {
        self.settings.provider.download_command.is_none()
    }

    fn copy(
        &self,
        id: &str,
        pairs: &[(PathBuf, PathBuf)],
        cancel: &Cancel,
    ) -> Option<Result<(), ProviderError>> {
        let template = self.settings.provider.download_command.as_ref()?;
        let words = pairs.iter().map(|(remote, local)| {
            shell_words::quote(&format!("{}:{}", remote.display(), local.display())).into_owned()
        });
        let paths: Vec<String> = words.collect();
        let quoted = shell_words::quote(id);
        let values = [("{sandbox_id}", &*quoted), ("{paths}", &*paths.join(" "))];
        let filled = self.fill("download_command", template, &values);
        let copied = patiently(cancel, || self.run(&filled, None, cancel)?.check(filled.key));
        Some(copied.map_err(|error| {
            log::debug!("`{id}`: {error}");
            ProviderError::Lost(error.to_string())
        }))
    }

    fn turn(&self) -> Option<Turn> {
        Some(Turn::wait(&self.destroying.0, &self.destroying.1))
    }

    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        let quoted = shell_words::quote(id);
        let template = &self.settings.provider.destroy_command;
        self.run_destroy(&self.fill(DESTROY, template, &[("{sandbox_id}", &*quoted)]), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        let output =
            |exit, stderr: &str| CommandOutput { exit, is_leaky: false, last: None, stderr: stderr.into() };
        let check = |exit, stderr: &str| output(exit, stderr).check("create_command");
        assert_eq!(check(Exit::Code(0), "Rate limit"), Ok(()));
        assert!(matches!(check(Exit::Code(75), ""), Err(ProviderError::Throttled(_))));
        assert!(matches!(check(Exit::Code(1), "429 Too Many Requests"), Err(ProviderError::Throttled(_))));
        assert!(matches!(check(Exit::TimedOut, "rate limit"), Err(ProviderError::Refused(_))));
        let ended = |exit| output(exit, "").was_ended();
        assert!([Exit::TimedOut, Exit::Cancelled, Exit::Signal(9), Exit::Code(143)].into_iter().all(ended));
        assert!(![Exit::Code(0), Exit::Code(1), Exit::Code(75), Exit::Code(255)].into_iter().any(ended));
        let Err(ProviderError::Refused(message)) = check(Exit::Code(1), "a\n\nb\nc\nno quota\n") else {
            panic!()
        };
        assert_eq!(message, "`create_command` ended with exit code 1: b; c; no quota");
    }
}
