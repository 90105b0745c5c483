//! The requests for one sandbox of Modal: commands, files, destruction.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::{Site, TAG, whole_seconds};
use crate::cancel::Cancel;
use crate::model::Exit;
use crate::process::Finished;
use crate::provider::ProviderError;
use crate::provider::patience::{destroy_with_tries, patiently};
use crate::provider::remote::{Text, Transport};

/// A command in a sandbox is ended there this long after its deadline here, in case nobody else does it.
const SLACK: Duration = Duration::from_secs(10);
/// How long the destruction of a sandbox may take.
const DESTRUCTION: Duration = Duration::from_secs(30);
/// The same for all sandboxes of a run.
const SWEEP: Duration = Duration::from_secs(300);

impl Transport for Site {
    fn exec(&self, id: &str, text: &Text<'_>, cancel: &Cancel) -> Result<Finished, ProviderError> {
        let env: Map<String, Value> =
            text.env.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let request = json!({
            "sandbox": id,
            "command": ["sh", "-c", text.line],
            "env": env,
            "stdout": text.streams.stdout,
            "stderr": text.streams.stderr,
            "timeout": whole_seconds(text.deadline + SLACK),
        });
        let started = Instant::now();
        let finished = |exit| Ok(Finished { exit, elapsed: started.elapsed(), leaked: false });
        match self.driver.call("exec", &request, text.deadline, cancel) {
            Ok(answer) => {
                let status = answer["status"].as_i64().and_then(|status| i32::try_from(status).ok());
                finished(Exit::Code(status.unwrap_or(-1)))
            }
            Err(Failure::TimedOut) => finished(Exit::TimedOut),
            Err(Failure::Abandoned) => finished(Exit::Cancelled),
            Err(failure) => Err(failure.of_a_sandbox(id)),
        }
    }

    fn carries_env(&self) -> bool {
        true
    }

    fn brings_reports(&self) -> bool {
        true
    }

    fn copy(
        &self,
        id: &str,
        pairs: &[(PathBuf, PathBuf)],
        cancel: &Cancel,
    ) -> Option<Result<(), ProviderError>> {
        let request = json!({ "sandbox": id, "pairs": pairs, "scratch": self.shared.scratch });
        Some(patiently(cancel, || {
            let copied = self.driver.call("download", &request, self.shared.timeout, cancel);
            copied.map(drop).map_err(|failure| failure.of_a_sandbox(id))
        }))
    }

    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        let request = json!({ "sandbox": id });
        // A driver that does not answer will not answer the next time.
        destroy_with_tries(DESTRUCTION, || {
            let destroyed = self.driver.call("destroy", &request, DESTRUCTION, &Cancel::new());
            destroyed.map(drop).map_err(|failure| failure.of_a_sandbox(id))
        })
    }
}

impl Site {
    /// Destroys all sandboxes that carry the name of the run, and gives their ids.
    pub(super) fn sweep(&self) -> Result<Vec<String>, ProviderError> {
        let request = json!({ "tags": { TAG: self.settings.context.run } });
        let answer = destroy_with_tries(SWEEP, || {
            self.driver.call("sweep", &request, SWEEP, &Cancel::new()).map_err(Failure::of_an_image)
        })?;
        let ids = answer["sandboxes"].as_array().into_iter().flatten();
        Ok(ids.filter_map(|id| id.as_str().map(str::to_owned)).collect())
    }
}
