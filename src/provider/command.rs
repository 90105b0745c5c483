//! Sandboxes behind shell commands (`type = "default"`): anything that commands can create, use and
//! destroy.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::cancel::Cancel;
use crate::command::CommandLine;
use crate::journal::{Entry, Journal, may_be_id};
use crate::provider::image_cell::ImageCell;
use crate::provider::patience::patiently;
use crate::provider::remote::{Remote, Transport, begin, enter, patch};
use crate::provider::{
    BuildContext, Builder, Image, Provider, ProviderError, Reaper, RunEnd, Sandbox, ThinDiff,
};
use crate::words;

mod shell;

pub use shell::Settings;
use shell::{Filled, Shell};

/// Larger differences than this are not brought to each sandbox through its shell: the image is rebuilt.
const LARGEST_DIFFERENCE: usize = 2 << 20;
/// How long a server is given to finish a create whose client was ended, before a second sweep.
const LATE: Duration = Duration::from_secs(1);

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
    /// Creates that may have left a sandbox whose id is not known.
    unknown: Mutex<Vec<Making>>,
}

/// A sandbox that is being made.
struct Making {
    slot: usize,
    name: String,
    /// `None` where the run has no journal.
    entry: Option<Entry>,
}

/// A create that failed.
struct FailedCreate {
    error: ProviderError,
    left: Left,
}

/// What a create that failed may have left.
enum Left {
    Nothing,
    /// A sandbox that could not be destroyed.
    Sandbox(String),
    /// Nobody knows: it told no id for certain.
    Unknown,
}

impl Images {
    /// A maker of images for `settings`.
    pub fn new(settings: Settings) -> Images {
        Images { shell: Arc::new(Shell::new(settings)) }
    }

    /// A maker of sandboxes from `image`, which are entered in `journal`.
    pub fn provider<'a>(&self, image: ImageCell<'a>, journal: Option<Arc<Journal>>) -> Command<'a> {
        let root = self.shell.shared.root();
        Command { shell: Arc::clone(&self.shell), image, journal, root, unknown: Mutex::default() }
    }

    fn image_id(&self, filled: &Filled, cancel: &Cancel) -> Result<String, ProviderError> {
        patiently(cancel, || {
            let output = self.shell.run(filled, None, cancel)?;
            output.check(filled.key)?;
            id_in(output.last, filled.key, "image")
        })
    }
}

impl Reaper for Images {
    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        self.shell.destroy(id)
    }

    fn sweep(&self) -> Option<Result<Vec<String>, ProviderError>> {
        self.shell.sweep()
    }

    fn is_id(&self, line: &str, name: &str) -> bool {
        self.shell.is_id(line, name)
    }
}

impl Builder for Images {
    fn recipe(&self) -> Vec<String> {
        let settings = &self.shell.settings;
        let mut recipe = vec![settings.recipe.clone(), self.shell.cores()];
        recipe.extend(self.shell.variables().iter().map(|(name, value)| format!("{name}={value}")));
        recipe.extend(settings.provider.copy_dirs.iter().cloned());
        recipe
    }

    fn outside(&self) -> Vec<PathBuf> {
        let settings = &self.shell.settings;
        let copied = settings.provider.copy_dirs.iter().filter_map(|pair| pair.split_once(':'));
        let copied = copied.map(|(local, _)| settings.directory.join(local));
        // What the command names may be a Dockerfile or a script of the user's.
        let words = settings.provider.prepare_command.as_deref().map(shell_words::split);
        let words = words.into_iter().flatten().flatten().map(|word| settings.directory.join(word));
        copied.chain(words.filter(|path| path.is_file())).collect()
    }

    fn makes_images(&self) -> bool {
        self.shell.settings.provider.prepare_command.is_some()
    }

    fn can_patch(&self, bytes: usize) -> bool {
        let settings = &self.shell.settings;
        settings.provider.patch_command.is_some()
            || (settings.context.repo_root.is_some() && bytes <= LARGEST_DIFFERENCE)
    }

    fn wants_patch(&self) -> bool {
        let patch = self.shell.settings.provider.patch_command.as_ref();
        patch.is_some_and(|patch| patch.contains("{patch_file}"))
    }

