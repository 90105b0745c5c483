//! Remote sandboxes by shell commands, with a real provider that logs its calls and does what a test
//! tells it before each of them.

use std::fs;

use crate::runner::configured;
use crate::support::Project;

mod cache;
mod care;
mod faults;
mod image;
mod lost;
mod requirements;
mod signals;
mod unknown;
mod working;

/// Logs `create ID`, `exec ID`, `destroy ID`, … to the file `calls`. What a test puts into a file
/// `on-create` and so on is read first, with `$n`, the number of the call of that kind from 1, and the
/// arguments. A sandbox is nothing but its name: all share the directory of the project.
const PROVIDER: &str = r#"
kind=$1; shift
mkdir -p n
n=1; while ! mkdir "n/$kind-$n" 2>/dev/null; do n=$((n + 1)); done
case $kind in prepare) id=im-$n ;; create) id=sb-$n ;; *) id=$1 ;; esac
if [ -f "on-$kind" ]; then . "./on-$kind"; fi
case $kind in
prepare) printf '%s\n' "prepare $*" >> calls; echo building; echo "$id" ;;
create) echo "create $id" >> calls; echo "$OFFLOAD_RUN_ID" >> runs; echo "warming up"; echo "$id" ;;
exec) echo "exec $id" >> calls; exec sh -c "$2" ;;
destroy) echo "destroy $id" >> calls ;;
sweep) echo "sweep $id" >> calls; for box in live/"$id"-*; do [ ! -f "$box" ] || { rm "$box"; echo "${box##*/}"; }; done ;;
download) shift; for pair; do echo "download $id ${pair##*/}" >> calls; cp "${pair%%:*}" "${pair#*:}"; done ;;
esac
"#;

/// A project with these tests and a provider; `provider` is added to its table, `rest` to the file.
pub fn remote(tests: &[&str], groups: &str, provider: &str, rest: &str) -> Project {
    let project = configured(tests, groups, "").file("provider", PROVIDER);
    let root = project.path().display().to_string();
    let commands = format!(
        "type = \"default\"\n\
         create_command = \"sh provider create\"\n\
         exec_command = \"sh provider exec {{sandbox_id}} {{command}}\"\n\
         destroy_command = \"sh provider destroy {{sandbox_id}}\"\n{provider}\n\
         [offload]\nsandbox_repo_root = \"{root}\"\nmax_parallel = 4\n{rest}\n"
    );
    let config = fs::read_to_string(project.path().join("offload.toml")).unwrap();
    let project = project.config(&config.replace("type = \"local\"", &commands));
    let state = project.path().join("state").display().to_string();
    let temporary = project.path().join("tmp").display().to_string();
    fs::create_dir(&temporary).unwrap();
    project.env("OFFLOAD_STATE_DIR", &state).env("TMPDIR", &temporary)
}

const DOWNLOAD: &str = "download_command = \"sh provider download {sandbox_id} {paths}\"";
const SWEEP: &str = "sweep_command = \"sh provider sweep {run_name}\"";
const PREPARE: &str = "prepare_command = \"sh provider prepare\"";

/// The lines of the log that begin with `word`.
pub fn calls(project: &Project, word: &str) -> Vec<String> {
    let text = fs::read_to_string(project.path().join("calls")).unwrap_or_default();
    text.lines().filter(|line| line.split(' ').next() == Some(word)).map(str::to_owned).collect()
}

/// Fails unless every sandbox that was made has been destroyed once, and the journal is empty.
#[track_caller]
pub fn nothing_left(project: &Project) {
    let ids = |word: &str| -> Vec<String> {
        let mut ids: Vec<_> =
            calls(project, word).iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("create"), ids("destroy"));
    let runs = fs::read_dir(project.path().join("state/runs")).map_or(0, Iterator::count);
    assert_eq!(runs, 0, "entries in the journal");
    let left = fs::read_dir(project.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files");
    // These sandboxes have the file system of this machine.
    let runs = fs::read_to_string(project.path().join("runs")).unwrap_or_default();
    for entry in fs::read_dir("/tmp").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if runs.lines().any(|run| name.starts_with(&format!("{run}-"))) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
