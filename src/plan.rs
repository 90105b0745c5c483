//! The stage that gives every batch before the first one starts: longest processing time first.
//!
//! LPT: R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17 (1969).
//! What is placed is not the single test but a run of neighbours in one file, as coarse as the
//! balance allows, because each batch pays for the files it touches.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::framework::Grain;
use crate::model::{Batch, GroupIndex, Origin, Suite, TestCase, TestIndex};

/// No test counts as shorter, so that tests recorded with 0 s are spread like others.
const FLOOR: Duration = Duration::from_millis(1);
/// The estimate of a test where nothing at all is known.
const DEFAULT: Duration = Duration::from_secs(1);
/// A coarser division is taken when its makespan is at most this much longer, in percent.
const TOLERANCE: u32 = 2;

/// All batches of a run, in the order in which they start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The batches, longest first.
    pub batches: Vec<Batch>,
}

/// The sizes that bound a batch.
pub struct Limits<'a> {
    /// The deadline of a batch; batches of tests with known durations stay below half of it.
    pub timeout: Duration,
    /// Whether the command that runs these tests of this group is short enough for the provider.
    pub fits: &'a dyn Fn(&[TestIndex], GroupIndex) -> bool,
}

/// Sets how long each test is expected to run: what `known` says, else the 90th percentile of the
/// known tests of its group, else of all, else one second.
pub fn estimate(suite: &mut Suite, known: &HashMap<String, Duration>) {
    let mut by_group: HashMap<Option<GroupIndex>, Vec<Duration>> = HashMap::new();
    for test in suite.tests() {
        if let Some(&duration) = known.get(test.id.as_str()) {
            by_group.entry(None).or_default().push(duration);
            by_group.entry(Some(test.group)).or_default().push(duration);
        }
    }
    let percentiles: HashMap<Option<GroupIndex>, Duration> =
        by_group.into_iter().map(|(group, durations)| (group, percentile(durations))).collect();
    suite.expect(|test| {
        let own = known.get(test.id.as_str()).or_else(|| percentiles.get(&Some(test.group)));
        own.or_else(|| percentiles.get(&None)).copied()
    });
}

fn percentile(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[(durations.len() * 9 / 10).min(durations.len() - 1)]
}

fn length(test: &TestCase) -> Duration {
    test.expected.unwrap_or(DEFAULT).max(FLOOR)
}

/// Tests that stay together.
#[derive(Clone, Debug)]
struct Piece {
    tests: Vec<TestIndex>,
    load: Duration,
}

impl Plan {
    /// Plans `suite` for `machines` sandboxes, at least 1. The same tests give the same batches,
    /// in whichever order they were discovered.
    pub fn new(suite: &Suite, machines: usize, grain: Grain) -> Plan {
        let machines = machines.clamp(1, suite.tests().len().max(1));
        let mut order: Vec<TestIndex> = suite.indices().collect();
        order.sort_by(|one, other| key(suite.test(*one)).cmp(&key(suite.test(*other))));
        let (solo, shared): (Vec<TestIndex>, Vec<TestIndex>) =
            order.into_iter().partition(|index| suite.test(*index).solo);
        let solo: Vec<Piece> = solo.into_iter().map(|index| piece(suite, vec![index])).collect();
        let files: Vec<Vec<TestIndex>> = shared
            .chunk_by(|one, other| same_file(suite.test(*one), suite.test(*other)))
            .map(<[TestIndex]>::to_vec)
            .collect();
        let mut pieces = divide(suite, &files, machines, grain);
        pieces.extend(solo);
        let mut bins = pack(suite, pieces, machines);
        bins.retain(|bin| !bin.is_empty());
        Plan { batches: number(bins.into_iter().flat_map(|bin| to_batches(suite, bin)).collect()) }
    }

    /// Cuts the batches that exceed `limits` in halves, down to single tests.
    #[must_use]
    pub fn cut(self, suite: &Suite, limits: &Limits<'_>) -> Plan {
        let mut batches = Vec::new();
        let mut waiting: Vec<Batch> = self.batches.into_iter().rev().collect();
        while let Some(mut batch) = waiting.pop() {
            let known = batch.tests.iter().all(|index| suite.test(*index).expected.is_some());
            let slow = known && batch.load > limits.timeout / 2;
            if batch.tests.len() < 2 || (!slow && (limits.fits)(&batch.tests, batch.group)) {
                batches.push(batch);
                continue;
            }
            let second = batch.tests.split_off(batch.tests.len() / 2);
            for tests in [second, batch.tests] {
                let load = piece(suite, tests.clone()).load;
                waiting.push(Batch { tests, load, ..batch });
            }
        }
        Plan { batches: number(batches) }
    }

    /// How long the batches take on `machines` sandboxes that each pull the next one when free.
    pub fn makespan(&self, machines: usize) -> Duration {
        let mut free: BinaryHeap<Reverse<Duration>> =
            (0..machines.max(1)).map(|_| Reverse(Duration::ZERO)).collect();
        let mut end = Duration::ZERO;
        for batch in &self.batches {
            let Reverse(start) = free.pop().unwrap_or_default();
            free.push(Reverse(start + batch.load));
            end = end.max(start + batch.load);
        }
        end
    }
}

