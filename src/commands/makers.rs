//! From the configuration to the makers of images and sandboxes that have files of their own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::setup::Setup;
use super::validate::is_on_path;
use crate::bundled;
use crate::command::CommandLine;
use crate::config::{self, Config};
use crate::journal::Journal;
use crate::progress::Screen;
use crate::provider::command;
use crate::provider::image_cell::ImageCell;
use crate::provider::modal;
use crate::provider::remote::RunContext;
use crate::provider::{Builder, Provider, Reaper};

/// Where the project is in Modal's sandboxes by default.
const MODAL_ROOT: &str = "/app";
/// How often a line of an image's log is printed where it cannot be drawn over.
const PACE: Duration = Duration::from_secs(3);

/// The makers of a provider.
pub enum Makers {
    /// Shell commands.
    Command(command::Images),
    /// Modal.
    Modal(modal::Images),
}

impl Makers {
    /// Those that `config` names, with more directories to copy; `screen` shows how images are built, `repository` is
    /// the root of the repository.
    ///
    /// # Errors
    /// When a bundled script cannot be written, the working directory does not exist, or a program is missing.
    pub fn new(
        config: &Config,
        setup: &Setup,
        copy_dirs: &[String],
        screen: &Screen,
        repository: Option<&Path>,
    ) -> Result<Makers> {
        match &config.provider {
            config::Provider::Local(_) => anyhow::bail!("local sandboxes have no makers"),
            config::Provider::Command(provider) => {
                let mut provider = provider.clone();
                provider.copy_dirs.extend_from_slice(copy_dirs);
                command_images(config, setup, provider).map(Makers::Command)
            }
            config::Provider::Modal(provider) => {
                let mut provider = provider.clone();
                provider.copy_dirs.extend_from_slice(copy_dirs);
                modal_images(config, setup, provider, screen, repository).map(Makers::Modal)
            }
        }
    }

    /// The maker of images.
    pub fn builder(&self) -> &dyn Builder {
        match self {
            Makers::Command(images) => images,
            Makers::Modal(images) => images,
        }
    }

    /// Cleans up what a run left.
    pub fn reaper(&self) -> &dyn Reaper {
        match self {
            Makers::Command(images) => images,
            Makers::Modal(images) => images,
        }
    }

    /// The maker of sandboxes from `image`.
    pub fn provider<'a>(
        &self,
        image: ImageCell<'a>,
        journal: Option<Arc<Journal>>,
    ) -> Box<dyn Provider + 'a> {
        match self {
            Makers::Command(images) => Box::new(images.provider(image, journal)),
            Makers::Modal(images) => Box::new(images.provider(image, journal)),
        }
    }
}

