//! Sorts the arguments of a vitest command line: those that select tests, and those that say how to run them.

/// The sorted arguments of group filters or `run_args`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// Options for both discovery and batches.
    pub options: Vec<String>,
    /// Arguments that select files: substrings of paths, `--changed`, `--exclude`, `--shard`.
    pub selection: Vec<String>,
    /// The value of `-t`.
    pub pattern: Option<String>,
    /// Coverage options, without the directory of reports.
    pub coverage: Vec<String>,
    /// The option for the directory of coverage reports.
    pub coverage_directory: Vec<String>,
    /// Reporter options.
    pub reporters: Vec<String>,
}

/// Options without a value, in the form of [`plain`]; those that start with `no` are implied.
const FLAGS: &[&str] = &[
    "allowonly",
    "clearscreen",
    "color",
    "coverage",
    "dangerouslyignoreunhandlederrors",
    "disableconsoleintercept",
    "dom",
    "expandsnapshotdiff",
    "fileparallelism",
    "globals",
    "hideskippedtests",
    "includetasklocation",
    "isolate",
    "logheapusage",
    "open",
    "passwithnotests",
    "printconsoletrace",
    "run",
    "standalone",
    "typecheck",
    "ui",
    "update",
    "u",
    "w",
    "watch",
];

/// The last parts of dotted options without a value.
const PARTS: &[&str] = &["all", "clean", "concurrent", "enabled", "headless", "only", "shuffle", "tests"];

impl Arguments {
    /// Sorts `words`.
    pub fn parse(words: &[String]) -> Arguments {
        let mut sorted = Arguments::default();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty() && *name != "-") else {
                sorted.selection.push(word.clone());
                continue;
            };
            let (name, mut value) = match name.trim_start_matches('-').split_once('=') {
                Some((name, value)) => (plain(name), Some(value.to_owned())),
                None => (plain(name), None),
            };
            let mut taken = vec![word.clone()];
            if value.is_none() && !is_flag(&name) {
                let next = words.next_if(|next| !next.starts_with('-') || is_pattern(&name));
                value = next.cloned();
                taken.extend(next.cloned());
            }
            sorted.place(&name, value, taken);
        }
        sorted
    }

    fn place(&mut self, name: &str, value: Option<String>, taken: Vec<String>) {
        match name {
            _ if is_pattern(name) => self.pattern = value,
            "changed" | "exclude" | "shard" => self.selection.extend(taken),
            "reporter" => self.reporters.extend(taken),
            // Batches have their own output file and must not watch.
            "outputfile" | "run" | "watch" | "w" => {}
            _ if name.starts_with("outputfile.") => {}
            "coverage.reportsdirectory" => self.coverage_directory.extend(taken),
            _ if name == "coverage" || name.starts_with("coverage.") => self.coverage.extend(taken),
            _ => self.options.extend(taken),
        }
    }
}

/// The normalized name of an option: `--pass-with-no-tests` is `--passWithNoTests`.
fn plain(name: &str) -> String {
    name.trim_start_matches('-').replace('-', "").to_lowercase()
}

fn is_pattern(name: &str) -> bool {
    matches!(name, "t" | "testnamepattern")
}

fn is_flag(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    FLAGS.contains(&name) || name.starts_with("no") || (name.contains('.') && PARTS.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Arguments {
        Arguments::parse(&shell_words::split(text).unwrap())
    }

    #[test]
    fn paths_and_shards_select_and_the_rest_is_kept() {
        let sorted = parse(
            "src/ --project unit --no-isolate lib --shard=1/2 --exclude z -c v.ts --coverage x.test.ts \
             --coverage.reportsDirectory=d",
        );
        assert_eq!(sorted.selection, ["src/", "lib", "--shard=1/2", "--exclude", "z", "x.test.ts"]);
        assert_eq!(sorted.options, ["--project", "unit", "--no-isolate", "-c", "v.ts"]);
        assert_eq!((sorted.coverage, sorted.coverage_directory.len()), (vec!["--coverage".to_owned()], 1));
    }

    #[test]
    fn a_pattern_may_look_like_an_option() {
        assert_eq!(parse("-t '-x y'").pattern.as_deref(), Some("-x y"));
        assert_eq!(parse("--test-name-pattern='^(?!.*slow)'").pattern.as_deref(), Some("^(?!.*slow)"));
    }

    #[test]
    fn output_files_and_watching_are_dropped() {
        let sorted = parse("--outputFile=own.xml --outputFile.json own.json --watch --reporter verbose");
        assert_eq!((sorted.options.len(), sorted.selection.len()), (0, 0));
        assert_eq!(sorted.reporters, ["--reporter", "verbose"]);
    }
}
