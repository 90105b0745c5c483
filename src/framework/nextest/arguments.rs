//! Sorts the arguments of a nextest command line: those that select tests, those for cargo's build, and those for
//! nextest's runner.

use anyhow::{Result, ensure};

/// The sorted arguments of group filters, `run_args` or settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// For cargo's build, or the names of an earlier build; cannot be combined with our own `--binaries-metadata`.
    pub build: Vec<String>,
    /// What names an earlier build, which is run instead of building.
    pub prebuilt: Option<Prebuilt>,
    /// The value of `--workspace-remap`.
    pub workspace: Option<String>,
    /// Those of `build` that `cargo metadata` needs too.
    pub metadata: Vec<String>,
    /// The value of `--target`.
    pub target: Option<String>,
    /// For nextest's runner.
    pub runner: Vec<String>,
    /// The value of `--profile`.
    pub profile: Option<String>,
    /// The value of `--config-file`.
    pub config_file: Option<String>,
    /// Whether there is a filterset, a test name or a partition.
    pub selects: bool,
    /// All that does more than select tests, in one form.
    pub more: Vec<String>,
}

/// An earlier build that is run instead of building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prebuilt {
    /// It is there, described by `--cargo-metadata` and `--binaries-metadata`.
    Metadata,
    /// It has to be extracted from `--archive-file` first.
    Archive,
}

/// Options with a value that name an earlier build.
const PREBUILT_VALUES: &[&str] = &[
    "--archive-file",
    "--archive-format",
    "--cargo-metadata",
    "--workspace-remap",
    "--binaries-metadata",
    "--target-dir-remap",
    "--build-dir-remap",
];

/// Cargo options with a value.
const BUILD_VALUES: &[&str] = &[
    "-p",
    "--package",
    "--exclude",
    "--bin",
    "--example",
    "--test",
    "--bench",
    "-F",
    "--features",
    "--build-jobs",
    "--cargo-profile",
    "--target",
    "--target-dir",
    "--cargo-message-format",
    "-Z",
    "--manifest-path",
];

/// Cargo options without a value.
const BUILD_FLAGS: &[&str] = &[
    "--workspace",
    "--all",
    "--lib",
    "--bins",
    "--examples",
    "--tests",
    "--benches",
    "--all-targets",
    "--all-features",
    "--no-default-features",
    "-r",
    "--release",
    "--unit-graph",
    "--timings",
    "--frozen",
    "--locked",
    "--offline",
    "--cargo-quiet",
    "--cargo-verbose",
    "--ignore-rust-version",
    "--future-incompat-report",
];

/// Cargo options that `cargo metadata` needs too.
const METADATA: &[&str] = &["--manifest-path", "--frozen", "--locked", "--offline", "--config"];

/// Options that select tests, all with a value.
const SELECTION: &[&str] = &[
    "-E",
    "--filterset",
    "--filter-expr",
    "--filter-expression",
    "--partition",
    "-R",
    "--rerun",
    "--run-id",
];

/// Other options that only select: what is built is the same, or a part of it.
const ALSO_SELECTION: &[&str] = &[
    "--lib",
    "--bin",
    "--bins",
    "--example",
    "--examples",
    "--test",
    "--tests",
    "--bench",
    "--benches",
    "--all-targets",
    "--run-ignored",
    "--platform-filter",
    "--ignore-default-filter",
];

/// Nextest options with a value.
const RUNNER_VALUES: &[&str] = &[
    "--color",
    "--config",
    "--debugger",
    "--failure-output",
    "--final-status-level",
    "--flaky-result",
    "-j",
    "--jobs",
    "--list-type",
    "--max-progress-running",
    "--message-format",
    "--message-format-version",
    "--no-tests",
    "--platform-filter",
    "--retries",
    "--run-ignored",
    "--show-progress",
    "--status-level",
    "--stress-count",
    "--stress-duration",
    "--success-output",
    "-T",
    "--test-threads",
    "--tool-config-file",
    "--tracer",
    "--user-config-file",
];

/// Nextest options without a value.
const RUNNER_FLAGS: &[&str] = &[
    "--ignore-default-filter",
    "--no-capture",
    "--nocapture",
    "--no-pager",
    "--no-output-indent",
    "--hide-progress-bar",
    "--no-input-handler",
    "--override-version-check",
    "-v",
    "--verbose",
];

/// Options that are set per batch and therefore dropped, without a value.
const OUR_FLAGS: &[&str] = &["--fail-fast", "--ff", "--no-fail-fast", "--nff", "--no-run"];

/// The same, with a value.
const OUR_VALUES: &[&str] = &["--max-fail"];

/// Where an archive is extracted to: two commands at once cannot use one directory.
const EXTRACTION: &[&str] = &["--extract-to", "--extract-overwrite", "--persist-extract-tempdir"];

