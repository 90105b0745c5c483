//! What is listed is what runs.

use std::path::Path;

use super::{config, has_all, noting, project, ran};
use crate::support::{Project, sample, vitest, vitest_of};

/// Runs all tests at several widths; each must give this line.
fn passes_at_each_width(project: &Project, tests: usize) {
    for width in sample(&["4", "1", "2"]) {
        let outcome = project.offload(&["run", "--parallel", width]).expect_code(0);
        let noun = if tests == 1 { "test" } else { "tests" };
        has_all(&outcome.stdout, &[&format!("{tests} {noun}: {tests} passed in")]);
    }
}

fn one(title: &str) -> String {
    format!("import {{ it }} from 'vitest'\nit('{title}', () => {{}})\n")
}

fn below(modules: &Path) -> Project {
    project(modules)
        .file("mono/package.json", "{\"type\": \"module\"}")
        .file("mono/vitest.config.js", "export default { test: { projects: ['packages/*', 'apps/*'] } }\n")
        .file("mono/packages/lib/vitest.config.js", "export default { test: { name: 'lib' } }\n")
        .file("mono/packages/lib/src/a.test.js", &one("of a library"))
        .file("mono/apps/web/vitest.config.js", "export default { test: { name: 'web' } }\n")
        .file("mono/apps/web/src/a.test.js", &one("of a page"))
}

#[test]
fn projects_below_another_root_run_by_the_names_that_they_have_there() {
    let Some(modules) = vitest() else { return };
    let command = "node_modules/.bin/vitest";
    let config = config("", "[groups.all]").replace(command, &format!("{command} --root mono"));
    let project = below(modules).config(&config);
    let listed = project.offload(&["collect"]).expect_code(0).stdout;
    assert_eq!(listed, "apps/web/src/a.test.js > of a page\npackages/lib/src/a.test.js > of a library\n");
    passes_at_each_width(&project, 2);
    let rows = project.offload(&["collect", "-f", "json"]).expect_code(0).stdout;
    has_all(&rows, &["\"file\": \"mono/apps/web/src/a.test.js\""]);
}

#[test]
fn two_projects_that_run_one_file_have_a_test_each() {
    for version in sample(&["4.1.12", "1.6.1"]) {
        let Some(modules) = vitest_of(version) else { return };
        let tests = "import { expect, inject, it } from 'vitest'\n\
                     it('is right', () => { expect(process.env.WHERE).toBe('here') })\nit('is same', () => {})\n";
        let member = |name: &str, place: &str| {
            format!("{{ test: {{ name: '{name}', include: ['a.test.js'], env: {{ WHERE: '{place}' }} }} }}")
        };
        let members = format!("[{}, {}]", member("one", "here"), member("two", "there"));
        let project = match *version {
            "1.6.1" => project(modules).file("vitest.workspace.js", &format!("export default {members}\n")),
            _ => project(modules)
                .file("vitest.config.js", &format!("export default {{ test: {{ projects: {members} }} }}\n")),
        };
        let project = project.file("a.test.js", tests).config(&config("", "[groups.all]\nretry_count = 1"));
        let listed = project.offload(&["collect"]).expect_code(0).stdout;
        let wanted = "|one| a.test.js > is right\n|one| a.test.js > is same\n\
                      |two| a.test.js > is right\n|two| a.test.js > is same\n";
        assert_eq!(listed, wanted);
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(&outcome.stdout, &["4 tests: 3 passed, 1 failed in", "FAILED |two| a.test.js > is right\n"]);
    }
}

#[test]
fn two_groups_with_projects_of_their_own_have_a_test_each() {
    let Some(modules) = vitest() else { return };
    let member = |name: &str| format!("{{ test: {{ name: '{name}', include: ['a.test.js'] }} }}");
    let members = format!("[{}, {}]", member("one"), member("two"));
    let groups = "[groups.first]\nfilters = \"--project one\"\n[groups.second]\nfilters = \"--project two\"";
    let project = project(modules)
        .file("vitest.config.js", &format!("export default {{ test: {{ projects: {members} }} }}\n"))
        .file("a.test.js", &noting("a", &["runs"]))
        .config(&config("", groups));
    let outcome = project.offload(&["run"]).expect_code(0);
    has_all(&outcome.stdout, &["2 tests: 2 passed in"]);
    assert_eq!(ran(&project), ["loaded a:4", "runs:2"]);
}

