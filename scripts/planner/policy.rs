//! Ways to make batches: the program's own, and those it is compared with.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use offload::internals::model::{Suite, TestIndex};
use offload::internals::plan::{Conditions, Limits, Plan};

/// Batches in the order in which they start.
pub type Batches = Vec<Vec<TestIndex>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What the program does.
    Ours,
    /// LPT into one bin for each machine.
    OneBin,
    /// LPT into four bins for each machine.
    FourBins,
    /// Guided self-scheduling: each batch is one machine's share of what remains (Polychronopoulos and
    /// Kuck 1987).
    Guided,
    /// Factoring: each round is half of what remains (Hummel, Schonberg and Flynn 1992).
    Factoring,
    /// A batch for each test.
    Single,
}

impl Policy {
    pub const ALL: [Policy; 6] =
        [Policy::Ours, Policy::OneBin, Policy::FourBins, Policy::Guided, Policy::Factoring, Policy::Single];

    pub fn name(self) -> &'static str {
        match self {
            Policy::Ours => "ours",
            Policy::OneBin => "one bin",
            Policy::FourBins => "four bins",
            Policy::Guided => "guided",
            Policy::Factoring => "factoring",
            Policy::Single => "single",
        }
    }

    pub fn plan(self, suite: &Suite, conditions: &Conditions) -> Batches {
        let machines = conditions.machines;
        match self {
            Policy::Ours => {
                let limits =
                    Limits { timeout: std::time::Duration::from_secs(1_000_000), fits: &|_, _| true };
                let plan = Plan::new(suite, conditions, &limits);
                plan.batches.into_iter().map(|batch| batch.tests).collect()
            }
            Policy::OneBin => bins(suite, machines),
            Policy::FourBins => bins(suite, 4 * machines),
            Policy::Guided => rounds(suite, machines, 1.0, 1),
            Policy::Factoring => rounds(suite, machines, 2.0, machines),
            Policy::Single => longest_first(suite).into_iter().map(|test| vec![test]).collect(),
        }
    }
}

fn seconds(suite: &Suite, test: TestIndex) -> f64 {
    suite.test(test).expected.as_secs_f64().max(0.001)
}

fn longest_first(suite: &Suite) -> Vec<TestIndex> {
    let mut tests: Vec<TestIndex> = suite.indices().collect();
    tests.sort_by_key(|test| Reverse(suite.test(*test).expected));
    tests
}

fn bins(suite: &Suite, count: usize) -> Batches {
    let mut bins: Vec<(f64, Vec<TestIndex>)> = vec![(0.0, Vec::new()); count];
    let mut free: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|bin| Reverse((0, bin))).collect();
    for test in longest_first(suite) {
        let Some(Reverse((_, bin))) = free.pop() else { break };
        bins[bin].0 += seconds(suite, test);
        bins[bin].1.push(test);
        free.push(Reverse(((bins[bin].0 * 1e9) as u64, bin)));
    }
    bins.retain(|(_, tests)| !tests.is_empty());
    bins.sort_by(|one, other| other.0.total_cmp(&one.0));
    bins.into_iter().map(|(_, tests)| tests).collect()
}

/// Batches of one in `divisor` of a machine's share of what remains; the size changes after each `round`.
fn rounds(suite: &Suite, machines: usize, divisor: f64, round: usize) -> Batches {
    let tests = longest_first(suite);
    let mut rest: f64 = tests.iter().map(|test| seconds(suite, *test)).sum();
    let mut batches: Batches = Vec::new();
    let mut waiting = tests.into_iter().peekable();
    let mut size = 0.0;
    while waiting.peek().is_some() {
        if batches.len().is_multiple_of(round) {
            size = rest / machines as f64 / divisor;
        }
        let mut batch = Vec::new();
        let mut load = 0.0;
        while let Some(test) =
            waiting.next_if(|test| batch.is_empty() || load + seconds(suite, *test) <= size)
        {
            load += seconds(suite, test);
            batch.push(test);
        }
        rest -= load;
        batches.push(batch);
    }
    batches
}
