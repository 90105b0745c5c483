//! What a provider, a test or a configuration does that nobody expects, and that must not cost more than
//! it has to.

use std::fs;
use std::time::Duration;

use super::{DOWNLOAD, PREPARE, calls, nothing_left, remote};
use crate::support::{Project, survivors, wait_until};

#[test]
fn the_folder_of_a_result_file_somewhere_else_is_left_alone() {
    let project = remote(&["pass 1", "pass 2"], "[groups.all]", "", "");
    let keep = project.path().join("keep");
    fs::create_dir(&keep).unwrap();
    fs::write(keep.join("precious"), "").unwrap();
    let report = keep.join("r.xml").display().to_string();
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let config = config
        .replace("{result_file}", &report)
        .replace("result_file = \"junit.xml\"", &format!("result_file = \"{report}\""));
    let project = project.config(&config);
    project.offload(&["run", "--parallel", "1"]).expect_code(0);
    assert!(keep.join("precious").exists());
    nothing_left(&project);
}

#[test]
fn a_create_that_timed_out_and_cannot_be_undone_is_left_to_gc() {
    let project = remote(&["pass 1"], "[groups.all]", "timeout_secs = 1", "")
        .file("on-create", "echo \"create $id\" >> calls; echo $id; sleep 60")
        .file("on-destroy", "exit 1");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(
        outcome.stderr.contains("the sandbox `sb-1` was not destroyed (`offload gc`"),
        "{}",
        outcome.stderr
    );
    fs::remove_file(project.path().join("on-destroy")).unwrap();
    let outcome = project.offload(&["gc"]).expect_code(0);
    assert!(outcome.stdout.contains("destroyed sb-1\n1 destroyed, 0 left"), "{}", outcome.stdout);
    nothing_left(&project);
}

#[test]
fn nothing_runs_between_the_last_batch_and_the_destruction() {
    for root in [".", ""] {
        let project = remote(&["pass 1"], "[groups.all]", DOWNLOAD, "")
            // Where the directory of a batch is removed by a command, that goes on beside the destruction.
            .file("on-destroy", "echo \"destroying $1\" >> calls")
            .file(
                "on-exec",
                "case $2 in 'rm -rf '*) t=0; until grep -q destroying calls || [ $t = 40 ]; do t=$((t + 1)); sleep 0.05; done ;; esac",
            );
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let absolute = project.path().display().to_string();
        let project = if root == "." { project.config(&config.replace(&absolute, ".")) } else { project };
        project.offload(&["run"]).expect_code(0);
        let log = fs::read_to_string(project.path().join("calls")).unwrap();
        let (before, after) = log.split_once("destroying").unwrap();
        assert_eq!(before.matches("exec ").count(), 1, "{log}");
        assert!(root == "." || !after.contains("exec "), "{log}");
        if root == "." {
            let run = fs::read_to_string(project.path().join("runs")).unwrap();
            let left = fs::read_dir("/tmp").unwrap().flatten();
            let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(run.trim()));
            assert_eq!(left.count(), 0);
        }
        nothing_left(&project);
    }
}

#[test]
fn what_hangs_beside_a_destruction_is_killed_at_once() {
    let unique = format!("offload-care-beside-{}", std::process::id());
    let hang = format!(
        "case $2 in 'rm -rf '*) trap '' TERM; sh -c 'while :; do sleep 1; done; : $0' {unique} ;; esac"
    );
    let project = relative(remote(&["pass 1"], "[groups.all]", DOWNLOAD, "").file("on-exec", &hang));
    project.offload(&["run"]).expect_code(0);
    // The destroy was logged at its end.
    let destroyed = fs::metadata(project.path().join("calls")).unwrap().modified().unwrap();
    assert!(destroyed.elapsed().unwrap() < Duration::from_secs(5), "{:?}", destroyed.elapsed());
    assert_eq!(survivors(&unique), 0);
    nothing_left(&project);
}

