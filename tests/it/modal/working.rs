//! Suites from the making of their image to the verdict.

use std::fs;

use super::{committed, git, modal, nothing_left};
use crate::support::{Emulator, Project, is_full, nextest, python};

const PYTEST: &str = r#"
[offload]
max_parallel = 3
sandbox_repo_root = "/app"
[provider]
type = "modal"
dockerfile = "Dockerfile"
include_cwd = true
creates_per_second = 50
[framework]
type = "pytest"
command = "PYTHON -m pytest"
env = { FRAME = "{root}/x" }
[groups.all]
retry_count = 1
"#;

const TESTS: &str = r#"
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(6))
def test_many(number):
    assert os.getcwd() == "/app" == os.environ["OFFLOAD_ROOT"]
    assert os.environ["FRAME"] == "/app/x"

def test_fails():
    assert pathlib.Path("value").read_text() == "expected", "as told"
"#;

fn pytest(emulator: &Emulator) -> Option<Project> {
    let python = python()?;
    let project = Project::new()
        .config(&PYTEST.replace("PYTHON", &python.display().to_string()))
        .file("Dockerfile", "FROM python:3.12\nWORKDIR /app\nRUN echo built > /built\n")
        .file("tests/test_some.py", TESTS)
        .file("value", "expected");
    Some(emulator.serve(project))
}

#[test]
fn a_pytest_suite_runs_from_its_image_to_its_verdict() {
    let sdks = ["", "sdk_version = \"1.5.4\""];
    for sdk in &sdks[..if is_full() { 2 } else { 1 }] {
        let Some(emulator) = Emulator::start() else { return };
        let Some(project) = pytest(&emulator) else { return };
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let project = project.config(&config.replace("include_cwd", &format!("{sdk}\ninclude_cwd")));
        let project = committed(project);
        let outcome = project.offload(&["run", "--show-estimated-cost", "--trace"]).expect_code(0);
        assert!(outcome.stdout.contains("7 tests: 7 passed"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("estimated cost: $0."), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("offload: image: "), "{}", outcome.stderr);
        nothing_left(&emulator, &project);
        let creates = emulator.calls(&["SandboxCreate"]);
        assert!((1..=3).contains(&creates.len()), "{creates:?}");
        for create in &creates {
            assert_eq!(
                (create["timeout"].as_u64(), create["idle_timeout"].as_u64()),
                (Some(14400), Some(300))
            );
            assert!(create["tags"]["offload-run"].is_string(), "{create}");
        }
        // Not a single question about images the second time, but whether the one is there.
        let before = emulator.names().len();
        project.offload(&["run"]).expect_code(0);
        let images: Vec<_> = emulator.names().split_off(before);
        let images: Vec<_> =
            images.iter().filter(|name| name.contains("Image") || name.contains("Mount")).collect();
        assert!(images.iter().all(|name| *name == "ImageFromId"), "{images:?}");
        // What has changed comes as one more layer.
        fs::write(project.path().join("value"), "another").unwrap();
        let outcome = project.offload(&["run"]).expect_code(1);
        assert!(outcome.stdout.contains("as told"), "{}", outcome.stdout);
        nothing_left(&emulator, &project);
    }
}

#[test]
fn a_nextest_suite_runs_from_its_image_to_its_verdict() {
    let (Some(emulator), Some(tool)) = (Emulator::start(), nextest()) else { return };
    let library = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn one() {}\n    #[test]\n    fn two() {}\n    \
                   #[test]\n    fn three() { panic!(\"as told\") }\n}\n";
    let config = PYTEST
        .replace(
            "type = \"pytest\"\ncommand = \"PYTHON -m pytest\"\nenv = { FRAME = \"{root}/x\" }",
            "type = \"nextest\"",
        )
        .replace("max_parallel = 3", "max_parallel = 2");
    // The sandbox has a search path of its own.
    let dockerfile = format!(
        "FROM rust:1\nENV PATH={}:{}\nWORKDIR /app\n",
        tool.display(),
        std::env::var("PATH").unwrap()
    );
    let project = Project::new()
        .config(&config)
        .file("Dockerfile", &dockerfile)
        .file(".dockerignore", "target\n")
        .file(
            "Cargo.toml",
            "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[workspace]\n",
        )
        .file("src/lib.rs", library)
        .tool(tool);
    let project = emulator.serve(project);
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("3 tests: 2 passed, 1 failed"), "{}", outcome.stdout);
    nothing_left(&emulator, &project);
}

