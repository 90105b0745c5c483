//! Whole runs with real cargo-nextest, on a workspace as cargo makes it.

use std::fs;
use std::path::Path;

use crate::support::{Project, nextest};

mod builds;
mod faults;

/// A crate that leans on nothing; each test notes in `$RAN` that it ran.
const LIBRARY: &str = r##"
pub fn ran(name: &str) {
    use std::io::Write;
    let Some(path) = std::env::var_os("RAN") else { return };
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(format!("{name}\n").as_bytes()).unwrap();
}

#[cfg(test)]
mod tests {
    #[test]
    fn passes() { super::ran("passes") }
    #[test]
    fn passes_too() { super::ran("passes_too") }
    #[test]
    fn größer_als() { super::ran("größer_als") }
    #[test]
    fn r#match() { super::ran("match") }
    #[test]
    #[should_panic]
    fn panics_as_it_should() { super::ran("panics_as_it_should"); panic!() }
    #[test]
    fn reads_beside_its_manifest() {
        assert_eq!(std::fs::read_to_string("data.txt").unwrap(), "here");
        super::ran("reads_beside_its_manifest");
    }
}
"##;

/// Two tests are named as those of the library, one runs the program of the crate.
const INTEGRATION: &str = r##"
mod tests {
    #[test]
    fn passes() { alpha::ran("same passes") }
}
#[test]
fn the_program_speaks() {
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_speaker")).output().unwrap();
    assert_eq!(said.stdout, b"spoken\n");
}
"##;

const BAD: &str = r##"
#[cfg(test)]
mod tests {
    #[test]
    fn passes() {}
    #[test]
    fn fails() { assert_eq!(1, 2, "as told") }
    #[test]
    fn gives_an_error() -> Result<(), String> { Err("as said".into()) }
    #[test]
    fn aborts() { eprintln!("about to end"); std::process::abort() }
    #[test]
    fn leaves() { std::process::exit(7) }
    #[test]
    #[ignore]
    fn is_ignored() {}
    #[test]
    #[ignore]
    fn is_ignored_and_fails() { panic!("ignored for a reason") }
}
"##;

const FLAKY: &str = r##"
#[cfg(test)]
mod tests {
    fn note(name: &str) -> usize {
        use std::io::Write;
        let path = std::env::var_os("RAN").unwrap();
        let mut file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(format!("{name}\n").as_bytes()).unwrap();
        std::fs::read_to_string(path).unwrap().lines().filter(|line| *line == name).count()
    }
    #[test]
    fn flaky() { assert!(note("flaky") > 1, "the first time") }
    #[test]
    fn good() { note("good"); }
    #[test]
    fn another() { note("another"); }
    #[test]
    fn fourth() { note("fourth"); }
}
"##;

fn manifest(name: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2021\"\n")
}

/// A project with the tool; `$RAN` is its file `ran`.
fn project(tool: &Path) -> Project {
    let project = Project::new().tool(tool);
    let ran = project.path().join("ran");
    project.env("RAN", &ran.to_string_lossy())
}

fn single(tool: &Path, library: &str) -> Project {
    project(tool).file("Cargo.toml", &manifest("solo")).file("src/lib.rs", library)
}

fn config(framework: &str, groups: &str) -> String {
    format!(
        "[offload]\nmax_parallel = 2\n[provider]\ntype = \"local\"\n[framework]\ntype = \"nextest\"\n\
         {framework}\n{groups}\n"
    )
}

/// How often each test noted that it ran, as `name:times` in order of names.
fn ran(project: &Project) -> Vec<String> {
    let text = fs::read_to_string(project.path().join("ran")).unwrap_or_default();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.chunk_by(|one, other| one == other).map(|same| format!("{}:{}", same[0], same.len())).collect()
}

#[track_caller]
fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn names_of_a_workspace_reach_their_tests_in_batches_and_one_by_one() {
    let Some(tool) = nextest() else { return };
    let project = project(tool)
        .file("Cargo.toml", "[workspace]\nmembers = [\"alpha\", \"beta\"]\nresolver = \"2\"\n")
        .file("alpha/Cargo.toml", &manifest("alpha"))
        .file("alpha/data.txt", "here")
        .file("alpha/src/lib.rs", LIBRARY)
        .file("alpha/src/bin/speaker.rs", "fn main() { println!(\"spoken\") }")
        .file("alpha/tests/same.rs", INTEGRATION)
        .file("beta/Cargo.toml", &manifest("beta"))
        .file("beta/src/lib.rs", "#[cfg(test)] mod tests { #[test] fn passes() {} }")
        .config(&config("", "[groups.all]"));
    let listed = project.offload(&["collect"]).expect_code(0).stdout;
    let passes: Vec<&str> = listed.lines().filter(|line| line.ends_with(" tests::passes")).collect();
    assert_eq!(passes, ["alpha tests::passes", "alpha::same tests::passes", "beta tests::passes"]);
    has_all(&listed, &["alpha tests::größer_als\n", "alpha tests::r#match\n"]);
    let once = [
        "größer_als:1",
        "match:1",
        "panics_as_it_should:1",
        "passes:1",
        "passes_too:1",
        "reads_beside_its_manifest:1",
        "same passes:1",
    ];
    for (arguments, group) in [
        (["run", "--parallel", "1"], ""),
        (["run", "--parallel", "2"], ""),
        (["run", "--parallel", "2"], "schedule_individual = true"),
    ] {
        let config = config("", &format!("[groups.all]\n{group}"));
        fs::write(project.path().join("offload.toml"), config).unwrap();
        let outcome = project.offload(&arguments).expect_code(0);
        has_all(&outcome.stdout, &["9 tests: 9 passed in"]);
        assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
        let mut noted = ran(&project);
        noted.sort();
        let mut once = once.map(str::to_owned);
        once.sort();
        assert_eq!(noted, once, "{arguments:?} {group}");
        fs::remove_file(project.path().join("ran")).unwrap();
    }
}

