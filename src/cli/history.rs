//! The `offload history` subcommands.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::{load, name};
use crate::commands::{OutputFormat, history};
use crate::error::{Problem, Status};

/// The history file where no configuration names one.
const DEFAULT_PATH: &str = "offload-history.jsonl";

const LISTS: &str = "\
Lists:
  slowest     ordered by the duration of recent passes
  flakiest    tests that both passed and failed, ordered by failure rate; those with fewer than
              5 attempts come last
  newly slow  the last 3 passes took 1.5 times as long as earlier ones, and 0.1 seconds longer";

const SETTINGS: &str = "\
Adds a line to `.gitattributes`, which you should commit, and the driver to the git configuration
of this clone. Run it once in each clone; `offload` must be on PATH.";

#[derive(Subcommand)]
pub enum HistoryCommand {
    /// Show the slowest tests, the flakiest tests, and tests that have become slow
    #[command(after_help = LISTS)]
    Show {
        /// Output format
        #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
        /// Maximum length of each list
        #[arg(short, long, value_name = "N", default_value_t = 10)]
        limit: usize,
    },
    /// Merge two versions of a history file (called by git)
    Merge {
        /// Common ancestor of both versions; may be an empty file
        base: PathBuf,
        /// Our version, which receives the result
        ours: PathBuf,
        /// Their version
        theirs: PathBuf,
    },
    /// Configure git to merge the history file without conflicts
    #[command(after_help = SETTINGS)]
    SetupMergeDriver,
}

pub fn dispatch(config: &Path, command: &HistoryCommand, output: &mut dyn Write) -> Result<Status, Problem> {
    match command {
        HistoryCommand::Show { format, limit } => {
            history::show(&load(config)?, &name(config), *format, *limit, output)
        }
        HistoryCommand::Merge { base, ours, theirs } => history::merge(config, base, ours, theirs),
        HistoryCommand::SetupMergeDriver => {
            let section = if config.exists() { load(config)?.history } else { None };
            let path = section.map_or_else(|| DEFAULT_PATH.into(), |section| section.path);
            history::setup_merge_driver(&path, output)
        }
    }
}
