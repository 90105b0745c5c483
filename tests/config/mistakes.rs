//! What a wrong configuration is told.

use super::{LEAST, PYTEST_COMMANDS, mistake, mistakes, parse, valid};
use offload::internals::config::Provider;
use offload::internals::model::KeepTogether;

#[test]
fn all_mistakes_are_reported_at_once_with_their_positions() {
    let text = r#"top = 1
[offload]
max_parallel = 0
test_timeout = 3
[provider]
type = "locall"
anything = 1
[framework]
type = "pytest"
comand = "pytest"
  paths = ["ü", 3, "${NO}"]
[groups.all]
  retry_cuont = 3
[reprt]
"#;
    assert_eq!(
        mistakes(text),
        [
            "o.toml:1:1: unknown key `top` outside any table",
            "o.toml:3:16: `max_parallel` in [offload] must be at least 1, found 0",
            "o.toml:4:1: unknown key `test_timeout` in [offload], did you mean `test_timeout_secs`?",
            "o.toml:6:8: unknown type `locall` in [provider], did you mean `local`?",
            "o.toml:10:1: unknown key `comand` in [framework], did you mean `command`?",
            "o.toml:11:17: `paths[1]` in [framework] must be a string, found an integer",
            "o.toml:11:20: `paths[2]` in [framework] uses the variable `NO`, which is not set",
            "o.toml:13:3: unknown key `retry_cuont` in [groups.all], did you mean `retry_count`?",
            "o.toml:14:2: unknown table [reprt], did you mean `report`?",
        ]
    );
    let list = parse(text).unwrap_err().list;
    let keys: Vec<_> = list.iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys[4..6], ["framework.comand", "framework.paths[1]"]);
    assert_eq!((keys[7], list[7].nearest.as_deref()), ("groups.all.retry_cuont", Some("retry_count")));
}

#[test]
fn missing_tables_and_keys_are_named() {
    assert_eq!(
        mistakes(""),
        [
            "o.toml:1:1: missing table [provider]",
            "o.toml:1:1: missing table [framework]",
            "o.toml:1:1: missing table [groups]",
        ]
    );
    assert_eq!(
        mistakes("[provider]\ntype = \"default\"\n[framework]\ntype = \"default\"\n[groups]\n"),
        [
            "o.toml:1:1: missing key `create_command` in [provider]",
            "o.toml:1:1: missing key `exec_command` in [provider]",
            "o.toml:1:1: missing key `destroy_command` in [provider]",
            "o.toml:3:1: missing key `discover_command` in [framework]",
            "o.toml:3:1: missing key `run_command` in [framework]",
            "o.toml:3:1: missing key `test_id_format` in [framework]",
            "o.toml:5:1: `groups` must contain at least one group, e.g. [groups.all]",
        ]
    );
    assert_eq!(mistake(&format!("{LEAST}[checkpoint]\n")), "missing key `build_inputs` in [checkpoint]");
    assert_eq!(mistake(&LEAST.replace("type = \"local\"\n", "")), "missing key `type` in [provider]");
}

