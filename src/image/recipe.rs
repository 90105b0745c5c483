//! One digest of everything that decides what an image is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::provider::Builder;

/// Files that usually decide what is installed; looked for in the roots of repository and project.
const USUAL: [&str; 48] = [
    ".node-version",
    ".nvmrc",
    ".python-version",
    ".ruby-version",
    ".tool-versions",
    "Cargo.lock",
    "Dockerfile",
    "Gemfile",
    "Gemfile.lock",
    "Pipfile",
    "Pipfile.lock",
    "bun.lock",
    "bun.lockb",
    "composer.json",
    "composer.lock",
    "conda-lock.yml",
    "constraints*.txt",
    "deno.json",
    "deno.jsonc",
    "deno.lock",
    "environment.yaml",
    "environment.yml",
    "flake.lock",
    "go.mod",
    "go.sum",
    "go.work",
    "go.work.sum",
    "gradle.lockfile",
    "mise.toml",
    "mix.exs",
    "mix.lock",
    "npm-shrinkwrap.json",
    "package-lock.json",
    "package.json",
    "pdm.lock",
    "pixi.lock",
    "pnpm-lock.yaml",
    "poetry.lock",
    "pylock*.toml",
    "pyproject.toml",
    "requirements*.txt",
    "requirements/*.txt",
    "rust-toolchain",
    "rust-toolchain.toml",
    "setup.cfg",
    "setup.py",
    "uv.lock",
    "yarn.lock",
];

/// A recipe.
pub(super) struct Recipe {
    /// Its digest, in hexadecimal.
    pub(super) key: String,
    /// The build inputs, relative to the repository.
    pub(super) inputs: Vec<PathBuf>,
}

impl Recipe {
    /// The recipe of `builder` with `init`, for `inputs` below `root`.
    pub(super) fn new(
        builder: &dyn Builder,
        init: Option<&str>,
        root: &Path,
        inputs: Vec<PathBuf>,
        excluded: &[PathBuf],
    ) -> Result<Recipe> {
        let mut digest = Sheet { hash: Sha256::new(), excluded };
        digest.field(b"offload image 1");
        for text in builder.recipe() {
            digest.field(text.as_bytes());
        }
        digest.field(init.unwrap_or_default().as_bytes());
        for (number, path) in builder.outside().iter().enumerate() {
            digest.field(number.to_string().as_bytes());
            // Excluded paths have no links and no `..`.
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            digest.path(&path, Path::new(""))?;
        }
        for input in &inputs {
            digest.path(&root.join(input), input)?;
        }
        let key = digest.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Recipe { key, inputs })
    }
}

/// The files below `root` that `patterns` name, or the usual ones there and in the directory `project`:
/// relative, sorted, each once.
pub(super) fn inputs(root: &Path, project: &Path, patterns: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut usual: Vec<String> = USUAL.iter().map(|name| (*name).to_owned()).collect();
    // Git names its root without links.
    let project = project.canonicalize().unwrap_or_else(|_| project.to_owned());
    if let Ok(below) = project.strip_prefix(root).map(Path::to_string_lossy) {
        let below = glob::Pattern::escape(&below);
        usual.extend(USUAL.iter().map(|name| Path::new(&below).join(name).to_string_lossy().into_owned()));
    }
    for pattern in patterns.unwrap_or(&usual) {
        let full = Path::new(&glob::Pattern::escape(&root.to_string_lossy())).join(pattern);
        let paths = glob::glob(&full.to_string_lossy())
            .with_context(|| format!("`{pattern}` of `build_inputs` is not a pattern"))?;
        let before = found.len();
        found.extend(paths.flatten().filter_map(|path| path.strip_prefix(root).ok().map(Path::to_owned)));
        if found.len() == before && patterns.is_some() {
            log::warn!("`{pattern}` of `build_inputs` in [checkpoint] matches nothing");
        }
    }
    Ok(found.into_iter().collect())
}

/// The files, not directories, below `root` that `patterns` name, relative; an invalid pattern names nothing.
pub(super) fn files(root: &Path, patterns: &[String]) -> Vec<PathBuf> {
    let root_pattern = glob::Pattern::escape(&root.to_string_lossy());
    let named = patterns
        .iter()
        .filter_map(|pattern| glob::glob(&Path::new(&root_pattern).join(pattern).to_string_lossy()).ok());
    let files = named.flatten().flatten().filter(|path| path.is_file());
    files.filter_map(|path| path.strip_prefix(root).ok().map(Path::to_owned)).collect()
}

/// Copies `inputs` from `root` over `target`, also those that git ignores, but nothing in or below one of `excluded`.
pub(super) fn add_inputs(inputs: &[PathBuf], root: &Path, target: &Path, excluded: &[PathBuf]) -> Result<()> {
    for input in inputs {
        copy(&root.join(input), &target.join(input), excluded)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, excluded: &[PathBuf]) -> Result<()> {
    if is_excluded(from, excluded) {
        return Ok(());
    }
    let copied = || -> std::io::Result<()> {
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        let kind = from.symlink_metadata()?.file_type();
        if to.is_symlink() || (to.exists() && !kind.is_dir()) {
            fs::remove_file(to)?;
        }
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)
        } else if kind.is_file() {
            fs::copy(from, to).map(drop)
        } else {
            Ok(())
        }
    };
    copied().with_context(|| format!("cannot copy `{}` to `{}`", from.display(), to.display()))?;
    if from.is_dir() && !from.is_symlink() {
        fs::create_dir_all(to).with_context(|| format!("cannot make `{}`", to.display()))?;
        for entry in entries(from)? {
            copy(&from.join(&entry), &to.join(&entry), excluded)?;
        }
    }
    Ok(())
}

