//! A difference as a text for sh that makes it, in a sandbox that needs nothing else than the usual
//! `mkdir`, `rm`, `rmdir`, `mv`, `chmod`, `ln`.
//!
//! All that is new is written to a directory beside its place first; what can go wrong goes wrong there, and
//! the tree is as it was. Then it is put in its place by renames. A second run of the same text completes
//! an interrupted one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::changes::{Change, Changes};

/// So many bytes of a file stand in one line.
const LINE: usize = 2000;

/// So many words, and so many bytes in them, go to one program.
const WORDS: usize = 500;
const WORD_BYTES: usize = 60_000;

/// The text that makes `changes` when sh runs it in the root of the repository; plain ASCII. `None` as soon
/// as its length does not do for `fits`. What has vanished since `changes` were found counts as deleted.
///
/// # Errors
/// When a file cannot be read.
pub fn script(changes: &Changes, fits: &dyn Fn(usize) -> bool) -> Result<Option<String>> {
    // No text is shorter than what it makes.
    if !fits(changes.bytes()) {
        return Ok(None);
    }
    let mut changes = changes.clone();
    let mut text = String::from(
        "set -e\n\
         set --\n\
         stage=.offload-patch-$$\n\
         trap 'rm -rf \"$stage\"' EXIT\n\
         trap 'exit 143' TERM INT HUP\n\
         end() { echo \"$1\" >&2; exit 1; }\n\
         empty() { rmdir \"$@\" 2>/dev/null || :; }\n\
         into() { f=$1; shift; mv -f \"$@\" \"$f\"; }\n\
         away() { if [ -d \"$1\" ] && [ ! -L \"$1\" ]; then rm -rf \"$1\"; else rm -f \"$1\"; fi; }\n\
         mkdir \"$stage\"\n",
    );
    guard(&changes, &mut text);
    let directories = directories(&changes);
    let stages = (0..directories.len()).map(|number| add(&format!("\"$stage/{number}\"")));
    grouped("mkdir", stages, &mut text);
    for (path, change) in &mut changes.of {
        if *change != Change::Delete
            && !(Staging { directories: &directories, root: &changes.root, fits })
                .stage(path, change, &mut text)?
        {
            return Ok(None);
        }
    }
    permit(&directories, &changes, &mut text);
    delete(&changes, &mut text);
    place(&directories, &changes, &mut text);
    Ok(fits(text.len()).then_some(text))
}

/// The directories that something new comes into, with their numbers. What is new in one lies together in a
/// directory of this number beside them, until it goes to its place at once.
fn directories(changes: &Changes) -> BTreeMap<PathBuf, usize> {
    let new = changes.of.iter().filter(|(_, change)| **change != Change::Delete);
    let directories: BTreeSet<PathBuf> = new.map(|(path, _)| folder_of(path).to_owned()).collect();
    directories.into_iter().zip(0..).collect()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Runs `command` with the words that `texts` add, many at once: each start of a program takes its time.
fn grouped(command: &str, texts: impl Iterator<Item = String>, text: &mut String) {
    let run = format!("[ $# = 0 ] || {command} \"$@\"\nset --\n");
    let (mut words, mut bytes) = (0, 0);
    for one in texts {
        text.push_str(&one);
        (words, bytes) = (words + 1, bytes + one.len());
        if words >= WORDS || bytes >= WORD_BYTES {
            text.push_str(&run);
            (words, bytes) = (0, 0);
        }
    }
    if words > 0 {
        text.push_str(&run);
    }
}

/// The text that adds a word.
fn add(word: &str) -> String {
    format!("set -- \"$@\" {word}\n")
}

/// The text that prints `bytes`.
pub fn printing(bytes: &[u8]) -> String {
    let mut text = String::new();
    for part in bytes.chunks(LINE) {
        _ = writeln!(text, "printf '{}'", escaped(part));
    }
    text
}

/// A script in pieces of at most so many bytes.
pub fn pieces(script: &str, most: usize) -> Vec<String> {
    let pieces = script.as_bytes().chunks(most.max(1));
    pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

/// Bytes as a format of `printf` in single quotes.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for &byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'%' => text.push_str("%%"),
            // The format would be taken for an option.
            b'-' if text.is_empty() => text.push_str("\\055"),
            b' '..=b'~' if byte != b'\'' && byte != b'\\' => text.push(char::from(byte)),
            _ => _ = write!(text, "\\{byte:03o}"),
        }
    }
    text
}

/// Sets a variable to a path below the root, and gives it as one word.
fn path_word(path: &Path, text: &mut String) -> &'static str {
    let mut bytes = b"./".to_vec();
    bytes.extend_from_slice(path.as_os_str().as_bytes());
    set("p", &bytes, text);
    "\"$p\""
}

/// Sets a variable to any bytes.
fn set(name: &str, bytes: &[u8], text: &mut String) {
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) && *byte != b'\'';
    if bytes.iter().all(is_plain) {
        _ = writeln!(text, "{name}='{}'", String::from_utf8_lossy(bytes));
    } else {
        // What a command prints loses its last line feeds; the dot keeps them.
        _ = writeln!(text, "{name}=$(printf '{}.'); {name}=${{{name}%.}}", escaped(bytes));
    }
}

