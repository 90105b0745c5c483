//! For random trees and random edits: the patched copy of a commit equals the working tree.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::cancel::Cancel;
use crate::git::{Call, Repository};

/// Numbers by chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn name(&mut self) -> OsString {
        const LETTERS: [&[u8]; 17] = [
            b"a",
            b"b",
            b"c",
            b" ",
            b"'",
            b"\"",
            b"\n",
            b"\t",
            b"$",
            b"`",
            b"\\",
            b"*",
            b"-",
            "é".as_bytes(),
            b"\xff",
            b"%s",
            b"?",
        ];
        let length = 1 + self.below(3);
        let bytes: Vec<u8> = (0..length).flat_map(|_| self.pick(&LETTERS).to_vec()).collect();
        OsString::from_vec(bytes)
    }

    fn content(&mut self) -> Vec<u8> {
        match self.below(4) {
            0 => Vec::new(),
            1 => (0..self.below(9000)).map(|_| self.next() as u8).collect(),
            _ => (0..self.below(20))
                .flat_map(|_| format!("line {}'\\%\r\n", self.below(9)).into_bytes())
                .collect(),
        }
    }
}

fn git(directory: &Path, words: &[&str]) {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]);
    let output =
        command.args(words).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What is at each path of a tree: kind, permissions, content.
fn tree(root: &Path) -> BTreeMap<PathBuf, (char, u32, Vec<u8>)> {
    fn walk(root: &Path, below: &Path, found: &mut BTreeMap<PathBuf, (char, u32, Vec<u8>)>) {
        for entry in fs::read_dir(root.join(below)).unwrap().flatten() {
            let name = below.join(entry.file_name());
            let path = root.join(&name);
            let data = path.symlink_metadata().unwrap();
            if name == Path::new(".git") || entry.file_name() == "ignored" {
            } else if data.is_symlink() {
                let target = fs::read_link(&path).unwrap().into_os_string().into_vec();
                found.insert(name, ('l', 0, target));
            } else if data.is_dir() {
                walk(root, &name, found);
            } else {
                found.insert(name, ('f', data.permissions().mode() & 0o777, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, Path::new(""), &mut found);
    found
}

fn remove(path: &Path) {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path).unwrap();
    } else if path.is_symlink() || path.exists() {
        fs::remove_file(path).unwrap();
    }
}

/// Puts something new at a random place.
fn put(root: &Path, chance: &mut Chance) {
    let mut path = root.to_owned();
    for _ in 0..chance.below(3) {
        path.push(chance.name());
        if path.is_symlink() || path.is_file() {
            remove(&path);
        }
    }
    fs::create_dir_all(&path).unwrap();
    path.push(chance.name());
    remove(&path);
    if chance.below(4) == 0 {
        symlink(*chance.pick(&["a", "../x", "nowhere", "b/c", "a'\n"]), &path).unwrap();
    } else {
        fs::write(&path, chance.content()).unwrap();
        let mode = *chance.pick(&[0o644, 0o755, 0o600, 0o700]);
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

fn edit(root: &Path, chance: &mut Chance) {
    let paths: Vec<PathBuf> = tree(root).into_keys().collect();
    if paths.is_empty() || chance.below(3) == 0 {
        return put(root, chance);
    }
    let path = root.join(chance.pick(&paths));
    match chance.below(7) {
        0 => remove(&path),
        1 => fs::rename(&path, root.join(format!("moved-{}", chance.below(100)))).unwrap_or_default(),
        2 if !path.is_symlink() => fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap(),
        3 => {
            remove(&path);
            fs::create_dir(&path).unwrap();
            fs::write(path.join(chance.name()), chance.content()).unwrap();
        }
        4 if path.parent().is_some_and(|parent| parent != root) => {
            let parent = path.parent().unwrap().to_owned();
            remove(&parent);
            if chance.below(2) == 0 {
                symlink("a", parent).unwrap();
            } else {
                fs::write(parent, chance.content()).unwrap();
            }
        }
        5 => {
            remove(&path);
            symlink("elsewhere", &path).unwrap();
        }
        _ => {
            remove(&path);
            fs::write(&path, chance.content()).unwrap();
        }
    }
}

fn shells() -> Vec<Vec<&'static str>> {
    let all = [vec!["sh"], vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]];
    let works =
        |words: &Vec<&str>| Command::new(words[0]).args(&words[1..]).args(["-c", ":"]).output().is_ok();
    all.into_iter().filter(works).collect()
}

fn run(shell: &[&str], script: &Path, directory: &Path) -> std::process::Output {
    Command::new(shell[0]).args(&shell[1..]).arg(script).current_dir(directory).output().unwrap()
}

/// A repository with one commit of `put`'s making, and an export of it.
struct Case {
    directory: tempfile::TempDir,
    repository: Repository,
    base: String,
}

impl Case {
    fn new(fill: impl FnOnce(&Path)) -> Case {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().join("work");
        fs::create_dir(&work).unwrap();
        git(&work, &["init", "-q"]);
        fs::write(work.join(".gitignore"), "ignored\n").unwrap();
        fill(&work);
        git(&work, &["add", "-A"]);
        git(&work, &["commit", "-q", "-m", "base"]);
        let repository = Repository::find(&work, directory.path(), &Cancel::new()).unwrap();
        let base = repository.head().unwrap().unwrap();
        Case { directory, repository, base }
    }

    fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// An export of the commit under `name`, and the script of what has changed since.
    fn export(&self, name: &str) -> (PathBuf, PathBuf) {
        let copy = self.directory.path().join(name);
        fs::create_dir(&copy).unwrap();
        self.repository.export(&self.base, &copy).unwrap();
        let script = self.directory.path().join("script");
        let changes = self.repository.changes(&self.base, &[]).unwrap();
        fs::write(&script, super::script(&changes, &|_| true).unwrap().unwrap()).unwrap();
        (copy, script)
    }
}

/// Git keeps only whether a file can be executed; what did not change has the permissions of a checkout.
fn equal(work: &Path, copy: &Path, note: &str) {
    let (mut work, mut copy) = (tree(work), tree(copy));
    for (path, (_, mode, content)) in &mut work {
        if let Some((_, other, same)) = copy.get_mut(path)
            && (*mode ^ *other) & 0o100 == 0
            && content == same
        {
            *other = *mode;
        }
    }
    let differing: Vec<_> =
        work.iter().filter(|(path, what)| copy.get(*path) != Some(what)).map(|(path, _)| path).collect();
    let extra: Vec<_> = copy.keys().filter(|path| !work.contains_key(*path)).collect();
    assert!(differing.is_empty() && extra.is_empty(), "{note}: differing {differing:?}, extra {extra:?}");
}

#[test]
fn the_patched_copy_equals_the_working_tree() {
    let shells = shells();
    let is_full = std::env::var_os("OFFLOAD_TESTS").is_some_and(|value| value == "full");
    for seed in 0..if is_full { 60 } else { 20 } {
        let mut chance = Chance(seed);
        let case = Case::new(|work| {
            for _ in 0..chance.below(12) {
                put(work, &mut chance);
            }
        });
        let work = case.work();
        fs::write(work.join("ignored"), "x").unwrap();
        for number in 0..1 + chance.below(10) {
            edit(&work, &mut chance);
            match chance.below(5) {
                0 => git(&work, &["add", "-A"]),
                1 => git(&work, &["commit", "-q", "-a", "--allow-empty", "-m", &number.to_string()]),
                _ => {}
            }
        }
        let (copy, script) = case.export("copy");
        fs::write(copy.join("ignored"), "x").unwrap();
        let shell = &shells[seed as usize % shells.len()];
        for time in ["first", "second"] {
            let output = run(shell, &script, &copy);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "seed {seed}, {shell:?}: {stderr}");
            equal(&work, &copy, &format!("seed {seed}, {shell:?}, {time} time"));
        }
    }
}

#[test]
fn a_link_in_the_sandbox_leads_no_change_out_of_the_root() {
    let case = Case::new(|work| {
        fs::create_dir(work.join("d")).unwrap();
        fs::write(work.join("d/file"), "old").unwrap();
        fs::write(work.join("other"), "old").unwrap();
    });
    fs::write(case.work().join("d/file"), "new").unwrap();
    fs::write(case.work().join("other"), "new").unwrap();
    let (copy, script) = case.export("copy");
    let outside = case.directory.path().join("outside");
    fs::rename(copy.join("d"), &outside).unwrap();
    symlink(&outside, copy.join("d")).unwrap();
    let output = run(&["sh"], &script, &copy);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("./d is a link"));
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "old");
    assert_eq!(fs::read_to_string(copy.join("other")).unwrap(), "old");
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 3);
}

