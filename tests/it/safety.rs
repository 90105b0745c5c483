//! Cases that must be right: nothing is destroyed, nothing is leaked, nothing is waited for in vain.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::runner::{configured, project};
use crate::support::{Project, Running, survivors, wait_until};

fn unique(name: &str) -> String {
    format!("offload-test-{name}-{}", std::process::id())
}

/// The same project with another configuration.
fn reconfigured(project: Project, from: &str, to: &str) -> Project {
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    assert!(config.contains(from));
    project.config(&config.replace(from, to))
}

#[test]
fn folders_that_are_not_for_reports_are_refused() {
    let mut project = project(&["pass 1"], "").file("precious", "x").file("repo/.git/HEAD", "x");
    let mut before = "[report]".to_owned();
    for directory in [".", "/", "repo"] {
        let after = format!("[report]\noutput_dir = \"{directory}\"");
        project = reconfigured(project, &before, &after);
        let outcome = project.offload(&["run"]).expect_code(3);
        assert!(outcome.stderr.contains("cannot be the output directory"), "{}", outcome.stderr);
        before = after;
    }
    assert!(project.path().join("precious").exists());
    assert!(!project.path().join(".offload").exists() && !project.path().join("repo/.offload").exists());
}

#[test]
fn an_output_path_that_cannot_be_written_is_a_clear_error() {
    let project = project(&["pass 1"], "").file("test-results", "a file");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(
        outcome.stderr.contains("cannot create the output directory `test-results`"),
        "{}",
        outcome.stderr
    );
    let project = reconfigured(project, "[report]", "[report]\noutput_dir = \"/proc/nowhere\"");
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("/proc/nowhere"), "{}", outcome.stderr);
}

#[test]
fn a_full_disk_is_a_clear_error_and_keeps_the_old_report() {
    let tests: Vec<String> = (0..2000).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = project(&tests, "");
    fs::create_dir(project.path().join("test-results")).unwrap();
    // A small file system of its own, seen by this command only.
    let script = "mount -t tmpfs -o size=64k none test-results && echo old > test-results/junit.xml && \
                  \"$0\" run --parallel 1; code=$?; cat test-results/junit.xml; exit $code";
    let mut command = project.command("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_offload")]);
    let outcome = Running::start(command).wait(Duration::from_secs(60)).expect_code(4);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    assert!(outcome.stdout.ends_with("old\n"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("2000 tests: ") && !outcome.stdout.contains("report: "),
        "{}",
        outcome.stdout
    );
}

#[test]
fn files_of_others_in_the_output_folder_survive_two_runs() {
    let project =
        project(&["pass 1"], "").file("test-results/notes.txt", "x").file("test-results/logs/mine", "x");
    project.offload(&["run"]).expect_code(0);
    project.offload(&["run"]).expect_code(0);
    let directory = project.path().join("test-results");
    assert!(directory.join("notes.txt").exists() && directory.join("logs/mine").exists());
    assert_eq!(fs::read_dir(directory.join("logs")).unwrap().count(), 3);
}

#[test]
fn a_second_run_in_the_same_output_folder_says_who_holds_it() {
    let unique = unique("held");
    let project = project(&["hang"], "").env("UNIQUE", &unique);
    let first = project.spawn(&["run"]);
    wait_until("the first run is busy", Duration::from_secs(20), || survivors(&unique) > 0);
    let outcome = project.offload(&["run"]).expect_code(4);
    assert!(outcome.stderr.contains("in use by another run (process "), "{}", outcome.stderr);
    first.signal(Signal::SIGTERM);
    first.wait(Duration::from_secs(20)).expect_code(130);
}

