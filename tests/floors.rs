//! Reads the source as text and fails where a file imports from the wrong floor, names what it must not
//! name, is too long, or has a function that takes a tuple. DESIGN.md describes the floors; the lists are here.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of each floor, from the lowest. A room is a top-level module with all that lies in it.
const FLOORS: [&[&str]; 7] = [
    &["model", "command", "cancel", "color", "error", "mask", "random", "words"],
    &["process", "event", "files", "summary"],
    &["bundled", "config", "junit", "record", "history", "trace", "journal", "git"],
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

/// May be longer: users get this script as a single file.
const LONG: [&str; 1] = ["scripts/bundled/modal_sandbox.py"];

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
    files(directories, &["rs"])
}

/// All files below `directories` whose names end in one of `extensions`, sorted.
fn files(directories: &[&str], extensions: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    let mut found = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
        {
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

/// The parameters of `fn` items that are tuples or references to tuples, by their pattern or by their type.
/// Tuples inside other types, as in `Vec<(A, B)>`, do not count.
fn tuple_parameters(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let (before, after) = (&code[..start], &code[start + 3..]);
        let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        // `fn(A)` is a type.
        if is_word || !after.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        // Generics come first and may contain parentheses.
        let Some(open) = find_outside(after, '(') else { continue };
        let list = &after[open + 1..];
        let list = &list[..find_outside(list, ')').unwrap_or(list.len())];
        found.extend(parts(list, ',').into_iter().filter(|parameter| is_tuple(parameter)));
    }
    found
}

/// Whether the pattern or the type of a parameter is a tuple.
fn is_tuple(parameter: &str) -> bool {
    parts(parameter, ':').into_iter().any(|side| {
        let side = side.trim_start_matches('&');
        let side =
            if side.starts_with('\'') { side.split_once(' ').map_or(side, |(_, rest)| rest) } else { side };
        let side = side.strip_prefix("mut ").unwrap_or(side);
        // Parentheses without a comma only group, as in `&mut (dyn Write + Send)`.
        side.strip_prefix('(').is_some_and(|inner| {
            find_outside(inner, ',')
                .is_some_and(|comma| find_outside(inner, ')').is_some_and(|end| comma < end))
        })
    })
}

/// Splits `text` at separators outside brackets.
fn parts(text: &str, separator: char) -> Vec<&str> {
    let (mut rest, mut found) = (text, Vec::new());
    while let Some(end) = find_outside(rest, separator) {
        found.push(rest[..end].trim());
        rest = &rest[end + separator.len_utf8()..];
    }
    found.push(rest.trim());
    found
}

/// The first `wanted` in `text` outside brackets.
fn find_outside(text: &str, wanted: char) -> Option<usize> {
    let (mut depth, mut last) = (0, ' ');
    for (place, c) in text.char_indices() {
        match c {
            _ if c == wanted && depth == 0 => return Some(place),
            '(' | '[' | '{' | '<' => depth += 1,
            // The end of an arrow closes nothing.
            '>' if last == '-' => {}
            ')' | ']' | '}' | '>' => depth -= 1,
            _ => {}
        }
        last = c;
    }
    None
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
    let all = files(&["src", "tests", "scripts"], &["rs", "py", "sh", "mjs"]).into_iter();
    let long = all
        .filter(|source| source.lines > MOST_LINES && !LONG.iter().any(|path| source.path.ends_with(path)));
    let faults = long
        .map(|source| format!("{}: {} lines of at most {MOST_LINES}", source.path.display(), source.lines));
    none_of(&faults.collect::<Vec<_>>());
}

#[test]
fn no_function_takes_a_tuple() {
    let mut faults = Vec::new();
    for source in sources(&["src", "tests", "scripts"]) {
        let place = source.path.display();
        let parameters = tuple_parameters(&source.code).into_iter();
        faults.extend(parameters.map(|parameter| format!("{place}: `{parameter}`; make it a struct")));
    }
    none_of(&faults);
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
fn tuples_are_found_in_parameter_lists_alone() {
    // Without `fn`, or this file would fail the check itself.
    let tuples = [
        "a((x, y): (A, B)) {}",
        "a(&self, pair: &'a mut (A, B)) -> C;",
        "a<F: Fn((A, B)) -> C>(\n    f: F,\n    &(x, y): &(A, B),\n) {}",
        "a<'a>((x, _): Pair<'a>) {}",
        "r#a(pair: (Vec<(A, B)>, C)) {}",
    ];
    for code in tuples {
        assert_eq!(tuple_parameters(&format!("pub fn {code}")).len(), 1, "{code}");
    }
    let none = [
        "a(pairs: Vec<(A, B)>, all: &[(A, B)], f: impl Fn((A, B)) -> C) -> (A, B) { f((x, y)) }",
        "a(output: &mut (dyn Write + Send), f: fn((A, B))) { b(|(x, y): (A, B)| x) }",
        "a<T: Into<(A, B)>>(nothing: (), Point { x, y }: Point) {}",
        "a<F: FnOnce(&A) -> B>(f: F, array: [(A, B); 2]) where F: Fn(A, B) {}",
    ];
    for code in none {
        assert!(tuple_parameters(&format!("fn {code}")).is_empty(), "{code}");
    }
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
