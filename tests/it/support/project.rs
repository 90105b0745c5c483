//! A scratch project, and the program run in it.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::processes::{Outcome, Running};

/// Long enough for a build on a busy machine, short enough to end a hang.
const DEADLINE: Duration = Duration::from_secs(120);

/// A directory with the files of a project; removed when dropped.
pub struct Project {
    directory: TempDir,
    tools: Vec<PathBuf>,
    env: Vec<(String, String)>,
}

impl Project {
    pub fn new() -> Project {
        let directory = TempDir::with_prefix("offload-it-").unwrap();
        Project { directory, tools: Vec::new(), env: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file and the directories it needs.
    #[must_use]
    pub fn file(self, path: &str, content: &str) -> Project {
        let target = self.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
        self
    }

    /// Writes a file that can be executed.
    #[must_use]
    pub fn executable(self, path: &str, content: &str) -> Project {
        let project = self.file(path, content);
        fs::set_permissions(project.path().join(path), Permissions::from_mode(0o755)).unwrap();
        project
    }

    /// Writes `offload.toml`.
    #[must_use]
    pub fn config(self, toml: &str) -> Project {
        self.file("offload.toml", toml)
    }

    /// Makes `name` in the project stand for something outside of it.
    #[must_use]
    pub fn link(self, name: &str, target: &Path) -> Project {
        symlink(target, self.path().join(name)).unwrap();
        self
    }

    /// Puts a directory of programs in front of PATH.
    #[must_use]
    pub fn tool(mut self, directory: &Path) -> Project {
        self.tools.push(directory.to_owned());
        self
    }

    /// Sets a variable for the program.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Project {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs the program in the project to its end.
    #[track_caller]
    pub fn offload(&self, arguments: &[&str]) -> Outcome {
        self.spawn(arguments).wait(DEADLINE)
    }

    /// Starts the program in the project.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_offload"));
        command.args(arguments);
        Running::start(command)
    }

    /// Any program in the project, with the environment that [`Project::offload`] gives.
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        let mut command = if ignores_signals() {
            // Tests that are started in the background by a shell ignore SIGINT, and so would the program.
            let mut command = Command::new("/usr/bin/env");
            command.arg("--default-signal=HUP,INT,TERM").arg(program.into());
            command
        } else {
            Command::new(program.into())
        };
        command.current_dir(self.path());
        for (key, _) in std::env::vars_os().filter(|(key, _)| leaks(&key.to_string_lossy())) {
            command.env_remove(key);
        }
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let directories = self.tools.iter().cloned().chain(std::env::split_paths(&inherited));
        command.env("PATH", std::env::join_paths(directories).unwrap()).env("NO_COLOR", "1");
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// Whether a variable of the surrounding test run would change what the program or a tool does.
fn leaks(key: &str) -> bool {
    const KEPT: [&str; 2] = ["CARGO_HOME", "RUSTUP_HOME"];
    const PREFIXES: [&str; 6] = ["CARGO", "NEXTEST", "PYTEST", "VITEST", "OFFLOAD", "RUST_"];
    const NAMES: [&str; 4] = ["CI", "FORCE_COLOR", "GITHUB_ACTIONS", "RUSTFLAGS"];
    !KEPT.contains(&key) && (NAMES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
}

/// Whether SIGHUP, SIGINT or SIGTERM is ignored by this process, and would be by its children.
fn ignores_signals() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    [1, 2, 15].iter().any(|signal| mask & (1 << (signal - 1)) != 0)
}