#[test]
fn sandboxes_that_wait_for_their_destruction_start_nothing() {
    let tests: Vec<String> = (0..40).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let groups = "[groups.all]\nschedule_individual = true";
    let project = relative(
        remote(&tests, groups, &format!("{DOWNLOAD}\ntimeout_secs = 60"), "")
            // Each sandbox has a batch.
            .file(
                "on-exec",
                "case $2 in 'rm -rf '*) echo >> removing ;; \
                 *) echo >> executing; until [ $(grep -c '' executing) = 40 ]; do sleep 0.1; done ;; esac",
            )
            .file("on-destroy", "echo >> destroying; until [ -e go ]; do sleep 0.1; done"),
    );
    let running = project.spawn(&["run", "--parallel", "40"]);
    let count =
        |name: &str| fs::read_to_string(project.path().join(name)).unwrap_or_default().lines().count();
    let wait = Duration::from_secs(60);
    wait_until("destroys have begun", wait, || count("destroying") == 32 && count("removing") >= 32);
    wait_until("all tests have run", wait, || count("ran") == 40);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((count("destroying"), count("removing")), (32, 32));
    fs::write(project.path().join("go"), "").unwrap();
    running.wait(Duration::from_secs(60)).expect_code(0);
    nothing_left(&project);
}

/// The same project with a relative root: its sandboxes may share a machine.
fn relative(project: Project) -> Project {
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let absolute = project.path().display().to_string();
    project.config(&config.replace(&absolute, "."))
}

#[test]
fn a_process_left_behind_that_goes_on_talking_costs_no_result() {
    let project = remote(&["pass 1"], "[groups.all]", "", "");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let noise = "(for i in $(seq 100000); do echo noise noise; done) & sh runner";
    let project = project.config(&config.replace("sh runner", noise));
    project.offload(&["run"]).expect_code(0);
    assert_eq!(calls(&project, "create").len(), 1);
    nothing_left(&project);
}

#[test]
fn a_secret_is_not_in_the_message_that_a_command_cannot_be_started() {
    let more = "secret_env = [\"TOKEN\"]\nenv = { TOKEN = \"hunter2-secret\" }\nworking_dir = \"gone\"\n";
    let project = remote(&["pass 1"], "[groups.all]", more, "");
    fs::create_dir(project.path().join("gone")).unwrap();
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project
        .config(&config.replace("sh provider", "sh ../provider"))
        .file("gone/on-create", "mv ../gone ../away");
    let outcome = project.offload(&["run"]);
    assert!(outcome.stderr.contains("cannot start"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("hunter2") && !outcome.stdout.contains("hunter2"), "{}", outcome.stderr);
}

#[test]
fn a_process_that_a_create_leaves_in_its_group_is_told_of() {
    let project = remote(&["pass 1"], "[groups.all]", "", "")
        .file("on-create", "sleep 600 < /dev/null > /dev/null 2>&1 &");
    let outcome = project.offload(&["run"]).expect_code(0);
    let told = "`create_command` left processes behind, which were ended";
    assert!(outcome.stderr.contains(told) && outcome.stderr.contains("setsid"), "{}", outcome.stderr);
}

fn git(project: &Project, words: &[&str]) {
    let done = project.command("git").args(words).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_change_that_a_sandbox_does_not_take_is_no_reason_to_make_the_image_again() {
    let project = remote(&["pass 1"], "[groups.all]", PREPARE, "post_patch_cmd = \"exit 3\"")
        .file(".gitignore", "/*\n!/src\n")
        .file("src", "1");
    for words in [
        &["init", "-q"][..],
        &["config", "user.name", "x"],
        &["config", "user.email", "x@example.org"],
        &["add", "-A"],
        &["commit", "-q", "-m", "one"],
    ] {
        git(&project, words);
    }
    project.offload(&["run"]).expect_code(0);
    let project = project.file("src", "2");
    for _ in 0..2 {
        let outcome = project.offload(&["run"]).expect_code(4);
        assert!(outcome.stderr.contains("cannot bring the changes"), "{}", outcome.stderr);
    }
    assert_eq!(calls(&project, "prepare").len(), 1);
    wait_until("all are destroyed", std::time::Duration::from_secs(1), || {
        calls(&project, "create").len() == calls(&project, "destroy").len()
    });
}
