//! Images: made once, found again, patched with what has changed.

use std::fs;
use std::process::Command;

use super::{PREPARE, calls, nothing_left, remote};
use crate::support::{Project, Running};

pub(super) const CREATE: &str = "create_command = \"sh provider create\"";

pub(super) fn git(project: &Project, words: &[&str]) -> String {
    let mut command = project.command("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost"]).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whatever the tests and the provider write is no part of the project.
pub(super) const IGNORED: &str = "calls\nn\nruns\nran\nstate\ntmp\non-*\nbox\nseen*\nbare\ncache\n";

pub(super) fn committed(project: Project) -> Project {
    let project = project.file(".gitignore", IGNORED);
    git(&project, &["init", "-q"]);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "one"]);
    project
}

/// Sandboxes that are directories, by the bundled script.
pub(super) fn in_folders(project: Project, more: &str) -> Project {
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let start = config.find(CREATE).unwrap();
    let end = config.find("[offload]").unwrap();
    let commands = "prepare_command = \"echo prepare >> calls; sh @directory_sandbox.sh prepare\"\n\
                    create_command = \"sh @directory_sandbox.sh create {image_id}\"\n\
                    exec_command = \"sh @directory_sandbox.sh exec {sandbox_id} {command}\"\n\
                    destroy_command = \"sh @directory_sandbox.sh destroy {sandbox_id}\"\n";
    let root = format!("sandbox_repo_root = \"{}\"", project.path().display());
    let rest = config[end..].replace(&root, &format!("sandbox_repo_root = \".\"\n{more}"));
    let project = project.config(&format!("{}{commands}{rest}", &config[..start]));
    let path = |name: &str| project.path().join(name).display().to_string();
    let (boxes, cache) = (path("box"), path("cache"));
    let project = project.env("OFFLOAD_DIRECTORIES", &boxes).env("XDG_CACHE_HOME", &cache);
    committed(project)
}

#[test]
fn prepare_gets_its_flags_quoted_and_its_last_line_is_the_image() {
    let more = format!("{PREPARE}\ncopy_dirs = [\"it's:/x y\"]");
    let project = remote(&["pass 1"], "[groups.all]", &more, "sandbox_init_cmd = \"echo '$A' \\\"b\\\"\"")
        .file("on-create", "echo \"with $1\" >> seen");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let create = CREATE.replace("create\"", "create {image_id}\"");
    let project = project.config(&config.replace(CREATE, &create));
    let outcome = project.offload(&["run", "--copy-dir", "a:b"]).expect_code(0);
    assert!(outcome.stderr.contains("no git commit"), "{}", outcome.stderr);
    assert_eq!(
        calls(&project, "prepare"),
        ["prepare --copy-dir=it's:/x y --copy-dir=a:b --sandbox-init-cmd=echo '$A' \"b\""]
    );
    assert_eq!(fs::read_to_string(project.path().join("seen")).unwrap(), "with im-1\n");
    let built = project.offload(&["build"]).expect_code(0);
    assert_eq!(built.stdout, "im-2\n");
    nothing_left(&project);
}

#[test]
fn an_image_is_made_once_and_a_changed_tree_is_brought_to_it() {
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), "");
    project.offload(&["run"]).expect_code(0);
    // Where bundled scripts are kept is no part of the recipe: others may have their own place.
    let other = project.path().join("cache/other").display().to_string();
    let project = project.env("XDG_CACHE_HOME", &other);
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 1);
    let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    assert!(status.contains("0 commits behind") && status.contains("changes  none"), "{status}");
    // Neither committed nor known to git.
    let project = project.file("list", "pass 1\npass 2\n").file("new file", "x");
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project.file("runner", &format!("test -f 'new file' || exit 1\n{runner}"));
    let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    assert!(status.contains("changes  3 files") && status.contains("thin diff"), "{status}");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    git(&project, &["add", "-A"]);
    git(&project, &["commit", "-q", "-m", "two"]);
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 1, "the image of the commit before is used");
    let first = project.offload(&["build"]).expect_code(0).stdout;
    let second = project.offload(&["build", "--no-cache"]).expect_code(0).stdout;
    assert_ne!(first, second);
    assert_eq!(project.offload(&["build"]).expect_code(0).stdout, second);
    assert_eq!(calls(&project, "prepare").len(), 2);
    assert_eq!(fs::read_dir(project.path().join("box/sandboxes")).unwrap().count(), 0);
}

#[test]
fn a_command_runs_after_the_change_and_sees_the_patch() {
    let more = "post_patch_cmd = \"cat \\\"$OFFLOAD_PATCH_FILE\\\" > patch-seen; echo changed > list2\"";
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), more);
    project.offload(&["run"]).expect_code(0);
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let check = "grep -q '^+++ b/runner' patch-seen && test -f list2 || exit 1\n";
    let project = project.file("runner", &format!("{check}{runner}"));
    project.offload(&["run"]).expect_code(0);
}

