//! What the stages ask of a provider of sandboxes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::process::{Finished, Streams};

pub mod local;

/// Linux takes 128 KiB in one argument.
const ONE_ARGUMENT: usize = 120_000;

/// Whether `command`, quoted as a word of another command, is short enough for any system.
pub fn fits_one_word(command: &CommandLine) -> bool {
    shell_words::quote(&command.to_shell()).len() <= ONE_ARGUMENT
}

/// How a provider fails; typed because the pool does something else for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderError {
    /// The sandbox is gone or broken: its batch runs elsewhere, another sandbox takes its place.
    Lost(String),
    /// The provider says no, and would say so again.
    Refused(String),
}

impl fmt::Display for ProviderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ProviderError::Lost(message) | ProviderError::Refused(message)) = self;
        formatter.write_str(message)
    }
}

/// Gives the place in the output folder for a file that a sandbox calls by this relative path.
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

    /// Whether `command` is short enough to reach a sandbox.
    fn takes(&self, command: &CommandLine) -> bool;

    /// Whether sandboxes see the files of this machine under the same paths.
    fn shares_files(&self) -> bool;
}

/// A place in which commands run, one after the other.
pub trait Sandbox: Send {
    /// Runs a command to its end, its deadline, or until the run is to stop.
    ///
    /// # Errors
    /// When it could not be run at all; a command that ran and failed is not an error.
    fn exec(
        &mut self,
        command: &CommandLine,
        streams: &Streams,
        deadline: Duration,
        cancel: &Cancel,
    ) -> Result<Finished, ProviderError>;

    /// Brings a file of the sandbox to `local`. A file that is not there is not an error.
    fn fetch(&mut self, remote: &Path, local: &Path) -> Result<(), ProviderError>;

    /// Brings the files that match any of `globs`, relative to the root, and that were made since
    /// they were last looked for; gives how many.
    fn download(&mut self, globs: &[String], place: Place<'_>) -> Result<usize>;

    /// Ends the sandbox and all that runs in it.
    fn destroy(self: Box<Self>) -> Result<(), ProviderError>;
}
