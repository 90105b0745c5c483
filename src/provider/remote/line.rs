//! The script that a sandbox's shell runs for a command: it writes files, changes the directory, runs the command in
//! its environment, and prints how that ended.

use std::path::Path;

use super::{frame, is_one_program};
use crate::command::{CommandLine, Executable};

/// Ends a shell that could not even start the command: no trailer follows.
const NOT_BEGUN: &str = "|| exit 125; ";

/// The surroundings of all commands in a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxEnv {
    /// The root of the repository, `OFFLOAD_ROOT` for tests.
    pub repo_root: Option<String>,
    /// The directory in which tests run.
    pub project_root: Option<String>,
    /// Variables of all tests that lines set.
    pub env: Vec<(String, String)>,
}

/// What surrounds one command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// Begins the lines of the trailer.
    pub(super) token: &'a str,
    /// The directory of the last command, removed first.
    pub(super) old: Option<&'a Path>,
    /// Removed at the end.
    pub(super) own: Option<&'a Path>,
    /// A file made before the command; its time is when the command began.
    pub(super) stamp: Option<&'a Path>,
    /// The file that the trailer reports.
    pub(super) report: Option<&'a Path>,
    /// Whether the trailer holds the content of that file.
    pub(super) content: bool,
}

fn quote(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

impl SandboxEnv {
    /// The script for `command`.
    pub(super) fn line(&self, command: &CommandLine, frame: &Frame<'_>) -> String {
        let mut text = String::new();
        if let Some(old) = frame.old {
            text += &format!("rm -rf {}; ", path(old));
        }
        for file in &command.files {
            if let Some(directory) = file.path.parent() {
                text += &format!("mkdir -p {} {NOT_BEGUN}", path(directory));
            }
            text += &format!("printf %s {} > {} {NOT_BEGUN}", quote(&file.content), path(&file.path));
        }
        for file in frame.report.into_iter().chain(frame.stamp).filter(|file| file.is_absolute()) {
            if let Some(directory) = file.parent() {
                text += &format!("mkdir -p {} {NOT_BEGUN}", path(directory));
            }
        }
        if let Some(stamp) = frame.stamp {
            // Files of the same tick of the clock would not be newer.
            text += &format!(": > {} {NOT_BEGUN}sleep 0.02 2>/dev/null; ", path(stamp));
        }
        text += &self.enter(command.directory.as_deref());
        if !command.stale.is_empty() {
            let stale: Vec<String> = command.stale.iter().map(|file| path(file)).collect();
            text += &format!("rm -f {} {NOT_BEGUN}", stale.join(" "));
        }
        let variables = self.variables(command);
        let env = if variables.is_empty() { variables } else { format!("env{variables} ") };
        text += &format!("(exec {env}{}); s=$?; ", words(command));
        let report: Vec<_> = frame.report.iter().map(|file| file.to_string_lossy()).collect();
        let report: Vec<&str> = report.iter().map(AsRef::as_ref).collect();
        text += &frame::text(frame.token, &report, frame.content);
        if let Some(own) = frame.own {
            text += &format!("; rm -rf {}", path(own));
        }
        text + "; exit $s"
    }

    /// Whether a sandbox has a file system of its own, as far as is known: with a relative root it may be a directory
    /// among others.
    pub fn is_apart(&self) -> bool {
        self.project_root.as_ref().is_none_or(|root| root.starts_with('/'))
    }

    /// Changes to the directory of tests, or one below it.
    pub(super) fn enter(&self, below: Option<&Path>) -> String {
        let mut text = String::new();
        if let Some(root) = &self.repo_root {
            text += &format!("OFFLOAD_ROOT=$(cd {} && pwd) && export OFFLOAD_ROOT {NOT_BEGUN}", quote(root));
        }
        let root = self.project_root.as_ref().map(|root| quote(root));
        for directory in root.into_iter().chain(below.map(path)) {
            text += &format!("cd {directory} {NOT_BEGUN}");
        }
        text
    }

    fn variables(&self, command: &CommandLine) -> String {
        let all = self.env.iter().chain(&command.env);
        let mut text: String =
            all.map(|(key, value)| format!(" {}", quote(&format!("{key}={value}")))).collect();
        if !command.prepend_path.is_empty() {
            let own = self.env.iter().chain(&command.env).rev().find(|(key, _)| key == "PATH");
            let rest = own.map_or_else(|| "\"$PATH\"".to_owned(), |(_, value)| quote(value));
            text += &format!(" PATH={}:{rest}", quote(&command.prepend_path.join(":")));
        }
        text
    }
}

fn words(command: &CommandLine) -> String {
    match &command.executable {
        Executable::Program(words) | Executable::Direct(words) => shell_words::join(words),
        Executable::Shell(text) if is_one_program(text) => text.clone(),
        Executable::Shell(text) => format!("sh -c {}", quote(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::InputFile;

    #[test]
    fn a_command_finds_its_files_folder_and_variables() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("it's a root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("stale"), "").unwrap();
        let root = root.to_string_lossy().into_owned();
        let env = SandboxEnv {
            repo_root: Some(root.clone()),
            project_root: Some(root.clone()),
            env: vec![("A".into(), "a 'b' $c".into())],
        };
        let input = directory.path().join("new directory/in.txt");
        let mut command = CommandLine::shell(
            "printf '%s\\n' \"$A|$OFFLOAD_ROOT|$PWD|$(cat ../'new directory/in.txt')|$PATH\"; ls; exit 3",
        );
        command.files = vec![InputFile { path: input, content: "%s \\n 'x'".into() }];
        command.prepend_path = vec!["/one".into(), "/t w o".into()];
        command.stale = vec!["stale".into()];
        let frame = Frame {
            token: "TOK",
            old: None,
            own: None,
            stamp: None,
            report: Some(Path::new("sub")),
            content: false,
        };
        let line = env.line(&command, &frame);
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(&line).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.starts_with(&format!("a 'b' $c|{root}|{root}|%s \\n 'x'|/one:/t w o:/")),
            "{text}{line}"
        );
        assert!(text.ends_with("\nsub\n\nTOK exit 3\nTOK end\n"), "{text}");
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_missing_root_is_no_end_of_the_command() {
        let env =
            SandboxEnv { repo_root: None, project_root: Some("/nowhere/at all".into()), env: Vec::new() };
        let frame = Frame { token: "TOK", old: None, own: None, stamp: None, report: None, content: true };
        let line = env.line(&CommandLine::program(["true"]), &frame);
        let output = std::process::Command::new("/bin/sh").arg("-c").arg(&line).output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    }
}