#[test]
fn a_failed_test_is_tried_again_and_flaky_ones_are_told_apart() {
    let groups = "[groups.all]\nretry_count = 2\nschedule_individual = true";
    let Some((emulator, project)) = modal(&["pass 1", "flaky 1", "fail 1"], groups, "", "") else { return };
    // No sandbox knows what another one did, but batches have numbers: later ones are retries.
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let first = "case $out in *-batch-[012]/*) mkdir() { true; } ;; *) mkdir() { false; } ;; esac\n";
    let project = project.file("runner", &runner.replace("code=0\n", &format!("code=0\n{first}")));
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("3 tests: 1 passed, 1 failed, 1 flaky"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("3 of 3 attempts failed"), "{}", outcome.stdout);
    nothing_left(&emulator, &project);
    let project = project.file("list", "pass 1\nflaky 1\n");
    project.offload(&["run"]).expect_code(2);
}

#[test]
fn secrets_and_variables_are_in_no_arguments() {
    let secret = "s3cr3t-value-of-the-token";
    let more = format!("secret_env = [\"TOKEN\"]\nenv = {{ TOKEN = \"{secret}\", PLAIN = \"a 'b' $c\" }}\n");
    let Some((emulator, project)) = modal(&["secret 1"], "[groups.all]", &more, "") else { return };
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let watch = "[ \"$PLAIN\" = \"a 'b' \\$c\" ] || exit 9\n\
                 for one in /proc/[0-9]*; do tr '\\0' ' ' < $one/cmdline; done 2> /dev/null | \
                 grep s3cr3t-value | grep -v grep && exit 8\n";
    let project = project.file("runner", &format!("{watch}{runner}"));
    let outcome = project.offload(&["-v", "run", "--trace"]).expect_code(1);
    assert!(!outcome.stdout.contains(secret) && !outcome.stderr.contains(secret), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("***"), "{}", outcome.stdout);
    let found = project.command("grep").args(["-rl", secret, "test-results"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    nothing_left(&emulator, &project);
}

#[test]
fn sandboxes_get_what_the_configuration_says() {
    let more = "cpu_cores = 2\nmemory_gb = 1.5\nsandbox_timeout_secs = 600\nidle_timeout_secs = 60\n\
                experimental_options = { enable_docker = true }\n";
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", more, "") else { return };
    let project = project.file("data/one", "1");
    project
        .offload(&["run", "--env", "MORE=1", "--copy-dir", "data:/data", "--override-image-id", "im-none"])
        .expect_code(4);
    project.offload(&["run", "--env", "MORE=1", "--copy-dir", "data:/data"]).expect_code(0);
    let create = emulator.calls(&["SandboxCreate"]).pop().unwrap();
    assert_eq!((create["cpu"].as_f64(), create["memory"].as_u64()), (Some(2.0), Some(1536)), "{create}");
    assert_eq!((create["timeout"].as_u64(), create["idle_timeout"].as_u64()), (Some(600), Some(60)));
    assert!(create["env"].to_string().contains("MORE"), "{create}");
    assert!(create["experimental_options"].to_string().contains("enable_docker"), "{create}");
    nothing_left(&emulator, &project);
}

#[test]
fn files_that_match_come_back() {
    let Some((emulator, project)) = modal(&["pass 1", "fail 2"], "[groups.all]", "", "") else { return };
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project
        .config(&config.replace("[report]", "[report]\ndownload_globs = [\"out/**/*.bin\"]"))
        .file("runner", &format!("mkdir -p 'out/a b'; head -c 300000 /dev/zero > 'out/a b/x.bin'\n{runner}"));
    project.offload(&["run", "--parallel", "1"]).expect_code(1);
    let found = project.command("find").args(["test-results", "-name", "x.bin", "-size", "300000c"]).output();
    let found = String::from_utf8_lossy(&found.unwrap().stdout).into_owned();
    assert!(found.contains("downloads/batch-") && found.contains("out/a b/x.bin"), "{found}");
    nothing_left(&emulator, &project);
}

#[test]
fn the_image_can_be_made_without_a_run_and_given_to_one() {
    let Some((emulator, project)) = modal(&["pass 1"], "[groups.all]", "", "") else { return };
    let project = committed(project);
    let built = project.offload(&["build"]).expect_code(0);
    let id = built.stdout.trim().to_owned();
    assert!(id.starts_with("im-"), "{id}");
    assert_eq!(project.offload(&["build"]).expect_code(0).stdout.trim(), id);
    let before = emulator.calls(&["ImageGetOrCreate"]).len();
    project.offload(&["run", "--override-image-id", &id]).expect_code(0);
    assert_eq!(emulator.calls(&["ImageGetOrCreate"]).len(), before);
    let again = project.offload(&["build", "--no-cache"]).expect_code(0);
    assert_ne!(again.stdout.trim(), id);
    git(&project, &["notes", "--ref=refs/notes/offload-images", "list"]);
    nothing_left(&emulator, &project);
}
