//! What the stages ask of a test framework. Implementers build commands and read text; they start
//! nothing, open nothing and write nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use crate::command::{CommandLine, fill};
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Suite, TestId, TestIndex};

mod commands;
pub mod custom;
pub mod nextest;
pub mod pytest;
pub mod vitest;

pub use commands::{Commands, RunSite};

/// One command of discovery.
#[derive(Clone, Debug)]
pub struct ListCommand {
    /// The groups whose tests it lists; empty for a command that only gathers facts.
    pub groups: Vec<GroupIndex>,
    /// What to run, in the working directory.
    pub command: CommandLine,
    /// A file that the command may leave, to be handed to [`Framework::parse_list`].
    pub output: Option<PathBuf>,
}

/// What a [`ListCommand`] gave.
#[derive(Clone, Debug)]
pub struct ListOutput {
    /// How it ended.
    pub exit: Exit,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// The content of [`ListCommand::output`], where the command left such a file.
    pub file: Option<String>,
}

/// What discovery found out beside the tests: the framework's own notes to its later self.
pub type Facts = BTreeMap<String, String>;

/// One listed test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The group that lists it.
    pub group: GroupIndex,
    /// Its canonical name.
    pub id: TestId,
    /// Its file relative to the working directory.
    pub file: Option<Arc<str>>,
}

/// What [`Framework::parse_list`] read.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The tests in the framework's order.
    pub tests: Vec<Listed>,
    /// Facts for [`BatchContext::facts`]; facts of several commands are joined.
    pub facts: Facts,
    /// Files to be put into [`BatchContext::shared`], by name.
    pub shared: Vec<(String, String)>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The groups of the command could not be told apart: each is to be listed by a command of its own.
    pub separately: bool,
}

/// Where a batch runs and what is known.
#[derive(Clone, Debug)]
pub struct BatchContext<'a> {
    /// All tests.
    pub suite: &'a Suite,
    /// What discovery found out.
    pub facts: &'a Facts,
    /// The local directory with [`Listing::shared`]; `None` where sandboxes do not see this machine's files.
    pub shared: Option<&'a Path>,
    /// The root of the project in the sandbox, for `{root}`.
    pub root: &'a str,
    /// A directory private to this execution of this batch; it exists before the command starts.
    pub scratch: &'a Path,
    /// Stop the runner at its first failure.
    pub fail_fast: bool,
}

/// A command that runs a batch, and where its results will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCommand {
    /// What to run.
    pub command: CommandLine,
    /// The JUnit file it writes; `None`: the exit status is the result.
    pub report: Option<PathBuf>,
}

/// How finely the tests of one file may be spread over batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Any test may go anywhere.
    Test,
    /// The tests of a file stay in one batch: the runner selects by file.
    File,
}

/// One way to discover and run tests.
pub trait Framework: Send + Sync {
    /// The commands that list the tests of `groups`; they run side by side. `scratch` is an existing
    /// private directory for files that the commands need or leave.
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>>;

    /// Reads what one of these commands gave.
    ///
    /// # Errors
    /// When the listing may be incomplete: the command failed, or its output is not to be understood.
    /// An empty listing of a command that succeeded is not an error.
    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing>;

    /// The command that runs exactly `tests`, which all belong to `group` and stand in discovery order.
    fn run_command(&self, tests: &[TestIndex], group: GroupIndex, context: &BatchContext<'_>) -> RunCommand;

    /// Tells which tests a case of a report may stand for.
    fn matcher<'a>(&'a self, tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a>;

    /// How finely tests may be spread.
    fn grain(&self) -> Grain {
        Grain::Test
    }

    /// A command that a person would type to run `tests` again on this machine.
    fn by_hand(&self, tests: &[TestIndex], suite: &Suite) -> String;
}

/// Finds the test that a case of a report is about.
pub trait Matcher {
    /// The test, or `None` for a case that stands for no known test.
    fn find(&self, case: &Case) -> Option<TestIndex>;
    /// The name under which an unknown case is reported.
    fn name(&self, case: &Case) -> String;
    /// Whether an unknown case is worth a mention; not, for instance, what a selection left out.
    fn is_extra(&self, _case: &Case) -> bool {
        true
    }
    /// The tests that cannot have passed because this failing case, which is no test, surrounds them: a
    /// suite whose hook failed, a file that did not load.
    fn covers(&self, _case: &Case) -> Vec<TestIndex> {
        Vec::new()
    }
}

/// Fills `{name}` and `{classname}` of a `test_id_format`.
pub fn format_id(format: &str, case: &Case) -> String {
    fill(format, &[("{name}", &case.name), ("{classname}", &case.classname)])
}

/// A matcher by `test_id_format` alone.
pub struct ByFormat<'a> {
    /// All tests.
    pub suite: &'a Suite,
    /// The format with `{name}` and `{classname}`.
    pub format: &'a str,
}

impl Matcher for ByFormat<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        self.suite.find(&self.name(case))
    }

    fn name(&self, case: &Case) -> String {
        format_id(self.format, case)
    }
}

/// Says how a list command failed: its end and the last lines it wrote.
pub fn describe_failure(output: &ListOutput) -> String {
    let mut text = format!("it ended with {}", output.exit);
    for stream in [&output.stdout, &output.stderr] {
        let lines: Vec<&str> = stream.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(20)..] {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

/// What every command of a framework finds around it, as configured.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables that are taken as they are.
    pub plain: Vec<(String, String)>,
    /// Variables that win over those; `{root}` stands for the project's root.
    pub env: Vec<(String, String)>,
    /// Directories put in front of PATH; `{root}` stands for the project's root.
    pub prepend_path: Vec<String>,
}

impl Surroundings {
    /// Puts `command` into these surroundings; variables that it sets itself stay.
    pub fn apply(&self, command: &mut CommandLine, root: &str) {
        let env = self.env.iter().map(|(key, value)| (key.clone(), value.replace("{root}", root)));
        command.env.splice(0..0, self.plain.iter().cloned().chain(env));
        command
            .prepend_path
            .extend(self.prepend_path.iter().map(|directory| directory.replace("{root}", root)));
    }
}
