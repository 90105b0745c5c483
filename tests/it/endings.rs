//! How processes end: with a report where they can write one, whole where they list, and none is left.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::runner::{project, ran};
use crate::support::{Project, Running, nextest, python, survivors, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

fn unique(name: &str) -> String {
    format!("offload-endings-{name}-{}", std::process::id())
}

/// A project whose tests are run by a script `run`, with its result file and ids as arguments.
fn scripted(run: &str, more: &str) -> Project {
    let config = format!(
        "[framework]\ntype = \"default\"\ndiscover_command = \"cat list # {{filters}}\"\n\
         run_command = \"sh ./run {{result_file}} {{tests}}\"\nresult_file = \"out.xml\"\n\
         test_id_format = \"{{name}}\"\n[groups.all]\n[provider]\ntype = \"local\"\n{more}\n"
    );
    Project::new().file("run", run).file("list", "one\n").config(&config)
}

#[test]
fn ids_that_contain_a_secret_are_listed_and_run_as_they_are() {
    let tests: Vec<String> = (0..6000).map(|number| format!("pass prod {number}")).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let project = project(&tests, "env = { TOKEN = \"prod\" }\nsecret_env = [\"TOKEN\"]");
    let listed = project.offload(&["collect"]).expect_code(0).stdout;
    assert_eq!((listed.lines().count(), listed.contains("***")), (6000, false));
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(0);
    assert!(outcome.stdout.contains("6000 tests: 6000 passed"), "{}", outcome.stdout);
    assert_eq!(ran(&project).len(), 6000);
}

#[test]
fn a_list_that_is_still_being_printed_when_its_command_ends_is_an_error() {
    for secret in ["", "secret_env = [\"TOKEN\"]"] {
        let project = project(&["pass 1"], &format!("env = {{ TOKEN = \"s3cret\" }}\n{secret}"));
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let late = "(sleep 20; echo 'fail 2') & cat list # {filters}";
        let project = project.config(&config.replace("cat list # {filters}", late));
        let outcome = project.offload(&["run"]).expect_code(4);
        assert!(outcome.stderr.contains("the list may be incomplete"), "{}", outcome.stderr);
    }
}

#[test]
fn a_batch_of_pytest_that_times_out_keeps_the_results_it_has() {
    let Some(python) = python() else { return };
    let tests = r#"
import time

def note(name):
    with open("ran", "a") as file:
        file.write(name + "\\n")

def test_one(): note("one")
def test_two():
    note("two")
    assert False, "as told"
def test_three(): note("three")
def test_hangs():
    note("hangs")
    time.sleep(600)
"#;
    let config = format!(
        "[offload]\nmax_parallel = 1\ntest_timeout_secs = 6\n[provider]\ntype = \"local\"\n\
         [framework]\ntype = \"pytest\"\ncommand = \"{} -m pytest\"\n[groups.all]\n",
        python.display()
    );
    let project = Project::new().file("test_all.py", &tests.replace("\\\\", "\\")).config(&config);
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("TIMED OUT test_all.py::test_hangs"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("4 tests: 2 passed, 2 failed"), "{}", outcome.stdout);
    let ran = ran(&project);
    assert_eq!(ran[1..], ["one:1", "three:1", "two:1"], "{ran:?}");
}

#[test]
fn a_teardown_that_hangs_is_no_pass_of_its_test() {
    let Some(python) = python() else { return };
    let tests = r"
import time, pytest

@pytest.fixture
def slow():
    yield
    time.sleep(600)

def test_one(): pass
def test_hangs(slow): pass
def test_two(): pass
";
    // In the middle of its batch, at its end, and alone.
    for select in ["", "-k 'not two'", "-k hangs"] {
        let config = format!(
            "[offload]\nmax_parallel = 1\ntest_timeout_secs = 4\n[provider]\ntype = \"local\"\n\
             [framework]\ntype = \"pytest\"\ncommand = \"{} -m pytest\"\n[groups.all]\nfilters = \"{select}\"\n",
            python.display()
        );
        let project = Project::new().file("test_all.py", tests).config(&config);
        let outcome = project.offload(&["run"]).expect_code(1);
        assert!(outcome.stdout.contains("TIMED OUT test_all.py::test_hangs"), "{select}: {}", outcome.stdout);
        assert!(outcome.stdout.contains("passed, 1 failed in"), "{select}: {}", outcome.stdout);
    }
}

#[test]
fn a_report_that_is_a_pipe_is_an_error_of_the_batch() {
    let run = "mkfifo \"$1\"; exit 0\n";
    let globs = "[report]\ndownload_globs = [\"*.txt\"]\ndownload_globs_failure_only = true";
    let project = scripted(run, globs);
    let outcome = project.spawn(&["run"]).wait(DEADLINE).expect_code(1);
    assert!(outcome.stdout.contains("not a regular file"), "{}", outcome.stdout);
    // The same where the runner writes to a place of its own.
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let config = config.replace("sh ./run {result_file}", "sh ./run out.xml");
    let project = project.config(&format!("[offload]\nmax_parallel = 1\n{config}"));
    let outcome = project.spawn(&["run"]).wait(DEADLINE).expect_code(1);
    assert!(outcome.stdout.contains("not a regular file"), "{}", outcome.stdout);
}

#[test]
fn a_run_under_nohup_survives_its_terminal() {
    let project = scripted(
        ": > started; while ! [ -e go ]; do sleep 0.05; done; printf '<a><testcase name=\"one\"/></a>' > \"$1\"",
        "",
    );
    let mut command = project.command("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" run", env!("CARGO_BIN_EXE_offload")]);
    let running = Running::start(command);
    wait_until("the test has started", DEADLINE, || project.path().join("started").exists());
    running.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    fs::write(project.path().join("go"), "").unwrap();
    let outcome = running.wait(DEADLINE).expect_code(0);
    assert!(!outcome.stderr.contains("stopping"), "{}", outcome.stderr);
}

/// A test that leaves its process group for a session of its own, ignores signals, and hangs.
const ESCAPES: &str = "setsid sh -c 'trap \"\" INT TERM HUP; : > escaped; while :; do sleep 1; done; : $0' \"$UNIQUE\" &\n\
                       while ! [ -e escaped ]; do sleep 0.01; done\nsh -c 'sleep 600; : $0' \"$UNIQUE\"\n";

#[test]
fn nothing_of_a_local_run_outlives_an_interrupt_or_a_kill() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let unique = unique(signal.as_str());
        let project = scripted(ESCAPES, "").env("UNIQUE", &unique);
        let running = project.spawn(&["run"]);
        wait_until("the test hangs", DEADLINE, || survivors(&unique) >= 2);
        running.signal(signal);
        let ended = running.wait(DEADLINE);
        let since = Instant::now();
        wait_until("everything has ended", DEADLINE, || survivors(&unique) == 0);
        assert!(since.elapsed() < Duration::from_secs(10), "{signal}: {:?}", since.elapsed());
        assert_eq!(ended.code, (signal != Signal::SIGKILL).then_some(130));
    }
}

