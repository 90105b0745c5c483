//! vitest. Discovery makes it load all files but run no tests; batches run what a list named, file by file.
//!
//! `vitest list` is not used: version 1 does not have it, version 5 guesses names from the source, so `test.each`
//! is not expanded, and no version lists skipped tests. A run whose `-t` matches nothing collects the same tests in
//! all versions; a small reporter writes them to a file.
//!
//! In a batch, the same reporter narrows the files that vitest finds to those of the batch, and replaces the runner
//! of vitest's workers by one that chooses tests and records them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::{
    BatchContext, ByFormat, Facts, Framework, Gathered, Grain, ListCommand, ListOutput, Listed, Listing,
    LoadError, Matcher, RunCommand, describe_failure, format_id, indexed, split_words,
};
use crate::command::{CommandLine, InputFile};
use crate::config;
use crate::event::ReportFile;
use crate::model::{Group, GroupIndex, Suite, TestId, TestIndex};
use crate::record;

mod arguments;
mod text;

use arguments::Arguments;
use text::{clean, escape};

const REPORTER: &str = include_str!("../../scripts/bundled/vitest_reporter.mjs");
const RUNNER: &str = include_str!("../../scripts/bundled/vitest_runner.mjs");

/// A regular expression that matches nothing.
const NOTHING: &str = "(?!)";

/// Turns coverage off.
const NO_COVERAGE: &str = "--coverage.enabled=false";

/// The facts with the version of vitest, and with the directory where it listed the tests.
const VERSION: &str = "vitest.version";
const DIRECTORY: &str = "vitest.directory";

/// vitest, versions 1 to 5.
#[derive(Clone, Debug)]
pub struct Vitest {
    command: Vec<String>,
    discovery_args: Vec<String>,
    run_args: Vec<String>,
    format: String,
}

/// The list of the reporter.
#[derive(Debug, Deserialize)]
struct Collected {
    /// Whether vitest came to the end.
    whole: bool,
    /// What the list command was told.
    collection: String,
    /// The version of vitest.
    version: String,
    /// Where the list command ran.
    directory: String,
    /// Whether the project wants coverage, as far as version 1 tells.
    coverage: bool,
    files: Vec<CollectedFile>,
    errors: Vec<CollectionError>,
}

#[derive(Debug, Deserialize)]
struct CollectedFile {
    /// What users call it.
    name: String,
    /// Relative to the working directory.
    path: String,
    error: Option<String>,
    /// What its tests share with those of other files: to check the types of one is to check those of all.
    together: Option<Arc<str>>,
    tests: Vec<CollectedTest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CollectedTest {
    native: Arc<str>,
    titles: Vec<String>,
    line: Option<u32>,
    /// Whether the group's `-t` matches.
    is_chosen: bool,
}

#[derive(Debug, Deserialize)]
struct CollectionError {
    name: String,
    text: String,
}

impl Vitest {
    /// Reads `[framework]`, whose `type` is `vitest`.
    ///
    /// # Errors
    /// If the command or arguments cannot be split into words.
    pub fn new(framework: &config::Framework) -> Result<Vitest> {
        let config::FrameworkKind::Vitest { command, run_args } = &framework.kind else {
            bail!("`[framework]` is not of type `vitest`");
        };
        let command = split_words(command, "`command`")?;
        if command.is_empty() {
            bail!("`command` of `[framework]` is empty");
        }
        Ok(Vitest {
            command,
            discovery_args: split_words(
                framework.discovery_args.as_deref().unwrap_or_default(),
                "`discovery_args`",
            )?,
            run_args: split_words(run_args.as_deref().unwrap_or_default(), "`run_args`")?,
            format: framework.test_id_format.clone(),
        })
    }

    fn list_command(&self, group: &Group, index: GroupIndex, scratch: &Path) -> Result<ListCommand> {
        let words = split_words(&group.filters, "the filters")?;
        let filters = Arguments::parse(&[self.discovery_args.as_slice(), &words].concat());
        let scratch = scratch.join(format!("vitest-{}", index.0));
        let output = scratch.join("list.json");
        let settings = json!({
            "list": output.to_string_lossy(),
            "pattern": filters.pattern,
            // File names, `-t` and `--exclude` only select.
            "collection": shell_words::join(&filters.options),
        });
        let reporter = Reporter::new(&scratch, &settings);
        let mut line = self.command.clone();
        line.push("--run".to_owned());
        line.extend(filters.selection);
        line.push(NO_COVERAGE.to_owned());
        line.push(reporter.argument);
        line.push(format!("--testNamePattern={NOTHING}"));
        line.extend(filters.options);
        let mut command = CommandLine::program(line).with_env("NO_COLOR", "1");
        command.files.extend(reporter.files);
        Ok(ListCommand { groups: vec![index], command, output: Some(output) })
    }

