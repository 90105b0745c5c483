//! Images that are noted but gone, too old, or of a commit elsewhere.

use std::fs;
use std::time::Duration;

use super::image::{committed, git, in_folders};
use super::{PREPARE, calls, nothing_left, remote};
use crate::support::{Project, Running};

/// A project whose images are names in the file `seen-images`, and patched by a command that looks there.
fn patched_by_a_command() -> Project {
    let more = format!("{PREPARE}\npatch_command = \"sh provider patch {{image_id}} {{patch_script}}\"");
    committed(remote(&["pass 1"], "[groups.all]", &more, ""))
        .file("on-prepare", "echo \"$id\" >> seen-images")
        .file("on-patch", "grep -qx \"$1\" seen-images || { echo \"no $1\" >&2; exit 69; }; echo \"$1\"")
}

#[test]
fn a_cached_image_that_is_gone_is_rebuilt_for_a_changed_tree_too() {
    let project = patched_by_a_command();
    project.offload(&["run"]).expect_code(0);
    let project = project.file("seen-images", "").file("new", "x");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(
        outcome.stderr.contains("and is rebuilt: ") && outcome.stderr.contains("no im-1"),
        "{}",
        outcome.stderr
    );
    assert_eq!(calls(&project, "prepare").len(), 2);
    nothing_left(&project);
}

#[test]
fn a_change_that_no_image_takes_is_refused_once_with_the_first_message() {
    let project = patched_by_a_command();
    project.offload(&["run"]).expect_code(0);
    let project = project.file("new", "x").file("on-patch", "echo \"refusal $n\" >&2; exit 1");
    let outcome = project.offload(&["run"]).expect_code(4);
    let error = outcome.stderr.lines().find(|line| line.contains("error:")).unwrap_or_default();
    assert!(error.contains("cannot bring the changes to the image"), "{}", outcome.stderr);
    assert!(error.contains("refusal 1") && !outcome.stderr.contains("refusal 2"), "{}", outcome.stderr);
    assert_eq!(calls(&project, "prepare").len(), 2);
}

#[test]
fn a_clean_commit_too_far_from_the_noted_one_gets_an_image_of_its_own_and_a_note() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""));
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    // Nothing can be brought to a sandbox that does not say where its files are.
    let project = project.config(&config.replace("sandbox_repo_root", "working_dir"));
    git(&project, &["commit", "-q", "-a", "-m", "two"]);
    project.offload(&["run"]).expect_code(0);
    let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    assert!(status.contains("image    im-1 of commit"), "{status}");
    let project = project.file("more", "x");
    git(&project, &["add", "more"]);
    git(&project, &["commit", "-q", "-m", "three"]);
    let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    assert!(status.contains("image    none") && status.contains("changes  none"), "{status}");
    for _ in 0..3 {
        project.offload(&["run"]).expect_code(0);
    }
    assert_eq!(calls(&project, "prepare").len(), 2);
}

/// Too large to be brought to a sandbox.
fn large() -> String {
    "x".repeat(3 << 20)
}

#[test]
fn the_command_after_a_change_runs_in_an_image_of_the_whole_tree_too() {
    let more = "sandbox_init_cmd = \"echo init > made # done\"\n\
                post_patch_cmd = \"echo then$OFFLOAD_PATCH_FILE >> made\"";
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), more);
    project.offload(&["run"]).expect_code(0);
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let check = "[ \"$(echo $(cat made))\" = 'init then' ] || exit 1\n";
    let project = project.file("runner", &format!("{check}{runner}")).file("large", &large());
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "prepare").len(), 2);
}

#[test]
fn the_command_after_a_change_runs_in_the_project_and_fails_the_image() {
    let more = "sandbox_project_root = \"sub\"\nsandbox_init_cmd = \"exit $(cat init)\"\n\
                post_patch_cmd = \"test ${PWD##*/} = sub && exit $(cat then)\"";
    let project = remote(&["pass 1"], "[groups.all]", PREPARE, "").file("sub/then", "0").file("init", "0");
    let project = in_folders(project, more).file("large", &large());
    project.offload(&["build"]).expect_code(0);
    for name in ["init", "sub/then"] {
        fs::write(project.path().join(name), "3").unwrap();
        let outcome = project.offload(&["build"]).expect_code(4);
        assert!(outcome.stderr.contains("cannot build the image"), "{}", outcome.stderr);
        fs::write(project.path().join(name), "0").unwrap();
    }
}

