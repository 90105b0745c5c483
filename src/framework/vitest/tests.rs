use std::fs;
use std::path::PathBuf;

use super::*;
use crate::command::Executable;
use crate::framework::Facts;
use crate::model::Exit;
use crate::record::{self, Event};

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

fn suite(filters: &str, tests: Vec<Listed>) -> Suite {
    let mut suite = Suite::new(vec![group(filters)]);
    for test in tests {
        assert!(suite.add(test));
    }
    suite
}

/// A list with one file for each name and its titles.
fn list(files: &[(&str, &[&str])]) -> String {
    let files = files.iter().map(|(name, titles)| {
        let path = name.rsplit(' ').next().unwrap();
        let tests = titles.iter().enumerate().map(|(number, title)| {
            let native = json!([name, false, path, [title], number]).to_string();
            json!({ "native": native, "titles": [title], "line": 3, "isChosen": !title.contains("left out") })
        });
        json!({ "name": name, "path": path, "tests": Vec::from_iter(tests) })
    });
    let files: Vec<_> = files.collect();
    let facts =
        json!({ "collection": "--root x", "version": "4.1.12", "directory": "/project", "coverage": false });
    let mut list = json!({ "whole": true, "files": files, "errors": [] });
    list.as_object_mut().unwrap().extend(facts.as_object().unwrap().clone());
    list.to_string()
}

fn words(vitest: &Vitest, suite: &Suite, fail_fast: bool) -> (Vec<String>, Vec<InputFile>) {
    let facts = Facts::from([(DIRECTORY.to_owned(), "/project".to_owned())]);
    let scratch = Path::new("/scratch");
    let group = GroupIndex(0);
    let context = BatchContext { suite, group, facts: &facts, shared: None, root: ".", scratch, fail_fast };
    let run = vitest.run_command(&[TestIndex(0)], &context);
    assert_eq!(run.report, Some(ReportFile::record("/scratch/record.jsonl")));
    match run.command.executable {
        Executable::Program(words) => (words, run.command.files),
        other => panic!("{other:?}"),
    }
}

fn listing(file: Option<String>, exit: Exit) -> Result<Listing> {
    let vitest = vitest(None);
    let command = vitest.list_commands(&[group("")], Path::new("/scratch")).unwrap().remove(0);
    let output = ListOutput { exit, stdout: String::new(), stderr: "it hurts".to_owned(), file };
    vitest.parse_list(&command, &output)
}

fn ids(listing: &Listing) -> Vec<&str> {
    listing.tests.iter().map(|test| test.id.as_str()).collect()
}

fn versions() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vitest");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.join("HOW").is_file()).collect()
}

#[test]
fn every_version_lists_the_same_tests_and_records_them_by_their_native_ids() {
    let mut before = None;
    for version in versions() {
        let text = fs::read_to_string(version.join("list.json")).unwrap();
        let listing = listing(Some(text), Exit::Code(0)).unwrap();
        let names: Vec<String> = ids(&listing).into_iter().map(str::to_owned).collect();
        assert_eq!((names.len(), listing.errors.len()), (24, 0), "{version:?}");
        assert!(names.contains(&"src/a.test.ts > dup (2)".to_owned()), "{names:#?}");
        assert_eq!(*before.get_or_insert(names.clone()), names, "{version:?}");
        let suite = suite("", listing.tests);
        let find =
            |native: &str| suite.find_native(GroupIndex(0), native).unwrap_or_else(|| panic!("{native}"));
        let (mut ended, mut lost) = (BTreeSet::new(), Vec::new());
        let record = fs::read(version.join("record.jsonl")).unwrap();
        let error = record::read(record.as_slice(), &mut |event| match event {
            Event::End(end) => assert!(ended.insert(find(&end.id))),
            Event::Error(error) => lost.extend(error.tests.iter().map(|test| find(test))),
            _ => {}
        });
        assert_eq!((error, ended.len()), (None, 22), "{version:?}");
        let lost = lost.into_iter().map(|index| suite.test(index).id.as_str());
        assert_eq!(Vec::from_iter(lost), ["src/hook.test.ts > d > x", "src/hook.test.ts > d > y"]);
    }
}

