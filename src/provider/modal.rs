//! Sandboxes of Modal (`type = "modal"`). Modal's SDK runs in one driver process; all decisions (pace, patience, what
//! counts as lost, what an image is made from) are made here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cancel::{Cancel, Urgency};
use crate::command::CommandLine;
use crate::config;
use crate::journal::{Entry, Journal};
use crate::provider::image_cell::ImageCell;
use crate::provider::patience::patiently;
use crate::provider::remote::{Remote, RunContext, Shared, Transport, begin, enter};
use crate::provider::{
    BuildContext, Builder, Image, ONE_ARGUMENT, Provider, ProviderError, Reaper, Sandbox, ThinDiff,
};
use crate::words;

mod dockerfile;
mod driver;
mod failure;
mod reach;

use driver::{Driver, Farewell};
pub use driver::{Program, read_answer};
pub use failure::Failure;

/// The SDK takes 64 KiB in all arguments of an exec.
const ARGUMENTS: usize = 62_000;
/// Larger differences make an image of their own.
const LARGEST_DIFFERENCE: usize = 64 << 20;
/// Sandboxes carry the name of their run under this tag.
const TAG: &str = "offload-run";
/// How long a create is waited for after the run was asked to stop; the driver destroys its sandbox in any case.
const GRACE: Duration = Duration::from_millis(500);

/// What a provider of Modal's sandboxes is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its table of the configuration, with all directories to copy.
    pub provider: config::Modal,
    /// The directory that relative paths count from.
    pub directory: PathBuf,
    /// The root of the repository, which paths in the Dockerfile count from; `None`: the directory.
    pub repository: Option<PathBuf>,
    /// Paths of our own below the directory, which are no part of any image.
    pub ignored: Vec<String>,
    /// What is the same for all providers.
    pub context: RunContext,
}

/// Makes images.
pub struct Images {
    site: Arc<Site>,
}

/// Makes sandboxes.
pub struct Modal<'a> {
    site: Arc<Site>,
    image: ImageCell<'a>,
    journal: Option<Arc<Journal>>,
    root: String,
}

/// What makers of images and of sandboxes share.
struct Site {
    driver: Driver,
    settings: Settings,
    shared: Arc<Shared>,
    pace: Pace,
    /// Entries of sandboxes that may still be there; the journal is closed after them.
    unknown: Mutex<Vec<(Entry, Arc<Journal>)>>,
}

/// Lets creates begin one after the other.
struct Pace {
    between: Duration,
    next: Mutex<Instant>,
}

impl Pace {
    fn new(per_second: f64) -> Pace {
        Pace { between: Duration::from_secs_f64(1.0 / per_second), next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn, or until `cancel` is raised.
    fn wait(&self, cancel: &Cancel) {
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + self.between;
            turn
        };
        cancel.wait(turn.saturating_duration_since(Instant::now()));
    }
}

/// An exec timeout or a lifetime, as the SDK takes them.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

impl Images {
    /// A maker of images for `settings`, whose driver is started by `program` when it is first needed.
    pub fn new(settings: Settings, program: Program) -> Images {
        let driver = Driver::new(program, Arc::clone(&settings.context.mask));
        // Variables are given to sandboxes when they are made, so that no process shows them.
        let shared = Arc::new(Shared::new(&settings.context, Vec::new(), ONE_ARGUMENT - ARGUMENTS));
        let pace = Pace::new(settings.provider.creates_per_second);
        Images { site: Arc::new(Site { driver, settings, shared, pace, unknown: Mutex::default() }) }
    }

    /// A maker of sandboxes from `image`, which are entered in `journal`.
    pub fn provider<'a>(&self, image: ImageCell<'a>, journal: Option<Arc<Journal>>) -> Modal<'a> {
        let root = self.site.shared.root();
        Modal { site: Arc::clone(&self.site), image, journal, root }
    }

    fn prepare(&self, request: &Value, cancel: &Cancel) -> Result<String, Failure> {
        let timeout = self.site.settings.context.timeout;
        let answer = self.site.driver.prepare(request, timeout, cancel)?;
        let image = answer["image"].as_str().map(str::to_owned);
        image.ok_or_else(|| Failure::Broken("the driver gave no id of an image".into()))
    }
}

