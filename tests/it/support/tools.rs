//! Real tools in pinned versions, made once below the target directory and kept for later runs.
//!
//! A test whose tool cannot be installed is recorded as skipped and returns early; the test target
//! `zz_skipped` counts these tests and fails in CI.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::skips;

const PYTEST: &str = "pytest==9.1.1";
const PYTEST_OLD: &str = "pytest==7.4.4";
const PYTEST_OLDEST: &str = "pytest==7.0.1";
const PYTEST_EIGHT: &str = "pytest==8.4.2";
const PYTEST_PLUGINS: &str = "pytest==9.2.0 pytest-xdist==3.8.0 pytest-cov==7.1.0 pytest-dependency==0.6.1 \
    pytest-rerunfailures==16.7 pytest-timeout==2.4.0 syrupy==7.0.2";
/// The versions of vitest, with what else they need. Version 5 does not run on every Node.
const VITESTS: [(&str, &str); 5] =
    [("1.6.1", ""), ("2.1.9", ""), ("3.2.7", ""), ("4.1.12", ""), ("5.1.2", r#", "node": "22.23.3""#)];
const MODAL: &str = "modal==1.6.4";
const MODAL_OLD: &str = "modal==1.5.4";
const UV: &str = "uv==0.13.9";
const CMAKE: &str = "cmake==4.4.5";
const NEXTEST: &str = "0.9.143";

type Made = OnceLock<Result<PathBuf, String>>;

/// A Python with a recent pytest.
pub fn python() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    found("pytest", MADE.get_or_init(|| environment("pytest", PYTEST)))
}

/// A Python with a pytest of an older kind.
pub fn python_old() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    found("pytest-old", MADE.get_or_init(|| environment("pytest-old", PYTEST_OLD)))
}

/// A Python with the oldest pytest that is supported.
pub fn python_oldest() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    found("pytest-oldest", MADE.get_or_init(|| environment("pytest-oldest", PYTEST_OLDEST)))
}

/// A Python with the pytest before the recent one, whose node ids can be changed.
pub fn python_eight() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    found("pytest-eight", MADE.get_or_init(|| environment("pytest-eight", PYTEST_EIGHT)))
}

/// A Python with the newest pytest and plugins that many projects have.
pub fn python_plugins() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    found("pytest-plugins", MADE.get_or_init(|| environment("pytest-plugins", PYTEST_PLUGINS)))
}

/// A `node_modules` directory with a recent vitest, to be linked into a project.
pub fn vitest() -> Option<&'static Path> {
    vitest_of("4.1.12")
}

/// A `node_modules` directory with a version of vitest, its coverage provider, TypeScript, and a Node that serves, to
/// be linked into a project.
pub fn vitest_of(version: &str) -> Option<&'static Path> {
    static MADE: [Made; VITESTS.len()] = [const { Made::new() }; VITESTS.len()];
    let place = VITESTS.iter().position(|(known, _)| *known == version).expect("a known version");
    let name = format!("vitest-{version}");
    let make = || {
        let needs = format!(
            r#""vitest": "{version}", "@vitest/coverage-v8": "{version}", "typescript": "5.9.3"{}"#,
            VITESTS[place].1
        );
        let package = format!(r#"{{"private": true, "type": "module", "dependencies": {{{needs}}}}}"#);
        provide(&name, &package, |directory| {
            fs::write(directory.join("package.json"), &package).map_err(|error| error.to_string())?;
            execute(Command::new("npm").args(["install", "--no-audit", "--no-fund"]).current_dir(directory))
        })
    };
    found(&name, MADE[place].get_or_init(|| make().map(|directory| directory.join("node_modules"))))
}

/// A directory that holds `cargo-nextest`.
pub fn nextest() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    let make = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(directory) =
            std::env::split_paths(&path).find(|directory| directory.join("cargo-nextest").is_file())
        {
            return Ok(directory);
        }
        let install = ["install", "cargo-nextest", "--locked", "--version", NEXTEST, "--root"];
        let made = provide("nextest", NEXTEST, |directory| {
            execute(Command::new("cargo").args(install).arg(directory))
        });
        made.map(|directory| directory.join("bin"))
    };
    found("nextest", MADE.get_or_init(make))
}

/// A directory that holds `cmake` and `ctest`.
pub fn cmake() -> Option<&'static Path> {
    static MADE: Made = Made::new();
    let make = || environment("cmake", CMAKE).map(|python| python.with_file_name(""));
    found("cmake", MADE.get_or_init(make))
}

/// A virtual environment with Modal's SDK and uv, which has fetched all that the bundled script asks for.
pub fn modal() -> Option<&'static Path> {
    static MADE: Made = Made::new();
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
    found("modal", MADE.get_or_init(make))
}

fn environment(name: &str, requirement: &str) -> Result<PathBuf, String> {
    let made = provide(name, requirement, |directory| {
        execute(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
        execute(
            Command::new(directory.join("bin/python"))
                .args(["-m", "pip", "install", "-q"])
                .args(requirement.split_whitespace()),
        )
    });
    made.map(|directory| directory.join("bin/python"))
}

/// The directory of a tool. A stamp is written last, so that a half-made tool or another version of it is
/// made again; a lock lets only one of several test programs make it.
fn provide(
    name: &str,
    recipe: &str,
    make: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-tools");
    fs::create_dir_all(&tools).unwrap();
    let lock = File::create(tools.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let directory = tools.join(name);
    let stamp = directory.join("complete");
    if fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) && finds_its_python(&directory) {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).unwrap();
    }
    fs::create_dir_all(&directory).unwrap();
    make(&directory)?;
    fs::write(stamp, recipe).unwrap();
    Ok(directory)
}

/// Whether the scripts of a virtual environment can run: they name their Python by its path, so they break when the
/// environment is moved. Other tools can be moved.
fn finds_its_python(directory: &Path) -> bool {
    let Ok(script) = fs::read_to_string(directory.join("bin/pip")) else { return true };
    let python = script.lines().next().and_then(|line| line.strip_prefix("#!"));
    python.is_some_and(|python| Path::new(python.trim()).exists())
}

fn found(name: &str, made: &'static Result<PathBuf, String>) -> Option<&'static Path> {
    made.as_deref().inspect_err(|why| note_skipped(name, why)).ok()
}

/// Records the test that runs on this thread as skipped, because `need` is not available.
pub fn note_skipped(need: &str, why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let why = why.lines().collect::<Vec<_>>().join(" ");
    let mut file = File::options().create(true).append(true).open(skips::skipped_tests()).unwrap();
    // A single write, because other tests append to the same file.
    file.write_all(format!("{test}\t{need}\t{why}\n").as_bytes()).unwrap();
}

fn execute(command: &mut Command) -> Result<(), String> {
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Err(format!("{command:?}: {}\n{stdout}{stderr}", done.status))
}
