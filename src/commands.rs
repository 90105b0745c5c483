//! The commands: each wires stages, strategies and stores for one word of the command line.

pub mod build;
pub mod collect;
mod estimates;
pub mod gc;
mod hints;
pub mod history;
pub mod init;
mod limits;
pub mod logs;
mod makers;
pub mod plan;
mod planning;
mod recording;
pub mod run;
mod sandboxes;
mod setup;
pub mod validate;

/// How a command writes what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    Text,
    Json,
}
