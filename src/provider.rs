//! What stages need from a provider of sandboxes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::process::{Finished, Streams};

pub mod command;
pub mod image_cell;
pub mod local;
pub mod modal;
pub mod patience;
pub mod remote;

/// Linux takes 128 KiB in one argument.
pub const ONE_ARGUMENT: usize = 120_000;

/// How a provider fails; typed because the dispatcher reacts to each in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderError {
    /// The sandbox is gone or broken: its batch runs elsewhere, and another sandbox replaces it.
    Lost(String),
    /// The provider rejects the request, and would reject it again.
    Refused(String),
    /// The provider asks to try again later.
    Throttled(String),
}

impl fmt::Display for ProviderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ProviderError::Lost(message)
        | ProviderError::Refused(message)
        | ProviderError::Throttled(message)) = self;
        formatter.write_str(message)
    }
}

/// A command to be executed in a sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The command.
    pub command: &'a CommandLine,
    /// The file that it writes and that is fetched afterwards, absolute or relative to the root.
    pub report: Option<&'a Path>,
    /// Where its output goes, on this machine.
    pub streams: &'a Streams,
    /// How long it may run.
    pub deadline: Duration,
}

/// What an image is made from.
#[derive(Clone, Debug, Default)]
pub struct BuildContext {
    /// A directory with the project's files; `None`: the directory in which the builder's commands run.
    pub context: Option<PathBuf>,
    /// Runs once the files are in place.
    pub init: Option<String>,
    /// Whether nothing that the provider has cached may be used.
    pub is_fresh: bool,
}

/// A difference that an image of a commit lacks.
#[derive(Clone, Debug)]
pub struct ThinDiff {
    /// The patch in git's format, for users' scripts; written only where one is used.
    pub patch: PathBuf,
    /// A script for sh that applies the change in the repository's root.
    pub script: String,
    /// Runs after the change, with `OFFLOAD_PATCH_FILE`.
    pub then: Option<String>,
}

/// What sandboxes are made from.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What the provider calls it; `None` where it needs no image.
    pub id: Option<String>,
    /// The changes that each sandbox made from it still needs.
    pub lacks: Option<ThinDiff>,
}

/// A maker of images.
pub trait Builder: Send + Sync {
    /// What decides what an image is beside the files of the project: texts in a fixed order.
    fn recipe(&self) -> Vec<String>;

    /// Directories and files of this machine outside of [`BuildContext::context`] that go into the image.
    fn outside(&self) -> Vec<PathBuf>;

    /// Patterns, relative to the root of the repository, of files that it puts in another place of the image than a
    /// difference would.
    fn inputs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it makes images at all.
    fn makes_images(&self) -> bool;

    /// Whether a difference of this size can be brought to an image or its sandboxes.
    fn can_patch(&self, bytes: usize) -> bool;

    /// Whether it uses [`ThinDiff::patch`] even where nothing runs after the change.
    fn wants_patch(&self) -> bool {
        false
    }

    /// Makes an image and gives its id.
    ///
    /// # Errors
    /// `Refused` where trying again is useless.
    fn build(&self, source: &BuildContext, cancel: &Cancel) -> Result<String, ProviderError>;

    /// The image `base` with a difference: another image, or the same one, whose sandboxes are patched.
    ///
    /// # Errors
    /// `Lost` where the image is gone, or may be.
    fn patch(&self, base: &str, difference: ThinDiff, cancel: &Cancel) -> Result<Image, ProviderError>;
}

/// Cleans up after a run.
pub trait Reaper {
    /// Destroys a sandbox; it is no error where it is gone already.
    ///
    /// # Errors
    /// When it may still be there.
    fn destroy(&self, id: &str) -> Result<(), ProviderError>;

    /// Destroys all sandboxes that carry the name of the run, and gives their ids; `None` where the provider cannot
    /// find them. Where it fails, some may still be there.
    fn sweep(&self) -> Option<Result<Vec<String>, ProviderError>>;

    /// Whether `line`, one word and the last that a create printed before it was ended, is the id of the sandbox
    /// `name`. Otherwise it may be no more than progress, and its sandbox is unknown.
    fn is_id(&self, line: &str, name: &str) -> bool {
        let _ = (line, name);
        false
    }
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// By itself.
    Complete,
    /// It was asked to stop.
    Interrupted,
}

/// Gives the place in the output directory for a file with this relative path in a sandbox.
pub type Place<'a> = &'a dyn Fn(&Path) -> Result<PathBuf>;

/// A maker of sandboxes.
pub trait Provider: Send + Sync {
    /// Makes a sandbox for the worker `slot`. Blocks until it can execute commands.
    ///
    /// # Errors
    /// `Refused` where trying again is useless.
    fn create(&self, slot: usize, cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError>;

    /// The root of the project in a sandbox.
    fn root(&self) -> &str;

    /// The prefix of the directories of batches in a sandbox; `None` where sandboxes see this machine's files.
    fn scratch(&self) -> Option<&Path>;

    /// Whether `command` is short enough to reach a sandbox.
    fn takes(&self, command: &CommandLine) -> bool;

    /// Whether a create can be ended at any moment without leaving a sandbox that nobody knows of.
    fn creates_may_be_ended(&self) -> bool {
        true
    }

    /// Called once, when all sandboxes of the run are destroyed: cleans up what creates may have left that were
    /// ended, and reports what it did and what may be left.
    fn finish(&self, end: RunEnd) {
        let _ = end;
    }

    /// Whether sandboxes see the files of this machine under the same paths.
    fn shares_files(&self) -> bool {
        self.scratch().is_none()
    }
}

/// A place in which commands run, one after the other.
pub trait Sandbox: Send {
    /// Runs a command to its end, its deadline, or until `cancel` is raised.
    ///
    /// # Errors
    /// When it could not be run at all; a command that ran and failed is not an error.
    fn exec(&mut self, order: &Order<'_>, cancel: &Cancel) -> Result<Finished, ProviderError>;

    /// Whether more commands can run in it: not where the last one had to be ended and may still run.
    fn is_usable(&self) -> bool {
        true
    }

    /// Copies the report of the last command to `local`. A missing file is not an error.
    fn fetch(&mut self, remote: &Path, local: &Path) -> Result<(), ProviderError>;

    /// Copies the files that match any of `globs`, relative to the root, and that are new since the last call; gives how
    /// many.
    fn download(&mut self, globs: &[String], place: Place<'_>) -> Result<usize>;

    /// Ends the sandbox and all that runs in it.
    fn destroy(self: Box<Self>) -> Result<(), ProviderError>;
}
