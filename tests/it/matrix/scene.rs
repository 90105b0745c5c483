//! The project of a row: a suite of a handful of tests, the last of which fails, and programs that do the
//! row's fault where they find a file `on-STEP`.

use std::fs;
use std::path::{Path, PathBuf};

use super::row::{Disk, Fault, Framework, Provider, Row, Step};
use crate::support::{Emulator, Outcome, Project, Running, nextest, python, vitest};

/// Logs what it makes and destroys. A sandbox is a file in `live`; all share the directory of the project.
const PROVIDER: &str = r#"
kind=$1; shift
mkdir -p n live
n=1; while ! mkdir "n/$kind-$n" 2>/dev/null; do n=$((n + 1)); done
case $kind in prepare) id=im-$n ;; create) id=${2:-sb-$n} ;; *) id=$1 ;; esac
if [ -f "on-$kind" ]; then . "./on-$kind"; fi
case $kind in
prepare) echo "$id" ;;
sweep) for box in live/"$id"-*; do
    if [ -f "$box" ]; then echo "destroy ${box##*/}" >> calls; rm "$box"; echo "${box##*/}"; fi
done ;;
create) : > "live/$id"; echo "create $id" >> calls; echo "$OFFLOAD_RUN_ID" >> runs; echo "$id" ;;
exec) if [ ! -f "live/$id" ]; then echo "no such sandbox" >&2; exit 1; fi; exec sh -c "$2" ;;
destroy) if [ -f "live/$id" ]; then echo "destroy $id" >> calls; rm "live/$id"; fi ;;
download) shift; for pair; do cp "${pair%%:*}" "${pair#*:}"; done ;;
esac
"#;

/// Lists the tests, or runs those that it is given.
const CUSTOM: &str = r#"
if [ "$1" = list ]; then
    if [ -f on-discovery ]; then . ./on-discovery; fi
    printf '%s\n' 'pass 1' 'pass 2' 'pass 3' 'pass 4' 'fails'
    exit
fi
report=$1; shift
if [ -f on-run ]; then . ./on-run; fi
code=0
body=
for id; do
    if [ -f pace ]; then sleep "$(cat pace)"; fi
    case $id in
    fails) body="$body<testcase name='$id'><failure message='as told'/></testcase>"; code=1 ;;
    *) body="$body<testcase name='$id' time='0.01'/>" ;;
    esac
done
printf '<testsuite>%s</testsuite>' "$body" > "$report"
if [ -f on-report ]; then . ./on-report; fi
exit $code
"#;

/// Stands before a real tool, REAL. What it is asked for can be told by its arguments.
const WRAPPER: &str = r#"
step=discovery
report=
tool=
for word; do
    case $word in
    --junitxml=*|--outputFile=*) step=run; report=${word#*=} ;;
    --tool-config-file=*) tool=${word#*offload:} ;;
    esac
done
case "$0 $1 $2" in
*/cargo\ nextest\ list) ;;
*/cargo\ nextest\ run) step=run; report=$(sed -n 's/^path = "\(.*\)"$/\1/p' "$tool") ;;
*/cargo\ *) exec REAL "$@" ;;
esac
if [ -f "on-$step" ]; then . "./on-$step"; fi
if [ $step = discovery ] || [ ! -f on-report ]; then exec REAL "$@"; fi
REAL "$@"
code=$?
. ./on-report
exit $code
"#;

/// Runs the program with a disk of its own at `$place`, which has 32 KiB of room, or none; then what is
/// worth keeping is copied off it. A mended disk lets `gc` do what is left.
const SMALL_DISK: &str = r#"
mkdir -p "$place" && mount -t tmpfs -o size=32k none "$place" || exit 99
if [ "$when" = Always ]; then head -c 40000 /dev/zero > "$place/full" 2>/dev/null; fi
"$0" run
code=$?
rm -f "$place/full"
if [ -f "$place/junit.xml" ]; then cp "$place/junit.xml" kept.xml; fi
if [ "$disk" = Journal ]; then "$0" gc > /dev/null || exit 98; ls -A "$place/runs" > left; fi
if [ "$disk" = Temporary ]; then ls -A "$place" > left; fi
exit $code
"#;

/// The command of a sandbox whose `/tmp` is full; the project stays where it is.
const SMALL_SANDBOX: &str = r#"
exec unshare --mount --map-root-user sh -c '
here=$PWD
mount --bind "$here" /mnt && mount -t tmpfs -o size=32k none /tmp && mkdir -p "$here" &&
mount --bind /mnt "$here" && cd "$here" || exit 99
if [ WHEN = Always ]; then head -c 40000 /dev/zero > /tmp/full 2>/dev/null; else head -c 20000 /dev/zero > /tmp/full; fi
exec sh -c "$0"' "$2"
"#;

const DOCKERFILE: &str = "FROM python:3.12\nWORKDIR /app\n";

