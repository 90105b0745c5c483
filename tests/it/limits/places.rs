//! Directories and variables that are not there, or cannot be written.

use std::fs;
use std::time::Duration;

use crate::remote::{calls, nothing_left, remote};
use crate::runner::project;
use crate::support::{Outcome, Project, Running};

/// The program run by a shell text, in which it is `"$0"`.
#[track_caller]
fn by_shell(project: &Project, text: &str) -> Outcome {
    let mut command = project.command("/bin/sh");
    command.args(["-c", text, env!("CARGO_BIN_EXE_offload")]);
    Running::start(command).wait(Duration::from_secs(60))
}

/// The same with mounts that nobody else sees.
#[track_caller]
fn with_mounts(project: &Project, text: &str) -> Outcome {
    let mut command = project.command("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", text, env!("CARGO_BIN_EXE_offload")]);
    Running::start(command).wait(Duration::from_secs(60))
}

const READ_ONLY: &str = "mount --bind . . && mount -o remount,ro,bind . && cd \"$PWD\" && ";

#[test]
fn in_a_folder_that_cannot_be_written_reports_may_go_elsewhere() {
    let runner = "printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
    let project = project(&["a"], "[history]\n").file("runner", runner);
    let outcome = with_mounts(&project, &format!("{READ_ONLY} exec \"$0\" run")).expect_code(4);
    let told = "cannot create the output directory `test-results`: Read-only file system";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    let elsewhere = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let output = format!("[report]\noutput_dir = \"{}\"", elsewhere.path().display());
    let project = project.config(&config.replace("[report]", &output));
    let outcome =
        with_mounts(&project, &format!("{READ_ONLY} exec \"$0\" run --record-history")).expect_code(0);
    assert!(outcome.stdout.contains("1 test: 1 passed"), "{}", outcome.stdout);
    // The verdict does not depend on it.
    assert!(outcome.stderr.contains("cannot update the history"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
}

#[test]
fn a_full_folder_for_temporary_files_ends_the_run_with_all_sandboxes_destroyed() {
    let tests: Vec<String> = (0..40).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = remote(&tests, "[groups.all]\nschedule_individual = true", "", "");
    let script = "mount -t tmpfs -o nr_inodes=10 none tmp && exec \"$0\" run --parallel 4";
    let outcome = with_mounts(&project, script);
    assert!(matches!(outcome.code, Some(1 | 4)), "{outcome:#?}");
    assert!(
        outcome.stderr.contains("No space left on device") || outcome.stdout.contains("No space left"),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
    let (mut made, mut gone) = (calls(&project, "create"), calls(&project, "destroy"));
    for list in [&mut made, &mut gone] {
        list.iter_mut().for_each(|line| *line = line.split(' ').nth(1).unwrap().to_owned());
        list.sort();
    }
    gone.dedup();
    assert_eq!(made, gone);
}

#[test]
fn a_full_disk_under_the_logs_is_told_and_sandboxes_are_destroyed() {
    let project = remote(&["pass 1", "pass 2"], "[groups.all]", "", "")
        .file("runner", "head -c 200000 /dev/zero; printf '<testsuite/>' > \"$1\"");
    fs::create_dir(project.path().join("test-results")).unwrap();
    let script = "mount -t tmpfs -o size=64k none test-results && exec \"$0\" run";
    let outcome = with_mounts(&project, script);
    assert!(matches!(outcome.code, Some(1 | 4)), "{:?}", outcome.code);
    nothing_left(&project);
}

#[test]
fn ids_are_no_matter_of_the_locale() {
    let tests = ["pass é", "pass 日本", "pass 😀"];
    for locale in ["C", "POSIX", "nowhere.ISO-8859-15"] {
        let project = project(&tests, "").env("LC_ALL", locale).env("LANG", locale);
        let outcome = project.offload(&["run"]).expect_code(0);
        assert!(outcome.stdout.contains("3 tests: 3 passed"), "{}", outcome.stdout);
        assert_eq!(project.offload(&["collect"]).expect_code(0).stdout, tests.join("\n") + "\n");
    }
}

#[test]
fn without_a_home_a_run_needs_none() {
    let project = remote(&["pass 1"], "[groups.all]", "", "");
    let unset =
        "unset HOME XDG_CACHE_HOME XDG_STATE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR OFFLOAD_STATE_DIR; ";
    let outcome = by_shell(&project, &format!("{unset} exec \"$0\" run")).expect_code(0);
    assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
    by_shell(&project, &format!("{unset} exec \"$0\" gc")).expect_code(0);
    let state = project.path().join("tmp").join(format!("offload-state-{}", nix::unistd::getuid()));
    assert!(state.is_dir());
    fs::remove_dir_all(state).unwrap();
    nothing_left(&project);
}

#[test]
fn without_git_an_image_is_made_for_this_run_alone() {
    let project = remote(&["pass 1"], "[groups.all]", "prepare_command = \"sh provider prepare\"", "");
    // All that the provider needs, and no git.
    let mut found =
        String::from("mkdir bin; for tool in sh cat mkdir rm sleep cp base64 od true env find; do ");
    found += "ln -s \"$(command -v $tool)\" bin/$tool; done; PATH=$PWD/bin exec \"$0\" run";
    let outcome = by_shell(&project, &found).expect_code(0);
    assert!(outcome.stderr.contains("warn") && outcome.stderr.contains("git"), "{}", outcome.stderr);
    assert_eq!(calls(&project, "prepare").len(), 1);
    nothing_left(&project);
}

#[test]
fn without_a_path_programs_are_found_where_they_usually_are() {
    for project in [project(&["pass 1"], ""), remote(&["pass 1"], "[groups.all]", "", "")] {
        by_shell(&project, "unset PATH; exec \"$0\" run").expect_code(0);
        by_shell(&project, "PATH= ; export PATH; exec \"$0\" validate").expect_code(0);
    }
}

#[test]
fn a_temporary_folder_that_is_not_there_is_named() {
    let project = project(&["pass 1"], "").env("TMPDIR", "/nowhere/at/all");
    for command in ["run", "collect", "plan"] {
        let outcome = project.offload(&[command]).expect_code(4);
        let told = outcome.stderr.contains("TMPDIR") && outcome.stderr.contains("/nowhere/at/all");
        assert!(told && outcome.stderr.lines().count() == 1, "{}", outcome.stderr);
    }
    project.offload(&["validate"]).expect_code(0);
}

#[test]
fn a_full_disk_cuts_no_list_and_makes_no_run_green() {
    let tests: Vec<String> = (0..3000).map(|number| format!("pass {number}")).collect();
    let project = project(&tests.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("cat list #", "cat list || true #"));
    let text = "mkdir tmp && mount -t tmpfs -o size=16k none tmp && TMPDIR=$PWD/tmp exec \"$0\" run";
    let outcome = with_mounts(&project, text).expect_code(1);
    assert!(outcome.stdout.contains("3000 tests: "), "{}", outcome.stdout);
}

#[test]
fn a_working_directory_that_was_removed_is_a_clear_error() {
    let project = project(&["pass 1"], "");
    let gone = "mkdir gone && cd gone && rmdir ../gone && ";
    for (command, code) in [("run", 4), ("collect", 4), ("plan", 4), ("validate", 0), ("gc", 0)] {
        let text = format!("config=$PWD/offload.toml; {gone} exec \"$0\" -c \"$config\" {command}");
        let project = &project;
        let outcome = by_shell(project, &text);
        assert_eq!(outcome.code, Some(code), "{command}: {}", outcome.stderr);
        if code == 4 {
            assert!(outcome.stderr.contains("cannot find the working directory"), "{}", outcome.stderr);
        }
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}
