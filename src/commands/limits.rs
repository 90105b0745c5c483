//! What the system allows: a run that would break in the middle says so at the start.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::error::{Problem, Status};

/// Files that a worker has open at most: two logs and their copies, the pipe of a start, its process.
const FILES_FOR_EACH: u64 = 8;
/// Files that are open anyway.
const FILES_FOR_ALL: u64 = 40;
/// What a worker has at least: its thread, the shell of a command, a process of that.
const TASKS_FOR_EACH: u64 = 3;
/// Other threads: of the collector, of what runs on all cores.
const TASKS_FOR_ALL: u64 = 20;

/// Makes sure that `machines` sandboxes can be served at once; raises the soft limit of open files where
/// it may.
///
/// # Errors
/// When the system allows fewer open files, threads or processes than that takes.
pub fn check(machines: usize) -> Result<(), Problem> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    let files = machines as u64 * FILES_FOR_EACH + FILES_FOR_ALL;
    if files > soft && (files > hard || setrlimit(Resource::RLIMIT_NOFILE, files, hard).is_err()) {
        let most = hard.saturating_sub(FILES_FOR_ALL) / FILES_FOR_EACH;
        return Err(too_many(machines, &format!("{files} open files"), hard, ("n", files, most)));
    }
    let tasks = machines as u64 * TASKS_FOR_EACH + TASKS_FOR_ALL;
    let (used, allowed) = [of_user(), of_container()].into_iter().flatten().fold((0, u64::MAX), tightest);
    let free = allowed.saturating_sub(used);
    if tasks > free {
        let most = free.saturating_sub(TASKS_FOR_ALL) / TASKS_FOR_EACH;
        let what = format!("{tasks} threads and processes beside the {used} that there are");
        return Err(too_many(machines, &what, allowed, ("u", used + tasks, most)));
    }
    Ok(())
}

fn too_many(machines: usize, what: &str, allowed: u64, (flag, needed, most): (&str, u64, u64)) -> Problem {
    let sandboxes = if machines == 1 { "sandbox" } else { "sandboxes at once" };
    let verb = if machines == 1 { "needs" } else { "need" };
    let message =
        anyhow::anyhow!("{machines} {sandboxes} {verb} about {what}, and the system allows {allowed}");
    let fewer = if most == 0 { String::new() } else { format!(", or use `--parallel {most}`") };
    Problem::new(Status::NothingRun, message)
        .hint(format!("raise the limit (`ulimit -{flag} {needed}`){fewer}"))
}

fn tightest(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    let free = |(used, allowed): (u64, u64)| allowed.saturating_sub(used);
    if free(other) < free(one) { other } else { one }
}

/// Threads and processes that the user has and may have. Nothing limits root; other systems do not tell.
fn of_user() -> Option<(u64, u64)> {
    let limits = fs::read_to_string("/proc/self/limits").ok().filter(|_| !geteuid().is_root())?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes"))?;
    let allowed = line.split_whitespace().next()?.parse().ok()?;
    let own = |path: &Path| path.metadata().is_ok_and(|data| data.uid() == geteuid().as_raw());
    let threads = |path: &Path| fs::read_dir(path.join("task")).map_or(0, Iterator::count) as u64;
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let is_process = |path: &Path| path.join("task").is_dir();
    let used = processes.filter(|path| is_process(path) && own(path)).map(|path| threads(&path)).sum();
    Some((used, allowed))
}

/// The same of the container; a number as long as that is limited.
fn of_container() -> Option<(u64, u64)> {
    let number =
        |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse().ok();
    Some((number("pids.current")?, number("pids.max")?))
}
