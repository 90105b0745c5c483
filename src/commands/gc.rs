//! `offload gc`: destroys the sandboxes that runs left which were killed.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::sandboxes;
use super::setup::Setup;
use crate::cancel::Cancel;
use crate::config::{self, Provider};
use crate::error::{Problem, Status};
use crate::journal::{self, Dead, Left};
use crate::provider::command::Images;

/// How long a command is waited for that still makes a sandbox of a dead run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether it is done.
const SLICE: Duration = Duration::from_millis(100);

/// Destroys what dead runs left, wherever on this machine they were started, and tells of each sandbox.
/// Runs that live are not touched.
///
/// # Errors
/// When anything could not be destroyed; it stays in the journal.
pub fn run(cancel: &Cancel, output: &mut dyn Write) -> Result<Status, Problem> {
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let (mut destroyed, mut left) = (0, 0);
    for mut dead in journal::dead(&state)? {
        let sandboxes = std::mem::take(&mut dead.sandboxes);
        let makers = match makers(&dead) {
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

/// The commands of a dead run, from its configuration as it is now.
fn makers(dead: &Dead) -> Result<(Images, Setup)> {
    let about = &dead.about;
    std::env::set_current_dir(&about.directory)
        .with_context(|| format!("cannot go to `{}`", about.directory.display()))?;
    let config = config::load(&about.config, &|name| std::env::var(name).ok())
        .map_err(|mistakes| anyhow!("{}", Problem::from(mistakes).error))?;
    let Provider::Command(provider) = &config.provider else {
        bail!("its provider is another one now");
    };
    let setup = Setup::new(&config, &[])?;
    let images = sandboxes::images(&config, provider, (&setup, &[]))?;
    Ok((images, setup))
}

/// Gives the id of the sandbox; `None` where none was made.
fn destroy((images, _): &(Images, Setup), sandbox: Left, cancel: &Cancel) -> Result<Option<String>> {
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
    images.destroy(&id).map_err(|error| anyhow!("the sandbox `{id}` was not destroyed: {error}"))?;
    sandbox.close();
    Ok(Some(id))
}
