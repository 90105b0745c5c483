//! `offload validate`: prints the settings in effect, or everything that is wrong with them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::bundled;
use crate::config::{self, Config, FrameworkKind, Provider};
use crate::error::{Problem, Status};

/// Writes the settings of the file at `path` to `out`, without secrets. Commands that are not on PATH only
/// cause warnings, as the file may be meant for another machine.
///
/// # Errors
/// All mistakes in the file, one per line.
pub fn run(path: &Path, out: &mut dyn Write) -> Result<Status, Problem> {
    check(path, &|name| std::env::var(name).ok(), out)
}

fn check(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    out: &mut dyn Write,
) -> Result<Status, Problem> {
    let config = config::load(path, environment)?;
    let summary = config.summary(&config.secrets(environment));
    out.write_all(summary.as_bytes()).context("cannot write the settings")?;
    let programs = missing_programs(&config, environment).into_iter();
    for warning in programs.chain(missing_scripts(&config)).chain(missing_placeholders(&config)) {
        log::warn!("{warning}");
    }
    let mut commands = provider_commands(&config).into_iter().filter_map(|(_, text)| text);
    if commands.any(|text| bundled::is_used(text)) {
        let cache = bundled::cache_dir(&|name| environment(name).map(Into::into));
        log::info!("bundled scripts are in `{}`", cache.display());
    }
    Ok(Status::Passed)
}

/// A program that the configuration names.
struct Named {
    /// The key and its table.
    key: &'static str,
    /// Its name; `None` if only a shell could find it.
    program: Option<String>,
    /// The directory in which it starts.
    directory: PathBuf,
    /// The directories to search.
    path: String,
}

/// A warning for each configured program that does not exist.
fn missing_programs(config: &Config, environment: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let inherited = environment("PATH").unwrap_or_default();
    let mut named = provider_programs(config, &inherited);
    named.extend(framework_programs(config, &inherited));
    let missing = |named: &Named| {
        let program = named.program.as_deref()?;
        if program.contains('/') {
            let file = named.directory.join(program);
            return (!is_executable(&file))
                .then(|| format!("`{program}`, used by {}, is not an executable file", named.key));
        }
        let found = is_on_path(program, &named.path, &named.directory);
        (!found).then(|| format!("`{program}`, used by {}, is not on PATH", named.key))
    };
    named.iter().filter_map(missing).collect()
}

/// The commands of the provider `default`, with their keys.
fn provider_commands(config: &Config) -> Vec<(&'static str, Option<&String>)> {
    let Provider::Command(command) = &config.provider else { return Vec::new() };
    vec![
        ("`prepare_command` in [provider]", command.prepare_command.as_ref()),
        ("`patch_command` in [provider]", command.patch_command.as_ref()),
        ("`create_command` in [provider]", Some(&command.create_command)),
        ("`exec_command` in [provider]", Some(&command.exec_command)),
        ("`destroy_command` in [provider]", Some(&command.destroy_command)),
        ("`download_command` in [provider]", command.download_command.as_ref()),
        ("`sweep_command` in [provider]", command.sweep_command.as_ref()),
    ]
}

/// A warning for each word of these commands that looks like a bundled script but is not.
fn missing_scripts(config: &Config) -> Vec<String> {
    let known: Vec<String> = bundled::names().map(|name| format!("`@{name}`")).collect();
    let commands = provider_commands(config).into_iter();
    let unknown = commands.flat_map(|(key, text)| {
        text.into_iter().flat_map(|text| bundled::unknown(text)).map(move |word| (key, word))
    });
    unknown
        .map(|(key, word)| {
            format!("`{word}`, used by {key}, is not a bundled script; available: {}", known.join(", "))
        })
        .collect()
}

/// A warning for each of these commands without the placeholder it needs. There may be a reason, such as a
/// single permanent sandbox; but a misspelled placeholder would leave sandboxes behind.
fn missing_placeholders(config: &Config) -> Vec<String> {
    let Provider::Command(provider) = &config.provider else { return Vec::new() };
    let of_sandboxes = [
        ("exec_command", Some(&provider.exec_command)),
        ("destroy_command", Some(&provider.destroy_command)),
        ("download_command", provider.download_command.as_ref()),
    ];
    let nameless = |(_, text): &(_, Option<&String>)| text.is_some_and(|text| !text.contains("{sandbox_id}"));
    let mut warnings: Vec<String> = of_sandboxes
        .into_iter()
        .filter(nameless)
        .map(|(key, _)| {
            format!(
                "`{key}` in [provider] does not contain `{{sandbox_id}}`, so it cannot know which sandbox to use"
            )
        })
        .collect();
    let mut of_images =
        [Some(&provider.create_command), provider.patch_command.as_ref()].into_iter().flatten();
    if provider.prepare_command.is_some() && !of_images.any(|text| text.contains("{image_id}")) {
        warnings.push(
            "`prepare_command` in [provider] makes an image, but `create_command` does not contain `{image_id}`"
                .to_owned(),
        );
    }
    warnings
}

