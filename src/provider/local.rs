//! Sandboxes that are process groups of this machine: no isolation but in time, no cost.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};

use crate::cancel::Cancel;
use crate::command::{CommandLine, Executable};
use crate::process::guard::Guard;
use crate::process::{self, Finished};
use crate::provider::{ONE_ARGUMENT, Order, Place, Provider, ProviderError, Sandbox};

/// Linux takes 2 MiB in all arguments and variables, with the usual limit of the stack.
const ALL_ARGUMENTS: usize = 1_000_000;

/// When a file was last modified, and its length.
type FileState = (Option<SystemTime>, u64);

/// What all sandboxes of a run share.
#[derive(Debug)]
struct Site {
    root: PathBuf,
    env: Vec<(String, String)>,
    shell: String,
    guard: Arc<Guard>,
    /// Not looked into for downloads.
    output_dir: PathBuf,
    /// Downloadable files as they were last seen.
    seen: Mutex<HashMap<PathBuf, Seen>>,
}

/// A downloadable file, and the last batch that took it.
#[derive(Debug)]
struct Seen {
    state: FileState,
    /// When that batch began.
    began: Instant,
    /// When it took the file.
    at: Instant,
    /// Where its copy is.
    copy: Option<PathBuf>,
}

/// A file that a batch took.
struct Taken {
    path: PathBuf,
    at: Instant,
}

/// The provider of local processes.
#[derive(Clone, Debug)]
pub struct Local {
    site: Arc<Site>,
    root: String,
}

/// What a local provider is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory in which tests run.
    pub root: PathBuf,
    /// The root of the repository, told to tests as `OFFLOAD_ROOT`.
    pub repo_root: PathBuf,
    /// Variables of test processes.
    pub env: Vec<(String, String)>,
    /// The shell of all commands.
    pub shell: String,
    /// The directory of report files.
    pub output_dir: PathBuf,
    /// Guards the processes of tests.
    pub guard: Arc<Guard>,
}

impl Local {
    /// A provider for `settings`; files that match `globs` now are not downloads later.
    ///
    /// # Errors
    /// When the root is not a directory.
    pub fn new(settings: Settings, globs: &[String]) -> Result<Local> {
        let find = |path: &Path| {
            path.canonicalize()
                .with_context(|| format!("cannot find the working directory `{}`", path.display()))
        };
        let root = find(&settings.root)?;
        anyhow::ensure!(root.is_dir(), "the working directory `{}` is not a directory", root.display());
        let repo_root = find(&settings.repo_root)?;
        let mut env = vec![("OFFLOAD_ROOT".to_owned(), repo_root.to_string_lossy().into_owned())];
        env.extend(settings.env.iter().cloned());
        let output_dir = settings.output_dir.canonicalize().unwrap_or_else(|_| settings.output_dir.clone());
        let Settings { shell, guard, .. } = settings;
        let site = Site { root, env, shell, guard, output_dir, seen: Mutex::default() };
        site.take_changed(globs, Instant::now())?;
        Ok(Local { root: site.root.to_string_lossy().into_owned(), site: Arc::new(site) })
    }
}

impl Site {
    fn seen(&self) -> MutexGuard<'_, HashMap<PathBuf, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the files that match and are not as they were at the last call, for a batch that began at `began`. If
    /// another batch took one while this batch may have been writing it, that copy is removed.
    fn take_changed(&self, globs: &[String], began: Instant) -> Result<Vec<Taken>> {
        let matching = self.matching(globs)?;
        let mut seen = self.seen();
        let mut changed = Vec::new();
        for (path, state) in matching {
            let known = seen.get_mut(&path);
            // Another batch may have looked later and been here first.
            if known.as_ref().is_some_and(|known| known.state == state || known.state.0 > state.0) {
                continue;
            }
            if let Some(copy) = known.filter(|known| began <= known.at).and_then(|known| known.copy.take()) {
                remove(&copy)?;
            }
            let at = Instant::now();
            seen.insert(path.clone(), Seen { state, began, at, copy: None });
            changed.push(Taken { path, at });
        }
        Ok(changed)
    }

    /// Notes where the copy of a file is, or removes it if a batch that may have been writing the file has taken it
    /// since.
    fn keep(&self, taken: &Taken, copy: PathBuf) -> Result<()> {
        match self.seen().get_mut(&taken.path) {
            Some(known) if known.at == taken.at => known.copy = Some(copy),
            Some(known) if known.began <= taken.at => remove(&copy)?,
            _ => {}
        }
        Ok(())
    }

