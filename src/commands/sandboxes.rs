//! Where the sandboxes of a run come from, and its image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::setup::{self, Setup};
use crate::bundled;
use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::config::{self, Config};
use crate::error::{Problem, Status};
use crate::git::Repository;
use crate::image::{Found, Wanted};
use crate::journal::{self, Journal};
use crate::provider::command::{self, Images};
use crate::provider::local::Local;
use crate::provider::renewal::Renewal;
use crate::provider::{Image, Provider, ProviderError, Sandbox};
use crate::trace::{Trace, Track};

/// What makes sandboxes, before there is an image.
pub enum Source {
    /// Processes of this machine.
    Local(Local),
    /// Shell commands.
    Command(Box<Remote>),
}

/// Sandboxes behind shell commands, and all that their image depends on.
pub struct Remote {
    images: Images,
    repository: Option<Repository>,
    init: Option<String>,
    then: Option<String>,
    build_inputs: Option<Vec<String>>,
    excluded: Vec<PathBuf>,
    scratch: PathBuf,
}

impl Source {
    /// The source that `config` names, with more folders to copy; `cancel` ends questions to git.
    ///
    /// # Errors
    /// When the provider is not there yet, or a folder does not exist.
    pub fn new(
        config: &Config,
        setup: &Setup,
        copy_dirs: &[String],
        cancel: &Cancel,
    ) -> Result<Source, Problem> {
        match &config.provider {
            config::Provider::Local(provider) => {
                Ok(Source::Local(setup::local_provider(config, provider, &setup.env)?))
            }
            config::Provider::Command(provider) => {
                let images = images(config, provider, (setup, copy_dirs))?;
                Ok(Source::Command(Box::new(Remote::new(config, setup, images, cancel)?)))
            }
            config::Provider::Modal(_) => {
                Err(Problem::usage("this version of `offload` has no provider `modal` yet")
                    .hint("use `type = \"default\"` with commands of your own, or `type = \"local\"`"))
            }
        }
    }

    /// What is to be known of an image; `None` for sandboxes without one.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let Source::Command(remote) = self else { return None };
        Some(Wanted {
            builder: &remote.images,
            repository: remote.repository.as_ref(),
            init: remote.init.clone(),
            then: remote.then.clone(),
            build_inputs: remote.build_inputs.as_deref(),
            excluded: remote.excluded.clone(),
            scratch: &remote.scratch,
        })
    }

    /// The maker of sandboxes from the image that was found.
    pub fn provider(&self, found: Found, journal: Option<Arc<Journal>>) -> Box<dyn Provider + '_> {
        match self {
            Source::Local(local) => Box::new(local.clone()),
            Source::Command(remote) => {
                let renew = found.is_cached.then(|| self.renew());
                Box::new(remote.images.provider(Renewal::new(found.image, renew.flatten()), journal))
            }
        }
    }

    fn renew(&self) -> Option<crate::provider::renewal::Renew<'_>> {
        let wanted = self.wanted()?;
        Some(Box::new(move |cancel: &Cancel| -> Result<Image, ProviderError> {
            let found = wanted.prepare(true, cancel);
            found.map(|found| found.image).map_err(|error| ProviderError::Refused(format!("{error:#}")))
        }))
    }

    /// Whether sandboxes leave something behind when nobody destroys them.
    pub fn needs_journal(&self) -> bool {
        matches!(self, Source::Command(_))
    }
}

/// A provider whose creates are in the timeline.
pub struct Timed<'a> {
    /// The provider.
    pub provider: &'a dyn Provider,
    /// The timeline.
    pub trace: &'a Trace,
}

impl Provider for Timed<'_> {
    fn create(&self, slot: usize, cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError> {
        let _span = self.trace.span(Track::Sandbox(slot), || "create".into());
        self.provider.create(slot, cancel)
    }

    fn root(&self) -> &str {
        self.provider.root()
    }

    fn scratch(&self) -> Option<&Path> {
        self.provider.scratch()
    }

    fn takes(&self, command: &CommandLine) -> bool {
        self.provider.takes(command)
    }
}

