//! `offload.toml`, with all defaults applied. Whether programs and paths exist is checked where they are used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{GroupIndex, GroupLimit, KeepTogether};

mod check;
mod cost;
mod expand;
mod framework;
mod kinds;
mod mistakes;
mod provider;
mod read;
mod sections;
mod summary;
mod tree;

pub use check::split_copy_dir;
pub use cost::Cost;
pub use kinds::{Choice, FrameworkType, ProviderType};
pub use mistakes::Mistakes;

/// Reads the file at `path`; `environment` looks up the variables for `${VAR}`.
///
/// # Errors
/// All mistakes in the file, or the failure to read it.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Config, Mistakes> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| Mistakes::unreadable(&file, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    if let Err(error) = std::str::from_utf8(&bytes) {
        let notes = mistakes::Notes::new(&file, &text);
        notes.add(&(error.valid_up_to()..error.valid_up_to()), "", "invalid TOML: not UTF-8".to_owned());
        return notes.settle(None);
    }
    parse(&text, &file, environment)
}

/// Reads `text`; `file_name` is its name in messages.
///
/// # Errors
/// All mistakes in the text.
pub fn parse(
    text: &str,
    file_name: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    // A byte order mark would shift the first column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let notes = mistakes::Notes::new(file_name, text);
    let config = tree::parse(text, environment, &notes)
        .and_then(|root| read::Value::root(&root, &notes).table(sections::read).flatten());
    notes.settle(config)
}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[offload]`.
    pub offload: Offload,
    /// `[provider]`.
    pub provider: Provider,
    /// `[framework]`.
    pub framework: Framework,
    /// `[groups.*]`, in file order; never empty.
    pub groups: Vec<GroupConfig>,
    /// `[report]`.
    pub report: Report,
    /// `[history]`.
    pub history: Option<History>,
    /// `[checkpoint]`.
    pub checkpoint: Option<Checkpoint>,
    /// `[cost]`.
    pub cost: Option<Cost>,
}

impl Config {
    /// The groups that have a maximum number of batches at once.
    pub fn group_limits(&self) -> Vec<GroupLimit> {
        let limits = (0..).map(GroupIndex).zip(self.groups.iter().map(|group| group.max_parallel));
        limits.filter_map(|(group, most)| Some(GroupLimit { group, most: most? })).collect()
    }

    /// The environment variables that the provider sets for tests.
    pub fn test_env(&self) -> &[(String, String)] {
        match &self.provider {
            Provider::Local(local) => &local.env,
            Provider::Command(command) => &command.env,
            Provider::Modal(modal) => &modal.env,
        }
    }

    /// The names of environment variables whose values are never shown.
    pub fn secret_env(&self) -> &[String] {
        match &self.provider {
            Provider::Local(local) => &local.secret_env,
            Provider::Command(command) => &command.secret_env,
            Provider::Modal(modal) => &modal.secret_env,
        }
    }

    /// The directory on this machine in which tests are listed, absolute or relative to the current directory.
    pub fn local_root(&self) -> PathBuf {
        let offload = &self.offload;
        match &self.provider {
            Provider::Local(local) => {
                let directory = local.working_dir.as_ref().or(offload.working_dir.as_ref());
                let project = offload.sandbox_project_root.as_deref().unwrap_or(".");
                directory.map_or_else(|| project.into(), |directory| directory.join(project))
            }
            Provider::Command(_) | Provider::Modal(_) => {
                offload.working_dir.clone().unwrap_or_else(|| ".".into())
            }
        }
    }

    /// The values of the variables in [`Config::secret_env`], from the file and from `environment`.
    pub fn secrets(&self, environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let is_secret = |name: &String| self.secret_env().contains(name);
        let configured = self.test_env().iter().chain(&self.framework.env);
        let configured = configured.filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone());
        let inherited = self.secret_env().iter().filter_map(|name| environment(name));
        configured.chain(inherited).collect()
    }

    /// Whether a late batch may get a speculative run. By default only if sandboxes have their own files: in a
    /// shared directory the two runs could make each other fail, and a false failure is worse than a late end.
    pub fn requeues_impatiently(&self) -> bool {
        let own_files = !matches!(self.provider, Provider::Local(_));
        self.offload.impatiently_requeue_batches.unwrap_or(own_files)
    }

    /// Whether sandboxes would overwrite each other's result file: `run_command` has a fixed file name, and there are
    /// several local sandboxes. Reading a configuration rules this out, but `max_parallel` can be changed on
    /// the command line.
    pub fn shares_result_file(&self) -> bool {
        let has_fixed_name = matches!(
            &self.framework.kind,
            FrameworkKind::Custom { run_command, result_file: Some(_), .. }
                if !run_command.contains("{result_file}")
        );
        has_fixed_name && self.offload.max_parallel > 1 && matches!(self.provider, Provider::Local(_))
    }
}

/// `[offload]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Offload {
    /// Maximum number of concurrent sandboxes; at least 1.
    pub max_parallel: usize,
    /// Maximum number of concurrent list commands, at least 1; `None` means one per core.
    pub max_parallel_collection: Option<usize>,
    /// The timeout of a batch.
    pub test_timeout: Duration,
    /// The timeout of a list command.
    pub discovery_timeout: Duration,
    /// Where tests run; `None` is the current directory.
    pub working_dir: Option<PathBuf>,
    /// The repository in the sandbox; defaults to `sandbox_project_root`.
    pub sandbox_repo_root: Option<String>,
    /// Where tests run in the sandbox; defaults to `sandbox_repo_root`.
    pub sandbox_project_root: Option<String>,
    /// Runs while the image is built.
    pub sandbox_init_cmd: Option<String>,
    /// Runs after the local changes are applied to a cached image.
    pub post_patch_cmd: Option<String>,
    /// Whether a late batch may get a speculative run; see [`Config::requeues_impatiently`] for the default.
    pub impatiently_requeue_batches: Option<bool>,
}

