//! A home-made runner whose tests do what their names say, and configurations for it.

use crate::support::Project;

/// Writes JUnit to its first argument, for tests whose ids are the others. Each test it starts is
/// added to `ran`. `UNIQUE` is in the command line of whatever it starts itself.
const RUNNER: &str = r#"
out=$1; shift
code=0
body=
for id; do
    echo "$id" >> ran
    echo "running $id"
    case $id in
    fail*) body="$body<testcase name='$id' time='0.01'><failure message='as told'/></testcase>"; code=1 ;;
    error*) body="$body<testcase name='$id' time='0.01'><error message='as told'/></testcase>"; code=1 ;;
    skip*) body="$body<testcase name='$id' time='0'><skipped/></testcase>" ;;
    negative*) body="$body<testcase name='$id' time='-3'/>" ;;
    rename*) body="$body<testcase name='other $id' time='0'/>" ;;
    flaky*)
        if mkdir "seen-$id" 2>/dev/null; then
            body="$body<testcase name='$id'><failure message='the first time'/></testcase>"; code=1
        else
            body="$body<testcase name='$id' time='0.01'/>"
        fi ;;
    kill*) kill -9 $$ ;;
    hang*) sh -c 'sleep 600; : $0' "$UNIQUE" ;;
    leak*) sh -c 'sleep 600; : $0' "$UNIQUE" & body="$body<testcase name='$id'/>" ;;
    secret*) printf %s "the value is $(printf %.4s "$TOKEN")"; sleep 0.1; printf '%s\n' "${TOKEN#????}"
        echo "$TOKEN" >&2
        body="$body<testcase name='$id'><failure message='$TOKEN'>$TOKEN</failure></testcase>"; code=1 ;;
    silent*) ;;
    three*) code=3; body="$body<testcase name='$id'/>" ;;
    empty*) : > "$out"; exit 0 ;;
    cut*) printf '<testsuite><testcase name="pass' > "$out"; exit 0 ;;
    binary*) printf '\377\376\000garbage\377' > "$out"; exit 1 ;;
    *) body="$body<testcase name='$id' time='0.01'/>" ;;
    esac
done
printf '<testsuite>%s</testsuite>' "$body" > "$out"
exit $code
"#;

/// A project with these tests; `more` is added to its configuration.
pub fn project(tests: &[&str], more: &str) -> Project {
    configured(tests, "[groups.all]", more)
}

/// The same with other groups.
pub fn configured(tests: &[&str], groups: &str, more: &str) -> Project {
    let list = tests.join("\n") + "\n";
    let config = format!(
        r#"
[framework]
type = "default"
discover_command = "cat list # {{filters}}"
run_command = "sh runner {{result_file}} {{tests}}"
result_file = "junit.xml"
test_id_format = "{{name}}"
{groups}
[report]
[provider]
type = "local"
{more}
"#
    );
    Project::new().file("runner", RUNNER).file("list", &list).config(&config)
}

/// How often each test was started, as `name:times` in order of names.
pub fn ran(project: &Project) -> Vec<String> {
    let text = std::fs::read_to_string(project.path().join("ran")).unwrap_or_default();
    let mut names: Vec<&str> = text.lines().collect();
    names.sort_unstable();
    names.chunk_by(|one, other| one == other).map(|same| format!("{}:{}", same[0], same.len())).collect()
}
