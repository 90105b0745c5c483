//! A private directory for temporary files. If its process is killed, the next process on this machine that creates
//! such a directory removes it.

use std::fs::{self, DirEntry, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// The prefix of the names of these directories.
const PREFIX: &str = "offload-";
/// The name of the lock file, which contains the name of the machine: on some shared file systems each machine has
/// its own locks.
const HOLD: &str = ".held";

/// A private directory within the system's temporary directory. It is removed on drop.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    /// Dropped after the directory is removed, so that nobody else removes it at the same time. `None` if the file
    /// system has no locks; then the directory stays if the process is killed.
    _hold: Option<File>,
}

impl Scratch {
    /// Creates a directory, after removing those of killed processes.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn new() -> Result<Scratch> {
        Scratch::sweep();
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            // It contains output with secrets that are not masked yet.
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()
            .context("cannot create a temporary directory (set `TMPDIR` to use another place)")?;
        let hold = hold(directory.path());
        Ok(Scratch { directory, _hold: hold })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes the directories of killed processes, as far as possible.
    pub fn sweep() {
        let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        for directory in entries.filter(is_ours).map(|entry| entry.path()) {
            // Locked until the directory is gone, so that only one process removes it.
            let hold = File::open(directory.join(HOLD));
            if hold.as_ref().is_ok_and(is_abandoned) {
                log::info!("removing `{}`, left behind by a killed process", directory.display());
                if fs::remove_dir_all(&directory).is_err() {
                    // Children of that process may still write to it; the next sweep tries again.
                    let _ = fs::write(directory.join(HOLD), machine());
                }
            }
        }
    }
}

/// Marks the directory as in use, with a lock file that appears only once it is locked.
fn hold(directory: &Path) -> Option<File> {
    let mut file = tempfile::NamedTempFile::new_in(directory).ok()?;
    file.as_file().try_lock().ok()?;
    file.write_all(&machine()).ok()?;
    file.persist(directory.join(HOLD)).ok()
}

/// Whether it belonged to a process on this machine that no longer holds it.
fn is_abandoned(mut hold: &File) -> bool {
    let mut name = Vec::new();
    hold.try_lock().is_ok() && hold.read_to_end(&mut name).is_ok() && name == machine()
}

fn machine() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_owned()
}

/// Whether this user created the directory and nobody else can use it.
fn is_ours(entry: &DirEntry) -> bool {
    // Metadata of the entry itself, not of a link's target.
    let own = |data: fs::Metadata| {
        data.is_dir() && data.uid() == nix::unistd::getuid().as_raw() && data.mode() & 0o077 == 0
    };
    entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.metadata().is_ok_and(own)
}
