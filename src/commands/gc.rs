//! `offload gc`: destroys the sandboxes that runs left which were killed.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::makers::Makers;
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::{self, Provider};
use crate::error::{Problem, Status};
use crate::journal::{self, Dead, Left};
use crate::progress::Screen;

/// How long a command is waited for that still makes a sandbox of a dead run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it is done.
const SLICE: Duration = Duration::from_millis(100);

/// Destroys what dead runs left, wherever on this machine they were started, and tells of each sandbox.
/// Runs that live are not touched.
///
/// # Errors
/// When anything could not be destroyed; it stays in the journal.
pub fn run(screen: &Screen, cancel: &Cancel, output: &mut dyn Write) -> Result<Status, Problem> {
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let (mut destroyed, mut left) = (0, 0);
    for mut dead in journal::dead(&state)? {
        let sandboxes = std::mem::take(&mut dead.sandboxes);
        let (makers, _setup) = match makers(&dead, screen) {
            Ok(makers) => makers,
            Err(error) => {
                log::error!(
                    "{} sandboxes of `{}` stay: {error:#}",
                    sandboxes.len(),
                    dead.about.config.display()
                );
                left += sandboxes.len();
                continue;
            }
        };
        match makers.keeper().sweep(&dead.run) {
            Ok(ids) => {
                destroyed += ids.len();
                for id in ids {
                    writeln!(output, "destroyed {id}").context("cannot write to standard output")?;
                }
            }
            Err(error) => log::warn!("sandboxes whose ids are not known may be left: {error}"),
        }
        for sandbox in sandboxes {
            match destroy(&makers, sandbox, cancel) {
                Ok(Some(id)) => {
                    destroyed += 1;
                    writeln!(output, "destroyed {id}").context("cannot write to standard output")?;
                }
                Ok(None) => {}
                Err(error) => {
                    left += 1;
                    log::error!("{error:#}");
                }
            }
        }
    }
    writeln!(output, "{destroyed} destroyed, {left} left")
        .and_then(|()| output.flush())
        .context("cannot write to standard output")?;
    if left > 0 {
        let problem = Problem::new(Status::NothingRun, anyhow!("{left} sandboxes could not be destroyed"));
        return Err(problem.hint("mend what is told above and run `offload gc` again"));
    }
    Ok(Status::Passed)
}

/// The makers of a dead run, from its configuration as it is now.
fn makers(dead: &Dead, screen: &Screen) -> Result<(Makers, Setup)> {
    let about = &dead.about;
    std::env::set_current_dir(&about.directory)
        .with_context(|| format!("cannot go to `{}`", about.directory.display()))?;
    let config = config::load(&about.config, &|name| std::env::var(name).ok())
        .map_err(|mistakes| anyhow!("{}", Problem::from(mistakes).error))?;
    anyhow::ensure!(!matches!(config.provider, Provider::Local(_)), "its provider is another one now");
    let setup = Setup::new(&config, &[])?;
    let makers = Makers::new((&config, &setup), &[], screen)?;
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
    makers.keeper().destroy(&id).map_err(|error| anyhow!("the sandbox `{id}` was not destroyed: {error}"))?;
    sandbox.close();
    Ok(Some(id))
}