/// `[provider]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// Processes on this machine.
    Local(Local),
    /// Shell commands (`type = "default"`).
    Command(CommandProvider),
    /// Modal.
    Modal(Modal),
}

/// `[provider]` with `type = "local"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// The working directory of processes.
    pub working_dir: Option<PathBuf>,
    /// Environment variables of tests, in file order.
    pub env: Vec<(String, String)>,
    /// Runs the commands.
    pub shell: String,
    /// Names of environment variables whose values are masked in all output.
    pub secret_env: Vec<String>,
}

/// `[provider]` with `type = "default"`.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandProvider {
    /// Creates the image.
    pub prepare_command: Option<String>,
    /// Creates an image from another one and the changes in the working tree.
    pub patch_command: Option<String>,
    /// Creates a sandbox.
    pub create_command: String,
    /// Runs a command in a sandbox.
    pub exec_command: String,
    /// Destroys a sandbox.
    pub destroy_command: String,
    /// Copies files out of a sandbox.
    pub download_command: Option<String>,
    /// Destroys all sandboxes of a run, by its name.
    pub sweep_command: Option<String>,
    /// The working directory of these commands.
    pub working_dir: Option<PathBuf>,
    /// The timeout of these commands.
    pub timeout: Duration,
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Environment variables of tests.
    pub env: Vec<(String, String)>,
    /// Cores per sandbox.
    pub cpu_cores: f64,
    /// Names of environment variables whose values are masked in all output.
    pub secret_env: Vec<String>,
}