fn is_excluded(path: &Path, excluded: &[PathBuf]) -> bool {
    excluded.iter().any(|excluded| path.starts_with(excluded))
}

/// The names in a directory, sorted, without git's own.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let about = || format!("cannot read the directory `{}`", directory.display());
    let entries = fs::read_dir(directory).with_context(about)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(PathBuf::from(entry.with_context(about)?.file_name()));
    }
    names.retain(|name| name != Path::new(".git"));
    names.sort();
    Ok(names)
}

/// A digest that is being computed; each field begins with its length, so that no two lists give the same.
struct Sheet<'a> {
    hash: Sha256,
    excluded: &'a [PathBuf],
}

impl Sheet<'_> {
    fn field(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// A file, link or directory with all in it, under the name `name`.
    fn path(&mut self, path: &Path, name: &Path) -> Result<()> {
        if is_excluded(path, self.excluded) {
            return Ok(());
        }
        self.field(name.as_os_str().as_bytes());
        let Ok(data) = path.symlink_metadata() else {
            self.field(b"absent");
            return Ok(());
        };
        if data.is_symlink() {
            let target = fs::read_link(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            self.field(b"link");
            self.field(target.as_os_str().as_bytes());
        } else if data.is_dir() {
            self.field(b"directory");
            for entry in entries(path)? {
                self.path(&path.join(&entry), &name.join(&entry))?;
            }
            self.field(b"end");
        } else if data.is_file() {
            self.field(if data.permissions().mode() & 0o111 == 0 { b"file" } else { b"program" });
            let mut file =
                fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            self.hash.update(data.len().to_le_bytes());
            std::io::copy(&mut file, &mut HashWriter(&mut self.hash))
                .with_context(|| format!("cannot read `{}`", path.display()))?;
        }
        Ok(())
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::provider::{BuildContext, Image, ProviderError, ThinDiff};

    struct Maker(Vec<PathBuf>);

    impl Builder for Maker {
        fn recipe(&self) -> Vec<String> {
            vec!["make".into()]
        }
        fn outside(&self) -> Vec<PathBuf> {
            self.0.clone()
        }
        fn makes_images(&self) -> bool {
            true
        }
        fn can_patch(&self, _: usize) -> bool {
            false
        }
        fn build(&self, _: &BuildContext, _: &Cancel) -> Result<String, ProviderError> {
            Ok("image".into())
        }
        fn patch(&self, _: &str, _: ThinDiff, _: &Cancel) -> Result<Image, ProviderError> {
            Ok(Image::default())
        }
    }

    #[test]
    fn what_the_build_reads_decides_the_key_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("data/results")).unwrap();
        for name in ["uv.lock", "other", "data/a"] {
            fs::write(root.join(name), "1").unwrap();
        }
        let key = |init: Option<&str>| {
            let inputs = inputs(root, root, None).unwrap();
            // As users write it in `copy_dirs`.
            let maker = Maker(vec![root.join("data/../data")]);
            Recipe::new(&maker, init, root, inputs, &[root.join("data/results")]).unwrap().key
        };
        let first = key(None);
        fs::write(root.join("other"), "2").unwrap();
        fs::write(root.join("data/results/report"), "2").unwrap();
        assert_eq!(key(None), first);
        let mut keys = vec![first, key(Some("init"))];
        fs::write(root.join("uv.lock"), "2").unwrap();
        keys.push(key(None));
        fs::write(root.join("data/b"), "").unwrap();
        keys.push(key(None));
        fs::set_permissions(root.join("data/a"), PermissionsExt::from_mode(0o755)).unwrap();
        keys.push(key(None));
        let distinct: BTreeSet<&String> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn files_that_decide_what_is_installed_are_build_inputs_wherever_the_ecosystem() {
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "yarn.lock",
            "go.mod",
            "go.sum",
            "Pipfile",
            "Pipfile.lock",
            "composer.lock",
            "composer.json",
            "mix.lock",
            "mix.exs",
            "deno.lock",
            "deno.json",
            "rust-toolchain.toml",
            "rust-toolchain",
            ".python-version",
            ".nvmrc",
            ".node-version",
            ".tool-versions",
            "Gemfile.lock",
            "requirements/dev.txt",
            "requirements-dev.txt",
        ];
        for name in names {
            let path = directory.path().join("sub").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        let found = inputs(directory.path(), &directory.path().join("sub"), None).unwrap();
        for name in names {
            assert!(found.contains(&Path::new("sub").join(name)), "{name}");
        }
        assert_eq!(found.len(), names.len());
    }

    #[test]
    fn inputs_that_git_ignores_are_added_to_an_export() {
        let directory = tempfile::tempdir().unwrap();
        let (root, target) = (directory.path().join("root"), directory.path().join("target"));
        fs::create_dir_all(root.join("keys/deep")).unwrap();
        fs::create_dir_all(root.join("keys/results")).unwrap();
        fs::create_dir_all(&target).unwrap();
        fs::write(root.join("keys/deep/x"), "new").unwrap();
        fs::write(root.join(".env"), "new").unwrap();
        fs::write(target.join(".env"), "old").unwrap();
        let inputs = inputs(&root, &root, Some(&["keys".into(), ".env".into(), "none".into()])).unwrap();
        assert_eq!(inputs, [Path::new(".env"), Path::new("keys")]);
        add_inputs(&inputs, &root, &target, &[root.join("keys/results")]).unwrap();
        assert!(!target.join("keys/results").exists());
        assert_eq!(fs::read_to_string(target.join(".env")).unwrap(), "new");
        assert_eq!(fs::read_to_string(target.join("keys/deep/x")).unwrap(), "new");
    }
}
