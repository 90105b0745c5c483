//! How the tests of pytest are listed: commands, what our plugin or else stdout says, and what a listing saw.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::{FILES, PLUGIN, Pytest, plugin_in};
use crate::command::{CommandLine, InputFile};
use crate::framework::{Facts, ListCommand, ListOutput, Listed, Listing, LoadError, describe_failure};
use crate::model::{Exit, GroupIndex};

/// The values of `-k` and `-m`, if filters have no other arguments.
pub(super) type Choice = [String; 2];

/// So many lines of what pytest says of a file are shown.
const LINES: usize = 20;
/// The options that only select; a value follows.
const SELECTING: [&str; 6] = ["-k", "-m", "--ignore", "--ignore-glob", "--deselect", "--keyword"];

/// The fact that has what of the filters does more than select, and the one that has what arguments name.
pub(super) const FILTERS: &str = "filters";
pub(super) const NAMED: &str = "named";

/// The output of the plugin. It exists only if the list is whole.
#[derive(Deserialize)]
struct Collected {
    root: String,
    config: Option<String>,
    /// What of the filters does more than select.
    filters: Vec<String>,
    /// The arguments that name files, directories or tests.
    named: Vec<String>,
    xdist: bool,
    failures: Option<String>,
    run: String,
    /// Whether the project's own settings let tests run beside files that cannot be collected.
    goes_on: bool,
    /// Relative to the working directory.
    files: Vec<Arc<str>>,
    tests: Vec<CollectedTest>,
    /// The numbers of tests, for each group.
    groups: Vec<Vec<usize>>,
    errors: Vec<CollectionError>,
}

/// Node ID, number of the file, line, key.
#[derive(Deserialize)]
struct CollectedTest(Arc<str>, Option<usize>, Option<u32>, Option<Arc<str>>);

/// A file that cannot be collected.
#[derive(Deserialize)]
struct CollectionError {
    file: String,
    text: String,
}

/// The values of `-k` and `-m`, if `filters` has no other arguments.
pub(super) fn keyword_and_markers(filters: &str) -> Option<Choice> {
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

/// What of `filters` does more than select tests: nothing, or all words that are not known to select. Of a word
/// beside an unknown option nobody knows whether it is a path.
fn beyond_selecting(filters: &[String]) -> Vec<&str> {
    let mut others = Vec::new();
    let mut words = filters.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let is_short = ["-k", "-m"].iter().any(|option| word.starts_with(option));
        if SELECTING.contains(&word) {
            words.next();
        } else if !is_short && !SELECTING.contains(&word.split('=').next().unwrap_or_default()) {
            others.push(word);
        }
    }
    if others.iter().any(|word| word.starts_with('-')) { others } else { Vec::new() }
}

impl Pytest {
    /// The command that lists `groups`; `choices` has what the plugin is to choose for each.
    pub(super) fn list(
        &self,
        groups: Vec<GroupIndex>,
        filters: Vec<String>,
        choices: &[Option<Choice>],
        directory: &Path,
    ) -> ListCommand {
        let directory = directory.join(format!("collect-{}", groups.first().map_or(0, |group| group.0)));
        let output = directory.join("collected.json");
        // This overrides the verbosity in `addopts`, so that without the plugin, stdout has one id per line.
        let listing = ["--collect-only", "--verbosity=-1"].map(Into::into);
        let words = self.command.iter().chain(&self.paths).chain(&filters).cloned().chain(listing);
        let mut command = CommandLine::program(words.chain(self.discovery_args.iter().cloned()));
        command.files.extend(plugin_in(&directory));
        let order = json!({"mode": "list", "output": output, "groups": choices, "filters": beyond_selecting(&filters)});
        let order = InputFile { path: directory.join("order.json"), content: order.to_string() };
        self.load_plugin(&mut command, &directory, order, true);
        ListCommand { groups, command, output: Some(output) }
    }
}