impl Arguments {
    /// Sorts `words`.
    ///
    /// # Errors
    /// If it cannot be told whether a word is the value of an option or the name of a test.
    pub fn parse(words: &[String]) -> Result<Arguments> {
        let mut sorted = Arguments::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                sorted.emulated(words.as_slice());
                break;
            }
            let (name, mut value) = parts(word);
            let mut taken = vec![word.clone()];
            if value.is_none() && has_value(name) {
                let next = words.next();
                value = next.cloned();
                taken.extend(next.cloned());
            }
            let is_clear = value.is_some() || !name.starts_with('-') || is_flag(name);
            if let (false, Some(next)) = (is_clear, words.as_slice().first()) {
                ensure!(
                    next.starts_with('-'),
                    "`{word} {next}`: unknown option; if `{next}` is its value, write `{name}={next}`, and if it is \
                     the name of a test, put it before `{name}`"
                );
            }
            sorted.place(name, value, taken);
        }
        Ok(sorted)
    }

    /// Combines two command lines; the profile and configuration file of `other` take precedence.
    pub fn join(mut self, other: Arguments) -> Arguments {
        self.build.extend(other.build);
        self.prebuilt = self.prebuilt.max(other.prebuilt);
        self.workspace = other.workspace.or(self.workspace);
        self.metadata.extend(other.metadata);
        self.target = other.target.or(self.target);
        self.runner.extend(other.runner);
        self.profile = other.profile.or(self.profile);
        self.config_file = other.config_file.or(self.config_file);
        self.selects |= other.selects;
        self.more.extend(other.more);
        self
    }

    fn place(&mut self, name: &str, value: Option<String>, taken: Vec<String>) {
        let only_selects = !name.starts_with('-') || [SELECTION, ALSO_SELECTION].concat().contains(&name);
        if !only_selects && ![OUR_FLAGS, OUR_VALUES, EXTRACTION].concat().contains(&name) {
            self.more.push(value.iter().fold(name.to_owned(), |name, value| format!("{name}={value}")));
        }
        if METADATA.contains(&name) {
            self.metadata.extend(taken.iter().cloned());
        }
        if !name.starts_with('-') || SELECTION.contains(&name) {
            self.selects = true;
        } else if matches!(name, "-P" | "--profile") {
            self.profile = value;
        } else if name == "--config-file" {
            self.config_file = value;
        } else if PREBUILT_VALUES.contains(&name) {
            let is_archive = name == "--archive-file";
            self.prebuilt =
                self.prebuilt.max(Some(if is_archive { Prebuilt::Archive } else { Prebuilt::Metadata }));
            if name == "--workspace-remap" {
                self.workspace = value;
            }
            self.build.extend(taken);
        } else if BUILD_VALUES.contains(&name) || BUILD_FLAGS.contains(&name) {
            if name == "--target" {
                self.target = value;
            }
            self.build.extend(taken);
        } else if ![OUR_FLAGS, OUR_VALUES, EXTRACTION].concat().contains(&name) {
            self.runner.extend(taken);
        }
    }

    /// Interprets arguments after `--` as the test harness would.
    fn emulated(&mut self, words: &[String]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--ignored" => self.runner.push("--run-ignored=ignored-only".to_owned()),
                "--include-ignored" => self.runner.push("--run-ignored=all".to_owned()),
                "--nocapture" | "--no-capture" => {
                    self.runner.push("--no-capture".to_owned());
                    self.more.push("--no-capture".to_owned());
                }
                "--skip" => {
                    words.next();
                    self.selects = true;
                }
                _ => self.selects = true,
            }
        }
    }
}

/// The name of an option and the value attached to it.
fn parts(word: &str) -> (&str, Option<String>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
    }
    match word.char_indices().nth(2) {
        Some((place, _)) if word.starts_with('-') && has_value(&word[..place]) => {
            let value = &word[place..];
            (&word[..place], Some(value.strip_prefix('=').unwrap_or(value).to_owned()))
        }
        _ => (word, None),
    }
}

fn has_value(name: &str) -> bool {
    [BUILD_VALUES, PREBUILT_VALUES, RUNNER_VALUES, SELECTION, OUR_VALUES].concat().contains(&name)
        || matches!(name, "-P" | "--profile" | "--config-file" | "--extract-to")
}

fn is_flag(name: &str) -> bool {
    [BUILD_FLAGS, RUNNER_FLAGS, OUR_FLAGS].concat().contains(&name)
        || EXTRACTION.contains(&name) && !has_value(name)
}

