//! The configurations that the requirements show, with the directory provider in Modal's place.

use crate::support::{Project, nextest, python};

/// The configuration with the bundled script of directories instead of the one of Modal.
fn in_folders(config: &str, project: Project) -> Project {
    let config = config
        .replace("uv run @modal_sandbox.py", "sh @directory_sandbox.sh")
        .replace("\"/app\"", "\".\"")
        .replace("\"/code/mng\"", "\".\"");
    let path = |name: &str| project.path().join(name).display().to_string();
    let (cache, state) = (path("cache"), path("state"));
    // In the project it would be copied into itself.
    let boxes = format!("{}-boxes", project.path().display());
    project
        .env("OFFLOAD_DIRECTORIES", &boxes)
        .env("XDG_CACHE_HOME", &cache)
        .env("OFFLOAD_STATE_DIR", &state)
        .env("BOXES", &boxes)
        .config(&config)
}

fn tidy(project: &Project) {
    let mut command = project.command("sh");
    assert!(
        command
            .args(["-c", "ls \"$BOXES/sandboxes\" && rm -rf \"$BOXES\""])
            .output()
            .unwrap()
            .stdout
            .is_empty()
    );
}

const PYTEST: &str = include_str!("../../../examples/configs/pytest-commands.toml");

const TESTS: &str = r#"
import os
import pytest

@pytest.mark.parametrize("x", range(10))
def test_unit(x):
    assert os.getcwd() == os.environ["OFFLOAD_ROOT"]

@pytest.mark.slow
@pytest.mark.parametrize("x", range(2))
def test_long(x):
    pass

def test_flaky():
    once = os.environ["ONCE"]
    if not os.path.exists(once):
        os.mkdir(once)
        pytest.fail("the first time")
"#;

#[test]
fn the_one_with_three_groups_of_pytest_runs() {
    let Some(python) = python() else { return };
    let config = PYTEST.replace("uv run pytest", &format!("{} -m pytest", python.display()));
    let project = Project::new();
    let once = project.path().join("once").display().to_string();
    let project = in_folders(&config, project)
        .env("ONCE", &once)
        .file("pytest.ini", "[pytest]\nmarkers = slow: takes long\n")
        .file("examples/Dockerfile", "FROM python\n")
        .file("examples/tests/test_all.py", TESTS);
    let outcome = project.offload(&["run"]).expect_code(2);
    assert!(outcome.stdout.contains("13 tests: 12 passed, 1 flaky"), "{}", outcome.stdout);
    tidy(&project);
}

const MONOREPO: &str = include_str!("../../../examples/configs/pytest-init-command.toml");

#[test]
fn the_one_with_an_init_command_runs() {
    let Some(python) = python() else { return };
    let config = MONOREPO.replace("uv run pytest", &format!("{} -m pytest", python.display())).replace(
        "git apply /offload-upload/patch --allow-empty && uv sync --all-packages",
        "echo synced > synced",
    );
    let tests = "import os\nimport pytest\n\ndef test_synced():\n    assert os.path.exists('synced')\n\n\
                 @pytest.mark.release\ndef test_release():\n    assert False\n";
    let project = in_folders(&config, Project::new())
        .file("pytest.ini", "[pytest]\nmarkers =\n    acceptance: x\n    release: x\n")
        .file("libs/mng/tests/test_all.py", tests);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("1 test: 1 passed"), "{}", outcome.stdout);
    tidy(&project);
}

const NEXTEST: &str = include_str!("../../../examples/configs/nextest-modal.toml");

#[test]
fn the_one_with_nextest_runs() {
    let Some(nextest) = nextest() else { return };
    let source = "#[test]\nfn one() {}\n#[test]\nfn two() {}\n";
    let commands = "type = \"default\"\n\
                    prepare_command = \"sh @directory_sandbox.sh prepare --include-cwd .devcontainer/Dockerfile\"\n\
                    create_command = \"sh @directory_sandbox.sh create {image_id}\"\n\
                    exec_command = \"sh @directory_sandbox.sh exec {sandbox_id} {command}\"\n\
                    destroy_command = \"sh @directory_sandbox.sh destroy {sandbox_id}\"\n";
    let modal = "type = \"modal\"\ndockerfile = \".devcontainer/Dockerfile\"\ninclude_cwd = true\n";
    assert!(NEXTEST.contains(modal));
    let project = in_folders(&NEXTEST.replace(modal, commands), Project::new())
        .tool(nextest)
        .file("Cargo.toml", "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        .file("src/lib.rs", source);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    tidy(&project);
}
