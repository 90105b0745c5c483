//! Writing files so that no reader sees half of one, and an output directory in which a run removes
//! nothing but what runs made.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

mod scratch;

pub use scratch::Scratch;

const STATE: &str = ".offload";
/// Begin and end the names of files that are being written.
const HALF_WRITTEN: (&str, &str) = (".offload-", ".half-written");

/// As many links as the operating system follows.
const MOST_LINKS: usize = 40;

/// Writes a file that appears under `path` whole or not at all, with the permissions of the file that
/// it replaces. Of what others began there and were killed, nothing stays.
///
/// # Errors
/// When the directory is not writable or full, or `fill` fails; then `path` is as it was.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    remove_half_written(folder_of(path));
    // The umask takes away what it must; a temporary file is else for its owner alone.
    write_with(path, 0o666, fill)
}

/// The same for a file that nobody but its owner may read.
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
        let file = builder.tempfile_in(folder_of(path))?;
        // Some file systems have no locks; there nothing half written is removed by others.
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

/// Whether [`write_whole`] has not finished it; if its process was killed it never will.
pub fn is_half_written(path: &Path) -> bool {
    let (prefix, suffix) = HALF_WRITTEN;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(prefix) && name.ends_with(suffix)
}

/// Removes what nobody writes any more. Who takes the lock of a file before its writer does, in the
/// moment after it is made, costs that writer its file, which it tells.
fn remove_half_written(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| is_half_written(path)) {
        if open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            // What stays is in nobody's way.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Whether more can be written in the directory.
///
/// # Errors
/// When its disk is full.
pub fn check_room(directory: &Path) -> Result<()> {
    let attempt = || tempfile::tempfile_in(directory)?.write_all(&[0; 4096]);
    attempt().with_context(|| format!("cannot write in `{}`", directory.display()))
}

/// The directory that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a directory for this user alone, where it is not there; what others made or may write is no such
/// directory, since what is found in it would be theirs.
///
/// # Errors
/// When it cannot be made, belongs to somebody else, or everybody can write in it.
pub fn make_private(directory: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.with_context(|| format!("cannot make the directory `{}`", directory.display()))?;
    let data = directory.metadata().with_context(|| format!("cannot look at `{}`", directory.display()))?;
    let is_own = data.uid() == nix::unistd::getuid().as_raw();
    ensure!(is_own, "the directory `{}` belongs to somebody else", directory.display());
    ensure!(data.mode() & 0o002 == 0, "the directory `{}` can be written by others", directory.display());
    Ok(())
}

/// The directory of all report files, held by one run at a time.
///
/// Every file that a run makes in it is entered in a manifest first; the next run removes exactly
/// those.
#[derive(Debug)]
pub struct OutputDir {
    path: PathBuf,
    manifest: Mutex<File>,
    /// Locked as long as the run lives.
    _lock: File,
}

impl OutputDir {
    /// Refuses directories that must not be used: `/`, the home directory, the working directory, `root` (the
    /// project's) and what is above them, a directory with `.git`.
    ///
    /// # Errors
    /// When `path` is one of these. A directory that does not exist is none of them.
    pub fn check(path: &Path, root: &Path) -> Result<()> {
        refuse_foreign_roots(path, root)
    }

    /// Removes the file `relative` of an earlier run.
    pub fn forget(&self, relative: &Path) {
        // What is not there need not be removed, and what cannot be is as old as it was.
        let _ = std::fs::remove_file(self.path.join(relative));
    }

    /// Takes the directory for this run, making it where it is missing. Nothing is removed yet.
    ///
    /// # Errors
    /// When the directory cannot be used, or is used by another run.
    pub fn claim(path: &Path) -> Result<OutputDir> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the output directory `{}`", path.display()))?;
        let state = path.join(STATE);
        std::fs::create_dir_all(&state).with_context(|| format!("cannot make `{}`", state.display()))?;
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

    /// Removes what earlier runs made, except for `kept`: a report stays until a new one takes its
    /// place.
    ///
    /// # Errors
    /// When one of these files cannot be removed.
    pub fn clear(&self, kept: &Path) -> Result<()> {
        let mut manifest = self.manifest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
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
            // Fails where somebody else's files are in it; then it stays.
            let _ = std::fs::remove_dir(self.path.join(directory));
        }
        manifest.set_len(0).context("cannot empty the manifest")?;
        drop(manifest);
        if stays { self.place(kept).map(drop) } else { Ok(()) }
    }

    /// As [`OutputDir::place`] for a name from elsewhere: no link on the way may lead it out of here.
    ///
    /// # Errors
    /// As [`OutputDir::place`], and when a part of it is a link.
    pub fn place_within(&self, relative: &Path) -> Result<PathBuf> {
        let mut path = self.path.clone();
        for part in relative {
            path.push(part);
            ensure!(!path.is_symlink(), "`{}` is a link; nothing is written through it", path.display());
        }
        self.place(relative)
    }

    /// Enters `relative` in the manifest, makes its directory and gives its full path.
    ///
    /// # Errors
    /// When the manifest or the directory cannot be written.
    pub fn place(&self, relative: &Path) -> Result<PathBuf> {
        let path = self.path.join(relative);
        let mut line = relative.as_os_str().as_encoded_bytes().to_vec();
        line.push(0);
        let mut manifest = self.manifest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        manifest
            .write_all(&line)
            .with_context(|| format!("cannot write the manifest of `{}`", self.path.display()))?;
        drop(manifest);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot make `{}`", directory.display()))?;
        }
        Ok(path)
    }
}

fn refuse_foreign_roots(path: &Path, root: &Path) -> Result<()> {
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
            // Without a readable name the message still says what matters.
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

/// Opens a file for reading; nothing but a regular file, so that no reader waits for a writer.
///
/// # Errors
/// When it is not there, is no regular file, or cannot be opened.
pub fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// The file that `path` leads to: itself, unless it is a link. It need not exist.
///
/// # Errors
/// When the links lead nowhere but to each other.
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

/// The last `limit` bytes of a file, as text; empty where there is no such file.
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
    fn only_what_a_run_made_is_removed_by_the_next() {
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
    fn what_was_half_written_goes_with_the_next_write_unless_it_is_being_written() {
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
