//! Whole runs with real CTest, through the framework `default`.

use crate::support::{Project, cmake};

const TESTS: &str = r#"
cmake_minimum_required(VERSION 3.20)
project(shape NONE)
enable_testing()
add_test(NAME passes COMMAND true)
add_test(NAME has_no_program COMMAND ./no-such-program)
add_test(NAME has_no_file COMMAND true)
set_tests_properties(has_no_file PROPERTIES REQUIRED_FILES no-such-file)
add_test(NAME skips COMMAND sh -c "exit 77")
set_tests_properties(skips PROPERTIES SKIP_RETURN_CODE 77)
add_test(NAME flaky COMMAND sh -c "mkdir seen 2>/dev/null && exit 1; exit 0")
"#;

const CONFIG: &str = r#"
[provider]
type = "local"
[framework]
type = "default"
discover_command = """ctest --test-dir build -N {filters} | sed -n 's/.*#[0-9]*: //p'"""
run_command = "sh run.sh {result_file} {tests}"
result_file = "report.xml"
test_id_format = "{name}"
[groups.all]
retry_count = 1
"#;

const RUN: &str = r#"
report=$1; shift
exec ctest --test-dir build --output-junit "$report" -R "^($(printf '%s\n' "$@" | paste -sd '|'))\$"
"#;

#[test]
fn a_test_that_ctest_cannot_run_is_a_failure_and_one_that_skips_itself_is_not() {
    let Some(tool) = cmake() else { return };
    for parallel in ["1", "2"] {
        let project =
            Project::new().tool(tool).file("CMakeLists.txt", TESTS).file("run.sh", RUN).config(CONFIG);
        let made = project.command("cmake").args(["-S", ".", "-B", "build"]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let outcome = project.offload(&["run", "--parallel", parallel]).expect_code(1);
        for part in [
            "5 tests: 1 passed, 2 failed, 1 flaky, 1 skipped in",
            "FAILED has_no_program\n    2 of 2 attempts failed\n    Unable to find executable\n",
            "FAILED has_no_file\n    2 of 2 attempts failed\n    Required Files Missing\n",
            "FLAKY flaky\n",
        ] {
            assert!(outcome.stdout.contains(part), "`{part}` is not in:\n{}", outcome.stdout);
        }
    }
}