#[test]
fn numbers_out_of_range_are_rejected() {
    let offload = |line: &str| mistake(&format!("[offload]\n{line}\n{LEAST}"));
    let timeout = "`test_timeout_secs` in [offload] must be";
    let parallel = "`max_parallel` in [offload] must be";
    for (line, expected) in [
        ("max_parallel = -1", format!("{parallel} at least 1, found -1")),
        ("max_parallel = \"4\"", format!("{parallel} an integer, found a string")),
        ("test_timeout_secs = 0", format!("{timeout} at least 1, found 0")),
        ("test_timeout_secs = 9223372036854775807", format!("{timeout} at most 4294967295")),
        ("test_timeout_secs = 99999999999999999999", format!("{timeout} at most 4294967295")),
        ("test_timeout_secs = 1.5", format!("{timeout} an integer, found a float")),
    ] {
        assert_eq!(offload(line), expected);
    }
    assert_eq!(valid(&format!("[offload]\nmax_parallel = 0x1_0\n{LEAST}")).offload.max_parallel, 16);

    let history = |line: &str| mistake(&format!("{LEAST}[history]\n{line}\n"));
    assert_eq!(history("reservoir_size = 0"), "`reservoir_size` in [history] must be at least 1, found 0");
    let duration = "`default_duration_secs` in [history]";
    for (value, shown) in [("-0.5", "-0.5"), ("nan", "NaN"), ("inf", "inf"), ("-1", "-1")] {
        let expected = format!("{duration} must be a finite number of at least 0, found {shown}");
        assert_eq!(history(&format!("default_duration_secs = {value}")), expected);
    }
    assert_eq!(history("default_duration_secs = 1e300"), format!("{duration} is too large"));
    assert_eq!(
        history("record_history = \"sometimes\""),
        "unknown record_history `sometimes` in [history], expected one of `always`, `flag`"
    );
    let modal = LEAST.replace("\"local\"", "\"modal\"\ncpu_cores = 2\nmemory_gb = 1_0.5");
    let Provider::Modal(modal) = valid(&modal).provider else { panic!() };
    assert_eq!((modal.cpu_cores, modal.memory_gb), (2.0, Some(10.5)));
    // So slow that the time between two creates would be no duration.
    for slow in ["0", "1e-300"] {
        let modal = LEAST.replace("\"local\"", &format!("\"modal\"\ncreates_per_second = {slow}"));
        let expected = "`creates_per_second` in [provider] must be at least 0.001";
        assert_eq!(mistake(&modal), expected);
    }
    let life = |seconds| LEAST.replace("\"local\"", &format!("\"modal\"\nsandbox_timeout_secs = {seconds}"));
    valid(&life(86_400));
    assert!(mistake(&life(86_401)).contains("must be at most 86400"));
}

#[test]
fn texts_of_the_wrong_form_are_rejected() {
    let framework = |line: &str| mistake(&LEAST.replace("\"pytest\"", &format!("\"pytest\"\n{line}")));
    for key in ["command", "run_args", "discovery_args"] {
        let expected = format!("`{key}` in [framework] has an unclosed quote");
        assert_eq!(framework(&format!("{key} = \"a 'b\"")), expected);
    }
    for (line, expected) in [
        ("command = \" \"", "`command` in [framework] must not be empty"),
        ("command = \"a\\u0000b\"", "`command` in [framework] must not contain a NUL character"),
        ("command = \"${A:-b\"", "`command` in [framework] has no closing `}` for `${A:-`"),
        ("test_id_format = \"x\"", "`test_id_format` in [framework] must contain `{name}` or `{classname}`"),
        ("env = { A = 1 }", "`A` in [framework.env] must be a string, found an integer"),
        ("env = { \"A=B\" = \"\" }", "`A=B` in [framework.env] is not a valid variable name"),
    ] {
        assert_eq!(framework(line), expected);
    }
    assert_eq!(
        mistake(&format!("{LEAST}filters = \"-m \\\"a\"\n")),
        "`filters` in [groups.all] has an unclosed quote"
    );
    let modal = LEAST.replace("\"local\"", "\"modal\"\ncopy_dirs = [\"a:/b\", \"a\", \":b\"]");
    let modal = mistakes(&modal);
    assert_eq!(modal.len(), 2);
    assert!(modal.iter().all(|one| one.ends_with("in [provider] must have the form `local:remote`")));
}

#[test]
fn report_settings_of_the_wrong_form_are_rejected() {
    let report = |line: &str| mistake(&format!("{LEAST}[report]\n{line}\n"));
    for name in ["a/b.xml", "..", "/x", "a/"] {
        let expected = "`junit_file` in [report] must be a file name without a directory";
        assert_eq!(report(&format!("junit_file = \"{name}\"")), expected);
    }
    assert_eq!(
        report("download_globs = [\"*.png\", \"a[\"]"),
        "`download_globs[1]` in [report] is not a glob pattern: invalid range pattern at position 1"
    );
    assert_eq!(report("output_dir = \"\""), "`output_dir` in [report] must not be empty");
}

