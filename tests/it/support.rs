//! What the tests share: scratch projects, running the program, real tools.

mod emulator;
mod processes;
mod project;
mod skips;
mod threads;
mod tools;

pub use emulator::Emulator;
pub use processes::{Outcome, Running, survivors, wait_until};
pub use project::Project;
pub use tools::{
    cmake, modal, nextest, note_skipped, python, python_eight, python_old, python_oldest, python_plugins,
    vitest, vitest_of,
};

/// Widths of runs, tool versions and the like: all of them, or the first alone.
pub fn sample<T>(all: &[T]) -> &[T] {
    if is_full() { all } else { &all[..1] }
}

/// Whether to run everything at full size instead of the usual sample.
pub fn is_full() -> bool {
    std::env::var_os("OFFLOAD_TESTS").is_some_and(|value| value == "full")
}