#[test]
fn a_signal_ends_all_children_and_writes_what_is_known() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let unique = unique(signal.as_str());
        let project = configured(
            &["pass 1", "hang 1", "hang 2", "pass 2"],
            "[groups.all]\nschedule_individual = true",
            "",
        )
        .env("UNIQUE", &unique);
        let running = project.spawn(&["run", "--parallel", "3"]);
        wait_until("the tests hang", Duration::from_secs(20), || survivors(&unique) > 1);
        let log = project.path().join("test-results/logs");
        wait_until("the passing tests are done", Duration::from_secs(20), || {
            fs::read_dir(&log)
                .unwrap()
                .filter(|entry| {
                    entry.as_ref().unwrap().file_name().to_string_lossy().ends_with("stdout.success")
                })
                .count()
                == 2
        });
        let asked = Instant::now();
        running.signal(signal);
        let outcome = running.wait(Duration::from_secs(20)).expect_code(130);
        assert!(asked.elapsed() < Duration::from_secs(7), "{signal}: {:?}", asked.elapsed());
        assert!(outcome.stdout.contains("4 tests: 2 passed, 2 not run"), "{}", outcome.stdout);
        assert_eq!(survivors(&unique), 0);
        let logs = project.offload(&["logs"]).expect_code(0).stdout;
        assert!(
            logs.contains("=== pass 1 [PASSED] ===") && logs.contains("=== hang 1 [NOT RUN] ==="),
            "{logs}"
        );
    }
}

#[test]
fn an_interrupted_discovery_ends_with_its_group() {
    for command in ["run", "collect"] {
        let unique = unique(&format!("listing-{command}"));
        let project = project(&[], "");
        let hang = format!("sh -c 'sleep 600; : $0' {unique} # {{filters}}");
        let project = reconfigured(project, "cat list # {filters}", &hang);
        let running = project.spawn(&[command]);
        wait_until("the discovery hangs", Duration::from_secs(20), || survivors(&unique) > 0);
        running.signal(Signal::SIGTERM);
        running.wait(Duration::from_secs(20)).expect_code(130);
        assert_eq!(survivors(&unique), 0);
    }
}

#[test]
fn a_second_signal_does_not_wait_for_those_who_ignore_the_first() {
    let unique = unique("stubborn");
    let runner = "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 1; done; : $0' \"$UNIQUE\"";
    let project = project(&["a"], "").file("runner", runner).env("UNIQUE", &unique);
    let running = project.spawn(&["run"]);
    wait_until("the test hangs", Duration::from_secs(20), || survivors(&unique) > 0);
    running.signal(Signal::SIGINT);
    wait_until("the first signal is heard", Duration::from_secs(5), || running.stderr().contains("stopping"));
    let asked = Instant::now();
    running.signal(Signal::SIGINT);
    running.wait(Duration::from_secs(20)).expect_code(130);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    wait_until("all are gone", Duration::from_secs(5), || survivors(&unique) == 0);
}

#[test]
fn names_and_messages_of_tests_do_not_rub_out_the_summary() {
    // XML cannot hold the usual beginning of these, but the other one.
    let (rub, short) = ("\u{1b}[1A\u{1b}[2K\r", "\u{9b}1A\u{9b}2K");
    let odd = format!("odd {short}");
    let project = project(&[&format!("fail {rub}1"), "pass 1", &odd], "");
    let runner = fs::read_to_string(project.path().join("runner")).unwrap();
    let case = format!(
        "case $id in\n    odd*) body=\"$body<testcase name='$id'><failure>{short}all is well</failure></testcase>\" ;;"
    );
    let project = project.file("runner", &runner.replacen("case $id in", &case, 1));
    let outcome = project.offload(&["run"]).expect_code(1);
    let shown = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'), "{shown:?}");
    assert!(outcome.stdout.contains("FAILED odd \\u{9b}1A\\u{9b}2K\n    1A2Kall is well\n"), "{shown:?}");
    assert!(outcome.stdout.contains("NOT RUN fail \\u{1b}[1A"), "{shown:?}");
    assert!(outcome.stdout.contains("3 tests: 1 passed, 1 failed, 1 not run"), "{shown:?}");
    let logs = project.offload(&["logs"]).expect_code(0).stdout;
    assert!(logs.contains("=== odd \\u{9b}1A\\u{9b}2K [FAILED] ==="), "{logs:?}");
}

