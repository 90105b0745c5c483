//! Verdicts do not depend on how a suite is divided: small suites are drawn, and each is run by pytest alone and with
//! one, two and four sandboxes. Every test has the same outcome each time.
//!
//! `OFFLOAD_TESTS=full` draws more suites. A failure names the seed of its suite; `OFFLOAD_SUITE=SEED` draws that
//! suite alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use offload::internals::junit::{Caps, Word, read_merged};

use crate::support::{Project, is_full, python, sample};

/// Tells of each test that pytest runs alone how it ended.
const TELL: &str = r#"
import json, os

class Tell:
    def __init__(self):
        self.words = {}

    def pytest_runtest_logreport(self, report):
        expected = hasattr(report, "wasxfail")
        word = "expected" if expected and report.skipped else report.outcome
        if report.failed and report.when != "call":
            word = "error"
        if report.when == "call" or word != "passed":
            self.words[report.nodeid] = word

    def pytest_sessionfinish(self, session):
        with open(os.environ["TOLD"], "w") as file:
            json.dump([int(session.exitstatus), self.words], file)

def pytest_configure(config):
    config.pluginmanager.register(Tell())
"#;

/// Random numbers (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// What the names, the order and the number of tests may depend on.
const HOOKS: &[&str] = &[
    "",
    "",
    "def pytest_collection_modifyitems(items):\n    items.reverse()\n",
    "def pytest_collection_modifyitems(config, items):\n    out = [item for item in items if 'left_out' in item.keywords]\n\
     \x20   config.hook.pytest_deselected(items=out)\n    items[:] = [item for item in items if item not in out]\n",
    "def pytest_collection_modifyitems(items):\n    for item in items:\n        item._nodeid = item.nodeid.replace('test_', 'case_')\n",
    // What it drops depends on what else is collected.
    "def pytest_collection_modifyitems(items):\n    if len(items) > 3: del items[3]\n",
    "def pytest_itemcollected(item):\n    item._nodeid = item._nodeid + ' @' + item.name[-1]\n",
    "import pytest\n@pytest.fixture(autouse=True)\ndef named(record_xml_attribute):\n    record_xml_attribute('name', 'same')\n",
    "import pytest\n@pytest.hookimpl(tryfirst=True)\ndef pytest_collection_modifyitems(items):\n    items.sort(key=lambda item: item.name)\n",
];

const BODIES: &[&str] = &[
    "pass",
    "pass",
    "pass",
    "assert False, 'no'",
    "pytest.skip('not now')",
    "pytest.xfail('known')",
    "print('x'); raise ValueError('é')",
];
const MARKS: &[&str] = &[
    "",
    "",
    "",
    "@pytest.mark.left_out",
    "@pytest.mark.slow",
    "@pytest.mark.xfail",
    "@pytest.mark.skipif(True, reason='never')",
    "@pytest.mark.usefixtures('broken')",
];
const PARAMETERS: &[&str] = &["", "", "[1, 2]", "['a b', '[x]', 'é']", "[None, 1.5]", "['x::y', 'a/b']"];

fn test(dice: &mut Dice, number: usize, indent: &str) -> String {
    let mut text = String::new();
    let mark = dice.pick(MARKS);
    if !mark.is_empty() {
        writeln!(text, "{indent}{mark}").unwrap();
    }
    let values = dice.pick(PARAMETERS);
    let own = if indent.is_empty() { "" } else { "self, " };
    let value = if values.is_empty() { "value=0" } else { "value" };
    if !values.is_empty() {
        writeln!(text, "{indent}@pytest.mark.parametrize('value', {values})").unwrap();
    }
    writeln!(text, "{indent}def test_{number}({own}{value}):\n{indent}    {}", dice.pick(BODIES)).unwrap();
    text
}

/// A file of tests.
fn module(dice: &mut Dice) -> String {
    let mut text =
        "import pytest\n\n@pytest.fixture\ndef broken():\n    raise RuntimeError('broken')\n".to_owned();
    for number in 0..=dice.below(3) {
        if dice.below(3) == 0 {
            writeln!(text, "class TestC{number}:").unwrap();
            for inner in 0..=dice.below(2) {
                text += &test(dice, usize::try_from(inner).unwrap(), "    ");
            }
        } else {
            text += &test(dice, usize::try_from(number).unwrap(), "");
        }
    }
    text
}

