//! What the plugin tells of tests, and of what goes wrong outside them.

use super::{at_each_width, config, has_all};
use crate::support::{Project, python, python_eight, python_oldest, python_plugins};

fn project(python: &std::path::Path, tests: &str) -> Project {
    Project::new().file("test_a.py", tests).config(&config(python, "", "[groups.all]"))
}

fn junit(project: &Project) -> String {
    std::fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap()
}

#[test]
fn a_test_whose_subtests_fail_has_failed_and_keeps_the_texts_of_all() {
    let Some(python) = python() else { return };
    let tests = "import unittest\ndef test_parts(subtests):\n    for part in range(3):\n        with subtests.test('part', part=part):\n            \
                 assert part == 1, f'bad part {part}'\n\
                 class TestOld(unittest.TestCase):\n    def test_old(self):\n        with self.subTest(x=1): self.fail('old bad')\n    \
                 def test_fine(self):\n        with self.subTest(x=1): pass\n";
    let project = project(python, tests);
    has_all(
        &project.offload(&["run"]).expect_code(1).stdout,
        &["3 tests: 1 passed, 2 failed", "bad part 0", "old bad"],
    );
    has_all(&junit(&project), &["bad part 0", "bad part 2"]);
}

#[test]
fn names_for_the_report_are_decoration_and_properties_reach_it() {
    for python in [python(), python_oldest()].into_iter().flatten() {
        let conftest = "import pytest\n@pytest.fixture(autouse=True)\ndef named(request, record_xml_attribute, record_property, record_testsuite_property):\n    \
                        record_xml_attribute('name', 'the same')\n    record_xml_attribute('classname', 'Cases')\n    \
                        record_property('ticket', 'T-1')\n    record_testsuite_property('rig', 'R-2')\n";
        let make =
            || project(python, "def test_a(): pass\ndef test_b(): assert 0\n").file("conftest.py", conftest);
        at_each_width(1, make, |project, outcome| {
            has_all(&outcome.stdout, &["2 tests: 1 passed, 1 failed", "FAILED test_a.py::test_b"]);
            has_all(
                &junit(project),
                &["name=\"ticket\" value=\"T-1\"", "name=\"rig\" value=\"R-2\"", "file=\"test_a.py\""],
            );
        });
    }
}

#[test]
fn a_test_that_ends_the_session_is_named_and_the_others_run() {
    for python in [python(), python_oldest()].into_iter().flatten() {
        let tests = "import pytest\ndef test_a(): pass\ndef test_end(): pytest.exit('the rig is gone', returncode=9)\n\
                     def test_b(): pass\ndef test_c(): assert 0\n";
        at_each_width(
            1,
            || project(python, tests),
            |_, outcome| {
                has_all(
                    &outcome.stdout,
                    &["4 tests: 2 passed, 2 failed", "ERROR test_a.py::test_end", "the rig is gone"],
                );
                assert!(!outcome.stdout.contains("not discovered"));
            },
        );
    }
}

#[test]
fn hooks_that_raise_and_plugins_that_change_the_status_are_errors_of_the_run() {
    let hooks = [
        (
            "def pytest_sessionfinish(session):\n    if not session.config.option.collectonly: raise OSError('no server')\n",
            "no server",
        ),
        (
            "def pytest_sessionfinish(session):\n    if not session.config.option.collectonly: session.exitstatus = 1\n",
            "exit status",
        ),
        (
            "def pytest_runtest_logreport(report):\n    if report.when == 'call' and 'late' in report.nodeid: raise OSError('no disk')\n",
            "no disk",
        ),
        (
            "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtestloop(session):\n    yield\n    \
             session.testsfailed += not session.config.option.collectonly\n",
            "more failure",
        ),
    ];
    for python in [python(), python_oldest()].into_iter().flatten() {
        for (hook, text) in hooks {
            let tests = "import os\ndef test_flaky():\n    if not os.path.exists('seen'):\n        open('seen', 'w').close()\n        \
                         assert False\ndef test_late(): pass\n";
            let project = project(python, tests).file("conftest.py", hook).config(&config(
                python,
                "",
                "[groups.all]\nretry_count = 1",
            ));
            // The failure that explains the status of the batch goes away, what happened besides does not.
            has_all(&project.offload(&["run"]).expect_code(1).stdout, &[text]);
        }
    }
}

#[test]
fn a_test_that_a_plugin_runs_again_is_flaky_with_the_message_of_its_failure() {
    let Some(python) = python_plugins() else { return };
    let tests = "import pytest\nruns = []\n@pytest.mark.flaky(reruns=2)\ndef test_third(subtests):\n    runs.append(1)\n    \
                 with subtests.test('inner'): assert len(runs) != 1, 'inner is bad'\n    assert len(runs) == 3, 'not yet'\n\
                 @pytest.mark.flaky(reruns=1)\ndef test_never(): assert 0, 'never'\n@pytest.mark.flaky(reruns=1)\ndef test_fine(): pass\n";
    let project = project(python, tests);
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 1 passed, 1 failed, 1 flaky", "FLAKY test_a.py::test_third"]);
    assert!(!outcome.stdout.contains("ERROR"), "{}", outcome.stdout);
    has_all(&junit(&project), &["<flakyFailure", "inner is bad"]);
}

#[test]
fn what_a_hanging_test_leaves_is_known_when_it_takes_its_process_with_it() {
    let Some(python) = python_plugins() else { return };
    let tests = "import time\ndef ran(name): open('ran', 'a').write(name)\ndef test_a(): ran('a')\n\
                 def test_hang(): time.sleep(60)\ndef test_b(): ran('b')\ndef test_c():\n    ran('c')\n    assert 0\n";
    let make =
        || project(python, tests).file("pytest.ini", "[pytest]\ntimeout = 1\ntimeout_method = thread\n");
    at_each_width(1, make, |project, outcome| {
        has_all(&outcome.stdout, &["4 tests: 2 passed, 2 failed", "ERROR test_a.py::test_hang"]);
        let mut ran: Vec<u8> = std::fs::read(project.path().join("ran")).unwrap();
        ran.sort_unstable();
        assert_eq!(ran, b"abc", "each ran once");
    });
}

#[test]
fn tests_see_the_environment_and_run_pytest_as_if_no_plugin_were_there() {
    for python in [python(), python_eight(), python_oldest()].into_iter().flatten() {
        let tests = "import os, subprocess, sys\npytest_plugins = ['pytester']\n\
                     def test_clean(): assert not [name for name in os.environ if name in ('PYTHONPATH', 'PYTEST_PLUGINS', 'OFFLOAD_PYTEST')]\n\
                     def test_inside(pytester):\n    pytester.makepyfile('def test_x(): assert 0')\n    \
                     pytester.runpytest_inprocess().assert_outcomes(failed=1)\n    pytester.runpytest_subprocess().assert_outcomes(failed=1)\n\
                     def test_closed():\n    for name in os.listdir('/proc/self/fd'):\n        path = os.path.join('/proc/self/fd', name)\n        \
                     if os.path.exists(path) and os.readlink(path).endswith('.jsonl'): os.close(int(name))\ndef test_forked():\n    if os.fork() == 0: raise SystemExit(3)\n    \
                     assert os.waitstatus_to_exitcode(os.wait()[1]) != 0\ndef test_last(): pass\n";
        has_all(
            &project(python, tests).offload(&["run", "-p", "1"]).expect_code(0).stdout,
            &["5 tests: 5 passed"],
        );
    }
}
