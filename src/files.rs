//! Replaces files atomically, and manages an output directory in which a run only deletes files that runs created.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

mod discarded;
mod scratch;

pub use discarded::Discarded;
pub use scratch::Scratch;

const STATE: &str = ".offload";
/// The prefix and suffix of the names of files that are being written.
const HALF_WRITTEN: (&str, &str) = (".offload-", ".half-written");

/// The number of symbolic links that the operating system follows.
const MOST_LINKS: usize = 40;

/// How often to try a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// Writes a file that appears at `path` completely or not at all, with the permissions of the file it replaces.
/// Removes unfinished files of killed processes from the directory.
///
/// # Errors
/// If the directory is full or not writable, or `fill` fails; `path` is then unchanged.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    remove_half_written(parent_of(path));
    // The umask applies to this mode; by default, temporary files are private.
    write_with(path, 0o666, fill)
}

/// The same for a file that only its owner may read.
///
/// # Errors
/// As [`write_whole`].
pub fn write_private(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_with(path, 0o600, fill)
}

fn write_with(path: &Path, mode: u32, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let (prefix, suffix) = HALF_WRITTEN;
    let attempt = || -> io::Result<()> {
        let permissions = PermissionsExt::from_mode(mode);
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix(prefix).suffix(suffix).permissions(permissions);
        let file = builder.tempfile_in(parent_of(path))?;
        // Without locks, which some file systems lack, other processes leave unfinished files alone.
        let _ = file.as_file().try_lock();
        let mut writer = BufWriter::with_capacity(64 * 1024, file);
        fill(&mut writer)?;
        if let Ok(replaced) = std::fs::metadata(path) {
            writer.get_ref().as_file().set_permissions(replaced.permissions())?;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Whether this is the name of a file that [`write_whole`] has not finished.
pub fn is_half_written(path: &Path) -> bool {
    let (prefix, suffix) = HALF_WRITTEN;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(prefix) && name.ends_with(suffix)
}

/// Removes files that nobody is writing any more. If this locks a new file before its writer does, the writer loses
/// the file and reports an error.
fn remove_half_written(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| is_half_written(path)) {
        if open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            // A file that stays does no harm.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Checks that there is space left in `directory`.
///
/// # Errors
/// If its disk is full.
pub fn check_room(directory: &Path) -> Result<()> {
    let attempt = || tempfile::tempfile_in(directory)?.write_all(&[0; 4096]);
    attempt().with_context(|| format!("cannot write in `{}`", directory.display()))
}

/// The directory that contains `path`.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a private directory unless it exists.
///
/// # Errors
/// If it cannot be created, or if it exists but others own it or can write to it, so that its content cannot be
/// trusted.
pub fn make_private(directory: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot create the directory `{}`", directory.display()))?;
    let data = directory.metadata().with_context(|| format!("cannot inspect `{}`", directory.display()))?;
    let is_own = data.uid() == nix::unistd::getuid().as_raw();
    ensure!(is_own, "the directory `{}` belongs to another user", directory.display());
    ensure!(data.mode() & 0o002 == 0, "the directory `{}` is writable by others", directory.display());
    Ok(())
}

/// The directory for all report files, used by one run at a time.
///
/// Every file that a run creates in it is first listed in a manifest. The next run removes exactly those files.
#[derive(Debug)]
pub struct OutputDir {
    path: PathBuf,
    manifest: Mutex<File>,
    /// Locked until the run ends.
    _lock: File,
}

impl OutputDir {
    /// Rejects directories that must not be used: `/`, the home directory, the working directory, the root of the
    /// project, ancestors of the last two, and any directory with `.git`.
    ///
    /// # Errors
    /// If `path` is one of these. A directory that does not exist is allowed.
    pub fn check(path: &Path, root: &Path) -> Result<()> {
        let Ok(real) = path.canonicalize() else {
            return Ok(());
        };
        let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
        let current = std::env::current_dir().and_then(|current| current.canonicalize()).ok();
        let what = if real == Path::new("/") {
            "the root of the file system"
        } else if Some(&real) == home.as_ref() {
            "the home directory"
        } else if current.is_some_and(|current| current.starts_with(&real)) {
            "the working directory or above it"
        } else if root.canonicalize().is_ok_and(|root| root.starts_with(&real)) {
            "the root of the project or above it"
        } else if real.join(".git").exists() {
            "the root of a git repository"
        } else {
            return Ok(());
        };
        bail!("`{}` is {what} and cannot be the output directory", path.display())
    }

    /// Removes the file `relative` of an earlier run.
    pub fn forget(&self, relative: &Path) {
        // Whether it is missing or cannot be removed does not matter.
        let _ = std::fs::remove_file(self.path.join(relative));
    }

    /// Claims the directory for this run and creates it if it is missing. Removes nothing yet.
    ///
    /// # Errors
    /// If the directory cannot be used, or another run is using it.
    pub fn claim(path: &Path) -> Result<OutputDir> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create the output directory `{}`", path.display()))?;
        let state = path.join(STATE);
        std::fs::create_dir_all(&state).with_context(|| format!("cannot create `{}`", state.display()))?;
        let lock = take_lock(&state.join("lock"), path)?;
        let manifest = state.join("manifest");
        let manifest = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&manifest)
            .with_context(|| format!("cannot open `{}`", manifest.display()))?;
        Ok(OutputDir { path: path.to_owned(), manifest: Mutex::new(manifest), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the files of earlier runs, except for `kept`: a report stays until a new one replaces it.
    ///
    /// # Errors
    /// If one of these files cannot be removed.
    pub fn clear(&self, kept: &Path) -> Result<()> {
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = Vec::new();
        manifest
            .rewind()
            .and_then(|()| manifest.read_to_end(&mut text))
            .context("cannot read the manifest")?;
        let mut directories = Vec::new();
        let mut stays = false;
        for line in text.split(|byte| *byte == 0) {
            let relative = Path::new(OsStr::from_bytes(line));
            let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
            stays |= relative == kept;
            if line.is_empty() || !is_inside || relative == kept {
                continue;
            }
            let path = self.path.join(relative);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove `{}`", path.display()));
                }
                _ => {}
            }
            directories.extend(
                relative
                    .ancestors()
                    .skip(1)
                    .filter(|directory| !directory.as_os_str().is_empty())
                    .map(Path::to_owned),
            );
        }
        directories.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
        directories.dedup();
        for directory in directories {
            // Fails if there are other files in it; then it stays.
            let _ = std::fs::remove_dir(self.path.join(directory));
        }
        manifest.set_len(0).context("cannot empty the manifest")?;
        drop(manifest);
        if stays { self.place(kept).map(drop) } else { Ok(()) }
    }

    /// Like [`OutputDir::place`], for an untrusted path: symbolic links could lead out of the directory.
    ///
    /// # Errors
    /// As [`OutputDir::place`], and if part of the path is a symbolic link.
    pub fn place_within(&self, relative: &Path) -> Result<PathBuf> {
        let mut path = self.path.clone();
        for part in relative {
            path.push(part);
            ensure!(
                !path.is_symlink(),
                "`{}` is a symbolic link; refusing to write through it",
                path.display()
            );
        }
        self.place(relative)
    }

    /// Adds `relative` to the manifest, creates its directory and returns its full path.
    ///
    /// # Errors
    /// If the manifest or the directory cannot be written.
    pub fn place(&self, relative: &Path) -> Result<PathBuf> {
        let path = self.list(relative)?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create `{}`", directory.display()))?;
        }
        Ok(path)
    }

    /// The same for a file whose directory exists.
    ///
    /// # Errors
    /// If the manifest cannot be written.
    pub fn list(&self, relative: &Path) -> Result<PathBuf> {
        let mut line = relative.as_os_str().as_encoded_bytes().to_vec();
        line.push(0);
        let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
        manifest
            .write_all(&line)
            .with_context(|| format!("cannot write the manifest of `{}`", self.path.display()))?;
        Ok(self.path.join(relative))
    }
}

/// Locks `file`, waiting at most `patience` while another process holds the lock.
///
/// # Errors
/// `WouldBlock` if the lock is still held then, otherwise the error of the file system.
pub fn lock(file: &File, patience: Duration) -> Result<(), TryLockError> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_INTERVAL),
            result => return result,
        }
    }
}