/// `words` without those that say where an archive is extracted to.
pub(super) fn without_extraction(words: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            kept.push(word.clone());
            break;
        }
        let (name, value) = parts(word);
        let next = if value.is_none() && has_value(name) { words.next() } else { None };
        if !EXTRACTION.contains(&name) {
            kept.push(word.clone());
            kept.extend(next.cloned());
        }
    }
    kept.extend(words.cloned());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        Arguments::parse(&shell_words::split(text).unwrap()).unwrap()
    }

    #[test]
    fn selections_are_dropped_and_the_rest_is_sorted() {
        let sorted = parse("-p a -Fx --run-ignored all -E 'test(a b)' --profile=ci --ignore-default-filter");
        assert_eq!(sorted.build, ["-p", "a", "-Fx"]);
        assert_eq!(sorted.runner, ["--run-ignored", "all", "--ignore-default-filter"]);
        assert_eq!((sorted.profile.as_deref(), sorted.selects), (Some("ci"), true));
        assert!(parse("name").selects);
        assert!(!parse("--features 'a b' --lib").selects);
    }

    #[test]
    fn harness_arguments_become_nextest_options() {
        let sorted = parse("-- --include-ignored --skip slow");
        assert_eq!((sorted.runner, sorted.selects), (vec!["--run-ignored=all".to_owned()], true));
        assert!(!parse("-- --ignored").selects);
    }

    #[test]
    fn a_short_option_may_have_an_attached_value() {
        assert_eq!(parse("-Pci").profile.as_deref(), Some("ci"));
        assert_eq!(parse("-P=ci -j4").runner, ["-j4"]);
    }

    #[test]
    fn cargo_metadata_gets_manifest_and_network_options() {
        let sorted = parse("--offline --manifest-path x/Cargo.toml --target=wasm32-wasip1 --release");
        assert_eq!(sorted.metadata, ["--offline", "--manifest-path", "x/Cargo.toml"]);
        assert_eq!(sorted.target.as_deref(), Some("wasm32-wasip1"));
        assert_eq!(sorted.build.len(), 5);
    }

    #[test]
    fn options_to_stop_early_are_dropped() {
        assert_eq!(parse("--no-fail-fast --max-fail 3 --max-fail=all"), Arguments::default());
    }

    #[test]
    fn an_unknown_option_keeps_its_value_or_is_refused() {
        for flag in
            ["--new", "--new --lib", "--new=1 name", "name --new", "-x", "--no-capture name", "-v name"]
        {
            let words = shell_words::split(flag).unwrap();
            let sorted = Arguments::parse(&words).unwrap();
            let kept = sorted.build.len() + sorted.runner.len() + usize::from(sorted.selects);
            assert_eq!(kept, words.len(), "{flag}");
        }
        for unclear in ["--new 1", "-x 1", "-rp name"] {
            let words = shell_words::split(unclear).unwrap();
            let error = Arguments::parse(&words).unwrap_err().to_string();
            let expected = format!("`{unclear}`: unknown option; if `{}` is its value, write `", words[1]);
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn what_does_more_than_select_is_told_from_what_selects() {
        let selecting = "name -E all() --filterset=all() --partition count:1/2 --run-ignored all --lib --test it \
                         --no-fail-fast -- --skip x --ignored";
        assert_eq!(parse(selecting).more, [""; 0]);
        let more =
            "-F a,b --profile=ci -p x --release -j2 --config-file c --target t --brand-new=1 -- --nocapture";
        let expected =
            "-F=a,b --profile=ci -p=x --release -j=2 --config-file=c --target=t --brand-new=1 --no-capture";
        assert_eq!(parse(more).more.join(" "), expected);
        assert_eq!(parse("--features a").more, parse("--features=a").more);
    }

    #[test]
    fn an_earlier_build_is_named_as_a_whole_except_where_it_is_extracted_to() {
        let text = "--archive-file a.tar.zst --workspace-remap=. --target-dir-remap t --archive-format auto \
                    --extract-to x --extract-overwrite --persist-extract-tempdir";
        let sorted = parse(text);
        assert_eq!((sorted.prebuilt, sorted.workspace.as_deref()), (Some(Prebuilt::Archive), Some(".")));
        let rest = shell_words::split(text).unwrap()[..7].to_vec();
        assert_eq!((sorted.build, sorted.runner, sorted.selects), (rest.clone(), Vec::new(), false));
        assert_eq!(without_extraction(&shell_words::split(text).unwrap()), rest);
        let metadata = parse("--cargo-metadata=c.json --binaries-metadata b.json --build-dir-remap d");
        assert_eq!((metadata.prebuilt, metadata.build.len()), (Some(Prebuilt::Metadata), 5));
        let after = shell_words::split("--lib -- --extract-to x").unwrap();
        assert_eq!(without_extraction(&after), after);
    }
}