fn provider_programs(config: &Config, path: &str) -> Vec<Named> {
    let named = |key, program, directory: &Option<PathBuf>| Named {
        key,
        program,
        directory: directory.clone().unwrap_or_else(|| ".".into()),
        path: path.to_owned(),
    };
    match &config.provider {
        Provider::Local(local) => {
            vec![named("`shell` in [provider]", Some(local.shell.clone()), &local.working_dir)]
        }
        Provider::Command(command) => provider_commands(config)
            .into_iter()
            .filter_map(|(key, text)| Some(named(key, first_word(text?), &command.working_dir)))
            .collect(),
        Provider::Modal(_) => vec![named("`type` in [provider]", Some("uv".to_owned()), &None)],
    }
}

fn framework_programs(config: &Config, path: &str) -> Vec<Named> {
    let framework = &config.framework;
    let root = config.local_root();
    let own_path = framework.env.iter().rev().find(|(name, _)| name == "PATH");
    let mut directories = framework.prepend_path.clone();
    directories.push(own_path.map_or(path, |(_, value)| value).to_owned());
    let path = directories.join(":").replace("{root}", &root.to_string_lossy());
    let named = |key, program, directory: &Path| Named {
        key,
        program,
        directory: directory.to_path_buf(),
        path: path.clone(),
    };
    match &framework.kind {
        FrameworkKind::Pytest { command, .. } | FrameworkKind::Vitest { command, .. } => {
            vec![named("`command` in [framework]", first_word(command), &root)]
        }
        FrameworkKind::Nextest { .. } => ["cargo", "cargo-nextest"]
            .map(|program| named("`type` in [framework]", Some(program.to_owned()), &root))
            .into(),
        FrameworkKind::Custom { discover_command, run_command, working_dir, .. } => {
            let directory = working_dir.as_ref().map_or(root.clone(), |directory| root.join(directory));
            let mut all =
                vec![named("`discover_command` in [framework]", first_word(discover_command), &directory)];
            // With other providers the sandbox needs the program.
            if matches!(config.provider, Provider::Local(_)) {
                all.push(named("`run_command` in [framework]", first_word(run_command), &directory));
            }
            all
        }
    }
}

