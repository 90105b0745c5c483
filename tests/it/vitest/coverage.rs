//! Coverage of a run in several batches.

use std::fs;

use super::{config, has_all, project};
use crate::support::{Project, sample, vitest_of};

/// Three modules, each tested by a file of its own, and one that no test imports.
fn covered(version: &str, thresholds: &str) -> Option<Project> {
    let mut project = project(vitest_of(version)?).file("d.js", "export const d = (n) => n\n");
    for name in ["a", "b", "c"] {
        let module = format!("export const {name} = (n) => {{ if (n > 5) return 'big'; return 'small' }}\n");
        let tests = format!(
            "import {{ expect, it }} from 'vitest'\nimport {{ {name} }} from './{name}.js'\n\
             it('is small', () => expect({name}(1)).toBe('small'))\nit('is big', () => expect({name}(9)).toBe('big'))\n"
        );
        project = project.file(&format!("{name}.js"), &module).file(&format!("{name}.test.js"), &tests);
    }
    let settings = format!(
        "{{ enabled: true, include: ['?.js'], reporter: ['text', 'json'], thresholds: {thresholds} }}"
    );
    let config = format!("export default {{ test: {{ coverage: {settings} }} }}\n");
    Some(project.file("vitest.config.js", &config))
}

#[test]
fn thresholds_are_asked_once_of_all_batches_together() {
    for version in sample(&["5.1.2", "4.1.12", "3.2.7", "2.1.9"]) {
        for width in sample(&["4", "1", "2"]) {
            let Some(project) = covered(version, "{ functions: 75 }") else { return };
            let outcome = project.config(&config("", "[groups.all]"));
            let outcome = outcome.offload(&["run", "--parallel", width]).expect_code(0);
            has_all(&outcome.stdout, &["6 tests: 6 passed in", "Coverage report", "a.js", "d.js"]);
        }
        let Some(project) = covered(version, "{ functions: 76 }") else { return };
        let project = project.config(&config("", "[groups.all]"));
        let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(1);
        has_all(&outcome.stdout, &["6 tests: 6 passed in", "functions (75%) does not meet"]);
        assert!(project.path().join("coverage/coverage-final.json").is_file());
    }
}

#[test]
fn coverage_of_sandboxes_with_files_of_their_own_is_that_of_the_files_here() {
    let Some(project) = covered("4.1.12", "{ functions: 75 }") else { return };
    let provider = "type = \"default\"\n\
                    create_command = \"b=$(mktemp -d $BOXES/XXXXXX) && cp -RP *.js package.json node_modules $b && echo ${b##*/}\"\n\
                    exec_command = \"cd $BOXES/{sandbox_id} && exec sh -c {command}\"\n\
                    destroy_command = \"rm -r $BOXES/{sandbox_id}\"\n";
    let config = config("", "[groups.all]").replace("type = \"local\"\n", provider);
    let config = config.replace("[provider]", "sandbox_repo_root = \".\"\n[provider]");
    let boxes = tempfile::tempdir().unwrap();
    let state = boxes.path().join("state").display().to_string();
    let project = project.config(&config).env("BOXES", &boxes.path().display().to_string());
    let project = project.env("OFFLOAD_STATE_DIR", &state);
    let outcome = project.offload(&["run", "--parallel", "2"]).expect_code(0);
    has_all(&outcome.stdout, &["6 tests: 6 passed in", "on 2 sandboxes", "d.js"]);
    let json = fs::read_to_string(project.path().join("coverage/coverage-final.json")).unwrap();
    let here = project.path().join("a.js").display().to_string();
    assert!(json.contains(&here) && !json.contains(&boxes.path().display().to_string()), "{json}");
}

#[test]
fn version_1_runs_without_coverage_and_says_so() {
    let Some(project) = covered("1.6.1", "{ functions: 99 }") else { return };
    let outcome = project.config(&config("", "[groups.all]")).offload(&["run"]).expect_code(0);
    has_all(&outcome.stderr, &["cannot merge the coverage of batches"]);
    has_all(&outcome.stdout, &["6 tests: 6 passed in"]);
}
