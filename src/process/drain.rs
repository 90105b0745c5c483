//! Copies the output of a child through a mask.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Output;
use super::running::LEAK_TIMEOUT;
use crate::mask::{Mask, Masked};

const SLICE: Duration = Duration::from_millis(20);
/// Bytes that are read at once.
const BUFFER: usize = 64 * 1024;

/// What a copying thread tells of itself.
#[derive(Default)]
struct Progress {
    /// Bytes read so far.
    bytes: AtomicU64,
    /// Whether all of them are written, and it waits for more.
    is_reading: AtomicBool,
}

/// A copy that is under way.
pub(super) struct Copying {
    pipe: OwnedFd,
    progress: Arc<Progress>,
    done: Receiver<()>,
}

/// Copies the child's pipes, standard output first, into the files of `output`.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start(pipes: [Option<OwnedFd>; 2], output: Output) -> io::Result<Vec<Copying>> {
    let mut copies = Vec::new();
    for (pipe, file) in pipes.into_iter().flatten().zip([output.stdout, output.stderr]) {
        let (finished, done) = bounded(1);
        let mask = Arc::clone(&output.mask);
        let progress = Arc::<Progress>::default();
        let (shared, reader) = (Arc::clone(&progress), File::from(pipe.try_clone()?));
        std::thread::Builder::new().name("drain".into()).spawn(move || {
            if let Err(error) = copy(reader, file, &mask, &shared) {
                log::warn!("cannot write a log file: {error}");
            }
            // Nobody may be waiting any more.
            let _ = finished.send(());
        })?;
        copies.push(Copying { pipe, progress, done });
    }
    Ok(copies)
}

fn copy(mut pipe: File, file: File, mask: &Mask, progress: &Progress) -> io::Result<()> {
    let mut masked = Masked::new(mask, file);
    let mut buffer = vec![0; BUFFER];
    loop {
        progress.is_reading.store(true, Ordering::SeqCst);
        let result = pipe.read(&mut buffer);
        progress.is_reading.store(false, Ordering::SeqCst);
        match result {
            Ok(0) => return masked.finish(),
            Ok(count) => {
                progress.bytes.fetch_add(count as u64, Ordering::SeqCst);
                masked.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl Copying {
    /// Waits, after the end of the child, until everything that it wrote is copied, however slowly the file is
    /// written. Tells by `false` that another process still holds the pipe open; what that one writes is not waited
    /// for.
    pub(super) fn finish(&self) -> bool {
        let ended = Instant::now();
        let written = self.written();
        loop {
            match self.done.recv_timeout(SLICE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let bytes = self.progress.bytes.load(Ordering::SeqCst);
            let is_copied = bytes >= written && self.progress.is_reading.load(Ordering::SeqCst);
            let is_copied = is_copied || bytes > written + BUFFER as u64;
            if is_copied && ended.elapsed() >= LEAK_TIMEOUT && !self.is_at_its_end() {
                return false;
            }
        }
    }

    /// The bytes written so far: those that were read, and those in the pipe.
    fn written(&self) -> u64 {
        loop {
            let read = self.progress.bytes.load(Ordering::SeqCst);
            // Without an answer nothing more is waited for than what was read.
            let waiting = rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0);
            if read == self.progress.bytes.load(Ordering::SeqCst) {
                return read + waiting;
            }
        }
    }

    /// Whether nobody can write to the pipe any more.
    fn is_at_its_end(&self) -> bool {
        let mut watched = [PollFd::from_borrowed_fd(self.pipe.as_fd(), PollFlags::IN)];
        let polled = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        polled.is_ok() && watched[0].revents().contains(PollFlags::HUP)
    }
}
