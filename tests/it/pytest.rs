//! Whole runs with real pytest, on projects as they are.

use std::path::Path;

use crate::support::{Outcome, Project, is_full, python, python_old, python_oldest, sample};

mod collections;
mod record;
mod shared;

/// A configuration for the Python at `python`; `more` may hold any tables after [framework].
fn config(python: &Path, framework: &str, groups: &str) -> String {
    format!(
        "[offload]\nmax_parallel = 3\n[provider]\ntype = \"local\"\n[framework]\ntype = \"pytest\"\n\
         command = \"{} -m pytest\"\n{framework}\n{groups}\n",
        python.display()
    )
}

/// Names that are hard to carry to pytest and back.
const ODD: &str = r##"
import pytest

ODD = ["a b", "it's", 'say "x"', "$HOME", "`id`", "new\nline", "é→", "[x]", "a::b", "a/b.py", "-x", "@y.py", "{tests}", "\x1b[0m", "#", "\\", ""]

@pytest.mark.parametrize("value", ODD)
def test_odd(value):
    assert value in ODD

class TestOuter:
    class TestInner:
        @pytest.mark.parametrize("value", ["x::y[z]", "%s"])
        def test_deep(self, value):
            pass
"##;

const OUTCOMES: &str = r#"
import pytest

def test_pass(): pass
def test_fail(): assert 1 == 2, "as told"
@pytest.mark.skip(reason="not today")
def test_skip(): pass
@pytest.mark.xfail
def test_xfail(): assert False
@pytest.mark.xfail
def test_xpass(): pass
@pytest.mark.xfail(strict=True)
def test_strict(): pass
@pytest.fixture
def broken(): raise RuntimeError("setup")
def test_setup(broken): pass
@pytest.fixture
def late():
    yield
    raise RuntimeError("teardown")
def test_teardown(late): pass
"#;

/// Runs the same project with one sandbox, two and four: what comes out must not depend on that.
#[track_caller]
fn at_each_width(code: i32, make: impl Fn() -> Project, check: impl Fn(&Project, &Outcome)) {
    for width in sample(&["4", "1", "2"]) {
        let project = make();
        let outcome = project.offload(&["run", "--ci", "--parallel", width]).expect_code(code);
        check(&project, &outcome);
    }
}

fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn odd_ids_and_all_outcomes_survive_on_every_supported_pytest() {
    let pythons = [python(), python_oldest(), python_old()];
    for python in pythons.into_iter().take(if is_full() { 3 } else { 2 }).flatten() {
        // Two files of one name, options that change what pytest prints and reports.
        let project = Project::new()
            .file(
                "pyproject.toml",
                "[tool.pytest.ini_options]\naddopts = \"-v -v --junitprefix=pre -o junit_family=legacy\"\n",
            )
            .file("tests/one/__init__.py", "")
            .file("tests/two/__init__.py", "")
            .file("tests/one/test_same.py", ODD)
            .file("tests/two/test_same.py", ODD)
            .file("tests/test_outcomes.py", OUTCOMES)
            .config(&config(python, "", "[groups.all]"));
        let outcome = project.offload(&["run"]).expect_code(1);
        // 2 × (17 + 2) odd ones and 2 of the outcomes pass.
        has_all(&outcome.stdout, &["46 tests: 40 passed, 4 failed, 1 skipped, 1 failed as expected"]);
        has_all(
            &outcome.stdout,
            &[
                "FAILED tests/test_outcomes.py::test_fail",
                "as told",
                "ERROR tests/test_outcomes.py::test_setup",
            ],
        );
        has_all(
            &outcome.stdout,
            &["FAILED tests/test_outcomes.py::test_strict", "ERROR tests/test_outcomes.py::test_teardown"],
        );
        let logs = project.offload(&["logs"]).expect_code(0).stdout;
        has_all(
            &logs,
            &[
                "=== tests/test_outcomes.py::test_xfail [XFAILED] ===",
                "=== tests/test_outcomes.py::test_skip [SKIPPED] ===",
            ],
        );
        // Each test alone: each id must reach pytest as it is.
        let alone = project.config(&config(
            python,
            "",
            "[groups.all]\nschedule_individual = true\nfilters = \"tests/one\"",
        ));
        let outcome = alone.offload(&["run"]).expect_code(0);
        has_all(&outcome.stdout, &["19 tests: 19 passed"]);
    }
}

