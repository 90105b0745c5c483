//! Where the test programs of one `cargo test` record skipped tests.

use std::fs;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

/// The file with a line for each skipped test of this run. cargo is the parent of all test programs, so the
/// file is named after the parent's process id and start time.
pub fn skipped_tests() -> PathBuf {
    let parent = parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // The start time is the 20th field after the command name, which may contain anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let started = fields.split_whitespace().nth(19).unwrap_or("0");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skipped-{parent}-{started}"))
}
