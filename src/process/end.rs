//! Waits for the end of one child.
//!
//! `wait-timeout` wakes every thread that waits whenever any child ends: with 200 sandboxes that is a tenth of
//! all processor time. So where the system gives a descriptor for a process (Linux from 5.3), that is
//! waited for instead.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use wait_timeout::ChildExt;

/// What tells of the end of a child.
pub(super) struct End {
    #[cfg(target_os = "linux")]
    descriptor: Option<std::os::fd::OwnedFd>,
}

impl End {
    /// Of a child that has not been waited for.
    pub(super) fn of(child: &Child) -> End {
        #[cfg(target_os = "linux")]
        return End {
            descriptor: rustix::process::pidfd_open(
                rustix::process::Pid::from_child(child),
                rustix::process::PidfdFlags::empty(),
            )
            .ok(),
        };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = child;
            End {}
        }
    }

    /// Waits for at most `time`; `None` if the child still runs.
    pub(super) fn wait(&self, child: &mut Child, time: Duration) -> io::Result<Option<ExitStatus>> {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let most = Timespec::try_from(time).map_err(io::Error::other)?;
            return match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&most)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
                Ok(_) => child.try_wait(),
                Err(error) => Err(error.into()),
            };
        }
        child.wait_timeout(time)
    }
}
