//! `offload.toml`: what can be configured, with all defaults applied.

use std::path::PathBuf;
use std::time::Duration;

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
}

/// `[offload]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Offload {
    /// How many sandboxes at most; at least 1.
    pub max_parallel: usize,
    /// How many list commands run side by side; at least 1.
    pub max_parallel_collection: Option<usize>,
    /// The deadline of one batch.
    pub test_timeout: Duration,
    /// The deadline of one list command (`discovery_timeout_secs`, 900 s unless told).
    pub discovery_timeout: Duration,
    /// Where tests run; the current directory unless told.
    pub working_dir: Option<PathBuf>,
    /// The repository in the sandbox.
    pub sandbox_repo_root: Option<String>,
    /// The folder in the sandbox in which tests run.
    pub sandbox_project_root: Option<String>,
    /// Runs while the image is built.
    pub sandbox_init_cmd: Option<String>,
    /// Runs after a thin diff is applied.
    pub post_patch_cmd: Option<String>,
    /// Whether a batch that is late may be run a second time beside itself.
    pub impatiently_requeue_batches: bool,
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
    /// Makes a sandbox.
    pub create_command: String,
    /// Runs a command in a sandbox.
    pub exec_command: String,
    /// Destroys a sandbox.
    pub destroy_command: String,
    /// Copies files out of a sandbox.
    pub download_command: Option<String>,
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
    /// Passed to `Sandbox.create()`, as JSON text.
    pub experimental_options: String,
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
    /// Folders put in front of PATH; `{root}` is filled later.
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
        /// Folders and files to look in.
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
    /// The folder of all report files.
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
