//! The stage that gives every batch before the first one starts: longest processing time first.
//!
//! How large batches are to be is found by trying: several shapes are packed, each is run in the mind
//! with the noise seen in history, and the best is taken. The same tests give the same plan, in whichever
//! order they were discovered.

use std::time::Duration;

use crate::framework::Grain;
use crate::model::{Batch, GroupIndex, Origin, Suite, TestIndex};

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

use pack::Draft;
use work::{Piece, Work};

/// The spread of test durations where history has too few samples to tell: of the natural logarithm.
const DEFAULT_NOISE: f64 = 0.25;

/// All batches of a run, in the order in which they start.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The batches, longest first.
    pub batches: Vec<Batch>,
    /// How long they will take together: the mean of the imagined runs. Where no test was ever measured,
    /// what follows from the assumed durations.
    pub predicted: Duration,
    /// What no plan can go below.
    pub bound: Bound,
}

/// How long a run takes at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// All work spread evenly, or the longest test; with the overhead of one batch.
    pub duration: Duration,
    /// The test that alone takes so long; `None` where the amount of work does.
    pub set_by: Option<TestIndex>,
}

/// What the plan is for.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// How many sandboxes, at least 1.
    pub machines: usize,
    /// How finely tests may be spread.
    pub grain: Grain,
    /// What batches cost beside their tests.
    pub overhead: Overhead,
    /// The standard deviation of the natural logarithm of what a test takes from one run to the next;
    /// `None` where that is not known.
    pub noise: Option<f64>,
}

/// The sizes that bound a batch.
pub struct Limits<'a> {
    /// The deadline of a batch; batches of tests with known durations stay below half of it.
    pub timeout: Duration,
    /// Whether the command that runs these tests of this group is short enough for the provider.
    pub fits: &'a dyn Fn(&[TestIndex], GroupIndex) -> bool,
}

impl Plan {
    /// Plans `suite`, whose tests have been estimated. A run on no more machines than there are batches
    /// is meant; no batch exceeds `limits` unless it has one test only.
    pub fn new(suite: &Suite, conditions: &Conditions, limits: &Limits<'_>) -> Plan {
        let machines = conditions.machines.clamp(1, suite.tests().len().max(1));
        let conditions = Conditions { machines, ..*conditions };
        let work = Work::new(suite);
        let scenarios = simulate::scenarios(&work, &conditions);
        let drafts = choose::choose(&work, &conditions, &scenarios);
        let drafts = drafts.into_iter().flat_map(|draft| cut(&work, draft, &conditions, limits)).collect();
        let drafts = weigh(&work, drafts, conditions.overhead);
        let timed: Vec<_> =
            drafts.iter().map(|(_, draft)| choose::timed(&work, draft, &conditions)).collect();
        let calm = &scenarios.calm;
        let sum: f64 = calm.iter().map(|scenario| scenario.makespan(&timed, &conditions)).sum();
        // Where nothing is known, the imagined runs differ in scale, and their mean says nothing.
        let guess = suite.tests().iter().all(|test| !test.measured);
        let predicted = match guess {
            true => makespan(drafts.iter().map(|(load, _)| *load), machines),
            false => seconds(sum / calm.len().max(1) as f64),
        };
        let batches = (0..).zip(&drafts).map(|(index, (load, draft))| Batch {
            index,
            group: draft.group,
            tests: tests(&work, &draft.pieces),
            load: seconds(*load),
            origin: Origin::Planned,
        });
        Plan { batches: batches.collect(), predicted, bound: bound(&work, &conditions) }
    }

    /// How long the batches take on `machines` sandboxes if each takes what is expected of it.
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

/// The tests of some pieces, in discovery order.
fn tests(work: &Work<'_>, pieces: &[Piece]) -> Vec<TestIndex> {
    let places = pieces.iter().flat_map(|piece| piece.start as usize..piece.end as usize);
    let mut tests: Vec<TestIndex> = places.map(|place| work.order[place]).collect();
    tests.sort_unstable();
    tests
}

/// The drafts with what each is expected to take, in seconds, longest first.
fn weigh(work: &Work<'_>, drafts: Vec<Draft>, overhead: Overhead) -> Vec<(f64, Draft)> {
    let mut weighed: Vec<(f64, Draft)> = drafts
        .into_iter()
        .map(|draft| {
            let tests: f64 = draft.pieces.iter().map(|piece| work.load(*piece)).sum();
            let files = work.count_files(&draft.pieces);
            (overhead.batch(seconds(tests), files).as_secs_f64(), draft)
        })
        .collect();
    pack::sort(&mut weighed);
    weighed
}

/// Halves a batch until it is within the limits.
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
        if count < 2 || (!slow && (limits.fits)(&tests(work, &pieces), group)) {
            within.push(Draft { pieces, group });
            continue;
        }
        let (first, second) = halve(pieces, count / 2);
        waiting.push(Draft { pieces: second, group });
        waiting.push(Draft { pieces: first, group });
    }
    within
}

/// The first `count` tests of some pieces, and the others.
fn halve(pieces: Vec<Piece>, mut count: u32) -> (Vec<Piece>, Vec<Piece>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for piece in pieces {
        let taken = piece.count().min(count);
        count -= taken;
        let middle = piece.start + taken;
        for (part, half) in
            [(Piece { end: middle, ..piece }, &mut first), (Piece { start: middle, ..piece }, &mut second)]
        {
            if part.count() > 0 {
                half.push(part);
            }
        }
    }
    (first, second)
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
