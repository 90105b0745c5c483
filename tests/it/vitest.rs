//! Whole runs with real vitest, on projects as they are.

use std::fs;
use std::path::Path;

use crate::support::{Project, vitest};

mod collections;
mod coverage;
mod errors;
mod versions;

/// Names that are hard to carry to vitest and back; each test fails the first time.
const ODD: &str = r##"
import { describe, expect, it, test } from 'vitest'
const titles = [
  `it's "so"`, '$HOME `id` $(x) ${y}', '[x] (y)|z* .+?^$ \\d \\', 'é→ 🎉', 'a > b', 'one\ntwo', '-x', '--run',
  '<b>&amp;</b> ]]>', '{tests} @y.py #', "' '' \"", '\x1b[1mbold\x1b[0m', '%', 'a/b.test.js', '日本',
]
for (const title of titles) test(title, () => note(title))
describe('outer > inner', () => {
  describe('$1', () => it('deep > er', () => note('deep')))
})
describe.each([['a b', 1], ['a.b', 2]])('each %s', (text, number) => {
  it.each([{ name: '$x' }, { name: 'a|b' }])(`object $name ${number}`, ({ name }) => note(text + name))
})
it.each(['x', 'x.y', 'x y', '%s'])('value %s', (value) => note(value))
import { appendFileSync, readFileSync } from 'node:fs'
function note(name) {
  const line = JSON.stringify(name)
  appendFileSync(process.env.RAN, line + '\n')
  const times = readFileSync(process.env.RAN, 'utf8').split('\n').filter((each) => each === line).length
  expect(times, 'the first time').toBeGreaterThan(1)
}
"##;

/// How many tests there are in [`ODD`].
const ODD_TESTS: usize = 15 + 1 + 4 + 4;

const OUTCOMES: &str = r##"
import { describe, expect, it } from 'vitest'
it('passes', () => {})
it('fails', () => expect(1, 'as told').toBe(2))
it('throws later', async () => { await null; throw new Error('as thrown') })
it.skip('is skipped', () => { throw new Error('never') })
it.todo('is to be done')
it.fails('fails as it should', () => { throw new Error('expected') })
it.fails('should fail', () => {})
it('skips itself', (context) => context.skip())
describe.skip('left out', () => it('inside', () => {}))
describe('around', () => { it.skipIf(true)('on this machine', () => {}); it('passes', () => {}) })
"##;

/// Without `npx`, which takes as long to start as vitest itself; the examples use it.
fn config(framework: &str, groups: &str) -> String {
    format!(
        "[offload]\nmax_parallel = 2\n[provider]\ntype = \"local\"\n[framework]\ntype = \"vitest\"\n\
         command = \"node_modules/.bin/vitest\"\n{framework}\n{groups}\n"
    )
}

/// A project with the tool; `$RAN` is its file `ran`.
fn project(modules: &Path) -> Project {
    let project = Project::new().link("node_modules", modules).file("package.json", "{\"type\": \"module\"}");
    // The Node that a version needs is there, too.
    let project = project.tool(&modules.join(".bin"));
    let ran = project.path().join("ran");
    project.env("RAN", &ran.to_string_lossy())
}

/// A file that notes in `$RAN` that it is loaded and, a line each, which of its tests run.
fn noting(name: &str, tests: &[&str]) -> String {
    let mut text = format!(
        "import {{ expect, it }} from 'vitest'\nimport {{ appendFileSync, readFileSync }} from 'node:fs'\n\
         const note = (name) => appendFileSync(process.env.RAN, name + '\\n')\n\
         const times = (name) => readFileSync(process.env.RAN, 'utf8').split('\\n').filter((line) => line === name).length\n\
         note('loaded {name}')\n"
    );
    for test in tests {
        let body = match *test {
            "flaky" => "expect(times('flaky'), 'the first time').toBeGreaterThan(1)",
            "fails" => "throw new Error('as told')",
            _ => "",
        };
        text += &format!("it('{test}', () => {{ note('{test}'); {body} }})\n");
    }
    text
}

/// How often each line was noted, as `name:times` in order of names.
fn ran(project: &Project) -> Vec<String> {
    let text = fs::read_to_string(project.path().join("ran")).unwrap_or_default();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.chunk_by(|one, other| one == other).map(|same| format!("{}:{}", same[0], same.len())).collect()
}

