//! What batches of nextest run: what discovery built, or an earlier build that the project names.

use std::fs;

use super::{config, has_all, manifest, project, single};
use crate::support::nextest;

const LIBRARY: &str = r#"
#[cfg(test)]
mod tests {
    #[test]
    fn passes() { assert!(std::path::Path::new("Cargo.toml").exists()) }
    #[test]
    fn passes_too() {}
    #[test]
    fn fails() { panic!("as told") }
}
"#;

#[test]
fn an_archive_runs_without_its_build_wherever_it_is_to_be_extracted() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, LIBRARY);
    let archive = ["nextest", "archive", "--archive-file", "tests.tar.zst"];
    let made = project.command("cargo").args(archive).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    fs::remove_dir_all(project.path().join("target")).unwrap();
    // What builds, fails.
    let project = project.file("src/lib.rs", "not Rust").file("extracted/target/there", "");
    for more in ["", " --extract-to extracted", " --persist-extract-tempdir --profile default"] {
        let filters = format!(
            "filters = \"--archive-file tests.tar.zst --workspace-remap . --platform-filter any{more}\""
        );
        let config = config("", &format!("[groups.all]\n{filters}"));
        fs::write(project.path().join("offload.toml"), config).unwrap();
        for parallel in ["1", "2"] {
            let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
            has_all(
                &outcome.stdout,
                &["3 tests: 2 passed, 1 failed in", "FAILED solo tests::fails\n", "as told"],
            );
            assert_eq!(outcome.stderr.matches("warn").count(), 0, "{}", outcome.stderr);
        }
    }
    assert!(!project.path().join("target/debug").exists());
}

#[test]
fn a_profile_works_whatever_cargo_has_to_say_of_the_project() {
    let Some(tool) = nextest() else { return };
    let features: String = (0..4000).map(|number| format!("interface_{number:04} = []\n")).collect();
    let own = "[profile.default]\n[profile.ci.junit]\npath = \"own.xml\"\n";
    let long = format!("{own}# {}\n", "x".repeat(100_000));
    let project = project(tool)
        .file("Cargo.toml", &format!("{}[features]\n{features}", manifest("solo")))
        .file("src/lib.rs", LIBRARY)
        .file(".config/nextest.toml", &long)
        .config(&config("", "[groups.all]\nfilters = \"-P ci\""));
    let said = project.command("cargo").args(["metadata", "--format-version=1"]).output().unwrap();
    assert!(said.stdout.len() > 64 * 1024, "{}", said.stdout.len());
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 2 passed, 1 failed in"]);
    assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
    assert!(!project.path().join("target/nextest/ci/own.xml").exists());
}

#[test]
fn an_option_that_nobody_knows_is_refused_if_it_may_have_a_value() {
    let Some(tool) = nextest() else { return };
    let project = single(tool, LIBRARY).config(&config("run_args = \"--brand-new 3\"", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(4);
    has_all(&outcome.stderr, &["`run_args`: `--brand-new 3`: unknown option", "write `--brand-new=3`"]);
    let project = project.config(&config("", "[groups.all]\nfilters = \"--brand-new 3\""));
    let outcome = project.offload(&["run"]).expect_code(4);
    has_all(&outcome.stderr, &["the filters of group `all`: `--brand-new 3`: unknown option"]);
    // What cannot be mistaken is left to nextest.
    let project = project.config(&config("", "[groups.all]\nfilters = \"--brand-new=3\""));
    has_all(&project.offload(&["run"]).expect_code(4).stderr, &["unexpected argument '--brand-new'"]);
}

const STRICT: &str = r#"
#[cfg(test)]
mod tests {
    #[test]
    fn always() {}
    #[test]
    fn lenient() { assert!(!cfg!(feature = "strict"), "as told") }
}
"#;

#[test]
fn the_same_test_of_two_builds_is_two_tests_and_of_two_selections_one() {
    let Some(tool) = nextest() else { return };
    let project = project(tool)
        .file("Cargo.toml", &format!("{}[features]\nstrict = []\n", manifest("solo")))
        .file("src/lib.rs", STRICT)
        .config(&config("", "[groups.plain]\n[groups.strict]\nfilters = \"--features strict\""));
    for parallel in ["1", "2"] {
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        has_all(
            &outcome.stdout,
            &["4 tests: 3 passed, 1 failed in", "FAILED strict/solo tests::lenient\n", "as told"],
        );
        assert!(!outcome.stderr.contains("more than once"), "{}", outcome.stderr);
    }
    let listed = project.offload(&["collect"]).expect_code(0).stdout;
    has_all(&listed, &["plain/solo tests::lenient\n", "strict/solo tests::lenient\n"]);

    let groups = "[groups.plain]\n[groups.some]\nfilters = \"-E 'test(lenient)' --lib\"";
    let project = project.config(&config("", groups));
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(0);
    has_all(&outcome.stdout, &["2 tests: 2 passed in"]);
    has_all(&outcome.stderr, &["listed more than once"]);
}
