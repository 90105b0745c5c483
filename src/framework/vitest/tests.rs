use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::command::Executable;
use crate::framework::Facts;
use crate::junit;
use crate::model::CaseResult;

fn vitest(run_args: Option<&str>) -> Vitest {
    Vitest::new(&config::Framework {
        kind: config::FrameworkKind::Vitest {
            command: "npx vitest".to_owned(),
            run_args: run_args.map(str::to_owned),
        },
        env: Vec::new(),
        prepend_path: Vec::new(),
        discovery_args: None,
        test_id_format: "{classname} > {name}".to_owned(),
    })
    .unwrap()
}

fn group(filters: &str) -> Group {
    Group { name: "all".into(), filters: filters.to_owned(), max_attempts: 1, solo: false }
}

fn suite(filters: &str, ids: &[&str]) -> Suite {
    let mut suite = Suite::new(vec![group(filters)]);
    for id in ids {
        let file = id.split(" > ").next().map(Into::into);
        suite.add(Listed::new(GroupIndex(0), *id, file));
    }
    suite
}

fn words(vitest: &Vitest, suite: &Suite, tests: &[u32], fail_fast: bool) -> Vec<String> {
    let facts = Facts::new();
    let scratch = Path::new("/scratch");
    let group = GroupIndex(0);
    let context = BatchContext { suite, group, facts: &facts, shared: None, root: ".", scratch, fail_fast };
    let tests: Vec<TestIndex> = tests.iter().copied().map(TestIndex).collect();
    let run = vitest.run_command(&tests, &context);
    assert_eq!(run.report, Some(ReportFile::junit("/scratch/junit.xml")));
    match run.command.executable {
        Executable::Program(words) => words,
        other => panic!("{other:?}"),
    }
}

fn value<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(option))
}

fn listing(file: Option<String>, exit: Exit) -> Result<Listing> {
    let vitest = vitest(None);
    let command = vitest.list_commands(&[group("")], Path::new("/scratch")).unwrap().remove(0);
    let output = ListOutput { exit, stdout: String::new(), stderr: "it hurts".to_owned(), file };
    vitest.parse_list(&command, &output)
}

fn versions() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vitest");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("HOW").is_file()).collect()
}

#[test]
fn every_version_lists_what_its_report_names() {
    for version in versions() {
        let text = fs::read_to_string(version.join("list.json")).unwrap();
        let listing = listing(Some(text), Exit::Code(0)).unwrap();
        assert_eq!((listing.tests.len(), listing.warnings.len()), (23, 1), "{version:?}");
        let mut suite = Suite::new(vec![group("")]);
        for test in listing.tests {
            suite.add(test);
        }
        let vitest = vitest(None);
        let matcher = Titles { suite: &suite, group: GroupIndex(0), vitest: &vitest };
        let report = fs::read(version.join("junit.xml")).unwrap();
        let mut found = BTreeSet::new();
        let mut above = Vec::new();
        junit::read::read(report.as_slice(), &mut |case| match matcher.find(&case) {
            Some(test) => {
                found.insert(test);
            }
            None => above.push(case),
        });
        assert_eq!(found.len(), 23, "{version:?}");
        assert_eq!(above.len(), 1, "{version:?}");
        let covered = matcher.covers(&above[0]).into_iter().map(|index| suite.test(index).id.as_str());
        let wanted = ["src/hook.test.ts > d > x", "src/hook.test.ts > d > y"];
        assert_eq!(covered.collect::<Vec<_>>(), wanted, "{version:?}");
    }
}

#[test]
fn a_file_that_does_not_load_is_an_error_that_names_it() {
    for version in versions() {
        let text = fs::read_to_string(version.join("broken.json")).unwrap();
        let error = listing(Some(text), Exit::Code(1)).unwrap_err().to_string();
        for file in ["src/syn.test.ts: ", "src/thr.test.ts: in describe", "src/zero.test.ts: no test suite"] {
            assert!(error.contains(file), "{error}");
        }
        assert!(!error.contains('\x1B'));
    }
}

#[test]
fn a_command_that_failed_or_wrote_nothing_is_an_error() {
    let none = r#"{"files":[]}"#.to_owned();
    assert!(listing(Some(none.clone()), Exit::Code(1)).unwrap_err().to_string().contains("it hurts"));
    assert!(listing(None, Exit::Code(0)).is_err());
    assert_eq!(listing(Some(none), Exit::Code(0)).unwrap().tests, []);
}

