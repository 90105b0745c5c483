//! Puts tests into batches of given sizes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::shape::{Amount, Shape};
use super::work::{Piece, Work};
use crate::framework::Grain;
use crate::model::GroupIndex;

/// How far a batch may exceed its size, as a fraction, before a piece is split.
const SLACK: f64 = 0.01;
/// An atom longer than this fraction of the smallest batch is placed separately from its file.
const LARGE: f64 = 0.5;

/// The pieces of one batch.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// In the order of [`Work::order`].
    pub(super) pieces: Vec<Piece>,
    pub(super) group: GroupIndex,
}

/// A draft with its expected duration in seconds.
#[derive(Clone, Debug)]
pub(super) struct Weighed {
    pub(super) load: f64,
    pub(super) draft: Draft,
}

/// Which tests stay together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// The tests of a file, as far as balance allows.
    File,
    /// Each atom is placed separately.
    Test,
}

/// Whether batches are assigned to groups before tests are placed, or divided by group afterwards. The former gives
/// fewer batches, the latter more even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    Before,
    After,
}

/// A way to pack, to be tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) shape: Shape,
    pub(super) unit: Unit,
    pub(super) groups: Groups,
}

/// A piece to be placed. The greatest comes first: single tests that were never measured, since they may take long,
/// then the longest pieces, then by position. One number, as most of the time of a plan goes into comparing them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting(u128);

impl Waiting {
    #[inline]
    fn new(work: &Work<'_>, piece: Piece) -> Waiting {
        let is_new = piece.count() == 1 && !work.test(piece.start).measured;
        // The bits of a number that is not negative are ordered as the number is, and the highest one is free.
        let load = work.load(piece).to_bits() | u64::from(is_new) << 63;
        Waiting(u128::from(load) << 64 | u128::from(!piece.start) << 32 | u128::from(piece.end))
    }

    #[inline]
    fn piece(self) -> Piece {
        Piece { start: !((self.0 >> 32) as u32), end: self.0 as u32 }
    }
}

/// A batch being filled; the one with the most room comes first.
#[derive(Clone, Copy, PartialEq)]
struct Bin {
    room: f64,
    number: usize,
}

impl Eq for Bin {}

impl PartialOrd for Bin {
    #[inline]
    fn partial_cmp(&self, other: &Bin) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bin {
    #[inline]
    fn cmp(&self, other: &Bin) -> Ordering {
        self.room.total_cmp(&other.room).then(other.number.cmp(&self.number))
    }
}

/// The batches of `candidate`.
pub(super) fn pack(work: &Work<'_>, candidate: Candidate, amount: Amount, grain: Grain) -> Vec<Draft> {
    let Candidate { shape, unit, groups } = candidate;
    let long = shape.long(amount);
    let smallest = shape.sizes(amount, 0, 0.0).last().copied().unwrap_or_default();
    let pieces = match (grain, unit) {
        (Grain::File, _) => work.by_file(None),
        (Grain::Test, Unit::File) => work.by_file(Some(smallest * LARGE)),
        (Grain::Test, Unit::Test) => work.singles(),
    };
    let mut drafts = Vec::new();
    let (mut count, mut load) = (0, 0.0);
    let mut rest = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let is_long = work.load(piece) >= long;
        let is_solo = work.test(piece.start).solo;
        // With equal bins, solo tests count towards their bin.
        if (is_solo && shape != Shape::Equal(1)) || (is_long && (grain == Grain::File || work.is_atom(piece)))
        {
            count += u32::from(is_long);
            load += if is_long && !is_solo { work.load(piece) } else { 0.0 };
            drafts.push(Draft { pieces: vec![piece], group: work.group(piece) });
        } else {
            rest.push(piece);
        }
    }
    let sizes = shape.sizes(amount, count, load);
    for (sizes, pieces) in apportion(work, sizes, rest, groups) {
        for bin in fill(work, &sizes, pieces, grain) {
            drafts.extend(by_group(work, bin));
        }
    }
    drafts
}

/// Distributes bins over groups: the largest bin goes to the group with the most work not yet covered.
fn apportion(
    work: &Work<'_>,
    sizes: Vec<f64>,
    pieces: Vec<Piece>,
    groups: Groups,
) -> Vec<(Vec<f64>, Vec<Piece>)> {
    let of_groups: Vec<&[Piece]> =
        pieces.chunk_by(|one, other| work.group(*one) == work.group(*other)).collect();
    if groups == Groups::After || of_groups.len() < 2 {
        return vec![(sizes, pieces)];
    }
    let loads: Vec<f64> =
        of_groups.iter().map(|pieces| pieces.iter().map(|piece| work.load(*piece)).sum()).collect();
    let mut lacking = loads.clone();
    let mut shares: Vec<Vec<f64>> = vec![Vec::new(); loads.len()];
    for size in sizes {
        let most = (0..lacking.len()).max_by(|one, other| lacking[*one].total_cmp(&lacking[*other]));
        let most = most.unwrap_or_default();
        lacking[most] -= size;
        shares[most].push(size);
    }
    for (share, load) in shares.iter_mut().zip(&loads) {
        if share.is_empty() {
            share.push(*load);
        }
        let scale = load / share.iter().sum::<f64>();
        share.iter_mut().for_each(|size| *size *= scale);
    }
    shares.into_iter().zip(of_groups).map(|(share, pieces)| (share, pieces.to_vec())).collect()
}

