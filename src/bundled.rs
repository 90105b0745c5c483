//! Scripts that are part of the program: a word `@name.ext` in a configured command stands for the path of one.

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs::Metadata;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;

struct Script {
    name: &'static str,
    content: &'static str,
}

const SCRIPTS: [Script; 2] = [
    Script { name: "directory_sandbox.sh", content: include_str!("../scripts/bundled/directory_sandbox.sh") },
    Script { name: "modal_sandbox.py", content: include_str!("../scripts/bundled/modal_sandbox.py") },
];

/// A word of a command that looks like a bundled script.
struct Reference<'a> {
    /// The byte offset of the `@`.
    place: usize,
    /// The name without the `@`.
    name: &'a str,
}

impl Reference<'_> {
    fn is_known(&self) -> bool {
        names().any(|name| name == self.name)
    }
}

/// The names of all scripts.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|script| script.name)
}

/// Where scripts are written: a directory in the user's cache.
pub fn cache_dir(environment: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let directory = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    directory("XDG_CACHE_HOME")
        .map(|cache| cache.join("offload/scripts"))
        .or_else(|| directory("HOME").map(|home| home.join(".cache/offload/scripts")))
        .unwrap_or_else(|| std::env::temp_dir().join(format!("offload-scripts-{}", nix::unistd::getuid())))
}

/// The words of `command` that look like bundled scripts.
fn references(command: &str) -> Vec<Reference<'_>> {
    let mut found = Vec::new();
    for (place, _) in command.match_indices('@') {
        let before = command[..place].chars().next_back();
        let begins = before.is_none_or(|c| c.is_whitespace() || ";&|(".contains(c));
        let name = &command[place + 1..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(name.len());
        let after = name[end..].chars().next();
        let ends = after.is_none_or(|c| c.is_whitespace() || ";&|)<>".contains(c));
        let name = &name[..end];
        if begins
            && ends
            && name.split_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && !ending.is_empty())
        {
            found.push(Reference { place, name });
        }
    }
    found
}

/// Whether `command` uses a bundled script.
pub fn is_used(command: &str) -> bool {
    references(command).iter().any(Reference::is_known)
}

/// Words of `command` that look like bundled scripts but do not exist.
pub fn unknown(command: &str) -> Vec<String> {
    let references = references(command).into_iter();
    let unknown = references.filter(|reference| !reference.is_known());
    unknown.map(|reference| format!("@{}", reference.name)).collect()
}

/// The file of the bundled script `name` in `cache`, which is written first.
///
/// # Errors
/// If there is no such script, or it cannot be written.
pub fn path(name: &str, cache: &Path) -> Result<PathBuf> {
    let script = SCRIPTS.iter().find(|script| script.name == name);
    let script = script.with_context(|| format!("there is no bundled script `{name}`"))?;
    write(cache, script).with_context(|| {
        format!("cannot write the bundled script `{name}` (set `XDG_CACHE_HOME` to use another place)")
    })
}

/// Replaces each bundled script in `command` with the quoted path of a file in `cache`, which is written first.
/// Other words stay as they are.
///
/// # Errors
/// If a script cannot be written.
pub fn resolve(command: &str, cache: &Path) -> Result<String> {
    let mut text = String::new();
    let mut rest = 0;
    for reference in references(command) {
        if !reference.is_known() {
            continue;
        }
        let path = path(reference.name, cache)?;
        text.push_str(&command[rest..reference.place]);
        text.push_str(&shell_words::quote(&path.to_string_lossy()));
        rest = reference.place + 1 + reference.name.len();
    }
    Ok(text + &command[rest..])
}

/// Writes a script to a directory named after its hash, unless it is there already.
fn write(cache: &Path, script: &Script) -> Result<PathBuf> {
    let Script { name, content } = script;
    let mut hasher = DefaultHasher::new();
    (name, content).hash(&mut hasher);
    let directory = cache.join(format!("{:016x}", hasher.finish()));
    let path = directory.join(name);
    // A script that somebody else may have written must not be executed.
    files::make_private(cache)?;
    files::make_private(&directory)?;
    let is_own = |data: Metadata| data.uid() == nix::unistd::getuid().as_raw() && data.mode() & 0o022 == 0;
    let is_safe = path.symlink_metadata().is_ok_and(|data| data.is_file() && is_own(data));
    if is_safe && std::fs::read(&path).is_ok_and(|bytes| bytes == content.as_bytes()) {
        return Ok(path);
    }
    let about = || format!("cannot write `{}`", path.display());
    let executable = PermissionsExt::from_mode(0o755);
    let file =
        tempfile::Builder::new().permissions(executable).tempfile_in(&directory).with_context(about)?;
    file.as_file().write_all(content.as_bytes()).with_context(about)?;
    file.persist(&path).with_context(about)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_that_name_a_script_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let cache = directory.path().join("a cache");
        let path = |text: &str| resolve(text, &cache).unwrap();
        let script = path("@directory_sandbox.sh");
        assert!(script.starts_with('\'') && script.contains("a cache/"), "{script}");
        assert_eq!(path("(cd x;@directory_sandbox.sh)|y"), format!("(cd x;{script})|y"));
        for same in [
            "user@directory_sandbox.sh",
            "'@directory_sandbox.sh'",
            "@directory_sandbox.sh/x",
            "@other.py",
            "@",
            "a @x b",
            "--x=@directory_sandbox.sh",
        ] {
            assert_eq!(path(same), same);
        }
        assert_eq!(unknown("uv run @modal.py @directory_sandbox.sh me@home.org @x"), ["@modal.py"]);
    }

    #[test]
    fn a_script_is_complete_under_concurrency_and_replaced_if_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let content = SCRIPTS[0].content;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let path = resolve("@directory_sandbox.sh", directory.path()).unwrap();
                    assert_eq!(std::fs::read_to_string(path).unwrap(), content);
                });
            }
        });
        let path = resolve("@directory_sandbox.sh", directory.path()).unwrap();
        std::fs::write(&path, "half").unwrap();
        resolve("@directory_sandbox.sh", directory.path()).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), content);
    }
}
