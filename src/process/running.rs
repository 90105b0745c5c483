//! A child that runs: waiting for its end, and ending it with all that belongs to it.

use std::io::{self, PipeReader};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::end::{End, to_exit};
use super::group::{self, Left};
use super::marked;
use crate::cancel::{Cancel, Urgency};
use crate::command::StopSignal;
use crate::model::Exit;

/// How long a group may take to end after each signal, where its own deadline is why.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take in all after a cancel.
const GRACE_AFTER_CANCEL: Duration = Duration::from_secs(2);
/// How long processes that an ended child left are given to end by themselves.
pub(super) const LEAK_TIMEOUT: Duration = Duration::from_millis(200);
/// How often the rest of a group is looked at whose first process has ended.
const SLICE: Duration = Duration::from_millis(10);

/// How a child is to be ended.
#[derive(Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) signals: &'static [StopSignal],
    pub(super) marker: Option<&'a str>,
    pub(super) cancel: &'a Cancel,
}

/// A child that leads a process group.
pub(super) struct Running<'a> {
    child: &'a mut Child,
    group: Pid,
    end: End,
    stop: Stop<'a>,
}

impl<'a> Running<'a> {
    pub(super) fn new(child: &'a mut Child, stop: Stop<'a>) -> Running<'a> {
        let group = Pid::from_raw(child.id().cast_signed());
        Running { end: End::of(child), group, child, stop }
    }

    /// Waits for the child itself; ends its group at the deadline or once `cancelled` is readable, which tells
    /// of the cancel.
    pub(super) fn wait(&mut self, deadline: Duration, cancelled: Option<&PipeReader>) -> io::Result<Exit> {
        let started = Instant::now();
        loop {
            let left = deadline.saturating_sub(started.elapsed());
            if let Some(status) = self.end.wait(self.child, left, cancelled)? {
                return Ok(to_exit(status));
            }
            let exit = if self.stop.cancel.is_raised() {
                Exit::Cancelled
            } else if started.elapsed() >= deadline {
                Exit::TimedOut
            } else {
                continue;
            };
            self.terminate()?;
            return Ok(exit);
        }
    }

    /// Asks the group to end, then kills what is left of it and all that left it. The child is reaped.
    fn terminate(&mut self) -> io::Result<()> {
        for asked in self.stop.signals {
            group::signal(
                self.group,
                match asked {
                    StopSignal::Interrupt => Signal::SIGINT,
                    StopSignal::Terminate => Signal::SIGTERM,
                },
            );
            if self.ends_in_time()? {
                break;
            }
        }
        group::signal(self.group, Signal::SIGKILL);
        self.child.wait()?;
        self.kill_marked();
        Ok(())
    }

    /// Kills what has left the group.
    fn kill_marked(&self) {
        if let Some(marker) = self.stop.marker {
            marked::kill_all(marker);
        }
    }

    /// Whether the whole group ends within the grace period of one signal.
    fn ends_in_time(&mut self) -> io::Result<bool> {
        let asked = Instant::now();
        loop {
            let urgency = self.stop.cancel.urgency();
            let grace = match urgency {
                Urgency::None => GRACE,
                Urgency::Graceful => GRACE_AFTER_CANCEL / u32::try_from(self.stop.signals.len()).unwrap_or(1),
                Urgency::Forced => return Ok(false),
            };
            let left = grace.saturating_sub(asked.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            // Without a descriptor it takes a little longer.
            let more_urgent = self.stop.cancel.beyond(urgency).ok().flatten();
            if self.end.wait(self.child, left, more_urgent.as_deref())?.is_some() {
                if group::look(self.group) != Left::Running {
                    return Ok(true);
                }
                // The child has gone, others of its group are still busy ending.
                std::thread::sleep(SLICE);
            }
        }
    }

    /// Ends what an ended child left in its group; tells whether there was anything.
    pub(super) fn sweep(&self, exit: Exit) -> bool {
        if matches!(exit, Exit::Signal(_)) {
            // It could not end what it had put into other groups.
            self.kill_marked();
        }
        let ended = Instant::now();
        loop {
            match group::look(self.group) {
                Left::Nothing => return false,
                Left::Ended => {
                    // One that was born while we looked goes with them.
                    group::signal(self.group, Signal::SIGKILL);
                    return false;
                }
                Left::Running if ended.elapsed() >= LEAK_TIMEOUT => {
                    group::signal(self.group, Signal::SIGTERM);
                    std::thread::sleep(5 * SLICE);
                    group::signal(self.group, Signal::SIGKILL);
                    return matches!(exit, Exit::Code(_) | Exit::Signal(_));
                }
                Left::Running => std::thread::sleep(SLICE / 2),
            }
        }
    }

    /// Kills the group and reaps the child.
    pub(super) fn kill(&mut self) {
        group::signal(self.group, Signal::SIGKILL);
        if let Err(error) = self.child.wait() {
            log::warn!("cannot wait for process {}: {error}", self.group);
        }
        self.kill_marked();
    }

    /// Waits until `deadline` for the child to end by itself; `None` if it has not.
    pub(super) fn wait_only(&mut self, deadline: Duration) -> io::Result<Option<Exit>> {
        let until = Instant::now() + deadline;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(status) = self.end.wait(self.child, left, None)? {
                return Ok(Some(to_exit(status)));
            }
            if left.is_zero() {
                return Ok(None);
            }
        }
    }
}