#[test]
fn a_run_inside_a_git_hook_sees_its_own_tree() {
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, "").file("sub/x", "1"), "");
    let other = project.path().join("box/other");
    git(&project, &["init", "-q", &other.display().to_string()]);
    let expected = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    let own = project.path().join(".git").display().to_string();
    let elsewhere = other.join(".git").display().to_string();
    let config = project.path().join("offload.toml").display().to_string();
    for (key, value) in [
        ("GIT_DIR", &elsewhere),
        ("GIT_DIR", &own),
        ("GIT_INDEX_FILE", &elsewhere),
        ("GIT_OBJECT_DIRECTORY", &elsewhere),
        ("GIT_PREFIX", &"sub/".to_owned()),
    ] {
        let mut command = project.command(env!("CARGO_BIN_EXE_offload"));
        command.args(["-c", &config, "checkpoint-status"]).env(key, value);
        command.current_dir(project.path().join("sub"));
        let outcome = Running::start(command).wait(Duration::from_secs(60)).expect_code(0);
        assert_eq!(outcome.stdout, expected, "{key}={value}");
    }
}

#[test]
fn a_large_file_is_not_read_to_learn_that_it_is_too_large() {
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), "");
    fs::File::create(project.path().join("large")).unwrap().set_len(8 << 30).unwrap();
    let mut command = project.command("sh");
    command.args(["-c", "ulimit -v 2000000; exec \"$0\" checkpoint-status", env!("CARGO_BIN_EXE_offload")]);
    let status = Running::start(command).wait(Duration::from_secs(60)).expect_code(0).stdout;
    assert!(status.contains("changes  1 file, 8388608 KiB: a run makes an image of its own"), "{status}");
}

#[test]
fn the_patch_of_git_is_made_only_for_those_who_want_it() {
    let project = patched_by_a_command();
    project.offload(&["run"]).expect_code(0);
    let look = "find \"$TMPDIR\" -name thin-diff.patch >> seen; echo \"$1\"";
    let project = project.file("new", "x").file("on-patch", look);
    project.offload(&["run"]).expect_code(0);
    let seen = project.path().join("seen");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace(" {patch_script}", " {patch_script} {patch_file}"));
    project.offload(&["run"]).expect_code(0);
    assert_eq!(fs::read_to_string(&seen).unwrap().lines().count(), 1);
}

#[test]
fn a_lock_file_in_the_folder_of_the_project_asks_for_another_image() {
    let project = remote(&["pass 1"], "[groups.all]", PREPARE, "").file("sub/uv.lock", "1");
    let project = in_folders(project.file("elsewhere/uv.lock", "1"), "working_dir = \"sub\"");
    let status = || project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    let first = status();
    assert!(first.contains("inputs   sub/uv.lock\n"), "{first}");
    fs::write(project.path().join("sub/uv.lock"), "2").unwrap();
    assert_ne!(status().lines().next(), first.lines().next());
}

#[test]
fn what_the_command_that_makes_an_image_is_given_is_part_of_its_recipe() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""))
        .file("on-prepare", "echo \"$OFFLOAD_REPO_ROOT\" >> seen");
    let key = || {
        let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
        status.lines().next().unwrap_or_default().to_owned()
    };
    let first = key();
    assert_eq!(key(), first, "the name of the run is no part of it");
    project.offload(&["build"]).expect_code(0);
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let root = project.path().display().to_string();
    fs::write(project.path().join("offload.toml"), config.replace(&root, "/elsewhere")).unwrap();
    assert_ne!(key(), first);
    project.offload(&["build"]).expect_code(0);
    assert_eq!(fs::read_to_string(project.path().join("seen")).unwrap(), format!("{root}\n/elsewhere\n"));
}

