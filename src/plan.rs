//! The stage that builds all batches before the first one starts: longest processing time first.
//!
//! Batch sizes are found by trial: several shapes are packed, each is simulated with the noise seen in the history,
//! and the best one wins. The plan does not depend on the order in which tests were discovered.

use std::time::Duration;

use crate::framework::Grain;
use crate::model::{Batch, GroupIndex, GroupLimit, Origin, Suite, TestIndex};

mod choose;
mod estimate;
mod overhead;
mod pack;
mod shape;
mod simulate;
mod work;

pub use estimate::estimate;
pub use overhead::Overhead;
pub use simulate::list_schedule;

use pack::{Draft, Weighed};
use work::{Piece, Work};

/// The spread of test durations (natural logarithm) if the history has too few samples.
const DEFAULT_NOISE: f64 = 0.25;

/// All batches of a run, in the order in which they start.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The batches, longest first.
    pub batches: Vec<Batch>,
    /// How long the run will take: the mean over simulated runs. If no test was ever measured, the makespan of
    /// the assumed durations.
    pub predicted: Duration,
    /// What no plan can beat.
    pub bound: Bound,
}

/// The minimum duration of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// All work spread evenly, or the longest test; plus the overhead of one batch.
    pub duration: Duration,
    /// The test that alone takes this long; `None` if the bound is the total amount of work.
    pub set_by: Option<TestIndex>,
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// The number of sandboxes, at least 1.
    pub machines: usize,
    /// How finely tests may be spread over batches.
    pub grain: Grain,
    /// What a batch costs in addition to its tests.
    pub overhead: Overhead,
    /// The standard deviation of the natural logarithm of a test's duration between runs; `None` if unknown.
    pub noise: Option<f64>,
}

/// Limits on the size of a batch.
pub struct Limits<'a> {
    /// The timeout of a batch. If the durations of its tests are known, a batch stays below half of it.
    pub timeout: Duration,
    /// Whether the command for these tests of this group is short enough for the provider.
    pub fits: &'a dyn Fn(&[TestIndex], GroupIndex) -> bool,
}

impl Plan {
    /// Plans `suite`, whose tests must have estimates. A batch exceeds `limits` only if it has a single
    /// test, or tests that all have the same key.
    pub fn new(suite: &Suite, conditions: &Conditions, limits: &Limits<'_>) -> Plan {
        let machines = conditions.machines.clamp(1, suite.tests().len().max(1));
        let conditions = Conditions { machines, ..*conditions };
        let work = Work::new(suite);
        let scenarios = simulate::scenarios(&work, &conditions);
        let drafts = choose::choose(&work, &conditions, &scenarios);
        let drafts = drafts.into_iter().flat_map(|draft| cut(&work, draft, &conditions, limits)).collect();
        let drafts = weigh(&work, drafts, conditions.overhead);
        let timed: Vec<_> =
            drafts.iter().map(|weighed| choose::timed(&work, &weighed.draft, &conditions)).collect();
        let calm = &scenarios.calm;
        let sum: f64 = calm.iter().map(|scenario| scenario.makespan(&timed, &conditions)).sum();
        // If nothing is known, simulated runs differ in scale and their mean is meaningless.
        let guess = suite.tests().iter().all(|test| !test.measured);
        let predicted = match guess {
            true => makespan(drafts.iter().map(|weighed| weighed.load), machines),
            false => seconds(sum / calm.len().max(1) as f64),
        };
        let batches = (0..).zip(&drafts).map(|(index, Weighed { load, draft })| Batch {
            index,
            group: draft.group,
            tests: tests(&work, &draft.pieces),
            companions: Vec::new(),
            load: seconds(*load),
            origin: Origin::Planned,
        });
        Plan { batches: batches.collect(), predicted, bound: bound(&work, &conditions) }
    }

    /// How many of the batches can run at once if these groups have such a maximum.
    pub fn width(&self, limits: &[GroupLimit]) -> usize {
        let in_group = |group| self.batches.iter().filter(|batch| batch.group == group).count();
        let idle = limits.iter().map(|limit| in_group(limit.group).saturating_sub(limit.most));
        self.batches.len() - idle.sum::<usize>()
    }

