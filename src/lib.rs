//! `offload` discovers tests, plans them, runs them in many sandboxes at once and gives one verdict.
//!
//! The modules stand on floors; a module imports only from floors below its own (see DESIGN.md).

// Floor 0: nouns.
pub mod cancel;
pub mod command;
pub mod error;
pub mod mask;
pub mod model;

// Floor 1: mechanisms.
pub mod event;
pub mod files;
pub mod process;
pub mod summary;

// Floor 2: formats and stores.
pub mod bundled;
pub mod config;
pub mod git;
pub mod history;
pub mod journal;
pub mod junit;
pub mod trace;

// Floor 3: strategies.
pub mod framework;
pub mod provider;

// Floor 4: stages.
pub mod collect;
pub mod discover;
pub mod image;
pub mod plan;
pub mod pool;
pub mod progress;
pub mod report;

// Floor 5: commands.
pub mod commands;

// Floor 6: shell.
pub mod cli;