/// Puts each piece, longest first, into the bin with the most room; splits a piece that is too long for it.
fn fill(work: &Work<'_>, sizes: &[f64], pieces: Vec<Piece>, grain: Grain) -> Vec<Vec<Piece>> {
    let mut bins: Vec<Vec<Piece>> = vec![Vec::new(); sizes.len()];
    let mut rooms: BinaryHeap<Bin> =
        sizes.iter().enumerate().map(|(number, room)| Bin { room: *room, number }).collect();
    let mut queue: Vec<Waiting> = pieces.into_iter().map(|piece| Waiting::new(work, piece)).collect();
    // Sorting once is faster than a heap, which only the parts of divided pieces need.
    queue.sort_unstable();
    let mut parts: BinaryHeap<Waiting> = BinaryHeap::new();
    while let Some(next) = if queue.last() < parts.peek() { parts.pop() } else { queue.pop() } {
        let mut piece = next.piece();
        let load = work.load(piece);
        let Some(mut bin) = rooms.peek_mut() else {
            break;
        };
        let allowed = bin.room + sizes[bin.number] * SLACK;
        if load > allowed && grain == Grain::Test && !work.is_atom(piece) {
            let (first, second) = work.divide(piece, bin.room);
            parts.push(Waiting::new(work, second));
            if work.load(first) > allowed {
                parts.push(Waiting::new(work, first));
                continue;
            }
            piece = first;
        }
        bin.room -= work.load(piece);
        bins[bin.number].push(piece);
    }
    bins
}

