//! The sandboxes of this machine's runs that are not destroyed yet, so that `offload gc` can destroy what a killed
//! run left behind, and does not touch those of a run that is still going.
//!
//! Each run has a directory. It holds `run.json`, locked by the run; a file for each sandbox, written before its
//! create and removed after its destruction; and the output of each create, so that the id of a sandbox is known
//! even if nobody was left to read it. A create that was ended before it printed an id is *unknown*: its entry stays
//! until a sweep or the user settles it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::files;

/// How long another process may hold the lock of all runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its configuration file, absolute.
    pub config: PathBuf,
    /// The directory that it was started in.
    pub directory: PathBuf,
    /// Its process.
    pub process: u32,
    /// Milliseconds since the epoch.
    pub started: u64,
    /// Where its sandboxes are, as far as the configuration does not say it.
    #[serde(default)]
    pub place: String,
}

/// A sandbox, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    slot: usize,
    /// The name given to its create.
    #[serde(default)]
    name: String,
    id: Option<String>,
    /// Milliseconds since the epoch.
    at: u64,
}

/// The journal of a run that is going on.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    count: AtomicUsize,
    /// Locked until the run ends.
    _lock: File,
}

/// A sandbox that is being made, or has been.
#[derive(Debug)]
pub struct Entry {
    path: PathBuf,
    output: PathBuf,
    slot: usize,
    name: String,
}

/// Whether a line that a create printed can be an id: one word. A create that was ended may have printed no more than
/// its progress, which can be one word too.
pub fn may_be_id(line: &str) -> bool {
    let is_odd =
        |letter: char| letter.is_whitespace() || letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    !line.is_empty() && !line.contains(is_odd)
}

/// Where the journal is: `OFFLOAD_STATE_DIR`, else a directory of the user's state. Absolute, as the working
/// directory may change.
pub fn state_dir(environment: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let directory = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = directory("OFFLOAD_STATE_DIR")
        .or_else(|| directory("XDG_STATE_HOME").map(|state| state.join("offload")))
        .or_else(|| directory("HOME").map(|home| home.join(".local/state/offload")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("offload-state-{}", nix::unistd::getuid())));
    // Without a working directory nothing can be run anyway.
    std::path::absolute(&state).unwrap_or(state)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Held while a run enters itself and while others look for runs that have ended.
fn lock_all(state: &Path) -> Result<File> {
    // What is in it is run by `offload gc`.
    files::make_private(state)?;
    files::make_private(&state.join("runs"))?;
    let path = state.join("lock");
    let file = open(&path, true)?;
    match files::lock(&file, PATIENCE) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("`{}` is held by another process", path.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock `{}`", path.display()))
        }
    }
}

fn open(path: &Path, create: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(create).truncate(false).mode(0o600).open(path);
    file.with_context(|| format!("cannot open `{}`", path.display()))
}

impl Journal {
    /// Enters the run `run` of the configuration file `config` in the journal in `state`. `place` shows later whether
    /// the same sandboxes can be reached.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn open(state: &Path, config: &Path, run: &str, place: String) -> Result<Journal> {
        let _all = lock_all(state)?;
        let directory = state.join("runs").join(run);
        let lock = describe(&directory, config, place).inspect_err(|_| forget(&directory))?;
        Ok(Journal { directory, count: AtomicUsize::new(0), _lock: lock })
    }

    /// Enters the sandbox `name` of the worker `slot`, which is about to be made.
    ///
    /// # Errors
    /// When it cannot be written; then it must not be made.
    pub fn begin(&self, slot: usize, name: &str) -> Result<Entry> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let path = |ending: &str| self.directory.join(format!("sandbox-{number}.{ending}"));
        let entry = Entry { path: path("json"), output: path("out"), slot, name: name.to_owned() };
        let line = entry.line(None)?;
        files::write_private(&entry.path, |writer| writer.write_all(line.as_bytes()))?;
        // The command that makes the sandbox would make it readable for others.
        open(&entry.output, true)?;
        Ok(entry)
    }
}

/// Makes the directory of a run of the configuration file `config`; it is held by the file that is given back.
fn describe(directory: &Path, config: &Path, place: String) -> Result<File> {
    files::make_private(directory)?;
    let started_in = std::env::current_dir().context("cannot find the working directory")?;
    let (config, process, started) = (config.to_owned(), std::process::id(), now());
    let about = About { config, directory: started_in, process, started, place };
    let path = directory.join("run.json");
    let mut lock = open(&path, true)?;
    lock.try_lock().with_context(|| format!("cannot lock `{}`", path.display()))?;
    let text = serde_json::to_string(&about).context("cannot describe the run")?;
    lock.write_all(text.as_bytes()).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(lock)
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Others must not find the directory half removed.
        let _all = self.directory.ancestors().nth(2).map(lock_all);
        forget(&self.directory);
    }
}

