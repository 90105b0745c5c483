//! cargo-nextest. Discovery builds and lists; local batches run what discovery built, without calling cargo's
//! resolver or compiler again.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    BatchContext, ByFormat, Framework, ListCommand, ListOutput, Listing, Matcher, RunCommand,
    describe_failure, format_id, indexed, name_in_id, split_words,
};
use crate::command::{CommandLine, InputFile, StopSignal};
use crate::config;
use crate::event::ReportFile;
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

mod arguments;
mod listing;
mod project;

use arguments::Arguments;

/// The profile of batches that would otherwise use the default profile, from which it inherits.
const PROFILE: &str = "offload";

/// The fact with the name of the shared file that contains the output of `cargo metadata`.
const METADATA: &str = "nextest.cargo-metadata";

/// The fact with the project's `nextest.toml`.
const CONFIG: &str = "nextest.config";

/// nextest passes the first SIGTERM on to its tests, each of which has a process group of its own, and kills
/// these groups on the second.
const STOP: &[StopSignal] = &[StopSignal::Terminate, StopSignal::Terminate];

/// cargo-nextest.
#[derive(Clone, Debug)]
pub struct Nextest {
    settings: Arguments,
    include_ignored: bool,
    discovery_args: Vec<String>,
    run_args: Arguments,
    profile: Option<String>,
    format: String,
}

impl Nextest {
    /// Reads `[framework]`, whose `type` is `nextest`.
    ///
    /// # Errors
    /// If arguments cannot be split into words.
    pub fn new(framework: &config::Framework) -> Result<Nextest> {
        let config::FrameworkKind::Nextest { package, features, bin, include_ignored, run_args } =
            &framework.kind
        else {
            bail!("`[framework]` is not of type `nextest`");
        };
        let mut words = Vec::new();
        for (option, value) in [("--package", package), ("--bin", bin)] {
            words.extend(value.iter().map(|value| format!("{option}={value}")));
        }
        if !features.is_empty() {
            words.push(format!("--features={}", features.join(",")));
        }
        let own = framework.env.iter().rev().find(|(name, _)| name == "NEXTEST_PROFILE");
        Ok(Nextest {
            settings: Arguments::parse(&words),
            include_ignored: *include_ignored,
            discovery_args: split_words(
                framework.discovery_args.as_deref().unwrap_or_default(),
                "`discovery_args`",
            )?,
            run_args: Arguments::parse(&split_words(run_args.as_deref().unwrap_or_default(), "`run_args`")?),
            profile: own.map(|(_, value)| value.clone()),
            format: framework.test_id_format.clone(),
        })
    }

    /// Sets the profile from an inherited `NEXTEST_PROFILE`; a variable set in `[framework]` takes precedence.
    #[must_use]
    pub fn with_profile(mut self, inherited: Option<String>) -> Nextest {
        self.profile = self.profile.or(inherited);
        self
    }

    /// The settings combined with the filters of `group`.
    fn arguments(&self, group: &Group) -> Arguments {
        let words = shell_words::split(&group.filters).unwrap_or_default();
        let mut arguments = self.settings.clone().join(Arguments::parse(&words));
        if self.include_ignored && !arguments.runner.iter().any(|word| word.starts_with("--run-ignored")) {
            arguments.runner.push("--run-ignored=all".to_owned());
        }
        arguments
    }

    /// The named profile to use; `None` for the default one.
    fn profile_of(&self, arguments: &Arguments) -> Option<String> {
        let named = arguments.profile.clone().or_else(|| self.profile.clone());
        named.filter(|name| !name.is_empty() && name != "default")
    }

    fn list_command(&self, group: &Group, index: GroupIndex) -> Result<ListCommand> {
        let filters = split_words(&group.filters, "the filters")?;
        let mut words: Vec<String> =
            ["cargo", "nextest", "list", "--message-format=json", "--color=never"].map(str::to_owned).into();
        words.extend(self.settings.build.iter().cloned());
        let chosen = Arguments::parse(&[self.discovery_args.as_slice(), &filters].concat());
        if self.include_ignored && !chosen.runner.iter().any(|word| word.starts_with("--run-ignored")) {
            words.push("--run-ignored=all".to_owned());
        }
        words.extend(self.discovery_args.iter().cloned());
        words.extend(filters);
        Ok(ListCommand { groups: vec![index], command: CommandLine::program(words), output: None })
    }

