//! The words behind `offload history`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};

use super::{load, name};
use crate::commands::history::{self, Format};
use crate::error::{Problem, Status};

/// The file of the history where no configuration names it.
const DEFAULT_PATH: &str = "offload-history.jsonl";

const LISTS: &str = "\
Lists:
  slowest     by what recent passes took
  flakiest    both passed and failed; by the share of failures, below 5 attempts last
  newly slow  the last passes, up to 3, took at least 1.5 times and 0.1 s more than those before";

const SETTINGS: &str = "\
Adds a line to `.gitattributes`, which is to be committed, and the driver to the git
configuration of this clone. Each clone needs the latter once, and `offload` on PATH.";

#[derive(Subcommand)]
pub enum HistoryCommand {
    /// Show the slowest tests, the flakiest, and those that have become slow
    #[command(after_help = LISTS)]
    Show {
        /// How the lists are written
        #[arg(short, long, value_enum, default_value_t = ShowFormat::Text)]
        format: ShowFormat,
        /// The length of each list
        #[arg(short, long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// Merge two versions of a history; git calls this
    Merge {
        /// What both come from; may be empty
        base: PathBuf,
        /// Our version, which gets the result
        ours: PathBuf,
        /// Their version
        theirs: PathBuf,
    },
    /// Let git merge the history without conflicts
    #[command(after_help = SETTINGS)]
    SetupMergeDriver,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ShowFormat {
    Text,
    Json,
}

pub fn dispatch(config: &Path, command: &HistoryCommand, output: &mut dyn Write) -> Result<Status, Problem> {
    match command {
        HistoryCommand::Show { format, limit } => {
            let format = match format {
                ShowFormat::Text => Format::Text,
                ShowFormat::Json => Format::Json,
            };
            history::show(&load(config)?, &name(config), (format, *limit), output)
        }
        HistoryCommand::Merge { base, ours, theirs } => history::merge(config, base, ours, theirs),
        HistoryCommand::SetupMergeDriver => {
            let section = if config.exists() { load(config)?.history } else { None };
            let path = section.map_or_else(|| DEFAULT_PATH.into(), |section| section.path);
            history::setup_merge_driver(&path, output)
        }
    }
}
