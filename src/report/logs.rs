//! The logs of batches: which of them to name, and what they end with.

use std::path::{Path, PathBuf};

use crate::error::printable;
use crate::files;

/// How many of its last lines are quoted from a log.
const LINES: usize = 5;
/// How much of the end of a log is searched for them, in bytes.
const TAIL: u64 = 8 * 1024;
/// The longest line that is quoted whole, in characters.
const LONGEST_LINE: usize = 200;

/// Where the logs of batches are.
pub struct Logs<'a> {
    /// The output directory.
    pub directory: &'a Path,
    /// The ending of a batch's logs; `None` for a batch without logs.
    pub ending: &'a dyn Fn(u32) -> Option<&'static str>,
}

/// A log that is not empty.
pub(super) struct Log {
    pub(super) path: PathBuf,
}

impl Logs<'_> {
    /// The logs of `batch` that are not empty.
    pub(super) fn of(&self, batch: u32) -> Vec<Log> {
        let Some(ending) = (self.ending)(batch) else { return Vec::new() };
        let logs = ["stdout", "stderr"]
            .map(|stream| Log { path: self.directory.join(format!("logs/batch-{batch}.{stream}.{ending}")) });
        logs.into_iter().filter(|log| log.path.metadata().is_ok_and(|data| data.len() > 0)).collect()
    }
}

impl Log {
    /// The last few kilobytes.
    pub(super) fn end(&self) -> String {
        files::tail(&self.path, TAIL)
    }

    /// The last lines that are not blank, without control characters.
    pub(super) fn tail(&self) -> Vec<String> {
        let lines: Vec<String> = self.end().lines().map(shown).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }
}

fn shown(line: &str) -> String {
    let line = printable(&without_colors(line));
    let mut letters = line.trim_end().chars();
    let mut text: String = letters.by_ref().take(LONGEST_LINE).collect();
    if letters.next().is_some() {
        text.push('…');
    }
    text
}

/// `line` without the sequences that color it.
fn without_colors(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| !letter.is_ascii_digit() && letter != ';');
        match end.map(|end| part.split_at(end)) {
            Some((_, rest)) if rest.starts_with(['m', 'K']) => text += &rest[1..],
            _ => text += part,
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_without_colors_and_not_endlessly_long() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("logs")).unwrap();
        let path = directory.path().join("logs/batch-3.stderr.error");
        let long = "x".repeat(300);
        std::fs::write(&path, format!("1\n2\n3\n\n4\n5\n\u{1b}[31;1mred\u{1b}[0m \u{7}\n{long}\n\n"))
            .unwrap();
        std::fs::write(directory.path().join("logs/batch-3.stdout.error"), "").unwrap();
        let logs = Logs { directory: directory.path(), ending: &|batch| (batch == 3).then_some("error") };
        assert!(logs.of(4).is_empty());
        let [log] = &logs.of(3)[..] else { panic!("the empty log is no log") };
        assert_eq!(log.path, path);
        let cut = "x".repeat(200) + "…";
        assert_eq!(log.tail(), ["3", "4", "5", "red", &*cut]);
    }
}
