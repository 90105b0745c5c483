//! A sandbox with files of its own.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use glob::{MatchOptions, Pattern};

use super::frame::{self, Trailer};
use super::line::Frame;
use super::{Shared, Text, Transport, is_throttled};
use crate::cancel::Cancel;
use crate::files;
use crate::journal::Entry;
use crate::mask::{Mask, Masked};
use crate::model::Exit;
use crate::process::{Finished, Streams};
use crate::provider::patience::patiently;
use crate::provider::{Order, Place, ProviderError, Sandbox};

/// What lies outside of a sandbox is removed within this.
const CLEANING: Duration = Duration::from_secs(10);
/// So many files are copied out of a sandbox by one command.
const FILES_AT_ONCE: usize = 50;
/// So many bytes of what a command said are kept for messages.
const TAIL: u64 = 2000;

/// Where the report of the last command is.
enum Report {
    /// It is not there.
    Absent,
    /// In the sandbox.
    There,
    /// Here already.
    Here(PathBuf),
}

/// A sandbox with files of its own.
pub struct Remote {
    common: Arc<Shared>,
    transport: Arc<dyn Transport>,
    id: String,
    entry: Option<Entry>,
    is_usable: bool,
    /// What ends the command that runs now, and what is done around it.
    cancel: Cancel,
    /// The directory of the last batch in the sandbox.
    batch: Option<PathBuf>,
    report: Report,
}

/// A shell's status of a process that a signal ended.
fn to_exit(status: i32) -> Exit {
    if (129..=128 + 64).contains(&status) { Exit::Signal(status - 128) } else { Exit::Code(status) }
}

impl Remote {
    /// The sandbox that `transport` reaches as `id`; `cancel` ends what is done before its first batch.
    pub fn new(
        (common, transport): (Arc<Shared>, Arc<dyn Transport>),
        id: String,
        entry: Option<Entry>,
        cancel: &Cancel,
    ) -> Remote {
        let (cancel, report) = (cancel.clone(), Report::Absent);
        Remote { common, transport, id, entry, is_usable: true, cancel, batch: None, report }
    }

    /// Nobody can guess it, so no test can speak in its name.
    fn token(&self) -> String {
        format!("offload-{:016x}", RandomState::new().hash_one(&self.id))
    }

    fn temporary(&self, kind: &str) -> PathBuf {
        self.common.scratch.join(format!("sandbox-{}.{kind}", self.common.number()))
    }

