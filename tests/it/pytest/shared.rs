//! What batches that run side by side share: names, folders, what pytest remembers, and coverage.

use std::process::Command;

use super::{at_each_width, config, has_all};
use crate::support::{Project, python, python_oldest, python_plugins};

#[test]
fn batches_side_by_side_have_their_own_base_folders() {
    for python in [python(), python_oldest()].into_iter().flatten() {
        let tests = "import time\ndef test_a(tmp_path):\n    for count in range(5):\n        (tmp_path / 'x').write_text(str(count))\n        \
                     time.sleep(0.1)\n        assert (tmp_path / 'x').read_text() == str(count)\n\
                     def test_b(tmp_path_factory): assert tmp_path_factory.mktemp('y').is_dir()\n";
        let make = || {
            let project =
                Project::new().file("pytest.ini", "[pytest]\naddopts = --basetemp=.scratch/tests\n");
            let project = project.file(".scratch/keep", "").config(&config(python, "", "[groups.all]"));
            ["1", "2", "3", "4"]
                .iter()
                .fold(project, |project, name| project.file(&format!("test_{name}.py"), tests))
        };
        at_each_width(0, make, |_, outcome| has_all(&outcome.stdout, &["8 tests: 8 passed"]));
    }
}

#[test]
fn suites_made_for_xdist_find_the_number_of_their_worker() {
    let Some(python) = python_plugins() else { return };
    let conftest = r#"
import os, pytest
@pytest.fixture(scope="session")
def database(worker_id, testrun_uid, request, tmp_path_factory):
    number = os.environ["OFFLOAD_SANDBOX"]
    if os.environ["OFFLOAD_SANDBOXES"] != "1":
        assert worker_id == request.config.workerinput["workerid"] == os.environ["PYTEST_XDIST_WORKER"] == "gw" + number
        assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == os.environ["OFFLOAD_SANDBOXES"]
        assert testrun_uid == os.environ["PYTEST_XDIST_TESTRUNUID"]
        assert tmp_path_factory.getbasetemp().name == "popen-" + worker_id
    open("uids", "a").write(os.environ.get("PYTEST_XDIST_TESTRUNUID", "none") + "\n")
    handle = os.open("database-" + worker_id, os.O_CREAT | os.O_EXCL)
    yield
    os.close(handle)
    os.unlink("database-" + worker_id)
@pytest.fixture(scope="session")
def tables(request):
    request.getfixturevalue("database")
    assert os.environ["OFFLOAD_SANDBOXES"] == "1" or request.config.workerinput
"#;
    let tests = "import time\ndef test_a(tables, request):\n    time.sleep(0.3)\n    assert not hasattr(request.config, 'workerinput')\n\
                 def test_b(database): time.sleep(0.3)\n";
    let make = || {
        let project =
            Project::new().file("conftest.py", conftest).config(&config(python, "", "[groups.all]"));
        ["1", "2", "3", "4"]
            .iter()
            .fold(project, |project, name| project.file(&format!("test_{name}.py"), tests))
    };
    at_each_width(0, make, |project, outcome| {
        has_all(&outcome.stdout, &["8 tests: 8 passed"]);
        let uids = std::fs::read_to_string(project.path().join("uids")).unwrap();
        let mut uids: Vec<&str> = uids.lines().collect();
        uids.dedup();
        assert_eq!(uids.len(), 1, "one run");
    });
}

#[test]
fn pytest_knows_afterwards_what_failed_in_the_whole_run() {
    for python in [python(), python_oldest()].into_iter().flatten() {
        let tests = "import os, time\ndef test_bad():\n    time.sleep(0.2)\n    assert os.path.exists('mended')\ndef test_fine(): pass\n\
                     def test_gone(): os.path.exists('mended') or os._exit(3)\n";
        let make = || {
            let project = Project::new().config(&config(python, "", "[groups.all]"));
            ["1", "2", "3"]
                .iter()
                .fold(project, |project, name| project.file(&format!("test_{name}.py"), tests))
        };
        let last_failed = |project: &Project| {
            let mut command: Command = project.command(python);
            command.args(["-m", "pytest", "--lf", "--lfnf=none", "--collect-only", "-q"]);
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            output.lines().filter(|line| line.contains("::")).map(str::to_owned).collect::<Vec<_>>()
        };
        at_each_width(1, make, |project, outcome| {
            has_all(&outcome.stdout, &["9 tests: 3 passed, 6 failed"]);
            let mut failed = last_failed(project);
            failed.sort_unstable();
            let names = ["1", "2", "3"]
                .iter()
                .flat_map(|name| ["bad", "gone"].map(|test| format!("test_{name}.py::test_{test}")));
            assert_eq!(failed, names.collect::<Vec<_>>());
            assert!(project.path().join(".pytest_cache/.gitignore").exists());
            std::fs::write(project.path().join("mended"), "").unwrap();
            project.offload(&["run"]).expect_code(0);
            assert_eq!(last_failed(project), [""; 0]);
        });
    }
}

