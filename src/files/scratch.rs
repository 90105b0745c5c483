//! A private directory for temporary files, which goes with its process even where that is killed: the next
//! one on this machine that makes such a directory removes those that nobody holds.

use std::fs::{self, DirEntry, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Begins the names of these directories.
const PREFIX: &str = "offload-";
/// Held in a directory as long as its process lives; has the name of the machine, since some file systems that
/// several share have locks for each of their own.
const HOLD: &str = ".held";

/// A directory below the system's one for temporary files, which nobody else may read. It is removed with
/// everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    /// After the directory, so that nobody else removes it at the same time. `None` where the file system has no
    /// locks: then it stays when the process is killed.
    _hold: Option<File>,
}

impl Scratch {
    /// Makes one, and removes what processes left that were killed.
    ///
    /// # Errors
    /// When no directory can be made.
    pub fn new() -> Result<Scratch> {
        Scratch::sweep();
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            // There is output in it from which no secret is hidden yet.
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()
            .context("cannot make a temporary directory (`TMPDIR` names another place for it)")?;
        let hold = hold(directory.path());
        Ok(Scratch { directory, _hold: hold })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes the directories of processes that were killed. What cannot be removed stays.
    pub fn sweep() {
        let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        for directory in entries.filter(is_ours).map(|entry| entry.path()) {
            // Held until the directory is gone, so that no two remove it at the same time.
            let hold = File::open(directory.join(HOLD));
            if hold.as_ref().is_ok_and(is_abandoned) {
                log::info!("`{}` was left by a process that was killed", directory.display());
                if fs::remove_dir_all(&directory).is_err() {
                    // What that process started may still write in it; the next one tries again.
                    let _ = fs::write(directory.join(HOLD), machine());
                }
            }
        }
    }
}

/// Locks the file by which others see that the directory is in use; it is there only when it is locked.
fn hold(directory: &Path) -> Option<File> {
    let mut file = tempfile::NamedTempFile::new_in(directory).ok()?;
    file.as_file().try_lock().ok()?;
    file.write_all(&machine()).ok()?;
    file.persist(directory.join(HOLD)).ok()
}

/// Whether a process of this machine held it, and does not any more.
fn is_abandoned(mut hold: &File) -> bool {
    let mut name = Vec::new();
    hold.try_lock().is_ok() && hold.read_to_end(&mut name).is_ok() && name == machine()
}

fn machine() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_owned()
}

/// Whether this user made the directory, and nobody else can write in it.
fn is_ours(entry: &DirEntry) -> bool {
    // Not of what a link leads to.
    let own = |data: fs::Metadata| {
        data.is_dir() && data.uid() == nix::unistd::getuid().as_raw() && data.mode() & 0o077 == 0
    };
    entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.metadata().is_ok_and(own)
}
