//! pytest, on unmodified projects.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{CommandLine, InputFile, StopSignal};
use crate::event::ReportFile;
use crate::framework::{
    BatchContext, Facts, Framework, ListCommand, ListOutput, Listed, Listing, Matcher, RunCommand,
    describe_failure, format_id, indexed, split_words,
};
use crate::junit::Case;
use crate::model::{Exit, Group, GroupIndex, Suite, TestIndex};

mod selection;

use selection::{Name, Naming, Selection};

/// Reports what pytest collected; see the file.
const COLLECT: &str = include_str!("../../scripts/bundled/offload_collect.py");
/// Runs only the selected tests; see the file.
const SELECT: &str = include_str!("../../scripts/bundled/offload_select.py");

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

/// The output of the collecting plugin.
#[derive(Deserialize)]
struct Collected {
    root: String,
    config: Option<String>,
    xdist: bool,
    /// Maps the first part of a node id to the file as named on a command line.
    files: HashMap<String, Arc<str>>,
    tests: Vec<Arc<str>>,
    groups: Vec<Vec<usize>>,
}

/// The values of `-k` and `-m`, if `filters` has no other arguments.
fn keyword_and_markers(filters: &str) -> Option<[String; 2]> {
    let words = shell_words::split(filters).ok()?;
    let mut chosen = [String::new(), String::new()];
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let place = match word.get(..2)? {
            "-k" => 0,
            "-m" => 1,
            _ => return None,
        };
        chosen[place] = match &word[2..] {
            "" => words.next()?,
            value => value.strip_prefix('=').unwrap_or(value).to_owned(),
        };
    }
    Some(chosen)
}

fn join(first: &str, rest: Option<&String>, mark: char) -> String {
    match rest {
        Some(rest) if !rest.is_empty() => format!("{first}{mark}{rest}"),
        _ => first.to_owned(),
    }
}

impl Pytest {
    fn list(
        &self,
        groups: Vec<GroupIndex>,
        filters: Vec<String>,
        choices: &[Option<[String; 2]>],
        directory: &Path,
    ) -> ListCommand {
        let directory = directory.join(format!("collect-{}", groups.first().map_or(0, |group| group.0)));
        let output = directory.join("collected.json");
        let words = self.command.iter().cloned().chain(self.paths.iter().cloned()).chain(filters);
        // This overrides the verbosity in `addopts`, so that without the plugin, stdout has one id per line.
        let words = words
            .chain(["--collect-only".into(), "--verbosity=-1".into()])
            .chain(self.discovery_args.iter().cloned());
        let mut command = CommandLine::program(words);
        let request = serde_json::json!({"output": output, "groups": choices});
        command.files.push(InputFile { path: directory.join("offload_collect.py"), content: COLLECT.into() });
        command.env = vec![
            (
                "PYTHONPATH".into(),
                join(&directory.to_string_lossy(), self.inherited.python_path.as_ref(), ':'),
            ),
            ("PYTEST_PLUGINS".into(), join("offload_collect", self.inherited.plugins.as_ref(), ',')),
            ("OFFLOAD_COLLECT".into(), request.to_string()),
        ];
        ListCommand { groups, command, output: Some(output) }
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
        // 5 means that no tests were collected.
        if !matches!(output.exit, Exit::Code(0 | 5)) {
            if output.stderr.contains("No module named 'offload_collect'") {
                bail!(
                    "pytest cannot import the plugin that lists its tests; `command` must not ignore PYTHONPATH, \
                     as `python -I` and `python -E` do"
                );
            }
            bail!("the command {}", describe_failure(output));
        }
        let Some(file) = &output.file else {
            return Ok(from_stdout(command, &output.stdout));
        };
        let collected: Collected =
            serde_json::from_str(file).context("cannot parse the tests that pytest collected")?;
        let mut facts = Facts::from([("root".to_owned(), collected.root)]);
        facts.extend(collected.config.map(|config| ("config".to_owned(), config)));
        if collected.xdist {
            facts.insert("xdist".into(), String::new());
        }
        let mut listing = Listing { facts, ..Listing::default() };
        for (&group, members) in command.groups.iter().zip(&collected.groups) {
            for id in members.iter().filter_map(|&member| collected.tests.get(member)) {
                let part = id.split("::").next().unwrap_or_default();
                let file = collected.files.get(part).cloned();
                listing.tests.push(Listed::new(group, Arc::clone(id), file));
            }
        }
        Ok(listing)
    }

