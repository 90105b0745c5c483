//! The history: how long each test took and how often it failed, kept from run to run in one file of
//! JSON lines. What is recorded, and what an estimate is for, is left to others.

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

/// So many of the newest samples say how long a test takes now.
const RECENT: usize = 9;
/// With fewer passes than this their median says less than their mean.
const FEWEST_FOR_MEDIAN: usize = 3;
/// Shorter durations are mostly the clock's.
const SHORTEST_TOLD: f64 = 0.001;
/// No test takes ten years.
const LONGEST: f64 = 10.0 * 365.25 * 86_400.0;

/// How long one observation took. Two samples are the same if all three parts are.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The id of the run.
    pub run: Arc<str>,
    /// When it was recorded, in milliseconds since the epoch.
    pub at: u64,
    /// Its duration; finite and not negative in a history.
    pub seconds: f64,
}

impl Sample {
    /// The sample as a history keeps it: whole microseconds, which every reader of JSON reads alike.
    /// `None` where this is no duration of a test.
    fn tidied(self) -> Option<Sample> {
        let seconds = is_duration(self.seconds).then(|| (self.seconds * 1e6).round() / 1e6)?;
        Some(Sample { seconds, ..self })
    }
}

fn is_duration(seconds: f64) -> bool {
    (0.0..=LONGEST).contains(&seconds)
}

/// Older ones first.
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

/// What is to be remembered of an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It passed.
    Passed(Sample),
    /// It failed.
    Failed(Sample),
}

/// How widely the durations of a test lie, as logarithms. Sums of both parts over several tests give
/// the variance that they have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The squared distances of ln(seconds) from their mean, summed up.
    pub squares: f64,
    /// The degrees of freedom: one less than the number of durations, at least 1.
    pub degrees: u32,
}

/// What is known of one test. Samples stand in order, older ones first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// All attempts ever counted; at least as many as there are samples.
    pub attempts: u64,
    /// How many of them failed.
    pub failures: u64,
    /// The run that was counted last.
    pub last_run: Arc<str>,
    /// Durations of attempts that passed.
    pub passed: Vec<Sample>,
    /// Durations of attempts that failed.
    pub failed: Vec<Sample>,
}

impl Record {
    /// How long the test is expected to take: the median of recent passes, of very few their mean;
    /// that of failures where it never passed. `None` without any sample.
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

    /// How widely the recent passes lie; `None` where fewer than two of them can be told from nothing.
    pub fn spread(&self) -> Option<Spread> {
        let recent = self.passed.iter().rev().take(RECENT).map(|sample| sample.seconds);
        let logs: Vec<f64> = recent.filter(|seconds| *seconds > SHORTEST_TOLD).map(f64::ln).collect();
        let degrees = u32::try_from(logs.len()).ok()?.checked_sub(1).filter(|degrees| *degrees > 0)?;
        let mean = mean(&logs)?;
        Some(Spread { squares: logs.iter().map(|log| (log - mean).powi(2)).sum(), degrees })
    }

    /// Puts samples in order and mends counts that cannot be true.
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
    // A test has few samples: their number is exact as a float.
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The middle one of `values`, of an even number the mean of the two middle ones; `None` without any.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => mean(values.get(middle.checked_sub(1)?..=middle)?),
        _ => values.get(middle).copied(),
    }
}

/// What is known of the tests of any number of configurations, each known by the name of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// By configuration, then by test id.
    records: BTreeMap<Arc<str>, BTreeMap<Box<str>, Record>>,
}

impl History {
    /// What is known of the test `id` of the configuration file named `config`.
    pub fn get(&self, config: &str, id: &str) -> Option<&Record> {
        self.records.get(config)?.get(id)
    }

    /// All tests of the configuration file named `config`, in order of their ids.
    pub fn of(&self, config: &str) -> impl Iterator<Item = (&str, &Record)> {
        self.records.get(config).into_iter().flatten().map(|(id, record)| (&**id, record))
    }

    /// How many tests are known.
    pub fn len(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The most samples that a test has of one outcome.
    pub fn largest_reservoir(&self) -> usize {
        let records = self.records.values().flat_map(BTreeMap::values);
        records.map(|record| record.passed.len().max(record.failed.len())).max().unwrap_or(0)
    }

    /// Counts an observation at the test `id` and keeps its sample, of each outcome at most `capacity` ones.
    /// A sample that is no duration (negative, infinite, of years) is left out, its observation counts.
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
