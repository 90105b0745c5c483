//! Modal, with the real SDK, against an emulator of its server whose sandboxes are real processes.

use std::fs;

use crate::runner::configured;
use crate::support::{Emulator, Project};

mod commands;
mod faults;
mod images;
mod signals;
mod working;

/// The name of the host does not matter: every image of the emulator has the host's files in it.
const DOCKERFILE: &str = "FROM python:3.12\nWORKDIR /app\n";

/// A project with these tests of the home-made runner; `provider` is added to its table, `rest` to the file.
fn modal(tests: &[&str], groups: &str, provider: &str, rest: &str) -> Option<(Emulator, Project)> {
    let emulator = Emulator::start()?;
    let project = emulator.serve(configured(tests, groups, "").file("Dockerfile", DOCKERFILE));
    let table = format!(
        "type = \"modal\"\ndockerfile = \"Dockerfile\"\ninclude_cwd = true\ncreates_per_second = 50\n{provider}\n\
         [offload]\nsandbox_repo_root = \"/app\"\nmax_parallel = 3\n{rest}\n"
    );
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("type = \"local\"", &table));
    Some((emulator, project))
}

/// Fails unless no sandbox lives, the journal is empty and no temporary file is left.
#[track_caller]
fn nothing_left(emulator: &Emulator, project: &Project) {
    assert_eq!(emulator.live(), 0, "sandboxes");
    let runs = fs::read_dir(project.path().join("state/runs")).map_or(0, Iterator::count);
    assert_eq!((runs, emulator.temporary()), (0, Vec::new()), "entries in the journal, temporary files");
}

/// Makes a repository of the project with one commit of all but what runs write.
fn committed(project: Project) -> Project {
    let project = project.file(".gitignore", "/test-results\n/state\n/target\n");
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["config", "user.name", "x"],
        &["config", "user.email", "x@example.org"],
        &["add", "-A"],
        &["commit", "-q", "-m", "one"],
    ] {
        git(&project, words);
    }
    project
}

#[track_caller]
fn git(project: &Project, words: &[&str]) {
    let done = project.command("git").args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}