/// A digest of the variables that decide where the sandboxes of `config` are; it is written down, so it must not show
/// them.
pub fn place(config: &Config) -> String {
    const NAMES: [&str; 4] = ["MODAL_SERVER_URL", "MODAL_PROFILE", "MODAL_ENVIRONMENT", "MODAL_TOKEN_ID"];
    if !matches!(config.provider, config::Provider::Modal(_)) {
        return String::new();
    }
    let mut digest = Sha256::new();
    for name in NAMES {
        digest.update(format!("{name}={}\n", std::env::var(name).unwrap_or_default()));
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The directory that relative paths of a provider count from.
fn directory(config: &Config, own: Option<&PathBuf>) -> Result<PathBuf> {
    let current = std::env::current_dir().context("cannot find the working directory")?;
    let directory = own.or(config.offload.working_dir.as_ref());
    let directory = directory.map_or_else(|| current.clone(), |directory| current.join(directory));
    anyhow::ensure!(directory.is_dir(), "the working directory `{}` is not a directory", directory.display());
    Ok(directory)
}

fn command_images(
    config: &Config,
    setup: &Setup,
    mut provider: config::CommandProvider,
) -> Result<command::Images> {
    let recipe = provider.prepare_command.clone().unwrap_or_default();
    let cache = bundled::cache_dir(&|name| std::env::var_os(name));
    let needed = [&mut provider.create_command, &mut provider.exec_command, &mut provider.destroy_command];
    let optional = [
        &mut provider.prepare_command,
        &mut provider.patch_command,
        &mut provider.download_command,
        &mut provider.sweep_command,
    ];
    for command in needed.into_iter().chain(optional.into_iter().flatten()) {
        *command = bundled::resolve(command, &cache)?;
    }
    if provider.prepare_command.is_none() {
        let unused = [
            ("copy_dirs", !provider.copy_dirs.is_empty()),
            ("sandbox_init_cmd", config.offload.sandbox_init_cmd.is_some()),
            ("[checkpoint]", config.checkpoint.is_some()),
        ];
        for (key, _) in unused.iter().filter(|(_, is_set)| *is_set) {
            log::warn!("`{key}` has no effect without a `prepare_command` in [provider]");
        }
    }
    let directory = directory(config, provider.working_dir.as_ref())?;
    let context = run_context(config, setup, provider.timeout);
    Ok(command::Images::new(command::Settings { provider, recipe, directory, context }))
}

/// What a run tells a provider of sandboxes with files of their own.
fn run_context(config: &Config, setup: &Setup, timeout: Duration) -> RunContext {
    RunContext {
        repo_root: config.offload.sandbox_repo_root.clone(),
        project_root: config.offload.sandbox_project_root.clone(),
        env: setup.env.clone(),
        has_globs: !config.report.download_globs.is_empty(),
        run: setup.run.clone(),
        scratch: setup.scratch.path().to_owned(),
        mask: Arc::clone(&setup.site.mask),
        timeout,
    }
}

fn modal_images(
    config: &Config,
    setup: &Setup,
    provider: config::Modal,
    screen: &Screen,
    repository: Option<&Path>,
) -> Result<modal::Images> {
    let directory = directory(config, None)?;
    let mut context = run_context(config, setup, provider.timeout);
    if provider.include_cwd {
        context.repo_root.get_or_insert_with(|| MODAL_ROOT.to_owned());
        context.project_root = context.project_root.or_else(|| context.repo_root.clone());
    }
    // What a run of ours writes is no part of the project, even where it is inside of it.
    let history = config.history.as_ref().map(|history| history.path.as_path());
    let own = [Some(config.report.output_dir.as_path()), history, Some(setup.scratch.path())];
    let own = own.into_iter().flatten();
    let ignored = own.filter_map(|path| {
        let path = directory.join(path);
        path.strip_prefix(&directory).ok().map(|path| path.to_string_lossy().into_owned())
    });
    let ignored = ignored.filter(|path| !path.is_empty()).collect();
    let program = driver(&provider, screen)?;
    let repository = repository.map(Path::to_owned);
    Ok(modal::Images::new(modal::Settings { provider, directory, repository, ignored, context }, program))
}

/// How the driver of Modal's SDK is started.
fn driver(provider: &config::Modal, screen: &Screen) -> Result<modal::Program> {
    let path = std::env::var("PATH").unwrap_or_default();
    let missing = (!is_on_path("uv", &path, Path::new("."))).then(|| {
        "`uv`, which runs Modal's SDK, is not on PATH; install it, e.g. with `pip install uv`".to_owned()
    });
    let cache = bundled::cache_dir(&|name| std::env::var_os(name));
    let script = bundled::path("modal_sandbox.py", &cache)?.to_string_lossy().into_owned();
    let mut words = vec!["uv".to_owned(), "run".to_owned(), "--quiet".to_owned(), "--no-project".to_owned()];
    if let Some(version) = &provider.sdk_version {
        words.extend(["--with".to_owned(), format!("modal=={version}")]);
    }
    words.extend([script, "driver".to_owned()]);
    // What the project has for its own Python is not for the SDK's.
    let mut command = CommandLine::program(words).with_env("PYTHONPATH", "");
    if std::env::var_os("UV_COMPILE_BYTECODE").is_none() {
        // Done once for a version; then each start takes a third less.
        command = command.with_env("UV_COMPILE_BYTECODE", "1");
    }
    let screen = screen.clone();
    let last: Mutex<Option<Instant>> = Mutex::new(None);
    let progress = move |line: &str| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if screen.is_drawn() || last.is_none_or(|last| last.elapsed() >= PACE) {
            *last = Some(Instant::now());
            screen.tell(&format!("image: {line}"));
        }
    };
    let (app, patience) = (provider.app.clone(), provider.timeout);
    Ok(modal::Program { command, missing, app, patience, progress: Arc::new(progress) })
}
