//! Values that come into commands: whatever they hold, the command gets them as they are, and no shell
//! takes anything in them for its own. Each goes through the real shell of a whole run.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::remote::{calls, nothing_left, remote};
use crate::runner::configured;
use crate::support::Project;

/// What shells, `printf`, globs and our own places take for something else.
const PIECES: [&str; 40] = [
    "a",
    "é",
    "日本",
    "😀",
    " ",
    "  ",
    "'",
    "\"",
    "\\",
    "\\\\",
    "`touch pwned`",
    "$(touch pwned)",
    "$HOME",
    "${HOME}",
    "$$",
    "; touch pwned;",
    "'; touch pwned; '",
    "\"; touch pwned; \"",
    "| touch pwned",
    "&& touch pwned",
    "& touch pwned &",
    "> pwned",
    "\\'; touch pwned #",
    "-rf",
    "--",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "~",
    "!",
    "#",
    "%s%n",
    "{command}",
    "{tests}",
    "{result_file}",
    "{sandbox_id}",
    "{image_id}",
    "@directory_sandbox.sh",
    "\t",
];

/// So many different strings of these pieces, none with a space at an end; the same for the same seed.
fn nasty(count: usize, mut seed: u64) -> Vec<String> {
    let mut below = |most: usize| {
        // xorshift (Marsaglia 2003).
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % most as u64) as usize
    };
    let mut all = BTreeSet::new();
    all.extend(PIECES.iter().map(|piece| piece.trim()).filter(|piece| !piece.is_empty()).map(str::to_owned));
    while all.len() < count {
        let length = 1 + below(4);
        let text: String = (0..length).map(|_| PIECES[below(PIECES.len())]).collect();
        if !text.trim().is_empty() {
            all.insert(text.trim().to_owned());
        }
    }
    all.into_iter().take(count.max(PIECES.len())).collect()
}

/// A list of tests has comments, which begin so.
fn ids(count: usize, seed: u64) -> Vec<String> {
    nasty(count, seed).into_iter().filter(|text| !text.starts_with('#')).collect()
}

/// Writes down each id with a NUL, and reports it with the outcome that `body` gives.
fn noting(body: &str) -> String {
    format!(
        "out=$1; shift; printf '%s\\0' \"$@\" >> seen; tab=$(printf '\\t'); {{ echo '<testsuite>'; \
         for id; do printf '%s\\n' \"$id\"; done | sed \"s/&/\\&amp;/g; s/</\\&lt;/g; s/\\\"/\\&quot;/g; \
         s/$tab/\\&#9;/g; s/.*/<testcase name=\\\"&\\\">{body}<\\/testcase>/\"; echo '</testsuite>'; }} > \"$out\""
    )
}

/// What a command wrote down, words with a NUL behind each.
fn seen(project: &Project, name: &str) -> Vec<String> {
    let bytes = fs::read(project.path().join(name)).unwrap();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect()
}

#[track_caller]
fn harmless(project: &Project) {
    assert!(!project.path().join("pwned").exists(), "a shell ran what was in a value");
}

