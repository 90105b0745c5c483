//! The stage that lists the tests: every list command of the framework, side by side, on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use crossbeam::channel::unbounded;

use crate::cancel::Cancel;
use crate::files;
use crate::framework::{
    Facts, Framework, ListCommand, ListOutput, Listing, LoadError, Surroundings, last_lines,
};
use crate::mask::Mask;
use crate::model::{Exit, Group, GroupIndex, KeepTogether, Suite};
use crate::process::guard::Guard;
use crate::process::{self, Capture, Captured};
use crate::trace::{Trace, Track};

mod join;
mod keys;

/// So many bytes of what a list command prints are kept for messages.
const TAIL: u64 = 64 * 1024;

/// Where and how list commands run.
#[derive(Clone, Debug)]
pub struct Site {
    /// The local root of the project.
    pub root: PathBuf,
    /// The shell.
    pub shell: String,
    /// Variables and search path.
    pub surroundings: Surroundings,
    /// The deadline of each command.
    pub timeout: Duration,
    /// How many commands run side by side, at least 1.
    pub parallel: usize,
    /// Which tests of each group stay together.
    pub kept: Vec<KeepTogether>,
    /// An existing private directory.
    pub scratch: PathBuf,
    /// Values that no message may show. Lists are read as they are.
    pub mask: Arc<Mask>,
    /// Guards the processes of list commands.
    pub guard: Arc<Guard>,
}

/// What discovery gave.
#[derive(Debug)]
pub struct Discovery {
    /// The tests.
    pub suite: Suite,
    /// What the framework wants to remember, for each group.
    pub facts: Vec<Facts>,
    /// Files that did not load.
    pub errors: Vec<LoadError>,
    /// The local directory of files that batches may share.
    pub shared: PathBuf,
}

/// Lists the tests of `groups`.
///
/// # Errors
/// When any command fails or hangs, or its output may be incomplete: never a smaller suite.
pub fn discover(
    framework: &dyn Framework,
    groups: Vec<Group>,
    site: &Site,
    cancel: &Cancel,
    trace: &Trace,
) -> Result<Discovery> {
    let shared = site.scratch.join("shared");
    std::fs::create_dir_all(&shared).with_context(|| format!("cannot make `{}`", shared.display()))?;
    let commands = framework.list_commands(&groups, &site.scratch)?;
    let lister = Lister { framework, groups: &groups, site, cancel, trace };
    let mut answers = lister.list_all(&commands)?;
    let mut again = Vec::new();
    for answer in answers.extract_if(.., |answer| answer.listing.separately) {
        again.extend(lister.apart(&answer.groups)?);
    }
    answers.extend(lister.list_all(&again)?);
    for answer in &mut answers {
        keys::keep_together(&|test| framework.class(test), &site.kept, &mut answer.listing.tests);
    }
    join::join(groups, answers, &site.mask, shared)
}

/// What a list command gave for its groups.
struct Answer {
    groups: Vec<GroupIndex>,
    listing: Listing,
}

/// Runs list commands.
struct Lister<'a> {
    framework: &'a dyn Framework,
    groups: &'a [Group],
    site: &'a Site,
    cancel: &'a Cancel,
    trace: &'a Trace,
}

