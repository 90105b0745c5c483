//! What the system allows: a run that would break in the middle says so at the start.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Problem, Status};

/// Files that a worker has open at most: two logs and their copies, the pipe of a start, its process.
const FOR_EACH: u64 = 8;
/// Files that are open anyway.
const FOR_ALL: u64 = 40;

/// Makes sure that `machines` sandboxes can be served at once; raises the soft limit where it may.
///
/// # Errors
/// When the system allows fewer open files than that takes.
pub fn check(machines: usize) -> Result<(), Problem> {
    let needed = machines as u64 * FOR_EACH + FOR_ALL;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if needed <= soft || (needed <= hard && setrlimit(Resource::RLIMIT_NOFILE, needed, hard).is_ok()) {
        return Ok(());
    }
    let most = hard.saturating_sub(FOR_ALL) / FOR_EACH;
    let message = anyhow::anyhow!(
        "{machines} sandboxes at once need about {needed} open files, and the system allows {hard}"
    );
    Err(Problem::new(Status::NothingRun, message)
        .hint(format!("raise the limit (`ulimit -n {needed}`), or use `--parallel {}`", most.max(1))))
}
