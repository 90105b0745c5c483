//! `offload init`: creates a configuration file.

use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::config::{FrameworkType, ProviderType};
use crate::error::{Problem, Status};

/// Writes a configuration to `path`, all of it or nothing, and reports that to `out`.
///
/// # Errors
/// When the file exists, or cannot be written.
pub fn run(
    path: &Path,
    provider: ProviderType,
    framework: FrameworkType,
    out: &mut dyn Write,
) -> Result<Status, Problem> {
    if !write_new(path, &template(provider, framework)).map_err(|error| Problem::new(Status::Usage, error))? {
        let problem = Problem::usage(format!("`{}` already exists", path.display()));
        return Err(problem.hint("choose another file with `-c`, or delete this one"));
    }
    let option = match path.to_str() {
        Some("offload.toml") => String::new(),
        _ => format!(" -c {}", shell_words::quote(&path.to_string_lossy())),
    };
    writeln!(out, "created `{}`; next, run `offload{option} run`", path.display()).context("cannot write")?;
    Ok(Status::Passed)
}

/// Creates the file `path`; `false` if it exists.
fn write_new(path: &Path, text: &str) -> Result<bool> {
    let cannot = || format!("cannot write `{}`", path.display());
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    if !directory.is_dir() {
        return Err(anyhow!("`{}` is not a directory", directory.display())).with_context(cannot);
    }
    let mut builder = tempfile::Builder::new();
    // Leave the permissions to the umask; a temporary file would be private to its owner.
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(directory).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error).with_context(cannot),
    }
}

/// The text of a configuration, valid as it is.
fn template(provider: ProviderType, framework: FrameworkType) -> String {
    let (roots, provider) = match provider {
        ProviderType::Local => ("", LOCAL),
        ProviderType::Default => (HERE, COMMANDS),
        ProviderType::Modal => (APP, MODAL),
    };
    let framework_text = match framework {
        FrameworkType::Pytest => PYTEST,
        FrameworkType::Nextest => NEXTEST,
        FrameworkType::Vitest => VITEST,
        FrameworkType::Default => CUSTOM,
    };
    let filters = match framework {
        FrameworkType::Pytest => "# filters = \"-m 'not slow'\"  # pytest arguments that select tests",
        FrameworkType::Nextest => {
            "# filters = \"-E 'not test(slow)'\"  # nextest arguments that select tests"
        }
        FrameworkType::Vitest => "# filters = \"src/unit\"  # vitest arguments that select tests",
        FrameworkType::Default => "# filters = \"-not -name '*slow*'\"  # replaces {filters} above",
    };
    format!(
        "{START}{roots}\n{provider}\n{framework_text}\n\
         # Each group has its own filters and its own number of retries.\n\
         [groups.all]\nretry_count = 0\n{filters}\n\n{END}"
    )
}

const START: &str = "\
# Configuration of offload. `offload validate` checks it and prints every setting.

[offload]
max_parallel = 4         # maximum number of concurrent sandboxes
test_timeout_secs = 900  # per batch of tests
";

const END: &str = "\
[report]
output_dir = \"test-results\"

# Record how long tests take, to plan later runs.
# [history]
# record_history = \"always\"
";

const HERE: &str = "sandbox_repo_root = \".\"  # directory of the code in a sandbox\n";

const APP: &str = "sandbox_repo_root = \"/app\"  # directory of the code in a sandbox\n";

const LOCAL: &str = "\
# Sandboxes are processes on this machine.
[provider]
type = \"local\"
";

const COMMANDS: &str = "\
# Shell commands create and use the sandboxes. Here each sandbox is a directory with a copy of the project;
# replace the commands with your own, for example for containers or a cloud. The script is a template:
# `offload -v validate` prints its directory.
[provider]
type = \"default\"
prepare_command = \"sh @directory_sandbox.sh prepare\"               # prints the image ID on its last line
create_command = \"sh @directory_sandbox.sh create {image_id} {sandbox_name}\"  # prints the sandbox ID on its last line
exec_command = \"sh @directory_sandbox.sh exec {sandbox_id} {command}\"  # runs a command in a sandbox
destroy_command = \"sh @directory_sandbox.sh destroy {sandbox_id}\"
sweep_command = \"sh @directory_sandbox.sh sweep {run_name}\"    # destroys all sandboxes of a run
# download_command = \"\"  # copies {paths}, remote:local pairs, from {sandbox_id}
";