/// The batches of a bin: one for each group in it, and one for each solo test.
fn by_group(work: &Work<'_>, mut bin: Vec<Piece>) -> Vec<Draft> {
    bin.sort_unstable_by_key(|piece| (work.test(piece.start).solo, piece.start));
    let mut drafts: Vec<Draft> = Vec::new();
    for piece in bin {
        let group = work.group(piece);
        match drafts.last_mut() {
            Some(last) if last.group == group && !work.test(piece.start).solo => last.pieces.push(piece),
            _ => drafts.push(Draft { pieces: vec![piece], group }),
        }
    }
    drafts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Suite;
    use crate::plan::tests::{Row, suite};

    /// Tests of these lengths in seconds (0: not measured), without files; the last `others` are in group 1.
    fn singles(lengths: &[u64], others: usize) -> Suite {
        let row = |(number, length): (usize, &u64)| Row {
            group: u16::from(number + others >= lengths.len()),
            ..Row::new(None, format!("t{number:02}"), (*length > 0).then_some(length * 1000))
        };
        suite(&lengths.iter().enumerate().map(row).collect::<Vec<_>>(), &[false, false])
    }

    /// The rounded loads of the pieces in each bin, in the order of placement.
    fn loads(work: &Work<'_>, bins: &[Vec<Piece>]) -> Vec<Vec<u64>> {
        let load = |piece: &Piece| work.load(*piece).round() as u64;
        bins.iter().map(|bin| bin.iter().map(load).collect()).collect()
    }

    #[test]
    fn the_longest_piece_goes_first_into_the_emptiest_bin() {
        let suite = singles(&[1, 2, 7, 3, 5, 4], 0);
        let work = Work::new(&suite);
        let bins = fill(&work, &[11.0, 11.0], work.singles(), Grain::Test);
        assert_eq!(loads(&work, &bins), [vec![7, 3, 1], vec![5, 4, 2]]);
    }

    #[test]
    fn unmeasured_tests_come_first() {
        // Its estimate is the 90th percentile of the measured tests.
        let suite = singles(&[9, 1, 0, 0], 0);
        let work = Work::new(&suite);
        let places =
            |bins: Vec<Vec<Piece>>| bins.concat().iter().map(|piece| piece.start).collect::<Vec<_>>();
        assert_eq!(places(fill(&work, &[30.0], work.singles(), Grain::Test)), [2, 3, 0, 1]);
    }

    #[test]
    fn a_file_is_split_if_it_does_not_fit_into_a_bin() {
        let rows: Vec<Row> =
            (0..8).map(|number| Row::new(Some("f"), format!("f::t{number}"), 1000)).collect();
        let suite = suite(&rows, &[false]);
        let work = Work::new(&suite);
        let filled = |sizes: &[f64], grain| loads(&work, &fill(&work, sizes, work.by_file(None), grain));
        assert_eq!(filled(&[5.0, 3.0], Grain::Test), [[5], [3]]);
        assert_eq!(filled(&[8.0, 8.0], Grain::Test), [vec![8], vec![]]);
        assert_eq!(filled(&[5.0, 3.0], Grain::File), [vec![8], vec![]]);
        // Being one percent too long is not worth a split.
        assert_eq!(filled(&[7.95, 0.05], Grain::Test), [vec![8], vec![]]);
        assert_eq!(filled(&[7.0, 1.0], Grain::Test), [[7], [1]]);
    }

    #[test]
    fn the_largest_bins_go_to_the_group_with_most_work_and_are_scaled_to_fit() {
        let suite = singles(&[6, 6, 3, 3], 2);
        let work = Work::new(&suite);
        let shares = |sizes: &[f64], groups| {
            let shares = apportion(&work, sizes.to_vec(), work.singles(), groups);
            shares.into_iter().map(|(share, pieces)| (share, pieces.len())).collect::<Vec<_>>()
        };
        assert_eq!(shares(&[9.0, 9.0], Groups::After), [(vec![9.0, 9.0], 4)]);
        assert_eq!(shares(&[9.0, 9.0], Groups::Before), [(vec![12.0], 2), (vec![6.0], 2)]);
        assert_eq!(shares(&[6.0, 6.0, 6.0], Groups::Before), [(vec![6.0, 6.0], 2), (vec![6.0], 2)]);
        let sizes = shares(&[2.0; 9], Groups::Before);
        assert_eq!(sizes, [(vec![2.0; 6], 2), (vec![2.0; 3], 2)]);
        // There is only one bin, but the other group gets one too.
        assert_eq!(shares(&[18.0], Groups::Before), [(vec![12.0], 2), (vec![6.0], 2)]);
    }

    #[test]
    fn long_tests_get_their_own_batches_and_others_keep_their_share() {
        let suite = singles(&[20, 2, 2, 2, 2, 2, 2], 0);
        let work = Work::new(&suite);
        let amount = Amount { total: 32.0, shared: 32.0, machines: 2 };
        let shape = Shape::Factoring { first: 2.0, least: 2.0 };
        let candidate = |groups| Candidate { shape, unit: Unit::Test, groups };
        for groups in [Groups::Before, Groups::After] {
            let drafts = pack(&work, candidate(groups), amount, Grain::Test);
            let pieces: Vec<Vec<Piece>> = drafts.into_iter().map(|draft| draft.pieces).collect();
            let mut loads = loads(&work, &pieces);
            loads.iter_mut().for_each(|loads| *loads = vec![loads.iter().sum()]);
            assert_eq!(loads.concat(), [20, 6, 2, 2, 2]);
        }
    }

    #[test]
    fn a_long_file_gets_its_own_batch_only_if_its_tests_cannot_be_selected() {
        let row = |number| {
            let (file, millis) =
                if number < 5 { ("f".to_owned(), 4000) } else { (format!("g{number}"), 2000) };
            Row::new(Some(&file), format!("t{number:02}"), millis)
        };
        let suite = suite(&(0..11).map(row).collect::<Vec<_>>(), &[false]);
        let work = Work::new(&suite);
        let amount = Amount { total: 32.0, shared: 32.0, machines: 2 };
        let shape = Shape::Factoring { first: 2.0, least: 2.0 };
        let longest = |grain| {
            let candidate = Candidate { shape, unit: Unit::File, groups: Groups::Before };
            let drafts = pack(&work, candidate, amount, grain);
            let loads = drafts.iter().map(|draft| draft.pieces.iter().map(|piece| work.load(*piece)).sum());
            (loads.fold(0.0, f64::max).round(), drafts[0].pieces.len())
        };
        assert_eq!(longest(Grain::File), (20.0, 1));
        assert!(longest(Grain::Test).0 <= 8.0);
    }

    #[test]
    fn solo_tests_count_towards_equal_bins_and_have_their_own_batches() {
        let rows: Vec<Row> = (0..4).map(|number| Row::new(None, format!("t{number}"), 1000)).collect();
        let suite = suite(&rows, &[true]);
        let work = Work::new(&suite);
        let amount = Amount { total: 4.0, shared: 0.0, machines: 2 };
        for shape in [Shape::Equal(1), Shape::Equal(2), Shape::Factoring { first: 2.0, least: 1.0 }] {
            let candidate = Candidate { shape, unit: Unit::Test, groups: Groups::After };
            assert_eq!(pack(&work, candidate, amount, Grain::Test).len(), 4, "{shape:?}");
        }
    }
}