impl Lister<'_> {
    /// List commands for each of `members` alone.
    fn apart(&self, members: &[GroupIndex]) -> Result<Vec<ListCommand>> {
        let mut commands = Vec::new();
        for &member in members {
            let directory = self.site.scratch.join(format!("group-{}", member.0));
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make `{}`", directory.display()))?;
            let alone = std::slice::from_ref(&self.groups[usize::from(member.0)]);
            for mut command in self.framework.list_commands(alone, &directory)? {
                command.groups = command.groups.iter().map(|_| member).collect();
                commands.push(command);
            }
        }
        Ok(commands)
    }

    fn list_all(&self, commands: &[ListCommand]) -> Result<Vec<Answer>> {
        let (jobs, queue) = unbounded();
        for (number, command) in commands.iter().enumerate() {
            // The receiver lives: the channel cannot be closed.
            let _ = jobs.send((number, command));
        }
        drop(jobs);
        let (answers, results) = unbounded();
        std::thread::scope(|scope| {
            for _ in 0..self.site.parallel.min(commands.len()) {
                let (queue, answers) = (queue.clone(), answers.clone());
                scope.spawn(move || {
                    for (number, command) in queue {
                        let name = || name(self.groups, command);
                        let _span = self.trace.span(Track::Phases, || format!("list {}", name()));
                        let listing = self.list(command);
                        let listing = listing.with_context(|| format!("cannot list the tests of {}", name()));
                        let _ = answers.send((number, listing));
                    }
                });
            }
        });
        drop(answers);
        let mut listings: Vec<(usize, Result<Listing>)> = results.iter().collect();
        listings.sort_by_key(|(number, _)| *number);
        let answers = commands.iter().zip(listings);
        let answers = answers
            .map(|(command, (_, listing))| Ok(Answer { groups: command.groups.clone(), listing: listing? }));
        answers.collect()
    }

    fn list(&self, order: &ListCommand) -> Result<Listing> {
        let site = self.site;
        let mut command = order.command.clone();
        site.surroundings.apply(&mut command, &site.root.to_string_lossy());
        command.directory = Some(site.root.join(command.directory.unwrap_or_default()));
        site.guard.mark(&mut command);
        let line = site.mask.hide(&command.to_shell());
        log::debug!("{line}");
        let capture = Capture {
            shell: &site.shell,
            scratch: &site.scratch,
            stdout: None,
            deadline: site.timeout,
            cancel: self.cancel,
        };
        let captured = capture
            .run(&command)
            .map_err(|error| anyhow!("{}", site.mask.hide_before(process::CUT, &error.to_string())))?;
        // Not every program fails when its list is cut off.
        files::check_room(&site.scratch).context("the list may be incomplete")?;
        let output = list_output(order, &captured)?;
        let is_cut = captured.finished.leaked && output.file.is_none();
        let listing = match output.exit {
            Exit::Code(0) if is_cut => Err(anyhow!(
                "it left processes behind, which may have had more to print: the list may be incomplete; a list \
                 command must end last, and what it starts for later must have a session of its own (`setsid`)"
            )),
            Exit::TimedOut => Err(anyhow!(
                "it did not end within {} s (`discovery_timeout_secs`){}",
                site.timeout.as_secs_f64(),
                last_lines(&output)
            )),
            Exit::Cancelled => Err(anyhow!("it was cancelled")),
            Exit::Code(_) | Exit::Signal(_) => self.framework.parse_list(order, &output),
        };
        // What is listed is not masked, what is said of it is.
        listing.map_err(|error| anyhow!("`{line}`: {}", site.mask.hide(&format!("{error:#}"))))
    }
}

fn list_output(order: &ListCommand, captured: &Captured) -> Result<ListOutput> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let read = |path: &Path| {
        std::fs::read(path).map(text).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let file = order.output.as_deref().filter(|path| path.is_file()).map(read).transpose()?;
    let stdout = match file {
        // What a command prints beside its list of tests is for messages only.
        Some(_) if !order.groups.is_empty() => captured.stdout_tail(TAIL),
        _ => captured.stdout().map(text).context("cannot read its output")?,
    };
    Ok(ListOutput { exit: captured.finished.exit, stdout, stderr: captured.stderr_tail(TAIL), file })
}

fn name(groups: &[Group], command: &ListCommand) -> String {
    let names: Vec<String> =
        command.groups.iter().map(|group| format!("`{}`", groups[usize::from(group.0)].name)).collect();
    match names.len() {
        0 => "the project".into(),
        1 => format!("group {}", names[0]),
        _ => format!("groups {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandLine;

    #[test]
    fn only_beside_a_list_of_tests_is_output_cut() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        std::fs::write(&file, "content").unwrap();
        let capture = Capture {
            shell: "/bin/sh",
            scratch: scratch.path(),
            stdout: None,
            deadline: Duration::from_secs(60),
            cancel: &Cancel::new(),
        };
        let command = CommandLine::shell("head -c 100000 /dev/zero");
        let captured = capture.run(&command).unwrap();
        let length = |groups: Vec<GroupIndex>, output: Option<PathBuf>| {
            let order = ListCommand { groups, command: command.clone(), output };
            list_output(&order, &captured).unwrap().stdout.len()
        };
        assert_eq!(length(vec![GroupIndex(0)], Some(file.clone())), 64 * 1024);
        assert_eq!(length(vec![GroupIndex(0)], None), 100_000);
        assert_eq!(length(Vec::new(), Some(file.clone())), 100_000);
    }
}