/// A suite of one or two roots: their names, which are those of their groups, too, and their filters.
fn draw(dice: &mut Dice, mut project: Project, python: &Path) -> (Project, Vec<(String, String)>) {
    let mut roots = Vec::new();
    let mut groups = String::new();
    let selects = dice.pick(&["", "", "-m 'not slow'", "-k 'not test_1'"]);
    for number in 0..=dice.below(2) {
        let root = format!("r{number}");
        let hook = dice.pick(HOOKS);
        let below = dice.pick(&["", "tests/", "tests/deep/"]);
        for file in 0..=dice.below(4) {
            project = project.file(&format!("{root}/{below}test_m{file}.py"), &module(dice));
        }
        let options = dice.pick(&["", "addopts = -v -v\n", "addopts = -p no:cacheprovider\n"]);
        project = project
            .file(
                &format!("{root}/pytest.ini"),
                &format!("[pytest]\nmarkers =\n    slow\n    left_out\n{options}"),
            )
            .file(&format!("{root}/conftest.py"), hook);
        writeln!(groups, "[groups.{root}]\nfilters = \"{selects} {root}\"").unwrap();
        roots.push((root, selects.to_owned()));
    }
    let config = format!(
        "[provider]\ntype = \"local\"\n[framework]\ntype = \"pytest\"\ncommand = \"{} -m pytest\"\n{groups}",
        python.display()
    );
    (project.config(&config), roots)
}

/// How each test ends where pytest runs alone, by the name of its group and its ID, and whether all is well.
fn alone(project: &Project, roots: &[(String, String)], python: &Path) -> (BTreeMap<String, String>, bool) {
    let (mut words, mut is_fine) = (BTreeMap::new(), true);
    for (root, selects) in roots {
        let told = project.path().join("told.json");
        let mut command = project.command(python);
        command
            .args(["-m", "pytest", "-q", "-p", "tell"])
            .args(shell_words::split(selects).unwrap())
            .arg(root);
        command.env("PYTHONPATH", project.path()).env("TOLD", &told);
        let done = command.output().unwrap();
        let told = std::fs::read_to_string(&told).unwrap_or_else(|_| panic!("{done:?}"));
        let (status, outcomes): (i32, BTreeMap<String, String>) = serde_json::from_str(&told).unwrap();
        is_fine &= matches!(status, 0 | 5);
        words.extend(outcomes.into_iter().map(|(id, word)| (format!("{root} {id}"), word)));
    }
    (words, is_fine)
}

/// The same from our report.
fn reported(
    project: &Project,
    roots: &[(String, String)],
    known: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let file = File::open(project.path().join("test-results/junit.xml")).unwrap();
    let mut words = BTreeMap::new();
    read_merged(file, Caps::default(), &mut |test| {
        let word = match test.word {
            Word::Passed => "passed",
            Word::Failed => "failed",
            Word::Errored => "error",
            Word::Skipped => "skipped",
            Word::ExpectedFailure => "expected",
            other => panic!("{}: {other:?}", test.id),
        };
        // An ID that both roots have comes with its group.
        let named = roots.iter().find_map(|(root, _)| {
            let id = test
                .id
                .strip_prefix(&format!("{root}/"))
                .filter(|id| known.contains_key(&format!("{root} {id}")));
            Some(format!("{root} {}", id?))
        });
        let plain = || {
            let in_root = |(root, _): &&(String, String)| known.contains_key(&format!("{root} {}", test.id));
            let root = roots.iter().find(in_root).map_or("?", |(root, _)| root.as_str());
            format!("{root} {}", test.id)
        };
        assert!(words.insert(named.unwrap_or_else(plain), word.to_owned()).is_none(), "{} twice", test.id);
        ControlFlow::Continue(())
    });
    words
}

fn check(seed: u64, python: &Path) {
    let mut dice = Dice(seed);
    let project = Project::new().file("tell.py", TELL);
    let (project, roots) = draw(&mut dice, project, python);
    let (expected, is_fine) = alone(&project, &roots, python);
    if expected.is_empty() {
        return;
    }
    for parallel in sample(&["4", "1", "2"]) {
        let outcome = project.offload(&["run", "--parallel", parallel]);
        let place = format!("OFFLOAD_SUITE={seed} at --parallel {parallel}");
        let told = format!("{place}\n{}\n{}", outcome.stdout, outcome.stderr);
        assert_eq!(reported(&project, &roots, &expected), expected, "{told}");
        assert_eq!(outcome.code, Some(i32::from(!is_fine)), "{told}");
    }
}

#[test]
fn verdicts_do_not_depend_on_how_a_suite_is_divided() {
    let Some(python) = python() else { return };
    if let Ok(seed) = std::env::var("OFFLOAD_SUITE") {
        return check(seed.parse().unwrap(), python);
    }
    let count = if is_full() { 12 } else { 2 };
    for seed in 1..=count {
        check(seed, python);
    }
}