/// Removes the directory of a run that has no sandbox.
fn forget(directory: &Path) {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let (half_written, whole): (Vec<_>, Vec<_>) = files.partition(|file| files::is_half_written(file));
    if whole.iter().all(|file| file.ends_with("run.json")) {
        // What stays is removed by the next who looks.
        half_written.iter().chain(&whole).for_each(|file| {
            let _ = fs::remove_file(file);
        });
        let _ = fs::remove_dir(directory);
    }
}

impl Entry {
    /// One line of the entry, with its end.
    fn line(&self, id: Option<&str>) -> Result<String> {
        let line = Line { slot: self.slot, name: self.name.clone(), id: id.map(str::to_owned), at: now() };
        Ok(serde_json::to_string(&line).context("cannot describe a sandbox")? + "\n")
    }

    /// The file that the output of the creating command goes to.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// The sandbox has been made.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn created(&mut self, id: &str) -> Result<()> {
        // Appended, so that no file is replaced; a line that is not whole is not read.
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(self.line(Some(id))?.as_bytes())?;
        Ok(())
    }

    /// The sandbox has been destroyed, or was not made.
    pub fn close(self) {
        for path in [&self.path, &self.output] {
            // What cannot be removed is found by `offload gc`, and a sandbox may be destroyed twice.
            let _ = fs::remove_file(path);
        }
    }
}

/// A run that has ended and left sandboxes. It is locked until this is dropped.
#[derive(Debug)]
pub struct Dead {
    /// The run.
    pub about: About,
    /// Its name.
    pub run: String,
    /// What it left.
    pub sandboxes: Vec<Left>,
    directory: PathBuf,
    _lock: File,
}

/// A sandbox that a dead run left.
#[derive(Debug)]
pub struct Left {
    id: Option<String>,
    entry: Entry,
}

impl Left {
    /// What the provider calls it; `None` where its run did not live to enter that.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The last line that its create printed, if that can be an id.
    pub fn guess(&self) -> Option<String> {
        files::last_line(&self.entry.output).filter(|line| may_be_id(line))
    }

    /// The name given to its create.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The worker that it was for.
    pub fn slot(&self) -> usize {
        self.entry.slot
    }

    /// Whether its create is still running.
    pub fn is_pending(&self) -> bool {
        self.id.is_none() && is_open(&self.entry.output)
    }

    /// It has been destroyed, was never made, or is no longer looked for.
    pub fn close(self) {
        self.entry.close();
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        forget(&self.directory);
    }
}

/// Whether a process has the file open, as far as can be seen.
fn is_open(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id().to_string();
    processes.filter(|process| process.file_name() != own.as_str()).any(|process| {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        files.map(|file| fs::read_link(file.path())).any(|target| target.is_ok_and(|target| target == path))
    })
}

/// The runs that have ended and left something, without those that another process is cleaning up.
///
/// # Errors
/// When the journal cannot be read.
pub fn dead(state: &Path) -> Result<Vec<Dead>> {
    let runs = state.join("runs");
    if !runs.exists() {
        return Ok(Vec::new());
    }
    let _all = lock_all(state)?;
    let about = || format!("cannot read `{}`", runs.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&runs).with_context(about)? {
        let directory = entry.with_context(about)?.path();
        match examine(&directory) {
            Ok(Some(dead)) => found.push(dead),
            Ok(None) => {}
            Err(error) => log::warn!("`{}` is left as it is: {error:#}", directory.display()),
        }
    }
    found.sort_by(|one, other| one.run.cmp(&other.run));
    Ok(found)
}

fn examine(directory: &Path) -> Result<Option<Dead>> {
    let path = directory.join("run.json");
    // A run that was killed while it entered itself has none, or an empty one.
    let lock = open(&path, true)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock `run.json`"),
    }
    let mut sandboxes = Vec::new();
    for entry in fs::read_dir(directory).context("cannot list it")? {
        let path = entry.context("cannot list it")?.path();
        if path.extension().is_none_or(|ending| ending != "json") || path.ends_with("run.json") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let last = text.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back();
        let line: Line = last.with_context(|| format!("cannot understand `{}`", path.display()))?;
        let output = path.with_extension("out");
        let Line { slot, name, id, .. } = line;
        sandboxes.push(Left { id, entry: Entry { path, output, slot, name } });
    }
    sandboxes.sort_by(|one, other| one.entry.path.cmp(&other.entry.path));
    if sandboxes.is_empty() {
        forget(directory);
        return Ok(None);
    }
    let text = fs::read_to_string(&path).context("cannot read `run.json`")?;
    let about: About = serde_json::from_str(&text).context("cannot understand `run.json`")?;
    let run = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Some(Dead { about, run, sandboxes, directory: directory.to_owned(), _lock: lock }))
}

#[cfg(test)]
mod tests;