    /// Runs `text`, whose trailer begins with `token` and gives files for `places`; `None` for the trailer
    /// of a command that was ended.
    fn run(
        &mut self,
        (text, token): (&Text<'_>, &str),
        places: &[PathBuf],
        cancel: &Cancel,
    ) -> Result<(Finished, Option<Trailer>), ProviderError> {
        let finished = self.transport.exec(&self.id, text, cancel)?;
        if matches!(finished.exit, Exit::TimedOut | Exit::Cancelled) {
            // Our end of it is gone, but what runs in the sandbox may not be.
            self.is_usable = false;
            return Ok((finished, None));
        }
        let trailer = frame::cut(&text.streams.stdout, token, places)
            .map_err(|error| ProviderError::Lost(format!("cannot read the output of a command: {error}")))?;
        Ok((finished, trailer))
    }

    /// Runs a text of ours and gives the files that its trailer brought.
    fn call(&mut self, text: &str, places: &[PathBuf], files: &[&str]) -> Result<Trailer, ProviderError> {
        let token = self.token();
        let line = format!("{text}; s=$?; {}; exit $s", frame::text(&token, files, !places.is_empty()));
        let mask = Arc::new(Mask::default());
        let streams = Streams { stdout: self.temporary("stdout"), stderr: self.temporary("stderr"), mask };
        let cancel = self.cancel.clone();
        let text = Text { line: &line, env: &[], streams: &streams, deadline: self.common.timeout };
        let result = patiently(&cancel, || {
            let (finished, trailer) = self.run((&text, &token), places, &cancel)?;
            trailer.ok_or_else(|| self.gone(finished.exit, &files::tail(&streams.stderr, TAIL)))
        });
        let stderr = self.common.mask.hide_tail(&files::tail(&streams.stderr, TAIL), TAIL);
        self.common.forget(&[&streams.stdout, &streams.stderr]);
        match result? {
            trailer if trailer.status == 0 => Ok(trailer),
            trailer => {
                Err(ProviderError::Refused(format!("exit code {}: {}", trailer.status, stderr.trim())))
            }
        }
    }

    /// Whether the report can be copied out of a sandbox that says nothing of how its command ended.
    fn arrives(&mut self, report: &Path) -> bool {
        let place = self.temporary("report");
        let pair = (report.to_owned(), place.clone());
        let arrives = self.copy(&[pair]).is_ok() && place.exists();
        if arrives {
            self.report = Report::Here(place);
        }
        arrives
    }

    /// Why a command came back without a trailer.
    fn gone(&self, exit: Exit, stderr: &str) -> ProviderError {
        let stderr = self.common.mask.hide_tail(stderr, TAIL);
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        let said = lines[lines.len().saturating_sub(3)..].join("; ");
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let message =
            format!("sandbox `{}` did not tell how the command ended (its exec: {exit}){said}", self.id);
        let status = if let Exit::Code(status) = exit { Some(status) } else { None };
        // What stands further up may be a test's own.
        if is_throttled(status, lines.last().unwrap_or(&"")) {
            ProviderError::Throttled(message)
        } else {
            ProviderError::Lost(message)
        }
    }

    /// The directory of the sandbox in which nothing of the user's is.
    pub(super) fn directory(&self, name: &str) -> String {
        format!("{}-{name}-{}", self.common.prefix.display(), self.common.number())
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn common(&self) -> &Shared {
        &self.common
    }

    /// Runs a text of ours.
    ///
    /// # Errors
    /// `Refused` where it fails.
    pub(super) fn run_text(&mut self, text: &str) -> Result<(), ProviderError> {
        self.call(text, &[], &[]).map(drop)
    }

    /// Copies files out of the sandbox: pairs of remote and local, which need not exist.
    fn copy(&mut self, pairs: &[(PathBuf, PathBuf)]) -> Result<(), ProviderError> {
        // Whatever the provider's directory for relative paths is, the root is known.
        let root = PathBuf::from(self.common.inside.project_root.clone().unwrap_or_default());
        let full: Vec<_> = pairs.iter().map(|(remote, local)| (root.join(remote), local.clone())).collect();
        if let Some(copied) = self.transport.copy(&self.id, &full, &self.cancel) {
            return copied;
        }
        let files: Vec<_> = pairs.iter().map(|(remote, _)| remote.to_string_lossy()).collect();
        let files: Vec<&str> = files.iter().map(AsRef::as_ref).collect();
        let places: Vec<PathBuf> = pairs.iter().map(|(_, local)| local.clone()).collect();
        let enter = self.common.inside.enter(None);
        self.call(&format!("{enter}true"), &places, &files).map(drop)
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
            self.common.inside.enter(None),
            directories.join(" ")
        );
        let place = self.temporary("list");
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

/// The directories of a glob pattern before the first that is not one name, to look for files in.
fn fixed_part(glob: &str) -> String {
    let directories = glob.rsplit_once('/').map_or("", |(directories, _)| directories);
    let fixed = directories.split('/').take_while(|part| !part.contains(['*', '?', '[']));
    format!("./{}", fixed.collect::<Vec<_>>().join("/"))
}

impl Sandbox for Remote {
    fn exec(&mut self, order: &Order<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        self.cancel = cancel.clone();
        let token = self.token();
        let old = self.batch.take();
        // A result file may stand anywhere: only a directory of ours is removed.
        let directory = order.report.and_then(Path::parent).filter(|directory| self.common.is_own(directory));
        let batch = directory.map_or_else(|| self.directory("own").into(), Path::to_owned);
        let stamp = batch.join("started");
        let content = self.transport.brings_reports();
        // Nobody asks for anything more of it.
        let is_done = content && !self.common.has_globs;
        let frame = Frame {
            token: &token,
            old: old.as_deref(),
            own: is_done.then_some(&*batch),
            stamp: self.common.has_globs.then_some(&*stamp),
            report: order.report,
            content,
        };
        let mut command = order.command.clone();
        let beside = if self.transport.carries_env() { std::mem::take(&mut command.env) } else { Vec::new() };
        let line = self.common.inside.line(&command, &frame);
        let places: Vec<PathBuf> =
            (content && order.report.is_some()).then(|| self.temporary("report")).into_iter().collect();
        self.batch = Some(batch);
        self.report = Report::Absent;
        // A secret may be as short as a digit of the trailer: the output is masked when that is cut off.
        let raw = Streams {
            stdout: self.temporary("stdout"),
            stderr: self.temporary("stderr"),
            mask: Arc::default(),
        };
        let is_masked = !order.streams.mask.is_empty();
        let streams = if is_masked { &raw } else { order.streams };
        let text = Text { line: &line, env: &beside, streams, deadline: order.deadline };
        let result = patiently(cancel, || {
            let (finished, trailer) = self.run((&text, &token), &places, cancel)?;
            let ended = matches!(finished.exit, Exit::Code(_) | Exit::Signal(_));
            match (&trailer, order.report) {
                (None, Some(report)) if ended && !content && self.arrives(report) => {}
                (None, _) if ended => {
                    return Err(self.gone(finished.exit, &files::tail(&streams.stderr, TAIL)));
                }
                _ => {}
            }
            Ok((finished, trailer))
        });
        if is_masked {
            hide(&raw.stdout, &order.streams.stdout, &order.streams.mask)?;
            hide(&raw.stderr, &order.streams.stderr, &order.streams.mask)?;
            self.common.forget(&[&raw.stdout, &raw.stderr]);
        }
        let (finished, trailer) = result?;
        let Some(trailer) = trailer else { return Ok(finished) };
        if is_done {
            self.batch = None;
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
        if let Some(batch) = self.batch.take().filter(|_| !self.common.inside.is_apart()) {
            // The sandbox is a directory among others: what lies outside of it would stay.
            let text = format!("rm -rf {}", shell_words::quote(&batch.to_string_lossy()));
            let streams = Streams {
                stdout: self.temporary("stdout"),
                stderr: self.temporary("stderr"),
                mask: Arc::default(),
            };
            let text = Text { line: &text, env: &[], streams: &streams, deadline: CLEANING };
            if let Err(error) = self.transport.exec(&self.id, &text, &Cancel::new()) {
                log::debug!("sandbox `{}` was not tidied: {error}", self.id);
            }
        }
        self.transport.destroy(&self.id).map_err(|error| {
            ProviderError::Lost(format!(
                "the sandbox `{}` was not destroyed (`offload gc` tries again): {error}",
                self.id
            ))
        })?;
        self.entry.take().into_iter().for_each(Entry::close);
        Ok(())
    }
}