impl Reaper for Images {
    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        self.site.destroy(id)
    }

    fn sweep(&self) -> Option<Result<Vec<String>, ProviderError>> {
        Some(self.site.sweep())
    }
}

impl Builder for Images {
    fn recipe(&self) -> Vec<String> {
        let settings = &self.site.settings;
        let dockerfile =
            settings.provider.dockerfile.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mut recipe = vec![
            "modal".to_owned(),
            dockerfile.unwrap_or_default(),
            settings.provider.include_cwd.to_string(),
            settings.context.repo_root.clone().unwrap_or_default(),
        ];
        recipe.extend(settings.provider.copy_dirs.iter().cloned());
        recipe
    }

    fn outside(&self) -> Vec<PathBuf> {
        let settings = &self.site.settings;
        let copied = settings.provider.copy_dirs.iter().filter_map(|pair| pair.split_once(':'));
        let copied = copied.map(|(local, _)| settings.directory.join(local));
        let context = settings.repository.as_ref().unwrap_or(&settings.directory);
        let mut files = vec![context.join(".dockerignore")];
        if let Some(dockerfile) = &settings.provider.dockerfile {
            let dockerfile = settings.directory.join(dockerfile);
            let mut ignore = dockerfile.clone().into_os_string();
            ignore.push(".dockerignore");
            files.extend([ignore.into(), dockerfile.with_file_name(".dockerignore"), dockerfile]);
        }
        files.extend(copied);
        files
    }

    fn inputs(&self) -> Vec<String> {
        let settings = &self.site.settings;
        let dockerfile = settings.provider.dockerfile.as_ref().map(|path| settings.directory.join(path));
        // One that cannot be read is an error when the image is made.
        let text = dockerfile.and_then(|path| std::fs::read_to_string(path).ok());
        text.map_or_else(Vec::new, |text| dockerfile::sources(&text))
    }

    fn makes_images(&self) -> bool {
        true
    }

    fn can_patch(&self, bytes: usize) -> bool {
        self.site.settings.context.repo_root.is_some() && bytes <= LARGEST_DIFFERENCE
    }

    fn build(&self, source: &BuildContext, cancel: &Cancel) -> Result<String, ProviderError> {
        let settings = &self.site.settings;
        let context = source.context.as_ref().unwrap_or(&settings.directory);
        let local = |pair: &String| match pair.split_once(':') {
            Some((local, remote)) => format!("{}:{remote}", settings.directory.join(local).display()),
            None => pair.clone(),
        };
        let request = json!({
            "dockerfile": settings.provider.dockerfile.as_ref().map(|path| settings.directory.join(path)),
            "include_cwd": settings.provider.include_cwd,
            "context": context,
            "copy_dirs": settings.provider.copy_dirs.iter().map(local).collect::<Vec<_>>(),
            "init": source.init,
            "root": settings.context.repo_root,
            "ignore": settings.ignored,
            "force": source.is_fresh,
        });
        patiently(cancel, || self.prepare(&request, cancel).map_err(Failure::of_an_image))
    }

    fn patch(&self, base: &str, difference: ThinDiff, cancel: &Cancel) -> Result<Image, ProviderError> {
        let context = &self.site.settings.context;
        let script = context.scratch.join("thin-diff.sh");
        std::fs::write(&script, &difference.script).map_err(|error| {
            ProviderError::Refused(format!("cannot write `{}`: {error}", script.display()))
        })?;
        let request = json!({
            "base": base,
            "script": script,
            "patch": difference.then.as_ref().map(|_| &difference.patch),
            "then": difference.then,
            "root": context.repo_root,
            "project": context.project_root,
        });
        let id = patiently(cancel, || {
            self.prepare(&request, cancel).map_err(|failure| match failure {
                Failure::Reported { class, message } if class == "NotFoundError" => {
                    ProviderError::Lost(message)
                }
                failure => failure.of_an_image(),
            })
        })?;
        Ok(Image { id: Some(id), lacks: None })
    }
}

