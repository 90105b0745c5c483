//! Sorts the arguments of a nextest command line: those that select tests, those for cargo's build, and those for
//! nextest's runner.

/// The sorted arguments of group filters, `run_args` or settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// For cargo's build; cannot be combined with `--binaries-metadata`.
    pub build: Vec<String>,
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
}

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
const METADATA: &[&str] = &["--manifest-path", "--frozen", "--locked", "--offline"];

/// Options that select tests, all with a value.
const SELECTION: &[&str] = &["-E", "--filterset", "--filter-expr", "--partition", "-R", "--rerun"];

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
    "--test-threads",
    "--tool-config-file",
    "--tracer",
    "--user-config-file",
];

/// Options that are set per batch and therefore dropped.
const OURS: &[&str] = &["--fail-fast", "--ff", "--no-fail-fast", "--nff", "--no-run"];

impl Arguments {
    /// Sorts `words`.
    pub fn parse(words: &[String]) -> Arguments {
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
            sorted.place(name, value, taken);
        }
        sorted
    }

    /// Combines two command lines; the profile and configuration file of `other` take precedence.
    pub fn join(mut self, other: Arguments) -> Arguments {
        self.build.extend(other.build);
        self.metadata.extend(other.metadata);
        self.target = other.target.or(self.target);
        self.runner.extend(other.runner);
        self.profile = other.profile.or(self.profile);
        self.config_file = other.config_file.or(self.config_file);
        self.selects |= other.selects;
        self
    }

    fn place(&mut self, name: &str, value: Option<String>, taken: Vec<String>) {
        if !name.starts_with('-') || SELECTION.contains(&name) {
            self.selects = true;
        } else if matches!(name, "-P" | "--profile") {
            self.profile = value;
        } else if name == "--config-file" {
            self.config_file = value;
        } else if BUILD_VALUES.contains(&name) || BUILD_FLAGS.contains(&name) {
            if METADATA.contains(&name) {
                self.metadata.extend(taken.iter().cloned());
            }
            if name == "--target" {
                self.target = value;
            }
            self.build.extend(taken);
        } else if !OURS.contains(&name) && name != "--max-fail" {
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
                "--nocapture" | "--no-capture" => self.runner.push("--no-capture".to_owned()),
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
    BUILD_VALUES.contains(&name)
        || RUNNER_VALUES.contains(&name)
        || SELECTION.contains(&name)
        || matches!(name, "-P" | "--profile" | "--config-file" | "--max-fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        Arguments::parse(&shell_words::split(text).unwrap())
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
}
