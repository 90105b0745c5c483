//! What the stages need from a test framework. Implementations build commands and parse text; they start no processes
//! and do not touch files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::{CommandLine, fill};
use crate::event::ReportFile;
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

pub use crate::model::Listed;

mod commands;
pub mod custom;
pub mod nextest;
pub mod pytest;
pub mod vitest;

pub use commands::{Commands, Place, RunSite};

/// A command of discovery.
#[derive(Clone, Debug)]
pub struct ListCommand {
    /// The groups whose tests it lists; empty if it only gathers facts.
    pub groups: Vec<GroupIndex>,
    /// What to run.
    pub command: CommandLine,
    /// A file that the command may write, for [`Framework::parse_list`].
    pub output: Option<PathBuf>,
}

/// The output of a [`ListCommand`].
#[derive(Clone, Debug)]
pub struct ListOutput {
    /// How it ended.
    pub exit: Exit,
    /// All of its stdout; only the end if there is a `file`.
    pub stdout: String,
    /// The end of its stderr.
    pub stderr: String,
    /// The content of [`ListCommand::output`], if the command wrote it.
    pub file: Option<String>,
}

/// What a framework learned during discovery and needs for batches.
pub type Facts = BTreeMap<String, String>;

/// A file that its tool could not load, although it runs the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file, as in [`Listed::file`].
    pub file: String,
    /// What the tool says of it, possibly several lines.
    pub message: String,
}

/// The result of [`Framework::parse_list`].
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The tests in the framework's order.
    pub tests: Vec<Listed>,
    /// What this listing saw: its root, configuration, and all filters that do more than select. Tests that two
    /// listings call by the same native ID are one test only if this is the same.
    pub collection: String,
    /// Facts for the [`BatchContext::facts`] of its groups; of all groups if it has none.
    pub facts: Facts,
    /// Files that did not load; the run fails, but its other tests run.
    pub errors: Vec<LoadError>,
    /// The names and contents of files for [`BatchContext::shared`].
    pub shared: Vec<(String, String)>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
    /// The output does not tell which group lists a test, so each group needs its own command.
    pub separately: bool,
}

/// Where a batch runs, and what is known about its tests.
#[derive(Clone, Debug)]
pub struct BatchContext<'a> {
    /// All tests.
    pub suite: &'a Suite,
    /// The group of the tests.
    pub group: GroupIndex,
    /// The facts from the discovery of this group.
    pub facts: &'a Facts,
    /// The local directory with [`Listing::shared`]; `None` if sandboxes do not see this machine's files.
    pub shared: Option<&'a Path>,
    /// The root of the project in the sandbox, for `{root}`.
    pub root: &'a str,
    /// A private directory for this execution; it exists before the command starts.
    pub scratch: &'a Path,
    /// Whether the runner should stop at its first failure.
    pub fail_fast: bool,
}

/// A command that runs a batch, and the location of its results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCommand {
    /// What to run.
    pub command: CommandLine,
    /// The file it writes; if `None`, the exit status is the result.
    pub report: Option<ReportFile>,
}

/// Files that came with the results of the batches of one collection, in their records.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// Their name in the records.
    pub name: &'a str,
    /// A directory on this machine that has only these files, one for each batch that brought one.
    pub directory: &'a Path,
    /// A private directory on this machine.
    pub scratch: &'a Path,
    /// The first group of the collection.
    pub group: &'a Group,
    /// Its facts.
    pub facts: &'a Facts,
}

/// A test that has a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran<'a> {
    /// What its tool calls it.
    pub native: &'a str,
    /// Whether it failed.
    pub has_failed: bool,
}

/// What a runner means by an exit status that is not 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// It does not say: a failed test explains it, or something else that happened does.
    #[default]
    Unknown,
    /// Tests failed, and nothing else went wrong.
    TestsFailed,
    /// Something else than a failed test; in words, if there are any.
    Broken(Option<&'static str>),
    /// It could not begin, and would not with fewer tests either; in words.
    Refused(&'static str),
}

impl Meaning {
    /// Whether a failed test explains the exit status.
    pub fn is_explained_by_failures(self) -> bool {
        matches!(self, Meaning::Unknown | Meaning::TestsFailed)
    }

    /// In words, if it has any.
    pub fn text(self) -> Option<&'static str> {
        match self {
            Meaning::Unknown | Meaning::TestsFailed => None,
            Meaning::Broken(text) => text,
            Meaning::Refused(text) => Some(text),
        }
    }
}

/// How finely the tests of one file may be spread over batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// Any test may be in any batch.
    Test,
    /// The tests of a file stay in one batch.
    File,
}

/// A way to discover and run tests.
pub trait Framework: Send + Sync {
    /// The commands that list the tests of `groups`; they run in parallel. `scratch` is an existing private
    /// directory for their files.
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>>;

    /// Parses the output of one of these commands.
    ///
    /// # Errors
    /// If the listing may be incomplete because the command failed or its output is invalid. An empty listing is
    /// not an error.
    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing>;

    /// The command that runs exactly `tests`, which belong to the group of the context and are in discovery order.
    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand;

    /// Matches cases of a JUnit report to `tests`.
    fn matcher<'a>(&'a self, tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a>;

