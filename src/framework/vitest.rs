//! vitest. Discovery makes it load all files but run no tests; batches name their files.
//!
//! `vitest list` is not used: version 1 does not have it, version 5 guesses names from the source, so `test.each`
//! is not expanded, and no version lists skipped tests. A run whose `-t` matches nothing collects the same tests in
//! all versions; a small reporter writes them to a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::{
    BatchContext, Facts, Framework, Grain, ListCommand, ListOutput, Listed, Listing, Matcher, RunCommand,
    describe_failure, format_id, indexed, name_in_id, split_words,
};
use crate::command::{CommandLine, InputFile};
use crate::config;
use crate::event::ReportFile;
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Outcome, Suite, TestIndex};

mod arguments;
mod text;

use arguments::Arguments;
use text::{clean, escape, escape_glob, loses_letters, plain};

const REPORTER: &str = include_str!("../../scripts/bundled/vitest_reporter.mjs");

/// A regular expression that matches nothing.
const NOTHING: &str = "(?!)";

/// The number of lines to show of a file's error.
const ERROR_LINES: usize = 6;

/// vitest, versions 1 to 5.
#[derive(Clone, Debug)]
pub struct Vitest {
    command: Vec<String>,
    discovery_args: Vec<String>,
    run_args: Vec<String>,
    format: String,
}

/// The output of the reporter.
#[derive(Debug, Deserialize)]
struct Collected {
    files: Vec<CollectedFile>,
}

#[derive(Debug, Deserialize)]
struct CollectedFile {
    file: String,
    error: Option<String>,
    tests: Vec<String>,
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
        let output = scratch.join(format!("vitest-{}.json", index.0));
        let reporter = scratch.join(format!("vitest-{}.mjs", index.0));
        let settings = json!({ "list": output.to_string_lossy(), "pattern": filters.pattern });
        let mut rest = vec!["--coverage.enabled=false".to_owned(), "--passWithNoTests".to_owned()];
        rest.push(format!("--reporter={}", reporter.display()));
        rest.push(format!("--testNamePattern={NOTHING}"));
        rest.extend(filters.options);
        let mut start = self.command.clone();
        start.push("--run".to_owned());
        start.extend(filters.selection);
        // Without isolation, shared imports are loaded only once, which takes a quarter of the time. If that fails,
        // try again with vitest's default, unless the user chose.
        let isolated = shell_words::join([start.as_slice(), &rest].concat());
        let is_choice = |word: &String| word.starts_with("--isolate") || word == "--no-isolate";
        let script = if rest.iter().any(is_choice) {
            isolated
        } else {
            let quick = [start.as_slice(), &["--no-isolate".to_owned()], &rest].concat();
            format!("{} || {isolated}", shell_words::join(&quick))
        };
        let mut command = CommandLine::shell(script).with_env("NO_COLOR", "1");
        command.files.push(InputFile { path: reporter, content: reporter_text(&settings) });
        Ok(ListCommand { groups: vec![index], command, output: Some(output) })
    }

    /// The id of the test with the joined titles `name`.
    fn id(&self, file: &str, name: &str) -> String {
        format_id(&self.format, &clean(file), &clean(name))
    }

    /// The value of `-t` that selects `tests`; `None` if the group would run nothing else in their files.
    fn pattern(
        &self,
        tests: &[TestIndex],
        group: GroupIndex,
        suite: &Suite,
        facts: &Facts,
    ) -> Option<String> {
        let files = files(tests, suite);
        let inside = |file: &Option<Arc<str>>| file.as_ref().is_some_and(|file| files.contains(file));
        let own = suite.tests().iter().filter(|test| test.group == group && inside(&test.file)).count();
        if own == tests.len() && !suite.runs_elsewhere(group).any(|test| inside(&test.file)) {
            return None;
        }
        let mut names = BTreeSet::new();
        for &index in tests {
            let test = suite.test(index);
            let id = &*test.native;
            let name = match facts.get(&title_fact(id)) {
                Some(whole) => whole,
                None => name_in_id(&self.format, id, &clean(test.file.as_deref().unwrap_or_default()))?,
            };
            names.insert(escape(name));
        }
        let names: Vec<String> = names.into_iter().collect();
        Some(format!("^ ?(?:{})$", names.join("|")))
    }
}