fn words(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// The same project whose exec needs a shell of its own.
fn with_shell(project: Project) -> Project {
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let of_shell = config.replace("\"sh provider ", "\"cd . && sh provider ");
    assert_ne!(config, of_shell);
    project.config(&of_shell)
}

/// A basic string of TOML in which nothing is expanded.
fn toml(text: &str) -> String {
    serde_json::to_string(&text.replace("${", "$${")).unwrap()
}

#[test]
fn ids_of_tests_reach_runners_as_they_are() {
    let tests = ids(400, 1);
    let list = words(&tests);
    let of = |groups: &str| remote(&list, groups, "", "");
    for project in [configured(&list, "[groups.all]", ""), of("[groups.all]"), with_shell(of("[groups.all]"))]
    {
        let project = project.file("runner", &noting(""));
        let outcome = project.offload(&["run"]).expect_code(0);
        let told = format!("{0} tests: {0} passed", tests.len());
        assert!(outcome.stdout.contains(&told), "{}", outcome.stdout);
        let mut seen = seen(&project, "seen");
        seen.sort();
        assert_eq!(seen, tests);
        harmless(&project);
    }
}

#[test]
fn the_command_that_runs_failed_tests_again_names_the_same_tests() {
    let all = ids(120, 2);
    for tests in all.chunks(20) {
        let project = configured(&words(tests), "[groups.all]", "").file("runner", &noting("<failure\\/>"));
        let outcome = project.offload(&["run", "--parallel", "1"]).expect_code(1);
        fs::remove_file(project.path().join("seen")).unwrap();
        let again = outcome.stdout.lines().filter_map(|line| line.strip_prefix("run again: "));
        let again: Vec<&str> = again.collect();
        assert_eq!(again.len(), 1, "{}", outcome.stdout);
        assert!(project.command("sh").args(["-c", again[0]]).status().unwrap().success(), "{}", again[0]);
        assert_eq!(seen(&project, "seen"), tests);
        harmless(&project);
    }
}

#[test]
fn values_of_variables_reach_tests_as_they_are() {
    let mut values = nasty(300, 3);
    values.extend(values.clone().iter().step_by(5).map(|value| format!("{value}\n'{value}")));
    let pairs: Vec<String> =
        values.iter().enumerate().map(|(number, value)| format!("V{number} = {}", toml(value))).collect();
    let env = format!("env = {{ {} }}", pairs.join(", "));
    let runner =
        "env -0 | grep -z '^V[0-9]' > seen; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"";
    let of = || remote(&["a"], "[groups.all]", &env, "");
    for project in [configured(&["a"], "[groups.all]", &env), of(), with_shell(of())] {
        let project = project.file("runner", runner);
        project.offload(&["run"]).expect_code(0);
        let mut seen = seen(&project, "seen");
        seen.sort();
        let pairs = values.iter().enumerate().map(|(number, value)| format!("V{number}={value}"));
        let mut pairs: Vec<String> = pairs.collect();
        pairs.sort();
        assert_eq!(seen, pairs);
        harmless(&project);
    }
}

/// Ids come from the file `ids`, a line each; all commands write down what they get.
const NAMED: &str = r#"
kind=$1; shift
printf '%s\0' "$1" >> "seen-$kind"
case $kind in
prepare) sed -n 1p ids ;;
create) while :; do n=$(ls n | wc -l); n=$((n + 1)); mkdir "n/$n" 2>/dev/null && break; done; sed -n "${n}p" ids ;;
exec) exec sh -c "$2" ;;
download) shift; for pair; do cp "${pair%%:*}" "${pair#*:}"; done ;;
esac
"#;

#[test]
fn ids_of_images_and_sandboxes_reach_commands_as_they_are() {
    const AT_ONCE: usize = 30;
    let tests: Vec<String> = (0..AT_ONCE).map(|number| format!("test {number}")).collect();
    let more = "prepare_command = \"sh provider prepare\"\n\
                download_command = \"sh provider download {sandbox_id} {paths}\"";
    let all = nasty(90, 4);
    for (round, names) in all.chunks(AT_ONCE).enumerate() {
        let project = remote(&words(&tests), "[groups.all]\nschedule_individual = true", more, "");
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let project = project.config(&config.replace("provider create\"", "provider create {image_id}\""));
        let project = if round % 2 == 0 { project } else { with_shell(project) };
        let runner = format!(
            "until [ \"$(ls n | wc -l)\" -ge {} ]; do sleep 0.1; done; sleep 0.2; \
             printf '<testsuite><testcase name=\"%s\"/></testsuite>' \"$2\" > \"$1\"",
            names.len()
        );
        let project = project.file("provider", NAMED).file("ids", &(names.join("\n") + "\n"));
        let project = project.file("n/.keep", "").file("runner", &runner);
        project.offload(&["run", "--parallel", &names.len().to_string()]).expect_code(0);
        assert!(seen(&project, "seen-create").iter().all(|id| *id == names[0]));
        // One that is in the making when all is done may be ended before it has said its name.
        let destroyed = seen(&project, "seen-destroy");
        assert!(destroyed.len() + 3 >= names.len() && destroyed.iter().all(|id| names.contains(id)));
        for kind in ["seen-exec", "seen-download"] {
            assert!(seen(&project, kind).iter().all(|id| destroyed.contains(id)), "{kind}");
        }
        harmless(&project);
    }
}

