//! Tests that rely on each other run in one batch, in order, also when they run again.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{Project, nextest, python, python_plugins, sample};

fn config(python: &Path, group: &str) -> String {
    format!(
        "[provider]\ntype = \"local\"\n[framework]\ntype = \"pytest\"\ncommand = \"{} -m pytest\"\n\
         [groups.all]\n{group}\n",
        python.display()
    )
}

/// Each class counts up from test to test, and the functions beside them count with the module.
const STEPS: &str = "\
class TestOne:
    steps = []
    def test_a(self): self.steps.append('a')
    def test_b(self): self.steps.append('b'); assert self.steps == ['a', 'b']
    def test_c(self): self.steps.append('c'); assert self.steps == ['a', 'b', 'c']

class TestTwo:
    steps = []
    def test_a(self): self.steps.append('a')
    def test_b(self): self.steps.append('b'); assert self.steps == ['a', 'b']
    def test_c(self): self.steps.append('c'); assert self.steps == ['a', 'b', 'c']
";

/// Each file counts up through all its tests.
const FILE: &str = "\
steps = []
class TestOne:
    def test_a(self): steps.append('a')
    def test_b(self): steps.append('b'); assert steps == ['a', 'b']
def test_c(): steps.append('c'); assert steps == ['a', 'b', 'c']
def test_d(): assert steps == ['a', 'b', 'c']
";

#[test]
fn classes_and_files_of_pytest_are_kept_whole_where_the_configuration_says_so() {
    let Some(python) = python() else { return };
    for (text, kept, tests) in [(STEPS, "class", 12), (FILE, "file", 8)] {
        let project = || Project::new().file("test_one.py", text).file("test_two.py", text);
        let apart = project().config(&config(python, ""));
        apart.offload(&["run", "--parallel", "8"]).expect_code(1);
        let project = project().config(&config(python, &format!("keep_together = \"{kept}\"")));
        for parallel in sample(&["8", "2", "1"]) {
            let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(0);
            assert!(outcome.stdout.contains(&format!("{tests} tests: {tests} passed")), "{}", outcome.stdout);
        }
    }
}

#[test]
fn what_pytest_dependency_marks_runs_as_with_pytest_alone() {
    let Some(python) = python_plugins() else { return };
    let test = |name: &str, depends: &str, body: &str| {
        format!("@pytest.mark.dependency({depends})\ndef {name}(): {body}\n")
    };
    let tests = [
        "import os, pytest\n".to_owned(),
        test("test_create", "", "pass"),
        test("test_read", "depends=['test_create']", "pass"),
        test("test_update", "depends=['test_read']", "pass"),
        test("test_delete", "depends=['test_update']", "assert False"),
    ];
    let project = Project::new().file("test_chain.py", &tests.concat()).config(&config(python, ""));
    for parallel in sample(&["4", "1", "2"]) {
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        assert!(outcome.stdout.contains("4 tests: 3 passed, 1 failed in"), "{}", outcome.stdout);
    }
}

#[test]
fn a_retry_brings_along_what_its_test_depends_on() {
    let Some(python) = python_plugins() else { return };
    let tests = "\
import os, pytest

def count(name):
    with open(name, 'a') as file: file.write('x')
    return os.path.getsize(name)

@pytest.mark.dependency()
def test_create(): count('created')

@pytest.mark.dependency(depends=['test_create'])
def test_read(): assert count('read') > 1

@pytest.mark.dependency()
def test_other(): count('other')

def test_alone(): count('alone')
";
    let project = Project::new().file("test_chain.py", tests).config(&config(python, "retry_count = 1"));
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(2);
    assert!(outcome.stdout.contains("4 tests: 3 passed, 1 flaky in"), "{}", outcome.stdout);
    let counts =
        ["created", "read", "other", "alone"].map(|name| project.path().join(name).metadata().unwrap().len());
    assert_eq!(counts, [2, 2, 1, 1]);
    let report = std::fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
    assert_eq!(report.matches("::test_create\"").count(), 1, "{report}");
}

#[test]
fn modules_of_nextest_are_planned_as_a_whole() {
    let Some(directory) = nextest() else { return };
    let module = |name: &str| {
        let tests: String = (0..4).map(|number| format!("#[test]\nfn t{number}() {{}}\n")).collect();
        format!("#[cfg(test)]\nmod {name} {{\n{tests}}}\n")
    };
    let library = ["one", "two", "three"].map(module).concat();
    let manifest = "[package]\nname = \"alpha\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    let config = |group: &str| {
        format!("[provider]\ntype = \"local\"\n[framework]\ntype = \"nextest\"\n[groups.all]\n{group}\n")
    };
    let project = Project::new().tool(directory).file("Cargo.toml", manifest).file("src/lib.rs", &library);
    // For each batch, the modules of its tests.
    let modules = |group: &str| {
        std::fs::write(project.path().join("offload.toml"), config(group)).unwrap();
        let outcome = project.offload(&["plan", "--parallel", "4", "--format", "json"]).expect_code(0);
        let plan: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let batches = plan["batches"].as_array().unwrap().iter();
        let sets = batches.map(|batch| {
            let ids = batch["tests"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
            ids.map(|id| id.rsplit_once("::").unwrap().0.to_owned()).collect::<BTreeSet<String>>()
        });
        sets.map(|set| set.len()).sum::<usize>()
    };
    assert!(modules("") > 3);
    assert_eq!(modules("keep_together = \"class\""), 3);
}
