//! Hints beside the results: how to run failed tests again, and which tests an unknown result may belong to.

use std::path::Path;

use crate::error::printable;
use crate::framework::{Commands, Facts};
use crate::model::{Suite, TestIndex, Verdict};
use crate::summary::Summary;
use crate::words::count;

/// With more failed tests than this, no command to run them again is shown.
const SHOWN_AGAIN: usize = 20;
/// How many known IDs are suggested.
const NEAREST: usize = 3;

/// The commands that run the failed tests again, one per group, unless there are too many for a line.
pub fn again(commands: &Commands<'_>, summary: &Summary, root: &Path) -> Vec<String> {
    let is_failed = |verdict: &Verdict| matches!(verdict, Verdict::Failed | Verdict::NotRun(_));
    let verdicts = commands.suite.indices().zip(&summary.verdicts);
    let mut failed: Vec<TestIndex> =
        verdicts.filter(|(_, verdict)| is_failed(verdict)).map(|(index, _)| index).collect();
    if !(1..=SHOWN_AGAIN).contains(&failed.len()) {
        return Vec::new();
    }
    failed.sort_by_key(|index| (commands.suite.test(*index).group, *index));
    let here = std::env::current_dir().ok().and_then(|current| current.canonicalize().ok());
    let move_there = match root.canonicalize() {
        Ok(root) if here.is_some_and(|here| here != root) => {
            format!("cd {} && ", shell_words::quote(&root.to_string_lossy()))
        }
        _ => String::new(),
    };
    let groups =
        failed.chunk_by(|one, other| commands.suite.test(*one).group == commands.suite.test(*other).group);
    let lines = groups.map(|tests| {
        let facts = tests.first().map(|index| commands.suite.test(*index).group);
        let facts = facts.map_or_else(Facts::new, |group| commands.facts[usize::from(group.0)].clone());
        format!("{move_there}{}", commands.framework.by_hand(tests, commands.suite, &facts))
    });
    // A line that cannot be shown exactly cannot be copied either.
    lines.filter(|line| printable(line) == *line).collect()
}

/// Warns once about results for unknown tests, with the most similar known IDs.
pub fn warn_of_extras(summary: &Summary, suite: &Suite) {
    let Some(extra) = summary.extras.first() else {
        return;
    };
    let mut known: Vec<(usize, &str)> = suite
        .tests()
        .iter()
        .map(|test| (strsim::levenshtein(&extra.name, test.id.as_str()), test.id.as_str()))
        .collect();
    known.sort_unstable();
    let nearest: Vec<String> = known.iter().take(NEAREST).map(|(_, id)| format!("`{id}`")).collect();
    let results = count(summary.extras.len(), "result");
    let name =
        if extra.name.is_empty() { "a case without a name".into() } else { format!("`{}`", extra.name) };
    log::warn!(
        "found {results} for tests that were not discovered, first {name}; similar test IDs: {} \
         (`test_id_format` maps names to IDs)",
        nearest.join(", ")
    );
}