impl Framework for Vitest {
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>> {
        indexed(groups).map(|(index, group)| self.list_command(group, index, scratch)).collect()
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        let collected = output.file.as_deref().and_then(|text| serde_json::from_str::<Collected>(text).ok());
        let files = collected.as_ref().map(|collected| collected.files.as_slice()).unwrap_or_default();
        if let Some(message) = broken(files) {
            bail!("vitest cannot load all test files\n{message}");
        }
        let Some(collected) = collected.filter(|_| output.exit == Exit::Code(0)) else {
            bail!("vitest cannot collect tests: it {}", describe_failure(output));
        };
        let mut listing = Listing::default();
        let mut seen = BTreeMap::new();
        for CollectedFile { file, tests, .. } in collected.files {
            let path: Arc<str> = file.as_str().into();
            for name in tests {
                let id = self.id(&file, &name);
                let count = seen.entry(id.clone()).or_insert(0);
                *count += 1;
                if *count == 2 {
                    let message = "is ambiguous, since vitest reports several tests by this name";
                    listing.warnings.push(format!("`{id}` {message}"));
                }
                if *count > 1 {
                    continue;
                }
                if loses_letters(&name) {
                    listing.facts.insert(title_fact(&id), name);
                }
                for &group in &command.groups {
                    listing.tests.push(Listed::new(group, id.as_str(), Some(path.clone())));
                }
            }
        }
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let group = context.group;
        let suite = context.suite;
        let filters = shell_words::split(&suite.group(group).filters).unwrap_or_default();
        let filters = Arguments::parse(&filters);
        let run_args = Arguments::parse(&self.run_args);
        let chosen = files(tests, suite);
        let report = context.scratch.join("junit.xml");
        let reporter = context.scratch.join("reporter.mjs");

        let mut words = self.command.clone();
        words.push("--run".to_owned());
        words.extend(chosen.iter().map(|file| position(file)));
        for file in also_matched(&chosen, suite) {
            words.push(format!("--exclude={}", escape_glob(file)));
        }
        let own = self.pattern(tests, group, suite, context.facts);
        let wanted = own.as_ref().map(|_| tests.len());
        let pattern = own.or(filters.pattern);
        if let Some(pattern) = &pattern {
            words.push(format!("--testNamePattern={pattern}"));
        }
        words.extend(filters.options);
        words.extend(run_args.options);
        // Parallel batches would write to the same directory, and none would reach a threshold.
        if run_args.coverage.is_empty() {
            words.push("--coverage.enabled=false".to_owned());
        }
        words.extend(run_args.coverage);
        if context.fail_fast {
            words.push("--bail=1".to_owned());
        }
        words.push(format!("--reporter={}", reporter.display()));
        words.extend(if run_args.reporters.is_empty() {
            vec!["--reporter=default".to_owned()]
        } else {
            run_args.reporters
        });
        words.push("--reporter=junit".to_owned());
        words.push(format!("--outputFile={}", report.display()));
        let mut command = CommandLine::program(words);
        let settings = json!({ "report": report.to_string_lossy(), "pattern": pattern, "wanted": wanted });
        let content = reporter_text(&settings);
        command.files.push(InputFile { path: reporter, content });
        RunCommand { command, report: Some(ReportFile::junit(report)) }
    }

