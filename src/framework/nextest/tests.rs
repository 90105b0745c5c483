use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::framework::Facts;
use crate::junit;

fn nextest(run_args: Option<&str>, include_ignored: bool) -> Nextest {
    Nextest::new(&config::Framework {
        kind: config::FrameworkKind::Nextest {
            package: Some("a".to_owned()),
            features: vec!["x".to_owned(), "y".to_owned()],
            bin: None,
            include_ignored,
            run_args: run_args.map(str::to_owned),
        },
        env: Vec::new(),
        prepend_path: Vec::new(),
        discovery_args: None,
        test_id_format: "{classname} {name}".to_owned(),
    })
    .unwrap()
}

fn group(filters: &str) -> Group {
    Group { name: "all".into(), filters: filters.to_owned(), max_attempts: 1, solo: false }
}

fn recorded(file: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/nextest/0.9.143");
    fs::read_to_string(directory.join(file)).unwrap()
}

fn listing(nextest: &Nextest, file: &str) -> Listing {
    let command = nextest.list_command(&group(""), GroupIndex(0)).unwrap();
    let output =
        ListOutput { exit: Exit::Code(0), stdout: recorded(file), stderr: String::new(), file: None };
    nextest.parse_list(&command, &output).unwrap()
}

fn suite(filters: &str) -> Suite {
    let mut suite = Suite::new(vec![group(filters)]);
    for test in listing(&nextest(None, false), "list.json").tests {
        suite.add(test);
    }
    suite
}

