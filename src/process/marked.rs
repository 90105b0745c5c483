//! Processes that are known by a marker in their environment, wherever they are: children that made
//! themselves a group or a session of their own are still found when their command is ended.
//!
//! Linux only: elsewhere the environment of a process cannot be read, and none is found.

use std::time::Duration;

use memchr::memmem::Finder;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

/// Holds the markers of all commands around a process, separated by spaces.
pub(super) const VARIABLE: &str = "OFFLOAD_PROCESS";
/// A process that is forked during a search is found by the next one.
const SEARCHES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(5);

/// `marker` behind those of the commands that this process is part of, which must still find its children.
pub(super) fn with_outer(marker: &str) -> String {
    match std::env::var(VARIABLE) {
        Ok(outer) if !outer.is_empty() => format!("{outer} {marker}"),
        _ => marker.to_owned(),
    }
}

/// Kills every process whose markers contain `marker`, and the groups that such a process leads.
pub(super) fn kill_all(marker: &str) {
    for _ in 0..SEARCHES {
        let found = find(marker);
        if found.is_empty() {
            return;
        }
        for process in found {
            if getpgid(Some(process)) == Ok(process) {
                let _ = killpg(process, Signal::SIGKILL);
            }
            // The only failure that matters here is that it has ended.
            let _ = kill(process, Signal::SIGKILL);
        }
        std::thread::sleep(BETWEEN);
    }
}

fn find(marker: &str) -> Vec<Pid> {
    let own = std::process::id().cast_signed();
    let needle = Finder::new(marker.as_bytes());
    let prefix = format!("{VARIABLE}=");
    let is_marked = |process: &Pid| {
        // A process that has ended has no environment.
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|entry| entry.starts_with(prefix.as_bytes()) && needle.find(entry).is_some())
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| *process != own).map(Pid::from_raw).filter(is_marked).collect()
}
