//! Process groups: signals to them, and what is left of one.

use std::path::Path;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What is left of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    /// Processes that have ended but were not reaped: in a container the first process, which inherits
    /// them, may do so late or never.
    Ended,
    Running,
}

pub(super) fn signal(group: Pid, signal: Signal) {
    // The only possible failure is that the group has ended meanwhile.
    let _ = killpg(group, signal);
}

pub(super) fn look(group: Pid) -> Left {
    if killpg(group, None).is_err() {
        Left::Nothing
    } else if has_running(group).unwrap_or(true) {
        Left::Running
    } else {
        Left::Ended
    }
}

/// Whether a process of the group has not ended; `None` where /proc is missing or shows others' numbers.
fn has_running(group: Pid) -> Option<bool> {
    let own = std::fs::read_link("/proc/self").ok()?;
    if own != Path::new(&std::process::id().to_string()) {
        return None;
    }
    let group = group.to_string();
    let is_running = |stat: &[u8]| {
        // The name before the last parenthesis may hold anything; then: state, parent, group.
        let text = String::from_utf8_lossy(stat);
        let mut fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let state = fields.next();
        fields.nth(1) == Some(group.as_str()) && !matches!(state, Some("Z" | "X"))
    };
    let mut stats = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process.then(|| std::fs::read(entry.path().join("stat")).ok()).flatten()
    });
    Some(stats.any(|stat| is_running(&stat)))
}