#[test]
fn what_a_killed_run_had_in_its_temporary_folder_goes_with_the_next_or_gc() {
    let unique = unique("scratch");
    let project = project(&["hang"], "").env("UNIQUE", &unique).file("tmp/offload-mine/note", "x");
    // That of a process of another machine, whose locks may not be seen here.
    let project = project.file("tmp/offload-far/.held", "far.away");
    let far = project.path().join("tmp/offload-far");
    fs::set_permissions(&far, fs::Permissions::from_mode(0o700)).unwrap();
    let temporary = project.path().join("tmp");
    let project = project.env("TMPDIR", &temporary.to_string_lossy());
    let count = || fs::read_dir(&temporary).unwrap().count();
    for command in ["gc", "collect"] {
        let running = project.spawn(&["run"]);
        wait_until("the test hangs", Duration::from_secs(20), || survivors(&unique) > 0);
        assert_eq!(count(), 3);
        project.offload(&[command]).expect_code(0);
        assert_eq!(count(), 3, "it lives");
        running.signal(Signal::SIGKILL);
        running.wait(Duration::from_secs(10));
        end_all(&unique);
        assert_eq!(count(), 3);
        project.offload(&[command]).expect_code(0);
        assert_eq!(count(), 2);
    }
    assert!(far.exists() && temporary.join("offload-mine/note").exists());
}

#[test]
fn a_killed_run_leaves_the_old_report_whole() {
    let unique = unique("killed");
    let project = project(&["pass 1"], "").env("UNIQUE", &unique);
    project.offload(&["run"]).expect_code(0);
    let report = project.path().join("test-results/junit.xml");
    let old = fs::read_to_string(&report).unwrap();
    let project = project.file("list", "hang\n");
    let running = project.spawn(&["run"]);
    wait_until("the test hangs", Duration::from_secs(20), || survivors(&unique) > 0);
    running.signal(Signal::SIGKILL);
    assert_eq!(running.wait(Duration::from_secs(10)).code, None);
    assert_eq!(fs::read_to_string(&report).unwrap(), old);
    // Nobody was left to end the test itself.
    end_all(&unique);
    project.file("list", "pass 2\n").offload(&["run"]).expect_code(0);
}

/// Ends the groups of the processes that have `unique` in their command line.
pub fn end_all(unique: &str) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(unique) {
            let pid: i32 = entry.file_name().to_string_lossy().parse().unwrap();
            // With their children, which do not have it.
            if let Ok(group) = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))) {
                let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
            }
        }
    }
}

#[test]
fn no_temporary_file_is_left_behind() {
    let project = project(&["pass 1", "fail", "kill"], "");
    fs::create_dir(project.path().join("tmp")).unwrap();
    let temporary = project.path().join("tmp");
    let project = project.env("TMPDIR", &temporary.to_string_lossy());
    project.offload(&["run"]).expect_code(1);
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}

/// Every file below `directory`, as bytes.
fn all_bytes(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            files.extend(all_bytes(&entry.path()));
        } else {
            files.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
        }
    }
    files
}

#[test]
fn a_secret_value_is_written_nowhere() {
    let secret = "s3cr3t-value-of-the-token";
    let more = format!("secret_env = [\"TOKEN\", \"OTHER\"]\nenv = {{ TOKEN = \"{secret}\" }}\n");
    let project = project(&["secret 1", "pass 1"], &more).env("OTHER", "inherited-0123456789");
    let outcome = project.offload(&["-v", "run", "--trace"]).expect_code(1);
    let logs = project.offload(&["logs"]).expect_code(0);
    let validate = project.offload(&["validate"]).expect_code(0);
    for text in [&outcome.stdout, &outcome.stderr, &logs.stdout, &validate.stdout] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(outcome.stdout.contains("***"), "{}", outcome.stdout);
    let mut seen = 0;
    for (name, bytes) in all_bytes(&project.path().join("test-results")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(secret), "{name}");
        seen += usize::from(text.contains("the value is ***"));
    }
    assert_eq!(seen, 1, "the log holds the line, masked");
}

#[test]
fn a_closed_stdout_ends_the_program_quietly() {
    let tests: Vec<String> = (0..20_000).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = project(&tests, "");
    for arguments in ["collect", "collect -f json", "run --collect-only", "validate", "--help"] {
        let mut command = project.command("/bin/sh");
        let script = format!("{{ \"$0\" {arguments}; echo $? > code; }} | true");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_offload")]).stdout(Stdio::null());
        let outcome = Running::start(command).wait(Duration::from_secs(30));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{arguments}");
        assert_eq!(fs::read_to_string(project.path().join("code")).unwrap(), "0\n", "{arguments}");
    }
}

