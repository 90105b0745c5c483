//! What the working tree has beyond a commit.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::export::bytes;
use super::{Call, Repository, fields};

/// What has become of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is not there any more.
    Delete,
    /// It is a file.
    File {
        /// Its permissions.
        mode: u32,
        /// How many bytes are in it.
        size: u64,
    },
    /// It is a symbolic link.
    Link {
        /// Where it leads.
        target: OsString,
    },
}

/// Changed paths, relative to the root of the repository. What is in files is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The root of the repository.
    pub root: PathBuf,
    /// What has become of each.
    pub of: BTreeMap<PathBuf, Change>,
}

impl Changes {
    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// How many bytes are in all files.
    pub fn bytes(&self) -> usize {
        let size = |change: &Change| if let Change::File { size, .. } = change { *size } else { 0 };
        let all = self.of.values().map(size).fold(0, u64::saturating_add);
        usize::try_from(all).unwrap_or(usize::MAX)
    }
}

impl Repository {
    /// What the working tree has beyond `commit`: staged or not, untracked files included, ignored ones
    /// not, nor what is in or below one of `excluded`.
    ///
    /// # Errors
    /// When git cannot be asked, or a link cannot be read.
    pub fn changes(&self, commit: &str, excluded: &[PathBuf]) -> Result<Changes> {
        let tracked = self.ask(&Call::new([
            "diff",
            "--name-status",
            "-z",
            "--no-renames",
            "--no-ext-diff",
            "--ignore-submodules=all",
            commit,
            "--",
        ]))?;
        let tracked: Vec<&OsStr> = fields(&tracked).collect();
        let tracked = tracked.as_chunks::<2>().0.iter().map(|[status, name]| (*name, *status != "A"));
        let untracked = self.untracked()?;
        // Each with whether the commit has it; a name may stand in both lists.
        let mut names: BTreeMap<&OsStr, bool> = fields(&untracked).map(|name| (name, false)).collect();
        for (name, was_there) in tracked {
            *names.entry(name).or_default() |= was_there;
        }
        let mut changes = Changes { root: self.root.clone(), of: BTreeMap::new() };
        for (name, was_there) in names {
            let path = self.root.join(name);
            if excluded.iter().any(|excluded| path.starts_with(excluded)) {
                continue;
            }
            // What was never there need not be deleted: staged once, and removed again.
            match self.look(name, &path)? {
                Some(change) if was_there || change != Change::Delete => {
                    changes.of.insert(PathBuf::from(name), change);
                }
                _ => {}
            }
        }
        Ok(changes)
    }

    fn untracked(&self) -> Result<Vec<u8>> {
        self.ask(&Call::new(["ls-files", "-z", "--others", "--exclude-standard"]))
    }

    fn look(&self, name: &OsStr, path: &Path) -> Result<Option<Change>> {
        let data = match path.symlink_metadata() {
            Ok(data) if !self.is_behind_link(name) => data,
            _ => return Ok(Some(Change::Delete)),
        };
        Ok(if data.is_symlink() {
            let target = fs::read_link(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            Some(Change::Link { target: target.into_os_string() })
        } else if data.is_file() {
            Some(Change::File { mode: data.permissions().mode() & 0o777, size: data.len() })
        } else if data.is_dir() && !name.as_bytes().ends_with(b"/") {
            // A file was here.
            Some(Change::Delete)
        } else {
            log::warn!("`{}` is no file and not part of the difference", path.display());
            None
        })
    }

    /// Writes the difference in git's own format to `target`, for people's scripts; untracked files
    /// included.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn write_diff(&self, commit: &str, excluded: &[PathBuf], target: &Path) -> Result<()> {
        let untracked = self.untracked()?;
        let wanted = |name: &&OsStr| {
            let path = self.root.join(name);
            !excluded.iter().any(|excluded| path.starts_with(excluded)) && !name.as_bytes().ends_with(b"/")
        };
        let names: Vec<&[u8]> =
            fields(&untracked).filter(wanted).map(|name| bytes(Path::new(name))).collect();
        let index = self.temporary("index");
        let own = self.ask(&Call::new(["rev-parse", "--git-path", "index"]))?;
        let own = self.root.join(String::from_utf8_lossy(&own).trim_end_matches('\n'));
        if own.exists() {
            fs::copy(&own, &index).with_context(|| format!("cannot copy `{}`", own.display()))?;
        }
        let env = vec![("GIT_INDEX_FILE".to_owned(), index.to_string_lossy().into_owned())];
        if !names.is_empty() {
            let list = self.temporary("names");
            fs::write(&list, names.join(&0)).with_context(|| format!("cannot write `{}`", list.display()))?;
            let list = format!("--pathspec-from-file={}", list.display());
            let words = ["--literal-pathspecs", "add", "-N", &list, "--pathspec-file-nul"];
            self.ask(&Call { env: env.clone(), ..Call::new(words) })?;
        }
        let mut words: Vec<OsString> = [
            "diff",
            "--binary",
            "--full-index",
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            "--no-relative",
            commit,
            "--",
            ".",
        ]
        .iter()
        .map(OsString::from)
        .collect();
        let below = excluded.iter().filter_map(|path| path.strip_prefix(&self.root).ok());
        words.extend(
            below.filter_map(Path::to_str).map(|path| format!(":(top,exclude,literal){path}").into()),
        );
        let written = self.ask(&Call { env, output: Some(target.to_owned()), ..Call::new(words) });
        // The directory goes with the run at the latest.
        let _ = fs::remove_file(index);
        written.map(drop)
    }
}
