//! Whole trees: of a commit, and of the working tree as it is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use super::{Call, Repository, fields};

impl Repository {
    /// A path for a file of its own.
    pub(super) fn temporary(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("{}.{name}", self.calls.fetch_add(1, Ordering::Relaxed)))
    }

    /// The newest commit; `None` as long as there is none.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn head(&self) -> Result<Option<String>> {
        let answer = self.try_ask(&Call::new(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]))?;
        Ok((answer.code == 0).then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned()))
    }

    /// The newest commit and those before it, at most so many.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn ancestors(&self, most: usize) -> Result<Vec<String>> {
        let list = self.ask(&Call::new(["rev-list", "-n", &most.to_string(), "HEAD"]))?;
        Ok(String::from_utf8_lossy(&list).lines().map(str::to_owned).collect())
    }

    /// How many commits of here `commit` lacks.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn behind(&self, commit: &str) -> Result<usize> {
        let count = self.ask(&Call::new(["rev-list", "--count", &format!("{commit}..HEAD")]))?;
        let count = String::from_utf8_lossy(&count);
        count.trim().parse().with_context(|| format!("git counts `{}` commits", count.trim()))
    }

    /// The paths in `commit` where other repositories have their place.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn submodules(&self, commit: &str) -> Result<Vec<String>> {
        let list = self.ask(&Call::new(["ls-tree", "-r", "-z", commit]))?;
        // `MODE KIND ID`, a tab, the path.
        let paths = fields(&list).filter_map(|entry| entry.as_bytes().strip_prefix(b"160000 "));
        let path =
            |entry: &[u8]| String::from_utf8_lossy(entry).split_once('\t').map(|(_, path)| path.into());
        Ok(paths.filter_map(path).collect())
    }

    /// Writes the tree of `commit` to the directory `target`, as a checkout would; the user's index and
    /// working tree are not touched.
    ///
    /// # Errors
    /// When there is no such commit, or `target` cannot be written.
    pub fn export(&self, commit: &str, target: &Path) -> Result<()> {
        let index = self.temporary("index").to_string_lossy().into_owned();
        // Attributes that are not committed must not change what is written: they are looked for in an
        // empty working tree, then in the index.
        let nowhere = self.temporary("nowhere");
        fs::create_dir(&nowhere).with_context(|| format!("cannot make `{}`", nowhere.display()))?;
        let directory = String::from_utf8_lossy(&self.ask(&Call::new(["rev-parse", "--absolute-git-dir"]))?)
            .trim_end_matches('\n')
            .to_owned();
        let env = vec![
            ("GIT_INDEX_FILE".to_owned(), index.clone()),
            ("GIT_DIR".to_owned(), directory),
            ("GIT_WORK_TREE".to_owned(), nowhere.to_string_lossy().into_owned()),
        ];
        let with_index = |words: &[&str]| self.ask(&Call { env: env.clone(), ..Call::new(words) });
        let done = with_index(&["read-tree", commit]).and_then(|_| {
            with_index(&["checkout-index", "--all", "--force", &format!("--prefix={}/", target.display())])
        });
        // The directory goes with the run at the latest.
        let _ = fs::remove_file(&index);
        done.map(drop).with_context(|| format!("cannot export commit {commit}"))
    }

    /// Copies the working tree as it is, without what git ignores and what is in or below one of
    /// `excluded`, to the directory `target`.
    ///
    /// # Errors
    /// When a file cannot be copied; one that is gone meanwhile is left out.
    pub fn snapshot(&self, target: &Path, excluded: &[PathBuf]) -> Result<()> {
        let list = self.ask(&Call::new(["ls-files", "-z", "-co", "--exclude-standard"]))?;
        let names: BTreeSet<&OsStr> = fields(&list).collect();
        for name in names {
            let from = self.root.join(name);
            if excluded.iter().any(|excluded| from.starts_with(excluded)) || self.is_behind_link(name) {
                continue;
            }
            match copy(&from, &target.join(name)) {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Err(error).with_context(|| format!("cannot copy `{}`", from.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a directory of this relative path is a link, so that what lies behind is no part of the tree.
    pub(super) fn is_behind_link(&self, name: &OsStr) -> bool {
        let directories = Path::new(name).ancestors().skip(1);
        directories
            .filter(|directory| !directory.as_os_str().is_empty())
            .any(|directory| self.root.join(directory).is_symlink())
    }
}

/// A file or link; directories (of other repositories) are left out.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let kind = from.symlink_metadata()?.file_type();
    let make_folder = || to.parent().map_or(Ok(()), fs::create_dir_all);
    if kind.is_symlink() {
        make_folder()?;
        std::os::unix::fs::symlink(fs::read_link(from)?, to)
    } else if kind.is_file() {
        make_folder()?;
        fs::copy(from, to).map(drop)
    } else {
        Ok(())
    }
}

/// The bytes of a path, as git prints it.
pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
