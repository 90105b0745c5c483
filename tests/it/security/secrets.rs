//! A value that is secret stands nowhere in what `offload` prints or writes, however it came there.

use std::fs;
use std::path::Path;

use crate::remote::remote;
use crate::runner::{configured, project};
use crate::support::{Outcome, Project};

/// With what a shell must quote, once and again.
const SECRET: &str = "s3cr3t's-v@lue 9137";
/// Parts of it that none of our own quotes changes.
const PARTS: [&str; 2] = ["s3cr3t", "v@lue"];

#[track_caller]
fn clean(what: &str, text: &str) {
    for part in PARTS {
        assert!(!text.contains(part), "{what}: {text}");
    }
}

/// Nothing in the streams, nor in any file that a run has made.
#[track_caller]
fn all_clean(project: &Project, outcome: &Outcome) {
    clean("stdout", &outcome.stdout);
    clean("stderr", &outcome.stderr);
    for name in ["test-results", "state", "offload-history.jsonl"] {
        files_clean(&project.path().join(name));
    }
}

#[track_caller]
fn files_clean(path: &Path) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            files_clean(&entry.path());
        }
    } else if path.is_file() {
        clean(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(path).unwrap()));
    }
}

/// It says its variable in all the places of a report, and where else it can.
const TALKER: &str = r#"
out=$1; shift
echo "out $TOKEN"; echo "err $TOKEN" >&2; printf '%s' "$TOKEN" | sed "s/'/'/"
x=$(printf '%s' "$TOKEN" | sed "s/'/\&apos;/g")
{ echo "<testsuites name='$x'><testsuite name='$x'><properties><property name='$x' value='$x'/></properties>"
for id; do echo "<testcase name='$id' classname='$x' time='0.1' file='$x'><properties><property name='$x' value='$x'/></properties>"
echo "<failure type='$x' message='$x'>$x</failure><system-out>$x</system-out><system-err>$x</system-err></testcase>"; done
echo "<testcase name='other $x'><error message='$x'/></testcase><system-out>$x</system-out></testsuite></testsuites>"
} > "$out"
exit 1
"#;

fn secret_table() -> String {
    format!("secret_env = [\"TOKEN\"]\nenv = {{ TOKEN = {} }}\n", serde_json::to_string(SECRET).unwrap())
}

#[test]
fn not_in_anything_that_a_run_writes() {
    let groups = "[groups.all]\nretry_count = 1\n[history]";
    for project in [configured(&["a", "b"], groups, ""), remote(&["a", "b"], groups, "", "")] {
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let (before, after) = config.split_once("[provider]\n").unwrap();
        let project =
            project.config(&format!("{before}[provider]\n{}{after}", secret_table())).file("runner", TALKER);
        let outcome = project.offload(&["-v", "run", "--trace", "--record-history"]).expect_code(1);
        all_clean(&project, &outcome);
        assert!(outcome.stdout.contains("***"), "{}", outcome.stdout);
        for arguments in [
            &["validate"][..],
            &["-v", "plan"],
            &["plan", "-f", "json"],
            &["-v", "collect"],
            &["logs"],
            &["history", "show"],
            &["checkpoint-status"],
            &["gc"],
        ] {
            let outcome = project.offload(arguments);
            clean(&arguments.join(" "), &(outcome.stdout + &outcome.stderr));
        }
    }
}

/// The secret from the environment, in the commands themselves.
fn in_commands(provider: &str) -> Project {
    let project = remote(&["a", "b"], "[groups.all]", "secret_env = [\"TOKEN\"]", "");
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let with = |config: String, kind: &str| {
        config
            .replace(&format!("sh provider {kind}"), &format!("TOKEN=\\\"${{TOKEN}}\\\" sh provider {kind}"))
    };
    let config = ["create", "exec", "destroy"].iter().fold(config, |config, kind| with(config, kind));
    project.config(&config).file("provider", provider).env("TOKEN", SECRET)
}

