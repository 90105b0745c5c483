//! The stage that lists the tests: every list command of the framework, side by side, on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use crossbeam::channel::unbounded;

use crate::cancel::Cancel;
use crate::files;
use crate::framework::{Facts, Framework, ListCommand, ListOutput, Listing, Surroundings, last_lines};
use crate::mask::Mask;
use crate::model::{Exit, Group, GroupIndex, Suite};
use crate::process::{self, Streams};
use crate::trace::{Trace, Track};

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
    /// An existing private directory.
    pub scratch: PathBuf,
    /// Values that no message may show.
    pub mask: Arc<Mask>,
}

/// What discovery gave.
#[derive(Debug)]
pub struct Discovery {
    /// The tests.
    pub suite: Suite,
    /// What the framework wants to remember.
    pub facts: Facts,
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
    let mut listings = list_all(framework, &groups, &commands, (site, cancel, trace))?;
    if listings.iter().any(|listing| listing.separately) {
        let mut again = Vec::new();
        for (command, listing) in commands.into_iter().zip(&mut listings) {
            if std::mem::take(&mut listing.separately) {
                again.extend(apart(framework, &groups, &command.groups, &site.scratch)?);
            }
        }
        listings.extend(list_all(framework, &groups, &again, (site, cancel, trace))?);
    }
    join(groups, listings, shared)
}

/// The list commands of each of `members` for itself.
fn apart(
    framework: &dyn Framework,
    groups: &[Group],
    members: &[GroupIndex],
    scratch: &Path,
) -> Result<Vec<ListCommand>> {
    let mut commands = Vec::new();
    for &member in members {
        let directory = scratch.join(format!("group-{}", member.0));
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
        let alone = std::slice::from_ref(&groups[usize::from(member.0)]);
        for mut command in framework.list_commands(alone, &directory)? {
            command.groups = command.groups.iter().map(|_| member).collect();
            commands.push(command);
        }
    }
    Ok(commands)
}

fn list_all(
    framework: &dyn Framework,
    groups: &[Group],
    commands: &[ListCommand],
    (site, cancel, trace): (&Site, &Cancel, &Trace),
) -> Result<Vec<Listing>> {
    let (jobs, queue) = unbounded();
    for (number, command) in commands.iter().enumerate() {
        // The receiver lives: the channel cannot be closed.
        let _ = jobs.send((number, command));
    }
    drop(jobs);
    let (answers, results) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..site.parallel.min(commands.len()) {
            let (queue, answers) = (queue.clone(), answers.clone());
            scope.spawn(move || {
                for (number, command) in queue {
                    let _span = trace.span(Track::Phases, || format!("list {}", name(groups, command)));
                    let listing = list(framework, command, number, (site, cancel))
                        .with_context(|| format!("cannot list the tests of {}", name(groups, command)));
                    let _ = answers.send((number, listing));
                }
            });
        }
    });
    drop(answers);
    let mut listings: Vec<(usize, Result<Listing>)> = results.iter().collect();
    listings.sort_by_key(|(number, _)| *number);
    listings.into_iter().map(|(_, listing)| listing).collect()
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

fn list(
    framework: &dyn Framework,
    order: &ListCommand,
    number: usize,
    (site, cancel): (&Site, &Cancel),
) -> Result<Listing> {
    let mut command = order.command.clone();
    site.surroundings.apply(&mut command, &site.root.to_string_lossy());
    command.directory = Some(site.root.join(command.directory.unwrap_or_default()));
    let stream = |kind: &str| site.scratch.join(format!("list-{}-{number}.{kind}", order.groups.len()));
    let streams =
        Streams { stdout: stream("stdout"), stderr: stream("stderr"), mask: Arc::clone(&site.mask) };
    log::debug!("{}", site.mask.hide(&command.to_shell()));
    let finished = process::run(&command, &site.shell, &streams, site.timeout, cancel)?;
    // Not every program minds that its list is cut off.
    files::check_room(&site.scratch).context("the list may be incomplete")?;
    let read = |path: &Path| -> Result<String> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let file = order.output.as_deref().filter(|path| path.is_file()).map(read).transpose()?;
    // What a list command prints beside its list is for messages only.
    let stdout = if file.is_some() { files::tail(&streams.stdout, TAIL) } else { read(&streams.stdout)? };
    let output = ListOutput { exit: finished.exit, stdout, stderr: files::tail(&streams.stderr, TAIL), file };
    let line = site.mask.hide(&command.to_shell());
    match finished.exit {
        Exit::TimedOut => bail!(
            "`{line}` did not end within {} s (`discovery_timeout_secs`){}",
            site.timeout.as_secs_f64(),
            last_lines(&output)
        ),
        Exit::Cancelled => bail!("`{line}` was cancelled"),
        Exit::Code(_) | Exit::Signal(_) => {
            framework.parse_list(order, &output).with_context(|| format!("`{line}`"))
        }
    }
}

fn join(groups: Vec<Group>, listings: Vec<Listing>, shared: PathBuf) -> Result<Discovery> {
    let mut facts = Facts::new();
    let mut members = vec![Vec::new(); groups.len()];
    for listing in listings {
        facts.extend(listing.facts);
        for (name, content) in listing.shared {
            let path = shared.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write `{}`", path.display()))?;
        }
        for warning in listing.warnings {
            log::warn!("{warning}");
        }
        for test in listing.tests {
            members[usize::from(test.group.0)].push(test);
        }
    }
    let mut suite = Suite::new(groups);
    let (mut doubles, mut example) = (0, None);
    for test in members.into_iter().flatten() {
        if !suite.add(test.group, test.id.clone(), test.file) {
            doubles += 1;
            example.get_or_insert(test.id);
        }
    }
    if let Some(example) = example {
        log::warn!("{doubles} tests are listed more than once and run once, the first of them `{example}`");
    }
    Ok(Discovery { suite, facts, shared })
}
