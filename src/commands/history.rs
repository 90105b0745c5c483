//! `offload history`: shows what is known about the tests, and lets git merge it.

use std::path::Path;

use crate::config;
use crate::error::{Problem, Status};
use crate::files;
use crate::history::{self, History};

mod driver;
mod show;

pub use driver::setup_merge_driver;
pub use show::show;

/// The size of reservoirs where no configuration sets one.
const CAPACITY: usize = 20;

/// The git merge driver: merges `ours` and `theirs`, which share the ancestor `base`, into `ours`.
///
/// # Errors
/// When a file cannot be read, or `ours` cannot be written; `ours` is then unchanged.
pub fn merge(config: &Path, base: &Path, ours: &Path, theirs: &Path) -> Result<Status, Problem> {
    let known = [base, ours, theirs].map(History::load_existing);
    let [base, known, theirs] = known;
    let (base, known, theirs) = (base?, known?, theirs?);
    // The file may also serve configurations with larger reservoirs.
    let present = known.largest_reservoir().max(theirs.largest_reservoir());
    let merged = history::merge(&base, &known, &theirs, configured_capacity(config).max(present));
    files::write_whole(ours, |output| merged.write(output))?;
    Ok(Status::Passed)
}

/// A merge must not fail because the configuration is missing or is not valid on this machine.
fn configured_capacity(path: &Path) -> usize {
    let config = config::load(path, &|name| std::env::var(name).ok());
    let history = config.ok().and_then(|config| config.history);
    history.map_or(CAPACITY, |history| history.reservoir_size)
}
