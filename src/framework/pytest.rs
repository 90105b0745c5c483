//! pytest, on unmodified projects.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::json;

use crate::command::{CommandLine, InputFile, StopSignal};
use crate::event::{ReportFile, ReportFormat};
use crate::framework::{
    BatchContext, Facts, Framework, Gathered, ListCommand, ListOutput, Listed, Listing, Matcher, Ran,
    RunCommand, indexed, split_words,
};
use crate::model::{Group, Suite, TestCase, TestIndex};

mod junit;
mod listing;
mod selection;

use junit::ByPair;
use listing::{FILTERS, NAMED, keyword_and_markers};
use selection::{Name, Naming, Selection};

/// The module that pytest loads.
const PLUGIN: &str = "offload_pytest";
/// The files of our plugin, which lists tests, selects those of a batch and writes its record; see there.
const FILES: [(&str, &str); 4] = [
    ("offload_pytest.py", include_str!("../../scripts/bundled/offload_pytest.py")),
    ("offload_batch.py", include_str!("../../scripts/bundled/offload_batch.py")),
    ("offload_coverage.py", include_str!("../../scripts/bundled/offload_coverage.py")),
    ("offload_snapshots.py", include_str!("../../scripts/bundled/offload_snapshots.py")),
];

/// pytest ends without a report on SIGTERM, and with one on SIGINT.
const STOP: &[StopSignal] = &[StopSignal::Interrupt, StopSignal::Terminate];

/// The settings of pytest.
#[derive(Clone, Debug)]
pub struct Pytest {
    /// The command that starts pytest.
    pub command: Vec<String>,
    /// Where to search for tests; if empty, pytest decides.
    pub paths: Vec<String>,
    /// Extra arguments for discovery.
    pub discovery_args: Vec<String>,
    /// Extra arguments for batches.
    pub run_args: Vec<String>,
    /// How to build an id from a report's names; tried before pytest's own rule.
    pub test_id_format: String,
    /// `PYTHONPATH` and `PYTEST_PLUGINS` of the environment.
    pub inherited: Inherited,
}

/// Inherited variables to which discovery adds.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    /// `PYTHONPATH`.
    pub python_path: Option<String>,
    /// `PYTEST_PLUGINS`.
    pub plugins: Option<String>,
}

fn join(first: &Path, rest: Option<&String>, mark: char) -> String {
    match rest {
        Some(rest) if !rest.is_empty() => format!("{}{mark}{rest}", first.display()),
        _ => first.display().to_string(),
    }
}

/// The files of the plugin in `directory`.
fn plugin_in(directory: &Path) -> impl Iterator<Item = InputFile> {
    FILES
        .iter()
        .map(|(name, content)| InputFile { path: directory.join(name), content: (*content).to_owned() })
}

impl Pytest {
    /// Has `command` load the plugin from `directory` and follow `order`, a file that is written before.
    fn load_plugin(&self, command: &mut CommandLine, directory: &Path, order: InputFile, inherits: bool) {
        let inherited = |value| Option::filter(value, |_: &&String| inherits);
        let python_path = inherited(self.inherited.python_path.as_ref());
        let plugins = inherited(self.inherited.plugins.as_ref());
        command.env.extend([
            ("PYTHONPATH".into(), join(directory, python_path, ':')),
            ("PYTEST_PLUGINS".into(), join(Path::new(PLUGIN), plugins, ',')),
            ("OFFLOAD_PYTEST".into(), order.path.display().to_string()),
        ]);
        command.files.push(order);
    }

    /// The words of the command that listed a group, and those that only runs have.
    fn words(&self, group: &Group, facts: &Facts) -> Vec<String> {
        // The filters could be split during discovery.
        let filters = split_words(&group.filters, "the filters").unwrap_or_default();
        let only_lists = |word: &&String| ["--collect-only", "--co"].contains(&word.as_str());
        let discovery_args = self.discovery_args.iter().filter(|word| !only_lists(word));
        let words = self.command.iter().chain(&self.paths).chain(&filters).chain(discovery_args);
        let mut words: Vec<String> = words.chain(&self.run_args).cloned().collect();
        if facts.contains_key("xdist") {
            words.extend(["-n", "0", "--dist", "no"].map(Into::into));
        }
        words
    }

    /// A batch of a collection that our plugin listed: the same collection again, of which the plugin keeps the tests.
    fn selecting(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let tests: Vec<&TestCase> = tests.iter().map(|index| context.suite.test(*index)).collect();
        let files: Option<BTreeSet<&str>> = tests.iter().map(|test| test.file.as_deref()).collect();
        let record = context.scratch.join("record.jsonl");
        let order = json!({
            "mode": "run",
            "record": record,
            "tests": tests.iter().map(|test| &*test.native).collect::<Vec<_>>(),
            "files": files,
            "run": context.facts.get("run"),
        });
        let mut words = self.words(context.suite.group(context.group), context.facts);
        if context.fail_fast {
            words.push("-x".into());
        }
        let mut command = CommandLine { stop: STOP, ..CommandLine::program(words) };
        // Where sandboxes share it, Python compiles the plugin once.
        let own = context.scratch.join("plugin");
        let directory = context.shared.unwrap_or(&own);
        if context.shared.is_none() {
            command.files.extend(plugin_in(directory));
        }
        let order = InputFile { path: context.scratch.join("order.json"), content: order.to_string() };
        self.load_plugin(&mut command, directory, order, context.shared.is_some());
        RunCommand { command, report: Some(ReportFile { path: record, format: ReportFormat::Record }) }
    }

