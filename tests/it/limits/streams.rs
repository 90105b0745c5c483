//! Descriptors, terminals and clocks that are not as usual.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::runner::project;
use crate::support::{Outcome, Project, Running};

/// The program run by a shell text, in which it is `"$0"`.
#[track_caller]
fn by_shell(project: &Project, text: &str) -> Outcome {
    let mut command: Command = project.command("/bin/sh");
    command.args(["-c", text, env!("CARGO_BIN_EXE_offload")]);
    Running::start(command).wait(Duration::from_secs(60))
}

#[test]
fn closed_streams_do_no_harm_and_nothing_comes_into_a_log_that_no_test_wrote() {
    for closed in ["<&- >&- 2>&-", "<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-"] {
        for more in ["", "secret_env = [\"TOKEN\"]\nenv = { TOKEN = \"s3cr3t-value\" }\n"] {
            let project = project(&["pass 1", "fail 2"], more);
            by_shell(&project, &format!("\"$0\" -v run --parallel 1 {closed}; echo $? > code"))
                .expect_code(0);
            let read = |path: &str| fs::read_to_string(project.path().join(path)).unwrap();
            assert_eq!(read("code"), "1\n", "{closed}");
            assert_eq!(
                read("test-results/logs/batch-0.stdout.failure"),
                "running pass 1\nrunning fail 2\n",
                "{closed}"
            );
            assert_eq!(read("test-results/logs/batch-0.stderr.failure"), "", "{closed}");
            assert_eq!(read("list"), "pass 1\nfail 2\n", "{closed}");
            let report = read("test-results/junit.xml");
            assert!(report.starts_with("<?xml") && report.trim_end().ends_with("</testsuites>"), "{closed}");
        }
    }
}

#[test]
fn no_terminal_is_needed() {
    let project = project(&["pass 1"], "");
    let outcome = by_shell(&project, "exec setsid --wait \"$0\" run").expect_code(0);
    assert!(outcome.stdout.contains("1 test: 1 passed"), "{}", outcome.stdout);
}

/// The history has samples of this time, in milliseconds since the epoch.
fn remembered(at: i64) -> Project {
    let line = |id: &str, seconds: f64| {
        format!(
            "{{\"k\":[\"offload.toml\",\"{id}\"],\"v\":{{\"n\":1,\"f\":0,\"last_run\":\"r\",\"ok\":[[\"r\",{at},{seconds}]],\"fail\":[]}}}}\n"
        )
    };
    let project = project(&["pass 1", "pass 2"], "[history]\nreservoir_size = 2\n");
    project.file("offload-history.jsonl", &(line("pass 1", 0.5) + &line("pass 2", 0.25)))
}

#[test]
fn a_history_of_the_future_or_of_1970_does_no_harm() {
    for at in [0, 1, -5, 99_999_999_999_999, i64::MAX] {
        let project = remembered(at);
        for _ in 0..4 {
            let outcome = project.offload(&["run", "--record-history"]).expect_code(0);
            assert!(!outcome.stderr.contains("panicked"), "{at}: {}", outcome.stderr);
        }
        let shown = project.offload(&["history", "show", "-f", "json"]).expect_code(0);
        serde_json::from_str::<serde_json::Value>(&shown.stdout).unwrap();
        let plan = project.offload(&["plan"]).expect_code(0);
        assert!(!plan.stderr.contains("panicked"), "{at}: {}", plan.stderr);
        let text = fs::read_to_string(project.path().join("offload-history.jsonl")).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("\"pass ")).count(), 2, "{at}: {text}");
    }
}

#[test]
fn a_journal_of_the_future_or_of_1970_is_worked_off() {
    for at in ["0", "99999999999999", "18446744073709551615"] {
        let project = crate::remote::remote(&["pass 1"], "[groups.all]", "", "");
        let config = project.path().join("offload.toml").display().to_string();
        let directory = project.path().display();
        let about = format!(
            "{{\"config\":\"{config}\",\"directory\":\"{directory}\",\"process\":1,\"started\":{at}}}"
        );
        let project = project
            .file("state/runs/old/run.json", &about)
            .file("state/runs/old/sandbox-0.json", &format!("{{\"slot\":0,\"id\":\"sb-1\",\"at\":{at}}}"));
        let outcome = project.offload(&["gc"]).expect_code(0);
        assert!(outcome.stdout.contains("1 destroyed, 0 left"), "{at}: {}{}", outcome.stdout, outcome.stderr);
    }
}

#[test]
fn deadlines_do_not_depend_on_the_clock_of_the_wall() {
    // That clock may jump. What is measured with it is when something was written, for others to read.
    const OF_DATES: [&str; 5] =
        ["commands/recording.rs", "git/notes.rs", "image.rs", "journal.rs", "provider/local.rs"];
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let mut directories = vec![std::path::PathBuf::from(root)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if fs::read_to_string(&path).unwrap().contains("SystemTime") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                assert!(OF_DATES.contains(&&*name), "{name} reads the clock of the wall");
            }
        }
    }
}