/// `[provider]` with `type = "modal"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Modal {
    /// The Dockerfile of the image.
    pub dockerfile: Option<PathBuf>,
    /// Whether the image includes the working directory.
    pub include_cwd: bool,
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Environment variables of tests.
    pub env: Vec<(String, String)>,
    /// Cores per sandbox.
    pub cpu_cores: f64,
    /// Memory per sandbox in GiB.
    pub memory_gb: Option<f64>,
    /// Passed to `Sandbox.create()`.
    pub experimental_options: serde_json::Value,
    /// The Modal app that sandboxes belong to.
    pub app: String,
    /// The version of Modal's SDK; `None` is the newest supported one.
    pub sdk_version: Option<String>,
    /// The timeout for creating an image or a sandbox.
    pub timeout: Duration,
    /// The maximum lifetime of a sandbox.
    pub sandbox_timeout: Duration,
    /// How long a sandbox may be idle before Modal ends it.
    pub idle_timeout: Duration,
    /// Maximum number of sandboxes to create per second.
    pub creates_per_second: f64,
    /// Names of environment variables whose values are masked in all output.
    pub secret_env: Vec<String>,
}

/// `[framework]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Framework {
    /// The settings that depend on `type`.
    pub kind: FrameworkKind,
    /// Environment variables of discovery and tests; may contain `{root}`.
    pub env: Vec<(String, String)>,
    /// Directories to put at the front of PATH; may contain `{root}`.
    pub prepend_path: Vec<String>,
    /// Extra arguments for discovery only.
    pub discovery_args: Option<String>,
    /// How to build a test id from a report's `{name}` and `{classname}`.
    pub test_id_format: String,
}

/// The settings of `[framework]` that depend on `type`.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameworkKind {
    /// `type = "pytest"`.
    Pytest {
        /// Directories and files to search for tests.
        paths: Option<Vec<String>>,
        /// The command that starts pytest.
        command: String,
        /// Extra arguments for batches only.
        run_args: Option<String>,
    },
    /// `type = "nextest"`.
    Nextest {
        /// A package of the workspace.
        package: Option<String>,
        /// Features to enable.
        features: Vec<String>,
        /// A single binary.
        bin: Option<String>,
        /// Whether ignored tests run, too.
        include_ignored: bool,
        /// Extra arguments for batches only.
        run_args: Option<String>,
    },
    /// `type = "vitest"`.
    Vitest {
        /// The command that starts vitest.
        command: String,
        /// Extra arguments for batches only.
        run_args: Option<String>,
    },
    /// `type = "default"`.
    Custom {
        /// Prints one test id per line; contains `{filters}`.
        discover_command: String,
        /// Runs `{tests}`; may contain `{result_file}`.
        run_command: String,
        /// The JUnit file that `run_command` writes.
        result_file: Option<String>,
        /// The working directory of both commands.
        working_dir: Option<PathBuf>,
    },
}

/// `[groups.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// The name of the table.
    pub name: String,
    /// How often to retry a failed test.
    pub retry_count: u32,
    /// Arguments that select tests, in the framework's own syntax.
    pub filters: String,
    /// Whether each test gets its own batch.
    pub schedule_individual: bool,
    /// Maximum number of its batches at once.
    pub max_parallel: Option<usize>,
    /// Which of its tests run in one batch.
    pub keep_together: KeepTogether,
}

/// `[report]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The directory of all report files.
    pub output_dir: PathBuf,
    /// Whether to write the JUnit file.
    pub junit: bool,
    /// The name of the JUnit file in `output_dir`.
    pub junit_file: String,
    /// Files to download from the sandbox after each batch.
    pub download_globs: Vec<String>,
    /// Whether to download only after batches with a failure or an error.
    pub download_globs_failure_only: bool,
}

/// When to add results to the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordHistory {
    /// After every run.
    Always,
    /// Only with `--record-history`.
    Flag,
}

/// `[history]`.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// When to record.
    pub record: RecordHistory,
    /// The file, in JSON Lines format.
    pub path: PathBuf,
    /// Maximum number of samples per test and outcome, at least 1.
    pub reservoir_size: usize,
    /// The expected duration of a test without any history.
    pub default_duration: Duration,
}

/// `[checkpoint]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Paths that the image depends on.
    pub build_inputs: Vec<String>,
}
