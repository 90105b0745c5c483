//! The configuration as users write it: the examples of the requirements, every key, every mistake.

use std::path::Path;
use std::time::Duration;

use offload::internals::config::{self, Config, FrameworkKind, Mistakes, Provider, RecordHistory};
use offload::internals::error::{Problem, Status};

const NEXTEST_LOCAL: &str = include_str!("../examples/configs/nextest-local.toml");

const PYTEST_COMMANDS: &str = include_str!("../examples/configs/pytest-commands.toml");

const NEXTEST_MODAL: &str = include_str!("../examples/configs/nextest-modal.toml");

const INIT_COMMAND: &str = include_str!("../examples/configs/pytest-init-command.toml");

/// Tables that the requirements show on their own.
const POST_PATCH: &str = r#"
[offload]
max_parallel = 40
test_timeout_secs = 60
sandbox_repo_root = "/code/myproject"
sandbox_init_cmd = "uv sync --all-packages"
post_patch_cmd = "make generate-client"
"#;

const HISTORY: &str = r#"
[history]
record_history = "flag"
path = "offload-history.jsonl"
reservoir_size = 20
default_duration_secs = 1.0
"#;

/// All that must be there.
const LEAST: &str = "[provider]\ntype = \"local\"\n[framework]\ntype = \"pytest\"\n[groups.all]\n";

fn environment(name: &str) -> Option<String> {
    (name == "SET").then(|| "value".to_owned())
}

fn parse(text: &str) -> Result<Config, Mistakes> {
    config::parse(text, "o.toml", &environment)
}

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

fn mistakes(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(config) => panic!("no mistake: {config:?}"),
        Err(mistakes) => mistakes.list.iter().map(ToString::to_string).collect(),
    }
}

/// The one mistake of `text`, without file and place.
fn mistake(text: &str) -> String {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}\n{text}");
    mistakes[0].splitn(4, ':').skip(3).collect::<String>().trim_start().to_owned()
}

#[test]
fn every_example_of_the_requirements_is_valid() {
    for text in [NEXTEST_LOCAL, PYTEST_COMMANDS, NEXTEST_MODAL, INIT_COMMAND] {
        valid(text);
    }
    valid(&format!("{POST_PATCH}{LEAST}{HISTORY}"));
    let options = "[provider]\ntype = \"modal\"\n[provider.experimental_options]\nenable_docker = true\n";
    let config = valid(&format!("{options}[framework]\ntype = \"vitest\"\n[groups.all]\n"));
    let Provider::Modal(modal) = config.provider else { panic!() };
    assert_eq!(modal.experimental_options.to_string(), r#"{"enable_docker":true}"#);
}

#[test]
fn groups_and_variables_keep_the_order_of_the_file() {
    let names: Vec<_> = valid(PYTEST_COMMANDS).groups.into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["unit", "slow", "flaky"]);
    let text = format!("{LEAST}[provider.env]\nZ = \"1\"\nA = \"${{SET}}\"\nM = \"\"\n");
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(valid(&text).test_env(), [pair("Z", "1"), pair("A", "value"), pair("M", "")]);
}

#[test]
fn defaults_are_those_of_the_requirements() {
    let config = valid(LEAST);
    assert_eq!((config.offload.max_parallel, config.offload.max_parallel_collection), (10, None));
    assert_eq!(config.offload.test_timeout, Duration::from_secs(900));
    assert_eq!(config.offload.discovery_timeout, Duration::from_secs(900));
    assert!(!config.requeues_impatiently());
    assert_eq!((config.history, config.checkpoint), (None, None));
    assert_eq!((config.report.output_dir.as_path(), config.report.junit), (Path::new("test-results"), true));
    assert_eq!((config.report.junit_file.as_str(), config.report.download_globs.len()), ("junit.xml", 0));
    assert!(!config.report.download_globs_failure_only);
    let group = &config.groups[0];
    assert_eq!((group.retry_count, group.filters.as_str(), group.schedule_individual), (0, "", false));
    let Provider::Local(local) = config.provider else { panic!() };
    assert_eq!((local.shell.as_str(), local.working_dir, local.env.len()), ("/bin/sh", None, 0));

    let history = valid(&format!("{LEAST}[history]\n")).history.unwrap();
    assert_eq!((history.record, history.reservoir_size), (RecordHistory::Flag, 20));
    assert_eq!(history.path, Path::new("offload-history.jsonl"));
    assert_eq!(history.default_duration, Duration::from_secs(1));

    let Provider::Modal(modal) = valid(NEXTEST_MODAL).provider else { panic!() };
    assert_eq!((modal.cpu_cores, modal.memory_gb), (0.125, None));
    assert_eq!(modal.experimental_options.to_string(), "{}");
    let without_timeout = PYTEST_COMMANDS.replacen("\ntimeout_secs = 600", "", 1);
    let Provider::Command(command) = valid(&without_timeout).provider else { panic!() };
    assert_eq!((command.cpu_cores, command.timeout), (1.0, Duration::from_secs(3600)));
}

