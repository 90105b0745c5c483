//! The end of a run whose batches brought files home: what its framework makes of the whole.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::collect::observer::Ended;
use crate::discover::Site;
use crate::framework::ListOutput;
use crate::framework::{Gathered, RunSite, last_lines};
use crate::model::{Exit, GroupIndex, Reason};
use crate::process::Capture;

/// How much of what the command prints is shown, in bytes.
const SHOWN: u64 = 256 * 1024;

/// Has the framework judge what came with the results. What it finds wrong becomes an error of the run.
pub(super) struct Conclusion<'a> {
    /// Where batches ran.
    pub(super) run: &'a RunSite<'a>,
    /// Where tests were listed.
    pub(super) site: &'a Site,
    /// Ends it early.
    pub(super) cancel: &'a Cancel,
}

impl Conclusion<'_> {
    /// Judges everything that `end` has gathered, and shows what the commands print.
    pub(super) fn draw(&self, end: &mut Ended, output: &mut dyn Write) -> std::io::Result<()> {
        let mut done: Vec<std::path::PathBuf> = Vec::new();
        for (group, name) in std::mem::take(&mut end.gathered) {
            let directory = self.run.gathered(group, &name);
            if self.cancel.is_raised() || done.contains(&directory) {
                continue;
            }
            match self.judge(group, &name, &directory) {
                Ok(None) => {}
                Ok(Some(Judged { shown, error })) => {
                    output.write_all(shown.as_bytes())?;
                    end.summary.errors.extend(error.map(Reason::from));
                }
                Err(error) => end.summary.errors.push(Reason::from(format!("{name}: {error:#}"))),
            }
            done.push(directory);
        }
        Ok(())
    }

    fn judge(&self, group: GroupIndex, name: &str, directory: &Path) -> Result<Option<Judged>> {
        let commands = &self.run.commands;
        let first = commands.suite.first_of_collection(group);
        let scratch = directory.with_file_name(format!("{name}-conclusion"));
        std::fs::create_dir_all(&scratch).with_context(|| format!("cannot make `{}`", scratch.display()))?;
        let gathered = Gathered {
            name,
            directory,
            scratch: &scratch,
            group: commands.suite.group(first),
            facts: &commands.facts[usize::from(first.0)],
        };
        let Some(mut command) = commands.framework.conclude(&gathered) else { return Ok(None) };
        let site = self.site;
        site.surroundings.apply(&mut command, &site.root.to_string_lossy());
        command.directory = Some(site.root.join(command.directory.unwrap_or_default()));
        site.guard.mark(&mut command);
        log::debug!("{}", site.mask.hide(&command.to_shell()));
        let capture = Capture {
            shell: &site.shell,
            scratch: &scratch,
            stdout: None,
            deadline: site.timeout,
            cancel: self.cancel,
        };
        let captured = capture.run(&command)?;
        let exit = captured.finished.exit;
        let shown = site.mask.hide(&captured.stdout_tail(SHOWN));
        let stderr = captured.stderr_tail(SHOWN);
        let error = (exit != Exit::Code(0)).then(|| {
            // Warnings come before the verdict.
            let last = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
            let reason = last.map(|line| format!(": {line}")).unwrap_or_default();
            let told = ListOutput { exit, stdout: String::new(), stderr: stderr.clone(), file: None };
            let lines = last_lines(&told);
            site.mask.hide(&format!("{name}{reason} (the command ended with {exit}){lines}"))
        });
        Ok(Some(Judged { shown, error }))
    }
}

/// What a command says of the whole run.
struct Judged {
    shown: String,
    error: Option<String>,
}
