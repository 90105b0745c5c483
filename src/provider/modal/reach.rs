//! How a sandbox of Modal is reached: its commands, its files, its end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::{Site, TAG, whole_seconds};
use crate::cancel::Cancel;
use crate::model::Exit;
use crate::process::Finished;
use crate::provider::ProviderError;
use crate::provider::patience::patiently;
use crate::provider::remote::{Text, Transport};

/// A command in a sandbox is ended there so long after its deadline here, in case nobody else does it.
const SLACK: Duration = Duration::from_secs(10);
/// The end of a sandbox takes no longer.
const DESTRUCTION: Duration = Duration::from_secs(30);
/// That of all of a run's.
const SWEEP: Duration = Duration::from_secs(300);
/// So often the destruction of a sandbox is tried.
const TRIES: u32 = 3;

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
        let request = json!({ "sandbox": id, "pairs": pairs, "scratch": self.common.scratch });
        Some(patiently(cancel, || {
            let copied = self.driver.call("download", &request, self.common.timeout, cancel);
            copied.map(drop).map_err(|failure| failure.of_a_sandbox(id))
        }))
    }

    fn destroy(&self, id: &str) -> Result<(), ProviderError> {
        let never = Cancel::new();
        let request = json!({ "sandbox": id });
        let destroy = || {
            let destroyed = self.driver.call("destroy", &request, DESTRUCTION, &never);
            destroyed.map(drop).map_err(|failure| failure.of_a_sandbox(id))
        };
        let mut result = Ok(());
        for _ in 0..TRIES {
            let began = Instant::now();
            result = patiently(&never, destroy);
            // A driver that does not answer will not answer the next time.
            if result.is_ok() || began.elapsed() >= DESTRUCTION {
                break;
            }
        }
        result
    }
}

impl Site {
    /// Destroys all sandboxes that carry the name of `run`, and gives their ids.
    pub(super) fn sweep(&self, run: &str) -> Result<Vec<String>, ProviderError> {
        let never = Cancel::new();
        let request = json!({ "tags": { TAG: run } });
        let answer = patiently(&never, || {
            self.driver.call("sweep", &request, SWEEP, &never).map_err(Failure::of_an_image)
        })?;
        let ids = answer["sandboxes"].as_array().into_iter().flatten();
        Ok(ids.filter_map(|id| id.as_str().map(str::to_owned)).collect())
    }
}
