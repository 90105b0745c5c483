//! The plan of a run: `run` executes it, `plan` shows it.

use std::path::Path;
use std::time::Duration;

use super::estimates::Estimates;
use crate::command::CommandLine;
use crate::framework::{Commands, Place};
use crate::model::{GroupLimit, TestIndex};
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
    /// The groups that have a maximum number of batches at once.
    pub limits: &'a [GroupLimit],
    /// A directory like that of a batch; it need not exist.
    pub scratch: &'a Path,
}

impl Planning<'_> {
    /// How many batches there can be at once.
    fn width(&self) -> usize {
        let tests = self.commands.suite.tests();
        let in_group = |group| tests.iter().filter(|test| test.group == group).count();
        let idle = self.limits.iter().map(|limit| in_group(limit.group).saturating_sub(limit.most));
        tests.len() - idle.sum::<usize>()
    }

    /// The plan for this number of sandboxes.
    pub fn plan(&self, machines: usize) -> Plan {
        let machines = machines.min(self.width());
        let fits = |tests: &[TestIndex], group| {
            let place = Place { slot: self.commands.sandboxes, scratch: self.scratch };
            (self.takes)(&self.commands.command(tests, group, place).command)
        };
        let limits = Limits { timeout: self.timeout, fits: &fits };
        let conditions = self.estimates.conditions(machines, self.commands.framework.grain());
        Plan::new(self.commands.suite, &conditions, &limits).limited(self.limits)
    }
}
