//! cargo-nextest. Discovery builds and lists; local batches run what discovery built, without calling cargo's
//! resolver or compiler again.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    BatchContext, ByFormat, Facts, Framework, ListCommand, ListOutput, Listed, Listing, Matcher, Meaning,
    RunCommand, describe_failure, format_id, indexed, name_in_id, split_words,
};
use crate::command::{CommandLine, Executable, InputFile, StopSignal};
use crate::config;
use crate::event::ReportFile;
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

mod arguments;
mod facts;
mod listing;
mod outcome;
mod project;

use arguments::{Arguments, Prebuilt, without_extraction};
use facts::Sources;
use outcome::Named;

/// The profile of batches that would otherwise use the default profile, from which it inherits.
const PROFILE: &str = "offload";

/// Facts of groups with the same sources, each with the number of the first of these groups after it.
///
/// The name of the shared file that contains the output of `cargo metadata`.
const METADATA: &str = "nextest.cargo-metadata";
/// The project's `nextest.toml`.
const CONFIG: &str = "nextest.config";
/// The start of the name of the file with a copy of it.
const CONFIG_COPY: &str = "nextest-project-";

/// The fact of one group: the name of the shared file that describes its binaries.
const BINARIES: &str = "nextest.binaries";

/// How each list command starts.
const LIST: [&str; 5] = ["cargo", "nextest", "list", "--message-format=json", "--color=never"];

/// nextest passes the first SIGTERM on to its tests, each of which has a process group of its own, and kills
/// these groups on the second.
const STOP: &[StopSignal] = &[StopSignal::Terminate, StopSignal::Terminate];

