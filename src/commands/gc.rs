//! `offload gc`: destroys sandboxes left behind by killed runs, settles creates of which nobody knows whether they
//! left one, and removes temporary files.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use crossbeam::channel::{Sender, unbounded};

use super::makers::{self, Makers};
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::{self, Provider};
use crate::error::{Problem, Status};
use crate::files::Scratch;
use crate::journal::{self, Dead, Left};
use crate::progress::Screen;
use crate::words;

/// How long a create of a dead run is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at.
const SLICE: Duration = Duration::from_millis(100);

/// How many sandboxes are destroyed at the same time.
const AT_ONCE: usize = 16;

/// What to do with creates that gave no reliable id and that no sweep settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// List them and keep them.
    Keep,
    /// List them and drop them: the user has looked.
    Forget,
}

/// A dead run.
struct Run {
    dead: Dead,
    /// `None` where its configuration is of no use any more.
    makers: Option<Makers>,
    /// Holds files that the makers need.
    _setup: Option<Setup>,
}

/// A sandbox of a run.
struct Task {
    /// The number of the run.
    run: usize,
    sandbox: Left,
}

/// What became of a sandbox.
enum Outcome {
    Destroyed(String),
    /// Its create gave no reliable id.
    Unknown(Task),
    Left(anyhow::Error),
}

/// What was done.
#[derive(Default)]
struct Tally {
    destroyed: usize,
    left: usize,
    unknown: Vec<Task>,
    /// The numbers of runs whose sweep failed.
    not_swept: Vec<usize>,
}

/// Destroys what dead runs left, wherever on this machine they were started, and reports each sandbox. Runs that are
/// going on are not touched. After `cancel` is raised nothing more is begun.
///
/// # Errors
/// When something was not destroyed, or may be left; it stays in the journal.
pub fn run(
    screen: &Screen,
    unknown: Unknown,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<Status, Problem> {
    Scratch::sweep();
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let mut tally = Tally::default();
    let (mut runs, mut tasks) = (Vec::new(), VecDeque::new());
    for mut dead in journal::dead(&state)? {
        let sandboxes = std::mem::take(&mut dead.sandboxes);
        let (makers, _setup) = match makers(&dead, screen) {
            Ok((makers, setup)) => (Some(makers), Some(setup)),
            Err(error) => {
                let config = dead.about.config.display();
                let count = words::count(sandboxes.len(), "sandbox");
                log::error!("cannot destroy {count} of `{config}`: {error:#}");
                (None, None)
            }
        };
        tasks.extend(sandboxes.into_iter().map(|sandbox| Task { run: runs.len(), sandbox }));
        runs.push(Run { dead, makers, _setup });
    }
    // What is in the journal first: then providers find only what is not.
    let result = destroy_all(&runs, tasks, cancel, &mut tally, output)
        .and_then(|()| sweep(&runs, cancel, &mut tally, output))
        .and_then(|()| if cancel.is_raised() { Ok(()) } else { settle(&runs, unknown, &mut tally, output) });
    let unknown = tally.unknown.len();
    let left = tally.left + unknown;
    let of_them = if unknown > 0 { format!(" ({unknown} unknown)") } else { String::new() };
    result
        .and_then(|()| writeln!(output, "{} destroyed, {left} left{of_them}", tally.destroyed))
        .and_then(|()| output.flush())
        .context("cannot write to standard output")?;
    if cancel.is_raised() {
        let error = anyhow!("`gc` was interrupted; {} left", words::count(left, "sandbox"));
        return Err(Problem::new(Status::Interrupted, error).hint("run `offload gc` again"));
    }
    if tally.left > 0 {
        let error = anyhow!("could not destroy {}", words::count(tally.left, "sandbox"));
        return Err(
            Problem::new(Status::NothingRun, error).hint("fix the errors above, then run `offload gc` again")
        );
    }
    if unknown > 0 {
        let verb = if unknown == 1 { "it may" } else { "each may" };
        let creates = words::count(unknown, "create");
        let error = anyhow!("{creates} gave no reliable id; {verb} have left a sandbox");
        return Err(Problem::new(Status::NothingRun, error).hint(
            "destroy what is there of the sandboxes listed above, then run `offload gc --forget`; with a \
             `sweep_command` in [provider], `offload gc` does that by itself",
        ));
    }
    Ok(Status::Passed)
}

/// Destroys what providers find of each run. A run that was swept has no unknown creates any more.
fn sweep(runs: &[Run], cancel: &Cancel, tally: &mut Tally, output: &mut dyn Write) -> io::Result<()> {
    for (number, run) in runs.iter().enumerate().take_while(|_| !cancel.is_raised()) {
        match run.makers.as_ref().and_then(|makers| makers.reaper().sweep()) {
            Some(Ok(ids)) => {
                tally.destroyed += ids.len();
                for id in ids {
                    writeln!(output, "destroyed {id}")?;
                }
                let unknown = std::mem::take(&mut tally.unknown).into_iter();
                let (settled, others): (Vec<_>, Vec<_>) = unknown.partition(|task| task.run == number);
                settled.into_iter().for_each(|task| task.sandbox.close());
                tally.unknown = others;
            }
            Some(Err(error)) => {
                tally.left += 1;
                tally.not_swept.push(number);
                log::error!("sandboxes whose ids are not known may be left: {error}");
            }
            None => {}
        }
    }
    Ok(())
}

/// Lists creates of which nobody knows whether they left a sandbox, and drops them if the user says so; not those that
/// the next sweep may settle.
fn settle(runs: &[Run], unknown: Unknown, tally: &mut Tally, output: &mut dyn Write) -> io::Result<()> {
    let mut kept = Vec::new();
    for task in tally.unknown.drain(..) {
        let (run, sandbox) = (&runs[task.run].dead, &task.sandbox);
        // Journals of older versions have no names.
        let name = if sandbox.name().is_empty() { &run.run } else { sandbox.name() };
        let create = format!("{name} (slot {}, `{}`)", sandbox.slot(), run.about.config.display());
        if tally.not_swept.contains(&task.run) {
            writeln!(output, "unknown {create}: its sweep failed")?;
            kept.push(task);
        } else if unknown == Unknown::Forget {
            writeln!(output, "forgot {create}")?;
            task.sandbox.close();
        } else {
            writeln!(output, "unknown {create}: destroy it if it exists, then run `offload gc --forget`")?;
            kept.push(task);
        }
    }
    tally.unknown = kept;
    Ok(())
}

/// Destroys the sandboxes, several at a time.
fn destroy_all(
    runs: &[Run],
    tasks: VecDeque<Task>,
    cancel: &Cancel,
    tally: &mut Tally,
    output: &mut dyn Write,
) -> io::Result<()> {
    let threads = tasks.len().min(AT_ONCE);
    let waiting = Mutex::new(tasks);
    // Also raised when the output is closed.
    let stop = cancel.child();
    let (sender, outcomes) = unbounded();
    let work = |sender: Sender<_>| {
        while !stop.is_raised() {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(task) = next else { return };
            let makers = runs[task.run].makers.as_ref();
            // The receiver outlives us.
            let _ = sender.send(destroy(makers, task, &stop).unwrap_or_else(Outcome::Left));
        }
    };
    let result = std::thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        let mut outcomes = outcomes.iter();
        outcomes
            .try_for_each(|outcome| report(outcome, tally, output))
            .inspect_err(|_| stop.raise_gracefully())
    });
    tally.left += waiting.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    result
}

