//! Every error that a user can easily cause.

use crate::case::{Case, check};

const ALL: &str = "[groups.all]";

/// A project that runs.
fn good() -> Case {
    Case::tests(&["pass 1"], ALL, "")
}

#[test]
fn mistakes_on_the_command_line() {
    let case = good();
    for (name, arguments) in [
        ("unknown-flag", &["run", "--paralel", "3"][..]),
        ("unknown-command", &["rnu"]),
        ("missing-value", &["run", "--parallel"]),
        ("no-sandboxes", &["run", "--parallel", "0"]),
        ("unknown-format", &["collect", "--format", "yaml"]),
        ("env-without-value", &["run", "--env", "TOKEN"]),
        ("copy-dir-without-target", &["run", "--copy-dir", "src"]),
        ("copy-dir-local", &["run", "--copy-dir", "src:/src"]),
        ("override-image-local", &["run", "--override-image-id", "im-1"]),
        ("record-without-history", &["run", "--record-history"]),
        ("init-unknown-framework", &["init", "--framework", "pytst", "-c", "new.toml"]),
        ("init-existing-file", &["init"]),
        ("init-missing-directory", &["init", "-c", "no/offload.toml"]),
        ("logs-without-report", &["logs"]),
        ("logs-bad-pattern", &["logs", "--test-regex", "("]),
        ("build-without-image", &["build"]),
        ("status-without-image", &["checkpoint-status"]),
        ("history-without-section", &["history", "show"]),
        ("history-merge-missing", &["history", "merge", "base", "ours", "theirs"]),
        ("history-driver-without-git", &["history", "setup-merge-driver"]),
        ("missing-config", &["run", "-c", "ci.toml"]),
        // The only one that leaves something.
        ("flags-without-effect", &["run", "--no-cache", "--show-estimated-cost"]),
    ] {
        check(&format!("errors/{name}"), &case.run(arguments));
    }
}

#[test]
fn mistakes_in_the_configuration() {
    for (name, old, new) in [
        ("config-syntax", ALL, "[groups.all"),
        ("config-unknown-key", ALL, "[groups.all]\nretry_cuont = 1"),
        ("config-unknown-table", ALL, "[groups.all]\n[reprot]"),
        ("config-wrong-type", ALL, "[groups.all]\nretry_count = \"two\""),
        ("config-out-of-range", ALL, "[groups.all]\n[offload]\nmax_parallel = 0\ntest_timeout_secs = -1"),
        ("config-no-groups", ALL, "[groups]"),
        ("config-missing-table", "[provider]\ntype = \"local\"", ""),
        ("config-missing-key", "run_command = \"sh runner {result_file} {tests}\"\n", ""),
        ("config-unknown-type", "type = \"local\"", "type = \"locl\""),
        ("config-unset-variable", "cat list", "cat ${LIST_FILE}"),
        (
            "config-image-without-prepare",
            "type = \"local\"",
            "type = \"default\"\ncreate_command = \"make {image_id}\"\nexec_command = \"e {sandbox_id} {command}\"\ndestroy_command = \"d {sandbox_id}\"",
        ),
        ("config-shared-result-file", "{result_file} {tests}", "junit.xml {tests}"),
        ("config-two-mistakes", "type = \"local\"", "type = \"local\"\nshel = \"sh\"\nworking_dir = 3"),
    ] {
        check(&format!("errors/{name}"), &good().replaced(old, new).run(&["run"]));
    }
}

#[test]
fn validate_warns_about_commands_that_cannot_work() {
    let provider = "type = \"default\"\ncreate_command = \"@directory_sandbx.sh create\"\n\
                    exec_command = \"no-such-tool {command}\"\ndestroy_command = \"true {sandbox_id}\"\n\
                    download_command = \"./no/such/file {sandbox_id} {paths}\"";
    check("errors/validate-warnings", &good().replaced("type = \"local\"", provider).run(&["validate"]));
    check("errors/validate", &good().run(&["validate"]));
}