    fn build(&self, source: &BuildContext, cancel: &Cancel) -> Result<String, ProviderError> {
        let settings = &self.shell.settings;
        let template = settings.provider.prepare_command.as_deref().unwrap_or_default();
        let mut filled = self.shell.fill("prepare_command", template, &[]);
        let mut append =
            |flag: &str, value: &str| filled.text += &format!(" --{flag}={}", shell_words::quote(value));
        for pair in &settings.provider.copy_dirs {
            append("copy-dir", pair);
        }
        if let Some(init) = &source.init {
            append("sandbox-init-cmd", init);
        }
        if let Some(context) = &source.context {
            append("context-dir", &context.to_string_lossy());
        }
        self.image_id(&filled, cancel)
    }

    fn patch(&self, base: &str, difference: ThinDiff, cancel: &Cancel) -> Result<Image, ProviderError> {
        let settings = &self.shell.settings;
        let Some(template) = &settings.provider.patch_command else {
            return Ok(Image { id: Some(base.to_owned()), lacks: Some(difference) });
        };
        let base = shell_words::quote(base);
        let script = settings.context.scratch.join("thin-diff.sh");
        std::fs::write(&script, &difference.script).map_err(|error| {
            ProviderError::Refused(format!("cannot write `{}`: {error}", script.display()))
        })?;
        let patch = difference.patch.to_string_lossy();
        let script = script.to_string_lossy();
        let root = settings.context.repo_root.as_deref().unwrap_or(".");
        let values = [
            ("{image_id}", &*base),
            ("{patch_file}", &*shell_words::quote(&patch)),
            ("{patch_script}", &*shell_words::quote(&script)),
            ("{repo_root}", &*shell_words::quote(root)),
        ];
        let mut filled = self.shell.fill("patch_command", template, &values);
        if let Some(then) = &difference.then {
            filled.text += &format!(" --post-patch-cmd={}", shell_words::quote(then));
        }
        let id = self.image_id(&filled, cancel).map_err(|error| match error {
            // A command cannot tell whether that is because the image is gone.
            ProviderError::Refused(message) => ProviderError::Lost(message),
            error => error,
        })?;
        Ok(Image { id: Some(id), lacks: None })
    }
}

/// The id that a command printed in its last line. What cannot be an argument of a program is none.
fn id_in(last: Option<String>, key: &str, of: &str) -> Result<String, ProviderError> {
    let rule = format!("the last line of its output must be the id of the {of}");
    let odd = |letter: char| letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    match last {
        Some(id) if !id.contains(odd) => Ok(id),
        Some(id) => {
            let begin: String = id.chars().take(40).collect();
            Err(ProviderError::Refused(format!("`{key}` printed {begin:?}, which is no id; {rule}")))
        }
        None => Err(ProviderError::Refused(format!("`{key}` printed nothing; {rule}"))),
    }
}

