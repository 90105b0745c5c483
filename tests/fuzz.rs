//! Feeds the targets of `scripts/fuzz` with their corpora and, for a while, with what chance makes of
//! them. The input that breaks something is left below the target directory. `scripts/fuzz.sh` does the
//! same for longer, guided by what the code does.

#![cfg(test)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[path = "../scripts/fuzz/targets.rs"]
mod targets;

use targets::{TARGETS, Target};

/// How long each target is fed with changed inputs.
const TIME: Duration = Duration::from_secs(2);
/// No input takes longer, even where much else runs on the machine.
const LONGEST: Duration = Duration::from_secs(30);
/// All that this process may have in memory.
const MEMORY: u64 = 2 << 30;
/// The largest input that is made.
const LARGEST: usize = 16 * 1024;

/// Pseudo-random numbers; the same ones for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides.max(1)
    }

    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        start..start + self.below((bytes.len() - start).min(200) + 1)
    }

    /// One change: a bit, a byte, an end, a part twice or not at all, a part of another input.
    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        const BYTES: &[u8] = b"\0\n\r\t '\"\\<>&;[]{}()=,:/-+%$09aA\x1b\x7f\x80\xc3\xef\xfe\xff";
        let place = self.below(bytes.len() + 1);
        match self.below(7) {
            0 if place < bytes.len() => bytes[place] ^= 1 << self.below(8),
            1 if place < bytes.len() => bytes[place] = BYTES[self.below(BYTES.len())],
            2 => bytes.insert(place, BYTES[self.below(BYTES.len())]),
            3 => bytes.truncate(place),
            4 => drop(bytes.drain(self.range(bytes))),
            5 => {
                let part = bytes[self.range(bytes)].to_vec();
                let times = 1 + self.below(4);
                bytes.splice(place..place, part.repeat(times));
            }
            _ => {
                let other = &corpus[self.below(corpus.len())];
                let part = other[self.range(other)].to_vec();
                bytes.splice(place..place, part);
            }
        }
        bytes.truncate(LARGEST);
    }
}

fn directory(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All files below `directory`, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The inputs of a target: its own corpus, and recorded output of its kind.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut paths = files(&directory("fixtures/fuzz").join(name));
    let (recorded, ending) = match name {
        "junit" => ("fixtures/junit", "xml"),
        "nextest" => ("fixtures/nextest", "json"),
        "vitest" => ("fixtures/vitest", "json"),
        _ => ("fixtures/fuzz/config", "none"),
    };
    let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == ending);
    paths.extend(files(&directory(recorded)).into_iter().filter(fits));
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Feeds a target, and says with which input it broke. The input is a file while it is read, so that it is
/// there even if the whole process ends.
fn feed(name: &str, target: Target) {
    let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4711);
    let input = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    let mut dice = Dice(seed);
    let (mut began, mut count) = (Instant::now(), 0);
    while count < corpus.len() || began.elapsed() < TIME {
        let mut bytes = corpus[if count < corpus.len() { count } else { dice.below(corpus.len()) }].clone();
        if count >= corpus.len() {
            for _ in 0..=dice.below(6) {
                dice.change(&mut bytes, &corpus);
            }
        } else {
            began = Instant::now();
        }
        fs::write(&input, &bytes).unwrap();
        let broken = catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err();
        assert!(!broken, "input {count} of FUZZ_SEED={seed} breaks `{name}`: {}", input.display());
        count += 1;
    }
    println!("{name}: {count} inputs of FUZZ_SEED={seed}");
    fs::remove_file(&input).unwrap();
}

/// Feeds the target called `name`; ends all if that hangs or takes too much memory.
fn fuzz(name: &'static str) {
    let (_, most) = getrlimit(Resource::RLIMIT_DATA).unwrap();
    setrlimit(Resource::RLIMIT_DATA, MEMORY.min(most), most).unwrap();
    let (_, target) = TARGETS.into_iter().find(|(known, _)| *known == name).unwrap();
    let (done, end) = channel::<()>();
    let feeder = std::thread::spawn(move || {
        let _done = done;
        feed(name, target);
    });
    if end.recv_timeout(LONGEST + TIME) == Err(RecvTimeoutError::Timeout) {
        let input = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
        panic!("`{name}` hangs with the input in {}", input.display());
    }
    if let Err(panic) = feeder.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A test for each target, so that they run side by side.
macro_rules! fuzz_tests {
    ($($name:ident)*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

fuzz_tests! { config junit history pytest nextest vitest record driver frame patch words }

#[test]
fn every_target_has_a_test_a_fuzzer_and_a_corpus_of_small_files() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    let manifest = fs::read_to_string(directory("scripts/fuzz/Cargo.toml")).unwrap();
    let fuzzers = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next());
    assert_eq!(fuzzers.collect::<Vec<_>>(), TESTED);
    for name in names {
        let files = files(&directory("fixtures/fuzz").join(name));
        assert!((1..=40).contains(&files.len()), "{name} has {} files", files.len());
        for file in files {
            assert!(fs::metadata(&file).unwrap().len() <= 8192, "{} is large", file.display());
        }
    }
}

/// What a real sh prints for `script`, run in `directory`.
fn sh(script: &str, directory: &Path) -> Vec<u8> {
    let output = Command::new("/bin/sh").arg("-c").arg(script).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}\n{script}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_real_sh_prints_the_bytes_of_every_patch_and_makes_its_links() {
    use offload::internals::git::changes::Change;
    use offload::internals::git::patch;

    let empty = tempfile::tempdir().unwrap();
    for bytes in TARGETS.iter().flat_map(|(name, _)| corpus(name)) {
        for part in bytes.chunks(30_000) {
            assert!(sh(&patch::printing(part), empty.path()) == part, "{part:?}");
        }
    }
    for bytes in corpus("patch") {
        let tree = tempfile::tempdir().unwrap();
        let changes = targets::changes(&bytes);
        sh(&patch::script(&changes, &|_| true).unwrap().unwrap(), tree.path());
        for (path, change) in changes.of {
            let found = fs::read_link(tree.path().join(&path)).ok().map(PathBuf::into_os_string);
            let expected = if let Change::Link { target } = change { Some(target) } else { None };
            assert_eq!(found, expected, "{}", path.display());
        }
    }
}

#[test]
fn a_real_sh_hears_every_word_as_it_was_filled_in() {
    let empty = tempfile::tempdir().unwrap();
    for bytes in TARGETS.iter().flat_map(|(name, _)| corpus(name)) {
        let ids = targets::parts(&bytes);
        let heard = sh(&targets::command(&ids), empty.path());
        let expected = targets::expected_words(&ids).into_iter().map(|word| word + "\0");
        assert_eq!(String::from_utf8(heard).unwrap(), expected.collect::<String>());
    }
}
