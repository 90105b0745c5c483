//! The stage that gives a run its image: found by its recipe in the notes of the repository, else built from the
//! commit. Changes of the working tree since then are brought to it as a thin diff.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};

use crate::cancel::Cancel;
use crate::git::Repository;
use crate::git::changes::Changes;
use crate::git::notes::{GoneImage, ImageNote, Notes};
use crate::git::patch;
use crate::provider::{BuildContext, Builder, Image, ProviderError, ThinDiff};
use crate::words;

mod recipe;

use recipe::Recipe;

/// How many commits are searched for one that has an image.
const COMMITS: usize = 1000;

/// Larger differences are not brought to an image: they would have to be held in memory.
const LARGEST: usize = 64 << 20;

/// What an image is needed for.
pub struct Wanted<'a> {
    /// Who makes images.
    pub builder: &'a dyn Builder,
    /// The repository of the project, where there is one.
    pub repository: Option<&'a Repository>,
    /// The directory of this machine in which the project is.
    pub project: &'a Path,
    /// Runs when the files are in place.
    pub init: Option<String>,
    /// Runs after a difference was applied.
    pub then: Option<String>,
    /// Where that runs, relative to the root of the repository.
    pub then_in: &'a Path,
    /// Files whose change requires another image; `None`: those that usually do.
    pub build_inputs: Option<&'a [String]>,
    /// Our own files, absolute: no part of any image.
    pub excluded: Vec<PathBuf>,
    /// A private directory of this machine.
    pub scratch: &'a Path,
}

/// An image for a run.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The image.
    pub image: Image,
    /// Whether it comes from a cache, so that the provider may have lost it.
    pub is_cached: bool,
}

/// What a run would do for its image.
#[derive(Clone, Debug)]
pub struct Status {
    /// The digest of everything that decides what the image is.
    pub key: String,
    /// The files whose change requires another image, relative to the repository.
    pub inputs: Vec<PathBuf>,
    /// The newest commit.
    pub head: String,
    /// The commit with an image, how many commits it is behind, and the image.
    pub cached: Option<(String, usize, String)>,
    /// The changes since that commit, or the newest one: how many files, and bytes.
    pub changes: (usize, usize),
    /// Whether they can be brought to an image.
    pub can_patch: bool,
}

/// The changes of the working tree since a commit.
enum Difference {
    /// None, or such as can be brought to an image.
    Thin(Option<ThinDiff>),
    /// Too many.
    Unfit,
}

/// Where a cached image is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// In the notes of the remote and of this machine.
    Everywhere,
    /// In the notes of this machine, as they are.
    Here,
    /// A new one is built.
    Nowhere,
}

/// What is known before anything is built.
struct Outlook<'a> {
    repository: &'a Repository,
    recipe: Recipe,
    head: String,
    /// The commit with an image, and the image.
    cached: Option<(String, String)>,
}

fn not_brought(error: ProviderError) -> anyhow::Error {
    anyhow!("{error}").context("cannot bring the changes to the image")
}

/// The image for `key` of one of `commits`, the newest first, else of any commit: commit and image. It need not be an
/// ancestor, as changes are found by comparing trees.
fn cached(notes: &Notes, search: Search, commits: &[String], key: &str) -> Result<Option<(String, String)>> {
    if search == Search::Nowhere {
        return Ok(None);
    }
    if search == Search::Everywhere {
        // A remote is slow, and has nothing nearer than this.
        let nearest = notes.find(&commits[..commits.len().min(1)], key)?;
        if nearest.is_some() {
            return Ok(nearest);
        }
        if let Err(error) = notes.fetch() {
            log::warn!("{error:#}; images built elsewhere are not found");
        }
    }
    match notes.find(commits, key)? {
        None => notes.find_elsewhere(key),
        found => Ok(found),
    }
}

fn warn_of_submodules(paths: &[String]) {
    if paths.is_empty() {
        return;
    }
    let named: Vec<_> = paths.iter().take(3).map(|path| format!("`{path}`")).collect();
    let more = paths.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    log::warn!(
        "submodules are empty directories in the image: {}{more}; `copy_dirs` or `sandbox_init_cmd` can fill them",
        named.join(", ")
    );
}