pub(super) fn parse(command: &ListCommand, output: &ListOutput) -> Result<Listing> {
    let Some(file) = &output.file else { return without_plugin(command, output) };
    let collected: Collected =
        crate::record::parse(file.as_bytes()).context("cannot parse the tests that pytest collected")?;
    let errors = collected.errors.into_iter();
    let errors: Vec<LoadError> =
        errors.map(|error| LoadError { file: error.file, message: error.text }).collect();
    if !errors.is_empty() && !collected.goes_on {
        bail!("pytest cannot collect {}", errors.iter().map(describe).collect::<Vec<_>>().join("\n  and "));
    }
    let mut facts = Facts::from([("root".into(), collected.root.clone()), ("run".into(), collected.run)]);
    facts.extend(collected.xdist.then(|| ("xdist".into(), String::new())));
    facts.extend(collected.failures.map(|path| ("failures".into(), path)));
    for (name, words) in [(NAMED, &collected.named), (FILTERS, &collected.filters)] {
        facts.extend((!words.is_empty()).then(|| (name.into(), shell_words::join(words))));
    }
    let collection = json!([collected.root, collected.config, collected.filters]).to_string();
    let shared = FILES.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect();
    let mut listing = Listing { facts, errors, collection, shared, ..Listing::default() };
    for (&group, members) in command.groups.iter().zip(&collected.groups) {
        for CollectedTest(id, file, line, key) in
            members.iter().filter_map(|&member| collected.tests.get(member))
        {
            let file = file.and_then(|file| collected.files.get(file)).cloned();
            let test = Listed::new(group, Arc::clone(id), file);
            listing.tests.push(Listed { line: *line, key: key.clone(), ..test });
        }
    }
    Ok(listing)
}

fn describe(error: &LoadError) -> String {
    let lines: Vec<&str> = error.message.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n    {line}"));
    format!("`{}`:{}", error.file, end.collect::<String>())
}

/// pytest failed, or our plugin did not reach it.
fn without_plugin(command: &ListCommand, output: &ListOutput) -> Result<Listing> {
    // 5 means that no tests were collected.
    if matches!(output.exit, Exit::Code(0 | 5)) {
        return Ok(from_stdout(command, &output.stdout));
    }
    if output.stderr.contains(&format!("No module named '{PLUGIN}'")) {
        bail!(
            "pytest cannot import the plugin that lists its tests; `command` must not ignore PYTHONPATH, \
             as `python -I` and `python -E` do"
        );
    }
    bail!("the command {}", describe_failure(output));
}

/// The ids that pytest printed if the plugin could not write them.
fn from_stdout(command: &ListCommand, stdout: &str) -> Listing {
    let [group] = command.groups[..] else {
        return Listing { separately: true, ..Listing::default() };
    };
    let ids = stdout.lines().take_while(|line| !line.is_empty()).filter(|line| line.contains("::"));
    let list = |id: &str| Listed::new(group, id, id.split("::").next().map(Arc::from));
    // Nobody knows what it saw besides these ids.
    let collection = command.command.to_shell();
    Listing { tests: ids.map(list).collect(), collection, ..Listing::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn filters_that_only_select_leave_the_collection_as_it_is() {
        let beyond = |filters: &str| {
            let words = shell_words::split(filters).unwrap();
            beyond_selecting(&words).iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().join(" ")
        };
        for filters in ["", "-k a -m=b tests/x", "-ka --ignore x --ignore=y --deselect=z 'a b.py::c[-x]'"] {
            assert_eq!(beyond(filters), "", "{filters}");
        }
        assert_eq!(beyond("-k a --special -m b"), "--special");
        assert_eq!(beyond("--db sqlite -k a"), "--db sqlite");
        assert_eq!(beyond("-c x.ini tests"), "-c x.ini tests");
        assert_eq!(beyond("--marks -n0"), "--marks -n0");
    }
}
