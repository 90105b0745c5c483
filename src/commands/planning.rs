//! The plan of a run: `run` executes it, `plan` shows it.

use std::path::Path;
use std::time::Duration;

use super::estimates::Estimates;
use crate::command::CommandLine;
use crate::framework::Commands;
use crate::model::TestIndex;
use crate::plan::{Limits, Plan};

/// Everything that a plan depends on, except the number of sandboxes.
pub struct Planning<'a> {
    /// The tests, and how they are run.
    pub commands: Commands<'a>,
    /// Whether a command is short enough to reach a sandbox.
    pub takes: &'a dyn Fn(&CommandLine) -> bool,
    /// Estimates from earlier runs.
    pub estimates: &'a Estimates,
    /// The deadline of a batch.
    pub timeout: Duration,
    /// A directory like that of a batch; it need not exist.
    pub scratch: &'a Path,
}

impl Planning<'_> {
    /// The plan for this number of sandboxes.
    pub fn plan(&self, machines: usize) -> Plan {
        let fits = |tests: &[TestIndex], group| {
            (self.takes)(&self.commands.command(tests, group, self.scratch).command)
        };
        let limits = Limits { timeout: self.timeout, fits: &fits };
        let conditions = self.estimates.conditions(machines, self.commands.framework.grain());
        Plan::new(self.commands.suite, &conditions, &limits)
    }
}
