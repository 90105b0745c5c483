//! Reads the source as text and says where a file stands on the wrong floor, names what it must not
//! name, or is too long. The floors are described in DESIGN.md; the lists live here.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each floor, from the lowest. A room is a top-level module with all that lies in it.
const FLOORS: [&[&str]; 7] = [
    &["model", "command", "cancel", "color", "error", "mask", "random", "words"],
    &["process", "event", "files", "summary"],
    &["bundled", "config", "junit", "history", "trace", "journal", "git"],
    &["framework", "provider"],
    &["discover", "image", "plan", "execute", "collect", "report", "progress"],
    &["commands"],
    &["cli", "main", "lib"],
];

/// Implementers of a trait, which only their own room and `commands` may name.
const IMPLEMENTERS: [(&str, &[&str]); 2] =
    [("framework", &["pytest", "nextest", "vitest", "custom"]), ("provider", &["local", "command", "modal"])];

/// Words that say nothing about what a file holds.
const EMPTY_WORDS: [&str; 8] = ["mod", "util", "utils", "helper", "helpers", "manager", "misc", "common"];

const MOST_LINES: usize = 450;

/// One source file.
struct Source {
    /// Its path, relative to the package.
    path: PathBuf,
    /// Its text without the lines that are comments.
    code: String,
    lines: usize,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let text = fs::read_to_string(path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        Source {
            path: path.strip_prefix(root).unwrap().to_owned(),
            code: code.collect::<Vec<_>>().join("\n"),
            lines: text.lines().count(),
        }
    }

    /// The top-level module that the file belongs to.
    fn room(&self) -> String {
        let below = self.path.iter().nth(1).unwrap();
        Path::new(below).file_stem().unwrap().to_string_lossy().into_owned()
    }

    /// Every path that starts at the root of the crate, without the word `crate`.
    fn paths(&self) -> BTreeSet<Vec<String>> {
        paths_in(&self.code)
    }
}

/// All Rust files below `directories`, sorted.
fn sources(directories: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(Source::read(root, &path));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty());
    found
}

fn paths_in(code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for (start, word) in code.match_indices("crate::") {
        let before = code[..start].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$') {
            expand(&code[start + word.len()..], &[], &mut found);
        }
    }
    found
}

/// Reads one path, or one list in braces of paths, and gives what follows it.
fn expand<'a>(text: &'a str, prefix: &[String], found: &mut BTreeSet<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(list) = text.strip_prefix('{') {
        let mut rest = list;
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let after = expand(rest, prefix, found);
            // What is neither a word nor a brace (`*`, ` as name`) is passed over.
            rest = if after.len() == rest.len() { skip_one(after) } else { after };
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    if end == 0 {
        return text;
    }
    let path: Vec<String> = prefix.iter().cloned().chain([text[..end].to_owned()]).collect();
    match text[end..].strip_prefix("::") {
        Some(rest) => {
            found.insert(path.clone());
            expand(rest, &path, found)
        }
        None => {
            found.insert(path);
            &text[end..]
        }
    }
}

fn skip_one(text: &str) -> &str {
    let mut characters = text.chars();
    characters.next();
    characters.as_str()
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Fails with all faults at once.
fn none_of(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_file_stands_on_a_floor() {
    let homeless = sources(&["src"]).into_iter().filter(|source| floor_of(&source.room()).is_none());
    let faults = homeless.map(|source| format!("{}: its room is on no floor", source.path.display()));
    none_of(&faults.collect::<Vec<_>>());
}

#[test]
fn files_import_only_from_floors_below_their_own() {
    let mut faults = BTreeSet::new();
    for source in sources(&["src"]) {
        let room = source.room();
        for path in source.paths() {
            let wanted = &path[0];
            let (Some(own), Some(other)) = (floor_of(&room), floor_of(wanted)) else {
                continue;
            };
            if *wanted != room && other >= own {
                let place = source.path.display();
                faults.insert(format!("{place}: `{room}` (floor {own}) imports `{wanted}` (floor {other})"));
            }
        }
    }
    none_of(&faults.into_iter().collect::<Vec<_>>());
}

#[test]
fn imports_name_rooms_that_exist() {
    let faults = sources(&["src"]).into_iter().flat_map(|source| {
        let place = source.path.display().to_string();
        let unknown = |path: &Vec<String>| path.len() > 1 && floor_of(&path[0]).is_none();
        let fault = move |path: Vec<String>| format!("{place}: `crate::{}` is on no floor", path.join("::"));
        source.paths().into_iter().filter(unknown).map(fault)
    });
    none_of(&faults.collect::<Vec<_>>());
}

#[test]
fn no_file_reaches_its_imports_by_climbing() {
    let climbs = sources(&["src"]).into_iter().filter(|source| source.code.contains("super::super"));
    let faults = climbs.map(|source| format!("{}: `super::super`; start at `crate`", source.path.display()));
    none_of(&faults.collect::<Vec<_>>());
}

#[test]
fn only_commands_name_implementers() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let room = source.room();
        for path in source.paths().iter().filter(|path| path.len() > 1) {
            let implements =
                |(home, names): &(&str, &[&str])| path[0] == *home && names.contains(&path[1].as_str());
            if !["commands", "lib"].contains(&&*room)
                && room != path[0]
                && IMPLEMENTERS.iter().any(implements)
            {
                faults.push(format!("{}: names `{}::{}`", source.path.display(), path[0], path[1]));
            }
        }
    }
    faults.dedup();
    none_of(&faults);
}

#[test]
fn only_process_starts_processes() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        // Tests look at real shells from outside.
        let code = source.code.split("#[cfg(test)]").next().unwrap_or_default();
        if source.room() == "process" || source.path.ends_with("tests.rs") {
            continue;
        }
        let listed = code.split("std::process::{").skip(1).filter_map(|rest| rest.split('}').next());
        let imported = listed.flat_map(|list| list.split(',')).any(|word| word.trim() == "Command");
        // A thread's `spawn` takes a closure, a process's takes nothing.
        if imported || code.contains("process::Command") || code.contains(".spawn()") {
            faults.push(format!("{}: starts a process of its own", source.path.display()));
        }
    }
    none_of(&faults);
}

#[test]
fn no_file_is_too_long() {
    let long = sources(&["src", "tests"]).into_iter().filter(|source| source.lines > MOST_LINES);
    let faults = long
        .map(|source| format!("{}: {} lines of at most {MOST_LINES}", source.path.display(), source.lines));
    none_of(&faults.collect::<Vec<_>>());
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let named_badly = |source: &Source| {
        let stem = source.path.file_stem().unwrap().to_string_lossy().into_owned();
        stem.split('_').any(|word| EMPTY_WORDS.contains(&word))
    };
    let faults = sources(&["src", "tests"]).into_iter().filter(named_badly);
    none_of(&faults.map(|source| format!("{}: says nothing", source.path.display())).collect::<Vec<_>>());
}

#[test]
fn main_is_a_few_lines() {
    let main = sources(&["src"]).into_iter().find(|source| source.path.ends_with("main.rs")).unwrap();
    assert!(main.lines <= 20, "src/main.rs has {} lines", main.lines);
}

#[test]
fn paths_are_read_out_of_nested_lists() {
    let code = "use crate::model::{Exit, batch::{Batch, *}, self as nouns};\nlet x = crate::plan::new(y); mycrate::z";
    let paths: Vec<String> = paths_in(code).iter().map(|path| path.join("::")).collect();
    for wanted in ["model::Exit", "model::batch::Batch", "plan::new"] {
        assert!(paths.iter().any(|path| path == wanted), "{wanted} in {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.starts_with('z')), "{paths:?}");
}
