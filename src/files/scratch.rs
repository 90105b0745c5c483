//! A private folder for temporary files, which goes with its process even where that is killed: the next
//! one on this machine that makes such a folder removes those that nobody holds.

use std::fs::{self, DirEntry, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Begins the names of these folders.
const PREFIX: &str = "offload-";
/// Held in a folder as long as its process lives; has the name of the machine, since some file systems that
/// several share have locks for each of their own.
const HOLD: &str = ".held";

/// A folder below the system's one for temporary files, which nobody else may read. It is removed with
/// everything in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// After the folder, so that nobody else removes it at the same time. `None` where the file system has no
    /// locks: then it stays when the process is killed.
    _hold: Option<File>,
}

impl Scratch {
    /// Makes one, and removes what processes left that were killed.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn new() -> Result<Scratch> {
        Scratch::sweep();
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            // There is output in it from which no secret is hidden yet.
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()
            .context("cannot make a temporary folder (`TMPDIR` names another place for it)")?;
        let hold = hold(folder.path());
        Ok(Scratch { folder, _hold: hold })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes the folders of processes that were killed. What cannot be removed stays.
    pub fn sweep() {
        let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        for folder in entries.filter(is_ours).map(|entry| entry.path()) {
            // Held until the folder is gone, so that no two remove it at the same time.
            let hold = File::open(folder.join(HOLD));
            if hold.as_ref().is_ok_and(is_abandoned) {
                log::info!("`{}` was left by a process that was killed", folder.display());
                if fs::remove_dir_all(&folder).is_err() {
                    // What that process started may still write in it; the next one tries again.
                    let _ = fs::write(folder.join(HOLD), machine());
                }
            }
        }
    }
}

/// Locks the file by which others see that the folder is in use; it is there only when it is locked.
fn hold(folder: &Path) -> Option<File> {
    let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
    file.as_file().try_lock().ok()?;
    file.write_all(&machine()).ok()?;
    file.persist(folder.join(HOLD)).ok()
}

/// Whether a process of this machine held it, and does not any more.
fn is_abandoned(mut hold: &File) -> bool {
    let mut name = Vec::new();
    hold.try_lock().is_ok() && hold.read_to_end(&mut name).is_ok() && name == machine()
}

fn machine() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_owned()
}

/// Whether this user made the folder, and nobody else can write in it.
fn is_ours(entry: &DirEntry) -> bool {
    // Not of what a link leads to.
    let own = |data: fs::Metadata| {
        data.is_dir() && data.uid() == nix::unistd::getuid().as_raw() && data.mode() & 0o077 == 0
    };
    entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.metadata().is_ok_and(own)
}
