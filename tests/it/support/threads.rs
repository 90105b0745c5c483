//! How many tests run at once.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Tests mostly wait for processes, so two run at once for each core unless another number was asked for. libtest reads
/// the number before any code of ours, except for this: it starts the tests again with the number as an argument.
#[ctor::ctor(unsafe)]
fn choose_threads() {
    let arguments: Vec<_> = env::args_os().collect();
    let is_chosen = |argument: &std::ffi::OsString| argument.to_string_lossy().starts_with("--test-threads");
    // Some systems give constructors no arguments.
    let Some((_, own)) = arguments.split_first() else { return };
    if own.iter().any(is_chosen) || env::var_os("RUST_TEST_THREADS").is_some() {
        return;
    }
    let (Ok(program), Ok(cores)) = (env::current_exe(), std::thread::available_parallelism()) else { return };
    let threads = format!("--test-threads={}", 2 * cores.get());
    // If it cannot be started, the tests run as they are.
    let _ = Command::new(program).arg(threads).args(own).exec();
}