    /// The IDs of all tests in `files`, by native ID. Those that would have the same ID are numbered.
    fn ids(&self, files: &[CollectedFile]) -> HashMap<Arc<str>, TestId> {
        let id = |file: &CollectedFile, test: &CollectedTest| {
            format_id(&self.format, &clean(&file.name), &clean(&test.titles.join(" > ")))
        };
        let tests = || files.iter().flat_map(|file| file.tests.iter().map(move |test| (file, test)));
        let mut taken: HashSet<String> = tests().map(|(file, test)| id(file, test)).collect();
        let mut seen = HashSet::new();
        let mut ids = HashMap::new();
        for (file, test) in tests() {
            let mut name = id(file, test);
            if !seen.insert(name.clone()) {
                let mut numbered = (2_u64..).map(|number| format!("{name} ({number})"));
                name = numbered.find(|name| !taken.contains(name)).unwrap_or(name);
                taken.insert(name.clone());
            }
            ids.insert(Arc::clone(&test.native), TestId::from(name));
        }
        ids
    }
}

/// The reporter of one command.
struct Reporter {
    argument: String,
    files: [InputFile; 2],
}

impl Reporter {
    /// One with these settings and its files in `directory`.
    fn new(directory: &Path, settings: &serde_json::Value) -> Reporter {
        let path = directory.join("vitest_reporter.mjs");
        let argument = format!("--reporter={}", path.display());
        let own = InputFile { path, content: format!("const settings = {settings}\n{REPORTER}") };
        let runner = InputFile { path: directory.join("vitest_runner.mjs"), content: RUNNER.to_owned() };
        Reporter { argument, files: [own, runner] }
    }
}

impl Framework for Vitest {
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>> {
        indexed(groups).map(|(index, group)| self.list_command(group, index, scratch)).collect()
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        let collected =
            output.file.as_deref().map(|file| record::parse::<Collected>(file.as_bytes())).transpose();
        let collected = collected.context("cannot read what vitest collected")?;
        // A whole list is worth more than the exit status of its writer.
        let Some(collected) = collected.filter(|collected| collected.whole) else {
            bail!("vitest cannot collect tests: it {}", describe_failure(output));
        };
        let mut listing = Listing { collection: collected.collection, ..Listing::default() };
        listing.facts.insert(VERSION.to_owned(), collected.version);
        listing.facts.insert(DIRECTORY.to_owned(), collected.directory);
        let wants_coverage = collected.coverage || !Arguments::parse(&self.run_args).coverage.is_empty();
        if wants_coverage && !merges_coverage(&listing.facts) {
            listing
                .warnings
                .push("vitest 1 cannot merge the coverage of batches: tests run without it".into());
        }
        let ids = self.ids(&collected.files);
        for file in collected.files {
            if let Some(message) = file.error {
                listing.errors.push(LoadError { file: file.name, message });
                continue;
            }
            let path: Arc<str> = file.path.into();
            for test in file.tests.into_iter().filter(|test| test.is_chosen) {
                let Some(id) = ids.get(&test.native) else { continue };
                listing.tests.extend(command.groups.iter().map(|&group| Listed {
                    group,
                    id: id.clone(),
                    native: Arc::clone(&test.native),
                    file: Some(Arc::clone(&path)),
                    line: test.line,
                    key: file.together.clone(),
                }));
            }
        }
        let errors = collected.errors.into_iter();
        listing.errors.extend(errors.map(|error| LoadError { file: error.name, message: error.text }));
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let suite = context.suite;
        let filters = shell_words::split(&suite.group(context.group).filters).unwrap_or_default();
        let run_args = Arguments::parse(&self.run_args);
        let record = context.scratch.join("record.jsonl");
        let wanted: Vec<&str> = tests.iter().map(|&index| &*suite.test(index).native).collect();
        let settings = json!({
            "record": record.to_string_lossy(),
            "wanted": wanted,
            "home": context.facts.get(DIRECTORY),
        });
        let reporter = Reporter::new(context.scratch, &settings);

        let mut words = self.command.clone();
        words.push("--run".to_owned());
        words.extend(Arguments::parse(&filters).options);
        words.extend(run_args.options);
        if merges_coverage(context.facts) {
            let directory = context.scratch.join("coverage");
            words.extend(run_args.coverage);
            words.push(format!("--coverage.reportsDirectory={}", directory.display()));
        } else {
            words.push(NO_COVERAGE.to_owned());
        }
        if context.fail_fast {
            words.push("--bail=1".to_owned());
        }
        words.push(reporter.argument);
        words.extend(if run_args.reporters.is_empty() {
            vec!["--reporter=default".to_owned()]
        } else {
            run_args.reporters
        });
        let mut command = CommandLine::program(words);
        command.files.extend(reporter.files);
        RunCommand { command, report: Some(ReportFile::record(record)) }
    }

