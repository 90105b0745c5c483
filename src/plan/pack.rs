//! Puts tests into batches of given sizes.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::shape::{Amount, Shape};
use super::work::{Piece, Work};
use crate::framework::Grain;
use crate::model::GroupIndex;

/// A batch may be so much longer than its size, in parts of it, before a piece is divided for it.
const SLACK: f64 = 0.01;
/// A test longer than this part of the smallest batches is placed by itself, not with its file.
const LARGE: f64 = 0.5;

/// Pieces that make one batch.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// In the order of [`Work::order`].
    pub(super) pieces: Vec<Piece>,
    pub(super) group: GroupIndex,
}

/// Which tests keep together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Tests of a file, as far as balance allows.
    File,
    /// Each test is placed by itself.
    Test,
}

/// Whether groups are given batches of their own before tests are placed, or batches are divided by
/// group afterwards: the first makes fewer batches, the second more even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    Before,
    After,
}

/// A plan to be tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) shape: Shape,
    pub(super) unit: Unit,
    pub(super) groups: Groups,
}

/// A piece in the order in which pieces are placed: single tests that were never measured, which may
/// take long, then the longest ones, then by place.
#[derive(Clone, Copy, PartialEq)]
struct Waiting {
    is_new: bool,
    load: f64,
    piece: Piece,
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Waiting) -> Ordering {
        let by_load = self.load.total_cmp(&other.load).then(other.piece.start.cmp(&self.piece.start));
        self.is_new.cmp(&other.is_new).then(by_load)
    }
}

/// A batch that is being filled; the one with the most room left comes first.
#[derive(Clone, Copy, PartialEq)]
struct Bin {
    room: f64,
    number: usize,
}

impl Eq for Bin {}

impl PartialOrd for Bin {
    fn partial_cmp(&self, other: &Bin) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Bin {
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
        // With equal bins, tests that run alone are counted into their bin.
        if (is_solo && shape != Shape::Equal(1)) || (is_long && (piece.count() == 1 || grain == Grain::File))
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

/// Gives each group bins for its work: the largest bin to the group that lacks most.
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

/// Each piece, longest first, into the bin with the most room; what is too long for it is divided.
fn fill(work: &Work<'_>, sizes: &[f64], pieces: Vec<Piece>, grain: Grain) -> Vec<Vec<Piece>> {
    let mut bins: Vec<Vec<Piece>> = vec![Vec::new(); sizes.len()];
    let mut rooms: BinaryHeap<Bin> =
        sizes.iter().enumerate().map(|(number, room)| Bin { room: *room, number }).collect();
    let waiting = |piece: Piece| {
        let is_new = piece.count() == 1 && !work.test(piece.start).measured;
        Waiting { is_new, load: work.load(piece), piece }
    };
    let mut queue: BinaryHeap<Waiting> = pieces.into_iter().map(waiting).collect();
    while let Some(Waiting { load, mut piece, .. }) = queue.pop() {
        let Some(mut bin) = rooms.peek_mut() else {
            break;
        };
        let allowed = bin.room + sizes[bin.number] * SLACK;
        if load > allowed && piece.count() > 1 && grain == Grain::Test {
            let (first, second) = work.divide(piece, bin.room);
            queue.push(waiting(second));
            if work.load(first) > allowed {
                queue.push(waiting(first));
                continue;
            }
            piece = first;
        }
        bin.room -= work.load(piece);
        bins[bin.number].push(piece);
    }
    bins
}

/// A bin's batches: one for each group in it, and one for each test that runs alone.
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

/// Longest first by `load`; what is equally long by place.
pub(super) fn sort(drafts: &mut [(f64, Draft)]) {
    drafts.sort_unstable_by(|(one, a), (other, b)| {
        other.total_cmp(one).then_with(|| a.pieces[0].start.cmp(&b.pieces[0].start))
    });
}
