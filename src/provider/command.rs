//! Sandboxes behind shell commands (`type = "default"`): anything that commands can create, use and
//! destroy.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::journal::{Entry, Journal};
use crate::model::Exit;
use crate::provider::image_cell::ImageCell;
use crate::provider::patience::patiently;
use crate::provider::remote::{Remote, Transport, begin, enter, patch};
use crate::provider::{BuildContext, Builder, Image, Provider, ProviderError, Reaper, Sandbox, ThinDiff};

mod shell;

pub use shell::{Commands, Settings};
use shell::{Filled, Shell, fill};

/// Larger differences than this are not brought to each sandbox through its shell: the image is made anew.
const LARGEST_DIFFERENCE: usize = 2 << 20;

/// Makes images by shell commands.
pub struct Images {
    shell: Arc<Shell>,
}

/// Makes sandboxes by shell commands.
pub struct Command<'a> {
    shell: Arc<Shell>,
    image: ImageCell<'a>,
    journal: Option<Arc<Journal>>,
    root: String,
}

impl Images {
    /// A maker of images for `settings`.
    pub fn new(settings: Settings) -> Images {
        Images { shell: Arc::new(Shell::new(settings)) }
    }

    /// A maker of sandboxes from `image`, which are entered in `journal`.
    pub fn provider<'a>(&self, image: ImageCell<'a>, journal: Option<Arc<Journal>>) -> Command<'a> {
        Command { shell: Arc::clone(&self.shell), image, journal, root: self.shell.common.root() }
    }

    fn id_of(&self, key: &str, filled: &Filled, cancel: &Cancel) -> Result<String, ProviderError> {
        patiently(cancel, || {
            let said = self.shell.run(key, filled, None, cancel)?;
            said.check(key)?;
            id_in(said.last, key, "image")
        })
    }
}

impl Reaper for Images {
    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        self.shell.destroy(id)
    }
}

impl Builder for Images {
    fn recipe(&self) -> Vec<String> {
        let settings = &self.shell.settings;
        let mut recipe = vec![settings.recipe.clone(), self.shell.cores()];
        recipe.extend(settings.copy_dirs.iter().cloned());
        recipe
    }

    fn outside(&self) -> Vec<PathBuf> {
        let settings = &self.shell.settings;
        let copied = settings.copy_dirs.iter().filter_map(|pair| pair.split_once(':'));
        let copied = copied.map(|(local, _)| settings.directory.join(local));
        // What the command names may be a Dockerfile or a script of the user's.
        let words = settings.commands.prepare.as_deref().map(shell_words::split);
        let words = words.into_iter().flatten().flatten().map(|word| settings.directory.join(word));
        copied.chain(words.filter(|path| path.is_file())).collect()
    }

    fn makes_images(&self) -> bool {
        self.shell.settings.commands.prepare.is_some()
    }

    fn can_patch(&self, bytes: usize) -> bool {
        let settings = &self.shell.settings;
        settings.commands.patch.is_some()
            || (settings.terms.repo_root.is_some() && bytes <= LARGEST_DIFFERENCE)
    }

    fn wants_patch(&self) -> bool {
        self.shell.settings.commands.patch.as_ref().is_some_and(|patch| patch.contains("{patch_file}"))
    }

    fn build(&self, source: &BuildContext, cancel: &Cancel) -> Result<String, ProviderError> {
        let settings = &self.shell.settings;
        let template = settings.commands.prepare.as_deref().unwrap_or_default();
        let mut text = fill(template, &[("{cpu_cores}", &self.shell.cores())]);
        let mut append =
            |flag: &str, value: &str| text.text += &format!(" --{flag}={}", shell_words::quote(value));
        for pair in &settings.copy_dirs {
            append("copy-dir", pair);
        }
        if let Some(init) = &source.init {
            append("sandbox-init-cmd", init);
        }
        if let Some(context) = &source.context {
            append("context-dir", &context.to_string_lossy());
        }
        self.id_of("prepare_command", &text, cancel)
    }

    fn patch(&self, base: &str, difference: ThinDiff, cancel: &Cancel) -> Result<Image, ProviderError> {
        let settings = &self.shell.settings;
        let Some(template) = &settings.commands.patch else {
            return Ok(Image { id: Some(base.to_owned()), lacks: Some(difference) });
        };
        let base = shell_words::quote(base);
        let script = settings.terms.scratch.join("thin-diff.sh");
        std::fs::write(&script, &difference.script).map_err(|error| {
            ProviderError::Refused(format!("cannot write `{}`: {error}", script.display()))
        })?;
        let patch = difference.patch.to_string_lossy();
        let script = script.to_string_lossy();
        let root = settings.terms.repo_root.as_deref().unwrap_or(".");
        let values = [
            ("{image_id}", &*base),
            ("{patch_file}", &*shell_words::quote(&patch)),
            ("{patch_script}", &*shell_words::quote(&script)),
            ("{repo_root}", &*shell_words::quote(root)),
            ("{cpu_cores}", &*self.shell.cores()),
        ];
        let mut text = fill(template, &values);
        if let Some(then) = &difference.then {
            text.text += &format!(" --post-patch-cmd={}", shell_words::quote(then));
        }
        let id = self.id_of("patch_command", &text, cancel).map_err(|error| match error {
            // A command cannot tell whether that is because the image is gone.
            ProviderError::Refused(message) => ProviderError::Lost(message),
            error => error,
        })?;
        Ok(Image { id: Some(id), lacks: None })
    }
}