#[test]
fn groups_are_told_apart_by_one_collection_where_their_filters_allow_it() {
    let Some(python) = python() else { return };
    let conftest = r#"
import os, pytest
open("collections", "a").write("x") if "PYTEST_XDIST_WORKER" not in os.environ else None
def pytest_configure(config):
    config.addinivalue_line("markers", "slow: slow")
def pytest_addoption(parser):
    parser.addoption("--special", action="store_true")
def pytest_collection_modifyitems(config, items):
    # Suites do such things: without -m the slow ones are left out.
    if not config.option.markexpr:
        items[:] = [item for item in items if "slow" not in item.keywords]
"#;
    let tests = "import pytest\n@pytest.mark.slow\ndef test_slow_one(): pass\n\
                 @pytest.mark.slow\n@pytest.mark.parametrize('v', ['a b'])\ndef test_slow_two(v): pass\n\
                 def test_quick(): pass\ndef test_flaky(): pass\n\
                 def test_special(request): assert request.config.option.special\n";
    let groups = "[groups.unit]\nfilters = \"-m 'not slow' -k 'not flaky and not special'\"\n[groups.slow]\nfilters = \"-mslow\"\n\
                  retry_count = 3\nschedule_individual = true\n[groups.flaky]\nfilters = \"-k=flaky\"\n\
                  [groups.special]\nfilters = \"--special -k special\"";
    let project = Project::new()
        .file("conftest.py", conftest)
        .file("test_it.py", tests)
        .config(&config(python, "", groups));
    let listed = project.offload(&["collect", "-f", "json"]).expect_code(0);
    assert_eq!(std::fs::read_to_string(project.path().join("collections")).unwrap(), "xx");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap();
    let row = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap().clone();
    let groups: Vec<&str> = rows.iter().map(|row| row["group"].as_str().unwrap()).collect();
    assert_eq!(groups, ["unit", "slow", "slow", "flaky", "special"]);
    let slow = row("test_it.py::test_slow_two[a b]");
    assert_eq!((&slow["file"], &slow["retry_count"]), (&"test_it.py".into(), &3.into()));
    assert_eq!((&slow["name"], &slow["schedule_individual"]), (&"test_slow_two[a b]".into(), &true.into()));
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["5 tests: 5 passed"]);
}

#[test]
fn a_collection_that_fails_is_an_error_that_names_the_file() {
    let Some(python) = python() else { return };
    let project = Project::new()
        .file("test_good.py", "def test_good(): pass\n")
        .file("test_bad.py", "import nowhere_to_be_found\n")
        .config(&config(python, "", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(4);
    has_all(&outcome.stderr, &["test_bad.py", "nowhere_to_be_found"]);
    let groups =
        ["[groups.a]\nfilters = \"-k 'not (good'\"", "[groups.a]\n[groups.b]\nfilters = \"-k 'not (good'\""];
    for groups in groups {
        let project = Project::new()
            .file("test_good.py", "def test_good(): pass\n")
            .config(&config(python, "", groups));
        let outcome = project.offload(&["collect"]).expect_code(4);
        assert!(outcome.stdout.is_empty());
        has_all(&outcome.stderr, &["not (good"]);
    }
}

#[test]
fn every_form_of_filter_keeps_ids_with_spaces() {
    let Some(python) = python() else { return };
    let tests = "import pytest\n@pytest.mark.m\n@pytest.mark.parametrize('v', ['a b', 'c  d'])\ndef test_x(v): pass\n";
    let project = Project::new()
        .file("pytest.ini", "[pytest]\nmarkers = m\n")
        .file("in it/test_a.py", tests)
        .file("other/test_b.py", tests);
    let forms = [
        "-mm --ignore=other",
        "-m m --ignore other",
        "-k=test_x --deselect other/test_b.py",
        "'in it'",
        "'in it/test_a.py'",
    ];
    let mut project = project;
    for filters in forms {
        project = project.config(&config(python, "", &format!("[groups.a]\nfilters = \"{filters}\"")));
        let listed = project.offload(&["collect"]).expect_code(0).stdout;
        assert_eq!(listed, "in it/test_a.py::test_x[a b]\nin it/test_a.py::test_x[c  d]\n", "{filters}");
        let outcome = project.offload(&["run"]).expect_code(0);
        has_all(&outcome.stdout, &["2 tests: 2 passed"]);
    }
}

#[test]
fn a_suite_below_its_root_runs_from_its_own_folder() {
    let Some(python) = python() else { return };
    let project = Project::new()
        .file("pyproject.toml", "[tool.pytest.ini_options]\naddopts = \"-q -q\"\n")
        .file(
            "pkg/tests/test_a.py",
            "import os\ndef test_here(): assert os.path.basename(os.getcwd()) == 'pkg'\ndef test_b(): pass\n",
        )
        .config(&config(python, "", "[groups.all]\nschedule_individual = true"));
    let config = std::fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("[provider]", "[provider]\nworking_dir = \"pkg\""));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["2 tests: 2 passed"]);
    has_all(&project.offload(&["collect"]).expect_code(0).stdout, &["pkg/tests/test_a.py::test_here"]);
}

