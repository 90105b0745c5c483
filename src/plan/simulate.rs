//! Simulates runs in which tests take longer or shorter than expected.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::work::Work;
use super::{Conditions, DEFAULT_NOISE};
use crate::random;

/// The number of simulated runs with equal machines; half as many have a slow one.
const CALM: u64 = 12;
/// With more tests than this, chance evens out and half as many runs are enough.
const MANY: usize = 20_000;
/// How much slower the slow machine is.
const SLOW: f64 = 3.0;
/// The number of factors in stock.
const FACTORS: u64 = 4096;
/// The spread (natural logarithm) of tests about which nothing is known.
const UNKNOWN_SPREAD: f64 = 1.0;
/// If no test was ever measured: multiples of the default duration that tests may take on average, equally likely.
const SCALES: [f64; 5] = [0.005, 0.05, 0.5, 5.0, 30.0];

/// Stateless, so that the order of draws does not matter.
fn hash(seed: u64, number: u64) -> u64 {
    // Zeros would be mixed to a zero, the most extreme draw of all.
    let (seed, number) =
        (seed.wrapping_mul(0xa076_1d64_78bd_642f), (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    random::mix(seed.wrapping_add(number))
}

/// Between 0 and 1, exclusive.
fn uniform(seed: u64, number: u64) -> f64 {
    random::fraction(hash(seed, number))
}

/// Lognormal with mean 1 and the given spread of the logarithm (Box and Muller, 1958).
fn factor(seed: u64, number: u64, spread: f64) -> f64 {
    let radius = (-2.0 * uniform(seed, 2 * number).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * uniform(seed, 2 * number + 1)).cos();
    (spread * normal - spread * spread / 2.0).exp()
}

/// A stock of [`factor`]s of one spread, whose mean is 1. Computing one takes longer than all else that a simulated run
/// does with a test.
struct Factors(Vec<f64>);

impl Factors {
    fn new(spread: f64) -> Factors {
        let drawn: Vec<f64> = (0..FACTORS).map(|number| factor(0, number, spread)).collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        Factors(drawn.into_iter().map(|factor| factor / mean).collect())
    }

    fn draw(&self, seed: u64, number: u64) -> f64 {
        self.0[(hash(seed, number) % FACTORS) as usize]
    }
}

/// Seconds added to the bound if no test was ever measured, so that small differences do not decide.
const INDIFFERENCE: f64 = 10.0;

/// A simulated run.
pub(super) struct Scenario {
    /// As [`Work::sums`], with the durations of this run.
    sums: Vec<f64>,
    /// The slow machine, if there is one.
    slow: Option<u32>,
    /// A lower bound on makespans, in seconds.
    pub(super) bound: f64,
}

/// The runs to try plans on.
pub(super) struct Scenarios {
    /// With equal machines; at least one.
    pub(super) calm: Vec<Scenario>,
    /// With a slow machine; empty if there is only one machine.
    pub(super) stressed: Vec<Scenario>,
}

pub(super) fn scenarios(work: &Work<'_>, conditions: &Conditions) -> Scenarios {
    let count = if work.order.len() > MANY { CALM / 2 } else { CALM };
    let nothing_varies = conditions.noise == Some(0.0) && work.suite.tests().iter().all(|test| test.measured);
    let calm = if nothing_varies { 1 } else { count };
    let known = Known::new(work, conditions.noise.unwrap_or(DEFAULT_NOISE));
    let calm = (0..calm).map(|seed| Scenario::new(work, conditions, &known, seed, None)).collect();
    if conditions.machines < 2 {
        return Scenarios { calm, stressed: Vec::new() };
    }
    let machines = conditions.machines as u64;
    let slow = |seed| u32::try_from(hash(seed, 7) % machines).ok();
    let stressed = |seed| Scenario::new(work, conditions, &known, seed, slow(seed));
    Scenarios { calm, stressed: (count..count + count / 2).map(stressed).collect() }
}

/// How long tests may take.
struct Known {
    /// The durations of measured tests, from which those of other tests are drawn.
    sorted: Vec<f64>,
    /// For measured tests; `None` if nothing varies.
    noise: Option<Factors>,
    /// For tests about which nothing is known.
    unknown: Factors,
}

impl Known {
    fn new(work: &Work<'_>, noise: f64) -> Known {
        let measured = work.suite.tests().iter().filter(|test| test.measured);
        let mut sorted: Vec<f64> = measured.map(|test| test.expected.as_secs_f64()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let noise = (noise > 0.0).then(|| Factors::new(noise));
        Known { sorted, noise, unknown: Factors::new(UNKNOWN_SPREAD) }
    }

    /// The duration of an unmeasured test.
    fn draw(&self, seed: u64, number: u64, expected: f64) -> f64 {
        if self.sorted.is_empty() {
            let scale = SCALES[usize::try_from(seed).unwrap_or_default() % SCALES.len()];
            return expected * scale * self.unknown.draw(seed, number);
        }
        let place = uniform(seed, number) * self.sorted.len() as f64;
        self.sorted[(place as usize).min(self.sorted.len() - 1)]
    }
}

impl Scenario {
    fn new(
        work: &Work<'_>,
        conditions: &Conditions,
        known: &Known,
        seed: u64,
        slow: Option<u32>,
    ) -> Scenario {
        let mut sums = Vec::with_capacity(work.sums.len());
        let (mut sum, mut longest) = (0.0, 0.0f64);
        sums.push(sum);
        for (number, (index, pair)) in (0..).zip(work.order.iter().zip(work.sums.windows(2))) {
            let expected = pair[1] - pair[0];
            let length = match work.suite.test(*index).measured {
                true => expected * known.noise.as_ref().map_or(1.0, |noise| noise.draw(seed, number)),
                false => known.draw(seed, number, expected),
            };
            sum += length;
            longest = longest.max(length);
            sums.push(sum);
        }
        let speed = conditions.machines as f64 - slow.map_or(0.0, |_| 1.0 - 1.0 / SLOW);
        let spare = if known.sorted.is_empty() { INDIFFERENCE } else { 0.0 };
        let bound = (sum * conditions.overhead.pace / speed).max(longest);
        Scenario { bound: bound + conditions.overhead.per_batch.as_secs_f64() + spare, sums, slow }
    }

    /// How long the batches take in this run, in seconds, if each machine takes the next batch when it is free.
    pub(super) fn makespan(&self, batches: &[Timed<'_>], conditions: &Conditions) -> f64 {
        let machines = u32::try_from(conditions.machines).unwrap_or(u32::MAX);
        let durations = batches.iter().map(|batch| {
            let sum = |place: u32| self.sums[place as usize];
            let tests: f64 = batch.pieces.iter().map(|piece| sum(piece.end) - sum(piece.start)).sum();
            batch.overhead + (tests * conditions.overhead.pace).max(batch.longest)
        });
        list_schedule(durations, machines, |machine| if self.slow == Some(machine) { SLOW } else { 1.0 })
    }
}

/// A batch, as far as the simulation is concerned.
pub(super) struct Timed<'a> {
    pub(super) pieces: &'a [super::work::Piece],
    /// Seconds in addition to its tests.
    pub(super) overhead: f64,
    /// Its longest test in seconds, a lower bound if the runner runs tests in parallel; 0 if it does not.
    pub(super) longest: f64,
}

/// When the last batch ends, in seconds, if each starts on the machine that is free first. `slowness` gives the
/// factor by which a machine is slower.
pub fn list_schedule(
    durations: impl IntoIterator<Item = f64>,
    machines: u32,
    slowness: impl Fn(u32) -> f64,
) -> f64 {
    let mut free: BinaryHeap<Reverse<(u64, u32)>> =
        (0..machines.max(1)).map(|machine| Reverse((0, machine))).collect();
    let mut end = 0;
    for duration in durations {
        let Some(mut first) = free.peek_mut() else { break };
        let Reverse((start, machine)) = *first;
        // Whole nanoseconds have a total order, and 64 bits last for centuries.
        let finish = start.saturating_add((duration * slowness(machine) * 1e9) as u64);
        *first = Reverse((finish, machine));
        end = end.max(finish);
    }
    end as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::framework::Grain;
    use crate::plan::Overhead;
    use crate::plan::tests::{Row, suite};

    /// The mean and the standard deviation.
    fn moments(values: &[f64]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt())
    }

    fn near(one: f64, other: f64, tolerance: f64) -> bool {
        (one - other).abs() < tolerance
    }

    #[test]
    fn numbers_are_uniform_and_uncorrelated() {
        for seed in 0..5 {
            let numbers: Vec<f64> = (0..10_000).map(|number| uniform(seed, number)).collect();
            assert!(numbers.iter().all(|number| (0.0..1.0).contains(number) && *number > 0.0));
            let (mean, deviation) = moments(&numbers);
            assert!(near(mean, 0.5, 0.01) && near(deviation, 1.0 / 12f64.sqrt(), 0.01), "{mean} {deviation}");
            let others: Vec<f64> = (0..10_000).map(|number| uniform(seed + 1, number)).collect();
            for follower in [&numbers[1..], &others[..9999]] {
                let pairs = numbers.iter().zip(follower);
                let covariance = pairs.map(|(one, other)| (one - 0.5) * (other - 0.5)).sum::<f64>() / 9999.0;
                assert!(near(covariance * 12.0, 0.0, 0.04), "{}", covariance * 12.0);
            }
        }
    }

    #[test]
    fn factors_have_mean_1_and_the_given_spread() {
        for spread in [0.0, 0.25, 0.8] {
            let factors: Vec<f64> = (0..20_000).map(|number| factor(3, number, spread)).collect();
            let logarithms: Vec<f64> = factors.iter().map(|factor| factor.ln()).collect();
            let ((mean, _), (middle, deviation)) = (moments(&factors), moments(&logarithms));
            assert!(near(mean, 1.0, 0.03), "{mean}");
            assert!(
                near(deviation, spread, 0.01) && near(middle, -spread * spread / 2.0, 0.02),
                "{deviation}"
            );
            let beyond = logarithms.iter().filter(|one| (*one - middle).abs() > 2.0 * spread).count();
            // In a normal distribution, 4.6 % are more than two deviations from the mean.
            assert!(spread == 0.0 || (700..1100).contains(&beyond), "{beyond}");
        }
    }

    #[test]
    fn factors_in_stock_have_mean_1_and_differ_from_run_to_run() {
        for spread in [0.0, 0.25, 1.0] {
            let factors = Factors::new(spread);
            let drawn = |seed| (0..20_000).map(|number| factors.draw(seed, number)).collect::<Vec<f64>>();
            let ((mean, deviation), (_, other)) = (moments(&drawn(1)), moments(&factors.0));
            assert!(near(mean, 1.0, 0.03) && near(deviation, other, 0.05), "{mean} {deviation} {other}");
            assert_eq!(drawn(1) == drawn(2), spread == 0.0);
        }
    }

    fn conditions(machines: usize, noise: f64, pace: f64) -> Conditions {
        let overhead = Overhead { pace, ..Overhead::new(Duration::ZERO, Duration::ZERO) };
        Conditions { machines, grain: Grain::Test, overhead, noise: Some(noise) }
    }

    /// Tests of 2, 3 and 4 seconds in turn, then some that were never measured.
    fn rows(measured: usize, others: usize) -> Vec<Row> {
        let length = |number: usize| (number < measured).then_some(2000 + 1000 * (number as u64 % 3));
        (0..measured + others).map(|number| Row::new(None, format!("t{number:05}"), length(number))).collect()
    }

    #[test]
    fn the_number_of_simulated_runs_depends_on_how_much_chance_matters() {
        let counts = |rows: &[Row], machines, noise| {
            let suite = suite(rows, &[false]);
            let scenarios = scenarios(&Work::new(&suite), &conditions(machines, noise, 1.0));
            let slow: Vec<u32> = scenarios.stressed.iter().filter_map(|scenario| scenario.slow).collect();
            assert!(
                slow.iter().all(|slow| (*slow as usize) < machines) && slow.len() == scenarios.stressed.len()
            );
            (scenarios.calm.len(), slow.len())
        };
        assert_eq!(counts(&rows(3, 0), 2, 0.5), (12, 6));
        assert_eq!(counts(&rows(3, 0), 1, 0.5), (12, 0));
        assert_eq!(counts(&rows(3, 0), 2, 0.0), (1, 6));
        assert_eq!(counts(&rows(3, 1), 2, 0.0), (12, 6));
        assert_eq!(counts(&rows(MANY, 0), 2, 0.5), (12, 6));
        assert_eq!(counts(&rows(MANY + 1, 0), 2, 0.5), (6, 3));
    }

    #[test]
    fn an_unmeasured_test_takes_as_long_as_some_measured_one() {
        let suite = suite(&rows(3, 3000), &[false]);
        let work = Work::new(&suite);
        let known = Known::new(&work, DEFAULT_NOISE);
        let drawn: Vec<f64> = (0..3000).map(|number| known.draw(1, number, 100.0)).collect();
        for length in [2.0, 3.0, 4.0] {
            let count = drawn.iter().filter(|one| **one == length).count();
            assert!((900..1100).contains(&count), "{count} of {length} s");
        }
    }

    #[test]
    fn runs_differ_in_scale_if_nothing_is_known() {
        let suite = suite(&rows(0, 5), &[false]);
        let known = Known::new(&Work::new(&suite), DEFAULT_NOISE);
        for (seed, scale) in (0..10).zip(SCALES.into_iter().cycle()) {
            let drawn: Vec<f64> = (0..20_000).map(|number| known.draw(seed, number, 2.0)).collect();
            assert!(near(moments(&drawn).0 / (2.0 * scale), 1.0, 0.1), "{seed}");
        }
    }

    #[test]
    fn a_parallel_runner_takes_proportionally_less_time() {
        let suite = suite(&rows(3, 0), &[false]);
        let work = Work::new(&suite);
        let pieces = [work.whole()];
        let makespan = |pace, longest| {
            let conditions = conditions(1, 0.0, pace);
            let batch = Timed { pieces: &pieces, overhead: 1.0, longest };
            scenarios(&work, &conditions).calm[0].makespan(&[batch], &conditions)
        };
        assert_eq!((makespan(1.0, 0.0), makespan(0.5, 0.0), makespan(0.5, 6.0)), (10.0, 5.5, 7.0));
    }

    #[test]
    fn batches_start_on_the_machine_that_is_free_first() {
        let end = |slow: Option<u32>| {
            list_schedule([3.0, 2.0, 2.0, 1.0], 2, |machine| if slow == Some(machine) { SLOW } else { 1.0 })
        };
        assert_eq!((end(None), end(Some(0)), end(Some(1))), (4.0, 9.0, 6.0));
        assert_eq!(list_schedule([1.0, 2.0], 0, |_| 1.0), 3.0);
        assert_eq!(list_schedule([], 3, |_| 1.0), 0.0);
    }
}
