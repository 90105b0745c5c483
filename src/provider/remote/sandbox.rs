//! A sandbox with files of its own.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam::channel::bounded;
use glob::{MatchOptions, Pattern};

use super::frame::{self, Trailer};
use super::line::Frame;
use super::{Shared, Text, Transport, is_throttled, to_exit};
use crate::cancel::Cancel;
use crate::files;
use crate::journal::Entry;
use crate::mask::{Mask, Masked};
use crate::model::Exit;
use crate::process::{Finished, Streams};
use crate::provider::patience::patiently;
use crate::provider::{Order, Place, ProviderError, Sandbox};

/// How long the directory of the last batch may take to be removed, even where its sandbox is destroyed sooner.
const CLEANING: Duration = Duration::from_secs(1);
/// How many files are copied out of a sandbox by one command.
const FILES_AT_ONCE: usize = 50;
/// How many bytes of what a command printed are kept for messages.
const TAIL: u64 = 2000;

/// Where the report of the last command is.
enum Report {
    /// There is none.
    Absent,
    /// In the sandbox.
    There,
    /// On this machine already.
    Here(PathBuf),
}

/// A sandbox with files of its own.
pub struct Remote {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    id: String,
    entry: Option<Entry>,
    is_usable: bool,
    /// Ends the command that is running, and what is done around it.
    cancel: Cancel,
    /// The directory of the last batch in the sandbox.
    batch: Option<PathBuf>,
    report: Report,
}

impl Remote {
    /// The sandbox that `transport` knows as `id`; `cancel` ends what is done before its first batch.
    pub fn new(
        shared: Arc<Shared>,
        transport: Arc<dyn Transport>,
        id: String,
        entry: Option<Entry>,
        cancel: &Cancel,
    ) -> Remote {
        let (cancel, report) = (cancel.clone(), Report::Absent);
        Remote { shared, transport, id, entry, is_usable: true, cancel, batch: None, report }
    }

    /// A token that no test can guess, so that none can forge a trailer.
    fn token(&self) -> String {
        format!("offload-{:016x}", RandomState::new().hash_one(&self.id))
    }

    /// Runs `text`, whose trailer begins with the token and brings files for `places`; a command that was ended has
    /// none.
    fn run(
        &mut self,
        text: &Text<'_>,
        token: &str,
        places: &[PathBuf],
        cancel: &Cancel,
    ) -> Result<(Finished, Option<Trailer>), ProviderError> {
        let finished = self.transport.exec(&self.id, text, cancel)?;
        if matches!(finished.exit, Exit::TimedOut | Exit::Cancelled) {
            // Our client is gone, but the command may still run in the sandbox.
            self.is_usable = false;
            return Ok((finished, None));
        }
        let trailer = frame::cut(&text.streams.stdout, token, places)
            .map_err(|error| ProviderError::Lost(format!("cannot read the output of a command: {error}")))?;
        Ok((finished, trailer))
    }

    /// Runs the script of a batch until it is not throttled. Without a trailer it must be known why, or the report must
    /// be there.
    fn run_batch(
        &mut self,
        text: &Text<'_>,
        token: &str,
        report: Option<&Path>,
        places: &[PathBuf],
    ) -> Result<(Finished, Option<Trailer>), ProviderError> {
        let cancel = self.cancel.clone();
        patiently(&cancel, || {
            let (finished, trailer) = self.run(text, token, places, &cancel)?;
            let is_lost = trailer.is_none() && matches!(finished.exit, Exit::Code(_) | Exit::Signal(_));
            let content = self.transport.brings_reports();
            if is_lost && !report.is_some_and(|report| !content && self.arrives(report)) {
                return Err(self.gone(finished.exit, &files::tail(&text.streams.stderr, TAIL)));
            }
            Ok((finished, trailer))
        })
    }