    /// Runs the `cargo metadata` that nextest would run, once for all batches, and copies the project's configuration
    /// if a batch may need to change it.
    fn facts_command(&self, groups: &[Group], scratch: &Path) -> ListCommand {
        let all: Vec<Arguments> = groups.iter().map(|group| self.arguments(group)).collect();
        let first = all.first().cloned().unwrap_or_default();
        let options = shell_words::join(&first.metadata);
        let target = match &first.target {
            Some(target) => format!("target={}", shell_words::quote(target)),
            None => "target=$(rustc -vV | sed -n 's/^host: //p')".to_owned(),
        };
        let copy = scratch.join("nextest-project.toml");
        let mut script = String::new();
        let named = all.iter().any(|arguments| self.batch_profile(arguments).is_some());
        if named {
            let copy = shell_words::quote(&copy.to_string_lossy()).into_owned();
            let source = match &first.config_file {
                Some(file) => shell_words::quote(file).into_owned(),
                None => {
                    let locate = format!("cargo locate-project --workspace --message-format=plain {options}");
                    script.push_str(&format!("manifest=$({locate}); "));
                    "\"${manifest%/*}/.config/nextest.toml\"".to_owned()
                }
            };
            script.push_str(&format!("if [ -f {source} ]; then cp {source} {copy}; fi; "));
        }
        script.push_str(&format!(
            "{target}; exec cargo metadata --format-version=1 --all-features {options} \
             ${{target:+--filter-platform \"$target\"}}"
        ));
        ListCommand { groups: Vec::new(), command: CommandLine::shell(script), output: named.then_some(copy) }
    }

    /// The named profile of batches of a group with these arguments.
    fn batch_profile(&self, arguments: &Arguments) -> Option<String> {
        self.profile_of(&arguments.clone().join(self.run_args.clone()))
    }

    /// `--cargo-metadata` and `--binaries-metadata`, if discovery built what the batch needs.
    fn reused(
        &self,
        group: GroupIndex,
        arguments: &Arguments,
        context: &BatchContext<'_>,
    ) -> Option<Vec<String>> {
        let first = self.arguments(context.suite.groups().first()?);
        let same = first.metadata == arguments.metadata && first.target == arguments.target;
        if !same || !self.run_args.build.is_empty() {
            return None;
        }
        let metadata = context.facts.get(METADATA)?;
        let binaries = context.facts.get(&binaries_fact(group))?;
        let shared = context.shared?;
        Some(vec![
            format!("--cargo-metadata={}", shared.join(metadata).display()),
            format!("--binaries-metadata={}", shared.join(binaries).display()),
        ])
    }

    /// The profile, configuration files and report of a batch. The project's configuration outranks a tool
    /// configuration, so if a named profile sets a JUnit path itself, it is replaced in a copy.
    fn configuration(
        &self,
        arguments: &Arguments,
        context: &BatchContext<'_>,
        report: &Path,
    ) -> Configuration {
        let path = toml_string(&report.to_string_lossy());
        let named = self.profile_of(arguments);
        let profile = named.clone().unwrap_or_else(|| PROFILE.to_owned());
        let mut words = vec![format!("--profile={profile}")];
        let mut files = Vec::new();
        let project = context.facts.get(CONFIG);
        let changed = named.and_then(|name| project::redirect(project?, &name, &path));
        if let Some(content) = changed {
            let copy = context.scratch.join("nextest.toml");
            words.push(format!("--config-file={}", copy.display()));
            files.push(InputFile { path: copy, content });
        } else {
            words.extend(arguments.config_file.iter().map(|file| format!("--config-file={file}")));
            let tool = context.scratch.join("offload-nextest.toml");
            words.push(format!("--tool-config-file=offload:{}", tool.display()));
            let content = format!("[profile.{}.junit]\npath = {path}\n", toml_string(&profile));
            files.push(InputFile { path: tool, content });
        }
        Configuration { words, files }
    }
}

/// The configuration of a batch.
struct Configuration {
    words: Vec<String>,
    files: Vec<InputFile>,
}

