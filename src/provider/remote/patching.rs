//! Brings the difference between an image and the working tree into a sandbox, by its shell alone.

use super::sandbox::Remote;
use crate::cancel::Cancel;
use crate::git::patch::{pieces, printing};
use crate::provider::{ProviderError, ThinDiff};

/// A script is brought to a sandbox in pieces of at most this many bytes.
const PIECE: usize = 40 * 1024;

/// Applies the difference in `sandbox`, then runs the command that follows it.
///
/// # Errors
/// `Refused` where it cannot be applied, `Lost` where the run is stopping.
pub fn patch(sandbox: &mut Remote, difference: &ThinDiff, cancel: &Cancel) -> Result<(), ProviderError> {
    let id = sandbox.id().to_owned();
    let directory = sandbox.directory("diff");
    let directory = shell_words::quote(&directory).into_owned();
    let env = &sandbox.shared().sandbox_env;
    let root = env.repo_root.clone().unwrap_or_else(|| ".".into());
    let project = env.project_root.clone().unwrap_or_else(|| root.clone());
    let mut texts = send(&difference.script, "diff.sh", &directory);
    let mut last = format!("( cd {} && sh {directory}/diff.sh )", shell_words::quote(&root));
    if let Some(then) = &difference.then {
        let patch = std::fs::read(&difference.patch).map_err(|error| {
            ProviderError::Refused(format!("cannot read `{}`: {error}", difference.patch.display()))
        })?;
        texts.extend(send(&printing(&patch), "patch.sh", &directory));
        last += &format!(
            " && sh {directory}/patch.sh > {directory}/patch && OFFLOAD_PATCH_FILE={directory}/patch && \
             export OFFLOAD_PATCH_FILE && cd {} && sh -c {}",
            shell_words::quote(&project),
            shell_words::quote(then)
        );
    }
    // In a subshell, as it changes the directory. What it prints is for people.
    texts.push(format!("( {last} ) 1>&2; s=$?; rm -rf {directory}; (exit $s)"));
    if texts.iter().map(String::len).sum::<usize>() <= PIECE {
        // Each call of a provider takes time.
        let all = texts.iter().map(|text| format!("{{ {text}; }}")).collect::<Vec<_>>();
        texts = vec![all.join(" && ")];
    }
    for text in texts {
        if cancel.is_raised() {
            return Err(ProviderError::Lost(format!("the run was stopped before sandbox `{id}` was ready")));
        }
        sandbox.run_script(&text).map_err(|error| match error {
            ProviderError::Refused(message) => ProviderError::Refused(format!(
                "cannot bring the changes since the image was made into sandbox `{id}`: {message}"
            )),
            error => error,
        })?;
    }
    Ok(())
}

/// The scripts that write `script` to a file in `directory` of a sandbox.
fn send(script: &str, name: &str, directory: &str) -> Vec<String> {
    let mut texts = vec![format!("mkdir -p {directory} && : > {directory}/{name}")];
    let piece = |piece: String| format!("printf %s {} >> {directory}/{name}", shell_words::quote(&piece));
    texts.extend(pieces(script, PIECE).into_iter().map(piece));
    texts
}
