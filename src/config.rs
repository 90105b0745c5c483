//! `offload.toml`: what can be configured, with all defaults applied. Which programs exist and whether
//! paths do is left to those who use them.

use std::path::{Path, PathBuf};
use std::time::Duration;

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
pub use kinds::{FrameworkType, ProviderType};
pub use mistakes::Mistakes;

/// Reads the file at `path`; `environment` gives the variables for `${VAR}`.
///
/// # Errors
/// All mistakes in the file, or that it cannot be read.
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

/// Reads `text`; mistakes name it `file_name`.
///
/// # Errors
/// All mistakes in the text.
pub fn parse(
    text: &str,
    file_name: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    // A byte order mark would count as a column.
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
    /// The variables that the provider sets for test processes.
    pub fn test_env(&self) -> &[(String, String)] {
        match &self.provider {
            Provider::Local(local) => &local.env,
            Provider::Command(command) => &command.env,
            Provider::Modal(modal) => &modal.env,
        }
    }

    /// The names of variables whose values are never shown.
    pub fn secret_env(&self) -> &[String] {
        match &self.provider {
            Provider::Local(local) => &local.secret_env,
            Provider::Command(command) => &command.secret_env,
            Provider::Modal(modal) => &modal.secret_env,
        }
    }

    /// The directory of this machine in which tests are listed, absolute or relative to the current one.
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

    /// The values that are never shown: those that the file and `environment` give to the names of
    /// [`Config::secret_env`]. None is empty; longer ones come first, as one may hold another.
    pub fn secrets(&self, environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        let is_secret = |name: &String| self.secret_env().contains(name);
        let configured = self.test_env().iter().chain(&self.framework.env);
        let configured = configured.filter(|(name, _)| is_secret(name)).map(|(_, value)| value.clone());
        let inherited = self.secret_env().iter().filter_map(|name| environment(name));
        let mut values: Vec<_> = configured.chain(inherited).filter(|value| !value.is_empty()).collect();
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        values
    }

    /// Whether a batch that is late may be run a second time beside itself. Unless told, only where
    /// sandboxes have files of their own: in one directory a test could fail because of its twin, and a
    /// false failure is worse than a late end.
    pub fn requeues_impatiently(&self) -> bool {
        let apart = !matches!(self.provider, Provider::Local(_));
        self.offload.impatiently_requeue_batches.unwrap_or(apart)
    }

    /// Whether sandboxes would overwrite each other's result file: a `run_command` that names the file
    /// itself, and more than one local sandbox. Never so in a configuration as read; an option of the
    /// command line that changes `max_parallel` may make it so.
    pub fn shares_result_file(&self) -> bool {
        let names_it_itself = matches!(
            &self.framework.kind,
            FrameworkKind::Custom { run_command, result_file: Some(_), .. }
                if !run_command.contains("{result_file}")
        );
        names_it_itself && self.offload.max_parallel > 1 && matches!(self.provider, Provider::Local(_))
    }
}

/// `[offload]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Offload {
    /// How many sandboxes at most; at least 1.
    pub max_parallel: usize,
    /// How many list commands run side by side, at least 1; `None`: as many as there are cores.
    pub max_parallel_collection: Option<usize>,
    /// The deadline of one batch.
    pub test_timeout: Duration,
    /// The deadline of one list command (`discovery_timeout_secs`, 900 s unless told).
    pub discovery_timeout: Duration,
    /// Where tests run; the current directory unless told.
    pub working_dir: Option<PathBuf>,
    /// The repository in the sandbox; `sandbox_project_root` unless told.
    pub sandbox_repo_root: Option<String>,
    /// The directory in the sandbox in which tests run; `sandbox_repo_root` unless told.
    pub sandbox_project_root: Option<String>,
    /// Runs while the image is built.
    pub sandbox_init_cmd: Option<String>,
    /// Runs after a thin diff is applied.
    pub post_patch_cmd: Option<String>,
    /// Whether a batch that is late may be run a second time beside itself; see
    /// [`Config::requeues_impatiently`] for what applies where it is not told.
    pub impatiently_requeue_batches: Option<bool>,
}

/// `[provider]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// Processes of this machine.
    Local(Local),
    /// Shell commands (`type = "default"`).
    Command(CommandProvider),
    /// Modal.
    Modal(Modal),
}

/// `[provider]` with `type = "local"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Where processes start.
    pub working_dir: Option<PathBuf>,
    /// Variables of test processes, in file order.
    pub env: Vec<(String, String)>,
    /// The shell of commands.
    pub shell: String,
    /// Names of variables whose values are masked in all that is written.
    pub secret_env: Vec<String>,
}