    /// Runs a script of ours and gives its trailer, which brought the files.
    fn call(&mut self, text: &str, places: &[PathBuf], files: &[&str]) -> Result<Trailer, ProviderError> {
        let token = self.token();
        let line = format!("{text}; s=$?; {}; exit $s", frame::text(&token, files, !places.is_empty()));
        let mask = Arc::new(Mask::default());
        let streams = Streams {
            stdout: self.shared.temporary("stdout"),
            stderr: self.shared.temporary("stderr"),
            mask,
        };
        let cancel = self.cancel.clone();
        let text = Text { line: &line, env: &[], streams: &streams, deadline: self.shared.timeout };
        let result = patiently(&cancel, || {
            let (finished, trailer) = self.run(&text, &token, places, &cancel)?;
            trailer.ok_or_else(|| self.gone(finished.exit, &files::tail(&streams.stderr, TAIL)))
        });
        let stderr = self.shared.mask.hide_tail(&files::tail(&streams.stderr, TAIL), TAIL);
        self.shared.forget(&[&streams.stdout, &streams.stderr]);
        match result? {
            trailer if trailer.status == 0 => Ok(trailer),
            trailer => {
                Err(ProviderError::Refused(format!("exit code {}: {}", trailer.status, stderr.trim())))
            }
        }
    }

    /// Whether the report can be copied out of a sandbox whose command came back without a trailer.
    fn arrives(&mut self, report: &Path) -> bool {
        let place = self.shared.temporary("report");
        let pair = (report.to_owned(), place.clone());
        let arrives = self.copy(&[pair]).is_ok() && place.exists();
        if arrives {
            self.report = Report::Here(place);
        }
        arrives
    }

    /// Why a command came back without a trailer.
    fn gone(&self, exit: Exit, stderr: &str) -> ProviderError {
        let stderr = self.shared.mask.hide_tail(stderr, TAIL);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let reason = lines[lines.len().saturating_sub(3)..].join("; ");
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        let message = format!("the sandbox did not report how the command ended (its exec: {exit}){reason}");
        log::debug!("`{}`: {message}", self.id);
        let status = if let Exit::Code(status) = exit { Some(status) } else { None };
        // Other lines may be printed by a test.
        if is_throttled(status, lines.last().unwrap_or(&"")) {
            ProviderError::Throttled(message)
        } else {
            ProviderError::Lost(message)
        }
    }

