//! Where the test programs of one run of `cargo test` note what they skip.

use std::fs;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

/// The file with a line for each skipped test of this run. cargo starts all test programs of a run, so the
/// file is named after this process's parent and when that was started.
pub fn skipped_tests() -> PathBuf {
    let parent = parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, the twentieth field is the time of the start.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let started = fields.split_whitespace().nth(19).unwrap_or("0");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("skipped-{parent}-{started}"))
}
