//! What the tests share: scratch projects, running the program, real tools.

mod emulator;
mod processes;
mod project;
mod tools;

pub use emulator::Emulator;
pub use processes::{Outcome, Running, survivors, wait_until};
pub use project::Project;
pub use tools::{modal, nextest, python, python_old, vitest};
