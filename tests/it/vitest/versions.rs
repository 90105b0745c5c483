//! What must hold with every supported version of vitest.

use std::path::Path;

use super::{ODD, ODD_TESTS, OUTCOMES, config, has_all, project, ran};
use crate::support::{Project, is_full, vitest_of};

/// All versions, or the oldest and the newest.
fn each_version(check: impl Fn(&Path)) {
    let versions: &[&str] =
        if is_full() { &["1.6.1", "2.1.9", "3.2.7", "4.1.12", "5.1.2"] } else { &["1.6.1", "5.1.2"] };
    for modules in versions.iter().filter_map(|version| vitest_of(version)) {
        check(modules);
    }
}

/// The verdicts of tests that did not pass.
fn verdicts(project: &Project) -> Vec<String> {
    let logs = project.offload(&["logs"]).expect_code(0).stdout;
    let lines = logs.lines().filter_map(|line| line.strip_prefix("=== ")?.strip_suffix(" ==="));
    let lines = lines.filter(|line| !line.ends_with("[PASSED]") && !line.ends_with("[RUN ERROR]"));
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn outcomes_are_told_apart() {
    let hook = "import { afterAll, beforeAll, describe, it } from 'vitest'\n\
                describe('hook', () => {\n  beforeAll(() => { throw new Error('the hook broke') })\n  \
                it('one', () => {})\n  describe('deep', () => it('two', () => {}))\n})\n\
                describe('after', () => { afterAll(() => { throw new Error('too late') }); it('three', () => {}) })\n\
                it('same', () => {})\nit('same', () => { console.log('said before'); throw new Error('second') })\n";
    each_version(|modules| {
        let project = project(modules)
            .file("outcomes.test.js", OUTCOMES)
            .file("hook.test.js", hook)
            .config(&config("", "[groups.all]"));
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(
            &outcome.stdout,
            &["as told", "as thrown", "the hook broke", "too late", "Expected", "second"],
        );
        assert_eq!(
            verdicts(&project),
            [
                "hook.test.js > hook > deep > two [ERROR]",
                "hook.test.js > hook > one [ERROR]",
                "hook.test.js > same (2) [FAILED]",
                "outcomes.test.js > around > on this machine [SKIPPED]",
                "outcomes.test.js > fails [FAILED]",
                "outcomes.test.js > is skipped [SKIPPED]",
                "outcomes.test.js > is to be done [SKIPPED]",
                "outcomes.test.js > left out > inside [SKIPPED]",
                "outcomes.test.js > should fail [FAILED]",
                "outcomes.test.js > skips itself [SKIPPED]",
                "outcomes.test.js > throws later [FAILED]",
            ]
        );
        let failures = project.offload(&["logs", "--failures"]).expect_code(0).stdout;
        has_all(&failures, &["said before", "hook.test.js:"]);
    });
}

#[test]
fn odd_titles_select_their_tests_alone() {
    each_version(|modules| {
        let project = project(modules)
            .file("src/odd.test.js", ODD)
            .config(&config("", "[groups.all]\nretry_count = 1"));
        let outcome = project.offload(&["run"]).expect_code(2);
        has_all(&outcome.stdout, &[&format!("{ODD_TESTS} tests: 0 passed, {ODD_TESTS} flaky in")]);
        let noted = ran(&project);
        assert_eq!(noted.len(), ODD_TESTS, "{noted:#?}");
        assert!(noted.iter().all(|line| line.ends_with(":2")), "{noted:#?}");
    });
}

/// Ten tests, of which the fourth does something to its worker the first time; each notes that it runs.
fn among_ten(what: &str) -> String {
    format!(
        "import {{ expect, it }} from 'vitest'\nimport {{ appendFileSync, readFileSync }} from 'node:fs'\n\
         for (let n = 0; n < 10; n++) it(`t${{n}}`, () => {{\n  appendFileSync(process.env.RAN, `t${{n}}\\n`)\n  \
         const times = readFileSync(process.env.RAN, 'utf8').split('t3\\n').length - 1\n  \
         if (n === 3 && times === 1) {{ {what} }}\n}})\n"
    )
}

/// How often the tests of [`among_ten`] ran: the fourth twice, all others once.
fn fourth_twice() -> Vec<String> {
    (0..10).map(|number| format!("t{number}:{}", if number == 3 { 2 } else { 1 })).collect()
}

#[test]
fn a_worker_that_dies_costs_the_test_that_killed_it_one_attempt() {
    each_version(|modules| {
        let project = project(modules)
            .file("a.test.js", &among_ten("process.kill(process.pid, 'SIGKILL'); while (true) {}"))
            .file("vitest.config.js", "export default { test: { pool: 'forks' } }\n")
            .config(&config("", "[groups.all]\nretry_count = 1"));
        let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(2);
        has_all(&outcome.stdout, &["10 tests: 9 passed, 1 flaky in", "FLAKY a.test.js > t3\n"]);
        assert_eq!(ran(&project), fourth_twice());
    });
}

#[test]
fn a_test_that_hangs_is_named_and_no_other_runs_twice() {
    each_version(|modules| {
        let timeout = "test_timeout_secs = 6\n";
        let config = config("", "[groups.all]\nretry_count = 1");
        let config = config.replace("max_parallel", &format!("{timeout}max_parallel"));
        let project = project(modules).file("a.test.js", &among_ten("while (true) {}")).config(&config);
        let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(2);
        has_all(&outcome.stdout, &["10 tests: 9 passed, 1 flaky in", "FLAKY a.test.js > t3\n", "timed out"]);
        assert_eq!(ran(&project), fourth_twice());
    });
}

#[test]
fn errors_outside_tests_are_told_once_and_outlive_retries() {
    let late = "import { it } from 'vitest'\n\
                it('leaves', () => { setTimeout(() => { Promise.reject(new Error('late trouble')) }, 5) })\n\
                it('waits', () => new Promise((done) => setTimeout(done, 60)))\n";
    let flaky = "import { expect, it } from 'vitest'\nimport { existsSync, writeFileSync } from 'node:fs'\n\
                 it('flaky', () => { const seen = existsSync('seen'); writeFileSync('seen', ''); expect(seen).toBe(true) })\n";
    let loading = "import { it } from 'vitest'\nPromise.reject(new Error('trouble on loading'))\n\
                   it('is there', () => new Promise((done) => setTimeout(done, 20)))\n";
    each_version(|modules| {
        let project = project(modules)
            .file("late.test.js", late)
            .file("flaky.test.js", flaky)
            .file("loading.test.js", loading)
            .config(&config("", "[groups.all]\nretry_count = 1"));
        let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
        has_all(&outcome.stdout, &["4 tests: 3 passed, 1 flaky in"]);
        for trouble in ["late trouble", "trouble on loading"] {
            assert_eq!(
                outcome.stdout.matches(&format!("Unhandled Rejection: {trouble}")).count(),
                1,
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn a_retry_of_vitest_itself_makes_a_test_flaky_with_the_message_of_the_failure() {
    let tests = "import { expect, it } from 'vitest'\nlet times = 0\n\
                 it('second time', { retry: 2 }, () => { expect(times++, 'the first time').toBe(1) })\n\
                 it('never', { retry: 1 }, () => { throw new Error('not at all') })\n";
    each_version(|modules| {
        let project = project(modules).file("a.test.js", tests).config(&config("", "[groups.all]"));
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(
            &outcome.stdout,
            &["2 tests: 0 passed, 1 failed, 1 flaky in", "FLAKY a.test.js > second time\n"],
        );
        has_all(&outcome.stdout, &["the first time", "not at all"]);
    });
}

#[test]
fn tests_in_the_environment_of_a_browser_run() {
    let environment = "export default {\n  name: 'page', viteEnvironment: 'client', transformMode: 'web',\n  \
                       setup() { globalThis.page = 'a page'; return { teardown() {} } },\n}\n";
    let tests = "import { expect, it } from 'vitest'\nit('has a page', () => expect(globalThis.page).toBe('a page'))\n";
    each_version(|modules| {
        let project = project(modules)
            .file("page.js", environment)
            .file("vitest.config.js", "export default { test: { environment: './page.js' } }\n")
            .file("a.test.js", tests)
            .config(&config("", "[groups.all]"));
        let outcome = project.offload(&["run"]).expect_code(0);
        has_all(&outcome.stdout, &["1 test: 1 passed in"]);
    });
}
