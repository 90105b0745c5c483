//! The commands: each wires stages, strategies and stores for one word of the command line.

mod bench;
pub mod collect;
mod experience;
mod hints;
pub mod history;
pub mod init;
pub mod logs;
pub mod plan;
mod planning;
mod recording;
pub mod run;
mod setup;
pub mod validate;
mod watch;
