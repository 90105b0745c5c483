//! `offload plan` tells what a run would do, always the same, and runs nothing.

use serde_json::Value;

use crate::runner::{configured, ran};
use crate::support::Project;

/// A project of which a history knows all tests but `new`; `long` takes as long as all others.
fn known(more: &str) -> Project {
    let line = |id: &str, seconds: f64| {
        let sample = |run: u32| format!("[\"r{run}\",{}000,{seconds}]", 1_700_000_000 + run);
        let samples = format!("{},{}", sample(1), sample(2));
        format!(
            "{{\"k\":[\"offload.toml\",\"{id}\"],\"v\":{{\"n\":2,\"f\":0,\"last_run\":\"r2\",\"ok\":[{samples}],\"fail\":[]}}}}\n"
        )
    };
    let mut tests: Vec<String> = (0..20).map(|number| format!("short-{number:02}")).collect();
    let mut history: String = tests.iter().map(|id| line(id, 0.5)).collect();
    history += &line("long", 10.0);
    tests.extend(["long".into(), "new".into()]);
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    configured(&tests, "[groups.all]", &format!("[history]\n{more}")).file("offload-history.jsonl", &history)
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    let outcome = project.offload(&[&["plan", "--format", "json"], arguments].concat()).expect_code(0);
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn the_plan_names_every_test_once_and_the_test_that_sets_the_bound() {
    let project = known("");
    let plan = json(&project, &["--parallel", "4"]);
    let batches = plan["batches"].as_array().unwrap();
    let mut ids: Vec<&str> = batches
        .iter()
        .flat_map(|batch| batch["tests"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()))
        .collect();
    ids.sort_unstable();
    let before = ids.len();
    ids.dedup();
    assert_eq!((before, ids.len()), (22, 22));
    assert_eq!(
        (&plan["tests"], &plan["measured_tests"], &plan["sandboxes"]),
        (&22.into(), &21.into(), &4.into())
    );
    assert_eq!(plan["bound_set_by"], "long");
    assert_eq!(batches[0]["tests"], serde_json::json!(["long"]), "the longest test starts first, alone");
    let seconds = |key: &str| plan[key].as_f64().unwrap();
    assert!((seconds("bound_seconds") - 10.1).abs() < 0.01 && seconds("ratio") < 1.1, "{plan}");
    assert_eq!(ran(&project), Vec::<String>::new(), "nothing ran");
    assert!(!project.path().join("test-results").exists(), "nothing was written");
}

#[test]
fn the_plan_is_the_same_each_time() {
    let project = known("");
    let plan = || project.offload(&["plan"]).expect_code(0).stdout;
    let first = plan();
    assert_eq!(first, plan());
    for text in ["22 tests (21 measured)", "predicted", "lower bound 10.1 s (`long`)", "ratio 1.0", "<- knee"]
    {
        assert!(first.contains(text), "`{text}` in {first}");
    }
}

#[test]
fn more_sandboxes_take_less_time_and_cost_what_they_cost() {
    let project = known("[cost]\nusd_per_core_second = 0.01\n");
    let plan = json(&project, &[]);
    let rows = plan["sandbox_counts"].as_array().unwrap();
    let column = |key: &str| -> Vec<f64> { rows.iter().map(|row| row[key].as_f64().unwrap()).collect() };
    assert!(column("sandboxes").starts_with(&[1.0, 2.0, 4.0, 8.0]), "{plan}");
    assert!(column("sandboxes").contains(&10.0), "the configured number has a row");
    let times = column("predicted_seconds");
    assert!(times.is_sorted_by(|one, more| *more <= one * 1.02), "{times:?}");
    for (seconds, cost) in column("sandbox_seconds").iter().zip(column("estimated_cost_usd")) {
        assert!((cost - seconds * 0.01).abs() < 1e-9, "one core at a cent a second");
    }
    assert_eq!(rows.iter().filter(|row| row["is_knee"] == true).count(), 1);
    // Two machines halve the time; four cannot go below the long test.
    assert_eq!(rows.iter().find(|row| row["is_knee"] == true).unwrap()["sandboxes"], 2);
}

#[test]
fn nothing_known_is_said_and_no_tests_are_an_error() {
    let project = configured(&["a", "b"], "[groups.all]", "");
    let plan = json(&project, &[]);
    assert_eq!((&plan["measured_tests"], &plan["noise"]), (&0.into(), &Value::Null));
    configured(&[], "[groups.all]", "").offload(&["plan"]).expect_code(1);
    project.offload(&["plan", "--parallel", "0"]).expect_code(3);
}