#[test]
fn coverage_is_that_of_the_whole_run_and_judged_once() {
    let Some(python) = python_plugins() else { return };
    let make = |least: u32| {
        let ini = format!(
            "[pytest]\npythonpath = .\naddopts = --cov=shop --cov-report=term --cov-report=xml --cov-fail-under={least}\n"
        );
        let project = Project::new().file("pytest.ini", &ini).config(&config(python, "", "[groups.all]"));
        let project = project.file("shop/__init__.py", "").file("shop/never.py", "x = 1\ny = 2\nz = 3\n");
        ["add", "sub", "mul"].iter().fold(project, |project, name| {
            let tests = format!("import time\ndef test_a():\n    from shop import {name}\n    time.sleep(0.2)\n    assert {name}.work() == 1\n\
                                 def test_b(): pass\n");
            project
                .file(&format!("shop/{name}.py"), "def work():\n    one = 1\n    return one\n")
                .file(&format!("tests/test_{name}.py"), &tests)
        })
    };
    at_each_width(
        0,
        || make(75),
        |project, outcome| {
            has_all(&outcome.stdout, &["6 tests: 6 passed", "Total coverage: 75.00%", "shop/never.py"]);
            assert!(project.path().join("coverage.xml").exists());
            let data = std::fs::read_dir(project.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let data = data.filter(|name| name.to_string_lossy().starts_with(".coverage"));
            assert_eq!(data.collect::<Vec<_>>(), [".coverage"]);
        },
    );
    at_each_width(
        1,
        || make(76),
        |_, outcome| {
            has_all(
                &outcome.stdout,
                &["6 tests: 6 passed", "total coverage is 75.00 %, less than the required 76 %"],
            );
        },
    );
}

#[test]
fn coverage_run_writes_one_data_file_for_the_whole_run() {
    let Some(python) = python_plugins() else { return };
    let coverage = |project: &Project, words: &str| {
        let mut command = project.command(python);
        command.args(["-m", "coverage"]).args(words.split(' '));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let data_files = |project: &Project| {
        let files = std::fs::read_dir(project.path()).unwrap();
        let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".coverage") && name != ".coveragerc").count()
    };
    // Without `--source` everything counts that is not installed; with `-p` each process has a file.
    for (options, processes) in [("--branch", ""), ("--source=shop", ""), ("-p", "parallel = true\n")] {
        let command = format!("\"{} -m coverage run {options} -m pytest\"", python.display());
        let plain = format!("\"{} -m pytest\"", python.display());
        let make = || {
            let project = Project::new()
                .config(&config(python, "", "[groups.all]").replace(&plain, &command))
                .file(".coveragerc", &format!("[run]\n{processes}"))
                .file("conftest.py", "def pytest_unconfigure(): print('over')\n")
                .file("shop/__init__.py", "")
                .file("shop/never.py", "x = 1\ny = 2\n");
            ["add", "sub", "mul"].iter().fold(project, |project, name| {
                let tests = format!(
                    "import time\ndef test_a():\n    from shop import {name}\n    time.sleep(0.2)\n    assert {name}.work(1) == 1\n\
                     def test_b(): pass\n"
                );
                let work = "def work(one):\n    if one:\n        return one\n    return 2\n";
                project
                    .file(&format!("shop/{name}.py"), work)
                    .file(&format!("tests/test_{name}.py"), &tests)
            })
        };
        let report = |project: &Project| {
            assert_eq!(data_files(project), 1, "{options}");
            if !processes.is_empty() {
                coverage(project, "combine");
            }
            coverage(project, "report -m")
        };
        let project = make();
        coverage(&project, &format!("run {options} -m pytest"));
        let expected = report(&project);
        has_all(&expected, &["shop/add.py", "TOTAL"]);
        at_each_width(0, make, |project, outcome| {
            has_all(&outcome.stdout, &["6 tests: 6 passed"]);
            assert_eq!(report(project), expected, "{options}");
        });
        let project = make();
        project.offload(&["collect"]).expect_code(0);
        assert_eq!(data_files(&project), 0, "a listing measures nothing");
    }
}

#[test]
fn snapshots_of_other_batches_are_not_unused() {
    let Some(python) = python_plugins() else { return };
    // One file has its snapshots where another is looked for, and one is long enough to be divided.
    let tests = "def test_one(snapshot): assert {'a': 1} == snapshot\ndef test_two(snapshot): assert [1, 2] == snapshot\n";
    let elsewhere = "from pathlib import Path\nfrom syrupy.extensions.json import JSONSnapshotExtension\n\
                     class Elsewhere(JSONSnapshotExtension):\n    @classmethod\n    def dirname(cls, *, test_location):\n        \
                     return str(Path(test_location.filepath).parent / '__snapshots__' / 'v1')\n\
                     def test_else(snapshot): assert 1 == snapshot.use_extension(Elsewhere)\n";
    let many = "import pytest, time\n@pytest.mark.parametrize('n', range(12))\ndef test_many(snapshot, n):\n    \
                time.sleep(0.1)\n    assert n == snapshot\n";
    let make = || {
        let project = Project::new().config(&config(python, "", "[groups.all]"));
        let project = ["1", "2", "3"]
            .iter()
            .fold(project, |project, name| project.file(&format!("test_{name}.py"), tests));
        let project = project.file("test_else.py", elsewhere).file("test_many.py", many);
        let written =
            project.command(python).args(["-m", "pytest", "-q", "--snapshot-update"]).output().unwrap();
        assert!(written.status.success(), "{written:?}");
        project
    };
    at_each_width(0, make, |_, outcome| has_all(&outcome.stdout, &["19 tests: 19 passed"]));
    let orphaned = || {
        let project = make();
        std::fs::remove_file(project.path().join("test_2.py")).unwrap();
        project.file("test_many.py", &many.replace("12", "11"))
    };
    at_each_width(1, orphaned, |_, outcome| {
        has_all(
            &outcome.stdout,
            &["16 tests: 16 passed", "3 snapshots are unused", "test_many.ambr: test_many[11]"],
        );
    });
    let fewer = "def test_one(snapshot): assert {'a': 1} == snapshot\ndef test_x(): assert 0\n";
    let outcome = make().file("test_2.py", fewer).offload(&["run", "--parallel", "1"]).expect_code(1);
    has_all(&outcome.stdout, &["19 tests: 18 passed, 1 failed", "1 snapshot is unused"]);
}