    fn run_command(&self, tests: &[TestIndex], context: &BatchContext<'_>) -> RunCommand {
        let group = context.group;
        let report = context.scratch.join("junit.xml");
        let mut words = self.command.clone();
        // pytest's root and configuration must not depend on the files in a batch.
        if let Some(config) = context.facts.get("config") {
            words.extend(["-c".into(), config.clone()]);
        }
        if let Some(root) = context.facts.get("root") {
            words.push(format!("--rootdir={root}"));
        }
        words.push(format!("--junitxml={}", report.display()));
        words.extend(
            ["--junitprefix=", "-o", "junit_logging=all", "-o", "junit_log_passing_tests=false"]
                .map(Into::into),
        );
        words.extend(self.run_args.iter().cloned());
        // The filters could be split during discovery.
        words.extend(split_words(&context.suite.group(group).filters, "the filters").unwrap_or_default());
        if context.facts.contains_key("xdist") {
            words.extend(["-n".into(), "0".into()]);
        }
        if context.fail_fast {
            words.push("-x".into());
        }
        let chosen = !self.discovery_args.is_empty() || self.paths.iter().any(|path| path.contains("::"));
        let naming = if chosen { Naming::Exact } else { Naming::Short };
        let selection = Selection::new(tests, group, context.suite, naming);
        // Other filters than `-k` and `-m` may name files of other batches.
        let plain = keyword_and_markers(&context.suite.group(group).filters).is_some();
        // If the collecting plugin could be loaded, the selecting one can be, too.
        let plugin = context.facts.contains_key("root") && !(selection.is_whole() && plain);
        let mut files = Vec::new();
        let mut env = Vec::new();
        if plugin {
            let directory = context.scratch.join("select");
            words.extend(["-p".into(), "offload_select".into()]);
            let inherited = self.inherited.python_path.as_ref().filter(|_| context.shared.is_some());
            env.push(("PYTHONPATH".into(), join(&directory.to_string_lossy(), inherited, ':')));
            files.push(InputFile { path: directory.join("offload_select.py"), content: SELECT.into() });
            files.push(InputFile { path: directory.join("selected.json"), content: selection.to_json() });
            words.extend(selection.files());
        } else {
            words.extend(selection.arguments());
        }
        let command = CommandLine { files, env, stop: STOP, ..CommandLine::program(words) };
        RunCommand { command, report: Some(ReportFile::junit(report)) }
    }

    fn matcher<'a>(&'a self, tests: &[TestIndex], context: &BatchContext<'a>) -> Box<dyn Matcher + 'a> {
        let mut pairs: HashMap<(String, String), TestIndex> = HashMap::with_capacity(tests.len());
        for &index in tests {
            pairs.entry(pair(&context.suite.test(index).native)).or_insert(index);
        }
        Box::new(ByPair { suite: context.suite, group: context.group, format: &self.test_id_format, pairs })
    }

    fn by_hand(&self, tests: &[TestIndex], suite: &Suite) -> String {
        let names = tests.iter().map(|index| suite.test(*index));
        let names = names.map(|test| Name::of(test).argument().into_owned());
        shell_words::join(self.command.iter().cloned().chain(names))
    }
}

/// The ids that pytest printed if the plugin could not write them.
fn from_stdout(command: &ListCommand, stdout: &str) -> Listing {
    let [group] = command.groups[..] else {
        return Listing { separately: true, ..Listing::default() };
    };
    let ids = stdout.lines().take_while(|line| !line.is_empty()).filter(|line| line.contains("::"));
    let list = |id: &str| {
        let file = id.split("::").next().map(Arc::from);
        Listed::new(group, id, file)
    };
    Listing { tests: ids.map(list).collect(), ..Listing::default() }
}

/// The `classname` and `name` in pytest's report for a node id (its `mangle_test_address`).
fn pair(id: &str) -> (String, String) {
    let (address, parameters) = match id.find('[') {
        Some(place) => id.split_at(place),
        None => (id, ""),
    };
    let mut names: Vec<String> = address.split("::").map(str::to_owned).collect();
    let file = names[0].replace('/', ".");
    names[0] = file.strip_suffix(".py").map(str::to_owned).unwrap_or(file);
    let name = names.pop().unwrap_or_default() + parameters;
    (names.join("."), escape(&name))
}

/// Escapes characters that XML forbids, like pytest (its `bin_xml_escape`).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let allowed = matches!(character,
            '\t' | '\n' | '\r' | ' '..='~' | '\u{80}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if allowed {
            escaped.push(character);
        } else {
            let code = u32::from(character);
            escaped += &if code <= 0xff { format!("#x{code:02X}") } else { format!("#x{code:04X}") };
        }
    }
    escaped
}

struct ByPair<'a> {
    suite: &'a Suite,
    group: GroupIndex,
    format: &'a str,
    pairs: HashMap<(String, String), TestIndex>,
}

impl Matcher for ByPair<'_> {
    fn find(&self, case: &Case) -> Option<TestIndex> {
        let by_format =
            self.suite.find_native(self.group, &format_id(self.format, &case.classname, &case.name));
        by_format.or_else(|| self.pairs.get(&(case.classname.clone(), case.name.clone())).copied())
    }

    fn name(&self, case: &Case) -> String {
        if case.classname.is_empty() {
            case.name.clone()
        } else {
            format!("{}::{}", case.classname, case.name)
        }
    }

    fn may_report_too_early(&self) -> bool {
        // An interrupted teardown leaves no trace in the report.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_give_the_names_that_pytest_writes() {
        let cases = [
            (
                "tests/unit/test_a.py::TestX::test_y[a::b/c.py-1]",
                "tests.unit.test_a.TestX",
                "test_y[a::b/c.py-1]",
            ),
            ("test_a.py::test_y[\u{1b}x\u{7f}]", "test_a", "test_y[#x1Bx#x7F]"),
            ("README.rst::README.rst", "README.rst", "README.rst"),
        ];
        for (id, classname, name) in cases {
            assert_eq!(pair(id), (classname.into(), name.into()), "{id}");
        }
    }

    #[test]
    fn only_keyword_and_marker_filters_share_a_collection() {
        let words = |keyword: &str, markers: &str| Some([keyword.to_owned(), markers.to_owned()]);
        assert_eq!(keyword_and_markers(""), words("", ""));
        assert_eq!(keyword_and_markers("-m 'not slow' -k 'a and b'"), words("a and b", "not slow"));
        assert_eq!(keyword_and_markers("-mslow -k=x"), words("x", "slow"));
        for filters in ["--ignore=x", "tests/a.py", "-k", "-x", "-m 'open", "é"] {
            assert_eq!(keyword_and_markers(filters), None, "{filters}");
        }
    }
}
