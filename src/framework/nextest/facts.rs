//! What batches need besides their tests: the output of `cargo metadata`, and the project's `nextest.toml`.

use std::path::{Path, PathBuf};

use super::arguments::Arguments;
use crate::command::CommandLine;

/// Where the facts of a group come from; groups with the same sources share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// Options for `cargo metadata`.
    options: Vec<String>,
    /// Whether batches run an earlier build, which brings its own output of `cargo metadata`.
    is_prebuilt: bool,
    /// The value of `--target`.
    target: Option<String>,
    /// The configuration file, if it is named.
    config_file: Option<String>,
    /// The root of the workspace, if it is named.
    workspace: Option<String>,
}

impl Sources {
    /// The sources of a group with these arguments.
    pub fn of(arguments: &Arguments) -> Sources {
        Sources {
            options: arguments.metadata.clone(),
            is_prebuilt: arguments.prebuilt.is_some(),
            target: arguments.target.clone(),
            config_file: arguments.config_file.clone(),
            workspace: arguments.workspace.clone(),
        }
    }

    /// A command that copies the project's configuration to `copy`, if there is any, and prints what `cargo metadata`
    /// would tell nextest, once for all batches. `None` if nothing is needed.
    pub fn command(&self, copy: Option<&Path>) -> Option<CommandLine> {
        let mut script = copy.map(|copy| self.copy_script(copy)).unwrap_or_default();
        if !self.is_prebuilt {
            let options = shell_words::join(&self.options);
            let target = match &self.target {
                Some(target) => format!("target={}", shell_words::quote(target)),
                None => "target=$(rustc -vV | sed -n 's/^host: //p')".to_owned(),
            };
            script.push_str(&format!(
                "{target}; exec cargo metadata --format-version=1 --all-features {options} \
                 ${{target:+--filter-platform \"$target\"}}"
            ));
        }
        (!script.is_empty()).then(|| CommandLine::shell(script))
    }

    fn copy_script(&self, copy: &Path) -> String {
        let copy = shell_words::quote(&copy.to_string_lossy()).into_owned();
        let in_workspace = |root: &str| PathBuf::from(root).join(".config/nextest.toml");
        let named = self.config_file.clone().map(PathBuf::from);
        let named = named.or_else(|| self.workspace.as_deref().map(in_workspace));
        let (before, source) = match named {
            Some(file) => (String::new(), shell_words::quote(&file.to_string_lossy()).into_owned()),
            None => {
                let options = shell_words::join(&self.options);
                let locate = format!("cargo locate-project --workspace --message-format=plain {options}");
                (format!("manifest=$({locate}); "), "\"${manifest%/*}/.config/nextest.toml\"".to_owned())
            }
        };
        format!("{before}if [ -f {source} ]; then cp {source} {copy}; fi; ")
    }
}