fn report(outcome: Outcome, tally: &mut Tally, output: &mut dyn Write) -> io::Result<()> {
    match outcome {
        Outcome::Destroyed(id) => {
            tally.destroyed += 1;
            writeln!(output, "destroyed {id}")?;
        }
        Outcome::Unknown(task) => tally.unknown.push(task),
        Outcome::Left(error) => {
            tally.left += 1;
            log::error!("{error:#}");
        }
    }
    Ok(())
}

/// The makers of a dead run, from its configuration as it is now; they act in its name.
fn makers(dead: &Dead, screen: &Screen) -> Result<(Makers, Setup)> {
    let about = &dead.about;
    std::env::set_current_dir(&about.directory)
        .with_context(|| format!("cannot change to `{}`", about.directory.display()))?;
    let config = config::load(&about.config, &|name| std::env::var(name).ok())
        .map_err(|mistakes| anyhow!("{}", Problem::from(mistakes).error))?;
    anyhow::ensure!(!matches!(config.provider, Provider::Local(_)), "its provider is a different one now");
    anyhow::ensure!(
        about.place.is_empty() || about.place == makers::place(&config),
        "they are at another server, profile, environment or token of Modal; set MODAL_SERVER_URL, \
         MODAL_PROFILE, MODAL_ENVIRONMENT and MODAL_TOKEN_ID as that run had them"
    );
    let mut setup = Setup::new(&config, &[])?;
    setup.run.clone_from(&dead.run);
    let makers = Makers::new(&config, &setup, &[], screen, None)?;
    Ok((makers, setup))
}

fn destroy(makers: Option<&Makers>, task: Task, cancel: &Cancel) -> Result<Outcome> {
    let until = Instant::now() + PATIENCE;
    while task.sandbox.is_pending() {
        if Instant::now() >= until || cancel.is_raised() {
            bail!("the sandbox `{}` is still being created; its id is not known yet", task.sandbox.name());
        }
        cancel.wait(SLICE);
    }
    let sandbox = &task.sandbox;
    let Some(id) = sandbox.id().map(str::to_owned).or_else(|| sandbox.guess()) else {
        return Ok(Outcome::Unknown(task));
    };
    let Some(makers) = makers else { bail!("the sandbox `{id}` was not destroyed") };
    let reaper = makers.reaper();
    let destroyed = reaper.destroy(&id);
    if sandbox.id().is_none() && !reaper.is_id(&id, sandbox.name()) {
        // To destroy a word of progress succeeds as well.
        match destroyed {
            Ok(()) => log::info!("destroyed `{id}`, the last word of the create of `{}`", sandbox.name()),
            Err(error) => log::debug!("`{id}` is no sandbox, or cannot be destroyed: {error}"),
        }
        return Ok(Outcome::Unknown(task));
    }
    destroyed.map_err(|error| anyhow!("the sandbox `{id}` was not destroyed: {error}"))?;
    task.sandbox.close();
    Ok(Outcome::Destroyed(id))
}