#[test]
fn downloads_lie_under_the_batch_that_made_them_each_once() {
    let runner = "out=$1; shift; mkdir -p shots; for id; do echo \"$id\" > shots/$id.png; done; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    let project = project(&["a", "b", "c"], "").file("runner", runner).file("shots/old.png", "x");
    let project = reconfigured(project, "[report]", "[report]\ndownload_globs = [\"shots/*.png\"]");
    project.offload(&["run", "--parallel", "3"]).expect_code(0);
    let files = all_bytes(&project.path().join("test-results/downloads"));
    let mut names: Vec<&str> = files.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a.png", "b.png", "c.png"]);
    assert!(files.iter().all(|(name, _)| name.contains("/downloads/batch-")));
}

#[test]
fn a_file_that_another_batch_saw_half_written_is_downloaded_once_and_whole() {
    // `b` goes on writing when the batch of `a` has taken the file.
    let runner = "out=$1; shift; mkdir -p shots; await() { n=0; until ls $1 > /dev/null 2>&1; do \
                  sleep 0.05; n=$((n + 1)); [ $n -lt 400 ] || exit 3; done; }; \
                  case $1 in a) await shots/shot.png;; b) printf half > shots/shot.png; \
                  await 'test-results/downloads/*/shots/shot.png'; printf whole >> shots/shot.png;; esac; \
                  { echo '<testsuite>'; printf '<testcase name=\"%s\"/>' \"$@\"; echo '</testsuite>'; } > \"$out\"";
    let project = project(&["a", "b"], "").file("runner", runner);
    let project = reconfigured(project, "[report]", "[report]\ndownload_globs = [\"shots/*.png\"]");
    project.offload(&["run", "--parallel", "2"]).expect_code(0);
    let files = all_bytes(&project.path().join("test-results/downloads"));
    let contents: Vec<_> = files.iter().map(|(_, content)| String::from_utf8_lossy(content)).collect();
    assert_eq!(contents, ["halfwhole"]);
}

#[test]
fn a_report_of_an_earlier_run_is_not_taken_for_that_of_the_last() {
    let project = project(&["pass 1"], "");
    project.offload(&["run"]).expect_code(0);
    let project = reconfigured(project, "cat list #", "exit 7 #");
    project.offload(&["run"]).expect_code(4);
    let logs = project.offload(&["logs"]).expect_code(4);
    assert!(logs.stdout.is_empty() && logs.stderr.contains("hint:"), "{}{}", logs.stdout, logs.stderr);
    let project = reconfigured(project, "exit 7 #", "cat list #");
    project.offload(&["run"]).expect_code(0);
    let project = reconfigured(project, "[report]", "[report]\njunit = false");
    project.offload(&["run"]).expect_code(0);
    project.offload(&["logs"]).expect_code(4);
}

#[test]
fn a_name_with_a_newline_does_not_reach_the_files_of_others() {
    let runner = "printf x > 'shot\nvictim'; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
    let runner = runner.replace("\\n", "\n");
    let project = project(&["a"], "").file("runner", &runner);
    let project = reconfigured(project, "[report]", "[report]\ndownload_globs = [\"shot*\"]");
    project.offload(&["run"]).expect_code(0);
    let project = project.file("test-results/victim", "x").file("test-results/downloads/batch-0/victim", "x");
    project.offload(&["run"]).expect_code(0);
    assert!(project.path().join("test-results/victim").exists());
    assert!(project.path().join("test-results/downloads/batch-0/victim").exists());
}

#[test]
fn a_second_signal_ends_even_a_write_that_nobody_reads() {
    let tests: Vec<String> = (0..20_000).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = project(&tests, "");
    let mut command = project.command("/bin/sh");
    command.args([
        "-c",
        "mkfifo out; sleep 600 < out & echo $! > reader; exec \"$0\" collect > out",
        env!("CARGO_BIN_EXE_offload"),
    ]);
    let running = Running::start(command);
    wait_until("the list is being written", Duration::from_secs(20), || {
        project.path().join("reader").exists() && survivors("collect") > 0
    });
    std::thread::sleep(Duration::from_secs(1));
    running.signal(Signal::SIGINT);
    wait_until("the first signal is heard", Duration::from_secs(5), || running.stderr().contains("stopping"));
    running.signal(Signal::SIGINT);
    running.wait(Duration::from_secs(15)).expect_code(130);
    let reader: i32 = fs::read_to_string(project.path().join("reader")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(reader), Signal::SIGKILL).unwrap();
}