    /// The plan with a prediction that respects how many batches of these groups may run at once.
    #[must_use]
    pub fn limited(mut self, limits: &[GroupLimit]) -> Plan {
        for GroupLimit { group, most } in limits {
            let batches = self.batches.iter().filter(|batch| batch.group == *group);
            let least = makespan(batches.map(|batch| batch.load.as_secs_f64()), *most);
            self.predicted = self.predicted.max(least);
        }
        self
    }

    /// How long the batches take on `machines` sandboxes if all estimates are right.
    pub fn makespan(&self, machines: usize) -> Duration {
        makespan(self.batches.iter().map(|batch| batch.load.as_secs_f64()), machines)
    }
}

fn makespan(loads: impl Iterator<Item = f64>, machines: usize) -> Duration {
    seconds(list_schedule(loads, u32::try_from(machines).unwrap_or(u32::MAX), |_| 1.0))
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// The tests in `pieces`, in discovery order.
fn tests(work: &Work<'_>, pieces: &[Piece]) -> Vec<TestIndex> {
    let places = pieces.iter().flat_map(|piece| piece.start as usize..piece.end as usize);
    let mut tests: Vec<TestIndex> = places.map(|place| work.order[place]).collect();
    tests.sort_unstable();
    tests
}

/// The drafts with their expected durations, longest first.
fn weigh(work: &Work<'_>, drafts: Vec<Draft>, overhead: Overhead) -> Vec<Weighed> {
    let mut weighed: Vec<Weighed> = drafts
        .into_iter()
        .map(|draft| {
            let tests: f64 = draft.pieces.iter().map(|piece| work.load(*piece)).sum();
            let files = work.count_files(&draft.pieces);
            Weighed { load: overhead.batch(seconds(tests), files).as_secs_f64(), draft }
        })
        .collect();
    let start = |weighed: &Weighed| weighed.draft.pieces.first().map(|piece| piece.start);
    weighed.sort_unstable_by(|one, other| {
        other.load.total_cmp(&one.load).then_with(|| start(one).cmp(&start(other)))
    });
    weighed
}

/// Halves a batch until its parts are within the limits, or single atoms.
fn cut(work: &Work<'_>, draft: Draft, conditions: &Conditions, limits: &Limits<'_>) -> Vec<Draft> {
    let mut within = Vec::new();
    let mut waiting = vec![draft];
    while let Some(Draft { pieces, group }) = waiting.pop() {
        let count: u32 = pieces.iter().map(|piece| piece.count()).sum();
        let measured =
            pieces.iter().flat_map(|piece| piece.start..piece.end).all(|place| work.test(place).measured);
        let load: f64 = pieces.iter().map(|piece| work.load(*piece)).sum();
        let load = conditions.overhead.batch(seconds(load), work.count_files(&pieces));
        let slow = measured && load > limits.timeout / 2;
        let atoms: Vec<Piece> = pieces.iter().flat_map(|piece| work.atoms(*piece)).collect();
        if atoms.len() < 2 || (!slow && (limits.fits)(&tests(work, &pieces), group)) {
            within.push(Draft { pieces, group });
            continue;
        }
        let (first, second) = halve(atoms, count / 2);
        waiting.push(Draft { pieces: second, group });
        waiting.push(Draft { pieces: first, group });
    }
    within
}

/// About `count` tests of these atoms, and the others; some on either side.
fn halve(mut atoms: Vec<Piece>, count: u32) -> (Vec<Piece>, Vec<Piece>) {
    let mut taken = 0;
    let fits = |atom: &&Piece| {
        taken += atom.count();
        taken <= count
    };
    let middle = atoms.iter().take_while(fits).count().clamp(1, atoms.len() - 1);
    let second = atoms.split_off(middle);
    (atoms, second)
}

fn bound(work: &Work<'_>, conditions: &Conditions) -> Bound {
    let overhead = conditions.overhead;
    let files = work.count_files(&work.by_file(None));
    let machines = conditions.machines as f64;
    let even = (work.total() * overhead.pace + overhead.per_file.as_secs_f64() * f64::from(files)) / machines;
    let longest = work.longest([work.whole()]).map(|(place, seconds)| {
        let file = if work.file(place).is_some() { overhead.per_file.as_secs_f64() } else { 0.0 };
        (work.order[place as usize], seconds + file)
    });
    match longest {
        Some((test, longest)) if longest > even => {
            Bound { duration: overhead.per_batch + seconds(longest), set_by: Some(test) }
        }
        _ => Bound { duration: overhead.per_batch + seconds(even), set_by: None },
    }
}

#[cfg(test)]
mod tests;
