//! Creates the framework, the local provider, and the place to list tests from the configuration.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::bundled;
use crate::cancel::Cancel;
use crate::config::{self, Config, FrameworkKind};
use crate::discover::{Discovery, Site, discover};
use crate::error::{Problem, Status};
use crate::files::Scratch;
use crate::framework::custom::Custom;
use crate::framework::nextest::Nextest;
use crate::framework::pytest::{Inherited, Pytest};
use crate::framework::vitest::Vitest;
use crate::framework::{Framework, Surroundings};
use crate::mask::Mask;
use crate::model::Group;
use crate::process::guard::Guard;
use crate::provider::local;
use crate::trace::Trace;

/// The shell for commands, unless the provider names another one.
const SHELL: &str = "/bin/sh";

/// Everything that discovery needs, and what a run needs in addition.
pub struct Setup {
    /// The framework.
    pub framework: Box<dyn Framework>,
    /// The groups in file order.
    pub groups: Vec<Group>,
    /// Where tests are listed.
    pub site: Site,
    /// Deleted with its contents when the run ends.
    pub scratch: Scratch,
    /// Variables for test processes; those of the command line come last.
    pub env: Vec<(String, String)>,
    /// A unique name for the run.
    pub run: String,
}

impl Setup {
    /// Prepares for `config`, with `extra` variables from the command line.
    ///
    /// # Errors
    /// When the framework's settings are invalid, or no temporary directory can be created.
    pub fn new(config: &Config, extra: &[(String, String)]) -> Result<Setup> {
        let scratch = Scratch::new()?;
        let mut env = config.test_env().to_vec();
        env.extend(extra.iter().cloned());
        let is_local = matches!(config.provider, config::Provider::Local(_));
        let root = local_root(config)?;
        let surroundings = Surroundings {
            // Listing sees the same variables as running if both happen on this machine.
            plain: if is_local { env.clone() } else { Vec::new() },
            env: config.framework.env.clone(),
            prepend_path: config.framework.prepend_path.clone(),
        };
        let lookup = |key: &str| {
            let of = |pairs: &[(String, String)]| {
                pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone())
            };
            let own = of(&surroundings.env).map(|value| value.replace("{root}", &root.to_string_lossy()));
            own.or_else(|| of(&surroundings.plain)).or_else(|| std::env::var(key).ok())
        };
        let framework = framework(&with_scripts(&config.framework, is_local)?, &lookup)?;
        let shell = match &config.provider {
            config::Provider::Local(local) => local.shell.clone(),
            config::Provider::Command(_) | config::Provider::Modal(_) => SHELL.into(),
        };
        let site = Site {
            root,
            shell,
            surroundings,
            timeout: config.offload.discovery_timeout,
            parallel: config.offload.max_parallel_collection.unwrap_or_else(cores),
            kept: config.groups.iter().map(|group| group.keep_together).collect(),
            scratch: scratch.path().to_owned(),
            mask: Arc::new(mask(config, extra)),
            guard: Arc::new(Guard::new(std::env::current_exe().ok())),
        };
        let groups = config.groups.iter().map(group).collect();
        Ok(Setup { framework, groups, site, scratch, env, run: run_name() })
    }

    /// Lists all tests.
    ///
    /// # Errors
    /// Those of [`discover`]; the status is that of an interrupt if `cancel` was raised.
    pub fn discover(&self, cancel: &Cancel, trace: &Trace) -> Result<Discovery, Problem> {
        discover(&*self.framework, self.groups.clone(), &self.site, cancel, trace).map_err(|error| {
            let status = if cancel.is_raised() { Status::Interrupted } else { Status::NothingRun };
            Problem::new(status, error)
        })
    }
}

/// A name that no other run has, on any machine: providers may label sandboxes with it. Short, lower case, digits and
/// hyphens only.
fn run_name() -> String {
    format!("offload-{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// The directory on this machine that contains the project's tests.
fn local_root(config: &Config) -> Result<PathBuf> {
    let current = std::env::current_dir().context("cannot find the working directory")?;
    Ok(current.join(config.local_root()))
}

/// The local provider of `config`.
///
/// # Errors
/// When its directories do not exist.
pub fn local_provider(config: &Config, provider: &config::Local, setup: &Setup) -> Result<local::Local> {
    let root = local_root(config)?;
    let repo_root = config.offload.sandbox_repo_root.as_deref().unwrap_or(".");
    let directory = provider.working_dir.as_deref().or(config.offload.working_dir.as_deref());
    let settings = local::Settings {
        root,
        repo_root: directory.unwrap_or(Path::new("")).join(repo_root),
        env: setup.env.clone(),
        shell: provider.shell.clone(),
        output_dir: config.report.output_dir.clone(),
        guard: Arc::clone(&setup.site.guard),
    };
    local::Local::new(settings, &config.report.download_globs)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn group(config: &config::GroupConfig) -> Group {
    Group {
        name: config.name.as_str().into(),
        filters: config.filters.clone(),
        max_attempts: config.retry_count.saturating_add(1),
        solo: config.schedule_individual,
    }
}

fn mask(config: &Config, extra: &[(String, String)]) -> Mask {
    let secret =
        extra.iter().filter(|(name, _)| config.secret_env().contains(name)).map(|(_, value)| value.clone());
    Mask::new(config.secrets(&|name| std::env::var(name).ok()).into_iter().chain(secret))
}

/// The configuration with the paths of bundled scripts in commands that run on this machine.
fn with_scripts(config: &config::Framework, is_local: bool) -> Result<config::Framework> {
    let cache = bundled::cache_dir(&|name| std::env::var_os(name));
    let mut config = config.clone();
    let commands = match &mut config.kind {
        FrameworkKind::Pytest { command, .. } | FrameworkKind::Vitest { command, .. } => {
            vec![(command, is_local)]
        }
        FrameworkKind::Custom { discover_command, run_command, .. } => {
            vec![(discover_command, true), (run_command, is_local)]
        }
        FrameworkKind::Nextest { .. } => Vec::new(),
    };
    for (command, _) in commands.into_iter().filter(|(_, is_here)| *is_here) {
        *command = bundled::resolve(command, &cache)?;
    }
    Ok(config)
}

fn words(text: &str, key: &str) -> Result<Vec<String>> {
    shell_words::split(text).with_context(|| format!("cannot split `{key}` `{text}` into words"))
}

fn framework(
    config: &config::Framework,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Box<dyn Framework>> {
    let discovery_args = words(config.discovery_args.as_deref().unwrap_or_default(), "discovery_args")?;
    Ok(match &config.kind {
        FrameworkKind::Pytest { paths, command, run_args } => Box::new(Pytest {
            command: words(command, "command")?,
            paths: paths.clone().unwrap_or_default(),
            discovery_args,
            run_args: words(run_args.as_deref().unwrap_or_default(), "run_args")?,
            test_id_format: config.test_id_format.clone(),
            inherited: Inherited { python_path: lookup("PYTHONPATH"), plugins: lookup("PYTEST_PLUGINS") },
        }),
        FrameworkKind::Nextest { .. } => {
            Box::new(Nextest::new(config)?.with_profile(lookup("NEXTEST_PROFILE")))
        }
        FrameworkKind::Vitest { .. } => Box::new(Vitest::new(config)?),
        FrameworkKind::Custom { discover_command, run_command, result_file, working_dir } => {
            Box::new(Custom {
                discover_command: discover_command.clone(),
                run_command: run_command.clone(),
                result_file: result_file.clone(),
                working_dir: working_dir.clone(),
                test_id_format: config.test_id_format.clone(),
            })
        }
    })
}