#[test]
fn what_cannot_be_written_leaves_the_tree_as_it_was() {
    let case = Case::new(|work| fs::write(work.join("gone"), "x").unwrap());
    fs::write(case.work().join("large"), "x".repeat(100_000)).unwrap();
    fs::remove_file(case.work().join("gone")).unwrap();
    let (copy, script) = case.export("copy");
    let limited = format!("trap '' XFSZ; ulimit -f 1; . {}", script.display());
    let output = Command::new("sh").arg("-c").arg(limited).current_dir(&copy).output().unwrap();
    assert!(!output.status.success());
    assert!(copy.join("gone").exists() && !copy.join("large").exists());
    assert_eq!(fs::read_dir(&copy).unwrap().count(), 2);
}

#[test]
fn a_hyphen_in_front_is_no_option() {
    let case = Case::new(|work| fs::write(work.join("text"), "a\n").unwrap());
    fs::write(case.work().join("text"), format!("---\n{}", "-".repeat(3 * LINE))).unwrap();
    fs::write(case.work().join("-n\n"), "-n").unwrap();
    symlink("-s\n", case.work().join("link")).unwrap();
    for (number, shell) in shells().iter().enumerate() {
        let (copy, script) = case.export(&format!("copy {number}"));
        let output = run(shell, &script, &copy);
        assert!(output.status.success(), "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
        equal(&case.work(), &copy, &format!("{shell:?}"));
    }
}

#[test]
fn attributes_do_not_change_bytes() {
    let case = Case::new(|work| fs::write(work.join("text"), "a\n").unwrap());
    fs::write(case.work().join(".gitattributes"), "* text eol=crlf\n").unwrap();
    fs::write(case.work().join("new"), "a\nb\r\nc").unwrap();
    fs::write(case.work().join("text"), "a\nb\n").unwrap();
    let (copy, script) = case.export("copy");
    assert!(run(&["sh"], &script, &copy).status.success());
    equal(&case.work(), &copy, "attributes");
}

#[test]
fn the_difference_in_git_s_format_is_one_that_git_applies() {
    let case = Case::new(|work| {
        fs::write(work.join("text"), "a\n").unwrap();
        fs::write(work.join("gone"), "a\n").unwrap();
    });
    let work = case.work();
    fs::write(work.join("text"), "a\nb\n").unwrap();
    fs::write(work.join("new file"), [0, 1, 2, 255]).unwrap();
    fs::remove_file(work.join("gone")).unwrap();
    fs::create_dir(work.join("results")).unwrap();
    fs::write(work.join("results/x"), "x").unwrap();
    let index = fs::read(work.join(".git/index")).unwrap();
    let excluded = [case.repository.root().join("results")];
    let patch = case.directory.path().join("patch");
    // What people like to read is not what their scripts expect.
    for (key, value) in
        [("diff.noprefix", "true"), ("diff.mnemonicPrefix", "true"), ("diff.relative", "true")]
    {
        git(&work, &["config", key, value]);
    }
    case.repository.write_diff(&case.base, &excluded, &patch).unwrap();
    assert_eq!(fs::read(work.join(".git/index")).unwrap(), index);
    let changes = case.repository.changes(&case.base, &excluded).unwrap();
    assert_eq!(changes.len(), 3);
    let (copy, _) = case.export("copy");
    git(&copy, &["apply", &patch.to_string_lossy()]);
    fs::remove_dir_all(work.join("results")).unwrap();
    equal(&work, &copy, "git apply");
    assert!(case.repository.ask(&Call::new(["status", "--porcelain"])).is_ok());
    assert_eq!(printing(b"a'%\n\xff"), "printf 'a\\047%%\\n\\377'\n");
}

#[test]
fn a_text_ends_where_it_is_too_long_and_what_has_vanished_is_deleted() {
    let case = Case::new(|work| fs::write(work.join("old"), "x").unwrap());
    fs::write(case.work().join("binary"), [0; 100_000]).unwrap();
    fs::write(case.work().join("old"), "y").unwrap();
    let changes = case.repository.changes(&case.base, &[]).unwrap();
    assert_eq!((changes.bytes(), changes.len()), (100_001, 2));
    let longest = std::cell::Cell::new(0);
    let fits = |bytes: usize| {
        longest.set(bytes.max(longest.get()));
        bytes <= 150_000
    };
    assert_eq!(super::script(&changes, &fits).unwrap(), None);
    assert!((150_000..160_000).contains(&longest.get()), "{longest:?}");
    assert_eq!(super::script(&changes, &|bytes| bytes <= 100_000).unwrap(), None);
    let (copy, _) = case.export("copy");
    fs::remove_file(case.work().join("old")).unwrap();
    let script = case.directory.path().join("script");
    fs::write(&script, super::script(&changes, &|_| true).unwrap().unwrap()).unwrap();
    assert!(run(&["sh"], &script, &copy).status.success());
    equal(&case.work(), &copy, "vanished");
}

#[test]
fn many_moved_files_take_few_programs_and_few_questions() {
    let case = Case::new(|work| {
        for number in 0..600 {
            let directory = work.join(format!("old {}/x", number % 3));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("é {number}")), number.to_string()).unwrap();
        }
    });
    let asked = || case.repository.calls.load(std::sync::atomic::Ordering::Relaxed);
    let before = asked();
    case.repository.changes(&case.base, &[]).unwrap();
    let questions = asked() - before;
    for number in 0..3 {
        let [old, new] = ["old", "new"].map(|name| case.work().join(format!("{name} {number}")));
        fs::rename(old, &new).unwrap();
        fs::set_permissions(new.join(format!("x/é {number}")), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let before = asked();
    assert_eq!(case.repository.changes(&case.base, &[]).unwrap().len(), 1200);
    assert_eq!(asked() - before, questions);
    let (copy, script) = case.export("copy");
    let programs = case.directory.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let log = case.directory.path().join("log");
    for name in ["mkdir", "rm", "rmdir", "mv", "chmod", "ln"] {
        let text =
            format!("#!/bin/sh\necho {name} >> '{}'\nPATH=${{PATH#*:}} exec {name} \"$@\"\n", log.display());
        fs::write(programs.join(name), text).unwrap();
        fs::set_permissions(programs.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").arg(&script).current_dir(&copy).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    equal(&case.work(), &copy, "moved");
    let calls = fs::read_to_string(&log).unwrap();
    assert!(calls.lines().count() < 20, "{calls}");
}
