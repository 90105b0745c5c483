//! `offload gc`: destroys the sandboxes that runs left which were killed, and removes their temporary files.

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

/// How long a command is waited for that still makes a sandbox of a dead run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it is done.
const SLICE: Duration = Duration::from_millis(100);

/// So many sandboxes are destroyed at once.
const AT_ONCE: usize = 16;

/// A dead run, and who can destroy what it left.
struct Run {
    dead: Dead,
    makers: Makers,
    /// Holds files that the makers need.
    _setup: Setup,
}

/// How many sandboxes are gone and how many are not.
#[derive(Default)]
struct Tally {
    destroyed: usize,
    left: usize,
}

/// Destroys what dead runs left, wherever on this machine they were started, and tells of each sandbox.
/// Runs that live are not touched. After `cancel` is raised no more is begun.
///
/// # Errors
/// When anything could not be destroyed, or was not; it stays in the journal.
pub fn run(screen: &Screen, cancel: &Cancel, output: &mut dyn Write) -> Result<Status, Problem> {
    Scratch::sweep();
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let mut tally = Tally::default();
    let (mut runs, mut sandboxes) = (Vec::new(), VecDeque::new());
    for mut dead in journal::dead(&state)? {
        let left = std::mem::take(&mut dead.sandboxes);
        match makers(&dead, screen) {
            Ok((makers, _setup)) => {
                sandboxes.extend(left.into_iter().map(|sandbox| (runs.len(), sandbox)));
                runs.push(Run { dead, makers, _setup });
            }
            Err(error) => {
                let config = dead.about.config.display();
                log::error!("{} sandboxes of `{config}` stay: {error:#}", left.len());
                tally.left += left.len();
            }
        }
    }
    // What is in the journal first: then the providers know only what is not.
    let result = destroy_all((&runs, sandboxes), cancel, &mut tally, output)
        .and_then(|()| sweep(&runs, cancel, &mut tally, output));
    let Tally { destroyed, left } = tally;
    result
        .and_then(|()| writeln!(output, "{destroyed} destroyed, {left} left"))
        .and_then(|()| output.flush())
        .context("cannot write to standard output")?;
    if cancel.is_raised() {
        let error = anyhow!("`gc` was interrupted; {left} sandboxes are left");
        return Err(Problem::new(Status::Interrupted, error).hint("run `offload gc` again"));
    }
    if left > 0 {
        let problem = Problem::new(Status::NothingRun, anyhow!("{left} sandboxes could not be destroyed"));
        return Err(problem.hint("mend what is told above and run `offload gc` again"));
    }
    Ok(Status::Passed)
}

/// Destroys what providers themselves know of the runs.
fn sweep(runs: &[Run], cancel: &Cancel, tally: &mut Tally, output: &mut dyn Write) -> io::Result<()> {
    for run in runs.iter().take_while(|_| !cancel.is_raised()) {
        match run.makers.reaper().sweep(&run.dead.run) {
            Ok(ids) => {
                tally.destroyed += ids.len();
                for id in ids {
                    writeln!(output, "destroyed {id}")?;
                }
            }
            Err(error) => {
                tally.left += 1;
                log::error!("sandboxes whose ids are not known may be left: {error}");
            }
        }
    }
    Ok(())
}

/// Destroys the sandboxes, each with the number of its run, several at a time.
fn destroy_all(
    (runs, sandboxes): (&[Run], VecDeque<(usize, Left)>),
    cancel: &Cancel,
    tally: &mut Tally,
    output: &mut dyn Write,
) -> io::Result<()> {
    let threads = sandboxes.len().min(AT_ONCE);
    let waiting = Mutex::new(sandboxes);
    // Also raised when nobody can be told any more.
    let stop = cancel.child();
    let (sender, ends) = unbounded();
    let work = |sender: Sender<_>| {
        while !stop.is_raised() {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((run, sandbox)) = next else { return };
            // The receiver outlives us.
            let _ = sender.send(destroy(&runs[run].makers, sandbox, &stop));
        }
    };
    let result = std::thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        ends.iter().try_for_each(|end| tell(end, tally, output)).inspect_err(|_| stop.raise_gracefully())
    });
    tally.left += waiting.into_inner().unwrap_or_else(PoisonError::into_inner).len();
    result
}

fn tell(end: Result<Option<String>>, tally: &mut Tally, output: &mut dyn Write) -> io::Result<()> {
    match end {
        Ok(Some(id)) => {
            tally.destroyed += 1;
            writeln!(output, "destroyed {id}")
        }
        Ok(None) => Ok(()),
        Err(error) => {
            tally.left += 1;
            log::error!("{error:#}");
            Ok(())
        }
    }
}

/// The makers of a dead run, from its configuration as it is now.
fn makers(dead: &Dead, screen: &Screen) -> Result<(Makers, Setup)> {
    let about = &dead.about;
    std::env::set_current_dir(&about.directory)
        .with_context(|| format!("cannot go to `{}`", about.directory.display()))?;
    let config = config::load(&about.config, &|name| std::env::var(name).ok())
        .map_err(|mistakes| anyhow!("{}", Problem::from(mistakes).error))?;
    anyhow::ensure!(!matches!(config.provider, Provider::Local(_)), "its provider is another one now");
    anyhow::ensure!(
        about.place.is_empty() || about.place == makers::place(&config),
        "they are at another server, profile, environment or token of Modal; set MODAL_SERVER_URL, \
         MODAL_PROFILE, MODAL_ENVIRONMENT and MODAL_TOKEN_ID as that run had them"
    );
    let setup = Setup::new(&config, &[])?;
    let makers = Makers::new((&config, &setup), &[], screen, None)?;
    Ok((makers, setup))
}

/// Gives the id of the sandbox; `None` where none was made.
fn destroy(makers: &Makers, sandbox: Left, cancel: &Cancel) -> Result<Option<String>> {
    let until = Instant::now() + PATIENCE;
    while sandbox.is_pending() {
        if Instant::now() >= until || cancel.is_raised() {
            bail!("a sandbox is still being made; its id is not known yet");
        }
        std::thread::sleep(SLICE);
    }
    let Some(id) = sandbox.id() else {
        sandbox.close();
        return Ok(None);
    };
    makers.reaper().destroy(&id).map_err(|error| anyhow!("the sandbox `{id}` was not destroyed: {error}"))?;
    sandbox.close();
    Ok(Some(id))
}
