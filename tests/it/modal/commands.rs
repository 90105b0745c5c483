//! The subcommands of the bundled script as the commands of a provider, exactly as the requirements show.

use std::fs;

use super::nothing_left;
use crate::support::{Emulator, Project, is_full, modal, python};

const CONFIG: &str = include_str!("../../../examples/configs/pytest-commands.toml");

const TESTS: &str = r#"
import os, pytest

@pytest.mark.parametrize("x", range(3))
def test_unit(x):
    assert os.getcwd() == "/app"

@pytest.mark.slow
def test_long():
    pass

def test_flaky():
    pass
"#;

#[test]
fn the_requirements_configuration_runs_as_it_is() {
    runs_in("/app");
    if is_full() {
        runs_in("/code/mng");
    }
}

fn runs_in(root: &str) {
    let (Some(emulator), Some(python)) = (Emulator::start(), python()) else { return };
    let tools = modal().unwrap();
    let bin = python.parent().unwrap();
    // What a project's image would have: uv and pytest.
    let dockerfile = format!(
        "FROM python:3.12\nENV PATH={}:{}:/usr/local/bin:/usr/bin:/bin UV_CACHE_DIR=/tmp/uv\nWORKDIR {root}\n",
        bin.display(),
        tools.join("bin").display()
    );
    let project = Project::new()
        .config(&CONFIG.replace("\"/app\"", &format!("\"{root}\"")))
        .file("examples/Dockerfile", &dockerfile)
        .file("examples/tests/test_it.py", &TESTS.replace("/app", root))
        .file("pytest.ini", "[pytest]\nmarkers = slow\n")
        .tool(bin);
    let project = emulator.serve(project);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("5 tests: 5 passed"), "{}", outcome.stdout);
    nothing_left(&emulator, &project);
    let creates = emulator.calls(&["SandboxCreate"]);
    assert!(creates.iter().all(|create| create["tags"]["offload-run"].is_string()), "{creates:?}");
}

#[test]
fn a_difference_and_a_folder_go_by_subcommands_too() {
    let Some(emulator) = Emulator::start() else { return };
    let project = emulator.serve(Project::new());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bundled/modal_sandbox.py");
    let modal = |words: &[&str]| {
        let mut command = project.command("uv");
        let done = command.args(["run", "--quiet", "--no-project", script]).args(words).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        (done.status.code(), out.trim().to_owned(), err.into_owned())
    };
    fs::write(project.path().join("Dockerfile"), "FROM python:3.12\nWORKDIR /app\n").unwrap();
    fs::write(project.path().join("value"), "one\n").unwrap();
    let (_, image, err) = modal(&["prepare", "--include-cwd", "Dockerfile", "--copy-dir=value:/other/value"]);
    assert!(image.starts_with("im-"), "{err}");
    let patch = "diff --git a/value b/value\n--- a/value\n+++ b/value\n@@ -1 +1 @@\n-one\n+two\n";
    fs::write(project.path().join("patch"), patch).unwrap();
    let (_, patched, err) = modal(&[
        "prepare",
        "--from-base-image",
        &image,
        "--patch-file=patch",
        "--post-patch-cmd=cat value > derived",
    ]);
    assert!(patched.starts_with("im-") && patched != image, "{err}");
    let options =
        ["--cpu", "0.5", "--memory-gb", "0.25", "--env", "A=b c", "--experimental-options", "{\"x\": true}"];
    let (_, sandbox, err) = modal(&[&["create", &patched], &options[..]].concat());
    assert!(sandbox.starts_with("sb-"), "{err}");
    let (code, out, _) =
        modal(&["exec", &sandbox, "cat derived /other/value; echo \"$A\"; echo no >&2; exit 7"]);
    assert_eq!((code, out.as_str()), (Some(7), "two\none\nb c"));
    modal(&["exec", &sandbox, "mkdir -p out/deep; printf 1 > out/deep/x; ln -s /etc/passwd out/link"]);
    let (code, _, err) =
        modal(&["download", &sandbox, "/app/out/deep:fetched", "/app/value:taken", "/app/none:none"]);
    assert_eq!(code, Some(0), "{err}");
    let text = |name: &str| fs::read_to_string(project.path().join(name)).unwrap_or_default();
    assert_eq!((text("fetched/x"), text("taken"), text("none")), ("1".into(), "two\n".into(), String::new()));
    assert_eq!(modal(&["destroy", &sandbox]).0, Some(0));
    assert_eq!(modal(&["destroy", &sandbox]).0, Some(0), "one that is gone is no error");
    assert_ne!(modal(&["exec", &sandbox, "true"]).0, Some(0));
    assert_eq!(emulator.live(), 0);
}
