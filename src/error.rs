//! How a command ends: the documented exit codes, and errors that carry one.

use std::fmt;

/// The exit codes of `offload`; there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All tests passed, or the command succeeded.
    Passed = 0,
    /// A test failed, or a discovered test has no result.
    Failed = 1,
    /// All tests passed, some of them only on a retry.
    Flaky = 2,
    /// The command line or the configuration is invalid.
    Usage = 3,
    /// Nothing could be run: discovery, the image, or every sandbox failed.
    NothingRun = 4,
    /// A signal ended the run.
    Interrupted = 130,
}

impl Status {
    /// The number given to the operating system.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command ended early: an error, its exit code, and what to do about it.
#[derive(Debug)]
pub struct Problem {
    /// The exit code.
    pub status: Status,
    /// What failed, and why.
    pub error: anyhow::Error,
    /// What the user can do, as a sentence fragment.
    pub hint: Option<String>,
}

/// `text` without control characters except line feeds and tabs: output of servers and commands must not
/// control the terminal.
pub fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
}

/// `text` on one line with escaped control characters, so that names are shown completely.
pub fn one_line(text: &str) -> String {
    let escape = |letter: char| {
        let plain = (!letter.is_control()).then_some(letter);
        plain.into_iter().chain(letter.escape_default().filter(move |_| letter.is_control()))
    };
    text.chars().flat_map(escape).collect()
}

impl Problem {
    /// A problem with the exit code `status`.
    pub fn new(status: Status, error: impl Into<anyhow::Error>) -> Problem {
        Problem { status, error: error.into(), hint: None }
    }

    /// An error in the command line or the configuration.
    pub fn usage(message: impl fmt::Display) -> Problem {
        Problem::new(Status::Usage, anyhow::anyhow!("{message}"))
    }

    /// The same problem with a `hint:` line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }
}

/// Without a more specific exit code, an error means that nothing could be run.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Problem {
        Problem::new(Status::NothingRun, error)
    }
}

#[cfg(test)]
mod tests {
    use super::{one_line, printable};

    #[test]
    fn lines_and_letters_stay_and_nothing_moves_the_cursor() {
        assert_eq!(printable("é\tone\r\n\u{1b}[2Jtwo\u{7}\0"), "é\tone\n[2Jtwo");
        assert_eq!(one_line("é\t\u{1b}[2J\r\n"), "é\\t\\u{1b}[2J\\r\\n");
    }
}
