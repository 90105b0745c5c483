//! The tests of a suite in an order that does not depend on discovery, and ranges in it.

use std::collections::HashMap;

use crate::model::{GroupIndex, Suite, TestCase, TestIndex};

/// The minimum duration of a test in seconds, so that tests recorded with 0 s are spread like others.
const FLOOR: f64 = 0.001;
/// A piece is split between two functions rather than within one if the first part gets smaller by at most this
/// fraction.
const GIVEN_UP: f64 = 0.05;

/// A range of [`Work::order`] that stays together: one group, and one file or a single atom. An atom is a test, or all
/// tests with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Piece {
    #[inline]
    pub(super) fn count(self) -> u32 {
        self.end - self.start
    }
}

/// All tests, ordered by group, file and id; those with the same key follow each other.
pub(super) struct Work<'a> {
    pub(super) suite: &'a Suite,
    pub(super) order: Vec<TestIndex>,
    /// `sums[i]` is the expected duration in seconds of all tests before place `i`.
    pub(super) sums: Vec<f64>,
    /// A number for the file at each place; `None` if the framework has no files.
    files: Vec<Option<u32>>,
    /// Whether the test at each place is of the same atom as the one before.
    joined: Vec<bool>,
}

impl<'a> Work<'a> {
    pub(super) fn new(suite: &'a Suite) -> Work<'a> {
        let mut order: Vec<TestIndex> = suite.indices().collect();
        let homes = homes(suite);
        // Tests with a key are where their first file is.
        let place = |index: &TestIndex| {
            let test = suite.test(*index);
            let (key, file) = (test.shared_key(), test.file.as_deref());
            (test.group, homes[index.0 as usize], key, file.filter(|_| key.is_some()), test.id.as_str())
        };
        order.sort_unstable_by(|one, other| place(one).cmp(&place(other)));
        let mut sums = Vec::with_capacity(order.len() + 1);
        let mut files = Vec::with_capacity(order.len());
        let mut joined = Vec::with_capacity(order.len());
        let (mut sum, mut number) = (0.0, 0);
        sums.push(sum);
        let mut last: Option<&TestCase> = None;
        for index in &order {
            let test = suite.test(*index);
            sum += test.expected.as_secs_f64().max(FLOOR);
            sums.push(sum);
            number += u32::from(last.is_none_or(|last| !same_file(last, test)));
            files.push(test.file.is_some().then_some(number));
            joined.push(last.is_some_and(|last| test.stays_with(last)));
            last = Some(test);
        }
        Work { suite, order, sums, files, joined }
    }

    #[inline]
    pub(super) fn test(&self, place: u32) -> &'a TestCase {
        self.suite.test(self.order[place as usize])
    }

    #[inline]
    pub(super) fn group(&self, piece: Piece) -> GroupIndex {
        self.test(piece.start).group
    }

    /// The expected duration of a piece in seconds.
    #[inline]
    pub(super) fn load(&self, piece: Piece) -> f64 {
        self.sums[piece.end as usize] - self.sums[piece.start as usize]
    }

    /// The expected duration of all tests in seconds.
    pub(super) fn total(&self) -> f64 {
        self.sums.last().copied().unwrap_or_default()
    }

    /// The place and the duration of the longest test in `pieces`, the first one if there are several.
    pub(super) fn longest(&self, pieces: impl IntoIterator<Item = Piece>) -> Option<(u32, f64)> {
        let places = pieces.into_iter().flat_map(|piece| piece.start..piece.end);
        let lengths = places.map(|place| (place, self.load(Piece { start: place, end: place + 1 })));
        lengths.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// The expected duration in seconds of the tests that may share a batch.
    pub(super) fn shared(&self) -> f64 {
        let pieces = self.atoms(self.whole());
        pieces.filter(|piece| !self.test(piece.start).solo).map(|piece| self.load(piece)).sum()
    }

    fn is_joined(&self, place: u32) -> bool {
        self.joined.get(place as usize) == Some(&true)
    }

    pub(super) fn whole(&self) -> Piece {
        Piece { start: 0, end: u32::try_from(self.order.len()).unwrap_or(u32::MAX) }
    }

    #[inline]
    pub(super) fn file(&self, place: u32) -> Option<u32> {
        self.files[place as usize]
    }

    pub(super) fn has_files(&self) -> bool {
        self.files.iter().any(Option::is_some)
    }

    /// The number of files in `pieces`, which must be ordered.
    pub(super) fn count_files(&self, pieces: &[Piece]) -> u32 {
        let mut last = None;
        let mut count = 0;
        for piece in pieces {
            let (first, end) = (self.file(piece.start), self.file(piece.end - 1));
            if let (Some(first), Some(end)) = (first, end) {
                count += end - first + u32::from(Some(first) != last);
            }
            last = end;
        }
        count
    }

    /// Whether no part of a piece may be in another batch.
    pub(super) fn is_atom(&self, piece: Piece) -> bool {
        self.joined[piece.start as usize + 1..piece.end as usize].iter().all(|joined| *joined)
    }

    /// The atoms of a piece.
    pub(super) fn atoms(&self, piece: Piece) -> impl Iterator<Item = Piece> {
        let mut start = piece.start;
        std::iter::from_fn(move || {
            let begin = (start < piece.end).then_some(start)?;
            start += 1;
            while start < piece.end && self.joined[start as usize] {
                start += 1;
            }
            Some(Piece { start: begin, end: start })
        })
    }

    /// One piece for each atom.
    pub(super) fn singles(&self) -> Vec<Piece> {
        self.atoms(self.whole()).collect()
    }

    /// One piece for each file. Atoms that run solo, have no file or take longer than `alone` seconds are separate
    /// pieces.
    pub(super) fn by_file(&self, alone: Option<f64>) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut open = false;
        for single in self.singles() {
            let own = self.test(single.start).solo
                || alone.is_some_and(|alone| self.load(single) > alone)
                || self.file(single.start).is_none();
            match pieces.last_mut() {
                Some(last) if open && !own && self.file(last.start) == self.file(single.start) => {
                    last.end = single.end;
                }
                _ => pieces.push(single),
            }
            open = !own;
        }
        pieces
    }