    /// What the runner means by an exit status that is not 0.
    fn meaning(&self, _exit: Exit) -> Meaning {
        Meaning::Unknown
    }

    /// The class of a test, or what is one to the framework: a text that only tests of this class share. Those in none
    /// have their file. `None` if the framework has neither.
    fn class(&self, _test: &Listed) -> Option<String> {
        None
    }

    /// How finely tests may be spread.
    fn grain(&self) -> Grain {
        Grain::Test
    }

    /// A command that judges the whole run by files that came with the results of its batches. It runs on this machine,
    /// in the root of the project. Its stdout is for users; if it does not end with status 0, the run has failed.
    fn conclude(&self, _gathered: &Gathered<'_>) -> Option<CommandLine> {
        None
    }

    /// The file on this machine in which the tool keeps which tests failed last, for its own commands.
    fn failures_file(&self, _facts: &Facts) -> Option<PathBuf> {
        None
    }

    /// The new content of that file; `None` if it stays as it is. `old` is empty if there is no file.
    fn failures_content(&self, _old: &str, _tests: &[Ran<'_>]) -> Option<String> {
        None
    }

    /// A command with which a user can rerun `tests` on this machine; `facts` are those of their group.
    fn by_hand(&self, tests: &[TestIndex], suite: &Suite, facts: &Facts) -> String;
}

/// Matches cases of a report to tests.
pub trait Matcher {
    /// The test that a case is about; `None` if it is not a known one.
    fn find(&self, case: &Case) -> Option<TestIndex>;
    /// The name to report for an unknown case.
    fn name(&self, case: &Case) -> String;
    /// Whether an unknown case should be reported, unlike, for example, a test that the selection excluded.
    fn is_extra(&self, _case: &Case) -> bool {
        true
    }
    /// The tests that cannot have passed because of this failing case, which is not a test itself: a suite whose hook
    /// failed, or a file that did not load.
    fn covers(&self, _case: &Case) -> Vec<TestIndex> {
        Vec::new()
    }
    /// Why the runner ran no test at all, if this failing case is about that: a setup script that failed.
    fn blocks(&self, _case: &Case) -> Option<String> {
        None
    }
    /// Whether a runner that has to end reports a test in this way that it ended while it was running.
    fn is_ended(&self, _case: &Case) -> bool {
        false
    }
    /// Whether a runner that was interrupted may report a pass of a test that had not ended, as its last case.
    fn may_report_too_early(&self) -> bool {
        false
    }
}

/// Fills in a `test_id_format`.
fn format_id(format: &str, classname: &str, name: &str) -> String {
    fill(format, &[("{name}", name), ("{classname}", classname)])
}

/// The name from which [`format_id`] built `id`; `None` if it cannot be recovered.
fn name_in_id<'a>(format: &str, id: &'a str, classname: &str) -> Option<&'a str> {
    let (before, after) = format.split_once("{name}")?;
    let before = before.replace("{classname}", classname);
    let after = after.replace("{classname}", classname);
    id.strip_prefix(before.as_str())?.strip_suffix(after.as_str())
}

/// Splits arguments as a shell would; `what` names them in the error.
fn split_words(text: &str, what: &str) -> Result<Vec<String>> {
    shell_words::split(text).with_context(|| format!("cannot split {what} `{text}` into words"))
}

/// The groups with their indices.
fn indexed(groups: &[Group]) -> impl Iterator<Item = (GroupIndex, &Group)> {
    (0..=u16::MAX).map(GroupIndex).zip(groups)
}

/// Matches by `test_id_format` alone.
pub struct ByFormat<'a> {
    /// All tests.
    pub suite: &'a Suite,
    /// The group whose tests ran.
    pub group: GroupIndex,
    /// The format with `{name}` and `{classname}`.
    pub format: &'a str,
}

impl Matcher for ByFormat<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        self.suite.find_native(self.group, &self.name(case))
    }

    fn name(&self, case: &Case) -> String {
        format_id(self.format, &case.classname, &case.name)
    }
}

/// How a list command ended, and the last lines of its output.
fn describe_failure(output: &ListOutput) -> String {
    format!("ended with {}{}", output.exit, last_lines(output))
}

/// The last lines of stdout and stderr, each on a new line and indented.
pub fn last_lines(output: &ListOutput) -> String {
    let mut text = String::new();
    for stream in [&output.stdout, &output.stderr] {
        let lines: Vec<&str> = stream.lines().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(20)..] {
            text.push_str("\n    ");
            text.push_str(line);
        }
    }
    text
}

/// The configured environment of all commands of a framework.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Variables that are used as they are.
    pub plain: Vec<(String, String)>,
    /// Variables that override those; `{root}` stands for the project's root.
    pub env: Vec<(String, String)>,
    /// Directories to put at the front of PATH; `{root}` stands for the project's root.
    pub prepend_path: Vec<String>,
}

impl Surroundings {
    /// Applies the environment to `command`, whose own variables take precedence.
    pub fn apply(&self, command: &mut CommandLine, root: &str) {
        let env = self.env.iter().map(|(key, value)| (key.clone(), value.replace("{root}", root)));
        command.env.splice(0..0, self.plain.iter().cloned().chain(env));
        command
            .prepend_path
            .extend(self.prepend_path.iter().map(|directory| directory.replace("{root}", root)));
    }
}