/// A project, what serves it, and what is expected of its tests.
pub struct Scene {
    pub row: Row,
    pub project: Project,
    pub emulator: Option<Emulator>,
    /// In the environment or the arguments of all that the run starts.
    pub unique: String,
}

impl Scene {
    /// `None` where a tool cannot be had.
    pub fn new(row: Row, unique: String) -> Option<Scene> {
        let emulator = if row.provider == Provider::Modal { Some(Emulator::start()?) } else { None };
        let framework = suite(row.framework, Project::new())?;
        let (project, framework) = framework;
        let mut project = project.file("provider", PROVIDER).env("MATRIX_ROW", &unique);
        let config = config(&row, &project, &framework, &unique);
        project = project.config(&config).file("Dockerfile", &dockerfile(&row));
        fs::write(project.path().join("garbage"), garbage(&row.to_string())).unwrap();
        let project = match &emulator {
            Some(emulator) => emulator.serve(project),
            None => local_folders(project),
        };
        Some(Scene { row, project, emulator, unique })
    }

    /// Puts the fault where it belongs.
    #[must_use]
    pub fn armed(mut self) -> Scene {
        let row = &self.row;
        let served = self.emulator.as_ref().filter(|_| !row.step.is_in_tests());
        if let Some(emulator) = served {
            if let Some(rules) = row.rules() {
                emulator.faults(&rules);
            }
            return self;
        }
        let (step, script) = match row.disk() {
            Some(Disk::Sandbox) => {
                ("exec".to_owned(), SMALL_SANDBOX.replace("WHEN", &format!("{:?}", row.when)))
            }
            _ => (row.step.name(), row.script(&self.unique)),
        };
        self.project = self.project.file(&format!("on-{step}"), &script);
        self
    }

    /// Takes the fault away.
    pub fn mend(&self) {
        if let Some(emulator) = &self.emulator {
            emulator.faults(&serde_json::json!([]));
        }
        // There is none where the server has it.
        let _ = fs::remove_file(self.project.path().join(format!("on-{}", self.row.step.name())));
    }

    /// Starts a run.
    pub fn start(&self) -> Running {
        let place = match self.row.disk() {
            Some(Disk::Output) => "test-results",
            Some(Disk::Journal) => "state",
            Some(Disk::Temporary) => "tmp",
            _ => return self.project.spawn(&["run"]),
        };
        let mut command = self.project.command("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", SMALL_DISK, env!("CARGO_BIN_EXE_offload")]);
        command.env("place", self.project.path().join(place)).env("when", format!("{:?}", self.row.when));
        command.env("disk", format!("{:?}", self.row.disk().unwrap()));
        Running::start(command)
    }

    /// `offload gc`, as a user would call it afterwards.
    pub fn gc(&self, more: &[&str]) -> Outcome {
        self.project.offload(&[&["gc"], more].concat())
    }

    /// The report, which a disk that is gone has left as a copy.
    pub fn report(&self) -> PathBuf {
        let name = if self.row.disk() == Some(Disk::Output) { "kept.xml" } else { "test-results/junit.xml" };
        self.project.path().join(name)
    }
}

/// The ids of a suite; the last one fails.
pub fn ids(framework: Framework) -> &'static [&'static str] {
    match framework {
        Framework::Custom => &["pass 1", "pass 2", "pass 3", "pass 4", "fails"],
        Framework::Pytest => {
            &["test_a.py::test_one", "test_a.py::test_two", "test_b.py::test_three", "test_b.py::test_fails"]
        }
        Framework::Nextest => {
            &["small tests::one", "small tests::two", "small tests::three", "small tests::fails"]
        }
        Framework::Vitest => {
            &["a.test.js > one", "a.test.js > two", "b.test.js > three", "b.test.js > fails"]
        }
    }
}

/// Bytes that no format knows, the same for each name.
fn garbage(name: &str) -> Vec<u8> {
    let mut state = super::seed_of(name);
    let mut bytes = b"\xff\xfe\x00<x>\x1b[31m\n".to_vec();
    bytes.extend((0..3000).map(|_| super::next(&mut state).to_le_bytes()[0]));
    bytes
}

fn local_folders(project: Project) -> Project {
    let path = |name: &str| project.path().join(name).display().to_string();
    let (state, temporary) = (path("state"), path("tmp"));
    fs::create_dir(&temporary).unwrap();
    project.env("OFFLOAD_STATE_DIR", &state).env("TMPDIR", &temporary)
}

