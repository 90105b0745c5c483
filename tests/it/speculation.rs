//! Late batches that run twice: the first one to finish stands, the other one leaves no trace.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::runner::{configured, ran};
use crate::support::{Outcome, Project, Running, survivors, wait_until};

/// Once there is a file `armed`, a `slow` test does what is told in the place of `FIRST` the first
/// time it is executed, and passes later; each execution adds itself to `ran`. `$fail` and `$pass`
/// are reports.
const RUNNER: &str = r#"
out=$1; shift
code=0
body=
hang() { sh -c 'sleep 600; : $0' "$UNIQUE"; }
for id; do
    echo "$id" >> ran
    fail="<testsuite><testcase name='$id'><failure message='as told'/></testcase></testsuite>"
    case $id in
    slow*)
        if [ -e armed ]; then
            if mkdir "seen-$id" 2>/dev/null; then FIRST; else SECOND; fi
        fi ;;
    esac
    body="$body<testcase name='$id' time='0.01'/>"
done
printf '<testsuite>%s</testsuite>' "$body" > "$out"
exit $code
"#;

const ON: &str = "[offload]\nimpatiently_requeue_batches = true\nmax_parallel = 2\n";

/// A project of two tests, each a batch, that have been measured by a first run, and of which `slow`
/// then does what `first` and `second` say. A worker is idle when the other test is done, so that no
/// other batch can be late.
fn armed(more: &str, groups: &str, first: &str, second: &str, unique: &str) -> Project {
    let runner = RUNNER.replace("FIRST", first).replace("SECOND", second);
    let project = configured(&["pass", "slow"], groups, more).file("runner", &runner).env("UNIQUE", unique);
    project.offload(&["run"]).expect_code(0);
    fs::remove_file(project.path().join("ran")).unwrap();
    project.file("armed", "")
}

fn unique(name: &str) -> String {
    format!("offload-test-speculation-{name}-{}", std::process::id())
}

/// Ends within less than the batch's deadline and what the hanging test would take.
#[track_caller]
fn quickly(running: Running) -> Outcome {
    running.wait(Duration::from_secs(60))
}

/// The names of the logs of standard output, sorted.
fn logs(project: &Project) -> Vec<String> {
    let entries = fs::read_dir(project.path().join("test-results/logs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.contains("stdout")).collect();
    names.sort_unstable();
    names
}

/// What the runner was started for, of those that hang the first time.
fn slow_runs(project: &Project) -> Vec<String> {
    ran(project).into_iter().filter(|line| line.starts_with("slow")).collect()
}

#[test]
fn a_batch_that_hangs_is_overtaken_by_its_duplicate() {
    for retries in [0, 2] {
        let unique = unique(&format!("hang-{retries}"));
        let groups = format!("[groups.all]\nretry_count = {retries}");
        let project = armed(ON, &groups, "hang", ":", &unique);
        let outcome = quickly(project.spawn(&["-v", "run"])).expect_code(0);
        assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
        assert_eq!(survivors(&unique), 0);
        assert_eq!(slow_runs(&project), ["slow:2"]);
        let names = logs(&project);
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.contains(&"batch-2.stdout.success".to_owned()), "{names:?}");
        assert_eq!(names.iter().filter(|name| name.ends_with(".cancelled")).count(), 1, "{names:?}");
        assert_eq!(outcome.stderr.matches("run a second time as batch 2").count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("batch 2 finished before batch "), "{}", outcome.stderr);
        let report = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
        assert_eq!(report.matches("<testcase").count(), 2, "{report}");
        assert!(!report.contains("flaky") && !report.contains("rerun"), "{report}");
    }
}

#[test]
fn the_original_may_still_win() {
    let unique = unique("original");
    // It waits for its duplicate to run, which hangs.
    let first = "until [ -e twin ]; do sleep 0.05; done";
    let project = armed(ON, "[groups.all]", first, ": > twin; hang", &unique);
    let outcome = quickly(project.spawn(&["run"])).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0);
    assert!(logs(&project).contains(&"batch-2.stdout.cancelled".to_owned()), "{:?}", logs(&project));
}

#[test]
fn a_loser_that_would_have_failed_does_not_make_the_run_red() {
    let unique = unique("loser");
    // Its report and its exit code tell of a failure by the time it has ended.
    let first = "printf %s \"$fail\" > \"$out\"; trap 'exit 1' TERM; hang";
    let project = armed(ON, "[groups.all]\nretry_count = 1", first, ":", &unique);
    let outcome = quickly(project.spawn(&["run"])).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed"), "{}", outcome.stdout);
    assert_eq!((survivors(&unique), slow_runs(&project)), (0, vec!["slow:2".to_owned()]));
}

#[test]
fn a_winner_that_failed_has_failed() {
    let unique = unique("winner");
    let second = "printf %s \"$fail\" > \"$out\"; exit 1";
    let project = armed(ON, "[groups.all]", "hang", second, &unique);
    let outcome = quickly(project.spawn(&["run"])).expect_code(1);
    assert!(outcome.stdout.contains("2 tests: 1 passed, 1 failed"), "{}", outcome.stdout);
    assert_eq!((survivors(&unique), slow_runs(&project)), (0, vec!["slow:2".to_owned()]));
}

#[test]
fn no_batch_runs_twice_where_that_is_off_as_it_is_for_local_sandboxes() {
    for setting in ["", "impatiently_requeue_batches = false\n"] {
        let unique = unique(&format!("off-{}", setting.len()));
        let more = format!("[offload]\n{setting}max_parallel = 2\ntest_timeout_secs = 5\n");
        let project = armed(&more, "[groups.all]", "hang", ":", &unique);
        let outcome = quickly(project.spawn(&["run"])).expect_code(1);
        assert!(outcome.stdout.contains("TIMED OUT slow"), "{}", outcome.stdout);
        assert_eq!((survivors(&unique), slow_runs(&project)), (0, vec!["slow:1".to_owned()]));
    }
}

#[test]
fn a_batch_whose_tests_were_never_measured_does_not_run_twice() {
    let unique = unique("unknown");
    let more = format!("{ON}test_timeout_secs = 5\n");
    let project = armed(&more, "[groups.all]", "hang", ":", &unique);
    fs::remove_dir_all(project.path().join("test-results")).unwrap();
    quickly(project.spawn(&["run"])).expect_code(1);
    assert_eq!(slow_runs(&project), ["slow:1"]);
}

#[test]
fn a_signal_ends_both_of_two() {
    let unique = unique("signal");
    let project = armed(ON, "[groups.all]", "hang", "hang", &unique);
    let running = project.spawn(&["run"]);
    wait_until("both hang", Duration::from_secs(30), || survivors(&unique) == 2);
    running.signal(Signal::SIGTERM);
    let outcome = running.wait(Duration::from_secs(20)).expect_code(130);
    assert!(outcome.stdout.contains("2 tests: 1 passed, 1 not run"), "{}", outcome.stdout);
    assert_eq!(survivors(&unique), 0);
}