const MODAL: &str = "\
# Sandboxes on Modal; run `modal token new` first.
[provider]
type = \"modal\"
include_cwd = true  # copy this directory into the image
# dockerfile = \"Dockerfile\"  # base of the image, with the tools that the tests need
";

const PYTEST: &str = "\
[framework]
type = \"pytest\"
command = \"python3 -m pytest\"  # or, for example, `uv run pytest`
# paths = [\"tests\"]
";

const NEXTEST: &str = "\
# Requires cargo-nextest: `cargo install cargo-nextest`.
[framework]
type = \"nextest\"
# features = []
# package = \"member-of-the-workspace\"
";

const VITEST: &str = "\
[framework]
type = \"vitest\"
command = \"npx vitest\"
";

const CUSTOM: &str = r##"# Any runner. Here each shell script tests/test_*.sh is a test that passes if it exits with 0.
[framework]
type = "default"
# Prints one test ID per line.
discover_command = "find tests -name 'test_*.sh' {filters} | sort"
# Runs {tests} and writes their results to {result_file} as JUnit XML.
run_command = '''
exec > {result_file}
echo '<testsuite>'
for test in {tests}; do
  echo "<testcase name=\"$test\">"
  sh "$test" >&2 || echo '<failure/>'
  echo '</testcase>'
done
echo '</testsuite>'
'''
result_file = "results.xml"
test_id_format = "{name}"  # maps a JUnit test case to a test ID
"##;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Choice};

    #[test]
    fn every_template_is_valid_and_short() {
        for &provider in ProviderType::ALL {
            for &framework in FrameworkType::ALL {
                let text = template(provider, framework);
                let config = config::parse(&text, "offload.toml", &|_| None).unwrap();
                assert_eq!(config.groups.len(), 1);
                assert_eq!((config.groups[0].name.as_str(), config.groups[0].retry_count), ("all", 0));
                assert!(text.lines().count() <= 50, "{text}");
            }
        }
    }

    #[test]
    fn every_commented_setting_is_valid_too() {
        for &provider in ProviderType::ALL {
            for &framework in FrameworkType::ALL {
                let text = template(provider, framework);
                let is_setting = |line: &str| {
                    let line = line.trim_start_matches("# ");
                    line.starts_with('[') || line.split(" = ").next().is_some_and(|key| !key.contains(' '))
                };
                let text: Vec<_> = text
                    .lines()
                    .map(|line| if is_setting(line) { line.trim_start_matches("# ") } else { line })
                    .collect();
                let config = config::parse(&text.join("\n"), "offload.toml", &|_| None).unwrap();
                assert!(config.history.is_some());
                assert!(!config.groups[0].filters.is_empty());
            }
        }
    }

    #[test]
    fn a_file_that_exists_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("offload.toml");
        std::fs::write(&file, "mine").unwrap();
        let mut out = Vec::new();
        let problem = run(&file, ProviderType::Local, FrameworkType::Pytest, &mut out).unwrap_err();
        assert_eq!(problem.error.to_string(), format!("`{}` already exists", file.display()));
        assert_eq!((problem.status, out.len()), (Status::Usage, 0));
        assert!(problem.hint.is_some());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_file_is_written_where_it_was_asked_for_and_readable_like_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("my ci.toml");
        let other = directory.path().join("other");
        std::fs::write(&other, "").unwrap();
        let mut out = Vec::new();
        let status = run(&file, ProviderType::Modal, FrameworkType::Default, &mut out).unwrap();
        assert_eq!(status, Status::Passed);
        assert!(String::from_utf8(out).unwrap().ends_with("ci.toml' run`\n"));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&file), mode(&other));
    }

    #[test]
    fn a_folder_that_is_missing_is_named_with_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("no/offload.toml");
        let problem = run(&file, ProviderType::Local, FrameworkType::Pytest, &mut Vec::new()).unwrap_err();
        let message = format!("{:#}", problem.error);
        assert!(message.starts_with(&format!("cannot write `{}`: ", file.display())), "{message}");
    }
}
