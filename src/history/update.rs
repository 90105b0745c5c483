//! Updates the file, one process at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::History;
use crate::files;

/// How long to wait for another process to finish its update.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the history at `path`, applies `change` and replaces the file atomically, while other processes wait. If
/// `path` is a symbolic link, its target is replaced.
///
/// # Errors
/// If the file exists but cannot be read, if it cannot be written, or if others hold the lock for more than 10 s.
/// The file is then unchanged.
pub fn update(path: &Path, change: impl FnOnce(&mut History)) -> Result<()> {
    let target =
        files::behind_links(path).with_context(|| format!("cannot follow the link `{}`", path.display()))?;
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create the directory `{}`", directory.display()))?;
    // The lock is on the directory, since the file is replaced, and a lock file would be left in a repository.
    let _lock = lock(&directory)?;
    let mut history = History::load(&target)?;
    change(&mut history);
    files::write_whole(&target, |output| history.write(output))
}

fn lock(directory: &Path) -> Result<Option<File>> {
    let file = File::open(directory).with_context(|| format!("cannot open `{}`", directory.display()))?;
    match files::lock(&file, PATIENCE) {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            bail!("the history in `{}` is locked by another process", directory.display())
        }
        Err(TryLockError::Error(error)) => {
            // Some network file systems have no locks. Losing the results would be worse than a race.
            log::warn!("cannot lock `{}`, writing the history anyway: {error}", directory.display());
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::history::{Observation, Sample};

    const LINE: &str =
        "{\"k\":[\"c\",\"b\"],\"v\":{\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[],\"fail\":[]}}\n";

    fn sample(run: &str, at: u64, seconds: f64) -> Sample {
        Sample { run: run.into(), at, seconds }
    }

    #[test]
    fn an_update_changes_the_file_behind_a_link_and_keeps_its_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("shared"), directory.path().join("history"));
        let add = |history: &mut History| history.add("c", "a", Observation::Passed(sample("r", 1, 1.0)), 9);
        symlink("new/directory/file", directory.path().join("dangling")).unwrap();
        update(&directory.path().join("dangling"), add).unwrap();
        assert_eq!(History::load(&directory.path().join("new/directory/file")).unwrap().len(), 1);
        fs::write(&file, LINE).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("shared", &link).unwrap();
        update(&link, add).unwrap();
        assert!(link.is_symlink());
        assert_eq!(History::load(&file).unwrap().len(), 2);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 4, "no lock and no temporary file is left");
        symlink("round", directory.path().join("round")).unwrap();
        assert!(update(&directory.path().join("round"), add).is_err());
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history");
        assert_eq!(History::load(&path).unwrap(), History::default());
        assert!(History::load_existing(&path).is_err());
        fs::create_dir(&path).unwrap();
        let error = format!("{:#}", update(&path, |_| {}).unwrap_err());
        assert!(error.contains("cannot read the history") && error.contains("not a regular file"), "{error}");
        assert!(path.is_dir());
        fs::remove_dir(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert!(update(&path, |_| {}).is_err());
    }

    #[test]
    fn concurrent_updates_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().join("history");
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    for round in 0..25 {
                        let sample = sample(&format!("{thread}"), round, 1.0);
                        update(path, |history| history.add("c", "a", Observation::Passed(sample), 1000))
                            .unwrap();
                    }
                });
            }
        });
        let history = History::load(path).unwrap();
        assert_eq!(history.get("c", "a").unwrap().passed.len(), 100);
    }
}
