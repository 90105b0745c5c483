//! The history: how long each test took and how often it failed, kept between runs in a JSON Lines file. What to
//! record and how to use estimates is decided elsewhere.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod merge;
mod read;
mod reservoir;
mod update;
mod write;

#[cfg(test)]
mod tests;

pub use merge::merge;
pub use read::Faults;
pub use update::update;

use reservoir::Draw;

/// The number of newest samples that determine how long a test takes.
const RECENT: usize = 9;
/// With fewer passes than this, the mean is better than the median.
const FEWEST_FOR_MEDIAN: usize = 3;
/// Durations up to this many seconds are mostly clock noise.
const SHORTEST: f64 = 0.001;
/// The maximum duration in seconds: ten years.
const LONGEST: f64 = 10.0 * 365.25 * 86_400.0;

/// The duration of one observation. Samples are equal if all three parts are.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The id of the run.
    pub run: Arc<str>,
    /// When it was recorded, in milliseconds since the epoch.
    pub at: u64,
    /// The duration; within a history, finite and not negative.
    pub seconds: f64,
}

impl Sample {
    /// The sample rounded to whole microseconds, so that all JSON readers get the same number. `None` if the
    /// duration is invalid.
    fn tidied(self) -> Option<Sample> {
        let seconds = is_duration(self.seconds).then(|| (self.seconds * 1e6).round() / 1e6)?;
        Some(Sample { seconds, ..self })
    }
}

fn is_duration(seconds: f64) -> bool {
    (0.0..=LONGEST).contains(&seconds)
}

/// By time, then by run and duration.
impl Ord for Sample {
    fn cmp(&self, other: &Sample) -> Ordering {
        let by_time = self.at.cmp(&other.at).then_with(|| self.run.cmp(&other.run));
        by_time.then_with(|| self.seconds.total_cmp(&other.seconds))
    }
}

impl PartialOrd for Sample {
    fn partial_cmp(&self, other: &Sample) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sample {
    fn eq(&self, other: &Sample) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sample {}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It passed.
    Passed(Sample),
    /// It failed.
    Failed(Sample),
}

/// How much the durations of a test vary. Summing both fields over several tests gives their pooled variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The sum of squared deviations of ln(seconds) from its mean.
    pub squares: f64,
    /// The degrees of freedom: one less than the number of durations, at least 1.
    pub degrees: u32,
}

/// What is known about one test. Samples are ordered from oldest to newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The number of attempts ever counted; at least the number of samples.
    pub attempts: u64,
    /// The number of attempts that failed.
    pub failures: u64,
    /// The id of the last run that was counted.
    pub last_run: Arc<str>,
    /// Durations of attempts that passed.
    pub passed: Vec<Sample>,
    /// Durations of attempts that failed.
    pub failed: Vec<Sample>,
}

impl Record {
    /// The expected duration: the median of recent passes, or their mean if there are few, or the mean of recent
    /// failures if the test never passed. `None` without samples.
    pub fn typical(&self) -> Option<Duration> {
        let recent = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().rev().take(RECENT).map(|sample| sample.seconds).collect()
        };
        let passed = recent(&self.passed);
        let seconds = match passed.len() {
            0 => mean(&recent(&self.failed)),
            count if count < FEWEST_FOR_MEDIAN => mean(&passed),
            _ => median(passed),
        };
        Duration::try_from_secs_f64(seconds?).ok()
    }

    /// How much the recent passes vary; `None` with fewer than two that are longer than clock noise.
    pub fn spread(&self) -> Option<Spread> {
        let recent = self.passed.iter().rev().take(RECENT).map(|sample| sample.seconds);
        let logs: Vec<f64> = recent.filter(|seconds| *seconds > SHORTEST).map(f64::ln).collect();
        let degrees = u32::try_from(logs.len()).ok()?.checked_sub(1).filter(|degrees| *degrees > 0)?;
        let mean = mean(&logs)?;
        Some(Spread { squares: logs.iter().map(|log| (log - mean).powi(2)).sum(), degrees })
    }

    /// Sorts samples and corrects impossible counts.
    fn settle(mut self) -> Record {
        self.passed.sort_unstable();
        self.failed.sort_unstable();
        let (passed, failed) = (self.passed.len() as u64, self.failed.len() as u64);
        self.attempts = self.attempts.max(passed + failed);
        self.failures = self.failures.clamp(failed, self.attempts - passed);
        self
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The median of `values`; `None` without values.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => mean(values.get(middle.checked_sub(1)?..=middle)?),
        _ => values.get(middle).copied(),
    }
}

/// What is known about the tests of several configurations, which are identified by file name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By configuration, then by test id.
    records: BTreeMap<Arc<str>, BTreeMap<Box<str>, Record>>,
}

impl History {
    /// The record of the test `id` of the configuration file named `config`.
    pub fn get(&self, config: &str, id: &str) -> Option<&Record> {
        self.records.get(config)?.get(id)
    }

    /// All tests of the configuration file named `config`, ordered by id.
    pub fn of(&self, config: &str) -> impl Iterator<Item = (&str, &Record)> {
        self.records.get(config).into_iter().flatten().map(|(id, record)| (&**id, record))
    }

    /// The number of tests.
    pub fn len(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }

    /// Whether there are no tests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest number of samples that any test has for one outcome.
    pub fn largest_reservoir(&self) -> usize {
        let records = self.records.values().flat_map(BTreeMap::values);
        records.map(|record| record.passed.len().max(record.failed.len())).max().unwrap_or(0)
    }

    /// Counts an observation of the test `id` and adds its sample, keeping at most `capacity` per outcome. If its
    /// duration is invalid (negative, infinite, or years), the observation counts but the sample is dropped.
    pub fn add(&mut self, config: &str, id: &str, observation: Observation, capacity: usize) {
        let (sample, failed) = match observation {
            Observation::Passed(sample) => (sample, false),
            Observation::Failed(sample) => (sample, true),
        };
        let record = self.entry(config, id, &sample.run);
        record.attempts = record.attempts.saturating_add(1);
        record.failures = record.failures.saturating_add(u64::from(failed));
        record.last_run = Arc::clone(&sample.run);
        let samples = if failed { &mut record.failed } else { &mut record.passed };
        if let Some(sample) = sample.tidied() {
            let place = samples.partition_point(|other| *other <= sample);
            samples.insert(place, sample);
            reservoir::reduce(samples, capacity, Draw::new(config, id));
        }
    }

    fn entry(&mut self, config: &str, id: &str, run: &Arc<str>) -> &mut Record {
        if !self.records.contains_key(config) {
            self.records.insert(config.into(), BTreeMap::new());
        }
        let empty = || Record {
            attempts: 0,
            failures: 0,
            last_run: Arc::clone(run),
            passed: Vec::new(),
            failed: Vec::new(),
        };
        self.records.entry(config.into()).or_default().entry(id.into()).or_insert_with(empty)
    }
}