impl Modal<'_> {
    fn create_from(
        &self,
        image: &Image,
        slot: usize,
        cancel: &Cancel,
    ) -> Result<Box<dyn Sandbox>, ProviderError> {
        let mut entry = begin(self.journal.as_ref(), slot, &self.site.shared.sandbox_name())?;
        let mut tries = 0;
        let make = || {
            if tries > 0 {
                self.site.pace.wait(cancel);
            }
            tries += 1;
            self.site.make(image, cancel)
        };
        let id = match patiently(cancel, make) {
            Ok(id) => id,
            Err(error) => {
                match error {
                    // It may have been made.
                    ProviderError::Lost(_) => self.site.unknown().extend(entry.zip(self.journal.clone())),
                    _ => entry.into_iter().for_each(Entry::close),
                }
                return Err(error);
            }
        };
        enter(entry.as_mut(), &id);
        let transport: Arc<dyn Transport> = Arc::clone(&self.site) as _;
        Ok(Box::new(Remote::new(Arc::clone(&self.site.shared), transport, id, entry, cancel)))
    }
}

impl Provider for Modal<'_> {
    fn create(&self, slot: usize, cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError> {
        // A create that waits for its turn has not tried the image yet.
        self.site.pace.wait(cancel);
        self.image.create(cancel, |image| self.create_from(image, slot, cancel))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn scratch(&self) -> Option<&Path> {
        Some(&self.site.shared.prefix)
    }

    fn takes(&self, command: &CommandLine) -> bool {
        self.site.shared.takes(command)
    }
}

impl Site {
    /// Makes a sandbox and gives its id. `Lost` where it is not known whether one was made.
    fn make(&self, image: &Image, cancel: &Cancel) -> Result<String, ProviderError> {
        let stopped = || ProviderError::Refused("the run was stopped before the sandbox was made".into());
        if cancel.is_raised() {
            return Err(stopped());
        }
        let settings = &self.settings;
        let env: serde_json::Map<String, Value> =
            settings.context.env.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let request = json!({
            "image": image.id,
            "cpu": settings.provider.cpu_cores,
            "memory_gb": settings.provider.memory_gb,
            "env": env,
            "experimental_options": settings.provider.experimental_options,
            "timeout": whole_seconds(settings.provider.sandbox_timeout),
            "idle_timeout": whole_seconds(settings.provider.idle_timeout),
            "tags": { TAG: settings.context.run },
        });
        let pending = self.driver.ask("create", &request, cancel).map_err(Failure::of_a_create)?;
        let answer = match pending.wait(settings.context.timeout, cancel) {
            Err(Failure::Abandoned) => {
                // A create that is under way ends with a sandbox, which the driver then destroys.
                pending.withdraw();
                pending.wait_until(GRACE, &cancel.channel_beyond(Urgency::Graceful))
            }
            answer => answer,
        };
        match answer {
            Ok(answer) => answer["sandbox"].as_str().map(str::to_owned).ok_or_else(stopped),
            Err(Failure::TimedOut) if cancel.is_raised() => Err(Failure::Abandoned.of_a_create()),
            Err(failure) => Err(failure.of_a_create()),
        }
    }

    fn unknown(&self) -> MutexGuard<'_, Vec<(Entry, Arc<Journal>)>> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At the end of a run the driver destroys everything it made; sandboxes of a driver before it are found by their tag.
impl Drop for Site {
    fn drop(&mut self) {
        let farewell = self.driver.close();
        let unknown = std::mem::take(&mut *self.unknown());
        let swept = match farewell {
            _ if unknown.is_empty() => return,
            Farewell::Done => Ok(Vec::new()),
            Farewell::Busy => {
                log::warn!(
                    "sandboxes still being created: {}; the driver destroys them once they exist, and \
                     `offload gc` checks",
                    unknown.len()
                );
                return;
            }
            Farewell::Broken => self.sweep(),
        };
        match swept {
            Ok(_) => unknown.into_iter().for_each(|(entry, _journal)| entry.close()),
            Err(error) => {
                let count = words::count(unknown.len(), "sandbox");
                log::error!("{count} may be left (`offload gc` tries again): {error}");
            }
        }
        self.driver.close();
    }
}
