//! What was listed is what runs, whatever plugins, configuration and command lines make of it.

use super::{at_each_width, config, has_all};
use crate::support::{Project, python, python_eight, python_oldest};

#[test]
fn tests_that_a_plugin_renames_numbers_or_deselects_run_as_they_were_listed() {
    let Some(python) = python_eight() else { return };
    // Each test reports under a number that depends on all tests; half of them, by chance, are deselected in each
    // collection but the first.
    let conftest = r#"
import os, random
def pytest_collection_modifyitems(config, items):
    for number, item in enumerate(items):
        item._nodeid = "%02d-%s" % (number, item.nodeid.encode().decode("unicode_escape"))
    if os.path.exists("listed"):
        gone = random.sample(items, len(items) // 2)
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]
    open("listed", "w").close()
"#;
    let tests = "import pytest\n@pytest.mark.parametrize('word', ['käse', '日本', 'plain'])\ndef test_word(word): assert word != '日本'\n\
                 def test_end(): pass\n";
    let make = || {
        let project =
            Project::new().file("conftest.py", conftest).config(&config(python, "", "[groups.all]"));
        ["a", "b", "c"].iter().fold(project, |project, name| project.file(&format!("test_{name}.py"), tests))
    };
    at_each_width(1, make, |_, outcome| {
        has_all(&outcome.stdout, &["12 tests: 9 passed, 3 failed", "FAILED 05-test_b.py::test_word[日本]"]);
    });
}

#[test]
fn a_file_that_is_named_is_collected_as_when_it_is_found() {
    let Some(python) = python() else { return };
    // In a module that a rule finds only for its doctests, `test_port` is no test.
    let module =
        "def test_port(port):\n    '''\n    >>> test_port(1)\n    True\n    '''\n    return port > 0\n";
    let make = || {
        Project::new()
            .file("pytest.ini", "[pytest]\naddopts = --doctest-modules\ntestpaths = lib tests\n")
            .file("lib/net/__init__.py", "")
            .file("lib/net/probe.py", module)
            .file("lib/net/other.py", "'''\n>>> 1 + 1\n2\n'''\n")
            .file("tests/test_a.py", "def test_a(): pass\ndef test_b(): pass\n")
            .config(&config(python, "", "[groups.all]"))
    };
    at_each_width(0, make, |_, outcome| has_all(&outcome.stdout, &["4 tests: 4 passed"]));
}

#[test]
fn the_same_id_in_two_projects_of_a_repository_is_two_tests() {
    for python in [python(), python_eight(), python_oldest()].into_iter().flatten() {
        let project = |name: &str| format!("[pytest]\nmarkers = {name}\naddopts = --strict-markers\n");
        let tests = |name: &str, body: &str| {
            format!("import pytest\n@pytest.mark.{name}\ndef test_up(): {body}\ndef test_down(): pass\n")
        };
        let groups = "[groups.one]\nfilters = \"apps/one\"\n[groups.two]\nfilters = \"apps/two\"";
        let make = || {
            Project::new()
                .file("apps/one/pytest.ini", &project("one"))
                .file("apps/two/pytest.ini", &project("two"))
                .file("apps/one/tests/test_it.py", &tests("one", "pass"))
                .file("apps/two/tests/test_it.py", &tests("two", "assert False, 'it is down'"))
                .file("apps/two/tests/test_more.py", "def test_more(): pass\n")
                .config(&config(python, "", groups))
        };
        at_each_width(1, make, |project, outcome| {
            has_all(
                &outcome.stdout,
                &["5 tests: 4 passed, 1 failed", "FAILED two/tests/test_it.py::test_up", "it is down"],
            );
            let report = std::fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
            has_all(&report, &["one/tests/test_it.py::test_up", "\"tests/test_more.py::test_more\""]);
        });
    }
}

#[test]
fn groups_that_only_select_share_a_test_and_other_options_make_it_two() {
    let Some(python) = python() else { return };
    let conftest = "def pytest_addoption(parser):\n    parser.addoption('--db', default='none')\n";
    let tests = "def test_db(request): assert request.config.getoption('--db') != 'broken'\n";
    let run = |groups: &str, code| {
        let project = Project::new().file("conftest.py", conftest).file("tests/test_a.py", tests);
        project.config(&config(python, "", groups)).offload(&["run"]).expect_code(code).stdout
    };
    let select =
        "[groups.a]\nfilters = \"-k db tests\"\n[groups.b]\nfilters = \"tests/test_a.py --ignore=other\"";
    has_all(&run(select, 0), &["1 test: 1 passed"]);
    let other = "[groups.a]\nfilters = \"--db=fine\"\n[groups.b]\nfilters = \"--db broken\"";
    has_all(&run(other, 1), &["2 tests: 1 passed, 1 failed", "FAILED b/tests/test_a.py::test_db"]);
}

