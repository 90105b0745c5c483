//! `offload history setup-merge-driver`: configures git to merge the history.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::commands::validate::is_executable;
use crate::error::{Problem, Status};
use crate::files::{self, Scratch};
use crate::model::Exit;
use crate::process::Capture;

const ATTRIBUTE: &str = "merge=offload-history";
const SETTINGS: [(&str, &str); 2] = [
    ("merge.offload-history.name", "merges histories of test runs"),
    ("merge.offload-history.driver", "offload history merge %O %A %B"),
];
/// How long git may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many bytes of git's error output are shown.
const TAIL: u64 = 2048;
const SHELL: &str = "/bin/sh";
/// The exit code of a shell that cannot find the program.
const NOT_FOUND: i32 = 127;

/// Makes git merge the history at `path` with `offload history merge`: adds a line to `.gitattributes` in
/// the repository of `path`, and settings to its configuration, unless they are there. Reports the changes
/// to `output`.
///
/// # Errors
/// Without git or a repository, or when one of the files cannot be written.
pub fn setup_merge_driver(path: &Path, output: &mut dyn Write) -> Result<Status, Problem> {
    let path = resolve(path)?;
    let directory = path.ancestors().skip(1).find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
    let git = Git::new(directory)?;
    let relative = path.strip_prefix(&git.top).map_err(|_| {
        Problem::usage(format!("`{}` is not in the repository `{}`", path.display(), git.top.display()))
    })?;
    let mut done = Vec::new();
    for (key, value) in SETTINGS {
        if git.ask(&["config", "--local", "--get", key])?.as_deref() != Some(value.as_bytes()) {
            git.must(&["config", "--local", key, value])?;
            done.push(format!("set `{key}` to `{value}` in the configuration of the repository"));
        }
    }
    let attributes = git.top.join(".gitattributes");
    if let Some(line) = add_line(&attributes, relative)? {
        done.push(format!("added `{line}` to `{}`; commit this file", attributes.display()));
    }
    check(&git, relative)?;
    if done.is_empty() {
        done.push(format!("git already merges `{}` with `offload`", relative.display()));
    }
    writeln!(output, "{}", done.join("\n")).context("cannot write to standard output")?;
    Ok(Status::Passed)
}

/// Warns if git would not use the driver anyway.
fn check(git: &Git, relative: &Path) -> Result<()> {
    let name = relative.display();
    if let Some(path) = relative.to_str() {
        let found = git.must(&["check-attr", "-z", "merge", "--", path])?;
        if !found.ends_with(b"\0offload-history\0") {
            log::warn!("git will not use the driver for `{name}`: another attribute overrides it");
        }
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&search).any(|directory| is_executable(&directory.join("offload"))) {
        log::warn!("`offload` is not on PATH; git needs it there to merge `{name}`");
    }
    Ok(())
}

/// `path` with links in existing directories resolved, as git names its directories.
fn resolve(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    for directory in path.ancestors().skip(1) {
        if let (Ok(real), Ok(rest)) = (directory.canonicalize(), path.strip_prefix(directory)) {
            return Ok(real.join(rest));
        }
    }
    bail!("`{}` is in no directory", path.display())
}

