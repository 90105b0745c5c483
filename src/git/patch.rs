//! A difference as a text for sh that makes it, in a sandbox that needs nothing else than the usual
//! `mkdir`, `rm`, `rmdir`, `mv`, `chmod`, `ln`.
//!
//! All that is new is written to a folder beside its place first; what can go wrong goes wrong there, and
//! the tree is as it was. Then it is put in its place by renames. A second run of the same text completes
//! an interrupted one.

use std::collections::BTreeSet;
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
         stage=.offload-patch-$$\n\
         trap 'rm -rf \"$stage\"' EXIT\n\
         trap 'exit 143' TERM INT HUP\n\
         end() { echo \"$1\" >&2; exit 1; }\n\
         away() { if [ -d \"$1\" ] && [ ! -L \"$1\" ]; then rm -rf \"$1\"; else rm -f \"$1\"; fi; }\n\
         mkdir \"$stage\"\n",
    );
    guard(&changes, &mut text);
    for (number, (path, change)) in changes.of.iter_mut().enumerate() {
        let path = changes.root.join(path);
        if !stage(number, &path, change, &mut text, fits)
            .with_context(|| format!("cannot read `{}`", path.display()))?
        {
            return Ok(None);
        }
    }
    for path in changes.of.iter().filter(|(_, change)| **change == Change::Delete).map(|(path, _)| path) {
        delete(path, &changes, &mut text);
    }
    for (number, (path, change)) in changes.of.iter().enumerate() {
        if *change != Change::Delete {
            place(number, path, &mut text);
        }
    }
    Ok(fits(text.len()).then_some(text))
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

/// Refuses a tree in which a folder on the way to a changed path is a link that leads elsewhere.
fn guard(changes: &Changes, text: &mut String) {
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    for path in changes.of.keys() {
        folders.extend(
            path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned),
        );
    }
    // One that the change itself takes away or replaces is no danger.
    for folder in folders.iter().filter(|folder| !is_replaced(folder, changes)) {
        let word = path_word(folder, text);
        _ = writeln!(text, "[ ! -L {word} ] || end \"$p is a link in the sandbox; nothing was changed\"");
    }
}

/// Whether the change deletes or replaces `path` or a folder above it.
fn is_replaced(path: &Path, changes: &Changes) -> bool {
    path.ancestors().any(|above| changes.of.contains_key(above))
}

/// Writes what is new beside its place; gives whether the text is still short enough.
fn stage(
    number: usize,
    path: &Path,
    change: &mut Change,
    text: &mut String,
    fits: &dyn Fn(usize) -> bool,
) -> std::io::Result<bool> {
    match change {
        Change::Delete => {}
        Change::File { mode, .. } => {
            let mode = *mode;
            let mut file = match File::open(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    *change = Change::Delete;
                    return Ok(true);
                }
                file => BufReader::new(file?),
            };
            text.push_str("{ :\n");
            let mut part = Vec::new();
            while file.by_ref().take(LINE as u64).read_to_end(&mut part)? > 0 {
                text.push_str(&printing(&part));
                part.clear();
                if !fits(text.len()) {
                    return Ok(false);
                }
            }
            _ = writeln!(text, "}} > \"$stage/{number}\"\nchmod {mode:o} \"$stage/{number}\"");
        }
        Change::Link { target } => {
            set("t", target.as_bytes(), text);
            _ = writeln!(text, "ln -s -- \"$t\" \"$stage/{number}\"");
        }
    }
    Ok(true)
}

fn delete(path: &Path, changes: &Changes, text: &mut String) {
    let is_below_new = path
        .ancestors()
        .skip(1)
        .any(|above| changes.of.get(above).is_some_and(|change| *change != Change::Delete));
    if is_below_new {
        // It goes with the folder that is replaced; by now it may lie behind a link.
        return;
    }
    let below = changes.of.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
    let mut below = below.take_while(|(other, _)| other.starts_with(path));
    let has_new_below = below.any(|(_, change)| *change != Change::Delete);
    let word = path_word(path, text);
    // What is a folder by now was made so by an earlier run of this text.
    _ = writeln!(text, "if [ -L {word} ] || [ ! -d {word} ]; then rm -f {word}; fi");
    if has_new_below {
        return;
    }
    for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        let word = path_word(folder, text);
        _ = writeln!(text, "[ -L {word} ] || rmdir {word} 2>/dev/null || :");
    }
}

fn place(number: usize, path: &Path, text: &mut String) {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let word = path_word(folder, text);
        _ = writeln!(text, "mkdir -p {word}");
    }
    let word = path_word(path, text);
    // A rename onto a folder, or a link to one, would go into it.
    _ = writeln!(
        text,
        "if [ -L {word} ] || [ -d {word} ]; then away {word}; fi\nmv -f \"$stage/{number}\" {word}"
    );
}

#[cfg(test)]
mod tests;