#[test]
fn a_configuration_elsewhere_and_options_of_one_folder_are_those_of_the_listing() {
    for python in [python(), python_eight(), python_oldest()].into_iter().flatten() {
        let make = || {
            let config = config(python, "paths = [\"checks\", \"more\"]", "[groups.all]");
            Project::new()
                .file("settings/pytest.ini", "[pytest]\naddopts = --stage=late\n")
                // Only this folder knows the option.
                .file("checks/conftest.py", "def pytest_addoption(parser): parser.addoption('--stage')\n")
                .file("checks/test_one.py", "def test_a(): pass\ndef test_b(): assert 0, 'b'\n")
                .file("more/test [x].py", "def test_no(): pass\n")
                .file(
                    "more/[odd] folder/test_two.py",
                    "def test_a(request): assert request.config.getoption('--stage') == 'late'\n",
                )
                .config(&config.replace("-m pytest", "-m pytest -c settings/pytest.ini"))
        };
        at_each_width(1, make, |_, outcome| {
            has_all(&outcome.stdout, &["3 tests: 2 passed, 1 failed", "test_one.py::test_b"]);
        });
    }
}

#[test]
fn paths_in_addopts_command_and_environment_run_each_test_once() {
    let Some(python) = python() else { return };
    let tests = "import time\ndef test_a(request):\n    time.sleep(0.1)\n    open('ran', 'a').write(request.node.nodeid + '\\n')\n\
                 def test_b(request): open('ran', 'a').write(request.node.nodeid + '\\n')\n";
    let plain = config(python, "", "[groups.all]");
    let with_paths = [
        ("[pytest]\naddopts = -ra tests\n", plain.clone(), ""),
        ("[pytest]\n", plain.replace("-m pytest", "-m pytest tests"), ""),
        (
            "[pytest]\n",
            plain.replace("-m pytest", "-m pytest tests/test_1.py::test_a tests/test_2.py tests/test_3.py"),
            "x",
        ),
        ("[pytest]\n", plain, "tests -k 'test_a or test_b'"),
    ];
    for (ini, config, environment) in with_paths {
        let make = || {
            let project =
                Project::new().file("pytest.ini", ini).file("other/test_x.py", "def test_x(): assert 0\n");
            let project = ["1", "2", "3"]
                .iter()
                .fold(project, |project, name| project.file(&format!("tests/test_{name}.py"), tests));
            let project = project.config(&config);
            if environment.len() > 1 { project.env("PYTEST_ADDOPTS", environment) } else { project }
        };
        let count = if environment == "x" { 5 } else { 6 };
        at_each_width(0, make, |project, outcome| {
            has_all(&outcome.stdout, &[&format!("{count} tests: {count} passed")]);
            let ran = std::fs::read_to_string(project.path().join("ran")).unwrap();
            let mut ran: Vec<&str> = ran.lines().collect();
            assert_eq!(ran.len(), count);
            ran.sort_unstable();
            ran.dedup();
            assert_eq!(ran.len(), count);
        });
    }
}

#[test]
fn ids_that_change_are_told_as_exactly_that() {
    let Some(python) = python() else { return };
    let tests = "import uuid, pytest\n@pytest.mark.parametrize('key', [str(uuid.uuid4())])\ndef test_key(key): pass\n\
                 def test_plain(): pass\n";
    let make = || Project::new().file("test_ids.py", tests).config(&config(python, "", "[groups.all]"));
    at_each_width(1, make, |_, outcome| {
        has_all(
            &outcome.stdout,
            &["2 tests: 1 passed, 1 not run", "ids change of `test_ids.py` from one collection"],
        );
    });
}

#[test]
fn where_the_project_goes_on_beside_a_broken_file_the_rest_runs_and_the_file_is_an_error() {
    for python in [python(), python_oldest()].into_iter().flatten() {
        let make = || {
            Project::new()
                .file("pytest.ini", "[pytest]\naddopts = --continue-on-collection-errors\n")
                .file("test_good.py", "def test_a(): pass\ndef test_b(): pass\n")
                .file("test_bad.py", "import nowhere_to_be_found\n")
                .config(&config(python, "", "[groups.all]"))
        };
        at_each_width(1, make, |_, outcome| {
            has_all(&outcome.stdout, &["2 tests: 2 passed", "test_bad.py", "nowhere_to_be_found"]);
        });
    }
}

#[test]
fn a_plugin_that_ends_a_listing_with_an_error_does_not_hide_the_list() {
    let Some(python) = python() else { return };
    let conftest = "def pytest_sessionfinish(session):\n    if session.config.option.collectonly: session.exitstatus = 1\n";
    let project = Project::new()
        .file("conftest.py", conftest)
        .file("test_a.py", "def test_a(): pass\n")
        .config(&config(python, "", "[groups.all]"));
    has_all(&project.offload(&["run"]).expect_code(0).stdout, &["1 test: 1 passed"]);
}
