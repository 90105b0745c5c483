//! `offload` discovers tests, plans them, runs them in many sandboxes at once and gives one verdict.
//!
//! The modules stand on floors; a module imports only from floors below its own (see DESIGN.md).

#![forbid(unsafe_code)]

// Floor 0: nouns.
mod cancel;
mod color;
mod command;
mod error;
mod mask;
mod model;
mod random;
mod words;

// Floor 1: mechanisms.
mod event;
mod files;
mod process;
mod summary;

// Floor 2: formats and stores.
mod bundled;
mod config;
mod git;
mod history;
mod journal;
mod junit;
mod record;
mod trace;

// Floor 3: strategies.
mod framework;
mod provider;

// Floor 4: stages.
mod collect;
mod discover;
mod execute;
mod image;
mod plan;
mod progress;
mod report;

// Floor 5: commands.
mod commands;

// Floor 6: shell.
pub mod cli;

/// Parts for the benches, fuzzers and tests of this package; not an interface.
#[doc(hidden)]
pub mod internals {
    pub mod command {
        pub use crate::command::{CommandLine, Executable, fill};
    }
    pub mod config {
        pub use crate::config::{
            Config, Framework, FrameworkKind, Mistakes, Provider, RecordHistory, load, parse,
        };
    }
    pub mod error {
        pub use crate::error::{Problem, Status};
    }
    pub mod framework {
        pub use crate::framework::{BatchContext, Framework, Grain, ListCommand, ListOutput};
        pub mod custom {
            pub use crate::framework::custom::Custom;
        }
        pub mod nextest {
            pub use crate::framework::nextest::Nextest;
        }
        pub mod pytest {
            pub use crate::framework::pytest::{Inherited, Pytest};
        }
        pub mod vitest {
            pub use crate::framework::vitest::Vitest;
        }
    }
    pub mod git {
        pub mod changes {
            pub use crate::git::changes::{Change, Changes};
        }
        pub mod patch {
            pub use crate::git::patch::*;
        }
    }
    pub mod history {
        pub use crate::history::{Faults, History, Observation, Sample, merge, update};
    }
    pub mod junit {
        pub use crate::junit::{Caps, Case, Entry, Recorded, Word, read_merged};
        pub mod read {
            pub use crate::junit::read::{Caps, ReadEnd, read, read_within};
        }
        pub mod write {
            pub use crate::junit::write::*;
        }
    }
    pub mod model {
        pub use crate::model::*;
    }
    pub mod record {
        pub use crate::record::{Event, read};
    }
    pub mod plan {
        pub use crate::plan::{Conditions, Limits, Overhead, Plan, estimate, list_schedule};
    }
    pub mod provider {
        pub mod modal {
            pub use crate::provider::modal::{Failure, read_answer};
        }
        pub mod remote {
            pub use crate::provider::remote::cut;
        }
    }
}
