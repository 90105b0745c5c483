//! What the flags do, and what they say where they cannot do it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::runner::{configured, project};

#[test]
fn the_timeline_has_a_track_for_the_phases_and_one_for_each_sandbox() {
    let project = project(&["pass 1", "pass 2", "fail"], "");
    project.offload(&["run", "--parallel", "3", "--trace"]).expect_code(1);
    let text = fs::read_to_string(project.path().join("test-results/trace.json")).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let names = |phase: &str, of: fn(&Value) -> &Value| -> BTreeSet<String> {
        let found = events.iter().filter(|event| event["ph"] == phase);
        found.map(|event| of(event).as_str().unwrap_or_default().to_owned()).collect()
    };
    let tracks = names("M", |event| &event["args"]["name"]);
    let slices = names("X", |event| &event["name"]);
    for track in ["phases", "sandbox 0", "sandbox 0: results", "sandbox 1", "sandbox 2"] {
        assert!(tracks.contains(track), "{track}: {tracks:?}");
    }
    for slice in [
        "config",
        "discovery",
        "plan",
        "run",
        "write the report",
        "batch 0",
        "read batch 0",
        "fetch the report",
    ] {
        assert!(slices.contains(slice), "{slice}: {slices:?}");
    }
    project.offload(&["run"]).expect_code(1);
    assert!(!project.path().join("test-results/trace.json").exists(), "a stale timeline is removed");
}

#[test]
fn flags_of_other_providers_say_what_they_need() {
    let project = project(&["pass 1"], "");
    for (flags, code, text) in [
        (&["--copy-dir", "a:b"][..], 3, "requires a provider whose sandboxes have their own files"),
        (&["--override-image-id", "im-1"], 3, "requires the provider `modal`"),
        (&["--record-history"], 3, "requires a [history] section"),
        (&["--no-cache"], 0, "`local` builds no image"),
        (&["--show-estimated-cost"], 0, "`local` costs nothing"),
        (&["--env", "novalue"], 3, "expected KEY=VALUE"),
        (&["--parallel", "0"], 3, "--parallel"),
        (&["--nonsense"], 3, "--nonsense"),
    ] {
        let outcome = project.offload(&[&["run"], flags].concat()).expect_code(code);
        assert!(outcome.stderr.contains(text), "{flags:?}: {}", outcome.stderr);
    }
}

#[test]
fn mistakes_in_the_configuration_name_place_and_nearest_key_and_run_nothing() {
    let project = configured(&["pass 1"], "[groups.all]\nretry_cuont = 1", "");
    for command in ["run", "collect", "validate", "logs"] {
        let outcome = project.offload(&[command]).expect_code(3);
        assert!(
            outcome.stderr.contains("offload.toml:9:1") && outcome.stderr.contains("`retry_count`"),
            "{}",
            outcome.stderr
        );
    }
    let outcome = project.offload(&["-c", "other.toml", "run"]).expect_code(3);
    assert!(
        outcome.stderr.contains("cannot read config `other.toml`") && outcome.stderr.contains("hint:"),
        "{}",
        outcome.stderr
    );
    assert!(!project.path().join("test-results").exists());
}

#[test]
fn downloads_may_be_limited_to_batches_with_a_failure() {
    let runner = "out=$1; shift; code=0; echo '<testsuite>' > \"$out\"; for id; do echo x > \"shot-$id.png\"; case $id in \
                  bad*) code=1; echo \"<testcase name='$id'><failure/></testcase>\" ;; *) echo \"<testcase name='$id'/>\" ;; esac; \
                  done >> \"$out\"; echo '</testsuite>' >> \"$out\"; exit $code";
    let project =
        configured(&["bad", "good"], "[groups.all]\nschedule_individual = true", "").file("runner", runner);
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let globs = "[report]\ndownload_globs = [\"shot-*.png\"]\ndownload_globs_failure_only = true";
    let project = project.config(&config.replace("[report]", globs));
    project.offload(&["run", "--parallel", "1"]).expect_code(1);
    let directory = project.path().join("test-results/downloads");
    let found: Vec<String> = fs::read_dir(&directory)
        .unwrap()
        .flat_map(|batch| fs::read_dir(batch.unwrap().path()).unwrap())
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(found.contains(&"shot-bad.png".to_owned()), "{found:?}");
    let batches = fs::read_dir(&directory).unwrap().count();
    assert_eq!(batches, 1, "only the batch that failed");
}

#[test]
fn plain_output_has_no_control_characters_and_stdout_no_chatter() {
    let project = project(&["pass 1"], "");
    let outcome = project.offload(&["run", "--ci", "-v"]).expect_code(0);
    assert!(!outcome.stdout.contains('\u{1b}') && !outcome.stderr.contains(['\u{1b}', '\r']));
    assert_eq!(outcome.stdout.lines().count(), 2, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("offload: debug: batch 0: sh runner"), "{}", outcome.stderr);
    let listed = project.offload(&["collect", "-f", "json", "-v"]).expect_code(0);
    assert!(serde_json::from_str::<Value>(&listed.stdout).unwrap().is_array());
}

#[test]
fn the_second_run_is_planned_from_the_report_of_the_first() {
    // The slow one is the last of the list: known, it starts first.
    let runner = "out=$1; shift; { echo '<testsuite>'; for id; do echo \"$id\" >> order; \
                  case $id in slow) t=9;; *) t=0.1;; esac; echo \"<testcase name='$id' time='$t'/>\"; done; \
                  echo '</testsuite>'; } > \"$out\"";
    let project = configured(&["a", "b", "slow"], "[groups.all]\nschedule_individual = true", "")
        .file("runner", runner);
    project.offload(&["run", "--parallel", "1"]).expect_code(0);
    fs::remove_file(project.path().join("order")).unwrap();
    project.offload(&["run", "--parallel", "1"]).expect_code(0);
    let order = fs::read_to_string(project.path().join("order")).unwrap();
    assert!(order.starts_with("slow\n"), "{order}");
}
