//! Many sandboxes, and a system that does not have room for them.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::size;
use crate::remote::{nothing_left, remote};
use crate::support::{Outcome, Project, Running, note_skipped};

/// The tests begin when all sandboxes are there. One line for each call.
const PROVIDER: &str = r#"
case $1 in
create) echo "create sb-$$" >> calls; echo "sb-$$"
    if [ "$(grep -c create calls)" -ge "$COUNT" ]; then : > go; fi ;;
exec) until [ -e go ]; do sleep 1; done; exec sh -c "$3" ;;
destroy) echo "destroy $2" >> calls ;;
esac
"#;

fn many(count: usize) -> Project {
    let tests: Vec<String> = (0..count).map(|number| format!("pass {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let runner = "printf '<testsuite><testcase name=\"%s\"/></testsuite>' \"$2\" > \"$1\"";
    let project = remote(&tests, "[groups.all]\nschedule_individual = true", "", "");
    project.file("provider", PROVIDER).file("runner", runner).env("COUNT", &count.to_string())
}

/// The program started by others, `before`, which set limits.
#[track_caller]
fn limited(project: &Project, before: &[&str], arguments: &[&str]) -> Outcome {
    let mut command = project.command(before[0]);
    command.args(&before[1..]).arg(env!("CARGO_BIN_EXE_offload")).args(arguments);
    Running::start(command).wait(Duration::from_secs(300))
}

fn all_made_and_destroyed(project: &Project, count: usize) {
    let text = fs::read_to_string(project.path().join("calls")).unwrap();
    for word in ["create ", "destroy "] {
        let ids: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(word)).collect();
        assert_eq!(ids.len(), count, "{word}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), count, "{word}");
    }
    nothing_left(project);
}

#[test]
fn five_hundred_sandboxes_live_at_once_within_the_files_that_are_asked_for() {
    let count = size(500, 150);
    // The very number that the message names where there are fewer.
    let files = format!("--nofile={}", count * 14 + 40);
    let more = "secret_env = [\"TOKEN\"]\nenv = { TOKEN = \"s3cr3t-value\" }\n";
    let project = many(count);
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project
        .config(&config.replace("type = \"default\"\ncreate", &format!("type = \"default\"\n{more}create")));
    let outcome = limited(&project, &["prlimit", &files], &["run", "--parallel", &count.to_string()]);
    let outcome = outcome.expect_code(0);
    assert!(outcome.stdout.contains(&format!("{count} tests: {count} passed")), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains("Too many open files"), "{}", outcome.stderr);
    all_made_and_destroyed(&project, count);
}

/// A user without processes, so that a limit counts ours alone.
const NOBODY: u32 = 61_234;

#[test]
fn too_few_processes_are_told_before_a_sandbox_is_made() {
    if !nix::unistd::geteuid().is_root() {
        note_skipped(
            "root",
            "the limit counts all processes of a user, and only root may become another one",
        );
        return;
    }
    // A place that another user can reach.
    let program = std::env::temp_dir().join(format!("offload-limited-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_offload"), &program).unwrap();
    let project = many(200);
    let owned = project.command("chown").args(["-R", &NOBODY.to_string(), "."]).status().unwrap();
    assert!(owned.success());
    let run = |processes: &str| {
        let mut command = project.command("setpriv");
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "prlimit", processes]);
        command.arg(&program).args(["run", "--parallel", "200"]);
        Running::start(command).wait(Duration::from_secs(120))
    };
    let hardly = run("--nproc=3");
    let outcome = run("--nproc=100");
    let made = project.path().join("calls").exists();
    let again = run("--nproc=2000");
    fs::remove_file(&program).unwrap();
    let hardly = hardly.expect_code(4).stderr;
    assert!(hardly.contains("1 concurrent sandbox needs about ") && !hardly.contains("panicked"), "{hardly}");
    let outcome = outcome.expect_code(4);
    assert!(outcome.stderr.contains("200 concurrent sandboxes need about "), "{}", outcome.stderr);
    let told = ["threads and processes", "the system allows 100", "ulimit -u ", "--parallel "];
    assert!(told.iter().all(|words| outcome.stderr.contains(words)), "{}", outcome.stderr);
    assert!(!made);
    again.expect_code(0);
    all_made_and_destroyed(&project, 200);
}