impl Framework for Nextest {
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>> {
        let lists = indexed(groups).map(|(index, group)| self.list_command(group, index));
        let mut commands = lists.collect::<Result<Vec<_>>>()?;
        commands.push(self.facts_command(groups, scratch));
        Ok(commands)
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        let mut listing = Listing::default();
        if let Some(&group) = command.groups.first() {
            if output.exit != Exit::Code(0) {
                bail!("cargo nextest list {}", describe_failure(output));
            }
            let read = listing::read(&output.stdout, |binary, name| self.id(binary, name), group)?;
            let name = format!("binaries-{}.json", group.0);
            listing.tests = read.tests;
            listing.facts.insert(binaries_fact(group), name.clone());
            listing.shared.push((name, read.binaries));
            return Ok(listing);
        }
        if let Some(text) = &output.file {
            listing.facts.insert(CONFIG.to_owned(), text.clone());
        }
        // Without this output, batches call cargo themselves.
        if output.exit == Exit::Code(0) && serde_json::from_str::<Value>(&output.stdout).is_ok() {
            listing.facts.insert(METADATA.to_owned(), "cargo-metadata.json".to_owned());
            listing.shared.push(("cargo-metadata.json".to_owned(), output.stdout.clone()));
        } else {
            let reason = describe_failure(output);
            listing.warnings.push(format!("batches have to build again, since cargo metadata {reason}"));
        }
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let group = context.group;
        let suite = context.suite;
        let arguments = self.arguments(suite.group(group));
        let selects = arguments.selects || Arguments::parse(&self.discovery_args).selects;
        let reused = self.reused(group, &arguments, context);
        let arguments = arguments.join(self.run_args.clone());
        let report = context.scratch.join("junit.xml");
        let configuration = self.configuration(&arguments, context, &report);

        let mut words: Vec<String> = ["cargo", "nextest", "run"].map(str::to_owned).into();
        words.extend(reused.unwrap_or(arguments.build));
        words.extend(configuration.words);
        words.extend(arguments.runner);
        words.push(if context.fail_fast { "--fail-fast" } else { "--no-fail-fast" }.to_owned());
        words.push(format!("--filterset={}", self.filterset(tests, group, suite, selects)));
        let mut command = CommandLine::program(words);
        command.files = configuration.files;
        command.stop = STOP;
        RunCommand { command, report: Some(ReportFile::junit(report)) }
    }

    fn matcher<'a>(&'a self, _tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(Named(ByFormat { suite: context.suite, group: context.group, format: &self.format }))
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite) -> String {
        let mut words: Vec<String> = ["cargo", "nextest", "run"].map(str::to_owned).into();
        let Some(group) = tests.first().map(|&index| suite.test(index).group) else {
            return words.join(" ");
        };
        let arguments = self.arguments(suite.group(group)).join(self.run_args.clone());
        words.extend(arguments.build);
        words.extend(arguments.profile.map(|profile| format!("--profile={profile}")));
        words.extend(arguments.config_file.map(|file| format!("--config-file={file}")));
        words.extend(arguments.runner);
        words.push(format!("--filterset={}", self.filterset(tests, group, suite, true)));
        shell_words::join(words)
    }
}

impl Nextest {
    fn id(&self, binary: &str, name: &str) -> String {
        format_id(&self.format, binary, name)
    }

    /// The expression that selects exactly `tests`. If all listed tests of a binary are wanted, only the binary is
    /// named, unless the group selects tests itself.
    fn filterset(&self, tests: &[TestIndex], group: GroupIndex, suite: &Suite, selects: bool) -> String {
        let mut binaries: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for &index in tests {
            let test = suite.test(index);
            let binary = test.file.as_deref().unwrap_or_default();
            let place = *places.entry(binary).or_insert_with(|| {
                binaries.push((binary, Vec::new()));
                binaries.len() - 1
            });
            let id = &*test.native;
            binaries[place].1.push(name_in_id(&self.format, id, binary).unwrap_or(id));
        }
        let is_whole =
            |binary: &str, count: usize| !selects && suite.listed_in(group, binary).count() == count;
        let terms = binaries.iter().map(|(binary, names)| {
            let binary_term = format!("binary_id(={})", escape(binary));
            if is_whole(binary, names.len()) {
                return binary_term;
            }
            let names: Vec<String> = names.iter().map(|name| format!("test(={})", escape(name))).collect();
            format!("({binary_term} & ({}))", names.join(" + "))
        });
        terms.collect::<Vec<_>>().join(" + ")
    }
}

/// Matches by format, but ignores setup scripts, which nextest reports like tests.
struct Named<'a>(ByFormat<'a>);

impl Matcher for Named<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        self.0.find(case)
    }

    fn name(&self, case: &Case) -> String {
        self.0.name(case)
    }

    fn is_extra(&self, case: &Case) -> bool {
        !case.classname.starts_with("@setup-script:")
    }
}

fn binaries_fact(group: GroupIndex) -> String {
    format!("nextest.binaries.{}", group.0)
}

/// A name for a filterset; characters with a possible meaning there are escaped by number.
fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_alphanumeric() || matches!(letter, '_' | ':' | '-' | '.') {
            text.push(letter);
        } else {
            text.push_str(&format!("\\u{{{:x}}}", u32::from(letter)));
        }
    }
    text
}

/// A TOML basic string, which has the same escapes as JSON.
fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