    fn matcher<'a>(&'a self, _tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(ByFormat { suite: context.suite, group: context.group, format: &self.format })
    }

    /// The outermost suite.
    fn class(&self, test: &Listed) -> Option<String> {
        let file = test.file.as_deref()?;
        let titles = titles(&test.native).unwrap_or_default();
        Some(if titles.len() > 1 { json!([file, titles[0]]).to_string() } else { file.to_owned() })
    }

    fn grain(&self) -> Grain {
        Grain::File
    }

    fn conclude(&self, gathered: &Gathered<'_>) -> Option<CommandLine> {
        let filters = shell_words::split(&gathered.group.filters).unwrap_or_default();
        let run_args = Arguments::parse(&self.run_args);
        let reporter =
            Reporter::new(gathered.scratch, &json!({ "merge": gathered.directory.to_string_lossy() }));
        let mut words = self.command.clone();
        words.extend(["--run".to_owned(), "--passWithNoTests".to_owned()]);
        words.extend(Arguments::parse(&filters).options);
        words.extend([run_args.options, run_args.coverage, run_args.coverage_directory].concat());
        words.push(reporter.argument);
        let mut command = CommandLine::program(words).with_env("NO_COLOR", "1");
        command.files.extend(reporter.files);
        Some(command)
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite, _facts: &Facts) -> String {
        let mut words = self.command.clone();
        words.push("--run".to_owned());
        words.extend(files(tests, suite).iter().map(|file| position(file)));
        if let Some(&first) = tests.first() {
            let filters = &suite.group(suite.test(first).group).filters;
            let filters = shell_words::split(filters).unwrap_or_default();
            words.extend(Arguments::parse(&filters).options);
        }
        words.push(format!("--testNamePattern={}", pattern(tests, suite)));
        words.extend(Arguments::parse(&self.run_args).options);
        shell_words::join(words)
    }
}

/// Whether this vitest gives the coverage of a run in a form that can be merged. What is unknown is a newer version.
fn merges_coverage(facts: &Facts) -> bool {
    facts.get(VERSION).is_none_or(|version| !version.starts_with("1."))
}

/// The value of `-t` that selects `tests`.
fn pattern(tests: &[TestIndex], suite: &Suite) -> String {
    let titles = tests.iter().filter_map(|&index| titles(&suite.test(index).native));
    let names: BTreeSet<String> = titles.map(|titles| escape(&titles.join(" > "))).collect();
    let names: Vec<String> = names.into_iter().collect();
    format!("^ ?(?:{})$", names.join("|"))
}

/// The titles in a native ID.
fn titles(native: &str) -> Option<Vec<String>> {
    let (_project, _is_type, _file, titles, _number): (String, bool, String, Vec<String>, u64) =
        serde_json::from_str(native).ok()?;
    Some(titles)
}

/// The files of `tests`, in order.
fn files(tests: &[TestIndex], suite: &Suite) -> Vec<Arc<str>> {
    let mut seen = BTreeSet::new();
    let files = tests.iter().filter_map(|&index| suite.test(index).file.clone());
    files.filter(|file| seen.insert(file.clone())).collect()
}

/// A file as a positional argument.
fn position(file: &str) -> String {
    if file.starts_with('-') { format!("./{file}") } else { file.to_owned() }
}

#[cfg(test)]
mod tests;
