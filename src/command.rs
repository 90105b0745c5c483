//! A command to be run somewhere: a program with arguments, or a text for a shell.

use std::path::PathBuf;
use std::sync::Arc;

/// What is to be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Executable {
    /// A program found on PATH, and its arguments.
    Program(Vec<String>),
    /// A text for the provider's shell.
    Shell(String),
    /// A program found on PATH, and its arguments, started with no shell in between.
    Direct(Vec<String>),
}

/// A small file that must exist before the command starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Where the command expects it; absolute.
    pub path: PathBuf,
    /// Its whole content.
    pub content: String,
}

/// A signal that asks a command to end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// For programs about which nothing is known.
    pub const USUAL: &[StopSignal] = &[StopSignal::Terminate];
}

/// A command line with all it needs, independent of where it will run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The program or the shell text.
    pub executable: Executable,
    /// Variables set on top of the environment that the command finds.
    pub env: Vec<(String, String)>,
    /// Directories put in front of PATH.
    pub prepend_path: Vec<String>,
    /// The working directory; `None` is the provider's own.
    pub directory: Option<PathBuf>,
    /// Files written before the start.
    pub files: Vec<InputFile>,
    /// Files removed before the start, so that none of an earlier run can be read as this one's.
    pub stale: Vec<PathBuf>,
    /// The signals that its process group gets when it is to end, each with a grace period before the next one;
    /// KILL comes after the last.
    pub stop: &'static [StopSignal],
    /// Identifies the processes of this command by their environment, even where they leave its process group, so
    /// that none survives when the command is ended. `None` where what leaves the group is meant to stay.
    pub marker: Option<Arc<str>>,
}

impl CommandLine {
    /// A program with its arguments. `words` must not be empty.
    pub fn program<S: Into<String>>(words: impl IntoIterator<Item = S>) -> CommandLine {
        CommandLine::of(Executable::Program(words.into_iter().map(Into::into).collect()))
    }

    /// A text for a shell.
    pub fn shell(text: impl Into<String>) -> CommandLine {
        CommandLine::of(Executable::Shell(text.into()))
    }

    /// A program with its arguments that needs no shell to be found or started. `words` must not be empty.
    pub fn direct(words: Vec<String>) -> CommandLine {
        CommandLine::of(Executable::Direct(words))
    }

    fn of(executable: Executable) -> CommandLine {
        CommandLine {
            executable,
            env: Vec::new(),
            prepend_path: Vec::new(),
            directory: None,
            files: Vec::new(),
            stale: Vec::new(),
            stop: StopSignal::USUAL,
            marker: None,
        }
    }

    /// The same command with one more variable.
    #[must_use]
    pub fn with_env(mut self, key: impl Into<String>, value: impl Into<String>) -> CommandLine {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The command as one line that sh understands, without environment and directory.
    pub fn to_shell(&self) -> String {
        match &self.executable {
            Executable::Program(words) | Executable::Direct(words) => shell_words::join(words),
            Executable::Shell(text) => text.clone(),
        }
    }
}

/// Puts values in the place of placeholders, in one pass: nothing that is put in is looked at again.
pub fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text =
        String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some(place) = rest.find('{') {
        text.push_str(&rest[..place]);
        rest = &rest[place..];
        let filled = values.iter().find_map(|(name, value)| Some((value, rest.strip_prefix(name)?)));
        let (value, after) = filled.map_or(("{", &rest[1..]), |(value, after)| (*value, after));
        text.push_str(value);
        rest = after;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_only_known_ones() {
        let values = [("{a}", "{b}"), ("{b}", "2")];
        assert_eq!(fill("x {a} ${HOME} {b}{c} {a", &values), "x {b} ${HOME} 2{c} {a");
    }
}
