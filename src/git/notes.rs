//! Images by the recipe that made them, in git notes on the commits that they were made from. A note has
//! a line for each image; lines of other programs stay as they are.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Call, Repository};

/// Where the notes are, here and at the remote.
const REF: &str = "refs/notes/offload-images";
/// What the names of refs of our own begin with; a kind, a time and a number follow.
const PRIVATE: &str = "refs/notes/offload-";
/// Refs of our own that are older are of a run that was killed.
const LEFT: Duration = Duration::from_secs(3600);
/// What git says where there is no such object or ref.
const NOTHING: &str = "0000000000000000000000000000000000000000";
/// How long a remote may take to give its notes: a run waits for it before anything else.
const FETCH: Duration = Duration::from_secs(10);
/// How long it may take to take ours.
const PUSH: Duration = Duration::from_secs(30);
/// Others who change the notes at the same time are waited for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageNote {
    /// The digest of its recipe.
    pub key: String,
    /// What the provider calls it.
    pub image: String,
    /// When it was made, in milliseconds since the epoch; of several with one key the newest counts.
    pub at: u64,
}

/// An image that the provider no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneImage {
    /// The commit that it was noted for.
    pub commit: String,
    /// What the provider called it.
    pub image: String,
}

/// The notes of a repository.
pub struct Notes<'a> {
    repository: &'a Repository,
}

/// A ref of our own, removed when dropped.
struct Private<'a> {
    repository: &'a Repository,
    name: String,
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        // One that was never made need not be removed.
        let _ = self.repository.try_ask(&Call::new(["update-ref", "-d", &self.name]));
    }
}

impl<'a> Notes<'a> {
    /// The notes of `repository`.
    pub fn new(repository: &'a Repository) -> Notes<'a> {
        Notes { repository }
    }

    fn private(&self, kind: &str) -> Private<'a> {
        let chance = RandomState::new().hash_one(std::process::id());
        let name = format!("{PRIVATE}{kind}-{}-{chance:016x}", seconds());
        Private { repository: self.repository, name }
    }

    /// Removes the private refs that runs have left which were killed.
    fn sweep(&self) -> Result<()> {
        let refs = self.text(&["for-each-ref", "--format=%(refname)", &format!("{PRIVATE}*")])?;
        for name in refs.lines() {
            // `KIND-SECONDS-CHANCE`
            let parts: Vec<&str> = name.strip_prefix(PRIVATE).unwrap_or_default().split('-').collect();
            let made = if let [_, made, _] = parts[..] { made.parse::<u64>().ok() } else { None };
            if made.is_some_and(|made| made.saturating_add(LEFT.as_secs()) < seconds()) {
                self.text(&["update-ref", "-d", name])?;
            }
        }
        Ok(())
    }

    fn text(&self, words: &[&str]) -> Result<String> {
        let bytes = self.repository.ask(&Call::new(words))?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// What a ref points to, or [`NOTHING`].
    fn tip(&self, name: &str) -> Result<String> {
        let answer = self.repository.try_ask(&Call::new(["rev-parse", "--verify", "--quiet", name]))?;
        let tip = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        Ok(if answer.code == 0 { tip } else { NOTHING.to_owned() })
    }

    /// The remote that notes are shared with: that of the branch, else `origin`, else the only one.
    fn remote(&self) -> Result<Option<String>> {
        let remotes = self.text(&["remote"])?;
        // A remote may have settings and no place.
        let has_place = |remote: &&str| {
            let call = Call::new(["config", "--get", &format!("remote.{remote}.url")]);
            self.repository.try_ask(&call).is_ok_and(|answer| answer.code == 0)
        };
        let remotes: Vec<&str> = remotes.lines().filter(has_place).collect();
        let branch = self.repository.try_ask(&Call::new(["symbolic-ref", "--quiet", "--short", "HEAD"]))?;
        let branch = String::from_utf8_lossy(&branch.stdout).trim().to_owned();
        let key = format!("branch.{branch}.remote");
        let own = self.repository.try_ask(&Call::new(["config", "--get", &key]))?;
        let own = String::from_utf8_lossy(&own.stdout).trim().to_owned();
        let own = remotes.iter().find(|remote| **remote == own);
        let origin = remotes.iter().find(|remote| **remote == "origin");
        let only = remotes.first().filter(|_| remotes.len() == 1);
        Ok(own.or(origin).or(only).map(|remote| (*remote).to_owned()))
    }

    /// Brings the notes of the remote here and adds them to ours. Gives whether there is a remote.
    ///
    /// # Errors
    /// When the remote cannot be reached.
    pub fn fetch(&self) -> Result<bool> {
        let Some(remote) = self.remote()? else { return Ok(false) };
        self.fetch_from(&remote)?;
        Ok(true)
    }

    fn fetch_from(&self, remote: &str) -> Result<()> {
        let fetched = self.private("fetched");
        let spec = format!("+{REF}:{}", fetched.name);
        let words = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            remote,
            &spec,
        ];
        let call = Call { deadline: Some(FETCH), ..Call::new(words) };
        let answer = self
            .repository
            .try_ask(&call)
            .with_context(|| format!("cannot fetch the image notes from `{remote}`"))?;
        if answer.code != 0 {
            if answer.stderr.contains("couldn't find remote ref") {
                return Ok(());
            }
            bail!("cannot fetch the image notes from `{remote}`: {}", one_line(&answer.stderr));
        }
        self.change(|merged| {
            if self.tip(&merged.name)? == NOTHING {
                return self.text(&["update-ref", &merged.name, &fetched.name]).map(drop);
            }
            let own = format!("--ref={}", merged.name);
            self.text(&["notes", &own, "merge", "--quiet", "-s", "cat_sort_uniq", &fetched.name]).map(drop)
        })
    }