impl Command<'_> {
    /// Runs the create command and gives the id of the sandbox.
    fn make(&self, image: &Image, making: &Making, cancel: &Cancel) -> Result<String, FailedCreate> {
        let image = shell_words::quote(image.id.as_deref().unwrap_or_default());
        let slot = making.slot.to_string();
        let values = [("{image_id}", &*image), ("{sandbox_name}", &*making.name), ("{slot}", &*slot)];
        let filled = self.shell.fill("create_command", &self.shell.settings.provider.create_command, &values);
        let mut left = Left::Nothing;
        let made = patiently(cancel, || {
            let output = self.shell.run(&filled, making.entry.as_ref().map(Entry::output), cancel)?;
            let Err(error) = output.check(filled.key) else {
                return id_in(output.last, filled.key, "sandbox").inspect_err(|_| left = Left::Unknown);
            };
            // A create that fails by itself has made nothing, and its last line is seldom an id.
            if output.was_ended() {
                left = self.undo(output.last, &making.name);
            }
            Err(error)
        });
        made.map_err(|error| FailedCreate { error, left })
    }

    /// Destroys the sandbox `name`, whose create was ended, if its last line may be the id.
    fn undo(&self, last: Option<String>, name: &str) -> Left {
        let Some(id) = last.filter(|last| may_be_id(last)) else { return Left::Unknown };
        let turn = self.shell.turn();
        let destroyed = self.shell.destroy(&id);
        drop(turn);
        if let Err(error) = &destroyed {
            log::debug!("`{id}` of a create that was ended cannot be destroyed: {error}");
        }
        match destroyed {
            // To destroy a word of progress succeeds as well.
            _ if !self.shell.is_id(&id, name) => Left::Unknown,
            Ok(()) => Left::Nothing,
            Err(_) => Left::Sandbox(id),
        }
    }

    /// A sandbox of `image` as it is.
    fn create_from(&self, image: &Image, slot: usize, cancel: &Cancel) -> Result<Remote, ProviderError> {
        let name = self.shell.shared.sandbox_name();
        let entry = begin(self.journal.as_ref(), slot, &name)?;
        let mut making = Making { slot, name, entry };
        match self.make(image, &making, cancel) {
            Ok(id) => {
                enter(making.entry.as_mut(), &id);
                let transport: Arc<dyn Transport> = Arc::clone(&self.shell) as _;
                Ok(Remote::new(Arc::clone(&self.shell.shared), transport, id, making.entry, cancel))
            }
            Err(FailedCreate { error, left }) => {
                match left {
                    Left::Nothing => making.entry.into_iter().for_each(Entry::close),
                    Left::Sandbox(id) => {
                        // Its entry stays for `offload gc`.
                        enter(making.entry.as_mut(), &id);
                        log::error!("the sandbox `{id}` was not destroyed (`offload gc` tries again)");
                    }
                    Left::Unknown => {
                        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).push(making);
                    }
                }
                Err(error)
            }
        }
    }

    /// Destroys what carries the name of the run; `expected` is how many sandboxes may be left. Gives whether that
    /// worked.
    fn sweep(&self, expected: usize) -> bool {
        let mut swept = Vec::new();
        for is_last in [false, true] {
            match self.shell.sweep() {
                Some(Ok(ids)) => swept.extend(ids),
                Some(Err(error)) => {
                    log::error!("sandboxes of this run may be left (`offload gc` tries again): {error}");
                    return false;
                }
                None => return false,
            }
            if swept.len() >= expected || is_last {
                break;
            }
            std::thread::sleep(LATE);
        }
        if !swept.is_empty() {
            log::info!("`sweep_command` destroyed {}", swept.join(", "));
        }
        true
    }
}

/// Removes what sandboxes left in the directory for temporary files, if they were directories of this machine.
fn tidy(prefix: &Path) {
    let Some((directory, name)) = prefix.parent().zip(prefix.file_name()) else { return };
    let prefix = format!("{}-", name.to_string_lossy());
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // What stays is small, and nobody else's.
            let _ = std::fs::remove_dir_all(entry.path());
        }
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
        Some(&self.shell.shared.prefix)
    }

    fn takes(&self, command: &CommandLine) -> bool {
        self.shell.shared.takes(command)
    }

    /// Clients do not undo a request when they are ended.
    fn creates_may_be_ended(&self) -> bool {
        self.shell.can_sweep()
    }

    fn finish(&self, end: RunEnd) {
        if !self.shell.shared.sandbox_env.is_apart() {
            tidy(&self.shell.shared.prefix);
        }
        let unknown = std::mem::take(&mut *self.unknown.lock().unwrap_or_else(PoisonError::into_inner));
        let may_be_left = end == RunEnd::Interrupted && self.shell.shared.has_named_sandboxes();
        if (may_be_left || !unknown.is_empty()) && self.sweep(unknown.len()) {
            unknown.into_iter().filter_map(|making| making.entry).for_each(Entry::close);
            return;
        }
        if !unknown.is_empty() {
            let names: Vec<_> = unknown.iter().map(|making| format!("`{}`", making.name)).collect();
            log::warn!("{}", warning(&names, self.shell.can_sweep()));
        }
    }
}

/// What is to be said of creates that may have left a sandbox.
fn warning(names: &[String], can_sweep: bool) -> String {
    const SHOWN: usize = 5;
    let verb = if names.len() == 1 { "it may" } else { "each may" };
    let count = words::count(names.len(), "create");
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names[..names.len().min(SHOWN)].join(", ");
    let advice = if can_sweep {
        "`offload gc` tries to sweep again"
    } else {
        "`offload gc` lists them, `offload gc --forget` settles them, a `sweep_command` in [provider] finds them"
    };
    format!("{count} gave no reliable id; {verb} have left a sandbox ({names}{more}): {advice}")
}