#[test]
fn output_directories_that_are_refused() {
    for (name, directory) in [("output-is-project", "."), ("output-is-root", "/")] {
        let case = Case::tests(&["pass 1"], ALL, &format!("[report]\noutput_dir = {directory:?}"));
        check(&format!("errors/{name}"), &case.run(&["run"]));
    }
    let case = good().file("test-results", "a file");
    check("errors/output-is-file", &case.run(&["run"]));
}

#[test]
fn discovery_that_finds_nothing_or_fails() {
    let none = Case::tests(&[], ALL, "");
    for choice in ["fail", "warn", "pass"] {
        let flag = format!("--no-tests={choice}");
        check(&format!("errors/no-tests-{choice}"), &none.run(&["run", &flag]));
    }
    check("errors/no-tests-collect", &none.run(&["collect"]));
    check("errors/no-tests-plan", &none.run(&["plan"]));
    let failing = good().replaced("cat list", "cat list; echo 'cannot import tests' >&2; exit 7");
    check("errors/discovery-fails", &failing.run(&["run"]));
    let missing = good().replaced("cat list", "no-such-lister");
    check("errors/discovery-missing-program", &missing.run(&["collect"]));
    let hanging = Case::tests(&["pass 1"], ALL, "[offload]\ndiscovery_timeout_secs = 1");
    let hanging = hanging.replaced("cat list", "sleep 600");
    check("errors/discovery-hangs", &hanging.run(&["run"]));
}

#[test]
fn reports_and_histories_that_cannot_be_read() {
    let case = good().file("test-results/junit.xml", "<testsuites><testsuite><testcase name='a'/><test");
    check("errors/logs-corrupt-report", &case.run(&["logs"]));
    let case = good().file("test-results/junit.xml", "<testsuite><testcase name='pass one'/></testsuite>");
    check("errors/logs-unknown-test", &case.run(&["logs", "--test", "pass 1"]));
    let case = Case::tests(&["pass 1"], ALL, "[history]\npath = \"h\"").file("h/directory", "");
    check("errors/history-is-directory", &case.run(&["history", "show"]));
    let case = Case::tests(&["pass 1"], ALL, "[history]\npath = \"h\"").file("h", "<<<<<<< ours\nnonsense\n");
    check("errors/history-bad-lines", &case.run(&["history", "show"]));
    let case =
        Case::tests(&["pass 1"], ALL, "[history]\npath = \"h\"\nrecord_history = \"always\"").file("h/x", "");
    check("errors/history-cannot-be-recorded", &case.run(&["run"]));
}

/// A project with sandboxes of its own.
fn remote(create: &str, exec: &str) -> Case {
    let provider = format!(
        "type = \"default\"\ncreate_command = \"{create}\"\nexec_command = \"{exec} # {{sandbox_id}} {{command}}\"\n\
         destroy_command = \"true # {{sandbox_id}}\"\n[offload]\nmax_parallel = 1\nsandbox_repo_root = \".\""
    );
    let case = Case::tests(&["pass 1", "pass 2"], ALL, "").replaced("type = \"local\"", &provider);
    let state = case.path().join("state").display().to_string();
    case.env("OFFLOAD_STATE_DIR", &state)
}

#[test]
fn sandboxes_that_cannot_be_created() {
    check("errors/create-fails", &remote("echo 'quota exceeded' >&2; exit 1", "true").run(&["run"]));
    check("errors/create-missing-program", &remote("no-such-cloud", "true").run(&["run"]));
}

#[test]
fn an_image_that_cannot_be_built() {
    let prepare = "type = \"default\"\nprepare_command = \"echo 'no space left' >&2; exit 1 #\"";
    let case = remote("echo sb # {image_id}", "true")
        .replaced("type = \"default\"\ncreate", &format!("{prepare}\ncreate"));
    check("errors/prepare-fails", &case.run(&["run"]));
}