#[test]
fn every_way_to_fail_is_a_failure_of_that_test_alone() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, BAD).config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    has_all(
        &outcome.stdout,
        &["5 tests: 1 passed, 4 failed in", "failed: as told", "as said", "exit code 7"],
    );
    for name in ["fails", "gives_an_error", "aborts", "leaves"] {
        has_all(&outcome.stdout, &[&format!("FAILED solo tests::{name}\n")]);
    }
    let logs = project.offload(&["logs", "--test", "solo tests::aborts"]).expect_code(0).stdout;
    has_all(&logs, &["about to end", "SIGABRT"]);
    assert!(!outcome.stdout.contains("ignored"), "{}", outcome.stdout);

    let project = project.config(&config("include_ignored = true", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["7 tests: 2 passed, 5 failed in", "FAILED solo tests::is_ignored_and_fails"]);

    let project =
        project.config(&config("", "[groups.all]\nfilters = \"-E 'test(ignored)' --run-ignored only\""));
    has_all(&project.offload(&["run"]).expect_code(1).stdout, &["2 tests: 1 passed, 1 failed in"]);

    let project = project.config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run", "--parallel", "1", "--fail-fast"]).expect_code(1);
    has_all(&outcome.stdout, &["not run in", "--fail-fast"]);
}

#[test]
fn a_group_retries_what_failed_and_nothing_else() {
    let Some(tool) = nextest() else { return };
    let groups = "[groups.steady]\nfilters = \"-E 'not test(flaky)'\"\n\
                  [groups.flaky]\nfilters = \"-E 'test(flaky) | test(good)'\"\nretry_count = 3";
    let project = single(tool, FLAKY).config(&config("", groups));
    let outcome = project.offload(&["run"]).expect_code(2);
    has_all(&outcome.stdout, &["4 tests: 3 passed, 1 flaky in", "FLAKY solo tests::flaky"]);
    assert_eq!(ran(&project), ["another:1", "flaky:2", "fourth:1", "good:1"]);
    // The second run is planned by the report of the first.
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["4 tests: 4 passed in"]);
    assert_eq!(ran(&project), ["another:2", "flaky:3", "fourth:2", "good:2"]);

    fs::remove_file(project.path().join("ran")).unwrap();
    let project = project.config(&config("", "[groups.all]"));
    has_all(&project.offload(&["run"]).expect_code(1).stdout, &["4 tests: 3 passed, 1 failed in"]);
}

#[test]
fn the_configuration_of_the_project_stays_in_force() {
    let Some(tool) = nextest() else { return };
    let own = "[profile.default]\nretries = 2\n[profile.default.junit]\npath = \"own.xml\"\n\
               [profile.ci]\nretries = 0\n[profile.ci.junit]\npath = \"own.xml\"\n";
    let project = single(tool, FLAKY)
        .file(".config/nextest.toml", own)
        .config(&config("", "[groups.all]\nschedule_individual = true"));
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(2);
    has_all(&outcome.stdout, &["4 tests: 3 passed, 1 flaky in", "FLAKY solo tests::flaky"]);
    assert_eq!(ran(&project), ["another:1", "flaky:2", "fourth:1", "good:1"]);
    assert!(!project.path().join("target/nextest/default/own.xml").exists());

    // A named profile with a path of its own: all batches report, and to their own files.
    fs::remove_file(project.path().join("ran")).unwrap();
    let project = project.env("NEXTEST_PROFILE", "ci");
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    has_all(&outcome.stdout, &["4 tests: 3 passed, 1 failed in"]);
    assert_eq!(ran(&project), ["another:1", "flaky:1", "fourth:1", "good:1"]);
    assert!(!project.path().join("target/nextest/ci/own.xml").exists());
}

#[test]
fn a_build_that_fails_is_told_in_the_words_of_the_compiler() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, "pub fn f() -> u8 { \"text\" }").config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(4);
    has_all(&outcome.stderr, &["mismatched types", "src/lib.rs:1"]);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    assert!(!project.path().join("test-results/junit.xml").exists());
}
