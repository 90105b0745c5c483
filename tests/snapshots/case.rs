//! A scratch project, what the program prints in it, and the snapshot to compare that with.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use regex_lite::Regex;
use tempfile::TempDir;
use wait_timeout::ChildExt;

/// Long enough for a busy machine, short enough to end a hang.
const DEADLINE: Duration = Duration::from_secs(120);

/// Writes JUnit to its first argument for the tests named by the others, which do what their names say.
const RUNNER: &str = r#"
out=$1; shift
code=0
body=
for id; do
    case $id in
    fail*) body="$body<testcase name='$id'><failure message='expected 2, got 3'/></testcase>"; code=1
        echo "checking $id" ;;
    error*) body="$body<testcase name='$id'><error message='no database'/></testcase>"; code=1 ;;
    skip*) body="$body<testcase name='$id'><skipped/></testcase>" ;;
    xfail*) body="$body<testcase name='$id'><skipped type='pytest.xfail'/></testcase>" ;;
    rename*) body="$body<testcase name='other $id'/>" ;;
    nameless*) body="$body<testcase classname='Setup'/>" ;;
    flaky*)
        if mkdir "seen-$id" 2>/dev/null; then
            body="$body<testcase name='$id'><failure message='connection reset'/></testcase>"; code=1
        else
            body="$body<testcase name='$id'/>"
        fi ;;
    crash*) echo "fatal: $id crashed" >&2; exit 70 ;;
    break*) if mkdir "seen-$id" 2>/dev/null; then echo 'out of memory' >&2; exit 70; fi
        body="$body<testcase name='$id'/>" ;;
    hang*) echo 'waiting for the lock'; exec sleep 600 ;;
    hold*) while [ ! -e go ]; do sleep 0.05; done; body="$body<testcase name='$id'/>" ;;
    leak*) sleep 600 & body="$body<testcase name='$id'/>" ;;
    threshold*) echo 'coverage of 71% is below 80%' >&2; code=3; body="$body<testcase name='$id'/>" ;;
    extra*) body="$body<testcase name='$id'/><testcase name='setup'><error message='no disk'/></testcase>"
        code=1 ;;
    *) body="$body<testcase name='$id'/>" ;;
    esac
done
printf '<testsuite>%s</testsuite>' "$body" > "$out"
exit $code
"#;

/// A directory in which the program runs; removed when dropped.
pub struct Case {
    directory: TempDir,
    env: Vec<(String, String)>,
}

impl Case {
    /// An empty directory.
    pub fn empty() -> Case {
        Case { directory: TempDir::with_prefix("offload-snapshots-").unwrap(), env: Vec::new() }
    }

    /// A project whose runner has these tests; `groups` is the text of its groups, `more` is added.
    pub fn tests(tests: &[&str], groups: &str, more: &str) -> Case {
        let config = format!(
            r#"[provider]
type = "local"

[framework]
type = "default"
discover_command = "cat list # {{filters}}"
run_command = "sh runner {{result_file}} {{tests}}"
result_file = "junit.xml"
test_id_format = "{{name}}"

{groups}

{more}
"#
        );
        let list: String = tests.iter().map(|test| format!("{test}\n")).collect();
        Case::empty().file("runner", RUNNER).file("list", &list).file("offload.toml", &config)
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file.
    #[must_use]
    pub fn file(self, path: &str, text: &str) -> Case {
        let target = self.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, text).unwrap();
        self
    }

    /// Replaces a text of the configuration.
    #[must_use]
    pub fn replaced(self, old: &str, new: &str) -> Case {
        let config = fs::read_to_string(self.path().join("offload.toml")).unwrap();
        assert!(config.contains(old), "{config}");
        let config = config.replace(old, new);
        self.file("offload.toml", &config)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Case {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `program` in the project, with nothing of the environment but PATH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.path().join("home"));
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CEILING_DIRECTORIES", std::env::temp_dir());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program, and gives its command line, exit code, and streams as one text.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let mut command = self.command(env!("CARGO_BIN_EXE_offload"));
        let streams = TempDir::new().unwrap();
        let stream = |name: &str| Stdio::from(File::create(streams.path().join(name)).unwrap());
        command.args(arguments).stdin(Stdio::null()).stdout(stream("stdout")).stderr(stream("stderr"));
        let mut child = command.process_group(0).spawn().unwrap();
        let Some(status) = child.wait_timeout(DEADLINE).unwrap() else {
            killpg(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGKILL).unwrap();
            panic!("still running: {command:?}");
        };
        let quoted = arguments.iter().map(|argument| shell_words::quote(argument));
        let line = quoted.collect::<Vec<_>>().join(" ");
        let mut text = format!("$ offload {line}\n[exit code {}]\n", status.code().unwrap());
        for name in ["stdout", "stderr"] {
            let printed = fs::read(streams.path().join(name)).unwrap();
            let printed = String::from_utf8(printed).unwrap();
            if !printed.is_empty() {
                text += &format!("--- {name}\n{printed}");
            }
        }
        self.settled(&text)
    }

    /// `text` without what varies from run to run.
    pub fn settled(&self, text: &str) -> String {
        let root = self.path().canonicalize().unwrap();
        let mut text = text.replace(&*root.to_string_lossy(), "[ROOT]");
        text = text.replace(&*self.path().to_string_lossy(), "[ROOT]");
        for (pattern, to) in [
            // Plain progress appears only where a run takes long.
            (r"(?m)^offload: \d+ of \d+ tests done.*\n", ""),
            (r"\b\d+(\.\d+)? s\b", "[TIME] s"),
            (r"\([+-]\d+%\)", "([PERCENT])"),
            (r"offload \d+\.\d+\.\d+", "offload [VERSION]"),
            // In which order batches run again is not for these tests.
            (r"\bbatch(-| )\d+", "batch$1[N]"),
            (r"\bbatches \d+(, \d+)*", "batches [N]"),
            // Shells differ in their words.
            (r"/bin/sh: (line )?\d+: (\S+): (command )?not found", "/bin/sh: $2: not found"),
        ] {
            text = Regex::new(pattern).unwrap().replace_all(&text, to).into_owned();
        }
        text
    }
}

/// Compares with the snapshot `name`.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    let expected = snapbox::Data::read_from(&path, None);
    snapbox::Assert::new().action_env("SNAPSHOTS").eq(text, expected);
}