#[test]
fn each_framework_has_its_own_defaults() {
    let framework = |kind: &str| valid(&LEAST.replace("pytest", kind)).framework;
    let pytest = framework("pytest");
    assert_eq!(pytest.test_id_format, "{name}");
    let FrameworkKind::Pytest { command, paths: None, run_args: None } = pytest.kind else { panic!() };
    assert_eq!(command, "python -m pytest");
    assert_eq!(framework("nextest").test_id_format, "{classname} {name}");
    let vitest = framework("vitest");
    assert_eq!(vitest.test_id_format, "{classname} > {name}");
    assert_eq!(vitest.kind, FrameworkKind::Vitest { command: "npx vitest".to_owned(), run_args: None });
}

#[test]
fn sandbox_roots_default_to_each_other_and_locally_to_here() {
    let roots = |text: &str| {
        let offload = valid(text).offload;
        (offload.sandbox_repo_root, offload.sandbox_project_root)
    };
    let both = |root: &str| (Some(root.to_owned()), Some(root.to_owned()));
    assert_eq!(roots(LEAST), both("."));
    for (table, expected) in [
        ("[offload]\nsandbox_repo_root = \"/a\"\n", both("/a")),
        ("[offload]\nsandbox_project_root = \"/b\"\n", both("/b")),
    ] {
        assert_eq!(roots(&format!("{table}{LEAST}")), expected);
        assert_eq!(roots(&format!("{table}{}", LEAST.replace("local", "modal"))), expected);
    }
    assert_eq!(roots(&LEAST.replace("local", "modal")), (None, None));
}

#[test]
fn late_batches_run_twice_if_configured_or_if_sandboxes_have_their_own_files() {
    for (provider, usual) in [("local", false), ("modal", true)] {
        let rest = LEAST.replace("local", provider);
        let shown = |value: bool| format!("  impatiently_requeue_batches  {value}\n");
        let config = valid(&rest);
        assert_eq!(config.requeues_impatiently(), usual);
        assert!(config.summary(&[]).contains(&shown(usual)), "{}", config.summary(&[]));
        for told in [true, false] {
            let text = format!("[offload]\nimpatiently_requeue_batches = {told}\n{rest}");
            let config = valid(&text);
            assert_eq!(config.requeues_impatiently(), told);
            assert!(config.summary(&[]).contains(&shown(told)));
        }
    }
}

#[test]
fn keys_of_the_peers_newer_editions_are_read() {
    let text = r#"
[offload]
impatiently_requeue_batches = false
max_parallel_collection = 0
discovery_timeout_secs = 5
[provider]
type = "modal"
secret_env = ["TOKEN"]
env = { TOKEN = "${SET}", OTHER = "x" }
[framework]
type = "pytest"
env = { TOKEN = "second", ROOT = "{root}" }
prepend_path = ["{root}/bin"]
discovery_args = "-p 'no:cacheprovider'"
[groups."all of it"]
[checkpoint]
build_inputs = ["uv.lock"]
"#;
    let config = valid(text);
    assert!(!config.requeues_impatiently());
    assert_eq!(config.offload.max_parallel_collection, None);
    assert_eq!(config.offload.discovery_timeout, Duration::from_secs(5));
    assert_eq!(config.framework.prepend_path, ["{root}/bin"]);
    assert_eq!(config.groups[0].name, "all of it");
    assert_eq!(config.checkpoint.as_ref().unwrap().build_inputs, ["uv.lock"]);
    let inherited = |name: &str| (name == "TOKEN").then(|| "third".to_owned());
    assert_eq!(config.secrets(&inherited), ["value", "second", "third"]);
}