/// cargo-nextest.
#[derive(Clone, Debug)]
pub struct Nextest {
    settings: Arguments,
    include_ignored: bool,
    discovery_args: Vec<String>,
    discovery: Arguments,
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
        let discovery_args =
            split_words(framework.discovery_args.as_deref().unwrap_or_default(), "`discovery_args`")?;
        let run_args = split_words(run_args.as_deref().unwrap_or_default(), "`run_args`")?;
        let own = framework.env.iter().rev().find(|(name, _)| name == "NEXTEST_PROFILE");
        Ok(Nextest {
            settings: Arguments::parse(&words)?,
            include_ignored: *include_ignored,
            discovery: Arguments::parse(&discovery_args).context("`discovery_args`")?,
            discovery_args,
            run_args: Arguments::parse(&run_args).context("`run_args`")?,
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
        // What cannot be read is an error of the listing.
        let filters = filters(group).map(|(_, filters)| filters).unwrap_or_default();
        let mut arguments = self.settings.clone().join(filters);
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
        let (filters, sorted) = filters(group)?;
        let mut words: Vec<String> = LIST.map(str::to_owned).into();
        words.extend(self.settings.build.iter().cloned());
        let chosen = self.discovery.clone().join(sorted);
        if self.include_ignored && !chosen.runner.iter().any(|word| word.starts_with("--run-ignored")) {
            words.push("--run-ignored=all".to_owned());
        }
        words.extend(without_extraction(&self.discovery_args));
        words.extend(without_extraction(&filters));
        Ok(ListCommand { groups: vec![index], command: CommandLine::program(words), output: None })
    }

    /// The number of the first of `groups` whose facts are also those of a group with these arguments.
    fn sources(&self, groups: &[Group], arguments: &Arguments) -> GroupIndex {
        let wanted = Sources::of(arguments);
        let first = indexed(groups).find(|(_, group)| Sources::of(&self.arguments(group)) == wanted);
        first.map_or(GroupIndex(0), |(index, _)| index)
    }

    /// Gathers the facts of all groups whose sources are those of the group at `index`.
    fn facts_command(&self, groups: &[Group], index: GroupIndex, scratch: &Path) -> Option<ListCommand> {
        let arguments = |group: &Group| self.arguments(group);
        let sources = Sources::of(&arguments(groups.get(usize::from(index.0))?));
        let mut members = groups.iter().map(arguments).filter(|other| Sources::of(other) == sources);
        let named = members.any(|arguments| self.batch_profile(&arguments).is_some());
        let copy = scratch.join(format!("{CONFIG_COPY}{}.toml", index.0));
        let command = sources.command(named.then_some(&copy))?;
        Some(ListCommand { groups: Vec::new(), command, output: Some(copy) })
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
        // What was extracted for the listing is gone with it.
        let is_built = arguments.prebuilt.is_none() && self.discovery.prebuilt.is_none();
        if !is_built || !self.run_args.build.is_empty() {
            return None;
        }
        let sources = self.sources(context.suite.groups(), arguments);
        let metadata = context.facts.get(&fact(METADATA, sources))?;
        let binaries = context.facts.get(&fact(BINARIES, group))?;
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
        sources: GroupIndex,
        context: &BatchContext<'_>,
        report: &Path,
    ) -> Configuration {
        let path = toml_string(&report.to_string_lossy());
        let named = self.profile_of(arguments);
        let profile = named.clone().unwrap_or_else(|| PROFILE.to_owned());
        let mut words = vec![format!("--profile={profile}")];
        let mut files = Vec::new();
        let project = context.facts.get(&fact(CONFIG, sources));
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
        let first =
            indexed(groups).filter(|(index, group)| self.sources(groups, &self.arguments(group)) == *index);
        commands.extend(first.filter_map(|(index, _)| self.facts_command(groups, index, scratch)));
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
            listing.collection = collection(&command.command);
            listing.tests = read.tests;
            listing.facts.insert(fact(BINARIES, group), name.clone());
            listing.shared.push((name, read.binaries));
            return Ok(listing);
        }
        let sources = number_in(command.output.as_deref()).context("not a command of this framework")?;
        if let Some(text) = &output.file {
            listing.facts.insert(fact(CONFIG, sources), text.clone());
        }
        if output.exit == Exit::Code(0) && output.stdout.is_empty() {
            return Ok(listing);
        }
        // Without this output, batches call cargo themselves.
        if output.exit == Exit::Code(0) && serde_json::from_str::<Value>(&output.stdout).is_ok() {
            let name = format!("cargo-metadata-{}.json", sources.0);
            listing.facts.insert(fact(METADATA, sources), name.clone());
            listing.shared.push((name, output.stdout.clone()));
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
        let selects = arguments.selects || self.discovery.selects;
        let reused = self.reused(group, &arguments, context);
        let sources = self.sources(suite.groups(), &arguments);
        let arguments = arguments.join(self.run_args.clone());
        let report = context.scratch.join("junit.xml");
        let configuration = self.configuration(&arguments, sources, context, &report);

        let mut words: Vec<String> = ["cargo", "nextest", "run"].map(str::to_owned).into();
        words.extend(reused.unwrap_or(arguments.build));
        if arguments.prebuilt == Some(Prebuilt::Archive) {
            words.push(format!("--extract-to={}", context.scratch.display()));
        }
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

    fn meaning(&self, exit: Exit) -> Meaning {
        outcome::meaning(exit)
    }

    /// The module.
    fn class(&self, test: &Listed) -> Option<String> {
        let binary = test.file.as_deref()?;
        let module = name_in_id(&self.format, &test.native, binary)?.rsplit_once("::");
        Some(module.map_or_else(|| binary.to_owned(), |(module, _)| format!("{binary} {module}")))
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite, _facts: &Facts) -> String {
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

/// What a list command does besides selecting tests.
fn collection(command: &CommandLine) -> String {
    let Executable::Program(words) = &command.executable else { return String::new() };
    let arguments = words.get(LIST.len()..).map(Arguments::parse);
    // What cannot be read was refused when the command was made.
    arguments.and_then(Result::ok).map(|arguments| shell_words::join(arguments.more)).unwrap_or_default()
}

/// The key of the fact `name` of a group.
fn fact(name: &str, group: GroupIndex) -> String {
    format!("{name}.{}", group.0)
}

/// The number of the group in the name of the copy of a configuration.
fn number_in(copy: Option<&Path>) -> Option<GroupIndex> {
    let name = copy?.file_stem()?.to_str()?;
    name.strip_prefix(CONFIG_COPY)?.parse().ok().map(GroupIndex)
}

/// The filters of a group as words, and sorted.
fn filters(group: &Group) -> Result<(Vec<String>, Arguments)> {
    let words = split_words(&group.filters, "the filters")?;
    let sorted =
        Arguments::parse(&words).with_context(|| format!("the filters of group `{}`", group.name))?;
    Ok((words, sorted))
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