#[test]
fn discovery_runs_nothing_and_tries_again_with_isolation() {
    let vitest = vitest(None);
    let commands = vitest.list_commands(&[group("src/ -t 'a|b' --project one")], Path::new("/s")).unwrap();
    let shell = commands[0].command.to_shell();
    let (quick, careful) = shell.split_once(" || ").unwrap();
    assert!(quick.starts_with("npx vitest --run src/ --no-isolate "), "{quick}");
    assert!(careful.starts_with("npx vitest --run src/ "), "{careful}");
    assert!(!careful.contains("isolate"));
    for half in [quick, careful] {
        let words = shell_words::split(half).unwrap();
        assert_eq!(value(&words, "--testNamePattern="), Some("(?!)"));
        assert_eq!(value(&words, "--reporter="), Some("/s/vitest-0.mjs"));
        assert!(words.ends_with(&["--project".to_owned(), "one".to_owned()]));
    }
    let script = &commands[0].command.files[0];
    assert!(script.content.starts_with(r#"const settings = {"list":"/s/vitest-0.json","pattern":"a|b"}"#));
}

#[test]
fn isolation_stays_as_the_user_chose() {
    let commands = vitest(None).list_commands(&[group("--isolate")], Path::new("/s")).unwrap();
    let shell = commands[0].command.to_shell();
    assert!(shell.ends_with(" --isolate") && !shell.contains("||"), "{shell}");
}

#[test]
fn whole_files_are_named_without_their_tests() {
    let suite = suite("src/ -c v.ts", &["src/a.test.ts > one", "src/a.test.ts > two", "b.test.ts > x"]);
    let words = words(&vitest(None), &suite, &[0, 1], false);
    let start = ["npx", "vitest", "--run", "src/a.test.ts", "-c", "v.ts", "--coverage.enabled=false"];
    assert_eq!(&words[..start.len()], start);
    assert_eq!(value(&words, "--outputFile="), Some("/scratch/junit.xml"));
    assert_eq!(value(&words, "--testNamePattern="), None);
}

#[test]
fn part_of_a_file_is_chosen_by_whole_titles() {
    let suite = suite("-t x", &["a.ts > d (1) > a > b", "a.ts > other x"]);
    let vitest = vitest(Some("--coverage --reporter=verbose --outputFile=mine"));
    let some = words(&vitest, &suite, &[0], true);
    let pattern = r"^ ?(?:d\s\(1\)(?: >)? a(?: >)? b)$";
    assert_eq!(value(&some, "--testNamePattern="), Some(pattern));
    assert!(some.contains(&"--bail=1".to_owned()) && some.contains(&"--coverage".to_owned()));
    assert!(
        some.contains(&"--reporter=verbose".to_owned()) && !some.contains(&"--outputFile=mine".to_owned())
    );
    let all = words(&vitest, &suite, &[0, 1], false);
    assert_eq!(value(&all, "--testNamePattern="), Some("x"));
}

#[test]
fn tests_with_characters_missing_from_the_report_can_be_selected() {
    let text = r#"{"files":[{"file":"a.ts","tests":["\u001b[1mbold","plain\n"]}]}"#;
    let listing = listing(Some(text.to_owned()), Exit::Code(0)).unwrap();
    let ids: Vec<&str> = listing.tests.iter().map(|test| test.id.as_str()).collect();
    assert_eq!((ids.as_slice(), listing.facts.len()), (["a.ts > [1mbold", "a.ts > plain "].as_slice(), 1));
    let suite = suite("", &["a.ts > [1mbold", "a.ts > plain "]);
    let pattern = |index| vitest(None).pattern(&[TestIndex(index)], GroupIndex(0), &suite, &listing.facts);
    assert_eq!(pattern(0).as_deref(), Some(r"^ ?(?:\u001b\[1mbold)$"));
    assert_eq!(pattern(1).as_deref(), Some(r"^ ?(?:plain\s)$"));
}

#[test]
fn other_files_that_match_the_arguments_are_excluded() {
    let tests = ["src/a.test.ts > x", "lib/src/A.test.ts > x", "src/a.test.tsx > x", "z/[id].ts > x"];
    let suite = suite("", &tests);
    let words = words(&vitest(None), &suite, &[0], false);
    let excluded: Vec<_> = words.iter().filter_map(|word| word.strip_prefix("--exclude=")).collect();
    assert_eq!(excluded, ["lib/src/A.test.ts", "src/a.test.tsx"]);
    assert_eq!(escape_glob("z/[id].ts"), r"z/\[id\].ts");
}

#[test]
fn tests_that_the_selection_excluded_are_not_extras() {
    let suite = suite("", &[]);
    let vitest = vitest(None);
    let matcher = Titles { suite: &suite, group: GroupIndex(0), vitest: &vitest };
    let case = |outcome| {
        let result = CaseResult::new(outcome, Duration::ZERO);
        Case { classname: "a.ts".to_owned(), name: "x".to_owned(), file: None, result }
    };
    assert!(!matcher.is_extra(&case(Outcome::Skipped)));
    assert!(matcher.is_extra(&case(Outcome::Passed)));
}

#[test]
fn a_command_for_the_user_needs_none_of_our_files() {
    let suite = suite("", &["a.ts > one", "a.ts > two"]);
    let text = vitest(None).by_hand(&[TestIndex(0)], &suite);
    assert_eq!(text, "npx vitest --run a.ts '--testNamePattern=^ ?(?:one)$'");
}