/// Writes the tests; with the table `[framework]`.
fn suite(framework: Framework, project: Project) -> Option<(Project, String)> {
    let wrapped = |project: Project, name: &str, real: &str| {
        project.executable(name, &format!("#!/bin/sh\n{}", WRAPPER.replace("REAL", real)))
    };
    Some(match framework {
        Framework::Custom => (
            project.file("custom", CUSTOM),
            "type = \"default\"\ndiscover_command = \"sh custom list # {filters}\"\n\
             run_command = \"sh custom {result_file} {tests}\"\nresult_file = \"junit.xml\"\n\
             test_id_format = \"{name}\"\n"
                .to_owned(),
        ),
        Framework::Pytest => {
            let project = project
                .file("test_a.py", "def test_one(): pass\ndef test_two(): pass\n")
                .file("test_b.py", "def test_three(): pass\ndef test_fails(): assert 1 == 2, 'as told'\n");
            let real = format!("{} -B -m pytest -p no:cacheprovider", python()?.display());
            (wrapped(project, "tool", &real), "type = \"pytest\"\ncommand = \"sh ./tool\"\n".to_owned())
        }
        Framework::Vitest => {
            let file = |tests: &str| format!("import {{ expect, it }} from 'vitest'\n{tests}");
            let project = project
                .link("node_modules", vitest()?)
                .file("package.json", "{\"type\": \"module\"}")
                .file("a.test.js", &file("it('one', () => {})\nit('two', () => {})\n"))
                .file("b.test.js", &file("it('three', () => {})\nit('fails', () => expect(1).toBe(2))\n"));
            (
                wrapped(project, "tool", "node_modules/.bin/vitest"),
                "type = \"vitest\"\ncommand = \"sh ./tool\"\n".to_owned(),
            )
        }
        Framework::Nextest => {
            let tests = "#[test]\nfn one() {}\n#[test]\nfn two() {}\n#[test]\nfn three() {}\n\
                         #[test]\nfn fails() { panic!(\"as told\") }\n";
            let project = project
                .file("Cargo.toml", "[package]\nname = \"small\"\nversion = \"0.0.0\"\nedition = \"2021\"\n")
                .file("src/lib.rs", &format!("#[cfg(test)]\nmod tests {{\n{tests}}}\n"));
            let project = wrapped(project, "front/cargo", &on_path("cargo").display().to_string());
            let front = project.path().join("front");
            (project.tool(nextest()?).tool(&front), "type = \"nextest\"\n".to_owned())
        }
    })
}

fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file()).unwrap()
}

fn config(row: &Row, project: &Project, framework: &str, unique: &str) -> String {
    let commands = [Step::Prepare, Step::Create, Step::Download, Step::Destroy];
    let timeout = row.limit(&commands);
    let root = |directory: &Path| format!("sandbox_repo_root = \"{}\"\n", directory.display());
    let (provider, root) = match row.provider {
        Provider::Local => ("type = \"local\"\n".to_owned(), String::new()),
        Provider::Default | Provider::Swept => {
            let (name, sweep) = match row.provider {
                Provider::Swept => (" {sandbox_name}", "sweep_command = \"sh provider sweep {run_name}\"\n"),
                _ => ("", ""),
            };
            let download = match row.step {
                Step::Download => "download_command = \"sh provider download {sandbox_id} {paths}\"\n",
                _ => "",
            };
            let commands = format!(
                "type = \"default\"\nprepare_command = \"sh provider prepare\"\n\
                 create_command = \"sh provider create {{image_id}}{name}\"\n\
                 exec_command = \"sh provider exec {{sandbox_id}} {{command}}\"\n\
                 destroy_command = \"sh provider destroy {{sandbox_id}}\"\ntimeout_secs = {timeout}\n{sweep}{download}"
            );
            (commands, root(project.path()))
        }
        Provider::Modal => {
            let table = format!(
                "type = \"modal\"\ndockerfile = \"Dockerfile\"\ninclude_cwd = true\ncreates_per_second = 50\n\
                 timeout_secs = {timeout}\nenv = {{ MATRIX_ROW = \"{unique}\" }}\n"
            );
            (table, root(Path::new("/app")))
        }
    };
    format!(
        "[offload]\nmax_parallel = 2\ndiscovery_timeout_secs = {}\ntest_timeout_secs = {}\n{root}\
         [provider]\n{provider}[framework]\n{framework}[groups.all]\n[report]\n",
        row.limit(&[Step::Discovery]),
        row.limit(&[Step::Exec, Step::Run, Step::Report]),
    )
}

/// Where an image is made by Modal, its steps are what goes wrong.
fn dockerfile(row: &Row) -> String {
    let step = match row.fault {
        _ if row.step != Step::Prepare => "",
        Fault::Fail => "RUN echo no luck && exit 3\n",
        Fault::Hang => "RUN sleep 600\n",
        Fault::Die => "RUN kill -9 $$\n",
        Fault::Garbage => "RUN head -c 3000 /dev/urandom; exit 3\n",
        Fault::Late => "RUN sleep 3\n",
        Fault::FullDisk | Fault::Orphan => "",
    };
    DOCKERFILE.to_owned() + step
}
