//! Writing files so that no reader sees half of one, and an output folder in which a run removes
//! nothing but what runs made.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

const STATE: &str = ".offload";

/// Writes a file that appears under `path` whole or not at all.
///
/// # Errors
/// When the folder is not writable or full, or `fill` fails; then `path` is as it was.
pub fn write_whole(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let attempt = || -> io::Result<()> {
        let file = tempfile::Builder::new().prefix(".offload-").tempfile_in(folder)?;
        let mut writer = BufWriter::with_capacity(64 * 1024, file);
        fill(&mut writer)?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    attempt().with_context(|| format!("cannot write `{}`", path.display()))
}

/// The folder of all report files, held by one run at a time.
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
    /// Refuses folders that must not be used: `/`, the home folder, the working directory, a folder
    /// with `.git`.
    ///
    /// # Errors
    /// When `path` is one of these. A folder that does not exist is none of them.
    pub fn check(path: &Path) -> Result<()> {
        refuse_foreign_roots(path)
    }

    /// Takes the folder for this run, making it where it is missing. Nothing is removed yet.
    ///
    /// # Errors
    /// When the folder cannot be used, or is used by another run.
    pub fn claim(path: &Path) -> Result<OutputDir> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the output folder `{}`", path.display()))?;
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

    /// The folder.
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
        let text = String::from_utf8_lossy(&text);
        let mut folders = Vec::new();
        for line in text.lines() {
            let relative = Path::new(line);
            let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
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
            folders.extend(
                relative
                    .ancestors()
                    .skip(1)
                    .filter(|folder| !folder.as_os_str().is_empty())
                    .map(Path::to_owned),
            );
        }
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.components().count()));
        folders.dedup();
        for folder in folders {
            // Fails where somebody else's files are in it; then it stays.
            let _ = std::fs::remove_dir(self.path.join(folder));
        }
        manifest.set_len(0).context("cannot empty the manifest")
    }

    /// Enters `relative` in the manifest, makes its folder and gives its full path.
    ///
    /// # Errors
    /// When the manifest or the folder cannot be written.
    pub fn place(&self, relative: &Path) -> Result<PathBuf> {
        let path = self.path.join(relative);
        let mut line = relative.as_os_str().as_encoded_bytes().to_vec();
        line.push(b'\n');
        let mut manifest = self.manifest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        manifest
            .write_all(&line)
            .with_context(|| format!("cannot write the manifest of `{}`", self.path.display()))?;
        drop(manifest);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        }
        Ok(path)
    }
}

fn refuse_foreign_roots(path: &Path) -> Result<()> {
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    let home = std::env::var_os("HOME").and_then(|home| Path::new(&home).canonicalize().ok());
    let current = std::env::current_dir().and_then(|current| current.canonicalize()).ok();
    let what = if real == Path::new("/") {
        "the root of the file system"
    } else if Some(&real) == home.as_ref() {
        "the home folder"
    } else if Some(&real) == current.as_ref() {
        "the working directory"
    } else if real.join(".git").exists() {
        "the root of a git repository"
    } else {
        return Ok(());
    };
    bail!("`{}` is {what} and cannot be the output folder", path.display())
}

fn take_lock(path: &Path, folder: &Path) -> Result<File> {
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
            bail!("the output folder `{}` is in use by another run ({})", folder.display(), holder.trim());
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

/// The last `limit` bytes of a file, as text; empty where there is no such file.
pub fn tail(path: &Path, limit: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_run_made_is_removed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        std::fs::create_dir_all(output.join("logs")).unwrap();
        std::fs::write(output.join("mine.txt"), "x").unwrap();
        std::fs::write(output.join("logs/mine.txt"), "x").unwrap();
        let first = OutputDir::claim(&output).unwrap();
        for name in ["kept.xml", "junit.xml", "logs/batch-0", "downloads/a/b"] {
            std::fs::write(first.place(Path::new(name)).unwrap(), "x").unwrap();
        }
        first.place(Path::new("../escape")).unwrap();
        std::fs::write(folder.path().join("escape"), "x").unwrap();
        let second = OutputDir::claim(&output).unwrap_err().to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        drop(first);
        OutputDir::claim(&output).unwrap().clear(Path::new("kept.xml")).unwrap();
        assert!(
            output.join("kept.xml").exists()
                && output.join("mine.txt").exists()
                && output.join("logs/mine.txt").exists()
        );
        assert!(folder.path().join("escape").exists());
        assert!(!output.join("junit.xml").exists() && !output.join("logs/batch-0").exists());
        assert!(!output.join("downloads").exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, |writer| writer.write_all(b"old")).unwrap();
        assert!(write_whole(&path, |_| Err(io::Error::other("full"))).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