#[test]
fn texts_are_expanded_everywhere_and_shell_syntax_survives() {
    let text = r#"
[provider]
type = "${TYPE:-default}"
create_command = 'echo $$ ${p%%:*} $(date) $${SET}'
exec_command = "x ${SET} {command}"
destroy_command = "y"
copy_dirs = ["${SET}:${TO:-/to}"]
[framework]
type = "pytest"
paths = ["a", "${SET}"]
[groups.all]
filters = "-k '${SET}'"
"#;
    let config = valid(text);
    let Provider::Command(command) = config.provider else { panic!() };
    assert_eq!(command.create_command, "echo $$ ${p%%:*} $(date) ${SET}");
    assert_eq!((command.exec_command.as_str(), &*command.copy_dirs[0]), ("x value {command}", "value:/to"));
    assert_eq!(config.groups[0].filters, "-k 'value'");
}

#[test]
fn files_that_cannot_be_read_are_usage_problems() {
    let directory = tempfile::tempdir().unwrap();
    let problem = Problem::from(config::load(Path::new("no-such.toml"), &environment).unwrap_err());
    assert_eq!(
        problem.error.to_string(),
        "cannot read config `no-such.toml`: No such file or directory (os error 2)"
    );
    assert_eq!(problem.hint.as_deref(), Some("run `offload -c no-such.toml init` to write one"));
    assert_eq!(problem.status, Status::Usage);

    let file = directory.path().join("o.toml");
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        config::load(&file, &environment).map_err(|mistakes| mistakes.list[0].clone())
    };
    let error = load(b"a = 1\nb = \"\xff\"\n").unwrap_err();
    assert_eq!(error.to_string(), format!("{}:2:6: invalid TOML: not UTF-8", file.display()));
    let error = load(b"[offload]\nmax_parallel 4\n").unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}:2:", file.display())), "{error}");
    assert!(error.message.starts_with("invalid TOML: "), "{error}");
    assert!(load(format!("\u{feff}{}", LEAST.replace('\n', "\r\n")).as_bytes()).is_ok());
}

#[test]
fn no_text_is_rejected_without_a_mistake_or_panics() {
    let whole = format!("{PYTEST_COMMANDS}{HISTORY}");
    for end in (0..whole.len()).step_by(3) {
        for text in [&whole[..end], &whole[end..]] {
            if let Err(mistakes) = parse(text) {
                assert!(!mistakes.list.is_empty() && mistakes.list.iter().all(|one| one.place.is_some()));
            }
        }
    }
    for line in whole.lines() {
        if let Err(mistakes) = parse(&whole.replacen(line, "", 1)) {
            assert!(!mistakes.list.is_empty());
        }
    }
}

#[path = "config/mistakes.rs"]
mod wrong;

#[test]
fn the_cost_of_a_sandbox_is_that_of_its_cores_and_memory() {
    let price = |text: &str| valid(text).usd_per_sandbox_second();
    let modal = LEAST.replace("type = \"local\"", "type = \"modal\"\ncpu_cores = 2.0\nmemory_gb = 4.0");
    assert!(modal != LEAST, "the least configuration is local");
    assert!((price(&modal) - (2.0 * 0.000_039_42 + 4.0 * 0.000_006_67)).abs() < 1e-12);
    assert!(
        (price(&format!("{modal}[cost]\nusd_per_core_second = 1\n")) - (2.0 + 4.0 * 0.000_006_67)).abs()
            < 1e-12
    );
    assert_eq!(price(LEAST).to_bits(), 0.0f64.to_bits());
    assert!((price(&format!("{LEAST}[cost]\nusd_per_core_second = 0.5\n")) - 0.5).abs() < 1e-12);
}
