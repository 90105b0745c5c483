//! One planned and simulated run.

use std::collections::HashMap;
use std::time::Duration;

use offload::internals::framework::Grain;
use offload::internals::model::{Group, GroupIndex, Listed, Suite};
use offload::internals::plan::{self, Conditions, Overhead};

use crate::policy::{Batches, Policy};
use crate::trace::{Random, Trace};

/// Seconds for each file that a batch touches.
const PER_FILE: f64 = 0.01;

/// What the program assumes of a batch's overhead before it has seen any: what it does not know of a
/// provider is whether it is near or far.
fn assumed(overhead: f64) -> Overhead {
    Overhead::new(Duration::from_millis(if overhead > 1.0 { 2000 } else { 500 }), Duration::ZERO)
}

/// The circumstances of a run.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub machines: u32,
    /// Seconds a batch.
    pub overhead: f64,
    /// The spread of what a test takes.
    pub noise: f64,
    /// The part of the tests of which nothing is known.
    pub unknown: f64,
    /// How many times slower one of the machines is.
    pub slow: f64,
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Result {
    pub makespan: f64,
    pub fluid: f64,
    pub batches: usize,
    /// Each machine's share of what the files cost if each is touched once.
    pub files_once: f64,
}

impl Result {
    pub fn ratio(self) -> f64 {
        self.makespan / self.fluid
    }
}

impl Case {
    /// Whether nothing is left to chance, so that all seeds give the same run.
    pub fn is_certain(self) -> bool {
        self.noise == 0.0 && (self.unknown == 0.0 || self.unknown == 1.0) && self.slow == 1.0
    }

    /// Plans `trace` with each of `policies` and runs it, with chance from `seed`.
    pub fn run(self, trace: &Trace, policies: &[Policy], seed: u64) -> Vec<Result> {
        let mut random = Random::new(seed);
        let group = Group { name: "all".into(), filters: String::new(), max_attempts: 1, solo: false };
        let mut suite = Suite::new(vec![group]);
        let mut known = HashMap::new();
        let mut actual = Vec::new();
        for (number, (file, seconds)) in trace.rows.iter().enumerate() {
            let id = format!("f{file}::t{number}");
            if random.uniform() >= self.unknown {
                known.insert(id.clone(), Duration::from_secs_f64(*seconds));
            }
            actual.push(random.lognormal(*seconds, self.noise));
            suite.add(Listed::new(GroupIndex(0), id, Some(format!("f{file}").into())));
        }
        plan::estimate(&mut suite, &known, Duration::from_secs(1));
        let learned =
            Overhead::new(Duration::from_secs_f64(self.overhead), Duration::from_secs_f64(PER_FILE));
        let conditions = Conditions {
            machines: self.machines as usize,
            grain: Grain::Test,
            overhead: if known.is_empty() { assumed(self.overhead) } else { learned },
            noise: (!known.is_empty()).then_some(self.noise),
        };
        policies
            .iter()
            .map(|policy| self.simulate(&suite, &policy.plan(&suite, &conditions), &actual, seed))
            .collect()
    }

    fn simulate(self, suite: &Suite, batches: &Batches, actual: &[f64], seed: u64) -> Result {
        let slow = (seed % u64::from(self.machines)) as u32;
        let duration = |batch: &Vec<offload::internals::model::TestIndex>| {
            let mut files: Vec<&str> =
                batch.iter().filter_map(|test| suite.test(*test).file.as_deref()).collect();
            files.sort_unstable();
            files.dedup();
            let tests: f64 = batch.iter().map(|test| actual[test.0 as usize]).sum();
            self.overhead + PER_FILE * files.len() as f64 + tests
        };
        let makespan = plan::list_schedule(batches.iter().map(duration), self.machines, |machine| {
            if machine == slow { self.slow } else { 1.0 }
        });
        let speed = f64::from(self.machines) - 1.0 + 1.0 / self.slow;
        let longest = actual.iter().copied().fold(0.0, f64::max);
        let files: std::collections::HashSet<&str> =
            suite.tests().iter().filter_map(|test| test.file.as_deref()).collect();
        Result {
            makespan,
            fluid: (actual.iter().sum::<f64>() / speed).max(longest),
            batches: batches.len(),
            files_once: PER_FILE * files.len() as f64 / f64::from(self.machines),
        }
    }
}