/// Adds the attribute for `relative` to the file; returns the line unless it was there.
fn add_line(attributes: &Path, relative: &Path) -> Result<Option<String>> {
    let file = files::behind_links(attributes)
        .with_context(|| format!("cannot follow the link `{}`", attributes.display()))?;
    let mut text = match std::fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        text => text.with_context(|| format!("cannot read `{}`", file.display()))?,
    };
    let pattern = pattern(relative);
    if text.split(|byte| *byte == b'\n').any(|line| sets_driver(line, &pattern)) {
        return Ok(None);
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let line = [&pattern, b" ".as_slice(), ATTRIBUTE.as_bytes()].concat();
    files::write_whole(&file, |output| {
        output.write_all(&text)?;
        output.write_all(&line)?;
        output.write_all(b"\n")
    })?;
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn sets_driver(line: &[u8], pattern: &[u8]) -> bool {
    let attributes = line.trim_ascii().strip_prefix(pattern).unwrap_or_default();
    let is_whole = attributes.first().is_some_and(u8::is_ascii_whitespace);
    is_whole && attributes.split(u8::is_ascii_whitespace).any(|word| word == ATTRIBUTE.as_bytes())
}

/// A gitattributes pattern that matches only `path`: special characters are escaped, and a pattern with
/// blanks, or that looks like a comment, is quoted as in C.
fn pattern(path: &Path) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    let mut pattern = Vec::new();
    for (place, byte) in path.iter().enumerate() {
        if b"*?[\\".contains(byte) || (place == 0 && *byte == b'!') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    let is_special = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control() || *byte == b'"';
    if !pattern.iter().any(is_special) && !pattern.starts_with(b"#") {
        return pattern;
    }
    let quote = |byte: &u8| match byte {
        b'"' | b'\\' => vec![b'\\', *byte],
        0..0x20 | 0x7f => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    [b"\"".to_vec(), pattern.iter().flat_map(quote).collect(), b"\"".to_vec()].concat()
}

/// Git, asked in the top directory of a working tree.
struct Git {
    top: PathBuf,
    scratch: Scratch,
}

impl Git {
    /// Finds the working tree that `directory` is in.
    fn new(directory: &Path) -> Result<Git, Problem> {
        let scratch = Scratch::new()?;
        let git = Git { top: directory.to_owned(), scratch };
        let (exit, stdout, stderr) = git.run(&["rev-parse", "--show-toplevel"])?;
        match exit {
            Exit::Code(0) => {
                let top = stdout.strip_suffix(b"\n").unwrap_or(&stdout);
                Ok(Git { top: OsStr::from_bytes(top).into(), ..git })
            }
            Exit::Code(NOT_FOUND) => {
                Err(Problem::from(anyhow!("cannot run git: {stderr}")).hint("install git, or add it to PATH"))
            }
            _ => {
                let place = directory.display();
                let problem = Problem::usage(format!("`{place}` is not in a git working tree: {stderr}"));
                Err(problem.hint("run this in the repository that contains the history"))
            }
        }
    }

    /// The output of the command without its last newline; `None` if it exits with 1, which means that there
    /// is no value.
    fn ask(&self, words: &[&str]) -> Result<Option<Vec<u8>>> {
        match self.run(words)? {
            (Exit::Code(0), stdout, _) => Ok(Some(stdout.strip_suffix(b"\n").unwrap_or(&stdout).to_vec())),
            (Exit::Code(1), ..) => Ok(None),
            (exit, _, stderr) => Err(failure(words, exit, &stderr)),
        }
    }

    /// What the command prints.
    fn must(&self, words: &[&str]) -> Result<Vec<u8>> {
        match self.run(words)? {
            (Exit::Code(0), stdout, _) => Ok(stdout),
            (exit, _, stderr) => Err(failure(words, exit, &stderr)),
        }
    }

    /// The exit status, output, and error output of the command.
    fn run(&self, words: &[&str]) -> Result<(Exit, Vec<u8>, String)> {
        let mut command = CommandLine::program(["git"].iter().chain(words).copied());
        command.directory = Some(self.top.clone());
        let capture = Capture {
            shell: SHELL,
            scratch: self.scratch.path(),
            stdout: None,
            deadline: PATIENCE,
            cancel: &Cancel::new(),
        };
        let captured = capture.run(&command)?;
        let stdout = captured.stdout().context("cannot read what git printed")?;
        Ok((captured.finished.exit, stdout, captured.stderr_tail(TAIL).trim().to_owned()))
    }
}

fn failure(words: &[&str], exit: Exit, stderr: &str) -> anyhow::Error {
    anyhow!("`git {}` ended with {exit}: {stderr}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_its_path_alone() {
        for (path, expected) in [
            ("sub/offload-history.jsonl", "sub/offload-history.jsonl"),
            ("my history", "\"my history\""),
            ("#1", "\"#1\""),
            ("!a*[b]?", "\\!a\\*\\[b]\\?"),
            ("back\\slash", "back\\\\slash"),
            ("a * \"b\"\n", "\"a \\\\* \\\"b\\\"\\012\""),
            ("ünï", "ünï"),
        ] {
            assert_eq!(String::from_utf8(pattern(Path::new(path))).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_that_is_there_is_known_also_with_other_attributes() {
        for (line, expected) in [
            ("h merge=offload-history", true),
            ("h\ttext merge=offload-history -diff\r", true),
            ("h merge=offload-history-2", false),
            ("hh merge=offload-history", false),
            ("# h merge=offload-history", false),
            ("h", false),
        ] {
            assert_eq!(sets_driver(line.as_bytes(), b"h"), expected, "{line}");
        }
    }
}