    /// A batch of a pytest that our plugin does not reach: names as arguments, and a JUnit report.
    fn naming(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let report = context.scratch.join("junit.xml");
        let mut words = self.command.clone();
        words.push(format!("--junitxml={}", report.display()));
        words.extend(
            ["--junitprefix=", "-o", "junit_logging=all", "-o", "junit_log_passing_tests=false"]
                .map(Into::into),
        );
        words.extend(self.run_args.iter().cloned());
        words.extend(
            split_words(&context.suite.group(context.group).filters, "the filters").unwrap_or_default(),
        );
        if context.fail_fast {
            words.push("-x".into());
        }
        let chosen = !self.discovery_args.is_empty() || self.paths.iter().any(|path| path.contains("::"));
        let naming = if chosen { Naming::Exact } else { Naming::Short };
        words.extend(Selection::new(tests, context.group, context.suite, naming).arguments());
        let command = CommandLine { stop: STOP, ..CommandLine::program(words) };
        RunCommand { command, report: Some(ReportFile::junit(report)) }
    }
}

impl Framework for Pytest {
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>> {
        let simple = indexed(groups)
            .filter_map(|(index, group)| Some((index, Some(keyword_and_markers(&group.filters)?))));
        let (indices, choices): (Vec<_>, Vec<_>) = simple.unzip();
        let mut commands = Vec::new();
        let together = indices.len() > 1;
        if together {
            commands.push(self.list(indices, Vec::new(), &choices, scratch));
        }
        for (index, group) in indexed(groups) {
            if !(together && keyword_and_markers(&group.filters).is_some()) {
                let filters = split_words(&group.filters, "the filters")?;
                commands.push(self.list(vec![index], filters, &[None], scratch));
            }
        }
        Ok(commands)
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        listing::parse(command, output)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        // What could be loaded for the listing can be loaded for a batch, too.
        if context.facts.contains_key("root") {
            self.selecting(tests, context)
        } else {
            self.naming(tests, context)
        }
    }

    fn matcher<'a>(&'a self, tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(ByPair::new(tests, context, &self.test_id_format))
    }

    /// The class, as in the ID.
    fn class(&self, test: &Listed) -> Option<String> {
        let file = test.file.as_deref()?;
        let (_, inside) = test.native.split_once("::")?;
        let class = inside.split('[').next().and_then(|function| function.rsplit_once("::"));
        Some(class.map_or_else(|| file.to_owned(), |(class, _)| format!("{file}::{class}")))
    }

    fn conclude(&self, gathered: &Gathered<'_>) -> Option<CommandLine> {
        if !["coverage", "snapshots"].contains(&gathered.name) {
            return None;
        }
        let words = self.words(gathered.group, gathered.facts);
        let mut command = CommandLine { stop: STOP, ..CommandLine::program(words) };
        command.files.extend(plugin_in(gathered.scratch));
        let order =
            json!({"mode": "conclude", "name": gathered.name, "data": gathered.directory}).to_string();
        let order = InputFile { path: gathered.scratch.join("order.json"), content: order };
        self.load_plugin(&mut command, gathered.scratch, order, true);
        Some(command)
    }

    fn failures_file(&self, facts: &Facts) -> Option<PathBuf> {
        facts.get("failures").map(PathBuf::from)
    }

    /// As pytest's cache provider does: what did not run stays as it is.
    fn failures_content(&self, old: &str, tests: &[Ran<'_>]) -> Option<String> {
        let before: BTreeMap<String, bool> = serde_json::from_str(old).unwrap_or_default();
        let mut failed = before.clone();
        for test in tests {
            if test.has_failed {
                failed.insert(test.native.to_owned(), true);
            } else {
                failed.remove(test.native);
            }
        }
        (failed != before).then(|| serde_json::to_string_pretty(&failed).unwrap_or_default())
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite, facts: &Facts) -> String {
        let said =
            |name| facts.get(name).and_then(|words| shell_words::split(words).ok()).unwrap_or_default();
        let mut words: Vec<String> = self.command.iter().cloned().chain(said(FILTERS)).collect();
        // What else is named would run, too.
        for named in said(NAMED) {
            if let Some(place) = words.iter().rposition(|word| *word == named) {
                words.remove(place);
            }
        }
        let names = tests.iter().map(|index| suite.test(*index));
        words.extend(names.map(|test| Name::of(test).argument().into_owned()));
        shell_words::join(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GroupIndex;

    #[test]
    fn the_class_of_a_test_is_in_its_id_and_parameters_are_not() {
        let pytest = Pytest {
            command: Vec::new(),
            paths: Vec::new(),
            discovery_args: Vec::new(),
            run_args: Vec::new(),
            test_id_format: String::new(),
            inherited: Inherited::default(),
        };
        let class =
            |id: &str| pytest.class(&Listed::new(GroupIndex(0), id, Some("sub/a[1].py".into()))).unwrap();
        let classes =
            ["a[1].py::A::x", "a[1].py::A::y[b::c]", "a[1].py::A::B::x", "a[1].py::x[d::e]"].map(class);
        assert_eq!(classes, ["sub/a[1].py::A", "sub/a[1].py::A", "sub/a[1].py::A::B", "sub/a[1].py"]);
    }
}
