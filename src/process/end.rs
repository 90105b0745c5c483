//! Waits for the end of one child, without polling.
//!
//! `wait-timeout` wakes every waiting thread whenever any child ends: with 200 sandboxes that is a tenth of
//! all processor time. So where the system has descriptors for processes (Linux 5.3 and newer), one is polled
//! together with a descriptor that a cancel makes readable.

use std::io::{self, PipeReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use wait_timeout::ChildExt;

use crate::model::Exit;

/// Where there are no descriptors of processes, how often a waiting thread looks at the cancel flag.
const SLICE: Duration = Duration::from_millis(100);

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

    /// Waits for at most `time`, or until `wake` is readable; `None` if the child still runs. May return early.
    pub(super) fn wait(
        &self,
        child: &mut Child,
        time: Duration,
        wake: Option<&PipeReader>,
    ) -> io::Result<Option<ExitStatus>> {
        #[cfg(target_os = "linux")]
        if let Some(descriptor) = &self.descriptor {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let most = Timespec::try_from(time).map_err(io::Error::other)?;
            let mut watched = vec![PollFd::new(descriptor, PollFlags::IN)];
            watched.extend(wake.map(|wake| PollFd::new(wake, PollFlags::IN)));
            return match poll(&mut watched, Some(&most)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => Ok(None),
                Ok(_) => child.try_wait(),
                Err(error) => Err(error.into()),
            };
        }
        child.wait_timeout(if wake.is_some() { time.min(SLICE) } else { time })
    }
}

pub(super) fn to_exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}
