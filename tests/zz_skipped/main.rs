//! Reports the tests of this run that were skipped because something they need is not available; libtest
//! counts them as passed. cargo runs test targets in order of their names, so this one must sort last.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

mod closing;
#[path = "../it/support/skips.rs"]
mod skips;

fn main() -> io::Result<ExitCode> {
    // Programs that list tests expect nothing else on stdout.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let path = skips::skipped_tests();
    let marks = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read?,
    };
    if !marks.is_empty() {
        fs::remove_file(path)?;
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let closing = closing::of(&marks, is_ci);
    writeln!(io::stdout(), "\n{}", closing.text)?;
    Ok(if closing.fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