/// The program that a shell command starts with, after variable assignments; `None` for words of the shell
/// itself, bundled scripts, and anything that only a shell can resolve.
fn first_word(text: &str) -> Option<String> {
    let start = text.trim_start();
    let mut word = start;
    loop {
        let end = word.find(|c: char| c.is_whitespace() || ";&|<>()".contains(c)).unwrap_or(word.len());
        let (first, rest) = word.split_at(end);
        let is_assignment = first.split_once('=').is_some_and(|(name, _)| is_variable(name));
        // Quotes, variables, placeholders, patterns, comments: only a shell can resolve them.
        if first.is_empty() || first.contains(['\'', '"', '\\', '$', '`', '*', '?', '[', '{', '#', '~', '!'])
        {
            return None;
        }
        if !is_assignment {
            let is_program = !first.starts_with('@') && !SHELL_WORDS.contains(&first);
            return is_program.then(|| first.to_owned());
        }
        word = rest.trim_start();
    }
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| !c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The reserved words and builtins of sh.
const SHELL_WORDS: [&str; 46] = [
    ".", ":", "alias", "bg", "break", "case", "cd", "command", "continue", "do", "done", "echo", "elif",
    "else", "esac", "eval", "exec", "exit", "export", "false", "fg", "fi", "for", "getopts", "hash", "if",
    "jobs", "kill", "printf", "pwd", "read", "readonly", "return", "set", "shift", "test", "then", "times",
    "trap", "true", "type", "ulimit", "umask", "unset", "until", "while",
];

/// Whether `program` is on `path`, whose relative directories count from `directory`.
pub(super) fn is_on_path(program: &str, path: &str, directory: &Path) -> bool {
    std::env::split_paths(path).any(|entry| is_executable(&directory.join(entry).join(program)))
}

pub(super) fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(provider: &str, framework: &str) -> Vec<String> {
        let text = format!("[provider]\n{provider}\n[framework]\n{framework}\n[groups.all]\n");
        let config = config::parse(&text, "x.toml", &|_| None).unwrap();
        missing_programs(&config, &|name| (name == "PATH").then(|| "/usr/bin:/bin".to_owned()))
    }

    #[test]
    fn the_first_program_of_a_shell_text_is_found_where_it_can_be() {
        let cases = [
            ("pytest -x", Some("pytest")),
            ("  FOO=1 _B2=x pytest", Some("pytest")),
            ("FOO= pytest", Some("pytest")),
            ("ls;true", Some("ls")),
            ("./run tests", Some("./run")),
            ("cd x && pytest", None),
            ("@script.py create", None),
            ("$PYTHON -m pytest", None),
            ("'my tool' x", None),
            ("FOO='a b' pytest", None),
            ("(cd x; ls)", None),
            ("{ ls; }", None),
            ("! ls", None),
            ("# note\nls", None),
            ("FOO=1", None),
            ("", None),
        ];
        for (text, program) in cases {
            assert_eq!(first_word(text).as_deref(), program, "{text}");
        }
    }

    #[test]
    fn programs_that_are_not_on_path_are_named_with_their_key() {
        assert_eq!(
            warnings(
                "type = \"local\"\nshell = \"no-such-sh\"",
                "type = \"pytest\"\ncommand = \"A=1 no-such-py -m\""
            ),
            [
                "`no-such-sh`, used by `shell` in [provider], is not on PATH",
                "`no-such-py`, used by `command` in [framework], is not on PATH",
            ]
        );
    }

    #[test]
    fn programs_that_exist_are_not_warned_about() {
        let custom = "type = \"default\"\ndiscover_command = \"ls {filters}\"\nrun_command = \"cd /; no-such\"\n\
                      test_id_format = \"{name}\"";
        assert_eq!(warnings("type = \"local\"", custom), [""; 0]);
    }

    #[test]
    fn programs_with_a_slash_and_prepended_folders_count_from_the_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        let tool = directory.path().join("bin/offload-tool");
        std::fs::write(&tool, "").unwrap();
        let run = |command: &str, more: &str| {
            let text = format!(
                "[offload]\nworking_dir = {:?}\n[provider]\ntype = \"local\"\n[framework]\ntype = \"pytest\"\n\
                 command = \"{command}\"\n{more}\n[groups.all]\n",
                directory.path()
            );
            let config = config::parse(&text, "x.toml", &|_| None).unwrap();
            missing_programs(&config, &|_| None).len()
        };
        assert_eq!(run("bin/offload-tool", ""), 1, "not executable");
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(run("bin/offload-tool", ""), 0);
        assert_eq!(run("offload-tool", ""), 1);
        assert_eq!(run("offload-tool", "prepend_path = [\"{root}/bin\"]"), 0);
        assert_eq!(run("offload-tool", "prepend_path = [\"bin\"]"), 0);
    }

    #[test]
    fn the_run_command_of_remote_sandboxes_is_not_looked_for_here() {
        let provider = "type = \"default\"\ncreate_command = \"no-such-create\"\nexec_command = \"sh -c {command}\"\n\
                        destroy_command = \"true\"";
        let framework = "type = \"default\"\ndiscover_command = \"ls {filters}\"\nrun_command = \"no-such-run\"\n\
                         test_id_format = \"{name}\"";
        assert_eq!(
            warnings(provider, framework),
            ["`no-such-create`, used by `create_command` in [provider], is not on PATH"]
        );
    }

    #[test]
    fn commands_that_do_not_say_what_they_are_for_are_warned_about() {
        let warnings = |commands: &str| {
            let text = format!(
                "[provider]\ntype = \"default\"\n{commands}\n[framework]\ntype = \"pytest\"\n[groups.all]\n"
            );
            missing_placeholders(&config::parse(&text, "x.toml", &|_| None).unwrap())
        };
        let good = "prepare_command = \"p\"\ncreate_command = \"c {image_id}\"\n\
                    exec_command = \"e {sandbox_id} {command}\"\ndestroy_command = \"d {sandbox_id}\"\n\
                    download_command = \"l {sandbox_id} {paths}\"";
        assert_eq!(warnings(good), [""; 0]);
        assert_eq!(
            warnings(&good.replace("{sandbox_id}", "{sandbox}").replace("{image_id}", "im-1")),
            [
                "`exec_command` in [provider] does not contain `{sandbox_id}`, so it cannot know which sandbox to use",
                "`destroy_command` in [provider] does not contain `{sandbox_id}`, so it cannot know which sandbox to use",
                "`download_command` in [provider] does not contain `{sandbox_id}`, so it cannot know which sandbox to use",
                "`prepare_command` in [provider] makes an image, but `create_command` does not contain `{image_id}`",
            ]
        );
        let patched = good.replace("{image_id}", "im-1") + "\npatch_command = \"p {image_id}\"";
        assert_eq!(warnings(&patched), [""; 0]);
        let bare = "create_command = \"c\"\nexec_command = \"e {sandbox_id} {command}\"\n\
                    destroy_command = \"d {sandbox_id}\"";
        assert_eq!(warnings(bare), [""; 0]);
    }

    #[test]
    fn mistakes_are_listed_one_a_line_as_a_usage_problem() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("offload.toml");
        std::fs::write(&file, "[provider]\ntype = \"locl\"\n[framework]\ntype = \"pytest\"\n[groups]\n")
            .unwrap();
        let mut out = Vec::new();
        let problem = check(&file, &|_| None, &mut out).unwrap_err();
        let file = file.display();
        assert_eq!(
            problem.error.to_string(),
            format!(
                "{file}:2:8: unknown type `locl` in [provider], did you mean `local`?\n\
                 {file}:5:1: `groups` must contain at least one group, e.g. [groups.all]"
            )
        );
        assert_eq!((problem.status, out.len()), (Status::Usage, 0));
    }
}