#[test]
fn nothing_of_a_batch_outlives_its_timeout() {
    let unique = unique("timeout");
    let project = scripted(ESCAPES, "").env("UNIQUE", &unique);
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&format!("[offload]\ntest_timeout_secs = 2\n{config}"));
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("TIMED OUT one"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0);
}

#[test]
fn what_a_test_leaves_on_purpose_outlives_a_run_that_ends_by_itself() {
    let unique = unique("daemon");
    let run = "setsid sh -c 'echo $$ > daemon; sleep 600; : $0' \"$UNIQUE\" >/dev/null 2>&1 &\n\
               while ! [ -s daemon ]; do sleep 0.01; done; printf '<a><testcase name=\"one\"/></a>' > \"$1\"";
    let project = scripted(run, "").env("UNIQUE", &unique);
    project.offload(&["run"]).expect_code(0);
    assert!(survivors(&unique) > 0);
    crate::safety::end_all(&unique);
}

#[test]
fn a_process_that_a_test_of_nextest_started_and_that_ignores_signals_is_gone() {
    let Some(tool) = nextest() else { return };
    let library = r#"
#[cfg(test)]
mod tests {
    #[test]
    fn hangs() {
        let text = "trap '' INT TERM; while :; do sleep 0.2; done; : $0";
        let unique = std::env::var("UNIQUE").unwrap();
        std::process::Command::new("sh").args(["-c", text, &unique]).status().unwrap();
    }
}
"#;
    let manifest = "[package]\nname = \"solo\"\nversion = \"0.0.0\"\nedition = \"2021\"\n";
    let config = "[offload]\ntest_timeout_secs = 3\n[provider]\ntype = \"local\"\n[framework]\n\
                  type = \"nextest\"\n[groups.all]\n";
    let unique = unique("nextest");
    let project = Project::new().tool(tool).file("Cargo.toml", manifest).file("src/lib.rs", library);
    let project = project.config(config).env("UNIQUE", &unique);
    let outcome = project.offload(&["run"]).expect_code(1);
    assert!(outcome.stdout.contains("solo tests::hangs"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0, "after a timeout");
    let running = project.config(&config.replace("= 3", "= 300")).env("UNIQUE", &unique);
    let project = running;
    let running = project.spawn(&["run"]);
    wait_until("the test hangs", DEADLINE, || survivors(&unique) > 0);
    running.signal(Signal::SIGINT);
    running.wait(DEADLINE).expect_code(130);
    assert_eq!(survivors(&unique), 0, "after an interrupt");
}
