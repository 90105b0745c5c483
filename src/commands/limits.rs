//! System limits: a run that would hit one halfway through fails before it starts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::error::{Problem, Status};
use crate::words::count;

/// Open files per worker, at most: two logs, two pipes with their copies, its process, the flags that end its
/// batch, and /proc while what is left is searched for.
const FILES_FOR_EACH: u64 = 14;
/// Files that are open regardless.
const FILES_FOR_ALL: u64 = 40;
/// Tasks per worker, at least: its thread and two that copy, the shell of a command, a process of that shell.
const TASKS_FOR_EACH: u64 = 5;
/// Other threads: the collector, the thread pool.
const TASKS_FOR_ALL: u64 = 20;

/// Checks that `machines` sandboxes can run at once, and raises the soft limit of open files if necessary.
///
/// # Errors
/// When the system allows too few open files, threads, or processes.
pub fn check(machines: usize) -> Result<(), Problem> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
    let files = machines as u64 * FILES_FOR_EACH + FILES_FOR_ALL;
    if files > soft && (files > hard || setrlimit(Resource::RLIMIT_NOFILE, files, hard).is_err()) {
        return Err(Shortage {
            what: format!("{files} open files"),
            allowed: hard,
            flag: "n",
            needed: files,
            most: hard.saturating_sub(FILES_FOR_ALL) / FILES_FOR_EACH,
        }
        .problem(machines));
    }
    let tasks = machines as u64 * TASKS_FOR_EACH + TASKS_FOR_ALL;
    let tightest = [of_user(), of_container()].into_iter().flatten().min_by_key(Tasks::free);
    let Some(existing) = tightest.filter(|existing| tasks > existing.free()) else { return Ok(()) };
    Err(Shortage {
        what: format!("{tasks} threads and processes in addition to the {} that exist", existing.used),
        allowed: existing.allowed,
        flag: "u",
        needed: existing.used + tasks,
        most: existing.free().saturating_sub(TASKS_FOR_ALL) / TASKS_FOR_EACH,
    }
    .problem(machines))
}

/// What the system allows too little of.
struct Shortage {
    what: String,
    allowed: u64,
    /// The option of `ulimit`, and its value that would do.
    flag: &'static str,
    needed: u64,
    /// How many sandboxes would work.
    most: u64,
}

impl Shortage {
    fn problem(&self, machines: usize) -> Problem {
        let Shortage { what, allowed, flag, needed, most } = self;
        let sandboxes = count(machines, "concurrent sandbox");
        let verb = if machines == 1 { "needs" } else { "need" };
        let message = anyhow::anyhow!("{sandboxes} {verb} about {what}, but the system allows {allowed}");
        let fewer = if *most == 0 { String::new() } else { format!(", or use `--parallel {most}`") };
        Problem::new(Status::NothingRun, message)
            .hint(format!("raise the limit (`ulimit -{flag} {needed}`){fewer}"))
    }
}

/// Threads and processes: how many there are, and how many there may be.
struct Tasks {
    used: u64,
    allowed: u64,
}

impl Tasks {
    fn free(&self) -> u64 {
        self.allowed.saturating_sub(self.used)
    }
}

/// Those of the user. Root has no limit, and only Linux reports it.
fn of_user() -> Option<Tasks> {
    let limits = fs::read_to_string("/proc/self/limits").ok().filter(|_| !geteuid().is_root())?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max processes"))?;
    let allowed = line.split_whitespace().next()?.parse().ok()?;
    let own = |path: &Path| path.metadata().is_ok_and(|data| data.uid() == geteuid().as_raw());
    let threads = |path: &Path| fs::read_dir(path.join("task")).map_or(0, Iterator::count) as u64;
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let is_process = |path: &Path| path.join("task").is_dir();
    let used = processes.filter(|path| is_process(path) && own(path)).map(|path| threads(&path)).sum();
    Some(Tasks { used, allowed })
}

/// Those of the container, if it has a limit.
fn of_container() -> Option<Tasks> {
    let number =
        |name: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(name)).ok()?.trim().parse().ok();
    Some(Tasks { used: number("pids.current")?, allowed: number("pids.max")? })
}
