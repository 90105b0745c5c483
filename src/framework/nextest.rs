//! cargo-nextest. Discovery builds and lists; local batches run what discovery built, and ask cargo
//! nothing.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    BatchContext, ByFormat, Framework, ListCommand, ListOutput, Listing, Matcher, RunCommand,
    describe_failure,
};
use crate::command::{CommandLine, InputFile, StopSignal};
use crate::config;
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

mod arguments;
mod listing;
mod project;

use arguments::Arguments;

/// The profile of batches where the project's default profile is in force; what it does not set comes
/// from there.
const PROFILE: &str = "offload";

/// The fact and the shared file with the answer of `cargo metadata`.
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
    /// When arguments cannot be split into words.
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
            discovery_args: split(framework.discovery_args.as_deref(), "discovery_args")?,
            run_args: Arguments::parse(&split(run_args.as_deref(), "run_args")?),
            profile: own.map(|(_, value)| value.clone()),
            format: framework.test_id_format.clone(),
        })
    }

    /// Tells which profile `NEXTEST_PROFILE` names in the environment that commands find; what
    /// `[framework]` sets goes before it.
    #[must_use]
    pub fn with_profile(mut self, inherited: Option<String>) -> Nextest {
        self.profile = self.profile.or(inherited);
        self
    }

    /// What the settings and the filters of `group` say together.
    fn arguments(&self, group: &Group) -> Arguments {
        let words = shell_words::split(&group.filters).unwrap_or_default();
        let mut arguments = self.settings.clone().join(Arguments::parse(&words));
        if self.include_ignored && !arguments.runner.iter().any(|word| word.starts_with("--run-ignored")) {
            arguments.runner.push("--run-ignored=all".to_owned());
        }
        arguments
    }

    /// The profile of a batch; `None` is the default one.
    fn profile_of(&self, arguments: &Arguments) -> Option<String> {
        let named = arguments.profile.clone().or_else(|| self.profile.clone());
        named.filter(|name| !name.is_empty() && name != "default")
    }

    fn list_command(&self, group: &Group, index: GroupIndex) -> Result<ListCommand> {
        let filters = shell_words::split(&group.filters)
            .with_context(|| format!("cannot split the filters of group `{}`", group.name))?;
        let mut words: Vec<String> =
            ["cargo", "nextest", "list", "--message-format=json", "--color=never"].map(str::to_owned).into();
        words.extend(self.settings.build.iter().cloned());
        let said = Arguments::parse(&[self.discovery_args.as_slice(), &filters].concat());
        if self.include_ignored && !said.runner.iter().any(|word| word.starts_with("--run-ignored")) {
            words.push("--run-ignored=all".to_owned());
        }
        words.extend(self.discovery_args.iter().cloned());
        words.extend(filters);
        Ok(ListCommand { groups: vec![index], command: CommandLine::program(words), output: None })
    }

    /// Asks cargo what nextest asks it, once, and copies the project's configuration where a batch may
    /// need to change it.
    fn facts_command(&self, groups: &[Group], scratch: &Path) -> ListCommand {
        let all: Vec<Arguments> = groups.iter().map(|group| self.arguments(group)).collect();
        let first = all.first().cloned().unwrap_or_default();
        let options = shell_words::join(&first.metadata);
        let target = match &first.target {
            Some(target) => format!("target={}", shell_words::quote(target)),
            None => "target=$(rustc -vV | sed -n 's/^host: //p')".to_owned(),
        };
        let copy = scratch.join("nextest-project.toml");
        let mut text = String::new();
        let named = all.iter().any(|arguments| self.batch_profile(arguments).is_some());
        if named {
            let copy = shell_words::quote(&copy.to_string_lossy()).into_owned();
            let source = match &first.config_file {
                Some(file) => shell_words::quote(file).into_owned(),
                None => {
                    let locate = format!("cargo locate-project --workspace --message-format=plain {options}");
                    text.push_str(&format!("manifest=$({locate}); "));
                    "\"${manifest%/*}/.config/nextest.toml\"".to_owned()
                }
            };
            text.push_str(&format!("if [ -f {source} ]; then cp {source} {copy}; fi; "));
        }
        text.push_str(&format!(
            "{target}; exec cargo metadata --format-version=1 --all-features {options} \
             ${{target:+--filter-platform \"$target\"}}"
        ));
        ListCommand { groups: Vec::new(), command: CommandLine::shell(text), output: named.then_some(copy) }
    }

    /// The profile that batches of a group with these arguments take.
    fn batch_profile(&self, arguments: &Arguments) -> Option<String> {
        self.profile_of(&arguments.clone().join(self.run_args.clone()))
    }

    /// `--cargo-metadata` and `--binaries-metadata`, where discovery built what the batch needs.
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

    /// Profile, configuration files and where the report goes. The project's configuration outranks a
    /// tool's, so a JUnit path that a named profile sets itself is replaced in a copy.
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

/// What a batch is told beside its tests.
struct Configuration {
    words: Vec<String>,
    files: Vec<InputFile>,
}

impl Framework for Nextest {
    fn list_commands(&self, groups: &[Group], scratch: &Path) -> Result<Vec<ListCommand>> {
        let numbered = (0..).map(GroupIndex).zip(groups);
        let lists: Result<Vec<_>> = numbered.map(|(index, group)| self.list_command(group, index)).collect();
        let mut commands = lists?;
        commands.push(self.facts_command(groups, scratch));
        Ok(commands)
    }

    fn parse_list(&self, command: &ListCommand, output: &ListOutput) -> Result<Listing> {
        let mut listing = Listing::default();
        if let Some(&group) = command.groups.first() {
            if output.exit != Exit::Code(0) {
                bail!("cargo nextest list failed: {}", describe_failure(output));
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
        // Without this answer batches ask cargo themselves.
        if output.exit == Exit::Code(0) && serde_json::from_str::<Value>(&output.stdout).is_ok() {
            listing.facts.insert(METADATA.to_owned(), "cargo-metadata.json".to_owned());
            listing.shared.push(("cargo-metadata.json".to_owned(), output.stdout.clone()));
        } else {
            let reason = describe_failure(output);
            listing.warnings.push(format!("cargo metadata failed, so batches build again: {reason}"));
        }
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], group: GroupIndex, context: &BatchContext<'_>) -> RunCommand {
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
        RunCommand { command, report: Some(report) }
    }

    fn matcher<'a>(&'a self, _tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        Box::new(Named(ByFormat { suite: context.suite, format: &self.format }))
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
        self.format.replace("{classname}", binary).replace("{name}", name)
    }

    /// The expression that selects `tests` and no other; a binary of which all listed tests are wanted
    /// is named alone, unless the group selects among them.
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
            binaries[place].1.push(self.name_of(test.id.as_str(), binary));
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

    /// The name within the binary: the id without what the format adds.
    fn name_of<'a>(&self, id: &'a str, binary: &str) -> &'a str {
        let Some((before, after)) = self.format.split_once("{name}") else {
            return id;
        };
        let before = before.replace("{classname}", binary);
        let after = after.replace("{classname}", binary);
        id.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str())).unwrap_or(id)
    }
}

/// By format; setup scripts, which nextest reports like tests, are none.
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

fn split(text: Option<&str>, key: &str) -> Result<Vec<String>> {
    shell_words::split(text.unwrap_or_default())
        .with_context(|| format!("cannot split `{key}` of `[framework]` into words"))
}

/// A name within a filterset: whatever could mean something there is written by its number.
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

/// A TOML basic string; JSON writes the same ones.
fn toml_string(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