    fn matcher<'a>(&'a self, _tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(Titles { suite: context.suite, group: context.group, vitest: self })
    }

    fn grain(&self) -> Grain {
        Grain::File
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite) -> String {
        let mut words = self.command.clone();
        words.push("--run".to_owned());
        words.extend(files(tests, suite).iter().map(|file| position(file)));
        let group = tests.first().map(|&index| suite.test(index).group);
        if let Some(group) = group {
            let filters = shell_words::split(&suite.group(group).filters).unwrap_or_default();
            words.extend(Arguments::parse(&filters).options);
            let pattern = self.pattern(tests, group, suite, &Facts::new());
            words.extend(pattern.map(|pattern| format!("--testNamePattern={pattern}")));
        }
        words.extend(Arguments::parse(&self.run_args).options);
        shell_words::join(words)
    }
}

/// Matches by file and titles.
struct Titles<'a> {
    suite: &'a Suite,
    group: GroupIndex,
    vitest: &'a Vitest,
}

impl Matcher for Titles<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        self.suite.find_native(self.group, &self.name(case))
    }

    fn name(&self, case: &Case) -> String {
        self.vitest.id(&case.classname, &case.name)
    }

    /// Tests that `-t` excludes are reported as skipped.
    fn is_extra(&self, case: &Case) -> bool {
        case.result.outcome != Outcome::Skipped
    }

    /// A failing case named after a suite or a file means that a hook failed or the file did not load. vitest 1
    /// reports the tests within as passed, later versions as skipped.
    fn covers(&self, case: &Case) -> Vec<TestIndex> {
        let whole = case.name == case.classname;
        let above = format!("{} > ", clean(&case.name));
        let below = |index: &TestIndex| {
            let test = self.suite.test(*index);
            let Some(file) = test.file.as_deref().filter(|file| clean(file) == clean(&case.classname)) else {
                return false;
            };
            let name = name_in_id(&self.vitest.format, &test.native, &clean(file));
            whole || name.is_some_and(|name| name.starts_with(&above))
        };
        self.suite.indices().filter(below).collect()
    }
}

/// The fact with the joined titles of a test, if its id lacks some of their characters.
fn title_fact(id: &str) -> String {
    format!("vitest.title.{id}")
}

fn reporter_text(settings: &serde_json::Value) -> String {
    format!("const settings = {settings}\n{REPORTER}")
}

/// The files of `tests`, in order.
fn files(tests: &[TestIndex], suite: &Suite) -> Vec<Arc<str>> {
    let mut seen = BTreeSet::new();
    let files = tests.iter().filter_map(|&index| suite.test(index).file.clone());
    files.filter(|file| seen.insert(file.clone())).collect()
}

/// Other files of the suite that vitest would load too: those whose path contains a chosen path, ignoring case.
fn also_matched<'a>(chosen: &[Arc<str>], suite: &'a Suite) -> BTreeSet<&'a str> {
    let wanted: Vec<String> = chosen.iter().map(|file| file.to_lowercase()).collect();
    let mut others = BTreeSet::new();
    let mut last = "";
    for file in suite.tests().iter().filter_map(|test| test.file.as_deref()) {
        if file == last {
            continue;
        }
        last = file;
        let lower = file.to_lowercase();
        let is_chosen = || chosen.iter().any(|chosen| &**chosen == file);
        if wanted.iter().any(|part| lower.contains(part)) && !is_chosen() {
            others.insert(file);
        }
    }
    others
}

/// A file as a positional argument.
fn position(file: &str) -> String {
    if file.starts_with('-') { format!("./{file}") } else { file.to_owned() }
}

/// The errors of files that did not load, each limited to a few lines.
fn broken(files: &[CollectedFile]) -> Option<String> {
    let texts = files.iter().filter_map(|file| {
        let message = plain(file.error.as_deref()?);
        let lines = message.lines().map(str::trim_end).filter(|line| !line.is_empty()).take(ERROR_LINES);
        Some(format!("{}: {}", file.file, lines.collect::<Vec<_>>().join("\n    ")))
    });
    Some(texts.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
