//! Whole runs whose sandboxes share what there is once: names, ports, directories.

use std::collections::BTreeSet;
use std::fs;

use crate::support::Project;

/// Writes JUnit to its first argument for the tests that are its others. `$HERE` is the project. A test whose name
/// begins with `one` must be the only one of these that runs; `one 1` waits for `free 1`, which waits for it.
const RUNNER: &str = r#"
wait_for() {
    left=600
    until [ -e "$HERE/$1" ]; do
        left=$((left - 1)); [ $left -gt 0 ] || exit 9
        sleep 0.05
    done
}
out=$1; shift
body=
code=0
echo "$OFFLOAD_SANDBOX of $OFFLOAD_SANDBOXES" >> "$HERE/numbers"
for id; do
    > "$HERE/began $id"
    case $id in
    one*)
        mkdir "$HERE/busy" || echo "$id" >> "$HERE/overlaps"
        [ "$id" != 'one 1' ] || wait_for 'began free 1' ;;
    esac
    [ "$id" != 'free 1' ] || wait_for 'began one 1'
    if [ "$id" = 'one 2' ] && mkdir "$HERE/failed" 2>/dev/null; then
        code=1
        body="$body<testcase name='$id'><failure message='the first time'/></testcase>"
    else
        body="$body<testcase name='$id'/>"
    fi
    case $id in one*) rmdir "$HERE/busy" ;; esac
done
printf '<testsuite>%s</testsuite>' "$body" > "$out"
exit $code
"#;

const FRAMEWORK: &str = r#"
[framework]
type = "default"
discover_command = "cat {filters}"
run_command = "sh \"$HERE/runner\" {result_file} {tests}"
result_file = "junit.xml"
test_id_format = "{name}"
"#;

const LOCAL: &str = "[provider]\ntype = \"local\"\n";

fn project(config: &str) -> Project {
    let ones: String = (1..=5).map(|number| format!("one {number}\n")).collect();
    let frees: String = (1..=5).map(|number| format!("free {number}\n")).collect();
    let project = Project::new().file("runner", RUNNER).file("ones", &ones).file("frees", &frees);
    let here = project.path().to_string_lossy().into_owned();
    project.env("HERE", &here).config(&format!("{FRAMEWORK}{config}"))
}

fn numbers(project: &Project) -> BTreeSet<String> {
    let text = fs::read_to_string(project.path().join("numbers")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_group_with_a_maximum_has_so_many_batches_at_once_while_others_go_on() {
    let groups = "[groups.one]\nfilters = \"ones\"\nmax_parallel = 1\nretry_count = 1\n\
                  schedule_individual = true\n[groups.free]\nfilters = \"frees\"\nschedule_individual = true\n";
    let project = project(&format!("[offload]\nmax_parallel = 4\n{LOCAL}{groups}"));
    let outcome = project.offload(&["run"]).expect_code(2);
    assert!(outcome.stdout.contains("10 tests: 9 passed, 1 flaky in"), "{}", outcome.stdout);
    assert!(!project.path().join("overlaps").exists());
    // Alone, the group needs one sandbox, whatever it may have.
    let project = project.config(&format!(
        "{FRAMEWORK}[offload]\nmax_parallel = 4\n{LOCAL}[groups.one]\nfilters = \"ones\"\nmax_parallel = 1\n"
    ));
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("5 tests: 5 passed in") && outcome.stdout.contains("on 1 sandbox"));
    let shown = project.offload(&["validate"]).expect_code(0).stdout;
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["max_parallel", "1"])), "{shown}");
    let project = project.config(&format!("{FRAMEWORK}{LOCAL}[groups.one]\nmax_parallel = 0\n"));
    let error = project.offload(&["validate"]).expect_code(3).stderr;
    assert!(error.contains("max_parallel"), "{error}");
}

#[test]
fn each_batch_knows_the_number_of_its_sandbox_and_how_many_there_may_be() {
    let groups = "[groups.all]\nfilters = \"ones frees\"\nschedule_individual = true\n";
    let remote = "[provider]\ntype = \"default\"\ncreate_command = \"echo {slot}\"\n\
                  exec_command = \"cd \\\"$HERE\\\" && exec sh -c {command}\"\ndestroy_command = \":\"\n";
    for provider in [LOCAL, remote] {
        let project = project(&format!("[offload]\nmax_parallel = 2\n{provider}{groups}"));
        fs::write(project.path().join("ones"), "").unwrap();
        fs::write(project.path().join("began one 1"), "").unwrap();
        project.offload(&["run"]).expect_code(0);
        let numbers = numbers(&project);
        assert!(numbers.iter().all(|line| ["0 of 2", "1 of 2"].contains(&line.as_str())), "{numbers:?}");
        assert!(!numbers.is_empty());
    }
    // What cannot run beside anything is told so.
    let project =
        project(&format!("[offload]\nmax_parallel = 3\n{LOCAL}[groups.all]\nfilters = \"frees\"\n"));
    fs::write(project.path().join("frees"), "free 2\n").unwrap();
    project.offload(&["run"]).expect_code(0);
    assert_eq!(numbers(&project).into_iter().collect::<Vec<_>>(), ["0 of 1"]);
}

/// Two batches at once want one port, which `$HERE/port` stands for; the second says so and dies.
const SERVER: &str = r#"
wait_for() {
    left=600
    until [ -e "$HERE/$1" ]; do
        left=$((left - 1)); [ $left -gt 0 ] || exit 9
        sleep 0.05
    done
}
if ! mkdir "$HERE/port" 2>/dev/null; then
    echo 'OSError: [Errno 98] Address already in use' >&2
    > "$HERE/refused"
    exit 3
fi
out=$1; shift
[ -n "$ONE_BY_ONE" ] || wait_for refused
for id; do body="$body<testcase name='$id'/>"; done
printf '<testsuite>%s</testsuite>' "$body" > "$out"
rmdir "$HERE/port"
"#;

#[test]
fn a_batch_whose_port_is_taken_is_told_what_to_do_and_that_helps() {
    let server = |more: &str| {
        let groups = format!("[groups.web]\nfilters = \"list\"\nschedule_individual = true\n{more}");
        project(&format!("[offload]\nmax_parallel = 2\n{LOCAL}{groups}"))
            .file("runner", SERVER)
            .file("list", "a\nb\n")
    };
    let outcome = server("").offload(&["run"]).expect_code(1);
    let advice = "    hint: what is set up for all tests is set up once per batch, and batches run at the same time: \
                  `max_parallel = 1` in [groups.web] runs them one by one\n";
    assert_eq!(outcome.stdout.matches(advice).count(), 1, "{}", outcome.stdout);
    let project = server("max_parallel = 1\n").env("ONE_BY_ONE", "1");
    let outcome = project.offload(&["run"]).expect_code(0);
    assert!(outcome.stdout.contains("2 tests: 2 passed in"), "{}", outcome.stdout);
}
