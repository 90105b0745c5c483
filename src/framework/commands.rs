//! Turns a batch into the command that runs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BatchContext, Facts, Framework, RunCommand, Surroundings};
use crate::cancel::Cancel;
use crate::files::OutputDir;
use crate::mask::Mask;
use crate::model::{GroupIndex, Suite, TestIndex};
use crate::trace::Trace;

/// Turns tests into commands.
#[derive(Clone, Copy)]
pub struct Commands<'a> {
    /// Builds them.
    pub framework: &'a dyn Framework,
    /// All tests.
    pub suite: &'a Suite,
    /// What discovery found out.
    pub facts: &'a Facts,
    /// The directory of files that batches share, where sandboxes see it.
    pub shared: Option<&'a Path>,
    /// The project's root in a sandbox.
    pub root: &'a str,
    /// Variables and search path.
    pub surroundings: &'a Surroundings,
    /// Stop a runner at its first failure.
    pub fail_fast: bool,
}

impl Commands<'_> {
    /// The context in which a command for `scratch` is built.
    pub fn context<'b>(&'b self, scratch: &'b Path) -> BatchContext<'b> {
        BatchContext {
            suite: self.suite,
            facts: self.facts,
            shared: self.shared,
            root: self.root,
            scratch,
            fail_fast: self.fail_fast,
        }
    }

    /// The command of these tests, in its surroundings.
    pub fn command(&self, tests: &[TestIndex], group: GroupIndex, scratch: &Path) -> RunCommand {
        let mut run = self.framework.run_command(tests, group, &self.context(scratch));
        self.surroundings.apply(&mut run.command, self.root);
        run
    }
}

/// What all batches of a run have in common.
pub struct RunSite<'a> {
    /// Builds the commands.
    pub commands: Commands<'a>,
    /// A private local directory.
    pub scratch: PathBuf,
    /// What the directories of batches in a sandbox begin with, where it has files of its own.
    pub inside: Option<PathBuf>,
    /// Where logs and downloads go.
    pub output: &'a OutputDir,
    /// What no log may show.
    pub mask: Arc<Mask>,
    /// The timeline.
    pub trace: &'a Trace,
    /// Raised when the run is to stop.
    pub stop: &'a Cancel,
}

impl RunSite<'_> {
    /// The directory of a batch on this machine.
    pub fn scratch(&self, batch: u32) -> PathBuf {
        self.scratch.join(format!("batch-{batch}"))
    }

    /// The directory of a batch in its sandbox.
    pub fn inside(&self, batch: u32) -> PathBuf {
        self.inside.as_ref().map_or_else(
            || self.scratch(batch),
            |prefix| PathBuf::from(format!("{}-batch-{batch}", prefix.display())),
        )
    }
}