impl Remote {
    fn new(config: &Config, setup: &Setup, images: Images, cancel: &Cancel) -> Result<Remote> {
        let offload = &config.offload;
        let scratch = setup.scratch.path().join("image");
        std::fs::create_dir_all(&scratch).with_context(|| format!("cannot make `{}`", scratch.display()))?;
        // Git names its root without links.
        let absolute = |path: &Path| {
            path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
        };
        let mut excluded = vec![absolute(&config.report.output_dir)];
        excluded.extend(config.history.as_ref().map(|history| absolute(&history.path)));
        Ok(Remote {
            repository: Repository::find(&setup.site.root, &scratch, cancel),
            init: offload.sandbox_init_cmd.clone(),
            then: offload.post_patch_cmd.clone(),
            build_inputs: config.checkpoint.as_ref().map(|checkpoint| checkpoint.build_inputs.clone()),
            images,
            excluded,
            scratch,
        })
    }
}

/// The makers of images and sandboxes of `provider`.
///
/// # Errors
/// When a bundled script cannot be written, or the working directory does not exist.
pub fn images(
    config: &Config,
    provider: &config::CommandProvider,
    (setup, copy_dirs): (&Setup, &[String]),
) -> Result<Images> {
    let cache = bundled::cache_dir(&|name| std::env::var_os(name));
    let script = |command: &String| bundled::resolve(command, &cache);
    let commands = command::Commands {
        prepare: provider.prepare_command.as_ref().map(script).transpose()?,
        patch: provider.patch_command.as_ref().map(script).transpose()?,
        create: script(&provider.create_command)?,
        exec: script(&provider.exec_command)?,
        destroy: script(&provider.destroy_command)?,
        download: provider.download_command.as_ref().map(script).transpose()?,
    };
    if commands.prepare.is_none() {
        let unused = [
            ("copy_dirs", !provider.copy_dirs.is_empty() || !copy_dirs.is_empty()),
            ("sandbox_init_cmd", config.offload.sandbox_init_cmd.is_some()),
            ("[checkpoint]", config.checkpoint.is_some()),
        ];
        for (key, _) in unused.iter().filter(|(_, is_set)| *is_set) {
            log::warn!("`{key}` has no effect without a `prepare_command` in [provider]");
        }
    }
    let current = std::env::current_dir().context("cannot find the working directory")?;
    let folder = provider.working_dir.as_ref().or(config.offload.working_dir.as_ref());
    let directory = folder.map_or_else(|| current.clone(), |folder| current.join(folder));
    anyhow::ensure!(directory.is_dir(), "the working directory `{}` is not a folder", directory.display());
    Ok(Images::new(command::Settings {
        commands,
        recipe: provider.prepare_command.clone().unwrap_or_default(),
        directory,
        timeout: provider.timeout,
        copy_dirs: provider.copy_dirs.iter().chain(copy_dirs).cloned().collect(),
        cpu_cores: provider.cpu_cores,
        repo_root: config.offload.sandbox_repo_root.clone(),
        project_root: config.offload.sandbox_project_root.clone(),
        env: setup.env.clone(),
        has_globs: !config.report.download_globs.is_empty(),
        run: setup.run.clone(),
        scratch: setup.scratch.path().to_owned(),
        mask: Arc::clone(&setup.site.mask),
    }))
}

/// The journal of a run of the configuration file `config`. Without one a run that is killed leaves what
/// `offload gc` does not find, so that is said.
pub fn journal(config: &Path, setup: &Setup) -> Option<Arc<Journal>> {
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    match Journal::open(&state, &config, &setup.run) {
        Ok(journal) => Some(Arc::new(journal)),
        Err(error) => {
            log::warn!(
                "there is no journal of sandboxes: {error:#}; `offload gc` will not know of this run's"
            );
            None
        }
    }
}

/// The image of a run that begins.
///
/// # Errors
/// When it cannot be made; with the status of an interrupt where `cancel` is why.
pub fn image(source: &Source, afresh: bool, cancel: &Cancel) -> Result<Found, Problem> {
    let Some(wanted) = source.wanted() else { return Ok(Found::default()) };
    wanted.prepare(afresh, cancel).map_err(|error| {
        let status = if cancel.is_raised() { Status::Interrupted } else { Status::NothingRun };
        Problem::new(status, error)
    })
}
