//! What comes out of sandboxes stays in its directory, and what goes into images comes from the tree alone.

use std::fs;
use std::os::unix::fs::symlink;

use crate::remote::{nothing_left, remote};
use crate::runner::project;
use crate::support::Project;

const GLOBS: &str = "[report]\ndownload_globs = [\"**/*\"]";

fn taking_all(project: Project) -> Project {
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    project.config(&config.replace("[report]", GLOBS))
}

/// A sandbox in which `find` says what it likes.
fn lying(names: &[&str]) -> Project {
    let list: String = names.iter().map(|name| format!("{name}\\0")).collect();
    let project = remote(&["a"], "[groups.all]", "", "");
    let outside = project.path().join("outside").display().to_string();
    let list = list.replace("OUTSIDE", &outside);
    taking_all(project)
        .file("runner", "printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"")
        .file("on-exec", "PATH=$PWD/bin:$PATH")
        .executable("bin/find", &format!("#!/bin/sh\nprintf '{list}'\n"))
        .file("good", "from the sandbox")
        .file("outside/victim", "mine")
}

#[test]
fn a_sandbox_that_names_files_elsewhere_writes_none() {
    for name in ["../victim", "good/../../victim", "OUTSIDE/victim", "/OUTSIDE/victim", "a/./../../x", ".."] {
        let project = lying(&["good", name]);
        let outcome = project.offload(&["run"]).expect_code(0);
        assert!(outcome.stderr.contains("outside of its root"), "{name}: {}", outcome.stderr);
        assert_eq!(fs::read_to_string(project.path().join("outside/victim")).unwrap(), "mine");
        assert!(
            !project.path().join("test-results/victim").exists() && !project.path().join("victim").exists()
        );
        nothing_left(&project);
    }
}

#[test]
fn links_in_the_place_of_folders_for_downloads_lead_nowhere() {
    for place in
        ["test-results/downloads", "test-results/downloads/batch-0", "test-results/downloads/batch-0/shots"]
    {
        let runner = "mkdir -p shots; echo new > shots/victim; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
        for project in [project(&["a"], ""), remote(&["a"], "[groups.all]", "", "")] {
            let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
            let globs = "[report]\ndownload_globs = [\"shots/*\"]";
            let project = project.config(&config.replace("[report]", globs)).file("runner", runner);
            for victim in ["outside/victim", "outside/shots/victim", "outside/batch-0/shots/victim"] {
                let path = project.path().join(victim);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "mine").unwrap();
            }
            let link = project.path().join(place);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(project.path().join("outside"), &link).unwrap();
            let outcome = project.offload(&["run"]).expect_code(0);
            for victim in ["outside/victim", "outside/shots/victim", "outside/batch-0/shots/victim"] {
                assert_eq!(fs::read_to_string(project.path().join(victim)).unwrap(), "mine", "{place}");
            }
            assert!(outcome.stderr.contains("is a symbolic link"), "{place}: {}", outcome.stderr);
        }
    }
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_written_through() {
    let runner = "echo new > victim; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
    for project in [project(&["a"], ""), remote(&["a"], "[groups.all]", "", "")] {
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let globs = "[report]\ndownload_globs = [\"victim\"]";
        let project =
            project.config(&config.replace("[report]", globs)).file("runner", runner).file("outside", "mine");
        let place = project.path().join("test-results/downloads/batch-0");
        fs::create_dir_all(&place).unwrap();
        symlink(project.path().join("outside"), place.join("victim")).unwrap();
        project.offload(&["run"]).expect_code(0);
        assert_eq!(fs::read_to_string(project.path().join("outside")).unwrap(), "mine");
    }
}

fn git(project: &Project, words: &[&str]) {
    let done = project.command("git").args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn an_image_has_links_as_links_and_nothing_from_behind_them() {
    let project = remote(&["pass 1"], "[groups.all]", "prepare_command = \"sh provider prepare\"", "")
        .file(".gitignore", "/*\n!/src\n")
        .file("src/own", "1");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("private"), "the-key-of-somebody").unwrap();
    symlink(outside.path().join("private"), project.path().join("src/file")).unwrap();
    symlink(outside.path(), project.path().join("src/directory")).unwrap();
    let keep = "for word; do case $word in --context-dir=*) cp -RPp \"${word#*=}\" \"kept-$n\" ;; esac; done";
    let project = project.file("on-prepare", keep);
    let prepared = |name: &str| {
        let copied = project.path().join(name).join("src");
        assert!(copied.join("own").is_file());
        for link in ["file", "directory"] {
            assert!(copied.join(link).is_symlink(), "{name}/{link}");
        }
    };
    git(&project, &["init", "-q"]);
    git(&project, &["config", "user.name", "x"]);
    git(&project, &["config", "user.email", "x@example.org"]);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "one"]);
    project.offload(&["run"]).expect_code(0);
    prepared("kept-1");
    // A tree so far from its commit that an image is made of it as it is.
    fs::write(project.path().join("src/large"), vec![b'x'; 40 << 20]).unwrap();
    project.offload(&["run"]).expect_code(0);
    prepared("kept-2");
}

/// Gives the bundled script's `download` an archive as only an evil `tar` in a sandbox makes it.
const UNPACKING: &str = r#"
import asyncio, importlib.util, io, os, sys, tarfile
spec = importlib.util.spec_from_file_location("script", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
here = os.getcwd()

def member(name, **more):
    info = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info

link = {"type": tarfile.SYMTYPE, "linkname": here + "/outside"}
evil = [
    [member("../victim", size=4)],
    [member(here + "/outside/victim", size=4)],
    [member("a", **link), member("a/victim", size=4)],
    [member("a", type=tarfile.SYMTYPE, linkname="../outside"), member("a/victim", size=4)],
    [member("a", type=tarfile.LNKTYPE, linkname=here + "/outside/victim"), member("a", size=4)],
    [member("device", type=tarfile.CHRTYPE)],
]
for number, members in enumerate(evil):
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"evil"[: info.size]))

    class Answering(script.Modal):
        def __init__(self):
            pass

        async def exec(self, request, outputs):
            outputs[0].write(b"d" + made.getvalue())
            return {"status": 0}

    try:
        asyncio.run(Answering().download({"sandbox": "sb", "pairs": [["x", f"{here}/downloads/{number}"]]}))
        print("unpacked", number)
    except tarfile.TarError as error:
        print("refused", number, error)
"#;

#[test]
fn an_archive_from_a_sandbox_is_unpacked_in_its_folder_alone() {
    let Some(tools) = crate::support::modal() else { return };
    let project =
        Project::new().file("outside/victim", "mine").file("victim", "mine").file("unpack.py", UNPACKING);
    fs::create_dir(project.path().join("downloads")).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bundled/modal_sandbox.py");
    let mut python = project.command(tools.join("bin/python"));
    let done = python.args(["unpack.py", script]).output().unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(said.lines().count(), 6, "{said}{complaint}");
    for victim in ["outside/victim", "victim"] {
        assert_eq!(fs::read_to_string(project.path().join(victim)).unwrap(), "mine", "{said}");
    }
    assert!(!project.path().join("downloads/victim").exists(), "{said}");
    assert_eq!(fs::read_dir(project.path().join("outside")).unwrap().count(), 1, "{said}");
}