/// `[provider]` with `type = "default"`.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandProvider {
    /// Makes the image.
    pub prepare_command: Option<String>,
    /// Makes an image from another one and what the working tree has beyond it.
    pub patch_command: Option<String>,
    /// Makes a sandbox.
    pub create_command: String,
    /// Runs a command in a sandbox.
    pub exec_command: String,
    /// Destroys a sandbox.
    pub destroy_command: String,
    /// Copies files out of a sandbox.
    pub download_command: Option<String>,
    /// Destroys all sandboxes of a run, by its name.
    pub sweep_command: Option<String>,
    /// Where these commands run.
    pub working_dir: Option<PathBuf>,
    /// The deadline of these commands.
    pub timeout: Duration,
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Variables of test processes.
    pub env: Vec<(String, String)>,
    /// Cores of one sandbox.
    pub cpu_cores: f64,
    /// Names of variables whose values are masked in all that is written.
    pub secret_env: Vec<String>,
}

/// `[provider]` with `type = "modal"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Modal {
    /// The Dockerfile of the image.
    pub dockerfile: Option<PathBuf>,
    /// Whether the working directory goes into the image.
    pub include_cwd: bool,
    /// `local:remote` pairs.
    pub copy_dirs: Vec<String>,
    /// Variables of test processes.
    pub env: Vec<(String, String)>,
    /// Cores of one sandbox.
    pub cpu_cores: f64,
    /// Memory of one sandbox in GiB.
    pub memory_gb: Option<f64>,
    /// Passed to `Sandbox.create()`.
    pub experimental_options: serde_json::Value,
    /// The app of Modal that sandboxes belong to.
    pub app: String,
    /// The version of Modal's SDK; `None`: the newest that fits.
    pub sdk_version: Option<String>,
    /// How long an image or a sandbox may take to be made.
    pub timeout: Duration,
    /// How long a sandbox lives at most.
    pub sandbox_timeout: Duration,
    /// How long a sandbox lives without a command.
    pub idle_timeout: Duration,
    /// Sandboxes made in a second at most.
    pub creates_per_second: f64,
    /// Names of variables whose values are masked in all that is written.
    pub secret_env: Vec<String>,
}

/// `[framework]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Framework {
    /// The part that depends on `type`.
    pub kind: FrameworkKind,
    /// Variables of discovery and test commands; `{root}` is filled later.
    pub env: Vec<(String, String)>,
    /// Directories put in front of PATH; `{root}` is filled later.
    pub prepend_path: Vec<String>,
    /// Extra arguments of discovery only, split as a shell would.
    pub discovery_args: Option<String>,
    /// How a report's names make a test id, with `{name}` and `{classname}`.
    pub test_id_format: String,
}

/// The frameworks.
#[derive(Clone, Debug, PartialEq)]
pub enum FrameworkKind {
    /// `type = "pytest"`.
    Pytest {
        /// Directories and files to look in.
        paths: Option<Vec<String>>,
        /// The command in front of pytest's arguments.
        command: String,
        /// Extra arguments of test runs only.
        run_args: Option<String>,
    },
    /// `type = "nextest"`.
    Nextest {
        /// The package of a workspace.
        package: Option<String>,
        /// Features to enable.
        features: Vec<String>,
        /// One binary.
        bin: Option<String>,
        /// Whether `#[ignore]` tests run too.
        include_ignored: bool,
        /// Extra arguments of test runs only.
        run_args: Option<String>,
    },
    /// `type = "vitest"`.
    Vitest {
        /// The command in front of vitest's arguments.
        command: String,
        /// Extra arguments of test runs only.
        run_args: Option<String>,
    },
    /// `type = "default"`.
    Custom {
        /// Prints a test id a line; holds `{filters}`.
        discover_command: String,
        /// Runs `{tests}`, may hold `{result_file}`.
        run_command: String,
        /// The JUnit file of the run.
        result_file: Option<String>,
        /// Where both commands run.
        working_dir: Option<PathBuf>,
    },
}

/// `[groups.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// The name of the table.
    pub name: String,
    /// How often a failed test runs again.
    pub retry_count: u32,
    /// Passed to the framework.
    pub filters: String,
    /// Each test has a batch of its own.
    pub schedule_individual: bool,
}

/// `[report]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The directory of all report files.
    pub output_dir: PathBuf,
    /// Whether the JUnit file is written.
    pub junit: bool,
    /// Its name in `output_dir`.
    pub junit_file: String,
    /// Files to take from sandboxes after each batch.
    pub download_globs: Vec<String>,
    /// Take them only from batches with a failure or an error.
    pub download_globs_failure_only: bool,
}

/// When results go into the history.
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
    /// The JSONL file.
    pub path: PathBuf,
    /// Samples per outcome and test, at least 1.
    pub reservoir_size: usize,
    /// The estimate of a test of which nothing is known.
    pub default_duration: Duration,
}

/// `[checkpoint]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Paths whose change makes the image stale.
    pub build_inputs: Vec<String>,
}
