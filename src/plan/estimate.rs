//! Estimates how long each test takes.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{Estimate, GroupIndex, Suite};

/// Sets the estimate of each test: its duration in `known`, else the 90th percentile of the known tests of its group,
/// else of all known tests, else `default`.
pub fn estimate(suite: &mut Suite, known: &HashMap<String, Duration>, default: Duration) {
    let mut by_group: HashMap<Option<GroupIndex>, Vec<Duration>> = HashMap::new();
    for test in suite.tests() {
        if let Some(&duration) = known.get(test.id.as_str()) {
            by_group.entry(None).or_default().push(duration);
            by_group.entry(Some(test.group)).or_default().push(duration);
        }
    }
    let percentiles: HashMap<Option<GroupIndex>, Duration> =
        by_group.into_iter().map(|(group, durations)| (group, percentile(durations))).collect();
    suite.expect(|test| match known.get(test.id.as_str()) {
        Some(duration) => Estimate { duration: *duration, measured: true },
        None => {
            let guess = percentiles.get(&Some(test.group)).or_else(|| percentiles.get(&None));
            Estimate { duration: guess.copied().unwrap_or(default), measured: false }
        }
    });
}

fn percentile(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() * 9 / 10]
}