#[test]
fn groups_that_are_not_tables_are_rejected() {
    let groups = |line: &str| mistake(&LEAST.replace("[groups.all]", line));
    assert_eq!(groups("[[groups]]"), "`groups` must be a table, found an array");
    assert_eq!(
        groups("[groups]\nretry_count = 1"),
        "`retry_count` in [groups] must be a table, found an integer"
    );
}

#[test]
fn placeholders_must_fit_the_rest() {
    let no_image = PYTEST_COMMANDS.replacen("prepare_command", "# prepare_command", 1);
    assert_eq!(
        mistake(&no_image),
        "`create_command` in [provider] contains `{image_id}`, but no `prepare_command` creates an image"
    );
    for (key, place) in [("exec_command", "{command}"), ("download_command", "{paths}")] {
        let told = mistake(&PYTEST_COMMANDS.replacen(place, "it", 1));
        assert!(told.starts_with(&format!("`{key}` in [provider] must contain `{place}`")), "{told}");
    }
    let sweep = PYTEST_COMMANDS.replacen("create_command", "sweep_command = \"x\"\ncreate_command", 1);
    let told = mistake(&sweep);
    assert!(told.starts_with("`sweep_command` in [provider] must contain `{run_name}`"), "{told}");
    let patched = no_image.replacen("create {image_id}", "create", 1) + "\n";
    let patched = patched.replacen("create_command", "patch_command = \"x\"\ncreate_command", 1);
    assert_eq!(
        mistake(&patched),
        "`patch_command` in [provider] requires a `prepare_command` that creates the image to patch"
    );
    let custom = |provider: &str, parallel: u32, list: &str, run: &str| {
        format!(
            "[offload]\nmax_parallel = {parallel}\n[provider]\ntype = \"{provider}\"\n[framework]\n\
             type = \"default\"\ndiscover_command = \"{list}\"\nrun_command = \"{run}\"\n\
             result_file = \"r.xml\"\ntest_id_format = \"{{name}}\"\n[groups.all]\nfilters = \"it's\"\n"
        )
    };
    assert_eq!(
        mistake(&custom("local", 2, "ls", "x {result_file}")),
        "`discover_command` in [framework] must contain `{filters}`"
    );
    let shared = mistakes(&custom("local", 2, "ls {filters}", "x"));
    assert_eq!(shared.len(), 1);
    let expected = "o.toml:8:15: `run_command` in [framework] must contain `{result_file}`, ";
    assert!(shared[0].starts_with(expected), "{shared:?}");
    valid(&custom("local", 2, "ls {filters}", "x {result_file}"));
    valid(&custom("modal", 2, "ls {filters}", "x"));
    let mut alone = valid(&custom("local", 1, "ls {filters}", "x"));
    assert!(!alone.shares_result_file());
    alone.offload.max_parallel = 2;
    assert!(alone.shares_result_file());
}

#[test]
fn tests_are_kept_together_only_by_what_is_known_of_them() {
    let group = |lines: &str| mistake(&format!("{LEAST}{lines}"));
    let key = "`keep_together` in [groups.all]";
    assert_eq!(
        group("keep_together = \"suite\""),
        "unknown keep_together `suite` in [groups.all], expected one of `test`, `class`, `file`"
    );
    assert_eq!(
        group("keep_together = \"file\"\nschedule_individual = true"),
        format!("{key} must be `test` beside `schedule_individual = true`")
    );
    let custom = "type = \"default\"\ndiscover_command = \"d {filters}\"\nrun_command = \"r {tests}\"\n\
                  test_id_format = \"{name}\"";
    let custom =
        |kept: &str| format!("{}keep_together = \"{kept}\"\n", LEAST.replace("type = \"pytest\"", custom));
    assert_eq!(
        mistake(&custom("class")),
        format!("{key} must be `test`: of tests of type `default` no class or file is known")
    );
    let kept = |text: &str| valid(text).groups[0].keep_together;
    assert_eq!(kept(&custom("test")), KeepTogether::Test);
    assert_eq!(kept(LEAST), KeepTogether::Test);
    assert_eq!(kept(&format!("{LEAST}keep_together = \"class\"")), KeepTogether::Class);
}
