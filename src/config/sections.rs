//! Reads the top level of the file and the tables that do not depend on a `type`.

use std::time::Duration;

use super::check;
use super::read::{Table, Value};
use super::{
    Checkpoint, Config, Framework, FrameworkKind, GroupConfig, History, Offload, Provider, RecordHistory,
    Report, cost, framework, provider,
};
use crate::model::KeepTogether;

/// The configuration; valid only if no mistake was reported. `None` was reported as one.
pub(super) fn read(root: &mut Table<'_>) -> Option<Config> {
    let offload = root.read("offload", |value| value.table(offload)).unwrap_or_default();
    let provider = root.need("provider", |value| value.table(provider::read)).flatten();
    let framework = root.need("framework", |value| value.table(framework::read)).flatten();
    let groups = root.need("groups", |value| groups(value, framework.as_ref()));
    let report = root.read("report", |value| value.table(report)).unwrap_or_default();
    let history = root.read("history", |value| value.table(history));
    let checkpoint = root.read("checkpoint", |value| value.table(checkpoint));
    let cost = root.read("cost", |value| value.table(cost::read));
    let mut config = Config {
        offload,
        provider: provider?,
        framework: framework?,
        groups: groups?,
        report,
        history,
        checkpoint,
        cost,
    };
    if config.shares_result_file() {
        root.read("framework", |value| {
            value.table(|framework| {
                framework.leave_open();
                framework.fail(
                    "run_command",
                    "must contain `{result_file}`, since local sandboxes would overwrite each other's \
                     `result_file`; or set `max_parallel = 1`",
                );
            })
        });
    }
    default_roots(&mut config);
    Some(config)
}

fn default_roots(config: &mut Config) {
    let here = matches!(config.provider, Provider::Local(_)).then(|| ".".to_owned());
    let offload = &mut config.offload;
    let repo = offload.sandbox_repo_root.clone();
    let project = offload.sandbox_project_root.clone();
    offload.sandbox_repo_root = repo.clone().or(project.clone()).or(here.clone());
    offload.sandbox_project_root = project.or(repo).or(here);
}

fn offload(table: &mut Table<'_>) -> Offload {
    let default = Offload::default();
    Offload {
        max_parallel: table.read("max_parallel", |value| value.count(1)).unwrap_or(default.max_parallel),
        // 0 means one per core.
        max_parallel_collection: table
            .read("max_parallel_collection", |value| value.count(0))
            .filter(|count| *count > 0),
        test_timeout: table.read("test_timeout_secs", Value::seconds).unwrap_or(default.test_timeout),
        discovery_timeout: table
            .read("discovery_timeout_secs", Value::seconds)
            .unwrap_or(default.discovery_timeout),
        working_dir: table.read("working_dir", Value::path),
        sandbox_repo_root: table.read("sandbox_repo_root", Value::filled),
        sandbox_project_root: table.read("sandbox_project_root", Value::filled),
        sandbox_init_cmd: table.read("sandbox_init_cmd", Value::optional).flatten(),
        post_patch_cmd: table.read("post_patch_cmd", Value::optional).flatten(),
        impatiently_requeue_batches: table.read("impatiently_requeue_batches", Value::boolean),
    }
}

impl Default for Offload {
    fn default() -> Offload {
        Offload {
            max_parallel: 10,
            max_parallel_collection: None,
            test_timeout: Duration::from_secs(900),
            discovery_timeout: Duration::from_secs(900),
            working_dir: None,
            sandbox_repo_root: None,
            sandbox_project_root: None,
            sandbox_init_cmd: None,
            post_patch_cmd: None,
            impatiently_requeue_batches: None,
        }
    }
}

fn groups(value: &Value<'_>, framework: Option<&Framework>) -> Option<Vec<GroupConfig>> {
    let groups = value.entries(|name, value| value.table(|table| group(name, table, framework)))?;
    if value.is_empty() {
        value.fail("must contain at least one group, e.g. [groups.all]")
    } else {
        Some(groups)
    }
}

fn group(name: &str, table: &mut Table<'_>, framework: Option<&Framework>) -> GroupConfig {
    let is_custom = |known: &Framework| matches!(known.kind, FrameworkKind::Custom { .. });
    // Those of a custom framework become part of a shell command, possibly within quotes.
    let filters = if framework.is_none_or(is_custom) { Value::text } else { check::words };
    let schedule_individual = table.read("schedule_individual", Value::boolean).unwrap_or(false);
    let keep_together = |value: &Value<'_>| match value.choice()? {
        KeepTogether::Test => Some(KeepTogether::Test),
        _ if framework.is_some_and(is_custom) => {
            value.fail("must be `test`: of tests of type `default` no class or file is known")
        }
        _ if schedule_individual => value.fail("must be `test` beside `schedule_individual = true`"),
        kept => Some(kept),
    };
    GroupConfig {
        name: name.to_owned(),
        retry_count: table.read("retry_count", |value| value.integer(0..=u32::MAX - 1)).unwrap_or(0),
        filters: table.read("filters", filters).unwrap_or_default(),
        schedule_individual,
        max_parallel: table.read("max_parallel", |value| value.count(1)),
        keep_together: table.read("keep_together", keep_together).unwrap_or_default(),
    }
}

fn report(table: &mut Table<'_>) -> Report {
    let default = Report::default();
    Report {
        output_dir: table.read("output_dir", Value::path).unwrap_or(default.output_dir),
        junit: table.read("junit", Value::boolean).unwrap_or(default.junit),
        junit_file: table.read("junit_file", check::file_name).unwrap_or(default.junit_file),
        download_globs: table.read("download_globs", check::globs).unwrap_or_default(),
        download_globs_failure_only: table
            .read("download_globs_failure_only", Value::boolean)
            .unwrap_or(default.download_globs_failure_only),
    }
}

impl Default for Report {
    fn default() -> Report {
        Report {
            output_dir: "test-results".into(),
            junit: true,
            junit_file: "junit.xml".to_owned(),
            download_globs: Vec::new(),
            download_globs_failure_only: false,
        }
    }
}

fn history(table: &mut Table<'_>) -> History {
    let duration = |value: &Value<'_>| match Duration::try_from_secs_f64(value.amount()?) {
        Ok(duration) => Some(duration),
        Err(_) => value.fail("is too large"),
    };
    History {
        record: table.read("record_history", Value::choice).unwrap_or(RecordHistory::Flag),
        path: table.read("path", Value::path).unwrap_or_else(|| "offload-history.jsonl".into()),
        reservoir_size: table.read("reservoir_size", |value| value.count(1)).unwrap_or(20),
        default_duration: table.read("default_duration_secs", duration).unwrap_or(Duration::from_secs(1)),
    }
}

fn checkpoint(table: &mut Table<'_>) -> Checkpoint {
    let build_inputs = |value: &Value<'_>| {
        let paths = check::names(value)?;
        if value.is_empty() { value.fail("must list at least one path") } else { Some(paths) }
    };
    Checkpoint { build_inputs: table.need("build_inputs", build_inputs).unwrap_or_default() }
}