    /// A new directory of the sandbox that is ours alone.
    pub(super) fn directory(&self, name: &str) -> String {
        format!("{}-{name}-{}", self.shared.prefix.display(), self.shared.number())
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Runs a script of ours.
    ///
    /// # Errors
    /// `Refused` where it fails.
    pub(super) fn run_script(&mut self, text: &str) -> Result<(), ProviderError> {
        self.call(text, &[], &[]).map(drop)
    }

    /// Copies files out of the sandbox: pairs of remote and local, which need not exist.
    fn copy(&mut self, pairs: &[(PathBuf, PathBuf)]) -> Result<(), ProviderError> {
        // Relative paths count from the root, not from wherever the provider's command starts.
        let root = PathBuf::from(self.shared.sandbox_env.project_root.clone().unwrap_or_default());
        let full: Vec<_> = pairs.iter().map(|(remote, local)| (root.join(remote), local.clone())).collect();
        if let Some(copied) = self.transport.copy(&self.id, &full, &self.cancel) {
            return copied;
        }
        let files: Vec<_> = pairs.iter().map(|(remote, _)| remote.to_string_lossy()).collect();
        let files: Vec<&str> = files.iter().map(AsRef::as_ref).collect();
        let places: Vec<PathBuf> = pairs.iter().map(|(_, local)| local.clone()).collect();
        let enter = self.shared.sandbox_env.enter(None);
        self.call(&format!("{enter}true"), &places, &files).map(drop)
    }

    /// Destroys the sandbox and removes a directory of it at the same time.
    fn destroy_beside_removal(&self, directory: &Path) -> Result<(), ProviderError> {
        let (stop, began) = (Cancel::new(), Instant::now());
        let (sender, removed) = bounded::<()>(0);
        std::thread::scope(|scope| {
            let stop = &stop;
            let remove = move || {
                // Dropped at the end, whatever it is.
                let _sender = sender;
                self.remove(directory, stop);
            };
            if let Err(error) =
                std::thread::Builder::new().name("clean up".into()).spawn_scoped(scope, remove)
            {
                log::debug!("`{}` may be left: {error}", directory.display());
            }
            let destroyed = self.transport.destroy(&self.id);
            let _ = removed.recv_timeout(CLEANING.saturating_sub(began.elapsed()));
            stop.force();
            destroyed
        })
    }

    /// Removes a directory of the sandbox, which may be destroyed at the same time.
    fn remove(&self, directory: &Path, cancel: &Cancel) {
        let line = format!("rm -rf {}", shell_words::quote(&directory.to_string_lossy()));
        let streams = Streams {
            stdout: self.shared.temporary("stdout"),
            stderr: self.shared.temporary("stderr"),
            mask: Arc::default(),
        };
        let text = Text { line: &line, env: &[], streams: &streams, deadline: self.shared.timeout };
        if let Err(error) = self.transport.exec(&self.id, &text, cancel) {
            log::debug!("`{}` may be left: {error}", directory.display());
        }
    }

    /// The files below the root that are newer than the last command, and match any of `globs`.
    fn changed(&mut self, globs: &[String]) -> Result<Vec<PathBuf>> {
        let Some(batch) = &self.batch else { return Ok(Vec::new()) };
        let stamp = batch.join("started").to_string_lossy().into_owned();
        let mut directories: Vec<String> = globs.iter().map(|glob| fixed_part(glob)).collect();
        directories.sort();
        directories.dedup();
        let directories: Vec<_> = directories.iter().map(|directory| shell_words::quote(directory)).collect();
        let list = format!("{stamp}.list");
        let (list, stamp) = (shell_words::quote(&list), shell_words::quote(&stamp));
        let text = format!(
            "{}find {} -type f -newer {stamp} -print0 2>/dev/null > {list}; true",
            self.shared.sandbox_env.enter(None),
            directories.join(" ")
        );
        let place = self.shared.temporary("list");
        let unquoted = batch.join("started.list").to_string_lossy().into_owned();
        self.call(&text, std::slice::from_ref(&place), &[&unquoted])
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let bytes = std::fs::read(&place).context("cannot read the list of new files")?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let patterns: Vec<Pattern> = globs.iter().filter_map(|glob| Pattern::new(glob).ok()).collect();
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let names = text.split('\0').map(|name| name.strip_prefix("./").unwrap_or(name));
        let wanted = names.filter(|name| patterns.iter().any(|pattern| pattern.matches_with(name, options)));
        Ok(wanted.map(PathBuf::from).collect())
    }
}

/// Moves what a command printed to its log, without secrets.
fn hide(raw: &Path, log: &Path, mask: &Mask) -> Result<(), ProviderError> {
    let copy = || -> std::io::Result<()> {
        let mut masked = Masked::new(mask, File::create(log)?);
        match File::open(raw) {
            Ok(mut raw) => std::io::copy(&mut raw, &mut masked).map(drop)?,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        masked.finish()
    };
    copy().map_err(|error| ProviderError::Lost(format!("cannot write `{}`: {error}", log.display())))
}

/// The directories of a glob pattern before the first wildcard: where to look for files.
fn fixed_part(glob: &str) -> String {
    let directories = glob.rsplit_once('/').map_or("", |(directories, _)| directories);
    let fixed = directories.split('/').take_while(|part| !part.contains(['*', '?', '[']));
    format!("./{}", fixed.collect::<Vec<_>>().join("/"))
}

/// The end of a command that was waiting for a throttled provider when the run was stopped.
fn cancelled(started: Instant) -> Finished {
    Finished { exit: Exit::Cancelled, elapsed: started.elapsed(), leaked: false }
}

impl Sandbox for Remote {
    fn exec(&mut self, order: &Order<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        let started = Instant::now();
        self.cancel = cancel.clone();
        let token = self.token();
        let old = self.batch.take();
        // A result file may be anywhere: only a directory of ours is removed.
        let directory = order.report.and_then(Path::parent).filter(|directory| self.shared.is_own(directory));
        let batch = directory.map_or_else(|| self.directory("own").into(), Path::to_owned);
        let stamp = batch.join("started");
        let content = self.transport.brings_reports();
        // Nothing more is needed from it.
        let is_done = content && !self.shared.has_globs;
        let frame = Frame {
            token: &token,
            old: old.as_deref(),
            own: is_done.then_some(&*batch),
            stamp: self.shared.has_globs.then_some(&*stamp),
            report: order.report,
            content,
        };
        let mut command = order.command.clone();
        let beside = if self.transport.carries_env() { std::mem::take(&mut command.env) } else { Vec::new() };
        let line = self.shared.sandbox_env.line(&command, &frame);
        let places: Vec<PathBuf> = (content && order.report.is_some())
            .then(|| self.shared.temporary("report"))
            .into_iter()
            .collect();
        self.batch = Some(batch);
        self.report = Report::Absent;
        // A secret may be as short as a digit of the trailer: the output is masked after that was cut off.
        let raw = Streams {
            stdout: self.shared.temporary("stdout"),
            stderr: self.shared.temporary("stderr"),
            mask: Arc::default(),
        };
        let is_masked = !order.streams.mask.is_empty();
        let streams = if is_masked { &raw } else { order.streams };
        let text = Text { line: &line, env: &beside, streams, deadline: order.deadline };
        let result = self.run_batch(&text, &token, order.report, &places);
        if is_masked {
            hide(&raw.stdout, &order.streams.stdout, &order.streams.mask)?;
            hide(&raw.stderr, &order.streams.stderr, &order.streams.mask)?;
            self.shared.forget(&[&raw.stdout, &raw.stderr]);
        }
        let (finished, trailer) = match result {
            Err(ProviderError::Throttled(_)) if cancel.is_raised() => return Ok(cancelled(started)),
            result => result?,
        };
        let Some(trailer) = trailer else { return Ok(finished) };
        if is_done {
            self.batch = None;
            // It holds files open.
            self.cancel = Cancel::new();
        }
        if trailer.files.contains(&0) {
            self.report = places.into_iter().next().map_or(Report::There, Report::Here);
        }
        Ok(Finished { exit: to_exit(trailer.status), ..finished })
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn fetch(&mut self, remote: &Path, local: &Path) -> Result<(), ProviderError> {
        match std::mem::replace(&mut self.report, Report::Absent) {
            Report::Absent => Ok(()),
            Report::There => self.copy(&[(remote.to_owned(), local.to_owned())]),
            Report::Here(path) => std::fs::rename(&path, local).map_err(|error| {
                ProviderError::Lost(format!(
                    "cannot move `{}` to `{}`: {error}",
                    path.display(),
                    local.display()
                ))
            }),
        }
    }

    fn download(&mut self, globs: &[String], place: Place<'_>) -> Result<usize> {
        let changed = self.changed(globs)?;
        let mut pairs = Vec::new();
        for path in &changed {
            if path.components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("a sandbox names a file `{}` outside of its root", path.display());
            }
            pairs.push((path.clone(), std::path::absolute(place(path)?)?));
        }
        for some in pairs.chunks(FILES_AT_ONCE) {
            self.copy(some).map_err(|error| anyhow::anyhow!("{error}"))?;
        }
        Ok(pairs.len())
    }

    fn destroy(mut self: Box<Self>) -> Result<(), ProviderError> {
        // Where sandboxes may share a machine, a directory outside of this one would stay. Its removal does not
        // delay the destruction.
        let batch = self.batch.take().filter(|_| !self.shared.sandbox_env.is_apart());
        // It holds files open, and a sandbox may wait long for its turn.
        self.cancel = Cancel::new();
        let turn = self.transport.turn();
        let destroyed = match batch {
            Some(batch) => self.destroy_beside_removal(&batch),
            None => self.transport.destroy(&self.id),
        };
        drop(turn);
        destroyed.map_err(|error| {
            ProviderError::Lost(format!(
                "the sandbox `{}` was not destroyed (`offload gc` tries again): {error}",
                self.id
            ))
        })?;
        self.entry.take().into_iter().for_each(Entry::close);
        Ok(())
    }
}
