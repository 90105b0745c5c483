//! A private directory for temporary files. If its process is killed, the next process on this machine that creates
//! such a directory removes it.

use std::fs::{self, DirEntry, File, TryLockError};
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
/// The number of random letters and digits that follow the prefix.
const RANDOM: usize = 16;
/// How many directories are tried, if others remove them.
const TRIES: usize = 10;

/// A private directory within the system's temporary directory. It is removed on drop.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    /// Dropped after the directory is removed, so that nobody else removes it at the same time. Not locked if the file
    /// system has no locks, and `None` if it is full; then the directory may stay if the process is killed.
    _hold: Option<File>,
}

impl Scratch {
    /// Creates a directory, after removing those of killed processes.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn new() -> Result<Scratch> {
        Scratch::sweep();
        let mut directory = create()?;
        let mut held = hold(directory.path());
        for _ in 1..TRIES {
            if held.is_some() {
                break;
            }
            // Another process took it for one of a killed process, or the file system is full.
            directory = create()?;
            held = hold(directory.path());
        }
        Ok(Scratch { directory, _hold: held })
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
            if hold.is_err() {
                remove_unheld(&directory);
            }
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

fn create() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .rand_bytes(RANDOM)
        // It contains output with secrets that are not masked yet.
        .permissions(PermissionsExt::from_mode(0o700))
        .tempdir()
        .context("cannot create a temporary directory (set `TMPDIR` to use another place)")
}

/// Marks the directory as in use, with a lock file that has its name only once it is locked. `None` if another process
/// removed it meanwhile.
fn hold(directory: &Path) -> Option<File> {
    let mut file = tempfile::Builder::new().prefix(HOLD).tempfile_in(directory).ok()?;
    if let Err(TryLockError::WouldBlock) = file.as_file().try_lock() {
        return None;
    }
    file.write_all(&machine()).ok()?;
    file.persist(directory.join(HOLD)).ok()
}

/// Removes a directory whose process was killed before it held it. A living process keeps its directory, or sees in
/// `hold` that it is gone and creates another one. Directories that `create` cannot have named stay, even if empty.
fn remove_unheld(directory: &Path) {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let random = name.strip_prefix(PREFIX).unwrap_or_default();
    if random.len() != RANDOM || !random.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return;
    }
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = file.file_name();
        let is_early = name != HOLD && name.to_string_lossy().starts_with(HOLD);
        let early = is_early.then(|| File::open(file.path()));
        if let Some(Ok(early)) = early
            && early.try_lock().is_ok()
        {
            let _ = fs::remove_file(file.path());
        }
    }
    // Only if it is empty.
    let _ = fs::remove_dir(directory);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_nobody_holds_yet_goes_and_one_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directory = |name: &str| {
            let directory = folder.path().join(PREFIX.to_owned() + name);
            fs::create_dir(&directory).unwrap();
            directory
        };
        let empty = directory("emptyemptyempty1");
        let early = directory("earlyearlyearly1");
        fs::write(early.join(".held1a2b"), "").unwrap();
        let used = directory("usedusedusedused");
        fs::write(used.join("note"), "x").unwrap();
        let beginning = directory("beginningbeginni");
        let lock = File::create(beginning.join(".held3c4d")).unwrap();
        lock.try_lock().unwrap();
        // Those of other parts of the program, and of users.
        let (state, own) = (directory("state-1000"), directory("backup"));
        let all = [&empty, &early, &used, &beginning, &state, &own];
        for directory in all {
            remove_unheld(directory);
        }
        assert_eq!(all.map(|path| path.exists()), [false, false, true, true, true, true]);
        assert!(hold(&empty).is_none());
        assert!(hold(&used).is_some() && used.join(HOLD).exists());
    }
}