#[track_caller]
fn has_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn odd_titles_survive_and_select_their_tests_alone() {
    let Some(modules) = vitest() else { return };
    // One file's path is the end of the other's, so that vitest takes it for both.
    let project = project(modules)
        .file("src/same.test.js", ODD)
        .file(
            "deep/src/same.test.js",
            "import { it } from 'vitest'\nit('-x', () => {})\nit('own', () => {})\n",
        )
        .config(&config("", "[groups.all]\nretry_count = 1"));
    let listed = project.offload(&["collect"]).expect_code(0).stdout;
    has_all(
        &listed,
        &["deep/src/same.test.js > -x\n", "src/same.test.js > outer > inner > $1 > deep > er\n"],
    );
    // All of them fail as one file and pass on the retry, in two halves that name each test.
    let outcome = project.offload(&["run"]).expect_code(2);
    has_all(&outcome.stdout, &[&format!("{} tests: 2 passed, {ODD_TESTS} flaky in", ODD_TESTS + 2)]);
    let noted = ran(&project);
    assert_eq!(noted.len(), ODD_TESTS, "{noted:#?}");
    assert!(noted.iter().all(|line| line.ends_with(":2")), "{noted:#?}");
}

#[test]
fn tests_that_want_to_be_alone_have_a_batch_each() {
    let Some(modules) = vitest() else { return };
    let alone = "[groups.all]\nschedule_individual = true";
    let project = project(modules)
        .file("a.test.js", &noting("a", &["one", "one more", "[1] (2) > $"]))
        .config(&config("", alone));
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["3 tests: 3 passed in"]);
    assert_eq!(ran(&project), ["[1] (2) > $:1", "loaded a:4", "one:1", "one more:1"]);
}

#[test]
fn every_outcome_is_told_apart() {
    let Some(modules) = vitest() else { return };
    let hook = "import { beforeAll, describe, it } from 'vitest'\n\
                describe('with a hook', () => {\n  beforeAll(() => { throw new Error('the hook broke') })\n  \
                it('one', () => {})\n  it('two', () => {})\n})\nit('beside', () => {})\n";
    let whole = "import { beforeAll, it } from 'vitest'\nbeforeAll(() => { throw new Error('no file') })\n\
                 it('three', () => {})\n";
    let project = project(modules)
        .file("outcomes.test.js", OUTCOMES)
        .file("hook.test.js", hook)
        .file("whole.test.js", whole)
        .config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["as told", "as thrown", "the hook broke", "no file"]);
    for name in
        ["outcomes.test.js > fails", "outcomes.test.js > throws later", "outcomes.test.js > should fail"]
    {
        has_all(&outcome.stdout, &[&format!("FAILED {name}\n")]);
    }
    let logs = project.offload(&["logs"]).expect_code(0).stdout;
    for name in
        ["is skipped", "is to be done", "skips itself", "left out > inside", "around > on this machine"]
    {
        has_all(&logs, &[&format!("=== outcomes.test.js > {name} [SKIPPED] ===")]);
    }
    let errors = project.offload(&["logs", "--failures"]).expect_code(0).stdout
        + &project.offload(&["logs", "--errors"]).expect_code(0).stdout;
    for name in
        ["hook.test.js > with a hook > one", "hook.test.js > with a hook > two", "whole.test.js > three"]
    {
        has_all(&errors, &[&format!("=== {name} [")]);
    }
    assert!(!errors.contains("beside"), "{errors}");
    has_all(&outcome.stdout, &["15 tests: 4 passed, 6 failed, 5 skipped in"]);
}

#[test]
fn a_file_that_does_not_load_is_an_error_of_the_run_and_the_other_files_run() {
    let Some(modules) = vitest() else { return };
    let broken = [
        ("import './nowhere.js'\n", "nowhere"),
        ("const = 1\n", "Parse"),
        ("throw new Error('on loading')\n", "on loading"),
        ("", "No test suite found"),
        ("import { describe } from 'vitest'\ndescribe('d', () => {})\n", "No test found in suite"),
    ];
    let mut project = project(modules)
        .file("good.test.js", &noting("good", &["runs"]))
        .config(&config("", "[groups.all]\nretry_count = 1"));
    for (number, (content, _)) in broken.iter().enumerate() {
        project = project.file(&format!("src/bad{number}.test.js"), content);
    }
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["1 test: 1 passed in"]);
    let errors = project.offload(&["logs", "--errors"]).expect_code(0).stdout;
    for (number, (_, reason)) in broken.iter().enumerate() {
        has_all(&errors, &[&format!("src/bad{number}.test.js"), reason]);
    }
    assert_eq!(ran(&project), ["loaded good:2", "runs:1"]);
}

