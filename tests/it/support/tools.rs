//! Real tools in pinned versions, made once below the target directory and kept for later runs.
//!
//! Where a tool cannot be had, the test that asks for it says so and returns early; in CI it fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const PYTEST: &str = "pytest==9.1.1";
const PYTEST_OLD: &str = "pytest==7.4.4";
const VITEST: &str = r#"{"private": true, "type": "module", "dependencies": {"vitest": "4.1.12"}}"#;
const MODAL: &str = "modal==1.6.4";
const MODAL_OLD: &str = "modal==1.5.4";
const UV: &str = "uv==0.13.9";
const NEXTEST: &str = "0.9.143";

/// A Python with a recent pytest.
pub fn python() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| environment("pytest", PYTEST)).as_deref()
}

/// A Python with a pytest of an older kind.
pub fn python_old() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    MADE.get_or_init(|| environment("pytest-old", PYTEST_OLD)).as_deref()
}

/// A `node_modules` directory with vitest, to be linked into a project.
pub fn vitest() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        provide("vitest", VITEST, |directory| {
            fs::write(directory.join("package.json"), VITEST).map_err(|error| error.to_string())?;
            execute(Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(directory))
        })
    };
    MADE.get_or_init(|| make().map(|directory| directory.join("node_modules"))).as_deref()
}

/// A directory that holds `cargo-nextest`.
pub fn nextest() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(directory) =
            std::env::split_paths(&path).find(|directory| directory.join("cargo-nextest").is_file())
        {
            return Some(directory);
        }
        let install = ["install", "cargo-nextest", "--locked", "--version", NEXTEST, "--root"];
        let made = provide("nextest", NEXTEST, |directory| {
            execute(Command::new("cargo").args(install).arg(directory))
        });
        made.map(|directory| directory.join("bin"))
    };
    MADE.get_or_init(make).as_deref()
}

/// A virtual environment with Modal's SDK and uv, which has fetched all that the bundled script asks for.
pub fn modal() -> Option<&'static Path> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bundled/modal_sandbox.py");
    let make = || {
        let recipe = format!("{MODAL} {UV} {MODAL_OLD}");
        provide("modal", &recipe, |directory| {
            execute(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
            let pip = ["-m", "pip", "install", "-q", MODAL, UV];
            execute(Command::new(directory.join("bin/python")).args(pip))?;
            let cache = directory.parent().unwrap().join("uv-cache");
            for version in [MODAL, MODAL_OLD] {
                let mut uv = Command::new(directory.join("bin/uv"));
                uv.env("UV_CACHE_DIR", &cache).args(["run", "--no-project", "--with", version]);
                execute(uv.args([script, "--help"]))?;
            }
            Ok(())
        })
    };
    MADE.get_or_init(make).as_deref()
}

fn environment(name: &str, requirement: &str) -> Option<PathBuf> {
    let made = provide(name, requirement, |directory| {
        execute(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
        execute(Command::new(directory.join("bin/python")).args(["-m", "pip", "install", "-q", requirement]))
    });
    made.map(|directory| directory.join("bin/python"))
}

/// The directory of a tool. A stamp is written last, so that a half-made tool or another version of it is
/// made again; a lock lets only one of several test programs make it.
fn provide(name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-tools");
    fs::create_dir_all(&tools).unwrap();
    let lock = File::create(tools.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let directory = tools.join(name);
    let stamp = directory.join("complete");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
        return Some(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir_all(&directory).unwrap();
    match make(&directory) {
        Ok(()) => {
            fs::write(stamp, recipe).unwrap();
            Some(directory)
        }
        Err(why) => absent(name, &why),
    }
}

fn absent(name: &str, why: &str) -> Option<PathBuf> {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "no `{name}` in CI: {why}");
    eprintln!("SKIPPED: this test needs `{name}`: {why}");
    None
}

fn execute(command: &mut Command) -> Result<(), String> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Err(format!("{command:?}: {}\n{stdout}{stderr}", done.status))
}