#[test]
fn a_file_that_does_not_load_is_an_error_and_the_other_files_are_listed() {
    for version in versions() {
        let text = fs::read_to_string(version.join("broken.json")).unwrap();
        let listing = listing(Some(text), Exit::Code(1)).unwrap();
        let errors: Vec<(&str, &str)> =
            listing.errors.iter().map(|error| (error.file.as_str(), error.message.as_str())).collect();
        let reasons = [
            ("src/syn.test.ts", "Transform failed"),
            ("src/thr.test.ts", "in describe"),
            ("src/zero.test.ts", "No test suite found"),
        ];
        assert_eq!((listing.tests.len(), errors.len()), (24, 3), "{version:?}");
        for ((file, message), (wanted, reason)) in errors.into_iter().zip(reasons) {
            assert!(file == wanted && message.starts_with(reason), "{file}: {message}");
            assert!(!message.contains('\x1B'), "{message}");
        }
    }
}

#[test]
fn a_list_that_is_not_whole_is_an_error_and_a_whole_one_outranks_the_exit_status() {
    let list = list(&[("a.ts", &["x"])]);
    let cut = list.replace("\"whole\":true", "\"whole\":false");
    assert!(listing(Some(cut), Exit::Code(0)).unwrap_err().to_string().contains("it hurts"));
    assert!(listing(None, Exit::Code(0)).is_err());
    assert!(listing(Some(list[..20].to_owned()), Exit::Code(0)).is_err());
    let listing = listing(Some(list), Exit::Code(1)).unwrap();
    assert_eq!((ids(&listing), listing.collection.as_str()), (vec!["a.ts > x"], "--root x"));
    let test = &listing.tests[0];
    assert_eq!((test.file.as_deref(), test.line), (Some("a.ts"), Some(3)));
    assert_eq!(&*test.native, r#"["a.ts",false,"a.ts",["x"],0]"#);
}

#[test]
fn tests_of_one_name_are_numbered_and_nothing_else_is() {
    let files: [(&str, &[&str]); 2] =
        [("a.ts", &["x", "x", "x (2)", "x", "y", "left out"]), ("|lib| a.ts", &["x"])];
    let listing = listing(Some(list(&files)), Exit::Code(0)).unwrap();
    let wanted = ["a.ts > x", "a.ts > x (3)", "a.ts > x (2)", "a.ts > x (4)", "a.ts > y", "|lib| a.ts > x"];
    assert_eq!(ids(&listing), wanted);
}

#[test]
fn discovery_runs_nothing_and_changes_no_setting() {
    let vitest = vitest(None);
    let groups = [group("src/ -t 'a|b' --project one --exclude z")];
    let command = vitest.list_commands(&groups, Path::new("/s")).unwrap().remove(0).command;
    let line = "npx vitest --run src/ --exclude z '--coverage.enabled=false' \
                '--reporter=/s/vitest-0/vitest_reporter.mjs' '--testNamePattern=(?!)' --project one";
    assert_eq!(command.to_shell(), line);
    let first = command.files[0].content.lines().next().unwrap();
    let settings = r#"{"collection":"--project one","list":"/s/vitest-0/list.json","pattern":"a|b"}"#;
    assert_eq!(first, format!("const settings = {settings}"));
    assert_eq!(command.files[1].path, Path::new("/s/vitest-0/vitest_runner.mjs"));
}

#[test]
fn a_batch_gets_the_native_ids_of_its_tests_and_the_options_of_its_group() {
    let tests = listing(Some(list(&[("src/a.ts", &["one", "two"])])), Exit::Code(0)).unwrap().tests;
    let suite = suite("src/ -t x -c v.ts --shard=1/2", tests);
    let (words, files) = words(&vitest(None), &suite, false);
    let line = ["npx", "vitest", "--run", "-c", "v.ts", "--coverage.reportsDirectory=/scratch/coverage"];
    let reporters = ["--reporter=/scratch/vitest_reporter.mjs", "--reporter=default"];
    assert_eq!(words, [&line[..], &reporters].concat());
    let wanted = [&*suite.test(TestIndex(0)).native];
    let settings = json!({ "record": "/scratch/record.jsonl", "wanted": wanted, "home": "/project" });
    assert_eq!(files[0].content.lines().next().unwrap(), format!("const settings = {settings}"));
}

#[test]
fn reporters_and_coverage_of_the_user_stay_and_a_failure_may_end_the_batch() {
    let tests = listing(Some(list(&[("a.ts", &["one"])])), Exit::Code(0)).unwrap().tests;
    let vitest = vitest(Some("--coverage --reporter=verbose --outputFile=mine"));
    let (words, _) = words(&vitest, &suite("", tests), true);
    let coverage = "--coverage.reportsDirectory=/scratch/coverage";
    let rest =
        ["--coverage", coverage, "--bail=1", "--reporter=/scratch/vitest_reporter.mjs", "--reporter=verbose"];
    assert_eq!(words[3..], rest);
}

#[test]
fn coverage_is_reported_once_where_the_user_wants_it() {
    let vitest = vitest(Some("--coverage --coverage.reportsDirectory=mine --reporter=verbose"));
    let facts = Facts::new();
    let directory = Path::new("/gathered");
    let scratch = Path::new("/scratch");
    let group = group("src/ -c v.ts");
    let gathered = Gathered { name: "coverage", directory, scratch, group: &group, facts: &facts };
    let command = vitest.conclude(&gathered).unwrap();
    let line = "npx vitest --run --passWithNoTests -c v.ts --coverage '--coverage.reportsDirectory=mine' \
                '--reporter=/scratch/vitest_reporter.mjs'";
    assert_eq!(command.to_shell(), line);
    assert!(command.files[0].content.starts_with(r#"const settings = {"merge":"/gathered"}"#));
}

#[test]
fn version_1_runs_without_coverage_and_says_so() {
    let text = list(&[("a.ts", &["one"])]).replace("4.1.12", "1.6.1");
    let quiet = listing(Some(text.clone()), Exit::Code(0)).unwrap();
    assert!(!merges_coverage(&quiet.facts) && quiet.warnings.is_empty());
    let text = text.replace("\"coverage\":false", "\"coverage\":true");
    let warnings = listing(Some(text), Exit::Code(0)).unwrap().warnings;
    assert!(warnings[0].contains("tests run without it"), "{warnings:?}");
}

#[test]
fn a_command_for_the_user_needs_none_of_our_files() {
    let tests = listing(Some(list(&[("a.ts", &["d (1) > a", "two\n"])])), Exit::Code(0)).unwrap().tests;
    let suite = suite("--project p", tests);
    let by_hand = |index| vitest(None).by_hand(&[TestIndex(index)], &suite, &Facts::new());
    let pattern = r"'--testNamePattern=^ ?(?:d\s\(1\)(?: >)? a)$'";
    assert_eq!(by_hand(0), format!("npx vitest --run a.ts --project p {pattern}"));
    assert!(by_hand(1).ends_with(r"'--testNamePattern=^ ?(?:two\s)$'"));
}

#[test]
fn the_class_of_a_test_is_its_outermost_suite_or_its_file() {
    let class = |titles: &[&str]| {
        let native = json!(["p", false, "a.test.js", titles, 0]).to_string();
        vitest(None).class(&Listed::new(GroupIndex(0), native, Some("a.test.js".into()))).unwrap()
    };
    assert_eq!(class(&["one", "x"]), class(&["one", "two", "y"]));
    assert_eq!(class(&["x"]), class(&["one"]));
    assert_ne!(class(&["one", "x"]), class(&["two", "x"]));
    assert_ne!(class(&["one", "x"]), class(&["one"]));
}