#[test]
fn folders_to_copy_and_inits_reach_the_command_that_makes_an_image() {
    let names: Vec<String> =
        nasty(200, 5).into_iter().filter(|name| !name.contains([':', '/']) && name != "-").collect();
    let pairs: Vec<String> = names.iter().map(|name| format!("{name}:/{name}")).collect();
    let more = format!(
        "prepare_command = \"sh provider prepare\"\ncopy_dirs = [{}]",
        pairs.iter().map(|pair| toml(pair)).collect::<Vec<_>>().join(", ")
    );
    let init = format!("true {}", names.join("\n"));
    let rest = format!("sandbox_init_cmd = {}", toml(&init));
    let project = remote(&["a"], "[groups.all]", &more, &rest)
        .file(
            "provider",
            "kind=$1; shift; printf '%s\\0' \"$@\" >> seen-$kind; echo id; [ $kind != exec ] || sh -c \"$2\"",
        )
        .file("runner", "printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"");
    for name in &names {
        fs::create_dir(project.path().join(name)).unwrap();
    }
    project.offload(&["run"]).expect_code(0);
    let mut wanted: Vec<String> = pairs.iter().map(|pair| format!("--copy-dir={pair}")).collect();
    wanted.push(format!("--sandbox-init-cmd={init}"));
    assert_eq!(seen(&project, "seen-prepare"), wanted);
    harmless(&project);
}

#[test]
fn roots_and_folders_reach_the_shell_of_a_sandbox_as_they_are() {
    for name in nasty(40, 6).iter().filter(|name| !name.contains('/')) {
        let project = remote(&["a"], "[groups.all]", "", "")
            .file("runner", "pwd > seen; printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$1\"");
        let root = project.path().join(name);
        fs::create_dir(&root).unwrap();
        fs::copy(project.path().join("runner"), root.join("runner")).unwrap();
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let own = format!("sandbox_repo_root = \"{}\"", project.path().display());
        let new = format!("sandbox_repo_root = {}", toml(&root.display().to_string()));
        assert!(config.contains(&own));
        let project = project.config(&config.replace(&own, &new));
        project.offload(&["run"]).expect_code(0);
        assert_eq!(fs::read_to_string(root.join("seen")).unwrap(), format!("{}\n", root.display()));
        harmless(&project);
    }
}

#[test]
fn names_and_patterns_of_downloads_are_no_shell_text() {
    let names: Vec<String> = nasty(200, 7).into_iter().filter(|name| !name.contains('/')).collect();
    let runner = "out=$1; mkdir shots; while IFS= read -r name; do printf '%s' \"$name\" > \"shots/$name\"; \
                  mkdir \"in $name\"; echo > \"in $name/x\"; done < names; \
                  printf '<testsuite><testcase name=\"a\"/></testsuite>' > \"$out\"";
    let plain = |name: &&String| !name.contains(['*', '?', '[', ']', '\\']);
    let directories: Vec<String> =
        names.iter().filter(plain).map(|name| toml(&format!("in {name}/x"))).collect();
    let globs = format!("[report]\ndownload_globs = [\"shots/*\", {}]", directories.join(", "));
    let download = "download_command = \"sh provider download {sandbox_id} {paths}\"";
    for project in [remote(&["a"], "[groups.all]", "", ""), remote(&["a"], "[groups.all]", download, "")] {
        let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
        let project = project.config(&config.replace("[report]", &globs));
        let project = project.file("runner", runner).file("names", &(names.join("\n") + "\n"));
        let outcome = project.offload(&["run"]).expect_code(0);
        assert!(!outcome.stderr.contains("warn"), "{}", outcome.stderr);
        let directory = project.path().join("test-results/downloads/batch-0");
        for name in &names {
            let content =
                fs::read_to_string(directory.join("shots").join(name)).unwrap_or_else(|_| panic!("{name}"));
            assert_eq!(content, *name);
        }
        for name in names.iter().filter(plain) {
            assert!(directory.join(format!("in {name}/x")).exists(), "{name}");
        }
        harmless(&project);
        nothing_left(&project);
    }
}

#[test]
fn a_configuration_file_of_any_name_can_be_used_and_cleaned_up() {
    for name in ["a b.toml", "$(touch pwned).toml", "'; touch pwned; '.toml", "-c.toml", "`touch pwned`"] {
        let project = remote(&["pass 1"], "[groups.all]", "", "");
        fs::rename(project.path().join("offload.toml"), project.path().join(name)).unwrap();
        let mut command: Command = project.command(env!("CARGO_BIN_EXE_offload"));
        let done = command.arg(format!("--config={name}")).arg("run").output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(calls(&project, "create").len(), 1);
        harmless(&project);
        nothing_left(&project);
    }
}
