//! What is wrong outside tests.

use super::{config, has_all, project};
use crate::support::{vitest, vitest_of};

#[test]
fn an_obsolete_snapshot_is_an_error_of_the_run_whoever_shares_the_batch() {
    let Some(modules) = vitest() else { return };
    let tests = "import { expect, it } from 'vitest'\nit('has one', () => { expect(1).toMatchSnapshot() })\n\
                 it('has none', () => {})\n";
    let snapshots = "// Vitest Snapshot v1, https://vitest.dev/guide/snapshot.html\n\n\
                     exports[`gone 1`] = `9`;\n\nexports[`has one 1`] = `1`;\n";
    for alone in ["false", "true"] {
        let groups = format!("[groups.all]\nretry_count = 1\nschedule_individual = {alone}");
        let project = project(modules)
            .file("a.test.js", tests)
            .file("__snapshots__/a.test.js.snap", snapshots)
            .config(&config("", &groups))
            .env("CI", "true");
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(&outcome.stdout, &["2 tests: 2 passed", "Obsolete snapshots", "gone 1"]);
        let errors = outcome.stdout.lines().filter(|line| line.starts_with("ERROR")).count();
        assert_eq!(errors, 1, "{}", outcome.stdout);
    }
}

#[test]
fn a_set_up_that_fails_is_told_with_its_text() {
    let Some(modules) = vitest() else { return };
    let setup = "export default () => { if (process.env.BROKEN) throw new Error('no database') }\n";
    let project = project(modules)
        .file("a.test.js", "import { it } from 'vitest'\nit('one', () => {})\n")
        .file("setup.js", setup)
        .file("vitest.config.js", "export default { test: { globalSetup: './setup.js' } }\n")
        .config(&config("", "[groups.all]"));
    project.offload(&["run"]).expect_code(0);
    let project = project.env("BROKEN", "1");
    let outcome = project.offload(&["run"]);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains("no database"), "{said}");
    outcome.expect_code(4);
}

#[test]
fn a_tear_down_that_fails_is_an_error_of_the_run_beside_a_flaky_test() {
    let flaky = "import { expect, it } from 'vitest'\nimport { existsSync, writeFileSync } from 'node:fs'\n\
                 it('flaky', () => { const seen = existsSync('seen'); writeFileSync('seen', ''); expect(seen).toBe(true) })\n";
    // Version 4 alone ends with status 0 if a tear-down raises.
    let downs = [
        ("2.1.9", "throw new Error('no way down')", "no way down"),
        ("4.1.12", "process.exitCode = 3", "exit code 3"),
        ("5.1.2", "throw new Error('no way down')", "no way down"),
    ];
    for (version, down, reason) in downs {
        let Some(modules) = vitest_of(version) else { return };
        // Only the run whose test fails goes wrong in its tear-down.
        let setup = format!(
            "import {{ existsSync }} from 'node:fs'\nlet first\nexport const setup = () => {{ first = !existsSync('seen') }}\n\
             export const teardown = () => {{ if (first && existsSync('seen')) {{ {down} }} }}\n"
        );
        let project = project(modules)
            .file("a.test.js", flaky)
            .file("down.js", &setup)
            .file("vitest.config.js", "export default { test: { globalSetup: './down.js' } }\n")
            .config(&config("", "[groups.all]\nretry_count = 1"));
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(&outcome.stdout, &["1 test: 0 passed, 1 flaky in", "ERROR", reason]);
    }
}

#[test]
fn a_reporter_of_the_project_with_its_own_templates_changes_nothing() {
    let Some(modules) = vitest_of("5.1.2") else { return };
    let tests = "import { describe, it } from 'vitest'\n\
                 describe('cart', () => { it('is empty', () => {}); describe('new', () => it('is empty', () => {})) })\n";
    let reporters = "['default', ['junit', { outputFile: 'own.xml', classnameTemplate: '{classname}', \
                     titleTemplate: '{title}', ancestorSeparator: ' ' }]]";
    let project = project(modules)
        .file("a.test.js", tests)
        .file("b.test.js", tests)
        .file("vitest.config.js", &format!("export default {{ test: {{ reporters: {reporters} }} }}\n"))
        .config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["4 tests: 4 passed in"]);
}