    /// Applies `change` to a copy of our notes and puts it in their place, again if they changed meanwhile.
    fn change(&self, change: impl Fn(&Private<'_>) -> Result<()>) -> Result<()> {
        if let Err(error) = self.sweep() {
            log::debug!("refs of earlier runs are left: {error:#}");
        }
        let until = Instant::now() + PATIENCE;
        let mut error = None;
        for attempt in 0.. {
            if attempt > 0 {
                if Instant::now() >= until {
                    break;
                }
                rest(attempt);
            }
            let old = self.tip(REF)?;
            let copy = self.private("copy");
            if old != NOTHING {
                self.text(&["update-ref", &copy.name, &old])?;
            }
            change(&copy)?;
            let new = self.tip(&copy.name)?;
            if new == old {
                return Ok(());
            }
            match self.text(&["update-ref", REF, &new, &old]) {
                Ok(_) => return Ok(()),
                Err(failed) => error = Some(failed),
            }
        }
        let error = error.unwrap_or_else(|| anyhow::anyhow!("it was changed again and again"));
        Err(error).with_context(|| format!("cannot update `{REF}`"))
    }

    /// The image of the first of `commits` that has one for `key`: commit and image.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn find(&self, commits: &[String], key: &str) -> Result<Option<(String, String)>> {
        let notes: HashMap<String, String> = self.list()?.into_iter().collect();
        let noted = commits.iter().filter_map(|commit| Some((commit.clone(), notes.get(commit)?.clone())));
        let images = self.images_of(noted.collect(), key)?;
        Ok(images.into_iter().next().map(|(commit, newest)| (commit, newest.image)))
    }