#[test]
fn submodules_are_said_to_be_empty_when_an_image_is_made() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""));
    let head = git(&project, &["rev-parse", "HEAD"]);
    for name in ["a", "b", "c", "d"] {
        git(
            &project,
            &["update-index", "--add", "--cacheinfo", &format!("160000,{},lib/{name}", head.trim())],
        );
    }
    git(&project, &["commit", "-q", "-m", "two"]);
    let outcome = project.offload(&["run"]).expect_code(0);
    let warnings: Vec<_> = outcome.stderr.lines().filter(|line| line.contains("submodules")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains("`lib/a`, `lib/b`, `lib/c` and 1 more"),
        "{}",
        outcome.stderr
    );
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(!outcome.stderr.contains("submodules"), "{}", outcome.stderr);
}

/// The image notes, as lines with their commits.
fn noted(project: &Project) -> Vec<String> {
    let list = git(project, &["notes", "--ref=offload-images", "list"]);
    let notes = list.lines().filter_map(|line| line.split_once(' '));
    let text = |(note, commit): (&str, &str)| {
        let text = git(project, &["cat-file", "blob", note]);
        text.lines().map(|line| format!("{commit} {line}")).collect::<Vec<_>>()
    };
    notes.flat_map(text).collect()
}

#[test]
fn the_note_of_an_image_that_is_gone_goes_with_it() {
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), "");
    project.offload(&["run"]).expect_code(0);
    let first = git(&project, &["rev-parse", "HEAD"]);
    git(&project, &["notes", "--ref=offload-images", "append", "-m", "a line of others"]);
    git(&project, &["commit", "-q", "--allow-empty", "-m", "two"]);
    fs::remove_dir_all(project.path().join("box/images")).unwrap();
    project.offload(&["run"]).expect_code(0);
    let notes = noted(&project);
    let of_first: Vec<_> = notes.iter().filter(|line| line.starts_with(first.trim())).collect();
    assert!(of_first.iter().all(|line| !line.contains("key")) && !of_first.is_empty(), "{notes:?}");
    assert_eq!(notes.iter().filter(|line| line.contains("key")).count(), 1, "{notes:?}");
}

#[test]
fn the_note_goes_with_an_image_that_a_patch_command_misses_too() {
    let project = patched_by_a_command();
    project.offload(&["run"]).expect_code(0);
    git(&project, &["commit", "-q", "--allow-empty", "-m", "two"]);
    let project = project.file("seen-images", "").file("new", "x");
    project.offload(&["run"]).expect_code(0);
    let notes = noted(&project);
    assert!(notes.len() == 1 && notes[0].contains("im-2"), "{notes:?}");
}

#[test]
fn the_image_of_an_amended_commit_serves() {
    let project = in_folders(remote(&["pass 1"], "[groups.all]", PREPARE, ""), "");
    project.offload(&["run"]).expect_code(0);
    let project = project.file("list", "pass 1\npass 2\n");
    git(&project, &["commit", "-q", "-a", "--amend", "-m", "other"]);
    let status = project.offload(&["checkpoint-status"]).expect_code(0).stdout;
    assert!(status.contains("1 commit behind") && status.contains("changes  1 file"), "{status}");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert_eq!(calls(&project, "prepare").len(), 1);
}

#[test]
fn a_remote_is_asked_only_where_the_newest_commit_has_no_image() {
    let project = committed(remote(&["pass 1"], "[groups.all]", PREPARE, ""));
    git(&project, &["init", "-q", "--bare", "bare"]);
    git(&project, &["remote", "add", "origin", "bare"]);
    project.offload(&["run"]).expect_code(0);
    fs::remove_dir_all(project.path().join("bare")).unwrap();
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
    git(&project, &["commit", "-q", "--allow-empty", "-m", "two"]);
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stderr.contains("cannot fetch the image notes"), "{}", outcome.stderr);
}
