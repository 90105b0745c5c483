//! What the tests share: scratch projects, running the program, real tools.

mod processes;
mod project;
mod tools;

pub use processes::{Outcome, Running, survivors, wait_until};
pub use project::Project;
pub use tools::{nextest, python, python_old, vitest};
