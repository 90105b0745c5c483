//! Where the sandboxes of a run come from, and its image.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::makers::{self, Makers};
use super::setup::{self, Setup};
use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::config::{self, Config};
use crate::error::{Problem, Status};
use crate::git::Repository;
use crate::image::{Found, Search, Wanted};
use crate::journal::{self, Journal};
use crate::progress::Screen;
use crate::provider::image_cell::ImageCell;
use crate::provider::local::Local;
use crate::provider::{Image, Provider, ProviderError, RunEnd, Sandbox};
use crate::trace::{Trace, Track};

/// Where sandboxes come from, before there is an image.
pub enum SandboxSource {
    /// Processes of this machine.
    Local(Local),
    /// Sandboxes with files of their own.
    RemoteSource(Box<RemoteSource>),
}

/// Sandboxes with files of their own, and all that their image depends on.
pub struct RemoteSource {
    makers: Makers,
    repository: Option<Repository>,
    project: PathBuf,
    init: Option<String>,
    then: Option<String>,
    then_in: PathBuf,
    build_inputs: Option<Vec<String>>,
    excluded: Vec<PathBuf>,
    scratch: PathBuf,
}

impl SandboxSource {
    /// The source that `config` names, with more directories to copy; `cancel` ends calls of git, and `screen` shows
    /// how images are built.
    ///
    /// # Errors
    /// When a directory does not exist.
    pub fn new(
        config: &Config,
        setup: &Setup,
        copy_dirs: &[String],
        screen: &Screen,
        cancel: &Cancel,
    ) -> Result<SandboxSource, Problem> {
        if let config::Provider::Local(provider) = &config.provider {
            return Ok(SandboxSource::Local(setup::local_provider(config, provider, setup)?));
        }
        let scratch = setup.scratch.path().join("image");
        std::fs::create_dir_all(&scratch).with_context(|| format!("cannot make `{}`", scratch.display()))?;
        let repository = Repository::find(&setup.site.root, &scratch, cancel);
        let context = repository.as_ref().map(Repository::root);
        let makers = Makers::new(config, setup, copy_dirs, screen, context)?;
        let remote = RemoteSource::new(config, setup, makers, repository, scratch);
        Ok(SandboxSource::RemoteSource(Box::new(remote)))
    }

    /// The image that a run needs; `None` for sandboxes without one.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let SandboxSource::RemoteSource(remote) = self else { return None };
        Some(Wanted {
            builder: remote.makers.builder(),
            repository: remote.repository.as_ref(),
            project: &remote.project,
            init: remote.init.clone(),
            then: remote.then.clone(),
            then_in: &remote.then_in,
            build_inputs: remote.build_inputs.as_deref(),
            excluded: remote.excluded.clone(),
            scratch: &remote.scratch,
        })
    }

    /// The maker of sandboxes from the image that was found.
    pub fn provider(&self, found: Found, journal: Option<Arc<Journal>>) -> Box<dyn Provider + '_> {
        match self {
            SandboxSource::Local(local) => Box::new(local.clone()),
            SandboxSource::RemoteSource(remote) => {
                let renew = found.is_cached.then(|| self.renew());
                remote.makers.provider(ImageCell::new(found.image, renew.flatten()), journal)
            }
        }
    }

    fn renew(&self) -> Option<crate::provider::image_cell::Renew<'_>> {
        let wanted = self.wanted()?;
        Some(Box::new(move |cancel: &Cancel| -> Result<Image, ProviderError> {
            let found = wanted.renew(cancel);
            found.map(|found| found.image).map_err(|error| ProviderError::Refused(format!("{error:#}")))
        }))
    }

    /// Whether sandboxes stay when nobody destroys them.
    pub fn needs_journal(&self) -> bool {
        matches!(self, SandboxSource::RemoteSource(_))
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

    fn creates_may_be_ended(&self) -> bool {
        self.provider.creates_may_be_ended()
    }

    fn finish(&self, end: RunEnd) {
        self.provider.finish(end);
    }
}

impl RemoteSource {
    fn new(
        config: &Config,
        setup: &Setup,
        makers: Makers,
        repository: Option<Repository>,
        scratch: PathBuf,
    ) -> RemoteSource {
        let offload = &config.offload;
        // Git names its root without links.
        let absolute = |path: &Path| {
            path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
        };
        let mut excluded = vec![absolute(&config.report.output_dir)];
        excluded.extend(config.history.as_ref().map(|history| absolute(&history.path)));
        RemoteSource {
            repository,
            project: setup.site.root.clone(),
            init: offload.sandbox_init_cmd.clone(),
            then: offload.post_patch_cmd.clone(),
            then_in: project_below_repository(offload),
            build_inputs: config.checkpoint.as_ref().map(|checkpoint| checkpoint.build_inputs.clone()),
            makers,
            excluded,
            scratch,
        }
    }
}

/// The directory of the project in a sandbox, relative to that of the repository.
fn project_below_repository(offload: &config::Offload) -> PathBuf {
    let plain = |root: &Option<String>| -> PathBuf {
        let path = Path::new(root.as_deref().unwrap_or_default());
        path.components().filter(|part| *part != Component::CurDir).collect()
    };
    let repository = plain(&offload.sandbox_repo_root);
    let project = plain(&offload.sandbox_project_root);
    project.strip_prefix(&repository).map(Path::to_owned).unwrap_or_default()
}

/// The journal of a run of the configuration file `path`. Without one, `offload gc` does not find what a killed run
/// left, so there is a warning.
pub fn journal(path: &Path, config: &Config, setup: &Setup) -> Option<Arc<Journal>> {
    let state = journal::state_dir(&|name| std::env::var_os(name));
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match Journal::open(&state, &path, &setup.run, makers::place(config)) {
        Ok(journal) => Some(Arc::new(journal)),
        Err(error) => {
            log::warn!(
                "cannot keep a journal of sandboxes: {error:#}; `offload gc` will not find those of this run"
            );
            None
        }
    }
}

/// Which image sandboxes are made from.
#[derive(Clone, Copy, Debug)]
pub enum ImageChoice<'a> {
    /// This one.
    Given(&'a str),
    /// A cached one, or a new one where there is none.
    Cached,
    /// A new one.
    Fresh,
}

/// The image that `choice` asks for.
///
/// # Errors
/// When it cannot be made; with the status of an interrupt where `cancel` is why.
pub fn image(source: &SandboxSource, choice: ImageChoice<'_>, cancel: &Cancel) -> Result<Found, Problem> {
    let Some(wanted) = source.wanted() else { return Ok(Found::default()) };
    let search = match choice {
        ImageChoice::Given(id) => {
            return Ok(Found { image: Image { id: Some(id.to_owned()), lacks: None }, is_cached: false });
        }
        ImageChoice::Cached => Search::Everywhere,
        ImageChoice::Fresh => Search::Nowhere,
    };
    wanted.prepare(search, cancel).map_err(|error| {
        let status = if cancel.is_raised() { Status::Interrupted } else { Status::NothingRun };
        Problem::new(status, error)
    })
}
