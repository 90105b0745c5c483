//! The configurations that the requirements show, with the directory provider in Modal's place.

use crate::support::{Project, nextest, python};

/// The configuration with the bundled script of folders instead of the one of Modal.
fn in_folders(config: &str, project: Project) -> Project {
    let config =
        config.replace("uv run @modal_sandbox.py", "sh @directory_sandbox.sh").replace("\"/app\"", "\".\"");
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

const PYTEST: &str = r#"
[offload]
max_parallel = 4
test_timeout_secs = 600
sandbox_repo_root = "/app"
[provider]
type = "default"
prepare_command = "uv run @modal_sandbox.py prepare --include-cwd examples/Dockerfile"
create_command = "uv run @modal_sandbox.py create {image_id}"
exec_command = "uv run @modal_sandbox.py exec {sandbox_id} {command}"
destroy_command = "uv run @modal_sandbox.py destroy {sandbox_id}"
download_command = "uv run @modal_sandbox.py download {sandbox_id} {paths}"
timeout_secs = 600
[framework]
type = "pytest"
paths = ["examples/tests"]
command = "uv run pytest"
[groups.unit]
retry_count = 2
filters = "-m 'not slow' -k 'not test_flaky'"
[groups.slow]
retry_count = 3
filters = "-m 'slow'"
schedule_individual = true
[groups.flaky]
retry_count = 5
filters = "-k test_flaky"
[report]
output_dir = "test-results"
"#;

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

const MONOREPO: &str = r#"
[offload]
max_parallel = 40
test_timeout_secs = 60
sandbox_repo_root = "/app"
sandbox_init_cmd = "echo synced > synced"
[provider]
type = "default"
prepare_command = "uv run @modal_sandbox.py prepare --include-cwd libs/mng/imbue/mng/resources/Dockerfile"
create_command = "uv run @modal_sandbox.py create {image_id}"
exec_command = "uv run @modal_sandbox.py exec {sandbox_id} {command}"
destroy_command = "uv run @modal_sandbox.py destroy {sandbox_id}"
download_command = "uv run @modal_sandbox.py download {sandbox_id} {paths}"
timeout_secs = 600
[framework]
type = "pytest"
paths = ["libs/mng/tests"]
command = "uv run pytest"
[groups.all]
retry_count = 0
filters = "-m 'not acceptance and not release'"
[report]
output_dir = "test-results"
junit = true
junit_file = "junit.xml"
"#;

#[test]
fn the_one_with_an_init_command_runs() {
    let Some(python) = python() else { return };
    let config = MONOREPO.replace("uv run pytest", &format!("{} -m pytest", python.display()));
    let tests = "import os\nimport pytest\n\ndef test_synced():\n    assert os.path.exists('synced')\n\n\
                 @pytest.mark.release\ndef test_release():\n    assert False\n";
    let project = in_folders(&config, Project::new())
        .file("pytest.ini", "[pytest]\nmarkers =\n    acceptance: x\n    release: x\n")
        .file("libs/mng/tests/test_all.py", tests);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("1 tests: 1 passed"), "{}", outcome.stdout);
    tidy(&project);
}

const NEXTEST: &str = r#"
[offload]
max_parallel = 4
test_timeout_secs = 600
sandbox_repo_root = "/app"
[provider]
type = "default"
prepare_command = "uv run @modal_sandbox.py prepare --include-cwd .devcontainer/Dockerfile"
create_command = "uv run @modal_sandbox.py create {image_id}"
exec_command = "uv run @modal_sandbox.py exec {sandbox_id} {command}"
destroy_command = "uv run @modal_sandbox.py destroy {sandbox_id}"
[framework]
type = "nextest"
[groups.all]
retry_count = 1
[report]
output_dir = "test-results"
"#;

#[test]
fn the_one_with_nextest_runs() {
    let Some(nextest) = nextest() else { return };
    let source = "#[test]\nfn one() {}\n#[test]\nfn two() {}\n";
    let project = in_folders(NEXTEST, Project::new())
        .tool(nextest)
        .file("Cargo.toml", "[package]\nname = \"small\"\nversion = \"0.1.0\"\nedition = \"2021\"\n")
        .file("src/lib.rs", source);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    tidy(&project);
}
