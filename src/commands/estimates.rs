//! Estimates from earlier runs: how long tests take, how much that varies, and the overhead of batches.

use std::collections::HashMap;
use std::time::Duration;

use super::recording;
use crate::config::{Config, FrameworkKind, Provider};
use crate::framework::Grain;
use crate::history::{History, Record};
use crate::model::Suite;
use crate::plan::{self, Conditions, Overhead};
use crate::{files, junit};

/// The estimate for a test without history or configuration.
const DEFAULT_DURATION: Duration = Duration::from_secs(1);
/// With fewer degrees of freedom the variation of tests is unknown.
const FEWEST_DEGREES: u32 = 10;

/// Estimates from earlier runs.
#[derive(Clone, Debug)]
pub struct Estimates {
    /// How long tests take.
    known: HashMap<String, Duration>,
    default: Duration,
    overhead: Overhead,
    noise: Option<f64>,
}

impl Estimates {
    /// Estimates from the history and, for tests that are not in it, from the last report. `name` is the name
    /// of the configuration file.
    pub fn gather(config: &Config, name: &str) -> Estimates {
        let mut estimates = Estimates {
            known: last_report(config),
            default: DEFAULT_DURATION,
            overhead: usual_overhead(config),
            noise: None,
        };
        if let Some(settings) = &config.history {
            estimates.default = settings.default_duration;
            match History::load(&settings.path) {
                Ok(history) => estimates.add(&history, name),
                Err(error) => log::warn!("planning without the history: {error:#}"),
            }
        }
        estimates
    }

    fn add(&mut self, history: &History, name: &str) {
        let (mut squares, mut degrees, mut total) = (0.0, 0.0, 0);
        for (id, record) in history.of(name).filter(|(id, _)| !recording::is_own(id)) {
            let Some(typical) = record.typical() else { continue };
            self.known.insert(id.to_owned(), typical);
            // Long tests matter more.
            if let Some(spread) = record.spread() {
                squares += typical.as_secs_f64() * spread.squares;
                degrees += typical.as_secs_f64() * f64::from(spread.degrees);
                total += spread.degrees;
            }
        }
        self.noise = (total >= FEWEST_DEGREES && degrees > 0.0).then(|| (squares / degrees).sqrt());
        let learned = |id| history.get(name, id).and_then(Record::typical);
        if let Some(per_batch) = learned(recording::PER_BATCH) {
            let per_file = learned(recording::PER_FILE).unwrap_or_default();
            let pace = learned(recording::PACE).map_or(1.0, |pace| pace.as_secs_f64().clamp(0.01, 1.0));
            self.overhead = Overhead { per_batch, per_file, pace };
        }
    }

    /// Sets the expected duration of each test of `suite`.
    pub fn apply(&self, suite: &mut Suite) {
        plan::estimate(suite, &self.known, self.default);
    }

    /// The overhead of batches.
    pub fn overhead(&self) -> Overhead {
        self.overhead
    }

    /// The conditions to plan for.
    pub fn conditions(&self, machines: usize, grain: Grain) -> Conditions {
        Conditions { machines, grain, overhead: self.overhead, noise: self.noise }
    }
}

fn last_report(config: &Config) -> HashMap<String, Duration> {
    let path = config.report.output_dir.join(&config.report.junit_file);
    files::open(&path).map(junit::previous_durations).unwrap_or_default()
}

/// The overhead of a batch before any was measured: the start of the runner, and the round trip to a
/// sandbox.
fn usual_overhead(config: &Config) -> Overhead {
    let (start, per_file) = match config.framework.kind {
        FrameworkKind::Pytest { .. } => (500, 10),
        FrameworkKind::Vitest { .. } => (1000, 100),
        FrameworkKind::Nextest { .. } | FrameworkKind::Custom { .. } => (100, 0),
    };
    let way = if matches!(config.provider, Provider::Local(_)) { 0 } else { 1000 };
    Overhead::new(Duration::from_millis(start + way), Duration::from_millis(per_file))
}