impl Wanted<'_> {
    /// Finds or builds the image.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn prepare(&self, search: Search, cancel: &Cancel) -> Result<Found> {
        if !self.builder.makes_images() {
            return Ok(Found::default());
        }
        let is_fresh = search == Search::Nowhere;
        let Some(outlook) = self.outlook(search)? else {
            log::warn!("there is no git commit to keep the image for: it is built for this run alone");
            return self.whole(None, is_fresh, cancel);
        };
        if let Some((commit, image)) = &outlook.cached
            && let Difference::Thin(difference) = self.difference(outlook.repository, commit)?
        {
            return match self.complete(image, difference, true, cancel) {
                Err(error @ ProviderError::Lost(_)) if !cancel.is_raised() => {
                    log::warn!("the image of commit {commit} cannot be used and is rebuilt: {error}");
                    self.build(&outlook, true, Some(error), cancel)
                }
                result => result.map_err(not_brought),
            };
        }
        self.build(&outlook, is_fresh, None, cancel)
    }

    /// Rebuilds the image, as the cached one is gone; its note is removed.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn renew(&self, cancel: &Cancel) -> Result<Found> {
        match self.outlook(Search::Here)? {
            Some(outlook) => self.build(&outlook, true, None, cancel),
            None => self.whole(None, true, cancel),
        }
    }

    /// Builds the image of the newest commit and applies the changes since then, or builds one of the whole working
    /// tree. If the changes are refused, `first` is why they were refused before.
    fn build(
        &self,
        outlook: &Outlook<'_>,
        is_fresh: bool,
        first: Option<ProviderError>,
        cancel: &Cancel,
    ) -> Result<Found> {
        let repository = outlook.repository;
        warn_of_submodules(&repository.submodules(&outlook.head)?);
        let Difference::Thin(difference) = self.difference(repository, &outlook.head)? else {
            return self.whole(Some(repository), is_fresh, cancel);
        };
        let image = self.of_commit(outlook, is_fresh, cancel)?;
        let completed = self.complete(&image, difference, false, cancel);
        completed.map_err(|error| not_brought(first.unwrap_or(error)))
    }

    /// What [`Wanted::prepare`] would do; `None` where no image is kept.
    ///
    /// # Errors
    /// When the repository or a build input cannot be read.
    pub fn status(&self) -> Result<Option<Status>> {
        if !self.builder.makes_images() {
            return Ok(None);
        }
        let Some(outlook) = self.outlook(Search::Everywhere)? else { return Ok(None) };
        let repository = outlook.repository;
        let distance = |base: &str| -> Result<(usize, usize, bool)> {
            let changes = repository.changes(base, &self.excluded)?;
            Ok(match self.script(&changes)? {
                Some(_) if changes.is_empty() => (0, 0, true),
                Some(script) => (changes.len(), script.len(), true),
                None => (changes.len(), changes.bytes(), false),
            })
        };
        let mut cached = None;
        if let Some((commit, image)) = &outlook.cached {
            cached = Some((commit.clone(), repository.behind(commit)?, image.clone()));
        }
        let base = cached.as_ref().map_or(&outlook.head, |(commit, ..)| commit);
        let (mut files, mut bytes, mut can_patch) = distance(base)?;
        if !can_patch && *base != outlook.head {
            // Too many changes: the newest commit gets an image of its own.
            (files, bytes, can_patch) = distance(&outlook.head)?;
            cached = None;
        }
        Ok(Some(Status {
            key: outlook.recipe.key,
            inputs: outlook.recipe.inputs,
            head: outlook.head,
            cached,
            changes: (files, bytes),
            can_patch,
        }))
    }

    /// Looks at commits and notes; `None` where there is no commit.
    fn outlook(&self, search: Search) -> Result<Option<Outlook<'_>>> {
        let Some(repository) = self.repository else { return Ok(None) };
        let Some(head) = repository.head()? else { return Ok(None) };
        let inputs = self.inputs(repository.root())?;
        let recipe =
            Recipe::new(self.builder, self.init.as_deref(), repository.root(), inputs, &self.excluded)?;
        let commits = repository.ancestors(COMMITS)?;
        let cached = cached(&Notes::new(repository), search, &commits, &recipe.key)?;
        Ok(Some(Outlook { repository, recipe, head, cached }))
    }

    /// The files below `root` whose change requires another image, each once.
    fn inputs(&self, root: &Path) -> Result<Vec<PathBuf>> {
        let mut inputs = recipe::inputs(root, self.project, self.build_inputs)?;
        inputs.extend(recipe::files(root, &self.builder.inputs()));
        inputs.sort();
        inputs.dedup();
        Ok(inputs)
    }

    /// The changes of the working tree since `commit`.
    fn difference(&self, repository: &Repository, commit: &str) -> Result<Difference> {
        let changes = repository.changes(commit, &self.excluded)?;
        if changes.is_empty() {
            return Ok(Difference::Thin(None));
        }
        let count = words::count(changes.len(), "changed file");
        log::info!("{count} since commit {}", &commit[..commit.len().min(12)]);
        let Some(script) = self.script(&changes)? else { return Ok(Difference::Unfit) };
        let patch = self.scratch.join("thin-diff.patch");
        if self.then.is_some() || self.builder.wants_patch() {
            repository.write_diff(commit, &self.excluded, &patch)?;
        }
        if self.then.is_some() {
            // It also holds what was deleted, and is sent the same way as the script.
            let size = patch.metadata().with_context(|| format!("cannot read `{}`", patch.display()))?.len();
            if !self.fits(usize::try_from(size).unwrap_or(usize::MAX)) {
                return Ok(Difference::Unfit);
            }
        }
        Ok(Difference::Thin(Some(ThinDiff { patch, script, then: self.then.clone() })))
    }

    /// The script that makes `changes`, if it can be brought to an image.
    fn script(&self, changes: &Changes) -> Result<Option<String>> {
        if changes.is_empty() {
            return Ok(Some(String::new()));
        }
        patch::script(changes, &|bytes| self.fits(bytes))
    }

    /// Whether so many bytes can be brought to an image.
    fn fits(&self, bytes: usize) -> bool {
        bytes <= LARGEST && self.builder.can_patch(bytes)
    }

    /// Builds and notes the image of the newest commit.
    fn of_commit(&self, outlook: &Outlook<'_>, is_fresh: bool, cancel: &Cancel) -> Result<String> {
        let repository = outlook.repository;
        let directory = self.directory("commit")?;
        repository.export(&outlook.head, directory.path())?;
        recipe::add_inputs(&outlook.recipe.inputs, repository.root(), directory.path(), &self.excluded)?;
        let source =
            BuildContext { context: Some(directory.path().to_owned()), init: self.init.clone(), is_fresh };
        let image = self
            .builder
            .build(&source, cancel)
            .map_err(|error| anyhow!("{error}"))
            .context("cannot build the image")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let note = ImageNote { key: outlook.recipe.key.clone(), image: image.clone(), at };
        // A cached image that is rebuilt is gone.
        let gone = outlook.cached.clone().filter(|_| is_fresh);
        let gone = gone.map(|(commit, image)| GoneImage { commit, image });
        if let Err(error) = Notes::new(repository).record(&outlook.head, &note, gone.as_ref()) {
            log::warn!("{error:#}; others will build this image again");
        }
        Ok(image)
    }

    /// An image of the working tree as it is, for this run alone.
    fn whole(&self, repository: Option<&Repository>, is_fresh: bool, cancel: &Cancel) -> Result<Found> {
        let directory = repository.map(|_| self.directory("tree")).transpose()?;
        if let (Some(repository), Some(directory)) = (repository, &directory) {
            log::info!("the changes cannot be brought to an image: one is built from the working tree");
            repository.snapshot(directory.path(), &self.excluded)?;
            let inputs = self.inputs(repository.root())?;
            recipe::add_inputs(&inputs, repository.root(), directory.path(), &self.excluded)?;
        }
        let context = directory.as_ref().map(|directory| directory.path().to_owned());
        let source = BuildContext { context, init: self.init_and_then(), is_fresh };
        let id = self
            .builder
            .build(&source, cancel)
            .map_err(|error| anyhow!("{error}"))
            .context("cannot build the image")?;
        Ok(Found { image: Image { id: Some(id), lacks: None }, is_cached: false })
    }

    /// What runs in an image of the whole working tree once the files are in place: each script in a shell of its own,
    /// so that neither changes the other's directory or settings.
    fn init_and_then(&self) -> Option<String> {
        let Some(then) = &self.then else { return self.init.clone() };
        let shell = |text: &str| format!("sh -c {}", shell_words::quote(text));
        let mut texts: Vec<String> = self.init.iter().map(|init| shell(init)).collect();
        if !self.then_in.as_os_str().is_empty() {
            texts.push(format!("cd {}", shell_words::quote(&self.then_in.to_string_lossy())));
        }
        texts.push(shell(then));
        Some(texts.join(" && "))
    }

    fn complete(
        &self,
        image: &str,
        difference: Option<ThinDiff>,
        is_cached: bool,
        cancel: &Cancel,
    ) -> Result<Found, ProviderError> {
        let image = match difference {
            None => Image { id: Some(image.into()), lacks: None },
            Some(difference) => self.builder.patch(image, difference, cancel)?,
        };
        Ok(Found { image, is_cached })
    }

    fn directory(&self, name: &str) -> Result<tempfile::TempDir> {
        let directory = tempfile::Builder::new().prefix(name).tempdir_in(self.scratch);
        directory.with_context(|| format!("cannot make a directory in `{}`", self.scratch.display()))
    }
}
