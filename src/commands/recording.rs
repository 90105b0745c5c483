//! Records the results of a run in the history.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::config;
use crate::history::{self, History, Observation, Sample};
use crate::model::{Outcome, Suite, TestIndex};
use crate::plan::Overhead;
use crate::summary::{BatchTiming, Summary};

/// The record of the seconds that a batch takes in addition to its tests. Records about batches look like
/// those of tests, so that every reader keeps and merges them; their IDs begin with a line feed, which no
/// test ID contains.
pub const PER_BATCH: &str = "\nseconds per batch";
/// The record of the additional seconds for each file of a batch.
pub const PER_FILE: &str = "\nseconds per file";
/// The record of the seconds that a batch takes for each second of its tests.
pub const PACE: &str = "\nseconds per second of tests";

/// Whether a record is about batches, not about a test.
pub fn is_own(id: &str) -> bool {
    id.starts_with('\n')
}

/// Adds all attempts of a run, and the overhead of its batches, to the history. `name` is the name of the
/// configuration file.
///
/// # Errors
/// When the file cannot be read or written; it is then unchanged.
pub fn record(
    settings: &config::History,
    name: &str,
    suite: &Suite,
    summary: &Summary,
    batches: &[BatchTiming],
) -> Result<()> {
    let run = Run::new(name, settings.reservoir_size);
    history::update(&settings.path, |history| {
        for (index, attempts) in suite.indices().zip(&summary.attempts) {
            for attempt in attempts {
                run.attempt(history, suite, index, attempt);
            }
        }
        if let Some(Overhead { per_batch, per_file, pace }) = Overhead::learn(batches) {
            let learned =
                [(PER_BATCH, per_batch.as_secs_f64()), (PER_FILE, per_file.as_secs_f64()), (PACE, pace)];
            for (id, seconds) in learned {
                history.add(name, id, Observation::Passed(run.sample(0, seconds)), run.capacity);
            }
        }
    })
}

struct Run<'a> {
    config: &'a str,
    capacity: usize,
    id: Arc<str>,
    /// Milliseconds since the epoch.
    at: u64,
}

impl Run<'_> {
    fn new(config: &str, capacity: usize) -> Run<'_> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Runs that start in the same millisecond differ in process ID or nanoseconds.
        let chance = u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 10);
        let id = format!("{}{}", base36(at), base36(chance % 46_656));
        Run { config, capacity, id: id.into(), at }
    }

    fn sample(&self, number: u32, seconds: f64) -> Sample {
        // Samples of a test from the same run differ in time.
        Sample { run: Arc::clone(&self.id), at: self.at + u64::from(number), seconds }
    }

    fn attempt(
        &self,
        history: &mut History,
        suite: &Suite,
        index: TestIndex,
        attempt: &crate::model::Attempt,
    ) {
        let id = suite.test(index).id.as_str();
        let sample = self.sample(attempt.number - 1, attempt.result.duration.as_secs_f64());
        let entry = match attempt.result.outcome {
            Outcome::Passed | Outcome::ExpectedFailure => Observation::Passed(sample),
            Outcome::Failed | Outcome::Errored | Outcome::TimedOut => Observation::Failed(sample),
            // A skipped test takes no time here; that is only useful if nothing else is known.
            Outcome::Skipped if history.get(self.config, id).is_none() => Observation::Passed(sample),
            Outcome::Skipped => return,
        };
        history.add(self.config, id, entry, self.capacity);
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
    }
    digits.iter().rev().collect()
}
