//! Builds the commands of batches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BatchContext, Facts, Framework, RunCommand, Surroundings};
use crate::cancel::Cancel;
use crate::files::{Discarded, OutputDir};
use crate::mask::Mask;
use crate::model::{GroupIndex, Suite, TestIndex};
use crate::trace::Trace;

/// Builds commands for tests.
#[derive(Clone, Copy)]
pub struct Commands<'a> {
    /// The framework.
    pub framework: &'a dyn Framework,
    /// All tests.
    pub suite: &'a Suite,
    /// The facts from discovery, for each group.
    pub facts: &'a [Facts],
    /// The directory of files that batches share, if sandboxes see it.
    pub shared: Option<&'a Path>,
    /// The project's root in a sandbox.
    pub root: &'a str,
    /// The environment of the commands.
    pub surroundings: &'a Surroundings,
    /// Whether a runner should stop at its first failure.
    pub fail_fast: bool,
    /// The maximum number of sandboxes of the run.
    pub sandboxes: usize,
}

/// Where a batch runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The number of the sandbox, from 0.
    pub slot: usize,
    /// The private directory of the batch.
    pub scratch: &'a Path,
}

impl Commands<'_> {
    /// The context of a batch of `group` with the private directory `scratch`.
    pub fn context<'b>(&'b self, group: GroupIndex, scratch: &'b Path) -> BatchContext<'b> {
        BatchContext {
            suite: self.suite,
            group,
            facts: &self.facts[usize::from(group.0)],
            shared: self.shared,
            root: self.root,
            scratch,
            fail_fast: self.fail_fast,
        }
    }

    /// The command for `tests`, with its environment: that of the configuration, and what tells sandboxes apart that
    /// share a machine.
    pub fn command(&self, tests: &[TestIndex], group: GroupIndex, place: Place<'_>) -> RunCommand {
        let mut run = self.framework.run_command(tests, &self.context(group, place.scratch));
        self.surroundings.apply(&mut run.command, self.root);
        let numbers = [("OFFLOAD_SANDBOX", place.slot), ("OFFLOAD_SANDBOXES", self.sandboxes)];
        run.command.env.extend(numbers.map(|(name, number)| (name.to_owned(), number.to_string())));
        run
    }
}

/// What all batches of a run share.
pub struct RunSite<'a> {
    /// Builds the commands.
    pub commands: Commands<'a>,
    /// A private local directory.
    pub scratch: PathBuf,
    /// The prefix of the directories of batches in a sandbox, if it has its own files.
    pub inside: Option<PathBuf>,
    /// Where logs and downloads go.
    pub output: &'a OutputDir,
    /// The secrets to mask in logs.
    pub mask: Arc<Mask>,
    /// The timeline.
    pub trace: &'a Trace,
    /// Set to stop the run.
    pub stop: &'a Cancel,
    /// Reports that have been read.
    pub discarded: Discarded,
}

impl RunSite<'_> {
    /// The directory of a batch on this machine. It exists only if sandboxes see the files of this machine.
    pub fn scratch(&self, batch: u32) -> PathBuf {
        self.scratch.join(format!("batch-{batch}"))
    }

    /// Where the report of a batch is brought to.
    pub fn fetched(&self, batch: u32) -> PathBuf {
        self.scratch.join(format!("batch-{batch}.xml"))
    }

    /// Where files named `name` that came with the results of `group` are gathered.
    pub fn gathered(&self, group: GroupIndex, name: &str) -> PathBuf {
        let first = self.commands.suite.first_of_collection(group).0;
        self.scratch.join(format!("gathered/{first}/{name}"))
    }

    /// Removes the files of a batch that has been dealt with.
    pub fn forget(&self, batch: u32) {
        if self.inside.is_some() {
            self.discarded.add(&self.fetched(batch));
        } else {
            // What cannot be removed now is removed with its parent.
            let _ = std::fs::remove_dir_all(self.scratch(batch));
            let _ = std::fs::remove_file(self.fetched(batch));
        }
    }

    /// The directory of a batch in its sandbox.
    pub fn inside(&self, batch: u32) -> PathBuf {
        self.inside.as_ref().map_or_else(
            || self.scratch(batch),
            |prefix| PathBuf::from(format!("{}-batch-{batch}", prefix.display())),
        )
    }
}