#[test]
fn not_in_what_commands_of_a_provider_complain_of() {
    let says = "echo \"$TOKEN\" >&2; printf '%s' \"$TOKEN\" | sed 's/^/and /' >&2; echo >&2; ";
    for failing in ["create", "exec", "destroy"] {
        let provider = format!(
            "{says} [ $1 = {failing} ] && exit 3; case $1 in create) echo sb ;; exec) exec sh -c \"$3\" ;; esac"
        );
        let project = in_commands(&provider);
        let outcome = project.offload(&["-v", "run", "--trace"]);
        assert_ne!((failing == "destroy", outcome.code), (false, Some(0)));
        all_clean(&project, &outcome);
        let outcome = project.offload(&["-v", "gc"]);
        clean("gc", &(outcome.stdout + &outcome.stderr));
        let validate = project.offload(&["validate"]).expect_code(0);
        clean("validate", &(validate.stdout + &validate.stderr));
    }
}

#[test]
fn not_in_part_where_a_message_is_cut() {
    // The end of what a command complains of is shown: wherever that begins, it is not within a secret.
    for length in (1976..2000).step_by(3) {
        let provider =
            format!("printf '%s' \"$TOKEN\" >&2; head -c {length} /dev/zero | tr '\\\\0' x >&2; exit 3");
        let project = in_commands(&provider);
        let outcome = project.offload(&["run"]).expect_code(4);
        for part in ["9137", "cr3", "lue"] {
            assert!(!outcome.stderr.contains(part), "{length}: {}", outcome.stderr);
        }
    }
    // The beginning of a command that cannot be started is shown.
    for length in (100..200).step_by(13) {
        let project = remote(&["a"], "[groups.all]", &secret_table(), "");
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let long = format!("X={} sh provider exec", "x".repeat(length));
        let config = config
            .replace("sh provider exec", &long)
            .replace("destroy_command", "working_dir = \"gone\"\ndestroy_command");
        let project = project
            .config(&config.replace("sh provider create", "sh ../provider create"))
            .file("gone/on-create", "mv ../gone ../away");
        let outcome = project.offload(&["run"]);
        assert!(outcome.stderr.contains("cannot start"), "{}", outcome.stderr);
        all_clean(&project, &outcome);
    }
    // Also that of a command that is too long.
    for length in (100..200).step_by(13) {
        let project = project(&["a"], &secret_table());
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let long = format!(": {} {SECRET} {}; cat list", "x".repeat(length), "y".repeat(200_000));
        let project = project.config(
            &config.replace("discover_command = \"cat list", &format!("discover_command = \"{long}")),
        );
        let outcome = project.offload(&["run"]).expect_code(4);
        assert!(outcome.stderr.contains("cannot start"), "{}", outcome.stderr);
        for part in ["9137", "cr3", "lue"] {
            assert!(!outcome.stderr.contains(part), "{length}: {}", outcome.stderr);
        }
    }
}

#[test]
fn not_in_part_where_a_report_has_too_much() {
    // Texts of a report are cut in the middle; the secret is everywhere.
    let runner = r#"out=$1; x=$(printf '%s' "$TOKEN" | sed "s/'/\&apos;/g")
        { printf "<testsuite><testcase name='a'><failure message='"; for i in $(seq 400); do printf '%s' "$x$x$x$x$x"; done
        printf "'>"; i=0; while [ $i -lt 4000 ]; do printf '%s' "$x$x$x$x$x"; i=$((i+1)); done
        printf '</failure><system-out>'; i=0; while [ $i -lt 4000 ]; do printf '%s' "$x$x$x$x$x"; i=$((i+1)); done
        echo '</system-out></testcase></testsuite>'; } > "$out"; exit 1"#;
    for shift in 0..3 {
        let project = project(&["a"], &secret_table())
            .file("runner", &runner.replace("'>\";", &format!("'>{}\";", "y".repeat(shift * 7))));
        let outcome = project.offload(&["run"]).expect_code(1);
        all_clean(&project, &outcome);
        let report = fs::read_to_string(project.path().join("test-results/junit.xml")).unwrap();
        for part in ["9137", "s3c", "v@l"] {
            assert!(!report.contains(part), "a part of a secret stays: {part}");
        }
    }
}

#[test]
fn not_in_the_complaint_of_a_listing() {
    let project = project(&["a"], &secret_table());
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let listing = "echo \\\"$TOKEN\\\" >&2; exit 3 # {filters}";
    let project = project.config(&config.replace("cat list # {filters}", listing));
    for command in ["run", "collect", "plan"] {
        let outcome = project.offload(&["-v", command]).expect_code(4);
        assert!(outcome.stderr.contains("***"), "{}", outcome.stderr);
        clean(command, &(outcome.stdout + &outcome.stderr));
    }
}