#[test]
fn a_build_input_that_changes_asks_for_another_image() {
    let project =
        remote(&["pass 1"], "[groups.all]", PREPARE, "").file("deps.lock", "1").file("secret.env", "1");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let checkpoint = "\n[checkpoint]\nbuild_inputs = [\"deps.lock\", \"*.env\"]\n";
    let project = in_folders(
        project.config(&(config + checkpoint)),
        "sandbox_init_cmd = \"cat deps.lock secret.env > built\"",
    );
    let project = project.file(".gitignore", &format!("{IGNORED}*.env\nbuilt\n"));
    git(&project, &["rm", "-q", "--cached", "secret.env"]);
    git(&project, &["commit", "-q", "-am", "two"]);
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let project = project.file("runner", &format!("cat built >> \"$SEEN\"; echo >> \"$SEEN\"\n{runner}"));
    let seen = project.path().join("seen").display().to_string();
    let project = project.env("SEEN", &seen);
    for (number, name) in ["", "deps.lock", "secret.env", "other"].iter().enumerate() {
        if !name.is_empty() {
            fs::write(project.path().join(name), "2").unwrap();
        }
        project.offload(&["run"]).expect_code(0);
        assert_eq!(calls(&project, "prepare").len(), 1 + number.min(2), "{name}");
    }
    assert_eq!(fs::read_to_string(seen).unwrap(), "11\n21\n22\n22\n");
}

#[test]
fn a_dirty_tree_that_cannot_be_patched_makes_one_image() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""));
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("sandbox_repo_root", "working_dir"));
    let project = project.file("on-prepare", "cp \"${1#--context-dir=}/list\" seen");
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 1);
    assert_eq!(fs::read_to_string(project.path().join("seen")).unwrap(), "pass 1\n");
    let project = project.file("list", "pass 2\n");
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 2);
    assert_eq!(fs::read_to_string(project.path().join("seen")).unwrap(), "pass 2\n");
    nothing_left(&project);
}

#[test]
fn a_cached_image_that_is_gone_is_rebuilt_once_and_its_note_replaced() {
    let project = in_folders(remote(&["pass 1", "pass 2", "pass 3"], "[groups.all]", PREPARE, ""), "");
    project.offload(&["run"]).expect_code(0);
    fs::remove_dir_all(project.path().join("box/images")).unwrap();
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(
        outcome.stderr.contains("the provider rejected the cached image; rebuilding it"),
        "{}",
        outcome.stderr
    );
    assert_eq!(calls(&project, "prepare").len(), 2);
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 2);
    let notes = git(&project, &["notes", "--ref=offload-images", "show"]);
    assert_eq!(notes.lines().count(), 1, "{notes}");
}

#[test]
fn a_command_of_the_provider_may_patch_the_image() {
    let more = format!(
        "{PREPARE}\npatch_command = \"sh provider patch {{image_id}} {{patch_file}} {{patch_script}}\""
    );
    let project = remote(&["pass 1"], "[groups.all]", &more, "post_patch_cmd = \"make it\"");
    let patch = "[ \"$3\" ] && cp \"$2\" seen-patch && cp \"$3\" seen-script && echo \"$4\" > seen-flag; echo \"patched $1\"";
    let project = committed(project).file("on-patch", patch).file("on-create", "echo \"$*\" >> seen");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace(CREATE, &CREATE.replace("create\"", "create {image_id}\"")));
    project.offload(&["run"]).expect_code(0);
    let path = |name: &str| fs::read_to_string(project.path().join(name)).unwrap();
    assert_eq!(path("seen"), "patched im-1\n");
    assert!(path("seen-patch").contains("+++ b/offload.toml") && path("seen-script").starts_with("set -e\n"));
    assert_eq!(path("seen-flag"), "--post-patch-cmd=make it\n");
    assert_eq!(calls(&project, "prepare").len(), 1);
    nothing_left(&project);
}

#[test]
fn ten_runs_at_once_against_one_remote_keep_ten_notes() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""));
    git(&project, &["init", "-q", "--bare", "bare"]);
    git(&project, &["remote", "add", "origin", "bare"]);
    git(&project, &["push", "-q", "origin", "HEAD:refs/heads/main"]);
    let directory = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    for number in 0..10 {
        let clone = directory.path().join(format!("clone-{number}"));
        let bare = project.path().join("bare");
        let done = Command::new("git").args(["clone", "-q", "-b", "main"]).arg(&bare).arg(&clone).status();
        assert!(done.unwrap().success());
        fs::write(clone.join("requirements.txt"), number.to_string()).unwrap();
        let mut command = project.command(env!("CARGO_BIN_EXE_offload"));
        command.arg("run").current_dir(&clone);
        running.push(Running::start(command));
    }
    for running in running {
        running.wait(std::time::Duration::from_secs(120)).expect_code(0);
    }
    let list = git(&project, &["-C", "bare", "notes", "--ref=offload-images", "list"]);
    let notes: Vec<String> = list
        .lines()
        .map(|line| git(&project, &["-C", "bare", "cat-file", "blob", line.split(' ').next().unwrap()]))
        .collect();
    assert_eq!(notes.concat().lines().count(), 10, "{notes:?}");
}

#[test]
fn without_an_image_to_make_build_says_so() {
    let project = remote(&["pass 1"], "[groups.all]", "", "");
    for command in ["build", "checkpoint-status"] {
        let outcome = project.offload(&[command]).expect_code(3);
        assert!(
            outcome.stderr.contains("have no image") && outcome.stderr.contains("hint:"),
            "{}",
            outcome.stderr
        );
    }
}
