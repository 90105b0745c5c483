//! What a tool itself remembers of the last run, for commands of its own such as `pytest --lf`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::files;
use crate::framework::{Commands, Ran};
use crate::model::Verdict;
use crate::summary::Summary;

/// Tells each collection's tool which of its tests failed. Batches do not: none of them knows all.
pub(super) fn note(commands: &Commands<'_>, summary: &Summary) {
    let mut files: BTreeMap<PathBuf, Vec<Ran<'_>>> = BTreeMap::new();
    for (index, verdict) in commands.suite.indices().zip(&summary.verdicts) {
        let test = commands.suite.test(index);
        let has_failed = match verdict {
            Verdict::NotRun(_) => continue,
            verdict => *verdict == Verdict::Failed,
        };
        let facts = &commands.facts[usize::from(test.group.0)];
        if let Some(path) = commands.framework.failures_file(facts) {
            files.entry(path).or_default().push(Ran { native: &test.native, has_failed });
        }
    }
    for (path, tests) in files {
        if let Err(error) = write(commands, &path, &tests) {
            log::warn!("cannot note what failed: {error:#}");
        }
    }
}

fn write(commands: &Commands<'_>, path: &std::path::Path, tests: &[Ran<'_>]) -> Result<()> {
    let old = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read `{}`", path.display()))?,
    };
    let Some(new) = commands.framework.failures_content(&old, tests) else { return Ok(()) };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
    }
    files::write_whole(path, |writer| writer.write_all(new.as_bytes()))
}