/// Refuses a tree in which a directory on the way to a changed path is a link that leads elsewhere.
fn guard(changes: &Changes, text: &mut String) {
    let mut directories: BTreeSet<PathBuf> = BTreeSet::new();
    for path in changes.of.keys() {
        directories.extend(
            path.ancestors()
                .skip(1)
                .filter(|directory| !directory.as_os_str().is_empty())
                .map(Path::to_owned),
        );
    }
    // One that the change itself takes away or replaces is no danger.
    for directory in directories.iter().filter(|directory| !is_replaced(directory, changes)) {
        let word = path_word(directory, text);
        _ = writeln!(text, "[ ! -L {word} ] || end \"$p is a link in the sandbox; nothing was changed\"");
    }
}

/// Whether the change deletes or replaces `path` or a directory above it.
fn is_replaced(path: &Path, changes: &Changes) -> bool {
    path.ancestors().any(|above| changes.of.contains_key(above))
}

/// Sets a variable to the name of `path`, and gives the place beside its directory as one word.
fn stage_word(directories: &BTreeMap<PathBuf, usize>, path: &Path, text: &mut String) -> String {
    set("n", path.file_name().unwrap_or_default().as_bytes(), text);
    format!("\"$stage/{}/$n\"", directories.get(folder_of(path)).copied().unwrap_or_default())
}

/// Writes new files beside their places.
struct Staging<'a> {
    directories: &'a BTreeMap<PathBuf, usize>,
    root: &'a Path,
    /// Whether a text of so many bytes is short enough.
    fits: &'a dyn Fn(usize) -> bool,
}

impl Staging<'_> {
    /// Adds what writes one file or link; gives whether the text is still short enough.
    fn stage(&self, path: &Path, change: &mut Change, text: &mut String) -> Result<bool> {
        if let Change::Link { target } = change {
            let word = stage_word(self.directories, path, text);
            set("t", target.as_bytes(), text);
            _ = writeln!(text, "ln -s -- \"$t\" {word}");
            return Ok((self.fits)(text.len()));
        }
        let path_here = self.root.join(path);
        let about = || format!("cannot read `{}`", path_here.display());
        let mut file = match File::open(&path_here) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                *change = Change::Delete;
                return Ok(true);
            }
            file => BufReader::new(file.with_context(about)?),
        };
        let word = stage_word(self.directories, path, text);
        text.push_str("{ :\n");
        let mut part = Vec::new();
        while file.by_ref().take(LINE as u64).read_to_end(&mut part).with_context(about)? > 0 {
            text.push_str(&printing(&part));
            part.clear();
            if !(self.fits)(text.len()) {
                return Ok(false);
            }
        }
        _ = writeln!(text, "}} > {word}");
        Ok(true)
    }
}

/// Gives what is new its permissions.
fn permit(directories: &BTreeMap<PathBuf, usize>, changes: &Changes, text: &mut String) {
    let mut files: BTreeMap<u32, Vec<&Path>> = BTreeMap::new();
    for (path, change) in &changes.of {
        if let Change::File { mode, .. } = change {
            files.entry(*mode).or_default().push(path);
        }
    }
    for (mode, paths) in files {
        let words = paths.into_iter().map(|path| {
            let mut text = String::new();
            let word = stage_word(directories, path, &mut text);
            text + &add(&word)
        });
        grouped(&format!("chmod {mode:o}"), words, text);
    }
}

fn delete(changes: &Changes, text: &mut String) {
    let is_new = |path: &Path| changes.of.get(path).is_some_and(|change| *change != Change::Delete);
    let old = changes.of.iter().filter(|(_, change)| **change == Change::Delete).map(|(path, _)| path);
    // What lies below something new goes with the directory that is replaced; by then it may lie behind a link.
    let old: Vec<&PathBuf> = old.filter(|path| !path.ancestors().skip(1).any(is_new)).collect();
    let words = old.iter().map(|path| {
        let mut text = String::new();
        let word = path_word(path, &mut text);
        // What is a directory by now was made so by an earlier run of this text.
        text + &format!("[ ! -L {word} ] && [ -d {word} ] || {}", add(word))
    });
    grouped("rm -f", words, text);
    let has_new_below = |path: &Path| {
        let below = changes.of.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
        let mut below = below.take_while(|(other, _)| other.starts_with(path));
        below.any(|(_, change)| *change != Change::Delete)
    };
    let left = old.iter().filter(|path| !has_new_below(path));
    let emptied: BTreeSet<&Path> = left.flat_map(|path| path.ancestors().skip(1)).collect();
    // The deepest first; one that is not empty stays, and the others are tried all the same.
    let words =
        emptied.into_iter().rev().filter(|directory| !directory.as_os_str().is_empty()).map(|directory| {
            let mut text = String::new();
            let word = path_word(directory, &mut text);
            text + &add(word)
        });
    grouped("empty", words, text);
}

fn place(directories: &BTreeMap<PathBuf, usize>, changes: &Changes, text: &mut String) {
    let words = directories.keys().filter(|directory| !directory.as_os_str().is_empty()).map(|directory| {
        let mut text = String::new();
        let word = path_word(directory, &mut text);
        text + &add(word)
    });
    grouped("mkdir -p", words, text);
    let mut new: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for (path, _) in changes.of.iter().filter(|(_, change)| **change != Change::Delete) {
        new.entry(folder_of(path)).or_default().push(path);
    }
    for (directory, paths) in new {
        path_word(directory, text);
        let words = paths.into_iter().map(|path| {
            let mut text = String::new();
            let word = stage_word(directories, path, &mut text);
            // A rename onto a directory, or a link to one, would go into it.
            _ = writeln!(text, "if [ -L \"$p/$n\" ] || [ -d \"$p/$n\" ]; then away \"$p/$n\"; fi");
            text + &add(&word)
        });
        grouped("into \"$p/\"", words, text);
    }
}

#[cfg(test)]
mod tests;
