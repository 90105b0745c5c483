//! Copies the output of a child through a mask.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use super::Output;
use super::running::LEAK_TIMEOUT;
use crate::mask::{Mask, Masked};

/// The largest capacity of a pipe on Linux: more than that was written after the child had ended.
const LARGEST_PIPE: u64 = 1 << 20;
const SLICE: Duration = Duration::from_millis(20);

/// What a copying thread tells of itself.
#[derive(Default)]
struct Progress {
    /// Bytes read so far.
    bytes: AtomicU64,
    /// Whether it waits for more.
    is_reading: AtomicBool,
}

/// A copy that is under way.
pub(super) struct Copying {
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
        let shared = Arc::clone(&progress);
        std::thread::Builder::new().name("drain".into()).spawn(move || {
            if let Err(error) = copy(File::from(pipe), file, &mask, &shared) {
                log::warn!("cannot write a log file: {error}");
            }
            // Nobody may be waiting any more.
            let _ = finished.send(());
        })?;
        copies.push(Copying { progress, done });
    }
    Ok(copies)
}

fn copy(mut pipe: File, file: File, mask: &Mask, progress: &Progress) -> io::Result<()> {
    let mut masked = Masked::new(mask, file);
    let mut buffer = vec![0; 64 * 1024];
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
    /// Waits for the end of the copy, however slowly the file is written. Gives up, and tells so by `false`,
    /// only where the pipe is empty and another process still holds it open, or goes on writing to it.
    pub(super) fn finish(&self) -> bool {
        let progress = &self.progress;
        let mut seen = progress.bytes.load(Ordering::SeqCst);
        let most = seen + LARGEST_PIPE;
        let mut since = Instant::now();
        loop {
            match self.done.recv_timeout(SLICE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let bytes = progress.bytes.load(Ordering::SeqCst);
            if bytes != seen || !progress.is_reading.load(Ordering::SeqCst) {
                (seen, since) = (bytes, Instant::now());
            }
            if since.elapsed() >= LEAK_TIMEOUT || bytes > most {
                return false;
            }
        }
    }
}