#[test]
fn a_batch_loads_its_own_files_only() {
    let Some(modules) = vitest() else { return };
    // vitest takes `a.test.js` for a part of the second path too.
    let mut project = project(modules);
    for name in ["a", "deep/a", "c", "d"] {
        let file = format!("{name}.test.js");
        project = project.file(&file, &noting(name, &[&format!("{name} 1"), &format!("{name} 2")]));
    }
    let project = project.config(&config("", "[groups.all]\nretry_count = 2"));
    let outcome = project.offload(&["run", "--parallel", "4"]).expect_code(0);
    has_all(&outcome.stdout, &["8 tests: 8 passed in", "on 4 sandboxes"]);
    // Once to be listed, once to run.
    let mut wanted: Vec<String> = Vec::new();
    for name in ["a", "deep/a", "c", "d"] {
        wanted.extend([format!("{name} 1:1"), format!("{name} 2:1"), format!("loaded {name}:2")]);
    }
    wanted.sort();
    assert_eq!(ran(&project), wanted);
}

#[test]
fn a_retry_runs_the_failed_test_alone() {
    let Some(modules) = vitest() else { return };
    let project = project(modules)
        .file("a.test.js", &noting("a", &["before", "flaky", "flaky too"]))
        .file("b.test.js", &noting("b", &["beside", "fails"]))
        .config(&config("", "[groups.all]\nretry_count = 2"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["5 tests: 3 passed, 1 failed, 1 flaky in", "FLAKY a.test.js > flaky\n"]);
    let tests: Vec<String> = ran(&project).into_iter().filter(|line| !line.starts_with("loaded")).collect();
    assert_eq!(tests, ["before:1", "beside:1", "fails:3", "flaky:2", "flaky too:1"]);
}

#[test]
fn the_first_failure_ends_the_run_where_asked_for() {
    let Some(modules) = vitest() else { return };
    let project = project(modules)
        .file("a.test.js", &noting("a", &["first", "fails", "third"]))
        .file("b.test.js", &noting("b", &["fourth"]))
        .config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run", "--parallel", "1", "--fail-fast"]).expect_code(1);
    has_all(&outcome.stdout, &["1 failed", "FAILED a.test.js > fails", "not run in", "--fail-fast"]);
    assert!(!ran(&project).contains(&"third:1".to_owned()), "{:?}", ran(&project));
}

#[test]
fn groups_of_one_file_are_told_apart_by_their_patterns() {
    let Some(modules) = vitest() else { return };
    let project = project(modules)
        .file("a.test.js", &noting("a", &["fast one", "slow one", "fast two", "neither"]))
        .file("other/a.test.js", &noting("other", &["slow one", "slow three"]))
        .config(&config(
            "",
            "[groups.fast]\nfilters = \"-t fast\"\n\
             [groups.slow]\nfilters = \"-t '^slow (one|three)$' other\"\nretry_count = 1",
        ));
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["4 tests: 4 passed in"]);
    let tests: Vec<String> = ran(&project).into_iter().filter(|line| !line.starts_with("loaded")).collect();
    assert_eq!(tests, ["fast one:1", "fast two:1", "slow one:1", "slow three:1"]);
}

#[test]
fn tests_that_a_bail_kept_from_running_are_not_passed() {
    let Some(modules) = vitest() else { return };
    let tests = "import { expect, it } from 'vitest'\nimport { existsSync, writeFileSync } from 'node:fs'\n\
                 it('one', () => { const first = !existsSync('seen'); writeFileSync('seen', ''); expect(first).toBe(false) })\n\
                 it('two', () => expect(1).toBe(2))\nit('three', () => expect(1).toBe(2))\n";
    let retried = config("", "[groups.all]\nretry_count = 1");
    let project = project(modules).file("a.test.js", tests).config(&retried);
    let outcome = project.offload(&["run", "--parallel", "1", "--fail-fast"]).expect_code(1);
    assert!(
        !outcome.stdout.contains("passed, 1 flaky") && outcome.stdout.contains("FAILED a.test.js > t"),
        "{}",
        outcome.stdout
    );
    // The project's own `bail` stops a batch, not the run.
    fs::remove_file(project.path().join("seen")).unwrap();
    let project = project.file("vitest.config.js", "export default { test: { bail: 1 } }\n");
    let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
    has_all(&outcome.stdout, &["3 tests: 0 passed, 2 failed, 1 flaky"]);
}