/// The order in which neighbours stand, independent of discovery.
fn key(test: &TestCase) -> (GroupIndex, Option<&str>, &str) {
    (test.group, test.file.as_deref(), test.id.as_str())
}

fn same_file(one: &TestCase, other: &TestCase) -> bool {
    one.group == other.group && one.file.is_some() && one.file == other.file
}

fn piece(suite: &Suite, tests: Vec<TestIndex>) -> Piece {
    let load = tests.iter().map(|index| length(suite.test(*index))).sum();
    Piece { tests, load }
}

/// The coarsest division of the files whose plan is about as short as that of single tests.
fn divide(suite: &Suite, files: &[Vec<TestIndex>], machines: usize, grain: Grain) -> Vec<Piece> {
    let whole: Vec<Piece> = files.iter().map(|tests| piece(suite, tests.clone())).collect();
    if grain == Grain::File {
        return whole;
    }
    let single: Vec<Piece> = files.iter().flatten().map(|index| piece(suite, vec![*index])).collect();
    let best = heaviest(&single, machines);
    let allowed = best + best * TOLERANCE / 100;
    if heaviest(&whole, machines) <= allowed {
        return whole;
    }
    let total: Duration = whole.iter().map(|piece| piece.load).sum();
    let fair = total / u32::try_from(machines).unwrap_or(u32::MAX);
    for parts in [1, 2, 4, 8, 16, 32] {
        let chunks: Vec<Piece> = files.iter().flat_map(|tests| chunk(suite, tests, fair / parts)).collect();
        if heaviest(&chunks, machines) <= allowed {
            return chunks;
        }
    }
    single
}

/// Cuts the tests of a file into pieces of at most `limit`, between functions where it can.
fn chunk(suite: &Suite, tests: &[TestIndex], limit: Duration) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for family in tests.chunk_by(|one, other| suite.test(*one).family() == suite.test(*other).family()) {
        let whole = piece(suite, family.to_vec());
        let parts = if whole.load <= limit {
            vec![whole]
        } else {
            family.iter().map(|index| piece(suite, vec![*index])).collect()
        };
        for part in parts {
            match pieces.last_mut() {
                Some(last) if last.load + part.load <= limit => {
                    last.load += part.load;
                    last.tests.extend(part.tests);
                }
                _ => pieces.push(part),
            }
        }
    }
    pieces
}

fn sorted(suite: Option<&Suite>, mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_by(|one, other| {
        let ids = || {
            let suite = suite?;
            Some(key(suite.test(one.tests[0])).cmp(&key(suite.test(other.tests[0]))))
        };
        other.load.cmp(&one.load).then_with(|| ids().unwrap_or(std::cmp::Ordering::Equal))
    });
    pieces
}

/// The load of the fullest bin of an LPT packing.
fn heaviest(pieces: &[Piece], machines: usize) -> Duration {
    let mut loads: Vec<Duration> = pieces.iter().map(|piece| piece.load).collect();
    loads.sort_unstable_by(|one, other| other.cmp(one));
    let mut bins: BinaryHeap<Reverse<Duration>> = (0..machines).map(|_| Reverse(Duration::ZERO)).collect();
    let mut most = Duration::ZERO;
    for load in loads {
        let Reverse(least) = bins.pop().unwrap_or_default();
        bins.push(Reverse(least + load));
        most = most.max(least + load);
    }
    most
}

/// Each piece, longest first, into the bin that is emptiest then; a solo test is alone in a batch
/// but shares a bin.
fn pack(suite: &Suite, pieces: Vec<Piece>, machines: usize) -> Vec<Vec<Piece>> {
    let mut bins: Vec<Vec<Piece>> = vec![Vec::new(); machines];
    let mut free: BinaryHeap<Reverse<(Duration, usize)>> =
        (0..machines).map(|bin| Reverse((Duration::ZERO, bin))).collect();
    for piece in sorted(Some(suite), pieces) {
        let Some(Reverse((load, bin))) = free.pop() else {
            break;
        };
        free.push(Reverse((load + piece.load, bin)));
        bins[bin].push(piece);
    }
    bins
}

/// A bin's batches: one for each group in it, and one for each solo test.
fn to_batches(suite: &Suite, bin: Vec<Piece>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut by_group: HashMap<GroupIndex, usize> = HashMap::new();
    for Piece { mut tests, load } in bin {
        let first = suite.test(tests[0]);
        let known = by_group.get(&first.group).copied().filter(|_| !first.solo);
        if let Some(place) = known {
            batches[place].tests.append(&mut tests);
            batches[place].load += load;
            continue;
        }
        if !first.solo {
            by_group.insert(first.group, batches.len());
        }
        batches.push(Batch { index: 0, group: first.group, tests, load, origin: Origin::Planned });
    }
    for batch in &mut batches {
        batch.tests.sort_unstable();
    }
    batches.sort_by_key(|batch| (Reverse(batch.load), batch.group));
    batches
}

/// Longest first, and numbers in that order.
fn number(mut batches: Vec<Batch>) -> Vec<Batch> {
    batches.sort_by_key(|batch| Reverse(batch.load));
    for (index, batch) in (0..).zip(&mut batches) {
        batch.index = index;
    }
    batches
}

#[cfg(test)]
mod tests;
