//! `type = "default"`: any runner that a shell command can start.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::{CommandLine, fill};
use crate::event::ReportFile;
use crate::framework::{
    BatchContext, ByFormat, Facts, Framework, ListCommand, ListOutput, Listed, Listing, Matcher, RunCommand,
    describe_failure, indexed,
};
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

/// The name for all tests if only the exit status is known.
pub const ALL_TESTS: &str = "all_tests";

/// The settings of a custom runner.
#[derive(Clone, Debug)]
pub struct Custom {
    /// Prints one test id per line; `{filters}` is replaced by the group's filters verbatim.
    pub discover_command: String,
    /// Runs `{tests}`, which are quoted for the shell; `{result_file}` is the report to write.
    pub run_command: String,
    /// The path of the report. If `run_command` contains the placeholder, only the extension matters.
    pub result_file: Option<String>,
    /// The working directory of both commands.
    pub working_dir: Option<PathBuf>,
    /// How to build an id from a report's names.
    pub test_id_format: String,
}

impl Framework for Custom {
    fn list_commands(&self, groups: &[Group], _scratch: &Path) -> Result<Vec<ListCommand>> {
        let list = |(index, group): (GroupIndex, &Group)| {
            let mut command = CommandLine::shell(self.discover_command.replace("{filters}", &group.filters));
            command.directory.clone_from(&self.working_dir);
            ListCommand { groups: vec![index], command, output: None }
        };
        Ok(indexed(groups).map(list).collect())
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        if output.exit != Exit::Code(0) {
            bail!("the command {}", describe_failure(output));
        }
        let mut listing = Listing::default();
        let lines = output.stdout.lines().map(|line| line.strip_suffix('\r').unwrap_or(line));
        for line in lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            for &group in &command.groups {
                listing.tests.push(Listed::new(group, line, None));
            }
        }
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let ids = tests.iter().map(|index| context.suite.test(*index).native.as_ref());
        let (report, private) = match &self.result_file {
            None => (None, true),
            Some(name) if self.run_command.contains("{result_file}") => {
                let ending = Path::new(name).extension().map(|ending| ending.to_string_lossy());
                (Some(context.scratch.join(format!("result.{}", ending.as_deref().unwrap_or("xml")))), true)
            }
            Some(name) => (Some(self.working_dir.clone().unwrap_or_default().join(name)), false),
        };
        let file = report.as_ref().map(|path| path.to_string_lossy().into_owned());
        let script = fill_run(&self.run_command, &shell_words::join(ids), file.as_deref());
        let mut command = CommandLine::shell(script);
        command.directory.clone_from(&self.working_dir);
        if !private {
            command.stale.extend(report.clone());
        }
        RunCommand { command, report: report.map(ReportFile::junit) }
    }

    fn matcher<'a>(&'a self, _tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(ByFormat { suite: context.suite, group: context.group, format: &self.test_id_format })
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite, _facts: &Facts) -> String {
        let ids = tests.iter().map(|index| suite.test(*index).native.as_ref());
        fill_run(
            &self.run_command,
            &shell_words::join(ids),
            Some(self.result_file.as_deref().unwrap_or_default()),
        )
    }
}

/// Fills in `run_command`; without a result file, its placeholder stays.
fn fill_run(template: &str, tests: &str, result_file: Option<&str>) -> String {
    let file = result_file.map(shell_words::quote);
    let mut values = vec![("{tests}", tests)];
    values.extend(file.as_deref().map(|file| ("{result_file}", file)));
    fill(template, &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_values_are_not_filled_again() {
        assert_eq!(
            fill_run("run {tests} > {result_file} ${x}", "'{result_file}' '{tests}'", Some("a b")),
            "run '{result_file}' '{tests}' > 'a b' ${x}"
        );
    }
}
