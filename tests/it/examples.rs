//! What the repository shows to people works: the examples, every configuration, every template.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Project, nextest, python, vitest};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of the example `name`, in a project that stands for the repository.
fn example(name: &str) -> Project {
    let directory = root().join("examples").join(name);
    let mut project = Project::new();
    for file in files(&directory) {
        let target = Path::new("examples").join(name).join(file.strip_prefix(&directory).unwrap());
        project = project.file(target.to_str().unwrap(), &fs::read_to_string(&file).unwrap());
    }
    project
}

/// The files below `directory` that belong to the repository: not what tools make there.
fn files(directory: &Path) -> Vec<PathBuf> {
    const MADE: [&str; 7] = [
        "target",
        "node_modules",
        "test-results",
        "package-lock.json",
        ".pytest_cache",
        "__pycache__",
        ".coverage",
    ];
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if MADE.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[track_caller]
fn run_example(project: &Project, name: &str, totals: &str) {
    let config = format!("examples/{name}/offload.toml");
    let outcome = project.offload(&["-c", &config, "run"]).expect_code(0);
    assert!(outcome.stdout.contains(totals), "`{totals}` is not in:\n{}", outcome.stdout);
    assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
}

/// The directory of programs in which `python3` has pytest.
fn pytest_folder() -> Option<&'static Path> {
    python().and_then(Path::parent)
}

#[test]
fn the_example_of_shell_scripts_passes() {
    run_example(&example("shell"), "shell", "12 tests: 12 passed in");
}

#[test]
fn the_example_of_pytest_passes() {
    let Some(directory) = pytest_folder() else { return };
    let totals = "7 tests: 5 passed, 1 skipped, 1 failed as expected in";
    run_example(&example("pytest").tool(directory), "pytest", totals);
}

#[test]
fn the_example_of_nextest_passes() {
    let Some(directory) = nextest() else { return };
    run_example(&example("nextest").tool(directory), "nextest", "3 tests: 3 passed in");
}

#[test]
fn the_example_of_vitest_passes() {
    let Some(modules) = vitest() else { return };
    let project = example("vitest").link("examples/vitest/node_modules", modules);
    run_example(&project, "vitest", "8 tests: 7 passed, 1 skipped in");
}

#[test]
fn the_example_of_remote_sandboxes_passes_and_makes_its_image_once() {
    let project = example("shell");
    let config = fs::read_to_string(root().join("examples/remote/offload.toml")).unwrap();
    let project = project.file("examples/remote/offload.toml", &config);
    let boxes = format!("{}-boxes", project.path().display());
    let state = format!("{boxes}/state");
    let project = project.env("OFFLOAD_DIRECTORIES", &boxes).env("OFFLOAD_STATE_DIR", &state);
    let git = "git init -q && git add -A && git -c user.name=t -c user.email=t@localhost commit -q -m one";
    assert!(project.command("sh").args(["-c", git]).status().unwrap().success());
    for _ in 0..2 {
        run_example(&project, "remote", "12 tests: 12 passed in");
    }
    let entries = |name: &str| fs::read_dir(format!("{boxes}/{name}")).unwrap().count();
    assert_eq!((entries("images"), entries("sandboxes")), (1, 0));
    fs::remove_dir_all(boxes).unwrap();
}

#[test]
fn every_configuration_that_is_shown_is_valid() {
    let mut shown: Vec<(String, String)> = files(&root().join("examples"))
        .into_iter()
        .chain([root().join("offload.toml")])
        .filter(|file| file.ends_with("offload.toml") || file.parent().unwrap().ends_with("configs"))
        .map(|file| (file.display().to_string(), fs::read_to_string(&file).unwrap()))
        .collect();
    assert!(shown.len() >= 5, "{shown:?}");
    for page in ["README.md", "DESIGN.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        shown.extend(blocks.map(|block| (page.to_owned(), block.to_owned())));
    }
    assert!(shown.iter().any(|(place, _)| place == "README.md"));
    for (place, text) in shown {
        // The directories that a configuration names are beside it.
        let mut project = Project::new().config(&text);
        for name in ["shell", "pytest", "nextest", "vitest"] {
            project = project.file(&format!("examples/{name}/here"), "");
        }
        let outcome = project.offload(&["validate"]);
        assert_eq!(outcome.code, Some(0), "{place}: {}", outcome.stderr);
    }
}

/// `init` in `project`, and a run of what it wrote.
#[track_caller]
fn start(project: &Project, framework: &str, totals: &str) {
    project.offload(&["init", "--framework", framework]).expect_code(0);
    project.offload(&["validate"]).expect_code(0);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains(totals), "`{totals}` is not in:\n{}", outcome.stdout);
}

#[test]
fn what_init_writes_for_pytest_runs() {
    let Some(directory) = pytest_folder() else { return };
    let tests = "def test_one(): pass\ndef test_two(): pass\n";
    start(&Project::new().tool(directory).file("tests/test_it.py", tests), "pytest", "2 tests: 2 passed in");
}

#[test]
fn what_init_writes_for_nextest_runs() {
    let Some(directory) = nextest() else { return };
    let project = Project::new()
        .tool(directory)
        .file("Cargo.toml", "[package]\nname = \"solo\"\nversion = \"0.0.0\"\nedition = \"2021\"\n")
        .file("src/lib.rs", "#[test]\nfn one() {}\n#[test]\nfn two() {}\n");
    start(&project, "nextest", "2 tests: 2 passed in");
}

#[test]
fn what_init_writes_for_vitest_runs() {
    let Some(modules) = vitest() else { return };
    let project = Project::new()
        .link("node_modules", modules)
        .file("one.test.js", "import { it } from 'vitest'\nit('one', () => {})\nit.skip('two', () => {})\n");
    start(&project, "vitest", "2 tests: 1 passed, 1 skipped in");
}

#[test]
fn what_init_writes_for_any_runner_runs() {
    let project = Project::new()
        .file("tests/test_one.sh", "true\n")
        .file("tests/test_two.sh", "test -d tests\n")
        .file("tests/deep/test_three.sh", "exit 0\n");
    start(&project, "default", "3 tests: 3 passed in");
    let project = project.file("tests/test_four.sh", "exit 1\n");
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("4 tests: 3 passed, 1 failed in"), "{}", outcome.stdout);
}