    /// Splits a piece of several atoms. The first part takes at most `limit` seconds but has at least one atom. If
    /// possible without losing much, the split is between two functions.
    pub(super) fn divide(&self, piece: Piece, limit: f64) -> (Piece, Piece) {
        let from = self.sums[piece.start as usize];
        let inside = &self.sums[piece.start as usize + 1..piece.end as usize];
        let fitting = u32::try_from(inside.partition_point(|sum| sum - from <= limit)).unwrap_or(u32::MAX);
        let mut cut = piece.start + fitting.max(1);
        let enough = limit * (1.0 - GIVEN_UP);
        for earlier in (piece.start + 1..=cut).rev() {
            if self.sums[earlier as usize] - from < enough {
                break;
            }
            if !self.is_joined(earlier) && self.test(earlier - 1).family() != self.test(earlier).family() {
                cut = earlier;
                break;
            }
        }
        let is_border = |place: &u32| !self.is_joined(*place);
        let before = (piece.start + 1..=cut).rev().find(is_border);
        let cut = before.or_else(|| (cut..piece.end).find(is_border)).unwrap_or(cut);
        (Piece { start: piece.start, end: cut }, Piece { start: cut, end: piece.end })
    }
}

/// For each test its file; for one with a key, the first file with a test of that key.
fn homes(suite: &Suite) -> Vec<Option<&str>> {
    let mut of_keys: HashMap<(GroupIndex, &str), Option<&str>> = HashMap::new();
    for test in suite.tests() {
        if let Some(key) = test.shared_key() {
            let home = of_keys.entry((test.group, key)).or_insert(test.file.as_deref());
            *home = (*home).min(test.file.as_deref());
        }
    }
    let of_key = |test: &TestCase| of_keys.get(&(test.group, test.shared_key()?)).copied();
    suite.tests().iter().map(|test| of_key(test).unwrap_or(test.file.as_deref())).collect()
}

fn same_file(one: &TestCase, other: &TestCase) -> bool {
    one.group == other.group && one.file.is_some() && one.file == other.file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{Row, suite};

    fn counts(pieces: &[Piece]) -> Vec<u32> {
        pieces.iter().map(|piece| piece.count()).collect()
    }

    #[test]
    fn a_file_is_split_between_functions_if_one_ends_nearby() {
        let parameters = |name: &str, count: u32| -> Vec<Row> {
            (0..count).map(|number| Row::new(Some("f"), format!("{name}[{number:03}]"), 1000)).collect()
        };
        for (first, limit, fitting) in
            [(38, 40.0, 38), (37, 40.0, 40), (40, 40.0, 40), (1, 0.5, 1), (3, 0.5, 1)]
        {
            let rows = [parameters("a", first), parameters("b", 100 - first)].concat();
            let suite = suite(&rows, &[false]);
            let work = Work::new(&suite);
            let (one, other) = work.divide(work.whole(), limit);
            assert_eq!((one, other), (Piece { start: 0, end: fitting }, Piece { start: fitting, end: 100 }));
        }
    }

    #[test]
    fn tests_of_a_file_are_one_piece_except_for_long_ones() {
        let files = [None, None, Some("f"), Some("f"), Some("f"), Some("f"), Some("g")];
        let mut rows: Vec<Row> =
            (1..).zip(files).map(|(id, file)| Row::new(file, format!("{id}"), 1000)).collect();
        rows[3].millis = Some(2000);
        let suite = suite(&rows, &[false]);
        let work = Work::new(&suite);
        assert_eq!(counts(&work.by_file(None)), [1, 1, 4, 1]);
        assert_eq!(counts(&work.by_file(Some(1.5))), [1, 1, 1, 1, 2, 1]);
        assert_eq!(counts(&work.by_file(Some(2.0))), [1, 1, 4, 1]);
        assert_eq!(work.count_files(&work.by_file(None)), 2);
        assert_eq!(work.longest([work.whole()]), Some((3, 2.0)));
        let rest = Piece { start: 4, end: 7 };
        assert_eq!(work.longest([rest]).map(|(place, _)| place), Some(4), "the first one of equal length");
    }
}