fn facts(config: Option<&str>) -> Facts {
    let known =
        [("nextest.cargo-metadata.0", "cargo-metadata-0.json"), ("nextest.binaries.0", "binaries-0.json")];
    let config = config.map(|config| ("nextest.config.0", config));
    known.into_iter().chain(config).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn run(nextest: &Nextest, suite: &Suite, ids: &[&str], facts: &Facts, shared: bool) -> (Vec<String>, String) {
    let scratch = Path::new("/scratch");
    let shared = shared.then_some(Path::new("/shared"));
    let group = GroupIndex(0);
    let context = BatchContext { suite, group, facts, shared, root: ".", scratch, fail_fast: false };
    let tests: Vec<TestIndex> = ids.iter().map(|id| suite.find(id).unwrap()).collect();
    let run = nextest.run_command(&tests, &context);
    assert_eq!(run.report, Some(ReportFile::junit("/scratch/junit.xml")));
    let files: Vec<_> = run.command.files.into_iter().map(|file| file.content).collect();
    match run.command.executable {
        Executable::Program(words) => (words, files.concat()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_listing_holds_what_the_filters_select_and_the_binaries_for_batches() {
    let all = listing(&nextest(None, false), "list.json");
    assert_eq!(all.tests.len(), 49);
    assert!(all.tests.iter().all(|test| test.id.as_str() != "a tests::ign"));
    let (name, content) = &all.shared[0];
    assert_eq!(
        (name.as_str(), all.facts["nextest.binaries.0"].as_str()),
        ("binaries-0.json", "binaries-0.json")
    );
    let binaries: Value = serde_json::from_str(content).unwrap();
    assert!(binaries["rust-build-meta"]["target-directory"].is_string());
    assert_eq!(binaries["rust-binaries"]["b::it"]["kind"], "test");
    assert!(binaries["rust-binaries"]["b::it"].get("testcases").is_none());
    let some = listing(&nextest(None, false), "selected.json");
    assert!(some.tests.iter().all(|test| test.id.as_str().starts_with("a tests::")));
    assert_eq!(some.tests.len(), 5);
}

#[test]
fn the_report_names_the_listed_tests() {
    let suite = suite("");
    let nextest = nextest(None, false);
    let facts = Facts::new();
    let scratch = Path::new("/scratch");
    let context = BatchContext {
        suite: &suite,
        group: GroupIndex(0),
        facts: &facts,
        shared: None,
        root: ".",
        scratch,
        fail_fast: false,
    };
    let matcher = nextest.matcher(&[], &context);
    let mut found = BTreeSet::new();
    junit::read::read(recorded("junit.xml").as_bytes(), &mut |case| found.extend(matcher.find(&case)));
    let missing = suite.indices().filter(|index| !found.contains(index));
    // nextest drops control characters from its report.
    let missing: Vec<_> = missing.map(|index| suite.test(index).id.as_str()).collect();
    assert_eq!(missing, ["a::mimic tab\tx"]);
}

#[test]
fn a_failed_listing_is_an_error_with_the_output() {
    let nextest = nextest(None, false);
    let command = nextest.list_command(&group(""), GroupIndex(0)).unwrap();
    let output = |exit, stdout: &str| ListOutput {
        exit,
        stdout: stdout.to_owned(),
        stderr: "error[E0425]".to_owned(),
        file: None,
    };
    let error = nextest.parse_list(&command, &output(Exit::Code(101), "")).unwrap_err();
    assert!(error.to_string().contains("error[E0425]"));
    assert!(nextest.parse_list(&command, &output(Exit::Code(0), "nothing")).is_err());
}

#[test]
fn listing_takes_settings_before_filters() {
    let commands = nextest(None, true).list_commands(&[group("-p b -- --skip x")], Path::new("/s")).unwrap();
    let Executable::Program(words) = &commands[0].command.executable else { panic!() };
    let rest = ["--package=a", "--features=x,y", "--run-ignored=all", "-p", "b", "--", "--skip", "x"];
    assert_eq!(words[5..], rest);
    assert_eq!((commands.len(), commands[1].groups.len(), commands[1].output.is_none()), (2, 0, false));
    let ignored = nextest(None, true).list_commands(&[group("--run-ignored only")], Path::new("/s")).unwrap();
    assert!(!ignored[0].command.to_shell().contains("all"));
}

#[test]
fn local_batches_reuse_the_build_and_remote_ones_build() {
    let suite = suite("");
    let (local, tool) = run(&nextest(None, false), &suite, &["b one"], &facts(None), true);
    let reuse = [
        "--cargo-metadata=/shared/cargo-metadata-0.json",
        "--binaries-metadata=/shared/binaries-0.json",
        "--profile=offload",
        "--tool-config-file=offload:/scratch/offload-nextest.toml",
        "--no-fail-fast",
        "--filterset=(binary_id(=b) & (test(=one)))",
    ];
    assert_eq!(local[3..], reuse);
    assert_eq!(tool, "[profile.\"offload\".junit]\npath = \"/scratch/junit.xml\"\n");
    let (remote, _) = run(&nextest(None, false), &suite, &["b one"], &facts(None), false);
    assert_eq!(remote[3..5], ["--package=a", "--features=x,y"]);
    let (other, _) = run(&nextest(Some("--release"), false), &suite, &["b one"], &facts(None), true);
    assert_eq!(other[3..6], ["--package=a", "--features=x,y", "--release"]);
}

#[test]
fn a_whole_binary_is_named_alone_unless_the_group_selects() {
    let ids = ["b one", "b two", "pm in_pm"];
    let (words, _) = run(&nextest(None, false), &suite(""), &ids, &facts(None), true);
    assert_eq!(words.last().unwrap(), "--filterset=binary_id(=b) + binary_id(=pm)");
    let selecting = suite("-E 'all()' --ignore-default-filter");
    let (words, _) = run(&nextest(None, false), &selecting, &ids, &facts(None), true);
    let both = "(binary_id(=b) & (test(=one) + test(=two))) + (binary_id(=pm) & (test(=in_pm)))";
    assert_eq!(words.last().unwrap(), &format!("--filterset={both}"));
    assert!(words.contains(&"--ignore-default-filter".to_owned()));
    assert!(!words.contains(&"-E".to_owned()));
}

#[test]
fn special_characters_are_escaped_by_number() {
    assert_eq!(escape("clos)e, b\\c"), r"clos\u{29}e\u{2c}\u{20}b\u{5c}c");
    assert_eq!(escape("=eq/ünï"), r"\u{3d}eq\u{2f}ünï");
}

#[test]
fn a_named_profile_keeps_its_name_and_only_its_report_moves() {
    let suite = suite("--profile ci");
    let (words, tool) = run(&nextest(None, false), &suite, &["b one"], &facts(None), true);
    assert!(words.contains(&"--profile=ci".to_owned()));
    assert_eq!(tool, "[profile.\"ci\".junit]\npath = \"/scratch/junit.xml\"\n");
    let own = "[profile.ci.junit]\npath = 'own.xml'\n";
    let known = facts(Some(own));
    let (words, copy) = run(&nextest(None, false), &suite, &["b one"], &known, true);
    assert!(words.contains(&"--config-file=/scratch/nextest.toml".to_owned()));
    assert_eq!(copy, "[profile.ci.junit]\npath = \"/scratch/junit.xml\"\n");
}

#[test]
fn arguments_override_an_inherited_profile() {
    let inherited = nextest(None, false).with_profile(Some("ci".to_owned()));
    let copied = inherited.list_commands(&[group("")], Path::new("/s")).unwrap().remove(1);
    assert_eq!(copied.output, Some(PathBuf::from("/s/nextest-project-0.toml")));
    let (words, _) = run(&inherited, &suite("--profile=deep"), &["b one"], &facts(None), true);
    assert!(words.contains(&"--profile=deep".to_owned()));
    let (words, _) = run(&inherited, &suite("-P default"), &["b one"], &facts(None), true);
    assert!(words.contains(&"--profile=offload".to_owned()));
}

#[test]
fn a_command_for_the_user_needs_none_of_our_files() {
    let text = nextest(None, true).by_hand(&[TestIndex(0)], &suite(""), &Facts::new());
    assert_eq!(
        text,
        "cargo nextest run '--package=a' '--features=x,y' '--run-ignored=all' \
         '--filterset=(binary_id(=a) & (test(=tests::cwd)))'"
    );
}

#[test]
fn an_archive_is_extracted_for_each_batch_and_nothing_else_is_reused() {
    let bare = Nextest::new(&config::Framework {
        kind: config::FrameworkKind::Nextest {
            package: None,
            features: Vec::new(),
            bin: None,
            include_ignored: false,
            run_args: None,
        },
        env: Vec::new(),
        prepend_path: Vec::new(),
        discovery_args: None,
        test_id_format: "{classname} {name}".to_owned(),
    })
    .unwrap();
    let filters = "--archive-file a.tar.zst --extract-to=x --workspace-remap w";
    let commands = bare.list_commands(&[group(filters)], Path::new("/s")).unwrap();
    assert_eq!(commands.len(), 1);
    let Executable::Program(words) = &commands[0].command.executable else { panic!() };
    let own = ["--archive-file", "a.tar.zst", "--workspace-remap", "w"];
    assert_eq!(words[5..], own);
    let (words, _) = run(&bare, &suite(filters), &["b one"], &facts(None), true);
    assert_eq!(words[3..8], [&own[..], &["--extract-to=/scratch"]].concat());
    assert!(!words.iter().any(|word| word.contains("metadata")), "{words:?}");
    // The project's configuration is that of the workspace that is named.
    let commands = bare.list_commands(&[group(&format!("{filters} -P ci"))], Path::new("/s")).unwrap();
    let Executable::Shell(script) = &commands[1].command.executable else { panic!() };
    assert_eq!(
        script,
        "if [ -f w/.config/nextest.toml ]; then cp w/.config/nextest.toml /s/nextest-project-0.toml; fi; "
    );
    let nothing =
        ListOutput { exit: Exit::Code(0), stdout: String::new(), stderr: String::new(), file: None };
    let listing = bare.parse_list(&commands[1], &nothing).unwrap();
    assert_eq!((listing.warnings.len(), listing.facts.len()), (0, 0));
}

#[test]
fn groups_share_facts_only_if_these_come_from_the_same_place() {
    let groups = [group("-p a"), group("--config-file x.toml"), group("-p b -P ci")];
    let commands = nextest(None, false).list_commands(&groups, Path::new("/s")).unwrap();
    let copies: Vec<_> = commands[3..].iter().map(|command| command.output.clone().unwrap()).collect();
    assert_eq!(copies, ["/s/nextest-project-0.toml", "/s/nextest-project-1.toml"].map(PathBuf::from));
    let scripts: Vec<String> = commands[3..].iter().map(|command| command.command.to_shell()).collect();
    assert!(scripts[0].contains("locate-project") && !scripts[1].contains("x.toml"), "{scripts:?}");
    let output = ListOutput {
        exit: Exit::Code(0),
        stdout: "{}".to_owned(),
        stderr: String::new(),
        file: Some("own".to_owned()),
    };
    let listing = nextest(None, false).parse_list(&commands[4], &output).unwrap();
    let keys: Vec<&str> = listing.facts.keys().map(String::as_str).collect();
    assert_eq!(keys, ["nextest.cargo-metadata.1", "nextest.config.1"]);
}

#[test]
fn an_unknown_option_whose_value_is_unclear_is_an_error() {
    let error = nextest(None, false).list_commands(&[group("--new 1")], Path::new("/s")).unwrap_err();
    assert!(format!("{error:#}").starts_with("the filters of group `all`: `--new 1`: unknown option;"));
}

#[test]
fn the_class_of_a_test_is_its_module_in_its_binary() {
    let class = |binary: &str, name: &str| {
        let test = Listed::new(GroupIndex(0), format!("{binary} {name}"), Some(binary.into()));
        nextest(None, false).class(&test).unwrap()
    };
    assert_eq!(class("a", "m::n::x"), class("a", "m::n::y"));
    assert_eq!(class("a", "x"), class("a", "y"));
    let classes = [class("a", "m::n::x"), class("a", "m::x"), class("a", "x"), class("b", "m::x")];
    assert_eq!(BTreeSet::from(classes).len(), 4);
}