#[test]
fn the_fixture_that_writes_node_ids_into_the_report_still_serves() {
    let Some(python) = python() else { return };
    let conftest = "import pytest\n@pytest.fixture(autouse=True)\ndef _set_junit_test_id(request, record_xml_attribute):\n    \
                    record_xml_attribute('name', request.node.nodeid)\n";
    let project = Project::new()
        .file("conftest.py", conftest)
        .file("test_a.py", "import pytest\n@pytest.mark.parametrize('v', [1, 2])\ndef test_x(v): pass\n")
        .config(&config(python, "", "[groups.all]"));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["2 tests: 2 passed"]);
}

#[test]
fn a_test_that_ends_the_interpreter_is_named_and_the_others_pass() {
    let Some(python) = python() else { return };
    let tests = "import os, pytest\n@pytest.mark.parametrize('v', range(8))\ndef test_x(v):\n    if v == 5: os._exit(3)\n";
    let project = Project::new().file("test_a.py", tests).config(&config(python, "", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(
        &outcome.stdout,
        &["8 tests: 7 passed, 1 failed", "ERROR test_a.py::test_x[5]\n    the runner ended with exit code 3"],
    );
}

#[test]
fn retries_tell_flaky_from_failed_and_fail_fast_stops_pytest() {
    let Some(python) = python() else { return };
    let tests = "import os\ndef test_flaky():\n    if not os.path.exists('seen'):\n        open('seen', 'w').close(); assert False\n\
                 def test_good(): pass\n";
    let project =
        Project::new().file("test_a.py", tests).config(&config(python, "", "[groups.all]\nretry_count = 2"));
    has_all(
        &project.offload(&["run"]).expect_code(2).stdout,
        &["2 tests: 1 passed, 1 flaky", "FLAKY test_a.py::test_flaky"],
    );

    let tests = "def test_a(): assert False\ndef test_b(): open('ran', 'w')\ndef test_c(): pass\n";
    let project = Project::new().file("test_a.py", tests).config(&config(python, "", "[groups.all]"));
    let outcome = project.offload(&["run", "--parallel", "1", "--fail-fast"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 0 passed, 1 failed, 2 not run", "--fail-fast"]);
    assert!(!project.path().join("ran").exists());
}

#[test]
fn surroundings_reach_discovery_and_tests() {
    let Some(python) = python() else { return };
    let tests = "import os, shutil\nassert os.environ['FROM_FRAMEWORK'].endswith('/x')\nassert os.environ['FROM_PROVIDER'] == 'p'\n\
                 def test_env():\n    assert os.environ['FROM_FLAG'] == 'a=b'\n    assert shutil.which('tool-of-the-project')\n    \
                 assert os.path.isdir(os.environ['OFFLOAD_ROOT'])\n";
    let framework = "env = { FROM_FRAMEWORK = \"{root}/x\" }\nprepend_path = [\"{root}/bin\"]";
    let config = config(python, framework, "[groups.all]")
        .replace("type = \"local\"", "type = \"local\"\nenv = { FROM_PROVIDER = \"p\" }");
    let project = Project::new()
        .file("test_a.py", tests)
        .executable("bin/tool-of-the-project", "#!/bin/sh\n")
        .config(&config);
    has_all(
        &project.offload(&["run", "--env", "FROM_FLAG=a=b"]).expect_code(0).stdout,
        &["1 test: 1 passed"],
    );
}

#[test]
fn a_command_that_drops_its_environment_is_served_without_plugins() {
    let Some(python) = python() else { return };
    let tests = "import pytest\n@pytest.mark.parametrize('v', ['a b', 'c'])\ndef test_x(v): pass\nclass TestY:\n    \
                 def test_y(self): pass\n    def test_z(self): pass\n@pytest.mark.slow\ndef test_slow(): pass\n";
    let groups = "[groups.all]\nfilters = \"-m 'not slow'\"\n[groups.slow]\nfilters = \"-m slow\"\nschedule_individual = true";
    let plain = config(python, "", groups);
    let project = Project::new()
        .file("pytest.ini", "[pytest]\nmarkers = slow\n")
        .file("test_a.py", tests)
        .config(&plain.replace("command = \"", "command = \"env -i "));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["5 tests: 5 passed"]);
    let project = project.config(&plain.replace(" -m pytest", " -I -m pytest"));
    has_all(&project.offload(&["run"]).expect_code(4).stderr, &["must not ignore PYTHONPATH"]);
}

#[test]
fn paths_in_filters_and_selecting_arguments_run_each_listed_test_once() {
    let Some(python) = python() else { return };
    let tests = "import pytest\n@pytest.fixture(autouse=True)\ndef note(request):\n    open('ran', 'a').write(request.node.nodeid + '\\n')\n\
                 def test_a(): pass\ndef test_b(): pass\nclass TestC:\n    def test_c(self): pass\n    def test_d(self): pass\n";
    let mut project = Project::new();
    for file in ["one", "two", "three", "four"] {
        project = project.file(&format!("tests/unit/test_{file}.py"), tests);
    }
    let ran = |project: &Project| {
        let mut ran: Vec<String> =
            std::fs::read_to_string(project.path().join("ran")).unwrap().lines().map(Into::into).collect();
        std::fs::remove_file(project.path().join("ran")).unwrap();
        let total = ran.len();
        ran.sort();
        ran.dedup();
        (total, ran.len())
    };
    let project = project.config(&config(python, "", "[groups.all]\nfilters = \"tests/unit\""));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["16 tests: 16 passed"]);
    assert_eq!(ran(&project), (16, 16));
    let left_out = "discovery_args = \"--deselect=tests/unit/test_one.py::TestC::test_c --deselect=tests/unit/test_two.py::test_b\"";
    let project = project.config(&config(python, left_out, "[groups.all]"));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["14 tests: 14 passed"]);
    assert_eq!(ran(&project), (14, 14));
}

#[test]
fn folders_in_front_of_path_keep_the_path_that_is_set() {
    let Some(python) = python() else { return };
    let tests = "import shutil\ndef test_path():\n    assert shutil.which('first-tool') and shutil.which('second-tool')\n";
    let project = Project::new()
        .executable("one/first-tool", "")
        .executable("two/second-tool", "")
        .file("test_a.py", tests);
    let set = format!("env = {{ PATH = \"{}/two:/usr/bin:/bin\" }}", project.path().display());
    let framework = format!("{set}\nprepend_path = [\"{{root}}/one\"]");
    let project = project.config(&config(python, &framework, "[groups.all]"));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["1 test: 1 passed"]);
}

#[test]
fn the_command_for_a_rerun_names_what_failed_and_nothing_else() {
    let Some(python) = python() else { return };
    let tests = "import os\ndef test_bad(): assert os.environ.get('X')\ndef test_good(): pass\n";
    let settings = config(python, "", "[groups.all]\nfilters = \"-c other.ini\"");
    let project = Project::new()
        .file("other.ini", "[pytest]\npython_files = check_*.py\n")
        .file("tests/check_a.py", tests)
        .file("tests/check_b.py", "def test_b(): pass\n")
        .config(&settings.replace("-m pytest", "-m pytest tests"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 2 passed, 1 failed"]);
    let wanted =
        format!("\nrun again: {} -m pytest -c other.ini tests/check_a.py::test_bad\n", python.display());
    has_all(&outcome.stdout, &[&wanted]);
}