/// The id that a command gave in its last line. What no program can be given as an argument is none.
fn id_in(last: Option<String>, key: &str, of: &str) -> Result<String, ProviderError> {
    let wish = format!("the last line of its output must be the id of the {of}");
    let odd = |letter: char| letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    match last {
        Some(id) if !id.contains(odd) => Ok(id),
        Some(id) => {
            let begin: String = id.chars().take(40).collect();
            Err(ProviderError::Refused(format!("`{key}` printed {begin:?}, which is no id; {wish}")))
        }
        None => Err(ProviderError::Refused(format!("`{key}` printed nothing; {wish}"))),
    }
}

/// A create that failed, with the id of a sandbox that it may have left.
type Failed = (ProviderError, Option<String>);

impl Command<'_> {
    /// Runs the create command and gives the id of the sandbox.
    fn make(&self, image: &Image, entry: Option<&Entry>, cancel: &Cancel) -> Result<String, Failed> {
        let image = shell_words::quote(image.id.as_deref().unwrap_or_default());
        let values = [("{image_id}", &*image), ("{cpu_cores}", &*self.shell.cores())];
        let text = fill(&self.shell.settings.commands.create, &values);
        let output = entry.map(Entry::output);
        let mut left = None;
        let made = patiently(cancel, || {
            let said = self.shell.run("create_command", &text, output, cancel)?;
            match (said.check("create_command"), said.last) {
                (Ok(()), last) => id_in(last, "create_command", "sandbox"),
                (Err(error), None) => Err(error),
                (Err(error), Some(id)) => {
                    // It may have been ended, or have failed, when the sandbox was there already.
                    let destroyed = self.shell.destroy(&id);
                    if let Err(again) = destroyed {
                        log::debug!("`{id}` of a create that failed cannot be destroyed: {again}");
                        // What a create says that fails by itself is seldom an id.
                        left = matches!(said.exit, Exit::TimedOut | Exit::Cancelled).then_some(id);
                    }
                    Err(error)
                }
            }
        });
        made.map_err(|error| (error, left))
    }

    /// A sandbox of `image` as it is.
    fn create_from(&self, image: &Image, slot: usize, cancel: &Cancel) -> Result<Remote, ProviderError> {
        let mut entry = begin(self.journal.as_ref(), slot)?;
        let id = match self.make(image, entry.as_ref(), cancel) {
            Ok(id) => id,
            Err((error, None)) => {
                entry.into_iter().for_each(Entry::close);
                return Err(error);
            }
            Err((error, Some(id))) => {
                // Left open, the entry is there for `offload gc`.
                enter(entry.as_mut(), &id);
                log::error!("the sandbox `{id}` was not destroyed (`offload gc` tries again)");
                return Err(error);
            }
        };
        enter(entry.as_mut(), &id);
        let transport: Arc<dyn Transport> = Arc::clone(&self.shell) as _;
        Ok(Remote::new((Arc::clone(&self.shell.common), transport), id, entry, cancel))
    }
}

impl Provider for Command<'_> {
    fn create(&self, slot: usize, cancel: &Cancel) -> Result<Box<dyn Sandbox>, ProviderError> {
        let make = |image: &Image| Ok((self.create_from(image, slot, cancel)?, image.lacks.clone()));
        let (mut sandbox, lacks) = self.image.create(cancel, make)?;
        if let Some(difference) = lacks
            && let Err(error) = patch(&mut sandbox, &difference, cancel)
        {
            if let Err(error) = Box::new(sandbox).destroy() {
                log::error!("{error}");
            }
            return Err(error);
        }
        Ok(Box::new(sandbox))
    }

    fn root(&self) -> &str {
        &self.root
    }

    fn scratch(&self) -> Option<&Path> {
        Some(&self.shell.common.prefix)
    }

    fn takes(&self, command: &CommandLine) -> bool {
        self.shell.common.takes(command)
    }

    fn creates_may_be_ended(&self) -> bool {
        // Clients do not undo a request when they are ended.
        false
    }
}