    /// The newest image for `key` of any commit that is known here, such as one that was amended or rebased
    /// since: commit and image.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn find_elsewhere(&self, key: &str) -> Result<Option<(String, String)>> {
        let mut images = self.images_of(self.list()?, key)?;
        images.sort_by_key(|(_, image)| std::cmp::Reverse(image.at));
        let input = self.listed(images.iter().map(|(commit, _)| commit.as_str()))?;
        // A partial clone would ask its remote for each that is missing.
        let env = vec![("GIT_NO_LAZY_FETCH".to_owned(), "1".to_owned())];
        let call = Call { input: Some(input), env, ..Call::new(["cat-file", "--batch-check"]) };
        let answer = self.repository.ask(&call)?;
        let kinds = String::from_utf8_lossy(&answer);
        let known = images.into_iter().zip(kinds.lines()).find(|(_, kind)| kind.contains(" commit "));
        Ok(known.map(|((commit, newest), _)| (commit, newest.image)))
    }

    /// All noted commits with the ids of their notes.
    fn list(&self) -> Result<Vec<(String, String)>> {
        if self.tip(REF)? == NOTHING {
            return Ok(Vec::new());
        }
        let list = self.text(&["notes", &format!("--ref={REF}"), "list"])?;
        let notes = list.lines().filter_map(|line| line.split_once(' '));
        Ok(notes.map(|(note, commit)| (commit.to_owned(), note.to_owned())).collect())
    }

    /// Of those commits that have an image for `key`, the newest one, in the order of `notes`.
    fn images_of(&self, notes: Vec<(String, String)>, key: &str) -> Result<Vec<(String, ImageNote)>> {
        let texts = self.contents(notes.iter().map(|(_, note)| note.as_str()))?;
        let newest = |text: &str| images(text).filter(|image| image.key == key).max_by_key(|image| image.at);
        let images = notes.into_iter().zip(texts);
        Ok(images.filter_map(|((commit, _), text)| Some((commit, newest(&text)?))).collect())
    }

    /// A file with these ids.
    fn listed<'b>(&self, objects: impl Iterator<Item = &'b str>) -> Result<PathBuf> {
        let list: String = objects.flat_map(|object| [object, "\n"]).collect();
        let input = self.repository.temporary("objects");
        std::fs::write(&input, list).with_context(|| format!("cannot write `{}`", input.display()))?;
        Ok(input)
    }

    /// The texts of objects, asked for at once.
    fn contents<'b>(&self, objects: impl Iterator<Item = &'b str>) -> Result<Vec<String>> {
        let call = Call { input: Some(self.listed(objects)?), ..Call::new(["cat-file", "--batch"]) };
        let answer = self.repository.ask(&call)?;
        let mut rest = answer.as_slice();
        let mut texts = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            // `ID blob SIZE`, then so many bytes and a line feed.
            let head = String::from_utf8_lossy(&rest[..end]).into_owned();
            let size = head.rsplit(' ').next().and_then(|size| size.parse::<usize>().ok()).unwrap_or(0);
            rest = &rest[end + 1..];
            if head.ends_with(" missing") {
                texts.push(String::new());
                continue;
            }
            let text = &rest[..size.min(rest.len())];
            texts.push(String::from_utf8_lossy(text).into_owned());
            rest = &rest[(size + 1).min(rest.len())..];
        }
        Ok(texts)
    }

    /// Notes an image of `commit`, in place of older ones with the same key and of `gone`, and sends the notes to the
    /// remote. Gives whether there is one.
    ///
    /// # Errors
    /// When the note cannot be written, or not be sent; then it is kept here.
    pub fn record(&self, commit: &str, image: &ImageNote, gone: Option<&GoneImage>) -> Result<bool> {
        let noted = self.change(|copy| {
            if let Some(gone) = gone {
                let is_gone = |known: &ImageNote| known.key == image.key && known.image == gone.image;
                self.rewrite(copy, &gone.commit, None, &is_gone)?;
            }
            self.rewrite(copy, commit, Some(image), &|known| known.key == image.key)
        });
        noted.context("cannot note the image")?;
        let Some(remote) = self.remote()? else { return Ok(false) };
        let until = Instant::now() + PATIENCE;
        let spec = format!("{REF}:{REF}");
        for attempt in 0.. {
            let call = Call {
                deadline: Some(PUSH),
                ..Call::new(["push", "--quiet", "--no-verify", &remote, &spec])
            };
            let answer = self
                .repository
                .try_ask(&call)
                .with_context(|| format!("cannot send the image notes to `{remote}`"))?;
            if answer.code == 0 {
                return Ok(true);
            }
            if !is_race(&answer.stderr) || Instant::now() >= until {
                bail!("cannot send the image notes to `{remote}`: {}", one_line(&answer.stderr));
            }
            rest(attempt);
            self.fetch_from(&remote)?;
        }
        Ok(true)
    }

    /// Puts `new` in the place of the lines of `commit` that are `old`; those of others stay.
    fn rewrite(
        &self,
        copy: &Private<'_>,
        commit: &str,
        new: Option<&ImageNote>,
        old: &dyn Fn(&ImageNote) -> bool,
    ) -> Result<()> {
        let own = format!("--ref={}", copy.name);
        let known = self.repository.try_ask(&Call::new(["notes", &own, "show", commit]))?;
        let known = if known.code == 0 { known.stdout } else { Vec::new() };
        let known = String::from_utf8_lossy(&known);
        let stays = |line: &&str| {
            !line.trim().is_empty() && !serde_json::from_str(line).is_ok_and(|known: ImageNote| old(&known))
        };
        let mut lines: Vec<String> = known.lines().filter(stays).map(str::to_owned).collect();
        if let Some(new) = new {
            lines.push(serde_json::to_string(new).context("cannot write a note")?);
        }
        if lines.is_empty() {
            return self.text(&["notes", &own, "remove", "--ignore-missing", commit]).map(drop);
        }
        lines.sort();
        let file = self.repository.temporary("note");
        std::fs::write(&file, lines.join("\n") + "\n")
            .with_context(|| format!("cannot write `{}`", file.display()))?;
        self.text(&["notes", &own, "add", "--force", "--file", &file.to_string_lossy(), commit]).map(drop)
    }
}

/// Seconds since the epoch.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn images(text: &str) -> impl Iterator<Item = ImageNote> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// Whether a push failed because others moved the ref meanwhile, by what git says; what a hook or a host
/// says stands behind `remote:` and would be said again.
fn is_race(stderr: &str) -> bool {
    const WORDS: [&str; 6] = [
        "[rejected]",
        "fetch first",
        "cannot lock ref",
        "failed to update ref",
        "incorrect old value",
        "stale info",
    ];
    let own = |line: &&str| !line.starts_with("remote:");
    stderr.lines().filter(own).any(|line| WORDS.iter().any(|word| line.contains(word)))
}

/// The first line of what git complains of.
fn one_line(stderr: &str) -> &str {
    stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim()
}

/// Waits a little, by chance more or less, and longer each time.
fn rest(attempt: u32) {
    let most = 50 * u64::from(attempt.min(10) + 1);
    let chance = RandomState::new().hash_one(attempt) % most;
    std::thread::sleep(Duration::from_millis(20 + chance));
}

#[cfg(test)]
mod tests;