fn take_lock(path: &Path, directory: &Path) -> Result<File> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("cannot open `{}`", path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without the name of the holder, the message is still useful.
            let _ = lock.read_to_string(&mut holder);
            bail!(
                "the output directory `{}` is in use by another run ({})",
                directory.display(),
                holder.trim()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
        }
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "process {}", std::process::id()))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(lock)
}

/// Opens a regular file for reading. Reading anything else, such as a FIFO, could block.
///
/// # Errors
/// If the file is missing, not regular, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Follows `path` if it is a symbolic link. The target need not exist.
///
/// # Errors
/// If the links form a loop.
pub fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        if !path.is_symlink() {
            return Ok(path);
        }
        let target = std::fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(nix::errno::Errno::ELOOP.into())
}

/// The last `limit` bytes of a file as text; empty if it cannot be read.
pub fn tail(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = open(path)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last line of a file that is not blank, without the space around it.
pub fn last_line(path: &Path) -> Option<String> {
    let text = tail(path, 64 * 1024);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_only_removes_files_of_earlier_runs() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out");
        std::fs::create_dir_all(output.join("logs")).unwrap();
        std::fs::write(output.join("mine.txt"), "x").unwrap();
        std::fs::write(output.join("logs/mine.txt"), "x").unwrap();
        let first = OutputDir::claim(&output).unwrap();
        for name in ["kept.xml", "junit.xml", "logs/batch-0", "downloads/a/b"] {
            std::fs::write(first.place(Path::new(name)).unwrap(), "x").unwrap();
        }
        first.place(Path::new("../escape")).unwrap();
        std::fs::write(directory.path().join("escape"), "x").unwrap();
        let second = OutputDir::claim(&output).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        OutputDir::claim(&output).unwrap().clear(Path::new("kept.xml")).unwrap();
        assert!(
            output.join("kept.xml").exists()
                && output.join("mine.txt").exists()
                && output.join("logs/mine.txt").exists()
        );
        assert!(directory.path().join("escape").exists());
        assert!(!output.join("junit.xml").exists() && !output.join("logs/batch-0").exists());
        assert!(!output.join("downloads").exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_whole(&path, |writer| writer.write_all(b"old")).unwrap();
        assert!(write_whole(&path, |_| Err(io::Error::other("full"))).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_file_is_removed_by_the_next_write_unless_it_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        for name in [".offload-gone.half-written", ".offload-config", "mine.half-written"] {
            std::fs::write(place(name), "x").unwrap();
        }
        write_whole(&place("one"), |writer| {
            write_whole(&place("other"), |writer| writer.write_all(b"other")).map_err(io::Error::other)?;
            writer.write_all(b"one")
        })
        .unwrap();
        let mut names: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".offload-config", "mine.half-written", "one", "other"]);
    }
}
