//! What a batch costs in addition to its tests, learned from earlier batches.

use std::time::Duration;

use crate::history::median;
use crate::summary::BatchTiming;

/// What a batch costs in addition to its tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overhead {
    /// To start and end it.
    pub per_batch: Duration,
    /// For each file with tests in it.
    pub per_file: Duration,
    /// Seconds of a batch per second of its tests: 1, or less if the runner runs tests in parallel; above 0.
    pub pace: f64,
}

impl Overhead {
    /// The overhead of a runner that runs one test at a time.
    pub const fn new(per_batch: Duration, per_file: Duration) -> Overhead {
        Overhead { per_batch, per_file, pace: 1.0 }
    }

    /// The expected duration of a batch.
    pub fn batch(&self, tests: Duration, files: u32) -> Duration {
        self.per_batch + self.per_file * files + tests.mul_f64(self.pace)
    }

    /// The overhead that explains these batches best; `None` without any.
    ///
    /// The overhead per file is the slope of the time that batches took in addition to their tests. It is estimated
    /// with Theil and Sen's method, the median of the slopes of all pairs, which outliers do not affect. The
    /// overhead per batch is the mean of the remainders without the highest and lowest tenth: slow starts should
    /// count, since overheads add up over a run, but not a batch that hung.
    pub fn learn(batches: &[BatchTiming]) -> Option<Overhead> {
        let elapsed: f64 = batches.iter().map(|seen| seen.elapsed.as_secs_f64()).sum();
        let tests: f64 = batches.iter().map(|seen| seen.tests.as_secs_f64()).sum();
        let pace = if tests > elapsed { (elapsed / tests).max(0.01) } else { 1.0 };
        let beside: Vec<(f64, f64)> = batches
            .iter()
            .map(|seen| (f64::from(seen.files), seen.elapsed.as_secs_f64() - pace * seen.tests.as_secs_f64()))
            .collect();
        let mut slopes = Vec::new();
        for (place, (files, seconds)) in beside.iter().enumerate().take(MOST_COMPARED) {
            for (others, more) in beside.iter().take(place) {
                if (files - others).abs() >= 1.0 {
                    slopes.push((seconds - more) / (files - others));
                }
            }
        }
        let per_file = median(slopes).unwrap_or_default().max(0.0);
        let rests = beside.iter().map(|(files, seconds)| seconds - per_file * files).collect();
        let per_batch = trimmed_mean(rests)?.max(0.0);
        let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Some(Overhead { per_batch: duration(per_batch), per_file: duration(per_file), pace })
    }
}

/// The mean without the highest and lowest tenth; `None` without values.
fn trimmed_mean(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let cut = values.len() / 10;
    let kept = &values[cut..values.len() - cut];
    (!kept.is_empty()).then(|| kept.iter().sum::<f64>() / kept.len() as f64)
}

/// The maximum number of batches to compare pairwise.
const MOST_COMPARED: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(elapsed: f64, tests: f64, files: u32) -> BatchTiming {
        BatchTiming {
            elapsed: Duration::from_secs_f64(elapsed),
            tests: Duration::from_secs_f64(tests),
            files,
        }
    }

    fn close(one: Duration, seconds: f64) -> bool {
        (one.as_secs_f64() - seconds).abs() < 1e-6
    }

    #[test]
    fn overheads_are_learned_from_batches() {
        let batches: Vec<BatchTiming> = [(3.0, 1), (7.0, 4), (0.5, 2), (20.0, 30), (1.0, 9)]
            .iter()
            .map(|(tests, files)| seen(0.6 + 0.05 * f64::from(*files) + tests, *tests, *files))
            .collect();
        let learned = Overhead::learn(&batches).unwrap();
        assert!(close(learned.per_batch, 0.6) && close(learned.per_file, 0.05), "{learned:?}");
        assert!((learned.pace - 1.0).abs() < 1e-9);
        assert!(close(learned.batch(Duration::from_secs(2), 4), 2.8));
    }

    #[test]
    fn a_parallel_runner_has_a_pace_below_1() {
        let learned = Overhead::learn(&[seen(5.0, 10.0, 0), seen(2.0, 4.0, 0)]).unwrap();
        assert!((learned.pace - 0.5).abs() < 1e-9 && close(learned.per_batch, 0.0), "{learned:?}");
    }

    #[test]
    fn files_never_make_a_batch_shorter() {
        let learned = Overhead::learn(&[seen(3.0, 1.0, 1), seen(2.0, 1.0, 5)]).unwrap();
        assert!(close(learned.per_file, 0.0) && close(learned.per_batch, 1.5), "{learned:?}");
    }

    #[test]
    fn batches_with_equal_numbers_of_files_say_nothing_about_files() {
        let batches = [seen(1.0, 0.0, 2), seen(2.0, 0.0, 2), seen(3.0, 0.0, 2), seen(2.5, 0.0, 3)];
        // Between these three and the fourth the slopes are 1.5, 0.5 and -0.5.
        let learned = Overhead::learn(&batches).unwrap();
        assert!(close(learned.per_file, 0.5) && close(learned.per_batch, 1.0), "{learned:?}");
    }

    #[test]
    fn outliers_hardly_matter_and_no_batches_give_nothing() {
        assert_eq!(Overhead::learn(&[]), None);
        let mut batches = vec![seen(1.5, 1.0, 1); 9];
        batches.push(seen(500.0, 1.0, 1));
        assert!(close(Overhead::learn(&batches).unwrap().per_batch, 0.5));
    }
}