    /// The files that match, each once, in the state they are in.
    fn matching(&self, globs: &[String]) -> Result<BTreeMap<PathBuf, FileState>> {
        let mut found = BTreeMap::new();
        for pattern in globs {
            let full = Path::new(&glob::Pattern::escape(&self.root.to_string_lossy())).join(pattern);
            let paths = glob::glob(&full.to_string_lossy())
                .with_context(|| format!("`{pattern}` of `download_globs` is not a pattern"))?;
            for path in paths.filter_map(Result::ok) {
                let Ok(metadata) = path.metadata() else { continue };
                if metadata.is_file() && !path.starts_with(&self.output_dir) {
                    found.insert(path, (metadata.modified().ok(), metadata.len()));
                }
            }
        }
        Ok(found)
    }
}

impl Provider for Local {
    fn create(&self, _slot: usize, _cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError> {
        Ok(Box::new(Group { site: Arc::clone(&self.site), began: Instant::now() }))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn takes(&self, command: &CommandLine) -> bool {
        match &command.executable {
            // A pointer for each word, and the word with its end.
            Executable::Program(words) | Executable::Direct(words) => {
                let all: usize = words.iter().map(|word| word.len() + 9).sum();
                all <= ALL_ARGUMENTS && words.iter().all(|word| word.len() <= ONE_ARGUMENT)
            }
            Executable::Shell(text) => text.len() <= ONE_ARGUMENT,
        }
    }

    fn scratch(&self) -> Option<&Path> {
        None
    }
}

/// A sandbox: each command is a process group of its own.
struct Group {
    site: Arc<Site>,
    /// When its last command began.
    began: Instant,
}

fn remove(copy: &Path) -> Result<()> {
    std::fs::remove_file(copy).with_context(|| format!("cannot remove `{}`", copy.display()))
}

impl Sandbox for Group {
    fn exec(&mut self, order: &Order<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        self.began = Instant::now();
        let mut command = order.command.clone();
        command.env.splice(0..0, self.site.env.iter().cloned());
        let directory = command.directory.take().unwrap_or_default();
        command.directory = Some(self.site.root.join(directory));
        for stale in &mut command.stale {
            *stale = self.site.root.join(&*stale);
        }
        self.site.guard.mark(&mut command);
        let told = |error: &io::Error| order.streams.mask.hide_before(process::CUT, &error.to_string());
        process::run(&command, &self.site.shell, order.streams, order.deadline, cancel).map_err(|error| {
            match error.kind() {
                // No sandbox would take it: too long, or with a NUL in it.
                ErrorKind::ArgumentListTooLong | ErrorKind::InvalidInput => {
                    ProviderError::Refused(told(&error))
                }
                _ => ProviderError::Lost(told(&error)),
            }
        })
    }

    fn fetch(&mut self, remote: &Path, local: &Path) -> Result<(), ProviderError> {
        let remote = self.site.root.join(remote);
        let cannot = |verb: &str, error: io::Error| {
            let (remote, local) = (remote.display(), local.display());
            ProviderError::Lost(format!("cannot {verb} `{remote}` to `{local}`: {error}"))
        };
        match remote.metadata() {
            Ok(metadata) if metadata.is_file() && remote != local => {
                std::fs::copy(&remote, local).map(drop).map_err(|error| cannot("copy", error))
            }
            // Copying a pipe would wait for its writer. Whoever reads the report says what is wrong with it.
            Ok(metadata) if !metadata.is_file() && remote != local => {
                std::os::unix::fs::symlink(&remote, local).map_err(|error| cannot("link", error))
            }
            _ => Ok(()),
        }
    }

    fn download(&mut self, globs: &[String], place: Place<'_>) -> Result<usize> {
        let changed = self.site.take_changed(globs, self.began)?;
        for taken in &changed {
            let path = &taken.path;
            let inside = path.strip_prefix(&self.site.root).unwrap_or(path);
            let relative: PathBuf =
                inside.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            let target = place(&relative)?;
            std::fs::copy(path, &target)
                .with_context(|| format!("cannot copy `{}` to `{}`", path.display(), target.display()))?;
            self.site.keep(taken, target)?;
        }
        Ok(changed.len())
    }

    fn destroy(self: Box<Self>) -> Result<(), ProviderError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_taken_when_each_word_and_all_of_them_fit() {
        let settings = Settings {
            root: ".".into(),
            repo_root: ".".into(),
            env: Vec::new(),
            shell: "/bin/sh".into(),
            output_dir: "nowhere".into(),
            guard: Arc::new(Guard::new(None)),
        };
        let local = Local::new(settings, &[]).unwrap();
        let takes = |words: Vec<String>| local.takes(&CommandLine::program(words));
        assert!(takes(vec!["x".repeat(100_000); 9]) && takes(vec!["x".into(); 90_000]));
        assert!(!takes(vec!["x".repeat(130_000)]) && !takes(vec!["x".repeat(100_000); 11]));
        assert!(!takes(vec!["x".into(); 110_000]));
        assert!(!local.takes(&CommandLine::shell("x".repeat(130_000))));
    }
}