#[test]
fn files_that_change_a_shared_module_are_listed_as_they_run() {
    for version in sample(&["5.1.2", "4.1.12"]) {
        let Some(modules) = vitest_of(version) else { return };
        let import = "import { expect, it, vi } from 'vitest'\n";
        let shared = "import { it } from 'vitest'\nit('of the contract', () => {})\n";
        let mocks =
            "vi.mock('./names.js', () => ({ names: ['mocked'] }))\nimport { names } from './names.js'\n";
        let draws = |shape: &str| {
            format!(
                "{import}import {{ shapes }} from './shapes.js'\nshapes.push('{shape}')\n\
                     it.each([...shapes])('draws a %s', (shape) => expect(shape).toBe('{shape}'))\n"
            )
        };
        let project = project(modules)
            .file("vitest.config.js", "export default { test: { maxWorkers: 1 } }\n")
            .file("names.js", "export const names = ['one', 'two']\n")
            .file("shapes.js", "export const shapes = []\n")
            .file("contract.js", shared)
            .file("a.test.js", &format!("{import}{mocks}it.each(names)('named %s', () => {{}})\n"))
            .file(
                "b.test.js",
                &format!(
                    "{import}import {{ names }} from './names.js'\nit.each(names)('named %s', () => {{}})\n"
                ),
            )
            .file("c.test.js", &draws("circle"))
            .file("d.test.js", &draws("square"))
            .file("e.test.js", "import './contract.js'\n")
            .file("f.test.js", "import './contract.js'\n")
            .config(&config("", "[groups.all]\nretry_count = 1"));
        passes_at_each_width(&project, 7);
    }
}

#[test]
fn a_file_without_isolation_runs_as_the_project_says() {
    let Some(modules) = vitest() else { return };
    let counts = |name: &str| {
        format!(
            "import {{ it }} from 'vitest'\nglobalThis.files = (globalThis.files ?? 0) + 1\nit('{name}', () => {{}})\n"
        )
    };
    let project = project(modules)
        .file("vitest.config.js", "export default { test: { isolate: false, fileParallelism: false } }\n")
        .file("a.test.js", &counts("a"))
        .file("b.test.js", &counts("b"))
        .config(&config("", "[groups.all]"));
    passes_at_each_width(&project, 2);
}

#[test]
fn types_are_tests() {
    for version in sample(&["4.1.12", "1.6.1"]) {
        let Some(modules) = vitest_of(version) else { return };
        let types = |name: &str, check: &str| {
            format!(
                "import {{ expectTypeOf, test }} from 'vitest'\nimport {{ f }} from './f'\n\
                     test('{name}', () => {{ expectTypeOf(f).{check} }})\n"
            )
        };
        let compiler = "{ \"compilerOptions\": { \"strict\": true, \"module\": \"esnext\", \"moduleResolution\": \
                        \"bundler\", \"target\": \"es2022\", \"skipLibCheck\": true, \"noEmit\": true }, \
                        \"include\": [\"src\"] }";
        let project = project(modules)
            .file("vitest.config.js", "export default { test: { typecheck: { enabled: true } } }\n")
            .file("tsconfig.json", compiler)
            .file("src/f.ts", "export const f = (n: number) => String(n)\n")
            .file("src/f.test.ts", &one("runs"))
            .file("src/f.test-d.ts", &types("gives a string", "returns.toBeString()"))
            .file("src/g.test-d.ts", &types("takes a number", "parameter(0).toBeNumber()"))
            .config(&config("", "[groups.all]"));
        passes_at_each_width(&project, 3);
        let project = project.file("src/h.test-d.ts", &types("takes a text", "parameter(0).toBeString()"));
        let outcome = project.offload(&["run"]).expect_code(1);
        has_all(
            &outcome.stdout,
            &["4 tests: 3 passed, 1 failed in", "FAILED src/h.test-d.ts > takes a text"],
        );
    }
}

#[test]
fn a_runner_of_the_project_still_runs_its_tests() {
    for version in sample(&["4.1.12", "1.6.1"]) {
        let Some(modules) = vitest_of(version) else { return };
        let runner = "import { VitestTestRunner } from 'vitest/runners'\n\
                      export default class Own extends VitestTestRunner {\n  seen: number = 0\n  \
                      onBeforeTryTask(test: any, ...rest: any) { globalThis.seen = ++this.seen; return super.onBeforeTryTask(test, ...rest) }\n}\n";
        let tests = "import { expect, it } from 'vitest'\nit('one', () => expect(globalThis.seen).toBe(1))\n\
                     it('two', () => expect(globalThis.seen).toBe(2))\n";
        let project = project(modules)
            .file("vitest.config.js", "export default { test: { runner: './own.ts' } }\n")
            .file("own.ts", runner)
            .file("a.test.js", tests)
            .config(&config("", "[groups.all]"));
        passes_at_each_width(&project, 2);
    }
}

#[test]
fn a_test_that_is_gone_is_told_as_that() {
    let Some(modules) = vitest() else { return };
    let tests = "import { it } from 'vitest'\nimport { existsSync, writeFileSync } from 'node:fs'\n\
                 const first = !existsSync('seen')\nwriteFileSync('seen', '')\n\
                 it(first ? 'one' : 'another', () => {})\nit('stays', () => {})\n";
    let project = project(modules).file("a.test.js", tests).config(&config("", "[groups.all]"));
    let outcome = project.offload(&["run"]).expect_code(1);
    has_all(&outcome.stdout, &["1 passed", "1 not run", "ids change of `a.test.js`"]);
}
