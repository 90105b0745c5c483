//! Files and directories of ours that others must not read, write, or have made before us.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::remote::remote;
use crate::support::{Project, survivors, wait_until};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            all.extend(below(&entry.path()));
        }
        all.push(entry.path());
    }
    all
}

#[test]
fn what_a_run_keeps_for_itself_is_for_its_user_alone() {
    let unique = format!("offload-private-{}", std::process::id());
    let project = remote(&["hang"], "[groups.all]", "", "").env("UNIQUE", &unique);
    // Files are as open as they can be.
    let mut command = project.command("sh");
    command.args(["-c", "umask 0; exec \"$0\" run", env!("CARGO_BIN_EXE_offload")]);
    let running = crate::support::Running::start(command);
    wait_until("the test hangs", Duration::from_secs(20), || survivors(&unique) > 0);
    let scratch: Vec<_> = fs::read_dir(project.path().join("tmp")).unwrap().flatten().collect();
    assert_eq!(scratch.len(), 1);
    assert_eq!(mode(&scratch[0].path()), 0o700);
    let state = project.path().join("state");
    assert!(below(&state).len() >= 4);
    for path in below(&state) {
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
    running.signal(Signal::SIGTERM);
    running.wait(Duration::from_secs(20)).expect_code(130);
}

/// A project whose provider is a bundled script, with its cache in `cache`.
fn bundled() -> Project {
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let (cache, state, boxes) = (path("cache"), path("state"), path("boxes"));
    let config = "[framework]\ntype = \"default\"\ndiscover_command = \"echo a # {filters}\"\n\
                  run_command = \"true # {tests}\"\ntest_id_format = \"{name}\"\n[groups.all]\n\
                  [provider]\ntype = \"default\"\ncreate_command = \"sh @directory_sandbox.sh create im-a\"\n\
                  exec_command = \"sh @directory_sandbox.sh exec {sandbox_id} {command}\"\n\
                  destroy_command = \"sh @directory_sandbox.sh destroy {sandbox_id}\"\n\
                  [offload]\nsandbox_repo_root = \".\"\n";
    project
        .config(config)
        .file("boxes/images/im-a/x", "")
        .env("XDG_CACHE_HOME", &cache)
        .env("OFFLOAD_STATE_DIR", &state)
        .env("OFFLOAD_DIRECTORIES", &boxes)
}

#[test]
fn bundled_scripts_cannot_be_written_by_others() {
    let project = bundled();
    let mut command = project.command("sh");
    command.args(["-c", "umask 0; exec \"$0\" run", env!("CARGO_BIN_EXE_offload")]);
    crate::support::Running::start(command).wait(Duration::from_secs(20)).expect_code(0);
    let cache = project.path().join("cache/offload");
    let scripts = below(&cache);
    assert!(scripts.iter().any(|path| path.ends_with("directory_sandbox.sh")));
    for path in scripts {
        assert_eq!(mode(&path) & 0o022, 0, "{}", path.display());
    }
    // One that could be written is not used as it is.
    let script = below(&cache).into_iter().find(|path| path.is_file()).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o777)).unwrap();
    let old = script.metadata().unwrap().ino();
    project.offload(&["run"]).expect_code(0);
    assert_eq!(mode(&script) & 0o022, 0);
    assert_ne!(script.metadata().unwrap().ino(), old);
}

#[track_caller]
fn refuses_cache(project: &Project, told: &str) {
    for command in ["run", "build"] {
        let outcome = project.offload(&[command]).expect_code(4);
        assert!(outcome.stderr.contains("cannot write the bundled script"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    }
    assert!(!project.path().join("boxes/sandboxes").exists(), "nothing was run");
}

const SOMEBODY: u32 = 61_235;

#[test]
fn a_cache_folder_of_somebody_else_is_refused() {
    let project = bundled();
    let directory = project.path().join("cache/offload/scripts");
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    refuses_cache(&project, "is writable by others");
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    // Only root can give a directory away.
    if chown(&directory, Some(SOMEBODY), None).is_ok() {
        refuses_cache(&project, "belongs to another user");
    }
    fs::remove_dir_all(&directory).unwrap();
    fs::create_dir(project.path().join("elsewhere")).unwrap();
    fs::set_permissions(project.path().join("elsewhere"), Permissions::from_mode(0o777)).unwrap();
    symlink("../../elsewhere", &directory).unwrap();
    refuses_cache(&project, "is writable by others");
}

#[test]
fn a_journal_of_somebody_else_is_neither_read_nor_written() {
    let project = remote(&["pass 1"], "[groups.all]", "", "");
    // What somebody else would like to be run.
    let config = "[framework]\ntype = \"default\"\ndiscover_command = \"true # {filters}\"\nrun_command = \"true\"\n\
                  test_id_format = \"{name}\"\n[groups.all]\n[provider]\ntype = \"default\"\ncreate_command = \"true\"\n\
                  exec_command = \"true {sandbox_id} {command}\"\ndestroy_command = \"touch pwned {sandbox_id}\"\n";
    let planted = project.path().join("planted.toml").display().to_string();
    let about = format!(
        "{{\"config\":\"{planted}\",\"directory\":\"{}\",\"process\":1,\"started\":0}}",
        project.path().display()
    );
    let project = project
        .file("planted.toml", config)
        .file("state/runs/old/run.json", &about)
        .file("state/runs/old/sandbox-0.json", "{\"slot\":0,\"id\":\"sb-1\",\"at\":0}");
    for (directory, others) in [("state", 0o777), ("state/runs", 0o777)] {
        let directory = project.path().join(directory);
        fs::set_permissions(&directory, Permissions::from_mode(others)).unwrap();
        let outcome = project.offload(&["gc"]).expect_code(4);
        assert!(outcome.stderr.contains("is writable by others"), "{}", outcome.stderr);
        let outcome = project.offload(&["run"]).expect_code(0);
        assert!(outcome.stderr.contains("cannot keep a journal of sandboxes"), "{}", outcome.stderr);
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        if chown(&directory, Some(SOMEBODY), None).is_ok() {
            let outcome = project.offload(&["gc"]).expect_code(4);
            assert!(outcome.stderr.contains("belongs to another user"), "{}", outcome.stderr);
            chown(&directory, Some(nix::unistd::getuid().as_raw()), None).unwrap();
        }
        assert!(!project.path().join("pwned").exists());
    }
    project.offload(&["gc"]).expect_code(0);
    assert!(project.path().join("pwned").exists(), "this is what would have been run");
}
