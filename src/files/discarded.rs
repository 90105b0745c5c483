//! Files of a private directory that are no longer needed.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of files that may stay.
const KEPT: usize = 10_000;
/// Bytes that such a file has at most.
const SMALL: u64 = 4096;

/// Removes files that are no longer needed, unless that costs more than it gains: small ones stay until their
/// directory is removed. To make and remove many files is expensive (ext4 looks for an inode that was not just
/// removed, and with 200 sandboxes spends half of all processor time on that).
#[derive(Debug, Default)]
pub struct Discarded {
    kept: AtomicUsize,
}

impl Discarded {
    /// Removes a file, or leaves it for its directory.
    pub fn add(&self, file: &Path) {
        let is_small = || file.metadata().is_ok_and(|data| data.len() <= SMALL);
        if self.kept.load(Ordering::Relaxed) < KEPT && is_small() {
            self.kept.fetch_add(1, Ordering::Relaxed);
        } else {
            // The directory is removed in any case.
            let _ = std::fs::remove_file(file);
        }
    }
}
